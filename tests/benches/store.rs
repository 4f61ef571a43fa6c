//! What stores cost: PUT of 16 MiB objects into a directory, through and around the page cache, and to an S3 server; and the
//! latency of small calls.
//!
//! ```text
//!  cargo bench -p windlass-tests --bench store                         a directory below WINDLASS_SCRATCH (default: /tmp)
//!  WINDLASS_RGW="http://a http://b" cargo bench ... --bench store      also an S3 server with keys AK / SK
//! ```
//!
//! Expectation: a PUT into a directory is the disk's sequential write rate, and the detour around the cache saves one copy
//! (about 0.1 s per GiB) and the cache. A PUT over loopback http costs SHA-256 and CRC-32 once each (together some 1 GiB/s)
//! and the server.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a bench measures time")]

use std::sync::Arc;
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use windlass_agent::store::dir::DirStore;
use windlass_agent::store::throttle::Throttle;
use windlass_agent::store::{PutMode, Store};
use windlass_hal::buf::Pool;
use windlass_hal::clock::{Clock, SystemClock};
use windlass_tests::conformance::store::WHOLE;
use windlass_tests::engines::ceph::Ceph;
use windlass_tests::engines::scratch::Scratch;

const OBJECT_BYTES: usize = 16 << 20;
const MIB: f64 = 1048576.0;

fn main() {
    let pool = Pool::new(4, OBJECT_BYTES);
    let scratch = Scratch::new("bench");
    println!("{:<44} {:>10}", "what", "result");
    for round in 0..2 {
        for (direct, aligned, name) in [
            (false, true, "dir PUT 16 MiB, page cache"),
            (true, true, "dir PUT 16 MiB, O_DIRECT"),
            (true, false, "dir PUT 16 MiB, O_DIRECT asked, unaligned"),
        ] {
            let throttle = Arc::new(Throttle::new(Arc::new(SystemClock), 0, 0));
            let mut store = DirStore::open(scratch.path(), round, throttle).unwrap();
            store.set_direct(direct);
            for threads in [1, 4] {
                let before = cpu_s();
                let rate = put_rate(&store, &pool, threads, 24, aligned);
                // Filling the buffers is in it, the same for all.
                let cpu = (cpu_s() - before) * 1000.0 / (24.0 * 16.0 / 1024.0);
                let what = format!("{name}, {threads} threads, round {round}");
                println!("{what:<44} {rate:>6.0} MiB/s {cpu:>6.0} ms CPU per GiB");
            }
            let get = get_rate(&store, 24);
            println!("{:<44} {get:>6.0} MiB/s", "dir GET 16 MiB");
        }
        let throttle = Arc::new(Throttle::new(Arc::new(SystemClock), 0, 0));
        latencies("dir", &DirStore::open(scratch.path(), round, throttle).unwrap());
    }
    if std::env::var_os("WINDLASS_RGW").is_none() {
        println!("no WINDLASS_RGW: S3 not measured");
        return;
    }
    let ceph = Ceph::start().unwrap();
    let bucket = format!("bench-{}", SystemClock.wall().secs);
    ceph.a.make_bucket(&bucket, false);
    let store = ceph.a.store(&bucket);
    latencies("s3", &store);
    for threads in [1, 4] {
        let rate = put_rate(&store, &pool, threads, 24, true);
        println!("{:<44} {rate:>6.0} MiB/s", format!("s3 PUT 16 MiB over http, {threads} threads"));
    }
    println!("{:<44} {:>6.0} MiB/s", "s3 GET 16 MiB over http", get_rate(&store, 24));
}

/// User and system time of this process in seconds.
fn cpu_s() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

fn put_rate(store: &dyn Store, pool: &Pool, threads: usize, objects: usize, aligned: bool) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let mut buf = pool.take().unwrap();
                for (n, byte) in buf.iter_mut().enumerate() {
                    *byte = (n * 31 + thread) as u8;
                }
                for n in (thread..objects).step_by(threads) {
                    let body = if aligned { &buf[..] } else { &buf[1..] };
                    store.put(&format!("obj/bench/{n:04}"), &[body], PutMode::Replace).unwrap();
                }
            });
        }
    });
    (objects * OBJECT_BYTES) as f64 / MIB / start.elapsed().as_secs_f64()
}

fn get_rate(store: &dyn Store, objects: usize) -> f64 {
    let start = Instant::now();
    let mut out = Vec::new();
    for n in 0..objects {
        out.clear();
        store.get(&format!("obj/bench/{n:04}"), WHOLE, &mut out).unwrap();
    }
    (objects * OBJECT_BYTES) as f64 / MIB / start.elapsed().as_secs_f64()
}

fn latencies(name: &str, store: &dyn Store) {
    let body = [1u8; 4096];
    let timed = |what: &str, call: &dyn Fn(usize)| {
        let mut times: Vec<u128> = (0..100)
            .map(|n| {
                let start = Instant::now();
                call(n);
                start.elapsed().as_micros()
            })
            .collect();
        times.sort_unstable();
        println!(
            "{:<44} {:>7} us median, {:>7} us p90",
            format!("{name} {what}, 4 KiB"),
            times[50],
            times[90]
        );
    };
    timed("create", &|n| store.put(&format!("log/{n:020}"), &[&body], PutMode::CreateOnly).unwrap());
    timed("GET", &|n| {
        store.get(&format!("log/{n:020}"), WHOLE, &mut Vec::new()).unwrap();
    });
    timed("DELETE", &|n| store.delete(&format!("log/{n:020}")).unwrap());
}
