//! Changes that must be noticed still apply: what each takes out is in the code, word by word.
//!
//! Does not: run them (`tests/mutations/run` does: one build of all). Source: ours; `tests/README.md`, Mutations.

use std::fs;
use std::path::Path;

/// Changes at least: those that the simulator once did not notice.
const MUTATIONS_MIN: usize = 12;

/// What a patch expects of its file: the lines that it keeps or takes out, of each hunk.
fn hunks(patch: &str) -> Vec<(String, String)> {
    let mut hunks: Vec<(String, String)> = Vec::new();
    let mut path = None;
    for line in patch.lines() {
        if let Some(name) = line.strip_prefix("--- a/") {
            path = Some(name.to_owned());
        } else if line.starts_with("@@") {
            hunks.extend(path.clone().map(|path| (path, String::new())));
        } else if let Some(kept) = line.strip_prefix(['-', ' '])
            && let Some((_, text)) = hunks.last_mut()
        {
            text.push_str(kept);
            text.push('\n');
        }
    }
    hunks
}

#[test]
fn every_mutation_applies_and_names_a_test() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut count = 0;
    for entry in fs::read_dir(top.join("tests/mutations")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "patch") {
            continue;
        }
        count += 1;
        let (patch, name) = (fs::read_to_string(&path).unwrap(), path.display());
        assert!(patch.lines().any(|line| line.starts_with("Found by: ")), "{name}");
        let hunks = hunks(&patch);
        assert!(!hunks.is_empty(), "{name}");
        for (file, text) in hunks {
            let code = fs::read_to_string(top.join(&file)).unwrap();
            assert_eq!(code.matches(&text).count(), 1, "{name}: {file} does not have, or has twice:\n{text}");
        }
    }
    assert!(count >= MUTATIONS_MIN, "{count}");
}
