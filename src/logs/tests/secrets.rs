//! Values of a job are hidden however they are written and read.

use crate::logs::Log;
use crate::logs::read::{ReadOptions, read_since, tail};
use crate::logs::search::{Query, search};
use crate::logs::tests::log::TestLog;
use crate::redact::Redactor;
use crate::text::cursor::Cursor;

/// The text without blanks and controls.
fn visible(text: &str) -> String {
    let is_visible = |c: &char| !c.is_whitespace() && !c.is_control() && *c != '\u{fffd}';
    text.chars().filter(is_visible).collect()
}

/// The first part of `value`, six characters long, that `text` shows.
fn leak(text: &str, value: &str) -> Option<String> {
    let (text, value) = (visible(text), visible(value));
    let chars: Vec<char> = value.chars().collect();
    let mut parts = chars.windows(6).map(|part| part.iter().collect::<String>());
    parts.find(|part| text.contains(part.as_str()))
}

fn options(max_bytes: usize, raw: bool) -> ReadOptions {
    ReadOptions {
        max_bytes,
        raw,
        ended: false,
    }
}

/// All that the ways of reading show of a log.
fn all_reads(log: &[u8], secrets: &Redactor) -> Vec<String> {
    let mut log = Log::from_text(log, true, secrets);
    let mut shown = Vec::new();
    let max_bytes = 1024;
    {
        for raw in [false, true] {
            let options = options(max_bytes, raw);
            for lines in [1, 200] {
                let found = tail(&mut log, lines, options).unwrap();
                shown.push(found.text + "\n" + &found.unfinished.unwrap_or_default());
            }
            let new = read_since(&mut log, &Cursor::default(), options).unwrap();
            shown.push(new.text + "\n" + &new.unfinished.unwrap_or_default());
        }
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let query = Query {
            context: 1,
            ..super::searching::query_for(".", deadline).unwrap()
        };
        shown.push(
            search(&mut log, &query, options(max_bytes, false))
                .unwrap()
                .text,
        );
    }
    shown
}

/// Values of every shape, and longer than any line that is shown.
fn values() -> Vec<String> {
    let long = |length: usize| {
        (0..length / 5)
            .map(|i| format!("{i:05}"))
            .collect::<String>()
    };
    let short_lines = |count: usize| (0..count).map(|i| format!("{i:04}\n")).collect::<String>();
    let mut values: Vec<String> = [
        "tab\tin-the-secret",
        "two  blanks  within",
        "blanks at its end   ",
        "  blanks at its start",
        "bell\u{7}in-the-secret",
        "colour\u{1b}[31min-the-secret",
        "title\u{1b}]0;name\u{7}in-the-secret",
        "carriage\rreturn-in-it",
        "dos-line\r\nsecond-line-of-it",
        "typo\u{8}erased-in-it",
        "delete\u{7f}in-the-secret",
        "next\u{85}line-in-the-secret",
        "hard\u{a0}blank-in-the-secret",
        "new\nline-in-the-secret",
        "three\n\n\nlines-of-a-secret",
        "e a c h l e t t e r",
        "quote\" and 'more' of it",
        "back\\slash\\and-new\\n",
        "schlüssel-鍵-🔑-geheim",
        "pa)ss wo(rd! of? words]",
        "/begins/with-a-slash",
    ]
    .map(str::to_owned)
    .into();
    values.extend([long(3000), long(9000), short_lines(300)]);
    values
}

#[test]
fn a_value_of_any_shape_is_hidden_in_every_read() {
    for value in values() {
        let secrets = Redactor::new([value.as_str()]);
        let words: Vec<&str> = value.split_whitespace().collect();
        let wrapped: Vec<String> = value
            .chars()
            .collect::<Vec<char>>()
            .chunks(30)
            .map(String::from_iter)
            .collect();
        for printed in [
            value.clone(),
            words.join(" "),
            format!("\u{1b}[32m{value}\u{1b}[0m"),
            serde_json::to_string(&value).unwrap(),
            wrapped.join("\n"),
            format!("1%\r{value}"),
        ] {
            for fill in ["", &"x".repeat(3000)]
                .into_iter()
                .take(1 + usize::from(printed == value))
            {
                let log = format!("before\nit is {fill}{printed}{fill} yes\nafter\n");
                for shown in all_reads(log.as_bytes(), &secrets) {
                    assert_eq!(leak(&shown, &value), None, "{printed:.40?}: {shown:.400?}");
                }
            }
        }
    }
}

#[test]
fn half_of_a_value_is_hidden_while_it_is_written() {
    for value in values().iter().filter(|value| value.len() < 100) {
        let secrets = Redactor::new([value.as_str()]);
        let long = "word ".repeat(13_200);
        for (end, _) in value.char_indices() {
            // Once in a line that is too long to wait for its end.
            for fill in ["", &long].into_iter().take(1 + usize::from(end == 6)) {
                let log = TestLog::new(format!("before\nit is {fill}{}", &value[..end]));
                let written = std::fs::read(&log.path).unwrap();
                for shown in all_reads(&written, &secrets) {
                    assert_eq!(leak(&shown, value), None, "{value:?} up to {end}");
                }
                // What follows is read on from there.
                let read = |cursor: &Cursor| {
                    let mut log = Log::open(&log.path, &secrets).unwrap();
                    read_since(&mut log, cursor, ReadOptions::default()).unwrap()
                };
                let mut first = read(&Cursor::default());
                while first.remaining_bytes > 0 {
                    first = read(&first.cursor);
                }
                log.append(format!("{} yes\nafter\n", &value[end..]));
                let rest = read(&first.cursor);
                assert_eq!(leak(&rest.text, value), None, "{value:?} from {end}");
                assert!(rest.text.ends_with("after"), "{}", rest.text);
            }
        }
    }
}

#[test]
fn cut_values_are_hidden() {
    let secrets = Redactor::new(["correct horse battery staple"]);
    let mut cut = "sky said: correct horse batt… and more".as_bytes().to_vec();
    secrets.mask(&mut cut, false);
    assert_eq!(
        secrets.redact("sky said: correct horse batt… and more"),
        "sky said: ***… and more"
    );
    assert_eq!(
        secrets.redact("correct horse and cart"),
        "correct horse and cart"
    );
}
