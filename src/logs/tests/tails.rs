//! The end of a log.

use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use crate::logs::Log;
use crate::logs::fold::CUT;
use crate::logs::read::{Excerpt, ReadOptions, read_since, tail};
use crate::logs::tests::log::{file_tail, text_since, text_tail};
use crate::redact::Redactor;
use crate::text::cursor::Cursor;

fn read(content: &[u8], lines: usize, options: ReadOptions) -> Excerpt {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    let found = file_tail(file.path(), lines, options).unwrap();
    let at_hand = text_tail(content, lines, options);
    assert_eq!((&found.text, &found.notes), (&at_hand.text, &at_hand.notes));
    found
}

fn ended() -> ReadOptions {
    ReadOptions {
        ended: true,
        ..ReadOptions::default()
    }
}

#[test]
fn lines_are_counted_after_folding() {
    let log = b"first\na\rb\rc\nagain\nagain\nagain\nagain\nlast\n";
    let found = read(log, 3, ReadOptions::default());
    assert_eq!(found.text, "again\n… repeated 3 times\nlast");
    assert_eq!((found.lines, found.remaining_bytes), (3, 0));
    assert!(found.notes.is_empty());
    assert_eq!(
        read(log, 100, ReadOptions::default()).text,
        "first\nc\nagain\n… repeated 3 times\nlast"
    );
}

#[test]
fn no_lines_and_an_empty_log_are_no_error() {
    for found in [
        read(b"one\n", 0, ReadOptions::default()),
        read(b"", 5, ReadOptions::default()),
    ] {
        assert_eq!(
            (found.text.as_str(), found.lines, found.unfinished),
            ("", 0, None)
        );
        assert!(found.notes.is_empty());
    }
}

#[test]
fn the_line_that_is_still_being_written_stands_beside_the_text() {
    let log = b"one\ntwo\n 10%| 1/10\r 20%| 2/10";
    let found = read(log, 5, ReadOptions::default());
    assert_eq!((found.text.as_str(), found.lines), ("one\ntwo", 2));
    assert_eq!(found.unfinished.as_deref(), Some(" 20%| 2/10"));
    let ended = read(log, 5, ended());
    assert_eq!(
        (ended.text.as_str(), ended.lines),
        ("one\ntwo\n 20%| 2/10", 3)
    );
    assert_eq!(ended.unfinished, None);
}

#[test]
fn what_does_not_fit_is_left_out_at_the_front_and_said() {
    let log: String = (0..10_000).map(|i| format!("line {i}\n")).collect();
    let options = ReadOptions {
        max_bytes: 1000,
        ..ReadOptions::default()
    };
    let found = read(log.as_bytes(), 500, options);
    assert!(found.text.len() <= 1000 && found.text.len() > 980);
    assert!(found.text.starts_with("line ") && found.text.ends_with("line 9999"));
    assert_eq!(found.lines, found.text.lines().count());
    let note = &found.notes[0];
    assert!(
        note.starts_with(&format!("These are the newest {} lines", found.lines)),
        "{note}"
    );
}

#[test]
fn of_a_line_longer_than_half_the_budget_the_end_is_kept() {
    let log = format!("{}half-of-a-word END\nnext\n", "word ".repeat(3000));
    let options = ReadOptions {
        max_bytes: 240,
        ..ReadOptions::default()
    };
    let found = read(log.as_bytes(), 2, options);
    assert!(found.text.len() <= 240 && found.truncated);
    assert!(found.text.starts_with(CUT), "{}", found.text);
    assert!(found.text.ends_with(" word half-of-a-word END\nnext"));
    assert_eq!(found.lines, 2);
}

#[test]
fn a_value_is_hidden_before_anything_is_cut() {
    let secrets = Redactor::new(["secret in words"]);
    let log = format!("one\nsecret in words {}\nsecret in", "x ".repeat(20));
    for max_bytes in 130..200 {
        let options = ReadOptions {
            max_bytes,
            ..ReadOptions::default()
        };
        let mut opened = Log::from_text(log.as_bytes(), true, &secrets);
        let found = tail(&mut opened, 1, options).unwrap();
        let new = read_since(&mut opened, &Cursor::default(), options).unwrap();
        for found in [found, new] {
            assert!(!found.text.contains("words"), "{}", found.text);
            assert!(!found.unfinished.unwrap().contains("secret"));
        }
    }
    let mut opened = Log::from_text(log.as_bytes(), true, &secrets);
    let all = read_since(&mut opened, &Cursor::default(), ReadOptions::default()).unwrap();
    assert!(all.text.starts_with("one\n*** x x"), "{}", all.text);
    assert_eq!((all.lines, all.truncated), (2, false));
}

#[test]
fn a_day_of_progress_bar_tails_as_a_few_lines() {
    let mut file = BufWriter::new(tempfile::NamedTempFile::new().unwrap());
    writeln!(file, "Starting training...").unwrap();
    for n in 0..200_000 {
        write!(
            file,
            "\r{:3}%|{}| {n}/200000 [2:03:04<21:03:04,  4.51it/s, loss=0.12]",
            n / 2000,
            "█".repeat(10)
        )
        .unwrap();
    }
    writeln!(file).unwrap();
    writeln!(file, "Traceback (most recent call last):\nKeyError: 'x'").unwrap();
    let file = file.into_inner().unwrap();
    assert!(fs::metadata(file.path()).unwrap().len() > 17_000_000);
    let found = file_tail(file.path(), 50, ended()).unwrap();
    assert_eq!(found.lines, 4, "{}", found.text);
    assert!(
        found
            .text
            .starts_with("Starting training...\n 99%|██████████| 199999/200000 [")
    );
    assert!(
        found
            .text
            .ends_with("\nTraceback (most recent call last):\nKeyError: 'x'")
    );
    assert!(found.notes.is_empty(), "{:?}", found.notes);
}

#[test]
fn a_day_of_nested_bars_tails_as_a_few_lines() {
    let mut file = BufWriter::new(tempfile::NamedTempFile::new().unwrap());
    writeln!(file, "Starting training...").unwrap();
    for n in 0..50_000 {
        write!(file, "\n\rinner {n}\x1b[A\router {n}").unwrap();
    }
    write!(file, "\n\n").unwrap();
    let file = file.into_inner().unwrap();
    let found = file_tail(file.path(), 50, ended()).unwrap();
    assert_eq!(found.text, "Starting training...\nouter 49999\ninner 49999");
}

#[test]
fn the_size_of_the_log_does_not_matter() {
    // 1 TB, all but the end of it a hole.
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1_000_000_000_000).unwrap();
    file.seek(SeekFrom::End(0)).unwrap();
    file.write_all(b"\nlast but one\nlast\n").unwrap();
    let start = Instant::now();
    assert_eq!(
        file_tail(file.path(), 2, ReadOptions::default())
            .unwrap()
            .text,
        "last but one\nlast"
    );
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    // More lines than there are: the hole is not read to its beginning, and that is said.
    let found = file_tail(file.path(), 9, ReadOptions::default()).unwrap();
    assert!(found.text.ends_with("last but one\nlast"));
    assert!(
        found.notes[0].contains("of the log were read, which is 931.32 GiB long"),
        "{:?}",
        found.notes
    );
}

#[test]
fn raw_lines_are_as_they_are_but_valid_text_that_leads_no_terminal() {
    let options = ReadOptions {
        raw: true,
        ..ReadOptions::default()
    };
    let found = read(b"a\rb\x1b[31m  \nx\nx\nx\n\xff\0\n", 4, options);
    assert_eq!(found.text, "x\nx\nx\n\u{fffd}\u{fffd}");
    assert_eq!(
        read(b"a\rb\x1b[31m  \nx\n", 2, options).text,
        "a\rb\u{fffd}[31m  \nx"
    );
    let long = [vec![b'x'; 1_000_000], b"END\n".to_vec()].concat();
    let found = read(&long, 1, options);
    assert!(found.text.len() <= options.max_bytes && found.text.ends_with("xEND"));
    assert!(!found.notes.is_empty() || found.text.contains("left out"));
}

#[test]
fn a_missing_log_is_the_error_of_the_file_system() {
    let home = tempfile::tempdir().unwrap();
    let error = file_tail(&home.path().join("none.log"), 1, ReadOptions::default()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    File::create(home.path().join("none.log")).unwrap();
    assert_eq!(
        file_tail(&home.path().join("none.log"), 1, ReadOptions::default())
            .unwrap()
            .lines,
        0
    );
}

#[test]
fn truncated_is_not_decided_by_the_text() {
    let log = format!("{CUT}a\n");
    assert!(!text_tail(log.as_bytes(), 5, ReadOptions::default()).truncated);
    let start = Cursor::default();
    assert!(!text_since(log.as_bytes(), true, &start, ReadOptions::default()).truncated);
    let long = [vec![b'x'; 20_000], b" END\n".to_vec()].concat();
    assert!(text_tail(&long, 5, ReadOptions::default()).truncated);
    assert!(text_since(&long, true, &start, ReadOptions::default()).truncated);
}

#[test]
fn of_a_run_of_metrics_the_first_and_the_last_are_given() {
    let line = |step: u32, loss: &str| {
        format!(
            "{{'max_steps': 500, 'loss': '{loss}', 'learning_rate': '{step}e-06', 'step': {step}}}\n"
        )
    };
    let mut log = "  ____  _    _\n / __ \\| |  | |\n\nstart\n".to_owned();
    (1..=150).for_each(|step| log += &line(step, "2.5"));
    log += &line(151, "nan");
    (152..=153).for_each(|step| log += &line(step, "2.25"));
    log += "==========\nthe end\n";
    let found = read(log.as_bytes(), 200, ReadOptions::default());
    let expected = [
        "\nstart\n",
        &line(1, "2.5"),
        "… 148 lines like it, steps 2 to 149\n",
        &line(150, "2.5"),
        &line(151, "nan"),
        &line(152, "2.25"),
        &line(153, "2.25"),
        "the end",
    ];
    assert_eq!(found.text, expected.concat());
    let start = Cursor::default();
    assert_eq!(
        text_since(log.as_bytes(), true, &start, ReadOptions::default()).text,
        found.text
    );
    // As DeepSpeed words them.
    let steps = |step: u32| format!("steps: {step} loss: 2.5000 iter time (s): 1.250\n");
    let log: String = (1..=9).map(steps).collect();
    let found = read(log.as_bytes(), 9, ReadOptions::default());
    assert!(
        found.text.contains("7 lines like it, steps 2 to 8"),
        "{}",
        found.text
    );
    // Bars between them go, where a transport gives each state a line; the newest stays.
    let bar = |step: u32| format!("{step}%|█ | {step}/99 [00:01<00:09,  4.51it/s]\n");
    let steps = (1..=50).map(|step| bar(step) + &bar(step + 1) + "\n" + &line(step, "2.5") + "\n");
    let log = steps.collect::<String>() + &bar(50) + &bar(51) + "the end\n";
    let found = read(log.as_bytes(), 200, ReadOptions::default());
    let expected = [
        &bar(2),
        "\n",
        &line(1, "2.5"),
        "… 48 lines like it, steps 2 to 49\n",
        &line(50, "2.5"),
        &bar(51),
        "the end",
    ];
    assert_eq!(found.text, expected.concat());
    let bar = |step: u32| format!("{step}%|█ | {step}/99 [00:01<00:09,  4.51it/s, loss=2.5]\n");
    let bars: String = (1..=9).map(bar).collect();
    assert_eq!(
        read(bars.as_bytes(), 20, ReadOptions::default()).text + "\n",
        bar(9)
    );
    // Lines that only count are none of metrics.
    let numbers: String = (1..=9).map(|n| format!("done {n} of 9\n")).collect();
    assert_eq!(
        read(numbers.as_bytes(), 20, ReadOptions::default()).lines,
        9
    );
}

#[test]
fn the_limits_of_an_answer_bound_its_memory() {
    let log = "a\nb\n".repeat(300_000);
    let options = ReadOptions {
        max_bytes: 256 * 1024,
        ..ReadOptions::default()
    };
    let found = text_tail(log.as_bytes(), usize::MAX, options);
    assert!(found.text.len() <= 256 * 1024 && found.truncated);
    assert!(found.notes[0].contains("grep"), "{:?}", found.notes);
}
