//! The tools under comparison, each as the commands that make a repository, back up and restore.
//!
//! Encryption is on wherever a tool has it, and compression is zstd level 1 wherever it can be chosen (restic 0.14 has
//! no levels: its `auto` is the fastest). Everything else is the tool's default. Caches and logs that a tool keeps
//! outside its repository go to the run's own directory, so that the unchanged second run finds them.
//!
//! | tool | apt | cargo |
//! |---|---|---|
//! | restic | restic | |
//! | borg | borgbackup | |
//! | rustic | | rustic-rs |
//! | bupstash | | bupstash (wants libsodium-dev, pkg-config) |

use std::path::{Path, PathBuf};

use crate::measure::Job;
use crate::windlass;

/// What a run has to itself.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where the tool keeps its repository; does not exist before `init`.
    pub repo: PathBuf,
    /// For caches, keys and logs.
    pub side: PathBuf,
    /// A file with a password in it.
    pub password: PathBuf,
}

/// The same data, as files and as a device.
#[derive(Clone, Debug)]
pub struct Source {
    /// The mounted tree; what file tools read.
    pub tree: PathBuf,
    /// The device, or the image where there is no root; what Windlass reads.
    pub device: PathBuf,
}

/// A tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    Windlass,
    Restic,
    Rustic,
    Borg,
    Bupstash,
    Tar,
}

impl Tool {
    pub const ALL: [Tool; 6] =
        [Tool::Windlass, Tool::Restic, Tool::Rustic, Tool::Borg, Tool::Bupstash, Tool::Tar];

    pub fn name(self) -> &'static str {
        match self {
            Tool::Windlass => "windlass",
            Tool::Restic => "restic",
            Tool::Rustic => "rustic",
            Tool::Borg => "borg",
            Tool::Bupstash => "bupstash",
            Tool::Tar => "tar+zstd",
        }
    }

    /// Whether it is a backup tool to be measured against; tar is a reference line, without encryption.
    pub fn is_peer(self) -> bool {
        !matches!(self, Tool::Windlass | Tool::Tar)
    }

    /// Programs that must be there.
    pub fn programs(self) -> &'static [&'static str] {
        match self {
            Tool::Windlass => &[],
            Tool::Restic => &["restic"],
            Tool::Rustic => &["rustic"],
            Tool::Borg => &["borg"],
            Tool::Bupstash => &["bupstash"],
            Tool::Tar => &["tar", "zstd"],
        }
    }

    /// Asks for the version.
    pub fn version(self) -> Job {
        match self {
            Tool::Windlass => windlass::program().arg("--version"),
            Tool::Restic => Job::new("restic").arg("version"),
            Tool::Rustic => Job::new("rustic").arg("--version"),
            Tool::Borg => Job::new("borg").arg("--version"),
            Tool::Bupstash => Job::new("bupstash").arg("version"),
            Tool::Tar => Job::new("zstd").arg("--version"),
        }
    }

    /// What is run once, before the clock.
    pub fn init(self, place: &Place, source: &Source) -> Vec<Job> {
        match self {
            Tool::Windlass => windlass::init(place, source),
            Tool::Restic => vec![restic(place).args(["init", "--repository-version", "2"])],
            Tool::Rustic => vec![rustic(place).args(["init", "--set-compression", "1"])],
            Tool::Borg => vec![borg(place).args(["init", "--encryption", "repokey"]).arg(&place.repo)],
            Tool::Bupstash => vec![
                Job::new("bupstash").args(["new-key", "-o"]).arg(place.side.join("key")),
                bupstash(place).arg("init"),
            ],
            Tool::Tar => vec![Job::new("mkdir").arg(&place.repo)],
        }
    }

    /// Backs up the source; `run` is 1 for the first run and 2 for the one that finds nothing changed.
    pub fn backup(self, place: &Place, source: &Source, run: u32) -> Job {
        let tree = &source.tree;
        match self {
            Tool::Windlass => windlass::backup(place, None),
            Tool::Restic => restic(place).args(["--quiet", "backup", "."]).dir(tree),
            Tool::Rustic => rustic(place).args(["backup", "."]).dir(tree),
            Tool::Borg => {
                let archive = format!("{}::run{run}", place.repo.display());
                borg(place).args(["create", "--compression", "zstd,1", &archive, "."]).dir(tree)
            }
            Tool::Bupstash => bupstash(place)
                .args(["put", "--quiet", "--compression", "zstd:1", "--send-log"])
                .arg(place.side.join("send-log"))
                .args([&format!("run={run}"), "::"])
                .arg(tree),
            Tool::Tar => {
                let script = "tar -C \"$1\" -cf - . | zstd -1 -T2 -q -f -o \"$2\"";
                Job::new("sh").args(["-c", script, "sh"]).arg(tree).arg(place.repo.join("tree.tar.zst"))
            }
        }
    }

    /// Restores the first run into an empty directory.
    pub fn restore(self, place: &Place, to: &Path) -> Job {
        match self {
            Tool::Windlass => windlass::restore(place, to, None),
            Tool::Restic => restic(place).args(["--quiet", "restore", "latest", "--target"]).arg(to),
            Tool::Rustic => rustic(place).args(["restore", "latest"]).arg(to),
            Tool::Borg => borg(place).arg("extract").arg(format!("{}::run1", place.repo.display())).dir(to),
            Tool::Bupstash => {
                bupstash(place).args(["restore", "--quiet", "--ownership", "--into"]).arg(to).arg("run=1")
            }
            Tool::Tar => {
                let script = "zstd -dc \"$1\" | tar -C \"$2\" -xpf -";
                Job::new("sh").args(["-c", script, "sh"]).arg(place.repo.join("tree.tar.zst")).arg(to)
            }
        }
    }
}

fn restic(place: &Place) -> Job {
    let side = place.side.join("cache");
    Job::new("restic")
        .arg("--repo")
        .arg(&place.repo)
        .arg("--password-file")
        .arg(&place.password)
        .arg("--cache-dir")
        .arg(side)
}

fn rustic(place: &Place) -> Job {
    let job = Job::new("rustic").arg("--repo").arg(&place.repo).arg("--password-file").arg(&place.password);
    job.arg("--cache-dir").arg(place.side.join("cache")).args(["--no-progress", "--log-level", "warn"])
}

fn borg(place: &Place) -> Job {
    let ask = format!("cat {}", place.password.display());
    Job::new("borg").env("BORG_BASE_DIR", &place.side).env("BORG_PASSCOMMAND", ask)
}

fn bupstash(place: &Place) -> Job {
    Job::new("bupstash")
        .env("BUPSTASH_REPOSITORY", &place.repo)
        .env("BUPSTASH_KEY", place.side.join("key"))
        .env("BUPSTASH_QUERY_CACHE", place.side.join("query-cache"))
}
