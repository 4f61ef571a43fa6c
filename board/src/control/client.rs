//! The command's side of the socket: one request, one answer, blocking.
//!
//! | while no answer comes | what is said |
//! |---|---|
//! | [`WORD_AFTER`], and no node coordinates | that the command waits, and why: in the words of `status` |
//! | the same, and one does | that it has the command |
//! | the agent answers nothing at all | that it is stopped or stuck |
//! | the agent ends | the command ends at once, and says so |
//! | a signal, where the command listens for it | the command ends; the agent takes back what no coordinator has |
//!
//! Source: ours.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use windlass_agent::backplane::message::SUBMIT_BYTES_MAX;
use windlass_agent::format::record::Record;
use windlass_agent::work::{Command, Reply};

use super::wire::{Answer, Identity, LINE_BYTES_MAX, Request};
use crate::engine::commit::Coordinator;
use crate::engine::host::HostClock;
use crate::failure::Failure;
use crate::profile::SOCKET_DEFAULT;
use crate::repeats::without_numbers;
use crate::{logger, signal, text};

/// How long an answer may take: a coordinator that died is replaced within two lease times, and then there is a commit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
/// How long an agent may take to say who it is, which it does at once: one that is stopped or stuck takes connections and says nothing.
const IDENTIFY_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an answer is waited for in silence: longer than a commit to a store that is well takes, and short for a person.
const WORD_AFTER: Duration = Duration::from_millis(1500);
/// The same for a status, which costs no commit: a coordinator that is dead is known to be within six seconds.
const STATUS_WORD_AFTER: Duration = Duration::from_secs(5);
/// How often signals are looked for meanwhile.
const TURN: Duration = Duration::from_millis(250);

/// An agent that listens.
pub struct Agent {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

/// What was said of a wait: without its numbers, so that nothing is said twice.
#[derive(Default)]
struct Told(String);

impl Told {
    fn say(&mut self, line: &str) {
        let kind = without_numbers(line);
        if kind != self.0 {
            logger::say(format_args!("windlass: {}", text::printable(line.as_bytes())));
            self.0 = kind;
        }
    }
}

impl Agent {
    /// Connects. `None` when nobody listens at the default path; at one that was given that is a failure.
    pub fn find(given: Option<&Path>) -> Result<Option<Agent>, Failure> {
        let path = given.unwrap_or(Path::new(SOCKET_DEFAULT));
        match (UnixStream::connect(path), given) {
            (Ok(stream), _) => Ok(Some(Agent::new(stream, path))),
            (Err(error), None) => {
                if error.kind() == ErrorKind::PermissionDenied {
                    log::info!("control: an agent runs here, but not for this user path={}", path.display());
                }
                Ok(None)
            }
            (Err(error), Some(_)) => Err(Failure::at(
                path.display(),
                format_args!("{error}; start `windlass agent`, or say --alone"),
            )),
        }
    }

    /// Connects, and fails when nobody listens or answers.
    pub fn required(given: Option<&Path>) -> Result<Agent, Failure> {
        let mut agent = Agent::find(given)?.ok_or_else(|| {
            Failure::at(SOCKET_DEFAULT, "no agent listens here; start `windlass agent`, or give its --socket")
        })?;
        agent.identify()?;
        Ok(agent)
    }

    fn new(stream: UnixStream, path: &Path) -> Agent {
        Agent { stream: BufReader::new(stream), path: path.to_owned() }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks, and waits for the answer; says what it waits for.
    pub fn ask(&mut self, request: &Request) -> Result<Answer, Failure> {
        self.ask_within(request, ANSWER_TIMEOUT, true)
    }

    fn ask_within(&mut self, request: &Request, timeout: Duration, is_told: bool) -> Result<Answer, Failure> {
        let begun_ns = HostClock.boot_ns();
        let failed = |error| Failure::at(self.path.display(), error);
        self.stream.get_ref().set_read_timeout(Some(TURN)).map_err(failed)?;
        self.stream.get_ref().set_write_timeout(Some(timeout)).map_err(failed)?;
        let mut line = request.emit();
        line.push('\n');
        // An agent that refuses a client says so and hangs up, whether or not it was written to.
        let written = self.stream.get_ref().write_all(line.as_bytes());
        let is_status = *request == Request::Command(Command::Status);
        let mut word_after = if is_status { STATUS_WORD_AFTER } else { WORD_AFTER };
        let (mut answer, mut told) = (Vec::new(), Told::default());
        loop {
            let room = (LINE_BYTES_MAX + 1).saturating_sub(answer.len());
            let read = (&mut self.stream).take(room as u64).read_until(b'\n', &mut answer);
            if answer.pop_if(|byte| *byte == b'\n').is_some() {
                return Answer::parse(&answer).map_err(|why| Failure::at(self.path.display(), why));
            }
            let waited = Duration::from_nanos(HostClock.boot_ns().saturating_sub(begun_ns));
            match read.as_ref().map_err(std::io::Error::kind) {
                Err(ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
                    if written.is_ok() && waited < timeout =>
                {
                    if is_told && signal::is_asked() {
                        return Err(Failure::new(
                            "ended; the agent takes the command back, unless a coordinator has it: then it is carried out, and \
                             `windlass status` shows that",
                        ));
                    }
                    if is_told && waited >= word_after {
                        word_after = waited + WORD_AFTER;
                        self.tell_why(request, waited, &mut told);
                    }
                }
                Err(ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(Failure::at(
                        self.path.display(),
                        format_args!(
                            "the agent does not answer (waited {} s); is it stopped, or stuck?",
                            waited.as_secs()
                        ),
                    ));
                }
                _ => return Err(self.ended(request)),
            }
        }
    }

    /// The agent closed the connection, or its process ended, in the middle.
    fn ended(&self, request: &Request) -> Failure {
        let fate = match request {
            Request::Identify | Request::Lines(_) | Request::Command(Command::Status) => "",
            Request::Command(_) => {
                "; whether the command was carried out is not known: `windlass status` of another node, or of this one when its agent \
                 runs again, shows it"
            }
        };
        Failure::at(
            self.path.display(),
            format_args!("the agent of this node ended before it answered{fate}; start `windlass agent`"),
        )
    }

    /// Says what a request waits for. A second connection asks: the first one waits.
    fn tell_why(&self, request: &Request, waited: Duration, told: &mut Told) {
        let Ok(Some(mut other)) = Agent::find(Some(&self.path)) else { return };
        if other.identify().is_err() {
            return told.say("the agent of this node does not answer; is it stopped, or stuck?");
        }
        if *request == Request::Command(Command::Status) {
            return told.say(
                "the coordinator does not answer; another is looked for when it is not heard for a while",
            );
        }
        let status = other.ask_within(&Request::Command(Command::Status), IDENTIFY_TIMEOUT, false);
        let Ok(Answer::Reply(Reply::Status(json))) = status else { return };
        let Ok(status) = serde_json::from_str::<Value>(&json) else { return };
        let coordinator = &status["coordinator"];
        match (coordinator["node"].as_u64(), coordinator["why"].as_str()) {
            (None, why) => {
                let why = why.unwrap_or("this node takes the repository's lock");
                told.say(&format!("waiting for a coordinator: {why}"));
            }
            (Some(node), _) if waited >= 3 * WORD_AFTER => {
                let store = status["store"]["why"].as_str();
                let store = store.map_or_else(String::new, |why| format!("; the store fails it: {why}"));
                told.say(&format!(
                    "node {node} coordinates and has the command; waiting for its answer{store}"
                ));
            }
            (Some(_), _) => {}
        }
    }

    /// Gives a command to the coordinator. A refusal is a failure.
    pub fn command(&mut self, command: Command) -> Result<Reply, Failure> {
        match self.ask(&Request::Command(command))? {
            Answer::Reply(Reply::Refused(why)) => Err(Failure::new(why)),
            Answer::Reply(reply) => Ok(reply),
            Answer::Identity(_) | Answer::Lines(..) => Err(self.confused()),
        }
    }

    /// Who it is.
    pub fn identify(&mut self) -> Result<Identity, Failure> {
        match self.ask_within(&Request::Identify, IDENTIFY_TIMEOUT, false)? {
            Answer::Identity(identity) => Ok(*identity),
            Answer::Reply(Reply::Refused(why)) => Err(Failure::new(why)),
            Answer::Reply(_) | Answer::Lines(..) => Err(self.confused()),
        }
    }

    /// The last lines that it said, after the one of a number, and the number of the newest.
    pub fn lines(&mut self, after: u64) -> Result<(Vec<String>, u64), Failure> {
        match self.ask_within(&Request::Lines(after), IDENTIFY_TIMEOUT, false)? {
            Answer::Lines(lines, last) => Ok((lines, last)),
            Answer::Reply(Reply::Refused(why)) => Err(Failure::new(why)),
            Answer::Reply(_) | Answer::Identity(_) => Err(self.confused()),
        }
    }

    /// What the cluster does, as JSON.
    pub fn status(&mut self) -> Result<String, Failure> {
        match self.command(Command::Status)? {
            Reply::Status(json) => Ok(json),
            Reply::Done(_) | Reply::Refused(_) => Err(self.confused()),
        }
    }

    fn confused(&self) -> Failure {
        Failure::at(self.path.display(), "the agent answered something else; is it of another version?")
    }
}

const _: () = assert!(SUBMIT_BYTES_MAX < LINE_BYTES_MAX);

impl Coordinator for Agent {
    fn submit(&mut self, records: Vec<Record>) -> Result<(), Failure> {
        self.command(Command::Submit(records)).map(drop)
    }
}
