//! House rules that no compiler sees: labels have a definition, links and paths lead somewhere, a source can
//! be looked up by every reader of this repository, the README stays an entrance.
//!
//! Reads the repository's text files and nothing else; needs no other package, so `rustc --test` builds it alone. Source: ours;
//! `CONTRIBUTING.md`.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which say so by failing")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders and files at the top that belong to the repository.
const TOP: [&str; 7] = ["hal", "agent", "board", "tests", ".ci", "README.md", "CONTRIBUTING.md"];
/// Folders below them that hold no text of ours.
const SKIPPED: [&str; 6] = ["target", "corpus", "artifacts", "images", "golden", "seeds"];
/// How text files end.
const TEXTS: [&str; 7] = [".rs", ".md", ".toml", ".sh", ".py", ".service", ".ci/run"];
/// Where labels are defined: rows of tables that begin with the label.
const DEFINED_IN: &str = "agent/doc/";
/// First letters of labels: promises, rules of the lease, of commits, of garbage, invariants, traces.
const LABELS: [char; 6] = ['P', 'L', 'C', 'G', 'I', 'T'];
/// Lines of the README at most: one that is longer is a manual, which has pages of its own in `board/doc`.
const README_LINES_MAX: usize = 120;
/// What examples keep in the home of root.
const AT_ROOT: [&str; 4] = ["windlass.key", "windlass-pki", "pki", ".aws"];
/// Folders of all systems, in which a checkout may lie beside things that examples name.
const EVERYWHERE: [&str; 6] = ["/", "/home", "/opt", "/root", "/srv", "/tmp"];

/// A text file: its path from the top, and its lines.
struct Text {
    path: String,
    lines: Vec<String>,
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All text files, by path.
fn texts() -> Vec<Text> {
    fn walk(at: &Path, path: &str, found: &mut Vec<Text>) {
        if at.is_dir() {
            let name = path.rsplit('/').next().unwrap();
            if !SKIPPED.contains(&name) {
                let entries = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().file_name());
                for name in entries.map(|name| name.to_string_lossy().into_owned()) {
                    walk(&at.join(&name), &format!("{path}/{name}"), found);
                }
            }
        } else if TEXTS.iter().any(|end| path.ends_with(end)) {
            let lines = fs::read_to_string(at).unwrap().lines().map(str::to_owned).collect();
            found.push(Text { path: path.to_owned(), lines });
        }
    }
    let mut found = Vec::new();
    TOP.iter().for_each(|name| walk(&top().join(name), name, &mut found));
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 300, "the repository has more files than {}", found.len());
    found
}

fn fail(findings: &[String]) {
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

/// Labels in a line: a letter and a number from 1 to 99, with nothing before or behind that makes it part of a longer word.
fn labels(line: &str) -> Vec<String> {
    let is_inside = |c: char| c.is_alphanumeric() || matches!(c, '_' | '%' | '-' | '\\');
    let mut found = Vec::new();
    let mut before = ' ';
    for (at, letter) in line.char_indices() {
        let rest = &line[at + letter.len_utf8()..];
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let behind = rest[digits..].chars().next().unwrap_or(' ');
        let is_number = (1..=2).contains(&digits) && !rest.starts_with('0');
        if LABELS.contains(&letter) && is_number && !is_inside(before) && !is_inside(behind) {
            found.push(format!("{letter}{}", &rest[..digits]));
        }
        before = letter;
    }
    found
}

#[test]
fn labels_are_found_in_text_and_not_in_words() {
    let some = ["C1", "G2", "I12"].map(str::to_owned).to_vec();
    assert_eq!(labels("(C1) then G2: x, I12"), some);
    for none in ["%C3%BC", "-T2", "AC1", "C1x", "I0", "I123", "L_1", "Q1", "C1_2"] {
        assert_eq!(labels(none), Vec::<String>::new(), "{none}");
    }
}

#[test]
fn every_label_is_defined_once() {
    let texts = texts();
    let mut defined: BTreeMap<String, String> = BTreeMap::new();
    let mut findings = Vec::new();
    for text in texts.iter().filter(|text| text.path.starts_with(DEFINED_IN)) {
        for (at, line) in text.lines.iter().enumerate() {
            let cell = line.strip_prefix("| ").and_then(|row| row.split(" |").next()).unwrap_or_default();
            if labels(cell) == [cell] {
                let place = format!("{}:{}", text.path, at + 1);
                if let Some(first) = defined.insert(cell.to_owned(), place.clone()) {
                    findings.push(format!("{place}: {cell} is defined in {first} already"));
                }
            }
        }
    }
    let mut used = BTreeSet::new();
    for text in texts.iter().filter(|text| !text.path.ends_with("/tidy.rs")) {
        for (at, line) in text.lines.iter().enumerate() {
            for label in labels(line) {
                if !defined.contains_key(&label) {
                    let place = format!("{}:{}", text.path, at + 1);
                    findings.push(format!("{place}: {label} is defined nowhere in {DEFINED_IN}"));
                }
                if !text.path.starts_with(DEFINED_IN) {
                    used.insert(label);
                }
            }
        }
    }
    assert!(defined.len() > 30 && used.len() > 25, "{} labels defined, {} used", defined.len(), used.len());
    fail(&findings);
}

/// How texts cite documents that are not in the repository: `0` stands for any digit, `a0` for any label.
const OUTSIDE: [&str; 12] = [
    "architecture section",
    "architecture, section",
    "architecture 0",
    "coordination reference",
    "coordination 0",
    "conventions 0",
    "commit-log design",
    "commit-log a0",
    "blocks reference",
    "peers reference",
    "integration reference",
    "recovery reference",
];

/// A text in which such citations look alike: digits as `0`, the letter of a label as `a`, lines joined,
/// comment marks gone.
fn alike(lines: &[String]) -> String {
    let words = lines.iter().flat_map(|line| line.split_whitespace());
    let words = words.filter(|word| !matches!(*word, "//!" | "///" | "//" | "#" | "|"));
    let alike = words.map(|word| match labels(word).first() {
        Some(label) => word.replacen(label.as_str(), "a0", 1).to_lowercase(),
        None => word.to_lowercase().chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect(),
    });
    alike.collect::<Vec<String>>().join(" ")
}

#[test]
fn sources_can_be_looked_up() {
    let mut findings = Vec::new();
    for text in texts().iter().filter(|text| !text.path.ends_with("/tidy.rs")) {
        // Two lines at a time, so that a citation which goes on in the next line is found.
        for (at, lines) in text.lines.windows(2).enumerate() {
            let (both, second) = (alike(lines), alike(&lines[1..]));
            for outside in OUTSIDE.iter().filter(|outside| both.contains(**outside)) {
                // What is all in the second line is found again as the first of the next two.
                if !second.contains(outside) || at + 2 == text.lines.len() {
                    let cited = lines.join(" ");
                    findings.push(format!("{}:{}: cites what is not here: {cited}", text.path, at + 1));
                }
            }
        }
    }
    fail(&findings);
}

#[test]
fn what_is_cited_alike_is_found() {
    let found = |text: &str| {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        OUTSIDE.iter().any(|outside| alike(&lines).contains(outside))
    };
    for bad in [
        "//! Source: architecture section 3.",
        "//! x. Source: ours; the coordination\n//! reference, section 5.",
        "/// must not (conventions 3.4).",
        "//! Source: commit-log C6.",
        "//! Source: coordination 4.",
    ] {
        assert!(found(bad), "{bad}");
    }
    for good in [
        "//! Source: ours; `agent/doc/commit-log.md`, C6.",
        "// see `agent/doc/architecture.md`, \"Threads\".",
    ] {
        assert!(!found(good), "{good}");
    }
}

/// The name that a heading has in a link, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}

fn anchors(text: &Text) -> BTreeSet<String> {
    let headings = prose(text).into_iter().filter(|(_, line)| line.starts_with('#'));
    headings.map(|(_, line)| anchor(line.trim_start_matches('#').trim())).collect()
}

/// Lines outside of fenced code, with their numbers.
fn prose(text: &Text) -> Vec<(usize, &str)> {
    let mut is_code = false;
    let mut found = Vec::new();
    for (at, line) in text.lines.iter().enumerate() {
        let is_fence = line.trim_start().starts_with("```");
        if !is_fence && !is_code {
            found.push((at + 1, line.as_str()));
        }
        is_code ^= is_fence;
    }
    found
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.to_string_lossy().split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            name => parts.push(name.to_owned()),
        }
    }
    parts.join("/")
}

#[test]
fn every_link_leads_somewhere() {
    let texts = texts();
    let pages: BTreeMap<&str, &Text> = texts.iter().map(|text| (text.path.as_str(), text)).collect();
    let (mut findings, mut links) = (Vec::new(), 0);
    for text in texts.iter().filter(|text| text.path.ends_with(".md")) {
        let folder = Path::new(&text.path).parent().unwrap();
        for (line, words) in prose(text) {
            for target in words.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                if target.contains("://") {
                    continue;
                }
                links += 1;
                let (file, heading) = target.split_once('#').unwrap_or((target, ""));
                let path = if file.is_empty() { text.path.clone() } else { plain(&folder.join(file)) };
                let leads = top().join(&path).exists()
                    && (heading.is_empty()
                        || pages.get(path.as_str()).is_some_and(|page| anchors(page).contains(heading)));
                if !leads {
                    findings.push(format!("{}:{line}: {target} leads nowhere", text.path));
                }
            }
        }
    }
    assert!(links > 30, "{links} links");
    fail(&findings);
}

/// `a/{b,c}.rs` as both paths that it means.
fn expand(path: &str) -> Vec<String> {
    match path.split_once('{').and_then(|(head, rest)| Some((head, rest.split_once('}')?))) {
        Some((head, (list, tail))) => list.split(',').map(|one| format!("{head}{one}{tail}")).collect(),
        None => vec![path.to_owned()],
    }
}

/// Paths that a document shows as code: those that begin at the top, and files of ours. Names in capitals and patterns stand for others.
fn paths(line: &str) -> Vec<String> {
    let code = line.split('`').skip(1).step_by(2).flat_map(|code| code.split_whitespace());
    let is_path = |word: &&str| {
        let begins = TOP.iter().any(|top| word.strip_prefix(top).is_some_and(|rest| rest.starts_with('/')));
        begins || word.contains('/') && [".rs", ".md", ".sh", ".py"].iter().any(|end| word.ends_with(end))
    };
    let is_ours = |word: &&str| !word.contains(['*', '<', '$', ':', '\'']) && !word.contains("NAME");
    let kept = code.filter(is_path).filter(is_ours).filter(|word| !word.starts_with('/'));
    kept.flat_map(expand).collect()
}

#[test]
fn every_path_in_a_document_is_there() {
    assert_eq!(paths("see `hal/src/{a,b}.rs` and `x/NAME.rs`, `cargo`"), ["hal/src/a.rs", "hal/src/b.rs"]);
    let (mut findings, mut count) = (Vec::new(), 0);
    for text in texts().iter().filter(|text| text.path.ends_with(".md")) {
        let folder = Path::new(&text.path).parent().unwrap();
        for (line, words) in prose(text) {
            for path in paths(words) {
                count += 1;
                let bases = [Path::new(""), folder, Path::new("agent/src")];
                if !bases.iter().any(|base| top().join(base).join(&path).exists()) {
                    findings.push(format!("{}:{line}: there is no {path}", text.path));
                }
            }
        }
    }
    assert!(count > 60, "{count} paths");
    fail(&findings);
}

/// Where a path of modules may begin.
const MODULES: [&str; 6] =
    ["agent/src", "hal/src", "board/src", "tests/src", "tests/tests", "tests/tests/models"];

/// Paths of modules and what is in them that a document shows as code, such as `log::state`.
fn modules(line: &str) -> Vec<String> {
    let code = line.split('`').skip(1).step_by(2).filter(|code| code.contains("::"));
    let is_path = |code: &&str| {
        code.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '{' | '}' | ',' | ' '))
    };
    let begins = |code: &&str| code.starts_with(|c: char| c.is_ascii_lowercase());
    code.filter(is_path).filter(begins).flat_map(|code| expand(&code.replace(' ', ""))).collect()
}

/// Whether below `base` each name is a module of the one before it, or a word in its text.
fn has_module(base: &Path, path: &str) -> bool {
    let (mut folder, mut file) = (base.to_owned(), base.join("lib.rs"));
    for name in path.split("::") {
        let below = folder.join(name);
        let found = [folder.join(format!("{name}.rs")), below.join("mod.rs"), below.join("main.rs")];
        let is_in_text =
            |text: String| text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name);
        match found.into_iter().find(|file| file.is_file()) {
            Some(module) => (folder, file) = (below, module),
            None if folder == base => return false,
            None => return fs::read_to_string(&file).is_ok_and(is_in_text),
        }
    }
    true
}

#[test]
fn every_module_in_a_document_is_there() {
    assert_eq!(modules("see `log::{state, lease}`, `a.b::c` and `Store::put`"), ["log::state", "log::lease"]);
    let agent = top().join("agent/src");
    assert!(has_module(&agent, "log::state") && has_module(&agent, "log::lease::Timing"));
    assert!(!has_module(&agent, "log::none") && !has_module(&agent, "none::state"));
    let (mut findings, mut count) = (Vec::new(), 0);
    for text in texts().iter().filter(|text| text.path.ends_with(".md")) {
        for (line, words) in prose(text) {
            for path in modules(words) {
                count += 1;
                let path = path.split_once("hal::").map_or(path.as_str(), |(_, rest)| rest);
                if !MODULES.iter().any(|base| has_module(&top().join(base), path)) {
                    findings.push(format!("{}:{line}: there is no {path}", text.path));
                }
            }
        }
    }
    assert!(count > 80, "{count} paths of modules");
    fail(&findings);
}

#[test]
fn every_document_that_code_names_is_there() {
    let mut findings = Vec::new();
    for text in texts().iter().filter(|text| !text.path.ends_with(".md") && !text.path.ends_with("/tidy.rs"))
    {
        let package = Path::new(text.path.split('/').next().unwrap());
        for (at, line) in text.lines.iter().enumerate() {
            let words =
                line.split(|c: char| c.is_whitespace() || matches!(c, '`' | '"' | '(' | ')' | ',' | ';'));
            for word in words.map(|word| word.trim_end_matches('.')).filter(|word| word.ends_with(".md")) {
                let folder = Path::new(&text.path).parent().unwrap();
                let bases = [Path::new(""), package, folder];
                if !bases.iter().any(|base| top().join(base).join(word).exists()) {
                    findings.push(format!("{}:{}: there is no {word}", text.path, at + 1));
                }
            }
        }
    }
    fail(&findings);
}

#[test]
fn the_readme_is_an_entrance() {
    let readme = fs::read_to_string(top().join("README.md")).unwrap();
    let lines = readme.lines().count();
    assert!(lines <= README_LINES_MAX, "{lines} lines: move what is not for everybody to a page in */doc");
    for command in ["cargo run --release -- demo", "cargo test --workspace"] {
        assert!(readme.lines().any(|line| line.trim() == command), "{command}");
    }
}

/// What speaks of something other than the program: numbers of tickets, promises to oneself, places of one machine.
fn is_foreign(line: &str) -> bool {
    let is_ticket = line.split([' ', '(']).filter_map(|word| word.strip_prefix('#')).any(|word| {
        let digits = word.bytes().take_while(u8::is_ascii_digit).count();
        digits > 1 && word[digits..].chars().all(|c| !c.is_alphanumeric() && c != '"')
    });
    let is_name = |rest: &str| rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '.');
    let is_elsewhere = |rest: &str| is_name(rest) && !AT_ROOT.iter().any(|example| rest.starts_with(example));
    let words = ["TODO", "FIXME", "/issues/", "/pull/", "issue #"];
    is_ticket
        || line.split("/root/").skip(1).any(is_elsewhere)
        || names_own_place(line)
        || words.iter().any(|word| line.contains(word))
}

/// The checkout, and what lies beside it unless that is a folder of all systems.
fn own_place() -> PathBuf {
    let checkout = top().canonicalize().unwrap();
    let beside = checkout.parent().filter(|parent| EVERYWHERE.iter().all(|name| *parent != Path::new(name)));
    beside.map(Path::to_owned).unwrap_or(checkout)
}

/// Whether a path of a line is there on this machine, in the checkout or beside it.
fn names_own_place(line: &str) -> bool {
    let place = own_place();
    let mut words = line.split(|c: char| !c.is_ascii_alphanumeric() && !"/._-".contains(c));
    words.any(|word| Path::new(word).starts_with(&place) && Path::new(word).exists())
}

#[test]
fn texts_speak_of_the_program_alone() {
    let own = format!("see {}", own_place().display());
    for bad in ["// see #1234", "(#12)", "// TODO: later", "x/issues/7", "issue #3", "cp /root/x y", &own] {
        assert!(is_foreign(bad), "{bad}");
    }
    for good in ["#[test]", "\"#123abc\"", "{:#04x}", "# Tests", "#!/bin/sh", "## 2. x", "--dir /root/pki"] {
        assert!(!is_foreign(good), "{good}");
    }
    let mut findings = Vec::new();
    for text in texts().iter().filter(|text| !text.path.ends_with("/tidy.rs")) {
        let lines = text.lines.iter().enumerate().filter(|(_, line)| is_foreign(line));
        findings.extend(lines.map(|(at, line)| format!("{}:{}: {}", text.path, at + 1, line.trim())));
    }
    fail(&findings);
}

/// Modules of the command line that its faces share: grammar, output, progress, the agent, damage.
const SHARED: [&str; 6] = ["args", "output", "progress", "through", "damage", "held"];
/// What faces still take from each other. It shrinks: what two faces need is a composition in `board/src/engine`.
const FACES_LEFT: [(&str, &str); 17] = [
    ("browse", "history"),
    ("check", "browse"),
    ("demo", "restore"),
    ("diff", "browse"),
    ("history", "browse"),
    ("mount", "browse"),
    ("point", "diff"),
    ("preview", "browse"),
    ("preview", "history"),
    ("preview", "restore"),
    ("preview", "selected"),
    ("restore", "browse"),
    ("restore", "history"),
    ("restore", "preview"),
    ("restore", "selected"),
    ("selected", "browse"),
    ("table", "browse"),
];

/// Modules of the command line that a line of code names: `crate::cli::NAME`, `crate::cli::{NAME, NAME}`, `super::NAME`.
fn faces_in(line: &str, is_face: bool) -> Vec<String> {
    let prefixes: &[&str] = if is_face { &["crate::cli::", "use super::"] } else { &["crate::cli::"] };
    let mut found = Vec::new();
    for rest in prefixes.iter().flat_map(|prefix| line.split(prefix).skip(1)) {
        let (list, is_list) = rest.strip_prefix('{').map_or((rest, false), |list| (list, true));
        let list = list.split('}').next().unwrap_or_default();
        for part in list.split(',').take(if is_list { usize::MAX } else { 1 }) {
            let name: String =
                part.trim().chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            if !name.is_empty() && name != "self" {
                found.push(name);
            }
        }
    }
    found
}

#[test]
fn no_face_calls_a_face_and_no_composition_knows_one() {
    assert_eq!(faces_in("use crate::cli::{points, policy};", true), ["points", "policy"]);
    assert_eq!(faces_in("crate::cli::backup::DAMAGED", true), ["backup"]);
    let mut findings = Vec::new();
    for text in texts() {
        let Some(place) = text.path.strip_prefix("board/src/") else { continue };
        let face = place.strip_prefix("cli/").and_then(|name| name.strip_suffix(".rs"));
        let face = face.filter(|name| !name.contains('/') && *name != "mod");
        let is_composition = place.starts_with("engine/");
        for (nth, line) in text.lines.iter().enumerate() {
            let named = faces_in(line, face.is_some());
            let face = face.or(place.starts_with("demo/").then_some("demo"));
            let forbidden = named.iter().find(|name| match face {
                Some(face) => {
                    !SHARED.contains(&name.as_str()) && !FACES_LEFT.contains(&(face, name.as_str()))
                }
                None => is_composition,
            });
            if forbidden.is_some() || is_composition && line.contains("clap::") {
                findings.push(format!("{}:{}: {}", text.path, nth + 1, line.trim()));
            }
        }
    }
    fail(&findings);
}

/// Words that hide who acts: a comment names the node, the process, the thread or the command. The rest of the tree follows.
const VAGUE: [&str; 3] = ["nobody", "somebody", "whoever"];
/// Folders whose comments are without them.
const PLAIN: [&str; 2] = ["agent/src/", "hal/src/"];

#[test]
fn comments_say_who_acts() {
    let mut findings = Vec::new();
    for text in texts().iter().filter(|text| PLAIN.iter().any(|folder| text.path.starts_with(folder))) {
        for (nth, line) in text.lines.iter().enumerate() {
            let comment = line.trim_start().strip_prefix("//").map(str::to_lowercase);
            if comment.is_some_and(|comment| VAGUE.iter().any(|word| comment.contains(word))) {
                findings.push(format!("{}:{}: {}", text.path, nth + 1, line.trim()));
            }
        }
    }
    fail(&findings);
}
