//! The lease of a node: claimed, got, given back, lost. A coordinator is there exactly as long as the lease is. Source: ours.

use super::{GRANT_BEATS, Node, Note, Ticket, errand};
use crate::backplane::message::Message;
use crate::coordinator::{self, Coordinator, Now};
use crate::format::slot::Sealer;
use crate::id::{Epoch, Slot};
use crate::log::call::{Answer, Call, CallId};
use crate::log::fault::LogFault;
use crate::log::keys;
use crate::log::writer::{self, Writer, WriterOptions};

impl<S: Sealer + Clone> Node<S> {
    pub(super) fn seek(&mut self) {
        let machine = self.next_machine();
        let seed = self.nonces.seed();
        let (identity, sealer) = (self.config.identity, self.config.sealer.clone());
        // An agent goes on unattended, so it must not pass over a lost end; a command line names it to its user.
        let options = WriterOptions { keeps_to_end: self.errand.is_none(), ..self.config.options };
        let writer = match self.view.head {
            Slot(0) => Writer::new(identity, sealer, options, seed),
            _ => Writer::with_view(identity, sealer, options, seed, self.view.clone()),
        };
        self.writer = Some((machine, writer));
        self.note(Note::Seeking);
    }

    pub(super) fn settle_writer(&mut self, now_ns: u64, wall_ns: i64) {
        loop {
            let Some((machine, writer)) = &mut self.writer else { return };
            let machine = *machine;
            let Some(action) = writer.next_action() else { return };
            match action {
                writer::Action::Call { id, call } => {
                    self.call(Ticket { machine, id }, call);
                }
                writer::Action::Wait { held, until_ns } => {
                    self.health.keeps_from_lease(held);
                    self.look_ns = now_ns.saturating_add(errand::LOOK_NS);
                    self.held = Some((held, until_ns));
                    let is_twin = self.is_twin(&held);
                    self.note(if is_twin { Note::SameNumber(held) } else { Note::Waiting(held) });
                }
                writer::Action::Ready { epoch, .. } => self.ready(now_ns, wall_ns, epoch),
                writer::Action::Committed { .. } => {
                    let now = Now { ns: now_ns, wall_ns, state: &writer.view().state };
                    self.coordinator.iter_mut().for_each(|coordinator| coordinator.committed(now));
                }
                writer::Action::Released { .. } => self.released(now_ns),
                writer::Action::Lost(fault) => {
                    self.health.keeps_from_lease(fault);
                    self.note(Note::Lost(fault));
                    self.step_down(now_ns);
                }
                writer::Action::Warning(fault) => self.note(Note::Warning(fault)),
            }
        }
    }

    pub(super) fn ready(&mut self, now_ns: u64, wall_ns: i64, epoch: Epoch) {
        let Some((_, writer)) = &self.writer else { return };
        let settings = coordinator::Settings {
            me: self.me(),
            peers: self.config.peers.clone(),
            beat_ns: self.config.options.timing.beat_ns,
            rest_ns: self.config.rest_ns,
            merges: self.config.merges,
            room: self.config.room,
            errand: self.errand.clone(),
            checks: self.config.options.checks,
        };
        let now = Now { ns: now_ns, wall_ns, state: &writer.view().state };
        let mut coordinator = Coordinator::new(settings, epoch, now);
        for &node in &self.up {
            coordinator.set_up(now, node, true);
        }
        self.coordinator = Some(coordinator);
        self.follow.epoch = self.follow.epoch.max(epoch);
        if self.follow.away_until_ns == u64::MAX {
            // It was asked to leave while it claimed.
            self.releasing = Some(None);
        }
        self.health.is_well();
        (self.follow.again_ns, self.held) = (None, None);
        // A command has read the log a moment ago.
        let is_agent = self.errand.is_none() && self.view.state.epoch.0 > 0;
        self.grant_first = Some(self.view.state.epoch).filter(|_| is_agent);
        self.grant_ns = if is_agent { now_ns } else { self.grant_due(now_ns) };
        self.grant_look = None;
        self.note(Note::Coordinates(epoch));
        self.announce(now_ns);
    }

    /// Looks now and then whether the grant that this node holds is still in the store, or one that was gone is there again.
    pub(super) fn look_for_grant(&mut self, now_ns: u64) {
        let own = self.writer.as_ref().filter(|_| self.coordinator.is_some());
        let own = own.map(|(_, writer)| writer.epoch());
        let Some(epoch) = self.emptied.or(own) else { return };
        if now_ns < self.grant_ns || self.grant_look.is_some() {
            return;
        }
        // After a claim: the one before it, which is in the log that this node has read.
        let first = self.grant_first.take().unwrap_or(epoch);
        let machine = self.next_machine();
        self.grant_look = Some((machine, first));
        self.grant_ns = self.grant_due(now_ns);
        self.call(Ticket { machine, id: CallId(0) }, Call::Get { key: keys::epoch(first) });
    }

    fn grant_due(&self, now_ns: u64) -> u64 {
        now_ns.saturating_add(GRANT_BEATS.saturating_mul(self.config.options.timing.beat_ns))
    }

    /// A grant is never deleted: without it the store is not what it was, and what is committed there is in no log that another could read.
    pub(super) fn grant_seen(&mut self, now_ns: u64, epoch: Epoch, answer: &Answer) {
        match answer {
            Answer::Absent if self.coordinator.is_some() => {
                self.health.keeps_from_lease(LogFault::Emptied);
                self.note(Note::Lost(LogFault::Emptied));
                self.emptied = Some(epoch);
                self.step_down(now_ns);
            }
            Answer::Body(_) if self.emptied == Some(epoch) => {
                self.emptied = None;
                self.health.is_well();
            }
            Answer::Absent | Answer::Body(_) | Answer::Done | Answer::Keys(_) | Answer::Fault(_) => {}
        }
    }

    /// Says to all that this node coordinates, itself included.
    pub(super) fn announce(&mut self, now_ns: u64) {
        self.announce_ns = now_ns.saturating_add(self.config.options.timing.beat_ns);
        let announcement = Message::Announce { resting: false, successor: None };
        for node in self.up.clone() {
            self.send(node, announcement.clone());
        }
        self.loopback.push_back(announcement);
    }

    pub(super) fn released(&mut self, now_ns: u64) {
        let successor = self.releasing.take().flatten();
        self.note(Note::Released);
        let announcement = Message::Announce { resting: true, successor };
        for node in self.up.clone() {
            self.send(node, announcement.clone());
        }
        self.step_down(now_ns);
        self.follow.rest(now_ns, successor);
        if successor == Some(self.me()) {
            self.follow.take_next();
        }
    }

    /// The lease is gone, and the coordinator with it.
    pub(super) fn step_down(&mut self, now_ns: u64) {
        if let Some((_, writer)) = self.writer.take() {
            self.take_view(writer.view().clone(), writer.read_ns());
        }
        if let (Some(errand), Some(coordinator)) = (&mut self.errand, &self.coordinator) {
            errand.own = coordinator.backup_of(&errand.policy).or(errand.own);
        }
        self.held = None;
        self.coordinator = None;
        self.releasing = None;
        self.loopback.clear();
        let me = self.me();
        self.follow.stepped_down(now_ns, me);
    }
}
