//! etcd 3.4 and later, by its JSON gateway (`etcd://host:2379,host2:2379/prefix`): where the commit log and the lease live when the
//! object store has no create-only PUT that can be trusted.
//!
//! | call | request |
//! |---|---|
//! | create-only PUT | `/v3/kv/txn`: if the key's create revision is 0, put |
//! | PUT | `/v3/kv/put` |
//! | GET | `/v3/kv/range`, linearizable |
//! | LIST | `/v3/kv/range` by pages, with the values, because the sizes are only known from them |
//! | DELETE | `/v3/kv/deleterange` |
//!
//! | module | what |
//! |---|---|
//! | [`answer`] | what answers mean |
//! | `place` | endpoints and prefix out of a URL |
//!
//! Endpoints are members of one cluster. A call goes to the one that answered last; when nothing could be sent to it, to the next
//! in turn. A call that was sent and got no answer is `Unknown` and is not sent again: it may have been applied. The next call
//! begins at the next endpoint.
//!
//! Invariants: one call is sent once. Answers of another cluster than the first one's are refused, because
//! two clusters would each let one create win. So are answers of a cluster whose revision went back, because
//! it lost acknowledged writes. Nothing is throttled: bodies are small, and beats must not wait behind data.
//! Does not: leases, watches and locks of etcd (the epoch objects fence, see the commit log); passwords;
//! compaction of etcd's history, which its operator switches on (`--auto-compaction-retention`). Source: etcd
//! 3.4 API reference, "gRPC gateway".

pub mod answer;
mod place;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use serde::de::DeserializeOwned;
use ureq::http::Response;
use ureq::{Agent, Body};

use super::http::{
    Cut, HttpSettings, Timeouts, TlsFault, agent, read_bounded, transport_fault, was_not_sent,
};
use super::{
    ByteRange, LEASE_CALL_MS, PutMode, Store, StoreFault, StoreFaultKind, body_bytes, check_key,
    check_prefix, is_of_lease,
};
use answer::{Done, Failed, Header, Range};

use crate::format::home::HOME_KEY;

pub use place::{ENDPOINTS_MAX, Place, PlaceFault};

/// Largest body in bytes of a PUT. etcd refuses requests of more than 1.5 MiB; a log slot has 128 KiB at most. Above:
/// `Rejected`.
pub const ETCD_BODY_BYTES_MAX: u64 = 1 << 20;
/// Largest answer in bytes that is read: a body of [`ETCD_BODY_BYTES_MAX`] in base64 several times over. A page of a LIST that
/// is larger is asked for again with fewer keys.
pub const ETCD_ANSWER_BYTES_MAX: u64 = 8 << 20;
/// Bytes of an answer beside values: header, key, names of fields. Answers without values have no more.
pub const ETCD_FRAME_BYTES_MAX: u64 = 16 << 10;
/// Keys in the first page of a LIST: slots of the largest size make 3 MiB.
pub const ETCD_PAGE_KEYS_MIN: u64 = 16;
/// Keys in a page of a LIST at most.
pub const ETCD_PAGE_KEYS_MAX: u64 = 1000;
/// Size in bytes that pages after the first are aimed at, judging by the one before.
pub const ETCD_PAGE_BYTES: u64 = 1 << 20;
/// Pages of one LIST at most: some ten million small keys. A server that never ends is not followed.
pub const ETCD_PAGES_MAX: u64 = 20_000;

/// Everything about an etcd store that is not in its URL.
#[derive(Clone, Debug)]
pub struct EtcdSettings {
    /// CA certificates in PEM instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// A certificate chain and its key in PEM, for clusters that ask clients for one.
    pub client: Option<(PathBuf, PathBuf)>,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// Idle connections kept; at least the number of threads that share the store.
    pub connections: usize,
}

impl Default for EtcdSettings {
    fn default() -> EtcdSettings {
        EtcdSettings { ca_file: None, client: None, timeouts: Timeouts::CONTROL, connections: 8 }
    }
}

/// A prefix of an etcd cluster. Shared between threads.
pub struct EtcdStore {
    agent: Agent,
    place: Place,
    timeouts: Timeouts,
    /// How long a call of the lease may take, in milliseconds.
    lease_call_ms: AtomicU64,
    /// Index of the endpoint to ask first.
    preferred: AtomicUsize,
    /// The cluster that answered first; 0 before.
    cluster: AtomicU64,
    /// The highest revision in an answer so far.
    revision: AtomicU64,
    /// An answer had a lower one. Nothing is sent any more that changes anything: the revisions of what was sent would soon hide it.
    went_back: AtomicBool,
}

impl EtcdStore {
    /// Prepares a store; nothing is sent yet.
    ///
    /// # Errors
    /// Certificates that cannot be used.
    pub fn open(place: Place, settings: &EtcdSettings) -> Result<EtcdStore, TlsFault> {
        let agent = agent(&HttpSettings {
            timeouts: settings.timeouts,
            connections: settings.connections,
            tls: place.tls,
            ca_file: settings.ca_file.as_deref(),
            client: settings.client.as_ref().map(|(chain, key)| (chain.as_path(), key.as_path())),
            address: None,
        })?;
        let (preferred, cluster, revision) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let lease_call_ms = AtomicU64::new(LEASE_CALL_MS);
        Ok(EtcdStore {
            agent,
            place,
            timeouts: settings.timeouts,
            lease_call_ms,
            preferred,
            cluster,
            revision,
            went_back: AtomicBool::new(false),
        })
    }

    /// Sends one call and returns the body of a successful answer.
    fn call<T: Answer>(&self, call: &Outgoing<'_>, request: &str) -> Result<T, CallFault> {
        let count = self.place.authorities.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let before = self.revision.load(Ordering::Acquire);
        if self.went_back.load(Ordering::Relaxed) {
            let what = self.what_was_lost(&self.place.authorities[first % count.max(1)]);
            let detail = format!("etcd went back behind revision {before}: {what}");
            return Err(call.fault(StoreFaultKind::Rejected, &detail).into());
        }
        for turn in 0..count {
            let at = (first + turn) % count;
            match self.attempt(call, &self.place.authorities[at], request) {
                Ok(response) => {
                    let result = self.read(call, &self.place.authorities[at], response, before);
                    let answered = result.as_ref().err().is_none_or(|fault| !fault.is_unknown());
                    self.preferred.store(if answered { at } else { (at + 1) % count }, Ordering::Relaxed);
                    return result;
                }
                Err(error) if was_not_sent(&error) && turn + 1 < count => {}
                Err(error) => {
                    self.preferred.store((at + 1) % count, Ordering::Relaxed);
                    return Err(
                        transport_fault(call.verb, call.key, &self.place.authorities[at], &error).into()
                    );
                }
            }
        }
        // A place has endpoints, and the last one's error was returned above.
        Err(call.fault(StoreFaultKind::Unknown, "no endpoint").into())
    }

    fn attempt(
        &self,
        call: &Outgoing<'_>,
        authority: &str,
        request: &str,
    ) -> Result<Response<Body>, ureq::Error> {
        let scheme = if self.place.tls { "https" } else { "http" };
        let lease_call = Duration::from_millis(self.lease_call_ms.load(Ordering::Relaxed));
        self.agent
            .post(format!("{scheme}://{authority}/v3/kv/{}", call.path))
            .content_type("application/json")
            .config()
            .timeout_send_body(Some(self.body_timeout(request.len() as u64)))
            .timeout_recv_body(Some(self.body_timeout(call.answer_bytes)))
            .timeout_global(is_of_lease(call.key).then_some(lease_call))
            .build()
            .send(request)
    }

    fn body_timeout(&self, bytes: u64) -> Duration {
        let ms = bytes.saturating_mul(1000) / self.timeouts.body_bytes_s_min.max(1);
        Duration::from_millis(self.timeouts.answer_ms.saturating_add(ms))
    }

    fn read<T: Answer>(
        &self,
        call: &Outgoing<'_>,
        authority: &str,
        mut response: Response<Body>,
        before: u64,
    ) -> Result<T, CallFault> {
        let mut json = Vec::new();
        let status = response.status().as_u16();
        let cut = read_bounded(response.body_mut(), call.answer_bytes, &mut json);
        if status != 200 {
            // What cannot be read of an error body is not missed: the status decides.
            return Err(failed(call, status, &json).into());
        }
        match cut {
            Ok(()) => {}
            Err(Cut::Long) => return Err(CallFault::Long),
            Err(cut) => return Err(call.fault(StoreFaultKind::Unknown, &cut.to_string()).into()),
        }
        let answer: T = serde_json::from_slice(&json)
            .map_err(|why| call.fault(StoreFaultKind::Unknown, &format!("not an answer of etcd: {why}")))?;
        if !answer.header().is_real() || !answer.is_whole() {
            return Err(call.fault(StoreFaultKind::Unknown, "not a whole answer of etcd").into());
        }
        self.check_continuity(call, authority, answer.header(), before)?;
        Ok(answer)
    }

    /// The same cluster as ever, and not an older state of it than one that was seen before the call was sent.
    fn check_continuity(
        &self,
        call: &Outgoing<'_>,
        authority: &str,
        header: &Header,
        before: u64,
    ) -> Result<(), StoreFault> {
        let theirs = header.cluster_id;
        let known = self
            .cluster
            .compare_exchange(0, theirs, Ordering::Relaxed, Ordering::Relaxed)
            .unwrap_or_else(|known| known);
        if known != 0 && known != theirs {
            let detail = format!("cluster {theirs:x} answers, it was {known:x} before; check the endpoints");
            return Err(call.fault(StoreFaultKind::Rejected, &detail));
        }
        if header.revision < before {
            self.went_back.store(true, Ordering::Relaxed);
            let what = self.what_was_lost(authority);
            let detail = format!("etcd is at revision {}, it was at {before}: {what}", header.revision);
            return Err(call.fault(StoreFaultKind::Rejected, &detail));
        }
        self.revision.fetch_max(header.revision, Ordering::Release);
        Ok(())
    }

    /// What became of a cluster that is at an older state, and what to do.
    fn what_was_lost(&self, authority: &str) -> &'static str {
        match self.has_home(authority) {
            Some(true) => {
                "it was rolled back, to an old copy of its data; stop all agents and bring the newest back"
            }
            Some(false) => "it was emptied: its data is lost; stop all agents and bring it back",
            None => {
                "its data was lost, or it was rolled back to an old copy; stop all agents and bring the newest back"
            }
        }
    }

    /// Whether the one key is there that every repository's log has from its begin and that nothing writes again, for the words of a fault;
    /// `None`: no answer.
    fn has_home(&self, authority: &str) -> Option<bool> {
        let call = Outgoing { verb: "GET", key: HOME_KEY, path: "range", answer_bytes: ETCD_FRAME_BYTES_MAX };
        let mut response = self.attempt(&call, authority, &one_key(&self.place.full(HOME_KEY))).ok()?;
        let mut json = Vec::new();
        read_bounded(response.body_mut(), call.answer_bytes, &mut json).ok()?;
        let found: Range =
            serde_json::from_slice(&json).ok().filter(|_| response.status().as_u16() == 200)?;
        Some(!found.kvs.is_empty())
    }

    /// One page of a LIST from `from` on, and the limit for the next one.
    fn page(&self, prefix: &str, from: &[u8], end: &str, limit: &mut u64) -> Result<Range, StoreFault> {
        loop {
            let call =
                Outgoing { verb: "LIST", key: prefix, path: "range", answer_bytes: ETCD_ANSWER_BYTES_MAX };
            let mut request = String::from("{\"key\":\"");
            answer::encode(&[from], &mut request);
            request.push_str("\",\"range_end\":\"");
            answer::encode(&[end.as_bytes()], &mut request);
            request.push_str(&format!("\",\"limit\":\"{limit}\"}}"));
            match self.call::<Range>(&call, &request) {
                Ok(page) => {
                    let bytes: u64 =
                        page.kvs.iter().map(|pair| (pair.key.len() + pair.value.len()) as u64).sum();
                    let fit = ETCD_PAGE_BYTES.saturating_mul(page.kvs.len() as u64) / bytes.max(1);
                    *limit = fit.clamp(ETCD_PAGE_KEYS_MIN, ETCD_PAGE_KEYS_MAX);
                    return Ok(page);
                }
                Err(CallFault::Long) if *limit > 1 => *limit /= 2,
                Err(fault) => return Err(fault.into_store(&call)),
            }
        }
    }
}

impl Store for EtcdStore {
    fn describe(&self) -> String {
        self.place.to_string()
    }

    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault> {
        check_key("PUT", key)?;
        let create = mode == PutMode::CreateOnly;
        let path = if create { "txn" } else { "put" };
        let call = Outgoing { verb: "PUT", key, path, answer_bytes: ETCD_FRAME_BYTES_MAX };
        let bytes = body_bytes(body);
        if bytes > ETCD_BODY_BYTES_MAX {
            let detail = format!("{bytes} bytes; etcd takes {ETCD_BODY_BYTES_MAX}");
            return Err(call.fault(StoreFaultKind::Rejected, &detail));
        }
        let mut name = String::new();
        answer::encode(&[self.place.full(key).as_bytes()], &mut name);
        let mut request = String::with_capacity(bytes as usize / 3 * 4 + 2 * name.len() + 200);
        if create {
            request.push_str("{\"compare\":[{\"target\":\"CREATE\",\"result\":\"EQUAL\",\"create_revision\":\"0\",\"key\":\"");
            request.push_str(&name);
            request.push_str("\"}],\"success\":[{\"request_put\":");
        }
        request.push_str("{\"key\":\"");
        request.push_str(&name);
        request.push_str("\",\"value\":\"");
        answer::encode(body, &mut request);
        request.push_str("\"}");
        if create {
            request.push_str("}]}");
        }
        let before = self.revision.load(Ordering::Acquire);
        let done: Done = self.call(&call, &request).map_err(|fault| fault.into_store(&call))?;
        if create && !done.succeeded {
            return Err(call.fault(StoreFaultKind::Exists, ""));
        }
        if done.header.revision <= before {
            let detail = format!("etcd is at revision {before} as before, so nothing was written");
            return Err(call.fault(StoreFaultKind::Unknown, &detail));
        }
        Ok(())
    }

    fn get(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        check_key("GET", key)?;
        // Values come whole, whatever range is wanted, and in base64.
        let most = match range {
            ByteRange::Whole(most) => most.min(ETCD_BODY_BYTES_MAX),
            ByteRange::From { .. } | ByteRange::Last(_) => ETCD_BODY_BYTES_MAX,
        };
        let answer_bytes = most.div_ceil(3) * 4 + ETCD_FRAME_BYTES_MAX;
        let call = Outgoing { verb: "GET", key, path: "range", answer_bytes };
        let found: Range =
            self.call(&call, &one_key(&self.place.full(key))).map_err(|fault| match fault {
                CallFault::Long => {
                    let detail = format!("more than the {most} bytes that this may have");
                    call.fault(StoreFaultKind::TooLong, &detail)
                }
                CallFault::Store(fault) => fault,
            })?;
        let Some(pair) = found.kvs.first() else {
            return Err(call.fault(StoreFaultKind::NotFound, ""));
        };
        if found.kvs.len() > 1 || pair.key != self.place.full(key).as_bytes() {
            return Err(call.fault(StoreFaultKind::Corrupt, "another key than asked for"));
        }
        let size = pair.value.len() as u64;
        range.check_size(key, size)?;
        let (offset, len) = range.resolve(size);
        // Cut to a value that is in memory.
        out.extend_from_slice(&pair.value[offset as usize..(offset + len) as usize]);
        Ok(size)
    }

    fn list(
        &self,
        prefix: &str,
        after: &str,
        each: &mut dyn FnMut(&str, u64) -> bool,
    ) -> Result<(), StoreFault> {
        check_prefix(prefix)?;
        let (first, end) = self.place.span(prefix);
        // The smallest key that is greater than `after`.
        let mut from = first.max(format!("{}\0", self.place.full(after))).into_bytes();
        let mut limit = ETCD_PAGE_KEYS_MIN;
        for _ in 0..ETCD_PAGES_MAX {
            if from.as_slice() >= end.as_bytes() {
                return Ok(());
            }
            let page = self.page(prefix, &from, &end, &mut limit)?;
            for pair in &page.kvs {
                if pair.key < from || pair.key.as_slice() >= end.as_bytes() {
                    let detail = "keys are not listed in ascending order, or lie outside of the prefix";
                    return Err(StoreFault::new(StoreFaultKind::Unknown, "LIST", prefix, detail));
                }
                from.clone_from(&pair.key);
                from.push(0);
                // Ours are ASCII; others' keys below the prefix may be anything, and are passed by.
                let full = std::str::from_utf8(&pair.key).unwrap_or("");
                if let Some(key) = self.place.key(full)
                    && !each(key, pair.value.len() as u64)
                {
                    return Ok(());
                }
            }
            if !page.more {
                return Ok(());
            }
        }
        Err(StoreFault::new(StoreFaultKind::Rejected, "LIST", prefix, "the listing does not end"))
    }

    fn set_lease_deadline(&self, ms: u64) {
        self.lease_call_ms.store(ms, Ordering::Relaxed);
    }

    fn delete(&self, key: &str) -> Result<(), StoreFault> {
        check_key("DELETE", key)?;
        let call = Outgoing { verb: "DELETE", key, path: "deleterange", answer_bytes: ETCD_FRAME_BYTES_MAX };
        let request = one_key(&self.place.full(key));
        self.call::<Done>(&call, &request).map(|_| ()).map_err(|fault| fault.into_store(&call))
    }
}

/// The request that names one key.
fn one_key(full: &str) -> String {
    let mut request = String::from("{\"key\":\"");
    answer::encode(&[full.as_bytes()], &mut request);
    request.push_str("\"}");
    request
}

/// One call before it is sent.
struct Outgoing<'a> {
    /// As it appears in a fault.
    verb: &'a str,
    key: &'a str,
    /// Behind `/v3/kv/`.
    path: &'a str,
    /// Bytes of the answer that are waited for, and read, at most.
    answer_bytes: u64,
}

impl Outgoing<'_> {
    fn fault(&self, kind: StoreFaultKind, detail: &str) -> StoreFault {
        StoreFault::new(kind, self.verb, self.key, detail)
    }
}

/// Why a call has no result.
enum CallFault {
    /// The answer is larger than [`ETCD_ANSWER_BYTES_MAX`].
    Long,
    Store(StoreFault),
}

impl CallFault {
    fn is_unknown(&self) -> bool {
        matches!(self, CallFault::Store(fault) if fault.kind == StoreFaultKind::Unknown)
    }

    fn into_store(self, call: &Outgoing<'_>) -> StoreFault {
        match self {
            CallFault::Long => call.fault(StoreFaultKind::Rejected, "the answer is too long"),
            CallFault::Store(fault) => fault,
        }
    }
}

impl From<StoreFault> for CallFault {
    fn from(fault: StoreFault) -> CallFault {
        CallFault::Store(fault)
    }
}

impl fmt::Debug for CallFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallFault::Long => f.write_str("Long"),
            CallFault::Store(fault) => fault.fmt(f),
        }
    }
}

/// What all answers have.
trait Answer: DeserializeOwned {
    fn header(&self) -> &Header;
    fn is_whole(&self) -> bool;
}

impl Answer for Done {
    fn header(&self) -> &Header {
        &self.header
    }
    fn is_whole(&self) -> bool {
        true
    }
}

impl Answer for Range {
    fn header(&self) -> &Header {
        &self.header
    }
    fn is_whole(&self) -> bool {
        Range::is_whole(self)
    }
}

/// What an unsuccessful answer means, in the server's words.
fn failed(call: &Outgoing<'_>, status: u16, body: &[u8]) -> StoreFault {
    // Behind an error's JSON this gateway may leave the name of a trailer.
    let mut documents = serde_json::Deserializer::from_slice(body).into_iter::<Failed>();
    let said = documents.next().and_then(Result::ok).unwrap_or_default();
    let kind = answer::kind(status, &said);
    let detail = match (said.message.is_empty(), kind) {
        (false, StoreFaultKind::Full) => {
            format!("{}; compact and defragment it, then disarm its alarm", said.message)
        }
        (false, StoreFaultKind::Denied) => {
            format!("{}; check the certificate and the roles of its user", said.message)
        }
        (false, _) => said.message,
        (true, StoreFaultKind::Unsupported) => {
            format!("status {status}: no JSON gateway at /v3; etcd 3.4 or later is needed")
        }
        (true, _) => {
            let text = String::from_utf8_lossy(&body[..body.len().min(crate::foreign::MESSAGE_BYTES_MAX)]);
            format!("status {status} {}", text.trim())
        }
    };
    call.fault(kind, &detail)
}
