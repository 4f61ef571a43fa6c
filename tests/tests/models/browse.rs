//! Browsing and checking a point of a small repository in the real formats: what is there, and each kind of damage.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use windlass_agent::format::compress::Compressor;
use windlass_agent::format::frame::{FRAME_HEADER_BYTES, FRAME_OVERHEAD_BYTES, seal};
use windlass_agent::format::row::{
    BlockPlace, ItemAttributes, ItemRow, LocationRow, NameRow, Place, Row, RowPayload, RunKind,
};
use windlass_agent::format::seal::{Keys, Sealing, Secret};
use windlass_agent::id::{BackupId, Boot, Epoch, Lin, NodeId, ObjectId, VolumeId};
use windlass_agent::policy::select::Patterns;
use windlass_agent::progress::Progress;
use windlass_agent::read::decode::Unread;
use windlass_agent::read::lookup::Lookup;
use windlass_agent::read::range::ReadFault;
use windlass_agent::restore::browse::{self, BrowseFault};
use windlass_agent::restore::check::{self, CheckEnd, CheckOptions, CheckReport, Wrong};
use windlass_agent::store::StoreFault;
use windlass_agent::store::dir::DirStore;
use windlass_agent::store::retry::{Client, RetryPolicy};
use windlass_agent::store::throttle::Throttle;
use windlass_agent::table::read::TableReader;
use windlass_agent::table::segment::{SegmentMeta, SegmentSink, SegmentWriter};
use windlass_agent::table::source::{TableFault, TableLimits};
use windlass_hal::clock::SystemClock;
use windlass_hal::volume::ItemKind;
use windlass_tests::prng::Prng;
use windlass_tests::rows::wild_attributes;
use windlass_tests::workdir::Workdir;

const BLOCK: usize = 4096;
const VOLUME: VolumeId = VolumeId(3);
const BACKUP: BackupId = BackupId(7);
/// Blocks of the big file.
const BIG: u64 = 10 * BLOCK as u64 + 100;

fn object(count: u32) -> ObjectId {
    ObjectId { epoch: Epoch(1), node: NodeId(1), boot: Boot(5), count }
}

fn lin(inode: u64) -> Lin {
    Lin { volume: VOLUME, inode }
}

fn item(inode: u64, kind: ItemKind, size: u64, payload: RowPayload) -> Row {
    let mut p = Prng::new(inode);
    let base = wild_attributes(&mut p);
    let item = ItemAttributes {
        kind,
        size,
        payload,
        rows_from: BACKUP,
        links: if inode == 12 { 2 } else { 1 },
        fault: String::new(),
        ..base
    };
    Row::Item(ItemRow { lin: lin(inode), backup: BACKUP, item: Some(item), gone: None })
}

fn name(parent: u64, name: &str, inode: u64) -> Row {
    let name = name.as_bytes().to_vec();
    Row::Name(NameRow { parent: lin(parent), backup: BACKUP, run: 0, name, inode })
}

fn located(inode: u64, base: u64, blocks: Vec<BlockPlace>) -> Row {
    let (block_bytes, runs) = (BLOCK as u32, Vec::new());
    Row::Location(LocationRow { lin: lin(inode), base, backup: BACKUP, block_bytes, blocks, runs })
}

struct Repo {
    dir: Workdir,
    client: Arc<Client>,
    keys: Keys,
    metas: Vec<SegmentMeta>,
    /// What the big file holds.
    big: Vec<u8>,
}

struct Sink<'a>(&'a Client, Vec<SegmentMeta>, Vec<u8>);

impl SegmentSink for Sink<'_> {
    fn begin(&mut self) -> ObjectId {
        self.2.clear();
        object(900 + self.1.len() as u32)
    }

    fn put(&mut self, bytes: &[u8]) {
        self.2.extend_from_slice(bytes);
    }

    fn end(&mut self, meta: &SegmentMeta) -> Result<(), StoreFault> {
        self.1.push(*meta);
        self.0.put_unique(&meta.id.segment_key(), &[&self.2])
    }
}

/// Frames of one object: for each frame its blocks; returns the places in order.
fn put_object(client: &Client, keys: &Keys, count: u32, frames: &[&[&[u8]]]) -> Vec<BlockPlace> {
    let (id, mut body, mut places) = (object(count), Vec::new(), Vec::new());
    for blocks in frames {
        let plain = blocks.concat();
        let mut buffer = vec![0; plain.len() + FRAME_OVERHEAD_BYTES];
        let packed = Compressor::new(1).unwrap().compress(&plain, &mut buffer[FRAME_HEADER_BYTES..]);
        let zstd = packed.is_some();
        if !zstd {
            buffer[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + plain.len()].copy_from_slice(&plain);
        }
        let len = packed.unwrap_or(plain.len());
        let total = seal(&mut buffer, len, plain.len(), zstd, &keys.object(&id), body.len() as u64);
        let mut inner = 0;
        for block in *blocks {
            places.push(BlockPlace::Stored(Place {
                object: id,
                frame_offset: body.len() as u32,
                frame_bytes: total as u32,
                inner_offset: inner,
                len: block.len() as u32,
                digest: keys.digest(block),
            }));
            inner += block.len() as u32;
        }
        body.extend_from_slice(&buffer[..total]);
    }
    client.put_unique(&id.object_key(), &[&body]).unwrap();
    places
}

impl Repo {
    fn new() -> Repo {
        Repo::with(&mut |_| {})
    }

    /// `change` may spoil the rows before they are written.
    fn with(change: &mut dyn FnMut(&mut Vec<Row>)) -> Repo {
        Repo::apart(change, |_| false)
    }

    /// With a segment of their own for the rows that `is_apart` chooses.
    fn apart(change: &mut dyn FnMut(&mut Vec<Row>), is_apart: fn(&Row) -> bool) -> Repo {
        let dir = Workdir::new("browse").unwrap();
        let clock = Arc::new(SystemClock);
        let throttle = Arc::new(Throttle::new(clock.clone(), 0, 0));
        let store = DirStore::open(&dir.dir("repo").unwrap(), 1, throttle).unwrap();
        let client = Arc::new(Client::new(Arc::new(store), clock, RetryPolicy::ONCE, 1));
        let keys = Keys::new(&Secret::new([5; 32]), Sealing::Aes256Gcm);
        let mut p = Prng::new(1);
        let mut big = vec![0; BIG as usize];
        for block in [0, 1, 4, 5, 10] {
            let end = (BIG as usize).min((block + 1) * BLOCK);
            let bytes = p.bytes(end - block * BLOCK);
            big[block * BLOCK..end].copy_from_slice(&bytes);
        }
        big[..2000].fill(b'a');
        let part = |block: usize| &big[block * BLOCK..(BIG as usize).min((block + 1) * BLOCK)];
        let conf = vec![b'c'; 77];
        let one = put_object(&client, &keys, 1, &[&[part(0), part(1)], &[&conf]]);
        let two = put_object(&client, &keys, 2, &[&[part(4)], &[part(5)], &[part(10)]]);
        put_object(&client, &keys, 3, &[&[b"of another point"]]);
        let none = RowPayload::None;
        let mut rows = vec![
            item(2, ItemKind::Directory, 0, none.clone()),
            name(2, "big", 12),
            name(2, "dir", 13),
            name(2, "hello", 14),
            name(2, "link", 15),
            name(2, "zz", 12),
            item(12, ItemKind::File, BIG, none.clone()),
            located(12, 0, vec![one[0], one[1], BlockPlace::Empty, BlockPlace::Zero]),
            located(12, 4, vec![two[0], two[1]]),
            located(12, 8, vec![BlockPlace::Empty, BlockPlace::Empty, two[2]]),
            item(13, ItemKind::Directory, 0, none.clone()),
            name(13, "a.conf", 16),
            name(13, "deep", 17),
            item(14, ItemKind::File, 5, RowPayload::Inline(b"hello".to_vec())),
            item(15, ItemKind::Symlink, 3, RowPayload::Target(b"dir".to_vec())),
            item(16, ItemKind::File, 77, none.clone()),
            located(16, 0, vec![one[2]]),
            item(17, ItemKind::Directory, 0, none),
            name(17, "b.conf", 18),
            item(18, ItemKind::File, 0, RowPayload::None),
        ];
        change(&mut rows);
        let mut sink = Sink(&client, Vec::new(), Vec::new());
        let (apart, together): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(is_apart);
        for rows in [together, apart].into_iter().filter(|rows| !rows.is_empty()) {
            let mut writer = SegmentWriter::new(1, 1 << 20, &keys).unwrap();
            for row in &rows {
                writer.push(row.as_ref(), &mut sink).unwrap();
            }
            writer.finish(&mut sink).unwrap();
        }
        let metas = sink.1;
        Repo { dir, client, keys, metas, big }
    }

    fn lookup(&self) -> Lookup<Arc<Client>> {
        let fetch = Arc::clone(&self.client);
        Lookup::new(TableReader::new(fetch, &self.keys, TableLimits::default(), &self.metas).unwrap(), BACKUP)
    }

    fn file(&self, count: u32) -> PathBuf {
        self.dir.join("repo").join(object(count).object_key())
    }

    fn flip(&self, count: u32, at: usize) {
        let mut bytes = fs::read(self.file(count)).unwrap();
        bytes[at] ^= 1;
        fs::remove_file(self.file(count)).unwrap();
        fs::write(self.file(count), bytes).unwrap();
    }

    fn check(&self, read_data: bool) -> Result<CheckReport, CheckEnd> {
        let options = CheckOptions { read_data, location_blocks: 4, memory: 64 << 20 };
        let mut lookups = [(VOLUME, self.lookup())];
        check::run(&mut lookups, &self.client, &self.keys, options, &Progress::new())
    }

    fn cat(&self, path: &str, range: std::ops::Range<u64>) -> Result<Vec<u8>, BrowseFault> {
        let (mut lookup, mut out) = (self.lookup(), Vec::new());
        let (lin, item) = browse::resolve(&mut lookup, lin(2), path.as_bytes())?;
        let report = browse::cat(&mut lookup, &self.client, &self.keys, lin, &item, range, &mut out)?;
        assert_eq!((report.bytes, report.lost), (out.len() as u64, 0));
        Ok(out)
    }

    fn find(&self, path: &str, pattern: Option<&str>) -> Vec<String> {
        let mut lookup = self.lookup();
        let patterns = pattern.map(|pattern| Patterns::new(&[pattern.to_owned()], &[]).unwrap());
        let (lin, item) = browse::resolve(&mut lookup, lin(2), path.as_bytes()).unwrap();
        let mut found = Vec::new();
        let each = &mut |path: &[u8], _, _: &ItemAttributes| {
            found.push(String::from_utf8(path.to_vec()).unwrap());
            Ok(true)
        };
        browse::find(&mut lookup, lin, &item, path.as_bytes(), patterns.as_ref(), each).unwrap();
        found
    }
}

/// The faults as (object, frame offset is 0, what, paths).
fn faults(report: &CheckReport) -> Vec<(Option<u32>, Wrong, Vec<String>)> {
    assert!(!report.is_sound());
    let text = |paths: &[Vec<u8>]| paths.iter().map(|p| String::from_utf8_lossy(p).into_owned()).collect();
    report.faults.iter().map(|f| (f.place.map(|(id, _)| id.count), f.what, text(&f.paths))).collect()
}

#[test]
fn a_lost_row_in_the_middle_of_a_file_is_no_hole() {
    let is_middle = |row: &Row| matches!(row, Row::Location(row) if row.lin.inode == 12 && row.base == 4);
    let repo = Repo::apart(&mut |_| {}, is_middle);
    assert_eq!(repo.cat("big", 0..BIG).unwrap(), repo.big);
    let segment = repo.dir.join("repo").join(repo.metas[1].id.segment_key());
    fs::remove_file(segment).unwrap();
    for range in [0..BIG, 3 * BLOCK as u64..5 * BLOCK as u64, 8 * BLOCK as u64..BIG] {
        let result = repo.cat("big", range.clone());
        assert!(matches!(result, Err(BrowseFault::Rows(TableFault::Lost(_)))), "{range:?}: {result:?}");
    }
    assert_eq!(repo.cat("dir/a.conf", 0..77).unwrap(), vec![b'c'; 77]);
}

#[test]
fn a_check_counts_what_a_row_calls_lost_and_the_item_does_not_name() {
    assert_eq!(Repo::new().check(false).unwrap().incomplete, 0);
    let mut lost = |rows: &mut Vec<Row>| {
        for row in rows {
            if let Row::Location(row) = row
                && row.lin.inode == 12
            {
                row.runs = vec![(RunKind::Lost, (row.blocks.len() * BLOCK) as u64)];
            }
        }
    };
    let report = Repo::with(&mut lost).check(false).unwrap();
    assert_eq!(
        (report.incomplete, report.is_sound()),
        (1, true),
        "once for the item, and no damage of the store"
    );
}

#[test]
fn paths_are_resolved_and_what_is_wrong_with_them_is_said() {
    let repo = Repo::new();
    let mut lookup = repo.lookup();
    assert_eq!(browse::root(&mut lookup, VOLUME).unwrap().0, lin(2));
    for (path, inode) in
        [("/", 2), ("", 2), ("big", 12), ("//dir/./deep/", 17), ("dir/deep/b.conf", 18), ("link", 15)]
    {
        let (found, _) = browse::resolve(&mut lookup, lin(2), path.as_bytes()).unwrap();
        assert_eq!(found, lin(inode), "{path}");
    }
    let mut said =
        |path: &str| browse::resolve(&mut lookup, lin(2), path.as_bytes()).unwrap_err().to_string();
    assert_eq!(said("dir/none/x"), "/dir/none is not in this recovery point");
    assert_eq!(said("hello/x"), "/hello is a file, not a directory");
    assert!(said("link/deep").starts_with("/link is a symlink, which is not followed"));
    assert_eq!(said("dir/.."), "/dir/.. is not in this recovery point");
}

#[test]
fn directories_are_listed_in_order_and_a_listing_can_be_ended() {
    let repo = Repo::new();
    let mut lookup = repo.lookup();
    let root = lookup.item(lin(2)).unwrap().unwrap();
    for most in [2, 5] {
        let mut seen = Vec::new();
        browse::list(&mut lookup, lin(2), &root, &mut |name, _, item| {
            assert!(item.is_some());
            seen.push(String::from_utf8(name.to_vec()).unwrap());
            Ok(seen.len() < most)
        })
        .unwrap();
        assert_eq!(seen, ["big", "dir", "hello", "link", "zz"][..most]);
    }
    let file = lookup.item(lin(14)).unwrap().unwrap();
    let listed = browse::list(&mut lookup, lin(14), &file, &mut |_, _, _| Ok(true));
    assert!(matches!(listed, Err(BrowseFault::NotDirectory { .. })));
}

#[test]
fn find_matches_names_and_paths() {
    let repo = Repo::new();
    assert_eq!(repo.find("/", None).len(), 9, "the start is one of them");
    assert_eq!(repo.find("/", Some("*.conf")), ["dir/a.conf", "dir/deep/b.conf"]);
    assert_eq!(repo.find("/dir/deep", Some("?.conf")), ["dir/deep/b.conf"]);
    assert_eq!(repo.find("dir", Some("/dir/*")), ["dir/a.conf", "dir/deep"]);
    assert_eq!(repo.find("hello", None), ["hello"]);
    assert!(repo.find("/", Some("none*")).is_empty());
}

#[test]
fn files_are_read_in_order_and_in_part() {
    let repo = Repo::new();
    assert_eq!(repo.cat("big", 0..u64::MAX).unwrap(), repo.big);
    assert_eq!(repo.cat("hello", 0..99).unwrap(), b"hello");
    assert_eq!(repo.cat("hello", 1..3).unwrap(), b"el");
    assert_eq!(repo.cat("dir/a.conf", 70..77).unwrap(), b"ccccccc");
    assert_eq!(repo.cat("dir/deep/b.conf", 0..5).unwrap(), b"");
    let mut p = Prng::new(4);
    for _ in 0..100 {
        let (a, b) = (p.below(BIG + 9), p.below(BIG + 9));
        let (from, to) = (a.min(b), a.max(b));
        let wanted = &repo.big[from.min(BIG) as usize..to.min(BIG) as usize];
        assert!(repo.cat("big", from..to).unwrap() == wanted, "{from}..{to}");
    }
    assert!(matches!(repo.cat("dir", 0..1), Err(BrowseFault::NotFile { .. })));
    let before = repo.client.counts().get;
    let mut lookup = repo.lookup();
    let big = lookup.item(lin(12)).unwrap().unwrap();
    let tables = repo.client.counts().get - before;
    browse::cat(&mut lookup, &repo.client, &repo.keys, lin(12), &big, 0..BIG, &mut Vec::new()).unwrap();
    let gets = repo.client.counts().get - before - tables;
    assert!(gets <= 3 + tables, "near frames come together: {gets} GETs");
}

#[test]
fn a_file_is_read_up_to_its_damage() {
    let repo = Repo::new();
    repo.flip(2, 100);
    let (mut lookup, mut out) = (repo.lookup(), Vec::new());
    let (lin, item) = browse::resolve(&mut lookup, lin(2), b"big").unwrap();
    let ended = browse::cat(&mut lookup, &repo.client, &repo.keys, lin, &item, 0..BIG, &mut out);
    let Err(BrowseFault::Read(ReadFault::Unread {
        object: found,
        frame_offset: 0,
        offset,
        what: Unread::Damaged(_),
    })) = ended
    else {
        panic!("damage was not found: {ended:?}");
    };
    assert_eq!((found, offset), (object(2), 4 * BLOCK as u64));
    assert!(out == repo.big[..4 * BLOCK]);
    fs::remove_file(repo.file(2)).unwrap();
    let missing = repo.cat("big", 0..BIG);
    assert!(matches!(missing, Err(BrowseFault::Read(ReadFault::Unread { what: Unread::Missing, .. }))));
    assert!(repo.cat("big", 0..2 * BLOCK as u64).is_ok());
}

#[test]
fn a_sound_point_is_sound() {
    let repo = Repo::new();
    for read_data in [false, true] {
        let lists = repo.client.counts().list;
        let report = repo.check(read_data).unwrap();
        assert!(report.is_sound(), "{report:?}");
        assert_eq!((report.items, report.blocks, report.objects, report.objects_listed), (8, 6, 2, 3));
        assert_eq!(report.bytes, BIG + 5 + 77);
        let verified = if read_data { 4 * BLOCK as u64 + 100 + 77 } else { 0 };
        assert_eq!(report.bytes_verified, verified);
        assert_eq!(repo.client.counts().list, lists + 1);
    }
}

#[test]
fn a_flipped_bit_is_found_when_data_is_read() {
    let repo = Repo::new();
    repo.flip(1, 50);
    assert!(repo.check(false).unwrap().is_sound());
    let report = repo.check(true).unwrap();
    let found = faults(&report);
    assert!(matches!(&found[..], [(Some(1), Wrong::Damaged(_), paths)] if *paths == ["big"]), "{found:?}");
    assert_eq!((report.items_damaged, report.faults[0].place), (1, Some((object(1), 0))));
}

#[test]
fn a_missing_object_is_found_without_reading() {
    let repo = Repo::new();
    fs::remove_file(repo.file(1)).unwrap();
    for read_data in [false, true] {
        let report = repo.check(read_data).unwrap();
        let paths = vec!["big".to_owned(), "dir/a.conf".to_owned()];
        assert_eq!(faults(&report), [(Some(1), Wrong::Missing, paths)]);
        assert_eq!(report.items_damaged, 2);
    }
}

#[test]
fn a_short_object_is_found_without_reading() {
    let repo = Repo::new();
    let bytes = fs::read(repo.file(2)).unwrap();
    fs::remove_file(repo.file(2)).unwrap();
    fs::write(repo.file(2), &bytes[..bytes.len() - 1]).unwrap();
    for read_data in [false, true] {
        let (need, have) = (bytes.len() as u64, bytes.len() as u64 - 1);
        let found = faults(&repo.check(read_data).unwrap());
        assert_eq!(found, [(Some(2), Wrong::Short { need, have }, vec!["big".to_owned()])]);
    }
}

#[test]
fn a_missing_item_is_found() {
    let repo =
        Repo::with(&mut |rows| rows.retain(|row| !(matches!(row, Row::Item(_)) && row.lin() == lin(18))));
    let report = repo.check(false).unwrap();
    assert_eq!(faults(&report), [(None, Wrong::NoItem(lin(18)), vec!["dir/deep/b.conf".to_owned()])]);
    let missing = browse::resolve(&mut repo.lookup(), lin(2), b"dir/deep/b.conf");
    assert!(matches!(missing, Err(BrowseFault::NoItem { .. })));
    let repo = Repo::with(&mut |rows| rows.retain(|row| row.lin() != lin(2)));
    assert!(matches!(repo.check(false), Err(CheckEnd::NoRoot(VOLUME))));
}

#[test]
fn rows_that_contradict_each_other_are_found() {
    let spoil = |change: &dyn Fn(&mut LocationRow)| {
        let repo = Repo::with(&mut |rows| {
            for row in rows {
                if let Row::Location(row) = row
                    && (row.lin, row.base) == (lin(12), 4)
                {
                    change(row);
                }
            }
        });
        faults(&repo.check(true).unwrap())
    };
    let rules: [&dyn Fn(&mut LocationRow); 5] = [
        &|row| row.base = 5,
        &|row| row.block_bytes = 8192,
        &|row| row.block_bytes = 0,
        &|row| row.blocks.extend([BlockPlace::Empty; 4]),
        &|row| {
            if let BlockPlace::Stored(place) = &mut row.blocks[0] {
                place.len -= 1;
            }
        },
    ];
    for (index, rule) in rules.into_iter().enumerate() {
        let found = spoil(rule);
        assert!(
            matches!(&found[..], [(None, Wrong::Rows(_), paths)] if *paths == ["big"]),
            "{index} {found:?}"
        );
    }
    let wrong_digest = spoil(&|row| {
        if let BlockPlace::Stored(place) = &mut row.blocks[1] {
            place.digest[0] ^= 1;
        }
    });
    assert!(matches!(&wrong_digest[..], [(Some(2), Wrong::Damaged(_), _)]), "{wrong_digest:?}");
}

#[test]
fn a_directory_inside_itself_ends_no_walk() {
    let repo = Repo::with(&mut |rows| {
        for row in rows {
            if let Row::Name(row) = row
                && row.inode == 18
            {
                row.inode = 13;
            }
        }
    });
    let found = faults(&repo.check(false).unwrap());
    assert_eq!(found, [(None, Wrong::Loop, vec!["dir/deep/b.conf".to_owned()])]);
    assert!(repo.find("/", None).len() < 20);
}

#[test]
fn a_check_stops_when_asked() {
    let repo = Repo::new();
    let progress = Progress::new();
    progress.request_stop();
    let options = CheckOptions { read_data: true, location_blocks: 4, memory: 64 << 20 };
    let ended = check::run(&mut [(VOLUME, repo.lookup())], &repo.client, &repo.keys, options, &progress);
    assert!(matches!(ended, Err(CheckEnd::Cancelled)));
}
