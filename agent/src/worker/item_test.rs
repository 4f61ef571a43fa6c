//! Items as a window shows them, against rows made of the same.

use windlass_hal::volume::{
    Extent, ExtentState, Hints, ItemFault, ItemFaultKind, Name, Part, Timestamp, Xattr,
};

use super::*;
use crate::id::{KEY_END, KEY_START, Lin, VolumeId};
use crate::pack::reading::Reading;
use crate::worker::backup::Trust;
use crate::worker::batch::Shape;

const NOON: Timestamp = Timestamp { secs: 1000, nanos: 5 };

fn task() -> Task {
    Task {
        volume: VolumeId(1),
        backup: BackupId(2),
        shape: Shape { block_bytes: 4096, row_blocks: 4, frame_bytes: 512 << 10 },
        logical_block_bytes: 512,
        volume_block_bytes: 4096,
        reading: Reading { gap_bytes: 64 << 10, depth: 1 },
        trust: Trust { same_volume: true, settled_before_secs: 2000, ..Trust::default() },
        newest_secs_max: i64::MAX,
        wall_secs: 4000,
        from: KEY_START,
        to: KEY_END,
        flush_interval_ns: 0,
        commit_objects: 1,
        commit_pause_ns: 0,
        commit_interval_ns: 0,
    }
}

fn item(inode: u64, kind: ItemKind) -> Item {
    Item {
        inode,
        generation: 1,
        kind,
        mode: 0o644,
        uid: 1,
        gid: 2,
        links: 1,
        rdev: (0, 0),
        size: 5000,
        atime: NOON,
        mtime: NOON,
        ctime: NOON,
        btime: None,
        flags: 0,
        project: 0,
        hints: Hints::NONE,
        parent: 0,
        payload: Payload::None,
        extents: 0..0,
        names: 0..0,
        xattrs: 0..0,
        part: Part::WHOLE,
        fault: None,
    }
}

fn window(items: Vec<Item>) -> Window {
    Window { items, ..Window::default() }
}

/// The row that a backup writes of a window's item.
fn row(window: &Window, at: usize) -> ItemRow {
    let item = &window.items[at];
    let mut pending = Pending::default();
    pending.begin_part(window, item, &Task { backup: BackupId(1), ..task() });
    let attributes = pending.end();
    let lin = Lin { volume: VolumeId(1), inode: item.inode };
    ItemRow { lin, backup: BackupId(1), item: Some(attributes), gone: None }
}

#[test]
fn an_item_is_the_same_only_when_nothing_but_its_access_time_differs() {
    let mut old = window(vec![item(7, ItemKind::File)]);
    old.xattrs.push(Xattr { name: 0..1, value: 1..2 });
    old.bytes.extend_from_slice(b"av");
    old.items[0].xattrs = 0..1;
    let base = [row(&old, 0)];
    let verdict = |change: &dyn Fn(&mut Window)| {
        let mut new = Window { items: old.items.clone(), xattrs: old.xattrs.clone(), ..Window::default() };
        new.bytes.clone_from(&old.bytes);
        change(&mut new);
        judge(&new, &base, &task()).remove(0)
    };
    assert_eq!(verdict(&|_| {}), Verdict::Same);
    assert_eq!(verdict(&|w| w.items[0].atime.secs += 1), Verdict::Same);
    let changes: [&dyn Fn(&mut Window); 8] = [
        &|w| w.items[0].mtime.nanos += 1,
        &|w| w.items[0].mode = 0o600,
        &|w| w.items[0].size += 1,
        &|w| w.bytes[1] = b'x',
        &|w| w.items[0].xattrs = 0..0,
        &|w| w.items[0].ctime.secs = 2000,
        &|w| w.items[0].part.last = false,
        &|w| {
            let fault = ItemFault { kind: ItemFaultKind::Media, device_offset: 0, rule: "xattr block" };
            w.items[0].fault = Some(fault);
        },
    ];
    for (at, change) in changes.iter().enumerate() {
        assert_eq!(verdict(change), Verdict::Changed, "change {at}");
    }
    assert_eq!(verdict(&|w| w.items[0].generation = 2), Verdict::New, "the number was used again");
    assert_eq!(verdict(&|w| w.items[0].kind = ItemKind::Directory), Verdict::New);
    assert_eq!(verdict(&|w| w.items[0].inode = 8), Verdict::New);
}

#[test]
fn an_image_and_what_had_a_fault_are_always_read() {
    let new = window(vec![item(7, ItemKind::Image), item(8, ItemKind::File), item(9, ItemKind::File)]);
    let mut base = [row(&new, 0), row(&new, 1), row(&new, 2)];
    if let Some(attributes) = &mut base[1].item {
        attributes.fault = "unreadable on the device".into();
    }
    base[2].item = None;
    assert_eq!(judge(&new, &base, &task()), [Verdict::Changed, Verdict::Changed, Verdict::New]);
}

#[test]
fn an_item_whose_row_is_unsure_is_read_though_nobody_wrote_to_the_volume() {
    let new = window(vec![item(7, ItemKind::File)]);
    let unwritten = Task { trust: Trust { unwritten: true, ..task().trust }, ..task() };
    let mut base = [row(&new, 0)];
    assert_eq!(judge(&new, &base, &unwritten), [Verdict::Same]);
    if let Some(attributes) = &mut base[0].item {
        attributes.unsure = true;
    }
    assert_eq!(judge(&new, &base, &unwritten), [Verdict::Changed]);
}

/// What is said of an item that looks as in the last point.
fn verdict(kind: ItemKind, change: &dyn Fn(&mut Item), trust: Trust) -> Verdict {
    let mut of = window(vec![item(7, kind)]);
    change(&mut of.items[0]);
    let base = [row(&of, 0)];
    judge(&of, &base, &Task { trust, ..task() }).remove(0)
}

#[test]
fn a_file_changed_just_before_the_last_point_was_frozen_is_read_once_more() {
    let trust = task().trust;
    let at = |secs| move |item: &mut Item| item.ctime = Timestamp { secs, nanos: 999_999_999 };
    assert_eq!(verdict(ItemKind::File, &at(1999), trust), Verdict::Same);
    assert_eq!(verdict(ItemKind::File, &at(2000), trust), Verdict::Changed);
    assert_eq!(verdict(ItemKind::File, &at(2000), Trust { unwritten: true, ..trust }), Verdict::Same);
    assert_eq!(
        verdict(ItemKind::File, &at(1999), Trust { settled_before_secs: i64::MIN, ..trust }),
        Verdict::Changed
    );
    // What is in the row is compared, and needs no proof.
    assert_eq!(verdict(ItemKind::Directory, &at(2000), trust), Verdict::Same);
    assert_eq!(verdict(ItemKind::Fifo, &at(2000), trust), Verdict::Same);
    let empty = |item: &mut Item| (item.size, item.ctime.secs) = (0, 2000);
    assert_eq!(verdict(ItemKind::File, &empty, trust), Verdict::Same);
}

#[test]
fn nothing_of_another_volume_is_unchanged_and_no_file_whose_times_no_kernel_wrote() {
    let trust = Trust { created: Timestamp { secs: 5, nanos: 0 }, unwritten: true, ..task().trust };
    let other = Trust { same_volume: false, ..trust };
    for kind in [ItemKind::File, ItemKind::Directory, ItemKind::Symlink] {
        assert_eq!(verdict(kind, &|_| {}, trust), Verdict::Same);
        assert_eq!(verdict(kind, &|_| {}, other), Verdict::Changed);
    }
    let built: [&dyn Fn(&mut Item); 2] =
        [&|item| item.generation = 0, &|item| item.btime = Some(Timestamp { secs: 5, nanos: 0 })];
    for change in built {
        assert_eq!(verdict(ItemKind::File, change, trust), Verdict::Changed);
        assert_eq!(verdict(ItemKind::Directory, change, trust), Verdict::Same, "its listing is compared");
    }
}

#[test]
fn a_directory_is_the_same_only_with_the_same_names_of_the_same_items() {
    let listed = |names: &[(&[u8], u64)], last: bool| {
        let mut of = window(vec![item(7, ItemKind::Directory)]);
        for &(name, inode) in names {
            let name = of.put_bytes(name);
            of.names.push(Name { name, inode });
        }
        of.items[0].names = 0..names.len() as u32;
        of.items[0].part.last = last;
        of
    };
    let old = listed(&[(b"a", 20), (b"bc", 21)], true);
    let base = [row(&old, 0)];
    let said = |names: &[(&[u8], u64)]| judge(&listed(names, true), &base, &task()).remove(0);
    assert_eq!(said(&[(b"a", 20), (b"bc", 21)]), Verdict::Same);
    for names in [
        &[(&b"a"[..], 20)][..],
        &[(b"a", 20), (b"bc", 22)],
        &[(b"a", 20), (b"bd", 21)],
        &[(b"ab", 20), (b"c", 21)],
        &[(b"a", 20), (b"bc", 21), (b"d", 22)],
        &[],
    ] {
        assert_eq!(said(names), Verdict::Changed, "{names:?}");
    }
    let mut without = base.clone();
    without[0].item.as_mut().unwrap().listing = 0;
    assert_eq!(judge(&old, &without, &task()), [Verdict::Changed], "a row of an older program says nothing");
    let part = listed(&[(b"a", 20), (b"bc", 21)], false);
    assert_eq!(row(&part, 0).item.unwrap().listing, 0);
}

#[test]
fn what_is_gone_is_deleted_once() {
    let old = window([5, 6, 7].map(|inode| item(inode, ItemKind::File)).to_vec());
    let mut base = [row(&old, 0), row(&old, 1), row(&old, 2)];
    base[2].item = None;
    let first = base[0].item.clone().unwrap();
    let mut out = vec![(1, Gone::of(&first, 1))];
    deleted(&window(vec![item(6, ItemKind::File)]), &base, 4000, &mut out);
    let (inode, gone) = out.pop().unwrap();
    assert!(out.len() == 1 && inode == 5, "6 is there, 7 was deleted before");
    assert_eq!((gone.kind, gone.size, gone.mtime, gone.found_secs), (first.kind, 5000, NOON, 4000));
}

#[test]
fn lost_device_ranges_become_ranges_of_the_block() {
    let pieces = [
        PlanPiece { physical: 10_000, within: 0, len: 4096, at: 0 },
        PlanPiece { physical: 50_000, within: 4096, len: 4096, at: 4096 },
    ];
    let run = |lost: &[(u64, u64)]| {
        let mut found = Vec::new();
        let all = lost_ranges(&pieces, 6000, lost, |from, to| found.push((from, to)));
        (found, all)
    };
    assert_eq!(run(&[(10_100, 10_200)]), (vec![(100, 200)], false));
    assert_eq!(run(&[(0, 10_050), (50_000, 50_512)]), (vec![(0, 50), (4096, 4608)], false));
    assert_eq!(run(&[(51_904, 60_000)]), (vec![], false), "past the item's end nothing is lost");
    assert_eq!(run(&[(9000, 60_000)]), (vec![(0, 4096), (4096, 6000)], true));
}

#[test]
fn a_listing_in_parts_is_a_run_each_and_sorted() {
    let mut of = window(vec![item(7, ItemKind::Directory)]);
    for (at, name) in [b"b", b"a", b"c"].into_iter().enumerate() {
        let name = of.put_bytes(name);
        of.names.push(Name { name, inode: 20 + at as u64 });
    }
    of.items[0].names = 0..3;
    let mut pending = Pending::default();
    pending.begin_part(&of, &of.items[0], &task());
    let names: Vec<_> = (0..4).map_while(|n| pending.name(&of, n)).collect();
    assert_eq!(names, [(&b"a"[..], 21), (b"b", 20), (b"c", 22)]);
    assert_eq!(pending.run, 0);
    of.items[0].part.first = false;
    of.items[0].names = 2..3;
    pending.begin_part(&of, &of.items[0], &task());
    assert_eq!((pending.run, pending.name(&of, 0), pending.name(&of, 1)), (1, Some((&b"c"[..], 22)), None));
}

#[test]
fn a_row_names_eight_lost_ranges_and_what_is_allocated_past_the_end() {
    let mut of = window(vec![item(7, ItemKind::File)]);
    let extent = |logical, len| Extent { logical, physical: 1 << 20, len, state: ExtentState::Unwritten };
    of.extents = vec![extent(0, 8192), extent(8192, 4096)];
    let mut pending = Pending::default();
    let mut end = |extents, lost: u64| {
        of.items[0].extents = extents;
        pending.begin_part(&of, &of.items[0], &task());
        (0..lost).for_each(|at| pending.lost(at * 10, at * 10 + 5));
        pending.end()
    };
    assert_eq!(end(0..1, 0).allocated_to, 0, "the last block is the item's");
    let row = end(0..2, 10);
    assert_eq!(row.allocated_to, 12288);
    assert!(row.fault.starts_with("unreadable on the device: bytes 0..5, 10..15, "), "{}", row.fault);
    assert!(row.fault.ends_with("70..75 and 2 more ranges"), "{}", row.fault);
    assert_eq!(end(0..0, 1).fault, "unreadable on the device: bytes 0..5", "the next item starts anew");
}

#[test]
fn a_row_has_the_gaps_past_the_end_whatever_parts_they_come_in() {
    let extent = |block: u64, blocks: u64| Extent {
        logical: block * 4096,
        physical: 1 << 20,
        len: blocks * 4096,
        state: ExtentState::Unwritten,
    };
    let row = |size, extents: &[Extent], cut: u32| {
        let mut of = window(vec![item(7, ItemKind::File)]);
        of.extents = extents.to_vec();
        of.items[0].size = size;
        let mut pending = Pending::default();
        for (index, range) in [0..cut, cut..extents.len() as u32].into_iter().enumerate() {
            of.items[0].extents = range;
            of.items[0].part.first = index == 0;
            pending.begin_part(&of, &of.items[0], &task());
            pending.begin_part(&of, &of.items[0], &task());
        }
        let row = pending.end();
        (
            row.allocated_to / 4096,
            row.gaps.iter().map(|&(from, to)| (from / 4096, to / 4096)).collect::<Vec<_>>(),
        )
    };
    let apart = [extent(0, 2), extent(5, 1), extent(7, 1)];
    for cut in 0..=3 {
        assert_eq!(row(4097, &apart, cut), (8, vec![(2, 5), (6, 7)]), "{cut}");
        assert_eq!(row(0, &apart, cut), (8, vec![(2, 5), (6, 7)]), "{cut}: nothing of it is the item's");
        assert_eq!(
            row(3 * 4096, &apart, cut),
            (8, vec![(3, 5), (6, 7)]),
            "{cut}: a hole at the end is no gap"
        );
        assert_eq!(row(8 * 4096, &apart, cut), (0, vec![]), "{cut}");
    }
    assert_eq!(row(1, &[extent(3, 1)], 0), (4, vec![(0, 3)]), "the last block is a hole and stays one");
    let many: Vec<_> = (0..ITEM_GAPS_MAX as u64 + 5).map(|n| extent(1 + 2 * n, 1)).collect();
    let (to, gaps) = row(0, &many, 9);
    assert_eq!(
        (to, gaps.len(), gaps[0]),
        (2 * many.len() as u64, ITEM_GAPS_MAX, (0, 1)),
        "what is behind is joined"
    );
}

#[test]
fn of_equal_names_the_first_stays_and_the_others_are_named() {
    let mut window = Window::default();
    for (name, inode) in [("same", 20), ("other", 21), ("same", 22), ("same", 23), ("else", 24)] {
        let name = window.put_bytes(name.as_bytes());
        window.names.push(Name { name, inode });
    }
    window.items.push(Item { names: 0..5, ..item(9, ItemKind::Directory) });
    let mut pending = Pending::default();
    pending.begin_part(&window, &window.items[0], &task());
    let names: Vec<_> = (0..).map_while(|n| pending.name(&window, n)).collect();
    assert_eq!(names, [(&b"else"[..], 24), (b"other", 21), (b"same", 20)]);
    let fault = "two entries are called \"same\"; the one for inode 22 is left out, and 1 more such entries";
    assert_eq!(pending.end().fault, fault);
}

#[test]
fn an_item_of_more_than_a_row_takes_is_cut_and_named() {
    use crate::format::block::BlockBuilder;
    use crate::format::row::RowKind;
    use crate::limits::ITEM_XATTRS_MAX;
    let mut window = Window::default();
    for n in 0..ITEM_XATTRS_MAX + 3 {
        let name = window.put_bytes(format!("user.{n:05}").as_bytes());
        window.xattrs.push(Xattr { name, value: 0..1 });
    }
    let payload = window.put_bytes(&vec![7; ITEM_PAYLOAD_BYTES_MAX + 1]);
    let xattrs = 0..window.xattrs.len() as u32;
    let of = Item { xattrs, payload: Payload::Inline(payload), ..item(9, ItemKind::File) };
    window.items.push(of);
    let row = row(&window, 0);
    let attributes = row.item.as_ref().unwrap();
    assert_eq!(attributes.xattrs.len(), ITEM_XATTRS_MAX);
    assert_eq!(attributes.payload, RowPayload::None);
    assert!(attributes.fault.contains("3 extended attributes are left out"), "{}", attributes.fault);
    assert!(attributes.fault.contains("small contents"), "{}", attributes.fault);
    assert!(BlockBuilder::new(RowKind::Item).push(&crate::format::row::Row::Item(row.clone())).is_ok());
}

#[test]
fn a_fault_is_cut_between_characters() {
    let mut window = Window::default();
    window.items.push(item(9, ItemKind::Directory));
    let mut pending = Pending::default();
    pending.begin_part(&window, &window.items[0], &task());
    (0..400).for_each(|_| pending.blame("\u{fffd}"));
    let fault = pending.end().fault;
    assert!((ITEM_FAULT_BYTES_MAX - 3..=ITEM_FAULT_BYTES_MAX).contains(&fault.len()), "{}", fault.len());
}
