//! `stats`: what points hold and what each alone holds, on real backups, against what is known of their files.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use windlass_tests::cli::Cli;
use windlass_tests::error::output;
use windlass_tests::prng::Prng;
use windlass_tests::workdir::Workdir;

/// Bytes that do not compress.
fn noise(path: &Path, len: usize, seed: u64) {
    fs::write(path, Prng::new(seed).bytes(len)).unwrap();
}

fn debugfs(image: &Path, script: &str) {
    let file = image.with_extension("debugfs");
    fs::write(&file, script).unwrap();
    output(Command::new("debugfs").arg("-w").arg("-f").arg(&file).arg(image)).unwrap();
}

fn of<'a>(document: &'a Value, list: &str, field: &str, value: &str) -> &'a Value {
    let found = document[list].as_array().unwrap().iter().find(|one| one[field] == value);
    found.unwrap_or_else(|| panic!("{list}: no {value}: {document}"))
}

fn near(value: &Value, expected: u64) -> bool {
    // A frame has a header, and rounding goes either way.
    let value = value.as_u64().unwrap();
    value >= expected && value <= expected + expected / 50 + 4096
}

#[test]
fn points_hold_what_they_hold_and_alone_what_no_other_has() {
    let work = Workdir::new("cli-stats").unwrap();
    let (tree, image) = (work.dir("tree").unwrap(), work.join("image"));
    noise(&tree.join("stays.JPG"), 300_000, 1);
    noise(&tree.join("goes.zip"), 6_000_000, 2);
    fs::write(tree.join("much.log"), vec![b'x'; 400_000]).unwrap();
    fs::write(tree.join("README"), "small").unwrap();
    fs::hard_link(tree.join("stays.JPG"), tree.join("again.jpg")).unwrap();
    fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
    let made = Command::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-d"]).args([&tree, &image]).status();
    assert!(made.unwrap().success());
    let cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(work.path());
    cli.ok(&["repo", "init"]);
    assert!(cli.ok(&["stats"]).contains("no policy has a point yet"));
    cli.ok(&["policy", "set", "a", "--volume", image.to_str().unwrap()]);
    cli.ok(&["backup", "a"]);
    // The second point has another file in place of one; the third has it no more.
    noise(&work.join("new"), 200_000, 3);
    let write = format!("rm goes.zip\nwrite {} new.mp4\n", work.join("new").display());
    for script in [write.as_str(), "rm new.mp4\n"] {
        debugfs(&image, script);
        cli.ok(&["backup", "a"]);
    }
    let document = cli.json(&["stats", "a@1"]);
    let points = document["points"].as_array().unwrap();
    let list = |field: &str| points.iter().map(|point| point[field].clone()).collect::<Vec<_>>();
    assert_eq!(list("bytes_data"), [6_700_005, 900_005, 700_005].map(Value::from), "{document}");
    assert_eq!(list("alone_bytes_data"), [6_000_000, 200_000, 0].map(Value::from), "{document}");
    // Of the first one whole frames only: what shares a frame with others stays.
    let alone = points[0]["alone_bytes_stored"].as_u64().unwrap();
    assert!((3_000_000..=6_100_000).contains(&alone), "{document}");
    assert!(near(&points[1]["alone_bytes_stored"], 200_000), "{document}");
    assert_eq!(points[2]["alone_bytes_stored"], 0);
    assert_eq!(document["bytes_data"], 6_900_005);
    let stored = document["bytes_stored"].as_u64().unwrap();
    assert!(near(&document["bytes_stored"], 6_500_000), "{document}");
    assert!(document["ratio"].as_f64().unwrap() > 1.05, "{document}");
    // What the log says was stored is what is there, but for tails and headers of objects.
    let by_log = cli.json(&["stats"]);
    let of_policy = of(&by_log, "policies", "policy", "a");
    assert_eq!((&of_policy["points"], &of_policy["bytes"]), (&3.into(), &700_005.into()), "{by_log}");
    assert!(by_log["bytes_stored"].as_u64().unwrap() >= stored);
    // A file with two names counts once.
    let images = of(&document, "groups", "group", "images");
    assert_eq!((&images["files"], &images["bytes"]), (&2.into(), &300_000.into()), "{document}");
    assert_eq!(of(&document, "extensions", "extension", "zip")["bytes"], 6_000_000);
    assert_eq!(of(&document, "groups", "group", "without extension")["files"], 1);
    assert_eq!(of(&document, "types", "type", "file")["bytes"], 6_700_005);
    // Another point of the same policy: other files, the same sizes of points.
    let second = cli.json(&["stats", "a@2"]);
    assert_eq!(of(&second, "groups", "group", "video")["bytes"], 200_000);
    assert_eq!(second["points"], document["points"]);
    let text = cli.ok(&["stats", "a@1"]);
    assert!(text.contains("ALONE") && text.contains("go when it goes") && text.contains(".zip"), "{text}");
    // What was said goes, goes.
    cli.ok(&["point", "expire", "a@1"]);
    let left = cli.json(&["stats", "a"]);
    assert_eq!(left["bytes_data"], 900_005);
    assert_eq!(left["bytes_stored"].as_u64(), Some(stored - alone), "what was said goes has gone: {left}");
    assert_eq!(cli.run(&["stats", "none"]).code, 1);
}
