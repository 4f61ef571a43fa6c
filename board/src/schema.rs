//! Fields of the documents that `--json` prints, as `board/doc/json.md` has them: the document is the schema, and this reads it.
//!
//! ```text
//! ## repo set                        <- name of a table
//! | field | type | meaning |
//! |---|---|---|
//! | `lease_ms` | number | ... |     <- a field; one with ? at its end may be left out
//! ```
//!
//! Types: `number`, `text`, `bool`, `any`, `list of T`, `T or null`, and names of tables. Does not: check a document. Source: ours.

use std::collections::BTreeMap;

/// The text that is the schema.
const JSON_MD: &str = include_str!("../doc/json.md");

/// A field of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: &'static str,
    /// It may be left out.
    pub optional: bool,
    /// What it means, for people.
    pub meaning: &'static str,
}

/// The tables of fields, by name.
#[derive(Debug, Default)]
pub struct Schema(BTreeMap<&'static str, Vec<Field>>);

impl Schema {
    /// Reads the document.
    #[must_use]
    pub fn read() -> Schema {
        let mut tables: BTreeMap<&str, Vec<Field>> = BTreeMap::new();
        let mut name = "";
        for line in JSON_MD.lines() {
            if let Some(heading) = line.strip_prefix("## ") {
                name = heading;
                tables.entry(name).or_default();
            } else if let (Some(field), Some(table)) = (field(line), tables.get_mut(name)) {
                table.push(field);
            }
        }
        Schema(tables)
    }

    /// All tables, with their fields in order.
    pub fn tables(&self) -> impl Iterator<Item = (&'static str, &[Field])> {
        self.0.iter().map(|(name, fields)| (*name, fields.as_slice()))
    }

    /// The fields of a table.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&[Field]> {
        self.0.get(name).map(Vec::as_slice)
    }
}

/// The field of a row of a table; a pipe in its meaning is kept.
fn field(line: &'static str) -> Option<Field> {
    let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
    let (kind, meaning) = rest.split_once(" | ")?;
    let plain = name.trim_end_matches('?');
    Some(Field {
        name: plain,
        kind,
        optional: plain.len() < name.len(),
        meaning: meaning.trim_end_matches(" |"),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use windlass_agent::work::table;

    use super::*;

    /// The table that a type names, if it is none of the plain ones.
    fn table_of(kind: &str) -> Option<&str> {
        let kind = kind.strip_suffix(" or null").unwrap_or(kind);
        let kind = kind.strip_prefix("list of ").unwrap_or(kind);
        (!["number", "text", "bool", "any"].contains(&kind)).then_some(kind)
    }

    #[test]
    fn every_document_of_the_table_of_commands_has_fields_and_no_fields_are_of_nothing() {
        let schema = Schema::read();
        let mut used: BTreeSet<&str> = ["failure"].into();
        for entry in table::all() {
            for document in entry.documents {
                assert!(schema.table(document.schema).is_some(), "json.md: no table {:?}", document.schema);
                used.insert(document.schema);
            }
        }
        for (name, fields) in schema.tables() {
            assert!(!fields.is_empty(), "json.md: {name} has no fields");
            let mut names = BTreeSet::new();
            assert!(fields.iter().all(|field| names.insert(field.name)), "json.md: {name} has a field twice");
            for kind in fields.iter().filter_map(|field| table_of(field.kind)) {
                assert!(schema.table(kind).is_some(), "json.md: {name} has a field of type {kind:?}");
                used.insert(kind);
            }
        }
        let unused: Vec<_> =
            schema.tables().map(|(name, _)| name).filter(|name| !used.contains(name)).collect();
        assert!(unused.is_empty(), "json.md: no command of agent/src/work/table prints {unused:?}");
    }
}
