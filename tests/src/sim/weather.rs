//! Weather that a seed has beside its faults: clocks, deaths, crowds. Decided by the seed's number alone, so that a new kind changes no other
//! seed than those that have it.
//!
//! | weather | what happens | what it may bend |
//! |---|---|---|
//! | `punctual` | each policy has a schedule, all due at one moment; after the faults two and a half hours pass | nothing: each policy gets its points, and no more |
//! | `clocks` | wall clocks of one node, or of all, are minutes to a year ahead or behind; the store says the time, or has none, or a wrong one | without the store's time, when schedules run |
//! | `grave` | a node dies for good | the others can read all volumes |
//! | `hermit` | a node reaches no other for as long as there are faults | nothing |
//! | `hang_ns` | requests that get no answer are given up a minute later, but for those of the lease | nothing |
//! | `crowd` | users ask for dozens of things at once | nothing |
//! | `lengths` | each node's profile has a lease of another length, and users set the repository's | L1 counts with the longest |
//! | `restless` | users stop backups all the time, take volumes from policies and remove policies | nothing |
//! | `losses` | the store loses objects of data, and a check finds it | points that need them, and were made before that was known |
//! | `busy` | a small volume is backed up hundreds of times, and nothing is deleted | nothing |
//! | `owners` | users give policies other names and their old ones back, remove them, and set them again | nothing |
//! | `absent` | volumes cannot be opened for a while; in some seeds one of several is gone for good | what the others' points lack |
//! | `slow_open_ns` | a policy of many volumes, each of which takes seconds to open | nothing |
//! | `careless` | now and then a worker reads a volume that has changed since its coordinator looked, and its reports say so | nothing |
//! | `watched` | somebody asks for the status all the time, after the faults too | nothing |
//!
//! Source: ours; `tests/README.md`, Add a fault to the simulator.

use super::options::SECOND;

/// Periods of all schedules, in milliseconds: an hour, so that clusters rest in between.
pub const EVERY_MS: u64 = 3_600_000;
/// How long schedules are watched after the faults, in nanoseconds: two times at which they are due, and some.
pub const QUIET_NS: u64 = 9_000 * SECOND;
/// What it is at the begin of a run less half of its faults, in seconds since 1970: a full hour.
const HOUR_SECS: i64 = 500_001 * 3600;
/// Seeds that are kept for what they have shown without any of this.
const KEPT: [u64; 4] = [13, 100, 188, 3966];
/// Seeds that are kept for what they have shown before there were owners, absent volumes and those behind them in the table.
const KEPT_SINCE: [u64; 8] = [6, 467, 702, 881, 1987, 2222, 6933, 8350];
/// How long a volume takes to open where that is slow, in nanoseconds: all of them take longer than a coordinator waits for one.
const SLOW_OPEN_NS: u64 = 8 * SECOND;
/// How far clocks are off, in seconds.
const SKEWS_SECS: [i64; 6] = [120, 1_800, 5_400, 86_400, 30 * 86_400, 366 * 86_400];
/// How long a request without an answer is waited for, in nanoseconds.
const HANG_NS: u64 = 61 * SECOND;
/// How long backups of a small volume go on, in nanoseconds.
pub const BUSY_NS: u64 = 4_000 * SECOND;

/// Whose wall clocks are wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clocks {
    /// Nobody's.
    #[default]
    Right,
    /// One node's, by so many seconds.
    One(usize, i64),
    /// Everybody's, each by another time.
    All,
}

/// See the module's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Policies have schedules.
    pub punctual: bool,
    /// Whose wall clocks are wrong.
    pub clocks: Clocks,
    /// How far the store's clock is ahead, in seconds; `None`: it says no time.
    pub store_ahead_secs: Option<i64>,
    /// Who dies for good, and when, in thousandths of the time of the faults.
    pub grave: Option<(usize, u64)>,
    /// Who reaches no other node.
    pub hermit: Option<usize>,
    /// When requests are given up that get no answer, in nanoseconds; 0: as all others.
    pub hang_ns: u64,
    /// Users ask for much at once.
    pub crowd: bool,
    /// Leases have several lengths.
    pub lengths: bool,
    /// Users stop and remove.
    pub restless: bool,
    /// A small volume is backed up all the time.
    pub busy: bool,
    /// The store loses objects, in seeds with data.
    pub losses: bool,
    /// Users give policies other names, and remove them.
    pub owners: bool,
    /// Volumes cannot be opened for a while.
    pub absent: bool,
    /// From when on one volume of several is gone for good, in thousandths of the time of the faults.
    pub gone: Option<u64>,
    /// How long a node needs to open a volume, in nanoseconds; 0: no time beside the usual.
    pub slow_open_ns: u64,
    /// Somebody asks for the status all the time.
    pub watched: bool,
    /// Workers read volumes that have changed.
    pub careless: bool,
}

/// A number of a seed and of what it decides.
pub fn mix(seed: u64, salt: u64) -> u64 {
    // splitmix64 (Steele, Lea, Flood 2014).
    let mut z =
        seed.wrapping_add(salt.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn skew(seed: u64, salt: u64) -> i64 {
    let secs = SKEWS_SECS[(mix(seed, salt) % SKEWS_SECS.len() as u64) as usize];
    if mix(seed, salt + 1).is_multiple_of(2) { secs } else { -secs }
}

impl Weather {
    /// Of a seed whose cluster has so many nodes; `slow`: its uplinks are.
    pub fn of(seed: u64, nodes: usize, slow: bool) -> Weather {
        if KEPT.contains(&seed) {
            return Weather::default();
        }
        let one_in = |salt: u64, n: u64| mix(seed, salt).is_multiple_of(n);
        let node = |salt: u64| (mix(seed, salt) % nodes as u64) as usize;
        let punctual = one_in(1, 12) && !slow;
        let busy = !punctual && one_in(2, 64) && !slow;
        // Schedules that are watched, and a volume that is backed up all the time, are of policies that stay, with volumes that are there.
        let new = !punctual && !busy && !KEPT_SINCE.contains(&seed);
        let absent = new && one_in(20, 8);
        let grave = nodes > 1 && one_in(3, if nodes == 2 { 4 } else { 12 });
        Weather {
            punctual,
            clocks: match mix(seed, 4) % 6 {
                0..3 => Clocks::Right,
                3 => Clocks::All,
                _ => Clocks::One(node(5), skew(seed, 6)),
            },
            store_ahead_secs: match mix(seed, 8) % 6 {
                0 => None,
                1 => Some(skew(seed, 9)),
                _ => Some(0),
            },
            grave: grave.then(|| (node(10), 100 + mix(seed, 11) % 800)),
            hermit: (nodes > 1 && one_in(12, 10)).then(|| node(13)),
            hang_ns: if one_in(14, 10) { HANG_NS } else { 0 },
            crowd: one_in(15, 20),
            lengths: one_in(16, 10),
            restless: one_in(17, 8),
            busy,
            losses: one_in(18, 2),
            owners: new && one_in(19, 6),
            absent,
            gone: (absent && !one_in(17, 8) && one_in(21, 3)).then(|| mix(seed, 22) % 1000),
            slow_open_ns: if new && !slow && one_in(23, 24) { SLOW_OPEN_NS } else { 0 },
            careless: new && one_in(25, 8),
            watched: !KEPT_SINCE.contains(&seed) && one_in(24, 10),
        }
    }

    /// Wall clock of a node at a true time of the run, in nanoseconds since 1970.
    pub fn wall_ns(&self, seed: u64, node: usize, storm_ns: u64, true_ns: u64) -> i64 {
        let ahead = match self.clocks {
            Clocks::Right => 0,
            Clocks::One(wrong, secs) if wrong == node => secs,
            Clocks::One(..) => 0,
            Clocks::All => skew(seed, 100 + 2 * node as u64),
        };
        Weather::true_wall_ns(storm_ns, true_ns) + ahead * SECOND as i64
    }

    /// What the store says, in whole seconds.
    pub fn store_wall_ns(&self, storm_ns: u64, true_ns: u64) -> Option<i64> {
        let second = SECOND as i64;
        Some((Weather::true_wall_ns(storm_ns, true_ns) / second + self.store_ahead_secs?) * second)
    }

    /// The true wall clock: an hour begins in the middle of the faults.
    fn true_wall_ns(storm_ns: u64, true_ns: u64) -> i64 {
        HOUR_SECS * SECOND as i64 - (storm_ns / 2) as i64 + true_ns as i64
    }

    /// When schedules are due after the faults, as true times of the run: the first two times at least half an hour after their end.
    pub fn due_after(&self, storm_ns: u64) -> [u64; 2] {
        let every = EVERY_MS * (SECOND / 1000);
        let ahead = self.store_ahead_secs.unwrap_or(0).rem_euclid(3600) as u64 * SECOND;
        // The store's full hours, in true time.
        let first = (storm_ns / 2 + every).saturating_sub(ahead);
        let mut due = first;
        while due < storm_ns + every / 2 {
            due += every;
        }
        [due, due + every]
    }

    /// Whether schedules must run to the minute: all nodes follow one clock.
    pub fn is_exact(&self) -> bool {
        self.punctual && (self.store_ahead_secs.is_some() || self.clocks == Clocks::Right)
    }

    /// Whether a volume can be opened at a true time of the run; `gone`: it is the one that may be gone for good.
    pub fn is_there(&self, seed: u64, volume: usize, gone: bool, storm_ns: u64, true_ns: u64) -> bool {
        if !self.absent {
            return true;
        }
        let at = |permille: u64| storm_ns / 1000 * permille;
        if self.gone.is_some_and(|from| gone && true_ns >= at(from)) {
            return false;
        }
        let from = mix(seed, 300 + 2 * volume as u64) % 1000;
        let to = (from + mix(seed, 301 + 2 * volume as u64) % 600).min(1000);
        !(at(from)..at(to)).contains(&true_ns)
    }

    /// How often the usual lease fits into a node's own.
    pub fn lease_times(&self, seed: u64, node: usize) -> u64 {
        if self.lengths { 1 + mix(seed, 200 + node as u64) % LEASE_TIMES_MAX } else { 1 }
    }
}

/// The longest lease, in usual ones.
pub const LEASE_TIMES_MAX: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_begin_amid_the_faults_and_are_found_again_after_them() {
        let storm = 600 * SECOND;
        let hour = |ns: i64| ns.rem_euclid(3600 * SECOND as i64);
        assert_eq!(hour(Weather::true_wall_ns(storm, storm / 2)), 0);
        for ahead in [0, 120, -1800, 5400, 366 * 86_400] {
            let weather = Weather { store_ahead_secs: Some(ahead), ..Weather::default() };
            for due in weather.due_after(storm) {
                assert!(due >= storm + 1800 * SECOND && due < storm + QUIET_NS, "{ahead}");
                let said = weather.store_wall_ns(storm, due).unwrap();
                assert_eq!(hour(said), 0, "{ahead}");
            }
        }
    }

    #[test]
    fn each_kind_comes_in_enough_seeds_and_in_none_of_most() {
        let all: Vec<Weather> = (0..2000).map(|seed| Weather::of(seed, 2, false)).collect();
        let count = |is: fn(&Weather) -> bool| all.iter().filter(|weather| is(weather)).count();
        for (what, count, range) in [
            ("punctual", count(|w| w.punctual), 100..250),
            ("exact", count(Weather::is_exact), 80..240),
            ("busy", count(|w| w.busy), 15..50),
            ("grave", count(|w| w.grave.is_some()), 400..600),
            ("hermit", count(|w| w.hermit.is_some()), 150..250),
            ("hang", count(|w| w.hang_ns > 0), 150..250),
            ("crowd", count(|w| w.crowd), 60..150),
            ("lengths", count(|w| w.lengths), 150..250),
            ("restless", count(|w| w.restless), 200..300),
            ("owners", count(|w| w.owners), 230..370),
            ("absent", count(|w| w.absent), 150..270),
            ("gone", count(|w| w.gone.is_some()), 40..100),
            ("slow to open", count(|w| w.slow_open_ns > 0), 50..110),
            ("watched", count(|w| w.watched), 150..250),
            ("careless", count(|w| w.careless), 170..300),
        ] {
            assert!(range.contains(&count), "{what}: {count}");
        }
        assert_eq!(Weather::of(13, 2, false), Weather::default());
        assert!((0..99).all(|seed| Weather::of(seed, 1, false).grave.is_none()));
        let there = |weather: &Weather, gone, at| weather.is_there(1, 0, gone, 1000, at);
        let away = Weather { absent: true, gone: Some(900), ..Weather::default() };
        assert!(
            there(&Weather::default(), true, 999) && !there(&away, true, 900) && !there(&away, true, 9000)
        );
        assert!(there(&away, false, 1000) && (0..1000).any(|at| !there(&away, false, at)));
    }
}
