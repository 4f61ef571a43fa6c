//! `mount`: points as a read-only file system.
//!
//! Source: ours; `hal::linux::fuse`, `engine::shown`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use windlass_agent::log::state::Point;
use windlass_agent::mount::layout::{Layout, Shows, TREES_MAX};
use windlass_agent::progress::Progress;
use windlass_agent::units::{Counted, Grouped};
use windlass_hal::linux::fuse::{self, Settings};

use crate::cli::args::global::Global;
use crate::cli::args::mount::Mount;
use crate::cli::browse::Opened;
use crate::cli::damage;
use crate::cli::held::Held;
use crate::cli::output::Output;
use crate::engine::points;
use crate::engine::shown::Pool;
use crate::failure::{Exit, Failure};
use crate::{logger, signal};

/// Between looks at whether it was unmounted, or is to end.
const LOOK: Duration = Duration::from_millis(50);

/// `mount`: returns when it is unmounted.
pub fn run(global: &Global, args: &Mount, output: &Output) -> Result<Exit, Failure> {
    let job = Arc::new(Progress::new());
    signal::watch(&job)?;
    let _held = Held::take(global);
    let opened: &'static Opened = Box::leak(Box::new(Opened::new(global)?));
    let state = &opened.state;
    let newest = points::pick(state, &args.target.target)?;
    let (layout, shown) = if args.target.all {
        let of = state
            .points
            .values()
            .filter(|point| point.policy == newest.policy && state.leaving(point.backup).is_none());
        let all: Vec<Shows> = of.map(shows).collect();
        let layout = Layout::points(&all);
        if layout.trees().len() < all.iter().map(|point| point.volumes.len()).sum() {
            logger::say(format_args!(
                "windlass: the newest points are shown only: a mount has {} volumes of points at most",
                Grouped(TREES_MAX as u64)
            ));
        }
        (layout, all.len())
    } else {
        damage::warn(state, newest.backup);
        points::warn_missing(state, newest);
        (Layout::point(&shows(newest)), 1)
    };
    let name = match args.target.all {
        true => newest.policy.clone(),
        false => format!("{}@{}", newest.policy, newest.backup),
    };
    let pool = Pool::start(&opened.repository, state, layout, global.memory.0)?;
    let settings = Settings { source: format!("windlass:{name}"), others: args.allow_other };
    let mounted = fuse::mount(pool, &args.directory, &settings)
        .map_err(|error| Failure::at(args.directory.display(), explain(&error)))?;
    output.say(format_args!(
        "{name} ({}) is at {}; Ctrl-C or `umount` ends it",
        Counted(shown as u64, "point"),
        args.directory.display()
    ));
    output.document(&json!({
        "policy": newest.policy,
        "point": (!args.target.all).then_some(newest.backup.0),
        "points": shown,
        "directory": args.directory.display().to_string(),
    }));
    while !mounted.is_over() && !job.is_stop_requested() {
        std::thread::sleep(LOOK);
    }
    let in_use = mounted.end().map_err(|error| Failure::at(args.directory.display(), error))?;
    if in_use {
        logger::say(format_args!(
            "windlass: {} was in use: it is detached, and what is open there fails from now on",
            args.directory.display()
        ));
    }
    Ok(Exit::Done)
}

fn shows(point: &Point) -> Shows {
    Shows {
        backup: point.backup,
        begun_secs: point.wall_ns.0.div_euclid(1_000_000_000),
        volumes: point.volumes.iter().map(|volume| volume.volume).collect(),
    }
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "{error}; the directory must exist, the kernel must have /dev/fuse (modprobe fuse), and users other than root need fusermount3"
        ),
        io::ErrorKind::PermissionDenied => {
            format!(
                "{error}; users other than root need fusermount3, and `user_allow_other` in /etc/fuse.conf for --allow-other"
            )
        }
        _ => error.to_string(),
    }
}
