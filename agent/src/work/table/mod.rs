//! The one table of commands: name, arguments, role, help, replies.
//!
//! | file | commands |
//! |---|---|
//! | [`setup`] | `repo`, `policy` |
//! | [`points`] | `backup`, `stop`, `points`, `point`, `retention`, `gc` |
//! | [`read`] | `ls`, `stat`, `find`, `cat`, `restore`, `check` |
//! | [`node`] | `agent`, `status`, `coordinator`, `flush`, and what only programs ask |
//! | [`here`] | `demo`, `pki`, `volume`, `board`, `commands` |
//!
//! What comes from it: where a command runs and whether it changes something (`board/src/cli`), the requests of the control socket
//! ([`request`](super::request)), the role that a command or a record needs, the name under which it is recorded, and what
//! `windlass commands` prints. Tests compare it with the grammar of the command line, `board/doc/commands.md` and `board/doc/json.md`.
//!
//! Invariants: names are unique, so are the names of requests. Does not: run anything. Source: ours.

pub mod here;
pub mod node;
pub mod points;
pub mod read;
pub mod setup;

use super::entry::{Ask, Entry};

/// Commands that take away or overwrite what cannot be brought back, or only for a while. A console asks before it carries one out.
pub const DESTRUCTIVE: &[&str] = &[
    "gc",
    "key remove",
    "point expire",
    "policy delete",
    "removal approve",
    "repo rebuild",
    "restore",
    "retention run",
];

/// All commands, in the order in which help lists them.
pub fn all() -> impl Iterator<Item = &'static Entry> {
    [setup::ENTRIES, points::ENTRIES, read::ENTRIES, node::ENTRIES, here::ENTRIES].into_iter().flatten()
}

/// The command of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Entry> {
    all().find(|entry| entry.name == name)
}

/// The request of this name on the control socket, and its command.
#[must_use]
pub fn find_ask(name: &str) -> Option<(&'static Entry, &'static Ask)> {
    all().filter_map(|entry| Some((entry, entry.ask.as_ref()?))).find(|(_, ask)| ask.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::work::entry::{Kind, Place, Role};

    #[test]
    fn each_change_of_an_administrator_destroys_or_is_known_not_to() {
        // Cannot destroy: what it makes is new, or is said again.
        const HARMLESS: [&str; 12] = [
            "agent",
            "key add",
            "key passphrase",
            "pki client",
            "pki init",
            "pki issue",
            "point release",
            "point undo",
            "removal withdraw",
            "repo set",
            "role grant",
            "role revoke",
        ];
        for entry in all().filter(|entry| entry.changes && entry.role == Role::Administrator) {
            let known = [DESTRUCTIVE.contains(&entry.name), HARMLESS.contains(&entry.name)];
            assert!(known[0] != known[1], "{}: does it destroy something?", entry.name);
        }
        assert!(DESTRUCTIVE.iter().all(|name| find(name).is_some_and(|entry| entry.changes)));
    }

    #[test]
    fn names_are_unique_and_arguments_can_be_written() {
        let (mut names, mut asks) = (BTreeSet::new(), BTreeSet::new());
        for entry in all() {
            assert!(names.insert(entry.name) && find(entry.name) == Some(entry), "{}", entry.name);
            assert!(entry.name.split(' ').count() <= 2 && !entry.help.ends_with('.'), "{}", entry.name);
            let lists = [entry.args].into_iter().chain(entry.ask.map(|ask| ask.args));
            for args in lists {
                let mut seen = BTreeSet::new();
                for arg in args {
                    let plain = arg.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
                    assert!(plain && seen.insert(arg.name), "{}: {}", entry.name, arg.name);
                    assert!(!arg.help.is_empty(), "{}: {} has no help", entry.name, arg.name);
                    assert!(arg.kind != Kind::Flag || !arg.positional && !arg.required, "{}", arg.name);
                }
                // What is positional and may be left out or repeated comes last.
                let words: Vec<_> = args.iter().filter(|arg| arg.positional).collect();
                assert!(words.windows(2).all(|two| two[0].required && !two[0].many || !two[1].required));
            }
            if let Some(ask) = entry.ask {
                assert!(asks.insert(ask.name) && find_ask(ask.name).is_some(), "{}", ask.name);
                assert!(matches!(entry.place, Place::Agent | Place::OnlyAgent | Place::Socket));
            }
            assert!(entry.ask.is_some() || !matches!(entry.place, Place::OnlyAgent | Place::Socket));
        }
        assert_eq!(find("no such command"), None);
        assert_eq!(find_ask("policy set"), None);
    }
}
