//! A block device or a new file as the target of a volume image.
//!
//! | target | opened | what holds no data |
//! |---|---|---|
//! | block device | `O_EXCL` (a mounted one is refused by the kernel) | zeroed (`FALLOC_FL_ZERO_RANGE`, else written) |
//! | new file | without a name, which it gets when it is whole (`target`) | a hole |
//! | device or file, in place | as it is; only what differs is written ([`compare`](super::compare)) | punched, unless it reads as zero |
//!
//! Blocks are written with `O_DIRECT` where the target can: an image is larger than memory and is not read again soon, so the
//! page cache stays what it was. The end of an item that is no multiple of [`DIRECT_ALIGN_BYTES`] goes through the cache.
//!
//! Invariants: a new file gets its name only when every block is verified and written and the file is durable; with damaged
//! blocks it gets a name that says so. A device is at least as large as the item and takes writes, or nothing is written.
//!
//! Source: `agent/doc/architecture.md`, Restore.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{FileType, Mode, OFlags};
use windlass_hal::linux::tree::{DIRECT_ALIGN_BYTES, LinuxNode};
use windlass_hal::tree::{Errno, Node};
use windlass_hal::volume::ItemKind;

use super::compare::Reached;
use super::fault::{Reason, RestoreFault};
use super::file::{File, Job, RestoreOptions};
use super::gather::Gather;
use super::lane::{self, Crew};
use super::owners::OwnerMap;
use super::parts::Claim;
use super::place::{self, Protected};
use super::state::Unfinished;
use super::target::{Existing, Target, Temp};
use super::walk::{RestoreReport, Source, lanes_for};
use crate::format::row::{BlockPlace, LocationRow};
use crate::id::Lin;
use crate::policy::select::Patterns;
use crate::progress::Progress;
use crate::read::plan::{Merging, WantedBlock};
use crate::table::lost::known;
use crate::table::source::Fetch;

/// What follows the name of a file that is not whole, and a random number after it.
const PARTIAL: &str = ".windlass-partial-";

/// An open target and what becomes of it.
enum Opened {
    /// A block device.
    Device(Arc<Temp<LinuxNode>>),
    /// A file that is there, to be written in place.
    Existing(Arc<Temp<LinuxNode>>),
    /// A new file without its name: the directory above, and the file.
    New(Box<Target<LinuxNode>>, Arc<Temp<LinuxNode>>),
}

impl Opened {
    fn temp(&self) -> &Arc<Temp<LinuxNode>> {
        match self {
            Opened::Device(temp) | Opened::Existing(temp) | Opened::New(_, temp) => temp,
        }
    }

    /// Whether an earlier restore had begun it.
    fn is_begun(&self) -> bool {
        matches!(self, Opened::New(target, _) if target.resumed_parts() > 0)
    }

    /// Whether what is not written reads as something else than zero.
    fn needs_zeros(&self) -> bool {
        matches!(self, Opened::Device(_))
    }
}

fn failed(call: &'static str) -> impl Fn(Errno) -> RestoreFault {
    move |errno| RestoreFault::Target { call, errno }
}

/// Where an image goes, and how.
pub struct To<'a> {
    /// A block device, which is overwritten, or the name of a file that is not there.
    pub path: &'a Path,
    /// The repository's own directories: nothing is restored into them.
    pub repository: &'a Protected,
    /// Compare what is there, and write what differs; then the file may be there.
    pub in_place: bool,
    /// Random.
    pub nonce: u64,
    /// Budget in bytes.
    pub memory: u64,
    /// For those that watch.
    pub progress: &'a Arc<Progress>,
}

/// Restores the image `lin`. Errors end the restore, and leave nothing of a new file but what the next one goes on with; damaged blocks are in the report.
pub fn run<F: Fetch>(
    source: &mut Source<'_, F>,
    lin: Lin,
    to: &To<'_>,
) -> Result<RestoreReport, RestoreFault> {
    let To { path, repository, nonce, .. } = *to;
    let Some(item) = source.lookup.item(lin)? else {
        return Err(RestoreFault::WrongItem("the point has no such item"));
    };
    if !matches!(item.kind, ItemKind::Image | ItemKind::File) {
        return Err(RestoreFault::WrongItem("only a volume image or a file fits a device"));
    }
    let name = path.file_name().unwrap_or_default();
    repository.look(path)?;
    place::look(path)?;
    let (lanes, read_bytes_max) = lanes_for(to.memory);
    let names = [name.as_bytes(), b"image"];
    let unfinished = Unfinished::new(lin.volume, source.lookup.point(), names, source.keys);
    let claim = Claim { unfinished, keys: source.keys };
    let (opened, behind) = open(to, (lin.inode, item.size), lanes, claim)?;
    let options = RestoreOptions {
        existing: Existing::Refuse,
        keep_damaged: true,
        sync: true,
        owners: false,
        owner_map: OwnerMap::default(),
        repository: repository.clone(),
        exclude: Patterns::default(),
    };
    let job = Job::new(None, options, to.progress);
    if !item.fault.is_empty() {
        job.faults.add(name.as_bytes().to_vec(), Reason::Backup(item.fault.clone()));
    }
    let label = path.as_os_str().as_bytes().to_vec();
    let merging = Merging { read_bytes_max, ..Merging::default() };
    let (size, compares) = (item.size, to.in_place || opened.is_begun());
    let file = File::of_device(lin, item, label, Arc::clone(opened.temp()), compares);
    let result = write(source, file, opened.needs_zeros(), &job, Crew::Lanes(lanes), merging);
    let report = result.and_then(|mut report| {
        report.bytes_behind = behind;
        if let Opened::New(target, _) = &opened {
            (report.resumed, report.leftovers) = (target.resumed_parts(), target.leftovers().to_vec());
        }
        finish(&opened, name, size, nonce, &report).map(|()| report)
    });
    if let Opened::New(target, temp) = opened {
        if report.is_err() && target.has_parts() {
            // The next restore goes on with it.
            return report;
        }
        target.close(&temp);
        let cleared = target.clear_staging(false, &mut |_, _| {});
        if report.is_ok() {
            cleared.map_err(failed("remove the staging directory"))?;
        }
    }
    report
}

/// Opens the target; and how many bytes a device has behind the item.
fn open(
    to: &To<'_>,
    (inode, size): (u64, u64),
    lanes: usize,
    claim: Claim<'_>,
) -> Result<(Opened, u64), RestoreFault> {
    let path = to.path;
    match rustix::fs::stat(path) {
        Ok(have) if FileType::from_raw_mode(have.st_mode) == FileType::BlockDevice => {
            let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::EXCL;
            let fd = match rustix::fs::open(path, flags, Mode::empty()) {
                Err(Errno::ROFS) => return Err(RestoreFault::ReadOnlyDevice),
                Err(errno @ (Errno::ACCESS | Errno::PERM)) => {
                    let read = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
                    let read_only = read.is_ok_and(|fd| windlass_hal::linux::is_read_only(fd.as_fd()));
                    return Err(if read_only {
                        RestoreFault::ReadOnlyDevice
                    } else {
                        failed("open the device")(errno)
                    });
                }
                other => other.map_err(failed("open the device"))?,
            };
            // Some kernels take the open and refuse every write.
            if windlass_hal::linux::is_read_only(fd.as_fd()) {
                return Err(RestoreFault::ReadOnlyDevice);
            }
            let device = LinuxNode::from(fd);
            let have = device.device_bytes().map_err(failed("ask for the device's size"))?;
            if have < size {
                return Err(RestoreFault::TooSmall { have, need: size });
            }
            let temp = Arc::new(Temp::of_existing(device.directly(lanes)));
            Ok((Opened::Device(temp), have - size))
        }
        Ok(have) if FileType::from_raw_mode(have.st_mode) == FileType::RegularFile => {
            if !to.in_place {
                return Err(RestoreFault::Exists);
            }
            let flags = OFlags::RDWR | OFlags::CLOEXEC;
            let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(failed("open the file"))?;
            let node = LinuxNode::from(fd);
            if (have.st_size as u64) < size {
                node.set_len(size).map_err(failed("set the file's length"))?;
            }
            Ok((Opened::Existing(Arc::new(Temp::of_existing(node.directly(lanes)))), 0))
        }
        Ok(_) => Err(RestoreFault::WrongItem("the target is neither a block device nor a new file")),
        Err(Errno::NOENT) => {
            let above = path.parent().filter(|above| !above.as_os_str().is_empty());
            let target = Target::open_existing(above.unwrap_or(Path::new(".")), to.nonce, claim)?;
            let mut temp = match target.take_part(inode) {
                Some(temp) => temp,
                None => {
                    let temp = target.create(&target.root(), 0o600).map_err(failed("create the file"))?;
                    target.name_part(&temp, inode, size);
                    temp
                }
            };
            temp.node.set_len(size).map_err(failed("set the file's length"))?;
            temp.node = temp.node.directly(lanes);
            Ok((Opened::New(Box::new(target), Arc::new(temp)), 0))
        }
        Err(errno) => Err(failed("look at the target")(errno)),
    }
}

fn write<F: Fetch, N: Node>(
    source: &mut Source<'_, F>,
    file: Arc<File<N>>,
    zeroes: bool,
    job: &Job<N>,
    crew: Crew<'_>,
    merging: Merging,
) -> Result<RestoreReport, RestoreFault> {
    let Source { lookup, client, keys } = source;
    lane::with(crew, job, (client, keys), |hands| {
        let mut gather = Gather::new(hands, merging);
        let (mut reached, mut over) = (0, Reached::default());
        let walked = lookup.locations(file.lin, &file.item, &mut |row| {
            match file.compares() {
                true => gather.row_over(job, &file, &row, &mut over),
                false => reached = take(&row, reached, zeroes, job, &file, &mut gather),
            }
            Ok(())
        });
        let walked = known(walked).map(|read| {
            if let Err(lost) = read
                && file.damage()
            {
                job.faults.add(file.path(), Reason::Lost(lost));
            }
        });
        if file.compares() && walked.is_ok() {
            gather.end_over(&file, over);
        } else if zeroes && walked.is_ok() {
            zero(job, &file, reached, file.item.size);
        }
        gather.planned(file);
        gather.send();
        walked.map_err(RestoreFault::from)
    })?;
    job.ended()?;
    let (faults, fault_count) = job.faults.take();
    let (bytes, bytes_equal) = (job.progress.bytes_done.get(), job.equal.load(Ordering::Relaxed));
    Ok(RestoreReport { items: 1, bytes, bytes_equal, faults, fault_count, ..RestoreReport::default() })
}

/// Plans a row's stored blocks, zeroes what lies between them; returns how far the item is dealt with.
fn take<N: Node>(
    row: &LocationRow,
    mut reached: u64,
    zeroes: bool,
    job: &Job<N>,
    file: &Arc<File<N>>,
    gather: &mut Gather<'_, N>,
) -> u64 {
    let block_bytes = u64::from(row.block_bytes);
    for (index, place) in row.blocks.iter().enumerate() {
        let BlockPlace::Stored(place) = place else { continue };
        let offset = row.base.saturating_add(index as u64).saturating_mul(block_bytes);
        if offset.saturating_add(u64::from(place.len)) > file.item.size || offset < reached {
            continue;
        }
        if zeroes {
            zero(job, file, reached, offset);
        }
        reached = offset + u64::from(place.len);
        gather.block(file, WantedBlock { file: 0, offset, runs: (0, 0), place: *place });
    }
    reached
}

/// Makes a range read as zero. A device clears whole blocks only: the ends of the range are written.
fn zero<N: Node>(job: &Job<N>, file: &Arc<File<N>>, from: u64, to: u64) {
    const ALIGN: u64 = DIRECT_ALIGN_BYTES as u64;
    if from >= to {
        return;
    }
    let start = from.checked_next_multiple_of(ALIGN).unwrap_or(to).min(to);
    let end = (to / ALIGN * ALIGN).max(start);
    file.write(job, "zero", 0, |device| {
        device.write_zeros(from, start - from)?;
        device.write_zeros(end, to - end)?;
        if start == end {
            return Ok(());
        }
        match device.clear(start, end - start) {
            Err(Errno::OPNOTSUPP) => device.write_zeros(start, end - start),
            other => other,
        }
    });
}

/// Durability, and the name of a new file.
fn finish(
    opened: &Opened,
    name: &OsStr,
    size: u64,
    nonce: u64,
    report: &RestoreReport,
) -> Result<(), RestoreFault> {
    if let Opened::Existing(temp) = opened
        && temp.node.stat().map_err(failed("look at the file"))?.size != size
    {
        temp.node.set_len(size).map_err(failed("set the file's length"))?;
    }
    opened.temp().node.sync().map_err(failed("sync"))?;
    // What could not be written directly.
    opened.temp().node.forget();
    let Opened::New(target, temp) = opened else { return Ok(()) };
    let mut name = name.as_bytes().to_vec();
    if report.fault_count > 0 {
        name.extend_from_slice(format!("{PARTIAL}{nonce:016x}").as_bytes());
        log::warn!("restore: image is not whole, it is kept as name={}", name.escape_ascii());
    }
    let root = target.root();
    target.link(temp, &root, &name, false).map_err(failed("give the file its name"))?;
    root.sync().map_err(failed("sync the directory"))
}
