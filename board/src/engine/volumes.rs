//! The volumes of a board profile: found by the name that a policy uses, opened, and told apart. Source: ours.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use windlass_agent::backplane::message::Found;
use windlass_agent::drive::job::{Settings, VolumeJob};
use windlass_agent::id::VolumeId;
use windlass_agent::log::state::State;
use windlass_agent::policy::{Policy, Reader};
use windlass_agent::progress::Progress;
use windlass_agent::worker::density::Marks;
use windlass_agent::worker::stretch;
use windlass_hal::buf::Pool;

use crate::commands::backup::{Selectable, open_selected};
use crate::failure::Failure;
use crate::{profile, within};

/// The profile's volumes, and the limit on operations of their devices; both may change while the agent runs. With them the
/// repository's URL.
#[derive(Clone, Debug)]
pub struct Volumes(Arc<RwLock<(Vec<profile::Volume>, Option<u32>)>>, Option<String>);

/// A volume that was opened for a backup.
pub struct Opened {
    /// What a job reads.
    pub job: VolumeJob,
    /// What the coordinator is told.
    pub found: Found,
    /// Where it is, as the profile says.
    pub device: PathBuf,
    /// How it is read: the policy's word before the profile's.
    pub reader: Reader,
    /// Operations a second on its device at most.
    pub iops_max: Option<u32>,
}

impl Volumes {
    /// Those of a profile.
    pub fn new(profile: &profile::Profile) -> Volumes {
        let volumes = (profile.volume.clone(), profile.limits.device_iops);
        Volumes(Arc::new(RwLock::new(volumes)), profile.repository.url.as_ref().map(|url| url.value.clone()))
    }

    /// The profile was read again.
    pub fn replace(&self, profile: &profile::Profile) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) =
            (profile.volume.clone(), profile.limits.device_iops);
    }

    /// Their names, as policies use them.
    pub fn titles(&self) -> Vec<String> {
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        inner.0.iter().map(profile::Volume::title).collect()
    }

    /// Opens volume `id` of a policy. Only what the profile names is opened, whatever a policy says.
    pub fn open(
        &self,
        id: VolumeId,
        state: &State,
        policy: &Policy,
        settings: &Settings,
        pools: &[Pool],
    ) -> Result<Opened, Failure> {
        let device = state.volumes.get(&id).map_or("", |volume| volume.device.as_str());
        let (own, iops) = {
            let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
            (inner.0.iter().find(|volume| volume.title() == device).cloned(), inner.1)
        };
        let own = own.ok_or_else(|| {
            Failure::at(device, "not in this node's board profile; add a [[volume]] with that name")
        })?;
        let wanted = policy.volumes.iter().find(|volume| volume.device == device);
        let reader = match wanted.map_or(Reader::Auto, |volume| volume.reader) {
            Reader::Auto => own.reader,
            said => said,
        };
        let iops_max = match (iops, policy.limits.device_iops) {
            (Some(own), Some(said)) => Some(own.min(said)),
            (own, said) => own.or(said),
        };
        let snapshot = own.snapshot.as_deref();
        let opened = open_selected(&own.device, reader, iops_max, pools, policy, snapshot, &Progress::new())?;
        let patterns = policy.patterns().map_err(Failure::new)?;
        let warning = within::warning(self.1.as_deref(), &own.device, opened.volume.info(), &patterns);
        if let Some(warning) = warning {
            log::warn!("volume: {warning}");
        }
        let rules = settings.rules(&patterns, reader, policy.all_blocks);
        let Selectable { device, volume, items, unmatched, .. } = opened;
        let (end, grain) = stretch::span(volume.info(), &settings.shape());
        let bytes = volume.info().used_bytes;
        let job = VolumeJob { id, device, volume, rules };
        let found =
            Found { volume: job.found(), end, grain, items, bytes, unmatched, marks: Marks::default() };
        Ok(Opened { job, found, device: own.device.value, reader, iops_max })
    }
}
