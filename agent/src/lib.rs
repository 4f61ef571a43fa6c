//! Windlass product logic.
