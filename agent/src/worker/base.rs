//! Rows of the last point, read in step with the sweep: what a backup compares with.
//!
//! What the store has lost is not compared with: an item that stands on it counts as one that was not read whole, so that it is read again
//! and all its rows are written anew, and its blocks there count as not stored. Rows that cannot be read are rows that the point does not have.
//!
//! Source: ours; `log::damage`, `table::lost`.

use std::collections::BTreeMap;
use std::sync::Arc;

use windlass_hal::volume::ItemKind;

use crate::format::row::{BlockPlace, ItemRow, LocationRow, RowKind};
use crate::id::{BackupId, Lin, ObjectId, Slot, VolumeId};
use crate::log::damage::Damage;
use crate::log::state::State;
use crate::table::lost::{LostRows, known};
use crate::table::read::{Items, TableReader};
use crate::table::source::{Fetch, TableFault};
use crate::worker::backup::Base;

/// What the last point says of an item that stands on something lost: no item is like that.
const LOST: &str = "some of its stored data is lost";

/// Whose rows of a volume a backup looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Earlier {
    /// The last point of the policy that the volume is in.
    pub cut: Option<BackupId>,
    /// The first and the last backup of the policy that began since then and stopped: all rows of the volume that are newer than the cut
    /// are theirs, or the looking backup's own.
    pub unfinished: Option<(BackupId, BackupId)>,
}

impl Earlier {
    /// What `backup` of `policy` looks at.
    pub fn of(state: &State, policy: &str, volume: VolumeId, backup: BackupId) -> Earlier {
        let mut before = state.unfinished(policy).map(|(id, _)| id).filter(|&id| id < backup);
        let first = before.next();
        let unfinished = first.map(|first| (first, before.next_back().unwrap_or(first)));
        Earlier { cut: state.last_point_of(policy, volume).map(|(cut, _)| cut), unfinished }
    }
}

/// The items of one volume at one cut, none when there is no point yet; and what backups have stored that stopped since then.
pub struct PointRows<F> {
    reader: TableReader<F>,
    volume: VolumeId,
    earlier: Earlier,
    items: Option<Items>,
    /// Read too far: the first row of the next stretch.
    ahead: Option<ItemRow>,
    from: u64,
    damage: Arc<Damage>,
    /// Objects that nothing may refer to anew.
    condemned: Arc<BTreeMap<ObjectId, Slot>>,
    /// The item that was looked at last, and whether it stands on something lost: large ones are asked for again and again.
    judged: Option<(u64, bool)>,
}

impl<F: Fetch> PointRows<F> {
    /// Rows of `volume`. `damage` is the log's.
    pub fn new(
        mut reader: TableReader<F>,
        volume: VolumeId,
        earlier: Earlier,
        damage: &Arc<Damage>,
    ) -> PointRows<F> {
        reader.tolerate(&|id| damage.distrusts(id));
        let damage = Arc::clone(damage);
        let condemned = Arc::default();
        PointRows {
            reader,
            volume,
            earlier,
            items: None,
            ahead: None,
            from: 0,
            damage,
            condemned,
            judged: None,
        }
    }

    /// The same without blocks of objects that nothing may refer to anew (G4): they are stored again.
    #[must_use]
    pub fn without(mut self, condemned: &Arc<BTreeMap<ObjectId, Slot>>) -> PointRows<F> {
        self.condemned = Arc::clone(condemned);
        self
    }

    /// Whether an item of the point stands on something lost. Looks at its places only where the log says that the point does.
    fn is_on_lost(&mut self, row: &ItemRow, cut: BackupId) -> Result<bool, TableFault> {
        let Some(item) = &row.item else { return Ok(false) };
        let (lin, rows_from) = (row.lin, item.rows_from);
        let source = self.reader.source();
        match item.kind {
            ItemKind::Directory => Ok(source.lost_at(RowKind::Name, lin, rows_from..=rows_from).is_some()),
            // Read from end to end whatever the point says; its blocks are looked at one by one.
            ItemKind::Image => Ok(false),
            ItemKind::File if source.lost_at(RowKind::Location, lin, rows_from..=cut).is_some() => Ok(true),
            ItemKind::File if self.damage.points.contains(&cut) => {
                if let Some((inode, lost)) = self.judged
                    && inode == lin.inode
                {
                    return Ok(lost);
                }
                let mut rows = self.reader.locations(lin, 0, rows_from, cut);
                let lost = loop {
                    match known(rows.next(&mut self.reader))? {
                        Ok(Some(row)) if self.is_lost(&row) => break true,
                        Ok(Some(_)) => {}
                        Ok(None) => break false,
                        Err(_) => break true,
                    }
                };
                self.judged = Some((lin.inode, lost));
                Ok(lost)
            }
            _ => Ok(false),
        }
    }

    /// Whether no row may refer to an object: it is lost, or on its way out.
    fn is_refused(&self, object: &ObjectId) -> bool {
        self.damage.distrusts(object) || self.condemned.contains_key(object)
    }

    fn is_lost(&self, row: &LocationRow) -> bool {
        row.blocks
            .iter()
            .any(|block| matches!(block, BlockPlace::Stored(place) if self.damage.distrusts(&place.object)))
    }
}

impl<F: Fetch> Base for PointRows<F> {
    type Fault = TableFault;

    fn items(&mut self, from: u64, to: u64, out: &mut Vec<ItemRow>) -> Result<(), TableFault> {
        let Some(cut) = self.earlier.cut else { return Ok(()) };
        // Stretches follow each other; an item that takes several windows asks for its own inode again.
        if self.items.is_none() || from < self.from {
            self.items = Some(self.reader.items(self.volume, from, cut));
            self.ahead = None;
        }
        self.from = to;
        let Some(mut items) = self.items.take() else { return Ok(()) };
        let begin = out.len();
        loop {
            let next = match self.ahead.take() {
                Some(row) => Some(row),
                None => items.next(&mut self.reader)?,
            };
            match next {
                None => break,
                Some(row) if row.lin.inode >= to => {
                    self.ahead = Some(row);
                    break;
                }
                Some(row) if row.lin.inode < from => {}
                Some(row) => out.push(row),
            }
        }
        self.items = Some(items);
        if self.damage.points.contains(&cut) || self.reader.source().lost().next().is_some() {
            // A newer row of the item may be lost: then it is not known how the point has it.
            let source = self.reader.source();
            let newer = |row: &ItemRow| BackupId(row.backup.0.saturating_add(1))..=cut;
            let mut at = 0;
            out.retain(|row| {
                at += 1;
                at <= begin || source.lost_at(RowKind::Item, row.lin, newer(row)).is_none()
            });
            for row in &mut out[begin..] {
                if self.is_on_lost(row, cut)?
                    && let Some(item) = &mut row.item
                {
                    LOST.clone_into(&mut item.fault);
                }
            }
        }
        Ok(())
    }

    fn locations(
        &mut self,
        item: &ItemRow,
        from: u64,
        to: u64,
        out: &mut Vec<LocationRow>,
    ) -> Result<(), TableFault> {
        let (Some(cut), Some(attributes)) = (self.earlier.cut, &item.item) else { return Ok(()) };
        self.read_locations(item.lin.inode, (from, to), (attributes.rows_from, cut), out)
    }

    fn unfinished(
        &mut self,
        inode: u64,
        from: u64,
        to: u64,
        out: &mut Vec<LocationRow>,
    ) -> Result<(), TableFault> {
        let Some(backups) = self.earlier.unfinished else { return Ok(()) };
        self.read_locations(inode, (from, to), backups, out)
    }

    fn lost(&self) -> Vec<LostRows> {
        self.reader.lost().collect()
    }
}

impl<F: Fetch> PointRows<F> {
    /// Appends the newest location rows of an inode, with bases from the first to the last of `bases`, of the first to the last of
    /// `backups`.
    fn read_locations(
        &mut self,
        inode: u64,
        bases: (u64, u64),
        backups: (BackupId, BackupId),
        out: &mut Vec<LocationRow>,
    ) -> Result<(), TableFault> {
        let lin = Lin { volume: self.volume, inode };
        let mut rows = self.reader.locations(lin, bases.0, backups.0, backups.1);
        // Rows that are lost are rows that are not there: their blocks are stored again.
        while let Ok(Some(mut row)) = known(rows.next(&mut self.reader))? {
            if row.base > bases.1 {
                break;
            }
            for block in &mut row.blocks {
                if matches!(block, BlockPlace::Stored(place) if self.is_refused(&place.object)) {
                    *block = BlockPlace::Lost;
                }
            }
            out.push(row);
        }
        Ok(())
    }
}
