//! The training that a log shows: takes in its lines and its bars, one by one.

mod bars;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::SystemTime;

use memchr::memchr3;

use super::grammar::{dictionary_start, number};
use super::health::bad_news;
use super::history::History;
use super::metrics::{Count, Metrics, Report};
use super::names::Kind;
use super::{Activity, Progress};
use bars::Bars;

/// The most forms of reports that are told apart, and the reports with growing counts that make a form certain.
const MAX_FORMS: usize = 32;
const CERTAIN: usize = 5;

/// The most lines that belong to the head of a block.
const MAX_BLOCK: usize = 100;

#[derive(Debug, Clone, Default)]
pub(crate) struct Training {
    /// The metrics of the training; until it has printed any, those of inference or an evaluation.
    metrics: Metrics,
    pub(crate) history: History,
    activity: Option<Activity>,
    /// A training has printed metrics.
    is_training: bool,
    /// A training was announced whose bar has not come yet.
    has_started: bool,
    /// The training has printed its summary.
    has_ended: bool,
    announced_total: Option<u64>,
    /// The step of the newest loss.
    loss_step: Option<u64>,
    prints_steps: bool,
    first_epoch: Option<f64>,
    counts_in_epoch: bool,
    bars: Bars,
    /// The bar was cleared, for a text to be printed in its place.
    pub(super) bar_cleared: bool,
    /// The newest loss came without its step, and the bar is drawn anew after it: its next state tells the step.
    step_pending: bool,
    /// The forms of the reports so far, by the name of the first figure; of a dictionary by its brace.
    forms: BTreeMap<Cow<'static, str>, Form>,
    /// The report that a head such as `[step=10/1000,epoch=0]` begins, and how many lines may still belong to it.
    pub(super) block: Option<(Report, usize)>,
}

/// A form in which reports are printed: the highest count, and how often a report had a higher one than all before.
#[derive(Debug, Clone, Default)]
struct Form {
    highest: Count,
    grown: usize,
}

impl Training {
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
        // After the training come an evaluation and the saving of the model, which nobody has measured.
        let is_over = left == Some(0) || self.has_ended;
        if is_over || (self.activity.is_some() && self.is_training) {
            metrics.seconds_left = None;
        } else if let (Some(left), Some(speed)) = (left, metrics.steps_per_second) {
            metrics.seconds_left = metrics.seconds_left.or(Some(left as f64 / speed));
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

    /// Reads a line that is no bar.
    pub(super) fn read_line(&mut self, line: &str) {
        // Most lines have none of the letters that a mark begins with.
        if memchr3(b'*', b'A', b'S', line.as_bytes()).is_some() && self.read_mark(line) {
            return;
        }
        let mut report = Report::default();
        report.add_line(line);
        let is_new = report.has_figure();
        self.block.take_if(|(_, lines_left)| *lines_left == 0);
        if let Some((block, lines_left)) = &mut self.block {
            *lines_left -= 1;
            let is_count = number(line).is_some_and(|(_, rest)| rest.starts_with('/'));
            let is_part = line.starts_with([' ', '\t']) || is_count;
            if is_part && report.metrics.step.is_none() {
                // Its own count is newer than that of the head.
                let batch = block.batch.take();
                block.add_line(line);
                block.batch = block.batch.or(batch);
                report = block.clone();
            }
        }
        if report.is_training() {
            if self.is_from_trainer(&report) {
                self.add_report(report, is_new);
            }
        } else if report.has_count() && is_head(line) && !report.has(Kind::Evidence) {
            self.block = Some((report, MAX_BLOCK));
        } else if dictionary_start(line).is_none() && report.metrics.step.is_none() {
            self.announced_total = report.metrics.total_steps.or(self.announced_total);
        }
    }

    /// Reads a line that tells what begins, or the speed of vLLM; returns `false` for any other.
    fn read_mark(&mut self, line: &str) -> bool {
        let has = |mark: &str| line.contains(mark);
        if let Some((_, speed)) = line.split_once("Avg generation throughput: ") {
            if !self.is_training {
                self.metrics.tokens_per_second = number(speed).map(|(speed, _)| speed);
            }
        } else if line.starts_with('{') {
            // A text within a dictionary.
            return false;
        } else if has("Starting training...") || has("***** Running training *****") {
            self.start();
        } else if has("***** Running Evaluation") || has("***** Running Prediction") {
            self.activity = Some(Activity {
                what: "evaluation",
                ..Activity::default()
            });
        } else if has("***** ") && has(" metrics *****") {
            // `***** train metrics *****` heads the means of the run.
            let mut head = Report::default();
            head.marks.push(Kind::Setting);
            self.block = Some((head, MAX_BLOCK));
        } else {
            return false;
        }
        true
    }

    /// Tells if a report is the trainer's, and not of a text that a model has written: in those of a trainer the count grows.
    fn is_from_trainer(&mut self, report: &Report) -> bool {
        let is_of_step = report.is_loss() && report.metrics.eval_loss.is_none();
        if !is_of_step || self.has_ended {
            return true;
        }
        if self.forms.len() > MAX_FORMS {
            // A model may write any number of them; the trainer's is certain.
            self.forms.retain(|_, form| form.grown == CERTAIN);
        }
        if self.forms.len() > MAX_FORMS {
            self.forms.clear();
        }
        let form = self.forms.entry(report.form.clone()).or_default();
        let count = report.count();
        if report.form == "{" {
            form.grown = CERTAIN;
        } else if !report.has_count() || count > form.highest {
            (form.highest, form.grown) = (count, CERTAIN.min(form.grown + 1));
        }
        let grown = form.grown;
        self.forms.values().all(|other| other.grown <= grown)
    }

    /// Forgets the metrics of an earlier training in the same log. Its losses stay until their steps come again.
    fn start(&mut self) {
        let before = std::mem::take(&mut self.metrics);
        *self = Self {
            metrics: if self.is_training {
                Metrics::default()
            } else {
                before
            },
            history: std::mem::take(&mut self.history),
            has_started: true,
            ..Self::default()
        };
        self.history.run += 1;
    }

    /// Forgets the metrics of what ran before the training, now that it prints its own.
    fn begin_metrics(&mut self) {
        if !std::mem::replace(&mut self.is_training, true) {
            self.metrics = Metrics::default();
        }
        self.activity = None;
    }

    /// Adds a report of the trainer. It `is_new` unless its figures belong to a line before.
    fn add_report(&mut self, mut report: Report, is_new: bool) {
        let of = &report.metrics;
        let is_of_step = of.step.is_some() || of.learning_rate.or(of.grad_norm).is_some();
        if self.has_ended && !is_of_step && report.has(Kind::Evaluation) {
            let loss = report.metrics.loss.take();
            report.metrics.eval_loss = report.metrics.eval_loss.or(loss);
        }
        let is_of_training = report.is_loss();
        let epochs = report.metrics.epoch.zip(self.metrics.epoch);
        let begins_anew = epochs.is_none_or(|(new, old)| new < old);
        if is_of_training && self.has_ended && begins_anew && !report.has(Kind::Runtime) {
            // Another training, which nothing has announced; another node may print its last loss after the summary.
            self.start();
        }
        if let Some(epoch) = report.metrics.epoch {
            self.first_epoch.get_or_insert(epoch);
        }
        report.resolve(self.first_epoch, &mut self.counts_in_epoch);
        self.has_ended |= report.has(Kind::Runtime);
        let metrics = &mut report.metrics;
        self.begin_metrics();
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
        if metrics.total_steps.or(self.metrics.total_steps).is_none() {
            metrics.total_steps = self
                .announced_total
                .filter(|total| Some(*total) >= metrics.step);
        }
        self.metrics.update(report.metrics);
    }
}

/// Tells if a line ends as one that heads a block: `[step=10/1000]`, `Epoch 1:`, `=== Step 3 ===`.
fn is_head(line: &str) -> bool {
    let line = line.trim_end_matches(['=', '-', '*', ' ']);
    line.ends_with(|c: char| c.is_ascii_digit() || "]:".contains(c))
}
