//! Two copies in one object: how the few small objects are stored without which nothing else can be found.
//!
//! | bytes | what |
//! |---|---|
//! | n | the object's bytes, which carry a checksum of their own |
//! | n | the same again |
//!
//! The `format` object and everything of the commit log are stored so (tables are made anew from the objects, whose data is
//! found damaged one frame at a time). A bit that flips, or a sector that goes bad, leaves one copy whole; readers take that one,
//! and `check` names the object.
//!
//! Does not: repair. Source: ours.

/// The bytes of an object that is stored as two copies: the first copy that `holds`, or the first when none does.
pub fn pick(stored: &[u8], holds: impl Fn(&[u8]) -> bool) -> &[u8] {
    let (first, second) = stored.split_at(stored.len() / 2);
    if !holds(first) && holds(second) { second } else { first }
}

/// Whether both copies are there and the same, and `holds`.
pub fn is_whole(stored: &[u8], holds: impl Fn(&[u8]) -> bool) -> bool {
    let (first, second) = stored.split_at(stored.len() / 2);
    first == second && holds(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_one_change_leaves_a_copy() {
        let holds = |copy: &[u8]| copy == b"right";
        for at in 0..10 {
            for bit in 0..8 {
                let mut stored = b"rightright".to_vec();
                assert!(is_whole(&stored, holds));
                stored[at] ^= 1 << bit;
                assert_eq!(pick(&stored, holds), b"right");
                assert!(!is_whole(&stored, holds));
            }
        }
        for cut in 0..10 {
            assert!(!is_whole(&b"rightright"[..cut], holds));
            assert!(!holds(pick(&b"rightright"[..cut], holds)));
        }
    }
}
