//! What the tests against a kernel share: mounts that end with their values, and the comparison of a volume with what the
//! oracle (oracle.py) says about it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use super::{TestDevice, Tree, Whole, contents};
use windlass_hal::volume::{Extent, ExtentState, Item, ItemKind, Payload, Timestamp};

/// A mount that ends with its value.
pub struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    /// Mounts `image` at `at` with `options`.
    ///
    /// # Errors
    /// What mount said.
    pub fn new(image: &Path, at: &'a Path, options: &str) -> Result<Mounted<'a>, String> {
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

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn time(time: Timestamp) -> String {
    format!("{}.{}", time.secs, time.nanos)
}

/// The flags that describe layout, which the reader leaves out: index, huge_file, extents, inline_data.
const LAYOUT_FLAGS: u32 = 0x1000 | 0x4_0000 | 0x8_0000 | 0x1000_0000;

/// What the oracle would say about an item, for the keys in `wanted`.
fn line(item: &Item, whole: &Whole, key: &str) -> String {
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
            let one = |e: &Extent| {
                let state = if e.state == ExtentState::Data { "d" } else { "u" };
                format!("{}:{}:{}:{state}", e.logical, e.physical, e.len)
            };
            whole.extents.iter().map(one).collect::<Vec<_>>().join(",")
        }
        other => panic!("{other}"),
    }
}

/// Compares the oracle's listing with what the reader found.
pub fn compare(listing: &str, tree: &Tree, device: &mut TestDevice, what: &str) {
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
                    let mine = sha256(&contents(device, item, whole));
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
