//! Tests of `select`: the rules on paths, and the walk on a volume made up of names.

use windlass_hal::block::{DeviceId, Fault, Geometry, Request, Wait};
use windlass_hal::volume::{
    Hints, Item, Name, Part, Payload, Timestamp, UsedQuality, VolumeInfo, VolumeKind, WINDOW_ITEMS_MAX,
};

use super::*;

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|&text| text.to_owned()).collect()
}

/// Judges a path part by part, as the walk does; a trailing slash makes it a directory.
fn takes(include: &[&str], exclude: &[&str], path: &str) -> bool {
    let patterns = Patterns::new(&strings(include), &strings(exclude)).unwrap();
    let (path, last_is_directory) = (path.trim_end_matches('/'), path.ends_with('/'));
    let mut verdict = patterns.of_root();
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    for end in ends {
        let is_directory = end < path.len() || last_is_directory;
        verdict = patterns.judge(verdict, &path.as_bytes()[..end], is_directory);
    }
    verdict == Verdict::Taken
}

#[test]
fn names_match_anywhere_and_paths_from_the_root() {
    for (exclude, path, taken) in [
        ("*.tmp", "a.tmp", false),
        ("*.tmp", "x/y/a.tmp", false),
        ("*.tmp", "x.tmp/y", false),
        ("*.tmp", "a.tmpx", true),
        ("/scratch", "scratch/deep/file", false),
        ("/scratch", "home/scratch", true),
        ("home/*/cache", "home/ann/cache/x", false),
        ("home/*/cache", "home/ann/bob/cache/x", true),
        ("home/**/cache", "home/ann/bob/cache/x", false),
        ("home/**/cache", "home/cache/x", false),
        ("cache/", "cache", true),
        ("cache/", "cache/", false),
        ("cache/", "a/cache/x", false),
        ("file?", "file1", false),
        ("file?", "file12", true),
        ("f[0-9]", "f7", false),
        ("f[!0-9]", "f7", true),
        ("*.{o,a}", "lib/x.a", false),
        ("*", "anything", false),
        ("/**", "any/thing", false),
        (".git/", "src/.git/config", false),
        ("\\*", "*", false),
        ("\\*", "x", true),
        ("/!important", "!important", false),
    ] {
        assert_eq!(takes(&[], &[exclude], path), taken, "{exclude} on {path}");
    }
}

#[test]
fn include_takes_what_it_matches_and_what_is_below_and_exclude_wins() {
    let takes = |path| takes(&["/home", "*.conf"], &["*.tmp", "/home/bob"], path);
    assert!(takes("home/ann/x"));
    assert!(takes("etc/deep/a.conf"));
    assert!(!takes("etc/passwd"));
    assert!(!takes("home/ann/x.tmp"));
    assert!(!takes("home/bob/a.conf"));
}

#[test]
fn bytes_that_are_not_utf8_match_wildcards() {
    let patterns = Patterns::new(&[], &strings(&["*.bak", "a?c"])).unwrap();
    let judge = |path: &[u8]| patterns.judge(Verdict::Taken, path, false);
    assert_eq!(judge(b"\xff\xfe.bak"), Verdict::Excluded);
    assert_eq!(judge(b"a\xffc"), Verdict::Excluded);
    assert_eq!(judge(b"\xff"), Verdict::Taken);
}

#[test]
fn bad_patterns_are_refused_with_their_text() {
    let fault = |text: &str| Patterns::new(&[], &strings(&[text])).unwrap_err();
    assert_eq!(fault(""), PatternFault::Empty);
    assert_eq!(fault("/"), PatternFault::Empty);
    assert_eq!(fault("!x"), PatternFault::Negated("!x".into()));
    assert_eq!(fault("a/../b"), PatternFault::Dots("a/../b".into()));
    assert_eq!(fault("./a"), PatternFault::Dots("./a".into()));
    assert_eq!(fault("a//b"), PatternFault::Dots("a//b".into()));
    assert_eq!(fault("[a"), PatternFault::Syntax("[a".into()));
    assert_eq!(fault(&"x".repeat(1025)), PatternFault::TooLong);
    assert!(Patterns::new(&[], &strings(&[&"x".repeat(1024)])).is_ok());
}

/// A volume of names only: `entries[i]` are the names in directory i; inodes past the end are files. Names come in parts of two.
struct Tree {
    info: VolumeInfo,
    entries: Vec<Vec<(Vec<u8>, u64)>>,
    files: u64,
}

const PART_NAMES: usize = 2;

impl Tree {
    /// From paths; directories end in '/'. Inode 0 is the root.
    fn new(paths: &[&str]) -> (Tree, Vec<(String, u64)>) {
        let mut known = vec![(String::new(), 0u64)];
        let directories: Vec<&&str> = paths.iter().filter(|path| path.ends_with('/')).collect();
        let mut entries = vec![Vec::new(); 1 + directories.len()];
        let mut next_file = entries.len() as u64;
        let mut next_directory = 1;
        for path in paths {
            let inode = if path.ends_with('/') { &mut next_directory } else { &mut next_file };
            let trimmed = path.trim_end_matches('/');
            let (parent, name) = trimmed.rsplit_once('/').unwrap_or(("", trimmed));
            let parent = known.iter().find(|(path, _)| path == parent).unwrap().1;
            entries[parent as usize].push((name.as_bytes().to_vec(), *inode));
            known.push((trimmed.to_owned(), *inode));
            *inode += 1;
        }
        (Tree { info: info(), entries, files: next_file }, known)
    }

    fn put(&self, inode: u64, within: u64, window: &mut Window) -> Swept {
        let names = self.entries.get(inode as usize);
        let kind = if names.is_some() { ItemKind::Directory } else { ItemKind::File };
        let names = names.map_or(&[][..], Vec::as_slice);
        let part = &names[within as usize..names.len().min(within as usize + PART_NAMES)];
        let first = window.names.len() as u32;
        for (name, inode) in part {
            let name = window.put_bytes(name);
            window.names.push(Name { name, inode: *inode });
        }
        window.items.push(item(inode, kind, first..window.names.len() as u32));
        let next = within + part.len() as u64;
        if (next as usize) < names.len() { Swept::More(Cursor { inode, within: next }) } else { Swept::Done }
    }
}

impl Volume for Tree {
    fn info(&self) -> &VolumeInfo {
        &self.info
    }

    fn sweep(
        &mut self,
        _: &mut dyn BlockDevice,
        from: Cursor,
        window: &mut Window,
    ) -> Result<Swept, VolumeFault> {
        window.clear();
        let mut inode = from.inode;
        while inode < self.files {
            if window.items.len() >= WINDOW_ITEMS_MAX {
                return Ok(Swept::More(Cursor { inode, within: 0 }));
            }
            self.put(inode, 0, window);
            inode += 1;
        }
        Ok(Swept::Done)
    }

    fn item(
        &mut self,
        _: &mut dyn BlockDevice,
        inode: u64,
        within: u64,
        window: &mut Window,
    ) -> Result<Swept, VolumeFault> {
        window.clear();
        Ok(self.put(inode, within, window))
    }

    fn used(
        &mut self,
        _: &mut dyn BlockDevice,
        _: &mut dyn FnMut(std::ops::Range<u64>),
    ) -> Result<UsedQuality, VolumeFault> {
        Ok(UsedQuality::Unknown)
    }
}

fn info() -> VolumeInfo {
    VolumeInfo {
        kind: VolumeKind::Ext4,
        uuid: [0; 16],
        label: Vec::new(),
        block_bytes: 4096,
        size_bytes: 0,
        used_bytes: 0,
        inode_max: u64::MAX,
        inodes_used: 0,
        root: 0,
        state: None,
        written_secs: 0,
        created: Timestamp::default(),
        features: Vec::new(),
    }
}

fn item(inode: u64, kind: ItemKind, names: std::ops::Range<u32>) -> Item {
    let time = Timestamp::default();
    Item {
        inode,
        generation: 0,
        kind,
        mode: 0,
        uid: 0,
        gid: 0,
        links: 1,
        rdev: (0, 0),
        size: 0,
        atime: time,
        mtime: time,
        ctime: time,
        btime: None,
        flags: 0,
        project: 0,
        hints: Hints::NONE,
        parent: 0,
        payload: Payload::None,
        extents: 0..0,
        names,
        xattrs: 0..0,
        part: Part::WHOLE,
        fault: None,
    }
}

struct NoDevice(DeviceId);

impl NoDevice {
    fn new() -> NoDevice {
        NoDevice(DeviceId { name: String::new(), stable: String::new() })
    }
}

impl BlockDevice for NoDevice {
    fn geometry(&self) -> Geometry {
        Geometry {
            size_bytes: 0,
            logical_block_bytes: 512,
            physical_block_bytes: 512,
            io_optimal_bytes: 0,
            operations_per_sec_max: 0,
            rotational: false,
            can_discard: false,
            read_only: true,
        }
    }

    fn identity(&self) -> &DeviceId {
        &self.0
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        Err(request)
    }

    fn complete(&mut self, _: Wait, _: &mut dyn FnMut(Request)) -> usize {
        0
    }

    fn in_flight(&self) -> usize {
        0
    }

    fn queue_depth(&self) -> usize {
        1
    }

    fn read_at(&mut self, _: u64, _: &mut [u8]) -> Result<(), Fault> {
        Ok(())
    }
}

fn selected(tree: &mut Tree, known: &[(String, u64)], include: &[&str], exclude: &[&str]) -> Vec<String> {
    let patterns = Patterns::new(&strings(include), &strings(exclude)).unwrap();
    let (selection, _) = build(tree, &mut NoDevice::new(), &patterns, &Progress::new()).unwrap();
    let mut paths: Vec<String> =
        known.iter().filter(|(_, inode)| selection.contains(*inode)).map(|(path, _)| path.clone()).collect();
    paths.sort_unstable();
    paths
}

const PATHS: [&str; 11] = [
    "etc/",
    "etc/a.conf",
    "etc/passwd",
    "home/",
    "home/ann/",
    "home/ann/x",
    "home/ann/y.tmp",
    "home/bob/",
    "home/bob/z",
    "var/",
    "var/log",
];

#[test]
fn the_walk_takes_what_the_rules_say_and_the_way_to_it() {
    let (mut tree, known) = Tree::new(&PATHS);
    let all = selected(&mut tree, &known, &[], &[]);
    assert_eq!(all.len(), PATHS.len() + 1);
    let some = selected(&mut tree, &known, &[], &["*.tmp", "/home/bob/"]);
    assert_eq!(
        some,
        ["", "etc", "etc/a.conf", "etc/passwd", "home", "home/ann", "home/ann/x", "var", "var/log"]
    );
    let some = selected(&mut tree, &known, &["home/ann", "*.conf"], &["*.tmp"]);
    assert_eq!(some, ["", "etc", "etc/a.conf", "home", "home/ann", "home/ann/x"]);
    assert_eq!(selected(&mut tree, &known, &["nothing"], &[]), [""]);
}

#[test]
fn loops_end_and_a_second_name_takes_the_item() {
    let (mut tree, known) = Tree::new(&PATHS);
    let inode = |path: &str| known.iter().find(|(known, _)| known == path).unwrap().1;
    let (ann, x) = (inode("home/ann"), inode("home/ann/x"));
    // A directory that contains its own ancestors, and a hard link from an included place to an excluded one.
    tree.entries[ann as usize].push((b"loop".to_vec(), inode("home")));
    tree.entries[ann as usize].push((b"self".to_vec(), ann));
    tree.entries[inode("var") as usize].push((b"link".to_vec(), x));
    let some = selected(&mut tree, &known, &["/var"], &[]);
    assert_eq!(some, ["", "home/ann/x", "var", "var/log"]);
}

#[test]
fn a_directory_of_many_directories_is_read_in_several_goes() {
    let name = |at: usize| format!("{at:0200}/");
    let names: Vec<String> = (0..6000).map(name).collect();
    let mut paths: Vec<String> = names.clone();
    paths.extend(names.iter().map(|name| format!("{name}f")));
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let (mut tree, known) = Tree::new(&paths[..12_000]);
    let some = selected(&mut tree, &known, &["f"], &["*7"]);
    // The root, and the directories that do not end in 7, with a file each.
    assert_eq!(some.len(), 1 + 2 * 5400);
}

#[test]
fn there_is_no_too_deep_and_a_stop_is_heard() {
    // A way of directories d, in each of which there is a directory e and the next.
    let depth = 2 * DEPTH_MAX as u64 + 8;
    let deep = |include: &[&str], exclude: &[&str]| {
        let (mut tree, _) = Tree::new(&["d/", "f"]);
        let below = |at| (at + 1 < depth).then(|| (b"d".to_vec(), at + 1));
        tree.entries = (0..depth)
            .map(|at| below(at).into_iter().chain([(b"e".to_vec(), depth + at)]).collect())
            .collect();
        tree.entries.resize(2 * depth as usize, Vec::new());
        tree.files = 2 * depth + 1;
        let patterns = Patterns::new(&strings(include), &strings(exclude)).unwrap();
        let (selection, _) = build(&mut tree, &mut NoDevice::new(), &patterns, &Progress::new()).unwrap();
        let count =
            |range: std::ops::Range<u64>| range.filter(|&inode| selection.contains(inode)).count() as u64;
        (count(0..depth), count(depth..2 * depth))
    };
    assert_eq!(deep(&[], &["x"]), (depth, depth));
    assert_eq!(deep(&[], &["e"]), (depth, 0), "a name counts at any depth");
    assert_eq!(deep(&[], &["**/e"]), (depth, 0), "which is a name, too");
    assert_eq!(deep(&[], &["**/d/e"]), (depth, depth - (DEPTH_MAX as u64 - 1)), "down there a path does not");
    assert_eq!(deep(&[], &["/e"]), (depth, depth - 1), "a path from the root means nothing down there");
    assert_eq!(deep(&["e"], &[]), (depth, depth), "the way to each of them comes along");
    let (ways, found) = deep(&["/d/**/e"], &[]);
    assert_eq!(ways, depth);
    assert!(found > depth - 3, "rather more than less: {found}");
    let (mut tree, _) = Tree::new(&["d/", "f"]);
    let progress = Progress::new();
    progress.request_stop();
    let patterns = Patterns::new(&[], &strings(&["x"])).unwrap();
    let built = build(&mut tree, &mut NoDevice::new(), &patterns, &progress);
    assert_eq!(built.unwrap_err(), SelectFault::Stopped);
}

#[test]
fn a_selected_volume_shows_what_is_selected() {
    use crate::policy::selected::Selected;
    let shown = |exclude: &[&str]| {
        let (mut tree, known) = Tree::new(&PATHS);
        let patterns = Patterns::new(&[], &strings(exclude)).unwrap();
        let (selection, _) = build(&mut tree, &mut NoDevice::new(), &patterns, &Progress::new()).unwrap();
        let mut volume = Selected::new(Box::new(tree), selection, None);
        let mut window = Window::default();
        volume.sweep(&mut NoDevice::new(), Cursor::default(), &mut window).unwrap();
        let items = window.items.len();
        let names: usize = window.items.iter().map(|item| item.names.len()).sum();
        assert_eq!(names, window.names.len());
        let bob = known.iter().find(|(path, _)| path == "home/bob").unwrap().1;
        volume.item(&mut NoDevice::new(), bob, 0, &mut window).unwrap();
        (items, names, window.items.len())
    };
    let (items, _, bob) = shown(&[]);
    assert_eq!((items, bob), (PATHS.len() + 1, 1));
    // Without home/bob, home/bob/z and home/ann/y.tmp. (Names in the tree of this test come two at a time.)
    let (items, names, bob) = shown(&["*.tmp", "bob/"]);
    assert_eq!((items, names, bob), (PATHS.len() - 2, 7, 0));
}

/// A tree in which the file of `d/f` has the names `d/f.tmp`, `tmp/f` and `g` too.
fn linked() -> (Tree, Vec<(String, u64)>, u64) {
    let (mut tree, known) = Tree::new(&["d/", "tmp/", "tmp/x", "d/f", "d/y.tmp"]);
    let of = |path: &str| known.iter().find(|(known, _)| known == path).unwrap().1;
    let file = of("d/f");
    for (directory, name) in [("d", "f.tmp"), ("tmp", "f"), ("", "g")] {
        tree.entries[of(directory) as usize].push((name.as_bytes().to_vec(), file));
    }
    (tree, known, file)
}

#[test]
fn a_name_that_is_left_out_is_not_shown_though_its_file_has_another() {
    use crate::policy::selected::Selected;
    let names = |include: &[&str], exclude: &[&str]| {
        let (mut tree, _, file) = linked();
        let patterns = Patterns::new(&strings(include), &strings(exclude)).unwrap();
        let (selection, _) = build(&mut tree, &mut NoDevice::new(), &patterns, &Progress::new()).unwrap();
        let mut volume = Selected::new(Box::new(tree), selection, None);
        let mut window = Window::default();
        let mut found: Vec<String> = Vec::new();
        let mut cursor = Cursor::default();
        loop {
            let swept = volume.sweep(&mut NoDevice::new(), cursor, &mut window).unwrap();
            let of_file = window.names.iter().filter(|name| name.inode == file);
            found.extend(of_file.map(|name| String::from_utf8_lossy(window.get(&name.name)).into_owned()));
            match swept {
                Swept::More(next) => cursor = next,
                Swept::Done => break,
            }
        }
        found.sort();
        found.join(" ")
    };
    // Names come two at a time in this tree, and its sweep shows the first two of each directory: the names beyond are asked for alone below.
    assert_eq!(names(&[], &["nothing"]), "f f");
    assert_eq!(names(&[], &["/tmp"]), "f");
    assert_eq!(names(&["/tmp"], &[]), "f", "its other names are outside");
    assert_eq!(names(&[], &["f"]), "", "g and f.tmp are beyond the first two");
    let hidden = |include: &[&str], exclude: &[&str]| {
        let (mut tree, known, file) = linked();
        let patterns = Patterns::new(&strings(include), &strings(exclude)).unwrap();
        let (selection, _) = build(&mut tree, &mut NoDevice::new(), &patterns, &Progress::new()).unwrap();
        let of = |path: &str| known.iter().find(|(known, _)| known == path).unwrap().1;
        [("d", "f"), ("d", "f.tmp"), ("tmp", "f"), ("", "g")]
            .map(|(directory, name)| selection.contains_name(of(directory), name.as_bytes(), file))
    };
    assert_eq!(hidden(&[], &["*.tmp"]), [true, false, true, true]);
    assert_eq!(hidden(&["/tmp"], &[]), [false, false, true, false]);
    assert_eq!(hidden(&["f.tmp"], &[]), [false, true, false, false]);
    assert_eq!(hidden(&[], &["f", "*.tmp", "g"]), [false; 4], "no name is left, so the file is not taken");
}

#[test]
fn an_include_that_matches_nothing_is_known_by_its_place() {
    let unmatched = |include: &[&str], exclude: &[&str]| {
        let (mut tree, _) = Tree::new(&PATHS);
        let patterns = Patterns::new(&strings(include), &strings(exclude)).unwrap();
        let (_, unmatched) = build(&mut tree, &mut NoDevice::new(), &patterns, &Progress::new()).unwrap();
        assert_eq!(Unmatched::from_words(unmatched.words()), unmatched);
        unmatched.places().collect::<Vec<_>>()
    };
    assert_eq!(unmatched(&["/home", "/hoem", "*.conf"], &[]), [1]);
    assert_eq!(unmatched(&["/home", "/home/ann", "ann/"], &[]), [0; 0], "what is below a match counts");
    assert_eq!(unmatched(&["/home/ann"], &["/home"]), [0], "nothing of it is taken");
    let many: Vec<String> =
        (0..PATTERNS_MAX - 1).map(|n| format!("/n{n}")).chain(["/etc".to_owned()]).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(unmatched(&many, &[]), (0..PATTERNS_MAX - 1).collect::<Vec<_>>());
    let (a, b) = (Unmatched::first(200), Unmatched::first(3));
    assert_eq!(a.of_both(&b).places().collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn a_snapshot_stands_for_the_contents() {
    use crate::policy::selected::Selected;
    let with_sample = |own: Option<[u8; 16]>, snapshot: Option<&str>, sample: u8| {
        let (mut tree, _) = Tree::new(&PATHS);
        tree.info.state = own;
        let snapshot = snapshot.map(|name| (name, [sample; 16]));
        Selected::new(Box::new(tree), Selection::All, snapshot).info().state
    };
    let state = |own, snapshot| with_sample(own, snapshot, 1);
    assert_eq!(state(None, None), None, "nothing proves anything");
    assert_eq!(state(Some([7; 16]), None), Some([7; 16]));
    let monday = state(None, Some("monday"));
    assert!(monday.is_some());
    assert_eq!(state(Some([7; 16]), Some("monday")), monday, "what the volume says does not matter");
    assert_ne!(state(None, Some("tuesday")), monday);
    assert_ne!(with_sample(None, Some("monday"), 2), monday, "a copy of that name with other bytes");
}

#[test]
fn inodes_get_their_paths_back() {
    let (mut tree, known) = Tree::new(&["a/", "a/b/", "a/b/c/", "a/b/c/x", "a/y", "z"]);
    let wanted: Vec<u64> = ["a/b/c/x", "a/b", "z"]
        .iter()
        .map(|path| known.iter().find(|(known, _)| known == path).unwrap().1)
        .chain([0, 999])
        .collect();
    let found = crate::policy::paths::find(&mut tree, &mut NoDevice::new(), wanted.iter().copied()).unwrap();
    let paths: Vec<&[u8]> = wanted.iter().filter_map(|inode| found.get(inode).map(Vec::as_slice)).collect();
    assert_eq!(paths, [&b"a/b/c/x"[..], b"a/b", b"z"]);
    // A directory that names itself has no way to the root.
    tree.entries[0].clear();
    tree.entries[1].insert(0, (b"loop".to_vec(), 1));
    let found = crate::policy::paths::find(&mut tree, &mut NoDevice::new(), [wanted[0]].into_iter()).unwrap();
    assert!(found[&wanted[0]].starts_with(b".../loop/loop/"));
}
