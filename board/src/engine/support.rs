//! A support bundle: one file with what a person needs who cannot look at the machine.
//!
//! ```text
//!  Wanted: text, files, commands of this program --each within its time and bytes--> without secrets --> tar --> zstd
//! ```
//!
//! What asks a store or a device is a command in a process of its own, so a store that hangs costs its part and no more. Whatever a part
//! says, the secrets that are known are taken out of it: the contents of key, passphrase and credential files, and of variables that are
//! called so; and what stands before an `@` in a URL.
//!
//! Invariants: a part has [`PART_BYTES_MAX`] bytes at most, there are [`PARTS_MAX`], and a command has [`COMMAND_NS`]; what was cut or left out
//! is said in the part. The same parts make the same bytes but for the time. Does not: know commands, or write files.
//! Source: ours; POSIX.1-2024, pax, "ustar Interchange Format"; RFC 8878.

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Read, pipe};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use zeroize::Zeroizing;

use crate::engine::host::HostClock;
use crate::failure::Failure;
use crate::logger;

/// Bytes of a part: some thousand lines. The rest is cut.
pub const PART_BYTES_MAX: usize = 256 << 10;
/// Parts of a bundle; with their bound the most that is kept in memory is 8 MiB, and hundreds of KiB is usual.
pub const PARTS_MAX: usize = 32;
/// Time of a command, in nanoseconds: a store that does not answer is told of after that.
pub const COMMAND_NS: u64 = 20_000_000_000;
/// Commands at once.
const COMMANDS_MAX: usize = 4;
/// Shortest text that is looked for as a secret: a shorter one would take words out of everything.
const SECRET_BYTES_MIN: usize = 4;
/// From so many bytes on a mixture of letters and digits in a file of credentials counts as a secret.
const KEY_BYTES_MIN: usize = 16;
/// What stands for one.
const SECRET: &[u8] = b"(secret)";
/// Bytes of a file of secrets that are read.
const SECRET_FILE_BYTES_MAX: u64 = 64 << 10;
const TAR_BLOCK_BYTES: usize = 512;
const ZSTD_LEVEL: i32 = 9;

/// Where a part comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Text that is known.
    Text(String),
    /// A file of the system.
    File(PathBuf),
    /// This program with these arguments.
    Command(Vec<OsString>),
}

/// A part that is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its name in the bundle.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
}

impl Wanted {
    /// A part.
    pub fn new(name: impl Into<String>, source: Source) -> Wanted {
        Wanted { name: name.into(), source }
    }
}

/// Texts that no bundle has.
#[derive(Debug, Default)]
pub struct Secrets(Vec<Zeroizing<Vec<u8>>>);

/// A bundle.
#[derive(Debug)]
pub struct Bundle {
    /// The file.
    pub bytes: Vec<u8>,
    /// Names of its parts and their bytes.
    pub parts: Vec<(String, usize)>,
}

impl Secrets {
    /// Those of the environment.
    pub fn of_environment() -> Secrets {
        let mut secrets = Secrets::default();
        for (name, value) in std::env::vars_os() {
            let name = name.to_string_lossy().to_uppercase();
            let is_file = name.ends_with("_FILE") || name.ends_with("_PATH");
            let is_secret = ["SECRET", "TOKEN", "PASSWORD", "PASSPHRASE", "_KEY", "SAS", "CONNECTION_STRING"];
            if !is_file && is_secret.iter().any(|part| name.contains(part)) {
                secrets.add(value.as_encoded_bytes());
            }
        }
        secrets
    }

    /// One more.
    pub fn add(&mut self, secret: &[u8]) {
        let secret = secret.trim_ascii();
        if secret.len() >= SECRET_BYTES_MIN {
            self.0.push(Zeroizing::new(secret.to_vec()));
        }
    }

    /// The lines of a file with a key or a passphrase. A file that cannot be read has told nothing to anyone.
    pub fn add_file(&mut self, path: &Path) {
        read_secret(path).split(|&byte| byte == b'\n').for_each(|line| self.add(line));
    }

    /// What looks like a secret in a file of credentials: the values of names that say so, and long mixtures of letters and digits.
    pub fn add_credentials(&mut self, path: &Path) {
        let text = read_secret(path);
        for line in text.split(|&byte| byte == b'\n') {
            if let Some(at) = line.iter().position(|&byte| matches!(byte, b'=' | b':')) {
                let name = line[..at].to_ascii_lowercase();
                let says = |part: &&[u8]| name.windows(part.len()).any(|window| window == *part);
                let value = line[at + 1..].trim_ascii();
                let value = value.strip_suffix(b",").unwrap_or(value);
                let value = value.strip_prefix(b"\"").unwrap_or(value);
                let value = value.strip_suffix(b"\"").unwrap_or(value);
                if [&b"secret"[..], b"token", b"password", b"key"].iter().any(says) {
                    self.add(value);
                }
            }
            let is_end = |byte: &u8| byte.is_ascii_whitespace() || b"\"'=:,{}\\".contains(byte);
            for word in line.split(is_end).filter(|word| word.len() >= KEY_BYTES_MIN) {
                if word.iter().any(u8::is_ascii_digit) && word.iter().any(u8::is_ascii_alphabetic) {
                    self.add(word);
                }
            }
        }
    }

    /// The same bytes without secrets.
    fn take_out(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        for secret in &self.0 {
            bytes = replaced(&bytes, secret);
        }
        without_user(&bytes)
    }
}

fn read_secret(path: &Path) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::new());
    if let Ok(file) = fs::File::open(path) {
        // What cannot be read cannot be in a part either.
        let _ = file.take(SECRET_FILE_BYTES_MAX).read_to_end(&mut bytes);
    }
    bytes
}

fn replaced(bytes: &[u8], secret: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(secret.len()).position(|window| window == secret) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(SECRET);
        rest = &rest[at + secret.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// Takes user and password out of URLs.
fn without_user(bytes: &[u8]) -> Vec<u8> {
    const MARK: &[u8] = b"://";
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(MARK.len()).position(|window| window == MARK) {
        let (before, behind) = rest.split_at(at + MARK.len());
        out.extend_from_slice(before);
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || b"/\"'@".contains(byte);
        let end = behind.iter().position(is_end);
        rest = match end.filter(|&end| behind[end] == b'@') {
            Some(end) => {
                out.extend_from_slice(SECRET);
                &behind[end..]
            }
            None => behind,
        };
    }
    out.extend_from_slice(rest);
    out
}

/// Collects the parts and makes the file; compressed unless a plain tar is wanted. `secs` is the time that it says.
///
/// # Errors
/// There is no memory to compress it.
pub fn gather(wanted: &[Wanted], secrets: &Secrets, is_plain: bool, secs: i64) -> Result<Bundle, Failure> {
    let wanted = &wanted[..wanted.len().min(PARTS_MAX)];
    let (next, found) = (Mutex::new(0), Mutex::new(vec![Vec::new(); wanted.len()]));
    let lock = |number: &Mutex<usize>| {
        let mut next = number.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *next += 1;
        *next - 1
    };
    std::thread::scope(|scope| {
        for _ in 0..COMMANDS_MAX {
            scope.spawn(|| {
                while let Some((nth, part)) = Some(lock(&next)).and_then(|nth| Some((nth, wanted.get(nth)?)))
                {
                    let bytes = secrets.take_out(contents(&part.source));
                    found.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[nth] = bytes;
                }
            });
        }
    });
    let found = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut tar = Vec::new();
    let mut parts = Vec::with_capacity(wanted.len());
    for (part, bytes) in wanted.iter().zip(found) {
        let name = format!("windlass-support/{}", part.name);
        append(&mut tar, &name, &bytes, secs);
        parts.push((part.name.clone(), bytes.len()));
    }
    tar.resize(tar.len() + 2 * TAR_BLOCK_BYTES, 0);
    let bytes = if is_plain { tar } else { compressed(&tar)? };
    Ok(Bundle { bytes, parts })
}

fn compressed(tar: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut out = vec![0; zstd_safe::compress_bound(tar.len())];
    let len = zstd_safe::compress(&mut out[..], tar, ZSTD_LEVEL)
        .map_err(|_| Failure::new("the bundle cannot be compressed; name a file that ends in .tar"))?;
    out.truncate(len);
    Ok(out)
}

/// A file of a tar archive.
fn append(tar: &mut Vec<u8>, name: &str, bytes: &[u8], secs: i64) {
    let mut head = [0_u8; TAR_BLOCK_BYTES];
    let mut put = |at: usize, text: &[u8]| head[at..at + text.len()].copy_from_slice(text);
    put(0, &name.as_bytes()[..name.floor_char_boundary(99)]);
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", bytes.len()).as_bytes());
    put(136, format!("{:011o}\0", secs.clamp(0, 0o77_777_777_777)).as_bytes());
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = head.iter().map(|&byte| u32::from(byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend_from_slice(&head);
    tar.extend_from_slice(bytes);
    tar.resize(tar.len().next_multiple_of(TAR_BLOCK_BYTES), 0);
}

fn contents(source: &Source) -> Vec<u8> {
    let mut bytes = Vec::new();
    let note = match source {
        Source::Text(text) => {
            bytes.extend_from_slice(text.as_bytes());
            None
        }
        Source::File(path) => fs::File::open(path)
            .and_then(|file| file.take(PART_BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
            .err()
            .map(|error| format!("({}: {error})", path.display())),
        Source::Command(words) => output(words, &mut bytes).err().map(|failure| format!("({failure})")),
    };
    if bytes.len() > PART_BYTES_MAX {
        bytes.truncate(PART_BYTES_MAX);
        bytes.extend_from_slice(format!("\n(cut after {PART_BYTES_MAX} bytes, PART_BYTES_MAX)\n").as_bytes());
    }
    if let Some(note) = note {
        bytes.extend_from_slice(format!("{note}\n").as_bytes());
    }
    bytes
}

/// What this program prints when it is called so.
fn output(words: &[OsString], bytes: &mut Vec<u8>) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::at("cannot run it", error);
    let (mut reader, writer) = pipe().map_err(failed)?;
    let mut command = Command::new("/proc/self/exe");
    command.args(words).env(logger::CONSOLE_VARIABLE, "1").stdin(Stdio::null());
    command.stdout(writer.try_clone().map_err(failed)?).stderr(writer);
    let mut process = command.spawn().map_err(failed)?;
    drop(command);
    let until_ns = HostClock.boot_ns().saturating_add(COMMAND_NS);
    let mut part = [0; 4096];
    let ended = loop {
        let left_ms = until_ns.saturating_sub(HostClock.boot_ns()) / 1_000_000;
        let mut polled = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        let wait = PollTimeout::try_from(left_ms).unwrap_or(PollTimeout::MAX);
        match poll(&mut polled, wait) {
            Ok(0) => break Err(Failure::new(format_args!("not within {} s", COMMAND_NS / 1_000_000_000))),
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(errno) => break Err(Failure::at("cannot wait for it", errno.desc())),
        }
        match reader.read(&mut part) {
            Ok(0) => break Ok(()),
            Ok(_) if bytes.len() > PART_BYTES_MAX => break Ok(()),
            Ok(count) => bytes.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => break Err(failed(error)),
        }
    };
    if ended.is_err() || bytes.len() > PART_BYTES_MAX {
        // It may have ended by itself.
        let _ = process.kill();
    }
    let status = process.wait().map_err(failed)?;
    ended?;
    if status.success() { Ok(()) } else { Err(Failure::new(format_args!("it ended with {status}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out() {
        let mut secrets = Secrets::default();
        secrets.add(b" hunter2 \n");
        secrets.add(b"abc");
        let said = secrets.take_out(b"a hunter2hunter2 b abc s3://u:pw@host/x http://host/y@z".to_vec());
        assert_eq!(said, b"a (secret)(secret) b abc s3://(secret)@host/x http://host/y@z");
    }

    #[test]
    fn files_of_credentials_say_what_is_secret() {
        let path = std::env::temp_dir().join(format!("windlass-support-{}", std::process::id()));
        fs::write(&path, "[default]\naws_secret_access_key = testing\nregion = eu-central-1\n\"x\": \"AKIA0123456789ABCDEF\",\n").unwrap();
        let mut secrets = Secrets::default();
        secrets.add_credentials(&path);
        fs::remove_file(&path).unwrap();
        assert_eq!(
            secrets.take_out(b"testing eu-central-1 AKIA0123456789ABCDEF".to_vec()),
            b"(secret) eu-central-1 (secret)"
        );
    }

    #[test]
    fn a_bundle_is_bounded_and_says_what_was_cut() {
        let long = "x".repeat(PART_BYTES_MAX + 100);
        let wanted: Vec<Wanted> = (0..40)
            .map(|n| {
                Wanted::new(
                    format!("{n}.txt"),
                    Source::Text(if n == 3 { long.clone() } else { "a".to_owned() }),
                )
            })
            .collect();
        let bundle = gather(&wanted, &Secrets::default(), true, 1).unwrap();
        assert_eq!(bundle.parts.len(), PARTS_MAX);
        assert!(bundle.parts[3].1 > PART_BYTES_MAX && bundle.parts[3].1 < PART_BYTES_MAX + 100);
        assert_eq!(bundle.bytes.len() % TAR_BLOCK_BYTES, 0);
        let none = [Wanted::new("none", Source::File("/none/such".into()))];
        let bundle = gather(&none, &Secrets::default(), true, 1).unwrap();
        assert!(String::from_utf8_lossy(&bundle.bytes).contains("(/none/such: No such file"));
    }
}
