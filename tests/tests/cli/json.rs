//! What `--json` prints is what `board/doc/json.md` says: every command on a real repository, each field and its type.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which say so by failing")]

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use windlass_board::schema::Schema;
use windlass_tests::cli::Cli;
use windlass_tests::engines::scratch::Scratch;

/// The tables of `board/doc/json.md`.
struct Tables(Schema);

impl Tables {
    /// What is wrong with a document, by the table of this name.
    fn wrong(&self, name: &str, document: &Value) -> Vec<String> {
        let Some(table) = self.0.table(name) else { return vec![format!("no table {name}")] };
        let Some(object) = document.as_object() else {
            return vec![format!("{name}: no object: {document}")];
        };
        let mut out = Vec::new();
        for (key, value) in object.iter().filter(|(key, _)| *key != "event") {
            match table.iter().find(|field| field.name == key) {
                None => out.push(format!("{name}.{key} is not in the table: {value}")),
                Some(field) => self.wrong_type(&format!("{name}.{key}"), field.kind, value, &mut out),
            }
        }
        let missing = table.iter().filter(|field| !field.optional && !object.contains_key(field.name));
        out.extend(missing.map(|field| format!("{name}.{} is missing", field.name)));
        out
    }

    fn wrong_type(&self, place: &str, kind: &str, value: &Value, out: &mut Vec<String>) {
        if let Some(kind) = kind.strip_suffix(" or null") {
            if !value.is_null() {
                self.wrong_type(place, kind, value, out);
            }
            return;
        }
        if let Some(kind) = kind.strip_prefix("list of ") {
            match value.as_array() {
                Some(list) => list.iter().for_each(|one| self.wrong_type(place, kind, one, out)),
                None => out.push(format!("{place}: no list: {value}")),
            }
            return;
        }
        let fits = match kind {
            "number" => value.is_number(),
            "text" => value.is_string(),
            "bool" => value.is_boolean(),
            "any" => !value.is_null(),
            table => {
                out.extend(self.wrong(table, value).into_iter().map(|what| format!("{place}: {what}")));
                true
            }
        };
        if !fits {
            out.push(format!("{place}: not {kind}: {value}"));
        }
    }
}

/// Runs commands with `--json` and compares what they print with the tables.
struct Checker {
    cli: Cli,
    schema: Tables,
}

impl Checker {
    /// `events` is which table each event's documents are of; `""` is the one document of a command.
    fn run(&self, arguments: &[&str], exit: i32, events: &[(&str, &str)]) {
        let ended = self.cli.run(&[arguments, &["--json"]].concat());
        assert_eq!(ended.code, exit, "{arguments:?}: {}{}", ended.stdout, ended.stderr);
        let documents = ended.documents();
        assert!(!documents.is_empty(), "{arguments:?} printed nothing");
        let mut seen = Vec::new();
        for document in &documents {
            let event = document["event"].as_str().unwrap_or_default();
            seen.push(event.to_owned());
            let table = events.iter().find(|(name, _)| *name == event);
            let table = table.or((event == "progress").then_some(&("progress", "progress")));
            let (_, table) =
                table.unwrap_or_else(|| unreachable!("{arguments:?}: event {event:?}: {document}"));
            assert_eq!(self.schema.wrong(table, document), Vec::<String>::new(), "{arguments:?}");
        }
        for (event, _) in events {
            assert!(
                seen.iter().any(|name| name == event),
                "{arguments:?}: no event {event:?} among {seen:?}"
            );
        }
    }
}

/// A small ext4 image with a file, a directory, a link, a pipe and a name that is not UTF-8; false (loudly) where mke2fs is missing.
fn image(scratch: &Scratch) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let tree = scratch.path().join("tree");
    fs::create_dir_all(tree.join("docs")).unwrap();
    fs::write(tree.join("docs/a.txt"), vec![1; 200_000]).unwrap();
    fs::write(tree.join(std::ffi::OsStr::from_bytes(b"odd\xff")), "x").unwrap();
    std::os::unix::fs::symlink("docs/a.txt", tree.join("link")).unwrap();
    drop(UnixDatagram::bind(tree.join("socket")).unwrap());
    let image = scratch.path().join("image");
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    let made = Command::new("/usr/sbin/mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-d"])
        .arg(&tree)
        .arg(&image)
        .status();
    let made = made.is_ok_and(|status| status.success());
    if !made {
        eprintln!("SKIPPED: mke2fs is missing or failed");
    }
    made
}

#[test]
fn every_document_is_as_its_table_says() {
    let scratch = Scratch::new("cli-json");
    if !image(&scratch) {
        return;
    }
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(scratch.path());
    let check = Checker { cli, schema: Tables(Schema::read()) };
    check.run(&["repo", "init"], 0, &[("", "repo init")]);
    check.run(&["repo", "init"], 1, &[("", "failure")]);
    check.run(&["repo", "probe"], 0, &[("", "repo probe")]);
    check.run(
        &[
            "policy",
            "set",
            "a",
            "--volume",
            &path("image"),
            "--exclude",
            "*.tmp",
            "--every",
            "6h",
            "--limit-up",
            "1GiB",
            "--keep-daily",
            "7",
            "--keep-within",
            "14d",
        ],
        0,
        &[("", "policy set")],
    );
    check.run(
        &["policy", "set", "raw", "--volume", &format!("{}=image", path("image"))],
        0,
        &[("", "policy set")],
    );
    check.run(&["policy", "show", "a"], 0, &[("", "Policy")]);
    check.run(
        &["backup", "a", "--dry-run"],
        0,
        &[("volume", "backup --dry-run: volume"), ("done", "backup --dry-run: done")],
    );
    check.run(&["backup", "a"], 0, &[("done", "backup: done")]);
    check.run(&["backup", "raw"], 0, &[("done", "backup: done")]);
    check.run(&["backup", "none"], 1, &[("", "failure")]);
    check.run(&["role", "grant", "uid:0", "administrator"], 0, &[("", "role grant")]);
    check.run(&["role", "list"], 0, &[("", "role list")]);
    check.run(&["removal", "list"], 0, &[("", "removal list")]);
    check.run(&["log"], 0, &[("", "log")]);
    check.run(&["policy", "rename", "raw", "cooked"], 0, &[("", "policy rename")]);
    check.run(&["policy", "delete", "cooked"], 0, &[("", "policy delete")]);
    check.run(&["policy", "list"], 0, &[("", "policy list")]);
    check.run(&["repo", "info"], 0, &[("", "repo info")]);
    check.run(&["key", "list"], 0, &[("", "key")]);
    check.run(&["key", "add", "--new-key-file", &path("second")], 0, &[("", "key")]);
    check.run(&["repo", "set", "--lease", "20s"], 0, &[("", "repo set")]);
    check.run(&["points", "a"], 0, &[("", "points")]);
    check.run(&["stats"], 0, &[("", "stats: policies")]);
    check.run(&["stats", "a"], 0, &[("", "stats")]);
    check.run(&["point", "hold", "a@1", "--reason", "audit"], 0, &[("", "point")]);
    check.run(&["point", "tag", "a", "release"], 0, &[("", "point")]);
    check.run(&["points", "a"], 0, &[("", "points")]);
    check.run(&["point", "expire", "a@1"], 1, &[("", "failure")]);
    check.run(&["points", "cooked"], 0, &[("", "points")]);
    check.run(&["retention", "run", "a"], 0, &[("", "retention run")]);
    check.run(&["gc", "--dry-run"], 0, &[("marked", "gc: marked")]);
    check.run(&["gc"], 0, &[("done", "gc: done")]);
    check.run(&["repo", "info"], 0, &[("", "repo info")]);
    check.run(
        &["retention", "simulate", "--every", "1d", "--for", "1mo", "--keep-weekly", "2"],
        0,
        &[("", "retention simulate")],
    );
    check.run(&["ls", "a", "/"], 0, &[("entry", "ls: entry"), ("done", "ls: done")]);
    check.run(&["ls", "cooked", "/"], 0, &[("entry", "ls: entry"), ("done", "ls: done")]);
    check.run(&["find", "a"], 0, &[("entry", "find: entry"), ("done", "find: done")]);
    check.run(&["ls", "a", "--deleted"], 0, &[("done", "ls: done")]);
    check.run(&["history", "a", "/docs/a.txt"], 0, &[("", "history")]);
    check.run(&["history", "a", "/docs/b.txt"], 1, &[("", "failure")]);
    check.run(&["table", "items", "a"], 0, &[("row", "table items: row"), ("done", "table: done")]);
    check.run(&["table", "blocks", "a"], 0, &[("row", "table blocks: row"), ("done", "table: done")]);
    check.run(&["point", "diff", "a@1", "a"], 0, &[("done", "point diff: done")]);
    for item in ["/", "/docs/a.txt", "/link", "/socket"] {
        check.run(&["stat", "a", item], 0, &[("", "stat")]);
    }
    check.run(
        &["restore", "a", "--to", &path("out"), "--dry-run"],
        0,
        &[("done", "restore --dry-run: done")],
    );
    check.run(&["restore", "a", "--to", &path("out")], 0, &[("done", "restore: done")]);
    // Another file in its place is a fault.
    fs::write(scratch.path().join("out/docs/a.txt"), "another").unwrap();
    check.run(&["restore", "a", "--to", &path("out")], 3, &[("done", "restore: done")]);
    check.run(
        &["restore", "a", "--to", &path("out"), "--plan", "--existing", "different"],
        0,
        &[("done", "restore --dry-run: done")],
    );
    check.run(&["restore", "a", "--to", &path("out"), "--abandon"], 0, &[("", "restore --abandon")]);
    check.run(&["restore", "a", "--to", &path("out"), "--in-place"], 0, &[("done", "restore: done")]);
    check.run(&["restore", "cooked", "--to-device", &path("copy")], 0, &[("done", "restore: done")]);
    check.run(&["check", "a"], 0, &[("done", "check: done")]);
    let objects = scratch.path().join("repository/obj");
    let mut all: Vec<_> = walk(&objects);
    all.sort();
    fs::remove_file(all.first().unwrap()).unwrap();
    check.run(&["check", "a", "--read-data"], 3, &[("done", "check: done")]);
    check.run(&["repo", "rebuild"], 0, &[("done", "repo rebuild: done")]);
    check.run(&["volume", "info", &path("image")], 0, &[("", "volume info")]);
    check.run(&["volume", "check", &path("image")], 0, &[("done", "volume check: done")]);
    check.run(&["commands"], 0, &[("", "commands")]);
    check.run(&["board", "new", "loopback"], 0, &[("", "board new")]);
    check.run(&["board", "explain", "loopback"], 0, &[("", "board explain")]);
    fs::write(path("board.toml"), "[node]\nid = 1\nname = \"one\"\nweight = 3\n").unwrap();
    check.run(&["board", "check", &path("board.toml")], 2, &[("", "board check")]);
    check.run(&["pki", "init", "--dir", &path("pki")], 0, &[("", "pki init")]);
    check.run(&["pki", "issue", "--node", "1", "--dir", &path("pki")], 0, &[("", "pki issue")]);
    check.run(&["pki", "client", "--name", "alice", "--dir", &path("pki")], 0, &[("", "pki client")]);
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
