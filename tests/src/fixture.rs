//! A crafted source tree with every kind of item that a backup must bring back.
//!
//! [`KINDS`] is the list: each kind has a directory of its own below the root, so that a difference names its kind.
//! Kinds that need root, or that the file system refuses, are reported as skipped and never silently left out.
//! [`Fixture::image`] gives a volume: with root a mounted default-featured ext4 image is filled, without root
//! `mke2fs -d` copies what an ordinary user can make (it keeps whole seconds only, and turns unwritten into holes).
//!
//! All content, names and times are fixed; two builds differ in inode numbers and ctimes only. Source: ours; the list
//! follows ext4's forms (fast and slow symlinks, inline and block xattrs, hashed directories, era bits in times).

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, FallocateFlags, fallocate};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;
use rustix::fs::{IFlags, XattrFlags, ioctl_getflags, ioctl_setflags, lsetxattr};

use crate::error::{Context, Error, Result};
use crate::image::{Access, Mount, make_ext4};
use crate::privilege::is_root;
use crate::workdir::Workdir;

/// Entries of the big directory: several levels of ext4's hash tree at 4 KiB blocks.
pub const BIG_DIRECTORY_ENTRIES: u32 = 20_000;

/// Bytes of an image from [`Fixture::image`]; about a fifth is used.
pub const IMAGE_BYTES: u64 = 512 << 20;

/// What a kind needs to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Any user, on any file system that supports it.
    Nothing,
    /// Root.
    Root,
    /// Root, and an image of the test's own: left on a host these files are hard to remove.
    OwnImage,
}

/// One kind of item.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its directory below the root.
    pub name: &'static str,
    /// What it takes.
    pub needs: Needs,
    /// Fills its directory.
    build: fn(&Path) -> Result<()>,
}

const fn kind(name: &'static str, needs: Needs, build: fn(&Path) -> Result<()>) -> Kind {
    Kind { name, needs, build }
}

/// Every kind. Times come late and flags last, because both are undone by what follows them.
pub const KINDS: &[Kind] = &[
    kind("empty", Needs::Nothing, empty),
    kind("sizes", Needs::Nothing, sizes),
    kind("sparse", Needs::Nothing, sparse),
    kind("preallocated", Needs::Nothing, preallocated),
    kind("hardlinks", Needs::Nothing, hardlinks),
    kind("symlinks", Needs::Nothing, symlinks),
    kind("pipes", Needs::Nothing, pipes),
    kind("modes", Needs::Nothing, modes),
    kind("names", Needs::Nothing, names),
    kind("deep", Needs::Nothing, deep),
    kind("big-directory", Needs::Nothing, big_directory),
    kind("many-directories", Needs::Nothing, many_directories),
    kind("acls", Needs::Nothing, acls),
    kind("user-xattrs", Needs::Nothing, user_xattrs),
    kind("devices", Needs::Root, devices),
    kind("owners", Needs::Root, owners),
    kind("root-xattrs", Needs::Root, root_xattrs),
    kind("capabilities", Needs::Root, capabilities),
    kind("times", Needs::Nothing, times),
    kind("flags", Needs::OwnImage, flags),
];

/// What was built.
#[derive(Debug, Default)]
pub struct Fixture {
    /// Kinds that are there.
    pub built: Vec<&'static str>,
    /// Kinds that are not, and why.
    pub skipped: Vec<(&'static str, String)>,
}

impl Fixture {
    /// Fills a directory of a file system that is used for other things too: no flags.
    pub fn directory(root: &Path) -> Result<Fixture> {
        build(root, false)
    }

    /// Fills the root of a mounted volume that is the test's own.
    pub fn volume(root: &Path) -> Result<Fixture> {
        build(root, true)
    }

    /// Makes an ext4 image with the fixture in it. Compare a restore with the image mounted read-only.
    pub fn image(image: &Path) -> Result<Fixture> {
        // The default of one inode per 16 KiB would be too few for the big directory.
        let extra = ["-N", "65536"];
        let work = Workdir::new("fixture")?;
        if is_root() {
            make_ext4(image, IMAGE_BYTES, None, &extra)?;
            let mount = Mount::image(image, &work.join("mounted"), Access::ReadWrite)?;
            return build(mount.dir(), true);
        }
        let fixture = build(work.path(), false)?;
        make_ext4(image, IMAGE_BYTES, Some(work.path()), &extra)?;
        Ok(fixture)
    }

    /// One line for every kind that is missing.
    pub fn report(&self, test: &str) {
        for (kind, why) in &self.skipped {
            eprintln!("SKIPPED: {test}: items of kind {kind}: {why}");
        }
    }
}

fn build(root: &Path, own_image: bool) -> Result<Fixture> {
    let mut fixture = Fixture::default();
    for kind in KINDS {
        let why = match kind.needs {
            Needs::Root if !is_root() => "needs root",
            Needs::OwnImage if !is_root() || !own_image => "needs root and an image of its own",
            Needs::Nothing | Needs::Root | Needs::OwnImage => "",
        };
        if !why.is_empty() {
            fixture.skipped.push((kind.name, why.to_owned()));
            continue;
        }
        let dir = root.join(kind.name);
        fs::create_dir(&dir).context(|| format!("make {}", dir.display()))?;
        match (kind.build)(&dir) {
            Ok(()) => fixture.built.push(kind.name),
            Err(why) => {
                crate::workdir::remove_tree(&dir);
                fixture.skipped.push((kind.name, why.to_string()));
            }
        }
    }
    // The roots of the kinds were touched by what was made in them.
    for (index, kind) in fixture.built.iter().enumerate() {
        set_time(&root.join(kind), 1_500_000_000 + index as i64, 123_456_789)?;
    }
    set_time(root, 1_400_000_000, 1)?;
    Ok(fixture)
}

/// Bytes that do not compress, the same for the same seed (xorshift64*).
#[must_use]
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Bytes that compress about three to one, the same for the same seed.
#[must_use]
pub fn prose(seed: u64, length: usize) -> Vec<u8> {
    let picks = noise(seed, length / 8 + 8);
    let words: [&[u8]; 8] =
        [b"volume ", b"extent ", b"object ", b"restore ", b"point ", b"log ", b"epoch\n", b"slot\t"];
    let mut bytes = Vec::with_capacity(length + 16);
    let mut picks = picks.iter().cycle();
    while bytes.len() < length {
        let pick = picks.next().copied().unwrap_or_default();
        bytes.extend_from_slice(words[usize::from(pick & 7)]);
        bytes.push(pick);
    }
    bytes.truncate(length);
    bytes
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).context(|| format!("write {}", path.display()))
}

fn file(path: &Path) -> Result<File> {
    let made = File::options().create_new(true).read(true).write(true).open(path);
    made.context(|| format!("make {}", path.display()))
}

fn put(file: &File, bytes: &[u8], offset: u64) -> Result<()> {
    file.write_all_at(bytes, offset).context(|| "write")
}

fn dir(path: &Path) -> Result<PathBuf> {
    fs::create_dir(path).context(|| format!("make {}", path.display()))?;
    Ok(path.to_path_buf())
}

fn link(target: impl AsRef<Path>, path: &Path) -> Result<()> {
    symlink(target, path).context(|| format!("symlink {}", path.display()))
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode)).context(|| format!("mode of {}", path.display()))
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) -> Result<()> {
    lsetxattr(path, name, value, XattrFlags::empty()).context(|| format!("{name} on {}", path.display()))
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) -> Result<()> {
    let time = TimeSpec::new(seconds, nanoseconds);
    utimensat(AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink)
        .context(|| format!("time of {}", path.display()))
}

fn empty(root: &Path) -> Result<()> {
    write(&root.join("file"), b"")?;
    dir(&root.join("directory"))?;
    dir(&dir(&root.join("outer"))?.join("inner"))?;
    Ok(())
}

/// Sizes around sectors, pages, the block sizes a policy can have, and objects of a test's size.
fn sizes(root: &Path) -> Result<()> {
    const EDGES: [usize; 9] = [512, 1024, 4096, 65_536, 131_072, 262_144, 393_216, 1 << 20, 4 << 20];
    for edge in EDGES {
        for size in [edge - 1, edge, edge + 1] {
            write(&root.join(format!("noise-{size}")), &noise(size as u64, size))?;
            write(&root.join(format!("prose-{size}")), &prose(size as u64, size))?;
        }
    }
    for size in [1, 2, 59, 60, 61, 128] {
        write(&root.join(format!("tiny-{size}")), &noise(size as u64, size))?;
    }
    write(&root.join("zeros"), &[0; 300_000])?;
    write(&root.join("zeros-then-one"), &[vec![0; 131_072], vec![1]].concat())?;
    write(&root.join("half-zeros"), &[noise(1, 131_072), vec![0; 131_072], noise(2, 131_072)].concat())
}

fn sparse(root: &Path) -> Result<()> {
    let sized = |name: &str, size: u64| -> Result<File> {
        let file = file(&root.join(name))?;
        file.set_len(size).context(|| format!("size of {name}"))?;
        Ok(file)
    };
    sized("all-hole", 1 << 30)?;
    sized("all-hole-odd", 1_000_001)?;
    put(&sized("hole-first", 1 << 20)?, &noise(1, 5_000), (1 << 20) - 5_000)?;
    put(&sized("hole-last", 1 << 20)?, &noise(2, 5_000), 0)?;
    // Beyond 32 bits of bytes by far, yet one block of data.
    put(&sized("far-out", 1 << 36)?, b"64 gibibytes", (1 << 36) - 12)?;
    let comb = sized("comb", 128 * 8192)?;
    for tooth in 0..128 {
        put(&comb, &noise(tooth, 4096), tooth * 8192)?;
    }
    let punched = sized("punched", 0)?;
    put(&punched, &noise(3, 1 << 20), 0)?;
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(&punched, punch, 131_072, 131_072).context(|| "punch a hole")?;
    // Written zeros are data, not a hole, and must not grow one.
    put(&sized("zeros-are-data", 1 << 20)?, &[0; 262_144], 131_072)
}

/// Allocated but unwritten: whole, in part, and beyond the end of the file.
fn preallocated(root: &Path) -> Result<()> {
    let allocate = |name: &str, flags: FallocateFlags, offset: i64, length: i64| -> Result<File> {
        let file = file(&root.join(name))?;
        fallocate(&file, flags, offset, length).context(|| format!("allocate {name}"))?;
        Ok(file)
    };
    let (plain, keep) = (FallocateFlags::empty(), FallocateFlags::FALLOC_FL_KEEP_SIZE);
    allocate("whole", plain, 0, 1 << 20)?;
    allocate("odd", plain, 0, 1_000_001)?;
    put(&allocate("data-inside", plain, 0, 4 << 20)?, &noise(1, 1 << 20), 1 << 20)?;
    put(&allocate("beyond-end", keep, 0, 2 << 20)?, &noise(2, 100_000), 0)?;
    allocate("empty-beyond-end", keep, 0, 1 << 20)?;
    let mixed = file(&root.join("mixed"))?;
    put(&mixed, &noise(3, 131_072), 0)?;
    fallocate(&mixed, plain, 262_144, 262_144).context(|| "allocate mixed")?;
    put(&mixed, &noise(4, 131_072), 786_432)?;
    fallocate(&mixed, keep, 4 << 20, 131_072).context(|| "allocate mixed beyond its end")
}

fn hardlinks(root: &Path) -> Result<()> {
    let join = |old: &Path, new: &Path| fs::hard_link(old, new).context(|| format!("link {}", new.display()));
    let other = dir(&root.join("other"))?;
    write(&root.join("one"), &noise(1, 200_000))?;
    join(&root.join("one"), &root.join("two"))?;
    join(&root.join("one"), &other.join("three"))?;
    write(&root.join("empty"), b"")?;
    join(&root.join("empty"), &other.join("empty"))?;
    link("one", &root.join("symlink"))?;
    join(&root.join("symlink"), &other.join("symlink"))?;
    special(&root.join("fifo"), SFlag::S_IFIFO, 0)?;
    join(&root.join("fifo"), &other.join("fifo"))?;
    write(&root.join("many"), b"a file of many names")?;
    for index in 0..300 {
        join(&root.join("many"), &other.join(format!("many-{index:03}")))?;
    }
    Ok(())
}

/// ext4 keeps targets of up to 59 bytes in the inode, longer ones in a block.
fn symlinks(root: &Path) -> Result<()> {
    for length in [1, 58, 59, 60, 61, 255, 1000, 4095] {
        // Components of at most 100 bytes, so that the target could be a path.
        let target: String = (1..=length).map(|at| if at % 100 == 0 { '/' } else { 'x' }).collect();
        link(target, &root.join(format!("length-{length}")))?;
    }
    let inside = dir(&root.join("directory"))?;
    write(&inside.join("file"), b"found")?;
    link("directory", &root.join("to-directory"))?;
    link("directory/file", &root.join("to-file"))?;
    link("../to-file", &inside.join("up"))?;
    link("no/such/file", &root.join("dangling"))?;
    link("to-itself", &root.join("to-itself"))?;
    link("/etc/../etc/passwd", &root.join("absolute"))?;
    link("../../../../../../../../tmp", &root.join("climbing"))?;
    link(OsStr::from_bytes(b"not\xff\xfeutf8\n"), &root.join("bytes"))
}

fn special(path: &Path, of: SFlag, device: u64) -> Result<()> {
    mknod(path, of, Mode::from_bits_truncate(0o640), device).context(|| format!("node {}", path.display()))
}

fn pipes(root: &Path) -> Result<()> {
    special(&root.join("fifo"), SFlag::S_IFIFO, 0)?;
    special(&root.join("socket"), SFlag::S_IFSOCK, 0)
}

fn devices(root: &Path) -> Result<()> {
    // Numbers on both sides of the old 8-bit limits; none of them is opened.
    for (major, minor) in [(1, 3), (255, 255), (259, 256), (4095, 1_048_575)] {
        let device = makedev(major, minor);
        special(&root.join(format!("character-{major}-{minor}")), SFlag::S_IFCHR, device)?;
        special(&root.join(format!("block-{major}-{minor}")), SFlag::S_IFBLK, device)?;
    }
    Ok(())
}

fn modes(root: &Path) -> Result<()> {
    for mode in [0o000, 0o400, 0o644, 0o777, 0o4755, 0o2755, 0o6755, 0o1644, 0o7777] {
        let (file, inside) = (root.join(format!("file-{mode:04o}")), root.join(format!("dir-{mode:04o}")));
        write(&file, b"content")?;
        set_mode(&file, mode)?;
        dir(&inside)?;
        // An ordinary user could neither read nor remove a directory without permissions.
        set_mode(&inside, if is_root() { mode } else { mode | 0o700 })?;
    }
    if !is_root() {
        set_mode(&root.join("file-0000"), 0o400)?;
    }
    Ok(())
}

fn owners(root: &Path) -> Result<()> {
    for id in [1, 1000, 65_533, 65_534, 65_535, 65_536, 4_294_967_293] {
        let (file, inside, name) = (
            root.join(format!("file-{id}")),
            root.join(format!("dir-{id}")),
            root.join(format!("link-{id}")),
        );
        write(&file, b"owned")?;
        dir(&inside)?;
        link("file", &name)?;
        chown(&file, Some(id), Some(id ^ 1)).context(|| format!("owner {id}"))?;
        chown(&inside, Some(id), Some(id ^ 1)).context(|| format!("owner {id}"))?;
        lchown(&name, Some(id), Some(id ^ 1)).context(|| format!("owner {id}"))?;
    }
    // Changing the owner clears the setuid bit and so has to come first in a restore.
    let shared = root.join("setuid-of-another");
    write(&shared, b"#!/bin/sh\n")?;
    chown(&shared, Some(1000), Some(1000)).context(|| "owner")?;
    set_mode(&shared, 0o6755)
}

fn names(root: &Path) -> Result<()> {
    let long = |byte: u8| vec![byte; 255];
    let wide: Vec<u8> = "\u{4e2d}".repeat(85).into_bytes();
    let names: [&[u8]; 22] = [
        b"plain",
        b" leading and trailing ",
        b"-rf",
        b"--",
        b"...",
        b".hidden",
        b"new\nline",
        b"\n",
        b"tab\there",
        b"back\\slash",
        b"quote\"'`$(x)",
        b"*?[glob]",
        b"\x01\x1b[31mcontrol",
        b"\xff\xfe\xfd",
        b"half\xc3",
        b"caf\xc3\xa9",
        b"cafe\xcc\x81",
        b"CASE",
        b"case",
        &long(b'a'),
        &long(0xff),
        &wide,
    ];
    for (index, name) in names.iter().enumerate() {
        write(&root.join(OsStr::from_bytes(name)), &noise(index as u64, 100))?;
    }
    let below = dir(&root.join(OsStr::from_bytes(b"directory\nwith \xe2\x98 bytes")))?;
    write(&below.join(OsStr::from_bytes(b"file\n")), b"inside")
}

/// Many levels, and one path near the longest that a system call takes (4,095 bytes, less room for a mount point).
fn deep(root: &Path) -> Result<()> {
    const LEVELS: usize = 150;
    const LONG_LEVELS: usize = 13;
    let mut inner = root.join("levels");
    inner.extend(std::iter::repeat_n("d", LEVELS));
    let mut long = root.join("long");
    long.extend(std::iter::repeat_n("l".repeat(255), LONG_LEVELS));
    for path in [inner, long] {
        fs::create_dir_all(&path).context(|| "deep directories")?;
        write(&path.join("bottom"), b"bottom")?;
    }
    Ok(())
}

fn big_directory(root: &Path) -> Result<()> {
    for index in 0..BIG_DIRECTORY_ENTRIES {
        // Every hundredth has content: a restore must find the few among the many.
        let content = if index % 100 == 0 { noise(u64::from(index), 300) } else { Vec::new() };
        write(&root.join(format!("entry-{index:05}")), &content)?;
    }
    Ok(())
}

fn many_directories(root: &Path) -> Result<()> {
    for index in 0..300 {
        write(&dir(&root.join(format!("{index:03}")))?.join("file"), &prose(index, 700))?;
    }
    Ok(())
}

/// The kernel's form of an ACL: version 2, then (tag, permissions, id) per entry, little-endian.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

fn acls(root: &Path) -> Result<()> {
    const NO_ID: u32 = u32::MAX;
    const ACCESS: &str = "system.posix_acl_access";
    // user::rwx, user:1000:r--, group::r--, group:2000:rw-, mask::rw-, other::---
    let named = acl(&[
        (0x01, 7, NO_ID),
        (0x02, 4, 1000),
        (0x04, 4, NO_ID),
        (0x08, 6, 2000),
        (0x10, 6, NO_ID),
        (0x20, 0, NO_ID),
    ]);
    write(&root.join("file"), b"guarded")?;
    set_xattr(&root.join("file"), ACCESS, &named)?;
    let inside = dir(&root.join("directory"))?;
    set_xattr(&inside, "system.posix_acl_default", &named)?;
    // What is made below gets ACLs of its own from the default; a restore must not add them where they are not.
    write(&inside.join("inherits"), b"inherited")?;
    dir(&inside.join("inherits-too"))?;
    let mut many = vec![(0x01, 6, NO_ID)];
    many.extend((0..100).map(|id| (0x02, 4, 3000 + id)));
    many.extend([(0x04, 4, NO_ID), (0x10, 4, NO_ID), (0x20, 4, NO_ID)]);
    write(&root.join("many"), b"a hundred users")?;
    set_xattr(&root.join("many"), ACCESS, &acl(&many))
}

/// In the inode, in a block of its own, and as near to that block's end as they fit.
fn user_xattrs(root: &Path) -> Result<()> {
    let make = |name: &str| -> Result<PathBuf> {
        let path = root.join(name);
        write(&path, name.as_bytes())?;
        Ok(path)
    };
    set_xattr(&make("small")?, "user.a", b"1")?;
    set_xattr(&make("empty-value")?, "user.nothing", b"")?;
    set_xattr(&make("binary")?, "user.binary", &[0, 1, 255, 10, 0])?;
    set_xattr(&make("long-name")?, &format!("user.{}", "n".repeat(250)), b"name of 255 bytes")?;
    set_xattr(&make("big")?, "user.big", &noise(9, 3_900))?;
    let many = make("many")?;
    for index in 0..40 {
        set_xattr(&many, &format!("user.number-{index}"), &noise(index, index as usize))?;
    }
    // Equal blocks of attributes are shared between inodes by ext4.
    for name in ["shared-1", "shared-2", "shared-3"] {
        set_xattr(&make(name)?, "user.shared", &noise(7, 600))?;
    }
    let inside = dir(&root.join("directory"))?;
    set_xattr(&inside, "user.directory", b"of a directory")
}

fn root_xattrs(root: &Path) -> Result<()> {
    write(&root.join("file"), b"file")?;
    let inside = dir(&root.join("directory"))?;
    link("file", &root.join("symlink"))?;
    special(&root.join("fifo"), SFlag::S_IFIFO, 0)?;
    special(&root.join("device"), SFlag::S_IFCHR, makedev(1, 3))?;
    for path in [root.join("file"), inside, root.join("symlink"), root.join("fifo"), root.join("device")] {
        set_xattr(&path, "trusted.windlass", &noise(1, 50))?;
        set_xattr(&path, "security.windlass", b"label")?;
    }
    Ok(())
}

/// `cap_net_bind_service=ep`, in the kernel's form of revision 2; writing or changing the owner removes it.
fn capabilities(root: &Path) -> Result<()> {
    let mut value = 0x0200_0001_u32.to_le_bytes().to_vec();
    value.extend_from_slice(&(1u32 << 10).to_le_bytes());
    value.resize(20, 0);
    for (name, mode) in [("plain", 0o755), ("setuid", 0o4755)] {
        let path = root.join(name);
        write(&path, b"#!/bin/sh\n")?;
        chown(&path, Some(1000), Some(1000)).context(|| "owner")?;
        set_mode(&path, mode)?;
        set_xattr(&path, "security.capability", &value)?;
    }
    Ok(())
}

/// From the oldest to the newest time of a 256-byte ext4 inode, on files, directories and symlinks.
fn times(root: &Path) -> Result<()> {
    const MOMENTS: [(i64, i64); 10] = [
        (-2_147_483_648, 0),
        (-2, 500_000_000),
        (-1, 999_999_999),
        (0, 0),
        (0, 1),
        (1_234_567_890, 123_456_789),
        (2_147_483_647, 999_999_999),
        (2_147_483_648, 0),
        (4_294_967_296, 7),
        (15_032_385_535, 999_999_999),
    ];
    for (seconds, nanoseconds) in MOMENTS {
        let name = format!("{seconds}.{nanoseconds:09}");
        let (file, inside, link_name) = (
            root.join(format!("file{name}")),
            root.join(format!("dir{name}")),
            root.join(format!("link{name}")),
        );
        write(&file, b"at its time")?;
        write(&dir(&inside)?.join("child"), b"made before the time is set")?;
        link("nowhere", &link_name)?;
        for path in [file, inside, link_name] {
            set_time(&path, seconds, nanoseconds)?;
        }
    }
    Ok(())
}

fn flags(root: &Path) -> Result<()> {
    let add = |path: &Path, flags: IFlags| -> Result<()> {
        let file = File::open(path).context(|| path.display().to_string())?;
        let old = ioctl_getflags(&file).context(|| "flags")?;
        ioctl_setflags(&file, old | flags).context(|| format!("flags of {}", path.display()))
    };
    for (name, flags) in [
        ("immutable", IFlags::IMMUTABLE),
        ("append-only", IFlags::APPEND),
        ("no-dump", IFlags::NODUMP),
        ("no-atime", IFlags::NOATIME),
    ] {
        let (file, inside) =
            (root.join(format!("{name}-file")), dir(&root.join(format!("{name}-directory")))?);
        write(&file, b"flagged")?;
        write(&inside.join("child"), b"below a flag")?;
        set_time(&inside, 1_000_000_000, 5)?;
        add(&file, flags)?;
        add(&inside, flags)?;
    }
    Ok(())
}

/// Fails if a kind that should be possible here was skipped: a fixture that shrinks in silence tests less.
pub fn require_all(fixture: &Fixture) -> Result<()> {
    match fixture.skipped.first() {
        None => Ok(()),
        Some((kind, why)) => Err(Error::new(format!("kind {kind} was not built: {why}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::{Fixture, KINDS, Needs, noise, prose, require_all};
    use crate::error::output;
    use crate::image::{Access, Mount};
    use crate::requires_root;
    use crate::tree::{Options, compare};
    use crate::workdir::Workdir;
    use std::process::Command;

    #[test]
    fn content_is_the_same_every_time() {
        assert_eq!(noise(1, 100), noise(1, 100));
        assert_ne!(noise(1, 100), noise(2, 100));
        assert_eq!((noise(3, 77).len(), prose(3, 77).len(), noise(3, 0).len()), (77, 77, 0));
    }

    #[test]
    fn a_directory_holds_what_a_user_can_make() {
        let work = Workdir::new("fixture").unwrap();
        let root = work.dir("root").unwrap();
        let fixture = Fixture::directory(&root).unwrap();
        fixture.report("fixture::a_directory_holds_what_a_user_can_make");
        assert_eq!(fixture.built.len() + fixture.skipped.len(), KINDS.len());
        for kind in
            ["empty", "sizes", "sparse", "hardlinks", "symlinks", "pipes", "names", "deep", "big-directory"]
        {
            assert!(fixture.built.contains(&kind), "{kind}: {:?}", fixture.skipped);
        }
        let report = compare(&root, &root, &Options::default()).unwrap();
        assert!(report.is_equal() && report.items > u64::from(super::BIG_DIRECTORY_ENTRIES), "{report}");
    }

    #[test]
    fn an_image_holds_everything_and_is_sound() {
        let work = Workdir::new("fixture").unwrap();
        let image = work.join("image");
        let fixture = Fixture::image(&image).unwrap();
        assert!(KINDS.iter().any(|kind| kind.needs == Needs::OwnImage));
        output(Command::new("e2fsck").args(["-f", "-n"]).arg(&image)).unwrap();

        requires_root!("fixture::an_image_holds_everything_and_is_sound");
        require_all(&fixture).unwrap();
        // Two mounts of two copies: the comparer sees real block devices, and every kind agrees with its copy.
        let copy = work.join("copy");
        output(Command::new("cp").arg("--sparse=always").args([&image, &copy])).unwrap();
        let here = Mount::image(&image, &work.join("here"), Access::ReadOnly).unwrap();
        let there = Mount::image(&copy, &work.join("there"), Access::ReadOnly).unwrap();
        let report = compare(here.dir(), there.dir(), &Options::default()).unwrap();
        assert!(report.is_equal(), "{report}");
    }
}
