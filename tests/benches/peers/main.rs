//! Windlass and other backup tools on the same data, on the same machine, in the same run.
//!
//! ```text
//! cargo bench -p windlass-tests --bench peers                            everything, half an hour on 2 busy cores
//! cargo bench -p windlass-tests --bench peers -- backup restore          some phases: backup restore capped image rss binary
//! cargo bench -p windlass-tests --bench peers -- --only windlass,bupstash backup
//! WINDLASS_BENCH_REPEATS=3 …                                             runs are interleaved, medians are shown
//! WINDLASS_PEERS=/dir/with/programs:/another …                           searched before PATH
//! ```
//! Peers, each skipped by name where it is missing: `apt-get install restic borgbackup zstd fio`,
//! `apt-get install libsodium-dev pkg-config` and `cargo install rustic-rs bupstash`. Needs e2fsprogs, and about 30 GiB
//! of free disk in the target directory (14 GiB stay there; `cargo clean` removes them). Root: without it there are no
//! cold caches, no loop devices and no cap, and the output says so.
//!
//! What to expect on 2 cores and 4.1 GiB in 64,000 files (one run): bupstash, the fastest peer, 10 to 12 s
//! and 14 CPU s, restic, rustic and borg about 22 s; reading is 1.6 s in physical order and compressing 9.5 CPU s, so
//! half of the fastest peer leaves little for anything else. Under a cap of 4,000 reads a second file tools need about
//! 50 s, raw reads 3.4 s.
//!
//! Where the processor goes (perf, 299 Hz, the tree volume, zstd 1, encrypted; what is in no row is waste):
//!
//! | share of a full backup | share of a restore | what |
//! |---|---|---|
//! | 73.8 % | 21.8 % | zstd |
//! | 10.3 % | 9.9 % | BLAKE3 |
//! | 9.6 % | 41.4 % | kernel: reading, writing, making files, waking threads |
//! | 1.6 % | 2.2 % | AES-GCM |
//! | 2.5 % | 4.8 % | moving memory |
//! | 2.2 % | 19.0 % | everything else: sweep and planning; for a restore, looking up and decoding rows |
//!
//! Prints markdown; raw figures go to `results.json` below the target directory. Nothing here fails the build: a row that
//! is not met says so. Source: ours.

mod measure;
mod peers;
mod setup;
mod table;
mod verify;
mod windlass;

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use measure::{Cap, Cost, Job};
use peers::{Place, Source, Tool};
use serde_json::Value;
use setup::{Cache, Shape, Volume};
use table::{Peak, Phase, Results, Sample};
use windlass_tests::error::{Context, Error, Result};
use windlass_tests::workdir::remove_tree;

const CAP_READ_IOPS: u32 = 4_000;
/// Small reads under the cap, to show that it holds: five seconds of them.
const CAP_CHECK_READS: u32 = 20_000;
const FIO_RUNS: u32 = 3;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if args.first().is_some_and(|first| first == measure::MEASURE) {
        return measure::measuring_process(&args[1..]);
    }
    match bench(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("peers: {why}");
            ExitCode::FAILURE
        }
    }
}

/// What to run.
struct Plan {
    phases: Vec<String>,
    only: Vec<String>,
    repeats: usize,
}

impl Plan {
    const PHASES: [&str; 6] = ["backup", "restore", "capped", "image", "rss", "binary"];

    fn parse(args: &[OsString]) -> Result<Plan> {
        let repeats =
            std::env::var("WINDLASS_BENCH_REPEATS").ok().and_then(|count| count.parse().ok()).unwrap_or(1);
        let mut plan = Plan { phases: Vec::new(), only: Vec::new(), repeats };
        let mut args = args.iter().map(|arg| arg.to_string_lossy().into_owned());
        while let Some(arg) = args.next() {
            match arg.as_str() {
                // What cargo adds.
                "--bench" => {}
                "--only" => {
                    plan.only = args.next().unwrap_or_default().split(',').map(str::to_owned).collect()
                }
                phase if Plan::PHASES.contains(&phase) => plan.phases.push(arg),
                other => {
                    return Err(Error::new(format!(
                        "{other}? Phases are {}; --only TOOL,TOOL",
                        Plan::PHASES.join(" ")
                    )));
                }
            }
        }
        Ok(plan)
    }

    fn has(&self, phase: &str) -> bool {
        self.phases.is_empty() || self.phases.iter().any(|name| name == phase)
    }

    fn wants(&self, tool: Tool) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == tool.name())
    }
}

struct Bench {
    plan: Plan,
    cache: Cache,
    tools: Vec<Tool>,
    results: Results,
}

fn bench(args: &[OsString]) -> Result<()> {
    let plan = Plan::parse(args)?;
    let mut bench = Bench { plan, cache: Cache::open()?, tools: Vec::new(), results: Results::default() };
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    bench.results.about.push(format!("{processors} processors; load average before: {}.", load()));
    bench.find_tools();
    if bench.plan.has("binary") {
        bench.results.binary_bytes = Some(binary_bytes());
    }
    if ["backup", "restore", "capped"].iter().any(|phase| bench.plan.has(phase)) {
        let (volume, about) = setup::tree_volume(&bench.cache)?;
        bench.results.about.push(about);
        if !setup::drop_caches() {
            bench
                .results
                .about
                .push("Not root: caches are warm, files are read from a copy, there is no cap.".to_owned());
        }
        if bench.plan.has("backup") || bench.plan.has("restore") {
            bench.compare(&volume)?;
        }
        if bench.plan.has("capped") {
            bench.capped(&volume)?;
        }
    }
    if bench.plan.has("image") {
        bench.image()?;
    }
    if bench.plan.has("rss") && bench.tools.contains(&Tool::Windlass) {
        bench.memory()?;
    }
    bench.results.about.push(format!(
        "Load average after: {}; a quiet machine shows about what the bench itself uses.",
        load()
    ));
    let raw = bench.cache.path("results.json");
    fs::write(&raw, format!("{:#}", bench.results.json())).context(|| raw.display().to_string())?;
    println!("{}", bench.results.markdown());
    eprintln!("raw figures: {}", raw.display());
    Ok(())
}

/// Absolute figures mean little while something else runs.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn binary_bytes() -> std::result::Result<u64, String> {
    fs::metadata(setup::windlass_binary()).map(|item| item.len()).map_err(|why| why.to_string())
}

impl Bench {
    fn find_tools(&mut self) {
        for tool in Tool::ALL.into_iter().filter(|tool| self.plan.wants(*tool)) {
            if let Some(missing) = tool.programs().iter().find(|program| !setup::has_program(program)) {
                self.results.about.push(format!("SKIPPED: {}: {missing} is not installed.", tool.name()));
                continue;
            }
            if tool == Tool::Windlass
                && let Err(why) = setup::build_windlass()
            {
                self.results.about.push(format!("windlass does not build: {why}"));
            }
            let said = with_path(tool.version()).prepare().unwrap_or_default();
            let version = String::from_utf8_lossy(&said)
                .split_whitespace()
                .find_map(version_number)
                .unwrap_or_default();
            self.results.versions.insert(tool, version);
            self.tools.push(tool);
        }
    }

    /// A directory for one run of one tool.
    fn place(&self) -> Result<Place> {
        let side = self.cache.fresh("run/side")?;
        let repo = self.cache.path("run/repo");
        remove_tree(&repo);
        let password = side.join("password");
        fs::write(&password, "correct horse battery staple\n").context(|| "password")?;
        Ok(Place { repo, side, password })
    }

    /// Runs from a cold cache.
    fn run(&self, job: Job, cap: Option<&Cap>) -> Result<Cost> {
        let logs = self.cache.path("run");
        setup::drop_caches();
        measure::run(&with_path(job), &logs, cap)
    }

    fn note(&mut self, phase: Phase, tool: Tool, cost: Result<Cost>) -> &mut Sample {
        match &cost {
            Ok(cost) => eprintln!(
                "{phase:?} {}: {:.2} s, {:.2} CPU s, {:.0} MiB, flush {:.1} s",
                tool.name(),
                cost.wall_s,
                cost.cpu_s,
                cost.rss_mib,
                cost.settle_s
            ),
            Err(why) => eprintln!("{phase:?} {}: FAILED: {why}", tool.name()),
        }
        let at = self.results.samples.len();
        self.results.samples.push(Sample {
            phase,
            tool,
            cost: cost.map_err(|why| why.to_string().replace('\n', " / ")),
            stored: None,
            verified: None,
        });
        &mut self.results.samples[at]
    }

    /// Full backup, unchanged backup, restore, of every tool in turn, as often as asked.
    fn compare(&mut self, volume: &Volume) -> Result<()> {
        self.cache.require_free(12 << 30)?;
        for repeat in 0..self.plan.repeats {
            let mut tools = self.tools.clone();
            // No tool always runs after the same one.
            tools.rotate_left(repeat % self.tools.len().max(1));
            for tool in tools {
                self.compare_one(tool, &volume.source)?;
                remove_tree(&self.cache.path("run"));
            }
        }
        Ok(())
    }

    fn compare_one(&mut self, tool: Tool, source: &Source) -> Result<()> {
        let place = self.place()?;
        let cost = self.full_backup(tool, &place, source, None);
        if let Ok(cost) = &cost
            && tool == Tool::Windlass
        {
            self.results.requests = windlass::Requests::parse(&cost.stdout);
        }
        let is_done = cost.is_ok();
        self.note(Phase::Backup, tool, cost).stored = is_done.then(|| setup::count(&place.repo).1);
        if !is_done {
            return Ok(());
        }
        // tar has no second run: it would only repeat the first.
        if tool != Tool::Tar {
            let cost = self.run(tool.backup(&place, source, 2), None);
            self.note(Phase::Unchanged, tool, cost);
        }
        if self.plan.has("restore") {
            let to = self.cache.fresh("run/restored")?;
            // Fast and wrong is no result.
            let cost = self.run(tool.restore(&place, &to), None);
            let checked = cost.and_then(|cost| Ok((cost, verify::restore(tool, &source.tree, &to)?)));
            let verified = checked.as_ref().ok().map(|(_, said)| said.clone());
            self.note(Phase::Restore, tool, checked.map(|(cost, _)| cost)).verified = verified;
        }
        Ok(())
    }

    /// A first backup; one that leaves nothing behind has not happened, whatever its exit status says.
    fn full_backup(&self, tool: Tool, place: &Place, source: &Source, cap: Option<&Cap>) -> Result<Cost> {
        self.init(tool, place, source)?;
        let cost = self.run(tool.backup(place, source, 1), cap)?;
        match setup::count(&place.repo).1 {
            0 => Err(Error::new("ended well, but stored nothing")),
            _ => Ok(cost),
        }
    }

    fn init(&self, tool: Tool, place: &Place, source: &Source) -> Result<()> {
        for job in tool.init(place, source) {
            with_path(job).prepare()?;
        }
        Ok(())
    }

    /// Full backups with reads of the device capped.
    fn capped(&mut self, volume: &Volume) -> Result<()> {
        let cap = match &volume.number {
            Some(number) => Cap::reads_of(number, CAP_READ_IOPS),
            None => Err(Error::new("needs root")),
        };
        let cap = match cap {
            Ok(cap) => cap,
            Err(why) => {
                self.results.about.push(format!("SKIPPED: capped: {why}"));
                return Ok(());
            }
        };
        self.cache.fresh("run")?;
        let check = Job::new("dd").arg(format!("if={}", volume.source.device.display()));
        let check =
            check.args(["of=/dev/null", "bs=4k", "iflag=direct", &format!("count={CAP_CHECK_READS}")]);
        let rate = f64::from(CAP_CHECK_READS) / self.run(check, Some(&cap))?.wall_s;
        self.results
            .about
            .push(format!("The cap of {CAP_READ_IOPS} reads/s: dd made {rate:.0} reads/s of 4 KiB."));
        for tool in self.tools.clone() {
            let place = self.place()?;
            let cost = self.full_backup(tool, &place, &volume.source, Some(&cap));
            self.note(Phase::Capped, tool, cost);
            remove_tree(&self.cache.path("run"));
        }
        Ok(())
    }

    /// How fast the device can be read at all, and how fast an image of it is taken.
    fn image(&mut self) -> Result<()> {
        let (device, _attached) = setup::full_device(&self.cache)?;
        for run in 1..=FIO_RUNS {
            match self.fio(&device) {
                Ok(rate) => self
                    .results
                    .device_rates
                    .push((format!("fio, io_uring, direct, 1 MiB, depth 32, run {run}"), rate)),
                Err(why) => {
                    self.results.about.push(format!("fio: {why}"));
                    break;
                }
            }
        }
        let dd = Job::new("dd").arg(format!("if={}", device.display())).args([
            "of=/dev/null",
            "bs=1M",
            "iflag=direct",
        ]);
        self.cache.fresh("run")?;
        let cost = self.run(dd, None)?;
        self.results
            .device_rates
            .push(("dd, direct, 1 MiB".to_owned(), setup::FULL_BYTES as f64 / cost.wall_s));
        if !self.tools.contains(&Tool::Windlass) {
            return Ok(());
        }
        let mut best = None;
        for _ in 0..FIO_RUNS {
            let place = self.place()?;
            let (before, job) = windlass::image_to_null(&place, &device);
            let prepared = before.into_iter().try_for_each(|job| job.prepare().map(drop));
            let cost = prepared.and_then(|()| self.run(job, None)).and_then(windlass::with_report);
            let rate = cost.map(|cost| setup::FULL_BYTES as f64 / cost.wall_s);
            match rate {
                Ok(rate) => {
                    best = Some(Ok(rate.max(best.and_then(std::result::Result::ok).unwrap_or_default())))
                }
                Err(why) => {
                    best = Some(Err(why.to_string()));
                    break;
                }
            }
        }
        self.results.image_rate = best;
        remove_tree(&self.cache.path("run"));
        Ok(())
    }

    /// Bytes per second of one sequential read of the whole device.
    fn fio(&self, device: &Path) -> Result<f64> {
        setup::drop_caches();
        let job = Job::new("fio")
            .args([
                "--name=read",
                "--readonly",
                "--rw=read",
                "--bs=1M",
                "--iodepth=32",
                "--ioengine=io_uring",
                "--direct=1",
            ])
            .args(["--output-format=json", &format!("--filename={}", device.display())]);
        let said = with_path(job).prepare()?;
        let value: Value = serde_json::from_slice(&said).context(|| "fio's output")?;
        let rate = value["jobs"][0]["read"]["bw_bytes"].as_f64();
        rate.ok_or_else(|| Error::new("fio named no rate"))
    }

    /// Peak memory of backup and restore, for ten times the files and ten times the bytes.
    fn memory(&mut self) -> Result<()> {
        for shape in Shape::FILES.into_iter().chain(Shape::BYTES) {
            let volume = setup::synthetic_volume(&self.cache, shape)?;
            for memory in [None, Some("24MiB")] {
                let peak = self.peak(&volume.source, shape.name, memory)?;
                eprintln!(
                    "peak {} {}: {:?}, {:?}",
                    peak.volume,
                    memory.unwrap_or("default"),
                    peak.backup_mib,
                    peak.restore_mib
                );
                self.results.peaks.push(peak);
                remove_tree(&self.cache.path("run"));
            }
        }
        Ok(())
    }

    fn peak(&self, source: &Source, volume: &'static str, memory: Option<&'static str>) -> Result<Peak> {
        let (place, to) = (self.place()?, self.cache.fresh("run/restored")?);
        let rss = |cost: Result<Cost>| cost.map(|cost| cost.rss_mib).map_err(|why| why.to_string());
        let prepared = self.init(Tool::Windlass, &place, source);
        let backup = prepared.and_then(|()| self.run(windlass::backup(&place, memory), None));
        let backup_mib = rss(backup.and_then(windlass::with_report));
        let restore_mib = match &backup_mib {
            Ok(_) => rss(self.run(windlass::restore(&place, &to, memory), None)),
            Err(_) => Err("nothing to restore".to_owned()),
        };
        Ok(Peak { volume, memory, backup_mib, restore_mib })
    }
}

/// The first word that looks like `1.2.3`.
fn version_number(word: &str) -> Option<String> {
    let word = word
        .trim_start_matches(|c: char| !c.is_ascii_digit())
        .trim_end_matches(|c: char| !c.is_ascii_digit());
    (word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.')).then(|| word.to_owned())
}

/// Children find peers where `WINDLASS_PEERS` says.
fn with_path(job: Job) -> Job {
    job.env("PATH", setup::search_path())
}
