//! The management API and the page of a real agent: real TLS by curl, roles, changes, events, metrics, and clients that misbehave.
//!
//! curl is needed; promtool and PyPI's prometheus_client judge the metrics where they are installed, and are skipped by name where not.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests, and their helpers")]

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use windlass_agent::api::limits::{CONNS_PER_PEER_MAX, EVENT_CLIENTS_MAX};
use windlass_agent::api::request::Method;
use windlass_agent::api::route::ROUTES;
use windlass_agent::id::NodeId;
use windlass_agent::work::entry::Role;
use windlass_board::authority::Authority;
use windlass_board::engine::host::HostClock;
use windlass_tests::cluster::{Cluster, POLICY, Place, Setup};
use windlass_tests::privilege::skip;
use windlass_tests::workdir::Workdir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_windlass-under-test");
/// Connections of a flood.
const FLOOD: usize = 10_000;

/// One node with an API, and a CA of those who ask.
struct Node {
    cluster: Cluster,
    port: u16,
    _store: Workdir,
}

/// An answer: status, fields of its head, body.
struct Said {
    status: u16,
    head: String,
    body: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    fn field(&self, name: &str) -> Option<&str> {
        let line = |line: &&str| line.to_ascii_lowercase().starts_with(&format!("{name}: "));
        self.head.lines().find(line).map(|line| line[name.len() + 2..].trim())
    }
}

/// An answer as bytes.
fn parse(text: &str) -> Said {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Said { status, head: head.to_owned(), body: body.to_owned() }
}

impl Node {
    fn start(name: &str, upload_kib_s: u32) -> Node {
        let store = Workdir::new(name).unwrap();
        let repository = store.path().join("repository");
        fs::create_dir(&repository).unwrap();
        let setup =
            Setup { nodes: 1, upload_kib_s, shared_dirs: 1, ..Setup::new(Place::directory(&repository)) };
        let mut cluster = Cluster::make(PROGRAM, setup, None);
        let now = HostClock.wall_ns() / 1_000_000_000;
        let (authority, ca) = Authority::make(now, 2).unwrap();
        let put = |name: &str, text: &str| fs::write(cluster.file(name), text).unwrap();
        put("api-ca.crt", &ca.certificate);
        let own = authority.issue_for(NodeId(1), &["127.0.0.1".to_owned()], None, now, 2).unwrap();
        put("api.crt", &own.certificate);
        put("api.key", &own.key);
        for client in ["boss", "viewer", "nobody"] {
            let issued = authority.issue_client(client, now, 2).unwrap();
            put(&format!("{client}.crt"), &issued.certificate);
            put(&format!("{client}.key"), &issued.key);
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let profile = cluster.file("node-1.toml");
        let path = |name: &str| Value::from(cluster.file(name).display().to_string());
        let text = fs::read_to_string(&profile).unwrap()
            + &format!(
                "\n[api]\nlisten = \"127.0.0.1:{port}\"\ncert_file = {}\nkey_file = {}\nclient_ca_file = {}\nsocket = {}\n",
                path("api.crt"),
                path("api.key"),
                path("api-ca.crt"),
                path("api.sock")
            );
        fs::write(profile, text).unwrap();
        cluster.start();
        Node { cluster, port, _store: store }
    }

    fn windlass(&self, arguments: &[&str]) -> String {
        let ended = self.cluster.at(1, arguments).output().unwrap();
        assert!(ended.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
        String::from_utf8(ended.stdout).unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.cluster.file(name)
    }

    /// curl as a client, over TLS.
    fn curl(&self, client: &str, path: &str) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--include", "--max-time", "100", "--cacert"])
            .arg(self.file("api-ca.crt"));
        if !client.is_empty() {
            curl.arg("--cert").arg(self.file(&format!("{client}.crt")));
            curl.arg("--key").arg(self.file(&format!("{client}.key")));
        }
        curl.arg(format!("https://127.0.0.1:{}{path}", self.port));
        curl
    }

    fn ask(&self, client: &str, method: &str, path: &str, fields: &[&str], body: &str) -> Said {
        let mut curl = self.curl(client, path);
        curl.args(["--request", method]);
        for field in fields {
            curl.args(["--header", field]);
        }
        if !body.is_empty() {
            curl.args(["--header", "Content-Type: application/json", "--data-binary", body]);
        }
        let ended = curl.output().unwrap();
        assert!(ended.status.success(), "{method} {path}: {}", String::from_utf8_lossy(&ended.stderr));
        parse(&String::from_utf8(ended.stdout).unwrap())
    }

    fn get(&self, client: &str, path: &str) -> Said {
        self.ask(client, "GET", path, &[], "")
    }

    /// Bytes at the Unix socket, and what comes until the node closes it.
    fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.file("api.sock")).unwrap();
        // A client that is refused in the middle may find the other side closed.
        let _ = stream.write_all(bytes);
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The value of a series.
    fn metric(&self, series: &str) -> u64 {
        let text = self.raw(b"GET /metrics HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n");
        let line = text.lines().find(|line| line.split(' ').next() == Some(series));
        line.unwrap_or_else(|| panic!("no {series} in {text}")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn closed(&self, rule: &str) -> u64 {
        self.metric(&format!("windlass_api_closed_total{{rule=\"{rule}\"}}"))
    }

    /// Waits until a client's role is known: what a node tells may be half a second old.
    fn is_let(&self, client: &str) {
        self.cluster
            .wait("the role to be known", |_| (self.get(client, "/v1/status").status == 200).then_some(()));
    }

    fn wait_for_job(&self, number: u64) -> Value {
        self.cluster.wait("the job to end", |_| {
            let job = self.get("boss", &format!("/v1/jobs/{number}")).json();
            (job["state"] != "running").then_some(job)
        })
    }
}

#[test]
fn programs_do_what_roles_let_them_over_tls() {
    let node = Node::start("api-roles", 65_536);
    node.cluster.make_policy(1);
    // Who shows no certificate gets no answer, and who shows one without a role gets none of what it asks for.
    let ended = node.curl("", "/v1/status").output().unwrap();
    assert!(!ended.status.success() && ended.stdout.is_empty());
    let refused = node.get("nobody", "/v1/status");
    assert_eq!((refused.status, refused.code()), (403, "E1102".to_owned()));
    assert!(refused.body.contains("windlass role grant cert:nobody viewer"), "{}", refused.body);
    node.windlass(&["role", "grant", "uid:0", "administrator"]);
    node.windlass(&["role", "grant", "cert:boss", "administrator"]);
    node.windlass(&["role", "grant", "cert:viewer", "viewer"]);
    node.is_let("viewer");

    let begun =
        node.ask("boss", "POST", &format!("/v1/policies/{POLICY}/backup"), &["Idempotency-Key: k1"], "");
    assert_eq!(begun.status, 202, "{}", begun.body);
    let number = begun.json()["point"].as_u64().unwrap();
    assert_eq!(begun.field("location"), Some(format!("/v1/jobs/{number}").as_str()));
    let again =
        node.ask("boss", "POST", &format!("/v1/policies/{POLICY}/backup"), &["Idempotency-Key: k1"], "");
    assert_eq!((again.status, again.json()), (202, begun.json()), "the same request is not done twice");
    let job = node.wait_for_job(number);
    assert_eq!((&job["state"], &job["policy"]), (&json!("done"), &json!(POLICY)), "{job}");
    assert!(node.cluster.state().points.len() == 1);

    // The same documents as on the command line.
    let list = |arguments: &[&str]| -> Value { serde_json::from_str(&node.windlass(arguments)).unwrap() };
    assert_eq!(node.get("viewer", "/v1/policies").json(), list(&["policy", "list", "--json"]));
    let mut points = node.get("viewer", &format!("/v1/policies/{POLICY}/points")).json();
    assert_eq!(points["next"], Value::Null);
    points.as_object_mut().unwrap().remove("next");
    assert_eq!(points, list(&["points", POLICY, "--json"]));
    assert_eq!(node.get("viewer", "/v1/roles").json(), list(&["role", "list", "--json"]));
    assert_eq!(node.get("viewer", "/v1/log").json(), list(&["log", "--json"]));
    assert_eq!(node.get("viewer", "/v1/status").json()["coordinator"]["node"], 1);
    let files = node.get("boss", &format!("/v1/policies/{POLICY}/points/latest/files?path=/")).json();
    assert!(!files["entries"].as_array().unwrap().is_empty(), "{files}");
    let first = files["entries"].as_array().unwrap()[0]["name"].as_str().unwrap().to_owned();
    let stat = node.get("boss", &format!("/v1/policies/{POLICY}/points/{number}/stat?path=/{first}")).json();
    assert_eq!(stat["point"], number, "{stat}");

    // A viewer who tries every route sees what a viewer may, and changes nothing.
    let before = node.cluster.state();
    for route in ROUTES {
        let path = route
            .path
            .replace("{policy}", POLICY)
            .replace("{point}", &number.to_string())
            .replace("{job}", &number.to_string())
            .replace("{subject}", "cert:viewer");
        let fields = ["If-Match: *", "Content-Type: application/json"];
        let mut curl = node.curl("viewer", &path);
        curl.args(["--request", route.method.name(), "--max-time", "10"]);
        for field in fields {
            curl.args(["--header", field]);
        }
        let body = match (route.method, route.path.rsplit('/').next()) {
            (Method::Post, Some("move")) => "{\"node\":1}",
            (Method::Post, Some("hold")) => "{\"reason\":\"x\"}",
            (Method::Post, Some("note" | "rename")) if route.path.ends_with("note") => "{\"text\":\"x\"}",
            (Method::Post, Some("rename")) => "{\"to\":\"x\"}",
            (Method::Post, Some("tags")) => "{\"tags\":[\"x\"]}",
            (Method::Post, Some("run")) if route.path.contains("retention") => "{\"expire\":0}",
            (Method::Post, Some("grant" | "revoke")) => "{\"roles\":[\"administrator\"]}",
            (Method::Put, _) => "{}",
            _ => "",
        };
        if !body.is_empty() {
            curl.args(["--data-binary", body]);
        }
        if route.path == "/v1/events" {
            continue;
        }
        let said = parse(&String::from_utf8(curl.output().unwrap().stdout).unwrap());
        let may = route.entry().unwrap().role == Role::Viewer;
        match may {
            true => assert_eq!(said.status, route.status, "{} {path}: {}", route.method.name(), said.body),
            false => assert_eq!(said.code(), "E1102", "{} {path}: {}", route.method.name(), said.body),
        }
    }
    let after = node.cluster.state();
    assert_eq!(
        (before.policies, before.points, before.access.roles.clone()),
        (after.policies, after.points, after.access.roles.clone())
    );
    // An administrator does not take the role from itself.
    let cut_off =
        node.ask("boss", "POST", "/v1/roles/cert:boss/revoke", &[], "{\"roles\":[\"administrator\"]}");
    assert_eq!((cut_off.status, cut_off.code()), (422, "E1301".to_owned()), "{}", cut_off.body);
    assert!(node.get("viewer", "/v1/log?last=1000").body.contains("cert:boss"), "the log says who did it");
}

#[test]
fn a_policy_changes_as_a_whole_or_not_at_all() {
    let node = Node::start("api-change", 65_536);
    node.cluster.make_policy(1);
    node.windlass(&["role", "grant", "uid:0", "administrator"]);
    node.windlass(&["role", "grant", "cert:boss", "administrator"]);
    node.is_let("boss");
    let path = format!("/v1/policies/{POLICY}");
    let read = node.get("boss", &path);
    let (policy, etag) = (read.json(), read.field("etag").unwrap().to_owned());
    let put = |fields: &[&str], body: &str| {
        let said = node.ask("boss", "PUT", &path, fields, body);
        (said.status, said.body)
    };
    let mut other = policy.clone();
    other["exclude"] = json!(["*.tmp"]);
    let text = other.to_string();
    assert_eq!(put(&[], &text).0, 428);
    assert_eq!(put(&["If-Match: \"7\""], &text).0, 412);
    let fits = format!("If-Match: {etag}");
    for (wrong, word) in [
        (text.replacen('{', "{\"colour\":1,", 1), "colour"),
        (text.replacen("\"name\"", "\"name\":\"x\",\"name\"", 1), "duplicate"),
        (text.replace(POLICY, "elsewhere"), "the path about"),
        (text.replace("\"version\":1", "\"version\":99"), ""),
        (text[..text.len() / 2].to_owned(), "EOF"),
        ("[]".to_owned(), ""),
    ] {
        let (status, said) = put(&[&fits], &wrong);
        assert!(status == 422 && said.contains(word), "{wrong}: {status} {said}");
    }
    assert_eq!(node.get("boss", &path).json(), policy, "nothing of them was applied");
    let large = text.replacen('{', &format!("{{{}", " ".repeat(65 << 10)), 1);
    assert_eq!(put(&[&fits], &large).0, 413);
    let (status, said) = put(&[&fits], &text);
    assert_eq!(status, 200, "{said}");
    assert_eq!(put(&[&fits], &text).0, 412, "the ETag is another one now");
    assert_eq!(node.get("boss", &path).json()["exclude"], json!(["*.tmp"]));
    let made =
        node.ask("boss", "PUT", "/v1/policies/second", &["If-Match: \"0\""], &text.replace(POLICY, "second"));
    assert_eq!(made.status, 200, "{}", made.body);
    let gone = node.ask("boss", "DELETE", "/v1/policies/second", &["If-Match: \"1\""], "");
    assert_eq!((gone.status, gone.json()["removed"].clone()), (200, json!("second")), "{}", gone.body);
    assert_eq!(node.ask("boss", "DELETE", "/v1/policies/none", &["If-Match: *"], "").status, 404);
    let cross = node.ask("boss", "POST", "/v1/flush", &["Origin: https://evil.example"], "");
    assert_eq!(cross.code(), "E1103");
}

#[test]
fn events_are_heard_and_gone_on_with() {
    let node = Node::start("api-events", 65_536);
    node.cluster.make_policy(1);
    let follow = |id: &str| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--no-buffer", "--max-time", "60", "--unix-socket"])
            .arg(node.file("api.sock"));
        curl.args(["--header", &format!("Last-Event-ID: {id}"), "http://n/v1/events"]);
        curl.stdout(Stdio::piped()).spawn().unwrap()
    };
    let until = |child: &mut std::process::Child, word: &str| {
        let mut out = child.stdout.take().unwrap();
        let (mut text, mut byte) = (String::new(), [0; 1]);
        while !(text.contains(word) && text.ends_with("\n\n")) {
            assert_eq!(out.read(&mut byte).unwrap(), 1, "it ends: {text}");
            text.push(char::from(byte[0]));
        }
        let _ = child.kill();
        let _ = child.wait();
        text
    };
    // Of an id of another start all that is there is told, after word that some may be missing.
    let mut first = follow("0-0");
    node.windlass(&["backup", POLICY]);
    let text = until(&mut first, "event: point_made");
    assert!(text.starts_with("retry: ") && text.contains("event: missed"), "{text}");
    let begun = text.split("\n\n").find(|event| event.contains("backup_begun")).unwrap();
    let id = begun.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
    let text = until(&mut follow(id), "event: point_made");
    assert!(!text.contains("backup_begun") && !text.contains("missed"), "it goes on behind that one: {text}");
    let mut followers: Vec<_> = (0..EVENT_CLIENTS_MAX).map(|_| follow("")).collect();
    node.cluster.wait("a fifth to be told to poll", |_| {
        // One that is let follow hears no end, so only the begin of the answer is read.
        let mut stream = UnixStream::connect(node.file("api.sock")).unwrap();
        stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: n\r\n\r\n").unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        (head == *b"HTTP/1.1 503").then_some(())
    });
    for follower in &mut followers {
        let _ = follower.kill();
        let _ = follower.wait();
    }
}

#[test]
fn metrics_are_what_promtool_and_an_openmetrics_parser_take() {
    const TEST: &str = "metrics_are_what_promtool_and_an_openmetrics_parser_take";
    let node = Node::start("api-metrics", 65_536);
    node.cluster.make_policy(1);
    node.windlass(&["backup", POLICY]);
    node.cluster.wait("the point to be in the metrics", |_| {
        (node.metric(&format!("windlass_policy_last_good_point_timestamp_seconds{{policy=\"{POLICY}\"}}"))
            > 0)
        .then_some(())
    });
    assert!(node.metric("windlass_store_requests_total{kind=\"put_object\"}") > 0);
    let text = |accept: &str| {
        let said = node.raw(
            format!("GET /metrics HTTP/1.1\r\nHost: n\r\nAccept: {accept}\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        );
        parse(&said).body
    };
    let run = |mut command: Command, input: &str| {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().ok()?;
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let ended = child.wait_with_output().unwrap();
        let said =
            String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
        Some((ended.status.code(), said))
    };
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]);
    match run(promtool, &text("text/plain")) {
        Some((code, said)) => assert!(code == Some(0) && said.is_empty(), "{said}"),
        None => skip(TEST, "promtool is not installed (Debian: prometheus)"),
    }
    let mut rules = Command::new("promtool");
    rules
        .args(["check", "rules"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../board/profiles/windlass.rules.yml"));
    if let Some((code, said)) = run(rules, "") {
        assert_eq!(code, Some(0), "{said}");
    }
    let parser = "import sys\nfrom prometheus_client.openmetrics.parser import text_string_to_metric_families as p\n\
                  n=sum(len(f.samples) for f in p(sys.stdin.read()))\nassert 30<n<=300,n\n";
    let mut python = Command::new("python3");
    python.args(["-c", parser]);
    match run(python, &text("application/openmetrics-text")) {
        Some((_, said)) if said.contains("ModuleNotFoundError") => {
            skip(TEST, "PyPI's prometheus_client is not installed")
        }
        Some((code, said)) => assert_eq!(code, Some(0), "{said}"),
        None => skip(TEST, "python3 is not installed"),
    }
}

#[test]
fn clients_that_misbehave_are_closed_by_rule_and_counted() {
    let mut node = Node::start("api-hostile", 65_536);
    node.cluster.make_policy(1);
    // Requests that two programs could read in two ways, and what is too large.
    let host = "Host: n\r\n";
    for (request, status) in [
        (
            format!(
                "POST /v1/flush HTTP/1.1\r\n{host}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            400,
        ),
        (
            format!("POST /v1/flush HTTP/1.1\r\n{host}Content-Length: 0\r\nContent-Length: 5\r\n\r\nGET /"),
            400,
        ),
        (format!("POST /v1/flush HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 501),
        (format!("GET / HTTP/1.1\r\n{host}X: 1\r\n 2\r\n\r\n"), 400),
        ("GET / HTTP/1.1\nHost: n\n\n".to_owned(), 400),
        (format!("GET /v1/policies/../../etc/passwd HTTP/1.1\r\n{host}\r\n"), 400),
        (format!("GET /v1/policies/%2e%2e/points HTTP/1.1\r\n{host}\r\n"), 400),
        (format!("GET /{} HTTP/1.1\r\n{host}\r\n", "a".repeat(3000)), 414),
        (format!("GET / HTTP/1.1\r\n{host}X: {}\r\n\r\n", "a".repeat(9000)), 431),
        (
            format!(
                "PUT /v1/policies/x HTTP/1.1\r\n{host}Content-Length: 70000\r\n\r\n{}",
                "a".repeat(70_000)
            ),
            413,
        ),
        ("\x16\x03\x01\x02\x00\x01\x00\n".to_owned(), 400),
    ] {
        let before = node.closed("refused");
        let said = node.raw(request.as_bytes());
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {said:?}");
        assert_eq!(
            said.lines().filter(|line| line.starts_with("HTTP/1.1 ")).count(),
            1,
            "no second answer: {said}"
        );
        assert_eq!(node.closed("refused"), before + 1, "{request:?}");
    }
    // What is no TLS.
    let tls = node.closed("tls");
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, node.port)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: n\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    node.cluster.wait("it to be counted", |_| (node.closed("tls") == tls + 1).then_some(()));
    // As many silent connections as may be in their handshake, and one more.
    let silent: Vec<_> = (0..CONNS_PER_PEER_MAX)
        .map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, node.port)).unwrap())
        .collect();
    let mut one_more = TcpStream::connect((Ipv4Addr::LOCALHOST, node.port)).unwrap();
    let _ = one_more.read_to_end(&mut rest);
    assert!(node.closed("peer") > 0);
    // A head that never ends is told so, ten seconds after its first byte; silent handshakes are over by then.
    let slow = node.raw(b"GET / HTTP/1.1\r\nHost: n\r\n");
    assert!(slow.starts_with("HTTP/1.1 408 "), "{slow}");
    assert_eq!(node.closed("handshake_slow"), CONNS_PER_PEER_MAX as u64);
    drop(silent);
    // A flood, while a backup runs and the agent goes on answering.
    let flood = std::thread::spawn({
        let port = node.port;
        move || (0..FLOOD).filter(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()).count()
    });
    node.windlass(&["backup", POLICY]);
    assert!(flood.join().unwrap() > FLOOD / 2);
    assert!(node.metric("windlass_api_connections") <= 32);
    node.cluster
        .wait("the flood to be over", |_| (node.metric("windlass_api_connections") == 1).then_some(()));
    let status = node.get("boss", "/v1/status");
    assert_eq!(status.code(), "E1102", "it answers others as before: {}", status.body);
    assert_eq!(node.cluster.ended(1), None);
}

#[test]
fn the_page_says_what_is_protected_and_has_no_script() {
    let node = Node::start("api-page", 65_536);
    let page = |path: &str| {
        parse(&node.raw(format!("GET {path} HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n").as_bytes()))
    };
    let empty = page("/");
    assert!(empty.status == 200 && empty.body.contains("nothing is backed up"), "{}", empty.body);
    node.cluster.make_policy(1);
    node.windlass(&["backup", POLICY]);
    let overview = node.cluster.wait("the page to know of the point", |_| {
        let said = page("/");
        said.body.contains("protected").then_some(said)
    });
    let policy = page(&format!("/policies/{POLICY}"));
    for said in [&overview, &policy, &page("/style.css")] {
        assert_eq!(said.status, 200);
        assert!(!said.body.contains("<script") && !said.body.contains("style=\""), "{}", said.body);
        for line in said.body.split(['"', '(']) {
            assert!(!line.starts_with("http") && !line.starts_with("//"), "no other site: {line}");
        }
    }
    let rules = overview.field("content-security-policy").unwrap();
    assert!(rules.contains("default-src 'none'") && rules.contains("frame-ancestors 'none'"), "{rules}");
    assert!(policy.body.contains("complete"), "{}", policy.body);
}
