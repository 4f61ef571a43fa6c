//! Ctrl-C and SIGTERM: the first asks the job to stop cleanly, the second ends the process at once.
//!
//! What "cleanly" means: a backup ends with what is committed, and the next run goes on there; a restore leaves no half-written
//! file under its final name. Ending at once is as safe (kill -9 is), it only costs more work again.
//!
//! Without `unsafe` and without a handler: the signals are blocked for the whole process and one thread waits for them. Threads
//! that exist already keep their mask, so this comes before any other thread is made. Child processes get a clean mask from std.
//!
//! Source: sigwait(3).

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SigSet, Signal};
use windlass_agent::progress::Progress;

use crate::failure::{Exit, Failure};
use crate::logger;

/// Stack of the thread, in bytes: it waits and prints.
const STACK_BYTES: usize = 64 << 10;
/// What a shell adds to the number of the signal that ended a command.
const EXIT_OF_SIGNALS: i32 = 128;

/// The signal that asked this process to stop; 0 for none.
static ASKED: AtomicI32 = AtomicI32::new(0);

/// Whether a signal asked this process to stop.
pub fn is_asked() -> bool {
    ASKED.load(Ordering::Relaxed) != 0
}

/// The exit code of a command that failed: that of the signal which made it stop, as a shell gives it, or its own.
pub fn exit_code(exit: Exit) -> ExitCode {
    match ASKED.load(Ordering::Relaxed) {
        signal if signal != 0 && exit == Exit::Failed => ExitCode::from((EXIT_OF_SIGNALS + signal) as u8),
        _ => exit.into(),
    }
}

/// From now on signals stop `job`. Call once, before threads are made.
pub fn watch(job: &Arc<Progress>) -> Result<(), Failure> {
    let job = Arc::clone(job);
    let mut asked = false;
    start(move |signal| {
        end_if(asked, signal);
        asked = true;
        ASKED.store(signal as i32, Ordering::Relaxed);
        job.request_stop();
        logger::say(format_args!("windlass: {signal}, stopping cleanly; once more ends at once"));
    })
}

/// From now on signals are told to an agent: SIGHUP to read its profile again, the others to stop; a second one of those ends the
/// process at once. Call once, before threads are made.
pub fn tell(mut agent: impl FnMut(Wish) + Send + 'static) -> Result<(), Failure> {
    let mut asked = false;
    start(move |signal| {
        if signal == Signal::SIGHUP {
            return agent(Wish::Reload);
        }
        end_if(asked, signal);
        asked = true;
        agent(Wish::Stop);
    })
}

/// What a signal asks of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Stop cleanly.
    Stop,
    /// Read the profile again.
    Reload,
}

fn start(mut obey: impl FnMut(Signal) + Send + 'static) -> Result<(), Failure> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGHUP);
    signals.thread_block().map_err(|errno| Failure::at("signals", errno.desc()))?;
    let builder = std::thread::Builder::new().name("signals".to_owned()).stack_size(STACK_BYTES);
    builder
        .spawn(move || {
            while let Ok(signal) = signals.wait() {
                obey(signal);
            }
        })
        .map_err(|error| Failure::at("cannot start a thread", error))?;
    Ok(())
}

fn end_if(asked: bool, signal: Signal) {
    if asked {
        logger::say(format_args!("windlass: {signal} again, ended at once; what was committed is kept"));
        log::logger().flush();
        std::process::exit(EXIT_OF_SIGNALS + signal as i32);
    }
}
