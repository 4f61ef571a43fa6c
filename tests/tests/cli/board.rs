//! Board profiles, the control socket, and commands through an agent, on the command line.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which say so by failing")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use windlass_agent::format::record::Record;
use windlass_agent::id::{BackupId, NodeId};
use windlass_agent::work::{Command, Reply};
use windlass_board::control::server::{CLIENTS_MAX, Server};
use windlass_board::control::wire::{Answer, Identity, LINE_BYTES_MAX, Request};
use windlass_tests::agent::FakeAgent;
use windlass_tests::cli::{Cli, Ended};
use windlass_tests::engines::scratch::Scratch;

fn cli() -> Cli {
    Cli::new(env!("CARGO_BIN_EXE_windlass-under-test"))
}

fn board(scratch: &Scratch, text: &str) -> PathBuf {
    let path = scratch.path().join("board.toml");
    fs::write(&path, text).unwrap();
    path
}

fn check(path: &Path) -> Ended {
    cli().run(&["board", "check", path.to_str().unwrap()])
}

#[test]
fn a_profile_is_checked_against_the_machine() {
    let scratch = Scratch::new("board-check");
    fs::create_dir(scratch.path().join("repository")).unwrap();
    fs::write(scratch.path().join("key"), "00".repeat(32)).unwrap();
    fs::File::create(scratch.path().join("disk")).unwrap().set_len(1 << 20).unwrap();
    let url = format!("file://{}", scratch.path().join("repository").display());
    let good = format!(
        "[node]\nid = 1\nname = \"one\"\n[repository]\nurl = \"{url}\"\nkey_file = \"key\"\n\
         [[volume]]\ndevice = \"disk\"\nreader = \"image\"\n"
    );
    let ended = check(&board(&scratch, &good));
    assert_eq!((ended.code, ended.stdout.ends_with("board.toml: sound\n")), (0, true), "{ended:?}");

    let wrong = good.replace("\"image\"", "\"auto\"").replace("\"key\"", "\"no-key\"");
    let path = board(
        &scratch,
        &(wrong
            + "[backplane]\nlisten = \"127.0.0.1:1\"\ncert_file = \"key\"\nkey_file = \"none\"\nca_file = \"key\"\n"),
    );
    let ended = check(&path);
    assert_eq!(ended.code, 2);
    let at = |line: u32, column: u32| format!("{}:{line}:{column}: ", path.display());
    let lines: Vec<&str> = ended.stdout.lines().collect();
    for (place, says) in [
        (at(6, 12), "no-key: No such file"),
        (at(8, 10), "back it up as an image"),
        (at(12, 13), "no certificate in PEM"),
        (at(13, 12), "none: No such file"),
        (at(14, 11), "no certificate in PEM"),
    ] {
        assert!(
            lines.iter().any(|line| line.starts_with(&place) && line.contains(says)),
            "{place}{says}: {lines:#?}"
        );
    }
    assert_eq!(lines.len(), 5, "{lines:#?}");
    let document =
        cli().run(&["board", "check", path.to_str().unwrap(), "--json"]).documents().pop().unwrap();
    assert_eq!((&document["fault_list"][0]["line"], &document["faults"]), (&6.into(), &5.into()));

    let ended = check(&board(&scratch, "[node]\nid = 1\nname = \"one\"\nweight = 3\n"));
    assert_eq!(ended.code, 2);
    assert!(ended.stdout.contains("board.toml:4:1: unknown field `weight`"), "{}", ended.stdout);
    assert_eq!(check(&scratch.path().join("none")).code, 2);
}

#[test]
fn the_environment_completes_a_profile() {
    let scratch = Scratch::new("board-env");
    let path = board(&scratch, "[node]\nid = 1\nname = \"one\"\n");
    let ended = check(&path);
    assert!(ended.code == 2 && ended.stdout.contains("WINDLASS_REPO"), "{ended:?}");
    fs::create_dir(scratch.path().join("repository")).unwrap();
    fs::write(scratch.path().join("key"), "00".repeat(32)).unwrap();
    let ended = cli().with_repository(scratch.path()).run(&["board", "check", path.to_str().unwrap()]);
    assert_eq!(ended.code, 0, "{ended:?}");
}

#[test]
fn a_profile_is_explained_with_its_memory_sum() {
    for name in ["generic-x86_64", "loopback"] {
        let text = cli().ok(&["board", "explain", name]);
        assert!(text.contains("frames: blocks between device and lane"), "{text}");
        assert!(text.contains("budget_mib") && text.contains("beat_ms"), "{text}");
    }
    assert_eq!(cli().run(&["board", "explain", "/none/such"]).code, 2);
}

#[test]
fn a_profile_to_start_from_is_one_that_can_be_read() {
    let scratch = Scratch::new("board-new");
    for name in ["generic-x86_64", "loopback"] {
        let text = cli().ok(&["board", "new", name]);
        let explained = cli().ok(&["board", "explain", board(&scratch, &text).to_str().unwrap()]);
        assert_eq!(explained, cli().ok(&["board", "explain", name]));
    }
    let none = cli().run(&["board", "new", "amiga"]);
    assert!(none.code == 2 && none.failure().contains("generic-x86_64, loopback"), "{none:?}");
}

#[test]
fn another_nodes_certificate_is_found_before_the_agent_starts() {
    let scratch = Scratch::new("board-other");
    fs::create_dir(scratch.path().join("repository")).unwrap();
    fs::write(scratch.path().join("key"), "00".repeat(32)).unwrap();
    let pki = scratch.path().join("pki");
    cli().ok(&["pki", "init", "--dir", pki.to_str().unwrap()]);
    for node in ["1", "2"] {
        cli().ok(&["pki", "issue", "--dir", pki.to_str().unwrap(), "--node", node]);
    }
    let profile = |node: u32| {
        format!(
            "[node]\nid = 1\nname = \"one\"\n[repository]\nurl = \"file://{}/repository\"\nkey_file = \"key\"\n[backplane]\n\
             listen = \"127.0.0.1:1\"\ncert_file = \"pki/node-{node}.crt\"\nkey_file = \"pki/node-{node}.key\"\nca_file = \"pki/ca.crt\"\n",
            scratch.path().display()
        )
    };
    let own = check(&board(&scratch, &profile(1)));
    assert_eq!(own.code, 0, "{own:?}");
    let other = check(&board(&scratch, &profile(2)));
    assert!(other.code == 2 && other.stdout.contains("not valid for node-1.windlass.internal"), "{other:?}");
}

// The socket itself.

fn identity(repository: &str) -> Answer {
    Answer::Identity(Box::new(Identity { node: 2, repository: repository.to_owned(), ..Identity::default() }))
}

fn lines(stream: UnixStream) -> Vec<String> {
    BufReader::new(stream).lines().map_while(Result::ok).collect()
}

#[test]
fn the_socket_is_the_owners_alone_and_there_is_one() {
    let scratch = Scratch::new("control-socket");
    let path = scratch.path().join("run/agent.sock");
    let agent = FakeAgent::start(&path, |_| Some(identity("x")));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(Server::open(&path).err().unwrap().to_string().contains("stop it first"));
    drop(agent);
    assert!(!path.exists());
    // What a killed agent leaves is taken over.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    drop(FakeAgent::start(&path, |_| None));
    // A file of somebody's is not.
    fs::write(&path, "precious").unwrap();
    assert!(Server::open(&path).err().unwrap().to_string().contains("no socket"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

/// A read takes the repository that is named, so it must be the agent's that is named too.
#[test]
fn a_read_refuses_a_socket_and_a_repository_that_do_not_fit() {
    let scratch = Scratch::new("control-other");
    let agent = FakeAgent::start(&scratch.path().join("sock"), |_| Some(identity("file:///srv/other")));
    let socket = agent.path().to_str().unwrap().to_owned();
    let own = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with_repository(scratch.path());
    own.ok(&["repo", "init"]);
    for command in [&["policy", "list"][..], &["repo", "info"], &["points", "x"]] {
        let refused = own.run(&[command, &["--socket", &socket]].concat());
        assert!(
            refused.code == 2 && refused.failure().contains("file:///srv/other"),
            "{command:?} {refused:?}"
        );
        assert!(refused.failure().contains("/repository"), "{refused:?}");
    }
    own.ok(&["policy", "list", "--socket", &socket, "--alone"]);
    // One that is gone keeps nobody from reading.
    drop(agent);
    own.ok(&["policy", "list", "--socket", &socket]);
}

#[test]
fn an_agent_that_is_stopped_is_said_not_to_answer() {
    let scratch = Scratch::new("control-stopped");
    let path = scratch.path().join("sock");
    // Takes connections and never says anything, as a process that was stopped does.
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    for command in [&["status"][..], &["backup", "x"]] {
        let ended = cli().run(&[command, &["--socket", path.to_str().unwrap()]].concat());
        assert!(ended.code == 1 && ended.failure().contains("does not answer (waited 3 s)"), "{ended:?}");
    }
}

#[test]
fn a_client_that_talks_nonsense_or_too_much_is_told_and_the_others_go_on() {
    let scratch = Scratch::new("control-nonsense");
    let agent = FakeAgent::start(&scratch.path().join("sock"), |_| Some(identity("x")));
    let mut good = UnixStream::connect(agent.path()).unwrap();
    let mut wrong = UnixStream::connect(agent.path()).unwrap();
    wrong.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    assert!(lines(wrong).concat().contains("not a request"));
    let mut long = UnixStream::connect(agent.path()).unwrap();
    // The agent may hang up before all of it is written.
    let _ = long.write_all(&vec![b'x'; 2 * LINE_BYTES_MAX]);
    let mut said = String::new();
    let _ = long.read_to_string(&mut said);
    assert!(said.is_empty() || said.contains("longer than"), "{said}");
    good.write_all(b"{\"ask\":\"identify\"}\n{\"ask\":\"identify\"}\n").unwrap();
    good.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(lines(good).len(), 2);
}

#[test]
fn another_user_is_refused_also_when_the_file_would_let_him_in() {
    const TEST: &str = "another_user_is_refused_also_when_the_file_would_let_him_in";
    if !windlass_tests::privilege::is_root() {
        return windlass_tests::privilege::skip(TEST, "needs root, to act as another user");
    }
    let scratch = Scratch::new("control-user");
    let agent = FakeAgent::start(&scratch.path().join("sock"), |_| Some(identity("x")));
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(agent.path(), fs::Permissions::from_mode(0o666)).unwrap();
    let call = ["status", "--socket", agent.path().to_str().unwrap()];
    match cli().command(&call).uid(65_534).gid(65_534).output() {
        Ok(ended) => {
            let said = String::from_utf8_lossy(&ended.stderr);
            assert!(
                ended.status.code() == Some(1) && said.contains("only root and the agent's own user"),
                "{said}"
            );
        }
        Err(why) => windlass_tests::privilege::unsupported(
            TEST,
            &format!("another user cannot run the program: {why}"),
        ),
    }
}

#[test]
fn clients_have_a_bound() {
    let scratch = Scratch::new("control-bound");
    let agent = FakeAgent::start(&scratch.path().join("sock"), |_| Some(identity("x")));
    let ask = |stream: &mut UnixStream| stream.write_all(b"{\"ask\":\"identify\"}\n");
    let first_line = |stream: &UnixStream| {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).map(|_| line).unwrap_or_default()
    };
    let mut all: Vec<UnixStream> = Vec::new();
    for _ in 0..CLIENTS_MAX {
        let mut stream = UnixStream::connect(agent.path()).unwrap();
        ask(&mut stream).unwrap();
        assert!(first_line(&stream).contains("identity"));
        all.push(stream);
    }
    let one_more = UnixStream::connect(agent.path()).unwrap();
    assert!(first_line(&one_more).contains("too many"));
    all.pop();
    // Its place is free when the agent has seen that it is gone.
    let freed = (0..200).any(|_| {
        let mut stream = UnixStream::connect(agent.path()).unwrap();
        let _ = ask(&mut stream);
        first_line(&stream).contains("identity")
    });
    assert!(freed);
}

// Commands through an agent.

#[test]
fn status_is_text_or_the_document_as_it_came() {
    let scratch = Scratch::new("board-status");
    let socket = scratch.path().join("sock");
    let missing = cli().run(&["status", "--socket", socket.to_str().unwrap()]);
    assert!(missing.code == 1 && missing.failure().contains("windlass agent"), "{}", missing.stderr);
    let status = json!({ "node": 2, "coordinator": { "node": 1, "epoch": 7 }, "nodes": [{ "node": 2, "up": true }], "more": 1 });
    let text = status.to_string();
    let _agent = FakeAgent::start(&socket, move |request| match request {
        Request::Lines(_) => None,
        Request::Identify => Some(identity("x")),
        Request::Command(command) => {
            assert_eq!(command, &Command::Status);
            Some(Answer::Reply(Reply::Status(text.clone())))
        }
    });
    let call = ["status", "--socket", socket.to_str().unwrap()];
    assert_eq!(cli().json(&call), status);
    let text = cli().ok(&call);
    assert!(text.starts_with("COORDINATOR  node 1  ") && !text.contains('\x1b'), "{text}");
}

#[test]
fn a_refusal_is_a_failure_with_the_coordinators_words() {
    let scratch = Scratch::new("board-move");
    let socket = scratch.path().join("sock");
    let _agent = FakeAgent::start(&socket, |request| match request {
        Request::Lines(_) => None,
        Request::Identify => Some(identity("x")),
        Request::Command(Command::Move(NodeId(2))) => Some(Answer::Reply(Reply::Done(None))),
        Request::Command(Command::Stop(policy)) if policy == "home" => {
            Some(Answer::Reply(Reply::Done(Some(BackupId(9)))))
        }
        _ => Some(Answer::refused("node 3 is not up; start it")),
    });
    let path = socket.to_str().unwrap();
    cli().ok(&["coordinator", "move", "2", "--socket", path]);
    let refused = cli().run(&["coordinator", "move", "3", "--socket", path]);
    assert_eq!((refused.code, refused.failure()), (1, "node 3 is not up; start it"));
    assert_eq!(cli().run(&["coordinator", "move", "65536", "--socket", path]).code, 2);
    assert_eq!(cli().json(&["stop", "home", "--socket", path]), json!({ "stopped": "home" }));
    assert_eq!(cli().run(&["stop", "other", "--socket", path]).code, 1);
    assert_eq!(cli().run(&["stop", "a/b", "--socket", path]).code, 2);
    let refused = cli().run(&["flush", "--socket", path]);
    assert_eq!((refused.code, refused.failure()), (1, "node 3 is not up; start it"));
}

/// An agent whose backup 9 of `home` takes some looks: it queues, runs, loses its coordinator, and becomes a point.
fn backing_up(socket: &Path, url: &str, point: Value) -> FakeAgent {
    let (url, looks) = (url.to_owned(), AtomicU32::new(0));
    FakeAgent::start(socket, move |request| {
        let running = json!([{ "backup": 9, "policy": "home", "items_done": 1, "items_total": 2 }]);
        let held = json!({ "node": 1, "epoch": 3 });
        match request {
            Request::Lines(_) => None,
            Request::Identify => Some(identity(&url)),
            Request::Command(Command::Backup(policy)) if policy == "home" => {
                Some(Answer::Reply(Reply::Done(Some(BackupId(9)))))
            }
            Request::Command(Command::Status) => {
                let old = json!({ "backup": 8, "policy": "home", "status": "complete" });
                let status = match looks.fetch_add(1, Ordering::Relaxed) {
                    0 => json!({ "coordinator": held, "points": [old] }),
                    1 => json!({ "coordinator": held, "points": [old], "queue": ["home"] }),
                    2 => json!({ "coordinator": held, "points": [old], "backups": running,
                        "errors": [{ "node": 1, "what": "lost \u{1b}its way", "wall_ns": 5 }] }),
                    3 => json!({ "coordinator": { "node": null, "epoch": 3, "resting": false } }),
                    // Hangs up: the agent was started again.
                    4 => return None,
                    5 => json!({ "coordinator": held, "points": [old] }),
                    _ => json!({ "coordinator": held, "points": [old, point] }),
                };
                Some(Answer::Reply(Reply::Status(status.to_string())))
            }
            _ => Some(Answer::refused("there is no such policy")),
        }
    })
}

#[test]
fn a_backup_through_an_agent_waits_for_its_point() {
    let scratch = Scratch::new("board-backup");
    let socket = scratch.path().join("sock");
    let path = socket.to_str().unwrap();
    let complete = json!({ "backup": 9, "policy": "home", "status": "complete", "items": 2, "bytes": 7 });
    {
        let _agent = backing_up(&socket, "file:///srv", complete);
        let ended = cli().run(&["backup", "home", "--socket", path, "--json"]);
        assert_eq!(ended.code, 0, "{ended:?}");
        let done = ended.documents().pop().unwrap();
        assert_eq!((&done["event"], &done["point"], &done["items"]), (&"done".into(), &9.into(), &2.into()));
        assert!(ended.stderr.contains("node 1: lost \\u{1b}its way"), "{}", ended.stderr);
        let refused = cli().run(&["backup", "other", "--socket", path]);
        assert_eq!((refused.code, refused.failure()), (1, "there is no such policy"));
        let ended = cli().run(&["backup", "home", "--no-wait", "--socket", path]);
        assert!(ended.code == 0 && ended.stdout.contains("backup 9 runs"), "{ended:?}");
        assert_eq!(cli().run(&["backup", "home", "--limit-up", "1MiB", "--socket", path]).code, 2);
        assert_eq!(cli().run(&["backup", "home", "--repo", "file:///other", "--socket", path]).code, 2);
    }
    let partial = json!({ "backup": 9, "policy": "home", "status": "with_errors", "items": 2 });
    {
        let _agent = backing_up(&socket, "file:///srv", partial);
        let ended = cli().run(&["backup", "home", "--socket", path]);
        assert_eq!(ended.code, 3, "{ended:?}");
    }
    let without = json!({ "backup": 9, "policy": "home", "status": "with_errors", "items": 2,
        "volumes_missing": [{ "volume": 2, "device": "lun-7" }], "volumes_missing_count": 1 });
    let _agent = backing_up(&socket, "file:///srv", without);
    let ended = cli().run(&["backup", "home", "--socket", path]);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.stdout.contains("without 1 of its volumes, which could not be opened: lun-7"), "{ended:?}");
    assert!(!ended.stdout.contains("some items"), "{ended:?}");
}

#[test]
fn a_backup_that_ends_without_a_point_is_a_failure() {
    let scratch = Scratch::new("board-lost");
    let socket = scratch.path().join("sock");
    let _agent = FakeAgent::start(&socket, |request| match request {
        Request::Lines(_) => None,
        Request::Identify => Some(identity("file:///srv")),
        Request::Command(Command::Status) => {
            let status =
                json!({ "coordinator": { "node": 1 }, "errors": [{ "node": 1, "what": "device gone" }] });
            Some(Answer::Reply(Reply::Status(status.to_string())))
        }
        _ => Some(Answer::Reply(Reply::Done(Some(BackupId(9))))),
    });
    let ended = cli().run(&["backup", "home", "--socket", socket.to_str().unwrap()]);
    assert_eq!(ended.code, 1);
    assert!(ended.failure().contains("without a point; the last error: device gone"), "{}", ended.stderr);
}

#[test]
fn a_backup_whose_policy_is_removed_is_said_to_have_ended_by_that() {
    let scratch = Scratch::new("board-removed");
    let alone = cli().with_repository(scratch.path());
    alone.ok(&["repo", "init"]);
    let url = format!("file://{}", scratch.path().join("repository").display());
    let told =
        Identity { key_file: Some(scratch.path().join("key")), repository: url, ..Identity::default() };
    let _agent = FakeAgent::start(&scratch.path().join("sock"), move |request| match request {
        Request::Lines(_) => None,
        Request::Identify => Some(Answer::Identity(Box::new(told.clone()))),
        Request::Command(Command::Status) => {
            Some(Answer::Reply(Reply::Status(json!({ "coordinator": { "node": 1 } }).to_string())))
        }
        _ => Some(Answer::Reply(Reply::Done(Some(BackupId(9))))),
    });
    let socket = scratch.path().join("sock");
    let ended = cli().run(&["backup", "home", "--socket", socket.to_str().unwrap()]);
    assert_eq!(ended.code, 1);
    assert!(ended.failure().contains("home was removed while its backup ran"), "{}", ended.stderr);
}

#[test]
fn policies_go_through_the_agent_with_its_repository_and_its_names() {
    let scratch = Scratch::new("board-policy");
    let alone = cli().with_repository(scratch.path());
    alone.ok(&["repo", "init"]);
    let socket = scratch.path().join("sock");
    let path = socket.to_str().unwrap();
    let url = format!("file://{}", scratch.path().join("repository").display());
    let told = Identity {
        node: 2,
        repository: url,
        key_file: Some(scratch.path().join("key")),
        volumes: vec![("lun-7".to_owned(), "/dev/none".into())],
        ..Identity::default()
    };
    let submitted: Arc<Mutex<Vec<Record>>> = Arc::default();
    let taken = Arc::clone(&submitted);
    let _agent = FakeAgent::start(&socket, move |request| match request {
        Request::Lines(_) => None,
        Request::Identify => Some(Answer::Identity(Box::new(told.clone()))),
        Request::Command(Command::Submit(records)) => {
            taken.lock().unwrap().extend(records.iter().cloned());
            Some(Answer::Reply(Reply::Done(None)))
        }
        _ => Some(Answer::refused("not asked for")),
    });
    // Without --repo: the agent's is used.
    cli().ok(&[
        "policy",
        "set",
        "a",
        "--volume",
        "/dev/none=image",
        "--volume",
        "lun-8",
        "--volume",
        "./lun-9",
        "--socket",
        path,
    ]);
    let records = submitted.lock().unwrap().clone();
    let [Record::PolicyChanged(change)] = &records[..] else { unreachable!("{records:?}") };
    assert_eq!((change.name.as_str(), change.revision), ("a", 1));
    assert_eq!(change.volumes[0].1, "lun-7", "a device of the profile goes by its name");
    assert_eq!(change.volumes[1].1, "lun-8", "a bare name is that of a volume of some node");
    assert!(
        change.volumes[2].1.starts_with('/') && change.volumes[2].1.ends_with("lun-9"),
        "anything else is a path"
    );
    assert_eq!(cli().json(&["policy", "list", "--socket", path])["policies"], json!([]));
    // Alone it is this process that commits, and the agent then is told of the removal.
    let with_socket = ["--socket", path];
    alone.ok(&[&["policy", "set", "a", "--volume", "/dev/none", "--alone"][..], &with_socket].concat());
    // A volume that has a name only cannot be opened without an agent's profile.
    let named = alone.json(&["policy", "show", "a"]).to_string().replace("/dev/none", "lun-7");
    let file = scratch.path().join("a.json");
    fs::write(&file, named).unwrap();
    alone.ok(&["policy", "set", "a", "--from", file.to_str().unwrap()]);
    assert!(alone.run(&["backup", "a"]).failure().contains("lun-7: a volume of a board profile"));
    alone.ok(&[&["policy", "remove", "a"][..], &with_socket].concat());
    let records = submitted.lock().unwrap().clone();
    assert_eq!(records[1..], [Record::PolicyRemoved { name: "a".to_owned(), revision: 3 }]);
    assert_eq!(alone.json(&["policy", "list"])["policies"].as_array().unwrap().len(), 1);
}

#[test]
fn the_unit_for_systemd_is_sound() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../board/systemd/windlass.service");
    let rated = std::process::Command::new("systemd-analyze")
        .args(["security", "--offline=yes", "--threshold=30"])
        .arg(&unit)
        .output();
    match rated {
        Ok(rated) => {
            let text = String::from_utf8_lossy(&rated.stdout);
            assert!(rated.status.success(), "{}", text.lines().last().unwrap_or_default());
        }
        Err(why) => windlass_tests::privilege::skip(
            "the_unit_for_systemd_is_sound",
            &format!("systemd-analyze: {why}"),
        ),
    }
}
