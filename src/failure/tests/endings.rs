//! What ended a job: tables of logs and of what is to be read in them.

use std::fs;
use std::path::Path;

use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::failure::{Exit, Failure, explain};
use crate::logs::fold::fold;

/// A log of `endings.yaml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    log: String,
    #[serde(default)]
    exit: Option<i32>,
    expected: Map<String, Value>,
}

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/logs")
}

/// The differences between a failure and what is expected of it.
fn differences(failure: &Failure, expected: &Map<String, Value>) -> Vec<String> {
    let empty = String::new();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let what = format!("{} {}", text(&failure.cause), text(&failure.what));
    let all = format!("{failure:?}");
    let mut wrong = Vec::new();
    for (key, value) in expected {
        let patterns = match value {
            Value::Array(patterns) => patterns.iter().filter_map(Value::as_str).collect(),
            value => vec![value.as_str().unwrap_or(&empty)],
        };
        let matches = |text: &str| {
            patterns.iter().all(|pattern| {
                Regex::new(&format!("(?i){pattern}"))
                    .unwrap()
                    .is_match(text)
            })
        };
        let is_right = match key.as_str() {
            "cause" => failure.cause.as_deref() == value.as_str(),
            "words" => matches(&what),
            "cause_not" => !matches(&what),
            "advice" => matches(&text(&failure.advice)),
            "trace" => matches(&text(&failure.traceback_end)),
            "trace_not" => !matches(&text(&failure.traceback_end)),
            "evidence" => matches(&text(&failure.evidence)),
            "last_line" => all.contains(patterns[0]),
            "exit" => true,
            key => panic!("{key}"),
        };
        if !is_right {
            wrong.push(format!("{key} should be {value}"));
        }
    }
    wrong
}

fn check(name: &str, log: &str, expected: &Map<String, Value>, exit: i32) -> Option<String> {
    let failure = explain(&fold(log.as_bytes()), Some(Exit::Code(exit)), None).unwrap();
    let mut wrong = differences(&failure, expected);
    let says = [
        &failure.evidence,
        &failure.traceback_end,
        &failure.last_lines,
    ];
    if says.iter().all(|text| text.is_none()) {
        wrong.push("nothing but the exit".to_owned());
    }
    (!wrong.is_empty()).then(|| format!("{name}: {wrong:#?}\n{failure:#?}"))
}

#[test]
fn logs_of_public_reports_are_explained() {
    let dir = fixtures().join("endings");
    let expected = fs::read(dir.join("expected.json")).unwrap();
    let expected: Map<String, Value> = serde_json::from_slice(&expected).unwrap();
    assert!(expected.len() >= 17);
    let wrong = expected.iter().filter_map(|(name, expected)| {
        let log = fs::read_to_string(dir.join(name)).unwrap();
        let expected = expected.as_object().unwrap();
        let exit = expected.get("exit").and_then(Value::as_i64).unwrap_or(1);
        check(name, &log, expected, exit.try_into().unwrap())
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn logs_of_the_same_kinds_are_explained() {
    let cases = fs::read_to_string(fixtures().join("endings.yaml")).unwrap();
    let cases: Vec<Case> = serde_saphyr::from_str(&cases).unwrap();
    let wrong = cases.iter().filter_map(|case| {
        check(
            &case.name,
            &case.log,
            &case.expected,
            case.exit.unwrap_or(1),
        )
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
