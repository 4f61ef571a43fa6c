//! Roles of subjects, and what they were refused: what the state knows of who may do what.
//!
//! Invariants: while there is any role, one subject is an administrator of everything. Does not: decide (`coordinator::access`), or keep
//! who did what: that is in the slots. Source: ours.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::limits::Bound;
use super::state::{Refusal, State};
use crate::format::access::{AccessNews, Grant};
use crate::format::cursor::{Reader, WireFault};
use crate::work::entry::Role;

/// Subjects with roles. Above: [`Bound`].
pub const SUBJECTS_MAX: usize = 256;
/// Subjects of which it is known what they were refused; beyond, the one that was refused longest ago is forgotten.
pub const REFUSED_MAX: usize = 64;

/// What a subject was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Refused {
    /// How often.
    pub count: u64,
    /// When last, wall clock in nanoseconds.
    pub wall_ns: i64,
    /// What last.
    pub what: String,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Access {
    /// Roles by subject.
    pub roles: BTreeMap<String, Vec<Grant>>,
    /// What subjects were refused.
    pub refused: BTreeMap<String, Refused>,
}

impl Access {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Access::default()
    }

    fn has_administrator(&self) -> bool {
        let is_one = |grant: &Grant| grant.role == Role::Administrator && grant.policy.is_empty();
        self.roles.is_empty() || self.roles.values().flatten().any(is_one)
    }

    /// The records that say all this; a checkpoint has them.
    pub(super) fn news(&self) -> impl Iterator<Item = AccessNews> + '_ {
        let roles = self
            .roles
            .iter()
            .map(|(subject, grants)| AccessNews::Roles { subject: subject.clone(), grants: grants.clone() });
        let refused = self.refused.iter().map(|(subject, refused)| AccessNews::Refused {
            subject: subject.clone(),
            count: refused.count,
            wall_ns: refused.wall_ns,
            what: refused.what.clone(),
        });
        roles.chain(refused)
    }

    /// Inverse of what a checkpoint has: so many records, none only where something follows.
    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Access, WireFault> {
        let count: u32 = reader.value()?;
        if count as usize > SUBJECTS_MAX + REFUSED_MAX {
            return Err(WireFault::Count(count));
        }
        let mut access = Access::default();
        let news = (0..count).map(|_| AccessNews::parse(reader)).collect::<Result<Vec<_>, _>>()?;
        for one in &news {
            match one {
                AccessNews::Roles { subject, grants } => {
                    access.roles.insert(subject.clone(), grants.clone());
                }
                AccessNews::Refused { subject, count, wall_ns, what } => {
                    let refused = Refused { count: *count, wall_ns: *wall_ns, what: what.clone() };
                    access.refused.insert(subject.clone(), refused);
                }
                AccessNews::By { .. } => return Err(WireFault::Value),
            }
        }
        // One encoding: each once, in their order, and none that says nothing. There may be none when something follows.
        let says_nothing = access.roles.values().any(Vec::is_empty);
        if says_nothing || !access.news().eq(news) { Err(WireFault::Value) } else { Ok(access) }
    }
}

impl State {
    /// Roles for a policy are for it under its new name.
    pub(super) fn rename_grants(&mut self, from: &str, to: &str) {
        if !self.access.roles.values().flatten().any(|grant| grant.policy == from) {
            return;
        }
        for grants in Arc::make_mut(&mut self.access).roles.values_mut() {
            grants
                .iter_mut()
                .filter(|grant| grant.policy == from)
                .for_each(|grant| to.clone_into(&mut grant.policy));
            grants.sort();
            grants.dedup();
        }
    }

    pub(super) fn access(&mut self, news: &AccessNews) -> Result<(), Refusal> {
        match news {
            AccessNews::Roles { subject, grants } => {
                let access = Arc::make_mut(&mut self.access);
                let is_known = access.roles.contains_key(subject);
                if !is_known && access.roles.len() >= SUBJECTS_MAX {
                    return Err(Refusal::Full(Bound::Subjects));
                }
                if grants.is_empty() {
                    access.roles.remove(subject);
                } else {
                    access.roles.insert(subject.clone(), grants.clone());
                }
                if !access.has_administrator() {
                    return Err(Refusal::NoAdministrator);
                }
            }
            AccessNews::Refused { subject, count, wall_ns, what } => {
                let access = Arc::make_mut(&mut self.access);
                if !access.refused.contains_key(subject) && access.refused.len() >= REFUSED_MAX {
                    let oldest = access.refused.iter().min_by_key(|(_, refused)| refused.wall_ns);
                    let oldest = oldest.map(|(subject, _)| subject.clone());
                    oldest.into_iter().for_each(|subject| drop(access.refused.remove(&subject)));
                }
                let refused = access.refused.entry(subject.clone()).or_default();
                refused.count = refused.count.saturating_add(*count);
                (refused.wall_ns, refused.what) = (*wall_ns, what.clone());
            }
            AccessNews::By { .. } => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::cursor::Wire;

    fn roles(state: &mut State, subject: &str, grants: &[(Role, &str)]) -> Result<(), Refusal> {
        let mut next = state.clone();
        let grant = |&(role, policy): &(Role, &str)| Grant { role, policy: policy.to_owned() };
        let grants = grants.iter().map(grant).collect();
        next.access(&AccessNews::Roles { subject: subject.to_owned(), grants })?;
        *state = next;
        Ok(())
    }

    #[test]
    fn one_administrator_of_everything_stays() {
        let mut state = State::default();
        assert_eq!(roles(&mut state, "uid:1", &[(Role::Operator, "")]), Err(Refusal::NoAdministrator));
        assert_eq!(roles(&mut state, "uid:1", &[(Role::Administrator, "p")]), Err(Refusal::NoAdministrator));
        assert_eq!(roles(&mut state, "uid:0", &[(Role::Administrator, "")]), Ok(()));
        assert_eq!(roles(&mut state, "uid:1", &[(Role::Operator, "p")]), Ok(()));
        assert_eq!(roles(&mut state, "uid:0", &[]), Err(Refusal::NoAdministrator));
        assert_eq!(roles(&mut state, "uid:1", &[]), Ok(()));
        assert_eq!(roles(&mut state, "uid:0", &[]), Ok(()), "without any role all is as it was");
        assert!(state.access.is_empty());
    }

    #[test]
    fn roles_go_with_a_policy_that_gets_another_name() {
        let mut state = State::default();
        roles(&mut state, "uid:0", &[(Role::Administrator, "")]).unwrap();
        roles(&mut state, "uid:1", &[(Role::Operator, "old"), (Role::Operator, "other")]).unwrap();
        state.rename_grants("old", "z");
        let policies: Vec<&str> = state.access.roles["uid:1"].iter().map(|grant| &grant.policy[..]).collect();
        assert_eq!(policies, ["other", "z"]);
        assert_eq!(state.access.roles["uid:0"].len(), 1);
    }

    #[test]
    fn refusals_are_counted_and_bounded_and_come_back_as_they_were() {
        let mut state = State::default();
        for n in 0..=REFUSED_MAX as i64 {
            for _ in 0..2 {
                let (subject, what) = (format!("uid:{n}"), "x".to_owned());
                state.access(&AccessNews::Refused { subject, count: 3, wall_ns: n, what }).unwrap();
            }
        }
        assert_eq!(state.access.refused.len(), REFUSED_MAX);
        assert!(!state.access.refused.contains_key("uid:0"));
        assert_eq!(state.access.refused["uid:7"].count, 6);
        roles(&mut state, "uid:0", &[(Role::Administrator, "")]).unwrap();
        let mut bytes = Vec::new();
        u32::try_from(state.access.news().count()).unwrap().emit(&mut bytes);
        state.access.news().for_each(|news| news.emit(&mut bytes));
        assert_eq!(Access::parse(&mut Reader::new(&bytes)).as_ref(), Ok(&*state.access));
    }
}
