//! Whether schedules run: what begins and ends of each policy, at true times.
//!
//! | rule | when it is checked |
//! |---|---|
//! | I10 | long after the faults: each policy that was due twice got its point each time, however many were due at that moment |
//! | I10 | the same: none began more often than it was due |
//!
//! Both where all nodes follow one clock, which the store's makes them do whatever their own say. Does not: know what a schedule is, beside
//! its period ([`EVERY_MS`](super::weather::EVERY_MS)). Source: ours; `agent/src/policy/schedule.rs`.

use std::collections::BTreeMap;

use windlass_agent::format::garbage::GarbageNews;
use windlass_agent::format::record::Record;
use windlass_agent::id::BackupId;
use windlass_agent::log::state::State;

use super::Verdict;
use super::options::SECOND;
use super::weather::Weather;

/// A backup that is due begins so much earlier at most, in nanoseconds: nodes believe their own clock within a minute of the store's, boot
/// time drifts by 3 % within the hour, and the store says whole seconds.
const EARLY_NS: u64 = 200 * SECOND;

/// Begins and ends.
#[derive(Clone, Debug, Default)]
pub struct Due {
    begun: BTreeMap<String, Vec<u64>>,
    ended: BTreeMap<String, Vec<u64>>,
    running: BTreeMap<BackupId, String>,
    /// Backups that were given up.
    pub abandoned: u64,
    /// Backups that ended in a later epoch than they began in.
    pub resumed: u64,
    /// Objects whose live blocks were moved.
    pub moved: u64,
    epochs: u64,
    begun_in: BTreeMap<BackupId, u64>,
    /// Leases set.
    pub lengths: u64,
    /// Records of what the store has lost.
    pub damage: u64,
    /// Policies that got another name.
    pub renamed: u64,
    /// Policies that were removed.
    pub removed: u64,
    /// Backups that began without one of their volumes.
    pub without: u64,
}

impl Due {
    /// A record is in the log.
    pub fn record(&mut self, true_ns: u64, record: &Record) {
        match record {
            Record::EpochBegun { .. } => self.epochs += 1,
            Record::LeaseSet { .. } => self.lengths += 1,
            Record::Damage(_) => self.damage += 1,
            Record::PolicyRenamed { .. } => self.renamed += 1,
            Record::PolicyRemoved { .. } => self.removed += 1,
            Record::BackupBegun(start) => {
                self.without += u64::from(!start.missing.is_empty());
                self.begun.entry(start.policy.clone()).or_default().push(true_ns);
                self.running.insert(start.backup, start.policy.clone());
                self.begun_in.insert(start.backup, self.epochs);
            }
            Record::BackupEnded(end) => {
                let began_in = self.begun_in.remove(&end.backup);
                self.resumed += u64::from(began_in.is_some_and(|epoch| epoch < self.epochs));
                if let Some(policy) = self.running.remove(&end.backup) {
                    self.ended.entry(policy).or_default().push(true_ns);
                }
            }
            Record::BackupAbandoned { .. } => self.abandoned += 1,
            Record::Garbage(GarbageNews::DoneWith(_, moves)) => self.moved += moves.objects,
            _ => {}
        }
    }

    /// The time after the faults is over. Returns how many backups were due.
    ///
    /// # Errors
    /// A schedule did not run, or ran too often.
    pub fn check(&self, weather: &Weather, storm_ns: u64, now_ns: u64, state: &State) -> Verdict<u64> {
        let dues = weather.due_after(storm_ns).into_iter().filter(|due| due + 1800 * SECOND < now_ns).count();
        let [first, _] = weather.due_after(storm_ns);
        let from = first - EARLY_NS;
        let mut checked = 0;
        for (name, policy) in &state.policies {
            if policy.removed || policy.volumes.is_empty() {
                continue;
            }
            let since = |of: &BTreeMap<String, Vec<u64>>| {
                of.get(name).map_or(0, |times| times.iter().filter(|&&at| at >= from).count())
            };
            let (begun, ended) = (since(&self.begun), since(&self.ended));
            if ended < dues {
                return Err(format!("I10: {name} was due {dues} times, and {ended} points came of it"));
            }
            if begun > dues + 1 {
                return Err(format!("I10: {name} was due {dues} times, and {begun} backups began"));
            }
            checked += dues as u64;
        }
        Ok(checked)
    }
}
