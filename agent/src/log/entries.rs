//! What was done in a repository, as its log says it: the records of people and of the coordinator, one by one, as text.
//!
//! ```text
//!  slots above the boundary --> records that were asked for, or that change what is kept --> Entry
//! ```
//!
//! Who asked is said by a record in front (`format::access`), for all records of the slot behind it; it is there where subjects have roles.
//! Times are those that records have; a record without one was written after those before it.
//!
//! Invariants: entries come in the log's order; a slot is in memory once. Does not: fold the records (`log::state`), nor look at slots at or
//! below the boundary, which are deleted. Source: ours.

use std::collections::BTreeMap;

use super::checkpoint::Checkpoint;
use super::keys::{self, BOUNDARIES, SLOTS};
use super::state::State;
use crate::format::access::{AccessNews, Grant};
use crate::format::copies;
use crate::format::garbage::GarbageNews;
use crate::format::guard::GuardPart;
use crate::format::mark::MarkPart;
use crate::format::record::Record;
use crate::format::removal::RemovalNews;
use crate::format::slot::{
    ClusterId, LOG_MAGIC, LogDigest, Sealer, SlotContents, carried, own_part, parse_boundary, whole,
};
use crate::id::{BackupId, Epoch, NodeId, Slot};
use crate::store::retry::Client;
use crate::store::{ByteRange, StoreFault, StoreFaultKind};

/// Records of a request that are named.
const WHATS_SHOWN: usize = 4;
/// [`Entry::what`] of who coordinates.
pub const LEASE: &str = "lease";

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The slot that says so.
    pub slot: Slot,
    /// The epoch in which it was written.
    pub epoch: Epoch,
    /// The node that wrote it: the coordinator, or a command without an agent.
    pub writer: NodeId,
    /// Who asked for it, and at which node; `None`: the coordinator did it by itself, or no subject has a role.
    pub by: Option<(String, NodeId)>,
    /// When, wall clock in nanoseconds since 1970, as far as the record says it.
    pub wall_ns: Option<i64>,
    /// What kind of thing: the name of the command that does it, or of what the coordinator does by itself.
    pub what: &'static str,
    /// What, for people.
    pub text: String,
    /// The policy that it is about.
    pub policy: Option<String>,
    /// What that was called until then, where it has another name from here on.
    pub renamed_from: Option<String>,
    /// The point or backup that it is about.
    pub backup: Option<BackupId>,
}

/// The state as of the boundary, on which all that [`read`] gives is built: which policies and points there were. `None`: the log begins
/// with its first slot, or what the boundary names cannot be read.
///
/// # Errors
/// What the store says when it cannot read.
pub fn first_state<S: Sealer>(
    client: &Client,
    cluster: &ClusterId,
    sealer: &S,
) -> Result<Option<State>, StoreFault> {
    let Some(boundary) = numbers(client, BOUNDARIES)?.into_iter().max() else { return Ok(None) };
    let Some(bytes) = get(client, &keys::boundary(boundary))? else { return Ok(None) };
    let Ok((of, name)) = parse_boundary(&bytes) else { return Ok(None) };
    let Some(bytes) = get(client, &keys::checkpoint(name.slot, &name.nonce))? else { return Ok(None) };
    let checkpoint = Checkpoint::parse(&bytes, sealer).ok();
    let is_it = |(checkpoint, digest): &(Checkpoint, LogDigest)| {
        of == *cluster && checkpoint.cluster == *cluster && *digest == name.digest
    };
    Ok(checkpoint.filter(is_it).map(|(checkpoint, _)| checkpoint.into_view().state))
}

/// Which policy entries are about, whatever it was called then and is called now, and whether their point is still there.
///
/// ```text
///  policies and points at the boundary --> entry by entry: a new name, a backup that begins --> a number for each policy
/// ```
#[derive(Clone, Debug, Default)]
pub struct Lineage {
    by_name: BTreeMap<String, u32>,
    by_backup: BTreeMap<BackupId, u32>,
    last: u32,
}

impl Lineage {
    /// What is known before the first entry.
    #[must_use]
    pub fn new(state: Option<&State>) -> Lineage {
        let mut lineage = Lineage::default();
        let Some(state) = state else { return lineage };
        for name in state.policies.keys() {
            lineage.of_name(name);
        }
        let points = state.points.values().map(|point| (point.backup, &point.policy));
        let running = state.running.iter().map(|(&backup, running)| (backup, &running.policy));
        for (backup, policy) in points.chain(running) {
            let number = lineage.of_name(policy);
            lineage.by_backup.insert(backup, number);
        }
        lineage
    }

    /// The number of the policy that is called so now.
    pub fn of_name(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.by_name.get(name) {
            return number;
        }
        self.last += 1;
        self.by_name.insert(name.to_owned(), self.last);
        self.last
    }

    /// The number of the policy that the next entry is about; `None`: of none, or it is not known.
    pub fn of(&mut self, entry: &Entry) -> Option<u32> {
        let name = entry.policy.as_deref();
        if let (Some(from), Some(to)) = (&entry.renamed_from, name)
            && let Some(number) = self.by_name.remove(from)
        {
            self.by_name.insert(to.to_owned(), number);
        }
        let by_name = name.map(|name| self.of_name(name));
        if let (Some(number), Some(backup)) = (by_name, entry.backup) {
            self.by_backup.insert(backup, number);
        }
        by_name.or_else(|| self.by_backup.get(&entry.backup?).copied())
    }
}

/// Calls `each` with what the slots say that are there and are above the boundary, oldest first; and with the number of a slot that
/// cannot be read. Returns the boundary.
///
/// # Errors
/// What the store says when it cannot list or read.
pub fn read<S: Sealer>(
    client: &Client,
    cluster: &ClusterId,
    sealer: &S,
    each: &mut dyn FnMut(Result<Vec<Entry>, Slot>),
) -> Result<Slot, StoreFault> {
    let boundary = numbers(client, BOUNDARIES)?.into_iter().max().unwrap_or_default();
    let slots: Vec<Slot> = numbers(client, SLOTS)?.into_iter().filter(|slot| *slot > boundary).collect();
    // A slot that cannot be read lies in the one behind it too.
    let mut lost: Option<Slot> = None;
    for slot in slots {
        let Some(bytes) = get(client, &keys::slot(slot))? else {
            lost.replace(slot).into_iter().for_each(|slot| each(Err(slot)));
            continue;
        };
        let open = |bytes: &[u8], of: Slot| {
            let contents = SlotContents::parse(bytes, sealer).ok()?;
            (contents.header.slot == of && contents.header.cluster == *cluster).then(|| of_slot(&contents))
        };
        if let Some(before) = lost.take() {
            let again =
                carried(&bytes).filter(|_| before.0 + 1 == slot.0).and_then(|part| open(part, before));
            each(again.ok_or(before));
        }
        match own_part(&bytes).ok().and_then(|part| open(part, slot)) {
            Some(entries) => each(Ok(entries)),
            None => lost = Some(slot),
        }
    }
    lost.into_iter().for_each(|slot| each(Err(slot)));
    Ok(boundary)
}

fn numbers(client: &Client, prefix: &str) -> Result<Vec<Slot>, StoreFault> {
    let mut found = Vec::new();
    client.list(prefix, "", &mut |key, _| {
        found.extend(keys::number(key, prefix));
        true
    })?;
    Ok(found)
}

fn get(client: &Client, key: &str) -> Result<Option<Vec<u8>>, StoreFault> {
    let mut stored = Vec::new();
    match client.get(key, ByteRange::Whole(keys::bytes_max(key)), &mut stored) {
        Ok(_) => Ok(copies::pick(&stored, LOG_MAGIC, whole).map(<[u8]>::to_vec)),
        Err(fault) if matches!(fault.kind, StoreFaultKind::NotFound | StoreFaultKind::TooLong) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// What a slot says.
#[must_use]
pub fn of_slot(contents: &SlotContents) -> Vec<Entry> {
    let (mut by, mut asked_ns) = (None, None);
    let mut entries = Vec::new();
    for record in &contents.records {
        if let Record::Access(AccessNews::By { subject, node, wall_ns }) = record {
            (by, asked_ns) = (Some((subject.clone(), *node)), Some(*wall_ns));
            continue;
        }
        let Some(said) = said(record) else { continue };
        let renamed_from = match record {
            Record::PolicyRenamed { from, .. } => Some(from.clone()),
            _ => None,
        };
        entries.push(Entry {
            slot: contents.header.slot,
            epoch: contents.header.epoch,
            writer: contents.header.writer.node,
            by: by.clone(),
            wall_ns: said.wall_ns.or(asked_ns),
            what: said.what,
            text: said.text,
            policy: said.policy,
            renamed_from,
            backup: said.backup,
        });
    }
    entries
}

/// What records do, for people: the first few.
#[must_use]
pub fn whats(records: &[Record]) -> String {
    let all: Vec<String> = records.iter().filter_map(|record| Some(said(record)?.text)).collect();
    let shown = all.get(..WHATS_SHOWN.min(all.len())).unwrap_or_default().join("; ");
    match all.len().checked_sub(WHATS_SHOWN) {
        None | Some(0) => shown,
        Some(more) => format!("{shown}; and {more} more"),
    }
}

#[derive(Clone)]
struct Said {
    what: &'static str,
    text: String,
    policy: Option<String>,
    backup: Option<BackupId>,
    wall_ns: Option<i64>,
}

impl Said {
    fn new(what: &'static str, text: String) -> Said {
        Said { what, text, policy: None, backup: None, wall_ns: None }
    }

    fn of(mut self, policy: &str) -> Said {
        self.policy = Some(policy.to_owned());
        self
    }

    fn about(mut self, backup: BackupId) -> Said {
        self.backup = Some(backup);
        self
    }

    fn at(mut self, wall_ns: i64) -> Said {
        self.wall_ns = Some(wall_ns);
        self
    }
}

fn grants_text(grants: &[Grant]) -> String {
    let one = |grant: &Grant| match grant.policy.as_str() {
        "" => grant.role.to_string(),
        policy => format!("{} of {policy}", grant.role),
    };
    if grants.is_empty() {
        "no role".to_owned()
    } else {
        grants.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

/// `None`: it is how the log and the tables are kept, and nothing that was asked for.
fn said(record: &Record) -> Option<Said> {
    Some(match record {
        Record::EpochBegun { epoch } => Said::new(LEASE, format!("coordinates from here on, epoch {epoch}")),
        Record::Yield { successor: Some(node) } => Said::new(LEASE, format!("hands over to node {node}")),
        Record::Yield { successor: None } => Said::new(LEASE, "coordinates no more".to_owned()),
        Record::PolicyChanged(change) => {
            let text = format!("policy {} set, revision {}", change.name, change.revision);
            Said::new("policy set", text).of(&change.name)
        }
        Record::PolicyRemoved { name, .. } => {
            Said::new("policy delete", format!("policy {name} deleted")).of(name)
        }
        Record::PolicyRenamed { from, to, .. } => {
            Said::new("policy rename", format!("policy {from} renamed to {to}")).of(to)
        }
        Record::BackupBegun(start) => {
            let text = format!("backup {} of {} began", start.backup, start.policy);
            Said::new("backup", text).of(&start.policy).about(start.backup).at(start.wall_start_ns)
        }
        Record::BackupEnded(end) => {
            let text = format!("backup {0} ended, and is point {0}", end.backup);
            Said::new("backup", text).about(end.backup).at(end.wall_end_ns)
        }
        Record::BackupAbandoned { backup } => {
            Said::new("backup", format!("backup {backup} given up")).about(*backup)
        }
        Record::BackupStopped { backup, goes_on } => {
            let what = if *goes_on { "goes on" } else { "stopped until it is asked for" };
            Said::new("backup", format!("backup {backup} {what}")).about(*backup)
        }
        Record::BackupTried(tried) => {
            let text = match (tried.failures, tried.why.as_str()) {
                (0, "") => format!("the schedule of {} counts from here", tried.policy),
                (0, why) => format!("the backup of {}: {why}", tried.policy),
                (_, why) => format!("the backup of {} failed: {why}", tried.policy),
            };
            Said::new("backup", text).of(&tried.policy).at(tried.wall_ns)
        }
        Record::PointExpired { backup } => {
            Said::new("point expire", format!("point {backup} expired, and is gone")).about(*backup)
        }
        Record::PointGuarded(news) => {
            let backup = news.backup;
            let said = match news.part {
                GuardPart::Guard(guard) if guard.until_ns > 0 => {
                    Said::new("policy set", format!("point {backup} has a minimum age"))
                }
                GuardPart::Guard(_) => {
                    Said::new("policy set", format!("point {backup} can be brought back after it expires"))
                }
                GuardPart::Leave { wall_ns } => Said::new(
                    "point expire",
                    format!("point {backup} expired, or its time to be brought back is over"),
                )
                .at(wall_ns),
                GuardPart::Undo => Said::new("point undo", format!("point {backup} brought back")),
            };
            said.about(backup)
        }
        Record::PointMarked(news) => {
            let backup = news.backup;
            let said = match &news.part {
                MarkPart::Hold(why) if why.is_empty() => {
                    Said::new("point release", format!("point {backup} released"))
                }
                MarkPart::Hold(why) => Said::new("point hold", format!("point {backup} held: {why}")),
                MarkPart::Note(note) if note.is_empty() => {
                    Said::new("point note", format!("point {backup} has no note any more"))
                }
                MarkPart::Note(note) => Said::new("point note", format!("point {backup} noted: {note}")),
                MarkPart::Tags(tags) => {
                    Said::new("point tag", format!("point {backup} tagged: {}", tags.join(" ")))
                }
            };
            said.about(backup)
        }
        Record::Access(AccessNews::Roles { subject, grants }) => {
            Said::new("role grant", format!("{subject} has now: {}", grants_text(grants)))
        }
        Record::Access(AccessNews::Refused { subject, count, wall_ns, what }) => {
            Said::new("refused", format!("{subject} was refused {count} times; last: {what}")).at(*wall_ns)
        }
        Record::Removal(RemovalNews::Asked(asked)) => {
            let text = format!("asked for a removal, as {}: {}", asked.subject, whats(&asked.records));
            let of = asked.records.iter().find_map(|record| said(record)?.policy);
            let said = Said::new("removal", text).at(asked.wall_ns);
            of.map_or(said.clone(), |policy| said.of(&policy))
        }
        Record::Removal(RemovalNews::Approved { request, subject }) => {
            Said::new("removal approve", format!("request {request} approved by {subject}"))
        }
        Record::Removal(RemovalNews::Withdrawn { request, subject }) => {
            Said::new("removal withdraw", format!("request {request} withdrawn by {subject}"))
        }
        Record::LeaseSet { lease_ns } => {
            Said::new("repo set", format!("a lease lasts {} s", lease_ns / 1_000_000_000))
        }
        Record::Damage(news) if !news.points.is_empty() || !news.points_sound.is_empty() => {
            let count = (news.points.len(), news.points_sound.len());
            Said::new("check", format!("{} points found damaged, {} sound again", count.0, count.1))
        }
        Record::Garbage(GarbageNews::Settings(_)) => {
            Said::new("repo set", "how garbage is treated was set".to_owned())
        }
        Record::Garbage(GarbageNews::Wanted(wanted) | GarbageNews::WantedWith(wanted, _)) => {
            Said::new("gc", "a garbage run was asked for".to_owned()).at(wanted.wall_ns)
        }
        Record::Garbage(GarbageNews::Done(done) | GarbageNews::DoneWith(done, _)) => {
            let text = format!("a garbage run ended: {} objects and segments deleted", done.deleted);
            Said::new("gc", text).at(done.wall_ns)
        }
        Record::FeaturesRaised(features) => {
            let names: Vec<&str> = features.keys().map(|name| name.as_str()).collect();
            Said::new("features", format!("the repository needs from here on: {}", names.join(", ")))
        }
        Record::Commit(_)
        | Record::Retire { .. }
        | Record::OrphanFloor { .. }
        | Record::Pin { .. }
        | Record::PinRefreshed { .. }
        | Record::Unpin { .. }
        | Record::Checkpoint(_)
        | Record::Damage(_)
        | Record::Swept(_)
        | Record::Access(AccessNews::By { .. })
        | Record::Garbage(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::record::{BackupStart, PointStatus, Totals};
    use crate::format::slot::{Author, SlotHeader};
    use crate::id::Boot;
    use crate::log::state::Point;

    fn slot(records: Vec<Record>) -> SlotContents {
        let header = SlotHeader {
            cluster: ClusterId::default(),
            slot: Slot(9),
            epoch: Epoch(2),
            writer: Author { node: NodeId(1), boot: Boot(5) },
            nonce: [0; 16],
            previous: [0; 32],
        };
        SlotContents { header, records, digest: [0; 32] }
    }

    #[test]
    fn who_asked_is_said_of_what_follows_and_of_nothing_before() {
        let by = AccessNews::By { subject: "uid:7".to_owned(), node: NodeId(3), wall_ns: 8 };
        let removed = Record::PolicyRemoved { name: "home".to_owned(), revision: 2 };
        let contents = slot(vec![
            Record::PointExpired { backup: BackupId(1) },
            Record::Access(by),
            removed,
            Record::BackupAbandoned { backup: BackupId(4) },
            Record::Unpin { pin: 1 },
        ]);
        let entries = of_slot(&contents);
        let asked = Some(("uid:7".to_owned(), NodeId(3)));
        let short: Vec<_> = entries.iter().map(|entry| (entry.what, &entry.by, entry.wall_ns)).collect();
        assert_eq!(
            short,
            [("point expire", &None, None), ("policy delete", &asked, Some(8)), ("backup", &asked, Some(8))]
        );
        assert_eq!((entries[1].policy.as_deref(), entries[2].backup), (Some("home"), Some(BackupId(4))));
        assert_eq!((entries[0].slot, entries[0].writer), (Slot(9), NodeId(1)));
    }

    #[test]
    fn a_policy_is_the_same_under_another_name_and_its_points_when_they_are_gone() {
        let mut state = State::default();
        let point = Point {
            backup: BackupId(1),
            policy: "old".to_owned(),
            volumes: Vec::new(),
            missing: Vec::new(),
            wall_ns: (0, 0),
            status: PointStatus::Complete,
            totals: Totals::default(),
        };
        std::sync::Arc::make_mut(&mut state.points).insert(BackupId(1), point);
        let begun = |backup, policy: &str| {
            Record::BackupBegun(BackupStart {
                backup: BackupId(backup),
                policy: policy.to_owned(),
                volumes: Vec::new(),
                wall_start_ns: 0,
                missing: Vec::new(),
            })
        };
        let (from, to) = ("old".to_owned(), "new".to_owned());
        let records = vec![
            begun(2, "old"),
            begun(3, "other"),
            Record::PolicyRenamed { from, to, revision: 2 },
            Record::PointExpired { backup: BackupId(1) },
            Record::PointExpired { backup: BackupId(2) },
            Record::PointExpired { backup: BackupId(3) },
            Record::PointExpired { backup: BackupId(4) },
            // Another policy gets the name that is free.
            begun(5, "old"),
            Record::LeaseSet { lease_ns: 1 },
        ];
        let mut lineage = Lineage::new(Some(&state));
        let found: Vec<_> = of_slot(&slot(records)).iter().map(|entry| lineage.of(entry)).collect();
        let new = Some(lineage.of_name("new"));
        let is_new: Vec<bool> = found.iter().map(|number| *number == new).collect();
        assert_eq!(is_new, [true, false, true, true, true, false, false, false, false]);
        assert_eq!(found[1], found[5]);
        assert_eq!((found[6], found[8]), (None, None));
        assert!(found[7].is_some());
    }

    #[test]
    fn a_refused_attempt_has_a_time_of_its_own() {
        let what = "it needs the role operator".to_owned();
        let refused = AccessNews::Refused { subject: "uid:7".to_owned(), count: 2, wall_ns: 5, what };
        let entries = of_slot(&slot(vec![Record::Access(refused)]));
        assert_eq!((entries[0].what, entries[0].wall_ns, &entries[0].by), ("refused", Some(5), &None));
        assert_eq!(entries[0].text, "uid:7 was refused 2 times; last: it needs the role operator");
    }
}
