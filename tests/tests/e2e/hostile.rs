//! Volumes that no file system would make, through backup, check and restore: what is damaged or beyond a bound costs itself and is
//! named, the point says so, and everything else comes back.
//!
//! Images of ext4 are changed with debugfs, those of XFS with xfs_db. XFS, and reading through the kernel, need root; `SKIPPED` otherwise.
#![allow(clippy::unwrap_used, reason = "tests, and their helpers")]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use rustix::fs::{Mode, OFlags, XattrFlags};
use serde_json::Value;
use windlass_tests::cli::{Cli, Ended};
use windlass_tests::error::output;
use windlass_tests::image::{Access, Kind, Mount, make_empty, make_ext4};
use windlass_tests::privilege::skip;
use windlass_tests::requires_root;
use windlass_tests::tree::{Options, compare};
use windlass_tests::workdir::Workdir;

const IMAGE_BYTES: u64 = 32 << 20;
/// The smallest that mkfs.xfs makes.
const XFS_BYTES: u64 = 512 << 20;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn cli(work: &Workdir) -> Cli {
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(work.path());
    cli.ok(&["repo", "init"]);
    cli
}

fn output_of(command: &mut Command) -> String {
    String::from_utf8_lossy(&output(command).unwrap()).into_owned()
}

fn debugfs(image: &Path, request: &str) -> String {
    output_of(Command::new("debugfs").args(["-w", "-R", request]).arg(image))
}

fn xfs_db(image: &Path, requests: &[&str]) -> String {
    let mut command = Command::new("xfs_db");
    command.arg("-x");
    for request in requests {
        command.args(["-c", request]);
    }
    output_of(command.arg(image))
}

/// The tree that the tests start from.
fn plant(root: &Path) {
    fs::create_dir_all(root.join("dir/below")).unwrap();
    for (name, contents) in [("aaaa", "one"), ("aaab", "two"), ("gone", "gone"), ("dir/below/three", "three")]
    {
        fs::write(root.join(name), contents).unwrap();
    }
    fs::hard_link(root.join("aaab"), root.join("dir/second")).unwrap();
}

/// An ext4 of that tree, made with more options.
fn ext4(work: &Workdir, extra: &[&str]) -> std::path::PathBuf {
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    plant(&tree);
    make_ext4(&image, IMAGE_BYTES, Some(&tree), extra).unwrap();
    image
}

/// An XFS of that tree, and the inode numbers of some names; `None` where none can be made.
fn xfs(test: &str, work: &Workdir, names: &[&str]) -> Option<(std::path::PathBuf, Vec<u64>)> {
    if let Some(why) = Kind::Xfs.missing() {
        skip(test, &why);
        return None;
    }
    let image = work.join("xfs");
    make_empty(Kind::Xfs, &image, XFS_BYTES).unwrap();
    let mount =
        Mount::image_of(Kind::Xfs, &image, &work.dir("mnt").unwrap(), Access::ReadWrite, None).unwrap();
    plant(mount.dir());
    let inodes = names.iter().map(|name| fs::metadata(mount.dir().join(name)).unwrap().ino()).collect();
    drop(mount);
    Some((image, inodes))
}

/// What became of a volume on its way there and back.
struct Way {
    backup: Value,
    /// What the restore said.
    said: String,
    to: std::path::PathBuf,
}

/// Backs `volume` up, which must leave a point with errors, checks the point, which must be sound, and restores it.
fn way(cli: &Cli, work: &Workdir, volume: &str) -> Way {
    cli.ok(&["policy", "set", "p", "--volume", volume]);
    let run = |arguments: &[&str], code: i32| -> Ended {
        let ended = cli.run(arguments);
        assert_eq!(ended.code, code, "{arguments:?}: {}{}", ended.stdout, ended.stderr);
        ended
    };
    let backup = run(&["backup", "p", "--json"], 3).documents().pop().unwrap();
    run(&["check", "p", "--read-data"], 0);
    let to = work.join("to");
    windlass_tests::workdir::remove_tree(&to);
    let restored = run(&["restore", "p", "--to", text(&to)], 3);
    Way { backup, said: restored.stdout + &restored.stderr, to }
}

/// That these files came back as they were.
fn expect(to: &Path, files: &[(&str, &str)]) {
    for (name, contents) in files {
        assert_eq!(fs::read_to_string(to.join(name)).unwrap(), *contents, "{name}");
    }
}

/// Writes one byte of an inode's uid other than it is.
fn spoil_inode(image: &Path, name: &str) {
    let said = debugfs(image, &format!("imap {name}"));
    let (block, offset) = said.split_once("at block ").unwrap().1.split_once(", offset 0x").unwrap();
    let (block, offset) = (block.parse::<u64>().unwrap(), u64::from_str_radix(offset.trim(), 16).unwrap());
    let head = output_of(Command::new("dumpe2fs").arg("-h").arg(image));
    let size = head.lines().find_map(|line| line.strip_prefix("Block size:")).unwrap();
    let at = block * size.trim().parse::<u64>().unwrap() + offset + 2;
    let file = File::options().read(true).write(true).open(image).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn of_equal_names_one_is_left_out_and_named() {
    let work = Workdir::new("e2e-hostile").unwrap();
    let cli = cli(&work);
    let image = ext4(&work, &["-O", "^metadata_csum"]);
    let bytes = fs::read(&image).unwrap();
    let at = bytes.windows(4).position(|four| four == b"aaab").unwrap();
    File::options().write(true).open(&image).unwrap().write_all_at(b"aaaa", at as u64).unwrap();
    let found = cli.run(&["volume", "check", text(&image)]);
    assert!(found.code == 3 && found.stdout.contains("two entries are called aaaa"), "{}", found.stdout);
    let mut volumes = vec![text(&image).to_owned()];
    if windlass_tests::privilege::is_root() {
        volumes.push(format!("{}=mounted", text(&image)));
    }
    for volume in volumes {
        let Way { said, to, .. } = way(&cli, &work, &volume);
        assert!(said.contains("two entries are called \"aaaa\"; the one for inode"), "{said}");
        expect(&to, &[("aaaa", "one"), ("dir/second", "two"), ("dir/below/three", "three")]);
    }
}

#[test]
fn of_equal_names_on_xfs_one_is_left_out_and_named() {
    requires_root!("of_equal_names_on_xfs_one_is_left_out_and_named");
    let work = Workdir::new("e2e-hostile").unwrap();
    let Some((image, inodes)) = xfs("of_equal_names_on_xfs_one_is_left_out_and_named", &work, &["."]) else {
        return;
    };
    let root = format!("inode {}", inodes[0]);
    let shown = xfs_db(&image, &[&root, "print"]);
    let entry = shown.lines().find(|line| line.ends_with("\"aaab\"")).unwrap().split(' ').next().unwrap();
    xfs_db(&image, &[&root, &format!("write {entry} \"aaaa\"")]);
    let Way { said, to, .. } = way(&cli(&work), &work, text(&image));
    assert!(said.contains("two entries are called \"aaaa\"; the one for inode"), "{said}");
    expect(&to, &[("aaaa", "one"), ("dir/second", "two"), ("dir/below/three", "three")]);
}

#[test]
fn names_that_lead_nowhere_mark_the_point() {
    let work = Workdir::new("e2e-hostile").unwrap();
    let (cli, image) = (cli(&work), ext4(&work, &[]));
    let sound = fs::read(&image).unwrap();
    let number = |name: &str| {
        let said = debugfs(&image, &format!("stat {name}"));
        said.split("Inode: ").nth(1).unwrap().split(' ').next().unwrap().to_owned()
    };
    let (gone, dir) = (number("/gone"), number("/dir"));
    let in_use = "inode is in use and has no links";
    let free = "names an inode that is free";
    let cases: [(&[String], &str, i64); 4] = [
        (&[format!("clri <{gone}>")], in_use, 1),
        (&[format!("set_inode_field <{gone}> links_count 0")], in_use, 1),
        (&[format!("clri <{gone}>"), format!("freei <{gone}>")], free, 1),
        // What was below it has no parent: it is named too.
        (&[format!("clri <{dir}>"), format!("freei <{dir}>")], free, 2),
    ];
    for (requests, rule, faults) in cases {
        fs::write(&image, &sound).unwrap();
        requests.iter().for_each(|request| drop(debugfs(&image, request)));
        let Way { backup, said, to } = way(&cli, &work, text(&image));
        assert!(said.contains(rule), "{requests:?}: {said}");
        assert_eq!(backup["fault_list"].as_array().map(|list| list.len() as i64), Some(faults), "{backup}");
        expect(&to, &[("aaaa", "one"), ("aaab", "two")]);
    }
}

#[test]
fn names_on_xfs_that_lead_nowhere_mark_the_point() {
    let test = "names_on_xfs_that_lead_nowhere_mark_the_point";
    requires_root!(test);
    let work = Workdir::new("e2e-hostile").unwrap();
    let Some((image, inodes)) = xfs(test, &work, &["gone", "."]) else { return };
    let cli = cli(&work);
    let kept = work.join("kept");
    fs::copy(&image, &kept).unwrap();
    xfs_db(&image, &[&format!("inode {}", inodes[0]), "write core.nlinkv2 0"]);
    let Way { said, to, .. } = way(&cli, &work, text(&image));
    assert!(said.contains("gone: incomplete since its backup") && said.contains("has no links"), "{said}");
    expect(&to, &[("aaaa", "one"), ("dir/below/three", "three")]);
    fs::copy(&kept, &image).unwrap();
    let root = format!("inode {}", inodes[1]);
    let shown = xfs_db(&image, &[&root, "print"]);
    let entry =
        shown.lines().find(|line| line.ends_with("\"gone\"")).unwrap().split(".name ").next().unwrap();
    xfs_db(&image, &[&root, &format!("write {entry}.inumber.i4 {}", inodes[1] + 60)]);
    let Way { said, to, .. } = way(&cli, &work, text(&image));
    assert!(said.contains("directory entry names an inode that is free"), "{said}");
    expect(&to, &[("aaaa", "one"), ("dir/below/three", "three")]);
}

#[test]
fn a_damaged_file_is_named_by_each_of_its_names_and_a_damaged_root_keeps_its_items() {
    let work = Workdir::new("e2e-hostile").unwrap();
    let (cli, image) = (cli(&work), ext4(&work, &[]));
    let sound = fs::read(&image).unwrap();
    spoil_inode(&image, "/aaab");
    let Way { backup, said, to } = way(&cli, &work, text(&image));
    for name in ["aaab", "dir/second"] {
        assert!(said.contains(&format!("{name}: incomplete since its backup: metadata damaged")), "{said}");
    }
    expect(&to, &[("aaaa", "one"), ("dir/below/three", "three")]);
    let items = backup["items"].as_u64();
    fs::write(&image, &sound).unwrap();
    spoil_inode(&image, "<2>");
    cli.ok(&["policy", "set", "p", "--volume", text(&image)]);
    let ended = cli.run(&["backup", "p", "--json"]);
    assert_eq!(ended.code, 3, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.documents().pop().unwrap()["items"].as_u64(), items, "no item is lost with the root");
    let checked = cli.run(&["check", "p"]);
    assert_eq!(checked.code, 0, "{}{}", checked.stdout, checked.stderr);
}

#[test]
fn a_damaged_root_of_xfs_is_a_root() {
    let test = "a_damaged_root_of_xfs_is_a_root";
    requires_root!(test);
    let work = Workdir::new("e2e-hostile").unwrap();
    let Some((image, inodes)) = xfs(test, &work, &["."]) else { return };
    xfs_db(&image, &[&format!("inode {}", inodes[0]), "write -c core.gen 12345"]);
    let Way { backup, said, .. } = way(&cli(&work), &work, text(&image));
    assert!(said.contains("inode checksum does not match"), "{said}");
    assert_eq!(backup["items"], 7);
}

#[test]
fn more_attributes_than_a_row_takes_and_files_as_long_as_numbers_are() {
    let test = "more_attributes_than_a_row_takes_and_files_as_long_as_numbers_are";
    requires_root!(test);
    let work = Workdir::new("e2e-hostile").unwrap();
    if let Some(why) = Kind::Xfs.missing() {
        return skip(test, &why);
    }
    let image = work.join("image");
    make_empty(Kind::Xfs, &image, XFS_BYTES).unwrap();
    let mount =
        Mount::image_of(Kind::Xfs, &image, &work.dir("mnt").unwrap(), Access::ReadWrite, None).unwrap();
    fs::write(mount.dir().join("many"), "many").unwrap();
    let many = File::open(mount.dir().join("many")).unwrap();
    for n in 0..16_500 {
        let name = format!("user.{n}");
        rustix::fs::fsetxattr(&many, name.as_str(), b"1", XattrFlags::CREATE).unwrap();
    }
    // Their lengths add up to more than a number holds.
    for n in 0..3 {
        let file = File::create(mount.dir().join(format!("long-{n}"))).unwrap();
        file.write_all_at(b"middle", 1 << 62).unwrap();
        file.set_len(i64::MAX as u64).unwrap();
    }
    drop((many, mount));
    let cli = cli(&work);
    let target = work.join("target");
    make_empty(Kind::Xfs, &target, XFS_BYTES).unwrap();
    for (reader, rule) in [
        ("", "more attributes than the reader's bound of 16384"),
        ("=mounted", "does not list the attributes"),
    ] {
        cli.ok(&["policy", "set", "p", "--volume", &format!("{}{reader}", text(&image))]);
        assert_eq!(cli.run(&["backup", "p"]).code, 3);
        assert_eq!(cli.run(&["check", "p", "--read-data"]).code, 0);
        let mount =
            Mount::image_of(Kind::Xfs, &target, &work.dir("to").unwrap(), Access::ReadWrite, None).unwrap();
        let to = mount.dir().join(format!("to{reader}"));
        let restored = cli.run(&["restore", "p", "--to", text(&to)]);
        assert!(
            restored.code == 3 && restored.stderr.contains(rule),
            "{}{}",
            restored.stdout,
            restored.stderr
        );
        expect(&to, &[("many", "many")]);
        for n in 0..3 {
            let file = File::open(to.join(format!("long-{n}"))).unwrap();
            assert_eq!(file.metadata().unwrap().len(), i64::MAX as u64);
            let mut bytes = [0; 6];
            file.read_exact_at(&mut bytes, 1 << 62).unwrap();
            assert_eq!(&bytes, b"middle");
        }
    }
}

/// Makes `levels` directories, each in the last, below `top`, with a file in the last one.
fn dig(top: &Path, levels: usize) {
    let mut dir = rustix::fs::open(top, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..levels {
        rustix::fs::mkdirat(&dir, "d", Mode::from_raw_mode(0o755)).unwrap();
        dir = rustix::fs::openat(&dir, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let file = rustix::fs::openat(&dir, "deep", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o644))
        .unwrap();
    File::from(file).write_all_at(b"deep", 0).unwrap();
}

/// How many directories there are, each in the last, and what is in the last one.
fn depth(top: &Path) -> (usize, String) {
    let mut dir = rustix::fs::open(top, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut levels = 0;
    while let Ok(below) = rustix::fs::openat(&dir, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
        (dir, levels) = (below, levels + 1);
    }
    let file = rustix::fs::openat(&dir, "deep", OFlags::RDONLY, Mode::empty()).unwrap();
    (levels, std::io::read_to_string(File::from(file)).unwrap())
}

#[test]
fn a_tree_deeper_than_paths_and_descriptors_reach_comes_back() {
    requires_root!("a_tree_deeper_than_paths_and_descriptors_reach_comes_back");
    const LEVELS: usize = 4200;
    let work = Workdir::new("e2e-hostile").unwrap();
    let cli = cli(&work);
    let make = |name: &str| {
        make_ext4(&work.join(name), 8 * IMAGE_BYTES, None, &["-b", "1024", "-N", "30000"]).unwrap();
        Mount::image(&work.join(name), &work.dir(&format!("{name}-mnt")).unwrap(), Access::ReadWrite).unwrap()
    };
    let mount = make("image");
    dig(mount.dir(), LEVELS);
    drop(mount);
    let mount = make("target");
    // With a pattern, so that the selection walks down there, too.
    cli.ok(&["policy", "set", "p", "--volume", text(&work.join("image")), "--exclude", "*.tmp"]);
    cli.ok(&["backup", "p"]);
    cli.ok(&["check", "p", "--read-data"]);
    let to = mount.dir().join("to");
    cli.ok(&["restore", "p", "--to", text(&to)]);
    assert_eq!(depth(&to), (LEVELS, "deep".to_owned()));
}

#[test]
fn directories_in_their_inodes_are_read_through_the_kernel() {
    requires_root!("directories_in_their_inodes_are_read_through_the_kernel");
    let work = Workdir::new("e2e-hostile").unwrap();
    let cli = cli(&work);
    let image = work.join("image");
    make_ext4(&image, 2 * IMAGE_BYTES, None, &["-O", "inline_data", "-I", "256", "-N", "20000"]).unwrap();
    let mount = Mount::image(&image, &work.dir("mnt").unwrap(), Access::ReadWrite).unwrap();
    // More directories than are held open at once, some of them too large for an inode, and below those such in their inodes again.
    for a in 0..30 {
        for b in 0..30 {
            let dir = mount.dir().join(format!("{a}/{}/{b}/c", if a % 2 == 0 { "few" } else { "many" }));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("file"), format!("{a} {b}")).unwrap();
        }
    }
    dig(&mount.dir().join("0"), 300);
    drop(mount);
    let verified = cli.run(&["volume", "verify", text(&image), "--all"]);
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
    cli.ok(&["policy", "set", "p", "--volume", &format!("{}=mounted", text(&image))]);
    cli.ok(&["backup", "p"]);
    let to = work.join("to");
    cli.ok(&["restore", "p", "--to", text(&to)]);
    let mount = Mount::image(&image, &work.dir("mnt").unwrap(), Access::ReadOnly).unwrap();
    let same =
        compare(mount.dir(), &to, &Options { root: false, extents: false, ..Options::default() }).unwrap();
    assert!(same.is_equal() && same.items > 3000, "{same}");
}
