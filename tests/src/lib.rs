//! Windlass test harness.
//!
//! | module | what |
//! |---|---|
//! | [`cli`] | the command line as a child process |
//! | [`conformance`] | one suite per trait, run on every port and every store |
//! | [`engines`] | real servers on loopback |
//! | [`history`] | made-up backups, what the tables should say of them, and a store in memory |
//! | [`prng`] | seeded random numbers |
//! | [`rows`] | rows made up from a seed |

pub mod cli;
pub mod conformance;
pub mod engines;
pub mod history;
pub mod prng;
pub mod rows;
