//! Repeated reads of a log that grows.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::time::{Duration, SystemTime};

use crate::progress::metrics::Metrics;
use crate::progress::{IncrementalReader, read_log};

use super::{fixture, scan, step_line};
use crate::logs::tests::log::TestLog;

/// The metrics at a read, and the steps whose losses are known.
fn read(log: &mut IncrementalReader) -> (Option<Metrics>, Vec<u64>) {
    let metrics = log.read().unwrap().map(|progress| progress.metrics);
    let points = log.scanner.training.history.points().iter();
    (metrics, points.filter_map(|point| point.step).collect())
}

#[test]
fn agrees_with_a_whole_read() {
    for name in [
        "oumi-0.9-trl-sft-eval.log",
        "oumi-0.9-oumi-trainer.log",
        "transformers-5.16-info.log",
        "trainers/megatron.log",
    ] {
        let whole = fs::read(fixture(name)).unwrap();
        let log = TestLog::new("");
        let mut reader = IncrementalReader::new(&log.path);
        assert_eq!(read(&mut reader), (None, Vec::new()));
        for (at, piece) in whole.chunks(333).enumerate() {
            log.append(piece);
            let so_far = &whole[..at * 333 + piece.len()];
            let (progress, history) = scan(so_far);
            let found = reader.read().unwrap();
            assert_eq!(
                found.as_ref().map(|progress| &progress.metrics),
                progress.as_ref().map(|progress| &progress.metrics),
                "{name} up to {}",
                so_far.len()
            );
            assert_eq!(reader.scanner.training.history, history);
        }
    }
}

#[test]
fn reads_nothing_twice() {
    let log = TestLog::new(step_line(1, 3.0) + &"nothing\n".repeat(100));
    let mut reader = IncrementalReader::new(&log.path);
    assert_eq!(read(&mut reader).1, [1]);
    // Written over in place, where no look should come again.
    let mut file = OpenOptions::new().write(true).open(&log.path).unwrap();
    file.write_all(step_line(7, 9.9).as_bytes()).unwrap();
    log.append(step_line(2, 2.0));
    let (figures, steps) = read(&mut reader);
    assert_eq!((figures.unwrap().loss, steps), (Some(2.0), vec![1, 2]));
    assert_eq!(read(&mut reader).1, [1, 2]);
}

#[test]
fn starts_over_in_a_replaced_log() {
    let first = step_line(8, 3.0) + &step_line(9, 2.9);
    let log = TestLog::new(&first);
    let mut reader = IncrementalReader::new(&log.path);
    assert_eq!(read(&mut reader).1, [8, 9]);
    // Cut short.
    fs::write(&log.path, step_line(1, 5.0)).unwrap();
    let (figures, steps) = read(&mut reader);
    assert_eq!((figures.unwrap().step, steps), (Some(1), vec![1]));
    // Written anew in place, and longer than before.
    fs::write(&log.path, step_line(4, 5.0) + &step_line(5, 4.0)).unwrap();
    assert_eq!(read(&mut reader).1, [4, 5]);
    // Another file in its place.
    let other = log.path.with_extension("new");
    fs::write(
        &other,
        step_line(4, 5.0) + &step_line(5, 4.0) + &step_line(6, 3.0),
    )
    .unwrap();
    fs::rename(&other, &log.path).unwrap();
    assert_eq!(read(&mut reader).1, [4, 5, 6]);
    // Emptied.
    fs::write(&log.path, "").unwrap();
    assert_eq!(read(&mut reader), (None, Vec::new()));
}

#[test]
fn goes_on_after_an_error() {
    let log = TestLog::new(step_line(1, 3.0));
    let mut reader = IncrementalReader::new(&log.path);
    assert_eq!(read(&mut reader).1, [1]);
    let other = log.path.with_extension("old");
    fs::rename(&log.path, &other).unwrap();
    assert!(reader.read().is_err());
    fs::rename(&other, &log.path).unwrap();
    log.append(step_line(2, 2.0));
    assert_eq!(read(&mut reader).1, [1, 2]);
}

#[test]
fn reads_both_ends_of_a_huge_log() {
    let log = TestLog::new(step_line(1, 3.0));
    let grow = |to: u64, text: &str| {
        let mut file = OpenOptions::new().write(true).open(&log.path).unwrap();
        file.set_len(to).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    // Nobody could read these holes in the time a test may take.
    grow(10_000_000_000, &format!("\n{}", step_line(500, 2.0)));
    let mut reader = IncrementalReader::new(&log.path);
    assert_eq!(read(&mut reader).1, [1, 500]);
    grow(30_000_000_000, &format!("\n{}", step_line(900, 1.0)));
    let (figures, steps) = read(&mut reader);
    assert_eq!(
        (figures.unwrap().step, steps),
        (Some(900), vec![1, 500, 900])
    );
    let (_, history) = read_log(&log.path).unwrap();
    assert_eq!(history.points().len(), 2);
}

#[test]
fn metrics_grow_old_in_a_growing_log() {
    let log = TestLog::new(step_line(1, 3.0));
    let written = SystemTime::now() - Duration::from_secs(1000);
    let set = |time| {
        let file = OpenOptions::new().append(true).open(&log.path).unwrap();
        file.set_modified(time).unwrap();
    };
    set(written);
    let mut reader = IncrementalReader::new(&log.path);
    let measured = reader.read().unwrap().unwrap().measured_at;
    log.append("still alive\n");
    set(written + Duration::from_secs(500));
    let progress = reader.read().unwrap().unwrap();
    assert_eq!(progress.measured_at, measured);
    let age = progress.age(written + Duration::from_secs(500)).unwrap();
    assert!((500..=501).contains(&age.as_secs()), "{age:?}");
    log.append(step_line(2, 2.0));
    set(written + Duration::from_secs(600));
    assert!(reader.read().unwrap().unwrap().measured_at > measured);
}
