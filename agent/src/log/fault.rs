//! What can go wrong with the log: what happened, where, and what to do.
//!
//! Invariants: small, `Copy`, typed. Does not: carry a server's words; the driver logs those. Source: ours.

use std::fmt;

use super::state::Refusal;
use crate::format::cursor::WireFault;
use crate::format::feature::FeatureName;
use crate::format::slot::{Author, Who};
use crate::id::{Epoch, Slot};
use crate::store::StoreFaultKind;

/// An object of the log, to say where something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// `log/<n>`
    Slot(Slot),
    /// `epoch/<n>`
    Grant(Epoch),
    /// `beat/<n>`
    Beat(Epoch),
    /// `boundary/<n>`, or the list of them for 0.
    Boundary(Slot),
    /// `ckpt/<n>-...`
    Checkpoint(Slot),
}

impl Place {
    /// Whether it is a part of what was decided, and not of who may decide.
    fn is_history(self) -> bool {
        matches!(self, Place::Slot(_) | Place::Boundary(_) | Place::Checkpoint(_))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Slot(slot) => write!(f, "log slot {slot}"),
            Place::Grant(epoch) => write!(f, "lease grant of epoch {epoch}"),
            Place::Beat(epoch) => write!(f, "beat of epoch {epoch}"),
            Place::Boundary(Slot(0)) => f.write_str("list of log boundaries"),
            Place::Boundary(slot) => write!(f, "log boundary {slot}"),
            Place::Checkpoint(slot) => write!(f, "checkpoint of slot {slot}"),
        }
    }
}

/// Why the log cannot be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogFault {
    /// The store does not answer as needed.
    Store {
        /// At which object.
        place: Place,
        /// How.
        kind: StoreFaultKind,
    },
    /// An object of the log is damaged.
    Format {
        /// Which.
        place: Place,
        /// How.
        why: WireFault,
    },
    /// A slot does not follow from the one before.
    Chain {
        /// Which.
        slot: Slot,
    },
    /// A slot was written under an epoch, or by a process, that did not hold the lease there.
    Author {
        /// Which.
        slot: Slot,
        /// Its epoch.
        epoch: Epoch,
        /// The epoch that holds there.
        holds: Epoch,
    },
    /// A slot in the log says what may not be said there.
    Inconsistent {
        /// Which.
        slot: Slot,
        /// Why.
        why: Refusal,
    },
    /// A batch was refused before anything was written.
    Refused {
        /// Index of the record in the batch.
        record: usize,
        /// Why.
        why: Refusal,
    },
    /// A batch does not fit a slot.
    TooLarge {
        /// Its size, records or bytes.
        size: u32,
    },
    /// A batch came while another was in flight, or the lease is not held: nothing was written.
    NotReady,
    /// Another process holds the lease, and it is alive.
    Held {
        /// Its epoch.
        epoch: Epoch,
        /// Who, when its grant could be read.
        holder: Option<Author>,
        /// What it is, when its grant says it.
        who: Who,
        /// Counter of its last beat, 0 when none.
        beat: u64,
        /// For how long this process has watched it, in nanoseconds.
        watched_ns: u64,
    },
    /// Another process took over.
    Fenced {
        /// The epoch that this process held.
        epoch: Epoch,
        /// The slot under way, whose fate is unknown until the log is read again.
        unresolved: Option<Slot>,
    },
    /// The lease ran out before a beat got through.
    Expired {
        /// The epoch that this process held.
        epoch: Epoch,
        /// The slot under way, whose fate is unknown until the log is read again.
        unresolved: Option<Slot>,
    },
    /// The state does not fit a checkpoint.
    CheckpointTooLarge {
        /// Its size in bytes.
        bytes: u64,
    },
    /// An object of the log is missing or damaged, and what it said was found elsewhere: nothing is lost.
    Mended {
        /// Which.
        place: Place,
    },
    /// The newest slots are lost, and what they said is nowhere else.
    LostEnd {
        /// The last slot that is there.
        head: Slot,
        /// The last one that was.
        named: Slot,
        /// What says so.
        by: Place,
    },
    /// There are objects and no log.
    Gone,
    /// The grant that this process holds is not in the store any more, and grants are never deleted.
    Emptied,
    /// The log moved on faster than it could be read, many times over.
    Moving,
    /// The store created a lease grant that was there: it no longer honours conditions (C6).
    Unconditional {
        /// Whose grant.
        epoch: Epoch,
    },
    /// The repository has a feature that this program may read beside, and not write beside.
    ReadOnly {
        /// Which.
        feature: FeatureName,
    },
}

impl LogFault {
    /// Whether the log itself is damaged, and nothing but a rebuild helps.
    pub fn is_damage(&self) -> bool {
        match self {
            LogFault::Store { place, kind } => {
                matches!(kind, StoreFaultKind::NotFound | StoreFaultKind::TooLong) && place.is_history()
            }
            // Another repository's log is not this one's, damaged; nor is a newer program's.
            LogFault::Format { place, why } => {
                *why != WireFault::Cluster && !why.is_newer() && place.is_history()
            }
            LogFault::Chain { .. }
            | LogFault::Author { .. }
            | LogFault::Inconsistent { .. }
            | LogFault::LostEnd { .. }
            | LogFault::Emptied
            | LogFault::Gone => true,
            LogFault::Refused { .. }
            | LogFault::TooLarge { .. }
            | LogFault::NotReady
            | LogFault::Held { .. }
            | LogFault::Fenced { .. }
            | LogFault::Expired { .. }
            | LogFault::CheckpointTooLarge { .. }
            | LogFault::Mended { .. }
            | LogFault::ReadOnly { .. }
            | LogFault::Unconditional { .. }
            | LogFault::Moving => false,
        }
    }

    /// Whether a newer program wrote what cannot be read.
    pub fn is_newer(&self) -> bool {
        matches!(self, LogFault::Format { why, .. } if why.is_newer())
    }

    /// Whether a command that works alone holds the lease: it sends no message when it lets go.
    pub fn is_of_command(&self) -> bool {
        matches!(self, LogFault::Held { who, .. } if who.is_command())
    }

    /// Whether nothing was written and the lease is held on.
    pub fn is_refusal(&self) -> bool {
        matches!(self, LogFault::Refused { .. } | LogFault::TooLarge { .. })
    }

    /// Whether trying again from the start may help.
    pub fn is_transient(&self) -> bool {
        match self {
            LogFault::Store { kind, .. } => {
                matches!(kind, StoreFaultKind::Unknown | StoreFaultKind::Conflict | StoreFaultKind::Corrupt)
            }
            LogFault::NotReady
            | LogFault::Held { .. }
            | LogFault::Fenced { .. }
            | LogFault::Expired { .. }
            | LogFault::Moving => true,
            LogFault::Format { .. }
            | LogFault::Chain { .. }
            | LogFault::Author { .. }
            | LogFault::Inconsistent { .. }
            | LogFault::Refused { .. }
            | LogFault::TooLarge { .. }
            | LogFault::Mended { .. }
            | LogFault::ReadOnly { .. }
            | LogFault::Unconditional { .. }
            | LogFault::LostEnd { .. }
            | LogFault::Gone
            | LogFault::Emptied
            | LogFault::CheckpointTooLarge { .. } => false,
        }
    }
}

impl fmt::Display for LogFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogFault::Store { place, kind } => match kind {
                StoreFaultKind::StoreGone => write!(f, "{place}: the bucket or directory is gone"),
                StoreFaultKind::Denied => {
                    write!(f, "{place}: access denied; check who may read and write the repository")
                }
                StoreFaultKind::ReadOnly => write!(f, "{place}: cannot be written: read-only file system"),
                StoreFaultKind::Silent => write!(f, "{place}: the store does not answer"),
                StoreFaultKind::Full => write!(f, "{place}: no space left in the store"),
                StoreFaultKind::Unsupported => {
                    write!(
                        f,
                        "{place}: the store does not do what a log needs; `windlass repo probe` says what"
                    )
                }
                StoreFaultKind::NotFound => damaged(f, *place, &"it is missing"),
                StoreFaultKind::TooLong => damaged(
                    f,
                    *place,
                    &"it is larger than such an object can be; something else was stored there",
                ),
                StoreFaultKind::Exists => write!(f, "{place}: it exists, though its name is new"),
                StoreFaultKind::Corrupt => {
                    write!(f, "{place}: what arrives was changed on the way; check the network and try again")
                }
                StoreFaultKind::Unknown | StoreFaultKind::Conflict => {
                    write!(f, "{place}: no clear answer from the store; check the network and try again")
                }
                StoreFaultKind::Rejected => write!(f, "{place}: the store rejects the request"),
            },
            LogFault::Format { place, why } if why.is_newer() => {
                write!(f, "{place} was written by a newer windlass: {why}; nothing was changed")
            }
            LogFault::Format { place, why } => damaged(f, *place, why),
            LogFault::Chain { slot } => {
                let before = slot.0.saturating_sub(1);
                let what = format_args!(
                    "it does not follow from entry {before}: one of them was changed or put back"
                );
                damaged(f, Place::Slot(*slot), &what)
            }
            LogFault::Author { slot, epoch, holds } => {
                let what = format_args!("it was written under epoch {epoch} while epoch {holds} holds");
                damaged(f, Place::Slot(*slot), &what)
            }
            LogFault::Inconsistent { slot, why } => damaged(f, Place::Slot(*slot), why),
            LogFault::Mended { place } => write!(
                f,
                "{place} is missing or damaged; what it said was read from elsewhere, and nothing is lost; \
                 `windlass repo rebuild` makes the log whole again"
            ),
            LogFault::LostEnd { head, named, by } => {
                match by {
                    Place::Slot(slot) => {
                        write!(f, "the commit log is damaged at its end: entry {slot} is cut")?
                    }
                    _ => write!(
                        f,
                        "the commit log ends at entry {head}, and the {by} says that it went on to entry {named}"
                    )?,
                }
                f.write_str("; what is lost with that, points among it, `windlass repo rebuild` makes again from the objects, if it \
                             runs before the next command that writes; that one goes on behind what is lost. Agents write nothing until then, and go \
                             on by themselves when those entries are in the store again")
            }
            LogFault::Gone => {
                write!(f, "the commit log is gone, though objects of backups are there; {REPAIR}")
            }
            LogFault::Emptied => write!(
                f,
                "the store of the log was emptied, or brought back to an older state: the lock that this process holds is not there \
                 any more; stop all agents and bring its newest data back, or make the log anew with `windlass repo rebuild`"
            ),
            LogFault::Refused { record, why } => write!(f, "record {record} of the batch: {why}"),
            LogFault::TooLarge { size } => {
                write!(f, "a batch of {size} does not fit a log slot of 64 KiB; split it")
            }
            LogFault::NotReady => f.write_str("the log is not ready for a batch: wait for the one in flight"),
            LogFault::Held { epoch, holder, who, beat, watched_ns } => {
                write!(f, "the repository is in use by {who} (")?;
                // A command is no node, whatever number it works under.
                if let Some(holder) = holder.filter(|_| !who.is_command()) {
                    write!(f, "node {}, boot {:016x}, ", holder.node, holder.boot.0)?;
                }
                write!(f, "epoch {epoch})")?;
                match watched_ns / 1_000_000_000 {
                    0 => f.write_str("; whether it still runs is not known yet"),
                    watched_s => write!(
                        f,
                        ", which still runs: its beat reached {beat} within the {watched_s} s watched; let it finish, or stop it"
                    ),
                }
            }
            LogFault::Fenced { epoch, unresolved } => {
                write!(f, "another node took over from epoch {epoch}")?;
                unresolved_text(f, *unresolved)
            }
            LogFault::Expired { epoch, unresolved } => {
                write!(f, "lost contact with the store for so long that the lock of epoch {epoch} ran out")?;
                unresolved_text(f, *unresolved)
            }
            LogFault::CheckpointTooLarge { bytes } => write!(
                f,
                "the log's state takes {bytes} bytes, too many for a checkpoint: merge segments or expire points"
            ),
            LogFault::Unconditional { epoch } => write!(
                f,
                "the store no longer honours conditional writes: it created the lease grant of epoch {epoch} over the one that was there; \
                 nothing was written to the log; look what has changed at the store (versioning, a proxy, another server behind its \
                 name), and test it with `windlass repo probe`"
            ),
            LogFault::ReadOnly { feature } => write!(
                f,
                "the repository has feature \"{feature}\", which this program does not know: it can read the repository and restore \
                 from it; use a newer one to write"
            ),
            LogFault::Moving => {
                f.write_str("the log moves on faster than this link can read it; try again later")
            }
        }
    }
}

/// What to do about a log that contradicts itself. Reading it changes nothing, and nothing is written after it.
const REPAIR: &str = "nothing was changed; repair it with `windlass repo rebuild`";

/// An object of the log cannot be used, and nothing else says what it said.
fn damaged(f: &mut fmt::Formatter<'_>, place: Place, what: &dyn fmt::Display) -> fmt::Result {
    match place {
        Place::Slot(slot) => write!(f, "the commit log is damaged at entry {slot}: {what}")?,
        Place::Boundary(_) | Place::Checkpoint(_) => write!(f, "the commit log is damaged: {place}: {what}")?,
        Place::Grant(_) | Place::Beat(_) => return write!(f, "{place} cannot be used: {what}"),
    }
    write!(f, "; {REPAIR}")
}

fn unresolved_text(f: &mut fmt::Formatter<'_>, unresolved: Option<Slot>) -> fmt::Result {
    match unresolved {
        Some(slot) => {
            write!(f, "; whether log slot {slot} counts shows when the log is read again; start over")
        }
        None => f.write_str("; nothing was in flight; start over"),
    }
}

impl std::error::Error for LogFault {}
