//! The registry of identities: shared with the Python server and with other processes, and hard to lose.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use oumi_mcp_server::paths::DataFolder;
use oumi_mcp_server::registry::{
    IdentityUpdate, JobRecord, JobRegistry, KEEP_DAYS, KEEP_RECORDS, expired,
};
use serde_json::{Map, Value, json};

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

/// A file as the Python server writes it.
const PYTHON_FILE: &str = r#"[
  {
    "job_id": "train_20260101_120000_abc123",
    "command": "train",
    "config_path": "/home/me/caf\u00e9/train.yaml",
    "cloud": "gcp",
    "cluster_name": "sky-1",
    "oumi_job_id": "3",
    "model_name": "org/model",
    "submit_time": "2026-01-01T12:00:00.123456+00:00",
    "output_dir": "./output"
  },
  {
    "job_id": "evaluate_20260101_130000_def456",
    "command": "evaluate",
    "config_path": "/home/me/eval.yaml",
    "cloud": "local",
    "cluster_name": "",
    "oumi_job_id": "",
    "model_name": "unknown",
    "submit_time": "2026-01-01T13:00:00Z",
    "output_dir": "",
    "status": "running"
  }
]"#;

struct Home {
    _home: tempfile::TempDir,
    folder: DataFolder,
    registry: JobRegistry,
}

fn home() -> Home {
    // In memory where that can be had: thousands of files are repaired, and every write is synced.
    let home = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let folder = DataFolder::at(home.path().join("data"));
    folder.create().unwrap();
    Home {
        registry: JobRegistry::new(folder.clone()),
        folder,
        _home: home,
    }
}

impl Home {
    fn write(&self, bytes: &[u8]) {
        fs::write(self.folder.registry(), bytes).unwrap();
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.folder.registry()).unwrap()
    }

    fn json(&self) -> Vec<Map<String, Value>> {
        serde_json::from_slice(&self.bytes()).unwrap()
    }

    async fn ids(&self) -> Vec<String> {
        let records = self.registry.records().await.unwrap();
        records.into_iter().map(|record| record.job_id).collect()
    }
}

fn record(job_id: &str) -> JobRecord {
    JobRecord {
        job_id: job_id.to_owned(),
        command: "train".to_owned(),
        cloud: "gcp".to_owned(),
        submit_time: "2026-01-01T12:00:00Z".to_owned(),
        ..JobRecord::default()
    }
}

async fn insert(registry: &JobRegistry, job_id: &str) {
    registry.insert(record(job_id), || Ok(())).await.unwrap();
}

#[tokio::test]
async fn a_folder_without_a_file_has_no_records() {
    let home = home();
    assert_eq!(home.ids().await, Vec::<String>::new());
    assert_eq!(home.registry.get("x").await.unwrap(), None);
}

#[tokio::test]
async fn a_file_of_the_python_server_loads() {
    let home = home();
    home.write(PYTHON_FILE.as_bytes());
    let records = home.registry.records().await.unwrap();
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
async fn what_is_written_is_what_the_python_server_reads() {
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
async fn a_legacy_status_is_dropped_and_the_rest_is_written_back_as_it_was() {
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
    let update = IdentityUpdate {
        cluster_name: "c".to_owned(),
        oumi_job_id: "9".to_owned(),
    };
    home.registry.update("a", update).await.unwrap();
    let written = &home.json()[0];
    for key in ["tags", "priority", "note"] {
        assert_eq!(written.get(key), object.get(key), "{key}");
    }
    assert_eq!(written["oumi_job_id"], "9");
    assert_eq!(written["cluster_name"], "c");
    assert_eq!(written.len(), FIELDS.len() + 3);
}

#[tokio::test]
async fn fields_that_are_missing_or_null_are_empty() {
    let home = home();
    home.write(br#"[{"job_id": "a", "output_dir": null}]"#);
    let expected = JobRecord {
        job_id: "a".to_owned(),
        ..JobRecord::default()
    };
    assert_eq!(home.registry.records().await.unwrap(), [expected]);
}

#[test]
fn a_time_may_end_in_z_carry_an_offset_or_carry_none() {
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

/// What was logged by anyone in this process.
fn logged() -> String {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    static LOG: OnceLock<Log> = OnceLock::new();
    let log = LOG.get_or_init(|| {
        let log = Log::default();
        let writer = log.clone();
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .init();
        log
    });
    String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
}

#[tokio::test]
async fn an_update_of_an_unknown_id_warns_and_does_nothing() {
    logged();
    let home = home();
    home.write(PYTHON_FILE.as_bytes());
    let update = IdentityUpdate {
        cluster_name: "c".to_owned(),
        oumi_job_id: "9".to_owned(),
    };
    home.registry
        .update("nobody_has_this", update)
        .await
        .unwrap();
    assert_eq!(home.bytes(), PYTHON_FILE.as_bytes());
    let log = logged();
    let warned = log
        .lines()
        .any(|line| line.contains("WARN") && line.contains("nobody_has_this"));
    assert!(warned, "{log}");
}

#[tokio::test]
async fn an_id_that_is_taken_is_refused_and_nothing_is_prepared() {
    let home = home();
    insert(&home.registry, "a").await;
    let before = home.bytes();
    let prepared = Arc::new(Mutex::new(0));
    let count = prepared.clone();
    let prepare = move || {
        *count.lock().unwrap() += 1;
        Ok(())
    };
    let refused = home.registry.insert(record("a"), prepare).await;
    let error = refused.unwrap_err().to_string();
    assert!(
        error.contains("\"a\"") && error.contains("another job_name"),
        "{error}"
    );
    assert_eq!(*prepared.lock().unwrap(), 0);
    assert_eq!(home.bytes(), before);
}

#[tokio::test]
async fn what_cannot_be_prepared_is_not_added() {
    let home = home();
    insert(&home.registry, "a").await;
    let before = home.bytes();
    let refused = home
        .registry
        .insert(record("b"), || Err::<(), _>("no room".to_owned()))
        .await;
    assert_eq!(refused.unwrap_err().to_string(), "no room");
    assert_eq!(home.bytes(), before);
}

#[tokio::test]
async fn a_record_is_prepared_under_the_lock_and_before_anyone_sees_it() {
    let home = home();
    let folder = home.folder.clone();
    let prepare = move || {
        let lock = File::open(folder.registry_lock()).unwrap();
        Ok((lock.try_lock_shared().is_err(), folder.registry().exists()))
    };
    let (is_locked, is_written) = home.registry.insert(record("a"), prepare).await.unwrap();
    assert!(is_locked && !is_written);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn submissions_at_once_from_two_processes_lose_nothing() {
    let home = home();
    // Two registries share the lock file only, as two processes do.
    let other = JobRegistry::new(home.folder.clone());
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..60 {
        let registry = if number % 2 == 0 {
            &home.registry
        } else {
            &other
        }
        .clone();
        tasks.spawn(async move {
            let job_id = format!("job-{number:02}");
            insert(&registry, &job_id).await;
            let update = IdentityUpdate {
                cluster_name: String::new(),
                oumi_job_id: number.to_string(),
            };
            registry.update(&job_id, update).await.unwrap();
            // A reader never sees a part of the file.
            assert!(registry.get(&job_id).await.unwrap().is_some());
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let mut records = home.registry.records().await.unwrap();
    records.sort_by(|one, other| one.job_id.cmp(&other.job_id));
    assert_eq!(records.len(), 60);
    for (number, record) in records.iter().enumerate() {
        assert_eq!(record.job_id, format!("job-{number:02}"));
        assert_eq!(record.oumi_job_id, number.to_string());
    }
    assert_eq!(
        home.registry.put_aside().await.unwrap(),
        Vec::<PathBuf>::new()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_id_submitted_by_many_at_once_is_given_to_one() {
    let home = home();
    let other = JobRegistry::new(home.folder.clone());
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..20 {
        let registry = if number % 2 == 0 {
            &home.registry
        } else {
            &other
        }
        .clone();
        tasks.spawn(async move { registry.insert(record("same"), || Ok(())).await.is_ok() });
    }
    let inserted = tasks.join_all().await;
    assert_eq!(inserted.iter().filter(|ok| **ok).count(), 1);
    assert_eq!(home.ids().await, ["same"]);
}

#[tokio::test]
async fn a_change_by_another_process_is_seen() {
    let home = home();
    let other = JobRegistry::new(home.folder.clone());
    insert(&other, "theirs").await;
    assert_eq!(home.ids().await, ["theirs"]);
    insert(&home.registry, "ours").await;
    assert_eq!(other.records().await.unwrap().len(), 2);
    home.write(PYTHON_FILE.as_bytes());
    assert_eq!(home.ids().await.len(), 2);
    fs::remove_file(home.folder.registry()).unwrap();
    assert_eq!(home.ids().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_somebody_holds_on_to_is_named_after_ten_seconds() {
    let home = home();
    insert(&home.registry, "a").await;
    let lock = File::open(home.folder.registry_lock()).unwrap();
    lock.lock().unwrap();
    let began = tokio::time::Instant::now();
    let error = home.registry.insert(record("b"), || Ok(())).await;
    let error = error.unwrap_err().to_string();
    let waited = began.elapsed();
    assert!(
        (Duration::from_secs(10)..Duration::from_secs(11)).contains(&waited),
        "{waited:?}"
    );
    let lock_file = home.folder.registry_lock();
    assert!(error.contains(lock_file.to_str().unwrap()), "{error}");
    // Who only reads does not wait.
    assert_eq!(home.ids().await, ["a"]);
    drop(lock);
    insert(&home.registry, "b").await;
    assert_eq!(home.ids().await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_freed_in_time_is_waited_for() {
    let home = home();
    let lock = File::create(home.folder.registry_lock()).unwrap();
    lock.lock().unwrap();
    let registry = home.registry.clone();
    let waiting = tokio::spawn(async move { registry.insert(record("a"), || Ok(())).await });
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert!(!waiting.is_finished());
    drop(lock);
    waiting.await.unwrap().unwrap();
    assert_eq!(home.ids().await, ["a"]);
}

#[tokio::test]
async fn a_removed_record_takes_its_folder_along_and_no_other() {
    let home = home();
    for job_id in ["a", "b"] {
        insert(&home.registry, job_id).await;
        fs::create_dir(home.folder.job(job_id).unwrap()).unwrap();
    }
    home.registry.remove(vec![record("a")]).await.unwrap();
    assert_eq!(home.ids().await, ["b"]);
    assert!(!home.folder.job("a").unwrap().exists());
    assert!(home.folder.job("b").unwrap().exists());
}

#[tokio::test]
async fn a_record_whose_id_went_to_a_new_job_meanwhile_is_not_removed() {
    let home = home();
    let old = JobRecord {
        submit_time: "2025-01-01T12:00:00Z".to_owned(),
        ..record("a")
    };
    insert(&home.registry, "a").await;
    fs::create_dir(home.folder.job("a").unwrap()).unwrap();
    home.registry.remove(vec![old]).await.unwrap();
    assert_eq!(home.ids().await, ["a"]);
    assert!(home.folder.job("a").unwrap().exists());
}

#[tokio::test]
async fn the_record_of_an_id_that_is_no_file_name_is_removed_and_nothing_else() {
    let home = home();
    fs::write(home.folder.root().join("kept"), "x").unwrap();
    for job_id in ["..", "../kept", "/", "."] {
        insert(&home.registry, job_id).await;
        home.registry.remove(vec![record(job_id)]).await.unwrap();
    }
    assert_eq!(home.ids().await, Vec::<String>::new());
    assert!(home.folder.jobs().exists() && home.folder.root().join("kept").exists());
}

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
    let records = home.registry.records().await.unwrap();
    let aside = home.registry.put_aside().await.unwrap();
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
    assert_eq!(home.registry.records().await.unwrap(), records);
    assert_eq!(home.registry.put_aside().await.unwrap(), aside);
    (records, !aside.is_empty())
}

#[tokio::test]
async fn a_file_cut_short_anywhere_keeps_every_whole_record() {
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
async fn a_file_with_one_bit_flipped_keeps_every_record_without_it() {
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
async fn a_file_that_is_no_list_of_records_is_kept_aside_and_what_is_whole_in_it_used() {
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
async fn bytes_that_are_no_text_cost_only_the_record_they_are_in() {
    let (text, spans) = file_of(3);
    let mut bytes = text.into_bytes();
    bytes[spans[1].1.start + 12] = 0xff;
    let (records, was_damaged) = looked_at(&bytes).await;
    assert_eq!(records, [spans[0].0.clone(), spans[2].0.clone()]);
    assert!(was_damaged);
}

#[tokio::test]
async fn a_submission_over_a_damaged_file_keeps_what_was_whole() {
    let home = home();
    let (text, _) = file_of(6);
    home.write(&text.as_bytes()[..text.len() - 30]);
    insert(&home.registry, "new").await;
    let ids = home.ids().await;
    assert_eq!(ids, ["job-0", "job-1", "job-2", "job-3", "job-4", "new"]);
    assert_eq!(home.registry.put_aside().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_refused_submission_over_a_damaged_file_repairs_it_all_the_same() {
    let home = home();
    let (text, _) = file_of(2);
    home.write(&text.as_bytes()[..text.len() - 1]);
    assert!(
        home.registry
            .insert(record("job-0"), || Ok(()))
            .await
            .is_err()
    );
    assert_eq!(home.json().len(), 2);
    assert_eq!(home.registry.put_aside().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_registry_that_cannot_be_read_is_an_error_that_names_it() {
    let home = home();
    fs::create_dir(home.folder.registry()).unwrap();
    let error = home.registry.records().await.unwrap_err().to_string();
    assert!(error.contains("oumi-jobs.json"), "{error}");
    let error = home.registry.insert(record("a"), || Ok(())).await;
    assert!(error.unwrap_err().to_string().contains("oumi-jobs.json"));
    assert!(Path::new(&home.folder.registry()).is_dir());
}

fn at(now: DateTime<Utc>, job_id: &str, age: TimeDelta) -> JobRecord {
    JobRecord {
        submit_time: (now - age).to_rfc3339(),
        ..record(job_id)
    }
}

#[test]
fn a_record_is_let_go_after_its_days_and_when_its_time_cannot_be_read() {
    let now = Utc::now();
    let limit = TimeDelta::days(KEEP_DAYS);
    let mut records = vec![
        at(now, "new", TimeDelta::zero()),
        at(now, "almost", limit - TimeDelta::seconds(1)),
        at(now, "just", limit),
        at(now, "old", limit + TimeDelta::seconds(1)),
        at(now, "older", limit * 50),
        at(now, "future", -limit),
    ];
    for text in ["", "yesterday", "0000-00-00T00:00:00Z"] {
        records.push(JobRecord {
            submit_time: text.to_owned(),
            ..record(&format!("unreadable {text}"))
        });
    }
    let mut gone: Vec<&str> = expired(&records, now)
        .into_iter()
        .map(|record| record.job_id.as_str())
        .collect();
    gone.sort_unstable();
    let unreadable = [
        "unreadable ",
        "unreadable 0000-00-00T00:00:00Z",
        "unreadable yesterday",
    ];
    assert_eq!(gone, [vec!["old", "older"], unreadable.to_vec()].concat());
}

#[test]
fn beyond_the_cap_the_oldest_are_let_go_first() {
    let now = Utc::now();
    let of = |count: usize| -> Vec<JobRecord> {
        // Not in the order of their age.
        let ages = (0..count).map(|number| (number * 37) % count);
        ages.map(|age| {
            let minutes = i64::try_from(age).unwrap();
            at(now, &format!("{age:03}"), TimeDelta::minutes(minutes))
        })
        .collect()
    };
    assert!(expired(&of(KEEP_RECORDS), now).is_empty());
    let records = of(KEEP_RECORDS + 5);
    let mut gone: Vec<&str> = expired(&records, now)
        .into_iter()
        .map(|record| record.job_id.as_str())
        .collect();
    gone.sort_unstable();
    assert_eq!(gone, ["200", "201", "202", "203", "204"]);
}

#[tokio::test]
async fn whoever_listens_hears_of_other_jobs_as_soon_as_this_process_sees_them() {
    let home = home();
    let other = JobRegistry::new(home.folder.clone());
    let mut known = home.registry.known();
    insert(&home.registry, "ours").await;
    assert!(known.has_changed().unwrap());
    assert_eq!(*known.borrow_and_update(), ["ours"]);
    // Who a job is in full is no other job.
    let update = IdentityUpdate {
        cluster_name: "c".to_owned(),
        oumi_job_id: "1".to_owned(),
    };
    home.registry.update("ours", update).await.unwrap();
    home.ids().await;
    assert!(!known.has_changed().unwrap());

    insert(&other, "theirs").await;
    assert!(!known.has_changed().unwrap(), "nobody has looked");
    home.ids().await;
    assert!(known.has_changed().unwrap());
    assert_eq!(*known.borrow_and_update(), ["ours", "theirs"]);
    let gone = other.get("ours").await.unwrap();
    home.registry
        .remove(gone.into_iter().collect())
        .await
        .unwrap();
    assert!(known.has_changed().unwrap());
    assert_eq!(*known.borrow_and_update(), ["theirs"]);
}
