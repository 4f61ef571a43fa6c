//! Commands to the agent that runs on this machine, over a Unix socket.
//!
//! ```text
//!  windlass backup home                          windlass agent
//!    client --- one JSON line: a request --->  server --- Command ---> the node's machine --- backplane ---> coordinator
//!           <-- one JSON line: its answer ---         <-- Reply ------
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`wire`] | requests and answers as lines of JSON |
//! | [`conversation`] | one client's side of the server, without I/O: bytes in, requests out, answers in, bytes out |
//! | [`server`] | the listening socket and its clients, driven by the agent's reactor |
//! | [`client`] | the command's side: blocking |
//!
//! Invariants: a line, the clients and what is under way for each are bounded; who is neither the agent's user nor root is told so
//! and gets nothing else. Does not: know what a command does. Source: ours.

pub mod client;
pub mod conversation;
pub mod server;
pub mod wire;
