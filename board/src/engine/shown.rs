//! Points shown as a file system: views behind locks, and threads that read ahead.
//!
//! ```text
//!  hal::files::Files --names, attributes--> one view        --bytes of a stretch--> the view that has it
//!                                                              threads: the next stretches, when a file is read in order
//! ```
//!
//! A file's stretches of [`STRETCH_BYTES`] go to the views in turn, so a file that is read in order is fetched, opened and verified by several at
//! once, and a reader waits for nobody but whoever reads the same stretch.
//!
//! Memory: [`VIEW_BYTES`] per view, as many as the budget has, and the names that messages need. Does not: pin what it shows: a garbage
//! collection may take what points that expired meanwhile had. Source: ours; `agent::mount`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use windlass_agent::foreign;
use windlass_agent::id::VolumeId;
use windlass_agent::log::state::State;
use windlass_agent::mount::layout::Layout;
use windlass_agent::mount::{FRAME_CACHE_BYTES, Open, STRETCH_BYTES, VIEW_BYTES, View, ViewFault};
use windlass_agent::read::cache::BlockCache;
use windlass_agent::table::read::TableReader;
use windlass_agent::table::segment::SegmentMeta;
use windlass_agent::table::source::TableLimits;
use windlass_hal::files::{Attributes, Errno, Files, Named, ROOT, Shown};

use crate::engine::repository::Repository;
use crate::engine::wide::Wide;
use crate::failure::Failure;
use crate::logger;

/// Bytes of the budget that are not views': the program, its connections and the threads that answer the kernel.
const BASE_BYTES: u64 = 20 << 20;
/// Views for bytes at most: more do not make one reader faster, and ten readers share them.
const VIEWS_MAX: u64 = 8;
/// Stretches that wait to be read ahead; what does not fit is read when it is asked for.
const AHEAD_MAX: usize = 16;
/// Stretches that were read ahead lately, so that none is asked for twice.
const PRIMED_MAX: usize = 64;
/// Files that are read in order at once and are recognised as such.
const READERS_MAX: usize = 64;
/// Bytes by which a read may be off its place and still count as in order: the kernel's own reads ahead overtake each other.
const ORDER_BYTES: u64 = 1 << 20;
/// Nodes whose names are known for messages, 100 bytes each; all are forgotten when there are more.
const NAMES_MAX: usize = 8192;
/// Places whose damage was said; all are forgotten when there are more.
const SAID_MAX: usize = 4096;
/// Directories above a name that a message shows.
const DEPTH_MAX: usize = 256;
/// Stack of a thread that reads ahead, in bytes: TLS and HTTP, as in the uplink's.
const STACK_BYTES: usize = 512 << 10;

type OneView = Mutex<View<'static, Wide>>;

/// See the module.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    names_view: OneView,
    views: Vec<OneView>,
    ahead: SyncSender<(u64, u64)>,
    watch: Mutex<Watch>,
}

/// What was seen of readers.
#[derive(Default)]
struct Watch {
    /// Node and place of the next byte of files that are read.
    readers: VecDeque<(u64, u64)>,
    primed: VecDeque<(u64, u64)>,
    /// Of a node: the directory it was found in, and its name there.
    names: BTreeMap<u64, (u64, Vec<u8>)>,
    said: BTreeSet<(u64, u64)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// Shows `layout` within a memory budget. The repository lives as long as the process: the kernel asks until then.
    pub fn start(
        repository: &'static Repository,
        state: &State,
        layout: Layout,
        memory_bytes: u64,
    ) -> Result<Pool, Failure> {
        let layout = Arc::new(layout);
        let segments: Arc<BTreeMap<VolumeId, Arc<Vec<SegmentMeta>>>> = Arc::new(state.segments.clone());
        let view = |frames: usize| {
            let segments = Arc::clone(&segments);
            let open: Open<Wide> = Box::new(move |volume| {
                let list = segments.get(&volume).map(|list| list.as_slice()).unwrap_or_default();
                let fetch = Wide(Arc::clone(&repository.opened.client));
                TableReader::new(fetch, &repository.keys, TableLimits::default(), list)
            });
            let blocks = BlockCache::new(&repository.opened.client, &repository.keys, frames);
            let blocks = blocks.ok_or_else(|| Failure::new("not enough memory to read the tables"))?;
            Ok::<_, Failure>(Mutex::new(View::new(Arc::clone(&layout), open, blocks)))
        };
        let count =
            (memory_bytes.saturating_sub(BASE_BYTES) / VIEW_BYTES).saturating_sub(1).clamp(1, VIEWS_MAX);
        let views = (0..count).map(|_| view(FRAME_CACHE_BYTES)).collect::<Result<Vec<_>, _>>()?;
        let (ahead, asked) = sync_channel(AHEAD_MAX);
        let shared = Shared { names_view: view(1)?, views, ahead, watch: Mutex::default() };
        let pool = Pool(Arc::new(shared));
        let asked = Arc::new(Mutex::new(asked));
        for number in 1..pool.0.views.len() {
            let (pool, asked) = (pool.clone(), Arc::clone(&asked));
            let thread = std::thread::Builder::new().name(format!("ahead-{number}")).stack_size(STACK_BYTES);
            let started = thread.spawn(move || pool.0.read_ahead(&asked));
            started.map_err(|error| Failure::at("cannot start a thread", error))?;
        }
        Ok(pool)
    }
}

impl Shared {
    fn view(&self, node: u64, stretch: u64) -> &OneView {
        let at = node.wrapping_add(stretch) % self.views.len() as u64;
        &self.views[at as usize]
    }

    /// Reads ahead what is asked for, as long as there is somebody who may ask.
    fn read_ahead(&self, asked: &Mutex<Receiver<(u64, u64)>>) {
        loop {
            let next = lock(asked).recv();
            let Ok((node, stretch)) = next else { return };
            // Whoever wants the bytes hears of what is wrong with them.
            let _ = lock(self.view(node, stretch)).prime(node, stretch * STRETCH_BYTES, STRETCH_BYTES);
        }
    }

    /// Notes a read, and asks for what comes next when it is one of several in order.
    fn note_read(&self, node: u64, from: u64, len: u64) {
        let mut watch = lock(&self.watch);
        let near = |(of, next): &(u64, u64)| *of == node && next.abs_diff(from) <= ORDER_BYTES;
        let known = watch.readers.iter().position(near);
        let in_order = known.is_some() || from == 0;
        let next = from.saturating_add(len);
        match known {
            Some(at) => watch.readers[at].1 = watch.readers[at].1.max(next),
            None => watch.readers.push_back((node, next)),
        }
        while watch.readers.len() > READERS_MAX {
            watch.readers.pop_front();
        }
        // The first read of a file asks for nothing more: most files are small, and many are only looked into.
        if !in_order || next < STRETCH_BYTES / 4 {
            return;
        }
        let here = from / STRETCH_BYTES;
        for stretch in here + 1..here + self.views.len() as u64 {
            let wanted = (node, stretch);
            if !watch.primed.contains(&wanted) && self.ahead.try_send(wanted).is_ok() {
                watch.primed.push_back(wanted);
            }
        }
        while watch.primed.len() > PRIMED_MAX {
            watch.primed.pop_front();
        }
    }

    fn note_name(&self, node: u64, dir: u64, name: &[u8]) {
        let mut watch = lock(&self.watch);
        if watch.names.len() >= NAMES_MAX {
            watch.names.clear();
        }
        watch.names.insert(node, (dir, name.to_vec()));
    }

    /// What a node is called, as far as it is known.
    fn path(&self, node: u64) -> String {
        let watch = lock(&self.watch);
        let (mut parts, mut at) = (Vec::new(), node);
        while let Some((dir, name)) = watch.names.get(&at)
            && at != ROOT
            && parts.len() < DEPTH_MAX
        {
            parts.push(foreign::name(name).to_string());
            at = *dir;
        }
        if parts.is_empty() {
            return format!("node {node}");
        }
        parts.reverse();
        PathBuf::from("/").join(parts.join("/")).display().to_string()
    }

    /// The error that users see; what is damaged is named in the log, each place once.
    fn error(&self, node: u64, from: u64, fault: &ViewFault) -> Errno {
        match fault {
            ViewFault::NotFound => Errno::NOENT,
            ViewFault::NotDirectory => Errno::NOTDIR,
            ViewFault::WrongKind => Errno::INVAL,
            ViewFault::PastEnd => Errno::NXIO,
            ViewFault::Number => Errno::OVERFLOW,
            ViewFault::Read(fault) => {
                let path = self.path(node);
                let is_new = {
                    let mut watch = lock(&self.watch);
                    if watch.said.len() >= SAID_MAX {
                        watch.said.clear();
                    }
                    watch.said.insert((node, from))
                };
                if is_new {
                    logger::say(format_args!("windlass: {path}: {fault}"));
                }
                Errno::IO
            }
        }
    }

    fn named<T>(
        &self,
        node: u64,
        call: impl FnOnce(&mut View<'static, Wide>) -> Result<T, ViewFault>,
    ) -> Result<T, Errno> {
        let done = call(&mut lock(&self.names_view));
        done.map_err(|fault| self.error(node, u64::MAX, &fault))
    }
}

impl Files for Pool {
    fn child(&self, dir: u64, name: &[u8]) -> Result<Shown, Errno> {
        let shown = self.0.named(dir, |view| view.child(dir, name))?;
        self.0.note_name(shown.node, dir, name);
        Ok(shown)
    }

    fn shown(&self, node: u64) -> Result<Shown, Errno> {
        self.0.named(node, |view| view.shown(node))
    }

    fn target(&self, node: u64) -> Result<Vec<u8>, Errno> {
        self.0.named(node, |view| view.target(node))
    }

    fn read(&self, node: u64, from: u64, len: u32) -> Result<Vec<u8>, Errno> {
        let mut out = Vec::with_capacity(len as usize);
        let end = from.saturating_add(len.into());
        let mut at = from;
        while at < end {
            let stretch = at / STRETCH_BYTES;
            let part = end.min((stretch + 1).saturating_mul(STRETCH_BYTES)) - at;
            let read = lock(self.0.view(node, stretch)).read(node, at, part as u32);
            let bytes = read.map_err(|fault| self.0.error(node, at, &fault))?;
            out.extend_from_slice(&bytes);
            at += part;
            if (bytes.len() as u64) < part {
                break;
            }
        }
        self.0.note_read(node, from, len.into());
        Ok(out)
    }

    fn list(&self, dir: u64, from: u64, each: &mut dyn FnMut(Named<'_>) -> bool) -> Result<(), Errno> {
        self.0.named(dir, |view| view.list(dir, from, each))
    }

    fn attributes(&self, node: u64) -> Result<Attributes, Errno> {
        self.0.named(node, |view| view.attributes(node))
    }

    fn seek(&self, node: u64, from: u64, data: bool) -> Result<u64, Errno> {
        self.0.named(node, |view| view.seek(node, from, data))
    }
}
