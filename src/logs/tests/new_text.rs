//! What is new in a log since a cursor.

use std::fs;
use std::path::Path;

use crate::logs::read::{Excerpt, ReadOptions};
use crate::logs::source::{GAP, REPLACED};

use crate::logs::tests::log::{TestLog, file_since, file_tail, text_since, text_tail};
use crate::text::cursor::Cursor;

impl TestLog {
    /// As the next server would: the cursor has only been a text meanwhile.
    fn since(&self, last: &Excerpt, options: ReadOptions) -> Excerpt {
        since(&self.path, last, options)
    }
}

fn since(path: &Path, last: &Excerpt, options: ReadOptions) -> Excerpt {
    let cursor = Cursor::parse(&last.cursor.to_string()).unwrap();
    assert_eq!(cursor, last.cursor);
    file_since(path, &cursor, options)
}

fn budget(max_bytes: usize) -> ReadOptions {
    ReadOptions {
        max_bytes,
        ..ReadOptions::default()
    }
}

fn ended() -> ReadOptions {
    ReadOptions {
        ended: true,
        ..ReadOptions::default()
    }
}

#[test]
fn only_what_is_new_is_given_in_order_and_once() {
    let log = TestLog::new("one\ntwo\n");
    let first = file_tail(&log.path, 1, ReadOptions::default()).unwrap();
    assert_eq!(first.text, "two");
    let nothing = log.since(&first, ReadOptions::default());
    assert_eq!(
        (nothing.text.as_str(), nothing.lines, nothing.change),
        ("", 0, None)
    );
    assert!(nothing.notes.is_empty());
    log.append("three\nfour\n");
    let second = log.since(&nothing, ReadOptions::default());
    assert_eq!((second.text.as_str(), second.lines), ("three\nfour", 2));
    log.append("five\n");
    assert_eq!(log.since(&second, ReadOptions::default()).text, "five");
    // The same cursor gives the same again, and what came since.
    assert_eq!(
        log.since(&first, ReadOptions::default()).text,
        "three\nfour\nfive"
    );
    assert_eq!(
        file_since(&log.path, &Cursor::default(), ReadOptions::default()).lines,
        5
    );
}

#[test]
fn a_line_comes_as_text_when_it_has_ended_and_not_before() {
    let log = TestLog::new("one\ntw");
    let first = file_tail(&log.path, 9, ReadOptions::default()).unwrap();
    assert_eq!(
        (first.text.as_str(), first.unfinished.as_deref()),
        ("one", Some("tw"))
    );
    let same = log.since(&first, ReadOptions::default());
    assert_eq!(
        (same.text.as_str(), same.unfinished.as_deref()),
        ("", Some("tw"))
    );
    log.append("o\nthr");
    let second = log.since(&same, ReadOptions::default());
    assert_eq!(
        (second.text.as_str(), second.unfinished.as_deref()),
        ("two", Some("thr"))
    );
    let end = log.since(&second, ended());
    assert_eq!(
        (end.text.as_str(), end.unfinished.as_deref()),
        ("thr", None)
    );
    assert_eq!(log.since(&end, ended()).text, "");
}

#[test]
fn what_does_not_fit_comes_with_the_next_cursor_and_nothing_is_skipped() {
    let all: Vec<String> = (0..3_000)
        .map(|i| format!("line {i} {}.", "x".repeat(i % 90)))
        .collect();
    let log = TestLog::new("before\n");
    let mut last = file_tail(&log.path, 0, ReadOptions::default()).unwrap();
    log.append(all.join("\n") + "\n");
    let mut read = Vec::new();
    for round in 0.. {
        last = log.since(&last, budget(4_000));
        assert!(last.text.len() <= 4_000 && last.text.len() > 3_800 || last.remaining_bytes == 0);
        assert_eq!(last.lines, last.text.lines().count());
        read.extend(last.text.lines().map(str::to_owned));
        if last.remaining_bytes == 0 {
            assert!(last.notes.is_empty() && round > 20);
            break;
        }
        assert!(
            last.notes[0].contains("more of the log are new: call again with this cursor"),
            "{:?}",
            last.notes
        );
    }
    assert!(read == all, "{} of {} lines", read.len(), all.len());
}

#[test]
fn a_single_line_larger_than_the_budget_is_passed_not_stuck_on() {
    let log = TestLog::new(format!("{}END\nnext\n", "x".repeat(5_000)));
    let first = file_since(&log.path, &Cursor::default(), budget(500));
    assert!(first.text.ends_with("xEND\nnext") && first.text.len() <= 500);
    assert!(first.text.starts_with("[… the beg") && first.truncated);
    assert_eq!(log.since(&first, budget(500)).text, "");
}

#[test]
fn bytes_that_grow_when_they_become_text_still_fit_and_none_is_skipped() {
    let log = TestLog::new(b"\xff\xff\xff\xff\xff\xff\xff\xff\n".repeat(500));
    let mut last = file_since(
        &log.path,
        &Cursor::default(),
        ReadOptions {
            raw: true,
            ..budget(300)
        },
    );
    let mut lines = last.lines;
    while last.remaining_bytes > 0 {
        last = log.since(
            &last,
            ReadOptions {
                raw: true,
                ..budget(300)
            },
        );
        assert!(last.text.len() <= 300);
        lines += last.lines;
    }
    assert_eq!(lines, 500);
}

#[test]
fn a_bar_that_runs_for_hours_is_followed_by_its_newest_state() {
    let log = TestLog::new("start\n");
    let mut last = file_tail(&log.path, 5, ReadOptions::default()).unwrap();
    for hour in 0..5 {
        for n in 0..4_000 {
            log.append(format!(
                "\r{:3}%|█████| {n}/4000 [{hour}:00:00<1:00:00]",
                n / 40
            ));
        }
        last = log.since(&last, ReadOptions::default());
        assert_eq!(last.text, "");
        assert_eq!(
            last.unfinished,
            Some(format!(" 99%|█████| 3999/4000 [{hour}:00:00<1:00:00]"))
        );
        // What is read again next time is one state, not hours of them.
        let cursor = last.cursor.to_string();
        let offset = u64::from_str_radix(cursor.split('.').nth(2).unwrap(), 16).unwrap();
        assert!(
            last.log_bytes - offset < 100,
            "{cursor} of {}",
            last.log_bytes
        );
    }
    log.append("\r100%|█████| 4000/4000 [5:00:00<00:00]\ndone\n");
    last = log.since(&last, ReadOptions::default());
    assert_eq!(last.text, "100%|█████| 4000/4000 [5:00:00<00:00]\ndone");
}

#[test]
fn a_line_that_is_too_long_to_wait_for_is_given_in_parts_between_words() {
    let log = TestLog::new(format!("{}half-of-a-sec", "word ".repeat(20_000)));
    let first = file_since(&log.path, &Cursor::default(), ReadOptions::default());
    assert_eq!(first.text, "");
    assert!(first.unfinished.as_ref().unwrap().ends_with(" word …"));
    log.append("ret\n");
    let rest = log.since(&first, ReadOptions::default()).text;
    assert!(rest.ends_with(" word half-of-a-secret"));
    log.append(format!("{}END\n", "long words ".repeat(1_600_000)));
    let first = log.since(&first, ReadOptions::default());
    let part = log.since(&first, ReadOptions::default());
    assert!(part.text.ends_with(" words") || part.text.ends_with(" long"));
    let rest = log.since(&part, ReadOptions::default());
    assert!(rest.text.ends_with(" words END") && rest.remaining_bytes == 0);
}

#[test]
fn a_log_that_was_truncated_is_read_from_its_beginning_and_that_is_said() {
    let log = TestLog::new("one\ntwo\nthree\n");
    let first = file_tail(&log.path, 9, ReadOptions::default()).unwrap();
    fs::write(&log.path, "new\n").unwrap();
    let second = log.since(&first, ReadOptions::default());
    assert_eq!(
        (second.text.as_str(), second.change),
        ("new", Some(REPLACED))
    );
    assert!(second.notes[0].contains("truncated"), "{:?}", second.notes);
    assert!(second.notes[0].contains("another job's"));
    assert_eq!(log.since(&second, ReadOptions::default()).change, None);
}

#[test]
fn a_log_that_was_replaced_or_written_anew_is_noticed_though_it_is_longer() {
    let log = TestLog::new("one\ntwo\n");
    let first = file_tail(&log.path, 9, ReadOptions::default()).unwrap();
    // In place, the same file.
    fs::write(&log.path, "another one\nand two\nand three\n").unwrap();
    let second = log.since(&first, ReadOptions::default());
    assert_eq!(second.change, Some(REPLACED));
    assert_eq!(second.text, "another one\nand two\nand three");
    // Another file with the same beginning: kept aside, so that its inode cannot be used again.
    fs::rename(&log.path, log.path.with_extension("old")).unwrap();
    fs::write(&log.path, "another one\nand two\nand three\nand more\n").unwrap();
    let third = log.since(&second, ReadOptions::default());
    assert_eq!(third.change, Some(REPLACED));
    assert_eq!(third.lines, 4);
    assert!(third.notes[0].contains("replaced"), "{:?}", third.notes);
}

#[test]
fn a_text_that_is_no_cursor_is_told_so() {
    for text in [
        "",
        "log2",
        "log2.a.b",
        "log2.x.0.0",
        "log1.1.0.0",
        "log2.1.2.3.4",
        "12345",
        "log2.1.-1.0",
    ] {
        let error = Cursor::parse(text).unwrap_err().to_string();
        assert!(error.contains("`cursor` of an earlier answer"), "{error}");
    }
    // One that was made up is found out.
    let log = TestLog::new("one\ntwo\n");
    let made_up = Cursor::parse("log2..4.1234").unwrap();
    let found = file_since(&log.path, &made_up, ReadOptions::default());
    assert_eq!(
        (found.change, found.text.as_str()),
        (Some(REPLACED), "one\ntwo")
    );
}

#[test]
fn nested_bars_between_two_readings_lose_no_line() {
    let log = TestLog::new("one\n");
    let mut last = file_tail(&log.path, 5, ReadOptions::default()).unwrap();
    let mut seen = String::new();
    for n in 0..200 {
        log.append(format!("\router {n}\n\rinner {n}\x1b[A"));
        if n % 10 == 9 {
            log.append(format!("\r      \r{{'loss': {n}}}\n"));
        }
        last = log.since(&last, ReadOptions::default());
        seen += &last.text;
        seen.push('\n');
    }
    let losses: Vec<&str> = seen.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(losses.len(), 20, "{seen}");
}

#[test]
fn the_end_of_a_log_from_elsewhere_is_followed_by_what_came_before() {
    let whole: Vec<String> = (0..200)
        .map(|i| format!("2026-11-24 19:50:{i} something happened\n"))
        .collect();
    let last_lines = |to: usize, lines: usize| whole[to.saturating_sub(lines)..to].concat();
    let first = text_tail(last_lines(100, 50).as_bytes(), 50, ReadOptions::default());
    // Thirty more, of which the last fifty are at hand.
    let later = last_lines(130, 50);
    let second = text_since(
        later.as_bytes(),
        false,
        &first.cursor,
        ReadOptions::default(),
    );
    assert_eq!((second.lines, second.change), (30, None));
    assert!(
        second.text.starts_with("2026-11-24 19:50:100 ")
            && second.text.ends_with("19:50:129 something happened")
    );
    // Nothing new.
    let third = text_since(
        later.as_bytes(),
        false,
        &second.cursor,
        ReadOptions::default(),
    );
    assert_eq!((third.lines, third.change), (0, None));
    // Too much new: that lines are missing is said.
    let fourth = text_since(
        last_lines(200, 50).as_bytes(),
        false,
        &third.cursor,
        ReadOptions::default(),
    );
    assert_eq!((fourth.lines, fourth.change), (50, Some(GAP)));
    // With the whole log at hand, places are exact.
    let all = whole.concat();
    let begun = text_tail(whole[..7].concat().as_bytes(), 1, ReadOptions::default());
    let rest = text_since(all.as_bytes(), true, &begun.cursor, budget(24 * 1024));
    assert_eq!((rest.lines, rest.change), (193, None));
}

#[test]
fn a_place_in_a_whole_log_is_found_again_though_something_was_put_before_it() {
    let begun = text_tail(b"waiting\none\n", 9, ReadOptions::default());
    let found = text_since(
        b"waiting\nwaiting\none\ntwo\n",
        true,
        &begun.cursor,
        ReadOptions::default(),
    );
    assert_eq!((found.text.as_str(), found.change), ("two", None));
    let other = text_since(b"x\ny\n", true, &begun.cursor, ReadOptions::default());
    assert_eq!(
        (other.text.as_str(), other.change),
        ("x\ny", Some(REPLACED))
    );
    // The beginning of a log of which only the end is at hand is not there.
    let end = text_since(b"x\n", false, &Cursor::default(), ReadOptions::default());
    assert_eq!((end.text.as_str(), end.change), ("x", Some(GAP)));
}

#[test]
fn however_it_is_written_and_read_every_line_comes_once_and_in_order() {
    for seed in 1..40_u64 {
        let mut state = seed;
        let mut random = move |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        // Lines, some drawn over by others before they ended, some longer than a budget.
        let mut content = Vec::new();
        let mut lines = Vec::new();
        for i in 0..300 {
            for drawn in 0..random(4) {
                content.extend(format!("\r{drawn:9}% of {i}").bytes());
            }
            if random(2) == 0 {
                content.extend(b"\r");
            }
            let line = format!("line {i} é{}.", "x".repeat(random(60) as usize));
            // What stands on a line that was drawn on follows on what is there, unless it begins anew.
            content.extend(format!("\r{line}\n").bytes());
            lines.push(line);
        }
        let log = TestLog::new("");
        let mut last = file_tail(&log.path, 0, ReadOptions::default()).unwrap();
        let mut read: Vec<String> = Vec::new();
        let mut written = 0;
        while written < content.len() || last.remaining_bytes > 0 {
            let more = (random(900) as usize).min(content.len() - written);
            log.append(&content[written..written + more]);
            written += more;
            let options = ReadOptions {
                max_bytes: 300 + random(600) as usize,
                ended: written == content.len(),
                ..ReadOptions::default()
            };
            last = log.since(&last, options);
            assert_eq!((last.change, last.log_bytes), (None, written as u64));
            assert!(last.text.len() <= options.max_bytes);
            assert_eq!(last.lines, last.text.lines().count());
            read.extend(last.text.lines().map(str::to_owned));
        }
        assert!(
            read == lines,
            "seed {seed}: {} of {} lines",
            read.len(),
            lines.len()
        );
    }
}
