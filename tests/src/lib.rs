//! Windlass test harness.
//!
//! | module | what |
//! |---|---|
//! | [`history`] | made-up backups, what the tables should say of them, and a store in memory |
//! | [`prng`] | seeded random numbers |
//! | [`rows`] | rows made up from a seed |

pub mod history;
pub mod prng;
pub mod rows;
