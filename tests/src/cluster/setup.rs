//! What a cluster is made of: a place for its repository, volumes, certificates, board profiles. Source: ours.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use windlass_agent::id::NodeId;
use windlass_board::authority::Authority;
use windlass_board::cli::args::global::Global;
use windlass_board::cli::args::value::Bytes;
use windlass_board::engine::host::HostClock;

use super::{BEAT_MS, Cluster, LEASE_MS, SHARED};
use crate::appliance::{image_of, plant};
use crate::engines::link::SlowLink;
use crate::prng::Prng;
use crate::workdir::Workdir;

/// Where nodes listen that have a network of their own.
const PORT: u16 = 7400;
/// Bytes of a volume's image; what is not used is a hole.
const IMAGE_BYTES: u64 = 48 << 20;
/// Bytes of a plain image that are made and compared at once; such an image is a multiple of it.
pub(super) const PIECE_BYTES: usize = 1 << 20;
/// How long certificates are good for, in days.
const DAYS: u32 = 2;

/// Where the repository is, and how it is reached.
#[derive(Clone, Debug)]
pub struct Place {
    /// `file:///path` or `s3://bucket/prefix`.
    pub url: String,
    /// S3 servers; node n uses the n-th, round and round. This process uses the first.
    pub endpoints: Vec<String>,
    /// S3 keys.
    pub credentials: Option<PathBuf>,
    /// A store of its own for the log.
    pub lease_store: Option<String>,
}

impl Place {
    /// A directory.
    pub fn directory(path: &Path) -> Place {
        let url = format!("file://{}", path.display());
        Place { url, endpoints: Vec::new(), credentials: None, lease_store: None }
    }

    pub(super) fn global(&self, key: &Path) -> Global {
        Global {
            repo: Some(self.url.clone()),
            lease_store: self.lease_store.clone(),
            lease_ca_file: None,
            lease_cert_file: None,
            lease_cert_key_file: None,
            key_file: Some(key.to_owned()),
            passphrase_file: None,
            state_dir: None,
            accept_older: None,
            endpoint: self.endpoints.first().cloned(),
            region: None,
            ca_file: None,
            credentials_file: self.credentials.clone(),
            profile: None,
            path_style: !self.endpoints.is_empty(),
            memory: Bytes(48 << 20),
            device_iops_max: None,
            limit_up: None,
            limit_down: None,
            socket: None,
            wait: None,
            alone: true,
            utc: false,
            json: false,
            quiet: false,
            verbose: 0,
            log: None,
        }
    }

    /// The same for the command line.
    pub(super) fn arguments(&self, key: &Path) -> Vec<String> {
        let mut all = vec!["--alone".to_owned()];
        let mut put = |name: &str, value: Option<String>| {
            all.extend(value.into_iter().flat_map(|value| [name.to_owned(), value]));
        };
        put("--repo", Some(self.url.clone()));
        put("--key-file", Some(key.display().to_string()));
        put("--endpoint", self.endpoints.first().cloned());
        put("--credentials-file", self.credentials.as_ref().map(|path| path.display().to_string()));
        put("--lease-store", self.lease_store.clone());
        if !self.endpoints.is_empty() {
            all.push("--path-style".to_owned());
        }
        all
    }
}

/// How a cluster is made.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its repository.
    pub place: Place,
    /// Nodes, numbered from 1.
    pub nodes: u32,
    /// Upload of each node, in KiB a second: gives a backup a middle.
    pub upload_kib_s: u32,
    /// Size of a node's own volume, in directories of [`plant`] (about 2.6 MiB, half of it incompressible).
    pub own_dirs: u64,
    /// Size of the shared volume, in the same.
    pub shared_dirs: u64,
    /// Bytes of the shared volume as a plain image of random bytes, and the only volume there is; 0: it has a file system.
    pub image_bytes: u64,
    /// T and the time between beats, in milliseconds.
    pub lease_ms: (u32, u32),
    /// Items of each volume in which a backup compares the raw reader with the kernel.
    pub verify: u32,
    /// How long each byte between nodes takes, one way, in milliseconds; 0: as long as loopback does.
    pub link_ms: u64,
    /// The group that may connect to each node's control socket.
    pub group: Option<u32>,
    /// Where images go; a directory for tests when it is not said.
    pub scratch: Option<PathBuf>,
}

impl Setup {
    /// Three nodes, and a backup of about 10 seconds at least.
    pub fn new(place: Place) -> Setup {
        Setup {
            place,
            nodes: 3,
            upload_kib_s: 600,
            own_dirs: 1,
            shared_dirs: 6,
            image_bytes: 0,
            lease_ms: (LEASE_MS, BEAT_MS),
            verify: 0,
            link_ms: 0,
            group: None,
            scratch: None,
        }
    }
}

pub(super) struct Volume {
    pub(super) name: String,
    pub(super) tree: PathBuf,
    pub(super) image: PathBuf,
}

impl Volume {
    /// Whether it has no file system: it is its own content.
    pub(super) fn is_plain(&self) -> bool {
        self.tree == self.image
    }
}

impl Cluster {
    /// Writes all profiles; the links that lead to the nodes, if these are slow.
    pub(super) fn write_profiles(&self) -> Vec<SlowLink> {
        self.renew_certificates();
        let addresses = self.addresses();
        let delay = Duration::from_millis(self.setup.link_ms);
        let slow = addresses.iter().filter(|_| self.setup.link_ms > 0);
        let links: Vec<SlowLink> =
            slow.map(|&address| SlowLink::to(address, delay).expect("a slow link")).collect();
        let mut reached: Vec<SocketAddrV4> = links.iter().map(SlowLink::address).collect();
        if reached.is_empty() {
            reached.clone_from(&addresses);
        }
        for (node, &listen) in self.nodes().zip(&addresses) {
            self.write(&format!("node-{node}.toml"), &self.profile(node, listen, &reached));
        }
        links
    }

    /// Certificates of a new CA for all nodes, which trust the one before as well until they are given `ca` alone.
    pub fn renew_certificates(&self) -> String {
        let now_secs = HostClock.wall_ns() / 1_000_000_000;
        let (authority, ca) = Authority::make(now_secs, DAYS).expect("a CA");
        let before = fs::read_to_string(self.work.join("ca.crt")).unwrap_or_default();
        self.trust(&format!("{before}{}", ca.certificate));
        for node in self.nodes() {
            let issued = authority.issue(NodeId(node), None, now_secs, DAYS).expect("a certificate");
            self.write(&format!("node-{node}.crt"), &issued.certificate);
            self.write(&format!("node-{node}.key"), &issued.key);
        }
        ca.certificate
    }

    /// The CAs, in PEM, that nodes trust from now on.
    pub fn trust(&self, ca: &str) {
        self.write("ca.crt", ca);
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.work.join(name), text).expect("a file is written");
    }

    /// Where the nodes listen: ports that were free a moment ago, all different.
    fn addresses(&self) -> Vec<SocketAddrV4> {
        if let Some(networks) = &self.networks {
            return self.nodes().map(|node| SocketAddrV4::new(networks.address(node), PORT)).collect();
        }
        let open = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let open: Vec<TcpListener> = self.nodes().map(open).collect();
        let port = |listener: &TcpListener| listener.local_addr().expect("an address").port();
        open.iter().map(|listener| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port(listener))).collect()
    }

    /// `reached`: where its peers reach each node.
    fn profile(&self, node: u32, listen: SocketAddrV4, reached: &[SocketAddrV4]) -> String {
        let own = |ending: &str| quoted(&self.work.join(&format!("node-{node}.{ending}")));
        let place = &self.setup.place;
        let mut text = format!(
            "[node]\nid = {node}\nname = \"node-{node}\"\n\n[repository]\nurl = {}\nkey_file = {}\n",
            Value::from(place.url.clone()),
            quoted(&self.work.join("key")),
        );
        if !place.endpoints.is_empty() {
            let endpoint = &place.endpoints[(node as usize - 1) % place.endpoints.len()];
            let _ = writeln!(text, "endpoint = {}\npath_style = true", Value::from(endpoint.clone()));
        }
        if let Some(file) = &place.credentials {
            let _ = writeln!(text, "credentials_file = {}", quoted(file));
        }
        let _ = write!(
            text,
            "\n[memory]\nbudget_mib = 48\n\n[work]\ncores = 1\nuplinks = 2\n\n[limits]\nupload_kib_s = {}\n\n\
             [backplane]\nlisten = \"{}\"\ncert_file = {}\nkey_file = {}\nca_file = {}\n\n\
             [control]\nsocket = {}\n\n[lease]\nlease_ms = {}\nbeat_ms = {}\n",
            self.setup.upload_kib_s,
            listen,
            own("crt"),
            own("key"),
            quoted(&self.work.join("ca.crt")),
            own("sock"),
            self.setup.lease_ms.0,
            self.setup.lease_ms.1,
        );
        if let Some(group) = self.setup.group {
            text = text.replacen("[control]\n", &format!("[control]\ngroup = \"{group}\"\n"), 1);
        }
        for (peer, address) in (1..).zip(reached).filter(|(peer, _)| *peer != node) {
            let _ = write!(text, "\n[[peer]]\nnode = {peer}\naddress = \"{address}\"\n");
        }
        let mine = format!("own-{node}");
        for volume in self.volumes.iter().filter(|volume| volume.name == mine || volume.name == SHARED) {
            let _ = write!(
                text,
                "\n[[volume]]\nname = \"{}\"\ndevice = {}\nreader = \"{}\"\nsnapshot = \"frozen\"\n",
                volume.name,
                quoted(&volume.image),
                if volume.is_plain() { "image" } else { "auto" },
            );
        }
        text
    }
}

/// TOML's basic strings are JSON's, for what paths hold here.
fn quoted(path: &Path) -> Value {
    Value::from(path.display().to_string())
}

pub(super) fn volume(work: &Workdir, name: &str, seed: u64, dirs: u64) -> Volume {
    let tree = work.dir(&format!("{name}-tree")).expect("a directory");
    let image = work.join(&format!("{name}.img"));
    plant(&tree, seed, dirs).expect("a tree");
    image_of(&tree, &image, IMAGE_BYTES).expect("an image");
    Volume { name: name.to_owned(), tree, image }
}

pub(super) fn random_image(work: &Workdir, name: &str, seed: u64, bytes: u64) -> Volume {
    let image = work.join(&format!("{name}.img"));
    let mut file = File::create(&image).expect("an image");
    let mut random = Prng::new(seed);
    for _ in 0..bytes / PIECE_BYTES as u64 {
        file.write_all(&random.bytes(PIECE_BYTES)).expect("an image is written");
    }
    file.sync_all().expect("an image is written");
    Volume { name: name.to_owned(), tree: image.clone(), image }
}
