//! A whole node: the real `Node` with the product's own loop around it, jobs, and users who want things at random times.
//!
//! | module | what |
//! |---|---|
//! | this one | inputs of the world to events of the node; users; what the node claims |
//! | `host` | the node's ports, and the jobs of most seeds: they store and report, and say in the object of what stretch it is |
//! | `data` | the jobs of one seed in 20: the real machine, over the bytes of a small image; points are read back at the end (I8) |
//! | `plan` | volumes, policies, profiles, all drawn from the seed |
//!
//! | rule | when it is checked |
//! |---|---|
//! | L1 | an assignment is sent: the lease has not ended, and no later epoch exists (the second where clocks keep within the bound) |
//! | C1 | a worker is told "accepted": the log has the stretch and names all objects of the report |
//! | fences | an order of an older epoch than the node has seen: nothing is done, and `Fenced` goes back |
//! | one job | a job starts: none runs, and the log was read far enough |
//! | I10 | every command is answered in its time; after the faults every backup ends and the lease is let go |
//! | I12 | after each step: what waits in the node is bounded |
//!
//! And all that `check` and `pieces` say of the log. Users change policies, start and stop backups, move the lease, ask for the status,
//! stop nodes for good reason, and write to volumes that nobody reads. Source: ours.

mod data;
mod host;
mod plan;

use std::cell::RefCell;
use std::rc::Rc;

use windlass_agent::backplane::message::Message;
use windlass_agent::drive::node::turn;
use windlass_agent::format::record::{PolicyChange, Record};
use windlass_agent::format::slot::PlainForTests;
use windlass_agent::id::{Boot, Epoch, NodeId, Slot, VolumeId};
use windlass_agent::log::replay::View;
use windlass_agent::log::state::State;
use windlass_agent::node::{Config, Event, Node, Note};
use windlass_agent::work::{Command, Present};

use super::options::{Mutation, Options, SECOND};
use super::store::{Shelf, identity};
use super::{Birth, Fact, Input, Output, Tenant, Verdict};
use host::{Host, Timer};
use plan::{Ground, Shared};

/// Commands that a node's users have open at once.
const CLIENTS_MAX: usize = 6;
/// Things that may wait in a node: orders, commands, assignments and reports of all nodes.
const QUEUED_MAX: usize = 256;

/// A frame's header and body.
#[derive(Clone, Debug)]
pub struct Wire {
    /// Highest epoch that the sender has seen.
    pub epoch: Epoch,
    /// Last slot that it has applied.
    pub slot: Slot,
    /// The body; in a box, because every event would be as large.
    pub message: Box<Message>,
}

/// What somebody waits for.
#[derive(Clone, Debug)]
pub enum Client {
    /// A backup of this policy.
    Backup(String),
    /// This body of a policy.
    Change(Vec<u8>),
    /// Anything else.
    Other,
}

/// The machine.
pub struct Member {
    node: Node<PlainForTests>,
    host: Host,
    up: Vec<bool>,
    next_client: u64,
    finishing: bool,
    /// It ends when it has let the lease go.
    leaving: bool,
    gone: bool,
    /// The last backup of each policy is asked for.
    asked_last: bool,
}

impl Tenant for Member {
    type Message = Wire;
    type Shared = Shared;
    const RECONNECTS: bool = true;

    fn shared(options: &Options) -> Shared {
        Rc::new(RefCell::new(Ground::draw(options)))
    }

    fn start(birth: Birth, shared: &Shared) -> Member {
        let Birth { node, boot, mut prng, options, finish, now_ns } = birth;
        let ground = shared.borrow();
        let mut writer = options.writer;
        match options.mutation {
            Mutation::AcceptDone => writer.checks.named = false,
            Mutation::AcceptEarly => writer.checks.commit_first = false,
            Mutation::ObeyOld => writer.checks.fence = false,
            Mutation::AssignWithoutLease => writer.checks.lease = false,
            _ => {}
        }
        let mut seed = [0; 32];
        seed.as_chunks_mut::<8>().0.iter_mut().for_each(|chunk| *chunk = prng.next_u64().to_le_bytes());
        let config = Config {
            identity: identity(node as u32 + 1, boot),
            peers: (0..options.nodes)
                .filter(|&peer| peer != node)
                .map(|peer| NodeId(peer as u32 + 1))
                .collect(),
            sealer: PlainForTests,
            options: writer,
            present: Present {
                boot: Boot(boot),
                weight: ground.profiles[node].weight,
                lanes: ground.profiles[node].lanes,
                volumes: ground.devices_of(node),
                ..Present::default()
            },
            rest_ns: ground.rest_ns,
            merges: ground.merges,
            room: ground.room,
            request_ns: ground.request_ns,
            seed,
        };
        drop(ground);
        let mut member = Member {
            node: Node::new(now_ns, config),
            host: Host::new(node, boot, options, prng, Rc::clone(shared), now_ns),
            up: vec![false; options.nodes],
            next_client: 0,
            finishing: finish,
            leaving: false,
            gone: false,
            asked_last: false,
        };
        // What it wants at once; nothing can be wrong with it yet.
        let _ = member.give(None);
        member
    }

    fn died(shared: &Shared, node: usize) {
        shared.borrow_mut().reading.remove(&node);
    }

    /// Waits of the coordinator: a probe without an answer, a worker without a report, a node that failed, a holder that is alone; and some
    /// hundred pieces.
    fn finish_bound_ns(options: &Options) -> u64 {
        let piece = options.slow_uplink_ns
            + 4 * SECOND
            + 12 * options.store_latency_ns
            + options.writer.timing.lease_ns;
        2 * (1200 * SECOND + 30 * options.writer.timing.lease_ns + 100 * piece)
    }

    fn verify(shared: &Shared, shelf: &Shelf, view: &View) -> Verdict<u64> {
        if shared.borrow().data { data::verify(shared, shelf, view) } else { Ok(0) }
    }

    fn unfinished(view: &View) -> Vec<String> {
        view.state.running.values().map(|running| running.policy.clone()).collect()
    }

    fn handle(&mut self, now_ns: u64, input: Input<Wire>) -> Verdict<()> {
        self.host.now = now_ns;
        match input {
            Input::Answer { id, answer } => {
                if let Some(event) = self.host.answered(id, answer) {
                    self.give(Some(event))?;
                }
            }
            Input::Frame { from, message } => self.frame(from, message)?,
            Input::Peer { node, up } => self.peer(node, up)?,
            Input::Wake => {}
            Input::Work => self.work()?,
            Input::Finish => self.finishing = true,
            Input::Urge(policies) => policies.into_iter().try_for_each(|policy| self.backup(policy))?,
        }
        while let Some(timer) = self.host.next_timer() {
            let event = match timer {
                Timer::Event(event) => {
                    if matches!(*event, Event::Ended { .. }) {
                        self.host.ended();
                    }
                    Some(*event)
                }
                Timer::Job(id) => self.host.job_moves(id),
                Timer::Merge(id) => self.host.merge_moves(id),
                Timer::Swept(id) => self.host.swept(id),
                Timer::Again { id, key, body, tries } => {
                    self.host.again(id, key, body, tries);
                    None
                }
            };
            if event.is_some() {
                self.give(event)?;
            }
        }
        if self.node.deadline().is_some_and(|due| due <= now_ns) {
            self.give(None)?;
        }
        if self.finishing && !self.asked_last {
            self.asked_last = true;
            self.host.unanswered.clear();
            let policies = self.host.shared.borrow().policies.len();
            (0..policies).try_for_each(|policy| self.backup(format!("p{policy}")))?;
        }
        if self.finishing {
            for client in std::mem::take(&mut self.host.unanswered) {
                if let Client::Backup(policy) = client {
                    self.backup(policy)?;
                }
            }
        }
        Ok(())
    }

    fn next_output(&mut self) -> Option<Output<Wire>> {
        self.host.outputs.pop_front()
    }

    fn deadline(&self) -> Option<u64> {
        self.node.deadline().into_iter().chain(self.host.deadline()).min()
    }

    fn lease_end_ns(&self) -> Option<u64> {
        // Once its yield is under way it acts on the lease no more.
        self.node.lease_end_ns().filter(|_| !self.node.is_releasing())
    }

    fn view(&self) -> &View {
        self.node.view()
    }

    fn is_idle(&self) -> bool {
        self.asked_last && self.host.is_idle() && self.node.lease_end_ns().is_none() && !self.leaving
    }
}

impl Member {
    fn head(&self) -> Option<Slot> {
        self.node.held_view().map(|view| view.head)
    }

    /// One event through the product's own loop, and what the node claims by what it did.
    fn give(&mut self, event: Option<Event>) -> Verdict<()> {
        let before = self.head();
        let now = self.host.now;
        // An assignment that follows from this event is judged by the lease as it was: answers can only prolong it.
        self.host.lease_end_ns = self.node.lease_end_ns();
        self.node.set_uploaded(self.host.uploaded());
        turn(&mut self.node, &mut self.host, now, now as i64, event);
        if let Some(fault) = self.host.fault.take() {
            return Err(fault);
        }
        self.claims(before);
        if self.leaving && !self.gone && self.node.lease_end_ns().is_none() {
            self.gone = true;
            self.host.outputs.push_back(Output::Exit);
        }
        let waits = self.node.waits();
        if waits > QUEUED_MAX {
            return Err(format!("I12: {waits} things wait in node {}", self.host.node + 1));
        }
        Ok(())
    }

    fn claims(&mut self, before: Option<Slot>) {
        let held = self.node.held_view().map(|view| (view.head, view.digest));
        let mut facts = Vec::new();
        if let (Some(before), Some((slot, digest))) = (before, held)
            && slot > before
        {
            facts.push(Fact::Committed { slot, digest, marker: 0 });
        }
        for note in std::mem::take(&mut self.host.notes) {
            let view = self.node.view();
            match (note, held) {
                (Note::Coordinates(epoch), Some((slot, digest))) => {
                    facts.push(Fact::Ready { epoch, slot, digest });
                }
                (Note::Released, _) => {
                    if view.state.yielded.is_some() && view.state.holder.node == self.node.me() {
                        facts.push(Fact::Released { slot: view.head, digest: view.digest });
                    }
                }
                (Note::Lost(fault), _) => facts.push(Fact::Lost { fault, marker: None }),
                (Note::Warning(fault), _) => facts.push(Fact::Warned { fault }),
                (
                    Note::Seeking
                    | Note::Waiting(_)
                    | Note::SameNumber(_)
                    | Note::Follows(..)
                    | Note::Coordinates(_)
                    | Note::Clock(_),
                    _,
                ) => {}
            }
        }
        // They are about this moment: before what the node sends.
        facts.into_iter().rev().for_each(|fact| self.host.outputs.push_front(Output::Fact(fact)));
    }

    fn peer(&mut self, peer: usize, up: bool) -> Verdict<()> {
        self.up[peer] = up;
        let id = NodeId(peer as u32 + 1);
        self.give(Some(if up { Event::Up(id) } else { Event::Down(id) }))
    }

    fn frame(&mut self, from: usize, wire: Wire) -> Verdict<()> {
        if !self.up[from] {
            self.peer(from, true)?;
        }
        let Wire { epoch, slot, message } = wire;
        let old = message.is_order() && epoch < self.node.epoch();
        (self.host.acted, self.host.fenced) = (0, None);
        let what = if old { format!("{message:?}") } else { String::new() };
        self.give(Some(Event::Received { from: NodeId(from as u32 + 1), epoch, slot, message: *message }))?;
        if old && self.host.fenced != Some(from) {
            let own = self.node.epoch();
            return Err(format!("an order of epoch {epoch} is obeyed under epoch {own}: {what}"));
        }
        Ok(())
    }

    fn ask(&mut self, client: Client, command: Command) -> Verdict<()> {
        self.next_client += 1;
        self.host.clients.insert(self.next_client, client);
        self.give(Some(Event::Local { client: self.next_client, command }))
    }

    fn backup(&mut self, policy: String) -> Verdict<()> {
        self.ask(Client::Backup(policy.clone()), Command::Backup(policy))
    }

    /// Users and schedules.
    fn work(&mut self) -> Verdict<()> {
        if self.finishing || self.leaving {
            return Ok(());
        }
        self.host.unanswered.clear();
        let (policies, disks) = {
            let ground = self.host.shared.borrow();
            (ground.policies.len() as u64, ground.disks.len() as u64)
        };
        let prng = &mut self.host.prng;
        let policy = prng.below(policies) as usize;
        let name = format!("p{policy}");
        let dice = prng.below(16);
        if dice == 15 {
            let disk = prng.below(disks) as usize;
            self.host.shared.borrow_mut().change(disk);
            return Ok(());
        }
        if dice == 14 && prng.one_in(4) {
            return self.leave();
        }
        if self.host.clients.len() >= CLIENTS_MAX {
            return Ok(());
        }
        let nodes = self.up.len() as u64;
        match dice {
            0..5 if self.node.view().state.policies.contains_key(&name) => self.backup(name),
            0..7 => self.change(policy),
            7 => self.ask(Client::Other, Command::Status),
            8 => {
                let to = NodeId(1 + self.host.prng.below(nodes) as u32);
                self.ask(Client::Other, Command::Move(to))
            }
            9 => self.ask(Client::Other, Command::Stop(name)),
            10 => self.ask(Client::Other, Command::Flush),
            _ => Ok(()),
        }
    }

    /// Sets a policy as this node knows the log: refused when somebody else was faster.
    fn change(&mut self, policy: usize) -> Verdict<()> {
        let name = format!("p{policy}");
        let body = self.host.prng.next_u64().to_le_bytes().to_vec();
        let state = &self.node.view().state;
        let revision = state.policies.get(&name).map_or(1, |policy| policy.revision + 1);
        let volumes = volumes(&self.host.shared.borrow(), policy, state);
        let change = PolicyChange { name, revision, body: body.clone(), volumes };
        self.ask(Client::Change(body), Command::Submit(vec![Record::PolicyChanged(change)]))
    }

    fn leave(&mut self) -> Verdict<()> {
        let now = self.host.now;
        self.leaving = true;
        self.node.leave(now, now as i64);
        self.give(None)
    }
}

/// Numbers for the volumes of a policy: those that they have, or the next ones.
fn volumes(ground: &Ground, policy: usize, state: &State) -> Vec<(VolumeId, String)> {
    let mut next = state.next_volume().unwrap_or_default().0;
    let number = |device: &str| state.volumes.iter().find(|(_, v)| v.device == device).map(|(id, _)| *id);
    let devices = ground.policies[policy].iter().map(|&disk| ground.disks[disk].device.clone());
    devices
        .map(|device| {
            let id = number(&device).unwrap_or_else(|| {
                next += 1;
                VolumeId(next - 1)
            });
            (id, device)
        })
        .collect()
}
