//! Middleware over any block device: each wraps a [`crate::block::BlockDevice`] and is one.
//!
//! | file | what |
//! |---|---|
//! | [`fault`] | makes reads of chosen or random blocks fail |
//! | [`throttle`] | makes it as slow as a device with so many operations and bytes a second |
//! | [`trace`] | counts and remembers what went through |
//!
//! Does not: change bytes that were read well. Source: ours.

pub mod fault;
pub mod throttle;
pub mod trace;
