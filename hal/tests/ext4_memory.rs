//! Memory of a sweep: the same for ten thousand items and for a million, and below 8 MiB, window and all. The million is one directory,
//! made by the kernel; its names are compared with what the kernel lists.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirEntryExt;
use std::path::Path;

use support::{Scratch, TestDevice, has, is_root, run, skipped, unsupported};
use windlass_hal::volume::{Cursor, ItemKind, Swept, Window, detect};

#[global_allocator]
static MEMORY: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

/// The promise: reader and window.
const MEMORY_BYTES_MAX: usize = 8 << 20;

/// A mount that ends with its value.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0).status();
    }
}

/// Makes a volume with `count` empty files in one directory; returns what the kernel lists of it. The error says why not.
fn make(image: &Path, at: &Path, count: u64, size: &str) -> Result<Vec<(Vec<u8>, u64)>, String> {
    let inodes = (count + 64).to_string();
    let args = ["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-N", &inodes];
    run("mke2fs", &[&args[..], &[image.to_str().unwrap(), size]].concat());
    let output = std::process::Command::new("mount").args(["-o", "loop"]).args([image, at]).output().unwrap();
    if !output.status.success() {
        return Err(format!("mount: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let _mounted = Mounted(at);
    let dir = at.join("d");
    std::fs::create_dir(&dir).unwrap();
    for k in 0..count {
        std::fs::File::create(dir.join(format!("entry number {k}"))).unwrap();
    }
    let mut names: Vec<(Vec<u8>, u64)> = std::fs::read_dir(&dir)
        .unwrap()
        .map(Result::unwrap)
        .map(|entry| (entry.file_name().as_bytes().to_vec(), entry.ino()))
        .collect();
    names.sort();
    Ok(names)
}

/// Sweeps; returns the most bytes that it took, and the reads.
fn peak(device: &mut TestDevice) -> (usize, u64) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let mut volume = detect::open(device).unwrap();
    let mut window = Window::default();
    let mut from = Cursor::default();
    while let Swept::More(next) = volume.sweep(device, from, &mut window).unwrap() {
        from = next;
    }
    volume.used(device, &mut |_| {}).unwrap();
    (MEMORY.peak_usage().saturating_sub(before), device.reads)
}

/// The names of the large directory, and the number of items.
fn names(device: &mut TestDevice) -> (Vec<(Vec<u8>, u64)>, u64) {
    let mut volume = detect::open(device).unwrap();
    let (mut names, mut items) = (Vec::new(), 0);
    let mut window = Window::default();
    let mut from = Cursor::default();
    loop {
        let swept = volume.sweep(device, from, &mut window).unwrap();
        for item in &window.items {
            assert_eq!(item.fault, None);
            items += u64::from(item.part.first);
            if item.kind == ItemKind::Directory && item.inode > 11 {
                let range = item.names.start as usize..item.names.end as usize;
                names.extend(
                    window.names[range].iter().map(|name| (window.get(&name.name).to_vec(), name.inode)),
                );
            }
        }
        match swept {
            Swept::More(next) => from = next,
            Swept::Done => break,
        }
    }
    names.sort();
    (names, items)
}

#[test]
fn memory_does_not_grow_with_inodes() {
    let test = "memory_does_not_grow_with_inodes";
    if !is_root() || !has("mke2fs") || !has("mount") {
        return skipped(test, "not root, or no mke2fs or mount");
    }
    let scratch = Scratch::new("memory");
    let (image, at) = (scratch.join("image"), scratch.join("mnt"));
    std::fs::create_dir(&at).unwrap();
    let mut peaks = Vec::new();
    for (count, size) in [(10_000, "64M"), (1_000_000, "600M")] {
        let wanted = match make(&image, &at, count, size) {
            Ok(wanted) => wanted,
            Err(reason) => return unsupported(test, &reason),
        };
        let mut device = TestDevice::file(&image);
        let (peak, reads) = peak(&mut device);
        eprintln!("{count} items: {peak} bytes of memory, {reads} reads");
        assert!(peak <= MEMORY_BYTES_MAX, "{count} items: {peak} bytes");
        peaks.push(peak);
        // Root, lost+found, the directory.
        let (found, items) = names(&mut device);
        assert_eq!(items, count + 3);
        assert!(found == wanted, "{count}: {} names, not {}", found.len(), wanted.len());
    }
    let (few, many) = (peaks[0], peaks[1]);
    assert!(many <= few + few / 10, "{few} bytes for few items, {many} for many");
}
