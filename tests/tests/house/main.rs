//! What holds for the repository as a whole.
//!
//! | module | what |
//! |---|---|
//! | `corpus` | the corpora of the fuzz targets, on the stable compiler |
//! | `golden` | stored bytes that a script wrote from the layout tables |
//! | `mutations` | changes that must be noticed still apply |
//! | `packages` | licences and sources of all packages |
//! | `readme` | the README's example |
//! | `repositories` | repositories that earlier builds made |
//! | `requests` | requests to a store per command |
//! | `tidy` | labels, links, `Source:` lines, length of the README |
//! | `weakened` | programs of tests say that their checks can be switched off |
//!
//! Source: ours.

mod corpus;
mod golden;
mod mutations;
mod packages;
mod readme;
mod repositories;
mod requests;
mod tidy;
mod weakened;
