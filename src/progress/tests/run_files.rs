//! Progress in the files of a run.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use crate::progress::Progress;
use crate::progress::metrics::Metrics;
use crate::progress::run_files::read_output_dir;

use super::{fixture, is_close};

#[test]
fn reads_metrics_and_state() {
    let dir = fixture("output");
    let progress = read_output_dir(&dir, None).unwrap().unwrap();
    let found = &progress.metrics;
    assert_eq!(
        (found.step, found.total_steps, found.epoch),
        (Some(6), Some(6), Some(0.375))
    );
    assert_eq!(
        (found.loss, found.learning_rate),
        (Some(5.736734867095947), Some(0.00016666666666666666))
    );
    assert!(
        is_close(found.steps_per_second, 1.077) && is_close(found.samples_per_second, 4.31),
        "{found:?}"
    );
    assert!(
        progress.source.contains("metrics_rank0000.jsonl")
            && progress.source.contains("trainer_state.json")
    );
    assert_eq!(read_output_dir(&dir.join("nowhere"), None).unwrap(), None);
}

#[test]
fn passes_over_older_files() {
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
            .map(|progress| (progress.metrics.step, progress.metrics.total_steps))
    };
    assert_eq!(step(None), Some((Some(20), Some(900))));
    assert_eq!(
        step(Some(now - Duration::from_secs(1000))),
        Some((Some(20), Some(900)))
    );
    assert_eq!(step(Some(now)), None);
}

#[test]
fn reads_state_with_nan() {
    let home = tempfile::tempdir().unwrap();
    fs::write(
        home.path().join("trainer_state.json"),
        r#"{"global_step": 3, "log_history": [{"loss": 2.0, "epoch": 0.1, "step": 1}, {"custom": 1, "step": 2},
            {"loss": NaN, "grad_norm": Infinity, "epoch": 0.3, "step": 3}], "max_steps": 0, "stateful_callbacks": {"a": {"loss": 9, "epoch": 9}}}"#,
    )
    .unwrap();
    let progress = read_output_dir(home.path(), None).unwrap().unwrap();
    assert_eq!(
        (
            progress.metrics.step,
            progress.metrics.total_steps,
            progress.metrics.loss.map(f64::is_nan)
        ),
        (Some(3), None, Some(true))
    );
    assert!(!progress.bad_news.is_empty());
}

#[test]
fn merges_by_age() {
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let progress =
        |step: u64, loss: Option<f64>, total: Option<u64>, source: &str, seconds: u64| {
            let metrics = Metrics {
                step: Some(step),
                loss,
                total_steps: total,
                ..Metrics::default()
            };
            Progress::new(metrics, source, at(seconds))
        };
    let log = progress(50, None, Some(100), "log", 200);
    let files = progress(40, Some(1.5), None, "files", 100);
    for merged in [log.clone().merged(files.clone()), files.merged(log)] {
        assert_eq!(
            (
                merged.metrics.step,
                merged.metrics.loss,
                merged.metrics.total_steps
            ),
            (Some(50), Some(1.5), Some(100))
        );
        assert_eq!(
            (merged.source.as_str(), merged.measured_at.as_deref()),
            ("log, files", Some("1970-01-01T00:03:20Z"))
        );
    }
}
