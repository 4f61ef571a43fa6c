//! ext4 as the kernel sees it: a volume is made and filled by the kernel, then mounted read-only, and every inode, name,
//! attribute, extent and byte that it shows must be what the reader finds.
//!
//! Needs root, mke2fs, python3 and loop devices; says `SKIPPED` otherwise. Only features that mke2fs sets by default (or that are older)
//! are mounted, and only finished, clean images.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use support::{Scratch, TestDevice, Tree, collect, has, is_root, run, skipped};
use windlass_hal::volume::{ExtentState, Item, ItemKind, Payload, Timestamp, detect};

/// A mount that ends with its value.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn new(image: &Path, at: &'a Path, options: &str) -> Result<Mounted<'a>, String> {
        let output = Command::new("mount").args(["-o", options]).args([image, at]).output().unwrap();
        match output.status.success() {
            true => Ok(Mounted(at)),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn time(time: Timestamp) -> String {
    format!("{}.{}", time.secs, time.nanos)
}

/// The flags that describe layout, which the reader leaves out: index, huge_file, extents, inline_data.
const LAYOUT_FLAGS: u32 = 0x1000 | 0x4_0000 | 0x8_0000 | 0x1000_0000;

/// What the oracle would say about an item, for the keys in `wanted`.
fn line(item: &Item, whole: &support::Whole, key: &str) -> String {
    let kind = match item.kind {
        ItemKind::File | ItemKind::Image => 0o100000,
        ItemKind::Directory => 0o040000,
        ItemKind::Symlink => 0o120000,
        ItemKind::CharDevice => 0o020000,
        ItemKind::BlockDevice => 0o060000,
        ItemKind::Fifo => 0o010000,
        ItemKind::Socket => 0o140000,
    };
    match key {
        "mode" => format!("{:o}", kind | u32::from(item.mode)),
        "own" => format!("{}:{}", item.uid, item.gid),
        "links" => item.links.to_string(),
        "rdev" => format!("{}:{}", item.rdev.0, item.rdev.1),
        "size" => item.size.to_string(),
        "a" => time(item.atime),
        "m" => time(item.mtime),
        "c" => time(item.ctime),
        "b" => item.btime.map_or("-".into(), time),
        "project" => item.project.to_string(),
        "flags" => format!("{:x}", item.flags),
        "gen" => item.generation.to_string(),
        "target" => hex(whole.target.as_deref().unwrap_or_default()),
        "x" => {
            let all: Vec<String> =
                whole.xattrs.iter().map(|(n, v)| format!("{}:{}", hex(n), hex(v))).collect();
            all.join(",")
        }
        "extents" => {
            let one = |e: &windlass_hal::volume::Extent| {
                let state = if e.state == ExtentState::Data { "d" } else { "u" };
                format!("{}:{}:{}:{state}", e.logical, e.physical, e.len)
            };
            whole.extents.iter().map(one).collect::<Vec<_>>().join(",")
        }
        other => panic!("{other}"),
    }
}

/// Compares the oracle's listing with what the reader found.
fn compare(listing: &str, tree: &Tree, device: &mut TestDevice, what: &str) {
    let mut seen = BTreeSet::new();
    let mut names: BTreeMap<u64, BTreeSet<(String, u64)>> = BTreeMap::new();
    for text in listing.lines() {
        let mut fields = text.split(' ');
        if fields.next() == Some("N") {
            let fields: Vec<&str> = fields.collect();
            names
                .entry(fields[0].parse().unwrap())
                .or_default()
                .insert((fields[1].into(), fields[2].parse().unwrap()));
            continue;
        }
        let fields: BTreeMap<&str, &str> = fields.filter_map(|field| field.split_once('=')).collect();
        let inode: u64 = fields["ino"].parse().unwrap();
        seen.insert(inode);
        let (item, whole) = tree.get(&inode).unwrap_or_else(|| panic!("{what}: inode {inode} is missing"));
        for (&key, &value) in &fields {
            match key {
                "ino" => {}
                "flags" => {
                    let shown = u32::from_str_radix(value, 16).unwrap() & !LAYOUT_FLAGS;
                    assert_eq!(format!("{shown:x}"), line(item, whole, key), "{what}: inode {inode}: flags");
                }
                "extents" if matches!(item.payload, Payload::Inline(_)) => {
                    assert!(value.is_empty() || value.ends_with(":i"), "{what}: inode {inode}: {value}");
                }
                "sha" if item.size <= 256 << 20 => {
                    let mine = sha256(&support::contents(device, item, whole));
                    assert_eq!(value, mine, "{what}: inode {inode}: contents");
                }
                "sha" => {}
                _ => assert_eq!(value, line(item, whole, key), "{what}: inode {inode}: {key}"),
            }
        }
        assert_eq!(whole.fault, None, "{what}: inode {inode}");
    }
    assert_eq!(tree.keys().copied().collect::<BTreeSet<_>>(), seen, "{what}: inodes");
    for (inode, (_, whole)) in tree {
        let mine: BTreeSet<_> = whole.names.iter().map(|(name, child)| (hex(name), *child)).collect();
        assert_eq!(mine.len(), whole.names.len(), "{what}: inode {inode}: no name twice");
        assert_eq!(mine, names.remove(inode).unwrap_or_default(), "{what}: names in {inode}");
    }
    assert!(names.is_empty());
}

/// SHA-256 (FIPS 180-4), for comparing with python's; contents are small.
fn sha256(bytes: &[u8]) -> String {
    let mut k = [0u32; 64];
    let mut h = [0u32; 8];
    let primes = (2u32..312).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0));
    for (i, p) in primes.enumerate() {
        let frac = |root: f64| ((root - root.floor()) * 4_294_967_296.0) as u32;
        if i < 8 {
            h[i] = frac(f64::from(p).sqrt());
        }
        k[i] = frac(f64::from(p).cbrt());
    }
    let mut padded = bytes.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() - bytes.len() < 9 {
        padded.resize(padded.len() + 64, 0);
    }
    let end = padded.len();
    padded[end - 8..].copy_from_slice(&(bytes.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks_exact(64) {
        let mut w = [0u32; 64];
        for (i, word) in block.chunks_exact(4).enumerate() {
            w[i] = u32::from_be_bytes(word.try_into().unwrap());
        }
        for i in 16..64 {
            let s0 = w[i - 15].rotate_right(7) ^ w[i - 15].rotate_right(18) ^ w[i - 15] >> 3;
            let s1 = w[i - 2].rotate_right(17) ^ w[i - 2].rotate_right(19) ^ w[i - 2] >> 10;
            w[i] = w[i - 16].wrapping_add(s0).wrapping_add(w[i - 7]).wrapping_add(s1);
        }
        let mut v = h;
        for i in 0..64 {
            let s1 = v[4].rotate_right(6) ^ v[4].rotate_right(11) ^ v[4].rotate_right(25);
            let ch = v[4] & v[5] ^ !v[4] & v[6];
            let t1 = v[7].wrapping_add(s1).wrapping_add(ch).wrapping_add(k[i]).wrapping_add(w[i]);
            let s0 = v[0].rotate_right(2) ^ v[0].rotate_right(13) ^ v[0].rotate_right(22);
            let t2 = s0.wrapping_add(v[0] & v[1] ^ v[0] & v[2] ^ v[1] & v[2]);
            v = [t1.wrapping_add(t2), v[0], v[1], v[2], v[3].wrapping_add(t1), v[4], v[5], v[6]];
        }
        for (a, b) in h.iter_mut().zip(v) {
            *a = a.wrapping_add(b);
        }
    }
    h.iter().map(|word| format!("{word:08x}")).collect()
}

/// Name, size, mke2fs arguments, entries of the large directory.
const SETS: &[(&str, &str, &[&str], &str)] = &[
    ("default", "600M", &["-t", "ext4"], "20000"),
    ("1k blocks", "400M", &["-t", "ext4", "-b", "1024"], "5000"),
    ("ext3", "500M", &["-t", "ext3", "-b", "4096"], "3000"),
    ("ext2 1k", "400M", &["-t", "ext2", "-b", "1024"], "2000"),
    ("project quota", "500M", &["-t", "ext4", "-O", "quota,project", "-E", "quotatype=prjquota"], "1000"),
];

#[test]
fn the_kernel_and_the_reader_see_the_same() {
    let test = "the_kernel_and_the_reader_see_the_same";
    if !is_root() {
        return skipped(test, "not root");
    }
    for program in ["mke2fs", "python3", "mount", "chattr", "tar"] {
        if !has(program) {
            return skipped(test, &format!("no {program}"));
        }
    }
    let scratch = Scratch::new("kernel");
    let support = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support");
    let (image, at, listing) = (scratch.join("image"), scratch.join("mnt"), scratch.join("listing"));
    std::fs::create_dir(&at).unwrap();
    for (name, size, args, entries) in SETS {
        let _ = std::fs::remove_file(&image);
        let mut all = vec!["-q", "-F", "-N", "20000"];
        all.extend_from_slice(args);
        all.extend_from_slice(&[image.to_str().unwrap(), size]);
        run("mke2fs", &all);
        match Mounted::new(&image, &at, "loop,user_xattr,acl") {
            Ok(_mounted) => {
                let script = support.join("populate.py");
                run("python3", &[script.to_str().unwrap(), at.to_str().unwrap(), entries]);
            }
            Err(reason) => return skipped(test, &format!("mount: {reason}")),
        }
        let options = if name.starts_with("ext2") { "ro,loop" } else { "ro,noload,loop" };
        let mounted = Mounted::new(&image, &at, options).unwrap();
        let oracle = support.join("oracle.py");
        run("python3", &[oracle.to_str().unwrap(), at.to_str().unwrap(), listing.to_str().unwrap()]);
        drop(mounted);
        let mut device = TestDevice::file(&image);
        let mut volume = detect::open(&mut device).unwrap();
        let tree = collect(&mut device, volume.as_mut()).unwrap();
        assert!(tree.len() > 3000, "{name}: {} items", tree.len());
        compare(&std::fs::read_to_string(&listing).unwrap(), &tree, &mut device, name);
    }
}

#[test]
fn a_directory_may_fill_its_volume() {
    let test = "a_directory_may_fill_its_volume";
    if !is_root() || !has("mke2fs") || !has("mount") {
        return skipped(test, "not root, or no mke2fs or mount");
    }
    let scratch = Scratch::new("full");
    let (image, at) = (scratch.join("image"), scratch.join("mnt"));
    std::fs::create_dir(&at).unwrap();
    let args = ["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-b", "1024", "-m", "0", "-N", "64"];
    run("mke2fs", &[&args[..], &[image.to_str().unwrap(), "5M"]].concat());
    let mut links: u64 = 0;
    match Mounted::new(&image, &at, "loop") {
        Ok(_mounted) => {
            std::fs::create_dir(at.join("d")).unwrap();
            std::fs::write(at.join("f"), "").unwrap();
            while std::fs::hard_link(at.join("f"), at.join(format!("d/{links}{}", "n".repeat(240)))).is_ok() {
                links += 1;
            }
        }
        Err(reason) => return skipped(test, &format!("mount: {reason}")),
    }
    let mut device = TestDevice::file(&image);
    let mut volume = detect::open(&mut device).unwrap();
    let tree = collect(&mut device, volume.as_mut()).unwrap();
    let (_, whole) = tree.values().find(|(_, whole)| whole.names.len() > 3).unwrap();
    assert_eq!(whole.fault, None);
    assert_eq!(whole.names.len() as u64, links);
    assert!(whole.parts >= 3, "{links} names in {} parts", whole.parts);
}
