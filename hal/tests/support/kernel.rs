//! What the tests against a kernel share: mounts that end with their values, and the comparison of a volume with what a kernel
//! lists (oracle.py).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use windlass_hal::block::BlockDevice;
use windlass_hal::volume::{Extent, ExtentState, Item, ItemKind, Payload, Timestamp};

use super::sha256::Sha256;
use super::{TestDevice, Tree, Whole};

/// A mount that ends with its value.
pub struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    /// Mounts `image` at `at` with `options`.
    ///
    /// # Errors
    /// What mount said.
    pub fn new(image: &Path, at: &'a Path, options: &str) -> Result<Mounted<'a>, String> {
        // Attaching can lose a race for a free loop device with another test.
        const TRIES: u32 = 5;
        let mut reason = String::new();
        for _ in 0..TRIES {
            let output = Command::new("mount").args(["-o", options]).args([image, at]).output().unwrap();
            if output.status.success() {
                return Ok(Mounted(at));
            }
            reason = String::from_utf8_lossy(&output.stderr).into_owned();
        }
        Err(reason)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

/// The flags that describe layout, which the reader leaves out: index, huge_file, extents, ea_inode, eofblocks, inline_data.
const LAYOUT_FLAGS: u32 = 0x1000 | 0x4_0000 | EXTENTS_FLAG | 0x20_0000 | 0x40_0000 | 0x1000_0000;
const EXTENTS_FLAG: u32 = 0x8_0000;
const INDEX_FLAG: u32 = 0x1000;
/// Where FIEMAP stops for block maps without the huge_file feature, though reads go on.
const FIEMAP_END: u64 = 2 << 40;

/// How a comparison came out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// The kernel gives a value, the reader gives another and no fault: bugs, each as a sentence.
    pub wrong: Vec<String>,
    /// The kernel answers with an error where the reader has no fault, likewise.
    pub silent: Vec<String>,
    /// Inodes that the kernel shows and the reader does not, in directories that have a fault.
    pub lost: Vec<u64>,
    /// Inodes that the kernel reads wholly and the reader has a fault for.
    pub strict: BTreeSet<u64>,
    /// Inodes that the reader delivers and no name that the kernel shows leads to.
    pub unreached: BTreeSet<u64>,
}

/// Bytes in hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn time(time: Timestamp) -> String {
    format!("{}.{}", time.secs, time.nanos)
}

/// What the oracle would say about an item for `key`.
fn value(item: &Item, whole: &Whole, key: &str) -> String {
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

/// SHA-256 of a file's contents through its extents; reads no more than what is mapped, in pieces.
pub fn digest(device: &mut TestDevice, item: &Item, whole: &Whole) -> String {
    const PIECE: u64 = 1 << 20;
    let mut hash = Sha256::default();
    let mut at = 0;
    let zeros = |hash: &mut Sha256, from: u64, to: u64| {
        let zero = [0; 65536];
        let mut left = to.saturating_sub(from);
        while left > 0 {
            let now = left.min(zero.len() as u64);
            hash.update(&zero[..now as usize]);
            left -= now;
        }
    };
    if let Some(inline) = &whole.inline {
        hash.update(inline);
        zeros(&mut hash, inline.len() as u64, item.size);
        return hash.finish();
    }
    for extent in whole.extents.iter().filter(|e| e.state == ExtentState::Data && e.logical < item.size) {
        zeros(&mut hash, at, extent.logical);
        let end = extent.len.min(item.size - extent.logical);
        let mut within = 0;
        while within < end {
            let len = PIECE.min(end - within);
            let mut piece = vec![0; len as usize];
            device.read_at(extent.physical + within, &mut piece).unwrap();
            hash.update(&piece);
            within += len;
        }
        at = extent.logical + end;
    }
    zeros(&mut hash, at, item.size);
    hash.finish()
}

/// Expects that a sound volume is what the oracle's listing says, without a fault.
pub fn compare(listing: &str, tree: &Tree, device: &mut TestDevice, what: &str) {
    assert_eq!(differences(listing, tree, device), Differences::default(), "{what}");
    let fault = tree.iter().find_map(|(inode, (_, whole))| whole.fault.as_ref().map(|fault| (inode, fault)));
    assert_eq!(fault, None, "{what}");
}

/// Compares the oracle's listing with what the reader found.
pub fn differences(listing: &str, tree: &Tree, device: &mut TestDevice) -> Differences {
    let mut out = Differences::default();
    let (mut seen, mut unread, mut refused) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
    let mut names: BTreeMap<u64, BTreeSet<(String, u64)>> = BTreeMap::new();
    let number = |text: &str| text.parse::<u64>().unwrap();
    for text in listing.lines() {
        let (what, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut fields = rest.split(' ');
        let mut next = || fields.next().unwrap_or_default();
        match what {
            "N" => {
                let (directory, name, child) = (number(next()), next().to_owned(), number(next()));
                names.entry(directory).or_default().insert((name, child));
            }
            "E" => {
                unread.insert(number(next()));
            }
            "L" => {
                let (_, child) = (next(), number(next()));
                refused.insert(child, next().to_owned());
            }
            "I" => {
                let fields: BTreeMap<&str, &str> =
                    rest.split(' ').filter_map(|f| f.split_once('=')).collect();
                let inode = number(fields["ino"]);
                let flags = fields.get("flags").and_then(|flags| u32::from_str_radix(flags, 16).ok());
                seen.insert(inode, flags.unwrap_or(0));
                match tree.get(&inode) {
                    Some(found) => one(inode, &fields, found, device, &mut out),
                    None => out.lost.push(inode),
                }
            }
            _ => {}
        }
    }
    // Missing counts as said when every directory that names it has a fault, or is missing and said itself.
    let mut lost = std::mem::take(&mut out.lost);
    for (directory, children) in &names {
        let faulty = tree.get(directory).is_none_or(|(_, whole)| whole.fault.is_some());
        for (_, child) in children.iter().filter(|_| !faulty) {
            if let Some(at) = lost.iter().position(|inode| inode == child) {
                out.wrong.push(format!("inode {} is missing", lost.swap_remove(at)));
            }
        }
    }
    for (child, errno) in &refused {
        if !seen.contains_key(child) && tree.get(child).is_some_and(|(_, whole)| whole.fault.is_none()) {
            out.silent.push(format!("inode {child}: the kernel answers a look-up with error {errno}"));
        }
    }
    out.lost = lost;
    let none = BTreeSet::new();
    for (inode, (item, whole)) in tree {
        let Some(flags) = seen.get(inode) else {
            if !refused.contains_key(inode) {
                out.unreached.insert(*inode);
            }
            continue;
        };
        if item.kind == ItemKind::Directory {
            let theirs = names.get(inode).unwrap_or(&none);
            directory(*inode, whole, theirs, unread.contains(inode), *flags, &mut out);
        }
    }
    out
}

/// Compares the names in a directory.
fn directory(
    inode: u64,
    whole: &Whole,
    theirs: &BTreeSet<(String, u64)>,
    unread: bool,
    flags: u32,
    out: &mut Differences,
) {
    let mine: BTreeSet<_> = whole.names.iter().map(|(name, child)| (hex(name), *child)).collect();
    if unread {
        if whole.fault.is_none() {
            out.silent.push(format!("directory {inode}: the kernel does not list it"));
        }
        return;
    }
    for (name, child) in theirs.difference(&mine) {
        match whole.fault.is_some() {
            true => {
                out.strict.insert(inode);
            }
            false => out.wrong.push(format!("directory {inode}: name {name} ({child}) is not the reader's")),
        }
    }
    if whole.fault.is_some() {
        return;
    }
    if mine.len() != whole.names.len() {
        out.silent.push(format!("directory {inode}: a name twice"));
    }
    for (name, child) in mine.difference(theirs) {
        // A broken index hides names from the kernel that are in sound leaves.
        match flags & INDEX_FLAG != 0 {
            true => out.silent.push(format!("directory {inode}: the kernel's index does not lead to {name}")),
            false => out.wrong.push(format!("directory {inode}: name {name} ({child}) is not the kernel's")),
        }
    }
}

/// Whether FIEMAP may have stopped too early: the contents are not in an extent tree, by the kernel's flags, and it shows nothing
/// beyond its end.
fn is_cut(fields: &BTreeMap<&str, &str>, extents: &str) -> bool {
    let flags = fields.get("flags").and_then(|flags| u32::from_str_radix(flags, 16).ok());
    let mut starts = extents.split(',').filter_map(|extent| extent.split(':').next()?.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & EXTENTS_FLAG == 0) && !starts.any(|start| start >= FIEMAP_END)
}

/// Compares one inode.
fn one(
    inode: u64,
    fields: &BTreeMap<&str, &str>,
    (item, whole): &(Item, Whole),
    device: &mut TestDevice,
    out: &mut Differences,
) {
    let mut kernel_whole = true;
    let mut differs = Vec::new();
    for (&key, &theirs) in fields {
        if theirs.starts_with('!') || (key == "x" && theirs.contains(":!")) {
            // Attributes that the kernel lists and hands out to nobody: user.* of what is no file or directory.
            if key == "x" && !matches!(item.kind, ItemKind::File | ItemKind::Directory) {
                continue;
            }
            kernel_whole = false;
            if whole.fault.is_none() {
                out.silent.push(format!("inode {inode}: the kernel answers {key} with error {theirs}"));
            }
            continue;
        }
        let mine = match key {
            "ino" | "open" => continue,
            "sha" if theirs == "-" => continue,
            // The sum over a faulty map may reach anywhere; what the fault costs is not compared.
            "sha" | "extents" if whole.fault.is_some() => continue,
            "sha" => digest(device, item, whole),
            "extents" if is_cut(fields, theirs) && !matches!(item.payload, Payload::Inline(_)) => {
                let known = |extent: &&Extent| extent.logical < FIEMAP_END;
                let known = whole.extents.iter().filter(known).copied().collect();
                value(item, &Whole { extents: known, ..Whole::default() }, key)
            }
            "extents" if matches!(item.payload, Payload::Inline(_)) => {
                if !theirs.is_empty() && !theirs.ends_with(":i") {
                    differs.push(format!("extents: inline, not {theirs}"));
                }
                continue;
            }
            _ => value(item, whole, key),
        };
        let theirs = match key {
            "flags" => format!("{:x}", u32::from_str_radix(theirs, 16).unwrap() & !LAYOUT_FLAGS),
            _ => theirs.to_owned(),
        };
        if mine != theirs {
            let cut = |text: &str| text.chars().take(200).collect::<String>();
            differs.push(format!("{key}: {} is not the kernel's {}", cut(&mine), cut(&theirs)));
        }
    }
    if whole.fault.is_some() {
        if kernel_whole {
            out.strict.insert(inode);
        }
    } else {
        out.wrong.extend(differs.into_iter().map(|what| format!("inode {inode}: {what}")));
    }
}
