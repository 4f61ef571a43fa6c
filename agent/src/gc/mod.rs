//! Garbage: space that no recovery point needs comes back, without a lock, beside backups and restores.
//!
//! ```text
//!  Mark --> rows that no point needs? --> merges rid the tables of them --> Mark again
//!    `--> objects that no row refers to --> condemned -- backups that began before are over --> Carry
//!                                                                                                `--> tail read: rows that have no other
//!                                                                                                     home go into a new object's tail;
//!                                                                                                     retired -- window, pins --> Delete
//!    `--> objects of which little is live --> Move: live blocks go into new objects, rows follow in one commit; Mark finds the old ones dead
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`types`] | orders and what comes back of them |
//! | [`mark`] | what the tables refer to, counted from all rows in bounded memory |
//! | [`rewrite`] | live blocks leave objects that are mostly dead |
//! | [`carry`] | the last look before objects go: their tails, and rows whose only home they are |
//! | [`sweep`] | deletions, and orphans in the store's lists |
//!
//! There are no counters that could be wrong: each run counts from the tables. What decides is the log's state (`log::garbage`): a plan of this
//! module that is wrong about backups is refused there.
//!
//! Does not: decide when (`coordinator::garbage` does), or commit. Source: `agent/doc/commit-log.md`, Garbage.

pub mod carry;
pub mod mark;
pub mod rewrite;
pub mod sweep;
pub mod types;
