//! Compares two directory trees: what a restore must give back, byte for byte and attribute for attribute.
//!
//! | compared | how |
//! |---|---|
//! | names | bytes, both ways |
//! | type, mode, uid, gid, rdev | lstat |
//! | size, content | of regular files; the first differing offset is named |
//! | mtime | nanoseconds; files, directories, symlinks, special files |
//! | symlink targets | bytes |
//! | hard links | the sets of names that share an inode, and st_nlink |
//! | extended attributes | every name and value that this user may read: user, trusted, security, ACLs |
//! | inode flags | immutable, append-only, no dump, no atime |
//! | extents | data, hole, unwritten, also beyond the end of the file |
//!
//! Differences are lines for a person, bounded in number; an error means that the comparison itself failed. Reads
//! every byte of both trees that is not a hole in both; keeps one entry per name in memory.
//!
//! Does not compare atime, ctime or birth time (no restore can set the latter two), nor st_nlink of directories (the
//! file system's own affair). Source: ours.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::fs::{self, File, Metadata};
use std::io::{Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{IFlags, SeekFrom, ioctl_getflags, seek};
use rustix::io::Errno;

use crate::error::{Context, Result};
use crate::extents::{self, BATCH_FILES_MAX};

/// Bytes read at once from either side.
const CHUNK_BYTES: usize = 1 << 20;

/// The flags that a person sets and expects back.
const FLAGS: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND).union(IFlags::NODUMP).union(IFlags::NOATIME);

/// What to compare, and how much to say.
#[derive(Clone, Debug)]
pub struct Options {
    /// Lines kept; the rest is counted.
    pub differences_max: usize,
    /// uid, gid, device nodes' numbers: off where the restore ran without root.
    pub owners: bool,
    /// Extended attributes.
    pub xattrs: bool,
    /// Inode flags.
    pub flags: bool,
    /// Data, hole, unwritten.
    pub extents: bool,
    /// The attributes of the two roots themselves.
    pub root: bool,
    /// Paths from the root that are passed over on both sides, with all below them.
    pub skip: Vec<Vec<u8>>,
}

impl Default for Options {
    /// Everything but `lost+found`, which belongs to the file system.
    fn default() -> Options {
        Options {
            differences_max: 40,
            owners: true,
            xattrs: true,
            flags: true,
            extents: true,
            root: true,
            skip: vec![b"lost+found".to_vec()],
        }
    }
}

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Report {
    /// Names in the source, its root not counted.
    pub items: u64,
    /// Bytes of content compared.
    pub bytes: u64,
    /// `path: what: source, restored`, the first ones.
    pub differences: Vec<String>,
    /// Differences beyond those.
    pub more: u64,
    limit: usize,
}

impl Report {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.differences.is_empty()
    }

    fn add(&mut self, path: &[u8], what: &str) {
        if self.differences.len() < self.limit {
            let shown = if path.is_empty() { "(root)".to_owned() } else { path.escape_ascii().to_string() };
            self.differences.push(format!("{shown}: {what}"));
        } else {
            self.more += 1;
        }
    }

    fn same<T: PartialEq>(
        &mut self,
        path: &[u8],
        what: &str,
        source: T,
        restored: T,
        show: impl Fn(&T) -> String,
    ) {
        if source != restored {
            self.add(path, &format!("{what}: source {}, restored {}", show(&source), show(&restored)));
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} items, {} bytes compared", self.items, self.bytes)?;
        for line in &self.differences {
            writeln!(f, "  {line}")?;
        }
        match self.more {
            0 => Ok(()),
            more => writeln!(f, "  and {more} more differences"),
        }
    }
}

/// Compares the tree at `restored` with the tree at `source`.
///
/// # Errors
/// When either tree cannot be read; differences are no error.
pub fn compare(source: &Path, restored: &Path, options: &Options) -> Result<Report> {
    let mut report = Report { limit: options.differences_max.max(1), ..Report::default() };
    let here = list(source, options)?;
    let there = list(restored, options)?;
    report.items = here.len() as u64 - 1;

    for name in there.keys().filter(|name| !here.contains_key(*name)) {
        report.add(name, "not in the source");
    }
    let mut same_size = Vec::new();
    for (name, item) in &here {
        let Some(other) = there.get(name) else {
            report.add(name, "missing");
            continue;
        };
        if name.is_empty() && !options.root {
            continue;
        }
        let (left, right) = (below(source, name), below(restored, name));
        if compare_item(&mut report, name, (&left, item), (&right, other), options)? {
            same_size.push((name.as_slice(), left, right));
        }
    }
    compare_links(&mut report, &here, &there);
    if options.extents {
        compare_extents(&mut report, &same_size)?;
    }
    Ok(report)
}

type Items = BTreeMap<Vec<u8>, Metadata>;

/// Every name below `root`, as bytes relative to it; the root itself is the empty name.
fn list(root: &Path, options: &Options) -> Result<Items> {
    let mut items = Items::new();
    let mut pending: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(name) = pending.pop() {
        let path = below(root, &name);
        let metadata = fs::symlink_metadata(&path).context(|| path.display().to_string())?;
        if metadata.is_dir() {
            for entry in fs::read_dir(&path).context(|| path.display().to_string())? {
                let entry = entry.context(|| path.display().to_string())?;
                let mut child = name.clone();
                if !child.is_empty() {
                    child.push(b'/');
                }
                child.extend_from_slice(entry.file_name().as_bytes());
                if !options.skip.contains(&child) {
                    pending.push(child);
                }
            }
        }
        items.insert(name, metadata);
    }
    Ok(items)
}

fn below(root: &Path, name: &[u8]) -> PathBuf {
    if name.is_empty() { root.to_path_buf() } else { root.join(std::ffi::OsStr::from_bytes(name)) }
}

type Side<'a> = (&'a Path, &'a Metadata);

/// Compares one item; true if both are regular files of one size with anything allocated: their extents come next.
fn compare_item(
    report: &mut Report,
    name: &[u8],
    here: Side,
    there: Side,
    options: &Options,
) -> Result<bool> {
    let ((left, source), (right, restored)) = (here, there);
    if kind(source) != kind(restored) {
        report.add(name, &format!("type: source {}, restored {}", kind(source), kind(restored)));
        return Ok(false);
    }
    let octal = |mode: &u32| format!("{mode:04o}");
    report.same(name, "mode", source.mode() & 0o7777, restored.mode() & 0o7777, octal);
    if options.owners {
        report.same(name, "uid", source.uid(), restored.uid(), u32::to_string);
        report.same(name, "gid", source.gid(), restored.gid(), u32::to_string);
        report.same(name, "rdev", source.rdev(), restored.rdev(), |rdev| format!("{rdev:#x}"));
    }
    let time = |item: &Metadata| (item.mtime(), item.mtime_nsec());
    report.same(name, "mtime", time(source), time(restored), |(s, ns)| format!("{s} s {ns} ns"));
    if options.xattrs {
        report.same(name, "xattrs", xattrs(left)?, xattrs(right)?, show_xattrs);
    }
    if options.flags && (source.is_file() || source.is_dir()) {
        report.same(name, "flags", flags(left)?, flags(right)?, |flags| format!("{flags:?}"));
    }
    if source.is_symlink() {
        let target = |path: &Path| fs::read_link(path).context(|| path.display().to_string());
        report.same(name, "target", target(left)?, target(right)?, |path| format!("{path:?}"));
    }
    if !source.is_file() {
        return Ok(false);
    }
    report.same(name, "size", source.len(), restored.len(), u64::to_string);
    if source.len() != restored.len() {
        return Ok(false);
    }
    if let Some(offset) = first_difference(left, right)? {
        report.add(name, &format!("content differs from byte {offset} on"));
    }
    report.bytes += source.len();
    Ok(source.blocks() + restored.blocks() > 0)
}

fn kind(item: &Metadata) -> &'static str {
    let of = item.file_type();
    match () {
        () if of.is_file() => "file",
        () if of.is_dir() => "directory",
        () if of.is_symlink() => "symlink",
        () if of.is_fifo() => "fifo",
        () if of.is_socket() => "socket",
        () if of.is_char_device() => "character device",
        () if of.is_block_device() => "block device",
        () => "unknown",
    }
}

type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Every extended attribute of the item itself, never of what a symlink points to.
fn xattrs(path: &Path) -> Result<Xattrs> {
    // What the kernel allows for one list and for one value.
    let mut buffer = vec![0; 65_536];
    let size = match rustix::fs::llistxattr(path, &mut buffer[..]) {
        Ok(size) => size,
        Err(Errno::NOTSUP) => 0,
        Err(why) => return Err(why).context(|| format!("list attributes of {}", path.display())),
    };
    let names: Vec<Vec<u8>> =
        buffer[..size].split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect();
    let mut found = Xattrs::new();
    for name in names {
        let size = rustix::fs::lgetxattr(path, name.as_slice(), &mut buffer[..])
            .context(|| format!("attribute {} of {}", name.escape_ascii(), path.display()))?;
        found.insert(name, buffer[..size].to_vec());
    }
    Ok(found)
}

fn show_xattrs(xattrs: &Xattrs) -> String {
    const SHOWN_BYTES: usize = 24;
    let one = |(name, value): (&Vec<u8>, &Vec<u8>)| {
        let start = &value[..value.len().min(SHOWN_BYTES)];
        format!("{}={} ({} bytes)", name.escape_ascii(), start.escape_ascii(), value.len())
    };
    format!("[{}]", xattrs.iter().map(one).collect::<Vec<_>>().join(" "))
}

/// The flags that count; none where the file system has none or the item may not be opened.
fn flags(path: &Path) -> Result<IFlags> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(why) if why.kind() == std::io::ErrorKind::PermissionDenied => return Ok(IFlags::empty()),
        Err(why) => return Err(why).context(|| path.display().to_string()),
    };
    Ok(ioctl_getflags(&file).map_or(IFlags::empty(), |flags| flags & FLAGS))
}

/// The first byte that differs between two files of one size. What is a hole in both is passed over.
fn first_difference(left: &Path, right: &Path) -> Result<Option<u64>> {
    let open = |path: &Path| File::open(path).context(|| path.display().to_string());
    let (left_file, right_file) = (open(left)?, open(right)?);
    let (mut left_bytes, mut right_bytes) = (Vec::new(), Vec::new());
    let mut offset = 0;
    while let Some(data) =
        [next_data(&left_file, offset)?, next_data(&right_file, offset)?].into_iter().flatten().min()
    {
        read_chunk(&left_file, data, &mut left_bytes).context(|| left.display().to_string())?;
        read_chunk(&right_file, data, &mut right_bytes).context(|| right.display().to_string())?;
        if left_bytes != right_bytes {
            let equal = left_bytes.iter().zip(&right_bytes).take_while(|(a, b)| a == b).count();
            return Ok(Some(data + equal as u64));
        }
        offset = data + left_bytes.len() as u64;
    }
    Ok(None)
}

/// Where data begins at or after `offset`; none if the rest is a hole.
fn next_data(file: &File, offset: u64) -> Result<Option<u64>> {
    match seek(file, SeekFrom::Data(offset)) {
        Ok(data) => Ok(Some(data)),
        Err(Errno::NXIO) => Ok(None),
        Err(why) => Err(why).context(|| "SEEK_DATA"),
    }
}

fn read_chunk(mut file: &File, offset: u64, bytes: &mut Vec<u8>) -> std::io::Result<usize> {
    bytes.clear();
    file.seek(std::io::SeekFrom::Start(offset))?;
    file.take(CHUNK_BYTES as u64).read_to_end(bytes)
}

/// Names that share an inode must be the same sets on both sides.
fn compare_links(report: &mut Report, here: &Items, there: &Items) {
    let (left, right) = (leaders(here), leaders(there));
    for (name, item) in here.iter().filter(|(_, item)| !item.is_dir()) {
        let Some(other) = there.get(name) else { continue };
        report.same(name, "links", item.nlink(), other.nlink(), u64::to_string);
        let (first, second) = (leader(&left, item), leader(&right, other));
        report.same(name, "is the same file as", first, second, |path| path.escape_ascii().to_string());
    }
}

/// The first name of every inode, by device and inode number.
type Leaders<'a> = BTreeMap<(u64, u64), &'a [u8]>;

fn leader<'a>(leaders: &Leaders<'a>, item: &Metadata) -> &'a [u8] {
    leaders.get(&(item.dev(), item.ino())).copied().unwrap_or_default()
}

fn leaders(items: &Items) -> Leaders<'_> {
    let mut found = BTreeMap::new();
    for (name, item) in items.iter().filter(|(_, item)| !item.is_dir()) {
        found.entry((item.dev(), item.ino())).or_insert(name.as_slice());
    }
    found
}

fn compare_extents(report: &mut Report, files: &[(&[u8], PathBuf, PathBuf)]) -> Result<()> {
    for batch in files.chunks(BATCH_FILES_MAX) {
        let open = |path: &PathBuf| File::open(path).context(|| path.display().to_string());
        let left = batch.iter().map(|(_, path, _)| open(path)).collect::<Result<Vec<_>>>()?;
        let right = batch.iter().map(|(_, _, path)| open(path)).collect::<Result<Vec<_>>>()?;
        let (left, right) = (extents::maps(&left)?, extents::maps(&right)?);
        for ((name, ..), (source, restored)) in batch.iter().zip(left.iter().zip(&right)) {
            if !source.agrees_with(restored) {
                report.add(name, &format!("extents: source {source}; restored {restored}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Options, compare, fs};
    use crate::error::output;
    use crate::workdir::Workdir;
    use std::fs::{File, FileTimes};
    use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
    use std::path::Path;
    use std::process::Command;
    use std::time::{Duration, UNIX_EPOCH};

    /// A small tree and a faithful copy of it.
    fn twins() -> (Workdir, std::path::PathBuf, std::path::PathBuf) {
        let work = Workdir::new("tree").unwrap();
        let (source, copy) = (work.dir("source").unwrap(), work.join("copy"));
        fs::create_dir(source.join("dir")).unwrap();
        fs::write(source.join("dir/file"), vec![5; 3 << 20]).unwrap();
        fs::write(source.join("alone"), "x").unwrap();
        fs::hard_link(source.join("dir/file"), source.join("twin")).unwrap();
        symlink("dir/file", source.join("link")).unwrap();
        let sparse = File::create(source.join("sparse")).unwrap();
        sparse.set_len(1 << 20).unwrap();
        sparse.write_all_at(b"data", 500_000).unwrap();
        output(Command::new("cp").args(["-a", "--sparse=always"]).args([&source, &copy])).unwrap();
        (work, source, copy)
    }

    fn differences(source: &Path, copy: &Path) -> Vec<String> {
        compare(source, copy, &Options::default()).unwrap().differences
    }

    /// What the comparer says after one change to the copy.
    fn after(change: impl FnOnce(&Path)) -> String {
        let (_work, source, copy) = twins();
        change(&copy);
        differences(&source, &copy).join("\n")
    }

    #[test]
    fn a_faithful_copy_is_equal() {
        let (_work, source, copy) = twins();
        let report = compare(&source, &copy, &Options::default()).unwrap();
        assert!(report.is_equal(), "{report}");
        assert_eq!(report.items, 6);
        assert_eq!(report.bytes, 2 * (3 << 20) + 1 + (1 << 20));
    }

    #[test]
    fn names_missing_or_extra() {
        assert!(after(|copy| fs::remove_file(copy.join("alone")).unwrap()).contains("alone: missing"));
        let said = after(|copy| fs::write(copy.join("new\nname"), "").unwrap());
        assert!(said.contains("new\\nname: not in the source"), "{said}");
    }

    #[test]
    fn content_size_and_type() {
        let said = after(|copy| {
            let time = fs::metadata(copy.join("dir/file")).unwrap().modified().unwrap();
            let file = File::options().write(true).open(copy.join("dir/file")).unwrap();
            file.write_all_at(&[6], 2_000_000).unwrap();
            file.set_modified(time).unwrap();
        });
        assert_eq!(
            said,
            "dir/file: content differs from byte 2000000 on\ntwin: content differs from byte 2000000 on"
        );
        let said = after(|copy| fs::write(copy.join("alone"), "xy").unwrap());
        assert!(said.contains("alone: size: source 1, restored 2"), "{said}");
        let said = after(|copy| {
            fs::remove_file(copy.join("alone")).unwrap();
            fs::create_dir(copy.join("alone")).unwrap();
        });
        assert!(said.contains("alone: type: source file, restored directory"), "{said}");
    }

    #[test]
    fn attributes() {
        let said =
            after(|copy| fs::set_permissions(copy.join("dir"), fs::Permissions::from_mode(0o2750)).unwrap());
        assert_eq!(said, "dir: mode: source 0755, restored 2750");
        let said = after(|copy| {
            let times = FileTimes::new().set_modified(UNIX_EPOCH + Duration::new(5, 1));
            File::open(copy.join("dir")).unwrap().set_times(times).unwrap();
        });
        assert!(said.starts_with("dir: mtime: source ") && said.ends_with("restored 5 s 1 ns"), "{said}");
        let said = after(|copy| {
            fs::remove_file(copy.join("link")).unwrap();
            symlink("dir/fil", copy.join("link")).unwrap();
        });
        assert!(said.contains("link: target: source \"dir/file\", restored \"dir/fil\""), "{said}");
    }

    #[test]
    fn extended_attributes() {
        let set = |path: &Path| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::lsetxattr(path, "user.windlass", b"value", flags)
        };
        let work = Workdir::new("tree").unwrap();
        if let Err(why) = set(work.path()) {
            return crate::privilege::unsupported(
                "tree::extended_attributes",
                &format!("no user attributes here: {why}"),
            );
        }
        let said = after(|copy| set(&copy.join("alone")).unwrap());
        assert_eq!(said, "alone: xattrs: source [], restored [user.windlass=value (5 bytes)]");
    }

    #[test]
    fn hard_links_that_were_torn_apart() {
        let said = after(|copy| {
            fs::rename(copy.join("twin"), copy.join("old")).unwrap();
            output(Command::new("cp").args(["-a"]).args([copy.join("old"), copy.join("twin")])).unwrap();
            fs::remove_file(copy.join("old")).unwrap();
        });
        assert!(said.contains("twin: is the same file as: source dir/file, restored twin"), "{said}");
        assert!(said.contains("twin: links: source 2, restored 1"), "{said}");
    }

    #[test]
    fn holes_that_were_filled() {
        let said = after(|copy| {
            let time = fs::metadata(copy.join("sparse")).unwrap().modified().unwrap();
            let bytes = fs::read(copy.join("sparse")).unwrap();
            fs::write(copy.join("sparse"), bytes).unwrap();
            File::options().write(true).open(copy.join("sparse")).unwrap().set_modified(time).unwrap();
        });
        assert!(
            said.contains("sparse: extents: source data 499712..503808; restored data 0..1048576"),
            "{said}"
        );
    }

    #[test]
    fn what_is_said_is_bounded_and_what_is_skipped_is_not_seen() {
        let (_work, source, copy) = twins();
        for name in 0..10 {
            fs::write(copy.join(format!("extra{name}")), "").unwrap();
        }
        let options = Options { differences_max: 3, root: false, ..Options::default() };
        let report = compare(&source, &copy, &options).unwrap();
        assert_eq!((report.differences.len(), report.more), (3, 7));
        let skip = (0..10).map(|name| format!("extra{name}").into_bytes()).collect();
        let report = compare(&source, &copy, &Options { skip, root: false, ..Options::default() }).unwrap();
        assert!(report.is_equal(), "{report}");
        assert!(compare(&source, &source.join("nowhere"), &options).is_err());
    }
}
