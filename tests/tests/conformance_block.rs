//! The block-device suite on every port and wrapper. The Linux ports run on a plain file, and on a loop device where the
//! process is root; what cannot run here says so by name.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use windlass_hal::block::BlockDevice;
use windlass_hal::buf::Pool;
use windlass_hal::linux::{self, Access, Caching};
use windlass_tests::conformance::block::{DEPTH, DEVICE_BYTES_MIN, Subject, run};

/// A plain file of the suite's size (and half a block, which a port must ignore), removed at the end.
struct Image {
    path: PathBuf,
}

impl Image {
    fn new(name: &str) -> Image {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("conformance-{name}.img"));
        File::create(&path)
            .and_then(|f| f.set_len(DEVICE_BYTES_MIN + 100))
            .expect("target directory is writable");
        Image { path }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn access(write: bool) -> Access {
    if write { Access::Write } else { Access::Read }
}

fn ring(path: &Path, caching: Caching, write: bool, pool: &Pool) -> Box<dyn BlockDevice> {
    let pools = [pool.clone()];
    Box::new(linux::open_ring(path, access(write), caching, DEPTH, &pools).expect("opens"))
}

#[test]
fn ring_on_a_plain_file() {
    let image = Image::new("ring");
    run(&mut Subject { name: "ring", open: &mut |w, pool| ring(&image.path, Caching::Direct, w, pool) });
}

#[test]
fn ring_buffered() {
    let image = Image::new("ring-buffered");
    run(&mut Subject {
        name: "ring buffered",
        open: &mut |w, pool| ring(&image.path, Caching::Buffered, w, pool),
    });
}
