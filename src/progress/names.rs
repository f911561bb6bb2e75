//! The names that trainers give their metrics.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::LazyLock;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
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
    /// Only a trainer at work prints it.
    Evidence,
    /// Only an evaluation prints it.
    Evaluation,
    /// A part of a config: what stands beside it is no metric.
    Setting,
}

/// The names of each kind, in lower case and with `_` for blanks.
const NAMES: &[(Kind, &str)] = {
    use Kind::*;
    &[
        (
            Step,
            "step global_step current_steps current_step global_step/max_steps num_updates \
             optimizer_step train_step training_step",
        ),
        (Batch, "iteration iter batch"),
        (
            TotalSteps,
            "max_steps total_steps total_training_steps total_optimization_steps \
             num_training_steps",
        ),
        (Epoch, "epoch ep"),
        (
            Loss,
            "loss train_loss training_loss loss_train loss/train lm_loss gpt_loss \
             reduced_train_loss step_loss train_loss_step crossentropyloss loss/train/total \
             total_loss avg_loss average_loss mean_loss policy_loss actor/pg_loss \
             loss/policy_avg",
        ),
        (
            EvalLoss,
            "eval_loss lm_loss_value loss_eval loss_val loss/eval loss/val",
        ),
        (LearningRate, "learning_rate lr actor/lr actor_lr"),
        (
            GradNorm,
            "grad_norm gradient_norm gnorm global_grad_norm total_grad_norm actor/grad_norm",
        ),
        (
            Reward,
            "reward mean_reward reward_mean reward/mean rewards/mean critic/rewards/mean \
             objective/rlhf_reward",
        ),
        (
            Tokens,
            "tokens_per_second train_tokens_per_second step_tokens_per_second tokens_per_sec \
             tokens/sec tokens/s",
        ),
        (
            TokensPerGpu,
            "tokens_per_second_per_gpu tokens_per_sec_per_gpu tps tgs perf/throughput \
             tokens/s/device tokens/s/gpu device/tokens_per_second",
        ),
        (
            Samples,
            "train_samples_per_second samples_per_second currsamplespersec samplespersec \
             samples/sec samples/s",
        ),
        (
            Steps,
            "train_steps_per_second global_steps_per_second steps_per_second train_speed ups",
        ),
        (
            SecondsPerStep,
            "train_step_timing_in_s timing_s/step perf/time_per_step \
             elapsed_time_per_iteration seconds_per_step",
        ),
        (SecondsLeft, "remaining_time eta"),
        (Runtime, "train_runtime"),
        (Evidence, "skipped mom"),
        (Evaluation, "eval_runtime"),
        (
            Setting,
            "seed weight_decay batch_size per_device_train_batch_size optimizer dropout \
             warmup_steps warmup_ratio num_epochs epochs num_train_epochs \
             gradient_accumulation_steps",
        ),
    ]
};

static KINDS: LazyLock<HashMap<&str, Kind>> = LazyLock::new(|| {
    let kinds = NAMES.iter();
    kinds
        .flat_map(|(kind, names)| names.split_whitespace().map(|name| (name, *kind)))
        .collect()
});

/// The most names that are remembered: a trainer prints the same ones again and again.
const MAX_REMEMBERED: usize = 1024;

thread_local! {
    static REMEMBERED: RefCell<HashMap<String, Option<(Kind, f64)>>> = RefCell::default();
}

/// Finds the kind of a name, and the factor that a unit behind it stands for: `train/lr(1e-3)`.
pub(super) fn kind(name: &str) -> Option<(Kind, f64)> {
    REMEMBERED.with_borrow_mut(|names| {
        if let Some(found) = names.get(name) {
            return *found;
        }
        if names.len() >= MAX_REMEMBERED {
            names.clear();
        }
        let found = find(name);
        names.insert(name.to_owned(), found);
        found
    })
}

fn find(name: &str) -> Option<(Kind, f64)> {
    let lower = name.to_ascii_lowercase();
    let in_parentheses = lower
        .strip_suffix(')')
        .and_then(|name| name.rsplit_once('('));
    let in_name = || Some((lower.strip_suffix("_ms")?, "ms"));
    let (stem, unit) = in_parentheses.or_else(in_name).unwrap_or((&lower, ""));
    let kind = without_context(stem.trim_end())?;
    Some(match unit {
        "s/it" => (Kind::SecondsPerStep, 1.0),
        "ms" => (kind, 1e-3),
        _ => (kind, unit.parse().unwrap_or(1.0)),
    })
}

/// Tells if a word names an evaluation.
pub(super) fn is_evaluation(word: &str) -> bool {
    matches!(
        word,
        "eval" | "evaluation" | "val" | "valid" | "validation" | "test" | "dev"
    )
}

/// Looks up a name behind what it may be led by: a logger's group (`train/loss`), or words (`completed step`).
fn without_context(name: &str) -> Option<Kind> {
    use Kind::*;
    if let Some(kind) = KINDS.get(name.replace(' ', "_").as_str()) {
        return Some(*kind);
    }
    if name.ends_with("perplexity") {
        return Some(Evaluation);
    }
    if name.ends_with("logloss") {
        return Some(if name.starts_with("train") {
            Loss
        } else {
            EvalLoss
        });
    }
    let word = name.split(|c: char| !c.is_ascii_alphanumeric()).next()?;
    let mut rest = name[word.len()..].chars();
    let (separator, rest) = (rest.next()?, rest.as_str());
    let is_training = matches!(
        word,
        "train" | "training" | "trainer" | "optim" | "throughput" | "metrics"
    ) || word.bytes().all(|byte| byte.is_ascii_digit());
    match separator {
        '_' | '/' | ' ' | '-' if is_evaluation(word) && name.ends_with("loss") => Some(EvalLoss),
        '/' if is_training => without_context(rest),
        '-' if word == "lr" => Some(LearningRate),
        // A sentence may end in any word, but only a trainer's ends in a count of steps.
        ' ' => without_context(rest).filter(|kind| {
            is_training || is_evaluation(word) || matches!(kind, Step | Batch | Epoch | TotalSteps)
        }),
        _ => None,
    }
}
