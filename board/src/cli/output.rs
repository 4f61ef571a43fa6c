//! What is printed on stdout: text for people, or JSON for programs.
//!
//! With `--json`: a command prints one document; a job (backup, restore, check, demo) prints a line per event, each a document with
//! the field `event`, and the last one is `"event":"done"`. A command that fails prints `{"error": ..., "exit": n}` as its last
//! line. The line on stderr is the same with and without `--json`. The fields of each are in `board/doc/json.md`.
//!
//! Text of others cannot drive the terminal: see `windlass_agent::foreign`. In JSON such characters are escaped, so the document is the
//! same to a program.
//!
//! A reader that went away (`| head`) is no failure: the rest is not printed.
//!
//! Source: ours.

use std::fmt;
use std::io::{self, Write};

use serde_json::{Value, json};
use windlass_agent::foreign;

use crate::failure::{Exit, Failure};
use crate::logger;

/// Where a command's answer goes.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
    quiet: bool,
}

impl Output {
    /// Text or JSON; `quiet` leaves out how a job goes and went.
    pub fn new(json: bool, quiet: bool) -> Output {
        Output { json, quiet }
    }

    /// Whether nobody wants to see how a job goes.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether JSON was asked for.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// The same for a command whose lines are what was asked for, and not about what it did: they are printed whatever was said.
    pub fn of_answer(self) -> Output {
        Output { quiet: false, ..self }
    }

    /// Prints a line for people; nothing with `--json` or `--quiet`.
    pub fn say(&self, line: impl fmt::Display) {
        if !self.json && !self.quiet {
            put(&foreign::harmless(&line.to_string()));
        }
    }

    /// Prints text that is the program's own, as it is.
    pub fn text(&self, text: &str) {
        put(text.trim_end_matches('\n'));
    }

    /// Clears the terminal's screen and goes to its top left corner; nothing with `--json`.
    pub fn clear(&self) {
        if !self.json {
            // What follows is a line, and finds out whether somebody reads.
            let _ = write!(io::stdout().lock(), "\x1b[H\x1b[2J");
        }
    }

    /// Prints the command's one document; nothing without `--json`.
    pub fn document(&self, document: &Value) {
        if self.json {
            put(&foreign::json(&document.to_string()));
        }
    }

    /// Prints an event of a job; nothing without `--json`. `fields` must be an object.
    pub fn event(&self, name: &str, fields: Value) {
        if let (true, Value::Object(mut fields)) = (self.json, fields) {
            fields.insert("event".to_owned(), name.into());
            put(&foreign::json(&Value::Object(fields).to_string()));
        }
    }

    /// Says why the command ended early, and how it ended.
    pub fn fail(&self, failure: &Failure) -> Exit {
        logger::say(format_args!("windlass: {failure}"));
        self.document(&json!({ "error": failure.to_string(), "exit": failure.exit.code() }));
        failure.exit
    }

    /// Prints rows as columns, the named ones to the right; nothing with `--json`.
    pub fn table(&self, heads: &[(&str, Align)], rows: &[Vec<String>]) {
        if self.json {
            return;
        }
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([heads[column].0.len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..heads.len()).map(width).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let padded = cells.zip(heads).zip(&widths).map(|((cell, (_, align)), &width)| match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            });
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.say(line(&mut heads.iter().map(|(head, _)| *head)));
        for row in rows {
            self.say(line(&mut row.iter().map(String::as_str)));
        }
    }
}

/// How a column is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A line on stdout. A closed pipe ends the process quietly: nobody reads the rest.
fn put(line: &str) {
    let mut out = io::stdout().lock();
    if let Err(error) = writeln!(out, "{line}") {
        let closed = error.kind() == io::ErrorKind::BrokenPipe;
        std::process::exit(i32::from(if closed { Exit::Done.code() } else { Exit::Failed.code() }));
    }
}
