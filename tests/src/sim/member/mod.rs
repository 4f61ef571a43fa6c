//! A whole node: the real `Node` with the product's own loop around it, jobs, and users who want things at random times.
//!
//! | module | what |
//! |---|---|
//! | this one | inputs of the world to events of the node; users; what the node claims |
//! | `host` | the node's ports, and the jobs of most seeds: they store and report, and say in the object of what stretch it is |
//! | `data` | the jobs of one seed in 20: the real machine, over the bytes of a small image; points are read back at the end (I8) |
//! | `garbage` | steps of garbage runs |
//! | `losses` | objects that the store loses, and somebody who finds that |
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
mod garbage;
mod host;
mod losses;
mod plan;

use std::cell::RefCell;
use std::rc::Rc;

use windlass_agent::backplane::message::Message;
use windlass_agent::drive::node::turn;
use windlass_agent::format::garbage::{GarbageNews, Settings, Wanted};
use windlass_agent::format::record::{PolicyChange, Record};
use windlass_agent::format::slot::PlainForTests;
use windlass_agent::id::{BackupId, Boot, Epoch, NodeId, Slot, VolumeId};
use windlass_agent::log::call::Answer;
use windlass_agent::log::lease::Timing;
use windlass_agent::log::replay::View;
use windlass_agent::log::state::{self as policy, State};
use windlass_agent::node::{Config, Event, Node, Note};
use windlass_agent::policy::schedule::Schedule;
use windlass_agent::policy::{Policy, PolicyVolume, Reader};
use windlass_agent::store::StoreFaultKind;
use windlass_agent::store::time::StoreTime;
use windlass_agent::work::{Command, Present};

use super::GARBAGE;
use super::guards::{self, Rules};
use super::options::{Mutation, Options, SECOND};
use super::store::{Shelf, identity};
use super::weather::{EVERY_MS, LEASE_TIMES_MAX, QUIET_NS};
use super::{Birth, Fact, Input, Output, Tenant, Verdict};
use host::{Host, Timer};
use plan::{Ground, Shared};

/// Commands that a node's users have open at once.
const CLIENTS_MAX: usize = 6;
/// The same where there are many users.
const CROWD_MAX: usize = 40;
/// So many of them come at once.
const CROWD_AT_ONCE: usize = 6;
/// Things that may wait in a node: orders, commands, assignments and reports of all nodes.
const QUEUED_MAX: usize = 256;

/// Pins that users hold at once.
const PINS_KEPT: usize = 3;

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
    /// The end of what runs of this policy.
    Stop(String),
    /// Anything else.
    Other,
}

/// The machine.
pub struct Member {
    node: Node<PlainForTests>,
    host: Host,
    up: Vec<bool>,
    options: Options,
    next_client: u64,
    finishing: bool,
    /// It ends when it has let the lease go.
    leaving: bool,
    gone: bool,
    /// The last backup of each policy is asked for.
    asked_last: bool,
    /// How late it is, in true nanoseconds since the run began.
    true_ns: u64,
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
            Mutation::ForgetGuard => writer.checks.guard = false,
            Mutation::BelieveAsker => writer.checks.date = false,
            Mutation::ForgetStop => writer.checks.stopped = false,
            Mutation::ForgetRole => writer.checks.roles = false,
            _ => {}
        }
        let weather = options.weather;
        if weather.lengths {
            let own_ns = writer.timing.lease_ns * weather.lease_times(options.seed, node);
            writer.timing = Timing::of(own_ns);
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
            options,
            next_client: 0,
            finishing: finish,
            leaving: false,
            gone: false,
            asked_last: false,
            true_ns: 0,
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
        let times = if options.weather.lengths { LEASE_TIMES_MAX } else { 1 };
        let waits = 30 * times * options.writer.timing.lease_ns + 20 * options.weather.hang_ns;
        2 * (1200 * SECOND + waits + 100 * piece)
    }

    fn quiet_ns(options: &Options) -> u64 {
        if options.weather.punctual { QUIET_NS } else { 0 }
    }

    fn last_changes(view: &View) -> Vec<PolicyChange> {
        let state = &view.state;
        let device = |id: &VolumeId| state.volumes.get(id).map(|volume| volume.device.clone());
        let without = |(name, entry): (&String, &policy::Policy)| {
            let policy = Policy::parse(&entry.body).ok().filter(|policy| policy.schedule.is_some())?;
            let body = Policy { schedule: None, ..policy }.emit().ok()?;
            let volumes = entry.volumes.iter().filter_map(|id| Some((*id, device(id)?))).collect();
            Some(PolicyChange { name: name.clone(), revision: entry.revision + 1, body, volumes })
        };
        state.policies.iter().filter(|(_, entry)| !entry.removed).filter_map(without).collect()
    }

    fn tell_time(&mut self, true_ns: u64) {
        self.true_ns = true_ns;
        self.host.true_ns = true_ns;
    }

    fn verify(shared: &Shared, shelf: &Shelf, view: &View) -> Verdict<u64> {
        if shared.borrow().data { data::verify(shared, shelf, view) } else { Ok(0) }
    }

    fn unfinished(view: &View) -> Vec<String> {
        let state = &view.state;
        let running: Vec<String> = state.running.values().map(|running| running.policy.clone()).collect();
        // Only worlds with garbage say how it is treated.
        let garbage = &state.garbage;
        let has_run = garbage.settings.is_some_and(|settings| settings.window_ns == 0)
            && garbage.done.is_some_and(|done| {
                (done.waiting, done.faults, done.last_backup) == (0, 0, state.last_backup)
                    && done.backups as usize == state.points.len()
            });
        let is_clean =
            has_run && garbage.wanted.is_none() && !state.may_have_garbage() && state.retired.is_empty();
        if running.is_empty() && garbage.settings.is_some() && !is_clean {
            return vec![GARBAGE.to_owned()];
        }
        running
    }

    fn handle(&mut self, now_ns: u64, input: Input<Wire>) -> Verdict<()> {
        self.host.now = now_ns;
        match input {
            Input::Answer { id, answer } => {
                let options = &self.host.options;
                let said = options.weather.store_wall_ns(options.storm_ns, self.true_ns);
                if let Some(wall_ns) =
                    said.filter(|_| !matches!(answer, Answer::Fault(StoreFaultKind::Unknown)))
                {
                    self.node.store_says(StoreTime { wall_ns, at_ns: now_ns });
                }
                if let Some(event) = self.host.answered(id, answer) {
                    self.give(Some(event))?;
                }
            }
            Input::Frame { from, message } => self.frame(from, message)?,
            Input::Peer { node, up } => self.peer(node, up)?,
            Input::Wake => {}
            Input::Work => self.work()?,
            Input::Finish => self.finishing = true,
            Input::Change(changes) => changes.into_iter().try_for_each(|change| {
                let client = Client::Change(change.body.clone());
                self.ask(client, Command::Submit(vec![Record::PolicyChanged(change)]))
            })?,
            Input::Urge(policies) => policies.into_iter().try_for_each(|policy| match policy.as_str() {
                GARBAGE => self.last_run(),
                _ => self.backup(policy),
            })?,
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
                Timer::Look => self.host.opened(),
                Timer::Merge(id) => self.host.merge_moves(id),
                Timer::Swept(id) => self.host.swept(id),
                Timer::Step => self.host.step_moves(),
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
            let name = |policy| guards::name_of(&self.node.view().state, policy);
            let names: Vec<String> = (0..policies).map(name).collect();
            names.into_iter().try_for_each(|name| self.backup(name))?;
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
    fn wall_ns(&self) -> i64 {
        let options = &self.host.options;
        options.weather.wall_ns(options.seed, self.host.node, options.storm_ns, self.true_ns)
    }

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
        let wall_ns = self.wall_ns();
        turn(&mut self.node, &mut self.host, now, wall_ns, event);
        if let Some(fault) = self.host.fault.take() {
            return Err(fault);
        }
        self.claims(before);
        if self.leaving && !self.gone && self.node.lease_end_ns().is_none() {
            self.gone = true;
            self.host.outputs.push_back(Output::Exit);
        }
        let waits = self.node.waits();
        let many = if self.host.options.weather.crowd { CROWD_MAX * self.up.len() } else { 0 };
        if waits > QUEUED_MAX + many {
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
                    | Note::Coordinates(_),
                    _,
                ) => {}
                (Note::Clock(ahead), _) => facts.extend(ahead.map(|_| Fact::Skewed)),
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
        let Wire { epoch, slot, mut message } = wire;
        if let Message::Assign(order) = &mut *message {
            let state = &self.node.view().state;
            let device = state.volumes.get(&order.volume.volume).map(|volume| volume.device.clone());
            self.host.take_carelessly(order, device.as_deref());
        }
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
        if let Client::Backup(policy) = &client {
            let fact = Fact::Asked { client: self.next_client, policy: policy.clone() };
            self.host.outputs.push_back(Output::Fact(fact));
        }
        self.host.clients.insert(self.next_client, (client, command.clone()));
        self.give(Some(Event::Local { client: self.next_client, command }))
    }

    fn backup(&mut self, policy: String) -> Verdict<()> {
        self.ask(Client::Backup(policy.clone()), Command::Backup(policy))
    }

    /// Users.
    fn work(&mut self) -> Verdict<()> {
        if self.leaving {
            return Ok(());
        }
        if self.finishing {
            // A command that was refused for now is given again, if its user still wants it.
            let again = std::mem::take(&mut self.host.unanswered);
            if self.host.options.weather.watched {
                self.ask(Client::Other, Command::Status)?;
            }
            return again
                .into_iter()
                .filter(|(_, command)| matches!(command, Command::Backup(_) | Command::Submit(_)))
                .try_for_each(|(client, command)| self.ask(client, command));
        }
        self.host.unanswered.clear();
        let crowd = self.host.options.weather.crowd;
        (0..if crowd { CROWD_AT_ONCE } else { 1 }).try_for_each(|_| self.somebody())?;
        let users = self.host.clients.len();
        if users > CLIENTS_MAX {
            self.host.outputs.push_back(Output::Fact(Fact::Crowded(users)));
        }
        Ok(())
    }

    /// One of them.
    fn somebody(&mut self) -> Verdict<()> {
        if self.leaving {
            return Ok(());
        }
        let (policies, disks) = {
            let ground = self.host.shared.borrow();
            (ground.policies.len() as u64, ground.disks.len() as u64)
        };
        let prng = &mut self.host.prng;
        let policy = prng.below(policies) as usize;
        let name = guards::name_of(&self.node.view().state, policy);
        let dice = prng.below(16);
        if self.options.garbage && (11..15).contains(&dice) {
            return self.work_on_garbage(dice);
        }
        if dice == 15 {
            let disk = prng.below(disks) as usize;
            self.host.shared.borrow_mut().change(disk);
            return Ok(());
        }
        if dice == 14 && prng.one_in(4) {
            return self.leave();
        }
        let weather = self.host.options.weather;
        if self.host.clients.len() >= if weather.crowd { CROWD_MAX } else { CLIENTS_MAX } {
            return Ok(());
        }
        let is_set = self.node.view().state.policies.contains_key(&name);
        if weather.busy && is_set {
            return self.backup(name);
        }
        if weather.losses && dice == 12 && self.host.shared.borrow().data {
            return self.lose_or_check();
        }
        if weather.lengths && dice == 13 {
            return self.set_lease();
        }
        if weather.owners && is_set && matches!(dice, 6 | 11) {
            return self.work_on_policy(policy, dice == 6);
        }
        if weather.restless && (11..14).contains(&dice) {
            return if dice < 13 {
                self.ask(Client::Stop(name.clone()), Command::Stop(name))
            } else {
                self.take_away(policy)
            };
        }
        let nodes = self.up.len() as u64;
        if self.host.has_guards() && dice >= 8 {
            let prng = &mut self.host.prng;
            if let Some(command) = guards::wish(prng, &self.host.options, &self.node.view().state, policy) {
                return self.ask(Client::Other, command);
            }
        }
        match dice {
            0..5 if is_set => self.backup(name),
            0..7 => self.change(policy),
            7 => self.ask(Client::Other, Command::Status),
            8 => {
                let to = NodeId(1 + self.host.prng.below(nodes) as u32);
                self.ask(Client::Other, Command::Move(to))
            }
            9 => self.ask(Client::Stop(name.clone()), Command::Stop(name)),
            10 => self.ask(Client::Other, Command::Flush),
            _ => Ok(()),
        }
    }

    /// Sets a policy as this node knows the log: refused when somebody else was faster.
    fn change(&mut self, policy: usize) -> Verdict<()> {
        let number = self.host.prng.next_u64();
        let state = &self.node.view().state;
        let name = guards::name_of(state, policy);
        let revision = state.policies.get(&name).map_or(1, |policy| policy.revision + 1);
        let mut volumes = volumes(&self.host.shared.borrow(), policy, state);
        let weather = self.host.options.weather;
        if weather.restless && volumes.len() > 1 && number.is_multiple_of(3) {
            volumes.remove((number / 3) as usize % volumes.len());
        }
        let body = if weather.punctual {
            let rules = guards::scheduled_rules(&self.host.options);
            scheduled(&name, &volumes, self.wall_ns() / SECOND as i64, rules)?
        } else if self.host.has_guards() {
            let lease_ns = self.host.lease_ns();
            let devices = volumes.iter().map(|(_, device)| device.clone()).collect::<Vec<_>>();
            let rules = guards::rules(&self.host.options);
            guards::body(&mut self.host.prng, rules, &name, &devices, lease_ns)
        } else {
            number.to_le_bytes().to_vec()
        };
        let change = PolicyChange { name, revision, body: body.clone(), volumes };
        self.ask(Client::Change(body), Command::Submit(vec![Record::PolicyChanged(change)]))
    }

    /// A policy is removed, with its backup that runs.
    fn take_away(&mut self, policy: usize) -> Verdict<()> {
        let name = guards::name_of(&self.node.view().state, policy);
        let known = self.node.view().state.policies.get(&name).filter(|known| !known.removed);
        let Some(revision) = known.map(|known| known.revision + 1) else { return Ok(()) };
        self.ask(Client::Other, Command::Submit(vec![Record::PolicyRemoved { name, revision }]))
    }

    /// A policy is removed, or gets its other name.
    fn work_on_policy(&mut self, policy: usize, removes: bool) -> Verdict<()> {
        if removes {
            return self.take_away(policy);
        }
        let body = self.host.prng.next_u64().to_le_bytes().to_vec();
        match guards::rename(&self.node.view().state, policy, body) {
            Some(records) => self.ask(Client::Other, Command::Submit(records)),
            None => Ok(()),
        }
    }

    /// The repository's lease is from now on as long as one or the other profile's.
    fn set_lease(&mut self) -> Verdict<()> {
        let times = 1 + self.host.prng.below(LEASE_TIMES_MAX);
        let lease_ns = times * self.host.options.writer.timing.lease_ns;
        self.ask(Client::Other, Command::Submit(vec![Record::LeaseSet { lease_ns }]))
    }

    /// Users expire points, hold pins, say how garbage is treated, and want runs.
    fn work_on_garbage(&mut self, dice: u64) -> Verdict<()> {
        if self.host.clients.len() >= CLIENTS_MAX {
            return Ok(());
        }
        let (state, prng) = (self.node.view().state.clone(), &mut self.host.prng);
        let record = match dice {
            11 | 12 => {
                let points: Vec<BackupId> = state.points.keys().copied().collect();
                let Some(backup) = points.get(prng.below(points.len().max(1) as u64) as usize) else {
                    return Ok(());
                };
                Record::PointExpired { backup: *backup }
            }
            13 if !state.pins.is_empty() && prng.one_in(2) => {
                let pins: Vec<u64> = state.pins.keys().copied().collect();
                Record::Unpin { pin: pins[prng.below(pins.len() as u64) as usize] }
            }
            13 if state.pins.len() < PINS_KEPT => Record::Pin { pin: prng.next_u64(), node: NodeId(0) },
            _ if state.garbage.settings.is_none() || prng.one_in(8) => {
                let window_ns = if prng.one_in(3) { 0 } else { prng.below(20 * SECOND) };
                let every_ns = if prng.one_in(3) { 0 } else { 1 + prng.below(60 * SECOND) };
                Record::Garbage(GarbageNews::Settings(Settings { window_ns, every_ns }))
            }
            _ => Record::Garbage(GarbageNews::Wanted(Wanted::default())),
        };
        self.ask(Client::Other, Command::Submit(vec![record]))
    }

    /// No reader is left: all that is garbage may go.
    fn last_run(&mut self) -> Verdict<()> {
        let pins: Vec<u64> = self.node.view().state.pins.keys().copied().collect();
        let unpin = pins.into_iter().map(|pin| Record::Unpin { pin });
        let settings = Settings { window_ns: 0, every_ns: 0 };
        let news = [GarbageNews::Settings(settings), GarbageNews::Wanted(Wanted::default())];
        let records: Vec<Record> = unpin.chain(news.map(Record::Garbage)).collect();
        records.into_iter().try_for_each(|record| self.ask(Client::Other, Command::Submit(vec![record])))
    }

    fn leave(&mut self) -> Verdict<()> {
        let (now, wall_ns) = (self.host.now, self.wall_ns());
        self.leaving = true;
        self.node.leave(now, wall_ns);
        self.give(None)
    }
}

/// The body of a policy that is due every hour, set at a time; `rules`: its points expire by a rule alone.
fn scheduled(
    name: &str,
    volumes: &[(VolumeId, String)],
    since: i64,
    rules: Option<Rules>,
) -> Verdict<Vec<u8>> {
    let volume =
        |(_, device): &(VolumeId, String)| PolicyVolume { device: device.clone(), reader: Reader::Auto };
    let schedule = Some(Schedule { every: EVERY_MS, since: Some(since), ..Schedule::default() });
    let mut policy = Policy { schedule, ..Policy::new(name, volumes.iter().map(volume).collect()) };
    if let Some(rules) = rules {
        guards::keep_by(&mut policy, rules);
    }
    policy.emit().map_err(|why| why.to_string())
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
