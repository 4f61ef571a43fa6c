//! What a completion of the ring means for a segment of its request. Source: io_uring(7); ours.

use nix::errno::Errno;
use nix::libc;

use super::file::{Failure, Route, Source};
use crate::block::{Op, Request, Segment};
use crate::buf::Buf;

/// How a segment of which `done` bytes are transferred goes on.
pub(super) fn route(source: &Source, segment: &Segment, buf: &Buf, done: u32) -> Route {
    let at = segment.buf_offset as usize + done as usize;
    let left = segment.len as usize - done as usize;
    source.route(segment.device_offset + u64::from(done), left, buf.address().addr() + at)
}

/// What a completion means for its segment: settled (true), or a rest to transfer (false).
pub(super) fn outcome(
    source: &Source,
    request: &Request,
    segment: usize,
    done: Option<&mut u32>,
    result: i32,
) -> Result<bool, Failure> {
    let Some(segment) = request.segments.get(segment) else {
        if result < 0 {
            return Err(Failure::from(Errno::from_raw(-result)));
        }
        source.forget_written();
        return Ok(true);
    };
    match (request.op, done) {
        (_, _) if result == -libc::EOPNOTSUPP && request.op == Op::Zero => {
            source.clear(request.op, segment.device_offset, segment.len).map(|()| true)
        }
        (_, _) if result < 0 => Err(Failure::from(Errno::from_raw(-result))),
        (Op::Read | Op::Write, Some(done)) => {
            let Some(buf) = &request.buf else { panic!("ring: a transfer has a buffer") };
            let route = route(source, segment, buf, *done);
            let total = source.geometry().shown(segment.device_offset, segment.len) as usize;
            let begun = segment.device_offset + u64::from(*done);
            *done = source.advance(route, *done as usize, result as usize, total)? as u32;
            if request.op == Op::Read {
                source.forget_read(route, begun);
            }
            Ok(*done as usize == total)
        }
        _ => Ok(true),
    }
}
