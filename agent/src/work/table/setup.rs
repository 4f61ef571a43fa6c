//! Repositories and policies. Source: ours.

use crate::work::entry::{Arg, Document, Entry, Kind, Place, Role};

/// Repositories and policies.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "repo init",
        help: "Make a repository in an empty place of a store",
        role: Role::Installer,
        place: Place::Here,
        changes: true,
        ask: None,
        args: &[
            Arg::flag(
                "no-encryption",
                "Store everything readable to whoever can read the store (checksums \
                 only, no encryption)",
            ),
            Arg::option(
                "location-blocks",
                Kind::Number,
                "Blocks per row of the block location table, 1 to 64; fixed for the \
                 repository's life",
            ),
            Arg::flag("force", "Make it beside other things that are there already"),
            Arg::option(
                "also-endpoint",
                Kind::Text,
                "Race over this server of the same store too when it is tested, besides \
                 --endpoint; may be given several times",
            )
            .many(),
        ],
        documents: &[Document::of("", "repo init")],
    },
    Entry {
        name: "repo probe",
        help: "Test whether a store does what a repository needs",
        role: Role::Installer,
        place: Place::ItsRepository,
        changes: false,
        ask: None,
        args: &[Arg::option(
            "also-endpoint",
            Kind::Text,
            "Race over this server of the same store too, besides --endpoint; may be \
             given several times",
        )
        .many()],
        documents: &[Document::of("", "repo probe")],
    },
    Entry {
        name: "repo info",
        help: "Describe a repository: where, how locked, policies, points, segments",
        role: Role::Viewer,
        place: Place::ItsRepository,
        changes: false,
        ask: None,
        args: &[],
        documents: &[Document::of("", "repo info")],
    },
    Entry {
        name: "key list",
        help: "List the keys and passphrases that open the repository",
        role: Role::Administrator,
        place: Place::ItsRepository,
        changes: false,
        ask: None,
        args: &[],
        documents: &[Document::of("", "key")],
    },
    Entry {
        name: "key add",
        help: "Let one more key file or passphrase open the repository",
        role: Role::Administrator,
        place: Place::ItsRepository,
        changes: true,
        ask: None,
        args: &[
            Arg::option("new-key-file", Kind::Path, "A key file; made if it does not exist"),
            Arg::option("new-passphrase-file", Kind::Path, "A file with a passphrase"),
        ],
        documents: &[Document::of("", "key")],
    },
    Entry {
        name: "key remove",
        help: "Let a key open the repository no more",
        role: Role::Administrator,
        place: Place::ItsRepository,
        changes: true,
        ask: None,
        args: &[Arg::word("id", Kind::Text, "The key's number").required()],
        documents: &[Document::of("", "key")],
    },
    Entry {
        name: "key passphrase",
        help: "Change the passphrase that opens the repository",
        role: Role::Administrator,
        place: Place::ItsRepository,
        changes: true,
        ask: None,
        args: &[Arg::option("new-passphrase-file", Kind::Path, "A file with the new passphrase")],
        documents: &[Document::of("", "key")],
    },
    Entry {
        name: "repo set",
        help: "Change what all users of a repository go by",
        role: Role::Administrator,
        place: Place::Agent,
        changes: true,
        ask: None,
        args: &[
            Arg::option(
                "lease",
                Kind::Duration,
                "How long the lock holds without a sign of life, such as 60s",
            ),
            Arg::option(
                "gc-every",
                Kind::Duration,
                "How often nodes give space back by themselves, such as 1d; 0s: never",
            ),
            Arg::option(
                "gc-window",
                Kind::Duration,
                "How long what nothing needs is kept before it is deleted, such as 1d",
            ),
        ],
        documents: &[Document::of("", "repo set")],
    },
    Entry {
        name: "repo rebuild",
        help: "Build the tables anew from upload objects alone, and the commit log \
               from what is left of it when it is damaged",
        role: Role::Administrator,
        place: Place::ItsRepository,
        changes: true,
        ask: None,
        args: &[],
        documents: &[Document::of("progress", "progress"), Document::of("done", "repo rebuild: done")],
    },
    Entry {
        name: "policy set",
        help: "Make a policy, or change what is given of one",
        role: Role::Installer,
        place: Place::Agent,
        changes: true,
        ask: None,
        args: &[
            Arg::word("name", Kind::Text, "The policy: 1 to 64 letters, digits, '.', '_' or '-'").required(),
            Arg::option(
                "volume",
                Kind::Volume,
                "A block device or image file, and how to read it (=auto, =raw, =ext4, \
                 =mounted or =image); may be repeated; replaces those before",
            )
            .many(),
            Arg::option(
                "include",
                Kind::Text,
                "Take only what matches; may be repeated; replaces those before",
            )
            .many(),
            Arg::option(
                "exclude",
                Kind::Text,
                "Leave out what matches; may be repeated; replaces those before",
            )
            .many(),
            Arg::option(
                "exclude-file",
                Kind::Path,
                "Leave out what the lines of this file match, besides --exclude ('-' is \
                 stdin); empty lines and those with # in front say nothing",
            )
            .many(),
            Arg::flag("no-include", "Remove all include patterns"),
            Arg::flag("no-exclude", "Remove all exclude patterns"),
            Arg::option(
                "block-size",
                Kind::Bytes,
                "Unit in which changes are found, a power of two from 4KiB to 4MiB \
                 [default: 128KiB]",
            ),
            Arg::option(
                "object-size",
                Kind::Bytes,
                "Size of an upload object, 4MiB to 256MiB [default: 16MiB]",
            ),
            Arg::option(
                "flush-interval",
                Kind::Duration,
                "How long data may wait for its object to fill [default: 60s]",
            ),
            Arg::option(
                "compression",
                Kind::Compression,
                "none, or zstd:LEVEL with a level from 1 to 19 [default: zstd:1]",
            ),
            Arg::option(
                "verify",
                Kind::Number,
                "After each backup, compare N random items with the file system as the \
                 kernel shows it; 0 for none (needs root)",
            ),
            Arg::flag(
                "all-blocks",
                "Store free blocks of images too, for forensic use; else what a clean \
                 ext4 or XFS calls free restores as zeros",
            ),
            Arg::flag("no-all-blocks", "Leave free blocks of images out again"),
            Arg::option(
                "every",
                Kind::Duration,
                "Back up at multiples of this time, 1m to 366d: 6h is 00:00, 06:00 and so on \
                 in UTC, whole days are at midnight in the policy's zone",
            ),
            Arg::option(
                "at",
                Kind::TimeOfDay,
                "Back up at this time of the day in the policy's zone; without --every each \
                 day, otherwise that must be whole days",
            ),
            Arg::option(
                "cron",
                Kind::Text,
                "Back up at the minutes that these five fields name in the policy's zone: \
                 minute, hour, day of the month, month, day of the week",
            ),
            Arg::option(
                "window",
                Kind::Text,
                "Begin backups by schedule only in this part of the day, in the policy's \
                 zone; what is due outside of it waits until it opens",
            ),
            Arg::flag("no-window", "Begin them at any time of the day again"),
            Arg::option(
                "zone",
                Kind::Text,
                "On whose clock the schedule is, and days, weeks and so on of retention \
                 rules are: an IANA name such as Europe/Berlin [default: UTC]",
            ),
            Arg::flag("no-schedule", "Remove the schedule: back up only when somebody asks for it"),
            Arg::option("from", Kind::Path, "Read the whole policy from a JSON file ('-' is stdin) first"),
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
            Arg::option(
                "min-age",
                Kind::Duration,
                "No rule and no command expires a point before it is so old; 0 for none. \
                 Less than before counts for points that are made later",
            ),
            Arg::option(
                "undo",
                Kind::Duration,
                "For so long after a point expired `point undo` brings it back, and its \
                 space is not used again; 0 for not at all. Likewise",
            ),
            Arg::option(
                "approve-removal",
                Kind::Duration,
                "A second subject must approve what removes points, or lets them be removed, so \
                 long after it was asked for at the earliest; 0 for at once (`windlass removal`)",
            ),
            Arg::flag(
                "no-approve-removal",
                "Let one subject alone remove points; where a second one is needed, that is asked \
                 for too",
            ),
            Arg::option(
                "limit",
                Kind::Text,
                "Limits in a part of each day, in the policy's zone, in place of the general \
                 ones: '08:00-18:00 20MiB/s' for uploads, or up, down and iops, 0 for none; of \
                 several at a time the lowest; may be repeated; replaces those before",
            )
            .many(),
            Arg::flag("no-limit", "Remove all limits by the time of day"),
            Arg::option(
                "priority",
                Kind::Text,
                "Of backups that wait for their turn, those of the highest priority begin \
                 first: -100 to 100 [default: 0]",
            ),
            Arg::flag("no-keep", "Remove all retention rules: all points stay"),
        ],
        documents: &[Document::of("", "policy set")],
    },
    Entry {
        name: "policy show",
        help: "Explain a policy: what counts, where it comes from, and when its next \
               backups are; with --json as `policy set --from` takes it",
        role: Role::Viewer,
        place: Place::ItsRepository,
        changes: false,
        ask: None,
        args: &[Arg::word("name", Kind::Text, "The policy").required()],
        documents: &[Document::of("", "Policy")],
    },
    Entry {
        name: "policy list",
        help: "List all policies",
        role: Role::Viewer,
        place: Place::ItsRepository,
        changes: false,
        ask: None,
        args: &[],
        documents: &[Document::of("", "policy list")],
    },
    Entry {
        name: "policy rename",
        help: "Give a policy another name; its points, schedule and unfinished backup go \
               with it",
        role: Role::Installer,
        place: Place::Agent,
        changes: true,
        ask: None,
        args: &[
            Arg::word("old", Kind::Text, "The policy").required(),
            Arg::word("new", Kind::Text, "Its new name, which no policy has or had").required(),
        ],
        documents: &[Document::of("", "policy rename")],
    },
    Entry {
        name: "policy delete",
        help: "Remove a policy; its points stay and can be restored, unless --with-points \
               is given",
        role: Role::Installer,
        place: Place::Agent,
        changes: true,
        ask: None,
        args: &[
            Arg::word("name", Kind::Text, "The policy").required(),
            Arg::flag(
                "with-points",
                "Expire its points too: all of them, so none may be held, or younger than \
                 its minimum age",
            ),
        ],
        documents: &[Document::of("", "policy delete")],
    },
    Entry {
        name: "role grant",
        help: "Give a subject roles, besides those that it has",
        role: Role::Administrator,
        place: Place::Agent,
        changes: true,
        ask: None,
        args: &[
            Arg::word("subject", Kind::Text, "uid:N, gid:N or cert:NAME").required(),
            Arg::word("roles", Kind::Text, "viewer, operator, restorer, installer, administrator")
                .required()
                .many(),
            Arg::option("policy", Kind::Text, "For this policy only; may be repeated").many(),
        ],
        documents: &[Document::of("", "role grant")],
    },
    Entry {
        name: "role list",
        help: "List subjects with their roles, and what was refused",
        role: Role::Viewer,
        place: Place::ItsRepository,
        changes: false,
        ask: None,
        args: &[],
        documents: &[Document::of("", "role list")],
    },
    Entry {
        name: "removal list",
        help: "List what was asked for and waits for a second subject",
        role: Role::Viewer,
        place: Place::ItsRepository,
        changes: false,
        ask: None,
        args: &[],
        documents: &[Document::of("", "removal list")],
    },
    Entry {
        name: "removal approve",
        help: "Do what another subject asked for",
        role: Role::Administrator,
        place: Place::Agent,
        changes: true,
        ask: None,
        args: &[Arg::word("number", Kind::Number, "The request's number").required()],
        documents: &[Document::of("", "removal approve")],
    },
    Entry {
        name: "removal withdraw",
        help: "Take back a request, or refuse one",
        role: Role::Administrator,
        place: Place::Agent,
        changes: true,
        ask: None,
        args: &[Arg::word("number", Kind::Number, "The request's number").required()],
        documents: &[Document::of("", "removal approve")],
    },
    Entry {
        name: "role revoke",
        help: "Take roles from a subject: those that are named, or all",
        role: Role::Administrator,
        place: Place::Agent,
        changes: true,
        ask: None,
        args: &[
            Arg::word("subject", Kind::Text, "uid:N, gid:N or cert:NAME").required(),
            Arg::word("roles", Kind::Text, "Only these roles").many(),
            Arg::option("policy", Kind::Text, "Only those for this policy; may be repeated").many(),
        ],
        documents: &[Document::of("", "role grant")],
    },
    Entry {
        name: "log",
        help: "Show who did what, and when",
        role: Role::Viewer,
        place: Place::ItsRepository,
        changes: false,
        ask: None,
        args: &[
            Arg::option("last", Kind::Number, "Only the newest N lines [default: 100]"),
            Arg::flag("all", "Also which node began and ceased to coordinate"),
            Arg::option(
                "policy",
                Kind::Text,
                "Only what is about this policy and its points, also under an earlier name",
            ),
        ],
        documents: &[Document::of("", "log")],
    },
];
