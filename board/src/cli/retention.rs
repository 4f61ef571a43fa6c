//! `retention run` and `simulate`.
//!
//! The rules are `policy::retention`'s, what they mean for a policy `coordinator::expire`'s: a backup expires points by the same code.
//! Source: ours.

use serde_json::{Value, json};
use windlass_agent::coordinator::expire::expiring;
use windlass_agent::id::BackupId;
use windlass_agent::policy::retention::{Candidate, Retention, Verdict, judge};
use windlass_agent::policy::schedule::EVERY_MS_MIN;
use windlass_agent::policy::zone::Zone;
use windlass_agent::units::{Counted, format_duration_ms};

use crate::cli::args::global::Global;
use crate::cli::args::retention::{Run, Simulate};
use crate::cli::args::value::said;
use crate::cli::output::{Align, Output};
use crate::cli::through::{Through, submit};
use crate::engine::host::HostClock;
use crate::engine::points::reasons;
use crate::engine::repository::Repository;
use crate::engine::{changes, documents};
use crate::failure::{Exit, Failure};
use crate::site_time;

/// Backups that a simulation makes at most: one a minute for almost two years.
const SIMULATED_MAX: i64 = 1_000_000;
/// Points that a simulation keeps at most: it judges all of them after each backup.
const SIMULATED_POINTS_MAX: usize = 4096;

const NS_PER_MS: i64 = 1_000_000;

/// `retention run`.
pub fn run(global: &Global, args: &Run, through: Option<Through>, output: &Output) -> Result<Exit, Failure> {
    let name = &args.name;
    let (rules, verdicts) = if args.dry_run {
        let repository = Repository::open(global)?;
        changes::judged(&repository.view()?.state, name, HostClock.wall_ns())?
    } else {
        submit(global, through, |state, now_ns| changes::retention(state, name, args.yes_expire, now_ns))?
    };
    show(name, &rules, &verdicts, args.dry_run, output);
    Ok(Exit::Done)
}

fn show(name: &str, rules: &Retention, verdicts: &[Verdict], is_dry: bool, output: &Output) {
    let (gone, _) = expiring(verdicts);
    if rules.is_empty() {
        output.say(format_args!(
            "policy {name} has no retention rule, so all of its points stay; see `windlass policy set --help`, --keep-last and so on"
        ));
    } else {
        output.table(&HEADS, &verdicts.iter().map(row).collect::<Vec<_>>());
        let verb = if is_dry { "would expire" } else { "expired" };
        let stay = verdicts.len() - gone;
        output.say(format_args!("{} {verb}, {stay} stay", Counted(gone as u64, "point")));
    }
    output.document(&documents::retention(name, verdicts, gone, is_dry));
}

const HEADS: [(&str, Align); 3] = [("POINT", Align::Right), ("BEGUN", Align::Left), ("KEPT BY", Align::Left)];

fn row(verdict: &Verdict) -> Vec<String> {
    let kept = if verdict.expires() { "- expires".to_owned() } else { reasons(&verdict.reasons).join(", ") };
    vec![verdict.backup.to_string(), site_time::shown(verdict.wall_ns.div_euclid(1_000_000_000)), kept]
}

/// `retention simulate`.
pub fn simulate(args: &Simulate, output: &Output) -> Result<Exit, Failure> {
    let mut rules = Retention::default();
    let zone: Zone = said(args.zone.as_deref(), "--zone")?.unwrap_or_default();
    args.keep.apply(&mut rules);
    rules.check().map_err(Failure::usage)?;
    if args.every.0 < EVERY_MS_MIN {
        return Err(Failure::usage("--every: at least 1m"));
    }
    let end_ns = HostClock.wall_ns();
    let every_ns = i64::try_from(args.every.0).unwrap_or(i64::MAX).saturating_mul(NS_PER_MS);
    let begin_ns = args.span.before(&zone, end_ns);
    let count = end_ns.saturating_sub(begin_ns) / every_ns;
    if count > SIMULATED_MAX {
        return Err(Failure::usage(format_args!(
            "{count} backups are more than the {SIMULATED_MAX} that are simulated; take a longer --every or a shorter --for"
        )));
    }
    let mut kept: Vec<Candidate<'_>> = Vec::new();
    let mut verdicts = Vec::new();
    let mut most = 0;
    for nth in 1..=count {
        let wall_ns = begin_ns + nth * every_ns;
        let backup = BackupId(u32::try_from(nth).unwrap_or(u32::MAX));
        kept.push(Candidate { backup, wall_ns, tags: &[], is_held: false, is_damaged: false });
        verdicts = judge(&rules, &zone, &kept, wall_ns);
        let gone: Vec<BackupId> =
            verdicts.iter().filter(|verdict| verdict.expires()).map(|verdict| verdict.backup).collect();
        kept.retain(|point| !gone.contains(&point.backup));
        most = most.max(kept.len());
        if kept.len() > SIMULATED_POINTS_MAX {
            return Err(Failure::usage(format_args!(
                "after {nth} backups more than {SIMULATED_POINTS_MAX} points stay, which is more than is simulated; take a longer --every \
                 or fewer rules"
            )));
        }
    }
    verdicts.retain(|verdict| !verdict.expires());
    output.table(&HEADS, &verdicts.iter().map(row).collect::<Vec<_>>());
    output.say(format_args!(
        "after {}, one every {}, {} stay; never more than {most}",
        Counted(count.unsigned_abs(), "backup"),
        format_duration_ms(args.every.0),
        Counted(kept.len() as u64, "point")
    ));
    let documents: Vec<Value> = verdicts.iter().map(documents::verdict).collect();
    output.document(&json!({ "backups": count, "most": most, "points": documents }));
    Ok(Exit::Done)
}
