//! The commit log's own thread: commits and beats never wait behind bulk transfers, and bulk never waits behind them.
//!
//! The thread owns the session for as long as a backup runs: it performs one commit at a time, sends the beats that are due in
//! between, and gives the session back at the end. When the lease is lost, the next answer says so, whatever was asked.
//!
//! Source: ours; `agent/doc/architecture.md`, Threads.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use crate::drive::volume::CommitLog;
use windlass_hal::clock::Clock;

use crate::format::record::{Commit, Record, Stretch};
use crate::format::slot::Sealer;
use crate::id::{BackupId, VolumeId};
use crate::log::fault::LogFault;
use crate::log::session::Session;
use crate::worker::backup::Progress;

/// Longest wait of the thread between looks at the lease, in nanoseconds.
const LOOK_NS: u64 = 500_000_000;

/// The loop's end of the thread.
pub struct Commits {
    ask: Option<SyncSender<Vec<Record>>>,
    answers: Receiver<Result<(), LogFault>>,
    backup: BackupId,
    volume: VolumeId,
}

/// The thread; joining it gives the session back.
pub type Handle<'scope, 'env, S> = ScopedJoinHandle<'scope, (Session<'env, S>, Result<(), LogFault>)>;

impl Commits {
    /// Starts the thread in `scope`. `wake` is called after each answer.
    pub fn start<'scope, 'env, S: Sealer + Clone + Send + 'env>(
        scope: &'scope Scope<'scope, 'env>,
        session: Session<'env, S>,
        clock: &'env impl Clock,
        backup: BackupId,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> (Commits, Handle<'scope, 'env, S>)
    where
        'env: 'scope,
    {
        let (ask, asked) = sync_channel(1);
        let (answer, answers) = sync_channel(1);
        let handle = scope.spawn(move || serve(session, clock, &asked, &answer, &*wake));
        (Commits { ask: Some(ask), answers, backup, volume: VolumeId(0) }, handle)
    }

    /// Says which volume the next commits are about.
    pub fn set_volume(&mut self, volume: VolumeId) {
        self.volume = volume;
    }

    /// Commits records and waits for the answer.
    pub fn commit(&mut self, records: Vec<Record>) -> Result<(), LogFault> {
        self.send(records);
        self.answers.recv().unwrap_or(Err(LogFault::NotReady))
    }

    /// Lets the thread end.
    pub fn finish(&mut self) {
        self.ask = None;
    }

    fn send(&self, records: Vec<Record>) {
        if let Some(ask) = &self.ask {
            // A thread that ended has left its answer behind, or its channel is closed: `take_done` says so.
            let _ = ask.send(records);
        }
    }
}

impl CommitLog for Commits {
    fn begin(&mut self, progress: Progress) {
        let stretch = Stretch { volume: self.volume, from: progress.from, to: progress.to };
        self.send(vec![Record::Commit(Commit {
            backup: self.backup,
            objects: progress.objects.iter().map(|&(id, bytes)| (id, u64::from(bytes))).collect(),
            segments: progress.segments,
            removed: Vec::new(),
            progress: vec![stretch],
            totals: progress.totals,
            newest_secs: progress.newest_secs,
        })]);
    }

    fn take_done(&mut self) -> Option<Result<(), LogFault>> {
        match self.answers.try_recv() {
            Ok(answer) => Some(answer),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(LogFault::NotReady)),
        }
    }
}

/// The thread's body: commits as they are asked for, beats in between.
fn serve<'env, S: Sealer + Clone>(
    mut session: Session<'env, S>,
    clock: &impl Clock,
    asked: &Receiver<Vec<Record>>,
    answer: &SyncSender<Result<(), LogFault>>,
    wake: &(dyn Fn() + Send + Sync),
) -> (Session<'env, S>, Result<(), LogFault>) {
    loop {
        let due = match session.poll() {
            Ok(due) => due,
            Err(fault) => return lost(session, fault, answer, wake),
        };
        let left = due.map_or(LOOK_NS, |due| due.saturating_sub(clock.now().as_ns()).min(LOOK_NS));
        match asked.recv_timeout(Duration::from_nanos(left)) {
            Ok(records) => {
                let result = session.commit(records).map(drop);
                let failed = result.as_ref().err().cloned();
                let _ = answer.send(result);
                wake();
                if let Some(fault) = failed {
                    return (session, Err(fault));
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return (session, Ok(())),
        }
    }
}

/// The lease is gone: the loop learns of it as the answer to whatever it asked or will ask.
fn lost<'env, S>(
    session: Session<'env, S>,
    fault: LogFault,
    answer: &SyncSender<Result<(), LogFault>>,
    wake: &(dyn Fn() + Send + Sync),
) -> (Session<'env, S>, Result<(), LogFault>) {
    let _ = answer.try_send(Err(fault));
    wake();
    (session, Err(fault))
}
