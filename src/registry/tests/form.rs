//! The file: what the Python server wrote is read, and what is written it reads.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::registry::JobRecord;
use serde_json::{Map, Value, json};

use super::home::{PYTHON_FILE, home, insert, launched, record};

/// The fields of a record, in the order of the Python server.
const FIELDS: [&str; 9] = [
    "job_id",
    "command",
    "config_path",
    "cloud",
    "cluster_name",
    "oumi_job_id",
    "model_name",
    "submit_time",
    "output_dir",
];

#[tokio::test]
async fn a_missing_file_is_empty() {
    let home = home();
    assert_eq!(home.ids().await, Vec::<String>::new());
    assert_eq!(home.registry.get("x").await.unwrap(), None);
}

#[tokio::test]
async fn reads_the_python_servers_file() {
    let home = home();
    home.write(PYTHON_FILE.as_bytes());
    let records = home.registry.records().await.unwrap().to_vec();
    let expected = JobRecord {
        job_id: "train_20260101_120000_abc123".to_owned(),
        command: "train".to_owned(),
        config_path: "/home/me/café/train.yaml".to_owned(),
        cloud: "gcp".to_owned(),
        cluster_name: "sky-1".to_owned(),
        oumi_job_id: "3".to_owned(),
        model_name: "org/model".to_owned(),
        submit_time: "2026-01-01T12:00:00.123456+00:00".to_owned(),
        output_dir: "./output".to_owned(),
        other: Map::new(),
    };
    assert_eq!(records[0], expected);
    assert_eq!(records[1].job_id, "evaluate_20260101_130000_def456");
    assert_eq!(records.len(), 2);
    assert_eq!(
        home.bytes(),
        PYTHON_FILE.as_bytes(),
        "a look changes nothing"
    );
}

#[tokio::test]
async fn writes_the_python_servers_fields() {
    let home = home();
    insert(&home.registry, "a").await;
    let objects = home.json();
    let keys: Vec<&str> = objects[0].keys().map(String::as_str).collect();
    assert_eq!(keys, FIELDS);
    assert!(objects[0].values().all(Value::is_string));
    let mode = fs::metadata(home.folder.registry()).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_legacy_status_is_dropped() {
    let home = home();
    home.write(PYTHON_FILE.as_bytes());
    insert(&home.registry, "a").await;
    let mut expected: Vec<Map<String, Value>> = serde_json::from_str(PYTHON_FILE).unwrap();
    expected[1].remove("status");
    assert_eq!(home.json()[..2], expected);
    assert_eq!(home.json().len(), 3);
}

#[tokio::test]
async fn unknown_fields_survive_a_rewrite() {
    let home = home();
    let object = json!({"job_id": "a", "tags": ["x", {"y": 1}], "priority": 7, "note": null});
    home.write(json!([object]).to_string().as_bytes());
    home.registry.update(launched("a", "9")).await.unwrap();
    let written = &home.json()[0];
    for key in ["tags", "priority", "note"] {
        assert_eq!(written.get(key), object.get(key), "{key}");
    }
    assert_eq!(written["oumi_job_id"], "9");
    assert_eq!(written["cluster_name"], "c");
    assert_eq!(written.len(), FIELDS.len() + 3);
}

#[tokio::test]
async fn missing_fields_are_empty() {
    let home = home();
    home.write(br#"[{"job_id": "a", "output_dir": null}]"#);
    let expected = JobRecord {
        job_id: "a".to_owned(),
        ..JobRecord::default()
    };
    assert_eq!(home.registry.records().await.unwrap().to_vec(), [expected]);
}

#[test]
fn submit_time_offsets() {
    let at = |text: &str| {
        let record = JobRecord {
            submit_time: text.to_owned(),
            ..record("a")
        };
        record.submitted_at().map(|time| time.to_rfc3339())
    };
    let noon = Some("2026-01-01T12:00:00+00:00".to_owned());
    for text in [
        "2026-01-01T12:00:00Z",
        "2026-01-01T12:00:00+00:00",
        "2026-01-01T13:30:00+01:30",
        "2026-01-01T04:00:00-08:00",
        "2026-01-01T12:00:00",
        " 2026-01-01T12:00:00.000000 ",
        "2026-01-01T12:00:00.000Z",
    ] {
        assert_eq!(at(text), noon, "{text}");
    }
    for text in [
        "",
        "yesterday",
        "2026-01-01",
        "2026-13-01T00:00:00Z",
        "1767268800",
    ] {
        assert_eq!(at(text), None, "{text}");
    }
}
