//! `role grant`, `list`, `revoke`.
//!
//! Roles are a record of the commit log; the coordinator holds each command against them (`coordinator::access`). Source: ours.

use serde_json::json;
use windlass_agent::format::access::Grant;
use windlass_agent::log::state::State;
use windlass_agent::policy::check_name;

use crate::cli::args::global::Global;
use crate::cli::args::role::{Grant as Granting, Revoke, Role, roles, subject};
use crate::cli::output::{Align, Output};
use crate::cli::through::{Through, submit};
use crate::engine::policy::missing;
use crate::engine::repository::Repository;
use crate::engine::{changes, documents};
use crate::failure::{Exit, Failure};
use crate::{site_time, text};

const NS_PER_SEC: i64 = 1_000_000_000;

/// `role`.
pub fn run(global: &Global, args: Role, through: Option<Through>, output: &Output) -> Result<Exit, Failure> {
    match args {
        Role::Grant(args) => grant(global, &args, through, output),
        Role::Revoke(args) => revoke(global, &args, through, output),
        Role::List => list(global, output),
    }
}

fn of(state: &State, subject: &str) -> Vec<Grant> {
    state.access.roles.get(subject).cloned().unwrap_or_default()
}

fn text_of(grants: &[Grant]) -> String {
    let one = |grant: &Grant| match grant.policy.as_str() {
        "" => grant.role.to_string(),
        policy => format!("{} of {policy}", grant.role),
    };
    if grants.is_empty() {
        "no role".to_owned()
    } else {
        grants.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

fn change(
    global: &Global,
    subject: &str,
    through: Option<Through>,
    output: &Output,
    plan: impl FnOnce(&State, Vec<Grant>) -> Result<Vec<Grant>, Failure>,
) -> Result<Exit, Failure> {
    let grants =
        submit(global, through, |state, _| changes::roles(subject, plan(state, of(state, subject))?))?;
    output.say(format_args!("{subject} has now: {}", text_of(&grants)));
    output.document(&json!({ "subject": subject, "roles": documents::grants(&grants) }));
    Ok(Exit::Done)
}

fn grant(
    global: &Global,
    args: &Granting,
    through: Option<Through>,
    output: &Output,
) -> Result<Exit, Failure> {
    let (subject, roles) =
        (subject(&args.subject).map_err(Failure::usage)?, roles(&args.roles).map_err(Failure::usage)?);
    change(global, subject, through, output, |state, mut grants| {
        for policy in &args.policy {
            check_name(policy).map_err(Failure::usage)?;
            if !state.policies.contains_key(policy) {
                return Err(missing(state, policy));
            }
        }
        for &role in &roles {
            let policies = args.policy.iter().cloned().chain(args.policy.is_empty().then(String::new));
            grants.extend(policies.map(|policy| Grant { role, policy }));
        }
        Ok(grants)
    })
}

fn revoke(
    global: &Global,
    args: &Revoke,
    through: Option<Through>,
    output: &Output,
) -> Result<Exit, Failure> {
    let (subject, roles) =
        (subject(&args.subject).map_err(Failure::usage)?, roles(&args.roles).map_err(Failure::usage)?);
    change(global, subject, through, output, |_, mut grants| {
        let goes = |grant: &Grant| {
            let is_named = roles.is_empty() || roles.contains(&grant.role);
            is_named && (args.policy.is_empty() || args.policy.contains(&grant.policy))
        };
        if !grants.iter().any(goes) {
            return Err(Failure::new(format_args!(
                "{} has no such role; it has {}",
                args.subject,
                text_of(&grants)
            )));
        }
        grants.retain(|grant| !goes(grant));
        Ok(grants)
    })
}

fn list(global: &Global, output: &Output) -> Result<Exit, Failure> {
    let repository = Repository::open(global)?;
    let state = repository.view()?.state;
    if state.access.roles.is_empty() {
        output.say(
            "no subject has a role: root and the agent's own user may do everything, and others nothing",
        );
    } else {
        let heads = [("SUBJECT", Align::Left), ("ROLES", Align::Left)];
        let row = |(subject, grants): (&String, &Vec<Grant>)| vec![subject.clone(), text_of(grants)];
        output.table(&heads, &state.access.roles.iter().map(row).collect::<Vec<_>>());
    }
    for (subject, refused) in &state.access.refused {
        let when = site_time::shown(refused.wall_ns.div_euclid(NS_PER_SEC));
        let what = text::printable(refused.what.as_bytes());
        output.say(format_args!("{subject} was refused {} times, last {when}: {what}", refused.count));
    }
    output.document(&documents::roles(&state));
    Ok(Exit::Done)
}
