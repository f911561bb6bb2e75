//! Records that are added, updated and removed, and those that are refused.

use std::fs::{self, File};
use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};

use crate::registry::{IdentityUpdate, JobRecord};

use super::home::{PYTHON_FILE, home, insert, record};

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
