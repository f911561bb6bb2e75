//! The file of the registry: read within a bound, written whole, and repaired where it is damaged.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use chrono::{SecondsFormat, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::record::JobRecord;
use crate::settings::data_dir::{if_found, read_bounded, replace};
use crate::sync::lock;

/// The largest file that is read. A registry of 200 records has some 100 KiB; others may write to the file too.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// An entry of a file; `None` for one that is no record. Made one by one: as JSON, all of them take megabytes.
#[derive(Deserialize)]
#[serde(from = "Value")]
struct Entry(Option<JobRecord>);

impl From<Value> for Entry {
    fn from(json: Value) -> Self {
        Self(JobRecord::from_json(json))
    }
}

type Records = Arc<Vec<JobRecord>>;

/// What this process wrote last. The same bytes are not parsed again, which takes most of a read.
#[derive(Debug, Default)]
pub(super) struct Written(Mutex<(Option<Vec<u8>>, Records)>);

pub(super) fn read(path: &Path, last: &Written) -> io::Result<(Records, bool)> {
    let bytes = if_found(read_bounded(path, MAX_BYTES))?.unwrap_or_else(|| b"[]".to_vec());
    {
        let last = lock(&last.0);
        if last.0.as_ref() == Some(&bytes) {
            return Ok((Arc::clone(&last.1), false));
        }
    }
    let entries = serde_json::from_slice(&bytes).unwrap_or_else(|_| vec![Entry(None)]);
    let records = entries.into_iter().map(|Entry(record)| record);
    Ok(match records.collect::<Option<Vec<_>>>() {
        Some(records) => (Arc::new(records), false),
        None => (Arc::new(salvage(&bytes)), true),
    })
}

/// Replaces the file; the folder that is returned is still to be synced.
pub(super) fn write(path: &Path, records: Vec<JobRecord>, last: &Written) -> io::Result<File> {
    let bytes = serde_json::to_vec_pretty(&records)?;
    let folder = replace(path, &bytes)?;
    *lock(&last.0) = (Some(bytes), Arc::new(records));
    Ok(folder)
}

/// Finds every whole record in a damaged file: each `{` is tried as the beginning of one.
fn salvage(bytes: &[u8]) -> Vec<JobRecord> {
    let mut records: Vec<JobRecord> = Vec::new();
    let mut at = 0;
    while let Some(offset) = bytes[at..].iter().position(|byte| *byte == b'{') {
        at += offset;
        let mut stream = serde_json::Deserializer::from_slice(&bytes[at..]).into_iter::<Value>();
        let parsed = stream.next().and_then(Result::ok);
        match parsed.and_then(JobRecord::from_json) {
            Some(record) => {
                at += stream.byte_offset();
                if !records.iter().any(|known| known.job_id == record.job_id) {
                    records.push(record);
                }
            }
            None => at += 1,
        }
    }
    records
}

fn quarantine_prefix(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("{name}.corrupt-")
}

/// Copies the damaged file, which is then written over: there is a registry at every instant.
pub(super) fn quarantine(path: &Path) -> io::Result<PathBuf> {
    let now = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
    let now = now.replace(['-', ':'], "");
    let quarantined = path.with_file_name(format!("{}{now}", quarantine_prefix(path)));
    fs::copy(path, &quarantined)?;
    Ok(quarantined)
}

pub(super) fn quarantined(path: &Path) -> io::Result<Vec<PathBuf>> {
    let prefix = quarantine_prefix(path);
    let entries = if_found(fs::read_dir(path.parent().unwrap_or(path)))?;
    let entries = entries.into_iter().flatten().flatten();
    let is_copy = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&prefix);
    let mut files: Vec<PathBuf> = entries.filter(is_copy).map(|entry| entry.path()).collect();
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn salvaged(text: &str) -> Vec<String> {
        let records = salvage(text.as_bytes()).into_iter();
        records.map(|record| record.job_id).collect()
    }

    #[test]
    fn a_record_reads_back_with_fields_of_a_newer_version() {
        let mut record = JobRecord {
            job_id: "a".to_owned(),
            output_dir: "out".to_owned(),
            ..JobRecord::default()
        };
        record.other.insert("tags".to_owned(), vec!["x"].into());
        let json = serde_json::to_value(&record).unwrap();
        assert_eq!(JobRecord::from_json(json), Some(record));
    }

    #[test]
    fn salvage_finds_each_record_once_anywhere() {
        let a = r#"{"job_id": "a", "x": {"y": 1}}"#;
        let b = r#"{"job_id": "b"}"#;
        for text in [
            format!("{a}{b}"),
            format!("[{a}, {b}, {a}]"),
            format!("[{{\"job_id\": \"cut {a} {b}"),
            format!("}}}}]] {a} {{{{ {b}"),
            format!(r#"{{"job_id": "" }} {a} {{"job_id": 1}} {b}"#),
        ] {
            assert_eq!(salvaged(&text), ["a", "b"], "{text}");
        }
        assert_eq!(salvaged(r#"{"job_id": "a", "cloud": 3}"#), [""; 0]);
    }

    #[test]
    fn quarantine_keeps_the_damaged_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("oumi-jobs.json");
        fs::write(&path, "damaged").unwrap();
        let first = quarantine(&path).unwrap();
        replace(&path, b"damaged again").unwrap();
        let second = quarantine(&path).unwrap();
        replace(&path, b"[]").unwrap();
        assert_eq!(fs::read(&first).unwrap(), b"damaged");
        assert_eq!(fs::read(&second).unwrap(), b"damaged again");
        assert_eq!(quarantined(&path).unwrap(), [first, second]);
    }
}
