//! `--dry-run` of `backup` and `restore`: what they would read and write. Nothing is written, neither to the store nor to the target.
//!
//! | command | reads | says |
//! |---|---|---|
//! | `backup` | all metadata of each volume, in one sweep (one more for patterns) | items, bytes of contents, bytes of data on the device |
//! | `restore` | the tables of what is wanted | items, bytes, which names are taken and what becomes of each, bytes and objects to fetch |
//!
//! Source: ours.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use windlass_agent::format::row::{BlockPlace, ItemAttributes};
use windlass_agent::id::{Lin, ObjectId};
use windlass_agent::log::state::Point;
use windlass_agent::policy::inodes::InodeSet;
use windlass_agent::policy::select::{Patterns, Verdict};
use windlass_agent::progress::{Phase, Progress};
use windlass_agent::restore::admit::{self, Fate};
use windlass_agent::restore::browse::{self, BrowseFault, Met};
use windlass_agent::restore::fault::FAULTS_MAX;
use windlass_agent::restore::owners::OwnerMap;
use windlass_agent::restore::target::Existing;
use windlass_agent::table::lost::known;
use windlass_agent::units::{Counted, Grouped, Human};
use windlass_hal::linux::tree;
use windlass_hal::volume::{Cursor, ExtentState, ItemKind, Swept, Window};

use super::browse::Opened;
use super::history;
use super::restore as face;
use super::selected::{self, Part};
use super::through::Through;
use crate::cli::args::Backup;
use crate::cli::args::global::Global;
use crate::cli::args::restore::Restore;
use crate::cli::output::Output;
use crate::cli::progress::Watcher;
use crate::engine::limits::Iops;
use crate::engine::repository::Repository;
use crate::engine::restore::{PointLookup, open_lookup};
use crate::engine::volumes::{Selectable, open_selected};
use crate::engine::{points, policy};
use crate::failure::{Exit, Failure};
use crate::{logger, signal, text};

/// What a backup of a volume would read.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    items: u64,
    /// Bytes of contents, holes included.
    bytes: u64,
    /// Bytes of them that are data on the device.
    data: u64,
    /// Items whose metadata cannot be read.
    faults: u64,
}

/// `backup --dry-run`: in this process, also where an agent would do the backup.
pub fn backup(
    global: &Global,
    args: &Backup,
    through: Option<Through>,
    output: &Output,
) -> Result<Exit, Failure> {
    let repository = Repository::open(global)?;
    let policy = policy::required(&repository.view()?.state, &args.name)?;
    let named = through.map(|through| through.identity.volumes).unwrap_or_default();
    let job = Arc::new(Progress::new());
    signal::watch(&job)?;
    let (mut all, mut missing) = (Sums::default(), Vec::new());
    for volume in &policy.volumes {
        let place = named.iter().find(|(name, _)| *name == volume.device);
        let path = place.map_or_else(|| PathBuf::from(&volume.device), |(_, path)| path.clone());
        if !path.is_absolute() {
            return Err(Failure::at(
                &volume.device,
                "a volume of a board profile, and no agent on this machine has it; ask on a node that has",
            ));
        }
        let iops = Iops::of_command(global.device_iops_max, &policy);
        let mut opened = match open_selected(&path, volume.reader, iops, &[], &policy, None, &job) {
            Ok(opened) => opened,
            Err(why) => {
                logger::say(format_args!("windlass: {why}"));
                missing.push(json!({ "device": volume.device, "what": why.to_string() }));
                continue;
            }
        };
        let sums = {
            let _watcher = Watcher::start(&job, *output)?;
            sweep(&path, &mut opened, &job)?
        };
        let kind = opened.volume.info().kind.to_string();
        output.say(format_args!(
            "{} ({kind}): {}, {}, {} of data to read",
            text::printable(volume.device.as_bytes()),
            Counted(sums.items, "item"),
            Human(sums.bytes),
            Human(sums.data)
        ));
        output.event(
            "volume",
            json!({
                "device": volume.device, "kind": kind, "items": sums.items, "bytes": sums.bytes,
                "bytes_data": sums.data, "faults": sums.faults,
            }),
        );
        all.items += sums.items;
        all.bytes = all.bytes.saturating_add(sums.bytes);
        all.data = all.data.saturating_add(sums.data);
        all.faults += sums.faults;
    }
    job.enter(Phase::Done);
    output.say(format_args!(
        "a backup of {} would hold {}, {}; the first one reads {}, later ones what has changed; nothing was written",
        policy.name,
        Counted(all.items, "item"),
        Human(all.bytes),
        Human(all.data)
    ));
    if all.faults > 0 {
        output.say(format_args!("  {} cannot be read in full", Counted(all.faults, "item")));
    }
    output.event(
        "done",
        json!({
            "policy": policy.name, "items": all.items, "bytes": all.bytes, "bytes_data": all.data,
            "faults": all.faults, "volumes_missing": missing,
        }),
    );
    Ok(match missing.len() {
        0 if all.faults == 0 => Exit::Done,
        // A backup of nothing is refused.
        count if count == policy.volumes.len() => Exit::Failed,
        _ => Exit::Partial,
    })
}

fn sweep(path: &Path, opened: &mut Selectable, job: &Progress) -> Result<Sums, Failure> {
    job.enter(Phase::Selecting);
    job.items_total.set(opened.items);
    let (mut sums, mut window, mut from) = (Sums::default(), Window::default(), Cursor::default());
    loop {
        if job.is_stop_requested() {
            return Err(Failure::new("stopped; nothing was written"));
        }
        let swept = opened.volume.sweep(&mut *opened.device, from, &mut window);
        let swept = swept
            .map_err(|fault| Failure::at(text::printable(path.as_os_str().as_encoded_bytes()), fault))?;
        for item in &window.items {
            sums.faults += u64::from(item.fault.is_some());
            sums.items += u64::from(item.part.last);
            if item.part.first && matches!(item.kind, ItemKind::File | ItemKind::Image) {
                sums.bytes = sums.bytes.saturating_add(item.size);
            }
            let extents = window.extents.get(item.extents.start as usize..item.extents.end as usize);
            let data = extents.into_iter().flatten().filter(|extent| extent.state != ExtentState::Unwritten);
            sums.data = data.fold(sums.data, |sum, extent| sum.saturating_add(extent.len));
        }
        job.items_done.set(sums.items);
        match swept {
            Swept::More(next) => from = next,
            Swept::Done => return Ok(sums),
        }
    }
}

/// Most names that are taken and listed: as many as a restore names.
const TAKEN_MAX: usize = FAULTS_MAX;

/// The field that counts it.
fn word(fate: Fate) -> &'static str {
    match fate {
        Fate::Entered => "entered",
        Fate::Fits => "fits",
        Fate::Kept => "kept",
        Fate::Named => "named",
        Fate::Replaced => "replaced",
        Fate::Written => "written",
        Fate::InTheWay | Fate::FullDirectory => "in_the_way",
    }
}

/// What becomes of a name, for people.
fn says(fate: Fate) -> &'static str {
    match fate {
        Fate::Entered => "is a directory in both",
        Fate::Fits => "is as the point has it, and stays",
        Fate::Kept => "stays as it is",
        Fate::Named => "differs, stays, and is named",
        Fate::Replaced => "is replaced",
        Fate::Written => "is compared; what differs is written into it",
        Fate::InTheWay => "is of another type, stays, and is named",
        Fate::FullDirectory => {
            "is a directory with contents where something else belongs, stays, and is named"
        }
    }
}

/// What a restore would write and fetch.
#[derive(Default)]
struct Plan {
    items: u64,
    bytes: u64,
    /// Names that the target has already, by what becomes of them.
    taken: BTreeMap<&'static str, u64>,
    /// Those that do not simply stay as they are; at most [`TAKEN_MAX`].
    list: Vec<(Vec<u8>, Fate)>,
    existing: Existing,
    owners: bool,
    owner_map: OwnerMap,
    fetch_bytes: u64,
    /// Each once; a repository has a million of them at most in practice, of 24 bytes each.
    objects: BTreeSet<ObjectId>,
    /// The frame of the last block: the blocks of a file that share one follow each other.
    last: Option<(ObjectId, u32)>,
    /// Items that have been counted and have more names.
    linked: InodeSet,
    faults: u64,
}

impl Plan {
    /// What becomes of a name that is taken; `None`: it is free.
    fn look(&mut self, item: &ItemAttributes, place: Option<&Path>) -> Option<Fate> {
        let place = place?;
        let have = tree::look(place).ok()?;
        let mut item = item.clone();
        self.owner_map.apply(&mut item);
        let is_empty = || std::fs::read_dir(place).is_ok_and(|mut entries| entries.next().is_none());
        let fate = admit::fate(&have, &item, self.existing, self.owners, is_empty);
        *self.taken.entry(word(fate)).or_default() += 1;
        if !matches!(fate, Fate::Entered | Fate::Fits) && self.list.len() < TAKEN_MAX {
            self.list.push((place.as_os_str().as_bytes().to_vec(), fate));
        }
        Some(fate)
    }

    fn existing(&self) -> u64 {
        self.taken.values().sum()
    }

    fn item(
        &mut self,
        lookup: &mut PointLookup,
        lin: Lin,
        item: &ItemAttributes,
        place: Option<&Path>,
    ) -> Result<(), BrowseFault> {
        if self.look(item, place).is_some_and(|fate| !fate.is_written()) {
            return Ok(());
        }
        // What the set has no room for is counted once for each name.
        if item.links > 1 && item.kind != ItemKind::Directory && self.linked.insert(lin.inode) == Ok(false) {
            return Ok(());
        }
        self.items += 1;
        self.faults += u64::from(!item.fault.is_empty());
        if !matches!(item.kind, ItemKind::File | ItemKind::Image) {
            return Ok(());
        }
        self.bytes = self.bytes.saturating_add(item.size);
        let read = lookup.locations(lin, item, &mut |row| {
            for block in &row.blocks {
                let BlockPlace::Stored(stored) = block else { continue };
                let frame = (stored.object, stored.frame_offset);
                if self.last.replace(frame) != Some(frame) {
                    self.objects.insert(stored.object);
                    self.fetch_bytes = self.fetch_bytes.saturating_add(stored.frame_bytes.into());
                }
            }
            Ok(())
        });
        self.faults += u64::from(known(read)?.is_err());
        Ok(())
    }
}

/// `restore --dry-run`.
pub fn restore(
    opened: &Opened,
    point: &Point,
    args: &Restore,
    job: &Arc<Progress>,
    output: &Output,
) -> Result<Exit, Failure> {
    job.enter(Phase::Planning);
    let Opened { repository, state } = opened;
    let parts: Vec<(&Point, Part)> = match args.to_device {
        Some(_) => {
            let volume = points::pick_volume(state, &args.at.target, args.at.volume.as_deref())?.1;
            vec![(point, Part { volume, paths: Vec::new(), folder: None })]
        }
        None => {
            let mut out = Vec::new();
            for (from, paths) in history::by_point(opened, point, &args.at, &args.wanted())? {
                let parts = selected::parts(state, from, &args.at, &paths)?;
                out.extend(parts.into_iter().map(|part| (from, part)));
            }
            out
        }
    };
    let mut plan = Plan {
        existing: face::existing(args),
        owners: nix::unistd::geteuid().is_root(),
        owner_map: face::owner_map(&args.map_owner)?,
        ..Plan::default()
    };
    {
        let _watcher = Watcher::start(job, *output)?;
        for (from, part) in parts {
            let lookup = open_lookup(repository, state, from, part.volume)?;
            plan_part(lookup, part, from, args, &mut plan, job)?;
        }
    }
    if job.is_stop_requested() {
        return Err(Failure::new("stopped; nothing was written"));
    }
    tell(point, &plan, output);
    Ok(if plan.faults == 0 { Exit::Done } else { Exit::Partial })
}

fn plan_part(
    mut lookup: PointLookup,
    part: Part,
    point: &Point,
    args: &Restore,
    plan: &mut Plan,
    job: &Progress,
) -> Result<(), Failure> {
    let Some((root, item)) = lookup.root(part.volume).map_err(Failure::new)? else {
        return Err(Failure::new(format_args!(
            "point {} has nothing of volume {}",
            point.backup, part.volume
        )));
    };
    let is_image = item.kind == ItemKind::Image;
    if args.to_device.is_some() && !is_image {
        return Err(Failure::usage("this volume was backed up as files; restore it with --to DIR"));
    }
    let folder = part.folder.unwrap_or_default();
    let target = args.to.as_ref().map(|to| to.join(folder));
    let place = |path: &[u8]| {
        let path = if is_image { b"image" } else { path };
        target.as_ref().map(|target| target.join(OsStr::from_bytes(path)))
    };
    let exclude = face::excluded(args)?;
    // Inode numbers are those of one volume.
    plan.linked = InodeSet::new();
    let paths = match part.paths.is_empty() {
        true => vec![Vec::new()],
        false => selected::resolve(&mut lookup, part.volume, part.paths)?,
    };
    for path in paths {
        let at = |fault: BrowseFault| Failure::at(format_args!("/{}", text::printable(&path)), fault);
        let (lin, item) = browse::resolve(&mut lookup, root, &path).map_err(at)?;
        if is_left_out(&exclude, &path, item.kind == ItemKind::Directory) {
            continue;
        }
        // The root of a file system is the target itself.
        if !path.is_empty() || item.kind != ItemKind::Directory {
            plan.item(&mut lookup, lin, &item, place(&path).as_deref()).map_err(at)?;
        }
        if item.kind != ItemKind::Directory {
            continue;
        }
        let mut outside: Option<Vec<u8>> = None;
        let walked = browse::walk::<_, BrowseFault>(&mut lookup, lin, &item, &path, &mut |lookup, visit| {
            // What is below a directory that is left out is left out with it.
            let below = |above: &Vec<u8>| {
                visit.path.strip_prefix(above.as_slice()).is_some_and(|rest| rest.starts_with(b"/"))
            };
            if outside.as_ref().is_some_and(below) {
                return Ok(!job.is_stop_requested());
            }
            if let Met::Item(item) = visit.met {
                let is_directory = item.kind == ItemKind::Directory;
                if exclude.judge(Verdict::Taken, visit.path, is_directory) == Verdict::Excluded {
                    outside = is_directory.then(|| visit.path.to_vec());
                    return Ok(!job.is_stop_requested());
                }
            }
            match visit.met {
                Met::Item(item) => plan.item(lookup, visit.lin, item, place(visit.path).as_deref())?,
                Met::NoItem | Met::BadName | Met::TooDeep | Met::Loop | Met::Lost(_) => plan.faults += 1,
            }
            job.items_done.set(plan.items);
            Ok(!job.is_stop_requested())
        });
        walked.map_err(at)?;
    }
    Ok(())
}

/// Whether the patterns leave out a path that was asked for, or a directory above it.
fn is_left_out(exclude: &Patterns, path: &[u8], is_directory: bool) -> bool {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| (at, true));
    let mut parts = ends.chain([(path.len(), is_directory)]).filter(|(end, _)| *end > 0);
    parts.any(|(end, is_directory)| {
        exclude.judge(Verdict::Taken, &path[..end], is_directory) == Verdict::Excluded
    })
}

fn tell(point: &Point, plan: &Plan, output: &Output) {
    let objects = plan.objects.len() as u64;
    output.say(format_args!(
        "a restore of point {} would write {}, {}, and fetch {} from {}; nothing was written",
        point.backup,
        Counted(plan.items, "item"),
        Human(plan.bytes),
        Human(plan.fetch_bytes),
        Counted(objects, "object"),
    ));
    let existing = plan.existing();
    if existing > 0 {
        output.say(format_args!(
            "  {} in the target already (--existing, --in-place)",
            Counted(existing, "name")
        ));
        for (path, fate) in &plan.list {
            output.say(format_args!("    {}: {}", text::printable(path), says(*fate)));
        }
        let stay = plan.taken.get("entered").unwrap_or(&0) + plan.taken.get("fits").unwrap_or(&0);
        let more = existing - stay - plan.list.len() as u64;
        if more > 0 {
            output.say(format_args!("    and {} more", Grouped(more)));
        }
        if stay > 0 {
            output.say(format_args!(
                "    {} of them are as they should be, or directories in both",
                Grouped(stay)
            ));
        }
    }
    if plan.faults > 0 {
        output.say(format_args!("  {} cannot be restored in full", Counted(plan.faults, "item")));
    }
    let list: Vec<Value> = plan
        .list
        .iter()
        .map(|(path, fate)| {
            let mut object = Map::new();
            text::put_bytes(&mut object, "path", path);
            object.insert("what".to_owned(), says(*fate).into());
            Value::Object(object)
        })
        .collect();
    let all =
        [Fate::Entered, Fate::Fits, Fate::Kept, Fate::Named, Fate::Replaced, Fate::Written, Fate::InTheWay];
    let taken: Map<String, Value> = all
        .iter()
        .map(|fate| (word(*fate).to_owned(), plan.taken.get(word(*fate)).copied().unwrap_or(0).into()))
        .collect();
    output.event(
        "done",
        json!({
            "point": point.backup.0, "items": plan.items, "bytes": plan.bytes, "existing": existing,
            "taken": taken, "taken_list": list, "bytes_fetched": plan.fetch_bytes, "objects": objects, "faults": plan.faults,
        }),
    );
}
