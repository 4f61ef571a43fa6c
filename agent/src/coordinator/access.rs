//! Who may do what: each command needs a role, for its policy or for all, and the coordinator looks at the roles in the log before it does
//! anything.
//!
//! The role is that of the command in the table of commands (`work::table`); a record that is submitted needs that of the command which
//! makes it. It is needed for the policy that the command is about, or that the point is of; else for all: flush, the coordinator's move,
//! roles, the lease, a new name of a policy. Any role lets one see the status; one whose roles are for some policies sees of backups, points
//! and errors those of these policies.
//!
//! Who holds the repository's key may do everything: root and the agent's own user, whom the node names [`OWNER`]. A command line that has
//! the key and no agent needs no role. Refused attempts are counted in the log, in one record a minute and subject.
//!
//! Invariants: a function of the log, the subject and the command. Does not: know who is at the other end: the node does.
//! Source: ours.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Asker, Coordinator, Now, Pending};
use crate::format::access::{AccessNews, Grant, REFUSED_WHAT_BYTES_MAX, is_subject};
use crate::format::record::Record;
use crate::format::removal::RemovalNews;
use crate::id::BackupId;
use crate::log::state::State;
use crate::work::entry::Role;
use crate::work::request;
use crate::work::{Command, Reply};

/// What a node calls those who hold the repository's key: a part of their subject.
pub const OWNER: &str = "owner";
/// Between two records of what was refused, in nanoseconds.
const REFUSED_NS: u64 = 60_000_000_000;
/// Subjects of which refusals wait for their record; others are not counted until then.
const WAITING_MAX: usize = 16;

/// What was refused and is not in the log yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Refusals {
    waiting: BTreeMap<String, (u64, String)>,
    last_ns: Option<u64>,
}

/// For what a role is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Scope {
    Policy(String),
    /// For all policies, and for what is of none.
    All,
    /// For any policy, whichever.
    Any,
}

impl From<Option<String>> for Scope {
    fn from(policy: Option<String>) -> Scope {
        policy.map_or(Scope::All, Scope::Policy)
    }
}

/// One of these roles.
type Need = (Vec<Role>, Scope);

fn of_point(state: &State, backup: BackupId) -> Option<String> {
    state.points.get(&backup).map(|point| point.policy.clone())
}

fn of_record(state: &State, record: &Record) -> Need {
    // What no command makes, no other role may.
    let role = request::entry_of(record).map_or(Role::Administrator, |entry| entry.role);
    let policy = match record {
        // Whatever reads points holds them, whatever it reads: a check, a restore.
        Record::Pin { .. } | Record::PinRefreshed { .. } | Record::Unpin { .. } => {
            return (vec![Role::Restorer, role], Scope::Any);
        }
        Record::PolicyChanged(change) => Some(change.name.clone()),
        Record::PolicyRemoved { name, .. } => Some(name.clone()),
        Record::PointMarked(news) => of_point(state, news.backup),
        Record::PointExpired { backup } => of_point(state, *backup),
        Record::PointGuarded(news) => of_point(state, news.backup),
        // Also a new name: a role for it may say more.
        _ => None,
    };
    (vec![role], policy.into())
}

/// The same; who asks for a removal, approves or withdraws it, needs what it does.
fn of_all(state: &State, record: &Record) -> Vec<Need> {
    let inner = match record {
        Record::Removal(RemovalNews::Asked(asked)) => Some(&asked.records),
        Record::Removal(RemovalNews::Approved { request, .. } | RemovalNews::Withdrawn { request, .. }) => {
            state.removals.get(request).map(|asked| &asked.records)
        }
        _ => None,
    };
    match inner {
        Some(records) => records.iter().map(|record| of_record(state, record)).collect(),
        None => vec![of_record(state, record)],
    }
}

/// What a command needs.
fn needs(state: &State, command: &Command) -> Vec<Need> {
    match command {
        Command::Backup(policy) | Command::Stop(policy) => {
            vec![(vec![Role::Operator], Scope::Policy(policy.clone()))]
        }
        // One who may do something may see how things are.
        Command::Status => vec![(vec![Role::Viewer], Scope::Any)],
        Command::Move(_) => vec![(vec![Role::Installer], Scope::All)],
        Command::Flush => vec![(vec![Role::Operator], Scope::All)],
        Command::Submit(records) => records.iter().flat_map(|record| of_all(state, record)).collect(),
        Command::As { command, .. } => needs(state, command),
    }
}

fn has(state: &State, subject: &str, (roles, scope): &Need) -> bool {
    let fits = |grant: &Grant| {
        let is_in_scope = match scope {
            Scope::Policy(policy) => grant.policy.is_empty() || grant.policy == *policy,
            Scope::All => grant.policy.is_empty(),
            Scope::Any => true,
        };
        is_in_scope && roles.iter().any(|&role| grant.role.may(role))
    };
    let names = subject.split(',');
    names.filter_map(|name| state.access.roles.get(name)).flatten().any(fits)
}

/// Whether a subject may do this: its names with commas between.
///
/// # Errors
/// What it lacks, and who can give it.
pub fn may(state: &State, subject: &str, command: &Command) -> Result<(), String> {
    if subject.split(',').any(|name| name == OWNER) {
        return Ok(());
    }
    lacking(state, subject, needs(state, command))
}

/// Whether a subject may use what needs a role: for a policy, or for what is of none. What a viewer sees of no policy, one who has any role sees.
///
/// # Errors
/// What it lacks, and who can give it.
pub fn may_use(state: &State, subject: &str, role: Role, policy: Option<&str>) -> Result<(), String> {
    if subject.split(',').any(|name| name == OWNER) {
        return Ok(());
    }
    let scope = match policy {
        Some(policy) => Scope::Policy(policy.to_owned()),
        None if role == Role::Viewer => Scope::Any,
        None => Scope::All,
    };
    lacking(state, subject, vec![(vec![role], scope)])
}

/// Whether a subject has the key, or a role that is for all policies: others see what is of their policies.
#[must_use]
pub fn sees_all(state: &State, subject: &str) -> bool {
    let mut names = subject.split(',');
    names.any(|name| {
        let mut grants = state.access.roles.get(name).into_iter().flatten();
        name == OWNER || grants.any(|grant| grant.policy.is_empty())
    })
}

/// The first of these that a subject lacks, in words.
fn lacking(state: &State, subject: &str, needs: Vec<Need>) -> Result<(), String> {
    let Some((roles, scope)) = needs.into_iter().find(|need| !has(state, subject, need)) else {
        return Ok(());
    };
    let policy = match scope {
        Scope::Policy(policy) => Some(policy),
        Scope::All | Scope::Any => None,
    };
    let of = policy.as_ref().map_or_else(String::new, |policy| format!(" for policy {policy}"));
    let option = policy.as_ref().map_or_else(String::new, |policy| format!(" --policy {policy}"));
    let name = subject.split(',').find(|name| is_subject(name)).unwrap_or(subject);
    let role = roles.first().copied().unwrap_or(Role::Administrator);
    Err(format!(
        "{name} may not do this: it needs the role {role}{of}; an administrator gives it with `windlass role grant {name} {role}{option}`"
    ))
}

/// What is kept of a refusal: what it needs. Who asked is beside it, and what to do is for who asked.
fn what_lacks(why: &str) -> String {
    let what = why.split_once(": ").map_or(why, |(_, what)| what);
    let what = what.split_once("; ").map_or(what, |(what, _)| what);
    if what.len() <= REFUSED_WHAT_BYTES_MAX {
        return what.to_owned();
    }
    let fits = what.get(..what.floor_char_boundary(REFUSED_WHAT_BYTES_MAX)).unwrap_or_default();
    fits.rsplit_once(' ').map_or(fits, |(words, _)| words).to_owned()
}

/// Why a command is refused to the subject that asks; `None`: it is not, or no subject is named.
#[must_use]
pub fn refusal(state: &State, command: &Command) -> Option<String> {
    match command {
        Command::As { subject, command } => may(state, subject, command).err(),
        _ => None,
    }
}

/// The status as who asks for it may see it: with roles for some policies only, what goes on of those, and nodes and the store.
#[must_use]
pub fn shown(state: &State, command: &Command, status: String) -> String {
    let Command::As { subject, .. } = command else { return status };
    if subject.split(',').any(|name| name == OWNER) {
        return status;
    }
    let grants = subject.split(',').filter_map(|name| state.access.roles.get(name)).flatten();
    let seen: BTreeSet<&str> = grants.map(|grant| grant.policy.as_str()).collect();
    if seen.contains("") {
        return status;
    }
    let Ok(mut document) = serde_json::from_str::<Value>(&status) else { return status };
    let is_seen = |policy: &Value| policy.as_str().is_none_or(|policy| seen.contains(policy));
    for (part, field) in [("backups", "/policy"), ("points", "/policy"), ("errors", "/policy"), ("queue", "")]
    {
        if let Some(list) = document.get_mut(part).and_then(Value::as_array_mut) {
            list.retain(|one| one.pointer(field).is_none_or(is_seen));
        }
    }
    document.to_string()
}

impl Coordinator {
    /// A command of a subject.
    pub(super) fn command_as(&mut self, now: Now<'_>, asker: Asker, subject: &str, command: Command) {
        if self.settings.checks.roles()
            && let Err(why) = may(now.state, subject, &command)
        {
            log::warn!("access: refused subject={subject} node={}", asker.0);
            let name = subject.split(',').next().unwrap_or(subject).to_owned();
            if self.refusals.waiting.len() < WAITING_MAX || self.refusals.waiting.contains_key(&name) {
                let waiting = self.refusals.waiting.entry(name).or_default();
                waiting.0 = waiting.0.saturating_add(1);
                waiting.1 = what_lacks(&why);
            }
            return self.reply(asker, Reply::Refused(why));
        }
        self.busy_ns = now.ns;
        let name = subject.split(',').next().unwrap_or(subject).to_owned();
        let by = AccessNews::By { subject: name, node: asker.0, wall_ns: now.wall_ns };
        // Where no one has a role, older programs read the log, and all who ask are the same.
        let has_roles = !now.state.access.roles.is_empty();
        match command {
            Command::Submit(records) => {
                let is_first = records.iter().any(|record| matches!(record, Record::Access(_)));
                let subject = subject.split(',').next().unwrap_or(subject).to_owned();
                self.submit(now, asker, &subject, (has_roles || is_first).then_some(by), records);
            }
            Command::Backup(policy) => {
                self.start(now, &policy, Some(asker));
                if let Some(job) =
                    self.jobs.get_mut(&policy).filter(|job| has_roles && job.backup().is_none())
                {
                    job.by.get_or_insert(by);
                }
            }
            other => self.command(now, asker, other),
        }
    }

    /// What was refused is written down, once a minute.
    pub(super) fn turn_refusals(&mut self, now: Now<'_>) {
        if self.refusals.waiting.is_empty() {
            return;
        }
        let due = self.refusals.last_ns.map_or(0, |last| last.saturating_add(REFUSED_NS));
        if due > now.ns {
            return self.wake_at(due);
        }
        self.refusals.last_ns = Some(now.ns);
        for (subject, (count, what)) in std::mem::take(&mut self.refusals.waiting) {
            let news = AccessNews::Refused { subject, count, wall_ns: now.wall_ns, what };
            self.queue.push_back(Pending::Own(Record::Access(news)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::backplane::message::Message;
    use crate::coordinator::Out;
    use crate::id::NodeId;

    fn state(roles: &[(&str, Role, &str)]) -> State {
        let mut state = State::default();
        let access = Arc::make_mut(&mut state.access);
        for &(subject, role, policy) in roles {
            let grant = Grant { role, policy: policy.to_owned() };
            access.roles.entry(subject.to_owned()).or_default().push(grant);
        }
        state
    }

    #[test]
    fn roles_are_of_a_subject_and_a_policy() {
        let state = state(&[
            ("uid:1", Role::Operator, "home"),
            ("gid:5", Role::Installer, ""),
            ("uid:9", Role::Administrator, ""),
            ("uid:3", Role::Restorer, ""),
        ]);
        let backup = |policy: &str| Command::Backup(policy.to_owned());
        let remove =
            |name: &str| Command::Submit(vec![Record::PolicyRemoved { name: name.to_owned(), revision: 2 }]);
        let may = |subject: &str, command: &Command| may(&state, subject, command).is_ok();
        assert!(may("uid:1", &backup("home")) && !may("uid:1", &backup("other")));
        assert!(!may("uid:1", &Command::Flush), "a role for one policy is none for all");
        assert!(may("uid:1", &Command::Status) && !may("uid:2", &Command::Status));
        let pin = Command::Submit(vec![Record::Unpin { pin: 1 }]);
        assert!(may("uid:3", &pin) && !may("gid:5", &pin), "what a restorer reads with");
        assert!(may("uid:1", &pin), "whatever policy it is for");
        assert!(may("gid:5", &Command::Move(NodeId(2))) && !may("uid:1", &Command::Move(NodeId(2))));
        assert!(!may("uid:1", &remove("home")));
        assert!(may("uid:2,gid:5", &remove("home")) && !may("uid:2,gid:5", &backup("home")));
        assert!(may("uid:9", &remove("home")) && may("uid:9", &backup("home")));
        assert!(may("uid:0,owner", &remove("home")));
        assert!(!may("uid:0", &backup("home")), "a number alone says nothing");
        let roles = AccessNews::Roles { subject: "uid:1".to_owned(), grants: Vec::new() };
        let roles = Command::Submit(vec![Record::Access(roles)]);
        assert!(may("uid:9", &roles) && !may("uid:2,gid:5", &roles));
        let sees = |subject: &str, role, policy| may_use(&state, subject, role, policy).is_ok();
        assert!(sees("uid:1", Role::Viewer, None) && sees("uid:1", Role::Viewer, Some("home")));
        assert!(!sees("uid:1", Role::Viewer, Some("other")) && !sees("uid:2", Role::Viewer, None));
        assert!(sees("uid:3", Role::Restorer, Some("other")) && !sees("uid:1", Role::Restorer, Some("home")));
        assert!(!sees("uid:1", Role::Operator, None) && sees("uid:2,owner", Role::Administrator, None));
        assert!(
            !sees_all(&state, "uid:1,gid:9") && sees_all(&state, "uid:1,gid:5") && sees_all(&state, "owner")
        );
        let why = super::may(&state, "uid:1", &backup("other")).unwrap_err();
        assert!(why.contains("windlass role grant uid:1 operator --policy other"), "{why}");
    }

    #[test]
    fn a_status_shows_the_policies_for_which_one_has_a_role() {
        let of = |policy: &str| json!({ "policy": policy });
        let none = json!({ "policy": null, "what": "of a node" });
        let status = json!({
            "nodes": [{ "node": 1 }],
            "backups": [of("home"), of("other")],
            "queue": ["other", "home"],
            "points": [of("other")],
            "errors": [of("other"), none, of("home")],
        });
        let state = state(&[
            ("uid:9", Role::Administrator, ""),
            ("gid:2", Role::Viewer, ""),
            ("uid:1", Role::Viewer, "home"),
        ]);
        let shown = |subject: &str| {
            let command = Command::As { subject: subject.to_owned(), command: Box::new(Command::Status) };
            serde_json::from_str::<Value>(&shown(&state, &command, status.to_string())).unwrap()
        };
        for all in ["uid:0,owner", "uid:9", "uid:1,gid:2"] {
            assert_eq!(shown(all), status, "{all}");
        }
        let own = json!({
            "nodes": [{ "node": 1 }],
            "backups": [of("home")],
            "queue": ["home"],
            "points": [],
            "errors": [none, of("home")],
        });
        assert_eq!(shown("uid:1,gid:1"), own);
    }

    /// What a coordinator says to such commands of `uid:1`, one after the other, and what it commits then.
    fn ask(state: &State, commands: Vec<Command>) -> (Vec<Reply>, Vec<Record>) {
        let settings = crate::coordinator::Settings {
            me: NodeId(1),
            peers: Vec::new(),
            beat_ns: 1,
            rest_ns: u64::MAX,
            merges: crate::table::plan::Bounds::default(),
            room: crate::coordinator::bounds::Room::default(),
            errand: None,
            checks: crate::log::writer::Checks::default(),
        };
        let at = |ns| Now { ns, wall_ns: 9, state };
        let mut coordinator = Coordinator::new(settings, crate::id::Epoch(1), at(1));
        for (request, command) in (7..).zip(commands) {
            let command = Command::As { subject: "uid:1,gid:1".to_owned(), command: Box::new(command) };
            coordinator.handle(at(2), NodeId(2), Message::Request { request, command });
        }
        coordinator.turn(at(3));
        let batch = coordinator.next_batch(at(4)).unwrap_or_default();
        let replies = std::iter::from_fn(|| coordinator.next_out()).filter_map(|out| match out {
            Out::Send(_, Message::Reply { reply, .. }) => Some(reply),
            _ => None,
        });
        (replies.collect(), batch)
    }

    #[test]
    fn what_is_refused_is_counted_and_who_asks_is_written_down() {
        let remove = Record::PolicyRemoved { name: "home".to_owned(), revision: 2 };
        let remove = || Command::Submit(vec![remove.clone()]);
        let own = state(&[("uid:9", Role::Administrator, "")]);
        let (replies, batch) = ask(&own, vec![remove(), remove(), remove()]);
        assert!(replies.len() == 3 && replies.iter().all(|reply| matches!(reply, Reply::Refused(_))));
        let [Record::Access(AccessNews::Refused { subject, count: 3, wall_ns: 9, what })] = &batch[..] else {
            panic!("{batch:?}")
        };
        assert_eq!((&subject[..], &what[..]), ("uid:1", "it needs the role installer for policy home"));
        let long = "n".repeat(crate::log::limits::POLICY_NAME_BYTES_MAX);
        let why = may(
            &own,
            "uid:4294967295",
            &Command::Submit(vec![Record::PolicyRemoved { name: long, revision: 2 }]),
        );
        let what = what_lacks(&why.unwrap_err());
        assert!(what.ends_with('n') && what.len() <= REFUSED_WHAT_BYTES_MAX, "{what}");
        assert_eq!(what_lacks(&"word ".repeat(40)), "word ".repeat(25).trim_end());
        let installer = state(&[("uid:9", Role::Administrator, ""), ("uid:1", Role::Installer, "home")]);
        let (_, batch) = ask(&installer, vec![remove()]);
        let by = AccessNews::By { subject: "uid:1".to_owned(), node: NodeId(2), wall_ns: 9 };
        assert_eq!(batch.first(), Some(&Record::Access(by)), "{batch:?}");
        // One who asks after it is in the next slot.
        let (_, batch) = ask(&installer, vec![remove(), remove()]);
        assert_eq!(batch.len(), 2, "{batch:?}");
    }
}
