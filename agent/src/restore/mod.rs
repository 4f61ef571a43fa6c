//! Restore: from rows back to a directory, a device or an image file; and what only looks: browsing and checking.
//!
//! ```text
//!  walk (main thread)    names and items of a tree, in order -> files of a window, their blocks
//!  read::plan            blocks by (object, frame), near frames merged into ranged GETs
//!  lanes (threads)       GET -> open, decompress, verify every block -> write at its final offset -> attributes -> name
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`walk`] | the tree at a point, selected paths |
//! | [`gather`] | blocks of many files, until there are enough to plan |
//! | [`file`](mod@file), [`dir`], [`temp`] | a file or directory on its way to its name |
//! | `compare` | what the target has already is neither fetched nor written |
//! | [`state`], [`parts`] | what a restore that ended early leaves for the next one |
//! | [`owners`] | other owners than the point has |
//! | [`lane`] | what a restore thread does |
//! | [`target`] | the directory that is restored to |
//! | [`attr`] | attributes, in the only order that keeps them |
//! | [`inode_flags`] | flags and hints of inodes, as far as the target takes them |
//! | [`place`] | refusing a target that cannot be meant |
//! | `remove` | removing what was replaced |
//! | `names` | further names of files that are left as they are |
//! | `admit` | what is there already |
//! | `make` | directories, symlinks, special files, files |
//! | `orphan` | items that no directory names any more |
//! | [`device`] | a device or image file as a target |
//! | [`browse`] | list, stat, find, cat |
//! | [`deleted`] | what is gone, and which point has it |
//! | [`affected`] | which points need what the store has lost |
//! | [`noticed`] | what the log is told of it |
//! | [`check`] | every reference, and with `read_data` every byte |
//! | [`fault`] | what could not be restored, and why |
//!
//! Invariants: a name that a user sees is whole; every block's digest is verified; memory is two windows and a buffer set per
//! lane, whatever is restored (P1, P3).

pub mod admit;
pub mod affected;
pub mod attr;
pub mod browse;
pub mod check;
pub mod compare;
pub mod deleted;
pub mod device;
pub mod dir;
pub mod fault;
pub mod file;
pub mod gather;
pub mod inode_flags;
pub mod lane;
mod make;
mod names;
pub mod noticed;
mod orphan;
pub mod owners;
pub mod parts;
pub mod place;
mod remove;
pub mod state;
pub mod target;
pub mod temp;
pub mod walk;
