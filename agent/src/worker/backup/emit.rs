//! Rows of a backup, emitted batch by batch in key order as far as there is room. Source: ours.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Action, Active, Backup, Base, FAULTS_KEPT_MAX, ItemTrouble, KEEP_PIECES};
use crate::format::row::{Gone, ItemRow, LocationRow, NameRow, Row};
use crate::id::Lin;
use crate::pack::object::PIECE_BYTES;
use crate::worker::batch::Verdict;

impl<B: Base> Backup<B> {
    /// Emits rows of the oldest batch as long as it is packed and there is room for them.
    pub(super) fn emit_rows(&mut self, now: u64) {
        while let Some(front) = self.batches.front()
            && front.frames_left == 0
            && front.next_frame == front.batch.plan.frames.len()
        {
            let Some(mut front) = self.batches.pop_front() else { return };
            if !self.emit_batch(&mut front) {
                self.batches.push_front(front);
                return;
            }
            self.first_batch += 1;
            // A stretch may begin within an item, whose parts before it end below.
            let end = self.emitted.0.max(front.batch.end);
            self.pace.batch_done(now, front.batch.plan.bytes);
            let items = &front.batch.window.items;
            if let Ok(at) = items.binary_search_by_key(&end.0, |item| item.inode) {
                let cut = end.1.saturating_mul(u64::from(self.task.shape.block_bytes));
                self.count_bytes(items[at].inode, items[at].size, cut);
            }
            if end == self.task.to {
                self.leave_unfinished();
            }
            self.emitted = (end, self.totals.clone());
            self.plans.push(front.batch.plan);
            if let Ok(mut window) = Arc::try_unwrap(front.batch.window) {
                window.clear();
                self.windows.push(window);
            }
        }
    }

    /// Emits rows of one batch from where it stopped; `false` when room ran out first.
    fn emit_batch(&mut self, active: &mut Active) -> bool {
        while active.emit.item < active.batch.items.len() {
            let of = &active.batch.items[active.emit.item];
            let inode = active.batch.window.items[of.index as usize].inode;
            if !self.emit_deleted(&mut active.deleted, inode) || !self.emit_item(active) {
                return false;
            }
            active.emit.item += 1;
            active.emit.names = 0;
        }
        self.emit_deleted(&mut active.deleted, u64::MAX)
    }

    /// Emits deletions of inodes below `below`.
    fn emit_deleted(&mut self, deleted: &mut VecDeque<(u64, Gone)>, below: u64) -> bool {
        while deleted.front().is_some_and(|&(inode, _)| inode < below) {
            if !self.has_room(0) {
                return false;
            }
            if let Some((inode, gone)) = deleted.pop_front() {
                let lin = Lin { volume: self.task.volume, inode };
                let (backup, gone) = (self.task.backup, Some(Box::new(gone)));
                self.push_row(Row::Item(ItemRow { lin, backup, item: None, gone }));
                self.totals.items_deleted += 1;
            }
        }
        true
    }

    /// Emits the names, the location rows and, at its end, the row of one item of a batch.
    fn emit_item(&mut self, active: &mut Active) -> bool {
        let of = &active.batch.items[active.emit.item];
        let window = Arc::clone(&active.batch.window);
        let item = &window.items[of.index as usize];
        if of.verdict == Verdict::Same {
            self.totals.items += u64::from(of.last);
            self.totals.items_same += u64::from(of.last);
            if of.last {
                self.count_bytes(item.inode, item.size, item.size);
            }
            return true;
        }
        let lin = Lin { volume: self.task.volume, inode: item.inode };
        let backup = self.task.backup;
        if of.starts && active.emit.names == 0 {
            self.pending.begin_part(&window, item, &self.task);
        }
        while let Some((name, inode)) = self.pending.name(&window, active.emit.names) {
            if !self.has_room(0) {
                return false;
            }
            let row = NameRow { parent: lin, backup, run: self.pending.run, name: name.to_vec(), inode };
            self.push_row(Row::Name(row));
            active.emit.names += 1;
        }
        while let Some(group) = active.batch.groups.get(active.emit.group).filter(|g| g.item == of.index) {
            if !self.has_room(0) {
                return false;
            }
            let (blocks, runs) = active.batch.location(group, &self.task.shape);
            let block_bytes = self.task.shape.block_bytes;
            self.push_row(Row::Location(LocationRow {
                lin,
                base: group.base,
                backup,
                block_bytes,
                blocks,
                runs,
            }));
            let reached =
                group.base.saturating_add(u64::from(group.count)).saturating_mul(u64::from(block_bytes));
            self.count_bytes(item.inode, item.size, reached);
            active.emit.group += 1;
        }
        self.end_item(active)
    }

    /// The end of an item's part in a batch: its row, when the item ends here.
    fn end_item(&mut self, active: &mut Active) -> bool {
        let of = &active.batch.items[active.emit.item];
        let item = &active.batch.window.items[of.index as usize];
        if of.last && !self.has_room(self.pending.row_bytes()) {
            return false;
        }
        for &(of_item, from, to) in &active.batch.lost {
            if of_item == of.index {
                self.pending.lost(from, to);
            }
        }
        active.batch.lost.retain(|&(of_item, ..)| of_item != of.index);
        if !of.last {
            return true;
        }
        self.totals.items += 1;
        self.count_bytes(item.inode, item.size, item.size);
        let lin = Lin { volume: self.task.volume, inode: item.inode };
        let attributes = self.pending.end();
        if !attributes.fault.is_empty() {
            self.note_trouble(item.inode, attributes.fault.clone());
        }
        let item = Some(attributes);
        self.push_row(Row::Item(ItemRow { lin, backup: self.task.backup, item, gone: None }));
        true
    }

    /// Counts an item's bytes up to `reached`, holes included, each once: a large item counts as it goes. What lies before the stretch is
    /// counted there.
    fn count_bytes(&mut self, inode: u64, size: u64, reached: u64) {
        if self.counted.0 != inode {
            self.counted = (inode, 0);
        }
        let reached = reached.min(size);
        self.totals.add_item_bytes(reached.saturating_sub(self.counted.1));
        self.counted.1 = self.counted.1.max(reached);
    }

    /// An item that goes on behind the stretch has its row there; what is missing of it here is told here.
    fn leave_unfinished(&mut self) {
        if let Some((inode, what)) = self.pending.leave() {
            self.note_trouble(inode, what);
        }
    }

    fn note_trouble(&mut self, inode: u64, what: String) {
        self.totals.fault_count += 1;
        if self.troubles.len() < FAULTS_KEPT_MAX {
            self.troubles.push(ItemTrouble { lin: Lin { volume: self.task.volume, inode }, what });
        }
    }

    /// Whether a row of `bytes` can be written to the segment and to a tail without waiting.
    fn has_room(&mut self, bytes: usize) -> bool {
        if self.rows.is_segment_full() {
            self.cut_segment();
        }
        let pieces = 2 * (bytes.div_ceil(PIECE_BYTES) + 1);
        assert!(pieces <= KEEP_PIECES, "the largest row fits what is kept for rows");
        self.placer().spare() >= pieces
    }

    fn push_row(&mut self, row: Row) {
        let pushed = self.rows.push(&row, &self.shared);
        assert!(pushed.is_ok(), "a row breaks a limit of the format that the reader's limits imply");
    }

    /// Ends the segment being written, if it has rows; it is uploaded next.
    pub(super) fn cut_segment(&mut self) {
        if let Some((segment, meta)) = self.rows.end_segment(&self.shared) {
            self.segments_out.push((segment.id(), segment.len()));
            self.uncommitted.segments.push(meta);
            self.to_put.push_back(Action::PutSegment(segment));
        }
    }
}
