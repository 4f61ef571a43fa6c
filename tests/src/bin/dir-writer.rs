//! Another process that writes into a directory store, for the tests of that.
//!
//! ```text
//! dir-writer DIR race N     tries to create race/0..N in DIR/repo, and writes how many it won to DIR/wins-PID
//! dir-writer DIR die        writes until it is killed: objects of its own, which say how long they are, and one that is replaced
//! ```
//! Begins when DIR/go is there. Any failure ends it with a panic, which is what its tests look at. Source: ours.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper of tests")]

use std::fs;
use std::os::unix::process::parent_id;
use std::path::Path;
use std::sync::Arc;

use windlass_agent::store::dir::DirStore;
use windlass_agent::store::throttle::Throttle;
use windlass_agent::store::{PutMode, Store, StoreFaultKind};
use windlass_hal::clock::SystemClock;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let [dir, role @ ..] = &args[..] else { panic!("dir-writer DIR race N|die") };
    let dir = Path::new(dir);
    let throttle = Throttle::new(Arc::new(SystemClock), 0, 0);
    let store = DirStore::open(&dir.join("repo"), u64::from(std::process::id()), Arc::new(throttle)).unwrap();
    while !dir.join("go").exists() {
        std::thread::yield_now();
    }
    match role {
        ["race", count] => race(&store, dir, count.parse().unwrap()),
        ["die"] => write(&store),
        _ => panic!("no role {role:?}"),
    }
}

fn race(store: &dyn Store, dir: &Path, count: u32) {
    let body = std::process::id().to_string();
    let won = |n: &u32| match store.put(&format!("race/{n}"), &[body.as_bytes()], PutMode::CreateOnly) {
        Ok(()) => true,
        Err(fault) if fault.kind == StoreFaultKind::Exists => false,
        Err(fault) => panic!("{fault}"),
    };
    let wins = (0..count).filter(won).count();
    fs::write(dir.join(format!("wins-{body}")), wins.to_string()).unwrap();
}

fn write(store: &dyn Store) {
    // Ends by itself when the test is gone.
    let parent = parent_id();
    for n in 0..100_000 {
        assert_eq!(parent_id(), parent);
        let (key, mode) = match n % 2 {
            0 => (format!("obj/{}/{n}", std::process::id()), PutMode::CreateOnly),
            _ => ("beat/1".to_owned(), PutMode::Replace),
        };
        store.put(&key, &[&telling_body(n)], mode).unwrap();
    }
}

/// A body that says how long it is and what each byte must be: 8 bytes of length, then a run of one byte.
fn telling_body(n: u32) -> Vec<u8> {
    let len = 8 + (n as usize * 7919) % 3_000_000;
    let mut body = vec![n as u8; len];
    body[..8].copy_from_slice(&(len as u64).to_le_bytes());
    body
}
