//! Removes records that are too old or too many, with their folders, once their jobs are done, and old folders without a record.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use chrono::Utc;

use super::Context;
use crate::error::Result;
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

/// Prunes `records` and returns the ids that are gone. A job that `removable` does not know is asked about where that is cheap, and
/// else kept: it may cost money.
pub(super) async fn prune(
    context: &Context,
    records: &[JobRecord],
    removable: &HashMap<&str, bool>,
) -> HashSet<String> {
    let pruning = async {
        let policy = &context.policy;
        if policy.read_only || !is_steady(&context.data_dir.clock(), Utc::now().timestamp())? {
            return Ok(HashSet::new());
        }
        // This comes first: on a full disk it makes room for writing the registry.
        if let Err(error) = remove_orphans(context, records).await {
            tracing::warn!(%error, "cannot look for folders without a record");
        }
        let mut unwanted = Vec::<JobRecord>::new();
        let oldest_kept = Utc::now() - policy.kept();
        for record in expired(records, oldest_kept) {
            let is_removable = match removable.get(record.job_id.as_str()) {
                Some(is_removable) => *is_removable,
                None => context.is_local(&record.cloud) && context.is_over(record).await,
            };
            // A record above the largest number goes even if its job has just ended.
            let is_excess = record.submitted_at().is_some_and(|at| at >= oldest_kept);
            if is_removable
                && !context.in_flight.contains(&record.job_id)
                // A folder that cannot be read is kept.
                && (is_excess || is_long_over(context, record).unwrap_or(false))
            {
                unwanted.push(record.clone());
            }
        }
        let ids = unwanted.iter().map(|it| it.job_id.clone()).collect();
        let remove_dir = |record: &JobRecord| {
            // What cannot be removed now is a folder without a record, and is removed later.
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

/// Tells if a job has been over for as long as jobs are kept. Its folder was last written when a job on this machine ended, and
/// gets a mark when one elsewhere is first found to be over.
fn is_long_over(context: &Context, record: &JobRecord) -> io::Result<bool> {
    let dir = match context.job_dir(&record.job_id) {
        Some(dir) if dir.exists()? => dir,
        _ => return Ok(true),
    };
    let mark = dir.path().join(SEEN_OVER);
    if !context.is_local(&record.cloud) && !mark.try_exists()? {
        write_atomic(&mark, b"")?;
    }
    is_old(dir.path(), context.policy.kept())
}

/// Tells if the clock has not jumped for an hour, by the readings in a file: a wrong clock makes a young job look old.
fn is_steady(path: &Path, now: i64) -> io::Result<bool> {
    let readings = match if_found(read_bounded(path, 1024))? {
        Some(bytes) => serde_json::from_slice(&bytes).ok(),
        None => Some((now - STEADY, now)),
    };
    // A reading that cannot be parsed counts as a jump.
    let (steady_since, last): (i64, i64) = readings.unwrap_or((now, i64::MIN));
    let has_jumped = !(0..=MAX_JUMP).contains(&now.saturating_sub(last));
    let steady_since = if has_jumped { now } else { steady_since };
    // Written in place: a full disk has no room for a new file. A file that is cut short counts as a jump.
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

/// Removes old folders without a record or a living process. None while a damaged registry is there: it may hold the records.
async fn remove_orphans(context: &Context, records: &[JobRecord]) -> Result<()> {
    if !context.registry.quarantined().await?.is_empty() {
        return Ok(());
    }
    let known: HashSet<&str> = records.iter().map(|record| &*record.job_id).collect();
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
