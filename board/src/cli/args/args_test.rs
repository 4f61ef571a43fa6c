//! The grammar of the command line: sound, with examples, and all of it in `board/doc/commands.md`.

use clap::CommandFactory;

use super::Cli;

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
