//! Many at once, in this process and in others: the lock, and what each sees of the rest.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use futures::FutureExt;

use crate::process::on_file_threads;
use crate::registry::JobRegistry;

use super::home::{PYTHON_FILE, home, insert, launched, record};

#[tokio::test]
async fn concurrent_inserts_lose_nothing() {
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
        let changing = async move {
            let job_id = format!("job-{number:02}");
            insert(&registry, &job_id).await;
            registry
                .update(launched(&job_id, &number.to_string()))
                .await
                .unwrap();
            // A reader never sees a part of the file.
            assert!(registry.get(&job_id).await.unwrap().is_some());
        };
        tasks.spawn(on_file_threads(changing.boxed()));
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let mut records = home.registry.records().await.unwrap().to_vec();
    records.sort_by(|one, other| one.job_id.cmp(&other.job_id));
    assert_eq!(records.len(), 60);
    for (number, record) in records.iter().enumerate() {
        assert_eq!(record.job_id, format!("job-{number:02}"));
        assert_eq!(record.oumi_job_id, number.to_string());
    }
    assert_eq!(
        home.registry.quarantined().await.unwrap(),
        Vec::<PathBuf>::new()
    );
}

#[tokio::test]
async fn a_contended_id_goes_to_one() {
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
        let inserting = async move { registry.insert(record("same"), |_| Ok(())).await.is_ok() };
        tasks.spawn(on_file_threads(inserting.boxed()));
    }
    let inserted = tasks.join_all().await;
    assert_eq!(inserted.iter().filter(|ok| **ok).count(), 1);
    assert_eq!(home.ids().await, ["same"]);
}

#[tokio::test]
async fn other_processes_changes_are_read() {
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
async fn a_held_lock_fails_after_ten_seconds() {
    let home = home();
    insert(&home.registry, "a").await;
    let lock = File::open(home.folder.registry_lock()).unwrap();
    lock.lock().unwrap();
    let began = tokio::time::Instant::now();
    let error = home.registry.insert(record("b"), |_| Ok(())).await;
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
    lock.unlock().unwrap();
    insert(&home.registry, "b").await;
    assert_eq!(home.ids().await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn waits_for_a_lock_freed_in_time() {
    let home = home();
    let lock = File::create(home.folder.registry_lock()).unwrap();
    lock.lock().unwrap();
    let registry = home.registry.clone();
    let waiting = tokio::spawn(async move { registry.insert(record("a"), |_| Ok(())).await });
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert!(!waiting.is_finished());
    lock.unlock().unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(home.ids().await, ["a"]);
}

/// On macOS both would have one folder.
#[tokio::test]
async fn ids_that_differ_in_case_alone_are_one() {
    let home = home();
    insert(&home.registry, "Nightly").await;
    for job_id in ["nightly", "NIGHTLY", "Nightly"] {
        let again = home.registry.insert(record(job_id), |_| Ok(()));
        assert!(again.await.is_err(), "{job_id}");
    }
    assert_eq!(home.registry.records().await.unwrap().len(), 1);
}
