//! A profile against the machine that it is for: everything that can be seen without starting.
//!
//! | what | how |
//! |---|---|
//! | memory | the machine has what the profile gives |
//! | repository | the store opens (no request is sent to it), key and credentials files can be read |
//! | backplane | certificate, key and CA parse and belong together, are this node's, and are valid now |
//! | volumes | each device opens, and what is on it can be read as the profile says |
//!
//! Does not: reach other nodes or a server. Source: ours.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use windlass_agent::backplane::tls::{is_of_node, node_name};
use windlass_agent::id::NodeId;

use super::Backplane;
use super::read::{At, Fault, Loaded};
use crate::cli::args::global::Global;
use crate::engine::host::{self, HostClock};
use crate::engine::machinery::{open_device, open_volume, refuse_written};
use crate::engine::repository::Opened;
use crate::engine::settings::Access;
use crate::unlock;

/// Everything that is wrong; empty when the agent would start. `global` is what command line and environment say.
pub fn check(loaded: &Loaded, global: &Global) -> Vec<Fault> {
    let mut faults = Vec::new();
    let budget = &loaded.profile.memory.budget_mib;
    if let Err(failure) = host::refuse_memory(loaded.profile.memory_bytes()) {
        faults.push(loaded.fault(budget, format_args!("memory.budget_mib: {failure}")));
    }
    repository(loaded, global, &mut faults);
    if let Some(plane) = &loaded.profile.backplane {
        backplane(loaded, plane, &mut faults);
    }
    volumes(loaded, &mut faults);
    faults
}

fn repository(loaded: &Loaded, global: &Global, faults: &mut Vec<Fault>) {
    let own = &loaded.profile.repository;
    let access = Access::from(global).or(loaded.profile.access());
    let nowhere = At::from(());
    let url = own.url.as_ref().map_or(&nowhere.span, |url| &url.span);
    let at = |span: &std::ops::Range<usize>| At { value: (), span: span.clone() };
    if let Err(failure) = Opened::new(&access) {
        faults.push(loaded.fault(&at(url), format_args!("repository: {failure}")));
    }
    if let Err(failure) = unlock::given(&access) {
        let key = own.key_file.as_ref().or(own.passphrase_file.as_ref()).map_or(url, |path| &path.span);
        faults.push(loaded.fault(&at(key), format_args!("repository: {failure}")));
    }
}

fn backplane(loaded: &Loaded, plane: &Backplane, faults: &mut Vec<Fault>) {
    let mut say = |at: &At<PathBuf>, key: &str, what: &str| {
        faults.push(loaded.fault(at, format_args!("backplane.{key}: {}: {what}", at.display())));
    };
    let read = |at: &At<PathBuf>| fs::read(&at.value).map_err(|error| error.to_string());
    let chain = read(&plane.cert_file).and_then(|pem| certificates(&pem));
    let roots = read(&plane.ca_file).and_then(|pem| certificates(&pem)).and_then(|all| trusted(&all));
    let key = read(&plane.key_file).and_then(|pem| {
        PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|_| "no private key in PEM; `windlass pki issue` makes one".to_owned())
    });
    if let Err(what) = &key {
        say(&plane.key_file, "key_file", what);
    }
    if let Err(what) = &roots {
        say(&plane.ca_file, "ca_file", what);
    }
    let chain = match chain {
        Ok(chain) => chain,
        Err(what) => return say(&plane.cert_file, "cert_file", &what),
    };
    if let Ok(key) = key
        && let Err(error) = CertifiedKey::from_der(chain.clone(), key, &default_provider())
    {
        say(&plane.key_file, "key_file", &format!("not the key of the certificate ({error})"));
    }
    let node = NodeId(loaded.profile.node.id);
    if !is_of_node(&chain[0], node) {
        let what = format!(
            "the certificate is not valid for {}; issue one for this node (`windlass pki issue --node {}`), or correct the node's id",
            node_name(node),
            node.0
        );
        say(&plane.cert_file, "cert_file", &what);
    }
    if let Ok(roots) = roots
        && let Err(what) = vouched(&chain, &roots)
    {
        say(&plane.cert_file, "cert_file", &what);
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err("no certificate in PEM; `windlass pki` makes one".to_owned()),
    }
}

fn trusted(all: &[CertificateDer<'static>]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in all {
        roots.add(certificate.clone()).map_err(|error| format!("not a CA's certificate ({error})"))?;
    }
    Ok(roots)
}

/// Whether the CA stands behind the certificate now.
fn vouched(chain: &[CertificateDer<'static>], roots: &RootCertStore) -> Result<(), String> {
    let parse =
        |der| ParsedCertificate::try_from(der).map_err(|error| format!("not a certificate ({error})"));
    let parsed = parse(&chain[0])?;
    let now = UnixTime::since_unix_epoch(Duration::from_nanos(HostClock.wall_ns().max(0) as u64));
    let provider = default_provider();
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, &chain[1..], now, algorithms)
        .map_err(|error| format!("the CA in ca_file does not stand behind it now ({error}); issue it anew"))
}

fn volumes(loaded: &Loaded, faults: &mut Vec<Fault>) {
    for volume in &loaded.profile.volume {
        let opened = open_device(&volume.device, None, &[]).and_then(|mut device| {
            refuse_written(&volume.device)?;
            open_volume(&volume.device, &mut *device, volume.reader).map(drop)
        });
        if let Err(failure) = opened {
            faults.push(loaded.fault(&volume.device, format_args!("volume {}: {failure}", volume.title())));
        }
    }
}
