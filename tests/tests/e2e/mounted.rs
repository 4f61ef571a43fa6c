//! Volumes that the kernel reads, and XFS read raw, through the command line: what comes back is what was there, nothing on the source changes, and
//! no mount and no loop device is left behind, however the program ends.
//!
//! Needs root, loop devices, and mkfs.xfs or mkfs.btrfs; says `SKIPPED` otherwise.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which say so by failing")]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use windlass_tests::cli::Cli;
use windlass_tests::error::output;
use windlass_tests::fixture::{Fixture, noise, prose};
use windlass_tests::image::{Access, Kind, Mount, make_empty};
use windlass_tests::privilege::skip;
use windlass_tests::requires_root;
use windlass_tests::tree::{Options, compare};
use windlass_tests::workdir::Workdir;

const IMAGE_BYTES: u64 = 512 << 20;
/// How long a process or the kernel may take over something, in tries of 20 ms.
const TRIES_MAX: u32 = 1000;

fn cli(work: &Workdir) -> Cli {
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(work.path());
    cli.ok(&["repo", "init"]);
    cli
}

/// Whether this machine can make one; says so by name when not.
fn can(test: &str, kind: Kind) -> bool {
    match kind.missing() {
        None => true,
        Some(why) => {
            skip(test, &why);
            false
        }
    }
}

/// A file of more extents than two windows hold.
fn fragments(dir: &Path) {
    let file = File::create(dir.join("fragments")).unwrap();
    for block in (0..20_000u64).step_by(2) {
        file.write_all_at(&block.to_le_bytes(), block * 4096).unwrap();
    }
}

fn digest(path: &Path) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).unwrap();
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        match file.read_at(&mut buf, at).unwrap() {
            0 => return hasher.finalize(),
            n => hasher.update(&buf[..n]),
        };
        at += buf.len() as u64;
    }
}

/// Loop devices over `image`.
fn loops_over(image: &Path) -> usize {
    let backing = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("loop/backing_file")).ok();
    let found = fs::read_dir("/sys/block").unwrap().filter_map(|entry| backing(entry.unwrap()));
    found.filter(|path| path.trim() == image.to_str().unwrap()).count()
}

/// Waits until `holds`, which the kernel makes true in its own time.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..TRIES_MAX {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    unreachable!("{what}")
}

fn string(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The last line of a command with `--json` that ends with `code`.
fn done(cli: &Cli, arguments: &[&str], code: i32) -> Value {
    let ended = cli.run(&[arguments, &["--json"]].concat());
    assert_eq!(ended.code, code, "{arguments:?}: {}{}", ended.stdout, ended.stderr);
    ended.documents().pop().unwrap()
}

/// filefrag counts a compressed extent in the inode in units of its own.
fn is_known(line: &str) -> bool {
    line.ends_with("extents: source data 0..16777216; restored data 0..4096")
}

/// A volume that came back: where it is, and the last backup's last line.
struct Restored {
    cli: Cli,
    mount: Mount,
    dir: PathBuf,
    again: Value,
}

/// Backs an image up, twice, restores it to an empty file system of the same kind and compares the two.
fn there_and_back(kind: Kind, reader: &str, work: &Workdir, image: &Path, options: &Options) -> Restored {
    let cli = cli(work);
    let before = digest(image);
    cli.ok(&["policy", "set", "p", "--volume", &format!("{}={reader}", string(image))]);
    let first = done(&cli, &["backup", "p"], 0);
    assert_eq!(first["fault_list"], Value::Array(vec![]));
    assert!(first["items"].as_u64() > Some(21_000), "{first}");
    let again = done(&cli, &["backup", "p"], 0);
    assert_eq!(again["items"], first["items"]);
    assert_eq!(again["bytes_stored_plain"], 0, "nothing changed: nothing is stored");
    let target = work.join("target");
    make_empty(kind, &target, 2 * IMAGE_BYTES).unwrap();
    // XFS would preallocate behind what is written, on its own account.
    let exact = (kind == Kind::Xfs).then_some("allocsize=4096");
    let to = Mount::image_of(kind, &target, &work.join("to"), Access::ReadWrite, exact).unwrap();
    let dir = to.dir().join("restored");
    cli.ok(&["restore", "p", "--to", string(&dir)]);
    assert_eq!(digest(image), before, "nothing on the source changed");
    eventually("no loop device is left", || loops_over(image) == 0);
    let mount = Mount::image_of(kind, image, &work.join("mounted"), Access::ReadOnly, None).unwrap();
    let same = compare(mount.dir(), &dir, options).unwrap();
    let unknown: Vec<&String> = same.differences.iter().filter(|line| !is_known(line)).collect();
    assert!(unknown.is_empty() && same.more == 0, "{same}");
    cli.ok(&["check", "p", "--read-data"]);
    Restored { cli, mount: to, dir, again }
}

#[test]
fn an_xfs_through_the_kernel_there_and_back() {
    xfs_there_and_back("an_xfs_through_the_kernel_there_and_back", "mounted");
}

#[test]
fn an_xfs_read_raw_there_and_back() {
    xfs_there_and_back("an_xfs_read_raw_there_and_back", "raw");
}

fn xfs_there_and_back(test: &str, reader: &str) {
    requires_root!(test);
    if !can(test, Kind::Xfs) {
        return;
    }
    let work = Workdir::new("e2e-mounted").unwrap();
    let image = work.join("image");
    make_empty(Kind::Xfs, &image, IMAGE_BYTES).unwrap();
    {
        let mount =
            Mount::image_of(Kind::Xfs, &image, &work.join("mounted"), Access::ReadWrite, None).unwrap();
        Fixture::volume(mount.dir()).unwrap().report(test);
        fragments(mount.dir());
        // XFS refuses the longest symlinks and the largest numbers, and with them the fixture's kinds.
        let more = mount.dir().join("more");
        fs::create_dir(&more).unwrap();
        for len in [1, 100, 600, 1000] {
            symlink("t".repeat(len), more.join(format!("link-{len}"))).unwrap();
        }
        output(Command::new("mknod").args(["node", "c", "5", "300"]).current_dir(&more)).unwrap();
    }
    drop(there_and_back(Kind::Xfs, reader, &work, &image, &Options::default()).mount);
}

#[test]
fn a_btrfs_with_compression_and_subvolumes_there_and_back() {
    let test = "a_btrfs_with_compression_and_subvolumes_there_and_back";
    requires_root!(test);
    if !can(test, Kind::Btrfs) {
        return;
    }
    let work = Workdir::new("e2e-mounted").unwrap();
    let (image, at) = (work.join("image"), work.join("mounted"));
    make_empty(Kind::Btrfs, &image, IMAGE_BYTES).unwrap();
    {
        let mount = Mount::image_of(Kind::Btrfs, &image, &at, Access::ReadWrite, Some("compress-force=zstd"))
            .unwrap();
        Fixture::volume(mount.dir()).unwrap().report(test);
        let btrfs = |words: &[&str]| {
            output(Command::new("btrfs").args(words).current_dir(mount.dir())).unwrap();
        };
        fragments(mount.dir());
        btrfs(&["subvolume", "create", "sub"]);
        fs::write(mount.dir().join("sub/prose"), prose(1, 3 << 20)).unwrap();
        fs::write(mount.dir().join("sub/noise"), noise(1, 3 << 20)).unwrap();
        // A hole between data, and a tail that does not fill its block.
        let sparse = File::create(mount.dir().join("sub/sparse")).unwrap();
        sparse.write_all_at(&noise(2, 10_000), 5 << 20).unwrap();
        sparse.write_all_at(&noise(3, 77), 9 << 20).unwrap();
        btrfs(&["subvolume", "snapshot", "-r", "sub", "snapshot"]);
        fs::write(mount.dir().join("sub/prose"), prose(9, 1 << 20)).unwrap();
    }
    let options = Options::default();
    let Restored { cli, mount: to, dir: restored, again } =
        there_and_back(Kind::Btrfs, "mounted", &work, &image, &options);
    assert_eq!(fs::read(restored.join("snapshot/prose")).unwrap(), prose(1, 3 << 20));
    assert_eq!(fs::read(restored.join("sub/prose")).unwrap(), prose(9, 1 << 20));
    // Unchanged, and the superblock proves it: nothing that fits a window is read.
    let (same, items) = (again["items_same"].as_u64().unwrap(), again["items"].as_u64().unwrap());
    assert!(same + 3 > items, "{again}");
    // Holes stay holes.
    let blocks = fs::metadata(restored.join("sub/sparse")).unwrap().blocks();
    assert!(blocks * 512 < 1 << 20, "{blocks}");

    // A part of it, changed: only that is stored.
    {
        let mount = Mount::image_of(Kind::Btrfs, &image, &at, Access::ReadWrite, None).unwrap();
        let noise_file = File::options().write(true).open(mount.dir().join("sub/noise")).unwrap();
        noise_file.write_all_at(&noise(55, 4096), 1 << 20).unwrap();
        fs::remove_file(mount.dir().join("sub/sparse")).unwrap();
    }
    let third = done(&cli, &["backup", "p"], 0);
    assert!(third["bytes_stored_plain"].as_u64() < Some(1 << 20), "{third}");
    cli.ok(&[
        "policy",
        "set",
        "part",
        "--volume",
        &format!("{}=mounted", string(&image)),
        "--include",
        "/sub",
    ]);
    done(&cli, &["backup", "part"], 0);
    let part = to.dir().join("part");
    cli.ok(&["restore", "part", "--to", string(&part)]);
    let mount = Mount::image_of(Kind::Btrfs, &image, &at, Access::ReadOnly, None).unwrap();
    let same = compare(&mount.dir().join("sub"), &part.join("sub"), &options).unwrap();
    assert!(same.is_equal() && same.items == 2, "{same}");
    assert!(!part.join("snapshot").exists());
}

#[test]
fn what_cannot_be_read_names_the_way_out() {
    let test = "what_cannot_be_read_names_the_way_out";
    requires_root!(test);
    let work = Workdir::new("e2e-mounted").unwrap();
    let (cli, at) = (cli(&work), work.join("mounted"));
    let failure = |arguments: &[&str]| {
        let ended = cli.run(arguments);
        assert_eq!(ended.code, 1, "{arguments:?}: {}", ended.stdout);
        ended.failure().to_owned()
    };
    let mut ext4 = None;
    for kind in [Kind::Ext4, Kind::Xfs, Kind::Btrfs] {
        if !can(test, kind) {
            continue;
        }
        let image = work.join(&format!("{}-clean", kind.name()));
        make_empty(kind, &image, 320 << 20).unwrap();
        let path = string(&image);
        if kind != Kind::Btrfs {
            let shown = cli.ok(&["volume", "info", path]);
            assert!(shown.contains(&format!("volume    {} ", kind.name())), "{shown}");
        } else {
            for reader in ["auto", "raw"] {
                let text = failure(&["volume", "info", path, "--reader", reader]);
                assert!(text.contains("choose the reader mounted (needs root)"), "{text}");
            }
            assert!(failure(&["volume", "verify", path]).contains("nothing to compare the kernel with"));
        }
        assert!(cli.ok(&["volume", "info", path, "--reader", "mounted"]).contains("volume    mounted "));
        // Cut off in the middle of its work: the log holds what is nowhere else.
        let dirty = work.join(&format!("{}-dirty", kind.name()));
        {
            let mount = Mount::image_of(kind, &image, &at, Access::ReadWrite, None).unwrap();
            let file = File::create(mount.dir().join("file")).unwrap();
            file.write_all_at(&noise(1, 100_000), 0).unwrap();
            file.sync_all().unwrap();
            fs::copy(&image, &dirty).unwrap();
        }
        let before = digest(&dirty);
        let text = failure(&["volume", "info", string(&dirty), "--reader", "mounted"]);
        assert!(text.contains("writable clone") && text.contains("holds"), "{kind:?}: {text}");
        assert_eq!(digest(&dirty), before, "{kind:?}: nothing was replayed");
        ext4.get_or_insert(image);
    }
    let other = work.join("other");
    fs::write(&other, vec![0; 1 << 20]).unwrap();
    let text = failure(&["volume", "info", string(&other), "--reader", "mounted"]);
    assert!(text.contains("no known file system"), "{text}");

    // Without root: said by name, and a backup only warns.
    let ext4 = ext4.unwrap();
    for path in [work.path(), &ext4] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let program = Path::new(env!("CARGO_BIN_EXE_windlass-under-test"));
    let copy = work.join("windlass");
    fs::copy(program, &copy).unwrap();
    let own = work.dir("own").unwrap();
    chown(&own, Some(65534), Some(65534)).unwrap();
    let unprivileged = |arguments: &[&str]| {
        let mut command = Command::new(&copy);
        command.args(arguments).uid(65534).gid(65534).stdin(Stdio::null()).current_dir("/");
        command.env("WINDLASS_REPO", format!("file://{}", own.join("repository").display()));
        command.env("WINDLASS_KEY_FILE", own.join("key"));
        let ended = command.output().unwrap();
        (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
    };
    let (code, text) = unprivileged(&["volume", "verify", string(&ext4)]);
    assert!(code == Some(1) && text.contains("without root") && text.contains("run as root"), "{text}");
    assert_eq!(unprivileged(&["repo", "init"]).0, Some(0));
    assert_eq!(unprivileged(&["policy", "set", "p", "--volume", string(&ext4), "--verify", "5"]).0, Some(0));
    let (code, text) = unprivileged(&["backup", "p"]);
    assert!(code == Some(0) && text.contains("not compared") && text.contains("without root"), "{text}");
}

#[test]
fn verify_compares_the_two_readers_and_a_policy_may_ask_for_it() {
    let test = "verify_compares_the_two_readers_and_a_policy_may_ask_for_it";
    requires_root!(test);
    let work = Workdir::new("e2e-mounted").unwrap();
    let image = work.join("image");
    Fixture::image(&image).unwrap().report(test);
    let cli = cli(&work);
    let all = done(&cli, &["volume", "verify", string(&image), "--all"], 0);
    assert_eq!((&all["differences"], &all["seed"]), (&0.into(), &Value::Null));
    assert!(all["items"].as_u64() > Some(21_000), "{all}");
    let sample = done(&cli, &["volume", "verify", string(&image), "--sample", "50", "--seed", "7"], 0);
    assert_eq!((&sample["items"], &sample["seed"]), (&50.into(), &7.into()));
    assert_eq!(sample, done(&cli, &["volume", "verify", string(&image), "--sample", "50", "--seed", "7"], 0));
    assert_eq!(cli.run(&["volume", "verify", string(&image), "--all", "--sample", "3"]).code, 2);

    cli.ok(&["policy", "set", "p", "--volume", string(&image), "--verify", "200"]);
    let backup = done(&cli, &["backup", "p"], 0);
    assert_eq!(backup["compared"][0]["items"], 200, "{backup}");
    assert_eq!(backup["compared"][0]["differences"], 0, "{backup}");
    assert!(cli.ok(&["backup", "p"]).contains("200 items of"), "said to people too");
    assert_eq!(cli.json(&["policy", "show", "p"])["verify"], 200);
    cli.ok(&["policy", "set", "p", "--verify", "0"]);
    assert_eq!(done(&cli, &["backup", "p"], 0)["compared"], Value::Array(vec![]));
    assert_eq!(cli.run(&["policy", "set", "p", "--verify", "100001"]).code, 2);
}

#[test]
fn a_killed_program_leaves_no_mount_and_no_loop_device() {
    let test = "a_killed_program_leaves_no_mount_and_no_loop_device";
    requires_root!(test);
    let work = Workdir::new("e2e-mounted").unwrap();
    let image = work.join("image");
    Fixture::image(&image).unwrap().report(test);
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test"));
    let mounts = || fs::read_to_string("/proc/self/mounts").unwrap();
    let mut killed = 0;
    // The command may be done before it is seen; then it is started again.
    for _ in 0..10 {
        let mut child = cli
            .command(&["volume", "verify", string(&image), "--all"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let ended = loop {
            if loops_over(&image) > 0 {
                break false;
            }
            if child.try_wait().unwrap().is_some() {
                break true;
            }
        };
        assert!(!mounts().contains(string(work.path())), "nobody else sees the mount");
        child.kill().unwrap();
        child.wait().unwrap();
        eventually("the loop device goes with the process", || loops_over(&image) == 0);
        killed += u32::from(!ended);
        if killed == 3 {
            return;
        }
    }
    assert!(killed > 0, "the program was never seen at work");
}
