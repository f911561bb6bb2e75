//! Records that are added, updated and removed, and those that are refused.

use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};

use crate::error::JobError;
use crate::registry::JobRecord;

use super::home::{PYTHON_FILE, home, insert, launched, record};

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
async fn updating_an_unknown_id_warns() {
    logged();
    let home = home();
    home.write(PYTHON_FILE.as_bytes());
    home.registry
        .update(launched("nobody_has_this", "9"))
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
async fn a_taken_id_is_refused_before_preparing() {
    let home = home();
    insert(&home.registry, "a").await;
    let before = home.bytes();
    let prepared = Arc::new(Mutex::new(0));
    let count = prepared.clone();
    let prepare = move |_: &[JobRecord]| {
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
async fn a_failed_preparation_adds_nothing() {
    let home = home();
    insert(&home.registry, "a").await;
    let before = home.bytes();
    let refused = home
        .registry
        .insert(record("b"), |_| Err::<(), _>(JobError::failed("no room")))
        .await;
    assert_eq!(refused.unwrap_err().to_string(), "no room");
    assert_eq!(home.bytes(), before);
}

#[tokio::test]
async fn preparation_runs_under_the_lock() {
    let home = home();
    let folder = home.folder.clone();
    let prepare = move |_: &[JobRecord]| {
        let lock = File::open(folder.registry_lock()).unwrap();
        Ok((lock.try_lock_shared().is_err(), folder.registry().exists()))
    };
    let (is_locked, is_written) = home.registry.insert(record("a"), prepare).await.unwrap();
    assert!(is_locked && !is_written);
}

#[tokio::test]
async fn a_removed_record_is_cleaned_up_under_the_lock() {
    let home = home();
    for job_id in ["a", "b"] {
        insert(&home.registry, job_id).await;
    }
    let cleaned = Arc::new(Mutex::new(Vec::new()));
    let (seen, folder) = (cleaned.clone(), home.folder.clone());
    let cleanup = move |record: &JobRecord| {
        let lock = File::open(folder.registry_lock()).unwrap();
        assert!(lock.try_lock_shared().is_err());
        seen.lock().unwrap().push(record.job_id.clone());
    };
    home.registry
        .remove(vec![record("a")], cleanup)
        .await
        .unwrap();
    assert_eq!(home.ids().await, ["b"]);
    assert_eq!(*cleaned.lock().unwrap(), ["a"]);
}

#[tokio::test]
async fn a_record_of_a_newer_job_is_not_removed() {
    let home = home();
    let old = JobRecord {
        submit_time: "2025-01-01T12:00:00Z".to_owned(),
        ..record("a")
    };
    insert(&home.registry, "a").await;
    let cleanup = |record: &JobRecord| panic!("{record:?}");
    home.registry.remove(vec![old], cleanup).await.unwrap();
    assert_eq!(home.ids().await, ["a"]);
}
