//! Restores, simulated: a point made up from a seed, a store with faults, and a target that is full, breaks, is killed at any call or loses
//! power; then a second restore onto a healthy target.
//!
//! | rule | |
//! |---|---|
//! | R1 | a file that has its name has its contents, whatever ended the restore; after a power failure, when the next one is done and did not name it |
//! | R2 | what a restore that ended by itself did not make as the point has it is named, by its path or that of a directory above |
//! | R3 | without faults nothing is named; with faults of the store alone, those items that need what is lost, and no others |
//! | R4 | the next restore, with a whole store on a healthy target, names nothing and leaves everything as the point has it |
//! | R5 | nothing is there that neither the point has nor was there before |
//!
//! `WINDLASS_RESTORE_SEEDS=n` runs n seeds; `WINDLASS_RESTORE_SEED=s` one, and says what it did. Source: ours.

// Helpers of tests are tests: what fails here fails a test.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod point;
mod shelf;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use point::{BACKUP, BLOCK, Oddity, Point, ROOT, VOLUME, Wanted};
use shelf::Shelf;
use windlass_agent::id::BackupId;
use windlass_agent::policy::select::Patterns;
use windlass_agent::read::lookup::Lookup;
use windlass_agent::read::plan::Merging;
use windlass_agent::restore::fault::{Feature, Reason, RestoreFault};
use windlass_agent::restore::file::RestoreOptions;
use windlass_agent::restore::lane::Crew;
use windlass_agent::restore::owners::OwnerMap;
use windlass_agent::restore::place::Protected;
use windlass_agent::restore::state::{STATE_BYTES, STATE_NAME, Unfinished};
use windlass_agent::restore::target::{Existing, STAGING_PREFIX};
use windlass_agent::restore::walk::{self, RestoreReport, Root, Source, Work};
use windlass_agent::store::retry::{Client, RetryPolicy};
use windlass_agent::table::read::TableReader;
use windlass_agent::table::source::TableLimits;
use windlass_hal::sim::clock::SimClock;
use windlass_hal::sim::tree::{Found, SimTree, TreeConfig};
use windlass_hal::tree::{Errno, Node};
use windlass_hal::volume::ItemKind;
use windlass_tests::prng::Prng;

/// Seeds that are run each time.
const SEEDS: u64 = 2000;
/// Most kills and power failures one after the other.
const CRASHES_MAX: u64 = 3;

/// Calls of a restore to its target, and those for each item, roughly: kills come at all of them.
const CALLS: u64 = 12;
const CALLS_PER_ITEM: u64 = 8;

/// Calls for each name at most, on average, with those that a restore takes whatever it restores.
const CALLS_MOST_PER_NAME: u64 = 8;

/// What the seeds met, so that a test which met nothing is noticed.
#[derive(Debug, Default)]
struct Tally {
    whole: u64,
    named: u64,
    failed: u64,
    full: u64,
    kills: u64,
    power_cuts: u64,
    lost_blocks: u64,
    planted: u64,
    resumed: u64,
    equal: u64,
}

struct World {
    p: Prng,
    point: Point,
    tree: SimTree,
    /// What was there before, by path.
    planted: BTreeMap<Vec<u8>, Found>,
    /// `FS_*_FL` that the target keeps.
    flags: u32,
    /// Files of so many bytes are kept when a restore ends early.
    part_bytes_min: u64,
    says: bool,
}

/// A restore of everything, from a whole store unless another is given.
fn restore(
    world: &mut World,
    shelf: Option<Shelf>,
    existing: Existing,
) -> Result<RestoreReport, RestoreFault> {
    let shelf = shelf.unwrap_or_else(|| Shelf::whole(&world.point));
    let clock = Arc::new(SimClock::new());
    let policy = RetryPolicy { budget_ms: u64::MAX, attempts_max: 64, ..RetryPolicy::DATA };
    let client = Arc::new(Client::new(Arc::new(shelf), clock, policy, 1));
    let keys = &world.point.keys;
    let reader =
        TableReader::new(Arc::clone(&client), keys, TableLimits::default(), &world.point.metas).unwrap();
    let mut source = Source { lookup: Lookup::new(reader, BACKUP), client: &client, keys };
    let options = RestoreOptions {
        existing,
        keep_damaged: false,
        sync: true,
        owners: true,
        owner_map: OwnerMap::default(),
        repository: Protected::default(),
        exclude: Patterns::default(),
    };
    let roots = [Root { lin: ROOT, name: Vec::new() }];
    let nonce = world.p.next_u64();
    let progress = Arc::default();
    let work = Work { roots: &roots, selection: &[], options, nonce, progress: &progress };
    let merging = Merging {
        gap_bytes_max: world.p.below(3) as u32 * 5000,
        read_bytes_max: 1 + world.p.below(60_000) as u32,
    };
    let mut order = Prng::new(world.p.next_u64());
    let lazy = 1 + order.below(4);
    let mut choose = |choices: usize| match order.one_in(lazy) {
        true => choices - 1,
        false => order.below(choices as u64) as usize,
    };
    walk::run_in(
        &mut source,
        &work,
        world.tree.open(),
        Crew::Walk(&mut choose),
        merging,
        world.part_bytes_min,
    )
}

/// What of a path is not as the point has it.
fn difference(wanted: &Wanted, found: Option<&Found>, kept: u32) -> Option<String> {
    let Some(found) = found else { return Some("is not there".to_owned()) };
    let (item, stat) = (&wanted.item, &found.stat);
    let kind = stat.kind;
    if kind != item.kind {
        return Some(format!("is {kind:?}"));
    }
    if kind == ItemKind::File && found.contents != wanted.contents {
        return Some("has other contents".to_owned());
    }
    if kind == ItemKind::Symlink && found.contents != wanted.contents || found.device != item.rdev {
        return Some("leads elsewhere".to_owned());
    }
    if (stat.mode, stat.uid, stat.gid) != (item.mode, item.uid, item.gid) {
        return Some(format!("has mode {:o} of {}:{}", stat.mode, stat.uid, stat.gid));
    }
    if stat.mtime != item.mtime {
        return Some("has another time".to_owned());
    }
    let xattrs: BTreeMap<Vec<u8>, Vec<u8>> = item.xattrs.iter().cloned().collect();
    if found.xattrs != xattrs {
        return Some("has other attributes".to_owned());
    }
    if (found.flags, found.project) != (item.flags & kept, item.project) {
        return Some(format!(
            "has flags {:#x}, project {}, not {:#x}, {}",
            found.flags, found.project, item.flags, item.project
        ));
    }
    None
}

/// Paths that are not as the point has them, and how. Where that is the `first` restore, what the target cannot keep is one of these;
/// what a restore leaves as it is was named by another one. The top directory gets its time last, which a kill may prevent.
fn differences(world: &World, first: bool) -> BTreeMap<Vec<u8>, String> {
    let kept = if first { u32::MAX } else { world.flags };
    let look = world.tree.look(STAGING_PREFIX.as_bytes());
    let mut out = BTreeMap::new();
    let mut inodes: BTreeMap<u64, (u64, Vec<u8>)> = BTreeMap::new();
    for (path, wanted) in &world.point.wanted {
        if path.is_empty() && !first {
            continue;
        }
        let found = look.get(path);
        if let Some(what) = difference(wanted, found, kept) {
            out.insert(path.clone(), what);
        } else if let Some(found) = found {
            let known = inodes.entry(wanted.inode).or_insert((found.stat.inode, path.clone()));
            if known.0 != found.stat.inode {
                out.insert(path.clone(), format!("is another file than {}", known.1.escape_ascii()));
            }
        }
    }
    out
}

/// R1 and R5. `report` is of a restore after a power failure. What was there before and is written `in_place` may be in between.
fn names_are_true(world: &World, report: Option<&RestoreReport>, in_place: bool) -> Result<(), String> {
    for (path, found) in world.tree.look(STAGING_PREFIX.as_bytes()) {
        if world
            .planted
            .get(&path)
            .is_some_and(|was| was.stat.kind == found.stat.kind && was.contents == found.contents)
        {
            continue;
        }
        let shown = path.escape_ascii();
        let Some(wanted) = world.point.wanted.get(&path) else {
            let above = world.planted.keys().any(|planted| path.starts_with(planted));
            if above {
                continue;
            }
            return Err(format!("R5: {shown} is neither in the point nor was it there"));
        };
        let is_said = report.is_some_and(|report| is_named(report, &path, ""))
            || in_place && world.planted.get(&path).is_some_and(|was| was.stat.kind == ItemKind::File);
        if found.stat.kind == ItemKind::File && found.contents != wanted.contents && !is_said {
            return Err(format!("R1: {shown} has its name and other contents"));
        }
    }
    Ok(())
}

/// Whether a report names a path: itself, a directory above, or, of what a target cannot keep, the first item that has it.
fn is_named(report: &RestoreReport, path: &[u8], what: &str) -> bool {
    report.faults.iter().any(|fault| {
        let above = path.strip_prefix(&fault.path[..]);
        let is_above = above.is_some_and(|rest| rest.is_empty() || rest[0] == b'/' || fault.path.is_empty());
        let not_kept = match fault.reason {
            Reason::NotKept { what: Feature::Xattrs | Feature::Acls, .. } => what == "has other attributes",
            Reason::NotKept { .. } => what.starts_with("has flags"),
            _ => false,
        };
        let by_number = what.starts_with("has flags") && fault.path.iter().all(u8::is_ascii_digit);
        (is_above && !fault.path.is_empty()) || path == fault.path || not_kept || by_number
    })
}

/// R2. What is left as it was, because that was asked for, is not named; nor are the attributes of a directory that was there.
fn all_is_named(
    world: &World,
    report: &RestoreReport,
    existing: Existing,
    first: bool,
) -> Result<(), String> {
    for (path, what) in differences(world, first) {
        let was = world.planted.get(&path);
        let is_left = was.is_some_and(|was| {
            let both = was.stat.kind == ItemKind::Directory
                && world.point.wanted[&path].item.kind == ItemKind::Directory;
            existing == Existing::Skip || existing == Existing::Refuse && both
        });
        // Names of one file are as good as each other.
        let inode = BTreeSet::from([world.point.wanted[&path].inode]);
        let names = world.point.paths_of(&inode);
        if !is_left && !names.iter().any(|name| is_named(report, name, &what)) {
            return Err(format!(
                "R2: {} {what}, and nothing says so: {:?}",
                path.escape_ascii(),
                report.faults
            ));
        }
    }
    Ok(())
}

/// Puts something in the way of some items of the top directory.
fn plant(world: &mut World) {
    let root = world.tree.open().root;
    let names: Vec<Vec<u8>> =
        world.point.wanted.keys().filter(|path| !path.is_empty() && !path.contains(&b'/')).cloned().collect();
    for name in names {
        if !world.p.one_in(3) {
            continue;
        }
        match world.p.below(4) {
            0 => root.symlink(&name, b"/etc/passwd").unwrap(),
            1 => root.make_dir(&name, 0o755).unwrap(),
            2 => {
                root.make_dir(&name, 0o755).unwrap();
                let full = root.open_dir(&name).unwrap();
                full.create(b"mine", 0o644).unwrap().write_at(0, b"keep this").unwrap();
            }
            _ => root.create(&name, 0o644).unwrap().write_at(0, b"something else").unwrap(),
        }
    }
    root.sync_all().unwrap();
    drop(root);
    world.planted = world.tree.look(b"");
    world.planted.remove(&b""[..]);
}

/// Faults of a target by lot; whether single calls fail.
fn target_faults(p: &mut Prng, config: &mut TreeConfig, is_calm: bool) -> bool {
    match p.below(6) {
        0 => {
            config.room_bytes = p.below(200_000);
            config.full = [Errno::NOSPC, Errno::DQUOT][p.below(2) as usize];
        }
        1 if !is_calm => config.fault_permille = 1 + p.below(60) as u32,
        2 => {
            let errno = [Errno::ROFS, Errno::IO, Errno::STALE, Errno::NODEV][p.below(4) as usize];
            config.broken_from = Some((p.below(400), errno));
        }
        _ => {}
    }
    config.fault_permille > 0
}

const REPLACING: [Existing; 3] = [Existing::OverwriteIfDifferent, Existing::Overwrite, Existing::InPlace];

/// One seed.
fn run(seed: u64, tally: &mut Tally, says: bool) -> Result<(), String> {
    let mut p = Prng::new(seed);
    // What is immutable cannot be replaced by a restore that is asked to overwrite.
    let is_calm = p.one_in(2);
    let point = Point::new(&mut p, is_calm);
    let healthy = TreeConfig {
        seed: p.next_u64(),
        has_unnamed: !p.one_in(4),
        has_rename_flags: !p.one_in(4),
        flags: if p.one_in(4) { 0x40 } else { u32::MAX },
        ..TreeConfig::default()
    };
    let tree = SimTree::new(healthy.clone());
    // Not drawn: the other seeds stay as they are.
    let part_bytes_min = [u64::MAX, 1, 8192, 1][seed as usize % 4];
    let mut world =
        World { p, point, tree, planted: BTreeMap::new(), flags: healthy.flags, part_bytes_min, says };
    if !is_calm && world.p.one_in(3) {
        plant(&mut world);
        tally.planted += 1;
    }
    let is_planted = !world.planted.is_empty();
    // A restore that may be killed or lose power some times, and one that ends by itself.
    let crashes = if world.p.one_in(2) { 0 } else { 1 + world.p.below(CRASHES_MAX) };
    let mut existing = if is_planted {
        [Existing::Refuse, Existing::Skip, REPLACING[0], REPLACING[1], REPLACING[2]]
            [world.p.below(5) as usize]
    } else {
        [Existing::Refuse, REPLACING[0], REPLACING[2]][world.p.below(3) as usize]
    };
    let (mut fails_once, mut trusted) = (false, true);
    let calls = CALLS + CALLS_PER_ITEM * world.point.wanted.len() as u64;
    for _ in 0..crashes {
        let is_power = world.p.one_in(2);
        let mut config = TreeConfig { stop_at: Some(1 + world.p.below(calls)), ..healthy.clone() };
        fails_once |= target_faults(&mut world.p, &mut config, is_calm);
        world.tree.set(config);
        let ended = restore(&mut world, None, existing);
        if world.says {
            println!("{} at {calls}: {ended:?}", if is_power { "power" } else { "kill" });
        }
        if is_power {
            world.tree.power_cut();
            tally.power_cuts += 1;
            trusted = false;
        } else {
            world.tree.kill();
            tally.kills += 1;
        }
        if trusted {
            names_are_true(&world, None, existing == Existing::InPlace)?;
        }
    }
    // One that ends by itself, with a store and a target that fail.
    if crashes == 0 || world.p.one_in(3) {
        let mut config = healthy.clone();
        let is_hurt = !world.p.one_in(3);
        let target_hurt = world.p.one_in(2);
        if target_hurt {
            fails_once |= target_faults(&mut world.p, &mut config, is_calm);
        }
        let is_target_healthy =
            config.room_bytes == u64::MAX && config.fault_permille == 0 && config.broken_from.is_none();
        world.tree.set(config);
        let (shelf, hurt) = match is_hurt {
            true => Shelf::with_faults(&world.point, &mut world.p),
            false => (Shelf::whole(&world.point), BTreeSet::new()),
        };
        let is_denied = shelf.is_denied();
        let was_in_place = existing == Existing::InPlace;
        if fails_once && crashes > 0 {
            existing = Existing::Overwrite;
        }
        let was_in_place = was_in_place || existing == Existing::InPlace;
        let ended = restore(&mut world, Some(shelf), existing);
        if world.says {
            println!("own end: {existing:?} {ended:?}; lost {hurt:?}");
        }
        match &ended {
            _ if trusted => names_are_true(&world, None, was_in_place)?,
            Ok(report) => names_are_true(&world, Some(report), was_in_place)?,
            Err(_) => {}
        }
        tally.lost_blocks += u64::from(!hurt.is_empty());
        match ended {
            Ok(report) => {
                let first = crashes == 0 && !is_planted;
                all_is_named(&world, &report, existing, first)?;
                let named: BTreeSet<Vec<u8>> = report
                    .faults
                    .iter()
                    .filter(|fault| !matches!(fault.reason, Reason::NotKept { .. }))
                    .map(|fault| fault.path.clone())
                    .collect();
                let lost = world.point.paths_of(&hurt);
                if is_target_healthy && !is_planted && crashes == 0 && named != lost {
                    return Err(format!("R3: lost {lost:?}, and named {:?}", report.faults));
                }
                match report.fault_count {
                    0 => tally.whole += 1,
                    _ => tally.named += 1,
                }
            }
            Err(RestoreFault::Full(_)) => tally.full += 1,
            Err(RestoreFault::Store(_)) if is_denied => tally.failed += 1,
            Err(RestoreFault::Target { .. }) if !is_target_healthy => tally.failed += 1,
            Err(other) => return Err(format!("R3: ended by {other}")),
        }
    }
    // Everything is well again.
    world.tree.set(healthy);
    if fails_once || is_planted {
        existing = Existing::Overwrite;
    }
    let ended = restore(&mut world, None, existing);
    if world.says {
        println!("last: {existing:?}, {} calls, {ended:?}", world.tree.calls());
    }
    let report = ended.map_err(|fault| format!("R4: the last restore ended by {fault}"))?;
    tally.resumed += u64::from(report.resumed > 0);
    tally.equal += u64::from(report.bytes_equal > 0);
    let faults: Vec<String> = report
        .faults
        .iter()
        .filter(|fault| !matches!(fault.reason, Reason::NotKept { .. }))
        .map(ToString::to_string)
        .collect();
    if !faults.is_empty() {
        return Err(format!("R4: the last restore names {faults:?}"));
    }
    names_are_true(&world, None, false)?;
    all_is_named(&world, &report, existing, false).map_err(|why| format!("R4, {why}"))
}

/// What a new file has from its directory is not set again: some eight calls for each name, of whatever kind.
#[test]
fn a_restore_sets_only_what_it_has_to() {
    let (mut calls, mut names) = (0, 0);
    for seed in 0..50 {
        let mut p = Prng::new(seed);
        let point = Point::new(&mut p, false);
        names += point.wanted.len() as u64;
        let tree = SimTree::new(TreeConfig::default());
        let (planted, flags, part_bytes_min) = (BTreeMap::new(), u32::MAX, u64::MAX);
        let mut world = World { p, point, tree, planted, flags, part_bytes_min, says: false };
        let report = restore(&mut world, None, Existing::Refuse).unwrap();
        assert!(report.faults.is_empty(), "{:?}", report.faults);
        calls += world.tree.calls();
    }
    println!("{calls} calls for {names} names");
    assert!(calls <= CALLS_MOST_PER_NAME * names, "{calls} for {names}");
}

/// A restore that is killed again and again, at any call, goes on where it was: in all of its lives together it writes each byte once, and
/// once more what was in flight (a file that was being finished, a block).
#[test]
fn what_was_written_before_a_kill_is_not_written_again() {
    const KILLS: u64 = 4;
    let (mut resumed, mut most) = (0, 0);
    for seed in 0..400 {
        let mut p = Prng::new(seed);
        let point = Point::new(&mut p, false);
        let mut inodes = BTreeMap::new();
        for wanted in point.wanted.values().filter(|wanted| wanted.item.kind == ItemKind::File) {
            inodes.insert(wanted.inode, wanted.contents.len() as u64);
        }
        let contents: u64 = inodes.values().sum();
        let largest = inodes.values().copied().max().unwrap_or(0);
        let in_flight = largest + BLOCK as u64 + 2 * STATE_BYTES as u64;
        let tree = SimTree::new(TreeConfig { seed, has_unnamed: seed % 2 == 0, ..TreeConfig::default() });
        let (planted, flags) = (BTreeMap::new(), u32::MAX);
        let mut world = World { p, point, tree, planted, flags, part_bytes_min: 1, says: false };
        let calls = CALLS + CALLS_PER_ITEM * world.point.wanted.len() as u64;
        for _ in 0..KILLS {
            let stop_at = Some(1 + world.p.below(calls));
            world.tree.set(TreeConfig { stop_at, has_unnamed: seed % 2 == 0, ..TreeConfig::default() });
            drop(restore(&mut world, None, Existing::Refuse));
            world.tree.kill();
            names_are_true(&world, None, false).unwrap();
        }
        world.tree.set(TreeConfig { has_unnamed: seed % 2 == 0, ..TreeConfig::default() });
        let report = restore(&mut world, None, Existing::Refuse).unwrap();
        assert!(report.faults.is_empty() && report.leftovers.is_empty(), "seed {seed}: {report:?}");
        assert_eq!(differences(&world, false), BTreeMap::new(), "seed {seed}");
        resumed += report.resumed;
        let written = world.tree.written();
        most = most.max(written.saturating_sub(contents));
        assert!(
            written <= contents + KILLS * in_flight,
            "seed {seed}: {written} bytes were written for {contents}; in flight are {in_flight} at most"
        );
    }
    println!(
        "{resumed} files were gone on with by the last restores; {most} bytes were written again at most"
    );
    assert!(resumed > 100);
}

/// A state that is damaged, of another point, of another selection, or none, is ignored, named, and costs nothing but time.
#[test]
fn a_state_that_is_not_this_restores_is_ignored_and_named() {
    let mut named = [0; 4];
    for seed in 0..200 {
        let mut p = Prng::new(seed);
        let point = Point::new(&mut p, false);
        let tree = SimTree::new(TreeConfig::default());
        let (planted, flags) = (BTreeMap::new(), u32::MAX);
        let mut world = World { p, point, tree, planted, flags, part_bytes_min: 1, says: false };
        world.tree.set(TreeConfig { stop_at: Some(40 + world.p.below(60)), ..TreeConfig::default() });
        drop(restore(&mut world, None, Existing::Refuse));
        world.tree.kill();
        world.tree.set(TreeConfig::default());
        let root = world.tree.open().root;
        let mut names = Vec::new();
        root.names(&mut |name| names.push(name.to_vec())).unwrap();
        let Some(staging) = names.iter().find(|name| name.starts_with(STAGING_PREFIX.as_bytes())) else {
            continue;
        };
        let staging = root.open_dir(staging).unwrap();
        let Ok(file) = staging.open_to_write(STATE_NAME.as_bytes()) else { continue };
        let keys = &world.point.keys;
        let how = seed as usize % 4;
        match how {
            0 => file.write_at(world.p.below(STATE_BYTES as u64), &[0xEE]).unwrap(),
            1 => file.set_len(world.p.below(STATE_BYTES as u64)).unwrap(),
            2 => {
                let other = Unfinished::new(VOLUME, BackupId(BACKUP.0 + 1), [], keys);
                file.write_at(0, &other.encode(keys)).unwrap();
            }
            _ => file
                .write_at(0, &Unfinished::new(VOLUME, BACKUP, [&b"other"[..]], keys).encode(keys))
                .unwrap(),
        }
        // Parts that somebody planted: they would be compared, were they taken.
        if let Ok(part) = staging.create(b"10p", 0o600) {
            part.write_at(0, b"planted").unwrap();
        }
        drop((staging, root, file));
        let report = restore(&mut world, None, Existing::Refuse).unwrap();
        assert_eq!(report.leftovers.len(), 1, "seed {seed}: {:?}", report.leftovers);
        assert!(report.resumed == 0 && report.faults.is_empty(), "seed {seed}: {report:?}");
        named[how] += 1;
        assert_eq!(differences(&world, false), BTreeMap::new(), "seed {seed}");
    }
    assert!(named.iter().all(|&count| count > 10), "{named:?}");
}

/// File systems that cannot keep everything: each item that is not as the point has it is named once, the rest is there, and a restore to
/// one that can completes it.
#[test]
fn what_a_file_system_cannot_keep_is_named_once_and_completed_elsewhere() {
    let kinds = [
        ("no attributes", TreeConfig { has_xattrs: false, ..TreeConfig::default() }),
        ("no owners", TreeConfig { has_owners: false, ..TreeConfig::default() }),
        ("short names", TreeConfig { name_bytes_max: 40, ..TreeConfig::default() }),
        ("small files", TreeConfig { file_bytes_max: 9000, ..TreeConfig::default() }),
        ("no case", TreeConfig { folds_case: true, ..TreeConfig::default() }),
        ("quota", TreeConfig { room_bytes: 40_000, full: Errno::DQUOT, ..TreeConfig::default() }),
    ];
    for (kind, config) in kinds {
        let (mut named, mut whole) = (0, 0);
        for seed in 0..150 {
            let mut p = Prng::new(seed);
            let oddity = match kind {
                "no case" => Oddity::Cases,
                "short names" => Oddity::Long,
                _ => Oddity::None,
            };
            let point = Point::make(&mut p, false, oddity);
            let tree = SimTree::new(TreeConfig { seed, ..config.clone() });
            let (planted, flags) = (BTreeMap::new(), u32::MAX);
            let part_bytes_min = [1, u64::MAX][seed as usize % 2];
            let mut world = World { p, point, tree, planted, flags, part_bytes_min, says: false };
            match restore(&mut world, None, Existing::Refuse) {
                Ok(report) => {
                    let at = || format!("{kind}, seed {seed}");
                    all_is_named(&world, &report, Existing::Refuse, true)
                        .unwrap_or_else(|why| panic!("{}: {why}", at()));
                    names_are_true(&world, None, false).unwrap_or_else(|why| panic!("{}: {why}", at()));
                    let by_path =
                        report.faults.iter().filter(|f| !matches!(f.reason, Reason::NotKept { .. }));
                    let mut paths = BTreeSet::new();
                    for fault in by_path {
                        assert!(
                            paths.insert(&fault.path),
                            "{}: named twice: {fault}: {:?}",
                            at(),
                            report.faults
                        );
                    }
                    named += u64::from(report.fault_count > 0);
                    whole += u64::from(!world.tree.look(STAGING_PREFIX.as_bytes()).is_empty());
                }
                Err(RestoreFault::Full(_)) if kind == "quota" => named += 1,
                Err(fault) => panic!("{kind}, seed {seed}: ended by {fault}"),
            }
            world.tree.set(TreeConfig::default());
            let existing =
                if kind == "no attributes" { Existing::InPlace } else { Existing::OverwriteIfDifferent };
            let report = restore(&mut world, None, existing).unwrap();
            assert!(report.faults.is_empty(), "{kind}, seed {seed}: {:?}", report.faults);
            let left = differences(&world, false);
            assert!(left.is_empty(), "{kind}, seed {seed}: {left:?}");
        }
        println!("{kind}: {named} of 150 points had something named, {whole} had something there");
        assert!(named > 20, "{kind}: {named}");
    }
}

/// With the right state a planted part is compared like any other: what it holds is not believed.
#[test]
fn a_planted_part_is_compared_and_another_name_of_something_is_left() {
    let (mut compared, mut left) = (0, 0);
    for seed in 0..200 {
        let mut p = Prng::new(seed);
        let point = Point::new(&mut p, false);
        let tree = SimTree::new(TreeConfig::default());
        let (planted, flags) = (BTreeMap::new(), u32::MAX);
        let mut world = World { p, point, tree, planted, flags, part_bytes_min: 1, says: false };
        world.tree.set(TreeConfig { stop_at: Some(30 + world.p.below(60)), ..TreeConfig::default() });
        drop(restore(&mut world, None, Existing::Refuse));
        world.tree.kill();
        world.tree.set(TreeConfig::default());
        let root = world.tree.open().root;
        let mut names = Vec::new();
        root.names(&mut |name| names.push(name.to_vec())).unwrap();
        let Some(staging) = names.iter().find(|name| name.starts_with(STAGING_PREFIX.as_bytes())) else {
            continue;
        };
        let staging = root.open_dir(staging).unwrap();
        if staging.stat_name(STATE_NAME.as_bytes()).is_err() {
            continue;
        }
        // As long as they may be, and full of something else; one of two is another's file.
        let is_another = seed % 2 == 0;
        for wanted in world.point.wanted.values().filter(|wanted| wanted.item.kind == ItemKind::File) {
            let part = format!("{}p", wanted.inode);
            if let Ok(file) = staging.create(part.as_bytes(), 0o600) {
                file.write_at(0, &vec![0xEE; wanted.contents.len() + 5000]).unwrap();
                if is_another {
                    let mine = format!("another-{}", wanted.inode);
                    file.link(&root, mine.as_bytes()).unwrap();
                }
            }
        }
        drop((staging, root));
        let before = world.tree.look(STAGING_PREFIX.as_bytes());
        let report = restore(&mut world, None, Existing::Refuse).unwrap();
        assert!(report.faults.is_empty() && report.leftovers.is_empty(), "seed {seed}: {report:?}");
        let after = world.tree.look(STAGING_PREFIX.as_bytes());
        for (path, was) in before.iter().filter(|(path, _)| path.starts_with(b"another-")) {
            assert_eq!(after[path].contents, was.contents, "seed {seed}: another's file was written into");
            left += 1;
        }
        compared += report.resumed;
        assert_eq!(differences(&world, false), BTreeMap::new(), "seed {seed}");
    }
    assert!(compared > 100 && left > 100, "{compared} compared, {left} left");
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn seeds() {
    let mut tally = Tally::default();
    if let Some(seed) = number("WINDLASS_RESTORE_SEED") {
        return run(seed, &mut tally, true).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
    let seeds = number("WINDLASS_RESTORE_SEEDS").unwrap_or(SEEDS);
    let mut failed = Vec::new();
    for seed in 0..seeds {
        if let Err(why) = run(seed, &mut tally, false) {
            println!("seed {seed}: {why}");
            failed.push(seed);
        }
    }
    println!("{seeds} seeds: {tally:?}");
    assert!(failed.is_empty(), "{} of {seeds} seeds failed, the first {:?}", failed.len(), failed.first());
    let Tally { whole, named, failed, full, kills, power_cuts, lost_blocks, planted, resumed, equal } = tally;
    let met = [whole, named, failed, full, kills, power_cuts, lost_blocks, planted, resumed, equal];
    assert!(seeds < SEEDS || met.iter().all(|&count| count > 20), "too little happened: {met:?}");
}
