//! Grammar of `console`. Source: ours.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use windlass_agent::work::entry::Role;

/// Options of `console`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  windlass console
  windlass console --tty /dev/ttyS0 --baud 115200
  windlass console --tty /dev/ttyS0 --role administrator
  echo status | windlass console

A shell with the commands of this program: names may be cut, Tab completes, '?' explains at any place, log lines never disturb what is \
typed, and long replies come in pages. What may destroy something is done only after the node's serial number was typed. Where standard input \
is no terminal there is no echo, no log and no page, and each reply ends with a line OK or ERR CODE.

With --tty it serves a serial line for good, as a getty does; start it from init or a service manager. It works while the agent, its store \
or the network do not.")]
pub struct Console {
    /// Serve this serial line instead of the terminal; who leaves is followed by the next one
    #[arg(long, value_name = "DEVICE")]
    pub tty: Option<PathBuf>,
    /// Speed of the line in bits a second [default: as it is set]
    #[arg(long, value_name = "N", requires = "tty")]
    pub baud: Option<u32>,
    /// Do without XON and XOFF on the line
    #[arg(long, requires = "tty")]
    pub no_flow: bool,
    /// The line hangs up when carrier detect goes away
    #[arg(long, requires = "tty")]
    pub modem: bool,
    /// What who sits at the line may do [default: viewer; without --tty what the agent allows]
    #[arg(long, value_name = "ROLE")]
    pub role: Option<Named>,
    /// What is typed before something is destroyed [default: the machine's serial number, else the begin of its id]
    #[arg(long, value_name = "TEXT")]
    pub serial: Option<String>,
}

/// A role by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Named {
    /// Sees how things are
    Viewer,
    /// Starts and stops backups
    Operator,
    /// Reads and restores what is backed up
    Restorer,
    /// Makes repositories and policies
    Installer,
    /// Everything
    Administrator,
}

impl Named {
    /// The role.
    pub fn role(self) -> Role {
        match self {
            Named::Viewer => Role::Viewer,
            Named::Operator => Role::Operator,
            Named::Restorer => Role::Restorer,
            Named::Installer => Role::Installer,
            Named::Administrator => Role::Administrator,
        }
    }
}
