//! A job thread says how far it is, and ends as it was told.

use super::*;
use windlass_hal::linux::poll::Poll;

#[test]
fn what_the_readers_say_differently_goes_into_the_first_report_before_other_troubles() {
    let (post, letters) = Post::new(Poll::new(1).unwrap().waker());
    let (_acks, acked) = sync_channel(1);
    let trouble =
        |inode, what: &str| ItemTrouble { lin: Lin { volume: VolumeId(1), inode }, what: what.to_owned() };
    let differing = vec![trouble(7, "size: raw reader: 1; kernel: 2")];
    let mut reports = Reports {
        id: AssignmentId::default(),
        post: &post,
        acked: &acked,
        waits_for_last: false,
        last: false,
        in_use: None,
        differing,
        lin: Lin { volume: VolumeId(1), inode: 2 },
        device: Path::new("/none"),
    };
    let mut progress = Progress { troubles: vec![trouble(5, "unreadable")], ..Progress::default() };
    progress.totals.faults = 1;
    for expected in [(2, vec![7, 5]), (1, vec![5])] {
        reports.begin(progress.clone());
        let Ok(Letter::Event(Event::Progressed { progress: told, .. })) = letters.recv() else { panic!() };
        let inodes = told.troubles.iter().map(|trouble| trouble.lin.inode).collect();
        assert_eq!((told.totals.faults, inodes), expected);
    }
}

#[test]
fn nobody_waits_for_what_is_done_beside_and_it_is_one_at_a_time() {
    let (go, held) = channel::<()>();
    let (told, heard) = channel();
    let tell = |number| {
        let told = told.clone();
        move || {
            let _ = told.send(number);
        }
    };
    let mut beside = Beside::default();
    let first = tell(1);
    beside.begin(move || {
        let _ = held.recv();
        first();
    });
    beside.begin(tell(2));
    assert!(heard.try_recv().is_err(), "the first is held, the second was not begun");
    drop(go);
    assert_eq!(heard.recv(), Ok(1));
    // Its thread ends in no time.
    while !beside.0.as_ref().is_some_and(JoinHandle::is_finished) {
        std::thread::yield_now();
    }
    beside.begin(tell(3));
    assert_eq!(heard.recv(), Ok(3));
}
