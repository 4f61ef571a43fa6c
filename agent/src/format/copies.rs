//! Two copies in one object: the form of the few small objects on which all others depend.
//!
//! | bytes | what |
//! |---|---|
//! | n | the object's bytes, which contain their own length and a checksum |
//! | n | the same again |
//!
//! The `format` object and everything of the commit log are stored so (tables are made anew from the objects, whose data is
//! found damaged one frame at a time). A bit that flips, a sector that goes bad, or a write that was cut leaves one copy whole;
//! readers take that one wherever it lies, and `check` names the object.
//!
//! Invariant: at most [`TRIES_MAX`] places of an object are verified, whatever its contents. Does not:
//! repair. Source: ours.

/// Places of an object at which a copy is looked for: the two where they belong, and a few where a copy seems
/// to begin. Only a forged object has more.
const TRIES_MAX: usize = 16;

/// The bytes of an object that is stored as two copies: the first copy that is whole. `whole` returns how
/// many bytes the copy takes that begins where it is pointed to, if one does. `None` when no copy is whole.
pub fn pick<'a>(stored: &'a [u8], magic: &[u8], whole: impl Fn(&[u8]) -> Option<usize>) -> Option<&'a [u8]> {
    let starts = (0..stored.len()).filter(|&at| stored[at..].starts_with(magic));
    let mut places = [0, stored.len() / 2].into_iter().chain(starts).take(TRIES_MAX);
    places.find_map(|at| {
        let copy = stored.get(at..)?;
        whole(copy).and_then(|bytes| copy.get(..bytes))
    })
}

/// Whether both copies are there and the same, and nothing else is.
pub fn is_whole(stored: &[u8], whole: impl Fn(&[u8]) -> Option<usize>) -> bool {
    let (first, second) = stored.split_at(stored.len() / 2);
    first == second && whole(first) == Some(first.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(copy: &[u8]) -> Option<usize> {
        copy.starts_with(b"right").then_some(5)
    }

    #[test]
    fn any_one_change_leaves_a_copy() {
        for at in 0..10 {
            for bit in 0..8 {
                let mut stored = b"rightright".to_vec();
                assert!(is_whole(&stored, whole));
                stored[at] ^= 1 << bit;
                assert_eq!(pick(&stored, b"ri", whole), Some(&b"right"[..]));
                assert!(!is_whole(&stored, whole));
            }
        }
    }

    #[test]
    fn a_cut_anywhere_behind_a_copy_leaves_it() {
        for cut in 0..10 {
            let stored = &b"rightright"[..cut];
            assert!(!is_whole(stored, whole));
            assert_eq!(pick(stored, b"ri", whole), (cut >= 5).then_some(&b"right"[..]), "{cut}");
            let front = &b"rightright"[10 - cut..];
            assert_eq!(pick(front, b"ri", whole), (cut >= 5).then_some(&b"right"[..]), "{cut}");
        }
        assert!(!is_whole(b"rightrightright", whole));
    }

    #[test]
    fn an_object_that_is_made_up_costs_little() {
        let tries = std::cell::Cell::new(0);
        let count = |_: &[u8]| {
            tries.set(tries.get() + 1);
            None
        };
        assert_eq!(pick(&b"ri".repeat(100_000), b"ri", count), None);
        assert_eq!(tries.get(), TRIES_MAX);
    }
}
