//! A restore of one volume of a point: to a directory, or of an image to a device or file.
//!
//! Does not: choose points or paths, or print. Source: ours; `agent::restore`.

use std::path::Path;
use std::sync::Arc;

use windlass_agent::id::{Lin, VolumeId};
use windlass_agent::log::state::{Point, State};
use windlass_agent::policy::select::Patterns;
use windlass_agent::progress::{Phase, Progress};
use windlass_agent::read::lookup::Lookup;
use windlass_agent::restore::device;
use windlass_agent::restore::file::RestoreOptions;
use windlass_agent::restore::owners::OwnerMap;
use windlass_agent::restore::place::Protected;
use windlass_agent::restore::target::Existing;
use windlass_agent::restore::walk::{self, RestoreReport, Root, Source, Work};
use windlass_agent::table::read::TableReader;
use windlass_agent::table::source::TableLimits;
use windlass_hal::volume::ItemKind;

use crate::engine::host;
use crate::engine::repository::Repository;
use crate::engine::settings::Access;
use crate::engine::wide::Wide;
use crate::failure::Failure;

/// Reads a point's tables of one volume.
pub type PointLookup = Lookup<Wide>;

/// Opens the tables of `volume` at `point`.
pub fn open_lookup(
    repository: &Repository,
    state: &State,
    point: &Point,
    volume: VolumeId,
) -> Result<PointLookup, Failure> {
    let segments = state.segments.get(&volume).map(|list| list.as_slice()).unwrap_or_default();
    let fetch = Wide(Arc::clone(&repository.opened.client));
    let reader = TableReader::new(fetch, &repository.keys, TableLimits::default(), segments);
    let reader = reader.ok_or_else(|| Failure::new("not enough memory to read the tables"))?;
    Ok(Lookup::new(reader, point.backup))
}

/// The directories of this machine that the repository is in.
pub fn protected(access: &Access) -> Protected {
    let urls = access.url.iter().chain(&access.lease_store);
    Protected::of(urls.filter_map(|url| url.strip_prefix("file://")).map(Path::new))
}

/// A restore of a point, and everything that it needs.
pub struct Restoring<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// Its log.
    pub state: &'a State,
    /// The point.
    pub point: &'a Point,
    /// What becomes of names that are taken.
    pub existing: Existing,
    /// Other owners than the point has.
    pub owner_map: OwnerMap,
    /// The repository's own directories: nothing is restored into them.
    pub protected: Protected,
    /// What is left out.
    pub exclude: Patterns,
    /// Budget.
    pub memory_bytes: u64,
    /// For whoever watches.
    pub job: &'a Arc<Progress>,
}

impl Restoring<'_> {
    /// Restores a volume's tree, or paths of it, into a directory. An image becomes the file `image` in it.
    pub fn to_directory(
        &self,
        volume: VolumeId,
        paths: &[Vec<u8>],
        to: &Path,
    ) -> Result<RestoreReport, Failure> {
        let Restoring { repository, point, job, .. } = *self;
        job.enter(Phase::Planning);
        let mut lookup = open_lookup(repository, self.state, point, volume)?;
        let root = lookup.root(volume).map_err(Failure::new)?;
        if paths.is_empty() && point.volumes.len() == 1 && self.exclude.is_everything() {
            job.items_total.set(point.totals.items);
            job.bytes_total.set(point.totals.bytes_logical);
        }
        // A root that could not be read: what it held is restored without it.
        let lin = root.as_ref().map_or(Lin { volume, inode: 0 }, |(lin, _)| *lin);
        let is_image = root.is_some_and(|(_, item)| item.kind != ItemKind::Directory);
        let name = if is_image { b"image".to_vec() } else { Vec::new() };
        let options = RestoreOptions {
            existing: self.existing,
            keep_damaged: false,
            sync: true,
            owners: nix::unistd::geteuid().is_root(),
            owner_map: self.owner_map.clone(),
            repository: self.protected.clone(),
            exclude: self.exclude.clone(),
        };
        host::raise_descriptors();
        job.enter(Phase::Restoring);
        let mut source = Source { lookup, client: &repository.opened.client, keys: &repository.keys };
        let nonce = u64::from_le_bytes(host::random()?);
        let roots = [Root { lin, name }];
        let work = Work { roots: &roots, selection: paths, options, nonce, progress: job };
        let report = walk::run(&mut source, &work, to, self.memory_bytes);
        job.enter(Phase::Done);
        report.map_err(|fault| Failure::at(to.display(), fault))
    }

    /// Restores a volume's image to a device or file.
    pub fn to_device(&self, volume: VolumeId, path: &Path) -> Result<RestoreReport, Failure> {
        let Restoring { repository, job, .. } = *self;
        job.enter(Phase::Planning);
        let mut lookup = open_lookup(repository, self.state, self.point, volume)?;
        let root = lookup.root(volume).map_err(Failure::new)?;
        let image = root.filter(|(_, item)| item.kind == ItemKind::Image);
        let Some((lin, item)) = image else {
            return Err(Failure::usage("this volume was backed up as files; restore it with --to DIR"));
        };
        job.items_total.set(1);
        job.bytes_total.set(item.size);
        job.enter(Phase::Restoring);
        let mut source = Source { lookup, client: &repository.opened.client, keys: &repository.keys };
        let to = device::To {
            path,
            repository: &self.protected,
            in_place: self.existing == Existing::InPlace,
            nonce: u64::from_le_bytes(host::random()?),
            memory: self.memory_bytes,
            progress: job,
        };
        let report = device::run(&mut source, lin, &to);
        job.enter(Phase::Done);
        report.map_err(|fault| Failure::at(path.display(), fault))
    }
}
