//! A cluster in one thread, drawn from a seed: the real state machines on a simulated store, network and clocks.
//!
//! | module | what |
//! |---|---|
//! | [`options`] | what a seed decides: sizes, times, faults, and bugs put in on purpose |
//! | [`world`] | the queue of events, nodes that crash and freeze, requests that go wrong, the two phases of a run |
//! | [`store`] | the object store, linearizable, and the invariants of the log that need nothing else |
//! | [`net`] | connections between nodes |
//! | [`clock`] | clocks that drift |
//! | [`check`] | what every node claims against what the log says: I4, I6, I7, I9, I11 |
//! | [`pieces`] | what backups are made of: I5, and whether objects are of the stretch that they were committed for |
//! | [`guards`] | points that are held, guarded, expired and brought back |
//! | [`ledger`] | the log's records added up a second time: points with totals and status, segments, live names, garbage |
//! | [`stops`] | backups that users stop |
//! | [`weather`] | what a seed's number decides beside: clocks, deaths, crowds |
//! | [`due`] | whether schedules run, and no more often than they should |
//! | [`scale`] | many nodes and one large volume, without faults: how long it takes |
//! | [`committer`] | a small node: the real log writer, objects of peers, retirement, orphans |
//! | [`member`] | a whole node: the real `Node`, jobs that store and report, commands of users |
//!
//! A run has two phases. In the first everything that the seed switched on goes wrong. In the second nothing does, and the cluster
//! must come to an end: one coordinator in time, all work done (I10). The same seed gives the same trace, by its hash.
//!
//! What lives in the world is a [`Tenant`]: a machine in the style of the agent, fed one input at a time.
//! Source: ours; `tests/README.md`, The simulator.

pub mod check;
pub mod clock;
pub mod committer;
pub mod due;
pub mod guards;
pub mod ledger;
pub mod member;
pub mod net;
pub mod options;
pub mod pieces;
pub mod scale;
pub mod stops;
pub mod store;
pub mod weather;
pub mod world;

use windlass_agent::format::record::{Commit, PolicyChange};
use windlass_agent::format::slot::LogDigest;
use windlass_agent::id::{BackupId, Epoch, ObjectId, Slot};
use windlass_agent::log::call::{Answer, Call};
use windlass_agent::log::fault::LogFault;
use windlass_agent::log::replay::View;
use windlass_hal::sim::prng::Prng;

use options::Options;
use store::Shelf;

/// `Err`: a rule is broken; the text begins with its label.
pub type Verdict<T> = Result<T, String>;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Birth {
    /// Which node, `0..nodes`.
    pub node: usize,
    /// Random; no life of any node has the same.
    pub boot: u64,
    /// Random numbers of its own.
    pub prng: Prng,
    /// The seed's decisions.
    pub options: Options,
    /// There are no more faults, and nothing new is to be begun.
    pub finish: bool,
    /// Its own clock now.
    pub now_ns: u64,
}

/// What happens to a node.
#[derive(Clone, Debug)]
pub enum Input<M> {
    /// To a call of its own; exactly one for each, unless the node's life ends first.
    Answer {
        /// The call's.
        id: u64,
        /// What came of it.
        answer: Answer,
    },
    /// From a peer.
    Frame {
        /// Who.
        from: usize,
        /// What.
        message: M,
    },
    /// A connection came or went.
    Peer {
        /// With whom.
        node: usize,
        /// Whether it is there now.
        up: bool,
    },
    /// Its deadline has passed.
    Wake,
    /// A moment to begin something new, as users and schedules do.
    Work,
    /// There are no more faults: finish, and begin nothing new.
    Finish,
    /// Everybody is idle, and backups of these policies run in the log all the same: somebody starts them again.
    Urge(Vec<String>),
    /// The run is about to end: somebody changes policies for good, so that nothing is due any more.
    Change(Vec<PolicyChange>),
}

/// What a node wants done.
#[derive(Clone, Debug)]
pub enum Output<M> {
    /// Perform this once.
    Call {
        /// Comes back with the answer; unique in the node's life.
        id: u64,
        /// What.
        call: Call,
    },
    /// To a peer, in order, or lost with the connection.
    Send {
        /// Whom.
        to: usize,
        /// What.
        message: M,
    },
    /// Something that it claims.
    Fact(Fact),
    /// It ends, and wants to be started again.
    Exit,
}

/// What a node claims: checked against what is.
#[derive(Clone, Debug)]
pub enum Fact {
    /// It holds the lease, and its epoch has begun.
    Ready {
        /// Which epoch.
        epoch: Epoch,
        /// Its first slot.
        slot: Slot,
        /// That slot's digest.
        digest: LogDigest,
    },
    /// A batch counts.
    Committed {
        /// Where.
        slot: Slot,
        /// That slot's digest.
        digest: LogDigest,
        /// The pin in it that no other batch has; 0 when batches of this sort of node have none.
        marker: u64,
    },
    /// It let the lease go.
    Released {
        /// Where.
        slot: Slot,
        /// That slot's digest.
        digest: LogDigest,
    },
    /// It has no lease any more.
    Lost {
        /// Why.
        fault: LogFault,
        /// The pin in the batch that was under way.
        marker: Option<u64>,
    },
    /// Something in the background did not work.
    Warned {
        /// What.
        fault: LogFault,
    },
    /// Its object is in the tables for good.
    Counted {
        /// Which.
        object: ObjectId,
    },
    /// Its wall clock is not what the store says.
    Skewed,
    /// So many users wait for an answer of it.
    Crowded(usize),
    /// It hands out work.
    Assigned {
        /// Under this epoch.
        epoch: Epoch,
        /// When, on its own clock.
        at_ns: u64,
    },
    /// It was told that its report counts.
    Accepted {
        /// What it had reported, as the log is to have it.
        report: Box<Commit>,
    },
    /// A user asks for a backup.
    Asked {
        /// Which user.
        client: u64,
        /// Of this policy.
        policy: String,
    },
    /// A user who was asked to try again waits no more.
    Closed {
        /// Which user.
        client: u64,
    },
    /// A command has its answer.
    Answered {
        /// Whose.
        client: u64,
        /// It was told that this backup of this policy is stopped.
        stopped: Option<(String, BackupId)>,
        /// It was told that this backup of this policy runs.
        begun: Option<(String, BackupId)>,
        /// It was told that this policy's new body is in the log.
        changed: Option<Vec<u8>>,
    },
}

/// What [`Tenant::unfinished`] says when space is still to come back.
pub const GARBAGE: &str = "garbage";

/// A node's machine.
pub trait Tenant: Sized {
    /// What its peers are told.
    type Message: Clone + std::fmt::Debug;
    /// What nodes have in common besides store and network: the volumes. Clones are the same thing.
    type Shared;
    /// Whether it is told when a connection that was lost is there again.
    const RECONNECTS: bool;

    /// Before the first node starts.
    fn shared(options: &Options) -> Self::Shared;

    /// The run is over: reads every point back from the store. Returns how many bytes were compared.
    ///
    /// # Errors
    /// A point is not what the volumes were.
    fn verify(shared: &Self::Shared, shelf: &Shelf, view: &View) -> Verdict<u64>;

    /// A new life.
    fn start(birth: Birth, shared: &Self::Shared) -> Self;

    /// The node's life has ended, without its knowing.
    fn died(shared: &Self::Shared, node: usize);

    /// Time that it takes at most to finish what it had begun, besides elections, in true nanoseconds.
    fn finish_bound_ns(options: &Options) -> u64;

    /// Policies whose backups should have ended when all nodes are idle.
    fn unfinished(view: &View) -> Vec<String>;

    /// Time that passes after the faults before the run may end, in true nanoseconds.
    fn quiet_ns(_options: &Options) -> u64 {
        0
    }

    /// Changes of policies after which nothing is due any more.
    fn last_changes(_view: &View) -> Vec<PolicyChange> {
        Vec::new()
    }

    /// It is so late, in true nanoseconds since the run began: for wall clocks.
    fn tell_time(&mut self, _true_ns: u64) {}

    /// Takes one input. `now_ns` is the node's own clock.
    ///
    /// # Errors
    /// It noticed itself that a rule is broken.
    fn handle(&mut self, now_ns: u64, input: Input<Self::Message>) -> Verdict<()>;

    /// What is to be done next; `None` until something happens.
    fn next_output(&mut self) -> Option<Output<Self::Message>>;

    /// When `Wake` is due, on its own clock.
    fn deadline(&self) -> Option<u64>;

    /// End of the lease that it would act upon, on its own clock.
    fn lease_end_ns(&self) -> Option<u64>;

    /// The log as it believes it to be.
    fn view(&self) -> &View;

    /// Whether it has finished everything that it had begun.
    fn is_idle(&self) -> bool;
}

/// Hash of everything that happened, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace(u64);

impl Default for Trace {
    fn default() -> Trace {
        Trace(0xCBF2_9CE4_8422_2325)
    }
}

impl Trace {
    /// One number more.
    pub fn add(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }

    /// Bytes more.
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.add(u64::from_le_bytes(*word)));
        rest.iter().for_each(|&byte| self.add(u64::from(byte)));
        self.add(bytes.len() as u64);
    }

    /// The hash.
    pub fn value(self) -> u64 {
        self.0
    }
}
