//! The cloud tables: immutable sorted segments, read as one.
//!
//! | module | what |
//! |---|---|
//! | [`segment`] | segments and how they are written |
//!
//! Does not: decide which segments count (the commit log does). Source: log-structured merge trees; the rules are ours.

pub mod segment;
