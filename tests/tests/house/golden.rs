//! Golden files: written by `golden/make.py` from the layout tables, not by our encoder. They change only with a version.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use windlass_agent::format::block::{BLOCK_OVERHEAD_BYTES, BlockBuilder, RowBlock};
use windlass_agent::format::compress::Decompressor;
use windlass_agent::format::frame::{self, FRAME_HEADER_BYTES, FRAME_OVERHEAD_BYTES};
use windlass_agent::format::home;
use windlass_agent::format::repo::RepoFormat;
use windlass_agent::format::row::{
    BlockPlace, EntryRow, Gone, ItemAttributes, ItemRow, LocationRow, NameRow, Place, Row, RowKind,
    RowPayload, RunKind,
};
use windlass_agent::format::seal::{Keys, Sealing, Secret};
use windlass_agent::format::tail::{Index, TailBuilder, TailHead, TailKind, Trailer};
use windlass_agent::format::wrap::{KeySlot, Unlock};
use windlass_agent::id::{BackupId, Boot, Epoch, Lin, NodeId, ObjectId, VolumeId};
use windlass_agent::table::segment::SegmentMeta;
use windlass_hal::volume::{Hints, ItemKind, Timestamp};

const MODES: [(&str, Sealing); 2] = [("clear", Sealing::Off), ("sealed", Sealing::Aes256Gcm)];
const PLAIN: &[u8] = b"windlass winds the rope in; ";

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/golden/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn keys(sealing: Sealing) -> Keys {
    Keys::new(&Secret::new(std::array::from_fn(|at| at as u8)), sealing)
}

fn id() -> ObjectId {
    ObjectId { epoch: Epoch(7), node: NodeId(3), boot: Boot(0x0102_0304_0506_0708), count: 9 }
}

fn lin(inode: u64) -> Lin {
    Lin { volume: VolumeId(5), inode }
}

fn stored(frame: (u32, u32), inner_offset: u32, len: u32, digest: u8) -> BlockPlace {
    BlockPlace::Stored(Place {
        object: id(),
        frame_offset: frame.0,
        frame_bytes: frame.1,
        inner_offset,
        len,
        digest: [digest; 16],
    })
}

/// What the golden object's tail says.
fn rows() -> Vec<Row> {
    let mtime = Timestamp { secs: 1_700_000_000, nanos: 123_456_789 };
    let item = ItemAttributes {
        kind: ItemKind::File,
        rows_from: BackupId(3),
        generation: 0,
        mode: 0o644,
        uid: 1000,
        gid: 100,
        links: 1,
        rdev: (0, 0),
        size: 5000,
        allocated_to: 0,
        gaps: Vec::new(),
        atime: mtime,
        mtime,
        ctime: Timestamp { secs: 1_700_000_001, nanos: 0 },
        btime: Some(mtime),
        flags: 0,
        project: 0,
        hints: Hints::NONE,
        parent: 0,
        listing: 0,
        payload: RowPayload::None,
        xattrs: vec![(b"user.a".to_vec(), b"x".to_vec())],
        unsure: false,
        fault: String::new(),
    };
    let name = |name: &[u8], inode| {
        Row::Name(NameRow { parent: lin(2), backup: BackupId(3), run: 0, name: name.to_vec(), inode })
    };
    let entry = |block, place| {
        Row::Entry(EntryRow { lin: lin(12), block, backup: BackupId(3), block_bytes: 4096, place })
    };
    vec![
        Row::Item(ItemRow { lin: lin(12), backup: BackupId(3), item: Some(item), gone: None }),
        Row::Item(ItemRow { lin: lin(14), backup: BackupId(4), item: None, gone: None }),
        name(b"apple", 12),
        name(b"apply", 10),
        Row::Location(LocationRow {
            lin: lin(12),
            base: 10,
            backup: BackupId(3),
            block_bytes: 4096,
            blocks: vec![
                stored((100, 2000), 0, 4096, 0x11),
                stored((2100, 1500), 0, 77, 0x22),
                BlockPlace::Zero,
            ],
            runs: vec![(RunKind::Data, 4096), (RunKind::Hole, 8192)],
        }),
        entry(4, stored((100, 9000), 0, 4096, 0x11)),
        entry(5, stored((100, 9000), 4096, 4096, 0x22)),
    ]
}

#[test]
fn frames_are_as_their_table_says() {
    let plain = PLAIN.repeat(8);
    let mut decompressor = Decompressor::new().unwrap();
    for (mode, sealing) in MODES {
        let key = keys(sealing).object(&id());
        for name in ["frame", "frame_zstd"] {
            let mut bytes = golden(&format!("{name}_{mode}.bin"));
            let opened = frame::open(&mut bytes, &key, 4096).unwrap();
            assert_eq!(opened.zstd, name == "frame_zstd");
            let mut out = vec![0; opened.raw_len];
            opened.plain(&mut decompressor, &mut out).unwrap();
            assert_eq!(out, plain);
        }
        let mut buffer = vec![0; plain.len() + FRAME_OVERHEAD_BYTES];
        buffer[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + plain.len()].copy_from_slice(&plain);
        frame::seal(&mut buffer, plain.len(), plain.len(), false, &key, 4096);
        assert_eq!(buffer, golden(&format!("frame_{mode}.bin")));
    }
}

#[test]
fn the_format_object_is_as_its_table_says() {
    let unlock = Unlock::KeyFile(Secret::new([0xa5; 32]));
    for (mode, sealing) in MODES {
        let bytes = golden(&format!("format_{mode}.bin"));
        let format = RepoFormat::parse(&bytes).unwrap();
        assert_eq!(format.emit(), bytes);
        assert_eq!((format.location_blocks, format.created_secs), (10, 1_763_000_000));
        assert_eq!((format.store_identity.as_str(), format.sealing()), ("file:///srv/repo", sealing));
        assert_eq!(format.uuid[..4], [0, 0x11, 0x22, 0x33]);
        assert_eq!((bytes[8], format.lease_store.as_str()), (1, ""));
        let leased = golden(&format!("format_lease_{mode}.bin"));
        let with_lease = RepoFormat::parse(&leased).unwrap();
        assert_eq!((leased[8], with_lease.lease_store.as_str()), (2, "etcd://host:2379/rack7"));
        assert_eq!((with_lease.store_identity.as_str(), with_lease.emit()), ("file:///srv/repo", leased));
        let unlock = (sealing == Sealing::Aes256Gcm).then_some(&unlock);
        assert_eq!(format.unlock(unlock).unwrap().digest(b"x"), keys(sealing).digest(b"x"));
    }
    assert_eq!(home::parse(&golden("home.bin")), Ok(std::array::from_fn(|at| at as u8 * 0x11)));
    assert_eq!(home::emit(&std::array::from_fn(|at| at as u8 * 0x11))[..], golden("home.bin"));
    // The encoder gives the same slot.
    let master = Secret::new(std::array::from_fn(|at| at as u8));
    let uuid: [u8; 16] = std::array::from_fn(|at| at as u8 * 0x11);
    let slot = KeySlot::wrap(&master, &unlock, &uuid, [0x77; 16]).unwrap();
    assert_eq!(slot.emit()[..], golden("format_sealed.bin")[96..176]);
}

#[test]
fn a_tail_is_as_its_tables_say() {
    let mut decompressor = Decompressor::new().unwrap();
    for (mode, sealing) in MODES {
        let keys = keys(sealing);
        let bytes = golden(&format!("object_{mode}.bin"));
        let trailer = Trailer::parse(&bytes, &id(), &keys).unwrap();
        assert_eq!(trailer.total_bytes(), bytes.len() as u64);
        let head = TailHead {
            kind: TailKind::Object,
            id: id(),
            policy: 42,
            backup: BackupId(3),
            volume: VolumeId(5),
        };
        assert_eq!((trailer.head, trailer.data_bytes, trailer.rows), (head, 64, [2, 2, 1, 2]));
        let at = trailer.index_at() as usize;
        let mut index = bytes[at..at + trailer.index_bytes as usize].to_vec();
        let index = Index::parse(&mut index, &trailer, &keys, &mut decompressor).unwrap();
        let mut found = Vec::new();
        for kind in RowKind::ALL {
            for info in index.blocks(kind) {
                let at = (trailer.data_bytes + info.offset) as usize;
                let mut block = bytes[at..at + info.bytes as usize].to_vec();
                let block = RowBlock::open(&mut block, &keys.rows(&id()), info.offset, &mut decompressor);
                found.extend(block.unwrap().to_rows().unwrap());
            }
        }
        assert_eq!(found, rows());

        // The encoder gives rows of the same bytes where zstd does not pay; it may choose to compress, so compare lengths too.
        let mut builder = TailBuilder::new(1).unwrap();
        builder.start(head, &keys);
        let mut out = vec![0xee; 64];
        for row in &rows() {
            builder.push(row, &mut |part| out.extend_from_slice(part)).unwrap();
        }
        builder.finish(64, &mut |part| out.extend_from_slice(part));
        let first = index.blocks(RowKind::Item)[0].bytes as usize;
        assert_eq!(out[..64 + first], bytes[..64 + first]);
    }
}

/// Rows with hints, which came later: rows without them are as before, byte for byte.
#[test]
fn item_rows_with_hints_are_as_their_table_says() {
    let time = Timestamp { secs: 1_700_000_000, nanos: 0 };
    let hints = Hints {
        flags: Hints::NO_SYMLINKS | Hints::EXTENT_SIZE & 0x1000,
        extent_bytes: 1 << 20,
        cow_extent_bytes: 0,
    };
    let row = |inode, hints| {
        let Row::Item(ItemRow { backup, item: Some(item), .. }) = rows().remove(0) else { unreachable!() };
        let item = ItemAttributes {
            kind: ItemKind::Directory,
            mode: 0o755,
            links: 2,
            hints,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: time,
            atime: time,
            ctime: time,
            btime: Some(time),
            xattrs: Vec::new(),
            ..item
        };
        Row::Item(ItemRow { lin: lin(inode), backup, item: Some(item), gone: None })
    };
    let rows = [row(20, hints), row(21, hints), row(22, Hints::NONE)];
    let mut builder = BlockBuilder::new(RowKind::Item);
    for row in &rows {
        builder.push(row).unwrap();
    }
    let mut decompressor = Decompressor::new().unwrap();
    for (mode, sealing) in MODES {
        let mut bytes = golden(&format!("items_hints_{mode}.bin"));
        assert_eq!(
            builder.raw_bytes() - 4,
            bytes.len() - BLOCK_OVERHEAD_BYTES,
            "{mode}: the encoder's length"
        );
        let block = RowBlock::open(&mut bytes, &keys(sealing).rows(&id()), 0, &mut decompressor).unwrap();
        assert_eq!(block.to_rows().unwrap(), rows, "{mode}");
    }
}

/// As the encoder writes it, but for what frames and seals a block.
#[test]
fn rows_with_the_digest_of_a_listing_are_as_their_table_says() {
    let rows = RowBlock::from_plain(RowKind::Item, 2, golden("items_listing.bin")).to_rows().unwrap();
    let [Row::Item(ItemRow { item: Some(dir), .. }), Row::Item(ItemRow { item: Some(file), .. })] = &rows[..]
    else {
        panic!("{rows:?}")
    };
    assert_eq!((dir.kind, dir.parent, dir.listing), (ItemKind::Directory, 2, 0x0123_4567_89ab_cdef));
    assert_eq!((file.kind, file.size, file.parent, file.listing), (ItemKind::File, 7, 0, 0));
}

/// The same of deletions that say what was deleted, and of one that an older program wrote.
#[test]
fn deletions_are_as_their_table_says() {
    let bytes = golden("items_gone.bin");
    let rows = RowBlock::from_plain(RowKind::Item, 3, bytes.clone()).to_rows().unwrap();
    let file = Gone {
        kind: ItemKind::File,
        mode: 0o644,
        uid: 1000,
        gid: 100,
        size: 5000,
        mtime: Timestamp { secs: 1_700_000_000, nanos: 5 },
        parent: 0,
        found_secs: 1_700_000_100,
    };
    let mtime = Timestamp { nanos: 0, ..file.mtime };
    let dir = Gone { kind: ItemKind::Directory, mode: 0o755, size: 0, mtime, parent: 2, ..file.clone() };
    let row = |inode, gone: Option<Gone>| {
        let gone = gone.map(Box::new);
        Row::Item(ItemRow { lin: lin(inode), backup: BackupId(3), item: None, gone })
    };
    assert_eq!(rows, [row(12, Some(file)), row(14, Some(dir)), row(15, None)]);
    let mut builder = BlockBuilder::new(RowKind::Item);
    for row in &rows {
        builder.push(row).unwrap();
    }
    assert_eq!(builder.raw_bytes() - 4, bytes.len(), "the encoder's length");
}

#[test]
fn a_segment_entry_is_as_its_table_says() {
    let bytes = golden("segment_meta.bin");
    let meta = SegmentMeta::parse(&bytes).unwrap();
    let expected = SegmentMeta {
        id: id(),
        volume: VolumeId(5),
        backup_min: BackupId(3),
        backup_max: BackupId(4),
        index_bytes: 100,
        first_inode: 12,
        last_inode: 99,
        bytes: 5000,
        rows: [2, 3, 4, 0],
        first_base: 7,
        end_base: 8,
    };
    assert_eq!((meta, &meta.emit()[..]), (expected, &bytes[..]));
}
