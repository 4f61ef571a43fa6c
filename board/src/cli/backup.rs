//! `backup` without an agent: a policy's volumes into a new point.
//!
//! Source: ours.

use std::sync::Arc;

use windlass_agent::policy::Policy;
use windlass_agent::progress::Progress;

use crate::cli::args::Backup;
use crate::cli::args::global::Global;
use crate::cli::damage;
use crate::cli::output::Output;
use crate::cli::progress::Watcher;
use crate::engine::alone::{Alone, Outcome, run_policy};
use crate::engine::repository::Repository;
use crate::engine::settings::Access;
use crate::failure::{Exit, Failure};
use crate::{outcome, signal};

/// `backup`.
pub fn run(global: &Global, args: &Backup, output: &Output) -> Result<Exit, Failure> {
    let job = Arc::new(Progress::new());
    signal::watch(&job)?;
    let mut repository = Repository::open(global)?;
    if args.no_wait {
        repository.wait_for_lock(Some(0));
    }
    let (policy, outcome) = {
        let _watcher = Watcher::start(&job, *output)?;
        back_up(global, &repository, &args.name, args.paranoid, &job)?
    };
    outcome::tell(&policy, &outcome, output);
    output.event("done", outcome::to_json(&policy, &outcome));
    Ok(outcome.exit())
}

/// Backs a policy up with the limits that the options give.
fn back_up(
    global: &Global,
    repository: &Repository,
    name: &str,
    paranoid: bool,
    job: &Arc<Progress>,
) -> Result<(Policy, Outcome), Failure> {
    let setup = Alone {
        access: Access::from(global),
        memory_bytes: global.memory.0,
        device_iops_max: global.device_iops_max,
        paranoid,
    };
    let mut commit = |repository: &Repository, records| damage::commit(global, repository, records);
    run_policy(&setup, repository, name, &mut commit, job)
}
