//! Progress in the files of a run.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use super::{fixture, metrics};
use crate::progress::run_files::read;
use crate::progress::{Progress, metrics::Metrics};

#[test]
fn the_newest_file_of_this_run_counts() {
    let home = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let write = |name: &str, text: &str, age: u64| {
        let path = home.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let file = File::options().append(true).open(&path).unwrap();
        file.set_modified(now - Duration::from_secs(age)).unwrap();
    };
    let found = |started: Option<u64>| {
        let started = started.map(|age| now - Duration::from_secs(age));
        read(home.path(), started).map(|progress| progress.metrics)
    };
    assert_eq!(found(None), None);
    let state = fs::read_to_string(fixture("output/trainer_state.json")).unwrap();
    write("checkpoint-6/trainer_state.json", &state, 50);
    write(
        "trainer_state.json",
        &state.replace("\"global_step\": 6", "\"global_step\": 900"),
        5000,
    );
    let of_state = found(Some(100)).unwrap();
    assert_eq!((of_state.step, of_state.total_steps), (Some(6), Some(6)));
    assert!(of_state.loss.is_some() && of_state.learning_rate.is_some());
    assert_eq!(found(Some(10)), None);
    // Of a long run the end is read.
    let (head, entry) = ("\"log_history\": [", "\n{\n\"loss\": 9.5\n},");
    let long = state.replace(head, &(head.to_owned() + &entry.repeat(80_000)));
    write("checkpoint-6/trainer_state.json", &long, 40);
    assert_eq!(found(Some(45)).unwrap(), of_state);
    // Two steps on, with a figure that is no number.
    write(
        "metrics_rank0000.jsonl",
        "{\"step\": 8, \"loss\": NaN, \"epoch\": 0.5}\n",
        20,
    );
    let of_metrics = found(None).unwrap();
    assert!(of_metrics.step == Some(8) && of_metrics.loss.unwrap().is_nan());
    assert_eq!(of_metrics.total_steps, Some(6), "of the older file");
}

#[test]
fn files_complete_a_log_without_step_or_total() {
    let of = |log: &str| Progress {
        metrics: metrics(log),
        ..Progress::default()
    };
    let files = Progress {
        metrics: Metrics {
            step: Some(6),
            total_steps: Some(60),
            seconds_left: Some(900.0),
            ..Metrics::default()
        },
        ..Progress::default()
    };
    // The time left of either is not that of the other's step.
    let stepped = of("{'loss': 1.5, 'learning_rate': 0.1, 'epoch': 0.1, 'step': 7}\n");
    let found = stepped.completed(Some(files.clone())).metrics;
    assert_eq!((found.step, found.total_steps), (Some(7), Some(60)));
    assert_eq!(found.seconds_left, None);
    let mut lacks = of("{'loss': 1.5, 'learning_rate': 0.1, 'epoch': 0.1}\n");
    lacks.metrics.seconds_left = Some(5.0);
    let found = lacks.completed(Some(files.clone())).metrics;
    assert_eq!(
        (found.step, found.total_steps, found.loss),
        (Some(6), Some(60), Some(1.5))
    );
    assert_eq!(found.seconds_left, None);
    let whole = of("step: 7/90 loss: 1.5\n");
    assert_eq!(whole.clone().completed(Some(files)), whole);
}
