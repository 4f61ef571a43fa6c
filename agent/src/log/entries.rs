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

use super::keys::{self, BOUNDARIES, SLOTS};
use crate::format::access::{AccessNews, Grant};
use crate::format::copies;
use crate::format::garbage::GarbageNews;
use crate::format::guard::GuardPart;
use crate::format::mark::MarkPart;
use crate::format::record::Record;
use crate::format::slot::{ClusterId, LOG_MAGIC, Sealer, SlotContents, carried, own_part, whole};
use crate::id::{BackupId, Epoch, NodeId, Slot};
use crate::store::retry::Client;
use crate::store::{ByteRange, StoreFault, StoreFaultKind};

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
    /// The point or backup that it is about.
    pub backup: Option<BackupId>,
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
        let Some(bytes) = fetch(client, slot)? else {
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

fn fetch(client: &Client, slot: Slot) -> Result<Option<Vec<u8>>, StoreFault> {
    let (key, mut stored) = (keys::slot(slot), Vec::new());
    match client.get(&key, ByteRange::Whole(keys::bytes_max(&key)), &mut stored) {
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
        entries.push(Entry {
            slot: contents.header.slot,
            epoch: contents.header.epoch,
            writer: contents.header.writer.node,
            by: by.clone(),
            wall_ns: said.wall_ns.or(asked_ns),
            what: said.what,
            text: said.text,
            policy: said.policy,
            backup: said.backup,
        });
    }
    entries
}

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
    use crate::format::slot::{Author, SlotHeader};
    use crate::id::Boot;

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
    fn a_refused_attempt_has_a_time_of_its_own() {
        let what = "it needs the role operator".to_owned();
        let refused = AccessNews::Refused { subject: "uid:7".to_owned(), count: 2, wall_ns: 5, what };
        let entries = of_slot(&slot(vec![Record::Access(refused)]));
        assert_eq!((entries[0].what, entries[0].wall_ns, &entries[0].by), ("refused", Some(5), &None));
        assert_eq!(entries[0].text, "uid:7 was refused 2 times; last: it needs the role operator");
    }
}
