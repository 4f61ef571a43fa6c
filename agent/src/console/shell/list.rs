//! Lists that a console shows by itself: what may stand at the cursor, all commands, one command; and the word that Tab completes.
//!
//! A list is made row by row, as the screen takes it, so none needs memory or is too long. Invariants: what a list offers is what the role of
//! the console may use. Does not: carry out anything. Source: ours.

use std::fmt::Write;

use heapless::String;

use super::{List, ROW_BYTES, Shell, State, text};
use crate::console::command::{self, Candidates, Words};
use crate::work::entry::Kind;

impl Shell {
    /// Tab.
    pub(super) fn complete(&mut self) {
        let before = &self.editor.text()[..self.editor.cursor()];
        let Ok(words) = Words::split(before) else { return self.screen.bell() };
        let candidates = Candidates::at_end(&words, self.role);
        let partial = candidates.partial();
        // Only what is written as it is meant can be gone on with.
        if !before.ends_with(partial) {
            return self.screen.bell();
        }
        let mut common: Option<(&'static str, &'static str, usize)> = None;
        let mut count = 0;
        candidates.for_each(|one| {
            if one.name.is_empty() {
                return;
            }
            count += 1;
            common = match common {
                None => Some((one.mark, one.name, one.name.len())),
                Some((mark, name, len)) => {
                    let same = name.bytes().zip(one.name.bytes()).take_while(|(a, b)| a == b).count();
                    let same = if mark == one.mark { same } else { 0 };
                    Some((mark, name, len.min(same)))
                }
            };
        });
        let Some((mark, name, len)) = common else { return self.screen.bell() };
        let have = partial.strip_prefix(mark).map_or(0, str::len);
        let marked = if partial.starts_with(mark) || count > 1 && len == 0 {
            ""
        } else {
            &mark[partial.len().min(mark.len())..]
        };
        let more = name.get(have..len.max(have)).unwrap_or_default();
        let end = if count == 1 { " " } else { "" };
        if more.is_empty() && end.is_empty() && marked.is_empty() {
            return self.begin_list(List::Names);
        }
        let added: String<64> = text(format_args!("{marked}{more}{end}"));
        if !self.editor.insert(&added) {
            self.screen.bell();
        }
    }

    pub(super) fn begin_list(&mut self, list: List) {
        if matches!(list, List::Explained | List::Names) {
            self.screen.end_row();
        }
        self.row.clear();
        self.row_shown = 0;
        self.screen.begin_reply();
        self.state = State::Listing(list, 0);
    }

    /// A row of a list, or its end.
    pub(super) fn list(&mut self, list: List, nth: usize) -> bool {
        if self.cut {
            self.row.clear();
            self.row_shown = 0;
        }
        let rest = self.row.get(self.row_shown..).unwrap_or_default();
        if !rest.is_empty() {
            let taken = self.screen.reply(rest.as_bytes());
            self.row_shown += taken;
            self.paged = self.row_shown < self.row.len() && self.screen.is_page_full();
            return taken > 0;
        }
        let next = if self.cut { None } else { self.row_of(list, nth) };
        match next {
            Some((row, next)) => {
                (self.row, self.row_shown) = (row, 0);
                self.state = State::Listing(list, next);
            }
            None => {
                if !self.screen.end_reply_row() {
                    return false;
                }
                self.state = State::Prompt;
                match list {
                    List::Explained | List::Names => self.cut = false,
                    List::Commands | List::Command(_) => self.finish(0),
                }
            }
        }
        true
    }

    /// The nth row of a list, and which is the next.
    fn row_of(&self, list: List, nth: usize) -> Option<(String<ROW_BYTES>, usize)> {
        let columns = self.screen.size().0 - 1;
        let row = match list {
            List::Commands => {
                let entry = command::offered(self.role).nth(nth)?;
                explained(columns, "", entry.name, entry.help)
            }
            List::Command(entry) if nth == 0 => {
                text(format_args!("{}: {} (role {})\n", entry.name, entry.help, entry.role))
            }
            List::Command(entry) => {
                let arg = entry.args.get(nth - 1)?;
                let mark = if arg.positional { "" } else { "--" };
                let value: String<48> = match arg.kind {
                    _ if arg.positional => text(format_args!("<{}>", arg.name)),
                    Kind::Flag => text(format_args!("{}", arg.name)),
                    kind => text(format_args!("{} <{}>", arg.name, kind.name())),
                };
                explained(columns, mark, &value, arg.help)
            }
            List::Explained | List::Names => {
                let words = Words::split(&self.editor.text()[..self.editor.cursor()]).ok()?;
                let candidates = Candidates::at_end(&words, self.role);
                if list == List::Names {
                    return names(&candidates, nth, columns);
                }
                let one = candidates.nth(nth)?;
                let hint: String<48> = text(format_args!("<{}>", one.hint));
                explained(columns, one.mark, if one.name.is_empty() { &hint } else { one.name }, one.help)
            }
        };
        Some((row, nth + 1))
    }
}

/// A name and what it means, in one row.
fn explained(columns: usize, mark: &str, name: &str, help: &str) -> String<ROW_BYTES> {
    let width = 20_usize.saturating_sub(mark.len());
    let row: String<ROW_BYTES> = text(format_args!("  {mark}{name:<width$} {help}"));
    let end = row.floor_char_boundary(columns.min(ROW_BYTES - 2));
    text(format_args!("{}\n", row[..end].trim_end()))
}

/// As many names as fit a row, from the nth on.
fn names(candidates: &Candidates<'_>, nth: usize, columns: usize) -> Option<(String<ROW_BYTES>, usize)> {
    let mut row = String::<ROW_BYTES>::new();
    let (mut at, mut next) = (0, nth);
    candidates.for_each(|one| {
        let len = one.mark.len() + one.name.len() + 2;
        if at == next && (row.is_empty() || row.len() + len <= columns.min(ROW_BYTES - 2)) {
            let _ = write!(row, "{}{}  ", one.mark, one.name);
            next += 1;
        }
        at += 1;
    });
    row.push('\n').ok().filter(|()| next > nth).map(|()| (row, next))
}
