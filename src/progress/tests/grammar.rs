//! Names and values in all the ways that trainers print them.

use super::metrics;
use crate::progress::grammar::pairs;
use crate::progress::metrics::Metrics;

/// The step, the total, the epoch, the loss and the seconds left.
type Found = (
    Option<u64>,
    Option<u64>,
    Option<f64>,
    Option<f64>,
    Option<f64>,
);

fn found(metrics: &Metrics) -> Found {
    (
        metrics.step,
        metrics.total_steps,
        metrics.epoch,
        metrics.loss,
        metrics.seconds_left,
    )
}

#[test]
fn finds_pairs_in_any_separators() {
    let cases: [(&str, Found); 16] = [
        (
            "{'epoch': 1.0, 'loss': 2.5, 'best': {'loss': 0.4, 'step': 100}, 'text': \"it's {'loss': 0.1}\"}",
            (None, None, Some(1.0), Some(2.5), None),
        ),
        (
            "{'loss': 2.5, 'step': 7} of {'loss': 0.1, 'step': 90}",
            (Some(7), None, None, Some(2.5), None),
        ),
        (
            "INFO {\"run\": \"x\"} - {\"loss\": 2.5, \"step\": 7}",
            (Some(7), None, None, Some(2.5), None),
        ),
        (
            "step: 7  loss:  2.5  memory:  9.4GiB(6.9%)",
            (Some(7), None, None, Some(2.5), None),
        ),
        (
            "2026-01-02 10:00:00,123 - root - INFO - step: 7 | loss: 2.5",
            (Some(7), None, None, Some(2.5), None),
        ),
        (
            "Step 7 | loss:2.5 lr:2e-05",
            (Some(7), None, None, Some(2.5), None),
        ),
        (
            "INFO:trainer:step=7/1,200, loss=2.5, eta=0:12:05",
            (Some(7), Some(1200), None, Some(2.5), Some(725.0)),
        ),
        (
            "[1,0]<stdout>:iteration 7 / 90 | lm loss: 2.5E+00 |",
            (Some(7), Some(90), None, Some(2.5), None),
        ),
        (
            "node1: step:7 - train/loss:2.5 - train/lr(1e-3):0.010",
            (Some(7), None, None, Some(2.5), None),
        ),
        (
            "Epoch 2, iter 4/10: loss 2.5, time 23ms",
            (None, None, Some(2.5), Some(2.5), None),
        ),
        (
            "epoch=1 step=8.1K loss=2.5",
            (Some(8100), None, Some(1.0), Some(2.5), None),
        ),
        (
            "{'loss': '2.5', 'global_step/max_steps': '7/90', 'remaining_time': '1h 2m 3s'}",
            (Some(7), Some(90), None, Some(2.5), Some(3723.0)),
        ),
        (
            "{\"loss\": 2.5, \"current_steps\": 7, \"total_steps\": 90, \"remaining_time\": \"1 day\"}",
            (Some(7), Some(90), None, Some(2.5), Some(86400.0)),
        ),
        (
            "{'loss': np.float64(2.5), 'grad_norm': tensor(2.0, device='cuda:0'), 'step': 7}",
            (Some(7), None, None, Some(2.5), None),
        ),
        (
            r"{'path': 'C:\\', 'loss': 2.5, 'step': 7}",
            (Some(7), None, None, Some(2.5), None),
        ),
        (
            "[step=7/90,epoch=0]\n    train/CrossEntropyLoss=2.5\n    other=1",
            (Some(7), Some(90), Some(0.0), Some(2.5), None),
        ),
    ];
    for (text, expected) in cases {
        let metrics = super::scan(format!("{text}\n"))
            .0
            .map(|progress| progress.metrics);
        assert_eq!(metrics.as_ref().map(found), Some(expected), "{text}");
    }
}

#[test]
fn scales_by_unit_in_name() {
    let found = metrics("step:1 - train/loss:1.9 - train/lr(1e-3):0.010\n");
    assert_eq!(found.learning_rate, Some(1e-5));
}

#[test]
fn joins_names_and_numbers() {
    let mut all = Vec::new();
    pairs(
        "epoch=0/micro_step=34/global_step=35, lr=[5e-05, 1e-05], é=nan (avg 3)",
        |name, value, _| {
            all.push((name.to_owned(), value.chars().take(3).collect::<String>()));
        },
    );
    let all: Vec<_> = all
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        all,
        [
            ("epoch", "0/m"),
            ("micro_step", "34/"),
            ("global_step", "35,"),
            ("lr", "5e-"),
            ("", "1e-"),
            ("é", "nan"),
            ("avg", "3)")
        ]
    );
}

#[test]
fn number_with_exponent_has_no_groups() {
    let found = |rate| metrics(format!("step:1,234 - loss:1.9 - lr:{rate}\n"));
    assert_eq!(found("2.5e-05").learning_rate, Some(2.5e-5));
    let found = found("2,345e-05");
    assert_eq!((found.step, found.learning_rate), (Some(1234), None));
}

#[test]
fn passes_over_other_losses_and_rates() {
    for line in [
        "step:1 - actor/kl_loss:0.5 - critic/vf_loss:0.5",
        "packet loss: 5, step: 3",
        "{'eval_runtime': 3.0, 'eval_samples_per_second': 9.0, 'step': 3}",
        "The loss is 5 at step 3",
        "time (ms) | forward: 652.41 | loss scale: 1.0 | step: 1172.13",
        "number of loss iterations: 0 | step: 4",
        "{'learning_rate': 1e-5, 'epoch': 2.0, 'step': 600} best: {'loss': 0.4, 'step': 90}",
    ] {
        assert_eq!(super::scan(format!("{line}\n")).0, None, "{line}");
    }
}
