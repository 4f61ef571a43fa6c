//! Names that a policy leaves out though it takes the items: the other names of files with several.
//!
//! A name is kept as a digest of its directory and itself, so that long ones take no more room. Two names with one digest would be taken for
//! each other; of 128 bits, that does not happen.
//!
//! Bound: [`HIDDEN_NAMES_MAX`]. When it is reached, [`HiddenNames::add`] refuses. Pure. Source: ours.

use super::inodes::Full;

/// Most names in a set: 16 MiB of digests, like the bound of a set of inodes.
pub const HIDDEN_NAMES_MAX: usize = 1 << 20;

/// Bytes of a digest.
const DIGEST_BYTES: usize = 16;

/// A set of names, each in its directory. It is filled, then sealed, then asked.
#[derive(Debug, Default)]
pub struct HiddenNames {
    digests: Vec<[u8; DIGEST_BYTES]>,
}

impl HiddenNames {
    /// Adds a name of `directory`.
    pub fn add(&mut self, directory: u64, name: &[u8]) -> Result<(), Full> {
        if self.digests.len() >= HIDDEN_NAMES_MAX {
            return Err(Full);
        }
        self.digests.push(digest(directory, name));
        Ok(())
    }

    /// Makes it ready to be asked.
    pub fn seal(&mut self) {
        self.digests.sort_unstable();
    }

    /// Whether a name of `directory` is in. Costs nothing when no name is.
    pub fn contains(&self, directory: u64, name: &[u8]) -> bool {
        !self.digests.is_empty() && self.digests.binary_search(&digest(directory, name)).is_ok()
    }
}

fn digest(directory: u64, name: &[u8]) -> [u8; DIGEST_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&directory.to_le_bytes()).update(name);
    let mut out = [0; DIGEST_BYTES];
    hasher.finalize_xof().fill(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_in_where_it_was_added_and_nowhere_else() {
        let mut names = HiddenNames::default();
        assert!(!names.contains(2, b"a"));
        for (directory, name) in [(2, &b"a"[..]), (3, b"bb"), (1 << 40, b"a")] {
            names.add(directory, name).unwrap();
        }
        names.seal();
        assert!(names.contains(2, b"a") && names.contains(3, b"bb") && names.contains(1 << 40, b"a"));
        assert!(!names.contains(3, b"a") && !names.contains(2, b"bb") && !names.contains(2, b""));
    }

    #[test]
    fn the_bound_refuses() {
        let mut names = HiddenNames { digests: vec![[0; DIGEST_BYTES]; HIDDEN_NAMES_MAX - 1] };
        assert_eq!((names.add(1, b"a"), names.add(1, b"b")), (Ok(()), Err(Full)));
    }
}
