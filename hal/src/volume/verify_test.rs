//! Two made-up volumes over one disk, equal but for one thing at a time. The sides deliver large items in parts of different sizes.

use std::ops::Range;

use super::*;
use crate::block::{Fault, FaultKind};
use crate::sim::disk::{DiskConfig, Media, MediaConfig};
use crate::volume::{Hints, ItemFault, Name, Part, Timestamp, UsedQuality, VolumeInfo, VolumeKind, Xattr};

/// An item with everything in it.
#[derive(Clone)]
struct Whole {
    item: Item,
    extents: Vec<Extent>,
    names: Vec<(Vec<u8>, u64)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    payload: Option<Vec<u8>>,
}

struct Fake {
    info: VolumeInfo,
    items: Vec<Whole>,
    /// Extents or names in a part.
    part: usize,
    /// Contents that `read_at` gives: those of the disk but for this.
    flip: Option<(u64, u64)>,
}

fn item(inode: u64, kind: ItemKind) -> Item {
    let time = Timestamp { secs: 5, nanos: 7 };
    Item {
        inode,
        generation: 1,
        kind,
        mode: 0o644,
        uid: 1,
        gid: 2,
        links: 1,
        rdev: (0, 0),
        size: 0,
        atime: time,
        mtime: time,
        ctime: time,
        btime: Some(time),
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

fn whole(inode: u64, kind: ItemKind) -> Whole {
    Whole { item: item(inode, kind), extents: vec![], names: vec![], xattrs: vec![], payload: None }
}

impl Fake {
    fn new(items: Vec<Whole>, part: usize) -> Fake {
        let info = VolumeInfo {
            kind: VolumeKind::Ext4,
            uuid: [0; 16],
            label: Vec::new(),
            block_bytes: 4096,
            size_bytes: 0,
            used_bytes: 0,
            inode_max: 100,
            inodes_used: 0,
            root: 2,
            state: None,
            written_secs: 0,
            created: Timestamp::default(),
            features: Vec::new(),
        };
        Fake { info, items, part, flip: None }
    }

    /// Puts one part of an item; where the next one begins.
    fn put(&self, whole: &Whole, within: u64, window: &mut Window) -> Option<u64> {
        let mut item = whole.item.clone();
        let first = within as usize;
        let count = whole.extents.len().max(whole.names.len());
        let next = (first + self.part < count).then_some(first + self.part);
        let end = next.unwrap_or(count);
        fn cut<T>(list: &[T], first: usize, end: usize) -> &[T] {
            &list[first.min(list.len())..end.min(list.len())]
        }
        item.extents.start = window.extents.len() as u32;
        window.extents.extend_from_slice(cut(&whole.extents, first, end));
        item.extents.end = window.extents.len() as u32;
        item.names.start = window.names.len() as u32;
        for (name, inode) in cut(&whole.names, first, end) {
            let name = window.put_bytes(name);
            window.names.push(Name { name, inode: *inode });
        }
        item.names.end = window.names.len() as u32;
        item.xattrs.start = window.xattrs.len() as u32;
        for (name, value) in whole.xattrs.iter().filter(|_| within == 0) {
            let (name, value) = (window.put_bytes(name), window.put_bytes(value));
            window.xattrs.push(Xattr { name, value });
        }
        item.xattrs.end = window.xattrs.len() as u32;
        if let Some(bytes) = &whole.payload {
            item.payload = Payload::Inline(window.put_bytes(bytes));
        }
        item.part = Part {
            first: within == 0,
            last: next.is_none(),
            from: within,
            to: next.map_or(u64::MAX, |n| n as u64),
        };
        window.items.push(item);
        next.map(|next| next as u64)
    }
}

impl Volume for Fake {
    fn info(&self) -> &VolumeInfo {
        &self.info
    }

    fn sweep(
        &mut self,
        _: &mut dyn BlockDevice,
        from: Cursor,
        window: &mut Window,
    ) -> Result<Swept, VolumeFault> {
        window.clear();
        for whole in self.items.iter().filter(|whole| whole.item.inode >= from.inode) {
            let within = if whole.item.inode == from.inode { from.within } else { 0 };
            // A window as small as the parts.
            if window.items.len() >= self.part {
                return Ok(Swept::More(Cursor { inode: whole.item.inode, within }));
            }
            if let Some(within) = self.put(whole, within, window) {
                return Ok(Swept::More(Cursor { inode: whole.item.inode, within }));
            }
        }
        Ok(Swept::Done)
    }

    fn item(
        &mut self,
        _: &mut dyn BlockDevice,
        inode: u64,
        within: u64,
        window: &mut Window,
    ) -> Result<Swept, VolumeFault> {
        window.clear();
        let Some(whole) = self.items.iter().find(|whole| whole.item.inode == inode) else {
            return Ok(Swept::Done);
        };
        Ok(match self.put(whole, within, window) {
            Some(within) => Swept::More(Cursor { inode, within }),
            None => Swept::Done,
        })
    }

    fn used(
        &mut self,
        _: &mut dyn BlockDevice,
        _: &mut dyn FnMut(Range<u64>),
    ) -> Result<UsedQuality, VolumeFault> {
        Ok(UsedQuality::Unknown)
    }

    fn read_at(
        &mut self,
        device: &mut dyn BlockDevice,
        inode: u64,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), Fault> {
        let missing = Fault { kind: FaultKind::Other, device_offset: offset, len: 0, errno: 0 };
        let whole = self.items.iter().find(|whole| whole.item.inode == inode).ok_or(missing)?;
        let extent =
            whole.extents.iter().find(|e| (e.logical..e.logical + e.len).contains(&offset)).ok_or(missing)?;
        device.read_at(extent.physical + offset - extent.logical, out)?;
        if let Some((_, at)) =
            self.flip.filter(|(of, at)| *of == inode && (offset..offset + out.len() as u64).contains(at))
        {
            out[(at - offset) as usize] ^= 1;
        }
        Ok(())
    }
}

fn volume() -> Vec<Whole> {
    let mut root = whole(2, ItemKind::Directory);
    root.names = (0..9u64).map(|n| (format!("name-{n}").into_bytes(), 11 + n % 3)).collect();
    let mut file = whole(11, ItemKind::File);
    file.item.size = 9 * 4096 - 100;
    file.extents = (0..8)
        .map(|n| Extent {
            logical: n * 4096 + 4096 * u64::from(n > 4),
            physical: 65536 + n * 8192 * u64::from(n > 2) + n * 4096,
            len: 4096,
            state: if n == 6 { ExtentState::Unwritten } else { ExtentState::Data },
        })
        .collect();
    file.xattrs = vec![(b"user.a".to_vec(), b"1".to_vec()), (b"user.b".to_vec(), b"2".to_vec())];
    let mut inline = whole(12, ItemKind::File);
    inline.item.size = 5;
    inline.payload = Some(b"hello".to_vec());
    vec![root, file, inline, whole(13, ItemKind::Fifo)]
}

/// What differs, as `inode field`, when the kernel's side is changed by `change`.
fn differences(choice: Choice<'_>, change: impl FnOnce(&mut Fake)) -> (Vec<String>, Verified) {
    let media = Media::new(MediaConfig {
        name: "verify".into(),
        size_bytes: 1 << 20,
        logical_block_bytes: 512,
        can_discard: false,
        seed: 1,
    });
    for at in (0..1 << 20).step_by(512) {
        media.load(at, &[(at / 512 % 251) as u8; 512]);
    }
    let mut device = media.open(DiskConfig { write: false, queue_depth: 1, latency_steps_max: 0, seed: 1 });
    let (mut raw, mut mounted) = (Fake::new(volume(), 3), Fake::new(volume(), 2));
    mounted.items[0].names.reverse();
    change(&mut mounted);
    let mut found = Vec::new();
    let done = verify(&mut raw, &mut mounted, &mut device, choice, &|| false, &mut |d: Difference| {
        assert_ne!(d.raw, d.mounted);
        found.push(format!("{} {}", d.inode, d.field));
    });
    (found, done.unwrap())
}

#[test]
fn equal_volumes_have_no_difference() {
    let (found, sums) = differences(Choice::All, |_| {});
    assert_eq!(found, [""; 0]);
    // Seven extents of data, the last of which is cut by 100 bytes, and five bytes inline.
    let wanted = Verified { items: 4, bytes: 7 * 4096 - 100 + 5, differences: 0, items_different: 0 };
    assert_eq!(sums, wanted);
    let (found, sums) = differences(Choice::Inodes(&[2, 11, 12, 13, 99]), |_| {});
    assert_eq!((found, sums), (vec![], wanted));
}

#[test]
fn each_difference_is_found_and_named() {
    type Change = fn(&mut Fake);
    let changes: &[(&str, Change)] = &[
        ("13 item", |v| drop(v.items.pop())),
        ("14 item", |v| v.items.push(whole(14, ItemKind::Socket))),
        ("13 type", |v| v.items[3].item.kind = ItemKind::Socket),
        ("11 generation", |v| v.items[1].item.generation = 2),
        ("11 mode", |v| v.items[1].item.mode = 0o600),
        ("11 uid", |v| v.items[1].item.uid = 0),
        ("11 gid", |v| v.items[1].item.gid = 0),
        ("11 links", |v| v.items[1].item.links = 0),
        ("13 device number", |v| v.items[3].item.rdev = (1, 0)),
        ("13 size", |v| v.items[3].item.size = 1),
        ("11 atime", |v| v.items[1].item.atime.nanos = 0),
        ("11 mtime", |v| v.items[1].item.mtime.secs = 0),
        ("11 ctime", |v| v.items[1].item.ctime.nanos = 0),
        ("11 btime", |v| v.items[1].item.btime = None),
        ("11 flags", |v| v.items[1].item.flags = 0x80),
        ("13 flags", |v| v.items[3].item.flags = 0x10),
        ("11 project id", |v| v.items[1].item.project = 9),
        ("11 hints", |v| v.items[1].item.hints.flags = Hints::NO_DEFRAGMENT),
        ("2 parent", |v| v.items[0].item.parent = 9),
        ("11 attribute", |v| v.items[1].xattrs[1].1.clear()),
        ("11 attribute", |v| drop(v.items[1].xattrs.pop())),
        ("2 name", |v| drop(v.items[0].names.pop())),
        ("2 name", |v| v.items[0].names[4].1 = 99),
        ("2 names", |v| v.items[0].names.push((b"name-1".to_vec(), 12))),
        ("11 extents", |v| v.items[1].extents.truncate(7)),
        ("11 extents", |v| v.items[1].extents[6].state = ExtentState::Data),
        ("11 extents", |v| v.items[1].extents[6].physical += 4096),
        ("12 contents", |v| v.items[2].payload = Some(b"hellO".to_vec())),
        ("11 contents", |v| v.flip = Some((11, 4096 * 6))),
        ("11 contents", |v| v.flip = Some((11, 4096 * 9 - 101))),
        ("11 fault", |v| {
            let fault = ItemFault { kind: ItemFaultKind::Damaged, device_offset: 0, rule: "broken" };
            v.items[1].item.fault = Some(fault);
        }),
    ];
    for (wanted, change) in changes {
        for choice in [Choice::All, Choice::Inodes(&[2, 11, 12, 13, 14])] {
            let (found, sums) = differences(choice, change);
            assert_eq!(found.first().map(String::as_str), Some(*wanted), "{choice:?}: {found:?}");
            assert_eq!(sums.items_different, 1, "{wanted}");
            assert!(
                found.iter().all(|one| one == wanted || wanted.ends_with("extents")),
                "{wanted}: {found:?}"
            );
        }
    }
    // A special file's other flags and project id are not reported by the kernel; bytes behind the end belong to no file.
    for change in [
        (|v| v.items[3].item.flags = 0x80) as Change,
        |v| v.items[3].item.project = 1,
        |v| v.flip = Some((11, 4096 * 9 - 100)),
    ] {
        assert_eq!(differences(Choice::All, change).0, [""; 0]);
    }
}

#[test]
fn samples_are_fair_and_repeatable() {
    let items: Vec<Whole> = (1..=100).map(|inode| whole(inode, ItemKind::Fifo)).collect();
    let mut volume = Fake::new(items, 7);
    let media = MediaConfig {
        name: "sample".into(),
        size_bytes: 4096,
        logical_block_bytes: 512,
        can_discard: false,
        seed: 1,
    };
    let config = DiskConfig { write: false, queue_depth: 1, latency_steps_max: 0, seed: 1 };
    let mut device = Media::new(media).open(config);
    let mut times = [0u32; 101];
    for seed in 0..2000 {
        let drawn = sample(&mut volume, &mut device, 10, seed).unwrap();
        assert_eq!(drawn.len(), 10);
        assert!(drawn.windows(2).all(|w| w[0] < w[1]));
        if seed % 500 == 0 {
            assert_eq!(drawn, sample(&mut volume, &mut device, 10, seed).unwrap());
        }
        drawn.iter().for_each(|&inode| times[inode as usize] += 1);
    }
    // 200 times each, give or take seven standard deviations.
    assert!(times[1..].iter().all(|n| (106..=294).contains(n)), "{times:?}");
    assert_eq!(sample(&mut volume, &mut device, 1000, 1).unwrap().len(), 100);
    assert_eq!(sample(&mut volume, &mut device, 0, 1).unwrap(), []);
}
