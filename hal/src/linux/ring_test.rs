//! A transfer that the kernel cuts short goes on where it stopped.

use super::super::{Access, Caching, open_ring};
use super::*;
use crate::block::Segment;

/// Does `op` on the first 16 KiB of both, block by block in reverse, in entries of one block.
fn transfer(device: &mut RingDevice, op: Op, buf: Buf) -> Buf {
    let segments = vec![Segment::new(8192, 0, 8192), Segment::new(0, 8192, 8192)];
    device.submit(Request { id: 1, op, buf: Some(buf), segments }).unwrap();
    let mut back = None;
    assert_eq!(device.complete(Wait::One, &mut |r| back = Some(r)), 1);
    let back = back.unwrap();
    assert_eq!(back.fault(), None);
    back.buf.unwrap()
}

#[test]
fn a_short_transfer_goes_on_where_it_stopped() {
    let path = std::env::temp_dir().join(format!("windlass-ring-{}.img", std::process::id()));
    let byte = |i: usize| (i / 512) as u8 + 1;
    let image: Vec<u8> = (0..16384).map(byte).collect();
    std::fs::write(&path, &image).unwrap();
    let pool = Pool::new(1, 16384);
    let pools = [pool.clone()];
    let mut device = open_ring(&path, Access::Write, Caching::Direct, 1, &pools).unwrap();
    device.entry_bytes_max = 4096;
    let buf = transfer(&mut device, Op::Read, pool.take().unwrap());
    assert!(buf[..8192] == image[8192..] && buf[8192..] == image[..8192]);
    let mut buf = transfer(&mut device, Op::Write, buf);
    buf.fill(0);
    buf = transfer(&mut device, Op::Read, buf);
    assert!(buf[..8192] == image[8192..] && buf[8192..] == image[..8192]);
    drop((buf, device));
    assert_eq!(std::fs::read(&path).unwrap(), image);
    assert_eq!(pool.free(), 1);
    std::fs::remove_file(&path).unwrap();
}
