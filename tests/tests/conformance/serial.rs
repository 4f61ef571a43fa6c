//! The serial port on pseudo terminals of the kernel, which have all of a port but its wires.
#![allow(clippy::unwrap_used, reason = "tests")]

use nix::sys::termios::{InputFlags, LocalFlags, tcgetattr};
use windlass_hal::serial::{Baud, Heard, READ_BYTES, Settings, Tty};
use windlass_tests::line::Line;
use windlass_tests::workdir::Workdir;

/// Bytes that a port hears, so many of them.
fn hear(tty: &mut Tty, count: usize) -> Vec<u8> {
    let (mut all, mut bytes) = (Vec::new(), [0; READ_BYTES]);
    while all.len() < count {
        if let Heard::Bytes(count) = tty.read(&mut bytes).unwrap() {
            all.extend_from_slice(&bytes[..count]);
        }
    }
    all
}

#[test]
fn every_byte_goes_both_ways_and_nothing_is_waited_for() {
    let work = Workdir::new("serial").unwrap();
    let path = work.join("line");
    let mut line = Line::new(&path);
    let before = tcgetattr(line.other()).unwrap();
    assert!(before.local_flags.contains(LocalFlags::ICANON));
    let settings = Settings { baud: Baud::of(9_600), ..Settings::default() };
    let mut tty = Tty::open(&path, &settings).unwrap();
    assert!(tty.is_terminal());
    assert_eq!(tty.read(&mut [0; READ_BYTES]).unwrap(), Heard::Nothing);
    let all: Vec<u8> = (0..=255).collect();
    line.send(&all);
    assert_eq!(hear(&mut tty, 256), all);
    assert_eq!(tty.write(&all).unwrap(), 256);
    while line.heard.len() < 256 {
        line.take();
    }
    assert_eq!(line.heard, all);
    let now = tcgetattr(line.other()).unwrap();
    assert_eq!(rustix::termios::tcgetattr(line.other()).unwrap().output_speed(), 9_600);
    assert!(!now.local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO));
    // More than the line has room for is not taken.
    while tty.write(&[b'x'; 1000]).unwrap() > 0 {}
    drop(tty);
    assert_eq!(tcgetattr(line.other()).unwrap().local_flags, before.local_flags);
}

#[test]
fn a_line_is_stopped_and_goes_on_by_xoff_and_xon() {
    let work = Workdir::new("serial").unwrap();
    let path = work.join("line");
    let mut line = Line::new(&path);
    let mut tty = Tty::open(&path, &Settings { flow: true, ..Settings::default() }).unwrap();
    assert!(tcgetattr(line.other()).unwrap().input_flags.contains(InputFlags::IXON | InputFlags::IXOFF));
    line.send(b"a\x13");
    assert_eq!(hear(&mut tty, 1), b"a");
    assert_eq!(tty.write(b"stopped").unwrap(), 0);
    line.send(b"\x11b");
    assert_eq!(hear(&mut tty, 1), b"b");
    assert_eq!(tty.write(b"goes on").unwrap(), 7);
    line.expect("goes on");
}

#[test]
fn a_line_that_is_gone_says_so_and_what_is_no_line_is_refused() {
    let work = Workdir::new("serial").unwrap();
    let path = work.join("line");
    let line = Line::new(&path);
    let mut tty = Tty::open(&path, &Settings::default()).unwrap();
    drop(line);
    assert_eq!(tty.read(&mut [0; READ_BYTES]).unwrap(), Heard::HungUp);
    drop(tty);
    std::fs::write(work.join("file"), "").unwrap();
    let refused = Tty::open(&work.join("file"), &Settings::default()).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(nix::libc::ENOTTY));
    assert!(Tty::open(&work.join("none"), &Settings::default()).is_err());
}
