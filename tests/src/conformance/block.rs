//! The block-device contract of `windlass_hal::block`, as a suite that runs on any port or wrapper.
//!
//! Each case opens the subject afresh, does its worst, and checks at the end that nothing is in flight and that every
//! buffer is back in its pool. Patterns are a function of the device offset, so a misdirected read shows.
//!
//! Does not: test performance, or faults that a port cannot be made to have (`wrap::fault` and `sim` have them).
//! Source: ours.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a suite reports by panicking, in functions that tests call"
)]

use windlass_hal::block::{
    BlockDevice, FaultKind, Geometry, Op, READ_UNIT_BYTES, Request, SEGMENTS_PER_REQUEST_MAX, Segment, Wait,
};
use windlass_hal::buf::{Buf, Pool};

/// Size in bytes that a subject must have at least.
pub const DEVICE_BYTES_MIN: u64 = 4 << 20;
/// Size in bytes of the buffers that the suite uses.
pub const BUF_BYTES: usize = 256 << 10;
/// Buffers in the pool: more than any queue depth that a subject is opened with.
pub const BUFS: usize = 64;
/// Queue depth that subjects are opened with.
pub const DEPTH: usize = 8;

/// Something to test: opens the same device again and again. Contents stay between openings.
pub struct Subject<'a> {
    /// For messages.
    pub name: &'a str,
    /// Opens it with queue depth [`DEPTH`]; `true` for writing. The pool is the one whose buffers will be used.
    pub open: &'a mut dyn FnMut(bool, &Pool) -> Box<dyn BlockDevice>,
}

/// Runs every case.
///
/// # Panics
/// When the subject breaks the contract; the message names the subject and the case.
pub fn run(subject: &mut Subject<'_>) {
    let cases: [(&str, Case); 16] = [
        ("geometry", geometry),
        ("write_then_read", write_then_read),
        ("scattered_segments", scattered_segments),
        ("foreign_buffer", foreign_buffer),
        ("misaligned", misaligned),
        ("out_of_range", out_of_range),
        ("small_reads", small_reads),
        ("to_the_last_byte", to_the_last_byte),
        ("broken_requests", broken_requests),
        ("queue_full", queue_full),
        ("bad_segment_is_alone", bad_segment_is_alone),
        ("many_requests_complete_once", many_requests_complete_once),
        ("zero_and_discard", zero_and_discard),
        ("read_at_anywhere", read_at_anywhere),
        ("read_at_in_flight", read_at_in_flight),
        ("dropped_in_flight", dropped_in_flight),
    ];
    for (name, case) in cases {
        eprintln!("conformance: {} {name}", subject.name);
        in_bench(subject, true, case);
    }
    eprintln!("conformance: {} read_only", subject.name);
    in_bench(subject, false, read_only);
    eprintln!("conformance: {} read_ahead", subject.name);
    in_bench(subject, true, |b| {
        (0..DEVICE_BYTES_MIN).step_by(BUF_BYTES).for_each(|at| b.fill(12, at, BUF_BYTES))
    });
    in_bench(subject, false, read_ahead);
    eprintln!("conformance: {} event_fd", subject.name);
    in_bench(subject, false, event_fd);
}

/// What reads are aligned to on every port.
const READ_UNIT: u64 = READ_UNIT_BYTES as u64;

type Case = fn(&mut Bench);

/// A device and the memory for a case.
struct Bench {
    device: Option<Box<dyn BlockDevice>>,
    pool: Pool,
    geometry: Geometry,
}

fn in_bench(subject: &mut Subject<'_>, write: bool, case: Case) {
    let pool = Pool::new(BUFS, BUF_BYTES);
    let device = (subject.open)(write, &pool);
    let geometry = device.geometry();
    let mut bench = Bench { device: Some(device), pool, geometry };
    case(&mut bench);
    if let Some(device) = &bench.device {
        assert_eq!(device.in_flight(), 0, "{}: nothing left in flight", subject.name);
    }
    drop(bench.device);
    assert_eq!(bench.pool.free(), BUFS, "{}: every buffer is back", subject.name);
}

impl Bench {
    fn device(&mut self) -> &mut dyn BlockDevice {
        self.device.as_mut().expect("the case has not dropped it").as_mut()
    }

    fn unit(&self) -> u64 {
        u64::from(self.geometry.logical_block_bytes)
    }

    /// Where the last block ends, behind the last byte where that is no multiple of a block.
    fn end(&self) -> u64 {
        self.geometry.size_bytes.next_multiple_of(self.unit())
    }

    fn buf(&self) -> Buf {
        self.pool.take().expect("the pool is larger than the queue")
    }

    /// A request with a buffer, where the operation wants one.
    fn request(&self, id: u64, op: Op, segments: &[Segment]) -> Request {
        let buf = matches!(op, Op::Read | Op::Write).then(|| self.buf());
        Request { id, op, buf, segments: segments.to_vec() }
    }

    /// Submits and waits for this one.
    fn call(&mut self, request: Request) -> Request {
        self.device().submit(request).expect("the queue is empty");
        let mut back = None;
        while back.is_none() {
            let n = self.device().complete(Wait::One, &mut |r| {
                assert!(back.replace(r).is_none(), "one completion for one request");
            });
            assert_eq!(n, usize::from(back.is_some()));
        }
        back.expect("the loop ends with one")
    }

    fn read(&mut self, segments: &[Segment]) -> Request {
        let request = self.request(7, Op::Read, segments);
        self.call(request)
    }

    /// Writes the pattern for `salt` over a range.
    fn fill(&mut self, salt: u8, offset: u64, len: usize) {
        let mut request = self.request(1, Op::Write, &[Segment::new(offset, 0, len as u64)]);
        paint(salt, offset, &mut request.buf.as_mut().expect("a write has one")[..len]);
        assert_eq!(self.call(request).fault(), None);
    }
}

/// The byte that belongs at a device offset.
fn pattern(salt: u8, offset: u64) -> u8 {
    (offset.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8 ^ (offset >> 9) as u8 ^ salt
}

fn paint(salt: u8, offset: u64, out: &mut [u8]) {
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = pattern(salt, offset + i as u64);
    }
}

fn assert_painted(salt: u8, offset: u64, bytes: &[u8]) {
    let wrong = bytes.iter().enumerate().find(|&(i, &b)| b != pattern(salt, offset + i as u64));
    assert_eq!(wrong, None, "pattern {salt} at device byte {offset}");
}

fn data(request: &Request) -> &[u8] {
    request.buf.as_ref().expect("the buffer comes back with the request")
}

fn geometry(b: &mut Bench) {
    let g = b.geometry;
    assert!(g.logical_block_bytes.is_power_of_two() && (512..=65536).contains(&g.logical_block_bytes));
    assert!(g.physical_block_bytes >= g.logical_block_bytes);
    assert!(g.size_bytes >= DEVICE_BYTES_MIN);
    assert!(!g.read_only);
    let device = b.device();
    assert!(!device.identity().stable.is_empty() && !device.identity().name.is_empty());
    assert_eq!(device.queue_depth(), DEPTH);
    assert_eq!(device.complete(Wait::One, &mut |_| panic!("nothing was submitted")), 0);
}

fn write_then_read(b: &mut Bench) {
    let last = b.geometry.size_bytes / b.unit() * b.unit() - BUF_BYTES as u64;
    for (salt, offset) in [(1, 0), (2, b.unit() * 3), (3, last)] {
        b.fill(salt, offset, BUF_BYTES);
        let back = b.read(&[Segment::new(offset, 0, BUF_BYTES as u64)]);
        assert_eq!((back.id, back.op, back.fault()), (7, Op::Read, None));
        assert_painted(salt, offset, data(&back));
    }
    let flush = b.request(9, Op::Flush, &[]);
    let flush = b.call(flush);
    assert_eq!((flush.id, flush.fault(), flush.segments.len()), (9, None, 0));
}

fn scattered_segments(b: &mut Bench) {
    let unit = b.unit();
    for offset in (0..DEVICE_BYTES_MIN).step_by(BUF_BYTES) {
        b.fill(4, offset, BUF_BYTES);
    }
    let count = (BUF_BYTES as u64 / unit).min(SEGMENTS_PER_REQUEST_MAX as u64);
    // Backwards on the device, forwards in the buffer.
    let segments: Vec<Segment> =
        (0..count).map(|i| Segment::new((count - i) * 3 * unit, (i * unit) as u32, unit)).collect();
    let back = b.read(&segments);
    assert_eq!(back.segments, segments);
    for s in &segments {
        let at = s.buf_offset as usize;
        assert_painted(4, s.device_offset, &data(&back)[at..at + unit as usize]);
    }
}

fn foreign_buffer(b: &mut Bench) {
    b.fill(5, 0, BUF_BYTES);
    let foreign = Pool::new(1, BUF_BYTES);
    let segments = vec![Segment::new(0, 0, BUF_BYTES as u64)];
    let back = b.call(Request { id: 1, op: Op::Read, buf: foreign.take(), segments });
    assert_painted(5, 0, data(&back));
    let back = b.call(Request { op: Op::Write, ..back });
    assert_eq!(back.fault(), None);
    drop(back);
    assert_eq!(foreign.free(), 1);
}

fn misaligned(b: &mut Bench) {
    let unit = b.unit();
    let wrong = [
        Segment::new(1, 0, unit),
        Segment::new(READ_UNIT / 2, 0, unit),
        Segment::new(0, 0, unit - 1),
        Segment::new(0, 0, READ_UNIT / 2),
        Segment::new(0, (READ_UNIT / 2) as u32, unit),
        Segment::new(0, 0, 0),
    ];
    for segment in wrong {
        for op in [Op::Read, Op::Write] {
            let request = b.request(1, op, &[segment]);
            let fault = b.call(request).fault().expect("misaligned");
            assert_eq!((fault.kind, fault.device_offset), (FaultKind::Misuse, segment.device_offset));
        }
    }
}

fn out_of_range(b: &mut Bench) {
    let (unit, size, end) = (b.unit(), b.geometry.size_bytes, b.end());
    let inside = b.read(&[Segment::new(size.next_multiple_of(READ_UNIT) - READ_UNIT, 0, READ_UNIT)]);
    assert_eq!(inside.fault(), None);
    drop(inside);
    for (offset, at, len) in [
        (end, 0, unit),
        (end - unit, 0, 2 * unit),
        (u64::MAX - unit + 1, 0, unit),
        (0, 0, BUF_BYTES as u64 + unit),
        (0, BUF_BYTES as u32, unit),
    ] {
        let back = b.read(&[Segment::new(offset, at, len)]);
        assert_eq!(back.fault().map(|f| f.kind), Some(FaultKind::Misuse), "{offset} {at} {len}");
    }
    let mut byte = [0];
    assert_eq!(b.device().read_at(size - 1, &mut byte), Ok(()));
    for (offset, len) in [(size, 1), (size - 1, 2), (u64::MAX, 1)] {
        let fault = b.device().read_at(offset, &mut vec![0; len]).expect_err("past the end");
        assert_eq!(fault.kind, FaultKind::Misuse);
    }
}

/// A file system may have smaller blocks than the device under it.
fn small_reads(b: &mut Bench) {
    b.fill(13, 0, BUF_BYTES);
    let small = READ_UNIT as u32;
    let segments = [
        Segment::new(READ_UNIT, 0, READ_UNIT),
        Segment::new(8192, small, 8192 + READ_UNIT),
        Segment::new(READ_UNIT, 20480, 16384),
    ];
    let back = b.read(&segments);
    assert_eq!(back.fault(), None);
    for s in &segments {
        let at = s.buf_offset as usize;
        assert_painted(13, s.device_offset, &data(&back)[at..at + s.len as usize]);
    }
    drop(back);
    if b.unit() > READ_UNIT {
        let write = b.request(1, Op::Write, &[Segment::new(0, 0, READ_UNIT)]);
        assert_eq!(b.call(write).fault().map(|f| f.kind), Some(FaultKind::Misuse));
    }
}

/// The bytes in front of the end are read and written, those behind it are zero, and the size stays.
fn to_the_last_byte(b: &mut Bench) {
    let (unit, size, end) = (b.unit(), b.geometry.size_bytes, b.end());
    for (salt, start) in [(14, end - 8 * unit), (15, end - unit)] {
        let len = (end - start) as usize;
        b.fill(salt, start, len);
        let shown = (size - start) as usize;
        let read_end = size.next_multiple_of(READ_UNIT);
        let request = b.request(7, Op::Read, &[Segment::new(start, 0, read_end - start)]);
        let mut request = request;
        request.buf.as_mut().expect("a read has one").fill(0xEE);
        let back = b.call(request);
        assert_eq!(back.fault(), None);
        assert_painted(salt, start, &data(&back)[..shown]);
        assert!(data(&back)[shown..(read_end - start) as usize].iter().all(|&x| x == 0), "zeros behind it");
        drop(back);
        let mut out = vec![0xEE; shown];
        assert_eq!(b.device().read_at(start, &mut out), Ok(()));
        assert_painted(salt, start, &out);
    }
    let zero = b.request(1, Op::Zero, &[Segment::new(end - unit, 0, unit)]);
    assert_eq!(b.call(zero).fault(), None);
    let mut last = [0xEE];
    assert_eq!(b.device().read_at(size - 1, &mut last), Ok(()));
    assert_eq!(last, [0]);
    let flush = b.request(9, Op::Flush, &[]);
    assert_eq!(b.call(flush).fault(), None);
    assert_eq!(b.device().geometry().size_bytes, size);
}

fn broken_requests(b: &mut Bench) {
    let unit = b.unit();
    let bufless = Request { id: 1, op: Op::Read, buf: None, segments: vec![Segment::new(0, 0, unit)] };
    let back = b.call(bufless);
    assert_eq!(back.fault().map(|f| f.kind), Some(FaultKind::Misuse));
    let too_many = vec![Segment::new(0, 0, unit); SEGMENTS_PER_REQUEST_MAX + 1];
    let back = b.read(&too_many);
    assert!(back.segments.iter().all(|s| s.fault.is_some_and(|f| f.kind == FaultKind::Misuse)));
    drop(back);
    let exactly = vec![Segment::new(0, 0, unit); SEGMENTS_PER_REQUEST_MAX];
    assert_eq!(b.read(&exactly).fault(), None);
    let nothing = b.read(&[]);
    assert_eq!((nothing.fault(), nothing.segments.len()), (None, 0));
    drop(nothing);
    let flush = b.request(1, Op::Flush, &[Segment::new(0, 0, unit)]);
    assert_eq!(b.call(flush).fault().map(|f| f.kind), Some(FaultKind::Misuse));
}

fn queue_full(b: &mut Bench) {
    let segments = [Segment::new(0, 0, BUF_BYTES as u64)];
    for id in 0..DEPTH as u64 {
        let request = b.request(id, Op::Read, &segments);
        b.device().submit(request).expect("below the depth");
    }
    assert_eq!(b.device().in_flight(), DEPTH);
    let mut one_more = b.request(99, Op::Read, &segments);
    one_more.buf.as_mut().expect("a read has one").fill(0xA5);
    let refused = b.device().submit(one_more).expect_err("the queue is full");
    assert_eq!((refused.id, &refused.segments[..]), (99, &segments[..]));
    assert!(data(&refused).iter().all(|&x| x == 0xA5), "refused untouched");
    drain(b, DEPTH);
    b.device().submit(refused).expect("there is room again");
    drain(b, 1);
}

/// Completes until `count` requests came back, each with its own id.
fn drain(b: &mut Bench, count: usize) -> Vec<Request> {
    let mut back: Vec<Request> = Vec::new();
    while back.len() < count {
        let before = back.len();
        let n = b.device().complete(Wait::One, &mut |r| back.push(r));
        assert_eq!(n, back.len() - before);
        assert!(n > 0, "Wait::One brings one");
    }
    let mut ids: Vec<u64> = back.iter().map(|r| r.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "each request once");
    back
}

fn bad_segment_is_alone(b: &mut Bench) {
    let unit = b.unit();
    b.fill(6, 0, BUF_BYTES);
    let segments = [
        Segment::new(0, 0, unit),
        Segment::new(b.end(), unit as u32, unit),
        Segment::new(unit, 2 * unit as u32, unit),
    ];
    let back = b.read(&segments);
    assert_eq!(back.segments.iter().map(|s| s.fault.is_some()).collect::<Vec<_>>(), [false, true, false]);
    assert_painted(6, 0, &data(&back)[..unit as usize]);
    assert_painted(6, unit, &data(&back)[2 * unit as usize..3 * unit as usize]);
    // A fault of the past is not a fault of the present.
    let again = Request { segments: vec![Segment { fault: back.segments[1].fault, ..segments[0] }], ..back };
    assert_eq!(b.call(again).fault(), None);
}

fn many_requests_complete_once(b: &mut Bench) {
    const TOTAL: u64 = 200;
    let unit = b.unit();
    for offset in (0..DEVICE_BYTES_MIN).step_by(BUF_BYTES) {
        b.fill(8, offset, BUF_BYTES);
    }
    let (mut next, mut seen) = (0, vec![false; TOTAL as usize]);
    for turn in 0.. {
        if !seen.contains(&false) {
            break;
        }
        while next < TOTAL && b.device().in_flight() < DEPTH {
            let count = 1 + next % 40;
            let at = |i: u64| (next * 31 + i * 17) % (DEVICE_BYTES_MIN / unit) * unit;
            let segments: Vec<_> = (0..count).map(|i| Segment::new(at(i), (i * unit) as u32, unit)).collect();
            let request = b.request(next, Op::Read, &segments);
            b.device().submit(request).expect("below the depth");
            next += 1;
        }
        let wait = if turn % 3 == 0 { Wait::Poll } else { Wait::One };
        b.device().complete(wait, &mut |r| {
            assert!(!std::mem::replace(&mut seen[r.id as usize], true), "request {} came twice", r.id);
            for s in &r.segments {
                assert_eq!(s.fault, None);
                let at = s.buf_offset as usize;
                assert_painted(8, s.device_offset, &data(&r)[at..at + unit as usize]);
            }
        });
    }
}

fn zero_and_discard(b: &mut Bench) {
    b.fill(9, 0, BUF_BYTES);
    let (unit, third) = (b.unit(), BUF_BYTES as u64 / 4);
    let zero = b.request(1, Op::Zero, &[Segment::new(third, 0, third), Segment::new(1, 0, unit)]);
    let back = b.call(zero);
    assert_eq!(back.segments[0].fault, None);
    assert_eq!(back.segments[1].fault.map(|f| f.kind), Some(FaultKind::Misuse));
    let discard = b.request(2, Op::Discard, &[Segment::new(3 * third, 0, third)]);
    let fault = b.call(discard).fault().map(|f| f.kind);
    if b.geometry.can_discard {
        assert!(matches!(fault, None | Some(FaultKind::Unsupported)), "{fault:?}");
    } else {
        assert_eq!(fault, Some(FaultKind::Unsupported));
    }
    let back = b.read(&[Segment::new(0, 0, 3 * third)]);
    assert_eq!(back.fault(), None);
    let third = third as usize;
    assert_painted(9, 0, &data(&back)[..third]);
    assert!(data(&back)[third..2 * third].iter().all(|&x| x == 0), "zeroed");
    assert_painted(9, 2 * third as u64, &data(&back)[2 * third..3 * third]);
}

fn read_at_anywhere(b: &mut Bench) {
    for offset in (0..DEVICE_BYTES_MIN).step_by(BUF_BYTES) {
        b.fill(10, offset, BUF_BYTES);
    }
    let unit = b.unit() as usize;
    for (offset, len) in [
        (0, 1),
        (0, 0),
        (1, unit),
        (unit - 1, 2),
        (unit, unit),
        (3, 3 * unit + 5),
        (0, 1 << 20),
        (777, (3 << 20) + 1),
        (DEVICE_BYTES_MIN as usize - 3, 3),
    ] {
        let mut out = vec![0xEE; len];
        assert_eq!(b.device().read_at(offset as u64, &mut out), Ok(()), "{offset} {len}");
        assert_painted(10, offset as u64, &out);
    }
}

fn read_at_in_flight(b: &mut Bench) {
    b.fill(11, 0, BUF_BYTES);
    for id in 0..DEPTH as u64 {
        let request = b.request(id, Op::Read, &[Segment::new(0, 0, BUF_BYTES as u64)]);
        b.device().submit(request).expect("below the depth");
    }
    let mut out = [0; 100];
    assert_eq!(b.device().read_at(50, &mut out), Ok(()));
    assert_painted(11, 50, &out);
    assert_eq!(b.device().in_flight(), DEPTH, "it completes nothing");
    for back in drain(b, DEPTH) {
        assert_painted(11, 0, data(&back));
    }
}

/// Hints change no byte of what `read_at` gives, whatever is hinted, asked for or in flight.
fn read_ahead(b: &mut Bench) {
    let (size, last) = (b.geometry.size_bytes, DEVICE_BYTES_MIN - 5);
    let hints: Vec<Vec<std::ops::Range<u64>>> = vec![
        vec![0..1 << 20, (1 << 20) + 7..(1 << 20) + 8, 3 << 20..(3 << 20) + 70_000],
        vec![0..100, 50..200_000, size - 3..size, size..size + 1, u64::MAX - 1..u64::MAX],
        (0..100).map(|i| i * 40_961..i * 40_961 + 5000).collect(),
        vec![0..DEVICE_BYTES_MIN, 9..9, last..last + 5],
    ];
    let asked =
        [(0, 1 << 20), (50, 1000), ((1 << 20) - 9, 100_000), (3 << 20, 200_000), (last, 5), (5, 3 << 20)];
    for hint in &hints {
        for id in 0..DEPTH as u64 {
            let request = b.request(id, Op::Read, &[Segment::new(0, 0, BUF_BYTES as u64)]);
            b.device().submit(request).expect("below the depth");
        }
        b.device().read_ahead(hint);
        for (offset, len) in asked {
            let mut out = vec![0xEE; len];
            assert_eq!(b.device().read_at(offset, &mut out), Ok(()), "{offset} {len}");
            assert_painted(12, offset, &out);
            assert_eq!(b.device().in_flight(), DEPTH, "it completes nothing");
        }
        b.device().read_ahead(hint);
        for back in drain(b, DEPTH) {
            assert_painted(12, 0, data(&back));
        }
        let fault = b.device().read_at(size - 1, &mut [0; 2]).expect_err("past the end");
        assert_eq!(fault.kind, FaultKind::Misuse);
    }
    b.device().read_ahead(&[]);
    b.device().read_ahead(&hints[2]);
    // Dropped with hints under way.
}

fn dropped_in_flight(b: &mut Bench) {
    for id in 0..DEPTH as u64 {
        let request = b.request(id, Op::Read, &[Segment::new(0, 0, BUF_BYTES as u64)]);
        b.device().submit(request).expect("below the depth");
    }
    b.device = None;
}

fn read_only(b: &mut Bench) {
    assert!(b.geometry.read_only);
    let unit = b.unit();
    for op in [Op::Write, Op::Zero, Op::Discard, Op::Flush] {
        let segments = [Segment::new(0, 0, unit)];
        let request = b.request(1, op, if op == Op::Flush { &[] } else { &segments });
        let fault = b.call(request).fault().expect("refused");
        assert_eq!(fault.kind, FaultKind::ReadOnly, "{op:?}");
    }
    assert_eq!(b.read(&[Segment::new(0, 0, unit)]).fault(), None);
}

fn event_fd(b: &mut Bench) {
    let unit = b.unit();
    if b.device().event_fd().is_none() {
        return;
    }
    let mut poll = windlass_hal::linux::poll::Poll::new(8).expect("epoll");
    poll.add(b.device().event_fd().expect("asked above"), 5).expect("an eventfd can be polled");
    for _ in 0..3 {
        // One that the kernel finishes and one that the port refuses: both wake the loop.
        for segment in [Segment::new(0, 0, unit), Segment::new(1, 0, unit)] {
            let request = b.request(1, Op::Read, &[segment]);
            b.device().submit(request).expect("the queue is empty");
            let mut ready = Vec::new();
            // A wait may end early and empty (io_uring's task work interrupts it), so a few are granted.
            for _ in 0..3 {
                if ready.is_empty() {
                    poll.wait(Some(std::time::Duration::from_secs(10)), &mut ready).expect("epoll");
                }
            }
            assert_eq!(ready, [5], "a completion wakes the loop");
            let back = b.device().complete(Wait::Poll, &mut |_| {});
            assert_eq!(back, 1);
        }
    }
}
