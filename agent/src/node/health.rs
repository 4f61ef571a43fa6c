//! What a node without a coordinator says of it: since when, what it is, and whom it can reach. For people; nothing is decided by it.
//!
//! Source: ours.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Node;
use crate::coordinator::Contact;
use crate::coordinator::status::{self, NoCoordinator};
use crate::format::slot::{Author, HolderKind, Sealer, Who};
use crate::id::NodeId;
use crate::log::call::Answer;
use crate::log::fault::LogFault;
use crate::store::{StoreFault, StoreFaultKind};

/// See the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// Peers.
    pub contacts: BTreeMap<NodeId, Contact>,
    /// Since when no node within reach is known to coordinate, in nanoseconds since 1970.
    none_since_ns: Option<i64>,
    /// What kept this node from the lease last, with the store's words if it was the store.
    trouble: Option<(LogFault, Option<String>)>,
    /// What the store says, while its last answer is a failure.
    store: Option<String>,
    /// Its own words for the answer that comes next.
    words: Option<String>,
}

impl Health {
    /// What the store said, for the answer that comes next.
    pub(super) fn store_said(&mut self, words: String) {
        self.words = Some(words);
    }

    /// An answer of the store. That something is there, or is not, is a good one.
    pub(super) fn answered(&mut self, answer: &Answer) {
        let words = self.words.take();
        self.store = match answer {
            Answer::Fault(StoreFaultKind::Exists | StoreFaultKind::NotFound) => None,
            Answer::Fault(kind) => Some(words.unwrap_or_else(|| kind_text(*kind))),
            Answer::Body(_) | Answer::Absent | Answer::Done | Answer::Keys(_) => None,
        };
    }

    pub(super) fn keeps_from_lease(&mut self, fault: LogFault) {
        let words = self.store.clone().filter(|_| matches!(fault, LogFault::Store { .. }));
        self.trouble = Some((fault, words));
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

    /// Whether a node is known to coordinate, and for how long none was heard that did.
    pub(super) fn look(&mut self, wall_ns: i64, is_held: bool, silence_ns: u64) {
        let since = wall_ns.saturating_sub_unsigned(silence_ns);
        self.none_since_ns = if is_held { None } else { self.none_since_ns.or(Some(since)) };
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

    /// A connection with a peer changed, or a dial of one failed.
    pub fn set_contact(&mut self, node: NodeId, contact: Contact) {
        let since_ns = self.health.contacts.get(&node).filter(|old| old.up == contact.up);
        let since_ns = since_ns.map_or(contact.since_ns, |old| old.since_ns);
        self.health.contacts.insert(node, Contact { since_ns, ..contact });
    }

    /// The status as long as no node within reach coordinates.
    pub(super) fn own_status(&self, now_ns: u64) -> String {
        let why = self.why_none(now_ns);
        let none = NoCoordinator {
            me: self.me(),
            epoch: self.follow.epoch,
            resting: self.follow.is_resting(),
            why: why.as_deref(),
            since_ns: self.health.none_since_ns,
            present: &self.config.present,
            contacts: &self.health.contacts,
            clock_ahead_ns: self.wall.ahead_ns(),
        };
        status::without(&none, &self.view().state)
    }

    /// Why no node coordinates; `None`: there is nothing to do.
    pub(super) fn why_none(&self, now_ns: u64) -> Option<String> {
        if let Some(words) = &self.health.store {
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
