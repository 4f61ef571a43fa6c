//! The composition floor: threads, buffers and volumes that a node runs on, whoever it belongs to.
//!
//! | module | what |
//! |---|---|
//! | [`worker`] | the job thread and the one that looks at volumes |
//! | [`volumes`] | volumes that a node may open, and what a policy selects of them |
//! | [`limits`] | how fast the store may be written and read |
//! | [`post`] | how threads tell the loop what has happened |
//!
//! Does not: read command lines, print, ask, or end the process.
//! Source: `agent/doc/architecture.md`, Threads.

pub mod limits;
pub mod post;
pub mod volumes;
pub mod worker;
