//! `pki init`, `issue`, `client`: the files of a small CA.
//!
//! | file | who gets it |
//! |---|---|
//! | `ca.crt` | every node |
//! | `ca.key` | nobody: it stays where certificates are made |
//! | `node-N.crt`, `node-N.key` | node N |
//! | `NAME.crt`, `NAME.key` | one who asks the API under that name |
//!
//! Invariants: keys are readable by their owner only; a file that is there is not written over, but a certificate with `--renew`, which
//! is replaced at once. Source: ours.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde_json::json;
use windlass_agent::backplane::tls::{Pem, Tls, node_name};
use windlass_agent::format::access::is_subject;
use windlass_agent::id::NodeId;
use windlass_hal::clock::{Clock as _, SystemClock};
use zeroize::Zeroizing;

use crate::authority::{Authority, Issued};
use crate::cli::args::pki::{PkiClient, PkiInit, PkiIssue};
use crate::cli::output::Output;
use crate::engine::host::HostClock;
use crate::failure::{Exit, Failure};
use windlass_agent::civil::iso_utc;

/// Bytes of a PEM file at most.
const PEM_BYTES_MAX: u64 = 64 << 10;
const DAY_SECS: i64 = 24 * 3600;

/// `pki init`.
pub fn init(args: &PkiInit, output: &Output) -> Result<Exit, Failure> {
    let (certificate, key) = (args.dir.join("ca.crt"), args.dir.join("ca.key"));
    for path in [&certificate, &key] {
        if path.symlink_metadata().is_ok() {
            return Err(Failure::at(
                path.display(),
                "there is a CA already; use it, or give another --dir. A new CA shuts out all nodes of the old one",
            ));
        }
    }
    let now = SystemClock.wall().secs;
    let (_, made) = Authority::make(now, args.days)?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&args.dir)
        .map_err(|error| Failure::at(args.dir.display(), error))?;
    write_new(&key, made.key.as_bytes(), 0o600)?;
    write_new(&certificate, made.certificate.as_bytes(), 0o644)?;
    let until = iso_utc(now + i64::from(args.days) * DAY_SECS);
    output.say(format_args!("CA made in {}, valid until {until}", args.dir.display()));
    output.say(format_args!("next: windlass pki issue --dir {} --node 1", args.dir.display()));
    output.document(&json!({
        "ca": certificate.display().to_string(),
        "key": key.display().to_string(),
        "valid_until": until,
    }));
    Ok(Exit::Done)
}

/// `pki issue`.
pub fn issue(args: &PkiIssue, output: &Output) -> Result<Exit, Failure> {
    let node = NodeId(args.node);
    let ca_path = args.dir.join("ca.crt");
    let ca = read(&ca_path)?;
    let authority_key = args.dir.join("ca.key");
    let authority = Authority::load(&read(&authority_key)?)
        .map_err(|failure| Failure::at(authority_key.display(), failure))?;
    let certificate = args.dir.join(format!("node-{node}.crt"));
    let key = args.dir.join(format!("node-{node}.key"));
    let held = if args.renew { Some(read(&key)?) } else { None };
    if !args.renew
        && let Some(path) = [&certificate, &key].into_iter().find(|path| path.symlink_metadata().is_ok())
    {
        return Err(Failure::at(
            path.display(),
            "node has a certificate already; use --renew for a new one with the same key, or remove both files for a new key",
        ));
    }
    let now = SystemClock.wall().secs;
    let issued =
        authority.issue_for(node, &args.host, held.as_ref().map(|pem| pem.as_str()), now, args.days)?;
    check(node, &ca, &issued).map_err(|fault| Failure::at(ca_path.display(), fault))?;
    if args.renew {
        let new = args.dir.join(format!("node-{node}.crt.new"));
        // One that a crash left behind is of no use to anybody.
        let _ = fs::remove_file(&new);
        write_new(&new, issued.certificate.as_bytes(), 0o644)?;
        fs::rename(&new, &certificate).map_err(|error| Failure::at(certificate.display(), error))?;
    } else {
        write_new(&key, issued.key.as_bytes(), 0o600)?;
        write_new(&certificate, issued.certificate.as_bytes(), 0o644)?;
    }
    let until = iso_utc(now + i64::from(args.days) * DAY_SECS);
    output.say(format_args!(
        "{} for {}, valid until {until}; the node gets it with node-{node}.key and ca.crt",
        certificate.display(),
        node_name(node)
    ));
    output.document(&json!({
        "node": args.node,
        "certificate": certificate.display().to_string(),
        "key": key.display().to_string(),
        "ca": ca_path.display().to_string(),
        "valid_until": until,
    }));
    Ok(Exit::Done)
}

/// `pki client`.
pub fn client(args: &PkiClient, output: &Output) -> Result<Exit, Failure> {
    let name = &args.name;
    if !is_subject(&format!("cert:{name}")) || node_like(name) {
        return Err(Failure::usage(
            "--name: 1 to 123 letters in lower case, digits, '.', '-' or '_', a letter or digit first, and not as nodes and the CA are called",
        ));
    }
    let authority_key = args.dir.join("ca.key");
    let authority = Authority::load(&read(&authority_key)?)
        .map_err(|failure| Failure::at(authority_key.display(), failure))?;
    let (certificate, key) = (args.dir.join(format!("{name}.crt")), args.dir.join(format!("{name}.key")));
    if let Some(path) = [&certificate, &key].into_iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(Failure::at(path.display(), "it is there already; remove both files for a new key"));
    }
    let now = SystemClock.wall().secs;
    let issued = authority.issue_client(name, now, args.days)?;
    write_new(&key, issued.key.as_bytes(), 0o600)?;
    write_new(&certificate, issued.certificate.as_bytes(), 0o644)?;
    let until = iso_utc(now + i64::from(args.days) * DAY_SECS);
    output.say(format_args!(
        "{} valid until {until}; next: windlass role grant cert:{name} viewer",
        certificate.display()
    ));
    output.document(&json!({
        "name": name,
        "certificate": certificate.display().to_string(),
        "key": key.display().to_string(),
        "valid_until": until,
    }));
    Ok(Exit::Done)
}

/// Whether files or certificates of nodes or of the CA have such names.
fn node_like(name: &str) -> bool {
    name == "ca" || name.starts_with("node-")
}

/// Other nodes must take it: that the CA's certificate and key belong together is seen here and not in the night.
fn check(node: NodeId, ca: &str, issued: &Issued) -> Result<(), windlass_agent::backplane::tls::TlsFault> {
    let pem =
        Pem { ca: ca.as_bytes(), certificate: issued.certificate.as_bytes(), key: issued.key.as_bytes() };
    Tls::new(node, pem, HostClock::shared()).map(drop)
}

fn read(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let len = path.metadata().map(|meta| meta.len());
    let text = match len {
        Ok(len) if len > PEM_BYTES_MAX => {
            return Err(Failure::at(path.display(), "too large for a key or certificate; check --dir"));
        }
        Ok(_) => fs::read_to_string(path),
        Err(error) => Err(error),
    };
    text.map(Zeroizing::new).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::at(
            path.display(),
            "not there; make a CA with windlass pki init, or check --dir and --node",
        ),
        _ => Failure::at(path.display(), error),
    })
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let write = || -> std::io::Result<()> {
        let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| Failure::at(path.display(), error))
}
