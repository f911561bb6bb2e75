//! The progress and the losses in every log among the fixtures, as snapshots.

use std::fmt::Write as _;
use std::fs;

use super::{fixture, scan};

/// The metrics of each log of a folder, without those that are absent, and the course of its losses.
fn summary(folder: &str) -> String {
    let mut paths: Vec<_> = fs::read_dir(fixture(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && path.extension().is_none_or(|kind| kind != "yaml"))
        .collect();
    paths.sort();
    let mut text = String::new();
    for path in paths {
        let (progress, history) = scan(fs::read(&path).unwrap());
        let name = path.file_name().unwrap().to_string_lossy();
        writeln!(text, "{name}").unwrap();
        let Some(progress) = progress else {
            continue;
        };
        let warning = progress.bad_news.first().map(|news| news.sentence.clone());
        let mut fields = serde_json::to_value(progress).unwrap();
        let fields = fields.as_object_mut().unwrap();
        fields.insert("warning".to_owned(), warning.into());
        fields.retain(|_, value| !value.is_null() && *value != "");
        for (name, value) in fields {
            writeln!(text, "    {name}: {value}").unwrap();
        }
        for line in history.sparkline(30).unwrap_or_default().lines() {
            writeln!(text, "    {line}").unwrap();
        }
    }
    text
}

#[test]
fn oumi_and_transformers() {
    insta::assert_snapshot!(summary(""));
}

#[test]
fn other_trainers() {
    insta::assert_snapshot!(summary("trainers"));
}

#[test]
fn reports() {
    insta::assert_snapshot!(summary("reports"));
}
