//! Records that a command makes of the log's state, committed: under a lease of this process, or by a coordinator.
//!
//! ```text
//!  state, wall clock --> plan --> records --> the coordinator, if there is one --> accepted or refused
//!                                         \-> lease --> log
//! ```
//!
//! Invariants: a change of a policy carries its next revision, so that it does not count when another one was faster. Source: ours.

use nix::unistd::geteuid;
use windlass_agent::coordinator::approval;
use windlass_agent::format::access::AccessNews;
use windlass_agent::format::record::Record;
use windlass_agent::format::removal::{REMOVAL_BYTES_MAX, REMOVAL_RECORDS_MAX, RemovalNews};
use windlass_agent::log::state::State;
use windlass_agent::node::believed_ns;
use windlass_agent::units::format_duration_ms;

use crate::engine::host::HostClock;
use crate::engine::repository::{NODE, Repository};
use crate::failure::Failure;

/// Records of one commit: a slot holds more, and those of this size fit a frame of the backplane.
const BATCH: usize = 64;

/// What commits records for a process that has no lease: an agent, reached by whichever way.
pub trait Coordinator {
    /// Commits them in one piece.
    ///
    /// # Errors
    /// They were refused, or it cannot be reached.
    fn submit(&mut self, records: Vec<Record>) -> Result<(), Failure>;
}

/// Commits records that `plan` makes from the log's state and the wall clock, in nanoseconds. None is not a commit.
///
/// # Errors
/// Those of `plan`, of the log and of the coordinator.
pub fn submit<T>(
    repository: &Repository,
    coordinator: Option<&mut dyn Coordinator>,
    plan: impl FnOnce(&State, i64) -> Result<(Vec<Record>, T), Failure>,
) -> Result<T, Failure> {
    // The store has been heard by then: a clock that was set ahead makes no point old.
    let now_ns = || {
        let said = repository.opened.shared().time();
        believed_ns(HostClock.boot_ns(), HostClock.wall_ns(), said)
    };
    let Some(coordinator) = coordinator else {
        return repository.with_session(|session| {
            let (records, planned) = plan(&session.view().state, now_ns())?;
            let state = &session.view().state;
            let (records, asked) = or_ask(state, records)?;
            let admitted = approval::admit(state, &subject(), now_ns(), records).map_err(Failure::new)?;
            let mut records = admitted;
            let given_up: Vec<Record> =
                records.iter().filter_map(|record| state.given_up_with(record)).collect();
            records.extend(given_up);
            let by = by(&session.view().state, &records, now_ns());
            // What was approved is in one slot with its approval.
            let is_removal = records.iter().any(|record| matches!(record, Record::Removal(_)));
            for batch in records.chunks(if is_removal { records.len().max(1) } else { BATCH }) {
                let batch = by.iter().chain(batch).cloned().collect();
                session.commit(batch).map_err(Failure::new)?;
            }
            asked.map_or(Ok(planned), Err)
        });
    };
    let view = repository.view()?;
    let (records, planned) = plan(&view.state, now_ns())?;
    let (records, asked) = or_ask(&view.state, records)?;
    for batch in records.chunks(BATCH) {
        coordinator.submit(batch.to_vec())?;
    }
    asked.map_or(Ok(planned), Err)
}

/// The records; or, where a policy wants a second subject to approve them, the request for that, and what is said when it is made.
fn or_ask(state: &State, records: Vec<Record>) -> Result<(Vec<Record>, Option<Failure>), Failure> {
    let Some((policy, delay_ms)) = approval::needed(state, &records) else { return Ok((records, None)) };
    let bytes: usize = records.iter().map(Record::encoded_len).sum();
    if records.len() > REMOVAL_RECORDS_MAX || bytes > REMOVAL_BYTES_MAX {
        return Err(Failure::new(format_args!(
            "policy {policy} wants a second subject to approve this, and it is more than one request holds ({REMOVAL_RECORDS_MAX} changes): \
             ask for less at once"
        )));
    }
    // Who commits it says who asks, and when.
    let asked = approval::ask(&subject(), HostClock.wall_ns(), delay_ms, records);
    let record = Record::Removal(RemovalNews::Asked(Box::new(asked)));
    let from = match delay_ms {
        0 => String::new(),
        ms => format!(", {} from now at the earliest", format_duration_ms(ms)),
    };
    let said = Failure::new(format_args!(
        "not done yet: policy {policy} wants a second subject to approve this. It is asked for, `windlass removal list` has the request's number, and \
         another subject approves it with `windlass removal approve NUMBER`{from}"
    ));
    Ok((vec![record], Some(said)))
}

/// Who this process is.
fn subject() -> String {
    format!("uid:{}", geteuid().as_raw())
}

/// Who asks, where subjects have roles: one who has the key and needs none.
fn by(state: &State, records: &[Record], wall_ns: i64) -> Option<Record> {
    let subject = subject();
    let is_first = records.iter().any(|record| matches!(record, Record::Access(_)));
    let says = is_first || !state.access.roles.is_empty();
    says.then_some(Record::Access(AccessNews::By { subject, node: NODE, wall_ns }))
}

/// Commits each record by itself: they do not depend on each other, and each may be refused.
///
/// # Errors
/// The first that was refused; those before it are committed.
pub fn each(
    repository: &Repository,
    coordinator: Option<&mut dyn Coordinator>,
    records: Vec<Record>,
) -> Result<(), Failure> {
    if records.is_empty() {
        return Ok(());
    }
    match coordinator {
        Some(coordinator) => records.into_iter().try_for_each(|record| coordinator.submit(vec![record])),
        None => repository.with_session(|session| {
            for record in records {
                session.commit(vec![record]).map_err(|fault| Failure::at("the commit log", fault))?;
            }
            Ok(())
        }),
    }
}
