//! How far a run is, from what it writes; its losses; whether its log stands still.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use crate::progress::Progress;
use crate::progress::figures::Figures;
use crate::progress::files::read_output_dir;
use crate::progress::history::{History, MAX_POINTS, sparkline};
use crate::progress::rhythm::Rhythm;

use crate::progress::tests::progressing::{close, fixture, scan};

#[test]
fn the_output_folder_tells_what_the_log_does_not() {
    let dir = fixture("output");
    let (progress, history) = read_output_dir(&dir, None).unwrap().unwrap();
    let found = &progress.figures;
    assert_eq!(
        (found.step, found.total_steps, found.epoch),
        (Some(6), Some(6), Some(0.375))
    );
    assert_eq!(
        (found.loss, found.learning_rate),
        (Some(5.736734867095947), Some(0.00016666666666666666))
    );
    assert!(
        close(found.steps_per_second, 1.077) && close(found.samples_per_second, 4.31),
        "{found:?}"
    );
    // Two runs were appended to the metrics: their steps come once.
    assert_eq!(history.points().len(), 6);
    assert!(
        progress.source.contains("metrics_rank0000.jsonl")
            && progress.source.contains("trainer_state.json")
    );
    assert_eq!(read_output_dir(&dir.join("nowhere"), None).unwrap(), None);
}

#[test]
fn files_of_an_earlier_run_and_older_checkpoints_are_passed_over() {
    let home = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let write = |name: &str, step: u64, age: u64| {
        let path = home.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let state = fs::read_to_string(fixture("output/trainer_state.json"))
            .unwrap()
            .replace("\"global_step\": 6,", &format!("\"global_step\": {step},"))
            .replace("\"max_steps\": 6,", "\"max_steps\": 900,");
        fs::write(&path, state).unwrap();
        File::open(&path)
            .unwrap()
            .set_modified(now - Duration::from_secs(age))
            .unwrap();
    };
    write("checkpoint-500/trainer_state.json", 500, 5000);
    write("checkpoint-20/trainer_state.json", 20, 50);
    write("checkpoint-10/trainer_state.json", 10, 100);
    let step = |started: Option<SystemTime>| {
        read_output_dir(home.path(), started)
            .unwrap()
            .map(|(progress, _)| (progress.figures.step, progress.figures.total_steps))
    };
    assert_eq!(step(None), Some((Some(20), Some(900))));
    assert_eq!(
        step(Some(now - Duration::from_secs(1000))),
        Some((Some(20), Some(900)))
    );
    assert_eq!(step(Some(now)), None);
}

#[test]
fn a_state_with_nan_and_other_keys_is_read() {
    let home = tempfile::tempdir().unwrap();
    fs::write(
        home.path().join("trainer_state.json"),
        r#"{"global_step": 3, "log_history": [{"loss": 2.0, "epoch": 0.1, "step": 1}, {"custom": 1, "step": 2},
            {"loss": NaN, "grad_norm": Infinity, "epoch": 0.3, "step": 3}], "max_steps": 0, "stateful_callbacks": {"a": {"loss": 9, "epoch": 9}}}"#,
    )
    .unwrap();
    let (progress, history) = read_output_dir(home.path(), None).unwrap().unwrap();
    assert_eq!(
        (
            progress.figures.step,
            progress.figures.total_steps,
            progress.figures.loss
        ),
        (Some(3), None, None)
    );
    let told: Vec<_> = history.points().iter().map(|point| point.loss).collect();
    assert!(progress.figures.warning.is_some());
    assert_eq!(told, [Some(2.0), None]);
}

#[test]
fn log_and_files_are_merged_by_their_age() {
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let progress = |step: u64, loss: Option<f64>, total: Option<u64>, source: &str| Progress {
        figures: Figures {
            step: Some(step),
            loss,
            total_steps: total,
            ..Figures::default()
        },
        measured_at: None,
        source: source.to_owned(),
    };
    let log = progress(50, None, Some(100), "log").measured(at(200));
    let files = progress(40, Some(1.5), None, "files").measured(at(100));
    for merged in [log.clone().merged(files.clone()), files.merged(log)] {
        assert_eq!(
            (
                merged.figures.step,
                merged.figures.loss,
                merged.figures.total_steps
            ),
            (Some(50), Some(1.5), Some(100))
        );
        assert_eq!(
            (merged.source.as_str(), merged.measured_at.as_deref()),
            ("log, files", Some("1970-01-01T00:03:20Z"))
        );
    }
}

fn point(step: u64, loss: f64) -> Figures {
    Figures {
        step: Some(step),
        loss: Some(loss),
        ..Figures::default()
    }
}

#[test]
fn a_resumed_run_replaces_the_steps_it_does_again() {
    let mut history = History::default();
    for step in [1, 2, 3, 4, 5] {
        history.push(&point(step, 5.0));
    }
    history.push(&point(3, 4.0));
    history.push(&Figures {
        step: Some(3),
        eval_loss: Some(4.5),
        ..Figures::default()
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
fn a_long_history_is_thinned_and_keeps_its_spikes() {
    let mut history = History::default();
    for step in 0..200_000 {
        history.push(&point(
            step,
            if step == 77_777 {
                99.0
            } else {
                1.0 + 1.0 / (step + 1) as f64
            },
        ));
    }
    assert!(history.points().len() <= MAX_POINTS);
    assert!(
        history
            .points()
            .iter()
            .any(|point| point.loss == Some(99.0))
    );
    assert!(history.points().is_sorted_by_key(|point| point.step));
    assert_eq!(history.points().first().unwrap().step, Some(0));
    assert!(history.points().last().unwrap().step.unwrap() > 199_990);
    // As densely at the beginning as at the end.
    let in_first_tenth = history
        .points()
        .iter()
        .filter(|point| point.step < Some(20_000))
        .count();
    let tenth = history.points().len() / 10;
    assert!(
        (tenth * 8 / 10..=tenth * 12 / 10).contains(&in_first_tenth),
        "{in_first_tenth} of {}",
        history.points().len()
    );
    // Also when every point has an evaluation loss.
    for step in 0..100_000 {
        history.push(&Figures {
            step: Some(300_000 + step),
            eval_loss: Some(1.0),
            ..Figures::default()
        });
    }
    assert!(history.points().len() <= MAX_POINTS);
}

#[test]
fn a_sparkline_shows_the_loss_in_one_line() {
    assert_eq!(
        sparkline(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], 60),
        "▁▂▃▄▅▆▇█"
    );
    assert_eq!(sparkline(&[2.0, 2.0, 2.0], 60), "▁▁▁");
    assert_eq!(sparkline(&[], 60), "");
    assert_eq!(sparkline(&[f64::NAN, f64::INFINITY], 60), "××");
    assert_eq!(sparkline(&[f64::MAX, -f64::MAX, f64::MAX], 60), "█▁█");
    let falling: Vec<f64> = (0..10_000).map(|step| 1.0 / f64::from(step + 1)).collect();
    assert_eq!(sparkline(&falling, 500).chars().count(), 60);
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
    assert_eq!(one.sparkline(60).unwrap(), "loss 2.500, step 5");
    // What is no number is a cross.
    one.push(&point(6, 2.0));
    one.push(&Figures {
        step: Some(7),
        bad_loss: true,
        ..Figures::default()
    });
    assert_eq!(
        one.sparkline(60).unwrap(),
        "loss 2.500 █▁× nan, steps 5 to 7"
    );
}

#[test]
fn a_log_has_stalled_when_it_is_silent_against_its_own_rhythm() {
    let seconds = Duration::from_secs;
    let mut every_second = Rhythm::default();
    (0..20).for_each(|second| every_second.written_at(seconds(second)));
    assert_eq!(every_second.usual(), Some(seconds(1)));
    assert_eq!(every_second.stalled(seconds(299)), None);
    let stalled = every_second.stalled(seconds(400)).unwrap();
    assert_eq!((stalled.silent, stalled.usual), (seconds(400), seconds(1)));
    assert!(
        stalled.sentence().contains("silent for 6 min") && stalled.sentence().contains("every 1 s")
    );
    // One that speaks every half hour may be silent for hours.
    let mut slow = Rhythm::default();
    (0..20).for_each(|half_hour| slow.written_at(seconds(half_hour * 1800)));
    assert_eq!(slow.stalled(seconds(4 * 3600)), None);
    assert!(slow.stalled(seconds(6 * 3600)).is_some());
    // Long pauses that come now and then, for checkpoints, are part of the rhythm.
    let mut pausing = Rhythm::default();
    (0..60).for_each(|n| pausing.silence(seconds(if n % 5 == 0 { 600 } else { 1 })));
    assert_eq!(pausing.stalled(seconds(3000)), None);
    // Of a log that has hardly begun nothing is known, nor of one that is seen unchanged.
    let mut young = Rhythm::default();
    (0..4).for_each(|second| young.written_at(seconds(second)));
    (0..9).for_each(|_| young.written_at(seconds(3)));
    assert_eq!(young.stalled(seconds(100_000)), None);
}
