//! What every reader of volumes promises (`hal::volume`), checked on a volume that is whole: one suite for the raw readers, images, and
//! what the kernel mounts.
//!
//! | promise | check |
//! |---|---|
//! | windows are bounded; items ascend; ranges lie inside | every window |
//! | parts follow each other and say the same attributes | every item |
//! | extents ascend, do not overlap, are whole blocks, inside of the part and of the device | every extent |
//! | names are names, lead to items that are there, and each directory names its parent | every name |
//! | attributes ascend by name; contents in the inode are as long as the item | every item |
//! | the cursor moves; a sweep from any cursor gives what was left | cursors spread over the sweep, on a volume opened anew |
//! | `item` gives what the sweep gave; nothing for a number that has none | a spread of items |
//! | two openings give the same | one sweep each |
//! | the used map ascends and covers all data | once |
//! | what has no address is read by `read_at`, whole or in pieces, zeros behind the end | the first opaque files |
//!
//! Source: ours.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a suite fails by panicking")]

use std::collections::BTreeMap;

use windlass_hal::block::BlockDevice;
use windlass_hal::volume::{
    Cursor, Extent, ExtentState, ITEM_XATTR_BYTES_MAX, Item, ItemKind, Payload, Swept, UsedQuality, Volume,
    WINDOW_BYTES_MAX, WINDOW_EXTENTS_MAX, WINDOW_ITEMS_MAX, WINDOW_NAMES_MAX, Window,
};

/// Sweeps that no test volume needs.
const CALLS_MAX: usize = 100_000;
/// Cursors that a sweep is resumed from.
const RESUMES: usize = 6;
/// Items that are asked for alone.
const ALONE: usize = 200;
/// Opaque files that are read.
const OPAQUE_FILES: usize = 50;

/// A volume and the device that it is on, opened.
pub struct Opened {
    /// The device.
    pub device: Box<dyn BlockDevice>,
    /// What is on it.
    pub volume: Box<dyn Volume>,
}

/// What the suite runs on.
pub struct Subject<'a> {
    /// For messages.
    pub name: &'a str,
    /// Opens the same volume each time.
    pub open: &'a mut dyn FnMut() -> Opened,
    /// Whether its names must make a tree from the root.
    pub is_tree: bool,
}

/// An item with all of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Whole {
    attributes: String,
    kind: ItemKind,
    size: u64,
    parent: u64,
    payload: Option<Vec<u8>>,
    extents: Vec<Extent>,
    names: Vec<(Vec<u8>, u64)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    fault: Option<String>,
    /// Where the next part begins, until the last one is there.
    open: Option<u64>,
}

type Tree = BTreeMap<u64, Whole>;

/// Runs the suite.
///
/// # Panics
/// When a promise is broken.
pub fn run(subject: &mut Subject<'_>) {
    let mut opened = (subject.open)();
    let (tree, cursors) = sweep(&mut opened, Cursor::default(), subject.name);
    assert!(!tree.is_empty(), "{}: a volume has items", subject.name);
    let mut again = (subject.open)();
    assert_eq!(opened.volume.info(), again.volume.info(), "{}: two openings", subject.name);
    assert!(sweep(&mut again, Cursor::default(), subject.name).0 == tree, "{}: two openings", subject.name);
    resumes(subject, &tree, &cursors);
    alone(&mut again, &tree, subject.name);
    used(&mut again, &tree, subject.name);
    opaque(&mut again, &tree, subject.name);
    if subject.is_tree {
        names(&again, &tree, subject.name);
    }
}

/// Sweeps from `from` to the end; the items, and the cursors on the way. The first item may be a later part.
fn sweep(opened: &mut Opened, from: Cursor, name: &str) -> (Tree, Vec<Cursor>) {
    let Opened { device, volume } = opened;
    let (mut tree, mut cursors, mut window, mut cursor) = (Tree::new(), vec![], Window::default(), from);
    let block = u64::from(volume.info().block_bytes);
    for _ in 0..CALLS_MAX {
        let swept = volume.sweep(&mut **device, cursor, &mut window).unwrap();
        check_window(&window, name);
        for item in &window.items {
            assert!(item.inode >= cursor.inode, "{name}: nothing from before the cursor");
            absorb(&mut tree, &window, item, block, device.geometry().size_bytes, name);
        }
        let reached = tree.last_key_value().map(|(inode, whole)| (*inode, whole.open));
        match swept {
            Swept::Done => {
                assert!(tree.values().all(|whole| whole.open.is_none()), "{name}: every item ends");
                let inode = reached.map_or(from.inode, |(inode, _)| inode + 1);
                let behind = Cursor { inode, within: 0 };
                assert_eq!(volume.sweep(&mut **device, behind, &mut window).unwrap(), Swept::Done, "{name}");
                assert!(window.items.is_empty(), "{name}: nothing is behind the end");
                return (tree, cursors);
            }
            Swept::More(next) => {
                assert!(next > cursor, "{name}: the cursor moves: {cursor:?} {next:?}");
                if let Some((inode, open)) = reached {
                    let goes_on = Cursor { inode, within: open.unwrap_or(0) };
                    assert!(next.inode > inode || next == goes_on, "{name}: {next:?} {goes_on:?}");
                    assert!(open.is_none() || next == goes_on, "{name}: a part is followed by the next one");
                }
                cursor = next;
                cursors.push(next);
            }
        }
    }
    unreachable!("{name}: the sweep does not end")
}

fn check_window(window: &Window, name: &str) {
    assert!(window.items.len() <= WINDOW_ITEMS_MAX, "{name}");
    assert!(window.extents.len() <= WINDOW_EXTENTS_MAX, "{name}");
    assert!(window.names.len() <= WINDOW_NAMES_MAX, "{name}");
    assert!(window.bytes.len() <= WINDOW_BYTES_MAX + ITEM_XATTR_BYTES_MAX, "{name}");
    assert!(window.items.windows(2).all(|w| w[0].inode < w[1].inode), "{name}: items ascend");
}

/// Everything of an item that every part must say.
fn attributes(item: &Item) -> String {
    let Item { inode, generation, kind, mode, uid, gid, links, rdev, size, .. } = item;
    let Item { atime, mtime, ctime, btime, flags, project, hints, parent, .. } = item;
    format!(
        "{inode} {generation} {kind:?} {mode:o} {uid}:{gid} {links} {rdev:?} {size} {atime:?} {mtime:?} {ctime:?} {btime:?} \
         {flags:x} {project} {hints:?} {parent}"
    )
}

fn absorb(tree: &mut Tree, window: &Window, item: &Item, block: u64, device_bytes: u64, name: &str) {
    let at = format!("{name}: inode {}", item.inode);
    assert!(item.mode <= 0o7777 && item.size <= i64::MAX as u64, "{at}");
    for time in [Some(item.atime), Some(item.mtime), Some(item.ctime), item.btime].into_iter().flatten() {
        assert!(time.nanos < 1_000_000_000, "{at}: {time:?}");
    }
    assert_eq!(item.part.first, item.part.from == 0, "{at}: only the first part begins at 0");
    assert_eq!(item.part.last, item.part.to == u64::MAX, "{at}");
    assert!(item.part.from < item.part.to, "{at}");
    let new = || Whole {
        attributes: attributes(item),
        kind: item.kind,
        size: item.size,
        parent: item.parent,
        payload: None,
        extents: vec![],
        names: vec![],
        xattrs: vec![],
        fault: None,
        open: None,
    };
    // A resumed sweep may begin inside of an item.
    let resumed = tree.is_empty();
    let whole = match tree.get_mut(&item.inode) {
        None => {
            assert!(item.part.first || resumed, "{at}: begins with its first part");
            tree.entry(item.inode).or_insert_with(new)
        }
        Some(whole) => {
            assert_eq!(whole.open, Some(item.part.from), "{at}: parts follow each other");
            whole
        }
    };
    assert_eq!(whole.attributes, attributes(item), "{at}: attributes are the same in every part");
    whole.open = (!item.part.last).then_some(item.part.to);
    for extent in &window.extents[item.extents.start as usize..item.extents.end as usize] {
        assert!(matches!(item.kind, ItemKind::File | ItemKind::Image), "{at}: only contents have extents");
        assert!((item.part.from..item.part.to).contains(&extent.logical), "{at}: {extent:?} is in its part");
        assert!(extent.len > 0, "{at}: {extent:?}");
        assert!(extent.logical % block == 0 && extent.len % block == 0, "{at}: {extent:?} is whole blocks");
        let before = whole.extents.last().map_or(0, |last: &Extent| last.logical + last.len);
        assert!(extent.logical >= before, "{at}: extents ascend and are disjoint");
        match extent.state {
            ExtentState::Opaque => assert_eq!(extent.physical, 0, "{at}: {extent:?}"),
            ExtentState::Data => assert!(extent.physical + extent.len <= device_bytes, "{at}: {extent:?}"),
            ExtentState::Unwritten => {}
        }
        whole.extents.push(*extent);
    }
    for entry in &window.names[item.names.start as usize..item.names.end as usize] {
        assert_eq!(item.kind, ItemKind::Directory, "{at}: only directories have names");
        let bytes = window.get(&entry.name).to_vec();
        assert!((1..=255).contains(&bytes.len()), "{at}");
        assert!(!bytes.contains(&b'/') && !bytes.contains(&0) && bytes != b"." && bytes != b"..", "{at}");
        whole.names.push((bytes, entry.inode));
    }
    for xattr in &window.xattrs[item.xattrs.start as usize..item.xattrs.end as usize] {
        assert!(item.part.first, "{at}: attributes are in the first part");
        let name = window.get(&xattr.name).to_vec();
        assert!(whole.xattrs.last().is_none_or(|(last, _)| *last < name), "{at}: attributes ascend");
        whole.xattrs.push((name, window.get(&xattr.value).to_vec()));
    }
    match &item.payload {
        Payload::None => {}
        Payload::Target(range) => {
            assert_eq!(item.kind, ItemKind::Symlink, "{at}");
            whole.payload = Some(window.get(range).to_vec());
        }
        Payload::Inline(range) => {
            assert_eq!((item.kind, range.len() as u64), (ItemKind::File, item.size), "{at}");
            whole.payload = Some(window.get(range).to_vec());
        }
    }
    if item.kind == ItemKind::Symlink && item.part.first && item.fault.is_none() {
        assert_eq!(whole.payload.as_ref().map(Vec::len), Some(item.size as usize), "{at}: a target");
    }
    if whole.fault.is_none() {
        whole.fault = item.fault.as_ref().map(ToString::to_string);
    }
}

/// Sweeps from cursors that a sweep gave, each on a volume opened anew.
fn resumes(subject: &mut Subject<'_>, tree: &Tree, cursors: &[Cursor]) {
    let within = cursors.iter().filter(|cursor| cursor.within > 0).take(RESUMES);
    let spread = cursors.iter().step_by(cursors.len().div_ceil(RESUMES).max(1));
    for &cursor in spread.chain(within) {
        let mut opened = (subject.open)();
        let (rest, _) = sweep(&mut opened, cursor, subject.name);
        let name = subject.name;
        assert_eq!(
            rest.keys().next(),
            tree.range(cursor.inode..).next().map(|(i, _)| i),
            "{name}: {cursor:?}"
        );
        assert_eq!(rest.len(), tree.range(cursor.inode..).count(), "{name}: {cursor:?}");
        for (inode, whole) in &rest {
            let wanted = &tree[inode];
            if cursor.within == 0 || *inode != cursor.inode {
                assert_eq!(whole, wanted, "{name}: {cursor:?}");
                continue;
            }
            assert!(wanted.extents.ends_with(&whole.extents), "{name}: {cursor:?}: extents");
            assert!(wanted.names.ends_with(&whole.names), "{name}: {cursor:?}: names");
            assert!(
                whole.xattrs.is_empty() && whole.extents.len() + whole.names.len() > 0,
                "{name}: {cursor:?}"
            );
        }
    }
}

/// Items asked for alone, in no order.
fn alone(opened: &mut Opened, tree: &Tree, name: &str) {
    let Opened { device, volume } = opened;
    let (block, mut window) = (u64::from(volume.info().block_bytes), Window::default());
    let several = tree.iter().filter(|(_, whole)| whole.names.len() > 1000 || whole.extents.len() > 1000);
    let spread = tree.iter().step_by(tree.len().div_ceil(ALONE));
    for (&inode, wanted) in spread.rev().chain(several) {
        let (mut found, mut within) = (Tree::new(), 0);
        loop {
            let swept = volume.item(&mut **device, inode, within, &mut window).unwrap();
            check_window(&window, name);
            assert_eq!(window.items.len(), 1, "{name}: inode {inode} alone");
            absorb(&mut found, &window, &window.items[0], block, device.geometry().size_bytes, name);
            match swept {
                Swept::Done => break,
                Swept::More(next) => {
                    assert_eq!((next.inode, next.within > within), (inode, true), "{name}");
                    within = next.within;
                }
            }
        }
        assert_eq!(found.get(&inode), Some(wanted), "{name}: inode {inode} alone");
    }
    let (Some((&first, _)), Some((&last, _))) = (tree.first_key_value(), tree.last_key_value()) else {
        return;
    };
    let gap = (first..last).find(|inode| !tree.contains_key(inode));
    for missing in [Some(0), gap, Some(last + 1), Some(u64::MAX)].into_iter().flatten() {
        assert_eq!(
            volume.item(&mut **device, missing, 0, &mut window).unwrap(),
            Swept::Done,
            "{name}: {missing}"
        );
        assert!(window.items.is_empty(), "{name}: there is no inode {missing}");
    }
}

fn used(opened: &mut Opened, tree: &Tree, name: &str) {
    let Opened { device, volume } = opened;
    let size = device.geometry().size_bytes;
    let mut ranges: Vec<std::ops::Range<u64>> = Vec::new();
    let quality = volume.used(&mut **device, &mut |range| ranges.push(range)).unwrap();
    assert!(ranges.iter().all(|range| range.start < range.end && range.end <= size), "{name}");
    assert!(ranges.windows(2).all(|w| w[0].end <= w[1].start), "{name}: the map ascends");
    if quality == UsedQuality::Unknown {
        assert_eq!(ranges.iter().map(|range| range.end - range.start).sum::<u64>(), size, "{name}");
    }
    let mut joined: Vec<std::ops::Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => joined.push(range),
        }
    }
    for extent in tree.values().flat_map(|w| &w.extents).filter(|e| e.state == ExtentState::Data) {
        let at = joined.partition_point(|range| range.end <= extent.physical);
        let inside = joined
            .get(at)
            .is_some_and(|range| range.start <= extent.physical && extent.physical + extent.len <= range.end);
        assert!(inside, "{name}: {extent:?} is used");
    }
}

/// What has no address comes through `read_at`.
fn opaque(opened: &mut Opened, tree: &Tree, name: &str) {
    let Opened { device, volume } = opened;
    let has = |whole: &Whole| whole.extents.iter().any(|e| e.state == ExtentState::Opaque);
    for (&inode, whole) in tree.iter().filter(|(_, whole)| has(whole)).take(OPAQUE_FILES) {
        let extent = whole.extents.iter().find(|e| e.state == ExtentState::Opaque).unwrap();
        let len = extent.len.min(1 << 20) as usize;
        let (mut bytes, mut piece) = (vec![0xEE; len], vec![0xEE; 1000]);
        volume.read_at(&mut **device, inode, extent.logical, &mut bytes).unwrap();
        let shown = whole.size.saturating_sub(extent.logical).min(len as u64) as usize;
        assert!(bytes[shown..].iter().all(|&b| b == 0), "{name}: inode {inode}: zeros behind the end");
        for at in (0..len).step_by(len.div_ceil(7)).rev() {
            let piece = &mut piece[..1000.min(len - at)];
            volume.read_at(&mut **device, inode, extent.logical + at as u64, piece).unwrap();
            assert!(*piece == bytes[at..at + piece.len()], "{name}: inode {inode}: in pieces");
        }
    }
    assert!(volume.read_at(&mut **device, u64::MAX, 0, &mut [0; 16]).is_err(), "{name}: no such file");
}

/// Names make a tree.
fn names(opened: &Opened, tree: &Tree, name: &str) {
    let root = opened.volume.info().root;
    assert_eq!(
        tree.get(&root).map(|w| (w.kind, w.parent)),
        Some((ItemKind::Directory, root)),
        "{name}: root"
    );
    let mut named: BTreeMap<u64, u32> = BTreeMap::new();
    for (&inode, whole) in tree {
        assert_eq!(whole.fault, None, "{name}: inode {inode}: a sound volume");
        for (entry, child) in &whole.names {
            let below = tree.get(child);
            assert!(below.is_some(), "{name}: {inode}: {} leads to {child}", entry.escape_ascii());
            if let Some(below) = below.filter(|below| below.kind == ItemKind::Directory) {
                assert_eq!(below.parent, inode, "{name}: {} names its parent", entry.escape_ascii());
            }
            *named.entry(*child).or_default() += 1;
        }
    }
    for (inode, whole) in tree.iter().filter(|(inode, _)| **inode != root) {
        let times = named.get(inode).copied().unwrap_or(0);
        assert!(times > 0, "{name}: inode {inode} has a name");
        assert!(whole.kind != ItemKind::Directory || times == 1, "{name}: directory {inode} has one name");
    }
}
