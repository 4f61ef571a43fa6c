//! The sweep of a reader that has its inodes in pieces: from one that exists to the next, until the window is full.
//!
//! Bounded work: so many pieces and one window a call. Source: ours.

use super::part::Step;
use super::piece::Seek;
use super::{Cursor, Swept, VolumeFault, Window};
use crate::block::BlockDevice;

/// Pieces of inodes (512 KiB each) that one call reads before it returns, however few items they hold.
const FILLS_PER_CALL: u64 = 32;

/// What a reader does for its sweep.
pub(super) trait Inodes {
    /// Finds the first inode that exists from `number` on.
    fn seek(&mut self, device: &mut dyn BlockDevice, number: u64) -> Result<Seek, VolumeFault>;

    /// Pieces read so far.
    fn fills(&self) -> u64;

    /// Puts the item `number`, which was found, into the window, from `within` on.
    fn put(&mut self, device: &mut dyn BlockDevice, number: u64, within: u64, window: &mut Window) -> Step;
}

/// See [`super::Volume::sweep`].
pub(super) fn sweep(
    inodes: &mut impl Inodes,
    device: &mut dyn BlockDevice,
    from: Cursor,
    window: &mut Window,
) -> Result<Swept, VolumeFault> {
    window.clear();
    let fills = inodes.fills();
    let Cursor { inode: mut next, mut within } = from;
    loop {
        let number = match inodes.seek(device, next)? {
            Seek::At(number) => number,
            Seek::Paused(at) => return Ok(Swept::More(Cursor { inode: at, within: 0 })),
            Seek::End => {
                device.read_ahead(&[]);
                return Ok(Swept::Done);
            }
        };
        if number != next {
            within = 0;
        }
        if window.is_full() || inodes.fills() - fills > FILLS_PER_CALL {
            return Ok(Swept::More(Cursor { inode: number, within }));
        }
        match inodes.put(device, number, within, window) {
            Step::Done => (next, within) = (number + 1, 0),
            Step::Full => return Ok(Swept::More(Cursor { inode: number, within })),
            Step::More(within) => return Ok(Swept::More(Cursor { inode: number, within })),
        }
    }
}
