//! Points mounted through FUSE: as the kernel shows the volume itself, for many readers at once; damage costs what it hits; every way to end.
//!
//! Needs root, /dev/fuse, rsync and getfattr; says `SKIPPED` otherwise.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which say so by failing")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Whence, lseek};
use windlass_tests::cli::Cli;
use windlass_tests::error::output;
use windlass_tests::fixture::{Fixture, noise};
use windlass_tests::image::{Access, Mount, make_ext4};
use windlass_tests::privilege::{is_root, skip, unsupported};
use windlass_tests::requires_root;
use windlass_tests::workdir::Workdir;

/// Files up to this size are compared byte for byte: the fixture's sparse ones are larger than any machine.
const SIZE_MAX: u64 = 64 << 20;
/// Parts of a file whose map is compared at most.
const PARTS_MAX: usize = 4096;
/// What the mount may take by default, in KiB, and what the sanity of this test allows beside: the binary itself.
const MEMORY_KIB: u64 = (64 << 10) + (16 << 10);
/// Tries of 50 ms for a process to end.
const TRIES_MAX: u32 = 400;

/// Whether this machine can show a file system; says so by name when not.
fn can(test: &str) -> bool {
    if !Path::new("/dev/fuse").exists() {
        unsupported(test, "this kernel has no FUSE");
        return false;
    }
    for tool in ["rsync", "getfattr"] {
        if Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_err() {
            skip(test, &format!("needs {tool}"));
            return false;
        }
    }
    true
}

struct Shown {
    child: Child,
    dir: PathBuf,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Shown {
    fn new(cli: &Cli, target: &str, dir: &Path) -> Shown {
        fs::create_dir_all(dir).unwrap();
        let arguments = ["mount", target, dir.to_str().unwrap(), "--allow-other", "--json"];
        let mut command = cli.command(&arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        if !line.contains("\"directory\"") {
            let mut why = String::new();
            child.stderr.take().unwrap().read_to_string(&mut why).unwrap();
            unreachable!("{line}{why}");
        }
        Shown { child, dir: dir.to_owned(), stdout }
    }

    /// The largest resident memory of the process so far, in KiB.
    fn peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse().unwrap()
    }

    /// Waits for the process: its exit code, and what it said.
    fn wait(mut self) -> (Option<i32>, String) {
        for _ in 0..TRIES_MAX {
            if let Some(status) = self.child.try_wait().unwrap() {
                let mut said = String::new();
                self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
                let mut rest = String::new();
                self.stdout.read_to_string(&mut rest).unwrap();
                return (status.code(), said);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.child.kill().unwrap();
        unreachable!("the mount did not end");
    }

    fn unmount(self) -> (Option<i32>, String) {
        output(Command::new("umount").arg(&self.dir)).unwrap();
        self.wait()
    }
}

/// Regular files below a directory, by path from it.
fn files(root: &Path, below: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files(root, &path, out);
        } else if kind.is_file() {
            out.push(path);
        }
    }
}

/// Where a file's data and holes begin.
fn map(path: &Path) -> Vec<i64> {
    let file = File::open(path).unwrap();
    let (mut out, mut at) = (Vec::new(), 0);
    for whence in [Whence::SeekData, Whence::SeekHole].into_iter().cycle() {
        match lseek(&file, at, whence) {
            Ok(next) => at = next,
            Err(_) => break,
        }
        out.push(at);
        if out.len() >= PARTS_MAX {
            break;
        }
    }
    out
}

/// All extended attributes below a directory, a block per file, sorted.
fn attributes(root: &Path) -> Vec<String> {
    let mut command = Command::new("getfattr");
    command.args(["-R", "-P", "-h", "-d", "-m", "-", "-e", "hex", "."]).current_dir(root);
    let text = String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned();
    let mut blocks: Vec<String> = text.split("\n\n").map(str::to_owned).collect();
    blocks.sort();
    blocks
}

#[test]
fn a_mounted_point_is_what_the_kernel_shows_of_the_volume() {
    let test = "a_mounted_point_is_what_the_kernel_shows_of_the_volume";
    requires_root!(test);
    if !can(test) {
        return;
    }
    let work = Workdir::new("e2e-shown").unwrap();
    let image = work.join("image");
    Fixture::image(&image).unwrap().report(test);
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(work.path());
    cli.ok(&["repo", "init"]);
    cli.ok(&["policy", "set", "a", "--volume", image.to_str().unwrap()]);
    cli.ok(&["backup", "a"]);
    let kernel = Mount::image(&image, &work.join("kernel"), Access::ReadOnly).unwrap();
    let shown = Shown::new(&cli, "a@latest", &work.join("shown"));

    // Before anything is read: where nothing was written the kernel shows pages that it has read as data.
    let mut all = Vec::new();
    files(kernel.dir(), Path::new(""), &mut all);
    let mut parts = 0;
    for path in &all {
        let (there, here) = (map(&kernel.dir().join(path)), map(&shown.dir.join(path)));
        assert!(there == here, "{}: {there:?} {here:?}", path.display());
        parts += there.len().saturating_sub(2);
    }
    assert!(parts > 0, "there are holes");

    let size = format!("--max-size={SIZE_MAX}");
    let mut rsync = Command::new("rsync");
    rsync.args(["-aHAXn", "--checksum", "--itemize-changes", "--delete", &size]);
    rsync.arg(format!("{}/", kernel.dir().display())).arg(format!("{}/", shown.dir.display()));
    let found = rsync.output().unwrap();
    let text = String::from_utf8_lossy(&found.stdout);
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    assert!(text.trim().is_empty(), "rsync finds: {}", text.lines().take(20).collect::<Vec<_>>().join("\n"));

    let (there, here) = (attributes(kernel.dir()), attributes(&shown.dir));
    let other = there.iter().zip(&here).find(|(a, b)| a != b);
    assert!(there.len() > 1 && there == here, "{} {}: {other:?}", there.len(), here.len());

    // Ten readers at once, each with the largest files in an order of its own.
    let len = |path: &PathBuf| fs::metadata(kernel.dir().join(path)).unwrap().len();
    let mut large: Vec<PathBuf> = all.iter().filter(|path| len(path) <= SIZE_MAX).cloned().collect();
    large.sort_by_key(|path| std::cmp::Reverse(len(path)));
    large.truncate(20);
    std::thread::scope(|scope| {
        for reader in 0..10 {
            let (large, kernel, shown) = (&large, kernel.dir(), &shown.dir);
            scope.spawn(move || {
                for turn in 0..large.len() {
                    let path = &large[(turn + reader) % large.len()];
                    let same = fs::read(kernel.join(path)).unwrap() == fs::read(shown.join(path)).unwrap();
                    assert!(same, "{}", path.display());
                }
            });
        }
    });
    println!("{} files, {parts} parts, {} KiB at most", all.len(), shown.peak_kib());
    assert!(shown.peak_kib() <= MEMORY_KIB, "{} KiB", shown.peak_kib());
    let (code, said) = shown.unmount();
    assert_eq!((code, said.as_str()), (Some(0), ""));
}

#[test]
fn points_are_folders_and_images_files_and_a_signal_ends_it() {
    let test = "points_are_folders_and_images_files_and_a_signal_ends_it";
    if !is_root() {
        skip(test, "needs root, to mount");
        return;
    }
    if !can(test) {
        return;
    }
    let work = Workdir::new("e2e-shown").unwrap();
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    fs::write(tree.join("a"), "one").unwrap();
    make_ext4(&image, 16 << 20, Some(&tree), &[]).unwrap();
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(work.path());
    cli.ok(&["repo", "init"]);
    cli.ok(&["policy", "set", "a", "--volume", image.to_str().unwrap()]);
    cli.ok(&["policy", "set", "raw", "--volume", &format!("{}=image", image.display()), "--all-blocks"]);
    cli.ok(&["backup", "a"]);
    cli.ok(&["backup", "raw"]);
    fs::write(tree.join("a"), "two!").unwrap();
    make_ext4(&image, 16 << 20, Some(&tree), &[]).unwrap();
    cli.ok(&["backup", "a"]);
    let shown = Shown::new(&cli, "a", &work.join("shown"));
    let names = |dir: &str| -> Vec<String> {
        let entries = fs::read_dir(shown.dir.join(dir)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(""), ["latest", "points", "times"]);
    assert_eq!(names("points"), ["1", "3"]);
    assert_eq!(names("times").len(), 2);
    assert_eq!(fs::read_to_string(shown.dir.join("points/1/a")).unwrap(), "one");
    assert_eq!(fs::read_to_string(shown.dir.join("latest/a")).unwrap(), "two!");
    assert_eq!(
        fs::read_to_string(shown.dir.join("times").join(&names("times")[0]).join("a")).unwrap(),
        "one"
    );
    assert_eq!(fs::write(shown.dir.join("latest/a"), "x").unwrap_err().raw_os_error(), Some(30), "read-only");
    kill(Pid::from_raw(shown.child.id() as i32), Signal::SIGTERM).unwrap();
    let dir = shown.dir.clone();
    assert_eq!(shown.wait().0, Some(0));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "it is unmounted");

    let raw = Shown::new(&cli, "raw@2", &work.join("raw"));
    let read = fs::read(raw.dir.join("disk.raw")).unwrap();
    let out = work.join("copy");
    cli.ok(&["restore", "raw", "--to-device", out.to_str().unwrap()]);
    assert!(read == fs::read(&out).unwrap(), "the image is what a restore makes");
    // In use: it is detached, and the process ends all the same.
    let open = File::open(raw.dir.join("disk.raw")).unwrap();
    kill(Pid::from_raw(raw.child.id() as i32), Signal::SIGINT).unwrap();
    let dir = raw.dir.clone();
    let (code, said) = raw.wait();
    assert!(code == Some(0) && said.contains("was in use"), "{code:?} {said}");
    drop(open);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);

    let killed = Shown::new(&cli, "a", &work.join("killed"));
    let dir = killed.dir.clone();
    kill(Pid::from_raw(killed.child.id() as i32), Signal::SIGKILL).unwrap();
    assert_eq!(killed.wait().0, None);
    assert!(fs::read_dir(&dir).is_err(), "not connected");
    output(Command::new("umount").arg(&dir)).unwrap();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn a_damaged_block_costs_its_part_of_its_file() {
    let test = "a_damaged_block_costs_its_part_of_its_file";
    if !is_root() {
        skip(test, "needs root, to mount");
        return;
    }
    if !can(test) {
        return;
    }
    let work = Workdir::new("e2e-shown").unwrap();
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    let big = noise(1, 6 << 20);
    fs::create_dir(tree.join("docs")).unwrap();
    fs::write(tree.join("docs/big"), &big).unwrap();
    fs::write(tree.join("small"), noise(2, 50_000)).unwrap();
    make_ext4(&image, 32 << 20, Some(&tree), &[]).unwrap();
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(work.path());
    cli.ok(&["repo", "init"]);
    cli.ok(&["policy", "set", "a", "--volume", image.to_str().unwrap()]);
    cli.ok(&["backup", "a"]);
    let mut objects = Vec::new();
    let repository = work.join("repository/obj");
    files(&repository, Path::new(""), &mut objects);
    let largest = objects.iter().max_by_key(|path| fs::metadata(repository.join(path)).unwrap().len());
    let object = File::options().read(true).write(true).open(repository.join(largest.unwrap())).unwrap();
    let (mut byte, middle) = ([0], object.metadata().unwrap().len() / 2);
    object.read_exact_at(&mut byte, middle).unwrap();
    object.write_all_at(&[byte[0] ^ 1], middle).unwrap();
    let shown = Shown::new(&cli, "a@1", &work.join("shown"));
    assert!(fs::read(shown.dir.join("small")).unwrap() == noise(2, 50_000));
    let file = File::open(shown.dir.join("docs/big")).unwrap();
    let (mut good, mut bad) = (0, 0);
    let mut part = vec![0; 128 << 10];
    for at in (0..big.len()).step_by(part.len()) {
        match file.read_exact_at(&mut part, at as u64) {
            Ok(()) => {
                assert!(part == big[at..at + part.len()], "{at}");
                good += 1;
            }
            Err(why) => {
                assert_eq!(why.raw_os_error(), Some(5), "{why}");
                bad += 1;
            }
        }
    }
    // A frame of 512 KiB at most.
    assert!((1..=5).contains(&bad) && good + bad == 48, "{good} {bad}");
    drop(file);
    let (code, said) = shown.unmount();
    assert!(code == Some(0) && said.contains("/docs/big: ") && said.contains("damaged"), "{code:?} {said}");
}
