//! The body of a hello: what a node says first.
//!
//! | field | bytes |
//! |---|---|
//! | lowest, highest version that it speaks | 1, 1 |
//! | boot | 8 |
//! | messages that it takes before it gives more credits | 4 |
//! | name | text |
//!
//! Invariants: its form is the same in all versions. Does not: negotiate. Source: ours.

use super::session::Local;
use crate::format::cursor::{Reader, Wire, WireFault, emit_bytes};
use crate::id::Boot;

/// Messages that a peer may send before the first was taken by the caller.
pub const CREDITS: u32 = 32;
/// Most credits that a peer may hand out in all; more is a fault.
pub(super) const CREDITS_MAX: u32 = 1024;
/// Bytes of a node's name.
pub const NAME_BYTES_MAX: usize = 64;

const _: () = assert!(CREDITS <= CREDITS_MAX);

/// A hello's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) protocols: (u8, u8),
    pub(super) boot: Boot,
    pub(super) credits: u32,
    pub(super) name: String,
}

impl Hello {
    pub(super) fn of(local: &Local) -> Hello {
        let name = &local.name;
        Hello {
            protocols: local.protocols,
            boot: local.boot,
            credits: CREDITS,
            name: name[..name.floor_char_boundary(NAME_BYTES_MAX)]
                .chars()
                .filter(|c| !c.is_control())
                .collect(),
        }
    }

    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        self.protocols.emit(out);
        self.boot.emit(out);
        self.credits.emit(out);
        emit_bytes(out, self.name.as_bytes());
    }

    pub(super) fn parse(body: &[u8]) -> Result<Hello, WireFault> {
        let mut reader = Reader::new(body);
        let hello = Hello {
            protocols: reader.value()?,
            boot: reader.value()?,
            credits: reader.value()?,
            name: reader.text(NAME_BYTES_MAX)?,
        };
        reader.finish()?;
        // Names reach logs and terminals.
        if hello.credits > CREDITS_MAX || hello.name.chars().any(char::is_control) {
            return Err(WireFault::Value);
        }
        Ok(hello)
    }
}
