//! What an entry of the table of commands says.
//!
//! Invariants: plain data that the compiler checks. Does not: know a terminal, a socket or JSON; faces read it. Source: ours.

use std::fmt;

/// Who may use a command. Roles do not include each other: a subject may have several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Sees how things are: status, policies, points. No names and contents of backed-up files.
    Viewer,
    /// Starts and stops backups, holds and describes points, checks.
    Operator,
    /// Reads names and contents of points, and restores them.
    Restorer,
    /// Makes repositories, policies, boards and certificates.
    Installer,
    /// Everything, and what cannot be undone: expires points, repairs the log, gives roles.
    Administrator,
}

impl Role {
    /// All of them, the weakest first.
    pub const ALL: [Role; 5] =
        [Role::Viewer, Role::Operator, Role::Restorer, Role::Installer, Role::Administrator];

    /// Its name, as people and programs write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Restorer => "restorer",
            Role::Installer => "installer",
            Role::Administrator => "administrator",
        }
    }

    /// The role of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Whether one who has this role may do what needs `needed`: an administrator may do everything, everyone may do what a viewer may.
    #[must_use]
    pub fn may(self, needed: Role) -> bool {
        self == needed || self == Role::Administrator || needed == Role::Viewer
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a command runs, and what it needs of an agent of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the process that was started; it needs no agent and no repository of one.
    Here,
    /// In the process that was started; an agent only says which repository and which key, unless that was given.
    ItsRepository,
    /// In the cluster of the agent if one runs, else in the process that was started.
    Agent,
    /// In the cluster of the agent, and nowhere else.
    OnlyAgent,
    /// It is a request of programs that talk to an agent: the command line has no such command.
    Socket,
}

/// Type of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Yes or no; absent is no. It takes no value.
    Flag,
    /// Text.
    Text,
    /// A path on the machine that runs the command.
    Path,
    /// A whole number, 0 or more.
    Number,
    /// A size in bytes, such as `128KiB`.
    Bytes,
    /// A limit in bytes a second, such as `10MiB`; 0 is none.
    Rate,
    /// A time of milliseconds to days, such as `60s`.
    Duration,
    /// A span of the calendar, such as `1y2mo`.
    Span,
    /// A number of points, or `all`.
    Count,
    /// A time of the day, such as `02:30`.
    TimeOfDay,
    /// A policy and one of its points, such as `home@17`.
    Point,
    /// A device and how to read it, such as `/dev/vg0/home=image`.
    Volume,
    /// How to read a device: `auto`, `raw`, `ext4`, `mounted`, `image`.
    Reader,
    /// How to compress: `none` or `zstd:LEVEL`.
    Compression,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Bytes, as hex digits.
    Hex,
}

impl Kind {
    /// What its values are, for one who wrote another.
    #[must_use]
    pub fn expected(self) -> &'static str {
        match self {
            Kind::Flag => "write true or false",
            Kind::Text => "write text",
            Kind::Path => "write a path",
            Kind::Number => "write a whole number, 0 or more",
            Kind::Bytes => "write a size such as 128KiB",
            Kind::Rate => "write a size in bytes a second such as 10MiB, or 0",
            Kind::Duration => "write a time such as 60s",
            Kind::Span => "write a span such as 1y2mo",
            Kind::Count => "write a number, or all",
            Kind::TimeOfDay => "write a time of the day such as 02:30",
            Kind::Point => "write a policy and a point such as home@17",
            Kind::Volume => "write a device such as /dev/vg0/home=image",
            Kind::Reader => "write auto, raw, ext4, mounted or image",
            Kind::Compression => "write none, or zstd:LEVEL",
            Kind::Choice(_) => "write one of the words that the help lists",
            Kind::Hex => "write hex digits",
        }
    }

    /// Its name, for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Flag => "flag",
            Kind::Text => "text",
            Kind::Path => "path",
            Kind::Number => "number",
            Kind::Bytes => "bytes",
            Kind::Rate => "rate",
            Kind::Duration => "duration",
            Kind::Span => "span",
            Kind::Count => "count",
            Kind::TimeOfDay => "time_of_day",
            Kind::Point => "point",
            Kind::Volume => "volume",
            Kind::Reader => "reader",
            Kind::Compression => "compression",
            Kind::Choice(_) => "choice",
            Kind::Hex => "hex",
        }
    }
}

impl Place {
    /// Whether it uses an agent of this machine, as `board/doc/commands.md` and `windlass commands` say it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Place::Here => "no",
            Place::ItsRepository => "its repository",
            Place::Agent => "yes",
            Place::OnlyAgent => "only so",
            Place::Socket => "socket",
        }
    }
}

/// An argument of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arg {
    /// Its name, in lower case with hyphens: `keep-daily` is the option `--keep-daily`, and `keep-daily` in a request.
    pub name: &'static str,
    /// Type of its value.
    pub kind: Kind,
    /// What it means: what `--help` says.
    pub help: &'static str,
    /// The command line takes it by its position, not by `--name`.
    pub positional: bool,
    /// The command cannot do without it.
    pub required: bool,
    /// It may be given more than once.
    pub many: bool,
}

impl Arg {
    /// An option that takes a value.
    #[must_use]
    pub const fn option(name: &'static str, kind: Kind, help: &'static str) -> Arg {
        Arg { name, kind, help, positional: false, required: false, many: false }
    }

    /// An option without a value.
    #[must_use]
    pub const fn flag(name: &'static str, help: &'static str) -> Arg {
        Arg::option(name, Kind::Flag, help)
    }

    /// A positional argument that may be left out.
    #[must_use]
    pub const fn word(name: &'static str, kind: Kind, help: &'static str) -> Arg {
        Arg { positional: true, ..Arg::option(name, kind, help) }
    }

    /// The same, which must be given.
    #[must_use]
    pub const fn required(self) -> Arg {
        Arg { required: true, ..self }
    }

    /// The same, which may be given more than once.
    #[must_use]
    pub const fn many(self) -> Arg {
        Arg { many: true, ..self }
    }
}

/// What programs ask of an agent: one line of the control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Its name on the socket.
    pub name: &'static str,
    /// Its fields. Fewer than the arguments of the command line: how to wait and what to print are not the agent's.
    pub args: &'static [Arg],
}

/// A document that a command prints with `--json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document {
    /// The event that it is, one of several; empty: the command's only document.
    pub event: &'static str,
    /// Name of its fields' table in `board/doc/json.md`.
    pub schema: &'static str,
}

impl Document {
    /// A document of an event, with the name of its table.
    #[must_use]
    pub const fn of(event: &'static str, schema: &'static str) -> Document {
        Document { event, schema }
    }
}

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name: one or two words with a space between, such as `policy set`. What was done is recorded under it.
    pub name: &'static str,
    /// What it does: one line that begins with a verb.
    pub help: &'static str,
    /// Who may use it.
    pub role: Role,
    /// Where it runs.
    pub place: Place,
    /// It changes something, so its lines are about what it did and `--quiet` leaves them out. The others answer a question.
    pub changes: bool,
    /// The request to an agent that does it by itself. A command that changes records sends them with `submit` instead.
    pub ask: Option<Ask>,
    /// Arguments besides the options of every command.
    pub args: &'static [Arg],
    /// Documents that it prints with `--json`.
    pub documents: &'static [Document],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_may_do_what_it_is_for() {
        for role in Role::ALL {
            assert_eq!(Role::of_name(role.name()), Some(role));
            assert!(role.may(role) && role.may(Role::Viewer) && Role::Administrator.may(role));
            assert_eq!(role.may(Role::Administrator), role == Role::Administrator);
        }
        assert!(!Role::Operator.may(Role::Restorer) && !Role::Restorer.may(Role::Operator));
        assert_eq!(Role::of_name("root"), None);
    }
}
