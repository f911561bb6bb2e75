//! What `poll_status` tells of a job beside its status, and how it waits: over real pipes, of real processes.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Answer, Server};
use crate::support::{Home, wait_until};

/// A line of the Hugging Face Trainer.
fn trained(step: u32, loss: f64) -> String {
    format!("{{'loss': {loss}, 'learning_rate': 0.0001, 'epoch': 0.25, 'step': {step}}}")
}

/// A job that says what stands in `says`, file after file, and ends once `end` is there, with the code in it.
const SPEAKER: &str = "n=0; until [ -e end ]; do if [ -e says-$n ]; then cat says-$n; n=$((n+1)); else sleep 0.02; fi; done; \
                       exit $(cat end)";

struct Speaker {
    home: Home,
    server: Server,
    job_id: String,
    said: usize,
}

impl Speaker {
    fn new() -> Self {
        let (home, mut server) = Server::in_new_home();
        let job_id = server.submit(home.job(SPEAKER), json!({}));
        Self {
            home,
            server,
            job_id,
            said: 0,
        }
    }

    /// The job says this, and the server has seen that it stands in its log.
    fn says(&mut self, text: &str) {
        self.home.write("next", &format!("{text}\n"));
        let name = self.home.project().join(format!("says-{}", self.said));
        fs::rename(self.home.project().join("next"), name).unwrap();
        self.said += 1;
        let last = text.lines().last().unwrap().to_owned();
        wait_until("the job has said it", || {
            fs::read_to_string(self.home.log(&self.job_id)).is_ok_and(|log| log.contains(&last))
        });
    }

    fn ends(&self, code: u8) {
        self.home.write("code", &code.to_string());
        let project = self.home.project();
        fs::rename(project.join("code"), project.join("end")).unwrap();
    }

    fn poll(&mut self) -> Answer {
        self.server.poll(&self.job_id)
    }

    /// Sends a poll that waits.
    fn wait(&mut self, until: &str) -> u64 {
        let arguments = json!({ "job_id": self.job_id, "wait_seconds": 55, "until": until });
        self.server.send("poll_status", arguments)
    }

    fn waited(&mut self, id: u64) -> Answer {
        self.server.answer("poll_status", id).ok()
    }
}

fn text<'a>(answer: &'a Answer, field: &str) -> &'a str {
    answer[field].as_str().unwrap()
}

#[test]
fn progress_is_in_every_answer() {
    let mut job = Speaker::new();
    let answer = job.poll();
    assert_eq!(answer["progress"], Value::Null);
    assert_eq!(answer["failure"], Value::Null);
    assert_eq!(answer["stalled"], Value::Null);
    assert_eq!(text(&answer, "message"), "the job is running");
    job.says(&trained(10, 2.5));
    let answer = job.poll();
    let mut progress = answer["progress"].as_object().unwrap().clone();
    assert!(progress["age_seconds"].as_u64().unwrap() < 60);
    progress.remove("age_seconds");
    let said = json!({ "step": 10, "epoch": 0.25, "loss": 2.5, "learning_rate": 0.0001 });
    assert_eq!(Value::from(progress), said);
    assert_eq!(
        text(&answer, "message"),
        "the job is running, at step 10, loss 2.5"
    );
    // What comes later is read on from there.
    job.says(&trained(20, 2.25));
    let progress = job.poll()["progress"].clone();
    assert_eq!(
        (&progress["step"], &progress["loss"]),
        (&json!(20), &json!(2.25))
    );
    job.ends(0);
    let answer = job.server.wait_done(&job.job_id);
    assert_eq!(answer["progress"]["step"], 20, "also after the end");
    assert_eq!(text(&answer, "next"), "The job is over.");
}

#[test]
fn evaluation_after_the_training_is_in_message() {
    let mut job = Speaker::new();
    let bar = |done: u64| format!("100%|██████████| {done}/50 [00:50<00:00,  1.00s/it]");
    job.says("Starting training... (x)");
    job.says(&bar(50));
    job.says(&trained(50, 1.5));
    job.says("{'train_runtime': 50.0, 'train_loss': 1.7, 'epoch': 1.0}");
    job.says(&bar(12));
    let answer = job.poll();
    let message = text(&answer, "message");
    assert!(
        message.contains("step 50") && message.contains("now evaluation 12 of 50"),
        "{message}"
    );
    assert_eq!(answer["progress"].get("seconds_left"), None);
    assert!(!text(&answer, "next").contains("About"));
}

#[test]
fn growing_loss_is_in_message() {
    let mut job = Speaker::new();
    job.says(&trained(10, 2.5));
    job.says(&trained(20, 31.0));
    let answer = job.poll();
    let message = text(&answer, "message");
    assert!(
        message.contains("12 times its best, 2.5 at step 10"),
        "{message}"
    );
}

#[test]
fn metrics_keep_their_age() {
    let mut job = Speaker::new();
    job.says(&trained(10, 2.5));
    let past = std::time::SystemTime::now() - Duration::from_secs(3600);
    let log = job.home.log(&job.job_id);
    fs::File::open(&log).unwrap().set_modified(past).unwrap();
    let age = |job: &mut Speaker| job.poll()["progress"]["age_seconds"].as_u64().unwrap();
    assert!(age(&mut job) >= 3600);
    job.says("saving a checkpoint");
    assert!(age(&mut job) >= 3600);
}

#[test]
fn huge_log_is_read_at_its_ends() {
    let mut job = Speaker::new();
    let log = job.home.log(&job.job_id);
    let file = fs::File::options().write(true).open(log).unwrap();
    // 8 GB, of which the disk holds nothing: to read them takes seconds, and more memory than is looked at.
    file.set_len(8 << 30).unwrap();
    // The job has its log open at the end of it.
    job.home.write("next", &format!("{}\n", trained(10, 2.5)));
    fs::rename(
        job.home.project().join("next"),
        job.home.project().join("says-0"),
    )
    .unwrap();
    let before = job.server.bytes_read();
    wait_until("the step is seen", || job.poll()["progress"]["step"] == 10);
    assert!(job.server.bytes_read() - before < 256 << 20);
    job.ends(1);
    let answer = job.server.wait_done(&job.job_id);
    assert_eq!(answer["state"], "FAILED");
}

#[test]
fn failure_with_known_cause_has_advice() {
    let mut job = Speaker::new();
    job.says(
        "Traceback (most recent call last):\n  File \"train.py\", line 3, in <module>\n    loss.backward()\n\
         torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.57 GiB",
    );
    job.ends(1);
    let answer = job.server.wait_done(&job.job_id);
    let failure = &answer["failure"];
    assert_eq!(failure["cause"], "cuda_out_of_memory", "{failure:#}");
    assert!(failure["advice"].as_str().unwrap().contains("batch"));
    assert!(
        failure["traceback_end"]
            .as_str()
            .unwrap()
            .contains("CUDA out of memory")
    );
    assert!(text(&answer, "next").contains("failure.advice"));
}

#[test]
fn failure_of_several_ranks_is_that_of_the_first() {
    let mut job = Speaker::new();
    job.says(include_str!(
        "../../fixtures/logs/endings/38c.peer-died.fail.log"
    ));
    job.ends(1);
    let answer = job.server.wait_done(&job.job_id);
    let failure = &answer["failure"];
    assert_eq!(failure["cause"], Value::Null, "{failure:#}");
    let end = failure["traceback_end"].as_str().unwrap();
    assert!(end.ends_with("KeyError: 'input_ids'"), "{end}");
}

#[test]
fn failure_of_unknown_cause_has_the_last_lines() {
    let mut job = Speaker::new();
    job.says("something nobody has heard of");
    job.ends(7);
    let answer = job.server.wait_done(&job.job_id);
    let last = "something nobody has heard of";
    assert_eq!(answer["failure"], json!({ "last_lines": last }));
    assert!(text(&answer, "next").contains("get_job_logs"));
}

#[test]
fn killed_job_names_the_signal() {
    let (home, mut server) = Server::in_new_home();
    let job_id = server.submit(home.job("kill -9 $$"), json!({}));
    let answer = server.wait_done(&job_id);
    assert_eq!(answer["failure"]["exit"], "killed by signal 9 (SIGKILL)");
    assert!(answer["failure"]["advice"].is_string());
}

#[test]
fn no_secret_in_failure_or_message() {
    let (home, mut server) = Server::in_new_home();
    let config = home.job("echo \"Error: bad token $KEY\" >&2; exit 1");
    let secret = "s3cr3t-value-123";
    let job_id = server.submit(config, json!({ "envs": { "KEY": secret } }));
    let answer = server.wait_done(&job_id);
    assert_eq!(answer["failure"]["traceback_end"], "Error: bad token ***");
    assert!(!answer.content.to_string().contains(secret));
}

#[test]
fn progress_from_the_output_folder() {
    let home = Home::new();
    home.write(
        "train.yaml",
        "model: {model_name: tiny}\ntraining: {output_dir: out}\n",
    );
    home.program(
        "oumi",
        "#!/bin/sh\nmkdir -p out/checkpoint-5\n\
         echo '{\"global_step\": 5, \"log_history\": [{\"loss\": 1.5, \"step\": 5}], \"max_steps\": 50}' > out/checkpoint-5/trainer_state.json\n\
         until [ -e end ]; do sleep 0.02; done\n",
    );
    // Of an earlier run.
    let old = home.project().join("out");
    fs::create_dir_all(&old).unwrap();
    let state = old.join("trainer_state.json");
    fs::write(
        &state,
        r#"{"global_step": 900, "log_history": [], "max_steps": 900}"#,
    )
    .unwrap();
    let past = std::time::SystemTime::now() - Duration::from_secs(3600);
    fs::File::options()
        .append(true)
        .open(&state)
        .unwrap()
        .set_modified(past)
        .unwrap();
    let mut server = Server::start(&home);
    let job_id = server.submit("train.yaml", json!({}));
    wait_until("it is trained", || {
        home.project()
            .join("out/checkpoint-5/trainer_state.json")
            .metadata()
            .is_ok_and(|file| file.len() > 0)
    });
    let progress = server.poll(&job_id)["progress"].clone();
    assert_eq!(
        (
            &progress["step"],
            &progress["total_steps"],
            &progress["loss"]
        ),
        (&json!(5), &json!(50), &json!(1.5)),
        "{progress:#}"
    );
    assert_eq!(progress["source"], "trainer_state.json");
    home.write("end", "");
    server.wait_done(&job_id);
}

#[test]
fn foreign_run_files_are_ignored() {
    let home = Home::new();
    home.write(
        "train.yaml",
        "model: {model_name: tiny}\ntraining: {output_dir: out}\n",
    );
    // The first writes as long as it runs; the second fails before it has done anything.
    home.program(
        "oumi",
        "#!/bin/sh\n[ -e first ] && exit 1\nmkdir out; touch first\nuntil [ -e end ]; do\n\
         echo '{\"global_step\": 5, \"log_history\": [{\"loss\": 1.5, \"step\": 5}], \"max_steps\": 50}' > out/new\n\
         mv out/new out/trainer_state.json; sleep 0.02; done\n",
    );
    let mut server = Server::start(&home);
    let first = server.submit("train.yaml", json!({}));
    wait_until("the first has trained", || {
        home.project().join("out/trainer_state.json").exists()
    });
    assert_eq!(server.poll(&first)["progress"]["step"], 5);
    let second = server.submit("train.yaml", json!({ "allow_shared_output": true }));
    assert_eq!(server.wait_done(&second)["progress"], Value::Null);
    home.write("end", "");
    server.wait_done(&first);
    // Another server, which has not seen the first alone, cannot tell either.
    let mut server = Server::start(&home);
    assert_eq!(server.poll(&second)["progress"], Value::Null);
    assert_eq!(server.poll(&first)["progress"], Value::Null);
}

#[test]
fn silent_log_is_stalled() {
    let mut job = Speaker::new();
    let lines: Vec<String> = (1..=20).map(|step| trained(step, 2.0)).collect();
    job.says(&lines.join("\n"));
    assert_eq!(job.poll()["stalled"], Value::Null);
    // Submitted hours ago, and silent since.
    let log = job.home.log(&job.job_id);
    let now = std::time::SystemTime::now();
    let aged = |hours: u64| now - Duration::from_secs(hours * 3600);
    fs::File::open(&log).unwrap().set_modified(aged(7)).unwrap();
    let mut records = job.home.records();
    let submitted = chrono::DateTime::<chrono::Utc>::from(aged(8));
    records[0]["submit_time"] = submitted.to_rfc3339().into();
    job.home.write_registry(&records);
    // A server that has never seen the job knows its rhythm from what it has said.
    let mut server = Server::start(&job.home);
    let answer = server.poll(&job.job_id);
    assert!(
        text(&answer, "stalled").contains("silent for 7 h"),
        "{answer}"
    );
    assert!(text(&answer, "next").contains("get_job_logs"));
    assert_eq!(answer["state"], "RUNNING");
    job.says(&trained(21, 2.0));
    assert_eq!(server.poll(&job.job_id)["stalled"], Value::Null);
}

#[test]
fn wait_ends_with_the_job() {
    let mut job = Speaker::new();
    let waiting = job.wait("change");
    let waiting_too = job.wait("progress");
    // Others are answered meanwhile.
    assert_eq!(job.poll()["state"], "RUNNING");
    job.ends(0);
    let answer = job.waited(waiting);
    assert_eq!(
        (&answer["state"], &answer["is_done"]),
        (&json!("SUCCEEDED"), &json!(true))
    );
    assert_eq!(job.waited(waiting_too)["state"], "SUCCEEDED");
}

#[test]
fn wait_for_progress_and_for_change() {
    let mut job = Speaker::new();
    let for_change = job.wait("change");
    let arguments = json!({ "job_id": job.job_id, "wait_seconds": 55, "until": "progress" });
    let for_progress = job.server.send_with_progress("poll_status", arguments);
    // Its first look: what comes later is news.
    job.server.incoming_message("notifications/progress");
    job.says(&trained(10, 2.5));
    let answer = job.waited(for_progress);
    assert_eq!(
        (&answer["state"], &answer["progress"]["step"]),
        (&json!("RUNNING"), &json!(10))
    );
    job.says(&trained(20, 2.25));
    job.ends(0);
    let answer = job.waited(for_change);
    assert_eq!(
        (&answer["state"], &answer["progress"]["step"]),
        (&json!("SUCCEEDED"), &json!(20))
    );
}

#[test]
fn finished_job_is_not_waited_for() {
    let mut job = Speaker::new();
    for wrong in [json!(-1), json!("soon"), json!(1.5)] {
        let arguments = json!({ "job_id": job.job_id, "wait_seconds": wrong });
        let answer = job.server.call("poll_status", arguments);
        assert!(answer.refused().contains("`wait_seconds`"));
    }
    let arguments = json!({ "job_id": job.job_id, "until": "doomsday" });
    let answer = job.server.call("poll_status", arguments);
    assert!(answer.refused().contains("`until`") && answer.refused().contains("`progress`"));
    job.ends(0);
    job.server.wait_done(&job.job_id);
    let waiting = job.wait("change");
    assert_eq!(job.waited(waiting)["is_done"], true);
}
