//! A kill at any instant loses nothing that was answered: random calls, `kill -9` of the server, of a supervisor or of the
//! program that launches, at a random instant; then a new server, whose answers are held against all that was answered before.

mod truth;

use std::collections::BTreeMap;
use std::fs;

use rustix::process::{Signal, kill_process};
use serde_json::json;

use crate::chance::Chance;
use crate::fake_cloud::FakeCloud;
use crate::support::client::{Server, command};
use crate::support::{Home, alive, children, job_members, pid};
use crate::tools::start_on;

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
                // The child of its supervisor: a number that another process has by now is left alone.
                let members = || job_members(&self.home.job_dir(&job_id));
                let its_own = || members().iter().any(|&of| children(of).contains(&call.pid));
                (alive(call.pid) && its_own()).then_some((call.pid, job_id))
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
                let members = job_members(&dir);
                members.contains(&pid).then_some((pid, job_id.clone()))
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
        // The knob names the job: an earlier launch whose run_job was never answered is not met.
        // A launch that is cut off before its job is waited for, so that there are few of them.
        let after_the_job = !self.chance.one_in(4);
        if after_the_job {
            self.cloud
                .set(&format!("oumi-up@{job_id}.crash"), "after-job");
        } else {
            self.cloud.set(&format!("oumi-up@{job_id}.block"), "");
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
        let _ = fs::remove_file(self.cloud.folder().join("blocked-oumi-up"));
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

#[test]
fn fifteen_kills_lose_nothing() {
    rounds(15);
}

#[test]
#[ignore = "takes some ten minutes; cargo test --release --test breaking -- --ignored five_hundred_kills"]
fn five_hundred_kills_lose_nothing() {
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
