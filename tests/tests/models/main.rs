//! What the agent computes and what the command line makes of histories, against models and seeds.
//!
//! | module | what |
//! |---|---|
//! | `browse` | browsing and checking a point of a small repository |
//! | `carried` | what the last look at an object keeps where blocks were moved |
//! | `formats` | rows through blocks and segments |
//! | `history` | the history of a path, in rounds of requests |
//! | `log_model` | the log under every order of steps that fits |
//! | `restore_sim` | restores to a simulated target, with faults and crashes |
//! | `retention` | retention rules against restic's test data |
//! | `schedules` | cron lines against another implementation of cron |
//! | `selections` | histories of selections against a model (by the command line) |
//! | `tables` | the tables against a model |
//!
//! Source: ours.

mod browse;
mod carried;
mod formats;
mod history;
mod log_model;
mod restore_sim;
mod retention;
mod schedules;
mod selections;
mod tables;
