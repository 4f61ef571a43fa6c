//! Real files for the demo: copies of what this machine has, up to a size, and one of every special kind.
//!
//! Copies, because a running system changes under one's feet and a user may not read all of it; what cannot be read is passed over.
//! Order is by name, so two runs on one machine take the same files. Does not: follow symlinks. Source: ours.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use windlass_agent::progress::Progress;

use crate::failure::Failure;

/// Where files are taken from, unless it is said: present on nearly every Linux, readable by everyone, small files and large.
pub const DEFAULT_SOURCES: [&str; 5] = ["/etc", "/usr/include", "/usr/share", "/usr/lib", "/usr/bin"];
/// Most items copied: bounds the time it takes.
const ITEMS_MAX: u64 = 120_000;
/// A single file is at most this part of what is left, so that one does not take all.
const SHARE: u64 = 2;

/// What was copied.
#[derive(Clone, Copy, Debug, Default)]
pub struct Copied {
    /// Items of all kinds.
    pub items: u64,
    /// Regular files.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Bytes in them when each is rounded up to 4 KiB.
    pub rounded: u64,
    /// Items that this user may not read.
    pub skipped: u64,
}

/// Copies up to `bytes_max` from `sources` to below `to`, which exists, and adds special items.
pub fn gather(sources: &[PathBuf], to: &Path, bytes_max: u64, job: &Progress) -> Result<Copied, Failure> {
    let mut copied = Copied::default();
    for (at, source) in sources.iter().enumerate() {
        let left = (sources.len() - at) as u64;
        let budget = copied.bytes + (bytes_max.saturating_sub(copied.bytes)) / left;
        let target = to.join(source.strip_prefix("/").unwrap_or(source));
        fs::create_dir_all(&target).map_err(|error| Failure::at(target.display(), error))?;
        let mut copy = Copy { copied: &mut copied, budget, job };
        copy.directory(source, &target)?;
    }
    specials(&to.join("specials"), &mut copied).map_err(|error| Failure::at(to.display(), error))?;
    Ok(copied)
}

struct Copy<'a> {
    copied: &'a mut Copied,
    budget: u64,
    job: &'a Progress,
}

impl Copy<'_> {
    fn is_full(&self) -> bool {
        self.copied.bytes >= self.budget || self.copied.items >= ITEMS_MAX
    }

    /// Copies what is in `from` to `to`, files first, then goes deeper.
    fn directory(&mut self, from: &Path, to: &Path) -> Result<(), Failure> {
        if self.job.is_stop_requested() {
            return Err(Failure::new("stopped on request"));
        }
        let Ok(entries) = fs::read_dir(from) else {
            self.copied.skipped += 1;
            return Ok(());
        };
        let mut entries: Vec<_> = entries.flatten().collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        let mut deeper = Vec::new();
        for entry in entries {
            if self.is_full() {
                break;
            }
            let (path, target) = (entry.path(), to.join(entry.file_name()));
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if meta.is_dir() {
                deeper.push((path, target, meta));
            } else if self.item(&path, &target, &meta).is_err() {
                self.copied.skipped += 1;
            }
        }
        for (path, target, meta) in deeper {
            if self.is_full() {
                break;
            }
            fs::create_dir(&target).map_err(|error| Failure::at(target.display(), error))?;
            self.copied.items += 1;
            self.directory(&path, &target)?;
            keep_attributes(&target, &meta).map_err(|error| Failure::at(target.display(), error))?;
        }
        Ok(())
    }

    fn item(&mut self, from: &Path, to: &Path, meta: &fs::Metadata) -> std::io::Result<()> {
        if meta.is_symlink() {
            symlink(fs::read_link(from)?, to)?;
        } else if meta.is_file() && meta.len() <= (self.budget - self.copied.bytes) / SHARE + 4096 {
            if let Err(error) = fs::copy(from, to) {
                // Nothing half: a file that cannot be read is not part of the demo.
                let _ = fs::remove_file(to);
                return Err(error);
            }
            keep_attributes(to, meta)?;
            self.copied.files += 1;
            self.copied.bytes += meta.len();
            self.copied.rounded += meta.len().next_multiple_of(4096);
            self.job.bytes_done.set(self.copied.bytes);
        } else {
            return Ok(());
        }
        self.copied.items += 1;
        self.job.items_done.set(self.copied.items);
        Ok(())
    }
}

/// Mode and times, and the owner where this user may set it.
fn keep_attributes(path: &Path, meta: &fs::Metadata) -> std::io::Result<()> {
    if nix::unistd::geteuid().is_root() {
        lchown(path, Some(meta.uid()), Some(meta.gid()))?;
    }
    // Set-user-id files of others are not for a copy; everything here must stay readable by whoever runs this.
    let mode = meta.mode() & 0o777 | 0o400 | if meta.is_dir() { 0o700 } else { 0 };
    let times = FileTimes::new().set_modified(meta.modified()?).set_accessed(meta.accessed()?);
    File::open(path)?.set_times(times)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// One of each kind that file trees have and backups get wrong.
fn specials(dir: &Path, copied: &mut Copied) -> std::io::Result<()> {
    fs::create_dir(dir)?;
    fs::write(dir.join("one file, three names"), b"hard links share an inode\n")?;
    fs::hard_link(dir.join("one file, three names"), dir.join("second name"))?;
    fs::create_dir(dir.join("empty directory"))?;
    fs::hard_link(dir.join("second name"), dir.join("third name"))?;
    fs::write(dir.join("empty file"), b"")?;
    fs::write(dir.join(OsStr::from_bytes(b"not UTF-8 \xff\xfe")), b"names are bytes\n")?;
    fs::write(dir.join("n".repeat(255)), b"the longest name\n")?;
    symlink("/nowhere/at all", dir.join("dangling symlink"))?;
    symlink("x".repeat(300), dir.join("long symlink"))?;
    let mut sparse = File::create(dir.join("sparse file, 64 MiB"))?;
    sparse.seek(SeekFrom::Start(32 << 20))?;
    sparse.write_all(&[7; 5000])?;
    sparse.set_len(64 << 20)?;
    fs::write(dir.join("zeros, 1 MiB"), vec![0; 1 << 20])?;
    // A file system without pipes only makes the demo poorer.
    let _ = nix::unistd::mkfifo(&dir.join("named pipe"), Mode::from_bits_truncate(0o640));
    copied.items += 13;
    copied.files += 6;
    copied.bytes += (64 << 20) + (1 << 20);
    copied.rounded += (1 << 20) + (1 << 16);
    Ok(())
}
