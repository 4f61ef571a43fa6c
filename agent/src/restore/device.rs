//! A block device or a new file as the target of a volume image.
//!
//! | target | opened | what holds no data |
//! |---|---|---|
//! | block device | `O_EXCL` (a mounted one is refused by the kernel) | zeroed (`FALLOC_FL_ZERO_RANGE`, else written) |
//! | new file | without a name, which it gets when it is whole (`target`) | a hole |
//!
//! Blocks are written with `O_DIRECT` where the target can: an image is larger than memory and nobody reads it soon, so the
//! page cache stays what it was. The end of an item that is no multiple of [`DIRECT_ALIGN_BYTES`](lane::DIRECT_ALIGN_BYTES) goes through the cache.
//!
//! Invariants: a new file gets its name only when every block is verified and written and the file is durable; with damaged
//! blocks it gets a name that says so. A device is at least as large as the item and takes writes, or nothing is written.
//!
//! Source: blocks reference, section E.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use rustix::fs::{FallocateFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use windlass_hal::volume::ItemKind;

use super::fault::{Reason, RestoreFault};
use super::file::{File, Job, RestoreOptions};
use super::gather::Gather;
use super::lane::{self, Gate, Queue, Task};
use super::place::{self, Protected};
use super::target::{Existing, Target, Temp};
use super::walk::{RestoreReport, Source, lanes_for};
use crate::format::row::{BlockPlace, ItemAttributes, LocationRow};
use crate::id::Lin;
use crate::progress::Progress;
use crate::read::plan::{Merging, WantedBlock};
use crate::table::lost::known;
use crate::table::source::Fetch;

/// What follows the name of a file that is not whole, and a random number after it.
const PARTIAL: &str = ".windlass-partial-";

/// An open target and what becomes of it.
enum Opened {
    /// A block device.
    Device(OwnedFd),
    /// A new file without its name: the directory above, and the file.
    New(Box<Target>, Temp),
}

impl Opened {
    fn fd(&self) -> &OwnedFd {
        match self {
            Opened::Device(fd) => fd,
            Opened::New(_, temp) => &temp.fd,
        }
    }

    /// Whether what is not written reads as something else than zero.
    fn needs_zeros(&self) -> bool {
        matches!(self, Opened::Device(_))
    }
}

fn failed(call: &'static str) -> impl Fn(Errno) -> RestoreFault {
    move |errno| RestoreFault::Target { call, errno }
}

/// Restores the image `lin` to `path`, a block device, which is overwritten, or the name of a file that is not there, and not in the
/// directory `repository`. `nonce` is random. Errors end the restore, and leave nothing of a new file; damaged blocks are in the report.
pub fn run<F: Fetch>(
    source: &mut Source<'_, F>,
    lin: Lin,
    path: &Path,
    repository: &Protected,
    nonce: u64,
    memory: u64,
    progress: &Arc<Progress>,
) -> Result<RestoreReport, RestoreFault> {
    let Some(item) = source.lookup.item(lin)? else {
        return Err(RestoreFault::WrongItem("the point has no such item"));
    };
    if !matches!(item.kind, ItemKind::Image | ItemKind::File) {
        return Err(RestoreFault::WrongItem("only a volume image or a file fits a device"));
    }
    let name = path.file_name().unwrap_or_default();
    repository.look(path)?;
    place::look(path)?;
    let opened = open(path, item.size, nonce)?;
    let options = RestoreOptions {
        existing: Existing::Refuse,
        keep_damaged: true,
        sync: true,
        owners: false,
        repository: repository.clone(),
    };
    let job = Job::new(None, options, progress);
    if !item.fault.is_empty() {
        job.faults.add(name.as_bytes().to_vec(), Reason::Backup(item.fault.clone()));
    }
    let label = path.as_os_str().as_bytes().to_vec();
    let result = write(source, lin, item, label, &opened, &job, memory);
    let report = result.and_then(|report| finish(&opened, name, nonce, &report).map(|()| report));
    if let Opened::New(target, temp) = opened {
        target.close(temp);
        let cleared = target.clear_staging(&mut |_, _| {});
        if report.is_ok() {
            cleared.map_err(failed("remove the staging directory"))?;
        }
    }
    report
}

fn open(path: &Path, size: u64, nonce: u64) -> Result<Opened, RestoreFault> {
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
            let have = rustix::fs::seek(&fd, rustix::fs::SeekFrom::End(0))
                .map_err(failed("ask for the device's size"))?;
            if have < size {
                return Err(RestoreFault::TooSmall { have, need: size });
            }
            Ok(Opened::Device(fd))
        }
        Ok(have) if FileType::from_raw_mode(have.st_mode) == FileType::RegularFile => {
            Err(RestoreFault::Exists)
        }
        Ok(_) => Err(RestoreFault::WrongItem("the target is neither a block device nor a new file")),
        Err(Errno::NOENT) => {
            let above = path.parent().filter(|above| !above.as_os_str().is_empty());
            let target = Target::open_existing(above.unwrap_or(Path::new(".")), nonce)?;
            let temp = target
                .create(target.root()?.as_fd(), Mode::from_raw_mode(0o600))
                .map_err(failed("create the file"))?;
            rustix::fs::ftruncate(&temp.fd, size).map_err(failed("set the file's length"))?;
            Ok(Opened::New(Box::new(target), temp))
        }
        Err(errno) => Err(failed("look at the target")(errno)),
    }
}

fn write<F: Fetch>(
    source: &mut Source<'_, F>,
    lin: Lin,
    item: ItemAttributes,
    label: Vec<u8>,
    opened: &Opened,
    job: &Job,
    memory: u64,
) -> Result<RestoreReport, RestoreFault> {
    let fd = opened.fd().try_clone().map_err(|_| RestoreFault::Resources("file descriptors"))?;
    // The same inode once more, whatever has its name by now. Some file systems (tmpfs) have no direct writes.
    let again = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let direct =
        rustix::fs::open(again, OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty()).ok();
    let file = File::of_device(lin, item, label, fd, direct);
    let queue = Queue::default();
    let (lanes, read_bytes_max) = lanes_for(memory);
    let merging = Merging { read_bytes_max, ..Merging::default() };
    std::thread::scope(|scope| {
        lane::start(scope, lanes, job, source.client, source.keys, &queue)?;
        let gate = Arc::new(Gate::default());
        let (mut files, mut wanted, mut runs) = (Vec::new(), Vec::new(), Vec::new());
        let mut gather = Gather {
            files: &mut files,
            wanted: &mut wanted,
            runs: &mut runs,
            gate: &gate,
            merging,
            queue: &queue,
        };
        let mut reached = 0;
        let zeroes = opened.needs_zeros();
        let walked = source.lookup.locations(lin, &file.item.clone(), &mut |row| {
            reached = take(&row, reached, zeroes, job, &file, &mut gather);
            Ok(())
        });
        let walked = known(walked).map(|read| {
            if let Err(lost) = read
                && file.damage()
            {
                job.faults.add(file.path(), Reason::Lost(lost));
            }
        });
        if zeroes && walked.is_ok() {
            zero(job, &file, reached, file.item.size);
        }
        gather.send();
        queue.push(Task::Finish(Arc::clone(&file)));
        queue.close();
        walked.map_err(RestoreFault::from)
    })?;
    if let Some(fault) = job.fatal.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(fault);
    }
    if job.progress.is_stop_requested() {
        return Err(RestoreFault::Cancelled);
    }
    let (faults, fault_count) = job.faults.take();
    Ok(RestoreReport { items: 1, bytes: job.progress.bytes_done.get(), faults, fault_count })
}

/// Plans a row's stored blocks, zeroes what lies between them; returns how far the item is dealt with.
fn take(
    row: &LocationRow,
    mut reached: u64,
    zeroes: bool,
    job: &Job,
    file: &Arc<File>,
    gather: &mut Gather<'_>,
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
fn zero(job: &Job, file: &Arc<File>, from: u64, to: u64) {
    const ALIGN: u64 = lane::DIRECT_ALIGN_BYTES as u64;
    if from >= to {
        return;
    }
    let start = from.checked_next_multiple_of(ALIGN).unwrap_or(to).min(to);
    let end = (to / ALIGN * ALIGN).max(start);
    file.write(job, "zero", 0, |fd| {
        lane::write_zeros(fd, from, start - from)?;
        lane::write_zeros(fd, end, to - end)?;
        if start == end {
            return Ok(());
        }
        let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(fd, flags, start, end - start) {
            Err(Errno::OPNOTSUPP) => lane::write_zeros(fd, start, end - start),
            other => other,
        }
    });
}

/// Durability, and the name of a new file.
fn finish(opened: &Opened, name: &OsStr, nonce: u64, report: &RestoreReport) -> Result<(), RestoreFault> {
    rustix::fs::fsync(opened.fd()).map_err(failed("sync"))?;
    // What could not be written directly. A hint only.
    let _ = rustix::fs::fadvise(opened.fd(), 0, None, rustix::fs::Advice::DontNeed);
    let Opened::New(target, temp) = opened else { return Ok(()) };
    let mut name = name.as_bytes().to_vec();
    if report.fault_count > 0 {
        name.extend_from_slice(format!("{PARTIAL}{nonce:016x}").as_bytes());
        log::warn!("restore: image is not whole, it is kept as name={}", name.escape_ascii());
    }
    let root = target.root()?;
    target.link(temp, root.as_fd(), &name, false).map_err(failed("give the file its name"))?;
    rustix::fs::fsync(root).map_err(failed("sync the directory"))
}
