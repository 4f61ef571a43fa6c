//! Reading a recovery point: its rows, and the blocks of its items. No target: restores, browsing and checks stand on it.
//!
//! ```text
//!  lookup   LIN -> item, names, location rows
//!  plan     blocks of many items -> ranged GETs, each frame once        fetch   a GET of a plan -> its blocks, verified
//!  range    bytes from..to of one item, in order                        cache   one block after another, frames kept
//!                                                                       decode  a frame -> plain bytes -> blocks
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`lookup`] | items and locations of a point, read forward: neighbours cost nothing |
//! | [`past`] | an item's versions; names that listings have lost |
//! | [`history`] | the versions of one path over many points |
//! | [`diff`] | what two points differ in |
//! | [`usage`] | what points hold, and what each alone holds |
//! | [`suffix`] | extensions of names, counted |
//! | [`plan`] | pure: wanted blocks to fetches |
//! | [`decode`] | opens frames, verifies blocks |
//! | [`fetch`] | carries out a fetch of a plan |
//! | [`cache`] | blocks one by one, with the last frames kept |
//! | [`range`] | bytes of an item, in order |
//!
//! Invariants: a block that is handed out has the digest that its row says (P1); what is not as it was written is read once more,
//! over another connection, before it counts as damage. Source: ours.

pub mod cache;
pub mod decode;
pub mod diff;
pub mod fetch;
pub mod history;
pub mod lookup;
pub mod past;
pub mod plan;
pub mod range;
pub mod suffix;
pub mod usage;
