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
    /// How long the certificate is valid
    #[arg(long, value_name = "DAYS", default_value_t = 1095, value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub days: u32,
    /// Replace the certificate, keep the key
    #[arg(long)]
    pub renew: bool,
}
