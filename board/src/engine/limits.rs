//! Limits of the traffic with the store: the profile's and those of the policy that is backed up, of which
//! the narrower holds. Either may change at any time, also while bytes move.
//!
//! Source: ours.

use std::sync::{Arc, Mutex, PoisonError};

use windlass_agent::policy::Limits;
use windlass_agent::store::throttle::Throttle;

use crate::profile;

/// Bytes a second, to the store and from it; 0: no limit.
type Rates = (u64, u64);

/// See the module.
pub struct StoreLimits {
    throttle: Arc<Throttle>,
    /// Go before the policy's, upload and download: somebody has said them for this one backup.
    given: (Option<u64>, Option<u64>),
    /// The profile's and the policy's.
    said: Mutex<(Rates, Rates)>,
}

impl StoreLimits {
    /// Those of a profile hold at once.
    pub fn new(throttle: Arc<Throttle>, profile: &profile::Limits) -> StoreLimits {
        let limits = StoreLimits { throttle, given: (None, None), said: Mutex::default() };
        limits.set_profile(profile);
        limits
    }

    /// Those that somebody gives in place of a policy's, in bytes a second; 0: none.
    pub fn of_command(throttle: Arc<Throttle>, upload: Option<u64>, download: Option<u64>) -> StoreLimits {
        StoreLimits { throttle, given: (upload, download), said: Mutex::default() }
    }

    /// The profile was read again.
    pub fn set_profile(&self, profile: &profile::Limits) {
        let bytes = |kib: Option<u32>| kib.map_or(0, |kib| u64::from(kib) << 10);
        let rates = (bytes(profile.upload_kib_s), bytes(profile.download_kib_s));
        self.change(|said| said.0 = rates);
    }

    /// A backup of a policy begins.
    pub fn set_policy(&self, policy: &Limits) {
        let rate = |given: Option<u64>, said: Option<u64>| given.or(said).unwrap_or(0);
        let rates = (rate(self.given.0, policy.upload), rate(self.given.1, policy.download));
        self.change(|said| said.1 = rates);
    }

    fn change(&self, change: impl FnOnce(&mut (Rates, Rates))) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut said);
        let (profile, policy) = *said;
        self.throttle.set(narrower(profile.0, policy.0), narrower(profile.1, policy.1));
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

    #[test]
    fn the_narrower_holds_from_when_it_is_said() {
        let throttle = Arc::new(Throttle::new(Arc::new(SystemClock), 0, 0));
        let own = |upload_kib_s, download_kib_s| profile::Limits {
            upload_kib_s,
            download_kib_s,
            ..profile::Limits::default()
        };
        let limits = StoreLimits::new(Arc::clone(&throttle), &own(Some(4), None));
        assert_eq!(throttle.rates(), (4096, 0));
        limits.set_policy(&Limits { upload: Some(5000), download: Some(70), ..Limits::default() });
        assert_eq!(throttle.rates(), (4096, 70));
        limits.set_profile(&own(None, Some(1)));
        assert_eq!(throttle.rates(), (5000, 70));
        limits.set_policy(&Limits::default());
        assert_eq!(throttle.rates(), (0, 1024));
        let limits = StoreLimits::of_command(Arc::clone(&throttle), Some(0), None);
        limits.set_policy(&Limits { upload: Some(5000), download: Some(70), ..Limits::default() });
        assert_eq!(throttle.rates(), (0, 70), "what is given goes before the policy");
    }
}
