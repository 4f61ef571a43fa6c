//! Which lines of the log are said: a level for all, and others for parts of the program: `warn,agent::log=debug,board=info`.
//!
//! A part is a module's path without `windlass_`: `agent::backplane`, `board::control`, `hal`. The longest that fits counts.
//! Source: ours; the form is that of `RUST_LOG`.

use std::str::FromStr;

use log::LevelFilter;

/// Parts at most: a line on a command line.
const PARTS_MAX: usize = 32;
/// What all our crates begin with.
const OURS: &str = "windlass_";

/// See the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// For what no part fits; `None`: as the command has it.
    all: Option<LevelFilter>,
    parts: Vec<(String, LevelFilter)>,
}

impl Levels {
    /// The same with `level` for what no part fits, unless that was said.
    pub fn or(mut self, level: LevelFilter) -> Levels {
        self.all = self.all.or(Some(level));
        self
    }

    /// The level of a module. Crates of others speak up only when everything is asked for, or they are.
    pub fn of(&self, target: &str) -> LevelFilter {
        let all = self.all.unwrap_or(LevelFilter::Warn);
        let path = target.strip_prefix(OURS).unwrap_or(target);
        let fits = |part: &str| {
            path.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        let longest = self.parts.iter().filter(|(part, _)| fits(part)).max_by_key(|(part, _)| part.len());
        match longest {
            Some((_, level)) => *level,
            None if target.starts_with("windlass") || all == LevelFilter::Trace => all,
            None => LevelFilter::Off,
        }
    }

    /// The highest of all.
    pub fn max(&self) -> LevelFilter {
        let all = self.all.unwrap_or(LevelFilter::Warn);
        self.parts.iter().map(|(_, level)| *level).fold(all, std::cmp::max)
    }
}

impl FromStr for Levels {
    type Err = String;

    fn from_str(text: &str) -> Result<Levels, String> {
        let mut levels = Levels::default();
        for piece in text.split(',').map(str::trim).filter(|piece| !piece.is_empty()) {
            let (part, level) = match piece.split_once('=') {
                Some((part, level)) => (Some(part.trim()), level.trim()),
                None => (None, piece),
            };
            let parsed = level.parse().map_err(|_| {
                format!("{level:?} is no level; write off, error, warn, info, debug or trace, as in warn,agent::log=debug")
            })?;
            match part {
                None => levels.all = Some(parsed),
                Some(_) if levels.parts.len() == PARTS_MAX => {
                    return Err(format!("more than {PARTS_MAX} parts have a level of their own"));
                }
                Some(part) => {
                    let part = part.strip_prefix(OURS).unwrap_or(part);
                    levels.parts.push((part.to_owned(), parsed));
                }
            }
        }
        Ok(levels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_part_that_fits_counts() {
        let levels: Levels =
            "info, agent::log=debug,windlass_agent::log::lease=trace,rustls=warn".parse().unwrap();
        for (target, level) in [
            ("windlass_board::agent", LevelFilter::Info),
            ("windlass_agent::log", LevelFilter::Debug),
            ("windlass_agent::log::writer", LevelFilter::Debug),
            ("windlass_agent::log::lease", LevelFilter::Trace),
            ("windlass_agent::logs", LevelFilter::Info),
            ("rustls::client", LevelFilter::Warn),
            ("ureq", LevelFilter::Off),
        ] {
            assert_eq!(levels.of(target), level, "{target}");
        }
        assert_eq!(levels.max(), LevelFilter::Trace);
        let plain = Levels::default().or(LevelFilter::Trace);
        assert_eq!((plain.of("ureq"), plain.max()), (LevelFilter::Trace, LevelFilter::Trace));
        let parts: Levels = "agent=debug".parse().unwrap();
        assert_eq!(parts.or(LevelFilter::Warn).of("windlass_board"), LevelFilter::Warn);
    }

    #[test]
    fn what_is_no_level_is_refused_by_name() {
        for wrong in ["loud", "agent::log=loud", "agent::log="] {
            assert!(wrong.parse::<Levels>().is_err_and(|why| why.contains("is no level")), "{wrong}");
        }
        assert_eq!("".parse(), Ok(Levels::default()));
        let many = "a=warn,".repeat(PARTS_MAX + 1);
        assert!(many.parse::<Levels>().is_err());
    }
}
