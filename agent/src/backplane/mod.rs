//! The backplane: what nodes say to each other, and how it is carried.
//!
//! | module | what |
//! |---|---|
//! | [`message`] | bodies of frames |
//!
//! Control only: data goes from worker to store, never through here. Source: coordination 4.

pub mod message;
