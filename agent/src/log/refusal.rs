//! Why a record is not acceptable: as of the log's state, or in itself.
//!
//! Does not: judge (`log::state`). Source: `agent/doc/commit-log.md`.

use std::fmt;

use super::limits::Bound;

/// Why a record is not acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// An epoch record that is not the first of its slot, or a slot after a yield that does not begin an epoch.
    Order,
    /// The epoch does not fit.
    Epoch,
    /// The writer is not the epoch's holder.
    Writer,
    /// No such policy, or it was removed.
    NoPolicy,
    /// The revision is not the next one.
    Revision,
    /// A volume belongs to another policy, or is named twice.
    Volume,
    /// A backup's number is not the next one, or the backup is not running, or runs already.
    Backup,
    /// A stretch has no length, or overlaps one that is done: the first commit wins (C4).
    Progress,
    /// A part of a volume is not done (I5).
    Gap,
    /// A name is in the tables already: the first commit wins (C4).
    Duplicate,
    /// A name is retired, or at or below the orphan floor.
    Gone,
    /// A name is not in the tables.
    NotLive,
    /// A segment's bounds are not in order, or it mixes rows of a running backup with others'.
    Segment,
    /// No such point.
    NoPoint,
    /// The point is held.
    Held,
    /// The point is guarded: it leaves with a time only.
    Guarded,
    /// The point is younger than its policy lets it expire.
    Young,
    /// The point has expired, and can still be brought back.
    Leaving,
    /// The point has not expired.
    NotLeaving,
    /// No subject would be an administrator of everything.
    NoAdministrator,
    /// No request to remove something has that number, or another one has it.
    NoRemoval,
    /// A policy has or had that name.
    NameTaken,
    /// The floor goes back or reaches the current epoch.
    Floor,
    /// A backup may have referred to an object since the tables were looked through.
    Referred,
    /// No such pin, or it exists already, or its counter goes back.
    Pin,
    /// A checkpoint of a later slot or of one that is older than the newest.
    Checkpoint,
    /// A lease that is shorter or longer than one may be.
    Lease,
    /// A bound of `log::limits` is reached.
    Full(Bound),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Order => "an epoch must begin with its own record, and a yield must end it",
            Refusal::Epoch => "its epoch does not fit",
            Refusal::Writer => "its writer is not the epoch's holder",
            Refusal::NoPolicy => "there is no such policy",
            Refusal::Revision => "the policy was changed by someone else meanwhile; look at it again",
            Refusal::Volume => "a volume is named twice or belongs to another policy",
            Refusal::Backup => "the backup is not running, or not the next one",
            Refusal::Progress => "a stretch of a volume is done already",
            Refusal::Gap => "a stretch of a volume is not done yet",
            Refusal::Duplicate => "a name is in the tables already",
            Refusal::Gone => "a name was retired, or is below the orphan floor: upload the data again",
            Refusal::NotLive => "a name is not in the tables",
            Refusal::Segment => {
                "a segment's bounds are not in order, or it mixes rows of a running backup with others'"
            }
            Refusal::Held => "the point is held; `windlass point release` it first",
            Refusal::Guarded => "its policy guards the point: `windlass point expire` lets it leave",
            Refusal::Young => "the point is younger than the minimum age that its policy gave it",
            Refusal::Leaving => {
                "the point has expired, and can be brought back; `windlass point undo` it first"
            }
            Refusal::NotLeaving => "the point has not expired",
            Refusal::NoAdministrator => {
                "no subject would be an administrator of all policies: give that role to one first, and take it away last"
            }
            Refusal::NoRemoval => "no such request waits; `windlass removal list` has those that do",
            Refusal::NameTaken => "a policy has, or had, that name; take another one",
            Refusal::NoPoint => "there is no such recovery point",
            Refusal::Floor => "the orphan floor goes back or reaches the current epoch",
            Refusal::Referred => {
                "a backup may have referred to an object since the tables were looked through"
            }
            Refusal::Pin => "there is no such pin, or it exists already",
            Refusal::Checkpoint => "a checkpoint is out of order",
            Refusal::Lease => "a lease is 3 s long at least, and an hour at most",
            Refusal::Full(bound) => return bound.fmt(f),
        })
    }
}
