//! From an inode to an item of the window.
//!
//! Decides what is an item at all: inodes in use that have links, without those that the file system keeps for itself
//! (realtime bitmap and summary, quotas). An inode without links exists only while a process has it open.
//!
//! An item that does not fit what is left of the window is taken back and starts the next one; only an item that does not
//! fit a whole window comes in parts.
//!
//! Source: ours; `map.rs`, `dir.rs`, `xattr.rs`, `symlink.rs` for the formats.

use super::chunks::Says;
use super::dir;
use super::inode::{self, Format, Inode};
use super::inuse::InUse;
use super::map::{Io, Map, Owner, Run, damaged, map};
use super::{symlink, xattr};
use crate::block::Fault;
use crate::volume::part::{self, Mark, Step};
use crate::volume::{
    Extent, ExtentState, Item, ItemFault, ItemFaultKind, ItemKind, Payload, WINDOW_BYTES_MAX,
    WINDOW_EXTENTS_MAX, WINDOW_NAMES_MAX, Window,
};

/// Runs of a directory that are mapped at a time.
const DIRECTORY_RUNS: usize = 512;
/// Blocks and nodes of a directory that one call reads before it pauses, however few names they hold.
const DIRECTORY_BLOCKS_PER_CALL: u64 = 4096;

/// Where an item in parts stopped: the records of its fork up to there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    inode: u64,
    within: u64,
    records: Option<u64>,
}

/// What items are made with.
pub(super) struct Maker<'a, 'b> {
    pub(super) io: &'a mut Io<'b>,
    pub(super) inuse: &'a mut InUse,
    pub(super) map: &'a mut Map,
    pub(super) spent: &'a mut Spent,
}

/// An inode in hand: decoded, as bytes, and its place on the device.
struct Found<'a> {
    inode: &'a Inode,
    raw: &'a [u8],
    at: u64,
}

impl Found<'_> {
    fn data(&self) -> Owner<'_> {
        let merge = self.inode.kind != Some(ItemKind::Directory);
        Owner { inode: self.inode.number, at: self.at, raw: self.raw, fork: self.inode.data, merge }
    }
}

impl Maker<'_, '_> {
    /// Puts the item `number` into `window`, from logical byte `within` on. `raw` is its inode, at device byte `at`; `is_free`
    /// its state in the inode tree.
    pub(super) fn put(
        &mut self,
        number: u64,
        raw: &[u8],
        at: u64,
        is_free: bool,
        within: u64,
        window: &mut Window,
    ) -> Step {
        let sb = self.io.sb;
        if sb.is_internal(number) {
            return Step::Done;
        }
        if is_free {
            // A free inode has mode 0; whatever else is there counts only when it is what was written.
            let live = inode::mode_of(raw) != 0 && inode::links_of(raw) != 0;
            if live && inode::verify(sb, number, raw).is_ok() {
                let rule = "inode is in use and the inode tree says that it is free";
                return self.put_broken(number, raw, damaged(at, rule), window);
            }
            if number == sb.root {
                // Without it nothing has a path, so its absence is not silent.
                let rule = "the inode tree says that the root inode is free";
                return self.put_broken(number, raw, damaged(at, rule), window);
            }
            return Step::Done;
        }
        if let Err(rule) = inode::verify(sb, number, raw) {
            return self.put_broken(number, raw, damaged(at, rule), window);
        }
        if inode::mode_of(raw) != 0 && inode::links_of(raw) == 0 {
            // A name may lead here, and its directory cannot know.
            if number == sb.root || !self.inuse.may_be_unlinked(self.io, number) {
                let rule = "inode is in use and has no links";
                return self.put_broken(number, raw, damaged(at, rule), window);
            }
            return Step::Done;
        }
        let inode = inode::parse(sb, number, raw);
        if let Some(rule) = inode.rule {
            return self.put_broken(number, raw, damaged(at, rule), window);
        }
        if number == sb.root && inode.kind != Some(ItemKind::Directory) {
            return self.put_broken(number, raw, damaged(at, "root inode is no directory"), window);
        }
        let found = Found { inode: &inode, raw, at };
        let mark = Mark::of(window);
        let mut item = bare(&inode, window);
        item.part.first = within == 0;
        item.part.from = within;
        if within == 0 {
            item.fault = xattr::collect(self.io, &inode, raw, at, self.map, window);
            item.xattrs.end = window.xattrs.len() as u32;
        }
        let alone = window.items.is_empty();
        let step = self.contents(&found, within, alone, &mut item, window);
        part::settle_parent(&mut item, sb.root, at);
        mark.finish(step, item, window)
    }

    /// An item of which only the number is known: its inode could not be read.
    pub(super) fn put_unreadable(
        &mut self,
        number: u64,
        fault: Fault,
        is_free: bool,
        window: &mut Window,
    ) -> Step {
        if is_free && number != self.io.sb.root || self.io.sb.is_internal(number) {
            return Step::Done;
        }
        let raw = vec![0; self.io.sb.inode_bytes()];
        let fault =
            ItemFault { kind: ItemFaultKind::Media, device_offset: fault.device_offset, rule: "inode chunk" };
        self.put_broken(number, &raw, fault, window)
    }

    /// An item whose inode is not valid: its attributes as they are, and nothing else.
    fn put_broken(&mut self, number: u64, raw: &[u8], fault: ItemFault, window: &mut Window) -> Step {
        let inode = inode::parse(self.io.sb, number, raw);
        let mut item = bare(&inode, window);
        item.fault = Some(fault);
        if number == self.io.sb.root {
            // Whatever its inode says: all paths begin here.
            (item.kind, item.size, item.parent) = (ItemKind::Directory, 0, number);
        }
        window.items.push(item);
        Step::Done
    }

    /// Drops the names from `first` on that lead to no inode. Returns the rule that they break.
    fn drop_nowhere(&mut self, first: usize, window: &mut Window) -> Option<&'static str> {
        let mut kept = first;
        for k in first..window.names.len() {
            if self.inuse.says(self.io, window.names[k].inode) != Says::Free {
                window.names.swap(kept, k);
                kept += 1;
            }
        }
        let dropped = kept < window.names.len();
        window.names.truncate(kept);
        dropped.then_some("directory entry names an inode that is free")
    }

    /// The rule that a directory breaks whose parent (0: unknown) is no item: nothing leads to it.
    fn orphaned(&mut self, parent: u64) -> Option<&'static str> {
        let is_free = parent != 0 && self.inuse.says(self.io, parent) == Says::Free;
        is_free.then_some("directory's .. names an inode that is free")
    }

    fn contents(
        &mut self,
        found: &Found<'_>,
        within: u64,
        alone: bool,
        item: &mut Item,
        window: &mut Window,
    ) -> Step {
        match item.kind {
            ItemKind::File if found.inode.is_realtime && found.inode.data.extents > 0 => {
                let rule = "realtime file; its contents are on the realtime device";
                let kind = ItemFaultKind::Refused;
                item.fault.get_or_insert(ItemFault { kind, device_offset: found.at, rule });
                Step::Done
            }
            ItemKind::File => self.extents(found, within, item, window),
            ItemKind::Symlink => {
                let mut target = Vec::new();
                match symlink::target(self.io, found.inode, &found.data(), self.map, &mut target) {
                    Ok(()) => item.payload = Payload::Target(window.put_bytes(&target)),
                    Err(fault) => {
                        item.fault.get_or_insert(fault);
                    }
                }
                Step::Done
            }
            ItemKind::Directory if found.inode.data.format == Format::Local => {
                let bytes = found.inode.data.bytes(found.raw);
                let bytes = bytes.get(..found.inode.size as usize).unwrap_or_default();
                let first = window.names.len();
                let (parent, broken) = dir::short(self.io.sb, bytes, window);
                item.parent = parent;
                let nowhere = self.drop_nowhere(first, window);
                if let Some(rule) = broken.or(nowhere).or_else(|| self.orphaned(parent)) {
                    item.fault.get_or_insert(damaged(found.at, rule));
                }
                Step::Done
            }
            ItemKind::Directory => Directory::new(self, found, within, alone).walk(item, window),
            _ => Step::Done,
        }
    }

    /// Records of the fork before logical byte `within`, when that is where the item's last part ended.
    fn records_before(&self, inode: &Inode, within: u64) -> Option<u64> {
        match *self.spent {
            _ if within == 0 => Some(0),
            Spent { inode: number, within: place, records } if number == inode.number && place == within => {
                records
            }
            _ => None,
        }
    }

    /// A file's extents.
    fn extents(&mut self, found: &Found<'_>, within: u64, item: &mut Item, window: &mut Window) -> Step {
        let room = WINDOW_EXTENTS_MAX.saturating_sub(window.extents.len());
        let bits = self.io.sb.block_bits;
        let records = self.records_before(found.inode, within);
        map(self.io, &found.data(), within >> bits, room, records, self.map);
        item.fault = item.fault.take().or(self.map.fault.take());
        window.extents.extend(self.map.runs.iter().map(|run| Extent {
            logical: run.logical << bits,
            physical: run.physical << bits,
            len: run.len << bits,
            state: if run.unwritten { ExtentState::Unwritten } else { ExtentState::Data },
        }));
        match self.map.next {
            Some(next) => {
                let within = next << bits;
                *self.spent = Spent { inode: found.inode.number, within, records: self.map.records };
                Step::More(within)
            }
            None => Step::Done,
        }
    }
}

/// The item without contents and attributes.
fn bare(inode: &Inode, window: &Window) -> Item {
    Item {
        generation: inode.generation,
        kind: inode.kind.unwrap_or(ItemKind::File),
        mode: inode.mode,
        uid: inode.uid,
        gid: inode.gid,
        links: inode.links,
        rdev: inode.rdev,
        size: if inode.kind == Some(ItemKind::Directory) { 0 } else { inode.size },
        atime: inode.atime,
        mtime: inode.mtime,
        ctime: inode.ctime,
        btime: Some(inode.btime),
        flags: inode.flags_shown,
        project: inode.project,
        hints: inode.hints,
        ..part::bare(inode.number, window)
    }
}

/// A directory whose entries are in directory blocks, being walked.
struct Directory<'m, 'f, 'a, 'b> {
    maker: &'m mut Maker<'a, 'b>,
    found: &'f Found<'f>,
    within: u64,
    alone: bool,
    /// The directory block being put together: its first logical and linear block, and its bytes so far.
    logical: u64,
    block: u64,
    bytes: Vec<u8>,
    wanted: Vec<u64>,
    fault: Option<ItemFault>,
}

impl<'m, 'f, 'a, 'b> Directory<'m, 'f, 'a, 'b> {
    fn new(maker: &'m mut Maker<'a, 'b>, found: &'f Found<'f>, within: u64, alone: bool) -> Self {
        Directory {
            maker,
            found,
            within,
            alone,
            logical: 0,
            block: 0,
            bytes: Vec::new(),
            wanted: Vec::new(),
            fault: None,
        }
    }

    /// Notes the first fault.
    fn blame(&mut self, rule: &'static str) {
        self.fault.get_or_insert(damaged(self.found.at, rule));
    }

    /// Walks the data section from `within` on.
    fn walk(mut self, item: &mut Item, window: &mut Window) -> Step {
        let bits = self.maker.io.sb.block_bits;
        let end = dir::DATA_END >> bits;
        let mut next = self.within >> bits;
        let mut records = self.maker.records_before(self.found.inode, self.within);
        let mut work = 0;
        if next == 0 {
            self.fault = item.fault.take();
        } else {
            item.parent = self.parent();
        }
        let mut first_seen = next > 0;
        let step = 'walk: loop {
            map(self.maker.io, &self.found.data(), next, DIRECTORY_RUNS, records, self.maker.map);
            work += 1 + u64::from(self.maker.map.nodes());
            self.fault = self.fault.take().or(self.maker.map.fault.take());
            let runs = std::mem::take(&mut self.maker.map.runs);
            let is_rest = u64::from(self.maker.map.is_rest);
            for (i, run) in runs.iter().enumerate() {
                for k in 0..run.len.min(end.saturating_sub(run.logical)) {
                    let logical = run.logical + k;
                    if self.bytes.is_empty() && self.is_time(work, window) {
                        self.maker.map.runs = runs;
                        // Each run is a record; those that start before this byte are counted.
                        let started = (i as u64 + u64::from(k > 0)).saturating_sub(is_rest);
                        let records = records.map(|records| records + started);
                        let within = logical << bits;
                        *self.maker.spent = Spent { inode: self.found.inode.number, within, records };
                        break 'walk if self.alone { Step::More(within) } else { Step::Full };
                    }
                    work += 1;
                    self.read_ahead(&runs, i, run.physical + k);
                    first_seen |= logical == 0;
                    self.piece(logical, run.physical + k, run.unwritten, item, window);
                }
            }
            self.maker.map.runs = runs;
            records = self.maker.map.records;
            match self.maker.map.next {
                Some(more) if more < end => next = more,
                Some(_) | None => {
                    if !self.bytes.is_empty() {
                        self.blame("directory block with a hole");
                    }
                    break Step::Done;
                }
            }
        };
        if step == Step::Done && !first_seen {
            self.blame("directory without its first block");
        }
        item.fault = item.fault.take().or(self.fault);
        step
    }

    /// Whether the next directory block is for another call.
    fn is_time(&self, work: u64, window: &Window) -> bool {
        let sb = self.maker.io.sb;
        let bytes = sb.block_bytes() << sb.dir_bits;
        window.names.len() + bytes / dir::ENTRY_BYTES_MIN > WINDOW_NAMES_MAX
            || window.bytes.len() + bytes > WINDOW_BYTES_MAX
            || work >= DIRECTORY_BLOCKS_PER_CALL
    }

    /// Before `block` of run `i` is loaded, reads those that follow with it.
    fn read_ahead(&mut self, runs: &[Run], i: usize, block: u64) {
        if !self.maker.io.cache.has(block) {
            let rest = block..runs[i].physical + runs[i].len;
            let later = runs[i + 1..].iter().flat_map(|run| run.physical..run.physical + run.len);
            self.maker.io.read_ahead(rest.chain(later), &mut self.wanted);
        }
    }

    /// Adds a block to the directory block being put together, and delivers that when it is whole.
    fn piece(&mut self, logical: u64, physical: u64, unwritten: bool, item: &mut Item, window: &mut Window) {
        let sb = self.maker.io.sb;
        let blocks = 1u64 << sb.dir_bits;
        let have = (self.bytes.len() >> sb.block_bits) as u64;
        if have > 0 && logical != self.logical + have {
            self.blame("directory block with a hole");
            self.bytes.clear();
        }
        if self.bytes.is_empty() {
            if !logical.is_multiple_of(blocks) {
                return self.blame("directory block with a hole");
            }
            (self.logical, self.block) = (logical, physical);
        }
        if unwritten {
            self.blame("directory block that was never written");
        }
        match self.maker.io.load(physical, "directory block") {
            Ok(bytes) => self.bytes.extend_from_slice(bytes),
            Err(fault) => {
                self.fault.get_or_insert(fault);
                // Stands for what cannot be read, so that the block's other pieces find their place.
                self.bytes.resize(self.bytes.len() + sb.block_bytes(), 0);
            }
        }
        if self.bytes.len() == sb.block_bytes() << sb.dir_bits {
            let bytes = std::mem::take(&mut self.bytes);
            self.whole(&bytes, item, window);
            self.bytes = bytes;
            self.bytes.clear();
        }
    }

    /// Delivers a directory block.
    fn whole(&mut self, bytes: &[u8], item: &mut Item, window: &mut Window) {
        let sb = self.maker.io.sb;
        let at = sb.offset(self.block);
        let inode = self.found.inode;
        let only = self.logical == 0 && inode.size == bytes.len() as u64;
        if let Err(rule) = dir::verify(sb, inode.number, self.block, only, bytes) {
            self.fault.get_or_insert(damaged(at, rule));
            return;
        }
        if self.logical == 0 {
            match dir::parent(sb, inode.number, bytes) {
                Ok(parent) => {
                    item.parent = parent;
                    if let Some(rule) = self.maker.orphaned(parent) {
                        self.fault.get_or_insert(damaged(at, rule));
                    }
                }
                Err(rule) => {
                    self.fault.get_or_insert(damaged(at, rule));
                }
            }
        }
        let first = window.names.len();
        let broken = dir::entries(sb, bytes, window);
        if let Some(rule) = broken.or(self.maker.drop_nowhere(first, window)) {
            self.fault.get_or_insert(damaged(at, rule));
        }
    }

    /// The parent of a directory of which a later part is being delivered; 0 if its first block does not have
    /// it.
    fn parent(&mut self) -> u64 {
        let sb = self.maker.io.sb;
        map(self.maker.io, &self.found.data(), 0, 1 << sb.dir_bits, None, self.maker.map);
        let mut bytes = Vec::new();
        let mut first = None;
        for run in &self.maker.map.runs {
            for k in 0..run.len {
                let whole = bytes.len() == sb.block_bytes() << sb.dir_bits;
                if whole || run.logical + k != (bytes.len() >> sb.block_bits) as u64 {
                    break;
                }
                first = first.or(Some(run.physical));
                match self.maker.io.load(run.physical + k, "directory block") {
                    Ok(block) => bytes.extend_from_slice(block),
                    Err(_) => return 0,
                }
            }
        }
        let inode = self.found.inode.number;
        match first {
            Some(first) if dir::verify(sb, inode, first, false, &bytes).is_ok() => {
                dir::parent(sb, inode, &bytes).unwrap_or(0)
            }
            _ => 0,
        }
    }
}

// An empty window takes one directory block of any size, so every call gets on.
const _: () =
    assert!(WINDOW_NAMES_MAX > (64 << 10) / dir::ENTRY_BYTES_MIN && WINDOW_BYTES_MAX > 2 * (64 << 10));
