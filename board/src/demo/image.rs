//! Images for the demo: ext4 made of real files with `mke2fs -d`, and small ones of ext4 and XFS that are shipped.
//!
//! Neither needs root. Source: mke2fs(8); the shipped images are made by `board/demo/make`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::demo::source::Copied;
use crate::failure::Failure;

/// A shipped image, zstd: items of every kind.
pub const SHIPPED_EXT4: &[u8] = include_bytes!("../../demo/small.ext4.zst");
/// The same of XFS, with shared and preallocated blocks.
pub const SHIPPED_XFS: &[u8] = include_bytes!("../../demo/small.xfs.zst");
/// Largest shipped image in bytes, unpacked.
const SHIPPED_BYTES_MAX: usize = 32 << 20;

/// Where mke2fs is; `None` when it is not installed.
pub fn find_mke2fs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from));
    places.into_iter().map(|place| place.join("mke2fs")).find(|path| path.is_file())
}

/// Makes an ext4 image at `image` with the contents of `tree`.
pub fn make(mke2fs: &Path, tree: &Path, image: &Path, copied: &Copied) -> Result<(), Failure> {
    let inodes = copied.items + copied.items / 8 + 1024;
    // Contents, inodes and directories, a journal, and room to spare.
    let bytes = copied.rounded + copied.rounded / 16 + inodes * 512 + (96 << 20);
    let file = File::create_new(image).map_err(|error| Failure::at(image.display(), error))?;
    file.set_len(bytes.next_multiple_of(1 << 20)).map_err(|error| Failure::at(image.display(), error))?;
    let output = Command::new(mke2fs)
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-L", "windlass-demo", "-N"])
        .arg(inodes.to_string())
        .args(["-E", "lazy_itable_init=1,nodiscard", "-d"])
        .arg(tree)
        .arg(image)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::at(mke2fs.display(), error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it does not say why");
    Err(Failure::at(
        mke2fs.display(),
        format_args!("cannot make the image: {last}; `windlass demo --shipped` works without it"),
    ))
}

/// Unpacks a shipped image to `image`.
pub fn unpack(shipped: &[u8], image: &Path) -> Result<(), Failure> {
    let mut bytes = vec![0; SHIPPED_BYTES_MAX];
    let length = zstd_safe::decompress(&mut bytes[..], shipped)
        .map_err(|code| Failure::at("the shipped image", zstd_safe::get_error_name(code)))?;
    bytes.truncate(length);
    fs::write(image, bytes).map_err(|error| Failure::at(image.display(), error))
}
