//! What a handle of a simulated target does: each call enters the state, which may refuse it, and leaves its change there.
//!
//! Source: ours; the contract in [`crate::tree`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::State;
use super::fs::{Body, Inode};
use crate::tree::{Errno, Node, Stat, Taken};
use crate::volume::{Hints, ItemKind, Timestamp};

/// An open directory or file of a [`SimTree`](super::SimTree).
pub struct SimNode {
    pub(super) tree: Arc<Mutex<State>>,
    pub(super) inode: u64,
    pub(super) handle: u64,
    pub(super) life: u64,
}

impl std::fmt::Debug for SimNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "inode {}", self.inode)
    }
}

impl Drop for SimNode {
    fn drop(&mut self) {
        let mut state = self.state();
        if state.life != self.life {
            return;
        }
        if state.locks.get(&self.inode) == Some(&self.handle) {
            state.locks.remove(&self.inode);
        }
        let left = state.open.get(&self.inode).map_or(0, |count| count - 1);
        if left > 0 {
            state.open.insert(self.inode, left);
        } else {
            state.open.remove(&self.inode);
            state.let_go(self.inode);
        }
    }
}

impl SimNode {
    fn state(&self) -> MutexGuard<'_, State> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call that only looks.
    fn read<T>(&self, look: impl FnOnce(&State) -> Result<T, Errno>) -> Result<T, Errno> {
        let mut state = self.state();
        state.enter(self.life, false)?;
        look(&state)
    }

    /// A call that changes names or attributes.
    fn write<T>(&self, change: impl FnOnce(&mut State) -> Result<T, Errno>) -> Result<T, Errno> {
        let mut state = self.state();
        state.enter(self.life, true)?;
        let done = change(&mut state)?;
        state.changed();
        Ok(done)
    }

    fn open(&self, name: &[u8], directory: bool) -> Result<SimNode, Errno> {
        let mut state = self.state();
        state.enter(self.life, false)?;
        let inode = state.live.lookup(self.inode, name)?;
        match (state.live.get(inode)?.stat.kind, directory) {
            (ItemKind::Symlink, _) => Err(Errno::LOOP),
            (kind, true) if kind != ItemKind::Directory => Err(Errno::NOTDIR),
            _ => Ok(state.handle(&self.tree, inode)),
        }
    }

    fn put(&self, offset: u64, len: u64, bytes: Option<&[u8]>) -> Result<(), Errno> {
        let mut state = self.state();
        if let Err(errno) = state.enter(self.life, true) {
            // Killed in the middle of it.
            if let (Errno::SHUTDOWN, Some(bytes), true) = (errno, bytes, self.life == state.life) {
                let part = state.prng.below(len + 1);
                let _ = state.live.put(self.inode, offset, part, Some(bytes), &mut Vec::new());
            }
            return Err(errno);
        }
        let mut written = Vec::new();
        state.written += if bytes.is_some() { len } else { 0 };
        let done = state.live.put(self.inode, offset, len, bytes, &mut written);
        state.dirty.extend(written.into_iter().map(|page| (self.inode, page)));
        state.changed();
        done
    }
}

impl Node for SimNode {
    fn open_dir(&self, name: &[u8]) -> Result<SimNode, Errno> {
        self.open(name, true)
    }

    fn open_file(&self, name: &[u8]) -> Result<SimNode, Errno> {
        self.open(name, false)
    }

    fn open_to_write(&self, name: &[u8]) -> Result<SimNode, Errno> {
        let mut state = self.state();
        state.enter(self.life, true)?;
        let inode = state.live.lookup(self.inode, name)?;
        match state.live.get(inode)?.stat.kind {
            ItemKind::Symlink => return Err(Errno::LOOP),
            ItemKind::Directory => return Err(Errno::ISDIR),
            _ => {}
        }
        state.live.change(inode)?;
        Ok(state.handle(&self.tree, inode))
    }

    fn make_dir(&self, name: &[u8], mode: u16) -> Result<(), Errno> {
        let made = (Body::Directory(BTreeMap::new()), ItemKind::Directory, mode);
        self.write(|state| state.live.make_named(self.inode, name, made).map(drop))
    }

    fn create(&self, name: &[u8], mode: u16) -> Result<SimNode, Errno> {
        let made = (Body::File(BTreeMap::new()), ItemKind::File, mode);
        self.write(|state| {
            let inode = state.live.make_named(self.inode, name, made)?;
            Ok(state.handle(&self.tree, inode))
        })
    }

    fn create_unnamed(&self, mode: u16) -> Result<SimNode, Errno> {
        self.write(|state| {
            if !state.config.has_unnamed {
                return Err(Errno::OPNOTSUPP);
            }
            let inode =
                state.live.make(Some(self.inode), Body::File(BTreeMap::new()), ItemKind::File, mode)?;
            Ok(state.handle(&self.tree, inode))
        })
    }

    fn symlink(&self, name: &[u8], target: &[u8]) -> Result<(), Errno> {
        let made = (Body::Symlink(target.to_vec()), ItemKind::Symlink, 0o777);
        self.write(|state| state.live.make_named(self.inode, name, made).map(drop))
    }

    fn make_special(&self, name: &[u8], kind: ItemKind, device: (u32, u32)) -> Result<(), Errno> {
        let device = match kind {
            ItemKind::CharDevice | ItemKind::BlockDevice => device,
            ItemKind::Fifo | ItemKind::Socket => (0, 0),
            ItemKind::File | ItemKind::Image | ItemKind::Directory | ItemKind::Symlink => {
                return Err(Errno::INVAL);
            }
        };
        let made = (Body::Special(device), kind, 0o600);
        self.write(|state| state.live.make_named(self.inode, name, made).map(drop))
    }

    fn link(&self, dir: &SimNode, name: &[u8]) -> Result<(), Errno> {
        self.write(|state| state.live.link(self.inode, dir.inode, name))
    }

    fn link_name(&self, name: &[u8], dir: &SimNode, new: &[u8]) -> Result<(), Errno> {
        self.write(|state| {
            let inode = state.live.lookup(self.inode, name)?;
            state.live.link(inode, dir.inode, new)
        })
    }

    fn rename(&self, name: &[u8], dir: &SimNode, new: &[u8], taken: Taken) -> Result<(), Errno> {
        self.write(|state| {
            if taken != Taken::Replace && !state.config.has_rename_flags {
                return Err(Errno::INVAL);
            }
            if let Some(replaced) = state.live.rename((self.inode, name), (dir.inode, new), taken)? {
                state.let_go(replaced);
            }
            Ok(())
        })
    }

    fn remove(&self, name: &[u8]) -> Result<(), Errno> {
        self.write(|state| {
            let inode = state.live.unlink(self.inode, name, false)?;
            state.let_go(inode);
            Ok(())
        })
    }

    fn remove_dir(&self, name: &[u8]) -> Result<(), Errno> {
        self.write(|state| {
            let inode = state.live.unlink(self.inode, name, true)?;
            state.let_go(inode);
            Ok(())
        })
    }

    fn names(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), Errno> {
        let mut names = self.read(|state| state.live.names(self.inode))?;
        let mut state = self.state();
        state.prng.shuffle(&mut names);
        drop(state);
        names.iter().for_each(|name| each(name));
        Ok(())
    }

    fn lock(&self) -> Result<(), Errno> {
        let mut state = self.state();
        state.enter(self.life, false)?;
        match state.locks.get(&self.inode) {
            Some(&handle) if handle != self.handle => Err(Errno::AGAIN),
            _ => {
                state.locks.insert(self.inode, self.handle);
                Ok(())
            }
        }
    }

    fn stat(&self) -> Result<Stat, Errno> {
        self.read(|state| state.live.get(self.inode).map(Inode::stat))
    }

    fn stat_name(&self, name: &[u8]) -> Result<Stat, Errno> {
        self.read(|state| {
            let inode = state.live.lookup(self.inode, name)?;
            state.live.get(inode).map(Inode::stat)
        })
    }

    fn set_owner(&self, uid: u32, gid: u32) -> Result<(), Errno> {
        self.write(|state| {
            state.may_own(self.inode, uid, gid)?;
            state.live.set_owner(self.inode, uid, gid)
        })
    }

    fn set_mode(&self, mode: u16) -> Result<(), Errno> {
        self.write(|state| {
            state.live.change(self.inode)?.stat.mode = mode & 0o7777;
            Ok(())
        })
    }

    fn set_times(&self, atime: Timestamp, mtime: Timestamp) -> Result<(), Errno> {
        self.write(|state| {
            let stat = &mut state.live.change(self.inode)?.stat;
            (stat.atime, stat.mtime) = (atime, mtime);
            Ok(())
        })
    }

    fn xattr(&self, name: &[u8], value: &mut [u8]) -> Result<usize, Errno> {
        self.read(|state| {
            state.may_have_xattrs()?;
            let have = state.live.get(self.inode)?.xattrs.get(name).ok_or(Errno::NODATA)?;
            value.get_mut(..have.len()).ok_or(Errno::RANGE)?.copy_from_slice(have);
            Ok(have.len())
        })
    }

    fn set_xattr(&self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        self.write(|state| {
            state.may_have_xattrs()?;
            state.live.change(self.inode)?.xattrs.insert(name.to_vec(), value.to_vec());
            Ok(())
        })
    }

    fn xattr_names(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), Errno> {
        let names: Vec<Vec<u8>> = self.read(|state| {
            state.may_have_xattrs()?;
            Ok(state.live.get(self.inode)?.xattrs.keys().cloned().collect())
        })?;
        names.iter().for_each(|name| each(name));
        Ok(())
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        self.write(|state| {
            state.may_have_xattrs()?;
            let removed = state.live.change(self.inode)?.xattrs.remove(name);
            // As Linux since 6.2 has it.
            let is_acl = name.starts_with(b"system.posix_acl_");
            if removed.is_some() || is_acl { Ok(()) } else { Err(Errno::NODATA) }
        })
    }

    fn set_owner_of(&self, name: &[u8], uid: u32, gid: u32) -> Result<(), Errno> {
        self.write(|state| {
            let inode = state.live.lookup(self.inode, name)?;
            state.may_own(inode, uid, gid)?;
            state.live.set_owner(inode, uid, gid)
        })
    }

    fn set_mode_of(&self, name: &[u8], mode: u16) -> Result<(), Errno> {
        self.write(|state| {
            let inode = state.live.lookup(self.inode, name)?;
            state.live.change(inode)?.stat.mode = mode & 0o7777;
            Ok(())
        })
    }

    fn set_times_of(&self, name: &[u8], atime: Timestamp, mtime: Timestamp) -> Result<(), Errno> {
        self.write(|state| {
            let inode = state.live.lookup(self.inode, name)?;
            let stat = &mut state.live.change(inode)?.stat;
            (stat.atime, stat.mtime) = (atime, mtime);
            Ok(())
        })
    }

    fn set_xattr_of(&self, name: &[u8], key: &[u8], value: &[u8]) -> Result<(), Errno> {
        self.write(|state| {
            state.may_have_xattrs()?;
            let inode = state.live.lookup(self.inode, name)?;
            state.live.change(inode)?.xattrs.insert(key.to_vec(), value.to_vec());
            Ok(())
        })
    }

    fn set_project(&self, project: u32) -> Result<(), Errno> {
        self.write(|state| {
            if state.config.flags == 0 {
                return Err(Errno::OPNOTSUPP);
            }
            state.live.change(self.inode)?.project = project;
            Ok(())
        })
    }

    fn flags(&self) -> Result<u32, Errno> {
        self.read(|state| match state.config.flags {
            0 => Err(Errno::NOTTY),
            _ => state.live.get(self.inode).map(|inode| inode.flags),
        })
    }

    fn set_flags(&self, flags: u32) -> Result<(), Errno> {
        self.write(|state| {
            if flags & !state.config.flags != 0 {
                return Err(Errno::OPNOTSUPP);
            }
            // A lock keeps no flag from being changed.
            let inode = state.live.inodes.get_mut(&self.inode).ok_or(Errno::STALE)?;
            inode.flags = flags;
            Ok(())
        })
    }

    fn set_hints(&self, hints: Hints) -> Result<Hints, Errno> {
        self.write(|state| {
            if state.config.flags == 0 {
                return Err(Errno::NOTTY);
            }
            let have = &mut state.live.change(self.inode)?.hints;
            have.flags |= hints.flags;
            if hints.flags & Hints::EXTENT_SIZE != 0 {
                have.extent_bytes = hints.extent_bytes;
            }
            if hints.flags & Hints::COW_EXTENT_SIZE != 0 {
                have.cow_extent_bytes = hints.cow_extent_bytes;
            }
            Ok(*have)
        })
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<usize, Errno> {
        self.read(|state| state.live.read(self.inode, offset, bytes))
    }

    fn data_from(&self, offset: u64) -> Result<Option<u64>, Errno> {
        self.read(|state| state.live.data_from(self.inode, offset))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.put(offset, bytes.len() as u64, Some(bytes))
    }

    fn write_zeros(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let zeros = vec![0; len as usize];
        self.put(offset, len, Some(&zeros))
    }

    fn clear(&self, _: u64, _: u64) -> Result<(), Errno> {
        self.write(|_| Err(Errno::OPNOTSUPP))
    }

    fn punch(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let mut state = self.state();
        state.enter(self.life, true)?;
        let mut written = Vec::new();
        let done = state.live.punch(self.inode, offset, len, &mut written);
        state.dirty.extend(written.into_iter().map(|page| (self.inode, page)));
        state.changed();
        done
    }

    fn preallocate(&self, offset: u64, len: u64) -> Result<(), Errno> {
        self.put(offset, len, None)
    }

    fn set_len(&self, len: u64) -> Result<(), Errno> {
        self.write(|state| state.live.set_len(self.inode, len))
    }

    fn sync(&self) -> Result<(), Errno> {
        let mut state = self.state();
        state.enter(self.life, true)?;
        let synced: Vec<(u64, u64)> =
            state.dirty.range((self.inode, 0)..=(self.inode, u64::MAX)).copied().collect();
        for page in synced {
            state.dirty.remove(&page);
        }
        // The journal goes out up to here.
        state.synced();
        Ok(())
    }

    fn sync_all(&self) -> Result<(), Errno> {
        let mut state = self.state();
        state.enter(self.life, true)?;
        state.dirty.clear();
        state.synced();
        Ok(())
    }
}
