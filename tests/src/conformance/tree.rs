//! The contract of `windlass_hal::tree`, as a suite that runs on any port.
//!
//! Each case works in a directory of its own below the subject's root. Contents are read through the subject, because a target is only
//! written to. Does not: test faults and power (`sim::tree` has them). Source: ours.
#![allow(clippy::unwrap_used, reason = "a suite reports by panicking, in functions that tests call")]

use windlass_hal::tree::{Errno, Node, Stat, Taken};
use windlass_hal::volume::{ItemKind, Timestamp};

/// `FS_NODUMP_FL`.
const NODUMP: u32 = 0x40;
/// `FS_IMMUTABLE_FL`.
const IMMUTABLE: u32 = 0x10;

/// Something to test.
pub struct Subject<'a, N> {
    /// For messages.
    pub name: &'a str,
    /// An empty directory.
    pub root: &'a N,
    /// The bytes of a file, by its path below the root.
    pub read: &'a dyn Fn(&str) -> Vec<u8>,
    /// Whether owners and flags can be set.
    pub privileged: bool,
}

/// A directory of its own for a case.
struct Bench<'a, N> {
    subject: &'a Subject<'a, N>,
    case: &'a str,
    dir: N,
}

impl<N: Node> Bench<'_, N> {
    fn file(&self, name: &str, bytes: &[u8]) -> N {
        let file = self.dir.create(name.as_bytes(), 0o644).unwrap();
        file.write_at(0, bytes).unwrap();
        file
    }

    fn read(&self, name: &str) -> Vec<u8> {
        (self.subject.read)(&format!("{}/{name}", self.case))
    }

    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        self.dir.names(&mut |name| names.push(String::from_utf8(name.to_vec()).unwrap())).unwrap();
        names.sort();
        names
    }

    fn stat(&self, name: &str) -> Result<Stat, Errno> {
        self.dir.stat_name(name.as_bytes())
    }
}

type Case<N> = fn(&Bench<'_, N>);

/// Runs every case.
///
/// # Panics
/// When the subject breaks the contract; the message names the subject and the case.
pub fn run<N: Node>(subject: &Subject<'_, N>) {
    let cases: [(&str, Case<N>); 12] = [
        ("names", names),
        ("open", open),
        ("unnamed", unnamed),
        ("rename", rename),
        ("contents", contents),
        ("space", space),
        ("attributes", attributes),
        ("by_name", by_name),
        ("lock", lock),
        ("owners", owners),
        ("flags", flags),
        ("in_place", in_place),
    ];
    for (case, run) in cases {
        eprintln!("conformance: {} {case}", subject.name);
        subject.root.make_dir(case.as_bytes(), 0o755).unwrap();
        let dir = subject.root.open_dir(case.as_bytes()).unwrap();
        run(&Bench { subject, case, dir });
    }
}

/// What a restore needs that writes into what is there.
fn in_place<N: Node>(b: &Bench<'_, N>) {
    const PAGE: u64 = 64 << 10;
    drop(b.file("f", &[7; 3 * PAGE as usize]));
    b.dir.symlink(b"l", b"f").unwrap();
    b.dir.make_dir(b"d", 0o755).unwrap();
    assert_eq!(b.dir.open_to_write(b"l").err(), Some(Errno::LOOP), "no symlink is followed");
    assert_eq!(b.dir.open_to_write(b"d").err(), Some(Errno::ISDIR));
    assert_eq!(b.dir.open_to_write(b"none").err(), Some(Errno::NOENT));
    let file = b.dir.open_to_write(b"f").unwrap();
    let mut bytes = [0; 5];
    assert_eq!((file.read_at(10, &mut bytes), bytes), (Ok(5), [7; 5]));
    assert_eq!(file.read_at(3 * PAGE - 2, &mut bytes), Ok(2), "up to the end");
    assert_eq!(file.read_at(4 * PAGE, &mut bytes), Ok(0));
    file.write_at(1, b"new").unwrap();
    assert_eq!(b.read("f")[..5], *b"\x07new\x07");
    // A hole, as far as the port has any: it reads as zero and the length stays.
    match file.punch(PAGE, PAGE) {
        Ok(()) => {
            let have = b.read("f");
            assert!(
                have.len() == 3 * PAGE as usize
                    && have[PAGE as usize..2 * PAGE as usize] == [0; PAGE as usize]
            );
            assert_eq!((have[PAGE as usize - 1], have[2 * PAGE as usize]), (7, 7));
            let data = file.data_from(PAGE).unwrap().unwrap();
            assert!(data == 2 * PAGE || data == PAGE, "{data}: a port that cannot say calls all of it data");
        }
        Err(errno) => assert_eq!(errno, Errno::OPNOTSUPP),
    }
    assert_eq!(file.data_from(5), Ok(Some(5)));
    assert_eq!(file.data_from(3 * PAGE), Ok(None), "nothing is behind the end");
    assert_eq!(b.stat("f").unwrap().links, 1);
    b.dir.link_name(b"f", &b.dir, b"f2").unwrap();
    assert_eq!((b.stat("f").unwrap().links, file.stat().unwrap().links), (2, 2));
    match file.set_xattr(b"user.one", b"1") {
        Ok(()) => {
            let mut names = Vec::new();
            file.xattr_names(&mut |name| names.push(name.to_vec())).unwrap();
            assert!(names.contains(&b"user.one".to_vec()), "{names:?}");
        }
        Err(errno) => assert_eq!(errno, Errno::OPNOTSUPP),
    }
}

fn names<N: Node>(b: &Bench<'_, N>) {
    let dir = &b.dir;
    assert_eq!(dir.make_dir(b"d", 0o755), Ok(()));
    assert_eq!(dir.make_dir(b"d", 0o755), Err(Errno::EXIST));
    assert_eq!(dir.create(b"d", 0o644).err(), Some(Errno::EXIST));
    assert_eq!(dir.symlink(b"l", b"nowhere/at all"), Ok(()));
    assert_eq!(dir.symlink(b"l", b"x"), Err(Errno::EXIST));
    assert_eq!(dir.make_special(b"p", ItemKind::Fifo, (0, 0)), Ok(()));
    assert_eq!(dir.make_special(b"s", ItemKind::Socket, (0, 0)), Ok(()));
    assert_eq!(dir.make_special(b"f", ItemKind::File, (0, 0)), Err(Errno::INVAL));
    assert_eq!(dir.open_dir(b"d").unwrap().make_dir(b"below", 0o700), Ok(()));
    assert_eq!(b.names(), ["d", "l", "p", "s"]);
    let kinds = ["d", "l", "p", "s"].map(|name| b.stat(name).unwrap().kind);
    assert_eq!(kinds, [ItemKind::Directory, ItemKind::Symlink, ItemKind::Fifo, ItemKind::Socket]);
    assert_eq!(b.stat("none"), Err(Errno::NOENT));
    assert!(matches!(dir.remove(b"d"), Err(Errno::ISDIR | Errno::PERM)));
    assert!(matches!(dir.remove_dir(b"d"), Err(Errno::NOTEMPTY | Errno::EXIST)));
    assert_eq!(dir.remove_dir(b"l"), Err(Errno::NOTDIR));
    assert_eq!((dir.remove(b"none"), dir.remove_dir(b"none")), (Err(Errno::NOENT), Err(Errno::NOENT)));
    assert_eq!(dir.link_name(b"d", dir, b"d2"), Err(Errno::PERM));
    assert_eq!(dir.link_name(b"p", dir, b"l"), Err(Errno::EXIST));
    assert_eq!(dir.link_name(b"l", dir, b"l2"), Ok(()));
    assert_eq!(b.stat("l2").unwrap().kind, ItemKind::Symlink, "a link to the link itself");
    assert_eq!(dir.open_dir(b"d").unwrap().remove_dir(b"below"), Ok(()));
    // Names may be removed while they are listed.
    dir.names(&mut |name| match name {
        b"d" => dir.remove_dir(name).unwrap(),
        _ => dir.remove(name).unwrap(),
    })
    .unwrap();
    assert_eq!(b.names(), [""; 0]);
}

fn open<N: Node>(b: &Bench<'_, N>) {
    b.dir.make_dir(b"d", 0o700).unwrap();
    b.file("f", b"x");
    b.dir.symlink(b"to-d", b"d").unwrap();
    b.dir.symlink(b"to-f", b"f").unwrap();
    let opened = |name: &[u8]| b.dir.open_dir(name).err();
    assert_eq!(
        (opened(b"d"), opened(b"f"), opened(b"none")),
        (None, Some(Errno::NOTDIR), Some(Errno::NOENT))
    );
    assert!(matches!(opened(b"to-d"), Some(Errno::LOOP | Errno::NOTDIR)), "no symlink is followed");
    assert_eq!(b.dir.open_file(b"to-f").err(), Some(Errno::LOOP));
    let file = b.dir.open_file(b"f").unwrap();
    assert_eq!(file.stat().unwrap(), b.stat("f").unwrap());
    // What is open stays, whatever becomes of its name.
    b.dir.remove(b"f").unwrap();
    assert_eq!(file.stat().unwrap().size, 1);
}

fn unnamed<N: Node>(b: &Bench<'_, N>) {
    let file = match b.dir.create_unnamed(0o600) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOSYS) => return,
        other => other.unwrap(),
    };
    file.write_at(0, b"whole").unwrap();
    assert_eq!(b.names(), [""; 0]);
    b.file("taken", b"");
    assert_eq!(file.link(&b.dir, b"taken"), Err(Errno::EXIST));
    assert_eq!(file.link(&b.dir, b"a"), Ok(()));
    assert_eq!(b.dir.link_name(b"a", &b.dir, b"b"), Ok(()));
    assert_eq!(b.read("a"), b"whole");
    file.write_at(5, b" still").unwrap();
    assert_eq!(b.read("b"), b"whole still");
    assert_eq!(b.stat("a").unwrap().inode, b.stat("b").unwrap().inode);
    drop(b.dir.create_unnamed(0o600).unwrap());
    assert_eq!(b.names(), ["a", "b", "taken"]);
}

fn rename<N: Node>(b: &Bench<'_, N>) {
    let dir = &b.dir;
    let contents = |names: [&str; 2]| names.map(|name| b.read(name));
    b.file("a", b"a");
    b.file("b", b"b");
    dir.make_dir(b"d", 0o700).unwrap();
    dir.open_dir(b"d").unwrap().make_dir(b"full", 0o700).unwrap();
    dir.make_dir(b"e", 0o700).unwrap();
    let rename = |from: &str, to: &str, taken| dir.rename(from.as_bytes(), dir, to.as_bytes(), taken);
    match rename("a", "b", Taken::Exchange) {
        Ok(()) => assert_eq!(contents(["a", "b"]), [b"b", b"a"]),
        Err(errno) => assert_eq!(errno, Errno::INVAL),
    }
    assert!(matches!(rename("a", "none", Taken::Exchange), Err(Errno::NOENT | Errno::INVAL)));
    assert!(matches!(rename("a", "b", Taken::Refuse), Err(Errno::EXIST | Errno::INVAL)));
    let was = b.read("a");
    assert_eq!(rename("a", "b", Taken::Replace), Ok(()));
    assert_eq!((b.read("b"), b.names()), (was.clone(), vec!["b".into(), "d".into(), "e".into()]));
    assert_eq!(rename("b", "d", Taken::Replace), Err(Errno::ISDIR));
    assert_eq!(rename("d", "b", Taken::Replace), Err(Errno::NOTDIR));
    assert!(matches!(rename("e", "d", Taken::Replace), Err(Errno::NOTEMPTY | Errno::EXIST)));
    assert_eq!(rename("d", "e", Taken::Replace), Ok(()));
    assert_eq!(rename("none", "x", Taken::Replace), Err(Errno::NOENT));
    // Two names of one file: both stay.
    dir.link_name(b"b", dir, b"b2").unwrap();
    assert_eq!(rename("b", "b2", Taken::Replace), Ok(()));
    assert_eq!(b.names(), ["b", "b2", "e"]);
    let below = dir.open_dir(b"e").unwrap();
    assert_eq!(dir.rename(b"b", &below, b"moved", Taken::Replace), Ok(()));
    assert_eq!(b.read("e/moved"), was);
}

fn contents<N: Node>(b: &Bench<'_, N>) {
    let file = b.file("f", &[7; 5000]);
    file.write_at(20_000, b"end").unwrap();
    let mut wanted = vec![7; 5000];
    wanted.resize(20_000, 0);
    wanted.extend_from_slice(b"end");
    assert!(b.read("f") == wanted, "a hole reads as zero");
    file.write_at(4999, &[1; 3]).unwrap();
    wanted[4999..5002].fill(1);
    file.write_zeros(10, 4).unwrap();
    wanted[10..14].fill(0);
    assert!(b.read("f") == wanted);
    assert_eq!(file.set_len(4998), Ok(()));
    assert_eq!(file.set_len(9000), Ok(()));
    wanted.truncate(4998);
    wanted.resize(9000, 0);
    assert!(b.read("f") == wanted, "what was cut off is gone");
    assert_eq!(b.stat("f").unwrap().size, 9000);
    assert_eq!((file.sync(), b.dir.sync(), b.dir.sync_all()), (Ok(()), Ok(()), Ok(())));
}

fn space<N: Node>(b: &Bench<'_, N>) {
    let file = b.file("f", b"xyz");
    match file.preallocate(0, 100_000) {
        Err(errno) => assert_eq!(errno, Errno::OPNOTSUPP),
        Ok(()) => assert_eq!((b.read("f"), file.stat().unwrap().size), (b"xyz".to_vec(), 3)),
    }
    match file.clear(0, 2) {
        Err(errno) => assert_eq!(errno, Errno::OPNOTSUPP),
        Ok(()) => assert_eq!(b.read("f"), b"\0\0z"),
    }
}

fn attributes<N: Node>(b: &Bench<'_, N>) {
    let file = b.file("f", b"");
    assert_eq!(file.set_mode(0o4751), Ok(()));
    assert_eq!(file.stat().unwrap().mode, 0o4751);
    let times = [(-5, 7), (1 << 32, 999_999_999)].map(|(secs, nanos)| Timestamp { secs, nanos });
    assert_eq!(file.set_times(times[0], times[1]), Ok(()));
    let stat = b.stat("f").unwrap();
    assert_eq!((stat.atime.secs, stat.mtime), (-5, times[1]));
    file.write_at(0, b"later").unwrap();
    assert_ne!(b.stat("f").unwrap().mtime, times[1], "a write is a change");
    b.dir.set_times(times[0], times[0]).unwrap();
    b.file("g", b"");
    assert_ne!(b.dir.stat().unwrap().mtime, times[0], "a new name is a change of its directory");
    let mut value = [0; 8];
    match file.set_xattr(b"user.a", b"one") {
        Err(errno) => return assert_eq!(errno, Errno::OPNOTSUPP),
        Ok(()) => assert_eq!((file.xattr(b"user.a", &mut value), &value[..3]), (Ok(3), &b"one"[..])),
    }
    assert_eq!(file.set_xattr(b"user.a", b"three"), Ok(()));
    assert_eq!(file.xattr(b"user.a", &mut [0; 4]), Err(Errno::RANGE));
    assert_eq!((file.remove_xattr(b"user.a"), file.remove_xattr(b"user.a")), (Ok(()), Err(Errno::NODATA)));
    assert_eq!(file.xattr(b"user.a", &mut value), Err(Errno::NODATA));
}

fn by_name<N: Node>(b: &Bench<'_, N>) {
    b.file("f", b"");
    b.dir.symlink(b"l", b"f").unwrap();
    b.dir.make_special(b"p", ItemKind::Fifo, (0, 0)).unwrap();
    let before = b.stat("f").unwrap();
    let time = Timestamp { secs: 1_000_000_000, nanos: 5 };
    assert_eq!(b.dir.set_times_of(b"l", time, time), Ok(()));
    assert_eq!((b.stat("l").unwrap().mtime, b.stat("f").unwrap()), (time, before), "of the link itself");
    assert_eq!(b.dir.set_mode_of(b"p", 0o751), Ok(()));
    assert_eq!(b.stat("p").unwrap().mode, 0o751);
    assert_eq!(b.dir.set_mode_of(b"none", 0o700), Err(Errno::NOENT));
}

fn lock<N: Node>(b: &Bench<'_, N>) {
    b.dir.make_dir(b"d", 0o700).unwrap();
    let [first, second] = [(); 2].map(|()| b.dir.open_dir(b"d").unwrap());
    assert_eq!((first.lock(), second.lock(), first.lock()), (Ok(()), Err(Errno::AGAIN), Ok(())));
    drop(first);
    assert_eq!(second.lock(), Ok(()));
}

fn owners<N: Node>(b: &Bench<'_, N>) {
    if !b.subject.privileged {
        return;
    }
    let file = b.file("f", b"");
    file.set_mode(0o6755).unwrap();
    assert_eq!(file.set_owner(1234, 5678), Ok(()));
    let stat = file.stat().unwrap();
    assert_eq!((stat.uid, stat.gid, stat.mode), (1234, 5678, 0o755), "a new owner has no old one's rights");
    b.dir.symlink(b"l", b"f").unwrap();
    assert_eq!(b.dir.set_owner_of(b"l", 1, 2), Ok(()));
    let owner = |name| b.stat(name).map(|stat| (stat.uid, stat.gid));
    assert_eq!((owner("l"), owner("f")), (Ok((1, 2)), Ok((1234, 5678))));
    // What is made in a directory with the setgid bit has its group.
    b.dir.make_dir(b"d", 0o755).unwrap();
    let below = b.dir.open_dir(b"d").unwrap();
    below.set_owner(0, 77).unwrap();
    below.set_mode(0o2755).unwrap();
    drop(below.create(b"f", 0o600).unwrap());
    assert_eq!(owner("d").unwrap().1, 77);
    assert_eq!(below.stat_name(b"f").unwrap().gid, 77);
}

fn flags<N: Node>(b: &Bench<'_, N>) {
    let file = b.file("f", b"");
    let Ok(have) = file.flags() else { return };
    match file.set_flags(have | NODUMP) {
        Err(Errno::OPNOTSUPP | Errno::INVAL) => return,
        other => other.unwrap(),
    }
    assert_eq!(file.flags().map(|flags| flags & NODUMP), Ok(NODUMP));
    if !b.subject.privileged || file.set_flags(have | IMMUTABLE).is_err() {
        return;
    }
    assert_eq!(file.set_mode(0o700), Err(Errno::PERM));
    assert_eq!(b.dir.link_name(b"f", &b.dir, b"g"), Err(Errno::PERM));
    assert_eq!(b.dir.remove(b"f"), Err(Errno::PERM));
    assert_eq!(file.set_flags(have), Ok(()));
    assert_eq!(b.dir.remove(b"f"), Ok(()));
}
