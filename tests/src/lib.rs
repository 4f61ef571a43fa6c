//! Windlass test harness.

pub mod error;
pub mod extents;
pub mod fixture;
pub mod image;
pub mod privilege;
pub mod tree;
pub mod workdir;
