//! A [`Command`] as the name of a request with named values, as the table of commands has them, and back: one form for the control
//! socket today, and for whatever else takes requests.
//!
//! Invariants: [`parse`] refuses what the table does not have: another name, a field that is missing, unknown or of another type.
//! Does not: know JSON; the face says what a value is. Source: ours.

use std::fmt;

use super::Command;
use super::entry::{Arg, Ask, Entry, Kind};
use super::table;
use crate::backplane::message::SUBMIT_BYTES_MAX;
use crate::format::cursor::WireFault;
use crate::format::garbage::GarbageNews;
use crate::format::guard::GuardPart;
use crate::format::mark::MarkPart;
use crate::format::record::{Record, parse_records};
use crate::format::removal::RemovalNews;
use crate::id::NodeId;

/// A value of a request's field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of [`Kind::Text`].
    Text(String),
    /// Of [`Kind::Number`].
    Number(u64),
    /// Of [`Kind::Hex`].
    Bytes(Vec<u8>),
}

/// Why something is no request. `Display` names the field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestFault {
    /// There is no request of this name.
    Name(String),
    /// It has no such field.
    Unknown(String),
    /// This field is missing.
    Missing(&'static str),
    /// This field has a value of another type than this, or one that is out of range.
    Type(&'static str, Kind),
    /// This field is longer than so many bytes.
    Long(&'static str, usize),
    /// The records in this field cannot be read.
    Records(&'static str, WireFault),
}

impl fmt::Display for RequestFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestFault::Name(name) => {
                let names: Vec<_> = table::all().filter_map(|entry| entry.ask.map(|ask| ask.name)).collect();
                write!(f, "no request {name:?}; there is {}", names.join(", "))
            }
            RequestFault::Unknown(field) => write!(f, "the request has no field {field:?}"),
            RequestFault::Missing(field) => write!(f, "the field {field} is missing"),
            RequestFault::Type(field, kind) => write!(f, "{field}: {}", kind.expected()),
            RequestFault::Long(field, max) => write!(f, "{field}: longer than {max} bytes"),
            RequestFault::Records(field, fault) => write!(f, "{field}: {fault}"),
        }
    }
}

impl std::error::Error for RequestFault {}

/// The request of a name. `identify` and `lines` are some too, but no [`Command`]: they do not reach the coordinator.
pub fn find(name: &str) -> Result<&'static Ask, RequestFault> {
    table::find_ask(name).map(|(_, ask)| ask).ok_or_else(|| RequestFault::Name(name.to_owned()))
}

/// The name and the values of a command, in the order of the table.
#[must_use]
pub fn emit(command: &Command) -> (&'static str, Vec<(&'static str, Value)>) {
    match command {
        Command::Status => ("status", vec![]),
        Command::Backup(policy) => ("backup", vec![("policy", Value::Text(policy.clone()))]),
        Command::Stop(policy) => ("stop", vec![("policy", Value::Text(policy.clone()))]),
        Command::Move(node) => ("move", vec![("node", Value::Number(u64::from(node.0)))]),
        Command::Flush => ("flush", vec![]),
        // The agent knows who asks from the kernel, and believes no one.
        Command::As { command, .. } => emit(command),
        Command::Submit(records) => {
            let mut bytes = Vec::new();
            records.iter().for_each(|record| record.emit(&mut bytes));
            ("submit", vec![("records", Value::Bytes(bytes))])
        }
    }
}

/// The command that a request asks for; `None` for what an agent answers itself. `fields` are all that it has.
pub fn parse(name: &str, fields: Vec<(String, Value)>) -> Result<Option<Command>, RequestFault> {
    let ask = find(name)?;
    let mut given = Given { ask, fields };
    if let Some((field, _)) =
        given.fields.iter().find(|(field, _)| ask.args.iter().all(|arg| arg.name != field))
    {
        return Err(RequestFault::Unknown(field.clone()));
    }
    Ok(Some(match ask.name {
        "status" => Command::Status,
        "backup" => Command::Backup(given.text("policy")?),
        "stop" => Command::Stop(given.text("policy")?),
        "move" => Command::Move(NodeId(given.number("node")?)),
        "flush" => Command::Flush,
        "submit" => Command::Submit(given.records("records")?),
        _ => return Ok(None),
    }))
}

/// The fields of a request.
struct Given {
    ask: &'static Ask,
    fields: Vec<(String, Value)>,
}

impl Given {
    fn take(&mut self, name: &'static str) -> Result<Value, RequestFault> {
        let place = self.fields.iter().position(|(field, _)| field == name);
        place.map(|place| self.fields.swap_remove(place).1).ok_or(RequestFault::Missing(name))
    }

    fn wrong(&self, name: &'static str) -> RequestFault {
        let arg: Option<&Arg> = self.ask.args.iter().find(|arg| arg.name == name);
        RequestFault::Type(name, arg.map_or(Kind::Text, |arg| arg.kind))
    }

    fn text(&mut self, name: &'static str) -> Result<String, RequestFault> {
        match self.take(name)? {
            Value::Text(text) => Ok(text),
            Value::Number(_) | Value::Bytes(_) => Err(self.wrong(name)),
        }
    }

    fn number(&mut self, name: &'static str) -> Result<u32, RequestFault> {
        match self.take(name)? {
            Value::Number(number) => u32::try_from(number).map_err(|_| self.wrong(name)),
            Value::Text(_) | Value::Bytes(_) => Err(self.wrong(name)),
        }
    }

    fn records(&mut self, name: &'static str) -> Result<Vec<Record>, RequestFault> {
        match self.take(name)? {
            Value::Bytes(bytes) if bytes.len() > SUBMIT_BYTES_MAX => {
                Err(RequestFault::Long(name, SUBMIT_BYTES_MAX))
            }
            Value::Bytes(bytes) => parse_records(&bytes).map_err(|fault| RequestFault::Records(name, fault)),
            Value::Text(_) | Value::Number(_) => Err(self.wrong(name)),
        }
    }
}

impl Command {
    /// The entries of the table that this does, without repeats: what it needs of a subject, and what it is recorded as. Those of a
    /// submission are the commands that make such records; `submit` itself for records that no command makes.
    #[must_use]
    pub fn entries(&self) -> Vec<&'static Entry> {
        let mut names: Vec<&str> = match self {
            Command::Status => vec!["status"],
            Command::Backup(_) => vec!["backup"],
            Command::Stop(_) => vec!["stop"],
            Command::Move(_) => vec!["coordinator move"],
            Command::Flush => vec!["flush"],
            Command::As { command, .. } => return command.entries(),
            Command::Submit(records) => records.iter().map(command_of).collect(),
        };
        names.sort_unstable();
        names.dedup();
        names.into_iter().filter_map(table::find).collect()
    }
}

/// The entry of the command that makes such a record.
#[must_use]
pub fn entry_of(record: &Record) -> Option<&'static Entry> {
    table::find(command_of(record))
}

/// The command that makes such a record.
fn command_of(record: &Record) -> &'static str {
    match record {
        Record::PolicyChanged(_) => "policy set",
        Record::PolicyRemoved { .. } => "policy delete",
        Record::PolicyRenamed { .. } => "policy rename",
        Record::PointExpired { .. } => "point expire",
        Record::PointGuarded(guard) => match guard.part {
            GuardPart::Guard(_) => "policy set",
            GuardPart::Leave { .. } => "point expire",
            GuardPart::Undo => "point undo",
        },
        Record::Access(_) => "role grant",
        Record::Removal(RemovalNews::Asked(asked)) => {
            asked.records.first().map_or("point expire", command_of)
        }
        Record::Removal(RemovalNews::Approved { .. }) => "removal approve",
        Record::Removal(RemovalNews::Withdrawn { .. }) => "removal withdraw",
        Record::LeaseSet { .. } => "repo set",
        Record::Damage(_) | Record::Swept(_) => "check",
        // A reader of points may hold the tables meanwhile.
        Record::Pin { .. } | Record::PinRefreshed { .. } | Record::Unpin { .. } => "check",
        Record::Garbage(GarbageNews::Settings(_)) => "repo set",
        Record::Garbage(_) => "gc",
        Record::PointMarked(mark) => match &mark.part {
            MarkPart::Hold(why) if why.is_empty() => "point release",
            MarkPart::Hold(_) => "point hold",
            MarkPart::Note(_) => "point note",
            MarkPart::Tags(_) => "point tag",
        },
        _ => "submit",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::mark::PointMark;
    use crate::id::BackupId;

    fn hold(why: &str) -> Record {
        let part = MarkPart::Hold(why.to_owned());
        Record::PointMarked(PointMark { backup: BackupId(3), part })
    }

    #[test]
    fn every_request_of_the_table_is_a_command_and_comes_back() {
        let commands = [
            Command::Status,
            Command::Backup("home".to_owned()),
            Command::Stop("home".to_owned()),
            Command::Move(NodeId(9)),
            Command::Flush,
            Command::Submit(vec![hold("x")]),
        ];
        // Those that an agent answers itself are no commands.
        let own = ["identify", "lines"];
        let asks: Vec<_> =
            table::all().filter_map(|entry| entry.ask).filter(|ask| !own.contains(&ask.name)).collect();
        assert_eq!(asks.len(), commands.len());
        for command in commands {
            let (name, values) = emit(&command);
            let fields: Vec<_> = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let ask = find(name).unwrap();
            assert_eq!(
                ask.args.iter().map(|arg| arg.name).collect::<Vec<_>>(),
                fields.iter().map(|f| f.0.as_str()).collect::<Vec<_>>()
            );
            assert!(!command.entries().is_empty());
            assert_eq!(parse(name, fields), Ok(Some(command)));
        }
        assert_eq!(parse("identify", vec![]), Ok(None));
    }

    #[test]
    fn what_the_table_does_not_have_is_refused_by_name() {
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(parse("reboot", vec![]), Err(RequestFault::Name("reboot".to_owned())));
        assert!(parse("reboot", vec![]).unwrap_err().to_string().contains("backup"));
        assert_eq!(parse("backup", vec![]), Err(RequestFault::Missing("policy")));
        let wrong = |field: &str, value| parse("move", vec![(field.to_owned(), value)]);
        assert_eq!(wrong("node", text("1")), Err(RequestFault::Type("node", Kind::Number)));
        assert_eq!(wrong("node", Value::Number(1 << 32)), Err(RequestFault::Type("node", Kind::Number)));
        assert_eq!(wrong("to", text("1")), Err(RequestFault::Unknown("to".to_owned())));
        let submit = |bytes| parse("submit", vec![("records".to_owned(), Value::Bytes(bytes))]);
        assert!(matches!(submit(vec![255]), Err(RequestFault::Records("records", _))));
        assert_eq!(
            submit(vec![0; SUBMIT_BYTES_MAX + 1]),
            Err(RequestFault::Long("records", SUBMIT_BYTES_MAX))
        );
    }

    #[test]
    fn records_need_what_their_commands_need() {
        let names =
            |records| Command::Submit(records).entries().iter().map(|entry| entry.name).collect::<Vec<_>>();
        assert_eq!(names(vec![hold("x"), hold(""), hold("y")]), ["point hold", "point release"]);
        assert_eq!(names(vec![Record::PointExpired { backup: BackupId(3) }]), ["point expire"]);
        assert_eq!(names(vec![Record::LeaseSet { lease_ns: 1 }]), ["repo set"]);
    }
}
