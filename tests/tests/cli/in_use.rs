//! Volumes that someone writes to while they are to be read: refused by name, whoever mounts them, and wherever.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use windlass_hal::clock::{Clock, SystemClock};
use windlass_tests::cli::{Cli, Ended};
use windlass_tests::error::output;
use windlass_tests::fixture::noise;
use windlass_tests::image::{Access, Kind, Loop, Mount, make_empty, make_ext4};
use windlass_tests::privilege::skip;
use windlass_tests::requires_root;
use windlass_tests::workdir::Workdir;

const IMAGE_BYTES: u64 = 16 << 20;

struct Bench {
    work: Workdir,
    cli: Cli,
}

impl Bench {
    fn new(name: &str) -> Bench {
        let work = Workdir::new(name).unwrap();
        let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(work.path());
        cli.ok(&["repo", "init"]);
        Bench { work, cli }
    }

    /// Backs `volume` up, by whatever reader it names.
    fn backup(&self, volume: &str) -> Ended {
        self.cli.ok(&["policy", "set", "it", "--volume", volume]);
        let ended = self.cli.run(&["backup", "it"]);
        self.cli.ok(&["policy", "remove", "it"]);
        ended
    }

    fn refuses(&self, volume: &str, why: &str) {
        let ended = self.backup(volume);
        assert!(
            ended.code == 1 && ended.failure().contains(why),
            "{volume}: {} {}",
            ended.code,
            ended.stderr
        );
    }

    fn takes(&self, volume: &str) {
        let ended = self.backup(volume);
        assert_eq!(ended.code, 0, "{volume}: {}", ended.stderr);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Without a journal, and an idle XFS: nothing in the volume itself says that it is mounted.
#[test]
fn a_mounted_volume_is_refused_and_a_read_only_one_is_not() {
    requires_root!("a_mounted_volume_is_refused_and_a_read_only_one_is_not");
    let bench = Bench::new("in-use-mounted");
    for kind in [Kind::Ext4, Kind::Xfs] {
        if let Some(why) = kind.missing() {
            skip("a_mounted_volume_is_refused_and_a_read_only_one_is_not", &why);
            continue;
        }
        let (image, at) = (bench.work.join(kind.name()), bench.work.join("at"));
        match kind {
            Kind::Ext4 => make_ext4(&image, IMAGE_BYTES, None, &["-O", "^has_journal"]).unwrap(),
            _ => make_empty(kind, &image, 320 << 20).unwrap(),
        }
        let mounted = |access| Mount::image_of(kind, &image, &at, access, None).unwrap();
        {
            let mount = mounted(Access::ReadWrite);
            let device = text(mount.loop_device().device()).to_owned();
            let names = [device.clone(), format!("{device}=image"), format!("{device}=mounted")];
            for volume in names {
                bench.refuses(&volume, &format!("is mounted read-write at {}", at.display()));
            }
            for volume in [text(&image).to_owned(), format!("{}=image", image.display())] {
                bench.refuses(&volume, &format!("{device}, which stands on it"));
            }
            let ended = bench.cli.run(&["volume", "info", &device]);
            assert!(ended.stdout.contains("refused while it is in use"), "{}", ended.stdout);
            assert!(
                ended.stderr.contains("warning") && ended.stderr.contains("mounted read-write"),
                "{}",
                ended.stderr
            );
        }
        bench.takes(text(&image));
        let mount = mounted(Access::ReadOnly);
        for volume in [text(&image), text(mount.loop_device().device())] {
            bench.takes(volume);
        }
    }
}

/// A child that mounts `device` at `at` in a namespace of its own, until it is dropped.
struct Elsewhere(Child);

impl Elsewhere {
    fn mount(device: &Path, at: &Path) -> Elsewhere {
        let script = "mount \"$0\" \"$1\" && echo mounted && exec cat";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).args([device, at]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "mounted\n");
        Elsewhere(child)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn mounts_of_other_namespaces_and_whoever_holds_a_device_are_found() {
    requires_root!("mounts_of_other_namespaces_and_whoever_holds_a_device_are_found");
    let bench = Bench::new("in-use-elsewhere");
    let (image, at) = (bench.work.join("image"), bench.work.dir("at").unwrap());
    make_ext4(&image, IMAGE_BYTES, None, &["-O", "^has_journal"]).unwrap();
    let device = Loop::attach(&image, Access::ReadWrite).unwrap();
    {
        let elsewhere = Elsewhere::mount(device.device(), &at);
        for volume in [text(device.device()), text(&image)] {
            bench.refuses(volume, &format!("in the mount namespace of process {}", elsewhere.0.id()));
        }
    }
    bench.takes(text(device.device()));
    let held = fs::File::options().read(true).custom_flags(nix::libc::O_EXCL).open(device.device()).unwrap();
    bench.refuses(text(device.device()), "is held by someone who may write to it");
    bench.refuses(text(&image), "is held by someone who may write to it");
    drop(held);
    bench.takes(text(&image));
}

#[test]
fn what_stands_on_a_volume_is_found_through_partitions_and_loop_devices() {
    requires_root!("what_stands_on_a_volume_is_found_through_partitions_and_loop_devices");
    let bench = Bench::new("in-use-through");
    let (file_system, disk, at) = (bench.work.join("fs"), bench.work.join("disk"), bench.work.join("at"));
    make_ext4(&file_system, IMAGE_BYTES, None, &["-O", "^has_journal"]).unwrap();
    let bytes = fs::read(&file_system).unwrap();
    fs::File::create(&disk).unwrap().write_all_at(&bytes, 1 << 20).unwrap();
    let whole = Loop::attach(&disk, Access::ReadWrite).unwrap();
    // By hand: a kernel need not know partition tables.
    let sectors = (bytes.len() / 512).to_string();
    output(Command::new("addpart").arg(whole.device()).args(["1", "2048", &sectors])).unwrap();
    let partition = format!("{}p1", whole.device().display());
    let whole_image = format!("{}=image", whole.device().display());
    let disk_image = format!("{}=image", disk.display());
    {
        // A loop device over the partition, and the mount on that.
        let mount = Mount::image(Path::new(&partition), &at, Access::ReadWrite).unwrap();
        let through = format!("{}, which stands on it", mount.loop_device().device().display());
        for volume in [&partition, &whole_image, &disk_image] {
            bench.refuses(volume, &through);
        }
    }
    for volume in [&partition, &whole_image, &disk_image] {
        bench.takes(volume);
    }
    output(Command::new("delpart").arg(whole.device()).arg("1")).unwrap();
}

/// Mounted after the backup asked: named at its end, and not called done.
#[test]
fn a_volume_that_is_put_to_use_while_it_is_read_is_named() {
    requires_root!("a_volume_that_is_put_to_use_while_it_is_read_is_named");
    let bench = Bench::new("in-use-meanwhile");
    let (image, at) = (bench.work.join("image"), bench.work.dir("at").unwrap());
    fs::write(&image, noise(3, 32 << 20)).unwrap();
    let options = ["-E", "nodiscard", "-O", "^has_journal,^metadata_csum"];
    output(Command::new("mke2fs").args(["-q", "-F", "-t", "ext4"]).args(options).arg(&image)).unwrap();
    let device = Loop::attach(&image, Access::ReadWrite).unwrap();
    let volume = format!("{}=image", device.device().display());
    bench.cli.ok(&["policy", "set", "it", "--volume", &volume]);
    let mut command = bench.cli.command(&["backup", "it", "--device-iops-max", "8"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let process = Pid::from_raw(child.id() as i32);
    let begun = device.read_bytes().unwrap();
    let deadline = SystemClock.now().as_ns() + 120_000_000_000;
    // More than what finds out what is there.
    while device.read_bytes().unwrap() - begun < 4 << 20 {
        assert!(SystemClock.now().as_ns() < deadline, "the backup reads");
        SystemClock.sleep(Duration::from_millis(5));
    }
    kill(process, Signal::SIGSTOP).unwrap();
    output(Command::new("mount").arg(device.device()).arg(&at)).unwrap();
    kill(process, Signal::SIGCONT).unwrap();
    let ended = child.wait_with_output().unwrap();
    output(Command::new("umount").arg(&at)).unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert_eq!(ended.status.code(), Some(3), "{said} {}", String::from_utf8_lossy(&ended.stderr));
    assert!(
        said.contains("put to use while it was read") && said.contains("mounted read-write at"),
        "{said}"
    );
    let point = &bench.cli.json(&["points", "it"])["points"][0];
    assert_eq!((&point["status"], &point["faults"]), (&"with_errors".into(), &1.into()), "{point}");
}
