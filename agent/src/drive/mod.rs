//! The only loop in the program, and the threads that it feeds.
//!
//! | module | what |
//! |---|---|
//! | [`job`] | one stretch of a volume: what a worker is given |
//! | [`volume`] | the loop that backs up one stretch |
//! | [`node`] | the loop of a cluster's node |
//! | [`merge`] | merges of segments |
//! | [`lanes`] | the pack lanes' threads |
//! | [`budget`] | one memory budget to the sizes of all pools |

pub mod budget;
pub mod collect;
pub mod job;
pub mod lanes;
pub mod merge;
pub mod node;
pub mod volume;
