//! The command's side of the socket: one request, one answer, blocking.
//!
//! Source: ours.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use windlass_agent::backplane::message::{Command, Reply, SUBMIT_BYTES_MAX};

use super::wire::{Answer, Identity, LINE_BYTES_MAX, Request};
use crate::failure::Failure;
use crate::profile::SOCKET_DEFAULT;

/// How long an answer may take: a coordinator that died is replaced within two lease times, and then there is a commit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);

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
            (Ok(stream), _) => Agent::new(stream, path).map(Some),
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

    /// Connects, and fails when nobody listens.
    pub fn required(given: Option<&Path>) -> Result<Agent, Failure> {
        Agent::find(given)?.ok_or_else(|| {
            Failure::at(SOCKET_DEFAULT, "no agent listens here; start `windlass agent`, or give its --socket")
        })
    }

    fn new(stream: UnixStream, path: &Path) -> Result<Agent, Failure> {
        let failed = |error| Failure::at(path.display(), error);
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(failed)?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT)).map_err(failed)?;
        Ok(Agent { stream: BufReader::new(stream), path: path.to_owned() })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks, and waits for the answer.
    pub fn ask(&mut self, request: &Request) -> Result<Answer, Failure> {
        let mut line = request.emit();
        line.push('\n');
        let written = self.stream.get_ref().write_all(line.as_bytes());
        let mut answer = Vec::new();
        let read = (&mut self.stream).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut answer);
        // An agent that refuses a client says so and hangs up, whether or not it was written to.
        if answer.pop_if(|byte| *byte == b'\n').is_none() {
            let why = match read.and(written) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    format!("the agent did not answer within {} s", ANSWER_TIMEOUT.as_secs())
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
        match self.ask(&Request::Identify)? {
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
