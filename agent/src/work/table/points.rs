//! Backups, and the points that they make. Source: ours.

use crate::work::entry::{Arg, Ask, Document, Entry, Kind, Place, Role};

/// Backups, and the points that they make.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "backup",
        help: "Back up a policy's volumes into a new recovery point",
        role: Role::Operator,
        place: Place::Agent,
        changes: true,
        ask: Some(Ask {
            name: "backup",
            args: &[Arg::word("policy", Kind::Text, "The policy's name").required()],
        }),
        args: &[
            Arg::word("name", Kind::Text, "The policy").required(),
            Arg::flag(
                "no-wait",
                "With an agent: start it and return, it goes on by itself. Without: fail \
                 at once when another windlass has locked the repository, like `--wait 0`",
            ),
            Arg::flag(
                "paranoid",
                "Open and compare all that was packed before it is sent, not only a \
                 sample: for a machine whose memory or processor is in doubt",
            ),
            Arg::flag(
                "dry-run",
                "Write nothing: read the volumes' metadata and say how much a backup \
                 would read",
            ),
        ],
        documents: &[
            Document::of("volume", "backup --dry-run: volume"),
            Document::of("done", "backup --dry-run: done"),
            Document::of("progress", "progress"),
            Document::of("difference", "difference"),
            Document::of("done", "backup: done"),
            Document::of("begun", "backup through an agent: begun"),
            Document::of("done", "backup through an agent: done"),
        ],
    },
    Entry {
        name: "stop",
        help: "Stop the running backup of a policy; the next one goes on where it was",
        role: Role::Operator,
        place: Place::OnlyAgent,
        changes: true,
        ask: Some(Ask {
            name: "stop",
            args: &[Arg::word("policy", Kind::Text, "The policy's name").required()],
        }),
        args: &[Arg::word("name", Kind::Text, "The policy").required()],
        documents: &[Document::of("", "stop")],
    },
    Entry {
        name: "points",
        help: "List the recovery points of a policy",
        role: Role::Viewer,
        place: Place::ItsRepository,
        changes: false,
        ask: None,
        args: &[Arg::word("name", Kind::Text, "The policy").required()],
        documents: &[Document::of("", "points")],
    },
    Entry {
        name: "point hold",
        help: "Hold a point: no rule and no command expires it until it is released",
        role: Role::Operator,
        place: Place::Agent,
        changes: true,
        ask: None,
        args: &[
            Arg::word(
                "target",
                Kind::Point,
                "The point: the policy's name and the point's number or time, as in \
                 home@17",
            )
            .required(),
            Arg::option("reason", Kind::Text, "Why, for those who find it later; at most 256 bytes")
                .required(),
        ],
        documents: &[Document::of("", "point")],
    },
    Entry {
        name: "point release",
        help: "Release a held point: rules count for it again",
        role: Role::Administrator,
        place: Place::Agent,
        changes: true,
        ask: None,
        args: &[Arg::word(
            "target",
            Kind::Point,
            "The point: the policy's name and the point's number or time, as in \
             home@17",
        )
        .required()],
        documents: &[Document::of("", "point")],
    },
    Entry {
        name: "point note",
        help: "Give a point a note, or none",
        role: Role::Operator,
        place: Place::Agent,
        changes: true,
        ask: None,
        args: &[
            Arg::word(
                "target",
                Kind::Point,
                "The point: the policy's name and the point's number or time, as in \
                 home@17",
            )
            .required(),
            Arg::word("text", Kind::Text, "The note, at most 256 bytes; empty for none").required(),
        ],
        documents: &[Document::of("", "point")],
    },
    Entry {
        name: "point tag",
        help: "Give a point tags in place of those that it has; without any it has none",
        role: Role::Operator,
        place: Place::Agent,
        changes: true,
        ask: None,
        args: &[
            Arg::word(
                "target",
                Kind::Point,
                "The point: the policy's name and the point's number or time, as in \
                 home@17",
            )
            .required(),
            Arg::word(
                "tags",
                Kind::Text,
                "Tags: 1 to 64 letters, digits, '.', '_', '-', ':' or '=' each, at most \
                 16",
            )
            .many(),
        ],
        documents: &[Document::of("", "point")],
    },
    Entry {
        name: "point expire",
        help: "Expire a point, whatever the rules say",
        role: Role::Administrator,
        place: Place::Agent,
        changes: true,
        ask: None,
        args: &[Arg::word(
            "target",
            Kind::Point,
            "The point: the policy's name and the point's number, as in home@17",
        )
        .required()],
        documents: &[Document::of("", "point")],
    },
    Entry {
        name: "point undo",
        help: "Bring back a point that expired, as long as its policy's `--undo` says",
        role: Role::Operator,
        place: Place::Agent,
        changes: true,
        ask: None,
        args: &[Arg::word(
            "target",
            Kind::Point,
            "The point: the policy's name and the point's number, as in home@17",
        )
        .required()],
        documents: &[Document::of("", "point")],
    },
    Entry {
        name: "retention run",
        help: "Expire the points of a policy that none of its rules keeps, as each \
               backup does by itself",
        role: Role::Administrator,
        place: Place::Agent,
        changes: true,
        ask: None,
        args: &[
            Arg::word("name", Kind::Text, "The policy").required(),
            Arg::flag("dry-run", "Expire nothing: show which points would go and why the others stay"),
            Arg::option(
                "yes-expire",
                Kind::Number,
                "Expire even if it is more than half of the points, which must be just \
                 so many",
            ),
        ],
        documents: &[Document::of("", "retention run")],
    },
    Entry {
        name: "gc",
        help: "Give back the space that no recovery point needs",
        role: Role::Administrator,
        place: Place::Agent,
        changes: true,
        ask: None,
        args: &[
            Arg::flag("dry-run", "Show what no point needs, and change nothing"),
            Arg::option(
                "budget",
                Kind::Bytes,
                "Bytes of live blocks that may be moved out of objects which are mostly dead [default: 64GiB]",
            ),
            Arg::flag("no-rewrite", "Delete only what is wholly dead, and move nothing"),
        ],
        documents: &[Document::of("done", "gc: done"), Document::of("marked", "gc: marked")],
    },
    Entry {
        name: "retention simulate",
        help: "See which points would stay after years of backups; needs no repository",
        role: Role::Viewer,
        place: Place::Here,
        changes: false,
        ask: None,
        args: &[
            Arg::option("every", Kind::Duration, "Time between backups, at least 1m").required(),
            Arg::option("for", Kind::Span, "How long backups are made").required(),
            Arg::option(
                "zone",
                Kind::Text,
                "On whose clock days, weeks and so on are counted [default: UTC]",
            ),
            Arg::option("keep-last", Kind::Count, "The newest N points; all is a number too, here and below"),
            Arg::option(
                "keep-minutely",
                Kind::Count,
                "The newest point of each of the newest N minutes that have one",
            ),
            Arg::option("keep-hourly", Kind::Count, "The same by hours"),
            Arg::option("keep-daily", Kind::Count, "By days"),
            Arg::option("keep-weekly", Kind::Count, "By weeks, from Monday on"),
            Arg::option("keep-monthly", Kind::Count, "By months"),
            Arg::option("keep-quarterly", Kind::Count, "By quarters"),
            Arg::option("keep-yearly", Kind::Count, "By years"),
            Arg::option(
                "keep-within",
                Kind::Span,
                "All points that are less than this older than the newest, such as 14d \
                 or 1y2mo",
            ),
            Arg::option("keep-within-hourly", Kind::Span, "Of those within this, the newest of each hour"),
            Arg::option("keep-within-daily", Kind::Span, "Of each day"),
            Arg::option("keep-within-weekly", Kind::Span, "Of each week"),
            Arg::option("keep-within-monthly", Kind::Span, "Of each month"),
            Arg::option("keep-within-yearly", Kind::Span, "Of each year"),
            Arg::option(
                "keep-tag",
                Kind::Text,
                "All points that have each of these tags (with commas between); may be \
                 repeated, one list is enough to keep a point",
            )
            .many(),
            Arg::option("keep-at-least", Kind::Number, "Never fewer than N points"),
        ],
        documents: &[Document::of("", "retention simulate")],
    },
];
