//! The set of object and segment names that the tables refer to, small enough to stay in memory.
//!
//! A process numbers its objects and segments with one counter, so what it committed is a few runs of consecutive numbers:
//! (epoch, node, boot) -> runs. A repository of a million objects takes some kilobytes.
//!
//! Invariants: runs of an owner are ascending, not empty, and do not touch. Bound: [`NAME_RUNS_MAX`] runs.
//! Does not: know sizes or live bytes; that is the object table's. Source: ours.

use std::collections::BTreeMap;

use super::limits::NAME_RUNS_MAX;
use crate::format::cursor::{Reader, Wire, WireFault};
use crate::id::{Boot, Epoch, NodeId, ObjectId};

type Owner = (Epoch, NodeId, Boot);

/// A set of [`ObjectId`]s.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NameSet {
    /// (owner, first count) -> last count, inclusive.
    runs: BTreeMap<(Owner, u32), u32>,
}

fn owner(id: &ObjectId) -> Owner {
    (id.epoch, id.node, id.boot)
}

impl NameSet {
    /// Runs held: what the bound counts.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Names held. Linear in the runs.
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|(&(_, first), &last)| u64::from(last - first) + 1).sum()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether `id` is in the set.
    pub fn contains(&self, id: &ObjectId) -> bool {
        self.run_at(id).is_some()
    }

    fn run_at(&self, id: &ObjectId) -> Option<(u32, u32)> {
        let (&(other, first), &last) = self.runs.range(..=(owner(id), id.count)).next_back()?;
        (other == owner(id) && id.count <= last).then_some((first, last))
    }

    /// The names, ascending.
    pub fn names(&self) -> impl Iterator<Item = ObjectId> + '_ {
        self.runs.iter().flat_map(|(&((epoch, node, boot), first), &last)| {
            (first..=last).map(move |count| ObjectId { epoch, node, boot, count })
        })
    }

    /// The runs of `owner` that reach into `first..=last`, ascending.
    fn overlapping(&self, owner: Owner, first: u32, last: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        let before = self.runs.range(..(owner, first)).next_back().filter(|((other, _), _)| *other == owner);
        let from = before.map_or((owner, first), |(key, _)| *key);
        self.runs
            .range(from..=(owner, last))
            .map(|(&(_, start), &end)| (start, end))
            .filter(move |&(_, end)| end >= first)
    }

    /// Takes up to `runs` runs out, the first ones.
    pub fn take_runs(&mut self, runs: usize) -> NameSet {
        let rest = self.runs.keys().nth(runs).copied();
        let rest = rest.map(|key| self.runs.split_off(&key)).unwrap_or_default();
        NameSet { runs: std::mem::replace(&mut self.runs, rest) }
    }

    /// Names that are in both sets.
    pub fn and(&self, other: &NameSet) -> NameSet {
        let mut both = NameSet::default();
        for (&(owner, first), &last) in &self.runs {
            for (start, end) in other.overlapping(owner, first, last) {
                both.runs.insert((owner, start.max(first)), end.min(last));
            }
        }
        both
    }

    /// Adds all names of the other set.
    pub fn add(&mut self, other: &NameSet) {
        for (&(owner, first), &last) in &other.runs {
            // Runs that only touch are joined too.
            let touching: Vec<_> =
                self.overlapping(owner, first.saturating_sub(1), last.saturating_add(1)).collect();
            let (mut from, mut to) = (first, last);
            for (start, end) in touching {
                self.runs.remove(&(owner, start));
                (from, to) = (from.min(start), to.max(end));
            }
            self.runs.insert((owner, from), to);
        }
    }

    /// Takes all names of the other set out.
    pub fn subtract(&mut self, other: &NameSet) {
        for (&(owner, first), &last) in &other.runs {
            for (start, end) in self.overlapping(owner, first, last).collect::<Vec<_>>() {
                self.runs.remove(&(owner, start));
                if start < first {
                    self.runs.insert((owner, start), first - 1);
                }
                if end > last {
                    self.runs.insert((owner, last + 1), end);
                }
            }
        }
    }

    /// Closes the smallest gaps between runs of one owner until there are at most `runs_max`, or no owner has two runs: names in the gaps
    /// are in the set then.
    pub fn shrink(&mut self, runs_max: usize) {
        while self.runs.len() > runs_max {
            let pairs = self.runs.iter().zip(self.runs.iter().skip(1));
            let gaps = pairs.filter(|((before, _), (after, _))| before.0 == after.0);
            let smallest = gaps.min_by_key(|((_, last), (after, _))| after.1 - **last);
            let Some((before, after)) = smallest.map(|((before, _), (after, _))| (*before, *after)) else {
                return;
            };
            if let Some(last) = self.runs.remove(&after) {
                self.runs.insert(before, last);
            }
        }
    }

    /// Adds a name; `false` when it was there already.
    pub fn insert(&mut self, id: &ObjectId) -> bool {
        if self.contains(id) {
            return false;
        }
        let owner = owner(id);
        let (mut first, mut last) = (id.count, id.count);
        if let Some(next) = id.count.checked_add(1)
            && let Some(end) = self.runs.remove(&(owner, next))
        {
            last = end;
        }
        if let Some(before) = id.count.checked_sub(1)
            && let Some((start, _)) = self.run_at(&ObjectId { count: before, ..*id })
        {
            first = start;
        }
        self.runs.insert((owner, first), last);
        true
    }

    /// Takes all names of an epoch and of older ones out.
    pub fn retain_above(&mut self, epoch: Epoch) {
        let from = ((Epoch(epoch.0.saturating_add(1)), NodeId(0), Boot(0)), 0);
        self.runs = self.runs.split_off(&from);
    }

    /// Takes a name out; `false` when it was not there.
    pub fn remove(&mut self, id: &ObjectId) -> bool {
        let Some((first, last)) = self.run_at(id) else { return false };
        let owner = owner(id);
        self.runs.remove(&(owner, first));
        if first < id.count {
            self.runs.insert((owner, first), id.count - 1);
        }
        if id.count < last {
            self.runs.insert((owner, id.count + 1), last);
        }
        true
    }
}

impl Wire for NameSet {
    const BYTES_MIN: usize = 4;

    fn emit(&self, out: &mut Vec<u8>) {
        u32::try_from(self.runs.len()).unwrap_or(u32::MAX).emit(out);
        for (&((epoch, node, boot), first), last) in &self.runs {
            ObjectId { epoch, node, boot, count: first }.emit(out);
            last.emit(out);
        }
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self, WireFault> {
        let runs: Vec<(ObjectId, u32)> = reader.list(NAME_RUNS_MAX)?;
        let mut set = NameSet::default();
        let mut before: Option<(Owner, u32)> = None;
        for (id, last) in runs {
            let apart = match before {
                None => true,
                Some((other, end)) if other == owner(&id) => {
                    end.checked_add(1).is_some_and(|end| end < id.count)
                }
                Some((other, _)) => other < owner(&id),
            };
            if last < id.count || !apart {
                return Err(WireFault::Value);
            }
            before = Some((owner(&id), last));
            set.runs.insert((owner(&id), id.count), last);
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_gap_closes_first() {
        let id = |count, node| ObjectId { epoch: Epoch(1), node: NodeId(node), boot: Boot(1), count };
        let mut set = NameSet::default();
        for (count, node) in [(1, 1), (5, 1), (7, 1), (20, 1), (3, 2)] {
            set.insert(&id(count, node));
        }
        set.shrink(5);
        assert_eq!(set.runs(), 5);
        set.shrink(4);
        assert_eq!(set.names().map(|id| id.count).collect::<Vec<_>>(), [1, 5, 6, 7, 20, 3]);
        set.shrink(1);
        assert_eq!((set.runs(), set.len()), (2, 21), "runs of two owners stay apart");
    }

    #[test]
    fn sets_are_joined_cut_and_subtracted_run_by_run() {
        let set = |names: u32, from: u32| -> NameSet {
            let mut set = NameSet::default();
            let id = |count| ObjectId { epoch: Epoch(1), node: NodeId(count / 4), boot: Boot(1), count };
            (0..8).filter(|at| names >> at & 1 == 1).for_each(|at| assert!(set.insert(&id(from + at))));
            set
        };
        for a in 0..256 {
            for b in 0..256 {
                let (left, right) = (set(a, 0), set(b, 0));
                assert_eq!(left.and(&right), set(a & b, 0));
                let mut sum = left.clone();
                sum.add(&right);
                assert_eq!(sum, set(a | b, 0));
                let mut rest = left;
                rest.subtract(&right);
                assert_eq!(rest, set(a & !b, 0));
            }
        }
    }

    #[test]
    fn it_behaves_like_a_plain_set() {
        let id = |count, node| ObjectId {
            epoch: Epoch(1),
            node: NodeId(node),
            boot: Boot(1),
            count: count as u32,
        };
        let mut plain = std::collections::BTreeSet::new();
        let mut set = NameSet::default();
        let mut seed = 1u64;
        for step in 0..20_000 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let name = id((seed >> 40) % 40, (seed >> 60) as u32 & 1);
            if seed >> 33 & 1 == 0 {
                assert_eq!(set.insert(&name), plain.insert(name));
            } else {
                assert_eq!(set.remove(&name), plain.remove(&name));
            }
            assert_eq!(set.len(), plain.len() as u64);
            if step % 100 == 0 {
                assert!((0..40).all(|count| set.contains(&id(count, 0)) == plain.contains(&id(count, 0))));
                let mut bytes = Vec::new();
                set.emit(&mut bytes);
                assert_eq!(NameSet::parse(&mut Reader::new(&bytes)).as_ref(), Ok(&set));
            }
        }
        assert!(set.insert(&id(u64::from(u32::MAX), 0)) && set.contains(&id(u64::from(u32::MAX), 0)));
    }
}
