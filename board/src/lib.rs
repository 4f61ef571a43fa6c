//! Windlass for an appliance.
