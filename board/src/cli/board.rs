//! `board new`, `board check` and `board explain`.
//!
//! Source: ours.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli::args::global::Global;
use crate::cli::output::Output;
use crate::failure::{Exit, Failure};
use crate::profile::read::{Fault, Loaded};
use crate::profile::{check as checks, explain as explained, shipped};

/// `board check`: exit code 0 or 2.
pub fn check(global: &Global, file: &Path, output: &Output) -> Result<Exit, Failure> {
    let faults = match Loaded::open(file) {
        Ok(loaded) => checks::check(&loaded, global),
        Err(faults) => faults,
    };
    if faults.is_empty() {
        output.say(format_args!("{}: sound", file.display()));
    }
    Ok(tell(file, &faults, output))
}

/// `board new`.
pub fn new(name: &str, output: &Output) -> Result<Exit, Failure> {
    let text = shipped::find(name).ok_or_else(|| {
        Failure::usage(format_args!(
            "no profile {name} comes with the program; there is {}",
            shipped::names()
        ))
    })?;
    output.say(text.trim_end());
    output.document(&json!({ "name": name, "profile": text }));
    Ok(Exit::Done)
}

/// `board explain`.
pub fn explain(file: &Path, output: &Output) -> Result<Exit, Failure> {
    match Loaded::open(file) {
        Ok(loaded) => {
            let lines = explained::lines(&loaded.profile);
            lines.iter().for_each(|line| output.say(line));
            output.document(&json!({ "file": loaded.file, "profile": explained::document(&loaded.profile) }));
            Ok(Exit::Done)
        }
        Err(faults) => Ok(tell(file, &faults, output)),
    }
}

fn tell(file: &Path, faults: &[Fault], output: &Output) -> Exit {
    faults.iter().for_each(|fault| output.say(fault));
    let documents: Vec<Value> = faults
        .iter()
        .map(|fault| json!({ "file": fault.file, "line": fault.at.0, "column": fault.at.1, "what": fault.what }))
        .collect();
    output.document(
        &json!({ "file": file.display().to_string(), "faults": faults.len(), "fault_list": documents }),
    );
    if faults.is_empty() { Exit::Done } else { Exit::Usage }
}
