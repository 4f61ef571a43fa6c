//! `ls`, `stat`, `find`, `cat`. Source: ours.
use crate::args::global::Global;
use crate::args::{Cat, Find, Ls, Stat};
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// `ls`.
pub fn ls(_: &Global, _: &Ls, _: &Output) -> Result<Exit, Failure> {
    Err(Failure::new("ls: waits for restore::browse"))
}
/// `stat`.
pub fn stat(_: &Global, _: &Stat, _: &Output) -> Result<Exit, Failure> {
    Err(Failure::new("stat: waits for restore::browse"))
}
/// `find`.
pub fn find(_: &Global, _: &Find, _: &Output) -> Result<Exit, Failure> {
    Err(Failure::new("find: waits for restore::browse"))
}
/// `cat`.
pub fn cat(_: &Global, _: &Cat, _: &Output) -> Result<Exit, Failure> {
    Err(Failure::new("cat: waits for restore::browse"))
}
