//! Repositories in Azure Blob and Google Cloud Storage, as a user has them: init, backup, restore, check, garbage. Against emulators; skips
//! loudly where one is missing.
#![allow(clippy::unwrap_used, reason = "tests, and their helpers")]

use std::fs;

use windlass_tests::cli::Cli;
use windlass_tests::engines::azurite::{ACCOUNT, Azurite, KEY};
use windlass_tests::engines::gcs::Gcs;
use windlass_tests::engines::scratch::Scratch;
use windlass_tests::engines::skip;
use windlass_tests::fixture::noise;

const IMAGE_BYTES: usize = 3 << 20;

fn cli(scratch: &Scratch) -> Cli {
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test"));
    cli.with("WINDLASS_KEY_FILE", &scratch.path().join("key").display().to_string())
}

/// The main job from an empty place on.
fn there_and_back(cli: &Cli, scratch: &Scratch) {
    let (image, restored) = (scratch.path().join("image"), scratch.path().join("restored"));
    let mut bytes = noise(1, IMAGE_BYTES);
    bytes[1 << 20..2 << 20].fill(0);
    fs::write(&image, &bytes).unwrap();
    let probed = cli.json(&["repo", "probe"]);
    assert_eq!((&probed["ok"], &probed["ways"]), (&true.into(), &1.into()), "{probed}");
    cli.ok(&["repo", "init"]);
    let again = cli.run(&["repo", "init"]);
    assert!(again.code == 1 && again.stderr.contains("there is a repository already"), "{}", again.stderr);
    cli.ok(&["policy", "set", "p", "--volume", &format!("{}=image", image.display())]);
    cli.ok(&["backup", "p"]);
    bytes[..64 << 10].fill(9);
    fs::write(&image, &bytes).unwrap();
    cli.ok(&["backup", "p"]);
    cli.ok(&["check", "p@2", "--read-data"]);
    cli.ok(&["restore", "p@2", "--to-device", &restored.display().to_string()]);
    assert!(fs::read(&restored).unwrap() == bytes);
    cli.ok(&["point", "expire", "p@1"]);
    let dry = cli.json(&["gc", "--dry-run"]);
    assert!(dry["dying_objects"].as_u64().is_some(), "{dry}");
    cli.ok(&["gc"]);
    cli.ok(&["check", "p@2", "--read-data"]);
}

#[test]
fn azure_there_and_back() {
    let azurite = match Azurite::start() {
        Ok(azurite) => azurite,
        Err(reason) => return skip("azure_there_and_back", &reason),
    };
    azurite.make_container("rack7");
    let scratch = Scratch::new("e2e-azure");
    let cli = cli(&scratch)
        .with("WINDLASS_REPO", &format!("az://{ACCOUNT}/rack7/windlass"))
        .with("WINDLASS_ENDPOINT", &azurite.endpoint)
        .with("AZURE_STORAGE_KEY", KEY);
    there_and_back(&cli, &scratch);
    // A key that is none of the account's is named, and not shown.
    let wrong = cli.with("AZURE_STORAGE_KEY", "d3Jvbmc=").run(&["points", "p"]);
    assert!(wrong.code == 1 && wrong.stderr.contains("check the credentials"), "{}", wrong.stderr);
    assert!(!wrong.stderr.contains("d3Jvbmc"), "{}", wrong.stderr);
}

#[test]
fn google_there_and_back_and_an_emulator_that_ignores_conditions_is_refused() {
    let name = "google_there_and_back_and_an_emulator_that_ignores_conditions_is_refused";
    let gcs = match Gcs::start() {
        Ok(gcs) => gcs,
        Err(reason) => return skip(name, &reason),
    };
    gcs.make_bucket("rack7");
    let scratch = Scratch::new("e2e-gcs");
    let place = |gcs: &Gcs| {
        cli(&scratch).with("WINDLASS_REPO", "gs://rack7/windlass").with("WINDLASS_ENDPOINT", &gcs.endpoint)
    };
    there_and_back(&place(&gcs), &scratch);
    let careless = match Gcs::start_careless() {
        Ok(careless) => careless,
        Err(reason) => return skip(name, &reason),
    };
    careless.make_bucket("rack7");
    let refused = place(&careless).run(&["repo", "init"]);
    assert!(
        refused.code == 1 && refused.stderr.contains("concurrent creates of one key have one winner"),
        "{}",
        refused.stderr
    );
}
