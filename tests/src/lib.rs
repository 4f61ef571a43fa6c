//! Windlass test harness.

pub mod conformance;
