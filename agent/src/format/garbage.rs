//! What the log says of garbage: the fields of record kind 23.
//!
//! | part u8 | what | fields |
//! |---|---|---|
//! | 1 | condemned: nothing may refer to these objects anew | list of objects |
//! | 2 | spared: these are condemned no more | list of objects |
//! | 3 | retired: no row refers to these, as of a slot | slot u64, list of (object 24, bytes u64) |
//! | 4 | deleted: these are not in the store any more | list of names |
//! | 5 | clock: what the wall clock said at this slot | wall clock i64 |
//! | 6 | settings | window u64, every u64: nanoseconds |
//! | 7 | run wanted | wall clock i64 |
//! | 8 | run ended | [`Done`], its fields in order |
//! | 9 | run wanted, with a budget | wall clock i64, bytes that may be moved u64; 0: none |
//! | 10 | run ended that moved something | as 8, then [`Moves`], its fields in order |
//!
//! Invariants: one encoding; lists are not empty and ascend. Does not: judge them against a state (`log::garbage`).
//! Source: `agent/doc/commit-log.md`, Garbage.

use super::cursor::{Reader, Wire, WireFault, emit_list};
use crate::id::{BackupId, ObjectId, Slot};
use crate::log::limits::RECORD_OBJECTS_MAX;
use crate::wire_struct;

/// How garbage is treated in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Between a name's retirement and its deletion, in nanoseconds: readers without a pin are safe for so long.
    pub window_ns: u64,
    /// Between two runs that nodes begin by themselves, in nanoseconds; 0: they begin none.
    pub every_ns: u64,
}
wire_struct!(Settings { window_ns: u64, every_ns: u64 });

/// A run that was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// Wall clock, nanoseconds since 1970, for people.
    pub wall_ns: i64,
}
wire_struct!(Wanted { wall_ns: i64 });

/// What a run did and found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Done {
    /// Wall clock, nanoseconds since 1970, when it ended.
    pub wall_ns: i64,
    /// Points and running backups then.
    pub backups: u32,
    /// Number of the last backup then.
    pub last_backup: BackupId,
    /// Upload objects in the tables.
    pub objects: u64,
    /// Bytes of frames that rows refer to, rounded up.
    pub live_bytes: u64,
    /// Objects and segments deleted.
    pub deleted: u64,
    /// Bytes of the objects among them.
    pub deleted_bytes: u64,
    /// Deletions that the store put off.
    pub later: u64,
    /// Objects without anything live that a backup which runs may still refer to: they wait for its end.
    pub waiting: u64,
    /// Objects that were kept because their tail could not be read, or because it contradicts the tables.
    pub kept: u64,
    /// Steps that failed.
    pub faults: u64,
    /// Wall clock when the last sweep for orphans came to its end, nanoseconds since 1970; 0: none did.
    pub swept_ns: i64,
}
wire_struct!(Done {
    wall_ns: i64,
    backups: u32,
    last_backup: BackupId,
    objects: u64,
    live_bytes: u64,
    deleted: u64,
    deleted_bytes: u64,
    later: u64,
    waiting: u64,
    kept: u64,
    faults: u64,
    swept_ns: i64,
});

/// What a run moved out of objects of which little was live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Moves {
    /// Plain bytes of the blocks that were moved.
    pub bytes: u64,
    /// Objects that they were in.
    pub objects: u64,
}
wire_struct!(Moves { bytes: u64, objects: u64 });

/// One piece of news.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GarbageNews {
    /// Nothing may refer to these objects anew.
    Condemned(Vec<ObjectId>),
    /// These are condemned no more: a row refers to them.
    Spared(Vec<ObjectId>),
    /// Condemned objects leave the tables.
    Retired {
        /// The tables were looked through as of this slot: no row refers to them.
        seen: Slot,
        /// (name, bytes), ascending.
        objects: Vec<(ObjectId, u64)>,
    },
    /// Retired names whose deletion the store has confirmed.
    Deleted(Vec<ObjectId>),
    /// What the wall clock said at this slot, in nanoseconds since 1970.
    Clock(i64),
    /// How garbage is treated from now on.
    Settings(Settings),
    /// A run is wanted.
    Wanted(Wanted),
    /// The run that was wanted has ended.
    Done(Done),
    /// A run is wanted that moves so many bytes at most.
    WantedWith(Wanted, u64),
    /// The run that was wanted has ended, and moved something.
    DoneWith(Done, Moves),
}

impl GarbageNews {
    /// Appends its fields.
    pub fn emit(&self, out: &mut Vec<u8>) {
        match self {
            GarbageNews::Condemned(names) => emit_names(1, names, out),
            GarbageNews::Spared(names) => emit_names(2, names, out),
            GarbageNews::Retired { seen, objects } => {
                out.push(3);
                seen.emit(out);
                emit_list(out, objects);
            }
            GarbageNews::Deleted(names) => emit_names(4, names, out),
            GarbageNews::Clock(wall_ns) => {
                out.push(5);
                wall_ns.emit(out);
            }
            GarbageNews::Settings(settings) => {
                out.push(6);
                settings.emit(out);
            }
            GarbageNews::Wanted(wanted) => {
                out.push(7);
                wanted.emit(out);
            }
            GarbageNews::Done(done) => {
                out.push(8);
                done.emit(out);
            }
            GarbageNews::WantedWith(wanted, budget_bytes) => {
                out.push(9);
                wanted.emit(out);
                budget_bytes.emit(out);
            }
            GarbageNews::DoneWith(done, moves) => {
                out.push(10);
                done.emit(out);
                moves.emit(out);
            }
        }
    }

    /// Inverse of [`GarbageNews::emit`].
    ///
    /// # Errors
    /// Unknown parts, lists that are empty, too long or not in order.
    pub fn parse(reader: &mut Reader<'_>) -> Result<GarbageNews, WireFault> {
        Ok(match reader.value::<u8>()? {
            1 => GarbageNews::Condemned(names(reader)?),
            2 => GarbageNews::Spared(names(reader)?),
            3 => {
                let seen = reader.value()?;
                let objects: Vec<(ObjectId, u64)> = reader.list(RECORD_OBJECTS_MAX)?;
                ascend(&objects, |object| object.0)?;
                GarbageNews::Retired { seen, objects }
            }
            4 => GarbageNews::Deleted(names(reader)?),
            5 => GarbageNews::Clock(reader.value()?),
            6 => GarbageNews::Settings(reader.value()?),
            7 => GarbageNews::Wanted(reader.value()?),
            8 => GarbageNews::Done(reader.value()?),
            9 => GarbageNews::WantedWith(reader.value()?, reader.value()?),
            10 => GarbageNews::DoneWith(reader.value()?, reader.value()?),
            _ => return Err(WireFault::Value),
        })
    }
}

fn emit_names(part: u8, names: &[ObjectId], out: &mut Vec<u8>) {
    out.push(part);
    emit_list(out, names);
}

fn names(reader: &mut Reader<'_>) -> Result<Vec<ObjectId>, WireFault> {
    let names: Vec<ObjectId> = reader.list(RECORD_OBJECTS_MAX)?;
    ascend(&names, |name| *name)?;
    Ok(names)
}

fn ascend<T>(list: &[T], key: impl Fn(&T) -> ObjectId) -> Result<(), WireFault> {
    let ascends = list.windows(2).all(|pair| key(&pair[0]) < key(&pair[1]));
    if ascends && !list.is_empty() { Ok(()) } else { Err(WireFault::Value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_come_back_and_lists_out_of_order_do_not() {
        let id = |count| ObjectId { count, ..ObjectId::default() };
        let all = [
            GarbageNews::Condemned(vec![id(1), id(2)]),
            GarbageNews::Spared(vec![id(9)]),
            GarbageNews::Retired { seen: Slot(7), objects: vec![(id(1), 5), (id(4), 6)] },
            GarbageNews::Deleted(vec![id(1)]),
            GarbageNews::Clock(-5),
            GarbageNews::Settings(Settings { window_ns: 1, every_ns: 2 }),
            GarbageNews::Wanted(Wanted { wall_ns: 1 }),
            GarbageNews::Done(Done { backups: 3, faults: 9, ..Done::default() }),
            GarbageNews::WantedWith(Wanted { wall_ns: 1 }, 7),
            GarbageNews::DoneWith(Done::default(), Moves { bytes: 5, objects: 2 }),
        ];
        for news in all {
            let mut bytes = Vec::new();
            news.emit(&mut bytes);
            let mut reader = Reader::new(&bytes);
            assert_eq!(GarbageNews::parse(&mut reader), Ok(news));
            assert!(reader.is_empty());
        }
        for bad in [vec![], vec![id(2), id(1)], vec![id(1), id(1)]] {
            let mut bytes = Vec::new();
            GarbageNews::Deleted(bad).emit(&mut bytes);
            assert_eq!(GarbageNews::parse(&mut Reader::new(&bytes)), Err(WireFault::Value));
        }
    }
}
