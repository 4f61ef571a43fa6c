//! Restores into targets that are full, limited, in use or of another kind, through the command line: what concerns one item is
//! named and the rest goes on; what concerns the whole target is said once, and the same command goes on later.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{FallocateFlags, fallocate};
use windlass_tests::cli::{Cli, Ended};
use windlass_tests::error::output;
use windlass_tests::fixture::noise;
use windlass_tests::image::{Access, Kind, Loop, Mount, make_empty, make_ext4};
use windlass_tests::privilege::skip;
use windlass_tests::requires_root;
use windlass_tests::tree::{Options, compare};
use windlass_tests::workdir::Workdir;

const IMAGE_BYTES: u64 = 128 << 20;
/// Smallest XFS that mkfs.xfs makes.
const XFS_BYTES: u64 = 300 << 20;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A repository with a point of one volume, policy `p`.
struct Backup {
    work: Workdir,
    cli: Cli,
    image: PathBuf,
}

/// Backs up a new file system of `kind` that `fill` has filled.
fn backup(kind: Kind, fill: impl FnOnce(&Path)) -> Backup {
    let work = Workdir::new("e2e-restore").unwrap();
    let image = work.join("image");
    make_empty(kind, &image, if kind == Kind::Xfs { XFS_BYTES } else { IMAGE_BYTES }).unwrap();
    let mount = Mount::image_of(kind, &image, &work.join("source"), Access::ReadWrite, None).unwrap();
    fill(mount.dir());
    drop(mount);
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(work.path());
    cli.ok(&["repo", "init"]);
    cli.ok(&["policy", "set", "p", "--volume", text(&image)]);
    cli.ok(&["backup", "p"]);
    Backup { work, cli, image }
}

impl Backup {
    fn target(&self, kind: Kind, bytes: u64, options: Option<&str>) -> Mount {
        let image = self.work.join("target");
        make_empty(kind, &image, bytes).unwrap();
        Mount::image_of(kind, &image, &self.work.join("to"), Access::ReadWrite, options).unwrap()
    }

    fn restore(&self, to: &Path, more: &[&str]) -> Ended {
        self.cli.run(&[&["restore", "p", "--to", text(to)], more].concat())
    }

    /// Expects that `dir` holds what the source holds.
    fn expect_whole(&self, dir: &Path) {
        let source = Mount::image(&self.image, &self.work.join("source"), Access::ReadOnly).unwrap();
        let same = compare(source.dir(), dir, &Options::default()).unwrap();
        assert!(same.is_equal(), "{same}");
    }
}

/// What was named, without `windlass: `.
fn named(ended: &Ended) -> Vec<&str> {
    ended.stderr.lines().filter_map(|line| line.strip_prefix("windlass: ")).collect()
}

/// 40 files of 200 KB in two directories with times and modes of their own.
fn files(root: &Path) {
    for (dir, mode) in [("a", 0o750), ("b", 0o711)] {
        fs::create_dir(root.join(dir)).unwrap();
        for file in 0..20 {
            fs::write(root.join(format!("{dir}/{file:02}")), noise(file, 200_000)).unwrap();
        }
        fs::hard_link(root.join(dir).join("03"), root.join(dir).join("03-again")).unwrap();
        fs::set_permissions(root.join(dir), fs::Permissions::from_mode(mode)).unwrap();
        output(Command::new("touch").args(["-d", "2001-02-03 04:05:06"]).arg(root.join(dir))).unwrap();
    }
}

#[test]
fn a_file_that_does_not_fit_is_named_and_keeps_no_other_out() {
    requires_root!("a_file_that_does_not_fit_is_named_and_keeps_no_other_out");
    for kind in [Kind::Ext4, Kind::Xfs] {
        if let Some(why) = kind.missing() {
            skip("a_file_that_does_not_fit_is_named_and_keeps_no_other_out", &why);
            continue;
        }
        let b = backup(Kind::Ext4, |root| {
            fs::write(root.join("0-large"), noise(1, 70_000_000)).unwrap();
            fs::hard_link(root.join("0-large"), root.join("1-large-too")).unwrap();
            files(root);
        });
        let mount = b.target(kind, if kind == Kind::Xfs { XFS_BYTES } else { 40 << 20 }, None);
        if kind == Kind::Xfs {
            fill_but(mount.dir(), 40 << 20);
        }
        let to = mount.dir().join("to");
        let ended = b.restore(&to, &[]);
        assert_eq!(ended.code, 3, "{}", ended.stderr);
        let said = named(&ended);
        assert!(said[0].contains("0-large: write: No space left"), "{said:?}");
        assert!(said[1].contains("1-large-too: ") && said.len() == 2, "each name is named: {said:?}");
        assert!(ended.stdout.contains("2 items could not be restored as they were"), "{}", ended.stdout);
        for dir in ["a", "b"] {
            assert_eq!(fs::read_dir(to.join(dir)).unwrap().count(), 21, "{dir}");
        }
        assert!(!to.join("0-large").exists());
    }
}

/// Fills a file system but for `left` bytes with the file `fill`.
fn fill_but(dir: &Path, left: u64) {
    let file = File::create(dir.join("fill")).unwrap();
    let free = nix::sys::statvfs::statvfs(dir).unwrap();
    let bytes = (free.blocks_available() * free.fragment_size()).saturating_sub(left);
    fallocate(&file, FallocateFlags::empty(), 0, bytes as i64).unwrap();
}

#[test]
fn a_full_target_is_said_once_and_the_same_command_goes_on_later() {
    requires_root!("a_full_target_is_said_once_and_the_same_command_goes_on_later");
    let b = backup(Kind::Ext4, files);
    // A new directory, and one that others made.
    for made in [false, true] {
        let mount = b.target(Kind::Ext4, 64 << 20, None);
        fs::write(mount.dir().join("fill"), noise(1, 1)).unwrap();
        // Until there is nothing, for root either; then a little.
        let full =
            output(Command::new("sh").args(["-c", "cat /dev/zero > fill; exit 0"]).current_dir(mount.dir()));
        full.unwrap();
        let fill = File::options().write(true).open(mount.dir().join("fill")).unwrap();
        fill.set_len(fill.metadata().unwrap().len() - (3 << 20)).unwrap();
        fill.sync_all().unwrap();
        drop(fill);
        let to = mount.dir().join("to");
        if made {
            fs::create_dir(&to).unwrap();
        }
        let ended = b.restore(&to, &[]);
        assert_eq!(ended.code, 1, "{}", ended.stderr);
        assert_eq!(named(&ended).len(), 1, "{}", ended.stderr);
        assert!(ended.failure().contains("takes no more files"), "{}", ended.stderr);
        let before = count(&to);
        assert!(before > 8 && before < 40, "{before}");
        fs::remove_file(mount.dir().join("fill")).unwrap();
        let again = b.restore(&to, &[]);
        assert_eq!((again.code, again.stderr.as_str()), (0, ""));
        b.expect_whole(&to);
        assert_eq!(fs::metadata(to.join("a/03")).unwrap().nlink(), 2);
        // Once more: everything is there, and nothing is said.
        assert_eq!(b.restore(&to, &[]).code, 0);
        b.expect_whole(&to);
    }
}

/// Files below a directory.
fn count(dir: &Path) -> usize {
    let found = output(Command::new("find").arg(dir).args(["-type", "f"])).unwrap();
    String::from_utf8_lossy(&found).lines().count()
}

#[test]
fn space_past_the_end_in_many_pieces_does_not_fill_the_target() {
    requires_root!("space_past_the_end_in_many_pieces_does_not_fill_the_target");
    let b = backup(Kind::Ext4, |root| {
        for name in ["x", "y"] {
            let file = File::create(root.join(name)).unwrap();
            for island in 1..100 {
                fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, island << 24, 4096).unwrap();
            }
        }
    });
    let mount = b.target(Kind::Ext4, 40 << 20, None);
    let ended = b.restore(&mount.dir().join("to"), &[]);
    assert_eq!((ended.code, named(&ended).len()), (3, 1), "{}", ended.stderr);
    assert!(ended.stderr.contains("allocated in too many pieces") && ended.stderr.contains("1 more"));
    let blocks = fs::metadata(mount.dir().join("to/x")).unwrap().blocks();
    assert!((8 * 60..8 * 100).contains(&blocks), "{blocks} sectors");
}

#[test]
fn a_file_that_is_too_large_for_the_target_is_named_and_the_rest_goes_on() {
    const TEST: &str = "a_file_that_is_too_large_for_the_target_is_named_and_the_rest_goes_on";
    requires_root!(TEST);
    if let Some(why) = Kind::Xfs.missing() {
        return skip(TEST, &why);
    }
    let b = backup(Kind::Xfs, |root| {
        files(root);
        for name in ["0-far", "z-far"] {
            let file = File::create(root.join(name)).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, b"20 TiB", 20 << 40).unwrap();
        }
    });
    let mount = b.target(Kind::Ext4, IMAGE_BYTES, None);
    let to = mount.dir().join("to");
    let ended = b.restore(&to, &[]);
    assert_eq!((ended.code, named(&ended).len()), (3, 2), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("-far: write: File too large").count(), 2, "{}", ended.stderr);
    assert_eq!(count(&to), 42);
}

#[test]
fn without_its_owner_nothing_gives_the_owners_rights() {
    const TEST: &str = "without_its_owner_nothing_gives_the_owners_rights";
    requires_root!(TEST);
    let b = backup(Kind::Ext4, |root| {
        for (name, mode, owner) in [
            ("user", 0o4755, (1, 0)),
            ("group", 0o2755, (0, 2)),
            ("own", 0o6755, (0, 0)),
            ("plain", 0o755, (1, 2)),
        ] {
            fs::write(root.join(name), "#!").unwrap();
            chown(root.join(name), Some(owner.0), Some(owner.1)).unwrap();
            fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::write(root.join("capable"), "#!").unwrap();
        chown(root.join("capable"), Some(1), None).unwrap();
        let set = Command::new("setcap").arg("cap_net_raw+ep").arg(root.join("capable")).output();
        assert!(set.is_ok_and(|set| set.status.success()), "setcap");
    });
    let to = b.work.join("to");
    let restore = b.cli.command(&["restore", "p", "--to", text(&to)]);
    let mut without = Command::new("setpriv");
    without.args(["--bounding-set=-chown", "--inh-caps=-chown"]).arg(restore.get_program());
    without.args(restore.get_args());
    without.envs(restore.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ended = without.output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(3), "{said}");
    assert_eq!(said.matches("setuid, setgid and file capabilities are left out").count(), 1, "{said}");
    assert!(said.contains("the same for 2 more items"), "{said}");
    let mode = |name: &str| fs::metadata(to.join(name)).unwrap().mode() & 0o7777;
    assert_eq!(["user", "group", "own", "plain"].map(mode), [0o755, 0o755, 0o6755, 0o755]);
    let capabilities = output(Command::new("getcap").arg(to.join("capable"))).unwrap();
    assert!(capabilities.is_empty(), "{}", String::from_utf8_lossy(&capabilities));
    // With the right to set owners everything is as it was.
    let all = b.work.join("all");
    assert_eq!(b.restore(&all, &[]).code, 0);
    assert_eq!(fs::metadata(all.join("user")).unwrap().mode() & 0o7777, 0o4755);
    assert!(!output(Command::new("getcap").arg(all.join("capable"))).unwrap().is_empty());
}

#[test]
fn what_cannot_be_meant_as_a_target_is_refused_at_once() {
    requires_root!("what_cannot_be_meant_as_a_target_is_refused_at_once");
    let b = backup(Kind::Ext4, files);
    b.cli.ok(&["policy", "set", "i", "--volume", &format!("{}=image", text(&b.image))]);
    b.cli.ok(&["backup", "i"]);
    let dangling = b.work.join("dangling");
    symlink("nowhere", &dangling).unwrap();
    let repository = b.work.join("repository");
    let refused = |arguments: &[&str], why: &str| {
        let ended = b.cli.run(&[&["restore"], arguments].concat());
        assert!(ended.code == 1 && ended.failure().contains(why), "{arguments:?}: {}", ended.stderr);
        assert_eq!(named(&ended).len(), 1, "{}", ended.stderr);
    };
    for option in [&["i", "--to-device"], &["p", "--to"]] {
        let at = |place: &str, why: &str| refused(&[option[0], option[1], place], why);
        at("/dev/windlass-no-such-device", "there is no such device");
        at("/dev/windlass-no-such-directory/device", "there is no such device");
        at(text(&dangling), "a symlink to something that does not exist");
        at(text(&repository.join("obj/new")), "lies in the repository");
    }
    refused(&["p", "--to", text(&repository)], "lies in the repository");
    assert!(!Path::new("/dev/windlass-no-such-device").exists());
    assert!(!b.work.join("nowhere").exists() && !repository.join("obj/new").exists());
    // A device that takes no writes.
    let disk = b.work.join("disk");
    File::create(&disk).unwrap().set_len(2 * IMAGE_BYTES).unwrap();
    let device = Loop::attach(&disk, Access::ReadOnly).unwrap();
    refused(&["i", "--to-device", text(device.device())], "the device is read-only");
    b.cli.ok(&["check", "p"]);
}

#[test]
fn the_repository_below_the_target_is_left_alone() {
    requires_root!("the_repository_below_the_target_is_left_alone");
    let work = Workdir::new("e2e-restore").unwrap();
    // A volume whose tree has a file where the repository's directory is, and one in it.
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    fs::create_dir_all(tree.join("in/repository")).unwrap();
    fs::write(tree.join("in/repository/format"), "not a format").unwrap();
    fs::write(tree.join("over"), "a file").unwrap();
    make_ext4(&image, IMAGE_BYTES, Some(&tree), &[]).unwrap();
    for place in ["in", "over"] {
        let target = work.dir(&format!("target-{place}")).unwrap();
        fs::create_dir_all(target.join(place)).unwrap();
        let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(&target.join(place));
        cli.ok(&["repo", "init"]);
        cli.ok(&["policy", "set", "p", "--volume", text(&image)]);
        cli.ok(&["backup", "p"]);
        let ended = cli.run(&["restore", "p", "--to", text(&target), "--existing", "overwrite"]);
        assert_eq!(ended.code, 3, "{}", ended.stderr);
        assert!(ended.stderr.contains("is the repository itself"), "{}", ended.stderr);
        cli.ok(&["check", "p", "--read-data"]);
    }
}

#[test]
fn a_repository_in_the_volume_that_is_backed_up_is_named() {
    requires_root!("a_repository_in_the_volume_that_is_backed_up_is_named");
    for kind in [Kind::Ext4, Kind::Xfs] {
        if let Some(why) = kind.missing() {
            skip("a_repository_in_the_volume_that_is_backed_up_is_named", &why);
            continue;
        }
        let work = Workdir::new("e2e-restore").unwrap();
        let (image, copy) = (work.join("image"), work.join("snapshot"));
        make_empty(kind, &image, if kind == Kind::Xfs { XFS_BYTES } else { IMAGE_BYTES }).unwrap();
        output(Command::new("cp").arg("--sparse=always").args([&image, &copy])).unwrap();
        let mount = Mount::image_of(kind, &image, &work.join("mounted"), Access::ReadWrite, None).unwrap();
        let place = mount.dir().join("srv/backup");
        fs::create_dir_all(&place).unwrap();
        let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(&place);
        cli.ok(&["repo", "init"]);
        cli.ok(&["policy", "set", "p", "--volume", text(&copy)]);
        let said = |cli: &Cli| cli.run(&["backup", "p"]).stderr;
        let warned = said(&cli);
        assert!(warned.contains("holds the repository itself"), "{warned}");
        assert!(warned.contains("--exclude '/srv/backup/repository/'"), "{warned}");
        cli.ok(&["policy", "set", "p", "--exclude", "/srv/backup/repository/"]);
        assert!(!said(&cli).contains("holds the repository"));
        // Another file system beside it.
        let other = work.join("other");
        make_empty(Kind::Ext4, &other, 64 << 20).unwrap();
        cli.ok(&["policy", "set", "p", "--no-exclude", "--volume", text(&other)]);
        assert_eq!(said(&cli), "");
    }
}

#[test]
fn something_of_another_type_is_replaced_when_that_is_asked_for() {
    requires_root!("something_of_another_type_is_replaced_when_that_is_asked_for");
    let b = backup(Kind::Ext4, |root| {
        files(root);
        symlink("a", root.join("link")).unwrap();
        output(Command::new("mkfifo").arg(root.join("pipe"))).unwrap();
    });
    let in_the_way = |to: &Path| {
        fs::create_dir_all(to.join("link/with/contents")).unwrap();
        fs::create_dir_all(to.join("a/00")).unwrap();
        fs::create_dir_all(to.join("pipe")).unwrap();
        symlink("/etc", to.join("b")).unwrap();
        symlink("/etc/passwd", to.join("a/01")).unwrap();
    };
    let to = b.work.dir("to").unwrap();
    in_the_way(&to);
    for existing in ["refuse", "skip"] {
        let ended = b.restore(&to, &["--existing", existing]);
        assert_eq!(ended.code, 3, "{existing}: {}", ended.stderr);
        assert!(
            to.join("b").is_symlink() && to.join("link/with/contents").is_dir() && to.join("pipe").is_dir()
        );
    }
    let ended = b.restore(&to, &["--existing", "different"]);
    assert_eq!(
        (ended.code, named(&ended).len()),
        (3, 1),
        "only the one that holds something: {}",
        ended.stderr
    );
    assert!(to.join("link/with/contents").is_dir() && ended.stderr.contains("not empty"), "{}", ended.stderr);
    let ended = b.restore(&to, &["--existing", "overwrite"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    b.expect_whole(&to);
    // At once, too, and nothing of it stays behind.
    let to = b.work.dir("at-once").unwrap();
    in_the_way(&to);
    assert_eq!(b.restore(&to, &["--existing", "overwrite"]).code, 0);
    b.expect_whole(&to);
    assert!(Path::new("/etc/passwd").is_file());
}

#[test]
fn missing_names_of_a_file_that_is_left_are_names_of_that_file() {
    requires_root!("missing_names_of_a_file_that_is_left_are_names_of_that_file");
    let b = backup(Kind::Ext4, |root| {
        for dir in ["a", "b", "c"] {
            fs::create_dir(root.join(dir)).unwrap();
        }
        fs::write(root.join("b/name"), noise(3, 100_000)).unwrap();
        fs::hard_link(root.join("b/name"), root.join("a/name")).unwrap();
        fs::hard_link(root.join("b/name"), root.join("c/name")).unwrap();
        output(Command::new("mkfifo").arg(root.join("b/pipe"))).unwrap();
        fs::hard_link(root.join("b/pipe"), root.join("a/pipe")).unwrap();
        fs::hard_link(root.join("b/pipe"), root.join("c/pipe")).unwrap();
    });
    // Whichever name is met first.
    for gone in [["a", "b"], ["a", "c"], ["b", "c"]] {
        let to = b.work.join(&gone.concat());
        assert_eq!(b.restore(&to, &[]).code, 0);
        for dir in gone {
            fs::remove_file(to.join(dir).join("name")).unwrap();
            fs::remove_file(to.join(dir).join("pipe")).unwrap();
        }
        let kept = ["a", "b", "c"].into_iter().find(|dir| !gone.contains(dir)).unwrap();
        let inode = |dir: &str, name: &str| fs::symlink_metadata(to.join(dir).join(name)).unwrap().ino();
        let before = (inode(kept, "name"), inode(kept, "pipe"));
        let ended = b.restore(&to, &["--existing", "skip"]);
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
        for dir in ["a", "b", "c"] {
            assert_eq!((inode(dir, "name"), inode(dir, "pipe")), before, "{gone:?}: {dir}");
        }
    }
}

/// Contents that were changed behind the back of size, time and mode are what an overwriting restore is for.
#[test]
fn what_is_overwritten_is_written_whatever_it_looks_like_also_by_several_names() {
    requires_root!("what_is_overwritten_is_written_whatever_it_looks_like_also_by_several_names");
    let b = backup(Kind::Ext4, |root| {
        fs::write(root.join("a"), noise(3, 100_000)).unwrap();
        fs::hard_link(root.join("a"), root.join("b")).unwrap();
        fs::write(root.join("alone"), noise(4, 5000)).unwrap();
    });
    let to = b.work.join("to");
    assert_eq!(b.restore(&to, &[]).code, 0);
    for name in ["a", "alone"] {
        let path = to.join(name);
        let (before, was) = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap());
        fs::write(&path, vec![0xEE; before.len()]).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(was).unwrap();
    }
    assert_eq!(b.restore(&to, &["--existing", "overwrite"]).code, 0);
    assert!(fs::read(to.join("alone")).unwrap() == noise(4, 5000));
    for name in ["a", "b"] {
        assert!(fs::read(to.join(name)).unwrap() == noise(3, 100_000), "{name}");
    }
    let inode = |name: &str| fs::metadata(to.join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("b"));
}

#[test]
fn immutable_directories_that_are_as_they_were_are_not_touched() {
    requires_root!("immutable_directories_that_are_as_they_were_are_not_touched");
    let b = backup(Kind::Ext4, |root| {
        files(root);
        output(Command::new("setfattr").args(["-n", "user.x", "-v", "1"]).arg(root.join("a"))).unwrap();
        output(Command::new("chattr").arg("+i").args([root.join("a"), root.join("b/03")])).unwrap();
        output(Command::new("chattr").arg("+a").arg(root.join("b"))).unwrap();
    });
    let mount = b.target(Kind::Ext4, IMAGE_BYTES, None);
    let to = mount.dir().join("to");
    assert_eq!(b.restore(&to, &[]).code, 0);
    for existing in ["refuse", "skip", "different"] {
        let ended = b.restore(&to, &["--existing", existing]);
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{existing}");
    }
    output(Command::new("chattr").args(["-R", "-f", "-ia"]).arg(&to)).unwrap();
}

#[test]
fn what_only_the_source_can_keep_is_named_once_for_all_items() {
    const TEST: &str = "what_only_the_source_can_keep_is_named_once_for_all_items";
    requires_root!(TEST);
    if let Some(why) = Kind::Xfs.missing() {
        return skip(TEST, &why);
    }
    let b = backup(Kind::Xfs, |root| {
        for n in 0..5 {
            fs::write(root.join(format!("f{n}")), "").unwrap();
            fs::create_dir(root.join(format!("d{n}"))).unwrap();
            let set = |name: String, command: &str| {
                output(Command::new("xfs_io").args(["-c", command]).arg(root.join(name))).unwrap();
            };
            set(format!("f{n}"), "extsize 1m");
            set(format!("f{n}"), "chattr +f");
            set(format!("d{n}"), "cowextsize 2m");
            set(format!("d{n}"), "chattr +n");
        }
        fs::write(root.join("f0"), noise(1, 3_000_000)).unwrap();
    });
    let ext4 = b.target(Kind::Ext4, IMAGE_BYTES, None);
    let ended = b.restore(&ext4.dir().join("to"), &[]);
    assert_eq!((ended.code, named(&ended).len()), (3, 3), "{}", ended.stderr);
    assert!(ended.stderr.contains(": the extent size hint is not kept"), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("the same for 4 more items").count(), 2, "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("the same for 9 more items").count(), 1, "{}", ended.stderr);
    drop(ext4);
    let xfs = b.target(Kind::Xfs, XFS_BYTES, None);
    let to = xfs.dir().join("to");
    assert_eq!(b.restore(&to, &[]).code, 0);
    let hints = |name: &str| {
        let said = output(
            Command::new("xfs_io")
                .args(["-r", "-c", "lsattr", "-c", "extsize", "-c", "cowextsize"])
                .arg(to.join(name)),
        );
        String::from_utf8_lossy(&said.unwrap()).into_owned()
    };
    for n in 0..5 {
        let (file, dir) = (hints(&format!("f{n}")), hints(&format!("d{n}")));
        assert!(file.contains("[1048576]") && dir.contains("[2097152]"), "{file} {dir}");
        let flags = |said: &str| said.split(' ').next().unwrap().replace(['-', 'X'], "");
        assert_eq!((flags(&file).as_str(), flags(&dir).as_str()), ("ef", "nC"), "{file} {dir}");
    }
}

#[test]
fn what_a_damaged_root_held_comes_back_by_inode_number() {
    requires_root!("what_a_damaged_root_held_comes_back_by_inode_number");
    for (kind, damage) in [("no type", "sif <2> mode 0"), ("checksum", "sif <2> checksum 0x1234")] {
        let mut numbers = (0, 0, 0);
        let b = backup(Kind::Ext4, |root| {
            files(root);
            fs::write(root.join("loose"), "no directory knows its name").unwrap();
            fs::hard_link(root.join("loose"), root.join("loose-too")).unwrap();
            let number = |name: &str| fs::metadata(root.join(name)).unwrap().ino();
            numbers = (number("a"), number("b"), number("loose"));
        });
        output(Command::new("debugfs").args(["-w", "-R", damage]).arg(&b.image)).unwrap();
        assert_eq!(b.cli.run(&["backup", "p"]).code, 3, "{kind}");
        let to = b.work.join("to");
        let ended = b.restore(&to, &[]);
        assert_eq!(ended.code, 3, "{kind}: {}", ended.stderr);
        assert!(ended.stderr.contains("the target itself: "), "{kind}: {}", ended.stderr);
        let lost = |number: u64| to.join("lost+found").join(number.to_string());
        assert_eq!(fs::read(lost(numbers.2)).unwrap(), b"no directory knows its name", "{kind}");
        for dir in [numbers.0, numbers.1] {
            assert!(
                ended.stderr.contains(&format!("lost+found/{dir}: its name was lost")),
                "{kind}: {}",
                ended.stderr
            );
            assert_eq!(fs::read_dir(lost(dir)).unwrap().count(), 21, "{kind}");
            assert_eq!(fs::read(lost(dir).join("07")).unwrap(), noise(7, 200_000), "{kind}");
        }
    }
}

#[test]
fn paths_are_patterns_or_names_as_they_are_shown_or_said_to_lead_nowhere() {
    requires_root!("paths_are_patterns_or_names_as_they_are_shown_or_said_to_lead_nowhere");
    let odd = std::ffi::OsStr::from_bytes(b"odd\x1b\xff\\name");
    let b = backup(Kind::Ext4, |root| {
        fs::create_dir_all(root.join("etc/conf.d")).unwrap();
        for name in ["etc/a.conf", "etc/conf.d/b.conf", "etc/c.txt", "[x].conf"] {
            fs::write(root.join(name), name).unwrap();
        }
        fs::write(root.join(odd), "odd").unwrap();
        symlink("etc", root.join("link")).unwrap();
    });
    let restored = |paths: &[&str], code: i32| {
        let to = b.work.join("deep/er/to");
        let ended = b.restore(&to, paths);
        assert_eq!(ended.code, code, "{paths:?}: {}", ended.stderr);
        let found = output(Command::new("find").arg(".").args(["-type", "f"]).current_dir(&to)).unwrap();
        let mut found: Vec<Vec<u8>> = found.split(|&b| b == b'\n').map(<[u8]>::to_vec).collect();
        found.retain(|path| !path.is_empty());
        found.sort();
        fs::remove_dir_all(b.work.join("deep")).unwrap();
        (found, ended)
    };
    let shown = b.cli.ok(&["ls", "p", "/"]);
    let name = shown.lines().find(|line| line.starts_with("odd")).unwrap();
    assert_eq!(name, "odd\\u{1b}\\xff\\\\name");
    assert_eq!(b.cli.ok(&["cat", "p", name]), "odd");
    let same = |paths: &[&str], files: &[&str]| {
        let found = restored(paths, 0).0;
        assert_eq!(found, files.iter().map(|file| format!("./{file}").into_bytes()).collect::<Vec<_>>());
    };
    same(&["*.conf"], &["[x].conf", "etc/a.conf", "etc/conf.d/b.conf"]);
    same(&["/etc/*.conf"], &["etc/a.conf"]);
    same(&["etc/conf*"], &["etc/conf.d/b.conf"]);
    // A name that looks like a pattern is that name.
    same(&["[x].conf"], &["[x].conf"]);
    assert_eq!(restored(&[name], 0).0, [b"./odd\x1b\xff\\name".to_vec()]);
    let (_, ended) = restored(&["etc/a.conf", "link/a.conf", "etc/c.txt/x", "none*"], 3);
    for said in
        ["link: is a symlink to etc", "etc/c.txt: is not a directory", "none*: not in this recovery point"]
    {
        assert!(ended.stderr.contains(said), "{said}: {}", ended.stderr);
    }
    assert!(ended.stdout.contains("3 items could not be restored"), "{}", ended.stdout);
}

#[test]
fn of_several_volumes_each_goes_to_a_folder_of_its_own() {
    let work = Workdir::new("e2e-restore").unwrap();
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(work.path());
    cli.ok(&["repo", "init"]);
    let images = ["one", "two", "three=image"].map(|volume| {
        let (name, tree) = (volume.split('=').next().unwrap(), work.dir("tree").unwrap());
        fs::write(tree.join("name"), name).unwrap();
        make_ext4(&work.join(name), 16 << 20, Some(&tree), &[]).unwrap();
        work.join(volume)
    });
    let volumes: Vec<&str> = images.iter().flat_map(|image| ["--volume", text(image)]).collect();
    cli.ok(&[&["policy", "set", "p"], &volumes[..]].concat());
    cli.ok(&["backup", "p"]);
    let listed = cli.ok(&["ls", "p", "/"]);
    let numbers: Vec<&str> = listed.lines().map(|line| line.trim_end_matches('/')).collect();
    assert_eq!(numbers.len(), 3);
    let (to, path) = (work.join("to"), format!("{}/name", numbers[1]));
    cli.ok(&["restore", "p", "--to", text(&to)]);
    assert_eq!(fs::read_to_string(to.join("one/name")).unwrap(), "one");
    assert_eq!(fs::read_to_string(to.join("two/name")).unwrap(), "two");
    assert!(fs::read(to.join("three/image")).unwrap() == fs::read(work.join("three")).unwrap());
    // Paths as `ls` takes them; one volume by name has no folder.
    let to = work.join("path");
    cli.ok(&["restore", "p", &path, "--to", text(&to)]);
    assert_eq!(count(&to), 1);
    assert_eq!(fs::read_to_string(to.join("two/name")).unwrap(), "two");
    let to = work.join("volume");
    cli.ok(&["restore", "p", "--volume", text(&images[0]), "name", "--to", text(&to)]);
    assert_eq!(fs::read_to_string(to.join("name")).unwrap(), "one");
    for arguments in [&["cat", "p", "/name"][..], &["restore", "p", "name", "--to", text(&to)]] {
        let ended = cli.run(arguments);
        assert_eq!(ended.code, 2, "{}", ended.stderr);
        let list = format!("{} ({}), {} (", numbers[0], text(&images[0]), numbers[1]);
        assert!(ended.stderr.contains(&list), "{}", ended.stderr);
    }
}
