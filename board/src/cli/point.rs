//! `point hold`, `release`, `note`, `tag`, `expire`, `undo`.
//!
//! Each is one record of the log; the log's state refuses what must not be, such as to expire a held point. Source: ours.

use serde_json::json;

use crate::cli::args::global::Global;
use crate::cli::args::point::{One, Point};
use crate::cli::diff;
use crate::cli::output::Output;
use crate::cli::through::{Through, submit};
use crate::engine::changes::{self, PointChange};
use crate::failure::{Exit, Failure};
use crate::site_time;

/// `point`.
pub fn run(global: &Global, args: Point, through: Option<Through>, output: &Output) -> Result<Exit, Failure> {
    let (point, done, change) = match args {
        Point::Diff(args) => return diff::run(global, &args, output),
        Point::Hold(args) => (args.point, "is held", PointChange::hold(args.reason)?),
        Point::Release(point) => (point, "is released", PointChange::release()),
        Point::Note(args) => (args.point, "has its note", PointChange::note(args.text)?),
        Point::Tag(args) => (args.point, "has its tags", PointChange::tags(args.tags)?),
        Point::Expire(args) => (One { target: args.target.0 }, "expired", PointChange::Expire),
        Point::Undo(args) => (One { target: args.target.0 }, "is back", PointChange::Undo),
    };
    let (backup, undo_ns) =
        submit(global, through, |state, now_ns| changes::point(state, &point.target, change, now_ns))?;
    let name = &point.target.policy;
    output.say(format_args!("point {backup} of {name} {done}"));
    if let Some(until_ns) = undo_ns {
        let until = site_time::shown(until_ns.div_euclid(1_000_000_000));
        output.say(format_args!("  until {until} `windlass point undo {name}@{backup}` brings it back"));
    }
    output.document(&json!({ "policy": name, "point": backup.0, "done": done }));
    Ok(Exit::Done)
}
