//! A kill at any instant loses nothing that was answered: random calls, `kill -9` of the server, of a supervisor or of the
//! program that launches, at a random instant; then a new server, whose answers are held against all that was answered before.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::time::{Duration, Instant};

use oumi_mcp_server::launcher::job_dir::JobDir;
use oumi_mcp_server::launcher::processes::{Processes, is_of_job};
use oumi_mcp_server::launcher::supervisor::{self, Plan, Supervised};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::fake_cloud::FakeCloud;
use crate::support::client::{Answer, Server, command};
use crate::support::{DEADLINE, Home, kill_9, pid};
use crate::tools::{Chance, start_on};

/// How many rounds share a folder: few enough that the registry's cap drops nothing.
const ROUNDS_OF_A_FOLDER: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Short,
    Failing,
    Long,
    Cloud,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cancel {
    No,
    /// A call was made, and its answer never came, or said that the job has not ended yet.
    Asked,
    /// It was answered that nothing of the job runs any more.
    Done,
}

/// What was answered of a job, and what was done to it.
#[derive(Debug, Clone)]
struct Known {
    kind: Kind,
    /// `run_job` answered that it was submitted.
    answered: bool,
    /// `run_job` answered that its launch failed.
    failed: bool,
    cancel: Cancel,
    /// Its supervisor, or the program that launches it, was killed.
    hurt: bool,
    /// Its status when it was first seen to be done.
    done: Option<String>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Figures {
    rounds: usize,
    calls: usize,
    jobs: usize,
    servers_killed: usize,
    supervisors_killed: usize,
    launchers_killed: usize,
    unanswered: usize,
}

struct World {
    home: Home,
    cloud: FakeCloud,
    server: Option<Server>,
    jobs: BTreeMap<String, Known>,
    chance: Chance,
    figures: Figures,
}

/// A call that is not answered yet.
struct Sent {
    id: u64,
    call: Call,
    /// What was known when it was sent: calls that are under way together may be carried out in any order.
    then: BTreeMap<String, Known>,
}

enum Call {
    Run(String),
    Cancel(String),
    Poll(String),
    List,
    Logs,
}

impl World {
    fn new(chance: Chance, figures: Figures) -> Self {
        let home = Home::new();
        fs::create_dir(home.project().join("ran")).unwrap();
        // Whoever runs notes it first; the id is the name of the job's folder.
        let note = "echo ran >> ran/${OUMI_MCP_JOB_DIR##*/}; echo begun;";
        for (name, run) in [
            ("Short", "exit 0"),
            ("Failing", "exit 3"),
            ("Long", "sleep 3000 & wait"),
            ("Cloud", "true"),
        ] {
            let text = serde_json::to_string(&json!({ "run": format!("{note} {run}") })).unwrap();
            home.write(&format!("{name}.yaml"), &text);
        }
        let mut world = Self {
            home,
            cloud: FakeCloud::new(),
            server: None,
            jobs: BTreeMap::new(),
            chance,
            figures,
        };
        world.start();
        world
    }

    fn start(&mut self) {
        self.server = Some(start_on(&self.home, &self.cloud, &[]));
    }

    fn server(&mut self) -> &mut Server {
        self.server.as_mut().unwrap()
    }

    fn kill_server(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill_9();
            self.figures.servers_killed += 1;
        }
    }

    fn any(&mut self, fits: impl Fn(&Known) -> bool) -> Option<String> {
        let ids: Vec<&String> = self
            .jobs
            .iter()
            .filter(|(_, job)| fits(job))
            .map(|(id, _)| id)
            .collect();
        if ids.is_empty() {
            return None;
        }
        let at = self.chance.below(ids.len());
        Some(ids[at].clone())
    }

    fn send_run(&mut self) -> Option<Sent> {
        let kind = match self.chance.below(10) {
            0..3 => Kind::Short,
            3..5 => Kind::Failing,
            5..8 => Kind::Long,
            _ => Kind::Cloud,
        };
        let job_id = format!("j{}", self.figures.jobs);
        self.figures.jobs += 1;
        let cloud = if kind == Kind::Cloud { "gcp" } else { "local" };
        let more = json!({ "job_name": job_id, "cloud": cloud });
        let arguments = self.server().launch(&format!("{kind:?}.yaml"), more);
        let then = self.jobs.clone();
        let id = self.server().send_if_alive("run_job", arguments)?;
        self.jobs.insert(
            job_id.clone(),
            Known {
                kind,
                answered: false,
                failed: false,
                cancel: Cancel::No,
                hurt: false,
                done: None,
            },
        );
        Some(Sent {
            id,
            call: Call::Run(job_id),
            then,
        })
    }

    fn send_any(&mut self) -> Option<Sent> {
        self.figures.calls += 1;
        let known = |_: &Known| true;
        let (tool, arguments, call) = match self.chance.below(10) {
            0..4 => return self.send_run(),
            4..6 => {
                let job_id = self.any(|job| job.answered && job.done.is_none())?;
                let force = self.chance.one_in(3);
                let job = self.jobs.get_mut(&job_id).unwrap();
                if job.cancel == Cancel::No {
                    job.cancel = Cancel::Asked;
                }
                let arguments = json!({ "job_id": job_id, "force": force });
                ("cancel_job", arguments, Call::Cancel(job_id))
            }
            6..8 => {
                let job_id = self.any(known)?;
                (
                    "poll_status",
                    json!({ "job_id": job_id }),
                    Call::Poll(job_id),
                )
            }
            8 => ("list_jobs", json!({}), Call::List),
            _ => {
                let job_id = self.any(known)?;
                ("get_job_logs", json!({ "job_id": job_id }), Call::Logs)
            }
        };
        let then = self.jobs.clone();
        let id = self.server().send_if_alive(tool, arguments)?;
        Some(Sent { id, call, then })
    }

    /// Takes the answer of a call, if the server lived to give one.
    fn receive(&mut self, sent: Sent) {
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

    /// The launches that wait in their middle, or go on: the pid of each program, and the job.
    fn launches(&self) -> Vec<(u32, String)> {
        let up = self.cloud.calls_of(&["oumi", "launch", "up"]);
        up.into_iter()
            .filter_map(|call| {
                let at = call
                    .args
                    .iter()
                    .position(|argument| argument == "--cluster")?;
                let job_id = call.args[at + 1].clone();
                is_of_job(call.pid, &self.home.job_dir(&job_id))
                    .unwrap()
                    .then_some((call.pid, job_id))
            })
            .collect()
    }

    fn kill_a_supervisor(&mut self) {
        let alive: Vec<(u32, String)> = self
            .jobs
            .keys()
            .filter_map(|job_id| {
                let dir = self.home.job_dir(job_id);
                let pid = fs::read_to_string(dir.join("supervisor.pid"))
                    .ok()?
                    .parse()
                    .ok()?;
                is_of_job(pid, &dir)
                    .unwrap()
                    .then_some((pid, job_id.clone()))
            })
            .collect();
        if alive.is_empty() {
            return;
        }
        let at = self.chance.below(alive.len());
        self.kill(alive[at].clone());
        self.figures.supervisors_killed += 1;
    }

    fn kill(&mut self, (process, job_id): (u32, String)) {
        self.jobs.get_mut(&job_id).unwrap().hurt = true;
        // It may have ended by itself just now.
        let _ = kill_process(pid(process).unwrap(), Signal::KILL);
    }

    /// One round: calls, a kill at a random instant, a new server where it was the server's, and a look at everything.
    fn round(&mut self) {
        self.figures.rounds += 1;
        for _ in 0..self.chance.below(6) {
            if let Some(sent) = self.send_any() {
                self.receive(sent);
            }
        }
        match self.chance.below(10) {
            0..4 => self.kill_the_server_amid_calls(),
            4 if self.chance.one_in(2) => {
                self.kill_server();
                self.kill_a_server_that_starts();
            }
            4..7 => {
                // Amid calls too: a supervisor may die while it starts.
                let sent = self.send_run();
                self.chance.wait_up_to(60);
                self.kill_a_supervisor();
                if let Some(sent) = sent {
                    self.receive(sent);
                }
            }
            7 => self.kill_a_launcher(),
            _ => {
                self.kill_a_launcher();
                self.kill_server();
            }
        }
        if self.server.is_none() {
            self.start();
        }
        self.look_at_everything(false);
    }

    fn kill_the_server_amid_calls(&mut self) {
        let count = 1 + self.chance.below(3);
        let sent: Vec<Sent> = (0..count).filter_map(|_| self.send_any()).collect();
        self.chance.wait_up_to(60);
        self.server().signal(Signal::KILL);
        for sent in sent {
            self.receive(sent);
        }
        self.kill_server();
    }

    fn kill_a_server_that_starts(&mut self) {
        let mut starting = command(&self.home)
            .env("OUMI_MCP_OUMI", self.cloud.oumi())
            .env("OUMI_MCP_SKY", self.cloud.sky())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        self.chance.wait_up_to(30);
        starting.kill().unwrap();
        starting.wait().unwrap();
        self.figures.servers_killed += 1;
    }

    /// The launcher dies between the cluster and the job, or right after the job was made.
    fn kill_a_launcher(&mut self) {
        let job_id = format!("j{}", self.figures.jobs);
        self.figures.jobs += 1;
        // A launch that is cut off before its job is waited for, so that there are few of them.
        let after_the_job = !self.chance.one_in(4);
        if after_the_job {
            self.cloud.set("oumi-up.crash", "after-job");
        } else {
            self.cloud.set("oumi-up.block", "");
        }
        let more = json!({ "job_name": job_id, "cloud": "gcp" });
        let arguments = self.server().launch("Cloud.yaml", more);
        let Some(id) = self.server().send_if_alive("run_job", arguments) else {
            panic!("the server is dead");
        };
        self.jobs.insert(
            job_id.clone(),
            Known {
                kind: Kind::Cloud,
                answered: false,
                failed: false,
                cancel: Cancel::No,
                hurt: true,
                done: None,
            },
        );
        if !after_the_job {
            self.cloud.wait_for("blocked-oumi-up");
            self.chance.wait_up_to(60);
            let launches = self.launches();
            let launch = launches.iter().find(|(_, of)| *of == job_id).cloned();
            self.kill(launch.unwrap());
        }
        self.figures.launchers_killed += 1;
        let then = self.jobs.clone();
        self.receive(Sent {
            id,
            call: Call::Run(job_id),
            then,
        });
        self.cloud.unset("oumi-up.crash");
        self.cloud.unset("oumi-up.block");
        let _ = fs::remove_file(self.cloud.folder().join("blocked-oumi-up"));
    }

    /// Asks about every job that was ever submitted. Those on clouds take long to be asked about: a part of them will do,
    /// except in the end.
    fn look_at_everything(&mut self, all: bool) {
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
    fn end(mut self) -> (Chance, Figures) {
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
        let begun = Instant::now();
        while !home.running().is_empty() {
            let left = home.running().into_iter().map(named);
            assert!(
                begun.elapsed() < DEADLINE,
                "left over: {:#?}",
                left.collect::<Vec<_>>()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        (self.chance, self.figures)
    }

    fn comes_to_rest(&mut self, job_id: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let then = self.jobs.clone();
            let answer = self
                .server()
                .call("poll_status", json!({ "job_id": job_id }));
            self.polled(job_id, &answer, &then);
            let job = &self.jobs[job_id];
            let rests = match (job.kind, job.cancel) {
                _ if answer["status"] == "not_found" || job.done.is_some() => true,
                (Kind::Long, Cancel::No) => true,
                // A cancel whose answer never came may or may not have been heard.
                (Kind::Long, _) => !JobDir::at(self.home.job_dir(job_id)).is_end_open(),
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
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{job_id} does not come to rest: {job:?} {:#}",
                answer.content
            );
            std::thread::sleep(Duration::from_millis(50));
        }
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

fn rounds(count: usize) {
    let mut chance = Chance::new("kills");
    let mut figures = Figures::default();
    let mut left = count;
    while left > 0 {
        let here = left.min(ROUNDS_OF_A_FOLDER);
        let mut world = World::new(chance, figures);
        for _ in 0..here {
            world.round();
        }
        (chance, figures) = world.end();
        left -= here;
        println!("{figures:?}");
    }
    assert!(
        figures.servers_killed > 0 && figures.jobs > count / 2,
        "{figures:?}"
    );
}

/// A supervisor that starts the job and is killed before it has said so: the job that runs must not be called failed.
#[tokio::test]
async fn a_job_whose_supervisor_died_before_its_word_has_begun_when_it_runs() {
    for (script, begins) in [
        (
            "#!/bin/sh\nexec 9<&0\nsleep 3000 9<&9 >/dev/null 2>&1 &\nkill -9 $$\n",
            true,
        ),
        ("#!/bin/sh\nkill -9 $$\n", false),
    ] {
        let home = Home::new();
        let program = home.program("supervisor", script);
        fs::create_dir(home.data()).unwrap();
        let (dir, lock) = JobDir::create(home.data().join("job")).unwrap();
        let job = Supervised {
            plan: Plan {
                steps: Vec::new(),
                working_dir: home.project(),
                cancel_ends_tree: true,
                remove_afterwards: Vec::new(),
            },
            envs: BTreeMap::new(),
            files: Vec::new(),
        };
        let started = supervisor::start(&program, &dir, lock, job).await;
        let members = Processes::look(true).unwrap().of_job(dir.path());
        assert_eq!(
            (started.is_ok(), members.len()),
            (begins, usize::from(begins)),
            "{started:?}"
        );
        assert_eq!(dir.exit_record().unwrap().is_none(), begins);
        for member in members {
            kill_9(member);
        }
    }
}

#[test]
fn fifteen_kills_lose_nothing_that_was_answered() {
    rounds(15);
}

#[test]
#[ignore = "takes some ten minutes; cargo test --release --test breaking -- --ignored five_hundred_kills"]
fn five_hundred_kills_lose_nothing_that_was_answered() {
    rounds(500);
}

/// A process as a person knows it.
fn named(process: u32) -> String {
    let said = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    format!(
        "{process}: {}",
        String::from_utf8_lossy(&said).replace('\0', " ")
    )
}
