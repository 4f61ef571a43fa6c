//! Bytes from a volume as text: names are any bytes, and a terminal obeys some of them.
//!
//! Invariants: [`printable`] writes no control character, and what it writes can be told apart. Source: ours.

use std::fmt::Write;

use serde_json::{Map, Value};

/// A name or path for people: UTF-8 as it is, everything that a terminal might obey or not show as `\x1b`.
pub fn printable(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                c if is_shown(c) => out.push(c),
                c => out.extend(c.escape_default()),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Whether a terminal shows it and does nothing else: no control characters, no direction marks.
fn is_shown(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Puts a name into a JSON object: `key` as text, and `key_hex` with the exact bytes where they are not UTF-8.
pub fn put_bytes(object: &mut Map<String, Value>, key: &str, bytes: &[u8]) {
    object.insert(key.to_owned(), String::from_utf8_lossy(bytes).into());
    if std::str::from_utf8(bytes).is_err() {
        object.insert(format!("{key}_hex"), hex(bytes).into());
    }
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// A UUID as it is usually written.
pub fn uuid(bytes: &[u8; 16]) -> String {
    let digits = hex(bytes);
    format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..])
}

/// `rwxr-sr-t` for permission bits.
pub fn permissions(mode: u16) -> String {
    let bit = |shift: u16, letter: char| if mode >> shift & 1 == 1 { letter } else { '-' };
    let special = |exec: u16, flag: u16, letter: char| match (mode >> exec & 1, mode >> flag & 1) {
        (1, 1) => letter,
        (0, 1) => letter.to_ascii_uppercase(),
        (1, _) => 'x',
        _ => '-',
    };
    [
        bit(8, 'r'),
        bit(7, 'w'),
        special(6, 11, 's'),
        bit(5, 'r'),
        bit(4, 'w'),
        special(3, 10, 's'),
        bit(2, 'r'),
        bit(1, 'w'),
        special(0, 9, 't'),
    ]
    .iter()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_drive_the_terminal() {
        assert_eq!(printable("Grüße.txt".as_bytes()), "Grüße.txt");
        assert_eq!(printable(b"\x1b[2J"), "\\u{1b}[2J");
        assert_eq!(printable(b"a\nb\\c"), "a\\nb\\\\c");
        assert_eq!(printable(b"\xff\xfeok"), "\\xff\\xfeok");
        assert_eq!(printable("a\u{202e}b".as_bytes()), "a\\u{202e}b");
    }

    #[test]
    fn json_keeps_every_byte() {
        let mut object = Map::new();
        put_bytes(&mut object, "name", b"ok");
        assert_eq!(object.get("name_hex"), None);
        put_bytes(&mut object, "name", b"\xff");
        assert_eq!(object["name_hex"], "ff");
    }

    #[test]
    fn permission_letters() {
        assert_eq!(permissions(0o755), "rwxr-xr-x");
        assert_eq!(permissions(0o4755), "rwsr-xr-x");
        assert_eq!(permissions(0o2644), "rw-r-Sr--");
        assert_eq!(permissions(0o1777), "rwxrwxrwt");
        assert_eq!(uuid(&[0xab; 16]), "abababab-abab-abab-abab-abababababab");
    }
}
