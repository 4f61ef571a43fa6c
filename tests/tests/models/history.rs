//! The history of one path among 100 points, in rounds of requests: a large table, directories that change each time, unmerged segments.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::cell::RefCell;
use std::rc::Rc;

use windlass_agent::format::row::{ItemAttributes, ItemRow, NameRow, Row, RowPayload};
use windlass_agent::format::seal::{Keys, Sealing, Secret};
use windlass_agent::format::tail::TailKind;
use windlass_agent::id::{BackupId, Lin, ObjectId, VolumeId};
use windlass_agent::read::history::{What, history};
use windlass_agent::read::lookup::Lookup;
use windlass_agent::store::{ByteRange, StoreFault};
use windlass_agent::table::read::TableReader;
use windlass_agent::table::segment::{SegmentMeta, SegmentWriter};
use windlass_agent::table::source::{Fetch, TableLimits, Wanted};
use windlass_hal::volume::ItemKind;
use windlass_tests::history::Memory;
use windlass_tests::prng::Prng;
use windlass_tests::rows::wild_attributes;

const VOLUME: VolumeId = VolumeId(1);
const POINTS: u32 = 100;
/// Rounds of requests for the history of a path of three components: indexes and row blocks of the root, then one or two per component.
const ROUNDS_MAX: usize = 12;

/// Counts rounds: what is fetched at once is one.
#[derive(Clone)]
struct Rounds {
    memory: Memory,
    rounds: Rc<RefCell<Vec<String>>>,
}

impl Fetch for Rounds {
    fn fetch(
        &mut self,
        id: &ObjectId,
        kind: TailKind,
        range: ByteRange,
        afresh: bool,
    ) -> Result<Vec<u8>, StoreFault> {
        self.rounds.borrow_mut().push(format!("{} {range:?}", id.count));
        self.memory.fetch(id, kind, range, afresh)
    }

    fn fetch_all(&mut self, wanted: &[Wanted]) -> Vec<Result<Vec<u8>, StoreFault>> {
        self.rounds.borrow_mut().push(format!("{} at once", wanted.len()));
        wanted.iter().map(|one| self.memory.fetch(&one.id, one.kind, one.range, false)).collect()
    }
}

fn lin(inode: u64) -> Lin {
    Lin { volume: VOLUME, inode }
}

fn item(p: &mut Prng, inode: u64, backup: u32, kind: ItemKind, parent: u64) -> Row {
    let item = ItemAttributes {
        kind,
        parent,
        size: u64::from(backup),
        rows_from: BackupId(backup),
        payload: RowPayload::None,
        xattrs: Vec::new(),
        fault: String::new(),
        ..wild_attributes(p)
    };
    Row::Item(ItemRow { lin: lin(inode), backup: BackupId(backup), item: Some(item), gone: None })
}

fn name(dir: u64, backup: u32, name: &str, inode: u64) -> Row {
    let name = name.as_bytes().to_vec();
    Row::Name(NameRow { parent: lin(dir), backup: BackupId(backup), run: 0, name, inode })
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by(|a, b| {
        (a.lin(), a.as_ref().kind())
            .cmp(&(b.lin(), b.as_ref().kind()))
            .then(a.as_ref().key().cmp(&b.as_ref().key()))
    });
    rows
}

#[test]
fn the_history_of_a_path_takes_a_dozen_rounds_whatever_the_points() {
    let keys = Keys::new(&Secret::new([5; 32]), Sealing::Aes256Gcm);
    let (memory, p) = (Memory::default(), &mut Prng::new(1));
    // A root, /home, /home/docs with 200 names that is listed anew each time, and its file f, which is another item every tenth time.
    let of_backup = |p: &mut Prng, backup: u32| {
        let mut rows = vec![
            item(p, 5000, backup, ItemKind::Directory, 300),
            item(p, 9000 + u64::from(backup) / 10, backup, ItemKind::File, 0),
        ];
        for file in 0..200u64 {
            rows.push(name(5000, backup, &format!("file-{file:04}"), 20_000 + file));
        }
        if backup != 50 {
            rows.push(name(5000, backup, "f", 9000 + u64::from(backup) / 10));
        }
        if backup == 1 {
            rows.push(item(p, 2, 1, ItemKind::Directory, 2));
            rows.push(name(2, 1, "home", 300));
            rows.push(item(p, 300, 1, ItemKind::Directory, 2));
            rows.push(name(300, 1, "docs", 5000));
            rows.extend((10_000..40_000).map(|inode| item(p, inode, 1, ItemKind::File, 0)));
        }
        rows
    };
    let mut writer = SegmentWriter::new(1, 1 << 20, &keys).unwrap();
    // What a merge made of the first 92 points, and the segments of those since.
    let merged: Vec<Row> = (1..=92).flat_map(|backup| of_backup(p, backup)).collect();
    let mut segments: Vec<SegmentMeta> = memory.put_segments(&sorted(merged), &mut writer).unwrap();
    for backup in 93..=POINTS {
        let rows = sorted(of_backup(p, backup));
        segments.extend(memory.put_segments(&rows, &mut writer).unwrap());
    }
    let rounds = Rc::new(RefCell::new(Vec::new()));
    let fetch = Rounds { memory, rounds: Rc::clone(&rounds) };
    let reader = TableReader::new(fetch, &keys, TableLimits::default(), &segments).unwrap();
    let mut lookup = Lookup::new(reader, BackupId(POINTS));
    let points: Vec<BackupId> = (1..=POINTS).map(BackupId).collect();
    let (root, _) = lookup.root(VOLUME).unwrap().unwrap();
    let found = history(&mut lookup, root, &points, &[b"home", b"docs", b"f"]).unwrap();
    let rounds = rounds.borrow().clone();
    assert_eq!(found.entries.len(), POINTS as usize, "each point has a version of its own");
    for (entry, point) in found.entries.iter().zip(&points) {
        assert_eq!((entry.first, entry.last), (*point, *point));
        match &entry.what {
            What::Version(version) => {
                assert_eq!((version.written, version.item.size), (*point, u64::from(point.0)));
                assert_eq!(version.lin, lin(9000 + u64::from(point.0) / 10));
            }
            What::Absent(absent) => assert!(*point == BackupId(50) && absent.lives_on, "{absent:?}"),
        }
    }
    println!("{} rounds over {} segments", rounds.len(), segments.len());
    assert!(rounds.len() <= ROUNDS_MAX, "{} rounds of requests: {rounds:#?}", rounds.len());
}
