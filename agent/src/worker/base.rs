//! Rows of the last point, read in step with the sweep: what a backup compares with. Source: ours.

use crate::format::row::{ItemRow, LocationRow};
use crate::id::{BackupId, Lin, VolumeId};
use crate::table::read::{Items, TableReader};
use crate::table::source::{Fetch, TableFault};
use crate::worker::backup::Base;

/// The items of one volume at one cut; none when there is no point yet.
pub struct PointRows<F> {
    reader: TableReader<F>,
    volume: VolumeId,
    cut: Option<BackupId>,
    items: Option<Items>,
    /// Read too far: the first row of the next stretch.
    ahead: Option<ItemRow>,
    from: u64,
}

impl<F: Fetch> PointRows<F> {
    /// Rows of `volume` at `cut`; with `None` there are none.
    pub fn new(reader: TableReader<F>, volume: VolumeId, cut: Option<BackupId>) -> PointRows<F> {
        PointRows { reader, volume, cut, items: None, ahead: None, from: 0 }
    }
}

impl<F: Fetch> Base for PointRows<F> {
    type Fault = TableFault;

    fn items(&mut self, from: u64, to: u64, out: &mut Vec<ItemRow>) -> Result<(), TableFault> {
        let Some(cut) = self.cut else { return Ok(()) };
        // Stretches follow each other; an item that takes several windows asks for its own inode again.
        if self.items.is_none() || from < self.from {
            self.items = Some(self.reader.items(self.volume, from, cut));
            self.ahead = None;
        }
        self.from = to;
        let Some(items) = &mut self.items else { return Ok(()) };
        loop {
            let next = match self.ahead.take() {
                Some(row) => Some(row),
                None => items.next(&mut self.reader)?,
            };
            match next {
                None => return Ok(()),
                Some(row) if row.lin.inode >= to => {
                    self.ahead = Some(row);
                    return Ok(());
                }
                Some(row) if row.lin.inode < from => {}
                Some(row) => out.push(row),
            }
        }
    }

    fn locations(
        &mut self,
        item: &ItemRow,
        from: u64,
        to: u64,
        out: &mut Vec<LocationRow>,
    ) -> Result<(), TableFault> {
        let (Some(cut), Some(attributes)) = (self.cut, &item.item) else { return Ok(()) };
        let lin = Lin { volume: self.volume, inode: item.lin.inode };
        let mut rows = self.reader.locations(lin, from, attributes.rows_from, cut);
        while let Some(row) = rows.next(&mut self.reader)? {
            if row.base > to {
                break;
            }
            out.push(row);
        }
        Ok(())
    }
}
