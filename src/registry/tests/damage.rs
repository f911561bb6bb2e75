//! A file that is damaged: it is kept aside, and what is whole in it is used.

use std::fs;
use std::path::Path;

use crate::registry::JobRecord;
use serde_json::json;

use super::home::{home, insert, record};

/// A file of records, and where in it each of them begins and ends.
fn file_of(count: usize) -> (String, Vec<(JobRecord, std::ops::Range<usize>)>) {
    let mut text = "[\n".to_owned();
    let mut spans = Vec::new();
    for number in 0..count {
        let record = JobRecord {
            config_path: format!("/c/{number}\"{{}}]\\.yaml"),
            oumi_job_id: number.to_string(),
            ..record(&format!("job-{number}"))
        };
        if number > 0 {
            text += ",\n";
        }
        let begin = text.len();
        let object = json!({
            "job_id": record.job_id, "command": record.command, "config_path": record.config_path,
            "cloud": record.cloud, "oumi_job_id": record.oumi_job_id, "submit_time": record.submit_time,
        });
        text += &object.to_string();
        spans.push((record, begin..text.len()));
    }
    text += "\n]";
    (text, spans)
}

/// Has the registry look at a file with these bytes. Returns the records; checks that the bytes were kept aside when the
/// file was damaged, and that it is whole afterwards.
async fn looked_at(bytes: &[u8]) -> (Vec<JobRecord>, bool) {
    let home = home();
    home.write(bytes);
    let records = home.registry.records().await.unwrap().to_vec();
    let aside = home.registry.quarantined().await.unwrap();
    match aside.as_slice() {
        [] => assert_eq!(home.bytes(), bytes),
        [aside] => {
            assert_eq!(fs::read(aside).unwrap(), bytes);
            assert!(
                home.json()
                    .iter()
                    .all(|object| object.contains_key("job_id"))
            );
        }
        several => panic!("put aside several times: {several:?}"),
    }
    assert_eq!(home.registry.records().await.unwrap().to_vec(), records);
    assert_eq!(home.registry.quarantined().await.unwrap(), aside);
    (records, !aside.is_empty())
}

#[tokio::test]
async fn truncation_keeps_every_whole_record() {
    let (text, spans) = file_of(6);
    for length in 0..=text.len() {
        let (records, was_damaged) = looked_at(&text.as_bytes()[..length]).await;
        let whole = spans.iter().filter(|(_, span)| span.end <= length);
        let expected: Vec<JobRecord> = whole.map(|(record, _)| record.clone()).collect();
        assert_eq!(records, expected, "cut to {length} bytes");
        assert_eq!(was_damaged, length < text.len(), "cut to {length} bytes");
    }
}

#[tokio::test]
async fn a_flipped_bit_costs_one_record() {
    let (text, spans) = file_of(2);
    let mut damaged = 0;
    for at in 0..text.len() {
        for bit in 0..8 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let (records, was_damaged) = looked_at(&bytes).await;
            for (record, _) in spans.iter().filter(|(_, span)| !span.contains(&at)) {
                assert!(
                    records.contains(record),
                    "byte {at}, bit {bit}: {records:?}"
                );
            }
            assert!(records.len() <= 2, "byte {at}, bit {bit}: {records:?}");
            damaged += usize::from(was_damaged);
        }
    }
    assert!(damaged > 1000, "{damaged}");
}

#[tokio::test]
async fn other_json_is_quarantined_and_salvaged() {
    let (text, spans) = file_of(2);
    let both: Vec<JobRecord> = spans.into_iter().map(|(record, _)| record).collect();
    let nested = |depth: usize, open: &str| open.repeat(depth);
    let none: Vec<String> = [
        "",
        " ",
        "\n",
        "null",
        "true",
        "3",
        "\"text\"",
        "{}",
        "[1]",
        "[null]",
        "[[]]",
        "[{}]",
        "{\"job_id\": 3}",
        "[{\"job_id\": \"\"}]",
        "[{\"job_id\": \"a\", \"cloud\": 7}]",
        "not json",
        "\0\0\0\0",
        "<html></html>",
        "[,]",
        "{\"job_id\":",
        "\u{feff}",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([
        nested(2_000, "["),
        nested(2_000, "{\"a\":"),
        nested(2_000, "{\"a\":["),
    ])
    .collect();
    for text in &none {
        let (records, was_damaged) = looked_at(text.as_bytes()).await;
        let shown = text.get(..20).unwrap_or(text);
        assert_eq!(records, [], "{shown:?}");
        assert!(was_damaged, "{shown:?}");
    }
    for text in [
        format!("{{\"jobs\": {text}}}"),
        format!("[{text}]"),
        format!("\u{feff}{text}"),
        format!("{text}{text}"),
        format!("{text} and more"),
        text.replacen('[', "[1, null, {}, \"x\", ", 1),
        text[1..text.len() - 1].to_owned(),
        format!("\u{0}{text}"),
    ] {
        let (records, was_damaged) = looked_at(text.as_bytes()).await;
        assert_eq!(records, both, "{text}");
        assert!(was_damaged, "{text}");
    }
    let (records, was_damaged) = looked_at(b"[]").await;
    assert!(records.is_empty() && !was_damaged);
}

#[tokio::test]
async fn invalid_utf8_costs_one_record() {
    let (text, spans) = file_of(3);
    let mut bytes = text.into_bytes();
    bytes[spans[1].1.start + 12] = 0xff;
    let (records, was_damaged) = looked_at(&bytes).await;
    assert_eq!(records, [spans[0].0.clone(), spans[2].0.clone()]);
    assert!(was_damaged);
}

#[tokio::test]
async fn inserting_repairs() {
    let home = home();
    let (text, _) = file_of(6);
    home.write(&text.as_bytes()[..text.len() - 30]);
    insert(&home.registry, "new").await;
    let ids = home.ids().await;
    assert_eq!(ids, ["job-0", "job-1", "job-2", "job-3", "job-4", "new"]);
    assert_eq!(home.registry.quarantined().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_refused_insert_repairs() {
    let home = home();
    let (text, _) = file_of(2);
    home.write(&text.as_bytes()[..text.len() - 1]);
    assert!(
        home.registry
            .insert(record("job-0"), |_| Ok(()))
            .await
            .is_err()
    );
    assert_eq!(home.json().len(), 2);
    assert_eq!(home.registry.quarantined().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_read_error_names_the_file() {
    let home = home();
    fs::create_dir(home.folder.registry()).unwrap();
    let error = home.registry.records().await.unwrap_err().to_string();
    assert!(error.contains("oumi-jobs.json"), "{error}");
    let error = home.registry.insert(record("a"), |_| Ok(())).await;
    assert!(error.unwrap_err().to_string().contains("oumi-jobs.json"));
    assert!(Path::new(&home.folder.registry()).is_dir());
}

#[tokio::test]
async fn an_oversized_file_is_refused() {
    let home = home();
    let file = fs::File::create(home.folder.registry()).unwrap();
    file.set_len(1 << 30).unwrap();
    let error = home.registry.records().await.unwrap_err().to_string();
    assert!(error.contains("larger than"), "{error}");
    let error = home.registry.insert(record("a"), |_| Ok(())).await;
    assert!(error.unwrap_err().to_string().contains("larger than"));
    assert_eq!(fs::metadata(home.folder.registry()).unwrap().len(), 1 << 30);
}
