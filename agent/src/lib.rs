//! Windlass: the product's logic. `agent/doc/architecture.md` says how it is divided, `agent/doc/commit-log.md` has the rules.
//!
//! | folder | what |
//! |---|---|
//! | [`mod@format`] | bytes in the store |
//! | [`store`] | object-store protocols, retries, uplink threads |
//! | [`log`] | the commit log: lease, commits, replay, state |
//! | [`table`] | the cloud tables: segments, merging reads, coalescing, rebuild |
//! | [`pack`] | blocks of many files into upload objects |
//! | [`worker`] | the backup of a volume, as a state machine |
//! | [`read`] | rows and blocks of a recovery point |
//! | [`restore`] | back to a directory or a device; browsing and checking |
//! | [`work`] | values that travel: work, reports, requests of the coordinator and their replies |
//! | [`backplane`] | what nodes say to each other |
//! | [`node`] | a node of the cluster: follower, coordinator, worker |
//! | [`coordinator`] | starts backups, cuts and assigns work, commits what workers report |
//! | [`drive`] | the loop that runs it, and its threads |
//! | [`policy`] | what to back up and how, and which paths |
//! | [`progress`] | what a running job shows, and how it is stopped |
//! | [`console`] | what a person at a serial line types and sees |
//! | [`civil`] | calendar dates in UTC
//! | [`hex`] | bytes as hex digits
//! | [`units`] | sizes and durations as people write them |
//! | [`limits`] | every bound |
//!
//! Layering: `format` knows nothing; `table`, `pack`, `log` stand on it; `worker` and `read` on those, `restore` on `read`; `drive` runs them.

pub mod api;
pub mod backplane;
pub mod civil;
pub mod console;
pub mod coordinator;
pub mod drive;
pub mod foreign;
pub mod format;
pub mod gc;
pub mod hex;
pub mod id;
pub mod limits;
pub mod log;
pub mod mount;
pub mod node;
pub mod pack;
pub mod policy;
pub mod progress;
pub mod read;
pub mod restore;
pub mod store;
pub mod table;
pub mod units;
pub mod work;
pub mod worker;
