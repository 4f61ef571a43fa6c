//! The agent's own commands, and what its `--json` says about requests.
//!
//! Everything that this bench assumes about the command line is in this file.

use std::path::{Path, PathBuf};

use serde_json::Value;
use windlass_tests::error::{Error, Result};

use crate::measure::{Cost, Job};
use crate::peers::{Place, Source};
use crate::setup;

/// The policy that every run uses.
const POLICY: &str = "bench";

/// The release binary beside this bench.
pub fn program() -> Job {
    Job::new(setup::windlass_binary())
}

fn with_repo(url: &str, place: &Place) -> Job {
    program().env("WINDLASS_REPO", url).env("WINDLASS_KEY_FILE", key(place))
}

fn key(place: &Place) -> PathBuf {
    place.side.join("windlass.key")
}

fn in_directory(place: &Place) -> Job {
    with_repo(&format!("file://{}", place.repo.display()), place)
}

/// A repository in a directory, and a policy for the source's device: encryption, zstd level 1.
pub fn init(place: &Place, source: &Source) -> Vec<Job> {
    let policy = in_directory(place).args(["policy", "set", POLICY, "--compression", "zstd:1", "--volume"]);
    vec![in_directory(place).args(["repo", "init"]), policy.arg(&source.device)]
}

/// `memory` is the value of `--memory`, the default without.
pub fn backup(place: &Place, memory: Option<&str>) -> Job {
    with_memory(in_directory(place).args(["backup", POLICY, "--json"]), memory)
}

pub fn restore(place: &Place, to: &Path, memory: Option<&str>) -> Job {
    with_memory(in_directory(place).args(["restore", POLICY, "--to"]).arg(to), memory)
}

fn with_memory(job: Job, memory: Option<&str>) -> Job {
    match memory {
        Some(bytes) => job.args(["--memory", bytes]),
        None => job,
    }
}

/// A whole device as one item, uncompressed, to a store that drops the data: what is done before, and the backup.
pub fn image_to_null(place: &Place, device: &Path) -> (Vec<Job>, Job) {
    let job = || with_repo(&format!("null://{}", place.repo.display()), place);
    let mut as_image = device.as_os_str().to_owned();
    as_image.push("=image");
    let policy = job().args(["policy", "set", POLICY, "--compression", "none", "--volume"]).arg(as_image);
    (vec![job().args(["repo", "init"]), policy], job().args(["backup", POLICY, "--json"]))
}

/// A backup that reports nothing has not happened, whatever its exit status says.
pub fn with_report(cost: Cost) -> Result<Cost> {
    match report(&cost.stdout) {
        Some(_) => Ok(cost),
        None => Err(Error::new("ended well, but --json printed no report")),
    }
}

/// Requests of one backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// PUTs of objects, of tables, of the log, of the lease.
    pub puts: [u64; 4],
    /// Objects stored.
    pub objects: u64,
    /// GET, HEAD and LIST in all, and between the first object and the last.
    pub asks: [u64; 2],
}

impl Requests {
    /// From what `--json` printed.
    pub fn parse(stdout: &str) -> Option<Requests> {
        let report = report(stdout)?;
        let count = |name: &str| report["requests"][name].as_u64();
        Some(Requests {
            puts: [count("put_objects")?, count("put_tables")?, count("put_log")?, count("put_lease")?],
            objects: report["objects"].as_u64()?,
            asks: [count("get")?, count("get_between_objects")?],
        })
    }
}

/// The last line that is an object, or the whole as one.
fn report(stdout: &str) -> Option<Value> {
    let object = |text: &str| serde_json::from_str::<Value>(text).ok().filter(Value::is_object);
    stdout.lines().rev().find_map(object).or_else(|| object(stdout))
}
