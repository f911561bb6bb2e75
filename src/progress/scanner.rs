//! The search for metrics in a log as it grows.

mod bars;

use std::sync::LazyLock;
use std::time::SystemTime;

use memchr::memrchr3;
use regex::bytes::Regex;

use super::grammar::{count, number};
use super::health::Health;
use super::history::History;
use super::links::Links;
use super::metrics::{Metrics, Report};
use super::tqdm::Bar;
use super::{Activity, Progress};
use crate::text;
use crate::text::patterns::Patterns;
use bars::Bars;

/// Of a longer segment, the end is read.
const MAX_SEGMENT: usize = 64 * 1024;

/// The longest dictionary that is put together from several lines.
const MAX_DICTIONARY: usize = 8 * 1024;

/// The most braces of a segment that are tried, so that a hostile one costs no more than its length.
const MAX_BRACES: usize = 32;

/// The most lines that belong to a head such as `[step=10/1000]`.
const MAX_BLOCK: usize = 100;

const METRICS: &str = "the trainer's metrics in the log";
const LINES: &str = "the trainer's own log lines";
pub(super) const REQUESTS: &str = "the log (requests)";

/// Finds metrics in a raw log. Folded text would not do: the states of a bar that are drawn over are needed too.
#[derive(Debug, Clone, Default)]
pub struct Scanner {
    metrics: Metrics,
    history: History,
    health: Health,
    source: Option<&'static str>,
    /// The progress of inference or an evaluation, for a log without a training.
    requests: Metrics,
    /// What runs beside the training.
    activity: Option<Activity>,
    bars: Bars,
    /// The step of the newest loss.
    loss_step: Option<u64>,
    /// The trainer prints the step itself.
    prints_steps: bool,
    /// The newest loss came without its step, and the bar is drawn anew after it: its next state tells the step.
    step_pending: bool,
    /// The bar was cleared, for a text to be printed in its place.
    bar_cleared: bool,
    first_epoch: Option<f64>,
    /// The unfinished end of the input.
    rest: Vec<u8>,
    /// A dictionary that goes on on the next line.
    dictionary: Option<String>,
    /// The counts of a head such as `[step=10/1000,epoch=0]`, and the lines that may still belong to it.
    block: Option<(Report, usize)>,
    links: Links,
}

impl Scanner {
    /// Reads on. The pieces may be cut anywhere.
    pub fn push(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let end = memrchr3(b'\n', b'\r', 8, &self.rest).map_or(0, |last| last + 1);
        let mut whole = std::mem::take(&mut self.rest);
        self.rest = whole.split_off(end);
        self.read_segments(&whole);
        if self.rest.len() > MAX_SEGMENT {
            let excess = self.rest.len() - MAX_SEGMENT / 2;
            self.rest.drain(..excess);
        }
    }

    /// Marks a gap: the next piece does not continue the last one.
    pub(super) fn skip(&mut self) {
        self.rest.clear();
        self.dictionary = None;
        self.block = None;
    }

    /// The progress so far, and the losses. `written` is the time of the last write to the log. The newest state of a bar
    /// has no end until the next one is drawn: it is read if it looks whole, and read again when it has its end.
    pub(crate) fn read(&self, written: SystemTime) -> (Option<Progress>, History) {
        let mut ahead = self.clone();
        if matches!(self.rest.trim_ascii_end().last(), Some(b']' | b'}')) {
            ahead.read_segments(&self.rest);
        }
        (ahead.progress(written), ahead.history)
    }

    fn progress(&self, written: SystemTime) -> Option<Progress> {
        let (metrics, source) = match self.source {
            Some(source) => (&self.metrics, source),
            None if self.requests != Metrics::default() => (&self.requests, REQUESTS),
            None => return None,
        };
        let mut metrics = metrics.clone();
        let left = metrics.total_steps.zip(metrics.step);
        let left = left.and_then(|(total, step)| total.checked_sub(step));
        if metrics.seconds_left.is_none()
            && let Some((left, speed)) = left.zip(metrics.steps_per_second)
        {
            metrics.seconds_left = Some(left as f64 / speed);
        }
        // After the last step come an evaluation and the saving of the model, which nobody has measured.
        if left == Some(0) || (self.activity.is_some() && self.source.is_some()) {
            metrics.seconds_left = None;
        }
        metrics.loss_step = self.loss_step.filter(|step| Some(*step) != metrics.step);
        let mut progress = Progress::new(metrics, source, written);
        progress.bad_news = self.health.bad_news();
        progress.activity.clone_from(&self.activity);
        Some(progress)
    }

    pub fn history(&self) -> &History {
        &self.history
    }

    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    /// Reads the segments between line ends, carriage returns and backspaces that may hold metrics.
    fn read_segments(&mut self, bytes: &[u8]) {
        self.links.read(bytes);
        let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r' | 8);
        for segment in bytes.split_inclusive(is_end) {
            let is_open = self.dictionary.is_some() || self.block.is_some();
            // A bar that was wiped.
            let is_blank = || segment.ends_with(b"  \r") && segment.trim_ascii().is_empty();
            if is_open || is_hit(segment) || is_blank() {
                let whole = segment.split_last().filter(|(last, _)| is_end(last));
                self.read_segment(whole.map_or(segment, |(_, text)| text));
            }
        }
    }

    fn read_segment(&mut self, segment: &[u8]) {
        let excess = segment.len().saturating_sub(MAX_SEGMENT);
        let segment = String::from_utf8_lossy(&segment[excess..]);
        let (_, segment) = text::split_skypilot_prefix(&segment);
        let is_nested = segment.contains("\x1b[A");
        let text = text::strip_escapes(segment);
        let text = text.trim_end();
        let text = &text[RANKS.find(text).map_or(0, |ranks| ranks.end())..];
        if text.is_empty() {
            self.bar_cleared |= !segment.is_empty();
            return;
        }
        if let Some(mut started) = self.dictionary.take()
            && !text.starts_with("{'")
        {
            // Bars are drawn between the lines of a dictionary.
            if !text.contains("%|") {
                started.push(' ');
                started.push_str(text);
                return self.read_text(&started);
            }
            self.dictionary = Some(started);
        }
        let (before, after) = text.split_at(text.find('{').unwrap_or(text.len()));
        match Bar::parse(before) {
            Some(bar) => {
                self.bar(&bar, is_nested);
                self.read_text(after);
            }
            None => self.read_text(text),
        }
    }

    /// Reads a text that is no bar: a line, or dictionaries with what stands before them.
    fn read_text(&mut self, text: &str) {
        let mut rest = text;
        for _ in 0..MAX_BRACES {
            let quoted = |(at, _): &(usize, &str)| rest[at + 1..].starts_with(['\'', '"']);
            let Some((brace, _)) = rest.match_indices('{').find(quoted) else {
                break;
            };
            let (before, started) = rest.split_at(brace);
            let mut report = Report::default();
            report.add_line(before);
            if let Some(length) = report.add_dictionary(started, before) {
                if report.is_training() {
                    self.report(report, METRICS, true);
                }
                rest = &started[length..];
            } else if started.len() < MAX_DICTIONARY && !started.contains('}') {
                self.dictionary = Some(started.to_owned());
                return;
            } else {
                rest = &started[1..];
            }
        }
        if rest.len() == text.len() {
            self.read_line(text);
        }
    }

    /// Reads a line that is no bar and has no dictionary.
    fn read_line(&mut self, line: &str) {
        if line.contains("Starting training...") || line.contains("***** Running training *****") {
            return self.start_training();
        }
        if line.contains("***** Running Evaluation") || line.contains("***** Running Prediction") {
            let what = "evaluation";
            let activity = Activity {
                what,
                ..Activity::default()
            };
            return self.activity = Some(activity);
        }
        if let Some((_, speed)) = line.split_once("Avg generation throughput: ") {
            self.requests.tokens_per_second = number(speed).map(|(speed, _)| speed);
            return;
        }
        let mut report = Report::default();
        // `***** train metrics *****` heads the means of the run.
        report.is_config = line.contains("***** ") && line.contains(" metrics *****");
        if report.is_config {
            self.block = Some((report, MAX_BLOCK));
            return;
        }
        report.add_line(line);
        let is_part = line.starts_with([' ', '\t']) || count(line).is_some();
        let has_figure = report.has_figure();
        if let Some((mut head, lines)) = self.block.take().filter(|(_, lines)| *lines > 0) {
            if is_part && report.metrics.step.is_none() {
                head.add_block_line(line);
                report = head.clone();
            }
            self.block = Some((head, lines - 1));
        }
        if report.is_training() {
            return self.report(report, LINES, has_figure);
        }
        let head = line.trim_end_matches(['=', '-', '*', ' ']);
        let is_head = head.ends_with(|c: char| c.is_ascii_digit() || "]:".contains(c));
        if report.has_count() && is_head {
            self.block = Some((report, MAX_BLOCK));
        } else {
            self.bars.announced_total = report.metrics.total_steps.or(self.bars.announced_total);
        }
    }

    /// Forgets the metrics of an earlier training in the same log. Its losses stay until their steps come again.
    fn start_training(&mut self) {
        *self = Self {
            history: std::mem::take(&mut self.history),
            requests: std::mem::take(&mut self.requests),
            rest: std::mem::take(&mut self.rest),
            links: std::mem::take(&mut self.links),
            ..Self::default()
        };
        self.bars.training_started = true;
    }

    /// Takes over what a trainer has printed. Its figures are new unless they belong to a line before.
    fn report(&mut self, mut report: Report, source: &'static str, is_new: bool) {
        if let Some(epoch) = report.metrics.epoch {
            self.first_epoch.get_or_insert(epoch);
        }
        report.resolve(self.first_epoch);
        let is_of_training = report.is_loss();
        let mut metrics = report.metrics;
        self.source = Some(source);
        self.activity = None;
        self.bars.training_ended |= report.is_summary;
        self.prints_steps |= metrics.step.is_some();
        if is_of_training {
            self.bind_bar(metrics.step);
        }
        // An evaluation is of the newest step. A loss without its step is of that of the bar.
        let is_at_newest =
            metrics.eval_loss.is_some() || (self.bars.has_training_bar() && !self.prints_steps);
        if metrics.step.is_none() && is_at_newest {
            metrics.step = self.metrics.step;
        }
        self.step_pending = std::mem::take(&mut self.bar_cleared)
            && is_of_training
            && !self.prints_steps
            && metrics.step.is_some();
        if is_new {
            self.history.push(&metrics);
        }
        self.health.update(&metrics);
        if metrics.step != self.metrics.step || metrics.steps_per_second.is_some() {
            // The remaining time that the bar gave belongs to another step.
            self.metrics.seconds_left = None;
        }
        if is_of_training {
            if metrics.step.is_none() || metrics.step != self.loss_step {
                self.metrics.forget_report();
            }
            self.loss_step = metrics.step;
        }
        if metrics.total_steps.is_none() && self.metrics.total_steps.is_none() {
            let announced = self.bars.announced_total;
            metrics.total_steps = announced.filter(|total| Some(*total) >= metrics.step);
        }
        self.metrics.update(metrics);
    }
}

/// The ranks and hosts that `torchrun`, `mpirun`, `srun` and `pdsh` put before a line: `[rank0]: `, `[1,0]<stdout>:`, `0: `,
/// `node-1: `.
static RANKS: LazyLock<Patterns> = LazyLock::new(|| {
    let bracketed = r"\[(?:rank|default)?[\d,:]+\](?:<stdout>)?(?:<stderr>)?:";
    Patterns::new(&format!(
        r"^(?:{bracketed}| *(?:rank ?)?\d+: |[\w.-]*\d[\w.-]*: )+"
    ))
});

/// Marks what may be metrics, many times faster than reading it.
static HITS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r#"%\||it \[|\{['"]|[lL]oss|LOSS|[rR]eward|[eE]poch|(?:[sS]tep|[bB]atch|[iI]ter(?:ation)?)[ :=\[]+[0-9]+ ?/| metrics \*\*\*|throughput|SamplesPerSec|skipped=|per.iteration|Running |Starting training|otal (?:training |optimization )?steps|max_steps"#,
    )
    .ok()
});

fn is_hit(segment: &[u8]) -> bool {
    HITS.as_ref().is_some_and(|hits| hits.is_match(segment))
}
