//! A wait for the repository's lock that another one has: how long, and what is said meanwhile.
//!
//! Invariants: what is said is said once in half a minute, and at once when it turns out that the holder is at work. Does not: look at the
//! lock (`log::session`). Source: ours.

use windlass_agent::format::slot::HolderKind;
use windlass_agent::log::fault::LogFault;

use crate::{logger, signal};

/// Time between lines that say what is waited for, in nanoseconds.
const SAY_NS: u64 = 30_000_000_000;

/// Waits for a lock that another one has, and says so.
pub struct Waiting {
    most_ns: Option<u64>,
    /// Whether an agent that has the lock can do the same in place of this command.
    agent_helps: bool,
    /// Whether it is found out in any case if the holder lives: the lock may be this process's own, which ran out.
    watches: bool,
    begun_ns: Option<u64>,
    /// When it was said last, and whether the holder was known to be at work.
    said: Option<(u64, bool)>,
}

impl Waiting {
    /// At most so long; `None`: as long as the holder is at work.
    pub fn new(most_ns: Option<u64>, agent_helps: bool) -> Waiting {
        Waiting { most_ns, agent_helps, watches: false, begun_ns: None, said: None }
    }

    /// For a lock that was lost: it may be this process's own.
    pub fn again(self) -> Waiting {
        Waiting { watches: true, ..self }
    }

    /// Whether to go on. A lock that was not let go is refused when the time is over, at once without any: only taking it over needs the
    /// holder to be watched.
    pub fn goes_on(&mut self, now_ns: u64, held: &LogFault, left_ns: u64) -> bool {
        let waited_ns = now_ns.saturating_sub(*self.begun_ns.get_or_insert(now_ns));
        let LogFault::Held { watched_ns, .. } = *held else { return false };
        let advice = ask_the_agent(held, self.agent_helps);
        let lives = watched_ns > 0;
        let is_over = self.most_ns.is_some_and(|most| waited_ns >= most);
        if signal::is_asked() || is_over && (lives || !self.watches) {
            return false;
        }
        if self.said.is_none_or(|(said_ns, lived)| lived != lives || now_ns.saturating_sub(said_ns) >= SAY_NS)
        {
            self.said = Some((now_ns, lives));
            match (lives, self.most_ns) {
                (false, most) => {
                    let most = most.filter(|_| !self.watches).unwrap_or(u64::MAX);
                    let wait_ns = left_ns.min(most.saturating_sub(waited_ns));
                    logger::say(format_args!(
                        "windlass: {held}; waiting up to {} s to see if it still runs{advice}",
                        wait_ns.div_ceil(1_000_000_000)
                    ));
                }
                (true, None) => logger::say(format_args!(
                    "windlass: {held}; waiting for it to finish, {} s so far (Ctrl-C ends it){advice}",
                    waited_ns / 1_000_000_000
                )),
                (true, Some(most)) => logger::say(format_args!(
                    "windlass: {held}; waiting for it to finish, {} s so far, at most {} s{advice}",
                    waited_ns / 1_000_000_000,
                    most / 1_000_000_000
                )),
            }
        }
        true
    }
}

/// What to do about a lock that an agent has: it may have work without end, and does this command's too.
pub(super) fn ask_the_agent(held: &LogFault, agent_helps: bool) -> &'static str {
    match held {
        LogFault::Held { who, .. } if who.kind == HolderKind::Agent && !agent_helps => {
            "; no agent does this, and one lets go when it has nothing to do, or when it is stopped; `windlass status` shows what it does"
        }
        LogFault::Held { who, .. } if who.kind == HolderKind::Agent => {
            "; an agent takes commands itself, with --socket PATH and without --alone, and then there is nothing to wait for"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use windlass_agent::format::slot::Who;
    use windlass_agent::id::Epoch;

    use super::*;

    #[test]
    fn what_no_agent_does_is_not_said_to_be_its_business() {
        let who = Who::new(HolderKind::Agent, "appliance", 7);
        let held = LogFault::Held { epoch: Epoch(3), holder: None, who, beat: 1, watched_ns: 1 };
        assert!(ask_the_agent(&held, true).contains("--socket"));
        let said = ask_the_agent(&held, false);
        assert!(said.contains("no agent does this") && !said.contains("--socket"), "{said}");
        let mut waiting = Waiting::new(Some(60), false);
        assert!(waiting.goes_on(0, &held, 5) && waiting.goes_on(59, &held, 5));
        assert!(!waiting.goes_on(60, &held, 5), "it ends, however much the agent has to do");
    }
}
