//! What was measured, as the tables that people read: one line per tool, and one per target.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::measure::Cost;
use crate::peers::Tool;
use crate::windlass::Requests;

/// What a tool was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Backup,
    Unchanged,
    Restore,
    Capped,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Phase::Backup => "backup",
            Phase::Unchanged => "unchanged",
            Phase::Restore => "restore",
            Phase::Capped => "capped",
        }
    }
}

/// One run, or why there is none.
#[derive(Clone, Debug)]
pub struct Sample {
    pub phase: Phase,
    pub tool: Tool,
    pub cost: Result<Cost, String>,
    /// Bytes in the repository after a first backup.
    pub stored: Option<u64>,
    /// What a comparison found equal after a restore.
    pub verified: Option<String>,
}

/// Peak memory of Windlass on one synthetic volume.
#[derive(Clone, Debug)]
pub struct Peak {
    pub volume: &'static str,
    /// Value of `--memory`, none for the default.
    pub memory: Option<&'static str>,
    pub backup_mib: Result<f64, String>,
    pub restore_mib: Result<f64, String>,
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub struct Results {
    pub about: Vec<String>,
    pub versions: BTreeMap<Tool, String>,
    pub samples: Vec<Sample>,
    pub peaks: Vec<Peak>,
    /// Bytes per second of fio (or dd) and of an image backup.
    pub device_rates: Vec<(String, f64)>,
    pub image_rate: Option<Result<f64, String>>,
    pub binary_bytes: Option<Result<u64, String>>,
    pub requests: Option<Requests>,
}

const MIB: f64 = 1_048_576.0;
/// Slots of the log that every backup writes, however much it stores: claim, begin, last commit, end, give the lease back.
const FIXED_LOG_PUTS: u64 = 5;

impl Results {
    /// The median of a figure over the repeats of a tool's runs.
    fn median(&self, phase: Phase, tool: Tool, figure: impl Fn(&Cost) -> f64) -> Option<f64> {
        let runs = self.samples.iter().filter(|sample| sample.phase == phase && sample.tool == tool);
        let mut figures: Vec<f64> = runs.filter_map(|sample| sample.cost.as_ref().ok()).map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied()
    }

    /// The best of the peers, and whose it is.
    fn best_peer(&self, phase: Phase, figure: impl Fn(&Cost) -> f64 + Copy) -> Option<(f64, &'static str)> {
        let peers = Tool::ALL.into_iter().filter(|tool| tool.is_peer());
        let figures = peers.filter_map(|tool| Some((self.median(phase, tool, figure)?, tool.name())));
        figures.min_by(|a, b| a.0.total_cmp(&b.0))
    }

    fn stored(&self, tool: Tool) -> Option<f64> {
        self.samples
            .iter()
            .filter(|sample| sample.tool == tool)
            .find_map(|sample| sample.stored)
            .map(|bytes| bytes as f64)
    }

    /// Why a tool has no figure in a phase: its own failure, or that of the backup before it.
    fn reason(&self, phase: Phase, tool: Tool) -> String {
        let failure = |phase| {
            let mut own = self.samples.iter().filter(|sample| sample.phase == phase && sample.tool == tool);
            own.find_map(|sample| sample.cost.as_ref().err())
        };
        match failure(phase).or_else(|| failure(Phase::Backup)) {
            Some(why) => format!("{} failed: {why}", tool.name()),
            None => "not run".to_owned(),
        }
    }

    /// Both tables as markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for line in &self.about {
            text += &format!("{line}\n");
        }
        text += &self.tools();
        for (name, rate) in &self.device_rates {
            text += &format!("\n{name}: {:.2} GB/s", rate / 1e9);
        }
        text += "\n\n| row | target | measured | verdict |\n|---|---|---|---|\n";
        for row in self.rows() {
            text +=
                &format!("| {} | {} | {} | {} |\n", row.what, row.target, row.measured, row.verdict.text());
        }
        text
    }

    fn tools(&self) -> String {
        let mut text = "\n| tool | full backup s | CPU s | peak RSS MiB (sum of processes) | unchanged s | restore s (and flush) \
            | restore CPU s | restore RSS MiB | stored MiB | restored tree | capped s | reads/s |\n\
            |---|---|---|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
        for tool in Tool::ALL.into_iter().filter(|tool| self.versions.contains_key(tool)) {
            let cell = |phase, figure: fn(&Cost) -> f64, digits: usize| {
                self.median(phase, tool, figure).map_or("-".to_owned(), |value| format!("{value:.digits$}"))
            };
            let with = |phase, first: fn(&Cost) -> f64, second: fn(&Cost) -> f64, digits| {
                format!("{} ({})", cell(phase, first, digits), cell(phase, second, digits))
            };
            let mut verified = self.samples.iter().filter(|sample| sample.tool == tool);
            let version = self.versions.get(&tool).map_or("", String::as_str);
            let cells = [
                format!("{} {version}", tool.name()),
                cell(Phase::Backup, |cost| cost.wall_s, 1),
                cell(Phase::Backup, |cost| cost.cpu_s, 1),
                with(Phase::Backup, |cost| cost.rss_mib, |cost| cost.rss_sum_mib, 0),
                cell(Phase::Unchanged, |cost| cost.wall_s, 2),
                with(Phase::Restore, |cost| cost.wall_s, |cost| cost.settle_s, 1),
                cell(Phase::Restore, |cost| cost.cpu_s, 1),
                cell(Phase::Restore, |cost| cost.rss_mib, 0),
                self.stored(tool).map_or("-".to_owned(), |bytes| format!("{:.0}", bytes / MIB)),
                verified.find_map(|sample| sample.verified.clone()).unwrap_or("-".to_owned()),
                cell(Phase::Capped, |cost| cost.wall_s, 1),
                cell(Phase::Capped, |cost| cost.reads.unwrap_or_default() as f64 / cost.wall_s, 0),
            ];
            text += &format!("| {} |\n", cells.join(" | "));
        }
        for sample in self.samples.iter().filter(|sample| sample.cost.is_err()) {
            let why = sample.cost.as_ref().err().map_or("", String::as_str);
            text += &format!("\n{} failed in {}: {why}", sample.tool.name(), sample.phase.name());
        }
        text
    }

    /// The targets.
    fn rows(&self) -> Vec<Row> {
        let mut rows = vec![
            self.against_peers(
                "full backup: wall, small files, directory store",
                Phase::Backup,
                |cost| cost.wall_s,
                "s",
                0.5,
            ),
            self.against_peers("full backup: CPU", Phase::Backup, |cost| cost.cpu_s, "CPU s", 1.0),
            self.against_peers(
                "full backup: wall, device capped at 4,000 read IOPS",
                Phase::Capped,
                |cost| cost.wall_s,
                "s",
                0.2,
            ),
            self.image_row(),
            self.against_peers("restore of everything: wall", Phase::Restore, |cost| cost.wall_s, "s", 1.0),
            self.restored_row(),
            self.memory_row("peak RSS, default", None, 64.0),
            self.memory_row("peak RSS, --memory 24MiB", Some("24MiB"), 24.0),
        ];
        for (what, pair) in [
            ("10 times the files", ["files-6k", "files-60k"]),
            ("10 times the bytes", ["bytes-512m", "bytes-5g"]),
        ] {
            rows.push(self.growth_row(what, pair, None));
            rows.push(self.growth_row(what, pair, Some("24MiB")));
        }
        rows.extend([self.stored_row(), self.binary_row(), self.puts_row(), self.asks_row()]);
        rows
    }

    /// Windlass against `factor` times the best peer.
    fn against_peers(
        &self,
        what: &'static str,
        phase: Phase,
        figure: fn(&Cost) -> f64,
        unit: &str,
        factor: f64,
    ) -> Row {
        let Some((best, peer)) = self.best_peer(phase, figure) else {
            return Row::unmeasured(
                what,
                format!("at most {factor} x the best peer"),
                "no peer was measured".to_owned(),
            );
        };
        let target = format!("at most {:.1} {unit} ({factor} x {peer}'s {best:.1})", best * factor);
        match self.median(phase, Tool::Windlass, figure) {
            Some(own) => Row::measured(what, target, format!("{own:.1} {unit}"), own <= best * factor),
            None => Row::unmeasured(what, target, self.reason(phase, Tool::Windlass)),
        }
    }

    fn image_row(&self) -> Row {
        let what = "image of a full device, uncompressed, to the null store";
        let Some(best) = self.device_rates.iter().map(|(_, rate)| *rate).max_by(f64::total_cmp) else {
            return Row::unmeasured(what, "at least 90 % of fio's best".to_owned(), "not run".to_owned());
        };
        let target = format!("at least {:.2} GB/s (90 % of {:.2})", best * 0.9 / 1e9, best / 1e9);
        match &self.image_rate {
            Some(Ok(rate)) => {
                Row::measured(what, target, format!("{:.2} GB/s", rate / 1e9), *rate >= best * 0.9)
            }
            Some(Err(why)) => Row::unmeasured(what, target, format!("windlass failed: {why}")),
            None => Row::unmeasured(what, target, "not run".to_owned()),
        }
    }

    fn restored_row(&self) -> Row {
        let (what, target) = ("restored tree", "equal, all bytes and attributes".to_owned());
        let is_own = |sample: &&Sample| sample.tool == Tool::Windlass && sample.phase == Phase::Restore;
        match self.samples.iter().find(is_own) {
            Some(Sample { verified: Some(said), .. }) => Row::measured(what, target, said.clone(), true),
            Some(_) => Row::measured(what, target, self.reason(Phase::Restore, Tool::Windlass), false),
            None => Row::unmeasured(what, target, self.reason(Phase::Backup, Tool::Windlass)),
        }
    }

    fn memory_row(&self, what: &'static str, memory: Option<&'static str>, limit_mib: f64) -> Row {
        let target = format!("at most {limit_mib:.0} MiB");
        let runs: Vec<&Peak> = self.peaks.iter().filter(|peak| peak.memory == memory).collect();
        let mut highest: f64 = 0.0;
        for peak in &runs {
            for mib in [&peak.backup_mib, &peak.restore_mib] {
                match mib {
                    Ok(mib) => highest = highest.max(*mib),
                    Err(why) => return Row::unmeasured(what, target, format!("windlass failed: {why}")),
                }
            }
        }
        if runs.is_empty() {
            return Row::unmeasured(what, target, "not run".to_owned());
        }
        if memory.is_none() {
            for phase in [Phase::Backup, Phase::Restore] {
                highest = self
                    .median(phase, Tool::Windlass, |cost| cost.rss_mib)
                    .map_or(highest, |mib| highest.max(mib));
            }
        }
        Row::measured(
            what,
            target,
            format!("{highest:.1} MiB, backup and restore of {} volumes", runs.len()),
            highest <= limit_mib,
        )
    }

    fn growth_row(&self, grown: &str, pair: [&str; 2], memory: Option<&'static str>) -> Row {
        let what = format!("peak RSS with {grown}, {}", memory.unwrap_or("default"));
        let target = "within 10 %".to_owned();
        let find = |name: &str| self.peaks.iter().find(|peak| peak.volume == name && peak.memory == memory);
        let (Some(small), Some(large)) = (find(pair[0]), find(pair[1])) else {
            return Row::unmeasured(what, target, "not run".to_owned());
        };
        match (&small.backup_mib, &large.backup_mib, &small.restore_mib, &large.restore_mib) {
            (Ok(a), Ok(b), Ok(c), Ok(d)) => {
                let measured = format!("backup {a:.1} to {b:.1} MiB, restore {c:.1} to {d:.1} MiB");
                Row::measured(what, target, measured, *b <= a * 1.1 && *d <= c * 1.1)
            }
            (Err(why), ..) | (_, Err(why), ..) | (_, _, Err(why), _) | (.., Err(why)) => {
                Row::unmeasured(what, target, format!("windlass failed: {why}"))
            }
        }
    }

    fn stored_row(&self) -> Row {
        let what = "bytes stored";
        let peers = Tool::ALL.into_iter().filter(|tool| tool.is_peer());
        let smallest = peers
            .filter_map(|tool| Some((self.stored(tool)?, tool.name())))
            .min_by(|a, b| a.0.total_cmp(&b.0));
        let Some((best, peer)) = smallest else {
            return Row::unmeasured(
                what,
                "within 5 % of the smallest peer".to_owned(),
                "no peer was measured".to_owned(),
            );
        };
        let target = format!("at most {:.0} MiB (1.05 x {peer}'s {:.0})", best * 1.05 / MIB, best / MIB);
        match self.stored(Tool::Windlass) {
            Some(own) => Row::measured(what, target, format!("{:.0} MiB", own / MIB), own <= best * 1.05),
            None => Row::unmeasured(what, target, self.reason(Phase::Backup, Tool::Windlass)),
        }
    }

    fn binary_row(&self) -> Row {
        let (what, target) = ("release binary, stripped", "at most 6 MiB".to_owned());
        match &self.binary_bytes {
            Some(Ok(bytes)) => Row::measured(
                what,
                target,
                format!("{:.2} MiB", *bytes as f64 / MIB),
                *bytes as f64 <= 6.0 * MIB,
            ),
            Some(Err(why)) => Row::unmeasured(what, target, why.clone()),
            None => Row::unmeasured(what, target, "not run".to_owned()),
        }
    }

    fn puts_row(&self) -> Row {
        let (what, target) =
            ("requests: PUTs per object", "at most 1, plus 2 % for tables and log".to_owned());
        match &self.requests {
            Some(counts) => {
                let [objects, tables, log, lease] = counts.puts;
                let measured = format!(
                    "{} objects in {objects} PUTs, {tables} of tables, {log} of the log; {lease} of the lease (by time)",
                    counts.objects
                );
                // A run begins and ends in the log with a fixed number of slots, however much it stores.
                let share = tables + log.saturating_sub(FIXED_LOG_PUTS);
                Row::measured(what, target, measured, objects == counts.objects && share * 50 <= objects)
            }
            None => Row::unmeasured(what, target, self.no_requests()),
        }
    }

    fn asks_row(&self) -> Row {
        let (what, target) = ("requests: LIST, HEAD, GET on the hot path", "none".to_owned());
        match &self.requests {
            Some(counts) => {
                let [all, between] = counts.asks;
                let measured = format!("{between} between the first object and the last, {all} in all");
                Row::measured(what, target, measured, between == 0)
            }
            None => Row::unmeasured(what, target, self.no_requests()),
        }
    }

    fn no_requests(&self) -> String {
        match self.median(Phase::Backup, Tool::Windlass, |cost| cost.wall_s) {
            Some(_) => "backup --json names no requests and objects".to_owned(),
            None => self.reason(Phase::Backup, Tool::Windlass),
        }
    }

    /// Everything, for programs.
    pub fn json(&self) -> Value {
        let outcome = |result: &Result<f64, String>| match result {
            Ok(value) => json!(value),
            Err(why) => json!({ "failed": why }),
        };
        let sample = |sample: &Sample| {
            let cost = sample.cost.as_ref().map_or_else(|why| json!({ "failed": why }), Cost::to_json);
            json!({
                "phase": sample.phase.name(), "tool": sample.tool.name(), "cost": cost,
                "stored_bytes": sample.stored, "verified": sample.verified,
            })
        };
        let peak = |peak: &Peak| {
            json!({
                "volume": peak.volume, "memory": peak.memory,
                "backup_mib": outcome(&peak.backup_mib), "restore_mib": outcome(&peak.restore_mib),
            })
        };
        let rows: Vec<Value> = self.rows().iter().map(Row::json).collect();
        let versions: Vec<Value> = self
            .versions
            .iter()
            .map(|(tool, version)| json!({ "tool": tool.name(), "version": version }))
            .collect();
        json!({
            "about": self.about, "versions": versions,
            "samples": self.samples.iter().map(sample).collect::<Vec<_>>(),
            "peaks": self.peaks.iter().map(peak).collect::<Vec<_>>(),
            "device_bytes_per_s": self.device_rates, "image_bytes_per_s": self.image_rate.as_ref().map(outcome),
            "rows": rows,
        })
    }
}

#[derive(Clone, Copy, Debug)]
enum Verdict {
    Met,
    NotMet,
    Unmeasured,
}

impl Verdict {
    fn text(self) -> &'static str {
        match self {
            Verdict::Met => "MET",
            Verdict::NotMet => "NOT MET",
            Verdict::Unmeasured => "NOT MEASURED",
        }
    }
}

#[derive(Debug)]
struct Row {
    what: String,
    target: String,
    measured: String,
    verdict: Verdict,
}

impl Row {
    fn measured(what: impl Into<String>, target: String, measured: String, is_met: bool) -> Row {
        Row {
            what: what.into(),
            target,
            measured,
            verdict: if is_met { Verdict::Met } else { Verdict::NotMet },
        }
    }

    fn unmeasured(what: impl Into<String>, target: String, why: String) -> Row {
        Row { what: what.into(), target, measured: why, verdict: Verdict::Unmeasured }
    }

    fn json(&self) -> Value {
        json!({ "row": self.what, "target": self.target, "measured": self.measured, "verdict": self.verdict.text() })
    }
}
