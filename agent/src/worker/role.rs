//! The worker's role in a cluster: assignments in, reports out, the same again under whichever coordinator comes next.
//!
//! ```text
//!  Assign -> queued -> Start -> job runs -> progress -> Report (kept until accepted) -> Accepted -> Committed -> job goes on
//!                                                          |
//!             new coordinator or connection: who I am and what I hold, and the kept report again
//! ```
//!
//! A job does not wait for its last report: the next one begins while that waits for its commit, so that last reports of many shares
//! are committed together.
//!
//! A merge of segments is a job too, and goes before stretches that wait: it is short. What came of it is kept until it is accepted.
//!
//! Invariants: one job runs at a time; a job has one report out at most, and waits for it to be accepted but for the last; a report is the same
//! bytes every time, so it may come twice; what a coordinator takes back is stopped, and nothing of it counts that was not accepted.
//! Does not: read, pack or upload (the job does).
//! Source: `agent/doc/commit-log.md`; `agent/doc/architecture.md`, Coordination.

use std::collections::VecDeque;

use crate::backplane::message::{
    Message, NODE_ASSIGNMENTS_MAX, REPORT_OBJECTS_MAX, REPORT_SEGMENTS_MAX, REPORT_TROUBLES_MAX,
};
use crate::id::{KEY_END, Key};
use crate::table::segment::SegmentMeta;
use crate::work::{Assignment, AssignmentId, MergeOrder, Present, Report};
use crate::worker::backup::Progress;

/// What the node is to do for its worker.
#[allow(clippy::large_enum_variant, reason = "nearly all are reports")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    /// Send to the coordinator, whichever node that is.
    Send(Message),
    /// Run this job; none other runs.
    Start(Assignment),
    /// Merge these; no job runs.
    Merge(MergeOrder),
    /// End this job or merge soon; it will say that it ended.
    Stop(AssignmentId),
    /// The job's last commit counts.
    Committed(AssignmentId),
    /// Have this job send what it has packed; it will say that it has, or end.
    Flush(AssignmentId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    Queued,
    Running,
    /// The job has ended, and its last report, or what came of the merge, is kept.
    Reported,
    /// Taken back; the job has not ended yet.
    Stopping,
}

impl Run {
    /// Whether the job's thread is at it.
    fn works(self) -> bool {
        matches!(self, Run::Running | Run::Stopping)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    assignment: Assignment,
    run: Run,
    /// Accepted up to here.
    accepted: Key,
    sequence: u32,
    report: Option<Report>,
    /// Beats since the report was sent.
    beats: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Merge {
    order: MergeOrder,
    run: Run,
    /// What came of it, once it is reported.
    added: Vec<SegmentMeta>,
    /// Beats since that was sent.
    beats: u8,
}

/// An order to send what is packed, until it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Flush {
    ask: u64,
    /// The job that was at work, until it says that it has.
    running: Option<AssignmentId>,
    /// Those whose reports must count first.
    ids: Vec<AssignmentId>,
}

/// Beats after which what is not accepted is sent again: the coordinator takes no more than its queue holds, and says nothing of the rest.
const REPEAT_BEATS: u8 = 2;

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    held: Vec<Held>,
    merge: Option<Merge>,
    /// Nothing new begins.
    leaving: bool,
    flush: Option<Flush>,
    out: VecDeque<Out>,
}

impl Role {
    /// What to do, until there is nothing.
    pub fn next_out(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    /// Whether there is work, so that a coordinator is needed.
    pub fn is_busy(&self) -> bool {
        !self.held.is_empty() || self.merge.is_some()
    }

    /// The node is about to stop: what is queued stays so, and goes to others when it is gone.
    pub fn leave(&mut self) {
        self.leaving = true;
    }

    /// Completes what the node says of itself with what it holds.
    pub fn present(&self, mut present: Present) -> Present {
        let live = self.held.iter().filter(|held| held.run != Run::Stopping);
        present.held = live.map(|held| (held.assignment, held.accepted)).collect();
        present.merging =
            self.merge.as_ref().filter(|merge| merge.run != Run::Stopping).map(|merge| merge.order.id);
        present
    }

    /// A coordinator that has not heard of this node's work: sends what is kept again.
    pub fn greet(&mut self, present: Present) {
        self.out.push_back(Out::Send(Message::Present(self.present(present))));
        self.repeat(0);
    }

    /// The coordinator's next beat: what was not accepted for some beats is sent again.
    pub fn beat(&mut self, present: Present) {
        self.out.push_back(Out::Send(Message::Present(self.present(present))));
        let merging = self.merge.iter_mut().map(|merge| &mut merge.beats);
        let beats = self.held.iter_mut().map(|held| &mut held.beats).chain(merging);
        beats.for_each(|beats| *beats = beats.saturating_add(1));
        self.repeat(REPEAT_BEATS);
    }

    /// Sends again what has waited for so many beats.
    fn repeat(&mut self, beats: u8) {
        for held in self.held.iter_mut().filter(|held| held.run != Run::Stopping && held.beats >= beats) {
            if let Some(report) = held.report.clone() {
                held.beats = 0;
                self.out.push_back(Out::Send(Message::Report(report)));
            }
        }
        if self.merge.as_ref().is_some_and(|merge| merge.beats >= beats) {
            self.tell_merged();
        }
    }

    fn tell_merged(&mut self) {
        if let Some(Merge { order, run: Run::Reported, added, beats }) = &mut self.merge {
            *beats = 0;
            let (order, added) = (order.clone(), added.clone());
            self.out.push_back(Out::Send(Message::Merged { order, added }));
        }
    }

    /// Takes a message that is for the worker.
    pub fn handle(&mut self, message: Message) {
        match message {
            Message::Assign(assignment) => self.assigned(assignment),
            Message::Merge(order) => self.merge_ordered(order),
            Message::Accepted { id, sequence } => self.accepted(id, sequence),
            Message::Revoke { id } => self.revoked(id),
            Message::Flush { ask } => self.flush_ordered(ask),
            _ => {}
        }
        self.settle_flush();
    }

    fn flush_ordered(&mut self, ask: u64) {
        if self.flush.as_ref().is_some_and(|flush| flush.ask == ask) {
            return;
        }
        let id = |held: &Held| held.assignment.id;
        let running = self.held.iter().find(|held| held.run == Run::Running).map(id);
        let ids = self.held.iter().filter(|held| held.run == Run::Running || held.report.is_some());
        self.flush = Some(Flush { ask, running, ids: ids.map(id).collect() });
        self.out.extend(running.map(Out::Flush));
    }

    /// The job has sent what it had packed when it was told to, and it counts.
    pub fn flushed(&mut self, id: AssignmentId) {
        if let Some(flush) = &mut self.flush {
            flush.running = flush.running.filter(|running| *running != id);
        }
        self.settle_flush();
    }

    /// Says so once the job has flushed, or is over, and nothing that it reported waits for its commit.
    fn settle_flush(&mut self) {
        let Some(flush) = &self.flush else { return };
        let waits = |held: &&Held| {
            let id = held.assignment.id;
            flush.running == Some(id) || held.report.is_some() && flush.ids.contains(&id)
        };
        if !self.held.iter().any(|held| waits(&held)) {
            self.out.push_back(Out::Send(Message::Flushed { ask: flush.ask }));
            self.flush = None;
        }
    }

    fn assigned(&mut self, assignment: Assignment) {
        if self.held.iter().any(|held| held.assignment.id == assignment.id) {
            return;
        }
        if self.held.len() >= NODE_ASSIGNMENTS_MAX || assignment.from >= assignment.to {
            let what = "this node has as much as it can hold".to_owned();
            return self.out.push_back(Out::Send(Message::Failed { id: assignment.id, what }));
        }
        let accepted = assignment.from;
        self.held.push(Held { assignment, run: Run::Queued, accepted, sequence: 0, report: None, beats: 0 });
        self.start_next();
    }

    fn merge_ordered(&mut self, order: MergeOrder) {
        match &self.merge {
            Some(merge) if merge.order.id == order.id => return,
            // Its coordinator would not give another order if it waited for that one.
            Some(merge) if merge.run == Run::Reported => {}
            Some(_) => {
                let what = "this node merges already".to_owned();
                return self.out.push_back(Out::Send(Message::Failed { id: order.id, what }));
            }
            None => {}
        }
        self.merge = Some(Merge { order, run: Run::Queued, added: Vec::new(), beats: 0 });
        self.start_next();
    }

    fn start_next(&mut self) {
        let mut runs =
            self.held.iter().map(|held| held.run).chain(self.merge.as_ref().map(|merge| merge.run));
        if self.leaving || runs.any(Run::works) {
            return;
        }
        if let Some(merge) = self.merge.as_mut().filter(|merge| merge.run == Run::Queued) {
            merge.run = Run::Running;
            return self.out.push_back(Out::Merge(merge.order.clone()));
        }
        if let Some(next) = self.held.iter_mut().find(|held| held.run == Run::Queued) {
            next.run = Run::Running;
            self.out.push_back(Out::Start(next.assignment));
        }
    }

    fn accepted(&mut self, id: AssignmentId, sequence: u32) {
        self.merge.take_if(|merge| merge.order.id == id && merge.run == Run::Reported);
        let Some(at) = self.held.iter().position(|held| held.assignment.id == id) else { return };
        let held = &mut self.held[at];
        let Some(report) = held.report.take_if(|report| report.sequence == sequence) else { return };
        held.accepted = report.to;
        self.out.push_back(Out::Committed(id));
        if held.run == Run::Reported {
            self.held.remove(at);
        }
    }

    fn revoked(&mut self, id: AssignmentId) {
        if let Some(merge) = self.merge.as_mut().filter(|merge| merge.order.id == id) {
            match merge.run {
                Run::Queued | Run::Reported => self.merge = None,
                Run::Running => {
                    merge.run = Run::Stopping;
                    self.out.push_back(Out::Stop(id));
                }
                Run::Stopping => {}
            }
            return;
        }
        let Some(at) = self.held.iter().position(|held| held.assignment.id == id) else { return };
        match self.held[at].run {
            Run::Queued | Run::Reported => {
                self.held.remove(at);
            }
            Run::Running => {
                self.held[at].run = Run::Stopping;
                self.held[at].report = None;
                self.out.push_back(Out::Stop(id));
            }
            Run::Stopping => {}
        }
    }

    /// The running job has something in the store and wants it committed. `from` is where its last commit ended.
    pub fn progressed(&mut self, id: AssignmentId, progress: Progress) {
        let Some(held) = self.held.iter_mut().find(|held| held.assignment.id == id) else { return };
        if held.run != Run::Running {
            return;
        }
        debug_assert!(
            progress.objects.len() <= REPORT_OBJECTS_MAX && progress.segments.len() <= REPORT_SEGMENTS_MAX
        );
        held.sequence += 1;
        let troubles = progress
            .troubles
            .iter()
            .take(REPORT_TROUBLES_MAX)
            .map(|trouble| (trouble.lin.inode, trouble.what.clone()));
        let report = Report {
            assignment: held.assignment,
            sequence: held.sequence,
            from: progress.from,
            to: if progress.last { held.assignment.to } else { progress.to.min(KEY_END) },
            objects: progress.objects.iter().map(|&(id, bytes)| (id, u64::from(bytes))).collect(),
            segments: progress.segments,
            totals: progress.totals,
            troubles: troubles.collect(),
            newest_secs: progress.newest_secs,
        };
        held.report = Some(report.clone());
        held.beats = 0;
        self.out.push_back(Out::Send(Message::Report(report)));
    }

    /// The merge has ended: these segments are in the store and may take the place of those that were merged, or why not.
    pub fn merged(&mut self, id: AssignmentId, result: Result<Vec<SegmentMeta>, String>) {
        let Some(merge) = self.merge.as_mut().filter(|merge| merge.order.id == id) else { return };
        match (merge.run, result) {
            (Run::Running, Ok(added)) => {
                (merge.run, merge.added) = (Run::Reported, added);
                self.tell_merged();
            }
            (Run::Running, Err(what)) => {
                self.merge = None;
                self.out.push_back(Out::Send(Message::Failed { id, what }));
            }
            (Run::Queued | Run::Stopping, _) => self.merge = None,
            // Told already.
            (Run::Reported, _) => {}
        }
        self.start_next();
    }

    /// The job has ended: done but for what becomes of its last report, stopped, or with a reason why not.
    pub fn ended(&mut self, id: AssignmentId, result: Result<(), String>) {
        let Some(at) = self.held.iter().position(|held| held.assignment.id == id) else { return };
        let held = &mut self.held[at];
        match (held.run, result) {
            (Run::Running, Ok(())) if held.report.is_some() => held.run = Run::Reported,
            (Run::Running, Err(what)) => {
                self.held.remove(at);
                self.out.push_back(Out::Send(Message::Failed { id, what }));
            }
            _ => drop(self.held.remove(at)),
        }
        self.start_next();
        self.settle_flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Epoch;

    fn assignment(number: u32) -> Assignment {
        let id = AssignmentId { epoch: Epoch(1), number };
        Assignment {
            id,
            from: (u64::from(number), 0),
            to: (u64::from(number) + 10, 0),
            ..Assignment::default()
        }
    }

    fn drain(role: &mut Role) -> Vec<Out> {
        std::iter::from_fn(|| role.next_out()).collect()
    }

    #[test]
    fn one_job_runs_and_the_next_follows() {
        let mut role = Role::default();
        role.handle(Message::Assign(assignment(1)));
        role.handle(Message::Assign(assignment(2)));
        role.handle(Message::Assign(assignment(1)));
        assert_eq!(drain(&mut role), [Out::Start(assignment(1))]);
        role.ended(assignment(1).id, Ok(()));
        assert_eq!(drain(&mut role), [Out::Start(assignment(2))]);
        role.ended(assignment(2).id, Err("gone".to_owned()));
        let failed = Message::Failed { id: assignment(2).id, what: "gone".to_owned() };
        assert_eq!(drain(&mut role), [Out::Send(failed)]);
        assert!(!role.is_busy());
    }

    #[test]
    fn a_report_is_kept_and_sent_again_until_it_is_accepted() {
        let mut role = Role::default();
        let id = assignment(1).id;
        role.handle(Message::Assign(assignment(1)));
        let progress = Progress { from: (1, 0), to: (5, 0), ..Progress::default() };
        role.progressed(id, progress);
        let sent = drain(&mut role);
        role.greet(Present::default());
        let again = drain(&mut role);
        assert_eq!(again.last(), sent.last(), "the same report");
        role.handle(Message::Accepted { id, sequence: 2 });
        assert_eq!(drain(&mut role), [], "of another report");
        role.handle(Message::Accepted { id, sequence: 1 });
        role.handle(Message::Accepted { id, sequence: 1 });
        assert_eq!(drain(&mut role), [Out::Committed(id)]);
        role.greet(Present::default());
        let greeting = drain(&mut role);
        assert!(
            matches!(&greeting[..], [Out::Send(Message::Present(p))] if p.held == [(assignment(1), (5, 0))])
        );
    }

    #[test]
    fn the_next_job_begins_while_the_last_report_of_one_waits() {
        let mut role = Role::default();
        let id = assignment(1).id;
        role.handle(Message::Assign(assignment(1)));
        role.handle(Message::Assign(assignment(2)));
        role.progressed(id, Progress { from: (1, 0), to: (11, 0), last: true, ..Progress::default() });
        role.ended(id, Ok(()));
        let outs = drain(&mut role);
        assert!(
            matches!(&outs[..], [_, Out::Send(Message::Report(_)), Out::Start(next)] if *next == assignment(2))
        );
        role.greet(Present::default());
        let greeting = drain(&mut role);
        let [Out::Send(Message::Present(present)), again] = &greeting[..] else { panic!("{greeting:?}") };
        assert_eq!((present.held.len(), again), (2, &outs[1]), "it is held, and the report comes again");
        let mut refused = role.clone();
        refused.handle(Message::Revoke { id });
        assert_eq!(
            (drain(&mut refused), refused.held.len()),
            (vec![], 1),
            "whoever has it now does it again"
        );
        role.handle(Message::Accepted { id, sequence: 1 });
        assert_eq!((drain(&mut role), role.held.len()), (vec![Out::Committed(id)], 1));
    }

    #[test]
    fn a_flush_is_answered_once_all_that_was_done_counts() {
        let mut role = Role::default();
        let flush = |ask| Message::Flush { ask };
        let flushed = |ask| Out::Send(Message::Flushed { ask });
        role.handle(flush(1));
        assert_eq!(drain(&mut role), [flushed(1)], "nothing is at work");
        let (first, second) = (assignment(1).id, assignment(2).id);
        role.handle(Message::Assign(assignment(1)));
        role.handle(Message::Assign(assignment(2)));
        role.progressed(first, Progress { from: (1, 0), to: (11, 0), last: true, ..Progress::default() });
        role.ended(first, Ok(()));
        drain(&mut role);
        role.handle(flush(2));
        role.handle(flush(2));
        assert_eq!(drain(&mut role), [Out::Flush(second)], "once, however often it comes");
        role.progressed(second, Progress { from: (2, 0), to: (5, 0), ..Progress::default() });
        role.handle(Message::Accepted { id: second, sequence: 1 });
        role.flushed(second);
        drain(&mut role);
        // The last report of the job before holds it up, and one more of this job, which came before that was settled.
        role.progressed(second, Progress { from: (5, 0), to: (6, 0), ..Progress::default() });
        drain(&mut role);
        role.handle(Message::Accepted { id: first, sequence: 1 });
        assert_eq!(drain(&mut role), [Out::Committed(first)]);
        role.handle(Message::Accepted { id: second, sequence: 2 });
        assert_eq!(drain(&mut role), [Out::Committed(second), flushed(2)]);
        // A job that ends has nothing left.
        role.handle(flush(3));
        role.ended(second, Err("gone".to_owned()));
        assert!(drain(&mut role).contains(&flushed(3)));
    }

    #[test]
    fn a_merge_goes_between_two_jobs_and_its_result_is_kept_until_it_is_accepted() {
        let mut role = Role::default();
        let order = |number| MergeOrder {
            id: AssignmentId { epoch: Epoch(1), number },
            segments: vec![Default::default(); 2],
            ..MergeOrder::default()
        };
        role.handle(Message::Assign(assignment(1)));
        role.handle(Message::Assign(assignment(2)));
        role.handle(Message::Merge(order(3)));
        assert_eq!(drain(&mut role), [Out::Start(assignment(1))]);
        role.ended(assignment(1).id, Ok(()));
        assert_eq!(drain(&mut role), [Out::Merge(order(3))]);
        role.handle(Message::Merge(order(4)));
        assert!(
            matches!(&drain(&mut role)[..], [Out::Send(Message::Failed { id, .. })] if *id == order(4).id)
        );
        let added = vec![SegmentMeta::default()];
        role.merged(order(3).id, Ok(added.clone()));
        let told = Out::Send(Message::Merged { order: order(3), added });
        assert_eq!(drain(&mut role), [told.clone(), Out::Start(assignment(2))]);
        role.greet(Present::default());
        assert_eq!(drain(&mut role).last(), Some(&told), "the same again");
        role.handle(Message::Accepted { id: order(3).id, sequence: 0 });
        role.greet(Present::default());
        assert!(matches!(&drain(&mut role)[..], [Out::Send(Message::Present(p))] if p.merging.is_none()));
        role.ended(assignment(2).id, Ok(()));
        role.handle(Message::Merge(order(5)));
        role.handle(Message::Revoke { id: order(5).id });
        assert_eq!(drain(&mut role), [Out::Merge(order(5)), Out::Stop(order(5).id)]);
        role.merged(order(5).id, Err("stopped".to_owned()));
        assert_eq!(drain(&mut role), []);
        assert!(!role.is_busy());
    }

    #[test]
    fn nothing_begins_on_a_node_that_leaves() {
        let mut role = Role::default();
        role.handle(Message::Assign(assignment(1)));
        role.handle(Message::Assign(assignment(2)));
        drain(&mut role);
        role.leave();
        role.ended(assignment(1).id, Ok(()));
        assert_eq!(drain(&mut role), []);
    }

    #[test]
    fn what_is_taken_back_is_stopped_and_says_nothing_more() {
        let mut role = Role::default();
        let id = assignment(1).id;
        role.handle(Message::Assign(assignment(1)));
        role.handle(Message::Assign(assignment(2)));
        drain(&mut role);
        role.handle(Message::Revoke { id });
        role.handle(Message::Revoke { id });
        assert_eq!(drain(&mut role), [Out::Stop(id)]);
        role.progressed(id, Progress { to: (5, 0), ..Progress::default() });
        assert_eq!(drain(&mut role), []);
        role.ended(id, Err("stopped".to_owned()));
        assert_eq!(drain(&mut role), [Out::Start(assignment(2))], "and the next one begins");
    }
}
