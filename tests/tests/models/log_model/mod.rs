//! The commit log under every schedule that fits, on the real state machines.
//!
//! | module | what |
//! |---|---|
//! | `search` | breadth-first over all orders of steps of 2 to 3 writers that may stall anywhere for ever |
//! | `garbage` | the same with objects, pins, retirement, orphan floor, and deletes that land late |
//! | `seat` | a writer in either search |
//! | `named` | T1 to T4, T8, T9 of `agent/doc/commit-log.md`, Traces |
//!
//! The store of both is that of the simulator (`sim::store`), which runs random schedules with time in them. `WINDLASS_LOG_DEEP=n`
//! searches up to n states.

// Helpers of tests are tests: what fails here fails a test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod garbage;
mod named;
mod search;
mod seat;
