//! One request to a server of objects: its deadlines, the throttle that it goes through, the server's clock.
//!
//! Invariants: each request has a timeout on every phase; a body is sent no faster than its throttle allows; a call of the lease is given up at
//! its deadline. Does not: sign anything, know what an answer means. Source: ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ureq::http::{Request, Response, request};
use ureq::{Agent, AsSendBody, Body, SendBody};
use windlass_hal::clock::Clock;

use super::body::Parts;
use super::fit::Habits;
use super::{
    ASKED_ANSWER_MS_MAX, EXPECT_BYTES_MIN, HttpSettings, SIGNED_APART_SECS_MAX, Timeouts, TlsFault, agent,
    header, transport_fault,
};
use crate::store::throttle::Throttle;
use crate::store::time::{Heard, StoreTime, parse_date};
use crate::store::{
    LEASE_CALL_MS, StoreFault, StoreFaultKind, body_bytes, is_metadata, is_of_lease, is_urgent,
};

/// What decides about one request besides its URL and headers.
#[derive(Clone, Copy)]
pub(in crate::store) struct Asked<'a> {
    /// As it appears in a fault.
    pub(in crate::store) verb: &'a str,
    /// Decides the throttle and the deadline.
    pub(in crate::store) key: &'a str,
    /// What is sent.
    pub(in crate::store) body: Option<&'a [&'a [u8]]>,
    /// For the timeout.
    pub(in crate::store) answer_bytes_max: u64,
    /// Over a connection that was not used before.
    pub(in crate::store) afresh: bool,
}

/// The way to one server. Shared between threads; each request uses a connection of its own from the agent's pool.
pub(in crate::store) struct Channel {
    agent: Agent,
    clock: Arc<dyn Clock>,
    throttle: Arc<Throttle>,
    /// For what no limit applies to.
    unlimited: Throttle,
    /// For metadata.
    first: Throttle,
    /// How long a call of the lease may take, in milliseconds.
    lease_call_ms: AtomicU64,
    /// What answers have had so far.
    pub(in crate::store) habits: Habits,
    heard: Heard,
    timeouts: Timeouts,
    connections: usize,
    host: String,
}

impl Channel {
    /// To `host`, as faults name it; nothing is sent yet.
    pub(in crate::store) fn open(
        http: &HttpSettings<'_>,
        host: &str,
        clock: Arc<dyn Clock>,
        throttle: Arc<Throttle>,
    ) -> Result<Channel, TlsFault> {
        Ok(Channel {
            agent: agent(http)?,
            clock,
            unlimited: throttle.unlimited(),
            first: throttle.first(),
            lease_call_ms: AtomicU64::new(LEASE_CALL_MS),
            throttle,
            habits: Habits::default(),
            heard: Heard::default(),
            timeouts: http.timeouts,
            connections: http.connections,
            host: host.to_owned(),
        })
    }

    /// What another channel may share with this one.
    pub(in crate::store) fn shared(&self) -> (Arc<dyn Clock>, Arc<Throttle>) {
        (Arc::clone(&self.clock), Arc::clone(&self.throttle))
    }

    /// This machine's clock.
    pub(in crate::store) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// As `Store::set_lease_deadline`.
    pub(in crate::store) fn set_lease_deadline(&self, ms: u64) {
        self.lease_call_ms.store(ms, Ordering::Relaxed);
    }

    /// As `Store::time`.
    pub(in crate::store) fn time(&self) -> Option<StoreTime> {
        self.heard.last()
    }

    /// The throttle that applies to `key`.
    pub(in crate::store) fn limiter(&self, key: &str) -> &Throttle {
        match key {
            key if is_urgent(key) => &self.unlimited,
            key if is_metadata(key) => &self.first,
            _ => &self.throttle,
        }
    }

    /// Sends what `send` makes of the time to sign with. A request that was refused unread, as this machine's clock is wrong, is signed with the
    /// server's time and sent again.
    pub(in crate::store) fn signed(
        &self,
        send: impl Fn(i64) -> Result<Response<Body>, StoreFault>,
    ) -> Result<Response<Body>, StoreFault> {
        let secs = self.sign_secs();
        let response = send(secs)?;
        let (status, theirs) = (response.status().as_u16(), self.sign_secs());
        if status != 403 || theirs.abs_diff(secs) <= SIGNED_APART_SECS_MAX {
            return Ok(response);
        }
        drop(response);
        send(theirs)
    }

    /// The time to sign with: this machine's, or the server's when the two are so far apart that it would refuse the other one.
    fn sign_secs(&self) -> i64 {
        let ours = self.clock.wall().secs;
        self.server_secs().filter(|theirs| ours.abs_diff(*theirs) > SIGNED_APART_SECS_MAX).unwrap_or(ours)
    }

    /// What time it is at the server, in seconds since 1970, when it has said it.
    pub(in crate::store) fn server_secs(&self) -> Option<i64> {
        let StoreTime { wall_ns, at_ns } = self.heard.last()?;
        let since = self.clock.now().as_ns().saturating_sub(at_ns);
        Some(wall_ns.saturating_add_unsigned(since) / 1_000_000_000)
    }

    /// Sends one request and returns whatever came back; an `Err` is an answer that did not come.
    pub(in crate::store) fn run(
        &self,
        asked: &Asked<'_>,
        mut builder: request::Builder,
    ) -> Result<Response<Body>, StoreFault> {
        let Some(body) = asked.body else { return self.send(asked, builder.body(SendBody::none())) };
        builder = builder.header("content-length", body_bytes(body));
        if body_bytes(body) >= EXPECT_BYTES_MIN {
            builder = builder.header("expect", "100-continue");
        }
        let mut parts = Parts::new(body, self.limiter(asked.key));
        self.send(asked, builder.body(SendBody::from_reader(&mut parts)))
    }

    fn send(
        &self,
        asked: &Asked<'_>,
        built: Result<Request<impl AsSendBody>, ureq::http::Error>,
    ) -> Result<Response<Body>, StoreFault> {
        let built = built
            .map_err(|e| StoreFault::new(StoreFaultKind::Rejected, asked.verb, asked.key, e.to_string()))?;
        let (up_bytes_s, down_bytes_s) = self.limiter(asked.key).rates();
        let up = self.body_timeout(asked.body.map_or(0, body_bytes), up_bytes_s);
        let down = self.body_timeout(asked.answer_bytes_max, down_bytes_s);
        let mut configured =
            self.agent.configure_request(built).timeout_send_body(Some(up)).timeout_recv_body(Some(down));
        if asked.body.is_none() {
            // Nothing is in the sockets' buffers that would have to arrive first.
            let answer = Duration::from_millis(self.timeouts.answer_ms.min(ASKED_ANSWER_MS_MAX));
            configured = configured.timeout_recv_response(Some(answer)).timeout_per_read(Some(answer));
        }
        if is_of_lease(asked.key) {
            let whole = Duration::from_millis(self.lease_call_ms.load(Ordering::Relaxed));
            configured = configured.timeout_global(Some(whole));
        }
        if asked.afresh {
            // No connection of the pool is that young.
            configured = configured.max_idle_age(Duration::ZERO);
        }
        let answered = self.agent.run(configured.build());
        let response = answered.map_err(|e| transport_fault(asked.verb, asked.key, &self.host, &e))?;
        // An answer with an age comes out of a cache in between, and its date with it.
        if let (None, Some(date)) = (header(response.headers(), "age"), header(response.headers(), "date")) {
            parse_date(date).into_iter().for_each(|secs| self.heard.hear(&*self.clock, secs, 0));
        }
        Ok(response)
    }

    /// Time for a body of `bytes` at the slowest rate, or at the throttle's when all connections share it.
    fn body_timeout(&self, bytes: u64, throttle_bytes_s: u64) -> Duration {
        let floor_ms = bytes.saturating_mul(1000) / self.timeouts.body_bytes_s_min.max(1);
        let shared = bytes.saturating_mul(self.connections.max(1) as u64);
        let throttled_ms = shared.saturating_mul(1000).checked_div(throttle_bytes_s).unwrap_or(0);
        Duration::from_millis(self.timeouts.answer_ms.saturating_add(floor_ms.max(throttled_ms)))
    }
}
