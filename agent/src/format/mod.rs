//! Bytes in the store: what every format looks like, and the values that they carry.
//!
//! | module | what |
//! |---|---|
//! | [`row`] | rows of the metadata table and the block location table: the values |
//! | [`key`] | keys of rows and their order |
//! | [`block`] | row blocks: sorted rows, coded against each other, zstd, sealed |
//! | [`tail`] | the index and trailer at the end of every object and segment |
//! | [`frame`] | frames: the blocks of an upload object, compressed and sealed together |
//! | [`seal`] | keys, sealing and digests |
//! | [`repo`] | the repository's `format` object |
//! | [`home`] | the `home` object: which repository a log store of its own belongs to |
//! | [`wrap`] | key slots: the wrapped master key |
//! | [`compress`] | zstd contexts, made once and reused |
//! | [`copies`] | two copies in one object, for what nothing can be found without |
//! | [`varint`] | varints, and a reader over foreign bytes |
//! | [`fault`] | why bytes were refused |
//! | [`cursor`] | fixed little-endian fields: what the log's formats are written with |
//! | [`record`] | records of the commit log |
//! | [`totals`] | what a backup did, in numbers |
//! | [`access`] | who may do what, and who did it |
//! | [`guard`] | what keeps a point from going too soon, and its way out |
//! | [`mark`] | what people say of a point: held, a note, tags |
//! | [`slot`] | the small objects of the commit log: slot, grant, beat, boundary |
//!
//! All integers are little-endian or LEB128 varints; every format has a magic and a version, and an unknown version is refused.

pub mod access;
pub mod block;
mod codec;
pub mod compress;
pub mod copies;
pub mod cursor;
pub mod fault;
pub mod feature;
pub mod frame;
pub mod garbage;
pub mod guard;
pub mod home;
pub mod key;
pub mod mark;
pub mod record;
pub mod removal;
pub mod repo;
pub mod row;
pub mod seal;
pub mod slot;
pub mod tail;
pub mod totals;
pub mod varint;
pub mod wrap;
