//! What was answered of every job, held against what is answered next and what really happened.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Call, Cancel, Chance, Figures, Kind, Known, Sent, World, named};
use crate::support::client::Answer;
use crate::support::{DEADLINE, poll_for};

impl World {
    /// Takes the answer of a call, if the server lived to give one.
    pub(super) fn receive(&mut self, sent: Sent) {
        let Some(answer) = self.server().answer_if_any(sent.id) else {
            self.figures.unanswered += 1;
            return;
        };
        match sent.call {
            Call::Run(job_id) => {
                let job = self.jobs.get_mut(&job_id).unwrap();
                if answer.is_error {
                    // Only one whose supervisor was killed may fail to be launched.
                    assert!(job.hurt, "{job_id}: {job:?} {:#}", answer.content);
                    job.failed = true;
                } else {
                    assert_eq!(answer["job_id"], *job_id);
                    job.answered = true;
                }
            }
            Call::Cancel(job_id) => self.cancelled(&job_id, &answer),
            Call::Poll(job_id) => self.polled(&job_id, &answer, &sent.then),
            Call::List => {
                for row in answer.ok()["jobs"].as_array().unwrap() {
                    let job_id = row["job_id"].as_str().unwrap();
                    // On its cluster already, and its launch has not said so yet: SkyPilot's number is all there is.
                    if job_id == "1" {
                        continue;
                    }
                    self.is(
                        job_id,
                        row["status"].as_str().unwrap(),
                        row["is_done"] == true,
                        &sent.then,
                    );
                }
            }
            Call::Logs => {}
        }
    }

    fn cancelled(&mut self, job_id: &str, answer: &Answer) {
        let job = self.jobs.get_mut(job_id).unwrap();
        let status = answer["status"].as_str().unwrap();
        if answer["success"] == true && answer["is_done"] == true {
            job.cancel = Cancel::Done;
            job.done = Some(status.to_owned());
        } else if answer["success"] != true {
            let error = answer["error"].as_str().unwrap();
            let had_ended = error.contains("already ended");
            let hurt_launch = job.kind == Kind::Cloud && job.hurt;
            assert!(had_ended || hurt_launch, "{job_id}: {job:?} {error}");
        }
    }

    fn polled(&mut self, job_id: &str, answer: &Answer, then: &BTreeMap<String, Known>) {
        let status = answer["status"].as_str().unwrap();
        if status == "not_found" {
            let was_answered = then.get(job_id).is_some_and(|job| job.answered);
            assert!(!was_answered, "lost: {job_id} {:?}", self.jobs[job_id]);
            return;
        }
        assert_eq!(answer["success"], true, "{job_id}: {:#}", answer.content);
        self.is(job_id, status, answer["is_done"] == true, then);
    }

    /// Holds a status against what is known of the job.
    fn is(&mut self, job_id: &str, status: &str, is_done: bool, then: &BTreeMap<String, Known>) {
        let Some(job) = self.jobs.get_mut(job_id) else {
            panic!("nobody submitted {job_id}");
        };
        if let Some(done) = then.get(job_id).and_then(|job| job.done.as_ref()) {
            // A cancel is answered in our word, a poll in SkyPilot's.
            assert!(
                status.eq_ignore_ascii_case(done),
                "{job_id} is {status} and was done before: {job:?}"
            );
            return;
        }
        let is_cancel = job.cancel != Cancel::No && matches!(status, "cancelled" | "CANCELLED");
        // Who was never heard of may never have been started; one that was hurt may end unseen.
        let was_answered = then.get(job_id).is_some_and(|job| job.answered);
        let may_be_lost = (job.hurt || !was_answered) && status == "lost";
        let may_have_failed = (job.hurt || !was_answered) && status == "failed";
        let fits = match job.kind {
            Kind::Short => matches!(status, "running" | "completed"),
            Kind::Failing => matches!(status, "running" | "failed"),
            Kind::Long => status == "running",
            Kind::Cloud => matches!(status, "launching" | "RUNNING"),
        };
        assert!(
            fits || is_cancel || may_be_lost || may_have_failed,
            "wrong state {status} of {job_id}: {job:?}"
        );
        if is_done && job.done.is_none() {
            job.done = Some(status.to_owned());
        }
    }

    /// Asks about every job that was ever submitted. Those on clouds take long to be asked about: a part of them will do,
    /// except in the end.
    pub(super) fn look_at_everything(&mut self, all: bool) {
        let ids: Vec<String> = self.jobs.keys().cloned().collect();
        for job_id in ids {
            let is_cloud = self.jobs[&job_id].kind == Kind::Cloud;
            if !is_cloud || all || self.chance.one_in(6) {
                let then = self.jobs.clone();
                let answer = self
                    .server()
                    .call("poll_status", json!({ "job_id": job_id }));
                self.polled(&job_id, &answer, &then);
            }
        }
        self.no_record_twice();
    }

    fn no_record_twice(&self) {
        let mut count: HashMap<String, usize> = HashMap::new();
        let records = if self.home.registry().exists() {
            self.home.records()
        } else {
            Vec::new()
        };
        for record in records {
            *count
                .entry(record["job_id"].as_str().unwrap().to_owned())
                .or_default() += 1;
        }
        for (job_id, job) in &self.jobs {
            let found = count.remove(job_id).unwrap_or(0);
            assert!(found <= 1, "{job_id} is recorded {found} times");
            assert!(found == 1 || !job.answered, "lost: {job_id} {job:?}");
        }
        assert!(count.is_empty(), "nobody submitted {count:?}");
    }

    /// Lets everything come to its end, holds it against what really happened, and ends what goes on.
    pub(super) fn end(mut self) -> (Chance, Figures) {
        let ids: Vec<String> = self.jobs.keys().cloned().collect();
        for job_id in &ids {
            self.comes_to_rest(job_id);
        }
        self.look_at_everything(true);
        for job_id in &ids {
            self.ran_once(job_id);
        }
        for job_id in &ids {
            if self.jobs[job_id].done.is_none() && self.jobs[job_id].kind == Kind::Long {
                let answer = self.server().cancel(job_id, true);
                if answer["status"] != "not_found" {
                    assert_eq!(answer["is_done"], true, "{job_id}: {:#}", answer.content);
                }
            }
        }
        let server = self.server.take().unwrap();
        let stderr = server.stderr();
        assert!(
            !stderr.contains("ERROR") && !stderr.contains("panicked"),
            "{stderr}"
        );
        drop(server);
        let home = &self.home;
        poll_for(DEADLINE, || {
            let left: Vec<_> = home.running().into_iter().map(named).collect();
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("left over: {left:#?}"))
            }
        });
        (self.chance, self.figures)
    }

    fn comes_to_rest(&mut self, job_id: &str) {
        poll_for(Duration::from_secs(30), || {
            let then = self.jobs.clone();
            let answer = self
                .server()
                .call("poll_status", json!({ "job_id": job_id }));
            self.polled(job_id, &answer, &then);
            let job = &self.jobs[job_id];
            let rests = match (job.kind, job.cancel) {
                _ if answer["status"] == "not_found" || job.done.is_some() => true,
                (Kind::Long, Cancel::No) => true,
                // A cancel whose answer never came may not have been received, or died with the supervisor.
                (Kind::Long, _) => job.hurt || !self.is_termination_requested(job_id),
                // A launch that was cut off is looked for on its cluster for half an hour.
                (Kind::Cloud, _) if job.hurt && answer["status"] == "launching" => true,
                (Kind::Cloud, Cancel::No) => answer["status"] == "RUNNING",
                (Kind::Cloud, _) => {
                    !self.home.job_dir(job_id).join("cancel-requested").exists()
                        && answer["status"] == "RUNNING"
                }
                _ => false,
            };
            if rests {
                return Ok(());
            }
            Err(format!(
                "{job_id} does not come to rest: {job:?} {:#}",
                answer.content
            ))
        });
    }

    fn is_termination_requested(&self, job_id: &str) -> bool {
        let dir = self.home.job_dir(job_id);
        ["terminate-requested", "kill-requested"]
            .iter()
            .any(|name| dir.join(name).exists())
    }

    /// What really happened: a job ran at most once, once if that was answered, and is as the server says.
    fn ran_once(&mut self, job_id: &str) {
        let job = self.jobs[job_id].clone();
        if job.kind != Kind::Cloud {
            let notes = fs::read_to_string(self.home.project().join("ran").join(job_id));
            let ran = notes.unwrap_or_default().lines().count();
            assert!(ran <= 1, "{job_id} ran {ran} times: {job:?}");
            if job.answered && job.cancel == Cancel::No {
                assert_eq!(ran, 1, "{job_id} was answered and never ran: {job:?}");
            }
            return;
        }
        let launches = self.cloud.calls_of(&["oumi", "launch", "up"]);
        let launched = launches
            .iter()
            .filter(|call| call.args.iter().any(|argument| argument == job_id))
            .count();
        assert!(
            launched <= 1,
            "{job_id} was launched {launched} times: {job:?}"
        );
        let jobs = fs::read_dir(
            self.cloud
                .folder()
                .join("clusters")
                .join(job_id)
                .join("jobs"),
        );
        let on_cluster = jobs.map_or(0, |jobs| jobs.count());
        assert!(
            on_cluster <= 1,
            "{job_id} is {on_cluster} times on its cluster"
        );
        let really = self.cloud.job_status(job_id, "1");
        let said: Value = self
            .server()
            .call("poll_status", json!({ "job_id": job_id }))
            .content;
        match really.as_deref() {
            Some("RUNNING") => {
                assert_eq!(said["state"], "RUNNING", "{job_id}: {job:?} {said:#}");
                assert_ne!(
                    job.cancel,
                    Cancel::Done,
                    "{job_id} runs after a cancel that was answered"
                );
            }
            Some("CANCELLED") => {
                assert_eq!(said["state"], "CANCELLED", "{job_id}: {job:?} {said:#}")
            }
            Some(other) => panic!("{job_id} is {other}"),
            None => assert!(
                said["is_done"] == true
                    || (job.hurt && said["status"] == "launching")
                    || said["status"] == "not_found",
                "{job_id}: {job:?} {said:#}"
            ),
        }
    }
}
