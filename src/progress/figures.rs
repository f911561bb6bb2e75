//! The figures of a training run, as its trainer names them.

use schemars::JsonSchema;
use serde::Serialize;

/// What a trainer says about how far it is and how it goes. Only what it said; nothing is guessed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct Figures {
    /// Optimizer steps done; for inference and evaluation, requests done.
    pub step: Option<u64>,
    /// Of how many.
    pub total_steps: Option<u64>,
    /// Epochs done; 0.25 is a quarter of the first.
    pub epoch: Option<f64>,
    /// Training loss.
    pub loss: Option<f64>,
    /// Evaluation loss.
    pub eval_loss: Option<f64>,
    /// Learning rate.
    pub learning_rate: Option<f64>,
    /// Norm of the gradient.
    pub grad_norm: Option<f64>,
    /// Tokens a second, all devices together.
    pub tokens_per_second: Option<f64>,
    /// Tokens a second on one device, where only that is told.
    pub tokens_per_second_per_gpu: Option<f64>,
    /// Samples a second.
    pub samples_per_second: Option<f64>,
    /// Steps a second.
    pub steps_per_second: Option<f64>,
    /// Seconds until the last step, at the newest speed.
    pub seconds_left: Option<f64>,
    /// What is wrong with the figures: a loss that is no number.
    pub warning: Option<String>,
    /// The training loss was told, and it is no number.
    #[serde(skip)]
    #[schemars(skip)]
    pub bad_loss: bool,
}

/// What a figure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Step,
    TotalSteps,
    Epoch,
    Loss,
    EvalLoss,
    LearningRate,
    GradNorm,
    Tokens,
    TokensPerGpu,
    Samples,
    Steps,
    SecondsPerStep,
    MillisecondsPerStep,
    Runtime,
}

/// The names trainers give their figures. Names with a slash are those of loggers that group them.
fn meaning(name: &str) -> Option<Meaning> {
    Some(match name {
        "step" | "global_step" | "train/global_step" | "training/global_step" => Meaning::Step,
        "max_steps" => Meaning::TotalSteps,
        "epoch" | "train/epoch" | "training/epoch" => Meaning::Epoch,
        "loss" | "train/loss" | "train loss" | "train_loss" | "training_loss" | "lm loss"
        | "lm_loss" | "reduced_train_loss" | "actor/pg_loss" | "step_loss" => Meaning::Loss,
        "eval_loss" | "eval/loss" | "val/loss" | "val_loss" | "val loss" | "valid_loss"
        | "validation_loss" | "lm loss value" => Meaning::EvalLoss,
        "learning_rate"
        | "learning rate"
        | "lr"
        | "train/lr"
        | "train/learning_rate"
        | "actor/lr" => Meaning::LearningRate,
        "grad_norm" | "grad norm" | "train/grad_norm" | "actor/grad_norm" | "global_grad_norm" => {
            Meaning::GradNorm
        }
        "tokens_per_second"
        | "train_tokens_per_second"
        | "step_tokens_per_second"
        | "train/tokens_per_second" => Meaning::Tokens,
        "tokens_per_second_per_gpu" | "tps" | "perf/throughput" => Meaning::TokensPerGpu,
        "train_samples_per_second" | "CurrSamplesPerSec" | "SamplesPerSec" | "samples/sec" => {
            Meaning::Samples
        }
        "train_steps_per_second" | "global_steps_per_second" => Meaning::Steps,
        "train_step_timing in s" | "timing_s/step" => Meaning::SecondsPerStep,
        "elapsed time per iteration (ms)" => Meaning::MillisecondsPerStep,
        "train_runtime" => Meaning::Runtime,
        _ => return None,
    })
}

/// The number that `text` is, however Python or a person wrote it: `'5.943'`, `np.float64(0.5)`, `1,234`, `nan`.
pub fn number(text: &str) -> Option<f64> {
    if let Some(number) = decimal(text.as_bytes()) {
        return Some(number);
    }
    let text = text.trim();
    let text = text
        .strip_prefix(['\'', '"'])
        .map_or(text, |text| text.strip_suffix(['\'', '"']).unwrap_or(text));
    // Nearly every number is a plain one.
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let mut inner = text;
    for wrapper in ["np.float64(", "np.float32(", "tensor(", "np.int64("] {
        if let Some(wrapped) = text.strip_prefix(wrapper) {
            inner = wrapped.split([',', ')']).next().unwrap_or(wrapped);
        }
    }
    let plain = inner
        .trim_start_matches('[')
        .trim_end_matches([']', '%'])
        .trim();
    plain.replace(',', "").parse().ok()
}

/// Nearly every number: digits with a point among them, in quotes or not. Where this gives one it is the very number that
/// the standard library reads, in a third of the time: both parts of the quotient are exact.
fn decimal(text: &[u8]) -> Option<f64> {
    let text = match text {
        [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => inner,
        text => text,
    };
    let (mut digits, mut decimals, mut point) = (0_u64, 0, false);
    if text.is_empty() || text.len() > 16 {
        return None;
    }
    for byte in text {
        match byte {
            b'0'..=b'9' => {
                digits = digits * 10 + u64::from(byte - b'0');
                decimals += usize::from(point);
            }
            b'.' if !point => point = true,
            _ => return None,
        }
    }
    if digits >= 1 << f64::MANTISSA_DIGITS || text == b"." {
        return None;
    }
    Some(digits as f64 / POWERS_OF_TEN.get(decimals)?)
}

const POWERS_OF_TEN: [f64; 16] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
];

/// What a set of figures turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kind {
    /// A training loss is among them.
    pub loss: bool,
    /// An evaluation loss is.
    pub eval_loss: bool,
    /// It is the summary at the end of a run, whose loss is a mean.
    pub summary: bool,
    /// Something else that only a trainer says is: a step, an epoch, a learning rate, a runtime.
    pub trainer: bool,
}

impl Kind {
    /// Whether a set of names and values is what a trainer says, and not something else that looks alike.
    pub fn is_training(self) -> bool {
        self.summary || (self.trainer && (self.loss || self.eval_loss))
    }
}

impl Figures {
    /// Reads names and values as they come. Those it does not know are passed over.
    pub fn of<'a>(figures: impl IntoIterator<Item = (&'a str, &'a str)>) -> (Self, Kind) {
        let (mut all, mut kind) = (Self::default(), Kind::default());
        for (name, value) in figures {
            all.add(&mut kind, name, value);
        }
        all.close(&mut kind);
        (all, kind)
    }

    /// Reads the dictionary that `text` begins with, as `dictionary` does, and says how long it is.
    pub fn of_dictionary(text: &str) -> Option<(Self, Kind, usize)> {
        let (mut all, mut kind) = (Self::default(), Kind::default());
        let length = dictionary(text, |name, value| all.add(&mut kind, name, value))?;
        all.close(&mut kind);
        Some((all, kind, length))
    }

    fn add(&mut self, kind: &mut Kind, name: &str, value: &str) {
        kind.trainer |= name.starts_with("eval_runtime") || name.ends_with("perplexity");
        let Some(meaning) = meaning(name) else {
            return;
        };
        let Some(value) = number(value) else { return };
        if name == "actor/lr" && value == 0.0 {
            // verl prints three decimals: of a learning rate that is nothing.
            return;
        }
        self.set(meaning, name, value);
        match meaning {
            Meaning::Loss => kind.loss = true,
            Meaning::EvalLoss => kind.eval_loss = true,
            Meaning::Runtime => kind.summary = true,
            _ => kind.trainer = true,
        }
    }

    fn close(&mut self, kind: &mut Kind) {
        if kind.summary {
            // The mean over the whole run, which is not where it stands.
            self.loss = None;
            kind.loss = false;
        }
    }

    fn set(&mut self, meaning: Meaning, name: &str, value: f64) {
        if !value.is_finite() {
            if matches!(
                meaning,
                Meaning::Loss | Meaning::EvalLoss | Meaning::GradNorm
            ) {
                self.warning = Some(format!("{name} is {value}").to_lowercase());
            }
            self.bad_loss |= meaning == Meaning::Loss;
            return;
        }
        let whole = (0.0..1e15).contains(&value).then_some(value as u64);
        let rate = Some(value).filter(|rate| *rate > 0.0);
        let per_second = |seconds: Option<f64>| seconds.map(|seconds| 1.0 / seconds);
        match meaning {
            Meaning::Step => self.step = whole,
            Meaning::TotalSteps => self.total_steps = whole.filter(|total| *total > 0),
            Meaning::Epoch => self.epoch = Some(value),
            Meaning::Loss => self.loss = Some(value),
            Meaning::EvalLoss => self.eval_loss = Some(value),
            Meaning::LearningRate => self.learning_rate = Some(value),
            Meaning::GradNorm => self.grad_norm = Some(value),
            Meaning::Tokens => self.tokens_per_second = rate,
            Meaning::TokensPerGpu => self.tokens_per_second_per_gpu = rate,
            Meaning::Samples => self.samples_per_second = rate,
            Meaning::Steps => self.steps_per_second = rate,
            Meaning::SecondsPerStep => self.steps_per_second = per_second(rate),
            Meaning::MillisecondsPerStep => {
                self.steps_per_second = per_second(rate.map(|ms| ms / 1000.0));
            }
            Meaning::Runtime => {}
        }
    }

    /// Takes over what `newer` says. A warning stays until there is a newer loss.
    pub fn update(&mut self, newer: &Self) {
        let newer_loss = newer.loss.is_some() || newer.bad_loss;
        if newer_loss || newer.warning.is_some() {
            self.warning.clone_from(&newer.warning);
        }
        if newer_loss {
            self.loss = newer.loss;
            self.bad_loss = newer.bad_loss;
        }
        self.fill(newer, true);
    }

    /// Takes from `other` what is missing here; with `over` also what is there.
    pub(super) fn fill(&mut self, other: &Self, over: bool) {
        fn take<T: Copy>(mine: &mut Option<T>, other: Option<T>, over: bool) {
            if mine.is_none() || (over && other.is_some()) {
                *mine = other.or(*mine);
            }
        }
        take(&mut self.step, other.step, over);
        take(&mut self.total_steps, other.total_steps, over);
        take(&mut self.epoch, other.epoch, over);
        if !self.bad_loss {
            take(&mut self.loss, other.loss, over);
        }
        take(&mut self.eval_loss, other.eval_loss, over);
        take(&mut self.learning_rate, other.learning_rate, over);
        take(&mut self.grad_norm, other.grad_norm, over);
        take(&mut self.tokens_per_second, other.tokens_per_second, over);
        take(
            &mut self.tokens_per_second_per_gpu,
            other.tokens_per_second_per_gpu,
            over,
        );
        take(&mut self.samples_per_second, other.samples_per_second, over);
        take(&mut self.steps_per_second, other.steps_per_second, over);
        take(&mut self.seconds_left, other.seconds_left, over);
    }
}

/// Reads a Python or JSON dictionary, `{'loss': '5.943', 'step': 2}`, from its brace on: gives `each` the names and values,
/// and says how long it is. None if it is none, or does not end; what was given by then is to be forgotten.
fn dictionary<'a>(text: &'a str, mut each: impl FnMut(&'a str, &'a str)) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 1;
    let skip = |mut at: usize| {
        while bytes
            .get(at)
            .is_some_and(|byte| byte.is_ascii_whitespace() || *byte == b',')
        {
            at += 1;
        }
        at
    };
    if bytes.first() != Some(&b'{') {
        return None;
    }
    loop {
        at = skip(at);
        let quote = *bytes.get(at)?;
        if quote == b'}' {
            return Some(at + 1);
        }
        if quote != b'\'' && quote != b'"' {
            return None;
        }
        let name_end = at
            + 1
            + bytes
                .get(at + 1..)?
                .iter()
                .position(|byte| *byte == quote)?;
        let name = text.get(at + 1..name_end)?;
        at = skip(name_end + 1);
        if bytes.get(at) != Some(&b':') {
            return None;
        }
        at = skip(at + 1);
        let value_end = value_end(bytes, at)?;
        each(name, text.get(at..value_end)?.trim_ascii_end());
        at = value_end;
    }
}

/// Where the value ends that begins at `at`: at a comma or brace that is inside of nothing.
fn value_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_u32;
    loop {
        match bytes.get(at)? {
            quote @ (b'\'' | b'"') => {
                at += 1;
                loop {
                    let inner = bytes.get(at..)?.iter();
                    at += inner
                        .take_while(|byte| *byte != quote && **byte != b'\\')
                        .count();
                    match bytes.get(at)? {
                        b'\\' => at += 2,
                        _ => break,
                    }
                }
            }
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b',' if depth == 0 => return Some(at),
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
}
