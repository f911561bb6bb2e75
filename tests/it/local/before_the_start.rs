//! What is said before a job starts: the preview, the confirmations, the warnings, the id.

use serde_json::json;

use crate::support::Home;
use crate::support::client::{Answer, Server};

#[test]
fn dry_run_starts_nothing() {
    let home = Home::new();
    let config = home.write(
        "job.yaml",
        "model: {model_name: tiny}\noutput_dir: out\nsetup: touch started\nrun: touch started\n",
    );
    let mut server = Server::start(&home);
    let asked =
        json!({ "config_path": "job.yaml", "command": " TRAIN ", "client_cwd": home.project() });
    let answer = server.call("run_job", asked).ok();
    assert_eq!(answer["status"], "dry_run");
    assert_eq!(answer["dry_run"], true);
    let message = answer["message"].as_str().unwrap();
    for line in [
        "Does: train\n",
        "Model: tiny\n",
        &format!("Output: {}/out\n", home.project().display()),
        &format!("Config: {}\n", config.display()),
        "it runs on this machine",
        "setup.sh && bash",
    ] {
        assert!(message.contains(line), "{line}: {message}");
    }
    // It can be read what runs.
    let job_config =
        json!({ "working_dir": home.project(), "setup": "touch started", "run": "touch started" });
    assert_eq!(answer["job_config"], job_config);
    assert_eq!(server.list("all").0, [""; 0]);
    assert!(!home.project().join("started").exists());
}

#[test]
fn unconfirmed_launch_is_blocked() {
    let home = Home::new();
    let config = home.job("touch started");
    let mut server = Server::start(&home);
    for more in [
        json!({ "confirm": false }),
        json!({ "user_confirmation": "" }),
        json!({ "user_confirmation": "execute" }),
        json!({ "user_confirmation": "EXECUTE " }),
        json!({ "user_confirmation": "yes" }),
        json!({ "confirm": null }),
    ] {
        let answer = server.run(config, more.clone());
        assert!(
            answer.refused().contains("user_confirmation=\"EXECUTE\""),
            "{more}"
        );
        assert_eq!(answer["status"], "blocked", "{more}");
        assert_eq!(answer["job_id"], "", "{more}");
    }
    assert_eq!(server.list("all").0, [""; 0]);
    assert!(!home.project().join("started").exists());
}

#[test]
fn ignored_options_are_named() {
    let home = Home::new();
    home.write(
        "job.yaml",
        "num_nodes: 2\nresources: {cloud: gcp, accelerators: 'A100:8', use_spot: true}\nfile_mounts: {/a: b}\n\
         storage_mounts: {/s: {source: 's3://x'}}\nrun: 'true'\n",
    );
    home.write(
        "sky.yaml",
        "workdir: .\nenv: {A: b}\nresources: {infra: aws/us-east-1, any_of: [{accelerators: T4}]}\nrun: 'true'\n",
    );
    home.write(
        "plain.yaml",
        "num_nodes: 1\nfile_mounts: {}\nresources: {accelerators: null}\nrun: 'true'\n",
    );
    let mut server = Server::start(&home);
    let dry = json!({ "dry_run": true, "cloud": "local" });
    let said = |answer: &Answer| -> Vec<String> {
        let warnings = answer["warnings"].as_array().unwrap();
        warnings
            .iter()
            .map(|warning| warning.as_str().unwrap().to_owned())
            .collect()
    };

    let arguments = server.launch("job.yaml", dry.clone());
    let warnings = said(&server.call("run_job", arguments).ok());
    for what in [
        "file_mounts",
        "storage_mounts",
        "num_nodes",
        "accelerators",
        "use_spot",
    ] {
        let quoted = format!("`{what}`");
        assert_eq!(
            warnings
                .iter()
                .filter(|warning| warning.starts_with(&quoted))
                .count(),
            1,
            "{warnings:?}"
        );
    }
    assert!(
        warnings.last().unwrap().contains("cloud=\"gcp\""),
        "{warnings:?}"
    );
    assert_eq!(warnings.len(), 6, "{warnings:?}");

    let preview = server.run("sky.yaml", dry.clone()).ok();
    for word in ["`infra`", "`any_of`", "`workdir`", "`env`", "cloud `aws`"] {
        assert!(
            preview["message"].as_str().unwrap().contains(word),
            "{word}"
        );
    }

    let arguments = server.launch("plain.yaml", dry);
    assert_eq!(said(&server.call("run_job", arguments).ok()), [""; 0]);

    let asked = json!({ "file_mounts": { "/a": "b" }, "num_nodes": 2, "accelerators": "A100:8" });
    let launched = server.run("plain.yaml", asked).ok();
    assert_eq!(said(&launched).len(), 3, "{launched}");
}

#[test]
fn empty_job_is_refused() {
    let (home, mut server) = Server::in_new_home();
    for (config, said) in [
        (
            "resources: {}\nsetup: '  '\n",
            "has neither `setup` nor `run`",
        ),
        (
            "setup: echo\nrun: [echo, hi]\n",
            "`run` of the job config is not text",
        ),
    ] {
        home.write("job.yaml", config);
        let answer = server.run("job.yaml", json!({}));
        assert!(answer.refused().contains(said), "{answer}");
    }
    assert_eq!(server.list("all").0, [""; 0]);
}
