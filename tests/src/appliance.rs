//! An appliance in this process: a repository on any store, backups of images into it, restores out of it.
//!
//! ```text
//!  image --> device [--> Faulty] --> volume --> engine::backup --> [KillStore | FaultStore] --> store
//!                                  directory <-- restore::walk <--'
//! ```
//!
//! Everything is composed as the command line composes it, with times that a test can wait for: leases of about a second, and
//! a reactor whose clock runs [`Setup::speed`] times faster than the machine's, so that commits which are due every minute are
//! due every few milliseconds. Source: ours.

use std::fmt;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use windlass_agent::drive::budget::Budget;
use windlass_agent::drive::job::{self, Machinery, VolumeJob};
use windlass_agent::drive::volume::Reactor;
use windlass_agent::format::feature::Features;
use windlass_agent::format::record::{PolicyChange, Record};
use windlass_agent::format::repo::{Lock, REPO_FORMAT_KEY, RepoFormat};
use windlass_agent::format::seal::{Keys, Secret};
use windlass_agent::format::slot::{Author, Who};
use windlass_agent::format::wrap::{KeySlot, Unlock};
use windlass_agent::id::{BackupId, Boot, Lin, NodeId, VolumeId};
use windlass_agent::log::fault::LogFault;
use windlass_agent::log::keys::bytes_max;
use windlass_agent::log::lease::{Identity, Timing};
use windlass_agent::log::replay::View;
use windlass_agent::log::sealer::LogSealer;
use windlass_agent::log::session::{Session, Surroundings, open_read};
use windlass_agent::log::state::State;
use windlass_agent::log::writer::WriterOptions;
use windlass_agent::pack::link::LinkRate;
use windlass_agent::pack::object::NameCounter;
use windlass_agent::pack::proof::PROVE_EVERY;
use windlass_agent::policy::select::{Patterns, Unmatched};
use windlass_agent::policy::{Compression, Policy, PolicyVolume, Reader};
use windlass_agent::progress::Progress;
use windlass_agent::read::lookup::Lookup;
use windlass_agent::restore::walk::{self, RestoreReport, Root};
use windlass_agent::restore::{file::RestoreOptions, owners::OwnerMap, place::Protected, target::Existing};
use windlass_agent::store::dir::DirStore;
use windlass_agent::store::retry::{Client, RetryPolicy};
use windlass_agent::store::throttle::Throttle;
use windlass_agent::store::uplink::{Uplink, UplinkSettings};
use windlass_agent::store::{ByteRange, Store};
use windlass_agent::table::read::TableReader;
use windlass_agent::table::source::TableLimits;
use windlass_agent::worker::backup::{COMMIT_INTERVAL_NS, COMMIT_OBJECTS, COMMIT_PAUSE_NS};
use windlass_agent::worker::base::{Earlier, PointRows};
use windlass_board::engine::backup::{self as engine, Listener, Report};
use windlass_board::engine::host::{self, HostClock};
use windlass_board::engine::limits::{Iops, StoreLimits};
use windlass_board::engine::machinery::HostReactor;
use windlass_board::engine::settings::{Settings, Target};
use windlass_board::engine::volumes::{Opened, Selectable, Volumes};
use windlass_board::engine::worker::Work;
use windlass_board::failure::Failure;
use windlass_hal::block::BlockDevice;
use windlass_hal::buf::Pool;
use windlass_hal::clock::SystemClock;
use windlass_hal::linux::{self, Access};
use windlass_hal::volume::image::Image;
use windlass_hal::volume::{Volume, detect};
use windlass_hal::wrap::fault::Faulty;

use crate::error::{Context, Error, Result, output};
use crate::fixture::{noise, prose};
use crate::image::make_ext4;
use crate::privilege::is_root;
use crate::tree;

/// The one policy.
pub const POLICY: &str = "test";
/// Its one volume.
pub const VOLUME: VolumeId = VolumeId(1);
/// Blocks per location row.
pub const ROW_BLOCKS: u32 = 10;
/// What the policy calls it.
const DEVICE: &str = "device";
/// By which rules items are taken: always the same.
const RULES: [u8; 16] = [0; 16];
/// Cores that pack.
const CORES: usize = 2;
const MIB: u64 = 1 << 20;
const MILLISECOND_NS: u64 = 1_000_000;
/// Longest wait for somebody else's lease, in nanoseconds.
const CLAIM_NS_MAX: u64 = 60_000 * MILLISECOND_NS;

/// How a repository is made and used.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// AES-256-GCM, with a key file.
    pub encrypted: bool,
    /// zstd level; `None` stores plain.
    pub level: Option<i32>,
    /// Block size in bytes.
    pub block_bytes: u32,
    /// Object size in bytes.
    pub object_bytes: u32,
    /// Budget of backups and restores in bytes.
    pub memory: u64,
    /// How calls for data are repeated.
    pub retry: RetryPolicy,
    /// Times of the lease.
    pub timing: Timing,
    /// How much faster than the machine's the backup's clock runs.
    pub speed: u64,
    /// How long blocks may wait in an object, in nanoseconds of the fast clock.
    pub flush_interval_ns: u64,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            encrypted: true,
            level: Some(1),
            block_bytes: 128 << 10,
            object_bytes: 4 << 20,
            memory: 40 * MIB,
            retry: RetryPolicy { backoff_min_ms: 1, backoff_max_ms: 20, budget_ms: 10_000, attempts_max: 20 },
            timing: Timing {
                lease_ns: 2_000 * MILLISECOND_NS,
                beat_ns: 300 * MILLISECOND_NS,
                drift_permille: 10,
                margin_ns: 50 * MILLISECOND_NS,
                send_budget_ns: 300 * MILLISECOND_NS,
            },
            speed: 1,
            flush_interval_ns: 60_000 * MILLISECOND_NS,
        }
    }
}

/// What is backed up.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    image: bool,
    bad: Vec<Range<u64>>,
}

impl Source {
    /// The file system in an image or on a device.
    pub fn file_system(path: &Path) -> Source {
        Source { path: path.to_path_buf(), image: false, bad: Vec::new() }
    }

    /// The whole image or device as one item.
    pub fn image(path: &Path) -> Source {
        Source { image: true, ..Source::file_system(path) }
    }

    /// Makes these bytes of the device unreadable.
    #[must_use]
    pub fn with_bad(mut self, ranges: &[Range<u64>]) -> Source {
        self.bad.extend_from_slice(ranges);
        self
    }

    /// Whether it is restored as one item.
    pub fn is_image(&self) -> bool {
        self.image
    }

    fn open(&self, frames: &Pool) -> Result<(Box<dyn BlockDevice>, Box<dyn Volume>)> {
        let at = || self.path.display().to_string();
        let opened = linux::open(&self.path, Access::Read, 32, std::slice::from_ref(frames)).context(at)?;
        let mut device: Box<dyn BlockDevice> = if self.bad.is_empty() {
            opened
        } else {
            Box::new(self.bad.iter().cloned().fold(Faulty::new(opened), Faulty::with_bad))
        };
        let volume: Box<dyn Volume> = if self.image {
            Box::new(Image::open(&mut *device))
        } else {
            detect::open(&mut *device).context(at)?
        };
        Ok((device, volume))
    }
}

/// The one volume, opened for whoever asks.
struct One {
    source: Source,
    frames: Pool,
}

impl Volumes for One {
    fn titles(&self) -> Vec<String> {
        vec![DEVICE.to_owned()]
    }

    fn open(
        &self,
        id: VolumeId,
        _: &State,
        _: &Policy,
        settings: &job::Settings,
        _: &[Pool],
    ) -> std::result::Result<Opened, Failure> {
        let (device, volume) = self.source.open(&self.frames).map_err(Failure::new)?;
        let (items, whole, unmatched) = (volume.info().inodes_used, true, Unmatched::first(0));
        let opened = Selectable { device, volume, items, whole, unmatched };
        Ok(Opened::new(id, &self.source.path, Reader::Auto, Iops::default(), opened, RULES, settings))
    }
}

/// Whoever waits for a lease that another one may have, since then.
struct Patient(u64);

impl Listener for Patient {
    fn is_held(&mut self, _: &LogFault, _: u64, _: bool) -> bool {
        HostClock.boot_ns() - self.0 < CLAIM_NS_MAX
    }

    fn hears(&mut self, line: fmt::Arguments<'_>) {
        println!("appliance: {line}");
    }
}

/// A directory store, made if it is not there.
pub fn dir_store(path: &Path) -> Result<Arc<dyn Store>> {
    fs::create_dir_all(path).context(|| path.display().to_string())?;
    let throttle = Arc::new(Throttle::new(Arc::new(SystemClock), 0, 0));
    let nonce = host::boot().context(|| "random")?.0;
    Ok(Arc::new(DirStore::open(path, nonce, throttle).context(|| "open the store")?))
}

/// A repository that is backed up to and restored from.
pub struct Appliance {
    store: Arc<dyn Store>,
    client: Arc<Client>,
    setup: Setup,
    keys: Keys,
    cluster: [u8; 16],
    clock: SystemClock,
}

impl Appliance {
    /// Makes a repository. The key is the same for all.
    pub fn make(store: Arc<dyn Store>, setup: Setup) -> Result<Appliance> {
        let (uuid, master) = ([9; 16], Secret::new([3; 32]));
        let lock = if setup.encrypted {
            Lock::Slots(vec![KeySlot::wrap(&master, &unlock(), &uuid, [5; 16]).context(|| "wrap")?])
        } else {
            Lock::Clear(master)
        };
        let store_identity = store.describe();
        let lease_store = String::new();
        let format = RepoFormat {
            uuid,
            created_secs: 0,
            location_blocks: 10,
            store_identity,
            lease_store,
            lock,
            features: Features::new(),
        };
        let client = client(&store, &setup)?;
        let body = format.emit();
        client.put_unique(REPO_FORMAT_KEY, &[&body, &body]).context(|| "make the repository")?;
        Appliance::open(store, setup)
    }

    /// Opens a repository that [`Appliance::make`] made.
    pub fn open(store: Arc<dyn Store>, setup: Setup) -> Result<Appliance> {
        let client = client(&store, &setup)?;
        let mut bytes = Vec::new();
        client
            .get(REPO_FORMAT_KEY, ByteRange::Whole(bytes_max(REPO_FORMAT_KEY)), &mut bytes)
            .context(|| "read the format object")?;
        let format = RepoFormat::parse_stored(&bytes).context(|| "the format object")?;
        let unlock = setup.encrypted.then(unlock);
        let keys = format.unlock(unlock.as_ref()).context(|| "unlock the repository")?;
        Ok(Appliance { store, client, setup, keys, cluster: format.uuid, clock: SystemClock })
    }

    /// The same repository on another store, or with other settings.
    pub fn with(&self, store: Arc<dyn Store>, setup: Setup) -> Result<Appliance> {
        Appliance::open(store, setup)
    }

    /// Its client: counts.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Its keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    fn around(&self) -> Surroundings<'_> {
        Surroundings { store: &*self.store, clock: &self.clock }
    }

    /// The log's state as of a moment ago.
    pub fn view(&self) -> Result<View> {
        open_read(self.around(), self.cluster, LogSealer::new(&self.keys), drop).context(|| "read the log")
    }

    fn claim(&self) -> Result<Session<'_, LogSealer>> {
        let boot: Boot = host::boot().context(|| "random")?;
        let identity =
            Identity { cluster: self.cluster, me: Author { node: NodeId(1), boot }, who: Who::default() };
        let options = WriterOptions { timing: self.setup.timing, ..WriterOptions::default() };
        let seed = host::random().context(|| "random")?;
        let begun_ns = HostClock.boot_ns();
        let patient = |_: &_, _| HostClock.boot_ns() - begun_ns < CLAIM_NS_MAX;
        Session::claim(self.around(), None, identity, LogSealer::new(&self.keys), options, seed, patient)
            .context(|| "claim the lease")
    }

    /// Backs `source` up, under the one policy that there is.
    pub fn backup(&self, source: &Source) -> Result<Report> {
        let setup = &self.setup;
        let policy = self.policy();
        self.see_to(&policy)?;
        let mut settings = Settings::of_policy(&policy, setup.memory, CORES).context(|| "plan the memory")?;
        settings.timing = setup.timing;
        settings.pace.pause_ns /= setup.speed;
        settings.pace.interval_ns /= setup.speed;
        settings.pace.flush_ns_max = setup.flush_interval_ns / setup.speed;
        let pools = Machinery::pools(&settings.budget, setup.block_bytes);
        let pools = pools.ok_or_else(|| Error::new("no memory for the pools"))?;
        let throttle = Arc::new(Throttle::new(Arc::new(SystemClock), 0, 0));
        let work = Work {
            target: Target {
                store: Arc::clone(&self.store),
                client: Arc::clone(&self.client),
                throttle: Arc::clone(&throttle),
                keys: self.keys.clone(),
                cluster: self.cluster,
                read_only: None,
                row_blocks: ROW_BLOCKS,
            },
            volumes: Arc::new(One { source: source.clone(), frames: pools.0.clone() }),
            settings,
            limits: Arc::new(StoreLimits::of_command(throttle, None, None)),
            author: (NodeId(1), host::boot().context(|| "random")?),
            pools,
            has_peers: false,
            upkeep: None,
            watch: Arc::new(|_| {}),
        };
        let mut patient = Patient(HostClock.boot_ns());
        let ended = engine::run(work, self.view()?, POLICY, &Progress::new(), &mut patient);
        ended.context(|| "start the engine")?.result.context(|| "backup")
    }

    fn policy(&self) -> Policy {
        let setup = &self.setup;
        let device = DEVICE.to_owned();
        Policy {
            block_size: setup.block_bytes.into(),
            object_size: setup.object_bytes.into(),
            compression: setup.level.map_or(Compression::None, |level| Compression::Zstd(level as u8)),
            ..Policy::new(POLICY, vec![PolicyVolume { device, reader: Reader::Auto }])
        }
    }

    /// Puts the policy into the log, unless it is there.
    fn see_to(&self, policy: &Policy) -> Result<()> {
        let body = policy.emit().context(|| "the policy")?;
        let state = self.view()?.state;
        let known = state.policies.get(POLICY);
        if known.is_some_and(|known| *known.body == *body) {
            return Ok(());
        }
        let revision = known.map_or(0, |known| known.revision) + 1;
        let volumes = if known.is_none() { vec![(VOLUME, DEVICE.to_owned())] } else { Vec::new() };
        self.commit(vec![Record::PolicyChanged(PolicyChange {
            name: POLICY.to_owned(),
            revision,
            body,
            volumes,
        })])
    }

    /// How blocks are made.
    pub fn settings(&self) -> job::Settings {
        let setup = &self.setup;
        job::Settings {
            block_bytes: setup.block_bytes,
            row_blocks: ROW_BLOCKS,
            level: setup.level,
            flush_interval_ns: setup.flush_interval_ns,
            commit_objects: COMMIT_OBJECTS,
            commit_pause_ns: COMMIT_PAUSE_NS,
            commit_interval_ns: COMMIT_INTERVAL_NS,
            prove_every: PROVE_EVERY,
        }
    }

    /// Rows of the volume that a backup looks at.
    pub fn rows(&self, earlier: Earlier, state: &State) -> PointRows<Arc<Client>> {
        let segments = state.segments.get(&VOLUME).map(|list| list.as_slice()).unwrap_or_default();
        let fetch = Arc::clone(&self.client);
        let Some(reader) = TableReader::new(fetch, &self.keys, TableLimits::default(), segments) else {
            eprintln!("appliance: no memory for a table reader");
            std::process::abort();
        };
        PointRows::new(reader, VOLUME, earlier, &state.damage)
    }

    /// Opens `source`, claims the lease, sees to the policy, and has `work` done with all that a backup runs on.
    pub fn with_machinery<'s, R>(
        &'s self,
        source: &Source,
        work: impl FnOnce(Session<'s, LogSealer>, &mut VolumeJob, &mut Machinery<'_>) -> R,
    ) -> Result<R> {
        let setup = &self.setup;
        let budget = Budget::plan(setup.memory, setup.block_bytes, setup.object_bytes, CORES, 4)
            .context(|| "plan the memory")?;
        let pools = Machinery::pools(&budget, setup.block_bytes);
        let (frames, pieces) = pools.ok_or_else(|| Error::new("no memory for the pools"))?;
        let (device, volume) = source.open(&frames)?;
        let mut reactor =
            FastReactor { inner: HostReactor::new().context(|| "reactor")?, speed: setup.speed };
        reactor.inner.add(&*device).context(|| "reactor")?;
        let waker = reactor.inner.waker();
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(move || waker.wake());
        let uplink = UplinkSettings { in_flight_max: pieces.count(), ..UplinkSettings::default() };
        let uplink =
            Uplink::start(Arc::clone(&self.client), uplink, Arc::clone(&wake)).context(|| "uplink")?;
        self.see_to(&self.policy())?;
        let session = self.claim()?;
        let (stop, flush) = (AtomicBool::new(false), AtomicBool::new(false));
        let mut machinery = Machinery {
            frames,
            pieces,
            budget,
            names: NameCounter::default(),
            rate: LinkRate::default(),
            uplink: &uplink,
            wake,
            reactor: &mut reactor,
            stop: &stop,
            flush: &flush,
        };
        Ok(work(session, &mut VolumeJob { id: VOLUME, device, volume, rules: RULES }, &mut machinery))
    }

    /// Puts records into the log.
    pub fn commit(&self, records: Vec<Record>) -> Result<()> {
        let mut session = self.claim()?;
        session.commit(records).context(|| "commit")?;
        release(Some(session));
        Ok(())
    }

    /// The newest point.
    pub fn last_point(&self) -> Result<BackupId> {
        let view = self.view()?;
        view.state.points.keys().next_back().copied().ok_or_else(|| Error::new("there is no point"))
    }

    /// Restores a point (the newest when `None`) to `to`, which is made; what is there is overwritten if different.
    pub fn restore(&self, source: &Source, point: Option<BackupId>, to: &Path) -> Result<RestoreReport> {
        self.restore_with(source, point, to, false)
    }

    /// The same, and with `keep_damaged` files that are not whole get their names, too.
    pub fn restore_with(
        &self,
        source: &Source,
        point: Option<BackupId>,
        to: &Path,
        keep_damaged: bool,
    ) -> Result<RestoreReport> {
        let view = self.view()?;
        let point = match point {
            Some(point) => point,
            None => self.last_point()?,
        };
        let segments = view.state.segments.get(&VOLUME).map(|list| list.as_slice()).unwrap_or_default();
        let fetch = Arc::clone(&self.client);
        let reader = TableReader::new(fetch, &self.keys, TableLimits::default(), segments)
            .ok_or_else(|| Error::new("no memory for a table reader"))?;
        let mut rows =
            walk::Source { lookup: Lookup::new(reader, point), client: &self.client, keys: &self.keys };
        let (inode, name) = if source.image { (1, b"image".to_vec()) } else { (2, Vec::new()) };
        let roots = [Root { lin: Lin { volume: VOLUME, inode }, name }];
        let options = RestoreOptions {
            existing: Existing::OverwriteIfDifferent,
            keep_damaged,
            sync: false,
            owners: is_root(),
            owner_map: OwnerMap::default(),
            repository: Protected::default(),
            exclude: Patterns::default(),
        };
        let nonce = host::boot().context(|| "random")?.0;
        let progress = Arc::default();
        let work = walk::Work { roots: &roots, selection: &[], options, nonce, progress: &progress };
        walk::run(&mut rows, &work, to, self.setup.memory).context(|| "restore")
    }
}

/// Gives the lease back.
pub fn release(session: Option<Session<'_, LogSealer>>) {
    if let Some(Err(fault)) = session.map(|session| session.release(None)) {
        eprintln!("appliance: the lease was not released: {fault}");
    }
}

fn unlock() -> Unlock {
    Unlock::KeyFile(Secret::new([7; 32]))
}

fn client(store: &Arc<dyn Store>, setup: &Setup) -> Result<Arc<Client>> {
    let seed = host::boot().context(|| "random")?.0;
    Ok(Arc::new(Client::new(Arc::clone(store), Arc::new(SystemClock), setup.retry, seed)))
}

/// A reactor whose time goes by faster.
struct FastReactor {
    inner: HostReactor,
    speed: u64,
}

impl Reactor for FastReactor {
    fn now_ns(&self) -> u64 {
        self.inner.now_ns().saturating_mul(self.speed)
    }

    fn wall_ns(&self) -> i64 {
        self.inner.wall_ns()
    }

    fn wait(&mut self, deadline_ns: Option<u64>) {
        self.inner.wait(deadline_ns.map(|deadline| deadline.div_ceil(self.speed)));
    }
}

/// Plants a tree of `dirs` directories with 24 files each (about 2.6 MiB) that `mke2fs -d` takes as it is: whole seconds, no
/// blocks of zeros, holes only in whole blocks. Trees of two seeds differ in every content and in no name or size.
pub fn plant(root: &Path, seed: u64, dirs: u64) -> Result<()> {
    let write = |path: PathBuf, bytes: &[u8]| fs::write(&path, bytes).context(|| path.display().to_string());
    for at in 0..dirs {
        let dir = root.join(format!("dir-{at:02}"));
        fs::create_dir_all(dir.join("below")).context(|| dir.display().to_string())?;
        let base = seed.wrapping_mul(1_000_003).wrapping_add(at * 100) + 1;
        for file in 0..20 {
            let length = [3, 61, 4096, 5000, 20_000, 131_073][file % 6] + file;
            let bytes = if file % 2 == 0 {
                noise(base + file as u64, length)
            } else {
                prose(base + file as u64, length)
            };
            write(dir.join(format!("file-{file:02}")), &bytes)?;
        }
        write(dir.join("below/large"), &noise(base + 50, 1_400_000))?;
        write(dir.join("below/words"), &prose(base + 51, 800_000))?;
        let sparse = dir.join("below/sparse");
        write(sparse.clone(), &noise(base + 52, 8192))?;
        let open = fs::File::options().write(true).open(&sparse).context(|| "open")?;
        open.write_all_at(&noise(base + 53, 8192), 400 << 10).context(|| "write")?;
        fs::hard_link(dir.join("file-03"), dir.join("below/link")).context(|| "link")?;
        symlink("../file-04", dir.join("below/symlink")).context(|| "symlink")?;
    }
    whole_seconds(root)
}

/// Rounds all times of a tree down to whole seconds, which is what `mke2fs -d` keeps.
pub fn whole_seconds(root: &Path) -> Result<()> {
    let info = fs::symlink_metadata(root).context(|| root.display().to_string())?;
    if info.is_dir() {
        for entry in fs::read_dir(root).context(|| root.display().to_string())? {
            whole_seconds(&entry.context(|| "read")?.path())?;
        }
    }
    let time = TimeSpec::new(std::os::unix::fs::MetadataExt::mtime(&info), 0);
    utimensat(AT_FDCWD, root, &time, &time, UtimensatFlags::NoFollowSymlink).context(|| "set times")
}

/// Extents that an inode holds itself.
const INODE_EXTENTS: u32 = 4;

/// An ext4 image of a tree, always with the same UUID and with blocks of 4 KiB. Its files have generations and times of their own, as
/// a kernel gives them: others are read at each backup. Files of many pieces are such others: the checksums of their extents would not
/// fit another generation.
pub fn image_of(tree: &Path, image: &Path, size_bytes: u64) -> Result<()> {
    let uuid = "12345678-1234-1234-1234-123456789abc";
    make_ext4(image, size_bytes, Some(tree), &["-b", "4096", "-U", uuid])?;
    let mut commands = String::new();
    set_generations(tree, "", &mut commands)?;
    let script = image.with_extension("debugfs");
    fs::write(&script, commands).context(|| script.display().to_string())?;
    output(Command::new("debugfs").arg("-w").arg("-f").arg(&script).arg(image))?;
    fs::remove_file(&script).context(|| script.display().to_string())
}

/// Whether an inode has no room for the extents of a file with such holes.
fn has_many_pieces(path: &Path) -> bool {
    let Ok(file) = fs::File::open(path) else { return false };
    let (mut at, mut pieces) = (0, 0);
    while let Ok(data) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
        pieces += 1;
        let Ok(hole) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(data)) else { break };
        if pieces > INODE_EXTENTS || hole <= data {
            break;
        }
        at = hole;
    }
    pieces > INODE_EXTENTS
}

/// Appends a command of debugfs for each file below `path` of a tree.
fn set_generations(tree: &Path, path: &str, commands: &mut String) -> Result<()> {
    for entry in fs::read_dir(tree.join(path)).context(|| path.to_owned())? {
        let entry = entry.context(|| path.to_owned())?;
        let below = format!("{path}{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().context(|| below.clone())?;
        if kind.is_dir() {
            set_generations(tree, &format!("{below}/"), commands)?;
        } else if kind.is_file() && !has_many_pieces(&entry.path()) {
            let number = commands.len() + 1;
            commands.push_str(&format!(
                "sif \"/{below}\" generation {number}\nsif \"/{below}\" crtime @{number}\n"
            ));
        }
    }
    Ok(())
}

/// Compares what was restored with the source; an error names the differences. The roots themselves differ where the source
/// is not a mounted image.
pub fn expect_equal(source: &Path, restored: &Path) -> Result<tree::Report> {
    let root = is_root();
    let options = tree::Options { owners: root, root: false, ..tree::Options::default() };
    let report = tree::compare(source, restored, &options)?;
    if report.is_equal() {
        Ok(report)
    } else {
        Err(Error::new(format!("restored is not the source: {report}")))
    }
}

/// Expects a restore without a fault.
pub fn expect_clean(report: &RestoreReport) -> Result<()> {
    let said: Vec<String> = report.faults.iter().take(10).map(ToString::to_string).collect();
    if report.fault_count == 0 { Ok(()) } else { Err(Error::new(format!("faults: {said:?}"))) }
}
