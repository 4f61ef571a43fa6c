//! `pki`: what may be written.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use windlass_agent::backplane::header::NODE_ID_MAX;

/// `pki`.
#[derive(Debug, Subcommand)]
pub enum Pki {
    /// Make a CA for a cluster
    #[command(after_long_help = "\
Example:
  windlass pki init --dir /root/windlass-pki

It makes ca.crt, which every node gets, and ca.key, which no node needs: who has it can make a certificate for any node. Keep the \
directory on one machine, or off line. One CA serves one cluster.")]
    Init(PkiInit),
    /// Make a key and a certificate for a node
    #[command(after_long_help = "\
Examples:
  windlass pki issue --dir /root/windlass-pki --node 1
  windlass pki issue --dir /root/windlass-pki --node 1 --renew

It makes node-1.key and node-1.crt. The node gets these two and ca.crt. --renew makes a new certificate for the key that is there.")]
    Issue(PkiIssue),
    /// Make a key and a certificate for one who asks the API: a person's browser, or a program
    #[command(after_long_help = "\
Examples:
  windlass pki client --dir /root/windlass-pki --name alice
  windlass role grant cert:alice operator
  openssl pkcs12 -export -in alice.crt -inkey alice.key -out alice.p12      for a browser

It makes alice.key and alice.crt. What alice may do is said by `windlass role`: without a role, nothing.")]
    Client(PkiClient),
}

/// Options of `pki client`.
#[derive(Debug, Args)]
pub struct PkiClient {
    /// Where the CA is
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Who it is for: a host name or one word, in lower case; roles are given to cert:NAME
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// How long the certificate is valid
    #[arg(long, value_name = "DAYS", default_value_t = 1095, value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub days: u32,
}

/// Options of `pki init`.
#[derive(Debug, Args)]
pub struct PkiInit {
    /// Where to put the CA; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// How long the CA's certificate is valid
    #[arg(long, value_name = "DAYS", default_value_t = 7300, value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub days: u32,
}

/// Options of `pki issue`.
#[derive(Debug, Args)]
pub struct PkiIssue {
    /// Where the CA is
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// The node's id, as its board profile says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=i64::from(NODE_ID_MAX)))]
    pub node: u32,
    /// A host name or IP address by which programs and browsers reach the node's API; may be repeated
    #[arg(long, value_name = "NAME")]
    pub host: Vec<String>,
    /// How long the certificate is valid
    #[arg(long, value_name = "DAYS", default_value_t = 1095, value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub days: u32,
    /// Replace the certificate, keep the key
    #[arg(long)]
    pub renew: bool,
}
