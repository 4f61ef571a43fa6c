//! `key list`, `add`, `remove`, `passphrase`.
//!
//! Source: ours; `engine::keys`.

use serde_json::{Value, json};
use windlass_agent::format::wrap::Unlock;

use crate::cli::args::global::Global;
use crate::cli::args::key::{Key as Command, NewKey, NewPassphrase};
use crate::cli::output::{Align, Output};
use crate::engine::keys::{Change, change, check_new, finish, list, replace};
use crate::engine::repository::{DOES_NOT_OPEN, Opened, Repository};
use crate::engine::settings::Access;
use crate::failure::{Exit, Failure};
use crate::unlock::{self, Given, Pin};

/// How long the lock is waited for where `--wait` says nothing, in nanoseconds. Long enough to take over from one that died.
const WAIT_NS: u64 = 60_000_000_000;

/// `key`.
pub fn run(global: &Global, command: &Command, output: &Output) -> Result<Exit, Failure> {
    let access = Access::from(global);
    let opened = match Repository::with_key(Opened::new(&access)?, &access) {
        Err(failure) => match command {
            Command::Passphrase(new) => return changed_already(&access, new, failure, output),
            _ => return Err(failure),
        },
        Ok(opened) => opened,
    };
    let (mut repository, given) = opened;
    repository.wait_without_agent(WAIT_NS);
    let Some(Given { unlock: old, .. }) = &given else {
        let place = repository.opened.objects_place();
        return Err(Failure::at(place, "the repository is not encrypted, so it has no keys"));
    };
    match command {
        Command::List => {}
        Command::Add(new) => {
            let new = asked_for(new)?;
            check_new(&repository, &new.unlock)?;
            new.check_room()?;
            // First the file: a key that opens nothing costs nothing.
            new.save(Pin::of(&repository.format))?;
            let done = change(&repository, old, &Change::Add(&new.unlock));
            let id = done.inspect_err(|_| new.unsave())?;
            output.say(format_args!("key {id} opens the repository too now"));
        }
        Command::Remove { id } => {
            let id = change(&repository, old, &Change::Remove(id))?;
            output.say(format_args!("key {id} opens the repository no more"));
        }
        Command::Passphrase(new) => {
            if !matches!(old, Unlock::Passphrase(_)) {
                return Err(Failure::usage(
                    "a key file was given, and the passphrase of it is not known; leave the key file out, or make a \
                     further passphrase with `windlass key add`",
                ));
            }
            let new = NewKey { new_key_file: None, new_passphrase_file: new.new_passphrase_file.clone() };
            let new = asked_for(&new)?;
            let id = replace(&repository, old, &new.unlock)?;
            output
                .say(format_args!("the passphrase is changed: key {id}; the old one opens nothing any more"));
            return show(&repository, &new.unlock, output);
        }
    }
    show(&repository, old, output)
}

/// The key that was given does not open it: a change to the new passphrase that was killed may be the reason, and is finished then.
fn changed_already(
    access: &Access,
    new: &NewPassphrase,
    failure: Failure,
    output: &Output,
) -> Result<Exit, Failure> {
    if !failure.to_string().ends_with(DOES_NOT_OPEN) {
        return Err(failure);
    }
    let Some(file) = &new.new_passphrase_file else {
        return Err(Failure::new(format_args!(
            "{failure}; where a change of the passphrase was ended early, the new one may be the one that opens it"
        )));
    };
    let with_new = Access { key_file: None, passphrase_file: Some(file.clone()), ..access.clone() };
    let Ok((mut repository, Some(given))) = Repository::with_key(Opened::new(&with_new)?, &with_new) else {
        return Err(failure);
    };
    repository.wait_without_agent(WAIT_NS);
    finish(&repository, &given.unlock)?;
    output.say("the new passphrase is in force already: it opens the repository, and the old one does not");
    show(&repository, &given.unlock, output)
}

/// What is to open the repository from now on.
fn asked_for(new: &NewKey) -> Result<Given, Failure> {
    let (key_file, passphrase_file) = (new.new_key_file.clone(), new.new_passphrase_file.clone());
    if key_file.is_none() && passphrase_file.is_none() {
        return unlock::typed_twice("New passphrase")?.ok_or_else(|| {
            Failure::usage("give --new-key-file or --new-passphrase-file (there is no terminal to ask)")
        });
    }
    unlock::for_new(&Access { key_file, passphrase_file, ..Access::default() })
}

fn show(repository: &Repository, own: &Unlock, output: &Output) -> Result<Exit, Failure> {
    let keys = list(repository, own)?;
    let heads = [("KEY", Align::Left), ("OPENS WITH", Align::Left), ("", Align::Left)];
    let rows = keys.iter().map(|key| {
        let own = if key.is_own { "used by this command" } else { "" };
        vec![key.id.clone(), key.kind.to_owned(), own.to_owned()]
    });
    output.table(&heads, &rows.collect::<Vec<_>>());
    let keys: Vec<Value> =
        keys.iter().map(|key| json!({ "key": key.id, "opens_with": key.kind, "used": key.is_own })).collect();
    output.document(&json!({ "keys": keys }));
    Ok(Exit::Done)
}
