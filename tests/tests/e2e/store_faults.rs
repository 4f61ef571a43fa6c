//! A store that fails in every way that it can: a backup completes or says why, and the repository works afterwards.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests, and their helpers")]

use std::path::PathBuf;
use std::sync::Arc;

use windlass_agent::store::Store;
use windlass_hal::clock::SystemClock;
use windlass_tests::appliance::{
    Appliance, Setup, Source, dir_store, expect_clean, expect_equal, image_of, plant,
};
use windlass_tests::error::Result;
use windlass_tests::store_fault::{FaultPlan, FaultStore};
use windlass_tests::workdir::Workdir;

/// A repository on a store that fails as it is told.
struct Bench {
    work: Workdir,
    tree: PathBuf,
    source: Source,
    store: Arc<FaultStore>,
    appliance: Appliance,
}

/// Small objects and many commits, so that there are calls to fail; patience of some seconds.
fn setup() -> Setup {
    let minute = 60_000_000_000;
    Setup { speed: 3_000, flush_interval_ns: minute / 2, block_bytes: 16 << 10, ..Setup::default() }
}

impl Bench {
    fn new(seed: u64) -> Bench {
        let work = Workdir::new("e2e-faults").unwrap();
        let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
        plant(&tree, seed, 3).unwrap();
        image_of(&tree, &image, 32 << 20).unwrap();
        let inner = dir_store(&work.join("store")).unwrap();
        let store = Arc::new(FaultStore::new(inner, Arc::new(SystemClock), FaultPlan::default()));
        let shared: Arc<dyn Store> = Arc::<FaultStore>::clone(&store);
        let appliance = Appliance::make(shared, setup()).unwrap();
        Bench { work, tree, source: Source::file_system(&image), store, appliance }
    }

    /// Backs up under a plan.
    fn backup(&self, plan: FaultPlan) -> Result<()> {
        let before = self.store.injected();
        self.store.set(plan);
        self.store.switch_off(false);
        let result =
            self.appliance.backup(&self.source).map(|report| assert_eq!(report.totals.fault_count, 0));
        self.store.switch_off(true);
        assert!(self.store.injected() > before, "no fault was injected");
        result
    }

    /// The newest point is there and whole, without faults.
    fn restores(&self, name: &str) {
        self.store.switch_off(true);
        let restored = self.work.join(name);
        expect_clean(&self.appliance.restore(&self.source, None, &restored).unwrap()).unwrap();
        expect_equal(&self.tree, &restored).unwrap_or_else(|why| panic!("{name}: {why}"));
    }

    /// However it went, the repository works: the next backup completes, finds nothing amiss, and restores.
    fn works_after(&self, name: &str) {
        self.store.switch_off(true);
        let report = self.appliance.backup(&self.source).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(report.totals.fault_count, 0, "{name}");
        self.restores(name);
    }
}

#[test]
fn answers_that_get_lost() {
    for (seed, permille) in [(1, 250), (2, 400)] {
        let bench = Bench::new(seed);
        let result = bench.backup(FaultPlan { seed, lost_answer_permille: permille, ..FaultPlan::default() });
        result.unwrap_or_else(|why| panic!("{permille}: {why}"));
        bench.restores("first");
        bench.works_after("second");
    }
}

#[test]
fn a_storm_of_calls_without_answers() {
    let bench = Bench::new(3);
    let storm = FaultPlan {
        seed: 3,
        lost_answer_permille: 100,
        lost_call_permille: 150,
        conflict_permille: 50,
        cut_permille: 100,
        list_cut_permille: 100,
        ..FaultPlan::default()
    };
    match bench.backup(storm) {
        Ok(()) => bench.restores("first"),
        // The lease of a test is short: losing it is an answer, too.
        Err(why) => println!("ended by the storm: {why}"),
    }
    bench.works_after("second");
    // Whole outage of the data, not of the log, nor of the list that an empty log is compared with: patience ends, in words.
    let bench = Bench::new(4);
    let gone = FaultPlan { lost_call_permille: 1000, prefix: "obj/0".to_owned(), ..FaultPlan::default() };
    let why = bench.backup(gone).unwrap_err().to_string();
    println!("outage: {why}");
    assert!(why.contains("volume") && why.contains("PUT obj/"), "{why}");
    bench.works_after("second");
}

#[test]
fn a_full_store_and_keys_that_are_revoked() {
    for bytes in [20_000, 1 << 20, 3 << 20] {
        let bench = Bench::new(5);
        let why = bench
            .backup(FaultPlan { full_after_bytes: bytes, ..FaultPlan::default() })
            .unwrap_err()
            .to_string();
        println!("full after {bytes}: {why}");
        assert!(why.to_lowercase().contains("full") || why.to_lowercase().contains("space"), "{why}");
        bench.works_after("second");
    }
    for calls in [1, 12, 25] {
        let bench = Bench::new(6);
        let why = bench
            .backup(FaultPlan { denied_after_calls: calls, ..FaultPlan::default() })
            .unwrap_err()
            .to_string();
        println!("denied after {calls}: {why}");
        assert!(why.to_lowercase().contains("denied") || why.to_lowercase().contains("credential"), "{why}");
        bench.works_after("second");
    }
}

#[test]
fn answers_that_lie() {
    let bench = Bench::new(7);
    bench.appliance.backup(&bench.source).unwrap();
    let plans = [
        FaultPlan { seed: 1, flip_permille: 300, ..FaultPlan::default() },
        FaultPlan { seed: 2, short_permille: 300, ..FaultPlan::default() },
        FaultPlan { seed: 3, cut_permille: 300, ..FaultPlan::default() },
        FaultPlan { seed: 4, flip_permille: 300, prefix: "obj/".to_owned(), ..FaultPlan::default() },
        FaultPlan { seed: 5, short_permille: 300, prefix: "obj/".to_owned(), ..FaultPlan::default() },
        FaultPlan { seed: 6, flip_permille: 600, prefix: "seg/".to_owned(), ..FaultPlan::default() },
        FaultPlan { seed: 7, short_permille: 600, prefix: "seg/".to_owned(), ..FaultPlan::default() },
    ];
    for (index, plan) in plans.into_iter().enumerate() {
        // A restore that is lied to never gives a file a name that it does not deserve, and the next one heals.
        bench.store.set(plan.clone());
        bench.store.switch_off(false);
        let to = bench.work.join(&format!("lied-{index}"));
        match bench.appliance.restore(&bench.source, None, &to) {
            Ok(report) => {
                println!(
                    "{index}: {} faults: {:?}",
                    report.fault_count,
                    report.faults.first().map(ToString::to_string)
                );
                bench.store.switch_off(true);
                if report.fault_count == 0 {
                    expect_equal(&bench.tree, &to).unwrap();
                }
            }
            Err(why) => println!("{index}: {why}"),
        }
        bench.restores(&format!("lied-{index}"));
        // A backup that reads the last point's rows through lies ends or is right; it reads no objects.
        if plan.prefix == "obj/" {
            continue;
        }
        // How often it has to ask depends on what was written since, so a plan may meet no call at all.
        bench.store.set(plan);
        bench.store.switch_off(false);
        let result = bench.appliance.backup(&bench.source);
        bench.store.switch_off(true);
        match result {
            Ok(_) => bench.restores(&format!("backed-up-{index}")),
            Err(why) => println!("{index}: backup: {why}"),
        }
        bench.works_after(&format!("after-{index}"));
    }
}
