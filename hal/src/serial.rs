//! A line to a terminal: a serial port, or the terminal at which the program was started.
//!
//! | call | what |
//! |---|---|
//! | [`Tty::open`] | a port by its path: raw, with the speed and the flow control that are asked for; never waited for |
//! | [`Tty::of_process`] | standard input and output: raw if they are a terminal, else as they are |
//! | [`Tty::read`] | what came: bytes, a break, or that the line hung up |
//! | [`Tty::write`] | as many bytes as the line takes now |
//!
//! A port that hung up is dropped and opened again by the caller: a USB adapter comes back as another device.
//!
//! Invariants: what was set before is set again when it is dropped; a port that has no hardware behind it (`tcgetattr` fails) is refused when
//! it is opened. Neither call on a port waits. Does not: know what is typed. Source: termios(3), "PARMRK"; tty_ioctl(4).

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc::{O_NOCTTY, O_NONBLOCK};
use nix::sys::termios::{
    ControlFlags, FlushArg, InputFlags, SetArg, SpecialCharacterIndices, Termios, cfmakeraw, tcflush,
    tcgetattr, tcsetattr,
};
use rustix::termios::{self, OptionalActions};

/// Bytes that one call reads at most.
pub const READ_BYTES: usize = 256;

/// How a port is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Bits a second; `None`: as it is.
    pub baud: Option<Baud>,
    /// Each side may stop the other by XOFF.
    pub flow: bool,
    /// The port hangs up when the other side takes carrier detect away. Cables with three wires have none.
    pub modem: bool,
}

/// Speeds that serial consoles have, in bits a second.
const SPEEDS: [u32; 11] =
    [1_200, 2_400, 4_800, 9_600, 19_200, 38_400, 57_600, 115_200, 230_400, 460_800, 921_600];

/// One of the speeds that serial consoles have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Baud(u32);

impl Baud {
    /// The speed of so many bits a second, if ports have it.
    #[must_use]
    pub fn of(bits_per_s: u32) -> Option<Baud> {
        SPEEDS.contains(&bits_per_s).then_some(Baud(bits_per_s))
    }
}

/// What came over a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// A break. What came before it was given already.
    Break,
    /// The line is no more: drop it.
    HungUp,
}

/// See the module.
#[derive(Debug)]
pub struct Tty {
    input: File,
    output: File,
    /// What was set before.
    before: Option<Termios>,
    marks: Marks,
    is_port: bool,
    /// As it was in the begin: a line that hung up is no terminal any more.
    is_terminal: bool,
}

/// A port marks a break as `ff 00 00`, a byte with a wrong frame as `ff 00 byte`, and a byte `ff` as two of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Marks {
    #[default]
    None,
    First,
    Second,
    /// A break was read; tell it when the bytes before it were given.
    Break,
}

impl Marks {
    /// Takes marks out of bytes, in place; how many bytes stay.
    fn take(&mut self, bytes: &mut [u8]) -> usize {
        let mut kept = 0;
        for at in 0..bytes.len() {
            let byte = bytes[at];
            let plain = match (*self, byte) {
                (Marks::None | Marks::Break, 0xff) => {
                    *self = if *self == Marks::Break { Marks::Break } else { Marks::First };
                    continue;
                }
                (Marks::None, _) => Some(byte),
                (Marks::First, 0) => {
                    *self = Marks::Second;
                    continue;
                }
                (Marks::First, _) => Some(byte),
                (Marks::Second, 0) => {
                    *self = Marks::Break;
                    // What was typed before a break counts no more.
                    kept = 0;
                    continue;
                }
                // A byte that came damaged.
                (Marks::Second, _) => None,
                (Marks::Break, _) => continue,
            };
            *self = Marks::None;
            if let Some(byte) = plain {
                bytes[kept] = byte;
                kept += 1;
            }
        }
        kept
    }
}

impl Tty {
    /// Opens a port.
    ///
    /// # Errors
    /// It cannot be opened, or there is no hardware behind it.
    pub fn open(path: &Path, settings: &Settings) -> io::Result<Tty> {
        let input = File::options().read(true).write(true).custom_flags(O_NOCTTY | O_NONBLOCK).open(path)?;
        let output = input.try_clone()?;
        let before = tcgetattr(&input)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        let marks = InputFlags::PARMRK;
        let ignored = InputFlags::IGNBRK | InputFlags::BRKINT | InputFlags::IGNPAR;
        raw.input_flags = (raw.input_flags | marks) & !ignored;
        raw.input_flags.set(InputFlags::IXON | InputFlags::IXOFF, settings.flow);
        raw.control_flags |= ControlFlags::CREAD;
        raw.control_flags.set(ControlFlags::CLOCAL, !settings.modem);
        raw.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        raw.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        tcsetattr(&input, SetArg::TCSANOW, &raw)?;
        if let Some(Baud(speed)) = settings.baud {
            let mut now = termios::tcgetattr(&input)?;
            now.set_speed(speed)?;
            termios::tcsetattr(&input, OptionalActions::Now, &now)?;
        }
        Ok(Tty { input, output, before: Some(before), marks: Marks::None, is_port: true, is_terminal: true })
    }

    /// The terminal of the process, or what it reads from and writes to.
    ///
    /// # Errors
    /// There is no standard input or output.
    pub fn of_process() -> io::Result<Tty> {
        let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let before = if input.is_terminal() { Some(tcgetattr(&input)?) } else { None };
        if let Some(before) = &before {
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            tcsetattr(&input, SetArg::TCSANOW, &raw)?;
        }
        let is_terminal = before.is_some() && output.is_terminal();
        Ok(Tty { input, output, before, marks: Marks::None, is_port: false, is_terminal })
    }

    /// Whether a person may sit there.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// To wait until something came.
    #[must_use]
    pub fn input(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    /// To wait until something can be written.
    #[must_use]
    pub fn output(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }

    /// Takes what came, at most [`READ_BYTES`].
    ///
    /// # Errors
    /// The line fails in a way that is no end of it.
    pub fn read(&mut self, bytes: &mut [u8; READ_BYTES]) -> io::Result<Heard> {
        if self.marks == Marks::Break {
            self.marks = Marks::None;
            return Ok(Heard::Break);
        }
        loop {
            match self.input.read(bytes) {
                Ok(0) => return Ok(Heard::HungUp),
                Ok(count) if !self.is_port => return Ok(Heard::Bytes(count)),
                Ok(count) => {
                    let kept = self.marks.take(&mut bytes[..count]);
                    if self.marks == Marks::Break {
                        return self.read(bytes);
                    }
                    return Ok(if kept == 0 { Heard::Nothing } else { Heard::Bytes(kept) });
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Heard::Nothing),
                Err(error) if is_hung_up(&error) => return Ok(Heard::HungUp),
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes what the line takes now; how many bytes that were.
    ///
    /// # Errors
    /// The line fails or hung up.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.output.write(bytes) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
            other => other,
        }
    }
}

/// How a terminal that is gone fails.
fn is_hung_up(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(nix::libc::EIO | nix::libc::ENXIO | nix::libc::ENODEV))
}

impl Drop for Tty {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            if self.is_port {
                // A line that is stopped would keep its last bytes, and the one who closes it, for good.
                let _ = tcflush(&self.output, FlushArg::TCOFLUSH);
            }
            // Nothing better can be done about a line that is gone.
            let _ = tcsetattr(&self.input, SetArg::TCSANOW, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(parts: &[&[u8]]) -> (Vec<u8>, Marks) {
        let (mut marks, mut all) = (Marks::None, Vec::new());
        for part in parts {
            let mut bytes = part.to_vec();
            let kept = marks.take(&mut bytes);
            all.extend_from_slice(&bytes[..kept]);
        }
        (all, marks)
    }

    #[test]
    fn marks_are_taken_out_however_they_are_cut() {
        assert_eq!(taken(&[b"ab\xff\xffc"]), (b"ab\xffc".to_vec(), Marks::None));
        assert_eq!(taken(&[b"ab\xff", b"\xffc"]), (b"ab\xffc".to_vec(), Marks::None));
        // A byte with a wrong frame is lost, and no more than that.
        assert_eq!(taken(&[b"a\xff\0xb"]), (b"ab".to_vec(), Marks::None));
        assert_eq!(taken(&[b"a\xff", b"\0", b"xb"]), (b"ab".to_vec(), Marks::None));
        for cut in 0..=4 {
            let (before, after) = b"a\xff\0\0".split_at(cut);
            assert_eq!(taken(&[before, after]).1, Marks::Break);
        }
    }

    #[test]
    fn speeds_are_those_of_ports() {
        assert!(Baud::of(115_200).is_some() && Baud::of(9_600).is_some());
        assert_eq!(Baud::of(115_201), None);
    }
}
