//! A node that has come for one backup, after another one that has begun things and let the lease go, or
//! died.

use super::alone_test::{ASKER, Alone, S, found, merged, names, reply_to, segments};
use super::*;
use crate::format::garbage::{GarbageNews, Wanted};
use crate::format::record::{PolicyChange, Record};
use crate::gc::types::Marked;
use crate::id::BackupId;
use crate::log::state::State;
use crate::policy::schedule::Schedule;
use crate::policy::{Policy, PolicyVolume, Reader};
use crate::work::{Assignment, Command, Found, Reply};
use crate::worker::backup::Progress;

/// What a volume is found to be; `proven`: its state says whether anybody wrote to it since.
fn of(volume: VolumeId, proven: bool) -> Found {
    let mut found = found(volume, 1000);
    if !proven {
        found.volume.state = None;
    }
    found
}

/// Answers questions about volumes, but for those that are `gone`; jobs that were begun.
fn answer(alone: &mut Alone, proven: bool, gone: &[VolumeId]) -> Vec<Assignment> {
    let mut begun = Vec::new();
    loop {
        let actions = alone.take();
        if actions.is_empty() {
            return begun;
        }
        for action in actions {
            match action {
                Action::Probe { ask, volumes, .. } => {
                    let volume = volumes[0];
                    let (found, failed) = match gone.contains(&volume) {
                        true => (vec![], vec![(volume, "no such device".to_owned())]),
                        false => (vec![of(volume, proven)], vec![]),
                    };
                    alone.handle(Event::Probed { ask, found, failed });
                }
                Action::Start { assignment, .. } => begun.push(assignment),
                _ => {}
            }
        }
    }
}

/// All of a job.
fn do_all(alone: &mut Alone, a: &Assignment) {
    let progress = Progress { from: a.from, to: a.to, last: true, ..Progress::default() };
    alone.handle(Event::Progressed { id: a.id, progress });
    alone.handle(Event::Ended { id: a.id, result: Ok(()) });
}

fn running(alone: &Alone, policy: &str) -> Option<BackupId> {
    alone.node.view().state.running_of(policy).map(|(backup, _)| backup)
}

fn missing(state: &State, backup: BackupId) -> Vec<VolumeId> {
    state.running.get(&backup).map(|running| running.missing.clone()).unwrap_or_default()
}

/// The node before lets the lease go, and one comes for `policy`.
fn comes(alone: &mut Alone, volumes: usize, policy: &str) {
    alone.node.leave(alone.now, 0);
    alone.run();
    assert!(!alone.node.coordinates());
    alone.take();
    drop(alone.errand(names(volumes), policy));
    alone.ask(ASKER, Command::Backup(policy.to_owned()));
}

#[test]
fn what_else_is_unfinished_is_not_its_business() {
    let mut alone = Alone::lead(&[], names(1), &[("p", 1), ("q", 1)]);
    for policy in ["p", "q"] {
        alone.ask(ASKER, Command::Backup(policy.to_owned()));
        answer(&mut alone, true, &[]);
    }
    let (p, q) = (running(&alone, "p").unwrap(), running(&alone, "q").unwrap());
    comes(&mut alone, 1, "q");
    let begun = answer(&mut alone, true, &[]);
    assert_eq!(begun.iter().map(|a| a.backup).collect::<Vec<_>>(), [q], "what was begun goes on");
    do_all(&mut alone, &begun[0]);
    let state = &alone.node.view().state;
    assert!(state.points.contains_key(&q) && state.running.contains_key(&p) && alone.node.is_idle());
    // Nor does it ever take it up.
    alone.pass(100 * S);
    assert_eq!((answer(&mut alone, true, &[]), alone.node.is_idle()), (vec![], true));
}

#[test]
fn what_is_due_is_not_its_business() {
    let mut alone = Alone::lead(&[], names(1), &[("p", 1)]);
    let device = PolicyVolume { device: "v0".to_owned(), reader: Reader::Auto };
    let mut due = Policy::new("due", vec![device]);
    due.schedule = Some(Schedule::every(60_000));
    let change = PolicyChange {
        name: "due".to_owned(),
        revision: 1,
        body: due.emit().unwrap(),
        volumes: vec![(VolumeId(9), "v0".to_owned())],
    };
    alone.ask(1, Command::Submit(vec![Record::PolicyChanged(change)]));
    comes(&mut alone, 1, "p");
    let begun = answer(&mut alone, true, &[]);
    alone.pass(100 * S);
    assert!(answer(&mut alone, true, &[]).is_empty() && begun.len() == 1);
    assert_eq!(running(&alone, "due"), None);
}

#[test]
fn a_lease_that_is_let_go_is_taken_before_its_holder_was_watched_to_the_end() {
    let mut alone = Alone::lead(&[], names(1), &[("p", 1)]);
    let mut holder = alone.errand(names(1), "p");
    alone.ask(ASKER, Command::Backup("p".to_owned()));
    let (held, until_ns) = alone.node.waits_for().unwrap();
    assert!(matches!(held, LogFault::Held { .. }) && until_ns > alone.now + 15 * S);
    alone.pass(3 * S);
    assert!(alone.node.waits_for().is_some() && !alone.node.coordinates());
    std::mem::swap(&mut alone.node, &mut holder);
    alone.node.leave(alone.now, 0);
    alone.run();
    std::mem::swap(&mut alone.node, &mut holder);
    alone.pass(errand::LOOK_NS);
    assert!(alone.node.coordinates() && alone.node.waits_for().is_none());
}

#[test]
fn it_waits_for_no_volume_that_it_cannot_open() {
    let mut alone = Alone::lead(&[], names(2), &[("p", 2)]);
    alone.ask(ASKER, Command::Backup("p".to_owned()));
    answer(&mut alone, true, &[]);
    let first = running(&alone, "p").unwrap();
    comes(&mut alone, 2, "p");
    let begun = answer(&mut alone, true, &[VolumeId(2)]);
    let second = running(&alone, "p").unwrap();
    assert!(second > first && begun.iter().all(|a| a.backup == second), "another one was begun");
    assert_eq!(missing(&alone.node.view().state, second), [VolumeId(2)]);
    assert_eq!(reply_to(&alone.out, ASKER), None, "answered before");
}

#[test]
fn a_backup_of_volumes_that_nothing_proves_goes_on_under_the_next_lease_of_the_same_process() {
    let mut alone = Alone::lead(&[], names(4), &[("p", 4)]);
    comes(&mut alone, 4, "p");
    let begun = answer(&mut alone, false, &[]);
    let (backup, epoch) = (running(&alone, "p").unwrap(), alone.node.epoch());
    // The store is silent, and the lease runs out.
    for _ in 0..30 {
        alone.now += S;
        alone.node.wake(alone.now, 0);
    }
    assert!(!alone.node.coordinates());
    alone.pass(60 * S);
    let mut jobs = begun;
    for _ in 0..8 {
        let next = answer(&mut alone, false, &[]);
        jobs.extend(next);
        alone.pass(S);
        if let Some(a) = jobs.pop() {
            do_all(&mut alone, &a);
        }
    }
    assert!(alone.node.epoch() > epoch, "a lease of its own again");
    let state = &alone.node.view().state;
    assert!(state.points.contains_key(&backup) && state.points.len() == 1, "{:?}", state.running);
}

#[test]
fn tables_are_in_order_when_nothing_is_left_to_do() {
    let mut alone = Alone::lead(&[], names(1), &[("p", 1)]);
    comes(&mut alone, 1, "p");
    let begun = answer(&mut alone, true, &[]);
    let [a] = begun[..] else { panic!("{begun:?}") };
    let (mut count, mut merges) = (0, 0);
    let segments = segments(&mut count, &a, 0, 200);
    for part in segments.chunks(100) {
        let at = |inode: u64| (inode, 0);
        let (from, to) = (part[0].first_inode, part[99].last_inode + 1);
        let last = to == 200;
        let progress =
            Progress { segments: part.to_vec(), from: at(from), to: at(to), last, ..Progress::default() };
        alone.handle(Event::Progressed { id: a.id, progress });
    }
    alone.handle(Event::Ended { id: a.id, result: Ok(()) });
    // No time passes: nothing waits for a beat between two merges.
    while !alone.node.is_idle() {
        let actions = alone.take();
        assert!(!actions.is_empty(), "it waits for something after {merges} merges");
        for action in actions {
            if let Action::Merge { order, state } = action {
                merges += 1;
                let added = merged(&mut count, &order, &state);
                alone.handle(Event::Merged { id: order.id, result: Ok(vec![added]) });
            }
        }
    }
    assert!(merges > 1 && alone.node.view().state.points.len() == 1, "{merges}");
}

#[test]
fn a_garbage_run_goes_on_when_its_merges_are_done_and_not_with_the_next_beat() {
    let mut alone = Alone::lead(&[], names(1), &[("p", 1)]);
    alone.ask(ASKER, Command::Backup("p".to_owned()));
    let begun = answer(&mut alone, true, &[]);
    let [a] = begun[..] else { panic!("{begun:?}") };
    let mut count = 0;
    let segments = segments(&mut count, &a, 0, 2);
    let idle = segments.iter().map(|segment| segment.id).collect();
    let progress = Progress { segments, from: a.from, to: a.to, last: true, ..Progress::default() };
    alone.handle(Event::Progressed { id: a.id, progress });
    alone.handle(Event::Ended { id: a.id, result: Ok(()) });
    alone.take();
    alone.marks.push_back(Marked { dying_count: 1, idle: vec![(VolumeId(1), idle)], ..Marked::default() });
    let wanted = Record::Garbage(GarbageNews::Wanted(Wanted::default()));
    alone.ask(ASKER, Command::Submit(vec![wanted]));
    let mut merges = 0;
    while let Some(order) = alone.take().into_iter().find_map(|action| match action {
        Action::Merge { order, .. } => Some(order),
        _ => None,
    }) {
        merges += 1;
        let added = merged(&mut count, &order, &alone.node.view().state.clone());
        alone.handle(Event::Merged { id: order.id, result: Ok(vec![added]) });
    }
    // No time has passed.
    let garbage = &alone.node.view().state.garbage;
    assert!(merges > 0 && garbage.wanted.is_none() && garbage.done.is_some(), "{merges} {garbage:?}");
}

#[test]
fn a_refusal_is_answered() {
    let mut alone = Alone::lead(&[], names(1), &[("p", 1)]);
    comes(&mut alone, 1, "p");
    alone.pass(S);
    let actions = alone.take();
    let ask = actions.iter().find_map(|action| match action {
        Action::Probe { ask, .. } => Some(*ask),
        _ => None,
    });
    let failed = vec![(VolumeId(1), "it was changed".to_owned())];
    alone.handle(Event::Probed { ask: ask.unwrap(), found: vec![], failed });
    let reply = reply_to(&alone.take(), ASKER);
    assert!(matches!(&reply, Some(Reply::Refused(why)) if why.contains("it was changed")), "{reply:?}");
}
