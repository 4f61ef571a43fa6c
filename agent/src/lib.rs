//! Windlass: the product's logic. See `README.md` for what it does and the module table for where.
//!
//! | folder | what |
//! |---|---|
//! | [`format`] | bytes in the store |
//! | [`limits`] | every bound |
//! | [`log`] | the commit log: lease, commits, replay, state |
//! | [`store`] | object-store protocols, retries, uplink threads |
//!
//! Layering: `format` knows nothing; `table`, `pack`, `log` stand on it; `worker` and `restore` on those; `drive` runs them.

pub mod format;
pub mod id;
pub mod limits;
pub mod log;
pub mod store;
