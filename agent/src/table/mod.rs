//! The cloud tables: immutable sorted segments, read as one.
//!
//! | module | what |
//! |---|---|
//! | [`segment`] | segments and how they are written |
//! | [`lost`] | rows that cannot be read, and which items may have had them |
//! | [`source`] | indexes and row blocks, from the store through bounded caches |
//! | [`stream`] | rows of one kind out of many tails, in one order |
//! | [`read`] | the reading rules: items, names, locations at a cut |
//! | [`plan`] | which segments are to be coalesced next |
//! | [`merge`] | coalescing: fewer segments, without versions that no cut needs |
//! | [`rebuild`] | the tables out of upload objects alone |
//!
//! Does not: decide which segments count (the commit log does). Source: log-structured merge trees; the rules are ours.

pub(crate) mod cache;
pub mod lost;
pub mod merge;
pub mod plan;
pub mod read;
pub mod rebuild;
pub mod segment;
pub mod source;
pub mod stream;
