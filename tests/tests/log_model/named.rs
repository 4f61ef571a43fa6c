//! T1 to T4, T8, T9.
