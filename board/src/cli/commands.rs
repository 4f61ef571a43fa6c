//! `commands`: the table of commands, for people and programs. Source: ours.

use serde_json::{Value, json};
use windlass_agent::work::entry::{Arg, Document, Entry, Kind, Place};
use windlass_agent::work::table;

use crate::cli::output::{Align, Output};
use crate::failure::{Exit, Failure};
use crate::schema::Schema;

/// `commands`.
pub fn run(output: &Output) -> Result<Exit, Failure> {
    let heads =
        [("COMMAND", Align::Left), ("ROLE", Align::Left), ("AGENT", Align::Left), ("DOES", Align::Left)];
    let typed = table::all().filter(|entry| entry.place != Place::Socket);
    let row = |entry: &Entry| {
        [entry.name, entry.role.name(), entry.place.name(), entry.help].map(str::to_owned).to_vec()
    };
    output.table(&heads, &typed.map(row).collect::<Vec<_>>());
    let schema = Schema::read();
    let commands: Vec<Value> = table::all().map(command).collect();
    let tables: serde_json::Map<_, _> = schema.tables().map(|(name, fields)| {
        let fields: Vec<Value> = fields.iter().map(|field| {
            json!({ "name": field.name, "type": field.kind, "optional": field.optional, "meaning": field.meaning })
        }).collect();
        (name.to_owned(), Value::from(fields))
    }).collect();
    output.document(&json!({ "commands": commands, "tables": tables }));
    Ok(Exit::Done)
}

fn command(entry: &Entry) -> Value {
    json!({
        "name": entry.name,
        "help": entry.help,
        "role": entry.role.name(),
        "agent": entry.place.name(),
        "changes": entry.changes,
        "request": entry.ask.map(|ask| json!({ "name": ask.name, "fields": args(ask.args) })),
        "arguments": args(entry.args),
        "documents": entry.documents.iter().map(document).collect::<Vec<_>>(),
    })
}

fn args(args: &[Arg]) -> Vec<Value> {
    let one = |arg: &Arg| {
        let words = if let Kind::Choice(words) = arg.kind { words } else { &[] };
        json!({
            "name": arg.name, "type": arg.kind.name(), "words": words, "help": arg.help,
            "positional": arg.positional, "required": arg.required, "many": arg.many,
        })
    };
    args.iter().map(one).collect()
}

fn document(document: &Document) -> Value {
    json!({ "event": Some(document.event).filter(|event| !event.is_empty()), "table": document.schema })
}
