//! `windlass agent`: a node of a cluster, for good. Boot in a fixed order, then one loop.
//!
//! ```text
//!  boot:  profile -> signals -> control socket -> store answers, repository, probe -> pools and threads -> backplane -> node -> ready
//!
//!            +-- backplane (TLS over TCP) --+
//!  poll ---> +-- control socket ------------+ ---> Node ---> Send, Call, Probe, Start, Stop, Committed, Reply
//!            `-- post: log, job, look ------+              (backplane, log threads, job and look threads, control socket)
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`reactor`] | the loop: what carries the node's actions out |
//! | [`boot`] | the repository at boot: waited for, and its store tested |
//! | [`front`] | what is answered meanwhile |
//!
//! Data has threads of its own because a sweep waits for the device, and neither a beat nor a frame may wait for a sweep.
//!
//! Source: `agent/doc/architecture.md`, Threads.

mod boot;
mod front;
mod reactor;

use std::path::Path;
use std::sync::Arc;

use windlass_agent::backplane::net::{Net, NetConfig, conns_max};
use windlass_agent::backplane::session::{Local, PROTOCOLS};
use windlass_agent::backplane::tls::{Pem, Tls};
use windlass_agent::format::slot::HolderKind;
use windlass_agent::id::{Boot, NodeId};
use windlass_agent::node::Node;
use windlass_agent::units::HumanTime;
use windlass_agent::work::Present;
use windlass_hal::linux::link::TcpLink;
use windlass_hal::linux::poll::Poll;

use crate::api::shared::Shared;
use crate::api::{self, Api};
use crate::cli::args::global::Global;
use crate::control::server::Server;
use crate::engine::desk::Desk;
use crate::engine::host::{self, HostClock};
use crate::engine::limits::StoreLimits;
use crate::engine::machinery::pools;
use crate::engine::node::{self, Engine};
use crate::engine::post::{Letter, Post};
use crate::engine::repository::Repository;
use crate::engine::settings::{Access, Settings};
use crate::engine::volumes::{Listed, Volumes};
use crate::engine::worker::Work;
use crate::failure::{Exit, Failure};
use crate::notify::Notify;
use crate::profile::{Backplane, Profile, read::Loaded};
use crate::{logger, signal};

use front::Front;
use reactor::{NET_TOKEN, Reactor};

/// How long a command waits for a coordinator: a dead one's lease must run out first, in leases.
const REQUEST_LEASES: u64 = 4;
/// Descriptors reported in one wait: all clients, some connections.
const EVENTS_MAX: usize = 128;

/// The profile, or every fault in it in one failure.
fn load(file: &Path) -> Result<Profile, Failure> {
    match Loaded::open(file) {
        Ok(loaded) => Ok(loaded.profile),
        Err(faults) => {
            faults.iter().for_each(logger::say);
            Err(Failure::usage(format_args!(
                "the profile {} cannot be used; `windlass board check {0}` shows the same",
                file.display()
            )))
        }
    }
}

/// `agent`.
pub fn run(global: &Global, file: &Path) -> Result<Exit, Failure> {
    let profile = load(file)?;
    host::refuse_memory(profile.memory_bytes())
        .map_err(|why| Failure::usage(format_args!("memory.budget_mib: {why}")))?;
    let access = Access::from(global).or(profile.access());
    let poll = Poll::new(EVENTS_MAX).map_err(|error| Failure::at("cannot make a poll", error))?;
    let (post, letters) = Post::new(poll.waker());
    let wishes = post.clone();
    signal::tell(move |wish| wishes.send(Letter::Wish(wish)))?;
    logger::never_wait()?;

    let mut notify = Notify::from_environment();
    let me = (profile.id(), host::boot()?);
    let volumes = Listed::new(&profile);
    let identity = profile.identity(&access);
    let server = Server::open_for(&profile.control.socket, profile.control.group.as_deref())?;
    let open_api = profile.api.as_ref().map(api::open).transpose()?;
    let mut front = Front::new(server, identity.clone(), present(&profile, &volumes, me.1));
    let Some(repository) = boot::reach(&access, &letters, &mut notify, &mut front)? else {
        return Ok(Exit::Done);
    };
    let repository = Arc::new(repository);
    let budget = profile.budget().map_err(Failure::usage)?;
    let settings = Settings::of_agent(budget, profile.block_bytes_max(), profile.timing());
    warn_of_lease(&profile, &repository);
    let throttle = Arc::clone(&repository.opened.throttle);
    let limits = Arc::new(StoreLimits::new(throttle, &profile.limits, volumes.divided()));
    let work = Work {
        target: repository.target(),
        volumes: Arc::new(volumes.clone()),
        settings,
        limits: Arc::clone(&limits),
        author: me,
        pools: pools(&settings.budget, settings.block_bytes_max)?,
        has_peers: profile.backplane.is_some() && !profile.peer.is_empty(),
        upkeep: Some(Arc::clone(&repository)),
        watch: Arc::new(|_| {}),
    };
    let (net, peers) = match &profile.backplane {
        Some(backplane) => {
            let peers = profile.peer.iter().map(|peer| NodeId(peer.node.value)).collect();
            (Some(net(&profile, backplane, &repository, me.1, &poll)?), peers)
        }
        None => (None, Vec::new()),
    };
    let request_ns = REQUEST_LEASES.saturating_mul(settings.timing.lease_ns);
    let config =
        node::config(&work, HolderKind::Agent, peers, present(&profile, &volumes, me.1), request_ns)?;
    let node = Node::new(HostClock.boot_ns(), config);
    let engine = Engine::start(node, work, net, &post, letters)?;
    let (desk, wanted) = Desk::new(poll.waker());
    let mut reactor = Reactor::new(poll, front.into_server(), engine, identity.clone(), wanted)?;
    let current = open_api.as_ref().map(|(_, current)| current.clone());
    let shared =
        || Arc::new(Shared::new(desk, Arc::clone(&repository), identity, profile.memory_bytes(), me.1.0));
    // It ends before the reactor does: what it asks is answered.
    let _api = open_api.map(|(listening, current)| Api::start(listening, current, shared())).transpose()?;
    logger::say(format_args!("windlass: node {} is up", me.0));
    notify.ready();
    let reload = || {
        let profile = load(file)?;
        let tls = profile.backplane.as_ref().map(|backplane| tls(me.0, backplane)).transpose()?;
        if let (Some(current), Some(files)) = (&current, profile.api.as_ref().and_then(|api| api.tls())) {
            current.set(api::tls::config(&files)?);
        }
        volumes.replace(&profile);
        limits.set_profile(&profile.limits);
        Ok((present(&profile, &volumes, me.1), tls))
    };
    reactor.run(&mut notify, &reload);
    Ok(Exit::Done)
}

/// Says that the lease of the repository goes before the profile's, where both say one and they differ. A log that cannot be read now is
/// read later, and says of itself what is wrong.
fn warn_of_lease(profile: &Profile, repository: &Repository) {
    let Some(own_ms) = profile.lease.lease_ms else { return };
    let lease_ns = repository.view().ok().and_then(|view| view.state.lease_ns);
    if let Some(lease_ns) = lease_ns.filter(|&ns| ns != u64::from(own_ms) * 1_000_000) {
        logger::say(format_args!(
            "windlass: the lease of the repository is {} (`windlass repo set --lease`) and goes before lease_ms = {own_ms} of this board \
             profile; take that line out, or set the repository's",
            HumanTime(lease_ns)
        ));
    }
}

/// What a node says of itself.
fn present(profile: &Profile, volumes: &Listed, boot: Boot) -> Present {
    Present {
        boot,
        weight: profile.work.weight,
        memory_bytes: profile.memory_bytes(),
        lanes: u32::try_from(profile.cores()).unwrap_or(u32::MAX),
        rate: 0,
        volumes: volumes.titles(),
        held: Vec::new(),
        merging: None,
        uploaded: 0,
    }
}

/// The backplane's certificates, as they are in their files now.
fn tls(node: NodeId, backplane: &Backplane) -> Result<Tls, Failure> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| Failure::at(path.display(), error));
    let (ca, certificate, key) =
        (read(&backplane.ca_file)?, read(&backplane.cert_file)?, read(&backplane.key_file)?);
    let pem = Pem { ca: &ca, certificate: &certificate, key: &key };
    Tls::new(node, pem, HostClock::shared())
        .map_err(|fault| Failure::at(backplane.cert_file.display(), fault))
}

fn net(
    profile: &Profile,
    backplane: &Backplane,
    repository: &Repository,
    boot: Boot,
    poll: &Poll,
) -> Result<Net<TcpLink>, Failure> {
    let tls = tls(profile.id(), backplane)?;
    let failed = |what: String| Failure::at(format_args!("backplane {}", *backplane.listen), what);
    let mut link = TcpLink::new(poll, NET_TOKEN, conns_max(profile.peer.len()))
        .map_err(|error| failed(error.to_string()))?;
    link.listen(&backplane.listen.to_string()).map_err(|fault| failed(fault.to_string()))?;
    let local = Local {
        cluster: repository.format.uuid,
        node: profile.id(),
        boot,
        name: profile.node.name.value.clone(),
        protocols: PROTOCOLS,
    };
    let peers = profile.peer.iter().map(|peer| (NodeId(peer.node.value), peer.address.to_string())).collect();
    let config = NetConfig { local, peers, seed: u64::from_le_bytes(host::random()?) };
    Net::new(link, Box::new(tls), config).map_err(Failure::usage)
}
