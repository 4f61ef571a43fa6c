//! A policy gets another name, and with it all that is known by its name: points, unfinished backups, volumes, its last try, roles.
//!
//! Invariants: the new name was never used; the old one is free afterwards. Does not: look into a policy's body, which has the name too: a
//! change of the policy follows in the same slot. Source: ours.

use std::sync::Arc;

use super::state::{Refusal, State};
use crate::id::Slot;

impl State {
    pub(super) fn rename_policy(
        &mut self,
        slot: Slot,
        from: &str,
        to: &str,
        revision: u32,
    ) -> Result<(), Refusal> {
        if self.policies.contains_key(to) {
            return Err(Refusal::NameTaken);
        }
        let is_next = |before: u32| before.checked_add(1) == Some(revision);
        match self.policies.get(from) {
            Some(policy) if policy.removed => return Err(Refusal::NoPolicy),
            None => return Err(Refusal::NoPolicy),
            Some(policy) if !is_next(policy.revision) => return Err(Refusal::Revision),
            Some(_) => {}
        }
        let Some(mut policy) = self.policies.remove(from) else { return Err(Refusal::NoPolicy) };
        (policy.revision, policy.slot) = (revision, slot);
        self.policies.insert(to.to_owned(), policy);
        let rename = |name: &mut String| {
            if name == from {
                to.clone_into(name);
            }
        };
        Arc::make_mut(&mut self.points).values_mut().for_each(|point| rename(&mut point.policy));
        self.running.values_mut().for_each(|running| rename(&mut running.policy));
        self.volumes.values_mut().for_each(|volume| rename(&mut volume.policy));
        if let Some(mut tried) = self.tried.remove(from) {
            rename(&mut tried.policy);
            self.tried.insert(to.to_owned(), tried);
        }
        self.rename_grants(from, to);
        Ok(())
    }
}
