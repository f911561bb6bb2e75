//! Lines of a log that match a regular expression, with the lines around them. The search runs from the end, newest first,
//! within a deadline.
//!
//! It matches folded lines with secrets hidden, so that a pattern cannot find out a secret. Lines are folded in blocks of
//! about a MiB: where two blocks meet, a run of repeated lines counts as two. The answer is bounded in time by the deadline,
//! which counts before each line, and in memory by its budget of bytes.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use indicatif::HumanBytes;
use regex::{Regex, RegexBuilder};

use super::Log;
use super::fold::{FoldOptions, MAX_LINE, cut, fold_lines};
use super::read::{Excerpt, ReadOptions, complete_part, join, place_in_log};
use crate::error::JobError;
use crate::text::shorten;

/// The bytes that are read and folded between two checks of the deadline.
const BLOCK: u64 = 1024 * 1024;
const LATE: &str = "the time was up";

/// The most lines of context on each side of a match, and what stands where lines are left out between two.
const MAX_CONTEXT: usize = 1000;
const GAP: &str = "--";

/// The most memory that a compiled pattern may take, in bytes.
const LARGEST_PATTERN: usize = 256 * 1024;

#[derive(Debug, Clone)]
pub struct Query {
    pub pattern: Regex,
    /// The lines to give before and after each match.
    pub context: usize,
    /// The most matching lines that are given: the newest.
    pub max_matches: usize,
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

/// Searches a log, without its unfinished line: that may end in half a secret. The text has the lines in the order of the log.
/// With context, matching lines begin with `> ` and the others with two blanks, and `--` stands between lines that do not
/// follow on each other.
pub fn search(log: &mut Log<'_>, query: &Query, options: ReadOptions) -> io::Result<Excerpt> {
    let (log_bytes, secrets) = (log.end, log.secrets);
    // Lines are matched whole, and cut to be shown.
    let fold = FoldOptions {
        is_summary: false,
        max_line: usize::MAX,
        ..options.fold(secrets)
    };
    let mut block = log.lines_before(log_bytes, BLOCK)?;
    let (complete, line) = complete_part(&block.bytes, options.ended, options.raw);
    let cursor = log.cursor_at(place_in_log(line, &block.bytes, block.start, log_bytes))?;
    block.bytes.truncate(complete);
    let (mut matches, mut searched, mut stopped) = (Matches::default(), 0, None);
    let is_late = || Instant::now() >= query.deadline;
    loop {
        let mut lines = Vec::new();
        fold_lines(&block.bytes, block.start, fold, &mut |line| {
            lines.push(line)
        });
        let notes: Vec<bool> = lines.iter().rev().map(|line| line.is_note).collect();
        let text = secrets.redact(&join(lines));
        let mut repeats = None;
        for (is_note, line) in notes.into_iter().zip(text.rsplit('\n')) {
            // A note belongs to the line before it.
            if is_note {
                repeats = Some(line);
                continue;
            }
            // Some of the end is searched in any case.
            stopped = if is_late() && searched >= MAX_LINE {
                Some(LATE)
            } else {
                matches.take(line, repeats.take(), query, options)
            };
            if stopped.is_some() {
                break;
            }
            searched += line.len() + 1;
        }
        // A block of equal lines has few to be looked at, one of blank lines none.
        stopped = stopped.or((block.start > 0 && is_late()).then_some(LATE));
        if stopped.is_some() || block.start == 0 {
            break;
        }
        block = log.lines_before(block.start, BLOCK)?;
    }
    let note = stopped.map(|why| how_far(why, log_bytes - block.start, log_bytes));
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

fn how_far(stopped: &str, searched: u64, all: u64) -> String {
    let (newest, all) = (HumanBytes(searched), HumanBytes(all));
    format!(
        "The search stopped because {stopped}: of the log, which is {all} long, no more than the last {newest} were searched."
    )
}

/// The lines of the answer, picked from lines that come newest first.
#[derive(Default)]
struct Matches {
    /// The picked lines, newest first, with their numbers from the end of the log, and their bytes.
    picked: Vec<(usize, String)>,
    bytes: usize,
    count: usize,
    /// The lines that came last and were not picked, newest first: context if an older match comes.
    recent: VecDeque<(usize, String)>,
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
        options: ReadOptions,
    ) -> Option<&'static str> {
        self.at += 1;
        let found = query.pattern.find(line).map(|found| found.range());
        let is_match = found.is_some();
        let line = cut(line, found, options.max_line());
        let (mark, blank) = match query.context {
            0 => ("", ""),
            _ if is_match => ("> ", "  "),
            _ => ("  ", "  "),
        };
        let repeats = repeats.map(|repeats| format!("\n{blank}{repeats}"));
        let line = format!("{mark}{line}{}", repeats.unwrap_or_default());
        if !is_match && self.context_left == 0 {
            self.recent.push_back((self.at, line));
            if self.recent.len() > query.context.min(MAX_CONTEXT) {
                self.recent.pop_front();
            }
            return None;
        }
        if is_match && self.count >= query.max_matches {
            return Some("there are as many matches as requested");
        }
        // The farthest lines of the context are left out where all of it has no room.
        let mut bytes: usize = self.recent.iter().map(|(_, line)| line.len() + 1).sum();
        let has_gap = is_match && query.context > 0;
        let gap = if has_gap { GAP.len() + 1 } else { 0 };
        bytes += self.bytes + line.len() + 1 + gap;
        while bytes > options.max_bytes
            && let Some((_, farthest)) = self.recent.pop_front()
        {
            bytes -= farthest.len() + 1;
        }
        if bytes > options.max_bytes {
            return Some("max_bytes was reached");
        }
        self.bytes = bytes;
        self.picked.extend(self.recent.drain(..));
        self.picked.push((self.at, line));
        if is_match {
            self.count += 1;
            self.context_left = query.context.min(MAX_CONTEXT);
        } else {
            self.context_left -= 1;
        }
        None
    }

    fn text(&self, query: &Query) -> String {
        let (mut lines, mut above) = (Vec::new(), None);
        for (at, line) in self.picked.iter().rev() {
            let has_gap = above.is_some_and(|above| above != at + 1);
            lines.extend((has_gap && query.context > 0).then_some(GAP));
            lines.push(line);
            above = Some(*at);
        }
        lines.join("\n")
    }
}
