//! The search for metrics in a log as it grows.

mod bars;
mod stamps;
mod table;

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::SystemTime;

use memchr::{memchr, memchr3, memmem, memrchr3};

use super::health::Health;
use super::history::History;
use super::links::Links;
use super::metrics::{Metrics, Report};
use super::tqdm::Bar;
use super::{Activity, Progress};
use crate::text;
use bars::Bars;
use stamps::Stamps;
use table::Table;

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
    table: Table,
    stamps: Stamps,
    links: Links,
}

impl Scanner {
    /// Reads on. The pieces may be cut anywhere.
    pub fn push(&mut self, mut bytes: &[u8]) {
        if !self.rest.is_empty()
            && let Some(end) = memchr3(b'\n', b'\r', 8, bytes)
        {
            let (first, after) = bytes.split_at(end + 1);
            self.rest.extend_from_slice(first);
            let whole = std::mem::take(&mut self.rest);
            self.read_segments(&whole);
            bytes = after;
        }
        let end = memrchr3(b'\n', b'\r', 8, bytes).map_or(0, |last| last + 1);
        let (whole, rest) = bytes.split_at(end);
        self.read_segments(whole);
        self.rest.extend_from_slice(rest);
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
    pub(crate) fn read(&self, written: SystemTime) -> (Option<Progress>, Cow<'_, History>) {
        if !matches!(self.rest.trim_ascii_end().last(), Some(b']' | b'}')) {
            return (self.progress(written), Cow::Borrowed(&self.history));
        }
        let mut ahead = self.clone();
        ahead.read_segments(&self.rest);
        (ahead.progress(written), Cow::Owned(ahead.history))
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
        let measured_at = written.checked_sub(self.stamps.since_metrics());
        let mut progress = Progress::new(metrics, source, measured_at.unwrap_or(written));
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
        let Some(hits) = HITS.as_ref() else { return };
        let mut at = 0;
        let mut metrics_end = None;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let is_open = self.dictionary.is_some() || self.block.is_some() || self.table.is_open();
            let found = if is_open { None } else { hits.find(rest) };
            if found.is_none() && !is_open {
                break;
            }
            let hit = found.map_or(0, |found| found.start());
            let (before, after) = rest.split_at(hit);
            let start = memrchr3(b'\n', b'\r', 8, before).map_or(0, |end| end + 1);
            let end = hit + memchr3(b'\n', b'\r', 8, after).unwrap_or(after.len());
            let is_found = self.read_segment(rest.get(start..end).unwrap_or_default());
            at += end + 1;
            if is_found {
                metrics_end = Some(at - 1);
            }
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
        let text = match memchr(0x1b, segment) {
            Some(_) => Cow::Owned(text::strip_escapes(&text).into_owned()),
            None => text,
        };
        let text = without_rank(text.trim_end());
        if text.is_empty() {
            self.bar_cleared |= !segment.is_empty();
            return false;
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
        let brace = memchr(b'{', text.as_bytes()).unwrap_or(text.len());
        let (before, after) = text.split_at(brace);
        match Bar::parse(before) {
            Some(bar) => {
                let is_found = self.bar(&bar, is_nested);
                (!after.is_empty() && self.read_text(after)) || is_found
            }
            None => self.read_text(text),
        }
    }

    /// Reads a text that is no bar: a line, or dictionaries with what stands before them.
    fn read_text(&mut self, text: &str) -> bool {
        let mut is_found = false;
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
                is_found |= report.is_training() && self.report(report, METRICS, true);
                rest = &started[length..];
            } else if started.len() < MAX_DICTIONARY && !started.contains('}') {
                self.dictionary = Some(started.to_owned());
                return is_found;
            } else {
                rest = &started[1..];
            }
        }
        (rest.len() == text.len() && self.read_line(text)) || is_found
    }

    /// Reads a line that is no bar and has no dictionary.
    fn read_line(&mut self, line: &str) -> bool {
        if line.contains("Starting training...") || line.contains("***** Running training *****") {
            self.start_training();
            return false;
        }
        if line.contains("***** Running Evaluation") || line.contains("***** Running Prediction") {
            let what = "evaluation";
            self.activity = Some(Activity {
                what,
                ..Activity::default()
            });
            return false;
        }
        if let Some((_, speed)) = line.split_once("Avg generation throughput: ") {
            self.requests.tokens_per_second = super::grammar::number(speed).map(|(speed, _)| speed);
            return true;
        }
        let mut report = Report::default();
        // `***** train metrics *****` heads the means of the run.
        report.is_config = line.contains("***** ") && line.contains(" metrics *****");
        if report.is_config {
            self.block = Some((report, MAX_BLOCK));
            return false;
        }
        if !self.table.read(line, &mut report) {
            report.add_line(line);
        }
        // xgboost and LightGBM begin so: `[10]	train-logloss:0.35`.
        let after_bracket = line.strip_prefix('[').unwrap_or_default();
        if let Some((round, _)) = after_bracket.split_once("]\t") {
            report.add("step", round, "");
        }
        let starts_with_count = super::grammar::count(line).is_some();
        let has_figure = report.has_figure();
        if let Some((mut head, lines)) = self.block.take().filter(|(_, lines)| *lines > 0) {
            let is_part = line.starts_with([' ', '\t']) || starts_with_count;
            if is_part && report.metrics.step.is_none() {
                head.add_block_line(line);
                report = head.clone();
            }
            self.block = Some((head, lines - 1));
        }
        if report.is_training() {
            return self.report(report, LINES, has_figure);
        }
        let is_head = line.ends_with(|c: char| c.is_ascii_digit() || "]:".contains(c));
        if report.has_count() && is_head {
            self.block = Some((report, MAX_BLOCK));
        } else {
            self.bars.announced_total = report.metrics.total_steps.or(self.bars.announced_total);
        }
        false
    }

    /// Forgets the metrics of an earlier training in the same log. Its losses stay until their steps come again.
    fn start_training(&mut self) {
        *self = Self {
            history: std::mem::take(&mut self.history),
            requests: std::mem::take(&mut self.requests),
            rest: std::mem::take(&mut self.rest),
            stamps: std::mem::take(&mut self.stamps),
            ..Self::default()
        };
        self.bars.training_started = true;
    }

    /// Takes over what a trainer has printed. Its figures are new unless they belong to a line before.
    fn report(&mut self, mut report: Report, source: &'static str, is_new: bool) -> bool {
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
        true
    }
}

/// The ranks and hosts that `torchrun`, `mpirun`, `srun` and `pdsh` put before a line: `[rank0]: `, `[1,0]<stdout>:`, `0: `,
/// `node-1: `.
static RANKS: LazyLock<Option<regex::Regex>> = LazyLock::new(|| {
    let bracketed = r"\[(?:rank|default)?[0-9,:]+\](?:<stdout>)?(?:<stderr>)?:";
    let plain = r" *(?:rank ?)?[0-9]+: |[A-Za-z0-9._-]*[0-9][A-Za-z0-9._-]*: ";
    regex::Regex::new(&format!("^(?:{bracketed}|{plain})+")).ok()
});

fn without_rank(line: &str) -> &str {
    let ranks = RANKS.as_ref().and_then(|ranks| ranks.find(line));
    &line[ranks.map_or(0, |ranks| ranks.end())..]
}

/// Marks what may be metrics: one search for all, many times faster than reading each line.
static HITS: LazyLock<Option<regex::bytes::Regex>> = LazyLock::new(|| {
    regex::bytes::Regex::new(
        r#"%\||it \[|\{['"]|[lL]oss|LOSS|[rR]eward|[eE]poch|(?:[sS]tep|[bB]atch|[iI]ter(?:ation)?)[ :=\[]+[0-9]+ ?/| metrics \*\*\*|throughput|SamplesPerSec|skipped=|per.iteration|Running |Starting training|otal (?:training |optimization )?steps|max_steps|  \r"#,
    )
    .ok()
});
