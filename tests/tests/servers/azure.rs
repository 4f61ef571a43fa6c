//! The Azure store against Azurite. Skips loudly where it is missing.
#![allow(clippy::unwrap_used, reason = "tests, and their helpers")]

use std::sync::Arc;

use windlass_agent::store::azure::AzureStore;
use windlass_agent::store::probe::probe;
use windlass_agent::store::{PutMode, Store, StoreFaultKind, Versioning};
use windlass_hal::clock::{Clock, SystemClock};
use windlass_tests::conformance::store::{Extent, WHOLE, run_server};
use windlass_tests::engines::azurite::Azurite;
use windlass_tests::engines::clock::StepClock;
use windlass_tests::engines::skip;

/// What every call of a store with such credentials, or in such a place, says.
fn all_say(store: &AzureStore, kind: StoreFaultKind, words: &str) {
    let large = vec![7; 4 << 20];
    for fault in [
        store.get("a", WHOLE, &mut Vec::new()).unwrap_err(),
        store.put("a", &[b"x"], PutMode::CreateOnly).unwrap_err(),
        store.put("a", &[&large], PutMode::Replace).unwrap_err(),
        store.list("", "", &mut |_, _| true).unwrap_err(),
        store.delete("a").unwrap_err(),
    ] {
        assert_eq!(fault.kind, kind, "{fault}");
        assert!(fault.to_string().contains(words), "{words} in {fault}");
        assert!(!fault.to_string().contains("sig="), "no secret in {fault}");
    }
}

#[test]
fn azurite_conforms() {
    let azurite = match Azurite::start() {
        Ok(azurite) => azurite,
        Err(reason) => return skip("azurite_conforms", &reason),
    };
    azurite.make_container("conform");
    let store: Arc<dyn Store> = Arc::new(azurite.store("conform"));
    run_server(&store, "conf", Extent::default());
    let report = probe(store.as_ref(), &SystemClock, 1).unwrap();
    assert_eq!(report.versioning, Versioning::NotTold);
    assert!(store.time().is_some(), "its answers say what time it is");

    all_say(&azurite.store("no-such"), StoreFaultKind::StoreGone, "ContainerNotFound");
    let wrong = azurite.keys_file("wrong", "azure_storage_key = d3Jvbmc=");
    let clock = || -> Arc<dyn Clock> { Arc::new(SystemClock) };
    all_say(&azurite.store_with("conform", wrong, clock()), StoreFaultKind::Denied, "check the credentials");

    // A clock that is hours off is no reason to refuse: requests are signed with the server's time.
    let skewed: Arc<dyn Clock> = Arc::new(StepClock::default());
    let store = azurite.store_with("conform", azurite.credentials(), skewed);
    store.put("skewed", &[b"x"], PutMode::Replace).unwrap();
    store.delete("skewed").unwrap();
}

#[test]
fn a_shared_access_signature_opens_one_container_until_it_ends() {
    let name = "a_shared_access_signature_opens_one_container_until_it_ends";
    let azurite = match Azurite::start() {
        Ok(azurite) => azurite,
        Err(reason) => return skip(name, &reason),
    };
    azurite.make_container("mine");
    azurite.make_container("others");
    let (long, ended) =
        match (azurite.sas("mine", "2099-01-01T00:00:00Z"), azurite.sas("mine", "2020-01-01T00:00:00Z")) {
            (Ok(long), Ok(ended)) => (long, ended),
            (Err(reason), _) | (_, Err(reason)) => return skip(name, &reason),
        };
    let file = |name: &str, sas: &str| azurite.keys_file(name, &format!("azure_storage_sas_token = ?{sas}"));
    let open = |container: &str, path| azurite.store_with(container, path, Arc::new(SystemClock));
    let extent = Extent { long_list_keys: 50, large_bytes: (2 << 20) + 1, races: 2, ..Extent::default() };
    let store: Arc<dyn Store> = Arc::new(open("mine", file("long", &long)));
    run_server(&store, "conf", extent);
    probe(store.as_ref(), &SystemClock, 1).unwrap();
    all_say(&open("others", file("long", &long)), StoreFaultKind::Denied, "check the credentials");
    let words = "the shared access signature ended at 2020-01-01T00:00:00Z";
    all_say(&open("mine", file("ended", &ended)), StoreFaultKind::Denied, words);
}

#[test]
fn an_archived_blob_is_listed_and_named_when_it_is_read() {
    let name = "an_archived_blob_is_listed_and_named_when_it_is_read";
    let azurite = match Azurite::start() {
        Ok(azurite) => azurite,
        Err(reason) => return skip(name, &reason),
    };
    azurite.make_container("tiers");
    let store = azurite.store("tiers");
    store.put("obj/cold", &[b"cold"], PutMode::CreateOnly).unwrap();
    azurite.set_tier("tiers", "te.st/prefix/obj/cold", "Archive");
    let mut listed = Vec::new();
    store
        .list("obj/", "", &mut |key, size| {
            listed.push((key.to_owned(), size));
            true
        })
        .unwrap();
    assert_eq!(listed, [("obj/cold".to_owned(), 4)]);
    let fault = store.get("obj/cold", WHOLE, &mut Vec::new()).unwrap_err();
    assert_eq!(fault.kind, StoreFaultKind::Rejected, "{fault}");
    assert!(fault.to_string().contains("archive tier: rehydrate it"), "{fault}");
}
