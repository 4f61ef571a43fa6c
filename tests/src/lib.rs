//! Windlass test harness.

pub mod conformance;
pub mod engines;
pub mod store_fault;
