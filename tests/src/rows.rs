//! Rows made up from a seed: wild ones, which use every value that a row can hold, and plain ones, which look like a file server.
//!
//! Invariants: the same seed gives the same rows; keys ascend strictly within a kind. Source: ours.

use windlass_agent::format::row::{
    BlockPlace, EntryRow, Gone, ItemAttributes, ItemRow, LocationRow, NameRow, Place, Row, RowKind,
    RowPayload, RunKind,
};
use windlass_agent::id::{BackupId, Boot, Epoch, Lin, NodeId, ObjectId, VolumeId};
use windlass_hal::volume::{Hints, ItemKind, Timestamp};

use crate::prng::Prng;

const KINDS: [ItemKind; 8] = [
    ItemKind::File,
    ItemKind::Directory,
    ItemKind::Symlink,
    ItemKind::CharDevice,
    ItemKind::BlockDevice,
    ItemKind::Fifo,
    ItemKind::Socket,
    ItemKind::Image,
];

/// An object id with a small variety of writers.
pub fn object(p: &mut Prng) -> ObjectId {
    ObjectId {
        epoch: Epoch(1 + p.below(3)),
        node: NodeId(p.below(3) as u32),
        boot: Boot(77 + p.below(2)),
        count: p.below(9) as u32,
    }
}

fn time(p: &mut Prng) -> Timestamp {
    Timestamp { secs: p.skewed() as i64, nanos: p.below(1_000_000_000) as u32 }
}

fn place(p: &mut Prng, block_bytes: u32) -> BlockPlace {
    match p.below(6) {
        0 => BlockPlace::Empty,
        1 => BlockPlace::Zero,
        2 => BlockPlace::Lost,
        _ => BlockPlace::Stored(Place {
            object: object(p),
            frame_offset: p.skewed() as u32,
            frame_bytes: p.skewed() as u32,
            inner_offset: p.skewed() as u32,
            len: if p.one_in(2) { block_bytes } else { p.skewed() as u32 },
            digest: p.bytes(16).try_into().unwrap_or_default(),
        }),
    }
}

/// A size, the end of what is allocated past it, and the gaps between the two.
fn wild_end(p: &mut Prng) -> (u64, u64, Vec<(u64, u64)>) {
    let size = p.skewed();
    if p.one_in(2) {
        return (size, if p.one_in(3) { p.skewed() } else { 0 }, Vec::new());
    }
    let (mut gaps, mut at) = (Vec::new(), size);
    for n in 0..p.below(4) {
        let from = at.saturating_add(p.below(1 << 40) + n.min(1));
        let to = from.saturating_add(1 + p.below(1 << 20));
        if to == u64::MAX {
            break;
        }
        gaps.push((from, to));
        at = to;
    }
    (size, at.saturating_add(1), gaps)
}

fn wild_hints(p: &mut Prng) -> Hints {
    if p.one_in(2) {
        Hints::NONE
    } else {
        Hints { flags: p.next_u64() as u32, extent_bytes: p.skewed(), cow_extent_bytes: p.skewed() }
    }
}

/// Attributes that use every field.
pub fn wild_attributes(p: &mut Prng) -> ItemAttributes {
    let mtime = time(p);
    let either = |p: &mut Prng, value: Timestamp| if p.one_in(2) { value } else { time(p) };
    let xattrs = (0..p.below(4) * p.below(2)).map(|i| {
        let len = p.below(40) as usize;
        (format!("user.a{i}").into_bytes(), p.bytes(len))
    });
    let xattrs = xattrs.collect();
    let payload_len = p.below(100) as usize;
    let (size, allocated_to, gaps) = wild_end(p);
    ItemAttributes {
        kind: KINDS[p.below(8) as usize],
        rows_from: BackupId(p.skewed() as u32),
        generation: if p.one_in(2) { 0 } else { p.next_u64() as u32 },
        mode: p.below(0o10000) as u16,
        uid: p.skewed() as u32,
        gid: p.skewed() as u32,
        links: p.below(3) as u32,
        rdev: if p.one_in(2) { (0, 0) } else { (p.skewed() as u32, p.skewed() as u32) },
        size,
        allocated_to,
        gaps,
        atime: either(p, mtime),
        mtime,
        ctime: either(p, mtime),
        btime: if p.one_in(2) { Some(either(p, mtime)) } else { None },
        flags: p.skewed() as u32,
        project: p.skewed() as u32,
        hints: wild_hints(p),
        parent: if p.one_in(2) { 0 } else { p.next_u64() },
        listing: if p.one_in(2) { 0 } else { p.next_u64() },
        payload: match p.below(3) {
            0 => RowPayload::None,
            1 => RowPayload::Target(p.bytes(payload_len)),
            _ => RowPayload::Inline(p.bytes(payload_len)),
        },
        xattrs,
        unsure: p.one_in(5),
        fault: if p.one_in(9) { "data unreadable: überall".to_owned() } else { String::new() },
    }
}

/// `count` rows of `kind` with wild values and ascending keys, some of them versions of the same place.
pub fn wild(p: &mut Prng, kind: RowKind, count: usize) -> Vec<Row> {
    let mut lin = Lin { volume: VolumeId(p.below(3) as u32), inode: p.below(10) };
    let (mut base, mut backup, mut run, mut name) = (0u64, 900u32, 0u32, 0u64);
    let mut rows = Vec::with_capacity(count);
    for _ in 0..count {
        match p.below(if kind == RowKind::Item { 3 } else { 8 }) {
            0 => {
                if p.one_in(20) {
                    lin = Lin {
                        volume: VolumeId(lin.volume.0 + 1 + p.below(9) as u32),
                        inode: p.below(1 << 40),
                    };
                } else {
                    lin.inode += 1 + p.below(500);
                }
                (base, backup, run, name) = (0, 900, 0, 0);
            }
            1 => {
                backup -= 1;
                (run, name) = (0, 0);
            }
            2 if kind == RowKind::Item => backup -= 1 + p.below(2) as u32,
            2 => (run, name) = (run + 1, 0),
            _ => {
                base += 1 + p.below(3) * 9;
                backup = if matches!(kind, RowKind::Location | RowKind::Entry) { 900 } else { backup };
            }
        }
        name += 1;
        if matches!(kind, RowKind::Location | RowKind::Entry) && run > 0 {
            (base, run) = (base + 1, 0);
        }
        let id = BackupId(backup);
        let block_bytes = if p.one_in(5) { 4096 } else { 131_072 };
        rows.push(match kind {
            RowKind::Item => {
                let item = if p.one_in(5) { None } else { Some(wild_attributes(p)) };
                let is_gone = item.is_none() && !p.one_in(4);
                let gone = is_gone.then(|| Box::new(Gone::of(&wild_attributes(p), p.next_u64() as i64)));
                Row::Item(ItemRow { lin, backup: id, item, gone })
            }
            RowKind::Name => Row::Name(NameRow {
                parent: lin,
                backup: id,
                run,
                name: format!("file-{name:04}{}", "x".repeat(p.below(230) as usize * p.below(2) as usize))
                    .into_bytes(),
                inode: p.skewed(),
            }),
            RowKind::Location => Row::Location(LocationRow {
                lin,
                base,
                backup: id,
                block_bytes,
                blocks: (0..p.below(12)).map(|_| place(p, block_bytes)).collect(),
                runs: (0..p.below(4) * p.below(2))
                    .map(|i| {
                        (
                            [RunKind::Data, RunKind::Hole, RunKind::Unwritten, RunKind::Lost][i as usize % 4],
                            p.skewed(),
                        )
                    })
                    .collect(),
            }),
            RowKind::Entry => Row::Entry(EntryRow {
                lin,
                block: base,
                backup: id,
                block_bytes,
                place: place(p, block_bytes),
            }),
        });
    }
    rows
}

/// `count` items of a file server: runs of files of few owners, nanosecond times, a directory now and then.
pub fn plain_items(p: &mut Prng, count: usize, backup: u32) -> Vec<ItemRow> {
    let mut now = 1_700_000_000i64;
    (0..count)
        .map(|i| {
            let directory = p.one_in(12);
            now += p.below(40) as i64;
            let mtime = Timestamp { secs: now, nanos: p.below(1_000_000_000) as u32 };
            let later = Timestamp { secs: now + p.below(5) as i64, nanos: p.below(1_000_000_000) as u32 };
            let inode = 12 + i as u64;
            let attributes = ItemAttributes {
                kind: if directory { ItemKind::Directory } else { ItemKind::File },
                rows_from: BackupId(backup),
                generation: p.next_u64() as u32,
                mode: if directory { 0o755 } else { 0o644 },
                uid: 1000,
                gid: 1000,
                links: if directory { 2 } else { 1 },
                rdev: (0, 0),
                size: if directory { 0 } else { p.below(1 << 20) },
                allocated_to: 0,
                gaps: Vec::new(),
                atime: later,
                mtime,
                ctime: if p.one_in(2) { mtime } else { later },
                btime: Some(mtime),
                flags: 0x80000,
                project: 0,
                hints: Hints::NONE,
                parent: if directory { inode.saturating_sub(40) } else { 0 },
                listing: if directory { p.next_u64() } else { 0 },
                payload: RowPayload::None,
                xattrs: Vec::new(),
                unsure: false,
                fault: String::new(),
            };
            let lin = Lin { volume: VolumeId(1), inode };
            ItemRow { lin, backup: BackupId(backup), item: Some(attributes), gone: None }
        })
        .collect()
}

/// `count` directory entries, about twelve a directory.
pub fn plain_names(p: &mut Prng, count: usize, backup: u32) -> Vec<NameRow> {
    let words = ["report", "invoice", "scan", "image", "notes", "draft", "backup", "data"];
    let mut rows = Vec::new();
    let (mut inode, mut directory) = (12u64, 12u64);
    while rows.len() < count {
        let mut names: Vec<String> = (0..1 + p.below(24))
            .map(|_| {
                format!(
                    "{}-2024-{:02}-{:05}.pdf",
                    words[p.below(8) as usize],
                    1 + p.below(12),
                    p.below(99999)
                )
            })
            .collect();
        names.sort();
        names.dedup();
        for name in names {
            inode += 1;
            rows.push(NameRow {
                parent: Lin { volume: VolumeId(1), inode: directory },
                backup: BackupId(backup),
                run: 0,
                name: name.into_bytes(),
                inode,
            });
        }
        directory = inode + 1;
        inode = directory;
    }
    rows.truncate(count);
    rows
}

/// `count` location rows of large files: ten blocks of 128 KiB each, a frame per block, frames of about 70 %.
pub fn plain_locations(p: &mut Prng, count: usize, backup: u32) -> Vec<LocationRow> {
    let mut object =
        ObjectId { epoch: Epoch(4), node: NodeId(1), boot: Boot(0x1234_5678_9abc_def0), count: 0 };
    let mut offset = 0u32;
    let (mut inode, mut base) = (12u64, 0u64);
    (0..count)
        .map(|_| {
            if p.one_in(8) {
                inode += 1 + p.below(4);
                base = 0;
            }
            let blocks = (0..10).map(|_| {
                if offset > 62 << 20 {
                    offset = 0;
                    object.count += 1;
                }
                let bytes = 80_000 + p.below(30_000) as u32;
                let place = Place {
                    object,
                    frame_offset: offset,
                    frame_bytes: bytes,
                    inner_offset: 0,
                    len: 131_072,
                    digest: p.bytes(16).try_into().unwrap_or_default(),
                };
                offset += bytes;
                BlockPlace::Stored(place)
            });
            let blocks = blocks.collect();
            let lin = Lin { volume: VolumeId(1), inode };
            base += 10;
            LocationRow {
                lin,
                base: base - 10,
                backup: BackupId(backup),
                block_bytes: 131_072,
                blocks,
                runs: Vec::new(),
            }
        })
        .collect()
}
