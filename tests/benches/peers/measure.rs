//! Runs one command and says what it cost: wall time, processor time, memory, device reads.
//!
//! This program starts itself again as a small measuring process (`--measure`), which starts the command, waits for
//! it and asks `getrusage(RUSAGE_CHILDREN)`: the sum over the command and all children that it waited for, as wait4
//! would give it, without unsafe code. Being small matters: Linux counts a parent's size in the peak of what it starts.
//!
//! `ru_maxrss` is the peak of the largest process. For tools of several processes the peaks of all are sampled every
//! 200 ms and summed beside it. Source: getrusage(2), proc(5); kernel docs blkio-controller and cgroup-v2 for the cap.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, killpg};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;
use serde_json::{Value, json};
use windlass_tests::error::{Context, Error, Result};

/// The argument that makes this program the measuring process.
pub const MEASURE: &str = "--measure";

/// A command that takes longer is ended and counts as failed: the slowest peer needs about a minute under the cap.
const LIMIT: Duration = Duration::from_secs(1800);

const SAMPLE_EVERY: Duration = Duration::from_millis(200);

/// A command to run.
#[derive(Clone, Debug)]
pub struct Job {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
}

impl Job {
    pub fn new(program: impl AsRef<OsStr>) -> Job {
        Job { program: program.as_ref().to_owned(), args: Vec::new(), env: Vec::new(), dir: None }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Job {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Job {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Job {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    pub fn dir(mut self, dir: &Path) -> Job {
        self.dir = Some(dir.to_path_buf());
        self
    }

    fn fill(&self, command: &mut Command) {
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
    }

    /// Runs it without measuring; its last words are the error.
    pub fn prepare(&self) -> Result<Vec<u8>> {
        let mut command = Command::new(&self.program);
        self.fill(&mut command);
        windlass_tests::error::output(command.stdin(Stdio::null()))
    }
}

/// What a command cost.
#[derive(Clone, Debug, Default)]
pub struct Cost {
    pub wall_s: f64,
    /// User and system time of all processes.
    pub cpu_s: f64,
    /// Peak of the largest process.
    pub rss_mib: f64,
    /// Processes that were seen, and the sum of their peaks.
    pub processes: u64,
    pub rss_sum_mib: f64,
    /// What flushing took afterwards: a restore that leaves its work to the page cache shows here.
    pub settle_s: f64,
    /// Reads that reached the capped device, if there was a cap.
    pub reads: Option<u64>,
    pub stdout: String,
}

impl Cost {
    /// For the raw results.
    pub fn to_json(&self) -> Value {
        json!({
            "wall_s": self.wall_s, "cpu_s": self.cpu_s, "rss_mib": self.rss_mib, "processes": self.processes,
            "rss_sum_mib": self.rss_sum_mib, "settle_s": self.settle_s, "reads": self.reads,
        })
    }
}

/// Runs a command to its end. `logs` is a directory for its output and for flushing.
pub fn run(job: &Job, logs: &Path, cap: Option<&Cap>) -> Result<Cost> {
    let (out, err, result) = (logs.join("stdout"), logs.join("stderr"), logs.join("cost.json"));
    let create = |path: &Path| File::create(path).context(|| path.display().to_string());
    let reads_before = cap.map(Cap::reads);
    let mut command = Command::new(std::env::current_exe().context(|| "own path")?);
    command
        .arg(MEASURE)
        .arg(&result)
        .arg(cap.map_or(OsStr::new("-"), |cap| cap.members.as_os_str()))
        .arg(&job.program);
    job.fill(&mut command);
    let status = command
        .stdin(Stdio::null())
        .stdout(create(&out)?)
        .stderr(create(&err)?)
        .status()
        .context(|| "start")?;
    let read = |path: &Path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if !status.success() {
        let said = read(&err).unwrap_or_default();
        let start = said.len().saturating_sub(400);
        return Err(Error::new(format!(
            "{status}: {}",
            said.get(start..).unwrap_or(&said).trim().replace('\n', " / ")
        )));
    }
    let value: Value = serde_json::from_str(&read(&result).context(|| "result")?).context(|| "result")?;
    let number = |key: &str| value.get(key).and_then(Value::as_f64).unwrap_or_default();
    Ok(Cost {
        wall_s: number("wall_s"),
        cpu_s: number("cpu_s"),
        rss_mib: number("rss_mib"),
        processes: number("processes") as u64,
        rss_sum_mib: number("rss_sum_mib"),
        settle_s: settle(logs)?,
        reads: cap.map(|cap| cap.reads().saturating_sub(reads_before.unwrap_or_default())),
        stdout: read(&out).unwrap_or_default(),
    })
}

/// Waits until what was written is on disk, and says how long that took.
fn settle(dir: &Path) -> Result<f64> {
    let start = now();
    nix::unistd::syncfs(File::open(dir).context(|| "open for syncfs")?).context(|| "syncfs")?;
    Ok(start.elapsed().as_secs_f64())
}

#[expect(clippy::disallowed_methods, reason = "measuring time is what this file is for")]
fn now() -> Instant {
    Instant::now()
}

/// The measuring process: `RESULT CGROUP-MEMBERS|- PROGRAM ARGS…`.
pub fn measuring_process(args: &[OsString]) -> ExitCode {
    match measure(args) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &[OsString]) -> Result<ExitCode> {
    let [result, members, program, args @ ..] = args else {
        return Err(Error::new("measure: result, members and program are missing"));
    };
    if members != "-" {
        fs::write(members, std::process::id().to_string()).context(|| "enter the capped group")?;
    }
    let start = now();
    let mut child = Command::new(program)
        .args(args)
        .process_group(0)
        .spawn()
        .context(|| program.display().to_string())?;
    let ended = AtomicBool::new(false);
    let root = child.id();
    let (status, wall, peaks) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| sample(root, start, &ended));
        let status = child.wait();
        let wall = start.elapsed();
        ended.store(true, Ordering::Relaxed);
        (status, wall, sampler.join().unwrap_or_default())
    });
    let status = status.context(|| "wait")?;
    if !status.success() {
        let signal = status.signal().map_or(String::new(), |signal| format!(" by signal {signal}"));
        return Err(Error::new(format!("ended{signal} after {:.1} s: {status}", wall.as_secs_f64())));
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context(|| "getrusage")?;
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    let cost = json!({
        "wall_s": wall.as_secs_f64(),
        "cpu_s": seconds(usage.user_time()) + seconds(usage.system_time()),
        "rss_mib": usage.max_rss() as f64 / 1024.0,
        "processes": peaks.len(),
        "rss_sum_mib": peaks.values().sum::<u64>() as f64 / 1024.0,
    });
    fs::write(result, cost.to_string()).context(|| "write the result")?;
    Ok(ExitCode::SUCCESS)
}

/// Peak resident KiB of every process of the group `root` until the end; ends the command at the limit.
fn sample(root: u32, start: Instant, ended: &AtomicBool) -> BTreeMap<u32, u64> {
    let mut peaks = BTreeMap::new();
    while !ended.load(Ordering::Relaxed) {
        for pid in group(root) {
            if let Some(peak) = peak_kib(pid) {
                peaks.insert(pid, peak);
            }
        }
        if start.elapsed() > LIMIT {
            let _ = killpg(Pid::from_raw(root as i32), Signal::SIGKILL);
        }
        std::thread::sleep(SAMPLE_EVERY);
    }
    peaks
}

fn peak_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().split(' ').next()?.parse().ok()
}

/// The processes of a group; the command was made the leader of its own.
fn group(leader: u32) -> Vec<u32> {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.file_name());
    let pids = names.filter_map(|name| name.to_str()?.parse().ok());
    pids.filter(|pid| group_of(*pid) == Some(leader)).collect()
}

/// Fifth field of stat, the third after the name in parentheses.
fn group_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(2)?.parse().ok()
}

/// A control group whose reads of one device are capped, removed when dropped. Root only.
#[derive(Debug)]
pub struct Cap {
    group: PathBuf,
    /// Writing a process id here puts it under the cap.
    members: PathBuf,
    device: String,
}

impl Cap {
    /// Caps reads of `device` (`major:minor`) at `iops` per second, with cgroup v1's blkio or v2's io controller.
    pub fn reads_of(device: &str, iops: u32) -> Result<Cap> {
        let name = format!("windlass-bench-{}", std::process::id());
        let mounts = fs::read_to_string("/proc/mounts").context(|| "mounts")?;
        let mounted = |of: &str, option: &str| -> Option<PathBuf> {
            let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
            let found = mounts.find(|field| {
                field[2] == of && (option.is_empty() || field[3].split(',').any(|o| o == option))
            })?;
            Some(PathBuf::from(found[1]))
        };
        let (group, file, rule) = if let Some(root) = mounted("cgroup", "blkio") {
            (root.join(name), "blkio.throttle.read_iops_device", format!("{device} {iops}"))
        } else if let Some(root) = mounted("cgroup2", "") {
            fs::write(root.join("cgroup.subtree_control"), "+io")
                .context(|| "this kernel's cgroup2 has no io controller")?;
            (root.join(name), "io.max", format!("{device} riops={iops}"))
        } else {
            return Err(Error::new("no control groups for block devices here"));
        };
        fs::create_dir_all(&group).context(|| "make a control group")?;
        let cap = Cap { members: group.join("cgroup.procs"), group, device: device.to_owned() };
        fs::write(cap.group.join(file), rule).context(|| "set the cap")?;
        Ok(cap)
    }

    /// Reads of the device by the group so far, as the cap counts them.
    fn reads(&self) -> u64 {
        let v1 = fs::read_to_string(self.group.join("blkio.throttle.io_serviced")).unwrap_or_default();
        let prefix = format!("{} Read ", self.device);
        if let Some(count) = v1.lines().find_map(|line| line.strip_prefix(&prefix)) {
            return count.trim().parse().unwrap_or_default();
        }
        let v2 = fs::read_to_string(self.group.join("io.stat")).unwrap_or_default();
        let line = v2.lines().find(|line| line.starts_with(&format!("{} ", self.device))).unwrap_or_default();
        line.split(' ')
            .find_map(|field| field.strip_prefix("rios="))
            .and_then(|count| count.parse().ok())
            .unwrap_or_default()
    }
}

impl Drop for Cap {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.group);
    }
}
