//! End to end: real images, real stores, real processes, restored and compared.
//!
//! | module | what |
//! |---|---|
//! | `agent_store` | an agent whose store goes away |
//! | `api` | the management API and the page of an agent: TLS, roles, limits, metrics, events |
//! | `clouds` | repositories in Azure Blob and Google Cloud Storage, by the command line |
//! | `cluster` | clusters of agents as processes, with broken networks |
//! | `console` | the console over a line, in a pipe, and at an agent |
//! | `crash` | SIGKILL at many moments of a backup and of a restore |
//! | `damage` | objects of a repository lost or changed |
//! | `etcd` | the log in etcd |
//! | `garbage` | space that comes back: through agents, in S3, beside a frozen backup |
//! | `hostile` | volumes made to mislead the readers |
//! | `memory` | the peak of the program's memory against its budget |
//! | `mounted` | volumes read through a mount |
//! | `restore` | trees and images restored, and what gets in the way |
//! | `round_trip` | every kind of item there and back |
//! | `s3` | a repository in Ceph |
//! | `said` | what a cluster says of itself, of its store and of its commands |
//! | `shown` | points mounted through FUSE |
//! | `store_faults` | backups into stores that fail |
//! | `stretches` | backups divided in many ways |
//! | `support` | a support bundle, without the secrets of the fixture |
//! | `ymodem` | bundles to the receiver of lrzsz |
//!
//! The modules share a process: what is large asks for a turn first (`windlass_tests::turn`). Source: ours.

mod agent_store;
mod api;
mod clouds;
mod cluster;
mod console;
mod crash;
mod damage;
mod etcd;
mod garbage;
mod hostile;
mod memory;
mod mounted;
mod restore;
mod roles;
mod round_trip;
mod s3;
mod said;
mod shown;
mod store_faults;
mod stretches;
mod support;
mod taken_over;
mod ymodem;
