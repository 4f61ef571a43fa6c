//! A passphrase from the terminal, without echo.
//!
//! Invariants: the terminal is as before afterwards, also when reading failed; the passphrase is wiped on drop.
//! Source: termios(3).

use std::fs::File;
use std::io::{self, Read, Write};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use windlass_agent::format::wrap::Passphrase;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::logger;

/// Longest passphrase in bytes.
const PASSPHRASE_BYTES_MAX: u64 = 1024;

/// Asks for a passphrase on the controlling terminal; `None` when there is none.
pub fn passphrase(question: &str) -> Result<Option<Passphrase>, Failure> {
    Ok(typed(question)?.map(|line| Passphrase::new(line.to_vec())))
}

/// Asks for a line that is not shown; `None` when there is no terminal.
pub fn typed(question: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    if logger::is_of_console() {
        return Ok(None);
    }
    let Ok(mut tty) = File::options().read(true).write(true).open("/dev/tty") else { return Ok(None) };
    let failed = |error: io::Error| Failure::at("the terminal", error);
    write!(tty, "{question}: ").map_err(failed)?;
    let line = {
        let _quiet = Quiet::new(&tty).map_err(failed)?;
        read_line(&mut &tty).map_err(failed)?
    };
    writeln!(tty).map_err(failed)?;
    if line.is_empty() {
        return Err(Failure::new("no passphrase was typed"));
    }
    Ok(Some(line))
}

/// Echo off for as long as it lives.
struct Quiet<'a> {
    tty: &'a File,
    before: Termios,
}

impl Quiet<'_> {
    fn new(tty: &File) -> io::Result<Quiet<'_>> {
        let before = tcgetattr(tty)?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(tty, SetArg::TCSAFLUSH, &quiet)?;
        Ok(Quiet { tty, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // Nothing better can be done about a terminal that went away.
        let _ = tcsetattr(self.tty, SetArg::TCSAFLUSH, &self.before);
    }
}

/// One line, byte by byte, so that nothing of it stays in a buffer that nobody wipes.
fn read_line(from: &mut impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(PASSPHRASE_BYTES_MAX as usize));
    let mut byte = [0];
    while (line.len() as u64) < PASSPHRASE_BYTES_MAX && from.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    Ok(line)
}
