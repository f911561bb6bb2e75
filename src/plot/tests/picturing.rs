//! The loss as a picture.

use std::fs;

use crate::plot::{EVAL_COLOR, HEIGHT, PictureError, TRAIN_COLOR, WIDTH, loss};
use crate::progress::history::History;
use crate::progress::metrics::Metrics;

use crate::progress::tests::{fixture, scan};

type Rgb = [u8; 3];

struct Picture {
    pixels: Vec<u8>,
}

impl Picture {
    fn of(history: &History) -> Self {
        let picture = loss(history).unwrap();
        assert!(picture.len() < 128 * 1024, "{} bytes", picture.len());
        let decoder = png::Decoder::new(std::io::Cursor::new(picture));
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (800, 450));
        assert_eq!(
            (info.color_type, info.bit_depth),
            (png::ColorType::Rgb, png::BitDepth::Eight)
        );
        Self { pixels }
    }

    fn at(&self, x: u32, y: u32) -> Rgb {
        let at = (y * WIDTH + x) as usize * 3;
        self.pixels[at..at + 3].try_into().unwrap()
    }

    /// Where the colour stands, within the axes.
    fn places(&self, color: Rgb) -> Vec<(u32, u32)> {
        (0..WIDTH * HEIGHT)
            .map(|at| (at % WIDTH, at / WIDTH))
            .filter(|(x, y)| self.at(*x, *y) == color && *y > 36 && *x < 738)
            .collect()
    }

    /// The columns that are rather blue than grey near the top.
    fn columns_with_blue_at_the_top(&self) -> Vec<u32> {
        (70..735)
            .filter(|x| {
                (60..80).all(|y| {
                    let [red, _, blue] = self.at(*x, y);
                    i32::from(blue) - i32::from(red) > 25
                })
            })
            .collect()
    }
}

const TRAIN: Rgb = [TRAIN_COLOR.0, TRAIN_COLOR.1, TRAIN_COLOR.2];
const EVAL: Rgb = [EVAL_COLOR.0, EVAL_COLOR.1, EVAL_COLOR.2];

fn history(points: impl IntoIterator<Item = (u64, f64)>) -> History {
    let mut history = History::default();
    for (step, loss) in points {
        history.push(&Metrics {
            step: Some(step),
            loss: Some(loss).filter(|loss| loss.is_finite()),
            non_finite_loss: !loss.is_finite(),
            ..Metrics::default()
        });
    }
    history
}

#[test]
fn a_falling_loss_runs_from_the_upper_left_to_the_lower_right() {
    let picture = Picture::of(&history((1..=100).map(|n| (n * 10, 5.0 - n as f64 / 25.0))));
    let places = picture.places(TRAIN);
    let left = places.iter().min_by_key(|(x, _)| *x).unwrap();
    let right = places.iter().max_by_key(|(x, _)| *x).unwrap();
    assert!(left.0 < 120 && left.1 < 90, "{left:?}");
    assert!(right.0 > 680 && right.1 > 340, "{right:?}");
    assert!(picture.places(EVAL).is_empty());
}

#[test]
fn few_losses_are_dots_and_one_is_a_dot_alone() {
    let three = Picture::of(&history([(10, 5.9), (20, 5.1), (30, 4.8)]));
    assert!(three.places(TRAIN).len() > 600);
    let one = Picture::of(&history([(500, 2.345)]));
    let places = one.places(TRAIN);
    assert!((30..120).contains(&places.len()), "{}", places.len());
}

#[test]
fn without_a_loss_there_is_no_picture_and_it_is_said_why() {
    let error = loss(&History::default()).unwrap_err();
    assert!(matches!(error, PictureError::NoLoss));
    assert!(error.to_string().contains("no loss yet"), "{error}");
}

#[test]
fn spikes_do_not_flatten_the_rest() {
    // Odd, since every second point is kept.
    let spikes = [1235, 4211, 7777];
    let calm = |n: u64| 3.0 - n as f64 / 10_000.0 + (n % 7) as f64 / 50.0;
    let loss = |n: u64| match spikes.contains(&n) {
        true => 100.0 * calm(n),
        false => calm(n),
    };
    let picture = Picture::of(&history((1..=10_000).map(|n| (n, loss(n)))));
    let columns = picture.columns_with_blue_at_the_top();
    let [first, second, third] = columns.as_slice() else {
        panic!("{columns:?}");
    };
    let part = f64::from(second - first) / f64::from(third - first);
    let expected = (spikes[1] - spikes[0]) as f64 / (spikes[2] - spikes[0]) as f64;
    assert!((part - expected).abs() < 0.01, "{columns:?}");
    // What remains takes most of the height.
    let places = picture.places(TRAIN);
    let rows: Vec<u32> = places.iter().map(|(_, y)| *y).filter(|y| *y > 60).collect();
    let (top, bottom) = (rows.iter().min().unwrap(), rows.iter().max().unwrap());
    assert!(bottom - top > 200, "{top} to {bottom}");
}

#[test]
fn what_is_no_number_is_a_gap_with_a_mark() {
    let mut points: Vec<(u64, f64)> = (1..=60).map(|n| (n, 2.0 + 1.0 / n as f64)).collect();
    for point in &mut points[25..35] {
        point.1 = f64::NAN;
    }
    let picture = Picture::of(&history(points.clone()));
    let marks: Vec<u32> = (70..735)
        .filter(|x| {
            let [red, green, _] = picture.at(*x, 200);
            i32::from(red) - i32::from(green) > 20
        })
        .collect();
    assert!(marks.len() > 60, "{marks:?}");
    assert!(marks.iter().all(|x| (300..500).contains(x)), "{marks:?}");
    let gap: Vec<u32> = (300..500)
        .filter(|x| (60..390).all(|y| picture.at(*x, y) != TRAIN))
        .collect();
    assert!(gap.len() > 60, "{gap:?}");
    // All of it.
    points.iter_mut().for_each(|point| point.1 = f64::NAN);
    let picture = Picture::of(&history(points));
    assert!(picture.places(TRAIN).is_empty());
}

#[test]
fn an_evaluation_loss_has_a_curve_and_a_name_of_its_own() {
    let log = fs::read(fixture("oumi-0.9-trl-sft-eval.log")).unwrap();
    let picture = Picture::of(&scan(log).1);
    assert!(picture.places(TRAIN).len() > 500 && picture.places(EVAL).len() > 300);
    // The line of the legend, above the axes.
    let legend = (0..WIDTH).filter(|x| (0..36).any(|y| picture.at(*x, y) == EVAL));
    assert!(legend.count() > 15);
}

#[test]
fn any_losses_give_a_picture_or_an_error_and_no_panic() {
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
    for round in 0..30 {
        let mut history = History::default();
        let few = 1 + next(odd.len());
        for _ in 0..[1, 2, 3, 19, 25, 400][round % 6] {
            let value = |at: usize| Some(odd[at % few]).filter(|value| value.is_finite());
            let metrics = Metrics {
                step: (next(4) > 0).then(|| steps[next(steps.len())]),
                epoch: (next(3) > 0).then(|| odd[next(odd.len())]),
                loss: value(next(odd.len())),
                non_finite_loss: next(5) == 0,
                eval_loss: value(next(odd.len())).filter(|_| next(3) == 0),
                ..Metrics::default()
            };
            history.push(&metrics);
        }
        match loss(&history) {
            Ok(_) => drop(Picture::of(&history)),
            Err(error) => assert!(history.points().is_empty(), "{error}"),
        }
        history.sparkline(60);
    }
}
