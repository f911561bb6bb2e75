//! Arguments that do not fit: refused with what is wrong and what to do, in the tool's own fields.

use serde_json::{Value, json};

use crate::support::Home;
use crate::support::client::{Answer, Server, command};

fn launch(server: &mut Server, config: &str, more: Value) -> Answer {
    let arguments = server.launch(config, more);
    server.call("run_job", arguments)
}

#[test]
fn unknown_is_refused_by_name() {
    let home = Home::new();
    let mut server = Server::start(&home);
    for tool in ["run_job", "cancel_job"] {
        let answer = server.call(tool, json!({ "dryrun": true }));
        assert!(
            answer.refused().contains("unknown field `dryrun`"),
            "{tool}: {}",
            answer.content
        );
        assert_eq!(answer["success"], false, "{tool}");
    }
    // A tool that changes nothing passes over it.
    server.call("list_jobs", json!({ "dryrun": true })).ok();
    // What was meant must not be taken for what was said.
    let config = home.job("touch started");
    let answer = launch(&mut server, config, json!({ "dryrun": true }));
    assert!(answer.refused().contains("`dry_run`"));
    assert_eq!(server.list("all").0, [""; 0]);
}

#[test]
fn wrong_type_is_refused_with_the_right_one() {
    let home = Home::new();
    let config = home.job("true");
    let mut server = Server::start(&home);
    for (name, value, should_be) in [
        ("dry_run", json!("no"), "a boolean"),
        ("confirm", json!("yes"), "a boolean"),
        ("confirm", json!(1), "a boolean"),
        ("num_nodes", json!("two"), "a whole number"),
        ("num_nodes", json!(2.5), "a whole number"),
        ("num_nodes", json!(-1), "from 1"),
        ("num_nodes", json!(0), "from 1"),
        ("disk_size", json!(1.5), "a whole number"),
        ("config_path", json!(["job.yaml"]), "a string"),
        ("envs", json!(["A=1"]), "texts"),
        ("file_mounts", json!({ "/a": [1] }), "strings"),
    ] {
        let answer = launch(&mut server, config, json!({ name: value }));
        let error = answer.refused();
        assert!(
            error.contains(&format!("`{name}")) && error.contains(should_be),
            "{name}: {error}"
        );
    }
    let answer = server.call("get_job_logs", json!({ "job_id": "x", "lines": "many" }));
    assert!(answer.refused().contains("`lines`"));
    let answer = server.call("list_jobs", json!({ "status": "done" }));
    for word in ["all", "running", "completed"] {
        assert!(
            answer.refused().contains(&format!("`{word}`")),
            "{:#}",
            answer.content
        );
    }
    assert_eq!(server.list("all").0, [""; 0]);
}

#[test]
fn missing_is_named() {
    let home = Home::new();
    let mut server = Server::start(&home);
    for missing in ["config_path", "command"] {
        let mut arguments = server.launch("job.yaml", json!({}));
        arguments.as_object_mut().unwrap().remove(missing);
        let answer = server.call("run_job", arguments);
        assert!(
            answer
                .refused()
                .contains(&format!("missing field `{missing}`")),
            "{:#}",
            answer.content
        );
    }
    for tool in ["poll_status", "get_job_logs", "cancel_job"] {
        let answer = server.call(tool, json!({}));
        let error = answer.refused();
        assert!(
            error.contains("job_id") && error.contains("list_jobs"),
            "{tool}: {error}"
        );
    }
}

#[test]
fn null_counts_as_not_given() {
    let home = Home::new();
    let config = home.job("true");
    let mut server = Server::start(&home);
    let all = json!({
        "job_name": null, "cloud": null, "cluster_name": null, "accelerators": null, "num_nodes": null, "use_spot": null,
        "disk_size": null, "envs": null, "file_mounts": null, "setup_script": null, "run_script": null, "dry_run": null,
    });
    assert_eq!(launch(&mut server, config, all).ok()["status"], "dry_run");
    let answer = launch(&mut server, config, json!({ "command": null }));
    assert!(answer.refused().contains("missing field `command`"));
    server.call("list_jobs", json!({ "status": null })).ok();
    let answer = server.call("poll_status", json!({ "job_id": "x", "cloud": null }));
    assert_eq!(answer["status"], "not_found");
}

#[test]
fn unknown_job_says_what_to_call() {
    let home = Home::new();
    let mut server = Server::start(&home);
    for job_id in [
        "train_20260101_000000_abcdef",
        "../../etc/passwd",
        "a\0b",
        &"x".repeat(5000),
    ] {
        for tool in ["poll_status", "get_job_logs", "cancel_job"] {
            let answer = server.call(tool, json!({ "job_id": job_id }));
            assert!(
                answer.refused().contains("list_jobs"),
                "{tool}: {:#}",
                answer.content
            );
            // What a terminal obeys is in no answer.
            assert_eq!(answer["job_id"], job_id.replace('\0', "\u{fffd}"), "{tool}");
            if tool != "get_job_logs" {
                assert_eq!(answer["status"], "not_found", "{tool}");
            }
        }
    }
}

#[test]
fn relative_folder_is_refused() {
    let home = Home::new();
    let config = home.job("true");
    let mut server = Server::start(&home);
    let nowhere = home.root().join("nowhere");
    let file = home.project().join(config);
    for (cwd, said) in [
        (json!("project"), "absolute"),
        (json!("."), "absolute"),
        (json!(""), "full path"),
        (json!(nowhere), "not a folder"),
        (json!(file), "not a folder"),
    ] {
        let answer = launch(&mut server, config, json!({ "client_cwd": cwd }));
        let error = answer.refused();
        assert!(
            error.contains("client_cwd") && error.contains(said),
            "{cwd}: {error}"
        );
    }
}

#[test]
fn unreadable_config_is_refused_with_the_reason() {
    let home = Home::new();
    std::fs::create_dir(home.project().join("folder.yaml")).unwrap();
    home.write("empty.yaml", "\n# nothing\n");
    home.write("list.yaml", "- run\n- setup\n");
    home.write("broken.yaml", "run: [1,\n");
    std::fs::write(home.project().join("latin1.yaml"), b"run: \xe9").unwrap();
    let mut server = Server::start(&home);
    for (config, said) in [
        ("missing.yaml", "No such file"),
        ("folder.yaml", "not a file"),
        ("/dev/null", "not a file"),
        ("empty.yaml", "empty"),
        ("list.yaml", "mapping"),
        ("broken.yaml", "not usable"),
        ("latin1.yaml", "UTF-8"),
    ] {
        // Also in a preview, and before any other complaint.
        for more in [
            json!({}),
            json!({ "dry_run": true, "command": "fly", "cloud": "mars" }),
        ] {
            let answer = launch(&mut server, config, more);
            let error = answer.refused();
            assert!(
                error.contains(config) && error.contains(said),
                "{config}: {error}"
            );
        }
    }
    assert_eq!(server.list("all").0, [""; 0]);
}

#[test]
fn config_path_may_be_absolute_or_home() {
    let home = Home::new();
    let config = home.project().join(home.job("true"));
    std::fs::copy(&config, home.root().join("at-home.yaml")).unwrap();
    let mut server = Server::start(&home);
    for path in [
        config.to_str().unwrap(),
        "~/at-home.yaml",
        "../at-home.yaml",
    ] {
        launch(&mut server, path, json!({ "dry_run": true })).ok();
    }
}

#[test]
fn unknown_command_lists_the_known() {
    let home = Home::new();
    let config = home.job("true");
    let mut server = Server::start(&home);
    for command in ["", "fly", "train; rm -rf /", "launch"] {
        let answer = launch(&mut server, config, json!({ "command": command }));
        let error = answer.refused();
        for known in [
            "train", "evaluate", "eval", "infer", "synth", "analyze", "tune", "quantize",
        ] {
            assert!(error.contains(known), "{known}: {error}");
        }
    }
}

#[test]
fn unknown_cloud_lists_the_known() {
    let home = Home::new();
    let config = home.job("true");
    let mut server = Server::start(&home);
    for cloud in ["mars", "mars-2"] {
        let answer = launch(&mut server, config, json!({ "cloud": cloud }));
        let error = answer.refused();
        assert!(
            error.contains(&format!("{cloud:?}")) && error.contains("use one of: local"),
            "{error}"
        );
    }
    launch(
        &mut server,
        config,
        json!({ "cloud": " LOCAL ", "dry_run": true }),
    )
    .ok();
    let answer = server.call(
        "poll_status",
        json!({ "oumi_job_id": "1", "cloud": "mars" }),
    );
    assert!(answer.refused().contains("local"));
}

#[test]
fn impossible_envs_are_refused_without_values() {
    let home = Home::new();
    let config = home.job("true");
    let mut server = Server::start(&home);
    for (envs, named) in [
        (json!({ "A=B": "s3cr3t" }), "A=B"),
        (json!({ "": "s3cr3t" }), "\"\""),
        (json!({ "1A": "s3cr3t" }), "1A"),
        (json!({ "A B": "s3cr3t" }), "A B"),
        (json!({ "A": "s3cr3t\0" }), "NUL"),
        (json!({ "A": ["s3cr3t"] }), "envs.A"),
        (json!({ "A": { "s3cr3t": 1 } }), "envs.A"),
        (json!(["s3cr3t"]), "envs"),
        (json!("s3cr3t"), "envs"),
    ] {
        for dry_run in [true, false] {
            let answer = launch(
                &mut server,
                config,
                json!({ "envs": envs, "dry_run": dry_run }),
            );
            assert!(
                answer.refused().contains(named),
                "{envs}: {:#}",
                answer.content
            );
            assert!(
                !answer.content.to_string().contains("s3cr3t"),
                "{:#}",
                answer.content
            );
        }
    }
    assert_eq!(server.list("all").0, [""; 0]);
}

#[test]
fn folder_left_out_is_a_root_of_the_client() {
    let home = Home::new();
    let config = home.job("true");
    let roots = |folders: &[&std::path::Path]| {
        let roots: Vec<Value> = folders
            .iter()
            .map(|folder| json!({ "uri": format!("file://{}", folder.display()) }))
            .collect();
        json!({ "roots": roots })
    };
    for (listed, path) in [
        (roots(&[home.root(), &home.project()]), Some(config)),
        (roots(&[]), None),
        (json!({ "roots": "none" }), None),
    ] {
        let capabilities = json!({ "roots": {} });
        let mut server = Server::spawn_as(&home, command(&home), "2025-11-25", capabilities);
        let absolute = home.project().join(config);
        let path = path.map_or(absolute.to_str().unwrap(), |relative| relative);
        let id = server.send(
            "run_job",
            json!({ "config_path": path, "command": "train" }),
        );
        let asked = server.incoming_message("roots/list");
        server.reply(&asked, listed);
        assert_eq!(server.answer("run_job", id).ok()["status"], "dry_run");
    }
    // A client that declares none is not asked.
    let mut server = Server::start(&home);
    let answer = server.call(
        "run_job",
        json!({ "config_path": config, "command": "train" }),
    );
    assert!(
        answer.refused().contains("client_cwd"),
        "{}",
        answer.refused()
    );
}
