//! A kill in the middle of anything, and many calls on real threads: wherever they fall, the end is the same.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::process::on_file_threads;
use crate::service::JobService;
use crate::settings::data_dir::DataDir;

use super::super::fake_launcher::{FakeCloud, by_id, cancel_by_id, run_request};
use super::{CLOUDS, JOB, Race};

/// Kills the server after so many turns of its tasks, each as long as `pause`. Where exactly that is depends on the file
/// work; what must hold afterwards does not.
fn kill_in_the_middle(during_launch: bool, turns: usize, pause: Duration) {
    let at = format!("after {turns} turns of {pause:?}, during the launch: {during_launch}");
    let mut race = Race::new();
    let (run, cancel) = (race.server.service.clone(), race.server.service.clone());
    let request = run_request(race.home.path(), JOB, "gcp");
    race.server
        .runtime
        .spawn(async move { run.run(request).await });
    if during_launch {
        race.server.run_until_idle();
    }
    race.cloud.open_all();
    let cancel = race.server.runtime.spawn(async move {
        loop {
            let answer = cancel.cancel(cancel_by_id(JOB)).await;
            if answer.status != "not_found" {
                return answer;
            }
        }
    });
    let answered = race.server.runtime.block_on(async {
        for _ in 0..turns {
            std::thread::sleep(pause);
            tokio::task::yield_now().await;
        }
        match cancel.is_finished() {
            true => Some(cancel.await.unwrap()),
            false => None,
        }
    });
    let is_kept = race.dir().has_pending_cancel().unwrap();
    race.restart();
    race.end();
    race.polled();
    race.end();
    if is_kept || answered.is_some_and(|answer| answer.success) {
        assert!(!race.cloud.is_running(JOB), "{at}");
    }
    let registry = race.server.service.registry();
    let record = race.server.runtime.block_on(registry.get(JOB)).unwrap();
    let has_id = record.is_some_and(|record| !record.oumi_job_id.is_empty());
    assert_eq!(has_id, race.cloud.starts(JOB) == 1, "{at}");
    assert!(!race.dir().has_pending_cancel().unwrap(), "{at}");
}

#[test]
fn kills_anywhere_lose_neither_job_nor_cancel() {
    for during_launch in [false, true] {
        for pause in [0, 10, 50, 150].map(Duration::from_micros) {
            for turns in 0..30 {
                kill_in_the_middle(during_launch, turns, pause);
            }
        }
    }
}

#[test]
fn real_threads_leave_no_cancelled_job_running() {
    let home = tempfile::tempdir().unwrap();
    let folder = DataDir::at(home.path().join("data"));
    folder.create().unwrap();
    let cloud = FakeCloud::new(&folder);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // Two servers on one folder.
    let services = [(); 2].map(|()| JobService::new(folder.clone(), vec![cloud.launcher(CLOUDS)]));
    runtime.block_on(async {
        for number in 0..60 {
            let job_id = format!("job-{number}");
            let request = run_request(home.path(), &job_id, "gcp");
            let mut calls = tokio::task::JoinSet::new();
            let (service, id) = (services[number % 2].clone(), job_id.clone());
            let mut spawn = |call: BoxFuture<'static, ()>| calls.spawn(on_file_threads(call));
            spawn(async move { assert_eq!(service.run(request).await.job_id, id) }.boxed());
            for service in services.clone() {
                let id = job_id.clone();
                let cancelling = async move {
                    while service.cancel(cancel_by_id(&id)).await.status == "not_found" {
                        tokio::task::yield_now().await;
                    }
                };
                spawn(cancelling.boxed());
            }
            for service in services.clone() {
                let id = job_id.clone();
                let asking = async move {
                    service.list(Default::default()).await;
                    service.poll(by_id(&id)).await;
                };
                spawn(asking.boxed());
            }
            calls.join_all().await;
            assert!(!cloud.is_running(&job_id), "{job_id}");
            assert!(cloud.starts(&job_id) <= 1, "{job_id}");
        }
        // What was taken up by a look may still be on its way out.
        let is_idle = || {
            services
                .iter()
                .all(|service| service.in_flight().is_empty())
        };
        for _ in 0..1000 {
            if is_idle() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(is_idle());
        assert_eq!(cloud.faults(), Vec::<String>::new());
    });
}
