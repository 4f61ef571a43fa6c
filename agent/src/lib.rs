//! Windlass: the product's logic. See `README.md` for what it does and the module table for where.
//!
//! | folder | what |
//! |---|---|
//! | [`format`] | bytes in the store |
//! | [`store`] | object-store protocols, retries, uplink threads |
//! | [`log`] | the commit log: lease, commits, replay, state |
//! | [`table`] | the cloud tables: segments, merging reads, coalescing, rebuild |
//! | [`pack`] | blocks of many files into upload objects |
//! | [`worker`] | the backup of a volume, as a state machine |
//! | [`drive`] | the loop that runs it, and its threads |
//! | [`limits`] | every bound |
//!
//! Layering: `format` knows nothing; `table`, `pack`, `log` stand on it; `worker` and `restore` on those; `drive` runs them.

pub mod drive;
pub mod format;
pub mod id;
pub mod limits;
pub mod log;
pub mod pack;
pub mod store;
pub mod table;
pub mod worker;
