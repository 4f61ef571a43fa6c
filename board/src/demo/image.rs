//! Images for the demo: ext4 made of real files with `mke2fs -d`, and small ones of ext4 and XFS that are shipped.
//!
//! Neither needs root. Source: mke2fs(8); the shipped images are made by `board/demo/make`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zstd_safe::{DCtx, InBuffer, OutBuffer};

use crate::demo::source::Copied;
use crate::failure::Failure;

/// A shipped image, zstd: items of every kind.
pub const SHIPPED_EXT4: &[u8] = include_bytes!("../../demo/small.ext4.zst");
/// The same of XFS, with shared and preallocated blocks.
pub const SHIPPED_XFS: &[u8] = include_bytes!("../../demo/small.xfs.zst");
/// Bytes unpacked at a time.
const PIECE_BYTES: usize = 128 << 10;

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

/// Unpacks a shipped image to `image`, piece by piece; pieces of zeros stay holes.
pub fn unpack(shipped: &[u8], image: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::at(image.display(), error);
    let file = File::create_new(image).map_err(failed)?;
    let mut context = DCtx::create();
    let mut input = InBuffer::around(shipped);
    let mut piece = vec![0; PIECE_BYTES];
    let mut end = 0;
    loop {
        let mut output = OutBuffer::around(&mut piece[..]);
        let left = context
            .decompress_stream(&mut output, &mut input)
            .map_err(|code| Failure::at("the shipped image", zstd_safe::get_error_name(code)))?;
        let filled = output.pos();
        if piece[..filled].iter().any(|&byte| byte != 0) {
            file.write_all_at(&piece[..filled], end).map_err(failed)?;
        }
        end += filled as u64;
        if left == 0 {
            return file.set_len(end).map_err(failed);
        }
        if filled == 0 && input.pos() == shipped.len() {
            return Err(Failure::at("the shipped image", "is cut short"));
        }
    }
}
