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
use crate::error::JobError;
use crate::text::shorten;

/// The bytes that are read and folded between two checks of the deadline.
const BLOCK: u64 = 1024 * 1024;

/// The most memory that a compiled pattern may take, in bytes.
const LARGEST_PATTERN: usize = 256 * 1024;

/// A search.
#[derive(Debug, Clone)]
pub struct Query {
    pub pattern: Regex,
    /// The lines to give before and after each match.
    pub context: usize,
    /// The most matching lines that are given: the newest.
    pub max_matches: usize,
    /// The deadline of the search.
    pub deadline: Instant,
}

/// Compiles a pattern that is safe to search with: whatever it is, the time it takes is linear in the log.
pub(crate) fn compile(pattern: &str) -> Result<Regex, JobError> {
    if pattern.is_empty() {
        return Err(JobError::invalid(
            "grep is empty: give a regular expression",
        ));
    }
    let mut builder = RegexBuilder::new(pattern);
    builder.size_limit(LARGEST_PATTERN);
    builder.dfa_size_limit(4 * LARGEST_PATTERN);
    builder.build().map_err(|error| {
        let text = error.to_string();
        let reason = match error {
            regex::Error::CompiledTooBig(_) => "it is too large",
            _ => text.lines().last().unwrap_or_default(),
        };
        let reason = reason.strip_prefix("error: ").unwrap_or(reason);
        JobError::invalid(format!(
            "grep={:?} is not a regular expression that can be searched for: {reason}. Put a backslash before a character that stands for itself, as in `loss\\(`.",
            shorten(pattern, 80)
        ))
    })
}

impl Query {
    /// A search for `pattern`, without context, for the newest 100 matches.
    pub(crate) fn new(pattern: &str, deadline: Instant) -> Result<Self, JobError> {
        Ok(Self {
            pattern: compile(pattern)?,
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
    let mut matches = Matches::default();
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
                matches.take(line, repeats.take(), query, options.max_bytes)
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
    let text = matches.text(query);
    Ok(Excerpt {
        matches: Some(matches.count),
        reaches_start: stopped.is_none(),
        truncated: stopped.is_some(),
        notes: note.into_iter().collect(),
        lines: text.lines().count(),
        text,
        cursor,
        log_bytes,
        ..Excerpt::default()
    })
}

/// The lines of the answer, picked from lines that come newest first.
#[derive(Default)]
struct Matches {
    /// The picked lines, newest first, with their numbers from the end of the log, and their bytes.
    picked: Vec<(usize, String)>,
    bytes: usize,
    count: usize,
    /// The lines that came last and were not picked, newest first, and their bytes: context if an older match comes.
    recent: VecDeque<(usize, String)>,
    recent_bytes: usize,
    /// The number of the line that came last.
    at: usize,
    /// Lines before a match that are still to be picked.
    context_left: usize,
}

impl Matches {
    /// Takes the next older line, and the note of its repeats; returns why the search stops when there is no room for it.
    fn take(
        &mut self,
        line: &str,
        repeats: Option<&str>,
        query: &Query,
        max_bytes: usize,
    ) -> Option<&'static str> {
        self.at += 1;
        let is_match = query.pattern.is_match(line);
        let (mark, blank, gap) = match query.context {
            0 => ("", "", 0),
            _ if is_match => ("> ", "  ", "--\n".len()),
            _ => ("  ", "  ", 0),
        };
        let repeats = repeats.map(|repeats| format!("\n{blank}{repeats}"));
        let line = format!("{mark}{line}{}", repeats.unwrap_or_default());
        if !is_match && self.context_left == 0 {
            // As many as the context has, and the answer has room for.
            self.recent_bytes += line.len() + 1;
            self.recent.push_back((self.at, line));
            while self.recent.len() > query.context || self.recent_bytes > max_bytes {
                self.drop_recent();
            }
            return None;
        }
        if is_match && self.count >= query.max_matches {
            return Some("there are as many matches as requested");
        }
        let bytes = self.bytes + line.len() + 1 + gap;
        // The farthest lines of the context are left out where all of it has no room.
        while bytes + self.recent_bytes > max_bytes && self.drop_recent() {}
        if bytes > max_bytes {
            return Some("max_bytes was reached");
        }
        self.bytes = bytes + std::mem::take(&mut self.recent_bytes);
        self.picked.extend(self.recent.drain(..));
        self.picked.push((self.at, line));
        if is_match {
            self.count += 1;
            self.context_left = query.context;
        } else {
            self.context_left -= 1;
        }
        None
    }

    /// Joins the lines of the answer in the order of the log.
    fn text(&self, query: &Query) -> String {
        let (mut lines, mut above) = (Vec::new(), None);
        for (at, line) in self.picked.iter().rev() {
            let has_gap = above.is_some_and(|above| above != at + 1);
            lines.extend((has_gap && query.context > 0).then_some("--"));
            lines.push(line);
            above = Some(*at);
        }
        lines.join("\n")
    }

    fn drop_recent(&mut self) -> bool {
        let newest = self.recent.pop_front();
        self.recent_bytes -= newest.as_ref().map_or(0, |(_, line)| line.len() + 1);
        newest.is_some()
    }
}
