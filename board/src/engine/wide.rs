//! Reads of the tables, several at once: a round of requests takes one round trip, whatever their number.
//!
//! Memory: what was asked for, and [`THREADS_MAX`] connections with their stacks while a round goes on. Does not: repeat (the client does).
//! Source: ours; `table::source`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use windlass_agent::format::tail::TailKind;
use windlass_agent::id::ObjectId;
use windlass_agent::store::retry::Client;
use windlass_agent::store::{ByteRange, StoreFault, StoreFaultKind};
use windlass_agent::table::source::{Fetch, Wanted};

/// Requests at once: what a look-up over a dozen segments asks for, in two batches at most.
const THREADS_MAX: usize = 8;
/// Stack of each thread, in bytes: TLS and HTTP, as in the uplink's.
const STACK_BYTES: usize = 512 << 10;

/// Fetches through a client, several ranges at once where they are wanted together.
#[derive(Clone)]
pub struct Wide(pub Arc<Client>);

impl Fetch for Wide {
    fn fetch(
        &mut self,
        id: &ObjectId,
        kind: TailKind,
        range: ByteRange,
        afresh: bool,
    ) -> Result<Vec<u8>, StoreFault> {
        self.0.fetch(id, kind, range, afresh)
    }

    fn fetch_all(&mut self, wanted: &[Wanted]) -> Vec<Result<Vec<u8>, StoreFault>> {
        let (next, client) = (AtomicUsize::new(0), &self.0);
        let unasked = || StoreFault::new(StoreFaultKind::Unknown, "GET", "", "not asked");
        let out: Vec<_> = wanted.iter().map(|_| Mutex::new(Err(unasked()))).collect();
        let work = || {
            while let Some((one, slot)) = {
                let at = next.fetch_add(1, Ordering::Relaxed);
                wanted.get(at).zip(out.get(at))
            } {
                let came = Arc::clone(client).fetch(&one.id, one.kind, one.range, false);
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = came;
            }
        };
        std::thread::scope(|scope| {
            for number in 1..wanted.len().min(THREADS_MAX) {
                let thread =
                    std::thread::Builder::new().name(format!("look-{number}")).stack_size(STACK_BYTES);
                // Without a thread to give, this one does its share.
                if thread.spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            work();
        });
        out.into_iter().map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
    }
}
