//! A repository, opened in one place: store, format object, keys, commit log.
//!
//! ```text
//!  --repo URL --> store --> counted --> client (repeats) --> format object --> keys (key file, passphrase, none)
//!  --lease-store, if any --------^                |                               |
//!                                                `- commit log <-----------------+
//! ```
//!
//! Invariants: a secret is read from a file or a terminal and never printed; what counts requests sees every one that is sent.
//! Does not: keep anything on this machine (P6). Source: ours.

use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use windlass_agent::format::fault::FormatFaultKind;
use windlass_agent::format::home::{self, HOME_BYTES, HOME_KEY};
use windlass_agent::format::repo::{Lock, REPO_FORMAT_KEY, RepoFormat};
use windlass_agent::format::seal::{KEY_BYTES, Keys, Sealing, Secret};
use windlass_agent::format::slot::Author;
use windlass_agent::format::wrap::{KeySlot, Passphrase, Unlock};
use windlass_agent::id::NodeId;
use windlass_agent::limits::{REPO_FORMAT_BYTES_MAX, STORE_IDENTITY_BYTES_MAX};
use windlass_agent::log::fault::LogFault;
use windlass_agent::log::lease::Identity;
use windlass_agent::log::replay::View;
use windlass_agent::log::sealer::LogSealer;
use windlass_agent::log::session::{Session, Surroundings, open_read};
use windlass_agent::log::writer::WriterOptions;
use windlass_agent::store::etcd::EtcdSettings;
use windlass_agent::store::open::{OpenFault, Settings, open as open_store, open_split};
use windlass_agent::store::probe::{ProbeFault, Report, Wrong, probe, probe_again, probe_plain};
use windlass_agent::store::retry::{Client, RetryPolicy};
use windlass_agent::store::s3::keys::CredentialSource;
use windlass_agent::store::s3::{Addressing, S3Settings};
use windlass_agent::store::split::SplitStore;
use windlass_agent::store::throttle::Throttle;
use windlass_agent::store::{ByteRange, Store, StoreFault, StoreFaultKind};
use windlass_hal::clock::SystemClock;

use crate::args::global::Global;
use crate::args::value::Rate;
use crate::failure::Failure;
use crate::host::{self, HostClock};
use crate::requests::Counted;
use crate::watch::Watch;
use crate::{logger, prompt, text};

/// How the first questions to a repository's store are repeated: [`OPENING_NS`](crate::watch::OPENING_NS) in all.
const OPENING: RetryPolicy =
    RetryPolicy { backoff_min_ms: 100, backoff_max_ms: 3_000, budget_ms: 30_000, attempts_max: 64 };
/// The node's number: one node for now.
const NODE: NodeId = NodeId(1);
/// Largest passphrase file in bytes; a larger one is some other file.
const PASSPHRASE_FILE_BYTES_MAX: u64 = 4096;

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
}

/// A session of the commit log.
pub type LogSession<'a> = Session<'a, LogSealer>;

impl Opened {
    /// The store without repeats, for the machines that decide themselves what is repeated.
    pub fn shared(&self) -> Arc<dyn Store> {
        Arc::<Counted>::clone(&self.store)
    }

    /// Opens the store that `--repo` names.
    pub fn new(global: &Global) -> Result<Opened, Failure> {
        let url = url(global)?;
        let boot = host::boot()?;
        let clock = HostClock::shared();
        let limit = |rate: Option<Rate>| rate.map_or(0, |rate| rate.0);
        let throttle =
            Arc::new(Throttle::new(Arc::clone(&clock), limit(global.limit_up), limit(global.limit_down)));
        let mut settings = Settings::new(Arc::clone(&clock), boot.0);
        settings.throttle = Arc::clone(&throttle);
        settings.s3 = s3_settings(global);
        settings.etcd = etcd_settings(global)?;
        let split = match &global.lease_store {
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
        Ok(Opened { store, client, throttle, split })
    }

    /// Tests the store that holds the log for all that a log needs, and a store of objects only for what is left.
    pub fn probe(&self) -> Result<Probed, Failure> {
        let (clock, boot) = (HostClock::shared(), host::boot()?.0);
        // Its keys go where the log goes.
        let log = probe(&*self.store, &*clock, boot).map_err(|fault| {
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

fn url(global: &Global) -> Result<&str, Failure> {
    global.repo.as_deref().ok_or_else(|| {
        Failure::usage(
            "no repository; give --repo URL or set WINDLASS_REPO (file:///path or s3://bucket/prefix)",
        )
    })
}

fn etcd_settings(global: &Global) -> Result<EtcdSettings, Failure> {
    let client = match (&global.lease_cert_file, &global.lease_cert_key_file) {
        (None, None) => None,
        (Some(chain), Some(key)) => Some((chain.clone(), key.clone())),
        _ => {
            return Err(Failure::usage("--lease-cert-file and --lease-cert-key-file go together; give both"));
        }
    };
    Ok(EtcdSettings { ca_file: global.lease_ca_file.clone(), client, ..EtcdSettings::default() })
}

fn s3_settings(global: &Global) -> S3Settings {
    let credentials = match &global.credentials_file {
        Some(path) => CredentialSource::File {
            path: path.clone(),
            profile: global.profile.clone().unwrap_or_else(|| "default".to_owned()),
        },
        None => CredentialSource::Env,
    };
    S3Settings {
        endpoint: global.endpoint.clone(),
        region: global.region.clone(),
        addressing: if global.path_style { Addressing::Path } else { Addressing::Auto },
        ca_file: global.ca_file.clone(),
        credentials,
        ..S3Settings::default()
    }
}

impl Repository {
    /// Opens the repository that the options name: two requests at most, and a prompt if it needs a passphrase.
    pub fn open(global: &Global) -> Result<Repository, Failure> {
        Repository::over(Opened::new(global)?, global)
    }

    /// Opens the repository in a store that is open.
    pub fn over(opened: Opened, global: &Global) -> Result<Repository, Failure> {
        let format = {
            let _opening = opened.store.watch().opening();
            let format = read_format(&opened)?;
            check_home(&opened, &format)?;
            format
        };
        let unlock = match format.sealing() {
            Sealing::Off => unlock_given(global, false)?,
            Sealing::Aes256Gcm => Some(unlock_asked(global, "Passphrase of the repository")?),
        };
        let keys = format.unlock(unlock.as_ref()).map_err(|fault| {
            let place = opened.store.describe();
            match fault.kind {
                FormatFaultKind::WrongKey => {
                    Failure::at(place, "this key or passphrase does not open it; check --key-file or --passphrase-file")
                }
                FormatFaultKind::Mode => Failure::at(
                    place,
                    "a key was given, but the repository is not encrypted; if that is right leave the key out, \
                     if not somebody has replaced the repository's format object",
                ),
                _ => Failure::at(place, fault),
            }
        })?;
        Ok(Repository { opened, format, keys, clock: SystemClock })
    }

    /// Makes a repository. The key file is made when it does not exist.
    pub fn init(global: &Global, encrypt: bool, location_blocks: u8) -> Result<Repository, Failure> {
        let unlock = if encrypt { Some(unlock_new(global)?) } else { None };
        if !encrypt && unlock_given(global, false)?.is_some() {
            return Err(Failure::usage("--no-encryption with a key makes no sense; leave one of them out"));
        }
        for url in [Some(url(global)?), global.lease_store.as_deref()].into_iter().flatten() {
            if let Some(("file" | "null", path)) = url.split_once("://") {
                fs::create_dir_all(path).map_err(|error| Failure::at(path, error))?;
            }
        }
        let opened = Opened::new(global)?;
        let (uuid, master) = (host::random()?, Secret::new(host::random()?));
        let lock = match &unlock {
            None => Lock::Clear(master),
            Some(unlock) => {
                let slot = KeySlot::wrap(&master, unlock, &uuid, host::random()?);
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
        };
        let keys = format.unlock(unlock.as_ref()).map_err(Failure::new)?;
        refuse_occupied(&opened)?;
        opened.probe()?;
        if opened.split.is_some() {
            // First, so that a repository that can be seen has its log's home.
            opened.client.put_unique(HOME_KEY, &[&home::emit(&uuid)]).map_err(|fault| match fault.kind {
                StoreFaultKind::Exists => home_taken(&opened),
                _ => Failure::new(fault),
            })?;
        }
        let body = format.emit();
        opened.client.put_unique(REPO_FORMAT_KEY, &[&body, &body]).map_err(|fault| match fault.kind {
            StoreFaultKind::Exists => occupied(&opened),
            _ => Failure::new(fault),
        })?;
        Ok(Repository { opened, format, keys, clock: SystemClock })
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
        let _opening = self.opened.store.watch().opening();
        open_read(self.around(), self.format.uuid, LogSealer::new(&self.keys))
            .map_err(|fault| self.log_failure(&fault))
    }

    /// Takes the lease, waiting for a holder that may have died; says so while it waits.
    pub fn claim(&self) -> Result<LogSession<'_>, Failure> {
        let me = Author { node: NODE, boot: host::boot()? };
        let identity = Identity { cluster: self.format.uuid, me };
        let mut said = false;
        let _opening = self.opened.store.watch().opening();
        let session = Session::claim(
            self.around(),
            identity,
            LogSealer::new(&self.keys),
            WriterOptions::default(),
            host::random()?,
            |held, left_ns| {
                if let (false, LogFault::Held { holder, .. }) = (said, held) {
                    said = true;
                    let node = holder.map_or_else(String::new, |holder| format!(" (node {})", holder.node));
                    logger::say(format_args!(
                        "windlass: the repository is locked by another windlass{node}; waiting up to {} s to see if it still runs",
                        left_ns.div_ceil(1_000_000_000)
                    ));
                }
                // A second look at a beat that moved on means that the holder lives: waiting longer is not ours to decide.
                matches!(held, LogFault::Held { watched_ns: 0, .. })
            },
        );
        session.map_err(|fault| self.log_failure(&fault))
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
        release(session);
        result
    }
}

/// Lets whoever comes next begin at once. What was committed counts either way, so a failure is only worth a warning.
pub fn release(session: LogSession<'_>) {
    if let Err(fault) = session.release(None) {
        log::warn!(
            "could not release the repository's lock; the next command may wait for it to run out fault=\"{fault}\""
        );
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

/// Why a call to the store at `place` failed. That nothing came back is said without the name of the object that was asked for.
fn store_failure(place: impl fmt::Display, fault: &StoreFault) -> Failure {
    match fault.kind {
        StoreFaultKind::ReadOnly => {
            Failure::at(place, "cannot write to the repository: read-only file system")
        }
        _ if fault.is_transient() && !fault.detail.is_empty() => Failure::at(place, &fault.detail),
        _ => Failure::at(place, fault),
    }
}

fn read_format(opened: &Opened) -> Result<RepoFormat, Failure> {
    let mut bytes = Vec::new();
    let range = ByteRange::From { offset: 0, len: 2 * REPO_FORMAT_BYTES_MAX as u64 + 1 };
    let place = || opened.store.describe();
    opened.client.with_policy(OPENING).get(REPO_FORMAT_KEY, range, &mut bytes).map_err(
        |fault| match fault.kind {
            StoreFaultKind::NotFound => Failure::at(
                place(),
                "there is no repository here; check the URL, or make one with `windlass repo init`",
            ),
            _ => store_failure(place(), &fault),
        },
    )?;
    RepoFormat::parse_stored(&bytes).map_err(|fault| Failure::at(place(), fault))
}

/// Cut for the format object: it is for people there.
fn identity(mut place: String) -> String {
    let cut = (0..=STORE_IDENTITY_BYTES_MAX).rev().find(|&at| place.is_char_boundary(at)).unwrap_or(0);
    place.truncate(cut);
    place
}

/// Refuses a repository whose log is not where this command would look for it: it would begin a second one.
fn check_home(opened: &Opened, format: &RepoFormat) -> Result<(), Failure> {
    let place = opened.objects_place();
    let split = match (&opened.split, format.lease_store.as_str()) {
        (None, "") => return Ok(()),
        (None, known) => {
            return Err(Failure::usage(format_args!(
                "{place}: this repository keeps its log in a lease store ({known} when it was made); give \
                 --lease-store URL or set WINDLASS_LEASE_STORE"
            )));
        }
        (Some(_), "") => {
            return Err(Failure::usage(format_args!(
                "{place}: this repository keeps its log in its own store; leave --lease-store out"
            )));
        }
        (Some(split), _) => split,
    };
    let (log, mut bytes) = (split.log().describe(), Vec::new());
    let range = ByteRange::From { offset: 0, len: HOME_BYTES as u64 + 1 };
    opened.client.with_policy(OPENING).get(HOME_KEY, range, &mut bytes).map_err(|fault| match fault.kind {
        StoreFaultKind::NotFound => Failure::at(
            &log,
            format_args!(
                "there is no log of {place} here; check --lease-store (it was {} when the repository was made), or \
                 bring its data back: without it the repository cannot be opened",
                format.lease_store
            ),
        ),
        _ => store_failure(&log, &fault),
    })?;
    match home::parse(&bytes) {
        Ok(uuid) if uuid == format.uuid => Ok(()),
        Ok(uuid) => Err(Failure::at(
            &log,
            format_args!(
                "this is the log of repository {}, not of {} at {place}; check --lease-store",
                text::uuid(&uuid),
                text::uuid(&format.uuid)
            ),
        )),
        Err(fault) => Err(Failure::at(&log, fault)),
    }
}

fn home_taken(opened: &Opened) -> Failure {
    Failure::at(
        opened.log_place(),
        "there is the log of a repository already; choose another prefix for --lease-store",
    )
}

/// Refuses a place where a repository is already, before a probe writes to it.
fn refuse_occupied(opened: &Opened) -> Result<(), Failure> {
    let client = opened.client.with_policy(OPENING);
    let _opening = opened.store.watch().opening();
    let taken = |key| match client.get(key, ByteRange::Last(1), &mut Vec::new()) {
        Ok(_) => Ok(true),
        Err(fault) if fault.kind == StoreFaultKind::NotFound => Ok(false),
        Err(fault) => Err(store_failure(opened.store.describe(), &fault)),
    };
    if taken(REPO_FORMAT_KEY)? {
        return Err(occupied(opened));
    }
    if opened.split.is_some() && taken(HOME_KEY)? { Err(home_taken(opened)) } else { Ok(()) }
}

fn occupied(opened: &Opened) -> Failure {
    Failure::at(
        opened.objects_place(),
        "there is a repository already; use it, or choose another path or prefix",
    )
}

/// What opens the repository, as far as it was given by options.
fn unlock_given(global: &Global, make: bool) -> Result<Option<Unlock>, Failure> {
    match (&global.key_file, &global.passphrase_file) {
        (Some(_), Some(_)) => {
            Err(Failure::usage("a key file and a passphrase file were given; leave one of them out"))
        }
        (Some(path), None) if make && !path.exists() => make_key_file(path).map(Some),
        (Some(path), None) => read_key_file(path).map(Some),
        (None, Some(path)) => read_passphrase(path).map(Some),
        (None, None) => Ok(None),
    }
}

/// Whether what opens the repository can be read, as far as options name it.
pub fn check_unlock(global: &Global) -> Result<(), Failure> {
    unlock_given(global, false).map(drop)
}

fn unlock_asked(global: &Global, question: &str) -> Result<Unlock, Failure> {
    if let Some(unlock) = unlock_given(global, false)? {
        return Ok(unlock);
    }
    let typed = prompt::passphrase(question)?;
    typed.map(Unlock::Passphrase).ok_or_else(|| {
        Failure::usage(
            "the repository is encrypted; give --key-file or --passphrase-file (there is no terminal to ask)",
        )
    })
}

fn unlock_new(global: &Global) -> Result<Unlock, Failure> {
    if let Some(unlock) = unlock_given(global, true)? {
        return Ok(unlock);
    }
    let none = || {
        Failure::usage(
            "give --key-file (made if it does not exist) or --passphrase-file, or say --no-encryption",
        )
    };
    let first = prompt::typed("New passphrase of the repository")?.ok_or_else(none)?;
    let second = prompt::typed("Once more")?.ok_or_else(none)?;
    if *first != *second {
        return Err(Failure::new("the two passphrases differ; start over"));
    }
    Ok(Unlock::Passphrase(Passphrase::new(first.to_vec())))
}

/// A key file holds 64 hex digits, so that it can be printed and typed; 32 raw bytes are read as well.
fn read_key_file(path: &Path) -> Result<Unlock, Failure> {
    let wrong =
        || Failure::at(path.display(), "not a key file (64 hex digits or 32 bytes); check --key-file");
    let bytes = read_secret(path, 128)?;
    if let Ok(raw) = <[u8; KEY_BYTES]>::try_from(&bytes[..]) {
        return Ok(Unlock::KeyFile(Secret::new(raw)));
    }
    let digits = bytes.trim_ascii();
    let mut key = [0; KEY_BYTES];
    if digits.len() != 2 * KEY_BYTES {
        return Err(wrong());
    }
    for (byte, pair) in key.iter_mut().zip(digits.chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(Unlock::KeyFile(Secret::new(key)))
}

fn make_key_file(path: &Path) -> Result<Unlock, Failure> {
    let key: [u8; KEY_BYTES] = host::random()?;
    let failed = |error: std::io::Error| Failure::at(path.display(), error);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    writeln!(file, "{}", text::hex(&key)).and_then(|()| file.sync_all()).map_err(failed)?;
    logger::say(format_args!("windlass: made the key file {}; keep a copy of it elsewhere", path.display()));
    Ok(Unlock::KeyFile(Secret::new(key)))
}

fn read_passphrase(path: &Path) -> Result<Unlock, Failure> {
    let passphrase = read_secret(path, PASSPHRASE_FILE_BYTES_MAX)?;
    if passphrase.trim_ascii().is_empty() {
        return Err(Failure::at(path.display(), "the passphrase file is empty"));
    }
    Ok(Unlock::Passphrase(Passphrase::new(passphrase)))
}

fn read_secret(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| Failure::at(path.display(), error);
    let file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if meta.is_file() && meta.mode() & 0o077 != 0 {
        let path = path.display();
        log::warn!("{path} is readable by other users; run chmod 600 {path}");
    }
    let mut bytes = Vec::with_capacity(bytes_max as usize + 1);
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        return Err(Failure::at(path.display(), "too large for a key or passphrase; check the path"));
    }
    Ok(bytes)
}
