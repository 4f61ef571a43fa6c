//! What a cluster has done: its log slot by slot, its objects, its points, restored and compared. Source: ours.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use windlass_agent::format::record::Record;
use windlass_agent::format::slot::{SlotContents, SlotHeader};
use windlass_agent::id::{BackupId, ObjectId, Slot};
use windlass_agent::log::call::{Answer, Call, perform};
use windlass_agent::log::keys;
use windlass_agent::log::sealer::LogSealer;
use windlass_agent::log::state::Point;
use windlass_agent::store::Store as _;

use super::setup::PIECE_BYTES;
use super::{Cluster, POLICY, seconds_since};
use crate::appliance::expect_equal;

/// How often a slot is read before the store counts as gone.
const READS_MAX: u32 = 5;

/// A slot of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub slot: u64,
    /// Under which epoch it was written.
    pub epoch: u64,
    /// By which node.
    pub node: u32,
    /// Something was committed, other than that an epoch begins or ends.
    pub is_work: bool,
}

impl Cluster {
    /// Objects in the store that no commit names, by the node that made them: work that was done and did not count.
    pub fn lost_objects(&self) -> BTreeMap<u32, usize> {
        let live = self.repository.view().expect("the log can be read").state.live;
        let mut lost = BTreeMap::new();
        for key in self.keys("obj/") {
            let id: ObjectId = key.trim_start_matches("obj/").parse().expect("an object's name");
            if !live.contains(&id) {
                *lost.entry(id.node.0).or_default() += 1;
            }
        }
        lost
    }

    /// Keys in the store that begin so.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let mut keys = Vec::new();
        let mut take = |key: &str, _| {
            keys.push(key.to_owned());
            true
        };
        self.repository.opened.store.list(prefix, "", &mut take).expect("keys are listed");
        keys
    }

    /// A slot of the log, as it is in the store; `None` while there is none.
    pub fn entry(&self, slot: u64) -> Option<Entry> {
        let key = keys::slot(Slot(slot));
        let read = || perform(&*self.repository.opened.store, &Call::Get { key: key.clone() });
        let bytes = (0..READS_MAX).find_map(|_| match read() {
            (Answer::Body(bytes), _) => Some(Some(bytes)),
            (Answer::Absent, _) => Some(None),
            _ => None,
        });
        let bytes = bytes.unwrap_or_else(|| panic!("slot {slot} cannot be read"))?;
        let contents = SlotContents::parse(&bytes, &LogSealer::new(&self.repository.keys));
        let SlotContents { header, records, .. } = contents.expect("a slot is whole");
        let is_lease = |record: &Record| matches!(record, Record::EpochBegun { .. } | Record::Yield { .. });
        let is_work = !records.iter().all(is_lease);
        let SlotHeader { epoch, writer, .. } = header;
        Some(Entry { slot, epoch: epoch.0, node: writer.node.0, is_work })
    }

    /// The whole log. These tests are too short for a checkpoint to cut it.
    pub fn log(&self) -> Vec<Entry> {
        (1..).map_while(|slot| self.entry(slot)).collect()
    }

    /// Waits for the first slot from `from` on that fits.
    pub fn next_entry(&self, what: &str, from: u64, fits: impl Fn(&Entry) -> bool) -> Entry {
        let mut at = from;
        self.wait(what, |cluster| {
            while let Some(entry) = cluster.entry(at) {
                if fits(&entry) {
                    return Some(entry);
                }
                at += 1;
            }
            None
        })
    }

    /// Waits for the point of a backup.
    pub fn point(&self, backup: BackupId) -> Point {
        self.wait("the end of the backup", |cluster| {
            let view = cluster.repository.view().expect("the log can be read");
            view.state.points.get(&backup).cloned()
        })
    }

    /// Waits for the point of a backup, and checks everything: log and restored volumes. Ends the agents.
    pub fn finish(mut self, backup: BackupId) {
        self.point(backup);
        println!("{:.1} s after it was made, the cluster has its point", seconds_since(self.made_ns));
        self.check_log();
        let running: Vec<u32> = self.agents.keys().copied().collect();
        for node in running {
            self.stop(node);
        }
        self.check_log();
        self.check_restore(backup);
        println!("{:.1} s after it was made, all is compared", seconds_since(self.made_ns));
    }

    /// Epochs never go back, each has one writer, and every slot follows from the one before (which the log's reader checks).
    pub fn check_log(&self) {
        let log = self.log();
        for pair in log.windows(2) {
            assert!(pair[0].epoch <= pair[1].epoch, "an old epoch committed: {pair:?}");
            assert!(pair[0].epoch < pair[1].epoch || pair[0].node == pair[1].node, "two writers: {pair:?}");
        }
        self.repository.view().expect("the log can be replayed");
    }

    fn check_restore(&self, backup: BackupId) {
        for volume in &self.volumes {
            let to = self.work.join(&format!("restored-{}", volume.name));
            let (target, to_text) = (format!("{POLICY}@{}", backup.0), to.display().to_string());
            let mut arguments = self.setup.place.arguments(&self.work.join("key"));
            let more = ["restore", &target, "--volume", &volume.name, "--to", &to_text];
            arguments.extend(more.map(str::to_owned));
            self.cli.ok(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
            if volume.is_plain() {
                assert!(same_bytes(&volume.image, &to.join("image")), "{}: other bytes", volume.name);
            } else {
                expect_equal(&volume.tree, &to).unwrap_or_else(|why| panic!("{}: {why}", volume.name));
            }
        }
    }
}

fn same_bytes(a: &Path, b: &Path) -> bool {
    let open = |path: &Path| File::open(path).expect("a file");
    let (mut a, mut b) = (open(a), open(b));
    let (mut left, mut right) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    loop {
        let got = a.read(&mut left).expect("a file is read");
        if got == 0 {
            return b.read(&mut right).expect("a file is read") == 0;
        }
        if b.read_exact(&mut right[..got]).is_err() || left[..got] != right[..got] {
            return false;
        }
    }
}
