//! The target contract on both ports: directories of real file systems, and the simulated one.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;

use windlass_hal::linux;
use windlass_hal::sim::tree::{SimTree, TreeConfig};
use windlass_tests::conformance::tree::{Subject, run};
use windlass_tests::image::{Access, Kind, Mount, make_empty};
use windlass_tests::privilege::{is_root, skip};
use windlass_tests::workdir::Workdir;

fn on_linux(name: &str, path: &Path) {
    let opened = linux::tree::open(path, true).unwrap();
    let read = |file: &str| fs::read(path.join(file)).unwrap();
    run(&Subject { name, root: &opened.root, read: &read, privileged: is_root() });
}

#[test]
fn simulated() {
    for (name, config) in [
        ("sim", TreeConfig::default()),
        (
            "sim, little",
            TreeConfig { has_unnamed: false, has_rename_flags: false, flags: 0, ..TreeConfig::default() },
        ),
    ] {
        let tree = SimTree::new(config);
        let read = |file: &str| tree.look(b"").remove(file.as_bytes()).unwrap().contents;
        run(&Subject { name, root: &tree.open().root, read: &read, privileged: true });
    }
}

#[test]
fn linux_directory() {
    let work = Workdir::new("conformance-tree").unwrap();
    on_linux("directory", &work.join("made/for/this"));
}

#[test]
fn linux_file_systems() {
    for kind in [Kind::Ext4, Kind::Xfs] {
        if !is_root() || kind.missing().is_some() {
            skip("linux_file_systems", "no right to mount, or no tools");
            continue;
        }
        let work = Workdir::new("conformance-tree").unwrap();
        let image = work.join("image");
        make_empty(kind, &image, if kind == Kind::Xfs { 300 << 20 } else { 32 << 20 }).unwrap();
        let mount = Mount::image_of(kind, &image, &work.join("to"), Access::ReadWrite, None).unwrap();
        on_linux(&format!("{kind:?}"), &mount.dir().join("here"));
    }
}
