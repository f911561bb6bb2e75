//! The end of a log.

use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use crate::logs::cursor::Cursor;
use crate::logs::read::{Excerpt, ReadOptions};
use crate::logs::tests::log::{file_tail, text_since, text_tail};

fn read(content: &[u8], lines: usize, options: ReadOptions) -> Excerpt {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    let found = file_tail(file.path(), lines, options).unwrap();
    let at_hand = text_tail(content, lines, options);
    assert_eq!((&found.text, &found.notes), (&at_hand.text, &at_hand.notes));
    found
}

fn ended() -> ReadOptions<'static> {
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
    assert_eq!(
        (found.lines, found.left_out_lines, found.remaining_bytes),
        (3, 0, 0)
    );
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
    assert_eq!(found.left_out_lines, 500 - found.lines);
    let note = &found.notes[0];
    assert!(
        note.contains(&format!(
            "oldest {} of these 500 lines",
            found.left_out_lines
        )),
        "{note}"
    );
    // The note says which budget would do, and it does.
    let enough: usize = note
        .split("with max_bytes=")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let all = read(
        log.as_bytes(),
        500,
        ReadOptions {
            max_bytes: enough,
            ..options
        },
    );
    assert_eq!(
        (all.lines, all.left_out_lines, all.notes.len()),
        (500, 0, 0)
    );
    // A line fewer would not have fitted.
    let less = read(
        log.as_bytes(),
        500,
        ReadOptions {
            max_bytes: enough - 1,
            ..options
        },
    );
    assert_eq!(less.left_out_lines, 1);
}

#[test]
fn of_one_line_that_does_not_fit_the_end_is_kept_and_no_word_is_halved() {
    let log = format!("{} secret-in-two-halves END\n", "word ".repeat(3000));
    let options = ReadOptions {
        max_bytes: 20,
        ..ReadOptions::default()
    };
    let found = read(log.as_bytes(), 1, options);
    assert_eq!((found.text.trim(), found.lines), ("END", 1));
    assert_eq!(found.left_out_lines, 0);
    assert!(
        found.notes[0].contains("of the line were left out"),
        "{:?}",
        found.notes
    );
}

#[test]
fn what_may_be_shown_is_made_of_whole_lines_and_cut_afterwards() {
    let redact = |text: &str| text.replace("secret in words", "***");
    let options = |max_bytes| ReadOptions {
        max_bytes,
        redact: &redact,
        ..ReadOptions::default()
    };
    let log = format!("one\nsecret in words {}\nsecret in", "x ".repeat(20));
    for max_bytes in 40..56 {
        let found = text_tail(log.as_bytes(), 1, options(2 * max_bytes));
        assert!(!found.text.contains("words"), "{}", found.text);
        let new = text_since(log.as_bytes(), true, &Cursor::start(), options(max_bytes));
        assert!(!new.text.contains("words"), "{}", new.text);
    }
    let all = text_since(log.as_bytes(), true, &Cursor::start(), options(1000));
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
        found.notes[0].contains("of the log were read, which is 931.3 GiB long"),
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
    let log = b"[\xe2\x80\xa6 12 bytes of this line left out] a\n";
    assert!(!text_tail(log, 5, ReadOptions::default()).truncated);
    let start = Cursor::start();
    assert!(!text_since(log, true, &start, ReadOptions::default()).truncated);
    let long = [vec![b'x'; 20_000], b" END\n".to_vec()].concat();
    assert!(text_tail(&long, 5, ReadOptions::default()).truncated);
    assert!(text_since(&long, true, &start, ReadOptions::default()).truncated);
}
