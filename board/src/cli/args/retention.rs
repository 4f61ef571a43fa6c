//! `retention`, and the rules that `policy set` takes too. Source: clap; rules and their names as restic has them.

use clap::{Args, Subcommand};
use windlass_agent::policy::retention::{self as rules, Count, Span};

use super::value::Duration;

/// Which points stay; what is not said is not changed.
#[derive(Clone, Debug, Default, Args)]
#[command(
    next_help_heading = "Which points stay (rules are independent: a point stays if one rule keeps it; 0 removes a rule)"
)]
pub struct Keep {
    /// The newest N points; all is a number too, here and below
    #[arg(long, value_name = "N")]
    pub keep_last: Option<Count>,
    /// The newest point of each of the newest N minutes that have one
    #[arg(long, value_name = "N")]
    pub keep_minutely: Option<Count>,
    /// The same by hours
    #[arg(long, value_name = "N")]
    pub keep_hourly: Option<Count>,
    /// By days
    #[arg(long, value_name = "N")]
    pub keep_daily: Option<Count>,
    /// By weeks, from Monday on
    #[arg(long, value_name = "N")]
    pub keep_weekly: Option<Count>,
    /// By months
    #[arg(long, value_name = "N")]
    pub keep_monthly: Option<Count>,
    /// By quarters
    #[arg(long, value_name = "N")]
    pub keep_quarterly: Option<Count>,
    /// By years
    #[arg(long, value_name = "N")]
    pub keep_yearly: Option<Count>,
    /// All points that are less than this older than the newest, such as 14d or 1y2mo
    #[arg(long, value_name = "SPAN")]
    pub keep_within: Option<Span>,
    /// Of those within this, the newest of each hour
    #[arg(long, value_name = "SPAN")]
    pub keep_within_hourly: Option<Span>,
    /// Of each day
    #[arg(long, value_name = "SPAN")]
    pub keep_within_daily: Option<Span>,
    /// Of each week
    #[arg(long, value_name = "SPAN")]
    pub keep_within_weekly: Option<Span>,
    /// Of each month
    #[arg(long, value_name = "SPAN")]
    pub keep_within_monthly: Option<Span>,
    /// Of each year
    #[arg(long, value_name = "SPAN")]
    pub keep_within_yearly: Option<Span>,
    /// All points that have each of these tags (with commas between); may be repeated, one list is enough to keep a point
    #[arg(long, value_name = "TAG,TAG")]
    pub keep_tag: Vec<String>,
    /// Never fewer than N points
    #[arg(long, value_name = "N")]
    pub keep_at_least: Option<u32>,
}

impl Keep {
    /// Rules with what was said in place of what they had.
    pub fn apply(&self, rules: &mut rules::Retention) {
        let counts = [
            (&mut rules.last, self.keep_last),
            (&mut rules.minutely, self.keep_minutely),
            (&mut rules.hourly, self.keep_hourly),
            (&mut rules.daily, self.keep_daily),
            (&mut rules.weekly, self.keep_weekly),
            (&mut rules.monthly, self.keep_monthly),
            (&mut rules.quarterly, self.keep_quarterly),
            (&mut rules.yearly, self.keep_yearly),
        ];
        counts.into_iter().for_each(|(rule, said)| *rule = said.unwrap_or(*rule));
        let spans = [
            (&mut rules.within, self.keep_within),
            (&mut rules.within_hourly, self.keep_within_hourly),
            (&mut rules.within_daily, self.keep_within_daily),
            (&mut rules.within_weekly, self.keep_within_weekly),
            (&mut rules.within_monthly, self.keep_within_monthly),
            (&mut rules.within_yearly, self.keep_within_yearly),
        ];
        spans.into_iter().for_each(|(rule, said)| *rule = said.unwrap_or(*rule));
        if !self.keep_tag.is_empty() {
            let list = |text: &String| text.split(',').map(str::to_owned).collect();
            rules.tags = self.keep_tag.iter().map(list).collect();
        }
        rules.at_least = self.keep_at_least.unwrap_or(rules.at_least);
    }
}

/// What `retention` does.
#[derive(Debug, Subcommand)]
pub enum Retention {
    /// Expire the points of a policy that none of its rules keeps, as each backup does by itself
    #[command(after_long_help = "\
Examples:
  windlass policy set home --keep-daily 7 --keep-weekly 4 --keep-monthly 12
  windlass retention run home --dry-run

Rules are independent: each looks at all points and counts for itself, days (and so on) without a point are not counted, and a point stays \
if one rule keeps it. The newest point that is not damaged always stays. Without a rule nothing expires.

             Mon 09 Mon 17 Tue 09 Tue 17 Wed 09
  --keep-last 2                     x      x
  --keep-daily 3     x             x      x
  stays              x             x      x")]
    Run(Run),
    /// See which points would stay after years of backups; needs no repository
    #[command(after_long_help = "\
Example:
  windlass retention simulate --every 6h --for 2y --keep-last 4 --keep-daily 7 --keep-monthly 12")]
    Simulate(Box<Simulate>),
}

/// Options of `retention run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The policy
    pub name: String,
    /// Expire nothing: show which points would go and why the others stay
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Expire even if it is more than half of the points, which must be just so many
    #[arg(long, value_name = "N", conflicts_with = "dry_run")]
    pub yes_expire: Option<usize>,
}

/// Options of `retention simulate`.
#[derive(Debug, Args)]
pub struct Simulate {
    /// Time between backups, at least 1m
    #[arg(long, value_name = "TIME")]
    pub every: Duration,
    /// How long backups are made
    #[arg(long = "for", value_name = "SPAN")]
    pub span: Span,
    /// On whose clock days, weeks and so on are counted [default: UTC]
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,
    /// Which points stay.
    #[command(flatten)]
    pub keep: Keep,
}
