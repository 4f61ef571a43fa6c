//! `status`, `stop`, `coordinator move`, `flush`: what only a cluster can answer or do.
//!
//! Source: ours.

use std::io::IsTerminal;
use std::time::Duration;

use serde_json::Value;
use windlass_agent::id::NodeId;
use windlass_agent::policy::check_name;
use windlass_agent::work::Command;

use crate::cli::args::Status as Args;
use crate::cli::args::global::Global;
use crate::cli::output::Output;
use crate::control::client::Agent;
use crate::engine::host::HostClock;
use crate::failure::{Exit, Failure};
use crate::status::{Status, render};

/// Between two looks on a terminal, and for programs.
const WATCH: Duration = Duration::from_secs(1);
/// Between two looks elsewhere: a screen takes a serial line a sixth of a second, and a log file keeps it for good.
const WATCH_PLAIN: Duration = Duration::from_secs(10);

/// `status`.
pub fn run(global: &Global, args: &Args, output: &Output) -> Result<Exit, Failure> {
    let mut agent = Agent::required(global.socket.as_deref())?;
    let screen = std::io::stdout().is_terminal();
    loop {
        let json = agent.status()?;
        let missing = missing(global);
        if output.is_json() {
            let mut document = serde_json::from_str::<Value>(&json).map_err(Failure::new)?;
            if !missing.is_empty() {
                document["volumes_missing"] = missing.into();
            }
            output.document(&document);
        } else {
            let mut status = Status::parse(&json).map_err(Failure::new)?;
            status.volumes_missing = missing;
            let text = render::lines(&status).join("\n");
            if args.watch && screen {
                output.clear();
            }
            output.say(text);
        }
        if !args.watch {
            return Ok(Exit::Done);
        }
        let plain = !screen && !output.is_json();
        if plain {
            output.say("");
        }
        HostClock.sleep(if plain { WATCH_PLAIN } else { WATCH });
    }
}

/// Volumes of this machine's agent whose device is not there: seen from here, so that it costs the cluster nothing. An agent that does not
/// say which it has leaves the list empty.
fn missing(global: &Global) -> Vec<String> {
    let identity = Agent::required(global.socket.as_deref()).and_then(|mut agent| agent.identify());
    let volumes = identity.map(|identity| identity.volumes).unwrap_or_default();
    volumes
        .into_iter()
        .filter(|(_, path)| !path.exists())
        .map(|(name, path)| format!("{name} ({})", path.display()))
        .collect()
}

/// `coordinator move`.
pub fn move_coordinator(global: &Global, node: u32, output: &Output) -> Result<Exit, Failure> {
    let mut agent = Agent::required(global.socket.as_deref())?;
    agent.command(Command::Move(NodeId(node)))?;
    output.say(format_args!(
        "the coordinator's work goes to node {node}; `windlass status` shows when it has it"
    ));
    output.document(&serde_json::json!({ "node": node }));
    Ok(Exit::Done)
}

/// `flush`.
pub fn flush(global: &Global, output: &Output) -> Result<Exit, Failure> {
    let mut agent = Agent::required(global.socket.as_deref())?;
    agent.command(Command::Flush)?;
    output.say("all nodes have sent what they had packed, and it is committed");
    output.document(&serde_json::json!({ "flushed": true }));
    Ok(Exit::Done)
}

/// `stop`.
pub fn stop(global: &Global, policy: &str, output: &Output) -> Result<Exit, Failure> {
    check_name(policy).map_err(Failure::usage)?;
    let mut agent = Agent::required(global.socket.as_deref())?;
    agent.command(Command::Stop(policy.to_owned()))?;
    output.say(format_args!(
        "the backup of {policy} is stopped; `windlass backup {policy}` goes on where it was"
    ));
    output.document(&serde_json::json!({ "stopped": policy }));
    Ok(Exit::Done)
}
