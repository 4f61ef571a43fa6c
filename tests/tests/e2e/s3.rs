//! An ext4 image to a real Ceph gateway and back. Skips loudly where Ceph is missing.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use windlass_agent::store::Store;
use windlass_hal::clock::{Clock, SystemClock};
use windlass_tests::appliance::{Appliance, Setup, Source, expect_clean, expect_equal, image_of, plant};
use windlass_tests::engines::ceph::Ceph;
use windlass_tests::engines::skip;
use windlass_tests::workdir::Workdir;

#[test]
fn to_ceph_and_back() {
    let ceph = match Ceph::start() {
        Ok(ceph) => ceph,
        Err(reason) => return skip("to_ceph_and_back", &reason),
    };
    let bucket = format!("e2e-{}", SystemClock.wall().secs);
    ceph.a.make_bucket(&bucket, false);
    let store: Arc<dyn Store> = Arc::new(ceph.a.store(&bucket));
    let work = Workdir::new("e2e-s3").unwrap();
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    plant(&tree, 1, 4).unwrap();
    image_of(&tree, &image, 64 << 20).unwrap();
    let source = Source::file_system(&image);
    let timing = windlass_agent::log::lease::Timing::default();
    let setup = Setup { timing, ..Setup::default() };
    let appliance = Appliance::make(store, setup).unwrap();
    appliance.backup(&source).unwrap();
    let again = appliance.backup(&source).unwrap();
    assert_eq!(again.totals.items_same, again.totals.items);
    // Out of the other gateway.
    let other = Appliance::open(Arc::new(ceph.b.store(&bucket)), setup).unwrap();
    let restored = work.join("restored");
    expect_clean(&other.restore(&source, None, &restored).unwrap()).unwrap();
    expect_equal(&tree, &restored).unwrap();
}
