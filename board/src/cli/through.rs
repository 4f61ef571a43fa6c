//! Commands through the agent of this machine: which agent, and a backup that its cluster does.
//!
//! ```text
//!  --alone ------------------------------> alone
//!  no agent at the default socket -------> alone        (at --socket: a failure)
//!  another repository than --repo -------> alone        (at --socket: a failure)
//!  else ---------------------------------> through it, with its repository and key file
//! ```
//!
//! Source: ours.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use windlass_agent::coordinator::status;
use windlass_agent::format::record::Record;
use windlass_agent::id::BackupId;
use windlass_agent::log::state::{self, State};
use windlass_agent::policy::check_name;
use windlass_agent::progress::{Phase, Progress};
use windlass_agent::units::{Counted, Human, HumanTime};
use windlass_agent::work::{Command, Reply};

use crate::cli::args::Backup;
use crate::cli::args::global::Global;
use crate::cli::output::Output;
use crate::cli::progress::Watcher;
use crate::control::client::Agent;
use crate::control::wire::Identity;
use crate::engine::commit::{self, Coordinator};
use crate::engine::host::HostClock;
use crate::engine::repository::Repository;
use crate::failure::{Exit, Failure};
use crate::repeats::without_numbers;
use crate::status::{Backup as Running, Point, Status, Trouble, Volume};
use crate::{logger, signal, text};

/// Between two looks at the status.
const LOOK: Duration = Duration::from_millis(500);
/// For how long a backup may be neither running nor queued nor a point, in nanoseconds, before the log is looked at, which has the last word.
const LOST_NS: u64 = 1_000_000_000;
/// For how long the agent may be gone, in nanoseconds: its service manager starts it again.
const GONE_NS: u64 = 60_000_000_000;

/// The agent of this machine.
pub struct Through {
    /// To ask it.
    pub agent: Agent,
    /// Who it is.
    pub identity: Identity,
}

impl Through {
    /// The agent that the options mean; `None` when the command is to act alone.
    pub fn find(global: &Global) -> Result<Option<Through>, Failure> {
        if global.alone {
            return Ok(None);
        }
        let Some(mut agent) = Agent::find(global.socket.as_deref())? else { return Ok(None) };
        let identity = agent.identify()?;
        match &global.repo {
            Some(url) if !identity.is_of(url) => {
                if global.socket.is_some() {
                    return Err(another(&identity, url));
                }
                log::info!(
                    "control: the agent here has another repository, acting alone url={}",
                    identity.repository
                );
                Ok(None)
            }
            _ => Ok(Some(Through { agent, identity })),
        }
    }

    /// Refuses a repository that is not the one of the agent at `--socket`, for a command that reads the repository itself. An agent
    /// that does not answer is no reason not to read.
    pub fn check(global: &Global) -> Result<(), Failure> {
        let (Some(socket), Some(url), false) = (&global.socket, &global.repo, global.alone) else {
            return Ok(());
        };
        let identity = Agent::find(Some(socket)).and_then(|agent| match agent {
            Some(mut agent) => agent.identify().map(Some),
            None => Ok(None),
        });
        match identity {
            Ok(Some(identity)) if !identity.is_of(url) => Err(another(&identity, url)),
            Ok(_) => Ok(()),
            Err(why) => {
                log::info!("control: the agent is not asked for its repository reason=\"{why}\"");
                Ok(())
            }
        }
    }
}

/// `--socket` means an agent of another repository than `--repo`.
fn another(identity: &Identity, url: &str) -> Failure {
    Failure::usage(format_args!(
        "the agent's repository is {}, not {url}; leave out --socket or --repo (WINDLASS_SOCKET, WINDLASS_REPO)",
        identity.repository
    ))
}

/// Commits records that `plan` makes from the log's state and the wall clock, through the agent if there is one.
pub fn submit<T>(
    global: &Global,
    through: Option<Through>,
    plan: impl FnOnce(&State, i64) -> Result<(Vec<Record>, T), Failure>,
) -> Result<T, Failure> {
    let repository = Repository::open(global)?;
    let mut agent = through.map(|through| through.agent);
    commit::submit(&repository, agent.as_mut().map(|agent| agent as &mut dyn Coordinator), plan)
}

/// `backup` through an agent: starts it, and shows how it goes until the point is there.
pub fn backup(
    mut through: Through,
    global: &Global,
    args: &Backup,
    output: &Output,
) -> Result<Exit, Failure> {
    check_name(&args.name).map_err(Failure::usage)?;
    if global.limit_up.is_some() || global.limit_down.is_some() || global.device_iops_max.is_some() {
        return Err(Failure::usage(
            "the agents' limits are those of policy and board profiles; set them there, or say --alone",
        ));
    }
    if args.paranoid {
        return Err(Failure::usage("agents open a sample of what they packed; for all of it say --alone"));
    }
    let begun_ns = HostClock.boot_ns();
    let before = Status::parse(&through.agent.status()?).map_err(Failure::new)?;
    let job = Arc::new(Progress::new());
    signal::watch(&job)?;
    let number = match through.agent.command(Command::Backup(args.name.clone()))? {
        Reply::Done(number) => number.map(|number| number.0),
        Reply::Status(_) | Reply::Refused(_) => None,
    };
    if args.no_wait {
        let which = number.map_or_else(|| "queued".to_owned(), |number| format!("backup {number} runs"));
        output.say(format_args!("{which}; `windlass status --watch` shows how it goes"));
        output.event("begun", json!({ "policy": args.name, "point": number }));
        return Ok(Exit::Done);
    }
    let wait = Wait {
        policy: &args.name,
        number,
        after: last_point(&before, &args.name),
        waits_for: String::new(),
        errors: before.errors,
        others: Vec::new(),
    };
    let ended = {
        let _watcher = Watcher::start(&job, *output)?;
        wait.run(&mut through, global, &job)?
    };
    let Some(point) = ended else {
        output.say(format_args!(
            "the backup of {} goes on without this command; `windlass status --watch` shows it",
            args.name
        ));
        return Ok(Exit::Failed);
    };
    let elapsed_ns = HostClock.boot_ns().saturating_sub(begun_ns);
    Ok(tell(&point, elapsed_ns, output))
}

fn last_point(status: &Status, policy: &str) -> u32 {
    status.points.iter().filter(|point| point.policy == policy).map(|point| point.backup).max().unwrap_or(0)
}

fn tell(point: &Point, elapsed_ns: u64, output: &Output) -> Exit {
    output.say(format_args!(
        "point {} of {}: {}, {} in {}",
        point.backup,
        text::printable(point.policy.as_bytes()),
        Counted(point.items, "item"),
        Human(point.bytes),
        HumanTime(elapsed_ns),
    ));
    let whole = point.status == "complete";
    let missing = point.volumes_missing_count;
    if missing > 0 {
        let named: Vec<String> = point.volumes_missing.iter().map(name).collect();
        let more = if named.len() as u64 == missing { "" } else { ", ..." };
        output.say(format_args!(
            "  the point is without {missing} of its volumes, which could not be opened: {}{more}",
            named.join(", ")
        ));
    }
    if point.status == "damaged" {
        output.say(format_args!("  {}", crate::outcome::DAMAGED));
    } else if !whole && (missing == 0 || point.faults > 0) {
        output.say("  some items could not be read in full; `windlass status` names the last ones");
    }
    output.event(
        "done",
        json!({
            "policy": point.policy, "point": point.backup, "status": point.status, "items": point.items,
            "bytes": point.bytes, "elapsed_ms": elapsed_ns / 1_000_000, "volumes_missing_count": missing,
            "volumes_missing": point.volumes_missing,
        }),
    );
    if whole { Exit::Done } else { Exit::Partial }
}

fn name(volume: &Volume) -> String {
    let number = || format!("volume {}", volume.volume);
    volume.device.as_ref().map_or_else(number, |device| text::printable(device.as_bytes()))
}

/// Waits for the point of a backup.
struct Wait<'a> {
    policy: &'a str,
    /// Its number, as far as it is known.
    number: Option<u32>,
    /// Points up to this number are older.
    after: u32,
    /// What it waits for, as far as that was told; without its numbers.
    waits_for: String,
    /// Errors that were told.
    errors: Vec<Trouble>,
    /// Other nodes that were up when the agent was heard last.
    others: Vec<u32>,
}

/// What a status says of the backup.
enum Seen<'a> {
    Running(&'a Running),
    /// Nothing goes on of it, before it is asked for again.
    Stopped,
    Queued,
    Point(&'a Point),
    /// Nobody coordinates: nothing is known.
    Unknown,
    Nowhere,
}

impl Wait<'_> {
    /// Until the point is there, or somebody wants no more of it: `None`.
    fn run(
        mut self,
        through: &mut Through,
        global: &Global,
        job: &Progress,
    ) -> Result<Option<Point>, Failure> {
        let mut sure_ns = HostClock.boot_ns();
        job.enter(Phase::Opening);
        loop {
            if job.stop_flag().load(std::sync::atomic::Ordering::Relaxed) {
                return Ok(None);
            }
            let status = match through.agent.status() {
                Ok(json) => Status::parse(&json).map_err(Failure::new)?,
                Err(failure) => match self.reconnect(global, job, &failure)? {
                    Some(agent) => {
                        through.agent = agent;
                        continue;
                    }
                    None => return Ok(None),
                },
            };
            let now_ns = HostClock.boot_ns();
            let is_other = |node: &&crate::status::Node| node.up && node.node != through.identity.node;
            self.others = status.nodes.iter().filter(is_other).map(|node| node.node).collect();
            self.tell_errors(&status);
            self.tell_waiting(&status);
            match self.look(&status) {
                Seen::Point(point) => return Ok(Some(point.clone())),
                Seen::Running(running) => {
                    self.number = Some(running.backup);
                    show(running, job);
                    sure_ns = now_ns;
                }
                Seen::Queued | Seen::Unknown => sure_ns = now_ns,
                Seen::Stopped => return Err(self.ended(&status)),
                Seen::Nowhere if now_ns.saturating_sub(sure_ns) > LOST_NS => {
                    if let Some(point) = self.lost(&status, global)? {
                        return Ok(Some(point));
                    }
                    sure_ns = now_ns;
                }
                Seen::Nowhere => {}
            }
            HostClock.sleep(LOOK);
        }
    }

    /// The agent ended, or does not answer: says so, and what becomes of the backup, and waits for one that is started again. `None`: a signal
    /// wants no more of it.
    fn reconnect(
        &self,
        global: &Global,
        job: &Progress,
        failure: &Failure,
    ) -> Result<Option<Agent>, Failure> {
        if job.is_stop_requested() {
            return Ok(None);
        }
        let (fate, patience_s) = (self.fate(), GONE_NS / 1_000_000_000);
        logger::say(format_args!("windlass: {failure}: {fate}; this command waits {patience_s} s for it"));
        let until_ns = HostClock.boot_ns().saturating_add(GONE_NS);
        while HostClock.boot_ns() < until_ns {
            if let Ok(agent) = Agent::required(global.socket.as_deref()) {
                logger::say("windlass: the agent of this node runs again");
                return Ok(Some(agent));
            }
            HostClock.sleep(LOOK);
            if job.is_stop_requested() {
                return Ok(None);
            }
        }
        Err(Failure::new(format_args!(
            "{failure}; it was not started again for {patience_s} s: {fate}; when it runs again, `windlass backup {}` joins it",
            self.policy
        )))
    }

    /// What becomes of the backup without this node's agent.
    fn fate(&self) -> String {
        let nodes: Vec<String> = self.others.iter().map(u32::to_string).collect();
        match nodes.len() {
            0 => format!(
                "no other node was up, so nothing goes on of the backup of {} until it runs again",
                self.policy
            ),
            1 => format!(
                "the backup of {} goes on at node {}, as far as that can read its volumes",
                self.policy, nodes[0]
            ),
            _ => format!(
                "the backup of {} goes on at nodes {}, as far as they can read its volumes",
                self.policy,
                nodes.join(", ")
            ),
        }
    }

    fn look<'a>(&self, status: &'a Status) -> Seen<'a> {
        let mut running = status.backups.iter();
        let mut points = status.points.iter();
        let ours = |number: u32, policy: &str| self.number.map_or(policy == self.policy, |own| own == number);
        if let Some(running) = running.find(|running| ours(running.backup, &running.policy)) {
            return match (running.stopped, status.is_held()) {
                (false, _) => Seen::Running(running),
                (true, true) => Seen::Stopped,
                // The node that was asked may have read that a while ago.
                (true, false) => Seen::Nowhere,
            };
        }
        let new = |point: &&Point| ours(point.backup, &point.policy) && point.backup > self.after;
        if let Some(point) = points.find(new) {
            return Seen::Point(point);
        }
        if status.queue.iter().any(|queued| queued == self.policy) {
            Seen::Queued
        } else if status.is_held() || status.is_resting() {
            Seen::Nowhere
        } else {
            Seen::Unknown
        }
    }

    /// Whoever waits is told what for, when that is something else than before.
    fn tell_waiting(&mut self, status: &Status) {
        let ours = |running: &&Running| running.policy == self.policy && !running.stopped;
        let waits = status.backups.iter().find(ours).and_then(|running| running.waits.as_deref());
        let why = status.why_none().or(waits).unwrap_or_default();
        let kind = without_numbers(why);
        if kind != self.waits_for && !why.is_empty() {
            logger::say(format_args!("windlass: waiting: {}", text::printable(why.as_bytes())));
        }
        self.waits_for = kind;
    }

    fn tell_errors(&mut self, status: &Status) {
        let ours = |trouble: &&Trouble| trouble.policy.as_ref().is_none_or(|policy| policy == self.policy);
        for trouble in status.errors.iter().filter(ours).filter(|trouble| !self.errors.contains(trouble)) {
            let node = trouble.node.map_or_else(String::new, |node| format!("node {node}: "));
            logger::say(format_args!("windlass: {node}{}", text::printable(trouble.what.as_bytes())));
        }
        self.errors.clone_from(&status.errors);
    }

    /// No node knows of it any more. The log has the last word: the node that was asked may have read it some time ago.
    /// `None`: by the log it goes on.
    fn lost(&self, seen: &Status, global: &Global) -> Result<Option<Point>, Failure> {
        let state =
            Repository::open(global).and_then(|repository| repository.view()).map(|view| view.state).ok();
        let ours = |number: u32, policy: &str| match self.number {
            Some(own) => own == number,
            None => number > self.after && policy == self.policy,
        };
        let logged = state.iter().flat_map(|state| state.points.values());
        if let (Some(state), Some(point)) =
            (&state, logged.rev().find(|point| ours(point.backup.0, &point.policy)))
        {
            return serde_json::from_value(status::point(state, point)).map(Some).map_err(Failure::new);
        }
        let is_gone = |state: &State| state.policies.get(self.policy).is_none_or(|policy| policy.removed);
        if state.as_ref().is_some_and(is_gone) {
            return Err(Failure::new(format_args!(
                "the policy {0} was removed while its backup ran, which ended without a point; its points stay",
                self.policy
            )));
        }
        let running = state.as_ref().and_then(|state| state.running_of(self.policy));
        let goes_on = |(backup, running): (BackupId, &state::Running)| {
            ours(backup.0, &running.policy) && !running.is_stopped
        };
        if running.is_some_and(goes_on) && !seen.is_held() {
            return Ok(None);
        }
        Err(self.ended(seen))
    }

    /// It ended without a point.
    fn ended(&self, seen: &Status) -> Failure {
        let ours = |trouble: &&Trouble| trouble.policy.as_ref().is_none_or(|policy| policy == self.policy);
        let why = seen
            .errors
            .iter()
            .rfind(ours)
            .map_or_else(String::new, |last| format!("; the last error: {}", last.what));
        Failure::new(format_args!(
            "the backup of {0} ended without a point{why}; `windlass backup {0}` goes on where it was",
            self.policy
        ))
    }
}

/// Copies what a status says of a backup to where people look.
fn show(running: &Running, job: &Progress) {
    job.enter(Phase::BackingUp);
    job.items_total.set(running.items_total);
    job.items_done.set(running.items_done);
    job.bytes_total.set(running.bytes_total);
    job.bytes_done.set(running.bytes_done);
}
