//! Objects under construction: fixed pieces from one pool, room reserved by many lanes, bytes copied in without a lock on
//! the whole.
//!
//! ```text
//!  object   |<- piece 0 ->|<- piece 1 ->|<- piece 2 ->|        pieces of PIECE_BYTES, taken from the pool as it grows
//!           | frame | frame | frame   | ...   | tail |
//!                      ^ a slot: reserved by a lane, written by that lane only
//! ```
//!
//! Invariants
//! - Slots of an object never overlap and leave no gap; an object is complete when it is closed and every slot is written.
//! - An object with its tail is never larger than `object_bytes`; the next count is taken for every object and segment, so
//!   no name is used twice.
//! - The pool is the bound (I12). Before a frame is given to a lane, the caller checks that its worst case
//!   fits the free pieces ([`Placer::can_take`]); so a reservation cannot fail, and a lane never waits.
//!
//! Does not: seal, upload, or know rows. Source: ours.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use windlass_hal::buf::{Buf, Pool};

use crate::id::{Boot, Epoch, NodeId, ObjectId};

/// Bytes of one piece of an object. Small enough that a half-empty last piece costs little, large enough that a 256 MiB object
/// has 1024 of them.
pub const PIECE_BYTES: usize = 256 << 10;

/// An object or a segment, growing. Shared between lanes while frames are written and uplink threads while it is sent.
pub struct ObjectBuf {
    id: ObjectId,
    /// One entry per piece that the object may have; filled in order.
    pieces: Box<[Mutex<Option<Buf>>]>,
    /// Bytes in use.
    len: AtomicU32,
}

impl ObjectBuf {
    fn new(id: ObjectId, bytes_max: u32) -> ObjectBuf {
        let count = (bytes_max as usize + TAIL_OVERRUN_BYTES).div_ceil(PIECE_BYTES);
        ObjectBuf { id, pieces: (0..count).map(|_| Mutex::new(None)).collect(), len: AtomicU32::new(0) }
    }

    /// Name of the object.
    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// Bytes in use: reserved, and written once the object is complete.
    pub fn len(&self) -> u32 {
        self.len.load(Ordering::Acquire)
    }

    /// Whether nothing was reserved yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Extends the object by `bytes`, taking pieces from `pool`; returns the offset of the new room.
    ///
    /// # Panics
    /// When the pool is empty or the object full: the caller's arithmetic was wrong.
    fn grow(&self, bytes: u32, pool: &Pool) -> u32 {
        let start = self.len();
        let end = start + bytes;
        let have = (start as usize).div_ceil(PIECE_BYTES);
        let want = (end as usize).div_ceil(PIECE_BYTES);
        assert!(want <= self.pieces.len(), "an object stays within its size");
        for piece in &self.pieces[have..want] {
            let buf = pool.take();
            assert!(buf.is_some(), "the piece pool is empty: reserved more than promised");
            *piece.lock().unwrap_or_else(PoisonError::into_inner) = buf;
        }
        self.len.store(end, Ordering::Release);
        start
    }

    /// Copies `bytes` to `offset`, which was reserved before.
    fn write(&self, offset: u32, bytes: &[u8]) {
        let (mut at, mut rest) = (offset as usize, bytes);
        while !rest.is_empty() {
            let within = at % PIECE_BYTES;
            let n = rest.len().min(PIECE_BYTES - within);
            let mut piece = self.pieces[at / PIECE_BYTES].lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(buf) = piece.as_mut() {
                buf[within..within + n].copy_from_slice(&rest[..n]);
            }
            at += n;
            rest = &rest[n..];
        }
    }

    /// Copies what was written at `offset` to `out`.
    fn read(&self, offset: u32, out: &mut [u8]) {
        let (mut at, mut rest) = (offset as usize, out);
        while !rest.is_empty() {
            let within = at % PIECE_BYTES;
            let (head, tail) = rest.split_at_mut((PIECE_BYTES - within).min(rest.len()));
            let piece = self.pieces[at / PIECE_BYTES].lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(buf) = piece.as_ref() {
                head.copy_from_slice(&buf[within..within + head.len()]);
            }
            at += head.len();
            rest = tail;
        }
    }

    /// Reserves room at the end and writes `bytes` there, for a tail or a segment (one writer).
    pub fn append(&self, bytes: &[u8], pool: &Pool) {
        let offset = self.grow(bytes.len() as u32, pool);
        self.write(offset, bytes);
    }

    /// Calls `each` with the object's bytes as a list of parts, in order.
    pub fn with_parts<R>(&self, each: impl FnOnce(&[&[u8]]) -> R) -> R {
        let guards: Vec<_> =
            self.pieces.iter().map(|p| p.lock().unwrap_or_else(PoisonError::into_inner)).collect();
        let mut left = self.len() as usize;
        let mut parts = Vec::with_capacity(guards.len());
        for buf in guards.iter().filter_map(|guard| guard.as_ref()) {
            let n = left.min(PIECE_BYTES);
            parts.push(&buf[..n]);
            left -= n;
        }
        each(&parts)
    }
}

impl fmt::Debug for ObjectBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectBuf({}, {} B)", self.id, self.len())
    }
}

/// Room in an object that one lane owns until it has written it.
#[derive(Debug)]
pub struct Slot {
    /// The object that the slot is in.
    pub object: Arc<ObjectBuf>,
    /// Byte offset of the slot in the object.
    pub offset: u32,
    /// Length of the slot in bytes.
    pub len: u32,
}

impl Slot {
    /// Reads the slot's bytes back.
    pub fn read(&self, out: &mut [u8]) {
        assert_eq!(out.len(), self.len as usize, "a slot is read whole");
        self.object.read(self.offset, out);
    }

    /// Writes the slot's bytes.
    pub fn fill(&self, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.len as usize, "a slot is written whole");
        self.object.write(self.offset, bytes);
    }
}

/// Counts the names that a process has given. One start of a process has one, whatever it backs up and under which epochs: so no name
/// is given twice. Copies count on together.
#[derive(Clone, Debug, Default)]
pub struct NameCounter(Arc<AtomicU32>);

impl NameCounter {
    /// The next count.
    ///
    /// # Panics
    /// After 2^32 - 1 names: thousands of PiB in one process.
    pub fn take(&self) -> u32 {
        let next = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_add(1));
        assert!(next.is_ok(), "a process has given all names that it has");
        next.unwrap_or_default()
    }

    /// Names given so far: each has a lower count.
    fn given(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where frames go: the open object, and names for new ones. Shared by the lanes under a mutex; every call is short.
#[derive(Debug)]
pub struct Placer {
    pool: Pool,
    object_bytes: u32,
    /// Bytes that an object is made for: at most `object_bytes`, fewer on a slow uplink.
    aim_bytes: u32,
    writer: (Epoch, NodeId, Boot),
    names: NameCounter,
    open: Option<Arc<ObjectBuf>>,
    /// Bytes that the open object's tail will take at most.
    tail_bytes: u32,
    /// Pieces promised to frames on their way through lanes.
    promised: usize,
    closed: VecDeque<Arc<ObjectBuf>>,
}

/// Room kept in every object for what its tail writes at its end, in bytes: a pending row block per kind, index, trailer.
pub const TAIL_BYTES_MIN: u32 = 128 << 10;
/// Most bytes by which a tail can make an object larger than asked for: one that is nearly full when the largest rows come.
const TAIL_OVERRUN_BYTES: usize = 4 << 20;
/// Most bytes that one block adds to a tail.
pub const TAIL_BYTES_PER_BLOCK: u32 = 48;

impl Placer {
    /// A placer that names objects after `writer`, as `names` counts them, and takes pieces of [`PIECE_BYTES`] from `pool`.
    pub fn new(pool: Pool, object_bytes: u32, writer: (Epoch, NodeId, Boot), names: NameCounter) -> Placer {
        assert_eq!(pool.buf_bytes(), PIECE_BYTES, "the pool's buffers are pieces");
        Placer {
            pool,
            object_bytes,
            aim_bytes: object_bytes,
            writer,
            names,
            open: None,
            tail_bytes: TAIL_BYTES_MIN,
            promised: 0,
            closed: VecDeque::new(),
        }
    }

    fn next_id(&mut self) -> ObjectId {
        let (epoch, node, boot) = self.writer;
        ObjectId { epoch, node, boot, count: self.names.take() }
    }

    /// An empty segment or an object of its own, which only the caller writes.
    pub fn separate(&mut self) -> Arc<ObjectBuf> {
        let id = self.next_id();
        Arc::new(ObjectBuf::new(id, self.object_bytes))
    }

    /// Pieces kept aside for bytes that will be appended to object `id`.
    pub fn aside(&self, id: ObjectId) -> Arc<ObjectBuf> {
        Arc::new(ObjectBuf::new(id, self.object_bytes))
    }

    /// The object that frames go to now; a new one when none is open.
    pub fn open_id(&mut self) -> ObjectId {
        let open = match self.open.take() {
            Some(open) => open,
            None => self.separate(),
        };
        let id = open.id();
        self.open = Some(open);
        id
    }

    /// Most pieces that a frame of `bytes` may take: it may close one object and open the next.
    fn pieces_for(bytes: usize) -> usize {
        bytes.div_ceil(PIECE_BYTES) + 1
    }

    /// Promises room for a frame of at most `bytes`; `false` when the pool cannot keep it while `keep` pieces stay free.
    pub fn can_take(&mut self, bytes: usize, keep: usize) -> bool {
        let want = Self::pieces_for(bytes);
        let fits = self.pool.free() >= self.promised + want + keep;
        if fits {
            self.promised += want;
        }
        fits
    }

    /// Ends the promise made for a frame of at most `bytes`, after its lane is done with it.
    pub fn settle(&mut self, bytes: usize) {
        self.promised -= Self::pieces_for(bytes);
    }

    /// Reserves `len` bytes for a frame of `blocks` blocks, in the open object or, when it is full, in the next.
    pub fn reserve(&mut self, len: u32, blocks: u32) -> Slot {
        let tail = blocks * TAIL_BYTES_PER_BLOCK;
        if let Some(open) = &self.open
            && open.len() + len + self.tail_bytes + tail > self.aim_bytes
        {
            self.close();
        }
        let object = match self.open.take() {
            Some(open) => open,
            None => self.separate(),
        };
        self.tail_bytes += tail;
        let offset = object.grow(len, &self.pool);
        self.open = Some(Arc::clone(&object));
        Slot { object, offset, len }
    }

    /// Makes objects for so many bytes from now on, and at most [`Placer::object_bytes`]; one of less than a frame holds one frame.
    pub fn aim(&mut self, bytes: u32) {
        self.aim_bytes = bytes.min(self.object_bytes);
    }

    /// Counts `bytes` of rows that the open object's tail will carry besides its blocks'.
    pub fn add_tail(&mut self, bytes: u32) {
        self.tail_bytes += bytes;
    }

    /// Closes the open object, if any: nothing is reserved in it any more.
    pub fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.closed.push_back(open);
        }
        self.tail_bytes = TAIL_BYTES_MIN;
    }

    /// An object that was closed and not taken yet, oldest first.
    pub fn take_closed(&mut self) -> Option<Arc<ObjectBuf>> {
        self.closed.pop_front()
    }

    /// The object that frames go to now.
    pub fn open(&self) -> Option<&Arc<ObjectBuf>> {
        self.open.as_ref()
    }

    /// Names given so far: every object and segment made until now has a lower count.
    pub fn names_given(&self) -> u32 {
        self.names.given()
    }

    /// Bytes of an object at most.
    pub fn object_bytes(&self) -> u32 {
        self.object_bytes
    }

    /// The pieces' pool.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Pieces that are free and not promised.
    pub fn spare(&self) -> usize {
        self.pool.free().saturating_sub(self.promised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placer(pieces: usize, object_bytes: u32) -> Placer {
        let writer = (Epoch(1), NodeId(2), Boot(3));
        Placer::new(Pool::new(pieces, PIECE_BYTES), object_bytes, writer, NameCounter::default())
    }

    #[test]
    fn names_go_on_from_one_placer_to_the_next() {
        let names = NameCounter::default();
        let placer = |epoch| {
            let writer = (Epoch(epoch), NodeId(2), Boot(3));
            Placer::new(Pool::new(4, PIECE_BYTES), 4 << 20, writer, names.clone())
        };
        let (mut first, mut second) = (placer(1), placer(2));
        assert_eq!((first.separate().id().count, first.open_id().count), (0, 1));
        assert_eq!((second.open_id().count, second.open_id().epoch), (2, Epoch(2)));
        assert_eq!((first.separate().id().count, second.names_given()), (3, 4));
    }

    #[test]
    fn frames_fill_an_object_and_then_the_next() {
        let mut placer = placer(64, 4 << 20);
        let mut slots = Vec::new();
        for n in 0..9u8 {
            let slot = placer.reserve(500_000, 10);
            slot.fill(&vec![n; 500_000]);
            slots.push((slot.object.id().count, slot.offset));
        }
        assert_eq!(slots[7], (0, 3_500_000));
        assert_eq!(slots[8], (1, 0));
        let closed = placer.take_closed().unwrap();
        assert!(placer.take_closed().is_none());
        placer.aim(1 << 20);
        assert_eq!(placer.reserve(500_000, 10).object.id().count, 2, "the open one is large enough by now");
        assert_eq!(placer.take_closed().map(|object| object.id().count), Some(1));
        closed.append(b"tail", placer.pool());
        closed.with_parts(|parts| {
            let all = parts.concat();
            assert_eq!(all.len(), 4_000_004);
            assert!((0..8).all(|n| all[n * 500_000..(n + 1) * 500_000].iter().all(|&b| b == n as u8)));
            assert_eq!(&all[4_000_000..], b"tail");
        });
        let before = placer.pool().free();
        drop(closed);
        assert_eq!(placer.pool().free(), before + 16);
    }

    #[test]
    fn promises_are_kept_within_the_pool() {
        let mut placer = placer(8, 4 << 20);
        assert!(placer.can_take(500_000, 2));
        assert!(placer.can_take(500_000, 2));
        assert!(!placer.can_take(500_000, 2));
        assert!(!placer.can_take(1, 1));
        assert!(placer.can_take(1, 0));
        placer.settle(500_000);
        assert!(placer.can_take(500_000, 0));
    }
}
