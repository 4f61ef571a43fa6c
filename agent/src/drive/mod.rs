//! The only loop in the program, and the threads that it feeds.
//!
//! | module | what |
//! |---|---|
//! | [`backup`] | a whole backup by one process: begin, volume after volume, end |
//! | [`job`] | one stretch of a volume: what a worker of a cluster is given, and what a whole backup is made of |
//! | [`volume`] | the loop that backs up one stretch |
//! | [`node`] | the loop of a cluster's node |
//! | [`merge`] | merges of segments, and all of them for a process that acts alone |
//! | [`lanes`] | the pack lanes' threads |
//! | [`commits`] | the commit log's thread |
//! | [`budget`] | one memory budget to the sizes of all pools |

pub mod backup;
pub mod budget;
pub mod commits;
pub mod job;
pub mod lanes;
pub mod merge;
pub mod node;
pub mod volume;
