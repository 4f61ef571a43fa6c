//! The repository at boot: waited for while its store does not answer, and the store tested before anything is written to it.
//!
//! ```text
//!  thread:  store answers? --no--> wait --+      open --> probe --> the repository
//!             ^---------------------------+        `--------`----> refused: the agent ends
//!  main:    listens for signals, tells the service manager that it lives, and whoever asks what it waits for
//! ```
//!
//! A node that comes up before its network does (all of them, after a power failure) is there when the store is. A store that answers and is
//! wrong ends the agent at once: what it ignores would be found out by two coordinators.
//!
//! Invariants: nothing is claimed, committed or uploaded before the probe has passed (C6).
//! Source: `agent/doc/commit-log.md`, C6.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::front::Front;
use crate::engine::host::HostClock;
use crate::engine::post::Letter;
use crate::engine::repository::{Opened, Repository, answers};
use crate::engine::settings::Access;
use crate::failure::Failure;
use crate::logger;
use crate::notify::Notify;
use crate::repeats::without_numbers;
use crate::signal::Wish;

/// First pause before a store is asked again, in milliseconds; doubles.
const PAUSE_MS_MIN: u64 = 500;
/// Longest pause, in milliseconds: what an appliance waits at most after its store is back.
const PAUSE_MS_MAX: u64 = 8_000;
/// How often signals and commands are looked for, in milliseconds.
const TURN_MS: u64 = 100;

/// A repository, or what did not answer.
type News = Result<Result<Repository, String>, Failure>;

/// Opens the repository and tests its store. `None`: a signal asked to stop meanwhile.
///
/// # Errors
/// The store answers, and there is no repository that can be opened, or the store fails the probe.
pub fn reach(
    access: &Access,
    letters: &Receiver<Letter>,
    notify: &mut Notify,
    front: &mut Front,
) -> Result<Option<Repository>, Failure> {
    let (tell, told) = channel();
    let access = access.clone();
    let thread = std::thread::Builder::new().name("boot".to_owned());
    thread
        .spawn(move || try_until_told(&access, &tell))
        .map_err(|error| Failure::at("cannot start a thread", error))?;
    let (mut waits, mut told_of) = (false, String::new());
    loop {
        front.serve();
        match told.recv_timeout(Duration::from_millis(TURN_MS)) {
            Ok(Ok(Ok(repository))) => return Ok(Some(repository)),
            Ok(Ok(Err(why))) => {
                let kind = without_numbers(&why);
                if kind != told_of {
                    logger::say(format_args!("windlass: waiting for the store: {why}"));
                    told_of = kind;
                }
                if !waits {
                    // The service manager would end what takes long to be ready.
                    notify.ready();
                    waits = true;
                }
                notify.status(&format!("waiting for the store: {why}"));
                front.waits_for(format!("this agent waits for the store: {why}"));
            }
            Ok(Err(failure)) => return Err(failure),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::new("the repository could not be opened"));
            }
        }
        while let Ok(letter) = letters.try_recv() {
            // A profile is read once it is over.
            if matches!(letter, Letter::Wish(Wish::Stop)) {
                notify.stopping();
                logger::say("windlass: stopped");
                return Ok(None);
            }
        }
        if waits {
            notify.alive(HostClock.boot_ns());
        }
    }
}

fn try_until_told(access: &Access, tell: &Sender<News>) {
    let mut pause_ms = PAUSE_MS_MIN;
    loop {
        let news = attempt(access);
        let waits = matches!(news, Ok(Err(_)));
        if tell.send(news).is_err() || !waits {
            return;
        }
        HostClock.sleep(Duration::from_millis(pause_ms));
        pause_ms = (2 * pause_ms).min(PAUSE_MS_MAX);
    }
}

fn attempt(access: &Access) -> News {
    // What follows repeats for minutes before it gives up, and says nothing.
    let opened = Opened::new(access)?;
    if let Err(why) = answers(&opened) {
        return Ok(Err(why));
    }
    let store = Arc::clone(&opened.store);
    let repository = match Repository::over(opened, access) {
        Err(failure) if store.watch().words().is_some_and(|fault| fault.is_transient()) => {
            return Ok(Err(failure.to_string()));
        }
        opened => opened?,
    };
    repository.check_age()?;
    let begun_ns = HostClock.boot_ns();
    let probed = repository.opened.probe_again()?;
    let took_ms = HostClock.boot_ns().saturating_sub(begun_ns) / 1_000_000;
    log::info!("store: probed passes={} took_ms={took_ms}", probed.is_ok());
    Ok(probed.map(|()| repository))
}
