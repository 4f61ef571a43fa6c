//! `restore`. Source: ours.
use crate::args::Restore;
use crate::args::global::Global;
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// `restore`.
pub fn run(_: &Global, _: &Restore, _: &Output) -> Result<Exit, Failure> {
    Err(Failure::new("restore: waits for restore::run"))
}
