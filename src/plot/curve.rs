//! The losses as curves.

use plotters::style::RGBColor;

use super::axis::Axis;
use super::{EVAL_COLOR, TRAIN_COLOR};
use crate::progress::history::{History, Point, short};

/// With more points than this their middle is drawn over them.
const NOISY: usize = 300;

/// In so many parts of the picture.
const PARTS: f64 = 90.0;

/// A loss as it went.
pub(super) struct Curve {
    /// As trainers name it.
    pub name: &'static str,
    /// Its colour.
    pub color: RGBColor,
    /// The steps and the losses, by step. None is a loss that was no number.
    pub points: Vec<(f64, Option<f64>)>,
}

/// The curves there are, and over what they go: `step`, `epoch`, or, where the trainer tells neither, `log entry`.
pub(super) fn of(history: &History) -> (Vec<Curve>, &'static str) {
    let points = history.points();
    let count = |what: fn(&Point) -> bool| points.iter().filter(|point| what(point)).count();
    let (steps, epochs) = (
        count(|point| point.step.is_some()),
        count(|point| point.epoch.is_some()),
    );
    let over = match (steps, epochs) {
        (0, 0) => "report",
        _ if steps >= epochs => "step",
        _ => "epoch",
    };
    let step = |(nth, point): (usize, &Point)| match over {
        "step" => point.step.map(|step| step as f64),
        "epoch" => point.epoch,
        _ => Some(nth as f64 + 1.0),
    };
    let curve = |name, color, loss: fn(&Point) -> Option<Option<f64>>| {
        let mut points: Vec<(f64, Option<f64>)> = points
            .iter()
            .enumerate()
            .filter_map(|(nth, point)| Some((step((nth, point))?, loss(point)?)))
            .map(|(step, loss)| (step, loss.filter(|loss| loss.is_finite())))
            .filter(|(step, _)| step.is_finite())
            .collect();
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        Curve {
            name,
            color,
            points,
        }
    };
    let mut curves = vec![
        curve("loss", TRAIN_COLOR, |point| {
            (point.loss.is_some() || point.non_finite_loss).then_some(point.loss)
        }),
        curve("eval_loss", EVAL_COLOR, |point| point.eval_loss.map(Some)),
    ];
    curves.retain(|curve| !curve.points.is_empty());
    (curves, over)
}

impl Curve {
    /// The losses that are numbers.
    pub fn losses(&self) -> Vec<f64> {
        self.points.iter().filter_map(|point| point.1).collect()
    }

    /// What is written at its end.
    pub fn last_label(&self) -> String {
        self.points
            .last()
            .map(|(_, loss)| short(loss.unwrap_or(f64::NAN)))
            .unwrap_or_default()
    }

    /// The stretches between losses that are no numbers.
    pub fn stretches(&self) -> impl Iterator<Item = Vec<(f64, f64)>> {
        self.points
            .split(|point| point.1.is_none())
            .map(|stretch| {
                stretch
                    .iter()
                    .filter_map(|(step, loss)| Some((*step, (*loss)?)))
                    .collect::<Vec<_>>()
            })
            .filter(|stretch| !stretch.is_empty())
    }

    /// From where to where the loss is no number.
    pub fn bad(&self) -> impl Iterator<Item = (f64, f64)> {
        self.points
            .chunk_by(|one, other| one.1.is_none() == other.1.is_none())
            .filter_map(|chunk| match (chunk.first()?, chunk.last()?) {
                ((from, None), (to, None)) => Some((*from, *to)),
                _ => None,
            })
    }

    /// The middle of many losses, part by part of the axis; of few nothing.
    pub fn trend(&self, steps: &Axis) -> Vec<Vec<(f64, f64)>> {
        if self.points.len() <= NOISY {
            return Vec::new();
        }
        let part = |point: &(f64, f64)| (steps.at(point.0) * PARTS) as u32;
        self.stretches()
            .map(|stretch| {
                stretch
                    .chunk_by(|one, other| part(one) == part(other))
                    .filter_map(|points| {
                        let mut losses: Vec<f64> = points.iter().map(|point| point.1).collect();
                        losses.sort_by(f64::total_cmp);
                        let (from, to) = (points.first()?.0, points.last()?.0);
                        Some((from / 2.0 + to / 2.0, *losses.get(losses.len() / 2)?))
                    })
                    .collect()
            })
            .collect()
    }
}
