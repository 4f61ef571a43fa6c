//! The S3 store against real servers: moto (Python) and Ceph's object gateway. Skips loudly where one is missing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests, and their helpers")]

use std::sync::Arc;

use windlass_agent::store::probe::{Check, Wrong, probe};
use windlass_agent::store::s3::S3Settings;
use windlass_agent::store::uplink::UplinkSettings;
use windlass_agent::store::{PutMode, Store, StoreFaultKind, Versioning};
use windlass_hal::clock::{Clock, SystemClock};
use windlass_tests::conformance::store::{Extent, WHOLE, run_server};
use windlass_tests::engines::ceph::Ceph;
use windlass_tests::engines::moto::Moto;
use windlass_tests::engines::s3::S3Engine;
use windlass_tests::engines::skip;

/// What every server must answer besides the suite: wrong keys, a missing bucket, a clock that is off.
fn refusals(engine: &S3Engine, checks_signatures: bool) {
    let mut out = Vec::new();
    let gone = engine.store("no-such-bucket");
    let fault = gone.get("a", WHOLE, &mut out).unwrap_err();
    assert_eq!(fault.kind, StoreFaultKind::StoreGone, "{fault}");
    let fault = gone.put("a", &[b"x"], PutMode::CreateOnly).unwrap_err();
    assert_eq!(fault.kind, StoreFaultKind::StoreGone, "{fault}");
    let fault = gone.list("", "", &mut |_, _| true).unwrap_err();
    assert_eq!(fault.kind, StoreFaultKind::StoreGone, "{fault}");
    if checks_signatures {
        let wrong = S3Settings {
            credentials: windlass_agent::store::s3::keys::CredentialSource::File {
                path: engine.keys_file("wrong"),
                profile: "default".into(),
            },
            ..engine.settings()
        };
        let store = engine.store_with("refusals", wrong);
        let large = vec![7; 4 << 20];
        for fault in [
            store.get("a", WHOLE, &mut out).unwrap_err(),
            store.put("a", &[b"x"], PutMode::Replace).unwrap_err(),
            store.put("a", &[&large], PutMode::Replace).unwrap_err(),
            store.list("", "", &mut |_, _| true).unwrap_err(),
            store.delete("a").unwrap_err(),
        ] {
            assert_eq!(fault.kind, StoreFaultKind::Denied, "{fault}");
            assert!(!fault.to_string().contains("wrong"), "no secret in {fault}");
        }
    }
}

#[test]
fn moto_conforms() {
    let moto = match Moto::start() {
        Ok(moto) => moto,
        Err(reason) => return skip("moto_conforms", &reason),
    };
    moto.s3.make_bucket("conform", false);
    let store: Arc<dyn Store> = Arc::new(moto.s3.store("conform"));
    // moto looks and then writes, without a lock: on a loaded machine two of eight racing creates were seen to win. So it is
    // not raced here, and its probe may rightly refuse.
    let extent =
        Extent { long_list_keys: 1100, large_bytes: (5 << 20) + 4097, races: 0, ..Extent::default() };
    run_server(&store, "conf", extent);
    match probe(store.as_ref(), &SystemClock, 1) {
        Ok(report) => assert_eq!(report.versioning, Versioning::Off),
        Err(fault) => {
            assert!(fault.check == Check::Race && matches!(fault.wrong, Wrong::Winners(_)), "{fault}");
        }
    }
    refusals(&moto.s3, false);
}

#[test]
fn ceph_conforms() {
    let ceph = match Ceph::start() {
        Ok(ceph) => ceph,
        Err(reason) => return skip("ceph_conforms", &reason),
    };
    let clock = SystemClock;
    let bucket = format!("conform-{}", clock.wall().secs);
    ceph.a.make_bucket(&bucket, false);
    let store: Arc<dyn Store> = Arc::new(ceph.a.store(&bucket));
    run_server(&store, "conf", Extent::default());
    let report = probe(store.as_ref(), &clock, 2).unwrap();
    assert_eq!(report.versioning, Versioning::Off);
    println!("probe on Ceph RGW: {report:?}");

    // What one gateway wrote, the other sees.
    let other = ceph.b.store(&bucket);
    store.put("a", &[b"across"], PutMode::CreateOnly).unwrap();
    let mut out = Vec::new();
    other.get("a", WHOLE, &mut out).unwrap();
    assert_eq!(out, b"across");
    assert_eq!(other.put("a", &[b"x"], PutMode::CreateOnly).unwrap_err().kind, StoreFaultKind::Exists);
    store.delete("a").unwrap();

    // A versioned bucket: this server ignores conditions there (release 16), and then the probe must refuse.
    let versioned = format!("{bucket}-v");
    ceph.a.make_bucket(&versioned, true);
    match probe(&ceph.a.store(&versioned), &clock, 3) {
        Ok(report) => assert_eq!(report.versioning, Versioning::On),
        Err(fault) => {
            assert_eq!((fault.check, fault.versioning), (Check::Race, Versioning::On), "{fault}");
            assert!(matches!(fault.wrong, Wrong::Winners(n) if n > 1), "{fault}");
            assert!(fault.to_string().contains("without versioning"), "{fault}");
        }
    }

    refusals(&ceph.a, true);
    let skewed: Arc<dyn Clock> = Arc::new(windlass_tests::engines::clock::StepClock::default());
    // A clock that is hours off is no reason to refuse: requests are signed with the server's time.
    ceph.a.store_at(&bucket, skewed).put("a", &[b"x"], PutMode::Replace).unwrap();
}

fn certificate_file(moto: &Moto) -> std::path::PathBuf {
    moto.certificates.as_ref().unwrap().path().join("ca.pem")
}

#[test]
fn tls_is_verified_and_works_with_a_ca_file() {
    let name = "tls_is_verified_and_works_with_a_ca_file";
    let moto = match Moto::start_tls() {
        Ok(moto) => moto,
        Err(reason) => return skip(name, &reason),
    };
    if let Err(reason) = moto.make_bucket_tls("conform") {
        return skip(name, &reason);
    }
    let ca_file = certificate_file(&moto);
    let settings = |ca_file| S3Settings { ca_file, ..moto.s3.settings() };
    let store: Arc<dyn Store> = Arc::new(moto.s3.store_with("conform", settings(Some(ca_file))));
    let extent = Extent { long_list_keys: 50, large_bytes: (2 << 20) + 1, races: 0, ..Extent::default() };
    run_server(&store, "conf", extent);
    // A handshake, a PUT and a GET get by with a quarter of an uplink thread's stack.
    let stack_bytes = UplinkSettings::default().stack_bytes / 4;
    let fresh = moto.s3.store_with("conform", settings(Some(certificate_file(&moto))));
    let thread = std::thread::Builder::new().stack_size(stack_bytes).spawn(move || {
        fresh.put("a", &[&vec![1; 2 << 20]], PutMode::Replace).unwrap();
        fresh.get("a", WHOLE, &mut Vec::new()).unwrap();
        fresh.list("", "", &mut |_, _| true).unwrap();
        fresh.delete("a").unwrap();
    });
    thread.unwrap().join().unwrap();
    // The system's authorities do not know this CA; nothing is sent, and repeating would not help.
    if std::path::Path::new(windlass_agent::store::s3::CA_BUNDLES[0]).exists() {
        let stranger = moto.s3.store_with("conform", settings(None));
        let fault = stranger.get("a", WHOLE, &mut Vec::new()).unwrap_err();
        assert_eq!(fault.kind, StoreFaultKind::Rejected, "{fault}");
        assert!(fault.detail.contains("certificate"), "{fault}");
    }
}
