//! File-system images, loop devices and mounts, each undone when its guard is dropped.
//!
//! | call | privilege | tool |
//! |---|---|---|
//! | [`make_ext4`] | none | `mke2fs`, with `-d` when there is a tree to put in |
//! | [`make_empty`] | none | `mke2fs`, `mkfs.xfs`, `mkfs.btrfs` |
//! | [`Loop::attach`] | root | `losetup`, direct I/O on |
//! | [`Mount::image`] | root | a loop device and mount(2) |
//! | [`Tmpfs::mount`] | root | mount(2) |
//!
//! Images are default-featured ext4 unless the caller says otherwise, and odd features are only ever written by user
//! space: the host's kernel must not be stress-tested. Source: ours.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::error::{Context, Error, Result, output};

/// Attaching can lose a race for a free device with another test: so many tries.
const ATTACH_TRIES: u32 = 8;

/// Whether the kernel may change the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The device and the mount refuse writes.
    ReadOnly,
    /// The image changes.
    ReadWrite,
}

/// Makes an ext4 image of `size_bytes`, filled from the tree `from` if there is one. No privilege needed; without root
/// the tree's owners are kept as they are. `extra` goes to mke2fs (`-O`, `-N`, `-b` …).
pub fn make_ext4(image: &Path, size_bytes: u64, from: Option<&Path>, extra: &[&str]) -> Result<()> {
    let file = File::create(image).context(|| format!("make {}", image.display()))?;
    file.set_len(size_bytes).context(|| format!("size {}", image.display()))?;
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-F", "-t", "ext4"]).args(extra);
    if let Some(tree) = from {
        command.arg("-d").arg(tree);
    }
    output(command.arg(image))?;
    Ok(())
}

/// A kind of file system that tests make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ext4, by mke2fs.
    Ext4,
    /// XFS, by xfsprogs.
    Xfs,
    /// btrfs, by btrfs-progs.
    Btrfs,
}

impl Kind {
    /// As mount(8) names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
            Kind::Btrfs => "btrfs",
        }
    }

    /// What makes it.
    fn program(self) -> &'static str {
        match self {
            Kind::Ext4 => "mke2fs",
            Kind::Xfs => "mkfs.xfs",
            Kind::Btrfs => "mkfs.btrfs",
        }
    }

    /// Why this machine cannot make and mount one, if it cannot.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        let program = self.program();
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|dir| dir.join(program).exists()) {
            return Some(format!("no {program}"));
        }
        let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        let known = known.lines().any(|line| line.trim_start_matches("nodev").trim() == self.name());
        (!known).then(|| format!("this kernel has no {}", self.name()))
    }
}

/// Makes an empty file system of default features in an image of `size_bytes` (at least 300 MiB for XFS).
pub fn make_empty(kind: Kind, image: &Path, size_bytes: u64) -> Result<()> {
    if kind == Kind::Ext4 {
        return make_ext4(image, size_bytes, None, &["-N", "65536"]);
    }
    let file = File::create(image).context(|| format!("make {}", image.display()))?;
    file.set_len(size_bytes).context(|| format!("size {}", image.display()))?;
    output(Command::new(kind.program()).arg("-q").arg(image))?;
    Ok(())
}

/// A loop device over an image, detached when dropped.
#[derive(Debug)]
pub struct Loop {
    device: PathBuf,
}

impl Loop {
    /// Attaches with direct I/O, so that what is read comes from the disk below and not from the page cache.
    pub fn attach(image: &Path, access: Access) -> Result<Loop> {
        Loop::attach_with(image, access, &[])
    }

    /// The same with more options of losetup(8).
    pub fn attach_with(image: &Path, access: Access, options: &[&str]) -> Result<Loop> {
        let mut last = Error::new("no try");
        for _ in 0..ATTACH_TRIES {
            let mut command = Command::new("losetup");
            command.args(["--find", "--show", "--direct-io=on"]).args(options);
            if access == Access::ReadOnly {
                command.arg("--read-only");
            }
            match output(command.arg(image)) {
                Ok(name) => return Ok(Loop { device: PathBuf::from(String::from_utf8_lossy(&name).trim()) }),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    /// The device node.
    #[must_use]
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// `major:minor`, as control groups name it.
    pub fn number(&self) -> Result<String> {
        let rdev = fs::metadata(&self.device).context(|| self.device.display().to_string())?.rdev();
        Ok(format!("{}:{}", nix::sys::stat::major(rdev), nix::sys::stat::minor(rdev)))
    }

    /// Bytes read from it since it was made.
    pub fn read_bytes(&self) -> Result<u64> {
        let path = self.attribute("stat");
        let text = fs::read_to_string(&path).context(|| path.display().to_string())?;
        // Documentation/block/stat.rst: the third number, in units of 512 bytes.
        let sectors = text.split_whitespace().nth(2).and_then(|number| number.parse::<u64>().ok());
        Ok(sectors.ok_or_else(|| Error::new("no count of sectors"))? * 512)
    }

    /// Whether reads bypass the page cache of the file system below; false where that one cannot.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        fs::read_to_string(self.attribute("loop/dio")).is_ok_and(|text| text.trim() == "1")
    }

    /// What the kernel tells of it.
    fn attribute(&self, name: &str) -> PathBuf {
        Path::new("/sys/block").join(self.device.file_name().unwrap_or_default()).join(name)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Err(why) = output(Command::new("losetup").arg("--detach").arg(&self.device)) {
            eprintln!("{} stays attached: {why}", self.device.display());
        }
    }
}

/// A mounted image, unmounted (and its loop device detached) when dropped.
#[derive(Debug)]
pub struct Mount {
    dir: PathBuf,
    device: Loop,
}

impl Mount {
    /// Mounts an ext4 image at `dir`, which is made if it is missing.
    pub fn image(image: &Path, dir: &Path, access: Access) -> Result<Mount> {
        Mount::device(Loop::attach(image, access)?, dir, access)
    }

    /// Mounts a loop device that is attached already.
    pub fn device(device: Loop, dir: &Path, access: Access) -> Result<Mount> {
        Mount::kind(Kind::Ext4, device, dir, access, None)
    }

    /// Mounts an image of any kind, with options of that kind.
    pub fn image_of(
        kind: Kind,
        image: &Path,
        dir: &Path,
        access: Access,
        options: Option<&str>,
    ) -> Result<Mount> {
        Mount::kind(kind, Loop::attach(image, access)?, dir, access, options)
    }

    fn kind(kind: Kind, device: Loop, dir: &Path, access: Access, options: Option<&str>) -> Result<Mount> {
        fs::create_dir_all(dir).context(|| format!("make {}", dir.display()))?;
        let flags = match access {
            Access::ReadOnly => MsFlags::MS_RDONLY,
            Access::ReadWrite => MsFlags::empty(),
        };
        mount(Some(device.device()), dir, Some(kind.name()), flags | MsFlags::MS_NOATIME, options)
            .context(|| format!("mount {} at {}", device.device().display(), dir.display()))?;
        Ok(Mount { dir: dir.to_path_buf(), device })
    }

    /// The root of the mounted tree.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The device under it.
    #[must_use]
    pub fn loop_device(&self) -> &Loop {
        &self.device
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A straggler that still has a file open must not keep the test from ending; the mount goes when it does.
        if umount2(&self.dir, MntFlags::empty()).is_err()
            && let Err(why) = umount2(&self.dir, MntFlags::MNT_DETACH)
        {
            eprintln!("{} stays mounted: {why}", self.dir.display());
        }
    }
}

/// A file system in memory, unmounted when dropped; what is in use is gone when its last user is.
#[derive(Debug)]
pub struct Tmpfs {
    dir: PathBuf,
}

impl Tmpfs {
    /// Mounts one at `dir`. `options` as in tmpfs(5).
    pub fn mount(dir: &Path, options: &str) -> Result<Tmpfs> {
        mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), Some(options))
            .context(|| format!("mount a tmpfs at {}", dir.display()))?;
        Ok(Tmpfs { dir: dir.to_owned() })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = umount2(&self.dir, MntFlags::MNT_DETACH);
    }
}

#[cfg(test)]
mod tests {
    use super::{Access, Loop, Mount, fs, make_ext4};
    use crate::requires_root;
    use crate::workdir::Workdir;

    const SIZE_BYTES: u64 = 8 << 20;

    #[test]
    fn an_image_is_made_without_privilege() {
        let work = Workdir::new("image").unwrap();
        let tree = work.dir("tree").unwrap();
        fs::write(tree.join("name"), "content").unwrap();
        let image = work.join("image");
        make_ext4(&image, SIZE_BYTES, Some(&tree), &[]).unwrap();
        let bytes = fs::read(&image).unwrap();
        assert_eq!(bytes.len() as u64, SIZE_BYTES);
        assert_eq!(bytes[1024 + 56..1024 + 58], [0x53, 0xef], "the superblock's magic");
        assert!(bytes.windows(7).any(|window| window == b"content"));
        assert!(make_ext4(&image, 100, None, &[]).is_err(), "too small for a file system");
    }

    #[test]
    fn mounts_and_devices_are_undone() {
        requires_root!("image::mounts_and_devices_are_undone");
        let work = Workdir::new("image").unwrap();
        let tree = work.dir("tree").unwrap();
        fs::write(tree.join("name"), "content").unwrap();
        let image = work.join("image");
        make_ext4(&image, SIZE_BYTES, Some(&tree), &[]).unwrap();

        let mount = Mount::image(&image, &work.join("mounted"), Access::ReadOnly).unwrap();
        assert_eq!(fs::read(mount.dir().join("name")).unwrap(), b"content");
        assert!(fs::write(mount.dir().join("other"), "x").is_err(), "read-only");
        assert!(mount.loop_device().number().unwrap().starts_with("7:"));
        let dir = mount.dir().to_path_buf();
        drop(mount);
        assert!(fs::read_dir(&dir).unwrap().next().is_none(), "unmounted");

        let device = Loop::attach(&image, Access::ReadWrite).unwrap();
        let name = device.device().to_path_buf();
        drop(device);
        let backing =
            std::path::Path::new("/sys/block").join(name.file_name().unwrap()).join("loop/backing_file");
        // Another test may have taken the device meanwhile, but not for this image.
        assert!(
            !fs::read_to_string(backing).unwrap_or_default().contains(image.to_str().unwrap()),
            "detached"
        );
    }
}
