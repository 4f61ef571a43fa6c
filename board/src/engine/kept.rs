//! The volumes of one policy, opened before anybody is asked for a lease and kept open as long as the backup
//! runs: whoever looks at one and whoever works on it get the same.
//!
//! Invariants: a volume is in one hand at a time; what could not be opened at first is not tried again.
//! Source: ours.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use windlass_agent::drive::job::Settings;
use windlass_agent::id::VolumeId;
use windlass_agent::log::state::State;
use windlass_agent::policy::select::Unmatched;
use windlass_agent::policy::{Policy, Reader};
use windlass_agent::progress::Progress;
use windlass_hal::buf::Pool;

use super::volumes::{Opened, Volumes, open_selected};
use crate::engine::limits::Iops;
use crate::engine::within;
use crate::failure::Failure;

/// A volume that could not be opened.
#[derive(Clone, Debug)]
pub struct Missing {
    /// Its number.
    pub id: VolumeId,
    /// As the policy names it.
    pub device: String,
    /// Why.
    pub why: String,
}

/// See the module.
pub struct Kept {
    policy: Policy,
    iops: Iops,
    frames: Pool,
    open: Mutex<BTreeMap<VolumeId, Opened>>,
    missing: Vec<Missing>,
    unmatched: Vec<String>,
    warnings: Vec<String>,
}

impl Kept {
    /// Opens the volumes of a policy; devices register the buffers of `frames`. `urls` are those of the
    /// repository, which may lie in a volume. What cannot be opened is [missing](Kept::missing).
    ///
    /// # Errors
    /// No volume can be opened, or `job` was asked to stop.
    pub fn open(
        policy: &Policy,
        state: &State,
        settings: &Settings,
        iops: Iops,
        frames: Pool,
        urls: &[&str],
        job: &Progress,
    ) -> Result<Kept, Failure> {
        let mut kept = Kept {
            policy: policy.clone(),
            iops,
            frames,
            open: Mutex::default(),
            missing: Vec::new(),
            unmatched: Vec::new(),
            warnings: Vec::new(),
        };
        let patterns = policy.patterns().map_err(Failure::new)?;
        let (mut open, mut bytes, mut all) = (BTreeMap::new(), 0u64, true);
        let mut unmatched = Unmatched::first(policy.include.len());
        for wanted in &policy.volumes {
            if !PathBuf::from(&wanted.device).is_absolute() {
                return Err(Failure::at(
                    &wanted.device,
                    "a volume of a board profile, which an agent knows; start `windlass agent` and leave out --alone",
                ));
            }
            let id = number(state, policy, &wanted.device)?;
            let opened = match kept.open_one(id, &wanted.device, wanted.reader, settings, job) {
                Ok(opened) => opened,
                Err(failure) if job.is_stop_requested() || policy.volumes.len() == 1 => return Err(failure),
                Err(failure) => {
                    let (device, why) = (wanted.device.clone(), failure.to_string());
                    kept.missing.push(Missing { id, device, why });
                    continue;
                }
            };
            let info = opened.job.volume.info();
            let warning = within::warning(urls.iter().copied(), &opened.device, info, &patterns);
            kept.warnings.extend(warning);
            job.items_total.add(opened.found.items);
            // How many bytes a selection has is not known: the bar goes by items.
            all &= opened.whole;
            bytes = bytes.saturating_add(info.used_bytes);
            unmatched = unmatched.of_both(&opened.found.unmatched);
            open.insert(id, opened);
        }
        kept.missing.sort_by_key(|missing| missing.id);
        if open.is_empty() {
            let all: Vec<&str> = kept.missing.iter().map(|missing| missing.why.as_str()).collect();
            let why = all.join("; ");
            return Err(Failure::new(format_args!("no volume of {} can be opened: {why}", policy.name)));
        }
        job.bytes_total.set(if all { bytes } else { 0 });
        kept.unmatched = unmatched.places().filter_map(|at| policy.include.get(at).cloned()).collect();
        kept.open = Mutex::new(open);
        Ok(kept)
    }

    fn open_one(
        &self,
        id: VolumeId,
        device: &str,
        reader: Reader,
        settings: &Settings,
        job: &Progress,
    ) -> Result<Opened, Failure> {
        let path = PathBuf::from(device);
        let pools = std::slice::from_ref(&self.frames);
        let opened = open_selected(&path, reader, self.iops.clone(), pools, &self.policy, None, job)?;
        let patterns = self.policy.patterns().map_err(Failure::new)?;
        let rules = settings.rules(&patterns, reader, self.policy.all_blocks);
        Ok(Opened::new(id, &path, reader, self.iops.clone(), opened, rules, settings))
    }

    /// Volumes that could not be opened, ascending.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Include patterns that match nothing on any volume.
    pub fn unmatched(&self) -> &[String] {
        &self.unmatched
    }

    /// What to tell of the volumes.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Those that are open and in nobody's hand.
    pub fn at_rest(&self) -> MutexGuard<'_, BTreeMap<VolumeId, Opened>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Volumes for Kept {
    fn titles(&self) -> Vec<String> {
        self.policy.volumes.iter().map(|volume| volume.device.clone()).collect()
    }

    fn open(
        &self,
        id: VolumeId,
        state: &State,
        policy: &Policy,
        settings: &Settings,
        _: &[Pool],
    ) -> Result<Opened, Failure> {
        if *policy != self.policy {
            return Err(Failure::new(format_args!(
                "policy {} was changed while the backup began; start it again",
                policy.name
            )));
        }
        if let Some(missing) = self.missing.iter().find(|missing| missing.id == id) {
            return Err(Failure::new(&missing.why));
        }
        if let Some(opened) = self.at_rest().remove(&id) {
            return Ok(opened);
        }
        // It is being worked on, or that ended in a fault.
        let device = state.volumes.get(&id).map_or("", |volume| volume.device.as_str());
        let wanted = policy.volumes.iter().find(|volume| volume.device == device);
        let reader = wanted.map_or(Reader::Auto, |volume| volume.reader);
        self.open_one(id, device, reader, settings, &Progress::new())
    }

    fn close(&self, opened: Opened) {
        self.at_rest().entry(opened.job.id).or_insert(opened);
    }
}

fn number(state: &State, policy: &Policy, device: &str) -> Result<VolumeId, Failure> {
    let mut known = state.volumes.iter();
    let found = known.find(|(_, volume)| volume.policy == policy.name && volume.device == device);
    found.map(|(id, _)| *id).ok_or_else(|| {
        Failure::at(device, format_args!("not registered; run `windlass policy set {}` again", policy.name))
    })
}
