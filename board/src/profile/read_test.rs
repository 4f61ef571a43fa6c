//! Every kind of mistake names its line and says what to do.

use std::path::Path;

use super::read::Loaded;
use super::{LeasePlace, shipped};
use crate::engine::settings::Access;

const GOOD: &str = r#"[node]
id = 7
name = "seven"

[repository]
url = "s3://bucket/prefix"
key_file = "keys/repository"

[memory]
budget_mib = 64

[work]
weight = 0

[backplane]
listen = "127.0.0.1:7401"
cert_file = "/etc/node.crt"
key_file = "/etc/node.key"
ca_file = "/etc/ca.crt"

[[peer]]
node = 8
address = "127.0.0.1:7402"

[[peer]]
node = 9
address = "[::1]:7402"

[[volume]]
name = "home"
device = "home.img"
reader = "raw"
snapshot = "pool/home@1"

[[volume]]
device = "/dev/disk/by-id/x"

[lease]
store = "etcd://127.0.0.1:2379/lab"
lease_ms = 3000
"#;

fn load(text: &str) -> Result<Loaded, Vec<String>> {
    Loaded::parse("board.toml", text.to_owned(), Path::new("/srv/node"))
        .map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

/// The faults when `from` is replaced by `to`.
fn faults(from: &str, to: &str) -> Vec<String> {
    assert!(GOOD.contains(from), "{from}");
    load(&GOOD.replacen(from, to, 1)).err().unwrap_or_default()
}

/// The one fault.
fn fault(from: &str, to: &str) -> String {
    let faults = faults(from, to);
    assert_eq!(faults.len(), 1, "{to}: {faults:?}");
    faults[0].clone()
}

#[test]
fn a_profile_means_what_it_says() {
    let profile = load(GOOD).unwrap().profile;
    assert_eq!((profile.id().0, profile.work.weight, profile.work.uplinks), (7, 0, 4));
    assert_eq!(profile.memory_bytes(), 64 << 20);
    let key = profile.repository.key_file.as_ref().unwrap();
    assert_eq!(key.value, Path::new("/srv/node/keys/repository"), "paths are below the profile's directory");
    assert_eq!(profile.volume[0].device.value, Path::new("/srv/node/home.img"));
    assert_eq!(
        (profile.volume[0].title(), profile.volume[1].title()),
        ("home".into(), "/dev/disk/by-id/x".into())
    );
    assert_eq!(profile.lease.store.value, LeasePlace::Own("etcd://127.0.0.1:2379/lab".to_owned()));
    let timing = profile.timing();
    assert_eq!((timing.lease_ns, timing.beat_ns), (3_000_000_000, 800_000_000));
    assert_eq!((timing.margin_ns, timing.send_budget_ns), (200_000_000, 600_000_000));
}

#[test]
fn what_the_parser_sees_has_a_place() {
    for (from, to, place, says) in [
        ("[node]", "[node", "1:6", "]"),
        ("id = 7", "id = 7\nidd = 8", "3:1", "unknown field `idd`, expected"),
        ("[work]", "[console]\n[work]", "12:2", "unknown field `console`"),
        ("id = 7", "id = 65536", "2:6", "65536 is not between 0 and 65535"),
        ("id = 7", "id = -1", "2:6", "-1 is not between 0 and 65535"),
        ("id = 7", "id = \"7\"", "2:6", "expected i64"),
        ("name = \"seven\"\n", "", "1:1", "missing field `name`"),
        ("weight = 0", "weight = 1001", "13:10", "1001 is not between 0 and 1000"),
        ("weight = 0", "cores = 0", "13:9", "0 is not between 1 and 256"),
        ("weight = 0", "uplinks = 65", "13:11", "65 is not between 1 and 64"),
        ("127.0.0.1:7401", "localhost", "16:10", "invalid socket address"),
        ("[::1]:7402", "::1", "27:11", "invalid socket address"),
        ("\"raw\"", "\"cooked\"", "32:10", "unknown variant `cooked`, expected one of `auto`"),
        ("etcd://127.0.0.1:2379/lab", "etcd", "39:9", "expected \"repository\", or a URL such as"),
        ("lease_ms = 3000", "lease_ms = 1", "40:12", "1 is not between 500"),
        ("lease_ms = 3000", "lease_s = 3", "40:1", "unknown field `lease_s`"),
    ] {
        let said = fault(from, to);
        assert!(said.starts_with(&format!("board.toml:{place}: ")) && said.contains(says), "{to}: {said}");
        assert_eq!(said.lines().count(), 1);
    }
}

#[test]
fn what_several_keys_must_agree_on_has_a_place_too() {
    for (from, to, place, says) in [
        ("\"seven\"", "\" \"", "3:8", "write a name"),
        (
            "key_file = \"keys/repository\"",
            "key_file = \"a\"\npassphrase_file = \"b\"",
            "8:19",
            "leave one of them out",
        ),
        ("budget_mib = 64", "budget_mib = 8", "10:14", "a memory budget of 8MiB is too small"),
        ("budget_mib = 64", "budget_mib = 67108864", "10:14", "is the unit meant to be MiB?"),
        ("budget_mib = 64", "block_kib_max = 129", "10:17", "129 is not a power of two from 4 to 4096"),
        ("budget_mib = 64", "block_kib_max = 8192", "10:17", "8192 is not a power of two"),
        ("node = 8", "node = 7", "22:8", "7 is this node itself"),
        ("node = 9", "node = 8", "26:8", "8 is there twice"),
        ("node = 9", "node = 65536", "26:8", "65536 is not between"),
        ("[::1]:7402", "127.0.0.1:7402", "27:11", "is another peer's too"),
        ("[::1]:7402", "127.0.0.1:0", "27:11", "port 0"),
        ("name = \"home\"", "name = \"my home\"", "30:8", "1 to 64 letters"),
        ("device = \"/dev/disk/by-id/x\"", "name = \"home\"\ndevice = \"x\"", "36:8", "another of that name"),
        (
            "lease_ms = 3000",
            "lease_ms = 3000\nbeat_ms = 1001",
            "41:11",
            "at most a third of the lease (1000 ms)",
        ),
        ("lease_ms = 3000", "lease_ms = 3000\nbeat_ms = 0", "41:11", "at least 1"),
    ] {
        let said = fault(from, to);
        assert!(said.starts_with(&format!("board.toml:{place}: ")) && said.contains(says), "{to}: {said}");
    }
    let long = format!("socket = \"/{}\"", "s".repeat(107));
    let said = fault("[lease]", &format!("[control]\n{long}\n[lease]"));
    assert!(said.starts_with("board.toml:39:10: control.socket: longer than 107 bytes"), "{said}");
}

#[test]
fn peers_need_a_backplane_and_have_a_bound() {
    let alone = GOOD.replace("[backplane]\nlisten = \"127.0.0.1:7401\"\ncert_file = \"/etc/node.crt\"\nkey_file = \"/etc/node.key\"\nca_file = \"/etc/ca.crt\"\n", "");
    assert!(load(&alone).unwrap_err()[0].contains("there is no [backplane]"));
    let many = |count: u32| {
        let peer = |n: u32| format!("[[peer]]\nnode = {}\naddress = \"10.0.0.1:{}\"\n", n + 100, n + 1);
        load(&format!("{GOOD}{}", (0..count).map(peer).collect::<String>()))
    };
    assert!(many(61).is_ok());
    assert!(many(62).unwrap_err()[0].contains("more than 63"));
    let volumes = |count: u32| {
        let volume = |n: u32| format!("[[volume]]\ndevice = \"/dev/x{n}\"\n");
        load(&format!("{GOOD}{}", (0..count).map(volume).collect::<String>()))
    };
    assert!(volumes(62).is_ok());
    assert!(volumes(63).unwrap_err()[0].contains("more than 64"));
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let wrong = GOOD.replace("node = 9", "node = 8").replace("budget_mib = 64", "budget_mib = 1");
    assert_eq!(load(&wrong).unwrap_err().len(), 2);
}

#[test]
fn the_shipped_profiles_are_sound_also_with_their_comments_taken_away() {
    for name in ["generic-x86_64", "loopback"] {
        let loaded = Loaded::open(Path::new(name)).unwrap();
        assert!(!super::explain::lines(&loaded.profile).is_empty());
        // What is commented out is an example: it must be one.
        let example = |line: &str| {
            line.strip_prefix("# ")
                .filter(|rest| rest.starts_with('[') || is_setting(rest))
                .map(str::to_owned)
        };
        let text = shipped::find(name).unwrap();
        let whole: Vec<String> =
            text.lines().map(|line| example(line).unwrap_or_else(|| line.to_owned())).collect();
        let loaded = Loaded::parse(name, whole.join("\n"), Path::new("/")).unwrap();
        assert!(loaded.profile.backplane.is_some() && !loaded.profile.peer.is_empty());
        assert!(!loaded.profile.volume.is_empty());
    }
    let missing = Loaded::open(Path::new("no-such-board")).unwrap_err();
    assert!(missing[0].to_string().contains("generic-x86_64, loopback"), "{missing:?}");
}

fn is_setting(line: &str) -> bool {
    line.split_once(" = ")
        .is_some_and(|(key, _)| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
}

#[test]
fn options_go_before_the_profile() {
    use clap::Parser;
    let parse = |line: &[&str]| {
        crate::cli::args::Cli::try_parse_from([&["windlass"], line, &["status"]].concat()).unwrap().global
    };
    let profile = load(GOOD).unwrap().profile;
    let of = |line: &[&str]| Access::from(&parse(line)).or(profile.access());
    let access = Access { url: None, ..Access::from(&parse(&[])) }.or(profile.access());
    assert_eq!(access.url.as_deref(), Some("s3://bucket/prefix"));
    assert_eq!(access.key_file.as_deref(), Some(Path::new("/srv/node/keys/repository")));
    let access = of(&["--repo", "file:///x", "--passphrase-file", "/p"]);
    assert_eq!((access.url.as_deref(), access.key_file.as_deref()), (Some("file:///x"), None));
    let identity = profile.identity(&access);
    assert_eq!((identity.node, identity.repository.as_str()), (7, "file:///x"));
    assert_eq!(identity.volumes[0], ("home".to_owned(), "/srv/node/home.img".into()));
}
