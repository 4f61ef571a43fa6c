//! Windlass test harness.
//!
//! | module | what |
//! |---|---|
//! | [`fuzz`] | what the fuzz targets do |
//! | [`history`] | made-up backups, what the tables should say of them, and a store in memory |
//! | [`prng`] | seeded random numbers |
//! | [`rows`] | rows made up from a seed |

pub mod fuzz;
pub mod history;
pub mod prng;
pub mod rows;
