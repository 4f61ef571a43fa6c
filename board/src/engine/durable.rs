//! Small files that have to be whole and there after a power failure: written beside, synced, given their name, and the directory synced.
//!
//! Invariants: under its name a file is whole, or not there, or (replaced) the one before; no other user ever has it open, in a
//! directory that others write to either. Does not: know what is in them. Source: ours; open(2), fsync(2), link(2), rename(2).

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use windlass_hal::entropy::{Entropy as _, SystemEntropy};

/// Names tried for the file beside, before the error is told: of 64 random bits, not even the second is needed unless somebody plays tricks.
const BESIDE_TRIES_MAX: usize = 8;

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
    let (mut file, beside) = make_beside(path, random)?;
    let written = file.write_all(contents).and_then(|()| file.sync_all());
    if let Err(error) = written {
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    Ok(beside)
}

/// A file of our own, under a name that was not there: what others have put there, a link too, is not written to.
fn make_beside(path: &Path, mut number: impl FnMut() -> io::Result<u64>) -> io::Result<(File, PathBuf)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut tries = 1;
    loop {
        let mut name = name.to_owned();
        name.push(format!(".{:016x}.new", number()?));
        let beside = path.with_file_name(name);
        match File::options().write(true).create_new(true).mode(0o600).open(&beside) {
            Ok(file) => return Ok((file, beside)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < BESIDE_TRIES_MAX => {
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    SystemEntropy.fill(&mut bytes).map_err(|fault| io::Error::from_raw_os_error(fault.errno))?;
    Ok(u64::from_le_bytes(bytes))
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

    #[test]
    fn a_file_or_a_link_that_others_put_beside_is_passed_over() {
        let dir = std::env::temp_dir().join(format!("windlass-durable-beside-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("key");
        let name = |number: u64| dir.join(format!("key.{number:016x}.new"));
        let theirs = dir.join("theirs");
        fs::write(&theirs, b"").unwrap();
        fs::hard_link(&theirs, name(0)).unwrap();
        std::os::unix::fs::symlink(&theirs, name(1)).unwrap();
        std::os::unix::fs::symlink(dir.join("nowhere"), name(2)).unwrap();
        let mut numbers = 0..;
        let (mut file, beside) = make_beside(&path, || Ok(numbers.next().unwrap())).unwrap();
        file.write_all(b"key").unwrap();
        assert_eq!(beside, name(3));
        assert_eq!(fs::read(&theirs).unwrap(), b"");
        assert!(!dir.join("nowhere").exists());
        let mode = std::os::unix::fs::PermissionsExt::mode(&beside.metadata().unwrap().permissions());
        assert_eq!(mode & 0o077, 0);
        let taken = make_beside(&path, || Ok(0)).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists, "it does not try for ever");
        fs::remove_dir_all(&dir).unwrap();
    }
}
