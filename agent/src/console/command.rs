//! What a line of the console means: words, and the command that they name.
//!
//! ```text
//!  line --split--> words --resolve--> Entry of the one table of commands, and the words as the command line takes them
//!  text before the cursor --nth_candidate--> what may stand there, and its help
//! ```
//!
//! | rule | what |
//! |---|---|
//! | words | parted by spaces; `'...'` and `"..."` take a word as it is, a backslash the next character |
//! | prefixes | a word of a command, and the name of an option, may be cut as long as one is meant; a whole name goes first |
//! | [`OWN`] | commands of the console itself, which the command line does not have |
//! | [`NOT_HERE`] | commands that make no sense here |
//!
//! Invariants: nothing is allocated; every bound is refused by name. Does not: carry anything out, or ask. Source: ours; `work::table`.

use std::fmt;

use heapless::Vec;

use super::line::LINE_BYTES_MAX;
use crate::work::entry::{Arg, Entry, Kind, Place, Role};
use crate::work::table;

/// Words of a line; a command with more goes by the command line, or takes a file.
pub const WORDS_MAX: usize = 64;
/// Bytes of a command as the command line takes it: what was cut is written out.
pub const CALL_BYTES_MAX: usize = 2 * LINE_BYTES_MAX;
/// Commands of the command line that the console does not offer: they run for good, take over the terminal, or are for another shell.
pub const NOT_HERE: &[&str] = &["agent", "console", "completions", "demo", "mount"];

const fn own(name: &'static str, help: &'static str, args: &'static [Arg]) -> Entry {
    Entry {
        name,
        help,
        role: Role::Viewer,
        place: Place::Here,
        changes: false,
        ask: None,
        args,
        documents: &[],
    }
}

/// Commands of the console itself.
pub const OWN: &[Entry] = &[
    own(
        "help",
        "List the commands that are allowed here, or explain one; '?' does so at any place of a line",
        &[Arg::word("command", Kind::Text, "Explain this command").many()],
    ),
    own(
        "term",
        "Say what the terminal is: vt100, dumb (no cursor motion) or script (a program reads)",
        &[
            Arg::word("kind", Kind::Choice(&["vt100", "dumb", "script"]), "The kind of terminal").required(),
            Arg::word("columns", Kind::Number, "Its width"),
            Arg::word("rows", Kind::Number, "Its height"),
        ],
    ),
    own("tail", "Show the last lines of the log", &[]),
    own("send", "Make a support bundle and send it to this terminal by YMODEM", &[]),
    own("exit", "Leave the console; on a serial line it begins anew", &[]),
];

/// All commands that the console offers to one who has `role`.
pub fn offered(role: Role) -> impl Iterator<Item = &'static Entry> {
    let here = |entry: &&'static Entry| entry.place != Place::Socket && !NOT_HERE.contains(&entry.name);
    table::all().filter(here).chain(OWN).filter(move |entry| role.may(entry.role))
}

/// Why a line means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault<'a> {
    /// A quote has no end.
    Quote,
    /// More words than [`WORDS_MAX`].
    Words,
    /// Written out it is longer than [`CALL_BYTES_MAX`].
    Long,
    /// No command begins so.
    Unknown(&'a str),
    /// Several commands begin so.
    Ambiguous(&'a str),
    /// The first word of several commands: which?
    Incomplete(&'static str),
    /// Another role is needed.
    Role(&'static Entry),
}

impl fmt::Display for Fault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Quote => write!(f, "a quote has no end; a backslash before it takes it as it is"),
            Fault::Words => write!(f, "more than {WORDS_MAX} words (WORDS_MAX)"),
            Fault::Long => write!(f, "the command is longer than {CALL_BYTES_MAX} bytes (CALL_BYTES_MAX)"),
            Fault::Unknown(word) => write!(f, "no command begins with '{word}'; 'help' lists them"),
            Fault::Ambiguous(word) => write!(f, "several commands begin with '{word}'; '{word}?' lists them"),
            Fault::Incomplete(word) => write!(f, "{word}: one word more; '{word} ?' lists them"),
            Fault::Role(entry) => {
                write!(f, "{} needs the role {}, which this console does not have", entry.name, entry.role)
            }
        }
    }
}

/// The words of a line.
#[derive(Debug, Default)]
pub struct Words {
    bytes: Vec<u8, LINE_BYTES_MAX>,
    ends: Vec<u16, WORDS_MAX>,
    /// The line ends within a word, or behind a quote that closes one.
    is_open: bool,
}

impl Words {
    /// Divides a line.
    ///
    /// # Errors
    /// A quote without an end, or too many words.
    pub fn split(line: &str) -> Result<Words, Fault<'_>> {
        let mut words = Words::default();
        let (mut quote, mut within, mut escaped) = (None, false, false);
        for c in line.chars() {
            let plain = match (quote, c) {
                _ if escaped => true,
                (Some(end), _) if c == end => {
                    quote = None;
                    continue;
                }
                (Some('"') | None, '\\') => {
                    (escaped, within) = (true, true);
                    continue;
                }
                (Some(_), _) => true,
                (None, '\'' | '"') => {
                    (quote, within) = (Some(c), true);
                    continue;
                }
                (None, _) => !c.is_whitespace(),
            };
            escaped = false;
            if plain {
                within = true;
                // A line's words are no longer than the line.
                let _ = words.bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            } else if std::mem::take(&mut within) {
                words.end()?;
            }
        }
        if quote.is_some() || escaped {
            return Err(Fault::Quote);
        }
        if within {
            words.end()?;
        }
        words.is_open = within;
        Ok(words)
    }

    fn end<'a>(&mut self) -> Result<(), Fault<'a>> {
        let end = u16::try_from(self.bytes.len()).map_err(|_| Fault::Words)?;
        self.ends.push(end).map_err(|_| Fault::Words)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// One of them; empty if there is none.
    #[must_use]
    pub fn get(&self, nth: usize) -> &str {
        let begin = nth.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(nth).copied().unwrap_or(begin);
        std::str::from_utf8(&self.bytes[begin.into()..end.into()]).unwrap_or_default()
    }

    /// All.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|nth| self.get(nth))
    }
}

/// A command as the command line takes it: its words.
#[derive(Debug, Default)]
pub struct Call(Vec<u8, CALL_BYTES_MAX>);

impl Call {
    fn push<'a>(&mut self, parts: &[&str]) -> Result<(), Fault<'a>> {
        for part in parts {
            self.0.extend_from_slice(part.as_bytes()).map_err(|_| Fault::Long)?;
        }
        // A word has no NUL: keys make none.
        self.0.push(0).map_err(|_| Fault::Long)
    }

    /// Its words.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        let words = self.0.strip_suffix(&[0]).map(|words| words.split(|&byte| byte == 0));
        words.into_iter().flatten().map(|word| std::str::from_utf8(word).unwrap_or_default())
    }
}

/// The first and the second word of a command's name.
fn parts(entry: &'static Entry) -> (&'static str, Option<&'static str>) {
    entry.name.split_once(' ').map_or((entry.name, None), |(first, second)| (first, Some(second)))
}

/// The name of `names` that `word` means: the whole of one, or the begin of one alone. Names may come more than once.
fn meant<'a>(word: &'a str, names: impl Iterator<Item = &'static str>) -> Result<&'static str, Fault<'a>> {
    let mut found = None;
    let mut many = false;
    for name in names.filter(|name| name.starts_with(word)) {
        if name == word {
            return Ok(name);
        }
        many |= found.is_some_and(|other| other != name);
        found = Some(name);
    }
    match found {
        Some(_) if many => Err(Fault::Ambiguous(word)),
        Some(name) => Ok(name),
        None => Err(Fault::Unknown(word)),
    }
}

/// The command that words name, and how many of them its name takes.
///
/// # Errors
/// None or several, or one word of two.
pub fn resolve(words: &Words) -> Result<(&'static Entry, usize), Fault<'_>> {
    // A command that another role may use is known, and refused by its role.
    let all = || offered(Role::Administrator);
    let first = meant(words.get(0), all().map(|entry| parts(entry).0))?;
    let below = || all().filter(move |entry| parts(entry).0 == first);
    if let Some(entry) = below().find(|entry| parts(entry).1.is_none()) {
        return Ok((entry, 1));
    }
    if words.len() < 2 {
        return Err(Fault::Incomplete(first));
    }
    let second = meant(words.get(1), below().filter_map(|entry| parts(entry).1))?;
    below().find(|entry| parts(entry).1 == Some(second)).map(|entry| (entry, 2)).ok_or(Fault::Unknown(first))
}

/// The option of `entry` that `name` means.
fn option(entry: &Entry, name: &str) -> Option<&'static Arg> {
    let options = || entry.args.iter().filter(|arg| !arg.positional);
    let found = meant(name, options().map(|arg| arg.name)).ok()?;
    options().find(|arg| arg.name == found)
}

/// The words for the command line: names written out.
///
/// # Errors
/// They are too long.
pub fn call<'a>(entry: &'static Entry, words: &'a Words, from: usize) -> Result<Call, Fault<'a>> {
    let mut call = Call::default();
    for part in entry.name.split(' ') {
        call.push(&[part])?;
    }
    let mut is_over = false;
    for word in words.iter().skip(from) {
        is_over |= word == "--";
        let name = word.strip_prefix("--").filter(|name| !is_over && !name.is_empty());
        let (name, value) = name.map_or((None, None), |name| {
            name.split_once('=').map_or((Some(name), None), |(name, value)| (Some(name), Some(value)))
        });
        match (name.and_then(|name| option(entry, name)), value) {
            (Some(arg), Some(value)) => call.push(&["--", arg.name, "=", value])?,
            (Some(arg), None) => call.push(&["--", arg.name])?,
            (None, _) => call.push(&[word])?,
        }
    }
    Ok(call)
}

/// Whether a command changes nothing for good when it is called so.
#[must_use]
pub fn is_rehearsal(call: &Call) -> bool {
    call.words().take_while(|word| *word != "--").any(|word| matches!(word, "--dry-run" | "-n"))
}

/// What may stand at the end of a text: the word so far, and where to look for it.
struct Spot<'a> {
    words: &'a Words,
    partial: &'a str,
    whole: usize,
    role: Role,
}

/// Something that may stand in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Before the name: `--` of an option.
    pub mark: &'static str,
    /// What is written; empty where only a person knows what.
    pub name: &'static str,
    /// What it means.
    pub help: &'static str,
    /// What to show instead of a name.
    pub hint: &'static str,
}

impl Candidate {
    fn named(name: &'static str, help: &'static str) -> Candidate {
        Candidate { mark: "", name, help, hint: "" }
    }
}

/// What may stand behind the words before the cursor.
pub struct Candidates<'a> {
    place: Spot<'a>,
}

impl<'a> Candidates<'a> {
    /// At the end of the text of which `words` are.
    #[must_use]
    pub fn at_end(words: &'a Words, role: Role) -> Candidates<'a> {
        let whole = words.len() - usize::from(words.is_open);
        let partial = if words.is_open { words.get(whole) } else { "" };
        Candidates { place: Spot { words, partial, whole, role } }
    }

    /// The word so far.
    #[must_use]
    pub fn partial(&self) -> &'a str {
        self.place.partial
    }

    /// Those that begin with the word so far, in order.
    pub fn for_each(&self, mut each: impl FnMut(Candidate)) {
        let Spot { words, partial, whole, role } = self.place;
        let mut offer = |candidate: Candidate| {
            let rest = partial.strip_prefix(candidate.mark);
            let fits = match rest {
                Some(rest) => candidate.name.starts_with(rest),
                None => !candidate.mark.is_empty() && candidate.mark.starts_with(partial),
            };
            if fits {
                each(candidate);
            }
        };
        if whole == 0 {
            for (nth, entry) in offered(role).enumerate() {
                let (first, second) = parts(entry);
                if offered(role).take(nth).all(|before| parts(before).0 != first) {
                    let help = if second.is_none() { entry.help } else { "Several commands" };
                    offer(Candidate::named(first, help));
                }
            }
            return;
        }
        let (entry, named) = match resolve(words) {
            Ok(found) if found.1 <= whole => found,
            // Two words, of which the second is not complete, or means nothing.
            _ if whole == 1 => {
                let Ok(first) = meant(words.get(0), offered(role).map(|entry| parts(entry).0)) else {
                    return;
                };
                for entry in offered(role).filter(|entry| parts(entry).0 == first) {
                    if let Some(second) = parts(entry).1 {
                        offer(Candidate::named(second, entry.help));
                    }
                }
                return;
            }
            _ => return,
        };
        let before = words.get(whole - 1);
        let waits = before.strip_prefix("--").filter(|_| whole > named).and_then(|name| option(entry, name));
        if let Some(arg) = waits.filter(|arg| arg.kind != Kind::Flag) {
            return values(arg, &mut offer);
        }
        let given = (named..whole).filter(|&nth| !words.get(nth).starts_with('-')).count();
        let mut positional = entry.args.iter().filter(|arg| arg.positional);
        let last = positional.clone().next_back().filter(|arg| arg.many);
        let next = positional.nth(given).or(last);
        if let Some(arg) = next {
            values(arg, &mut offer);
        }
        for arg in entry.args.iter().filter(|arg| !arg.positional) {
            offer(Candidate { mark: "--", name: arg.name, help: arg.help, hint: "" });
        }
        if !OWN.contains(entry) {
            offer(Candidate { mark: "--", name: "json", help: "One line for programs", hint: "" });
        }
    }

    /// The nth of them.
    #[must_use]
    pub fn nth(&self, nth: usize) -> Option<Candidate> {
        let (mut at, mut found) = (0, None);
        self.for_each(|candidate| {
            if at == nth {
                found = Some(candidate);
            }
            at += 1;
        });
        found
    }
}

/// What an argument may be.
fn values(arg: &'static Arg, offer: &mut impl FnMut(Candidate)) {
    let words: &[&'static str] = match arg.kind {
        Kind::Choice(words) => words,
        Kind::Reader => &["auto", "raw", "ext4", "mounted", "image"],
        _ => {
            return offer(Candidate { mark: "", name: "", help: arg.help, hint: arg.name });
        }
    };
    words.iter().for_each(|word| offer(Candidate::named(word, arg.help)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(line: &str) -> Result<&'static str, std::string::String> {
        let words = Words::split(line).map_err(|fault| fault.to_string())?;
        resolve(&words).map(|(entry, _)| entry.name).map_err(|fault| fault.to_string())
    }

    fn called(line: &str) -> std::vec::Vec<std::string::String> {
        let words = Words::split(line).unwrap();
        let (entry, named) = resolve(&words).unwrap();
        call(entry, &words, named).unwrap().words().map(str::to_owned).collect()
    }

    fn candidates(line: &str) -> std::vec::Vec<std::string::String> {
        let words = Words::split(line).unwrap();
        let mut found = std::vec::Vec::new();
        Candidates::at_end(&words, Role::Administrator)
            .for_each(|one| found.push(format!("{}{}{}", one.mark, one.name, one.hint)));
        found
    }

    #[test]
    fn words_are_divided_as_a_shell_does() {
        let split = |line: &str| {
            let words = Words::split(line).unwrap();
            words.iter().map(str::to_owned).collect::<std::vec::Vec<_>>()
        };
        assert_eq!(split("  a  'b c' \"d \\\" e\" f\\ g '' "), ["a", "b c", "d \" e", "f g", ""]);
        assert_eq!(split("größe\\'s"), ["größe's"]);
        assert_eq!(Words::split("a 'b").unwrap_err(), Fault::Quote);
        assert_eq!(Words::split("a\\").unwrap_err(), Fault::Quote);
        assert_eq!(Words::split(&"a ".repeat(WORDS_MAX + 1)).unwrap_err(), Fault::Words);
        assert_eq!(Words::split(&"a".repeat(LINE_BYTES_MAX)).unwrap().len(), 1);
    }

    #[test]
    fn a_command_may_be_cut_as_long_as_one_is_meant() {
        assert_eq!(name("status").as_deref(), Ok("status"));
        assert_eq!(name("stats").as_deref(), Ok("stats"));
        assert_eq!(name("pol sh x").as_deref(), Ok("policy show"));
        assert_eq!(name("points").as_deref(), Ok("points"));
        assert_eq!(name("point h").as_deref(), Ok("point hold"));
        assert_eq!(name("rest x").as_deref(), Ok("restore"));
        assert!(name("st").unwrap_err().starts_with("several commands begin with 'st'"));
        assert!(name("xyz").unwrap_err().starts_with("no command begins with 'xyz'"));
        assert!(name("policy").unwrap_err().starts_with("policy: one word more"));
        assert!(name("agent").is_err() && name("submit").is_err());
        assert_eq!(name("he").as_deref(), Ok("help"));
    }

    #[test]
    fn what_was_cut_is_written_out_for_the_command_line() {
        assert_eq!(called("back home --dry"), ["backup", "home", "--dry-run"]);
        assert_eq!(called("retention ru 'a b' -n"), ["retention", "run", "a b", "-n"]);
        assert_eq!(
            called("pol se x --keep-d=7 -- --dry"),
            ["policy", "set", "x", "--keep-daily=7", "--", "--dry"]
        );
        // What is not known, or not alone, is for the command line to judge.
        assert_eq!(
            called("backup home --d --keep --json"),
            ["backup", "home", "--dry-run", "--keep", "--json"]
        );
    }

    #[test]
    fn each_place_of_a_line_has_its_candidates() {
        assert_eq!(candidates("poi"), ["points", "point"]);
        assert_eq!(candidates("point re"), ["release"]);
        assert_eq!(candidates("term "), ["vt100", "dumb", "script"]);
        assert_eq!(candidates("term d"), ["dumb"]);
        assert_eq!(candidates("backup home --dr"), ["--dry-run"]);
        assert_eq!(candidates("volume info /dev/x --reader m"), ["mounted"]);
        assert_eq!(candidates("backup "), ["name", "--no-wait", "--paranoid", "--dry-run", "--json"]);
        assert!(candidates("").len() > 20 && candidates("xyz").is_empty() && candidates("xyz ").is_empty());
    }

    #[test]
    fn a_viewer_is_offered_what_a_viewer_may() {
        let names: std::vec::Vec<_> = offered(Role::Viewer).map(|entry| entry.name).collect();
        assert!(names.contains(&"status") && names.contains(&"help"));
        assert!(!names.contains(&"point expire") && !names.contains(&"restore"));
    }

    #[test]
    fn what_the_console_leaves_out_and_adds_is_named_right() {
        for name in NOT_HERE.iter().filter(|name| **name != "console") {
            assert!(table::find(name).is_some(), "{name}");
        }
        assert!(OWN.iter().all(|entry| table::find(entry.name).is_none()));
    }
}
