//! The line that a person edits, and the lines before it.
//!
//! ```text
//!  Key -> Editor -> Edited: Changed, Line, Long, Nothing ...
//! ```
//!
//! Invariants: the line is UTF-8 of at most [`LINE_BYTES_MAX`] bytes, the cursor is between two characters of it; the history has the newest
//! lines that fit [`HISTORY_BYTES`]. Nothing is allocated. A line that was longer is refused as a whole: half a command is never carried out.
//! Does not: draw (`screen`), or know commands (`command`). Source: ours; readline(3) for the keys.

use heapless::{String, Vec};

use super::key::Key;

/// Bytes of a line: a selection of some paths, and far from what fits no screen. A longer one is refused by name.
pub const LINE_BYTES_MAX: usize = 1024;
/// Bytes of all lines of the history together: some tens of commands. The oldest go first.
pub const HISTORY_BYTES: usize = 4096;

/// What a key did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edited {
    /// The line or the cursor is another.
    Changed,
    /// Nothing can be done with this key here: the terminal's bell.
    Nothing,
    /// The line is complete: [`Editor::text`] has it until [`Editor::clear`].
    Line,
    /// A line is complete that was longer than [`LINE_BYTES_MAX`].
    Long,
    /// It means nothing to a line: the caller has a use for it.
    Other(Key),
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Editor {
    text: String<LINE_BYTES_MAX>,
    /// Byte of `text`.
    cursor: usize,
    /// Something did not fit.
    overflowed: bool,
    /// Lines, each with `\n` behind, the newest last.
    history: Vec<u8, HISTORY_BYTES>,
    /// Which line of the history is shown: 0 is none, 1 the newest.
    shown: usize,
    /// What was there before the history was looked into.
    kept: String<LINE_BYTES_MAX>,
}

impl Editor {
    /// The line.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The byte of the line at which the cursor is.
    #[must_use]
    pub fn cursor(&self) -> usize {
        self.cursor
    }

    /// An empty line.
    pub fn clear(&mut self) {
        self.text.clear();
        (self.cursor, self.overflowed, self.shown) = (0, false, 0);
    }

    /// Notes the line in the history: none that is empty, or the same as the one before.
    pub fn remember(&mut self) {
        let line = self.text.trim();
        if line.is_empty() || self.nth(1) == Some(line) || line.len() >= HISTORY_BYTES {
            return;
        }
        let needed = line.len() + 1;
        while self.history.len() + needed > HISTORY_BYTES {
            let oldest = self.history.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1);
            let rest = self.history.len() - oldest;
            self.history.copy_within(oldest.., 0);
            self.history.truncate(rest);
            if oldest == 0 {
                self.history.clear();
            }
        }
        // It fits: there is room for it now.
        let _ = self.history.extend_from_slice(line.as_bytes());
        let _ = self.history.push(b'\n');
    }

    /// The n-th line of the history, 1 is the newest.
    #[must_use]
    pub fn nth(&self, nth: usize) -> Option<&str> {
        let lines = self.history.strip_suffix(b"\n")?;
        let line = lines.rsplit(|&byte| byte == b'\n').nth(nth.checked_sub(1)?)?;
        std::str::from_utf8(line).ok()
    }

    /// Puts text at the cursor; whether it fits.
    pub fn insert(&mut self, text: &str) -> bool {
        let old = self.text.len();
        if self.text.push_str(text).is_err() {
            self.overflowed = true;
            return false;
        }
        // The new bytes go from the end to the cursor.
        let mut bytes = std::mem::take(&mut self.text).into_bytes();
        bytes[self.cursor..].rotate_right(text.len());
        self.put_back(bytes);
        self.cursor += self.text.len() - old;
        true
    }

    /// What came is not taken as part of the line: it is refused when it is complete.
    pub fn overflow(&mut self) {
        self.overflowed = true;
    }

    /// Bytes that were UTF-8 and are it again.
    fn put_back(&mut self, bytes: Vec<u8, LINE_BYTES_MAX>) {
        self.text = String::from_utf8(bytes).unwrap_or_default();
    }

    fn remove(&mut self, from: usize, to: usize) {
        let mut bytes = std::mem::take(&mut self.text).into_bytes();
        let rest = bytes.len() - (to - from);
        bytes.copy_within(to.., from);
        bytes.truncate(rest);
        self.put_back(bytes);
        self.cursor = from;
    }

    /// The character boundary before the cursor.
    fn before(&self) -> Option<usize> {
        self.text[..self.cursor].char_indices().next_back().map(|(at, _)| at)
    }

    fn after(&self) -> Option<usize> {
        self.text[self.cursor..].chars().next().map(|c| self.cursor + c.len_utf8())
    }

    fn word_begin(&self) -> usize {
        let before = self.text[..self.cursor].trim_end();
        let space = before.char_indices().rev().find(|(_, c)| c.is_whitespace());
        space.map_or(0, |(at, c)| at + c.len_utf8())
    }

    fn word_end(&self) -> usize {
        let rest = &self.text[self.cursor..];
        let word = rest.len() - rest.trim_start().len();
        self.cursor + rest[word..].find(char::is_whitespace).map_or(rest.len(), |at| word + at)
    }

    fn go(&mut self, to: Option<usize>) -> Edited {
        match to.filter(|&to| to != self.cursor) {
            Some(to) => {
                self.cursor = to;
                Edited::Changed
            }
            None => Edited::Nothing,
        }
    }

    fn kill(&mut self, from: usize, to: usize) -> Edited {
        if from == to {
            return Edited::Nothing;
        }
        self.remove(from, to);
        Edited::Changed
    }

    /// Shows the n-th line of the history, 0 is what was there before.
    fn show(&mut self, nth: usize) -> Edited {
        let mut line = String::<LINE_BYTES_MAX>::new();
        let found = if nth == 0 { Some(self.kept.as_str()) } else { self.nth(nth) };
        let Some(found) = found else { return Edited::Nothing };
        // Each line of the history was one.
        let _ = line.push_str(found);
        if self.shown == 0 {
            self.kept = std::mem::take(&mut self.text);
        }
        self.cursor = line.len();
        (self.text, self.shown) = (line, nth);
        Edited::Changed
    }

    /// Takes a key.
    pub fn feed(&mut self, key: Key) -> Edited {
        match key {
            Key::Char(c) => {
                let fits = self.insert(c.encode_utf8(&mut [0; 4]));
                if fits { Edited::Changed } else { Edited::Nothing }
            }
            Key::Bad => Edited::Nothing,
            Key::Enter if self.overflowed => Edited::Long,
            Key::Enter => Edited::Line,
            Key::Backspace => match self.before() {
                Some(from) => self.kill(from, self.cursor),
                None => Edited::Nothing,
            },
            Key::Delete => match self.after() {
                Some(to) => self.kill(self.cursor, to),
                None => Edited::Nothing,
            },
            Key::EndOfInput if !self.text.is_empty() => self.feed(Key::Delete),
            Key::Left => self.go(self.before()),
            Key::Right => self.go(self.after()),
            Key::Home => self.go(Some(0)),
            Key::End => self.go(Some(self.text.len())),
            Key::WordLeft => self.go(Some(self.word_begin())),
            Key::WordRight => self.go(Some(self.word_end())),
            Key::KillEnd => self.kill(self.cursor, self.text.len()),
            Key::KillBegin => self.kill(0, self.cursor),
            Key::KillWord => self.kill(self.word_begin(), self.cursor),
            Key::Up => self.show(self.shown + 1),
            Key::Down if self.shown > 0 => self.show(self.shown - 1),
            Key::Down => Edited::Nothing,
            Key::Tab | Key::Redraw | Key::Interrupt | Key::EndOfInput | Key::Position(..) => {
                Edited::Other(key)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(editor: &mut Editor, text: &str) {
        text.chars().for_each(|c| assert_eq!(editor.feed(Key::Char(c)), Edited::Changed));
    }

    #[test]
    fn a_line_is_edited_by_characters_and_words() {
        let mut editor = Editor::default();
        typed(&mut editor, "Grüße aus Köln");
        for (key, text, cursor) in [
            (Key::WordLeft, "Grüße aus Köln", "Grüße aus ".len()),
            (Key::KillWord, "Grüße Köln", "Grüße ".len()),
            (Key::Left, "Grüße Köln", "Grüße".len()),
            (Key::Backspace, "Grüß Köln", "Grüß".len()),
            (Key::Left, "Grüß Köln", "Grü".len()),
            (Key::Delete, "Grü Köln", "Grü".len()),
            (Key::KillEnd, "Grü", "Grü".len()),
            (Key::Home, "Grü", 0),
            (Key::Char('€'), "€Grü", 3),
            (Key::WordRight, "€Grü", "€Grü".len()),
            (Key::KillBegin, "", 0),
        ] {
            assert_eq!(editor.feed(key), Edited::Changed, "{key:?}");
            assert_eq!((editor.text(), editor.cursor()), (text, cursor), "{key:?}");
        }
        assert_eq!(editor.feed(Key::Backspace), Edited::Nothing);
        assert_eq!(editor.feed(Key::EndOfInput), Edited::Other(Key::EndOfInput));
    }

    #[test]
    fn a_wide_space_parts_words_too() {
        let mut editor = Editor::default();
        typed(&mut editor, "a\u{3000}b");
        assert_eq!(editor.feed(Key::KillWord), Edited::Changed);
        assert_eq!(editor.text(), "a\u{3000}");
    }

    #[test]
    fn a_line_that_does_not_fit_is_refused_as_a_whole() {
        let mut editor = Editor::default();
        typed(&mut editor, &"ä".repeat(LINE_BYTES_MAX / 2));
        assert_eq!(editor.feed(Key::Char('x')), Edited::Nothing);
        assert_eq!(editor.feed(Key::Backspace), Edited::Changed);
        assert_eq!(editor.feed(Key::Enter), Edited::Long);
        editor.clear();
        typed(&mut editor, "x");
        assert_eq!(editor.feed(Key::Enter), Edited::Line);
    }

    #[test]
    fn the_history_keeps_the_newest_lines() {
        let mut editor = Editor::default();
        for number in 0..1000 {
            typed(&mut editor, &format!("command number {number}"));
            editor.remember();
            editor.remember();
            editor.clear();
        }
        typed(&mut editor, "new");
        assert_eq!(editor.feed(Key::Up), Edited::Changed);
        assert_eq!(editor.text(), "command number 999");
        editor.feed(Key::Up);
        assert_eq!(editor.text(), "command number 998");
        editor.feed(Key::Down);
        editor.feed(Key::Down);
        assert_eq!(editor.text(), "new");
        assert_eq!(editor.feed(Key::Down), Edited::Nothing);
        let count = (1..).take_while(|&nth| editor.nth(nth).is_some()).count();
        assert!((HISTORY_BYTES / 20..HISTORY_BYTES / 16).contains(&count), "{count}");
        assert_eq!(editor.nth(count), Some(format!("command number {}", 1000 - count).as_str()));
    }
}
