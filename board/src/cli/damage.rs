//! From what a command found lost to the commit log: which points need it, and the record that makes the next backup store it again.
//!
//! ```text
//!  check, restore, backup, presence sweep --> names --> [`engine::damage`](crate::engine::damage) --> records
//!      --> through the agent of this machine, or under the lease
//! ```
//!
//! Nothing here makes a command fail: what could not be recorded is said, and found again by the next check.
//!
//! Does not: look for damage. Source: ours; `log::damage`, `log::presence`.

use std::sync::Arc;
use std::thread::JoinHandle;

use windlass_agent::format::record::{DamageNews, Record};
use windlass_agent::id::BackupId;
use windlass_agent::log::presence::Presence;
use windlass_agent::log::state::State;
use windlass_agent::progress::Progress;
use windlass_agent::store::StoreFault;
use windlass_agent::units::Counted;
use windlass_agent::work::Command;

use crate::cli::args::global::Global;
use crate::cli::through::Through;
pub use crate::engine::damage::Found;
use crate::engine::damage::{is_sweep_due, news, sweep, sweep_records};
use crate::engine::repository::Repository;
use crate::failure::Failure;
use crate::logger;

/// Points named in a message; more are counted.
const POINTS_NAMED: usize = 8;

/// Writes into the log what is new of it, and says what became of that.
pub fn record(global: &Global, repository: &Repository, state: &State, found: Found, job: &Progress) {
    let recorded = news(repository, state, found, job).and_then(|news| {
        commit(global, repository, news.clone().into_records())?;
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
pub fn end_sweep(global: &Global, repository: &Repository, sweeping: Sweeping, job: &Progress) {
    let Ok(swept) = sweeping.join() else { return };
    let recorded = swept.map_err(Failure::new).and_then(|found| {
        let state = repository.view()?.state;
        let (news, records) = sweep_records(repository, &state, found, job)?;
        commit(global, repository, records)?;
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

/// Commits records, through the agent here when there is one.
pub fn commit(global: &Global, repository: &Repository, records: Vec<Record>) -> Result<(), Failure> {
    if records.is_empty() {
        return Ok(());
    }
    match Through::find(global)? {
        Some(mut through) => {
            for record in records {
                through.agent.command(Command::Submit(vec![record]))?;
            }
            Ok(())
        }
        None => repository.with_session(|session| {
            for record in records {
                session.commit(vec![record]).map_err(|fault| Failure::at("the commit log", fault))?;
            }
            Ok(())
        }),
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
