//! Policies come back as they were, and what is not one is refused by name.

use super::*;

fn sample() -> Policy {
    let volume = PolicyVolume { device: "/dev/sda".into(), reader: Reader::Auto };
    Policy::new("home", vec![volume])
}

#[test]
fn defaults_fill_in_and_round_trip() {
    let json = br#"{"version":1,"name":"home","volumes":[{"device":"/dev/sda"}]}"#;
    let policy = Policy::parse(json).unwrap();
    assert_eq!(policy, sample());
    assert_eq!(Policy::parse(&policy.emit().unwrap()), Ok(policy));
}

#[test]
fn everything_set_round_trips() {
    let mut policy = sample();
    policy.volumes.push(PolicyVolume { device: "/srv/lun.img".into(), reader: Reader::Image });
    policy.include = vec!["/home".into()];
    policy.exclude = vec!["*.tmp".into(), "cache/".into()];
    policy.block_size = 4 << 20;
    policy.object_size = 100 << 20;
    policy.flush_interval = 1500;
    policy.compression = Compression::None;
    policy.limits = Limits {
        upload: Some(1 << 20),
        download: Some(5000),
        device_iops: Some(4000),
        hours: vec!["08:00-18:00 20MiB/s iops 9".parse().unwrap()],
    };
    let json = policy.emit().unwrap();
    assert!(std::str::from_utf8(&json).unwrap().contains(r#""object_size":"100MiB""#));
    assert_eq!(Policy::parse(&json), Ok(policy));
}

#[test]
fn unknown_fields_and_versions_are_refused() {
    let json = br#"{"version":1,"name":"a","volumes":[{"device":"/x"}],"unheard_of":7}"#;
    assert!(matches!(Policy::parse(json), Err(PolicyFault::Json(why)) if why.contains("unheard_of")));
    let json = br#"{"version":2,"name":"a","volumes":[],"unheard_of":7}"#;
    assert_eq!(Policy::parse(json), Err(PolicyFault::Version(2)));
    let json = br#"{"version":1,"name":"a","volumes":[{"device":"/x"}],"compression":"zstd:20"}"#;
    assert!(matches!(Policy::parse(json), Err(PolicyFault::Json(why)) if why.contains("zstd:LEVEL")));
}

#[test]
fn bounds_hold_on_both_sides() {
    let with = |change: &dyn Fn(&mut Policy)| {
        let mut policy = sample();
        change(&mut policy);
        policy.check().is_ok()
    };
    for (bytes, good) in
        [(2 << 10, false), (4 << 10, true), (96 << 10, false), (4 << 20, true), (8 << 20, false)]
    {
        assert_eq!(with(&|p| p.block_size = bytes), good, "block {bytes}");
    }
    for (bytes, good) in
        [((4 << 20) - 1, false), (4 << 20, true), (256 << 20, true), ((256 << 20) + 1, false)]
    {
        assert_eq!(with(&|p| p.object_size = bytes), good, "object {bytes}");
    }
    for (ms, good) in [(999, false), (1000, true), (86_400_000, true), (86_400_001, false)] {
        assert_eq!(with(&|p| p.flush_interval = ms), good, "flush {ms}");
    }
    assert!(!with(&|p| p.volumes.clear()));
    assert!(!with(&|p| p.volumes[0].device = "dev/sda".into()));
    assert!(with(&|p| p.volumes[0].device = "lun-7".into()), "the name of a volume in a board profile");
    assert!(!with(&|p| p.volumes.push(p.volumes[0].clone())));
    assert!(!with(&|p| p.limits.device_iops = Some(0)));
    let day: Hours = "08:00-18:00 20MiB/s".parse().unwrap();
    assert!(with(&|p| p.limits.hours = vec![day; HOURS_MAX]));
    assert!(!with(&|p| p.limits.hours = vec![day; HOURS_MAX + 1]));
    assert!(!with(&|p| p.limits.hours = vec![Hours { upload: Some(1024), ..day }]));
    assert!(!with(&|p| p.limits.hours = vec![Hours { upload: None, ..day }]));
    assert!(!with(&|p| p.exclude.push("[".into())));
}

#[test]
fn names_have_rules() {
    for name in ["a", "home", "db-1.prod_x", "9", &"x".repeat(64)] {
        assert!(check_name(name).is_ok(), "{name}");
    }
    for name in ["", "-a", ".a", "a@1", "a/b", "a b", "ü", &"x".repeat(65)] {
        assert!(check_name(name).is_err(), "{name}");
    }
}
