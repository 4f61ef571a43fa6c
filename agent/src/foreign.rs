//! Text of others as it may be shown: what a server, a volume, a peer or a file says is any bytes, and a terminal obeys some of them.
//!
//! | function | for | line ends | backslash |
//! |---|---|---|---|
//! | [`name`] | a name or a path, which must be told from every other | escaped | doubled |
//! | [`parse_name`] | the bytes of a name that was shown so | taken back | taken back |
//! | [`message`] | words of others within a message of ours, one line | escaped, and cut at [`MESSAGE_BYTES_MAX`] | as it is |
//! | [`harmless`] | whatever is about to be written to a terminal or a log, once more | as they are | as it is |
//! | [`json`] | a JSON document about to be written | JSON's own | JSON's own |
//!
//! Invariants: no function's result has a character that a terminal obeys or does not show: control characters, escape, direction
//! marks, marks without width; bytes that are not UTF-8 are written as `\xff`. Each function leaves its own result as it is, but for
//! [`name`]. Source: ours; Unicode 15, "Bidi_Control" and "Default_Ignorable_Code_Point".

use std::fmt::Write;

/// Longest words of others in a message, in bytes: some lines of a terminal. What follows is cut.
pub const MESSAGE_BYTES_MAX: usize = 300;

/// A name or path: UTF-8 as it is, everything that a terminal might obey or not show as `\u{1b}` or `\xff`.
pub fn name(bytes: &[u8]) -> String {
    escape(bytes, |c| if c == '\\' { Shown::Doubled } else { Shown::of(c) })
}

/// The bytes that [`name`] shows as `text`; `None` when it shows none so, or `text` has nothing to be taken back.
pub fn parse_name(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    let mut found = false;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        found = true;
        let (&kind, after) = rest.split_first()?;
        rest = after;
        match kind {
            b'\\' => out.push(b'\\'),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'x' => {
                let (digits, after) = rest.split_at_checked(2)?;
                out.push(u8::try_from(hex_number(digits)?).ok()?);
                rest = after;
            }
            b'u' => {
                let end = rest.iter().position(|&b| b == b'}')?;
                let c = char::from_u32(hex_number(rest.get(..end)?.strip_prefix(b"{")?)?)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[end + 1..];
            }
            _ => return None,
        }
    }
    found.then_some(out)
}

/// At most six hex digits.
fn hex_number(digits: &[u8]) -> Option<u32> {
    let is_number = (1..=6).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_number)?;
    u32::from_str_radix(digits, 16).ok()
}

/// Words of others for one line.
pub fn message(text: &str) -> String {
    let mut out = escape(text.as_bytes(), Shown::of);
    if out.len() > MESSAGE_BYTES_MAX {
        const CUT: &str = "...";
        out.truncate(out.floor_char_boundary(MESSAGE_BYTES_MAX - CUT.len()));
        out.push_str(CUT);
    }
    out
}

/// One line, however long.
pub fn line(text: &str) -> String {
    escape(text.as_bytes(), Shown::of)
}

/// Lines that are about to be written.
pub fn harmless(text: &str) -> String {
    escape(text.as_bytes(), |c| if c == '\n' { Shown::Plain } else { Shown::of(c) })
}

/// A JSON document that is about to be written: the same document, in which every such character is written as `\u202e`.
pub fn json(document: &str) -> String {
    let mut out = String::with_capacity(document.len());
    for c in document.chars() {
        if is_shown(c) {
            out.push(c);
        } else {
            // All of them have 16 bits. Writing to a string does not fail.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        }
    }
    out
}

/// How a character is written.
enum Shown {
    Plain,
    Doubled,
    Escaped,
}

impl Shown {
    fn of(c: char) -> Shown {
        if is_shown(c) { Shown::Plain } else { Shown::Escaped }
    }
}

fn escape(bytes: &[u8], how: impl Fn(char) -> Shown) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match how(c) {
                Shown::Plain => out.push(c),
                Shown::Doubled => out.extend([c, c]),
                Shown::Escaped => out.extend(c.escape_default()),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Whether a terminal shows it and does nothing else.
fn is_shown(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        && !matches!(c, '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ODD: &str = "a\n\r\t\u{1b}[2J\u{7f}\u{9b}31m\u{202e}\u{2066}\u{200b}\u{feff}ä\\";

    #[test]
    fn nothing_that_a_terminal_obeys_comes_through() {
        let all: Vec<u8> = ODD.bytes().chain([0xff, 0xfe]).collect();
        for out in [name(&all), message(ODD), line(ODD), harmless(ODD), json(ODD)] {
            assert!(out.chars().all(|c| is_shown(c) || c == '\n'), "{out:?}");
            assert!(out.contains('ä'));
        }
        assert_eq!(line("a\n\u{1b}\u{202e}\\"), "a\\n\\u{1b}\\u{202e}\\");
        assert_eq!(harmless("a\nb\u{1b}"), "a\nb\\u{1b}");
        assert_eq!(line(&line(ODD)), line(ODD));
    }

    #[test]
    fn names_can_be_told_apart() {
        assert_eq!(name("Grüße.txt".as_bytes()), "Grüße.txt");
        assert_eq!(name(b"\x1b[2J"), "\\u{1b}[2J");
        assert_eq!(name(b"a\nb\\c"), "a\\nb\\\\c");
        assert_eq!(name(b"\xff\xfeok"), "\\xff\\xfeok");
        assert_ne!(name(b"\\u{1b}"), name(b"\x1b"));
    }

    #[test]
    fn what_is_shown_leads_back_to_the_bytes() {
        let all: Vec<u8> = (1..=255).collect();
        for bytes in [&all[..], b"\x1b[2J", b"a\nb\\c", b"\\xff", ODD.as_bytes(), "\u{10ffff}\n".as_bytes()] {
            assert_eq!(parse_name(name(bytes).as_bytes()).as_deref(), Some(bytes));
        }
        let not_shown_so = [
            "plain",
            "",
            "\\",
            "\\q",
            "\\x",
            "\\xf",
            "\\xgg",
            "\\x+1",
            "\\u{}",
            "\\u{110000}",
            "\\u{41",
            "\\u41}",
        ];
        for text in not_shown_so {
            assert_eq!(parse_name(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn messages_are_cut_at_a_character() {
        let at = "ä".repeat(MESSAGE_BYTES_MAX / 2);
        assert_eq!(message(&at), at);
        let above = message(&format!("{at}a"));
        assert!(above.len() <= MESSAGE_BYTES_MAX && above.ends_with("ä..."), "{above}");
        assert!(message(&"\u{1b}".repeat(1000)).len() <= MESSAGE_BYTES_MAX);
    }

    #[test]
    fn json_stays_the_same_document() {
        let text = serde_json::to_string(ODD).unwrap();
        let shown = json(&text);
        assert!(!shown.contains('\u{202e}') && shown.contains("\\u202e"));
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), ODD);
    }
}
