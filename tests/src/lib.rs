//! Windlass test harness.

pub mod error;
pub mod image;
pub mod privilege;
pub mod workdir;
