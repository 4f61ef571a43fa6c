//! What the service manager is told: ready, stopping, a line of status, and that the agent is alive.
//!
//! One datagram per message to the socket that `NOTIFY_SOCKET` names (`/path`, or `@name` for an abstract one). Without the
//! variable, or when nobody listens, nothing is sent: the agent does not depend on it.
//!
//! The watchdog is fed by the reactor, after a full turn; never by a timer or thread of its own. Source: sd_notify(3).

use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Bytes of a status line; longer ones are cut.
const STATUS_BYTES_MAX: usize = 256;
/// Shortest time between two messages to the watchdog, in nanoseconds.
const FEED_NS_MIN: u64 = 1_000_000;

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants to hear from the watchdog, halved, in nanoseconds.
    every_ns: Option<u64>,
    fed_ns: Option<u64>,
    status: String,
}

impl Notify {
    /// As the environment says.
    pub fn from_environment() -> Notify {
        let var = |name: &str| std::env::var_os(name);
        Notify::new(var("NOTIFY_SOCKET"), var("WATCHDOG_USEC"), var("WATCHDOG_PID"), std::process::id())
    }

    fn new(socket: Option<OsString>, usec: Option<OsString>, pid: Option<OsString>, own: u32) -> Notify {
        let number = |text: OsString| text.to_str().and_then(|text| text.parse::<u64>().ok());
        // A watchdog that is meant for another process of the service is not ours to feed.
        let ours = pid.is_none_or(|pid| number(pid) == Some(own.into()));
        let every = usec.and_then(number).filter(|&usec| ours && usec > 0);
        Notify {
            to: socket.and_then(|socket| open(&socket)),
            every_ns: every.map(|usec| (usec.saturating_mul(1000) / 2).max(FEED_NS_MIN)),
            ..Notify::default()
        }
    }

    fn send(&self, message: &str) {
        if let Some((socket, to)) = &self.to
            && let Err(error) = socket.send_to_addr(message.as_bytes(), to)
        {
            log::debug!("notify: not sent error={error}");
        }
    }

    /// The agent works.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The agent stops.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// What it does, in a line; the same line is sent once.
    pub fn status(&mut self, line: &str) {
        let line = line[..line.floor_char_boundary(STATUS_BYTES_MAX)].replace('\n', " ");
        if self.to.is_some() && line != self.status {
            self.send(&format!("STATUS={line}"));
            self.status = line;
        }
    }

    /// A full turn went by in which everything moved or had nothing to do.
    pub fn alive(&mut self, now_ns: u64) {
        if self.feed_at().is_some_and(|at| now_ns >= at) {
            self.fed_ns = Some(now_ns);
            self.send("WATCHDOG=1");
        }
    }

    /// When the watchdog wants to hear next, on the clock that [`Notify::alive`] is given.
    pub fn feed_at(&self) -> Option<u64> {
        self.every_ns.map(|every| self.fed_ns.map_or(0, |fed| fed.saturating_add(every)))
    }
}

fn open(name: &OsStr) -> Option<(UnixDatagram, SocketAddr)> {
    let to = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => return None,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    Some((socket, to.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn received(socket: &UnixDatagram) -> Vec<String> {
        socket.set_nonblocking(true).unwrap();
        let mut all = Vec::new();
        let mut bytes = [0; 1024];
        while let Ok(count) = socket.recv(&mut bytes) {
            all.push(String::from_utf8(bytes[..count].to_vec()).unwrap());
        }
        all
    }

    fn text(value: &str) -> Option<OsString> {
        Some(value.into())
    }

    fn talk(socket: &UnixDatagram, name: &OsStr) {
        let mut notify = Notify::new(Some(name.to_owned()), text("4000000"), text("7"), 7);
        notify.ready();
        notify.status("idle");
        notify.status("idle");
        notify.status(&"\u{e4}".repeat(STATUS_BYTES_MAX));
        for now_ns in [SECOND, 2 * SECOND, 3 * SECOND, 5 * SECOND] {
            notify.alive(now_ns);
        }
        assert_eq!(notify.feed_at(), Some(7 * SECOND));
        notify.stopping();
        let cut = format!("STATUS={}", "\u{e4}".repeat(STATUS_BYTES_MAX / 2));
        let said = ["READY=1", "STATUS=idle", &cut, "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"];
        assert_eq!(received(socket), said);
    }

    #[test]
    fn the_manager_hears_it_at_a_path_and_at_an_abstract_name() {
        let path = std::env::temp_dir().join(format!("windlass-notify-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        talk(&socket, path.as_os_str());
        std::fs::remove_file(&path).unwrap();
        let name = format!("windlass-notify-{}", std::process::id());
        let socket =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name.as_bytes()).unwrap()).unwrap();
        talk(&socket, OsStr::new(&format!("@{name}")));
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        for socket in [None, text(""), text("relative"), text("/none/such")] {
            let mut notify = Notify::new(socket, None, None, 7);
            notify.ready();
            notify.status("x");
            notify.alive(SECOND);
            assert_eq!(notify.feed_at(), None);
        }
        assert_eq!(Notify::new(None, text("1000000"), text("8"), 7).feed_at(), None);
        assert_eq!(Notify::new(None, text("0"), None, 7).feed_at(), None);
        assert_eq!(Notify::new(None, text("1000000"), None, 7).feed_at(), Some(0));
    }
}
