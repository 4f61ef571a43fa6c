//! Requests and answers as lines of JSON.
//!
//! | request | answer |
//! |---|---|
//! | `{"ask":"identify"}` | `{"answer":"identity","node":1,"repository":"s3://...",...}` |
//! | `{"ask":"status"}` | `{"answer":"status","status":{...}}` |
//! | `{"ask":"backup","policy":"home"}` | `{"answer":"done","backup":9}` |
//! | `{"ask":"stop","policy":"home"}` | `{"answer":"done","backup":null}` |
//! | `{"ask":"move","node":2}` | the same |
//! | `{"ask":"submit","records":"<hex of the log's own encoding>"}` | the same |
//! | `{"ask":"lines","after":7}` | `{"answer":"lines","lines":[...],"last":9}` |
//! | any | `{"answer":"refused","why":"..."}` |
//!
//! Which requests there are, and their fields, is in the table of commands (`windlass_agent::work::table`); this table is for readers.
//!
//! Invariants: one line is one value, at most [`LINE_BYTES_MAX`]; unknown fields are refused. Source: ours.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use windlass_agent::backplane::message::SUBMIT_BYTES_MAX;
use windlass_agent::id::BackupId;
use windlass_agent::work::entry::{Ask, Kind};
use windlass_agent::work::request::{self, RequestFault};
use windlass_agent::work::{Command, Reply};

use crate::cli::args::global::Global;
use crate::text;

/// Bytes of a line without its end: the largest submission in hex, and a little.
pub const LINE_BYTES_MAX: usize = 2 * SUBMIT_BYTES_MAX + 1024;

/// The requests that the agent answers itself.
const IDENTIFY: &str = "identify";
/// See [`Request::Lines`].
const LINES: &str = "lines";

/// What is asked of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Who are you, and which repository is yours?
    Identify,
    /// What did you say last? Lines after the one of this number.
    Lines(u64),
    /// For the coordinator.
    Command(Command),
}

/// What the agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Who it is.
    Identity(Box<Identity>),
    /// Lines of its log, and the number of the newest.
    Lines(Vec<String>, u64),
    /// What the coordinator says.
    Reply(Reply),
}

/// Who an agent is: what a command needs to use the same repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number.
    pub node: u32,
    /// For people.
    pub name: String,
    /// URL of the repository.
    pub repository: String,
    /// File with its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// File with its passphrase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase_file: Option<PathBuf>,
    /// S3 server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// S3 region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Its CA certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// File with access keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    /// Which keys in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_profile: Option<String>,
    /// Bucket in the path.
    #[serde(default)]
    pub path_style: bool,
    /// Where its log and lease are, when that is another store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_store: Option<String>,
    /// CA certificates of that store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ca_file: Option<PathBuf>,
    /// Certificate to show to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_cert_file: Option<PathBuf>,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_cert_key_file: Option<PathBuf>,
    /// Its volumes: what policies call them, and the device.
    #[serde(default)]
    pub volumes: Vec<(String, PathBuf)>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "lowercase")]
enum AnswerLine {
    Identity(Box<Identity>),
    Status { status: Value },
    Done { backup: Option<u32> },
    Refused { why: String },
    Lines { lines: Vec<String>, last: u64 },
}

impl Identity {
    /// The options of a command that uses this repository: what they say themselves stays.
    pub fn fill(&self, global: &mut Global) {
        fn put<T: Clone>(option: &mut Option<T>, ours: &Option<T>) {
            if option.is_none() {
                option.clone_from(ours);
            }
        }
        if global.key_file.is_none() && global.passphrase_file.is_none() {
            put(&mut global.key_file, &self.key_file);
            put(&mut global.passphrase_file, &self.passphrase_file);
        }
        put(&mut global.repo, &Some(self.repository.clone()).filter(|url| !url.is_empty()));
        put(&mut global.endpoint, &self.endpoint);
        put(&mut global.region, &self.region);
        put(&mut global.ca_file, &self.ca_file);
        put(&mut global.credentials_file, &self.credentials_file);
        put(&mut global.profile, &self.credentials_profile);
        global.path_style |= self.path_style;
        put(&mut global.lease_store, &self.lease_store);
        put(&mut global.lease_ca_file, &self.lease_ca_file);
        put(&mut global.lease_cert_file, &self.lease_cert_file);
        put(&mut global.lease_cert_key_file, &self.lease_cert_key_file);
    }

    /// Whether a URL names this agent's repository.
    pub fn is_of(&self, url: &str) -> bool {
        self.repository.trim_end_matches('/') == url.trim_end_matches('/')
    }
}

impl Request {
    /// One line, without its end.
    pub fn emit(&self) -> String {
        let (name, values) = match self {
            Request::Identify => (IDENTIFY, Vec::new()),
            Request::Lines(after) => (LINES, vec![("after", request::Value::Number(*after))]),
            Request::Command(command) => request::emit(command),
        };
        let fields = values.into_iter().map(|(field, value)| {
            let value = match value {
                request::Value::Text(text) => Value::from(text),
                request::Value::Number(number) => Value::from(number),
                request::Value::Bytes(bytes) => Value::from(text::hex(&bytes)),
            };
            (field.to_owned(), value)
        });
        let name = ("ask".to_owned(), Value::from(name));
        emit(&std::iter::once(name).chain(fields).collect::<Map<_, _>>())
    }

    /// Reads a line. Errors: what is wrong with it, for the one who wrote it.
    pub fn parse(line: &[u8]) -> Result<Request, String> {
        let mut fields: Map<String, Value> =
            serde_json::from_slice(line).map_err(|error| format!("not a request: {error}"))?;
        let Some(Value::String(name)) = fields.remove("ask") else {
            return Err("not a request: the field ask is missing, or no text".to_owned());
        };
        let ask = request::find(&name).map_err(|fault| fault.to_string())?;
        let fields = fields.into_iter().map(|(field, value)| {
            let value = value_of(ask, &field, value)?;
            Ok((field, value))
        });
        let fields = fields.collect::<Result<Vec<_>, RequestFault>>().map_err(|fault| fault.to_string())?;
        if name == LINES {
            let [(_, request::Value::Number(after))] = fields[..] else {
                return Err(RequestFault::Missing("after").to_string());
            };
            return Ok(Request::Lines(after));
        }
        let command = request::parse(&name, fields).map_err(|fault| fault.to_string())?;
        Ok(command.map_or(Request::Identify, Request::Command))
    }
}

/// The value of a field, by the type that the table of commands gives it.
fn value_of(ask: &Ask, field: &str, value: Value) -> Result<request::Value, RequestFault> {
    let arg = ask.args.iter().find(|arg| arg.name == field);
    let arg = arg.ok_or_else(|| RequestFault::Unknown(field.to_owned()))?;
    let of_kind = match (arg.kind, value) {
        (Kind::Hex, Value::String(hex)) if hex.len() > 2 * SUBMIT_BYTES_MAX => {
            return Err(RequestFault::Long(arg.name, SUBMIT_BYTES_MAX));
        }
        (Kind::Hex, Value::String(hex)) => text::unhex(&hex).map(request::Value::Bytes),
        (Kind::Number, Value::Number(number)) => number.as_u64().map(request::Value::Number),
        (Kind::Text, Value::String(text)) => Some(request::Value::Text(text)),
        _ => None,
    };
    of_kind.ok_or(RequestFault::Type(arg.name, arg.kind))
}

impl Answer {
    /// Not done, and why.
    pub fn refused(why: impl std::fmt::Display) -> Answer {
        Answer::Reply(Reply::Refused(why.to_string()))
    }

    /// One line, without its end.
    pub fn emit(&self) -> String {
        let line = match self {
            Answer::Identity(identity) => AnswerLine::Identity(identity.clone()),
            Answer::Lines(lines, last) => AnswerLine::Lines { lines: lines.clone(), last: *last },
            Answer::Reply(Reply::Done(backup)) => AnswerLine::Done { backup: backup.map(|id| id.0) },
            Answer::Reply(Reply::Refused(why)) => AnswerLine::Refused { why: why.clone() },
            Answer::Reply(Reply::Status(json)) => match serde_json::from_str(json) {
                Ok(status) => AnswerLine::Status { status },
                Err(error) => {
                    AnswerLine::Refused { why: format!("the coordinator's status is no JSON: {error}") }
                }
            },
        };
        emit(&line)
    }

    /// Reads a line. Errors: what is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Answer, String> {
        let line: AnswerLine = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        Ok(match line {
            AnswerLine::Identity(identity) => Answer::Identity(identity),
            AnswerLine::Lines { lines, last } => Answer::Lines(lines, last),
            AnswerLine::Status { status } => Answer::Reply(Reply::Status(status.to_string())),
            AnswerLine::Done { backup } => Answer::Reply(Reply::Done(backup.map(BackupId))),
            AnswerLine::Refused { why } => Answer::Reply(Reply::Refused(why)),
        })
    }
}

/// Lines are plain data with string keys: they always have a JSON form.
fn emit(line: &impl Serialize) -> String {
    serde_json::to_string(line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_agent::format::record::Record;
    use windlass_agent::id::NodeId;

    #[test]
    fn every_request_and_answer_comes_back_as_it_was() {
        let removed = Record::PolicyRemoved { name: "home".to_owned(), revision: 2 };
        for request in [
            Request::Identify,
            Request::Lines(7),
            Request::Command(Command::Status),
            Request::Command(Command::Backup("home".to_owned())),
            Request::Command(Command::Stop("home".to_owned())),
            Request::Command(Command::Move(NodeId(65_535))),
            Request::Command(Command::Flush),
            Request::Command(Command::Submit(vec![removed.clone(), removed])),
        ] {
            let line = request.emit();
            assert!(!line.contains('\n') && !line.is_empty());
            assert_eq!(Request::parse(line.as_bytes()), Ok(request));
        }
        let identity = Identity {
            node: 3,
            repository: "file:///srv".to_owned(),
            volumes: vec![("home".to_owned(), "/dev/x".into())],
            ..Identity::default()
        };
        for answer in [
            Answer::Identity(Box::new(identity)),
            Answer::Lines(vec!["warn: a\nb".to_owned()], 9),
            Answer::Reply(Reply::Status("{\"node\":1}".to_owned())),
            Answer::Reply(Reply::Done(Some(BackupId(9)))),
            Answer::Reply(Reply::Done(None)),
            Answer::refused("no\nand why"),
        ] {
            let line = answer.emit();
            assert!(!line.contains('\n'));
            assert_eq!(Answer::parse(line.as_bytes()), Ok(answer));
        }
    }

    #[test]
    fn what_is_no_request_is_refused_with_a_reason() {
        for wrong in [
            "",
            "{}",
            "[]",
            "status",
            r#"{"ask":"reboot"}"#,
            r#"{"ask":"status","and":1}"#,
            r#"{"ask":"backup"}"#,
            r#"{"ask":"move","node":-1}"#,
            r#"{"ask":"submit","records":"0"}"#,
            r#"{"ask":"submit","records":"+1+1"}"#,
            r#"{"ask":"submit","records":"ffff"}"#,
            r#"{"ask":"submit","records":""}"#,
            "{\"ask\":\"submit\",\"records\":\"\u{e4}\"}",
        ] {
            assert!(Request::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let cut = Answer::Reply(Reply::Status("{\"node\":".to_owned()));
        assert!(cut.emit().contains("refused"));
    }
}
