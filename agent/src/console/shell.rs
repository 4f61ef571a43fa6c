//! One console: keys, log lines and replies in; bytes for the line and commands to carry out, out.
//!
//! ```text
//!  bytes --feed--> typed ahead --> Keys --> Editor --Enter--> split, resolve, role --(serial number)--> Action::Run
//!  log lines --log--------------------------------+                                                       |
//!  the command's bytes --reply, progress, done----+--> Screen --output--> bytes                 <---------+
//! ```
//!
//! | state | keys go to | the row shows |
//! |---|---|---|
//! | prompt | the editor | prompt and line |
//! | listing, a command runs | no one: up to [`TYPED_BYTES_MAX`] bytes wait; Ctrl-C counts at once | how the command goes |
//! | a page is full | the pager | `--More--` |
//! | a command that destroys asks | the answer | the question |
//!
//! Invariants: nothing is allocated after [`Shell::new`], and no call waits; what a bound refuses is named. A command that destroys
//! (`work::table::DESTRUCTIVE`) is carried out only when the serial number of the node was typed within [`ANSWER_MS`]. A command that needs a
//! role which the console does not have is refused. Does not: carry out commands, know the line, or read a clock. Source: ours.

mod list;

use std::fmt::{self, Write};

use heapless::{Deque, String};

use super::command::{self, Call, Fault, Words};
use super::key::{Key, Keys};
use super::line::{Edited, Editor, LINE_BYTES_MAX};
use super::screen::{Mode, SIZE_DEFAULT, Screen};
use crate::work::entry::{Entry, Role};
use crate::work::table;

/// Bytes that are typed ahead at most, while a command runs: a script of some tens of lines. What comes then is refused by name.
pub const TYPED_BYTES_MAX: usize = 4096;
/// Bytes of a prompt.
pub const PROMPT_BYTES_MAX: usize = 48;
/// Bytes of a serial number.
pub const SERIAL_BYTES_MAX: usize = 64;
/// For how long the answer to a question counts, in milliseconds.
pub const ANSWER_MS: u64 = 60_000;
/// Between two looks of a person at how a command goes, in milliseconds.
const PROGRESS_MS: u64 = 1000;
/// The same where each look is a row of its own.
const PROGRESS_DUMB_MS: u64 = 10_000;
/// Bytes of a row of a list.
const ROW_BYTES: usize = 256;
/// What stands where a page ends.
const PAGE_FULL: &str = "--More-- (space: page, enter: row, q: no more)";
/// Before the answer to the one question.
const SERIAL: &str = "serial number: ";
/// What the console says for a command that was not understood.
const CODE_USAGE: u8 = 2;
/// And for one that was refused, or not confirmed.
const CODE_FAILED: u8 = 1;

/// What the console is told of itself.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    /// Before what is typed.
    pub prompt: &'a str,
    /// What has to be typed before something is destroyed; empty: nothing is destroyed from here.
    pub serial: &'a str,
    /// What who sits here may do.
    pub role: Role,
    /// What the terminal can do; `None`: it is asked.
    pub mode: Option<Mode>,
    /// Its columns and rows; `None`: it is asked.
    pub size: Option<(usize, usize)>,
}

/// What the console wants of its surroundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Carry out [`Shell::call`]; then [`Shell::reply`] and [`Shell::done`].
    Run,
    /// Carry out a command of the console's own; then the same.
    Own(&'static str),
    /// Ask the command that runs to end.
    Interrupt,
    /// The person leaves.
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    /// What may stand at the cursor, with help.
    Explained,
    /// The same, names only.
    Names,
    /// All commands.
    Commands,
    /// One command.
    Command(&'static Entry),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Prompt,
    /// The next of a list.
    Listing(List, usize),
    Running,
    /// Since when an answer is waited for.
    Question(u64),
    Closed,
}

/// See the module.
#[derive(Debug)]
pub struct Shell {
    keys: Keys,
    editor: Editor,
    screen: Screen,
    state: State,
    typed: Deque<u8, TYPED_BYTES_MAX>,
    /// Bytes that were typed ahead and found no room.
    lost: u64,
    actions: Deque<Action, 8>,
    call: Call,
    prompt: String<PROMPT_BYTES_MAX>,
    serial: String<SERIAL_BYTES_MAX>,
    role: Role,
    /// The terminal was asked for its size.
    asked: bool,
    /// A row of a list, and how much of it is shown.
    row: String<ROW_BYTES>,
    row_shown: usize,
    /// A person has to say that a page was read.
    paged: bool,
    /// The rest of the reply is not wanted.
    cut: bool,
    ending: Option<u8>,
    progress: String<80>,
    progress_ms: Option<u64>,
    /// The line has taken nothing for long: what would be written is dropped.
    is_stuck: bool,
    dropped: u64,
    failed: bool,
}

/// What the row shows.
fn row<'a>(
    state: State,
    paged: bool,
    prompt: &'a str,
    editor: &'a Editor,
    progress: &'a str,
) -> (&'a str, &'a str, usize) {
    match state {
        _ if paged => (PAGE_FULL, "", 0),
        State::Prompt => (prompt, editor.text(), editor.cursor()),
        State::Question(_) => (SERIAL, editor.text(), editor.cursor()),
        State::Listing(..) | State::Closed => ("", "", 0),
        State::Running => (progress, "", 0),
    }
}

/// Puts formatted text into a string with a bound; what does not fit is cut.
fn text<const N: usize>(what: fmt::Arguments<'_>) -> String<N> {
    struct Cut<const N: usize>(String<N>);
    impl<const N: usize> Write for Cut<N> {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            let end = part.floor_char_boundary(N - self.0.len());
            self.0.push_str(&part[..end]).map_err(|_| fmt::Error)
        }
    }
    let mut cut = Cut(String::new());
    // It cuts, and does not fail.
    let _ = cut.write_fmt(what);
    cut.0
}

impl Shell {
    /// A console that shows its prompt. It takes all of its memory here.
    #[must_use]
    pub fn new(config: &Config<'_>) -> Shell {
        let mode = config.mode.unwrap_or(Mode::Dumb);
        let mut screen = Screen::new(mode, config.size.unwrap_or(SIZE_DEFAULT));
        let asked = config.mode.is_none() || config.size.is_none() && mode == Mode::Vt100;
        if asked {
            screen.ask_size();
        }
        Shell {
            keys: Keys::default(),
            editor: Editor::default(),
            screen,
            state: State::Prompt,
            typed: Deque::new(),
            lost: 0,
            actions: Deque::new(),
            call: Call::default(),
            prompt: text(format_args!("{}", config.prompt)),
            serial: text(format_args!("{}", config.serial)),
            role: config.role,
            asked,
            row: String::new(),
            row_shown: 0,
            paged: false,
            cut: false,
            ending: None,
            progress: String::new(),
            progress_ms: None,
            is_stuck: false,
            dropped: 0,
            failed: false,
        }
    }

    /// Whether it waits for keys alone: nothing was typed that is not dealt with.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Prompt | State::Question(_))
            && self.typed.is_empty()
            && self.actions.is_empty()
    }

    /// Whether a command failed, or was refused.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// What it wants.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The command to carry out.
    #[must_use]
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// What who sits here may do.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The screen.
    #[must_use]
    pub fn screen(&self) -> &Screen {
        &self.screen
    }

    /// The row that a person should see: prompt, text, and the byte of the text at which the cursor is.
    #[must_use]
    pub fn shown(&self) -> (&str, &str, usize) {
        row(self.state, self.paged, &self.prompt, &self.editor, &self.progress)
    }

    /// Bytes for the line.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.screen.output()
    }

    /// So many of them are sent.
    pub fn sent(&mut self, bytes: usize, now_ms: u64) {
        self.screen.sent(bytes);
        if bytes > 0 && std::mem::take(&mut self.is_stuck) {
            let dropped = std::mem::take(&mut self.dropped);
            let line: String<96> =
                text(format_args!("({dropped} bytes are missing here: the line was stopped)"));
            self.screen.say(&line);
        }
        self.pump(now_ms);
    }

    /// The line has taken nothing for too long: what waits for it is dropped and counted, until it takes something.
    pub fn give_up(&mut self) {
        self.is_stuck = true;
        self.dropped += self.screen.discard() as u64;
        // One byte that shows whether it takes something again.
        self.screen.forget();
    }

    /// Bytes from the line.
    pub fn feed(&mut self, bytes: &[u8], now_ms: u64) {
        for &byte in bytes {
            if byte == 3 {
                self.typed.clear();
                self.interrupt();
            } else if self.lost > 0 || self.typed.push_back(byte).is_err() {
                // What comes behind a gap is no line any more.
                self.lost += 1;
            }
            self.pump(now_ms);
        }
    }

    /// A line of the log.
    pub fn log(&mut self, line: &str, now_ms: u64) {
        if self.is_stuck {
            return;
        }
        // Nothing comes in between the pages of a reply, or into a question.
        if self.paged || matches!(self.state, State::Question(_) | State::Listing(..)) {
            return self.screen.leave_out();
        }
        self.screen.log(line, now_ms);
        self.pump(now_ms);
    }

    /// Bytes that a command printed; how many were taken. The others are given again after bytes were sent, or keys came.
    pub fn reply(&mut self, bytes: &[u8], now_ms: u64) -> usize {
        if self.cut || self.is_stuck || self.state != State::Running {
            self.dropped += if self.is_stuck { bytes.len() as u64 } else { 0 };
            return bytes.len();
        }
        let taken = self.screen.reply(bytes);
        self.paged = taken < bytes.len() && self.screen.is_page_full();
        self.pump(now_ms);
        taken
    }

    /// How the command goes.
    pub fn progress(&mut self, line: &str, now_ms: u64) {
        let every = if self.screen.mode() == Mode::Dumb { PROGRESS_DUMB_MS } else { PROGRESS_MS };
        let due = self.progress_ms.is_none_or(|last| now_ms.saturating_sub(last) >= every);
        if !due || self.paged || self.is_stuck || self.state != State::Running {
            return;
        }
        self.progress_ms = Some(now_ms);
        match self.screen.mode() {
            Mode::Vt100 => self.progress = text(format_args!("{line}")),
            Mode::Dumb if self.screen.has_room() => self.screen.say(line),
            Mode::Dumb | Mode::Script => {}
        }
        self.pump(now_ms);
    }

    /// The command ended with this exit code, and all that it printed was taken.
    pub fn done(&mut self, code: u8, now_ms: u64) {
        if self.state == State::Running {
            self.ending = Some(code);
        }
        self.pump(now_ms);
    }

    /// A line of the console's own, such as who it is.
    pub fn say(&mut self, line: &str, now_ms: u64) {
        self.screen.say(line);
        self.pump(now_ms);
    }

    /// A break, or a line that was cut: what was typed is gone, a command that runs is asked to end, and all is drawn anew.
    pub fn reset(&mut self, now_ms: u64) {
        self.typed.clear();
        self.lost = 0;
        self.keys.reset();
        self.screen.discard();
        self.is_stuck = false;
        self.dropped = 0;
        self.interrupt();
        self.screen.forget();
        if self.asked {
            self.screen.ask_size();
        }
        self.pump(now_ms);
    }

    /// Time went by.
    pub fn turn(&mut self, now_ms: u64) {
        if let State::Question(since) = self.state
            && now_ms.saturating_sub(since) > ANSWER_MS
        {
            self.screen.end_row();
            self.refuse(format_args!("not confirmed within {} s: nothing was done", ANSWER_MS / 1000));
        }
        if matches!(self.state, State::Prompt | State::Running) && !self.paged && !self.is_stuck {
            self.screen.turn(now_ms);
        }
        self.pump(now_ms);
    }

    fn act(&mut self, action: Action) {
        // The caller takes them all after each call; one more Ctrl-C than fits says nothing new.
        let _ = self.actions.push_back(action);
    }

    /// Does what can be done now.
    fn pump(&mut self, now_ms: u64) {
        while !self.is_stuck && self.screen.has_room() && self.step(now_ms) {}
        if !self.is_stuck {
            let (prompt, text, cursor) =
                row(self.state, self.paged, &self.prompt, &self.editor, &self.progress);
            // Without room it is drawn when there is some.
            let _ = self.screen.draw(prompt, text, cursor);
        }
    }

    /// One thing; whether there was one.
    fn step(&mut self, now_ms: u64) -> bool {
        if self.paged {
            return self.key_of_pager();
        }
        match self.state {
            State::Closed => false,
            State::Running => match self.ending {
                Some(code) if self.screen.end_reply_row() => {
                    self.ending = None;
                    self.finish(code);
                    true
                }
                _ => false,
            },
            State::Listing(list, nth) => self.list(list, nth),
            State::Prompt | State::Question(_) => match self.typed.pop_front() {
                Some(byte) => {
                    for key in self.keys.feed(byte, now_ms).into_iter().flatten() {
                        self.key(key, now_ms);
                    }
                    true
                }
                None if std::mem::take(&mut self.lost) > 0 => {
                    self.editor.overflow();
                    self.screen
                        .say("(more was typed ahead than is kept (TYPED_BYTES_MAX): this line is refused)");
                    true
                }
                None => false,
            },
        }
    }

    fn finish(&mut self, code: u8) {
        self.progress.clear();
        (self.progress_ms, self.paged, self.cut) = (None, false, false);
        if self.state != State::Closed {
            self.state = State::Prompt;
        }
        self.failed |= code != 0;
        match code {
            0 => self.screen.say("OK"),
            code => self.screen.say(&text::<16>(format_args!("ERR {code}"))),
        }
    }

    fn refuse(&mut self, why: fmt::Arguments<'_>) {
        self.editor.clear();
        self.screen.say(&text::<ROW_BYTES>(why));
        self.finish(CODE_FAILED);
    }

    fn interrupt(&mut self) {
        match self.state {
            State::Prompt => {
                self.screen.end_row();
                self.editor.clear();
            }
            State::Question(_) => {
                self.screen.end_row();
                self.refuse(format_args!("not confirmed: nothing was done"));
            }
            State::Listing(..) => {
                self.paged = false;
                self.cut = true;
            }
            State::Running => {
                self.paged = false;
                self.cut = true;
                self.act(Action::Interrupt);
            }
            State::Closed => {}
        }
    }

    fn key_of_pager(&mut self) -> bool {
        let Some(byte) = self.typed.pop_front() else { return false };
        match byte {
            b' ' => self.screen.turn_page(self.screen.page_rows()),
            b'\r' | b'\n' => self.screen.turn_page(1),
            b'q' | b'Q' => self.cut = true,
            _ => {
                self.screen.bell();
                return true;
            }
        }
        self.paged = false;
        true
    }

    fn key(&mut self, key: Key, now_ms: u64) {
        let is_plain = self.screen.mode() != Mode::Script && self.state == State::Prompt;
        if key == Key::Char('?') && is_plain && self.editor.cursor() == self.editor.text().len() {
            // Within quotes it is a character like any other.
            if Words::split(self.editor.text()).is_ok() {
                return self.begin_list(List::Explained);
            }
        }
        match self.editor.feed(key) {
            Edited::Changed => {}
            Edited::Nothing => self.screen.bell(),
            Edited::Long => {
                self.screen.end_row();
                self.editor.clear();
                self.screen.say(&text::<96>(format_args!(
                    "the line is longer than {LINE_BYTES_MAX} bytes (LINE_BYTES_MAX): it is refused"
                )));
                self.finish(CODE_USAGE);
            }
            Edited::Line => {
                self.screen.end_row();
                match self.state {
                    State::Question(_) => self.answer(),
                    _ => self.submit(now_ms),
                }
            }
            Edited::Other(Key::Tab) if is_plain => self.complete(),
            Edited::Other(Key::Redraw) => self.screen.forget(),
            Edited::Other(Key::EndOfInput) if self.state == State::Prompt => {
                self.screen.end_row();
                self.close();
            }
            Edited::Other(Key::Position(row, column)) => self.measured(column.into(), row.into()),
            Edited::Other(_) => self.screen.bell(),
        }
    }

    fn measured(&mut self, columns: usize, rows: usize) {
        if self.asked {
            self.screen.set_mode(Mode::Vt100);
            self.screen.resize((columns, rows));
        }
    }

    fn close(&mut self) {
        self.state = State::Closed;
        self.editor.clear();
        self.act(Action::Close);
    }

    /// A line is complete.
    fn submit(&mut self, now_ms: u64) {
        self.editor.remember();
        let words = match Words::split(self.editor.text()) {
            Ok(words) if words.is_empty() => return self.editor.clear(),
            Ok(words) => words,
            Err(fault) => {
                let why = text::<ROW_BYTES>(format_args!("{fault}"));
                return self.not_understood(&why);
            }
        };
        let understood = self.understand(&words);
        let (entry, named) = match understood {
            Ok((entry, named, call)) => {
                self.call = call;
                (entry, named)
            }
            Err(fault) => {
                let why = text::<ROW_BYTES>(format_args!("{fault}"));
                return self.not_understood(&why);
            }
        };
        self.editor.clear();
        if command::OWN.contains(entry) {
            return self.own(entry.name, &words, named);
        }
        if !table::DESTRUCTIVE.contains(&entry.name) || command::is_rehearsal(&self.call) {
            return self.run(Action::Run);
        }
        if self.serial.is_empty() {
            return self
                .refuse(format_args!("{}: this node has no serial number to confirm it by", entry.name));
        }
        self.state = State::Question(now_ms);
        self.screen.say(&text::<ROW_BYTES>(format_args!(
            "{} may destroy what is there. To go on, type the serial number of this node.",
            entry.name
        )));
    }

    fn understand<'a>(&self, words: &'a Words) -> Result<(&'static Entry, usize, Call), Fault<'a>> {
        let (entry, named) = command::resolve(words)?;
        if !self.role.may(entry.role) {
            return Err(Fault::Role(entry));
        }
        Ok((entry, named, command::call(entry, words, named)?))
    }

    fn not_understood(&mut self, why: &str) {
        self.editor.clear();
        self.screen.say(why);
        self.finish(CODE_USAGE);
    }

    fn run(&mut self, action: Action) {
        self.state = State::Running;
        self.screen.begin_reply();
        self.act(action);
    }

    /// The answer to a question.
    fn answer(&mut self) {
        let is_right = self.editor.text().trim() == self.serial.as_str();
        if is_right {
            self.editor.clear();
            self.run(Action::Run);
        } else {
            self.refuse(format_args!("that is not the serial number of this node: nothing was done"));
        }
    }

    /// A command of the console's own.
    fn own(&mut self, name: &'static str, words: &Words, named: usize) {
        match name {
            "exit" => self.close(),
            "help" => self.help(words, named),
            "term" => self.term(words.get(named), words.get(named + 1), words.get(named + 2)),
            _ => self.run(Action::Own(name)),
        }
    }

    fn help(&mut self, words: &Words, named: usize) {
        if words.len() == named {
            return self.begin_list(List::Commands);
        }
        let mut line = String::<LINE_BYTES_MAX>::new();
        for word in words.iter().skip(named) {
            // Parts of a line fit a line.
            let _ = line.push_str(word);
            let _ = line.push(' ');
        }
        let named = Words::split(&line).ok();
        match named.as_ref().map(command::resolve) {
            Some(Ok((entry, _))) => self.begin_list(List::Command(entry)),
            Some(Err(fault)) => {
                let why = text::<ROW_BYTES>(format_args!("{fault}"));
                self.not_understood(&why);
            }
            None => self.not_understood("help takes the name of a command"),
        }
    }

    fn term(&mut self, kind: &str, columns: &str, rows: &str) {
        let mode =
            ["vt100", "dumb", "script"].iter().position(|known| !kind.is_empty() && known.starts_with(kind));
        let mode = match mode {
            Some(0) => Mode::Vt100,
            Some(1) => Mode::Dumb,
            Some(_) => Mode::Script,
            None => return self.not_understood("term takes vt100, dumb or script, and columns and rows"),
        };
        let (old_columns, old_rows) = self.screen.size();
        let number = |word: &str, old: usize| if word.is_empty() { Ok(old) } else { word.parse() };
        let (Ok(columns_now), Ok(rows_now)) = (number(columns, old_columns), number(rows, old_rows)) else {
            return self.not_understood("term: columns and rows are numbers");
        };
        self.screen.set_mode(mode);
        self.screen.resize((columns_now, rows_now));
        self.asked = mode == Mode::Vt100 && columns.is_empty();
        if self.asked {
            self.screen.ask_size();
        }
        self.finish(0);
    }
}

#[cfg(test)]
#[path = "shell_test.rs"]
mod tests;
