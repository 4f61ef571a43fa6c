//! Files that a restore had written in part when it ended early: kept by name in the staging directory, and taken over by the next one.
//!
//! Layouts and rules in [`state`](super::state). Invariants: what is taken over is a file with no other name, and all of its bytes are
//! compared; what cannot be taken over goes with the staging directory that it is in. Source: ours.

use std::path::Path;
use std::sync::PoisonError;

use windlass_hal::linux::tree::{self, LinuxNode};
use windlass_hal::tree::{Errno, Node, Taken};
use windlass_hal::volume::ItemKind;

use super::fault::RestoreFault;
use super::remove::remove_tree;
use super::state::{Ignored, STATE_BYTES, STATE_NAME, Unfinished};
use super::target::{Target, There};
use super::temp::Temp;
use crate::format::seal::Keys;

/// Bytes from which on a file that is written in part is kept when a restore ends early: below it, writing it again costs less than
/// its two names.
pub const PART_BYTES_MIN: u64 = 8 << 20;
/// Most files that are taken over: two windows of files are being written at most.
const PARTS_MAX: usize = 4096;

/// What a restore is of, and the key to tell whether an earlier one was the same.
#[derive(Clone, Copy)]
pub struct Claim<'k> {
    /// What it is of.
    pub unfinished: Unfinished,
    /// Keys of the repository.
    pub keys: &'k Keys,
}

/// A staging directory of an earlier restore whose state was ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Its name below the target.
    pub name: String,
    /// Why.
    pub why: Ignored,
}

/// What [`abandon`] removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abandoned {
    /// Names below the target of staging directories that are gone.
    pub removed: Vec<String>,
    /// Those that a restore which runs is using, and those that could not be removed.
    pub left: Vec<String>,
    /// Whether the machine was started again after one of them: contents of finished files may be lost then.
    pub lost_power: bool,
}

fn part_name(inode: u64) -> String {
    format!("{inode}p")
}

fn part_of(name: &[u8]) -> Option<u64> {
    let digits = str::from_utf8(name).ok()?.strip_suffix('p')?;
    let inode = digits.parse().ok()?;
    (part_name(inode).as_bytes() == name).then_some(inode)
}

/// Reads a state file; `None` when there is none, which is so until a large file is begun.
fn read_state<N: Node>(dir: &N) -> Result<Option<Vec<u8>>, Ignored> {
    match dir.stat_name(STATE_NAME.as_bytes()) {
        Err(Errno::NOENT) => return Ok(None),
        Ok(stat) if stat.kind == ItemKind::File && stat.size == STATE_BYTES as u64 => {}
        _ => return Err(Ignored::NoState),
    }
    let mut bytes = vec![0; STATE_BYTES];
    let file = dir.open_file(STATE_NAME.as_bytes()).map_err(|_| Ignored::NoState)?;
    match file.read_at(0, &mut bytes) {
        Ok(STATE_BYTES) => Ok(Some(bytes)),
        _ => Err(Ignored::NoState),
    }
}

impl<N: Node> Target<N> {
    /// Takes over what an earlier restore left in the staging directory `dir`, called `name`, if that one was the same as this.
    pub(super) fn take_over(&mut self, name: &[u8], dir: &N, claim: Claim<'_>) {
        let claimed = match read_state(dir) {
            Ok(None) => return,
            Ok(Some(bytes)) => claim.unfinished.claims(&bytes, claim.keys),
            Err(why) => Err(why),
        };
        if let Err(why) = claimed {
            self.leftovers.push(Leftover { name: String::from_utf8_lossy(name).into_owned(), why });
            return;
        }
        let mut found = Vec::new();
        let _ = dir.names(&mut |name| {
            if found.len() < PARTS_MAX {
                found.extend(part_of(name));
            }
        });
        if found.is_empty() || !self.keep_state() {
            return;
        }
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        for inode in found {
            let part = part_name(inode);
            // What cannot be moved is restored from its beginning.
            if dir.rename(part.as_bytes(), self.staging(), part.as_bytes(), Taken::Replace).is_ok() {
                parts.insert(inode);
            }
        }
    }

    /// Writes the state file, if it is not there yet; whether it is now.
    fn keep_state(&self) -> bool {
        let Some(bytes) = &self.state else { return false };
        let mut has = self.has_state.lock().unwrap_or_else(PoisonError::into_inner);
        if !*has {
            let between = self.temp_name();
            let made = self.staging().create(between.as_bytes(), 0o600).and_then(|file| {
                file.write_at(0, bytes)?;
                // One that is there has its contents.
                file.sync()?;
                self.staging().rename(
                    between.as_bytes(),
                    self.staging(),
                    STATE_NAME.as_bytes(),
                    Taken::Replace,
                )
            });
            *has = made.is_ok();
            if made.is_err() {
                let _ = self.staging().remove(between.as_bytes());
            }
        }
        *has
    }

    /// Whether there is something for a next restore to go on with.
    pub(super) fn has_parts(&self) -> bool {
        *self.has_state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an unfinished file of `size` bytes under a name, if it is worth it, so that a restore that ends early leaves it.
    pub(super) fn name_part(&self, temp: &Temp<N>, inode: u64, size: u64) {
        if size < self.part_bytes_min || !self.keep_state() {
            return;
        }
        let (part, mut name) = (part_name(inode), temp.name());
        let named = match &*name {
            Some(old) => {
                self.staging().rename(old.as_bytes(), self.staging(), part.as_bytes(), Taken::Replace)
            }
            None => temp.node.link(self.staging(), part.as_bytes()),
        };
        // In another file system there is no such name: it is restored from its beginning.
        if named.is_ok() {
            *name = Some(part);
        }
    }

    /// The file that an earlier restore had written in part, open; once.
    pub(super) fn take_part(&self, inode: u64) -> Option<Temp<N>> {
        let is_there = self.parts.lock().unwrap_or_else(PoisonError::into_inner).remove(&inode);
        if !is_there {
            return None;
        }
        let name = part_name(inode);
        let open = || {
            // Another name of something else is nothing to write into.
            let stat = self.staging().stat_name(name.as_bytes())?;
            if stat.kind != ItemKind::File || stat.links != 1 {
                return Err(Errno::INVAL);
            }
            Ok((self.staging().open_to_write(name.as_bytes())?, stat.size))
        };
        match open() {
            Ok((node, size)) => {
                self.resumed_parts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Some(Temp::of_part(node, name, size))
            }
            Err(_) => {
                let _ = self.staging().remove(name.as_bytes());
                None
            }
        }
    }
}

/// Removes what restores that ended early left in the directory `path`: their state, and files that are not whole. What they finished
/// stays. Errors: the directory cannot be read.
pub fn abandon(path: &Path) -> Result<Abandoned, RestoreFault> {
    let opened = tree::open(path, false).map_err(|(call, errno)| RestoreFault::Target { call, errno })?;
    let root: LinuxNode = opened.root;
    let there = There::of(&root, opened.boot)
        .map_err(|errno| RestoreFault::Target { call: "read the directory", errno })?;
    let shown = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    let mut abandoned = Abandoned { lost_power: there.lost_power, ..Abandoned::default() };
    abandoned.left.extend(there.busy.iter().map(|name| shown(name)));
    for (name, _locked) in there.left {
        match remove_tree(&root, &name) {
            Ok(()) => abandoned.removed.push(shown(&name)),
            Err(_) => abandoned.left.push(shown(&name)),
        }
    }
    Ok(abandoned)
}
