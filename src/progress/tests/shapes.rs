//! Logs in the shapes of many trainers, with the figures that are right, and texts that are no training.

use std::fs;

use serde_json::{Map, Value};

use super::{fixture, scan};

/// The logs of a file, with their names and the JSON that follows a name. A carriage return is written as `␍`, an
/// escape as `^[`, and a backspace as `^H`.
fn logs(file: &str) -> Vec<(String, Map<String, Value>, String)> {
    let text = fs::read_to_string(fixture("shapes").join(file)).unwrap();
    let text = text
        .replace('␍', "\r")
        .replace("^[", "\x1b")
        .replace("^H", "\x08");
    let logs = text.split("=== ").skip(1);
    logs.map(|log| {
        let (head, log) = log.split_once('\n').unwrap();
        let (name, right) = head.split_at(head.find('{').unwrap_or(head.len()));
        let right = if right.is_empty() { "{}" } else { right };
        (
            name.trim().to_owned(),
            serde_json::from_str(right).unwrap(),
            log.to_owned(),
        )
    })
    .collect()
}

/// Tells if a figure is right within 2 %. `null` is right if it is absent, `"any"` if there is one.
fn is_right(found: &Value, right: &Value) -> bool {
    match (found.as_f64(), right.as_f64()) {
        (Some(found), Some(right)) => (found - right).abs() <= right.abs() * 0.02 + 1e-9,
        _ if right == "any" => !found.is_null(),
        _ => match right.as_object() {
            Some(right) => right
                .iter()
                .all(|(name, right)| is_right(&found[name], right)),
            None => found == right,
        },
    }
}

/// The figures that are not right, one a line.
fn wrong(log: &[u8], right: &Map<String, Value>) -> String {
    let progress = scan(log).0;
    let facts = progress.as_ref().map(|progress| {
        let facts = progress.bad_news.iter();
        facts
            .map(|fact| fact.sentence.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    });
    let mut found = serde_json::to_value(&progress).unwrap();
    if let Some(facts) = facts {
        found["bad"] = facts.into();
    }
    let wrong = right
        .iter()
        .filter(|(name, right)| !is_right(&found[*name], right));
    wrong
        .map(|(name, right)| format!("    {name} is {}, not {right}\n", found[name]))
        .collect()
}

#[test]
fn figures_of_many_trainers() {
    let mut all = String::new();
    for (name, right, log) in logs("trained.txt") {
        let wrong = wrong(log.as_bytes(), &right);
        if !wrong.is_empty() {
            all += &format!("{name}\n{wrong}");
        }
    }
    assert!(all.is_empty(), "\n{all}");
}

#[test]
fn figures_of_reports() {
    let right = fs::read_to_string(fixture("shapes/reports.json")).unwrap();
    let right: Map<String, Value> = serde_json::from_str(&right).unwrap();
    let mut all = String::new();
    for (name, right) in right {
        let log = fs::read(fixture("reports").join(&name)).unwrap();
        let wrong = wrong(&log, right.as_object().unwrap());
        if !wrong.is_empty() {
            all += &format!("{name}\n{wrong}");
        }
    }
    assert!(all.is_empty(), "\n{all}");
}

#[test]
fn no_figures_where_nothing_trains() {
    for (name, _, log) in logs("untrained.txt") {
        assert_eq!(scan(&log).0, None, "{name}");
        // Nor when the training has begun.
        let log = format!("Starting training... (x)\n{log}");
        assert_eq!(scan(&log).0, None, "{name}");
    }
}
