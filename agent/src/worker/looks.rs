//! Questions about volumes that wait in a node: it opens one volume after the other, and each may take long.
//!
//! A question without a reader is dropped: one of an earlier coordinator, and one that the same coordinator has asked again, as it does when
//! a backup is stopped and started. Otherwise a node would open volumes for hours in vain, and the whole backup would wait for it.
//!
//! Invariants: the newest question about volumes of a policy is answered; no two wait about the same. Does not: open. Source: ours.

use std::collections::VecDeque;

use crate::coordinator::ASK_BITS;
use crate::id::VolumeId;

/// Questions that wait at most: 64 policies with 64 volumes each. Beyond that the oldest goes, and its coordinator asks another node.
const LOOKS_MAX: usize = 4096;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look<T> {
    /// Its number: the coordinator's epoch, and within it a count.
    pub ask: u64,
    /// For a backup of this policy.
    pub policy: String,
    /// What is to be opened.
    pub volumes: Vec<VolumeId>,
    /// What is needed for that.
    pub with: T,
}

/// Those that wait.
#[derive(Clone, Debug)]
pub struct Looks<T>(VecDeque<Look<T>>);

impl<T> Default for Looks<T> {
    fn default() -> Looks<T> {
        Looks(VecDeque::new())
    }
}

impl<T> Looks<T> {
    /// One more: those that it makes useless go.
    pub fn add(&mut self, look: Look<T>) {
        let epoch = look.ask >> ASK_BITS;
        self.0.retain(|other| {
            let is_same = (&other.policy, &other.volumes) == (&look.policy, &look.volumes);
            other.ask >> ASK_BITS >= epoch && !is_same
        });
        if self.0.len() >= LOOKS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(look);
    }

    /// The next one, in the order in which they came.
    pub fn take(&mut self) -> Option<Look<T>> {
        self.0.pop_front()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(epoch: u64, count: u64, policy: &str, volume: u32) -> Look<()> {
        let ask = (epoch << ASK_BITS) + count;
        Look { ask, policy: policy.to_owned(), volumes: vec![VolumeId(volume)], with: () }
    }

    fn left(mut looks: Looks<()>) -> Vec<u64> {
        std::iter::from_fn(|| looks.take()).map(|look| look.ask & ((1 << ASK_BITS) - 1)).collect()
    }

    #[test]
    fn what_nobody_waits_for_is_not_looked_at() {
        let mut looks = Looks::default();
        for (count, policy, volume) in [(1, "a", 1), (2, "a", 2), (3, "b", 1), (4, "a", 1)] {
            looks.add(look(7, count, policy, volume));
        }
        assert_eq!(left(looks.clone()), [2, 3, 4], "asked again of the same");
        looks.add(look(8, 5, "c", 9));
        assert_eq!(left(looks), [5], "another coordinator asks");
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let mut looks = Looks::default();
        (0..LOOKS_MAX as u32 + 2).for_each(|volume| looks.add(look(1, u64::from(volume), "a", volume)));
        let left = left(looks);
        assert_eq!((left.len(), left[0]), (LOOKS_MAX, 2));
    }
}
