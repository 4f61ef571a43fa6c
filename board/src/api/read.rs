//! Answers to questions: from what the node knows, and for the log and files from the store.
//!
//! Source: ours; `windlass_agent::api::route`.

use std::path::Path;

use serde_json::{Value, json};
use windlass_agent::api::answer::{Answer, Media};
use windlass_agent::api::code;
use windlass_agent::api::document::{Field, Table, openapi};
use windlass_agent::api::health::health;
use windlass_agent::api::metrics::{self, Facts};
use windlass_agent::api::route::What;
use windlass_agent::coordinator::access::may_use;
use windlass_agent::coordinator::expire::expiring;
use windlass_agent::id::BackupId;
use windlass_agent::log::state::State;
use windlass_agent::work::entry::Role;

use super::lanes::{Job, Refused, refused, untold};
use super::page;
use super::shared::{Shared, Snapshot};
use crate::engine::documents::{self, Entries, Page, Wanted, status_word};
use crate::engine::host::{self, HostClock};
use crate::engine::{browse, changes, policy};
use crate::failure::{Exit, Failure};
use crate::point::{PointRef, Target};
use crate::schema::Schema;

/// Points of a page, at most and where nothing is said.
const POINTS_MAX: u32 = 1000;
/// Entries of the log, at most.
const ENTRIES_MAX: u32 = 1000;
/// The same where nothing is said.
const ENTRIES_USUAL: u32 = 100;

/// A failure of a composition as a refusal.
pub fn failed(failure: &Failure, code: code::Code) -> Box<Answer> {
    let code = if failure.exit == Exit::Usage { code::FIELD } else { code };
    Box::new(Answer::problem(code, &failure.to_string()))
}

/// The policy of a path, if it is there; one that was removed and has points can be read.
fn known<'a>(state: &State, job: &'a Job) -> Refused<&'a str> {
    let name = job.part("policy");
    let is_there =
        state.policies.get(name).is_some_and(|entry| !entry.removed || documents::count(state, name) > 0);
    if is_there { Ok(name) } else { refused(code::THING, &policy::missing(state, name).to_string()) }
}

/// The point of a path.
pub fn target(state: &State, job: &Job) -> Refused<Target> {
    let policy = known(state, job)?.to_owned();
    let point = match job.part("point") {
        "latest" => PointRef::Latest,
        number => match number.parse() {
            Ok(number) => PointRef::Number(number),
            Err(_) => return refused(code::THING, "a point is a number, or latest"),
        },
    };
    Ok(Target { policy, point })
}

/// Carries a question out.
pub fn answer(shared: &Shared, job: &Job) -> Refused<Answer> {
    match job.route.what {
        What::Style => return Ok(Answer::new(200, Media::Css, page::STYLE.as_bytes().to_vec())),
        What::OpenApi => {
            return Ok(Answer::new(200, Media::Json, shared.openapi.get_or_init(described).clone()));
        }
        What::Codes => return Ok(codes()),
        What::Node => return Ok(Answer::json(200, &node(shared))),
        _ => {}
    }
    let known_now = shared.snapshot().map_err(untold)?;
    let (snapshot, state) = (&*known_now, &*known_now.state);
    Ok(match job.route.what {
        What::Overview => page::overview(shared, snapshot),
        What::PolicyPage => {
            page::policy(shared, snapshot, known(state, job)?).map_err(|f| failed(&f, code::FAILED))?
        }
        What::Metrics => metrics_answer(shared, snapshot, job.request.field("accept").unwrap_or_default()),
        What::Status if snapshot.status.is_null() => {
            return refused(code::LATE, "neither the coordinator nor this node has said how things are yet");
        }
        What::Status => Answer::json(200, &shared.status_for(snapshot, &job.subject)),
        What::Garbage => Answer::json(200, &windlass_agent::coordinator::status::garbage(state)),
        What::Policies => {
            Answer::json(200, &documents::policies(state).map_err(|f| failed(&f, code::FAILED))?)
        }
        What::Policy => {
            let name = known(state, job)?;
            let policy = policy::required(state, name).map_err(|f| failed(&f, code::THING))?;
            let revision = state.policies.get(name).map_or(0, |entry| entry.revision);
            Answer::json(200, &policy::to_json(&policy)).with("ETag", format!("\"{revision}\""))
        }
        What::Points => {
            let page = Page {
                before: job.query.number("before").map_or(Page::ALL.before, BackupId),
                limit: job.query.number("limit").unwrap_or(POINTS_MAX).clamp(1, POINTS_MAX) as usize,
            };
            let document = documents::points(state, known(state, job)?, page);
            Answer::json(200, &document.map_err(|f| failed(&f, code::FAILED))?)
        }
        What::Retention => {
            let name = known(state, job)?;
            let (_, verdicts) =
                changes::judged(state, name, HostClock.wall_ns()).map_err(|f| failed(&f, code::THING))?;
            Answer::json(200, &documents::retention(name, &verdicts, expiring(&verdicts).0, true))
        }
        What::Roles => Answer::json(200, &documents::roles(state)),
        What::Jobs => Answer::json(200, &jobs(&shared.status_for(snapshot, &job.subject))),
        What::Job => {
            let number = job.part("job").parse().map(BackupId);
            let found = number.ok().and_then(|number| job_of(snapshot, number));
            let is_seen = |found: &Value| {
                let policy = found["policy"].as_str();
                may_use(state, &job.subject, Role::Viewer, policy).is_ok()
            };
            let found = found.filter(is_seen);
            match found {
                Some(found) => Answer::json(200, &found),
                None => return refused(code::THING, "there is no such job, or its point has expired"),
            }
        }
        What::Log => {
            let wanted = Wanted {
                last: job.query.number("last").unwrap_or(ENTRIES_USUAL).clamp(1, ENTRIES_MAX) as usize,
                policy: job.query.text("policy"),
                all: false,
            };
            let entries = Entries::read(&shared.repository, &wanted).map_err(|f| failed(&f, code::STORE))?;
            Answer::json(200, &entries.document())
        }
        What::List => {
            let target = target(state, job)?;
            let path = Path::new(job.query.text("path").unwrap_or("/"));
            let place = (job.query.text("volume"), path);
            let listed = browse::list(
                &shared.repository,
                state,
                &target,
                place,
                u64::from(job.query.number("from").unwrap_or(0)),
            );
            Answer::json(200, &listed.map_err(|f| failed(&f, code::THING))?)
        }
        What::Stat => {
            let target = target(state, job)?;
            let path = Path::new(job.query.text("path").unwrap_or("/"));
            let found = browse::stat(&shared.repository, state, &target, (job.query.text("volume"), path));
            Answer::json(200, &found.map_err(|f| failed(&f, code::THING))?)
        }
        _ => return refused(code::FAILED, "no question"),
    })
}

fn described() -> Vec<u8> {
    let schema = Schema::read();
    let tables: Vec<Table<'_>> = schema
        .tables()
        .map(|(name, fields)| {
            let field = |field: &crate::schema::Field| Field {
                name: field.name,
                kind: field.kind,
                optional: field.optional,
                meaning: field.meaning,
            };
            (name, fields.iter().map(field).collect())
        })
        .collect();
    openapi(env!("CARGO_PKG_VERSION"), &tables).to_string().into_bytes()
}

fn codes() -> Answer {
    let one = |code: &code::Code| json!({ "code": code.to_string(), "status": code.status, "title": code.title, "help": code.help });
    Answer::json(200, &json!({ "codes": code::ALL.iter().map(one).collect::<Vec<_>>() }))
}

/// Who the node is; where its keys are is no client's business.
fn node(shared: &Shared) -> Value {
    let identity = &shared.identity;
    json!({
        "node": identity.node,
        "name": identity.name,
        "repository": identity.repository,
        "version": env!("CARGO_PKG_VERSION"),
        "volumes": identity.volumes.iter().map(|(name, _)| name).collect::<Vec<_>>(),
    })
}

fn metrics_answer(shared: &Shared, snapshot: &Snapshot, accept: &str) -> Answer {
    let health = health(&snapshot.state, HostClock.wall_ns());
    let (throttle, store) = (&shared.repository.opened.throttle, &shared.repository.opened.store);
    let mut counts = store.totals();
    counts.bytes = (throttle.sent(), throttle.received());
    let facts = Facts {
        version: env!("CARGO_PKG_VERSION"),
        node: shared.identity.node,
        started_secs: shared.started_secs,
        status: &snapshot.status,
        status_age_secs: HostClock.boot_ns().saturating_sub(snapshot.status_ns) as f64 / 1e9,
        coordinates: snapshot.coordinates,
        health: &health,
        waits: snapshot.waits,
        store: counts,
        api: shared.counts.snapshot(),
        memory_bytes: (host::peak_memory_bytes(), shared.memory_bytes),
    };
    let is_open = accept.contains("application/openmetrics-text");
    let media = if is_open { Media::OpenMetrics } else { Media::Metrics };
    Answer::new(200, media, metrics::text(&facts, is_open).0.into_bytes())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A running backup as the status has it, as a job.
fn running(backup: &Value) -> Value {
    let mut job = json!({ "job": backup["backup"], "kind": "backup", "state": "running" });
    for field in
        ["policy", "items_done", "items_total", "bytes_done", "bytes_total", "rate", "eta_s", "waits"]
    {
        job[field] = backup[field].clone();
    }
    job
}

fn jobs(status: &Value) -> Value {
    let running = list(&status["backups"]).iter().map(running);
    let queued = list(&status["queue"])
        .iter()
        .map(|policy| json!({ "job": Value::Null, "kind": "backup", "state": "queued", "policy": policy }));
    json!({ "jobs": running.chain(queued).collect::<Vec<_>>() })
}

/// What became of a backup, as the status and then the log say it: also after all nodes have started anew.
fn job_of(snapshot: &Snapshot, number: BackupId) -> Option<Value> {
    let state = &snapshot.state;
    let at_work = list(&snapshot.status["backups"]).iter();
    if let Some(backup) = at_work.into_iter().find(|backup| backup["backup"] == number.0) {
        return Some(running(backup));
    }
    if let Some(point) = state.points.get(&number) {
        let word = match status_word(state, point) {
            "complete" => "done",
            other => other,
        };
        return Some(json!({
            "job": number.0, "kind": "backup", "state": word, "policy": point.policy, "point": number.0,
            "items_done": point.totals.items, "bytes_done": point.totals.bytes_logical, "faults": point.totals.faults,
        }));
    }
    let begun = state.running.get(&number)?;
    let is_stopped = state.running_of(&begun.policy).is_none_or(|(backup, _)| backup != number);
    let word = if is_stopped { "given_up" } else { "interrupted" };
    Some(json!({
        "job": number.0, "kind": "backup", "state": word, "policy": begun.policy,
        "items_done": begun.totals.items, "bytes_done": begun.totals.bytes_logical,
    }))
}
