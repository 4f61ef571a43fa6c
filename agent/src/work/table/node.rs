//! A node and its cluster. Source: ours.

use crate::work::entry::{Arg, Ask, Document, Entry, Kind, Place, Role};

/// A node and its cluster.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "agent",
        help: "Run a node of a cluster until a signal stops it",
        role: Role::Administrator,
        place: Place::Here,
        changes: true,
        ask: None,
        args: &[Arg::option(
            "board",
            Kind::Path,
            "The node's profile: a file, or the name of one that ships (`windlass \
             board explain loopback`)",
        )
        .required()],
        documents: &[],
    },
    Entry {
        name: "status",
        help: "Show what the cluster does: nodes, coordinator, running backups, last \
               points and errors",
        role: Role::Viewer,
        place: Place::OnlyAgent,
        changes: false,
        ask: Some(Ask { name: "status", args: &[] }),
        args: &[Arg::flag("watch", "Show it again and again, until Ctrl-C")],
        documents: &[Document::of("", "status")],
    },
    Entry {
        name: "console",
        help: "A shell with all commands, for a terminal or a serial line",
        role: Role::Viewer,
        place: Place::Here,
        changes: false,
        ask: None,
        args: &[
            Arg::option(
                "tty",
                Kind::Path,
                "Serve this serial line instead of the terminal; who leaves is followed by the next one",
            ),
            Arg::option("baud", Kind::Number, "Speed of the line in bits a second [default: as it is set]"),
            Arg::flag("no-flow", "Do without XON and XOFF on the line"),
            Arg::flag("modem", "The line hangs up when carrier detect goes away"),
            Arg::option(
                "role",
                Kind::Choice(&["viewer", "operator", "restorer", "installer", "administrator"]),
                "What who sits at the line may do [default: viewer; without --tty what the agent allows]",
            ),
            Arg::option(
                "serial",
                Kind::Text,
                "What is typed before something is destroyed [default: the machine's serial number, else \
                 the begin of its id]",
            ),
        ],
        documents: &[],
    },
    Entry {
        name: "support",
        help: "Make one file for those who help: versions, status, log, store and volumes, without secrets",
        role: Role::Viewer,
        place: Place::Here,
        changes: true,
        ask: None,
        args: &[Arg::word(
            "file",
            Kind::Path,
            "Where to write it; '-' is stdout, and a name that ends in .tar is not compressed [default: a \
             name with host and time, here]",
        )],
        documents: &[Document::of("", "support")],
    },
    Entry {
        name: "coordinator move",
        help: "Hand the coordinator's work over to a node",
        role: Role::Installer,
        place: Place::OnlyAgent,
        changes: true,
        ask: Some(Ask {
            name: "move",
            args: &[Arg::word("node", Kind::Number, "The node's number").required()],
        }),
        args: &[Arg::word("node", Kind::Number, "The node's number").required()],
        documents: &[Document::of("", "coordinator move")],
    },
    Entry {
        name: "flush",
        help: "Have all nodes send what they have packed",
        role: Role::Operator,
        place: Place::OnlyAgent,
        changes: true,
        ask: Some(Ask { name: "flush", args: &[] }),
        args: &[],
        documents: &[Document::of("", "flush")],
    },
    Entry {
        name: "identify",
        help: "Say which node this is and which repository it has",
        role: Role::Viewer,
        place: Place::Socket,
        changes: false,
        ask: Some(Ask { name: "identify", args: &[] }),
        args: &[],
        documents: &[],
    },
    Entry {
        name: "lines",
        help: "Say the last lines of the agent's log",
        role: Role::Administrator,
        place: Place::Socket,
        changes: false,
        ask: Some(Ask {
            name: "lines",
            args: &[Arg::word("after", Kind::Number, "Those after the line of this number").required()],
        }),
        args: &[],
        documents: &[],
    },
    Entry {
        name: "submit",
        help: "Commit records that a command made: changes of policies, points and \
               settings",
        role: Role::Viewer,
        place: Place::Socket,
        changes: true,
        ask: Some(Ask {
            name: "submit",
            args: &[Arg::word("records", Kind::Hex, "Records of the log, in its own encoding").required()],
        }),
        args: &[],
        documents: &[],
    },
];
