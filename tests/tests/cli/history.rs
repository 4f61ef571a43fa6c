//! The command line looking over time: versions of a path, what is deleted, and paths of other points.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use windlass_tests::cli::Cli;
use windlass_tests::error::output;
use windlass_tests::workdir::Workdir;

/// Changes an ext4 image without mounting it.
fn debugfs(image: &Path, script: &str) {
    let file = image.with_extension("debugfs");
    fs::write(&file, script).unwrap();
    output(Command::new("debugfs").arg("-w").arg("-f").arg(&file).arg(image)).unwrap();
}

struct Repo {
    work: Workdir,
    cli: Cli,
}

/// Four points: a file, replaced by a rename, its directory renamed, and deleted; a directory that goes with what is in it.
fn repo() -> Repo {
    let work = Workdir::new("cli-history").unwrap();
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    fs::create_dir_all(tree.join("docs/old/deep")).unwrap();
    fs::write(tree.join("docs/plan.txt"), "one\n").unwrap();
    fs::write(tree.join("docs/other.txt"), "other\n").unwrap();
    fs::write(tree.join("docs/old/deep/lost.xls"), vec![7; 9000]).unwrap();
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    let made = Command::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-d"]).args([&tree, &image]).status();
    assert!(made.unwrap().success());
    fs::write(work.join("two"), "two, longer\n").unwrap();
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(work.path());
    cli.ok(&["repo", "init"]);
    cli.ok(&["policy", "set", "a", "--volume", image.to_str().unwrap()]);
    cli.ok(&["backup", "a"]);
    let two = work.join("two");
    let scripts = [
        format!(
            "write {} docs/tmp\nrm docs/plan.txt\nln docs/tmp docs/plan.txt\nunlink docs/tmp\n",
            two.display()
        ),
        "ln docs papers\nunlink docs\n".to_owned(),
        "rm papers/plan.txt\nrm papers/old/deep/lost.xls\nrmdir papers/old/deep\nrmdir papers/old\n"
            .to_owned(),
    ];
    for script in scripts {
        debugfs(&image, &script);
        cli.ok(&["backup", "a"]);
    }
    Repo { work, cli }
}

fn entries(document: &Value) -> Vec<(u64, u64, String, bool, Option<String>)> {
    let entry = |entry: &Value| {
        let number = |field: &str| entry[field].as_u64().unwrap();
        let path = entry["path"].as_str().map(str::to_owned);
        let change = entry["change"].as_str().unwrap().to_owned();
        (number("first_point"), number("last_point"), change, entry["present"].as_bool().unwrap(), path)
    };
    document["entries"].as_array().unwrap().iter().map(entry).collect()
}

#[test]
fn a_path_has_its_versions_across_replaced_files_and_renamed_directories() {
    let Repo { work, cli } = repo();
    let document = cli.json(&["history", "a", "/papers/plan.txt"]);
    let old = Some("/docs/plan.txt".to_owned());
    let expected = [
        (1, 1, "appeared".to_owned(), true, old.clone()),
        (2, 2, "replaced".to_owned(), true, old),
        (3, 3, "attributes".to_owned(), true, None),
        (4, 4, "deleted".to_owned(), false, None),
    ];
    let found = entries(&document);
    assert_eq!(found.len(), 4, "{document}");
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!((found.0, found.1, found.3, &found.4), (expected.0, expected.1, expected.3, &expected.4));
    }
    assert_eq!((&*found[0].2, &*found[1].2, &*found[3].2), ("appeared", "replaced", "deleted"));
    let list = document["entries"].as_array().unwrap();
    assert_ne!(list[0]["inode"], list[1]["inode"], "the editor made another file");
    assert_eq!((&list[0]["size"], &list[1]["size"]), (&4.into(), &12.into()));
    assert!(list[3]["found"].is_string(), "a deletion says when it was missed: {document}");
    // By its old name too; and up to a point only.
    let document = cli.json(&["history", "a", "/docs/plan.txt"]);
    assert_eq!(entries(&document)[2].4.as_deref(), Some("/papers/plan.txt"), "{document}");
    assert_eq!(entries(&cli.json(&["history", "a@2", "docs/plan.txt"])).len(), 2);
    let text = cli.ok(&["history", "a", "/papers/plan.txt"]);
    assert!(text.contains("as /docs/plan.txt") && text.contains("3 versions"), "{text}");
    assert!(text.contains("/papers/plan.txt@3"), "{text}");

    // Each can be had.
    assert_eq!(cli.ok(&["cat", "a", "/docs/plan.txt@1"]), "one\n");
    assert_eq!(cli.ok(&["cat", "a", "/papers/plan.txt@1"]), "one\n", "by its path now");
    assert_eq!(cli.ok(&["cat", "a", "papers/plan.txt@3"]), "two, longer\n");
    assert_eq!(cli.json(&["stat", "a", "/papers/plan.txt@2"])["point"], 2);
    let out = work.join("out");
    cli.ok(&["restore", "a", "/papers/plan.txt@2", "papers/other.txt", "--to", out.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(out.join("docs/plan.txt")).unwrap(), "two, longer\n");
    assert_eq!(fs::read_to_string(out.join("papers/other.txt")).unwrap(), "other\n");

    let ended = cli.run(&["history", "a", "/papers/Othr.txt"]);
    assert_eq!(ended.code, 1);
    assert!(ended.failure().contains("there is /papers/other.txt"), "{}", ended.stderr);
    let ended = cli.run(&["history", "a", "/nowhere/x"]);
    assert!(ended.code == 1 && ended.failure().contains("no point of policy a has /nowhere/x"));
    assert_eq!(cli.run(&["cat", "a", "/papers/plan.txt@9"]).code, 1);
}

#[test]
fn what_is_deleted_is_listed_with_the_point_that_has_it() {
    let Repo { work: _work, cli } = repo();
    let gone = |arguments: &[&str]| -> Vec<(String, u64, String, bool)> {
        let ended = cli.run(&[arguments, &["--json"]].concat());
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let documents = ended.documents();
        let gone = documents.iter().filter(|document| document["event"] == "deleted");
        gone.map(|document| {
            let text = |field: &str| document[field].as_str().unwrap_or_default().to_owned();
            assert!(document["lives_on"] == true || !document["found"].is_null(), "{document}");
            let last = document["last_point"].as_u64().unwrap();
            (text("path"), last, text("type"), document["lives_on"].as_bool().unwrap())
        })
        .collect()
    };
    let of = |path: &str, last, kind: &str, lives_on| (path.to_owned(), last, kind.to_owned(), lives_on);
    let mut found = gone(&["ls", "a", "/papers", "--deleted"]);
    found.sort();
    assert_eq!(found, [of("/papers/old", 3, "dir", false), of("/papers/plan.txt", 3, "file", false)]);
    assert_eq!(gone(&["ls", "a", "/", "--deleted"]), [of("/docs", 2, "dir", true)], "it has another name");
    assert_eq!(gone(&["ls", "a@1", "/docs", "--deleted"]), [], "nothing was gone then");
    // What a deleted directory held, by its pattern and type.
    let lost = of("/papers/old/deep/lost.xls", 3, "file", false);
    assert_eq!(gone(&["find", "a", "--deleted", "--name", "*.xls"]), [lost]);
    assert_eq!(gone(&["find", "a", "--deleted", "--type", "dir"]).len(), 3);
    assert_eq!(gone(&["find", "a", "/papers", "--deleted", "--larger", "8KiB"]).len(), 1);
    let text = cli.ok(&["find", "a", "--deleted", "--name", "plan.txt"]);
    assert!(text.starts_with("/papers/plan.txt (deleted; last in point 3, missed 20"), "{text}");
}

#[test]
fn two_points_differ_in_what_changed() {
    let Repo { work: _work, cli } = repo();
    let diff = |old: &str, new: &str| -> Vec<String> {
        let ended = cli.run(&["point", "diff", old, new]);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let mut lines: Vec<String> = ended.stdout.lines().map(str::to_owned).collect();
        lines.pop();
        lines.sort();
        lines
    };
    assert_eq!(diff("a@1", "a@1"), Vec::<String>::new());
    assert_eq!(diff("a@1", "a@2"), ["M /docs/plan.txt  (4 -> 12 bytes)"]);
    let renamed = diff("a@2", "a@3");
    assert!(renamed.contains(&"R /docs -> /papers/".to_owned()), "{renamed:?}");
    assert!(!renamed.iter().any(|line| line.starts_with(['+', '-', 'M'])), "{renamed:?}");
    let gone = diff("a@3", "a");
    for path in ["/papers/old/", "/papers/old/deep/", "/papers/old/deep/lost.xls", "/papers/plan.txt"] {
        assert!(gone.contains(&format!("- {path}")), "{path}: {gone:?}");
    }
    assert_eq!(gone.iter().filter(|line| line.starts_with(['-', '+'])).count(), 4, "{gone:?}");
    let back = diff("a", "a@3");
    assert_eq!(back.iter().filter(|line| line.starts_with('+')).count(), 4, "{back:?}");
    let done = cli.json(&["point", "diff", "a@3", "a"]);
    assert_eq!((&done["removed"], &done["bytes_removed"]), (&4.into(), &9012.into()));
}

#[test]
fn the_tables_have_the_columns_of_the_source() {
    let Repo { work: _work, cli } = repo();
    let text = cli.ok(&["table", "items", "a"]);
    let mut lines = text.lines();
    let head = "policy,lin,path,snapshot,time,permissions,type,gid,uid,modified,size,parent";
    assert_eq!(lines.next(), Some(head));
    let row = |path: &str| -> Vec<String> {
        let found = text.lines().find(|line| line.split(',').nth(2) == Some(path));
        found.unwrap_or_else(|| panic!("{path}: {text}")).split(',').map(str::to_owned).collect()
    };
    let (dir, file, gone, gone_dir) =
        (row("/papers"), row("/papers/other.txt"), row("/papers/plan.txt"), row("/papers/old"));
    assert_eq!((&*dir[6], &*file[6], &*gone[6], &*gone_dir[6]), ("3", "1", "4", "5"));
    assert_eq!((&file[11], &gone[11]), (&dir[1], &dir[1]), "the directory's LIN");
    assert_eq!((&*file[0], &*file[10]), ("a", "6"));
    assert!((1..=4).contains(&file[3].parse::<u32>().unwrap()), "the point that wrote the row: {file:?}");
    assert_eq!((&*gone[3], &*gone[10]), ("4", "12"));
    assert!(!cli.ok(&["table", "items", "a", "--without-deleted"]).contains("plan.txt"));
    let blocks = cli.ok(&["table", "blocks", "a@1", "/docs/old/deep/lost.xls", "--csv"]);
    let line: Vec<&str> = blocks.lines().nth(1).unwrap().split(',').collect();
    assert_eq!((line.len(), line[1], line[4]), (5, "0", "9000"), "{blocks}");
}
