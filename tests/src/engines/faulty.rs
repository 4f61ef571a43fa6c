//! A small S3 server in this process that misbehaves on purpose: answers lost after the call was applied, resets, storms of
//! 503, bodies cut short or changed, wrong checksums, slowness, refusals in the middle of a run.
//!
//! It checks no signatures. Faults are a queue: each request takes the first fault that fits its method. Without one it is a
//! correct, linearizable store of one bucket. Source: ours; `agent/doc/commit-log.md`, What stores get wrong.
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a harness, with real threads and sockets"
)]

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::s3::S3Engine;

/// One misbehaviour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Applies the call and closes the connection instead of answering.
    LostAnswer,
    /// Closes the connection after the headers, nothing applied.
    Reset,
    /// Answers this status with this S3 code, nothing applied. An empty code: no S3 body at all.
    Status(u16, &'static str),
    /// Answers with these bytes, nothing applied.
    Raw(&'static str),
    /// Announces the whole body and sends half of it.
    CutBody,
    /// Flips a bit of the body that it sends; its checksum header stays right.
    FlipDown,
    /// Flips a bit of the body that it received, before it checks the checksum.
    FlipUp,
    /// Stores the body and answers with another checksum.
    WrongChecksum,
    /// Answers 200 with a log-in page as a proxy does, nothing applied.
    Portal,
    /// Applies the call and answers without the ETag that its other answers have.
    NoEtag,
    /// Answers a range that can be served with 416, and tells the object's size.
    NoSuchRange,
    /// Answers a LIST that says there is more, without a token for it.
    NoToken,
    /// Answers a LIST with the token that it was asked with.
    SameToken,
    /// Lists a key outside of the prefix that was asked for.
    OtherPrefix,
    /// Lists keys in descending order.
    Unsorted,
    /// Sends the body without its length, which ends where the connection does.
    NoLength,
    /// Sends the body in chunks.
    Chunked,
    /// Sends the body in chunks, and breaks off before the last one.
    CutChunks,
    /// Sends the bytes of another range than it was asked for.
    WrongRange,
    /// Waits so many milliseconds before it answers; the call is applied first.
    SlowAnswer(u64),
    /// Sends the first half of the body, then waits so many milliseconds.
    SlowBody(u64),
    /// Announces a terabyte and sends zeros for as long as somebody reads.
    Flood,
    /// Treats a create-only PUT as a plain one.
    IgnoreCondition,
    /// Treats this request as usual: a gap in the queue.
    Fine,
}

#[derive(Default)]
struct State {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    plan: Mutex<VecDeque<(&'static str, Fault)>>,
    requests: AtomicUsize,
    flooded: AtomicUsize,
    connections: AtomicUsize,
    bucket_gone: AtomicBool,
    denied: AtomicBool,
    versioning: AtomicBool,
    stopped: AtomicBool,
}

/// The server, on a port of its own.
pub struct Faulty {
    /// How to reach it.
    pub s3: S3Engine,
    state: Arc<State>,
    port: u16,
}

impl Faulty {
    /// Starts it with bucket `bucket`.
    pub fn start() -> Faulty {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let state = Arc::clone(&shared);
                std::thread::spawn(move || while serve(&state, &stream).unwrap_or(false) {});
            }
        });
        Faulty { s3: S3Engine::new(format!("http://127.0.0.1:{port}"), "AK", "SK"), state, port }
    }

    /// The next `times` requests with this method (`""`: any) meet `fault`.
    pub fn plan(&self, method: &'static str, fault: &Fault, times: usize) {
        let mut plan = lock(&self.state.plan);
        plan.extend(std::iter::repeat_n((method, fault.clone()), times));
    }

    /// Forgets faults that nobody met.
    pub fn clear(&self) {
        lock(&self.state.plan).clear();
    }

    /// From now on the bucket is gone, or there again.
    pub fn bucket_gone(&self, gone: bool) {
        self.state.bucket_gone.store(gone, Ordering::SeqCst);
    }

    /// From now on the keys are refused, or accepted again.
    pub fn denied(&self, denied: bool) {
        self.state.denied.store(denied, Ordering::SeqCst);
    }

    /// The bucket keeps versions, and conditions are ignored under it: Ceph RGW 16.
    pub fn versioning(&self, on: bool) {
        self.state.versioning.store(on, Ordering::SeqCst);
    }

    /// Requests seen so far.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Bytes that [`Fault::Flood`] got rid of so far, those in the sockets' buffers included.
    pub fn flooded(&self) -> usize {
        self.state.flooded.load(Ordering::SeqCst)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Objects whose keys have `part` in them.
    pub fn stored(&self, part: &str) -> usize {
        lock(&self.state.objects).keys().filter(|key| key.contains(part)).count()
    }

    /// The bytes of an object, by its key below the test prefix.
    pub fn object(&self, key: &str) -> Option<Vec<u8>> {
        lock(&self.state.objects).get(&format!("te.st/prefix/{key}")).cloned()
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Request {
    method: String,
    /// Object key with its prefix; empty for the bucket.
    object: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn empty(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), body: Vec::new() }
    }

    fn error(status: u16, code: &str) -> Answer {
        let xml =
            format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as planned</Message></Error>");
        Answer { body: if code.is_empty() { Vec::new() } else { xml.into_bytes() }, ..Answer::empty(status) }
    }
}

/// One request of a connection. False when the connection ends.
fn serve(state: &State, stream: &TcpStream) -> std::io::Result<bool> {
    let Some(mut request) = read_request(stream)? else { return Ok(false) };
    state.requests.fetch_add(1, Ordering::SeqCst);
    let fault = take_fault(state, &request.method);
    let close = || stream.shutdown(Shutdown::Both).map(|()| false);
    match &fault {
        Fault::Reset => return close(),
        Fault::Raw(text) => {
            let mut to = stream;
            to.write_all(text.as_bytes())?;
            return close();
        }
        Fault::Flood => {
            let mut to = stream;
            to.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n")?;
            loop {
                to.write_all(&[0; 4096])?;
                state.flooded.fetch_add(4096, Ordering::SeqCst);
            }
        }
        Fault::FlipUp => {
            if let Some(byte) = request.body.last_mut() {
                *byte ^= 1;
            }
        }
        _ => {}
    }
    let mut answer = match fault {
        Fault::Status(status, code) => Answer::error(status, code),
        Fault::Portal => Answer {
            headers: vec![("Content-Type", "text/html".to_owned())],
            body: b"<html><body>\x1b[31mPlease log in</body></html>".to_vec(),
            ..Answer::empty(200)
        },
        Fault::NoSuchRange => {
            let size = lock(&state.objects).get(&request.object).map_or(0, Vec::len);
            let headers = vec![("Content-Range", format!("bytes */{size}"))];
            Answer { headers, ..Answer::error(416, "InvalidRange") }
        }
        _ => apply(state, &request, &fault),
    };
    match fault {
        Fault::LostAnswer => return close(),
        Fault::SlowAnswer(ms) => std::thread::sleep(Duration::from_millis(ms)),
        Fault::FlipDown => {
            if let Some(byte) = answer.body.first_mut() {
                *byte ^= 1;
            }
        }
        _ => {}
    }
    let mut to = stream;
    let chunked = matches!(fault, Fault::Chunked | Fault::CutChunks);
    let mut head = match fault {
        Fault::NoLength => format!("HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status),
        _ if chunked => format!("HTTP/1.1 {} X\r\nTransfer-Encoding: chunked\r\n", answer.status),
        _ => format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\n", answer.status, answer.body.len()),
    };
    for (name, value) in &answer.headers {
        if fault == Fault::NoEtag && *name == "ETag" {
            continue;
        }
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    to.write_all(format!("{head}\r\n").as_bytes())?;
    let half = answer.body.len() / 2;
    match fault {
        Fault::CutBody => {
            to.write_all(&answer.body[..half])?;
            return close();
        }
        Fault::SlowBody(ms) => {
            to.write_all(&answer.body[..half])?;
            std::thread::sleep(Duration::from_millis(ms));
            to.write_all(&answer.body[half..])?;
        }
        _ if chunked => {
            for chunk in answer.body.chunks(3) {
                to.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
                to.write_all(chunk)?;
                to.write_all(b"\r\n")?;
            }
            if fault == Fault::CutChunks {
                return close();
            }
            to.write_all(b"0\r\n\r\n")?;
        }
        Fault::NoLength => {
            to.write_all(&answer.body)?;
            return close();
        }
        _ => to.write_all(&answer.body)?,
    }
    Ok(true)
}

fn take_fault(state: &State, method: &str) -> Fault {
    let mut plan = lock(&state.plan);
    match plan.iter().position(|(wanted, _)| wanted.is_empty() || *wanted == method) {
        Some(at) => plan.remove(at).map_or(Fault::Fine, |(_, fault)| fault),
        None => Fault::Fine,
    }
}

fn read_request(stream: &TcpStream) -> std::io::Result<Option<Request>> {
    // The client sends nothing more until it is answered, so nothing is lost in the buffer.
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let method = words.next().unwrap_or("").to_owned();
    let target = words.next().unwrap_or("").to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    if headers.contains_key("expect") {
        let mut to = stream;
        to.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let length = headers.get("content-length").and_then(|v| v.parse().ok()).unwrap_or(0usize);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let object = path.strip_prefix("/bucket").unwrap_or(path).trim_start_matches('/').to_owned();
    let query = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.replace("%2F", "/")))
        .collect();
    Ok(Some(Request { method, object, query, headers, body }))
}

fn apply(state: &State, request: &Request, fault: &Fault) -> Answer {
    if state.denied.load(Ordering::SeqCst) {
        return Answer::error(403, "AccessDenied");
    }
    if state.bucket_gone.load(Ordering::SeqCst) {
        return Answer::error(404, "NoSuchBucket");
    }
    let mut objects = lock(&state.objects);
    match (request.method.as_str(), request.object.as_str()) {
        ("GET", "") if request.query.contains_key("versioning") => {
            let status =
                if state.versioning.load(Ordering::SeqCst) { "<Status>Enabled</Status>" } else { "" };
            let xml = format!("<VersioningConfiguration>{status}</VersioningConfiguration>");
            Answer { body: xml.into_bytes(), ..Answer::empty(200) }
        }
        ("GET", "") => list(&objects, request, fault),
        ("PUT", key) => {
            let crc = base64_crc(&request.body);
            if request.headers.get("x-amz-checksum-crc32").is_some_and(|told| *told != crc) {
                return Answer::error(400, "BadDigest");
            }
            let ignore = *fault == Fault::IgnoreCondition || state.versioning.load(Ordering::SeqCst);
            if request.headers.contains_key("if-none-match") && objects.contains_key(key) && !ignore {
                return Answer::error(412, "PreconditionFailed");
            }
            objects.insert(key.to_owned(), request.body.clone());
            let told = if *fault == Fault::WrongChecksum { "AAAAAA==".to_owned() } else { crc };
            let headers = vec![("x-amz-checksum-crc32", told), ("ETag", etag(&request.body))];
            Answer { headers, ..Answer::empty(200) }
        }
        ("POST", "") if request.query.contains_key("delete") => delete_many(&mut objects, &request.body),
        ("DELETE", key) => {
            objects.remove(key);
            Answer::empty(204)
        }
        ("GET", key) => match objects.get(key) {
            Some(body) => get(body, request, fault),
            None => Answer::error(404, "NoSuchKey"),
        },
        _ => Answer::error(405, "MethodNotAllowed"),
    }
}

/// `DeleteObjects`; keys of the tests have nothing that XML writes in another way.
fn delete_many(objects: &mut BTreeMap<String, Vec<u8>>, body: &[u8]) -> Answer {
    let body = String::from_utf8_lossy(body);
    let keys = body.split("<Key>").skip(1).filter_map(|rest| Some(rest.split_once("</Key>")?.0));
    let mut xml = "<DeleteResult>".to_owned();
    for key in keys {
        objects.remove(key);
        xml.push_str(&format!("<Deleted><Key>{key}</Key></Deleted>"));
    }
    xml.push_str("</DeleteResult>");
    Answer { body: xml.into_bytes(), ..Answer::empty(200) }
}

fn get(body: &[u8], request: &Request, fault: &Fault) -> Answer {
    let size = body.len();
    let Some(range) = request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")) else {
        return Answer {
            headers: vec![("x-amz-checksum-crc32", base64_crc(body)), ("ETag", etag(body))],
            body: body.to_vec(),
            ..Answer::empty(200)
        };
    };
    let (first, last) = range.split_once('-').unwrap_or(("0", ""));
    let (first, last): (usize, usize) = match (first.parse(), last.parse::<usize>()) {
        (Ok(first), last) => (first, last.unwrap_or(usize::MAX).min(size.saturating_sub(1))),
        (Err(_), Ok(n)) => (size.saturating_sub(n), size.saturating_sub(1)),
        _ => (0, size.saturating_sub(1)),
    };
    if first >= size {
        return Answer {
            headers: vec![("Content-Range", format!("bytes */{size}"))],
            ..Answer::error(416, "InvalidRange")
        };
    }
    let shift = usize::from(*fault == Fault::WrongRange && first > 0);
    let (first, last) = (first - shift, last - shift);
    Answer {
        headers: vec![("Content-Range", format!("bytes {first}-{last}/{size}")), ("ETag", etag(body))],
        body: body[first..=last].to_vec(),
        ..Answer::empty(206)
    }
}

/// Pages of 7 keys, so that tests turn pages.
fn list(objects: &BTreeMap<String, Vec<u8>>, request: &Request, fault: &Fault) -> Answer {
    let part = |name: &str| request.query.get(name).cloned().unwrap_or_default();
    let prefix = part("prefix");
    let after = part("start-after").max(part("continuation-token"));
    let mut keys = objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after);
    let mut page: Vec<(String, usize)> =
        keys.by_ref().take(7).map(|(key, body)| (key.clone(), body.len())).collect();
    let last = page.last().map(|(key, _)| key.clone()).unwrap_or_default();
    match fault {
        Fault::Unsorted => page.reverse(),
        Fault::OtherPrefix => page.push(("zzz/elsewhere".to_owned(), 1)),
        _ => {}
    }
    let mut xml = String::from("<ListBucketResult>");
    for (key, bytes) in page {
        xml.push_str(&format!("<Contents><Key>{key}</Key><Size>{bytes}</Size></Contents>"));
    }
    let more = keys.next().is_some() || matches!(fault, Fault::NoToken | Fault::SameToken);
    xml.push_str(&format!("<IsTruncated>{more}</IsTruncated>"));
    let token = if *fault == Fault::SameToken { part("continuation-token") } else { last };
    if more && *fault != Fault::NoToken {
        xml.push_str(&format!("<NextContinuationToken>{token}</NextContinuationToken>"));
    }
    xml.push_str("</ListBucketResult>");
    Answer { body: xml.into_bytes(), ..Answer::empty(200) }
}

fn etag(body: &[u8]) -> String {
    format!("\"{}\"", base64_crc(body))
}

/// Written by the book and apart from the agent's, bit by bit, so that both are not wrong in the same way.
fn base64_crc(body: &[u8]) -> String {
    let mut crc = u32::MAX;
    for byte in body {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    let bytes = (!crc).to_be_bytes();
    let digits: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['+', '/']).collect();
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let word =
            group.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for n in 0..4 {
            let digit = digits[(word >> (18 - 6 * n)) as usize & 63];
            out.push(if n <= group.len() { digit } else { '=' });
        }
    }
    out
}
