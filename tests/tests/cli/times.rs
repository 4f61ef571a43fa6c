//! Times on the clock of the site, and points that are named by them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;

use windlass_tests::cli::Cli;
use windlass_tests::workdir::Workdir;

fn program() -> Cli {
    Cli::new(env!("CARGO_BIN_EXE_windlass-under-test"))
}

#[test]
fn times_are_of_the_site_s_clock_and_points_are_named_by_it() {
    let work = Workdir::new("cli-times").unwrap();
    let image = work.join("image");
    fs::write(&image, vec![7; 1 << 20]).unwrap();
    let site = |zone: &str| program().with_repository(work.path()).with("TZ", zone);
    // A zone that is far enough ahead of UTC for another hour, and has no summer time.
    let kolkata = site("Asia/Kolkata");
    kolkata.ok(&["repo", "init"]);
    kolkata.ok(&["policy", "set", "a", "--volume", &format!("{}=image", image.display())]);
    kolkata.ok(&["backup", "a"]);
    let begun = kolkata.json(&["points", "a"])["points"][0]["begun"].as_str().unwrap().to_owned();
    assert!(begun.ends_with('Z'), "JSON is in UTC: {begun}");
    let utc = begun.replace('T', " ").replace('Z', " UTC");
    let text = kolkata.ok(&["points", "a"]);
    assert!(text.contains(" IST ") && !text.contains("UTC"), "{text}");
    assert!(kolkata.ok(&["points", "a", "--utc"]).contains(&utc));
    assert!(site("UTC").ok(&["points", "a"]).contains(&utc));
    assert!(site("Europe/Atlantis").ok(&["points", "a"]).contains(&utc));
    // What the table shows names the point; so does UTC with its Z.
    let row = text.lines().nth(1).unwrap();
    let at = row.find(" IST").unwrap();
    let (local, minute) = (&row[at - 19..at], &begun[..16]);
    let shown = |cli: &Cli, point: &str| cli.run(&["stat", &format!("a@{point}"), "/"]).code;
    assert_eq!(shown(&kolkata, local), 0, "{local}");
    assert_eq!(shown(&kolkata, &format!("{minute}Z")), 0, "{minute}");
    // By the site's clock, five and a half hours ahead, nothing had begun when it showed what UTC shows now.
    assert_eq!(shown(&kolkata, minute), 1, "{minute}");
    assert_eq!(shown(&site("UTC"), minute), 0);
    assert_eq!(kolkata.run(&["stat", "--utc", &format!("a@{minute}"), "/"]).code, 0);
}
