//! The worker: reads, packs and uploads what a backup has to.
//!
//! | module | what |
//! |---|---|
//! | [`backup`] | the state machine of the backup of one stretch of a volume |
//! | [`stretch`] | pure: where a volume may be cut, and what of a window lies in a stretch |
//! | [`base`] | rows of the last point, read in step with the sweep |
//! | [`batch`] | pure: windows to batches, batches to location rows and frames |
//! | [`item`] | pure: items to item rows, and what the last point says of them |
//! | [`looks`] | questions about volumes that wait to be looked at |
//! | [`merge`] | one merge of segments |
//! | [`rate`] | how fast it uploads, for the coordinator |
//! | [`role`] | what a worker does in a cluster: assignments in, reports out |
//! | [`rows`] | where rows go: segments, and the tails of objects |

pub mod backup;
pub mod base;
pub mod batch;
pub mod density;
pub mod item;
pub mod looks;
pub mod merge;
pub mod rate;
pub mod role;
pub mod rows;
pub mod stretch;
