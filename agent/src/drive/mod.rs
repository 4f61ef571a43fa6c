//! The only loop in the program, and the threads that it feeds.
//!
//! | module | what |
//! |---|---|
//! | [`backup`] | a whole backup: begin, volume after volume, end |
//! | [`volume`] | the loop that backs up one volume |
//! | [`lanes`] | the pack lanes' threads |
//! | [`commits`] | the commit log's thread |
//! | [`budget`] | one memory budget to the sizes of all pools |

pub mod backup;
pub mod budget;
pub mod commits;
pub mod lanes;
pub mod volume;
