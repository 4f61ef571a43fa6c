//! From an inode to an item of the window.
//!
//! Decides what is an item at all: ordinary numbers (the root, and from `first_ino` on without quota, journal
//! and orphan files) that have links. An inode without links is free, or an orphan that exists only while a
//! process has it open; if it can be neither, it is delivered with a fault, for the names that lead to it. An
//! inode on the orphan list that still has links is a file whose truncation was under way; it has a name and
//! is delivered. Attribute inodes hold values of other items and are not items.
//!
//! An item that does not fit what is left of the window is taken back and starts the next one; only an item that does not
//! fit a whole window comes in parts.
//!
//! Source: ours; `map.rs`, `dir.rs`, `xattr.rs` for the formats.

use super::dir;
use super::group::Groups;
use super::inode::{self, BLOCK_FIELD_BYTES, Inode, flag};
use super::inuse::InUse;
use super::map::{Io, Map, damaged, map};
use super::superblock::ROOT;
use super::xattr::{self, FindInode};
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

/// What an item in parts has cost so far; see [`Map::spent`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    inode: u32,
    within: u64,
    blocks: u64,
}

/// What items are made with.
pub(super) struct Maker<'a, 'b> {
    pub(super) io: &'a mut Io<'b>,
    pub(super) groups: &'a mut Groups,
    pub(super) inuse: &'a mut InUse,
    pub(super) map: &'a mut Map,
    pub(super) spent: &'a mut Spent,
}

/// Finds attribute inodes through the cache.
pub(super) struct Finder<'a>(pub(super) &'a mut Groups);

impl FindInode for Finder<'_> {
    fn find(&mut self, io: &mut Io<'_>, number: u32, raw: &mut Vec<u8>) -> Result<u64, ItemFault> {
        let missing = damaged(0, "inode number does not exist");
        let sb = io.sb;
        if number == 0 || number > sb.inodes_count {
            return Err(missing);
        }
        let group = self
            .0
            .get(sb, io.device, (number - 1) / sb.inodes_per_group)
            .map_err(|_| damaged(0, "inode in a group whose descriptor cannot be read"))?;
        if (number - 1) % sb.inodes_per_group >= group.inodes_touched {
            return Err(missing);
        }
        let (block, at) = xattr::place(sb, group.inode_table, number);
        let bytes = io.load(block, "inode table")?;
        raw.clear();
        raw.extend_from_slice(bytes.get(at..at + sb.inode_bytes).unwrap_or_default());
        Ok(sb.offset(block) + at as u64)
    }
}

/// The blocks of the journal, if its inode is valid and has few runs (one or two, as a rule).
pub(super) fn journal(io: &mut Io<'_>, groups: &mut Groups) -> Vec<std::ops::Range<u64>> {
    const RUNS_MAX: usize = 4096;
    let mut raw = Vec::new();
    let number = io.sb.journal_inode();
    let found = Finder(groups).find(io, number, &mut raw);
    let Ok(at) = found else { return Vec::new() };
    if inode::links_of(&raw) == 0 || !inode::checksum_holds(io.sb, number, &raw) {
        return Vec::new();
    }
    let inode = inode::parse(io.sb, number, &raw);
    let mut runs = Map::default();
    map(io, &inode, at, 0, RUNS_MAX, 0, &mut runs);
    runs.runs.iter().map(|run| run.physical..run.physical + run.len).collect()
}

impl Maker<'_, '_> {
    /// Puts the item `number` into `window`, from logical byte `within` on. `raw` is its inode, at device byte `at`.
    pub(super) fn put(&mut self, number: u32, raw: &[u8], at: u64, within: u64, window: &mut Window) -> Step {
        let sb = self.io.sb;
        if number == ROOT && !is_live_directory(raw) {
            // Without it nothing has a path, so its absence is not silent.
            return self.put_broken(number, raw, damaged(at, "root inode is no directory"), window);
        }
        if !sb.is_ordinary(number) {
            return Step::Done;
        }
        let is_blank = raw.iter().all(|&b| b == 0);
        if !is_blank && !inode::checksum_holds(sb, number, raw) {
            if number != ROOT && self.is_free(number) {
                return Step::Done;
            }
            return self.put_broken(number, raw, damaged(at, "inode checksum does not match"), window);
        }
        if is_blank || inode::links_of(raw) == 0 {
            // A name may lead here, and its directory cannot know.
            let is_lost = sb.links_settled() && self.inuse.is_taken(self.io, self.groups, number);
            return match is_lost {
                true => self.put_broken(number, raw, damaged(at, "inode is in use and has no links"), window),
                false => Step::Done,
            };
        }
        if inode::flags_of(raw) & flag::EA_INODE != 0 && sb.has_ea_inode() {
            return Step::Done;
        }
        let inode = inode::parse(sb, number, raw);
        let mark = Mark::of(window);
        let mut item = bare(&inode, at, window);
        item.part.first = within == 0;
        item.part.from = within;
        if within == 0 {
            let fault = xattr::collect(self.io, &mut Finder(self.groups), &inode, raw, at, window);
            item.fault = item.fault.or(fault);
            item.xattrs.end = window.xattrs.len() as u32;
        }
        let alone = window.items.is_empty();
        let step = self.contents(&inode, raw, at, within, alone, &mut item, window);
        part::settle_parent(&mut item, u64::from(ROOT), at);
        mark.finish(step, item, window)
    }

    /// An item of which only the number is known: its inode could not be read. Skipped if it is free by the
    /// bitmap.
    pub(super) fn put_unreadable(&mut self, number: u32, fault: Fault, window: &mut Window) -> Step {
        if !self.io.sb.is_ordinary(number) || number != ROOT && self.is_free(number) {
            return Step::Done;
        }
        let raw = vec![0; self.io.sb.inode_bytes];
        let fault =
            ItemFault { kind: ItemFaultKind::Media, device_offset: fault.device_offset, rule: "inode table" };
        self.put_broken(number, &raw, fault, window)
    }

    /// An item whose inode is not valid: its attributes as they are, and nothing else.
    fn put_broken(&mut self, number: u32, raw: &[u8], fault: ItemFault, window: &mut Window) -> Step {
        let inode = inode::parse(self.io.sb, number, raw);
        let mut item = bare(&inode, 0, window);
        item.fault = Some(fault);
        if number == ROOT {
            // Whatever its inode says: all paths begin here.
            (item.kind, item.size, item.parent) = (ItemKind::Directory, 0, u64::from(ROOT));
        }
        window.items.push(item);
        Step::Done
    }

    /// Whether the inode is free by a valid bitmap.
    fn is_free(&mut self, number: u32) -> bool {
        let sb = self.io.sb;
        let index = (number - 1) % sb.inodes_per_group;
        let Ok(group) = self.groups.get(sb, self.io.device, (number - 1) / sb.inodes_per_group) else {
            return false;
        };
        if group.inode_uninit {
            return true;
        }
        match self.io.load(group.inode_bitmap, "inode bitmap") {
            Ok(bitmap) if group.inode_bitmap_holds(sb, bitmap) => {
                bitmap.get(index as usize / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 0)
            }
            _ => false,
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn contents(
        &mut self,
        inode: &Inode,
        raw: &[u8],
        at: u64,
        within: u64,
        alone: bool,
        item: &mut Item,
        window: &mut Window,
    ) -> Step {
        let Some(kind) = inode.kind else { return Step::Done };
        let has_contents = matches!(kind, ItemKind::File | ItemKind::Directory | ItemKind::Symlink);
        if has_contents && inode.has(flag::ENCRYPT) {
            let rule = "encrypted by fscrypt; only ciphertext is on the device";
            item.fault = Some(ItemFault { kind: ItemFaultKind::Refused, device_offset: at, rule });
            return Step::Done;
        }
        if has_contents && inode.has(flag::INLINE_DATA) && inode.has(flag::EXTENTS) {
            item.fault = Some(damaged(at, "inode has inline data and an extent tree"));
            return Step::Done;
        }
        let fault = match kind {
            ItemKind::File if inode.has(flag::INLINE_DATA) => self.inline(inode, raw, at, item, window),
            ItemKind::File => return self.extents(inode, at, within, item, window),
            ItemKind::Symlink => self.target(inode, raw, at, item, window),
            ItemKind::Directory if inode.has(flag::INLINE_DATA) => {
                self.inline_directory(inode, raw, at, item, window)
            }
            ItemKind::Directory => return self.directory(inode, at, within, alone, item, window),
            _ => None,
        };
        item.fault = item.fault.take().or(fault);
        Step::Done
    }

    /// What the item has cost up to logical byte `within`, when that is where its last part ended.
    fn spent_before(&self, inode: &Inode, within: u64) -> u64 {
        match *self.spent {
            Spent { inode: number, within: place, blocks } if number == inode.number && place == within => {
                blocks
            }
            _ => 0,
        }
    }

    /// A file's extents.
    fn extents(&mut self, inode: &Inode, at: u64, within: u64, item: &mut Item, window: &mut Window) -> Step {
        let room = WINDOW_EXTENTS_MAX.saturating_sub(window.extents.len());
        let spent = self.spent_before(inode, within);
        map(self.io, inode, at, within >> self.io.sb.block_bits, room, spent, self.map);
        item.fault = item.fault.take().or(self.map.fault.take());
        let bits = self.io.sb.block_bits;
        // Behind the end of a verity file is its hash tree, which is neither data nor preallocation.
        let end = match inode.has(flag::VERITY) {
            true => inode.size.div_ceil(1 << bits),
            false => u64::MAX,
        };
        for run in self.map.runs.iter().filter(|run| run.logical < end) {
            window.extents.push(Extent {
                logical: run.logical << bits,
                physical: run.physical << bits,
                len: run.len.min(end - run.logical) << bits,
                state: if run.unwritten { ExtentState::Unwritten } else { ExtentState::Data },
            });
        }
        match self.map.next {
            Some(next) => {
                let within = next << bits;
                *self.spent = Spent { inode: inode.number, within, blocks: self.map.spent };
                Step::More(within)
            }
            None => Step::Done,
        }
    }

    /// Contents in the inode.
    fn inline(
        &mut self,
        inode: &Inode,
        raw: &[u8],
        at: u64,
        item: &mut Item,
        window: &mut Window,
    ) -> Option<ItemFault> {
        match inline_bytes(inode, raw, window) {
            Ok(range) => {
                item.payload = Payload::Inline(range);
                None
            }
            Err(rule) => Some(damaged(at, rule)),
        }
    }

    /// A symlink's target, wherever it is.
    fn target(
        &mut self,
        inode: &Inode,
        raw: &[u8],
        at: u64,
        item: &mut Item,
        window: &mut Window,
    ) -> Option<ItemFault> {
        let sb = self.io.sb;
        let before = window.bytes.len();
        if inode.size == 0 || inode.size >= 4096.min(sb.block_bytes() as u64 + 1) {
            return Some(damaged(at, "symlink target length out of range"));
        }
        let size = inode.size as usize;
        // Without its attribute the flag means nothing to the kernel.
        let inline =
            inode.has(flag::INLINE_DATA) && xattr::inline_data(inode, raw) != Err(xattr::NO_INLINE_DATA);
        let range = if inline {
            match inline_bytes(inode, raw, window) {
                Ok(range) if range.len() == size => range,
                Ok(_) => return Some(damaged(at, "symlink target longer than what the inode holds")),
                Err(rule) => return Some(damaged(at, rule)),
            }
        } else if inode.is_fast_symlink(sb) {
            match inode.block.get(..size) {
                Some(target) if size < BLOCK_FIELD_BYTES => window.put_bytes(target),
                _ => return Some(damaged(at, "symlink target longer than what the inode holds")),
            }
        } else {
            map(self.io, inode, at, 0, 1, 0, self.map);
            if let Some(fault) = self.map.fault.take() {
                return Some(fault);
            }
            let block = match self.map.runs.first() {
                Some(run) if run.logical == 0 && !run.unwritten => run.physical,
                _ => return Some(damaged(at, "symlink target in a hole")),
            };
            match self.io.load(block, "symlink target") {
                Ok(bytes) => window.put_bytes(bytes.get(..size).unwrap_or_default()),
                Err(fault) => return Some(fault),
            }
        };
        if window.get(&range).contains(&0) {
            window.bytes.truncate(before);
            return Some(damaged(at, "symlink target holds a NUL"));
        }
        item.payload = Payload::Target(range);
        None
    }

    fn inline_directory(
        &mut self,
        inode: &Inode,
        raw: &[u8],
        at: u64,
        item: &mut Item,
        window: &mut Window,
    ) -> Option<ItemFault> {
        let sb = self.io.sb;
        let mut rule = match dir::inline_parent(sb, inode) {
            Ok(parent) => {
                item.parent = u64::from(parent);
                self.orphaned(parent)
            }
            Err(broken) => Some(broken),
        };
        let data = xattr::inline_data(inode, raw).unwrap_or_else(|broken| {
            rule = rule.or(Some(broken));
            &[]
        });
        let first = window.names.len();
        let broken = dir::inline_entries(sb, inode, data, window);
        let nowhere = self.drop_nowhere(first, window);
        rule.or(broken).or(nowhere).map(|rule| damaged(at, rule))
    }

    /// A directory's entries, block by block.
    fn directory(
        &mut self,
        inode: &Inode,
        at: u64,
        within: u64,
        alone: bool,
        item: &mut Item,
        window: &mut Window,
    ) -> Step {
        let sb = self.io.sb;
        let block_bytes = sb.block_bytes();
        let blocks = inode.size >> sb.block_bits;
        let mut next = within >> sb.block_bits;
        let before = self.spent_before(inode, within);
        // Only blocks that were read count: those that are mapped and left for the next part will be mapped again.
        let mut work = 0;
        let mut fault = item.fault.take();
        if inode.size == 0 || !inode.size.is_multiple_of(block_bytes as u64) {
            fault = fault.or(Some(damaged(at, "directory size is not a multiple of its blocks")));
        }
        if next > 0 {
            item.parent = self.parent_of(inode, at);
        }
        let mut wanted = Vec::new();
        let step = 'walk: loop {
            map(self.io, inode, at, next, DIRECTORY_RUNS, before + work, self.map);
            work += 1 + u64::from(self.map.nodes());
            fault = fault.or(self.map.fault.take());
            for i in 0..self.map.runs.len() {
                let run = self.map.runs[i];
                if run.logical >= blocks {
                    break;
                }
                if run.logical > next || run.unwritten {
                    fault = fault.or(Some(damaged(at, "directory has a hole")));
                }
                if run.unwritten {
                    next = run.logical + run.len;
                    continue;
                }
                for logical in run.logical..blocks.min(run.logical + run.len) {
                    if window.names.len() + block_bytes / 12 > WINDOW_NAMES_MAX
                        || window.bytes.len() + block_bytes > WINDOW_BYTES_MAX
                        || work >= DIRECTORY_BLOCKS_PER_CALL
                    {
                        break 'walk if alone { Step::More(logical << sb.block_bits) } else { Step::Full };
                    }
                    work += 1;
                    let physical = run.physical + (logical - run.logical);
                    if !self.io.cache.has(physical) {
                        let rest_of_run = physical..run.physical + run.len;
                        let later = self.map.runs[i + 1..].iter();
                        let later = later.flat_map(|run| run.physical..run.physical + run.len);
                        self.io.read_ahead(rest_of_run.chain(later), &mut wanted);
                    }
                    let broken = self.directory_block(inode, logical, physical, item, window);
                    fault = fault.or(broken);
                    next = logical + 1;
                }
            }
            match self.map.next {
                Some(more) if more < blocks => {
                    next = more;
                    if work >= DIRECTORY_BLOCKS_PER_CALL {
                        break if alone { Step::More(next << sb.block_bits) } else { Step::Full };
                    }
                }
                _ => {
                    if next < blocks {
                        fault = fault.or(Some(damaged(at, "directory has a hole")));
                    }
                    break Step::Done;
                }
            }
        };
        if let Step::More(within) = step {
            *self.spent = Spent { inode: inode.number, within, blocks: before + work };
        }
        item.fault = fault;
        step
    }

    fn directory_block(
        &mut self,
        inode: &Inode,
        logical: u64,
        physical: u64,
        item: &mut Item,
        window: &mut Window,
    ) -> Option<ItemFault> {
        let sb = self.io.sb;
        let at = sb.offset(physical);
        let block = match self.io.load(physical, "directory block") {
            Ok(block) => block,
            Err(fault) => return Some(fault),
        };
        if let Err(rule) = dir::verify(sb, inode, logical, block) {
            return Some(damaged(at, rule));
        }
        let parent = (logical == 0).then(|| dir::parent(sb, block));
        let first = window.names.len();
        let broken = dir::entries(sb, block, window);
        let rule = match parent {
            Some(Ok(parent)) => {
                item.parent = u64::from(parent);
                self.orphaned(parent)
            }
            Some(Err(broken)) => Some(broken),
            None => None,
        };
        let nowhere = self.drop_nowhere(first, window);
        rule.or(broken).or(nowhere).map(|rule| damaged(at, rule))
    }

    /// Drops the names from `first` on that lead to no item. Returns the rule that they break.
    fn drop_nowhere(&mut self, first: usize, window: &mut Window) -> Option<&'static str> {
        let mut kept = first;
        let mut rule = None;
        for k in first..window.names.len() {
            match self.leads_nowhere(window.names[k].inode) {
                Some(broken) => rule = rule.or(Some(broken)),
                None => {
                    window.names.swap(kept, k);
                    kept += 1;
                }
            }
        }
        window.names.truncate(kept);
        rule
    }

    /// The rule that a directory breaks whose parent is no item: nothing leads to it.
    fn orphaned(&mut self, parent: u32) -> Option<&'static str> {
        self.leads_nowhere(u64::from(parent)).map(|_| "directory's .. names an inode that is free")
    }

    /// The rule that a name for `inode` breaks: the bitmap calls it free and the inode itself agrees, so that [`Maker::put`] does
    /// not take it for an item; or it is where its group says that no inode was ever made.
    fn leads_nowhere(&mut self, inode: u64) -> Option<&'static str> {
        const FREE: Option<&str> = Some("directory entry names an inode that is free");
        let Ok(number) = u32::try_from(inode) else { return FREE };
        if !self.inuse.is_free(self.io, self.groups, number) {
            return None;
        }
        let mut raw = Vec::new();
        match Finder(self.groups).find(self.io, number, &mut raw) {
            Ok(_) => {
                let value = inode::flags_of(&raw) & flag::EA_INODE != 0 && self.io.sb.has_ea_inode();
                let free = inode::links_of(&raw) == 0 || !inode::checksum_holds(self.io.sb, number, &raw);
                FREE.filter(|_| value || free)
            }
            Err(fault) if fault.kind == ItemFaultKind::Damaged => {
                Some("directory entry names an inode that its group calls unused")
            }
            Err(_) => None,
        }
    }

    /// The parent of a directory of which a later part is being delivered; 0 if its first block does not have
    /// it.
    fn parent_of(&mut self, inode: &Inode, at: u64) -> u64 {
        let sb = self.io.sb;
        map(self.io, inode, at, 0, 1, 0, self.map);
        let Some(&run) = self.map.runs.first().filter(|run| run.logical == 0 && !run.unwritten) else {
            return 0;
        };
        match self.io.load(run.physical, "directory block") {
            Ok(block) if dir::verify(sb, inode, 0, block).is_ok() => {
                dir::parent(sb, block).map_or(0, u64::from)
            }
            _ => 0,
        }
    }
}

/// The item without contents and attributes.
fn bare(inode: &Inode, at: u64, window: &Window) -> Item {
    Item {
        generation: inode.generation,
        kind: inode.kind.unwrap_or(ItemKind::File),
        mode: inode.mode,
        uid: inode.uid,
        gid: inode.gid,
        links: inode.links,
        rdev: inode.rdev(),
        size: if inode.kind == Some(ItemKind::Directory) { 0 } else { inode.size },
        atime: inode.atime,
        mtime: inode.mtime,
        ctime: inode.ctime,
        btime: inode.btime,
        flags: inode.flags_shown(),
        project: inode.project,
        fault: inode.rule.map(|rule| damaged(at, rule)),
        ..part::bare(u64::from(inode.number), window)
    }
}

/// Whether an inode has links and the mode of a directory.
fn is_live_directory(raw: &[u8]) -> bool {
    inode::links_of(raw) != 0 && inode::mode_of(raw) & 0xF000 == 0x4000
}

/// Puts the inline contents of `inode` into the window, as far as they are stored: the 60 bytes of its block field, then
/// system.data. A file may be longer than what it holds, by any amount: truncation upwards leaves it inline, and mke2fs writes
/// no zeros, so a file of zeros has its size and nothing else. What is not stored reads as zero. The attribute must be
/// there, however short the file: without it the kernel takes the block field for a block map.
fn inline_bytes(
    inode: &Inode,
    raw: &[u8],
    window: &mut Window,
) -> Result<std::ops::Range<u32>, &'static str> {
    let size = usize::try_from(inode.size).unwrap_or(usize::MAX);
    if size == 0 {
        return Ok(window.put_bytes(&[]));
    }
    let data = xattr::inline_data(inode, raw)?;
    let head = window.put_bytes(&inode.block[..size.min(BLOCK_FIELD_BYTES)]);
    let rest = size.saturating_sub(BLOCK_FIELD_BYTES);
    let tail = window.put_bytes(&data[..rest.min(data.len())]);
    Ok(head.start..tail.end)
}

// An empty window takes one directory block of any size, so every call gets on.
const _: () = assert!(WINDOW_NAMES_MAX > (64 << 10) / 12 && WINDOW_BYTES_MAX > 2 * (64 << 10));
