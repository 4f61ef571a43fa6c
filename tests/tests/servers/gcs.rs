//! The Google store against emulators. Skips loudly where one is missing.
#![allow(clippy::unwrap_used, reason = "tests, and their helpers")]

use std::sync::Arc;

use windlass_agent::store::probe::{Check, Wrong, probe};
use windlass_agent::store::{PutMode, Store, StoreFaultKind, Versioning};
use windlass_hal::clock::SystemClock;
use windlass_tests::conformance::store::{Extent, WHOLE, run_server};
use windlass_tests::engines::gcs::Gcs;
use windlass_tests::engines::skip;

#[test]
fn fake_gcs_conforms() {
    let gcs = match Gcs::start() {
        Ok(gcs) => gcs,
        Err(reason) => return skip("fake_gcs_conforms", &reason),
    };
    gcs.make_bucket("conform");
    let store: Arc<dyn Store> = Arc::new(gcs.store("conform"));
    run_server(&store, "conf", Extent::default());
    let report = probe(store.as_ref(), &SystemClock, 1).unwrap();
    assert_eq!(report.versioning, Versioning::Off);
    assert!(store.time().is_some(), "its answers say what time it is");

    let gone = gcs.store("no-such-bucket");
    for fault in [
        gone.get("a", WHOLE, &mut Vec::new()).unwrap_err(),
        gone.put("a", &[b"x"], PutMode::CreateOnly).unwrap_err(),
        gone.put("a", &[b"x"], PutMode::Replace).unwrap_err(),
        gone.list("", "", &mut |_, _| true).unwrap_err(),
        gone.delete("a").unwrap_err(),
    ] {
        assert_eq!(fault.kind, StoreFaultKind::StoreGone, "{fault}");
    }
}

#[test]
fn an_emulator_that_ignores_conditions_is_refused() {
    let name = "an_emulator_that_ignores_conditions_is_refused";
    let gcs = match Gcs::start_careless() {
        Ok(gcs) => gcs,
        Err(reason) => return skip(name, &reason),
    };
    gcs.make_bucket("careless");
    let store = gcs.store("careless");
    let fault = probe(&store, &SystemClock, 1).unwrap_err();
    assert_eq!(fault.check, Check::Race, "{fault}");
    assert!(matches!(fault.wrong, Wrong::Winners(n) if n > 1), "{fault}");
    assert!(fault.is_about_conditions(), "{fault}");
}
