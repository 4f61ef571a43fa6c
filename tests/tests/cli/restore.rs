//! The command line restoring to places that are in use already: what was there stays as it was, links are not followed,
//! nothing is inherited, and devices hold exactly the image.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use windlass_hal::linux::{self, Access as DeviceAccess};
use windlass_hal::volume::detect;
use windlass_tests::appliance::{expect_equal, image_of, plant};
use windlass_tests::cli::Cli;
use windlass_tests::error::output;
use windlass_tests::image::{Access, Kind, Loop, Mount, make_empty, make_ext4};
use windlass_tests::privilege::{is_root, skip};
use windlass_tests::requires_root;
use windlass_tests::workdir::Workdir;

const IMAGE_BYTES: u64 = 32 << 20;

/// A tree, its ext4 image, and a repository with a point of it, as files (`files`) or as one image (`whole`).
struct Backup {
    work: Workdir,
    cli: Cli,
    tree: PathBuf,
    image: PathBuf,
}

fn backup(policy: &str) -> Backup {
    let work = Workdir::new("cli-restore").unwrap();
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    plant(&tree, 5, 2).unwrap();
    fs::set_permissions(tree.join("dir-01"), fs::Permissions::from_mode(0o750)).unwrap();
    image_of(&tree, &image, IMAGE_BYTES).unwrap();
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(work.path());
    cli.ok(&["repo", "init"]);
    let (volume, as_image) = (image.display().to_string(), format!("{}=image", image.display()));
    cli.ok(&["policy", "set", policy, "--volume", if policy == "whole" { &as_image } else { &volume }]);
    cli.ok(&["backup", policy]);
    Backup { work, cli, tree, image }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn directories_that_were_there_keep_their_attributes() {
    let Backup { work, cli, tree, .. } = backup("files");
    let to = work.dir("in-use").unwrap();
    fs::write(to.join("mine"), "mine").unwrap();
    fs::create_dir(to.join("dir-01")).unwrap();
    set_mode(&to.join("dir-01"), 0o711);
    set_mode(&to, 0o1777);
    let owner = if is_root() {
        (4321, 1234)
    } else {
        (fs::metadata(&to).unwrap().uid(), fs::metadata(&to).unwrap().gid())
    };
    chown(&to, Some(owner.0), Some(owner.1)).unwrap();

    cli.ok(&["restore", "files", "dir-01/below/symlink", "dir-00", "--to", text(&to)]);
    let root = fs::metadata(&to).unwrap();
    assert_eq!((mode(&to), (root.uid(), root.gid())), (0o1777, owner));
    assert_eq!(mode(&to.join("dir-01")), 0o711, "it was there, and is only on the way");
    expect_equal(&tree.join("dir-00"), &to.join("dir-00")).unwrap();
    let made = fs::metadata(to.join("dir-00")).unwrap();
    assert_eq!(made.mtime(), fs::metadata(tree.join("dir-00")).unwrap().mtime());

    // Everything, where something is: the root stays what it is until it may be replaced.
    cli.ok(&["restore", "files", "--existing", "skip", "--to", text(&to)]);
    assert_eq!((mode(&to), mode(&to.join("dir-01"))), (0o1777, 0o711));
    cli.ok(&["restore", "files", "--existing", "different", "--to", text(&to)]);
    assert_eq!((mode(&to), mode(&to.join("dir-01"))), (mode(&tree), 0o750));
    assert_eq!(fs::read(to.join("mine")).unwrap(), b"mine");

    // An empty directory may be a new file system; but not when only a path goes to it.
    let empty = work.dir("empty").unwrap();
    set_mode(&empty, 0o777);
    cli.ok(&["restore", "files", "dir-01/file-00", "--to", text(&empty)]);
    assert_eq!((mode(&empty), mode(&empty.join("dir-01"))), (0o777, 0o750));
    fs::remove_dir_all(empty.join("dir-01")).unwrap();
    cli.ok(&["restore", "files", "/", "--to", text(&empty)]);
    assert_eq!(mode(&empty), mode(&tree));
    expect_equal(&tree, &empty).unwrap();
}

#[test]
fn nothing_is_inherited_from_the_target() {
    requires_root!("nothing_is_inherited_from_the_target");
    let Backup { work, cli, tree, .. } = backup("files");
    let setgid = work.dir("setgid").unwrap();
    chown(&setgid, None, Some(4321)).unwrap();
    set_mode(&setgid, 0o2775);
    cli.ok(&["restore", "files", "--to", text(&setgid)]);
    expect_equal(&tree, &setgid).unwrap();
    // A directory with the bit that was there, below a target that has none.
    let below = work.dir("below").unwrap();
    fs::create_dir_all(below.join("dir-00/below")).unwrap();
    for dir in ["dir-00", "dir-00/below"] {
        chown(below.join(dir), None, Some(4321)).unwrap();
        set_mode(&below.join(dir), 0o2775);
    }
    cli.ok(&["restore", "files", "--existing", "different", "--to", text(&below)]);
    expect_equal(&tree, &below).unwrap();
    // Default ACLs, on an empty target and on one in use.
    for name in ["acl-empty", "acl-used"] {
        let target = work.dir(name).unwrap();
        let acl = Command::new("setfacl").args(["-d", "-m", "u:1234:rwx,o::rwx"]).arg(&target).output();
        if !acl.is_ok_and(|acl| acl.status.success()) {
            return skip(
                "nothing_is_inherited_from_the_target",
                "setfacl is missing or the file system has no ACLs",
            );
        }
        if name == "acl-used" {
            fs::create_dir(target.join("other")).unwrap();
        }
        cli.ok(&["restore", "files", "dir-00", "dir-01", "--to", text(&target)]);
        for dir in ["dir-00", "dir-01"] {
            expect_equal(&tree.join(dir), &target.join(dir)).unwrap();
        }
    }
}

#[test]
fn a_new_file_is_the_image_and_links_are_not_followed() {
    let Backup { work, cli, image, .. } = backup("whole");
    let dir = work.dir("images").unwrap();
    let (new, other) = (dir.join("new"), work.join("other"));
    fs::write(&other, "not the restore's").unwrap();
    for name in ["new.windlass-partial", "link"] {
        symlink(&other, dir.join(name)).unwrap();
    }
    cli.ok(&["restore", "whole", "--to-device", text(&new)]);
    assert!(fs::read(&new).unwrap() == fs::read(&image).unwrap());
    assert!(
        fs::metadata(&new).unwrap().blocks() <= fs::metadata(&image).unwrap().blocks() + 64,
        "holes stay holes"
    );
    for taken in ["new", "link"] {
        let ended = cli.run(&["restore", "whole", "--to-device", text(&dir.join(taken))]);
        assert!(ended.code == 1 && ended.failure().contains("the file exists"), "{}", ended.stderr);
    }
    assert_eq!(fs::read(&other).unwrap(), b"not the restore's");
    let left: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn a_damaged_image_does_not_get_the_name() {
    let Backup { work, cli, .. } = backup("whole");
    let mut objects = vec![work.join("repository/obj")];
    let object = loop {
        let Some(at) = objects.pop() else { unreachable!("the repository has no object") };
        if at.is_file() {
            break at;
        }
        objects.extend(fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()));
    };
    set_mode(&object, 0o600);
    let file = fs::File::options().read(true).write(true).open(&object).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 5000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 5000).unwrap();
    let dir = work.dir("images").unwrap();
    let ended = cli.run(&["restore", "whole", "--to-device", text(&dir.join("new"))]);
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    let left: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.len() == 1 && left[0].to_str().unwrap().starts_with("new.windlass-partial-"), "{left:?}");
}

#[test]
fn a_damaged_log_is_named_while_it_still_works() {
    let Backup { work, cli, .. } = backup("files");
    cli.ok(&["check", "files", "--read-data"]);
    for kind in ["log", "epoch", "beat", "format"] {
        let at = work.join("repository").join(kind);
        let first = |dir: &Path| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
        let path = if at.is_dir() { first(&at) } else { at };
        let good = fs::read(&path).unwrap();
        set_mode(&path, 0o600);
        for at in [good.len() / 3, good.len() - 9] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            cli.ok(&["ls", "files", "/"]);
            let ended = cli.run(&["check", "files", "--read-data"]);
            assert_eq!(ended.code, 3, "{kind} {at}: {}", ended.stderr);
            assert!(ended.stdout.contains(&format!("DAMAGED   {kind}")), "{}", ended.stdout);
        }
        // Both copies, of what a restore needs: the slot behind carries a slot, and the format object lies twice.
        if matches!(kind, "log" | "format") {
            let mut bad = good.clone();
            bad[good.len() / 3] ^= 1;
            bad[good.len() - 9] ^= 1;
            fs::write(&path, &bad).unwrap();
            cli.ok(&["ls", "files", "/"]);
        }
        fs::write(&path, &good).unwrap();
    }
    // Nothing carries the last slot: what is before it can be read all the same.
    let slots = fs::read_dir(work.join("repository/log")).unwrap();
    let last = slots.map(|entry| entry.unwrap().path()).max().unwrap();
    let good = fs::read(&last).unwrap();
    set_mode(&last, 0o600);
    fs::write(&last, &good[..good.len() / 8]).unwrap();
    let ended = cli.run(&["ls", "files", "/"]);
    let is_named = ended.stderr.contains("is cut") && ended.stderr.contains("windlass repo rebuild");
    assert!(ended.code == 0 && is_named, "{}", ended.stderr);
    fs::write(&last, &good).unwrap();
    cli.ok(&["check", "files", "--read-data"]);
}

#[test]
fn a_device_holds_the_image_and_zeros_elsewhere() {
    requires_root!("a_device_holds_the_image_and_zeros_elsewhere");
    let Backup { work, cli, image, .. } = backup("whole");
    // Larger than the image, and full of something else: what is beyond the image is not the restore's.
    let disk = work.join("disk");
    fs::write(&disk, vec![0xA5; (IMAGE_BYTES + (1 << 20)) as usize]).unwrap();
    {
        let device = Loop::attach(&disk, Access::ReadWrite).unwrap();
        cli.ok(&["restore", "whole", "--to-device", text(device.device())]);
    }
    let written = fs::read(&disk).unwrap();
    let (inside, beyond) = written.split_at(IMAGE_BYTES as usize);
    assert!(inside == fs::read(&image).unwrap() && beyond.iter().all(|&byte| byte == 0xA5));
    // One byte too small, and nothing is written.
    fs::write(&disk, vec![0xA5; (IMAGE_BYTES - 4096) as usize]).unwrap();
    {
        let device = Loop::attach(&disk, Access::ReadWrite).unwrap();
        let ended = cli.run(&["restore", "whole", "--to-device", text(device.device())]);
        assert!(ended.code == 1 && ended.failure().contains("needs"), "{}", ended.stderr);
    }
    assert!(fs::read(&disk).unwrap().iter().all(|&byte| byte == 0xA5));
    // A mounted device is refused.
    output(Command::new("cp").arg(&image).arg(&disk)).unwrap();
    let mount = Mount::image(&disk, &work.join("mounted"), Access::ReadOnly).unwrap();
    let device = mount.loop_device().device().to_owned();
    let ended = cli.run(&["restore", "whole", "--to-device", text(&device)]);
    assert!(ended.code == 1 && ended.failure().contains("busy"), "{}", ended.stderr);
}

/// A policy of `image` as a whole, backed up and restored: to a new file of exactly the same size, and, as root, over old contents
/// of a loop device with such sectors.
fn round_trip(work: &Workdir, cli: &Cli, name: &str, image: &Path, sector: Option<&str>) {
    cli.ok(&["policy", "set", name, "--volume", &format!("{}=image", image.display())]);
    cli.ok(&["backup", name]);
    let (bytes, new) = (fs::read(image).unwrap(), work.join(&format!("{name}-new")));
    cli.ok(&["restore", name, "--to-device", text(&new)]);
    assert!(fs::read(&new).unwrap() == bytes, "{name}: as it was to the last byte, and no longer");
    let Some(sector) = sector else { return };
    let disk = work.join(&format!("{name}-disk"));
    let disk_bytes = bytes.len().next_multiple_of(4096) + 8192;
    fs::write(&disk, vec![0xA5; disk_bytes]).unwrap();
    {
        let device = Loop::attach_with(&disk, Access::ReadWrite, &["--sector-size", sector]).unwrap();
        cli.ok(&["restore", name, "--to-device", text(device.device())]);
    }
    let written = fs::read(&disk).unwrap();
    assert!(
        written[..bytes.len()] == bytes && written[bytes.len()..].iter().all(|&byte| byte == 0xA5),
        "{name}"
    );
}

#[test]
fn images_of_any_size_come_back_to_the_last_byte() {
    let work = Workdir::new("cli-restore-odd").unwrap();
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(work.path());
    cli.ok(&["repo", "init"]);
    let sector = |sector| is_root().then_some(sector);
    for (name, len, data_to) in [
        ("one-byte-more", (1 << 20) + 1, (1 << 20) + 1),
        ("all-but-one-of-a-block", (3 << 20) - 1, (3 << 20) - 1),
        ("less-than-a-block", 100, 100),
        ("zeros-at-the-end", (1 << 20) + 777, 4096),
        ("ends-in-a-hole", (1 << 20) + 5000, (1 << 20) + 10),
    ] {
        let image = work.join(name);
        fs::write(&image, windlass_tests::fixture::noise(9, data_to)).unwrap();
        fs::File::options().write(true).open(&image).unwrap().set_len(len).unwrap();
        round_trip(&work, &cli, name, &image, sector("512"));
    }
}

/// ext4 with blocks of 1 KiB, as files and as one image, where direct I/O wants more: on sectors of 4 KiB, and in a file of XFS
/// that shares its blocks.
#[test]
fn small_blocks_are_read_where_sectors_are_large() {
    requires_root!("small_blocks_are_read_where_sectors_are_large");
    let work = Workdir::new("cli-restore-small").unwrap();
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(work.path());
    cli.ok(&["repo", "init"]);
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    plant(&tree, 5, 1).unwrap();
    make_ext4(&image, IMAGE_BYTES, Some(&tree), &["-b", "1024"]).unwrap();
    let files = |name: &str, path: &Path| {
        cli.ok(&["policy", "set", name, "--volume", text(path)]);
        cli.ok(&["backup", name]);
        let to = work.join(name);
        cli.ok(&["restore", name, "--to", text(&to)]);
        expect_equal(&tree, &to).unwrap();
    };
    {
        let device = Loop::attach_with(&image, Access::ReadOnly, &["--sector-size", "4096"]).unwrap();
        files("sectors-files", device.device());
        round_trip(&work, &cli, "sectors-image", device.device(), Some("4096"));
    }
    if let Some(why) = Kind::Xfs.missing() {
        return skip("small_blocks_are_read_where_sectors_are_large", &why);
    }
    let below = work.join("xfs");
    make_empty(Kind::Xfs, &below, 512 << 20).unwrap();
    let mount = Mount::image_of(Kind::Xfs, &below, &work.join("at"), Access::ReadWrite, None).unwrap();
    let (original, shared) = (mount.dir().join("original"), mount.dir().join("shared"));
    fs::copy(&image, &original).unwrap();
    fs::File::options().write(true).open(&original).unwrap().set_len(IMAGE_BYTES + 700).unwrap();
    output(Command::new("cp").arg("--reflink=always").args([&original, &shared])).unwrap();
    files("shared-files", &shared);
    round_trip(&work, &cli, "shared-image", &shared, Some("512"));
}

/// Checks a restored image: what its file system uses is as it was, free stretches are zeros (there are some), the size is the same.
fn expect_used_alone(original: &Path, restored: &Path) {
    let (before, after) = (fs::read(original).unwrap(), fs::read(restored).unwrap());
    assert_eq!(before.len(), after.len());
    let mut device = linux::open(original, DeviceAccess::Read, 4, &[]).unwrap();
    let mut volume = detect::open(&mut *device).unwrap();
    let (mut reached, mut zeros) = (0, 0);
    let mut check = |range: std::ops::Range<u64>| {
        let (start, end) = (range.start as usize, range.end as usize);
        assert!(before[start..end] == after[start..end], "bytes {start} to {end} are used");
        let free = &after[reached..start];
        // Short gaps are read over.
        if free.len() >= 64 << 10 {
            assert!(free.iter().all(|&byte| byte == 0), "bytes {reached} to {start} are free");
            zeros += free.len();
        }
        reached = end;
    };
    volume.used(&mut *device, &mut check).unwrap();
    check(before.len() as u64..before.len() as u64);
    assert!(zeros > before.len() / 4, "{zeros} free bytes");
}

/// An image full of what was deleted long ago, with a file system made over it.
fn over_noise(image: &Path, len: usize, kind: Kind, options: &[&str]) {
    let file = fs::File::create(image).unwrap();
    file.set_len(len as u64).unwrap();
    for at in (0..len).step_by(len / 16) {
        let noise = windlass_tests::fixture::noise(at as u64 + 1, (len / 16).min(2 << 20));
        file.write_all_at(&noise, at as u64).unwrap();
    }
    let mut make = match kind {
        Kind::Ext4 => Command::new("mke2fs"),
        _ => Command::new("mkfs.xfs"),
    };
    output(make.args(options).arg(image)).unwrap();
}

fn debugfs(image: &Path, request: &str) {
    output(Command::new("debugfs").args(["-w", "-R", request]).arg(image)).unwrap();
}

#[test]
fn free_blocks_of_an_image_are_left_out_and_restore_as_zeros() {
    let work = Workdir::new("cli-restore-free").unwrap();
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(work.path());
    cli.ok(&["repo", "init"]);
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    plant(&tree, 5, 1).unwrap();
    let options = ["-q", "-F", "-t", "ext4", "-E", "nodiscard", "-d", text(&tree)];
    over_noise(&image, 32 << 20, Kind::Ext4, &options);
    let volume = format!("{}=image", image.display());
    let round = |name: &str, options: &[&str]| {
        cli.ok(&[&["policy", "set", "lun", "--volume", &volume], options].concat());
        let done = cli.json(&["backup", "lun"]);
        let new = work.join(name);
        cli.ok(&["restore", "lun", "--to-device", text(&new)]);
        (done, new)
    };
    let (done, first) = round("first", &[]);
    assert!(done["bytes_stored"].as_u64().unwrap() < 16 << 20, "{done}");
    assert!(
        done["bytes_read"].as_u64().unwrap() + done["bytes_free"].as_u64().unwrap() <= 33 << 20,
        "{done}"
    );
    expect_used_alone(&image, &first);
    output(Command::new("e2fsck").arg("-fn").arg(&first)).unwrap();
    // What is deleted goes, what is new comes, where noise was before.
    debugfs(&image, "rm dir-00/file-05");
    fs::write(work.join("new-file"), windlass_tests::fixture::noise(77, 3 << 20)).unwrap();
    debugfs(&image, &format!("write {} new-file", text(&work.join("new-file"))));
    let (_, second) = round("second", &[]);
    expect_used_alone(&image, &second);
    output(Command::new("e2fsck").arg("-fn").arg(&second)).unwrap();
    if is_root() {
        let disk = work.join("disk");
        fs::write(&disk, vec![0xA5; 32 << 20]).unwrap();
        {
            let device = Loop::attach(&disk, Access::ReadWrite).unwrap();
            cli.ok(&["restore", "lun", "--to-device", text(device.device())]);
        }
        assert!(fs::read(&disk).unwrap() == fs::read(&second).unwrap(), "old contents are gone");
    }
    // For forensic use, there and back.
    let (_, all) = round("all", &["--all-blocks"]);
    assert!(fs::read(&all).unwrap() == fs::read(&image).unwrap());
    let (_, used) = round("used", &["--no-all-blocks"]);
    expect_used_alone(&image, &used);
}

#[test]
fn free_blocks_of_xfs_are_left_out_too() {
    if let Some(why) = Kind::Xfs.missing() {
        return skip("free_blocks_of_xfs_are_left_out_too", &why);
    }
    let work = Workdir::new("cli-restore-free-xfs").unwrap();
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(work.path());
    cli.ok(&["repo", "init"]);
    let (image, new) = (work.join("image"), work.join("new"));
    over_noise(&image, 320 << 20, Kind::Xfs, &["-q", "-f", "-K"]);
    cli.ok(&["policy", "set", "lun", "--volume", &format!("{}=image", image.display())]);
    cli.ok(&["backup", "lun"]);
    cli.ok(&["restore", "lun", "--to-device", text(&new)]);
    expect_used_alone(&image, &new);
    output(Command::new("xfs_repair").arg("-n").arg(&new)).unwrap();
}

/// Nothing is left out where the map is not sure: no checksums, errors, not unmounted, or something else there too.
#[test]
fn doubtful_free_blocks_are_kept() {
    let work = Workdir::new("cli-restore-doubt").unwrap();
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(work.path());
    cli.ok(&["repo", "init"]);
    let plain = ["-q", "-F", "-t", "ext4", "-E", "nodiscard"];
    let unsummed = [&plain[..], &["-O", "^metadata_csum"]].concat();
    for (name, options, after) in [
        ("no-checksums", &unsummed[..], None),
        ("errors", &plain[..], Some("ssv state 3")),
        ("not-unmounted", &plain[..], Some("ssv state 0")),
        ("partitioned", &plain[..], None),
        ("swap-too", &plain[..], None),
    ] {
        let (image, new) = (work.join(name), work.join(&format!("{name}-new")));
        over_noise(&image, 16 << 20, Kind::Ext4, options);
        after.into_iter().for_each(|request| debugfs(&image, request));
        let file = fs::File::options().write(true).open(&image).unwrap();
        match name {
            "partitioned" => {
                let mut table = [0; 66];
                table[4] = 0x83;
                table[9] = 8;
                table[13] = 0x10;
                table[64..].copy_from_slice(&[0x55, 0xAA]);
                file.write_all_at(&table, 446).unwrap();
                let ended = cli.run(&["volume", "info", text(&image)]);
                let why = "MBR partition table and an ext2, ext3 or ext4 file system at one place";
                assert!(ended.code == 1 && ended.failure().contains(why), "{}", ended.stderr);
            }
            "swap-too" => file.write_all_at(b"SWAPSPACE2", 65536 - 10).unwrap(),
            _ => {}
        }
        cli.ok(&["policy", "set", name, "--volume", &format!("{}=image", image.display())]);
        cli.ok(&["backup", name]);
        cli.ok(&["restore", name, "--to-device", text(&new)]);
        assert!(fs::read(&new).unwrap() == fs::read(&image).unwrap(), "{name}");
    }
}

#[test]
fn modes_do_not_depend_on_the_mask() {
    let Backup { work, cli, tree, .. } = backup("files");
    for mask in [0o000, 0o077, 0o777] {
        let to = work.join(&format!("mask-{mask:o}"));
        let restore = cli.command(&["restore", "files", "--to", text(&to)]);
        // The mask belongs to a process: a shell sets it for this one.
        let mut masked = Command::new("sh");
        masked.args(["-c", &format!("umask {mask:o}; exec \"$0\" \"$@\"")]);
        masked.arg(restore.get_program()).args(restore.get_args());
        masked.envs(restore.get_envs().filter_map(|(name, value)| Some((name, value?))));
        output(&mut masked).unwrap();
        expect_equal(&tree, &to).unwrap_or_else(|why| panic!("mask {mask:o}: {why}"));
    }
}

#[test]
fn patterns_say_what_is_restored_and_what_is_left_out() {
    let work = Workdir::new("cli-restore-patterns").unwrap();
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    for dir in ["etc/app/cache", "home/bob/cache"] {
        fs::create_dir_all(tree.join(dir)).unwrap();
        fs::write(tree.join(dir).join("big.conf"), "cached").unwrap();
    }
    for (name, text) in
        [("etc/a.conf", "a"), ("etc/a.conf.bak", "old"), ("home/bob/notes.txt", "n"), ("home/x.tmp", "t")]
    {
        fs::write(tree.join(name), text).unwrap();
    }
    fs::hard_link(tree.join("etc/a.conf"), tree.join("home/a.tmp")).unwrap();
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    let made = Command::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-d"]).args([&tree, &image]).status();
    assert!(made.unwrap().success());
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(work.path());
    cli.ok(&["repo", "init"]);
    cli.ok(&["policy", "set", "a", "--volume", image.to_str().unwrap()]);
    cli.ok(&["backup", "a"]);
    fn files(dir: &Path) -> Vec<String> {
        fn walk(dir: &Path, top: &Path, out: &mut Vec<String>) {
            for entry in fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()) {
                match entry.is_dir() {
                    true => walk(&entry, top, out),
                    false => out.push(entry.strip_prefix(top).unwrap().display().to_string()),
                }
            }
        }
        let mut out = Vec::new();
        walk(dir, dir, &mut out);
        out.sort();
        out
    }
    let restore = |name: &str, options: &[&str]| {
        let to = work.join(name);
        let target = to.display().to_string();
        let line = [&["restore", "a", "--target", &target], options].concat();
        let planned = cli.json(&[&line[..], &["--dry-run"]].concat());
        cli.ok(&line);
        let found = files(&to);
        let again = cli.json(&[&line[..], &["--dry-run"]].concat());
        // A plan sees the same items: what it would write before is there afterwards.
        assert_eq!(again["bytes"], 0, "{name}: {again}");
        assert!(planned["items"].as_u64().unwrap() >= found.len() as u64, "{name}: {planned}");
        found
    };
    assert_eq!(
        restore("excluded", &["--exclude", "cache/", "--exclude", "*.tmp", "--exclude", "/etc/*.bak"]),
        ["etc/a.conf", "home/bob/notes.txt"]
    );
    assert_eq!(
        restore("included", &["--include", "*.conf", "--exclude", "/home/bob"]),
        ["etc/a.conf", "etc/app/cache/big.conf"]
    );
    assert_eq!(restore("name", &["--include", "notes.txt"]), ["home/bob/notes.txt"]);
    let none = work.join("none").display().to_string();
    let nothing = cli.run(&["restore", "a", "--include", "nothing", "--to", &none]);
    assert!(nothing.code != 0, "{nothing:?}");
    let said = format!("{}{}", nothing.stdout, nothing.stderr);
    assert!(said.contains("nothing") && !said.contains("**"), "{said}");
    assert_eq!(
        restore("both", &["etc", "--include", "/home/x.*", "--exclude", "app"]),
        ["etc/a.conf", "etc/a.conf.bak", "home/x.tmp"]
    );
    let wrong = cli.run(&["restore", "a", "--to", "/none", "--exclude", "a//b"]);
    assert!(wrong.code == 2 && wrong.failure().contains("--exclude"), "{wrong:?}");
    // A search takes the pattern where the path goes.
    let mut found: Vec<String> = cli.ok(&["find", "a", "*.conf"]).lines().map(str::to_owned).collect();
    found.sort();
    assert_eq!(found, ["/etc/a.conf", "/etc/app/cache/big.conf", "/home/bob/cache/big.conf"]);
    assert_eq!(cli.ok(&["find", "a", "/home/*.tmp"]).lines().count(), 2);
    assert_eq!(cli.run(&["find", "a", "nothing"]).code, 1);
}
