//! Windlass test harness.

pub mod conformance;
pub mod engines;
