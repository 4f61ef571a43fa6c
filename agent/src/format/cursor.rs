//! Fixed little-endian fields, one after the other: the reader and the writer under the log's formats.
//!
//! | type | bytes |
//! |---|---|
//! | `u8` `u16` `u32` `u64` `i64` | little-endian |
//! | `[u8; N]` | as they are |
//! | identities of `id` | their fields in order |
//! | `Option<T>` | one byte 0 or 1, then the value when 1 |
//! | byte string, text | `u32` length, then the bytes; text is UTF-8 |
//! | list | `u32` count, then the values |
//!
//! Invariants: a parse never panics and never allocates more than a small multiple of the bytes that are there; every value has
//! exactly one encoding. Does not: know any format. Source: ours.

use std::fmt;

use super::feature::FeatureName;
use crate::id::{BackupId, Boot, Epoch, NodeId, OBJECT_ID_BYTES, ObjectId, Slot, VolumeId};

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WireFault {
    /// They end too early.
    Short,
    /// They go on after the end.
    Trailing,
    /// They do not start with the format's magic.
    Magic,
    /// A version that this program does not know.
    Version(u16),
    /// A record kind that this program does not know.
    Kind(u8),
    /// An incompatible feature that this program does not know.
    Feature(FeatureName),
    /// A count or a length above its bound.
    Count(u32),
    /// A field holds a value that it may not hold.
    Value,
    /// Text is not UTF-8.
    Text,
    /// The digest over the bytes does not match them.
    Digest,
    /// The sealed part does not open under this repository's key.
    Seal,
    /// Another repository wrote them.
    Cluster,
}

impl WireFault {
    /// Whether a newer program wrote it: the bytes are as they were written, and no damage.
    #[must_use]
    pub fn is_newer(&self) -> bool {
        matches!(self, WireFault::Version(_) | WireFault::Kind(_) | WireFault::Feature(_))
    }
}

impl fmt::Display for WireFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireFault::Short => f.write_str("it ends too early"),
            WireFault::Trailing => f.write_str("it goes on after its end"),
            WireFault::Magic => f.write_str("it is something else"),
            WireFault::Version(version) => {
                write!(f, "version {version} is unknown to this program; use a newer one")
            }
            WireFault::Kind(kind) => {
                write!(f, "record kind {kind} is unknown to this program; use a newer one")
            }
            WireFault::Feature(name) => {
                write!(f, "feature \"{name}\" is unknown to this program; use a newer one")
            }
            WireFault::Count(count) => write!(f, "a count of {count} is above its bound"),
            WireFault::Value => f.write_str("a field holds a value that it may not hold"),
            WireFault::Text => f.write_str("text is not UTF-8"),
            WireFault::Digest => f.write_str("its digest does not match: the bytes were changed"),
            WireFault::Seal => {
                f.write_str("it does not open under this repository's key: wrong key, or changed bytes")
            }
            WireFault::Cluster => f.write_str("it belongs to another repository"),
        }
    }
}

/// Takes values off the front of bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes }
    }

    /// Bytes left.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], WireFault> {
        let (head, rest) = self.bytes.split_at_checked(count).ok_or(WireFault::Short)?;
        self.bytes = rest;
        Ok(head)
    }

    /// The next value.
    pub fn value<T: Wire>(&mut self) -> Result<T, WireFault> {
        T::parse(self)
    }

    /// A byte string of at most `max` bytes.
    pub fn bytes(&mut self, max: usize) -> Result<&'a [u8], WireFault> {
        let count: u32 = self.value()?;
        match usize::try_from(count) {
            Ok(len) if len <= max => self.take(len),
            _ => Err(WireFault::Count(count)),
        }
    }

    /// Text of at most `max` bytes.
    pub fn text(&mut self, max: usize) -> Result<String, WireFault> {
        let bytes = self.bytes(max)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| WireFault::Text)
    }

    /// A list of at most `max` values.
    pub fn list<T: Wire>(&mut self, max: usize) -> Result<Vec<T>, WireFault> {
        let count: u32 = self.value()?;
        let len = usize::try_from(count).map_err(|_| WireFault::Count(count))?;
        if len > max {
            return Err(WireFault::Count(count));
        }
        // Every value takes at least one byte, so a lying count cannot make this allocate much.
        let mut values = Vec::with_capacity(len.min(self.bytes.len() / T::BYTES_MIN.max(1)));
        for _ in 0..len {
            values.push(self.value()?);
        }
        Ok(values)
    }

    /// Requires that nothing is left.
    pub fn finish(self) -> Result<(), WireFault> {
        if self.bytes.is_empty() { Ok(()) } else { Err(WireFault::Trailing) }
    }
}

/// A value with one fixed encoding.
pub trait Wire: Sized {
    /// Bytes of the shortest encoding.
    const BYTES_MIN: usize;

    /// Appends the encoding.
    fn emit(&self, out: &mut Vec<u8>);

    /// Takes a value off the front.
    fn parse(reader: &mut Reader<'_>) -> Result<Self, WireFault>;
}

/// Appends a byte string: length, bytes. Longer than `u32::MAX` cannot happen: every caller bounds it far below.
pub fn emit_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    emit_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends a list: count, values.
pub fn emit_list<T: Wire>(out: &mut Vec<u8>, values: &[T]) {
    emit_count(out, values.len());
    for value in values {
        value.emit(out);
    }
}

fn emit_count(out: &mut Vec<u8>, count: usize) {
    // A saturated count cannot parse back, so it is refused by the reader, never misread.
    u32::try_from(count).unwrap_or(u32::MAX).emit(out);
}

macro_rules! wire_integers {
    ($($kind:ty),*) => {$(
        impl Wire for $kind {
            const BYTES_MIN: usize = size_of::<$kind>();
            fn emit(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn parse(reader: &mut Reader<'_>) -> Result<Self, WireFault> {
                Ok(<$kind>::from_le_bytes(reader.value()?))
            }
        }
    )*};
}
wire_integers!(u16, u32, u64, i64);

macro_rules! wire_newtypes {
    ($($name:ident: $inner:ty),*) => {$(
        impl Wire for $name {
            const BYTES_MIN: usize = size_of::<$inner>();
            fn emit(&self, out: &mut Vec<u8>) {
                self.0.emit(out);
            }
            fn parse(reader: &mut Reader<'_>) -> Result<Self, WireFault> {
                Ok($name(reader.value()?))
            }
        }
    )*};
}
wire_newtypes!(Epoch: u64, Slot: u64, NodeId: u32, Boot: u64, BackupId: u32, VolumeId: u32);

/// Declares how a struct is encoded: its fields in the order given, nothing between them.
#[macro_export]
macro_rules! wire_struct {
    ($name:ident { $($field:ident: $kind:ty),* $(,)? }) => {
        impl $crate::format::cursor::Wire for $name {
            const BYTES_MIN: usize = 0 $(+ <$kind as $crate::format::cursor::Wire>::BYTES_MIN)*;
            fn emit(&self, out: &mut Vec<u8>) {
                $(self.$field.emit(out);)*
            }
            fn parse(
                reader: &mut $crate::format::cursor::Reader<'_>,
            ) -> Result<Self, $crate::format::cursor::WireFault> {
                $(let $field: $kind = reader.value()?;)*
                Ok($name { $($field),* })
            }
        }
    };
}

impl Wire for u8 {
    const BYTES_MIN: usize = 1;
    fn emit(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }
    fn parse(reader: &mut Reader<'_>) -> Result<Self, WireFault> {
        Ok(reader.value::<[u8; 1]>()?[0])
    }
}

impl<const N: usize> Wire for [u8; N] {
    const BYTES_MIN: usize = N;
    fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn parse(reader: &mut Reader<'_>) -> Result<Self, WireFault> {
        let mut array = [0; N];
        array.copy_from_slice(reader.take(N)?);
        Ok(array)
    }
}

impl Wire for ObjectId {
    const BYTES_MIN: usize = OBJECT_ID_BYTES;
    fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_bytes());
    }
    fn parse(reader: &mut Reader<'_>) -> Result<Self, WireFault> {
        Ok(ObjectId::from_bytes(&reader.value()?))
    }
}

impl<T: Wire> Wire for Option<T> {
    const BYTES_MIN: usize = 1;
    fn emit(&self, out: &mut Vec<u8>) {
        match self {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                value.emit(out);
            }
        }
    }
    fn parse(reader: &mut Reader<'_>) -> Result<Self, WireFault> {
        match reader.value::<u8>()? {
            0 => Ok(None),
            1 => Ok(Some(reader.value()?)),
            _ => Err(WireFault::Value),
        }
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    const BYTES_MIN: usize = A::BYTES_MIN + B::BYTES_MIN;
    fn emit(&self, out: &mut Vec<u8>) {
        self.0.emit(out);
        self.1.emit(out);
    }
    fn parse(reader: &mut Reader<'_>) -> Result<Self, WireFault> {
        Ok((reader.value()?, reader.value()?))
    }
}
