//! What a seed decides before anything runs: sizes, times, and which faults there are and how often.
//!
//! Most faults are off in most seeds and frequent where they are on, because faults that always come together hide each other
//! (swarm testing). Does not: decide during the run (`world` draws from a generator of its own). Source: ours; TigerBeetle's
//! VOPR, "swarm testing" (Groce et al., 2012).

use std::fmt;
use std::str::FromStr;

use windlass_agent::log::lease::Timing;
use windlass_agent::log::replay::ReplayOptions;
use windlass_agent::log::writer::{Checks, WriterOptions};
use windlass_hal::sim::prng::Prng;

use super::weather::{BUSY_NS, LEASE_TIMES_MAX, Weather};

/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;
/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000 * MS;
/// Seeds in which slots are lost, modulo 4: none that is kept for something else.
const LOSSY_SEEDS: u64 = 2;
/// Slots lost at most, in 1000 that are created.
const LOST_SLOT_MAX: u64 = 40;
/// Nodes of a cluster at most.
pub const NODES_MAX: usize = 8;

macro_rules! mutations {
    ($($name:ident = $text:literal, $doc:literal;)*) => {
        /// A bug put in on purpose, to see that the checks notice it.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum Mutation {
            /// The code as it is.
            #[default]
            None,
            $(#[doc = $doc] $name,)*
        }

        impl Mutation {
            /// All but `None`.
            pub const ALL: &'static [Mutation] = &[$(Mutation::$name),*];

            /// How it is written on the command line, and what it does.
            pub fn text(self) -> (&'static str, &'static str) {
                match self {
                    Mutation::None => ("none", "the code as it is"),
                    $(Mutation::$name => ($text, $doc),)*
                }
            }
        }
    };
}

mutations! {
    SkipEpochCheck = "skip-epoch-check", "a slot that was created counts without a look for the next epoch";
    SkipSecondList = "skip-second-list", "a replay does not ask again whether the boundary moved";
    SkipLookBeyond = "skip-look-beyond", "a replay takes the first slot that is not there for the end of the log";
    RenewOnLateAnswer = "renew-on-late-answer", "a beat that is answered after the end of the lease renews it";
    DeleteWithoutRetire = "delete-without-retire", "an object is deleted before the record that retires it is committed";
    CommitBeforeStored = "commit-before-stored", "an object is committed before its PUT is acknowledged";
    ExistsIsFailure = "exists-is-failure", "a create that finds its slot taken is a failure, and nobody looks whose it is";
    SkipNonceCheck = "skip-nonce-check", "whatever is found in the slot is taken for one's own";
    SkipWait = "skip-wait", "a candidate waits for half the time that a lease lasts";
    OrphansWithoutFloor = "orphans-without-floor", "objects that no table names are deleted although they may be on their way into one";
    ReportBeforeStored = "report-before-stored", "a worker reports what it has stored before the store has said so";
    AcceptDone = "accept-done", "a report of a stretch that is done is accepted, whoever did it";
    AcceptEarly = "accept-early", "a worker is told that its report counts before the commit has passed";
    ObeyOld = "obey-old", "a node obeys a coordinator of an older epoch than it has seen";
    AssignWithoutLease = "assign-without-lease", "a coordinator hands out work although its lease has ended";
    ForgetGuard = "forget-guard", "a point is made without the minimum age that its policy gives it";
    ForgetStop = "forget-stop", "a coordinator that takes over goes on with what was stopped";
    ForgetRole = "forget-role", "a coordinator does what a subject asks for without a look at its roles";
    BelieveAsker = "believe-asker", "a point leaves at the time that the asker says it is";
    GcUnretired = "gc-unretired", "a garbage run deletes objects before the record that retires them is committed";
    GcIgnoresPins = "gc-ignores-pins", "a garbage run deletes what a pin holds";
    GcTrustsLists = "gc-trusts-lists", "what the store lists and the tables do not name is taken for an orphan";
    GcTrustsClocks = "gc-trusts-clocks", "the same of what was listed for some seconds";
    GcTrustsNames = "gc-trusts-names", "names below the highest in the tables, and not in them, are taken for orphans";
    GcBlind = "gc-blind", "condemned objects are retired without a look at the tables";
    GcMovesEarly = "gc-moves-early", "objects whose live blocks were moved are deleted before the rows that follow are committed";
    SkipProbe = "skip-probe", "a store that ignores conditions is written to";
}

impl Mutation {
    /// Whether only worlds with garbage show it.
    pub fn is_of_garbage(self) -> bool {
        self.text().0.starts_with("gc-")
    }
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().0)
    }
}

impl FromStr for Mutation {
    type Err = String;

    fn from_str(text: &str) -> Result<Mutation, String> {
        let mut all = Mutation::ALL.iter().copied().chain([Mutation::None]);
        let found = all.find(|mutation| mutation.text().0 == text);
        found.ok_or_else(|| format!("there is no mutation \"{text}\""))
    }
}

/// How wrong the clocks' rates are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drift {
    /// Not more than the lease allows for.
    Within,
    /// By anything from half to double: leases may overlap, and nothing else may happen.
    Beyond,
}

/// How often requests to the store go wrong, in 1000 requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreFaults {
    /// Never arrives, never answered.
    pub lost_request: u64,
    /// Applied, never answered.
    pub lost_answer: u64,
    /// A write is applied long after its sender gave up on it.
    pub late_write: u64,
    /// A write is applied twice, the second time somewhat later; the second answer is the one that arrives.
    pub twice: u64,
    /// A create is answered with 409, and not applied.
    pub conflict: u64,
    /// 503, not applied.
    pub unavailable: u64,
    /// 503, applied.
    pub unavailable_applied: u64,
    /// Takes most of the time that the sender waits.
    pub slow: u64,
    /// A beat takes most of that time: those that land about when a lease ends.
    pub slow_beat: u64,
    /// A GET's bytes are changed on the way.
    pub flipped: u64,
    /// A GET's bytes end early, and nobody says so.
    pub cut: u64,
    /// A slot behind the head is gone, or ends early, when the next one has been created. Only one that the slot behind it carries:
    /// what lies nowhere else is lost for good, and the log is refused then. In a quarter of the seeds.
    pub lost_slot: u64,
}

/// How often nodes and links go wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeFaults {
    /// A node crashes between two steps, in 100,000 steps.
    pub crash: u64,
    /// A node freezes between two steps, in 100,000 steps.
    pub freeze: u64,
    /// A node crashes or freezes as it sends a create, in 1000 creates: where it hurts most.
    pub create: u64,
    /// Time between troubles of a node on average, in lease times; 0 is none.
    pub trouble_leases: u64,
    /// Which troubles: bits of [`Trouble`].
    pub troubles: u64,
}

/// What happens to a node now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It stops and starts again, with a new boot number.
    Crash,
    /// It does nothing for a while, up to ten lease times.
    Freeze,
    /// Its requests do not reach the store, or the answers do not reach it.
    StoreCut,
    /// Frames from it, or to it, or both, do not get through.
    PeerCut,
    /// Some of its connections are lost.
    Reset,
    /// The store answers everyone with 503 or 409 for a while.
    Storm,
}

/// All troubles, in the order of their bits.
pub const TROUBLES: [Trouble; 6] =
    [Trouble::Crash, Trouble::Freeze, Trouble::StoreCut, Trouble::PeerCut, Trouble::Reset, Trouble::Storm];

/// What a seed decides.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// Nodes, `1..=8`.
    pub nodes: usize,
    /// Times of the lease, limits of the log, checks.
    pub writer: WriterOptions,
    /// Clocks.
    pub drift: Drift,
    /// Longest usual way to the store, one direction, in nanoseconds.
    pub store_latency_ns: u64,
    /// Longest usual way to a peer, in nanoseconds.
    pub peer_latency_ns: u64,
    /// Frames that wait on a connection at most.
    pub frames_max: usize,
    /// What a piece of a backup takes to send over a slow uplink, in nanoseconds: many times what a coordinator waits for a report; 0: no
    /// time.
    pub slow_uplink_ns: u64,
    /// When a request without an answer is given up, in nanoseconds.
    pub timeout_ns: u64,
    /// How late a node wakes at most, in nanoseconds.
    pub wake_late_ns: u64,
    /// Between two pieces of work of a node on average, in nanoseconds.
    pub work_ns: u64,
    /// Batches that a holder commits one right after the other at most, as when much is waiting.
    pub burst: u64,
    /// A node is down for so long at most, in nanoseconds.
    pub down_ns: u64,
    /// How long there are faults, in nanoseconds.
    pub storm_ns: u64,
    /// Requests.
    pub store: StoreFaults,
    /// Nodes and links.
    pub node: NodeFaults,
    /// The store ignores conditions.
    pub lawless: bool,
    /// Beside the faults.
    pub weather: Weather,
    /// Volumes have bytes, points expire, pins come and go, and garbage runs are wanted.
    pub garbage: bool,
    /// The bug to find.
    pub mutation: Mutation,
}

/// Frames that wait on a connection: what a session holds, and what its peer has granted.
const FRAMES_MAX: usize = 96;
/// The same in seeds with [`FULL_QUEUE_SEEDS`] by eight: what a node says at once after a connection was lost, and not much more.
const FRAMES_FEW: usize = 32;
const FULL_QUEUE_SEEDS: u64 = 5;
/// In seeds with this remainder by 16, nodes have slow uplinks.
const SLOW_UPLINK_SEEDS: u64 = 9;

/// Ways of skewed draws: `range` picks the magnitude first, so that small values come often.
fn range(prng: &mut Prng, from: u64, to: u64) -> u64 {
    let steps = (to.max(1) / from.max(1)).max(1).ilog2() as u64 + 1;
    let top = from.max(1) << prng.below(steps + 1);
    from + prng.below(top.min(to) - from + 1)
}

/// A rate that is zero in most seeds.
fn rate(prng: &mut Prng, max: u64) -> u64 {
    if prng.one_in(3) { range(prng, 1, max) } else { 0 }
}

impl Options {
    /// Draws everything from the seed.
    pub fn draw(seed: u64, mutation: Mutation) -> Options {
        let mut prng = Prng::new(seed ^ 0x5EED_0F0F_0000_0000);
        let lease_ns = 3 * SECOND + prng.below(12 * SECOND);
        let timing = Timing {
            lease_ns,
            beat_ns: lease_ns / 10 + prng.below(lease_ns / 2),
            drift_permille: prng.below(30),
            margin_ns: lease_ns / 30 + prng.below(lease_ns / 10),
            send_budget_ns: lease_ns / 20 + prng.below(lease_ns / 4),
        };
        let checks = Checks {
            epoch: mutation != Mutation::SkipEpochCheck,
            nonce: mutation != Mutation::SkipNonceCheck,
            exists: mutation != Mutation::ExistsIsFailure,
            late_answer: mutation != Mutation::RenewOnLateAnswer,
            ..Checks::default()
        };
        let replay = ReplayOptions {
            gets_max: 1 + prng.below(8) as usize,
            second_list: mutation != Mutation::SkipSecondList,
            // A look beyond the end of the log finds most of what the second LIST finds: to see that one matters, both are off.
            look_beyond: !matches!(mutation, Mutation::SkipLookBeyond | Mutation::SkipSecondList),
        };
        let writer = WriterOptions {
            timing,
            replay,
            checkpoint_slots: range(&mut prng, 1, 16),
            boundary_lag_slots: range(&mut prng, 1, 16),
            checks,
            keeps_to_end: false,
            read_only: None,
        };
        let nodes_max = if prng.one_in(3) { NODES_MAX as u64 } else { 4 };
        let work_ns = range(&mut prng, lease_ns / 64, lease_ns * 2);
        // Enough time for takeovers, and enough work to collect slots, but not both without end.
        let storm_ns = (work_ns * 150).clamp(lease_ns * 15, lease_ns * 50);
        let nodes = 1 + prng.below(nodes_max) as usize;
        let slow = seed % 16 == SLOW_UPLINK_SEEDS;
        let weather = Weather::of(seed, nodes, slow);
        let mut options = Options {
            seed,
            nodes,
            writer,
            drift: if prng.one_in(3) { Drift::Beyond } else { Drift::Within },
            store_latency_ns: range(&mut prng, MS, lease_ns / 30),
            peer_latency_ns: range(&mut prng, MS / 10, lease_ns / 30),
            // Not drawn: the other seeds stay as they are.
            frames_max: if seed % 8 == FULL_QUEUE_SEEDS { FRAMES_FEW } else { FRAMES_MAX },
            slow_uplink_ns: if slow { 250 * SECOND } else { 0 },
            timeout_ns: lease_ns / 8 + prng.below(lease_ns),
            wake_late_ns: range(&mut prng, MS / 10, 20 * MS),
            work_ns,
            burst: rate(&mut prng, 16),
            down_ns: range(&mut prng, lease_ns / 16, lease_ns * 4),
            storm_ns,
            store: Options::store_faults(&mut prng, seed),
            node: Options::node_faults(&mut prng),
            lawless: prng.one_in(64),
            weather,
            garbage: mutation.is_of_garbage(),
            mutation,
        };
        if weather.busy {
            // Hundreds of points take their time, and nobody's death would make them more.
            (options.storm_ns, options.node) = (BUSY_NS, NodeFaults::default());
            options.work_ns = options.work_ns.max(lease_ns / 4);
        }
        options
    }

    fn store_faults(prng: &mut Prng, seed: u64) -> StoreFaults {
        StoreFaults {
            lost_request: rate(prng, 100),
            lost_answer: rate(prng, 100),
            late_write: rate(prng, 100),
            twice: rate(prng, 100),
            conflict: rate(prng, 200),
            unavailable: rate(prng, 100),
            unavailable_applied: rate(prng, 100),
            slow: rate(prng, 200),
            slow_beat: rate(prng, 500),
            flipped: rate(prng, 10),
            cut: rate(prng, 10),
            // Not drawn: the other seeds stay as they are.
            lost_slot: if seed % 4 == LOSSY_SEEDS { 1 + seed % LOST_SLOT_MAX } else { 0 },
        }
    }

    fn node_faults(prng: &mut Prng) -> NodeFaults {
        NodeFaults {
            crash: rate(prng, 300),
            freeze: rate(prng, 300),
            create: rate(prng, 60),
            trouble_leases: if prng.one_in(4) { 0 } else { range(prng, 2, 32) },
            troubles: prng.next_u64() | prng.next_u64(),
        }
    }

    /// When the faults have stopped, a coordinator is there after so long: two waits of a candidate, a replay, and pauses between
    /// repeats that had grown. True nanoseconds.
    pub fn election_bound_ns(&self) -> u64 {
        let times = if self.weather.lengths { LEASE_TIMES_MAX } else { 1 };
        let wait = times * self.writer.timing.wait_ns();
        let slowest = if self.drift == Drift::Beyond { 2 * wait } else { wait };
        let replay = 60 * self.store_latency_ns;
        2 * slowest
            + slowest / 5
            + self.down_ns
            + self.timeout_ns
            + self.weather.hang_ns
            + replay
            + 10 * SECOND
    }
}
