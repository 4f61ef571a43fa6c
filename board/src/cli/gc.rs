//! `gc`: space that no recovery point needs comes back.
//!
//! Alone it is a cluster of one that does a garbage run and nothing else; through an agent the cluster's coordinator does it, and this waits for
//! its end. Does not: decide what is garbage (`windlass_agent::gc`). Source: ours.

use std::sync::Arc;
use std::time::Duration;

use windlass_agent::coordinator::status;
use windlass_agent::drive::collect::Collector;
use windlass_agent::format::garbage::{Done, GarbageNews, Wanted};
use windlass_agent::format::record::Record;
use windlass_agent::gc::types::{Marked, Order, Outcome, Step};
use windlass_agent::id::Epoch;
use windlass_agent::log::fault::LogFault;
use windlass_agent::log::state::State;
use windlass_agent::pack::object::NameCounter;
use windlass_agent::pack::{BLOCK_BYTES_DEFAULT, OBJECT_BYTES_DEFAULT};
use windlass_agent::progress::{Phase, Progress};
use windlass_agent::units::{Counted, Human, HumanTime};
use windlass_agent::work::Command;
use windlass_hal::clock::Clock;

use crate::cli::args::gc::Gc;
use crate::cli::args::global::Global;
use crate::cli::output::Output;
use crate::cli::progress::Watcher;
use crate::cli::through::Through;
use crate::engine::backup::{Fault, Listener};
use crate::engine::garbage::{self as engine, NoVolumes};
use crate::engine::host::{self, HostClock};
use crate::engine::limits::StoreLimits;
use crate::engine::machinery::pools;
use crate::engine::repository::{NODE, Repository};
use crate::engine::settings::Settings;
use crate::engine::waiting::Waiting;
use crate::engine::worker::Work;
use crate::failure::{Exit, Failure};
use crate::{logger, signal};

/// Before the first look at the log while a cluster does it.
const LOOK: Duration = Duration::from_millis(500);
/// Between two looks at most: each opens the log anew, a dozen requests.
const LOOK_MAX: Duration = Duration::from_secs(8);

/// `gc`.
pub fn run(global: &Global, args: &Gc, through: Option<Through>, output: &Output) -> Result<Exit, Failure> {
    let job = Arc::new(Progress::new());
    signal::watch(&job)?;
    let repository = Repository::open(global)?;
    let budget_bytes = args.budget.map(|bytes| bytes.0).or(args.no_rewrite.then_some(0));
    if args.dry_run {
        return dry_run(&repository, budget_bytes != Some(0), &job, output);
    }
    let begun_ns = HostClock.boot_ns();
    let wanted = Wanted { wall_ns: HostClock.wall_ns() };
    let wanted = match budget_bytes {
        None => GarbageNews::Wanted(wanted),
        Some(bytes) => GarbageNews::WantedWith(wanted, bytes),
    };
    let (done, state) = {
        let _watcher = Watcher::start(&job, *output)?;
        job.enter(Phase::Planning);
        match through {
            Some(through) => by_cluster(&repository, through, wanted, &job)?,
            None => alone(global, &repository, wanted, &job)?,
        }
    };
    let elapsed_ns = HostClock.boot_ns().saturating_sub(begun_ns);
    tell(&done, &state, elapsed_ns, output);
    let mut document = status::garbage(&state);
    document["elapsed_ms"] = (elapsed_ns / 1_000_000).into();
    output.event("done", document);
    Ok(if done.faults == 0 && done.kept == 0 { Exit::Done } else { Exit::Partial })
}

fn tell(done: &Done, state: &State, elapsed_ns: u64, output: &Output) {
    output.say(format_args!(
        "deleted {}, {} of objects, in {}",
        Counted(done.deleted, "name"),
        Human(done.deleted_bytes),
        HumanTime(elapsed_ns)
    ));
    if let Some(moves) = &state.garbage.moves {
        output.say(format_args!(
            "  moved: {} of live blocks out of {}",
            Human(moves.bytes),
            Counted(moves.objects, "object")
        ));
    }
    output.say(format_args!("  live: {} in {}", Human(done.live_bytes), Counted(done.objects, "object")));
    if !state.retired.is_empty() {
        output.say(format_args!(
            "  still to come back: {}, {} of objects; deleted by a run that is {} later (`windlass repo set --gc-window`), when no reader \
             holds them",
            Counted(state.retired.len() as u64, "name"),
            Human(state.garbage.waiting_bytes()),
            HumanTime(state.garbage.settings().window_ns)
        ));
    }
    if done.waiting > 0 {
        let oldest = state.running.values().map(|running| running.policy.as_str()).collect::<Vec<_>>();
        output.say(format_args!(
            "  {} wait for backups that began before them: of {}",
            Counted(done.waiting, "object"),
            oldest.join(", ")
        ));
    }
    if done.later > 0 {
        output.say(format_args!("  {} were put off by the store", Counted(done.later, "deletion")));
    }
    if done.kept > 0 {
        output.say(format_args!(
            "  {} stay although nothing refers to them: their rows cannot be read, or contradict the tables",
            Counted(done.kept, "object")
        ));
    }
    if done.faults > 0 {
        output.say(format_args!("  {} failed; the next run goes on", Counted(done.faults, "step")));
    }
}

/// Through the agent here: its cluster's coordinator does it.
fn by_cluster(
    repository: &Repository,
    mut through: Through,
    wanted: GarbageNews,
    job: &Progress,
) -> Result<(Done, State), Failure> {
    let record = Record::Garbage(wanted);
    through.agent.command(Command::Submit(vec![record]))?;
    let mut look = LOOK;
    loop {
        let state = repository.view()?.state;
        engine::show(job, &state);
        if state.garbage.wanted.is_none()
            && let Some(done) = state.garbage.done
        {
            return Ok((done, state));
        }
        if job.is_stop_requested() {
            return Err(Failure::new("the run goes on without this command; `windlass status` shows it"));
        }
        repository.clock().sleep(look);
        look = LOOK_MAX.min(look * 2);
    }
}

/// A wait for the lock, asked about once a second.
struct Teller(Waiting);

impl Listener for Teller {
    fn is_held(&mut self, held: &LogFault, left_ns: u64, _: bool) -> bool {
        self.0.goes_on(HostClock.boot_ns(), held, left_ns)
    }

    fn hears(&mut self, line: std::fmt::Arguments<'_>) {
        logger::say(format_args!("windlass: {line}"));
    }
}

fn alone(
    global: &Global,
    repository: &Repository,
    wanted: GarbageNews,
    job: &Arc<Progress>,
) -> Result<(Done, State), Failure> {
    let view = repository.view()?;
    let settings =
        Settings::of_memory(global.memory.0, BLOCK_BYTES_DEFAULT, OBJECT_BYTES_DEFAULT, host::cores())
            .map_err(Failure::usage)?;
    let target = repository.target();
    let throttle = Arc::clone(&target.throttle);
    let (up, down) = (global.limit_up.map(|rate| rate.0), global.limit_down.map(|rate| rate.0));
    let work = Work {
        limits: Arc::new(StoreLimits::of_command(throttle, up, down)),
        target,
        volumes: Arc::new(NoVolumes),
        pools: pools(&settings.budget, settings.block_bytes_max)?,
        settings,
        author: (NODE, host::boot()?),
        has_peers: false,
        upkeep: None,
        watch: Arc::new(|_| {}),
    };
    let ended = engine::run(work, view, wanted, job, &mut Teller(repository.waiting()))?;
    repository.keep_view(&ended.view);
    let done = ended.result.map_err(|fault| match fault {
        Fault::Log(fault) => repository.not_claimed(&fault),
        Fault::Stopped => Failure::new("stopped; what was noted is kept, and the next run goes on"),
        fault => Failure::new(fault),
    })?;
    Ok((done, ended.view.state))
}

/// Looks through the tables, without the lock.
fn dry_run(
    repository: &Repository,
    sizes: bool,
    job: &Arc<Progress>,
    output: &Output,
) -> Result<Exit, Failure> {
    let view = repository.view()?;
    let target = repository.target();
    let collector = Collector {
        client: target.client,
        keys: target.keys,
        names: NameCounter::default(),
        author: (NODE, host::boot()?),
        row_blocks: target.row_blocks,
    };
    let order = Order { number: 0, epoch: Epoch(0), wall_ns: 0, step: Step::Mark { sizes } };
    let found = {
        let _watcher = Watcher::start(job, *output)?;
        job.enter(Phase::Planning);
        collector.run(&order, (&view.state, view.head), job.stop_flag())
    };
    let found = found.map_err(|fault| Failure::at("looking through the tables", fault))?;
    let marked = match found {
        Outcome::Marked(marked) => marked,
        _ => Marked::default(),
    };
    output.say(format_args!(
        "{} in the tables: no row refers to {} of them, and only rows that no point needs to {} more",
        Counted(marked.objects, "object"),
        marked.dead_count,
        marked.dying_count
    ));
    output.say(format_args!(
        "{} of frames are live; {} more are named by rows that no point needs",
        Human(marked.live_bytes),
        Human(marked.named_bytes.saturating_sub(marked.live_bytes))
    ));
    if !marked.sparse.is_empty() {
        output.say(format_args!(
            "{} have little that is live: up to {} come back when that moves into new ones",
            Counted(marked.sparse.len() as u64, "object"),
            Human(marked.sparse_bytes)
        ));
    }
    let mut document = status::garbage(&view.state);
    document["sparse_objects"] = marked.sparse.len().into();
    document["sparse_bytes"] = marked.sparse_bytes.into();
    document["objects"] = marked.objects.into();
    document["live_bytes"] = marked.live_bytes.into();
    document["dead_objects"] = marked.dead_count.into();
    document["dying_objects"] = marked.dying_count.into();
    document["idle_bytes"] = marked.named_bytes.saturating_sub(marked.live_bytes).into();
    document["idle_rows"] = marked.rows_idle.into();
    output.event("marked", document);
    Ok(Exit::Done)
}
