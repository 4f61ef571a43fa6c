//! A file to the other end of a line: the sender of YMODEM, with blocks of 1024 bytes and CRC-16.
//!
//! ```text
//!  receiver: C        ACK C     ACK    NAK    ACK       ACK/NAK   ACK C          ACK
//!  sender:     head         1      2      2      ... EOT       EOT      empty head   done
//! ```
//!
//! Invariants: nothing is sent but a block, an EOT or a cancel; a block that is not acknowledged is sent again, [`TRIES_MAX`] times in a row at
//! most; two CAN in a row, and nothing else that a damaged byte can be made of, end the transfer. All memory is this structure. Does not: read
//! the file (the caller has it), know the line, or go on in the middle: a transfer that was cut begins anew.
//! Source: Chuck Forsberg, "XMODEM/YMODEM Protocol Reference", 1988.

use std::fmt;

/// Bytes of a block.
const BLOCK_BYTES: usize = 1024;
/// Bytes of a short one: the head, and the end of the file.
const SHORT_BYTES: usize = 128;
/// Mark, number, its complement, and the checksum behind.
const FRAME_BYTES: usize = 5;
/// For how long an answer is waited for, in milliseconds: the receiver asks again after 10 s by itself.
const ANSWER_MS: u64 = 12_000;
/// For how long a person has time to start the receiver, in milliseconds.
const START_MS: u64 = 60_000;
/// How often a block is sent before the line counts as broken.
pub const TRIES_MAX: u32 = 12;

const SOH: u8 = 1;
const STX: u8 = 2;
const EOT: u8 = 4;
const ACK: u8 = 6;
const NAK: u8 = 0x15;
const CAN: u8 = 0x18;
/// What fills up a last block.
const FILL: u8 = 0x1a;

/// How a transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// It goes on.
    Going,
    /// The receiver has all of it.
    Done,
    /// It ended.
    Failed(Fault),
}

/// Why a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No receiver was started.
    NoReceiver,
    /// The receiver, or the person, ended it.
    Cancelled,
    /// A block was not acknowledged.
    Line,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NoReceiver => write!(f, "no YMODEM receiver was started within {} s", START_MS / 1000),
            Fault::Cancelled => write!(f, "the receiver cancelled the transfer"),
            Fault::Line => {
                write!(f, "the line is broken: a block was sent {TRIES_MAX} times and not acknowledged")
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// For the first C.
    Start,
    /// For the acknowledgement of the head, and then for a C.
    Head {
        acked: bool,
    },
    /// For that of the block from this byte on.
    Data(usize),
    Eot,
    /// For a C, and then for the acknowledgement of the empty head.
    Tail {
        sent: bool,
    },
    Over(Transfer),
}

/// See the module.
#[derive(Debug)]
pub struct Sender {
    state: State,
    frame: [u8; BLOCK_BYTES + FRAME_BYTES],
    len: usize,
    /// Bytes of the frame that were sent.
    sent: usize,
    /// Block number of the frame.
    number: u8,
    tries: u32,
    cancels: u8,
    since_ms: u64,
}

/// CRC-16 of XMODEM: polynomial 0x1021, begin 0.
fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, &byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

impl Sender {
    /// Waits for a receiver.
    #[must_use]
    pub fn new(now_ms: u64) -> Sender {
        let frame = [0; BLOCK_BYTES + FRAME_BYTES];
        Sender {
            state: State::Start,
            frame,
            len: 0,
            sent: 0,
            number: 0,
            tries: 0,
            cancels: 0,
            since_ms: now_ms,
        }
    }

    /// Bytes for the line.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.frame.get(self.sent..self.len).unwrap_or_default()
    }

    /// So many of them are sent.
    pub fn sent(&mut self, bytes: usize, now_ms: u64) {
        self.sent += bytes;
        // A slow line needs its time for a block.
        self.since_ms = now_ms;
    }

    /// How it is.
    #[must_use]
    pub fn transfer(&self) -> Transfer {
        match self.state {
            State::Over(transfer) => transfer,
            _ => Transfer::Going,
        }
    }

    /// Bytes of the file that were acknowledged.
    #[must_use]
    pub fn acknowledged(&self, size: usize) -> usize {
        match self.state {
            State::Start | State::Head { .. } => 0,
            State::Data(at) => at,
            State::Eot | State::Tail { .. } | State::Over(_) => size,
        }
    }

    /// The person wants no more of it.
    pub fn cancel(&mut self) {
        self.fail(Fault::Cancelled);
    }

    fn fail(&mut self, fault: Fault) {
        if !matches!(self.state, State::Over(_)) {
            self.state = State::Over(Transfer::Failed(fault));
            // What the receiver understands, whatever it waits for.
            self.frame[..8].fill(CAN);
            (self.len, self.sent) = (8, 0);
        }
    }

    /// A byte from the line; `name` and `file` are always the same.
    pub fn feed(&mut self, byte: u8, name: &str, file: &[u8], now_ms: u64) {
        self.cancels = if byte == CAN { self.cancels + 1 } else { 0 };
        if self.cancels >= 2 {
            return self.fail(Fault::Cancelled);
        }
        // An answer comes to what was sent; what comes before that is an echo or an old one.
        if !self.output().is_empty() {
            return;
        }
        match (self.state, byte) {
            (State::Start, b'C') => {
                self.head(name, file.len());
                self.go(State::Head { acked: false }, now_ms);
            }
            (State::Head { acked: false }, ACK) => self.go_quietly(State::Head { acked: true }, now_ms),
            (State::Head { acked: true }, b'C' | NAK) => self.data(0, file, now_ms),
            // A receiver that asks again did not get it.
            (State::Head { acked: false }, b'C' | NAK) => self.again(now_ms),
            (State::Data(at), ACK) => self.data(at + self.payload(), file, now_ms),
            (State::Data(_), NAK) => self.again(now_ms),
            (State::Eot, ACK) => self.go_quietly(State::Tail { sent: false }, now_ms),
            (State::Eot, NAK) => self.again(now_ms),
            (State::Tail { sent: false }, b'C') => {
                self.frame[3..3 + SHORT_BYTES].fill(0);
                self.seal(0, SHORT_BYTES);
                self.go(State::Tail { sent: true }, now_ms);
            }
            (State::Tail { sent: true }, ACK) => self.state = State::Over(Transfer::Done),
            (State::Tail { sent: true }, NAK | b'C') => self.again(now_ms),
            _ => {}
        }
    }

    /// Time went by.
    pub fn turn(&mut self, now_ms: u64) {
        let waited = now_ms.saturating_sub(self.since_ms);
        match self.state {
            State::Start if waited > START_MS => self.fail(Fault::NoReceiver),
            // The receiver has all of the file, and left.
            State::Tail { .. } if waited > ANSWER_MS => self.state = State::Over(Transfer::Done),
            State::Head { acked: true } if waited > START_MS => self.fail(Fault::Line),
            State::Head { acked: false } | State::Data(_) | State::Eot if waited > ANSWER_MS => {
                self.again(now_ms);
            }
            _ => {}
        }
    }

    fn go(&mut self, state: State, now_ms: u64) {
        (self.sent, self.tries) = (0, 1);
        self.go_quietly(state, now_ms);
    }

    fn go_quietly(&mut self, state: State, now_ms: u64) {
        (self.state, self.since_ms) = (state, now_ms);
    }

    fn again(&mut self, now_ms: u64) {
        if self.tries >= TRIES_MAX {
            return self.fail(Fault::Line);
        }
        self.tries += 1;
        (self.sent, self.since_ms) = (0, now_ms);
    }

    /// Bytes of the frame that are payload.
    fn payload(&self) -> usize {
        self.len - FRAME_BYTES
    }

    fn head(&mut self, name: &str, size: usize) {
        let mut at = 0;
        let payload = &mut self.frame[3..3 + SHORT_BYTES];
        payload.fill(0);
        let mut digits = [0; 20];
        let mut from = digits.len();
        let mut rest = size;
        while rest > 0 || from == digits.len() {
            from -= 1;
            // A digit.
            digits[from] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let name = &name.as_bytes()[..name.floor_char_boundary(SHORT_BYTES - 24)];
        for part in [name, &[0], &digits[from..]] {
            payload[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        self.seal(0, SHORT_BYTES);
    }

    /// Sends the block from a byte on, or the end.
    fn data(&mut self, at: usize, file: &[u8], now_ms: u64) {
        let rest = file.get(at..).unwrap_or_default();
        if rest.is_empty() {
            (self.frame[0], self.len) = (EOT, 1);
            return self.go(State::Eot, now_ms);
        }
        let block = if rest.len() > SHORT_BYTES { BLOCK_BYTES } else { SHORT_BYTES };
        let have = rest.len().min(block);
        self.frame[3..3 + have].copy_from_slice(&rest[..have]);
        self.frame[3 + have..3 + block].fill(FILL);
        let number = if at == 0 { 1 } else { self.number.wrapping_add(1) };
        self.seal(number, block);
        self.go(State::Data(at), now_ms);
    }

    fn seal(&mut self, number: u8, payload: usize) {
        self.frame[0] = if payload == BLOCK_BYTES { STX } else { SOH };
        (self.frame[1], self.frame[2]) = (number, !number);
        let crc = crc(&self.frame[3..3 + payload]).to_be_bytes();
        self.frame[3 + payload..FRAME_BYTES + payload].copy_from_slice(&crc);
        (self.number, self.len) = (number, payload + FRAME_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a receiver makes of frames: it answers as the reference says, and loses answers where it is told to.
    struct Receiver {
        sender: Sender,
        file: Vec<u8>,
        now_ms: u64,
    }

    impl Receiver {
        fn new(size: usize) -> Receiver {
            let file = (0..size).map(|at| (at * 7 % 251) as u8).collect();
            Receiver { sender: Sender::new(0), file, now_ms: 0 }
        }

        fn answer(&mut self, bytes: &[u8]) {
            bytes.iter().for_each(|&byte| self.sender.feed(byte, "bundle.tar.zst", &self.file, self.now_ms));
        }

        fn frame(&mut self) -> Vec<u8> {
            let frame = self.sender.output().to_vec();
            self.sender.sent(frame.len(), self.now_ms);
            if frame.len() > SHORT_BYTES {
                let payload = frame.len() - FRAME_BYTES;
                assert_eq!(frame[1], !frame[2]);
                assert_eq!(crc(&frame[3..3 + payload]).to_be_bytes(), frame[3 + payload..]);
            }
            frame
        }
    }

    #[test]
    fn the_checksum_is_that_of_the_reference() {
        assert_eq!(crc(b"123456789"), 0x31c3);
    }

    #[test]
    fn a_file_goes_block_by_block() {
        for size in [0, 1, 128, 129, 1024, 1025, 300_000] {
            let mut receiver = Receiver::new(size);
            assert!(receiver.frame().is_empty());
            receiver.answer(b"C");
            let head = receiver.frame();
            assert_eq!(&head[..3], [SOH, 0, 255]);
            assert!(head[3..].starts_with(format!("bundle.tar.zst\0{size}\0").as_bytes()));
            receiver.answer(&[ACK, b'C']);
            let (mut got, mut number) = (Vec::new(), 0_u8);
            loop {
                let frame = receiver.frame();
                if frame == [EOT] {
                    break;
                }
                number = number.wrapping_add(1);
                assert_eq!(frame[1], number);
                receiver.answer(&[NAK]);
                assert_eq!(receiver.frame(), frame);
                receiver.now_ms += ANSWER_MS + 1;
                receiver.sender.turn(receiver.now_ms);
                assert_eq!(receiver.frame(), frame);
                receiver.answer(b"x\x18y");
                got.extend_from_slice(&frame[3..frame.len() - 2]);
                receiver.answer(&[ACK]);
            }
            assert_eq!(got.get(..size), Some(&receiver.file[..]));
            receiver.answer(&[NAK]);
            assert_eq!(receiver.frame(), [EOT]);
            receiver.answer(&[ACK, b'C']);
            assert_eq!(receiver.frame()[3..3 + SHORT_BYTES], [0; SHORT_BYTES]);
            assert_eq!(receiver.sender.transfer(), Transfer::Going);
            receiver.answer(&[ACK]);
            assert_eq!(receiver.sender.transfer(), Transfer::Done);
        }
    }

    #[test]
    fn a_transfer_ends_for_each_reason() {
        let mut receiver = Receiver::new(5000);
        receiver.sender.turn(START_MS + 1);
        assert_eq!(receiver.sender.transfer(), Transfer::Failed(Fault::NoReceiver));
        let mut receiver = Receiver::new(5000);
        receiver.answer(b"C");
        let _ = receiver.frame();
        receiver.answer(&[CAN, CAN]);
        assert_eq!(receiver.sender.transfer(), Transfer::Failed(Fault::Cancelled));
        assert_eq!(receiver.frame(), [CAN; 8]);
        let mut receiver = Receiver::new(5000);
        receiver.answer(b"C");
        for _ in 1..TRIES_MAX {
            assert!(!receiver.frame().is_empty());
            receiver.answer(&[NAK]);
        }
        let _ = receiver.frame();
        receiver.answer(&[NAK]);
        assert_eq!(receiver.sender.transfer(), Transfer::Failed(Fault::Line));
    }
}
