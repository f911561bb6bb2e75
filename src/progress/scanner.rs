//! The search for metrics in a log as it grows.

mod bars;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;
use std::time::SystemTime;

use memchr::{memchr, memchr3, memrchr3};
use regex::bytes::Regex;

use super::grammar::{dictionary_start, number};
use super::health::bad_news;
use super::history::History;
use super::links::Links;
use super::metrics::{Count, Metrics, Report};
use super::names::Kind;
use super::tqdm::Bar;
use super::{Activity, Progress};
use crate::text::patterns::Patterns;
use crate::text::{SKYPILOT_PID, lossy, strip_escapes};
use bars::Bars;

/// Of a longer segment, the end is read.
const MAX_SEGMENT: usize = 64 * 1024;

/// The longest dictionary that is put together from several lines.
const MAX_DICTIONARY: usize = 8 * 1024;

/// The most forms of reports that are told apart, and the reports with growing counts that make a form certain.
const MAX_FORMS: usize = 8;
const CERTAIN: usize = 5;

/// The most lines that belong to a head such as `[step=10/1000]`.
const MAX_BLOCK: usize = 100;

/// Finds metrics in a raw log. Folded text would not do: the states of a bar that are drawn over are needed too.
#[derive(Debug, Clone, Default)]
pub struct Scanner {
    /// The metrics of the training, or until it has printed any those of inference or an evaluation.
    metrics: Metrics,
    pub history: History,
    activity: Option<Activity>,
    bars: Bars,
    is_training: bool,
    loss_step: Option<u64>,
    prints_steps: bool,
    /// The newest loss came without its step, and the bar is drawn anew after it: its next state tells the step.
    step_pending: bool,
    /// The bar was cleared, for a text to be printed in its place.
    bar_cleared: bool,
    first_epoch: Option<f64>,
    counts_in_epoch: bool,
    /// The unfinished end of the input.
    rest: Vec<u8>,
    /// The forms of the reports, each with its highest count, and how often that grew.
    forms: Vec<(String, Count, usize)>,
    /// A dictionary that goes on on the next line.
    dictionary: Option<String>,
    /// The counts of a head such as `[step=10/1000,epoch=0]`, and the lines that may still belong to it.
    block: Option<(Report, usize)>,
    pub(crate) links: Links,
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

    /// Reads ahead: the newest state of a bar has no end until the next one is drawn. It is read if it looks whole, and read
    /// again when it has its end.
    pub(crate) fn ahead(&self) -> Cow<'_, Self> {
        let mut ahead = Cow::Borrowed(self);
        if matches!(self.rest.trim_ascii_end().last(), Some(b']' | b'}')) {
            ahead.to_mut().read_segments(&self.rest);
        }
        ahead
    }

    /// The progress so far; `written` is the time of the last write to the log.
    pub(crate) fn progress(&self, written: SystemTime) -> Option<Progress> {
        let mut metrics = self.metrics.clone();
        if !self.is_training && metrics == Metrics::default() {
            return None;
        }
        // A total that is behind the step is of something else.
        metrics.total_steps = metrics.total_steps.filter(|all| Some(*all) >= metrics.step);
        let left = metrics.total_steps.zip(metrics.step);
        let left = left.and_then(|(total, step)| total.checked_sub(step));
        let speed = left.zip(metrics.steps_per_second);
        let at_speed = speed.map(|(left, speed)| left as f64 / speed);
        metrics.seconds_left = metrics.seconds_left.or(at_speed);
        // After the training come an evaluation and the saving of the model, which nobody has measured.
        let is_over = left == Some(0) || self.bars.training_ended;
        if is_over || (self.activity.is_some() && self.is_training) {
            metrics.seconds_left = None;
        }
        metrics.loss_step = self.loss_step.filter(|step| Some(*step) != metrics.step);
        Some(Progress {
            metrics,
            is_training: self.is_training,
            measured_at: Some(written),
            bad_news: bad_news(&self.history),
            activity: self.activity.clone(),
            ..Progress::default()
        })
    }

    /// Reads the segments between line ends, carriage returns and backspaces that may hold metrics.
    fn read_segments(&mut self, bytes: &[u8]) {
        self.links.read(bytes);
        let mut at = 0;
        while at < bytes.len() {
            let is_hit = matches!(bytes[at..], [b'{', b'\'' | b'"', ..]);
            if !is_hit && self.dictionary.is_none() && self.block.is_none() {
                let hit = |hits: &Regex| hits.shortest_match_at(bytes, at);
                let Some(hit) = HITS.as_ref().and_then(hit) else {
                    return;
                };
                let before = &bytes[at..hit - 1];
                at += memrchr3(b'\n', b'\r', 8, before).map_or(0, |end| end + 1);
            }
            let rest = &bytes[at..];
            let length = memchr3(b'\n', b'\r', 8, rest).unwrap_or(rest.len());
            self.read_segment(&rest[..length]);
            at += length + 1;
        }
    }

    fn read_segment(&mut self, segment: &[u8]) {
        let excess = segment.len().saturating_sub(MAX_SEGMENT);
        let segment = lossy(&segment[excess..]);
        let has_escapes = memchr(0x1b, segment.as_bytes()).is_some();
        let text = match has_escapes {
            true => strip_escapes(&segment),
            false => Cow::Borrowed(&*segment),
        };
        let prefix = may_have_prefix(&text).then(|| PREFIXES.find(&text));
        let text = text[prefix.flatten().map_or(0, |all| all.end)..].trim_ascii_end();
        if text.is_empty() {
            self.bar_cleared |= segment.ends_with("  ");
            return;
        }
        self.dictionary.take_if(|_| text.starts_with("{'"));
        let brace = memchr(b'{', text.as_bytes());
        let (before, after) = text.split_at(brace.unwrap_or(text.len()));
        if let Some(bar) = Bar::parse(before) {
            // Bars are drawn between the lines of a dictionary.
            self.bar(&bar, has_escapes && segment.contains("\x1b[A"));
            if !after.is_empty() {
                self.read_text(after);
            }
        } else if let Some(started) = self.dictionary.take() {
            self.read_text(&format!("{started} {text}"));
        } else {
            self.read_text(text);
        }
    }

    /// Reads a text that is no bar: a line, or dictionaries with what stands before them.
    fn read_text(&mut self, mut text: &str) {
        while let Some(end) = memchr(b'}', text.as_bytes())
            && let next = text[end + 1..].trim_ascii_start()
            && next.starts_with('{')
        {
            self.read_line(&text[..=end]);
            text = next;
        }
        let dictionary = dictionary_start(text);
        let is_open =
            dictionary.is_some_and(|start| memchr(b'}', &text.as_bytes()[start..]).is_none());
        if is_open && text.len() < MAX_DICTIONARY {
            self.dictionary = Some(text.to_owned());
        } else if !text.is_empty() {
            self.read_line(text);
        }
    }

    /// Reads a line that is no bar.
    fn read_line(&mut self, line: &str) {
        let mut report = Report::default();
        // Most lines have none of the letters that a mark begins with.
        if memchr3(b'*', b'A', b'S', line.as_bytes()).is_some()
            && let Some(Range { start, end }) = MARKS.find(line)
            && (!line.starts_with('{') || line[start..].starts_with("Avg"))
        {
            match &line[start..end] {
                "Starting training..." | "***** Running training *****" => self.start_training(),
                "***** Running Evaluation" | "***** Running Prediction" => {
                    let what = "evaluation";
                    self.activity = Some(Activity {
                        what,
                        ..Activity::default()
                    });
                }
                "Avg generation throughput: " => {
                    if !self.is_training {
                        let speed = number(&line[end..]);
                        self.metrics.tokens_per_second = speed.map(|(speed, _)| speed);
                    }
                }
                // `***** train metrics *****` heads the means of the run.
                _ => {
                    report.marks.push(Kind::Setting);
                    self.block = Some((report, MAX_BLOCK));
                }
            }
            return;
        }
        report.add_line(line);
        let is_new = report.has_figure();
        if self.block.is_some()
            && let Some((mut head, lines)) = self.block.take().filter(|(_, lines)| *lines > 0)
        {
            let is_count = number(line).is_some_and(|(_, rest)| rest.starts_with('/'));
            let is_part = line.starts_with([' ', '\t']) || is_count;
            if is_part && report.metrics.step.is_none() {
                head.add_block_line(line);
                report = head.clone();
            }
            self.block = Some((head, lines - 1));
        }
        if report.is_training() {
            if self.is_own(&report) {
                self.report(&mut report, is_new);
            }
            return;
        }
        let head = line.trim_end_matches(['=', '-', '*', ' ']);
        let is_head = head.ends_with(|c: char| c.is_ascii_digit() || "]:".contains(c));
        if report.has_count() && is_head && !report.has(Kind::Evidence) {
            self.block = Some((report, MAX_BLOCK));
        } else if dictionary_start(line).is_none() && report.metrics.step.is_none() {
            self.bars.announced_total = report.metrics.total_steps.or(self.bars.announced_total);
        }
    }

    /// Tells if a report is the trainer's, and not of a text that a model has written: in those of a trainer the count grows.
    fn is_own(&mut self, report: &Report) -> bool {
        let is_of_step = report.is_loss() && report.metrics.eval_loss.is_none();
        if !is_of_step || self.bars.training_ended {
            return true;
        }
        let at = self.forms.iter().position(|it| it.0 == report.form);
        let known = at.map(|at| self.forms.remove(at));
        let new = || (report.form.clone(), (None, None), 0);
        let (form, mut highest, mut grown) = known.unwrap_or_else(new);
        let count = report.count();
        if form == "{" {
            grown = CERTAIN;
        } else if !report.has_count() || count > highest {
            (highest, grown) = (count, grown + 1);
        }
        let best = self.forms.iter().map(|it| it.2.min(CERTAIN)).max();
        self.forms.truncate(MAX_FORMS - 1);
        self.forms.insert(0, (form, highest, grown));
        Some(grown) >= best
    }

    /// Forgets the metrics of an earlier training in the same log. Its losses stay until their steps come again.
    fn start_training(&mut self) {
        *self = Self {
            history: std::mem::take(&mut self.history),
            metrics: match self.is_training {
                true => Metrics::default(),
                false => std::mem::take(&mut self.metrics),
            },
            rest: std::mem::take(&mut self.rest),
            links: std::mem::take(&mut self.links),
            ..Self::default()
        };
        self.history.run += 1;
        self.bars.training_started = true;
    }

    /// Forgets what else the log has shown: the training prints its own metrics.
    fn train(&mut self) {
        if !std::mem::replace(&mut self.is_training, true) {
            self.metrics = Metrics::default();
        }
        self.activity = None;
    }

    /// Takes over what a trainer has printed. Its figures are new unless they belong to a line before.
    fn report(&mut self, report: &mut Report, is_new: bool) {
        let of = &mut report.metrics;
        let is_of_step = of.step.is_some() || of.learning_rate.or(of.grad_norm).is_some();
        if self.bars.training_ended && !is_of_step && report.has(Kind::Evaluation) {
            let loss = report.metrics.loss.take();
            report.metrics.eval_loss = report.metrics.eval_loss.or(loss);
        }
        let is_of_training = report.is_loss();
        let epochs = report.metrics.epoch.zip(self.metrics.epoch);
        let begins_anew = epochs.is_none_or(|(new, old)| new < old);
        if is_of_training && self.bars.training_ended && begins_anew && !report.has(Kind::Runtime) {
            // Another training, which nothing has announced; another node may print its last loss after the summary.
            self.start_training();
        }
        if let Some(epoch) = report.metrics.epoch {
            self.first_epoch.get_or_insert(epoch);
        }
        report.resolve(self.first_epoch, &mut self.counts_in_epoch);
        self.bars.training_ended |= report.has(Kind::Runtime);
        let metrics = &mut report.metrics;
        self.train();
        self.prints_steps |= metrics.step.is_some();
        if is_of_training {
            self.bind_bar(metrics.step);
        }
        // An evaluation is of the newest step. A loss without its step is of that of the bar.
        let has_bars_step = self.bars.training.is_some() && !self.prints_steps;
        if metrics.step.is_none() && (has_bars_step || metrics.eval_loss.is_some()) {
            metrics.step = self.metrics.step;
        }
        self.step_pending = std::mem::take(&mut self.bar_cleared)
            && is_of_training
            && !self.prints_steps
            && metrics.step.is_some();
        if is_new || metrics.step.is_some() {
            self.history.push(metrics);
        } else {
            self.history.add_grad_norm(metrics.grad_norm);
        }
        if metrics.eval_loss.is_some() && !is_of_training {
            // An evaluation that runs beside the training is of an earlier step.
            metrics.step = metrics.step.max(self.metrics.step);
        }
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

/// The hosts, ranks and times that SkyPilot, `torchrun`, `mpirun`, `srun`, `pdsh`, syslog and others put before a line:
/// `(train, pid=12) `, `[rank0]: `, `[1,0]<stdout>:`, `0: `, `node-1: `, `2026-01-02T10:00:00.5Z `, with `stderr F ` in the log of a
/// container, `Jan  2 10:00:00 node-1 oumi[12]: `.
static PREFIXES: LazyLock<Patterns> = LazyLock::new(|| {
    let bracketed = r"\[(?:rank|default)?[\d,:]+\](?:<stdout>)?(?:<stderr>)?:";
    let rank = r" *(?:rank ?)?\d+: ";
    let time = r" *\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[\d.,:+Z-]*\]? (?:std(?:out|err) [FP] )?";
    let syslog = format!(r"(?:[A-Z][a-z][a-z] [ \d]\d [\d:]{{8}} |{time})[\w.-]+ [\w.-]+\[\d+\]: ");
    Patterns::new(&format!(
        r"^(?:{SKYPILOT_PID} )?(?:{bracketed}|{rank}|{syslog}|{time}|[\w.-]*\d[\w.-]*: )*"
    ))
});

/// Tells most lines without such a prefix, at a glance: the word that they begin with ends in no colon, and in no blank before a
/// time.
fn may_have_prefix(line: &str) -> bool {
    let line = line.trim_ascii_start();
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let behind = line.trim_start_matches(is_word).as_bytes();
    matches!(
        behind,
        [b':', ..] | [b' ', b'0'..=b'3', ..] | [b' ', b' ', b'1'..=b'9', b' ', ..]
    ) || line.starts_with(['(', '[', 'r'])
}

/// The lines that tell what begins, and their like.
static MARKS: LazyLock<Patterns> = LazyLock::new(|| {
    Patterns::new(
        r"Avg generation throughput: |Starting training\.\.\.|\*{5} Running training \*{5}|\*{5} Running (?:Evaluation|Prediction)|\*{5} .* metrics \*{5}",
    )
});

/// Marks what may be metrics, and a bar that was wiped, many times faster than reading it.
static HITS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r#"%\||it \[|\{['"]|[lL]oss|LOSS|[rR]eward|[eE]poch|(?:[sS]tep|[bB]atch|[iI]ter(?:ation)?)[ :=\[]+[0-9]+ ?/| metrics \*\*\*|throughput|SamplesPerSec|skipped=|per.iteration|Running |Starting training|otal (?:training |optimization )?steps|max_steps|(?mR:^)  +\r"#,
    )
    .ok()
});
