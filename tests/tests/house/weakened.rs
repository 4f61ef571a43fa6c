//! Programs that tests run say that their checks can be switched off; `.ci/run` looks for the same words in the binary that ships, where
//! they must not be.

use std::fs;

use windlass_agent::log::writer::WEAKENED;

#[test]
fn a_build_for_tests_says_that_it_is_one() {
    let program = fs::read(env!("CARGO_BIN_EXE_windlass-under-test")).expect("the program is built");
    let found = program.windows(WEAKENED.len()).any(|bytes| bytes == WEAKENED.as_bytes());
    assert!(found, "{WEAKENED:?} is not in the program: then its absence from another one proves nothing");
    let step = include_str!("../../../.ci/run");
    let words = WEAKENED.split(": ").nth(1).unwrap_or_default();
    assert!(step.contains(&format!("grep -qaF '{words}'")), "{words}");
}
