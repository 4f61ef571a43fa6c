//! The simulator in the test suite: some hundred seeds, the seeds that once found something, and bugs put in that must be found.
//!
//! `WINDLASS_SIM_SEEDS=n` runs n seeds. Many more, and the trace of one: `cargo run --release -p windlass-tests --bin sim`.

// Helpers of tests are tests: what fails here fails a test.
#![allow(clippy::unwrap_used, clippy::panic)]

use windlass_tests::sim::Tenant;
use windlass_tests::sim::committer::Committer;
use windlass_tests::sim::member::Member;
use windlass_tests::sim::options::{Mutation, Options};
use windlass_tests::sim::scale::{self, Rates};
use windlass_tests::sim::world::{Outcome, Tally, run, run_with};

/// Seeds that are run each time.
const SEEDS: u64 = 600;
/// Seeds with whole nodes that are run each time.
const NODE_SEEDS: u64 = 500;
/// Seeds of worlds with garbage that are run each time.
const GARBAGE_SEEDS: u64 = 150;
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
    (
        498,
        "a node with a slow clock held epoch 1 for ever, and followed the holder of epoch 3, which let go and died: log writers now step down \
         as whole nodes do when they hear of a later epoch",
    ),
];

/// Seeds with whole nodes: what each has shown, before it was mended.
const KEPT_NODES: &[(u64, &str)] = &[
    (
        13,
        "a request went to and fro between two nodes of which neither coordinated: 348,580 events for 9,984",
    ),
    (188, "the same: 462,525 events for 18,966"),
    (
        3966,
        "each new epoch gave up what was done of a backup, for a volume without proof of which nothing was read: it never ended",
    ),
    (
        6,
        "a volume that came into a policy while the others were looked at was not in the backup, which said that it was whole",
    ),
    (
        881,
        "a user let a point go for good when its time had come anyway: both in one commit were refused for ever",
    ),
    (100, "an answer to a request of a node's earlier start was taken for that of another request"),
    (
        8350,
        "a schedule set by a clock an hour and a half ahead of the store's skipped an hour, after it had run right for one",
    ),
    (6933, "the same, of two nodes of which one dies"),
    (
        467,
        "a policy was removed, and its schedule's new time in the same commit was refused, and said again, for ever",
    ),
];
/// Seeds of worlds with garbage: what each has shown.
const KEPT_GARBAGE: &[(u64, &str)] = &[
    (
        1987,
        "six changes of policies at once for a coordinator that has room for two: the others were never given again",
    ),
    (
        702,
        "a schedule set anew by a clock two minutes behind the other node's repeated its backup, five times",
    ),
    (
        2222,
        "the epoch was renewed for retired names that only deletions take, and again for the same ones: 3,065 epochs, each too short for the \
         deletions or a backup",
    ),
    (
        159,
        "a node opened 18 slow volumes again and again for coordinators that were no more, and work was not finished in an hour",
    ),
    (421, "the same of a backup that users stop and start"),
];
/// Events of a kept seed at most: more are messages that nobody needs.
const KEPT_EVENTS_MAX: u64 = 100_000;

/// Blocks of the smaller image of two: 122 GiB.
const SCALE_BLOCKS: u64 = 1_000_000;
/// Part of what the uplinks could do together.
const LINEAR: f64 = 0.9;

fn go(seed: u64) -> Outcome {
    go_with::<Committer>(seed)
}

fn go_with<T: Tenant>(seed: u64) -> Outcome {
    whole(seed, run::<T>(seed, Mutation::None, false))
}

fn go_with_garbage(seed: u64) -> Outcome {
    let options = Options { garbage: true, ..Options::draw(seed, Mutation::None) };
    whole(seed, run_with::<Member>(options, false))
}

/// The outcome, if no rule was broken.
fn whole(seed: u64, outcome: Outcome) -> Outcome {
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
    // Runs in which nothing happens prove nothing; few seeds may all be calm ones.
    if seeds < SEEDS {
        return;
    }
    assert!(sum.committed > 50 * seeds && sum.epochs > 3 * seeds && sum.lost > seeds);
    assert!(sum.released > seeds && sum.collected > 50 * seeds && sum.deleted > 5 * seeds);
    assert!(
        sum.crashes > seeds && sum.freezes > seeds && sum.faults > 20 * seeds && sum.refused > seeds / 128
    );
    assert!(sum.read > 4 * seeds && sum.usurped > seeds / 60, "{sum:?}");
}

#[test]
fn seeds_of_whole_nodes_keep_every_rule() {
    let seeds =
        std::env::var("WINDLASS_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(NODE_SEEDS);
    let mut sum = Tally::default();
    (0..seeds).for_each(|seed| sum.add(&go_with::<Member>(seed).tally));
    println!("{seeds} seeds: {sum:?}");
    if seeds < NODE_SEEDS {
        return;
    }
    assert!(sum.points > 2 * seeds && sum.accepted > 30 * seeds && sum.assigned > 15 * seeds);
    assert!(sum.answered > 80 * seeds && sum.epochs > 6 * seeds && sum.released > 5 * seeds);
    assert!(sum.restored > 10_000 * seeds, "data was read back");
    assert!(sum.lost > seeds && sum.crashes > seeds && sum.freezes > seeds && sum.faults > 20 * seeds);
    // Each kind of weather was met.
    assert!(sum.buried > seeds / 20 && sum.hermits > seeds / 30 && sum.hung > seeds / 4, "{sum:?}");
    assert!(sum.due > seeds / 4 && sum.skews > seeds && sum.lengths > seeds / 4, "{sum:?}");
    assert!(sum.abandoned > seeds / 4 && sum.resumed > seeds / 2, "{sum:?}");
    assert!(sum.renamed > seeds / 8 && sum.removed > seeds / 8 && sum.without > seeds / 20, "{sum:?}");
    assert!(sum.crowd >= 40 && sum.points_most > 200 && sum.damage > seeds / 100, "{sum:?}");
}

#[test]
fn seeds_of_worlds_with_garbage_keep_every_rule_and_give_space_back() {
    let seeds =
        std::env::var("WINDLASS_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(GARBAGE_SEEDS);
    let mut sum = Tally::default();
    (0..seeds).for_each(|seed| sum.add(&go_with_garbage(seed).tally));
    println!("{seeds} seeds: {sum:?}");
    if seeds >= GARBAGE_SEEDS {
        assert!(sum.deleted > 20 * seeds && sum.restored > 10_000 * seeds && sum.crashes > seeds / 2);
        assert!(sum.unreturned < seeds / 10 && sum.moved > seeds, "{sum:?}");
    }
}

#[test]
fn kept_seeds_of_whole_nodes_keep_every_rule() {
    for (seed, why) in KEPT_NODES {
        println!("seed {seed}: {why}");
        let outcome = go_with::<Member>(*seed);
        assert_eq!(outcome.trace, go_with::<Member>(*seed).trace);
        assert!(outcome.tally.events < KEPT_EVENTS_MAX, "{outcome:?}");
    }
}

#[test]
fn kept_seeds_of_worlds_with_garbage_keep_every_rule() {
    for (seed, why) in KEPT_GARBAGE {
        println!("seed {seed}: {why}");
        go_with_garbage(*seed);
    }
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

#[test]
fn each_node_makes_a_backup_faster_and_costs_the_coordinator_the_same() {
    for rates in [Rates::Even, Rates::Mixed] {
        for nodes in [1, 2, 4, 8, 16] {
            let [small, large] = [1, 10].map(|times| {
                scale::run(nodes, times * SCALE_BLOCKS, rates, false)
                    .unwrap_or_else(|why| panic!("{nodes}: {why}"))
            });
            println!("{rates:?} {large:?}");
            assert!(large.efficiency > LINEAR, "{rates:?} {small:?} {large:?}");
            // What the coordinator holds depends on nodes: two assignments to work on, one that waits for its commit, and its report.
            assert!(large.waits_max <= 4 * nodes, "{large:?}");
            // As many frames for an object, however many objects.
            assert!(large.frames <= 11 * small.frames.max(1), "{small:?} {large:?}");
            assert!(nodes == 1 || large.assignments >= 4 * nodes as u64, "{large:?}");
        }
    }
}

fn find<T: Tenant>(mutation: Mutation) {
    let found = (0..SEEDS_TO_FIND).find_map(|seed| Some((seed, run::<T>(seed, mutation, false).violation?)));
    let (seed, (why, _)) = found.unwrap_or_else(|| panic!("{mutation}: not found in {SEEDS_TO_FIND} seeds"));
    println!("{mutation}: seed {seed}: {why}");
}

// `Mutation::AcceptDone` takes a broken connection, a faster worker and a report in the moment between: rarer than one seed in 2,000.
// `assign_test` in the agent shows it in a few lines.

macro_rules! finds {
    ($($name:ident: $tenant:ident $mutation:ident;)*) => {$(
        #[test]
        fn $name() {
            find::<$tenant>(Mutation::$mutation);
        }
    )*};
}

finds! {
    finds_a_writer_that_does_not_look_for_the_next_epoch: Committer SkipEpochCheck;
    finds_a_replay_that_does_not_list_twice: Committer SkipSecondList;
    finds_a_replay_that_takes_a_lost_slot_for_the_end: Committer SkipLookBeyond;
    finds_a_late_answer_that_renews: Committer RenewOnLateAnswer;
    finds_a_delete_without_a_record: Committer DeleteWithoutRetire;
    finds_a_commit_of_what_is_not_stored: Committer CommitBeforeStored;
    finds_a_412_that_is_taken_for_a_failure: Committer ExistsIsFailure;
    finds_a_slot_that_is_taken_for_ones_own: Committer SkipNonceCheck;
    finds_a_candidate_that_does_not_wait: Committer SkipWait;
    finds_orphans_that_were_none: Committer OrphansWithoutFloor;
    finds_a_store_that_nobody_probed: Committer SkipProbe;
    finds_a_report_of_what_is_not_stored: Member ReportBeforeStored;
    finds_a_report_that_is_accepted_too_early: Member AcceptEarly;
    finds_a_node_that_obeys_an_old_coordinator: Member ObeyOld;
    finds_work_that_is_handed_out_without_a_lease: Member AssignWithoutLease;
    finds_a_point_without_its_minimum_age: Member ForgetGuard;
    finds_a_point_that_leaves_by_the_clock_of_who_asks: Member BelieveAsker;
    finds_a_stop_that_is_forgotten: Member ForgetStop;
    finds_a_role_that_is_not_looked_at: Member ForgetRole;
    finds_objects_that_go_before_their_record: Member GcUnretired;
    finds_a_pin_that_is_ignored: Member GcIgnoresPins;
    finds_a_list_that_is_trusted: Member GcTrustsLists;
    finds_a_clock_that_is_trusted: Member GcTrustsClocks;
    finds_an_order_of_names_that_is_trusted: Member GcTrustsNames;
    finds_objects_that_nobody_looked_at: Member GcBlind;
    finds_moved_blocks_whose_rows_come_too_late: Member GcMovesEarly;
}
