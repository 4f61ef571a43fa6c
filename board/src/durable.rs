//! Small files that have to be whole and there after a power failure: written beside, synced, given their name, and the directory synced.
//!
//! Invariant: under its name a file is whole, or not there, or (replaced) the one before. Does not: know what is in them. Source: ours;
//! fsync(2), link(2), rename(2).

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Makes the file, readable by its owner only. `AlreadyExists` when the name is taken: it stays as it is.
///
/// # Errors
/// Whatever the system says; nothing is left behind then.
pub fn create(path: &Path, contents: &[u8]) -> io::Result<()> {
    let beside = write_beside(path, contents)?;
    // A link does not replace what is there; where there are no links, the name is looked for first.
    let published = match fs::hard_link(&beside, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => match path.symlink_metadata() {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(&beside, path),
        },
        other => other,
    };
    // Gone already when it was renamed.
    let _ = fs::remove_file(&beside);
    published?;
    sync_directory_of(path)
}

/// Makes the file, or replaces what is there.
///
/// # Errors
/// Whatever the system says; what was there is still there then.
pub fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let beside = write_beside(path, contents)?;
    if let Err(error) = fs::rename(&beside, path) {
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    sync_directory_of(path)
}

fn write_beside(path: &Path, contents: &[u8]) -> io::Result<PathBuf> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(name);
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    let written = file.write_all(contents).and_then(|()| file.sync_all());
    if let Err(error) = written {
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    Ok(beside)
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_taken_stays_as_it_is_and_nothing_lies_beside_it() {
        let dir = std::env::temp_dir().join(format!("windlass-durable-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("file");
        create(&path, b"one").unwrap();
        assert_eq!(create(&path, b"two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        replace(&path, b"three").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        assert!(create(&dir.join("none/file"), b"x").is_err());
        assert!(replace(&dir, b"x").is_err(), "a directory is not replaced");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(&dir).unwrap();
    }
}
