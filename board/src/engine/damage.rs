//! From what somebody found lost to records of the log: which points need it, and that the next backup stores
//! it again.
//!
//! ```text
//!  check, restore, backup, presence sweep --> names --> less those that the log knows --> points that need them (`restore::affected`)
//! ```
//!
//! Does not: look for damage, or commit. Source: ours; `log::damage`, `log::presence`.

use std::collections::BTreeSet;
use std::sync::Arc;

use windlass_agent::format::record::{DamageNews, Record};
use windlass_agent::id::{BackupId, ObjectId};
use windlass_agent::log::presence::{self, Presence};
use windlass_agent::log::state::State;
use windlass_agent::progress::Progress;
use windlass_agent::restore::affected;
use windlass_agent::restore::noticed;
pub use windlass_agent::restore::noticed::Found;
use windlass_agent::store::StoreFault;
use windlass_agent::store::retry::{Client, RetryPolicy};
use windlass_agent::table::read::TableReader;
use windlass_agent::table::source::TableLimits;

use crate::engine::host::HostClock;
use crate::engine::repository::Repository;
use crate::failure::Failure;

/// How long a request of a presence sweep is repeated: a sweep of a hundred pages takes some seconds, the end
/// of a command waits for it, and what a store that is down did not answer is asked by the next one.
const SWEEP_RETRIES: RetryPolicy =
    RetryPolicy { backoff_min_ms: 100, backoff_max_ms: 5_000, budget_ms: 30_000, attempts_max: 8 };
/// What the log does not say yet, as records.
pub fn records(
    repository: &Repository,
    state: &State,
    found: Found,
    job: &Progress,
) -> Result<Vec<Record>, Failure> {
    news(repository, state, found, job).map(DamageNews::into_records)
}

/// What the log does not say yet.
pub fn news(
    repository: &Repository,
    state: &State,
    found: Found,
    job: &Progress,
) -> Result<DamageNews, Failure> {
    noticed::news(state, found, &mut |is_lost| points_on(repository, state, is_lost, job))
}

/// The points that need an object or segment that `is_lost` names.
pub fn points_on(
    repository: &Repository,
    state: &State,
    is_lost: &dyn Fn(&ObjectId) -> bool,
    job: &Progress,
) -> Result<BTreeSet<BackupId>, Failure> {
    let mut found = BTreeSet::new();
    for (&volume, segments) in &state.segments {
        let has = |volumes: &[windlass_agent::format::record::BackupVolume]| {
            volumes.iter().any(|of| of.volume == volume)
        };
        let cuts: Vec<BackupId> =
            state.points.values().filter(|point| has(&point.volumes)).map(|point| point.backup).collect();
        let fetch = Arc::clone(&repository.opened.client);
        let reader = TableReader::new(fetch, &repository.keys, TableLimits::default(), segments);
        let reader = reader.ok_or_else(|| Failure::new("not enough memory to read the tables"))?;
        let stop = || job.is_stop_requested();
        found.extend(
            affected::points(reader, volume, segments, &cuts, is_lost, &stop)
                .map_err(|fault| Failure::at(format_args!("volume {volume}"), fault))?,
        );
    }
    Ok(found)
}

/// Whether it is time for a presence sweep.
pub fn is_sweep_due(state: &State) -> bool {
    presence::is_due(state, HostClock.wall_ns())
}

/// The presence sweep; ends early when `job` is to stop.
pub fn sweep(client: &Client, state: &State, job: &Progress) -> Result<Presence, StoreFault> {
    let client = client.with_policy(SWEEP_RETRIES);
    presence::sweep(&client, state, presence::SWEEP_PAGES_MAX, &|| job.is_stop_requested())
}

/// What a sweep has to say of the points that there are by now, and the records for it.
pub fn sweep_records(
    repository: &Repository,
    state: &State,
    found: Presence,
    job: &Progress,
) -> Result<(DamageNews, Vec<Record>), Failure> {
    let on = &mut |is_lost: &dyn Fn(&ObjectId) -> bool| points_on(repository, state, is_lost, job);
    let (news, swept) = noticed::of_sweep(state, found, HostClock.wall_ns(), on)?;
    let records = news.clone().into_records().into_iter().chain([Record::Swept(swept)]).collect();
    Ok((news, records))
}
