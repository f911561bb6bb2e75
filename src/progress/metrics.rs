//! The metrics of a training run, by the names that trainers give them.

use schemars::JsonSchema;
use serde::Serialize;

use super::grammar;
use super::tqdm::clock;

/// The metrics that a trainer has printed. A metric that it did not print is absent.
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
    /// The newest training loss is no finite number.
    #[serde(skip)]
    #[schemars(skip)]
    pub non_finite_loss: bool,
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) non_finite_grad_norm: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MetricKind {
    Step,
    /// A count that is within the epoch where the same line gives an epoch.
    Batch,
    TotalSteps,
    Epoch,
    Loss,
    EvalLoss,
    LearningRate,
    GradNorm,
    Reward,
    Tokens,
    TokensPerGpu,
    Samples,
    Steps,
    SecondsPerStep,
    SecondsLeft,
    Runtime,
}

/// Looks up a name as trainers write it, in lower case.
fn synonym(name: &str) -> Option<MetricKind> {
    use MetricKind::*;
    Some(match name {
        "step"
        | "global_step"
        | "global step"
        | "current_steps"
        | "current_step"
        | "global_step/max_steps" => Step,
        "iteration" | "iter" | "batch" => Batch,
        "max_steps" | "total_steps" | "total steps" | "total optimization steps" => TotalSteps,
        "epoch" => Epoch,
        "loss" | "train_loss" | "train loss" | "training_loss" | "training loss" | "loss train"
        | "loss_train" | "lm loss" | "lm_loss" | "gpt_loss" | "reduced_train_loss"
        | "actor/pg_loss" | "step_loss" | "train_loss_step" | "crossentropyloss"
        | "loss/train/total" => Loss,
        "eval_loss" | "lm loss value" | "loss eval" | "loss val" => EvalLoss,
        "learning_rate" | "learning rate" | "lr" | "actor/lr" => LearningRate,
        "grad_norm" | "grad norm" | "gradient norm" | "actor/grad_norm" | "global_grad_norm"
        | "total_grad_norm" => GradNorm,
        "reward" => Reward,
        "tokens_per_second"
        | "train_tokens_per_second"
        | "step_tokens_per_second"
        | "tokens_per_sec"
        | "tokens/sec"
        | "tokens/s" => Tokens,
        "tokens_per_second_per_gpu"
        | "tps"
        | "perf/throughput"
        | "tokens/s/device"
        | "tokens/s/gpu"
        | "device/tokens_per_second" => TokensPerGpu,
        "train_samples_per_second"
        | "currsamplespersec"
        | "samplespersec"
        | "samples/sec"
        | "samples/s" => Samples,
        "train_steps_per_second" | "global_steps_per_second" | "train_speed" => Steps,
        "train_step_timing in s" | "timing_s/step" | "elapsed time per iteration" => SecondsPerStep,
        "remaining_time" | "eta" => SecondsLeft,
        "train_runtime" => Runtime,
        _ => return None,
    })
}

/// Finds the kind of a name, and the factor that a unit behind it stands for: `train/lr(1e-3)`.
fn metric_kind(name: &str) -> Option<(MetricKind, f64)> {
    if let Some(kind) = synonym(name) {
        return Some((kind, 1.0));
    }
    let lower = name.to_ascii_lowercase();
    let (stem, unit) = lower
        .strip_suffix(')')
        .and_then(|name| name.rsplit_once('('))
        .unwrap_or((&lower, ""));
    let factor = if unit == "ms" {
        1e-3
    } else {
        unit.parse().unwrap_or(1.0)
    };
    Some((without_context(stem.trim_end())?, factor))
}

/// Looks up a name behind what it may be led by: a logger's group (`train/loss`), or words (`completed step`).
fn without_context(name: &str) -> Option<MetricKind> {
    if let Some(kind) = synonym(name) {
        return Some(kind);
    }
    let first = name.find(|c: char| !c.is_ascii_alphanumeric())?;
    let (word, rest) = name.split_at(first);
    let mut rest = rest.chars();
    let (separator, rest) = (rest.next()?, rest.as_str());
    let is_training = matches!(
        word,
        "train" | "training" | "trainer" | "optim" | "throughput"
    ) || word.bytes().all(|byte| byte.is_ascii_digit());
    match separator {
        '_' | '/' | ' ' if matches!(word, "eval" | "val" | "valid" | "validation" | "test") => {
            if name.ends_with("loss") {
                Some(MetricKind::EvalLoss)
            } else if separator == ' ' {
                without_context(rest)
            } else {
                None
            }
        }
        '/' if is_training => without_context(rest),
        '-' if word == "lr" => Some(MetricKind::LearningRate),
        // A sentence may end in any word, but only a trainer's ends in a count of steps.
        ' ' => without_context(rest).filter(|kind| {
            use MetricKind::{Batch, Epoch, Step, TotalSteps};
            is_training || matches!(kind, Step | Batch | Epoch | TotalSteps)
        }),
        _ => None,
    }
}

/// Parses the number that a text begins with, however Python or a person wrote it: `'5.943'`, `np.float64(0.5)`,
/// `[5e-05, 1e-05]`, `1,234`, `8.1K`, `nan`. Gives the rest too.
pub(super) fn number(text: &str) -> Option<(f64, &str)> {
    // Nearly every number is a plain one.
    if let Ok(number) = text.parse() {
        return Some((number, ""));
    }
    let mut text = text.trim_start().trim_start_matches(['\'', '"', '[']);
    for wrapper in ["np.float64(", "np.float32(", "np.int64(", "tensor("] {
        text = text.strip_prefix(wrapper).unwrap_or(text);
    }
    let bytes = text.as_bytes();
    let mut end = usize::from(matches!(bytes.first(), Some(b'-' | b'+')));
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let is_group = |at: usize| (1..4).all(|digit| is_digit(at + digit)) && !is_digit(at + 4);
    if let Some(word) = bytes.get(end..end + 3)
        && (word.eq_ignore_ascii_case(b"nan") || word.eq_ignore_ascii_case(b"inf"))
    {
        return Some((text[..end + 3].parse().ok()?, &text[end + 3..]));
    }
    while let Some(byte) = bytes.get(end) {
        let exponent = match bytes.get(end + 1) {
            Some(b'-' | b'+') => end + 2,
            _ => end + 1,
        };
        match byte {
            b'0'..=b'9' | b'.' => end += 1,
            b',' if end > 0 && is_group(end) => end += 4,
            b'e' | b'E' if end > 0 && is_digit(exponent) => end = exponent,
            _ => break,
        }
    }
    let (digits, rest) = text.split_at(end);
    let number: f64 = if digits.contains(',') {
        digits.replace(',', "").parse().ok()?
    } else {
        digits.parse().ok()?
    };
    let factor = match rest.as_bytes() {
        [_, next, ..] if next.is_ascii_alphanumeric() => 1.0,
        [b'k' | b'K', ..] => 1e3,
        [b'M', ..] => 1e6,
        [b'B' | b'G', ..] => 1e9,
        _ => 1.0,
    };
    Some((number * factor, rest))
}

/// Parses `1:02:03`, `39m 0s`, `12.5s` as seconds.
fn duration(text: &str) -> Option<f64> {
    let text = text.trim().trim_matches(['\'', '"']);
    let clock_end = text.find(|c: char| !c.is_ascii_digit() && c != ':');
    let (digits, _) = text.split_at(clock_end.unwrap_or(text.len()));
    if digits.contains(':') {
        return clock(digits);
    }
    let (mut seconds, mut rest) = (None, text);
    while let Some((count, unit)) = number(rest.trim_start()) {
        let factor = match unit.trim_start().as_bytes().first() {
            Some(b'd') => 86_400.0,
            Some(b'h') => 3600.0,
            Some(b'm') => 60.0,
            Some(b's') => 1.0,
            _ => break,
        };
        seconds = Some(seconds.unwrap_or(0.0) + count * factor);
        rest = unit
            .trim_start()
            .trim_start_matches(|c: char| c.is_ascii_alphabetic());
    }
    seconds
}

/// The kinds of metrics that came together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Kinds {
    pub(super) loss: bool,
    pub(super) eval_loss: bool,
    /// The summary at the end of a run, whose loss is a mean.
    pub(super) summary: bool,
    /// Another metric that only a trainer prints: a step, an epoch, a learning rate.
    trainer: bool,
    /// A learning rate or a speed, which with a step is a trainer's too.
    rate: bool,
}

impl Kinds {
    fn note(&mut self, kind: MetricKind) {
        use MetricKind::{EvalLoss, LearningRate, Loss, Runtime, Samples};
        match kind {
            Loss => self.loss = true,
            EvalLoss => self.eval_loss = true,
            Runtime => self.summary = true,
            _ => self.trainer = true,
        }
        self.rate |= matches!(kind, LearningRate | Samples);
    }
}

impl Metrics {
    /// Reads names and values. Those it does not know are passed over.
    pub(super) fn from_pairs<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> (Self, Kinds) {
        let (mut all, mut kinds) = (Self::default(), Kinds::default());
        for (name, value) in pairs {
            all.add(&mut kinds, name, value);
        }
        (all.without_mean(&mut kinds), kinds)
    }

    /// Reads the dictionary that `text` begins with, and gives its length.
    pub(super) fn from_dictionary(text: &str) -> Option<(Self, Kinds, usize)> {
        let (mut all, mut kinds) = (Self::default(), Kinds::default());
        let length = grammar::dictionary(text, |name, value| all.add(&mut kinds, name, value))?;
        Some((all.without_mean(&mut kinds), kinds, length))
    }

    /// Adds the pairs of a line.
    pub(super) fn add_line(&mut self, kinds: &mut Kinds, line: &str) {
        grammar::pairs(line, |name, value| self.add(kinds, name, value));
    }

    /// Tells whether a set of metrics is a trainer's, and not something that looks alike.
    pub(super) fn is_training(&self, kinds: Kinds) -> bool {
        kinds.summary
            || (kinds.trainer && (kinds.loss || kinds.eval_loss))
            || (self.step.is_some() && kinds.rate)
    }

    /// Drops the loss of a summary: a mean over the run is not the newest loss.
    fn without_mean(mut self, kinds: &mut Kinds) -> Self {
        if kinds.summary {
            self.loss = None;
            kinds.loss = false;
        }
        self
    }

    fn add(&mut self, kinds: &mut Kinds, name: &str, value: &str) {
        // Beside the loss of an evaluation.
        kinds.trainer |= name.starts_with("eval_runtime") || name.ends_with("perplexity");
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
        kinds.note(kind);
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
            if matches!(kind, Loss | EvalLoss | GradNorm) {
                self.warning = Some(format!("{name} is {value}").to_lowercase());
            }
            self.non_finite_loss |= kind == Loss;
            self.non_finite_grad_norm |= kind == GradNorm;
            return;
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
            SecondsLeft | Runtime => {}
        }
    }

    /// Takes over newer metrics. A warning stays until there is a newer loss.
    pub(super) fn update(&mut self, newer: &Self) {
        let has_loss = newer.loss.is_some() || newer.non_finite_loss;
        if has_loss || newer.warning.is_some() {
            self.warning.clone_from(&newer.warning);
        }
        if has_loss {
            self.loss = newer.loss;
            self.non_finite_loss = newer.non_finite_loss;
        }
        if newer.grad_norm.is_some() || newer.non_finite_grad_norm {
            self.grad_norm = newer.grad_norm;
            self.non_finite_grad_norm = newer.non_finite_grad_norm;
        }
        self.step = newer.step.or(self.step);
        self.total_steps = newer.total_steps.or(self.total_steps);
        let mut newer = newer.clone();
        for (mine, newer) in self.numbers().into_iter().zip(newer.numbers()) {
            *mine = newer.or(*mine);
        }
    }

    /// Takes the metrics that are missing here from older ones.
    pub(super) fn fill(&mut self, older: &Self) {
        self.step = self.step.or(older.step);
        self.total_steps = self.total_steps.or(older.total_steps);
        if !self.non_finite_loss {
            self.loss = self.loss.or(older.loss);
        }
        if !self.non_finite_grad_norm {
            self.grad_norm = self.grad_norm.or(older.grad_norm);
        }
        let mut older = older.clone();
        for (mine, older) in self.numbers().into_iter().zip(older.numbers()) {
            *mine = mine.or(*older);
        }
    }

    /// The numbers that need no care when they are merged.
    fn numbers(&mut self) -> [&mut Option<f64>; 9] {
        [
            &mut self.epoch,
            &mut self.eval_loss,
            &mut self.learning_rate,
            &mut self.reward,
            &mut self.tokens_per_second,
            &mut self.tokens_per_second_per_gpu,
            &mut self.samples_per_second,
            &mut self.steps_per_second,
            &mut self.seconds_left,
        ]
    }
}
