//! What a command found lost, committed: through the agent of this machine, or under the lease.
//!
//! Does not: look for damage, or say what it means (`engine::damage`). Source: ours.

use windlass_agent::format::record::Record;
use windlass_agent::log::state::State;
use windlass_agent::progress::Progress;

use crate::cli::args::global::Global;
use crate::cli::through::Through;
use crate::engine::commit::{self, Coordinator};
use crate::engine::damage;
pub use crate::engine::damage::{Found, warn};
use crate::engine::repository::Repository;
use crate::failure::Failure;

/// Writes into the log what is new of it, and says what became of that.
pub fn record(global: &Global, repository: &Repository, state: &State, found: Found, job: &Progress) {
    let mut commit = |repository: &Repository, records| commit(global, repository, records);
    damage::record(&mut commit, repository, state, found, job);
}

/// Commits records, through the agent here when there is one.
pub fn commit(global: &Global, repository: &Repository, records: Vec<Record>) -> Result<(), Failure> {
    let mut through = if records.is_empty() { None } else { Through::find(global)? };
    let coordinator = through.as_mut().map(|through| &mut through.agent as &mut dyn Coordinator);
    commit::each(repository, coordinator, records)
}
