//! The names that trainers give their metrics.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetricKind {
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
pub(super) fn metric_kind(name: &str) -> Option<(MetricKind, f64)> {
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
    use MetricKind::*;
    if let Some(kind) = synonym(name) {
        return Some(kind);
    }
    let (word, _) = name.split_once(|c: char| !c.is_ascii_alphanumeric())?;
    let mut rest = name[word.len()..].chars();
    let (separator, rest) = (rest.next()?, rest.as_str());
    let is_evaluation = matches!(word, "eval" | "val" | "valid" | "validation" | "test");
    let is_training = matches!(
        word,
        "train" | "training" | "trainer" | "optim" | "throughput"
    ) || word.bytes().all(|byte| byte.is_ascii_digit());
    match separator {
        '_' | '/' | ' ' if is_evaluation && name.ends_with("loss") => Some(EvalLoss),
        '/' if is_training => without_context(rest),
        '-' if word == "lr" => Some(LearningRate),
        // A sentence may end in any word, but only a trainer's ends in a count of steps.
        ' ' => without_context(rest).filter(|kind| {
            is_training || is_evaluation || matches!(kind, Step | Batch | Epoch | TotalSteps)
        }),
        _ => None,
    }
}
