//! Commands of people on this machine, until a coordinator has answered them. Source: ours.

use std::collections::BTreeMap;

use super::{Action, Node};
use crate::backplane::message::{Message, REPLY_BYTES_MAX, SUBMIT_BYTES_MAX};
use crate::backplane::session::{QUEUE_BYTES_MAX, QUEUE_FRAMES_MAX};
use crate::coordinator::{Now, PROBES_NODE_MAX, access};
use crate::format::slot::Sealer;
use crate::id::{Epoch, NodeId};
use crate::work::{Command, Reply};

/// Commands that wait at once; more are refused.
const REQUESTS_MAX: usize = 64;
/// Large ones, which fill a frame or whose answer does, that are at the coordinator at once: they and their answers fit what a connection
/// holds, with room for all else. The next goes when one is answered.
const LARGE_OUT_MAX: usize = 4;
/// Others that are at the coordinator at once.
const SMALL_OUT_MAX: usize = 16;
const _: () = assert!(LARGE_OUT_MAX * REPLY_BYTES_MAX <= QUEUE_BYTES_MAX / 2);
const _: () = assert!(LARGE_OUT_MAX * SUBMIT_BYTES_MAX <= QUEUE_BYTES_MAX / 2);
const _: () = assert!(LARGE_OUT_MAX + SMALL_OUT_MAX + PROBES_NODE_MAX <= QUEUE_FRAMES_MAX / 2);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Request {
    client: u64,
    command: Command,
    until_ns: u64,
    sent: Option<(NodeId, Epoch)>,
}

impl Request {
    fn is_large(&self) -> bool {
        matches!(self.command.plain(), Command::Status | Command::Submit(_))
    }
}

/// Open commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Requests {
    open: BTreeMap<u64, Request>,
    next: u64,
    patience_ns: u64,
    refused: Vec<u64>,
}

impl Requests {
    /// Numbers go on from `first`, which no other start of the node has: an answer to a request of an earlier start is dropped.
    pub(super) fn new(patience_ns: u64, first: u64) -> Requests {
        Requests { open: BTreeMap::new(), next: first, patience_ns, refused: Vec::new() }
    }

    pub(super) fn add(&mut self, now_ns: u64, client: u64, command: Command) {
        if self.open.len() >= REQUESTS_MAX {
            return self.refused.push(client);
        }
        self.next = self.next.wrapping_add(1);
        let until_ns = now_ns.saturating_add(self.patience_ns);
        self.open.insert(self.next, Request { client, command, until_ns, sent: None });
    }

    /// Takes the request that was answered out: whose it is, and what; `None` for one that nothing waits for any more.
    pub(super) fn answered(&mut self, request: u64) -> Option<(u64, Command)> {
        self.open.remove(&request).map(|request| (request.client, request.command))
    }

    /// Takes the request of a client out that does not wait for it any more: its number, and whom it was sent to.
    fn left(&mut self, client: u64) -> Option<(u64, Option<NodeId>)> {
        let number = *self.open.iter().find(|(_, request)| request.client == client)?.0;
        self.open.remove(&number).map(|request| (number, request.sent.map(|(holder, _)| holder)))
    }

    /// A connection broke: what went there may not have arrived.
    pub(super) fn disconnected(&mut self, node: NodeId) {
        for request in self.open.values_mut() {
            request.sent = request.sent.filter(|(holder, _)| *holder != node);
        }
    }

    /// Whether a node must coordinate for one of them to be answered.
    pub(super) fn need_coordinator(&self) -> bool {
        self.open.values().any(|request| *request.command.plain() != Command::Status)
    }

    /// How many wait.
    pub(super) fn waits(&self) -> usize {
        self.open.len()
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        self.open.values().map(|request| request.until_ns).min()
    }
}

impl<S: Sealer + Clone> Node<S> {
    /// A client left: what no coordinator has is not carried out. This node's own takes back what it has not begun.
    pub(super) fn client_left(&mut self, now_ns: u64, wall_ns: i64, client: u64) {
        let Some((number, sent)) = self.requests.left(client) else { return };
        match sent {
            None => log::info!("control: a client left; its command is not carried out"),
            Some(holder) => {
                log::info!("control: a client left; its command is at the coordinator node={holder}")
            }
        }
        let asker = (self.me(), number);
        // It may be on its way to this node itself.
        let waits =
            |message: &Message| matches!(message, Message::Request { request, .. } if *request == number);
        self.loopback.retain(|message| !waits(message));
        if let (Some(coordinator), Some((_, writer))) = (&mut self.coordinator, &self.writer)
            && sent == Some(asker.0)
        {
            coordinator.client_left(Now { ns: now_ns, wall_ns, state: &writer.view().state }, asker);
        }
    }

    /// Sends what is not sent yet, answers what can be answered here, and gives up what has waited too long.
    pub(super) fn settle_requests(&mut self, now_ns: u64) {
        for client in std::mem::take(&mut self.requests.refused) {
            let why = format!("{REQUESTS_MAX} commands wait already; try again");
            self.actions.push_back(Action::Reply { client, reply: Reply::Refused(why) });
        }
        let me = self.me();
        let epoch = self.follow.epoch;
        let known = self.reachable_holder();
        let waits_in_vain = known.is_none() && !self.requests.open.is_empty();
        let why_none = if waits_in_vain { self.why_none(now_ns) } else { None };
        // What this node answers by itself, it refuses by itself.
        let asked = self.requests.open.iter().filter(|_| known.is_none());
        let refusal = |request: &Request| access::refusal(&self.view().state, &request.command);
        let mut refused: BTreeMap<u64, String> =
            asked.filter_map(|(&number, request)| Some((number, refusal(request)?))).collect();
        let (mut send, mut done) = (Vec::new(), Vec::new());
        let mut room = (LARGE_OUT_MAX, SMALL_OUT_MAX);
        if let Some(holder) = known {
            for request in self.requests.open.values().filter(|r| r.sent == Some((holder, epoch))) {
                let left = if request.is_large() { &mut room.0 } else { &mut room.1 };
                *left = left.saturating_sub(1);
            }
        }
        for (&number, request) in &mut self.requests.open {
            if let Some(holder) = known {
                let left = if request.is_large() { &mut room.0 } else { &mut room.1 };
                if request.sent != Some((holder, epoch)) && *left > 0 {
                    *left -= 1;
                    request.sent = Some((holder, epoch));
                    send.push((holder, number, request.command.clone()));
                }
            } else if *request.command.plain() == Command::Status && self.has_read {
                done.push((number, refused.remove(&number)));
                continue;
            }
            if now_ns >= request.until_ns
                && request.command.may_take_long()
                && request.sent == known.map(|holder| (holder, epoch))
                && known.is_some()
            {
                // The coordinator has it, and is alive: it looks at volumes, or waits for workers, and answers in the end.
                request.until_ns = now_ns.saturating_add(self.requests.patience_ns);
            }
            if now_ns >= request.until_ns {
                let why = match self.follow.holder {
                    Some(holder) if request.sent.is_some() => format!(
                        "node {holder} coordinates (epoch {epoch}), has the command, and did not answer; it may still carry it out: \
                         look at `windlass status`, then try again"
                    ),
                    Some(holder) if known.is_some() => format!(
                        "node {holder} coordinates (epoch {epoch}), and did not take the command: it answers others; try again"
                    ),
                    _ if let Some(why) = &why_none => format!(
                        "no node coordinates that node {me} can reach: {why}; the command is not carried out; try again"
                    ),
                    _ => "no node holds the lease, and this one could not take it: is the store there? \
                          `windlass repo probe` tells; the command is not carried out"
                        .to_owned(),
                };
                done.push((number, Some(why)));
            }
        }
        for (number, why) in done {
            let Some((client, command)) = self.requests.answered(number) else { continue };
            let reply = match why {
                Some(why) => Reply::Refused(why),
                None => {
                    let status = self.own_status(now_ns);
                    Reply::Status(access::shown(&self.view().state, &command, status))
                }
            };
            self.actions.push_back(Action::Reply { client, reply });
        }
        for (holder, request, command) in send {
            self.send(holder, Message::Request { request, command });
        }
    }
}
