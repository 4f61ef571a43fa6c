//! A repository, opened in one place: store, format object, keys, commit log.
//!
//! ```text
//!  --repo URL --> store --> counted --> client (repeats) --> format object --> keys (key file, passphrase, none)
//!  --lease-store, if any --------^                |                               |
//!                                                `- commit log <-----------------+
//! ```
//!
//! Invariants: what counts requests sees every one that is sent. Does not: keep anything on this machine (P6), but for what it has seen,
//! where it is told to ([`memory`](crate::engine::memory)). Source: ours.

use std::sync::{Arc, Mutex, PoisonError};

use windlass_agent::format::fault::FormatFaultKind;
use windlass_agent::format::feature::{self, Features};
use windlass_agent::format::home::HOME_KEY;
use windlass_agent::format::repo::{Lock, REPO_FORMAT_COPY_KEY, REPO_FORMAT_KEY, RepoFormat};
use windlass_agent::format::seal::{Keys, Sealing, Secret};
use windlass_agent::format::slot::{Author, HolderKind};
use windlass_agent::format::wrap::KeySlot;
use windlass_agent::id::{Epoch, NodeId, Slot};
use windlass_agent::limits::REPO_FORMAT_BYTES_MAX;
use windlass_agent::log::entries::{self, Entry};
use windlass_agent::log::fault::LogFault;
use windlass_agent::log::lease::{Identity, Seek};
use windlass_agent::log::replay::View;
use windlass_agent::log::sealer::LogSealer;
use windlass_agent::log::session::{Hands, Hold, Session, Start, Surroundings, open_read, open_read_with};
use windlass_agent::log::state::State;
use windlass_agent::log::writer::WriterOptions;
use windlass_agent::store::azure::AzureSettings;
use windlass_agent::store::etcd::EtcdSettings;
use windlass_agent::store::gcs::GcsSettings;
use windlass_agent::store::keyring::CredentialSource;
use windlass_agent::store::open::{OpenFault, SCHEMES, Settings, open as open_store, open_split};
use windlass_agent::store::probe::{ProbeFault, Report, Wrong, probe_again, probe_over, probe_plain};
use windlass_agent::store::retry::{Client, RetryPolicy};
use windlass_agent::store::s3::chain::Chain;
use windlass_agent::store::s3::keys::CredentialSource as S3Source;
use windlass_agent::store::s3::{Addressing, S3Settings};
use windlass_agent::store::split::SplitStore;
use windlass_agent::store::throttle::Throttle;
use windlass_agent::store::{ByteRange, Store, StoreFault, StoreFaultKind};
use windlass_hal::clock::SystemClock;

use crate::engine::calls::SessionCalls;
use crate::engine::host::{self, HostClock};
use crate::engine::memory::{Memory, Seen};
use crate::engine::place::{
    MadeDirectories, check_home, directory_of, identity, mend_format, read_format, refuse_occupied,
    remove_probe_directories, store_failure, store_format,
};
use crate::engine::requests::Counted;
use crate::engine::settings::{Access, Target};
use crate::engine::waiting::{Waiting, ask_the_agent};
use crate::engine::watch::Watch;
use crate::failure::Failure;
use crate::unlock::{self, Given, Pin};
use crate::{logger, signal};

/// Number of the node that a command is, when it acts alone.
pub const NODE: NodeId = NodeId(1);

/// A store that was opened, with everything that is common to its users.
pub struct Opened {
    /// The store, each request counted.
    pub store: Arc<Counted>,
    /// The same with repeats.
    pub client: Arc<Client>,
    /// Its limits, to be set when a policy is known.
    pub throttle: Arc<Throttle>,
    /// Its two parts, uncounted, when the log is in a store of its own.
    pub split: Option<Arc<SplitStore>>,
    /// The same place at further servers, for a probe; on one of its own each.
    others: Vec<Arc<dyn Store>>,
    /// What was opened, as it was named: the store of objects first.
    pub(super) urls: Vec<String>,
}

/// An open repository.
pub struct Repository {
    /// Its store.
    pub opened: Opened,
    /// Its format object.
    pub format: RepoFormat,
    /// Its keys.
    pub keys: Keys,
    clock: SystemClock,
    memory: Option<Memory>,
    accept_older: Option<u64>,
    /// How long to wait for a lock that another one has, in nanoseconds; `None`: as long as its holder is at work.
    wait_ns: Option<u64>,
    /// Whether an agent that has the lock can do the same in place of this command.
    agent_helps: bool,
    /// The log as it was read last: a claim, or who reads it again, begins there.
    last: Mutex<Option<View>>,
}

/// Another key opens the repository.
pub const DOES_NOT_OPEN: &str =
    "this key or passphrase does not open it; check --key-file or --passphrase-file";
/// A session of the commit log.
pub type LogSession<'a> = Session<'a, LogSealer>;

impl Opened {
    /// The store without repeats, for the machines that decide themselves what is repeated.
    pub fn shared(&self) -> Arc<dyn Store> {
        Arc::<Counted>::clone(&self.store)
    }

    /// Opens the store that is named.
    pub fn new(access: impl Into<Access>) -> Result<Opened, Failure> {
        let access = &access.into();
        let url = url(access)?;
        let boot = host::boot()?;
        let clock = HostClock::shared();
        let (upload, download) = (access.upload.unwrap_or(0), access.download.unwrap_or(0));
        let throttle = Arc::new(Throttle::new(Arc::clone(&clock), upload, download));
        let mut settings = Settings::new(Arc::clone(&clock), boot.0);
        settings.throttle = Arc::clone(&throttle);
        settings.s3 = s3_settings(access);
        settings.azure = azure_settings(access);
        settings.gcs = gcs_settings(access);
        settings.etcd = etcd_settings(access)?;
        let split = match &access.lease_store {
            Some(log) => Some(Arc::new(open_split(url, log, &settings).map_err(open_failure)?)),
            None => None,
        };
        let inner: Arc<dyn Store> = match &split {
            Some(split) => Arc::<SplitStore>::clone(split),
            None => open_store(url, &settings).map_err(open_failure)?,
        };
        let watch = Watch::start(Arc::clone(&clock), Arc::clone(&throttle))?;
        let store = Arc::new(Counted::new(inner, watch));
        let shared: Arc<dyn Store> = Arc::<Counted>::clone(&store);
        let client = Arc::new(Client::new(shared, clock, RetryPolicy::DATA, boot.0));
        let urls =
            [Some(url), access.lease_store.as_deref()].into_iter().flatten().map(str::to_owned).collect();
        let others = others(access, url, &settings)?;
        Ok(Opened { store, client, throttle, split, others, urls })
    }

    /// Tests the store that holds the log for all that a log needs, and a store of objects only for what is left.
    pub fn probe(&self) -> Result<Probed, Failure> {
        let probed = self.probe_both();
        self.urls.iter().for_each(|url| remove_probe_directories(url));
        probed
    }

    fn probe_both(&self) -> Result<Probed, Failure> {
        let (clock, boot) = (HostClock::shared(), host::boot()?.0);
        // Its keys go where the log goes.
        let log = probe_over(&*self.store, &self.others, &*clock, boot).map_err(|fault| {
            let about_conditions = fault.is_about_conditions() && self.split.is_none();
            let hint = if about_conditions {
                "; the log of such a store can be kept in etcd, see --lease-store"
            } else {
                ""
            };
            Failure::at(self.log_place(), format_args!("{fault}{hint}"))
        })?;
        let objects = match &self.split {
            None => None,
            Some(split) => {
                let report = probe_plain(&**split.objects(), &*clock, boot);
                Some(report.map_err(|fault| Failure::at(split.objects().describe(), fault))?)
            }
        };
        Ok(Probed { log, objects })
    }

    /// The same at the start of a process that will hold the lease, once. `Err` says what did not answer when nothing is proven either
    /// way.
    pub fn probe_again(&self) -> Result<Result<(), String>, Failure> {
        let (clock, nonce) = (HostClock::shared(), u64::from_le_bytes(host::random()?));
        let place = self.log_place();
        match probe_again(&*self.store, &*clock, nonce) {
            Ok(_) => Ok(Ok(())),
            Err(ProbeFault { wrong: Wrong::Fault(fault), .. }) if fault.is_transient() => {
                Ok(Err(format!("{place}: {fault}")))
            }
            Err(fault) => Err(Failure::at(
                place,
                format_args!(
                    "{fault}; nothing was written to the log: another store, or a fixed one, is needed"
                ),
            )),
        }
    }

    /// Where objects are, for people.
    pub fn objects_place(&self) -> String {
        self.split.as_ref().map_or_else(|| self.store.describe(), |split| split.objects().describe())
    }

    /// Where the log is, for people.
    pub fn log_place(&self) -> String {
        self.split.as_ref().map_or_else(|| self.store.describe(), |split| split.log().describe())
    }
}

/// What the probes of a repository's stores saw.
pub struct Probed {
    /// Of the store that holds the log.
    pub log: Report,
    /// Of the store that holds objects, when that is another one.
    pub objects: Option<Report>,
}

/// A URL that cannot be meant is a usage failure, a directory that is not there is not.
fn open_failure(fault: OpenFault) -> Failure {
    match fault {
        OpenFault::Dir(_) => Failure::new(fault),
        _ => Failure::usage(fault),
    }
}

fn url(access: &Access) -> Result<&str, Failure> {
    access.url.as_deref().ok_or_else(|| {
        Failure::usage(format_args!("no repository; give --repo URL or set WINDLASS_REPO ({SCHEMES})"))
    })
}

/// The store at the further servers that were named.
fn others(access: &Access, url: &str, settings: &Settings) -> Result<Vec<Arc<dyn Store>>, Failure> {
    if access.also_endpoints.is_empty() {
        return Ok(Vec::new());
    }
    if access.endpoint.is_none() || access.lease_store.is_some() {
        return Err(Failure::usage("--also-endpoint needs --endpoint, and is of no use with --lease-store"));
    }
    let servers = access.endpoint.iter().chain(&access.also_endpoints);
    let open = |endpoint: &String| {
        let access = Access { endpoint: Some(endpoint.clone()), ..access.clone() };
        let mut settings = settings.clone();
        settings.s3 = s3_settings(&access);
        settings.azure = azure_settings(&access);
        settings.gcs = gcs_settings(&access);
        open_store(url, &settings).map_err(open_failure)
    };
    servers.map(open).collect()
}

fn etcd_settings(access: &Access) -> Result<EtcdSettings, Failure> {
    let client = match (&access.lease_cert_file, &access.lease_cert_key_file) {
        (None, None) => None,
        (Some(chain), Some(key)) => Some((chain.clone(), key.clone())),
        _ => {
            return Err(Failure::usage("--lease-cert-file and --lease-cert-key-file go together; give both"));
        }
    };
    Ok(EtcdSettings { ca_file: access.lease_ca_file.clone(), client, ..EtcdSettings::default() })
}

fn credentials(access: &Access) -> CredentialSource {
    match &access.credentials_file {
        Some(path) => CredentialSource::File {
            path: path.clone(),
            profile: access.credentials_profile.clone().unwrap_or_else(|| "default".to_owned()),
        },
        None => CredentialSource::Env,
    }
}

fn azure_settings(access: &Access) -> AzureSettings {
    AzureSettings {
        endpoint: access.endpoint.clone(),
        ca_file: access.ca_file.clone(),
        credentials: credentials(access),
        ..AzureSettings::default()
    }
}

fn gcs_settings(access: &Access) -> GcsSettings {
    GcsSettings {
        endpoint: access.endpoint.clone(),
        ca_file: access.ca_file.clone(),
        key_file: access.credentials_file.clone(),
        ..GcsSettings::default()
    }
}

fn s3_settings(access: &Access) -> S3Settings {
    let chain = Chain::new(access.credentials_profile.clone(), |name| std::env::var(name).ok());
    let region = access.region.clone().or_else(|| chain.region().map(str::to_owned));
    let credentials = match &access.credentials_file {
        Some(path) => S3Source::File {
            path: path.clone(),
            profile: access.credentials_profile.clone().unwrap_or_else(|| "default".to_owned()),
        },
        None => S3Source::Chain(chain),
    };
    S3Settings {
        endpoint: access.endpoint.clone(),
        region,
        addressing: if access.path_style { Addressing::Path } else { Addressing::Auto },
        ca_file: access.ca_file.clone(),
        credentials,
        ..S3Settings::default()
    }
}

impl Repository {
    /// Opens the repository that the options name: two requests at most, and a prompt if it needs a passphrase.
    pub fn open(access: impl Into<Access>) -> Result<Repository, Failure> {
        let access = access.into();
        Repository::over(Opened::new(&access)?, &access)
    }

    /// Opens the repository in a store that is open.
    pub fn over(opened: Opened, access: &Access) -> Result<Repository, Failure> {
        Repository::with_key(opened, access).map(|(repository, _)| repository)
    }

    /// The same, and what opened it; `None`: it is not encrypted.
    pub fn with_key(opened: Opened, access: &Access) -> Result<(Repository, Option<Given>), Failure> {
        let found = {
            let _opening = opened.store.watch().opening();
            let found = read_format(&opened)?;
            check_home(&opened, &found.format)?;
            found
        };
        let format = found.format;
        let place = opened.store.describe();
        let memory = memory_of(access, &place)?;
        if let Some(memory) = &memory {
            memory.check_identity(&format.uuid, format.sealing() == Sealing::Aes256Gcm)?;
        }
        let given = match format.sealing() {
            Sealing::Off => unlock::given(access)?,
            Sealing::Aes256Gcm => Some(unlock::asked(access, "Passphrase of the repository")?),
        };
        if let Some(given) = &given {
            given.check(&format, &place)?;
        }
        let keys = format.unlock(given.as_ref().map(|given| &given.unlock)).map_err(|fault| match fault.kind {
            FormatFaultKind::WrongKey => Failure::at(&place, DOES_NOT_OPEN),
            FormatFaultKind::Mode => Failure::at(
                &place,
                "a key was given, but the repository is not encrypted; if that is right leave the key out, \
                 if not somebody has replaced the repository's format object",
            ),
            _ => Failure::at(&place, fault),
        })?;
        if let Some(key) = found.mend {
            mend_format(&opened, &format, key);
        }
        let (clock, accept_older, wait_ns) = (SystemClock, access.accept_older, access.wait_ns);
        let (agent_helps, last) = (true, Mutex::default());
        let repository =
            Repository { opened, format, keys, clock, memory, accept_older, wait_ns, agent_helps, last };
        Ok((repository, given))
    }

    /// Makes a repository in an empty place, or with `force` beside what is there. A key file is made, last of all that can fail, when it
    /// does not exist.
    pub fn init(
        access: impl Into<Access>,
        encrypt: bool,
        location_blocks: u8,
        force: bool,
    ) -> Result<Repository, Failure> {
        let access = &access.into();
        let given = if encrypt { Some(unlock::for_new(access)?) } else { None };
        if !encrypt && unlock::given(access)?.is_some() {
            return Err(Failure::usage("--no-encryption with a key makes no sense; leave one of them out"));
        }
        let mut made = MadeDirectories::default();
        for url in [Some(url(access)?), access.lease_store.as_deref()].into_iter().flatten() {
            // Anything but an absolute path is refused when the store is opened.
            if let Some(path) = directory_of(url) {
                made.make(path)?;
            }
        }
        let opened = Opened::new(access)?;
        refuse_occupied(&opened, url(access)?, force)?;
        if let Some(given) = &given {
            given.check_room()?;
        }
        opened.probe()?;
        let (uuid, master) = (host::random()?, Secret::new(host::random()?));
        let lock = match &given {
            None => Lock::Clear(master),
            Some(given) => {
                let slot = KeySlot::wrap(&master, &given.unlock, &uuid, host::random()?);
                Lock::Slots(vec![slot.map_err(Failure::new)?])
            }
        };
        let format = RepoFormat {
            uuid,
            created_secs: HostClock.wall_ns() / 1_000_000_000,
            location_blocks,
            store_identity: identity(opened.objects_place()),
            lease_store: opened.split.as_ref().map_or_else(String::new, |_| identity(opened.log_place())),
            lock,
            features: Features::new(),
        };
        let keys = format.unlock(given.as_ref().map(|given| &given.unlock)).map_err(Failure::new)?;
        let memory = memory_of(access, &opened.store.describe())?;
        // A repository without its key is worth nothing, a key without its repository costs nothing: so the key is first.
        if let Some(given) = &given {
            given.save(Pin::of(&format))?;
        }
        if let Err((failure, may_exist)) = store_format(&opened, &format) {
            match &given {
                Some(given) if may_exist && given.is_new() => {
                    logger::say(
                        "windlass: the key file stays: the store may have made the repository after all",
                    );
                }
                Some(given) => given.unsave(),
                None => {}
            }
            return Err(failure);
        }
        made.keep();
        let repository = Repository {
            opened,
            format,
            keys,
            clock: SystemClock,
            memory,
            accept_older: access.accept_older,
            wait_ns: None,
            agent_helps: true,
            last: Mutex::default(),
        };
        repository.remember(Epoch(0), Slot(0))?;
        Ok(repository)
    }

    /// What an engine uses of it.
    pub fn target(&self) -> Target {
        Target {
            store: self.opened.shared(),
            client: Arc::clone(&self.opened.client),
            throttle: Arc::clone(&self.opened.throttle),
            keys: self.keys.clone(),
            cluster: self.format.uuid,
            read_only: self.options().read_only,
            row_blocks: self.format.location_blocks.into(),
        }
    }

    /// How long to wait for a lock that another one has, in nanoseconds; `None`: as long as its holder is at work.
    pub fn wait_for_lock(&mut self, wait_ns: Option<u64>) {
        self.wait_ns = wait_ns;
    }

    /// The same for what no agent does: at most so long where `--wait` says nothing, as an agent at work has the lock for hours.
    pub fn wait_without_agent(&mut self, most_ns: u64) {
        self.wait_ns = self.wait_ns.or(Some(most_ns));
        self.agent_helps = false;
    }

    /// The clock that sessions are driven by.
    pub fn clock(&self) -> &SystemClock {
        &self.clock
    }

    fn around(&self) -> Surroundings<'_> {
        Surroundings { store: &*self.opened.store, clock: &self.clock }
    }

    /// The log's state as of a moment ago, without a lease.
    pub fn view(&self) -> Result<View, Failure> {
        let view = self.read_log(|fault| logger::say(format_args!("windlass: {fault}")));
        let view = view.map_err(|fault| self.log_failure(&fault))?;
        if self.memory.is_some() {
            self.check_age_of(&view)?;
            self.remember(view.state.epoch, view.head)?;
        }
        Ok(view)
    }

    /// Refuses a log that is older than what this machine has seen of it, where that is kept: before anything is written.
    pub fn check_age(&self) -> Result<(), Failure> {
        match (self.last_view(), self.memory.is_some()) {
            (Some(view), _) => self.check_age_of(&view),
            (None, true) => self.view().map(drop),
            (None, false) => Ok(()),
        }
    }

    fn check_age_of(&self, view: &View) -> Result<(), Failure> {
        let Some(memory) = &self.memory else { return Ok(()) };
        memory.check_age(&self.format.uuid, view.state.epoch, view.head, self.accept_older)
    }

    /// Remembers how far the log has come, where there is a place to.
    fn remember(&self, epoch: Epoch, slot: Slot) -> Result<(), Failure> {
        let Some(memory) = &self.memory else { return Ok(()) };
        let encrypted = self.format.sealing() == Sealing::Aes256Gcm;
        memory.remember(Seen { repository: self.format.uuid, encrypted, epoch, slot })
    }

    /// The same, with the log's own fault; `warn` hears what was lost and found elsewhere.
    pub fn read_log(&self, warn: impl FnMut(LogFault)) -> Result<View, LogFault> {
        let _opening = self.opened.store.watch().opening();
        let (around, cluster, sealer) = (self.around(), self.format.uuid, LogSealer::new(&self.keys));
        let view = match SessionCalls::reading(&self.opened.shared()) {
            Ok(mut hands) => open_read_with(around, &mut hands, cluster, sealer, self.last_view(), warn),
            // Without threads to give, all is done on this one.
            Err(_) => open_read(around, cluster, sealer, warn),
        }?;
        self.keep_view(&view);
        Ok(view)
    }

    /// What its log says was done, slot by slot; the boundary of the log.
    ///
    /// # Errors
    /// What the store says when it cannot list or read.
    pub fn read_entries(&self, each: &mut dyn FnMut(Result<Vec<Entry>, Slot>)) -> Result<Slot, StoreFault> {
        entries::read(&self.opened.client, &self.format.uuid, &LogSealer::new(&self.keys), each)
    }

    /// The state on which these are built, where it can be read.
    ///
    /// # Errors
    /// What the store says when it cannot read.
    pub fn first_state(&self) -> Result<Option<State>, StoreFault> {
        entries::first_state(&self.opened.client, &self.format.uuid, &LogSealer::new(&self.keys))
    }

    /// What was read or written of the log last: who reads it next begins there.
    pub fn keep_view(&self, view: &View) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(view.clone());
    }

    fn last_view(&self) -> Option<View> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How its log is written, if this program may.
    pub fn options(&self) -> WriterOptions {
        WriterOptions { read_only: feature::not_to_write(&self.format.features), ..WriterOptions::default() }
    }

    /// Takes the lease without the log, which is damaged.
    pub fn hold(&self, from: Seek) -> Result<(Hold<'_>, Author), Failure> {
        let me = Author { node: NODE, boot: host::boot()? };
        let identity = Identity { cluster: self.format.uuid, me, who: host::who(HolderKind::Command) };
        let WriterOptions { timing, read_only, .. } = self.options();
        if let Some(feature) = read_only {
            return Err(self.log_failure(&LogFault::ReadOnly { feature }));
        }
        let mut waiting = self.waiting();
        let hold = Hold::claim(self.around(), identity, timing, from, host::random()?, |held, left_ns| {
            waiting.goes_on(HostClock.boot_ns(), held, left_ns)
        });
        hold.map(|hold| (hold, me)).map_err(|fault| self.log_failure(&fault))
    }

    /// Takes the lease. While another one has it and is at work, it waits as long as it was told to, says so, and goes on as soon as that
    /// one lets go; one that died is noticed within 17 s. A signal ends it.
    pub fn claim(&self) -> Result<LogSession<'_>, Failure> {
        self.check_age()?;
        let _opening = self.opened.store.watch().opening();
        self.try_claim(&mut self.waiting()).map_err(|fault| self.not_claimed(&fault))
    }

    /// For a lease that another one may have: as long as was said.
    pub fn waiting(&self) -> Waiting {
        Waiting::new(self.wait_ns, self.agent_helps)
    }

    /// For one that was lost.
    pub fn waiting_again(&self) -> Waiting {
        self.waiting().again()
    }

    fn try_claim(&self, waiting: &mut Waiting) -> Result<LogSession<'_>, LogFault> {
        let me = Author { node: NODE, boot: host::boot().map_err(|_| LogFault::NotReady)? };
        let identity = Identity { cluster: self.format.uuid, me, who: host::who(HolderKind::Command) };
        let start = Start { seed: host::random().map_err(|_| LogFault::NotReady)?, view: self.last_view() };
        let (sealer, options) = (LogSealer::new(&self.keys), self.options());
        // Without threads to give, all is done on this one.
        let hands =
            SessionCalls::start(&self.opened.shared()).ok().map(|calls| Box::new(calls) as Box<dyn Hands>);
        Session::claim(self.around(), hands, identity, sealer, options, start, |held, left_ns| {
            waiting.goes_on(HostClock.boot_ns(), held, left_ns)
        })
    }

    /// Why the lease was not to be had.
    pub fn not_claimed(&self, fault: &LogFault) -> Failure {
        let place = self.opened.store.describe();
        match fault {
            LogFault::Held { .. } if signal::is_asked() => {
                Failure::at(place, "stopped while waiting for the repository's lock")
            }
            LogFault::Held { watched_ns: 0, .. } => Failure::at(
                place,
                format_args!(
                    "{fault}; wait for it with --wait TIME: 20 s or more also take over from one that died{}",
                    ask_the_agent(fault, self.agent_helps)
                ),
            ),
            LogFault::Held { .. } => Failure::at(
                place,
                format_args!(
                    "{fault}; wait for it with --wait TIME, or as long as it takes without --wait and --no-wait{}",
                    ask_the_agent(fault, self.agent_helps)
                ),
            ),
            _ => self.log_failure(fault),
        }
    }

    /// Why the log cannot be used: in the store's own words where it is the store that does not do what is asked.
    fn log_failure(&self, fault: &LogFault) -> Failure {
        let place = self.opened.log_place();
        match (fault, self.opened.store.watch().words()) {
            (LogFault::Store { .. }, Some(words)) => store_failure(place, &words),
            _ => Failure::at(place, fault),
        }
    }

    /// Does `work` under the lease and gives the lease back, however it went.
    pub fn with_session<T>(
        &self,
        work: impl FnOnce(&mut LogSession<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut session = self.claim()?;
        let result = work(&mut session);
        let view = session.view();
        let remembered = self.remember(view.state.epoch, view.head);
        self.keep_view(view);
        release(session);
        result.and_then(|done| remembered.map(|()| done))
    }

    /// Stores the `format` object and its copy again where one is missing or not whole. Returns the names of those that were.
    pub fn mend_format(&self) -> Result<Vec<&'static str>, Failure> {
        let body = self.format.emit();
        let mut mended = Vec::new();
        for key in [REPO_FORMAT_KEY, REPO_FORMAT_COPY_KEY] {
            let mut stored = Vec::new();
            let range = ByteRange::From { offset: 0, len: 2 * REPO_FORMAT_BYTES_MAX as u64 + 1 };
            let same = match self.opened.client.get(key, range, &mut stored) {
                Ok(_) => stored == [&body[..], &body[..]].concat(),
                Err(fault) if fault.kind == StoreFaultKind::NotFound => false,
                Err(fault) => return Err(Failure::at(self.opened.objects_place(), fault)),
            };
            if !same {
                self.opened.client.put_replace(key, &[&body, &body]).map_err(Failure::new)?;
                mended.push(key);
            }
        }
        Ok(mended)
    }
}

/// Where what was seen of the repository at `place` is kept, if anywhere.
fn memory_of(access: &Access, place: &str) -> Result<Option<Memory>, Failure> {
    access.state_dir.as_deref().map(|dir| Memory::of(dir, place)).transpose()
}

/// Lets whoever comes next begin at once. What was committed counts either way, so a failure is only worth a warning.
pub fn release(session: LogSession<'_>) {
    if let Err(fault) = session.release(None) {
        logger::say(format_args!(
            "windlass: could not release the repository's lock; the next command may wait 17 s for it: {fault}"
        ));
    }
}

/// Asks the store, and that of the log if it is another, for one object without repeats: whether it answers, whatever it says. `Err`: what does
/// not.
pub fn answers(opened: &Opened) -> Result<(), String> {
    let ask = |key: &str, place: String| match opened.store.get(key, ByteRange::Last(1), &mut Vec::new()) {
        Err(fault) if fault.is_transient() => Err(format!("{place}: {fault}")),
        _ => Ok(()),
    };
    ask(REPO_FORMAT_KEY, opened.objects_place())?;
    if opened.split.is_some() { ask(HOME_KEY, opened.log_place()) } else { Ok(()) }
}
