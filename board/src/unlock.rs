//! What opens a repository: a key file, a passphrase in a file, or one that is typed.
//!
//! A key file is text, so that it can be printed and typed:
//!
//! | line | meaning |
//! |---|---|
//! | 64 hex digits | the key |
//! | `repository UUID` | of which repository; without these lines (files of before): of any |
//! | `encryption aes-256-gcm` | how that is encrypted |
//! | `location-blocks N` | blocks per row of its location table |
//!
//! The last three come once for each repository that was made with the key. 32 raw bytes are read as well. Whoever owns the store can replace the repository's `format` object; a key file that says what it
//! belongs to makes that known.
//!
//! Invariants: a secret is read from a file or a terminal and never printed; a key file is written whole or not at all ([`durable`]), and
//! lines are only added to it. Source: ours.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use windlass_agent::format::repo::RepoFormat;
use windlass_agent::format::seal::{KEY_BYTES, Sealing, Secret};
use windlass_agent::format::wrap::{Passphrase, Unlock};
use zeroize::Zeroizing;

use crate::engine::settings::Access;
use crate::engine::{durable, host};
use crate::failure::Failure;
use crate::{logger, prompt, text};

/// Largest passphrase file in bytes; a larger one is some other file.
const PASSPHRASE_FILE_BYTES_MAX: u64 = 4096;
/// Most repositories of one key: one for each policy's store of an appliance, and some. One more is refused when it is made.
const PINS_MAX: usize = 32;
/// Largest key file in bytes: the key, and some 100 for each repository.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// What opens a repository, and what is known of that.
#[derive(Debug)]
pub struct Given {
    /// The key or passphrase.
    pub unlock: Unlock,
    /// The repositories that the key file belongs to; none when it does not say.
    pins: Vec<Pin>,
    /// Where the key is to be written once the repository is known to work: it was made just now, or gets lines for that repository.
    file: Option<PathBuf>,
    /// Whether the key was made just now.
    is_new: bool,
}

/// A repository that a key file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Its id.
    pub repository: [u8; 16],
    /// Blocks per row of its location table.
    pub location_blocks: u8,
}

impl Pin {
    /// Of a repository.
    pub fn of(format: &RepoFormat) -> Pin {
        Pin { repository: format.uuid, location_blocks: format.location_blocks }
    }

    fn check(&self, format: &RepoFormat, place: &str) -> Result<(), Failure> {
        if format.sealing() != Sealing::Aes256Gcm || format.location_blocks != self.location_blocks {
            return Err(Failure::at(
                place,
                "the repository's format object is not as it was when the key file was made: somebody has replaced it; \
                 nothing was read or written",
            ));
        }
        Ok(())
    }
}

impl Given {
    fn of(unlock: Unlock) -> Given {
        Given { unlock, pins: Vec::new(), file: None, is_new: false }
    }

    /// Whether the key is on no disk yet.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Refuses a repository that the key file does not know, when it knows any, and one that is not as it was.
    pub fn check(&self, format: &RepoFormat, place: &str) -> Result<(), Failure> {
        if self.pins.is_empty() {
            return Ok(());
        }
        if let Some(pin) = self.pins.iter().find(|pin| pin.repository == format.uuid) {
            return pin.check(format, place);
        }
        let known: Vec<String> = self.pins.iter().map(|pin| text::uuid(&pin.repository)).collect();
        Err(Failure::at(
            place,
            format_args!(
                "here is repository {}, and the key file is of {}: somebody has replaced the repository, or this is \
                 another one; check --repo and --key-file",
                text::uuid(&format.uuid),
                known.join(", ")
            ),
        ))
    }

    /// Refuses a key file that has no room for one more repository.
    pub fn check_room(&self) -> Result<(), Failure> {
        match &self.file {
            Some(path) if self.pins.len() >= PINS_MAX => Err(Failure::at(
                path.display(),
                format_args!(
                    "{PINS_MAX} repositories have this key; give another path, and a key of its own is made there"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Writes a key that was made just now, with what it belongs to; one that knows its repositories learns this one. Durable when it
    /// returns.
    pub fn save(&self, pin: Pin) -> Result<(), Failure> {
        let (Some(path), Unlock::KeyFile(key)) = (&self.file, &self.unlock) else { return Ok(()) };
        let failed = |error| Failure::at(path.display(), error);
        if self.pins.iter().any(|known| known.repository == pin.repository) {
            return Ok(());
        }
        let pins = [&self.pins[..], &[pin]].concat();
        let contents = Zeroizing::new(key_file_text(key, &pins));
        if self.is_new {
            durable::create(path, contents.as_bytes()).map_err(failed)?;
            logger::say(format_args!(
                "windlass: made the key file {}; keep a copy of it elsewhere",
                path.display()
            ));
        } else if !self.pins.is_empty() {
            durable::replace(path, contents.as_bytes()).map_err(failed)?;
            logger::say(format_args!(
                "windlass: the key file {} knows this repository too now; bring its copies up to date",
                path.display()
            ));
        }
        Ok(())
    }

    /// Takes back what [`save`](Given::save) wrote about a repository that was not made.
    pub fn unsave(&self) {
        let (Some(path), Unlock::KeyFile(key)) = (&self.file, &self.unlock) else { return };
        let undone = match (self.is_new, self.pins.is_empty()) {
            (true, _) => std::fs::remove_file(path),
            (false, true) => Ok(()),
            (false, false) => {
                durable::replace(path, Zeroizing::new(key_file_text(key, &self.pins)).as_bytes())
            }
        };
        if let Err(error) = undone {
            log::warn!("key file names a repository that was not made path={} error={error}", path.display());
        }
    }
}

/// What opens the repository, as far as options name it.
pub fn given(access: &Access) -> Result<Option<Given>, Failure> {
    match (&access.key_file, &access.passphrase_file) {
        (Some(_), Some(_)) => {
            Err(Failure::usage("a key file and a passphrase file were given; leave one of them out"))
        }
        (Some(path), None) => read_key_file(path).map(Some),
        (None, Some(path)) => read_passphrase(path).map(Given::of).map(Some),
        (None, None) => Ok(None),
    }
}

/// The same, or what is typed at a terminal.
pub fn asked(access: &Access, question: &str) -> Result<Given, Failure> {
    if let Some(given) = given(access)? {
        return Ok(given);
    }
    let typed = prompt::passphrase(question)?;
    typed.map(|typed| Given::of(Unlock::Passphrase(typed))).ok_or_else(|| {
        Failure::usage(
            "the repository is encrypted; give --key-file or --passphrase-file (there is no terminal to ask)",
        )
    })
}

/// What is to open a new repository. A key for a file that does not exist is made, and not written yet.
pub fn for_new(access: &Access) -> Result<Given, Failure> {
    if let (Some(path), None) = (&access.key_file, &access.passphrase_file)
        && path.symlink_metadata().is_err()
    {
        let unlock = Unlock::KeyFile(Secret::new(host::random()?));
        return Ok(Given { unlock, pins: Vec::new(), file: Some(path.clone()), is_new: true });
    }
    if let Some(given) = given(access)? {
        return Ok(given);
    }
    let none = || {
        Failure::usage(
            "give --key-file (made if it does not exist) or --passphrase-file, or say --no-encryption",
        )
    };
    typed_twice("New passphrase of the repository")?.ok_or_else(none)
}

/// A new passphrase from the terminal; `None` when there is none.
pub fn typed_twice(question: &str) -> Result<Option<Given>, Failure> {
    let Some(first) = prompt::typed(question)? else { return Ok(None) };
    let Some(second) = prompt::typed("Once more")? else { return Ok(None) };
    if *first != *second {
        return Err(Failure::new("the two passphrases differ; start over"));
    }
    Ok(Some(Given::of(Unlock::Passphrase(Passphrase::new(first.to_vec())))))
}

fn key_file_text(key: &Secret, pins: &[Pin]) -> String {
    let of = |pin: &Pin| {
        let id = text::uuid(&pin.repository);
        format!("repository {id}\nencryption aes-256-gcm\nlocation-blocks {}\n", pin.location_blocks)
    };
    format!("{}\n{}", text::hex(key.bytes()), pins.iter().map(of).collect::<String>())
}

fn read_key_file(path: &Path) -> Result<Given, Failure> {
    let bytes = Zeroizing::new(read_secret(path, KEY_FILE_BYTES_MAX)?);
    let (key, pins) = parse_key_file(&bytes).map_err(|what| {
        let hint = "not a key file (64 hex digits or 32 bytes); check --key-file";
        match what {
            None => Failure::at(path.display(), hint),
            Some(line) => Failure::at(
                path.display(),
                format_args!("line {line} of the key file says nothing that is known; bring back its copy"),
            ),
        }
    })?;
    Ok(Given { unlock: Unlock::KeyFile(key), pins, file: Some(path.to_owned()), is_new: false })
}

/// `Err`: the number of the line that is wrong, counted from 1; `None` when there is no key.
fn parse_key_file(bytes: &[u8]) -> Result<(Secret, Vec<Pin>), Option<usize>> {
    // Digits alone are the beginning of a file that was cut, and not a key that chance made of them.
    let raw = Some(bytes).filter(|bytes| !bytes.iter().all(u8::is_ascii_hexdigit));
    if let Some(Ok(raw)) = raw.map(<[u8; KEY_BYTES]>::try_from) {
        return Ok((Secret::new(raw), Vec::new()));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| None)?;
    let mut lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
    let key = lines.next().and_then(|(_, line)| unhex(line)).ok_or(None)?;
    let mut pins = Vec::new();
    let mut last = 1;
    while let Some((at, line)) = lines.next() {
        last = at + 1;
        let repository = line.strip_prefix("repository ").and_then(|id| unhex(&id.replace('-', "")));
        let repository = repository.ok_or(Some(last))?;
        let mut next = |name: &str| {
            let (at, line) = lines.next().ok_or(Some(last))?;
            last = at + 1;
            line.strip_prefix(name).map(str::trim_start).ok_or(Some(last))
        };
        if next("encryption ")? != "aes-256-gcm" {
            return Err(Some(last));
        }
        let location_blocks = next("location-blocks ")?.parse().map_err(|_| Some(last))?;
        pins.push(Pin { repository, location_blocks });
    }
    if pins.len() > PINS_MAX { Err(Some(last)) } else { Ok((Secret::new(key), pins)) }
}

fn unhex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    text::unhex(digits)?.try_into().ok()
}

fn read_passphrase(path: &Path) -> Result<Unlock, Failure> {
    let passphrase = read_secret(path, PASSPHRASE_FILE_BYTES_MAX)?;
    if passphrase.trim_ascii().is_empty() {
        return Err(Failure::at(path.display(), "the passphrase file is empty"));
    }
    Ok(Unlock::Passphrase(Passphrase::new(passphrase)))
}

fn read_secret(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| Failure::at(path.display(), error);
    let file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if meta.is_file() && meta.mode() & 0o077 != 0 {
        log::warn!("secret: others may read this file, use chmod 600 path={}", path.display());
    }
    let mut bytes = Vec::with_capacity(bytes_max as usize + 1);
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        return Err(Failure::at(path.display(), "too large for a key or passphrase; check the path"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_says_what_it_belongs_to_and_older_ones_do_not() {
        let pin = Pin { repository: std::array::from_fn(|at| at as u8), location_blocks: 10 };
        let digits = "ab".repeat(32);
        let text = key_file_text(&Secret::new([0xab; 32]), &[pin]);
        let written = format!(
            "{digits}\nrepository 00010203-0405-0607-0809-0a0b0c0d0e0f\nencryption aes-256-gcm\nlocation-blocks 10\n"
        );
        assert_eq!(text, written);
        let read = |text: &str| parse_key_file(text.as_bytes()).map(|(key, pin)| (*key.bytes(), pin));
        assert_eq!(read(&text), Ok(([0xab; 32], vec![pin])));
        assert_eq!(read(&text.replace('\n', "\r\n\r\n")), Ok(([0xab; 32], vec![pin])));
        let pins: Vec<Pin> =
            (0..=PINS_MAX as u8).map(|at| Pin { repository: [at; 16], location_blocks: at }).collect();
        let most = key_file_text(&Secret::new([0xab; 32]), &pins[..PINS_MAX]);
        assert!(most.len() as u64 <= KEY_FILE_BYTES_MAX);
        assert_eq!(read(&most), Ok(([0xab; 32], pins[..PINS_MAX].to_vec())));
        assert!(read(&key_file_text(&Secret::new([0xab; 32]), &pins)).is_err());
        for old in [digits.clone(), format!("{digits}\n"), format!("  {}\n\n", digits.to_uppercase())] {
            assert_eq!(read(&old), Ok(([0xab; 32], Vec::new())));
        }
        assert_eq!(parse_key_file(&[7; 32]).map(|(key, pin)| (*key.bytes(), pin)), Ok(([7; 32], Vec::new())));
        for (bad, line) in [
            (String::new(), None),
            ("not a key".to_owned(), None),
            (digits[..62].to_owned(), None),
            (text.replace("aes-256-gcm", "none"), Some(3)),
            (text.replace("location-blocks 10\n", ""), Some(3)),
            (text.replace("0e0f", "0e"), Some(2)),
            (format!("{text}colour blue\n"), Some(5)),
        ] {
            assert_eq!(read(&bad), Err(line), "{bad}");
        }
        // Cut anywhere, it is refused, or it is the same key: never another one.
        for cut in 0..text.len() {
            assert!(
                read(&text[..cut]).is_ok_and(|(key, _)| key == [0xab; 32]) || read(&text[..cut]).is_err()
            );
        }
    }
}
