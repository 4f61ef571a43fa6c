//! ext4 as a kernel writes it, with every feature. The kernel is a guest, for the machine's own must not be stressed
//! with odd file systems.
//!
//! Volumes of many kinds are made by mke2fs, filled by the guest with what trips readers (populate.py), and listed by it;
//! every inode, name, attribute, extent and byte must be what the reader finds.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::guest::{Guest, listing};
use support::kernel::{Differences, differences};
use support::{Scratch, make_ext4, sound};

/// Seconds for one boot of the guest.
const BOOT_SECONDS: u32 = 400;

/// Name, size, mke2fs arguments.
const SETS: &[(&str, &str, &[&str])] = &[
    ("default", "64M", &[]),
    ("1k", "64M", &["-b", "1024"]),
    ("2k", "64M", &["-b", "2048"]),
    ("ext2", "64M", &["-t", "ext2"]),
    ("ext2 1k", "64M", &["-t", "ext2", "-b", "1024"]),
    ("ext2 2k", "64M", &["-t", "ext2", "-b", "2048"]),
    ("ext2 rev 0", "64M", &["-t", "ext2", "-r", "0", "-b", "1024"]),
    ("ext3", "64M", &["-t", "ext3"]),
    ("ext3 1k", "64M", &["-t", "ext3", "-b", "1024"]),
    ("no 64bit", "64M", &["-O", "^64bit"]),
    ("no flex_bg", "64M", &["-O", "^flex_bg", "-b", "1024"]),
    ("flex groups of 1", "64M", &["-G", "1", "-b", "1024"]),
    ("flex groups of 64", "64M", &["-G", "64", "-b", "1024"]),
    ("gdt_csum", "64M", &["-O", "^metadata_csum,uninit_bg"]),
    ("gdt_csum 32", "64M", &["-O", "^metadata_csum,^64bit,uninit_bg", "-b", "1024"]),
    ("no csum", "64M", &["-O", "^metadata_csum,^uninit_bg"]),
    ("csum seed", "64M", &["-O", "metadata_csum_seed"]),
    ("inline", "64M", &["-O", "inline_data"]),
    ("inline 1k inodes", "64M", &["-O", "inline_data", "-I", "1024"]),
    ("inline 4k inodes", "96M", &["-O", "inline_data", "-b", "4096", "-I", "4096"]),
    ("inline no csum", "64M", &["-O", "inline_data,^metadata_csum", "-b", "1024"]),
    ("inodes 128", "64M", &["-I", "128"]),
    ("inodes 512", "64M", &["-I", "512"]),
    ("inodes 1024 in 1k", "96M", &["-I", "1024", "-b", "1024"]),
    ("meta_bg", "128M", &["-O", "meta_bg,^resize_inode", "-b", "1024"]),
    ("meta_bg 4k", "64M", &["-O", "meta_bg,^resize_inode"]),
    ("meta_bg no csum", "128M", &["-O", "meta_bg,^resize_inode,^metadata_csum,^64bit", "-b", "1024"]),
    ("sparse_super2", "96M", &["-O", "sparse_super2,^resize_inode", "-b", "1024"]),
    ("no sparse_super", "96M", &["-O", "^sparse_super,^resize_inode", "-b", "1024"]),
    ("bigalloc", "128M", &["-O", "bigalloc", "-C", "65536"]),
    ("bigalloc 1k", "128M", &["-O", "bigalloc", "-b", "1024", "-C", "16384"]),
    ("bigalloc inline", "128M", &["-O", "bigalloc,inline_data", "-C", "16384"]),
    ("ea_inode large_dir", "64M", &["-O", "ea_inode,large_dir"]),
    ("ea_inode 1k", "64M", &["-O", "ea_inode,large_dir", "-b", "1024"]),
    ("ea_inode inline", "64M", &["-O", "ea_inode,inline_data", "-I", "512"]),
    ("quota project", "64M", &["-O", "quota,project", "-E", "quotatype=usrquota:grpquota:prjquota"]),
    ("orphan_file", "64M", &["-O", "orphan_file"]),
    ("fast_commit", "64M", &["-O", "fast_commit"]),
    ("no extents", "64M", &["-O", "^extent,^64bit,^metadata_csum"]),
    ("no filetype", "64M", &["-O", "^filetype"]),
    ("no dir_index", "64M", &["-O", "^dir_index"]),
    ("no journal", "64M", &["-O", "^has_journal"]),
    ("no large_file huge_file dir_nlink extra_isize", "64M", &["-O", "^huge_file,^dir_nlink,^extra_isize"]),
    ("mmp", "64M", &["-O", "mmp"]),
    ("small groups", "64M", &["-b", "1024", "-g", "1024", "-G", "4"]),
];

/// Kinds that older kernels do not mount.
const NEWER: &[(&str, &str, &[&str])] = &[
    ("casefold", "64M", &["-O", "casefold"]),
    ("encrypt", "64M", &["-O", "encrypt"]),
    ("verity stable_inodes", "64M", &["-O", "verity,stable_inodes"]),
];

/// Fills volumes of these kinds, and compares them.
fn compare(guest: &Guest, scratch: &Scratch, sets: &[(&str, &str, &[&str])]) {
    let mut job = String::new();
    for (n, (_, size, args)) in sets.iter().enumerate() {
        make_ext4(&scratch.join(&n.to_string()), args, size);
        job += &format!("fill {n} 500 small\n");
    }
    let said = guest.boot(&scratch.0, &job, &[], BOOT_SECONDS);
    for (n, (name, _, _)) in sets.iter().enumerate() {
        let listing = listing(scratch, &n.to_string(), &said);
        let (mut device, tree) = sound(&scratch.join(&n.to_string()), name);
        let filled = std::fs::read_to_string(scratch.join(&format!("{n}.said"))).unwrap();
        assert!(!filled.contains("Traceback"), "{name}: {filled}");
        assert!(tree.len() > 120, "{name}: {} items", tree.len());
        assert_eq!(differences(&listing, &tree, &mut device), Differences::default(), "{name}");
    }
    eprintln!("{} kinds of volume are equal", sets.len());
}

#[test]
fn what_a_kernel_writes_is_what_the_reader_finds() {
    let test = "what_a_kernel_writes_is_what_the_reader_finds";
    let Some(guest) = Guest::or_skip(test, &["mke2fs"]) else { return };
    compare(guest, &Scratch::new("matrix"), SETS);
}

#[test]
fn what_only_a_newer_kernel_writes_is_what_the_reader_finds() {
    let test = "what_only_a_newer_kernel_writes_is_what_the_reader_finds";
    let Some(guest) = Guest::newest_or_skip(test, &["mke2fs"]) else { return };
    compare(guest, &Scratch::new("newer"), NEWER);
}

#[test]
fn files_of_zeros_that_mke2fs_leaves_inline_are_read_as_zeros() {
    let test = "files_of_zeros_that_mke2fs_leaves_inline_are_read_as_zeros";
    let Some(guest) = Guest::or_skip(test, &["mke2fs"]) else { return };
    let scratch = Scratch::new("zeros");
    let source = scratch.join("source");
    std::fs::create_dir(&source).unwrap();
    for len in [0, 1, 59, 60, 61, 100, 160, 161, 1000, 4096, 5000, 100_000, 5 << 20] {
        std::fs::write(source.join(format!("zeros-{len}")), vec![0; len]).unwrap();
    }
    std::fs::File::create(source.join("hole")).unwrap().set_len(1 << 33).unwrap();
    let mut job = String::new();
    const KINDS: [&[&str]; 3] =
        [&["-b", "4096"], &["-b", "1024", "-I", "1024"], &["-b", "4096", "-I", "512"]];
    for (n, args) in KINDS.iter().enumerate() {
        let args = [args, &["-O", "inline_data", "-d", source.to_str().unwrap()][..]].concat();
        make_ext4(&scratch.join(&n.to_string()), &args, "32M");
        job += &format!("walk {n}\n");
    }
    let said = guest.boot(&scratch.0, &job, &[], BOOT_SECONDS);
    for n in 0..KINDS.len() {
        let listing = listing(&scratch, &n.to_string(), &said);
        let (mut device, tree) = sound(&scratch.join(&n.to_string()), &n.to_string());
        assert!(tree.values().any(|(item, whole)| whole.inline.is_some() && item.size == 5 << 20));
        assert_eq!(differences(&listing, &tree, &mut device), Differences::default(), "{n}");
    }
}
