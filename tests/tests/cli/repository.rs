//! The command line with a repository: init, keys, policies, backups, points.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which say so by failing")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use windlass_tests::cli::Cli;
use windlass_tests::engines::scratch::Scratch;

fn cli(scratch: &Scratch) -> Cli {
    Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(scratch.path())
}

/// An ext4 image of a few files; `None` (loudly) where mke2fs is missing.
fn image(scratch: &Scratch) -> Option<String> {
    let tree = scratch.path().join("tree");
    fs::create_dir_all(tree.join("docs/old")).unwrap();
    fs::create_dir(tree.join("cache")).unwrap();
    for (name, byte) in [("docs/a.txt", 1), ("docs/old/b.txt", 2), ("docs/x.tmp", 3), ("cache/c", 4)] {
        fs::write(tree.join(name), vec![byte; 200_000]).unwrap();
    }
    let image: PathBuf = scratch.path().join("image");
    fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
    let made = Command::new("/usr/sbin/mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-d"])
        .arg(&tree)
        .arg(&image)
        .status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: mke2fs is missing or failed");
        return None;
    }
    Some(image.display().to_string())
}

#[test]
fn init_makes_a_repository_and_its_key_once() {
    let scratch = Scratch::new("cli-init");
    let cli = cli(&scratch);
    let made = cli.json(&["repo", "init"]);
    assert_eq!(made["opened_by"], serde_json::json!(["key file"]));
    assert!(cli.ok(&["repo", "info"]).contains("encryption  yes (key file)"));
    let key = scratch.path().join("key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let id = made["repository"].as_str().unwrap();
    let text = fs::read_to_string(&key).unwrap();
    assert_eq!(text.split_once('\n').unwrap().0.len(), 64);
    assert!(
        text.ends_with(&format!("\nrepository {id}\nencryption aes-256-gcm\nlocation-blocks 10\n")),
        "{id}"
    );
    assert!(!scratch.path().join("repository/probe").exists());
    let info = cli.json(&["repo", "info"]);
    assert_eq!((&info["repository"], &info["points"]), (&made["repository"], &0.into()));
    let again = cli.run(&["repo", "init"]);
    assert_eq!(again.code, 1);
    assert!(again.failure().contains("there is a repository already"));
    assert!(cli.ok(&["repo", "probe"]).contains("does all that a repository needs"));
}

/// Everything below a directory, with contents.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            all.extend(contents(&path));
            all.insert(path, None);
        } else {
            all.insert(path.clone(), Some(fs::read(path).unwrap()));
        }
    }
    all
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

#[test]
fn init_wants_an_empty_place_and_leaves_nothing_where_it_fails() {
    let scratch = Scratch::new("cli-init-place");
    let (cli, repository) = (cli(&scratch), scratch.path().join("repository"));
    fs::create_dir(&repository).unwrap();
    fs::write(repository.join("Photo 1.JPG"), "x").unwrap();
    let before = contents(scratch.path());
    let refused = cli.run(&["repo", "init"]);
    assert!(refused.code == 1 && refused.failure().contains("Photo 1.JPG"), "{}", refused.stderr);
    let relative = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test"));
    let key = scratch.path().join("key").display().to_string();
    let init = ["--repo", "file://some/where", "--key-file", &key, "repo", "init"];
    let ended = relative.command(&init).current_dir(scratch.path()).output().unwrap();
    assert_eq!(ended.status.code(), Some(2));
    let absent = format!("file://{}", repository.join("Photo 1.JPG/below").display());
    assert_eq!(relative.run(&["--repo", &absent, "--key-file", &key, "repo", "init"]).code, 1);
    assert_eq!(contents(scratch.path()), before, "nothing was made");
    cli.ok(&["repo", "init", "--force"]);
    assert!(repository.join("Photo 1.JPG").exists());
    cli.ok(&["policy", "set", "a", "--volume", "/dev/none=image"]);
    let other = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test"));
    let place = format!("file://{}", scratch.path().join("other").display());
    other.ok(&["--repo", &place, "--key-file", &key, "repo", "init"]);
    other.ok(&["--repo", &place, "--key-file", &key, "repo", "info"]);
    cli.ok(&["repo", "info"]);
}

#[test]
fn the_format_object_lies_twice() {
    let scratch = Scratch::new("cli-format");
    let (cli, repository) = (cli(&scratch), scratch.path().join("repository"));
    cli.ok(&["repo", "init"]);
    cli.ok(&["policy", "set", "a", "--volume", "/dev/none=image"]);
    let whole = fs::read(repository.join("format")).unwrap();
    let is_whole = || {
        ["format", "format-copy"]
            .iter()
            .all(|name| fs::read(repository.join(name)).is_ok_and(|body| body == whole))
    };
    assert!(is_whole());
    for damage in [&b""[..], &whole[..40], &whole[..whole.len() - 1]] {
        fs::write(repository.join("format"), damage).unwrap();
        cli.ok(&["repo", "info"]);
        cli.ok(&["repo", "rebuild"]);
        assert!(is_whole());
    }
    fs::remove_file(repository.join("format")).unwrap();
    cli.ok(&["repo", "info"]);
    assert!(is_whole(), "made again when it was missed");
    fs::remove_file(repository.join("format-copy")).unwrap();
    cli.ok(&["repo", "rebuild"]);
    assert!(is_whole());
    for name in ["format", "format-copy"] {
        fs::remove_file(repository.join(name)).unwrap();
    }
    let before = contents(scratch.path());
    for command in [&["repo", "info"][..], &["repo", "init"], &["repo", "init", "--force"]] {
        let ended = cli.run(command);
        assert!(ended.code == 1 && ended.failure().contains("lost its format objects"), "{}", ended.stderr);
    }
    assert_eq!(contents(scratch.path()), before);
}

#[test]
fn another_repository_or_an_older_one_is_refused() {
    let scratch = Scratch::new("cli-older");
    let (one, two) = (scratch.path().join("one"), scratch.path().join("two"));
    for dir in [&one, &two] {
        fs::create_dir(dir).unwrap();
        cli(&scratch).with_repository(dir).ok(&["repo", "init"]);
    }
    let cli = cli(&scratch).with_repository(&one);
    // One key may be that of several repositories.
    let third = format!("file://{}", scratch.path().join("third").display());
    cli.ok(&["--repo", &third, "repo", "init"]);
    cli.ok(&["--repo", &third, "repo", "info"]);
    cli.ok(&["repo", "info"]);
    let (place, state) = (one.join("repository"), scratch.path().join("state").display().to_string());
    let seen = |rest: &[&str]| cli.run(&[&["--state-dir", &state], rest].concat());
    assert_eq!(seen(&["policy", "set", "a", "--volume", "/dev/none=image"]).code, 0);
    copy(&place, &scratch.path().join("older"));
    assert_eq!(seen(&["policy", "set", "a", "--every", "6h"]).code, 0);
    assert_eq!(seen(&["policy", "list"]).code, 0);

    copy(&scratch.path().join("older"), &place);
    let before = contents(&place);
    for command in [&["policy", "list"][..], &["policy", "set", "a", "--every", "7h"]] {
        let ended = seen(command);
        assert!(ended.code == 1 && ended.failure().contains("older repository"), "{}", ended.stderr);
    }
    assert_eq!(contents(&place), before, "nothing was written");
    let slot = cli.json(&["repo", "info"])["slot"].to_string();
    assert_eq!(seen(&["--accept-older", "1", "policy", "list"]).code, 1);
    assert_eq!(seen(&["--accept-older", &slot, "policy", "list"]).code, 0);
    assert_eq!(seen(&["policy", "list"]).code, 0, "it is known now");

    // The store's owner puts another one in its place: the key file knows which it belongs to.
    copy(&two.join("repository"), &place);
    let ended = cli.run(&["repo", "info"]);
    assert!(ended.code == 1 && ended.failure().contains("the key file is of"), "{}", ended.stderr);
    // Or one that is not encrypted, for whoever types a passphrase: what was seen tells.
    fs::remove_dir_all(&place).unwrap();
    let url = format!("file://{}", place.display());
    let bare = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test"));
    bare.ok(&["--repo", &url, "repo", "init", "--no-encryption"]);
    bare.ok(&["--repo", &url, "repo", "info"]);
    let ended = bare.run(&["--repo", &url, "--state-dir", &state, "repo", "info"]);
    let why = "another repository is at this address than the one known";
    assert!(ended.code == 1 && ended.failure().contains(why), "{}", ended.stderr);
    // The one that is known, older, at an address that is new.
    let elsewhere = scratch.path().join("elsewhere");
    copy(&scratch.path().join("older"), &elsewhere);
    let ended = cli.run(&[
        "--repo",
        &format!("file://{}", elsewhere.display()),
        "--state-dir",
        &state,
        "repo",
        "info",
    ]);
    assert!(ended.code == 0, "it was brought back to that on purpose: {}", ended.stderr);
    // A variable that is set to nothing is none.
    let empty =
        bare.clone().with("WINDLASS_STATE_DIR", "").with("WINDLASS_KEY_FILE", "").with("WINDLASS_MEMORY", "");
    empty.ok(&["--repo", &url, "repo", "info"]);
    let none = empty.with("WINDLASS_REPO", "").run(&["repo", "info"]);
    assert!(none.stderr.contains("no repository"), "{}", none.stderr);
}

/// A log of which parts are gone: what is left is read, or named, and a rebuild brings back the points.
#[test]
fn a_damaged_log_is_named_and_rebuilt() {
    let scratch = Scratch::new("cli-log-damage");
    let (cli, place) = (cli(&scratch), scratch.path().join("repository"));
    let image = scratch.path().join("image");
    let noise =
        |salt: u32| (0..400_000u32).flat_map(move |at| (at.wrapping_mul(2_654_435_761) ^ salt).to_le_bytes());
    fs::write(&image, noise(1).collect::<Vec<u8>>()).unwrap();
    cli.ok(&["repo", "init"]);
    cli.ok(&["policy", "set", "a", "--volume", &format!("{}=image", image.display())]);
    cli.ok(&["backup", "a"]);
    fs::write(&image, noise(2).collect::<Vec<u8>>()).unwrap();
    cli.ok(&["backup", "a"]);
    let whole = scratch.path().join("whole");
    copy(&place, &whole);
    // An opening begins at the newest checkpoint, and does not miss a slot before it.
    fs::remove_file(place.join(format!("log/{:020}", 6))).unwrap();
    let points = cli.run(&["points", "a", "--json"]);
    assert_eq!((points.code, points.stderr.as_str()), (0, ""));
    // Without checkpoints each slot counts.
    fs::remove_dir_all(whole.join("ckpt")).unwrap();
    let slots: Vec<PathBuf> = contents(&whole.join("log")).into_keys().collect();
    let names: Vec<String> =
        slots.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    let count = names.len();
    assert!(count >= 9, "{names:?}");
    let damages: [(&str, Vec<usize>, bool); 5] = [
        ("one slot is missing", vec![5], false),
        ("one slot is empty", vec![5], true),
        ("two slots in a row are missing", vec![4, 5], false),
        ("the last slot is empty", vec![count - 1], true),
        ("all slots are missing", (0..count).collect(), false),
    ];
    for (what, lost, empty) in damages {
        copy(&whole, &place);
        for &at in &lost {
            let slot = place.join("log").join(&names[at]);
            if empty { fs::write(slot, "").unwrap() } else { fs::remove_file(slot).unwrap() }
        }
        let before = contents(&place);
        let is_bridged = what.starts_with("one");
        let points = cli.run(&["points", "a", "--json"]);
        if is_bridged {
            assert_eq!(points.code, 0, "{what}: {}", points.stderr);
            assert_eq!(points.documents()[0]["points"].as_array().unwrap().len(), 2, "{what}");
            assert!(points.stderr.contains("read from elsewhere"), "{}", points.stderr);
        } else if what.starts_with("the last") {
            // Nothing carries it, and what is before it can be read all the same.
            assert_eq!(points.code, 0, "{what}: {}", points.stderr);
            assert!(
                points.stderr.contains("is cut") && points.stderr.contains("repo rebuild"),
                "{}",
                points.stderr
            );
        } else {
            for command in [&["points", "a"][..], &["backup", "a"], &["policy", "set", "a", "--every", "6h"]]
            {
                let ended = cli.run(command);
                assert!(ended.code == 1 && ended.stderr.contains("repo rebuild"), "{what}: {}", ended.stderr);
            }
        }
        assert_eq!(contents(&place), before, "{what}: nothing was written");
        let rebuilt = cli.run(&["repo", "rebuild", "--json"]);
        println!("{what}: {} {}", rebuilt.stdout, rebuilt.stderr);
        assert_eq!(rebuilt.code, if is_bridged { 0 } else { 3 }, "{what}: {}", rebuilt.stderr);
        let all = what.starts_with("all");
        let policy = if all { "recovered-1" } else { "a" };
        let points = cli.json(&["points", policy]);
        assert_eq!(points["points"].as_array().unwrap().len(), 2, "{what}: {points}");
        for (point, salt) in [(1, 1), (2, 2)] {
            let out = scratch.path().join("out");
            let target = format!("{policy}@{point}");
            cli.ok(&["restore", &target, "--to-device", out.to_str().unwrap()]);
            assert!(fs::read(&out).unwrap().into_iter().eq(noise(salt)), "{what}: point {point}");
            fs::remove_file(&out).unwrap();
            cli.ok(&["check", &target, "--read-data"]);
        }
        if all {
            cli.ok(&["policy", "set", "a", "--volume", &format!("{}=image", image.display())]);
        }
        cli.ok(&["backup", "a"]);
        cli.ok(&["check", "a", "--read-data"]);
        let points = cli.json(&["points", "a"]);
        assert_eq!(points["points"].as_array().unwrap().len(), if all { 1 } else { 3 }, "{what}: {points}");
    }
}

/// A log that is older than the objects beside it, beats and grants too: what it does not know of is named, and comes back.
#[test]
fn objects_of_lost_backups_are_named_and_make_points_again() {
    let scratch = Scratch::new("cli-log-older");
    let (cli, place) = (cli(&scratch), scratch.path().join("repository"));
    let image = scratch.path().join("image");
    let back_up = |salt: u8| {
        fs::write(&image, vec![salt; 300_000]).unwrap();
        cli.ok(&["backup", "a"]);
    };
    cli.ok(&["repo", "init"]);
    cli.ok(&["policy", "set", "a", "--volume", &format!("{}=image", image.display())]);
    back_up(1);
    let older = scratch.path().join("older");
    copy(&place, &older);
    back_up(2);
    for part in ["beat", "boundary", "ckpt", "epoch", "log"] {
        fs::remove_dir_all(place.join(part)).ok();
        if older.join(part).is_dir() {
            copy(&older.join(part), &place.join(part));
        }
    }
    assert_eq!(cli.json(&["points", "a"])["points"].as_array().unwrap().len(), 1);
    let checked = cli.run(&["check", "a", "--read-data"]);
    assert!(
        checked.code == 3 && checked.stdout.contains("of which the commit log says nothing"),
        "{}",
        checked.stdout
    );
    let rebuilt = cli.run(&["repo", "rebuild"]);
    assert!(
        rebuilt.code == 3 && rebuilt.stdout.contains("its newest entries are lost"),
        "{} {}",
        rebuilt.stdout,
        rebuilt.stderr
    );
    assert_eq!(cli.json(&["points", "a"])["points"].as_array().unwrap().len(), 2);
    let out = scratch.path().join("out");
    cli.ok(&["restore", "a@2", "--to-device", out.to_str().unwrap()]);
    assert_eq!(fs::read(&out).unwrap(), vec![2; 300_000]);
    back_up(3);
    cli.ok(&["check", "a", "--read-data"]);
}

#[test]
fn a_wrong_key_is_told_and_a_needless_one_too() {
    let scratch = Scratch::new("cli-keys");
    let locked = cli(&scratch);
    locked.ok(&["repo", "init"]);
    fs::write(scratch.path().join("key"), "00".repeat(32)).unwrap();
    let wrong = locked.run(&["repo", "info"]);
    assert!(wrong.code == 1 && wrong.failure().contains("does not open it"), "{}", wrong.stderr);
    fs::write(scratch.path().join("key"), "not a key").unwrap();
    assert!(locked.run(&["repo", "info"]).failure().contains("64 hex digits"));
    let open = format!("file://{}", scratch.path().join("open").display());
    let bare = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test"));
    bare.ok(&["--repo", &open, "repo", "init", "--no-encryption"]);
    assert_eq!(bare.json(&["--repo", &open, "repo", "info"])["opened_by"], serde_json::json!([]));
    fs::write(scratch.path().join("key"), "00".repeat(32)).unwrap();
    let key = scratch.path().join("key").display().to_string();
    assert!(
        bare.run(&["--repo", &open, "--key-file", &key, "repo", "info"]).failure().contains("not encrypted")
    );
}

#[test]
fn a_passphrase_file_opens_what_it_made() {
    let scratch = Scratch::new("cli-passphrase");
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test"));
    let repo = format!("file://{}", scratch.path().join("repository").display());
    let file = scratch.path().join("passphrase");
    fs::write(&file, "correct horse battery staple\n").unwrap();
    let options = ["--repo", &repo, "--passphrase-file", file.to_str().unwrap()];
    cli.ok(&[&options[..], &["repo", "init"]].concat());
    fs::write(&file, "correct horse battery staple").unwrap();
    cli.ok(&[&options[..], &["repo", "info"]].concat());
    fs::write(&file, "wrong horse").unwrap();
    assert_eq!(cli.run(&[&options[..], &["repo", "info"]].concat()).code, 1);
    assert_eq!(cli.run(&["--repo", &repo, "repo", "info"]).code, 2);
}

#[test]
fn policies_are_set_shown_changed_and_removed() {
    let scratch = Scratch::new("cli-policy");
    let cli = cli(&scratch);
    cli.ok(&["repo", "init"]);
    cli.ok(&[
        "policy",
        "set",
        "a",
        "--volume",
        "/dev/none=image",
        "--exclude",
        "*.tmp",
        "--limit-up",
        "1MiB",
    ]);
    let shown = cli.json(&["policy", "show", "a"]);
    assert_eq!(shown["volumes"][0]["reader"], "image");
    assert_eq!((&shown["block_size"], &shown["limits"]["upload"]), (&"128KiB".into(), &"1MiB".into()));
    let changed = cli.json(&["policy", "set", "a", "--block-size", "64KiB", "--no-exclude"]);
    assert_eq!((&changed["revision"], &changed["policy"]["exclude"]), (&2.into(), &serde_json::Value::Null));
    assert_eq!(changed["policy"]["volumes"], shown["volumes"]);
    for (options, schedule) in [
        (&["--at", "02:30"][..], serde_json::json!({"every": "1d", "at": "02:30"})),
        (&["--every", "7d"], serde_json::json!({"every": "7d", "at": "02:30"})),
        (&["--every", "6h"], serde_json::json!({"every": "6h"})),
        (&["--exclude", "x"], serde_json::json!({"every": "6h"})),
    ] {
        let mut set = cli.json(&[&["policy", "set", "a"], options].concat());
        let kept = set["policy"]["schedule"].as_object_mut().unwrap();
        // Times before it was set are not missed.
        assert!(
            kept.remove("since").and_then(|since| since.as_i64()).is_some_and(|since| since > 1_700_000_000)
        );
        assert_eq!(set["policy"]["schedule"], schedule, "{options:?}");
    }
    assert!(cli.ok(&["policy", "list"]).contains("every 6h"));
    assert!(cli.ok(&["policy", "set", "a"]).contains("without one nothing starts this policy"));
    let patterns = scratch.path().join("patterns");
    fs::write(&patterns, "# what nobody misses\n\n*.tmp\n/var/cache\n").unwrap();
    let set =
        cli.json(&["policy", "set", "a", "--exclude", "x", "--exclude-file", patterns.to_str().unwrap()]);
    assert_eq!(set["policy"]["exclude"], serde_json::json!(["x", "*.tmp", "/var/cache"]));
    assert_eq!(cli.ok(&["policy", "set", "a", "--no-exclude", "--quiet"]), "");
    fs::write(&patterns, "x".repeat(64 << 10)).unwrap();
    let long = cli.run(&["policy", "set", "a", "--exclude-file", patterns.to_str().unwrap()]);
    assert!(long.code == 1 && long.failure().contains("more than a policy can hold"), "{}", long.stderr);
    for bad in [&["--every", "6h", "--at", "02:30"][..], &["--every", "1s"], &["--at", "24:00"]] {
        assert_eq!(cli.run(&[&["policy", "set", "a"], bad].concat()).code, 2, "{bad:?}");
    }
    let none = cli.json(&["policy", "set", "a", "--no-schedule"]);
    assert_eq!(none["policy"]["schedule"], serde_json::Value::Null);
    let file = scratch.path().join("a.json");
    fs::write(&file, cli.json(&["policy", "show", "a"]).to_string()).unwrap();
    cli.ok(&["policy", "set", "a", "--from", file.to_str().unwrap()]);
    assert_eq!(cli.run(&["policy", "set", "b", "--from", file.to_str().unwrap()]).code, 2);
    assert_eq!(cli.run(&["policy", "set", "b"]).code, 2);
    assert_eq!(cli.run(&["policy", "set", "b", "--volume", "/x", "--exclude", "["]).code, 2);
    assert_eq!(cli.json(&["policy", "list"])["policies"].as_array().unwrap().len(), 1);
    cli.ok(&["policy", "remove", "a"]);
    let gone = cli.run(&["policy", "show", "a"]);
    assert!(gone.code == 1 && gone.failure().contains("there is no policy a"));
}

#[test]
fn the_length_of_the_lease_is_the_repositorys() {
    let scratch = Scratch::new("cli-lease");
    let cli = cli(&scratch);
    // Where a disk should be mounted, nothing is to be made.
    fs::create_dir(scratch.path().join("repository")).unwrap();
    fs::create_dir(scratch.path().join("repository/lost+found")).unwrap();
    let empty = cli.run(&["policy", "list"]);
    assert!(empty.code == 1 && empty.failure().contains("a file system of its own, mount that"), "{empty:?}");
    cli.ok(&["repo", "init"]);
    assert_eq!(cli.json(&["repo", "info"])["lease_ms"], 15_000);
    let set = cli.json(&["repo", "set", "--lease", "60s"]);
    assert_eq!((&set["lease_ms"], &set["lease_ms_before"]), (&60_000.into(), &15_000.into()));
    assert_eq!(cli.json(&["repo", "info"])["lease_ms"], 60_000);
    for (bad, why) in [("2999ms", "3.0 s is the shortest"), ("3601s", "01:00:00 is the longest")] {
        let ended = cli.run(&["repo", "set", "--lease", bad]);
        assert!(ended.code == 2 && ended.failure().contains(why), "{bad}: {}", ended.stderr);
        assert!(!ended.stderr.contains("LEASE_NS"), "a constant's name says nothing: {}", ended.stderr);
    }
    assert_eq!(cli.json(&["repo", "info"])["slot"], 3, "begun, set, yield: what is refused is not written");
}

/// What can never be a volume is refused when the policy is set, not when it is due.
#[test]
fn what_cannot_be_a_volume_is_refused_at_once() {
    let scratch = Scratch::new("cli-policy-volumes");
    let cli = cli(&scratch);
    cli.ok(&["repo", "init"]);
    let at = |name: &str| scratch.path().join(name).display().to_string();
    fs::write(at("a=b"), "a file").unwrap();
    let fifo = at("fifo");
    nix::unistd::mkfifo(fifo.as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (volume, why) in [
        (at("none=xfs"), "\"xfs\" is not a reader; write auto, raw, ext4, mounted or image"),
        (at("none=foo"), "\"foo\" is not a reader"),
        (at("a=b=foo"), "\"foo\" is not a reader"),
        (scratch.path().display().to_string(), "this is a directory"),
        (format!("{}=image", scratch.path().display()), "this is a directory"),
        (fifo, "neither a block device nor a file"),
        ("/dev/null".to_owned(), "neither a block device nor a file"),
        ("lun-7".to_owned(), "the name of a volume in a board profile"),
        ("lun-7=image".to_owned(), "write ./lun-7 for a file"),
    ] {
        let ended = cli.run(&["policy", "set", "p", "--volume", &volume]);
        assert!(
            ended.code == 2 && ended.failure().contains(why),
            "{volume}: {} {}",
            ended.code,
            ended.stderr
        );
    }
    for volume in [at("a=b"), format!("{}=image", at("a=b")), at("not-there-yet")] {
        cli.ok(&["policy", "set", "p", "--volume", &volume]);
    }
}

#[test]
fn backups_make_points_and_a_volume_is_described() {
    let scratch = Scratch::new("cli-backup");
    let Some(image) = image(&scratch) else { return };
    let cli = cli(&scratch);
    assert_eq!(cli.json(&["volume", "info", &image])["kind"], "ext4");
    cli.ok(&["repo", "init"]);
    assert!(cli.run(&["backup", "docs"]).failure().contains("policy set docs"));
    cli.ok(&["policy", "set", "docs", "--volume", &image, "--exclude", "*.tmp", "--exclude", "/cache/"]);
    assert!(cli.run(&["ls", "docs", "/"]).code == 1);
    let ended = cli.run(&["backup", "docs", "--json"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let done = ended.documents().pop().unwrap();
    assert_eq!((&done["event"], &done["point"], &done["faults"]), (&"done".into(), &1.into(), &0.into()));
    // The root, lost+found, docs, docs/old and two files.
    assert_eq!((&done["items"], &done["bytes"]), (&6.into(), &400_000.into()));
    let second = cli.json(&["backup", "docs"]);
    // Files as fresh as these are looked at again, and their blocks are found to be there.
    assert_eq!((&second["items"], &second["bytes_stored_plain"]), (&6.into(), &0.into()));
    // Without the patterns the rest is new.
    cli.ok(&["policy", "set", "docs", "--no-exclude"]);
    let third = cli.json(&["backup", "docs"]);
    assert_eq!(third["items"], 9);
    let points = cli.json(&["points", "docs"]);
    let numbers: Vec<u64> =
        points["points"].as_array().unwrap().iter().map(|p| p["point"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert!(cli.ok(&["points", "docs"]).lines().count() == 4);
    assert!(cli.run(&["ls", "docs@7", "/"]).failure().contains("has no point 7"));
    assert_eq!(cli.run(&["policy", "set", "docs", "--block-size", "64KiB"]).code, 2);
    look_and_restore(&cli, &scratch);
}

/// Points 1 (without patterns' victims) and 3 (everything) are looked into, checked, restored, and survive a rebuild.
fn look_and_restore(cli: &Cli, scratch: &Scratch) {
    let listed = |target: &str| cli.ok(&["ls", target, "/docs"]);
    assert!(listed("docs").contains("x.tmp") && !listed("docs@1").contains("x.tmp"));
    assert_eq!(cli.run(&["ls", "docs", "/none"]).code, 1);
    cli.json(&["stat", "docs", "/docs/a.txt"]);
    assert!(cli.ok(&["find", "docs@latest", "/", "--name", "*.txt"]).contains("/docs/old/b.txt"));
    assert_eq!(cli.ok(&["cat", "docs", "/docs/a.txt"]).into_bytes(), vec![1; 200_000]);
    cli.json(&["check", "docs", "--read-data"]);
    let out = scratch.path().join("out");
    let restore = ["restore", "docs@1", "docs/old", "--to", out.to_str().unwrap()];
    cli.json(&restore);
    assert_eq!(fs::read(out.join("docs/old/b.txt")).unwrap(), vec![2; 200_000]);
    assert!(!out.join("docs/a.txt").exists());
    assert_eq!(cli.run(&restore).code, 0, "what is there as it was is no fault");
    fs::write(out.join("docs/old/b.txt"), "something else").unwrap();
    let again = cli.run(&restore);
    assert_eq!(again.code, 3, "names that are taken are named: {}", again.stderr);
    assert_eq!(fs::read(out.join("docs/old/b.txt")).unwrap(), b"something else");
    cli.ok(&[&restore[..], &["--existing", "overwrite"]].concat());
    fs::remove_dir_all(scratch.path().join("repository/seg")).unwrap();
    let gone = cli.run(&["check", "docs"]);
    assert!(
        gone.code == 3 && gone.stdout.contains("windlass repo rebuild"),
        "{}{}",
        gone.stdout,
        gone.stderr
    );
    cli.json(&["repo", "rebuild"]);
    cli.json(&["check", "docs@1", "--read-data"]);
    cli.json(&["check", "docs", "--read-data"]);
}

#[test]
fn a_volume_is_checked_for_damage() {
    let scratch = Scratch::new("cli-volume-check");
    let Some(image) = image(&scratch) else { return };
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test"));
    assert!(cli.ok(&["volume", "check", &image]).contains("sound"));
    assert!(cli.ok(&["volume", "check", &image, "--reader", "ext4"]).contains("sound"));
    assert_eq!(cli.run(&["volume", "check", &image, "--reader", "image"]).code, 2);
    // The inode is wiped and its name stays.
    let wiped = Command::new("/usr/sbin/debugfs").args(["-w", "-R", "clri docs/a.txt", &image]).output();
    if !wiped.is_ok_and(|wiped| wiped.status.success()) {
        eprintln!("SKIPPED: a_volume_is_checked_for_damage: debugfs is missing or failed");
        return;
    }
    let ended = cli.run(&["volume", "check", &image, "--json"]);
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    let findings = ended.documents();
    // Its bit says that it is in use, so its name leads to an item, and that is what is damaged.
    let said = findings.iter().find(|said| said["event"] == "finding").unwrap();
    assert!(said["place"].as_str().unwrap().starts_with("/docs/a.txt "), "{said}");
    assert!(said["what"].as_str().unwrap().contains("has no links"), "{said}");
}

#[test]
fn a_device_that_is_refused_says_why_and_what_to_do() {
    let scratch = Scratch::new("cli-refused");
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test"));
    let empty = scratch.path().join("empty");
    fs::File::create(&empty).unwrap().set_len(1 << 20).unwrap();
    let ended = cli.run(&["volume", "info", empty.to_str().unwrap()]);
    assert!(ended.code == 1 && ended.failure().contains("back it up as an image"), "{}", ended.stderr);
    fs::File::options().write(true).open(&empty).unwrap().write_all_at(b"LUKS\xba\xbe", 0).unwrap();
    assert!(cli.run(&["volume", "info", empty.to_str().unwrap()]).failure().contains("LUKS"));
    assert_eq!(cli.run(&["volume", "info", "/none/such"]).code, 1);
}

#[test]
fn tables_are_kept_in_order_and_every_point_stays_as_it_was() {
    let scratch = Scratch::new("cli-merges");
    let cli = cli(&scratch);
    let volume = scratch.path().join("volume");
    let device = volume.display().to_string();
    cli.ok(&["repo", "init"]);
    cli.ok(&["policy", "set", "a", "--volume", &format!("{device}=image"), "--block-size", "4KiB"]);
    let mut contents = vec![7u8; 1 << 20];
    let (mut points, mut merged) = (Vec::new(), 0);
    for day in 1..=24u8 {
        // Every day a block in each of many places: its segment lies over all others.
        for at in (usize::from(day)..256).step_by(9) {
            contents[at << 12..][..4096].fill(day);
        }
        fs::write(&volume, &contents).unwrap();
        let done = cli.json(&["backup", "a"]);
        merged += done["segments_merged"].as_u64().unwrap();
        points.push((done["point"].to_string(), contents.clone()));
    }
    assert!(merged >= 16, "{merged} segments were merged");
    let out = scratch.path().join("out");
    for (point, contents) in points {
        cli.ok(&["restore", &format!("a@{point}"), "--to-device", out.to_str().unwrap()]);
        assert!(fs::read(&out).unwrap() == contents, "point {point}");
        fs::remove_file(&out).unwrap();
    }
    cli.ok(&["check", "a", "--read-data"]);
}

/// Every path below `dir`, with its size and when it was changed.
fn files(dir: &std::path::Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        out.push((path.clone(), meta.len(), meta.modified().unwrap()));
        if meta.is_dir() {
            out.extend(files(&path));
        }
    }
    out.sort();
    out
}

#[test]
fn a_dry_run_says_what_would_be_done_and_writes_nothing() {
    let scratch = Scratch::new("cli-dry-run");
    let cli = cli(&scratch);
    cli.ok(&["repo", "init"]);
    let Some(image) = image(&scratch) else { return };
    cli.ok(&["policy", "set", "a", "--volume", &image, "--exclude", "*.tmp"]);
    let (store, out) = (scratch.path().join("repository"), scratch.path().join("out"));
    let to = out.to_str().unwrap();
    let before = files(&store);
    let planned = cli.json(&["backup", "a", "--dry-run"]);
    assert!(cli.ok(&["backup", "a", "-n"]).contains("nothing was written"));
    assert_eq!(files(&store), before, "a dry run wrote to the repository");
    let made = cli.json(&["backup", "a"]);
    assert_eq!((&planned["items"], &planned["bytes"]), (&made["items"], &made["bytes"]));
    assert!(planned["bytes_data"].as_u64().unwrap() >= 600_000, "{planned}");

    let before = files(&store);
    let planned = cli.json(&["restore", "a", "--to", to, "--dry-run"]);
    assert!(!out.exists(), "a dry run made the target");
    assert_eq!(planned["existing"], 0);
    let restored = cli.json(&["restore", "a", "--to", to]);
    assert_eq!((&planned["items"], &planned["bytes"]), (&restored["items"], &restored["bytes"]));
    assert!(
        planned["bytes_fetched"].as_u64().unwrap() > 0 && planned["objects"].as_u64().unwrap() > 0,
        "{planned}"
    );
    let there = files(&out);
    let again = cli.json(&["restore", "a", "docs", "--to", to, "--dry-run"]);
    // docs, docs/a.txt, docs/old, docs/old/b.txt: all are there, and nothing would be written.
    assert_eq!((&again["items"], &again["existing"]), (&0.into(), &4.into()));
    assert_eq!((files(&out), files(&store)), (there, before), "a dry run wrote");
    assert_eq!(cli.run(&["restore", "a", "none", "--to", to, "-n"]).code, 1);
}

#[test]
fn lines_of_a_log_begin_with_the_time_unless_a_journal_knows_it() {
    let scratch = Scratch::new("cli-log-lines");
    let cli = cli(&scratch);
    cli.ok(&["repo", "init"]);
    let set = ["policy", "set", "a", "--volume", "/dev/none=image"];
    let said = cli.run(&set).stderr;
    let (time, rest) = said.split_once(' ').unwrap();
    assert!(time.len() == "2026-11-21T03:16:00Z".len() && time.ends_with('Z'), "{said}");
    assert!(rest.starts_with("warn: policy: no such device yet"), "{said}");
    let journal = cli.command(&set).env("JOURNAL_STREAM", "8:1").output().unwrap();
    let said = String::from_utf8(journal.stderr).unwrap();
    assert!(said.starts_with("warn: policy: no such device yet"), "{said}");
    let Some(image) = image(&scratch) else { return };
    cli.ok(&["policy", "set", "b", "--volume", &image]);
    let said = cli.run(&["backup", "b", "-v"]).stderr;
    for what in ["info: backup: begun policy=b", "info: backup: ended policy=b point=1 items="] {
        assert!(said.contains(what), "{said}");
    }
}
