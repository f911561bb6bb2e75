//! Lines of a log that match a regular expression, with the lines around them. The search runs from the end, newest first,
//! within a deadline.
//!
//! It matches folded lines with secrets hidden, so that a pattern cannot find out a secret. Lines are folded in blocks of
//! about a MiB: where two blocks meet, a run of repeated lines counts as two.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use regex::{Regex, RegexBuilder};

use super::Log;
use super::cursor::Cursor;
use super::fold::{FoldOptions, fold_pieces, repeat_note};
use super::read::{Lines, ReadOptions, end_cursor, keep_end, size};
use super::source::ReverseReader;
use crate::text::shorten;

/// The bytes that are read and folded between two checks of the deadline.
const BLOCK: u64 = 1024 * 1024;

/// The most memory that a compiled pattern may take, in bytes.
const LARGEST_PATTERN: usize = 1024 * 1024;

/// A search.
#[derive(Debug, Clone)]
pub struct Query {
    pub pattern: Pattern,
    /// The lines to give before and after each match.
    pub context: usize,
    /// The most matching lines that are given: the newest.
    pub max_matches: usize,
    /// The deadline of the search.
    pub deadline: Instant,
    /// The position from which the search goes backwards: the [`SearchResult::searched_from`] of an earlier search. `None` is the end.
    pub before: Option<u64>,
}

/// A regular expression that is safe to search with: whatever it is, the time it takes is linear in the log.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    pub fn parse(pattern: &str) -> Result<Self, InvalidPattern> {
        if pattern.is_empty() {
            return Err(InvalidPattern(
                "grep is empty: give a regular expression".into(),
            ));
        }
        RegexBuilder::new(pattern)
            .size_limit(LARGEST_PATTERN)
            .dfa_size_limit(4 * LARGEST_PATTERN)
            .build()
            .map(Self)
            .map_err(|error| InvalidPattern::new(pattern, &error))
    }
}

/// The pattern cannot be searched for; the text says why, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPattern(String);

impl InvalidPattern {
    fn new(pattern: &str, error: &regex::Error) -> Self {
        let text = error.to_string();
        let reason = match error {
            regex::Error::CompiledTooBig(_) => "it is too large",
            _ => text.lines().last().unwrap_or_default(),
        };
        let reason = reason.strip_prefix("error: ").unwrap_or(reason);
        Self(format!(
            "grep={:?} is not a regular expression that can be searched for: {reason}. Put a backslash before a character that stands for itself, as in `loss\\(`.",
            shorten(pattern, 80)
        ))
    }
}

/// The lines that were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchResult {
    /// The lines, in the order of the log, joined by line ends. With context, matching lines begin with `> ` and the others
    /// with two blanks, and `--` stands between lines that do not follow on each other.
    pub text: String,
    /// Number of lines in the text.
    pub lines: usize,
    /// Number of them that match.
    pub matches: usize,
    /// The whole log was searched, or all of it before [`Query::before`].
    pub complete: bool,
    /// Offset at which the searched part begins, and from which another search can go on backwards.
    pub searched_from: u64,
    /// The end of the log, from where new text can be read.
    pub cursor: Cursor,
    /// A sentence for the reader, if not everything was searched.
    pub note: Option<String>,
}

impl Query {
    /// A search for `pattern`, without context, for the newest 100 matches.
    pub fn new(pattern: &str, deadline: Instant) -> Result<Self, InvalidPattern> {
        Ok(Self {
            pattern: Pattern::parse(pattern)?,
            context: 0,
            max_matches: 100,
            deadline,
            before: None,
        })
    }
}

/// Searches a log, without its unfinished line: that may end in half a secret.
pub fn search(
    log: &mut Log<'_>,
    query: &Query,
    options: ReadOptions<'_>,
) -> io::Result<SearchResult> {
    let cursor = end_cursor(log, options)?;
    let log_bytes = log.end;
    let end = query.before.unwrap_or(log_bytes).min(cursor.offset());
    let mut reader = ReverseReader::new(log, end, u64::MAX, Some(query.deadline));
    let mut matches = Matches::new(query, options.max_bytes);
    let mut searched_from = end;
    let mut stopped = None;
    while stopped.is_none() {
        if Instant::now() >= query.deadline && searched_from < end {
            stopped = Some("the time was up");
            break;
        }
        let Some(block) = reader.next(BLOCK)? else {
            break;
        };
        let mut lines = Lines::default();
        let pieces = [block.as_piece()];
        fold_pieces(pieces, FoldOptions::default(), &mut |line| {
            lines.push(&line);
        });
        let text = (options.redact)(&lines.text);
        for (row, text) in lines.rows.iter().rev().zip(text.rsplit('\n')) {
            stopped = matches.take(text, row.repeated);
            if stopped.is_some() {
                break;
            }
            searched_from = row.start;
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
    let Matches { mut out, count, .. } = matches;
    out.reverse();
    Ok(SearchResult {
        lines: out.len(),
        text: out.join("\n"),
        matches: count,
        complete: stopped.is_none(),
        searched_from,
        cursor,
        note,
    })
}

/// Picks the lines of the answer from lines that come newest first.
struct Matches<'q> {
    query: &'q Query,
    max_bytes: usize,
    /// The picked lines, newest first.
    out: Vec<String>,
    bytes: usize,
    count: usize,
    /// The lines that came last and were not picked, newest first: context if an older match comes.
    recent: VecDeque<Vec<String>>,
    /// Lines are missing between those picked and the recent ones.
    has_gap: bool,
    /// Lines before a match that are still to be picked.
    context_left: usize,
}

impl<'q> Matches<'q> {
    fn new(query: &'q Query, max_bytes: usize) -> Self {
        Self {
            query,
            max_bytes,
            out: Vec::new(),
            bytes: 0,
            count: 0,
            recent: VecDeque::new(),
            has_gap: false,
            context_left: 0,
        }
    }

    /// Takes the next older line; returns why the search stops when there is no room for it.
    fn take(&mut self, text: &str, repeated: u64) -> Option<&'static str> {
        let context = self.query.context;
        // So that even one line of any length fits.
        let text = keep_end(text, self.max_bytes / 2);
        let is_match = self.query.pattern.0.is_match(text);
        let mut lines = Vec::new();
        if is_match {
            if self.count >= self.query.max_matches {
                return Some("there are as many matches as requested");
            }
            if self.has_gap && self.count > 0 {
                lines.push("--".to_owned());
            }
            lines.extend(self.recent.drain(..).flatten());
            lines.extend(marked(if context > 0 { "> " } else { "" }, text, repeated));
        } else if self.context_left > 0 {
            lines = marked("  ", text, repeated);
        } else {
            if context > 0 {
                self.recent.push_back(marked("  ", text, repeated));
            }
            if self.recent.len() > context {
                self.recent.pop_front();
                self.has_gap = true;
            }
            return None;
        }
        self.bytes += lines.iter().map(|line| line.len() + 1).sum::<usize>();
        if self.bytes > self.max_bytes {
            return Some("max_bytes was reached");
        }
        self.out.append(&mut lines);
        if is_match {
            self.count += 1;
            self.has_gap = false;
            self.context_left = context;
        } else {
            self.context_left -= 1;
        }
        None
    }
}

/// Formats a line with its mark, and how often it was repeated: newest first, so before it.
fn marked(mark: &str, text: &str, repeated: u64) -> Vec<String> {
    let blank = if mark.is_empty() { "" } else { "  " };
    let repeats = (repeated > 0).then(|| format!("{blank}{}", repeat_note(repeated)));
    repeats
        .into_iter()
        .chain([format!("{mark}{text}")])
        .collect()
}
