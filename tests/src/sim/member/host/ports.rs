//! What a node asks for, as the simulated world does it: the ports of the real driver.
//!
//! Checks that an order bears the epoch of its lease, and that each message survives its encoding. Source: ours; `drive::node`.

use super::super::super::options::SECOND;
use super::super::super::{Fact, Output};
use super::super::{Client, Wire};
use super::{Host, Job, Merge, Phase, Purpose, Timer};
use std::sync::Arc;
use windlass_agent::backplane::message::Message;
use windlass_agent::coordinator::ASK_BITS;
use windlass_agent::drive::node::Ports;
use windlass_agent::gc::types::Order;
use windlass_agent::id::{BackupId, Epoch, NodeId, Slot, VolumeId};
use windlass_agent::log::call::Call;
use windlass_agent::log::state::State;
use windlass_agent::node::{Event, Note, Ticket};
use windlass_agent::work::{Assignment, AssignmentId, MergeOrder, Reply};
use windlass_agent::worker::backup::Progress;
use windlass_agent::worker::looks::Look;

/// The epoch of the coordinator that gave an order, where the order says so.
fn made_under(message: &Message) -> Option<Epoch> {
    match message {
        Message::Assign(assignment) => Some(assignment.id.epoch),
        Message::Merge(order) => Some(order.id.epoch),
        Message::Probe { ask, .. } => Some(Epoch(ask >> ASK_BITS)),
        _ => None,
    }
}

impl Ports for Host {
    fn send(&mut self, to: NodeId, epoch: Epoch, slot: Slot, message: &Message) {
        let to = to.0 as usize - 1;
        if let Some(made) = made_under(message)
            && made != epoch
        {
            self.fail(format!("an order of epoch {made} is sent as one of epoch {epoch}: {message:?}"));
        }
        match message {
            Message::Assign(assignment) => {
                if self.lease_end_ns.is_none_or(|end| end <= self.now) {
                    self.fail(format!("L1: {:?} is sent without a lease", assignment.id));
                }
                let fact = Fact::Assigned { epoch: assignment.id.epoch, at_ns: self.now };
                self.outputs.push_back(Output::Fact(fact));
            }
            Message::Fenced => self.fenced = Some(to),
            _ => {}
        }
        // As the real one: what does not survive its encoding would be lost there.
        let mut body = Vec::new();
        message.emit(&mut body);
        match Message::parse(message.kind(), &body) {
            Ok(message) => {
                let message = Wire { epoch, slot, message: Box::new(message) };
                self.outputs.push_back(Output::Send { to, message });
            }
            Err(fault) => {
                self.fail(format!("a message does not survive its encoding: {fault:?}: {message:?}"))
            }
        }
    }

    fn call(&mut self, ticket: Ticket, call: Call) {
        self.issue(Purpose::Log(ticket), call);
    }

    fn probe(&mut self, ask: u64, policy: &str, volumes: Vec<VolumeId>, state: Arc<State>) {
        self.acted += 1;
        if self.options.weather.slow_open_ns > 0 {
            self.looks.add(Look { ask, policy: policy.to_owned(), volumes, with: state });
            return if self.opening.is_none() {
                self.open_next()
            };
        }
        let probed = self.looked(ask, volumes, &state);
        self.soon(2 * SECOND, Timer::Event(Box::new(probed)));
    }

    fn start(&mut self, assignment: Assignment, state: Arc<State>) {
        self.acted += 1;
        if self.merge.is_some() {
            return self.fail(format!("{:?} is started while a merge runs", assignment.id));
        }
        if let Some(job) = &self.job {
            return self.fail(format!("{:?} is started while {:?} runs", assignment.id, job.assignment.id));
        }
        if state.last_backup < assignment.backup {
            return self.fail(format!("{assignment:?} is started, and the log was not read so far"));
        }
        let device = state.volumes.get(&assignment.volume.volume).map(|volume| volume.device.clone());
        let disk = device.and_then(|device| self.shared.borrow().disk_of(&device)).unwrap_or(0);
        let (at, progress) = (assignment.from, Progress::default());
        self.job = Some(Job {
            assignment,
            disk,
            at,
            phase: Phase::Opening,
            progress,
            state,
            data: None,
            look_ns: u64::MAX,
            flushing: false,
        });
        self.soon(SECOND, Timer::Job(assignment.id));
    }

    fn collect(&mut self, order: Order, state: Arc<State>, seen: Slot) {
        let wishes = self.steps.add(order, state, seen);
        self.grant(wishes);
    }

    fn merge(&mut self, order: MergeOrder, state: Arc<State>) {
        self.acted += 1;
        if self.job.is_some() || self.merge.is_some() {
            return self.fail(format!("{:?} is merged while another job runs", order.id));
        }
        // This node may know more than the coordinator did: of backups that began since, the order has nothing.
        let all = state.segments.get(&order.volume).map(|list| list.as_slice()).unwrap_or_default();
        let merged = || all.iter().filter(|segment| order.segments.contains(&segment.id));
        let is_mixed = |backup: &BackupId| {
            let own = merged().filter(|segment| segment.is_only_of(*backup)).count();
            own > 0 && own < merged().count()
        };
        if let Some(backup) = state.running.keys().find(|backup| is_mixed(backup)) {
            return self.fail(format!(
                "C4: {:?} merges rows of backup {backup}, which runs, with those of others: {:?}",
                order.id, order.segments
            ));
        }
        let id = order.id;
        self.merge = Some(Merge { order, state, left: 0, added: Vec::new() });
        let read_ns = self.shared.borrow().read_ns;
        self.soon(read_ns, Timer::Merge(id));
    }

    fn stop(&mut self, id: AssignmentId) {
        self.acted += 1;
        if self.is_merging(id) {
            self.merge = None;
            let result = Err("stopped on request".to_owned());
            return self.soon(SECOND, Timer::Event(Box::new(Event::Merged { id, result })));
        }
        if self.job.as_ref().is_some_and(|job| job.assignment.id == id) {
            self.end(Ok(()));
        }
    }

    fn committed(&mut self, id: AssignmentId) {
        self.acted += 1;
        if let Some(fact) = self.reported.remove(&id) {
            return self.outputs.push_back(Output::Fact(fact));
        }
        match &self.job {
            Some(job) if job.assignment.id == id && job.phase == Phase::Ending => return,
            Some(job) if job.assignment.id == id => {}
            _ => return self.fail(format!("{id:?} is committed, and no such job runs")),
        }
        let Some(fact) = self.counts() else {
            return self.fail(format!("{id:?} is committed, and nothing was reported"));
        };
        self.outputs.push_back(Output::Fact(fact));
        self.goes_on();
    }

    fn flush(&mut self, id: AssignmentId) {
        self.acted += 1;
        let Some(job) = self.job.as_mut().filter(|job| job.assignment.id == id) else { return };
        match &mut job.data {
            Some(data) => {
                data.flush();
                job.flushing = true;
                self.after(0, Timer::Job(id));
            }
            // It keeps nothing back.
            None => self.soon(SECOND, Timer::Event(Box::new(Event::Flushed { id }))),
        }
    }

    fn divide(&mut self, _: &str, _: u32) {}

    fn reply(&mut self, client: u64, reply: Reply) {
        let number = client;
        let Some((client, command)) = self.clients.remove(&number) else {
            return self.fail(format!("client {number} is answered twice, or never asked"));
        };
        let (mut begun, mut changed, mut stopped) = (None, None, None);
        match reply {
            Reply::Done(Some(backup)) => match client {
                Client::Backup(policy) => begun = Some((policy, backup)),
                Client::Stop(policy) => stopped = Some((policy, backup)),
                Client::Change(_) | Client::Other => {}
            },
            Reply::Done(None) => {
                if let Client::Change(body) = client {
                    changed = Some(body);
                }
            }
            Reply::Status(_) => return,
            Reply::Refused(why) => {
                if why.contains("try again") || why.contains("could not take it") {
                    self.outputs.push_back(Output::Fact(Fact::Closed { client: number }));
                    return self.unanswered.push((client, command));
                }
            }
        }
        self.outputs.push_back(Output::Fact(Fact::Answered { client: number, stopped, begun, changed }));
    }

    fn note(&mut self, note: Note) {
        self.notes.push(note);
    }
}
