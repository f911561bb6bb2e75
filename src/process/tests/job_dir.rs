//! The folder of a job.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use crate::process::job_dir::{ExitRecord, JobDir, JobLock};
use crate::process::table::Termination;

fn job_dir() -> (TempDir, JobDir, JobLock) {
    let parent = tempfile::tempdir().unwrap();
    let (dir, lock) = JobDir::create(parent.path().join("job")).unwrap();
    (parent, dir, lock)
}

#[test]
fn lock_is_seen_while_held() {
    let (_parent, dir, lock) = job_dir();
    assert!(dir.is_locked().unwrap());
    drop(lock);
    // A program that another test is just starting has a copy of it.
    while dir.is_locked().unwrap() {
        std::thread::yield_now();
    }
}

#[test]
fn existing_folder_is_not_made_again() {
    let (_parent, dir, _lock) = job_dir();
    let again = JobDir::create(dir.path()).unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn exit_record_reads_back() {
    let (_parent, dir, _lock) = job_dir();
    assert_eq!(dir.exit_record().unwrap(), None);
    let record = ExitRecord {
        signal: Some(9),
        ..ExitRecord::now("run")
    };
    dir.write_exit_record(&record).unwrap();
    assert_eq!(dir.exit_record().unwrap(), Some(record));
}

#[test]
fn forced_termination_outranks_graceful() {
    use Termination::{Forced, Graceful};
    let (_parent, dir, _lock) = job_dir();
    assert_eq!(dir.termination_request().unwrap(), None);
    let requests = [
        (Graceful, Graceful),
        (Graceful, Graceful),
        (Forced, Forced),
        (Graceful, Forced),
    ];
    for (request, expected) in requests {
        dir.request_termination(request).unwrap();
        assert_eq!(dir.termination_request().unwrap(), Some(expected));
    }
}

/// Files that anyone may have written are read within a bound.
#[test]
fn oversized_files_are_errors() {
    let (_parent, dir, _lock) = job_dir();
    dir.write_exit_record(&ExitRecord::now("run")).unwrap();
    fs::write(dir.path().join("plan.json"), "{}").unwrap();
    for name in ["exit.json", "plan.json"] {
        let path = dir.path().join(name);
        let mut text = fs::read(&path).unwrap();
        // Still valid JSON.
        text.resize(9 * 1024 * 1024, b' ');
        fs::write(&path, text).unwrap();
    }
    for error in [dir.exit_record().unwrap_err(), dir.plan().unwrap_err()] {
        assert!(error.to_string().contains("larger than"), "{error}");
    }
}

/// An I/O error does not read as "nothing was requested".
#[test]
fn unreadable_requests_are_errors() {
    let (_parent, dir, _lock) = job_dir();
    for name in ["cancel-requested", "kill-requested"] {
        symlink(name, dir.path().join(name)).unwrap();
    }
    dir.has_pending_cancel().unwrap_err();
    dir.termination_request().unwrap_err();
}
