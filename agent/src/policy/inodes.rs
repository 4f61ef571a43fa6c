//! A set of inode numbers: sparse pages of bits, with a bound.
//!
//! A page covers 4096 inode numbers in 512 bytes. ext4 fills its numbers from below, so its set is a bitmap (16 bytes of set for
//! every 128 inodes); XFS spreads 64-bit numbers over the device, and pages that hold none cost nothing.
//!
//! Bound: [`INODE_SET_BYTES_MAX`]. At 640 bytes a page (tree and allocator included) it holds 26 thousand pages, which is 107
//! million inodes when they are dense: a file system of 1.7 TB at mke2fs's default of one inode per 16 KiB, all of them in use.
//! When it is reached, [`InodeSet::insert`] refuses and the set is as before.
//!
//! Does not: shrink. Source: ours.

use std::collections::BTreeMap;

/// Most bytes that a set takes.
pub const INODE_SET_BYTES_MAX: usize = 16 << 20;

const PAGE_BITS: u64 = 4096;
const PAGE_WORDS: usize = (PAGE_BITS / 64) as usize;
/// A page, its allocation's slack, and its share of the tree (nodes are at least half full).
const PAGE_COST_BYTES: usize = 640;
const PAGES_MAX: usize = INODE_SET_BYTES_MAX / PAGE_COST_BYTES;

/// The set is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A set of inode numbers. Empty sets take no memory.
#[derive(Debug, Default)]
pub struct InodeSet {
    pages: BTreeMap<u64, Box<[u64; PAGE_WORDS]>>,
}

impl InodeSet {
    /// An empty set.
    pub fn new() -> InodeSet {
        InodeSet::default()
    }

    /// Adds `inode`; whether it was new.
    pub fn insert(&mut self, inode: u64) -> Result<bool, Full> {
        let (page, word, bit) = place(inode);
        if !self.pages.contains_key(&page) && self.pages.len() >= PAGES_MAX {
            return Err(Full);
        }
        let word = &mut self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE_WORDS]))[word];
        let new = *word & bit == 0;
        *word |= bit;
        Ok(new)
    }

    /// Takes `inode` out; whether it was there.
    pub fn remove(&mut self, inode: u64) -> bool {
        let (page, word, bit) = place(inode);
        let Some(page) = self.pages.get_mut(&page) else { return false };
        let was = page[word] & bit != 0;
        page[word] &= !bit;
        was
    }

    /// Takes the lowest inode out.
    pub fn pop_first(&mut self) -> Option<u64> {
        loop {
            let mut entry = self.pages.first_entry()?;
            let page = *entry.key();
            let Some((at, word)) = entry.get_mut().iter_mut().enumerate().find(|(_, word)| **word != 0)
            else {
                entry.remove();
                continue;
            };
            let bit = word.trailing_zeros();
            *word &= *word - 1;
            return Some(page * PAGE_BITS + at as u64 * 64 + u64::from(bit));
        }
    }

    /// Whether `inode` is in.
    pub fn contains(&self, inode: u64) -> bool {
        let (page, word, bit) = place(inode);
        self.pages.get(&page).is_some_and(|page| page[word] & bit != 0)
    }

    /// Takes out what is not in `other` too.
    pub fn keep_common(&mut self, other: &InodeSet) {
        self.pages.retain(|page, words| {
            let Some(others) = other.pages.get(page) else { return false };
            words.iter_mut().zip(others.iter()).for_each(|(word, other)| *word &= other);
            words.iter().any(|word| *word != 0)
        });
    }

    /// Whether nothing is in.
    pub fn is_empty(&self) -> bool {
        self.pages.values().flat_map(|page| page.iter()).all(|word| *word == 0)
    }

    /// How many are in. Walks all pages.
    pub fn count(&self) -> u64 {
        self.pages.values().flat_map(|page| page.iter()).map(|word| u64::from(word.count_ones())).sum()
    }
}

fn place(inode: u64) -> (u64, usize, u64) {
    let within = inode % PAGE_BITS;
    (inode / PAGE_BITS, (within / 64) as usize, 1 << (within % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_is_in_and_nothing_else() {
        let mut set = InodeSet::new();
        let inodes = [0, 1, 63, 64, 4095, 4096, 1 << 40, u64::MAX];
        for inode in inodes {
            assert_eq!(set.insert(inode), Ok(true));
            assert_eq!(set.insert(inode), Ok(false));
        }
        assert!(inodes.iter().all(|&inode| set.contains(inode)));
        assert!(
            ![2, 62, 65, 4094, 4097, (1 << 40) + 1, u64::MAX - 1].iter().any(|&inode| set.contains(inode))
        );
        assert_eq!(set.count(), inodes.len() as u64);
        assert!(set.remove(64) && !set.remove(64) && !set.contains(64));
        let popped: Vec<u64> = std::iter::from_fn(|| set.pop_first()).collect();
        assert_eq!(popped, [0, 1, 63, 4095, 4096, 1 << 40, u64::MAX]);
    }

    #[test]
    fn what_two_sets_have_in_common_is_kept() {
        let of = |inodes: &[u64]| {
            let mut set = InodeSet::new();
            inodes.iter().for_each(|&inode| assert!(set.insert(inode).is_ok()));
            set
        };
        let other = of(&[2, 70, 5000, 9000]);
        let mut set = of(&[1, 2, 5000, 1 << 40]);
        set.keep_common(&other);
        assert!(set.contains(2) && set.contains(5000) && set.count() == 2);
        let mut apart = of(&[3, 6000, 1 << 41]);
        apart.keep_common(&other);
        assert!(apart.is_empty() && !set.is_empty());
        set.keep_common(&InodeSet::new());
        assert!(set.is_empty());
    }

    #[test]
    fn the_bound_refuses_and_keeps_the_rest() {
        let mut set = InodeSet::new();
        for page in 0..PAGES_MAX as u64 {
            set.insert(page * PAGE_BITS).unwrap();
        }
        assert_eq!(set.insert(PAGES_MAX as u64 * PAGE_BITS), Err(Full));
        assert_eq!(set.insert(1), Ok(true));
        assert_eq!(set.count(), PAGES_MAX as u64 + 1);
    }
}
