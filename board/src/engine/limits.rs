//! Limits of the traffic with the store and of operations on devices: the profile's, which are this node's, and those of the policy that is
//! backed up, which all nodes at work on it divide. The narrower holds. Each may change at any time, also while bytes move: a profile is
//! read again, nodes come and go, and a policy's limits may be others at other times of the day.
//!
//! Source: ours; `policy::hours`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use windlass_agent::policy::hours::Rates;
use windlass_agent::policy::zone::Zone;
use windlass_agent::policy::{Limits, Policy};
use windlass_agent::store::throttle::Throttle;

use crate::engine::host::HostClock;
use crate::profile;

/// How long limits of operations hold until the clock is looked at again, in nanoseconds: hours begin with a minute.
const IOPS_LOOK_NS: u64 = 1_000_000_000;

/// How many nodes work on policies, as the coordinator says: of others it is this node alone.
#[derive(Clone, Debug, Default)]
pub struct Divided(Arc<Mutex<BTreeMap<String, u32>>>);

impl Divided {
    fn inner(&self) -> MutexGuard<'_, BTreeMap<String, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, policy: &str, nodes: u32) {
        match nodes {
            0 | 1 => drop(self.inner().remove(policy)),
            _ => drop(self.inner().insert(policy.to_owned(), nodes)),
        }
    }

    fn of(&self, policy: &str) -> u32 {
        self.inner().get(policy).copied().unwrap_or(1)
    }
}

/// The limits of a policy.
#[derive(Clone, Debug)]
struct OfPolicy {
    name: String,
    limits: Limits,
    zone: Zone,
}

impl OfPolicy {
    fn new(policy: &Policy) -> OfPolicy {
        OfPolicy { name: policy.name.clone(), limits: policy.limits.clone(), zone: policy.zone.clone() }
    }

    /// This node's part of what holds now.
    fn part(&self, divided: &Divided, wall_ns: i64) -> Rates {
        self.limits.at(&self.zone, wall_ns).part(divided.of(&self.name))
    }
}

/// How many operations a second a device may be asked for.
#[derive(Clone, Debug, Default)]
pub struct Iops {
    /// By the profile, or by a command in place of the policy.
    own: Option<u32>,
    policy: Option<(Box<OfPolicy>, Divided)>,
}

impl From<Option<u32>> for Iops {
    fn from(own: Option<u32>) -> Iops {
        Iops { own, policy: None }
    }
}

impl Iops {
    /// The profile's, and a policy's as it is divided.
    #[must_use]
    pub fn of(own: Option<u32>, policy: &Policy, divided: &Divided) -> Iops {
        let policy = policy.limits.limits_iops().then(|| (Box::new(OfPolicy::new(policy)), divided.clone()));
        Iops { own, policy }
    }

    /// What a command says in place of the policy, else what that says.
    #[must_use]
    pub fn of_command(own: Option<u32>, policy: &Policy) -> Iops {
        if own.is_some() { own.into() } else { Iops::of(None, policy, &Divided::default()) }
    }

    /// Whether there is no limit at any time.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.own.is_none() && self.policy.is_none()
    }

    /// The limit at a moment, if there is one then.
    #[must_use]
    pub fn at(&self, wall_ns: i64) -> Option<u32> {
        let policy =
            self.policy.as_ref().map_or(0, |(policy, divided)| policy.part(divided, wall_ns).device_iops);
        let iops = narrower(u64::from(self.own.unwrap_or(0)), u64::from(policy));
        u32::try_from(iops).ok().filter(|&iops| iops > 0)
    }

    /// The same from call to call, by this machine's clocks, which are looked at once a second.
    pub fn now(self) -> impl FnMut() -> Option<u32> + Send {
        let (mut looked_ns, mut known) = (None, None);
        move || {
            let now_ns = HostClock.boot_ns();
            if looked_ns.is_none_or(|before: u64| now_ns.saturating_sub(before) >= IOPS_LOOK_NS) {
                (looked_ns, known) = (Some(now_ns), self.at(HostClock.wall_ns()));
            }
            known
        }
    }
}

/// What was said last.
#[derive(Default)]
struct Said {
    /// The profile's, in bytes a second; 0: no limit.
    profile: (u64, u64),
    policy: Option<OfPolicy>,
}

/// See the module.
pub struct StoreLimits {
    throttle: Arc<Throttle>,
    /// Go before the policy's, upload and download: somebody has said them for this one backup.
    given: (Option<u64>, Option<u64>),
    divided: Divided,
    said: Mutex<Said>,
}

impl StoreLimits {
    /// Those of a profile hold at once.
    pub fn new(throttle: Arc<Throttle>, profile: &profile::Limits, divided: Divided) -> StoreLimits {
        let limits = StoreLimits { throttle, given: (None, None), divided, said: Mutex::default() };
        limits.set_profile(profile);
        limits
    }

    /// Those that somebody gives in place of a policy's, in bytes a second; 0: none.
    pub fn of_command(throttle: Arc<Throttle>, upload: Option<u64>, download: Option<u64>) -> StoreLimits {
        StoreLimits {
            throttle,
            given: (upload, download),
            divided: Divided::default(),
            said: Mutex::default(),
        }
    }

    /// The profile was read again.
    pub fn set_profile(&self, profile: &profile::Limits) {
        let bytes = |kib: Option<u32>| kib.map_or(0, |kib| u64::from(kib) << 10);
        self.change(|said| said.profile = (bytes(profile.upload_kib_s), bytes(profile.download_kib_s)));
    }

    /// A backup of a policy begins.
    pub fn set_policy(&self, policy: &Policy) {
        self.change(|said| said.policy = Some(OfPolicy::new(policy)));
    }

    /// So many nodes work on a policy.
    pub fn divide(&self, policy: &str, nodes: u32) {
        self.divided.set(policy, nodes);
        self.turn();
    }

    /// Time has passed: call it every some seconds.
    pub fn turn(&self) {
        self.change(|_| {});
    }

    fn change(&self, change: impl FnOnce(&mut Said)) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut said);
        self.apply(&said, HostClock.wall_ns());
    }

    fn apply(&self, said: &Said, wall_ns: i64) {
        let part = said.policy.as_ref().map(|policy| policy.part(&self.divided, wall_ns)).unwrap_or_default();
        let policy = (self.given.0.unwrap_or(part.upload), self.given.1.unwrap_or(part.download));
        self.throttle.set(narrower(said.profile.0, policy.0), narrower(said.profile.1, policy.1));
    }
}

fn narrower(one: u64, other: u64) -> u64 {
    match (one, other) {
        (0, rate) | (rate, 0) => rate,
        (one, other) => one.min(other),
    }
}

#[cfg(test)]
mod tests {
    use windlass_hal::clock::SystemClock;

    use super::*;

    const KIB: u64 = 1 << 10;

    fn policy(upload: Option<u64>, download: Option<u64>, hours: &[&str]) -> Policy {
        let mut policy = Policy::new("p", Vec::new());
        let hours = hours.iter().map(|text| text.parse().unwrap()).collect();
        policy.limits = Limits { upload, download, device_iops: None, hours };
        policy
    }

    #[test]
    fn the_narrower_holds_from_when_it_is_said() {
        let throttle = Arc::new(Throttle::new(Arc::new(SystemClock), 0, 0));
        let own = |upload_kib_s, download_kib_s| profile::Limits {
            upload_kib_s,
            download_kib_s,
            ..profile::Limits::default()
        };
        let limits = StoreLimits::new(Arc::clone(&throttle), &own(Some(4), None), Divided::default());
        assert_eq!(throttle.rates(), (4096, 0));
        limits.set_policy(&policy(Some(5000), Some(70), &[]));
        assert_eq!(throttle.rates(), (4096, 70));
        limits.set_profile(&own(None, Some(1)));
        assert_eq!(throttle.rates(), (5000, 70));
        limits.set_policy(&policy(None, None, &[]));
        assert_eq!(throttle.rates(), (0, 1024));
        let limits = StoreLimits::of_command(Arc::clone(&throttle), Some(0), None);
        limits.set_policy(&policy(Some(5000), Some(70), &["00:00-12:00 1MiB/s", "12:00-00:00 1MiB/s"]));
        assert_eq!(throttle.rates(), (0, 70), "what is given goes before the policy");
    }

    #[test]
    fn limits_follow_the_time_of_day_and_the_nodes_at_work() {
        let throttle = Arc::new(Throttle::new(Arc::new(SystemClock), 0, 0));
        let divided = Divided::default();
        let limits = StoreLimits::new(Arc::clone(&throttle), &profile::Limits::default(), divided.clone());
        let day = policy(Some(800 * KIB), None, &["08:00-18:00 400KiB/s iops 90", "00:00-01:00 up 0"]);
        limits.set_policy(&day);
        let at = |hour: i64| {
            limits.apply(&limits.said.lock().unwrap(), hour * 3_600_000_000_000);
            throttle.rates().0 / KIB
        };
        assert_eq!((at(0), at(7), at(8), at(17), at(18)), (0, 800, 400, 400, 800));
        limits.divide("p", 4);
        limits.divide("other", 100);
        assert_eq!((at(0), at(7), at(8)), (0, 200, 100));
        let (iops, noon_ns) = (Iops::of(Some(50), &day, &divided), 12 * 3_600_000_000_000);
        assert_eq!((iops.at(0), iops.at(noon_ns)), (Some(50), Some(22)));
        limits.divide("p", 1);
        assert_eq!((at(8), iops.at(noon_ns)), (400, Some(50)));
        assert_eq!(Iops::of_command(None, &day).at(noon_ns), Some(90));
        assert_eq!(Iops::of_command(Some(7), &day).at(noon_ns), Some(7));
        assert!(Iops::of(None, &policy(Some(1), None, &["00:00-01:00 up 0"]), &divided).is_none());
        // Both halves of the day have the same, so that whatever the time is it is this.
        limits.set_policy(&policy(None, None, &["00:00-12:00 128KiB/s", "12:00-00:00 128KiB/s"]));
        assert_eq!(throttle.rates().0, 128 * KIB);
    }
}
