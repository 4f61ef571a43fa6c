//! The grammar of the command line: sound, with examples, and all of it in `board/doc/commands.md`.

use std::any::TypeId;
use std::path::PathBuf;

use clap::builder::ValueParser;
use clap::{ArgAction, CommandFactory};
use windlass_agent::policy::retention::{Count, Span};
use windlass_agent::policy::schedule::TimeOfDay;
use windlass_agent::policy::{Compression, Reader};
use windlass_agent::work::entry::{Arg, Kind, Place};
use windlass_agent::work::table;

use super::Cli;
use super::mount::Shown;
use super::value::{Bytes, Duration, Rate, VolumeSpec};
use crate::point::{Named, Target};

#[test]
fn the_command_tree_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn the_reference_has_every_command_and_option() {
    const REFERENCE: &str = include_str!("../../../doc/commands.md");
    fn look(command: &clap::Command, name: &str, missing: &mut Vec<String>) {
        let has =
            |text: &str| ["`", " ", ",", "\n"].iter().any(|end| REFERENCE.contains(&format!("{text}{end}")));
        let options = command.get_arguments().filter(|arg| !arg.is_hide_set());
        let options = options.filter_map(|arg| arg.get_long().map(|long| format!("--{long}")));
        let commands = command.get_subcommands().next().is_none().then(|| format!("`{name}"));
        missing.extend(options.chain(commands).filter(|text| !has(text)));
        for below in command.get_subcommands() {
            look(below, format!("{name} {}", below.get_name()).trim(), missing);
        }
    }
    let mut missing = Vec::new();
    look(&Cli::command(), "", &mut missing);
    assert!(missing.is_empty(), "board/doc/commands.md is without {missing:?}");
}

#[test]
fn every_command_has_an_example() {
    fn look(command: &clap::Command) {
        let leaf = command.get_subcommands().next().is_none();
        let help = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string);
        assert!(!leaf || help.is_some_and(|help| help.contains("windlass ")), "{}", command.get_name());
        command.get_subcommands().for_each(look);
    }
    look(&Cli::command());
}

/// The kind of value that an option takes, as the table of commands calls it.
fn kind(arg: &clap::Arg) -> String {
    if !arg.get_action().takes_values() {
        return "Kind::Flag".to_owned();
    }
    let words: Vec<_> =
        arg.get_possible_values().iter().map(|value| format!("{:?}", value.get_name())).collect();
    if !words.is_empty() {
        return format!("Kind::Choice(&[{}])", words.join(", "));
    }
    let parser: &ValueParser = arg.get_value_parser();
    let kinds = [
        (TypeId::of::<String>(), Kind::Text),
        (TypeId::of::<PathBuf>(), Kind::Path),
        (TypeId::of::<u8>(), Kind::Number),
        (TypeId::of::<u32>(), Kind::Number),
        (TypeId::of::<u64>(), Kind::Number),
        (TypeId::of::<usize>(), Kind::Number),
        (TypeId::of::<Bytes>(), Kind::Bytes),
        (TypeId::of::<Rate>(), Kind::Rate),
        (TypeId::of::<Duration>(), Kind::Duration),
        (TypeId::of::<Span>(), Kind::Span),
        (TypeId::of::<Count>(), Kind::Count),
        (TypeId::of::<TimeOfDay>(), Kind::TimeOfDay),
        (TypeId::of::<Target>(), Kind::Point),
        (TypeId::of::<Named>(), Kind::Point),
        (TypeId::of::<Shown>(), Kind::Point),
        (TypeId::of::<VolumeSpec>(), Kind::Volume),
        (TypeId::of::<Reader>(), Kind::Reader),
        (TypeId::of::<Compression>(), Kind::Compression),
    ];
    let known = kinds.iter().find(|(id, _)| parser.type_id() == *id);
    known.map_or_else(
        || "Kind::? (add it here and to work::entry::Kind)".to_owned(),
        |(_, kind)| format!("Kind::{kind:?}"),
    )
}

/// The arguments of a command of the grammar, each as the table writes it.
fn args_of(command: &clap::Command) -> Vec<String> {
    let own = command.get_arguments().filter(|arg| !arg.is_global_set() && !arg.is_hide_set());
    let own = own.filter(|arg| !["help", "version"].contains(&arg.get_id().as_str()));
    own.map(|arg| {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let name = arg.get_long().map_or_else(|| arg.get_id().as_str().replace('_', "-"), str::to_owned);
        let many = matches!(arg.get_action(), ArgAction::Append);
        let ends = [(arg.is_required_set(), ".required()"), (many, ".many()")];
        let ends: String = ends.into_iter().filter(|(is, _)| *is).map(|(_, end)| end).collect();
        match (arg.is_positional(), kind(arg)) {
            (false, kind) if kind == "Kind::Flag" => format!("Arg::flag({name:?}, {help:?}){ends}"),
            (true, kind) => format!("Arg::word({name:?}, {kind}, {help:?}){ends}"),
            (false, kind) => format!("Arg::option({name:?}, {kind}, {help:?}){ends}"),
        }
    })
    .collect()
}

/// The commands of the grammar that do something, by name.
fn leaves(command: &clap::Command, name: &str, found: &mut Vec<(String, clap::Command)>) {
    if command.get_subcommands().next().is_none() {
        found.push((name.to_owned(), command.clone()));
    }
    for below in command.get_subcommands() {
        leaves(below, format!("{name} {}", below.get_name()).trim(), found);
    }
}

/// An argument as the table writes it.
fn written(arg: &Arg) -> String {
    let kind = match arg.kind {
        Kind::Choice(words) => format!("Kind::Choice(&{words:?})"),
        kind => format!("Kind::{kind:?}"),
    };
    let ends = [(arg.required, ".required()"), (arg.many, ".many()")];
    let ends: String = ends.into_iter().filter(|(is, _)| *is).map(|(_, end)| end).collect();
    let (name, help) = (arg.name, arg.help);
    match (arg.positional, arg.kind) {
        (_, Kind::Flag) => format!("Arg::flag({name:?}, {help:?}){ends}"),
        (true, _) => format!("Arg::word({name:?}, {kind}, {help:?}){ends}"),
        (false, _) => format!("Arg::option({name:?}, {kind}, {help:?}){ends}"),
    }
}

#[test]
fn the_table_of_commands_has_what_the_grammar_has() {
    let mut found = Vec::new();
    leaves(&Cli::command(), "", &mut found);
    for (name, command) in &found {
        let entry = table::find(name);
        let args = args_of(command).join(",\n");
        let help = command.get_about().map(ToString::to_string).unwrap_or_default();
        let entry = entry.unwrap_or_else(|| {
            unreachable!("agent/src/work/table is without {name:?}: help: {help:?}, args: &[\n{args}\n]")
        });
        assert_eq!(entry.help, help, "agent/src/work/table: {name}");
        let have = entry.args.iter().map(written).collect::<Vec<_>>().join(",\n");
        assert_eq!(have, args, "agent/src/work/table: the arguments of {name} must be\n{args}\n");
        assert_ne!(entry.place, Place::Socket, "{name}");
    }
    for entry in table::all().filter(|entry| entry.place != Place::Socket) {
        assert!(found.iter().any(|(name, _)| name == entry.name), "no command line has {:?}", entry.name);
    }
}

#[test]
fn the_reference_says_where_each_command_runs() {
    const REFERENCE: &str = include_str!("../../../doc/commands.md");
    for row in REFERENCE.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [commands, _, place] = cells[..] else { continue };
        let place = place.trim_end_matches('|').trim();
        for command in commands.split('`').skip(1).step_by(2).filter(|command| !command.starts_with('-')) {
            let plain = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase());
            let name = command.split(' ').take_while(plain).collect::<Vec<_>>().join(" ");
            let Some(entry) = table::find(&name) else { continue };
            assert!(
                place.is_empty() || place.starts_with(entry.place.name()),
                "board/doc/commands.md, {name}: {place}"
            );
        }
    }
}
