//! Backups that users stop: what they were told, against what the log does afterwards.
//!
//! | rule | when it is checked |
//! |---|---|
//! | P5 | a user is told that a backup is stopped: the log says so |
//! | P5 | a backup goes on that a user was told is stopped: somebody has asked for one of its policy since, or its schedule did |
//! | P5 | a backup ends: it is not one that is stopped |
//!
//! A command that was under way when the user was told counts as asked for since. So does one that ended without an answer, as its node died
//! or no longer waited for the coordinator: that may carry it out later, once.
//! Does not: know why a backup stops that no user stopped. Source: ours; `coordinator::stop`.

use std::collections::{BTreeMap, BTreeSet};

use windlass_agent::format::record::Record;
use windlass_agent::id::BackupId;
use windlass_agent::log::state::State;
use windlass_agent::policy::Policy;

use super::{Verdict, guards};

/// What users asked for and were told.
#[derive(Debug, Default)]
pub struct Stops {
    /// Backups that were ever stopped, and those that are.
    ever: BTreeSet<BackupId>,
    now: BTreeSet<BackupId>,
    /// Commands for a backup that have no answer: of which node and client, for which policy.
    open: BTreeMap<(usize, u64), String>,
    /// Commands for a backup that ended without an answer and may be carried out yet: how many, by policy.
    heard: BTreeMap<String, u32>,
    /// Policies of which a user was told that their backup is stopped, until somebody asks again.
    quiet: BTreeSet<String>,
}

impl Stops {
    /// A user asks for a backup of a policy.
    pub fn asked(&mut self, node: usize, client: u64, policy: &str) {
        self.quiet.remove(&guards::index_of(policy));
        self.open.insert((node, client), guards::index_of(policy));
    }

    /// A command has its answer.
    pub fn answered(&mut self, node: usize, client: u64) {
        self.open.remove(&(node, client));
    }

    /// A command ends without an answer: it may have been heard.
    pub fn closed(&mut self, node: usize, client: u64) {
        if let Some(policy) = self.open.remove(&(node, client)) {
            *self.heard.entry(policy).or_default() += 1;
        }
    }

    /// A node's life is over, and with it its users' commands.
    pub fn died(&mut self, node: usize) {
        let of_it: Vec<u64> =
            self.open.keys().filter(|(of, _)| *of == node).map(|(_, client)| *client).collect();
        of_it.into_iter().for_each(|client| self.closed(node, client));
    }

    /// A user is told that the backup of a policy is stopped.
    ///
    /// # Errors
    /// P5 is broken.
    pub fn told(&mut self, policy: &str, backup: BackupId) -> Verdict<()> {
        if !self.ever.contains(&backup) {
            return Err(format!("P5: backup {backup} is said to be stopped, and no slot says so"));
        }
        let policy = guards::index_of(policy);
        let may_go_on = self.heard.contains_key(&policy) || self.open.values().any(|of| *of == policy);
        if self.now.contains(&backup) && !may_go_on {
            self.quiet.insert(policy);
        }
        Ok(())
    }

    /// A record of the log. `of`: the policy of the backup that it is about; `state` as of its slot.
    ///
    /// # Errors
    /// P5 is broken.
    pub fn record(&mut self, state: &State, record: &Record, of: impl Fn(BackupId) -> String) -> Verdict<()> {
        match record {
            Record::BackupStopped { backup, goes_on: false } => {
                self.ever.insert(*backup);
                self.now.insert(*backup);
            }
            Record::BackupStopped { backup, goes_on: true } => {
                self.now.remove(backup);
                if let Some(left) = self.heard.get_mut(&of(*backup)) {
                    *left -= 1;
                    self.heard.retain(|_, left| *left > 0);
                }
                let is_of = |name: &&String| guards::index_of(name) == of(*backup);
                let body =
                    state.policies.iter().find(|(name, _)| is_of(name)).map(|(_, policy)| &policy.body);
                let is_due = body
                    .and_then(|body| Policy::parse(body).ok())
                    .is_some_and(|body| body.schedule.is_some());
                if self.quiet.contains(&of(*backup)) && !is_due {
                    return Err(format!("P5: backup {backup} goes on, was stopped, and nobody asked for it"));
                }
            }
            Record::BackupEnded(end) if self.now.contains(&end.backup) => {
                return Err(format!("P5: backup {} is a point, and was stopped", end.backup));
            }
            _ => {}
        }
        Ok(())
    }
}
