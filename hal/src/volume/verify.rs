//! Two readers of one volume, compared item by item: the raw reader and the kernel, on the same device.
//!
//! | compared | how |
//! |---|---|
//! | items | both have the same numbers (all), or the same of the sample |
//! | attributes | each field; of what the kernel cannot open (symlinks, special files) only the flags in statx, and no project id |
//! | attributes extended | names and values |
//! | names of directories | as sets of (name, inode), by a sum of hashes first and by name where that differs |
//! | extents | neighbours joined: logical, length, state, and the address where both have one |
//! | contents | every byte of the raw reader's data, inline contents and targets, against the other's [`Volume::read_at`] |
//! | faults | an item that one reader finds fault with and the other does not |
//!
//! Holes and unwritten extents are compared as extents; that the kernel reads them as zeros is not tested.
//!
//! Memory: two windows, two buffers of [`CHUNK_BYTES`]; for a directory that differs up to [`NAMES_MAX`] names of each side.
//! A difference is delivered when it is found, at most [`ITEM_DIFFERENCES_MAX`] of one item.
//!
//! Does not: find paths, decide which reader is right. Source: ours.

use std::collections::BTreeSet;
use std::fmt::Debug;

use super::{
    Cursor, Extent, ExtentState, Item, ItemFaultKind, ItemKind, Payload, Swept, Volume, VolumeFault, Window,
};
use crate::block::BlockDevice;

/// Bytes compared at once.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Names of a directory that are compared one by one when the sums differ; of a larger one only the counts
/// are reported.
pub const NAMES_MAX: usize = 65_536;
/// Differences of one item that are delivered; the rest are counted.
pub const ITEM_DIFFERENCES_MAX: usize = 16;
/// Most items of a sample: 8 bytes each.
pub const SAMPLE_MAX: usize = 1 << 20;
/// Bytes of a value that are shown.
const SHOWN_BYTES_MAX: usize = 64;
/// Inode flags that statx gives of any item: append, immutable, nodump, encrypted.
const FLAGS_BY_STATX: u32 = 0x10 | 0x20 | 0x40 | 0x800;

/// One difference between the two readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Of which item.
    pub inode: u64,
    /// Which field: "item", "mode", "extents", "contents", "name", "attribute", ...
    pub field: &'static str,
    /// The value from the raw reader, as text.
    pub raw: String,
    /// The value from the kernel, as text.
    pub mounted: String,
}

/// What was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Items that at least one reader has.
    pub items: u64,
    /// Bytes of contents.
    pub bytes: u64,
    /// Differences, delivered or only counted.
    pub differences: u64,
    /// Items with a difference.
    pub items_different: u64,
}

/// Which items to compare.
#[derive(Clone, Copy, Debug)]
pub enum Choice<'a> {
    /// All that either reader has.
    All,
    /// These inode numbers, if at least one reader has them.
    Inodes(&'a [u64]),
}

/// Draws `count` (at most [`SAMPLE_MAX`]) of the volume's items, each as likely as any other, ascending; the same for the same
/// seed and volume. One sweep.
pub fn sample(
    volume: &mut dyn Volume,
    device: &mut dyn BlockDevice,
    count: usize,
    seed: u64,
) -> Result<Vec<u64>, VolumeFault> {
    let count = count.min(SAMPLE_MAX);
    let mut drawn: Vec<u64> = Vec::with_capacity(count);
    let (mut seen, mut state, mut cursor, mut window) = (0u64, seed, Cursor::default(), Window::default());
    loop {
        let swept = volume.sweep(device, cursor, &mut window)?;
        for item in window.items.iter().filter(|item| item.part.first) {
            seen += 1;
            if drawn.len() < count {
                drawn.push(item.inode);
                continue;
            }
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            if let Some(place) = usize::try_from(mix(state) % seen).ok().and_then(|at| drawn.get_mut(at)) {
                *place = item.inode;
            }
        }
        match swept {
            Swept::More(next) => cursor = next,
            Swept::Done => break,
        }
    }
    drawn.sort_unstable();
    Ok(drawn)
}

/// Compares `raw` with `mounted`, both on `device`, and calls `each` with the differences, ascending by inode. `stop` is asked
/// between items.
///
/// # Errors
/// Those of the readers' sweeps; what one item does not give is a difference.
pub fn verify(
    raw: &mut dyn Volume,
    mounted: &mut dyn Volume,
    device: &mut dyn BlockDevice,
    choice: Choice<'_>,
    stop: &dyn Fn() -> bool,
    each: &mut dyn FnMut(Difference),
) -> Result<Verified, VolumeFault> {
    let mut work = Work {
        raw: Side::new(raw),
        mounted: Side::new(mounted),
        device,
        each,
        sums: Verified::default(),
        of_item: 0,
        chunks: (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]),
    };
    match choice {
        Choice::All => while !stop() && work.next()? {},
        Choice::Inodes(inodes) => {
            for &inode in inodes {
                if stop() {
                    break;
                }
                work.raw.only(inode);
                work.mounted.only(inode);
                work.next()?;
            }
        }
    }
    Ok(work.sums)
}

/// The finaliser of splitmix64.
fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ value >> 31
}

/// A hash of a directory entry, to be summed up: no defence, the two readers do not conspire.
fn hash(name: &[u8], inode: u64) -> u128 {
    let half = |seed: u64| {
        name.chunks(8).fold(mix(inode ^ seed).wrapping_add(name.len() as u64), |state, chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            mix(state ^ u64::from_le_bytes(word)).wrapping_add(seed)
        })
    };
    u128::from(half(0x243F_6A88_85A3_08D3)) << 64 | u128::from(half(0x1319_8A2E_0370_7344))
}

/// Names of a directory, with the inodes that they name.
type Names = BTreeSet<(Vec<u8>, u64)>;

/// One reader, its window, and where in it the comparison is.
struct Side<'v> {
    volume: &'v mut dyn Volume,
    window: Window,
    /// Index of the current item.
    at: usize,
    /// Index of the next extent in the current item's part.
    extent: u32,
    /// Where the volume goes on, `None` at its end.
    next: Option<Cursor>,
    /// The only item wanted.
    only: Option<u64>,
}

impl<'v> Side<'v> {
    fn new(volume: &'v mut dyn Volume) -> Side<'v> {
        let window = Window::default();
        Side { volume, window, at: 0, extent: 0, next: Some(Cursor::default()), only: None }
    }

    fn only(&mut self, inode: u64) {
        self.window.clear();
        self.at = 0;
        self.next = Some(Cursor { inode, within: 0 });
        self.only = Some(inode);
    }

    /// Fills the window until the current item is in it; whether there is one.
    fn load(&mut self, device: &mut dyn BlockDevice) -> Result<bool, VolumeFault> {
        while self.at >= self.window.items.len() {
            let Some(cursor) = self.next else { return Ok(false) };
            let swept = match self.only {
                Some(inode) => self.volume.item(device, inode, cursor.within, &mut self.window)?,
                None => self.volume.sweep(device, cursor, &mut self.window)?,
            };
            self.next = match swept {
                Swept::More(next) => Some(next),
                Swept::Done => None,
            };
            self.at = 0;
            self.begin();
        }
        Ok(true)
    }

    fn begin(&mut self) {
        self.extent = self.item().map_or(0, |item| item.extents.start);
    }

    fn item(&self) -> Option<&Item> {
        self.window.items.get(self.at)
    }

    /// Goes to the next part of the current item; whether there is one.
    fn next_part(&mut self, device: &mut dyn BlockDevice) -> Result<bool, VolumeFault> {
        let Some(item) = self.item() else { return Ok(false) };
        let (inode, last) = (item.inode, item.part.last);
        if last {
            return Ok(false);
        }
        self.at += 1;
        self.begin();
        Ok(self.load(device)? && self.item().is_some_and(|item| item.inode == inode && !item.part.first))
    }

    /// Passes over what is left of the current item.
    fn leave(&mut self, device: &mut dyn BlockDevice, inode: u64) -> Result<(), VolumeFault> {
        while self.next_part(device)? {}
        // A part that is missing has led to the next item already.
        if self.item().is_some_and(|item| item.inode == inode && item.part.last) {
            self.at += 1;
            self.begin();
        }
        Ok(())
    }

    /// The current item's next extent with all that follow on it, from later parts too.
    fn run(&mut self, device: &mut dyn BlockDevice) -> Result<Option<Extent>, VolumeFault> {
        let mut run: Option<Extent> = None;
        loop {
            let Some(item) = self.item() else { return Ok(run) };
            if self.extent >= item.extents.end {
                if !self.next_part(device)? {
                    return Ok(run);
                }
                continue;
            }
            let Some(next) = self.window.extents.get(self.extent as usize).copied() else { return Ok(run) };
            match &mut run {
                None => run = Some(next),
                Some(run)
                    if run.state == next.state
                        && run.logical + run.len == next.logical
                        && (next.state == ExtentState::Opaque || run.physical + run.len == next.physical) =>
                {
                    run.len += next.len;
                }
                Some(_) => return Ok(run),
            }
            self.extent += 1;
        }
    }

    /// Sum of the hashes of the current item's names, and their count, from all parts.
    fn names(&mut self, device: &mut dyn BlockDevice) -> Result<(u128, u64), VolumeFault> {
        let (mut sum, mut count) = (0u128, 0);
        loop {
            let Some(item) = self.item() else { return Ok((sum, count)) };
            for name in &self.window.names[item.names.start as usize..item.names.end as usize] {
                sum = sum.wrapping_add(hash(self.window.get(&name.name), name.inode));
                count += 1;
            }
            if !self.next_part(device)? {
                return Ok((sum, count));
            }
        }
    }

    /// The names of a directory, at most [`NAMES_MAX`]; `None` when there are more.
    fn name_set(&mut self, device: &mut dyn BlockDevice, inode: u64) -> Result<Option<Names>, VolumeFault> {
        let (mut set, mut window, mut within) = (BTreeSet::new(), Window::default(), 0);
        loop {
            let swept = self.volume.item(device, inode, within, &mut window)?;
            set.extend(window.names.iter().map(|name| (window.get(&name.name).to_vec(), name.inode)));
            match swept {
                _ if set.len() > NAMES_MAX => return Ok(None),
                Swept::More(next) => within = next.within,
                Swept::Done => return Ok(Some(set)),
            }
        }
    }

    fn bytes(&self, payload: &Payload) -> Option<&[u8]> {
        match payload {
            Payload::None => None,
            Payload::Target(range) | Payload::Inline(range) => Some(self.window.get(range)),
        }
    }
}

struct Work<'v, 'a> {
    raw: Side<'v>,
    mounted: Side<'v>,
    device: &'a mut dyn BlockDevice,
    each: &'a mut dyn FnMut(Difference),
    sums: Verified,
    of_item: usize,
    chunks: (Vec<u8>, Vec<u8>),
}

fn shown(bytes: &[u8]) -> String {
    match bytes.get(..SHOWN_BYTES_MAX) {
        Some(head) if bytes.len() > SHOWN_BYTES_MAX => {
            format!("{} ... ({} bytes)", head.escape_ascii(), bytes.len())
        }
        _ => bytes.escape_ascii().to_string(),
    }
}

fn shown_extent(extent: Option<Extent>) -> String {
    match extent {
        None => "no further extent".to_owned(),
        Some(Extent { logical, physical, len, state }) => {
            let state = match state {
                ExtentState::Data => format!("data at device byte {physical}"),
                ExtentState::Unwritten => format!("unwritten at device byte {physical}"),
                ExtentState::Opaque => "data without an address".to_owned(),
            };
            format!("{logical}..{} {state}", logical + len)
        }
    }
}

/// Whether two extents are equal in what both readers know.
fn agree(raw: Option<Extent>, mounted: Option<Extent>) -> bool {
    match (raw, mounted) {
        (Some(raw), Some(mounted)) if mounted.state == ExtentState::Opaque => {
            (raw.logical, raw.len) == (mounted.logical, mounted.len) && raw.state != ExtentState::Unwritten
        }
        (raw, mounted) => raw == mounted,
    }
}

impl Work<'_, '_> {
    /// Compares the next item; whether there was one.
    fn next(&mut self) -> Result<bool, VolumeFault> {
        self.raw.load(self.device)?;
        self.mounted.load(self.device)?;
        let (raw, mounted) = (self.raw.item(), self.mounted.item());
        let Some(inode) = raw.iter().chain(&mounted).map(|item| item.inode).min() else { return Ok(false) };
        let (has_raw, has_mounted) =
            (raw.is_some_and(|i| i.inode == inode), mounted.is_some_and(|i| i.inode == inode));
        self.sums.items += 1;
        self.of_item = 0;
        match (has_raw, has_mounted) {
            (true, true) => self.item(inode)?,
            (true, false) => self.differs(inode, "item", "there", "missing"),
            (false, _) => self.differs(inode, "item", "missing", "there"),
        }
        self.sums.items_different += u64::from(self.of_item > 0);
        if has_raw {
            self.raw.leave(self.device, inode)?;
        }
        if has_mounted {
            self.mounted.leave(self.device, inode)?;
        }
        Ok(true)
    }

    fn differs(
        &mut self,
        inode: u64,
        field: &'static str,
        raw: impl Into<String>,
        mounted: impl Into<String>,
    ) {
        self.sums.differences += 1;
        self.of_item += 1;
        if self.of_item <= ITEM_DIFFERENCES_MAX {
            (self.each)(Difference { inode, field, raw: raw.into(), mounted: mounted.into() });
        }
    }

    fn same<T: PartialEq + Debug>(&mut self, inode: u64, field: &'static str, raw: &T, mounted: &T) {
        if raw != mounted {
            self.differs(inode, field, format!("{raw:?}"), format!("{mounted:?}"));
        }
    }

    fn item(&mut self, inode: u64) -> Result<(), VolumeFault> {
        let (Some(raw), Some(mounted)) = (self.raw.item().cloned(), self.mounted.item().cloned()) else {
            return Ok(());
        };
        self.attributes(&raw, &mounted);
        self.xattrs(&raw, &mounted);
        let text = |item: &Item| item.fault.as_ref().map_or("none".to_owned(), ToString::to_string);
        match (&raw.fault, &mounted.fault) {
            (None, None) => {}
            // Both refuse its contents: there is nothing to compare.
            (Some(a), Some(b)) if a.kind == ItemFaultKind::Refused && b.kind == a.kind => return Ok(()),
            (Some(_), Some(_)) => {}
            _ => self.differs(inode, "fault", text(&raw), text(&mounted)),
        }
        match raw.kind {
            ItemKind::File | ItemKind::Symlink | ItemKind::Image => self.contents(&raw, &mounted),
            ItemKind::Directory => self.names(inode),
            _ => Ok(()),
        }
    }

    fn attributes(&mut self, raw: &Item, mounted: &Item) {
        let inode = raw.inode;
        self.same(inode, "type", &raw.kind, &mounted.kind);
        self.same(inode, "generation", &raw.generation, &mounted.generation);
        if raw.mode != mounted.mode {
            self.differs(inode, "mode", format!("{:04o}", raw.mode), format!("{:04o}", mounted.mode));
        }
        self.same(inode, "uid", &raw.uid, &mounted.uid);
        self.same(inode, "gid", &raw.gid, &mounted.gid);
        self.same(inode, "links", &raw.links, &mounted.links);
        self.same(inode, "device number", &raw.rdev, &mounted.rdev);
        self.same(inode, "size", &raw.size, &mounted.size);
        let time = |t: super::Timestamp| format!("{}.{:09}", t.secs, t.nanos);
        for (field, raw, mounted) in [
            ("atime", Some(raw.atime), Some(mounted.atime)),
            ("mtime", Some(raw.mtime), Some(mounted.mtime)),
            ("ctime", Some(raw.ctime), Some(mounted.ctime)),
            ("btime", raw.btime, mounted.btime),
        ] {
            if raw != mounted {
                let text = |t: Option<_>| t.map_or("none".to_owned(), time);
                self.differs(inode, field, text(raw), text(mounted));
            }
        }
        let opened = matches!(raw.kind, ItemKind::File | ItemKind::Directory);
        let known = if opened { u32::MAX } else { FLAGS_BY_STATX };
        if (raw.flags ^ mounted.flags) & known != 0 {
            self.differs(inode, "flags", format!("{:#x}", raw.flags), format!("{:#x}", mounted.flags));
        }
        if opened {
            self.same(inode, "project id", &raw.project, &mounted.project);
            self.same(inode, "hints", &raw.hints, &mounted.hints);
        }
        if raw.kind == ItemKind::Directory && mounted.kind == ItemKind::Directory {
            self.same(inode, "parent", &raw.parent, &mounted.parent);
        }
    }

    fn xattrs(&mut self, raw: &Item, mounted: &Item) {
        let list = |side: &Side<'_>, item: &Item| -> Vec<(Vec<u8>, Vec<u8>)> {
            let range = item.xattrs.start as usize..item.xattrs.end as usize;
            let pair =
                |x: &super::Xattr| (side.window.get(&x.name).to_vec(), side.window.get(&x.value).to_vec());
            side.window.xattrs[range].iter().map(pair).collect()
        };
        let (here, there) = (list(&self.raw, raw), list(&self.mounted, mounted));
        let find = |all: &[(Vec<u8>, Vec<u8>)], name: &[u8]| {
            all.iter().find(|(n, _)| n == name).map(|(n, v)| format!("{}={}", shown(n), shown(v)))
        };
        let names: BTreeSet<&[u8]> = here.iter().chain(&there).map(|(name, _)| name.as_slice()).collect();
        for name in names {
            let same = here.iter().find(|(n, _)| n == name) == there.iter().find(|(n, _)| n == name);
            if !same {
                let text = |all: &[_]| find(all, name).unwrap_or_else(|| format!("no {}", shown(name)));
                self.differs(raw.inode, "attribute", text(&here), text(&there));
            }
        }
    }

    fn names(&mut self, inode: u64) -> Result<(), VolumeFault> {
        let here = self.raw.names(self.device)?;
        let there = self.mounted.names(self.device)?;
        if here == there {
            return Ok(());
        }
        let sets = (self.raw.name_set(self.device, inode)?, self.mounted.name_set(self.device, inode)?);
        let (Some(a), Some(b)) = sets else {
            self.differs(inode, "names", format!("{} names", here.1), format!("{} names", there.1));
            return Ok(());
        };
        for (name, child) in a.symmetric_difference(&b) {
            let text = |set: &Names| {
                let same_name = set.range((name.clone(), 0)..=(name.clone(), u64::MAX)).next();
                same_name.map_or(format!("no {}", shown(name)), |(n, i)| format!("{} is inode {i}", shown(n)))
            };
            // A name that leads elsewhere is in both sets: once is enough.
            if a.contains(&(name.clone(), *child)) || text(&a).starts_with("no ") {
                self.differs(inode, "name", text(&a), text(&b));
            }
        }
        if a == b {
            self.differs(inode, "names", format!("{} names", here.1), format!("{} names", there.1));
        }
        Ok(())
    }

    /// Extents and bytes.
    fn contents(&mut self, raw: &Item, mounted: &Item) -> Result<(), VolumeFault> {
        let inode = raw.inode;
        let target = |payload: &Payload| matches!(payload, Payload::Target(_));
        if let Some(bytes) = self.raw.bytes(&raw.payload).map(<[u8]>::to_vec) {
            let theirs = self.mounted.bytes(&mounted.payload).map(<[u8]>::to_vec);
            match theirs {
                Some(theirs) if theirs == bytes && target(&raw.payload) == target(&mounted.payload) => {}
                Some(theirs) => self.differs(inode, "contents", shown(&bytes), shown(&theirs)),
                // The kernel shows them as an extent.
                None => self.compare_bytes(inode, 0, &bytes),
            }
            self.sums.bytes += bytes.len() as u64;
            return Ok(());
        }
        if mounted.payload != Payload::None && raw.fault.is_none() {
            self.differs(inode, "contents", "in extents", "in the inode");
            return Ok(());
        }
        let (mut extents_differ, mut bytes_differ) = (false, false);
        loop {
            let ours = self.raw.run(self.device)?;
            let theirs = self.mounted.run(self.device)?;
            if !agree(ours, theirs) && !extents_differ {
                extents_differ = true;
                self.differs(inode, "extents", shown_extent(ours), shown_extent(theirs));
            }
            if let Some(run) = ours.filter(|run| run.state == ExtentState::Data && !bytes_differ) {
                bytes_differ = !self.run_bytes(inode, &run, raw.size);
            }
            if ours.is_none() && theirs.is_none() {
                return Ok(());
            }
        }
    }

    /// Compares bytes that the raw reader has in memory.
    fn compare_bytes(&mut self, inode: u64, offset: u64, ours: &[u8]) {
        let mut theirs = std::mem::take(&mut self.chunks.1);
        for (at, ours) in (offset..).step_by(CHUNK_BYTES).zip(ours.chunks(CHUNK_BYTES)) {
            let theirs = &mut theirs[..ours.len()];
            let read = self.mounted.volume.read_at(self.device, inode, at, theirs);
            match read {
                Err(fault) => self.differs(inode, "contents", "readable", fault.to_string()),
                Ok(()) if theirs == ours => continue,
                Ok(()) => self.first_difference(inode, at, ours, theirs),
            }
            break;
        }
        self.chunks.1 = theirs;
    }

    fn first_difference(&mut self, inode: u64, at: u64, ours: &[u8], theirs: &[u8]) {
        let place = ours.iter().zip(theirs).position(|(a, b)| a != b).unwrap_or(0);
        let text = |bytes: &[u8]| format!("byte {:#04x} at {}", bytes[place], at + place as u64);
        self.differs(inode, "contents", text(ours), text(theirs));
    }

    /// Compares the bytes of one run of data; whether they are the same.
    fn run_bytes(&mut self, inode: u64, run: &Extent, size: u64) -> bool {
        let end = run.len.min(size.saturating_sub(run.logical));
        let mut done = 0;
        while done < end {
            let len = (end - done).min(CHUNK_BYTES as u64) as usize;
            let (mut ours, mut theirs) = std::mem::take(&mut self.chunks);
            let a = self.device.read_at(run.physical + done, &mut ours[..len]);
            let b = self.mounted.volume.read_at(self.device, inode, run.logical + done, &mut theirs[..len]);
            let before = self.of_item;
            match (a, b) {
                (Ok(()), Ok(())) if ours[..len] == theirs[..len] => {}
                (Ok(()), Ok(())) => {
                    self.first_difference(inode, run.logical + done, &ours[..len], &theirs[..len]);
                }
                (Err(a), Err(b)) if a.kind == b.kind => {}
                (a, b) => {
                    let text = |r: Result<(), _>| {
                        r.err().map_or("readable".to_owned(), |f: crate::block::Fault| f.to_string())
                    };
                    self.differs(inode, "contents", text(a), text(b));
                }
            }
            self.chunks = (ours, theirs);
            if self.of_item > before {
                return false;
            }
            done += len as u64;
            self.sums.bytes += len as u64;
        }
        true
    }
}

#[cfg(test)]
#[path = "verify_test.rs"]
mod tests;
