//! Fields of a request's body and of its query, by the types that the routes give them.
//!
//! Invariants: what is unknown, twice there, missing or of another type is refused by name, and nothing of the rest is used.
//! Does not: judge values. Source: ours.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;

use crate::work::entry::{Arg, Kind};

/// Values of a field that may be repeated, at most; a list that is longer is refused.
const MANY_MAX: usize = 64;

/// An object's fields, each once.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields: Vec<(String, Value)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if fields.iter().any(|(known, _)| *known == name) {
                        return Err(A::Error::custom(format_args!("the field {name} is there twice")));
                    }
                    fields.push((name, value));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// Fields that a request gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given(Vec<(&'static str, Vec<String>)>);

impl Given {
    /// From a body. An empty one has no fields.
    ///
    /// # Errors
    /// Which field is wrong, and what it should be.
    pub fn of_body(args: &'static [Arg], body: &[u8]) -> Result<Given, String> {
        let fields = if body.is_empty() {
            Fields(Vec::new())
        } else {
            serde_json::from_slice(body).map_err(|error| format!("the body: {error}"))?
        };
        let texts = |(name, value): (String, Value)| {
            let arg = args.iter().find(|arg| arg.name == name);
            let arg = arg.ok_or_else(|| format!("there is no field {name:?}"))?;
            let values = match value {
                Value::Array(values) if arg.many && values.len() <= MANY_MAX => values,
                Value::Array(_) if arg.many => return Err(format!("{name}: more than {MANY_MAX} values")),
                value => vec![value],
            };
            let text = |value: Value| match (arg.kind, value) {
                (Kind::Number, Value::Number(number)) if number.is_u64() => Ok(number.to_string()),
                (Kind::Flag, Value::Bool(flag)) => Ok(flag.to_string()),
                (Kind::Text, Value::String(text)) => Ok(text),
                _ => Err(format!("{name}: {}", arg.kind.expected())),
            };
            Ok((arg.name, values.into_iter().map(text).collect::<Result<Vec<_>, _>>()?))
        };
        Given(fields.0.into_iter().map(texts).collect::<Result<_, String>>()?).complete(args)
    }

    /// From a query.
    ///
    /// # Errors
    /// As [`Given::of_body`].
    pub fn of_query(args: &'static [Arg], query: &[(String, String)]) -> Result<Given, String> {
        let one = |(name, value): &(String, String)| {
            let arg = args.iter().find(|arg| arg.name == name);
            let arg =
                arg.ok_or_else(|| format!("the query has a field {name:?}, which this path does not know"))?;
            if arg.kind == Kind::Number && value.parse::<u64>().is_err() {
                return Err(format!("{name}: {}", arg.kind.expected()));
            }
            Ok((arg.name, vec![value.clone()]))
        };
        Given(query.iter().map(one).collect::<Result<_, String>>()?).complete(args)
    }

    fn complete(self, args: &'static [Arg]) -> Result<Given, String> {
        match args.iter().find(|arg| arg.required && self.0.iter().all(|(name, _)| *name != arg.name)) {
            Some(arg) => Err(format!("the field {} is missing: {}", arg.name, arg.help)),
            None => Ok(self),
        }
    }

    /// All values of a field.
    #[must_use]
    pub fn all(&self, name: &str) -> &[String] {
        self.0.iter().find(|(known, _)| *known == name).map_or(&[], |(_, values)| values)
    }

    /// A field's value.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.all(name).first().map(String::as_str)
    }

    /// A field's value as a number; what is larger than any is the largest.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u32> {
        self.text(name).map(|text| text.parse().unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARGS: &[Arg] = &[
        Arg::option("node", Kind::Number, "a node").required(),
        Arg::option("tags", Kind::Text, "tags").many(),
        Arg::flag("all", "all"),
    ];

    #[test]
    fn fields_have_types_and_are_there_once() {
        let good = Given::of_body(ARGS, br#"{"tags":["a","b"],"node":3,"all":true}"#).unwrap();
        assert_eq!(
            (good.number("node"), good.all("tags").len(), good.text("all")),
            (Some(3), 2, Some("true"))
        );
        for (bad, word) in [
            ("", "node is missing"),
            ("{}", "node is missing"),
            ("[]", "an object"),
            ("{", "EOF"),
            (r#"{"node":1,"node":1}"#, "twice"),
            (r#"{"node":1,"no":1}"#, "\"no\""),
            (r#"{"node":"1"}"#, "node: write a whole number"),
            (r#"{"node":-1}"#, "node: "),
            (r#"{"node":1.5}"#, "node: "),
            (r#"{"node":[1]}"#, "node: "),
            (r#"{"node":1,"tags":[1]}"#, "tags: write text"),
            (r#"{"node":1,"all":"yes"}"#, "all: "),
            (r#"{"node":1} x"#, "trailing"),
        ] {
            let why = Given::of_body(ARGS, bad.as_bytes()).unwrap_err();
            assert!(why.contains(word), "{bad}: {why}");
        }
        let many = format!(r#"{{"node":1,"tags":[{}"a"]}}"#, "\"a\",".repeat(MANY_MAX));
        assert!(Given::of_body(ARGS, many.as_bytes()).unwrap_err().contains("more than 64"));
        let query = |name: &str, value: &str| Given::of_query(ARGS, &[(name.to_owned(), value.to_owned())]);
        assert_eq!(query("node", "99999999999").unwrap().number("node"), Some(u32::MAX));
        assert!(query("node", "x").is_err() && query("other", "x").is_err());
    }
}
