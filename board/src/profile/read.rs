//! Text to a [`Profile`], or what is wrong with it: file:line:column, what, and what to do.
//!
//! The parser stops at its first fault; what several keys must agree on is judged afterwards, all of it. Source: toml, ours.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, Error as _};
use windlass_agent::log::limits::DEVICE_BYTES_MAX;
use windlass_agent::pack::BLOCK_BYTES_MAX;
use windlass_agent::policy::check_name;

use super::{NODE_MAX, PEERS_MAX, PROFILE_BYTES_MAX, Profile, VOLUMES_MAX, shipped};

/// Smallest block size of a policy in KiB.
const BLOCK_KIB_MIN: u64 = 4;
/// Bytes of a Unix socket's path, without the zero at its end.
const SOCKET_BYTES_MAX: usize = 107;
/// Largest memory budget in MiB: 1 TiB. More is a slip of the unit.
const MEMORY_MIB_MAX: u64 = 1 << 20;

/// A value and where it stands. A default stands nowhere: its place is the start of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Bytes of the text.
    pub span: Range<usize>,
}

impl<T> Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> From<T> for At<T> {
    fn from(value: T) -> At<T> {
        At { value, span: 0..0 }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<At<T>, D::Error> {
        let spanned = toml::Spanned::<T>::deserialize(from)?;
        let span = spanned.span();
        Ok(At { value: spanned.into_inner(), span })
    }
}

/// A number of `LOW..=HIGH`.
pub(super) fn bounded<'de, D: Deserializer<'de>, const LOW: i64, const HIGH: i64>(
    from: D,
) -> Result<u32, D::Error> {
    let number = i64::deserialize(from)?;
    let fits = u32::try_from(number).ok().filter(|_| (LOW..=HIGH).contains(&number));
    fits.ok_or_else(|| D::Error::custom(format_args!("{number} is not between {LOW} and {HIGH}")))
}

/// The same for a key that may be missing.
pub(super) fn maybe_bounded<'de, D: Deserializer<'de>, const LOW: i64, const HIGH: i64>(
    from: D,
) -> Result<Option<u32>, D::Error> {
    bounded::<D, LOW, HIGH>(from).map(Some)
}

/// What is wrong, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file, as it was named.
    pub file: String,
    /// Line and column, from 1.
    pub at: (usize, usize),
    /// The rest.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.at.0, self.at.1, self.what)
    }
}

impl std::error::Error for Fault {}

/// A profile with the text that it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says.
    pub profile: Profile,
    /// Its path, or the name of a shipped one.
    pub file: String,
    text: String,
}

impl Loaded {
    /// Reads a file; a name without a slash that is no file is that of a shipped profile.
    ///
    /// # Errors
    /// Everything that is wrong, at least one.
    pub fn open(name: &Path) -> Result<Loaded, Vec<Fault>> {
        let file = name.display().to_string();
        let shipped = if name.exists() { None } else { shipped::find(&file) };
        let (text, base) = match shipped {
            Some(text) => (text.to_owned(), PathBuf::from("/")),
            None => {
                let text =
                    read_text(name).map_err(|what| vec![Fault { file: file.clone(), at: (1, 1), what }])?;
                let path = std::path::absolute(name).unwrap_or_else(|_| name.to_owned());
                (text, path.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned))
            }
        };
        Loaded::parse(&file, text, &base)
    }

    /// Reads text; relative paths in it are below `base`.
    pub fn parse(file: &str, text: String, base: &Path) -> Result<Loaded, Vec<Fault>> {
        let mut profile: Profile = toml::from_str(&text).map_err(|error| {
            let at = position(&text, error.span().map_or(0, |span| span.start));
            // Lists of what was expected are long and on lines of their own.
            let what = error.message().replace('\n', ", ");
            vec![Fault { file: file.to_owned(), at, what }]
        })?;
        anchor(&mut profile, base);
        let loaded = Loaded { profile, file: file.to_owned(), text };
        let faults = judge(&loaded);
        if faults.is_empty() { Ok(loaded) } else { Err(faults) }
    }

    /// A fault at a value of this profile.
    pub fn fault<T>(&self, at: &At<T>, what: impl fmt::Display) -> Fault {
        Fault { file: self.file.clone(), at: position(&self.text, at.span.start), what: what.to_string() }
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!("{error}; give the path of a profile, or one of the shipped ones: {}", shipped::names())
        }
        _ => error.to_string(),
    })?;
    file.take(PROFILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > PROFILE_BYTES_MAX {
        return Err("too large for a board profile; check the path".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "not text (UTF-8); check the path".to_owned())
}

/// Line and column of a byte, from 1; columns count characters.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or("");
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// Makes all paths absolute.
fn anchor(profile: &mut Profile, base: &Path) {
    let Profile { repository, backplane, volume, control, api, .. } = profile;
    let own = [
        &mut repository.key_file,
        &mut repository.passphrase_file,
        &mut repository.ca_file,
        &mut repository.credentials_file,
    ];
    let mut paths: Vec<&mut At<PathBuf>> = own.into_iter().flatten().collect();
    if let Some(plane) = backplane {
        paths.extend([&mut plane.cert_file, &mut plane.key_file, &mut plane.ca_file]);
    }
    paths.extend(volume.iter_mut().map(|volume| &mut volume.device));
    paths.push(&mut control.socket);
    if let Some(api) = api {
        let own = [&mut api.cert_file, &mut api.key_file, &mut api.client_ca_file, &mut api.socket];
        paths.extend(own.into_iter().flatten());
    }
    for path in paths {
        path.value = base.join(&path.value);
    }
}

/// What the parser cannot see.
fn judge(loaded: &Loaded) -> Vec<Fault> {
    let profile = &loaded.profile;
    let mut faults = Vec::new();
    let mut say = |fault: Fault| faults.push(fault);
    if profile.node.name.trim().is_empty() || profile.node.name.chars().any(char::is_control) {
        say(loaded.fault(&profile.node.name, "node.name: write a name that people know the node by"));
    }
    if let (Some(_), Some(passphrase)) = (&profile.repository.key_file, &profile.repository.passphrase_file) {
        let what = "repository: a key file and a passphrase file; leave one of them out";
        say(loaded.fault(passphrase, what));
    }
    judge_memory(loaded, &mut say);
    judge_peers(loaded, &mut say);
    judge_volumes(loaded, &mut say);
    let socket = &profile.control.socket;
    if socket.as_os_str().len() > SOCKET_BYTES_MAX {
        say(loaded.fault(
            socket,
            format_args!("control.socket: longer than {SOCKET_BYTES_MAX} bytes, which no socket can be"),
        ));
    }
    judge_api(loaded, &mut say);
    let timing = profile.timing();
    if timing.beat_ns == 0 || timing.beat_ns.saturating_mul(3) > timing.lease_ns {
        let beat = profile.lease.beat_ms.clone().unwrap_or_default();
        let what = format_args!(
            "lease.beat_ms: at least 1 and at most a third of the lease ({} ms), so that one lost beat does not lose it",
            timing.lease_ns / 3_000_000
        );
        say(loaded.fault(&beat, what));
    }
    faults
}

fn judge_api(loaded: &Loaded, say: &mut dyn FnMut(Fault)) {
    let Some(api) = &loaded.profile.api else { return };
    let files =
        [("cert_file", &api.cert_file), ("key_file", &api.key_file), ("client_ca_file", &api.client_ca_file)];
    if let Some(listen) = &api.listen {
        for (name, _) in files.iter().filter(|(_, file)| file.is_none()) {
            say(loaded.fault(
                listen,
                format_args!("api.{name}: it is needed with api.listen; `windlass pki` makes the files"),
            ));
        }
    }
    if api.listen.is_none()
        && let Some((name, file)) = files.iter().find_map(|(name, file)| Some((name, file.as_ref()?)))
    {
        say(loaded.fault(file, format_args!("api.{name}: there is no api.listen that it is for")));
    }
    if let Some(socket) = api.socket.as_ref().filter(|socket| socket.as_os_str().len() > SOCKET_BYTES_MAX) {
        let what = format_args!("api.socket: longer than {SOCKET_BYTES_MAX} bytes, which no socket can be");
        say(loaded.fault(socket, what));
    }
    if let Some(socket) =
        api.socket.as_ref().filter(|socket| socket.value == loaded.profile.control.socket.value)
    {
        say(loaded.fault(socket, "api.socket: it is control.socket too; name another path"));
    }
    if api.listen.is_none() && api.socket.is_none() {
        let at = At { value: (), span: 0..0 };
        say(loaded.fault(
            &at,
            "api: it says neither listen nor socket, so no one reaches it; write one, or leave [api] out",
        ));
    }
}

fn judge_memory(loaded: &Loaded, say: &mut dyn FnMut(Fault)) {
    let memory = &loaded.profile.memory;
    let kib = memory.block_kib_max.value;
    if !kib.is_power_of_two() || kib < BLOCK_KIB_MIN || kib > u64::from(BLOCK_BYTES_MAX) >> 10 {
        let what = format_args!(
            "memory.block_kib_max: {kib} is not a power of two from {BLOCK_KIB_MIN} to {}",
            BLOCK_BYTES_MAX >> 10
        );
        return say(loaded.fault(&memory.block_kib_max, what));
    }
    if memory.budget_mib.value > MEMORY_MIB_MAX {
        let what =
            format_args!("memory.budget_mib: more than {MEMORY_MIB_MAX}; is the unit meant to be MiB?");
        return say(loaded.fault(&memory.budget_mib, what));
    }
    if let Err(small) = loaded.profile.budget() {
        say(loaded.fault(&memory.budget_mib, format_args!("memory.budget_mib: {small}")));
    }
}

fn judge_peers(loaded: &Loaded, say: &mut dyn FnMut(Fault)) {
    let profile = &loaded.profile;
    let peers = &profile.peer;
    if let (Some(first), None) = (peers.first(), &profile.backplane) {
        let what = "peer: there is no [backplane] to reach it by; write listen, cert_file, key_file and ca_file there";
        say(loaded.fault(&first.node, what));
    }
    if let Some(extra) = peers.get(PEERS_MAX) {
        say(loaded
            .fault(&extra.node, format_args!("peer: more than {PEERS_MAX}, which a cluster cannot have")));
    }
    for (index, peer) in peers.iter().enumerate() {
        let number = peer.node.value;
        let before = &peers[..index];
        if i64::from(number) > NODE_MAX {
            say(loaded.fault(&peer.node, format_args!("peer.node: {number} is not between 0 and {NODE_MAX}")));
        }
        if number == profile.node.id {
            say(loaded
                .fault(&peer.node, format_args!("peer.node: {number} is this node itself; leave it out")));
        }
        if before.iter().any(|other| other.node.value == number) {
            say(loaded.fault(&peer.node, format_args!("peer.node: {number} is there twice; leave one out")));
        }
        if before.iter().any(|other| other.address.value == peer.address.value) {
            let what = format_args!("peer.address: {} is another peer's too", peer.address.value);
            say(loaded.fault(&peer.address, what));
        }
        if peer.address.port() == 0 {
            say(loaded.fault(&peer.address, "peer.address: port 0 cannot be reached"));
        }
    }
}

fn judge_volumes(loaded: &Loaded, say: &mut dyn FnMut(Fault)) {
    let volumes = &loaded.profile.volume;
    if let Some(extra) = volumes.get(VOLUMES_MAX) {
        say(loaded
            .fault(&extra.device, format_args!("volume: more than {VOLUMES_MAX}, which a node cannot have")));
    }
    for (index, volume) in volumes.iter().enumerate() {
        if let Some(name) = volume.name.as_ref().filter(|name| check_name(name).is_err()) {
            let what = "volume.name: 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first";
            say(loaded.fault(name, what));
        }
        let title = volume.title();
        if title.len() > DEVICE_BYTES_MAX || volume.device.to_str().is_none() {
            let what = format_args!(
                "volume.device: a path of UTF-8 and at most {DEVICE_BYTES_MAX} bytes, or give it a name"
            );
            say(loaded.fault(&volume.device, what));
        }
        if volumes[..index].iter().any(|other| other.title() == title) {
            let span = volume.name.as_ref().map_or(&volume.device.span, |name| &name.span);
            let at = At { value: (), span: span.clone() };
            say(loaded.fault(&at, format_args!("volume {title}: there is another of that name; rename one")));
        }
    }
}
