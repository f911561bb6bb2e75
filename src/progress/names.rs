//! The names that trainers give their metrics.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::text::from_yaml;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
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
    /// Heads the summary of a run, whose loss is a mean.
    Runtime,
    /// Only a trainer at work prints it.
    Evidence,
    /// Only an evaluation prints it.
    Evaluation,
    /// A part of a config: what stands beside it is no metric.
    Setting,
    /// The same, where nothing is counted.
    BatchSize,
}

/// The names of `names.yaml` with their kinds, by [`bucket`].
static KINDS: LazyLock<Vec<Vec<(String, Kind)>>> = LazyLock::new(|| {
    let names: HashMap<Kind, String> = from_yaml(include_str!("names.yaml")).unwrap_or_default();
    let mut kinds = vec![Vec::new(); BUCKETS];
    for (kind, names) in &names {
        for name in names.split_whitespace() {
            kinds[bucket(name)].push((name.to_owned(), *kind));
        }
    }
    kinds
});

const BUCKETS: usize = 256;

/// A hash of a name: the standard library's takes longer than all else that is done with it.
fn bucket(name: &str) -> usize {
    let first = name.bytes().next().unwrap_or_default();
    (usize::from(first) + name.len() * 32) % BUCKETS
}

fn known(name: &str) -> Option<Kind> {
    let mut kinds = KINDS[bucket(name)].iter();
    kinds
        .find(|(known, _)| known == name)
        .map(|(_, kind)| *kind)
}

/// Finds the kind of a name, and the factor that a unit behind it stands for: `train/lr(1e-3)`.
pub(super) fn kind(name: &str) -> Option<(Kind, f64)> {
    if let Some(kind) = known(name) {
        return Some((kind, 1.0));
    }
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

/// The words that name an evaluation.
pub(super) const EVALUATIONS: &str = "eval|evaluation|val|valid|validation|test|dev";

pub(super) fn is_evaluation(word: &str) -> bool {
    EVALUATIONS.split('|').any(|one| one == word)
}

/// Looks up a name behind what it may be led by: a logger's group (`train/loss`), or words (`completed step`).
fn without_context(name: &str) -> Option<Kind> {
    use Kind::*;
    if let Some(kind) = known(&name.replace(' ', "_")) {
        return Some(kind);
    }
    if name.ends_with("perplexity") {
        return Some(Evaluation);
    }
    let end = name.find(|c: char| !c.is_ascii_alphanumeric())?;
    let (word, rest) = name.split_at(end);
    let separator = rest.chars().next()?;
    let rest = &rest[separator.len_utf8()..];
    let is_training = matches!(
        word,
        "train" | "training" | "trainer" | "optim" | "throughput" | "metrics"
    ) || word.bytes().all(|byte| byte.is_ascii_digit());
    match separator {
        '_' | '/' | ' ' | '-' | '.' if is_evaluation(word) && name.ends_with("loss") => {
            Some(EvalLoss)
        }
        '/' if is_training => without_context(rest),
        '-' if word == "lr" => Some(LearningRate),
        // A sentence may end in any word, but only a trainer's ends in a count of steps.
        ' ' => without_context(rest).filter(|kind| {
            is_training || is_evaluation(word) || matches!(kind, Step | Batch | Epoch | TotalSteps)
        }),
        _ => None,
    }
}
