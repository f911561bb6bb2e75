//! The progress in a log that grows between one look and the next.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::time::{Duration, SystemTime};

use crate::progress::figures::Figures;
use crate::progress::{Followed, read_log};

use crate::logs::tests::log::TestLog;
use crate::progress::tests::progressing::{fixture, scan};

fn said(step: u64, loss: f64) -> String {
    format!("{{'loss': {loss}, 'epoch': 0.1, 'step': {step}}}\n")
}

/// The figures at a look, and the steps whose losses are known.
fn look(log: &mut Followed) -> (Option<Figures>, Vec<u64>) {
    match log.look().unwrap() {
        Some((progress, history)) => (
            Some(progress.figures),
            history
                .points()
                .iter()
                .filter_map(|point| point.step)
                .collect(),
        ),
        None => (None, Vec::new()),
    }
}

#[test]
fn each_look_says_what_a_reading_of_the_whole_log_does() {
    for name in [
        "oumi-0.9-trl-sft-eval.log",
        "oumi-0.9-oumi-trainer.log",
        "transformers-5.16-info.log",
        "trainers/megatron.log",
    ] {
        let whole = fs::read(fixture(name)).unwrap();
        let log = TestLog::new("");
        let mut followed = Followed::new(&log.path);
        assert_eq!(look(&mut followed), (None, Vec::new()));
        for (at, piece) in whole.chunks(333).enumerate() {
            log.append(piece);
            let so_far = &whole[..at * 333 + piece.len()];
            let (progress, history) = scan(so_far);
            let found = followed.look().unwrap();
            assert_eq!(
                found.as_ref().map(|(progress, _)| &progress.figures),
                progress.as_ref().map(|progress| &progress.figures),
                "{name} up to {}",
                so_far.len()
            );
            if let Some((_, found)) = found {
                assert_eq!(found, &history);
            }
        }
    }
}

#[test]
fn what_was_read_is_not_read_again() {
    let log = TestLog::new(said(1, 3.0) + &"nothing\n".repeat(100));
    let mut followed = Followed::new(&log.path);
    assert_eq!(look(&mut followed).1, [1]);
    // Written over in place, where no look should come again.
    let mut file = OpenOptions::new().write(true).open(&log.path).unwrap();
    file.write_all(said(7, 9.9).as_bytes()).unwrap();
    log.append(said(2, 2.0));
    let (figures, steps) = look(&mut followed);
    assert_eq!((figures.unwrap().loss, steps), (Some(2.0), vec![1, 2]));
    assert_eq!(look(&mut followed).1, [1, 2]);
}

#[test]
fn a_log_that_is_cut_short_or_replaced_is_another_run() {
    let first = said(8, 3.0) + &said(9, 2.9);
    let log = TestLog::new(&first);
    let mut followed = Followed::new(&log.path);
    assert_eq!(look(&mut followed).1, [8, 9]);
    // Cut short.
    fs::write(&log.path, said(1, 5.0)).unwrap();
    let (figures, steps) = look(&mut followed);
    assert_eq!((figures.unwrap().step, steps), (Some(1), vec![1]));
    // Written anew in place, and longer than before.
    fs::write(&log.path, said(4, 5.0) + &said(5, 4.0)).unwrap();
    assert_eq!(look(&mut followed).1, [4, 5]);
    // Another file in its place.
    let other = log.path.with_extension("new");
    fs::write(&other, said(4, 5.0) + &said(5, 4.0) + &said(6, 3.0)).unwrap();
    fs::rename(&other, &log.path).unwrap();
    assert_eq!(look(&mut followed).1, [4, 5, 6]);
    // Emptied.
    fs::write(&log.path, "").unwrap();
    assert_eq!(look(&mut followed), (None, Vec::new()));
}

#[test]
fn a_log_that_is_not_there_yet_is_an_error_and_then_followed() {
    let log = TestLog::new(said(1, 3.0));
    let mut followed = Followed::new(&log.path);
    assert_eq!(look(&mut followed).1, [1]);
    let aside = log.path.with_extension("aside");
    fs::rename(&log.path, &aside).unwrap();
    assert!(followed.look().is_err());
    fs::rename(&aside, &log.path).unwrap();
    log.append(said(2, 2.0));
    assert_eq!(look(&mut followed).1, [1, 2]);
}

#[test]
fn a_huge_log_costs_no_more_than_its_beginning_and_its_end() {
    let log = TestLog::new(said(1, 3.0));
    let grow = |to: u64, text: &str| {
        let mut file = OpenOptions::new().write(true).open(&log.path).unwrap();
        file.set_len(to).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    // Nobody could read these holes in the time a test may take.
    grow(10_000_000_000, &format!("\n{}", said(500, 2.0)));
    let mut followed = Followed::new(&log.path);
    assert_eq!(look(&mut followed).1, [1, 500]);
    grow(30_000_000_000, &format!("\n{}", said(900, 1.0)));
    let (figures, steps) = look(&mut followed);
    assert_eq!(
        (figures.unwrap().step, steps),
        (Some(900), vec![1, 500, 900])
    );
    let (_, history) = read_log(&log.path).unwrap().unwrap();
    assert_eq!(history.points().len(), 2);
}

#[test]
fn figures_grow_old_while_a_log_without_stamps_says_other_things() {
    let log = TestLog::new(said(1, 3.0));
    let written = SystemTime::now() - Duration::from_secs(1000);
    let set = |time| {
        let file = OpenOptions::new().append(true).open(&log.path).unwrap();
        file.set_modified(time).unwrap();
    };
    set(written);
    let mut followed = Followed::new(&log.path);
    let measured = followed.look().unwrap().unwrap().0.measured_at;
    log.append("still alive\n");
    set(written + Duration::from_secs(500));
    let (progress, _) = followed.look().unwrap().unwrap();
    assert_eq!(progress.measured_at, measured);
    let age = progress.age(written + Duration::from_secs(500)).unwrap();
    assert!((500..=501).contains(&age.as_secs()), "{age:?}");
    log.append(said(2, 2.0));
    set(written + Duration::from_secs(600));
    assert!(followed.look().unwrap().unwrap().0.measured_at > measured);
}
