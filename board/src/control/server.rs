//! The listening socket and its clients. Nothing here waits: the agent's reactor says when a descriptor is ready.
//!
//! | call | when |
//! |---|---|
//! | [`Server::accept`] | the listener is ready: until `None` |
//! | [`Server::serve`] | a client is ready, or was answered: until no request comes |
//! | [`Server::answer`] | a request is dealt with; an answer for a client that is gone is dropped |
//! | [`Server::close`] | a client is over: it may have left while its request was out |
//! | [`Server::expire`] | now and then: clients that hold a place and say nothing |
//!
//! Invariants: the socket is readable by its owner only, and by one group where the profile names one; and the kernel's word on who connects is checked on top. A second agent
//! on the same socket is refused; a socket that nobody listens on is taken over. Source: unix(7).

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::{Gid, Group, chown, geteuid};
use windlass_agent::backplane::message::SUBJECTS_BYTES_MAX;
use windlass_agent::coordinator::access::OWNER;
use windlass_hal::linux::peer_groups;

use super::conversation::Conversation;
use super::wire::{Answer, Request};
use crate::failure::Failure;
use crate::recent;

/// Clients at once. One more is told to come back.
pub const CLIENTS_MAX: usize = 16;
/// For how long a client may say nothing, in nanoseconds, before its place is given to others.
const IDLE_NS: u64 = 120_000_000_000;
/// Groups of a client that are asked for, as many as the kernel lets one have. Which of them count: [`names`].
const GROUPS_MAX: usize = 65_536;
/// Bytes read in one go.
const READ_BYTES: usize = 4096;

/// Names a client: a place, and which client in that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientId {
    /// `0..CLIENTS_MAX`.
    pub place: usize,
    generation: u64,
}

/// What a turn with a client brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// It asks this; answer it.
    Request(Request),
    /// Nothing to do until it is ready again.
    Waiting,
    /// All is said: forget its descriptor, then [`Server::close`] it.
    Over,
}

struct Client {
    generation: u64,
    /// Who it is: names with commas between.
    subject: String,
    stream: UnixStream,
    talk: Conversation,
    /// When it last said or took something.
    last_ns: u64,
}

/// See the module.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    clients: [Option<Client>; CLIENTS_MAX],
    generation: u64,
    /// Who may talk to it besides root.
    owner: u32,
    /// A group may too: the kernel lets no one else connect, and roles say what each may do.
    is_open: bool,
}

impl Server {
    /// Listens at `path`; makes its directory.
    pub fn open(path: &Path) -> Result<Server, Failure> {
        Server::open_for(path, None)
    }

    /// The same for a group too, by name or number.
    pub fn open_for(path: &Path, group: Option<&str>) -> Result<Server, Failure> {
        let failed = |error: std::io::Error| Failure::at(path.display(), error);
        if let Some(above) = path.parent() {
            fs::create_dir_all(above).map_err(|error| Failure::at(above.display(), error))?;
        }
        match UnixStream::connect(path) {
            Ok(_) => return Err(Failure::at(path.display(), "an agent listens here already; stop it first")),
            // Connecting is refused by a socket that an agent left behind which was killed, and by any other kind of file.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                if !fs::symlink_metadata(path).map_err(failed)?.file_type().is_socket() {
                    return Err(Failure::at(
                        path.display(),
                        "this is no socket, and is left alone; move it away, or name another path as `socket` of [control]",
                    ));
                }
                fs::remove_file(path).map_err(failed)?;
            }
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
        if let Some(name) = group {
            give_to(path, name)?;
        }
        listener.set_nonblocking(true).map_err(failed)?;
        let owner = geteuid().as_raw();
        let clients = [const { None }; CLIENTS_MAX];
        let is_open = group.is_some();
        Ok(Server { listener, path: path.to_owned(), clients, generation: 0, owner, is_open })
    }

    /// The listener, to wait for.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// A client's descriptor, to wait for (reading and writing).
    pub fn descriptor(&self, id: ClientId) -> Option<BorrowedFd<'_>> {
        self.clients[id.place]
            .as_ref()
            .filter(|client| client.generation == id.generation)
            .map(|c| c.stream.as_fd())
    }

    /// Which client is in a place.
    pub fn at(&self, place: usize) -> Option<ClientId> {
        let client = self.clients.get(place)?.as_ref()?;
        Some(ClientId { place, generation: client.generation })
    }

    /// Takes the next client that waits, if one does.
    pub fn accept(&mut self, now_ns: u64) -> Option<ClientId> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    if error.kind() != ErrorKind::WouldBlock {
                        log::warn!("control: accept failed error={error}");
                    }
                    return None;
                }
            };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            match self.admit(&stream) {
                Ok(place) => {
                    self.generation += 1;
                    let generation = self.generation;
                    let talk = Conversation::default();
                    let subject = self.subject(&stream);
                    self.clients[place] = Some(Client { generation, subject, stream, talk, last_ns: now_ns });
                    return Some(ClientId { place, generation });
                }
                // Nobody waits for a client that does not read even this.
                Err(why) => drop(writeln!(&stream, "{}", Answer::refused(why).emit())),
            }
        }
    }

    /// Who is at the other end, by the kernel's word; empty if it says nothing.
    fn subject(&self, stream: &UnixStream) -> String {
        peer_names(stream, self.owner)
    }

    /// Root and the agent's own user have the repository's key.
    fn is_owner(&self, uid: u32) -> bool {
        uid == 0 || uid == self.owner
    }

    /// Who a client is: names with commas between, as roles name them.
    pub fn subject_of(&self, id: ClientId) -> String {
        let client = self.clients.get(id.place).and_then(Option::as_ref);
        client
            .filter(|client| client.generation == id.generation)
            .map_or_else(String::new, |client| client.subject.clone())
    }

    /// Answers [`Request::Lines`]: lines name paths of what is backed up, so they are for those alone who may read all of it.
    pub fn lines_for(&self, id: ClientId, after: u64) -> Answer {
        if self.subject_of(id).split(',').any(|name| name == OWNER) {
            let (lines, last) = recent::after(after);
            return Answer::Lines(lines, last);
        }
        Answer::refused("only root and the agent's own user may read its log")
    }

    fn admit(&self, stream: &UnixStream) -> Result<usize, &'static str> {
        let uid = getsockopt(stream, PeerCredentials).map(|peer| peer.uid());
        if !uid.is_ok_and(|uid| self.is_open || self.is_owner(uid)) {
            return Err(
                "only root and the agent's own user may talk to it; `group` of [control] in its profile lets others",
            );
        }
        let free = self.clients.iter().position(Option::is_none);
        free.ok_or("too many commands talk to the agent at once; try again in a minute")
    }

    fn client(&mut self, id: ClientId) -> Option<&mut Client> {
        self.clients[id.place].as_mut().filter(|client| client.generation == id.generation)
    }

    /// Moves bytes both ways until a request is there or nothing moves.
    pub fn serve(&mut self, id: ClientId, now_ns: u64) -> Served {
        match self.client(id) {
            Some(client) => client.turn(now_ns),
            None => Served::Waiting,
        }
    }

    /// Answers a client's request. Call [`Server::serve`] afterwards: it may have said more meanwhile.
    pub fn answer(&mut self, id: ClientId, answer: &Answer) {
        if let Some(client) = self.client(id) {
            client.talk.answer(answer);
        }
    }

    /// Frees the place of a client that was [`Served::Over`].
    pub fn close(&mut self, id: ClientId) {
        if self.client(id).is_some() {
            self.clients[id.place] = None;
        }
    }

    /// A client that said nothing for too long, to be forgotten and closed.
    pub fn expire(&self, now_ns: u64) -> Option<ClientId> {
        let idle =
            |client: &Client| !client.talk.is_asked() && client.last_ns.saturating_add(IDLE_NS) <= now_ns;
        let place = self.clients.iter().position(|client| client.as_ref().is_some_and(idle))?;
        self.at(place)
    }
}

/// Who is at the other end of a socket, by the kernel's word, as roles name it: root and `owner` hold the key. Empty if the kernel says nothing.
pub fn peer_names(stream: &UnixStream, owner: u32) -> String {
    let Ok(peer) = getsockopt(stream, PeerCredentials) else { return String::new() };
    // Without them the first group is left, and roles for others are missed: less than is meant, never more.
    let groups = peer_groups(stream.as_fd(), GROUPS_MAX).unwrap_or_else(|errno| {
        log::warn!("control: groups of a client are not known error={errno}");
        Vec::new()
    });
    names(peer.uid(), peer.gid(), &groups, peer.uid() == 0 || peer.uid() == owner)
}

/// Who a client is, as a coordinator takes it: groups that do not fit [`SUBJECTS_BYTES_MAX`] are left out, the last first. Thirty fit in any
/// case.
fn names(uid: u32, gid: u32, groups: &[u32], is_owner: bool) -> String {
    let mut names = format!("uid:{uid},gid:{gid}");
    if is_owner {
        names.push(',');
        names.push_str(OWNER);
    }
    for (at, group) in groups.iter().enumerate().filter(|(_, group)| **group != gid) {
        let name = format!(",gid:{group}");
        if names.len() + name.len() > SUBJECTS_BYTES_MAX {
            log::warn!(
                "control: not all groups of a client count uid={uid} groups={} of={}",
                at,
                groups.len()
            );
            break;
        }
        names.push_str(&name);
    }
    names
}

/// Lets a group connect to a socket, by name or number.
///
/// # Errors
/// There is no such group.
pub fn give_to(path: &Path, name: &str) -> Result<(), Failure> {
    let known = Group::from_name(name).ok().flatten().map(|group| group.gid);
    let gid = known.or_else(|| name.parse().ok().map(Gid::from_raw));
    let gid = gid.ok_or_else(|| {
        Failure::at(
            path.display(),
            format_args!("there is no group {name}; see `group` of [control] or [api]"),
        )
    })?;
    chown(path, None, Some(gid)).map_err(|error| Failure::at(path.display(), error))
}

impl Drop for Server {
    fn drop(&mut self) {
        // A socket that stays is taken over by the next agent.
        let _ = fs::remove_file(&self.path);
    }
}

impl Client {
    fn turn(&mut self, now_ns: u64) -> Served {
        if self.talk.is_asked() && hung_up(&self.stream) {
            self.talk = gone();
        }
        loop {
            if !self.flush(now_ns) {
                return if self.talk.is_over() { Served::Over } else { Served::Waiting };
            }
            if let Some(request) = self.talk.next_request() {
                return Served::Request(request);
            }
            if self.talk.is_over() {
                return Served::Over;
            }
            // A refusal is to be sent before anything is read.
            if self.talk.output().is_empty() && !self.fill(now_ns) {
                return if self.talk.is_over() { Served::Over } else { Served::Waiting };
            }
        }
    }

    /// Sends; whether all of it is sent.
    fn flush(&mut self, now_ns: u64) -> bool {
        while !self.talk.output().is_empty() {
            match (&self.stream).write(self.talk.output()) {
                Ok(bytes) => {
                    self.last_ns = now_ns;
                    self.talk.sent(bytes);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(_) => {
                    self.talk = gone();
                    return false;
                }
            }
        }
        true
    }

    /// Reads; whether something came.
    fn fill(&mut self, now_ns: u64) -> bool {
        if !self.talk.wants_input() {
            return false;
        }
        let mut bytes = [0; READ_BYTES];
        loop {
            match (&self.stream).read(&mut bytes) {
                Ok(0) => {
                    self.talk.end();
                    return false;
                }
                Ok(count) => {
                    self.last_ns = now_ns;
                    self.talk.feed(&bytes[..count]);
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(_) => {
                    self.talk = gone();
                    return false;
                }
            }
        }
    }
}

/// Whether the other side has closed the connection for both ways: one that only says no more waits for its answer.
fn hung_up(stream: &UnixStream) -> bool {
    let mut polled = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    let hung_up = |flags: PollFlags| flags.contains(PollFlags::POLLHUP);
    poll(&mut polled, PollTimeout::ZERO).is_ok() && polled[0].revents().is_some_and(hung_up)
}

/// A conversation whose other side is no longer there.
fn gone() -> Conversation {
    let mut talk = Conversation::default();
    talk.end();
    talk
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_groups_as_far_as_a_message_has_room() {
        assert_eq!(names(7, 5, &[], false), "uid:7,gid:5");
        assert_eq!(names(7, 5, &[5, 27, 4242], false), "uid:7,gid:5,gid:27,gid:4242");
        assert_eq!(names(0, 0, &[0], true), "uid:0,gid:0,owner");
        let many: Vec<u32> = (0..100).map(|at| u32::MAX - at).collect();
        let long = names(u32::MAX, 1, &many, true);
        assert!(long.len() <= SUBJECTS_BYTES_MAX, "{}", long.len());
        let parts: Vec<&str> = long.split(',').collect();
        assert!(parts.contains(&OWNER) && parts.len() >= 3 + 30, "{}", parts.len());
        assert_eq!(parts.last(), Some(&&*format!("gid:{}", many[parts.len() - 4])), "no name is cut");
    }

    #[test]
    fn the_kernel_says_which_groups_a_client_has() {
        let (own, _other) = UnixStream::pair().unwrap();
        let groups = peer_groups(own.as_fd(), GROUPS_MAX).unwrap();
        let expected: Vec<u32> =
            nix::unistd::getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
        assert_eq!(groups, expected);
    }
}
