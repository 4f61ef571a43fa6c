//! What nodes say to each other: the bodies of backplane frames. Control only; data goes from worker to store.
//!
//! A body is fields as [`cursor`](crate::format::cursor) encodes them; the frame's header says the kind, the sender, the sender's
//! highest epoch and the last slot of the log that it has applied.
//!
//! | kind | message | from -> to | fields in order |
//! |---|---|---|---|
//! | 16 | announce | holder -> all | resting u8, successor `Option<u32>` |
//! | 17 | present | node -> holder | [`Present`] |
//! | 18 | probe | holder -> node | ask u64, policy text, list of volume u32 |
//! | 19 | probed | node -> holder | ask u64, list of [`Found`], list of (volume u32, text) |
//! | 20 | assign | holder -> node | [`Assignment`] |
//! | 21 | report | node -> holder | [`Report`] |
//! | 22 | accepted | holder -> node | id, sequence u32 |
//! | 23 | revoke | holder -> node | id |
//! | 24 | failed | node -> holder | id, text |
//! | 25 | fenced | any -> any | nothing: the header's epoch is the news |
//! | 26 | request | node -> holder | request u64, [`Command`] |
//! | 27 | reply | holder -> node | request u64, [`Reply`] |
//! | 28 | redirect | any -> node | request u64, holder `Option<u32>` |
//! | 29 | merge | holder -> node | [`MergeOrder`] |
//! | 30 | merged | node -> holder | [`MergeOrder`], list of segments |
//! | 31 | flush | holder -> node | ask u64 |
//! | 32 | flushed | node -> holder | ask u64 |
//! | 33 | divide | holder -> node | policy text, nodes u32 |
//!
//! Version 1 of the protocol has no 31 and 32 and no command 6: they are not sent to a node that speaks it ([`Message::since`]). It has a
//! present without its last field, and a probed without [`Marks`], 31 u64 for each that was found, behind all else: they are left out
//! ([`Message::emit_for`]).
//!
//! Before version 3 a request does not say who asks: command 7 is left out around another one. Before version 4 there is no 33.
//!
//! Kinds below 16 are the session's own (`session`). Invariants: one encoding per message; counts are bounded so that a full message
//! fits a frame (const-asserted). Does not: judge messages. Source: `agent/doc/architecture.md`, Backplane.

use crate::format::cursor::{Reader, Wire, WireFault, emit_bytes, emit_list};
use crate::format::record::{BackupVolume, SegmentMeta, parse_records};
use crate::id::{BackupId, Epoch, Key, NodeId, VolumeId};
use crate::log::limits::{DEVICE_BYTES_MAX, POLICY_NAME_BYTES_MAX, POLICY_VOLUMES_MAX};
use crate::policy::select::Unmatched;
use crate::table::plan::GROUP_MAX;
use crate::table::segment::SEGMENT_META_BYTES;
use crate::wire_struct;
use crate::work::{Assignment, AssignmentId, Command, Found, MergeOrder, Present, Reply, Report};
use crate::worker::density::{MARKS, Marks};

/// Kind numbers of messages: a frame of another kind is refused by its header. Those below are the session's own.
pub const KINDS: std::ops::RangeInclusive<u8> = 16..=33;
/// Bytes of a frame's body at most: 64 KiB with its header of 80.
pub const BODY_BYTES_MAX: usize = 64 * 1024 - 80;
/// Bytes of a sentence that says what failed.
pub const WHAT_BYTES_MAX: usize = 512;
/// Volumes that a node says it can read.
pub const NODE_VOLUMES_MAX: usize = 64;
/// Assignments that a node holds at most: what it works on and what is queued behind.
pub const NODE_ASSIGNMENTS_MAX: usize = 8;
/// Objects in one report: the worker's commit threshold with room for those that wait for rows.
pub const REPORT_OBJECTS_MAX: usize = 512;
/// Segments in one report.
pub const REPORT_SEGMENTS_MAX: usize = 128;
/// Items with something missing that a report names; more are counted.
pub const REPORT_TROUBLES_MAX: usize = 16;
/// Bytes of a reply's text: a status of 64 nodes.
pub const REPLY_BYTES_MAX: usize = 60 * 1024;
/// Bytes of who asks: some names.
pub const SUBJECTS_BYTES_MAX: usize = 512;
/// Bytes of the records of a submission, encoded.
pub const SUBMIT_BYTES_MAX: usize = 60 * 1024;

const _: () = assert!(
    REPORT_OBJECTS_MAX * 32
        + REPORT_SEGMENTS_MAX * SEGMENT_META_BYTES
        + REPORT_TROUBLES_MAX * (WHAT_BYTES_MAX + 16)
        + 1024
        < BODY_BYTES_MAX
);
const _: () =
    assert!(NODE_VOLUMES_MAX * (DEVICE_BYTES_MAX + 4) + NODE_ASSIGNMENTS_MAX * 128 + 1024 < BODY_BYTES_MAX);
const _: () = assert!(GROUP_MAX * (SEGMENT_META_BYTES + 24) + 1024 < BODY_BYTES_MAX);
const _: () = assert!(POLICY_VOLUMES_MAX * (WHAT_BYTES_MAX + 128 + MARKS_BYTES) + 1024 < BODY_BYTES_MAX);

wire_struct!(AssignmentId { epoch: Epoch, number: u32 });

wire_struct!(Assignment { id: AssignmentId, backup: BackupId, volume: BackupVolume, from: Key, to: Key });

/// Bytes of [`Present::uploaded`], which version 1 does not have.
const UPLOADED_BYTES: usize = 8;

impl Wire for Found {
    const BYTES_MIN: usize =
        BackupVolume::BYTES_MIN + Key::BYTES_MIN + 3 * u64::BYTES_MIN + Unmatched::BYTES_MIN;
    fn emit(&self, out: &mut Vec<u8>) {
        self.volume.emit(out);
        self.end.emit(out);
        self.grain.emit(out);
        self.items.emit(out);
        self.bytes.emit(out);
        self.unmatched.emit(out);
    }
    fn parse(reader: &mut Reader<'_>) -> Result<Self, WireFault> {
        Ok(Found {
            volume: reader.value()?,
            end: reader.value()?,
            grain: reader.value()?,
            items: reader.value()?,
            bytes: reader.value()?,
            unmatched: reader.value()?,
            marks: Marks::default(),
        })
    }
}

impl Wire for Marks {
    const BYTES_MIN: usize = MARKS_BYTES;
    fn emit(&self, out: &mut Vec<u8>) {
        self.0.iter().for_each(|mark| mark.emit(out));
    }
    fn parse(reader: &mut Reader<'_>) -> Result<Self, WireFault> {
        let mut marks = Marks::default();
        for mark in &mut marks.0 {
            *mark = reader.value()?;
        }
        Ok(marks)
    }
}

/// Bytes of a volume's marks.
const MARKS_BYTES: usize = 8 * MARKS;

impl Wire for Unmatched {
    const BYTES_MIN: usize = size_of::<Unmatched>();
    fn emit(&self, out: &mut Vec<u8>) {
        self.words().iter().for_each(|word| word.emit(out));
    }
    fn parse(reader: &mut Reader<'_>) -> Result<Self, WireFault> {
        let mut words = Unmatched::default().words();
        for word in &mut words {
            *word = reader.value()?;
        }
        Ok(Unmatched::from_words(words))
    }
}

/// A frame's body.
#[allow(clippy::large_enum_variant, reason = "reports are what there is most of")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// I hold the lease of the header's epoch, or have just let it go.
    Announce {
        /// It is free: the node that has work takes it.
        resting: bool,
        /// Who was asked to take it next.
        successor: Option<NodeId>,
    },
    /// Who I am.
    Present(Present),
    /// Open these volumes of a policy and say what they are.
    Probe {
        /// Comes back in the answer.
        ask: u64,
        /// The policy.
        policy: String,
        /// Its volumes that this node is to look at.
        volumes: Vec<VolumeId>,
    },
    /// What they are.
    Probed {
        /// Of the question.
        ask: u64,
        /// Those that can be read.
        found: Vec<Found>,
        /// Those that cannot, and why.
        failed: Vec<(VolumeId, String)>,
    },
    /// Do this.
    Assign(Assignment),
    /// This is done.
    Report(Report),
    /// Merge these.
    Merge(MergeOrder),
    /// They are merged.
    Merged {
        /// What was asked for.
        order: MergeOrder,
        /// What takes their place.
        added: Vec<SegmentMeta>,
    },
    /// It counts.
    Accepted {
        /// Which assignment.
        id: AssignmentId,
        /// Which report; 0 of a merge.
        sequence: u32,
    },
    /// Stop it; what was not accepted does not count.
    Revoke {
        /// Which assignment.
        id: AssignmentId,
    },
    /// Close open objects, part-full as they are, send them, and report what was done. Asked twice it is done once.
    Flush {
        /// Comes back in the answer.
        ask: u64,
    },
    /// What was packed when `Flush` came is committed.
    Flushed {
        /// Of the order.
        ask: u64,
    },
    /// So many nodes work on a policy, and divide its limits.
    Divide {
        /// Its name.
        policy: String,
        /// This one among them.
        nodes: u32,
    },
    /// It cannot be done here.
    Failed {
        /// Which assignment.
        id: AssignmentId,
        /// Why.
        what: String,
    },
    /// A message of an older epoch was dropped.
    Fenced,
    /// A command for the coordinator.
    Request {
        /// Comes back in the answer.
        request: u64,
        /// What.
        command: Command,
    },
    /// A request came to a node that is not the coordinator.
    Redirect {
        /// Which.
        request: u64,
        /// Who is, as far as it knows.
        holder: Option<NodeId>,
    },
    /// Its answer.
    Reply {
        /// Of the request.
        request: u64,
        /// What.
        reply: Reply,
    },
}

impl Message {
    /// Kind number in the frame's header.
    pub fn kind(&self) -> u8 {
        match self {
            Message::Announce { .. } => 16,
            Message::Present(_) => 17,
            Message::Probe { .. } => 18,
            Message::Probed { .. } => 19,
            Message::Assign(_) => 20,
            Message::Report(_) => 21,
            Message::Accepted { .. } => 22,
            Message::Revoke { .. } => 23,
            Message::Failed { .. } => 24,
            Message::Fenced => 25,
            Message::Request { .. } => 26,
            Message::Reply { .. } => 27,
            Message::Redirect { .. } => 28,
            Message::Merge(_) => 29,
            Message::Merged { .. } => 30,
            Message::Flush { .. } => 31,
            Message::Flushed { .. } => 32,
            Message::Divide { .. } => 33,
        }
    }

    /// The first version of the protocol that has it.
    pub fn since(&self) -> u8 {
        match self {
            Message::Divide { .. } => 4,
            Message::Flush { .. }
            | Message::Flushed { .. }
            | Message::Request { command: Command::Flush, .. } => 2,
            Message::Request { command: Command::As { command, .. }, .. } if **command == Command::Flush => 2,
            _ => 1,
        }
    }

    /// Whether only the holder of the lease may say it, so that one of an older epoch is dropped: "holder -> ..." in the table above, but
    /// for answers to requests.
    pub fn is_order(&self) -> bool {
        matches!(
            self,
            Message::Announce { .. }
                | Message::Probe { .. }
                | Message::Assign(_)
                | Message::Merge(_)
                | Message::Accepted { .. }
                | Message::Revoke { .. }
                | Message::Flush { .. }
                | Message::Divide { .. }
        )
    }

    /// Appends the body as version `proto` of the protocol, which has the message, has it.
    pub fn emit_for(&self, proto: u8, out: &mut Vec<u8>) {
        if let (Message::Request { request, command: Command::As { command, .. } }, 0..3) = (self, proto) {
            return Message::Request { request: *request, command: (**command).clone() }.emit_for(proto, out);
        }
        self.emit(out);
        if proto < 2 {
            out.truncate(out.len() - self.newer_bytes());
        }
    }

    /// Bytes at the end that version 1 does not have.
    fn newer_bytes(&self) -> usize {
        match self {
            Message::Present(_) => UPLOADED_BYTES,
            Message::Probed { found, .. } => found.len() * MARKS_BYTES,
            _ => 0,
        }
    }

    /// Appends the body. Texts that are too long are cut at a character.
    pub fn emit(&self, out: &mut Vec<u8>) {
        match self {
            Message::Announce { resting, successor } => {
                out.push(u8::from(*resting));
                successor.emit(out);
            }
            Message::Present(present) => present.emit(out),
            Message::Probe { ask, policy, volumes } => {
                ask.emit(out);
                emit_text(out, policy, POLICY_NAME_BYTES_MAX);
                emit_list(out, volumes);
            }
            Message::Probed { ask, found, failed } => {
                ask.emit(out);
                emit_list(out, found);
                (failed.len() as u32).emit(out);
                for (volume, what) in failed {
                    volume.emit(out);
                    emit_text(out, what, WHAT_BYTES_MAX);
                }
                found.iter().for_each(|found| found.marks.emit(out));
            }
            Message::Assign(assignment) => assignment.emit(out),
            Message::Report(report) => report.emit(out),
            Message::Accepted { id, sequence } => {
                id.emit(out);
                sequence.emit(out);
            }
            Message::Revoke { id } => id.emit(out),
            Message::Failed { id, what } => {
                id.emit(out);
                emit_text(out, what, WHAT_BYTES_MAX);
            }
            Message::Fenced => {}
            Message::Request { request, command } => {
                request.emit(out);
                command.emit(out);
            }
            Message::Reply { request, reply } => {
                request.emit(out);
                reply.emit(out);
            }
            Message::Redirect { request, holder } => {
                request.emit(out);
                holder.emit(out);
            }
            Message::Merge(order) => order.emit(out),
            Message::Merged { order, added } => {
                order.emit(out);
                emit_list(out, added);
            }
            Message::Flush { ask } | Message::Flushed { ask } => ask.emit(out),
            Message::Divide { policy, nodes } => {
                emit_text(out, policy, POLICY_NAME_BYTES_MAX);
                nodes.emit(out);
            }
        }
    }

    /// Reads a body. Errors: [`WireFault`], for whatever is not exactly one message of this kind.
    pub fn parse(kind: u8, body: &[u8]) -> Result<Message, WireFault> {
        let mut reader = Reader::new(body);
        let message = Message::parse_fields(kind, &mut reader)?;
        reader.finish()?;
        Ok(message)
    }

    fn parse_fields(kind: u8, reader: &mut Reader<'_>) -> Result<Message, WireFault> {
        Ok(match kind {
            16 => Message::Announce { resting: parse_flag(reader)?, successor: reader.value()? },
            17 => Message::Present(Present::parse(reader)?),
            18 => Message::Probe {
                ask: reader.value()?,
                policy: reader.text(POLICY_NAME_BYTES_MAX)?,
                volumes: reader.list(POLICY_VOLUMES_MAX)?,
            },
            19 => {
                let ask = reader.value()?;
                let mut found: Vec<Found> = reader.list(POLICY_VOLUMES_MAX)?;
                let failed = parse_list(reader, POLICY_VOLUMES_MAX, |reader| {
                    Ok((reader.value()?, reader.text(WHAT_BYTES_MAX)?))
                })?;
                // Version 1 ends here.
                if !reader.is_empty() {
                    for found in &mut found {
                        found.marks = reader.value()?;
                    }
                }
                Message::Probed { ask, found, failed }
            }
            20 => Message::Assign(reader.value()?),
            21 => Message::Report(Report::parse(reader)?),
            22 => Message::Accepted { id: reader.value()?, sequence: reader.value()? },
            23 => Message::Revoke { id: reader.value()? },
            24 => Message::Failed { id: reader.value()?, what: reader.text(WHAT_BYTES_MAX)? },
            25 => Message::Fenced,
            26 => Message::Request { request: reader.value()?, command: Command::parse(reader)? },
            27 => Message::Reply { request: reader.value()?, reply: Reply::parse(reader)? },
            28 => Message::Redirect { request: reader.value()?, holder: reader.value()? },
            29 => Message::Merge(MergeOrder::parse(reader)?),
            30 => Message::Merged { order: MergeOrder::parse(reader)?, added: reader.list(GROUP_MAX)? },
            31 => Message::Flush { ask: reader.value()? },
            32 => Message::Flushed { ask: reader.value()? },
            33 => Message::Divide { policy: reader.text(POLICY_NAME_BYTES_MAX)?, nodes: reader.value()? },
            _ => return Err(WireFault::Kind(kind)),
        })
    }
}

impl MergeOrder {
    fn emit(&self, out: &mut Vec<u8>) {
        self.id.emit(out);
        self.volume.emit(out);
        emit_list(out, &self.segments);
    }

    fn parse(reader: &mut Reader<'_>) -> Result<MergeOrder, WireFault> {
        Ok(MergeOrder { id: reader.value()?, volume: reader.value()?, segments: reader.list(GROUP_MAX)? })
    }
}

impl Present {
    fn emit(&self, out: &mut Vec<u8>) {
        self.boot.emit(out);
        self.weight.emit(out);
        self.memory_bytes.emit(out);
        self.lanes.emit(out);
        self.rate.emit(out);
        (self.volumes.len() as u32).emit(out);
        for volume in &self.volumes {
            emit_text(out, volume, DEVICE_BYTES_MAX);
        }
        (self.held.len() as u32).emit(out);
        for (assignment, reported) in &self.held {
            assignment.emit(out);
            reported.emit(out);
        }
        self.merging.emit(out);
        self.uploaded.emit(out);
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Present, WireFault> {
        Ok(Present {
            boot: reader.value()?,
            weight: reader.value()?,
            memory_bytes: reader.value()?,
            lanes: reader.value()?,
            rate: reader.value()?,
            volumes: parse_list(reader, NODE_VOLUMES_MAX, |reader| reader.text(DEVICE_BYTES_MAX))?,
            held: parse_list(reader, NODE_ASSIGNMENTS_MAX, |reader| Ok((reader.value()?, reader.value()?)))?,
            merging: reader.value()?,
            uploaded: if reader.is_empty() { 0 } else { reader.value()? },
        })
    }
}

impl Report {
    fn emit(&self, out: &mut Vec<u8>) {
        self.assignment.emit(out);
        self.sequence.emit(out);
        self.from.emit(out);
        self.to.emit(out);
        (self.objects.len() as u32).emit(out);
        for (id, bytes) in &self.objects {
            id.emit(out);
            bytes.emit(out);
        }
        emit_list(out, &self.segments);
        Wire::emit(&self.totals, out);
        (self.troubles.len() as u32).emit(out);
        for (inode, what) in &self.troubles {
            inode.emit(out);
            emit_text(out, what, WHAT_BYTES_MAX);
        }
        self.newest_secs.emit(out);
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Report, WireFault> {
        Ok(Report {
            assignment: reader.value()?,
            sequence: reader.value()?,
            from: reader.value()?,
            to: reader.value()?,
            objects: parse_list(reader, REPORT_OBJECTS_MAX, |reader| Ok((reader.value()?, reader.value()?)))?,
            segments: reader.list(REPORT_SEGMENTS_MAX)?,
            totals: reader.value()?,
            troubles: parse_list(reader, REPORT_TROUBLES_MAX, |reader| {
                Ok((reader.value()?, reader.text(WHAT_BYTES_MAX)?))
            })?,
            newest_secs: reader.value()?,
        })
    }
}

impl Command {
    fn emit(&self, out: &mut Vec<u8>) {
        match self {
            Command::Backup(policy) => {
                out.push(1);
                emit_text(out, policy, POLICY_NAME_BYTES_MAX);
            }
            Command::Status => out.push(2),
            Command::Move(node) => {
                out.push(3);
                node.emit(out);
            }
            Command::Submit(records) => {
                out.push(4);
                let mut bytes = Vec::new();
                records.iter().for_each(|record| record.emit(&mut bytes));
                emit_bytes(out, &bytes);
            }
            Command::Stop(policy) => {
                out.push(5);
                emit_text(out, policy, POLICY_NAME_BYTES_MAX);
            }
            Command::Flush => out.push(6),
            Command::As { subject, command } => {
                out.push(7);
                emit_text(out, subject, SUBJECTS_BYTES_MAX);
                command.emit(out);
            }
        }
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Command, WireFault> {
        Ok(match reader.value::<u8>()? {
            1 => Command::Backup(reader.text(POLICY_NAME_BYTES_MAX)?),
            2 => Command::Status,
            3 => Command::Move(reader.value()?),
            4 => Command::Submit(parse_records(reader.bytes(SUBMIT_BYTES_MAX)?)?),
            5 => Command::Stop(reader.text(POLICY_NAME_BYTES_MAX)?),
            6 => Command::Flush,
            7 => {
                let subject = reader.text(SUBJECTS_BYTES_MAX)?;
                let command = Command::parse(reader)?;
                // One name for a command, and no more.
                if matches!(command, Command::As { .. }) {
                    return Err(WireFault::Value);
                }
                Command::As { subject, command: Box::new(command) }
            }
            kind => return Err(WireFault::Kind(kind)),
        })
    }
}

impl Reply {
    fn emit(&self, out: &mut Vec<u8>) {
        match self {
            Reply::Done(backup) => {
                out.push(1);
                backup.emit(out);
            }
            Reply::Status(json) => {
                out.push(2);
                emit_text(out, json, REPLY_BYTES_MAX);
            }
            Reply::Refused(why) => {
                out.push(3);
                emit_text(out, why, REPLY_BYTES_MAX);
            }
        }
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Reply, WireFault> {
        Ok(match reader.value::<u8>()? {
            1 => Reply::Done(reader.value()?),
            2 => Reply::Status(reader.text(REPLY_BYTES_MAX)?),
            3 => Reply::Refused(reader.text(REPLY_BYTES_MAX)?),
            kind => return Err(WireFault::Kind(kind)),
        })
    }
}

/// Text of at most `max` bytes; what is longer is cut at a character.
fn emit_text(out: &mut Vec<u8>, text: &str, max: usize) {
    emit_bytes(out, &text.as_bytes()[..text.floor_char_boundary(max)]);
}

fn parse_flag(reader: &mut Reader<'_>) -> Result<bool, WireFault> {
    match reader.value::<u8>()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireFault::Value),
    }
}

/// A list whose values are not of fixed fields.
fn parse_list<T>(
    reader: &mut Reader<'_>,
    max: usize,
    mut one: impl FnMut(&mut Reader<'_>) -> Result<T, WireFault>,
) -> Result<Vec<T>, WireFault> {
    let count: u32 = reader.value()?;
    if count as usize > max {
        return Err(WireFault::Count(count));
    }
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(one(reader)?);
    }
    Ok(values)
}

#[cfg(test)]
#[path = "message_test.rs"]
mod tests;
