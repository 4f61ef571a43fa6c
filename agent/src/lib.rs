//! Windlass: the product's logic. See `README.md` for what it does and the module table for where.
//!
//! | folder | what |
//! |---|---|
//! | [`format`] | bytes in the store |
//! | [`limits`] | every bound |
//! | [`store`] | object-store protocols, retries, uplink threads |
//! | [`table`] | the cloud tables: segments, merging reads, coalescing, rebuild |
//!
//! Layering: `format` knows nothing; `table`, `pack`, `log` stand on it; `worker` and `restore` on those; `drive` runs them.

pub mod format;
pub mod id;
pub mod limits;
pub mod store;
pub mod table;
