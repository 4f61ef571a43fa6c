//! Windlass test harness.

pub mod conformance;
pub mod engines;
//!
//! | module | what |
//! |---|---|
//! | [`prng`] | seeded random numbers |
//! | [`rows`] | rows made up from a seed |

pub mod prng;
pub mod rows;
