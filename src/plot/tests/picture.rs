//! The loss as a picture.

use std::collections::BTreeSet;
use std::fs;
use std::io::Cursor;

use crate::plot::{Color, EVAL_COLOR, HEIGHT, TRAIN_COLOR, WIDTH, loss};
use crate::progress::history::History;
use crate::progress::metrics::Metrics;
use crate::progress::tests::{fixture, scan};

struct Picture(Vec<u8>);

impl Picture {
    fn new(history: &History) -> Self {
        Self::of(loss(history).unwrap())
    }

    fn of(png: Vec<u8>) -> Self {
        assert!(png.len() < 128 * 1024, "{} bytes", png.len());
        // To look at: PLOT_DIR=folder cargo test --lib plot::
        if let Ok(folder) = std::env::var("PLOT_DIR") {
            let name = std::thread::current().name().unwrap().replace("::", "_");
            fs::write(format!("{folder}/{name}-{}.png", png.len()), &png).unwrap();
        }
        let mut reader = png::Decoder::new(Cursor::new(png)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((frame.width, frame.height), (800, 450));
        Self(pixels)
    }

    fn at(&self, x: u32, y: u32) -> Color {
        let at = 3 * (y * WIDTH + x) as usize;
        [self.0[at], self.0[at + 1], self.0[at + 2]]
    }

    /// The pixels of a colour under the title and left of the last value.
    fn pixels(&self, color: Color) -> Vec<(u32, u32)> {
        (0..WIDTH * HEIGHT)
            .map(|at| (at % WIDTH, at / WIDTH))
            .filter(|(x, y)| self.at(*x, *y) == color && *y > 32 && *x < 725)
            .collect()
    }
}

fn history(points: impl IntoIterator<Item = (u64, f64)>) -> History {
    let mut history = History::default();
    for (step, loss) in points {
        history.push(&Metrics {
            step: Some(step),
            loss: Some(loss),
            ..Metrics::default()
        });
    }
    history
}

#[test]
fn a_falling_loss_falls() {
    // One spike does not flatten the rest.
    for spike in [0.0, 1e6] {
        let loss = |n| 5.0 - n as f64 / 25.0 + if n == 50 { spike } else { 0.0 };
        let picture = Picture::new(&history((1..=100).map(|n| (n * 10, loss(n)))));
        let places = picture.pixels(TRAIN_COLOR);
        let left = places.iter().min_by_key(|(x, _)| *x).unwrap();
        let right = places.iter().max_by_key(|(x, _)| *x).unwrap();
        assert!(left.0 < 120 && left.1 < 90, "{left:?}");
        assert!(right.0 > 680 && right.1 > 340, "{right:?}");
        assert!(picture.pixels(EVAL_COLOR).is_empty());
    }
}

#[test]
fn a_curve_of_few_points_is_no_spike() {
    let mut history = History::default();
    for step in 1..=1000 {
        history.push(&Metrics {
            step: Some(step),
            loss: Some(0.5 + step as f64 / 1e5),
            eval_loss: (step % 100 == 50).then_some(2.0 - step as f64 / 1e3),
            ..Metrics::default()
        });
    }
    let picture = Picture::new(&history);
    let (train, eval) = (picture.pixels(TRAIN_COLOR), picture.pixels(EVAL_COLOR));
    let top = |places: &[(u32, u32)]| places.iter().map(|(_, y)| *y).min().unwrap();
    assert!(top(&train) > top(&eval) + 100);
}

#[test]
fn few_losses_are_dots() {
    let three = Picture::new(&history([(10, 5.9), (20, 5.1), (30, 4.8)]));
    assert!(three.pixels(TRAIN_COLOR).len() > 600);
    let one = Picture::new(&history([(500, 2.345)]));
    let places = one.pixels(TRAIN_COLOR);
    assert!((30..120).contains(&places.len()), "{}", places.len());
}

#[test]
fn no_loss_is_no_picture() {
    assert!(loss(&History::default()).is_none());
}

#[test]
fn a_noisy_run_with_some_nan_has_its_line_and_axis() {
    let noise = |n: u64| (n % 7) as f64 / 50.0;
    let loss = |n: u64| match n % 10 {
        3 => f64::NAN,
        _ => 50.0 - n as f64 / 50.0 + noise(n),
    };
    let places = Picture::new(&history((1..=2000).map(|n| (n, loss(n))))).pixels(TRAIN_COLOR);
    let columns: BTreeSet<u32> = places.iter().map(|(x, _)| *x).collect();
    assert!(columns.len() > 500, "{}", columns.len());
    let left = places.iter().min_by_key(|(x, _)| *x).unwrap();
    let right = places.iter().max_by_key(|(x, _)| *x).unwrap();
    assert!(right.1 > left.1 + 250, "{left:?} {right:?}");
}

#[test]
fn nan_is_a_gap() {
    let mut points: Vec<(u64, f64)> = (1..=60).map(|n| (n, 2.0 + 1.0 / n as f64)).collect();
    for point in &mut points[25..35] {
        point.1 = f64::NAN;
    }
    let picture = Picture::new(&history(points.clone()));
    let gap: Vec<u32> = (300..500)
        .filter(|x| (60..390).all(|y| picture.at(*x, y) != TRAIN_COLOR))
        .collect();
    assert!(gap.len() > 60, "{gap:?}");
    // All of it.
    points.iter_mut().for_each(|point| point.1 = f64::NAN);
    let picture = Picture::new(&history(points));
    assert!(picture.pixels(TRAIN_COLOR).is_empty());
}

#[test]
fn evaluation_loss_has_its_own_curve() {
    let log = fs::read(fixture("oumi-0.9-trl-sft-eval.log")).unwrap();
    let picture = Picture::new(&scan(log).1);
    assert!(picture.pixels(TRAIN_COLOR).len() > 500 && picture.pixels(EVAL_COLOR).len() > 300);
    // The line of the legend, above the axes.
    let legend = (0..WIDTH).filter(|x| (0..36).any(|y| picture.at(*x, y) == EVAL_COLOR));
    assert!(legend.count() > 15);
}

#[test]
fn a_reward_is_drawn_in_place_of_the_loss() {
    let mut rewards = History::default();
    for step in 1..=100 {
        rewards.push(&Metrics {
            step: Some(step),
            loss: Some(-0.0),
            reward: Some(step as f64 / 50.0 - 0.5),
            ..Metrics::default()
        });
    }
    let places = Picture::new(&rewards).pixels(TRAIN_COLOR);
    let left = places.iter().min_by_key(|(x, _)| *x).unwrap();
    let right = places.iter().max_by_key(|(x, _)| *x).unwrap();
    assert!(left.1 > 340 && right.1 < 90, "{left:?} {right:?}");
}

#[test]
fn ticks_have_few_digits_however_large_they_are() {
    use crate::plot::label;
    let values = [0.0, 0.25, 500.0, 1e-6, 2e300, -5e-320];
    assert_eq!(
        values.map(label),
        ["0", "0.25", "500", "1.00e-6", "2.00e300", "-5.00e-320"]
    );
}

#[test]
fn odd_losses_do_not_panic() {
    let odd = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        2.5,
        f64::NAN,
        f64::INFINITY,
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        5e-324,
        1e-300,
        1e300,
        1e15,
        1e15 + 1.0,
        1e-5,
        -1e-5,
        123_456.789,
    ];
    let steps = [0, 1, 2, 3, 10, 1000, 999_999, 1 << 53, u64::MAX];
    let mut state = 11_u64;
    let mut next = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for round in 0..12 {
        let mut history = History::default();
        let few = 1 + next(odd.len());
        for _ in 0..[1, 2, 3, 19, 25, 400][round % 6] {
            let value = |at: usize| Some(odd[at % few]).filter(|value| value.is_finite());
            let metrics = Metrics {
                step: (next(4) > 0).then(|| steps[next(steps.len())]),
                epoch: (next(3) > 0).then(|| odd[next(odd.len())]),
                loss: value(next(odd.len())).or_else(|| (next(5) == 0).then_some(f64::NAN)),
                eval_loss: value(next(odd.len())).filter(|_| next(3) == 0),
                ..Metrics::default()
            };
            history.push(&metrics);
        }
        match loss(&history) {
            Some(png) => drop(Picture::of(png)),
            None => assert!(history.points().is_empty()),
        }
        history.sparkline(60);
    }
}
