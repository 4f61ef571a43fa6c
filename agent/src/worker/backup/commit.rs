//! Uploads and commits of a backup: what is complete is sent, what is acknowledged is committed (C1).
//! Source: ours.

use std::sync::PoisonError;

use super::{Action, Backup, Base, COMMIT_SLOW_NS, COMMITS_CLOSE_MAX, Committing, Flush, Growing, Sweeping};
use crate::format::record::Totals as PointTotals;
use crate::id::ObjectId;

impl<B: Base> Backup<B> {
    /// An object that is closed and written, with its tail; or a segment.
    pub(super) fn next_put(&mut self, now: u64) -> Option<Action> {
        if let Some(action) = self.to_put.pop_front() {
            return Some(action);
        }
        loop {
            let closed = self.placer().take_closed();
            let Some(object) = closed else { break };
            self.open_since_ns = None;
            let id = object.id();
            self.grown(id).closed = Some(object);
        }
        let whole = |g: &Growing| g.closed.as_ref().is_some_and(|object| g.written == object.len());
        let at = self.growing.iter().position(whole)?;
        if self.placer().spare() == 0 {
            return None;
        }
        let object = self.growing.swap_remove(at).closed?;
        self.rows.end_object(&object, &self.shared);
        self.objects_out.push((object.id(), object.len()));
        self.link.sent(now);
        Some(Action::PutObject(object))
    }

    pub(super) fn stored(&mut self, now: u64, id: ObjectId) {
        if let Some(at) = self.objects_out.iter().position(|(out, _)| *out == id) {
            let (id, bytes) = self.objects_out.swap_remove(at);
            self.link.stored(now, u64::from(bytes), self.objects_out.is_empty());
            self.placer().aim(self.link.object_bytes());
            self.totals.objects += 1;
            self.totals.stored_bytes += u64::from(bytes);
            self.uncommitted.objects.push((id, bytes));
        } else if let Some(at) = self.segments_out.iter().position(|(out, _)| *out == id) {
            let (_, bytes) = self.segments_out.swap_remove(at);
            self.totals.segments += 1;
            self.totals.stored_bytes += u64::from(bytes);
        }
    }

    pub(super) fn next_commit(&mut self, now: u64) -> Option<Action> {
        match self.committing {
            Committing::Idle => {
                let last = self.is_emptied();
                let due = self.commit_due_ns().is_some_and(|due| now >= due);
                let flush = self.flush == Flush::Wanted && self.has_news();
                self.flush = if flush { Flush::Committing } else { Flush::None };
                if !last && !due && !flush {
                    return None;
                }
                if last {
                    self.placer().close();
                }
                self.cut_segment();
                let before = self.placer().names_given();
                let (end, done) = self.emitted.clone();
                let totals = done.since(&self.told.1);
                self.uncommitted.from = self.told.0;
                self.told = (end, done);
                self.uncommitted.troubles = self.troubles[self.troubles_told..].to_vec();
                self.troubles_told = self.troubles.len();
                self.committing = Committing::Waiting { end, totals, before, last };
                // With nothing to put there may be nothing to wait for either, and no event would come.
                self.next_put(now).or_else(|| self.next_commit(now))
            }
            Committing::Waiting { end, totals, before, last } => {
                let open = self.placer().open().is_some_and(|o| o.id().count < before);
                let out = self.growing.iter().any(|g| g.id.count < before)
                    || self.objects_out.iter().any(|(id, _)| id.count < before)
                    || self.segments_out.iter().any(|(id, _)| id.count < before)
                    || !self.to_put.is_empty();
                if open && self.flush == Flush::Committing {
                    self.placer().close();
                    return self.next_put(now);
                }
                if open || out {
                    return None;
                }
                self.committing = Committing::Asked { last };
                let mut progress = std::mem::take(&mut self.uncommitted);
                progress.to = end;
                progress.last = last;
                progress.newest_secs = self.newest_secs;
                let later = progress.segments.iter().position(|s| s.id.count >= before);
                if let Some(later) = later {
                    self.uncommitted.segments = progress.segments.split_off(later);
                }
                progress.totals = PointTotals {
                    bytes_stored: progress.objects.iter().map(|(_, bytes)| u64::from(*bytes)).sum::<u64>()
                        + progress.segments.iter().map(|segment| segment.bytes).sum::<u64>(),
                    objects: progress.objects.len() as u64,
                    segments: progress.segments.len() as u64,
                    ..totals
                };
                Some(Action::Commit(progress))
            }
            Committing::Asked { .. } | Committing::Done => None,
        }
    }

    /// Whether rows were emitted that no commit covers.
    fn has_news(&self) -> bool {
        self.emitted.0 > self.told.0
    }

    /// When a commit is due because of the time, on the machine's clock; `None` when there is nothing to say.
    pub(super) fn commit_due_ns(&self) -> Option<u64> {
        let objects = self.uncommitted.objects.len() + self.objects_out.len();
        let apart = 1 + self.totals.segments as usize / COMMITS_CLOSE_MAX;
        let interval = self.task.commit_interval_ns.saturating_mul(apart as u64);
        let sent = self.uncommitted.objects.iter().chain(&self.objects_out);
        let sent: u64 = sent.map(|(_, bytes)| u64::from(*bytes)).sum();
        let wait = if objects >= self.task.commit_objects * apart {
            self.task.commit_pause_ns.min(interval)
        } else if sent > 0 && sent / apart as u64 >= self.link.rate().bytes_in(COMMIT_SLOW_NS) {
            COMMIT_SLOW_NS.min(interval)
        } else {
            interval
        };
        self.has_news().then(|| self.last_commit_ns.saturating_add(wait))
    }

    /// Whether the sweep is over and every row is emitted.
    fn is_emptied(&self) -> bool {
        self.sweeping == Sweeping::Done && self.cutter.wants_window() && self.batches.is_empty()
    }

    pub(super) fn committed(&mut self, now: u64) {
        let Committing::Asked { last } = self.committing else {
            unreachable!("a commit that was not asked for")
        };
        self.committing = if last { Committing::Done } else { Committing::Idle };
        if self.flush == Flush::Committing {
            self.flush = Flush::None;
        }
        self.last_commit_ns = now;
    }

    /// Closes the open object when its time has come, or when nothing moves because it holds all room. `true`: look again.
    pub(super) fn unstick(&mut self, now: u64) -> bool {
        let mut placer = self.shared.placer.lock().unwrap_or_else(PoisonError::into_inner);
        if placer.open().is_none() {
            self.open_since_ns = None;
            return false;
        }
        let since = *self.open_since_ns.get_or_insert(now);
        let flush = now >= since.saturating_add(self.task.flush_interval_ns);
        let waiting = !self.ready.is_empty()
            || self
                .batches
                .front()
                .is_some_and(|a| a.frames_left == 0 && a.next_frame == a.batch.plan.frames.len())
            || self.is_emptied() && matches!(self.committing, Committing::Idle | Committing::Waiting { .. });
        let moving = self.packing > 0 || !self.objects_out.is_empty() || !self.segments_out.is_empty();
        if flush || (waiting && !moving) {
            placer.close();
            self.open_since_ns = None;
            return true;
        }
        false
    }
}
