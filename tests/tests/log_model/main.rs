//! The commit log under every schedule that fits, on the real state machines.
//!
//! | module | what |
//! |---|---|
//! | `shelf` | the store, with its memory of what every slot held first; the invariants |
//! | `search` | breadth-first over all orders of steps of 2 to 3 writers that may stall anywhere for ever |
//! | `random` | seeded runs with clocks that drift, lost answers, late PUTs, 409, 503, freezes, crashes, collection |
//! | `named` | T1 to T4, T8, T9 of the coordination reference, section 7 |
//!
//! `WINDLASS_LOG_SEEDS=n` runs n seeds, `WINDLASS_LOG_SEED=s` one and prints its trace; `WINDLASS_LOG_DEEP=n` searches
//! up to n states.

// Helpers of tests are tests: what fails here fails a test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod named;
mod random;
mod search;
mod shelf;
