//! The simulator in the test suite: some hundred seeds, the seeds that once found something, and bugs put in that must be found.
//!
//! `WINDLASS_SIM_SEEDS=n` runs n seeds. Many more, and the trace of one: `cargo run --release -p windlass-tests --bin sim`.

// Helpers of tests are tests: what fails here fails a test.
#![allow(clippy::unwrap_used, clippy::panic)]

use windlass_tests::sim::committer::Committer;
use windlass_tests::sim::options::Mutation;
use windlass_tests::sim::world::{Outcome, Tally, run};

/// Seeds that are run each time.
const SEEDS: u64 = 600;
/// Seeds within which a bug that was put in must be found.
const SEEDS_TO_FIND: u64 = 2000;

/// Seeds of their own tests: what each has shown.
const KEPT: &[(u64, &str)] = &[
    (20, "a beat that is answered after another has taken over: found when late answers renew"),
    (
        239,
        "a create that lands in a collected slot, of a holder with a slow clock: found without the check of the next epoch",
    ),
    (1, "a collected slot is created again while another reads the log: found without the second LIST"),
    (315, "two holders meet in one slot: found when nonces are not compared"),
];

fn go(seed: u64) -> Outcome {
    let outcome = run::<Committer>(seed, Mutation::None, false);
    if let Some((why, at_ms)) = &outcome.violation {
        panic!("seed {seed}: {why} (at {at_ms} ms)");
    }
    outcome
}

#[test]
fn seeds_keep_every_rule() {
    let seeds = std::env::var("WINDLASS_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS);
    let mut sum = Tally::default();
    (0..seeds).for_each(|seed| sum.add(&go(seed).tally));
    println!("{seeds} seeds: {sum:?}");
    // Runs in which nothing happens prove nothing.
    assert!(sum.committed > 50 * seeds && sum.epochs > 3 * seeds && sum.lost > seeds);
    assert!(sum.released > seeds && sum.collected > 50 * seeds && sum.deleted > 5 * seeds);
    assert!(
        sum.crashes > seeds && sum.freezes > seeds && sum.faults > 20 * seeds && sum.refused > seeds / 128
    );
}

#[test]
fn kept_seeds_keep_every_rule() {
    for (seed, why) in KEPT {
        println!("seed {seed}: {why}");
        go(*seed);
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..20 {
        let trace = go(seed).trace;
        assert_eq!(go(seed).trace, trace, "seed {seed}");
        assert_ne!(go(seed + 1).trace, trace, "seed {seed}");
    }
}

fn find(mutation: Mutation) {
    let found =
        (0..SEEDS_TO_FIND).find_map(|seed| Some((seed, run::<Committer>(seed, mutation, false).violation?)));
    let (seed, (why, _)) = found.unwrap_or_else(|| panic!("{mutation}: not found in {SEEDS_TO_FIND} seeds"));
    println!("{mutation}: seed {seed}: {why}");
}

macro_rules! finds {
    ($($name:ident: $mutation:ident;)*) => {$(
        #[test]
        fn $name() {
            find(Mutation::$mutation);
        }
    )*};
}

finds! {
    finds_a_writer_that_does_not_look_for_the_next_epoch: SkipEpochCheck;
    finds_a_replay_that_does_not_list_twice: SkipSecondList;
    finds_a_late_answer_that_renews: RenewOnLateAnswer;
    finds_a_delete_without_a_record: DeleteWithoutRetire;
    finds_a_commit_of_what_is_not_stored: CommitBeforeStored;
    finds_a_412_that_is_taken_for_a_failure: ExistsIsFailure;
    finds_a_slot_that_is_taken_for_ones_own: SkipNonceCheck;
    finds_a_candidate_that_does_not_wait: SkipWait;
    finds_orphans_that_were_none: OrphansWithoutFloor;
    finds_a_store_that_nobody_probed: SkipProbe;
}
