//! Selection: which paths a policy takes, as patterns, and which inodes of a volume those are, as a set.
//!
//! | pattern | matches |
//! |---|---|
//! | `*.tmp` | no slash: anything of that name, in any directory |
//! | `/scratch` `home/*/cache` | a slash in front or inside: that path from the volume's root |
//! | `cache/` | a slash at the end: directories only |
//! | `*` `?` `[a-z]` `[!0-9]` `{a,b}` | any run of bytes but '/', any one, one of, none of, either |
//! | `**/` `/**` | any directories |
//! | `\*` | the character itself |
//!
//! Two rules, and no order between patterns:
//! 1. an item is left out when an exclude pattern matches it or a directory above it;
//! 2. when there are include patterns, an item is also left out unless one matches it or a directory above it.
//!
//! Directories on the way to an included item come along (with their own attributes, without their other entries), so that its
//! path exists. An item with several names is taken when one of its names is; its other names are not in the point. The root is always taken.
//!
//! [`build`] turns patterns into a set of inodes: one sweep finds the directories, then a walk from the root reads each directory
//! once. When a file is taken under one name and left out under another, a second walk finds the names of such files that are left out.
//! Memory: three [`InodeSet`]s (of directories, and of files left out, for the walk only), each at most 16 MiB and in practice a bit per
//! inode; [`HiddenNames`]; one window; the stack of the walk, bounded by [`DEPTH_MAX`] and [`PENDING_BYTES_MAX`]. A volume too large for
//! that is refused by name, before anything was read of its data; without patterns nothing of this is needed, and nothing is done.
//!
//! Hostile images: a directory is entered once, so a loop ends. Of the way to a directory the walk keeps [`DEPTH_MAX`] levels or
//! [`PATH_BYTES_MAX`]; what is deeper is walked afterwards, from that directory on and without the path that leads to it. Down there
//! patterns of a name count and patterns of a path do not; where an include pattern of a path has `**` in it, all is taken.
//!
//! Matching is `fast-glob`: no dependencies to speak of, byte strings, no compilation; globset would bring two regex engines.
//! Source: rules ours, pattern language as in gitignore(5) without negation.

use std::fmt;

use windlass_hal::block::BlockDevice;
use windlass_hal::volume::{Cursor, ItemKind, Swept, Volume, VolumeFault, Window};

use super::hidden::{HIDDEN_NAMES_MAX, HiddenNames};
use super::inodes::{Full, INODE_SET_BYTES_MAX, InodeSet};
use crate::progress::Progress;

/// Most patterns in a policy. Each is tried on each path.
pub const PATTERNS_MAX: usize = 256;
/// Longest pattern in bytes.
pub const PATTERN_BYTES_MAX: usize = 1024;
/// Most levels of which the walk keeps the way. Linux's own path limit allows 2048.
pub const DEPTH_MAX: usize = 4096;
/// Longest path in bytes of a directory whose entries are matched by their path.
pub const PATH_BYTES_MAX: usize = 64 << 10;
/// Bytes of directory names that wait on the walk's stack before a directory is read in several goes.
pub const PENDING_BYTES_MAX: usize = 1 << 20;

/// Why a pattern is refused. `Display` says which and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatternFault {
    /// More than [`PATTERNS_MAX`].
    TooMany,
    /// Longer than [`PATTERN_BYTES_MAX`].
    TooLong,
    /// The whole volume, or nothing at all.
    Empty,
    /// Starts with `!`: there is no negation.
    Negated(String),
    /// `.` or `..` as a part, or an empty part.
    Dots(String),
    /// Brackets or braces do not close.
    Syntax(String),
}

impl fmt::Display for PatternFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PatternFault::TooMany => write!(f, "patterns: at most {PATTERNS_MAX}"),
            PatternFault::TooLong => write!(f, "patterns: at most {PATTERN_BYTES_MAX} bytes each"),
            PatternFault::Empty => f.write_str("patterns: one is empty; leave it out to take everything"),
            PatternFault::Negated(text) => {
                write!(f, "pattern {text:?}: there is no '!'; write an include or an exclude pattern")
            }
            PatternFault::Dots(text) => {
                write!(f, "pattern {text:?}: '.', '..' and empty parts match nothing; write the path itself")
            }
            PatternFault::Syntax(text) => write!(
                f,
                "pattern {text:?}: a bracket or brace does not close, or a backslash is last; write \\[ for the character"
            ),
        }
    }
}

impl std::error::Error for PatternFault {}

#[derive(Clone, Debug)]
struct Pattern {
    glob: String,
    anchored: bool,
    directories_only: bool,
}

impl Pattern {
    fn parse(text: &str) -> Result<Pattern, PatternFault> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(PatternFault::TooLong);
        }
        if text.starts_with('!') {
            return Err(PatternFault::Negated(text.to_owned()));
        }
        let body = text.strip_suffix('/').unwrap_or(text);
        let anchored = body.contains('/');
        let glob = body.strip_prefix('/').unwrap_or(body);
        if glob.is_empty() {
            return Err(PatternFault::Empty);
        }
        if glob.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(PatternFault::Dots(text.to_owned()));
        }
        // A name that begins with '!' behind a slash would be read as a negation by the matcher.
        let glob = if glob.starts_with('!') { format!("\\{glob}") } else { glob.to_owned() };
        if fast_glob::validate(&glob).is_err() {
            return Err(PatternFault::Syntax(text.to_owned()));
        }
        Ok(Pattern { glob, anchored, directories_only: text.ends_with('/') })
    }

    /// Whether the pattern means the same without the beginning of a path.
    fn is_of_any_depth(&self) -> bool {
        !self.anchored || self.glob.strip_prefix("**/").is_some_and(|name| !name.contains('/'))
    }

    fn matches(&self, path: &[u8], name: &[u8], is_directory: bool) -> bool {
        (is_directory || !self.directories_only)
            && fast_glob::glob_match(&self.glob, if self.anchored { path } else { name })
    }
}

/// Include and exclude patterns, ready to match.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

/// The verdict of the patterns on one item, given that on its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Left out, with everything below.
    Excluded,
    /// Not taken itself; something below may be.
    Outside,
    /// Taken, with everything below that is not excluded.
    Taken,
}

impl Patterns {
    /// Reads both lists.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Patterns, PatternFault> {
        let parse = |list: &[String]| -> Result<Vec<Pattern>, PatternFault> {
            list.iter().map(|text| Pattern::parse(text)).collect()
        };
        Ok(Patterns { include: parse(include)?, exclude: parse(exclude)? })
    }

    /// Whether everything is taken.
    pub fn is_everything(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// Whether include pattern `at` matches an item itself.
    fn includes(&self, at: usize, path: &[u8], is_directory: bool) -> bool {
        let name = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
        self.include.get(at).is_some_and(|pattern| pattern.matches(path, name, is_directory))
    }

    /// A digest of the patterns: two lists with the same one select the same paths.
    pub fn identity(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for (list, tag) in [(&self.include, b'i'), (&self.exclude, b'e')] {
            for pattern in list {
                hasher.update(&[tag, u8::from(pattern.anchored), u8::from(pattern.directories_only)]);
                hasher.update(&(pattern.glob.len() as u64).to_le_bytes()).update(pattern.glob.as_bytes());
            }
        }
        *hasher.finalize().as_bytes()
    }

    /// The verdict on the root, where a walk begins.
    pub fn of_root(&self) -> Verdict {
        if self.include.is_empty() { Verdict::Taken } else { Verdict::Outside }
    }

    /// What counts where only the end of a path is known, and what is said there of a directory of which this was said.
    fn deep(&self, verdict: Verdict) -> (Patterns, Verdict) {
        let of_any_depth = |list: &[Pattern]| list.iter().filter(|p| p.is_of_any_depth()).cloned().collect();
        let patterns =
            Patterns { include: of_any_depth(&self.include), exclude: of_any_depth(&self.exclude) };
        // Rather more than less.
        let unsure = self.include.iter().any(|p| !p.is_of_any_depth() && p.glob.contains("**"));
        let verdict = if unsure && verdict == Verdict::Outside { Verdict::Taken } else { verdict };
        (patterns, verdict)
    }

    /// Judges an item. `path` is from the root, without a slash in front; `above` is the verdict of its directory.
    pub fn judge(&self, above: Verdict, path: &[u8], is_directory: bool) -> Verdict {
        let name = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
        let any = |list: &[Pattern]| list.iter().any(|pattern| pattern.matches(path, name, is_directory));
        match above {
            Verdict::Excluded => Verdict::Excluded,
            _ if any(&self.exclude) => Verdict::Excluded,
            Verdict::Taken => Verdict::Taken,
            Verdict::Outside if any(&self.include) => Verdict::Taken,
            Verdict::Outside => Verdict::Outside,
        }
    }
}

/// The message about an include pattern that matches nothing.
pub fn unmatched_include(text: &str) -> String {
    format!(
        "include {text:?} matches nothing on any of the policy's volumes; correct the pattern, or remove it"
    )
}

/// Which inodes of a volume a policy takes, and under which names.
#[derive(Debug)]
pub enum Selection {
    /// All of them.
    All,
    /// Some of them.
    Only {
        /// Their inode numbers.
        inodes: InodeSet,
        /// Names of them that are left out.
        hidden: HiddenNames,
    },
}

/// Include patterns by their place in the list, as bits: those that no item of a volume matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unmatched([u64; PATTERNS_MAX / 64]);

impl Unmatched {
    /// The first `count` patterns.
    pub fn first(count: usize) -> Unmatched {
        let mut unmatched = Unmatched::default();
        (0..count.min(PATTERNS_MAX)).for_each(|at| unmatched.0[at / 64] |= 1 << (at % 64));
        unmatched
    }

    /// As words, for the wire.
    pub fn words(&self) -> [u64; PATTERNS_MAX / 64] {
        self.0
    }

    /// The inverse of [`Unmatched::words`].
    pub fn from_words(words: [u64; PATTERNS_MAX / 64]) -> Unmatched {
        Unmatched(words)
    }

    /// Their places, ascending.
    pub fn places(&self) -> impl Iterator<Item = usize> + '_ {
        let of_word = |(word, bits): (usize, u64)| {
            (0..64).filter(move |at| bits >> at & 1 != 0).map(move |at| word * 64 + at)
        };
        self.0.into_iter().enumerate().filter(|&(_, bits)| bits != 0).flat_map(of_word)
    }

    /// Those that neither volume has anything for: a policy's patterns are for all of its volumes.
    pub fn of_both(&self, other: &Unmatched) -> Unmatched {
        Unmatched(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    fn remove(&mut self, at: usize) {
        self.0[at / 64] &= !(1 << (at % 64));
    }
}

impl Selection {
    /// Whether `inode` is taken. Logarithmic in the set's pages; does not allocate.
    pub fn contains(&self, inode: u64) -> bool {
        match self {
            Selection::All => true,
            Selection::Only { inodes, .. } => inodes.contains(inode),
        }
    }

    /// Whether the entry `name` of `directory`, which names `inode`, is taken.
    pub fn contains_name(&self, directory: u64, name: &[u8], inode: u64) -> bool {
        match self {
            Selection::All => true,
            Selection::Only { inodes, hidden } => inodes.contains(inode) && !hidden.contains(directory, name),
        }
    }
}

/// Why a selection could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelectFault {
    /// The volume could not be read.
    Volume(VolumeFault),
    /// More inodes than a set holds.
    TooManyInodes,
    /// More names of files that are taken under others than are kept.
    TooManyNames,
    /// Stopped on request.
    Stopped,
}

impl fmt::Display for SelectFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SelectFault::Volume(fault) => fault.fmt(f),
            SelectFault::TooManyInodes => write!(
                f,
                "more inodes than {} MiB can select from; back the volume up without patterns",
                INODE_SET_BYTES_MAX >> 20
            ),
            SelectFault::TooManyNames => write!(
                f,
                "the patterns leave out more than {HIDDEN_NAMES_MAX} names of files that they take under another name; \
                 exclude the directories of these names, or back the volume up without patterns"
            ),
            SelectFault::Stopped => f.write_str("stopped on request, before anything was written"),
        }
    }
}

impl std::error::Error for SelectFault {}

impl From<VolumeFault> for SelectFault {
    fn from(fault: VolumeFault) -> SelectFault {
        SelectFault::Volume(fault)
    }
}

impl From<Full> for SelectFault {
    fn from(_: Full) -> SelectFault {
        SelectFault::TooManyInodes
    }
}

/// Finds the inodes that `patterns` take, and which include patterns match nothing. Reads all metadata twice (once as a sweep), and once more
/// when there are files of which some names are left out; no data.
///
/// # Errors
/// See [`SelectFault`]. Items whose metadata is damaged are passed over here; the backup itself names them.
pub fn build(
    volume: &mut dyn Volume,
    device: &mut dyn BlockDevice,
    patterns: &Patterns,
    progress: &Progress,
) -> Result<(Selection, Unmatched), SelectFault> {
    if patterns.is_everything() || volume.info().kind == windlass_hal::volume::VolumeKind::Image {
        return Ok((Selection::All, Unmatched::default()));
    }
    let found = Walk::all(volume, device, patterns, progress, InodeSet::new())?;
    let (inodes, unmatched, mut mixed) = (found.taken, found.unmatched, found.left_out);
    mixed.keep_common(&inodes);
    let mut hidden = HiddenNames::default();
    if !mixed.is_empty() {
        hidden = Walk::all(volume, device, patterns, progress, mixed)?.hidden;
        hidden.seal();
    }
    Ok((Selection::Only { inodes, hidden }, unmatched))
}

fn find_directories(
    volume: &mut dyn Volume,
    device: &mut dyn BlockDevice,
    window: &mut Window,
    progress: &Progress,
) -> Result<InodeSet, SelectFault> {
    let mut directories = InodeSet::new();
    let mut cursor = Cursor::default();
    loop {
        if progress.is_stop_requested() {
            return Err(SelectFault::Stopped);
        }
        let swept = volume.sweep(device, cursor, window)?;
        for item in window.items.iter().filter(|item| item.kind == ItemKind::Directory) {
            directories.insert(item.inode)?;
        }
        match swept {
            Swept::More(next) => cursor = next,
            Swept::Done => return Ok(directories),
        }
    }
}

/// A directory on the walk's stack.
#[derive(Debug)]
struct Level {
    inode: u64,
    verdict: Verdict,
    /// Bytes of `Walk::path` that are this directory's.
    path_bytes: usize,
    /// Subdirectories to enter, last first.
    pending: Vec<Pending>,
    /// Where to read on: within the directory, and how many names of that part were seen. `None` when all were.
    rest: Option<(u64, usize)>,
}

#[derive(Debug)]
struct Pending {
    name: Vec<u8>,
    inode: u64,
    verdict: Verdict,
}

struct Walk<'a> {
    volume: &'a mut dyn Volume,
    device: &'a mut dyn BlockDevice,
    patterns: &'a Patterns,
    progress: &'a Progress,
    window: Window,
    /// Directories not entered yet.
    directories: InodeSet,
    /// Directories deeper than the walk keeps the way to, of which [`Verdict::Outside`] or [`Verdict::Taken`] was said.
    deep: [InodeSet; 2],
    found: Found,
    /// Files of which a name is taken and another left out, once they are known.
    mixed: InodeSet,
    path: Vec<u8>,
    stack: Vec<Level>,
    pending_bytes: usize,
}

/// What a walk finds.
#[derive(Debug, Default)]
struct Found {
    taken: InodeSet,
    /// What has a name that is left out, in a directory that is not; directories are not counted.
    left_out: InodeSet,
    /// Names of `Walk::mixed` that are left out.
    hidden: HiddenNames,
    unmatched: Unmatched,
}

impl Walk<'_> {
    /// Walks all of the volume.
    fn all(
        volume: &mut dyn Volume,
        device: &mut dyn BlockDevice,
        patterns: &Patterns,
        progress: &Progress,
        mixed: InodeSet,
    ) -> Result<Found, SelectFault> {
        let mut window = Window::default();
        let directories = find_directories(volume, device, &mut window, progress)?;
        let root = volume.info().root;
        let found = Found { unmatched: Unmatched::first(patterns.include.len()), ..Found::default() };
        let mut walk = Walk {
            volume,
            device,
            patterns,
            progress,
            window,
            directories,
            found,
            deep: [InodeSet::new(), InodeSet::new()],
            mixed,
            path: Vec::new(),
            stack: Vec::new(),
            pending_bytes: 0,
        };
        walk.found.taken.insert(root)?;
        walk.enter(root, patterns.of_root())?;
        walk.run()?;
        if walk.deep.iter().any(|deep| !deep.is_empty()) {
            // Which patterns match down there is not asked.
            walk.found.unmatched = Unmatched::default();
        }
        let deep = [Verdict::Outside, Verdict::Taken].map(|verdict| patterns.deep(verdict));
        for (at, (patterns, verdict)) in deep.iter().enumerate() {
            walk.patterns = patterns;
            while let Some(inode) = walk.deep[at].pop_first() {
                walk.path.clear();
                walk.enter(inode, *verdict)?;
                walk.run()?;
            }
        }
        Ok(walk.found)
    }

    fn enter(&mut self, inode: u64, verdict: Verdict) -> Result<(), SelectFault> {
        if self.stack.len() >= DEPTH_MAX || self.path.len() > PATH_BYTES_MAX {
            return self.put_off(inode, verdict);
        }
        if !self.directories.remove(inode) {
            return Ok(());
        }
        let path_bytes = self.path.len();
        self.stack.push(Level { inode, verdict, path_bytes, pending: Vec::new(), rest: Some((0, 0)) });
        Ok(())
    }

    /// Leaves a directory for later. The way to it is taken: something below it may be.
    fn put_off(&mut self, inode: u64, verdict: Verdict) -> Result<(), SelectFault> {
        if !self.directories.contains(inode) {
            return Ok(());
        }
        let way = self.stack.iter().rev().map(|level| level.inode);
        for inode in std::iter::once(inode).chain(way) {
            self.found.taken.insert(inode)?;
        }
        self.deep[usize::from(verdict == Verdict::Taken)].insert(inode)?;
        Ok(())
    }

    fn run(&mut self) -> Result<(), SelectFault> {
        while let Some(level) = self.stack.last_mut() {
            if self.progress.is_stop_requested() {
                return Err(SelectFault::Stopped);
            }
            self.path.truncate(level.path_bytes);
            if let Some(next) = level.pending.pop() {
                self.pending_bytes -= next.name.len();
                push_name(&mut self.path, &next.name);
                self.enter(next.inode, next.verdict)?;
            } else if let Some((within, seen)) = level.rest {
                self.read_part(within, seen)?;
            } else {
                self.stack.pop();
            }
        }
        Ok(())
    }

    /// Reads names of the top directory from `within` on, past the `seen` first ones, until the part ends or enough wait.
    fn read_part(&mut self, within: u64, seen: usize) -> Result<(), SelectFault> {
        let Some(depth) = self.stack.len().checked_sub(1) else { return Ok(()) };
        let inode = self.stack[depth].inode;
        let swept = self.volume.item(self.device, inode, within, &mut self.window)?;
        let after = match swept {
            // A part that does not move on would be read for ever.
            Swept::More(next) if next.inode == inode && next.within > within => Some((next.within, 0)),
            Swept::More(_) | Swept::Done => None,
        };
        let window = std::mem::take(&mut self.window);
        let names =
            window.items.first().map_or(0..0, |item| item.names.start as usize..item.names.end as usize);
        let mut rest = after;
        for (at, name) in window.names[names].iter().enumerate().skip(seen) {
            self.take_name(depth, window.get(&name.name), name.inode)?;
            if self.pending_bytes >= PENDING_BYTES_MAX && !self.stack[depth].pending.is_empty() {
                rest = Some((within, at + 1));
                break;
            }
        }
        self.window = window;
        self.stack[depth].rest = rest;
        Ok(())
    }

    fn take_name(&mut self, depth: usize, name: &[u8], inode: u64) -> Result<(), SelectFault> {
        let (above, path_bytes) = (self.stack[depth].verdict, self.stack[depth].path_bytes);
        let is_directory = self.directories.contains(inode);
        push_name(&mut self.path, name);
        let verdict = self.patterns.judge(above, &self.path, is_directory);
        if verdict != Verdict::Excluded {
            let unmatched = self.found.unmatched;
            let matched =
                unmatched.places().filter(|&at| self.patterns.includes(at, &self.path, is_directory));
            matched.for_each(|at| self.found.unmatched.remove(at));
        }
        self.path.truncate(path_bytes);
        if verdict == Verdict::Taken {
            self.found.taken.insert(inode)?;
            // The way to it, from below, until a directory that is taken already.
            for level in self.stack[..=depth].iter().rev() {
                if !self.found.taken.insert(level.inode)? {
                    break;
                }
            }
        } else if self.mixed.contains(inode) {
            let hidden = &mut self.found.hidden;
            hidden.add(self.stack[depth].inode, name).map_err(|Full| SelectFault::TooManyNames)?;
        } else if !is_directory {
            self.found.left_out.insert(inode)?;
        }
        if is_directory && verdict != Verdict::Excluded {
            self.pending_bytes += name.len();
            self.stack[depth].pending.push(Pending { name: name.to_vec(), inode, verdict });
        }
        Ok(())
    }
}

fn push_name(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

#[cfg(test)]
#[path = "select_test.rs"]
mod tests;
