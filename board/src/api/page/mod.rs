//! The page for people: how things are, on the server's side alone. It has no script, no forms and no cookies, so nothing can be done through it
//! that its reader did not mean; it asks for itself again now and then.
//!
//! Links are relative, so it works below any path of a proxy. Whatever comes from the log is escaped.
//!
//! Does not: change anything. Source: ours; HTML, CSP level 3.

mod html;

use serde_json::Value;
use windlass_agent::api::answer::{Answer, Media};
use windlass_agent::api::health::{Health, Protection, health};
use windlass_agent::log::state::{Point, State};
use windlass_agent::units::{Counted, Grouped, Human, HumanTime};

use super::shared::{Shared, Snapshot};
use crate::engine::documents::status_word;
use crate::engine::host::HostClock;
use crate::engine::points::kept_by;
use crate::failure::Failure;
use crate::site_time;
use html::{Html, Tone};

/// Its style, a resource of its own so that the policy of contents can be strict.
pub const STYLE: &str = include_str!("style.css");
/// Nothing but its own style: no script, no frame, no form, no other site.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Points that the page of a policy lists.
const POINTS_SHOWN: usize = 500;
/// Points of all policies that the overview lists.
const NEWEST_SHOWN: usize = 10;
/// Points whose size is drawn.
const TREND_SHOWN: usize = 60;

const NS_PER_SEC: i64 = 1_000_000_000;

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn shown(wall_ns: i64) -> String {
    site_time::shown(wall_ns.div_euclid(NS_PER_SEC))
}

/// How long ago, in words.
fn ago(wall_ns: i64, now_ns: i64) -> String {
    let span = u64::try_from(now_ns.saturating_sub(wall_ns)).unwrap_or(0);
    format!("{} ago", HumanTime(span))
}

fn finish(html: Html) -> Answer {
    Answer::new(200, Media::Html, html.end().into_bytes())
        .with("Content-Security-Policy", POLICY)
        .with("Referrer-Policy", "no-referrer")
        .with("X-Frame-Options", "DENY")
}

fn tone_of(protection: Protection) -> (Tone, &'static str) {
    match protection {
        Protection::Never => (Tone::Bad, "never backed up"),
        Protection::Late => (Tone::Bad, "late"),
        Protection::Flawed => (Tone::Warn, "last point not whole"),
        Protection::Unused => (Tone::None, "not used"),
        Protection::Good => (Tone::Good, "protected"),
    }
}

/// The first page.
pub fn overview(shared: &Shared, snapshot: &Snapshot) -> Answer {
    let now_ns = HostClock.wall_ns();
    let (state, status) = (&*snapshot.state, &snapshot.status);
    let health = health(state, now_ns);
    let mut page = Html::begin("Overview", "", &shared.identity.name, shared.identity.node);
    banner(&mut page, &health, status);
    running(&mut page, status);
    policies(&mut page, &health, now_ns);
    page.raw("<div class=\"cards\">");
    cluster(&mut page, snapshot);
    space(&mut page, status, state, now_ns);
    page.raw("</div>");
    newest(&mut page, state, now_ns);
    errors(&mut page, status);
    finish(page)
}

fn banner(page: &mut Html, health: &[Health], status: &Value) {
    let bad = health.iter().filter(|one| one.protection.is_bad()).count();
    let worst = health.first().map_or(Protection::Unused, |one| one.protection);
    let (tone, text) = match (health.len(), bad) {
        (0, _) => (Tone::Warn, "There is no policy yet, so nothing is backed up".to_owned()),
        (all, 0) => (
            Tone::Good,
            format!(
                "All is well: {}",
                Counted(all as u64, "policy").to_string().replace("policys", "policies")
            ),
        ),
        (all, bad) => (tone_of(worst).0, format!("{bad} of {all} policies need attention")),
    };
    page.raw(&format!("<div class=\"banner {}\" role=\"status\">", tone.class()));
    page.text(&text);
    for one in health.iter().filter(|one| one.protection.is_bad()).take(5) {
        page.raw("<p>");
        page.text(&format!("{}: {}", one.policy, tone_of(one.protection).1));
        page.raw("</p>");
    }
    for (what, why) in
        [("The store fails", &status["store"]["why"]), ("No node coordinates", &status["coordinator"]["why"])]
    {
        if let Some(why) = why.as_str() {
            page.raw("<p>");
            page.text(&format!("{what}: {why}"));
            page.raw("</p>");
        }
    }
    page.raw("</div>");
}

fn running(page: &mut Html, status: &Value) {
    let all = list(&status["backups"]);
    let queue = list(&status["queue"]);
    if all.is_empty() && queue.is_empty() {
        return;
    }
    page.section("Running backups");
    for backup in all {
        let (done, total) = (number(&backup["bytes_done"]), number(&backup["bytes_total"]));
        let policy = backup["policy"].as_str().unwrap_or_default();
        page.raw("<p><strong>");
        page.text(policy);
        page.raw("</strong> ");
        let left = backup["eta_s"]
            .as_u64()
            .map_or_else(String::new, |s| format!(", {} left", HumanTime(s.saturating_mul(1_000_000_000))));
        let items = Grouped(number(&backup["items_done"]));
        page.text(&format!(
            "{} of {}, {items} items, {}/s{left}",
            Human(done),
            Human(total),
            Human(number(&backup["rate"]))
        ));
        page.raw("</p>");
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(0).min(100);
        page.raw(&format!("<progress max=\"100\" value=\"{percent}\" aria-label=\""));
        page.text(&format!("backup of {policy}"));
        page.raw(&format!("\">{percent} %</progress>"));
        if let Some(why) = backup["waits"].as_str() {
            page.raw("<p class=\"faint\">");
            page.text(&format!("waits: {why}"));
            page.raw("</p>");
        }
    }
    if !queue.is_empty() {
        let names: Vec<&str> = queue.iter().filter_map(Value::as_str).collect();
        page.raw("<p class=\"faint\">");
        page.text(&format!("Next: {}", names.join(", ")));
        page.raw("</p>");
    }
    page.end_section();
}

fn policies(page: &mut Html, health: &[Health], now_ns: i64) {
    page.section("Policies");
    page.table(&["Policy", "State", "Last good point", "Next due", ">Points", ">Size"]);
    for one in health {
        let (tone, word) = tone_of(one.protection);
        page.row();
        page.link_cell(&format!("policies/{}", one.policy), &one.policy);
        page.pill_cell(tone, word);
        page.cell(&one.good.map_or_else(
            || "never".to_owned(),
            |good| format!("{} ({})", ago(good.2, now_ns), shown(good.2)),
        ));
        page.cell(&match one.due_ns {
            None => "on request".to_owned(),
            Some(due) if due <= now_ns => format!("since {}", shown(due)),
            Some(due) => shown(due),
        });
        page.number_cell(&Grouped(one.points).to_string());
        page.number_cell(&one.newest.map_or_else(|| "-".to_owned(), |newest| Human(newest.0).to_string()));
        page.end_row();
    }
    page.end_table("There is none. An installer makes one: windlass policy set NAME --volume DEV");
    page.end_section();
}

fn cluster(page: &mut Html, snapshot: &Snapshot) {
    let status = &snapshot.status;
    let coordinator = &status["coordinator"];
    page.section("Cluster");
    page.raw("<dl>");
    let holder = match (coordinator["node"].as_u64(), coordinator["resting"].as_bool()) {
        (Some(node), _) => format!("node {node}"),
        (None, Some(true)) => "none needed: there is nothing to do".to_owned(),
        (None, _) => "none known".to_owned(),
    };
    page.pair("Coordinator", &holder);
    if let Some(left) = coordinator["lease_left_ms"].as_u64() {
        page.pair("Lease", &format!("{} left", HumanTime(left.saturating_mul(1_000_000))));
    }
    page.pair("Epoch", &number(&coordinator["epoch"]).to_string());
    page.raw("</dl>");
    page.table(&["Node", "State", ">Uploads", ">Works on"]);
    for node in list(&status["nodes"]) {
        let up = node["up"] == true;
        page.row();
        page.cell(&number(&node["node"]).to_string());
        page.pill_cell(if up { Tone::Good } else { Tone::Bad }, node["state"].as_str().unwrap_or("?"));
        page.number_cell(&format!("{}/s", Human(number(&node["rate"]))));
        page.number_cell(
            &Counted(number(&node["assignments"]), "stretch").to_string().replace("stretchs", "stretches"),
        );
        page.end_row();
    }
    page.end_table("Nothing was heard of nodes yet.");
    page.end_section();
}

fn space(page: &mut Html, status: &Value, state: &State, now_ns: i64) {
    let garbage = &status["garbage"];
    page.section("Space");
    page.raw("<dl>");
    let stored: u64 =
        state.points.values().map(|point| point.totals.bytes_stored).fold(0, u64::saturating_add);
    page.pair("Stored by the points that there are", &Human(stored).to_string());
    page.pair(
        "In use at the last garbage run",
        &match garbage["ended_wall_ns"].as_i64() {
            Some(_) => Human(number(&garbage["live_bytes"])).to_string(),
            None => "not known: there was no run".to_owned(),
        },
    );
    page.pair("Still to come back", &Human(number(&garbage["waiting_bytes"])).to_string());
    if let Some(ended) = garbage["ended_wall_ns"].as_i64() {
        page.pair("Last garbage run", &ago(ended, now_ns));
    }
    if let Some(phase) = garbage["phase"].as_str() {
        page.pair("Runs now", phase);
    }
    page.raw("</dl>");
    page.end_section();
}

fn status_tone(word: &str) -> (Tone, &'static str) {
    match word {
        "complete" => (Tone::Good, "complete"),
        "damaged" => (Tone::Bad, "damaged"),
        _ => (Tone::Warn, "with errors"),
    }
}

fn newest(page: &mut Html, state: &State, now_ns: i64) {
    page.section("Newest points");
    page.table(&["Point", "Policy", "State", "Ended", ">Items", ">Size", ">Stored"]);
    let there = state.points.values().rev().filter(|point| state.leaving(point.backup).is_none());
    for point in there.take(NEWEST_SHOWN) {
        let (tone, word) = status_tone(status_word(state, point));
        page.row();
        page.cell(&point.backup.to_string());
        page.link_cell(&format!("policies/{}", point.policy), &point.policy);
        page.pill_cell(tone, word);
        page.cell(&ago(point.wall_ns.1, now_ns));
        page.number_cell(&Grouped(point.totals.items).to_string());
        page.number_cell(&Human(point.totals.bytes_logical).to_string());
        page.number_cell(&Human(point.totals.bytes_stored).to_string());
        page.end_row();
    }
    page.end_table("There is no point yet.");
    page.end_section();
}

fn errors(page: &mut Html, status: &Value) {
    let all = list(&status["errors"]);
    if all.is_empty() {
        return;
    }
    page.section("What went wrong lately");
    page.table(&["When", "Node", "What"]);
    for error in all.iter().rev() {
        page.row();
        page.cell(&error["wall_ns"].as_i64().map(shown).unwrap_or_default());
        page.cell(&error["node"].as_u64().map_or_else(|| "-".to_owned(), |node| node.to_string()));
        page.cell(error["what"].as_str().unwrap_or_default());
        page.end_row();
    }
    page.end_table("");
    page.end_section();
}

/// The page of a policy: its points.
///
/// # Errors
/// The policy in the log cannot be read.
pub fn policy(shared: &Shared, snapshot: &Snapshot, name: &str) -> Result<Answer, Failure> {
    let now_ns = HostClock.wall_ns();
    let state = &*snapshot.state;
    let kept = kept_by(state, name)?;
    let mut page = Html::begin(name, "../", &shared.identity.name, shared.identity.node);
    let health = health(state, now_ns).into_iter().find(|one| one.policy == name);
    let (tone, word) =
        health.as_ref().map_or((Tone::None, "removed; its points stay"), |one| tone_of(one.protection));
    page.raw(&format!("<div class=\"banner {}\" role=\"status\">", tone.class()));
    page.text(&format!("{name}: {word}"));
    if let Some(tried) = state.tried.get(name) {
        page.raw("<p>");
        page.text(&format!("Last try, {}: {}", shown(tried.wall_ns), tried.why));
        page.raw("</p>");
    }
    page.raw("</div>");
    let there: Vec<&Point> = state
        .points
        .values()
        .rev()
        .filter(|point| point.policy == name && state.leaving(point.backup).is_none())
        .collect();
    trend(&mut page, &there);
    page.section("Points");
    if there.len() > POINTS_SHOWN {
        page.raw("<p class=\"faint\">");
        page.text(&format!("The newest {POINTS_SHOWN} of {}.", there.len()));
        page.raw("</p>");
    }
    page.table(&["Point", "Begun", "Took", "State", ">Items", ">Changed", ">Size", ">Stored", "Kept by"]);
    for point in there.iter().take(POINTS_SHOWN) {
        let (begun, ended) = point.wall_ns;
        let (tone, word) = status_tone(status_word(state, point));
        page.row();
        page.cell(&point.backup.to_string());
        page.cell(&shown(begun));
        page.cell(&HumanTime(u64::try_from(ended.saturating_sub(begun)).unwrap_or(0)).to_string());
        page.pill_cell(tone, word);
        page.number_cell(&Grouped(point.totals.items).to_string());
        page.number_cell(&Grouped(point.totals.items_changed).to_string());
        page.number_cell(&Human(point.totals.bytes_logical).to_string());
        page.number_cell(&Human(point.totals.bytes_stored).to_string());
        let held = state.marks.get(&point.backup).filter(|mark| mark.is_held());
        let held = held.map(|mark| format!("held: {}", mark.hold));
        let rules = kept.get(&point.backup).cloned().unwrap_or_default();
        page.pills_cell(held.into_iter().chain(rules));
        page.end_row();
    }
    page.end_table("It has no point yet.");
    page.end_section();
    Ok(finish(page))
}

/// Sizes of the last points, oldest first, as bars.
fn trend(page: &mut Html, newest_first: &[&Point]) {
    let sizes: Vec<u64> =
        newest_first.iter().take(TREND_SHOWN).rev().map(|point| point.totals.bytes_logical).collect();
    let most = sizes.iter().copied().max().unwrap_or(0);
    if sizes.len() < 2 || most == 0 {
        return;
    }
    page.section("Size");
    let count = sizes.len();
    page.raw(&format!(
        "<svg viewBox=\"0 0 {} 60\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"",
        count * 10
    ));
    page.text(&format!("sizes of the last {count} points, up to {}", Human(most)));
    page.raw("\">");
    for (nth, size) in sizes.iter().enumerate() {
        let height = (u128::from(*size) * 58 / u128::from(most)).max(1);
        page.raw(&format!(
            "<rect x=\"{}\" y=\"{}\" width=\"8\" height=\"{height}\"/>",
            nth * 10 + 1,
            60 - height
        ));
    }
    page.raw("</svg>");
    page.end_section();
}
