//! Frames of a backup: read, narrowed down where the medium fails, and handed to lanes. A request goes either to the device or, for
//! what has no address there, through the volume; a frame with both takes two. Source: ours.

use windlass_hal::block::{FaultKind, Op, Request, SEGMENTS_PER_REQUEST_MAX, Segment};

use super::{Action, Backup, BackupFault, Base, Growing, KEEP_PIECES, LOST_GRANULE_BYTES, Reading};
use crate::format::frame::FRAME_OVERHEAD_BYTES;
use crate::format::row::BlockPlace;
use crate::id::ObjectId;
use crate::pack::FRAME_FRONT_BYTES;
use crate::pack::lane::{Job, JobBlock, JobPiece, Outcome};
use crate::worker::batch::OPAQUE_FROM;
use crate::worker::item;

impl<B: Base> Backup<B> {
    pub(super) fn next_read(&mut self) -> Option<Action> {
        if let Some(request) = self.retries.pop_front() {
            return Some(self.to_action(request));
        }
        if self.reading >= self.task.reading.depth || self.ready.len() >= self.task.reading.depth {
            return None;
        }
        let offset = self.batches.iter().position(|a| a.next_frame < a.batch.plan.frames.len())?;
        let buf = self.frames.take()?;
        let active = &mut self.batches[offset];
        let frame = active.next_frame;
        active.next_frame += 1;
        let plan = &active.batch.plan;
        let reads = plan.frames[frame].reads.clone();
        let todo = plan.reads[reads.start as usize..reads.end as usize]
            .iter()
            .rev()
            .map(|s| Segment::new(s.device_offset, s.buf_offset + FRAME_FRONT_BYTES as u32, s.len))
            .collect();
        let reading =
            Reading { batch: self.first_batch + offset as u64, frame: frame as u32, todo, lost: Vec::new() };
        let id = match self.readings.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.readings.push(None);
                self.readings.len() - 1
            }
        };
        self.readings[id] = Some(reading);
        self.reading += 1;
        let mut request = Request { id: id as u64, op: Op::Read, buf: Some(buf), segments: Vec::new() };
        self.fill_request(&mut request);
        Some(self.to_action(request))
    }

    /// Who is asked for a request's bytes.
    fn to_action(&self, request: Request) -> Action {
        let is_opaque = request.segments.first().is_some_and(|s| s.device_offset >= OPAQUE_FROM);
        let reading = self.readings.get(request.id as usize).and_then(Option::as_ref);
        let (true, Some(reading)) = (is_opaque, reading) else { return Action::Read(request) };
        let batch = &self.batches[(reading.batch - self.first_batch) as usize].batch;
        let places = request.segments.iter().map(|s| batch.opaque_at(s.device_offset));
        let places: Vec<_> = places.flatten().collect();
        assert!(
            places.len() == request.segments.len(),
            "every address that the batch gave stands for a file's bytes"
        );
        Action::ReadContents(request, places)
    }

    /// Moves as many ranges as fit from the frame's list to the request, all from the device or all through the volume.
    fn fill_request(&mut self, request: &mut Request) {
        request.segments.clear();
        if let Some(reading) = &mut self.readings[request.id as usize] {
            let is_opaque = |segment: &Segment| segment.device_offset >= OPAQUE_FROM;
            while request.segments.len() < SEGMENTS_PER_REQUEST_MAX
                && let Some(segment) = reading.todo.last().copied()
                && request.segments.first().is_none_or(|first| is_opaque(first) == is_opaque(&segment))
            {
                reading.todo.pop();
                request.segments.push(segment);
            }
        }
        self.totals.reads += request.segments.len() as u64;
    }

    pub(super) fn read(&mut self, mut request: Request) -> Result<(), BackupFault<B::Fault>> {
        let granule = u64::from(self.task.logical_block_bytes.max(LOST_GRANULE_BYTES));
        let id = request.id as usize;
        let Some(reading) = self.readings.get_mut(id).and_then(Option::as_mut) else { return Ok(()) };
        for segment in &request.segments {
            let Some(fault) = segment.fault else {
                self.totals.read_bytes += segment.len;
                continue;
            };
            if matches!(fault.kind, FaultKind::Gone | FaultKind::Misuse | FaultKind::Unsupported) {
                return Err(BackupFault::Device(fault));
            }
            if segment.len <= granule {
                let start = segment.buf_offset as usize;
                if let Some(buf) = &mut request.buf {
                    buf[start..start + segment.len as usize].fill(0);
                }
                reading.lost.push((segment.device_offset, segment.device_offset + segment.len));
                continue;
            }
            let mut at = 0;
            while at < segment.len {
                let len = granule.min(segment.len - at);
                reading.todo.push(Segment::new(
                    segment.device_offset + at,
                    segment.buf_offset + at as u32,
                    len,
                ));
                at += len;
            }
        }
        if !reading.todo.is_empty() {
            self.retry(request);
            return Ok(());
        }
        self.frame_read(request);
        Ok(())
    }

    /// Puts a request that has ranges left back in front; it keeps its buffer.
    fn retry(&mut self, mut request: Request) {
        self.fill_request(&mut request);
        self.retries.push_back(request);
    }

    /// A frame is read: its blocks become a job.
    fn frame_read(&mut self, request: Request) {
        let (Some(reading), Some(buf)) = (self.readings[request.id as usize].take(), request.buf) else {
            return;
        };
        self.reading -= 1;
        let active = &mut self.batches[(reading.batch - self.first_batch) as usize];
        let (mut blocks, mut pieces) = self.shells.pop().unwrap_or_default();
        blocks.clear();
        pieces.clear();
        let batch = &mut active.batch;
        let frame = &batch.plan.frames[reading.frame as usize];
        for block in &batch.plan.blocks[frame.blocks.start as usize..frame.blocks.end as usize] {
            let start = pieces.len() as u32;
            let from = &batch.plan.pieces[block.pieces.start as usize..block.pieces.end as usize];
            pieces.extend(from.iter().map(|p| JobPiece { within: p.within, len: p.len, at: p.at }));
            let mut place = BlockPlace::Empty;
            if !reading.lost.is_empty() {
                let block_start = block.block * u64::from(self.task.shape.block_bytes);
                let all = item::lost_ranges(from, block.len, &reading.lost, |from, to| {
                    batch.lost.push((block.item, block_start + from, block_start + to));
                });
                if all {
                    place = BlockPlace::Lost;
                }
            }
            let base = active.base.get(block.outcome as usize).copied().flatten();
            blocks.push(JobBlock {
                outcome: block.outcome,
                len: block.len,
                pieces: start..pieces.len() as u32,
                base,
                place,
            });
        }
        self.ready.push_back(Job {
            tag: reading.batch,
            buf,
            blocks,
            pieces,
            bytes: frame.bytes,
            packed: frame.packed,
            outcome: Outcome::default(),
        });
    }

    pub(super) fn next_pack(&mut self) -> Option<Action> {
        let worst = self.ready.front()?.bytes as usize + FRAME_OVERHEAD_BYTES;
        if self.ahead() >= self.link.ahead_bytes() || !self.placer().can_take(worst, KEEP_PIECES) {
            return None;
        }
        self.packing += 1;
        self.ready.pop_front().map(Action::Pack)
    }

    /// Bytes that are packed, or being packed, and not stored.
    fn ahead(&self) -> u64 {
        let out = self.objects_out.iter().map(|(_, bytes)| u64::from(*bytes));
        let growing = self.growing.iter().map(|g| u64::from(g.written));
        let frame = self.task.shape.frame_bytes as u64;
        out.chain(growing).sum::<u64>() + self.packing as u64 * frame
    }

    pub(super) fn packed(&mut self, job: Job) -> Result<(), BackupFault<B::Fault>> {
        if let Some((object, offset)) = job.outcome.spoilt {
            return Err(BackupFault::Spoilt(object, offset));
        }
        self.packing -= 1;
        self.placer().settle(job.bytes as usize + FRAME_OVERHEAD_BYTES);
        let active = &mut self.batches[(job.tag - self.first_batch) as usize];
        for block in &job.blocks {
            active.batch.places[block.outcome as usize] = block.place;
        }
        active.frames_left -= 1;
        let outcome = job.outcome;
        self.totals.block_bytes += outcome.digested_bytes + outcome.zero_bytes;
        self.totals.stored_plain_bytes += outcome.stored_plain_bytes;
        if let Some((id, bytes)) = outcome.stored {
            self.grown(id).written += bytes;
        }
        self.shells.push((job.blocks, job.pieces));
        Ok(())
    }

    pub(super) fn grown(&mut self, id: ObjectId) -> &mut Growing {
        let at = match self.growing.iter().position(|g| g.id == id) {
            Some(at) => at,
            None => {
                self.growing.push(Growing { id, written: 0, closed: None });
                self.growing.len() - 1
            }
        };
        &mut self.growing[at]
    }
}
