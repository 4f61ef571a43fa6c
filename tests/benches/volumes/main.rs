//! The raw readers against the kernel, on the same devices, in the same run.
//!
//! ```text
//! cargo bench -p windlass-tests --bench volumes                  everything: 15 minutes, most of them for making the volumes
//! cargo bench -p windlass-tests --bench volumes -- enumerate     some phases: enumerate read capped memory tune
//! ```
//! Needs root, e2fsprogs, xfsprogs and 16 GiB of free disk in the target directory. The volumes stay there for the next run;
//! `cargo clean` removes them. A file system whose mkfs is missing is left out, and the output says so.
//!
//! | phase | volume | what |
//! |---|---|---|
//! | enumerate | 200 thousand files of 4 KiB, on disk and in memory | items, names and extents: raw, and through the kernel with FIEMAP; best of five |
//! | read | real files, 4 GiB | all data in physical order, against as many bytes in order, in turn; best of five |
//! | capped | the same, 4,000 reads a second | against as many bytes in order as are in use, and every file by name through the kernel |
//! | tune | the same as read | gap, frame and depth, without a cap and with one; only when asked for |
//! | memory | 10 thousand, 200 thousand and a million files | peak of a sweep, less what the program takes without one (what is allocated is counted in hal's tests) |
//!
//! What was chosen by it: gaps of 64 KiB in frames of 512 KiB. XFS of real files, sweep included, on a device in memory that a cap on bytes
//! (`blkio.throttle.read_bps_device`) holds at 700 MB/s, so that seconds repeat to 0.1 %; as many bytes in order as are data: 7.52 s, as are in use: 8.03 s.
//! Depths of 4, 8 and 32 made no difference that shows.
//!
//! | gap KiB | reads | MiB | s | s at 4,000 reads/s, too |
//! |---|---|---|---|---|
//! | 16 | 16,410 | 5407 | 8.12 | 8.12 |
//! | 64 | 14,489 | 5486 | 8.22 | 8.22 |
//! | 256 | 13,298 | 5591 | 8.33 | 8.33 |
//!
//! | frame KiB, gap 64 | reads of data | MiB | ext4: reads of data | MiB |
//! |---|---|---|---|---|
//! | 256 | 24,177 | 5139 | 22,706 | 5067 |
//! | 512 | 12,402 | 5150 | 11,022 | 5072 |
//! | 1024 | 6,882 | 5156 | 5,625 | 5073 |
//!
//! Every run starts from a cold cache, in a process of its own, whose program is warm. Prints markdown; a row that is not met says so and fails
//! nothing. Source: ours; `tests/benches/README.md`.

#[allow(dead_code, reason = "this bench needs less of it than the other")]
#[path = "../peers/measure.rs"]
mod measure;
mod volumes;
mod work;

use std::path::Path;
use std::process::ExitCode;

use measure::{Cap, Job};
use serde_json::Value;
use volumes::{KINDS, Made, Volumes};
use windlass_tests::error::{Context, Error, Result};
use windlass_tests::image::Kind;

const WORK: &str = "--work";
const PHASES: [&str; 5] = ["enumerate", "read", "capped", "memory", "tune"];
/// Disks of virtual machines vary twofold from one run to the next.
const RUNS: u32 = 5;
const CAP_READ_IOPS: u32 = 4_000;
/// Gap in KiB, frame in KiB, depth: each varied around what a backup uses.
const TUNE: [(&str, &str, &str); 9] = [
    ("4", "512", "16"),
    ("16", "512", "16"),
    ("64", "512", "16"),
    ("256", "512", "16"),
    ("64", "256", "32"),
    ("64", "1024", "8"),
    ("64", "512", "4"),
    ("64", "512", "8"),
    ("64", "512", "32"),
];
const MIB: f64 = 1_048_576.0;

fn main() -> ExitCode {
    let os: Vec<_> = std::env::args_os().skip(1).collect();
    if os.first().is_some_and(|first| first == measure::MEASURE) {
        return measure::measuring_process(&os[1..]);
    }
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let done = match args.split_first() {
        Some((first, rest)) if first == WORK => work::run(rest),
        _ => bench(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("volumes: {why}");
            ExitCode::FAILURE
        }
    }
}

/// A row of the table.
struct Row {
    what: String,
    target: String,
    measured: String,
    met: bool,
}

struct Bench {
    volumes: Volumes,
    rows: Vec<Row>,
}

fn bench(args: &[String]) -> Result<()> {
    if let Some(odd) = args.iter().find(|arg| !PHASES.contains(&arg.as_str())) {
        return Err(Error::new(format!("{odd}? Phases are {}", PHASES.join(" "))));
    }
    if !windlass_tests::privilege::is_root() {
        println!("SKIPPED: volumes: needs root, for loop devices and cold caches");
        return Ok(());
    }
    let has = |phase: &str| args.is_empty() || args.iter().any(|arg| arg == phase);
    let mut bench = Bench { volumes: Volumes::open()?, rows: Vec::new() };
    for kind in KINDS {
        if let Some(why) = kind.missing() {
            println!("SKIPPED: {}: {why}", kind.name());
            continue;
        }
        if has("enumerate") {
            bench.enumerate(kind)?;
        }
        if has("read") {
            bench.read(kind)?;
        }
        if has("capped") {
            bench.capped(kind)?;
        }
        if has("memory") {
            bench.memory(kind)?;
        }
        // Only when asked for: what it finds is chosen once.
        if args.iter().any(|arg| arg == "tune") {
            bench.tune(kind)?;
        }
    }
    println!("\n| what | must reach | measured | |\n|---|---|---|---|");
    for Row { what, target, measured, met } in &bench.rows {
        println!("| {what} | {target} | {measured} | {} |", if *met { "MET" } else { "NOT MET" });
    }
    Ok(())
}

/// What one run of a work printed, and its peak of memory.
struct Ran {
    seconds: f64,
    said: Value,
    rss_mib: f64,
}

impl Bench {
    fn row(&mut self, what: String, target: String, measured: String, met: bool) {
        eprintln!("{what}: {measured}");
        self.rows.push(Row { what, target, measured, met });
    }

    fn run(&self, work: &[&str], cap: Option<&Cap>) -> Result<Ran> {
        volumes::drop_caches()?;
        let own = std::env::current_exe().context(|| "own path")?;
        // The volume is cold; the program is not what is measured.
        std::fs::read(&own).context(|| "own program")?;
        let cost = measure::run(&Job::new(own).arg(WORK).args(work), self.volumes.logs(), cap)?;
        let said: Value = serde_json::from_str(cost.stdout.trim()).context(|| "a work's output")?;
        let seconds = said["seconds"].as_f64().ok_or_else(|| Error::new("a work told no time"))?;
        if said["faults"].as_u64().unwrap_or_default() > 0 {
            return Err(Error::new(format!("{work:?} found faults on a sound volume: {said}")));
        }
        Ok(Ran { seconds, said, rss_mib: cost.rss_mib })
    }

    /// The fastest of some runs of each, in turn: what else the machine does hits all.
    fn best<const N: usize>(&self, works: [&[&str]; N], cap: Option<&Cap>) -> Result<[Ran; N]> {
        let mut best: Vec<Ran> = works.iter().map(|work| self.run(work, cap)).collect::<Result<_>>()?;
        for _ in 1..RUNS {
            for (best, work) in best.iter_mut().zip(works) {
                let ran = self.run(work, cap)?;
                if ran.seconds < best.seconds {
                    *best = ran;
                }
            }
        }
        best.try_into().map_err(|_| Error::new("a run of each work"))
    }

    fn enumerate(&mut self, kind: Kind) -> Result<()> {
        let made = self.volumes.small_files(kind, 200_000, true)?;
        self.enumerate_in(kind, &made, "on disk")?;
        // What the reader itself takes, whatever the disk.
        let (_tmpfs, copy) = made.in_memory()?;
        self.enumerate_in(kind, &copy, "in memory")
    }

    fn enumerate_in(&mut self, kind: Kind, made: &Made, place: &str) -> Result<()> {
        let device = made.attach()?;
        let before = device.read_bytes()?;
        let path = text(device.device())?;
        self.run(&["sweep", path], None)?;
        let bytes = device.read_bytes()? - before;
        let (bytes_text, mib) = (bytes.to_string(), bytes as f64 / MIB);
        let works: [&[&str]; 3] = [&["sweep", path], &["sequential", path, &bytes_text], &["walk", path]];
        let [raw, in_order, kernel] = self.best(works, None)?;
        for what in ["items", "names", "extents"] {
            if raw.said[what] != kernel.said[what] {
                return Err(Error::new(format!("raw and kernel differ: {} and {}", raw.said, kernel.said)));
            }
        }
        let name = kind.name();
        let items = &raw.said["items"];
        self.row(
            format!("{name} {place}: enumeration with names and extents, {items} items"),
            "at most 0.15 s".to_owned(),
            format!("{:.3} s (its {mib:.0} MiB in order: {:.3} s)", raw.seconds, in_order.seconds),
            raw.seconds <= 0.15,
        );
        let ratio = kernel.seconds / raw.seconds;
        self.row(
            format!("{name} {place}: the kernel's walk with FIEMAP"),
            "at least 7 times as long".to_owned(),
            format!("{:.2} s, {ratio:.1} times", kernel.seconds),
            ratio >= 7.0,
        );
        Ok(())
    }

    fn read(&mut self, kind: Kind) -> Result<()> {
        let made = self.volumes.real_files(kind)?;
        let device = made.attach()?;
        let device = text(device.device())?;
        let wanted = self.run(&["read", device], None)?.said["wanted"].to_string();
        let [raw, in_order] = self.best([&["read", device], &["sequential", device, &wanted]], None)?;
        let ratio = raw.seconds / in_order.seconds;
        let bytes = raw.said["wanted"].as_f64().unwrap_or_default() / MIB;
        self.row(
            format!("{}: sweep and all data in physical order, {bytes:.0} MiB", kind.name()),
            format!("at most 1.1 x {:.2} s of as many bytes in order", in_order.seconds),
            format!("{:.2} s, {ratio:.2} times", raw.seconds),
            ratio <= 1.1,
        );
        Ok(())
    }

    fn capped(&mut self, kind: Kind) -> Result<()> {
        let mount = self.volumes.real_files(kind)?.mount()?;
        let device = mount.loop_device();
        let cap = match device.number().and_then(|number| Cap::reads_of(&number, CAP_READ_IOPS)) {
            Ok(cap) => cap,
            Err(why) => {
                println!("SKIPPED: capped: {why}");
                return Ok(());
            }
        };
        let device = text(device.device())?;
        let used = self.run(&["read", device], None)?.said["used"].to_string();
        let works: [&[&str]; 2] = [&["read", device], &["sequential", device, &used]];
        let [raw, in_order] = self.best(works, Some(&cap))?;
        let used = used.parse().unwrap_or(0.0) / MIB;
        let kernel = self.run(&["kernel", text(mount.dir())?], Some(&cap))?;
        let name = kind.name();
        let more = raw.seconds / in_order.seconds;
        self.row(
            format!("{name}, {CAP_READ_IOPS} reads/s: sweep and all data"),
            format!("at most 1.1 x {:.2} s of the used {used:.0} MiB in order", in_order.seconds),
            format!("{:.2} s, {more:.2} times", raw.seconds),
            more <= 1.1,
        );
        let ratio = kernel.seconds / raw.seconds;
        self.row(
            format!("{name}, {CAP_READ_IOPS} reads/s: every file by name through the kernel"),
            "at least 10 times as long".to_owned(),
            format!("{:.1} s, {ratio:.1} times", kernel.seconds),
            ratio >= 10.0,
        );
        Ok(())
    }

    /// A table of gap, frame and depth: seconds without a cap and with one, the bytes read, and the requests.
    fn tune(&mut self, kind: Kind) -> Result<()> {
        let mount = self.volumes.real_files(kind)?.mount()?;
        let device = mount.loop_device();
        let cap = device.number().and_then(|number| Cap::reads_of(&number, CAP_READ_IOPS))?;
        let device = text(device.device())?;
        println!(
            "\n| {}: gap KiB | frame KiB | depth | s | s at {CAP_READ_IOPS} reads/s | MiB | reads |",
            kind.name()
        );
        println!("|---|---|---|---|---|---|---|");
        for (gap, frame, depth) in TUNE {
            let work = ["read", device, gap, frame, depth];
            let (free, capped) = (self.run(&work, None)?, self.run(&work, Some(&cap))?);
            let mib = free.said["bytes"].as_f64().unwrap_or_default() / MIB;
            let (s, capped_s, reads) = (free.seconds, capped.seconds, &free.said["requests"]);
            println!("| {gap} | {frame} | {depth} | {s:.2} | {capped_s:.2} | {mib:.0} | {reads} |");
        }
        Ok(())
    }

    fn memory(&mut self, kind: Kind) -> Result<()> {
        let mut peaks = Vec::new();
        for (files, full) in [(10_000, false), (200_000, true), (1_000_000, false)] {
            let made = self.volumes.small_files(kind, files, full)?;
            let device = made.attach()?;
            let device = text(device.device())?;
            let (swept, opened) = (self.run(&["sweep", device], None)?, self.run(&["open", device], None)?);
            peaks.push((swept.rss_mib - opened.rss_mib, swept.rss_mib));
        }
        let each = |of: fn(&(f64, f64)) -> f64| -> String {
            peaks.iter().map(|peak| format!("{:.1}", of(peak))).collect::<Vec<_>>().join(", ")
        };
        self.row(
            format!("{}: memory of a sweep, 10 thousand, 200 thousand and a million files", kind.name()),
            "at most 8 MiB".to_owned(),
            format!("{} MiB (whole program {})", each(|peak| peak.0), each(|peak| peak.1)),
            peaks.iter().all(|peak| peak.0 <= 8.0),
        );
        Ok(())
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::new("a path that is no text"))
}
