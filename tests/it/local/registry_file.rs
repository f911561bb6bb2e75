//! The registry file: shared with the Python server, pruned by age and number, and readable by nobody else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use chrono::{SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::support::Home;
use crate::support::client::Server;

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

fn ago(time: TimeDelta) -> String {
    (Utc::now() - time).to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn record(job_id: &str, submit_time: &str) -> Value {
    json!({
        "job_id": job_id, "command": "train", "config_path": "/p/train.yaml", "cloud": "local", "cluster_name": "",
        "oumi_job_id": job_id, "model_name": "tiny", "submit_time": submit_time, "output_dir": "",
    })
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

#[test]
fn python_file_round_trip() {
    let home = Home::new();
    let hour = TimeDelta::hours(1);
    let naive = (Utc::now() - hour)
        .format("%Y-%m-%dT%H:%M:%S%.6f")
        .to_string();
    let offset = (Utc::now() - hour)
        .format("%Y-%m-%dT%H:%M:%S+00:00")
        .to_string();
    let mut legacy = record("legacy", &ago(hour));
    legacy["status"] = json!("completed");
    let mut sparse = record("sparse", &naive);
    sparse.as_object_mut().unwrap().remove("output_dir");
    home.write_registry(&[legacy, sparse, record("offset", &offset)]);

    let mut server = Server::start(&home);
    let (listed, answer) = server.list("all");
    assert_eq!(sorted(listed), ["legacy", "offset", "sparse"]);
    let warnings = answer["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0]
            .as_str()
            .unwrap()
            .ends_with("legacy, sparse, offset")
    );
    // How a job is comes from what is left of it, never from the file.
    assert_eq!(server.poll("legacy")["status"], "lost");
    let rows = answer["jobs"].as_array().unwrap();
    let sparse = rows.iter().find(|row| row["job_id"] == "sparse").unwrap();
    assert!(sparse["submitted"].is_string() && sparse["config"].is_string());

    let job_id = server.submit(home.job("true"), json!({}));
    let records = home.records();
    assert_eq!(records.len(), 4);
    for record in &records {
        let record = record.as_object().unwrap();
        assert!(record.keys().eq(FIELDS), "{record:?}");
        assert!(record.values().all(Value::is_string), "{record:?}");
    }
    let new = records.last().unwrap();
    assert_eq!(
        (&new["job_id"], &new["oumi_job_id"]),
        (&json!(job_id), &json!(job_id))
    );
    // Python's `fromisoformat` takes an offset in every version, and `Z` only since 3.11.
    assert!(
        new["submit_time"].as_str().unwrap().ends_with("+00:00"),
        "{new}"
    );
    assert!(
        fs::read_to_string(home.registry())
            .unwrap()
            .starts_with("[\n  {\n    \"job_id\"")
    );
}

#[test]
fn unknown_fields_survive() {
    let home = Home::new();
    let mut newer = record("newer", &ago(TimeDelta::hours(1)));
    newer["tags"] = json!(["a", { "b": [1, 2.5, null] }]);
    home.write_registry(&[newer.clone()]);
    let mut server = Server::start(&home);
    server.submit(home.job("true"), json!({}));
    assert_eq!(home.records()[0], newer);
}

#[test]
fn week_old_records_are_pruned() {
    let home = Home::new();
    home.write_registry(&[
        record("old", &ago(TimeDelta::days(8))),
        record("young", &ago(TimeDelta::days(6))),
        record("unreadable", "yesterday"),
        record("empty", ""),
    ]);
    for job_id in ["old", "young", "unreadable"] {
        fs::create_dir_all(home.job_dir(job_id)).unwrap();
    }
    let mut server = Server::start(&home);
    assert_eq!(server.list("all").0, ["young"]);
    assert_eq!(home.records().len(), 1);
    assert!(home.job_dir("young").is_dir());
    assert!(!home.job_dir("old").exists() && !home.job_dir("unreadable").exists());
    let answer = server.call("poll_status", json!({ "job_id": "old" }));
    assert_eq!(answer["status"], "not_found");
}

#[test]
fn records_beyond_two_hundred_are_pruned() {
    let home = Home::new();
    let name = |minutes: i64| format!("job{minutes:03}");
    let minutes: Vec<i64> = (0..205).rev().map(|at| (at * 7) % 205).collect();
    let records: Vec<Value> = minutes
        .iter()
        .map(|&minutes| record(&name(minutes), &ago(TimeDelta::minutes(minutes))))
        .collect();
    home.write_registry(&records);
    let mut server = Server::start(&home);
    let newest_first: Vec<String> = (0..200).map(name).collect();
    assert_eq!(server.list("all").0, newest_first);
    assert_eq!(home.records().len(), 200);
}

#[test]
fn running_job_is_never_pruned() {
    let home = Home::new();
    let mut server = Server::start(&home);
    let run = "mkdir -p pids; echo $$ > pids/$1; while [ ! -e go ]; do sleep 0.05; done";
    let job_id = server.submit(home.job(run), json!({}));
    let mut records = home.records();
    records[0]["submit_time"] = json!(ago(TimeDelta::days(30)));
    records.extend((0..200).map(|at| record(&format!("young{at}"), &ago(TimeDelta::minutes(at)))));
    server.kill_9();
    home.write_registry(&records);

    let mut server = Server::start(&home);
    for _ in 0..2 {
        assert_eq!(server.list("running").0, [job_id.as_str()]);
        assert_eq!(server.poll(&job_id)["status"], "running");
    }
    assert!(home.job_dir(&job_id).is_dir());
    home.write("go", "");
    server.wait_done(&job_id);
    // Now it may go.
    assert!(!server.list("all").0.contains(&job_id));
    assert!(!home.job_dir(&job_id).exists());
}

#[test]
fn records_without_a_folder_are_harmless() {
    let home = Home::new();
    let outside = home.root().join("outside");
    fs::create_dir(&outside).unwrap();
    let old = ago(TimeDelta::days(8));
    home.write_registry(&[
        record("../../outside", &old),
        record(outside.to_str().unwrap(), &old),
        record("..", &ago(TimeDelta::hours(1))),
    ]);
    let mut server = Server::start(&home);
    server.list("all");
    assert!(outside.is_dir() && home.registry().is_file());
    for tool in ["poll_status", "get_job_logs", "cancel_job"] {
        assert!(
            server
                .call(tool, json!({ "job_id": ".." }))
                .refused()
                .contains("list_jobs")
        );
    }
}

#[test]
fn unknown_cloud_is_kept_and_named() {
    let home = Home::new();
    let mut on_mars = record("far", &ago(TimeDelta::days(8)));
    on_mars["cloud"] = json!("mars");
    home.write_registry(&[on_mars.clone()]);
    let mut server = Server::start(&home);
    let (_, answer) = server.list("all");
    let warning = answer["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains("far") && warning.contains("mars"),
        "{warning}"
    );
    assert_eq!(home.records(), [on_mars]);
}

#[test]
fn data_folder_is_private_unless_it_was_there() {
    let home = Home::new();
    fs::create_dir(home.data()).unwrap();
    fs::set_permissions(home.data(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut server = Server::start(&home);
    home.write("job.yaml", "setup: 'true'\nrun: umask 0; echo x\n");
    let job_id = server.submit("job.yaml", json!({}));
    server.wait_done(&job_id);
    let cancelled = server.submit(home.job("sleep 300"), json!({}));
    server.cancel(&cancelled, false).ok();
    let mut files = 0;
    let mut open = vec![home.data()];
    while let Some(path) = open.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mode = metadata.permissions().mode() & 0o777;
        let wanted = match metadata.is_dir() {
            true if path == home.data() => 0o755,
            true => 0o700,
            false => 0o600,
        };
        assert_eq!(mode, wanted, "{}: {mode:o}", path.display());
        if metadata.is_dir() {
            open.extend(entries(&path));
        } else {
            files += 1;
        }
    }
    assert!(files >= 10, "{files}");
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}
