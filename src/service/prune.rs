//! Pruning: records that are too old or too many are removed with their folders, once their jobs are known to be done; old
//! folders without a record go too.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use chrono::Utc;

use super::Context;
use crate::error::{JobError, Result};
use crate::process::job_dir::JobDir;
use crate::process::start::is_alive;
use crate::registry::{JobRecord, expired};
use crate::settings::data_dir::{if_found, open_options, read_bounded, write_atomic};

/// The file that marks when a job elsewhere was first seen to be over, once it is older than jobs are kept.
const SEEN_OVER: &str = "seen-over";
/// A clock that jumps further than this is not believed, in seconds.
const MAX_JUMP: i64 = 2 * 24 * 3600;
/// The time for which a clock must have gone on without a jump, in seconds.
const STEADY: i64 = 3600;

/// Prunes `records` and returns the ids that are gone. `done` holds what the launchers said of the jobs already; a job that is
/// missing there is asked about where that is cheap, and else kept. A job whose state is unknown is kept: it may cost money.
pub(super) async fn prune(
    context: &Context,
    records: &[JobRecord],
    done: &HashMap<&str, bool>,
) -> HashSet<String> {
    let pruning = async {
        let policy = &context.policy;
        let steady = || is_steady(&context.data_dir.clock(), Utc::now().timestamp());
        let unknown =
            |error| JobError::from(error).context("the last reading of the clock is not known");
        if policy.read_only || !steady().map_err(unknown)? {
            return Ok(HashSet::new());
        }
        // First: on a full disk it makes the room that the registry needs.
        if let Err(error) = remove_orphans(context, records).await {
            tracing::warn!(%error, "cannot look for folders without a record");
        }
        let mut unwanted = Vec::new();
        let oldest_kept = Utc::now() - policy.kept();
        for record in expired(records, oldest_kept) {
            let is_done = match done.get(record.job_id.as_str()) {
                Some(is_done) => *is_done,
                None => context.is_local(&record.cloud) && context.is_over(record).await,
            };
            // Of too many, also one that has just ended.
            let is_excess = record.submitted_at().is_some_and(|at| at >= oldest_kept);
            if is_done
                && !context.in_flight.contains(&record.job_id)
                && (is_excess || is_long_over(context, record))
            {
                unwanted.push(record.clone());
            }
        }
        let ids = unwanted.iter().map(|record| record.job_id.clone());
        let ids = ids.collect();
        let remove_dir = |record: &JobRecord| {
            // What is left of it is a folder without a record, which goes later.
            context.job_dir(&record.job_id).map(|dir| dir.remove());
        };
        context.registry.remove(unwanted, remove_dir).await?;
        Ok(ids)
    };
    let pruned: Result<HashSet<String>> = pruning.await;
    pruned.unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot prune the registry");
        HashSet::new()
    })
}

/// Tells if a job that is over has been so for as long as jobs are kept: one that ran for longer has just ended. On this machine its
/// end was written to its folder; one elsewhere leaves a mark there when it is first seen to be over.
fn is_long_over(context: &Context, record: &JobRecord) -> bool {
    let Some(dir) = context.job_dir(&record.job_id) else {
        return true;
    };
    let look = || {
        let mark = dir.path().join(SEEN_OVER);
        if !dir.exists()? {
            return Ok(true);
        }
        if !context.is_local(&record.cloud) && !mark.try_exists()? {
            write_atomic(&mark, b"")?;
        }
        is_old(dir.path(), context.policy.kept())
    };
    look().unwrap_or_else(|error: io::Error| {
        let job_id = &record.job_id;
        tracing::warn!(job_id, %error, "cannot see how long a job has been over");
        false
    })
}

/// Tells if the clock has gone on for an hour without a jump, by the readings in the file at `path`. A clock that is wrong for a
/// moment must not make a young job look old.
fn is_steady(path: &Path, now: i64) -> io::Result<bool> {
    let readings = match if_found(read_bounded(path, 1024))? {
        Some(bytes) => serde_json::from_slice(&bytes).ok(),
        None => Some((now - STEADY, now)),
    };
    // One that cannot be read counts as a jump.
    let (steady_since, last): (i64, i64) = readings.unwrap_or((now, i64::MIN));
    let has_jumped = !(0..=MAX_JUMP).contains(&now.saturating_sub(last));
    let steady_since = if has_jumped { now } else { steady_since };
    // In place: a full disk has no room for a new file, and one that was cut short counts as a jump.
    let write = |bytes: Vec<u8>| {
        let mut file = open_options().create(true).write(true).open(path)?;
        file.write_all(&bytes)?;
        file.set_len(bytes.len() as u64)
    };
    match write(serde_json::to_vec(&(steady_since, now))?) {
        // A full disk is no reason to keep what can go.
        Err(error) if !has_jumped => tracing::warn!(%error, "cannot write the clock down"),
        written => written?,
    }
    Ok(now.saturating_sub(steady_since) >= STEADY)
}

/// Removes the folders of jobs that are in no record, have no living process, and were not written to for as long as a job is kept. None
/// while a damaged registry is kept: the records may be in it.
async fn remove_orphans(context: &Context, records: &[JobRecord]) -> Result<()> {
    if !context.registry.quarantined().await?.is_empty() {
        return Ok(());
    }
    let known = records.iter().map(|record| record.job_id.as_str());
    let known: HashSet<&str> = known.collect();
    for entry in context.data_dir.jobs().read_dir()? {
        let entry = entry?;
        let name = entry.file_name();
        let is_unknown = name.to_str().is_some_and(|name| !known.contains(name));
        let dir = JobDir::at(entry.path());
        if is_unknown
            && entry.file_type()?.is_dir()
            && is_old(dir.path(), context.policy.kept())?
            && !is_alive(&dir)?
        {
            dir.remove().ok();
        }
    }
    Ok(())
}

fn is_old(dir: &Path, kept: Duration) -> io::Result<bool> {
    let mut newest = dir.metadata()?.modified()?;
    for entry in dir.read_dir()? {
        newest = newest.max(entry?.metadata()?.modified()?);
    }
    let age = SystemTime::now().duration_since(newest);
    Ok(age.is_ok_and(|age| age > kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;

    #[test]
    fn clock_that_jumps_is_not_believed_for_an_hour() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clock");
        let steady = |now| is_steady(&path, now).unwrap();
        let start = 1_790_000_000;
        assert!(steady(start), "a new data folder has no reading");
        assert!(steady(start + DAY));
        let jumped = start + 31 * DAY;
        assert!(!steady(jumped) && !steady(jumped + 60));
        assert!(!steady(start + DAY + 60), "back again is a jump too");
        assert!(!steady(start + DAY + 3000));
        assert!(steady(start + DAY + 3660));
    }

    #[test]
    fn clock_that_cannot_be_written_down_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("gone/clock");
        assert!(is_steady(&nowhere, 1_790_000_000).unwrap());
    }

    /// No file can be created beside one of a process's open ones.
    #[test]
    #[cfg(target_os = "linux")]
    fn clock_is_written_down_where_no_file_can_be_created() {
        use std::os::fd::AsRawFd;
        let file = tempfile::tempfile().unwrap();
        let path = Path::new("/proc/self/fd").join(file.as_raw_fd().to_string());
        assert!(!is_steady(&path, 1_790_000_000).unwrap());
        assert!(is_steady(&path, 1_790_000_000 + STEADY).unwrap());
    }

    #[test]
    fn garbled_reading_is_a_jump() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clock");
        for garbled in ["{", "[-9223372036854775808, 1790000000]"] {
            std::fs::write(&path, garbled).unwrap();
            is_steady(&path, 1_790_000_000).unwrap();
        }
        std::fs::write(&path, "{").unwrap();
        assert!(!is_steady(&path, 1_790_000_000).unwrap());
        assert!(is_steady(&path, 1_790_000_000 + STEADY).unwrap());
    }
}
