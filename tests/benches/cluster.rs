//! One backup over 1, 2 and 4 agents, each behind an uplink of its own: how it scales, and what the coordinator costs.
//!
//! ```text
//!  cargo bench -p windlass-tests --bench cluster                     3072 MiB at 64 MiB/s a node: two minutes
//!  cargo bench -p windlass-tests --bench cluster -- 12288 64 4       size in MiB, rate in MiB/s, nodes
//! ```
//!
//! The volume is a plain image of random bytes that all nodes read, so the limit counts every byte; the repository is a directory,
//! both below the target directory. The lease has the times that a profile has when it says nothing. Time is that of the point: from
//! the commit of its begin to the commit of its end. Control is the thread that runs coordinator, backplane and worker role, and
//! those that ask the store for the log; everything else of the processes is the data path. The coordinator's part is what control takes on
//! the node that held the lease: for one commit a second at most, so that it shrinks as backups grow.
//!
//! What to expect: bytes / (nodes * rate), and at the end some tenths of a second until the slowest share is in the log. A machine
//! whose disk and cores do not carry nodes * rate measures itself. Source: ours.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench")]

use std::fs;
use std::path::Path;

use nix::unistd::{SysconfVar, sysconf};
use windlass_agent::log::lease::Timing;
use windlass_tests::cluster::{Cluster, Place, Setup};
use windlass_tests::workdir::Workdir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_windlass-under-test");
const MIB_DEFAULT: u64 = 3072;
const RATE_DEFAULT: u32 = 64;
/// Least part of linear speed.
const EFFICIENCY: f64 = 0.9;
/// Largest part of the data path's processor time that the coordinator takes.
const CONTROL: f64 = 0.01;

/// Processor time in seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Cpu {
    control: f64,
    data: f64,
}

/// What a run showed.
struct Run {
    nodes: u32,
    seconds: f64,
    objects: u64,
    slots: usize,
    shares: usize,
    coordinator: Cpu,
    all: Cpu,
    calls: u64,
}

fn main() {
    // cargo passes --bench.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |at: usize| arguments.get(at).map(|text| text.parse::<u32>().unwrap());
    let mib = number(0).map_or(MIB_DEFAULT, u64::from);
    let rate = number(1).unwrap_or(RATE_DEFAULT);
    let nodes = arguments.get(2).map_or("1,2,4", String::as_str);
    let nodes: Vec<u32> = nodes.split(',').map(|text| text.parse().unwrap()).collect();
    println!("{mib} MiB, {rate} MiB/s a node\n");
    println!(
        "| nodes | s | MiB/s | of linear | shares | objects | slots | data CPU s | control CPU s | coordinator's | of data | its calls |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    let mut is_met = true;
    let mut alone: Option<f64> = None;
    for nodes in nodes {
        let run = run(nodes, mib, rate);
        // One node's time tells what one uplink gives; without it, the limit does.
        let alone = *alone.get_or_insert(if nodes == 1 { run.seconds } else { mib as f64 / f64::from(rate) });
        let efficiency = alone / run.seconds / f64::from(run.nodes);
        let control = run.coordinator.control / run.all.data;
        println!(
            "| {} | {:.1} | {:.1} | {efficiency:.3} | {} | {} | {} | {:.2} | {:.3} | {:.3} | {:.2} % | {} |",
            run.nodes,
            run.seconds,
            mib as f64 / run.seconds,
            run.shares,
            run.objects,
            run.slots,
            run.all.data,
            run.all.control,
            run.coordinator.control,
            control * 100.0,
            run.calls,
        );
        is_met &= efficiency >= EFFICIENCY && control <= CONTROL;
    }
    println!(
        "\nat least {EFFICIENCY} of linear, the coordinator at most {} % of the data path: {}",
        CONTROL * 100.0,
        if is_met { "met" } else { "NOT MET" }
    );
}

fn run(nodes: u32, mib: u64, rate: u32) -> Run {
    let target = Path::new(PROGRAM).parent().and_then(Path::parent).unwrap();
    let work = Workdir::below(target, "bench-cluster").unwrap();
    let timing = Timing::default();
    let ms = |ns: u64| u32::try_from(ns / 1_000_000).unwrap();
    let setup = Setup {
        nodes,
        upload_kib_s: rate << 10,
        image_bytes: mib << 20,
        lease_ms: (ms(timing.lease_ns), ms(timing.beat_ns)),
        scratch: Some(work.path().to_owned()),
        ..Setup::new(Place::directory(&work.join("repository")))
    };
    let mut cluster = Cluster::make(PROGRAM, setup, None);
    cluster.start();
    let cpu = |cluster: &Cluster| -> Vec<Cpu> {
        cluster.nodes().map(|node| spent(cluster.process(node))).collect()
    };
    let before = cpu(&cluster);
    let backup = cluster.begin(1);
    let point = cluster.point(backup);
    let after = cpu(&cluster);
    let spent: Vec<Cpu> = before
        .iter()
        .zip(&after)
        .map(|(before, after)| Cpu {
            control: after.control - before.control,
            data: after.data - before.data,
        })
        .collect();
    let log = cluster.log();
    let coordinator = log.iter().rfind(|entry| entry.is_work).unwrap().node;
    for node in cluster.nodes() {
        cluster.stop(node);
    }
    if std::env::var_os("TRACE").is_some() {
        println!("{}", cluster.told(2));
    }
    let told = |node: u32| cluster.told(node);
    let calls = told(coordinator).lines().find_map(|line| line.split_once("log: calls=")?.1.parse().ok());
    Run {
        nodes,
        seconds: (point.wall_ns.1 - point.wall_ns.0) as f64 / 1e9,
        objects: point.totals.objects,
        slots: log.len(),
        shares: cluster.nodes().map(|node| told(node).matches("job: begins").count()).sum(),
        coordinator: spent[coordinator as usize - 1],
        all: spent.iter().fold(Cpu::default(), |sum, one| Cpu {
            control: sum.control + one.control,
            data: sum.data + one.data,
        }),
        calls: calls.unwrap(),
    }
}

/// What a process has spent. Its control threads live as long as it does; threads of the data path come and go.
fn spent(process: u32) -> Cpu {
    let tick = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap() as f64;
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // Fields 14 and 15, user and system time, counted behind the name.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let all = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / tick;
    let mut control = 0.0;
    for thread in fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        let thread = thread.unwrap().path();
        let name = fs::read_to_string(thread.join("comm")).unwrap_or_default();
        if name.starts_with("log-") || thread.ends_with(process.to_string()) {
            // The first number: nanoseconds on a processor.
            let ran = fs::read_to_string(thread.join("schedstat")).unwrap();
            control += ran.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9;
        }
    }
    Cpu { control, data: all - control }
}
