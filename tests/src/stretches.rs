//! A backup in many stretches, in any order, some given up on the way: as the workers of a cluster do it, one after the other in this
//! process, over one set of pools and one counter of names.
//!
//! On the way it checks what the log must refuse: a stretch that is done, and an end while anything is missing. Source: ours.

use windlass_agent::drive::job::{self, Assigned, Fault, Machinery, Packing, VolumeJob};
use windlass_agent::drive::volume::{CommitLog, DriveFault};
use windlass_agent::format::record::{BackupEnd, BackupStart, Commit, Record, Stretch};
use windlass_agent::id::{BackupId, Boot, Epoch, KEY_START, Key, NodeId};
use windlass_agent::log::fault::LogFault;
use windlass_agent::log::sealer::LogSealer;
use windlass_agent::log::session::Session;
use windlass_agent::log::state::{Point, Refusal};
use windlass_agent::worker::backup::{ItemTrouble, Progress};
use windlass_agent::worker::base::Earlier;

use crate::appliance::{Appliance, POLICY, Source, VOLUME, release};
use crate::error::{Context, Error, Result};
use crate::prng::Prng;

/// Jobs that are stopped in one backup, so that there is an end to it.
const STOPS_MAX: u64 = 6;
/// Turns of the loop that a job gets at most before it is stopped.
const ROUNDS_MAX: u64 = 60;

/// What came of it.
#[derive(Clone, Debug)]
pub struct Split {
    /// The point.
    pub point: Point,
    /// Jobs that were run.
    pub jobs: u64,
    /// Jobs that were stopped before their end.
    pub stopped: u64,
    /// Commits of stretches.
    pub commits: u64,
    /// What could not be read.
    pub troubles: Vec<ItemTrouble>,
}

/// Commits on this thread, one by one.
struct Direct<'a, 's> {
    session: &'a mut Session<'s, LogSealer>,
    backup: BackupId,
    answer: Option<std::result::Result<(), LogFault>>,
    commits: u64,
    /// What broke the rules, if anything.
    wrong: Option<String>,
    /// Where the next commit must begin.
    at: Key,
}

impl CommitLog for Direct<'_, '_> {
    fn begin(&mut self, progress: Progress) {
        let stretch = Stretch { volume: VOLUME, from: progress.from, to: progress.to };
        if progress.from != self.at || progress.to <= progress.from {
            self.wrong = Some(format!("a commit of {stretch:?} after {:?}", self.at));
        }
        self.at = progress.to;
        self.commits += 1;
        let commit = Commit {
            backup: self.backup,
            objects: progress.objects.iter().map(|&(id, bytes)| (id, u64::from(bytes))).collect(),
            segments: progress.segments,
            removed: Vec::new(),
            progress: vec![stretch],
            totals: progress.totals,
            newest_secs: progress.newest_secs,
        };
        let again = Commit { backup: self.backup, progress: vec![stretch], ..Commit::default() };
        self.answer = Some(self.session.commit(vec![Record::Commit(commit)]).map(drop));
        let again = self.session.commit(vec![Record::Commit(again)]);
        if !is_refused(&again, Refusal::Progress) {
            self.wrong = Some(format!("the same stretch again: {again:?}"));
        }
    }

    fn take_done(&mut self) -> Option<std::result::Result<(), LogFault>> {
        self.answer.take()
    }
}

fn is_refused<T>(result: &std::result::Result<T, LogFault>, why: Refusal) -> bool {
    matches!(result, Err(LogFault::Refused { why: said, .. }) if *said == why)
}

impl Appliance {
    /// Backs `source` up in stretches that are cut at `cuts` (those at which the volume cannot be cut are a fault) and run in an
    /// order that `random` draws; one in `stop_one_in` is stopped after a while, and what it did not do is done by another (0: none).
    pub fn backup_in_stretches(
        &self,
        source: &Source,
        cuts: &[Key],
        random: &mut Prng,
        stop_one_in: u64,
    ) -> Result<Split> {
        self.with_machinery(source, |mut session, volume, machinery| {
            let result = self.run_stretches(&mut session, volume, machinery, (cuts, stop_one_in), random);
            release(Some(session));
            result
        })?
    }

    fn run_stretches(
        &self,
        session: &mut Session<'_, LogSealer>,
        volume: &mut VolumeJob,
        machinery: &mut Machinery<'_>,
        (cuts, stop_one_in): (&[Key], u64),
        random: &mut Prng,
    ) -> Result<Split> {
        let state = session.view().state.clone();
        let backup = state.next_backup().ok_or_else(|| Error::new("no number is left"))?;
        let start = BackupStart {
            backup,
            policy: POLICY.to_owned(),
            volumes: vec![volume.found()],
            wall_start_ns: 0,
            missing: Vec::new(),
        };
        session.commit(vec![Record::BackupBegun(start)]).context(|| "begin")?;
        let writer: (Epoch, NodeId, Boot) = (session.epoch(), state.holder.node, state.holder.boot);
        let last = state.last_point_of(POLICY, VOLUME).map(|(_, last)| *last);
        let earlier = Earlier::of(&state, POLICY, VOLUME, backup);
        let end = Record::BackupEnded(BackupEnd { backup, wall_end_ns: 1 });
        let (mut jobs, mut stopped, mut commits, mut troubles) = (0, 0, 0, Vec::new());
        // More often than any worker reports: after every batch.
        let settings =
            job::Settings { commit_objects: 1, commit_interval_ns: random.below(2), ..self.settings() };
        while let Some((from, to)) = next_stretch(session, backup, cuts, random) {
            if !is_refused(&session.commit(vec![end.clone()]), Refusal::Gap) {
                return Err(Error::new("a backup with a gap became a point"));
            }
            jobs += 1;
            let mut packing =
                Packing::start(self.keys(), writer, &settings, machinery).context(|| "start lanes")?;
            let assigned = Assigned { backup, from, to, last };
            let mut log = Direct { session, backup, answer: None, commits: 0, wrong: None, at: from };
            let stop = machinery.stop;
            let mut left = match stop_one_in {
                0 => u64::MAX,
                // Whatever the machine's pace: the first job of each backup is stopped before it does anything.
                _ if jobs == 1 => 0,
                // Mostly early: a busy machine does a job in few turns.
                n if stopped < STOPS_MAX && random.one_in(n) => {
                    let most = 1 + random.below(ROUNDS_MAX);
                    1 + random.below(most)
                }
                _ => u64::MAX,
            };
            stop.store(left == 0, std::sync::atomic::Ordering::Relaxed);
            let rows = self.rows(earlier, &state);
            let done =
                job::run(volume, &assigned, &settings, &mut packing, machinery, rows, &mut log, &mut |_| {
                    left = left.saturating_sub(1);
                    stop.store(left == 0, std::sync::atomic::Ordering::Relaxed);
                });
            stop.store(false, std::sync::atomic::Ordering::Relaxed);
            commits += log.commits;
            if let Some(wrong) = log.wrong {
                return Err(Error::new(wrong));
            }
            match done {
                Ok(done) if log.at == to => troubles.extend(done.troubles),
                Err(Fault::Drive(DriveFault::Stopped)) => stopped += 1,
                Ok(done) => return Err(Error::new(format!("{:?} of {assigned:?}: {done:?}", log.at))),
                Err(fault) => return Err(Error::new(format!("{assigned:?}: {fault}"))),
            }
        }
        session.commit(vec![end]).context(|| "end")?;
        let point = session.view().state.points.get(&backup).cloned();
        let point = point.ok_or_else(|| Error::new("no point"))?;
        Ok(Split { point, jobs, stopped, commits, troubles })
    }
}

/// A stretch that is not done, between two neighbouring cuts.
fn next_stretch(
    session: &Session<'_, LogSealer>,
    backup: BackupId,
    cuts: &[Key],
    random: &mut Prng,
) -> Option<(Key, Key)> {
    let gaps = session.view().state.running.get(&backup)?.done.gaps(VOLUME);
    let pieces: Vec<(Key, Key)> = gaps.iter().flat_map(|&gap| pieces(gap, cuts)).collect();
    (!pieces.is_empty()).then(|| pieces[random.below(pieces.len() as u64) as usize])
}

/// A gap, cut at what of `cuts` lies in it.
fn pieces((from, to): (Key, Key), cuts: &[Key]) -> Vec<(Key, Key)> {
    let mut inner: Vec<Key> = cuts.iter().copied().filter(|&cut| from < cut && cut < to).collect();
    inner.extend([from, to]);
    inner.sort_unstable();
    inner.dedup();
    debug_assert!(from >= KEY_START);
    inner.windows(2).map(|pair| (pair[0], pair[1])).collect()
}
