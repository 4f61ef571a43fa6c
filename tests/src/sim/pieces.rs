//! What backups are made of, kept apart from the log's own state: stretches, and what the objects in the store say of them.
//!
//! | rule | when it is checked |
//! |---|---|
//! | C4 | a commit lands: none of its stretches overlaps one of the same backup |
//! | I5 | a backup ends: the stretches of each volume tile it |
//! | I8 | a backup ends: every object is of the stretch it was committed for, and of the volume as the backup found it |
//! | P2 | every slot: points are those of the backups that ended, and have not expired |
//!
//! An object that begins with [`MAGIC`] says itself what it was made of. Others are not judged here. Source: ours.

use std::collections::{BTreeMap, BTreeSet};

use windlass_agent::format::record::{BackupVolume, Commit, Record, Stretch};
use windlass_agent::id::{BackupId, KEY_END, KEY_START, Key, Slot, VolumeId};
use windlass_agent::log::replay::View;

use super::Verdict;
use super::store::Shelf;

/// First bytes of an object that says what it is of.
pub const MAGIC: &[u8; 8] = b"stretch:";

/// What an object was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// The volume.
    pub volume: VolumeId,
    /// First key.
    pub from: Key,
    /// First key behind it.
    pub to: Key,
    /// The volume's contents, which change now and then.
    pub version: u64,
}

impl Made {
    /// The bytes of such an object.
    pub fn emit(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let fields = [u64::from(self.volume.0), self.from.0, self.from.1, self.to.0, self.to.1, self.version];
        fields.iter().for_each(|field| out.extend(field.to_le_bytes()));
        out
    }

    fn parse(bytes: &[u8]) -> Option<Made> {
        let (fields, _) = bytes.strip_prefix(MAGIC)?.as_chunks::<8>();
        let fields: Vec<u64> = fields.iter().map(|field| u64::from_le_bytes(*field)).collect();
        let &[volume, from, within, to, end, version] = fields.as_slice() else { return None };
        let volume = VolumeId(u32::try_from(volume).ok()?);
        Some(Made { volume, from: (from, within), to: (to, end), version })
    }
}

/// The state of a volume with these contents, as the log has it.
pub fn state_of(version: u64) -> [u8; 16] {
    let mut state = [0x5A; 16];
    state[..8].copy_from_slice(&version.to_le_bytes());
    state
}

#[derive(Debug, Default)]
struct Parts {
    volumes: Vec<BackupVolume>,
    stretches: Vec<Stretch>,
    made: Vec<Made>,
}

/// All backups that ever began.
#[derive(Debug, Default)]
pub struct Pieces {
    backups: BTreeMap<BackupId, Parts>,
    points: BTreeSet<BackupId>,
}

impl Pieces {
    /// A record is in the log.
    ///
    /// # Errors
    /// It breaks a rule.
    pub fn record(&mut self, shelf: &Shelf, slot: Slot, record: &Record) -> Verdict<()> {
        match record {
            Record::BackupBegun(start) => {
                let parts = Parts { volumes: start.volumes.clone(), ..Parts::default() };
                self.backups.insert(start.backup, parts);
                Ok(())
            }
            Record::Commit(commit) => self.commit(shelf, slot, commit),
            Record::BackupEnded(end) => {
                self.points.insert(end.backup);
                self.backups.get(&end.backup).map_or(Ok(()), Parts::check)
            }
            Record::PointExpired { backup } => {
                self.points.remove(backup);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn commit(&mut self, shelf: &Shelf, slot: Slot, commit: &Commit) -> Verdict<()> {
        let Some(parts) = self.backups.get_mut(&commit.backup) else { return Ok(()) };
        for new in &commit.progress {
            let overlaps = |old: &Stretch| old.volume == new.volume && old.from < new.to && new.from < old.to;
            if let Some(old) = parts.stretches.iter().find(|old| overlaps(old)) {
                return Err(format!(
                    "C4: slot {slot} does {new:?} of backup {}, and {old:?} is done",
                    commit.backup
                ));
            }
            parts.stretches.push(*new);
        }
        for (id, _) in &commit.objects {
            let body = shelf.objects.get(id.object_key().as_str());
            let Some(made) = body.and_then(|body| Made::parse(body)) else { continue };
            let fits = |s: &Stretch| (s.volume, s.from, s.to) == (made.volume, made.from, made.to);
            if !commit.progress.iter().any(fits) {
                return Err(format!(
                    "I8: slot {slot} commits {id}, made of {made:?}, for {:?}",
                    commit.progress
                ));
            }
            parts.made.push(made);
        }
        Ok(())
    }

    /// Whether a backup has all of a stretch.
    pub fn covers(&self, backup: BackupId, stretch: &Stretch) -> bool {
        let Some(parts) = self.backups.get(&backup) else { return false };
        let mut at = stretch.from;
        let mut done: Vec<&Stretch> = parts.stretches.iter().filter(|s| s.volume == stretch.volume).collect();
        done.sort_unstable_by_key(|s| s.from);
        for s in done {
            if s.from <= at && at < s.to {
                at = s.to;
            }
        }
        at >= stretch.to
    }

    /// Points are those of the backups that ended, less those that the books of records let go.
    ///
    /// # Errors
    /// They are not.
    pub fn check_points(&mut self, model: &View, is_point: impl Fn(BackupId) -> bool) -> Verdict<()> {
        self.points.retain(|&backup| is_point(backup));
        if model.state.points.keys().eq(self.points.iter()) {
            return Ok(());
        }
        Err(format!("P2: points {:?}, and these backups ended: {:?}", model.state.points.keys(), self.points))
    }
}

impl Parts {
    fn check(&self) -> Verdict<()> {
        for volume in &self.volumes {
            let of = |s: &&Stretch| s.volume == volume.volume;
            let mut done: Vec<&Stretch> = self.stretches.iter().filter(of).collect();
            done.sort_unstable_by_key(|s| s.from);
            let end = done.iter().try_fold(KEY_START, |at, s| if s.from == at { Ok(s.to) } else { Err(at) });
            if end != Ok(KEY_END) {
                return Err(format!("I5: stretches of volume {} do not tile it: {end:?}", volume.volume));
            }
            let mut versions =
                self.made.iter().filter(|made| made.volume == volume.volume).map(|m| m.version);
            let first = versions.clone().next();
            let as_found = |version| volume.state.is_none_or(|state| state == state_of(version));
            if !versions.all(|version| Some(version) == first && as_found(version)) {
                return Err(format!(
                    "I8: a point has contents of volume {} that it never had at one time",
                    volume.volume
                ));
            }
        }
        Ok(())
    }
}
