//! Names of the features that a superblock's words hold. Source: ours; the tables are each reader's own.

/// A word of features: what it is called, its bits, and the names of those that are known.
pub(super) type FeatureWord<'a> = (&'a str, u32, &'a [(u32, &'a str)]);

/// The names of all bits that are set, word by word, lowest bit first; a bit without a name is printed as its
/// word and value.
pub(super) fn feature_names(words: &[FeatureWord<'_>]) -> impl Iterator<Item = String> {
    words.iter().flat_map(|&(word, bits, table)| {
        let set = (0..32).map(|shift| 1u32 << shift).filter(move |bit| bits & bit != 0);
        set.map(move |bit| match table.iter().find(|(b, _)| *b == bit) {
            Some((_, name)) => (*name).to_owned(),
            None => format!("{word} {bit:#x}"),
        })
    })
}
