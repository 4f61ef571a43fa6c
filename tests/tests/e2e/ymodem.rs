//! The sender of YMODEM against the receiver of lrzsz, which was written without it, over a line that flips bits.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use windlass_agent::console::ymodem::{Fault, Sender, Transfer};
use windlass_hal::clock::{Clock, SystemClock};
use windlass_tests::privilege::skip;
use windlass_tests::prng::Prng;
use windlass_tests::workdir::Workdir;

const RECEIVER: &str = "rb";

fn has_receiver(test: &str) -> bool {
    let there = Command::new(RECEIVER).arg("--version").output().is_ok();
    if !there {
        skip(test, "rb (package lrzsz) is missing");
    }
    there
}

/// Sends a file to `rb` in `dir`; one of `flip_every` bytes each way has a wrong bit, 0: none.
fn send(dir: &Path, name: &str, file: &[u8], flip_every: u64) -> Transfer {
    let mut receiver = Command::new(RECEIVER);
    receiver.current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut receiver = receiver.spawn().unwrap();
    let (mut to, mut from) = (receiver.stdin.take().unwrap(), receiver.stdout.take().unwrap());
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let mut byte = [0];
        while from.read(&mut byte).is_ok_and(|count| count == 1) && tell.send(byte[0]).is_ok() {}
    });
    let mut p = Prng::new(7);
    let mut damaged =
        |byte: u8| if flip_every > 0 && p.below(flip_every) == 0 { byte ^ (1 << p.below(8)) } else { byte };
    let begun = SystemClock.now().as_ns();
    let now_ms = || (SystemClock.now().as_ns() - begun) / 1_000_000;
    let mut sender = Sender::new(0);
    loop {
        let bytes: Vec<u8> = sender.output().iter().map(|&byte| damaged(byte)).collect();
        // A receiver that has all of it is gone.
        let _ = to.write_all(&bytes);
        sender.sent(bytes.len(), now_ms());
        if sender.transfer() != Transfer::Going {
            break;
        }
        match told.recv_timeout(Duration::from_millis(100)) {
            Ok(byte) => sender.feed(damaged(byte), name, file, now_ms()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => SystemClock.sleep(Duration::from_millis(10)),
        }
        sender.turn(now_ms());
    }
    drop(to);
    let _ = receiver.wait();
    sender.transfer()
}

#[test]
fn a_receiver_of_others_gets_the_same_file() {
    if !has_receiver("a_receiver_of_others_gets_the_same_file") {
        return;
    }
    let work = Workdir::new("ymodem").unwrap();
    let mut p = Prng::new(1);
    // Every byte is among them, those too that stop or end something.
    for (size, flip_every) in [(0, 0), (1, 0), (1024, 0), (5000, 0), (300_000, 0), (100_000, 20_000)] {
        let file: Vec<u8> = (0..size).map(|_| p.next_u64() as u8).collect();
        let name = format!("bundle-{size}-{flip_every}");
        assert_eq!(send(work.path(), &name, &file, flip_every), Transfer::Done, "{name}");
        assert_eq!(std::fs::read(work.join(&name)).unwrap(), file, "{name}");
    }
}

#[test]
fn a_receiver_that_goes_away_ends_the_transfer() {
    let mut sender = Sender::new(0);
    sender.feed(b'C', "x", b"y", 0);
    sender.feed(0x18, "x", b"y", 0);
    sender.feed(0x18, "x", b"y", 0);
    assert_eq!(sender.transfer(), Transfer::Failed(Fault::Cancelled));
}
