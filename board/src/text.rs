//! Bytes from a volume as text, for people and as JSON. Names are any bytes: [`printable`] says how they are shown. Source: ours.

use serde_json::{Map, Value};
use windlass_hal::volume::ItemKind;

pub use windlass_agent::foreign::{name as printable, parse_name as parse_printable};
pub use windlass_agent::hex::{hex, unhex};

/// Puts a name into a JSON object: `key` as text, and `key_hex` with the exact bytes where they are not UTF-8.
pub fn put_bytes(object: &mut Map<String, Value>, key: &str, bytes: &[u8]) {
    object.insert(key.to_owned(), String::from_utf8_lossy(bytes).into());
    if std::str::from_utf8(bytes).is_err() {
        object.insert(format!("{key}_hex"), hex(bytes).into());
    }
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

/// A kind in JSON.
pub fn kind_word(kind: ItemKind) -> &'static str {
    match kind {
        ItemKind::File => "file",
        ItemKind::Image => "image",
        ItemKind::Directory => "dir",
        ItemKind::Symlink => "link",
        ItemKind::CharDevice => "char_device",
        ItemKind::BlockDevice => "block_device",
        ItemKind::Fifo => "fifo",
        ItemKind::Socket => "socket",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
