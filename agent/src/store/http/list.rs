//! A LIST over all its pages, and whether they fit together.
//!
//! | what a server does | what follows |
//! |---|---|
//! | keys that do not ascend, also from one page to the next: a page repeated, or another's | no answer: `Unknown` |
//! | keys outside of the prefix | the same |
//! | the same token for the next page | the same |
//! | more than [`LIST_PAGES_MAX`] pages | `Rejected` |
//! | keys at or before the one to begin behind | left out: some servers ignore where to begin |
//!
//! Does not: know how a page is asked for. Source: ours.

use super::{LIST_PAGES_MAX, unfit};
use crate::store::{StoreFault, StoreFaultKind, is_valid_key};

/// What is listed.
pub(in crate::store) struct Listing<'a> {
    /// Prefix of all keys of the store: empty or ending in a slash.
    pub(in crate::store) root: &'a str,
    /// Of the keys, behind the root.
    pub(in crate::store) prefix: &'a str,
    /// Keys are greater than this one.
    pub(in crate::store) after: &'a str,
}

/// One page.
pub(in crate::store) struct Page {
    /// (name with the root, size) in the server's order.
    pub(in crate::store) objects: Vec<(String, u64)>,
    /// What to ask the next page with; `None`: this is the last one.
    pub(in crate::store) next: Option<String>,
}

/// Calls `each` with (key, size) until it returns `false`. `page` gets the token of the page to ask for, empty for the first.
pub(in crate::store) fn list(
    listing: &Listing<'_>,
    each: &mut dyn FnMut(&str, u64) -> bool,
    page: &mut dyn FnMut(&str) -> Result<Page, StoreFault>,
) -> Result<(), StoreFault> {
    let Listing { root, prefix, after } = *listing;
    let (mut token, mut last) = (String::new(), String::new());
    for _ in 0..LIST_PAGES_MAX {
        let Page { objects, next } = page(&token)?;
        for (full, size) in objects {
            if full <= last {
                return Err(unfit("LIST", prefix, "keys are not listed in ascending order"));
            }
            let Some(key) = full.strip_prefix(root).filter(|key| key.starts_with(prefix)) else {
                return Err(unfit("LIST", prefix, "it lists keys outside of the prefix"));
            };
            // Others' objects below the prefix have other names than ours.
            if is_valid_key(key) && key > after && !each(key, size) {
                return Ok(());
            }
            last = full;
        }
        match next {
            None => return Ok(()),
            Some(next) if next == token => {
                return Err(unfit("LIST", prefix, "the next page has the same token as this one"));
            }
            Some(next) => token = next,
        }
    }
    Err(StoreFault::new(StoreFaultKind::Rejected, "LIST", prefix, "the listing does not end"))
}
