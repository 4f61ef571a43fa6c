//! `point hold`, `release`, `note`, `tag`, `expire`, `undo`.
//!
//! Each is one record of the log; the log's state refuses what must not be, such as to expire a held point. Source: ours.

use serde_json::json;
use windlass_agent::coordinator::expire;
use windlass_agent::format::guard::{GuardPart, PointGuard};
use windlass_agent::format::mark::{MARK_TEXT_BYTES_MAX, MarkPart, PointMark};
use windlass_agent::format::record::Record;
use windlass_agent::id::BackupId;

use crate::cli::args::global::Global;
use crate::cli::args::point::{One, Point};
use crate::cli::diff;
use crate::cli::output::Output;
use crate::cli::through::{Through, submit};
use crate::engine::points;
use crate::failure::{Exit, Failure};
use crate::site_time;

/// `point`.
pub fn run(global: &Global, args: Point, through: Option<Through>, output: &Output) -> Result<Exit, Failure> {
    let (point, done, change) = match args {
        Point::Diff(args) => return diff::run(global, &args, output),
        Point::Hold(args) if args.reason.trim().is_empty() => {
            return Err(Failure::usage("--reason: say why, for those who find it later"));
        }
        Point::Hold(args) => (args.point, "is held", Change::Mark(MarkPart::Hold(text(args.reason)?))),
        Point::Release(point) => (point, "is released", Change::Mark(MarkPart::Hold(String::new()))),
        Point::Note(args) => (args.point, "has its note", Change::Mark(MarkPart::Note(text(args.text)?))),
        Point::Tag(args) => {
            let tags = MarkPart::tags(args.tags).ok_or_else(|| {
                Failure::usage(
                    "a point has at most 16 tags of 1 to 64 letters, digits, '.', '_', '-', ':' or '=' each",
                )
            })?;
            (args.point, "has its tags", Change::Mark(tags))
        }
        Point::Expire(args) => (One { target: args.target.0 }, "expired", Change::Expire),
        Point::Undo(args) => (One { target: args.target.0 }, "is back", Change::Undo),
    };
    let (backup, undo_ns) = commit(global, &point, change, through)?;
    let name = &point.target.policy;
    output.say(format_args!("point {backup} of {name} {done}"));
    if let Some(until_ns) = undo_ns {
        let until = site_time::shown(until_ns.div_euclid(1_000_000_000));
        output.say(format_args!("  until {until} `windlass point undo {name}@{backup}` brings it back"));
    }
    output.document(&json!({ "policy": name, "point": backup.0, "done": done }));
    Ok(Exit::Done)
}

enum Change {
    Mark(MarkPart),
    Expire,
    Undo,
}

/// The point, and until when it can be brought back if it has just expired.
fn commit(
    global: &Global,
    point: &One,
    change: Change,
    through: Option<Through>,
) -> Result<(BackupId, Option<i64>), Failure> {
    submit(global, through, |state, now_ns| {
        let name = &point.target.policy;
        if let Change::Undo = change {
            let backup = points::pick_leaving(state, &point.target)?;
            let record = Record::PointGuarded(PointGuard { backup, part: GuardPart::Undo });
            return Ok((vec![record], (backup, None)));
        }
        let backup = points::pick(state, &point.target)?.backup;
        let (record, until_ns) = match change {
            Change::Mark(part) => (Record::PointMarked(PointMark { backup, part }), None),
            Change::Expire | Change::Undo => {
                points::may_expire(state, name, backup, now_ns)?;
                let undo_ns = state.guard_of(backup).map_or(0, |guard| guard.undo_ns);
                let until_ns = now_ns.saturating_add(i64::try_from(undo_ns).unwrap_or(i64::MAX));
                (expire::leave(state, backup, now_ns), (undo_ns > 0).then_some(until_ns))
            }
        };
        Ok((vec![record], (backup, until_ns)))
    })
}

fn text(text: String) -> Result<String, Failure> {
    if text.len() > MARK_TEXT_BYTES_MAX {
        return Err(Failure::usage(format_args!(
            "the text has {} bytes; at most {MARK_TEXT_BYTES_MAX} fit",
            text.len()
        )));
    }
    Ok(text)
}
