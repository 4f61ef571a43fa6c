//! From what somebody found lost to records of the log: which points need it, and that the next backup stores
//! it again.
//!
//! ```text
//!  check, restore, backup, presence sweep --> names --> less those that the log knows --> points that need them (`restore::affected`)
//! ```
//!
//! Nothing here makes a command fail: what could not be recorded is logged, and found again by the next check.
//!
//! Does not: look for damage, or know how records are committed. Source: ours; `log::damage`, `log::presence`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;

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
use windlass_agent::units::Counted;

use crate::engine::host::HostClock;
use crate::engine::repository::Repository;
use crate::failure::Failure;
use crate::logger;

/// How long a request of a presence sweep is repeated: a sweep of a hundred pages takes some seconds, the end
/// of a command waits for it, and what a store that is down did not answer is asked by the next one.
const SWEEP_RETRIES: RetryPolicy =
    RetryPolicy { backoff_min_ms: 100, backoff_max_ms: 5_000, budget_ms: 30_000, attempts_max: 8 };

/// Commits records of what was found: through an agent, or under a lease of this process.
pub type Commit<'a> = dyn FnMut(&Repository, Vec<Record>) -> Result<(), Failure> + 'a;

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

/// Points named in a message; more are counted.
const POINTS_NAMED: usize = 8;

/// Writes into the log what is new of it, and says what became of that.
pub fn record(commit: &mut Commit<'_>, repository: &Repository, state: &State, found: Found, job: &Progress) {
    let recorded = news(repository, state, found, job).and_then(|news| {
        commit(repository, news.clone().into_records())?;
        Ok(news)
    });
    match recorded {
        Ok(news) => tell(state, &news),
        Err(why) => logger::say(format_args!(
            "windlass: the damage could not be recorded, so backups go on as before: {why}; run `windlass check` \
             again when nothing else has the repository's lease"
        )),
    }
}

/// Begins the presence sweep beside a backup, when it is time for one.
pub fn begin_sweep(repository: &Repository, state: &State, job: &Arc<Progress>) -> Option<Sweeping> {
    if !is_sweep_due(state) {
        return None;
    }
    let (client, state, job) = (Arc::clone(&repository.opened.client), state.clone(), Arc::clone(job));
    let sweep = move || sweep(&client, &state, &job);
    // Without a thread to give, the next backup does it.
    std::thread::Builder::new().name("presence".to_owned()).spawn(sweep).ok()
}

/// A sweep under way.
pub type Sweeping = JoinHandle<Result<Presence, StoreFault>>;

/// Waits for a sweep, and writes what it found into the log. What goes wrong is said, and the next backup sweeps again.
pub fn end_sweep(commit: &mut Commit<'_>, repository: &Repository, sweeping: Sweeping, job: &Progress) {
    let Ok(swept) = sweeping.join() else { return };
    let recorded = swept.map_err(Failure::new).and_then(|found| {
        let state = repository.view()?.state;
        let (news, records) = sweep_records(repository, &state, found, job)?;
        commit(repository, records)?;
        Ok((state, news))
    });
    match recorded {
        Ok((state, news)) => tell(&state, &news),
        Err(why) => {
            log::warn!("presence: not compared with what the store lists; the next backup does why=\"{why}\"")
        }
    }
}

/// Says what was recorded.
fn tell(state: &State, news: &DamageNews) {
    for line in [said("damaged", &news.points), said("sound again", &news.points_sound)] {
        line.iter()
            .for_each(|line| logger::say(format_args!("windlass: {line}; `windlass check` tells more")));
    }
    let mut lost = news.missing.clone();
    lost.add(&news.damaged);
    if lost.is_empty() {
        return;
    }
    let of_tables: Vec<_> = state
        .segments
        .values()
        .flat_map(|list| list.iter())
        .filter(|segment| lost.contains(&segment.id))
        .collect();
    let (segments, objects) = (of_tables.len() as u64, lost.len().saturating_sub(of_tables.len() as u64));
    let counted: Vec<String> = [(objects, "object"), (segments, "table segment")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| Counted(count, what).to_string())
        .collect();
    let verb = if objects + segments == 1 { "is" } else { "are" };
    logger::say(format_args!(
        "windlass: {} of the store {verb} missing or damaged; recorded, and the next backup stores again what it needs",
        counted.join(" and ")
    ));
    for segment in of_tables.iter().take(POINTS_NAMED) {
        logger::say(format_args!(
            "windlass: segment {} of the tables is missing or damaged; `windlass repo rebuild` makes the tables anew \
             from the objects",
            segment.id
        ));
    }
}

/// "point 3 is damaged", "points 3, 4 and 7 more are damaged".
fn said(what: &str, points: &[BackupId]) -> Option<String> {
    let named: Vec<String> = points.iter().take(POINTS_NAMED).map(ToString::to_string).collect();
    let more = match points.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    match points.len() {
        0 => None,
        1 => Some(format!("point {} is {what}", named.join(", "))),
        _ => Some(format!("points {}{more} are {what}", named.join(", "))),
    }
}

/// Says so before something is read of a point that is known to be damaged.
pub fn warn(state: &State, point: BackupId) {
    if state.damage.points.contains(&point) {
        logger::say(format_args!(
            "windlass: point {point} is damaged: something that it needs is missing from the store, or was changed \
             there; `windlass check` names it, and the next backup stores again what is still on the volume"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_named_as_far_as_a_person_reads() {
        let points: Vec<BackupId> = (1..=10).map(BackupId).collect();
        assert_eq!(said("damaged", &[]), None);
        assert_eq!(said("damaged", &points[..1]).unwrap(), "point 1 is damaged");
        assert_eq!(said("sound again", &points[..2]).unwrap(), "points 1, 2 are sound again");
        assert_eq!(said("damaged", &points).unwrap(), "points 1, 2, 3, 4, 5, 6, 7, 8 and 2 more are damaged");
    }
}
