//! What this machine has seen of a repository, so that a store cannot show an older one, or another, without a word.
//!
//! Small text files in the directory that `--state-dir` names: one for each repository, `repository-UUID`, so that all places of it share what
//! was seen; and one for each place, `seen-PLACE-CHECKSUM`, which says what repository is there (what else is in it counts as long as there is
//! none for the repository: earlier versions kept all of it there).
//!
//! | line | meaning |
//! |---|---|
//! | `repository UUID` | which repository is there |
//! | `encrypted yes` or `encrypted no` | whether it is encrypted |
//! | `epoch N` | highest epoch seen |
//! | `slot N` | highest entry of the commit log seen |
//!
//! Nothing depends on it but this check: without the directory, or with an empty one, everything works (P6).
//! Invariants: it is replaced as a whole ([`durable`]); numbers go back only where a person says so. Source: ours.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use windlass_agent::id::{Epoch, Slot};

use crate::engine::durable;
use crate::failure::Failure;
use crate::text;

/// Characters of a place that its file's name keeps, for people; its checksum tells places apart.
const NAME_CHARS_MAX: usize = 80;

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The repository.
    pub repository: [u8; 16],
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// Highest epoch.
    pub epoch: Epoch,
    /// Highest entry of the commit log.
    pub slot: Slot,
}

/// The files of one place and of the repositories.
#[derive(Clone, Debug)]
pub struct Memory {
    dir: PathBuf,
    path: PathBuf,
    place: String,
}

impl Memory {
    /// Of the repository at `place`, in `dir`, which is made when it does not exist.
    pub fn of(dir: &Path, place: &str) -> Result<Memory, Failure> {
        fs::create_dir_all(dir).map_err(|error| Failure::at(dir.display(), error))?;
        let kept = place.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
        let name: String = kept.take(NAME_CHARS_MAX).collect();
        let path = dir.join(format!("seen-{name}-{}", checksum(place)));
        Ok(Memory { dir: dir.to_owned(), path, place: place.to_owned() })
    }

    /// The file of a repository, wherever it is.
    fn path_of(&self, repository: &[u8; 16]) -> PathBuf {
        self.dir.join(format!("repository-{}", text::uuid(repository)))
    }

    /// What was seen of a repository, here or at another place; `None` when nothing was.
    fn recall(&self, repository: &[u8; 16]) -> Result<Option<Seen>, Failure> {
        match recall(&self.path_of(repository))? {
            Some(seen) => Ok(Some(seen)),
            None => Ok(recall(&self.path)?.filter(|seen| seen.repository == *repository)),
        }
    }

    /// Refuses what is not the repository that was seen here.
    pub fn check_identity(&self, repository: &[u8; 16], encrypted: bool) -> Result<(), Failure> {
        let of_place = recall(&self.path)?;
        let (what, path) = match (of_place, self.recall(repository)?) {
            (Some(seen), _) if seen.repository != *repository => (
                format!(
                    "another repository is at this address than the one known: here is {}, and this machine knows {}",
                    text::uuid(repository),
                    text::uuid(&seen.repository)
                ),
                self.path.clone(),
            ),
            (_, Some(seen)) if seen.encrypted && !encrypted => (
                "the repository says that it is not encrypted, and this machine knows that it is".to_owned(),
                self.path_of(repository),
            ),
            _ => return Ok(()),
        };
        Err(Failure::at(
            &self.place,
            format_args!(
                "{what}: somebody has replaced it; nothing was read or written; when that was right, remove {}",
                path.display()
            ),
        ))
    }

    /// Refuses a log that ends before what was seen, unless a person says that it is right to end at `accept`.
    pub fn check_age(
        &self,
        repository: &[u8; 16],
        epoch: Epoch,
        slot: Slot,
        accept: Option<u64>,
    ) -> Result<(), Failure> {
        let Some(seen) = self.recall(repository)? else { return Ok(()) };
        if slot >= seen.slot && epoch >= seen.epoch || accept == Some(slot.0) {
            return Ok(());
        }
        Err(Failure::at(
            &self.place,
            format_args!(
                "the store shows an older repository than this machine has seen: its commit log ends at entry {slot} (epoch {epoch}), \
                 and entry {} (epoch {}) was there; nothing was changed; when it was brought back to an older state on purpose, say \
                 --accept-older {slot}",
                seen.slot, seen.epoch
            ),
        ))
    }

    /// Remembers what is there now. Call it after the checks.
    pub fn remember(&self, seen: Seen) -> Result<(), Failure> {
        let replace = |path: &Path| {
            durable::replace(path, emit(&seen).as_bytes()).map_err(|error| Failure::at(path.display(), error))
        };
        let path = self.path_of(&seen.repository);
        if recall(&path)? != Some(seen) {
            replace(&path)?;
        }
        let here = recall(&self.path)?.map(|here| (here.repository, here.encrypted));
        if here == Some((seen.repository, seen.encrypted)) { Ok(()) } else { replace(&self.path) }
    }
}

fn recall(path: &Path) -> Result<Option<Seen>, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::at(path.display(), error)),
    };
    parse(&text).map(Some).ok_or_else(|| {
        Failure::at(
            path.display(),
            "this is not what windlass writes there; remove it when you know that the store shows what it should",
        )
    })
}

fn emit(seen: &Seen) -> String {
    let encrypted = if seen.encrypted { "yes" } else { "no" };
    let (id, epoch, slot) = (text::uuid(&seen.repository), seen.epoch, seen.slot);
    format!("repository {id}\nencrypted {encrypted}\nepoch {epoch}\nslot {slot}\n")
}

fn parse(text: &str) -> Option<Seen> {
    let mut lines = text.lines();
    let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
    let digits = field("repository")?.replace('-', "");
    let repository = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32)?.to_be_bytes();
    let encrypted = match field("encrypted")? {
        "yes" => true,
        "no" => false,
        _ => return None,
    };
    let (epoch, slot) = (field("epoch")?.parse().ok()?, field("slot")?.parse().ok()?);
    Some(Seen { repository, encrypted, epoch: Epoch(epoch), slot: Slot(slot) })
}

/// FNV-1a of 64 bits: two places of one machine do not share a file; nobody has anything to gain from making them.
fn checksum(place: &str) -> String {
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", place.bytes().fold(0xcbf2_9ce4_8422_2325, fold))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_comes_back_and_nothing_else_is_taken_for_it() {
        let seen = Seen { repository: [0x5a; 16], encrypted: true, epoch: Epoch(3), slot: Slot(40) };
        let text = emit(&seen);
        assert_eq!(
            text,
            format!("repository {}\nencrypted yes\nepoch 3\nslot 40\n", text::uuid(&[0x5a; 16]))
        );
        assert_eq!(parse(&text), Some(seen));
        for cut in 0..text.len() - 3 {
            assert_eq!(parse(&text[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn an_older_repository_or_another_is_refused() {
        let dir = std::env::temp_dir().join(format!("windlass-memory-{}", std::process::id()));
        let memory = Memory::of(&dir, "file:///srv/repo").unwrap();
        let seen = Seen { repository: [1; 16], encrypted: true, epoch: Epoch(3), slot: Slot(40) };
        assert!(memory.check_age(&[1; 16], Epoch(0), Slot(0), None).is_ok());
        memory.remember(seen).unwrap();
        for (epoch, slot, accept, good) in [
            (3, 40, None, true),
            (4, 41, None, true),
            (3, 39, None, false),
            (2, 41, None, false),
            (3, 39, Some(38), false),
            (3, 39, Some(39), true),
        ] {
            assert_eq!(
                memory.check_age(&[1; 16], Epoch(epoch), Slot(slot), accept).is_ok(),
                good,
                "{epoch} {slot} {accept:?}"
            );
        }
        assert!(memory.check_identity(&[1; 16], true).is_ok());
        assert!(
            memory.check_identity(&[2; 16], true).is_err() && memory.check_identity(&[1; 16], false).is_err()
        );
        let why = memory.check_identity(&[2; 16], true).unwrap_err().to_string();
        assert!(why.contains("another repository is at this address than the one known"), "{why}");
        let other = Memory::of(&dir, "file:///srv/other").unwrap();
        assert!(other.check_identity(&[2; 16], false).is_ok());
        // The same repository at another place is no younger, and as encrypted.
        assert!(other.check_age(&[1; 16], Epoch(3), Slot(39), None).is_err());
        assert!(other.check_identity(&[1; 16], false).is_err());
        // What an earlier version left: all of it in the file of the place.
        fs::remove_file(memory.path_of(&[1; 16])).unwrap();
        assert!(memory.check_age(&[1; 16], Epoch(3), Slot(39), None).is_err());
        // Brought back on purpose: that holds at both places.
        memory.remember(Seen { slot: Slot(39), ..seen }).unwrap();
        other.remember(Seen { slot: Slot(39), ..seen }).unwrap();
        assert!(memory.check_age(&[1; 16], Epoch(3), Slot(39), None).is_ok());
        assert!(other.check_age(&[1; 16], Epoch(3), Slot(39), None).is_ok());
        fs::remove_dir_all(&dir).unwrap();
    }
}
