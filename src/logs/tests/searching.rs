//! Lines that match.

use std::io::{Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use crate::error::JobError;
use crate::logs::Log;
use crate::logs::read::{Excerpt, ReadOptions};
use crate::logs::search::{Query, compile, search};
use crate::logs::tests::log::no_secrets;
use crate::redact::Redactor;

/// A search without context, for the newest 100 matches.
pub(super) fn query_for(pattern: &str, deadline: Instant) -> Result<Query, JobError> {
    Ok(Query {
        pattern: compile(pattern)?,
        context: 0,
        max_matches: 100,
        deadline,
    })
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn find(log: &[u8], pattern: &str, context: usize) -> Excerpt {
    let query = Query {
        context,
        ..query_for(pattern, soon()).unwrap()
    };
    search_text(log, &query, 24 * 1024)
}

fn search_text(log: &[u8], query: &Query, max_bytes: usize) -> Excerpt {
    let options = ReadOptions {
        max_bytes,
        ended: true,
        ..ReadOptions::default()
    };
    search(&mut Log::from_text(log, true, no_secrets()), query, options).unwrap()
}

#[test]
fn matching_lines_are_given_in_the_order_of_the_log() {
    let found = find(b"a loss\nb\nc LOSS\nd loss", "(?i)loss", 0);
    assert_eq!(found.text, "a loss\nc LOSS\nd loss");
    assert_eq!(
        (found.matches, found.lines, found.reaches_start, found.notes),
        (Some(3), 3, true, Vec::new())
    );
    let none = find(b"a\nb\n", "x", 3);
    assert_eq!(
        (
            none.text.as_str(),
            none.matches,
            none.lines,
            none.reaches_start
        ),
        ("", Some(0), 0, true)
    );
}

#[test]
fn context_is_marked_and_never_given_twice() {
    let log = "1\n2\n3 hit\n4\n5 hit\n6\n7\n8\n9\n10 hit\n11\n";
    assert_eq!(
        find(log.as_bytes(), "hit", 1).text,
        "  2\n> 3 hit\n  4\n> 5 hit\n  6\n--\n  9\n> 10 hit\n  11"
    );
    assert_eq!(find(log.as_bytes(), "hit", 2).text.lines().count(), 11);
    assert_eq!(find(log.as_bytes(), "^1$", 1).text, "> 1\n  2");
}

#[test]
fn what_is_matched_is_what_is_shown() {
    let log = b"loss 9\rloss 1\n\x1b[31mCUDA\x1b[0m error\nagain\nagain\nagain\nend\n";
    assert_eq!(find(log, "loss 9", 0).matches, Some(0));
    assert_eq!(find(log, "^loss 1$", 0).matches, Some(1));
    assert_eq!(find(log, "CUDA error", 0).text, "CUDA error");
    let again = find(log, "again", 1);
    assert_eq!(
        again.text,
        "  CUDA error\n> again\n  … repeated 2 times\n  end"
    );
    assert_eq!(again.matches, Some(1));
}

#[test]
fn a_pattern_cannot_find_out_what_is_hidden() {
    let log = b"token=abc-def-ghi\nother\n";
    let secrets = Redactor::new(["abc-def-ghi"]);
    let search_hidden = |query: &Query| {
        let mut log = Log::from_text(log, true, &secrets);
        search(&mut log, query, ReadOptions::default()).unwrap()
    };
    for pattern in ["abc", "c-d", r"token=([a-m]|-)", "ghi$"] {
        let query = query_for(pattern, soon()).unwrap();
        assert_eq!(search_hidden(&query).matches, Some(0), "{pattern}");
    }
    let query = query_for("token", soon()).unwrap();
    assert_eq!(search_hidden(&query).text, "token=***");
}

#[test]
fn blocks_meet_without_a_seam() {
    // Some 3 MB: several blocks; every line is matched and every line is context.
    let log: String = (0..40_000)
        .map(|i| format!("line {i} {}\n", "x".repeat(50)))
        .collect();
    for context in [0, 3] {
        let query = Query {
            context,
            max_matches: usize::MAX,
            ..query_for("line .*0 x", soon()).unwrap()
        };
        let found = search_text(log.as_bytes(), &query, usize::MAX);
        assert_eq!(found.matches, Some(4_000));
        let numbers: Vec<usize> = found
            .text
            .lines()
            .filter(|line| *line != "--")
            .map(|line| {
                line.trim_start_matches(['>', ' '])
                    .split(' ')
                    .nth(1)
                    .unwrap()
                    .parse()
                    .unwrap()
            })
            .collect();
        let expected: Vec<usize> = (0..40_000)
            .filter(|i| {
                i % 10 == 0 || context > 0 && (i % 10 <= 3 || i % 10 >= 7 && i + 3 < 40_000)
            })
            .collect();
        assert_eq!(numbers, expected, "context {context}");
    }
}

#[test]
fn the_newest_matches_are_given() {
    let log: String = (0..1_000).map(|i| format!("line {i}\n")).collect();
    let query = Query {
        max_matches: 3,
        ..query_for("line", soon()).unwrap()
    };
    let found = search_text(log.as_bytes(), &query, 24 * 1024);
    assert_eq!(found.text, "line 997\nline 998\nline 999");
    assert!(found.truncated && found.notes[0].contains("as many matches as requested"));
}

#[test]
fn the_text_stays_within_its_budget() {
    let log: String = (0..1_000).map(|i| format!("line {i}\n")).collect();
    let query = Query {
        context: 2,
        ..query_for("line .*5", soon()).unwrap()
    };
    let found = search_text(log.as_bytes(), &query, 500);
    assert!(found.text.len() <= 500 && found.text.len() > 400);
    assert!(
        found.text.ends_with("> line 995\n  line 996\n  line 997"),
        "{}",
        found.text
    );
    assert!(!found.reaches_start && found.notes[0].contains("max_bytes"));
    // Even one line that is larger than all of it.
    let long = [vec![b'x'; 10_000], b" line END\n".to_vec()].concat();
    let found = search_text(&long, &query, 500);
    assert_eq!(found.matches, Some(0));
    let query = query_for("END", soon()).unwrap();
    assert!(search_text(&long, &query, 500).text.ends_with(" line END"));
}

/// A step of verl has thousands of characters.
#[test]
fn a_long_line_is_found_by_what_stands_in_its_middle() {
    let (before, after) = ("é".repeat(5_000), "x".repeat(30_000));
    let query = query_for("actor/kl_loss:0.1", soon()).unwrap();
    for (log, is_cut) in [
        (format!("{before} actor/kl_loss:0.1 {after}"), (true, true)),
        (format!("actor/kl_loss:0.1 {after}"), (false, true)),
        (format!("{before} actor/kl_loss:0.1"), (true, false)),
    ] {
        let found = search_text(log.as_bytes(), &query, 1024);
        assert_eq!(found.matches, Some(1));
        assert!(found.text.contains("actor/kl_loss:0.1") && found.text.len() < 600);
        let cuts = (
            found.text.starts_with("[… the beginning"),
            found.text.ends_with("is left out]"),
        );
        assert_eq!(cuts, is_cut, "{}", found.text);
    }
}

#[test]
fn a_deadline_ends_the_search_and_says_how_far_it_came() {
    // 1 TB that is a hole: nobody reads that to its beginning.
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1_000_000_000_000).unwrap();
    file.seek(SeekFrom::End(0)).unwrap();
    file.write_all(b"\n").unwrap();
    let lines: String = (0..40_000).map(|i| format!("line {i} of many\n")).collect();
    file.write_all(lines.as_bytes()).unwrap();
    let query = query_for(
        "line 3999[0-9] |nothing",
        Instant::now() + Duration::from_millis(100),
    )
    .unwrap();
    let start = Instant::now();
    let found = search(
        &mut Log::open(file.path(), no_secrets()).unwrap(),
        &query,
        ReadOptions::default(),
    )
    .unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    assert_eq!((found.matches, found.reaches_start), (Some(10), false));
    assert!(found.notes[0].starts_with("The search stopped because the time was up: "));
    // A deadline that has passed still searches the end.
    let query = query_for("39999 of", Instant::now()).unwrap();
    assert_eq!(
        search(
            &mut Log::open(file.path(), no_secrets()).unwrap(),
            &query,
            ReadOptions::default()
        )
        .unwrap()
        .matches,
        Some(1)
    );
}

#[test]
fn a_pattern_that_is_none_is_explained_in_a_sentence() {
    for (pattern, what) in [
        ("(abc", "unclosed group"),
        ("[z-a]", "invalid character class range"),
        (r"(?=x)", "look-around"),
        (r"(a)\1", "backreferences are not supported"),
        (r"\w{10000}{100}", "too large"),
        ("", "grep is empty"),
    ] {
        let error = query_for(pattern, soon()).unwrap_err().to_string();
        assert!(error.contains(what), "{pattern}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    assert!(query_for(r"(?i)Ünï.*\d+\s", soon()).is_ok());
}

#[test]
fn hostile_patterns_and_contexts_are_bounded() {
    assert!(query_for("[ab]*a[ab]{9000}c", soon()).is_err());
    // As large as a pattern may be, on the lines that cost it most.
    let line = |i: usize| "ab".repeat(400) + if i.is_multiple_of(2) { "a" } else { "b" } + "\n";
    let log: String = (0..4_000).map(line).collect();
    let deadline = Instant::now() + Duration::from_millis(1);
    let mut query = query_for("[ab]*a[ab]{1000}c", deadline).unwrap();
    let start = Instant::now();
    let found = search_text(log.as_bytes(), &query, 24 * 1024);
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(found.notes[0].contains("the time was up"));
    // Lines that fold into one, or none, block after block.
    for line in ["same\n", "\n"] {
        let other = query_for("other", Instant::now()).unwrap();
        let found = search_text(line.repeat(2_000_000).as_bytes(), &other, 2048);
        assert!(
            found
                .notes
                .iter()
                .any(|note| note.contains("the time was up"))
        );
    }
    // The largest context keeps no more than an answer has room for.
    query = Query {
        context: usize::MAX,
        ..query_for("^first", soon()).unwrap()
    };
    let lines: String = (0..100_000).map(|i| format!("line {i}\n")).collect();
    let log = "first\n".to_owned() + &lines;
    let found = search_text(log.as_bytes(), &query, 2048);
    assert!(found.text.starts_with("> first\n  line 0\n") && found.text.len() <= 2048);
    assert!(found.text.len() > 1900 && found.matches == Some(1));
}
