//! A training config on this machine: how the `oumi` program is found and what it is given.

use serde_json::json;

use crate::support::client::Server;
use crate::support::{Home, executable, skipped};

/// An `oumi` that writes down how it was run, one line a fact.
const FAKE: &str = r#"#!/bin/sh
{
  echo "cwd $PWD"
  echo "logging $OUMI_LOGGING_DIR"
  echo "env $FROM_CALLER"
  for argument in "$@"; do echo "argument $argument"; done
} > "$OUMI_MCP_HOME/../called"
echo trained
"#;

fn called(home: &Home) -> Vec<String> {
    let text = std::fs::read_to_string(home.root().join("called")).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn argv_and_working_folder() {
    let home = Home::new();
    home.program("oumi", FAKE);
    // What a shell would take apart, it must not.
    let config = home.write(
        "a $(b) 'c'.yaml",
        "model: {model_name: tiny}\ntraining: {output_dir: o}\n",
    );
    let mut server = Server::start(&home);
    let more = json!({ "envs": { "FROM_CALLER": "x y" } });
    let launched = server.run("a $(b) 'c'.yaml", more).ok();
    let job_id = launched["job_id"].as_str().unwrap().to_owned();
    assert_eq!(server.wait_done(&job_id)["status"], "completed");
    assert_eq!(
        called(&home),
        [
            format!("cwd {}", home.project().display()),
            format!("logging {}", home.job_dir(&job_id).join("logs").display()),
            "env x y".to_owned(),
            "argument train".to_owned(),
            "argument -c".to_owned(),
            format!("argument {}", config.display()),
        ]
    );
    assert_eq!(server.log(&job_id), "trained");
}

#[test]
fn wrong_variable_is_named() {
    let home = Home::new();
    home.write("train.yaml", "model: {}");
    let missing = home.root().join("none/oumi").display().to_string();
    let mut server = Server::start_with(&home, &[("OUMI_MCP_OUMI", &missing)]);
    let answer = server.run("train.yaml", json!({}));
    let error = answer.refused();
    assert!(
        error.contains("OUMI_MCP_OUMI") && error.contains(&missing),
        "{error}"
    );
}

#[test]
fn missing_oumi_says_what_to_set() {
    // Outside the home of the test.
    let elsewhere = ["/opt/homebrew/bin", "/usr/local/bin", "/opt/conda/bin"];
    let installed = |folder: &&str| std::path::Path::new(folder).join("oumi").exists();
    if let Some(folder) = elsewhere.iter().find(|folder| installed(folder)) {
        skipped(&format!("this machine has an oumi in {folder}"));
        return;
    }
    let home = Home::new();
    home.write("train.yaml", "model: {}");
    let mut server = Server::start(&home);
    let answer = server.run("train.yaml", json!({}));
    let error = answer.refused();
    for said in [
        "OUMI_MCP_OUMI",
        "PATH",
        ".venv, venv or .env of the project",
        "pip, pipx, uv, conda",
        "pip install oumi",
    ] {
        assert!(error.contains(said), "{said}: {error}");
    }
    assert_eq!(answer["status"], "error");
    assert_eq!(server.list("all").0, [""; 0]);
    // A preview says it too, before anybody agrees to anything.
    let preview = server.run("train.yaml", json!({ "dry_run": true }));
    assert!(preview.refused().contains("OUMI_MCP_OUMI"));
}

#[test]
fn variable_precedes_path() {
    let home = Home::new();
    home.program("oumi", "#!/bin/sh\necho wrong\n");
    let named = executable(
        &home.root().join("other/my-oumi"),
        "#!/bin/sh\necho right\n",
    );
    home.write("train.yaml", "model: {}");
    let mut server = Server::start_with(&home, &[("OUMI_MCP_OUMI", named.to_str().unwrap())]);
    let job_id = server.submit("train.yaml", json!({}));
    server.wait_done(&job_id);
    assert_eq!(server.log(&job_id), "right");
}

#[test]
fn oumi_in_virtual_environments() {
    for place in [
        "project/.venv/bin",
        "project/.env/bin",
        ".pyenv/versions/3.12.4/bin",
        "miniforge3/envs/training/bin",
        ".local/share/uv/tools/oumi/bin",
    ] {
        let home = Home::new();
        let bin = home.root().join(place);
        executable(&bin.join("oumi"), "#!/bin/sh\ntorchrun-of-the-test\n");
        executable(
            &bin.join("torchrun-of-the-test"),
            "#!/bin/sh\necho neighbour\n",
        );
        if place.contains("uv/tools") {
            let links = home.root().join(".local/bin");
            std::fs::create_dir_all(&links).unwrap();
            std::os::unix::fs::symlink(bin.join("oumi"), links.join("oumi")).unwrap();
        }
        home.write("train.yaml", "model: {}");
        let mut server = Server::start(&home);
        let job_id = server.submit("train.yaml", json!({}));
        assert_eq!(server.wait_done(&job_id)["status"], "completed");
        assert_eq!(server.log(&job_id), "neighbour", "{place}");
    }
}

#[test]
fn several_gpus_run_a_training_through_torchrun() {
    let home = Home::new();
    home.program("oumi", FAKE);
    home.write("train.yaml", "model: {}");
    let mut server = Server::start(&home);
    for (accelerators, command, verbs) in [
        (
            json!("4"),
            "train",
            "distributed torchrun --nproc-per-node=4 -m oumi train -c",
        ),
        (
            json!(4),
            "train",
            "distributed torchrun --nproc-per-node=4 -m oumi train -c",
        ),
        (
            json!("A100:4"),
            "train",
            "distributed torchrun --nproc-per-node=4 -m oumi train -c",
        ),
        (json!("A100"), "train", "train -c"),
        (json!(null), "train", "train -c"),
        (json!("4"), "evaluate", "evaluate -c"),
    ] {
        let asked = json!({ "accelerators": accelerators, "command": command });
        let launched = server.run("train.yaml", asked).ok();
        let ignored = launched["warnings"].to_string().contains("`accelerators`");
        assert_eq!(ignored, command != "train", "{launched}");
        server.wait_done(launched["job_id"].as_str().unwrap());
        let arguments: Vec<String> = called(&home)[3..]
            .iter()
            .map(|line| line.replace("argument ", ""))
            .collect();
        assert!(
            arguments.join(" ").starts_with(verbs),
            "{accelerators} {arguments:?}"
        );
    }
    for dry_run in [true, false] {
        let asked = json!({ "accelerators": "4xA100", "dry_run": dry_run });
        let error = server.run("train.yaml", asked).refused().to_owned();
        assert!(error.contains("\"4xA100\" is no number of GPUs"), "{error}");
    }
    let preview = server.run("train.yaml", json!({ "dry_run": true })).ok();
    let message = preview["message"].as_str().unwrap();
    assert!(message.contains("Processes: 1"), "{message}");
}

#[test]
fn width_and_buffer_are_set_where_they_are_not() {
    for (given, expected) in [(None, "512 1"), (Some("100"), "100 1")] {
        let home = Home::new();
        let given: Vec<(&str, &str)> = given
            .map(|columns| ("COLUMNS", columns))
            .into_iter()
            .collect();
        let mut server = Server::start_with(&home, &given);
        let job_id = server.submit(home.job("echo \"$COLUMNS $PYTHONUNBUFFERED\""), json!({}));
        server.wait_done(&job_id);
        assert_eq!(server.log(&job_id), expected);
    }
}

#[test]
fn unstartable_oumi_is_a_failed_job() {
    let home = Home::new();
    home.program("oumi", "#!/nowhere/python\n");
    home.write("train.yaml", "model: {}");
    let mut server = Server::start(&home);
    let answer = server.run("train.yaml", json!({}));
    assert!(answer.refused().contains("cannot run"), "{answer}");
    assert_eq!(answer["status"], "failed");
    let job_id = answer["job_id"].as_str().unwrap();
    let status = server.poll(job_id);
    assert_eq!(
        (&status["status"], &status["state"]),
        (&json!("failed"), &json!("FAILED"))
    );
    assert_eq!(status["is_done"], true);
    assert!(status["message"].as_str().unwrap().contains("cannot run"));
    let log = server.log(job_id);
    assert!(
        log.contains("bin/oumi") && log.contains("cannot run"),
        "{log}"
    );
}

#[test]
fn job_config_uses_the_variable() {
    let home = Home::new();
    let oumi = executable(
        &home.root().join("venv/bin/oumi"),
        "#!/bin/sh\necho this one\n",
    );
    let mut server = Server::start_with(&home, &[("OUMI_MCP_OUMI", oumi.to_str().unwrap())]);
    let job_id = server.submit(home.job("oumi"), json!({}));
    assert_eq!(server.wait_done(&job_id)["status"], "completed");
    assert_eq!(server.log(&job_id), "this one");
}
