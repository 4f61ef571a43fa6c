//! What the fuzz targets do with their bytes. The bodies live here, so that `tests/house/corpus.rs` replays committed corpora on the
//! stable compiler, and `fuzz/fuzz_targets/<name>.rs` is one line each.
//!
//! A new target: a function here, a row in [`TARGETS`], a file in `fuzz/fuzz_targets`, a `[[bin]]` in `fuzz/Cargo.toml`, seeds in
//! `fuzz/corpus/<name>`.
//!
//! Tags would stop a fuzzer at the door, so each body also goes in behind it: checksums are repaired, bytes are sealed first.

use std::collections::BTreeMap;
use std::time::Duration;

use windlass_agent::api::answer::{Answer, Media as Kind};
use windlass_agent::api::body::Given;
use windlass_agent::api::conn::{Conn, Now};
use windlass_agent::api::request::parse_head;
use windlass_agent::api::route::{self, Body, Found};
use windlass_agent::backplane::header::{HEADER_BYTES, Header};
use windlass_agent::backplane::message::Message;
use windlass_agent::backplane::session::{Event, Local, PROTOCOLS, Session};
use windlass_agent::console::screen::{Mode, OUT_BYTES};
use windlass_agent::console::shell::{Action, Config, Shell};
use windlass_agent::format::block::{BlockBuilder, RowBlock};
use windlass_agent::format::compress::{Compressor, Decompressor};
use windlass_agent::format::frame::{self, FRAME_HEADER_BYTES, FRAME_OVERHEAD_BYTES, FrameHeader};
use windlass_agent::format::record::{emit_records, parse_records};
use windlass_agent::format::repo::RepoFormat;
use windlass_agent::format::row::RowKind;
use windlass_agent::format::seal::{Keys, Region, Sealing, Secret};
use windlass_agent::format::slot::{
    Claim, PlainForTests, SlotContents, emit_boundary, own_part, parse_boundary,
};
use windlass_agent::format::tail::{Index, TRAILER_BYTES, Trailer};
use windlass_agent::id::{Boot, Epoch, NodeId, ObjectId, Slot};
use windlass_agent::log::checkpoint::Checkpoint;
use windlass_agent::policy::Policy;
use windlass_agent::policy::select::{PATTERNS_MAX, Patterns, Verdict};
use windlass_agent::table::segment::SegmentMeta;
use windlass_agent::work::entry::Role;
use windlass_hal::block::BlockDevice;
use windlass_hal::clock::Instant;
use windlass_hal::sim::disk::{DiskConfig, Media, MediaConfig};
use windlass_hal::volume::ext4::Ext4;
use windlass_hal::volume::xfs::Xfs;
use windlass_hal::volume::{
    Cursor, ITEM_XATTR_BYTES_MAX, ITEM_XATTRS_MAX, ItemKind, Payload, Swept, Volume, Window,
};

use crate::ext4_checksums;

#[path = "../../hal/tests/support/xfs_seal.rs"]
mod xfs_seal;

/// A fuzz target: its name and what it does. It panics when a property is broken.
pub type Target = (&'static str, fn(&[u8]));

/// All targets, by the name of their corpus.
pub const TARGETS: &[Target] = &[
    ("format_repo", format_repo),
    ("frame", frame),
    ("row_block", row_block),
    ("tail", tail),
    ("segment_meta", segment_meta),
    ("log_record", log_record),
    ("policy", policy),
    ("backplane", backplane),
    ("api", api),
    ("ext4", ext4),
    ("xfs", xfs),
    ("console", console),
];

/// A `format` object that parses emits the same bytes.
pub fn format_repo(data: &[u8]) {
    let mut bytes = data.to_vec();
    let _ = RepoFormat::parse(&bytes);
    if let Some((body, crc)) = bytes.split_last_chunk_mut::<4>() {
        *crc = crc32(body);
    }
    if let Ok(format) = RepoFormat::parse(&bytes) {
        assert_eq!(format.emit(), bytes);
    }
}

/// A frame whose tag is made to match is opened and decompressed, or refused.
pub fn frame(data: &[u8]) {
    let key = Keys::new(&Secret::new([1; 32]), Sealing::Off).object(&ObjectId::default());
    let mut bytes = data.to_vec();
    let _ = frame::open(&mut bytes, &key, 0);
    if let Ok(header) = FrameHeader::parse(data)
        && header.raw_len < 1 << 20
        && data.len() >= header.frame_bytes()
    {
        assert_eq!(header.emit(), data[..FRAME_HEADER_BYTES]);
        bytes.copy_from_slice(data);
        let len = header.frame_bytes() - FRAME_OVERHEAD_BYTES;
        let (head, rest) = bytes.split_at_mut(FRAME_HEADER_BYTES);
        let tag = key.seal(Region::Frame, 0, head, &mut rest[..len]);
        rest[len..len + tag.len()].copy_from_slice(&tag);
        if let (Ok(opened), Some(mut decompressor)) = (frame::open(&mut bytes, &key, 0), Decompressor::new())
        {
            let mut plain = vec![0; opened.raw_len];
            let _ = opened.plain(&mut decompressor, &mut plain);
        }
    }
}

/// Rows that decode (first byte: kind, second: rows) come back from a new block of them.
pub fn row_block(data: &[u8]) {
    let [kind, rows, raw @ ..] = data else {
        return;
    };
    let Some(kind) = RowKind::from_byte(*kind) else {
        return;
    };
    let Ok(rows) = RowBlock::from_plain(kind, (*rows).into(), raw.to_vec()).to_rows() else {
        return;
    };
    let mut builder = BlockBuilder::new(kind);
    let mut taken = Vec::new();
    for row in rows {
        if builder.push(&row).is_ok_and(|pushed| pushed == windlass_agent::format::block::Pushed::Taken) {
            taken.push(row);
        }
    }
    let key = Keys::new(&Secret::new([1; 32]), Sealing::Off).rows(&ObjectId::default());
    let (Some(mut compressor), Some(mut decompressor)) = (Compressor::new(1), Decompressor::new()) else {
        return;
    };
    if !taken.is_empty() {
        let mut out = Vec::new();
        builder.finish(&key, 0, &mut compressor, &mut out);
        let back = RowBlock::open(&mut out, &key, 0, &mut decompressor).and_then(|block| block.to_rows());
        assert_eq!(back, Ok(taken));
    }
}

/// A trailer (the last 128 bytes) and a plain index before it; checksums and totals are made to match.
pub fn tail(data: &[u8]) {
    let mut bytes = data.to_vec();
    if let Some(end) = bytes.last_chunk_mut::<TRAILER_BYTES>() {
        let crc = crc32(&end[..108]);
        end[108..112].copy_from_slice(&crc);
    }
    let Ok((mut trailer, _)) = Trailer::parse_unsealed(&bytes) else {
        return;
    };
    let keys = Keys::new(&Secret::new([1; 32]), Sealing::Off);
    let emitted = trailer.emit(&keys.rows(&trailer.head.id));
    assert_eq!(Trailer::parse(&emitted, &trailer.head.id, &keys), Ok(trailer));
    let raw = &bytes[..bytes.len() - TRAILER_BYTES];
    trailer.blocks = raw.first().copied().unwrap_or(0).into();
    let _ = Index::parse_plain(raw.get(1..).unwrap_or_default(), &trailer);
}

/// A console of any kind that gets any bytes, log lines and replies: it stays within its bounds, and sends nothing that drives a terminal
/// but what is its own. First byte: the kind of terminal and its size. Then each byte below 0x08 at an even place is something that happens.
pub fn console(data: &[u8]) {
    let [kind, rest @ ..] = data else { return };
    let mode = [None, Some(Mode::Vt100), Some(Mode::Dumb), Some(Mode::Script)][usize::from(kind & 3)];
    let size = (usize::from(kind >> 2) * 4, usize::from(kind >> 4));
    let role = if kind & 0x40 == 0 { Role::Administrator } else { Role::Viewer };
    let mut shell = Shell::new(&Config { prompt: "node> ", serial: "QX0007", role, mode, size: Some(size) });
    let (mut now_ms, mut runs) = (0_u64, false);
    for pair in rest.chunks(2) {
        let more = u64::from(pair.last().copied().unwrap_or(0));
        match pair[0] {
            0 => now_ms += more * 64,
            1 => shell.log(&"log line ".repeat(more as usize), now_ms),
            2 if runs => drop(shell.reply(rest, now_ms)),
            4 if runs => shell.done(more as u8, now_ms),
            5 => shell.sent(shell.output().len().min(more as usize), now_ms),
            6 => shell.reset(now_ms),
            7 => shell.give_up(),
            _ => shell.feed(pair, now_ms),
        }
        shell.turn(now_ms);
        while let Some(action) = shell.next_action() {
            runs |= matches!(action, Action::Run | Action::Own(_));
            assert!(action != Action::Run || shell.call().words().all(|word| !word.contains('\0')));
        }
        assert!(shell.output().len() <= OUT_BYTES);
        let (_, text, cursor) = shell.shown();
        assert!(text.is_char_boundary(cursor));
        shell.sent(if more & 1 == 0 { shell.output().len() } else { 0 }, now_ms);
    }
}

/// A segment's entry that parses emits the same bytes.
pub fn segment_meta(data: &[u8]) {
    if let Ok(meta) = SegmentMeta::parse(data) {
        assert_eq!(data[..meta.emit().len()], meta.emit());
    }
}

/// Records, slots, checkpoints, claims and boundaries of the log, with their digests made to match: what parses emits the same
/// bytes.
pub fn log_record(data: &[u8]) {
    if let Ok(records) = parse_records(data) {
        let mut out = Vec::new();
        emit_records(&records, &mut out);
        assert_eq!(out, data);
    }
    let mut bytes = data.to_vec();
    if let Some((body, digest)) = bytes.split_last_chunk_mut::<32>() {
        *digest = *blake3::hash(body).as_bytes();
    }
    if let Ok(slot) = SlotContents::parse(&bytes, &PlainForTests) {
        let own = own_part(&bytes).map(<[u8]>::to_vec);
        assert_eq!(slot.header.emit(&slot.records, &PlainForTests), own.map(|own| (own, slot.digest)));
    }
    if let Ok((checkpoint, digest)) = Checkpoint::parse(&bytes, &PlainForTests) {
        assert_eq!(checkpoint.emit(&PlainForTests), Ok((bytes.clone(), digest)));
    }
    if let Ok(claim) = Claim::parse_grant(&bytes) {
        assert_eq!(claim.emit_grant(), bytes);
    }
    if let Ok(claim) = Claim::parse_beat(&bytes) {
        // One of the version before has no slot, and comes out as one of today's.
        let emitted = claim.emit_beat();
        assert_eq!(Claim::parse_beat(&emitted), Ok(claim));
        assert!(emitted == bytes || emitted.len() > bytes.len(), "{emitted:?} of {bytes:?}");
    }
    if let Ok((cluster, checkpoint)) = parse_boundary(&bytes) {
        assert_eq!(emit_boundary(&cluster, &checkpoint), bytes);
    }
}

/// A policy that parses comes back from its own JSON. The bytes are also taken as lines: include patterns, an empty line,
/// exclude patterns; what they accept judges the lines themselves as paths.
pub fn policy(data: &[u8]) {
    if let Ok(policy) = Policy::parse(data) {
        // Defaults are written out, so it may have become too large.
        if let Ok(json) = policy.emit() {
            assert_eq!(Policy::parse(&json), Ok(policy));
        }
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (include, exclude) = text.split_once("\n\n").unwrap_or((text, ""));
    let lines = |text: &str| text.lines().take(PATTERNS_MAX / 2).map(str::to_owned).collect::<Vec<_>>();
    if let Ok(patterns) = Patterns::new(&lines(include), &lines(exclude)) {
        for path in text.lines().take(16) {
            let above = patterns.judge(patterns.of_root(), path.as_bytes(), true);
            let below = patterns.judge(above, format!("{path}/file").as_bytes(), false);
            assert!(above != Verdict::Excluded || below == Verdict::Excluded, "below what is left out");
            assert!(above != Verdict::Taken || below != Verdict::Outside, "below what is taken");
        }
    }
}

/// Bytes of a peer on the backplane, three ways: as they are; as a header whose checksum is made to match; and (first byte: how
/// they are cut, and whether a good hello comes first) as frames of a kind, a length (two bytes, little-endian) and a body, with good
/// headers. A message that parses emits the same bytes, and a session that is over stays so.
pub fn backplane(data: &[u8]) {
    if let Some(head) = data.first_chunk::<HEADER_BYTES>() {
        let mut head = *head;
        head[8..12].fill(0);
        let crc = crc32c::crc32c(&head);
        head[8..12].copy_from_slice(&crc.to_le_bytes());
        head[..4].copy_from_slice(b"WLBP");
        let _ = Header::parse(&head, 0..=u8::MAX);
        head[8..12].fill(0);
        let crc = crc32c::crc32c(&head);
        head[8..12].copy_from_slice(&crc.to_le_bytes());
        if let Ok(header) = Header::parse(&head, 0..=u8::MAX) {
            assert_eq!(header.emit(), head);
        }
    }
    let [cut, rest @ ..] = data else {
        return;
    };
    let mut session = node(2, None);
    listen(&mut session, rest, usize::from(*cut));
    let mut session = node(2, None);
    let mut seq = 1;
    if cut & 0x80 != 0 {
        listen(&mut session, node(1, Some(NodeId(2))).outgoing(), 256);
        seq = 2;
    }
    let mut bytes = Vec::new();
    let mut rest = rest;
    while let [kind, low, high, tail @ ..] = rest {
        let len = usize::from(u16::from_le_bytes([*low, *high]));
        let (body, tail) = tail.split_at_checked(len).unwrap_or((tail, &[]));
        if let Ok(message) = Message::parse(*kind, body) {
            assert_eq!(message.kind(), *kind);
            let is_form = |proto: u8| {
                let mut out = Vec::new();
                message.emit_for(proto, &mut out);
                out == body
            };
            assert!((PROTOCOLS.0..=PROTOCOLS.1).any(is_form), "{message:?} was {body:?}");
        }
        let header = Header {
            proto: 1,
            kind: *kind,
            body_len: body.len(),
            body_crc: crc32c::crc32c(body),
            src: NodeId(1),
            dst: NodeId(2),
            cluster: [7; 16],
            epoch: Epoch(seq),
            seq,
            cookie: seq - 1,
            log_slot: Slot(seq),
        };
        bytes.extend_from_slice(&header.emit());
        bytes.extend_from_slice(body);
        seq += 1;
        rest = tail;
    }
    listen(&mut session, &bytes, usize::from(cut & 0x7f));
}

/// Bytes of a client of the API, cut into pieces (first byte: how long), with a second between them. Whatever the cut, the same requests come
/// out; what is refused ends it; each request is looked for among the routes and its body is read.
pub fn api(data: &[u8]) {
    let [cut, bytes @ ..] = data else {
        return;
    };
    let whole = talk(bytes, bytes.len().max(1));
    let cut = talk(bytes, usize::from(*cut).max(1));
    assert_eq!(whole, cut);
    if let Ok(Some(head)) = parse_head(bytes) {
        assert!(head.head_bytes <= bytes.len() && bytes[..head.head_bytes].ends_with(b"\r\n\r\n"));
        let emitted =
            Answer::new(200, Kind::Json, Vec::new()).with("X", head.request.shown()).emit(0, false, true);
        assert_eq!(
            emitted.windows(4).filter(|four| four == b"\r\n\r\n").count(),
            1,
            "an answer has one head"
        );
    }
}

/// What comes of a client's bytes in pieces: methods, paths and lengths of bodies, and whether it ended with a refusal.
fn talk(bytes: &[u8], cut: usize) -> (Vec<(String, usize)>, bool) {
    let (mut conn, mut seen, mut refused) = (Conn::new(0), Vec::new(), false);
    let now = Now { ns: 1, wall_secs: 0 };
    for piece in bytes.chunks(cut) {
        if !conn.wants_input() {
            break;
        }
        conn.feed(now.ns, piece);
        loop {
            if let Some(request) = conn.next_request(now) {
                seen.push((format!("{} {}", request.method.name(), request.shown()), request.body.len()));
                if let Found::Route(found, _) = route::find(request.method, &request.path) {
                    let _ = Given::of_query(found.query, &request.query);
                    if let Body::Fields(args) = found.body {
                        let _ = Given::of_body(args, &request.body);
                    }
                }
                conn.answer(now, &Answer::new(204, Kind::Json, Vec::new()));
            }
            refused |= conn.take_refused().is_some();
            let len = conn.output().len();
            if len == 0 {
                break;
            }
            conn.sent(now.ns, len);
        }
        assert!(conn.is_over() || conn.deadline().is_some());
    }
    (seen, refused)
}

/// A session of node `id`, which dialled `to` or was dialled.
fn node(id: u32, to: Option<NodeId>) -> Session {
    let local = Local {
        cluster: [7; 16],
        node: NodeId(id),
        boot: Boot(id.into()),
        name: "n".to_owned(),
        protocols: PROTOCOLS,
    };
    Session::new(Instant::ZERO, local, to, Box::new(|_: NodeId| Ok(())))
}

/// Feeds bytes in pieces, takes what comes of it, lets a tenth of a second pass for each piece, and answers.
fn listen(session: &mut Session, bytes: &[u8], cut: usize) {
    let mut now = Instant::ZERO;
    for piece in bytes.chunks(cut.max(1)) {
        let mut rest = piece;
        loop {
            let taken = session.feed(now, rest);
            assert!(taken <= rest.len());
            rest = &rest[taken..];
            let mut events = 0;
            while let Some(event) = session.next_event() {
                events += 1;
                assert!(events <= 4, "few events for a piece");
                assert!(session.is_down() || !matches!(event, Event::Down(_)));
            }
            if rest.is_empty() || session.is_down() {
                break;
            }
            assert!(taken > 0 || events > 0, "it gets on");
        }
        let len = session.outgoing().len();
        session.sent(len);
        now = now.saturating_add(Duration::from_millis(100));
        session.wake(now);
    }
    if session.is_down() {
        assert_eq!((session.feed(now, bytes), session.deadline()), (0, None));
    }
}

/// Bytes of one block of a sparse image.
const IMAGE_BLOCK_BYTES: usize = 1024;
/// Bytes of the image: as many blocks as a byte can name.
const IMAGE_BYTES: usize = 256 << 10;
/// Windows that are swept of one image.
const IMAGE_SWEEPS_MAX: usize = 256;

/// An ext4 volume from a sparse image: a byte (which block of 1 KiB) and that block, over and over; the rest is zero. What is
/// delivered keeps the promises of `Volume`, and the sweep gets on. Once as it is, and once with good checksums.
pub fn ext4(data: &[u8]) {
    let mut bytes = vec![0; IMAGE_BYTES];
    for block in data.chunks(1 + IMAGE_BLOCK_BYTES) {
        let at = usize::from(block[0]) * IMAGE_BLOCK_BYTES;
        bytes[at..at + block.len() - 1].copy_from_slice(&block[1..]);
    }
    ext4_volume(&bytes);
    let mut repaired = bytes.clone();
    ext4_checksums::repair(&mut repaired);
    if repaired != bytes {
        ext4_volume(&repaired);
    }
}

fn ext4_volume(image: &[u8]) {
    let media = Media::new(MediaConfig {
        name: "fuzz".into(),
        size_bytes: IMAGE_BYTES as u64,
        logical_block_bytes: 512,
        can_discard: false,
        seed: 1,
    });
    for (n, block) in image.chunks(IMAGE_BLOCK_BYTES).enumerate() {
        if block.iter().any(|&byte| byte != 0) {
            media.load((n * IMAGE_BLOCK_BYTES) as u64, block);
        }
    }
    let mut disk = media.open(DiskConfig { write: false, queue_depth: 1, latency_steps_max: 0, seed: 1 });
    if let Ok(mut volume) = Ext4::open(&mut disk) {
        read_volume(&mut volume, &mut disk);
    }
}

/// Bytes of one piece and of one block of a sparse XFS image, and of its inodes.
const XFS_PIECE_BYTES: usize = 512;
const XFS_BLOCK_BYTES: usize = 4096;
const XFS_INODE_BYTES: usize = 512;

/// An XFS volume from a sparse image: two bytes (which piece of 512 bytes, little-endian) and that piece, over and over; the rest is
/// zero. Checksums are made good, then it is like `ext4`.
pub fn xfs(data: &[u8]) {
    let mut blocks = BTreeMap::new();
    for piece in data.chunks(2 + XFS_PIECE_BYTES) {
        let [low, high, bytes @ ..] = piece else {
            continue;
        };
        let at = usize::from(u16::from_le_bytes([*low, *high])) * XFS_PIECE_BYTES;
        let block: &mut [u8; XFS_BLOCK_BYTES] =
            blocks.entry(at / XFS_BLOCK_BYTES).or_insert([0; XFS_BLOCK_BYTES]);
        block[at % XFS_BLOCK_BYTES..][..bytes.len()].copy_from_slice(bytes);
    }
    let media = Media::new(MediaConfig {
        name: "fuzz".into(),
        size_bytes: 32 << 20,
        logical_block_bytes: XFS_BLOCK_BYTES as u32,
        can_discard: false,
        seed: 1,
    });
    for (index, block) in &mut blocks {
        for at in (0..XFS_BLOCK_BYTES).step_by(XFS_PIECE_BYTES) {
            xfs_seal::seal_at(block, at, XFS_BLOCK_BYTES, XFS_INODE_BYTES);
        }
        media.load((index * XFS_BLOCK_BYTES) as u64, &block[..]);
    }
    let mut disk = media.open(DiskConfig { write: false, queue_depth: 1, latency_steps_max: 0, seed: 1 });
    if let Ok(mut volume) = Xfs::open(&mut disk) {
        read_volume(&mut volume, &mut disk);
    }
}

/// Reads all that there is to read, and checks what `hal::volume` promises.
fn read_volume(volume: &mut dyn Volume, disk: &mut dyn BlockDevice) {
    let (mut window, mut from) = (Window::default(), Cursor::default());
    for _ in 0..IMAGE_SWEEPS_MAX {
        let swept = volume.sweep(disk, from, &mut window);
        if swept.is_ok() {
            check_window(&window, volume.info().root);
        }
        match swept {
            Ok(Swept::More(next)) => {
                assert!(next > from, "a sweep gets on: {from:?}, then {next:?}");
                from = next;
            }
            Ok(Swept::Done) | Err(_) => break,
        }
    }
    let mut reached = 0;
    let _ = volume.used(disk, &mut |range| {
        assert!(range.start >= reached && range.start < range.end, "ascending and disjoint: {range:?}");
        reached = range.end;
    });
}

/// What `hal::volume` promises of a window of a volume with this root.
fn check_window(window: &Window, root: u64) {
    assert!(window.items.windows(2).all(|pair| pair[0].inode < pair[1].inode), "items ascend");
    for item in &window.items {
        let extents = &window.extents[item.extents.start as usize..item.extents.end as usize];
        let mut reached = 0;
        for extent in extents {
            assert!(extent.logical >= reached && extent.len > 0, "extents ascend: {extents:?}");
            assert!(extent.physical.checked_add(extent.len).is_some(), "an extent ends");
            reached = extent.logical.saturating_add(extent.len);
        }
        for name in &window.names[item.names.start as usize..item.names.end as usize] {
            let name = window.get(&name.name);
            assert!((1..=255).contains(&name.len()) && !name.contains(&b'/') && !name.contains(&0));
        }
        let xattrs = &window.xattrs[item.xattrs.start as usize..item.xattrs.end as usize];
        let bytes: usize =
            xattrs.iter().map(|x| window.get(&x.name).len() + window.get(&x.value).len()).sum();
        assert!(xattrs.len() <= ITEM_XATTRS_MAX && bytes <= ITEM_XATTR_BYTES_MAX, "attributes have bounds");
        assert!(item.inode != root || item.kind == ItemKind::Directory, "the root is a directory");
        let own_parent = item.kind == ItemKind::Directory && item.parent == item.inode;
        assert_eq!(
            own_parent,
            item.inode == root,
            "the root is its own parent, and nothing else is: {item:?}"
        );
        if let Payload::Inline(bytes) = &item.payload {
            assert!(window.get(bytes).len() as u64 <= item.size, "inline contents end with the file");
        }
    }
}

/// CRC-32 (IEEE), bit by bit: the harness's own.
fn crc32(bytes: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
    }
    (!crc).to_le_bytes()
}
