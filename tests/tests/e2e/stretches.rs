//! A volume divided at random keys, its stretches done in any order and some given up: the point is that of one run, byte for byte.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use windlass_agent::format::record::{PointStatus, Totals};
use windlass_agent::id::{BackupId, Key};
use windlass_agent::log::lease::Timing;
use windlass_tests::appliance::{
    Appliance, ROW_BLOCKS, Setup, Source, dir_store, expect_clean, expect_equal, image_of, plant,
    whole_seconds,
};
use windlass_tests::error::output;
use windlass_tests::fixture::noise;
use windlass_tests::prng::Prng;
use windlass_tests::workdir::Workdir;

/// Divisions that are tried of each volume.
const SEEDS: u64 = 3;
const IMAGE_BYTES: u64 = 96 << 20;

/// What a point says of the volume, however it was read. How the bytes got there differs.
fn of_volume(totals: &Totals) -> [u64; 5] {
    [totals.items, totals.items_changed, totals.items_deleted, totals.bytes_logical, totals.faults]
}

/// Nobody sends beats while a stretch is read here, so a lease has to last.
fn small() -> Setup {
    let second = 1_000_000_000;
    let timing = Timing { lease_ns: 120 * second, beat_ns: 30 * second, ..Setup::default().timing };
    Setup { block_bytes: 16 << 10, timing, ..Setup::default() }
}

/// Besides what is always planted, items that take several windows: a file of 5,000 extents, and a directory of 9,000 names.
fn plant_all(tree: &Path) {
    plant(tree, 1, 3).unwrap();
    let torn = fs::File::create(tree.join("torn")).unwrap();
    for at in 0..5000 {
        torn.write_all_at(&noise(at, 4096), at * 8192).unwrap();
    }
    let many = tree.join("many");
    fs::create_dir(&many).unwrap();
    fs::write(many.join("one"), b"one").unwrap();
    for at in 0..9000 {
        fs::hard_link(many.join("one"), many.join(format!("a-name-that-is-long-enough-{at:05}"))).unwrap();
    }
    whole_seconds(tree).unwrap();
}

/// The inode numbers of items in an image.
fn inodes(image: &Path, names: &[&str]) -> Vec<u64> {
    let number = |name: &&str| {
        let stat = format!("stat \"/{name}\"");
        let said = output(Command::new("debugfs").args(["-R", &stat]).arg(image)).unwrap();
        let said = String::from_utf8_lossy(&said).into_owned();
        let at = said.find("Inode: ").unwrap_or_else(|| panic!("{name}: {said}"));
        said[at + 7..].split_whitespace().next().unwrap().parse().unwrap()
    };
    names.iter().map(number).collect()
}

/// Changes an image without the kernel.
fn change(image: &Path, commands: &[String]) {
    let script = image.with_extension("commands");
    fs::write(&script, commands.join("\n")).unwrap();
    output(Command::new("debugfs").arg("-w").arg("-f").arg(&script).arg(image)).unwrap();
}

/// Removes files of a directory, in an image and in its tree. Nobody but the kernel would touch the directory's times.
fn remove(image: &Path, tree: &Path, dir: &str, names: &[&str], second: u32) {
    let mut commands: Vec<String> = names.iter().map(|name| format!("rm /{dir}/{name}")).collect();
    commands.push(format!("sif /{dir} mtime 203001010000{second:02}"));
    commands.push(format!("sif /{dir} ctime 203001010000{second:02}"));
    change(image, &commands);
    for name in names {
        fs::remove_file(tree.join(dir).join(name)).unwrap();
    }
    let stamp = format!("2030-01-01 00:00:{second:02} UTC");
    output(Command::new("touch").arg("-d").arg(stamp).arg(tree.join(dir))).unwrap();
}

struct Bench {
    work: Workdir,
    tree: PathBuf,
    image: PathBuf,
}

impl Bench {
    fn new() -> Bench {
        let work = Workdir::new("e2e-stretches").unwrap();
        let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
        Bench { work, tree, image }
    }

    fn repository(&self, name: &str) -> Appliance {
        Appliance::make(dir_store(&self.work.join(name)).unwrap(), small()).unwrap()
    }

    fn restore(&self, appliance: &Appliance, source: &Source, point: BackupId) -> PathBuf {
        let to = self.work.join("restored");
        fs::remove_dir_all(&to).ok();
        expect_clean(&appliance.restore(source, Some(point), &to).unwrap()).unwrap();
        to
    }
}

#[test]
fn a_file_system_in_stretches_is_the_same_point() {
    let bench = Bench::new();
    plant_all(&bench.tree);
    image_of(&bench.tree, &bench.image, IMAGE_BYTES).unwrap();
    let source = Source::file_system(&bench.image);
    let special =
        inodes(&bench.image, &["torn", "many", "many/one", "dir-01/file-00", "dir-01/file-10", "dir-01"]);
    let top = special.iter().max().unwrap() + 40;

    // One run for each state of the volume, and the divided ones beside it; the state before is restored once more at the end.
    let whole = bench.repository("whole");
    let divided: Vec<Appliance> =
        (0..SEEDS).map(|seed| bench.repository(&format!("divided-{seed}"))).collect();
    let mut random = Prng::new(5);
    let (mut jobs, mut stopped, mut commits) = (0, 0, 0);
    for round in 0..3 {
        if round == 1 {
            // Those beside a cut, in the middle, and two that are neighbours perhaps.
            remove(&bench.image, &bench.tree, "dir-01", &["file-00", "file-10", "file-11"], 1);
        } else if round == 2 {
            remove(&bench.image, &bench.tree, "many", &["one"], 2);
            remove(&bench.image, &bench.tree, "dir-02", &["file-19", "file-05"], 3);
        }
        let full = whole.backup(&source).unwrap();
        assert!(!full.resumed);
        let view = whole.view().unwrap();
        let point = &view.state.points[&full.backup];
        assert_eq!(
            (full.totals.items, full.totals.items_deleted, full.totals.objects, full.totals.stored_bytes),
            (point.totals.items, point.totals.items_deleted, point.totals.objects, point.totals.bytes_stored),
            "the sums of the commits are what the run did"
        );
        // `many/one` was a name of many.
        assert_eq!(point.totals.items_deleted, [0, 3, 2][round]);
        let to = bench.restore(&whole, &source, full.backup);
        expect_equal(&bench.tree, &to).unwrap();
        for (seed, appliance) in divided.iter().enumerate() {
            let mut cuts: Vec<Key> = (0..random.below(5)).map(|_| (random.below(top), 0)).collect();
            let near = special[random.below(special.len() as u64) as usize];
            cuts.extend([(near, 0), (near + 1, 0), (near + random.below(4), 0), (u64::MAX / 2, 0)]);
            let split = appliance
                .backup_in_stretches(&source, &cuts, &mut random, 2 + seed as u64 % 3)
                .unwrap_or_else(|why| panic!("round {round}, seed {seed}, {cuts:?}: {why}"));
            assert_eq!(of_volume(&split.point.totals), of_volume(&point.totals), "{round} {seed} {cuts:?}");
            assert_eq!(split.point.status, PointStatus::Complete);
            let to = bench.restore(appliance, &source, split.point.backup);
            expect_equal(&bench.tree, &to)
                .unwrap_or_else(|why| panic!("round {round}, seed {seed}, {cuts:?}: {why}"));
            jobs += split.jobs;
            stopped += split.stopped;
            commits += split.commits;
        }
    }
    println!("{jobs} jobs, {stopped} of them stopped, {commits} commits");
    // Each backup has at least one that is stopped; how many more is for the machine's pace to say.
    assert!(
        jobs > 6 * SEEDS && stopped >= 3 * SEEDS && commits > jobs - stopped,
        "{jobs} {stopped} {commits}"
    );
}

#[test]
fn an_image_in_stretches_comes_back_byte_for_byte() {
    let bench = Bench::new();
    plant(&bench.tree, 2, 4).unwrap();
    image_of(&bench.tree, &bench.image, 24 << 20).unwrap();
    let source = Source::image(&bench.image);
    let rows = (24 << 20) / u64::from(small().block_bytes) / u64::from(ROW_BLOCKS) + 1;
    let mut random = Prng::new(9);
    for seed in 0..SEEDS {
        let appliance = bench.repository(&format!("image-{seed}"));
        for round in 0..2 {
            let image = fs::File::options().write(true).open(&bench.image).unwrap();
            for at in 0..round * 5 {
                image.write_all_at(&noise(seed * 10 + at, 30_000), random.below(23 << 20)).unwrap();
            }
            drop(image);
            let row = u64::from(ROW_BLOCKS);
            let mut cuts: Vec<Key> = (0..random.below(6)).map(|_| (1, random.below(rows) * row)).collect();
            // Before the item, right behind its last block, and behind the item.
            cuts.extend([(1, 0), (1, rows * row), (2, 0)].iter().filter(|_| random.one_in(2)));
            let split = appliance
                .backup_in_stretches(&source, &cuts, &mut random, 2)
                .unwrap_or_else(|why| panic!("seed {seed}, round {round}, {cuts:?}: {why}"));
            assert_eq!(of_volume(&split.point.totals), [1, 1, 0, 24 << 20, 0], "{seed} {round} {cuts:?}");
            let to = bench.restore(&appliance, &source, split.point.backup);
            assert!(
                fs::read(to.join("image")).unwrap() == fs::read(&bench.image).unwrap(),
                "seed {seed}, round {round}, {cuts:?}"
            );
            if round == 1 {
                assert!(split.point.totals.bytes_reused > 20 << 20, "{:?}", split.point.totals);
            }
        }
    }
}

/// What a stretch cannot read is told by that stretch, also when the item ends in another.
#[test]
fn what_is_lost_in_one_stretch_marks_the_point() {
    let bench = Bench::new();
    fs::write(&bench.image, noise(1, 8 << 20)).unwrap();
    let bad = (1 << 20)..(1 << 20) + 4096;
    let source = Source::image(&bench.image).with_bad(&[bad]);
    let appliance = bench.repository("bad");
    let cuts = [(1, 20 * u64::from(ROW_BLOCKS))];
    let split = appliance.backup_in_stretches(&source, &cuts, &mut Prng::new(1), 0).unwrap();
    let said: Vec<&str> = split.troubles.iter().map(|trouble| trouble.what.as_str()).collect();
    assert_eq!(said, ["unreadable on the device: bytes 1048576..1052672"]);
    assert_eq!((split.point.status, split.point.totals.faults), (PointStatus::WithErrors, 1));
    // The item's row is of another stretch and says nothing; the row of the blocks does.
    let report = appliance.restore_with(&source, None, &bench.work.join("restored"), true).unwrap();
    assert_eq!(report.fault_count, 1, "{report:?}");
}

/// The row of a file that ends in another stretch says nothing of what the first stretch could not read: the next backup reads the file again, also
/// when nobody wrote to the volume.
#[test]
fn what_one_stretch_could_not_read_is_tried_again_until_it_can_be_read() {
    let bench = Bench::new();
    let bytes = noise(7, 8 << 20);
    fs::write(bench.tree.join("large"), &bytes).unwrap();
    whole_seconds(&bench.tree).unwrap();
    image_of(&bench.tree, &bench.image, IMAGE_BYTES).unwrap();
    let device = fs::read(&bench.image).unwrap();
    let want = &bytes[1 << 20..][..4096];
    let at = (0..device.len()).step_by(4096).find(|&at| &device[at..at + 4096] == want).unwrap() as u64;
    let unreadable = at..at + 4096;
    let bad = Source::file_system(&bench.image).with_bad(&[unreadable]);
    let appliance = bench.repository("bad-file");
    let cuts = [(inodes(&bench.image, &["large"])[0], 20 * u64::from(ROW_BLOCKS))];
    let split = appliance.backup_in_stretches(&bad, &cuts, &mut Prng::new(1), 0).unwrap();
    assert_eq!((split.point.status, split.point.totals.faults), (PointStatus::WithErrors, 1));
    let again = appliance.backup(&bad).unwrap();
    assert_eq!(again.totals.fault_count, 1, "{:?}", again.troubles);
    let source = Source::file_system(&bench.image);
    let healed = appliance.backup(&source).unwrap();
    assert_eq!(healed.totals.fault_count, 0, "{:?}", healed.troubles);
    expect_equal(&bench.tree, &bench.restore(&appliance, &source, healed.backup)).unwrap();
}

#[test]
fn a_cut_within_a_row_is_refused() {
    let bench = Bench::new();
    fs::write(&bench.image, noise(1, 1 << 20)).unwrap();
    let appliance = bench.repository("odd");
    let source = Source::image(&bench.image);
    let cuts = [(1, u64::from(ROW_BLOCKS) + 1)];
    let why = appliance.backup_in_stretches(&source, &cuts, &mut Prng::new(1), 0).unwrap_err();
    assert!(why.to_string().contains("cut within a row"), "{why}");
}
