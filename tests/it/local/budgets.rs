//! The bytes of the answers over the usual stories: a model pays for each of them.

use serde_json::{Value, json};

use crate::support::client::{Answer, Server};
use crate::support::{Home, wait_until};

const OUMI: &str = "#!/bin/sh
mkdir -p out/llama-3b-sft/checkpoint-300; echo > out/llama-3b-sft/checkpoint-300/trainer_state.json
case \"$*\" in *big*) cat oom.log; exit 1;; esac
cat train.log; until [ -e end ]; do sleep 0.02; done
touch out/llama-3b-sft/model.safetensors\n";

/// What Oumi prints on its way to a step, with all digits of the figures.
fn log_until(step: u32) -> String {
    let lines = (10..=step).step_by(10).map(|step| {
        let bar = format!("\r{:3}%|███       | {step}/900 [02:02<03:31,  1.23it/s]", step / 9);
        let (loss, epoch) = (6.0 - f64::from(step) / 173.0, f64::from(step) / 450.0);
        format!(
            "{bar}\r{}\r{{'loss': {loss}, 'grad_norm': 1.7031487226486206, 'learning_rate': 1.8999999999999998e-05, 'epoch': {epoch}}}\n",
            " ".repeat(60)
        )
    });
    let start = include_str!("../../fixtures/logs/oumi-0.9-trl-sft.stdout");
    let start = start.split("{'loss'").next().unwrap();
    format!("{start}\n{}", lines.collect::<String>())
}

#[test]
fn answers_keep_to_their_budgets() {
    let home = Home::new();
    home.program("oumi", OUMI);
    for name in ["train", "big"] {
        home.write(
            &format!("{name}.yaml"),
            "model: {model_name: meta-llama/Llama-3.2-3B}\ntraining: {output_dir: out/llama-3b-sft}\n",
        );
    }
    home.write("train.log", &log_until(410));
    let failure = include_str!("../../fixtures/logs/failures/cuda_out_of_memory.txt");
    home.write(
        "oom.log",
        &format!(
            "{}\nTraceback (most recent call last):\n{failure}",
            log_until(310)
        ),
    );
    let mut server = Server::start(&home);
    let mut stories: Vec<(&str, usize, Value)> = Vec::new();
    let mut note = |story, budget, answer: &Value| stories.push((story, budget, answer.clone()));

    let preview = server.run("train.yaml", json!({ "dry_run": true })).ok();
    note("dry run", 600, &preview.content);
    let plan = json!({ "plan_id": preview["plan_id"] });
    let launched = server
        .call("run_job", server.launch("train.yaml", plan))
        .ok();
    note("launch", 200, &launched.content);
    let job_id = launched["job_id"].as_str().unwrap().to_owned();
    let mut running = server.poll(&job_id);
    wait_until("step 410", || {
        running = server.poll(&job_id);
        running["progress"]["step"] == 410
    });
    note("poll of a running job", 450, &running.content);
    home.write("end", "");
    let finished = server.wait_done(&job_id);
    note("poll of a finished job", 450, &finished.content);
    let log = server
        .call("get_job_logs", json!({ "job_id": job_id }))
        .ok();
    note("log", 6500, &log.content);

    let failing = server.submit("big.yaml", json!({}));
    let failed = server.wait_done(&failing);
    note("poll of a failed job", 700, &failed.content);
    let wrong = json!({ "job_id": job_id, "wait_seconds": -1 });
    note(
        "bad argument",
        150,
        &server.call("poll_status", wrong).content,
    );
    for row in server.list("all").1["jobs"].as_array().unwrap() {
        note("row of a list", 200, row);
    }
    for (story, budget, answer) in stories {
        let text = answer.to_string();
        assert!(
            text.len() <= budget,
            "{story}: {} bytes: {text}",
            text.len()
        );
    }
    check_the_rest(&failed, &finished);
}

/// What is short must still say what counts.
fn check_the_rest(failed: &Answer, finished: &Answer) {
    let failure = &failed["failure"];
    assert_eq!(failure["cause"], "cuda_out_of_memory");
    let end = failure["traceback_end"].as_str().unwrap();
    assert!(
        end.contains("OutOfMemoryError: CUDA out of memory"),
        "{end}"
    );
    assert!(failure["advice"].as_str().unwrap().contains("batch"));
    assert_eq!(failed["last_checkpoint"], "checkpoint-300");
    let next = failed["next"].as_str().unwrap();
    assert!(
        next.contains("failure.advice") && next.contains("resume"),
        "{next}"
    );
    let output = finished["output_dir"].as_str().unwrap();
    assert!(output.starts_with('/') && finished["next"].as_str().unwrap().contains(output));
    for (answer, start) in [
        (failed, "`oumi train` failed after "),
        (finished, "the job succeeded after "),
    ] {
        let message = answer["message"].as_str().unwrap();
        assert!(
            message.starts_with(start) && message.contains(" s, at step "),
            "{message}"
        );
    }
}
