//! The log, read for what waits for it: probes, jobs and merges start from a state that has their policy and tables. Source: ours.

use std::sync::Arc;

use super::{Action, Node, Note, Ticket, Waiting};
use crate::backplane::message::Message;
use crate::format::slot::Sealer;
use crate::log::fault::LogFault;
use crate::log::replay::{Replay, View};

impl<S: Sealer + Clone> Node<S> {
    /// What waits for the log goes on when it is read far enough; else the log is read.
    pub(super) fn settle_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        if self.view().head < self.needed || !self.has_read && self.writer.is_none() {
            return self.read_log();
        }
        let state = Arc::new(self.view().state.clone());
        while let Some(waiting) = self.waiting.pop_front() {
            let state = Arc::clone(&state);
            self.actions.push_back(match waiting {
                Waiting::Probe { ask, policy, volumes } => Action::Probe { ask, policy, volumes, state },
                Waiting::Start(assignment) => Action::Start { assignment, state },
                Waiting::Merge(order) => Action::Merge { order, state },
            });
        }
    }

    pub(super) fn read_log(&mut self) {
        if self.reader.is_some() {
            return;
        }
        let machine = self.next_machine();
        let (cluster, sealer) = (self.config.identity.cluster, self.config.sealer.clone());
        let options = self.config.options.replay;
        let reader = if self.view.head.0 == 0 {
            Replay::from_start(cluster, sealer, options, 1)
        } else {
            Replay::from_view(cluster, sealer, options, 1, self.view.clone())
        };
        self.reader = Some((machine, reader));
        self.ask_for_log();
    }

    /// Passes on what the reader asks for: also from where nothing else follows that would.
    pub(super) fn ask_for_log(&mut self) {
        while let Some((machine, reader)) = &mut self.reader
            && let Some((id, call)) = reader.next_call()
        {
            let ticket = Ticket { machine: *machine, id };
            self.call(ticket, call);
        }
    }

    pub(super) fn settle_reader(&mut self) {
        self.ask_for_log();
        let Some((_, reader)) = &self.reader else { return };
        match reader.result() {
            None => {}
            Some(Ok(_)) => {
                if let Some((_, reader)) = self.reader.take() {
                    // That the end is lost is said once.
                    let was_lost = self.view.lost_end.is_some();
                    let is_news = |fault: &LogFault| !was_lost || !matches!(fault, LogFault::LostEnd { .. });
                    reader.warnings().filter(is_news).for_each(|fault| self.note(Note::Warning(fault)));
                    self.take_view(reader.into_view(), Some(self.now_ns));
                    self.health.has_read();
                }
            }
            Some(Err(_)) if self.looks() => self.reader = None,
            Some(Err(fault)) => {
                self.reader = None;
                self.note(Note::Warning(fault));
                self.health.keeps_from_lease(fault);
                self.log_is_unreadable(fault);
            }
        }
    }

    /// `read_ns`: when it was read or written, if it was since this node began to have it.
    pub(super) fn take_view(&mut self, view: View, read_ns: Option<u64>) {
        self.has_read = true;
        self.health.read_ns = self.health.read_ns.max(read_ns);
        self.follow.epoch = self.follow.epoch.max(view.state.epoch);
        if view.head >= self.view.head {
            self.view = view;
        }
    }

    /// What waits for the log fails; the coordinator asks again, or asks another node.
    pub(super) fn log_is_unreadable(&mut self, fault: LogFault) {
        self.has_read = true;
        for waiting in std::mem::take(&mut self.waiting) {
            match waiting {
                Waiting::Probe { ask, volumes, .. } => {
                    let failed = volumes.into_iter().map(|volume| (volume, fault.to_string())).collect();
                    self.tell_coordinator(Message::Probed { ask, found: Vec::new(), failed });
                }
                Waiting::Start(assignment) => self.role.ended(assignment.id, Err(fault.to_string())),
                Waiting::Merge(order) => self.role.merged(order.id, Err(fault.to_string())),
            }
        }
    }
}
