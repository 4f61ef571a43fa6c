//! The composition floor: threads, buffers and volumes that a node runs on, whoever it belongs to: the agent,
//! for good, or a command, for one backup.
//!
//! | module | what |
//! |---|---|
//! | [`settings`] | what an engine is told of itself, and the repository that it uses |
//! | [`node`] | a node with what carries its actions out |
//! | [`backup`] | a cluster of one, for one backup |
//! | [`garbage`] | the same, for one garbage run |
//! | [`alone`] | a policy backed up by this process, with what a command needs around it |
//! | [`policy`] [`points`] | policies and points as the log has them, and which one is meant |
//! | [`commit`] | records that a command makes, committed through a coordinator or under a lease |
//! | [`changes`] | changes of the log that people ask for, as plans |
//! | [`documents`] [`browse`] | what the log and a point say, for programs |
//! | [`desk`] | what threads ask of the agent's loop |
//! | [`support`] | a bundle for those who help |
//! | [`unknown`] | upload objects that the log does not know |
//! | [`worker`] | the job thread and the one that looks at volumes |
//! | [`volumes`] [`kept`] | volumes that a node may open: those of a profile, those of one policy |
//! | [`compare`] | the raw reader of a volume against the kernel |
//! | [`damage`] | from what somebody found lost to records of the log |
//! | [`repository`] | store, keys and log state, opened in one place |
//! | [`keys`] | keys and passphrases that open a repository |
//! | [`restore`] | a restore of one volume of a point |
//! | [`stats`] | what the points of a policy hold |
//! | [`wide`] | reads of the tables, several at once |
//! | [`shown`] | points shown as a file system |
//! | [`place`] | from a URL to a store |
//! | [`machinery`] | pools, uplinks and the reactor that a backup runs on |
//! | [`calls`] | threads that ask the store for the commit log |
//! | [`requests`] [`watch`] | counts requests; watches a holder of the lease |
//! | [`waiting`] | how long a lock is waited for that another one has |
//! | [`memory`] | whether this machine has the memory that is asked for |
//! | [`host`] | clocks, random numbers, names of this machine |
//! | [`durable`] [`within`] | files that survive a power failure; paths inside a folder |
//! | [`limits`] | how fast the store may be written and read |
//! | [`post`] | how threads tell the loop what has happened |
//!
//! Does not: read command lines, print, ask, or end the process.
//! Source: `agent/doc/architecture.md`, Threads.

pub mod alone;
pub mod backup;
pub mod browse;
pub mod calls;
pub mod changes;
pub mod commit;
pub mod compare;
pub mod damage;
pub mod desk;
pub mod documents;
pub mod durable;
pub mod garbage;
pub mod host;
pub mod kept;
pub mod keys;
pub mod limits;
pub mod machinery;
pub mod memory;
pub mod node;
pub mod place;
pub mod points;
pub mod policy;
pub mod post;
pub mod repository;
pub mod requests;
pub mod restore;
pub mod settings;
pub mod shown;
pub mod stats;
pub mod support;
pub mod unknown;
pub mod volumes;
pub mod waiting;
pub mod watch;
pub mod wide;
pub mod within;
pub mod worker;
