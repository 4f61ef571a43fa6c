//! Volumes: found by the name that a policy uses, opened, and told apart. Those of a board profile, or those
//! of one policy, which stay open as long as its backup runs. Source: ours.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use windlass_agent::drive::job::{Settings, VolumeJob};
use windlass_agent::id::VolumeId;
use windlass_agent::log::state::State;
use windlass_agent::policy::select::{self, Selection, Unmatched};
use windlass_agent::policy::selected::Selected;
use windlass_agent::policy::{Policy, Reader, sample};
use windlass_agent::progress::{Phase, Progress};
use windlass_agent::work::Found;
use windlass_agent::worker::density::Marks;
use windlass_agent::worker::stretch;
use windlass_hal::block::BlockDevice;
use windlass_hal::buf::Pool;
use windlass_hal::volume::Volume;
use windlass_hal::volume::image::Image;

use crate::engine::limits::{Divided, Iops};
use crate::engine::machinery::{open_device, open_volume, refuse_written};
use crate::engine::within;
use crate::failure::Failure;
use crate::{profile, text};

/// Volumes that a node may open. Threads share it.
pub trait Volumes: Send + Sync {
    /// Their names, as policies use them.
    fn titles(&self) -> Vec<String>;

    /// Opens volume `id` of a policy.
    fn open(
        &self,
        id: VolumeId,
        state: &State,
        policy: &Policy,
        settings: &Settings,
        pools: &[Pool],
    ) -> Result<Opened, Failure>;

    /// Takes a volume back that nobody works on any more; it may be kept open for the next who asks.
    fn close(&self, opened: Opened) {
        drop(opened);
    }
}

/// A volume that was opened for a backup.
pub struct Opened {
    /// What a job reads.
    pub job: VolumeJob,
    /// What the coordinator is told.
    pub found: Found,
    /// Where it is.
    pub device: PathBuf,
    /// How it is read.
    pub reader: Reader,
    /// Operations a second on its device at most.
    pub iops: Iops,
    /// Whether all of it is backed up.
    pub whole: bool,
}

impl Opened {
    /// Of what was opened, under the rules by which items of it are taken.
    pub fn new(
        id: VolumeId,
        path: &Path,
        reader: Reader,
        iops: Iops,
        opened: Selectable,
        rules: [u8; 16],
        settings: &Settings,
    ) -> Opened {
        let Selectable { device, volume, items, whole, unmatched } = opened;
        let (end, grain) = stretch::span(volume.info(), &settings.shape());
        let bytes = volume.info().used_bytes;
        let job = VolumeJob { id, device, volume, rules };
        let found =
            Found { volume: job.found(), end, grain, items, bytes, unmatched, marks: Marks::default() };
        Opened { job, found, device: path.to_owned(), reader, iops, whole }
    }
}

/// The profile's volumes, and the limit on operations of their devices; both may change while the agent runs.
/// With them the repository's URL.
#[derive(Clone, Debug)]
pub struct Listed(Arc<RwLock<(Vec<profile::Volume>, Option<u32>)>>, Option<String>, Divided);

impl Listed {
    /// Those of a profile.
    pub fn new(profile: &profile::Profile) -> Listed {
        let volumes = (profile.volume.clone(), profile.limits.device_iops);
        let url = profile.repository.url.as_ref().map(|url| url.value.clone());
        Listed(Arc::new(RwLock::new(volumes)), url, Divided::default())
    }

    /// How many nodes work on policies: operations on devices are divided by that.
    pub fn divided(&self) -> Divided {
        self.2.clone()
    }

    /// The profile was read again.
    pub fn replace(&self, profile: &profile::Profile) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) =
            (profile.volume.clone(), profile.limits.device_iops);
    }
}

impl Volumes for Listed {
    fn titles(&self) -> Vec<String> {
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        inner.0.iter().map(profile::Volume::title).collect()
    }

    /// Only what the profile names is opened, whatever a policy says, and read as the policy says before the
    /// profile.
    fn open(
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
        let iops = Iops::of(iops, policy, &self.2);
        let snapshot = own.snapshot.as_deref();
        let opened =
            open_selected(&own.device, reader, iops.clone(), pools, policy, snapshot, &Progress::new())?;
        let patterns = policy.patterns().map_err(Failure::new)?;
        let warning = within::warning(self.1.as_deref(), &own.device, opened.volume.info(), &patterns);
        if let Some(warning) = warning {
            log::warn!("volume: {warning}");
        }
        let rules = settings.rules(&patterns, reader, policy.all_blocks);
        Ok(Opened::new(id, &own.device, reader, iops, opened, rules, settings))
    }
}

/// A volume with what a policy selects of it.
pub struct Selectable {
    /// Where it is.
    pub device: Box<dyn BlockDevice>,
    /// What of it is backed up.
    pub volume: Box<dyn Volume>,
    /// How many items, as it counts them.
    pub items: u64,
    /// Whether that is all of it.
    pub whole: bool,
    /// Include patterns that match nothing on it.
    pub unmatched: Unmatched,
}

/// Opens a volume and finds out what a policy's patterns select: a sweep of its names, when there are any.
/// `snapshot` is what stands for the contents of a frozen device.
pub fn open_selected(
    path: &Path,
    reader: Reader,
    iops: Iops,
    pools: &[Pool],
    policy: &Policy,
    snapshot: Option<&str>,
    job: &Progress,
) -> Result<Selectable, Failure> {
    let mut device = open_device(path, iops, pools)?;
    refuse_written(path)?;
    let mut volume = match reader {
        Reader::Image if policy.all_blocks => Box::new(Image::open(&mut *device)),
        reader => open_volume(path, &mut *device, reader)?,
    };
    let patterns = policy.patterns().map_err(Failure::new)?;
    job.enter(Phase::Selecting);
    let (selection, unmatched) = select::build(&mut *volume, &mut *device, &patterns, job)
        .map_err(|fault| Failure::at(text::printable(path.as_os_str().as_encoded_bytes()), fault))?;
    let (whole, items) = match &selection {
        Selection::All => (true, volume.info().inodes_used),
        Selection::Only { inodes, .. } => (false, inodes.count()),
    };
    let sampled = |name| Ok::<_, windlass_hal::block::Fault>((name, sample::digest(&mut *device, name)?));
    let snapshot = snapshot.map(sampled).transpose();
    let snapshot =
        snapshot.map_err(|fault| Failure::at(text::printable(path.as_os_str().as_encoded_bytes()), fault))?;
    let volume = if whole && snapshot.is_none() {
        volume
    } else {
        Box::new(Selected::new(volume, selection, snapshot))
    };
    Ok(Selectable { device, volume, items, whole, unmatched })
}
