//! Windlass test harness.
//!
//! | module | what |
//! |---|---|
//! | [`agent`] | an agent that is none, behind a real control socket |
//! | [`appliance`] | a repository, backups into it and restores out of it, in this process |
//! | [`cli`] | the command line as a child process |
//! | [`cluster`] | a cluster of real agents as processes |
//! | [`conformance`] | one suite per trait, run on every port and every store |
//! | [`engines`] | real servers on loopback |
//! | [`error`] | what the harness itself failed at |
//! | [`ext4_checksums`] | makes the checksums of a broken ext4 image good, for fuzzing |
//! | [`extents`] | extent states of files, as the kernel shows them |
//! | [`fixture`] | a tree with every kind of item |
//! | [`fuzz`] | what the fuzz targets do |
//! | [`history`] | made-up backups, what the tables should say of them, and a store in memory |
//! | [`image`] | file-system images, loop devices, mounts |
//! | [`netns`] | nodes in network namespaces, and what breaks between them |
//! | [`privilege`] | what needs root, and how it is skipped |
//! | [`prng`] | seeded random numbers |
//! | [`rows`] | rows made up from a seed |
//! | [`sim`] | a whole cluster, simulated from a seed |
//! | [`mod@line`] | the other end of a serial line, as a pseudo terminal |
//! | [`kill_store`] | a store that kills the process at a call |
//! | [`store_fault`] | a store around another that fails on purpose |
//! | [`stretches`] | a backup in many stretches, in any order |
//! | [`tree`] | compares two directory trees, down to extents and attributes |
//! | [`turn`] | turns for tests that need much of the machine |
//! | [`workdir`] | scratch folders |

pub mod agent;
pub mod appliance;
pub mod cli;
pub mod cluster;
pub mod conformance;
pub mod engines;
pub mod error;
pub mod ext4_checksums;
pub mod extents;
pub mod fixture;
pub mod fuzz;
pub mod history;
pub mod image;
pub mod kill_store;
pub mod line;
pub mod netns;
pub mod privilege;
pub mod prng;
pub mod rows;
pub mod sim;
pub mod store_fault;
pub mod stretches;
pub mod tree;
pub mod turn;
pub mod workdir;
