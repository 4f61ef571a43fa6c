//! Windlass test harness.
