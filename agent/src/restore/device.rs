//! A device or an image file as the target of a volume image.
//!
//! | target | opened | what holds no data |
//! |---|---|---|
//! | block device | `O_EXCL` (a mounted one is refused by the kernel), direct | zeroed (`FALLOC_FL_ZERO_RANGE`, else written) |
//! | existing file | only when overwriting is allowed | the same |
//! | new file | beside its name, renamed when it is whole | a hole |
//!
//! Invariants: a new file gets its name only when every block is verified and written and the file is durable. The target is
//! at least as large as the item, or nothing is written.
//!
//! Source: blocks reference, section E.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use windlass_hal::volume::ItemKind;

use super::fault::{FaultLog, RestoreFault};
use super::file::{File, Job, RestoreOptions};
use super::lane::{Gate, Lane, Queue, Task};
use super::plan::{Merging, WantedBlock};
use super::walk::{Gather, RestoreReport, Source, lanes_for};
use crate::format::row::{BlockPlace, LocationRow};
use crate::id::Lin;
use crate::progress::Progress;
use crate::table::source::Fetch;

/// What an unfinished file is called besides its name.
const PARTIAL: &str = ".windlass-partial";

/// An open target and what becomes of it.
struct Opened {
    fd: OwnedFd,
    /// A new file: its name for now. What it does not hold is a hole already.
    partial: Option<PathBuf>,
}

/// Restores the image `lin` to `path`. `overwrite` allows an existing file; a device is always overwritten. Errors end the
/// restore, and a new file is removed again; damaged blocks are in the report.
pub fn run<F: Fetch>(
    source: &mut Source<'_, F>,
    lin: Lin,
    path: &Path,
    overwrite: bool,
    sync: bool,
    memory: u64,
    progress: &Arc<Progress>,
) -> Result<RestoreReport, RestoreFault> {
    let Some(item) = source.lookup.item(lin)? else {
        return Err(RestoreFault::WrongItem("the point has no such item"));
    };
    if !matches!(item.kind, ItemKind::Image | ItemKind::File) {
        return Err(RestoreFault::WrongItem("only a volume image or a file fits a device"));
    }
    let opened = open(path, item.size, overwrite)?;
    let options =
        RestoreOptions { existing: super::target::Existing::Refuse, keep_damaged: true, sync, owners: false };
    let job = Job {
        target: None,
        options,
        faults: FaultLog::default(),
        progress: Arc::clone(progress),
        fatal: Mutex::new(None),
    };
    let result = write(source, lin, item, &opened, &job, memory, progress);
    let report = result.and_then(|report| finish(&opened, path, overwrite, sync, &report).map(|()| report));
    if report.is_err()
        && let Some(partial) = &opened.partial
    {
        // The error that is reported is the one that matters.
        let _ = rustix::fs::unlink(partial);
    }
    report
}

fn open(path: &Path, size: u64, overwrite: bool) -> Result<Opened, RestoreFault> {
    let fault = |call| move |errno| RestoreFault::Target { call, errno };
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::stat(path) {
        Ok(have) if FileType::from_raw_mode(have.st_mode) == FileType::BlockDevice => {
            let fd = rustix::fs::open(path, flags | OFlags::EXCL, Mode::empty())
                .map_err(fault("open the device"))?;
            let have = rustix::fs::seek(&fd, rustix::fs::SeekFrom::End(0))
                .map_err(fault("ask for the device's size"))?;
            if have < size {
                return Err(RestoreFault::TooSmall { have, need: size });
            }
            Ok(Opened { fd, partial: None })
        }
        Ok(have) if FileType::from_raw_mode(have.st_mode) != FileType::RegularFile => {
            Err(RestoreFault::WrongItem("the target is neither a block device nor a plain file"))
        }
        Ok(_) if !overwrite => Err(RestoreFault::Exists),
        Ok(_) => {
            let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(fault("open the file"))?;
            rustix::fs::ftruncate(&fd, size).map_err(fault("set the file's length"))?;
            Ok(Opened { fd, partial: None })
        }
        Err(Errno::NOENT) => {
            let mut partial = path.as_os_str().to_owned();
            partial.push(PARTIAL);
            let partial = PathBuf::from(partial);
            let create = flags | OFlags::CREATE | OFlags::TRUNC;
            let fd = rustix::fs::open(&partial, create, Mode::from_raw_mode(0o600))
                .map_err(fault("create the file"))?;
            rustix::fs::ftruncate(&fd, size).map_err(fault("set the file's length"))?;
            Ok(Opened { fd, partial: Some(partial) })
        }
        Err(errno) => Err(RestoreFault::Target { call: "look at the target", errno }),
    }
}

fn write<F: Fetch>(
    source: &mut Source<'_, F>,
    lin: Lin,
    item: crate::format::row::ItemAttributes,
    opened: &Opened,
    job: &Job,
    memory: u64,
    progress: &Arc<Progress>,
) -> Result<RestoreReport, RestoreFault> {
    let fd = opened.fd.try_clone().map_err(|_| RestoreFault::Resources("file descriptors"))?;
    let file = File::of_device(lin, item, fd);
    let queue = Queue::default();
    let (lanes, read_bytes_max) = lanes_for(memory);
    let merging = Merging { read_bytes_max, ..Merging::default() };
    std::thread::scope(|scope| {
        for _ in 0..lanes {
            let Some(mut lane) = Lane::new(job, source.client, source.keys) else {
                return Err(RestoreFault::Resources("memory"));
            };
            let queue = &queue;
            scope.spawn(move || lane.run(queue));
        }
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
        let zeroes = opened.partial.is_none();
        let walked = source.lookup.locations(lin, &file.item.clone(), &mut |row| {
            reached = take(&row, reached, zeroes, job, &file, &mut gather);
            Ok(())
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
    if progress.is_stop_requested() {
        return Err(RestoreFault::Cancelled);
    }
    let (faults, fault_count) = job.faults.take();
    Ok(RestoreReport { items: 1, bytes: progress.bytes_done.get(), faults, fault_count })
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

/// Makes a range read as zero.
fn zero(job: &Job, file: &Arc<File>, from: u64, to: u64) {
    if from >= to {
        return;
    }
    file.write(job, "zero", |fd| {
        let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(fd, flags, from, to - from) {
            Err(Errno::OPNOTSUPP) => super::lane::write_zeros(fd, from, to - from),
            other => other,
        }
    });
}

/// Durability, and the name of a new file.
fn finish(
    opened: &Opened,
    path: &Path,
    overwrite: bool,
    sync: bool,
    report: &RestoreReport,
) -> Result<(), RestoreFault> {
    if sync {
        rustix::fs::fsync(opened.fd.as_fd()).map_err(|errno| RestoreFault::Target { call: "sync", errno })?;
        // Nobody reads this soon: the page cache stays what it was. A hint only.
        let _ = rustix::fs::fadvise(opened.fd.as_fd(), 0, None, rustix::fs::Advice::DontNeed);
    }
    let Some(partial) = &opened.partial else { return Ok(()) };
    if report.fault_count > 0 {
        log::warn!("restore: image is not whole, kept under its partial name path={}", partial.display());
        return Ok(());
    }
    let flags = if overwrite { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
    let cwd = rustix::fs::CWD;
    match rustix::fs::renameat_with(cwd, partial, cwd, path, flags) {
        Err(Errno::INVAL) if matches!(rustix::fs::statat(cwd, path, AtFlags::empty()), Err(Errno::NOENT)) => {
            rustix::fs::rename(partial, path)
        }
        other => other,
    }
    .map_err(|errno| RestoreFault::Target { call: "give the file its name", errno })
}
