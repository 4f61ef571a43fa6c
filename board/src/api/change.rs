//! Commands and changes: given to the coordinator for who asks, whose role it looks at again.
//!
//! A change is planned on the log as the store has it now; a policy's next revision goes with it, so that of two changes at once one is refused.
//!
//! Source: ours; `windlass_agent::api::route`.

use serde_json::json;
use windlass_agent::api::answer::Answer;
use windlass_agent::api::code;
use windlass_agent::api::request::Request;
use windlass_agent::api::route::What;
use windlass_agent::coordinator::expire::expiring;
use windlass_agent::coordinator::status;
use windlass_agent::format::access::{Grant, is_subject};
use windlass_agent::format::garbage::{GarbageNews, Wanted};
use windlass_agent::format::record::Record;
use windlass_agent::id::NodeId;
use windlass_agent::log::state::State;
use windlass_agent::policy::{Policy, check_name};
use windlass_agent::work::entry::Role;
use windlass_agent::work::{Command, Reply};

use super::lanes::{Job, Refused, refused, untold};
use super::read::{failed, target};
use super::shared::Shared;
use crate::engine::changes::{self, Planned, PointChange};
use crate::engine::commit;
use crate::engine::desk::{COMMAND_PATIENCE, Submitter};
use crate::engine::documents;
use crate::engine::host::HostClock;
use crate::engine::policy::{missing, renaming, to_json};
use crate::failure::Failure;

/// Gives a command to the coordinator.
fn command(shared: &Shared, job: &Job, command: Command) -> Refused<Reply> {
    match shared.desk.command(&job.subject, command, COMMAND_PATIENCE).map_err(untold)? {
        Reply::Refused(why) => refused(code::REFUSED, &why),
        reply => Ok(reply),
    }
}

/// Commits what `plan` makes of the log's state.
fn submit<T>(shared: &Shared, job: &Job, plan: impl FnOnce(&State, i64) -> Planned<T>) -> Refused<T> {
    let mut submitter = Submitter { desk: &shared.desk, subject: &job.subject, untold: None };
    commit::submit(&shared.repository, Some(&mut submitter), plan).map_err(|failure| {
        match (submitter.untold, shared.repository.opened.store.watch().words()) {
            (Some(why), _) => untold(why),
            (None, Some(_)) => failed(&failure, code::STORE),
            (None, None) => failed(&failure, code::REFUSED),
        }
    })
}

/// The revision that a request wants to change, against the one that there is; 0: none is there.
fn guard(request: &Request, current: u32) -> Refused<()> {
    let Some(wanted) = request.field("if-match") else {
        return refused(
            code::BARE,
            "send If-Match with the ETag of what you have read, or \"0\" for what is not there yet",
        );
    };
    let fits = match wanted {
        "*" => current > 0,
        wanted => wanted.trim_matches('"').parse() == Ok(current),
    };
    if fits { Ok(()) } else { refused(code::CHANGED, &format!("its revision is {current} now")) }
}

/// The revision of a policy that was not removed.
fn revision(state: &State, name: &str) -> u32 {
    state.policies.get(name).filter(|entry| !entry.removed).map_or(0, |entry| entry.revision)
}

/// The same as `guard` within a plan: the answer is kept aside.
fn guarded<T>(shared: &Shared, job: &Job, plan: impl FnOnce(&State, i64) -> Planned<T>) -> Refused<T> {
    let name = job.part("policy");
    let mut answer = None;
    let done = submit(shared, job, |state, now_ns| {
        if let Err(refusal) = guard(&job.request, revision(state, name)) {
            answer = Some(refusal);
            return Err(Failure::new("another revision"));
        }
        plan(state, now_ns)
    });
    match answer {
        Some(answer) => Err(answer),
        None => done,
    }
}

/// Carries a command or a change out.
pub fn answer(shared: &Shared, job: &Job) -> Refused<Answer> {
    let name = job.part("policy");
    let status = job.route.status;
    let must_exist = !matches!(job.route.what, What::PolicySet) && !name.is_empty();
    if must_exist {
        let state = shared.snapshot().map_err(untold)?;
        if !state.state.policies.contains_key(name) {
            return refused(code::THING, &missing(&state.state, name).to_string());
        }
    }
    let document = match job.route.what {
        What::Flush => {
            command(shared, job, Command::Flush)?;
            json!({ "flushed": true })
        }
        What::Move => {
            let node = job.body.number("node").unwrap_or(0);
            command(shared, job, Command::Move(NodeId(node)))?;
            json!({ "node": node })
        }
        What::Backup => return backup(shared, job),
        What::Stop => {
            command(shared, job, Command::Stop(name.to_owned()))?;
            json!({ "stopped": name })
        }
        What::PolicySet => {
            let policy = Policy::parse(&job.request.body);
            let policy =
                policy.map_err(|fault| Box::new(Answer::problem(code::FIELD, &fault.to_string())))?;
            if policy.name != name {
                return refused(
                    code::FIELD,
                    &format!("name: it is about {}, the path about {name}", policy.name),
                );
            }
            let revision = guarded(shared, job, |state, _| changes::set(state, &policy))?;
            let document = json!({ "policy": to_json(&policy), "revision": revision });
            return Ok(Answer::json(status, &document).with("ETag", format!("\"{revision}\"")));
        }
        What::PolicyDelete => {
            let gone = guarded(shared, job, |state, now_ns| changes::delete(state, name, false, now_ns))?;
            json!({ "removed": name, "points": gone.points, "expired": 0, "given_up": gone.given_up })
        }
        What::PolicyRename => {
            let to = job.body.text("to").unwrap_or_default();
            let points = guarded(shared, job, |state, _| {
                Ok((renaming(state, name, to)?, documents::count(state, name)))
            })?;
            json!({ "renamed": name, "policy": to, "points": points })
        }
        What::PointHold
        | What::PointRelease
        | What::PointNote
        | What::PointTag
        | What::PointExpire
        | What::PointUndo => point(shared, job)?,
        What::RetentionRun => {
            let said = job.body.number("expire").map(|number| number as usize);
            let (_, verdicts) =
                submit(shared, job, |state, now_ns| changes::retention(state, name, said, now_ns))?;
            documents::retention(name, &verdicts, expiring(&verdicts).0, false)
        }
        What::RoleGrant | What::RoleRevoke => roles(shared, job)?,
        What::GarbageRun => {
            let wanted = Wanted { wall_ns: HostClock.wall_ns() };
            let record = Record::Garbage(GarbageNews::Wanted(wanted));
            submit(shared, job, |state, _| Ok((vec![record], status::garbage(state))))?
        }
        _ => return refused(code::FAILED, "no command"),
    };
    Ok(Answer::json(status, &document))
}

fn backup(shared: &Shared, job: &Job) -> Refused<Answer> {
    let name = job.part("policy");
    let number = match command(shared, job, Command::Backup(name.to_owned()))? {
        Reply::Done(number) => number.map(|number| number.0),
        Reply::Status(_) | Reply::Refused(_) => None,
    };
    let place = number.map_or("/v1/jobs".to_owned(), |number| format!("/v1/jobs/{number}"));
    Ok(Answer::json(job.route.status, &json!({ "policy": name, "point": number })).with("Location", place))
}

fn point(shared: &Shared, job: &Job) -> Refused<serde_json::Value> {
    let text = |name: &str| job.body.text(name).unwrap_or_default().to_owned();
    let (change, done) = match job.route.what {
        What::PointHold => (PointChange::hold(text("reason")), "is held"),
        What::PointRelease => (Ok(PointChange::release()), "is released"),
        What::PointNote => (PointChange::note(text("text")), "has its note"),
        What::PointTag => (PointChange::tags(job.body.all("tags").to_vec()), "has its tags"),
        What::PointUndo => (Ok(PointChange::Undo), "is back"),
        _ => (Ok(PointChange::Expire), "expired"),
    };
    let change = change.map_err(|failure| failed(&failure, code::FIELD))?;
    // What cannot be taken back names a point that does not become another one meanwhile.
    if job.part("point").parse::<u32>().is_err() {
        return refused(code::THING, "a point that changes is named by its number");
    }
    let snapshot = shared.snapshot().map_err(untold)?;
    let target = target(&snapshot.state, job)?;
    let (backup, _) = submit(shared, job, |state, now_ns| changes::point(state, &target, change, now_ns))?;
    Ok(json!({ "policy": target.policy, "point": backup.0, "done": done }))
}

fn roles(shared: &Shared, job: &Job) -> Refused<serde_json::Value> {
    let subject = job.part("subject");
    if !is_subject(subject) {
        return refused(code::FIELD, "subject: uid:N, gid:N or cert:NAME");
    }
    let role = |name: &String| {
        Role::of_name(name).ok_or_else(|| {
            let why = format!(
                "roles: {name:?} is none; there is viewer, operator, restorer, installer, administrator"
            );
            Box::new(Answer::problem(code::FIELD, &why))
        })
    };
    let roles = job.body.all("roles").iter().map(role).collect::<Refused<Vec<Role>>>()?;
    let policies = job.body.all("policies");
    let grants = submit(shared, job, |state, _| {
        let had = state.access.roles.get(subject).cloned().unwrap_or_default();
        let grants = if job.route.what == What::RoleGrant {
            more(state, had, &roles, policies)?
        } else {
            less(had, &roles, policies)?
        };
        if would_cut_off(state, &job.subject, subject, &grants) {
            return Err(Failure::usage(format_args!(
                "{subject}: you would be no administrator any more; let another one take the role"
            )));
        }
        changes::roles(subject, grants)
    })?;
    Ok(json!({ "subject": subject, "roles": documents::grants(&grants) }))
}

fn more(
    state: &State,
    mut had: Vec<Grant>,
    roles: &[Role],
    policies: &[String],
) -> Result<Vec<Grant>, Failure> {
    for policy in policies {
        check_name(policy).map_err(Failure::usage)?;
        if !state.policies.contains_key(policy) {
            return Err(missing(state, policy));
        }
    }
    for &role in roles {
        let all = policies.iter().cloned().chain(policies.is_empty().then(String::new));
        had.extend(all.map(|policy| Grant { role, policy }));
    }
    Ok(had)
}

fn less(mut had: Vec<Grant>, roles: &[Role], policies: &[String]) -> Result<Vec<Grant>, Failure> {
    let goes = |grant: &Grant| {
        let is_named = roles.is_empty() || roles.contains(&grant.role);
        is_named && (policies.is_empty() || policies.contains(&grant.policy))
    };
    if !had.iter().any(goes) {
        return Err(Failure::new("the subject has no such role"));
    }
    had.retain(|grant| !goes(grant));
    Ok(had)
}

/// Whether who asks would take the role from itself by which it asks.
fn would_cut_off(state: &State, asker: &str, subject: &str, grants: &[Grant]) -> bool {
    let rules = |grant: &Grant| grant.role == Role::Administrator && grant.policy.is_empty();
    let of = |name: &str| state.access.roles.get(name).into_iter().flatten().any(rules);
    let names = || asker.split(',');
    names().any(|name| name == subject)
        && of(subject)
        && !grants.iter().any(rules)
        && !names()
            .any(|name| name != subject && (of(name) || name == windlass_agent::coordinator::access::OWNER))
}
