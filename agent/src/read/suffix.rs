//! What a file is by its name: its extension, and a group of extensions.
//!
//! An extension is what follows the last dot: 1 to [`SUFFIX_BYTES_MAX`] ASCII letters and digits, in lower case. A name that begins with its only
//! dot has none.
//!
//! Memory: [`SUFFIXES_MAX`] extensions; files with another one are counted together. Does not: look into files. Source: ours.

use std::collections::BTreeMap;

/// Longest extension in bytes; what is longer is part of a name.
pub const SUFFIX_BYTES_MAX: usize = 12;
/// Different extensions that are counted: 64 bytes each. Trees of years have some hundred.
pub const SUFFIXES_MAX: usize = 4096;

/// Groups, and the extensions of each.
pub const GROUPS: [(&str, &[&str]); 10] = [
    (
        "archives",
        &["7z", "bz2", "cab", "deb", "gz", "jar", "lz4", "rar", "rpm", "tar", "tgz", "xz", "zip", "zst"],
    ),
    ("audio", &["aac", "aiff", "flac", "m4a", "mid", "mp3", "ogg", "opus", "wav", "wma"]),
    (
        "databases",
        &["accdb", "db", "dbf", "frm", "ibd", "ldf", "mdb", "mdf", "myd", "ndf", "ost", "pst", "sqlite"],
    ),
    ("disk images", &["ova", "img", "iso", "qcow2", "raw", "vdi", "vhd", "vhdx", "vmdk", "wim"]),
    (
        "documents",
        &[
            "csv", "doc", "docx", "eml", "epub", "md", "msg", "odp", "ods", "odt", "pdf", "ppt", "pptx",
            "ps", "rtf", "tex", "txt", "xls", "xlsx",
        ],
    ),
    (
        "images",
        &[
            "ai", "arw", "bmp", "cr2", "dng", "gif", "heic", "jpeg", "jpg", "nef", "png", "psd", "svg",
            "tif", "tiff", "webp",
        ],
    ),
    ("logs and backups", &["bak", "bck", "dmp", "journal", "log", "old", "tmp"]),
    ("programs", &["a", "apk", "bin", "dll", "exe", "ko", "msi", "o", "pyc", "rlib", "so", "sys"]),
    (
        "source and data",
        &[
            "c", "cc", "cpp", "cs", "css", "go", "h", "hpp", "html", "java", "js", "json", "parquet", "php",
            "pl", "py", "rb", "rs", "sh", "sql", "toml", "ts", "xml", "yaml", "yml",
        ],
    ),
    ("video", &["avi", "flv", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mxf", "webm", "wmv"]),
];
/// The group of extensions that are in none.
pub const OTHER: &str = "others";
/// The group of files without an extension.
pub const NONE: &str = "without extension";

/// The extension of a name, in lower case.
#[must_use]
pub fn suffix(name: &[u8]) -> Option<String> {
    let dot = name.iter().rposition(|&byte| byte == b'.').filter(|&at| at > 0)?;
    let found = &name[dot + 1..];
    let is_one = (1..=SUFFIX_BYTES_MAX).contains(&found.len()) && found.iter().all(u8::is_ascii_alphanumeric);
    is_one.then(|| String::from_utf8_lossy(found).to_ascii_lowercase())
}

/// The group of an extension.
#[must_use]
pub fn group(suffix: Option<&str>) -> &'static str {
    let Some(suffix) = suffix else { return NONE };
    let has = |(_, list): &&(&str, &[&str])| list.contains(&suffix);
    GROUPS.iter().find(has).map_or(OTHER, |(name, _)| *name)
}

/// Files counted together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// How many names.
    pub files: u64,
    /// Their sizes in bytes; a file with several names counts in equal shares.
    pub bytes: u64,
}

/// Files by extension.
#[derive(Clone, Debug, Default)]
pub struct Suffixes {
    by: BTreeMap<String, Files>,
    groups: BTreeMap<&'static str, Files>,
    /// Files with an extension that came when [`SUFFIXES_MAX`] others were there.
    pub left_out: Files,
}

impl Suffixes {
    /// Counts a name of a file that has `links` of them.
    pub fn add(&mut self, name: &[u8], size: u64, links: u32) {
        let found = suffix(name);
        let bytes = size / u64::from(links.max(1));
        let one = |of: &mut Files| {
            of.files += 1;
            of.bytes = of.bytes.saturating_add(bytes);
        };
        one(self.groups.entry(group(found.as_deref())).or_default());
        let Some(found) = found else { return };
        if self.by.len() >= SUFFIXES_MAX && !self.by.contains_key(&found) {
            one(&mut self.left_out);
        } else {
            one(self.by.entry(found).or_default());
        }
    }

    /// The groups that have files, the one with most bytes first.
    #[must_use]
    pub fn groups(&self) -> Vec<(&'static str, Files)> {
        let mut all: Vec<_> = self.groups.iter().map(|(&name, &of)| (name, of)).collect();
        all.sort_by_key(|(_, of)| std::cmp::Reverse((of.bytes, of.files)));
        all
    }

    /// The `most` extensions with most bytes, and how many others there are.
    #[must_use]
    pub fn largest(&self, most: usize) -> (Vec<(&str, Files)>, usize) {
        let mut all: Vec<_> = self.by.iter().map(|(name, &of)| (name.as_str(), of)).collect();
        all.sort_by_key(|(_, of)| std::cmp::Reverse((of.bytes, of.files)));
        let others = all.len().saturating_sub(most);
        all.truncate(most);
        (all, others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_extensions_or_not() {
        for (name, found) in [
            ("a.TXT", Some("txt")),
            ("a.tar.gz", Some("gz")),
            (".profile", None),
            (".config.json", Some("json")),
            ("Makefile", None),
            ("a.", None),
            ("a. b", None),
            ("a.abcdefghijklm", None),
        ] {
            assert_eq!(suffix(name.as_bytes()).as_deref(), found, "{name}");
        }
        assert_eq!((group(Some("zip")), group(Some("zzz")), group(None)), ("archives", OTHER, NONE));
        let mut seen = std::collections::BTreeSet::new();
        assert!(GROUPS.iter().flat_map(|(_, list)| *list).all(|one| seen.insert(one)), "each in one group");
    }

    #[test]
    fn more_extensions_than_are_kept_are_counted_together() {
        let mut all = Suffixes::default();
        for at in 0..SUFFIXES_MAX + 7 {
            all.add(format!("a.x{at}").as_bytes(), 10, 1);
        }
        all.add(b"two.txt", 9, 2);
        assert_eq!(all.left_out, Files { files: 8, bytes: 74 });
        let (largest, others) = all.largest(3);
        assert_eq!((largest.len(), others), (3, SUFFIXES_MAX - 3));
        assert_eq!(all.groups()[0], (OTHER, Files { files: SUFFIXES_MAX as u64 + 7, bytes: 41_030 }));
    }
}
