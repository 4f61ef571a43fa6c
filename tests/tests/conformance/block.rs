//! The block-device suite on every port and wrapper. The Linux ports run on a plain file, and on a loop device where the
//! process is root; what cannot run here says so by name.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use windlass_hal::block::{BlockDevice, FaultKind, Op, Request, Segment, Wait};
use windlass_hal::buf::Pool;
use windlass_hal::linux::{self, Access, Caching, OpenFaultKind};
use windlass_hal::sim::clock::SimClock;
use windlass_hal::sim::disk::{Disk, DiskConfig, Media, MediaConfig};
use windlass_hal::wrap::fault::Faulty;
use windlass_hal::wrap::throttle::{Limits, Throttle};
use windlass_hal::wrap::trace::Trace;
use windlass_tests::conformance::block::{DEPTH, DEVICE_BYTES_MIN, Subject, run};
use windlass_tests::image::{Access as ImageAccess, Kind, Mount, Tmpfs, make_empty};
use windlass_tests::privilege::skip;
use windlass_tests::requires_root;
use windlass_tests::workdir::Workdir;

/// A plain file of the suite's size and a part of a block, removed at the end.
struct Image {
    path: PathBuf,
}

/// What an image has behind its last whole block.
const ODD_BYTES: u64 = 100;

impl Image {
    fn new(name: &str) -> Image {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("conformance-{name}.img"));
        Image::at(path, DEVICE_BYTES_MIN + ODD_BYTES)
    }

    fn at(path: PathBuf, bytes: u64) -> Image {
        File::create(&path).and_then(|f| f.set_len(bytes)).expect("the directory is writable");
        Image { path }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn access(write: bool) -> Access {
    if write { Access::Write } else { Access::Read }
}

fn ring(path: &Path, caching: Caching, write: bool, pool: &Pool) -> Box<dyn BlockDevice> {
    let pools = [pool.clone()];
    Box::new(linux::open_ring(path, access(write), caching, DEPTH, &pools).expect("opens"))
}

#[test]
fn ring_on_a_plain_file() {
    let image = Image::new("ring");
    run(&mut Subject { name: "ring", open: &mut |w, pool| ring(&image.path, Caching::Direct, w, pool) });
}

#[test]
fn ring_buffered() {
    let image = Image::new("ring-buffered");
    run(&mut Subject {
        name: "ring buffered",
        open: &mut |w, pool| ring(&image.path, Caching::Buffered, w, pool),
    });
}

#[test]
fn pread_on_a_plain_file() {
    let image = Image::new("pread");
    let mut open = |w, _: &Pool| -> Box<dyn BlockDevice> {
        Box::new(linux::open_pread(&image.path, access(w), Caching::Direct, DEPTH).expect("opens"))
    };
    run(&mut Subject { name: "pread", open: &mut open });
}

#[test]
fn pread_buffered() {
    let image = Image::new("pread-buffered");
    let mut open = |w, _: &Pool| -> Box<dyn BlockDevice> {
        Box::new(linux::open_pread(&image.path, access(w), Caching::Buffered, DEPTH).expect("opens"))
    };
    run(&mut Subject { name: "pread buffered", open: &mut open });
}

#[test]
fn what_open_chooses() {
    let image = Image::new("open");
    let mut open = |w, pool: &Pool| {
        linux::open(&image.path, access(w), DEPTH, std::slice::from_ref(pool)).expect("opens")
    };
    run(&mut Subject { name: "linux::open", open: &mut open });
}

/// A loop device over an image, detached at the end.
struct Loop {
    path: PathBuf,
    _image: Image,
}

impl Loop {
    /// `None`, with the reason printed, where this process cannot make one.
    fn attach(name: &str) -> Option<Loop> {
        Loop::over(name, Image::new(name), &[])
    }

    fn over(name: &str, image: Image, options: &[&str]) -> Option<Loop> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED {name}: loop devices need root");
            return None;
        }
        let losetup =
            Command::new("losetup").args(["--find", "--show"]).args(options).arg(&image.path).output();
        match losetup {
            Ok(out) if out.status.success() => {
                let path = PathBuf::from(String::from_utf8_lossy(&out.stdout).trim());
                Some(Loop { path, _image: image })
            }
            other => {
                eprintln!("SKIPPED {name}: losetup: {other:?}");
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}

#[test]
fn ring_on_a_loop_device() {
    let Some(device) = Loop::attach("loop-ring") else { return };
    run(&mut Subject {
        name: "ring loop",
        open: &mut |w, pool| ring(&device.path, Caching::Direct, w, pool),
    });
    let opened = linux::open_ring(&device.path, Access::Read, Caching::Direct, 1, &[]).expect("opens");
    assert!(opened.is_direct());
    assert!(opened.identity().stable.starts_with("dev:"), "{:?}", opened.identity());
}

#[test]
fn pread_on_a_loop_device() {
    let Some(device) = Loop::attach("loop-pread") else { return };
    let mut open = |w, _: &Pool| -> Box<dyn BlockDevice> {
        Box::new(linux::open_pread(&device.path, access(w), Caching::Direct, DEPTH).expect("opens"))
    };
    run(&mut Subject { name: "pread loop", open: &mut open });
}

/// Sectors of 4 KiB.
#[test]
fn on_a_loop_device_of_large_sectors() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance-loop-4k.img");
    let image = Image::at(path, DEVICE_BYTES_MIN + 4096);
    let Some(device) = Loop::over("loop-4k", image, &["--sector-size", "4096"]) else { return };
    for (name, open) in OPENERS {
        run(&mut Subject { name, open: &mut |w, pool| open(&device.path, w, pool) });
    }
    let opened = linux::open_ring(&device.path, Access::Read, Caching::Direct, 1, &[]).expect("opens");
    assert_eq!(opened.geometry().logical_block_bytes, 4096);
    assert!(opened.is_direct());
}

/// A part of a sector at a device's end, which the kernel gives to nobody, is a fault and not left out.
#[test]
fn half_a_sector_at_the_end_is_a_fault() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance-loop-half.img");
    let image = Image::at(path, DEVICE_BYTES_MIN + 2048);
    let Some(device) = Loop::over("loop-half", image, &["--sector-size", "4096"]) else { return };
    for (name, open) in OPENERS {
        let pool = Pool::new(1, 8192);
        let mut device = open(&device.path, false, &pool);
        assert_eq!(device.geometry().size_bytes, DEVICE_BYTES_MIN + 2048, "{name}");
        let segments =
            vec![Segment::new(DEVICE_BYTES_MIN - 4096, 0, 4096), Segment::new(DEVICE_BYTES_MIN, 4096, 2048)];
        device
            .submit(Request { id: 1, op: Op::Read, buf: pool.take(), segments })
            .expect("the queue is empty");
        let mut faults = Vec::new();
        device.complete(Wait::One, &mut |r| faults = r.segments.iter().map(|s| s.fault).collect());
        assert_eq!(faults[0], None, "{name}");
        assert_eq!(faults[1].map(|f| f.kind), Some(FaultKind::Media), "{name}");
    }
}

type Open = fn(&Path, bool, &Pool) -> Box<dyn BlockDevice>;

/// Both ports.
const OPENERS: [(&str, Open); 2] = [
    ("ring", |path, w, pool| ring(path, Caching::Direct, w, pool)),
    ("pread", |path, w, _| {
        Box::new(linux::open_pread(path, access(w), Caching::Direct, DEPTH).expect("opens"))
    }),
];

/// A file that shares its blocks with another is read, and its end too, where the file system asks for aligned writes; a file
/// where there is no direct I/O, or only a promise of it.
#[test]
fn on_files_of_other_file_systems() {
    requires_root!("conformance::block on_files_of_other_file_systems");
    let work = Workdir::new("conformance-files").expect("scratch");
    for kind in [Kind::Xfs, Kind::Btrfs] {
        if let Some(why) = kind.missing() {
            skip("conformance::block on_files_of_other_file_systems", &why);
            continue;
        }
        let (image, dir) = (work.join(kind.name()), work.join(&format!("at-{}", kind.name())));
        make_empty(kind, &image, 512 << 20).expect("makes");
        let mount = Mount::image_of(kind, &image, &dir, ImageAccess::ReadWrite, None).expect("mounts");
        let file = Image::at(mount.dir().join("odd"), DEVICE_BYTES_MIN + ODD_BYTES);
        let data = vec![7; DEVICE_BYTES_MIN as usize + ODD_BYTES as usize];
        fs::write(&file.path, data).expect("fills");
        let shared = Image { path: mount.dir().join("shared") };
        let copied = Command::new("cp").arg("--reflink=always").args([&file.path, &shared.path]).status();
        assert!(copied.is_ok_and(|status| status.success()), "{} shares blocks", kind.name());
        for path in [&file.path, &shared.path] {
            on_file(kind.name(), path);
        }
    }
    let tmpfs = Tmpfs::mount(&work.dir("at-tmpfs").expect("makes"), "size=64m").expect("mounts");
    on_file("tmpfs", &Image::at(tmpfs.dir().join("odd"), DEVICE_BYTES_MIN + ODD_BYTES).path);
    let overlay = Overlay::mount(&work);
    on_file("overlay", &Image::at(overlay.at.join("odd"), DEVICE_BYTES_MIN + ODD_BYTES).path);
}

fn on_file(name: &str, path: &Path) {
    for (port, open) in OPENERS {
        run(&mut Subject { name: &format!("{port} {name}"), open: &mut |w, pool| open(path, w, pool) });
    }
}

/// An overlay of two directories, unmounted when dropped.
struct Overlay {
    at: PathBuf,
}

impl Overlay {
    fn mount(work: &Workdir) -> Overlay {
        let dirs = ["lower", "upper", "scratch", "overlay"].map(|name| work.dir(name).expect("makes"));
        let [lower, upper, scratch, at] = dirs;
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            scratch.display()
        );
        let mounted =
            Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&at).status();
        assert!(mounted.is_ok_and(|status| status.success()), "mounts an overlay");
        Overlay { at }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.at).status();
    }
}

#[test]
fn a_device_in_use_is_busy_for_writing_and_not_for_reading() {
    let Some(device) = Loop::attach("loop-busy") else { return };
    let holder = linux::open(&device.path, Access::Write, 1, &[]).expect("free");
    let fault = linux::open(&device.path, Access::Write, 1, &[]).err().expect("held");
    assert_eq!(fault.kind, OpenFaultKind::Busy);
    assert!(linux::open(&device.path, Access::Read, 1, &[]).is_ok());
    drop(holder);
    assert!(linux::open(&device.path, Access::Write, 1, &[]).is_ok());
}

/// What a plain file looks like, and that buffers are registered and the page cache is left alone.
#[test]
fn a_plain_file_is_direct_and_registered() {
    let image = Image::new("facts");
    let pool = Pool::new(4, 4096);
    let device = linux::open_ring(&image.path, Access::Read, Caching::Direct, 1, &[pool]).expect("opens");
    assert_eq!(device.geometry().size_bytes, DEVICE_BYTES_MIN + ODD_BYTES);
    assert_eq!(device.geometry().logical_block_bytes, 512);
    assert!(device.identity().stable.starts_with("file:"));
    assert_eq!((device.is_direct(), device.registered_pools()), (true, 1));
    let buffered = linux::open_ring(&image.path, Access::Read, Caching::Buffered, 1, &[]).expect("opens");
    assert!(!buffered.is_direct());
}

type Opener = fn(&Path) -> Box<dyn BlockDevice>;

/// A file that shrinks under its reader is an error for what is gone, never zeros.
#[test]
fn a_truncated_file_is_a_fault() {
    let image = Image::new("truncated");
    let openers: [Opener; 2] = [
        |path| Box::new(linux::open_ring(path, Access::Read, Caching::Direct, 1, &[]).expect("opens")),
        |path| Box::new(linux::open_pread(path, Access::Read, Caching::Direct, 1).expect("opens")),
    ];
    for open in openers {
        File::options()
            .write(true)
            .open(&image.path)
            .and_then(|f| f.set_len(DEVICE_BYTES_MIN))
            .expect("grows");
        let mut device = open(&image.path);
        let half = DEVICE_BYTES_MIN / 2;
        File::options().write(true).open(&image.path).and_then(|f| f.set_len(half + 700)).expect("shrinks");
        let segments = vec![Segment::new(half - 4096, 0, 4096), Segment::new(half - 4096, 4096, 12288)];
        let request = Request { id: 1, op: Op::Read, buf: Pool::new(1, 16384).take(), segments };
        device.submit(request).expect("the queue is empty");
        let mut faults = Vec::new();
        device.complete(Wait::One, &mut |r| faults = r.segments.iter().map(|s| s.fault).collect());
        assert_eq!(faults[0], None);
        assert_eq!(faults[1].map(|f| f.kind), Some(FaultKind::Media));
        assert!(device.read_at(half, &mut [0; 4096]).is_err());
    }
}

/// Sectors of 512 bytes and of 4 KiB take turns.
fn media(seed: u64) -> Media {
    let name = String::from("conformance");
    let (size_bytes, logical_block_bytes) = (DEVICE_BYTES_MIN + ODD_BYTES, [512, 4096][seed as usize % 2]);
    Media::new(MediaConfig { name, size_bytes, logical_block_bytes, can_discard: true, seed })
}

fn disk(media: &Media, write: bool, seed: u64) -> Disk {
    media.open(DiskConfig { write, queue_depth: DEPTH, latency_steps_max: seed * 3, seed })
}

#[test]
fn sim_with_many_seeds() {
    for seed in 0..6 {
        let media = media(seed);
        run(&mut Subject { name: "sim", open: &mut |w, _| Box::new(disk(&media, w, seed)) });
    }
}

#[test]
fn wrappers_over_the_ring() {
    let image = Image::new("wrap-ring");
    let mut open = |w, pool: &Pool| -> Box<dyn BlockDevice> {
        Box::new(Trace::new(Faulty::new(ring(&image.path, Caching::Direct, w, pool)), 10))
    };
    run(&mut Subject { name: "trace(fault(ring))", open: &mut open });
}

#[test]
fn wrappers_over_the_simulator() {
    let media = media(3);
    let limits = Limits { iops: Some(4000), bytes_per_sec: Some(100 << 20) };
    let mut open = |w, _: &Pool| -> Box<dyn BlockDevice> {
        let clock = Arc::new(SimClock::new());
        Box::new(Trace::new(Throttle::new(Faulty::new(disk(&media, w, 3)), limits, clock), 0))
    };
    run(&mut Subject { name: "trace(throttle(fault(sim)))", open: &mut open });
}

/// Faults by lot are the same through a queue, through `read_at`, and on another port with the same seed.
#[test]
fn faults_by_lot_agree_between_ports_and_paths() {
    let image = Image::new("lot");
    let media = media(1);
    let pool = Pool::new(1, 4096);
    let mut on_ring = Faulty::new(ring(&image.path, Caching::Direct, false, &pool)).with_random(42, 20);
    let mut on_sim = Faulty::new(disk(&media, false, 1)).with_random(42, 20);
    let (mut bad, blocks) = (0, DEVICE_BYTES_MIN / 4096);
    for offset in (0..blocks).map(|b| b * 4096) {
        let by_read_at = on_ring.read_at(offset, &mut [0; 1]).is_err();
        for device in [&mut on_ring as &mut dyn BlockDevice, &mut on_sim] {
            let segments = vec![Segment::new(offset, 0, 4096)];
            let request = Request { id: 1, op: Op::Read, buf: pool.take(), segments };
            device.submit(request).expect("the queue is empty");
            let mut fault = None;
            device.complete(Wait::One, &mut |r| fault = r.fault());
            assert_eq!(fault.map(|f| f.kind), by_read_at.then_some(FaultKind::Media));
        }
        bad += u64::from(by_read_at);
    }
    assert!(bad > blocks / 60 && bad < blocks / 7, "{bad} of {blocks}");
}
