//! What the file-system tests share: a device over a file or memory, and a whole volume collected from sweeps.
//!
//! Every collection checks what `volume` promises about windows: order, bounds, parts, ranges.
#![allow(dead_code)]

pub mod guest;
pub mod kernel;
pub mod sha256;
pub mod xfs;
pub mod xfs_seal;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use windlass_hal::block::{BlockDevice, DeviceId, Fault, FaultKind, Geometry, Request, Wait};
use windlass_hal::volume::{
    Cursor, Extent, ExtentState, ITEM_XATTR_BYTES_MAX, Item, Payload, Swept, Volume, VolumeFault,
    WINDOW_BYTES_MAX, WINDOW_EXTENTS_MAX, WINDOW_ITEMS_MAX, WINDOW_NAMES_MAX, Window, detect,
};

/// Where tools are that an unprivileged PATH leaves out.
const TOOL_DIRS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Says that a test did not run, past the test runner's capture: this kernel, processor or version of a tool cannot do it.
pub fn unsupported(test: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
}

/// The same for what can be had: a package, privilege.
///
/// # Panics
/// With `WINDLASS_NO_SKIP` set.
pub fn skipped(test: &str, reason: &str) {
    unsupported(test, reason);
    assert!(std::env::var_os("WINDLASS_NO_SKIP").is_none(), "skipping is not allowed: {test}: {reason}");
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether `program` can be started.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(TOOL_DIRS.iter().map(PathBuf::from))
        .any(|dir| dir.join(program).exists())
}

/// Where images go: memory when there is plenty, for mke2fs syncs what it writes.
fn fast_dir() -> PathBuf {
    const BYTES_MIN: u64 = 2 << 30;
    let memory = Path::new("/dev/shm");
    match nix::sys::statvfs::statvfs(memory) {
        Ok(stat) if stat.blocks_available() * stat.fragment_size() >= BYTES_MIN => memory.to_owned(),
        _ => std::env::temp_dir(),
    }
}

/// A directory that goes away with its value.
pub struct Scratch(pub PathBuf);

impl Scratch {
    /// A fresh directory, named for the test.
    pub fn new(name: &str) -> Scratch {
        let path = fast_dir().join(format!("windlass-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a program and returns what it printed.
///
/// # Panics
/// When it fails.
pub fn run(program: &str, args: &[&str]) -> String {
    let inherited = std::env::var("PATH").unwrap_or_default();
    let path = format!("{inherited}:{}", TOOL_DIRS.join(":"));
    let output = Command::new(program).args(args).env("PATH", path).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Makes an ext4 (or what `-t` in `args` says) of `size`.
pub fn make_ext4(image: &Path, args: &[&str], size: &str) {
    let kind = if args.contains(&"-t") { &[][..] } else { &["-t", "ext4"] };
    run("mke2fs", &[&["-q", "-F", "-N", "6000"], kind, args, &[image.to_str().unwrap(), size]].concat());
}

/// The volume in `image`, collected.
///
/// # Panics
/// When it is refused, or an item has a fault.
pub fn sound(image: &Path, name: &str) -> (TestDevice, Tree) {
    let mut device = TestDevice::file(image);
    let mut volume = detect::open(&mut device).unwrap_or_else(|fault| panic!("{name}: {fault}"));
    let tree = collect(&mut device, volume.as_mut()).unwrap();
    for (inode, (_, whole)) in &tree {
        assert_eq!(whole.fault, None, "{name}: inode {inode}");
    }
    (device, tree)
}

/// Bytes of a device.
pub enum Bytes {
    /// A file.
    File(File),
    /// Memory, shared with the test that damages it.
    Memory(Vec<u8>),
}

/// A device that only reads. Counts its reads; byte ranges can be made to fail.
pub struct TestDevice {
    bytes: Bytes,
    size: u64,
    id: DeviceId,
    /// Reads so far.
    pub reads: u64,
    /// Bytes read so far.
    pub read_bytes: u64,
    /// Byte ranges that fail.
    pub bad: Vec<std::ops::Range<u64>>,
    /// Reads left before the device gives up, to catch endless work.
    pub reads_left: u64,
}

impl TestDevice {
    /// Over a file.
    pub fn file(path: &Path) -> TestDevice {
        let file = File::open(path).unwrap();
        let size = file.metadata().unwrap().len();
        TestDevice::new(Bytes::File(file), size)
    }

    /// Over memory.
    pub fn memory(bytes: Vec<u8>) -> TestDevice {
        let size = bytes.len() as u64;
        TestDevice::new(Bytes::Memory(bytes), size)
    }

    fn new(bytes: Bytes, size: u64) -> TestDevice {
        TestDevice {
            bytes,
            size,
            id: DeviceId { name: "test".into(), stable: "test:1".into() },
            reads: 0,
            read_bytes: 0,
            bad: Vec::new(),
            reads_left: u64::MAX,
        }
    }

    /// The memory of a device made with [`TestDevice::memory`].
    pub fn memory_mut(&mut self) -> &mut Vec<u8> {
        match &mut self.bytes {
            Bytes::Memory(bytes) => bytes,
            Bytes::File(_) => panic!("not in memory"),
        }
    }
}

impl BlockDevice for TestDevice {
    fn geometry(&self) -> Geometry {
        Geometry {
            size_bytes: self.size,
            logical_block_bytes: 512,
            physical_block_bytes: 4096,
            io_optimal_bytes: 0,
            operations_per_sec_max: 0,
            rotational: false,
            can_discard: false,
            read_only: true,
        }
    }

    fn identity(&self) -> &DeviceId {
        &self.id
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        Err(request)
    }

    fn complete(&mut self, _wait: Wait, _done: &mut dyn FnMut(Request)) -> usize {
        0
    }

    fn in_flight(&self) -> usize {
        0
    }

    fn queue_depth(&self) -> usize {
        1
    }

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        let len = out.len() as u64;
        let fault = |kind| Err(Fault { kind, device_offset: offset, len, errno: 0 });
        self.reads += 1;
        self.read_bytes += len;
        let left = self.reads_left;
        assert!(left > 0, "the reader reads without end");
        self.reads_left = left - 1;
        let Some(end) = offset.checked_add(len).filter(|&end| end <= self.size) else {
            return fault(FaultKind::Misuse);
        };
        if self.bad.iter().any(|bad| bad.start < end && offset < bad.end) {
            return fault(FaultKind::Media);
        }
        match &self.bytes {
            Bytes::File(file) => file.read_exact_at(out, offset).unwrap(),
            Bytes::Memory(bytes) => out.copy_from_slice(&bytes[offset as usize..end as usize]),
        }
        Ok(())
    }
}

/// An item put together from its parts, with everything copied out of the windows.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Whole {
    /// Attributes as one string, `{:?}` of what has no ranges.
    pub attributes: String,
    /// Extents of all parts.
    pub extents: Vec<Extent>,
    /// Names of all parts.
    pub names: Vec<(Vec<u8>, u64)>,
    /// Attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Symlink target.
    pub target: Option<Vec<u8>>,
    /// Inline contents.
    pub inline: Option<Vec<u8>>,
    /// First fault of all parts, as text.
    pub fault: Option<String>,
    /// Number of parts.
    pub parts: u32,
}

/// A volume: whole items and the bare ones by inode number.
pub type Tree = BTreeMap<u64, (Item, Whole)>;

/// Sweeps that no test volume needs.
const CALLS_MAX: u32 = 100_000;

/// Collects the volume, checking every window.
///
/// # Errors
/// Those of the sweep.
pub fn collect(device: &mut TestDevice, volume: &mut dyn Volume) -> Result<Tree, VolumeFault> {
    let mut tree = Tree::new();
    let mut cursor = Cursor::default();
    let mut window = Window::default();
    let mut open: Option<(u64, u64)> = None;
    for calls in 0.. {
        assert!(calls < CALLS_MAX, "the sweep does not end");
        let swept = volume.sweep(device, cursor, &mut window)?;
        check_window(&window);
        for item in &window.items {
            absorb(&mut tree, &window, item, &mut open);
        }
        match swept {
            Swept::Done => break,
            Swept::More(next) => {
                assert!(next > cursor, "the cursor moves: {cursor:?} {next:?}");
                cursor = next;
            }
        }
    }
    assert!(open.is_none(), "every item ends");
    Ok(tree)
}

/// Adds one part to the tree.
pub fn absorb(tree: &mut Tree, window: &Window, item: &Item, open: &mut Option<(u64, u64)>) {
    if item.part.first {
        assert!(open.is_none());
        assert!(tree.last_key_value().is_none_or(|(&last, _)| last < item.inode), "items ascend");
        tree.insert(item.inode, (item.clone(), Whole::default()));
    } else {
        assert_eq!(open.take(), Some((item.inode, item.part.from)), "parts follow each other");
    }
    if !item.part.last {
        *open = Some((item.inode, item.part.to));
    }
    let (_, whole) = tree.get_mut(&item.inode).unwrap();
    let attributes = attributes(item);
    assert!(item.part.first || whole.attributes == attributes, "attributes are the same in every part");
    whole.attributes = attributes;
    whole.parts += 1;
    let extents = &window.extents[item.extents.start as usize..item.extents.end as usize];
    for extent in extents {
        assert!(extent.logical >= item.part.from && extent.logical < item.part.to);
        assert!(extent.len > 0);
        assert!(whole.extents.last().is_none_or(|last| last.logical + last.len <= extent.logical));
        whole.extents.push(*extent);
    }
    for name in &window.names[item.names.start as usize..item.names.end as usize] {
        let bytes = window.get(&name.name).to_vec();
        assert!((1..=255).contains(&bytes.len()) && !bytes.contains(&b'/') && !bytes.contains(&0));
        assert!(bytes != b"." && bytes != b"..");
        whole.names.push((bytes, name.inode));
    }
    for xattr in &window.xattrs[item.xattrs.start as usize..item.xattrs.end as usize] {
        assert!(item.part.first);
        let name = window.get(&xattr.name).to_vec();
        assert!(whole.xattrs.last().is_none_or(|(last, _)| *last < name));
        whole.xattrs.push((name, window.get(&xattr.value).to_vec()));
    }
    match &item.payload {
        Payload::None => {}
        Payload::Target(range) => whole.target = Some(window.get(range).to_vec()),
        Payload::Inline(range) => {
            assert!(range.len() as u64 <= item.size);
            whole.inline = Some(window.get(range).to_vec());
        }
    }
    if whole.fault.is_none() {
        whole.fault = item.fault.as_ref().map(ToString::to_string);
    }
}

/// The attributes of an item as text.
pub fn attributes(item: &Item) -> String {
    format!(
        "{:?} gen {} mode {:o} {}:{} links {} rdev {:?} size {} a {:?} m {:?} c {:?} b {:?} flags {:x} project {} hints {:x?} parent {}",
        item.kind,
        item.generation,
        item.mode,
        item.uid,
        item.gid,
        item.links,
        item.rdev,
        item.size,
        item.atime,
        item.mtime,
        item.ctime,
        item.btime,
        item.flags,
        item.project,
        item.hints,
        item.parent
    )
}

fn check_window(window: &Window) {
    assert!(window.items.len() <= WINDOW_ITEMS_MAX);
    assert!(window.extents.len() <= WINDOW_EXTENTS_MAX);
    assert!(window.names.len() <= WINDOW_NAMES_MAX);
    assert!(window.bytes.len() <= WINDOW_BYTES_MAX + ITEM_XATTR_BYTES_MAX);
    assert!(window.items.windows(2).all(|w| w[0].inode < w[1].inode));
    for item in &window.items {
        assert!(item.mode <= 0o7777);
        assert!(item.size <= i64::MAX as u64);
        for time in [Some(item.atime), Some(item.mtime), Some(item.ctime), item.btime].into_iter().flatten() {
            assert!(time.nanos < 1_000_000_000);
        }
    }
}

/// Bytes of a file through its extents.
pub fn contents(device: &mut TestDevice, item: &Item, whole: &Whole) -> Vec<u8> {
    let mut out = vec![0; item.size as usize];
    if let Some(inline) = &whole.inline {
        out[..inline.len()].copy_from_slice(inline);
        return out;
    }
    for extent in whole.extents.iter().filter(|e| e.state == ExtentState::Data && e.logical < item.size) {
        let len = extent.len.min(item.size - extent.logical) as usize;
        let at = extent.logical as usize;
        device.read_at(extent.physical, &mut out[at..at + len]).unwrap();
    }
    out
}

/// Paths of all items below the root, with the inode each names; a hard link has several.
pub fn paths(tree: &Tree) -> BTreeMap<Vec<u8>, u64> {
    paths_from(tree, 2)
}

/// The same below the directory `root`.
pub fn paths_from(tree: &Tree, root: u64) -> BTreeMap<Vec<u8>, u64> {
    let mut out = BTreeMap::from([(b".".to_vec(), root)]);
    let mut todo = vec![(b".".to_vec(), root)];
    while let Some((path, inode)) = todo.pop() {
        let Some((_, whole)) = tree.get(&inode) else { continue };
        for (name, child) in &whole.names {
            let mut full = path.clone();
            full.push(b'/');
            full.extend_from_slice(name);
            out.insert(full.clone(), *child);
            if tree.get(child).is_some_and(|(item, _)| item.kind == windlass_hal::volume::ItemKind::Directory)
            {
                assert!(full.len() < 1 << 16, "a loop of directories");
                todo.push((full, *child));
            }
        }
    }
    out
}

/// A seeded generator (splitmix64).
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}
