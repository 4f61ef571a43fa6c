//! The management API, as far as it is logic: what a client may say, what it is answered, and which command a path means.
//!
//! ```text
//!  bytes --> Conn --Request--> route --> the face carries it out --Answer--> Conn --> bytes
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`limits`] | every bound, with its unit, its reason and what is done beyond it |
//! | [`request`] | bytes to a [`Request`](request::Request), or why they are none |
//! | [`body`] | fields of a body and of a query, by their types |
//! | [`answer`] | an answer as bytes; refusals as problem documents |
//! | [`code`] | the codes that refusals have, which do not change |
//! | [`conn`] | one client: bytes in, requests out, answers in, bytes out, and when it is shut out |
//! | [`route`] | which command of the table a method and a path mean |
//! | [`document`] | the OpenAPI document, made from the same tables |
//! | [`health`] | whether policies are protected, or late |
//! | [`metrics`] | numbers of a node as Prometheus text |
//!
//! Invariants: no I/O, no clock, no threads: bytes and the time go in, bytes and requests come out. Does not: encrypt, know who asks, or
//! carry anything out. Source: RFC 9110, RFC 9112, RFC 9457; ours.

pub mod answer;
pub mod body;
pub mod code;
pub mod conn;
pub mod document;
pub mod health;
pub mod limits;
pub mod metrics;
pub mod request;
pub mod route;
