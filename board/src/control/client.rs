//! The command's side of the socket: one request, one answer, blocking.
//!
//! Source: ours.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use windlass_agent::backplane::message::SUBMIT_BYTES_MAX;
use windlass_agent::format::record::Record;
use windlass_agent::work::{Command, Reply};

use super::wire::{Answer, Identity, LINE_BYTES_MAX, Request};
use crate::engine::commit::Coordinator;
use crate::failure::Failure;
use crate::profile::SOCKET_DEFAULT;

/// How long an answer may take: a coordinator that died is replaced within two lease times, and then there is a commit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);

/// How long an agent may take to say who it is, which it does at once: one that is stopped or stuck takes connections and says nothing.
const IDENTIFY_TIMEOUT: Duration = Duration::from_secs(3);

/// An agent that listens.
pub struct Agent {
    stream: BufReader<UnixStream>,
    path: PathBuf,
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

    /// Asks, and waits for the answer.
    pub fn ask(&mut self, request: &Request) -> Result<Answer, Failure> {
        self.ask_within(request, ANSWER_TIMEOUT)
    }

    fn ask_within(&mut self, request: &Request, timeout: Duration) -> Result<Answer, Failure> {
        let failed = |error| Failure::at(self.path.display(), error);
        self.stream.get_ref().set_read_timeout(Some(timeout)).map_err(failed)?;
        self.stream.get_ref().set_write_timeout(Some(timeout)).map_err(failed)?;
        let mut line = request.emit();
        line.push('\n');
        let written = self.stream.get_ref().write_all(line.as_bytes());
        let mut answer = Vec::new();
        let read = (&mut self.stream).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut answer);
        // An agent that refuses a client says so and hangs up, whether or not it was written to.
        if answer.pop_if(|byte| *byte == b'\n').is_none() {
            let why = match read.and(written) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    format!(
                        "the agent does not answer (waited {} s); is it stopped, or stuck?",
                        timeout.as_secs()
                    )
                }
                Err(error) => error.to_string(),
                Ok(()) => "the agent hung up".to_owned(),
            };
            return Err(Failure::at(self.path.display(), why));
        }
        Answer::parse(&answer).map_err(|why| Failure::at(self.path.display(), why))
    }

    /// Gives a command to the coordinator. A refusal is a failure.
    pub fn command(&mut self, command: Command) -> Result<Reply, Failure> {
        match self.ask(&Request::Command(command))? {
            Answer::Reply(Reply::Refused(why)) => Err(Failure::new(why)),
            Answer::Reply(reply) => Ok(reply),
            Answer::Identity(_) => Err(self.confused()),
        }
    }

    /// Who it is.
    pub fn identify(&mut self) -> Result<Identity, Failure> {
        match self.ask_within(&Request::Identify, IDENTIFY_TIMEOUT)? {
            Answer::Identity(identity) => Ok(*identity),
            Answer::Reply(Reply::Refused(why)) => Err(Failure::new(why)),
            Answer::Reply(_) => Err(self.confused()),
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
