//! The command line as a child process, one module per group of commands.
//!
//! | module | what |
//! |---|---|
//! | `backup` | volumes in any order or missing, a repository in use, signals |
//! | `board` | board profiles, the control socket, commands through an agent |
//! | `credentials` | where S3 credentials come from |
//! | `damage` | a store that has lost something |
//! | `garbage` | space that comes back, and runs that are killed |
//! | `in_place` | restores over what is there, other owners, plans |
//! | `history` | versions of a path, what is deleted, paths of other points |
//! | `in_use` | volumes that are written to while they are to be read |
//! | `json` | each command's `--json` against `board/doc/json.md` |
//! | `key` | several keys and passphrases of one repository |
//! | `pki` | the files of a small CA |
//! | `repository` | init, keys, policies, backups, points |
//! | `restore` | restores to places in use, and to devices |
//! | `retention` | rules in a policy, and points that go on purpose |
//! | `shell` | completion, manual pages |
//! | `stats` | what points hold, and what each alone holds |
//! | `store` | stores that are missing, read-only, or answer wrongly |
//! | `times` | times on the clock of the site |
//! | `usage` | help, usage failures, exit codes |
//!
//! Source: ours.

mod backup;
mod board;
mod credentials;
mod damage;
mod garbage;
mod history;
mod in_place;
mod in_use;
mod json;
mod key;
mod pki;
mod removal;
mod repository;
mod restore;
mod retention;
mod shell;
mod stats;
mod store;
mod times;
mod usage;
