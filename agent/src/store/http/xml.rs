//! XML of servers: each element with its text, and bounds on what is kept.
//!
//! Invariants: input is bounded before it comes here and never trusted; a document that is cut short is malformed. Does not: resolve entities
//! of a document's own, check schemas. Source: XML 1.0.

use quick_xml::Reader;
use quick_xml::events::Event;

/// Deepest nesting that is followed in an answer; S3's are 3 deep, Azure's 4.
const XML_DEPTH_MAX: usize = 8;
/// Longest text of one element that is kept, in bytes: a key of 1024 bytes, escaped.
const XML_TEXT_BYTES_MAX: usize = 8192;

/// The answer does not fit the request; the text says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Calls `each` with (names from the root to here, text) at the end of every element.
///
/// # Errors
/// When it is not XML, cut short, nested too deeply, or has an element that is too long.
pub fn walk(xml: &[u8], each: &mut dyn FnMut(&[String], &str)) -> Result<(), Malformed> {
    let text = str::from_utf8(xml).map_err(|_| Malformed("not UTF-8"))?;
    // Azure begins its documents with a byte order mark.
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    let mut path: Vec<String> = Vec::new();
    let mut text = String::new();
    let mut ended = false;
    loop {
        match reader.read_event().map_err(|_| Malformed("not XML"))? {
            Event::Start(start) => {
                if path.len() == XML_DEPTH_MAX {
                    return Err(Malformed("nested too deeply"));
                }
                path.push(String::from_utf8_lossy(start.local_name().as_ref()).into_owned());
                text.clear();
            }
            Event::Empty(start) => {
                path.push(String::from_utf8_lossy(start.local_name().as_ref()).into_owned());
                each(&path, "");
                path.pop();
                ended = path.is_empty();
            }
            Event::End(_) => {
                each(&path, &text);
                text.clear();
                path.pop();
                ended = path.is_empty();
            }
            Event::Text(piece) => text.push_str(&piece.decode().map_err(|_| Malformed("not text"))?),
            Event::CData(piece) => text.push_str(&piece.decode().map_err(|_| Malformed("not text"))?),
            Event::GeneralRef(name) => match name.resolve_char_ref() {
                Ok(Some(character)) => text.push(character),
                Ok(None) => text.push(match name.as_ref() {
                    b"amp" => '&',
                    b"lt" => '<',
                    b"gt" => '>',
                    b"quot" => '"',
                    b"apos" => '\'',
                    _ => return Err(Malformed("unknown entity")),
                }),
                Err(_) => return Err(Malformed("bad character reference")),
            },
            Event::Decl(_) | Event::PI(_) | Event::DocType(_) | Event::Comment(_) => {}
            Event::Eof if ended => return Ok(()),
            Event::Eof => return Err(Malformed("cut short")),
        }
        if text.len() > XML_TEXT_BYTES_MAX {
            return Err(Malformed("an element is too long"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_no_text() {
        let mut seen = Vec::new();
        walk("\u{feff}<?xml version=\"1.0\"?><a><b>x</b></a>".as_bytes(), &mut |path, text| {
            seen.push((path.join("/"), text.to_owned()));
        })
        .unwrap();
        assert_eq!(seen, [("a/b".to_owned(), "x".to_owned()), ("a".to_owned(), String::new())]);
    }
}
