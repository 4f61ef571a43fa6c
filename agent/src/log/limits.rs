//! Every bound of the commit log, with its unit, why this number, and what the caller sees when it is reached.
//!
//! Moves into the crate's `limits.rs` when that exists. Does not: hold timings (`log::lease::Timing`). Source: ours.

use crate::format::feature::FEATURES_MAX;

/// Bytes of a slot object, sealed: servers hold locks while a conditional body streams. Above: the batch comes back, `TooLarge`.
pub const SLOT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a lease grant, a beat or a boundary: they have some hundred, the rest is for fields of later versions. A larger object is not
/// read, and counts as a damaged one.
pub const MARK_BYTES_MAX: usize = 4 * 1024;
/// Records in a slot: a group commit of 1 to 2 s of completions holds a few. Above: the batch comes back, `TooLarge`.
pub const SLOT_RECORDS_MAX: usize = 256;
/// Bytes of a policy's name.
pub const POLICY_NAME_BYTES_MAX: usize = 64;
/// Bytes of a policy's encoded form: fits a slot together with its volumes.
pub const POLICY_BODY_BYTES_MAX: usize = 16 * 1024;
/// Policies ever made, removed ones included: keeps checkpoints near 4 MiB at worst for them. Above: [`Bound`].
pub const POLICIES_MAX: usize = 256;
/// Volumes of a policy.
pub const POLICY_VOLUMES_MAX: usize = 64;
/// Volumes ever registered. Above: [`Bound`].
pub const VOLUMES_MAX: usize = 4096;
/// Bytes of a device string: a path, at most 512 so that 64 of them and a policy body fit a slot (const-asserted).
pub const DEVICE_BYTES_MAX: usize = 512;
/// Objects named by a record: 32 bytes each, so that a full list of each kind fits a slot.
pub const RECORD_OBJECTS_MAX: usize = 1024;
/// Segments added by a record.
pub const RECORD_SEGMENTS_MAX: usize = 128;
/// Stretches of volumes named by a record: what some dozens of workers report within a group commit's time.
pub const RECORD_STRETCHES_MAX: usize = 256;
/// Stretches done that do not touch each other, of a running backup: 36 bytes each. Workers go through theirs from end to end, so there are as
/// many as pieces that were handed out and not finished. Above: [`Bound`]; fill gaps first.
pub const STRETCHES_MAX: usize = 4096;
/// Recovery points that have not expired: 16 a day for 2.8 years. Above: [`Bound`], expire some.
pub const POINTS_MAX: usize = 16 * 1024;
/// Bytes of what kept a backup from going on, as the log says it: some nodes with a path and an error each. The rest is cut off.
pub const TRIED_WHY_BYTES_MAX: usize = 512;
/// Backups that run at once, and those that stopped and whose rows are kept: few policies overlap. Above: [`Bound`].
pub const RUNNING_MAX: usize = 16;
/// Backups of a policy that began and did not end: the one at work, and some that stopped before it, whose rows say what need not be stored
/// again. Each costs a lookup for every item that is read. Above: `Refusal::Backup`, abandon them first.
pub const UNFINISHED_MAX: usize = 4;
/// Live segments of the repository: merges keep them at some dozens per volume. Above: [`Bound`], merge first.
pub const SEGMENTS_MAX: usize = 64 * 1024;
/// Runs of consecutive names in the set of committed names: one per process start and gap. Above: [`Bound`].
pub const NAME_RUNS_MAX: usize = 256 * 1024;
/// Retired names that an orphan floor has not passed yet. Above: [`Bound`], raise the floor first.
pub const RETIRED_MAX: usize = 64 * 1024;
/// Retired names up to which a floor leaves all their entries, so that they are deleted after their window: above, it drops those that it
/// covers, and the sweep for orphans finds them.
pub const RETIRED_KEPT_MAX: usize = 24 * 1024;
/// Objects that nothing may refer to anew and that are not retired yet: 32 bytes each in a checkpoint. Above: [`Bound`]; the rest waits.
pub const CONDEMNED_MAX: usize = 8 * 1024;
/// Wall clocks at slots that are remembered. Above: every second one goes.
pub const CLOCKS_MAX: usize = 64;
/// Backups that ended while names are condemned, which are remembered. Above: retirements need a newer look at the tables.
pub const OVER_MAX: usize = 64;
/// Runs of names that were deleted above the floor. Above: [`Bound`], raise the floor first.
pub const BURIED_RUNS_MAX: usize = 16 * 1024;
/// Pins at once: restores running. Above: [`Bound`].
pub const PINS_MAX: usize = 256;
/// Backups given up, whose rows are still in upload objects. Above: [`Bound`].
pub const ABANDONED_MAX: usize = 4096;
/// Runs of consecutive names of objects known to be missing, and of those known to be damaged: 28 bytes each in every checkpoint. Above: gaps
/// between runs are closed, so that sound objects are stored once more.
pub const DAMAGED_RUNS_MAX: usize = 16 * 1024;
/// Runs of names in one record of damage: of three lists a slot holds them all. Above: further records.
pub const RECORD_RUNS_MAX: usize = 512;
/// Points named by a record.
pub const RECORD_POINTS_MAX: usize = 1024;
/// Bytes of the key at which a presence sweep goes on: those of objects and segments have 63 at most.
pub const SWEEP_KEY_BYTES_MAX: usize = 96;
/// Committed checkpoints that the state remembers: those between the boundary and the head, and no more.
pub const CHECKPOINTS_MAX: usize = 8;
/// Bytes of a checkpoint, sealed. Above: `LogFault::CheckpointTooLarge`; the log goes on and grows.
pub const CHECKPOINT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Points with a hold, a note or tags: each takes up to 1.6 KiB of every checkpoint. Above: [`Bound`], release some first.
pub const MARKS_MAX: usize = 1024;
/// Slots between checkpoints that the log names, and the distance that the boundary keeps from the last checked slot (rule G3).
pub const CHECKPOINT_SLOTS: u64 = 256;
/// Slots between the checkpoints that openings begin with: a process that opens the log reads so many slots behind one, and some more that were
/// committed while it was written.
pub const COVER_SLOTS: u64 = 8;
/// Bytes of a checkpoint that a slot pays for: one above [`COVER_SLOTS`] times this is written less often.
pub const COVER_BYTES_PER_SLOT: u64 = 8 * 1024;
/// Checkpoints that an opening tries from the newest on, before it begins where the boundary says: one that is damaged, one of a rebuild that
/// did not end, and one more.
pub const COVERS_TRIED_MAX: usize = 3;
/// Slots taken from one LIST of the log by a replay; the next one takes the rest.
pub const REPLAY_KEYS_MAX: usize = 1000;
/// Calls of the lease that fit into it one after the other: each is given up after that part of it, so that others fit in before it ends.
pub const LEASE_CALLS: u64 = 4;
/// Shortest lease that a repository can have, in nanoseconds: a call of the lease gets a quarter of it, and a store may take 0.7 s for one.
pub const LEASE_NS_MIN: u64 = 3_000_000_000;
/// Longest lease, in nanoseconds: a node that takes over from one that died waits for so long. A grant that says more is taken for so much.
pub const LEASE_NS_MAX: u64 = 3_600_000_000_000;
/// GETs of slots in flight in a replay: hides a slow link's round trip without flooding it.
pub const REPLAY_GETS_MAX: usize = 8;
/// Deletes in flight of old slots: background work stays behind commits.
pub const DELETES_MAX: usize = 4;
/// Keys taken from one LIST of things to delete; the next boundary takes the rest.
pub const DELETE_KEYS_MAX: usize = 2048;
/// Failed calls in a row before a replay gives up: with the backoff below, about 20 s.
pub const REPLAY_FAULTS_MAX: u32 = 10;
/// First pause before a call is repeated, in nanoseconds; it doubles.
pub const BACKOFF_FIRST_NS: u64 = 100_000_000;
/// Longest pause before a call is repeated, in nanoseconds: four fit in a lease.
pub const BACKOFF_LAST_NS: u64 = 3_000_000_000;

/// A bound of the log's state that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bound {
    /// [`POLICIES_MAX`].
    Policies,
    /// [`VOLUMES_MAX`].
    Volumes,
    /// [`STRETCHES_MAX`].
    Stretches,
    /// [`POINTS_MAX`].
    Points,
    /// [`RUNNING_MAX`].
    Running,
    /// [`SEGMENTS_MAX`].
    Segments,
    /// [`NAME_RUNS_MAX`].
    NameRuns,
    /// [`RETIRED_MAX`].
    Retired,
    /// [`PINS_MAX`].
    Pins,
    /// [`ABANDONED_MAX`].
    Abandoned,
    /// [`MARKS_MAX`].
    Marks,
    /// [`SUBJECTS_MAX`](super::access::SUBJECTS_MAX).
    Subjects,
    /// [`CONDEMNED_MAX`].
    Condemned,
    /// [`BURIED_RUNS_MAX`].
    Buried,
    /// [`FEATURES_MAX`].
    Features,
    /// [`REMOVALS_MAX`](super::removals::REMOVALS_MAX).
    Removals,
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let new = "begin a new repository with `windlass repo init`";
        let (max, what, then) = match self {
            Bound::Policies => (POLICIES_MAX, "policies, those among them that were removed", new),
            Bound::Volumes => (VOLUMES_MAX, "volumes", new),
            Bound::Stretches => {
                (STRETCHES_MAX, "separate parts of a running backup", "let fewer nodes share it")
            }
            Bound::Subjects => (
                super::access::SUBJECTS_MAX,
                "subjects with roles",
                "remove some with `windlass role revoke`",
            ),
            Bound::Removals => (
                super::removals::REMOVALS_MAX,
                "requests to remove something",
                "approve or withdraw some with `windlass removal`",
            ),
            Bound::Points => (POINTS_MAX, "recovery points", new),
            Bound::Running => (
                RUNNING_MAX,
                "unfinished backups",
                "let those that run end, or remove policies whose backups never end",
            ),
            Bound::Segments => (
                SEGMENTS_MAX,
                "segments of tables",
                "they are merged after the next backup that ends, and by nodes without other work: stop backups for a while",
            ),
            Bound::NameRuns => (NAME_RUNS_MAX, "runs of object names", new),
            Bound::Retired => (
                RETIRED_MAX,
                "names of objects that were merged away",
                "room is made when no backup runs: let those that run end",
            ),
            Bound::Pins => (PINS_MAX, "restores that run", "let some of them end"),
            Bound::Abandoned => (ABANDONED_MAX, "backups that were given up", new),
            Bound::Marks => (
                MARKS_MAX,
                "recovery points with a hold, a note or tags",
                "release those that need none any more (`windlass point`)",
            ),
            Bound::Condemned => {
                (CONDEMNED_MAX, "objects that wait for backups to end", "let those that run end")
            }
            Bound::Buried => (
                BURIED_RUNS_MAX,
                "runs of names that were deleted lately",
                "room is made when no backup runs: let those that run end",
            ),
            Bound::Features => (FEATURES_MAX, "features", new),
        };
        write!(f, "the repository has {max} {what}, the most it may have: {then}")
    }
}

const _: () =
    assert!(POLICY_BODY_BYTES_MAX + POLICY_VOLUMES_MAX * (DEVICE_BYTES_MAX + 8) + 1024 < SLOT_BYTES_MAX);
const _: () = assert!(3 * RECORD_RUNS_MAX * 28 + 2 * RECORD_POINTS_MAX * 4 + 1024 < SLOT_BYTES_MAX);
const _: () = assert!(UNFINISHED_MAX < RUNNING_MAX);
const _: () = assert!(COVER_SLOTS < CHECKPOINT_SLOTS);
const _: () = assert!(
    RECORD_OBJECTS_MAX * 32 + RECORD_SEGMENTS_MAX * (80 + 24) + RECORD_STRETCHES_MAX * 36 + 4096
        < SLOT_BYTES_MAX
);
