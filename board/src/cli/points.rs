//! `points`.
//!
//! Source: ours.

use windlass_agent::format::mark::Mark;
use windlass_agent::id::{BackupId, VolumeId};
use windlass_agent::log::state::{Point, State};
use windlass_agent::policy::check_name;
use windlass_agent::units::{Counted, Grouped, Human, HumanTime};

use crate::cli::args::Points;
use crate::cli::args::global::Global;
use crate::cli::output::{Align, Output};
use crate::engine::documents::{self, Page};
use crate::engine::host::HostClock;
use crate::engine::points::{Kept, kept_by};
use crate::engine::policy;
use crate::engine::repository::Repository;
use crate::failure::{Exit, Failure};
use crate::{site_time, text};

/// `points`.
pub fn run(global: &Global, args: &Points, output: &Output) -> Result<Exit, Failure> {
    check_name(&args.name).map_err(Failure::usage)?;
    let mut notes = Vec::new();
    let repository = Repository::open(global)?;
    let state = repository.view()?.state;
    let all = state.points.values().filter(|point| point.policy == args.name);
    let (leaving, points): (Vec<&Point>, Vec<&Point>) =
        all.partition(|point| state.leaving(point.backup).is_some());
    if points.is_empty() && !state.policies.contains_key(&args.name) {
        return Err(policy::missing(&state, &args.name));
    }
    for point in points.iter().filter(|point| !point.missing.is_empty()) {
        let device = |id: &VolumeId| state.volumes.get(id).map_or("?", |volume| volume.device.as_str());
        let devices: Vec<&str> = point.missing.iter().map(device).collect();
        notes.push(format!(
            "point {} is without {}, which could not be opened",
            point.backup,
            devices.join(", ")
        ));
    }
    for point in &leaving {
        let until_ns = state.leaving(point.backup).unwrap_or_default();
        notes.push(of_leaving(&args.name, point.backup, until_ns, HostClock.wall_ns()));
    }
    let kept = kept_by(&state, &args.name)?;
    if points.is_empty() {
        output.say(policy::no_point(&state, &args.name));
    } else {
        table(&state, &points, &kept, output);
    }
    notes.iter().for_each(|note| output.say(format_args!("{note}")));
    output.document(&documents::points(&state, &args.name, Page::ALL)?);
    Ok(Exit::Done)
}

/// What is said of a point that has expired and is not gone.
fn of_leaving(policy: &str, backup: BackupId, until_ns: i64, now_ns: i64) -> String {
    let (until, undo) =
        (site_time::shown(secs(until_ns)), format!("`windlass point undo {policy}@{backup}`"));
    if until_ns > now_ns {
        return format!("point {backup} has expired; until {until} {undo} brings it back");
    }
    format!(
        "point {backup} has expired, and the time to bring it back ended {until}: it goes with the next backup, or as soon as an \
         agent looks; until then {undo} still brings it back"
    )
}

/// Prints points as a table; with retention rules it says which keep each.
fn table(state: &State, points: &[&Point], kept: &Kept, output: &Output) {
    let mut heads = vec![
        ("POINT", Align::Right),
        ("BEGUN", Align::Left),
        ("TOOK", Align::Right),
        ("ITEMS", Align::Right),
        ("CHANGED", Align::Right),
        ("SIZE", Align::Right),
        ("STORED", Align::Right),
        ("STATE", Align::Left),
    ];
    if !kept.is_empty() {
        heads.push(("KEPT BY", Align::Left));
    }
    let has_marks = points.iter().any(|point| state.marks.contains_key(&point.backup));
    if has_marks {
        heads.push(("SAID OF IT", Align::Left));
    }
    output.table(&heads, &points.iter().map(|point| row(state, point, kept, has_marks)).collect::<Vec<_>>());
}

fn secs(wall_ns: i64) -> i64 {
    wall_ns.div_euclid(1_000_000_000)
}

fn row(state: &State, point: &Point, kept: &Kept, has_marks: bool) -> Vec<String> {
    let (begun, ended) = point.wall_ns;
    let totals = &point.totals;
    let rules = kept.get(&point.backup).map(|rules| match rules.as_slice() {
        [] => "- expires with the next backup".to_owned(),
        rules => rules.join(", "),
    });
    let cells = [
        point.backup.to_string(),
        site_time::shown(secs(begun)),
        HumanTime(u64::try_from(ended.saturating_sub(begun)).unwrap_or(0)).to_string(),
        Grouped(totals.items).to_string(),
        Grouped(totals.items_changed).to_string(),
        Human(totals.bytes_logical).to_string(),
        Human(totals.bytes_stored).to_string(),
        state_text(state, point),
    ];
    let said = has_marks.then(|| said(state.marks.get(&point.backup)));
    cells.into_iter().chain(rules).chain(said).collect()
}

/// Hold, note and tags of a point, for people.
fn said(mark: Option<&Mark>) -> String {
    let Some(mark) = mark else { return String::new() };
    let hold = mark.is_held().then(|| format!("held: {}", mark.hold));
    let note = (!mark.note.is_empty()).then(|| mark.note.clone());
    let tags = (!mark.tags.is_empty()).then(|| format!("[{}]", mark.tags.join(", ")));
    let parts: Vec<String> = hold.into_iter().chain(note).chain(tags).collect();
    text::printable(parts.join("; ").as_bytes()).to_string()
}

/// How a point is, in a few words.
fn state_text(state: &State, point: &Point) -> String {
    if state.damage.points.contains(&point.backup) {
        return "damaged".to_owned();
    }
    let counts =
        [(point.totals.faults, "item", "incomplete"), (point.missing.len() as u64, "volume", "missing")];
    let counts = counts.into_iter().filter(|(count, ..)| *count > 0);
    let parts: Vec<String> = counts.map(|(count, of, how)| format!("{} {how}", Counted(count, of))).collect();
    if parts.is_empty() { "complete".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_that_leaves_says_until_when_it_can_be_brought_back() {
        let said = |now_ns| of_leaving("home", BackupId(17), 1_795_231_002_000_000_000, now_ns);
        let before = said(1_795_231_001_999_999_999);
        assert!(
            before.contains("until 2026-11-21 ") && before.ends_with("home@17` brings it back"),
            "{before}"
        );
        let late = said(1_795_231_002_000_000_000);
        assert!(late.contains("ended 2026-11-21 ") && late.ends_with("still brings it back"), "{late}");
    }
}
