//! `point hold`, `release`, `note`, `tag`, `expire`.
//!
//! Each is one record of the log; the log's state refuses what must not be, such as to expire a held point. Source: ours.

use serde_json::json;
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

/// `point`.
pub fn run(global: &Global, args: Point, through: Option<Through>, output: &Output) -> Result<Exit, Failure> {
    let (point, done, part) = match args {
        Point::Diff(args) => return diff::run(global, &args, output),
        Point::Hold(args) if args.reason.trim().is_empty() => {
            return Err(Failure::usage("--reason: say why, for those who find it later"));
        }
        Point::Hold(args) => (args.point, "is held", Some(MarkPart::Hold(text(args.reason)?))),
        Point::Release(point) => (point, "is released", Some(MarkPart::Hold(String::new()))),
        Point::Note(args) => (args.point, "has its note", Some(MarkPart::Note(text(args.text)?))),
        Point::Tag(args) => {
            let tags = MarkPart::tags(args.tags).ok_or_else(|| {
                Failure::usage(
                    "a point has at most 16 tags of 1 to 64 letters, digits, '.', '_', '-', ':' or '=' each",
                )
            })?;
            (args.point, "has its tags", Some(tags))
        }
        Point::Expire(args) => (One { target: args.target.0 }, "expired", None),
    };
    let backup = change(global, &point, part, through)?;
    let name = &point.target.policy;
    output.say(format_args!("point {backup} of {name} {done}"));
    output.document(&json!({ "policy": name, "point": backup.0, "done": done }));
    Ok(Exit::Done)
}

fn change(
    global: &Global,
    point: &One,
    part: Option<MarkPart>,
    through: Option<Through>,
) -> Result<BackupId, Failure> {
    submit(global, through, |state, _| {
        let backup = points::pick(state, &point.target)?.backup;
        let record = match part {
            None if state.is_held(backup) => {
                let why = state.marks.get(&backup).map_or("", |mark| mark.hold.as_str());
                return Err(Failure::new(format_args!(
                    "point {backup} of {0} is held ({why}); `windlass point release {0}@{backup}` first",
                    point.target.policy
                )));
            }
            None => Record::PointExpired { backup },
            Some(part) => Record::PointMarked(PointMark { backup, part }),
        };
        Ok((vec![record], backup))
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
