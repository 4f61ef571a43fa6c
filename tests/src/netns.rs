//! Nodes in network namespaces of their own on one bridge, and what breaks between them.
//!
//! ```text
//!  namespace of node n: eth0 = 10.x.y.n --veth-- wb<id> (bridge, 10.x.y.254, this process) --veth-- the others
//! ```
//!
//! | fault | how |
//! |---|---|
//! | [`Networks::cut`]: a node from everything on the bridge, both ways | its port of the bridge goes down |
//! | [`Networks::deafen`]: what a node sends to some others gets lost, what they send arrives | their hardware addresses, as that node knows them, are wrong |
//!
//! Neither is told to anybody: packets get lost, as in a switch that fails. Namespaces and the bridge go when this is dropped.
//! Needs root and `ip` (package iproute2). Source: ours; ip-neighbour(8), ip-netns(8).

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Error, Result, output};

/// A hardware address that nobody has (locally administered).
const NOBODY: &str = "02:00:00:00:00:fe";
/// Last byte of this process's address on the bridge.
const HUB: u8 = 254;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Namespaces on a bridge.
#[derive(Debug)]
pub struct Networks {
    id: String,
    net: [u8; 3],
    nodes: u32,
}

impl Networks {
    /// Namespaces for nodes 1 to `nodes`, or why not.
    ///
    /// # Errors
    /// The reason, for a skip.
    pub fn make(nodes: u32) -> Result<Networks> {
        if !crate::privilege::is_root() {
            return Err(Error::new("needs root, to make network namespaces"));
        }
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let id = format!("{:x}x{count}", process & 0xff_ffff);
        let net = [10, 200 + (process >> 8) as u8 % 50, (process as u8).wrapping_add(count as u8)];
        let networks = Networks { id, net, nodes };
        networks.build()?;
        Ok(networks)
    }

    fn build(&self) -> Result<()> {
        let bridge = self.bridge();
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("addr add {}/24 dev {bridge}", self.hub()))?;
        ip(&format!("link set {bridge} up"))?;
        for node in 1..=self.nodes {
            let (space, port) = (self.space(node), self.port(node));
            ip(&format!("netns add {space}"))?;
            ip(&format!("link add {port} type veth peer name eth0 netns {space}"))?;
            ip(&format!("link set {port} master {bridge}"))?;
            ip(&format!("link set {port} up"))?;
            ip(&format!("-n {space} addr add {}/24 dev eth0", self.address(node)))?;
            ip(&format!("-n {space} link set eth0 up"))?;
            ip(&format!("-n {space} link set lo up"))?;
        }
        Ok(())
    }

    /// A node's address.
    #[must_use]
    pub fn address(&self, node: u32) -> Ipv4Addr {
        let [a, b, c] = self.net;
        Ipv4Addr::new(a, b, c, node as u8)
    }

    /// The address of servers that run beside the test.
    #[must_use]
    pub fn hub(&self) -> Ipv4Addr {
        let [a, b, c] = self.net;
        Ipv4Addr::new(a, b, c, HUB)
    }

    fn bridge(&self) -> String {
        format!("wb{}", self.id)
    }

    fn port(&self, node: u32) -> String {
        format!("wp{}n{node}", self.id)
    }

    fn space(&self, node: u32) -> String {
        format!("windlass-{}-{node}", self.id)
    }

    /// The same command, in a node's namespace.
    #[must_use]
    pub fn inside(&self, node: u32, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.space(node)]).arg(command.get_program()).args(command.get_args());
        inside.env_clear();
        inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        inside
    }

    /// Cuts a node off from all others and from the hub, or mends that.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn cut(&self, node: u32, is_cut: bool) -> Result<()> {
        ip(&format!("link set {} {}", self.port(node), if is_cut { "down" } else { "up" }))
    }

    /// Loses what `from` sends to these addresses, or mends that.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn deafen(&self, from: u32, to: &[Ipv4Addr], is_deaf: bool) -> Result<()> {
        let space = self.space(from);
        to.iter().try_for_each(|address| {
            if is_deaf {
                ip(&format!("-n {space} neigh replace {address} lladdr {NOBODY} dev eth0 nud permanent"))
            } else {
                ip(&format!("-n {space} neigh del {address} dev eth0"))
            }
        })
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for node in (1..=self.nodes).filter(|node| Path::new("/run/netns").join(self.space(*node)).exists()) {
            // The port in the bridge goes with its other end; at once, where it is there.
            let _ = ip(&format!("link del {}", self.port(node)));
            if let Err(why) = ip(&format!("netns del {}", self.space(node))) {
                eprintln!("{} stays: {why}", self.space(node));
            }
        }
        if let Err(why) = ip(&format!("link del {}", self.bridge())) {
            eprintln!("{} stays: {why}", self.bridge());
        }
    }
}

fn ip(arguments: &str) -> Result<()> {
    output(Command::new("ip").args(arguments.split(' '))).map(drop)
}
