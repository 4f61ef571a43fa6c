//! What a mount shows at its top: folders and links that no volume has, and where the trees of points hang. Pure.
//!
//! | mounted | top |
//! |---|---|
//! | one point with one volume | the volume's tree; nodes are its inode numbers |
//! | one point with several | a folder per volume, called by its number |
//! | all points of a policy | `points/NUMBER`, `times/TIME` (a link to it), `latest` (a link to the newest) |
//!
//! The tree of an image is a folder with the file `disk.raw`.
//!
//! Invariants: a node's number is a function of the layout, so all that read it agree. Source: ours.

use windlass_hal::files::ROOT;
use windlass_hal::volume::{ItemKind, Timestamp};

use crate::civil::iso_utc;
use crate::id::{BackupId, VolumeId};

/// Bits of a node's number that are an inode number, where several trees are shown. Inodes above are refused (`EOVERFLOW`): ext4 has 32 bits, XFS
/// of a petabyte 43.
const INODE_BITS: u32 = 48;
/// Trees that one mount shows at most: what is left of the bits. Above: the newest.
pub const TREES_MAX: usize = 0x7fff;

/// Node of the item with the number of [`ROOT`] where nodes are inode numbers: an image's; no file system shows that inode.
const FIRST_NODE: u64 = 1 << 63;

/// A point as the layout needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shows {
    /// Its number.
    pub backup: BackupId,
    /// When it began, seconds since 1970.
    pub begun_secs: i64,
    /// Its volumes.
    pub volumes: Vec<VolumeId>,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A folder or link of the layout.
    Folder(usize),
    /// The top of a tree: its root directory, or the folder of an image.
    Top(usize),
    /// An item of a tree.
    Item(usize, u64),
}

/// A folder or link that no volume has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// Directory, or symlink with a target.
    pub kind: ItemKind,
    /// Of a link.
    pub target: Vec<u8>,
    /// Its time.
    pub time: Timestamp,
    /// Its entries, in the order in which they are listed.
    pub entries: Vec<(Vec<u8>, Place)>,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    folders: Vec<Folder>,
    trees: Vec<(BackupId, VolumeId)>,
    /// The top is the first tree.
    direct: bool,
}

fn folder(time_secs: i64, entries: Vec<(Vec<u8>, Place)>) -> Folder {
    let time = Timestamp { secs: time_secs, nanos: 0 };
    Folder { kind: ItemKind::Directory, target: Vec::new(), time, entries }
}

impl Layout {
    /// One point.
    pub fn point(point: &Shows) -> Layout {
        let trees: Vec<_> = point.volumes.iter().map(|&volume| (point.backup, volume)).collect();
        if trees.len() == 1 {
            return Layout { folders: Vec::new(), trees, direct: true };
        }
        let entry = |(tree, (_, volume)): (usize, &(BackupId, VolumeId))| {
            (volume.to_string().into_bytes(), Place::Top(tree))
        };
        let top = folder(point.begun_secs, trees.iter().enumerate().map(entry).collect());
        Layout { folders: vec![top], trees, direct: false }
    }

    /// All of `points`, which ascend; the newest where there are too many trees.
    pub fn points(points: &[Shows]) -> Layout {
        let mut layout = Layout { folders: vec![folder(0, Vec::new())], trees: Vec::new(), direct: false };
        let (mut numbers, mut times) = (Vec::new(), Vec::new());
        let mut room = TREES_MAX;
        let fits = points.iter().rev().take_while(|point| {
            let fits = point.volumes.len() <= room;
            room = room.saturating_sub(point.volumes.len());
            fits
        });
        let from = points.len() - fits.count();
        let newest = points.last().map_or(0, |point| point.begun_secs);
        for point in &points[from..] {
            let first = layout.trees.len();
            layout.trees.extend(point.volumes.iter().map(|&volume| (point.backup, volume)));
            let place = match point.volumes.len() {
                1 => Place::Top(first),
                _ => {
                    let volumes = point.volumes.iter().enumerate();
                    let entries =
                        volumes.map(|(at, volume)| (volume.to_string().into_bytes(), Place::Top(first + at)));
                    layout.add(folder(point.begun_secs, entries.collect()))
                }
            };
            numbers.push((point.backup.to_string().into_bytes(), place));
            let link = layout.link(&format!("../points/{}", point.backup), point.begun_secs);
            times.push((iso_utc(point.begun_secs).into_bytes(), link));
        }
        let latest = points.last().map(|point| layout.link(&format!("points/{}", point.backup), newest));
        let mut top = vec![
            (b"points".to_vec(), layout.add(folder(newest, numbers))),
            (b"times".to_vec(), layout.add(folder(newest, times))),
        ];
        top.extend(latest.map(|latest| (b"latest".to_vec(), latest)));
        layout.folders[0] = folder(newest, top);
        layout
    }

    fn add(&mut self, folder: Folder) -> Place {
        self.folders.push(folder);
        Place::Folder(self.folders.len() - 1)
    }

    fn link(&mut self, target: &str, secs: i64) -> Place {
        let target = target.as_bytes().to_vec();
        let time = Timestamp { secs, nanos: 0 };
        self.add(Folder { kind: ItemKind::Symlink, target, time, entries: Vec::new() })
    }

    /// The trees: point and volume of each.
    pub fn trees(&self) -> &[(BackupId, VolumeId)] {
        &self.trees
    }

    /// A folder.
    pub fn folder(&self, at: usize) -> Option<&Folder> {
        self.folders.get(at)
    }

    /// What a node's number means; `None`: it was never given out.
    pub fn place(&self, node: u64) -> Option<Place> {
        if self.direct {
            return Some(match node {
                ROOT => Place::Top(0),
                FIRST_NODE => Place::Item(0, ROOT),
                inode => Place::Item(0, inode),
            });
        }
        let (tree, inode) = ((node >> INODE_BITS) as usize, node & ((1 << INODE_BITS) - 1));
        let place = match (tree, inode) {
            (0, inode) => Place::Folder(usize::try_from(inode.checked_sub(ROOT)?).ok()?),
            (tree, 0) => Place::Top(tree - 1),
            (tree, inode) => Place::Item(tree - 1, inode),
        };
        let is_known = match place {
            Place::Folder(at) => at < self.folders.len(),
            Place::Top(tree) | Place::Item(tree, _) => tree < self.trees.len(),
        };
        is_known.then_some(place)
    }

    /// The number of a node; `None`: an inode number too large.
    pub fn node(&self, place: Place) -> Option<u64> {
        if self.direct {
            return match place {
                Place::Top(_) | Place::Folder(_) => Some(ROOT),
                Place::Item(_, ROOT) => Some(FIRST_NODE),
                Place::Item(_, inode) => Some(inode),
            };
        }
        let tree = |tree: usize| (tree as u64 + 1) << INODE_BITS;
        match place {
            Place::Folder(at) => Some(at as u64 + ROOT),
            Place::Top(at) => Some(tree(at)),
            Place::Item(at, inode) => (inode < 1 << INODE_BITS).then(|| tree(at) | inode),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(backup: u32, volumes: &[u32]) -> Shows {
        let volumes = volumes.iter().copied().map(VolumeId).collect();
        Shows { backup: BackupId(backup), begun_secs: 1_795_231_002 + i64::from(backup), volumes }
    }

    #[test]
    fn numbers_and_places_are_inverse() {
        let several = Layout::points(&[point(1, &[1]), point(2, &[1, 2]), point(5, &[2])]);
        assert_eq!(several.trees().len(), 4);
        for layout in [Layout::point(&point(7, &[3])), Layout::point(&point(7, &[3, 4])), several] {
            let items = (0..layout.trees.len())
                .flat_map(|tree| [Place::Top(tree), Place::Item(tree, ROOT), Place::Item(tree, 0x1234_5678)]);
            for place in (0..layout.folders.len()).map(Place::Folder).chain(items) {
                let node = layout.node(place).unwrap();
                assert_eq!(layout.place(node), Some(place), "{node:#x}");
            }
        }
        assert_eq!(Layout::point(&point(7, &[3, 4])).place(9 << INODE_BITS), None);
        assert_eq!(Layout::point(&point(7, &[3, 4])).node(Place::Item(0, 1 << INODE_BITS)), None);
    }

    #[test]
    fn the_top_has_points_times_and_the_newest() {
        let layout = Layout::points(&[point(1, &[1]), point(2, &[1, 2])]);
        let names = |at: usize| -> Vec<String> {
            let entries = layout.folder(at).unwrap().entries.iter();
            entries.map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
        };
        assert_eq!(names(0), ["points", "times", "latest"]);
        let Place::Folder(latest) = layout.folder(0).unwrap().entries[2].1 else { unreachable!() };
        assert_eq!(layout.folder(latest).unwrap().target, b"points/2");
        let Place::Folder(times) = layout.folder(0).unwrap().entries[1].1 else { unreachable!() };
        assert_eq!(names(times)[0], "2026-11-21T03:16:43Z");
    }
}
