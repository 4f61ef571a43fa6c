//! The screen at the other end of a line: prompt and edited text on one row, log lines above it, replies a page at a time.
//!
//! ```text
//!  draw(prompt, text, cursor) --+                       vt100:  the difference to what is on the row, by cursor motion
//!  log(line) -------------------+--> bytes that wait --> dumb:   the same by backspace and spaces; a log line begins a new row
//!  reply(bytes) ----------------+    (OUT_BYTES)        script: replies only
//! ```
//!
//! Invariants: on a terminal that got every byte, the last row is exactly what [`Screen::draw`] was given last, with the cursor where it was
//! said to be; that row never wraps. Log lines go first when the line is slow: each one that is left out is counted and told of. Text of others
//! cannot drive the terminal. Nothing is allocated, and no call waits. Does not: read keys, or know commands.
//! Source: ECMA-48; DEC VT100 User Guide, chapter 3.

use heapless::Vec;

use super::key::{Decoded, Utf8};

/// Bytes that wait for the line: a third of a second at 115,200 baud, so that what is typed is seen soon.
pub const OUT_BYTES: usize = 4096;
/// Bytes of them that only the row with the prompt takes: the widest one, drawn anew without cursor motion.
const DRAW_BYTES: usize = 2048;
/// Columns at most; a wider terminal is used up to here.
pub const COLUMNS_MAX: usize = 250;
/// And at least: a prompt, and some characters to see what is typed.
pub const COLUMNS_MIN: usize = 20;
/// Rows at least, for the pager.
pub const ROWS_MIN: usize = 4;
/// Of a terminal that does not say how large it is.
pub const SIZE_DEFAULT: (usize, usize) = (80, 24);
/// Bytes of a log line at most; the rest is cut.
pub const LOG_BYTES_MAX: usize = 400;
/// Log lines that are shown at once.
const LOG_BURST: u64 = 8;
/// Milliseconds for each one more: 4 a second are a tenth of the line at 9,600 baud.
const LOG_MS: u64 = 250;

/// What the terminal can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It moves the cursor when it is told to.
    Vt100,
    /// It knows CR, LF and backspace.
    Dumb,
    /// A program is at the other end: no echo, no prompt, no log, no pages.
    Script,
}

/// See the module.
#[derive(Debug)]
pub struct Screen {
    mode: Mode,
    columns: usize,
    rows: usize,
    out: Vec<u8, OUT_BYTES>,
    /// Bytes of `out` that are sent.
    sent: usize,
    /// What the row with the cursor shows, and the column of the cursor.
    row: Vec<char, COLUMNS_MAX>,
    at: usize,
    /// A reply's row that is not complete: its columns.
    column: usize,
    /// Rows of a reply since the last page.
    page: usize,
    utf8: Utf8,
    /// Log lines that may be shown, and since when that is so.
    tokens: u64,
    tokens_ms: u64,
    /// Log lines that were left out and not told of.
    left_out: u64,
}

/// Columns that a character takes on common terminals; 2 for what may.
fn width(c: char) -> usize {
    if u32::from(c) < 0x1100 { 1 } else { 2 }
}

/// Whether every terminal shows it in one column: Latin, Greek, Cyrillic.
pub(super) fn is_narrow(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{24f}' | '\u{370}'..='\u{482}' | '\u{48a}'..='\u{52f}')
}

/// Whether a terminal shows it and does nothing else.
fn is_shown(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        && !matches!(c, '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}' | '\u{feff}')
}

impl Screen {
    /// An empty row of a terminal of this size.
    #[must_use]
    pub fn new(mode: Mode, size: (usize, usize)) -> Screen {
        let mut screen = Screen {
            mode,
            columns: 0,
            rows: 0,
            out: Vec::new(),
            sent: 0,
            row: Vec::new(),
            at: 0,
            column: 0,
            page: 0,
            utf8: Utf8::default(),
            tokens: LOG_BURST,
            tokens_ms: 0,
            left_out: 0,
        };
        screen.resize(size);
        screen
    }

    /// What the terminal can do.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Columns and rows.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.columns, self.rows)
    }

    /// The terminal can do something else.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    /// The terminal is of this size: columns and rows.
    pub fn resize(&mut self, (columns, rows): (usize, usize)) {
        self.columns = columns.clamp(COLUMNS_MIN, COLUMNS_MAX);
        self.rows = rows.max(ROWS_MIN);
    }

    /// Bytes for the line.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.out.get(self.sent..).unwrap_or_default()
    }

    /// So many of them are sent.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent >= self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
    }

    /// Drops what waits; how many bytes that were. The row is not known any more.
    pub fn discard(&mut self) -> usize {
        let bytes = self.output().len();
        self.out.clear();
        (self.sent, self.at, self.column) = (0, 0, 0);
        self.row.clear();
        bytes
    }

    /// The row is drawn anew by the next [`Screen::draw`]: the line lost bytes, or doubled some.
    pub fn forget(&mut self) {
        match self.mode {
            Mode::Vt100 => self.put(b"\r\x1b[K"),
            Mode::Dumb => self.put(b"\r\n"),
            Mode::Script => {}
        }
        self.row.clear();
        self.at = 0;
    }

    fn room(&self) -> usize {
        OUT_BYTES - self.out.len() + self.sent
    }

    /// Whether all that one key can bring fits.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.room() >= DRAW_BYTES
    }

    /// Whether a line of a reply fits besides.
    fn has_room_for(&self, bytes: usize) -> bool {
        self.room() >= DRAW_BYTES + bytes
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.out.len() + bytes.len() > OUT_BYTES && self.sent > 0 {
            let rest = self.out.len() - self.sent;
            self.out.copy_within(self.sent.., 0);
            self.out.truncate(rest);
            self.sent = 0;
        }
        // Callers look for room first; what would not fit all the same is dropped as a whole.
        let _ = self.out.extend_from_slice(bytes);
    }

    fn put_char(&mut self, c: char) {
        self.put(c.encode_utf8(&mut [0; 4]).as_bytes());
    }

    /// The bell.
    pub fn bell(&mut self) {
        if self.mode != Mode::Script && self.has_room() {
            self.put(b"\x07");
        }
    }

    /// Shows this row, with the cursor at a byte of `text`; text that is too long is shown around the cursor. Whether there was room:
    /// otherwise call again when bytes were sent.
    pub fn draw(&mut self, prompt: &str, text: &str, cursor: usize) -> bool {
        if self.mode == Mode::Script {
            return true;
        }
        if !self.has_room() {
            return false;
        }
        let mut row = Vec::<char, COLUMNS_MAX>::new();
        let limit = self.columns - 1;
        let prompt_chars = prompt.chars().count();
        // A terminal that is too narrow for the prompt shows the text alone.
        let prompt = if prompt_chars + COLUMNS_MIN / 2 > limit { "" } else { prompt };
        let mut put = |c: char| row.push(if is_narrow(c) { c } else { '?' });
        for c in prompt.chars() {
            let _ = put(c);
        }
        let room = limit - prompt.chars().count();
        let count = text.chars().count();
        let before = text.get(..cursor).unwrap_or(text).chars().count();
        // By halves, so that not every key draws the whole row.
        let step = (room / 2).max(1);
        let from = if count <= room || before < room { 0 } else { ((before - room) / step + 1) * step };
        for c in text.chars().skip(from).take(room) {
            let _ = put(c);
        }
        let at = prompt.chars().count() + before - from;
        self.show(row, at);
        true
    }

    fn show(&mut self, row: Vec<char, COLUMNS_MAX>, at: usize) {
        let same = self.row.iter().zip(&row).take_while(|(old, new)| old == new).count();
        if same < row.len() || same < self.row.len() {
            self.go(same);
            row[same..].iter().for_each(|&c| self.put_char(c));
            self.at = row.len();
            let more = self.row.len().saturating_sub(row.len());
            if more > 0 && self.mode == Mode::Vt100 {
                self.put(b"\x1b[K");
            } else {
                (0..more).for_each(|_| self.put(b" "));
                self.at += more;
            }
            self.row = row;
        }
        self.go(at);
    }

    /// Moves the cursor along the row.
    fn go(&mut self, to: usize) {
        let back = self.at.saturating_sub(to);
        if back > 4 && self.mode == Mode::Vt100 {
            self.put(b"\x1b[");
            self.put_number(back);
            self.put(b"D");
        } else {
            (0..back).for_each(|_| self.put(b"\x08"));
        }
        for nth in self.at..to {
            // What is there is written once more: every terminal can do that.
            let c = self.row.get(nth).copied().unwrap_or(' ');
            self.put_char(c);
        }
        self.at = to;
    }

    fn put_number(&mut self, number: usize) {
        if number >= 10 {
            self.put_number(number / 10);
        }
        // A digit.
        self.put(&[b'0' + (number % 10) as u8]);
    }

    /// The row is complete: what comes is below it.
    pub fn end_row(&mut self) {
        if self.mode == Mode::Script {
            return;
        }
        self.put(b"\r\n");
        self.row.clear();
        self.at = 0;
    }

    /// Takes the row away, for what is to stand in its place.
    fn wipe(&mut self) {
        if self.row.is_empty() && self.at == 0 {
            return;
        }
        self.forget();
    }

    /// Asks the terminal for its size; the answer is a position.
    pub fn ask_size(&mut self) {
        self.put(b"\x1b7\x1b[999;999H\x1b[6n\x1b8");
    }

    /// Shows a line of the log above the row, unless there were too many, or the line is slow. Call [`Screen::draw`] afterwards.
    pub fn log(&mut self, line: &str, now_ms: u64) {
        self.earn(now_ms);
        let free = self.mode != Mode::Script && self.column == 0;
        if !free || self.tokens == 0 || self.left_out > 0 || !self.has_room_for(LOG_BYTES_MAX + 16) {
            self.left_out += 1;
            return;
        }
        self.tokens -= 1;
        self.put_line(line);
    }

    /// A line of the log cannot be shown now.
    pub fn leave_out(&mut self) {
        self.left_out += 1;
    }

    /// Tells how many lines of the log were left out, when that is possible again.
    pub fn turn(&mut self, now_ms: u64) {
        self.earn(now_ms);
        let free = self.mode != Mode::Script && self.column == 0;
        if self.left_out == 0 || !free || self.tokens < LOG_BURST / 2 || !self.has_room_for(128) {
            return;
        }
        self.tokens -= 1;
        let count = std::mem::take(&mut self.left_out);
        self.wipe();
        self.put(b"(");
        self.put_number(usize::try_from(count).unwrap_or(usize::MAX));
        self.put(b" lines of the log were left out here; 'tail' shows the last ones)\r\n");
    }

    /// Log lines that were left out and not told of yet.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    fn earn(&mut self, now_ms: u64) {
        let earned = now_ms.saturating_sub(self.tokens_ms) / LOG_MS;
        self.tokens = self.tokens.saturating_add(earned).min(LOG_BURST);
        self.tokens_ms += earned * LOG_MS;
    }

    /// A line in place of the row.
    fn put_line(&mut self, line: &str) {
        self.wipe();
        let end = line.floor_char_boundary(LOG_BYTES_MAX - 3);
        for c in line[..end].chars() {
            self.put_char(if is_shown(c) { c } else { '?' });
        }
        self.put(if end < line.len() { b"...\r\n" } else { b"\r\n" });
    }

    /// A reply begins: its first page.
    pub fn begin_reply(&mut self) {
        (self.page, self.column) = (0, 0);
        self.utf8.reset();
    }

    /// Whether a page of the reply is full, so that a person has to say that it was read.
    #[must_use]
    pub fn is_page_full(&self) -> bool {
        self.mode != Mode::Script && self.page + 1 >= self.rows
    }

    /// So many rows more may follow.
    pub fn turn_page(&mut self, rows: usize) {
        self.page = self.page.saturating_sub(rows);
    }

    /// Rows of a page.
    #[must_use]
    pub fn page_rows(&self) -> usize {
        self.rows - 1
    }

    /// Bytes of a reply; how many of them were taken. The others are given again when there is room, or the page was turned.
    pub fn reply(&mut self, bytes: &[u8]) -> usize {
        if bytes.is_empty() || self.is_page_full() || !self.has_room_for(16) {
            return 0;
        }
        if self.column == 0 {
            self.wipe();
        }
        let mut taken = 0;
        while let Some(&byte) = bytes.get(taken) {
            if self.is_page_full() || !self.has_room_for(16) {
                break;
            }
            taken += 1;
            match self.utf8.feed(byte) {
                Decoded::More => {}
                Decoded::Char(c) => self.reply_char(c),
                Decoded::Wrong => self.reply_char('?'),
                Decoded::Cut => {
                    self.reply_char('?');
                    taken -= 1;
                }
            }
        }
        taken
    }

    fn reply_char(&mut self, c: char) {
        match c {
            '\n' => {
                self.put(b"\r\n");
                (self.column, self.page) = (0, self.page + 1);
            }
            '\r' => {}
            '\t' => {
                let to = (self.column / 8 + 1) * 8;
                (self.column..to).for_each(|_| self.reply_char(' '));
            }
            c => {
                let c = if is_shown(c) { c } else { '?' };
                if self.mode != Mode::Script && self.column + width(c) > self.columns {
                    (self.column, self.page) = (0, self.page + 1);
                }
                self.put_char(c);
                self.column += width(c);
            }
        }
    }

    /// Ends the row of a reply that has no end of its own. Whether there was room.
    pub fn end_reply_row(&mut self) -> bool {
        if !self.has_room_for(16) {
            return false;
        }
        if self.utf8.is_partial() {
            self.utf8.reset();
            self.reply_char('?');
        }
        if self.column > 0 {
            self.put(b"\r\n");
            self.column = 0;
        }
        self.wipe();
        true
    }

    /// A line of ours that belongs to no page, such as how a command ended; cut as a log line is.
    pub fn say(&mut self, line: &str) {
        if self.column > 0 {
            self.put(b"\r\n");
            self.column = 0;
        }
        self.put_line(line);
    }
}

#[cfg(test)]
#[path = "screen_test.rs"]
pub(super) mod tests;
