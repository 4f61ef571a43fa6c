//! `support`: a file for those who help. What is in it is chosen here; `engine::support` collects it.
//!
//! Source: ours.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::Path;

use serde_json::json;
use windlass_agent::civil::iso_utc;
use windlass_agent::units::Human;

use crate::cli::args::global::Global;
use crate::cli::args::support::Support as Args;
use crate::cli::output::Output;
use crate::control::client::Agent;
use crate::control::wire::Identity;
use crate::engine::durable;
use crate::engine::host::{self, HostClock};
use crate::engine::support::{Secrets, Source, Wanted, gather};
use crate::failure::{Exit, Failure};

/// Entries of the log that are taken.
const LOG_ENTRIES: &str = "200";
/// Volumes that are described.
const VOLUMES_MAX: usize = 16;
/// What the kernel says of the machine.
const COUNTERS: [(&str, &str); 6] = [
    ("memory.txt", "/proc/meminfo"),
    ("load.txt", "/proc/loadavg"),
    ("disks.txt", "/proc/diskstats"),
    ("links.txt", "/proc/net/dev"),
    ("mounts.txt", "/proc/self/mountinfo"),
    ("kernel.txt", "/proc/version"),
];

/// `support`.
pub fn run(global: &Global, args: &Args, output: &Output) -> Result<Exit, Failure> {
    let is_stdout = args.file.as_deref() == Some(Path::new("-"));
    if is_stdout && (output.is_json() || std::io::stdout().is_terminal()) {
        return Err(Failure::usage("a bundle is no text: name a file, or send standard output to one"));
    }
    let secs = HostClock.wall_ns().div_euclid(1_000_000_000);
    let name = format!("windlass-support-{}-{}.tar.zst", host::name(), iso_utc(secs).replace(['-', ':'], ""));
    let path = args.file.clone().unwrap_or_else(|| name.into());
    let is_plain = path.extension().is_some_and(|ext| ext == "tar");
    let mut agent = if global.alone { None } else { Agent::find(global.socket.as_deref()).ok().flatten() };
    let identity = agent.as_mut().and_then(|agent| agent.identify().ok());
    let lines = match agent.as_mut().map(|agent| agent.lines(0)) {
        Some(Ok((lines, _))) => lines.join("\n") + "\n",
        Some(Err(failure)) => format!("({failure})\n"),
        None => "(no agent answers at this socket)\n".to_owned(),
    };
    let mut known = global.clone();
    identity.iter().for_each(|identity| identity.fill(&mut known));
    let secrets = secrets(&known);
    let wanted = wanted(global, identity.as_ref(), lines, secs);
    let bundle = gather(&wanted, &secrets, is_plain, secs)?;
    if is_stdout {
        let mut out = std::io::stdout().lock();
        out.write_all(&bundle.bytes)
            .and_then(|()| out.flush())
            .map_err(|error| Failure::at("standard output", error))?;
        return Ok(Exit::Done);
    }
    durable::create(&path, &bundle.bytes).map_err(|error| Failure::at(path.display(), error))?;
    let size = bundle.bytes.len() as u64;
    output.say(format_args!(
        "{}: {} parts, {}; keys, passphrases and credentials are not in it, names and paths are",
        path.display(),
        bundle.parts.len(),
        Human(size)
    ));
    let parts: Vec<&str> = bundle.parts.iter().map(|(name, _)| name.as_str()).collect();
    output.document(&json!({ "file": path.display().to_string(), "bytes": size, "parts": parts }));
    Ok(Exit::Done)
}

/// What no bundle has.
fn secrets(global: &Global) -> Secrets {
    let mut secrets = Secrets::of_environment();
    let files = [&global.key_file, &global.passphrase_file, &global.lease_cert_key_file];
    files.into_iter().flatten().for_each(|path| secrets.add_file(path));
    global.credentials_file.iter().for_each(|path| secrets.add_credentials(path));
    if let Some(home) = std::env::var_os("HOME") {
        secrets.add_credentials(&Path::new(&home).join(".aws/credentials"));
    }
    secrets
}

fn wanted(global: &Global, identity: Option<&Identity>, lines: String, secs: i64) -> Vec<Wanted> {
    let command = |words: &[&str]| {
        let words = words.iter().map(OsString::from).chain(["--json".into()]);
        Source::Command(global.words().into_iter().chain(words).collect())
    };
    let version = format!(
        "windlass {} ({} {})\nhost {}\nserial {}\nmade {}\ncores {}\nmemory {}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
        host::name(),
        host::serial().as_deref().unwrap_or("none"),
        iso_utc(secs),
        host::cores(),
        host::memory_bytes().map_or_else(|| "unknown".to_owned(), |bytes| Human(bytes).to_string()),
    );
    let configuration = identity.map(|identity| serde_json::to_string_pretty(identity).unwrap_or_default());
    let configuration = configuration.unwrap_or_else(|| "(no agent answers at this socket)".to_owned());
    let mut wanted = vec![
        Wanted::new("version.txt", Source::Text(version)),
        Wanted::new("configuration.json", Source::Text(configuration + "\n")),
        Wanted::new("lines.txt", Source::Text(lines)),
        Wanted::new("status.json", command(&["status"])),
        Wanted::new("repository.json", command(&["repo", "info"])),
        Wanted::new("probe.json", command(&["repo", "probe"])),
        Wanted::new("policies.json", command(&["policy", "list"])),
        Wanted::new("log.json", command(&["log", "--all", "--last", LOG_ENTRIES])),
    ];
    wanted.extend(COUNTERS.map(|(name, path)| Wanted::new(name, Source::File(path.into()))));
    let volumes = identity.map(|identity| &identity.volumes[..]).unwrap_or_default();
    for (nth, (_, path)) in volumes.iter().take(VOLUMES_MAX).enumerate() {
        let path = path.display().to_string();
        wanted.push(Wanted::new(format!("volume-{nth}.json"), command(&["volume", "info", &path])));
    }
    wanted
}
