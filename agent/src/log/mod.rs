//! The commit log: who may write (lease), what was decided (slots), and what follows from it (state).
//!
//! | module | what |
//! |---|---|
//! | [`keys`] | names of the log's objects |
//! | [`names`] | the set of names that the tables refer to |
//! | [`state`] | the fold of all records: policies, points, backups, segments, pins |
//! | [`stretches`] | which stretches of its volumes a running backup has done |
//! | [`damage`] | what the store has lost, and the points that stand on it |
//! | [`presence`] | whether the store lists all that the tables refer to |
//! | [`checkpoint`] | the state as bytes: `ckpt/<slot>-<nonce>` |
//! | [`call`] | calls to the store as values, their answers, and the book of those under way |
//! | [`view`] | a verified prefix of the log, and how it grows by a slot |
//! | [`replay`] | state machine: from a checkpoint to the head of the log |
//! | [`lease`] | state machine: claim an epoch, keep it with beats, know when it is lost |
//! | [`housekeeping`] | state machine: checkpoints, the boundary, deletes of old slots |
//! | [`writer`] | state machine: claim, begin, commit, check, yield |
//! | [`session`] | a blocking driver for command lines |
//! | [`intact`] | finds damaged copies while they can still be read |
//! | [`salvage`] | what a damaged log still says, and a log that begins anew |
//! | [`fault`] | what can go wrong, in words |
//! | [`limits`] | every bound |
//!
//! Rules are those of `agent/doc/commit-log.md` and are named by their labels (L1, C2, G3, I7) where the code follows them.

pub mod access;
pub mod call;
pub mod checkpoint;
pub mod damage;
pub mod entries;
pub mod fault;
pub mod garbage;
pub mod guard;
pub mod housekeeping;
pub mod intact;
pub mod keys;
pub mod lease;
pub mod limits;
pub mod names;
pub mod presence;
mod refusal;
pub mod removals;
mod rename;
pub mod replay;
pub mod salvage;
pub mod sealer;
pub mod session;
pub mod state;
pub mod stretches;
pub mod view;
pub mod writer;
