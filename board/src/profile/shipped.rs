//! The profiles that come with the program, by name. Tests hold them to the parser.

/// (name, text).
const SHIPPED: [(&str, &str); 2] = [
    ("generic-x86_64", include_str!("../../profiles/generic-x86_64.toml")),
    ("loopback", include_str!("../../profiles/loopback.toml")),
];

/// The text of one.
pub fn find(name: &str) -> Option<&'static str> {
    SHIPPED.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// All names.
pub fn names() -> String {
    SHIPPED.map(|(name, _)| name).join(", ")
}
