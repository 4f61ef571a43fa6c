//! Bounds of the management API. Reaching one is counted ([`Shut`](super::conn::Shut), or the face's counters), never an error of the node.
//!
//! Does not: hold what a deployment may change: a profile says whether there is an API, and where. Source: ours; RFC 9112.

const SEC_NS: u64 = 1_000_000_000;

/// Connections at once: a page, a scraper and a plane have a few each, and each costs about 30 KiB. One more takes the place of the one that
/// has been idle longest; where none is, it is closed.
pub const CONNS_MAX: usize = 32;
/// Connections of one address: a browser makes six. One more is closed.
pub const CONNS_PER_PEER_MAX: usize = 8;
/// Connections whose handshake is not done, which costs the most. One more is closed.
pub const HANDSHAKES_MAX: usize = 8;

/// From the connection to the end of the handshake, in nanoseconds. Then it is closed.
pub const HANDSHAKE_NS: u64 = 5 * SEC_NS;
/// From the first byte of a request to the end of its head, in nanoseconds, however the bytes come. Then 408.
pub const HEAD_NS: u64 = 10 * SEC_NS;
/// From the end of the head to the end of the body, in nanoseconds, however the bytes come. Then 408.
pub const BODY_NS: u64 = 20 * SEC_NS;
/// After this time, in nanoseconds, a body must have come at [`BODY_BYTES_S_MIN`]. Else 408.
pub const BODY_GRACE_NS: u64 = 5 * SEC_NS;
/// Bytes a second of a body at least, counted from its begin.
pub const BODY_BYTES_S_MIN: u64 = 1024;
/// Without a request, in nanoseconds. Then it is closed.
pub const IDLE_NS: u64 = 30 * SEC_NS;
/// Without a byte of an answer being taken, in nanoseconds. Then it is closed.
pub const STALL_NS: u64 = 10 * SEC_NS;
/// From an answer's first byte to its last, in nanoseconds, streams apart. Then it is closed.
pub const ANSWER_NS: u64 = 60 * SEC_NS;
/// What a client that was refused may still send, in nanoseconds: one that is closed at once may lose the refusal.
pub const LINGER_NS: u64 = SEC_NS;
/// The same in bytes.
pub const LINGER_BYTES_MAX: usize = 256 << 10;

/// Bytes of a request line. A longer one: 414.
pub const LINE_BYTES_MAX: usize = 2 << 10;
/// Bytes of a request's head with its empty line. A longer one: 431.
pub const HEAD_BYTES_MAX: usize = 8 << 10;
/// Fields of a head. More: 431.
pub const FIELDS_MAX: usize = 32;
/// Bytes of a body: the largest policy, and room. A longer one: 413, before it is read.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// Parts of a path. More: 414.
pub const PARTS_MAX: usize = 16;
/// Fields of a query. More: 414.
pub const QUERY_MAX: usize = 16;
/// Requests of a connection. After the last it is closed: no client holds a place for ever.
pub const REQUESTS_PER_CONN_MAX: u32 = 1000;

/// Clients that follow events. One more is told to poll (503).
pub const EVENT_CLIENTS_MAX: usize = 4;
/// Bytes of events that wait for a client that follows. A slower one is told that it missed some.
pub const EVENT_QUEUE_BYTES_MAX: usize = 16 << 10;
