//! Items and locations of one recovery point, read forward.
//!
//! A tree is walked in name order, but the inodes of a directory are mostly neighbours in the tables. So each reader keeps its
//! place: asking for a LIN at or a little past it only reads on, anything else seeks. One decoded row per item, instead of half a
//! row block.
//!
//! Does not: cache rows. Source: ours; reading rules in `format::row`.

use windlass_hal::volume::ItemKind;

use crate::format::key::KeyRef;
use crate::format::row::{ItemAttributes, LocationRow, NameRow, Row, RowKind};
use crate::id::{BackupId, Lin, VolumeId};
use crate::table::read::{Items, Locations, Names, TableReader};
use crate::table::source::{Ahead, Fetch, TableFault};
use crate::table::stream::Stream;

/// Inodes ahead up to which reading on is cheaper than seeking.
const FORWARD_INODES_MAX: u64 = 1024;
/// Inode of the root directory of an ext4.
const EXT4_ROOT: u64 = 2;

/// The tables at one recovery point. See the module's text.
pub struct Lookup<F> {
    reader: TableReader<F>,
    cut: BackupId,
    items: Forward,
    locations: Forward,
}

/// A stream and the place it has reached.
struct Forward {
    kind: RowKind,
    stream: Option<Stream>,
    at: Lin,
}

impl Forward {
    /// Makes the stream's next row one at or past `lin`, by reading on or by seeking.
    fn reach<F: Fetch>(&mut self, reader: &mut TableReader<F>, lin: Lin) -> Result<(), TableFault> {
        let near = self.stream.is_some()
            && lin.volume == self.at.volume
            && lin.inode >= self.at.inode
            && lin.inode - self.at.inode <= FORWARD_INODES_MAX;
        if !near {
            self.stream = Some(reader.rows(self.kind, KeyRef::first_of(lin)));
        }
        self.at = lin;
        let Some(stream) = &mut self.stream else { return Ok(()) };
        while stream.peek_lin(reader.source())?.is_some_and(|next| next < lin) {
            stream.next(reader.source())?;
        }
        Ok(())
    }

    /// The next row of `lin`, of any backup.
    fn next<F: Fetch>(&mut self, reader: &mut TableReader<F>, lin: Lin) -> Result<Option<Row>, TableFault> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        match stream.peek_lin(reader.source())? {
            Some(next) if next == lin => stream.next(reader.source()),
            _ => Ok(None),
        }
    }
}

impl<F: Fetch> Lookup<F> {
    /// Reads the point that `cut` made. What cannot be read costs its rows: [`TableFault::Lost`] says so when they are asked for.
    pub fn new(mut reader: TableReader<F>, cut: BackupId) -> Lookup<F> {
        reader.tolerate(&|_| false);
        let forward = |kind| Forward { kind, stream: None, at: Lin::default() };
        Lookup { reader, cut, items: forward(RowKind::Item), locations: forward(RowKind::Location) }
    }

    /// The point.
    pub fn point(&self) -> BackupId {
        self.cut
    }

    /// The root of a volume: the directory that is its own parent, or the item that is the whole volume. Where no directory says so
    /// (a root that could not be read), the one with ext4's number.
    pub fn root(&mut self, volume: VolumeId) -> Result<Option<(Lin, ItemAttributes)>, TableFault> {
        let mut items = self.reader.items(volume, 0, self.cut);
        while let Some(row) = items.next(&mut self.reader)? {
            let Some(item) = row.item else { continue };
            let own_parent = item.kind == ItemKind::Directory && item.parent == row.lin.inode;
            if own_parent || item.kind == ItemKind::Image {
                self.in_force(row.lin, row.backup)?;
                return Ok(Some((row.lin, item)));
            }
        }
        if let Some(lost) = self.reader.source().lost().next() {
            return Err(TableFault::Lost(lost));
        }
        let lin = Lin { volume, inode: EXT4_ROOT };
        Ok(self.item(lin)?.filter(|item| item.kind == ItemKind::Directory).map(|item| (lin, item)))
    }

    /// Fetches at once what is asked for next of an item: its row and, of a directory, where its names begin.
    pub fn ahead(&mut self, lin: Lin, is_directory: bool) {
        let key = KeyRef::at(lin, 0, self.cut);
        let place = |kind| Ahead { kind, key, whole: false };
        let places = [place(RowKind::Item), place(RowKind::Name)];
        self.reader.ahead(if is_directory { &places } else { &places[..1] });
    }

    /// Reads another point of the same tables from now on. What is cached stays good.
    pub fn set_cut(&mut self, cut: BackupId) {
        self.cut = cut;
    }

    /// The recovery point that it reads.
    pub fn cut(&self) -> BackupId {
        self.cut
    }

    /// All items of a volume that the point has, from an inode on.
    pub fn items(&self, volume: VolumeId, from: u64) -> Items {
        self.reader.items(volume, from, self.cut)
    }

    /// The item, if the point has it.
    pub fn item(&mut self, lin: Lin) -> Result<Option<ItemAttributes>, TableFault> {
        self.items.reach(&mut self.reader, lin)?;
        // Versions come newest first. What is behind the one in force is passed over by the next call.
        while let Some(row) = self.items.next(&mut self.reader, lin)? {
            let Row::Item(row) = row else { continue };
            if row.backup <= self.cut {
                // The row is taken: asking for the same item again has to seek.
                self.items.at.inode = lin.inode.saturating_add(1);
                self.in_force(lin, row.backup)?;
                return Ok(row.item);
            }
        }
        self.in_force(lin, BackupId(0))?;
        Ok(None)
    }

    /// Refuses an item's row of this backup when a newer one may be among rows that are lost.
    fn in_force(&mut self, lin: Lin, backup: BackupId) -> Result<(), TableFault> {
        let newer = BackupId(backup.0.saturating_add(1))..=self.cut;
        match self.reader.source().lost_at(RowKind::Item, lin, newer) {
            Some(lost) => Err(TableFault::Lost(lost)),
            None => Ok(()),
        }
    }

    /// Calls `each` with the location rows of an item, ascending by base; with those that are left when rows are lost, which is said at the end.
    pub fn locations(
        &mut self,
        lin: Lin,
        item: &ItemAttributes,
        each: &mut dyn FnMut(LocationRow) -> Result<(), TableFault>,
    ) -> Result<(), TableFault> {
        self.locations.reach(&mut self.reader, lin)?;
        let mut done = None;
        while let Some(row) = self.locations.next(&mut self.reader, lin)? {
            let Row::Location(row) = row else { continue };
            if (item.rows_from..=self.cut).contains(&row.backup) && done != Some(row.base) {
                done = Some(row.base);
                each(row)?;
            }
        }
        self.locations.at.inode = lin.inode.saturating_add(1);
        self.all_locations(lin, item)
    }

    /// Says so when location rows of an item may be among those that were found lost so far.
    pub fn all_locations(&mut self, lin: Lin, item: &ItemAttributes) -> Result<(), TableFault> {
        match self.reader.source().lost_at(RowKind::Location, lin, item.rows_from..=self.cut) {
            Some(lost) => Err(TableFault::Lost(lost)),
            None => Ok(()),
        }
    }

    /// Begins an item's location rows at the first that begins at or after `base`: for one item that is read from the middle.
    pub fn locations_from(&self, lin: Lin, item: &ItemAttributes, base: u64) -> Locations {
        self.reader.locations(lin, base, item.rows_from, self.cut)
    }

    /// The next of these rows.
    pub fn next_location(&mut self, rows: &mut Locations) -> Result<Option<LocationRow>, TableFault> {
        rows.next(&mut self.reader)
    }

    /// Begins a directory's listing.
    pub fn names(&self, dir: Lin, item: &ItemAttributes) -> Names {
        self.reader.names(dir, item.rows_from)
    }

    /// The next entry of a listing.
    pub fn next_name(&mut self, names: &mut Names) -> Result<Option<NameRow>, TableFault> {
        names.next(&mut self.reader)
    }

    /// One entry of a directory.
    pub fn lookup(
        &mut self,
        dir: Lin,
        item: &ItemAttributes,
        name: &[u8],
    ) -> Result<Option<NameRow>, TableFault> {
        let found = self.reader.lookup(dir, item.rows_from, name)?;
        let lost = self.reader.source().lost_at(RowKind::Name, dir, item.rows_from..=item.rows_from);
        match (found, lost) {
            (None, Some(lost)) => Err(TableFault::Lost(lost)),
            (found, _) => Ok(found),
        }
    }

    /// The tables' source, for its own calls.
    pub fn reader(&mut self) -> &mut TableReader<F> {
        &mut self.reader
    }
}
