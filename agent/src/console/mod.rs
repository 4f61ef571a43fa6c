//! The console: what a person at a serial line types, and what is on the screen there.
//!
//! | module | what |
//! |---|---|
//! | [`key`] | bytes of many terminals as keys |
//! | [`mod@line`] | the line that is edited, and the history |
//! | [`screen`] | prompt and line on one row, log lines above, replies in pages; bytes for the line |
//! | [`command`] | words of a line, and the command of the one table (`work::table`) that they name; completion |
//! | [`ymodem`] | a file to the other end of the line |
//! | [`shell`] | all of them together: bytes in, commands to carry out and bytes out |
//!
//! Invariants: all memory is taken when a console begins, and no call waits, so a console works while a store, a network or another thread
//! of the program does not. Does not: carry out commands, or touch a device: a face does (`board/src/console`). Source: ours.

pub mod command;
pub mod key;
pub mod line;
pub mod screen;
pub mod shell;
pub mod ymodem;
