//! What is measured, as work for a process of its own: so that memory, processor time and the cap on reads are its own too.
//!
//! | work | what |
//! |---|---|
//! | `open` | opens the device and the raw reader: what memory costs before anything is read |
//! | `sweep` | the raw reader: items, names, extents, attributes |
//! | `walk` | the same asked of the kernel, by the mounted reader: readdir, open by handle, statx, FIEMAP |
//! | `read [GAP FRAME DEPTH]` | `sweep`, planned and read in physical order; in KiB and requests, otherwise as a backup does it |
//! | `sequential N` | the first N bytes of the device, in order |
//! | `kernel DIR` | every file below a directory, read through the kernel by name |
//!
//! Each prints one line of JSON. Source: ours.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};
use windlass_agent::pack::plan::{Plan, PlanBlock, PlanPiece};
use windlass_agent::pack::reading::Reading;
use windlass_agent::worker::backup::BATCHES_MAX;
use windlass_hal::block::{BlockDevice, Op, Request, SEGMENTS_PER_REQUEST_MAX, Segment, Wait};
use windlass_hal::buf::Pool;
use windlass_hal::clock::{Clock, SystemClock};
use windlass_hal::linux::{self, Access};
use windlass_hal::volume::mounted::{Mounted, Recovery};
use windlass_hal::volume::{Cursor, ExtentState, Swept, Volume, Window, detect};
use windlass_tests::error::{Context, Error, Result};

/// Bytes of one frame and of one sequential request: what a backup uses by default.
const FRAME_BYTES: usize = 512 << 10;
/// Frames in flight.
const FRAMES: usize = 16;
/// Bytes of a block of an item: the default of a policy.
const BLOCK_BYTES: u64 = 128 << 10;

/// Does the work that the arguments name and prints what came of it.
pub fn run(args: &[String]) -> Result<()> {
    let [kind, target, rest @ ..] = args else { return Err(Error::new("--work KIND TARGET")) };
    let target = Path::new(target);
    let begun = SystemClock.now();
    let mut done = match kind.as_str() {
        "open" => open_to_sweep(target).map(|_| json!({})),
        "sweep" => sweep(target),
        "walk" => walk(target),
        "read" => read(target, &numbers(rest)?),
        "sequential" => {
            let bytes = rest.first().and_then(|bytes| bytes.parse().ok());
            sequential(target, bytes.ok_or_else(|| Error::new("how many bytes?"))?)
        }
        "kernel" => kernel(target),
        other => Err(Error::new(format!("no work is called {other}"))),
    }?;
    done["seconds"] = (SystemClock.now().saturating_since(begun).as_secs_f64()).into();
    println!("{done}");
    Ok(())
}

fn numbers(args: &[String]) -> Result<Vec<u64>> {
    args.iter().map(|arg| arg.parse().map_err(|_| Error::new(format!("{arg} is no number")))).collect()
}

/// A device, its reader, and memory for its data.
struct Opened {
    device: Box<dyn BlockDevice>,
    volume: Box<dyn Volume>,
    pool: Pool,
}

fn device(path: &Path, pool: &Pool) -> Result<Box<dyn BlockDevice>> {
    linux::open(path, Access::Read, pool.count(), std::slice::from_ref(pool))
        .context(|| path.display().to_string())
}

/// For work that reads no data.
fn open_to_sweep(path: &Path) -> Result<Opened> {
    open_with(path, Pool::new(1, 4096))
}

fn open_with(path: &Path, pool: Pool) -> Result<Opened> {
    let mut device = device(path, &pool)?;
    let volume = detect::open(&mut *device).context(|| path.display().to_string())?;
    Ok(Opened { device, volume, pool })
}

/// What was found.
#[derive(Default)]
struct Found {
    items: u64,
    names: u64,
    extents: u64,
    faults: u64,
}

impl Found {
    fn add(&mut self, window: &Window) {
        self.items += window.items.iter().filter(|item| item.part.last).count() as u64;
        self.names += window.names.len() as u64;
        self.extents += window.extents.len() as u64;
        self.faults += window.items.iter().filter(|item| item.fault.is_some()).count() as u64;
    }

    fn json(&self) -> Value {
        json!({ "items": self.items, "names": self.names, "extents": self.extents, "faults": self.faults })
    }
}

/// Goes through the volume, window by window.
#[derive(Default)]
struct Windows {
    window: Window,
    /// Windows so far.
    count: usize,
    cursor: Cursor,
    done: bool,
    found: Found,
}

impl Windows {
    /// Goes to the next one; `false` when there is none.
    fn next(&mut self, volume: &mut dyn Volume, device: &mut dyn BlockDevice) -> Result<bool> {
        if self.done {
            return Ok(false);
        }
        match volume.sweep(device, self.cursor, &mut self.window).context(|| "sweep")? {
            Swept::More(next) => self.cursor = next,
            Swept::Done => self.done = true,
        }
        self.count += 1;
        self.found.add(&self.window);
        Ok(true)
    }

    /// What all of them hold.
    fn all(mut self, volume: &mut dyn Volume, device: &mut dyn BlockDevice) -> Result<Found> {
        while self.next(volume, device)? {}
        Ok(self.found)
    }
}

fn sweep(path: &Path) -> Result<Value> {
    let Opened { mut device, mut volume, .. } = open_to_sweep(path)?;
    Ok(Windows::default().all(&mut *volume, &mut *device)?.json())
}

fn walk(path: &Path) -> Result<Value> {
    let mut device = device(path, &Pool::new(1, 4096))?;
    let mut volume = Mounted::open(path, &mut *device, Recovery::Refused).context(|| "mount")?;
    Ok(Windows::default().all(&mut volume, &mut *device)?.json())
}

fn read(path: &Path, chosen: &[u64]) -> Result<Value> {
    let frame_bytes = chosen.get(1).map_or(FRAME_BYTES, |kib| (kib << 10) as usize);
    let depth = chosen.get(2).map_or(FRAMES, |&depth| depth as usize);
    let Opened { mut device, mut volume, pool } = open_with(path, Pool::new(depth, frame_bytes))?;
    let info = volume.info().clone();
    let reading = Reading::of(&device.geometry(), depth, info.used_bytes, info.size_bytes);
    let gap_bytes = chosen.first().map_or(reading.gap_bytes, |kib| kib << 10);
    let (mut plan, mut reader) = (Plan::new(gap_bytes), Reader::new(&pool));
    let mut windows = Windows::default();
    // Requests to make, each with the number of its window.
    let mut frames: VecDeque<(usize, Vec<Segment>)> = VecDeque::new();
    loop {
        while pool.free() > 0
            && let Some((_, segments)) = frames.pop_front()
        {
            reader.submit(&mut *device, segments)?;
        }
        // As a backup does it: what is to be read of some windows is known before it is asked for.
        let known = frames.front().map_or(0, |(first, _)| windows.count + 1 - first);
        if known < BATCHES_MAX && windows.next(&mut *volume, &mut *device)? {
            let window = &windows.window;
            for (index, item) in window.items.iter().enumerate() {
                let extents = &window.extents[item.extents.start as usize..item.extents.end as usize];
                for extent in extents.iter().filter(|extent| extent.state == ExtentState::Data) {
                    add(&mut plan, index as u32, extent.logical, extent.physical, extent.len);
                    if plan.is_full() {
                        reader.wanted += arrange(&mut plan, frame_bytes, windows.count, &mut frames);
                    }
                }
            }
            reader.wanted += arrange(&mut plan, frame_bytes, windows.count, &mut frames);
        } else if !frames.is_empty() {
            reader.wait(&mut *device)?;
        } else if windows.done {
            break;
        }
    }
    reader.drain(&mut *device)?;
    let mut done = windows.found.json();
    done["bytes"] = reader.bytes.into();
    done["wanted"] = reader.wanted.into();
    done["used"] = info.used_bytes.into();
    done["requests"] = reader.requests.into();
    Ok(done)
}

/// Turns what is planned into requests. Returns its bytes.
fn arrange(
    plan: &mut Plan,
    frame_bytes: usize,
    window: usize,
    frames: &mut VecDeque<(usize, Vec<Segment>)>,
) -> u64 {
    plan.arrange(frame_bytes);
    for frame in &plan.frames {
        let reads = &plan.reads[frame.reads.start as usize..frame.reads.end as usize];
        frames.extend(reads.chunks(SEGMENTS_PER_REQUEST_MAX).map(|part| (window, part.to_vec())));
    }
    let wanted = plan.blocks.iter().map(|block| u64::from(block.len)).sum();
    plan.clear();
    wanted
}

/// Cuts an extent into blocks.
fn add(plan: &mut Plan, item: u32, logical: u64, physical: u64, len: u64) {
    let mut at = 0;
    while at < len {
        let now = (BLOCK_BYTES - (logical + at) % BLOCK_BYTES).min(len - at) as u32;
        let first = plan.pieces.len() as u32;
        plan.pieces.push(PlanPiece { physical: physical + at, within: 0, len: now, at: 0 });
        plan.blocks.push(PlanBlock {
            item,
            block: (logical + at) / BLOCK_BYTES,
            len: now,
            pieces: first..first + 1,
            outcome: plan.blocks.len() as u32,
        });
        at += u64::from(now);
    }
}

/// Keeps requests in flight.
struct Reader<'a> {
    pool: &'a Pool,
    bytes: u64,
    wanted: u64,
    requests: u64,
}

impl<'a> Reader<'a> {
    fn new(pool: &'a Pool) -> Reader<'a> {
        Reader { pool, bytes: 0, wanted: 0, requests: 0 }
    }

    /// Reads ranges into a buffer of the pool, once one is free.
    fn submit(&mut self, device: &mut dyn BlockDevice, segments: Vec<Segment>) -> Result<()> {
        self.bytes += segments.iter().map(|range| range.len).sum::<u64>();
        self.requests += segments.len() as u64;
        let buf = loop {
            match self.pool.take() {
                Some(buf) => break buf,
                None => self.wait(device)?,
            }
        };
        let request = Request { id: 0, op: Op::Read, buf: Some(buf), segments };
        device.submit(request).map_err(|_| Error::new("the queue is full"))
    }

    /// Waits until one request is done.
    fn wait(&mut self, device: &mut dyn BlockDevice) -> Result<()> {
        let mut fault = None;
        device.complete(Wait::One, &mut |request| fault = fault.take().or(request.fault()));
        fault.map_or(Ok(()), |fault| Err(Error::new(fault.to_string())))
    }

    /// Waits until none is in flight.
    fn drain(&mut self, device: &mut dyn BlockDevice) -> Result<()> {
        while device.in_flight() > 0 {
            self.wait(device)?;
        }
        Ok(())
    }
}

fn sequential(path: &Path, bytes: u64) -> Result<Value> {
    let pool = Pool::new(FRAMES, FRAME_BYTES);
    let mut device = device(path, &pool)?;
    let end = bytes.min(device.geometry().size_bytes);
    let mut reader = Reader::new(&pool);
    let mut at = 0;
    while at < end {
        let len = (end - at).min(FRAME_BYTES as u64);
        reader.submit(&mut *device, vec![Segment::new(at, 0, len)])?;
        at += len;
    }
    reader.drain(&mut *device)?;
    Ok(json!({ "bytes": reader.bytes, "requests": reader.requests }))
}

fn kernel(dir: &Path) -> Result<Value> {
    let (mut items, mut bytes) = (0u64, 0u64);
    let mut buf = vec![0; FRAME_BYTES];
    let mut pending = vec![dir.to_path_buf()];
    while let Some(path) = pending.pop() {
        for entry in fs::read_dir(&path).context(|| path.display().to_string())? {
            let entry = entry.context(|| path.display().to_string())?;
            let kind = entry.file_type().context(|| "kind")?;
            items += 1;
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_file() {
                let mut file = File::open(entry.path()).context(|| entry.path().display().to_string())?;
                loop {
                    match file.read(&mut buf).context(|| entry.path().display().to_string())? {
                        0 => break,
                        count => bytes += count as u64,
                    }
                }
            }
        }
    }
    Ok(json!({ "items": items, "bytes": bytes }))
}
