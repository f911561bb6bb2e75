//! The metrics of a training run, by the names that trainers give them.

use schemars::JsonSchema;
use serde::Serialize;

use super::grammar::{self, duration, number};
use super::names::{MetricKind, metric_kind};

/// The metrics that a trainer has printed. A metric that it did not print is absent; a loss or gradient norm that is no
/// finite number is `null` in JSON.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct Metrics {
    /// Optimizer steps done; for inference and evaluation, requests done.
    pub step: Option<u64>,
    pub total_steps: Option<u64>,
    /// Epochs done; 0.25 is a quarter of the first.
    pub epoch: Option<f64>,
    /// Training loss.
    pub loss: Option<f64>,
    /// Evaluation loss.
    pub eval_loss: Option<f64>,
    pub learning_rate: Option<f64>,
    /// Norm of the gradient.
    pub grad_norm: Option<f64>,
    /// Mean reward of reinforcement learning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reward: Option<f64>,
    /// Tokens a second, all devices together.
    pub tokens_per_second: Option<f64>,
    /// Tokens a second on one device, where the trainer gives only that.
    pub tokens_per_second_per_gpu: Option<f64>,
    pub samples_per_second: Option<f64>,
    pub steps_per_second: Option<f64>,
    /// Seconds until the last step, at the newest speed.
    pub seconds_left: Option<f64>,
    /// A loss or a gradient norm that is no finite number.
    pub warning: Option<String>,
    /// They are the summary at the end of a run, whose loss is a mean.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) is_summary: bool,
    /// They came with something that only an evaluation prints.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) is_evaluation: bool,
}

impl Metrics {
    /// Reads the dictionary that `text` begins with, and gives its length.
    pub(super) fn from_dictionary(text: &str) -> Option<(Self, usize)> {
        let mut all = Self::default();
        let length = grammar::dictionary(text, |name, value| all.add(name, value))?;
        if all.is_summary {
            // A mean over the run is not the newest loss.
            all.loss = None;
        }
        Some((all, length))
    }

    /// Adds the pairs of a line.
    pub(super) fn add_line(&mut self, line: &str) {
        grammar::pairs(line, |name, value| self.add(name, value));
    }

    /// Tells whether a set of metrics is a trainer's, and not something that looks alike.
    pub(super) fn is_training(&self) -> bool {
        let rest = [
            self.epoch,
            self.learning_rate,
            self.grad_norm,
            self.reward,
            self.tokens_per_second,
            self.tokens_per_second_per_gpu,
            self.samples_per_second,
            self.steps_per_second,
        ];
        let is_trainers = self.is_evaluation
            || self.step.or(self.total_steps).is_some()
            || rest.iter().any(Option::is_some);
        self.is_summary
            || (is_trainers && self.loss.or(self.eval_loss).is_some())
            || (self.step.is_some() && self.learning_rate.or(self.samples_per_second).is_some())
    }

    pub(super) fn add(&mut self, name: &str, value: &str) {
        self.is_evaluation |= name.starts_with("eval_runtime") || name.ends_with("perplexity");
        let Some((kind, factor)) = metric_kind(name) else {
            return;
        };
        if kind == MetricKind::SecondsLeft {
            self.seconds_left = duration(value);
            return;
        }
        let Some((value, rest)) = number(value) else {
            return;
        };
        let value = value * factor;
        if name == "actor/lr" && value == 0.0 {
            // verl prints three decimals, too few for a learning rate.
            return;
        }
        let total = rest.trim_start().strip_prefix('/').and_then(number);
        match (kind, total) {
            (MetricKind::Batch, Some((total, _))) if self.epoch.is_some() => {
                // NeMo counts the iterations of an epoch from 0.
                let part = ((value + 1.0) / total.max(1.0)).min(1.0);
                self.epoch = self.epoch.map(|epoch| epoch.floor() + part);
            }
            (MetricKind::Batch, None) if self.epoch.is_some() => {}
            (MetricKind::Step | MetricKind::Batch, total) => {
                self.set(MetricKind::Step, name, value);
                if let Some((total, _)) = total {
                    self.set(MetricKind::TotalSteps, name, total);
                }
            }
            _ => self.set(kind, name, value),
        }
    }

    fn set(&mut self, kind: MetricKind, name: &str, value: f64) {
        use MetricKind::*;
        if !value.is_finite() {
            if !matches!(kind, Loss | EvalLoss | GradNorm) {
                return;
            }
            self.warning = Some(format!("{name} is {value}").to_lowercase());
        }
        let whole = (0.0..1e15).contains(&value).then_some(value as u64);
        let rate = Some(value).filter(|rate| *rate > 0.0);
        match kind {
            Step | Batch => self.step = whole,
            TotalSteps => self.total_steps = whole.filter(|total| *total > 0),
            Epoch => self.epoch = Some(value),
            Loss => self.loss = Some(value),
            EvalLoss => self.eval_loss = Some(value),
            LearningRate => self.learning_rate = Some(value),
            GradNorm => self.grad_norm = Some(value),
            Reward => self.reward = Some(value),
            Tokens => self.tokens_per_second = rate,
            TokensPerGpu => self.tokens_per_second_per_gpu = rate,
            Samples => self.samples_per_second = rate,
            Steps => self.steps_per_second = rate,
            SecondsPerStep => self.steps_per_second = rate.map(|seconds| 1.0 / seconds),
            Runtime => self.is_summary = true,
            SecondsLeft => {}
        }
    }

    /// Takes over newer metrics. A warning stays until there is a newer loss.
    pub(super) fn update(&mut self, newer: Self) {
        let older = std::mem::replace(self, newer);
        self.fill(&older);
    }

    /// Takes the metrics that are missing here from older ones.
    pub(super) fn fill(&mut self, older: &Self) {
        if self.loss.is_none() && self.warning.is_none() {
            self.warning.clone_from(&older.warning);
        }
        self.step = self.step.or(older.step);
        self.total_steps = self.total_steps.or(older.total_steps);
        let mut older = older.clone();
        for (mine, older) in self.numbers().into_iter().zip(older.numbers()) {
            *mine = mine.or(*older);
        }
    }

    /// Compares the metrics. Those that are NaN are alike.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }

    fn numbers(&mut self) -> [&mut Option<f64>; 11] {
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
