//! Lines of a log that match a regular expression, with the lines around them: searched from the end, newest first, within
//! a deadline.
//!
//! What is matched is what would be shown: folded lines, with secrets hidden. So a pattern cannot find out what is hidden.
//! Lines are folded, and secrets hidden, in blocks of about a MiB: where two blocks meet, a run of repeated lines counts as
//! two.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Instant;

use regex::{Regex, RegexBuilder};

use super::backwards::Backwards;
use super::fold::{Folder, Line};
use super::read::{keep_end, size};

/// How much is read and folded at once, and so how often the deadline is looked at.
const BLOCK: usize = 1024 * 1024;

/// The most memory that a compiled pattern may take.
const LARGEST_PATTERN: usize = 1024 * 1024;

/// What to search for.
#[derive(Debug, Clone)]
pub struct Query {
    /// What a line must match.
    pub pattern: Pattern,
    /// How many lines to give before and after each match.
    pub context: usize,
    /// The most matching lines that are given: the newest.
    pub max_matches: usize,
    /// The most text that is given, in bytes.
    pub max_bytes: usize,
    /// When to give up.
    pub deadline: Instant,
    /// Where to begin, and go backwards from: the [`Found::searched_from`] of an earlier search. None is the end.
    pub before: Option<u64>,
}

/// A regular expression that is safe to search with: whatever it is, the time it takes is linear in the log.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// It is not a regular expression, in a sentence.
    pub fn new(pattern: &str) -> Result<Self, BadPattern> {
        if pattern.is_empty() {
            return Err(BadPattern(
                "grep is empty: give a regular expression".into(),
            ));
        }
        RegexBuilder::new(pattern)
            .size_limit(LARGEST_PATTERN)
            .dfa_size_limit(4 * LARGEST_PATTERN)
            .build()
            .map(Self)
            .map_err(|error| BadPattern(sentence(pattern, &error)))
    }
}

/// That a pattern is none. The text says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPattern(String);

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The lines, in the order of the log, joined by line ends. With context, matching lines begin with `> ` and the others
    /// with two blanks, and `--` stands between lines that do not follow on each other.
    pub text: String,
    /// How many lines that is.
    pub lines: usize,
    /// How many of them match.
    pub matches: usize,
    /// The whole log was searched, or all of it before [`Query::before`].
    pub complete: bool,
    /// From where on the log was searched: where another search can go on, backwards.
    pub searched_from: u64,
    /// The size of the log.
    pub log_bytes: u64,
    /// A sentence for the reader, where not everything was searched.
    pub note: Option<String>,
}

impl Query {
    /// A search for `pattern`, without context, for the newest 100 matches.
    ///
    /// # Errors
    /// The pattern is not a regular expression, in a sentence.
    pub fn new(pattern: &str, deadline: Instant) -> Result<Self, BadPattern> {
        Ok(Self {
            pattern: Pattern::new(pattern)?,
            context: 0,
            max_matches: 100,
            max_bytes: super::read::DEFAULT_MAX_BYTES,
            deadline,
            before: None,
        })
    }
}

/// What is wrong with `pattern`, in one line.
fn sentence(pattern: &str, error: &regex::Error) -> String {
    let mut shown: String = pattern.chars().take(80).collect();
    if shown.len() < pattern.len() {
        shown.push('…');
    }
    let what = match error {
        regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    };
    format!(
        "grep={shown:?} is not a regular expression that can be searched for: {what}. Put a backslash before a character that stands for itself, as in `loss\\(`."
    )
}

/// Searches the log at `path`. `shown` makes of lines what may be shown of them, with secrets hidden: as many lines.
///
/// # Errors
/// What the file system said.
pub fn search(path: &Path, query: &Query, shown: &dyn Fn(&str) -> String) -> io::Result<Found> {
    search_in(&mut File::open(path)?, query, shown)
}

/// As [`search`], in a log that is at hand.
///
/// # Errors
/// None that is known: memory does not fail.
pub fn search_bytes(
    bytes: &[u8],
    query: &Query,
    shown: &dyn Fn(&str) -> String,
) -> io::Result<Found> {
    search_in(&mut io::Cursor::new(bytes), query, shown)
}

fn search_in<S: Read + Seek>(
    log: &mut S,
    query: &Query,
    shown: &dyn Fn(&str) -> String,
) -> io::Result<Found> {
    let log_bytes = log.seek(SeekFrom::End(0))?;
    let end = query.before.unwrap_or(log_bytes).min(log_bytes);
    let mut back = Backwards::new(log, end, u64::MAX).until(query.deadline);
    let mut results = Results::new(query);
    let mut searched_from = end;
    let mut stopped = None;
    while stopped.is_none() {
        if Instant::now() >= query.deadline && searched_from < end {
            stopped = Some("the time was up");
            break;
        }
        let Some(block) = back.next(BLOCK)? else {
            break;
        };
        let mut folded = Folded::default();
        let mut folder = Folder::new();
        folder.left_out(block.left_out);
        folder.push(&block.bytes, &mut |line| folded.add(line));
        folder.finish(&mut |line| folded.add(line));
        let text = shown(&folded.text);
        for (line, text) in folded.lines.iter().rev().zip(text.rsplit('\n')) {
            stopped = results.take(text, line.repeated);
            if stopped.is_some() {
                break;
            }
            searched_from = block.start + line.start;
        }
        if stopped.is_none() {
            searched_from = block.start;
        }
    }
    let note = stopped.map(|why| {
        format!(
            "The search stopped because {why}: the last {} of the log were searched, which is {} long.",
            size(log_bytes - searched_from),
            size(log_bytes)
        )
    });
    let Results { out, matches, .. } = results;
    let mut lines: Vec<String> = out;
    // A separator at the very front separates nothing.
    lines.reverse();
    Ok(Found {
        lines: lines.len(),
        text: lines.join("\n"),
        matches,
        complete: stopped.is_none(),
        searched_from,
        log_bytes,
        note,
    })
}

/// The folded lines of a block.
#[derive(Default)]
struct Folded {
    /// The lines, with a line end between each two.
    text: String,
    lines: Vec<FoldedLine>,
}

struct FoldedLine {
    repeated: u64,
    start: u64,
}

impl Folded {
    fn add(&mut self, line: Line<'_>) {
        if !self.lines.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(line.text);
        self.lines.push(FoldedLine {
            repeated: line.repeated,
            start: line.start,
        });
    }
}

/// Picks what to show from lines that come newest first.
struct Results<'q> {
    query: &'q Query,
    /// What is shown, newest first.
    out: Vec<String>,
    bytes: usize,
    matches: usize,
    /// The lines that came last and are not shown, as they follow on an older match: newest first.
    recent: VecDeque<(String, u64)>,
    /// Lines are missing between what is shown and the recent ones.
    gap: bool,
    /// How many lines are still to be shown because they stand before a match.
    owed: usize,
}

impl<'q> Results<'q> {
    fn new(query: &'q Query) -> Self {
        Self {
            query,
            out: Vec::new(),
            bytes: 0,
            matches: 0,
            recent: VecDeque::new(),
            gap: false,
            owed: 0,
        }
    }

    /// Takes the next older line; says why, when it is one too many.
    fn take(&mut self, text: &str, repeated: u64) -> Option<&'static str> {
        let context = self.query.context;
        // So that even one line of any length fits.
        let text = keep_end(text, self.query.max_bytes / 2);
        if self.query.pattern.0.is_match(text) {
            if self.matches >= self.query.max_matches {
                return Some("there are as many matches as were asked for");
            }
            let mut lines: Vec<String> = Vec::new();
            if context > 0 && self.gap && self.matches > 0 {
                lines.push("--".to_owned());
            }
            for (text, repeated) in &self.recent {
                shown("  ", text, *repeated, &mut lines);
            }
            shown(
                if context > 0 { "> " } else { "" },
                text,
                repeated,
                &mut lines,
            );
            if !self.fits(&lines) {
                return Some("max_bytes was reached");
            }
            self.out.append(&mut lines);
            self.recent.clear();
            self.gap = false;
            self.matches += 1;
            self.owed = context;
        } else if self.owed > 0 {
            let mut lines: Vec<String> = Vec::new();
            shown("  ", text, repeated, &mut lines);
            if !self.fits(&lines) {
                return Some("max_bytes was reached");
            }
            self.out.append(&mut lines);
            self.owed -= 1;
        } else if context > 0 {
            self.recent.push_back((text.to_owned(), repeated));
            if self.recent.len() > context {
                self.recent.pop_front();
                self.gap = true;
            }
        }
        None
    }

    fn fits(&mut self, lines: &[String]) -> bool {
        let more: usize = lines.iter().map(|line| line.len() + 1).sum();
        let fits = self.bytes + more <= self.query.max_bytes;
        if fits {
            self.bytes += more;
        }
        fits
    }
}

/// Adds a line as it is shown, and how often it was repeated: newest first, so before it.
fn shown(mark: &str, text: &str, repeated: u64, lines: &mut Vec<String>) {
    if repeated > 0 {
        let blank = if mark.is_empty() { "" } else { "  " };
        let times = if repeated == 1 { "time" } else { "times" };
        lines.push(format!("{blank}… repeated {repeated} {times}"));
    }
    lines.push(format!("{mark}{text}"));
}
