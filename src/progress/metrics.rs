//! The metrics of a training run, and the report of them in one line of a log.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::Serialize;

use super::grammar::{dictionary_start, duration, entries, number, pairs, total, whole};
use super::names::{EVALUATIONS, Kind, is_evaluation, kind};
use crate::text::end_of;
use crate::text::patterns::Patterns;

/// The most evaluation sets that are told apart, and the longest name of one in bytes.
const MAX_EVAL_SETS: usize = 8;
const MAX_EVAL_SET_NAME: usize = 40;

/// The text before a loss, in bytes, in which `valid` or `test` makes it that of an evaluation.
const MAX_CONTEXT: usize = 200;

/// The beginnings of the names of mean losses.
const MEANS: [&str; 3] = ["av", "Av", "mean_"];

/// The metrics that a trainer has printed. A metric that it did not print is absent; a figure that is no finite number is
/// `null` in JSON.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct Metrics {
    /// Optimizer steps done; for inference and evaluation, requests done.
    pub step: Option<u64>,
    pub total_steps: Option<u64>,
    /// Epochs done; 0.25 is a quarter of the first.
    pub epoch: Option<f64>,
    /// Training loss.
    pub loss: Option<f64>,
    /// The step of `loss` and `reward`, where it is not `step`.
    pub loss_step: Option<u64>,
    /// The newest evaluation loss.
    pub eval_loss: Option<f64>,
    /// The evaluation set of `eval_loss`, where it has a name.
    pub eval_set: Option<String>,
    /// The newest loss of each evaluation set that has a name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub eval_losses: BTreeMap<String, f64>,
    pub learning_rate: Option<f64>,
    /// Norm of the gradient.
    pub grad_norm: Option<f64>,
    /// Mean reward of reinforcement learning. Where there is one, it counts, and not the loss.
    pub reward: Option<f64>,
    /// Tokens a second, all devices together.
    pub tokens_per_second: Option<f64>,
    /// Tokens a second on one device, where the trainer gives only that.
    pub tokens_per_second_per_gpu: Option<f64>,
    pub samples_per_second: Option<f64>,
    pub steps_per_second: Option<f64>,
    /// Seconds until the last step, at the newest speed; absent once that step is done.
    pub seconds_left: Option<f64>,
}

impl Metrics {
    /// Takes over newer metrics, and keeps those that are missing in them.
    pub(super) fn update(&mut self, mut newer: Self) {
        self.step = newer.step.or(self.step);
        self.total_steps = newer.total_steps.or(self.total_steps);
        self.loss_step = newer.loss_step;
        if newer.eval_loss.is_some() {
            self.eval_set = newer.eval_set.take();
        }
        self.eval_losses.append(&mut newer.eval_losses);
        while self.eval_losses.len() > MAX_EVAL_SETS {
            self.eval_losses.pop_last();
        }
        for (figure, newer) in self.figures().iter_mut().zip(newer.figures()) {
            **figure = newer.or(**figure);
        }
    }

    /// Forgets the figures that a trainer prints anew at each report.
    pub(super) fn forget_report(&mut self) {
        (self.loss, self.reward) = (None, None);
        (self.learning_rate, self.grad_norm) = (None, None);
    }

    /// Rounds the figures to five digits: some trainers print seventeen.
    pub(crate) fn round(&mut self) {
        let round = |figure: &mut f64| {
            *figure = format!("{figure:.4e}").parse().unwrap_or(*figure);
        };
        self.eval_losses.values_mut().for_each(round);
        self.figures().into_iter().flatten().for_each(round);
        self.seconds_left = self.seconds_left.map(f64::round);
    }

    fn figures(&mut self) -> [&mut Option<f64>; 11] {
        [
            &mut self.epoch,
            &mut self.loss,
            &mut self.eval_loss,
            &mut self.learning_rate,
            &mut self.grad_norm,
            &mut self.reward,
            &mut self.tokens_per_second,
            &mut self.tokens_per_second_per_gpu,
            &mut self.samples_per_second,
            &mut self.steps_per_second,
            &mut self.seconds_left,
        ]
    }
}

impl PartialEq for Metrics {
    /// Those that are NaN are alike.
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

/// The epoch of a report, and its step or that within the epoch.
pub(super) type Count = (Option<f64>, Option<f64>);

/// The metrics in a line, or in a few lines that belong together.
#[derive(Debug, Clone, Default)]
pub(super) struct Report {
    pub(super) metrics: Metrics,
    /// A count that may be within an epoch, and its total.
    pub(super) batch: Option<(f64, Option<f64>)>,
    /// The number of epochs: the `10` of `Epoch 3/10`.
    epochs: Option<f64>,
    /// The name of its first figure; of a dictionary the brace.
    pub(super) form: Cow<'static, str>,
    /// The marks among its names, of a summary, an evaluation, a config and a trainer at work.
    pub(super) marks: Vec<Kind>,
}

impl Report {
    pub(super) fn add_line(&mut self, line: &str) {
        let mut dictionary = dictionary_start(line);
        let before = &line[..dictionary.unwrap_or(line.len())];
        pairs(before, |name, value, before| self.add(name, value, before));
        if dictionary.is_some() {
            self.form = "{".into();
        }
        let had_count = self.has_count();
        while let Some(start) = dictionary {
            let end = entries(line, start, |name, value, before| {
                self.add(name, value, before);
            });
            // A dictionary before that of the figures may be of something else. One with a count is a report of its own.
            let is_last = self.has_figure() || self.has_count() != had_count;
            let next = dictionary_start(&line[end..]).filter(|_| !is_last);
            dictionary = next.map(|next| end + next);
        }
        if self.metrics.learning_rate.is_some() {
            // Where Transformers counts tokens each step has the time since the start.
            self.marks.retain(|mark| *mark != Kind::Runtime);
        } else if self.has(Kind::Runtime) {
            // A mean over the run is not the newest loss.
            self.metrics.loss = None;
        }
    }

    pub(super) fn has(&self, mark: Kind) -> bool {
        self.marks.contains(&mark)
    }

    /// Tells if it has the figure of a step of the training.
    pub(super) fn is_loss(&self) -> bool {
        self.metrics.loss.or(self.metrics.reward).is_some()
    }

    pub(super) fn has_figure(&self) -> bool {
        self.is_loss() || self.metrics.eval_loss.is_some()
    }

    pub(super) fn has_count(&self) -> bool {
        self.count() != (None, None)
    }

    pub(super) fn count(&self) -> Count {
        let step = self.metrics.step.map(|step| step as f64);
        let batch = self.batch.map(|(done, _)| done);
        (self.metrics.epoch, step.or(batch))
    }

    /// Tells if the report is a trainer's, and not something that looks alike.
    pub(super) fn is_training(&self) -> bool {
        let of = &self.metrics;
        let tokens = of.tokens_per_second.or(of.tokens_per_second_per_gpu);
        let speed = tokens.or(of.samples_per_second).or(of.steps_per_second);
        let has_speed = self.has(Kind::Evidence) || speed.is_some();
        // DeepSpeed counts a step 0 before the first, and then none where another prints the losses.
        let is_at_work = has_speed && (of.step > Some(0) || self.batch.is_some());
        let is_trainers = self.has_count()
            || self.has(Kind::Evaluation)
            || has_speed
            || of.total_steps.is_some()
            || of.learning_rate.or(of.grad_norm).is_some();
        let is_report = is_at_work || (is_trainers && self.has_figure());
        let is_config = self.has(Kind::BatchSize) && !self.has_count();
        !self.has(Kind::Setting) && !is_config && (self.has(Kind::Runtime) || is_report)
    }

    /// Makes the count a step, or a part of the epoch where it is within one, as all are after the first for which `in_epoch` is
    /// set. Epochs are counted from `first_epoch` on.
    pub(super) fn resolve(&mut self, first_epoch: Option<f64>, in_epoch: &mut bool) {
        let metrics = &mut self.metrics;
        if let (Some(epoch), Some(epochs)) = (metrics.epoch, self.epochs)
            && let (Some(step), Some(total)) = (metrics.step, metrics.total_steps)
            && epochs > 1.0
        {
            // `Epoch [3/10], Step [100/600]`: steps of the whole run would be further on by now.
            let part = step as f64 / total as f64 * epochs;
            *in_epoch |= !(epoch - 1.01..=epoch + 0.01).contains(&part);
            if *in_epoch {
                self.batch = Some((step as f64 - 1.0, Some(total as f64)));
            } else {
                metrics.epoch = Some(part).filter(|_| epoch > 1.0);
            }
            // In the first epoch nobody can tell.
            if *in_epoch || metrics.epoch.is_none() {
                (metrics.step, metrics.total_steps) = (None, None);
            }
        }
        match (self.batch.take(), metrics.epoch) {
            (Some((done, Some(total))), Some(epoch)) => {
                let is_from_one =
                    first_epoch == Some(1.0) || (self.epochs.is_some() && first_epoch != Some(0.0));
                let before = f64::from(u8::from(is_from_one));
                let part = ((done + 1.0) / total.max(1.0)).clamp(0.0, 1.0);
                metrics.epoch = Some((epoch.floor() - before).max(0.0) + part);
                // The time left is that of the epoch.
                metrics.seconds_left = None;
            }
            (Some((done, total)), None) if metrics.step.is_none() => {
                metrics.step = whole(done);
                metrics.total_steps = total.and_then(whole).or(metrics.total_steps);
            }
            _ => {}
        }
    }

    /// Finds the kind of a name, and its factor. Adds a count without a name itself.
    fn kind_of(&mut self, name: &str, value: &str, before: &str) -> Option<(Kind, f64)> {
        let found = kind(name);
        if found.is_none() && name == "val" && end_of(before, MAX_CONTEXT).contains("loss train") {
            // litgpt: `loss train: 0.9, val: 1.1`.
            return Some((Kind::EvalLoss, 1.0));
        }
        if found.is_none() && name.is_empty() && self.metrics.epoch.is_some() {
            // It is within the epoch before it: `epoch 001:   100 / 1539`.
            let counted = number(value).and_then(|(done, rest)| Some((done, total(rest)?)));
            let batch = counted.map(|(done, total)| (done - 1.0, Some(total)));
            self.batch = self.batch.or(batch);
        }
        found
    }

    fn add(&mut self, name: &str, text: &str, before: &str) {
        let Some((kind, factor)) = self.kind_of(name, text, before) else {
            return;
        };
        let is_first = !self.has_count() && !self.has_figure();
        if is_first && EARLIER.is_match(end_of(before, MAX_CONTEXT)) {
            self.marks.push(Kind::Setting);
        }
        if is_first && self.form != "{" {
            self.form = name.to_owned().into();
        }
        let metrics = &mut self.metrics;
        let Some((value, rest)) = number(text) else {
            return;
        };
        let (value, total) = (value * factor, || total(rest));
        let rate = (value > 0.0 && value.is_finite()).then_some(value);
        let is_nested = || name.contains('/') && name != "global_step/max_steps";
        let total_steps = |value| whole(value).filter(|total| *total > 0);
        match kind {
            // `{"step": 100, "train": {"step": 5}}`: the outer one counts.
            Kind::Step if metrics.step.is_some() && is_nested() => {}
            Kind::Step => {
                let step = whole(value).filter(|step| *step as f64 == value);
                metrics.step = step.or(metrics.step);
                metrics.total_steps = total().and_then(total_steps).or(metrics.total_steps);
            }
            Kind::TotalSteps => metrics.total_steps = total_steps(value),
            Kind::Batch => {
                // `batch: 32` is a size, and `Batch 3 of 63` one of an epoch that another line names.
                let is_part = rest.trim_ascii_start().starts_with('/') || metrics.epoch.is_some();
                if is_part && total().is_some() || !name.eq_ignore_ascii_case("batch") {
                    self.batch = Some((value, total()));
                }
            }
            Kind::SecondsLeft => metrics.seconds_left = duration(text),
            Kind::Epoch => {
                metrics.epoch = Some(value).filter(|epoch| epoch.is_finite());
                (self.epochs, self.batch) = (total(), None);
            }
            Kind::Loss
                if !name.contains("rain") && EVALUATION.is_match(end_of(before, MAX_CONTEXT)) =>
            {
                self.marks.push(Kind::Evaluation);
                metrics.eval_loss = Some(value);
            }
            // `loss=2.5, avg_loss=2.7`: a mean counts where there is nothing newer.
            Kind::Loss if MEANS.iter().any(|mean| name.starts_with(mean)) => {
                metrics.loss = metrics.loss.or(Some(value));
            }
            Kind::Loss => metrics.loss = Some(value),
            Kind::EvalLoss => self.set_eval_loss(name, value),
            // verl prints three decimals, too few for a learning rate.
            Kind::LearningRate if name == "actor/lr" && value == 0.0 => {}
            Kind::LearningRate => metrics.learning_rate = Some(value),
            Kind::GradNorm => metrics.grad_norm = Some(value),
            Kind::Reward => metrics.reward = Some(value),
            // `tps 11278.56(1409.82/gpu)`: that of all devices stands first.
            Kind::TokensPerGpu if !rest.starts_with('(') => {
                metrics.tokens_per_second_per_gpu = rate;
            }
            Kind::Tokens | Kind::TokensPerGpu => metrics.tokens_per_second = rate,
            Kind::Samples => metrics.samples_per_second = rate,
            Kind::Steps => metrics.steps_per_second = rate,
            Kind::SecondsPerStep => metrics.steps_per_second = rate.map(|seconds| 1.0 / seconds),
            // In a dictionary beside the figures: `"train": {"batch_size": 8}`.
            Kind::Setting | Kind::BatchSize if name.contains('/') => {}
            _ => self.marks.push(kind),
        }
    }

    /// Sets an evaluation loss, and the name of its set: the `math` of `eval_math_loss`. One without a name counts for more.
    fn set_eval_loss(&mut self, name: &str, loss: f64) {
        let metrics = &mut self.metrics;
        let (word, set) = name.split_once(['_', '/']).unwrap_or_default();
        let set = set.strip_suffix("loss").filter(|_| is_evaluation(word));
        let set = set.map_or("", |set| set.trim_end_matches(['_', '/']));
        if (1..=MAX_EVAL_SET_NAME).contains(&set.len()) {
            if metrics.eval_loss.is_some() && metrics.eval_set.is_none() {
                return;
            }
            metrics.eval_losses.insert(set.to_owned(), loss);
            metrics.eval_set = Some(set.to_owned());
        } else {
            metrics.eval_losses.clear();
            metrics.eval_set = None;
        }
        metrics.eval_loss = Some(loss);
    }
}

/// A word before a loss that makes it that of an evaluation: `| valid | epoch 001 | loss 5.1`.
static EVALUATION: LazyLock<Patterns> =
    LazyLock::new(|| Patterns::new(&format!(r"(?:^|[^\w/.])(?i:{EVALUATIONS})(?:[^\w/.]|$)")));

/// A word before the first figure that makes a line one about another run or checkpoint. `New best` is of now, as is what follows
/// a `best` with a number of its own: `Best: 0.3, step: 700`.
static EARLIER: LazyLock<Patterns> = LazyLock::new(|| {
    Patterns::new(
        r"(?:^|(?:^|[^wW])[^\w/.-])(?i:best[^\w/.-][^0-9]*|(?:previous(?:ly)?|restor(?:ed|ing)|(?:last|earlier|prior) run)[^\w/.-](?:[^|]*|[^0-9]*))$",
    )
});
