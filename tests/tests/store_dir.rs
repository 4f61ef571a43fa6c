//! The directory store: conformance, races between processes, death in the middle of a PUT, a full disk.

use std::sync::Arc;

use windlass_agent::store::Store;
use windlass_agent::store::clock::HostClock;
use windlass_agent::store::dir::DirStore;
use windlass_agent::store::throttle::Throttle;
use windlass_tests::conformance::store::{Extent, run};
use windlass_tests::engines::scratch::Scratch;

fn throttle() -> Arc<Throttle> {
    Arc::new(Throttle::new(Arc::new(HostClock::new()), 0, 0))
}

#[test]
fn a_directory_conforms() {
    let scratch = Scratch::new("dir-conform");
    let store: Arc<dyn Store> = Arc::new(DirStore::open(scratch.path(), 1, throttle()).unwrap());
    run(&store, "conf", Extent::default());
}
