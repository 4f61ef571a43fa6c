//! XFS images for tests without privilege: mkfs.xfs with a protofile, attributes set by xfs_db.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

/// Makes an image of `size` in the file `image`, filled from the tree `source` if there is one. Names must be without blanks.
///
/// # Errors
/// When this mkfs.xfs does not know an option: its first line.
///
/// # Panics
/// When mkfs.xfs fails otherwise.
pub fn make(image: &Path, size: &str, args: &str, source: Option<&Path>) -> Result<(), String> {
    let _ = std::fs::remove_file(image);
    let mut all: Vec<String> = vec!["-q".into(), "-f".into()];
    all.extend(args.split_whitespace().map(str::to_owned));
    all.extend(["-d".into(), format!("name={},file,size={size}", image.display())]);
    if let Some(source) = source {
        let mut proto = b"/none\n0 0\n".to_vec();
        describe(source, b"", &mut proto);
        let path = image.with_extension("proto");
        std::fs::write(&path, proto).unwrap();
        all.extend(["-p".into(), path.display().to_string()]);
    }
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    // With these three, mkfs.xfs makes the small volumes of its own tests.
    let command = &mut Command::new("mkfs.xfs");
    let command = command.args(&all).env("PATH", path);
    let output = command.env("TEST_DIR", "1").env("TEST_DEV", "1").env("QA_CHECK_FS", "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() && said.contains("unknown option") {
        return Err(said.lines().next().unwrap_or_default().to_owned());
    }
    assert!(output.status.success(), "mkfs.xfs {all:?}: {said}");
    Ok(())
}

/// One entry of a protofile: name, type and mode, owner, and what it holds.
fn describe(path: &Path, name: &[u8], out: &mut Vec<u8>) {
    let meta = path.symlink_metadata().unwrap();
    let kind = meta.file_type();
    let letter = match kind {
        _ if kind.is_dir() => 'd',
        _ if kind.is_symlink() => 'l',
        _ if kind.is_fifo() => 'p',
        _ => '-',
    };
    let bit = |mask: u32, letter| if meta.mode() & mask != 0 { letter } else { '-' };
    out.extend_from_slice(name);
    let mode = format!(
        " {letter}{}{}{:03o} {} {}",
        bit(0o4000, 'u'),
        bit(0o2000, 'g'),
        meta.mode() & 0o777,
        meta.uid(),
        meta.gid()
    );
    out.extend_from_slice(mode.trim_start_matches(|c| c == ' ' && name.is_empty()).as_bytes());
    if kind.is_dir() {
        out.push(b'\n');
        let mut names: Vec<_> = path.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            assert!(!name.as_bytes().contains(&b' '));
            describe(&path.join(&name), name.as_bytes(), out);
        }
        out.extend_from_slice(b"$\n");
        return;
    }
    if kind.is_symlink() {
        out.push(b' ');
        out.extend_from_slice(std::fs::read_link(path).unwrap().as_os_str().as_bytes());
    } else if kind.is_file() {
        out.push(b' ');
        out.extend_from_slice(path.as_os_str().as_bytes());
    }
    out.push(b'\n');
}

/// Sets an attribute of `len` bytes 'v' of inode `inode`; `space` is "-u", "-r" (trusted) or "-s" (security).
pub fn set_attribute(image: &Path, inode: u64, space: &str, name: &str, len: usize) {
    let (inode, set) = (format!("inode {inode}"), format!("attr_set {space} -v {len} {name}"));
    super::run("xfs_db", &["-x", "-c", &inode, "-c", &set, image.to_str().unwrap()]);
}
