//! What a check found: faults by place, with the paths that need it.
//!
//! Invariants: the list is bounded, what does not fit is counted; names of what is missing or damaged are kept whatever the list holds.
//! Source: ours.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::foreign::name as printable;
use crate::format::fault::FormatFault;
use crate::id::{Lin, ObjectId};
use crate::log::limits::DAMAGED_RUNS_MAX;
use crate::log::names::NameSet;
use crate::progress::Progress;
use crate::read::decode::Unread;
use crate::restore::fault::{FAULT_PATH_BYTES_MAX, FAULTS_MAX};
use crate::table::lost::LostRows;

/// Most paths that one fault names; more are counted.
pub const FAULT_PATHS_MAX: usize = 8;
/// Where the faults of an object as a whole are collected: no frame begins there.
const WHOLE: u32 = u32::MAX;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// A name leads to an item that has no row.
    NoItem(Lin),
    /// The name is not one that a directory can hold.
    BadName,
    /// A directory is inside itself.
    Loop,
    /// Directories nest deeper than is followed; what is below was not checked.
    TooDeep,
    /// The item's rows contradict each other; which rule.
    Rows(&'static str),
    /// Rows of the item, or of its listing, are among those that cannot be read.
    Lost(LostRows),
    /// The object is not in the store.
    Missing,
    /// The object ends before the frame does.
    Short {
        /// Bytes that it should have at least.
        need: u64,
        /// Bytes that it has, when known.
        have: u64,
    },
    /// The frame, or a block in it, is damaged.
    Damaged(FormatFault),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::NoItem(lin) => write!(f, "no row for item {lin}"),
            Wrong::BadName => f.write_str("the name is not one that a directory can hold"),
            Wrong::Loop => f.write_str("the directory is inside itself"),
            Wrong::TooDeep => f.write_str("directories nest too deep here; what is below was not checked"),
            Wrong::Rows(rule) => write!(f, "the tables contradict themselves: {rule}"),
            Wrong::Lost(lost) => lost.fmt(f),
            Wrong::Missing => f.write_str("the object is missing"),
            Wrong::Short { need, have } => {
                write!(f, "the object is cut short: it has {have} bytes and needs {need}")
            }
            Wrong::Damaged(what) => what.fmt(f),
        }
    }
}

impl Wrong {
    /// What is wrong with a block that was not read; `None` when it was not asked for.
    pub(super) fn of(unread: Unread) -> Option<Wrong> {
        match unread {
            Unread::Missing => Some(Wrong::Missing),
            Unread::Short { have, need } => Some(Wrong::Short { need, have }),
            Unread::Damaged(what) => Some(Wrong::Damaged(what)),
            Unread::Ended => None,
        }
    }
}

/// One thing that is wrong, and who is affected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckFault {
    /// Object and frame offset, when it is about stored data. Of a missing object the first frame that was asked for.
    pub place: Option<(ObjectId, u32)>,
    /// What is wrong.
    pub what: Wrong,
    /// Paths that need it, from the volume's root; at most [`FAULT_PATHS_MAX`].
    pub paths: Vec<Vec<u8>>,
    /// How many there are in all.
    pub path_count: u64,
}

impl fmt::Display for CheckFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((object, offset)) = self.place {
            write!(f, "object {object}, byte {offset}: ")?;
        }
        write!(f, "{}", self.what)?;
        for (index, path) in self.paths.iter().enumerate() {
            let lead = if index == 0 { "; affects " } else { ", " };
            write!(f, "{lead}/{}", printable(path))?;
        }
        match self.path_count.saturating_sub(self.paths.len() as u64) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// An item that is being checked.
#[derive(Debug)]
pub(super) struct Subject {
    path: Vec<u8>,
    damaged: AtomicBool,
}

/// What faults are collected by: where, or whose. A missing or cut object is one fault, whatever is asked of it; so is a segment with lost rows.
pub(super) type FaultKey = (Option<(ObjectId, u32)>, Vec<u8>);

/// Faults as they are found, by any thread.
#[derive(Default)]
pub(super) struct Findings {
    /// Each with the path that was counted last.
    pub(super) faults: Mutex<BTreeMap<FaultKey, (CheckFault, Vec<u8>)>>,
    pub(super) dropped: AtomicU64,
    pub(super) items_damaged: AtomicU64,
    /// Names that are missing, and damaged.
    pub(super) lost: Mutex<(NameSet, NameSet)>,
}

impl Findings {
    /// Keeps the name of an object or segment that is not whole.
    fn lose(&self, place: Option<(ObjectId, u32)>, what: Wrong) {
        let (id, missing) = match (place, what) {
            (Some((object, _)), Wrong::Missing) => (object, true),
            (Some((object, _)), Wrong::Short { .. } | Wrong::Damaged(_)) => (object, false),
            (_, Wrong::Lost(lost)) => (lost.segment, lost.what.is_none()),
            _ => return,
        };
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let set = if missing { &mut lost.0 } else { &mut lost.1 };
        set.insert(&id);
        set.shrink(DAMAGED_RUNS_MAX);
    }

    pub(super) fn add(
        &self,
        subject: &Subject,
        place: Option<(ObjectId, u32)>,
        what: Wrong,
        progress: &Progress,
    ) {
        let first = !subject.damaged.swap(true, Ordering::Relaxed);
        if first {
            self.items_damaged.fetch_add(1, Ordering::Relaxed);
            progress.faults.add(1);
        }
        self.lose(place, what);
        let path = subject.path.clone();
        let key = match (place, what) {
            (Some((object, _)), Wrong::Missing | Wrong::Short { .. }) => (Some((object, WHOLE)), Vec::new()),
            // One fault a segment, which no object has the name of.
            (_, Wrong::Lost(lost)) => (Some((lost.segment, WHOLE)), Vec::new()),
            (Some(place), _) => (Some(place), Vec::new()),
            (None, _) => (None, path.clone()),
        };
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, last)) = faults.get_mut(&key) {
            if let (Wrong::Short { need, .. }, Wrong::Short { need: more, .. }) = (&mut known.what, what) {
                *need = more.max(*need);
            }
            // Blocks of one item come one after another.
            if *last != path && !known.paths.contains(&path) {
                known.path_count += 1;
                if known.paths.len() < FAULT_PATHS_MAX {
                    known.paths.push(path.clone());
                }
            }
            *last = path;
        } else if faults.len() < FAULTS_MAX {
            let fault = CheckFault { place, what, paths: vec![path.clone()], path_count: 1 };
            faults.insert(key, (fault, path));
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Of a path that is longer than a fault shows its end: windows hold a thousand of them.
pub(super) fn subject(path: &[u8]) -> Subject {
    let path = path[path.len().saturating_sub(FAULT_PATH_BYTES_MAX)..].to_vec();
    Subject { path, damaged: AtomicBool::new(false) }
}
