//! Finds figures in a log as it grows.

mod bars;
mod segments;

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::SystemTime;

use chrono::NaiveDateTime;
use memchr::{memchr2, memmem, memrchr2};

use super::Progress;
use super::figures::{Figures, Kind};
use super::history::History;
use super::lines;
use super::tqdm::{Bar, BarState};
use crate::logs::fold::{fold, lossy};
use bars::{BarKey, Candidate};
use segments::{Last, first_stamp, last_stamp, without_coloured_prefix, without_prefix};

/// Of a segment that is longer, the end is looked at.
const LONGEST_SEGMENT: usize = 64 * 1024;

/// A dictionary that is printed over several lines is put together up to this length.
const LONGEST_DICTIONARY: usize = 8 * 1024;

/// The most braces of a segment that are looked at, so that a hostile one costs no more than its length.
const MOST_DICTIONARIES: usize = 32;

/// Finds figures in a log as it grows. It is given the raw log, not folded text, since of a bar that is drawn over it needs
/// the earlier states too.
#[derive(Debug, Clone, Default)]
pub struct Scanner {
    figures: Figures,
    history: History,
    source: Option<&'static str>,
    /// What inference or an evaluation says, in case there is no training.
    requests: Figures,
    training_bar: Option<BarKey>,
    candidates: Vec<Candidate>,
    /// A training has begun, and its bar has not come yet.
    begun: bool,
    announced_total: Option<u64>,
    /// The trainer prints the step itself.
    step_printed: bool,
    /// The last loss came without its step, and the bar may have been drawn late: its next state tells.
    unsettled: bool,
    /// The end of the input, of which the end has not come.
    rest: Vec<u8>,
    /// That end has been read already.
    rest_read: bool,
    /// A dictionary that goes on on the next line.
    dictionary: Option<String>,
    /// The last time stamp in the log, and the first one after the newest figure.
    last_stamp: Option<NaiveDateTime>,
    stamp_after: Option<NaiveDateTime>,
}

impl Scanner {
    /// Reads on. The pieces may be cut anywhere.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        if !self.rest.is_empty() {
            let Some(end) = memchr2(b'\n', b'\r', bytes) else {
                self.keep(bytes);
                return;
            };
            let (first, after) = bytes.split_at(end + 1);
            self.rest.extend_from_slice(first);
            let whole = std::mem::take(&mut self.rest);
            if !(self.rest_read && end == 0) {
                self.whole(&whole);
            }
            bytes = after;
        }
        let end = memrchr2(b'\n', b'\r', bytes).map_or(0, |last| last + 1);
        let (whole, rest) = bytes.split_at(end);
        self.whole(whole);
        self.keep(rest);
    }

    /// Says that what comes next does not follow on what came last.
    pub fn skip(&mut self) {
        self.rest.clear();
        self.dictionary = None;
    }

    /// The progress so far. `written` is when the log was last written to.
    pub fn progress(&self, written: SystemTime) -> Option<Progress> {
        let since = self
            .stamp_after
            .zip(self.last_stamp)
            .and_then(|(after, last)| (last - after).to_std().ok())
            .unwrap_or_default();
        let measured_at = written.checked_sub(since).unwrap_or(written);
        let (figures, source) = match self.source {
            Some(source) => (self.figures.clone(), source),
            None if self.requests != Figures::default() => {
                (self.requests.clone(), "the log (requests)")
            }
            None => return None,
        };
        let mut figures = figures;
        if figures.seconds_left.is_none()
            && let (Some(step), Some(total), Some(speed)) =
                (figures.step, figures.total_steps, figures.steps_per_second)
        {
            figures.seconds_left = total.checked_sub(step).map(|steps| steps as f64 / speed);
        }
        let progress = Progress {
            figures,
            measured_at: None,
            source: source.to_owned(),
        };
        Some(progress.measured(measured_at))
    }

    /// The losses so far.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The losses, at the end.
    pub fn into_history(self) -> History {
        self.history
    }

    /// Keeps the end of the input until it goes on, and reads it already if it looks whole: the newest state of a bar has
    /// no end until the next one is drawn.
    fn keep(&mut self, rest: &[u8]) {
        self.rest.extend_from_slice(rest);
        if self.rest.len() > LONGEST_SEGMENT {
            let excess = self.rest.len() - LONGEST_SEGMENT / 2;
            self.rest.drain(..excess);
        }
        self.rest_read = matches!(self.rest.trim_ascii_end().last(), Some(b']' | b'}'));
        if self.rest_read {
            let rest = std::mem::take(&mut self.rest);
            self.whole(&rest);
            self.rest = rest;
        }
    }

    /// Reads segments: what stands between line ends and carriage returns. Only those that may hold something are looked
    /// at more closely.
    fn whole(&mut self, bytes: &[u8]) {
        let Some(hits) = HITS.as_ref() else { return };
        let mut at = 0;
        let mut figure_end = None;
        // Of the states of one bar that follow on each other the first and the last are looked at.
        let mut last: Option<Last<'_>> = None;
        while at < bytes.len() {
            let rest = bytes.get(at..).unwrap_or_default();
            let hit = match self.dictionary {
                Some(_) => 0,
                None => match hits.find(rest) {
                    Some(found) => found.start(),
                    None => break,
                },
            };
            let (before, after) = rest.split_at(hit);
            let start = memrchr2(b'\n', b'\r', before).map_or(0, |end| end + 1);
            let end = hit + memchr2(b'\n', b'\r', after).unwrap_or(after.len());
            let segment = rest.get(start..end).unwrap_or_default();
            let end = at + end;
            at = end + 1;
            let state = BarState::parse(segment)
                .filter(|state| !state.has_metrics && self.dictionary.is_none());
            if state
                .as_ref()
                .is_some_and(|state| state.is_nested && state.label.is_empty())
            {
                continue;
            }
            let same = last
                .as_ref()
                .and_then(|last| last.state.zip(state))
                .is_some_and(|(last, state)| state.continues(&last));
            if let Some(last) = last.filter(|last| last.skipped && !same)
                && self.segment(last.segment)
            {
                figure_end = Some(last.end);
            }
            if !same && self.segment(segment) {
                figure_end = Some(end);
            }
            last = Some(Last {
                segment,
                end,
                state,
                skipped: same,
            });
        }
        if let Some(last) = last.filter(|last| last.skipped)
            && self.segment(last.segment)
        {
            figure_end = Some(last.end);
        }
        self.stamps(bytes, figure_end);
    }

    fn stamps(&mut self, bytes: &[u8], figure_end: Option<usize>) {
        let from = figure_end.unwrap_or(0);
        if figure_end.is_some() {
            self.stamp_after = None;
        }
        let figures = self.source.is_some() || self.requests != Figures::default();
        if figures && self.stamp_after.is_none() {
            self.stamp_after = bytes.get(from..).and_then(first_stamp);
        }
        self.last_stamp = last_stamp(bytes).or(self.last_stamp);
    }

    /// Reads a segment; whether there were figures in it.
    fn segment(&mut self, segment: &[u8]) -> bool {
        let excess = segment.len().saturating_sub(LONGEST_SEGMENT);
        let segment = segment.get(excess..).unwrap_or_default();
        let segment = without_coloured_prefix(segment);
        let (text, nested) = match memchr::memchr(0x1b, segment) {
            Some(_) => {
                let nested = memmem::find(segment, b"\x1b[A").is_some();
                (Cow::Owned(fold(segment)), nested)
            }
            None => (lossy(segment), false),
        };
        let text = without_prefix(text.trim_end());
        if let Some(mut begun) = self.dictionary.take().filter(|_| !text.starts_with("{'")) {
            // Bars are drawn between the lines of it.
            if !text.contains("%|") {
                begun.push(' ');
                begun.push_str(text);
                return self.dictionaries(&begun);
            }
            self.dictionary = Some(begun);
        }
        let brace = memchr::memchr(b'{', text.as_bytes()).unwrap_or(text.len());
        let (before, after) = text.split_at(brace);
        let bar = match before {
            "" => None,
            before => Bar::parse(before),
        };
        let mut found = bar.as_ref().is_some_and(|bar| self.bar(bar, nested));
        if !after.is_empty() {
            found |= self.dictionaries(after);
        } else if bar.is_none() {
            found |= self.line(text);
        }
        found
    }

    /// Reads a line that is neither a bar nor has a dictionary.
    fn line(&mut self, text: &str) -> bool {
        if lines::begins_training(text) {
            self.begin();
        } else if let Some(total) = lines::announced_total(text) {
            self.announced_total = Some(total);
        } else if let Some((figures, kind)) = lines::figures(text) {
            self.said(figures, kind, "the trainer's own log lines");
            return true;
        } else if let Some(speed) = lines::generation_speed(text) {
            self.requests.tokens_per_second = Some(speed);
            return true;
        }
        false
    }

    /// Another training begins: what was said of the one before is past, all but its losses, which stay until their steps
    /// come again.
    fn begin(&mut self) {
        self.figures = Figures::default();
        self.source = None;
        self.step_printed = false;
        self.unsettled = false;
        self.announced_total = None;
        self.training_bar = None;
        self.candidates.clear();
        self.begun = true;
    }

    /// Reads the dictionaries in `text`.
    fn dictionaries(&mut self, text: &str) -> bool {
        let mut found = false;
        let mut rest = text;
        for _ in 0..MOST_DICTIONARIES {
            let Some(start) = rest.find('{') else { break };
            let begun = &rest[start..];
            match Figures::of_dictionary(begun) {
                Some((figures, kind, length)) => {
                    if kind.is_training() {
                        self.said(figures, kind, "the trainer's metrics in the log");
                        found = true;
                    }
                    rest = &begun[length..];
                }
                None => {
                    let is_one = matches!(begun.as_bytes().get(1), Some(b'\'' | b'"'));
                    if is_one && begun.len() < LONGEST_DICTIONARY && !begun.contains('}') {
                        self.dictionary = Some(begun.to_owned());
                        return found;
                    }
                    rest = &begun[1..];
                }
            }
        }
        found
    }

    /// Takes over what a trainer said.
    fn said(&mut self, mut figures: Figures, kind: Kind, source: &'static str) {
        self.source = Some(source);
        self.step_printed |= figures.step.is_some();
        if kind.loss {
            self.tie_bar(figures.step);
        }
        // An evaluation is of the step the training stands at. A loss without its step is of that of the bar.
        let stands_at = kind.eval_loss || (self.training_bar.is_some() && !self.step_printed);
        if figures.step.is_none() && stands_at {
            figures.step = self.figures.step;
        }
        let step = figures.step;
        self.unsettled = kind.loss && !self.step_printed && step.is_some();
        self.history.push(&figures);
        if kind.summary {
            figures.seconds_left = step
                .filter(|step| self.figures.total_steps == Some(*step))
                .map(|_| 0.0);
        } else if figures.step != self.figures.step || figures.steps_per_second.is_some() {
            // What the bar said of the time belongs to another step.
            self.figures.seconds_left = None;
        }
        self.figures.update(&figures);
    }
}

/// What may be worth a closer look. One search for all, many times faster than a look at each line.
static HITS: LazyLock<Option<regex::bytes::Regex>> = LazyLock::new(|| {
    regex::bytes::Regex::new(
        r#"%\||it \[|\{['"]|loss|throughput|SamplesPerSec|skipped=|Starting training|Running training|optimization steps"#,
    )
    .ok()
});
