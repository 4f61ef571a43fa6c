//! The data that is backed up, made once and kept in the target directory, and the ground that every run starts from.
//!
//! | name | what | for |
//! |---|---|---|
//! | tree | 60,000 files or more, about 4.1 GiB, of this machine's own, in a 6 GiB ext4 image | all comparisons |
//! | full | 4 GiB of noise | image backup |
//! | files-6k, files-60k | small files, ten times the number | peak memory |
//! | bytes-512m, bytes-5g | forty files, ten times the bytes | peak memory |
//!
//! The choice of files is deterministic: whole directories in order of name, from the first trees of [`ROOTS`] on, until
//! both numbers are reached; what does not fit is entered and taken in part. `mke2fs -d` lays a tree out in order of name,
//! which is kinder to tools that read file by file than a volume with a history.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use windlass_tests::error::{Context, Error, Result, output};
use windlass_tests::fixture::{noise, prose};
use windlass_tests::image::{Access, Loop, Mount, make_ext4};
use windlass_tests::privilege::is_root;
use windlass_tests::workdir::remove_tree;

use crate::peers::Source;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Where real files come from, the toolchain (`rustc --print sysroot`) after the first.
const ROOTS: [&str; 6] = ["/usr/lib", "/usr/share", "/usr/include", "/usr/local", "/usr/bin", "/opt"];

const TREE_FILES_MIN: u64 = 60_000;
const TREE_BYTES_MIN: u64 = 4_402_341_478; // 4.1 GiB
const TREE_BYTES_MAX: u64 = TREE_BYTES_MIN + 300 * MIB;
const TREE_IMAGE_BYTES: u64 = 6 * GIB;

/// Bytes of the image for image backups.
pub const FULL_BYTES: u64 = 4 * GIB;

/// The release binary, in the directory that this bench was built to.
pub fn windlass_binary() -> PathBuf {
    target_dir().join("release/windlass")
}

/// `target`: this bench is `target/release/deps/peers-…`.
fn target_dir() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors().nth(3).map_or_else(|| PathBuf::from("target"), Path::to_path_buf)
}

/// Builds the release binary into the same target directory.
pub fn build_windlass() -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--release", "--package", "windlass-board", "--bin", "windlass"]);
    output(command.arg("--target-dir").arg(target_dir()))?;
    Ok(())
}

/// Puts the directories of `WINDLASS_PEERS` in front of the search path's value.
pub fn search_path() -> std::ffi::OsString {
    let mut path = std::env::var_os("WINDLASS_PEERS").unwrap_or_default();
    if !path.is_empty() {
        path.push(":");
    }
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path
}

/// Whether a program is on the search path.
pub fn has_program(name: &str) -> bool {
    std::env::split_paths(&search_path()).any(|dir| dir.join(name).is_file())
}

/// Where data and results are kept.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
}

impl Cache {
    pub fn open() -> Result<Cache> {
        let dir = target_dir().join("peers-bench");
        fs::create_dir_all(&dir).context(|| dir.display().to_string())?;
        let cache = Cache { dir };
        remove_tree(&cache.path("run"));
        remove_tree(&cache.path("staging"));
        Ok(cache)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// An empty directory of that name.
    pub fn fresh(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        remove_tree(&path);
        fs::create_dir_all(&path).context(|| path.display().to_string())?;
        Ok(path)
    }

    /// Refuses to start what would fill the disk.
    pub fn require_free(&self, bytes: u64) -> Result<()> {
        let free = nix::sys::statvfs::statvfs(&self.dir).context(|| "statvfs")?;
        let free = free.blocks_available() as u64 * free.fragment_size() as u64;
        if free < bytes {
            return Err(Error::new(format!(
                "needs {} GiB of free disk, there are {}",
                bytes / GIB,
                free / GIB
            )));
        }
        Ok(())
    }
}

/// A volume that is ready to be read.
#[derive(Debug)]
pub struct Volume {
    pub source: Source,
    /// `major:minor` of the loop device; none without root.
    pub number: Option<String>,
    /// Unmounts and detaches at the end.
    _mount: Option<Mount>,
}

/// Starts every measured run from a cold cache; false without root, when runs read from memory.
pub fn drop_caches() -> bool {
    nix::unistd::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

/// The comparison's volume, and a line about what is in it.
pub fn tree_volume(cache: &Cache) -> Result<(Volume, String)> {
    let (image, note, staged) = (cache.path("tree.img"), cache.path("tree.json"), cache.path("tree"));
    if !note.is_file() || !(is_root() || staged.is_dir()) {
        cache.require_free(16 * GIB)?;
        let staging = cache.fresh("staging")?;
        eprintln!("setup: collecting files");
        let facts = collect(&staging)?;
        eprintln!("setup: making the image");
        make_ext4(&image, TREE_IMAGE_BYTES, Some(&staging), &[])?;
        if is_root() {
            remove_tree(&staging);
        } else {
            remove_tree(&staged);
            fs::rename(&staging, &staged).context(|| "keep the tree")?;
        }
        fs::write(&note, facts.to_string()).context(|| "write the note")?;
    }
    let facts: Value = serde_json::from_slice(&fs::read(&note).context(|| "note")?).context(|| "note")?;
    let about = format!(
        "{} files, {:.2} GiB, from {}, in a 6 GiB ext4 image by mke2fs -d",
        facts["files"],
        facts["bytes"].as_f64().unwrap_or_default() / GIB as f64,
        facts["from"].as_str().unwrap_or_default(),
    );
    Ok((mounted(cache, &image, &staged)?, about))
}

/// A synthetic volume for the memory rows.
pub fn synthetic_volume(cache: &Cache, shape: Shape) -> Result<Volume> {
    let image = cache.path(&format!("{}.img", shape.name));
    if !image.is_file() {
        cache.require_free(2 * shape.image_bytes() + 2 * GIB)?;
        eprintln!("setup: making {}", shape.name);
        let staging = cache.fresh("staging")?;
        shape.fill(&staging)?;
        // Complete or absent: an interrupted setup must not leave half an image.
        let half = cache.path("half.img");
        let inodes = (shape.files + 1_000).to_string();
        make_ext4(&half, shape.image_bytes(), Some(&staging), &["-N", &inodes])?;
        fs::rename(&half, &image).context(|| "keep the image")?;
        remove_tree(&staging);
    }
    mounted(cache, &image, &cache.path("no-tree"))
}

/// Noise on a device of its own; nothing on it compresses or is a hole.
pub fn full_device(cache: &Cache) -> Result<(PathBuf, Option<Loop>)> {
    const CHUNK_BYTES: u64 = 16 * MIB;
    let image = cache.path("full.img");
    if fs::metadata(&image).map_or(0, |item| item.len()) != FULL_BYTES {
        cache.require_free(FULL_BYTES + 2 * GIB)?;
        eprintln!("setup: making the full device");
        let mut file = File::create(&image).context(|| "full.img")?;
        for chunk in 0..FULL_BYTES / CHUNK_BYTES {
            file.write_all(&noise(chunk, CHUNK_BYTES as usize)).context(|| "full.img")?;
        }
        file.sync_all().context(|| "full.img")?;
    }
    if !is_root() {
        return Ok((image, None));
    }
    let device = Loop::attach(&image, Access::ReadOnly)?;
    Ok((device.device().to_path_buf(), Some(device)))
}

fn mounted(cache: &Cache, image: &Path, staged: &Path) -> Result<Volume> {
    if !is_root() {
        let source = Source { tree: staged.to_path_buf(), device: image.to_path_buf() };
        return Ok(Volume { source, number: None, _mount: None });
    }
    let name = image.file_stem().unwrap_or_default().to_string_lossy();
    let mount = Mount::image(image, &cache.path(&format!("mounted-{name}")), Access::ReadOnly)?;
    let device = mount.loop_device();
    if !device.is_direct() {
        eprintln!(
            "setup: {} goes through the page cache of the file system below",
            device.device().display()
        );
    }
    let source = Source { tree: mount.dir().to_path_buf(), device: device.device().to_path_buf() };
    Ok(Volume { source, number: Some(device.number()?), _mount: Some(mount) })
}

/// Files and bytes below a path, not following symlinks; what cannot be read counts as nothing.
pub fn count(path: &Path) -> (u64, u64) {
    let (mut files, mut bytes) = (0, 0);
    let mut pending = vec![path.to_path_buf()];
    while let Some(path) = pending.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if metadata.is_file() {
            files += 1;
            bytes += metadata.size();
        }
    }
    (files, bytes)
}

fn collect(staging: &Path) -> Result<Value> {
    let mut roots: Vec<PathBuf> = ROOTS.iter().map(PathBuf::from).collect();
    if let Ok(sysroot) = output(Command::new("rustc").args(["--print", "sysroot"])) {
        roots.insert(1, PathBuf::from(String::from_utf8_lossy(&sysroot).trim()));
    }
    let mut taken = (0, 0);
    let mut from = Vec::new();
    for (index, root) in roots.iter().filter(|root| root.is_dir()).enumerate() {
        if is_enough(taken) {
            break;
        }
        let before = taken.0;
        let to = staging.join(format!("{index}-{}", root.file_name().unwrap_or_default().to_string_lossy()));
        gather(root, &to, &mut taken)?;
        let name = if ROOTS.iter().any(|name| Path::new(name) == root) {
            root.display().to_string()
        } else {
            "the Rust toolchain".to_owned()
        };
        from.push(format!("{name} ({} files)", taken.0 - before));
    }
    let (files, bytes) = count(staging);
    if files < TREE_FILES_MIN || bytes < TREE_BYTES_MIN {
        eprintln!("setup: this machine has only {files} files and {bytes} bytes to offer");
    }
    Ok(json!({ "files": files, "bytes": bytes, "from": from.join(", ") }))
}

fn is_enough((files, bytes): (u64, u64)) -> bool {
    files >= TREE_FILES_MIN && bytes >= TREE_BYTES_MIN
}

/// Copies `from` if it fits below the upper bound, else what of it fits, in order of name.
fn gather(from: &Path, to: &Path, taken: &mut (u64, u64)) -> Result<()> {
    let (files, bytes) = count(from);
    if taken.1 + bytes <= TREE_BYTES_MAX {
        // Files may vanish under us, and some may not be read: what is there is counted at the end.
        let _ = output(Command::new("cp").args(["-a", "--reflink=auto"]).args([from, to]));
        *taken = (taken.0 + files, taken.1 + bytes);
        return Ok(());
    }
    if !from.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(to).context(|| to.display().to_string())?;
    let mut names: Vec<_> =
        fs::read_dir(from).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    for name in names {
        if is_enough(*taken) {
            break;
        }
        gather(&from.join(&name), &to.join(&name), taken)?;
    }
    Ok(())
}

/// A synthetic tree: so many files of so many bytes on average.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub name: &'static str,
    files: u64,
    file_bytes: u64,
}

impl Shape {
    pub const FILES: [Shape; 2] = [
        Shape { name: "files-6k", files: 6_000, file_bytes: 4_096 },
        Shape { name: "files-60k", files: 60_000, file_bytes: 4_096 },
    ];
    pub const BYTES: [Shape; 2] = [
        Shape { name: "bytes-512m", files: 40, file_bytes: 12 * MIB + 819 * 1024 },
        Shape { name: "bytes-5g", files: 40, file_bytes: 128 * MIB },
    ];

    /// Room for the data, for slack of half a block per file, and for metadata.
    fn image_bytes(self) -> u64 {
        let data = self.files * (self.file_bytes + 4_096);
        (data + data / 8 + 128 * MIB).next_multiple_of(MIB)
    }

    fn fill(self, root: &Path) -> Result<()> {
        const PER_DIRECTORY: u64 = 200;
        for index in 0..self.files {
            let dir = root.join(format!("{:04}", index / PER_DIRECTORY));
            fs::create_dir_all(&dir).context(|| dir.display().to_string())?;
            // Small files differ in size, with the mean that was asked for.
            let bytes = if self.file_bytes < MIB {
                self.file_bytes / 2 + index * 7_919 % self.file_bytes
            } else {
                self.file_bytes
            };
            let path = dir.join(format!("{index:06}"));
            fill_file(&path, index, bytes).context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

/// Noise and prose by turns of a mebibyte: the agent has to do both kinds of work.
fn fill_file(path: &Path, seed: u64, bytes: u64) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    let mut left = bytes;
    for turn in 0.. {
        if left == 0 {
            break;
        }
        let length = left.min(MIB);
        let seed = seed << 20 | turn;
        let chunk = if (seed ^ seed >> 20) & 1 == 0 {
            noise(seed, length as usize)
        } else {
            prose(seed, length as usize)
        };
        file.write_all(&chunk)?;
        left -= length;
    }
    Ok(())
}
