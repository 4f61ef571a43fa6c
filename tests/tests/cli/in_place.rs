//! The command line restoring over what is there: what is equal stays, what differs is written; other owners; what a plan says.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use windlass_tests::appliance::{expect_equal, image_of, plant};
use windlass_tests::cli::Cli;
use windlass_tests::error::output;
use windlass_tests::image::{Access, Loop};
use windlass_tests::privilege::skip;
use windlass_tests::prng::Prng;
use windlass_tests::requires_root;
use windlass_tests::workdir::Workdir;

const IMAGE_BYTES: u64 = 32 << 20;

struct Backup {
    work: Workdir,
    cli: Cli,
    tree: PathBuf,
    image: PathBuf,
}

/// A tree, its image, and a point of it as files (`files`) and as one image (`whole`).
fn backup() -> Backup {
    let work = Workdir::new("in-place").unwrap();
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    plant(&tree, 9, 2).unwrap();
    image_of(&tree, &image, IMAGE_BYTES).unwrap();
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(work.path());
    cli.ok(&["repo", "init"]);
    cli.ok(&["policy", "set", "files", "--volume", text(&image)]);
    cli.ok(&["policy", "set", "whole", "--volume", &format!("{}=image", image.display())]);
    cli.ok(&["backup", "files"]);
    cli.ok(&["backup", "whole"]);
    Backup { work, cli, tree, image }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn number(document: &Value, field: &str) -> u64 {
    document[field].as_u64().unwrap()
}

/// What a command prints.
fn said(command: &mut Command) -> String {
    String::from_utf8_lossy(&output(command).unwrap()).into_owned()
}

/// Changes a byte, and puts the times back: nothing but the contents shows it.
fn flip(path: &Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let times = fs::FileTimes::new().set_modified(file.metadata().unwrap().modified().unwrap());
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    file.set_times(times).unwrap();
}

#[test]
fn only_what_differs_of_a_tree_is_written() {
    requires_root!("only_what_differs_of_a_tree_is_written");
    let Backup { work, cli, tree, .. } = backup();
    let to = work.join("to");
    cli.ok(&["restore", "files", "--to", text(&to)]);
    let at = |name: &str| to.join(name);
    let inode = |name: &str| fs::symlink_metadata(at(name)).unwrap().ino();
    let names = [
        "dir-00/below/large",
        "dir-00/below/words",
        "dir-00/below/sparse",
        "dir-01/file-02",
        "dir-01/file-03",
    ];
    let before = names.map(inode);
    // A bit that nothing else shows; too long; data in a hole; too short; contents in the row; other attributes.
    flip(&at(names[0]), 700_000);
    fs::File::options().append(true).open(at(names[1])).unwrap().write_all_at(&[1; 5000], 800_000).unwrap();
    fs::File::options().write(true).open(at(names[2])).unwrap().write_all_at(b"in a hole", 200_000).unwrap();
    fs::File::options().write(true).open(at(names[3])).unwrap().set_len(100).unwrap();
    flip(&at("dir-00/file-00"), 1);
    chown(at("dir-00/file-05"), Some(4321), Some(1234)).unwrap();
    let xattr =
        Command::new("setfattr").args(["-n", "user.other", "-v", "x"]).arg(at("dir-00/file-06")).output();
    fs::remove_file(at("dir-00/file-07")).unwrap();
    fs::remove_file(at("dir-01/below/link")).unwrap();
    fs::remove_file(at("dir-01/below/symlink")).unwrap();
    symlink("elsewhere", at("dir-01/below/symlink")).unwrap();
    fs::write(at("mine"), "mine").unwrap();
    // What is another's too by a further name is not written into.
    fs::hard_link(at("dir-01/file-04"), work.join("another's")).unwrap();
    flip(&at("dir-01/file-04"), 5);
    let another = fs::read(work.join("another's")).unwrap();

    // Names that do not simply stay are listed; nothing is changed.
    let plan = cli.json(&["restore", "files", "--to", text(&to), "--in-place", "--plan"]);
    assert!(number(&plan["taken"], "written") > 40 && number(&plan["taken"], "replaced") > 0, "{plan}");
    assert_eq!(inode(names[0]), before[0]);

    let done = cli.json(&["restore", "files", "--to", text(&to), "--in-place"]);
    assert_eq!(fs::read(at("mine")).unwrap(), b"mine");
    fs::remove_file(at("mine")).unwrap();
    expect_equal(&tree, &to).unwrap();
    assert_eq!(names.map(inode), before, "the files are those that were there");
    assert_eq!(fs::read(work.join("another's")).unwrap(), another);
    assert_eq!(inode("dir-01/below/link"), inode("dir-01/file-03"));
    assert!(fs::metadata(at(names[2])).unwrap().blocks() < 200, "the hole is one again");
    if xattr.is_ok_and(|set| set.status.success()) {
        let left = said(Command::new("getfattr").arg(at("dir-00/file-06")));
        assert!(!left.contains("user.other"), "{left}");
    }
    let (bytes, equal) = (number(&done, "bytes"), number(&done, "bytes_equal"));
    assert!(equal < bytes && bytes - equal < 700_000, "{equal} of {bytes} were equal");
    // Nothing is left to write; text says how much was there.
    let again = cli.ok(&["restore", "files", "--to", text(&to), "--in-place"]);
    assert!(again.contains("were there already"), "{again}");
    let again = cli.json(&["restore", "files", "--to", text(&to), "--in-place"]);
    assert_eq!(number(&again, "bytes"), number(&again, "bytes_equal"), "{again}");
    expect_equal(&tree, &to).unwrap();
}

#[test]
fn a_block_that_only_the_target_has_still_counts() {
    let Backup { work, cli, tree, .. } = backup();
    let to = work.join("to");
    cli.ok(&["restore", "files", "--to", text(&to)]);
    output(Command::new("find").args([text(&work.join("repository/obj")), "-type", "f", "-delete"])).unwrap();
    assert_eq!(cli.run(&["restore", "files", "--to", text(&work.join("new"))]).code, 3);
    cli.ok(&["restore", "files", "--to", text(&to), "--in-place"]);
    expect_equal(&tree, &to).unwrap();
    flip(&to.join("dir-00/below/large"), 700_000);
    let ended = cli.run(&["restore", "files", "--to", text(&to), "--in-place"]);
    assert!(ended.code == 3 && ended.stderr.contains("dir-00/below/large"), "{}", ended.stderr);
}

#[test]
fn only_what_differs_of_an_image_is_written() {
    requires_root!("only_what_differs_of_an_image_is_written");
    let Backup { work, cli, image, .. } = backup();
    let (disk, original) = (work.join("disk"), fs::read(&image).unwrap());
    let mut other = original.clone();
    other.resize(original.len() + (1 << 20), 0xA5);
    // In data, in what is zero, and in the last block.
    for at in [1 << 20, IMAGE_BYTES as usize / 2, IMAGE_BYTES as usize - 1] {
        other[at] ^= 0xff;
    }
    fs::write(&disk, &other).unwrap();
    {
        let device = Loop::attach(&disk, Access::ReadWrite).unwrap();
        let done = cli.json(&["restore", "whole", "--to-device", text(device.device()), "--in-place"]);
        assert_eq!(number(&done, "bytes_behind"), 1 << 20);
        let equal = number(&done, "bytes_equal");
        assert!(equal < IMAGE_BYTES && IMAGE_BYTES - equal <= 4 * (128 << 10), "{equal} bytes were equal");
        let said = cli.ok(&["restore", "whole", "--to-device", text(device.device())]);
        assert!(said.contains("1.00 MiB larger than the image"), "{said}");
    }
    let written = fs::read(&disk).unwrap();
    assert!(
        written[..original.len()] == original && written[original.len()..].iter().all(|&byte| byte == 0xA5)
    );
    // A file that is there: longer, shorter, full of something else. Without --in-place it is left.
    let file = work.join("file");
    for len in [original.len() + 4096, original.len() - (3 << 20), 0, 77] {
        fs::write(&file, vec![0x5A; len]).unwrap();
        assert_eq!(cli.run(&["restore", "whole", "--to-device", text(&file)]).code, 1);
        cli.ok(&["restore", "whole", "--to-device", text(&file), "--in-place"]);
        assert!(fs::read(&file).unwrap() == original, "from {len} bytes");
    }
    assert!(
        fs::metadata(&file).unwrap().blocks() <= fs::metadata(&image).unwrap().blocks() + 64,
        "holes are holes"
    );
}

#[test]
fn owners_are_mapped_also_in_acls() {
    requires_root!("owners_are_mapped_also_in_acls");
    let work = Workdir::new("owners").unwrap();
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    for (name, uid, gid) in [("a", 1000, 100), ("b", 1001, 100), ("c", 2000, 300)] {
        fs::write(tree.join(name), name).unwrap();
        chown(tree.join(name), Some(uid), Some(gid)).unwrap();
    }
    fs::create_dir(tree.join("dir")).unwrap();
    symlink("a", tree.join("link")).unwrap();
    std::os::unix::fs::lchown(tree.join("link"), Some(1000), Some(100)).unwrap();
    for (name, default) in [("a", false), ("dir", true)] {
        let mut setfacl = Command::new("setfacl");
        if default {
            setfacl.arg("-d");
        }
        let set = setfacl.args(["-m", "u:1000:rwx,g:100:r-x,u:7:r--"]).arg(tree.join(name)).output();
        if !set.is_ok_and(|set| set.status.success()) {
            return skip(
                "owners_are_mapped_also_in_acls",
                "setfacl is missing or the file system has no ACLs",
            );
        }
    }
    image_of(&tree, &image, IMAGE_BYTES).unwrap();
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(work.path());
    cli.ok(&["repo", "init"]);
    cli.ok(&["policy", "set", "p", "--volume", text(&image)]);
    cli.ok(&["backup", "p"]);
    let to = work.join("to");
    let rules = ["--map-owner", "1000:2000", "--map-owner", "1001:100=3001:1100"];
    let restore = |more: &[&str]| cli.run(&[&["restore", "p", "--to", text(&to)], &rules[..], more].concat());
    let ended = restore(&[]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let owner =
        |name: &str| fs::symlink_metadata(to.join(name)).map(|stat| (stat.uid(), stat.gid())).unwrap();
    assert_eq!([owner("a"), owner("b"), owner("c")], [(2000, 1100), (3001, 1100), (2000, 300)]);
    assert_eq!(owner("link"), (2000, 1100));
    for name in ["a", "dir"] {
        let acl = said(Command::new("getfacl").arg("-n").arg(to.join(name)));
        for entry in ["user:2000:rwx", "group:1100:r-x", "user:7:r--"] {
            assert!(acl.contains(entry) && !acl.contains("user:1000"), "{name}: {acl}");
        }
    }
    // With the same rules what is there fits; without them it does not.
    assert_eq!(restore(&[]).code, 0);
    let ended = cli.run(&["restore", "p", "--to", text(&to)]);
    assert!(ended.code == 3 && ended.stderr.contains("a: exists already"), "{}", ended.stderr);
    for wrong in ["1000", "a:b", "1:4294967295"] {
        assert_eq!(cli.run(&["restore", "p", "--to", text(&to), "--map-owner", wrong]).code, 2, "{wrong}");
    }
}

#[test]
fn a_plan_says_what_becomes_of_each_name_that_is_taken() {
    let Backup { work, cli, .. } = backup();
    let to = work.join("to");
    cli.ok(&["restore", "files", "dir-00", "--to", text(&to)]);
    fs::write(to.join("dir-00/file-01"), "another").unwrap();
    fs::create_dir_all(to.join("dir-01/file-09/full")).unwrap();
    let left = || (fs::read(to.join("dir-00/file-01")).unwrap(), fs::read_dir(&to).unwrap().count());
    let before = left();
    for (how, file, dir) in [
        (&["--existing", "refuse"][..], "differs, stays, and is named", "is of another type"),
        (&["--existing", "skip"], "stays as it is", "is of another type"),
        (&["--existing", "different"], "is replaced", "is a directory with contents"),
        (&["--existing", "overwrite"], "is replaced", "is replaced"),
        (&["--in-place"], "is compared", "is a directory with contents"),
    ] {
        let said = cli.ok(&[&["restore", "files", "--to", text(&to), "--plan"], how].concat());
        let line = |name: &str| said.lines().find(|line| line.contains(name)).unwrap_or("").to_owned();
        assert!(line("dir-00/file-01:").contains(file), "{how:?}: {said}");
        assert!(line("dir-01/file-09:").contains(dir), "{how:?}: {said}");
    }
    assert_eq!(left(), before);

    // What stays as it is would be neither written nor fetched.
    let whole = work.join("whole");
    cli.ok(&["restore", "files", "--to", text(&whole)]);
    let again = &["restore", "files", "--to", text(&whole), "--existing", "different", "--plan"];
    let counts = |plan: &Value| ["items", "bytes", "bytes_fetched", "objects"].map(|name| number(plan, name));
    assert_eq!(counts(&cli.json(again)), [0; 4]);
    fs::write(whole.join("dir-00/file-01"), "another").unwrap();
    let [items, _, fetched, objects] = counts(&cli.json(again));
    assert!(items == 1 && fetched > 0 && objects == 1, "{items} {fetched} {objects}");
}

/// Starts a restore, kills it when `done` says so of its staging directory, and returns whether it was still running.
fn kill_when(cli: &Cli, arguments: &[&str], done: &dyn Fn() -> bool) -> bool {
    let mut child = cli.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return false;
        }
        if done() {
            child.kill().unwrap();
            child.wait().unwrap();
            return true;
        }
        std::thread::yield_now();
    }
}

/// Bytes that unfinished files in the staging directory of `dir` take.
fn begun(dir: &Path) -> u64 {
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let staging =
        entries(dir).filter(|entry| entry.file_name().to_string_lossy().starts_with(".windlass-restore-"));
    let parts =
        staging.flat_map(|staging| fs::read_dir(staging.path()).into_iter().flatten().filter_map(Result::ok));
    let parts = parts.filter(|part| part.file_name().to_string_lossy().ends_with('p'));
    parts.filter_map(|part| part.metadata().ok()).map(|part| part.blocks() * 512).sum()
}

#[test]
fn a_killed_restore_goes_on_in_the_middle_of_a_large_file() {
    const LARGE: usize = 24 << 20;
    // Lanes with a fetch each, in memory or half written.
    const IN_FLIGHT: u64 = 12 << 20;
    let work = Workdir::new("resume").unwrap();
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    fs::write(tree.join("large"), Prng::new(1).bytes(LARGE)).unwrap();
    plant(&tree, 3, 1).unwrap();
    image_of(&tree, &image, 48 << 20).unwrap();
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(work.path());
    cli.ok(&["repo", "init"]);
    cli.ok(&["policy", "set", "files", "--volume", text(&image)]);
    cli.ok(&["policy", "set", "whole", "--volume", &format!("{}=image", image.display())]);
    cli.ok(&["backup", "files"]);
    cli.ok(&["backup", "whole"]);
    let (dir, file) = (work.join("to"), work.dir("images").unwrap().join("new"));
    let (to_dir, to_file) = (["--to", text(&dir)], ["--to-device", text(&file)]);
    let mut killed = 0;
    for (policy, to, at, place) in
        [("files", to_dir, LARGE as u64, &dir), ("whole", to_file, 25 << 20, &work.join("images"))]
    {
        let arguments = [&["restore", policy], &to[..]].concat();
        let slow = [&arguments[..], &["--limit-down", "16MiB"]].concat();
        let mut before = 0;
        for wanted in [at / 3, 2 * at / 3] {
            // What has been written when it is killed, at least.
            if kill_when(&cli, &slow, &|| begun(place) >= wanted) {
                killed += 1;
                before = begun(place);
                assert!(before >= wanted, "{policy}: what was begun is kept");
            }
        }
        // Of another point, another selection, or with a damaged state, nothing of it is used: see restore_sim.
        let done = cli.json(&arguments);
        let (bytes, equal) = (number(&done, "bytes"), number(&done, "bytes_equal"));
        if before > 0 {
            assert_eq!(number(&done, "files_resumed"), 1, "{done}");
            assert!(
                equal + IN_FLIGHT >= before,
                "{policy}: {equal} of {before} were not written again, of {bytes}"
            );
        }
    }
    expect_equal(&tree, &dir).unwrap();
    assert!(fs::read(&file).unwrap() == fs::read(&image).unwrap());
    assert!(killed > 0, "each restore was over before it could be killed");
    assert_eq!((begun(&dir), begun(&work.join("images"))), (0, 0));
    // Given up: what is finished stays, the rest goes.
    let abandoned = work.join("abandoned");
    let arguments = ["restore", "files", "--to", text(&abandoned), "--limit-down", "16MiB"];
    if kill_when(&cli, &arguments, &|| begun(&abandoned) > 4 << 20) {
        let said = cli.json(&["restore", "files", "--to", text(&abandoned), "--abandon"]);
        assert_eq!(said["removed"].as_array().unwrap().len(), 1, "{said}");
        assert!(
            !fs::read_dir(&abandoned).unwrap().any(|entry| {
                entry.unwrap().file_name().to_string_lossy().starts_with(".windlass-restore-")
            })
        );
    }
    let said = cli.ok(&["restore", "files", "--to", text(&abandoned), "--abandon"]);
    assert!(said.contains("no restore has left anything"), "{said}");
    let done = cli.json(&["restore", "files", "--to", text(&abandoned)]);
    assert_eq!(number(&done, "files_resumed"), 0);
    expect_equal(&tree, &abandoned).unwrap();
}
