//! One backup by a cluster of one: a node without peers in this process claims the lease, is given the
//! command that an agent would be given, and leaves when the point is there and the tables are in order.
//!
//! | state | what follows |
//! |---|---|
//! | somebody else has the lease | whoever wants the backup says how long to wait |
//! | the lease is held | [`Command::Backup`]; what is unfinished of the policy goes on |
//! | the lease is lost | the job goes on, and the lease is claimed again, for [`REGAIN_NS`] |
//! | a job ends with a fault, a bound is reached, or somebody wants no more of it | the lease is let go; what is committed is kept |
//! | the point is there, tables are merged, checkpoints are stored | the lease is let go |
//!
//! Does not: print. Source: ours; `agent/doc/commit-log.md`, Lease.

use std::fmt;
use std::time::Duration;

use windlass_agent::format::slot::HolderKind;
use windlass_agent::id::{BackupId, VolumeId};
use windlass_agent::log::fault::LogFault;
use windlass_agent::log::replay::View;
use windlass_agent::log::state::State;
use windlass_agent::node::{Node, Note};
use windlass_agent::pack::proof::Proven;
use windlass_agent::progress::{Phase, Progress};
use windlass_agent::table::lost::LostRows;
use windlass_agent::work::{Command, Present, Reply};
use windlass_agent::worker::backup::{ItemTrouble, Totals};
use windlass_hal::linux::poll::Poll;

use super::node::{Engine, News, config};
use super::post::{Post, Stretch};
use super::worker::Work;
use crate::engine::host::HostClock;
use crate::failure::Failure;

/// How long a lost lease is tried for again, in nanoseconds: what a store needs to come back after a failure
/// of its own, or a link.
pub const REGAIN_NS: u64 = 900_000_000_000;
/// Time between lines that say that it is, in nanoseconds.
const SAY_NS: u64 = 30_000_000_000;
/// Longest wait in one go, in nanoseconds: how soon a request to stop is noticed.
const WAIT_NS: u64 = 250_000_000;
/// Descriptors reported in one wait: there is none but the waker's.
const EVENTS_MAX: usize = 4;
/// Times that the command is given again because the log does not have the backup any more.
const COMMANDS_MAX: u64 = 8;

/// Merges after a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Segments that are no more.
    pub removed: u64,
    /// Segments that took their place.
    pub added: u64,
}

/// What a backup did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Its number.
    pub backup: BackupId,
    /// Whether it went on where an earlier run had stopped.
    pub resumed: bool,
    /// Bytes that earlier runs had stored and that need not be stored again.
    pub kept_bytes: u64,
    /// Sums over all volumes, of this run.
    pub totals: Totals,
    /// Items with something missing, by volume.
    pub troubles: Vec<ItemTrouble>,
    /// Segments of which rows of the last point could not be read: what they told of was read and stored
    /// again.
    pub lost: Vec<LostRows>,
    /// Frames that were opened again before they were sent.
    pub proven: Proven,
    /// Why volumes are not trusted: who could write to them when all was read.
    pub in_use: Vec<String>,
    /// Tables that were merged after it.
    pub merged: Merged,
    /// Whether the point is known to need something that the store has lost.
    pub damaged: bool,
}

/// Why there is no point.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Somebody asked to stop.
    Stopped,
    /// A job could not go on.
    Job(Option<VolumeId>, String),
    /// The lease was not to be had: somebody else has it, or the log cannot be used.
    Log(LogFault),
    /// It was refused.
    Refused(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Stopped => f.write_str("stopped on request; what is stored is kept for the next run"),
            Fault::Job(Some(volume), why) => write!(f, "volume {volume}: {why}"),
            Fault::Job(None, why) | Fault::Refused(why) => f.write_str(why),
            Fault::Log(fault) => fault.fmt(f),
        }
    }
}

/// Whoever wants the backup, while it goes on.
pub trait Listener {
    /// Somebody else may have the lease, and is watched for so many more nanoseconds at least. `again`: it
    /// was this backup's and got lost. Whether to go on waiting; asked about once a second.
    fn is_held(&mut self, held: &LogFault, left_ns: u64, again: bool) -> bool;
    /// The lease is held.
    fn has_begun(&mut self) {}
    /// Something that a person should know.
    fn hears(&mut self, line: fmt::Arguments<'_>);
}

/// How a backup ended, and the log as it was then.
#[derive(Debug)]
pub struct Ended {
    /// What it did, or why there is no point.
    pub result: Result<Report, Fault>,
    /// The log.
    pub view: View,
}

/// Bytes that unfinished backups of a policy have stored.
pub fn kept_bytes(state: &State, policy: &str) -> u64 {
    state.unfinished(policy).map(|(_, running)| running.totals.bytes_stored).sum()
}

/// Backs `policy` up; `view` is the log as of a moment ago. Returns when the lease is let go, however it
/// went, and no thread is at work any more.
///
/// # Errors
/// The system gives no threads, descriptors or random bytes.
pub fn run(
    work: Work,
    view: View,
    policy: &str,
    job: &Progress,
    listener: &mut dyn Listener,
) -> Result<Ended, Failure> {
    let mut poll = Poll::new(EVENTS_MAX).map_err(|error| Failure::at("cannot make a poll", error))?;
    let (post, letters) = Post::new(poll.waker());
    let (_, boot) = work.author;
    let present = Present {
        boot,
        weight: 1,
        lanes: u32::try_from(work.settings.budget.lanes).unwrap_or(u32::MAX),
        volumes: work.volumes.titles(),
        ..Present::default()
    };
    // Whoever waits says how long.
    let config = config(&work, HolderKind::Command, Vec::new(), present, u64::MAX)?;
    let node = Node::for_backup(HostClock.boot_ns(), config, policy, view);
    let mut engine = Engine::start(node, work, None, &post, letters)?;
    let mut run = Run {
        policy,
        job,
        listener,
        report: Report::default(),
        before: None,
        commands: 0,
        lost: None,
        said_ns: 0,
        was_lost: false,
        unfinished: None,
    };
    let result = run.until_the_end(&mut engine, &mut poll);
    run.job.enter(Phase::Finishing);
    run.leave(&mut engine, &mut poll);
    let report = run.report;
    let view = engine.node().view().clone();
    engine.end();
    Ok(Ended { result: result.map(|()| report), view })
}

struct Run<'a> {
    policy: &'a str,
    job: &'a Progress,
    listener: &'a mut dyn Listener,
    report: Report,
    /// The policy's newest point when the lease was held first: a later one is what is waited for.
    before: Option<BackupId>,
    /// Commands given.
    commands: u64,
    /// Since when the lease is lost, and why.
    lost: Option<(u64, LogFault)>,
    said_ns: u64,
    was_lost: bool,
    /// What an earlier run had left.
    unfinished: Option<BackupId>,
}

impl Run<'_> {
    fn until_the_end(&mut self, engine: &mut Engine, poll: &mut Poll) -> Result<(), Fault> {
        self.command(engine);
        loop {
            engine.turn(None);
            engine.tell_rate();
            self.hear(engine)?;
            if self.job.is_stop_requested() {
                return Err(self.stopped(engine));
            }
            if self.is_over(engine)? {
                return Ok(());
            }
            wait(engine, poll, None);
        }
    }

    fn command(&mut self, engine: &mut Engine) {
        self.commands += 1;
        engine.command(self.commands, Command::Backup(self.policy.to_owned()));
    }

    /// A request to stop while somebody else has the lease is about that.
    fn stopped(&self, engine: &Engine) -> Fault {
        match engine.node().waits_for() {
            Some((held, _)) if self.before.is_none() => Fault::Log(held),
            _ => Fault::Stopped,
        }
    }

    fn hear(&mut self, engine: &mut Engine) -> Result<(), Fault> {
        while let Some(news) = engine.hear() {
            self.heard(news)?;
        }
        while let Some((_, reply)) = engine.next_reply() {
            if let Reply::Refused(why) = reply {
                return Err(Fault::Refused(why));
            }
        }
        while let Some(note) = engine.next_note() {
            self.noted(note)?;
        }
        Ok(())
    }

    fn heard(&mut self, news: News) -> Result<(), Fault> {
        match news {
            News::Done(stretch) => self.done(*stretch),
            // A stop that was asked for is a stop, whatever the job says of it.
            News::Ended(_, Err(_)) if self.job.is_stop_requested() => return Err(Fault::Stopped),
            News::Ended(volume, Err(why)) => return Err(Fault::Job(Some(volume), why)),
            News::Merged(Ok((removed, added))) => {
                self.report.merged.removed += removed;
                self.report.merged.added += added;
            }
            News::Merged(Err(why)) => {
                self.listener.hears(format_args!("tables were not merged: {why}"));
            }
            News::Ended(_, Ok(())) | News::Wish(_) => {}
        }
        Ok(())
    }

    fn done(&mut self, stretch: Stretch) {
        let Stretch { done, proven, in_use, .. } = stretch;
        self.report.totals = self.report.totals.plus(&done.totals);
        self.report.troubles.extend(done.troubles);
        self.report.lost.extend(done.lost);
        self.report.proven = self.report.proven.plus(&proven);
        self.report.in_use.extend(in_use);
    }

    fn noted(&mut self, note: Note) -> Result<(), Fault> {
        match note {
            Note::Lost(fault) if self.before.is_none() || !fault.is_transient() => Err(Fault::Log(fault)),
            Note::Lost(fault) => {
                let now_ns = HostClock.boot_ns();
                if self.lost.is_none() {
                    self.listener.hears(format_args!("{fault}; trying to get it back"));
                    (self.said_ns, self.was_lost) = (now_ns, true);
                    self.job.enter(Phase::Opening);
                }
                let since_ns = self.lost.map_or(now_ns, |(since_ns, _)| since_ns);
                self.lost = Some((since_ns, fault));
                Ok(())
            }
            Note::Warning(fault) => {
                log::warn!("log: {fault}");
                Ok(())
            }
            Note::Seeking
            | Note::Waiting(_)
            | Note::SameNumber(_)
            | Note::Coordinates(_)
            | Note::Follows(..)
            | Note::Released => Ok(()),
            Note::Clock(_) => {
                log::warn!("clock: {note}");
                Ok(())
            }
        }
    }

    /// Whether the point is there and nothing is left to do. Gives up what will not come.
    fn is_over(&mut self, engine: &mut Engine) -> Result<bool, Fault> {
        let now_ns = HostClock.boot_ns();
        let node = engine.node();
        if let Some((held, until_ns)) = node.waits_for() {
            let left_ns = until_ns.saturating_sub(now_ns);
            if !self.listener.is_held(&held, left_ns, self.was_lost) {
                return Err(Fault::Log(held));
            }
        }
        let Some(view) = node.held_view() else {
            return self.is_worth_waiting(now_ns).map(|()| false);
        };
        self.lost = None;
        let state = &view.state;
        let newest = state.last_point(self.policy).map_or(BackupId(0), |point| point.backup);
        let before = match self.before {
            Some(before) => before,
            None => {
                self.listener.has_begun();
                self.report.kept_bytes = kept_bytes(state, self.policy);
                self.unfinished = state.running_of(self.policy).map(|(backup, _)| backup);
                self.before = Some(newest);
                newest
            }
        };
        self.job.enter(if newest > before { Phase::Finishing } else { Phase::BackingUp });
        if !node.is_idle() {
            return Ok(false);
        }
        if newest > before {
            self.report.backup = newest;
            self.report.resumed = self.unfinished == Some(newest);
            self.report.damaged = state.damage.points.contains(&newest);
            return Ok(true);
        }
        if state.running_of(self.policy).is_none() && self.commands < COMMANDS_MAX {
            // Whoever had the lease meanwhile has given it up.
            self.command(engine);
            return Ok(false);
        }
        let why = node.last_error().unwrap_or("the backup ended without a point").to_owned();
        Err(Fault::Job(None, why))
    }

    /// While the lease is lost: says so now and then, and not for ever.
    fn is_worth_waiting(&mut self, now_ns: u64) -> Result<(), Fault> {
        let Some((since_ns, fault)) = self.lost else { return Ok(()) };
        let lost_ns = now_ns.saturating_sub(since_ns);
        if lost_ns >= REGAIN_NS {
            return Err(Fault::Log(fault));
        }
        if now_ns.saturating_sub(self.said_ns) >= SAY_NS {
            self.said_ns = now_ns;
            self.listener.hears(format_args!(
                "waiting for the store, to take the repository's lock again: {} s so far, at most {} s (Ctrl-C ends it)",
                lost_ns / 1_000_000_000,
                REGAIN_NS / 1_000_000_000
            ));
        }
        Ok(())
    }

    fn leave(&mut self, engine: &mut Engine, poll: &mut Poll) {
        let job = self.job;
        if !leave(engine, poll, &|| job.is_stop_requested()) {
            self.listener.hears(format_args!(
                "could not release the repository's lock; the next command may wait 17 s for it"
            ));
        }
    }
}

/// Lets the lease go, and waits until what runs has ended. Checkpoints and deletes that are under way
/// have a lease time to end, unless the caller is in a hurry: the rest is the next holder's. Whether it was let
/// go.
pub(super) fn leave(engine: &mut Engine, poll: &mut Poll, is_in_hurry: &dyn Fn() -> bool) -> bool {
    let until_ns = HostClock.boot_ns().saturating_add(engine.lease_ns());
    let holds = |engine: &Engine| engine.node().coordinates();
    let mut has_let_go = !holds(engine);
    let mut turn = |engine: &mut Engine| {
        engine.turn(None);
        while engine.hear().is_some() {}
        while let Some(note) = engine.next_note() {
            has_let_go |= note == Note::Released;
        }
    };
    while holds(engine) && engine.is_keeping() && !is_in_hurry() && HostClock.boot_ns() < until_ns {
        wait(engine, poll, Some(until_ns));
        turn(engine);
    }
    let until_ns = HostClock.boot_ns().saturating_add(engine.lease_ns());
    engine.leave();
    turn(engine);
    while !engine.has_left() && HostClock.boot_ns() < until_ns {
        wait(engine, poll, Some(until_ns));
        turn(engine);
    }
    has_let_go
}

/// Until something has happened, or the node is due.
pub(super) fn wait(engine: &Engine, poll: &mut Poll, until_ns: Option<u64>) {
    let now_ns = HostClock.boot_ns();
    let due_ns = [engine.deadline(), until_ns, Some(now_ns.saturating_add(WAIT_NS))];
    let due_ns = due_ns.into_iter().flatten().min().unwrap_or(now_ns);
    let mut ready = Vec::new();
    if let Err(error) = poll.wait(Some(Duration::from_nanos(due_ns.saturating_sub(now_ns))), &mut ready) {
        log::warn!("engine: poll failed error={error}");
        HostClock.sleep(Duration::from_nanos(WAIT_NS / 16));
    }
}
