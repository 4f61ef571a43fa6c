//! Access tokens of Google against a server in this process: the claim that a service account signs, tokens that are kept, renewed and dropped.
//!
//! Keys are made, and signatures looked at, by openssl: not by the code under test.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests, and their helpers")]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use windlass_agent::store::gcs::{GcsSettings, GcsStore};
use windlass_agent::store::throttle::Throttle;
use windlass_agent::store::{PutMode, Store, StoreFaultKind};
use windlass_hal::clock::Clock;
use windlass_hal::sim::clock::SimClock;
use windlass_tests::conformance::store::WHOLE;
use windlass_tests::engines::scratch::Scratch;
use windlass_tests::engines::skip;

/// What the server was asked, and how it answers.
#[derive(Default)]
struct Shared {
    /// Bodies of questions for a token.
    claims: Vec<String>,
    /// `Authorization` of questions for an object.
    shown: Vec<String>,
    /// The token of now; the others are refused with 401.
    valid: usize,
    /// How long it says that a token holds, in seconds.
    life_s: u64,
    /// Whether it gives none.
    refuses: bool,
}

struct Server {
    port: u16,
    shared: Arc<Mutex<Shared>>,
}

impl Server {
    fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Mutex::new(Shared { life_s: 3600, ..Shared::default() }));
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&of_thread);
                thread::spawn(move || answer(stream, &shared));
            }
        });
        Server { port, shared }
    }

    fn set(&self, change: impl FnOnce(&mut Shared)) {
        change(&mut self.shared.lock().unwrap());
    }

    fn claims(&self) -> usize {
        self.shared.lock().unwrap().claims.len()
    }
}

fn answer(mut stream: TcpStream, shared: &Mutex<Shared>) {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    let head = loop {
        if let Some(end) = request.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        match stream.read(&mut piece) {
            Ok(n @ 1..) => request.extend_from_slice(&piece[..n]),
            _ => return,
        }
    };
    let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
    let value = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    let length = value("content-length:").map_or(0, |length| length.parse().unwrap());
    while request.len() < head + length {
        let n = stream.read(&mut piece).unwrap();
        request.extend_from_slice(&piece[..n]);
    }
    let original = String::from_utf8_lossy(&request).into_owned();
    let mut shared = shared.lock().unwrap();
    let (status, body) = if text.starts_with("post /token") || text.contains("metadata-flavor: google") {
        shared.claims.push(original[head..].to_owned());
        if shared.refuses {
            (400, r#"{"error":"invalid_grant","error_description":"Invalid JWT Signature."}"#.to_owned())
        } else {
            shared.valid = shared.claims.len();
            let (valid, life_s) = (shared.valid, shared.life_s);
            (
                200,
                format!(r#"{{"access_token":"secret-{valid}","expires_in":{life_s},"token_type":"Bearer"}}"#),
            )
        }
    } else {
        let shown = value("authorization:").unwrap_or_default();
        let good = shown == format!("bearer secret-{}", shared.valid);
        shared.shown.push(shown);
        match good {
            true => (200, "bytes".to_owned()),
            false => (
                401,
                r#"{"error":{"code":401,"errors":[{"reason":"authError"}],"message":"Invalid Credentials"}}"#
                    .to_owned(),
            ),
        }
    };
    let _ = stream.write_all(
        format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
            .as_bytes(),
    );
}

/// A service account's key file for this server, and its public key in PEM.
fn key_file(scratch: &Scratch, port: u16) -> Result<(), String> {
    let script = "set -e; openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key.pem 2>/dev/null \
                  || openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key.pem; openssl pkey -in key.pem -pubout -out public.pem";
    let made = Command::new("bash").args(["-c", script]).current_dir(scratch.path()).output();
    let made = made.map_err(|e| e.to_string())?;
    if !made.status.success() {
        return Err(format!("openssl: {}", String::from_utf8_lossy(&made.stderr)));
    }
    let key = fs::read_to_string(scratch.path().join("key.pem")).unwrap();
    let file = serde_json::json!({
        "type": "service_account", "client_email": "backup@project.iam.example", "private_key": key, "private_key_id": "k1",
        "token_uri": format!("http://127.0.0.1:{port}/token"),
    });
    fs::write(scratch.path().join("account.json"), file.to_string()).unwrap();
    Ok(())
}

fn store(server: &Server, key: Option<&Path>, clock: &Arc<SimClock>) -> GcsStore {
    let settings = GcsSettings {
        endpoint: Some(format!("http://127.0.0.1:{}", server.port)),
        key_file: key.map(Path::to_path_buf),
        nonce: 1,
        ..GcsSettings::default()
    };
    let clock: Arc<dyn Clock> = Arc::<SimClock>::clone(clock);
    let throttle = Arc::new(Throttle::new(Arc::clone(&clock), 0, 0));
    GcsStore::open("bucket", "p", &settings, clock, throttle).unwrap()
}

fn decode(text: &str) -> Vec<u8> {
    let made = Command::new("bash")
        .args(["-c", "printf '%s' \"$1\" | tr '_-' '/+' | base64 -d 2>/dev/null", "decode", text])
        .output()
        .unwrap();
    made.stdout
}

#[test]
fn a_service_account_signs_what_it_claims_and_its_token_is_kept_until_it_is_due() {
    let name = "a_service_account_signs_what_it_claims_and_its_token_is_kept_until_it_is_due";
    let (server, scratch) = (Server::start(), Scratch::new("gcs-token"));
    if let Err(reason) = key_file(&scratch, server.port) {
        return skip(name, &reason);
    }
    let clock = Arc::new(SimClock::new());
    let store = store(&server, Some(&scratch.path().join("account.json")), &clock);
    let get = || store.get("a", WHOLE, &mut Vec::new());
    assert_eq!(get(), Ok(5));
    assert_eq!(get(), Ok(5));
    assert_eq!(server.claims(), 1, "one token for many calls");
    let body = server.shared.lock().unwrap().claims[0].clone();
    let assertion = body.split_once("&assertion=").unwrap().1;
    assert!(body.starts_with("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&"), "{body}");
    let parts: Vec<&str> = assertion.split('.').collect();
    let claim: serde_json::Value = serde_json::from_slice(&decode(parts[1])).unwrap();
    assert_eq!(claim["iss"], "backup@project.iam.example");
    assert_eq!(claim["aud"], format!("http://127.0.0.1:{}/token", server.port));
    assert_eq!(claim["exp"].as_i64().unwrap() - claim["iat"].as_i64().unwrap(), 3600);
    fs::write(scratch.path().join("signed"), format!("{}.{}", parts[0], parts[1])).unwrap();
    // base64 without its end is refused by some tools.
    let padded = format!("{}{}", parts[2], "=".repeat((4 - parts[2].len() % 4) % 4));
    fs::write(scratch.path().join("signature"), decode(&padded)).unwrap();
    let verified = Command::new("openssl")
        .args(["dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "signed"])
        .current_dir(scratch.path())
        .output()
        .unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));

    // Five minutes before its end it is renewed; a renewal that fails is no reason to stop, until the end.
    clock.advance(Duration::from_secs(3600 - 299));
    server.set(|shared| shared.refuses = true);
    assert_eq!(get(), Ok(5));
    assert_eq!(get(), Ok(5));
    assert_eq!(server.claims(), 2, "not tried again at once");
    clock.advance(Duration::from_secs(11));
    server.set(|shared| shared.refuses = false);
    assert_eq!(get(), Ok(5));
    assert_eq!(server.claims(), 3);
    server.set(|shared| shared.refuses = true);
    clock.advance(Duration::from_secs(3601));
    let fault = get().unwrap_err();
    assert_eq!((fault.kind, fault.call.as_str()), (StoreFaultKind::Denied, "GET a"));
    assert!(fault.to_string().contains("invalid_grant") && !fault.to_string().contains("secret"), "{fault}");
}

#[test]
fn a_token_that_is_refused_is_replaced_once() {
    let name = "a_token_that_is_refused_is_replaced_once";
    let (server, scratch) = (Server::start(), Scratch::new("gcs-revoked"));
    if let Err(reason) = key_file(&scratch, server.port) {
        return skip(name, &reason);
    }
    let clock = Arc::new(SimClock::new());
    let store = store(&server, Some(&scratch.path().join("account.json")), &clock);
    assert_eq!(store.get("a", WHOLE, &mut Vec::new()), Ok(5));
    server.set(|shared| shared.valid = 99);
    assert_eq!(store.get("a", WHOLE, &mut Vec::new()), Ok(5));
    assert_eq!(server.claims(), 2);
    let shown = server.shared.lock().unwrap().shown.clone();
    assert_eq!(shown, ["bearer secret-1", "bearer secret-1", "bearer secret-2"]);
}

#[test]
fn without_an_account_nothing_is_shown_and_keys_of_other_kinds_are_named() {
    let (server, scratch) = (Server::start(), Scratch::new("gcs-none"));
    let clock = Arc::new(SimClock::new());
    let anonymous = store(&server, None, &clock);
    let fault = anonymous.put("a", &[b"x"], PutMode::CreateOnly).unwrap_err();
    assert_eq!(fault.kind, StoreFaultKind::Denied, "{fault}");
    assert_eq!(server.shared.lock().unwrap().shown, [""]);
    for (text, words) in [
        ("{\"type\":\"authorized_user\"}", "only key files of service accounts"),
        ("not json", "not a key file of Google"),
        (
            "{\"type\":\"service_account\",\"client_email\":\"a@b\",\"token_uri\":\"http://10.0.0.1/token\"}",
            "not an https:// URL",
        ),
        (
            "{\"type\":\"service_account\",\"client_email\":\"a@b\",\"token_uri\":\"https://a/token\",\"private_key\":\"x\"}",
            "PKCS#8",
        ),
    ] {
        let path = scratch.path().join("other.json");
        fs::write(&path, text).unwrap();
        let settings = GcsSettings {
            endpoint: Some("http://127.0.0.1:1".into()),
            key_file: Some(path),
            ..GcsSettings::default()
        };
        let shared: Arc<dyn Clock> = Arc::<SimClock>::clone(&clock);
        let throttle = Arc::new(Throttle::new(Arc::clone(&shared), 0, 0));
        let fault = GcsStore::open("bucket", "p", &settings, shared, throttle).err().unwrap().to_string();
        assert!(fault.contains(words), "{words}: {fault}");
    }
}
