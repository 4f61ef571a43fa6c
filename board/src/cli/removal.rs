//! `removal list`, `approve`, `withdraw`: what one subject asks for and another approves.
//!
//! Source: ours; `coordinator::approval`.

use serde_json::{Value, json};
use windlass_agent::civil::iso_utc;
use windlass_agent::format::record::Record;
use windlass_agent::format::removal::{Asked, RemovalNews};
use windlass_agent::id::Slot;
use windlass_agent::log::entries::whats;

use crate::cli::args::global::Global;
use crate::cli::args::removal::Removal;
use crate::cli::output::{Align, Output};
use crate::cli::through::{Through, submit};
use crate::engine::repository::Repository;
use crate::failure::{Exit, Failure};
use crate::{site_time, text};

const NS_PER_SEC: i64 = 1_000_000_000;

/// `removal`.
pub fn run(
    global: &Global,
    args: Removal,
    through: Option<Through>,
    output: &Output,
) -> Result<Exit, Failure> {
    // Who commits it says who answers.
    let subject = String::new;
    let (number, done, news) = match args {
        Removal::List => return list(global, output),
        Removal::Approve { number } => {
            (number, "approved", RemovalNews::Approved { request: Slot(number), subject: subject() })
        }
        Removal::Withdraw { number } => {
            (number, "withdrawn", RemovalNews::Withdrawn { request: Slot(number), subject: subject() })
        }
    };
    let what = submit(global, through, |state, _| {
        let asked = state.removals.get(&Slot(number)).ok_or_else(|| {
            Failure::new(format_args!(
                "there is no request {number}; `windlass removal list` has those that wait"
            ))
        })?;
        Ok((vec![Record::Removal(news)], whats(&asked.records)))
    })?;
    output.say(format_args!("request {number} is {done}: {}", text::printable(what.as_bytes())));
    output.document(&json!({ "request": number, "done": done, "what": what }));
    Ok(Exit::Done)
}

fn list(global: &Global, output: &Output) -> Result<Exit, Failure> {
    let state = Repository::open(global)?.view()?.state;
    if state.removals.is_empty() {
        output.say("nothing waits for a second subject");
    } else {
        let heads = [
            ("REQUEST", Align::Right),
            ("WHO", Align::Left),
            ("ASKED", Align::Left),
            ("NOT BEFORE", Align::Left),
            ("WHAT", Align::Left),
        ];
        let time = |ns: i64| site_time::shown(ns.div_euclid(NS_PER_SEC));
        let row = |(slot, asked): (&Slot, &Asked)| {
            let what = whats(&asked.records);
            vec![
                slot.to_string(),
                text::printable(asked.subject.as_bytes()),
                time(asked.wall_ns),
                time(asked.not_before_ns),
                text::printable(what.as_bytes()),
            ]
        };
        output.table(&heads, &state.removals.iter().map(row).collect::<Vec<_>>());
    }
    let time = |ns: i64| iso_utc(ns.div_euclid(NS_PER_SEC));
    let document = |(slot, asked): (&Slot, &Asked)| -> Value {
        json!({
            "request": slot.0,
            "subject": asked.subject,
            "asked": time(asked.wall_ns),
            "not_before": time(asked.not_before_ns),
            "what": whats(&asked.records),
        })
    };
    let requests: Vec<Value> = state.removals.iter().map(document).collect();
    output.document(&json!({ "requests": requests }));
    Ok(Exit::Done)
}
