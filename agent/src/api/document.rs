//! The OpenAPI document of the routes, made from the tables that the router uses: it cannot say what the router does not do.
//!
//! Schemas are the tables of fields that `--json` has; the caller reads them. Every route has the answers that any request may get: problem
//! documents with a code.
//!
//! Does not: describe pages. Source: OpenAPI 3.1.0; ours.

use serde_json::{Map, Value, json};

use super::route::{Body, ROUTES, Reply, Route, What};
use crate::work::entry::{Arg, Kind};

/// A field of a table.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its type: `number`, `text`, `bool`, `any`, `list of T`, `T or null`, or a table's name.
    pub kind: &'a str,
    /// It may be left out.
    pub optional: bool,
    /// What it means.
    pub meaning: &'a str,
}

/// A table of fields, by its name.
pub type Table<'a> = (&'a str, Vec<Field<'a>>);

/// The name of a table as a schema's: letters and digits.
fn schema_name(table: &str) -> String {
    let mut out = String::new();
    for word in table.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        let (first, rest) = word.split_at(1);
        out.push_str(&first.to_ascii_uppercase());
        out.push_str(rest);
    }
    // A table of documents and one of their parts may differ in case alone.
    if table.starts_with(|c: char| c.is_ascii_lowercase()) { format!("{out}Document") } else { out }
}

fn reference(table: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{}", schema_name(table)) })
}

fn type_of(kind: &str) -> Value {
    if let Some(kind) = kind.strip_suffix(" or null") {
        return json!({ "anyOf": [type_of(kind), { "type": "null" }] });
    }
    if let Some(kind) = kind.strip_prefix("list of ") {
        return json!({ "type": "array", "items": type_of(kind) });
    }
    match kind {
        "number" => json!({ "type": "number" }),
        "text" => json!({ "type": "string" }),
        "bool" => json!({ "type": "boolean" }),
        "any" => json!({}),
        table => reference(table),
    }
}

/// Documents have more fields in later versions, so others are let pass; a request's are not.
fn schema(fields: &[Field<'_>]) -> Value {
    let mut properties = Map::new();
    for field in fields {
        let mut kind = type_of(field.kind);
        if let Some(object) = kind.as_object_mut() {
            object.insert("description".to_owned(), field.meaning.into());
        }
        properties.insert(field.name.to_owned(), kind);
    }
    let required: Vec<&str> = fields.iter().filter(|field| !field.optional).map(|field| field.name).collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

fn arg_type(arg: &Arg) -> Value {
    let kind = match arg.kind {
        Kind::Number => json!({ "type": "integer", "minimum": 0 }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Choice(words) => json!({ "type": "string", "enum": words }),
        _ => json!({ "type": "string" }),
    };
    if arg.many { json!({ "type": "array", "items": kind }) } else { kind }
}

fn body(body: Body) -> Option<Value> {
    let schema = match body {
        Body::None => return None,
        Body::Document(table) => reference(table),
        Body::Fields(args) => {
            let properties: Map<String, Value> = args
                .iter()
                .map(|arg| {
                    let mut kind = arg_type(arg);
                    kind["description"] = arg.help.into();
                    (arg.name.to_owned(), kind)
                })
                .collect();
            let required: Vec<&str> = args.iter().filter(|arg| arg.required).map(|arg| arg.name).collect();
            json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
        }
    };
    Some(json!({ "required": true, "content": { "application/json": { "schema": schema } } }))
}

fn parameters(route: &Route) -> Vec<Value> {
    let in_path = route.parts().filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).map(|name| {
        let kind = if matches!(name, "point" | "job") { "integer" } else { "string" };
        json!({ "name": name, "in": "path", "required": true, "schema": { "type": kind } })
    });
    let in_query = route.query.iter().map(|arg| {
        json!({ "name": arg.name, "in": "query", "required": arg.required, "description": arg.help, "schema": arg_type(arg) })
    });
    let head = |name: &str, required: bool, help: &str| json!({ "name": name, "in": "header", "required": required, "description": help, "schema": { "type": "string" } });
    let guard = route.is_guarded.then(|| {
        head("If-Match", true, "The ETag that was read, or \"0\" for what is not there yet: a change of others meanwhile is not lost")
    });
    let key = (!route.method.is_safe()).then(|| {
        head("Idempotency-Key", false, "A text of the client's for this request: sent again within ten minutes, it is answered as before and not done twice")
    });
    in_path.chain(in_query).chain(guard).chain(key).collect()
}

fn answers(route: &Route) -> Value {
    let media = match route.what {
        What::Metrics => "text/plain",
        What::Events => "text/event-stream",
        _ => "application/json",
    };
    let schema = match route.reply {
        Reply::Document(table) => reference(table),
        Reply::Object => json!({ "type": "object" }),
        Reply::Other => json!({ "type": "string" }),
    };
    let problem = json!({ "$ref": "#/components/responses/Problem" });
    json!({
        route.status.to_string(): { "description": "done", "content": { media: { "schema": schema } } },
        "4XX": problem,
        "5XX": problem,
    })
}

/// The document, for a program of this version, with the tables of fields.
#[must_use]
pub fn openapi(version: &str, tables: &[Table<'_>]) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES.iter().filter(|route| !route.is_page()) {
        let Some(entry) = route.entry() else { continue };
        let mut operation = json!({
            "operationId": format!("{:?}", route.what),
            "summary": entry.help,
            "description": format!("The command `{}`; it needs the role {}.", entry.name, entry.role),
            "parameters": parameters(route),
            "responses": answers(route),
        });
        if let Some(body) = body(route.body) {
            operation["requestBody"] = body;
        }
        let path = paths.entry(route.path.to_owned()).or_insert_with(|| json!({}));
        path[route.method.name().to_ascii_lowercase()] = operation;
    }
    let mut schemas: Map<String, Value> =
        tables.iter().map(|(name, fields)| (schema_name(name), schema(fields))).collect();
    schemas.insert(
        "Problem".to_owned(),
        json!({
            "type": "object",
            "description": "RFC 9457, with a code that does not change: GET /v1/codes lists them",
            "properties": {
                "type": { "type": "string" },
                "title": { "type": "string" },
                "status": { "type": "integer" },
                "detail": { "type": "string" },
                "code": { "type": "string", "pattern": "^E[0-9]{4}$" },
                "help": { "type": "string" },
            },
            "required": ["type", "title", "status", "detail", "code"],
        }),
    );
    let problem =
        json!({ "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Windlass",
            "version": version,
            "description": "What people and programs may ask of a node. Documents are those that the command line prints with --json.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": { "Problem": { "description": "not done, and why", "content": problem } },
            "securitySchemes": { "certificate": { "type": "mutualTLS" } },
        },
        "security": [{ "certificate": [] }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_and_every_reference_leads_somewhere() {
        let field = |kind| Field { name: "f", kind, optional: false, meaning: "m" };
        let names = ROUTES.iter().flat_map(|route| {
            let body = if let Body::Document(table) = route.body { Some(table) } else { None };
            let reply = if let Reply::Document(table) = route.reply { Some(table) } else { None };
            body.into_iter().chain(reply)
        });
        let tables: Vec<Table<'_>> = names.map(|name| (name, vec![field("list of text or null")])).collect();
        let document = openapi("1", &tables);
        let mut count = 0;
        for route in ROUTES.iter().filter(|route| !route.is_page()) {
            let operation = &document["paths"][route.path][route.method.name().to_ascii_lowercase()];
            assert!(operation["responses"][route.status.to_string()].is_object(), "{}", route.path);
            count += 1;
        }
        assert!(count > 25, "{count}");
        let text = document.to_string();
        for part in text.split("\"#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
        assert_eq!(schema_name("backup through an agent: begun"), "BackupThroughAnAgentBegunDocument");
        assert_eq!(
            (schema_name("Policy"), schema_name("policy set")),
            ("Policy".to_owned(), "PolicySetDocument".to_owned())
        );
    }
}
