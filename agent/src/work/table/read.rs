//! What reads points. Source: ours.

use crate::work::entry::{Arg, Document, Entry, Kind, Place, Role};

/// What reads points.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "ls",
        help: "List a directory in a recovery point",
        role: Role::Restorer,
        place: Place::ItsRepository,
        changes: false,
        ask: None,
        args: &[
            Arg::word(
                "target",
                Kind::Point,
                "The policy, and which of its points: a number, latest, or the newest by \
                 a time such as 2026-11-21 or 2026-11-21T03:16",
            )
            .required(),
            Arg::option(
                "volume",
                Kind::Text,
                "Which volume of a policy that has several: its device, or its number as \
                 `points --json` prints it",
            ),
            Arg::word("path", Kind::Path, "Path from the volume's root"),
            Arg::flag("long", "Mode, owner, size and time too"),
            Arg::flag(
                "deleted",
                "List what is not in the directory any more, and the newest point that has it",
            ),
        ],
        documents: &[
            Document::of("entry", "ls: entry"),
            Document::of("deleted", "deleted"),
            Document::of("done", "ls: done"),
        ],
    },
    Entry {
        name: "stat",
        help: "Show everything that is known of one path in a recovery point",
        role: Role::Restorer,
        place: Place::ItsRepository,
        changes: false,
        ask: None,
        args: &[
            Arg::word(
                "target",
                Kind::Point,
                "The policy, and which of its points: a number, latest, or the newest by \
                 a time such as 2026-11-21 or 2026-11-21T03:16",
            )
            .required(),
            Arg::option(
                "volume",
                Kind::Text,
                "Which volume of a policy that has several: its device, or its number as \
                 `points --json` prints it",
            ),
            Arg::word("path", Kind::Path, "Path from the volume's root").required(),
        ],
        documents: &[Document::of("", "stat")],
    },
    Entry {
        name: "find",
        help: "Search names in a recovery point",
        role: Role::Restorer,
        place: Place::ItsRepository,
        changes: false,
        ask: None,
        args: &[
            Arg::word(
                "target",
                Kind::Point,
                "The policy, and which of its points: a number, latest, or the newest by \
                 a time such as 2026-11-21 or 2026-11-21T03:16",
            )
            .required(),
            Arg::option(
                "volume",
                Kind::Text,
                "Which volume of a policy that has several: its device, or its number as \
                 `points --json` prints it",
            ),
            Arg::word("path", Kind::Path, "Where to begin, from the volume's root; or a pattern, as with --name"),
            Arg::option("name", Kind::Text, "Only names that match: '*', '?', '[a-z]', '{a,b}'"),
            Arg::option("type", Kind::Choice(&["file", "dir", "link", "special"]), "Only items of this type"),
            Arg::option("larger", Kind::Bytes, "Only files larger than this"),
            Arg::flag(
                "deleted",
                "Search among what is not there any more, and say which is the newest point that has it",
            ),
        ],
        documents: &[
            Document::of("entry", "find: entry"),
            Document::of("deleted", "deleted"),
            Document::of("done", "find: done"),
        ],
    },
    Entry {
        name: "cat",
        help: "Write the contents of a file in a recovery point to stdout",
        role: Role::Restorer,
        place: Place::ItsRepository,
        changes: false,
        ask: None,
        args: &[
            Arg::word(
                "target",
                Kind::Point,
                "The policy, and which of its points: a number, latest, or the newest by \
                 a time such as 2026-11-21 or 2026-11-21T03:16",
            )
            .required(),
            Arg::option(
                "volume",
                Kind::Text,
                "Which volume of a policy that has several: its device, or its number as \
                 `points --json` prints it",
            ),
            Arg::word("path", Kind::Path, "Path from the volume's root").required(),
        ],
        documents: &[],
    },
    Entry {
        name: "stats",
        help: "Show sizes by policy, point and type of file, and what a point alone holds",
        role: Role::Restorer,
        place: Place::ItsRepository,
        changes: false,
        ask: None,
        args: &[Arg::word(
            "target",
            Kind::Point,
            "The policy, and the point whose files are counted [default: the newest]; all policies without it",
        )],
        documents: &[Document::of("", "stats"), Document::of("", "stats: policies")],
    },
    Entry {
        name: "history",
        help: "Show all versions of one path over all recovery points",
        role: Role::Restorer,
        place: Place::ItsRepository,
        changes: false,
        ask: None,
        args: &[
            Arg::word(
                "target",
                Kind::Point,
                "The policy, and which of its points: a number, latest, or the newest by \
                 a time such as 2026-11-21 or 2026-11-21T03:16",
            )
            .required(),
            Arg::option(
                "volume",
                Kind::Text,
                "Which volume of a policy that has several: its device, or its number as \
                 `points --json` prints it",
            ),
            Arg::word("path", Kind::Path, "Path from the volume's root").required(),
        ],
        documents: &[Document::of("", "history")],
    },
    Entry {
        name: "mount",
        help: "Show points as a read-only file system",
        role: Role::Restorer,
        place: Place::ItsRepository,
        changes: false,
        ask: None,
        args: &[
            Arg::word("target", Kind::Point, "The policy, and one of its points; all of them without @POINT")
                .required(),
            Arg::word("directory", Kind::Path, "An existing directory").required(),
            Arg::flag(
                "allow-other",
                "Let other users look too, with the owners, modes and ACLs that files have",
            ),
        ],
        documents: &[Document::of("", "mount")],
    },
    Entry {
        name: "table items",
        help: "Print the metadata table as a point has it: a row per name, and the deletions since",
        role: Role::Restorer,
        place: Place::ItsRepository,
        changes: false,
        ask: None,
        args: &[
            Arg::word(
                "target",
                Kind::Point,
                "The policy, and which of its points: a number, latest, or the newest by \
                 a time such as 2026-11-21 or 2026-11-21T03:16",
            )
            .required(),
            Arg::option(
                "volume",
                Kind::Text,
                "Which volume of a policy that has several: its device, or its number as \
                 `points --json` prints it",
            ),
            Arg::word("path", Kind::Path, "Path from the volume's root"),
            Arg::flag("csv", "Lines of comma-separated values; so it is without --json"),
            Arg::flag("without-deleted", "Leave deletions out"),
        ],
        documents: &[Document::of("row", "table items: row"), Document::of("done", "table: done")],
    },
    Entry {
        name: "table blocks",
        help: "Print the block location table as a point has it: where each block of each file is",
        role: Role::Restorer,
        place: Place::ItsRepository,
        changes: false,
        ask: None,
        args: &[
            Arg::word(
                "target",
                Kind::Point,
                "The policy, and which of its points: a number, latest, or the newest by \
                 a time such as 2026-11-21 or 2026-11-21T03:16",
            )
            .required(),
            Arg::option(
                "volume",
                Kind::Text,
                "Which volume of a policy that has several: its device, or its number as \
                 `points --json` prints it",
            ),
            Arg::word("path", Kind::Path, "Path from the volume's root"),
            Arg::flag("csv", "Lines of comma-separated values; so it is without --json"),
            Arg::flag("without-deleted", "Leave deletions out"),
        ],
        documents: &[Document::of("row", "table blocks: row"), Document::of("done", "table: done")],
    },
    Entry {
        name: "point diff",
        help: "Show what two points differ in: names, contents, attributes",
        role: Role::Restorer,
        place: Place::ItsRepository,
        changes: false,
        ask: None,
        args: &[
            Arg::word("old", Kind::Point, "The first point").required(),
            Arg::word("new", Kind::Point, "The second point").required(),
        ],
        documents: &[Document::of("entry", "point diff: entry"), Document::of("done", "point diff: done")],
    },
    Entry {
        name: "restore",
        help: "Restore a point, or some of its paths, to a directory or a device",
        role: Role::Restorer,
        place: Place::ItsRepository,
        changes: true,
        ask: None,
        args: &[
            Arg::word(
                "target",
                Kind::Point,
                "The policy, and which of its points: a number, latest, or the newest by \
                 a time such as 2026-11-21 or 2026-11-21T03:16",
            )
            .required(),
            Arg::option(
                "volume",
                Kind::Text,
                "Which volume of a policy that has several: its device, or its number as \
                 `points --json` prints it",
            ),
            Arg::word(
                "paths",
                Kind::Path,
                "Paths or patterns from the volume's root; everything when there is none",
            )
            .many(),
            Arg::option(
                "include",
                Kind::Text,
                "Restore what matches, as a path does; a name without a slash in any directory",
            )
            .many(),
            Arg::option(
                "exclude",
                Kind::Text,
                "Leave out what matches, with everything below: '*.tmp' in any directory, '/home/*/cache' from the root",
            )
            .many(),
            Arg::option("to", Kind::Path, "Restore files below this directory"),
            Arg::option(
                "to-device",
                Kind::Path,
                "Restore a volume image to this device, or to this new file",
            ),
            Arg::option(
                "existing",
                Kind::Choice(&["refuse", "skip", "different", "overwrite"]),
                "What to do with a name that is taken",
            ),
            Arg::flag(
                "in-place",
                "Compare what is there with the point, byte by byte, and write only what \
                 differs",
            ),
            Arg::option(
                "map-owner",
                Kind::Text,
                "Another owner: user OLD becomes NEW; UID:GID=UID:GID for both, :GID=:GID \
                 for groups; by number, ACLs too",
            )
            .many(),
            Arg::flag(
                "abandon",
                "Restore nothing: remove what restores that ended early left below DIR to \
                 go on with; what they finished stays",
            ),
            Arg::flag(
                "dry-run",
                "Write nothing: say how much would be written and fetched, which names are \
                 taken, and what would become of each",
            ),
        ],
        documents: &[
            Document::of("done", "restore --dry-run: done"),
            Document::of("done", "restore --abandon"),
            Document::of("progress", "progress"),
            Document::of("done", "restore: done"),
        ],
    },
    Entry {
        name: "check",
        help: "Check that a point can be restored: every reference, or every byte",
        role: Role::Operator,
        place: Place::ItsRepository,
        changes: false,
        ask: None,
        args: &[
            Arg::word(
                "target",
                Kind::Point,
                "The policy, and which of its points: a number, latest, or the newest by \
                 a time such as 2026-11-21 or 2026-11-21T03:16",
            )
            .required(),
            Arg::option(
                "volume",
                Kind::Text,
                "Which volume of a policy that has several: its device, or its number as \
                 `points --json` prints it",
            ),
            Arg::flag("read-data", "Read and verify every byte too, not only that it is there"),
        ],
        documents: &[Document::of("progress", "progress"), Document::of("done", "check: done")],
    },
];
