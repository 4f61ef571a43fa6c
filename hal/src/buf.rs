//! Memory for I/O: a fixed pool of equal, page-aligned buffers, and the move-only handle to one of them.
//!
//! Invariants
//! - A pool gets its addresses once, when it is made, and never more (I12); its pages are taken from the
//!   machine when a buffer is used for the first time. The buffer returned last is taken first, so only as
//!   many are resident as were in use at the same time.
//! - A buffer is in exactly one place at a time: in the pool, or owned by one [`Buf`]. Dropping a `Buf` puts it back.
//! - The memory of a buffer never moves and stays mapped until the pool and all its buffers are gone, so a port may
//!   register it with the kernel and hold its address while a request is in flight (the request owns the `Buf`).
//! - All memory is initialised (zero) from the start.
//!
//! Does not: wait. [`Pool::take`] on an empty pool returns `None`; that is backpressure, and the caller's to handle.
//!
//! Source: ours. This file holds `unsafe` (see `lib.rs`).
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Alignment in bytes of every buffer: the page, which every sector size divides.
pub const BUF_ALIGN_BYTES: usize = 4096;

struct Region {
    base: NonNull<u8>,
    bytes: usize,
    buf_bytes: usize,
    free: Mutex<Vec<u32>>,
}

// SAFETY: `base` points to memory owned by this Region until it is dropped. Shared access is to `free` (a Mutex) and
// to plain integers; the bytes themselves are reached only through a `Buf`, and each index is held by at most one.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: `base` and `bytes` are one mapping of our own, unmapped once; every Buf holds an Arc to the Region, so none
        // is left.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast::<c_void>(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "a mapping of our own is unmapped");
    }
}

/// A fixed set of equal buffers. Cheap to clone; all clones are the same pool.
#[derive(Clone)]
pub struct Pool {
    region: Arc<Region>,
    count: usize,
}

impl Pool {
    /// A pool of `count` buffers of `buf_bytes` bytes, rounded up to [`BUF_ALIGN_BYTES`].
    ///
    /// # Panics
    /// As [`Pool::try_new`], and when the system has no such memory.
    pub fn new(count: usize, buf_bytes: usize) -> Pool {
        Pool::try_new(count, buf_bytes)
            .unwrap_or_else(|| panic!("no memory for {count} buffers of {buf_bytes} bytes"))
    }

    /// The same; `None` when the system has no such memory.
    ///
    /// # Panics
    /// When `count` or `buf_bytes` is zero, or `count` does not fit a `u32`: the caller's arithmetic was wrong.
    pub fn try_new(count: usize, buf_bytes: usize) -> Option<Pool> {
        assert!(count > 0 && buf_bytes > 0 && u32::try_from(count).is_ok(), "a pool has at least one buffer");
        let buf_bytes = buf_bytes.checked_next_multiple_of(BUF_ALIGN_BYTES)?;
        let bytes = count.checked_mul(buf_bytes).filter(|&bytes| isize::try_from(bytes).is_ok())?;
        // Not the allocator: it would write the zeros of memory that it aligns, and so take all of it now.
        // SAFETY: no address is asked for, so no other mapping is replaced; what comes back is ours alone, zero and page-aligned.
        let raw = unsafe {
            mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        };
        let base = NonNull::new(raw.ok()?.cast::<u8>())?;
        let free = Mutex::new((0..count as u32).rev().collect());
        Some(Pool { region: Arc::new(Region { base, bytes, buf_bytes, free }), count })
    }

    /// Takes a free buffer; `None` when all are in use. The contents are what the last user left.
    pub fn take(&self) -> Option<Buf> {
        let index = self.region.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(Buf { region: Arc::clone(&self.region), index })
    }

    /// Buffers that are free at this moment.
    pub fn free(&self) -> usize {
        self.region.free.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Buffers in all.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Size in bytes of each buffer, a multiple of [`BUF_ALIGN_BYTES`].
    pub fn buf_bytes(&self) -> usize {
        self.region.buf_bytes
    }

    /// Address and length of buffer `index` (`0..count`), for registration with a kernel. Reading through it is the
    /// caller's to justify.
    pub(crate) fn raw_part(&self, index: usize) -> (*mut u8, usize) {
        assert!(index < self.count, "buffer index in range");
        // SAFETY: index < count, so the offset lies inside the one mapping.
        (unsafe { self.region.base.as_ptr().add(index * self.region.buf_bytes) }, self.region.buf_bytes)
    }

    /// Whether `buf` was taken from this pool.
    pub fn owns(&self, buf: &Buf) -> bool {
        Arc::ptr_eq(&self.region, &buf.region)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({} of {} x {} B free)", self.free(), self.count, self.buf_bytes())
    }
}

/// One buffer of a [`Pool`], owned. Dereferences to its bytes; dropping it returns it to the pool.
pub struct Buf {
    region: Arc<Region>,
    index: u32,
}

impl Buf {
    /// Position in the pool, `0..count`: what a port that registered the pool passes to the kernel.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Address of the first byte, for a port that hands the memory to the kernel. It makes no reference to the bytes, so it
    /// may be taken while the kernel works on another part of them; using it is the caller's to justify.
    pub(crate) fn address(&self) -> *mut u8 {
        // SAFETY: index < count by construction (only `Pool::take` makes a Buf).
        unsafe { self.region.base.as_ptr().add(self.index as usize * self.region.buf_bytes) }
    }
}

impl Deref for Buf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the range is inside the mapping, initialised, and only this Buf refers to it.
        unsafe { std::slice::from_raw_parts(self.address(), self.region.buf_bytes) }
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.address(), self.region.buf_bytes) }
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        self.region.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.index);
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf(#{}, {} B)", self.index, self.region.buf_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pool_hands_out_each_buffer_once_and_takes_it_back() {
        let pool = Pool::new(2, 100);
        assert_eq!(pool.buf_bytes(), BUF_ALIGN_BYTES);
        let mut a = pool.take().unwrap();
        let b = pool.take().unwrap();
        assert!(pool.take().is_none());
        assert_ne!(a.index(), b.index());
        assert_eq!(a.as_ptr() as usize % BUF_ALIGN_BYTES, 0);
        a[0] = 1;
        a[BUF_ALIGN_BYTES - 1] = 2;
        assert!(b.iter().all(|&x| x == 0));
        drop(a);
        assert_eq!(pool.free(), 1);
        assert!(pool.owns(&b));
        assert!(!Pool::new(1, 1).owns(&b));
    }

    #[test]
    fn memory_is_taken_as_buffers_are_used() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/statm").unwrap();
            status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * BUF_ALIGN_BYTES
        };
        let before = resident();
        let pool = Pool::new(1 << 10, 1 << 20);
        for _ in 0..100 {
            pool.take().unwrap().fill(1);
        }
        assert!(resident() - before < 256 << 20, "1 GiB of buffers, one of them in use at a time");
        assert!(Pool::try_new(1 << 20, 1 << 40).is_none(), "no machine has that");
    }

    #[test]
    fn buffers_outlive_their_pool_handle() {
        let mut buf = Pool::new(1, 8192).take().unwrap();
        buf.fill(7);
        assert_eq!(buf.iter().map(|&b| u64::from(b)).sum::<u64>(), 7 * 8192);
    }
}
