//! Lines of a log that match a regular expression, with the lines around them. The search runs from the end, newest first,
//! within a deadline.
//!
//! It matches folded lines with secrets hidden, so that a pattern cannot find out a secret. Lines are folded in blocks of
//! about a MiB: where two blocks meet, a run of repeated lines counts as two. The answer is bounded in time by the deadline,
//! which counts before each line, and in memory by its budget of bytes.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use regex::{Regex, RegexBuilder};

use super::Log;
use super::fold::{FoldOptions, MAX_LINE, fold_pieces};
use super::read::{Excerpt, ReadOptions, end_cursor, size};
use crate::text::shorten;

/// The bytes that are read and folded between two checks of the deadline.
const BLOCK: u64 = 1024 * 1024;

/// The most memory that a compiled pattern may take, in bytes.
const LARGEST_PATTERN: usize = 256 * 1024;

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

    pub(crate) fn matches(&self, line: &str) -> bool {
        self.0.is_match(line)
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

impl Query {
    /// A search for `pattern`, without context, for the newest 100 matches.
    pub fn new(pattern: &str, deadline: Instant) -> Result<Self, InvalidPattern> {
        Ok(Self {
            pattern: Pattern::parse(pattern)?,
            context: 0,
            max_matches: 100,
            deadline,
        })
    }
}

/// Searches a log, without its unfinished line: that may end in half a secret. The text has the lines in the order of the log.
/// With context, matching lines begin with `> ` and the others with two blanks, and `--` stands between lines that do not
/// follow on each other.
pub fn search(log: &mut Log<'_>, query: &Query, options: ReadOptions) -> io::Result<Excerpt> {
    let cursor = end_cursor(log, options)?;
    let (log_bytes, secrets) = (log.end, log.secrets);
    let fold = FoldOptions {
        is_summary: false,
        ..options.fold(secrets, false)
    };
    let mut matches = Matches::new(query, options.max_bytes);
    let mut searched_from = cursor.offset();
    let mut stopped = None;
    while stopped.is_none() && searched_from > 0 {
        let block = log.lines_before(searched_from, BLOCK)?;
        let (mut texts, mut starts) = (Vec::new(), Vec::new());
        fold_pieces([block.as_piece()], fold, &mut |line| {
            // A note belongs to the line before it.
            starts.push(Some(line.start).filter(|_| !line.is_note));
            texts.push(line.text);
        });
        let text = secrets.redact(&texts.join("\n"));
        let mut repeats = None;
        for (start, line) in starts.iter().rev().zip(text.rsplit('\n')) {
            let Some(start) = start else {
                repeats = Some(line);
                continue;
            };
            // Some of the end is searched in any case.
            let is_end = cursor.offset() - searched_from < MAX_LINE as u64;
            stopped = if Instant::now() >= query.deadline && !is_end {
                Some("the time was up")
            } else {
                matches.take(line, repeats.take())
            };
            if stopped.is_some() {
                break;
            }
            searched_from = *start;
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
    matches.picked.reverse();
    let text = matches.picked.join("\n");
    Ok(Excerpt {
        matches: Some(matches.count),
        reaches_start: stopped.is_none(),
        truncated: stopped.is_some(),
        notes: note.into_iter().collect(),
        ..Excerpt::new(text, cursor, log_bytes)
    })
}

/// Picks the lines of the answer from lines that come newest first.
struct Matches<'q> {
    query: &'q Query,
    max_bytes: usize,
    /// The picked lines, newest first, and their bytes.
    picked: Vec<String>,
    bytes: usize,
    count: usize,
    /// The lines that came last and were not picked, newest first, and their bytes: context if an older match comes.
    recent: VecDeque<String>,
    recent_bytes: usize,
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
            picked: Vec::new(),
            bytes: 0,
            count: 0,
            recent: VecDeque::new(),
            recent_bytes: 0,
            has_gap: false,
            context_left: 0,
        }
    }

    /// Takes the next older line, and the note of its repeats; returns why the search stops when there is no room for it.
    fn take(&mut self, line: &str, repeats: Option<&str>) -> Option<&'static str> {
        let has_context = self.query.context > 0;
        let is_match = self.query.pattern.matches(line);
        let mark = match (has_context, is_match) {
            (false, _) => "",
            (true, true) => "> ",
            (true, false) => "  ",
        };
        let blank = if has_context { "  " } else { "" };
        let repeats = repeats.map(|repeats| format!("\n{blank}{repeats}"));
        let line = format!("{mark}{line}{}", repeats.unwrap_or_default());
        if !is_match && self.context_left == 0 {
            if has_context {
                self.keep_recent(line);
            }
            return None;
        }
        let before = self.picked.len();
        if is_match {
            if self.count >= self.query.max_matches {
                return Some("there are as many matches as requested");
            }
            // The farthest lines of the context are left out where all of it has no room.
            while self.bytes + self.recent_bytes + line.len() + 4 > self.max_bytes
                && self.drop_recent()
            {}
            if self.has_gap && self.count > 0 {
                self.pick("--".to_owned());
            }
            std::mem::take(&mut self.recent)
                .into_iter()
                .for_each(|line| self.pick(line));
            self.recent_bytes = 0;
        }
        self.pick(line);
        if self.bytes > self.max_bytes {
            // What a match brought is given with it or not at all.
            self.picked.truncate(before);
            return Some("max_bytes was reached");
        }
        if is_match {
            self.count += 1;
            self.has_gap = false;
            self.context_left = self.query.context;
        } else {
            self.context_left -= 1;
        }
        None
    }

    fn pick(&mut self, line: String) {
        self.bytes += line.len() + 1;
        self.picked.push(line);
    }

    /// Keeps as many lines as the context has, and the answer has room for.
    fn keep_recent(&mut self, line: String) {
        self.recent_bytes += line.len() + 1;
        self.recent.push_back(line);
        while self.recent.len() > self.query.context || self.recent_bytes > self.max_bytes {
            self.drop_recent();
        }
    }

    fn drop_recent(&mut self) -> bool {
        let newest = self.recent.pop_front();
        self.recent_bytes -= newest.as_ref().map_or(0, |line| line.len() + 1);
        self.has_gap |= newest.is_some();
        newest.is_some()
    }
}
