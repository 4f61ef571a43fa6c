//! A disk in memory with the faults of a real one: latency, completions out of order, medium errors, a
//! volatile write cache, and power cuts that tear and drop what was not flushed.
//!
//! ```text
//!  Disk (one opening: queue, order, latency) --> Media (durable blocks + versions not flushed yet)
//! ```
//!
//! Invariants
//! - Everything is drawn from the seed: the same calls give the same completions in the same order.
//! - A block that was never written takes no memory.
//! - A logical block is written whole or not at all; a segment may be torn between its blocks. What a flush covered (all
//!   that had completed when it was submitted) survives a power cut. What it did not cover survives block by block, by lot,
//!   in any of the versions written since.
//! - Time is counted in steps: one for each `complete(Wait::Poll)`; `Wait::One` goes on to the next completion.
//! - A power cut ends the requests in flight: they come back with [`FaultKind::Gone`], and a disk that was open stays gone.
//!   Open the media again.
//!
//! Does not: keep time, use threads, or store anything outside memory. Source: ours.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::libc;

use super::prng::Prng;
use crate::block::{BlockDevice, DeviceId, Fault, FaultKind, Geometry, Op, Request, Segment, Wait};

/// What a failed read leaves in its part of the buffer, so that a use by accident shows.
const GARBAGE: u8 = 0xDB;

/// Most versions of a block that the write cache holds; with more, the oldest becomes durable, as a cache
/// writes back.
const VERSIONS_MAX: usize = 4;

/// What a disk is to be like.
#[derive(Clone, Debug)]
pub struct MediaConfig {
    /// Name and identity (`sim:<name>`).
    pub name: String,
    /// Size in bytes, at least a block; may end inside one.
    pub size_bytes: u64,
    /// Logical block in bytes: a power of two, 512..=65536.
    pub logical_block_bytes: u32,
    /// Whether it takes discards.
    pub can_discard: bool,
    /// Seed of what a power cut keeps and what a discard leaves.
    pub seed: u64,
}

/// How one opening of a disk behaves.
#[derive(Clone, Copy, Debug)]
pub struct DiskConfig {
    /// Whether it may be written.
    pub write: bool,
    /// Most requests in flight, at least 1.
    pub queue_depth: usize,
    /// Most steps that a request takes beyond the first.
    pub latency_steps_max: u64,
    /// Seed of order and latency.
    pub seed: u64,
}

/// A block's bytes; `None` is all zero.
type Block = Option<Box<[u8]>>;

/// A version of a block that a power cut may lose.
struct Version {
    /// Number of the write.
    sequence: u64,
    bytes: Block,
}

/// The platter. Cheap to clone; all clones are the same platter, which outlives the disks that are opened on it.
#[derive(Clone)]
pub struct Media {
    state: Arc<Mutex<State>>,
}

struct State {
    config: MediaConfig,
    prng: Prng,
    durable: BTreeMap<u64, Box<[u8]>>,
    volatile: BTreeMap<u64, Vec<Version>>,
    sequence: u64,
    bad: Vec<Range<u64>>,
    /// Counts power cuts; a disk of an earlier life is gone.
    life: u64,
}

impl Media {
    /// A platter of zeros.
    ///
    /// # Panics
    /// When the units are out of range or the size is less than a block: a wrong test.
    pub fn new(config: MediaConfig) -> Media {
        let unit = config.logical_block_bytes;
        assert!(
            unit.is_power_of_two() && (512..=65536).contains(&unit),
            "a block is a power of two in 512..=65536"
        );
        assert!(config.size_bytes >= u64::from(unit), "a disk has at least one block");
        let prng = Prng::new(config.seed);
        let (durable, volatile) = (BTreeMap::new(), BTreeMap::new());
        let state = State { config, prng, durable, volatile, sequence: 0, bad: Vec::new(), life: 0 };
        Media { state: Arc::new(Mutex::new(state)) }
    }

    /// Opens the disk.
    pub fn open(&self, config: DiskConfig) -> Disk {
        let state = self.state();
        let geometry = Geometry {
            size_bytes: state.config.size_bytes,
            logical_block_bytes: state.config.logical_block_bytes,
            physical_block_bytes: state.config.logical_block_bytes.max(4096),
            io_optimal_bytes: 0,
            operations_per_sec_max: 0,
            rotational: false,
            can_discard: state.config.can_discard,
            read_only: !config.write,
        };
        let name = state.config.name.clone();
        let id = DeviceId { stable: format!("sim:{name}"), name };
        let (life, prng) = (state.life, Prng::new(config.seed));
        drop(state);
        Disk { media: self.clone(), geometry, id, config, prng, life, step: 0, waiting: Vec::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes every read and write that touches `range` (bytes) fail.
    pub fn fail(&self, range: Range<u64>) {
        self.state().bad.push(range);
    }

    /// Takes all medium errors away.
    pub fn heal(&self) {
        self.state().bad.clear();
    }

    /// Puts bytes on the platter, durably, at any offset: for preparing a test.
    pub fn load(&self, offset: u64, bytes: &[u8]) {
        let mut state = self.state();
        let unit = u64::from(state.config.logical_block_bytes);
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let (index, skip) = (at / unit, (at % unit) as usize);
            let take = rest.len().min(unit as usize - skip);
            let mut block = vec![0; unit as usize];
            state.read_block(index, &mut block);
            block[skip..skip + take].copy_from_slice(&rest[..take]);
            state.volatile.remove(&index);
            state.durable.insert(index, block.into());
            (at, rest) = (at + take as u64, &rest[take..]);
        }
    }

    /// Copies what a read would give, at any offset, without faults: for looking at the outcome of a test.
    pub fn peek(&self, offset: u64, out: &mut [u8]) {
        self.state().read(offset, out);
    }

    /// Blocks with a version that a power cut may lose.
    pub fn volatile_blocks(&self) -> usize {
        self.state().volatile.len()
    }

    /// Writes that reached the platter since it was made, counted by blocks: "power cut after the n-th write".
    pub fn blocks_written(&self) -> u64 {
        self.state().sequence
    }

    /// Cuts the power: of each block's versions that were not flushed one survives by lot, or none.
    pub fn power_cut(&self) {
        let mut guard = self.state();
        let state = &mut *guard;
        state.life += 1;
        for (index, mut versions) in std::mem::take(&mut state.volatile) {
            let kept = state.prng.below(versions.len() as u64 + 1) as usize;
            if kept > 0 {
                state.persist(index, versions.swap_remove(kept - 1).bytes);
            }
        }
    }
}

impl State {
    /// The latest version of a block.
    fn read_block(&self, index: u64, out: &mut [u8]) {
        let latest = match self.volatile.get(&index).and_then(|v| v.last()) {
            Some(version) => version.bytes.as_deref(),
            None => self.durable.get(&index).map(|b| &**b),
        };
        match latest {
            Some(bytes) => out.copy_from_slice(bytes),
            None => out.fill(0),
        }
    }

    /// The latest bytes at any offset.
    fn read(&self, offset: u64, out: &mut [u8]) {
        let unit = u64::from(self.config.logical_block_bytes);
        let mut block = vec![0; unit as usize];
        let (mut at, mut rest) = (offset, out);
        while !rest.is_empty() {
            let skip = (at % unit) as usize;
            let take = rest.len().min(unit as usize - skip);
            self.read_block(at / unit, &mut block);
            let (head, tail) = rest.split_at_mut(take);
            head.copy_from_slice(&block[skip..skip + take]);
            (at, rest) = (at + take as u64, tail);
        }
    }

    fn write_block(&mut self, index: u64, bytes: Block) {
        self.sequence += 1;
        let version = Version { sequence: self.sequence, bytes };
        let versions = self.volatile.entry(index).or_default();
        versions.push(version);
        if versions.len() > VERSIONS_MAX {
            let oldest = versions.remove(0);
            self.persist(index, oldest.bytes);
        }
    }

    fn persist(&mut self, index: u64, bytes: Block) {
        match bytes {
            Some(bytes) => self.durable.insert(index, bytes),
            None => self.durable.remove(&index),
        };
    }

    /// Makes the writes up to number `upto` durable.
    fn flush(&mut self, upto: u64) {
        for (index, mut versions) in std::mem::take(&mut self.volatile) {
            let later = versions.iter().position(|v| v.sequence > upto).unwrap_or(versions.len());
            let rest = versions.split_off(later);
            if let Some(version) = versions.pop() {
                self.persist(index, version.bytes);
            }
            if !rest.is_empty() {
                self.volatile.insert(index, rest);
            }
        }
    }

    fn is_bad(&self, offset: u64, len: u64) -> bool {
        self.bad.iter().any(|bad| bad.start < offset + len && offset < bad.end)
    }

    /// Carries out one range of a request that was admitted.
    fn perform(&mut self, op: Op, segment: &Segment, buf: Option<&mut [u8]>) -> Result<(), FaultKind> {
        let start = segment.buf_offset as usize;
        let bytes = buf.and_then(|b| b.get_mut(start..start + segment.len as usize));
        let bad = self.is_bad(segment.device_offset, segment.len);
        let unit = u64::from(self.config.logical_block_bytes);
        let blocks = segment.device_offset / unit..(segment.device_offset + segment.len) / unit;
        match (op, bytes) {
            (Op::Read, Some(bytes)) if bad => {
                bytes.fill(GARBAGE);
                Err(FaultKind::Media)
            }
            (_, _) if bad => Err(FaultKind::Media),
            (Op::Read, Some(bytes)) => {
                self.read(segment.device_offset, bytes);
                Ok(())
            }
            (Op::Write, Some(bytes)) => {
                for (index, block) in blocks.zip(bytes.chunks(unit as usize)) {
                    self.write_block(index, Some(block.into()));
                }
                Ok(())
            }
            (Op::Zero, _) => {
                blocks.for_each(|index| self.write_block(index, None));
                Ok(())
            }
            (Op::Discard, _) => {
                self.discard(blocks);
                Ok(())
            }
            (Op::Read | Op::Write | Op::Flush, _) => Err(FaultKind::Misuse),
        }
    }

    /// Contents after a discard do not matter, so some blocks are zero and some stay.
    fn discard(&mut self, blocks: Range<u64>) {
        for index in blocks {
            if self.prng.one_in(2) {
                self.write_block(index, None);
            }
        }
    }
}

/// A request on its way.
struct Waiting {
    request: Request,
    /// Step at which it completes.
    due: u64,
    /// What a flush covers.
    upto: u64,
    /// Whether the platter was changed when it was submitted, and not to be when it completes.
    applied: bool,
}

/// One opening of a [`Media`].
pub struct Disk {
    media: Media,
    geometry: Geometry,
    id: DeviceId,
    config: DiskConfig,
    prng: Prng,
    life: u64,
    step: u64,
    waiting: Vec<Waiting>,
}

impl Disk {
    /// Steps that have passed.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Carries out what the device did not refuse.
    fn apply(&self, request: &mut Request, upto: u64) {
        let mut state = self.media.state();
        if state.life != self.life {
            return request.fail(FaultKind::Gone, libc::ENODEV, self.geometry.size_bytes);
        }
        if request.op == Op::Flush && request.segments.is_empty() {
            return state.flush(upto);
        }
        let Request { op, buf, segments, .. } = request;
        for segment in segments.iter_mut().filter(|s| s.fault.is_none()) {
            if let Err(kind) = state.perform(*op, segment, buf.as_deref_mut()) {
                segment.fail(kind, libc::EIO);
            }
        }
    }

    /// Finishes what is due, in an order by lot.
    fn finish_due(&mut self, done: &mut dyn FnMut(Request)) -> usize {
        let step = self.step;
        let mut due: Vec<Waiting> = self.waiting.extract_if(.., |w| w.due <= step).collect();
        self.prng.shuffle(&mut due);
        let count = due.len();
        for mut waiting in due {
            if !waiting.applied || self.is_gone() {
                self.apply(&mut waiting.request, waiting.upto);
            }
            self.geometry.clear_behind_end(&mut waiting.request);
            done(waiting.request);
        }
        count
    }

    fn is_gone(&self) -> bool {
        self.media.state().life != self.life
    }
}

impl BlockDevice for Disk {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn identity(&self) -> &DeviceId {
        &self.id
    }

    fn submit(&mut self, mut request: Request) -> Result<(), Request> {
        if self.waiting.len() >= self.queue_depth() {
            return Err(request);
        }
        self.geometry.admit(&mut request);
        let upto = self.media.state().sequence;
        // A device may change the platter at any time between submission and completion; both ends are tried.
        let applied = request.op == Op::Write && self.prng.one_in(2);
        if applied {
            self.apply(&mut request, upto);
        }
        let due = self.step + 1 + self.prng.below(self.config.latency_steps_max + 1);
        self.waiting.push(Waiting { request, due, upto, applied });
        Ok(())
    }

    fn complete(&mut self, wait: Wait, done: &mut dyn FnMut(Request)) -> usize {
        self.step += 1;
        if wait == Wait::One
            && let Some(first) = self.waiting.iter().map(|w| w.due).min()
        {
            self.step = self.step.max(first);
        }
        self.finish_due(done)
    }

    fn in_flight(&self) -> usize {
        self.waiting.len()
    }

    fn queue_depth(&self) -> usize {
        self.config.queue_depth.max(1)
    }

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        let len = out.len() as u64;
        let fault = |kind, errno| Err(Fault { kind, device_offset: offset, len, errno });
        if !self.geometry.contains(offset, len) {
            return fault(FaultKind::Misuse, 0);
        }
        if self.is_gone() {
            return fault(FaultKind::Gone, libc::ENODEV);
        }
        // A device reads whole blocks, so a bad byte spoils its neighbours.
        let unit = u64::from(self.geometry.logical_block_bytes);
        let start = offset / unit * unit;
        if len > 0 && self.media.state().is_bad(start, (offset + len).next_multiple_of(unit) - start) {
            out.fill(GARBAGE);
            return fault(FaultKind::Media, libc::EIO);
        }
        self.media.peek(offset, out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::Pool;

    const UNIT: u64 = 512;

    fn media(seed: u64) -> Media {
        let name = String::from("test");
        Media::new(MediaConfig {
            name,
            size_bytes: 1 << 20,
            logical_block_bytes: 512,
            can_discard: true,
            seed,
        })
    }

    fn config(seed: u64) -> DiskConfig {
        DiskConfig { write: true, queue_depth: 8, latency_steps_max: 5, seed }
    }

    fn call(disk: &mut Disk, op: Op, fill: u8, segments: &[Segment]) -> Request {
        let mut buf = Pool::new(1, 64 << 10).take().unwrap();
        buf.fill(fill);
        let buf = Some(buf);
        disk.submit(Request { id: 0, op, buf, segments: segments.to_vec() }).unwrap();
        let mut back = None;
        disk.complete(Wait::One, &mut |r| back = Some(r));
        back.unwrap()
    }

    #[test]
    fn a_power_cut_keeps_what_was_flushed_and_tears_what_was_not() {
        let (mut torn, mut kept, mut lost) = (0, 0, 0);
        for seed in 0..50 {
            let media = media(seed);
            let mut disk = media.open(config(seed));
            call(&mut disk, Op::Write, 1, &[Segment::new(0, 0, 4 * UNIT)]);
            assert_eq!(call(&mut disk, Op::Flush, 0, &[]).fault(), None);
            assert_eq!(media.volatile_blocks(), 0);
            call(&mut disk, Op::Write, 2, &[Segment::new(0, 0, 4 * UNIT)]);
            assert_eq!(media.volatile_blocks(), 4);
            media.power_cut();
            let mut out = [0; 4 * UNIT as usize];
            media.peek(0, &mut out);
            let whole = |b: &[u8]| b.iter().all(|&x| x == b[0]);
            assert!(out.chunks(UNIT as usize).all(whole), "a block is never torn");
            assert!(out.iter().all(|&x| x == 1 || x == 2));
            match out.iter().filter(|&&x| x == 2).count() {
                0 => lost += 1,
                n if n == out.len() => kept += 1,
                _ => torn += 1,
            }
        }
        assert!(torn > 0 && kept > 0 && lost > 0, "torn {torn} kept {kept} lost {lost}");
    }

    #[test]
    fn a_flush_does_not_cover_what_completes_after_it_was_submitted() {
        let media = media(1);
        let mut disk = media.open(DiskConfig { latency_steps_max: 0, ..config(4) });
        disk.submit(Request { id: 1, op: Op::Flush, buf: None, segments: Vec::new() }).unwrap();
        disk.submit(Request { id: 2, op: Op::Zero, buf: None, segments: vec![Segment::new(0, 0, UNIT)] })
            .unwrap();
        assert_eq!(disk.complete(Wait::Poll, &mut |_| {}), 2);
        assert_eq!(media.volatile_blocks(), 1);
    }

    #[test]
    fn a_power_cut_ends_requests_and_the_disk_stays_gone() {
        let media = media(1);
        let mut disk = media.open(config(1));
        let pool = Pool::new(1, 512);
        let segments = vec![Segment::new(0, 0, UNIT)];
        disk.submit(Request { id: 3, op: Op::Read, buf: pool.take(), segments }).unwrap();
        media.power_cut();
        let mut kinds = Vec::new();
        disk.complete(Wait::One, &mut |r| kinds.push(r.fault().unwrap().kind));
        assert_eq!(kinds, [FaultKind::Gone]);
        assert_eq!(pool.free(), 1);
        assert_eq!(disk.read_at(0, &mut [0]).unwrap_err().kind, FaultKind::Gone);
        assert_eq!(media.open(config(1)).read_at(0, &mut [0]), Ok(()));
    }

    #[test]
    fn medium_errors_have_exact_edges() {
        let media = media(1);
        let mut disk = media.open(config(1));
        media.fail(1024..1536);
        let at = |n: u64| Segment::new(n * UNIT, (n * UNIT) as u32, UNIT);
        let back = call(&mut disk, Op::Read, 0, &[at(1), at(2), at(3)]);
        let kinds: Vec<_> = back.segments.iter().map(|s| s.fault.map(|f| f.kind)).collect();
        assert_eq!(kinds, [None, Some(FaultKind::Media), None]);
        assert_eq!(disk.read_at(1023, &mut [0]), Ok(()));
        assert_eq!(disk.read_at(1535, &mut [0]).unwrap_err().kind, FaultKind::Media);
        assert_eq!(disk.read_at(1536, &mut [0]), Ok(()));
        media.heal();
        assert_eq!(disk.read_at(1024, &mut [0]), Ok(()));
    }

    #[test]
    fn the_same_seed_gives_the_same_order_and_another_seed_another() {
        let order = |seed| {
            let mut disk = media(1).open(config(seed));
            let zero = |id| Request { id, op: Op::Zero, buf: None, segments: vec![Segment::new(0, 0, UNIT)] };
            (0..8).for_each(|id| disk.submit(zero(id)).unwrap());
            let mut order = Vec::new();
            while disk.in_flight() > 0 {
                disk.complete(Wait::Poll, &mut |r| order.push(r.id));
            }
            order
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        assert_ne!(order(1), (0..8).collect::<Vec<_>>());
    }
}
