//! The memory budget, held against what the kernel says of the program.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use windlass_tests::appliance::{image_of, plant};
use windlass_tests::cli::Cli;
use windlass_tests::workdir::Workdir;

/// A tree of a few hundred files as an ext4 image of `bytes`.
fn small_tree(work: &Workdir, bytes: u64) -> PathBuf {
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    plant(&tree, 7, 8).unwrap();
    image_of(&tree, &image, bytes).unwrap();
    image
}

/// A repository with the policy `p` of `image`.
fn repository(work: &Workdir, image: &Path) -> Cli {
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(work.path());
    cli.ok(&["repo", "init"]);
    cli.ok(&["policy", "set", "p", "--volume", image.to_str().unwrap()]);
    cli
}

#[test]
fn a_budget_is_a_bound_and_not_what_is_taken() {
    let work = Workdir::new("memory-bound").unwrap();
    let image = small_tree(&work, 64 << 20);
    let cli = repository(&work, &image);
    let done = cli.json(&["backup", "p", "--memory", "1GiB"]);
    let peak = done["peak_memory_bytes"].as_u64().unwrap();
    assert!(peak > 1 << 20 && peak < 256 << 20, "{peak} bytes for a volume of 64 MiB");
}

#[test]
fn a_budget_above_what_there_is_is_refused() {
    let work = Workdir::new("memory-refused").unwrap();
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(work.path());
    let ended = cli.run(&["backup", "p", "--memory", "1048576GiB"]);
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(ended.failure().contains("is more than this process may have: there are "), "{}", ended.stderr);
}
