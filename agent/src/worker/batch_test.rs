//! Windows of two or three items through the cutter.

use windlass_hal::block::Segment;
use windlass_hal::volume::{Hints, Part, Payload, Timestamp};

use super::*;
use crate::pack::plan::PLAN_BLOCKS_MAX;

const BLOCK: u64 = 4096;
const SHAPE: Shape = Shape { block_bytes: 4096, row_blocks: 4, frame_bytes: 512 << 10 };

/// A file and its extents (logical block, blocks, state); the device address is the logical one plus 1 GiB.
fn add(window: &mut Window, inode: u64, size: u64, extents: &[(u64, u64, ExtentState)], part: Part) {
    let start = window.extents.len() as u32;
    window.extents.extend(extents.iter().map(|&(at, blocks, state)| Extent {
        logical: at * BLOCK,
        physical: (1 << 30) + at * BLOCK,
        len: blocks * BLOCK,
        state,
    }));
    window.items.push(Item {
        inode,
        generation: 1,
        kind: ItemKind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        links: 1,
        rdev: (0, 0),
        size,
        atime: Timestamp::default(),
        mtime: Timestamp::default(),
        ctime: Timestamp::default(),
        btime: None,
        flags: 0,
        project: 0,
        hints: Hints::NONE,
        parent: 0,
        payload: Payload::None,
        extents: start..window.extents.len() as u32,
        names: 0..0,
        xattrs: 0..0,
        part,
        fault: None,
    });
}

fn begin(cutter: &mut Cutter, window: Window, verdict: Verdict, next_inode: u64) {
    let verdicts = vec![verdict; window.items.len()];
    cutter.begin(Arc::new(window), verdicts, (next_inode, 0));
}

/// (item, base, count) of each group.
fn groups(batch: &Batch) -> Vec<(u32, u64, u32)> {
    batch.groups.iter().map(|g| (g.item, g.base, g.count)).collect()
}

use ExtentState::{Data, Opaque, Unwritten};

#[test]
fn a_file_is_cut_into_groups_and_its_last_block_is_as_long_as_its_bytes() {
    let mut window = Window::default();
    add(&mut window, 7, 5 * BLOCK + 100, &[(0, 6, Data)], Part::WHOLE);
    add(&mut window, 9, BLOCK, &[(0, 1, Data)], Part::WHOLE);
    let mut cutter = Cutter::new(SHAPE, (0, 0));
    begin(&mut cutter, window, Verdict::New, 20);
    let batch = cutter.next(Plan::default()).unwrap();
    assert_eq!(groups(&batch), [(0, 0, 4), (0, 4, 2), (1, 0, 1)]);
    assert!(batch.groups.iter().all(|g| g.run_count == 0), "all data needs no runs");
    assert_eq!((batch.places.len(), batch.plan.blocks.len()), (7, 7));
    let block = |outcome| batch.plan.blocks.iter().find(|b| b.outcome == outcome).unwrap();
    assert_eq!((block(5).item, block(5).block, block(5).len), (0, 5, 100));
    assert_eq!((block(6).item, block(6).block, block(6).len), (1, 0, 4096));
    assert_eq!(batch.end, (20, 0));
    assert!(batch.items.iter().all(|i| i.starts && i.last) && cutter.wants_window());
}

#[test]
fn holes_have_no_group_and_runs_say_the_rest() {
    let mut window = Window::default();
    add(&mut window, 7, 1 << 40, &[(9, 1, Data), (10, 1, Unwritten), (1 << 20, 4, Unwritten)], Part::WHOLE);
    // Allocated past the end: nothing of it belongs to the item.
    add(&mut window, 8, BLOCK, &[(0, 1, Data), (4, 8, Data)], Part::WHOLE);
    let mut cutter = Cutter::new(SHAPE, (0, 0));
    begin(&mut cutter, window, Verdict::New, u64::MAX);
    let batch = cutter.next(Plan::default()).unwrap();
    assert_eq!(groups(&batch), [(0, 8, 4), (0, 1 << 20, 4), (1, 0, 1)]);
    let runs = |at: usize| batch.location(&batch.groups[at], &SHAPE).1;
    assert_eq!(
        runs(0),
        [(RunKind::Hole, BLOCK), (RunKind::Data, BLOCK), (RunKind::Unwritten, BLOCK), (RunKind::Hole, BLOCK)]
    );
    assert_eq!(runs(1), [(RunKind::Unwritten, 4 * BLOCK)]);
    let outcomes: Vec<u32> = batch.plan.blocks.iter().map(|b| b.outcome).collect();
    assert_eq!(outcomes.len(), 2, "unwritten blocks are not read: {outcomes:?}");
    assert!(outcomes.contains(&1) && outcomes.contains(&8));
}

#[test]
fn a_part_is_cut_at_a_group_and_the_rest_is_carried_over_the_windows_edge() {
    let (mut first, mut second) = (Window::default(), Window::default());
    let size = 8 * BLOCK;
    let part = Part { first: true, last: false, from: 0, to: 5 * BLOCK };
    add(&mut first, 7, size, &[(0, 5, Data)], part);
    add(
        &mut second,
        7,
        size,
        &[(5, 3, Data)],
        Part { first: false, last: true, from: 5 * BLOCK, to: u64::MAX },
    );
    let mut cutter = Cutter::new(SHAPE, (0, 0));
    begin(&mut cutter, first, Verdict::New, 7);
    let batch = cutter.next(Plan::default()).unwrap();
    assert_eq!((groups(&batch), batch.end), (vec![(0, 0, 4)], (7, 4)));
    assert!(batch.items[0].starts && !batch.items[0].last);
    begin(&mut cutter, second, Verdict::New, 8);
    let batch = cutter.next(batch.plan).unwrap();
    assert_eq!((groups(&batch), batch.end), (vec![(0, 4, 4)], (8, 0)));
    assert_eq!(batch.groups[0].run_count, 0, "carried and new data are one run");
    let mut physical: Vec<u64> = batch.plan.pieces.iter().map(|p| p.physical).collect();
    physical.sort_unstable();
    assert_eq!(physical, [4, 5, 6, 7].map(|b| (1 << 30) + b * BLOCK));
    assert!(batch.items[0].last);
}

#[test]
fn what_is_committed_is_skipped_and_what_is_the_same_is_not_read() {
    let fill = || {
        let mut window = Window::default();
        add(&mut window, 6, 8 * BLOCK, &[(0, 8, Data)], Part::WHOLE);
        add(&mut window, 7, 8 * BLOCK, &[(0, 8, Data)], Part::WHOLE);
        window
    };
    let mut cutter = Cutter::new(SHAPE, (7, 4));
    begin(&mut cutter, fill(), Verdict::Changed, 8);
    let batch = cutter.next(Plan::default()).unwrap();
    assert_eq!((groups(&batch), batch.plan.blocks.len()), (vec![(1, 4, 4)], 4));
    let mut cutter = Cutter::new(SHAPE, (0, 0));
    begin(&mut cutter, fill(), Verdict::Same, 8);
    let batch = cutter.next(Plan::default()).unwrap();
    assert!(batch.groups.is_empty() && batch.plan.frames.is_empty() && batch.items.len() == 2);
}

#[test]
fn a_large_item_takes_several_batches_cut_between_groups() {
    let blocks = PLAN_BLOCKS_MAX as u64 + 6;
    let mut window = Window::default();
    add(&mut window, 7, blocks * BLOCK, &[(0, blocks, Data)], Part::WHOLE);
    let mut cutter = Cutter::new(SHAPE, (0, 0));
    begin(&mut cutter, window, Verdict::New, 8);
    let batch = cutter.next(Plan::default()).unwrap();
    assert_eq!((batch.plan.blocks.len(), batch.end), (PLAN_BLOCKS_MAX, (7, PLAN_BLOCKS_MAX as u64)));
    assert!(batch.items[0].starts && !batch.items[0].last && !cutter.wants_window());
    let batch = cutter.next(Plan::default()).unwrap();
    let base = PLAN_BLOCKS_MAX as u64;
    assert_eq!((groups(&batch), batch.end), (vec![(0, base, 4), (0, base + 4, 2)], (8, 0)));
    assert!(!batch.items[0].starts && batch.items[0].last);
    assert!(cutter.next(Plan::default()).is_none());
}

#[test]
fn lost_bytes_are_marked_in_the_rows_that_they_touch() {
    let mut window = Window::default();
    add(&mut window, 7, 12 * BLOCK, &[(0, 8, Data), (9, 3, Data)], Part::WHOLE);
    let mut cutter = Cutter::new(SHAPE, (0, 0));
    begin(&mut cutter, window, Verdict::New, 8);
    let mut batch = cutter.next(Plan::default()).unwrap();
    batch.lost.push((0, 3 * BLOCK + 10, 4 * BLOCK + 20));
    batch.lost.push((0, 8 * BLOCK, 10 * BLOCK));
    batch.lost.push((1, 0, BLOCK));
    let runs = |at: usize| batch.location(&batch.groups[at], &SHAPE).1;
    assert_eq!(runs(0), [(RunKind::Data, 3 * BLOCK + 10), (RunKind::Lost, BLOCK - 10)]);
    assert_eq!(runs(1), [(RunKind::Lost, 20), (RunKind::Data, 4 * BLOCK - 20)]);
    assert_eq!(
        runs(2),
        [(RunKind::Hole, BLOCK), (RunKind::Lost, BLOCK), (RunKind::Data, 2 * BLOCK)],
        "a hole cannot be lost"
    );
}

#[test]
fn data_without_an_address_gets_one_that_leads_back_to_its_file() {
    let mut window = Window::default();
    add(
        &mut window,
        7,
        6 * BLOCK,
        &[(0, 2, Opaque), (2, 1, Data), (3, 1, Opaque), (4, 1, Unwritten)],
        Part::WHOLE,
    );
    add(&mut window, 9, 3 * BLOCK, &[(0, 1, Opaque), (1, 2, Opaque)], Part::WHOLE);
    let mut cutter = Cutter::new(SHAPE, (0, 0));
    begin(&mut cutter, window, Verdict::New, 20);
    let batch = cutter.next(Plan::default()).unwrap();
    let runs: Vec<_> = batch.opaque.iter().map(|run| (run.inode, run.logical, run.len)).collect();
    assert_eq!(runs, [(7, 0, 2 * BLOCK), (7, 3 * BLOCK, BLOCK), (9, 0, 3 * BLOCK)]);
    // What the device gives comes first; no read spans two runs, and each leads back.
    let (device, opaque): (Vec<Segment>, Vec<Segment>) =
        batch.plan.reads.iter().partition(|read| read.device_offset < OPAQUE_FROM);
    assert_eq!(device.iter().map(|r| r.device_offset).collect::<Vec<_>>(), [(1 << 30) + 2 * BLOCK]);
    let places: Vec<_> = opaque.iter().map(|r| (batch.opaque_at(r.device_offset), r.len)).collect();
    let wanted = [(Some((7, 0)), 2 * BLOCK), (Some((7, 3 * BLOCK)), BLOCK), (Some((9, 0)), 3 * BLOCK)];
    assert_eq!(places, wanted);
    let last = opaque[2].device_offset;
    assert_eq!(batch.opaque_at(last + 3 * BLOCK - 1), Some((9, 3 * BLOCK - 1)));
    assert_eq!(batch.opaque_at(last + 3 * BLOCK), None);
    assert_eq!(batch.opaque_at(OPAQUE_FROM - 1), None);
    // To the tables it is data like any other.
    let (_, runs) = batch.location(&batch.groups[0], &SHAPE);
    assert_eq!(runs, []);
}

#[test]
fn a_row_says_no_more_runs_than_it_has_room_for() {
    use crate::limits::LOCATION_RUNS_MAX;
    let mut window = Window::default();
    // 64 blocks of 4 MiB in a row, every second 4 KiB of them there: sixteen times the runs that a row takes.
    let shape = Shape { block_bytes: 4 << 20, row_blocks: 64, frame_bytes: 4 << 20 };
    let extents: Vec<_> = (0..32_768).map(|n| (2 * n, 1, Data)).collect();
    add(&mut window, 9, 65_536 * BLOCK, &extents, Part::WHOLE);
    let mut cutter = Cutter::new(shape, (0, 0));
    begin(&mut cutter, window, Verdict::New, 10);
    let mut batch = cutter.next(Plan::default()).unwrap();
    let (places, runs) = batch.location(&batch.groups[0], &shape);
    assert_eq!((places.len(), runs.len()), (64, LOCATION_RUNS_MAX));
    assert_eq!(runs[..2], [(RunKind::Data, BLOCK), (RunKind::Hole, BLOCK)]);
    assert_eq!(runs[LOCATION_RUNS_MAX - 1].0, RunKind::Data, "the rest");
    assert_eq!(runs.iter().map(|run| run.1).sum::<u64>(), 65_536 * BLOCK);
    // What of the rest is lost is not called sound.
    batch.lost.push((0, 60_000 * BLOCK, 60_001 * BLOCK));
    let (_, runs) = batch.location(&batch.groups[0], &shape);
    assert_eq!((runs.len(), runs[LOCATION_RUNS_MAX - 1].0), (LOCATION_RUNS_MAX, RunKind::Lost));
    assert_eq!(runs.iter().map(|run| run.1).sum::<u64>(), 65_536 * BLOCK);
}

#[test]
fn a_file_may_end_where_all_offsets_end() {
    for size in [i64::MAX as u64, u64::MAX] {
        let mut window = Window::default();
        let last = (size / BLOCK).min((1 << 51) - 2);
        add(&mut window, 9, size, &[(0, 1, Data), (last, 1, Data)], Part::WHOLE);
        let mut cutter = Cutter::new(SHAPE, (0, 0));
        begin(&mut cutter, window, Verdict::New, 10);
        let batch = cutter.next(Plan::default()).unwrap();
        assert_eq!(batch.groups.len(), 2, "{size}");
        assert!(cutter.wants_window());
    }
}

#[test]
fn a_batch_ends_at_a_row_when_it_has_its_bytes() {
    let mut window = Window::default();
    add(&mut window, 7, 32 * BLOCK, &[(0, 32, Data)], Part::WHOLE);
    let mut cutter = Cutter::new(SHAPE, (0, 0));
    begin(&mut cutter, window, Verdict::New, 20);
    let plan = Plan { bytes_max: 9 * BLOCK, ..Plan::default() };
    let batch = cutter.next(plan).unwrap();
    assert_eq!((batch.plan.bytes, batch.end), (12 * BLOCK, (7, 12)), "three rows of four blocks");
    let rest = cutter.next(Plan::default()).unwrap();
    assert_eq!((rest.plan.bytes, rest.end), (20 * BLOCK, (20, 0)));
}
