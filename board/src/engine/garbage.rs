//! One garbage run by a cluster of one: a node without peers in this process claims the lease, writes that a run is wanted, and leaves when
//! it has ended. The same machines as an agent has.
//!
//! Does not: print. Source: ours; `windlass_agent::coordinator`.

use std::sync::Arc;

use windlass_agent::format::garbage::{Done, GarbageNews};
use windlass_agent::format::record::Record;
use windlass_agent::format::slot::HolderKind;
use windlass_agent::id::VolumeId;
use windlass_agent::log::replay::View;
use windlass_agent::log::state::State;
use windlass_agent::node::{Node, Note};
use windlass_agent::policy::Policy;
use windlass_agent::progress::Progress;
use windlass_agent::work::{Command, Present, Reply};
use windlass_hal::buf::Pool;
use windlass_hal::linux::poll::Poll;

use super::backup::{Fault, Listener, leave, wait};
use super::node::{Engine, config};
use super::post::Post;
use super::volumes::{Opened, Volumes};
use super::worker::Work;
use crate::engine::host::HostClock;
use crate::failure::Failure;

/// Descriptors reported in one wait: there is none but the waker's.
const EVENTS_MAX: usize = 4;

/// No volumes: garbage reads none.
pub struct NoVolumes;

impl Volumes for NoVolumes {
    fn titles(&self) -> Vec<String> {
        Vec::new()
    }

    fn open(
        &self,
        id: VolumeId,
        _: &State,
        _: &Policy,
        _: &windlass_agent::drive::job::Settings,
        _: &[Pool],
    ) -> Result<Opened, Failure> {
        Err(Failure::at(format_args!("volume {id}"), "a garbage run opens no volumes"))
    }
}

/// How a run ended, and the log as it was then.
pub struct Ended {
    /// What it did, or why it did not end.
    pub result: Result<Done, Fault>,
    /// The log.
    pub view: View,
}

/// Gives back what no point needs; `view` is the log as of a moment ago. Returns when the lease is let go, however it went.
///
/// # Errors
/// The system gives no threads, descriptors or random bytes.
pub fn run(
    work: Work,
    view: View,
    wanted: GarbageNews,
    job: &Arc<Progress>,
    listener: &mut dyn Listener,
) -> Result<Ended, Failure> {
    let mut poll = Poll::new(EVENTS_MAX).map_err(|error| Failure::at("cannot make a poll", error))?;
    let (post, letters) = Post::new(poll.waker());
    let (_, boot) = work.author;
    let present = Present { boot, weight: 1, ..Present::default() };
    let config = config(&work, HolderKind::Command, Vec::new(), present, u64::MAX)?;
    let node = Node::for_garbage(HostClock.boot_ns(), config, view);
    let mut engine = Engine::start(node, work, None, &post, letters)?;
    let result = until_the_end(&mut engine, &mut poll, wanted, job, listener);
    if !leave(&mut engine, &mut poll, &|| job.is_stop_requested()) {
        listener.hears(format_args!(
            "could not release the repository's lock; the next command may wait 17 s for it"
        ));
    }
    let view = engine.node().view().clone();
    engine.end();
    Ok(Ended { result, view })
}

/// Shows how far a run is: names that are on their way out, and those of them that are gone.
pub fn show(job: &Progress, state: &State) {
    let left = (state.garbage.condemned.len() + state.retired.len()) as u64;
    let total = job.items_total.get().max(left);
    job.items_total.set(total);
    job.items_done.set(total - left);
}

fn until_the_end(
    engine: &mut Engine,
    poll: &mut Poll,
    wanted: GarbageNews,
    job: &Progress,
    listener: &mut dyn Listener,
) -> Result<Done, Fault> {
    let record = Record::Garbage(wanted);
    engine.command(1, Command::Submit(vec![record]));
    let (mut is_begun, mut is_wanted) = (false, false);
    loop {
        engine.turn(None);
        while engine.hear().is_some() {}
        while let Some((_, reply)) = engine.next_reply() {
            match reply {
                Reply::Refused(why) => return Err(Fault::Refused(why)),
                Reply::Done(_) => is_wanted = true,
                Reply::Status(_) => {}
            }
        }
        while let Some(note) = engine.next_note() {
            match note {
                Note::Lost(fault) => return Err(Fault::Log(fault)),
                Note::Warning(fault) => log::warn!("log: {fault}"),
                _ => {}
            }
        }
        if job.is_stop_requested() {
            return Err(Fault::Stopped);
        }
        if let Some((held, until_ns)) = engine.node().waits_for() {
            let left_ns = until_ns.saturating_sub(HostClock.boot_ns());
            if !listener.is_held(&held, left_ns, false) {
                return Err(Fault::Log(held));
            }
        }
        let node = engine.node();
        if let Some(view) = node.held_view() {
            if !std::mem::replace(&mut is_begun, true) {
                listener.has_begun();
            }
            show(job, &view.state);
            let garbage = &view.state.garbage;
            if is_wanted && garbage.wanted.is_none() && node.is_idle() {
                return Ok(garbage.done.unwrap_or_default());
            }
        }
        wait(engine, poll, None);
    }
}
