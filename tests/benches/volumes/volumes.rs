//! The volumes: made once, by the kernel, kept below the target directory.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use windlass_tests::error::{Context, Error, Result, output};
use windlass_tests::fixture::noise;
use windlass_tests::image::{Access, Kind, Loop, Mount, Tmpfs};
use windlass_tests::workdir::remove_tree;

const GIB: u64 = 1 << 30;
/// Size of a volume of real files: two thirds of it in use.
const REAL_BYTES: u64 = 6 * GIB;
/// Where real files come from, and how many bytes of them.
const REAL_ROOTS: &[&str] = &["/usr/lib", "/usr/share", "/usr/include", "/usr/bin", "/usr/local"];
const REAL_FILE_BYTES: u64 = 4 * GIB;
/// Larger files are left out: what a tree of documents and sources is like, 20 KiB a file.
const REAL_FILE_MAX: u64 = 256 << 10;
const PER_DIRECTORY: u64 = 200;
const CHUNK_BYTES: u64 = 16 << 20;

/// File systems with a raw reader.
pub const KINDS: [Kind; 2] = [Kind::Ext4, Kind::Xfs];

/// A cold cache.
pub fn drop_caches() -> Result<()> {
    nix::unistd::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").context(|| "drop caches")
}

/// Where the volumes are.
pub struct Volumes {
    dir: PathBuf,
    logs: PathBuf,
}

impl Volumes {
    pub fn open() -> Result<Volumes> {
        let own = std::env::current_exe().context(|| "own path")?;
        let target = own.ancestors().nth(3).ok_or_else(|| Error::new("no target directory"))?;
        let dir = target.join("volumes-bench");
        let logs = dir.join("run");
        remove_tree(&logs);
        fs::create_dir_all(&logs).context(|| logs.display().to_string())?;
        Ok(Volumes { dir, logs })
    }

    /// For what a run prints.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// `files` small files in directories of 200; all of them with 4 KiB of data, or one in sixteen.
    pub fn small_files(&self, kind: Kind, files: u64, full: bool) -> Result<Made> {
        let name = format!("{}-{files}{}", kind.name(), if full { "-full" } else { "" });
        let bytes = if full { files * 6144 } else { files * 1536 } + GIB;
        self.make(kind, &name, bytes, if full { "4096" } else { "1536" }, false, &|root| {
            let data = noise(1, 4096);
            for index in 0..files {
                let dir = root.join(format!("{:05}", index / PER_DIRECTORY));
                if index % PER_DIRECTORY == 0 {
                    fs::create_dir(&dir).context(|| dir.display().to_string())?;
                }
                let path = dir.join(format!("file-{index:07}"));
                let bytes = if full || index % 16 == 0 { &data[..] } else { &[] };
                fs::write(&path, bytes).context(|| path.display().to_string())?;
            }
            Ok(())
        })
    }

    /// Files of this machine.
    pub fn real_files(&self, kind: Kind) -> Result<Made> {
        let name = format!("{}-real", kind.name());
        self.make(kind, &name, REAL_BYTES, "8192", true, &|root| {
            let mut left = REAL_FILE_BYTES;
            // Again and again, until there is enough.
            for round in 0..64 {
                for (index, from) in REAL_ROOTS.iter().enumerate() {
                    let to = root.join(format!("{round}-{index}"));
                    copy(Path::new(from), &to, &mut left)?;
                }
            }
            Ok(())
        })
    }

    /// `bytes_per_inode` is mkfs.ext4's `-i`. `written` writes every block first: reading a hole of the image would cost no device anything.
    fn make(
        &self,
        kind: Kind,
        name: &str,
        bytes: u64,
        bytes_per_inode: &str,
        written: bool,
        fill: &dyn Fn(&Path) -> Result<()>,
    ) -> Result<Made> {
        let image = self.dir.join(format!("{name}.img"));
        if !image.is_file() {
            eprintln!("making {name}");
            // Complete or absent: an interrupted setup must not leave half a volume.
            let half = self.dir.join("half.img");
            let _ = fs::remove_file(&half);
            let mut file = fs::File::create(&half).context(|| "half.img")?;
            if written {
                let zeros = vec![0; CHUNK_BYTES as usize];
                for _ in 0..bytes / CHUNK_BYTES {
                    file.write_all(&zeros).context(|| "half.img")?;
                }
            }
            file.set_len(bytes).context(|| "half.img")?;
            let mut mkfs = match kind {
                Kind::Ext4 => Command::new("mkfs.ext4"),
                _ => Command::new("mkfs.xfs"),
            };
            // What is written stays so.
            match kind {
                Kind::Ext4 => mkfs.args(["-q", "-F", "-E", "nodiscard", "-i", bytes_per_inode]),
                _ => mkfs.args(["-q", "-f", "-K"]),
            };
            output(mkfs.arg(&half))?;
            let mounted = self.logs.join("filling");
            {
                let mount = Mount::image_of(kind, &half, &mounted, Access::ReadWrite, None)?;
                fill(mount.dir())?;
            }
            fs::rename(&half, &image).context(|| "keep the volume")?;
        }
        Ok(Made { image, kind, mounted: self.logs.join(name) })
    }
}

/// A volume that is there.
pub struct Made {
    image: PathBuf,
    kind: Kind,
    mounted: PathBuf,
}

impl Made {
    /// A copy that no disk slows down, and what it is in.
    pub fn in_memory(&self) -> Result<(Tmpfs, Made)> {
        let dir = self.mounted.with_extension("memory");
        fs::create_dir_all(&dir).context(|| dir.display().to_string())?;
        let tmpfs = Tmpfs::mount(&dir, "")?;
        let image = dir.join("copy.img");
        // With its holes.
        output(Command::new("cp").arg("--sparse=always").arg(&self.image).arg(&image))?;
        let made = Made { image, kind: self.kind, mounted: self.mounted.clone() };
        Ok((tmpfs, made))
    }

    /// As a device.
    pub fn attach(&self) -> Result<Loop> {
        Loop::attach(&self.image, Access::ReadOnly)
    }

    /// As a device that the kernel has mounted, too.
    pub fn mount(&self) -> Result<Mount> {
        Mount::image_of(self.kind, &self.image, &self.mounted, Access::ReadOnly, None)
    }
}

/// Copies a tree of files and directories until `left` bytes are copied; links and special files are left out.
fn copy(from: &Path, to: &Path, left: &mut u64) -> Result<()> {
    let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
    fs::create_dir(to).context(|| to.display().to_string())?;
    for entry in entries.flatten() {
        if *left == 0 {
            return Ok(());
        }
        let Ok(meta) = entry.path().symlink_metadata() else { continue };
        if meta.is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()), left)?;
        } else if meta.is_file() && meta.len() <= REAL_FILE_MAX {
            fs::copy(entry.path(), to.join(entry.file_name()))
                .context(|| entry.path().display().to_string())?;
            *left = left.saturating_sub(meta.len());
        }
    }
    Ok(())
}
