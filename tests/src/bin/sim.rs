//! The simulator as a program: runs seeds, stops at the first that breaks a rule, and says how to see it again.
//!
//!     cargo run --release -p windlass-tests --bin sim -- --seeds 0..100000 [--jobs N] [--mutation NAME] [--of log]
//!     cargo run --release -p windlass-tests --bin sim -- --seed 42 --trace
//!
//! `--of log` runs clusters that consist of log writers only, instead of whole nodes; `--of garbage` whole nodes in worlds where points expire,
//! pins come and go, and garbage runs are wanted.
//!
//! Exit codes: 0 no rule was broken, 1 one was, 2 usage.

use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use windlass_hal::clock::{Clock, SystemClock};
use windlass_tests::sim::committer::Committer;
use windlass_tests::sim::member::Member;
use windlass_tests::sim::options::{Mutation, Options};
use windlass_tests::sim::world::{Outcome, Tally, run_with};

/// Threads at most: more only wait for each other.
const JOBS_MAX: u64 = 256;
/// Between two lines of progress, in nanoseconds.
const REPORT_NS: u64 = 10_000_000_000;

struct Args {
    seeds: Range<u64>,
    trace: bool,
    mutation: Mutation,
    jobs: u64,
    log: bool,
    garbage: bool,
}

fn usage() -> String {
    let mut text =
        "usage: sim --seed N | --seeds N..M [--trace] [--jobs N] [--mutation NAME] [--of node|log|garbage]\nmutations:\n".to_owned();
    for mutation in Mutation::ALL {
        let (name, what) = mutation.text();
        text.push_str(&format!("  {name:24} {what}\n"));
    }
    text
}

fn parse() -> Result<Args, String> {
    let jobs = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64).min(JOBS_MAX);
    let mut args =
        Args { seeds: 0..0, trace: false, mutation: Mutation::None, jobs, log: false, garbage: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(usage);
        let number = |text: &str| text.parse::<u64>().map_err(|_| usage());
        match word.as_str() {
            "--trace" => args.trace = true,
            "--seed" => {
                let seed = number(&value()?)?;
                args.seeds = seed..seed.saturating_add(1);
            }
            "--seeds" => {
                let text = value()?;
                let (from, to) = text.split_once("..").ok_or_else(usage)?;
                args.seeds = number(from)?..number(to)?;
            }
            "--jobs" => args.jobs = number(&value()?)?.clamp(1, JOBS_MAX),
            "--of" => {
                let of = value()?;
                (args.log, args.garbage) = (of == "log", of == "garbage");
            }
            "--mutation" => args.mutation = value()?.parse()?,
            _ => return Err(usage()),
        }
    }
    if args.seeds.is_empty() { Err(usage()) } else { Ok(args) }
}

/// Runs the seeds of one thread until `next` reaches `stop`, which the first violation lowers.
fn work(args: &Args, next: &AtomicU64, stop: &AtomicU64) -> (Tally, Option<(u64, Outcome)>) {
    let clock = SystemClock;
    let (mut tally, mut found) = (Tally::default(), None);
    let started = clock.now().as_ns();
    let mut told = started;
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= stop.load(Ordering::Relaxed) {
            return (tally, found);
        }
        let mut options = Options::draw(seed, args.mutation);
        options.garbage |= args.garbage;
        let run = if args.log { run_with::<Committer> } else { run_with::<Member> };
        let outcome = run(options, args.trace);
        tally.add(&outcome.tally);
        if args.trace {
            println!("seed {seed}: trace {:016x}", outcome.trace);
        }
        if outcome.violation.is_some() {
            stop.fetch_min(seed, Ordering::Relaxed);
            found = Some((seed, outcome));
            return (tally, found);
        }
        let now = clock.now().as_ns();
        if now.saturating_sub(told) > REPORT_NS {
            told = now;
            let done = seed - args.seeds.start;
            println!("{done} seeds, {} per second", done * 1_000_000_000 / (now - started).max(1));
        }
    }
}

fn main() -> ExitCode {
    let args = match parse() {
        Ok(args) => args,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    let started = SystemClock.now().as_ns();
    let (next, stop) = (AtomicU64::new(args.seeds.start), AtomicU64::new(args.seeds.end));
    let mut results = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..args.jobs).map(|_| scope.spawn(|| work(&args, &next, &stop))).collect();
        results.extend(threads.into_iter().filter_map(|thread| thread.join().ok()));
    });
    let died = results.len() < args.jobs as usize;
    let mut tally = Tally::default();
    results.iter().for_each(|(part, _)| tally.add(part));
    let first = results.into_iter().filter_map(|(_, found)| found).min_by_key(|(seed, _)| *seed);
    let seconds = (SystemClock.now().as_ns() - started) as f64 / 1e9;
    let last = first.as_ref().map_or(args.seeds.end, |(seed, _)| seed + 1);
    let count = last - args.seeds.start;
    println!(
        "{count} seeds in {seconds:.1} s, {:.0} per second, {} events per second\n{tally:?}",
        count as f64 / seconds,
        (tally.events as f64 / seconds) as u64
    );
    match first {
        None if died => ExitCode::from(1),
        None => ExitCode::SUCCESS,
        Some((seed, outcome)) => {
            let (why, at_ms) = outcome.violation.unwrap_or_default();
            println!("seed {seed}: {why} (at {at_ms} ms, trace {:016x})", outcome.trace);
            let of = match (args.log, args.garbage) {
                (true, _) => " --of log",
                (_, true) => " --of garbage",
                _ => "",
            };
            println!("to see it: sim --seed {seed} --trace --mutation {}{of}", args.mutation);
            ExitCode::from(1)
        }
    }
}
