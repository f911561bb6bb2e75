//! The JSON that stands behind text.

use crate::parse::sky::queue;
use crate::parse::{OutputError, json_document};
use serde_json::{Value, json};

use super::captures::capture;

#[test]
fn the_json_is_found_behind_the_text_that_stands_before_it() {
    for name in ["sky/repro-check", "sky/queue-none-first", "sky/queue-notup"] {
        let value: Value = json_document(&capture(name).out).unwrap();
        assert!(value.is_object(), "{name}: {value}");
    }
}

#[test]
fn brackets_and_colours_around_the_json_do_not_hide_it() {
    let document = "{\n  \"a\": [\n    1\n  ]\n}";
    for (before, after) in [
        ("", ""),
        ("", "\n\n"),
        ("[1] a line {with} brackets\n[\n{\n[]\n{}\n", "\n"),
        ("[2026-11-24 19:51:30,373][oumi][rank0] said\n", ""),
        ("\u{1b}[33mtext\u{1b}[0m\n\u{1b}[0m", "\u{1b}[0m\n"),
        ("⠙ waiting\r", "\r\n"),
        ("⠙ waiting\u{1b}[2K", ""),
    ] {
        let stdout = format!("{before}{document}{after}");
        let found: Value = json_document(&stdout).unwrap_or_else(|e| panic!("{stdout:?}: {e}"));
        assert_eq!(found, json!({"a": [1]}), "{stdout:?}");
    }
}

#[test]
fn no_json_half_of_it_and_other_json_are_told_apart() {
    let read = |stdout: &str| json_document::<Vec<u32>>(stdout).unwrap_err();
    assert_eq!(read(""), OutputError::NoJson(None));
    assert_eq!(
        read("Traceback (most recent call last):\nValueError: [1]\n").to_string(),
        "answered without JSON; it said: ValueError: [1]"
    );
    assert_eq!(read("text\n[\n  1,\n"), OutputError::CutShort);
    assert_eq!(read("[1, 2"), OutputError::CutShort);
    assert_eq!(
        read("text\n{\"a\": 1}\n").to_string(),
        "answered with JSON of another form than is known: invalid type: map, expected a sequence at line 1 column 0"
    );
    assert!(matches!(read("[1, \"two\"]"), OutputError::OtherForm(why) if why.contains("[1]")));
    // Text behind it: not the last thing said, so not the answer.
    assert!(matches!(read("[1]\nTraceback"), OutputError::NoJson(_)));
}

#[test]
fn every_half_of_a_captured_document_is_an_error() {
    let whole = capture("sky/queue-json-mixed").out;
    let end = whole.rfind('}').unwrap();
    for cut in (0..=end).filter(|cut| whole.is_char_boundary(*cut)) {
        let error = queue(&whole[..cut]).unwrap_err();
        let started = whole[..cut].contains("\n{");
        assert_eq!(error == OutputError::CutShort, started, "{cut}: {error}");
    }
    assert!(queue(&whole[..=end]).is_ok());
}
