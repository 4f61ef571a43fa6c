//! Windlass hardware abstraction layer: what an appliance must supply, and the ports that supply it.
//!
//! | part | trait | ports |
//! |---|---|---|
//! | raw disk, partition, snapshot device, plain file | [`block::BlockDevice`] | `linux` (io_uring, threads), `sim` |
//! | time | [`clock::Clock`] | [`clock::SystemClock`], `sim` |
//! | byte streams between nodes | [`link::Link`] | `linux::link` (TCP), `sim::link` |
//! | what a restore makes | [`tree::Node`] | `linux::tree`, `sim::tree` |
//! | random bytes | [`entropy::Entropy`] | [`entropy::SystemEntropy`], `sim` |
//! | what users of this machine look into | [`files::Files`] (the port calls it) | `linux::fuse` |
//! | a serial line, a terminal | [`serial::Tty`] (no trait: one port) | Linux |
//! | contents of a device | [`volume::Volume`] | `volume::ext4`, `volume::xfs`, `volume::image`, `volume::mounted`; `volume::detect` picks among the raw ones |
//!
//! `wrap/` holds middleware over any device: faults, traces, throttles. [`buf`] is the memory that moves between the layers.
//!
//! This is the only package with `unsafe`: denied here, allowed in `buf.rs` and `linux/{ring,sys,fsattr}.rs`, each headed by its
//! invariants.
//!
//! Readers and ports can be left out: features `ext4`, `xfs`, `mounted`, `uring`, `sim` (`hal/doc/features.md`).
//!
//! Does not: know what a backup is.

// A build that leaves out readers or ports leaves parts of what they share unused.
#![cfg_attr(
    not(all(feature = "ext4", feature = "xfs", feature = "mounted", feature = "uring", feature = "sim")),
    allow(dead_code, unused_imports)
)]

pub mod block;
pub mod buf;
pub mod clock;
pub mod entropy;
pub mod files;
pub mod link;
pub mod linux;
pub mod serial;
pub mod sim;
pub mod tree;
pub mod volume;
pub mod wrap;
