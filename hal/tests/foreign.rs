//! Images by others: what the authors of e2fsprogs keep to test e2fsck with, most of them damaged on purpose, and what those of
//! ext4-view and xfs-fuse keep as examples (images/). Each is swept and every byte of it read, with a bound on reads and memory; then a kernel in a
//! guest says what it sees.
//!
//! For every image one of
//! - equal: no fault, and the kernel gives the same inodes, names, attributes, extents and bytes;
//! - refused, with the reason; what the kernel does with it is noted;
//! - faults: the rules that are broken, the number of items each costs, and of those the ones that the kernel reads all the same
//!   ("kernel lenient"); all other items are equal to the kernel's. "kernel strict": the kernel answers with an error where the
//!   reader finds nothing wrong.
//!
//! The outcomes are kept in golden/*_foreign.txt, and a difference from them is a failure; `WINDLASS_GOLDEN=write` writes them anew.
//! `WINDLASS_IMAGES` names a folder of images to take instead of e2fsprogs'.
//! `WINDLASS_LISTS_TO` names a folder to keep the kernel's listings in, `WINDLASS_LISTS` one to take them from without a guest.
//! The sources of e2fsprogs are fetched when the test runs (apt, of the release that this is run on) and kept below the target folder;
//! an image that the golden file does not know, from another release, only has to be equal or refused or named.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use support::guest::{Guest, kept, shell};
use support::kernel::{Differences, differences, digest};
use support::{Scratch, TestDevice, Tree, collect, has, skipped};
use windlass_hal::volume::{ItemKind, detect};

#[global_allocator]
static MEMORY: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

/// Reads that no image needs.
const READS_MAX: u64 = 400_000;
/// What opening and sweeping may take, in bytes: the promise of the reader and a window.
const MEMORY_BYTES_MAX: usize = 10 << 20;
/// Seconds for one boot of the guest.
const BOOT_SECONDS: u32 = 500;
/// Boots until an image that ends the guest is given up.
const BOOTS_MAX: usize = 8;
/// Contents above this are read where they are mapped, and not compared.
const COMPARED_BYTES_MAX: u64 = 64 << 20;

/// Fetches and unpacks the images; returns their folder.
fn images() -> Result<PathBuf, String> {
    if let Some(dir) = std::env::var_os("WINDLASS_IMAGES") {
        return Ok(dir.into());
    }
    let dir = kept().join("e2fsprogs");
    if dir.join("done").exists() {
        return Ok(dir);
    }
    for program in ["apt-get", "tar", "gzip", "bzip2"] {
        if !has(program) {
            return Err(format!("no {program}"));
        }
    }
    let own = Scratch(kept().join(format!("e2fsprogs-{}", std::process::id())));
    std::fs::create_dir_all(own.join("lists/partial")).map_err(|error| error.to_string())?;
    // A package source of our own, so that nothing of the machine's changes: the same mirror and release, sources.
    let fetch = r#"
        . /etc/os-release
        mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null |
            grep -oE 'https?://[^ ]+/debian/?( |$)' | head -1 | tr -d ' ')
        key=/usr/share/keyrings/debian-archive-keyring.gpg
        echo "deb-src [signed-by=$key] ${mirror:-http://deb.debian.org/debian} ${VERSION_CODENAME:?} main" > list
        set -- -qq -o Dir::Etc::sourcelist=$PWD/list -o Dir::Etc::sourceparts=- -o Dir::State::lists=$PWD/lists
        apt-get "$@" update && apt-get "$@" source --download-only e2fsprogs
    "#;
    shell(&own.0, fetch)?;
    let unpack = r#"
        mkdir src images
        tar xf $(ls e2fsprogs_*.orig.tar.* | grep -v asc) -C src --strip-components=1 --wildcards '*/tests/*' || exit 1
        for f in src/tests/*/*image*.gz src/tests/*/*image*.bz2; do
            to=images/$(basename $(dirname $f)).$(basename ${f%.*})
            case $f in
                *.tar.bz2) tar xOf $f > ${to%.tar} ;;
                *.gz) gzip -dc $f > $to ;;
                *) bzip2 -dc $f > $to ;;
            esac || exit 1
        done
    "#;
    shell(&own.0, unpack)?;
    std::fs::write(own.join("images/done"), "").map_err(|error| error.to_string())?;
    let _ = std::fs::rename(own.join("images"), &dir);
    dir.join("done").exists().then_some(dir).ok_or("the images cannot be kept".into())
}

/// The file systems among the images: the others are logs and journals.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        dir.read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.contains('.') && !name.ends_with(".list"));
    names.sort();
    names
}

/// Opens and sweeps, in bounded memory and work. What is kept of it is not the reader's.
fn sweep(device: &mut TestDevice, name: &str) -> Result<Tree, String> {
    device.reads_left = READS_MAX;
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let mut volume = detect::open(device).map_err(|fault| fault.to_string())?;
    let mut window = windlass_hal::volume::Window::default();
    let mut from = windlass_hal::volume::Cursor::default();
    loop {
        match volume.sweep(device, from, &mut window).map_err(|fault| fault.to_string())? {
            windlass_hal::volume::Swept::Done => break,
            windlass_hal::volume::Swept::More(next) => from = next,
        }
    }
    volume.used(device, &mut |_| {}).map_err(|fault| fault.to_string())?;
    let most = MEMORY.peak_usage().saturating_sub(before);
    assert!(most < MEMORY_BYTES_MAX, "{name}: {most} bytes of memory");
    collect(device, volume.as_mut()).map_err(|fault| fault.to_string())
}

/// Reads every byte of every file, as far as it is mapped.
fn read_all(device: &mut TestDevice, tree: &Tree) {
    for (item, whole) in tree.values().filter(|(item, _)| item.kind == ItemKind::File) {
        let mut item = item.clone();
        let mapped = whole.extents.last().map_or(0, |extent| extent.logical + extent.len);
        item.size = item.size.min(mapped);
        if item.size <= COMPARED_BYTES_MAX {
            digest(device, &item, whole);
        }
    }
}

/// The rule of a fault, without its place.
fn rule(fault: &str) -> &str {
    fault.split(" (device byte").next().unwrap_or(fault)
}

/// One line of the table.
fn outcome(found: &Result<Tree, String>, listing: &str, device: &mut TestDevice) -> (String, Differences) {
    let kernel = match listing.lines().next() {
        Some("mounted") if listing.ends_with("end\n") => "",
        Some("mounted") => "; the kernel does not come to an end",
        Some(_) => "; the kernel refuses it too",
        None => "; the kernel ends",
    };
    let tree = match found {
        Ok(tree) => tree,
        Err(reason) => {
            let kernel = if kernel.is_empty() { "; the kernel mounts it" } else { kernel };
            return (format!("refused: {}{kernel}", rule(reason)), Differences::default());
        }
    };
    let differences = match listing.starts_with("mounted") {
        true => differences(listing, tree, device),
        false => Differences::default(),
    };
    let mut rules: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for (inode, (_, whole)) in tree {
        if let Some(fault) = &whole.fault {
            let (all, lenient) = rules.entry(rule(fault)).or_default();
            *all += 1;
            *lenient += u32::from(differences.strict.contains(inode));
        }
    }
    let mut text = String::new();
    for (rule, (all, lenient)) in rules {
        let sep = if text.is_empty() { "faults: " } else { "; " };
        write!(text, "{sep}{all} x {rule}").unwrap();
        if lenient > 0 {
            write!(text, " (kernel lenient: {lenient})").unwrap();
        }
    }
    if text.is_empty() {
        text = if kernel.is_empty() { "equal" } else { "read" }.to_owned();
    }
    if !differences.silent.is_empty() {
        write!(text, "; kernel strict: {}", differences.silent.len()).unwrap();
    }
    (text + kernel, differences)
}

/// Unpacks what is kept in images/ of one project.
fn unpack(project: &str) -> Scratch {
    let scratch = Scratch::new(project);
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images").join(project);
    for entry in from.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "zst") {
            let packed = std::fs::read(&path).unwrap();
            let bytes = zstd_safe::get_frame_content_size(&packed).unwrap().unwrap();
            let mut image = Vec::with_capacity(bytes as usize);
            zstd_safe::decompress(&mut image, &packed).unwrap();
            std::fs::write(scratch.0.join(path.file_stem().unwrap()), image).unwrap();
        }
    }
    scratch
}

#[test]
fn images_of_e2fsprogs_are_equal_or_refused_or_named() {
    let test = "images_of_e2fsprogs_are_equal_or_refused_or_named";
    match images() {
        Ok(dir) => compare(test, &dir, "ext4_foreign.txt"),
        Err(reason) => skipped(test, &format!("no sources of e2fsprogs: {reason}")),
    }
}

#[test]
fn images_of_ext4_view_are_equal_or_refused_or_named() {
    let test = "images_of_ext4_view_are_equal_or_refused_or_named";
    compare(test, &unpack("ext4-view").0, "ext4_view_foreign.txt");
}

#[test]
fn images_of_xfs_fuse_are_equal_or_refused_or_named() {
    let test = "images_of_xfs_fuse_are_equal_or_refused_or_named";
    compare(test, &unpack("xfs-fuse").0, "xfs_foreign.txt");
}

/// Compares every image in `dir` with what a kernel says of it, and the outcomes with the golden file.
fn compare(test: &str, dir: &Path, golden: &str) {
    let Some(guest) = Guest::or_skip(test, &[]) else { return };
    let names = names(dir);
    let scratch = Scratch::new(golden);
    for name in &names {
        // The guest must not write to what is kept.
        std::fs::copy(dir.join(name), scratch.join(name)).unwrap();
    }
    let list = |name: &str| std::fs::read_to_string(scratch.join(&format!("{name}.list"))).ok();
    if let Some(made) = std::env::var_os("WINDLASS_LISTS").map(PathBuf::from) {
        for name in names.iter().map(|name| format!("{name}.list")) {
            std::fs::copy(made.join(&name), scratch.join(&name)).unwrap();
        }
    }
    for _ in 0..BOOTS_MAX {
        let left: Vec<&String> = names.iter().filter(|name| list(name).is_none()).collect();
        if left.is_empty() {
            break;
        }
        let job: String = left.iter().fold(String::new(), |job, name| job + "walk " + name + "\n");
        guest.boot(&scratch.0, &job, &[], BOOT_SECONDS);
        // The first without a listing that another follows ended the guest; what it wrote stands.
        if let Some(at) = left.iter().position(|name| !list(name).is_some_and(|text| text.ends_with("end\n")))
        {
            let name = left[at];
            std::fs::write(scratch.join(&format!("{name}.list")), list(name).unwrap_or_default()).unwrap();
        }
    }
    if let Some(to) = std::env::var_os("WINDLASS_LISTS_TO").map(PathBuf::from) {
        for name in names.iter().map(|name| format!("{name}.list")) {
            std::fs::copy(scratch.join(&name), to.join(&name)).unwrap();
        }
    }
    let mut table = BTreeMap::new();
    let (mut wrong, mut silent) = (Vec::new(), Vec::new());
    for name in &names {
        let mut device = TestDevice::memory(std::fs::read(dir.join(name)).unwrap());
        let found = sweep(&mut device, name);
        if let Ok(tree) = &found {
            device.reads_left = u64::MAX;
            read_all(&mut device, tree);
        }
        let listing = list(name).unwrap_or_default();
        let (line, differences) = outcome(&found, &listing, &mut device);
        wrong.extend(differences.wrong.into_iter().map(|what| format!("{name}: {what}")));
        silent.extend(differences.silent.into_iter().map(|what| format!("{name}: {what}")));
        table.insert(name.clone(), line);
    }
    for line in &silent {
        eprintln!("kernel strict: {line}");
    }
    assert!(wrong.is_empty(), "differs from the kernel without a fault:\n{}", wrong.join("\n"));
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    // A newer kernel refuses, or reads, some that an older one does not: lines of its own go before the others'.
    let newer = dir.join(format!("newer_{golden}"));
    let golden = dir.join(golden);
    let lines = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let common = lines(&golden);
    if std::env::var("WINDLASS_GOLDEN").is_ok_and(|value| value == "write") {
        let said = |name: &str, line: &str| format!("{name}: {line}");
        let differs = |said: &String| !guest.is_newest() || !common.lines().any(|line| line == said);
        let text: String = table
            .iter()
            .map(|(name, line)| said(name, line))
            .filter(differs)
            .map(|said| said + "\n")
            .collect();
        std::fs::write(if guest.is_newest() { &newer } else { &golden }, text).unwrap();
    }
    let kept = common + &if guest.is_newest() { lines(&newer) } else { String::new() };
    let kept: BTreeMap<&str, &str> = kept.lines().filter_map(|line| line.split_once(": ")).collect();
    let mut changed = Vec::new();
    for (name, line) in &table {
        match kept.get(name.as_str()) {
            Some(&wanted) if wanted != line => changed.push(format!("{name}: {line}\n  was: {wanted}")),
            Some(_) => {}
            None => eprintln!("not in the golden file: {name}: {line}"),
        }
    }
    assert!(changed.is_empty(), "other outcomes than before:\n{}", changed.join("\n"));
    let count = |start: &str| table.values().filter(|line| line.starts_with(start)).count();
    eprintln!(
        "{} images: {} equal, {} with named faults, {} refused, {} read where the kernel does not",
        table.len(),
        count("equal"),
        count("faults"),
        count("refused"),
        count("read")
    );
}
