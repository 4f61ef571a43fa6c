//! Packages that the program is made of: their licences and where they come from, as `.ci/deny.toml` allows. Asks cargo, without the network.
//! Source: ours; SPDX specification, annex "SPDX license expressions".
#![allow(clippy::unwrap_used, reason = "helpers of tests, which say so by failing")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use windlass_tests::error::output;

fn top() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The texts of a list in `.ci/deny.toml`, one a line.
fn allowed() -> Vec<String> {
    let text = std::fs::read_to_string(top().join(".ci/deny.toml")).unwrap();
    let list = text.split_once("allow = [").unwrap().1.split_once(']').unwrap().0;
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether an expression is met by the allowed licences alone: OR needs one of its sides, AND each. Parentheses bind first, then WITH,
/// AND, OR.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let text = expression.replace('/', " OR ");
    let mut depth = 0;
    let (mut ors, mut ands, mut start) = (Vec::new(), Vec::new(), 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ' ' if depth == 0 && text[at..].starts_with(" OR ") => {
                ands.push(&text[start..at]);
                ors.push(std::mem::take(&mut ands));
                start = at + 4;
            }
            ' ' if depth == 0 && text[at..].starts_with(" AND ") => {
                ands.push(&text[start..at]);
                start = at + 5;
            }
            _ => {}
        }
    }
    ands.push(&text[start..]);
    ors.push(ands);
    let is_one = |part: &str| {
        let part = part.trim();
        match part.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
            Some(inner) => is_allowed(inner, allowed),
            None => allowed.iter().any(|licence| licence == part),
        }
    };
    ors.iter().any(|ands| ands.iter().all(|part| is_one(part)))
}

#[test]
fn expressions_of_licences_are_read_as_they_bind() {
    let some = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
    for good in
        ["MIT", "MIT/GPL-2.0", "GPL-2.0 OR MIT", "MIT AND ISC", "(MIT OR X) AND ISC", "X AND Y OR ISC"]
    {
        assert!(is_allowed(good, &some), "{good}");
    }
    assert!(is_allowed("Apache-2.0 WITH LLVM-exception OR GPL-3.0", &some));
    for bad in ["GPL-2.0", "MIT AND GPL-2.0", "(MIT OR ISC) AND X", "Apache-2.0", ""] {
        assert!(!is_allowed(bad, &some), "{bad}");
    }
}

#[test]
fn all_packages_come_from_the_registry_under_licences_that_are_allowed() {
    let mut cargo = Command::new(env!("CARGO"));
    // Those for other systems are not in the program, and a build has not fetched them.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    cargo.args([
        "metadata",
        "--format-version",
        "1",
        "--offline",
        "--locked",
        "--filter-platform",
        &platform,
    ]);
    cargo.current_dir(top());
    let said: Value = serde_json::from_slice(&output(&mut cargo).unwrap()).unwrap();
    let (allowed, mut findings) = (allowed(), Vec::new());
    let packages = said["packages"].as_array().unwrap();
    for package in packages {
        let name = format!("{} {}", package["name"], package["version"]);
        let licence = package["license"].as_str().unwrap_or_default();
        if !is_allowed(licence, &allowed) {
            findings.push(format!("{name}: licence {licence:?} is not in .ci/deny.toml"));
        }
        let is_ours =
            package["source"].is_null() && package["name"].as_str().unwrap().starts_with("windlass-");
        let is_of_registry = package["source"].as_str().is_some_and(|source| source.starts_with("registry+"));
        if !is_ours && !is_of_registry {
            findings.push(format!("{name}: comes from {}", package["source"]));
        }
    }
    assert!(packages.len() > 50 && allowed.len() > 5, "{} packages", packages.len());
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}
