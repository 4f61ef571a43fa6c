//! Which parts of a file are data, holes, or allocated but unwritten, as the file system says.
//!
//! Asked of `filefrag` (FIEMAP), an oracle that shares no code with us; where the file system has no FIEMAP, of
//! SEEK_DATA, which cannot tell unwritten from hole, and the map says so. Files are handed to filefrag as
//! `/proc/PID/fd/N`, because real names may hold newlines.
//!
//! Does not say where on the device an extent lies. Source: e2fsprogs misc/filefrag.c for the output's form.

use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::error::{Context, Error, Result, output};

/// Files asked about at once: each is an open descriptor and an argument.
pub const BATCH_FILES_MAX: usize = 200;

/// What an allocated part of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Bytes that were written.
    Data,
    /// Allocated, reads as zero.
    Unwritten,
}

/// One part, in bytes from the start of the file; what lies between parts is a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First byte.
    pub start: u64,
    /// One past the last byte, rounded up to the file system's block.
    pub end: u64,
    /// What it is.
    pub state: State,
}

/// The parts of one file in order, neighbours of one state merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map {
    /// The parts.
    pub runs: Vec<Run>,
    /// Whether unwritten parts are told from holes.
    pub exact: bool,
}

impl Map {
    /// Equal as far as both can tell.
    #[must_use]
    pub fn agrees_with(&self, other: &Map) -> bool {
        if self.exact == other.exact {
            return self.runs == other.runs;
        }
        self.data().eq(other.data())
    }

    fn data(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(|run| run.state == State::Data)
    }

    fn push(&mut self, run: Run) {
        match self.runs.last_mut() {
            Some(last) if last.end == run.start && last.state == run.state => last.end = run.end,
            _ => self.runs.push(run),
        }
    }
}

impl Display for Map {
    /// `data 0..4096, unwritten 8192..12288`; long maps are cut.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        const SHOWN_MAX: usize = 6;
        if self.runs.is_empty() {
            return f.write_str("all hole");
        }
        for (index, run) in self.runs.iter().take(SHOWN_MAX).enumerate() {
            let state = match run.state {
                State::Data => "data",
                State::Unwritten => "unwritten",
            };
            write!(f, "{}{state} {}..{}", if index == 0 { "" } else { ", " }, run.start, run.end)?;
        }
        match self.runs.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// The maps of up to [`BATCH_FILES_MAX`] open files, in their order. Data still in memory is flushed first.
pub fn maps(files: &[File]) -> Result<Vec<Map>> {
    assert!(files.len() <= BATCH_FILES_MAX, "one batch at a time");
    if files.is_empty() {
        return Ok(Vec::new());
    }
    match fiemaps(files) {
        Ok(maps) => Ok(maps),
        Err(_) => files.iter().map(seek_map).collect(),
    }
}

fn fiemaps(files: &[File]) -> Result<Vec<Map>> {
    let pid = std::process::id();
    let mut command = Command::new("filefrag");
    // -s: delayed allocations have no extents before they are flushed.
    command
        .args(["-s", "-v", "-e"])
        .args(files.iter().map(|file| format!("/proc/{pid}/fd/{}", file.as_raw_fd())));
    let maps = parse(&String::from_utf8_lossy(&output(&mut command)?))?;
    if maps.len() == files.len() {
        return Ok(maps);
    }
    Err(Error::new(format!("filefrag spoke of {} files, not {}", maps.len(), files.len())))
}

/// Reads filefrag's tables: a `File size of … blocks of N bytes)` line opens each file, lines that start with
/// `number:` are extents.
fn parse(text: &str) -> Result<Vec<Map>> {
    let mut maps: Vec<Map> = Vec::new();
    let mut block_bytes = 0;
    for line in text.lines() {
        if line.starts_with("File size of ") {
            block_bytes = line
                .rsplit_once(" of ")
                .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok())
                .ok_or_else(|| Error::new(format!("filefrag's block size in {line:?}")))?;
            maps.push(Map { runs: Vec::new(), exact: true });
        } else if let (Some(map), Some(run)) = (maps.last_mut(), parse_extent(line, block_bytes)) {
            map.push(run);
        }
    }
    Ok(maps)
}

/// `   0:        0..      63:      34816..     34879:     64:             unwritten,last`
fn parse_extent(line: &str, block_bytes: u64) -> Option<Run> {
    let mut columns = line.split(':');
    columns.next()?.trim().parse::<u64>().ok()?;
    let (first, last) = columns.next()?.split_once("..")?;
    let state = if line.contains("unwritten") { State::Unwritten } else { State::Data };
    let start = first.trim().parse::<u64>().ok()?.checked_mul(block_bytes)?;
    let end = last.trim().parse::<u64>().ok()?.checked_add(1)?.checked_mul(block_bytes)?;
    Some(Run { start, end, state })
}

fn seek_map(file: &File) -> Result<Map> {
    let mut map = Map::default();
    let mut at = 0;
    loop {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(map),
            Err(why) => return Err(why).context(|| "SEEK_DATA"),
        };
        let end = seek(file, SeekFrom::Hole(start)).context(|| "SEEK_HOLE")?;
        // A hole ends on a block; the end of the file need not, and FIEMAP rounds it up.
        map.push(Run { start, end: end.next_multiple_of(BLOCK_BYTES), state: State::Data });
        at = end;
    }
}

/// What the end of a file is rounded to where FIEMAP is missing.
const BLOCK_BYTES: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::{File, Map, Run, State, maps, parse, seek_map};
    use crate::workdir::Workdir;
    use nix::fcntl::{FallocateFlags, fallocate};
    use std::os::unix::fs::FileExt;

    const TEXT: &str = "Filesystem type is: ef53\n\
        File size of /proc/1/fd/3 is 1048576 (256 blocks of 4096 bytes)\n \
        ext:     logical_offset:        physical_offset: length:   expected: flags:\n   \
        0:        0..      63:      34816..     34879:     64:            \n   \
        1:       64..     127:      99816..     99879:     64:      34880:\n   \
        2:      128..     255:      50000..     50127:    128:      99880: last,unwritten,eof\n\
        /proc/1/fd/3: 3 extents found\n\
        File size of /proc/1/fd/4 is 0 (0 blocks of 1024 bytes)\n/proc/1/fd/4: 0 extents found\n";

    #[test]
    fn filefrag_is_understood() {
        let maps = parse(TEXT).unwrap();
        assert_eq!(maps.len(), 2);
        let data = Run { start: 0, end: 524_288, state: State::Data };
        let rest = Run { start: 524_288, end: 1_048_576, state: State::Unwritten };
        assert_eq!(maps[0].runs, [data, rest]);
        assert_eq!(maps[0].to_string(), "data 0..524288, unwritten 524288..1048576");
        assert_eq!(maps[1].to_string(), "all hole");
        assert!(maps[0].agrees_with(&Map { runs: vec![data], exact: false }), "a map without unwritten");
        assert!(!maps[0].agrees_with(&Map { runs: vec![data], exact: true }));
    }

    #[test]
    fn holes_and_data_of_a_real_file() {
        let work = Workdir::new("extents").unwrap();
        let file = File::options().create_new(true).read(true).write(true).open(work.join("file")).unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(&[7; 65_536], 131_072).unwrap();
        let hidden = fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 2 << 20, 65_536).is_ok();
        let found = maps(&[file.try_clone().unwrap()]).unwrap().remove(0);
        let data = Run { start: 131_072, end: 196_608, state: State::Data };
        assert_eq!(found.runs[0], data);
        if found.exact && hidden {
            assert_eq!(
                found.runs[1],
                Run { start: 2 << 20, end: (2 << 20) + 65_536, state: State::Unwritten }
            );
        }
        assert_eq!(seek_map(&file).unwrap().runs, [data]);
    }
}
