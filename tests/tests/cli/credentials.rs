//! The usual chain of S3 credentials: the command line against a metadata service and a store of this process, by real requests.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests, with real threads and sockets")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use windlass_agent::store::keyring::{Keyring, RELOAD_S, RENEW_BEFORE_S};
use windlass_agent::store::s3::chain::Chain;
use windlass_agent::store::s3::keys::CredentialSource;
use windlass_agent::store::s3::sign::Credentials;
use windlass_tests::cli::{Cli, Ended};
use windlass_tests::engines::faulty::Faulty;
use windlass_tests::workdir::Workdir;

/// What a service was asked: method, path, headers.
type Asked = (String, String, BTreeMap<String, String>);

/// Status and body by method and path.
type Answers = BTreeMap<(String, String), (u16, String)>;

/// A metadata service, and a store that refuses everything: both on one port.
struct Service {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    answers: Arc<Mutex<Answers>>,
}

impl Service {
    fn start() -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = Service { url, asked: Arc::default(), answers: Arc::default() };
        let (asked, answers) = (Arc::clone(&service.asked), Arc::clone(&service.answers));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (asked, answers) = (Arc::clone(&asked), Arc::clone(&answers));
                std::thread::spawn(move || while serve(&stream, &asked, &answers).is_some() {});
            }
        });
        service
    }

    fn answer(&self, method: &str, path: &str, status: u16, body: &str) {
        let answer = (status, body.to_owned());
        self.answers.lock().unwrap().insert((method.to_owned(), path.to_owned()), answer);
    }

    /// Answers as an EC2 instance with a role.
    fn instance(&self, id: &str, until: &str) {
        let list = "/latest/meta-data/iam/security-credentials/";
        self.answer("PUT", "/latest/api/token", 200, "TOKEN==");
        self.answer("GET", list, 200, "backup");
        self.answer("GET", &format!("{list}backup"), 200, &keys(id, until));
    }

    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn keys(id: &str, until: &str) -> String {
    format!(
        r#"{{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"{id}","SecretAccessKey":"hidden","Token":"SESSION","Expiration":"{until}"}}"#
    )
}

fn serve(stream: &TcpStream, asked: &Mutex<Vec<Asked>>, answers: &Mutex<Answers>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&read| read > 0)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    reader.take(length).read_to_end(&mut Vec::new()).ok()?;
    let fitting = answers.lock().unwrap().get(&(method.clone(), path.clone())).cloned();
    let needs_token = path.starts_with("/latest/meta-data");
    let (status, body) = match fitting {
        Some(_) if needs_token && !headers.contains_key("x-aws-ec2-metadata-token") => (401, String::new()),
        Some(answer) => answer,
        None if path.starts_with("/bucket") => {
            (403, "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>".to_owned())
        }
        None => (404, String::new()),
    };
    asked.lock().unwrap().push((method, path, headers));
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len()).ok()
}

/// A command against a store, with these variables and nothing else of the environment.
fn run(endpoint: &str, variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let mut cli = Cli::new(env!("CARGO_BIN_EXE_windlass-under-test")).with("WINDLASS_REPO", "s3://bucket/x");
    for (name, value) in variables {
        cli = cli.with(name, value);
    }
    cli.run(&[&["--path-style", "--endpoint", endpoint], arguments].concat())
}

#[test]
fn an_instance_s_role_gives_keys_that_sign_and_a_refusal_names_it() {
    let service = Service::start();
    service.instance("ASIAROLE", "2099-01-01T00:00:00Z");
    let variables = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.url.as_str())];
    let refused = run(&service.url, &variables, &["repo", "info"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    let says = "check the credentials (from instance role backup, valid until 2099-01-01T00:00:00Z)";
    assert!(refused.failure().contains(says), "{refused:?}");
    assert!(!refused.stderr.contains("hidden") && !refused.stderr.contains("SESSION"), "{refused:?}");
    let asked = service.asked();
    let paths: Vec<_> = asked.iter().take(3).map(|(method, path, _)| format!("{method} {path}")).collect();
    let list = "/latest/meta-data/iam/security-credentials/";
    assert_eq!(
        paths,
        ["PUT /latest/api/token".to_owned(), format!("GET {list}"), format!("GET {list}backup")]
    );
    assert!(asked[0].2.contains_key("x-aws-ec2-metadata-token-ttl-seconds"));
    assert_eq!(asked[2].2["x-aws-ec2-metadata-token"], "TOKEN==");
    let (_, path, signed) = &asked[3];
    assert!(path.starts_with("/bucket/x/"), "{path}");
    assert!(signed["authorization"].contains("Credential=ASIAROLE/"), "{signed:?}");
    assert_eq!(signed["x-amz-security-token"], "SESSION");
    // A service of version 1 only, one without a role, one that is switched off: each is named.
    for (method, path, status, says) in [
        ("PUT", "/latest/api/token", 403, "metadata service is switched off"),
        ("PUT", "/latest/api/token", 404, "IMDSv2 is needed"),
        ("PUT", "/latest/api/token", 500, "hop limit"),
        ("GET", list, 404, "the instance has no role"),
    ] {
        service.instance("ASIAROLE", "2099-01-01T00:00:00Z");
        service.answer(method, path, status, "");
        let failed = run(&service.url, &variables, &["repo", "info"]);
        assert!(failed.code == 2 && failed.failure().contains(says), "{failed:?}");
        assert!(failed.failure().contains("environment: AWS_ACCESS_KEY_ID is not set"), "{failed:?}");
    }
    let off = [variables[0], ("AWS_EC2_METADATA_DISABLED", "true")];
    let _ = service.asked();
    assert!(run(&service.url, &off, &["repo", "info"]).failure().contains("AWS_EC2_METADATA_DISABLED"));
    assert!(service.asked().is_empty(), "nothing is asked that is switched off");
}

#[test]
fn sources_come_in_their_order_and_a_broken_one_ends_the_search() {
    let (service, store, work) = (Service::start(), Faulty::start(), Workdir::new("cli-chain").unwrap());
    service.instance("ASIAROLE", "2099-01-01T00:00:00Z");
    service.answer("GET", "/role", 200, &keys("ASIATASK", "2099-01-01T00:00:00Z"));
    let (home, endpoint) = (work.dir("home").unwrap(), store.s3.endpoint.as_str());
    fs::create_dir(home.join(".aws")).unwrap();
    let (uri, token) = (format!("{}/role", service.url), work.join("token"));
    fs::write(&token, "Bearer 77\n").unwrap();
    let home = home.to_str().unwrap();
    let instance = [("HOME", home), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.url.as_str())];
    let container = [
        &instance[..],
        &[
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri.as_str()),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.to_str().unwrap()),
        ],
    ]
    .concat();
    let environment =
        [&container[..], &[("AWS_ACCESS_KEY_ID", "AKENV"), ("AWS_SECRET_ACCESS_KEY", "hidden")]].concat();
    let init = run(endpoint, &environment, &["repo", "init", "--no-encryption"]);
    assert_eq!(init.code, 0, "{init:?}");
    let said = |variables: &[(&str, &str)], arguments: &[&str]| -> String {
        let ended = run(endpoint, variables, &[&["repo", "info", "--json"], arguments].concat());
        assert_eq!(ended.code, 0, "{ended:?}");
        ended.documents()[0]["credentials"].as_str().unwrap().to_owned()
    };
    assert_eq!(said(&environment, &[]), "the environment");
    assert!(said(&instance, &[]).starts_with("instance role backup, valid until 2099"));
    let _ = service.asked();
    assert!(said(&container, &[]).starts_with("the container's role (from 127.0.0.1:"));
    assert_eq!(service.asked()[0].2["authorization"], "Bearer 77");
    // Shared files go before roles; the credentials file before the configuration; a profile of the command line before all.
    let shared = |name: &str, text: &str| fs::write(work.join("home/.aws").join(name), text).unwrap();
    let pair = "aws_access_key_id = AK\naws_secret_access_key = hidden\n";
    shared("config", &format!("[default]\nregion = eu-west-1\n[profile rack]\n{pair}"));
    assert!(said(&container, &[]).starts_with("the container's role"), "a region alone is no keys");
    assert_eq!(said(&container, &["--profile", "rack"]), format!("profile [rack] of {home}/.aws/config"));
    shared("credentials", &format!("[default]\n{pair}[rack]\n{pair}"));
    assert_eq!(said(&container, &[]), format!("profile [default] of {home}/.aws/credentials"));
    assert_eq!(said(&environment, &[]), "the environment");
    let by_name = [&container[..], &[("AWS_PROFILE", "rack")]].concat();
    assert_eq!(said(&by_name, &[]), format!("profile [rack] of {home}/.aws/credentials"));
    assert_eq!(
        said(&environment, &["--profile", "rack"]),
        format!("profile [rack] of {home}/.aws/credentials")
    );
    let text = run(endpoint, &by_name, &["repo", "info"]).stdout;
    assert!(text.contains("credentials profile [rack]"), "{text}");
    // What is there and broken is named, and nothing else is used instead.
    let fails = |variables: &[(&str, &str)], says: &str| {
        let ended = run(endpoint, variables, &["repo", "info"]);
        assert!(ended.code == 2 && ended.failure().contains(says), "{says}: {ended:?}");
    };
    fails(&[&container[..], &[("AWS_PROFILE", "none")]].concat(), "profile [none] has no keys");
    fails(&[&container[..], &[("AWS_ACCESS_KEY_ID", "AK")]].concat(), "AWS_SECRET_ACCESS_KEY is not set");
    shared("credentials", "[default]\nrole_arn = arn:x\n");
    fails(&container, "gets its keys by role_arn");
    fails(
        &container,
        "export-credentials --profile default --format env)\"`, and leave --profile, AWS_PROFILE and --credentials-file out",
    );
    let file = format!("{home}/.aws/credentials");
    let named = run(endpoint, &container, &["repo", "info", "--credentials-file", &file]);
    assert!(named.code == 2 && named.failure().contains("gets its keys by role_arn"), "{named:?}");
    shared("credentials", "[default]\naws_access_key_id = AK\n");
    fails(&container, "has no aws_secret_access_key");
    fs::remove_file(work.join("home/.aws/credentials")).unwrap();
    service.answer("GET", "/role", 403, "");
    fails(&container, "container role: http://127.0.0.1");
    let elsewhere = [&instance[..], &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://192.0.2.1/x")]].concat();
    fails(&elsewhere, "only https, this machine and AWS's own addresses are asked");
}

#[test]
fn keys_of_a_role_are_renewed_before_they_end_and_a_service_that_is_gone_leaves_the_old_ones() {
    const S: u64 = 1_000_000_000;
    /// 2026-11-21T03:16:42Z.
    const END: i64 = 1_795_231_002;
    let service = Service::start();
    service.instance("FIRST", "2026-11-21T03:16:42Z");
    let chain =
        Chain::new(None, |name| (name == "AWS_EC2_METADATA_SERVICE_ENDPOINT").then(|| service.url.clone()));
    assert!(!format!("{chain:?}").contains("127.0.0.1"), "no values in Debug");
    let ring = Keyring::<Credentials>::open(CredentialSource::Chain(chain), 0).unwrap();
    let id = |now_ns, wall, hurried| ring.current(now_ns, wall, hurried).access_key_id.clone();
    assert_eq!(service.asked().len(), 3);
    let due = END - RENEW_BEFORE_S;
    assert_eq!(id(100 * S, due - 1, false), "FIRST");
    assert!(service.asked().is_empty(), "nothing is asked while they last");
    service.instance("SECOND", "2026-11-21T04:16:42Z");
    assert_eq!(id(100 * S, due, true), "FIRST", "a call of the lease does not wait for others");
    assert_eq!(id(100 * S, due, false), "SECOND");
    assert!(ring.said().ends_with("valid until 2026-11-21T04:16:42Z"), "{}", ring.said());
    // The service fails: the old ones are used, and it is asked again later, not by each request.
    service.answer("PUT", "/latest/api/token", 403, "");
    let _ = service.asked();
    let due = due + 3600;
    assert_eq!((id(5000 * S, due, false), id(5001 * S, due, false)), ("SECOND".into(), "SECOND".into()));
    assert_eq!(service.asked().len(), 1);
    assert!(ring.said().contains("no newer ones came"), "{}", ring.said());
    service.instance("THIRD", "2026-11-21T05:16:42Z");
    assert_eq!(id((5000 + RELOAD_S) * S, due, false), "THIRD");
    // Past their end a call of the lease asks too: it has nothing else to sign with.
    service.instance("FOURTH", "2026-11-21T06:16:42Z");
    assert_eq!(id(9000 * S, END + 7200, true), "FOURTH");
}
