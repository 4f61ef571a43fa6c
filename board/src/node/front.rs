//! What an agent answers while it boots: who it is, and what it waits for. Source: ours.

use std::collections::BTreeMap;

use windlass_agent::coordinator::status::{self, Here, NoCoordinator};
use windlass_agent::id::{Epoch, NodeId};
use windlass_agent::log::state::State;
use windlass_agent::work::{Command, Present, Reply};

use crate::control::server::{CLIENTS_MAX, ClientId, Served, Server};
use crate::control::wire::{Answer, Identity, Request};
use crate::engine::host::HostClock;

/// See the head of this file.
pub struct Front {
    server: Server,
    identity: Identity,
    present: Present,
    since_ns: i64,
    waits_for: String,
}

impl Front {
    /// Over a socket that listens; `present` is what the node has.
    pub fn new(server: Server, identity: Identity, present: Present) -> Front {
        let waits_for = "this agent opens the repository".to_owned();
        Front { server, identity, present, since_ns: HostClock.wall_ns(), waits_for }
    }

    /// The agent waits for this.
    pub fn waits_for(&mut self, why: String) {
        self.waits_for = why;
    }

    /// Answers all that has been asked; nobody is waited for.
    pub fn serve(&mut self) {
        let now_ns = HostClock.boot_ns();
        while self.server.accept(now_ns).is_some() {}
        for place in 0..CLIENTS_MAX {
            if let Some(client) = self.server.at(place) {
                self.serve_one(client, now_ns);
            }
        }
        while let Some(client) = self.server.expire(now_ns) {
            self.server.close(client);
        }
    }

    fn serve_one(&mut self, client: ClientId, now_ns: u64) {
        loop {
            let answer = match self.server.serve(client, now_ns) {
                Served::Waiting => return,
                Served::Over => return self.server.close(client),
                Served::Request(Request::Identify) => Answer::Identity(Box::new(self.identity.clone())),
                Served::Request(Request::Lines(after)) => self.server.lines_for(client, after),
                Served::Request(Request::Command(Command::Status)) => {
                    Answer::Reply(Reply::Status(self.status()))
                }
                Served::Request(Request::Command(_)) => {
                    Answer::refused(format_args!("{}; try again when it is up", self.waits_for))
                }
            };
            self.server.answer(client, &answer);
        }
    }

    fn status(&self) -> String {
        let here = Here { node: NodeId(self.identity.node), ..Here::default() };
        let none = NoCoordinator {
            here: &here,
            epoch: Epoch(0),
            resting: false,
            why: Some(&self.waits_for),
            since_ns: Some(self.since_ns),
            age_s: None,
            present: &self.present,
            contacts: &BTreeMap::new(),
            clock_ahead_ns: None,
            left: &BTreeMap::new(),
            again_s: None,
        };
        status::without(&none, &State::default())
    }

    /// The socket and those who are connected, for the agent that is up.
    pub fn into_server(self) -> Server {
        self.server
    }
}
