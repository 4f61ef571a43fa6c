//! Logs in which a later program has raised features, or written what this one cannot read.

use std::sync::Arc;

use windlass_hal::sim::clock::SimClock;

use super::super::keys;
use super::super::salvage;
use super::tests::{claim, policy, who};
use super::*;
use crate::format::cursor::WireFault;
use crate::format::feature::{Class, FeatureName, Features};
use crate::format::record::Record;
use crate::format::slot::{PlainForTests, SlotHeader};
use crate::log::checkpoint::Checkpoint;
use crate::log::fault::Place;
use crate::store::memory::MemoryStore;
use crate::store::retry::{Client, RetryPolicy};
use crate::store::{PutMode, Store};

const CLUSTER: [u8; 16] = [9; 16];

/// A log whose slot 3 was written by a later program of node 1: it raises a feature of this class.
fn raised(class: Class) -> (MemoryStore, SimClock) {
    let (store, clock) = (MemoryStore::default(), SimClock::default());
    let mut session = claim(&store, &clock, 1, WriterOptions::default(), false).unwrap();
    session.commit(vec![policy(1)]).unwrap();
    let around = Surroundings { store: &store, clock: &clock };
    let view = open_read(around, CLUSTER, PlainForTests, drop).unwrap();
    let slot = Slot(view.head.0 + 1);
    let writer = who(1).me;
    let header =
        SlotHeader { cluster: CLUSTER, slot, epoch: Epoch(1), writer, nonce: [7; 16], previous: view.digest };
    let records = [Record::FeaturesRaised(Features::from([(name(), class)])), policy(2)];
    let (bytes, _) = header.emit(&records, &PlainForTests).unwrap();
    store.put(&keys::slot(slot), &[&bytes], PutMode::CreateOnly).unwrap();
    (store, clock)
}

fn keys_of(store: &MemoryStore) -> Vec<String> {
    let mut keys = Vec::new();
    store
        .list("", "", &mut |key, _| {
            keys.push(key.to_owned());
            true
        })
        .unwrap();
    keys
}

fn name() -> FeatureName {
    FeatureName::new("of-tomorrow").unwrap()
}

#[test]
fn an_incompatible_feature_is_refused_by_name_and_is_no_damage() {
    let (store, clock) = raised(Class::Incompatible);
    let around = Surroundings { store: &store, clock: &clock };
    let mut warnings = Vec::new();
    let fault = open_read(around, CLUSTER, PlainForTests, |fault| warnings.push(fault)).unwrap_err();
    let newer = LogFault::Format { place: Place::Slot(Slot(3)), why: WireFault::Feature(name()) };
    assert_eq!((fault, warnings), (newer, Vec::new()));
    assert!(!fault.is_damage() && !fault.is_transient(), "no rebuild is to take it for damage");
    let text = fault.to_string();
    assert!(text.contains("of-tomorrow") && text.contains("nothing was changed"), "{text}");
    assert!(!text.contains("rebuild") && !text.contains("damaged"), "{text}");
    let before = keys_of(&store);
    assert_eq!(claim(&store, &clock, 2, WriterOptions::default(), true).err(), Some(newer));
    assert_eq!(keys_of(&store), before, "no lease is taken");
    // A rebuild that some other damage has begun does not take over what it cannot read.
    let client = Client::new(Arc::new(store), Arc::new(clock), RetryPolicy::DATA, 1);
    let fault = salvage::read(&client, &CLUSTER, &PlainForTests, &mut || Ok(())).unwrap_err();
    assert!(fault.to_string().contains("of-tomorrow"), "{fault}");
}

#[test]
fn a_read_only_feature_is_read_beside_and_not_written_beside() {
    let (store, clock) = raised(Class::ReadOnly);
    let around = Surroundings { store: &store, clock: &clock };
    let view = open_read(around, CLUSTER, PlainForTests, drop).unwrap();
    assert_eq!((view.head, view.state.policies["homes"].revision), (Slot(3), 2));
    let before = keys_of(&store);
    let fault = claim(&store, &clock, 2, WriterOptions::default(), true).err();
    assert_eq!(fault, Some(LogFault::ReadOnly { feature: name() }));
    assert_eq!(keys_of(&store), before, "no lease is taken");
    // The same by the repository's description.
    let (store, clock) = (MemoryStore::default(), SimClock::default());
    let options = WriterOptions { read_only: Some(name()), ..WriterOptions::default() };
    let fault = claim(&store, &clock, 2, options, true).err();
    assert_eq!(fault, Some(LogFault::ReadOnly { feature: name() }));
}

#[test]
fn a_compatible_feature_is_kept_and_comes_through_a_checkpoint() {
    let (store, clock) = raised(Class::Compatible);
    let mut session = claim(&store, &clock, 1, WriterOptions::default(), true).unwrap();
    session.commit(vec![policy(3)]).unwrap();
    let around = Surroundings { store: &store, clock: &clock };
    let view = open_read(around, CLUSTER, PlainForTests, drop).unwrap();
    let features = Features::from([(name(), Class::Compatible)]);
    assert_eq!(view.state.features, features);
    let mut checkpoint = Checkpoint {
        cluster: CLUSTER,
        slot: view.head,
        nonce: [1; 16],
        slot_digest: view.digest,
        state: view.state,
    };
    let parse = |checkpoint: &Checkpoint| {
        let (bytes, _) = checkpoint.emit(&PlainForTests).unwrap();
        Checkpoint::parse(&bytes, &PlainForTests).map(|(parsed, _)| parsed)
    };
    assert_eq!(parse(&checkpoint).unwrap(), checkpoint);
    checkpoint.state.features = Features::from([(name(), Class::Incompatible)]);
    assert_eq!(parse(&checkpoint), Err(WireFault::Feature(name())), "said before anything else is read");
}
