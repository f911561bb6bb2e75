//! The course of the loss.

use std::fs;

use super::{fixture, scan};
use crate::progress::history::{History, MAX_POINTS, sparkline};
use crate::progress::metrics::Metrics;

fn point(step: u64, loss: f64) -> Metrics {
    Metrics {
        step: Some(step),
        loss: Some(loss),
        ..Metrics::default()
    }
}

#[test]
fn resumed_run_replaces_steps() {
    let mut history = History::default();
    for step in [1, 2, 3, 4, 5] {
        history.push(&point(step, 5.0));
    }
    history.push(&point(3, 4.0));
    history.push(&Metrics {
        step: Some(3),
        eval_loss: Some(4.5),
        ..Metrics::default()
    });
    let points: Vec<_> = history
        .points()
        .iter()
        .map(|point| (point.step.unwrap(), point.loss.unwrap(), point.eval_loss))
        .collect();
    assert_eq!(
        points,
        [(1, 5.0, None), (2, 5.0, None), (3, 4.0, Some(4.5))]
    );
}

#[test]
fn lines_of_a_block_without_a_step_are_one_point() {
    let block = |loss| format!("Epoch 1:\n  loss: {loss}\n  grad_norm: 1.5\n  lr: 1e-4\n");
    let (_, history) = scan(block(0.9) + &block(f64::NAN));
    let gradients: Vec<_> = history.points().iter().map(|one| one.grad_norm).collect();
    assert_eq!(gradients, [Some(1.5); 2]);
}

#[test]
fn long_history_is_thinned_evenly() {
    let mut history = History::default();
    for step in 0..200_000 {
        history.push(&point(step, 1.0));
        if step % 1000 == 0 {
            history.push(&Metrics {
                step: Some(step),
                eval_loss: Some(2.0),
                ..Metrics::default()
            });
        }
    }
    let points = history.points();
    assert!(points.len() <= MAX_POINTS && points.is_sorted_by_key(|point| point.step));
    assert_eq!(points.first().unwrap().step, Some(0));
    assert_eq!(points.last().unwrap().step, Some(199_999));
    let evaluated = points.iter().filter(|point| point.eval_loss.is_some());
    assert_eq!(evaluated.count(), 200);
    let early = points.iter().filter(|point| point.step < Some(20_000));
    let tenth = points.len() / 10;
    assert!((tenth * 8 / 10..=tenth * 12 / 10).contains(&early.count()));
    // Also when every point has an evaluation loss.
    for step in 300_000..400_000 {
        history.push(&Metrics {
            step: Some(step),
            eval_loss: Some(1.0),
            ..Metrics::default()
        });
    }
    assert!(history.points().len() <= MAX_POINTS);
}

#[test]
fn sparkline_in_one_line() {
    assert_eq!(
        sparkline(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], 60),
        "▁▂▃▄▅▆▇█"
    );
    assert_eq!(sparkline(&[2.0, 2.0, 2.0], 60), "▁▁▁");
    assert_eq!(sparkline(&[], 60), "");
    assert_eq!(sparkline(&[f64::NAN, f64::INFINITY], 60), "××");
    assert_eq!(sparkline(&[f64::MAX, -f64::MAX, f64::MAX], 60), "█▁█");
    let falling: Vec<f64> = (0..10_000).map(|step| 1.0 / f64::from(step + 1)).collect();
    assert_eq!(sparkline(&falling, 10).chars().count(), 10);
    // One spike does not flatten the rest.
    let mut spiky: Vec<f64> = (0..600).map(|step| f64::from(600 - step)).collect();
    spiky[300] = 1e9;
    let line = sparkline(&spiky, 60);
    assert!(
        line.starts_with('█') && line.ends_with('▁') && line.contains('▄'),
        "{line}"
    );

    let history = scan(fs::read(fixture("oumi-0.9-trl-sft-eval.log")).unwrap()).1;
    assert_eq!(
        history.sparkline(60).unwrap(),
        "loss 6.007 █▇▆▄▃▃▂▂▁▁▁▁ 5.538, steps 1 to 12\neval_loss 5.699 █▃▁ 5.515, steps 4 to 12"
    );
    assert_eq!(History::default().sparkline(60), None);
    let mut one = History::default();
    one.push(&point(5, 2.5));
    assert_eq!(one.sparkline(60).unwrap(), "loss 2.5, step 5");
    // What is no number is a cross.
    one.push(&point(6, 2.0));
    one.push(&Metrics {
        step: Some(7),
        loss: Some(f64::NAN),
        ..Metrics::default()
    });
    assert_eq!(one.sparkline(60).unwrap(), "loss 2.5 █▁× nan, steps 5 to 7");
}
