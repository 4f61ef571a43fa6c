//! Scale out in simulated time: one backup of one image, by 1 to 64 nodes.
//!
//!     cargo run --release -p windlass-tests --bin scale -- [--nodes N]... [--blocks N]... [--mixed] [--segments]
//!
//! Without `--nodes`: 1, 2, 4, 8, 16, 32 and 64. Without `--blocks`: 10^8. `--mixed`: uplinks from half to one and a half times the rate.
//! `--segments`: nothing is merged, so the log's table of contents grows with the segments.
//!
//! | column | what |
//! |---|---|
//! | seconds | simulated, from the command to the recovery point |
//! | linear | what the uplinks need for the blocks alone, over that |
//! | shares | assignments |
//! | frames, KiB/s | to the coordinator and from it |
//! | slots, calls | of the log: commits, and requests to the store of all nodes |
//! | waits | assignments and reports that the coordinator holds, at most |
//! | heap | memory of the whole simulated cluster at most, in MiB: coordinator, followers, and the log in the store |
//!
//! Exit codes: 0 all ended, 1 one did not, 2 usage.

use std::process::ExitCode;

use windlass_hal::clock::{Clock, SystemClock};
use windlass_tests::sim::scale::{Rates, run};

#[global_allocator]
static MEMORY: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

const NODES: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];
const BLOCKS: u64 = 100_000_000;
/// Nodes at most: what a status and a cluster are made for, and some more.
const NODES_MAX: u64 = 256;

struct Args {
    nodes: Vec<u64>,
    blocks: Vec<u64>,
    rates: Rates,
    segments: bool,
}

fn parse() -> Option<Args> {
    let mut args = Args { nodes: Vec::new(), blocks: Vec::new(), rates: Rates::Even, segments: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--nodes" => args.nodes.push(words.next()?.parse().ok().filter(|n| (1..=NODES_MAX).contains(n))?),
            "--blocks" => args.blocks.push(words.next()?.parse().ok().filter(|&n| n > 0)?),
            "--mixed" => args.rates = Rates::Mixed,
            "--segments" => args.segments = true,
            _ => return None,
        }
    }
    if args.nodes.is_empty() {
        args.nodes = NODES.to_vec();
    }
    if args.blocks.is_empty() {
        args.blocks = vec![BLOCKS];
    }
    Some(args)
}

fn main() -> ExitCode {
    let Some(args) = parse() else {
        eprintln!("usage: scale [--nodes N]... [--blocks N]... [--mixed] [--segments]");
        return ExitCode::from(2);
    };
    println!(
        "nodes     blocks  seconds linear shares objects   frames  KiB/s   slots    calls waits  heap | took s"
    );
    for &blocks in &args.blocks {
        for &nodes in &args.nodes {
            let started = SystemClock.now().as_ns();
            MEMORY.reset_peak_usage();
            match run(nodes as usize, blocks, args.rates, args.segments) {
                Ok(row) => println!(
                    "{:5} {:10} {:8.0} {:6.3} {:6} {:7} {:8} {:6.1} {:7} {:8} {:5} {:5.1} | {:.1}",
                    row.nodes,
                    row.blocks,
                    row.seconds,
                    row.efficiency,
                    row.assignments,
                    row.objects,
                    row.frames,
                    row.frame_bytes as f64 / 1024.0 / row.seconds,
                    row.slots,
                    row.log_calls,
                    row.waits_max,
                    MEMORY.peak_usage_as_mb(),
                    (SystemClock.now().as_ns() - started) as f64 / 1e9,
                ),
                Err(why) => {
                    println!("{nodes:5} {blocks:10} {why}");
                    return ExitCode::from(1);
                }
            }
        }
    }
    ExitCode::SUCCESS
}
