//! The registry file: shared with the Python server, mended, pruned by age, and readable by nobody else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use chrono::{SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::support::client::{Server, command_of};
use crate::support::{Home, everything_in};

fn ago(time: TimeDelta) -> String {
    (Utc::now() - time).to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn record(job_id: &str, submit_time: &str) -> Value {
    json!({
        "job_id": job_id, "command": "train", "config_path": "/p/train.yaml", "cloud": "local", "cluster_name": "",
        "oumi_job_id": job_id, "model_name": "tiny", "submit_time": submit_time, "output_dir": "",
    })
}

#[test]
fn python_file_round_trip() {
    let home = Home::new();
    let naive = (Utc::now() - TimeDelta::hours(1)).format("%Y-%m-%dT%H:%M:%S%.6f");
    let mut legacy = record("legacy", &naive.to_string());
    legacy["status"] = json!("completed");
    home.write_registry(&[legacy]);

    let mut server = Server::start(&home);
    let (listed, answer) = server.list("all");
    assert_eq!(listed, ["legacy"]);
    let warning = answer["warnings"][0].as_str().unwrap();
    assert!(warning.ends_with("gone, and their logs with them: legacy"));
    // How a job is comes from what is left of it, never from the file.
    let legacy = server.poll("legacy");
    assert_eq!(legacy["status"], "lost");
    let message = legacy["message"].as_str().unwrap();
    assert!(message.contains("not even its log"), "{message}");

    let job_id = server.submit(home.job("true"), json!({}));
    let records = home.records();
    let new = records.last().unwrap();
    assert_eq!([&new["job_id"], &new["oumi_job_id"]], [&job_id, &job_id]);
    // Python's `fromisoformat` takes an offset in every version, and `Z` only since 3.11.
    let submitted = new["submit_time"].as_str().unwrap();
    assert!(submitted.ends_with("+00:00"), "{new}");
}

#[test]
fn damaged_file_is_quarantined_and_used() {
    let home = Home::new();
    home.write_registry(&[
        record("whole", &ago(TimeDelta::hours(1))),
        record("cut", ""),
    ]);
    let bytes = fs::read(home.registry()).unwrap();
    let damaged = &bytes[..bytes.len() - 40];
    fs::write(home.registry(), damaged).unwrap();
    // The first call waits until it is mended.
    let mut server = Server::start(&home);
    let (listed, answer) = server.list("all");
    assert_eq!(listed, ["whole"]);
    assert_eq!(home.records().len(), 1);
    let is_aside = |path: &PathBuf| path.to_string_lossy().contains("oumi-jobs.json.corrupt-");
    let aside = everything_in(&home.data())
        .into_iter()
        .find(is_aside)
        .unwrap();
    assert_eq!(fs::read(&aside).unwrap(), damaged);
    let warning = answer["warnings"][0].as_str().unwrap();
    assert!(warning.contains(aside.to_str().unwrap()), "{warning}");
    assert!(server.stderr().contains("damaged"));
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
        let folder = fs::File::open(home.job_dir(job_id)).unwrap();
        let then = Utc::now() - TimeDelta::days(8);
        folder.set_modified(then.into()).unwrap();
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
fn running_job_is_never_pruned() {
    let (home, mut server) = Server::in_new_home();
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
    // It is kept from its end on.
    assert!(server.list("all").0.contains(&job_id));
    assert!(home.job_dir(&job_id).exists());
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
    let found = everything_in(&home.data());
    assert!(found.len() >= 12, "{found:?}");
    for path in found {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mode = metadata.permissions().mode() & 0o777;
        let wanted = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, wanted, "{}: {mode:o}", path.display());
    }
    let rights = fs::metadata(home.data()).unwrap().permissions();
    assert_eq!(rights.mode() & 0o777, 0o755);
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
fn limit_of_file_sizes_fails_what_is_larger() {
    let home = Home::new();
    let mut limited = command_of(&home, Path::new("bash"));
    let server = env!("CARGO_BIN_EXE_oumi-mcp-server");
    limited.args(["-c", "ulimit -f 2 && exec \"$0\"", server]);
    let mut server = Server::spawn(&home, limited);
    // Its log is full when the time limit is to be written there.
    let full = "trap '' XFSZ; head -c 9999 /dev/zero; sleep 300";
    let job_id = server.submit(home.job(full), json!({ "max_hours": 0.0003 }));
    let status = server.wait_done(&job_id);
    assert_eq!(status["failure"]["cause"], "time_limit");
    let config = home.job("true");
    let mut launches = (0..9).map(|_| server.call("run_job", server.launch(config, json!({}))));
    let refused = launches.find(|launch| launch.is_error).unwrap();
    let error = refused.refused();
    assert!(error.contains("cannot write the job registry"), "{error}");
    assert_eq!(server.poll(&job_id)["state"], "FAILED");
}
