//! Windlass test harness.
//!
//! | module | what |
//! |---|---|
//! | [`conformance`] | one suite per trait, run on every port and every store |
//! | [`engines`] | real servers on loopback |
//! | [`fuzz`] | what the fuzz targets do |
//! | [`history`] | made-up backups, what the tables should say of them, and a store in memory |
//! | [`prng`] | seeded random numbers |
//! | [`rows`] | rows made up from a seed |
//! | [`store_fault`] | a store around another that fails on purpose |

pub mod conformance;
pub mod engines;
pub mod fuzz;
pub mod history;
pub mod prng;
pub mod rows;
pub mod store_fault;
