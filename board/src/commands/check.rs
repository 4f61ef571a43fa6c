//! `check`. Source: ours.
use crate::args::Check;
use crate::args::global::Global;
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// `check`.
pub fn run(_: &Global, _: &Check, _: &Output) -> Result<Exit, Failure> {
    Err(Failure::new("check: waits for restore::check"))
}
