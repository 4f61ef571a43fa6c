//! A file system in memory: inodes, names, pages. Pure: no faults, no power, no handles.
//!
//! Invariants: an inode has as many links as names lead to it (a directory one); a page that is not there is a hole; `used` is what all
//! inodes and pages take. Cloning shares pages. Source: ours.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::tree::{Errno, Stat, Taken};
use crate::volume::{Hints, ItemKind, Timestamp};

/// Bytes of a page: what is allocated, written and lost at once.
pub(super) const PAGE_BYTES: u64 = 4096;
/// What an inode takes of the room.
const INODE_BYTES: u64 = 256;
/// Number of the top directory.
pub(super) const ROOT: u64 = 2;
/// First second of the file system's own clock, which no restored time comes near.
const CLOCK_SECS: i64 = 4_000_000_000;
/// `FS_IMMUTABLE_FL`.
const IMMUTABLE: u32 = 0x10;
/// `FS_APPEND_FL`.
const APPEND: u32 = 0x20;
const CAPABILITY: &[u8] = b"security.capability";

/// A page's bytes; `None` is allocated and unwritten.
pub(super) type Page = Option<Arc<[u8]>>;

/// What an inode holds.
#[derive(Clone, Debug)]
pub(super) enum Body {
    File(BTreeMap<u64, Page>),
    Directory(BTreeMap<Vec<u8>, u64>),
    Symlink(Vec<u8>),
    Special((u32, u32)),
}

#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) stat: Stat,
    pub(super) links: u32,
    pub(super) body: Body,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) flags: u32,
    pub(super) project: u32,
    pub(super) hints: Hints,
    /// Whether its length was set rather than written.
    pub(super) is_length_set: bool,
}

impl Inode {
    /// With the number of its names.
    pub(super) fn stat(&self) -> Stat {
        Stat { links: u64::from(self.links), ..self.stat }
    }

    fn pages(&self) -> u64 {
        match &self.body {
            Body::File(pages) => pages.len() as u64,
            _ => 0,
        }
    }

    fn is_locked(&self) -> bool {
        self.flags & (IMMUTABLE | APPEND) != 0
    }
}

/// What names and files it takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) name_bytes_max: usize,
    pub(super) file_bytes_max: u64,
    pub(super) folds_case: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Fs {
    pub(super) inodes: BTreeMap<u64, Inode>,
    next: u64,
    ticks: u32,
    pub(super) used: u64,
    pub(super) room: u64,
    /// What a call without room says.
    pub(super) full: Errno,
    pub(super) umask: u16,
    pub(super) limits: Limits,
}

impl Fs {
    pub(super) fn new(room: u64, full: Errno, umask: u16) -> Fs {
        let limits = Limits { name_bytes_max: usize::MAX, file_bytes_max: u64::MAX, folds_case: false };
        let mut fs = Fs {
            inodes: BTreeMap::new(),
            next: ROOT,
            ticks: 0,
            used: 0,
            room: u64::MAX,
            full,
            umask,
            limits,
        };
        // There is room for the first one.
        let _ = fs.make(None, Body::Directory(BTreeMap::new()), ItemKind::Directory, 0o755);
        fs.room = room;
        if let Some(root) = fs.inodes.get_mut(&ROOT) {
            root.links = 1;
        }
        fs
    }

    fn now(&mut self) -> Timestamp {
        self.ticks += 1;
        Timestamp { secs: CLOCK_SECS + i64::from(self.ticks), nanos: 0 }
    }

    fn take(&mut self, bytes: u64) -> Result<(), Errno> {
        if self.used + bytes > self.room {
            return Err(self.full);
        }
        self.used += bytes;
        Ok(())
    }

    pub(super) fn get(&self, inode: u64) -> Result<&Inode, Errno> {
        self.inodes.get(&inode).ok_or(Errno::STALE)
    }

    /// An inode that is about to be changed.
    pub(super) fn change(&mut self, inode: u64) -> Result<&mut Inode, Errno> {
        let found = self.inodes.get_mut(&inode).ok_or(Errno::STALE)?;
        if found.is_locked() { Err(Errno::PERM) } else { Ok(found) }
    }

    fn entries(&self, dir: u64) -> Result<&BTreeMap<Vec<u8>, u64>, Errno> {
        match &self.get(dir)?.body {
            Body::Directory(entries) => Ok(entries),
            _ => Err(Errno::NOTDIR),
        }
    }

    fn entries_mut(&mut self, dir: u64) -> Result<&mut BTreeMap<Vec<u8>, u64>, Errno> {
        let now = self.now();
        let inode = self.change(dir)?;
        inode.stat.mtime = now;
        match &mut inode.body {
            Body::Directory(entries) => Ok(entries),
            _ => Err(Errno::NOTDIR),
        }
    }

    pub(super) fn names(&self, dir: u64) -> Result<Vec<Vec<u8>>, Errno> {
        Ok(self.entries(dir)?.keys().cloned().collect())
    }

    /// The name as the directory has it.
    fn resolved(&self, dir: u64, name: &[u8]) -> Result<Vec<u8>, Errno> {
        if name.len() > self.limits.name_bytes_max {
            return Err(Errno::NAMETOOLONG);
        }
        let entries = self.entries(dir)?;
        let same = |have: &&Vec<u8>| self.limits.folds_case && have.eq_ignore_ascii_case(name);
        Ok(entries.keys().find(same).cloned().unwrap_or_else(|| name.to_vec()))
    }

    pub(super) fn lookup(&self, dir: u64, name: &[u8]) -> Result<u64, Errno> {
        let name = &self.resolved(dir, name)?[..];
        self.entries(dir)?.get(name).copied().ok_or(Errno::NOENT)
    }

    /// Makes an inode without a name, as one made in `dir` would be.
    pub(super) fn make(
        &mut self,
        dir: Option<u64>,
        body: Body,
        kind: ItemKind,
        mode: u16,
    ) -> Result<u64, Errno> {
        let mut gid = 0;
        if let Some(dir) = dir {
            self.entries(dir)?;
            let above = self.change(dir)?;
            // A directory with the setgid bit hands its group down.
            if above.stat.mode & 0o2000 != 0 {
                gid = above.stat.gid;
            }
        }
        self.take(INODE_BYTES)?;
        let inode = self.next;
        self.next += 1;
        let now = self.now();
        let mode = if kind == ItemKind::Symlink { 0o777 } else { mode & !self.umask };
        let stat =
            Stat { kind, mode, uid: 0, gid, size: 0, atime: now, mtime: now, device: 1, inode, links: 0 };
        let (xattrs, hints) = (BTreeMap::new(), Hints::NONE);
        let (flags, project, is_length_set) = (0, 0, false);
        self.inodes
            .insert(inode, Inode { stat, links: 0, body, xattrs, flags, project, hints, is_length_set });
        Ok(inode)
    }

    /// Names an inode.
    pub(super) fn link(&mut self, inode: u64, dir: u64, name: &[u8]) -> Result<(), Errno> {
        let name = &self.resolved(dir, name)?[..];
        if self.entries(dir)?.contains_key(name) {
            return Err(Errno::EXIST);
        }
        let found = self.get(inode)?;
        if found.is_locked() || matches!(found.body, Body::Directory(_)) && found.links > 0 {
            return Err(Errno::PERM);
        }
        self.entries_mut(dir)?.insert(name.to_vec(), inode);
        if let Some(found) = self.inodes.get_mut(&inode) {
            found.links += 1;
        }
        Ok(())
    }

    /// Makes an inode with a name, or nothing.
    pub(super) fn make_named(
        &mut self,
        dir: u64,
        name: &[u8],
        (body, kind, mode): (Body, ItemKind, u16),
    ) -> Result<u64, Errno> {
        let name = &self.resolved(dir, name)?[..];
        if self.entries(dir)?.contains_key(name) {
            return Err(Errno::EXIST);
        }
        let inode = self.make(Some(dir), body, kind, mode)?;
        self.link(inode, dir, name)?;
        Ok(inode)
    }

    /// Takes a name away; returns the inode that it had, which may have none left.
    pub(super) fn unlink(&mut self, dir: u64, name: &[u8], directory: bool) -> Result<u64, Errno> {
        let name = &self.resolved(dir, name)?[..];
        let inode = self.lookup(dir, name)?;
        self.change(dir)?;
        match (&self.change(inode)?.body, directory) {
            (Body::Directory(_), false) => return Err(Errno::ISDIR),
            (Body::Directory(entries), true) if !entries.is_empty() => return Err(Errno::NOTEMPTY),
            (Body::Directory(_), true) | (_, false) => {}
            (_, true) => return Err(Errno::NOTDIR),
        }
        self.entries_mut(dir)?.remove(name);
        self.change(inode)?.links -= 1;
        Ok(inode)
    }

    /// Returns an inode that lost a name, if there is one.
    pub(super) fn rename(
        &mut self,
        (dir, name): (u64, &[u8]),
        (to, new): (u64, &[u8]),
        taken: Taken,
    ) -> Result<Option<u64>, Errno> {
        let (name, new) = (&self.resolved(dir, name)?[..], &self.resolved(to, new)?[..]);
        let inode = self.lookup(dir, name)?;
        for changed in [dir, to, inode] {
            self.change(changed)?;
        }
        let there = self.lookup(to, new);
        let is_directory = |fs: &Fs, inode| matches!(fs.get(inode).map(|i| &i.body), Ok(Body::Directory(_)));
        match (there, taken) {
            (Err(Errno::NOENT), Taken::Exchange) => Err(Errno::NOENT),
            (Err(Errno::NOENT), _) => {
                self.entries_mut(dir)?.remove(name);
                self.entries_mut(to)?.insert(new.to_vec(), inode);
                Ok(None)
            }
            (Err(errno), _) => Err(errno),
            (Ok(_), Taken::Refuse) => Err(Errno::EXIST),
            (Ok(other), Taken::Exchange) => {
                self.change(other)?;
                self.entries_mut(dir)?.insert(name.to_vec(), other);
                self.entries_mut(to)?.insert(new.to_vec(), inode);
                Ok(None)
            }
            // Both names of one inode stay.
            (Ok(other), Taken::Replace) if other == inode => Ok(None),
            (Ok(other), Taken::Replace) => {
                match (is_directory(self, inode), is_directory(self, other)) {
                    (false, true) => return Err(Errno::ISDIR),
                    (true, false) => return Err(Errno::NOTDIR),
                    (directory, _) => self.unlink(to, new, directory)?,
                };
                self.entries_mut(dir)?.remove(name);
                self.entries_mut(to)?.insert(new.to_vec(), inode);
                Ok(Some(other))
            }
        }
    }

    /// Frees an inode that nothing leads to.
    pub(super) fn free(&mut self, inode: u64) {
        if let Some(gone) = self.inodes.remove(&inode) {
            self.used -= INODE_BYTES + gone.pages() * PAGE_BYTES;
        }
    }

    /// Frees every inode without a name: what is left of those that were open.
    pub(super) fn free_nameless(&mut self) {
        let nameless: Vec<u64> =
            self.inodes.iter().filter(|(_, inode)| inode.links == 0).map(|(&number, _)| number).collect();
        nameless.into_iter().for_each(|inode| self.free(inode));
    }

    /// Puts bytes (`None`: allocates) on pages, each as a whole; those before one that there is no room for stay. Pages that were written.
    pub(super) fn put(
        &mut self,
        inode: u64,
        offset: u64,
        len: u64,
        bytes: Option<&[u8]>,
        written: &mut Vec<u64>,
    ) -> Result<(), Errno> {
        let (now, limit) = (self.now(), self.limits.file_bytes_max);
        let found = self.change(inode)?;
        found.xattrs.remove(CAPABILITY);
        let end = offset.checked_add(len).filter(|&end| end <= limit).ok_or(Errno::FBIG)?;
        let mut at = offset;
        while at < end {
            let (page, skip) = (at / PAGE_BYTES, at % PAGE_BYTES);
            let n = (end - at).min(PAGE_BYTES - skip);
            let there = match &self.get(inode)?.body {
                Body::File(pages) => pages.get(&page).cloned(),
                _ => return Err(Errno::INVAL),
            };
            if there.is_none() {
                self.take(PAGE_BYTES)?;
            }
            let mut whole = match &there {
                Some(Some(old)) => old.to_vec(),
                _ => vec![0; PAGE_BYTES as usize],
            };
            let value: Page = match bytes {
                Some(bytes) => {
                    let from = (at - offset) as usize;
                    whole[skip as usize..(skip + n) as usize]
                        .copy_from_slice(&bytes[from..from + n as usize]);
                    written.push(page);
                    Some(whole.into())
                }
                None => there.flatten(),
            };
            let found = self.change(inode)?;
            if let Body::File(pages) = &mut found.body {
                pages.insert(page, value);
            }
            at += n;
            if bytes.is_some() {
                found.stat.mtime = now;
                if at > found.stat.size {
                    (found.stat.size, found.is_length_set) = (at, false);
                }
            }
        }
        Ok(())
    }

    pub(super) fn set_len(&mut self, inode: u64, len: u64) -> Result<(), Errno> {
        if len > self.limits.file_bytes_max {
            return Err(Errno::FBIG);
        }
        let now = self.now();
        let found = self.change(inode)?;
        let Body::File(pages) = &mut found.body else { return Err(Errno::INVAL) };
        let freed = pages.split_off(&len.div_ceil(PAGE_BYTES)).len() as u64;
        let inside = (len % PAGE_BYTES) as usize;
        if inside > 0
            && let Some(Some(last)) = pages.get_mut(&(len / PAGE_BYTES))
        {
            let mut cut = last.to_vec();
            cut[inside..].fill(0);
            *last = cut.into();
        }
        found.stat.mtime = now;
        (found.stat.size, found.is_length_set) = (len, true);
        self.used -= freed * PAGE_BYTES;
        Ok(())
    }

    /// Makes a range a hole: whole pages are freed, parts of others are zero.
    pub(super) fn punch(
        &mut self,
        inode: u64,
        offset: u64,
        len: u64,
        written: &mut Vec<u64>,
    ) -> Result<(), Errno> {
        let now = self.now();
        let found = self.change(inode)?;
        let Body::File(pages) = &mut found.body else { return Err(Errno::INVAL) };
        let end = offset.checked_add(len).ok_or(Errno::FBIG)?;
        let mut freed = 0;
        let touched: Vec<u64> =
            pages.range(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES)).map(|(&page, _)| page).collect();
        for page in touched {
            let start = page * PAGE_BYTES;
            let from = offset.saturating_sub(start) as usize;
            let to = (end - start).min(PAGE_BYTES) as usize;
            if (from, to) == (0, PAGE_BYTES as usize) {
                pages.remove(&page);
                freed += PAGE_BYTES;
            } else if let Some(Some(old)) = pages.get_mut(&page) {
                let mut part = old.to_vec();
                part[from..to].fill(0);
                *old = part.into();
                written.push(page);
            }
        }
        found.stat.mtime = now;
        self.used -= freed;
        Ok(())
    }

    /// A file's bytes from `offset` on, as far as they go and fit; how many.
    pub(super) fn read(&self, inode: u64, offset: u64, out: &mut [u8]) -> Result<usize, Errno> {
        let found = self.get(inode)?;
        let Body::File(pages) = &found.body else { return Err(Errno::ISDIR) };
        let len = found.stat.size.saturating_sub(offset).min(out.len() as u64);
        let mut done = 0;
        while done < len {
            let (page, skip) = ((offset + done) / PAGE_BYTES, ((offset + done) % PAGE_BYTES) as usize);
            let n = (len - done).min(PAGE_BYTES - skip as u64) as usize;
            let part = &mut out[done as usize..done as usize + n];
            match pages.get(&page) {
                Some(Some(bytes)) => part.copy_from_slice(&bytes[skip..skip + n]),
                _ => part.fill(0),
            }
            done += n as u64;
        }
        Ok(len as usize)
    }

    /// The first byte at or past `offset`, before the end, that is on a written page.
    pub(super) fn data_from(&self, inode: u64, offset: u64) -> Result<Option<u64>, Errno> {
        let found = self.get(inode)?;
        let Body::File(pages) = &found.body else { return Err(Errno::INVAL) };
        let mut data = pages.range(offset / PAGE_BYTES..).filter(|(_, page)| page.is_some());
        let at = data.next().map(|(page, _)| offset.max(page * PAGE_BYTES));
        Ok(at.filter(|&at| at < found.stat.size))
    }

    pub(super) fn set_owner(&mut self, inode: u64, uid: u32, gid: u32) -> Result<(), Errno> {
        let found = self.change(inode)?;
        (found.stat.uid, found.stat.gid) = (uid, gid);
        if found.stat.kind == ItemKind::File {
            found.stat.mode &= !0o6000;
            found.xattrs.remove(CAPABILITY);
        }
        Ok(())
    }

    /// A file's bytes.
    pub(super) fn contents(&self, inode: u64) -> Vec<u8> {
        let Ok(found) = self.get(inode) else { return Vec::new() };
        let mut out = vec![0; found.stat.size as usize];
        if let Body::File(pages) = &found.body {
            for (page, bytes) in pages {
                let from = (page * PAGE_BYTES) as usize;
                if let (Some(bytes), true) = (bytes, from < out.len()) {
                    let n = bytes.len().min(out.len() - from);
                    out[from..from + n].copy_from_slice(&bytes[..n]);
                }
            }
        }
        out
    }
}
