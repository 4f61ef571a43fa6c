//! Bytes of a terminal as keys.
//!
//! | bytes | key |
//! |---|---|
//! | CR, LF, CR LF, CR NUL | [`Key::Enter`], once |
//! | `ESC [ A`, `ESC O A`, with parameters or without | cursor keys of vt100, xterm, PuTTY, Tera Term and Windows Terminal |
//! | `ESC [ 1 ~`, `ESC [ 7 ~`, `ESC [ H`, `ESC O H` | Home; End, Delete alike |
//! | `ESC [ 200 ~`, `ESC [ 201 ~`, function keys, what no table has | nothing |
//! | `ESC [ r ; c R` | [`Key::Position`]: the answer to a question of ours |
//! | UTF-8 | [`Key::Char`], when it is whole |
//! | UTF-8 that is cut or wrong | [`Key::Bad`], once for what is wrong; the byte that ended it counts by itself |
//!
//! Invariants: every sequence of bytes ends in keys, none is waited for longer than [`PAUSE_MS`], and none takes more memory than this
//! structure. Does not: know what a key is for. Source: ECMA-48; xterm, "PC-Style Function Keys"; RFC 3629.

/// Within this time the bytes of one key follow each other, in milliseconds: a byte takes 1 ms at 9,600 baud, and a network in between some
/// tens. What comes later begins a key of its own, so that a line which lost a byte swallows no more than one key.
pub const PAUSE_MS: u64 = 250;
/// Bytes of an escape sequence at most; a longer one is dropped.
const SEQUENCE_BYTES_MAX: u8 = 24;
/// Numbers of an escape sequence that are kept.
const NUMBERS_MAX: usize = 2;

/// What a person pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character that is shown.
    Char(char),
    /// The line is complete.
    Enter,
    /// Complete the word.
    Tab,
    /// Take away the character before the cursor.
    Backspace,
    /// Take away the character at the cursor.
    Delete,
    /// Cursor keys.
    Left,
    /// One character on.
    Right,
    /// The line before in the history.
    Up,
    /// The line after.
    Down,
    /// To the begin of the line.
    Home,
    /// To its end.
    End,
    /// To the begin of the word.
    WordLeft,
    /// Behind the word.
    WordRight,
    /// Take away all behind the cursor.
    KillEnd,
    /// All before it.
    KillBegin,
    /// The word before it.
    KillWord,
    /// Draw the line again.
    Redraw,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D.
    EndOfInput,
    /// Where the terminal says the cursor is: row and column, from 1.
    Position(u16, u16),
    /// Bytes that are no UTF-8.
    Bad,
}

/// UTF-8 from single bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8 {
    bytes: [u8; 4],
    have: u8,
    need: u8,
}

/// What a byte completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Nothing yet.
    More,
    /// A character.
    Char(char),
    /// The byte cannot be part of one, and neither can those before it that were kept.
    Wrong,
    /// Those before it were cut; give the same byte again.
    Cut,
}

impl Utf8 {
    /// Takes a byte.
    pub fn feed(&mut self, byte: u8) -> Decoded {
        if self.need == 0 {
            self.need = match byte {
                0..=0x7f => return Decoded::Char(char::from(byte)),
                0xc2..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xf4 => 4,
                _ => return Decoded::Wrong,
            };
            (self.bytes[0], self.have) = (byte, 1);
            return Decoded::More;
        }
        if byte & 0xc0 != 0x80 {
            self.reset();
            return Decoded::Cut;
        }
        self.bytes[usize::from(self.have)] = byte;
        self.have += 1;
        if self.have < self.need {
            return Decoded::More;
        }
        let whole = self.bytes;
        let text = std::str::from_utf8(&whole[..usize::from(self.need)]).ok();
        self.reset();
        text.and_then(|text| text.chars().next()).map_or(Decoded::Wrong, Decoded::Char)
    }

    /// Whether a character has begun.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.need != 0
    }

    /// Forgets what has begun.
    pub fn reset(&mut self) {
        *self = Utf8::default();
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    /// After a CR: an LF or NUL that follows belongs to it.
    Return,
    Escape,
    /// `ESC [`: numbers so far, and bytes.
    Sequence {
        numbers: [u16; NUMBERS_MAX],
        at: u8,
        bytes: u8,
        is_ours: bool,
    },
    /// `ESC O`.
    Single,
    /// `ESC [ [`: function keys of the Linux console.
    Console,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    state: State,
    utf8: Utf8,
    last_ms: u64,
}

impl Keys {
    /// Takes a byte at `now_ms`. Two keys at most: what the byte cut short, and what it is.
    pub fn feed(&mut self, byte: u8, now_ms: u64) -> [Option<Key>; 2] {
        let late = now_ms.saturating_sub(self.last_ms) > PAUSE_MS;
        self.last_ms = now_ms;
        let mut before = None;
        if late && !matches!(self.state, State::Ground | State::Return) {
            self.state = State::Ground;
        }
        if late && self.utf8.is_partial() {
            self.utf8.reset();
            before = Some(Key::Bad);
        }
        match self.state {
            State::Return if matches!(byte, b'\n' | 0) => {
                self.state = State::Ground;
                [before, None]
            }
            State::Ground | State::Return => {
                self.state = State::Ground;
                self.plain(byte, before)
            }
            _ => {
                let key = self.escaped(byte);
                // A control character ends a sequence and counts.
                if byte < 0x20 && byte != 0x1b {
                    self.state = State::Ground;
                    return self.plain(byte, key);
                }
                [before, key]
            }
        }
    }

    /// A new line, or one that was cut off: nothing has begun.
    pub fn reset(&mut self) {
        (self.state, self.utf8) = (State::Ground, Utf8::default());
    }

    fn plain(&mut self, byte: u8, before: Option<Key>) -> [Option<Key>; 2] {
        match self.utf8.feed(byte) {
            Decoded::More => [before, None],
            Decoded::Char(c) => [before, self.character(c)],
            Decoded::Wrong => [before, Some(Key::Bad)],
            Decoded::Cut => {
                let [_, key] = self.plain(byte, None);
                [Some(Key::Bad), key]
            }
        }
    }

    fn character(&mut self, c: char) -> Option<Key> {
        Some(match c {
            '\r' => {
                self.state = State::Return;
                Key::Enter
            }
            '\n' => Key::Enter,
            '\t' => Key::Tab,
            '\x1b' => {
                self.state = State::Escape;
                return None;
            }
            '\x01' => Key::Home,
            '\x02' => Key::Left,
            '\x03' => Key::Interrupt,
            '\x04' => Key::EndOfInput,
            '\x05' => Key::End,
            '\x06' => Key::Right,
            '\x08' | '\x7f' => Key::Backspace,
            '\x0b' => Key::KillEnd,
            '\x0c' => Key::Redraw,
            '\x0e' => Key::Down,
            '\x10' => Key::Up,
            '\x15' => Key::KillBegin,
            '\x17' => Key::KillWord,
            c if c.is_control() => return None,
            c => Key::Char(c),
        })
    }

    fn escaped(&mut self, byte: u8) -> Option<Key> {
        match (self.state, byte) {
            (_, 0x1b) => {
                self.state = State::Escape;
                None
            }
            (State::Escape, b'[') => {
                self.state = State::Sequence { numbers: [0; NUMBERS_MAX], at: 0, bytes: 0, is_ours: true };
                None
            }
            (State::Escape, b'O') => {
                self.state = State::Single;
                None
            }
            (State::Escape, _) => {
                self.state = State::Ground;
                match byte {
                    b'b' => Some(Key::WordLeft),
                    b'f' => Some(Key::WordRight),
                    0x7f => Some(Key::KillWord),
                    _ => None,
                }
            }
            (State::Sequence { bytes: 0, .. }, b'[') => {
                self.state = State::Console;
                None
            }
            (State::Sequence { numbers, at, bytes, is_ours }, _) => {
                self.sequence(byte, numbers, at, bytes, is_ours)
            }
            (State::Single, _) => {
                self.state = State::Ground;
                cursor(byte, false)
            }
            (State::Console | State::Ground | State::Return, _) => {
                self.state = State::Ground;
                None
            }
        }
    }

    fn sequence(
        &mut self,
        byte: u8,
        mut numbers: [u16; NUMBERS_MAX],
        mut at: u8,
        bytes: u8,
        mut is_ours: bool,
    ) -> Option<Key> {
        match byte {
            b'0'..=b'9' => {
                if let Some(number) = numbers.get_mut(usize::from(at)) {
                    *number = number.saturating_mul(10).saturating_add(u16::from(byte - b'0'));
                }
            }
            b';' | b':' => at = at.saturating_add(1),
            // Private and intermediate bytes: a sequence of which no key is made.
            0x20..=0x3f => is_ours = false,
            0x40..=0x7e => {
                self.state = State::Ground;
                return if is_ours { last(byte, numbers, at) } else { None };
            }
            // A byte of something else: the sequence was cut, and the byte is lost with it.
            _ => {
                self.state = State::Ground;
                return None;
            }
        }
        let bytes = bytes + 1;
        self.state = if bytes < SEQUENCE_BYTES_MAX {
            State::Sequence { numbers, at, bytes, is_ours }
        } else {
            State::Ground
        };
        None
    }
}

/// The key of `ESC [ numbers byte`.
fn last(byte: u8, numbers: [u16; NUMBERS_MAX], at: u8) -> Option<Key> {
    match byte {
        b'R' if at == 1 => Some(Key::Position(numbers[0], numbers[1])),
        b'~' => match numbers[0] {
            1 | 7 => Some(Key::Home),
            4 | 8 => Some(Key::End),
            3 => Some(Key::Delete),
            _ => None,
        },
        // 3, 5: Alt, Ctrl.
        _ => cursor(byte, at >= 1 && matches!(numbers[1], 3 | 5)),
    }
}

fn cursor(byte: u8, by_word: bool) -> Option<Key> {
    Some(match byte {
        b'A' => Key::Up,
        b'B' => Key::Down,
        b'C' if by_word => Key::WordRight,
        b'D' if by_word => Key::WordLeft,
        b'C' => Key::Right,
        b'D' => Key::Left,
        b'H' => Key::Home,
        b'F' => Key::End,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut keys = Keys::default();
        bytes.iter().flat_map(|&byte| keys.feed(byte, 0)).flatten().collect()
    }

    #[test]
    fn keys_of_many_terminals_are_the_same_keys() {
        use Key::{Delete, End, Home, Left, Right, Up, WordLeft, WordRight};
        // vt100 and xterm, application mode, PuTTY, rxvt, Windows Terminal and the Linux console.
        assert_eq!(keys(b"\x1b[A\x1bOA\x1b[D\x1bOD\x1b[1;1C"), [Up, Up, Left, Left, Right]);
        assert_eq!(keys(b"\x1b[H\x1bOH\x1b[1~\x1b[7~\x01"), [Home; 5]);
        assert_eq!(keys(b"\x1b[F\x1bOF\x1b[4~\x1b[8~\x05"), [End; 5]);
        assert_eq!(keys(b"\x1b[3~\x1b[3;5~"), [Delete, Delete]);
        assert_eq!(keys(b"\x1b[1;5D\x1b[1;3D\x1bb"), [WordLeft; 3]);
        assert_eq!(keys(b"\x1b[1;5C\x1bf"), [WordRight; 2]);
        assert_eq!(keys(b"\x08\x7f"), [Key::Backspace; 2]);
        // Function keys, a paste's brackets, colours, a mouse: nothing.
        assert_eq!(keys(b"\x1b[11~\x1bOP\x1b[[A\x1b[200~x\x1b[201~\x1b[?25h\x1b[<0;1;1M"), [Key::Char('x')]);
        assert_eq!(keys(b"\x1b[24;80R"), [Key::Position(24, 80)]);
    }

    #[test]
    fn a_line_ends_once() {
        assert_eq!(keys(b"\r\n\r\r\n\n\r\0"), [Key::Enter; 5]);
    }

    #[test]
    fn characters_that_are_cut_say_so_once_and_what_follows_counts() {
        let c = Key::Char;
        assert_eq!(keys("ä€😀".as_bytes()), [c('ä'), c('€'), c('😀')]);
        assert_eq!(keys(b"\xc3a"), [Key::Bad, c('a')]);
        assert_eq!(keys(b"\xe2\x82\xc3\xa4"), [Key::Bad, c('ä')]);
        assert_eq!(keys(b"\xff\x80"), [Key::Bad, Key::Bad]);
        // Surrogates, and too long forms, are no characters.
        assert_eq!(keys(b"\xed\xa0\x80"), [Key::Bad]);
        assert_eq!(keys(b"\xf4\xbf\xbf\xbf"), [Key::Bad]);
    }

    #[test]
    fn a_sequence_that_lost_its_end_swallows_one_key_at_most() {
        let mut keys = Keys::default();
        for byte in *b"\x1b[1" {
            assert_eq!(keys.feed(byte, 10), [None, None]);
        }
        assert_eq!(keys.feed(b'l', 10 + PAUSE_MS + 1), [None, Some(Key::Char('l'))]);
        assert_eq!(keys.feed(0xc3, 500), [None, None]);
        assert_eq!(keys.feed(b's', 500 + PAUSE_MS + 1), [Some(Key::Bad), Some(Key::Char('s'))]);
        // Enter ends a sequence at once, and a very long one is dropped.
        assert_eq!(keys.feed(0x1b, 900), [None, None]);
        assert_eq!(keys.feed(b'\r', 900), [None, Some(Key::Enter)]);
        let long = [&b"\x1b["[..], &[b'1'; 100]].concat();
        assert!(long.iter().flat_map(|&byte| keys.feed(byte, 900)).flatten().count() > 50);
    }
}
