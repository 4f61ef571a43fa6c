//! The threads that carry requests out. What the node knows by itself is answered on a thread of its own, so that status, metrics and page do not
//! wait for a command, which may wait for a coordinator, or for the store.
//!
//! Invariants: what waits for a lane is bounded; beyond, a client is told to come back. Source: ours.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use windlass_agent::api::answer::Answer;
use windlass_agent::api::body::Given;
use windlass_agent::api::code;
use windlass_agent::api::request::Request;
use windlass_agent::api::route::{Body, Route, What};
use windlass_agent::work::entry::Role;
use windlass_hal::linux::poll::Waker;

use super::shared::Shared;
use super::{change, keep, read};
use crate::engine::desk::Untold;
use crate::engine::host::HostClock;
use crate::failure::Failure;

/// Threads for what may wait: one for a backup that is looked at, one for a file that is looked for, one more.
const SLOW_THREADS: usize = 3;
/// Requests that wait for a lane at most.
const WAITING_MAX: usize = 16;
/// How often what happened is looked for.
const TICK: Duration = Duration::from_secs(1);
/// Stack of a thread, in bytes: documents, and reads of the tables.
const STACK_BYTES: usize = 1 << 20;

/// Names a client: a place, and which client in that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientId {
    /// Which place.
    pub place: usize,
    /// Which client there.
    pub generation: u64,
}

/// A request to carry out.
pub struct Job {
    /// Whose it is.
    pub client: ClientId,
    /// Who asks: names with commas between.
    pub subject: String,
    /// What.
    pub request: Request,
    /// Which route that is.
    pub route: &'static Route,
    /// What its parts in braces are.
    pub named: Vec<(&'static str, String)>,
    /// The fields of its query, once it is known that a role lets it ask.
    pub query: Given,
    /// The same of its body, where it has fields.
    pub body: Given,
}

impl Job {
    /// What a part in braces is.
    pub fn part(&self, name: &str) -> &str {
        self.named.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value.as_str())
    }
}

/// What became of a request.
pub enum Outcome {
    /// This is the answer.
    Answer(Answer),
    /// It follows events from behind this one.
    Follow(Option<String>),
}

/// Whose request, and what became of it.
pub type Done = (ClientId, Outcome);

/// See the module.
pub struct Lanes {
    quick: SyncSender<Job>,
    slow: SyncSender<Job>,
}

/// Whether the node answers it by itself.
fn is_quick(what: What) -> bool {
    match what {
        What::Overview
        | What::PolicyPage
        | What::Style
        | What::OpenApi
        | What::Codes
        | What::Metrics
        | What::Node
        | What::Status
        | What::Events
        | What::Policies
        | What::Policy
        | What::Points
        | What::Retention
        | What::Jobs
        | What::Job
        | What::Roles
        | What::Garbage => true,
        What::Flush
        | What::Move
        | What::PolicySet
        | What::PolicyDelete
        | What::PolicyRename
        | What::Backup
        | What::Stop
        | What::PointHold
        | What::PointRelease
        | What::PointNote
        | What::PointTag
        | What::PointExpire
        | What::PointUndo
        | What::RetentionRun
        | What::List
        | What::Stat
        | What::RoleGrant
        | What::RoleRevoke
        | What::Log
        | What::GarbageRun => false,
    }
}

impl Lanes {
    /// Starts the threads; they end when this is dropped.
    ///
    /// # Errors
    /// No thread is left.
    pub fn start(shared: Arc<Shared>, done: Sender<Done>, waker: Waker) -> Result<Lanes, Failure> {
        let (quick, quick_jobs) = sync_channel(WAITING_MAX);
        let (slow, slow_jobs) = sync_channel::<Job>(WAITING_MAX);
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
            thread.spawn(run).map(drop).map_err(|error| Failure::at("cannot start a thread", error))
        };
        let slow_jobs = Arc::new(Mutex::new(slow_jobs));
        for _ in 0..SLOW_THREADS {
            let (shared, jobs) = (Arc::clone(&shared), Arc::clone(&slow_jobs));
            let (done, waker) = (done.clone(), waker.clone());
            spawn(
                "api-slow",
                Box::new(move || {
                    loop {
                        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(job) = job else { return };
                        tell(&shared, &done, &waker, job);
                    }
                }),
            )?;
        }
        spawn("api-quick", Box::new(move || run_quick(&shared, &quick_jobs, &done, &waker)))?;
        Ok(Lanes { quick, slow })
    }

    /// Gives a request to its lane.
    ///
    /// # Errors
    /// Too many wait there: the job comes back.
    pub fn give(&self, job: Job) -> Result<(), Box<Job>> {
        let lane = if is_quick(job.route.what) { &self.quick } else { &self.slow };
        lane.try_send(job).map_err(|refused| match refused {
            std::sync::mpsc::TrySendError::Full(job) | std::sync::mpsc::TrySendError::Disconnected(job) => {
                Box::new(job)
            }
        })
    }
}

fn run_quick(shared: &Shared, jobs: &Receiver<Job>, done: &Sender<Done>, waker: &Waker) {
    let mut looked_ns = 0;
    loop {
        match jobs.recv_timeout(TICK) {
            Ok(job) => tell(shared, done, waker, job),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now_ns = HostClock.boot_ns();
        if u128::from(now_ns.saturating_sub(looked_ns)) >= TICK.as_nanos() {
            looked_ns = now_ns;
            if shared.watch() {
                waker.wake();
            }
        }
    }
}

fn tell(shared: &Shared, done: &Sender<Done>, waker: &Waker, mut job: Job) {
    let outcome = carry_out(shared, &mut job).unwrap_or_else(|answer| Outcome::Answer(*answer));
    // Without a server there are no clients.
    if done.send((job.client, outcome)).is_ok() {
        waker.wake();
    }
}

/// A refusal is an answer too.
pub type Refused<T> = Result<T, Box<Answer>>;

/// A refusal.
pub fn refused<T>(code: code::Code, detail: &str) -> Refused<T> {
    Err(Box::new(Answer::problem(code, detail)))
}

/// The refusal of one who was told nothing.
pub fn untold(untold: Untold) -> Box<Answer> {
    Box::new(match untold {
        Untold::Busy => Answer::problem(code::BUSY, "the node has too much to do"),
        Untold::Late => Answer::problem(code::LATE, "the node did not answer in time"),
    })
}

fn carry_out(shared: &Shared, job: &mut Job) -> Refused<Outcome> {
    let policy = job.named.iter().find(|(name, _)| *name == "policy").map(|(_, policy)| policy.as_str());
    // What no command of the table is, no one else may.
    let role = job.route.entry().map_or(Role::Administrator, |entry| entry.role);
    if let Err(why) = shared.may(&job.subject, role, policy).map_err(untold)? {
        log::warn!("api: refused subject={} what={:?}", job.subject, job.route.what);
        return refused(code::ROLE, &why);
    }
    // What is about all policies is for those whose roles are.
    let is_of_all = matches!(
        job.route.what,
        What::Overview
            | What::Metrics
            | What::Policies
            | What::Roles
            | What::Log
            | What::Garbage
            | What::Events
    );
    if is_of_all && !shared.sees_all(&job.subject).map_err(untold)? {
        return refused(code::ROLE, "your roles are for some policies, and this is about all of them");
    }
    (job.query, job.body) = fields(job.route, &job.request)?;
    let job = &*job;
    if job.route.what == What::Events {
        return Ok(Outcome::Follow(job.request.field("last-event-id").map(str::to_owned)));
    }
    if is_quick(job.route.what) || job.request.method.is_safe() {
        return read::answer(shared, job).map(Outcome::Answer);
    }
    let changed = || {
        let answer = change::answer(shared, job);
        shared.forget();
        answer
    };
    let Some(key) = keep::key_of(&job.request)? else {
        return changed().map(Outcome::Answer);
    };
    let begun = shared.keep().begin(&job.subject, key, &job.request, HostClock.boot_ns());
    if let Some(answer) = begun {
        return Ok(Outcome::Answer(answer));
    }
    let answer = changed().unwrap_or_else(|answer| *answer);
    shared.keep().end(&job.subject, key, &answer);
    Ok(Outcome::Answer(answer))
}

/// The fields of a request's query and body, or why they are none.
fn fields(route: &'static Route, request: &Request) -> Refused<(Given, Given)> {
    let wrong = |why: String| Box::new(Answer::problem(code::FIELD, &why));
    let query = Given::of_query(route.query, &request.query).map_err(wrong)?;
    let is_json = || {
        let media = request.field("content-type").unwrap_or_default();
        media.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
    };
    match route.body {
        Body::None if request.body.is_empty() => Ok((query, Given::default())),
        Body::None => refused(code::FIELD, "this path takes no body"),
        _ if !is_json() => refused(code::MEDIA, "Content-Type is not application/json"),
        Body::Fields(args) => Ok((query, Given::of_body(args, &request.body).map_err(wrong)?)),
        Body::Document(_) => Ok((query, Given::default())),
    }
}
