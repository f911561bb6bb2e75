//! A registry file that was damaged: put aside and named, and every whole record in it is used.

use std::fs;
use std::path::PathBuf;

use chrono::{SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::support::Home;
use crate::support::client::Server;

/// The file as the Python server would have written it, with what JSON finds hard in it.
fn file() -> (Vec<String>, Vec<u8>) {
    let ids: Vec<String> = (0..6).map(|at| format!("job{at}")).collect();
    let records: Vec<Value> = ids
        .iter()
        .zip(0..)
        .map(|(job_id, minutes)| {
            let time = Utc::now() - TimeDelta::minutes(minutes);
            json!({
                "job_id": job_id, "command": "train", "config_path": "/p/{\"x\": [}]\\.yaml", "cloud": "local",
                "cluster_name": "", "oumi_job_id": "", "model_name": "ü{", "output_dir": "", "notes": { "a": [{}] },
                "submit_time": time.to_rfc3339_opts(SecondsFormat::Secs, true),
            })
        })
        .collect();
    (ids, serde_json::to_vec_pretty(&records).unwrap())
}

fn aside(home: &Home) -> Vec<PathBuf> {
    let entries = fs::read_dir(home.data()).unwrap();
    let names = entries.map(|entry| entry.unwrap().path());
    names
        .filter(|path| path.to_string_lossy().contains("oumi-jobs.json.corrupt-"))
        .collect()
}

#[test]
fn cut_file_keeps_whole_records() {
    let home = Home::new();
    let (ids, bytes) = file();
    let mut server = Server::start(&home);
    // A record is whole from the brace that closes it: the last at that depth.
    let ends: Vec<usize> = bytes
        .windows(4)
        .enumerate()
        .filter(|(_, four)| *four == b"\n  }")
        .map(|(at, _)| at + 4)
        .collect();
    assert_eq!(ends.len(), ids.len());
    let around_ends = ends.iter().flat_map(|end| [end - 1, *end, end + 1]);
    for cut in (0..bytes.len()).step_by(41).chain(around_ends) {
        let whole: Vec<&String> = ids
            .iter()
            .zip(&ends)
            .filter(|(_, end)| **end <= cut)
            .map(|(id, _)| id)
            .collect();
        fs::write(home.registry(), &bytes[..cut]).unwrap();
        let (listed, answer) = server.list("all");
        assert_eq!(listed.iter().collect::<Vec<_>>(), whole, "cut at {cut}");
        let [put_aside] = &aside(&home)[..] else {
            panic!("cut at {cut}: {:?}", aside(&home));
        };
        assert_eq!(fs::read(put_aside).unwrap(), &bytes[..cut], "cut at {cut}");
        let warning = answer["warnings"][0].as_str().unwrap();
        assert!(warning.contains(put_aside.to_str().unwrap()), "{warning}");
        let kept: Vec<Value> = home.records();
        assert_eq!(kept.len(), whole.len());
        fs::remove_file(put_aside).unwrap();
    }
    let answer = server.list("all").1;
    let warning = answer["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("the folders of these jobs are gone"));
    assert_eq!(answer["warnings"].as_array().unwrap().len(), 1);
}

#[test]
fn submission_after_damage() {
    let home = Home::new();
    let (_, bytes) = file();
    let mut server = Server::start(&home);
    let cut = bytes.len() - 40;
    fs::write(home.registry(), &bytes[..cut]).unwrap();
    let job_id = server.submit(home.job("true"), json!({ "job_name": "new" }));
    let names: Vec<Value> = home
        .records()
        .iter()
        .map(|record| record["job_id"].clone())
        .collect();
    assert_eq!(names, ["job0", "job1", "job2", "job3", "job4", &job_id]);
    assert_eq!(home.records()[0]["notes"], json!({ "a": [{}] }));
    assert_eq!(fs::read(&aside(&home)[0]).unwrap(), &bytes[..cut]);
}

#[test]
fn foreign_file_is_quarantined() {
    let home = Home::new();
    let mut server = Server::start(&home);
    let (_, whole) = file();
    for garbage in [
        &b""[..],
        b"null",
        b"{}",
        b"\"text\"",
        b"[1, 2]",
        b"[{\"job_id\": 7}]",
        b"[{\"command\": \"train\"}]",
        b"\0\xff\xfe[[[[",
        &[b'{'; 100_000],
        &[&whole[..], b"trailing"].concat(),
    ] {
        fs::write(home.registry(), garbage).unwrap();
        let (listed, answer) = server.list("all");
        assert_eq!(
            listed.len(),
            if garbage.ends_with(b"trailing") { 6 } else { 0 }
        );
        // Of whole records the folders are gone too.
        let warnings = if listed.is_empty() { 1 } else { 2 };
        assert_eq!(answer["warnings"].as_array().unwrap().len(), warnings);
        assert_eq!(fs::read(&aside(&home)[0]).unwrap(), garbage);
        fs::remove_file(&aside(&home)[0]).unwrap();
    }
}

#[test]
fn damage_is_mended_at_start() {
    let home = Home::new();
    let (_, bytes) = file();
    fs::create_dir(home.data()).unwrap();
    fs::write(home.registry(), &bytes[..bytes.len() - 40]).unwrap();
    let mut server = Server::start(&home);
    // The first call waits until it is mended.
    assert_eq!(server.list("all").0.len(), 5);
    assert_eq!(aside(&home).len(), 1);
    assert_eq!(home.records().len(), 5);
    assert!(server.stderr().contains("damaged"));
}
