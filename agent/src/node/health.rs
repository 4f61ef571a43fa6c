//! What a node without a coordinator says of it: since when, what it is, and whom it can reach. For people; nothing is decided by it.
//!
//! Source: ours.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Node, Ticket};
use crate::coordinator::Contact;
use crate::coordinator::status::{self, Here, NoCoordinator};
use crate::format::slot::{Author, HolderKind, Sealer, Who};
use crate::id::NodeId;
use crate::log::call::Answer;
use crate::log::fault::LogFault;
use crate::store::{StoreFault, StoreFaultKind};

/// A request of the log that waits for its answer for so long is named in the status, in nanoseconds: longer than a store takes that is well.
const SILENT_NS: u64 = 4_000_000_000;
/// How long it is said that another machine with this node's number was met, in nanoseconds: a quarter of an hour, in which it would be met
/// again if it were still there.
const NAMESAKE_NS: u64 = 900_000_000_000;

/// See the head of this file. Times are this node's boot time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// Peers.
    pub contacts: BTreeMap<NodeId, Contact>,
    /// When the log was read last, or written.
    pub read_ns: Option<u64>,
    /// Since when no node within reach is known to coordinate, though one should.
    none_since_ns: Option<u64>,
    /// None was wanted when it was looked last.
    was_idle: bool,
    /// What kept this node from the lease last, with the store's words if it was the store.
    trouble: Option<(LogFault, Option<String>)>,
    /// What the store says, while its last answer is a failure, and since when they are.
    store: Option<(String, u64)>,
    /// The same of uploads and downloads.
    data: Option<(String, u64)>,
    /// Requests of the log without an answer, and when they were made.
    open: BTreeMap<Ticket, u64>,
    /// Its own words for the answer that comes next.
    words: Option<String>,
    /// Another machine with this node's number: when it was met last, and where.
    namesake: Option<(u64, String)>,
}

impl Health {
    /// A request of the log goes out.
    pub(super) fn asks(&mut self, now_ns: u64, ticket: Ticket) {
        self.open.insert(ticket, now_ns);
    }

    /// What the store said, for the answer that comes next.
    pub(super) fn store_said(&mut self, words: String) {
        self.words = Some(words);
    }

    /// An answer of the store. That something is there, or is not, is a good one.
    pub(super) fn answered(&mut self, now_ns: u64, ticket: Ticket, answer: &Answer) {
        let (words, since) = (self.words.take(), self.store.take().map_or(now_ns, |(_, since)| since));
        self.open.remove(&ticket);
        self.store = match answer {
            Answer::Fault(StoreFaultKind::Exists | StoreFaultKind::NotFound) => None,
            Answer::Fault(kind) => Some((words.unwrap_or_else(|| kind_text(*kind)), since)),
            Answer::Body(_) | Answer::Absent | Answer::Done | Answer::Keys(_) => None,
        };
    }

    /// What is wrong with the store, as this node sees it, and since when.
    fn store_trouble(&self, now_ns: u64) -> Option<(String, u64)> {
        if let Some(trouble) = &self.store {
            return Some(trouble.clone());
        }
        let oldest = self.open.values().min().copied().unwrap_or(now_ns);
        let silent_s = now_ns.saturating_sub(oldest) / 1_000_000_000;
        if now_ns.saturating_sub(oldest) >= SILENT_NS {
            return Some((format!("a request has waited for its answer for {silent_s} s"), oldest));
        }
        self.data.clone()
    }

    pub(super) fn keeps_from_lease(&mut self, fault: LogFault) {
        let words = self.store.as_ref().map(|(words, _)| words.clone());
        self.trouble = Some((fault, words.filter(|_| matches!(fault, LogFault::Store { .. }))));
    }

    /// A node coordinates, or did and let the lease go.
    pub(super) fn is_well(&mut self) {
        self.trouble = None;
    }

    /// The log was read.
    pub(super) fn has_read(&mut self) {
        // Another node's lease is none of its faults.
        self.trouble.take_if(|(fault, _)| !matches!(fault, LogFault::Held { .. }));
    }

    /// What kept this node from the lease last.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.as_ref().map(|(fault, words)| match words {
            Some(words) => format!("the store: {words}"),
            None => fault.to_string(),
        })
    }

    /// Whether a node is known to coordinate, or all is well without one; when one was known last to coordinate.
    pub(super) fn look(&mut self, now_ns: u64, is_held: bool, is_idle: bool, known_ns: u64) {
        let was_idle = std::mem::replace(&mut self.was_idle, is_idle && !is_held);
        let is_well = is_held || is_idle && self.store.is_none() && self.trouble.is_none();
        // Before that none was wanted.
        let since_ns = if was_idle { now_ns } else { known_ns };
        self.none_since_ns = if is_well { None } else { self.none_since_ns.or(Some(since_ns)) };
    }

    /// Another machine with this node's number, if one was met lately.
    fn namesake(&self, now_ns: u64) -> Option<String> {
        let (met_ns, place) = self.namesake.as_ref()?;
        let ago_ns = now_ns.saturating_sub(*met_ns);
        (ago_ns < NAMESAKE_NS).then(|| {
            format!(
                "another machine has this node's number ({place}, {} s ago); give one of the two another number, and a certificate for it",
                ago_ns / 1_000_000_000
            )
        })
    }

    fn of(&self, node: NodeId) -> String {
        let trouble = self.contacts.get(&node).and_then(Contact::trouble);
        trouble.map_or_else(String::new, |why| format!(", and this node does not reach it: {why}"))
    }
}

fn kind_text(kind: StoreFaultKind) -> String {
    let text = StoreFault::new(kind, "", "", "").to_string();
    text.trim_start_matches([' ', ':']).to_owned()
}

impl<S: Sealer + Clone> Node<S> {
    /// What the store said, in its own words, about the call whose answer comes next.
    pub fn store_said(&mut self, words: String) {
        self.health.store_said(words);
    }

    /// What is wrong with the store, as this node sees it, and since when, on its boot clock.
    pub fn store_trouble(&self) -> Option<(String, u64)> {
        self.health.store_trouble(self.now_ns)
    }

    /// A connection with a peer changed, or a dial of one failed.
    pub fn set_contact(&mut self, node: NodeId, contact: Contact) {
        let since_ns = self.health.contacts.get(&node).filter(|old| old.up == contact.up);
        let since_ns = since_ns.map_or(contact.since_ns, |old| old.since_ns);
        self.health.contacts.insert(node, Contact { since_ns, ..contact });
    }

    /// What uploads and downloads of this node wait for, while the store fails, and since when, on this node's boot clock.
    pub fn set_data_trouble(&mut self, trouble: Option<(String, u64)>) {
        self.health.data = trouble;
    }

    /// Another machine with this node's number was met.
    pub fn meet_namesake(&mut self, met_ns: u64, place: String) {
        self.health.namesake = Some((met_ns, place));
    }

    /// A time of this node's boot clock on its wall clock, as that is now.
    fn on_wall(&self, at_ns: u64) -> i64 {
        self.own_wall_ns.saturating_sub_unsigned(self.now_ns.saturating_sub(at_ns))
    }

    /// What this node sees itself.
    pub(super) fn here(&self) -> Here {
        let trouble = self.health.store_trouble(self.now_ns);
        let store = trouble.map(|(words, since_ns)| (words, self.on_wall(since_ns)));
        Here { node: self.me(), store, namesake: self.health.namesake(self.now_ns) }
    }

    /// The status as long as no node within reach coordinates.
    pub(super) fn own_status(&self, now_ns: u64) -> String {
        let why = self.why_none(now_ns);
        let here = self.here();
        let written_ns = self.writer.as_ref().and_then(|(_, writer)| writer.read_ns());
        let age_ns = self.health.read_ns.max(written_ns).map(|read_ns| now_ns.saturating_sub(read_ns));
        let none = NoCoordinator {
            here: &here,
            epoch: self.follow.epoch,
            resting: self.follow.is_resting(),
            why: why.as_deref(),
            since_ns: self.health.none_since_ns.map(|since_ns| self.on_wall(since_ns)),
            age_s: age_ns.map(|age_ns| age_ns / 1_000_000_000),
            present: &self.config.present,
            contacts: &self.health.contacts,
            clock_ahead_ns: self.wall.ahead_ns(),
            left: &self.left,
            again_s: self.follow.again_ns.map(|at| at.saturating_sub(now_ns).div_ceil(1_000_000_000)),
        };
        status::without(&none, &self.view().state)
    }

    /// Why no node coordinates; `None`: there is nothing to do.
    pub(super) fn why_none(&self, now_ns: u64) -> Option<String> {
        if self.emptied.is_some() {
            return Some(LogFault::Emptied.to_string());
        }
        if let Some((words, _)) = &self.health.store {
            return Some(format!("the store: {words}"));
        }
        let follow = &self.follow;
        if let Some((fault, _)) = &self.health.trouble {
            return Some(match *fault {
                LogFault::Held { epoch, who, watched_ns, .. } if who.is_command() => {
                    command_text(who, epoch.0, watched_ns)
                }
                LogFault::Held { epoch, holder: Some(holder), who, watched_ns, .. } => {
                    self.held_text(holder, who, epoch.0, watched_ns)
                }
                _ => self.health.trouble()?,
            });
        }
        if let Some(holder) = follow.holder {
            let mut why = format!("node {holder} held the repository's lock{}", self.health.of(holder));
            if let Some(due) = self.seek_due() {
                let left_s = due.saturating_sub(now_ns) / 1_000_000_000;
                let _ = write!(why, "; this node tries to take over in {left_s} s");
            }
            return Some(why);
        }
        if self.writer.is_some() {
            return Some("this node takes the repository's lock".to_owned());
        }
        if !self.has_read {
            return Some("this node reads the log".to_owned());
        }
        if follow.is_resting() || self.seek_due().is_none() {
            return None;
        }
        Some("a node takes over within seconds".to_owned())
    }

    fn held_text(&self, holder: Author, who: Who, epoch: u64, watched_ns: u64) -> String {
        let runs = watched_ns > 0;
        let me = self.config.identity.me;
        if holder.node != me.node {
            let far = self.health.of(holder.node);
            return if runs {
                format!(
                    "node {} holds the repository's lock (epoch {epoch}) and still runs{far}",
                    holder.node
                )
            } else {
                format!(
                    "waits whether node {} still runs, which held the repository's lock (epoch {epoch}){far}",
                    holder.node
                )
            };
        }
        if holder == me {
            return format!("waits for the lock that this node lost (epoch {epoch}) to run out");
        }
        if runs {
            format!(
                "another machine has this node's number, {}, and holds the repository's lock (epoch {epoch}{}); give one of the two another \
                 number, and a certificate for it",
                me.node,
                if who.kind == HolderKind::Unsaid { String::new() } else { format!(", {who}") }
            )
        } else {
            format!("waits for the lock of this node's earlier start (epoch {epoch}) to run out")
        }
    }

    /// Who holds the lease under this node's number and is not this start of it, and still runs.
    pub(super) fn is_twin(&self, fault: &LogFault) -> bool {
        let me = self.config.identity.me;
        matches!(fault, LogFault::Held { holder: Some(holder), watched_ns: 1.., .. }
            if holder.node == me.node && holder.boot != me.boot)
            && !fault.is_of_command()
    }
}

/// A command has the lease, under whatever number.
fn command_text(who: Who, epoch: u64, watched_ns: u64) -> String {
    if watched_ns > 0 {
        format!(
            "{who} holds the repository's lock (epoch {epoch}) and still runs; what waits here begins when it ends"
        )
    } else {
        format!(
            "waits for {who}, which has the repository's lock (epoch {epoch}), to end, or to be seen not to run"
        )
    }
}
