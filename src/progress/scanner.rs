//! The search for metrics in a log as it grows.

mod bars;
mod stamps;

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::SystemTime;

use memchr::{memchr2, memmem, memrchr2};

use super::Progress;
use super::history::History;
use super::metrics::Metrics;
use super::tqdm::{Bar, BarState};
use crate::text;
use bars::Bars;
use stamps::Stamps;

/// Of a longer segment, the end is read.
const MAX_SEGMENT: usize = 64 * 1024;

/// The longest dictionary that is put together from several lines.
const MAX_DICTIONARY: usize = 8 * 1024;

/// The most braces of a segment that are tried, so that a hostile one costs no more than its length.
const MAX_BRACES: usize = 32;

const METRICS: &str = "the trainer's metrics in the log";
const LINES: &str = "the trainer's own log lines";

/// Finds metrics in a raw log. Folded text would not do: the states of a bar that are drawn over are needed too.
#[derive(Debug, Clone, Default)]
pub struct Scanner {
    metrics: Metrics,
    history: History,
    source: Option<&'static str>,
    /// The progress of inference or an evaluation, for a log without a training.
    requests: Metrics,
    bars: Bars,
    /// The trainer prints the step itself.
    prints_steps: bool,
    /// The newest loss came without its step, and the bar may be late: its next state tells the step.
    step_pending: bool,
    /// The unfinished end of the input.
    rest: Vec<u8>,
    rest_was_read: bool,
    /// A dictionary that goes on on the next line.
    dictionary: Option<String>,
    /// The metrics under a head such as `[step=10/1000,epoch=0]`, one to an indented line.
    block: Option<Metrics>,
    stamps: Stamps,
}

impl Scanner {
    /// Reads on. The pieces may be cut anywhere.
    pub fn push(&mut self, mut bytes: &[u8]) {
        if !self.rest.is_empty() {
            let Some(end) = memchr2(b'\n', b'\r', bytes) else {
                self.keep(bytes);
                return;
            };
            let (first, after) = bytes.split_at(end + 1);
            self.rest.extend_from_slice(first);
            let whole = std::mem::take(&mut self.rest);
            if !(self.rest_was_read && end == 0) {
                self.read_segments(&whole);
            }
            bytes = after;
        }
        let end = memrchr2(b'\n', b'\r', bytes).map_or(0, |last| last + 1);
        let (whole, rest) = bytes.split_at(end);
        self.read_segments(whole);
        self.keep(rest);
    }

    /// Marks a gap: the next piece does not continue the last one.
    pub(super) fn skip(&mut self) {
        self.rest.clear();
        self.dictionary = None;
        self.block = None;
    }

    /// The progress so far. `written` is the time of the last write to the log.
    pub(crate) fn progress(&self, written: SystemTime) -> Option<Progress> {
        let (metrics, source) = match self.source {
            Some(source) => (&self.metrics, source),
            None if self.requests != Metrics::default() => (&self.requests, "the log (requests)"),
            None => return None,
        };
        let mut metrics = metrics.clone();
        if metrics.seconds_left.is_none()
            && let (Some(step), Some(total), Some(speed)) =
                (metrics.step, metrics.total_steps, metrics.steps_per_second)
        {
            metrics.seconds_left = total.checked_sub(step).map(|steps| steps as f64 / speed);
        }
        let measured_at = written.checked_sub(self.stamps.since_metrics());
        Some(Progress::new(
            metrics,
            source,
            measured_at.unwrap_or(written),
        ))
    }

    pub fn history(&self) -> &History {
        &self.history
    }

    pub(crate) fn into_history(self) -> History {
        self.history
    }

    /// Keeps the end of the input until it goes on, and reads it at once if it looks whole: the newest state of a bar has
    /// no end until the next one is drawn.
    fn keep(&mut self, rest: &[u8]) {
        self.rest.extend_from_slice(rest);
        if self.rest.len() > MAX_SEGMENT {
            let excess = self.rest.len() - MAX_SEGMENT / 2;
            self.rest.drain(..excess);
        }
        self.rest_was_read = matches!(self.rest.trim_ascii_end().last(), Some(b']' | b'}'));
        if self.rest_was_read {
            let rest = std::mem::take(&mut self.rest);
            self.read_segments(&rest);
            self.rest = rest;
        }
    }

    /// Reads the segments between line ends and carriage returns that may hold metrics.
    fn read_segments(&mut self, bytes: &[u8]) {
        let Some(hits) = HITS.as_ref() else { return };
        let mut at = 0;
        let mut metrics_end = None;
        // Of the states of one bar in a row, the first and the last are read.
        let (mut last_bar, mut skipped) = (None::<BarState<'_>>, None);
        while at < bytes.len() {
            let rest = bytes.get(at..).unwrap_or_default();
            let is_open = self.dictionary.is_some() || self.block.is_some();
            let hit = match hits.find(rest) {
                _ if is_open => 0,
                Some(found) => found.start(),
                None => break,
            };
            let (before, after) = rest.split_at(hit);
            let start = memrchr2(b'\n', b'\r', before).map_or(0, |end| end + 1);
            let end = hit + memchr2(b'\n', b'\r', after).unwrap_or(after.len());
            let segment = rest.get(start..end).unwrap_or_default();
            let end = at + end;
            at = end + 1;
            // Each loss that a bar carries is a point of the history.
            let bar = BarState::parse(segment).filter(|bar| !bar.has_metrics && !is_open);
            if bar.is_some_and(|bar| bar.is_nested && bar.label.is_empty()) {
                continue;
            }
            let earlier = std::mem::replace(&mut last_bar, bar);
            if bar
                .zip(earlier)
                .is_some_and(|(bar, earlier)| bar.continues(&earlier))
            {
                skipped = Some((segment, end));
                continue;
            }
            for (segment, end) in skipped.take().into_iter().chain([(segment, end)]) {
                if self.read_segment(segment) {
                    metrics_end = Some(end);
                }
            }
        }
        if let Some((segment, end)) = skipped
            && self.read_segment(segment)
        {
            metrics_end = Some(end);
        }
        let has_metrics = self.source.is_some() || self.requests != Metrics::default();
        self.stamps.read(bytes, metrics_end, has_metrics);
    }

    /// Reads a segment, and returns whether there were metrics in it.
    fn read_segment(&mut self, segment: &[u8]) -> bool {
        let excess = segment.len().saturating_sub(MAX_SEGMENT);
        let segment = segment.get(excess..).unwrap_or_default();
        let prefix = text::skypilot_prefix_length(segment);
        let segment = segment.get(prefix..).unwrap_or_default();
        let is_nested = memmem::find(segment, b"\x1b[A").is_some();
        let text = text::lossy(segment);
        let text = match memchr::memchr(0x1b, segment) {
            Some(_) => Cow::Owned(text::strip_escapes(&text).into_owned()),
            None => text,
        };
        let text = without_rank(text.trim_end());
        if let Some(mut started) = self.dictionary.take()
            && !text.starts_with("{'")
        {
            // Bars are drawn between the lines of a dictionary.
            if !text.contains("%|") {
                started.push(' ');
                started.push_str(text);
                return self.read_dictionaries(&started);
            }
            self.dictionary = Some(started);
        }
        let brace = memchr::memchr(b'{', text.as_bytes()).unwrap_or(text.len());
        let (before, after) = text.split_at(brace);
        let bar = Bar::parse(before);
        let mut found = bar.as_ref().is_some_and(|bar| self.bar(bar, is_nested));
        if !after.is_empty() {
            found |= self.read_dictionaries(after);
        } else if bar.is_none() {
            found |= self.read_line(text);
        }
        found
    }

    /// Reads a line that is no bar and has no dictionary.
    fn read_line(&mut self, line: &str) -> bool {
        let is_indented = line.starts_with([' ', '\t']);
        if let Some(mut metrics) = self.block.take()
            && is_indented
        {
            metrics.add_line(line);
            let is_training = metrics.is_training();
            if is_training {
                self.report(metrics.clone(), LINES);
            }
            self.block = Some(metrics);
            return is_training;
        }
        if line.contains("Starting training...") || line.contains("***** Running training *****") {
            self.start_training();
            return false;
        }
        if let Some((_, speed)) = line.split_once("Avg generation throughput: ") {
            self.requests.tokens_per_second = super::grammar::number(speed).map(|(speed, _)| speed);
            return true;
        }
        let mut metrics = Metrics::default();
        metrics.add_line(line);
        if metrics.is_training() {
            self.report(metrics, LINES);
            return true;
        }
        if metrics.step.is_some() && line.trim_end_matches(':').ends_with(']') {
            self.block = Some(metrics);
        } else {
            self.bars.announced_total = metrics.total_steps.or(self.bars.announced_total);
        }
        false
    }

    /// Forgets the metrics of an earlier training in the same log. Its losses stay until their steps come again.
    fn start_training(&mut self) {
        self.metrics = Metrics::default();
        self.source = None;
        self.prints_steps = false;
        self.step_pending = false;
        self.bars = Bars::default();
        self.bars.training_started = true;
    }

    fn read_dictionaries(&mut self, text: &str) -> bool {
        let mut found = false;
        let mut rest = text;
        for _ in 0..MAX_BRACES {
            let Some(start) = rest.find('{') else { break };
            let started = &rest[start..];
            match Metrics::from_dictionary(started) {
                Some((metrics, length)) => {
                    if metrics.is_training() {
                        self.report(metrics, METRICS);
                        found = true;
                    }
                    rest = &started[length..];
                }
                None => {
                    let is_one = matches!(started.as_bytes().get(1), Some(b'\'' | b'"'));
                    if is_one && started.len() < MAX_DICTIONARY && !started.contains('}') {
                        self.dictionary = Some(started.to_owned());
                        return found;
                    }
                    rest = &started[1..];
                }
            }
        }
        found
    }

    /// Takes over the metrics that a trainer has printed.
    fn report(&mut self, mut metrics: Metrics, source: &'static str) {
        self.source = Some(source);
        self.prints_steps |= metrics.step.is_some();
        if metrics.loss.is_some() {
            self.bind_bar(metrics.step);
        }
        // An evaluation is of the newest step. A loss without its step is of that of the bar.
        let is_at_newest =
            metrics.eval_loss.is_some() || (self.bars.has_training_bar() && !self.prints_steps);
        if metrics.step.is_none() && is_at_newest {
            metrics.step = self.metrics.step;
        }
        self.step_pending = metrics.loss.is_some() && !self.prints_steps && metrics.step.is_some();
        self.history.push(&metrics);
        if metrics.is_summary {
            let is_done = metrics.step.is_some() && self.metrics.total_steps == metrics.step;
            metrics.seconds_left = is_done.then_some(0.0);
        } else if metrics.step != self.metrics.step || metrics.steps_per_second.is_some() {
            // The remaining time that the bar gave belongs to another step.
            self.metrics.seconds_left = None;
        }
        self.metrics.update(metrics);
    }
}

/// A line without the rank that `torchrun`, `mpirun` and `srun` put before it: `[rank0]: `, `[1,0]<stdout>:`, `0: `.
fn without_rank(line: &str) -> &str {
    let is_rank = |text: &str| {
        let rank = text
            .trim_start_matches("rank")
            .trim_start_matches("default");
        !rank.is_empty() && rank.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b','))
    };
    let bracketed = || {
        let (rank, rest) = line.strip_prefix('[')?.split_once(']')?;
        let rest = rest
            .trim_start_matches("<stdout>")
            .trim_start_matches("<stderr>");
        rest.strip_prefix(':').filter(|_| is_rank(rank))
    };
    let plain = || {
        let (rank, rest) = line.split_once(": ")?;
        is_rank(rank.trim_start()).then_some(rest)
    };
    bracketed().or_else(plain).unwrap_or(line)
}

/// Marks what may be metrics: one search for all, many times faster than reading each line.
static HITS: LazyLock<Option<regex::bytes::Regex>> = LazyLock::new(|| {
    regex::bytes::Regex::new(
        r#"%\||it \[|\{['"]|[lL]oss|\[(?:global_step|step|batch|iter|epoch)=|throughput|SamplesPerSec|skipped=|Starting training|Running training|otal steps|optimization steps"#,
    )
    .ok()
});
