//! Windows that end before, at and behind a cut.

use windlass_hal::volume::{Extent, ExtentState, Hints, Item, ItemKind, Part, Payload, Timestamp};

use super::*;
use crate::id::KEY_START;

const SHAPE: Shape = Shape { block_bytes: 4096, row_blocks: 4, frame_bytes: 512 << 10 };
const BLOCK: u64 = 4096;

fn add(window: &mut Window, inode: u64, extents: &[(u64, u64)], part: Part) {
    let start = window.extents.len() as u32;
    window.extents.extend(extents.iter().map(|&(at, blocks)| Extent {
        logical: at * BLOCK,
        physical: at * BLOCK,
        len: blocks * BLOCK,
        state: ExtentState::Data,
    }));
    window.items.push(Item {
        inode,
        generation: 1,
        kind: ItemKind::File,
        mode: 0,
        uid: 0,
        gid: 0,
        links: 1,
        rdev: (0, 0),
        size: 100 * BLOCK,
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

fn window() -> Window {
    let mut window = Window::default();
    add(&mut window, 7, &[(0, 3)], Part::WHOLE);
    add(&mut window, 9, &[(0, 10), (20, 4)], Part::WHOLE);
    window
}

fn inodes(window: &Window) -> Vec<u64> {
    window.items.iter().map(|item| item.inode).collect()
}

/// Extents of the last item: (block, blocks).
fn last_extents(window: &Window) -> Vec<(u64, u64)> {
    let item = window.items.last().unwrap();
    let of_item = item.extents.start as usize..item.extents.end as usize;
    window.extents[of_item].iter().map(|e| (e.logical / BLOCK, e.len / BLOCK)).collect()
}

#[test]
fn items_at_the_cut_are_left_out_and_those_before_it_are_whole() {
    for (to, kept, ends) in [
        ((7, 0), vec![], true),
        ((8, 0), vec![7], true),
        ((9, 0), vec![7], true),
        ((10, 0), vec![7, 9], false),
        (KEY_END, vec![7, 9], false),
    ] {
        let mut window = window();
        assert_eq!(trim(&mut window, to, &SHAPE), ends, "{to:?}");
        assert_eq!(inodes(&window), kept, "{to:?}");
        assert!(window.items.iter().all(|item| item.part == Part::WHOLE));
    }
}

#[test]
fn an_item_is_cut_at_a_block() {
    for (blocks, extents) in [
        (4, vec![(0, 4)]),
        (12, vec![(0, 10)]),
        (20, vec![(0, 10)]),
        (24, vec![(0, 10), (20, 4)]),
        (400, vec![(0, 10), (20, 4)]),
    ] {
        let mut window = window();
        assert!(trim(&mut window, (9, blocks), &SHAPE));
        assert_eq!(last_extents(&window), extents, "{blocks}");
        let part = window.items[1].part;
        assert_eq!((part.first, part.last, part.to), (true, false, blocks * BLOCK));
        assert_eq!(window.items[0].part, Part::WHOLE);
    }
}

#[test]
fn a_cut_in_a_later_part_leaves_the_parts_before_it_alone() {
    let part = Part { first: false, last: false, from: 0, to: 16 * BLOCK };
    let cut = |blocks: u64| {
        let mut window = Window::default();
        add(&mut window, 9, &[(0, 16)], part);
        let ends = trim(&mut window, (9, blocks), &SHAPE);
        (ends, last_extents(&window), window.items[0].part.to / BLOCK)
    };
    assert_eq!(cut(20), (false, vec![(0, 16)], 16));
    assert_eq!(cut(16), (true, vec![(0, 16)], 16));
    assert_eq!(cut(12), (true, vec![(0, 12)], 12));
}

#[test]
fn stretches_are_judged() {
    assert!(is_sound(KEY_START, KEY_END, &SHAPE) && is_sound((1, 4), (1, 8), &SHAPE));
    for (from, to) in
        [((1, 0), (1, 0)), ((2, 0), (1, 0)), ((1, 3), (1, 8)), ((1, 4), (1, 9)), ((1, 0), (u64::MAX, 4))]
    {
        assert!(!is_sound(from, to, &SHAPE), "{from:?}..{to:?}");
    }
}

#[test]
fn an_image_is_cut_by_rows_and_a_file_system_by_inodes() {
    let info = |kind, size_bytes| VolumeInfo {
        kind,
        uuid: [0; 16],
        label: Vec::new(),
        block_bytes: 512,
        size_bytes,
        used_bytes: 0,
        inode_max: if kind == VolumeKind::Image { 1 } else { 1000 },
        inodes_used: 0,
        root: if kind == VolumeKind::Image { 1 } else { 2 },
        state: None,
        written_secs: 0,
        created: Timestamp::default(),
        features: Vec::new(),
    };
    assert_eq!(span(&info(VolumeKind::Ext4, 1 << 30), &SHAPE), ((1001, 0), INODE_GRAIN));
    assert_eq!(span(&info(VolumeKind::Image, 8 * BLOCK), &SHAPE), ((1, 8), 4));
    assert_eq!(span(&info(VolumeKind::Image, 8 * BLOCK + 512), &SHAPE), ((1, 12), 4));
    assert_eq!(span(&info(VolumeKind::Image, 512), &SHAPE), ((1, 4), 4));
}
