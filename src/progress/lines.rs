//! Lines that trainers print which are neither dictionaries nor bars, each in its trainer's own form.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::figures::{Figures, Kind, number};

/// The figures in a line, if it is one of a trainer we know.
///
/// | trainer | what is recognised |
/// |---|---|
/// | torchtune | `Step 12 \| loss:1.63 lr:2e-05 tokens_per_second_per_gpu:57.8` |
/// | torchtitan | `step: 22  loss:  6.2250  grad_norm:  0.83  memory:  1.41GiB(1.79%)  tps: 193,831` |
/// | Megatron-LM, GPT-NeoX | `iteration      122/  250000 \| … \| lm loss: 2.504220E+00 \| … \|` |
/// | NeMo | `Training epoch 0, iteration 120/149 \| lr: 3e-05 \| … \| reduced_train_loss: 1.233` |
/// | verl | `step:4 - actor/pg_loss:0.010 - actor/lr:0.000 - …` |
/// | DeepSpeed | `step=40, skipped=2, lr=[5e-05]`, `epoch=0/micro_step=4500/global_step=4500, …SamplesPerSec=16.1` |
/// | nanoGPT | `iter 100: loss 3.1, time 23ms`, `step 250: train loss 2.0, val loss 2.1` |
pub fn figures(line: &str) -> Option<(Figures, Kind)> {
    let trim =
        |(name, value): (&'_ str, &'_ str)| (name.trim().to_owned(), value.trim().to_owned());
    let read = |pairs: Vec<(String, String)>| {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        Some(Figures::of(pairs)).filter(|(_, kind)| kind.is_training())
    };
    if let Some(found) = captures(&TORCHTUNE, line) {
        let mut pairs: Vec<_> = found
            .get(2)?
            .as_str()
            .split(' ')
            .filter_map(|part| part.split_once(':'))
            .map(trim)
            .collect();
        pairs.push(("step".into(), found.get(1)?.as_str().to_owned()));
        return read(pairs);
    }
    if let Some(found) = captures(&TORCHTITAN, line).and_then(|found| found.get(0)) {
        let pairs = NAMED.as_ref()?.captures_iter(found.as_str());
        return read(
            pairs
                .filter_map(|pair| Some((pair.get(1)?.as_str(), pair.get(2)?.as_str())))
                .map(trim)
                .collect(),
        );
    }
    if let Some(found) = captures(&ITERATION, line) {
        let parts = line.split('|').filter_map(|part| part.split_once(':'));
        let (mut all, kind) = read(parts.map(trim).collect())?;
        let whole = |at: usize| {
            found
                .get(at)
                .and_then(|text| text.as_str().trim().parse().ok())
        };
        let (epoch, done, total): (_, Option<u64>, Option<u64>) =
            (found.get(1), whole(2), whole(3));
        match epoch {
            // NeMo counts from 0 within an epoch.
            Some(epoch) => {
                let part = done?.saturating_add(1) as f64 / total? as f64;
                all.epoch = Some(number(epoch.as_str())? + part.min(1.0));
            }
            None => {
                all.step = done;
                all.total_steps = total;
            }
        }
        return Some((all, kind));
    }
    if let Some(found) = captures(&VERL, line).and_then(|found| found.get(0)) {
        let parts = line.get(found.start()..)?.split(" - ");
        return read(
            parts
                .filter_map(|part| part.rsplit_once(':'))
                .map(trim)
                .collect(),
        );
    }
    if let Some(found) = captures(&MEGATRON_VALIDATION, line) {
        let all = Figures {
            eval_loss: number(found.get(2)?.as_str()),
            step: found.get(1)?.as_str().parse().ok(),
            ..Figures::default()
        };
        let kind = Kind {
            eval_loss: true,
            trainer: true,
            ..Kind::default()
        };
        return Some((all, kind));
    }
    if let Some(found) = captures(&DEEPSPEED, line) {
        let step = found.get(1).or(found.get(3))?.as_str();
        let mut pairs = vec![("step", step)];
        if let Some(rate) = found.get(2) {
            pairs.push(("lr", rate.as_str()));
        }
        if let Some(speed) = found.get(4) {
            pairs.push(("SamplesPerSec", speed.as_str()));
        }
        // There is no loss, but nothing else prints such lines.
        return Some(Figures::of(pairs));
    }
    if let Some(found) = captures(&NANOGPT, line) {
        let named = |at: usize, name: &'static str| Some((name, found.get(at)?.as_str()));
        let pairs = [
            named(1, "step"),
            named(2, "loss"),
            named(3, "loss"),
            named(4, "eval_loss"),
        ];
        return Some(Figures::of(pairs.into_iter().flatten()))
            .filter(|(_, kind)| kind.is_training());
    }
    None
}

/// The tokens a second that vLLM says it generates.
pub fn generation_speed(line: &str) -> Option<f64> {
    let found = captures(&VLLM, line)?;
    number(found.get(1)?.as_str()).filter(|speed| *speed > 0.0)
}

/// The steps that the Hugging Face Trainer says it will do.
pub fn announced_total(line: &str) -> Option<u64> {
    let (_, number) = line.split_once("Total optimization steps = ")?;
    number.trim().replace(',', "").parse().ok()
}

/// Whether a training begins here: what Oumi and the Hugging Face Trainer say then.
pub fn begins_training(line: &str) -> bool {
    line.contains("Starting training...") || line.contains("***** Running training *****")
}

/// A pattern that is compiled when it is first needed. None is a pattern that is none, which a test rules out.
type Pattern = LazyLock<Option<Regex>>;

fn pattern(text: &str) -> Option<Regex> {
    Regex::new(text).ok()
}

fn captures<'t>(pattern: &Pattern, line: &'t str) -> Option<Captures<'t>> {
    pattern.as_ref()?.captures(line)
}

static TORCHTUNE: Pattern = LazyLock::new(|| pattern(r"\bStep (\d+) \| (loss:.*)"));
static TORCHTITAN: Pattern =
    LazyLock::new(|| pattern(r"\bstep:\s*\d+\s+loss:\s*[-+.\dna]+\s.*\btps:\s*[\d,]+"));
static NAMED: Pattern = LazyLock::new(|| pattern(r"(\w+):\s*([-+.,\w]+)"));
static ITERATION: Pattern =
    LazyLock::new(|| pattern(r"(?:Training epoch (\d+), )?\biteration\s+(\d+)\s*/\s*(\d+) \|"));
static VERL: Pattern = LazyLock::new(|| pattern(r"\bstep:\d+ - \S+:"));
static MEGATRON_VALIDATION: Pattern = LazyLock::new(|| {
    pattern(r"validation loss at iteration (\d+)\b[^|]*\| lm loss value: ([-+.\dE]+)")
});
static DEEPSPEED: Pattern = LazyLock::new(|| {
    pattern(
        r"(?:\bstep=(\d+), skipped=\d+, lr=\[([-+.\de]+)|\bglobal_step=(\d+), RunningAvgSamplesPerSec=[^,]*, CurrSamplesPerSec=([-+.\de]+))",
    )
});
static NANOGPT: Pattern = LazyLock::new(|| {
    pattern(
        r"\b(?:iter|step) (\d+): (?:loss ([-+.\dnaif]+), time|train loss ([-+.\dnaif]+), val loss ([-+.\dnaif]+))",
    )
});
static VLLM: Pattern = LazyLock::new(|| pattern(r"Avg generation throughput: ([.\d]+) tokens/s"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_is_one() {
        for pattern in [
            &TORCHTUNE,
            &TORCHTITAN,
            &NAMED,
            &ITERATION,
            &VERL,
            &MEGATRON_VALIDATION,
            &DEEPSPEED,
            &NANOGPT,
            &VLLM,
        ] {
            assert!(pattern.is_some());
        }
    }
}
