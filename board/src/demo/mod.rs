//! `demo`: the main job on this machine, with nothing to configure and without root.
//!
//! ```text
//!  files of this machine --mke2fs -d--> image.ext4 --backup--> repository/ --restore--> restored/ --compare--> the same?
//!  a small image that is shipped -----> image.xfs  --backup-->             --restore--> restored-xfs/ --compare-->
//!  three agents, one of them killed --- all of it and more -->             --restore--> restored-cluster/ --compare-->
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`source`] | real files, copied up to a size |
//! | [`image`] | an ext4 image of them, and images that are shipped |
//! | [`cluster`] | three nodes as processes |
//! | [`compare`] | the restored directory against the image and the files |
//!
//! Everything goes through the same calls as the commands of the same names; what is left behind can be used by them.
//! Source: ours.

pub mod cluster;
pub mod compare;
pub mod image;
pub mod source;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use windlass_agent::format::record::{PolicyChange, Record};
use windlass_agent::id::{BackupId, VolumeId};
use windlass_agent::limits::LOCATION_BLOCKS_DEFAULT;
use windlass_agent::log::state::{Point, State};
use windlass_agent::policy::select::Patterns;
use windlass_agent::policy::{Policy, PolicyVolume, Reader};
use windlass_agent::progress::{Phase, Progress};
use windlass_agent::restore::owners::OwnerMap;
use windlass_agent::restore::target::Existing;
use windlass_agent::units::{Counted, Grouped, Human, HumanTime};

use crate::cli::args::Demo;
use crate::cli::args::global::Global;
use crate::cli::output::Output;
use crate::cli::progress::Watcher;
use crate::demo::cluster::Cluster;
use crate::engine::alone::{Alone, Outcome, run_policy};
use crate::engine::commit;
use crate::engine::host::{self, HostClock};
use crate::engine::machinery::{open_device, open_volume};
use crate::engine::repository::Repository;
use crate::engine::restore::{Restoring, protected};
use crate::engine::settings::Access;
use crate::failure::{Exit, Failure};
use crate::outcome::{self, puts_per_tib};
use crate::{signal, text};

/// One volume, which the demo backs up under a policy of its own.
struct Part {
    policy: &'static str,
    id: VolumeId,
    image: PathBuf,
    restored: PathBuf,
}

/// Where everything of a demo is.
struct Places {
    dir: PathBuf,
    files: PathBuf,
    ext4: Part,
    xfs: Part,
    repository: PathBuf,
    key: PathBuf,
}

impl Places {
    /// A new or empty directory.
    fn make(wanted: Option<&Path>) -> Result<Places, Failure> {
        let dir = match wanted {
            Some(dir) => std::path::absolute(dir).map_err(|error| Failure::at(dir.display(), error))?,
            None => {
                let name = format!("windlass-demo-{}", text::hex(&host::random::<4>()?));
                std::env::temp_dir().join(name)
            }
        };
        let failed = |error: std::io::Error| Failure::at(dir.display(), error);
        fs::create_dir_all(&dir).map_err(failed)?;
        if fs::read_dir(&dir).map_err(failed)?.next().is_some() {
            return Err(Failure::usage(format_args!(
                "{}: is not empty; give --dir a new one",
                dir.display()
            )));
        }
        Ok(Places {
            files: dir.join("files"),
            ext4: Part {
                policy: "demo",
                id: VolumeId(1),
                image: dir.join("image.ext4"),
                restored: dir.join("restored"),
            },
            xfs: Part {
                policy: "demo-xfs",
                id: VolumeId(2),
                image: dir.join("image.xfs"),
                restored: dir.join("restored-xfs"),
            },
            repository: dir.join("repository"),
            key: dir.join("key"),
            dir,
        })
    }

    /// The options that a person would give for this demo.
    fn options(&self, global: &Global) -> Global {
        Global {
            repo: Some(format!("file://{}", self.repository.display())),
            key_file: Some(self.key.clone()),
            passphrase_file: None,
            ..global.clone()
        }
    }
}

/// `demo`.
pub fn run(global: &Global, args: &Demo, output: &Output) -> Result<Exit, Failure> {
    let job = Arc::new(Progress::new());
    signal::watch(&job)?;
    let places = Places::make(args.dir.as_deref())?;
    let steps = Steps { places: &places, options: places.options(global), output };
    let made_of = steps.image(args, &job)?;
    let (repository, first) = steps.first_backup()?;
    let first_peak = host::peak_memory_bytes();
    steps.step(
        3,
        "the same again: next to nothing is stored. Files of an image that mke2fs has just made are read once more, \
         because their inodes prove nothing; those of a volume that a kernel wrote are not",
    );
    let second = steps.backup(&repository, &places.ext4)?;
    steps.step(4, format_args!("everything back into {}", places.ext4.restored.display()));
    steps.restore(&repository, &places.ext4)?;
    steps.step(5, "every byte and attribute compared");
    let mut same = steps.compare(&places.ext4, made_of.as_deref())?;
    steps.step(6, format_args!("a small XFS volume there and back: {}", places.xfs.image.display()));
    same.add(steps.there_and_back(&repository, &places.xfs)?);
    steps.step(7, "three nodes share a backup, and the one that coordinates is killed half way (kill -9)");
    same.add(steps.cluster(&repository)?);
    steps.summary(&first, first_peak, &second, &same);
    if args.clean {
        fs::remove_dir_all(&places.dir).map_err(|error| Failure::at(places.dir.display(), error))?;
    } else {
        steps.whats_next();
    }
    Ok(if same.differences == 0 { Exit::Done } else { Exit::Failed })
}

/// Makes a part's policy.
fn set_policy(repository: &Repository, part: &Part) -> Result<(), Failure> {
    let device = part.image.display().to_string();
    let volume = PolicyVolume { device: device.clone(), reader: Reader::Auto };
    let change = PolicyChange {
        name: part.policy.to_owned(),
        revision: 1,
        body: Policy::new(part.policy, vec![volume]).emit().map_err(Failure::new)?,
        volumes: vec![(part.id, device)],
    };
    repository.with_session(|session| {
        session.commit(vec![Record::PolicyChanged(change)]).map(drop).map_err(Failure::new)
    })
}

struct Steps<'a> {
    places: &'a Places,
    options: Global,
    output: &'a Output,
}

impl Steps<'_> {
    fn step(&self, number: u32, what: impl std::fmt::Display) {
        self.output.say(format_args!("{number}/7  {what}"));
        self.output.event("step", json!({ "step": number, "what": what.to_string() }));
    }

    /// Makes the image; where its files are, unless it is the shipped one.
    fn image(&self, args: &Demo, job: &Arc<Progress>) -> Result<Option<PathBuf>, Failure> {
        let mke2fs = if args.shipped { None } else { image::find_mke2fs() };
        let Some(mke2fs) = mke2fs else {
            let why = if args.shipped { "" } else { " (mke2fs is not installed)" };
            self.step(1, format_args!("unpacking the small ext4 image that is shipped{why}"));
            image::unpack(image::SHIPPED_EXT4, &self.places.ext4.image)?;
            return Ok(None);
        };
        let sources = if args.source.is_empty() {
            let all = source::DEFAULT_SOURCES.iter().map(PathBuf::from);
            all.filter(|path| path.is_dir()).collect()
        } else {
            args.source.clone()
        };
        let names: Vec<_> = sources.iter().map(|path| path.display().to_string()).collect();
        self.step(1, format_args!("an ext4 image of up to {} from {}", Human(args.size.0), names.join(" ")));
        let copied = {
            job.enter(Phase::Preparing);
            job.bytes_total.set(args.size.0);
            let _watcher = Watcher::start(job, *self.output)?;
            fs::create_dir(&self.places.files)
                .map_err(|error| Failure::at(self.places.files.display(), error))?;
            let copied = source::gather(&sources, &self.places.files, args.size.0, job)?;
            image::make(&mke2fs, &self.places.files, &self.places.ext4.image, &copied)?;
            copied
        };
        self.output.say(format_args!(
            "     {} files, {} items, {}{}",
            Grouped(copied.files),
            Grouped(copied.items),
            Human(copied.bytes),
            if copied.skipped > 0 { ", passing over what this user may not read" } else { "" },
        ));
        Ok(Some(self.places.files.clone()))
    }

    fn first_backup(&self) -> Result<(Repository, Outcome), Failure> {
        self.step(
            2,
            format_args!(
                "a backup of it into {}, compressed and encrypted",
                self.places.repository.display()
            ),
        );
        let repository = Repository::init(&self.options, true, LOCATION_BLOCKS_DEFAULT, false)?;
        set_policy(&repository, &self.places.ext4)?;
        let outcome = self.backup(&repository, &self.places.ext4)?;
        Ok((repository, outcome))
    }

    fn backup(&self, repository: &Repository, part: &Part) -> Result<Outcome, Failure> {
        let job = Arc::new(Progress::new());
        let setup = Alone {
            access: Access::from(&self.options),
            memory_bytes: self.options.memory.0,
            device_iops_max: self.options.device_iops_max,
            paranoid: false,
        };
        // The repository is the demo's own: no agent has it.
        let mut commit = |repository: &Repository, records| commit::each(repository, None, records);
        let (policy, outcome) = {
            let _watcher = Watcher::start(&job, *self.output)?;
            run_policy(&setup, repository, part.policy, &mut commit, &job)?
        };
        outcome::tell(&policy, &outcome, self.output);
        self.output.event("backup", outcome::to_json(&policy, &outcome));
        Ok(outcome)
    }

    /// Restores the last point of a volume.
    fn restore(&self, repository: &Repository, part: &Part) -> Result<(), Failure> {
        let state = repository.view()?.state;
        let point = state.last_point(part.policy).ok_or_else(|| Failure::new("the backup left no point"))?;
        self.restore_point(repository, &state, point, part.id, &part.restored)
    }

    fn restore_point(
        &self,
        repository: &Repository,
        state: &State,
        point: &Point,
        volume: VolumeId,
        to: &Path,
    ) -> Result<(), Failure> {
        let job = Arc::new(Progress::new());
        signal::watch(&job)?;
        let report = {
            let _watcher = Watcher::start(&job, *self.output)?;
            let restoring = Restoring {
                repository,
                state,
                point,
                existing: Existing::Refuse,
                owner_map: OwnerMap::default(),
                protected: protected(&Access::from(&self.options)),
                exclude: Patterns::default(),
                memory_bytes: self.options.memory.0,
                job: &job,
            };
            restoring.to_directory(volume, &[], to)?
        };
        for fault in &report.faults {
            self.output.say(format_args!("     NOT RESTORED {fault}"));
        }
        Ok(())
    }

    /// Compares what was restored with the image, or with what the image was made of.
    fn compare(&self, part: &Part, made_of: Option<&Path>) -> Result<compare::Compared, Failure> {
        self.compare_with(&part.image, made_of, &part.restored)
    }

    fn compare_with(
        &self,
        image: &Path,
        made_of: Option<&Path>,
        restored: &Path,
    ) -> Result<compare::Compared, Failure> {
        let job = Arc::new(Progress::new());
        job.enter(Phase::Checking);
        let _watcher = Watcher::start(&job, *self.output)?;
        let mut device = open_device(image, None, &[])?;
        let mut volume = open_volume(image, &mut *device, Reader::Auto)?;
        compare::compare(&mut *device, &mut *volume, made_of, restored, &job)
    }

    fn there_and_back(&self, repository: &Repository, part: &Part) -> Result<compare::Compared, Failure> {
        image::unpack(image::SHIPPED_XFS, &part.image)?;
        set_policy(repository, part)?;
        self.backup(repository, part)?;
        self.restore(repository, part)?;
        self.compare(part, None)
    }

    /// A backup over three agents that survives the death of its coordinator.
    fn cluster(&self, repository: &Repository) -> Result<compare::Compared, Failure> {
        let dir = self.places.dir.join("cluster");
        fs::create_dir(&dir).map_err(|error| Failure::at(dir.display(), error))?;
        let mut own = Vec::new();
        for (number, shipped) in
            [image::SHIPPED_EXT4, image::SHIPPED_XFS, image::SHIPPED_EXT4].iter().enumerate()
        {
            own.push(dir.join(format!("own-{}.img", number + 1)));
            image::unpack(shipped, &own[number])?;
        }
        let url = self.options.repo.as_deref().unwrap_or_default();
        let mut cluster = Cluster::make(&dir, url, &self.places.key, &self.places.ext4.image, own)?;
        cluster.start()?;
        let backup = cluster.begin(&repository.view()?.state)?;
        let seen =
            cluster.watch("the middle of the backup", None, |seen| seen.percent.is_none_or(|p| p >= 20))?;
        let busy = seen.work.iter().filter(|(_, count)| *count > 0).count();
        let Some(victim) = seen.coordinator else { return Err(Failure::new("nobody coordinates")) };
        self.output.say(format_args!(
            "     node {victim} coordinates (epoch {}), {busy} nodes work, {} % is done: kill -9 node {victim}",
            seen.epoch,
            seen.percent.unwrap_or(100)
        ));
        let killed_ns = HostClock.boot_ns();
        cluster.kill(victim);
        let epoch = seen.epoch;
        let next = cluster.watch("another coordinator", Some(victim), |seen| {
            seen.epoch > epoch && seen.coordinator.is_some_and(|node| node != victim)
        })?;
        self.output.say(format_args!(
            "     {} later node {} coordinates (epoch {}), and node {victim} boots again",
            HumanTime(HostClock.boot_ns().saturating_sub(killed_ns)),
            next.coordinator.unwrap_or(0),
            next.epoch
        ));
        cluster.boot(victim)?;
        let state = cluster::wait_for("the end of the backup", || {
            let state = repository.view()?.state;
            Ok(state.points.contains_key(&backup).then_some(state))
        })?;
        cluster.stop();
        self.output
            .event("cluster", json!({ "killed": victim, "next": next.coordinator, "epoch": next.epoch }));
        self.compare_cluster(repository, &state, backup, &cluster)
    }

    fn compare_cluster(
        &self,
        repository: &Repository,
        state: &State,
        backup: BackupId,
        cluster: &Cluster,
    ) -> Result<compare::Compared, Failure> {
        let point = state.points.get(&backup).ok_or_else(|| Failure::new("the backup left no point"))?;
        let to = self.places.dir.join("restored-cluster");
        fs::create_dir(&to).map_err(|error| Failure::at(to.display(), error))?;
        let mut same: Option<compare::Compared> = None;
        for ((name, image), found) in cluster.volumes.iter().zip(&point.volumes) {
            let restored = to.join(name);
            self.restore_point(repository, state, point, found.volume, &restored)?;
            let compared = self.compare_with(image, None, &restored)?;
            match &mut same {
                Some(same) => same.add(compared),
                None => same = Some(compared),
            }
        }
        let same = same.ok_or_else(|| Failure::new("the point has no volumes"))?;
        self.output.say(format_args!(
            "     restored from point {backup}: {} items of {} volumes, {}",
            Grouped(same.items),
            cluster.volumes.len(),
            Human(same.bytes)
        ));
        Ok(same)
    }

    fn summary(&self, first: &Outcome, first_peak: u64, second: &Outcome, same: &compare::Compared) {
        let totals = &first.report.totals;
        let ratio = totals.block_bytes as f64 / totals.stored_bytes.max(1) as f64;
        for difference in &same.kept {
            self.output.say(format_args!("     DIFFERENT {difference}"));
        }
        let owners = if same.with_owners { "" } else { "; owners not compared: only root can restore them" };
        self.output.say("");
        self.output.say(format_args!(
            "compared       {} items, {}: {}{owners}",
            Grouped(same.items),
            Human(same.bytes),
            if same.differences == 0 {
                "no difference".to_owned()
            } else {
                format!("{} DIFFERENCES", same.differences)
            },
        ));
        self.output.say(format_args!(
            "first backup   {} in {}, {}, {}, ratio {ratio:.2}",
            Human(totals.item_bytes),
            HumanTime(first.elapsed_ns),
            Counted(totals.items, "item"),
            Counted(totals.objects, "object"),
        ));
        self.output.say(format_args!("second backup  {}", HumanTime(second.elapsed_ns)));
        // The log's few records are the same for a TiB as for these MiB.
        let requests = &first.requests;
        let data_puts = requests.objects + requests.tables;
        let per_tib = puts_per_tib(data_puts, totals.block_bytes);
        self.output.say(format_args!(
            "requests       {} PUTs: {data_puts} for data and tables, {} for log and lease; about {} for a TiB like this",
            requests.puts(),
            requests.log + requests.lease,
            Grouped(per_tib)
        ));
        self.output.say(format_args!(
            "peak memory    {} in the first backup, {} with all that followed in the same process",
            Human(first_peak),
            Human(host::peak_memory_bytes())
        ));
        let done = json!({
            "dir": self.places.dir.display().to_string(),
            "items": same.items,
            "bytes": same.bytes,
            "differences": same.differences,
            "different": same.kept,
            "with_owners": same.with_owners,
            "first_elapsed_ms": first.elapsed_ns / 1_000_000,
            "second_elapsed_ms": second.elapsed_ns / 1_000_000,
            "objects": totals.objects,
            "puts": requests.puts(),
            "puts_per_tib": per_tib,
            "ratio": ratio,
            "peak_memory_bytes": host::peak_memory_bytes(),
        });
        self.output.event("done", done);
    }

    fn whats_next(&self) {
        let (repo, key) = (&self.options.repo, &self.places.key);
        self.output.say("");
        self.output.say("It is all still there. Go on with it:");
        self.output.say(format_args!(
            "  export WINDLASS_REPO={} WINDLASS_KEY_FILE={}",
            repo.as_deref().unwrap_or_default(),
            key.display()
        ));
        for command in [
            "windlass points demo",
            "windlass ls demo / -l",
            "windlass find demo / --name '*.h' --larger 100KiB",
            "windlass check demo --read-data",
            "windlass ls demo-xfs /kinds -l",
            "windlass restore demo-xfs kinds --to /tmp/kinds",
        ] {
            self.output.say(format_args!("  {command}"));
        }
        self.output.say(format_args!("  rm -r {}    when you have seen enough", self.places.dir.display()));
    }
}
