//! Comparison of a restored directory with the image that it came from.
//!
//! Attributes are compared with what the raw reader finds on the image; bytes are compared with the files that the image was made of
//! where those are there (so that our own reader does not vouch for itself), else with the image through its extents.
//!
//! | compared | remark |
//! |---|---|
//! | presence, both ways; type; mode; size; mtime; hard links; symlink targets; device numbers | always |
//! | owner and group | as root only: nobody else can set them |
//! | bytes | all |
//!
//! Memory: the list of directories to go to, one path per hard-linked file, two buffers. Source: ours.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use windlass_agent::progress::Progress;
use windlass_hal::block::BlockDevice;
use windlass_hal::volume::{Cursor, ExtentState, Item, ItemKind, Payload, Swept, Volume, Window};

use crate::failure::Failure;
use crate::text;

/// Differences kept with their text; more are counted.
const DIFFERENCES_KEPT_MAX: usize = 20;
/// Bytes compared at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// What a fresh ext4 has and no backup needs to bring back to a directory that exists.
const LOST_FOUND: &[u8] = b"lost+found";

/// What a comparison found.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// Items compared.
    pub items: u64,
    /// Bytes compared.
    pub bytes: u64,
    /// How many differences.
    pub differences: u64,
    /// The first of them: path and what differs.
    pub kept: Vec<String>,
    /// Whether owners were compared.
    pub with_owners: bool,
}

impl Compared {
    /// Adds another comparison.
    pub fn add(&mut self, other: Compared) {
        self.items += other.items;
        self.bytes += other.bytes;
        self.differences += other.differences;
        self.kept.extend(other.kept);
        self.kept.truncate(DIFFERENCES_KEPT_MAX);
    }
}

/// Compares everything below the root of `volume` with `restored`; `made_of` is what the image was made of.
pub fn compare(
    device: &mut dyn BlockDevice,
    volume: &mut dyn Volume,
    made_of: Option<&Path>,
    restored: &Path,
    job: &Progress,
) -> Result<Compared, Failure> {
    let root = volume.info().root;
    let mut comparison = Comparison {
        device,
        volume,
        made_of,
        restored,
        job,
        first_names: BTreeMap::new(),
        done: Compared { with_owners: nix::unistd::geteuid().is_root(), ..Compared::default() },
        ours: vec![0; CHUNK_BYTES],
        theirs: vec![0; CHUNK_BYTES],
    };
    let mut directories = vec![(root, PathBuf::new())];
    while let Some((inode, path)) = directories.pop() {
        if job.is_stop_requested() {
            return Err(Failure::new("stopped on request"));
        }
        comparison.directory(inode, &path, &mut directories)?;
    }
    Ok(comparison.done)
}

struct Comparison<'a> {
    device: &'a mut dyn BlockDevice,
    volume: &'a mut dyn Volume,
    made_of: Option<&'a Path>,
    restored: &'a Path,
    job: &'a Progress,
    /// Inode on the image of files with several names: inode in the restored directory.
    first_names: BTreeMap<u64, u64>,
    done: Compared,
    ours: Vec<u8>,
    theirs: Vec<u8>,
}

/// An item of the image, taken out of its window.
struct Found {
    item: Item,
    target: Option<Vec<u8>>,
    inline: Option<Vec<u8>>,
    names: Vec<(Vec<u8>, u64)>,
    extents: Vec<windlass_hal::volume::Extent>,
    xattrs: usize,
}

impl Comparison<'_> {
    fn differ(&mut self, path: &Path, what: impl std::fmt::Display) {
        self.done.differences += 1;
        if self.done.kept.len() < DIFFERENCES_KEPT_MAX {
            self.done.kept.push(format!("/{}: {what}", text::printable(path.as_os_str().as_bytes())));
        }
    }

    /// All parts of an item, in one.
    fn find(&mut self, inode: u64) -> Result<Option<Found>, Failure> {
        let mut window = Window::default();
        let mut found: Option<Found> = None;
        let mut within = 0;
        loop {
            let swept = self.volume.item(self.device, inode, within, &mut window).map_err(Failure::new)?;
            let Some(item) = window.items.first() else { return Ok(found) };
            let part = take(item, &window);
            match &mut found {
                None => found = Some(part),
                Some(found) => {
                    found.names.extend(part.names);
                    found.extents.extend(part.extents);
                }
            }
            match swept {
                Swept::More(Cursor { inode: next, within: on }) if next == inode && on > within => {
                    within = on
                }
                Swept::More(_) | Swept::Done => return Ok(found),
            }
        }
    }

    fn directory(
        &mut self,
        inode: u64,
        path: &Path,
        directories: &mut Vec<(u64, PathBuf)>,
    ) -> Result<(), Failure> {
        let Some(found) = self.find(inode)? else { return Ok(()) };
        let is_root = path.as_os_str().is_empty();
        let mut there: Vec<Vec<u8>> = match fs::read_dir(self.restored.join(path)) {
            Ok(entries) => entries.flatten().map(|entry| entry.file_name().as_bytes().to_vec()).collect(),
            Err(error) => {
                self.differ(path, error);
                return Ok(());
            }
        };
        there.sort_unstable();
        for (name, inode) in &found.names {
            if let Ok(at) = there.binary_search(name) {
                there.remove(at);
            }
            let path = path.join(OsStr::from_bytes(name));
            match fs::symlink_metadata(self.restored.join(&path)) {
                Ok(meta) => self.entry(*inode, &path, &meta, directories)?,
                Err(_) if is_root && name == LOST_FOUND => {}
                Err(error) => self.differ(&path, error),
            }
        }
        for name in there {
            self.differ(&path.join(OsStr::from_bytes(&name)), "is not on the image");
        }
        Ok(())
    }

    fn entry(
        &mut self,
        inode: u64,
        path: &Path,
        meta: &Metadata,
        directories: &mut Vec<(u64, PathBuf)>,
    ) -> Result<(), Failure> {
        let Some(found) = self.find(inode)? else {
            self.differ(path, "its inode is not on the image");
            return Ok(());
        };
        self.done.items += 1;
        self.job.items_done.set(self.done.items);
        self.attributes(&found, path, meta);
        match found.item.kind {
            ItemKind::Directory => directories.push((inode, path.to_owned())),
            ItemKind::Symlink => {
                let target = fs::read_link(self.restored.join(path)).unwrap_or_default();
                if found.target.as_deref() != Some(target.as_os_str().as_bytes()) {
                    self.differ(path, "another symlink target");
                }
            }
            ItemKind::File => self.file(&found, path, meta)?,
            _ => {}
        }
        Ok(())
    }

    fn attributes(&mut self, found: &Found, path: &Path, meta: &Metadata) {
        let (item, kind) = (&found.item, meta.file_type());
        let same_kind = match item.kind {
            ItemKind::File => kind.is_file(),
            ItemKind::Directory => kind.is_dir(),
            ItemKind::Symlink => kind.is_symlink(),
            ItemKind::CharDevice => kind.is_char_device(),
            ItemKind::BlockDevice => kind.is_block_device(),
            ItemKind::Fifo => kind.is_fifo(),
            ItemKind::Socket => kind.is_socket(),
            ItemKind::Image => false,
        };
        if !same_kind {
            self.differ(path, "another type");
        }
        let mode = meta.mode() & 0o7777;
        if item.kind != ItemKind::Symlink && mode != u32::from(item.mode) {
            self.differ(path, format_args!("mode {mode:04o} instead of {:04o}", item.mode));
        }
        let mtime = (meta.mtime(), meta.mtime_nsec());
        if mtime != (item.mtime.secs, i64::from(item.mtime.nanos)) {
            self.differ(path, format_args!("mtime {mtime:?} instead of {:?}", item.mtime));
        }
        if self.done.with_owners && (meta.uid(), meta.gid()) != (item.uid, item.gid) {
            self.differ(
                path,
                format_args!("owner {}:{} instead of {}:{}", meta.uid(), meta.gid(), item.uid, item.gid),
            );
        }
        if item.kind == ItemKind::File && meta.len() != item.size {
            self.differ(path, format_args!("{} bytes instead of {}", meta.len(), item.size));
        }
        if item.links > 1 && item.kind != ItemKind::Directory {
            let first = *self.first_names.entry(item.inode).or_insert(meta.ino());
            if first != meta.ino() || meta.nlink() != u64::from(item.links) {
                self.differ(path, "its hard links are not as they were");
            }
        }
        if found.xattrs > 0 {
            log::debug!("demo: extended attributes not compared path={}", path.display());
        }
    }

    fn file(&mut self, found: &Found, path: &Path, meta: &Metadata) -> Result<(), Failure> {
        let opened = File::open(self.restored.join(path));
        let mut restored = match opened {
            Ok(file) => file,
            Err(error) => {
                self.differ(path, error);
                return Ok(());
            }
        };
        let mut original = self.made_of.and_then(|tree| File::open(tree.join(path)).ok());
        let size = found.item.size.min(meta.len());
        let mut at = 0;
        while at < size {
            let length = usize::try_from(size - at).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            let failed = |error: std::io::Error| Failure::at(path.display(), error);
            restored.read_exact(&mut self.theirs[..length]).map_err(failed)?;
            match &mut original {
                Some(original) => original.read_exact(&mut self.ours[..length]).map_err(failed)?,
                None => read_image(&mut *self.device, found, at, &mut self.ours[..length])?,
            }
            if self.ours[..length] != self.theirs[..length] {
                self.differ(path, format_args!("other bytes at or after {at}"));
                return Ok(());
            }
            at += length as u64;
            self.done.bytes += length as u64;
            self.job.bytes_done.set(self.done.bytes);
        }
        Ok(())
    }
}

fn take(item: &Item, window: &Window) -> Found {
    let bytes = |payload: &Payload, wanted: bool| match payload {
        Payload::Target(range) if !wanted => Some(window.get(range).to_vec()),
        Payload::Inline(range) if wanted => Some(window.get(range).to_vec()),
        _ => None,
    };
    let names = &window.names[item.names.start as usize..item.names.end as usize];
    Found {
        target: bytes(&item.payload, false),
        inline: bytes(&item.payload, true),
        names: names.iter().map(|name| (window.get(&name.name).to_vec(), name.inode)).collect(),
        extents: window.extents[item.extents.start as usize..item.extents.end as usize].to_vec(),
        xattrs: item.xattrs.len(),
        item: item.clone(),
    }
}

/// Bytes of a file at `from` as the image has them: inline, from extents, or zero.
fn read_image(device: &mut dyn BlockDevice, found: &Found, from: u64, out: &mut [u8]) -> Result<(), Failure> {
    out.fill(0);
    if let Some(inline) = &found.inline {
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(inline.len());
        let length = out.len().min(inline.len() - from);
        out[..length].copy_from_slice(&inline[from..from + length]);
        return Ok(());
    }
    let end = from + out.len() as u64;
    for extent in found.extents.iter().filter(|extent| extent.state == ExtentState::Data) {
        let (first, last) = (extent.logical.max(from), (extent.logical + extent.len).min(end));
        if first < last {
            let part = &mut out[(first - from) as usize..(last - from) as usize];
            device.read_at(extent.physical + (first - extent.logical), part).map_err(Failure::new)?;
        }
    }
    Ok(())
}
