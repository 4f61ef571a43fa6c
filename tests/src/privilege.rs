//! What a test may do here, and how it says loudly that it was skipped.
//!
//! A skipped test passes; with `WINDLASS_NO_SKIP` set one whose reason can be mended fails, so that a run cannot pass by skipping.
//! The line goes past libtest's capture, so it shows in every run. Source: ours.

use std::io::Write;

/// Whether this process may mount, make device nodes and set trusted attributes.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Prints `SKIPPED: test: reason`: this kernel, processor, disk or version of a tool cannot do it.
pub fn unsupported(test: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
}

/// The same for what can be had: a package, privilege.
///
/// # Panics
/// With `WINDLASS_NO_SKIP` set.
pub fn skip(test: &str, reason: &str) {
    unsupported(test, reason);
    assert!(std::env::var_os("WINDLASS_NO_SKIP").is_none(), "skipping is not allowed: {test}: {reason}");
}

/// Returns from the test unless it runs as root with loop devices. The second argument is what to return.
#[macro_export]
macro_rules! requires_root {
    ($test:expr) => {
        $crate::requires_root!($test, ())
    };
    ($test:expr, $value:expr) => {
        if !$crate::privilege::is_root() {
            $crate::privilege::skip($test, "needs root, to mount images and own files");
            return $value;
        }
        if !std::path::Path::new("/dev/loop-control").exists() {
            $crate::privilege::unsupported($test, "this kernel has no loop devices");
            return $value;
        }
    };
}
