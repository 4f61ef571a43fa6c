//! A directory on its way: open while it is walked, settled when its last entry is there.
//!
//! ```text
//!  left = 1 (still being walked) + entries that are not there yet          0: attributes; then its parent has one less
//! ```
//!
//! Invariants: counts only fall after the walk raised them; the one that takes the last count settles it. Source: ours.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use windlass_hal::tree::{Errno, Node};

use super::attr::{self, Known};
use super::file::Job;
use super::inode_flags;
use super::target::Inherited;
use crate::format::row::ItemAttributes;

/// What failed when a directory could not be opened again.
pub(super) const OPEN_AGAIN: &str = "open the directory again";
/// Directories that are opened again together when the walk comes back to one that was closed.
const REOPENED: usize = 256;

/// A directory that is being restored into. It is open, but for one that many open ones are below: that is closed meanwhile, and
/// opened again when the walk comes back to it, or for a moment when a file of it is finished.
#[derive(Debug)]
pub struct Dir<N> {
    /// The directory above; `None` for the target itself.
    pub parent: Option<Arc<Dir<N>>>,
    /// Its name there.
    pub name: Vec<u8>,
    /// `None` while it is closed.
    node: Mutex<Option<Arc<N>>>,
    /// What to set in the end; `None` leaves it as it is.
    pub item: Option<ItemAttributes>,
    /// Whether nothing can be in it yet.
    pub fresh: bool,
    /// What is created in it is known to have; `None` when that is not known.
    pub inherited: Option<Inherited>,
    pub(super) left: AtomicU64,
}

impl<N> Dir<N> {
    /// A directory that is about to be walked.
    pub fn new(
        parent: Option<Arc<Dir<N>>>,
        name: Vec<u8>,
        node: Arc<N>,
        item: Option<ItemAttributes>,
        fresh: bool,
        inherited: Option<Inherited>,
    ) -> Arc<Dir<N>> {
        if let Some(parent) = &parent {
            parent.left.fetch_add(1, Ordering::Relaxed);
        }
        let node = Mutex::new(Some(node));
        Arc::new(Dir { parent, name, node, item, fresh, inherited, left: AtomicU64::new(1) })
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<N>>> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes it until it is needed.
    pub fn close(&self) {
        self.slot().take();
    }

    /// Path of an entry below the target.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut parts = vec![name];
        let mut at = self;
        while let Some(parent) = &at.parent {
            parts.push(&at.name);
            at = parent;
        }
        parts.reverse();
        parts.retain(|part| !part.is_empty());
        parts.join(&b'/')
    }
}

impl<N: Node> Dir<N> {
    /// The open directory; one that is closed is opened for the caller alone.
    pub fn node(&self) -> Result<Arc<N>, Errno> {
        if let Some(node) = &*self.slot() {
            return Ok(Arc::clone(node));
        }
        let (mut node, way) = self.way()?;
        for dir in way.into_iter().rev() {
            node = Arc::new(node.open_dir(&dir.name)?);
        }
        Ok(node)
    }

    /// The nearest directory above that is open, and the closed ones from this one up to it.
    fn way(&self) -> Result<(Arc<N>, Vec<&Dir<N>>), Errno> {
        let mut way = vec![self];
        let mut at = self;
        loop {
            // The target itself is never closed.
            at = at.parent.as_deref().ok_or(Errno::BADF)?;
            if let Some(node) = &*at.slot() {
                return Ok((Arc::clone(node), way));
            }
            way.push(at);
        }
    }

    /// Opens it again, if it is closed, and with it the last of those above it: the walk is on its way up.
    pub fn reopen(&self) -> Result<(), Errno> {
        if self.slot().is_some() {
            return Ok(());
        }
        let (mut node, way) = self.way()?;
        for (above, dir) in way.into_iter().enumerate().rev() {
            node = Arc::new(node.open_dir(&dir.name)?);
            if above < REOPENED {
                *dir.slot() = Some(Arc::clone(&node));
            }
        }
        Ok(())
    }

    /// Sets everything, now that its entries are there.
    fn settle(&self, node: &N, item: &ItemAttributes, job: &Job<N>) {
        let mut report = |reason| job.faults.add(self.path_of(b""), reason);
        // What other files were restored into may have other times now; what was there may be as it should.
        let known = if self.fresh { Known::NOTHING } else { Known::of(node) };
        attr::settle(node, item, known, job.options.owners, &mut report);
        inode_flags::set_at_end(node, item, &mut report);
    }

    /// One entry is there, or the walk is over. The last one settles the directory, and so on upwards.
    pub fn done(self: &Arc<Dir<N>>, job: &Job<N>) {
        let mut at = Arc::clone(self);
        while at.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            match (&at.item, at.node()) {
                (Some(item), Ok(node)) => at.settle(&node, item, job),
                (Some(_), Err(errno)) => job.system(at.path_of(b""), OPEN_AGAIN, errno),
                (None, _) => {}
            }
            let Some(parent) = &at.parent else { return };
            at = Arc::clone(parent);
        }
    }
}

impl<N> Drop for Dir<N> {
    /// Lets go of those above one by one: each holds the next, and the stack has no room for them all.
    fn drop(&mut self) {
        let mut above = self.parent.take();
        while let Some(dir) = above {
            above = Arc::into_inner(dir).and_then(|mut dir| dir.parent.take());
        }
    }
}
