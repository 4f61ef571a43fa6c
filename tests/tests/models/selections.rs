//! Points of a volume whose selection, names and identity change: every one restores to exactly what was selected when it was made.
//!
//! | test | volumes | needs |
//! |---|---|---|
//! | random histories | ext4 and XFS: links, renames, new contents of equal size, volumes made anew at the same place | root |
//! | images made anew by a build, with equal times | ext4 | nothing |
//! | contents that changed within a tick of the clock | ext4 | nothing |
//!
//! The model reads the mounted volume and judges paths by rules of its own.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use windlass_tests::cli::Cli;
use windlass_tests::error::output;
use windlass_tests::image::{Access, Kind, Mount, make_empty, make_ext4};
use windlass_tests::privilege::{skip, unsupported};
use windlass_tests::prng::Prng;
use windlass_tests::requires_root;
use windlass_tests::workdir::Workdir;

/// Points of a history.
const POINTS: u64 = 12;
/// Changes of the tree between two points.
const CHANGES: u64 = 10;
/// When the times of files begin that a history sets: long ago.
const BASE_SECS: u64 = 1_600_000_000;
/// Between points, as these times have it: far more than a clock's tick.
const STEP_SECS: u64 = 100;

const DIRECTORIES: [&str; 3] = ["a", "b", "c"];
const FILES: [&str; 6] = ["f", "g", "f.tmp", "g.tmp", "h.bak", "c"];
const EXCLUDES: [&str; 7] = ["*.tmp", "*.bak", "/a", "/b/c", "/a/b/f", "c", "b/"];
const INCLUDES: [&str; 5] = ["/a", "/b/a", "*.tmp", "g", "/c/"];

/// What is at each path: `None` for a directory, else contents and inode.
type Tree = BTreeMap<String, Option<(Vec<u8>, u64)>>;

/// Reads a tree.
fn read(dir: &Path, below: &str, out: &mut Tree) {
    for entry in fs::read_dir(dir.join(below)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let meta = entry.metadata().unwrap();
        if meta.is_dir() {
            out.insert(path.clone(), None);
            read(dir, &path, out);
        } else {
            out.insert(path, Some((fs::read(entry.path()).unwrap(), meta.ino())));
        }
    }
}

fn tree(dir: &Path) -> Tree {
    let mut out = Tree::new();
    read(dir, "", &mut out);
    out
}

/// Include and exclude patterns.
#[derive(Clone, Debug, Default)]
struct Patterns {
    include: Vec<&'static str>,
    exclude: Vec<&'static str>,
}

impl Patterns {
    fn random(p: &mut Prng) -> Patterns {
        let mut some = |list: &[&'static str], chance| -> Vec<&'static str> {
            list.iter().copied().filter(|_| p.one_in(chance)).collect()
        };
        let exclude = some(&EXCLUDES, 3);
        let include = some(&INCLUDES, 6);
        Patterns { include, exclude }
    }

    fn options(&self) -> Vec<&'static str> {
        let mut options = Vec::new();
        for (list, option, none) in
            [(&self.include, "--include", "--no-include"), (&self.exclude, "--exclude", "--no-exclude")]
        {
            match &list[..] {
                [] => options.push(none),
                some => options.extend(some.iter().flat_map(|text| [option, *text])),
            }
        }
        options
    }

    /// What of a tree is selected, and whether every include matched something.
    fn select(&self, all: &Tree) -> (Tree, bool) {
        let matches = |pattern: &str, path: &str, is_dir: bool| {
            let body = pattern.trim_end_matches('/');
            let name = path.rsplit('/').next().unwrap();
            (is_dir || !pattern.ends_with('/'))
                && match body.strip_prefix('*') {
                    Some(end) => name.ends_with(end),
                    None if body.contains('/') => body.trim_start_matches('/') == path,
                    None => body == name,
                }
        };
        let (mut taken, mut matched) = (Tree::new(), BTreeSet::<&str>::new());
        for (path, what) in all {
            let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
            let parts: Vec<(&str, bool)> =
                ends.map(|end| (&path[..end], end < path.len() || what.is_none())).collect();
            let any = |list: &[&str]| {
                parts.iter().any(|(part, is_dir)| list.iter().any(|text| matches(text, part, *is_dir)))
            };
            if any(&self.exclude) {
                continue;
            }
            let hits = self.include.iter().filter(|text| matches(text, path, what.is_none()));
            matched.extend(hits);
            if self.include.is_empty() || any(&self.include) {
                // With the directories on the way.
                taken.extend(parts.iter().map(|(part, _)| ((*part).to_owned(), None)));
                taken.insert(path.clone(), what.clone());
            }
        }
        (taken, matched.len() == self.include.len())
    }
}

/// Requires the same paths, contents, and names that are one file.
fn expect_equal(restored: &Path, expected: &Tree, what: &str) {
    let found = tree(restored);
    let paths =
        |tree: &Tree| tree.iter().map(|(path, what)| (path.clone(), what.is_some())).collect::<Vec<_>>();
    assert_eq!(paths(&found), paths(expected), "{what}: paths");
    let mut files = BTreeMap::new();
    for ((path, found), expected) in found.iter().zip(expected.values()) {
        let (Some((bytes, inode)), Some((wanted, of))) = (found, expected) else { continue };
        assert!(bytes == wanted, "{what}: contents of {path}");
        assert_eq!(
            *files.entry(*of).or_insert(*inode),
            *inode,
            "{what}: {path} is one file with its other names"
        );
    }
    let distinct: BTreeSet<u64> = files.values().copied().collect();
    assert_eq!(distinct.len(), files.len(), "{what}: files that are apart stay so");
}

/// Changes a mounted tree a little.
fn change(dir: &Path, p: &mut Prng) {
    let all = tree(dir);
    let directories: Vec<String> = [String::new()]
        .into_iter()
        .chain(
            all.iter().filter(|(path, what)| what.is_none() && *path != "lost+found").map(|(p, _)| p.clone()),
        )
        .collect();
    let files: Vec<&String> = all.iter().filter(|(_, what)| what.is_some()).map(|(path, _)| path).collect();
    let pick = |p: &mut Prng, of: usize| p.below(of as u64) as usize;
    let above = directories[pick(p, directories.len())].clone();
    let file_name = dir.join(&above).join(FILES[pick(p, FILES.len())]);
    let dir_name = dir.join(&above).join(DIRECTORIES[pick(p, DIRECTORIES.len())]);
    let contents = |p: &mut Prng| {
        let len = [10, 3000, 5000][pick(p, 3)];
        p.bytes(len)
    };
    // What is in the way makes some of these fail: then nothing changes.
    match p.below(9) {
        0..=2 if !file_name.is_dir() => fs::write(&file_name, contents(p)).unwrap(),
        3 if above.matches('/').count() < 3 => drop(fs::create_dir(&dir_name)),
        4 if !files.is_empty() => {
            // The same size, in place.
            let path = dir.join(files[pick(p, files.len())]);
            let len = fs::metadata(&path).unwrap().len() as usize;
            fs::write(path, p.bytes(len)).unwrap();
        }
        5 if !files.is_empty() => drop(fs::hard_link(dir.join(files[pick(p, files.len())]), &file_name)),
        6 if !files.is_empty() => drop(fs::rename(dir.join(files[pick(p, files.len())]), &file_name)),
        7 if directories.len() > 1 => {
            drop(fs::rename(dir.join(&directories[1 + pick(p, directories.len() - 1)]), &dir_name));
        }
        8 if !files.is_empty() => fs::remove_file(dir.join(files[pick(p, files.len())])).unwrap(),
        _ => {}
    }
}

fn debugfs(image: &Path, script: &str) {
    let commands = image.with_extension("debugfs");
    fs::write(&commands, script).unwrap();
    let mut command = Command::new("debugfs");
    output(command.args(["-w", "-f"]).arg(commands).arg(image)).unwrap();
}

/// Moves change times of this run into the past, one step for each point, so that a point need not wait for the clock to tick.
fn settle(dir: &Path, point: u64) -> String {
    let secs = BASE_SECS + STEP_SECS * point;
    let recent =
        |path: &Path| fs::symlink_metadata(path).unwrap().ctime() as u64 > BASE_SECS + STEP_SECS * POINTS;
    let paths = tree(dir).into_keys().chain([String::new()]).filter(|path| recent(&dir.join(path)));
    paths.fold(String::new(), |mut script, path| {
        writeln!(script, "sif \"/{path}\" ctime @{secs}").unwrap();
        script
    })
}

struct Repository {
    work: Workdir,
    cli: Cli,
    image: PathBuf,
}

impl Repository {
    fn new(name: &str) -> Repository {
        let work = Workdir::new(name).unwrap();
        let image = work.join("volume.img");
        let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(work.path());
        cli.ok(&["repo", "init"]);
        Repository { work, cli, image }
    }

    /// Sets the policy, backs up, and requires a sound point; what the backup said.
    fn point(&self, patterns: &Patterns, all_matched: bool, what: &str) -> serde_json::Value {
        let volume = self.image.display().to_string();
        let set = ["policy", "set", "p", "--volume", &volume];
        self.cli.ok(&[&set[..], &patterns.options()].concat());
        let ended = self.cli.run(&["backup", "p", "--json"]);
        assert_eq!(ended.code, if all_matched { 0 } else { 3 }, "{what}: {}", ended.stderr);
        self.cli.ok(&["check", "p", "--read-data"]);
        ended.documents().pop().unwrap()
    }

    /// Restores a point and requires that it is `expected`.
    fn expect(&self, point: u64, expected: &Tree, what: &str) {
        let to = self.work.join("out");
        self.cli.ok(&["restore", &format!("p@{point}"), "--to", to.to_str().unwrap()]);
        expect_equal(&to, expected, what);
        fs::remove_dir_all(to).unwrap();
    }
}

fn history(kind: Kind, seed: u64) {
    let (mut p, repository) = (Prng::new(seed), Repository::new("selections"));
    let Repository { work, image, .. } = &repository;
    let mut points: Vec<Tree> = Vec::new();
    let mut patterns = Patterns::default();
    for point in 1..=POINTS {
        let what = format!("{} seed {seed} point {point} {patterns:?}", kind.name());
        if point == 1 || p.one_in(5) {
            drop(fs::remove_file(image));
            make_empty(kind, image, 300 << 20).unwrap();
        }
        if point % 3 == 0 {
            patterns = Patterns::random(&mut p);
        }
        let (all, script) = {
            let mount = Mount::image_of(kind, image, &work.join("mnt"), Access::ReadWrite, None).unwrap();
            (0..CHANGES).for_each(|_| change(mount.dir(), &mut p));
            (tree(mount.dir()), settle(mount.dir(), point))
        };
        if kind == Kind::Ext4 {
            debugfs(image, &script);
        }
        let (expected, all_matched) = patterns.select(&all);
        repository.point(&patterns, all_matched, &what);
        repository.expect(point, &expected, &what);
        points.push(expected);
    }
    for (at, expected) in points.iter().enumerate() {
        let point = at as u64 + 1;
        repository.expect(point, expected, &format!("{} seed {seed} point {point}, at the end", kind.name()));
    }
}

fn histories(kind: Kind, test: &str, seeds: std::ops::Range<u64>) {
    requires_root!(test);
    match kind.missing() {
        Some(why) if why.starts_with("no ") => skip(test, &why),
        Some(why) => unsupported(test, &why),
        None => seeds.for_each(|seed| history(kind, seed)),
    }
}

#[test]
fn every_point_of_an_ext4_is_what_was_selected() {
    histories(Kind::Ext4, "every_point_of_an_ext4_is_what_was_selected", 1..4);
}

#[test]
fn every_point_of_an_xfs_is_what_was_selected() {
    histories(Kind::Xfs, "every_point_of_an_xfs_is_what_was_selected", 1..3);
}

/// As an image builder makes it: all times told, generations zero, nothing but the contents and the UUID as it comes.
fn build(repository: &Repository, contents: &[(&str, &str)], uuid: &str) -> Tree {
    let from = repository.work.dir("from").unwrap();
    for (path, text) in contents {
        fs::create_dir_all(from.join(path).parent().unwrap()).unwrap();
        fs::write(from.join(path), text).unwrap();
    }
    drop(fs::remove_file(&repository.image));
    let seed = "hash_seed=11111111-1111-1111-1111-111111111111";
    make_ext4(&repository.image, 8 << 20, Some(&from), &["-U", uuid, "-E", seed]).unwrap();
    let mut all = tree(&from);
    all.insert("lost+found".to_owned(), None);
    let script = all.keys().map(String::as_str).chain([""]).fold(String::new(), |mut script, path| {
        for time in ["ctime", "mtime", "atime", "crtime"] {
            writeln!(script, "sif \"/{path}\" {time} @{BASE_SECS}").unwrap();
        }
        script
    });
    debugfs(&repository.image, &format!("{script}ssv mkfs_time @{BASE_SECS}\nssv wtime @{BASE_SECS}\n"));
    fs::remove_dir_all(from).unwrap();
    all
}

#[test]
fn an_image_made_anew_is_read_anew_whatever_its_times_say() {
    const SAME: &str = "22222222-2222-2222-2222-222222222222";
    for (case, uuid) in [("another", "33333333-3333-3333-3333-333333333333"), ("the same", SAME)] {
        let repository = Repository::new("images");
        build(&repository, &[("version", "1.0"), ("etc/conf", "a=1"), ("etc/gone", "x")], SAME);
        repository.point(&Patterns::default(), true, case);
        let all = build(&repository, &[("version", "1.1"), ("etc/conf", "a=2"), ("etc/come", "y")], uuid);
        repository.point(&Patterns::default(), true, case);
        repository.expect(2, &all, &format!("{case} UUID"));
    }
}

#[test]
fn a_file_changed_twice_within_a_tick_of_the_clock_is_read_again_though_the_volume_was_mounted_since() {
    let repository = Repository::new("tick");
    let old = build(&repository, &[("late", "before the tick"), ("early", "long before")], "random");
    // As a kernel makes them, with times that were written long before the superblock was: mounted once, to replay a log.
    let late = BASE_SECS + STEP_SECS;
    let mut script = format!("sif /late ctime @{late}\nssv wtime @{}\n", late + STEP_SECS);
    for (file, generation) in [("late", 77), ("early", 78)] {
        let made = BASE_SECS + 1;
        writeln!(script, "sif /{file} generation {generation}\nsif /{file} crtime @{made}").unwrap();
    }
    debugfs(&repository.image, &script);
    repository.point(&Patterns::default(), true, "first");
    repository.expect(1, &old, "first");
    let mut bytes = fs::read(&repository.image).unwrap();
    let at = bytes.windows(15).position(|window| window == b"before the tick").unwrap();
    bytes[at..at + 15].copy_from_slice(b"within the tick");
    fs::write(&repository.image, bytes).unwrap();
    // A mount counts itself; debugfs writes the second of now over the time.
    debugfs(&repository.image, &format!("ssv wtime @{}\nssv mnt_count 7\n", late + STEP_SECS + 1));
    let second = repository.point(&Patterns::default(), true, "second");
    assert_eq!(repository.cli.ok(&["cat", "p", "/late"]), "within the tick");
    assert!(second["items_same"].as_u64().unwrap() >= 3, "what is settled is not read: {second}");
}
