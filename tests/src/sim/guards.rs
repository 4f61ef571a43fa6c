//! Points that are held, guarded, expired and brought back: what users do to them, and the books about it, by plainer means than the
//! product's.
//!
//! | rule | when it is checked |
//! |---|---|
//! | P2 | a backup ends, and its policy has asked for a minimum age or an undo window ever since it began: its guard is in the same slot |
//! | P2 | a point leaves: it is not held, not younger than its guard says, and not brought back a moment before |
//! | P2 | a point goes for good: it had expired, and its window is over; or it has no window |
//! | P2 | the time in a record is that of a node's clock, whatever a user says |
//! | P9 | a subject holds a point: it has had a role that lets it |
//! | P2 | a point expires where rules alone expire points: the rule does not keep it |
//!
//! Does not: know which node's clock is right (`sim::clock` lets them drift). Source: ours.

use std::collections::{BTreeMap, BTreeSet};

use windlass_agent::format::access::{AccessNews, Grant};
use windlass_agent::format::guard::{Guard, GuardPart, PointGuard};
use windlass_agent::format::mark::{MarkPart, PointMark};
use windlass_agent::format::record::{PolicyChange, Record};
use windlass_agent::id::BackupId;
use windlass_agent::log::state::State;
use windlass_agent::policy::retention::{Count, Retention};
use windlass_agent::policy::{Policy, PolicyVolume, Reader, Safety};
use windlass_agent::work::Command;
use windlass_agent::work::entry::Role;
use windlass_hal::sim::prng::Prng;

use super::Verdict;
use super::options::Options;

/// In seeds with this remainder by eight, policies have rules, guards and other names. None of them is kept for something else.
const GUARD_SEEDS: u64 = 1;
/// Of seeds by this number, in one of these each users expire no points: a rule alone does, and the books follow it.
const RULE_SEEDS: u64 = 32;
const LAST_SEEDS: u64 = 9;
const WITHIN_SEEDS: u64 = 25;
/// The newest points that the one rule keeps.
const LAST: u32 = 2;
/// Hours before the newest point in which the other keeps all: longer than a run without schedules, so that there only a clock can make a
/// point old.
const WITHIN_HOURS: u32 = 1;
/// Of seeds with schedules that are watched, by two: in these a rule expires points.
const SCHEDULED_SEEDS: u64 = 1;
const HOUR_NS: i64 = 3_600_000_000_000;
/// Of what a policy excludes, where a rule alone expires points.
const RULES_ALONE: &str = "rules-alone";
/// In every second of the seeds with guards a subject asks too, which has a role at times.
const SUBJECT_SEEDS: u64 = 32;
/// That subject; and what it says of points that it holds.
const SUBJECT: &str = "uid:9";
/// Who is administrator meanwhile.
const ADMINISTRATOR: &str = "uid:0";
/// No clock of a simulated node comes so far, in nanoseconds: a user's word for a time is beyond.
const NO_CLOCK_NS: i64 = i64::MAX / 4;

/// Whether a seed has guards.
#[must_use]
pub fn is_on(options: &Options) -> bool {
    // Schedules that are watched, and a volume that is backed up all the time, are of policies that keep their names.
    options.seed % 8 == GUARD_SEEDS && !options.weather.punctual && !options.weather.busy
}

/// Which rules a seed's policies have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// Some that keep few points; users expire points too.
    Any,
    /// The newest points stay, and users expire none.
    Last,
    /// All within some hours stay, and users expire none.
    Within,
}

/// The rules of a seed.
#[must_use]
pub fn rules(options: &Options) -> Rules {
    match options.seed % RULE_SEEDS {
        // There users expire points whatever the rules are.
        _ if options.garbage => Rules::Any,
        LAST_SEEDS => Rules::Last,
        WITHIN_SEEDS => Rules::Within,
        _ => Rules::Any,
    }
}

/// The rule by which alone points of schedules that are watched expire, in half of those seeds: points are an hour apart, so that a little
/// more or less than an hour ago decides.
#[must_use]
pub fn scheduled_rules(options: &Options) -> Option<Rules> {
    // There users expire points whatever the rules are.
    (!options.garbage && options.seed % 2 == SCHEDULED_SEEDS).then_some(Rules::Within)
}

/// The policy's points expire by a rule alone.
pub fn keep_by(policy: &mut Policy, rules: Rules) {
    match rules {
        Rules::Any => {}
        Rules::Last => policy.retention.last = Count::Newest(LAST),
        Rules::Within => policy.retention.within.hours = WITHIN_HOURS,
    }
    policy.exclude.push(RULES_ALONE.to_owned());
}

/// A body of a policy: rules that keep few points, and at times a minimum age and a window to bring points back.
pub fn body(prng: &mut Prng, rules: Rules, name: &str, devices: &[String], lease_ns: u64) -> Vec<u8> {
    let volume = |device: &String| PolicyVolume { device: device.clone(), reader: Reader::Auto };
    let mut policy = Policy::new(name, devices.iter().map(volume).collect());
    let last = 1 + prng.below(3) as u32;
    // Each body is another one.
    policy.exclude = vec![format!("x{:x}", prng.next_u64())];
    match rules {
        Rules::Any => policy.retention.last = Count::Newest(last),
        Rules::Last | Rules::Within => keep_by(&mut policy, rules),
    }
    let ms = |prng: &mut Prng| if prng.one_in(3) { 0 } else { prng.below(8 * lease_ns / 1_000_000) };
    policy.safety = Safety { min_age: ms(prng), undo: ms(prng), approval: None };
    policy.priority = prng.below(3) as i8;
    policy.emit().unwrap_or_default()
}

/// What a policy is called now: users give it another name and its old one back.
#[must_use]
pub fn name_of(state: &State, policy: usize) -> String {
    let other = format!("r{policy}");
    if state.policies.contains_key(&other) { other } else { format!("p{policy}") }
}

/// A policy, whatever it is called at the moment.
#[must_use]
pub fn index_of(name: &str) -> String {
    name.trim_start_matches(['p', 'r']).to_owned()
}

/// What a user asks for; `None`: there is nothing to do it to.
pub fn wish(prng: &mut Prng, options: &Options, state: &State, policy: usize) -> Option<Command> {
    if options.seed % SUBJECT_SEEDS < SUBJECT_SEEDS / 2 && prng.one_in(4) {
        return subjects(prng, state);
    }
    user(prng, rules(options), state, policy).map(Command::Submit)
}

/// A subject holds a point, if it may; or its roles are set, with those of an administrator in front.
fn subjects(prng: &mut Prng, state: &State) -> Option<Command> {
    let roles = |subject: &str, role: Option<Role>| {
        let grants = role.map(|role| Grant { role, policy: String::new() }).into_iter().collect();
        Record::Access(AccessNews::Roles { subject: subject.to_owned(), grants })
    };
    if prng.one_in(8) {
        let role = if prng.one_in(2) { Some(Role::Operator) } else { Some(Role::Viewer) };
        let role = role.filter(|_| !prng.one_in(3));
        let records = vec![roles(ADMINISTRATOR, Some(Role::Administrator)), roles(SUBJECT, role)];
        return Some(Command::Submit(records));
    }
    let points: Vec<BackupId> = state.points.keys().copied().collect();
    let backup = *points.get(prng.below(points.len() as u64) as usize)?;
    let part = MarkPart::Hold(SUBJECT.to_owned());
    let command = Command::Submit(vec![Record::PointMarked(PointMark { backup, part })]);
    Some(Command::As { subject: SUBJECT.to_owned(), command: Box::new(command) })
}

/// What a user does to a point, or to a policy's name.
fn user(prng: &mut Prng, rules: Rules, state: &State, policy: usize) -> Option<Vec<Record>> {
    if prng.one_in(6) {
        return rename(state, policy, Vec::new());
    }
    let points: Vec<BackupId> = state.points.keys().copied().collect();
    let backup = *points.get(prng.below(points.len() as u64) as usize)?;
    let guard = |part| Record::PointGuarded(PointGuard { backup, part });
    let hold = |why: &str| Record::PointMarked(PointMark { backup, part: MarkPart::Hold(why.to_owned()) });
    let wishes = if rules == Rules::Any { 6 } else { 3 };
    Some(vec![match prng.below(wishes) {
        0 => hold("a user"),
        1 => hold(""),
        2 => guard(GuardPart::Undo),
        3 => Record::PointExpired { backup },
        // The time of who asks says nothing.
        _ => guard(GuardPart::Leave { wall_ns: i64::MAX }),
    }])
}

/// A policy gets its other name, and a body with that name in it; `body`: instead of one that is no policy's.
pub fn rename(state: &State, policy: usize, body: Vec<u8>) -> Option<Vec<Record>> {
    let from = name_of(state, policy);
    let to = if from.starts_with('p') { format!("r{policy}") } else { format!("p{policy}") };
    let entry = state.policies.get(&from)?;
    let body = match Policy::parse(&entry.body) {
        Ok(known) => Policy { name: to.clone(), ..known }.emit().ok()?,
        Err(_) => body,
    };
    let device = |id| state.volumes.get(id).map_or_else(String::new, |volume| volume.device.clone());
    let volumes = entry.volumes.iter().map(|id| (*id, device(id))).collect();
    let revision = entry.revision + 1;
    let change = PolicyChange { name: to.clone(), revision: revision + 1, body, volumes };
    Some(vec![Record::PolicyRenamed { from, to, revision }, Record::PolicyChanged(change)])
}

/// The books.
#[derive(Debug, Default)]
pub struct Guards {
    /// By policy: whether each of its revisions has asked for guards since when.
    asking: BTreeMap<String, bool>,
    /// By policy: the rules that alone expire its points.
    alone: BTreeMap<String, Retention>,
    /// Running backups: their policy, whether that has asked for guards all the time, and when they began.
    running: BTreeMap<BackupId, (String, bool, i64)>,
    /// Points: their policy, and when they began.
    points: BTreeMap<BackupId, (String, i64)>,
    /// Ended in the slot that is read, and to be guarded in it.
    wanted: BTreeSet<BackupId>,
    held: BTreeSet<BackupId>,
    guards: BTreeMap<BackupId, Guard>,
    leaving: BTreeMap<BackupId, i64>,
    /// Whether the subject has had a role that lets it hold points.
    has_had_role: bool,
}

impl Guards {
    /// A record is in the log. Returns the point that it takes away for good.
    ///
    /// # Errors
    /// It breaks a rule.
    pub fn record(&mut self, record: &Record) -> Verdict<Option<BackupId>> {
        match record {
            Record::PolicyChanged(change) => {
                let policy = Policy::parse(&change.body).ok();
                let asks = policy.as_ref().is_some_and(|policy| !policy.safety.is_none());
                self.asking.insert(change.name.clone(), asks);
                for (policy, always, _) in self.running.values_mut() {
                    *always &= asks || *policy != change.name;
                }
                let is_alone = |policy: &Policy| policy.exclude.iter().any(|rule| rule == RULES_ALONE);
                if let Some(policy) = policy.filter(is_alone) {
                    self.alone.insert(change.name.clone(), policy.retention);
                }
            }
            Record::PolicyRenamed { from, to, .. } => {
                if let Some(asks) = self.asking.remove(from) {
                    self.asking.insert(to.clone(), asks);
                }
                if let Some(rules) = self.alone.remove(from) {
                    self.alone.insert(to.clone(), rules);
                }
                self.running.values_mut().filter(|of| of.0 == *from).for_each(|of| of.0.clone_from(to));
                self.points.values_mut().filter(|of| of.0 == *from).for_each(|of| of.0.clone_from(to));
            }
            Record::BackupBegun(start) => {
                let asks = self.asking.get(&start.policy).copied().unwrap_or(false);
                self.running.insert(start.backup, (start.policy.clone(), asks, start.wall_start_ns));
            }
            Record::BackupEnded(end) => {
                if let Some((policy, always, begun_ns)) = self.running.remove(&end.backup) {
                    self.points.insert(end.backup, (policy, begun_ns));
                    self.wanted.extend(always.then_some(end.backup));
                }
            }
            Record::Access(AccessNews::Roles { subject, grants }) => {
                let lets = grants.iter().any(|grant| grant.role == Role::Operator);
                self.has_had_role |= subject == SUBJECT && lets;
            }
            Record::PointMarked(PointMark { backup, part: MarkPart::Hold(why) }) => {
                if why == SUBJECT && !self.has_had_role {
                    return Err(format!("P9: {SUBJECT} holds point {backup}, and never had a role for that"));
                }
                if why.is_empty() {
                    self.held.remove(backup);
                } else {
                    self.held.insert(*backup);
                }
            }
            Record::PointExpired { backup } => {
                if self.held.contains(backup) || self.guards.contains_key(backup) {
                    return Err(format!("P2: point {backup} is held or guarded, and goes"));
                }
                self.expires(*backup)?;
                self.points.remove(backup);
                return Ok(Some(*backup));
            }
            Record::PointGuarded(news) => return self.guarded(news),
            _ => {}
        }
        Ok(None)
    }

    /// A point expires: where a rule alone does that, it does not keep it.
    fn expires(&self, backup: BackupId) -> Verdict<()> {
        let Some((policy, begun_ns)) = self.points.get(&backup) else { return Ok(()) };
        let Some(rules) = self.alone.get(policy) else { return Ok(()) };
        let others =
            self.points.iter().filter(|(other, of)| of.0 == *policy && !self.leaving.contains_key(other));
        let newer = others.filter(|&(other, of)| (of.1, *other) > (*begun_ns, backup));
        let (mut count, mut newest_ns) = (0, *begun_ns);
        for (_, (_, other_ns)) in newer {
            count += 1;
            newest_ns = newest_ns.max(*other_ns);
        }
        let within_ns = i64::from(rules.within.hours) * HOUR_NS;
        let by_last = matches!(rules.last, Count::Newest(last) if count < last);
        if by_last || within_ns > newest_ns.saturating_sub(*begun_ns) {
            return Err(format!(
                "P2: point {backup} of {policy} expires, {count} are newer, and the newest by {} ns: its rule keeps it",
                newest_ns.saturating_sub(*begun_ns)
            ));
        }
        Ok(())
    }

    fn guarded(&mut self, news: &PointGuard) -> Verdict<Option<BackupId>> {
        let backup = news.backup;
        match news.part {
            GuardPart::Guard(guard) => {
                self.wanted.remove(&backup);
                let before = self.guards.entry(backup).or_default();
                before.until_ns = before.until_ns.max(guard.until_ns);
                before.undo_ns = before.undo_ns.max(guard.undo_ns);
            }
            GuardPart::Leave { wall_ns } => {
                let guard = self.guards.get(&backup).copied().unwrap_or_default();
                if wall_ns > NO_CLOCK_NS {
                    return Err(format!("P2: point {backup} leaves at {wall_ns}, which no clock shows"));
                }
                if self.held.contains(&backup) || wall_ns < guard.until_ns {
                    return Err(format!(
                        "P2: point {backup} leaves at {wall_ns}, and is held or has {guard:?}"
                    ));
                }
                if !self.leaving.contains_key(&backup) {
                    self.expires(backup)?;
                }
                match self.leaving.get(&backup) {
                    None if guard.undo_ns > 0 => {
                        self.leaving.insert(backup, wall_ns.saturating_add(guard.undo_ns as i64));
                    }
                    Some(&until_ns) if wall_ns < until_ns => {
                        return Err(format!("P2: point {backup} is gone at {wall_ns}, before {until_ns}"));
                    }
                    _ => {
                        self.leaving.remove(&backup);
                        self.guards.remove(&backup);
                        self.points.remove(&backup);
                        return Ok(Some(backup));
                    }
                }
            }
            GuardPart::Undo => {
                if self.leaving.remove(&backup).is_none() {
                    return Err(format!("P2: point {backup} is brought back, and had not expired"));
                }
            }
        }
        Ok(None)
    }

    /// A slot is read to its end.
    ///
    /// # Errors
    /// A point in it should be guarded, and is not.
    pub fn end_slot(&mut self) -> Verdict<()> {
        match self.wanted.pop_first() {
            Some(backup) => {
                Err(format!("P2: backup {backup} ends without the guard that its policy asks for"))
            }
            None => Ok(()),
        }
    }
}
