//! What needs no repository. Source: ours.

use crate::work::entry::{Arg, Document, Entry, Kind, Place, Role};

/// What needs no repository.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "demo",
        help: "See a real file system go to objects and back on this machine, with \
               nothing to configure",
        role: Role::Viewer,
        place: Place::Here,
        changes: true,
        ask: None,
        args: &[
            Arg::option(
                "dir",
                Kind::Path,
                "Where to work: a directory that does not exist yet or is empty \
                 [default: a new one below the temporary directory]",
            ),
            Arg::option("size", Kind::Bytes, "Take files up to this size in all"),
            Arg::option(
                "source",
                Kind::Path,
                "Take files from here instead of from the system's own directories; may \
                 be repeated",
            )
            .many(),
            Arg::flag("shipped", "Use the image that is shipped with the program"),
            Arg::flag("clean", "Remove everything at the end"),
        ],
        documents: &[],
    },
    Entry {
        name: "pki init",
        help: "Make a CA for a cluster",
        role: Role::Administrator,
        place: Place::Here,
        changes: true,
        ask: None,
        args: &[
            Arg::option("dir", Kind::Path, "Where to put the CA; made if it is not there").required(),
            Arg::option("days", Kind::Number, "How long the CA's certificate is valid"),
        ],
        documents: &[Document::of("", "pki init")],
    },
    Entry {
        name: "pki issue",
        help: "Make a key and a certificate for a node",
        role: Role::Administrator,
        place: Place::Here,
        changes: true,
        ask: None,
        args: &[
            Arg::option("dir", Kind::Path, "Where the CA is").required(),
            Arg::option("node", Kind::Number, "The node's id, as its board profile says").required(),
            Arg::option(
                "host",
                Kind::Text,
                "A host name or IP address by which programs and browsers reach the node's API; \
                 may be repeated",
            )
            .many(),
            Arg::option("days", Kind::Number, "How long the certificate is valid"),
            Arg::flag("renew", "Replace the certificate, keep the key"),
        ],
        documents: &[Document::of("", "pki issue")],
    },
    Entry {
        name: "pki client",
        help: "Make a key and a certificate for one who asks the API: a person's browser, or a program",
        role: Role::Administrator,
        place: Place::Here,
        changes: true,
        ask: None,
        args: &[
            Arg::option("dir", Kind::Path, "Where the CA is").required(),
            Arg::option(
                "name",
                Kind::Text,
                "Who it is for: a host name or one word, in lower case; roles are given to cert:NAME",
            )
            .required(),
            Arg::option("days", Kind::Number, "How long the certificate is valid"),
        ],
        documents: &[Document::of("", "pki client")],
    },
    Entry {
        name: "volume info",
        help: "What is on a device, and what the reader would refuse and why",
        role: Role::Viewer,
        place: Place::Here,
        changes: false,
        ask: None,
        args: &[
            Arg::word("device", Kind::Path, "A block device or image file").required(),
            Arg::option("reader", Kind::Reader, "How to read it: auto, raw, ext4, mounted or image"),
        ],
        documents: &[Document::of("", "volume info")],
    },
    Entry {
        name: "volume verify",
        help: "Compare what the raw reader reads of a volume with the file system as \
               the kernel shows it",
        role: Role::Viewer,
        place: Place::Here,
        changes: false,
        ask: None,
        args: &[
            Arg::word("device", Kind::Path, "A block device or image file").required(),
            Arg::option("sample", Kind::Number, "Look at so many items, drawn at random"),
            Arg::flag("all", "Look at all items"),
            Arg::option(
                "seed",
                Kind::Number,
                "Draw the same items again [default: different ones each time, the seed \
                 is printed]",
            ),
        ],
        documents: &[
            Document::of("progress", "progress"),
            Document::of("difference", "difference"),
            Document::of("done", "volume verify: done"),
        ],
    },
    Entry {
        name: "volume check",
        help: "Look for damage: items that cannot be read, blocks with two owners, \
               names that lead nowhere",
        role: Role::Viewer,
        place: Place::Here,
        changes: false,
        ask: None,
        args: &[
            Arg::word("device", Kind::Path, "A block device or image file").required(),
            Arg::option("reader", Kind::Reader, "How to read it: auto, raw, ext4 or mounted"),
        ],
        documents: &[
            Document::of("progress", "progress"),
            Document::of("finding", "volume check: finding"),
            Document::of("done", "volume check: done"),
        ],
    },
    Entry {
        name: "board check",
        help: "Check a profile on this machine without starting anything",
        role: Role::Viewer,
        place: Place::Here,
        changes: false,
        ask: None,
        args: &[Arg::word(
            "file",
            Kind::Path,
            "A profile's path, or the name of one that comes with the program: \
             generic-x86_64, loopback",
        )
        .required()],
        documents: &[Document::of("", "board check")],
    },
    Entry {
        name: "board new",
        help: "Print a profile that comes with the program, as a file to start from",
        role: Role::Viewer,
        place: Place::Here,
        changes: false,
        ask: None,
        args: &[Arg::word("name", Kind::Text, "generic-x86_64 or loopback").required()],
        documents: &[Document::of("", "board new")],
    },
    Entry {
        name: "board explain",
        help: "Print a profile with its defaults filled in, and how the memory adds up",
        role: Role::Viewer,
        place: Place::Here,
        changes: false,
        ask: None,
        args: &[Arg::word(
            "file",
            Kind::Path,
            "A profile's path, or the name of one that comes with the program: \
             generic-x86_64, loopback",
        )
        .required()],
        documents: &[Document::of("", "board explain")],
    },
    Entry {
        name: "commands",
        help: "List all commands: what each does, who may use it, and where it runs",
        role: Role::Viewer,
        place: Place::Here,
        changes: false,
        ask: None,
        args: &[],
        documents: &[Document::of("", "commands")],
    },
    Entry {
        name: "completions",
        help: "Print what makes a shell complete commands and options",
        role: Role::Viewer,
        place: Place::Here,
        changes: false,
        ask: None,
        args: &[Arg::word("shell", Kind::Choice(&["bash", "zsh", "fish"]), "The shell").required()],
        documents: &[],
    },
];
