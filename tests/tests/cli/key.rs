//! `key`: several keys and passphrases of one repository, one more and one less, and what a command that was killed leaves.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use windlass_tests::cli::Cli;
use windlass_tests::workdir::Workdir;

/// A way to open the repository by one file.
fn by(work: &Workdir, variable: &str, file: &str) -> Cli {
    let repository = format!("file://{}", work.join("repository").display());
    let path = work.join(file);
    if variable == "WINDLASS_PASSPHRASE_FILE" && !path.exists() {
        fs::write(&path, format!("phrase of {file}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with("WINDLASS_REPO", &repository);
    cli.with(variable, path.to_str().unwrap())
}

fn ids(cli: &Cli) -> Vec<(String, String, bool)> {
    let document = cli.json(&["key", "list"]);
    let key = |key: &serde_json::Value| {
        let text = |field: &str| key[field].as_str().unwrap().to_owned();
        (text("key"), text("opens_with"), key["used"].as_bool().unwrap())
    };
    document["keys"].as_array().unwrap().iter().map(key).collect()
}

fn opens(cli: &Cli) -> bool {
    cli.run(&["repo", "info"]).code == 0
}

#[test]
fn keys_come_and_go_and_one_always_opens() {
    let work = Workdir::new("cli-key").unwrap();
    let (first, second) = (by(&work, "WINDLASS_KEY_FILE", "first"), by(&work, "WINDLASS_KEY_FILE", "second"));
    let phrase = by(&work, "WINDLASS_PASSPHRASE_FILE", "phrase");
    first.ok(&["repo", "init"]);
    let path = |name: &str| work.join(name).display().to_string();
    // A further key file is made, and knows its repository.
    let text = first.ok(&["key", "add", "--new-key-file", &path("second")]);
    assert!(text.contains("opens the repository too now"), "{text}");
    assert!(fs::read_to_string(work.join("second")).unwrap().contains("\nrepository "));
    assert_ne!(fs::read(work.join("first")).unwrap(), fs::read(work.join("second")).unwrap());
    first.ok(&["key", "add", "--new-passphrase-file", &path("phrase")]);
    assert!(opens(&first) && opens(&second) && opens(&phrase));
    let all = ids(&second);
    let kinds: Vec<_> = all.iter().map(|(_, kind, used)| (kind.as_str(), *used)).collect();
    assert_eq!(kinds, [("key file", false), ("key file", true), ("passphrase", false)]);
    // The same key twice says nothing new; and its file stays as it was.
    let again = first.run(&["key", "add", "--new-key-file", &path("second")]);
    assert!(again.code == 1 && again.failure().contains("opens the repository already"), "{again:?}");
    assert!(opens(&second), "the file of a key that was there stays");
    // The one that is used does not go, nor one that is not there; another one does, at once.
    let own = second.run(&["key", "remove", &all[1].0]);
    assert!(own.code == 1 && own.failure().contains("the one that this command uses"), "{own:?}");
    assert_eq!(second.run(&["key", "remove", "00000000"]).code, 1);
    second.ok(&["key", "remove", &all[0].0]);
    assert!(!opens(&first) && opens(&second) && opens(&phrase));
    assert_eq!(ids(&second).len(), 2);
    // A passphrase changes; the old one opens nothing, and the key file still does.
    let other = by(&work, "WINDLASS_PASSPHRASE_FILE", "other");
    phrase.ok(&["key", "passphrase", "--new-passphrase-file", &path("other")]);
    assert!(!opens(&phrase) && opens(&other) && opens(&second));
    let of_key = second.run(&["key", "passphrase", "--new-passphrase-file", &path("phrase")]);
    assert!(of_key.code == 2 && of_key.failure().contains("a key file was given"), "{of_key:?}");
    // Eight at most, and the ninth says so and leaves no file.
    for at in 2..8 {
        second.ok(&["key", "add", "--new-key-file", &path(&format!("more{at}"))]);
    }
    let ninth = second.run(&["key", "add", "--new-key-file", &path("more9")]);
    assert!(ninth.code == 1 && ninth.failure().contains("no room for another"), "{ninth:?}");
    assert!(!work.join("more9").exists());
    assert!(opens(&by(&work, "WINDLASS_KEY_FILE", "more7")));
    // Both copies of the format object have the same keys; one alone is enough, and is mended.
    let stored = |name: &str| fs::read(work.join("repository").join(name)).unwrap();
    assert_eq!(stored("format"), stored("format-copy"));
    fs::remove_file(work.join("repository/format")).unwrap();
    assert!(opens(&other) && !opens(&first));
    assert_eq!(stored("format"), stored("format-copy"));
}

#[test]
fn a_change_that_was_killed_between_the_copies_is_done_again() {
    let work = Workdir::new("cli-key-killed").unwrap();
    let (first, second) = (by(&work, "WINDLASS_KEY_FILE", "first"), by(&work, "WINDLASS_KEY_FILE", "second"));
    first.ok(&["repo", "init"]);
    let copy = work.join("repository/format-copy");
    let before = fs::read(&copy).unwrap();
    first.ok(&["key", "add", "--new-key-file", work.join("second").to_str().unwrap()]);
    // As a kill after the first of the two leaves it.
    write(&copy, &before);
    assert!(opens(&first) && opens(&second));
    let id = ids(&second)[0].0.clone();
    second.ok(&["key", "remove", &id]);
    assert_eq!(fs::read(&copy).unwrap(), fs::read(work.join("repository/format")).unwrap());
    assert!(!opens(&first) && opens(&second));
    let unencrypted = Workdir::new("cli-key-clear").unwrap();
    let clear = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test"))
        .with("WINDLASS_REPO", &format!("file://{}", unencrypted.join("repository").display()));
    clear.ok(&["repo", "init", "--no-encryption"]);
    let none = clear.run(&["key", "list"]);
    assert!(none.code == 1 && none.failure().contains("not encrypted"), "{none:?}");
}

#[test]
fn a_change_of_the_passphrase_that_was_killed_is_finished_by_the_same_command() {
    let work = Workdir::new("cli-key-phrase").unwrap();
    let old = by(&work, "WINDLASS_PASSPHRASE_FILE", "old");
    let new = by(&work, "WINDLASS_PASSPHRASE_FILE", "new");
    let path = |name: &str| work.join(name).display().to_string();
    let objects = ["format", "format-copy"].map(|name| work.join("repository").join(name));
    old.ok(&["repo", "init"]);
    let before = fs::read(&objects[1]).unwrap();
    // As a kill between the two steps leaves it: both open it.
    old.ok(&["key", "add", "--new-passphrase-file", &path("new")]);
    assert!(opens(&old) && opens(&new) && ids(&old).len() == 2);
    let change = ["key", "passphrase", "--new-passphrase-file", &path("new")];
    old.ok(&change);
    assert!(!opens(&old) && opens(&new) && ids(&new).len() == 1);
    // As one behind the first object of the last step leaves it: the new one is in force, and the command says so.
    write(&objects[1], &before);
    let text = old.ok(&change);
    assert!(text.contains("the new passphrase is in force already"), "{text}");
    assert_eq!(fs::read(&objects[0]).unwrap(), fs::read(&objects[1]).unwrap());
    assert!(!opens(&old) && opens(&new));
    // Neither of the two: nothing is in force that was given.
    by(&work, "WINDLASS_PASSPHRASE_FILE", "third");
    let wrong = old.run(&["key", "passphrase", "--new-passphrase-file", &path("third")]);
    assert!(wrong.code == 1 && wrong.failure().contains("does not open it"), "{wrong:?}");
    let same = new.run(&["key", "passphrase", "--new-passphrase-file", &path("new")]);
    assert!(same.code == 1 && same.failure().contains("is the one that opens it now"), "{same:?}");
}

#[test]
fn an_option_goes_before_the_other_kind_of_key_in_the_environment() {
    let work = Workdir::new("cli-key-option").unwrap();
    let phrase = by(&work, "WINDLASS_PASSPHRASE_FILE", "phrase");
    phrase.ok(&["repo", "init"]);
    let path = |name: &str| work.join(name).display().to_string();
    let key = by(&work, "WINDLASS_KEY_FILE", "key");
    phrase.ok(&["key", "add", "--new-key-file", &path("key")]);
    fs::write(work.join("other"), format!("{}\n", "ab".repeat(32))).unwrap();
    let other = by(&work, "WINDLASS_KEY_FILE", "other");
    assert_eq!(other.run(&["repo", "info"]).code, 1);
    other.ok(&["repo", "info", "--passphrase-file", &path("phrase")]);
    other.ok(&["--passphrase-file", &path("phrase"), "repo", "info"]);
    other.ok(&["repo", "info", "--key-file", &path("key")]);
    let wrong = by(&work, "WINDLASS_PASSPHRASE_FILE", "wrong");
    wrong.ok(&["repo", "info", "--key-file", &path("key")]);
    // Two that are meant are refused as before: two options, or two variables.
    let both = ["repo", "info", "--key-file", &path("key"), "--passphrase-file", &path("phrase")];
    assert_eq!(key.run(&both).code, 2);
    let variables = key.with("WINDLASS_PASSPHRASE_FILE", &path("phrase"));
    assert_eq!(variables.run(&["repo", "info"]).code, 2);
}

fn write(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}
