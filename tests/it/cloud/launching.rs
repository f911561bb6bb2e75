//! A launch from what the caller gives to what the launcher gets.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use oumi_mcp_server::env_vars;
use serde_json::json;

use super::world::{SLURM, World, how, how_to_get, is_installed, text, warnings};
use crate::support::client::Server;
use crate::support::{executable, kill_9, skipped, wait_until};

#[test]
fn job_config_is_merged_with_arguments() {
    let world = World::new();
    fs::create_dir(world.home.project().join("sub")).unwrap();
    world.home.write(
        "job.yaml",
        "name: mine\nresources: {cloud: gcp, cpus: 4}\nworking_dir: sub\nenvs: {A: one, B: two}\n\
         file_mounts: {~/a: ./sub, ~/b: ./b}\nsetup: |\n  echo one\n  echo two\nrun: echo $A\nnew_in_some_version: {kept: [1]}\n",
    );
    let mut server = world.server();
    let answer = server.run(
        "job.yaml",
        json!({
            "cloud": " AWS ", "job_name": "first", "accelerators": "A100:8", "num_nodes": 2, "use_spot": true,
            "disk_size": 512, "envs": { "B": "over", "C": "new" }, "file_mounts": { "~/b": "s3://over", "~/c": "/tmp" },
        }),
    ).ok();
    assert_eq!(
        (&answer["job_id"], &answer["status"], &answer["cloud"]),
        (&json!("first"), &json!("RUNNING"), &json!("aws"))
    );
    assert_eq!(answer["launch_confirmed"], true);
    assert_eq!(
        (&answer["oumi_job_id"], &answer["cluster"]),
        (&json!("1"), &json!("first"))
    );
    assert_eq!(answer["cluster_name"], "first");
    assert!(warnings(&answer).contains("`gcp`"), "{answer}");
    assert!(!warnings(&answer).contains("setup"), "{answer}");

    let launch = world.the_launch();
    let staged = world.staged_path("first");
    let expected = [
        "launch",
        "up",
        "-c",
        staged.to_str().unwrap(),
        "--cluster",
        "first",
        "--detach",
    ];
    assert_eq!(launch.args, expected);
    assert_eq!(launch.columns, "4096");
    assert_eq!(
        json!(world.staged(1)),
        json!({
            "name": "mine",
            "resources": { "cloud": "aws", "cpus": 4, "accelerators": "A100:8", "use_spot": true, "disk_size": 512 },
            "working_dir": world.home.project().join("sub"),
            "envs": { "A": "one", "B": "over", "C": "new" },
            "file_mounts": { "~/a": "./sub", "~/b": "s3://over", "~/c": "/tmp" },
            "setup": "echo one\necho two\n",
            "run": "echo $A",
            "new_in_some_version": { "kept": [1] },
            "num_nodes": 2,
        })
    );
    let record = world.the_record();
    assert_eq!(
        (
            &record["cloud"],
            &record["cluster_name"],
            &record["oumi_job_id"]
        ),
        (&json!("aws"), &json!("first"), &json!("1"))
    );
}

/// Runs the script of a wrapped config as the cluster would, and gives what the `oumi` there was called with.
fn run_on_cluster(world: &World, script: &str) -> String {
    let home = world.home.root().join("cluster-home");
    executable(
        &home.join(".local/bin/oumi"),
        "#!/bin/sh\nfor word; do printf '[%s]' \"$word\"; done\n",
    );
    let said = Command::new("bash")
        .args(["-c", script])
        .env_clear()
        .env("HOME", home)
        .env("PATH", "/usr/bin:/bin")
        .current_dir(world.home.project())
        .output()
        .unwrap();
    assert!(said.status.success(), "{said:?}");
    String::from_utf8(said.stdout).unwrap()
}

#[test]
fn wrapped_script_survives_hostile_values() {
    let world = World::new();
    let nasty = "with space/it's $HOME `id` \"x\" ${A}\nzweite zeile ü 鍵.yaml";
    fs::create_dir(world.home.project().join("with space")).unwrap();
    world.home.write(nasty, "model: {model_name: tiny}\n");
    let token = world.home.root().join(".cache/huggingface/token");
    fs::create_dir_all(token.parent().unwrap()).unwrap();
    fs::write(token, "x").unwrap();
    let values = json!({
        "QUOTES": "it's \"quoted\"", "DOLLAR": "$HOME $(id) `id`", "LINES": "one\ntwo\n", "WORD": "yes", "NUMBER": "1e3",
        "UNICODE": "schlüssel 鍵 🔑\u{2028}\u{85}", "YAML": "- # : {} [] & * ! | > % @", "EMPTY": "", "SPACE": " x ",
    });
    let mut server = world.server();
    server.submit(
        nasty,
        json!({ "cloud": "gcp", "command": "evaluate", "envs": values, "file_mounts": { "~/.netrc": "/tmp" } }),
    );
    let staged = world.staged(1);
    assert_eq!(staged["envs"], values);
    assert_eq!(
        staged["file_mounts"],
        json!({ "~/.cache/huggingface/token": "~/.cache/huggingface/token", "~/.netrc": "/tmp" })
    );
    assert_eq!(
        run_on_cluster(&world, staged["run"].as_str().unwrap()),
        format!("[evaluate][-c][{nasty}]")
    );
    assert!(staged["setup"].as_str().unwrap().contains("oumi[gpu]"));

    server.submit(
        "train.yaml",
        json!({ "cloud": "gcp", "accelerators": "H100:8" }),
    );
    assert_eq!(
        run_on_cluster(&world, world.staged(2)["run"].as_str().unwrap()),
        "[distributed][torchrun][-m][oumi][train][-c][train.yaml]"
    );

    let scripts =
        json!({ "cloud": "gcp", "setup_script": "echo '$X'\n", "run_script": "echo \"ü\"\n" });
    server.submit("train.yaml", scripts);
    let staged = world.staged(3);
    assert_eq!(
        (&staged["setup"], &staged["run"]),
        (&json!("echo '$X'\n"), &json!("echo \"ü\"\n"))
    );

    // The home on a login node is the user's own, and Oumi's rsync copies the folder itself without a slash at its end.
    let slurm = json!({ "cloud": "slurm", "cluster_name": SLURM });
    server.submit("train.yaml", slurm);
    let staged = world.staged(4);
    assert_eq!(staged["file_mounts"], json!({}));
    let folder = world.home.project().join("");
    assert_eq!(staged["working_dir"], json!(folder));
}

#[test]
fn staged_config_is_private_and_removed() {
    let world = World::new();
    world.cloud.set("oumi-up.block", "");
    let mut server = world.server();
    let run = server.send_run("job.yaml", json!({ "cloud": "aws", "job_name": "a" }));
    world.cloud.wait_for("blocked-oumi-up");
    let staged = world.staged_path("a");
    let mode = fs::metadata(&staged).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    world.cloud.set("oumi-up.go", "");
    server.answer("run_job", run).ok();
    assert!(!staged.exists());
}

#[test]
fn staged_config_is_removed_after_failure() {
    let world = World::new();
    world
        .cloud
        .set("oumi-up.replay", "oumi-slurm/up-no-cluster");
    let mut server = world.server();
    server
        .run("job.yaml", json!({ "cloud": "aws", "job_name": "a" }))
        .refused();
    assert!(world.home.job_dir("a").is_dir());
    assert!(!world.staged_path("a").exists());
}

#[test]
fn staged_config_is_removed_without_supervisor() {
    let world = World::new();
    world.cloud.set("oumi-up.block", "");
    let mut server = world.server();
    let run = server.send_run("job.yaml", json!({ "cloud": "aws", "job_name": "a" }));
    world.cloud.wait_for("blocked-oumi-up");
    kill_9(world.home.supervisor("a"));
    assert_eq!(how(&server.poll("a")), ("launching", "PENDING", false));
    assert!(
        world.staged_path("a").exists(),
        "the launcher still needs it"
    );
    world.cloud.set("oumi-up.go", "");
    assert_eq!(server.answer("run_job", run).ok()["status"], "RUNNING");
    assert!(!world.staged_path("a").exists());
}

#[test]
fn staged_config_is_removed_by_the_next_server() {
    let world = World::new();
    world.cloud.set("oumi-up.block", "");
    let mut server = world.server();
    server.send_run("job.yaml", json!({ "cloud": "aws", "job_name": "a" }));
    world.cloud.wait_for("blocked-oumi-up");
    let supervisor = world.home.supervisor("a");
    server.kill_9();
    kill_9(supervisor);
    kill_9(world.the_launch().pid);
    assert!(world.staged_path("a").exists());
    let _server = world.server();
    wait_until("the staged config is gone", || {
        !world.staged_path("a").exists()
    });
}

#[test]
fn dry_run_shows_the_job_config() {
    let world = World::new();
    world
        .home
        .write("job.yaml", "envs: {IN_CONFIG: hidden-one}\nrun: echo hi\n");
    let mut server = world.server();
    for (config, kind) in [("job.yaml", "job"), ("train.yaml", "training")] {
        let asked = json!({ "cloud": "aws", "dry_run": true, "envs": { "GIVEN": "hidden-two" }, "accelerators": "A100:8" });
        let answer = server.run(config, asked).ok();
        assert_eq!(answer["status"], "dry_run");
        let shown = &answer["job_config"];
        assert_eq!(shown["envs"]["GIVEN"], "***");
        assert_eq!(
            shown["resources"],
            json!({ "cloud": "aws", "accelerators": "A100:8" })
        );
        assert_eq!(
            shown["working_dir"],
            *world.home.project().to_str().unwrap()
        );
        let run = shown["run"].as_str().unwrap();
        if kind == "job" {
            assert_eq!(shown["envs"]["IN_CONFIG"], "***");
            assert_eq!(run, "echo hi");
        } else {
            assert!(
                run.contains("torchrun -m oumi train -c train.yaml"),
                "{run}"
            );
        }
        assert!(!answer.content.to_string().contains("hidden-"), "{answer}");
        let message = text(&answer, "message");
        for line in [
            "oumi launch up -c",
            "Accelerators: A100:8",
            "Variables (values not shown): ",
        ] {
            assert!(message.contains(line), "{line}: {message}");
        }
    }
    assert_eq!(world.cloud.calls_of(&["oumi"]), []);
    assert_eq!(
        fs::read_dir(world.home.data().join("jobs"))
            .unwrap()
            .count(),
        0
    );
    assert!(!world.home.registry().exists());
}

#[test]
fn invalid_cluster_name_is_refused() {
    let (world, mut server) = World::with_server();
    let on_sky = [
        "-x", "1abc", "a b", "a-", "x_", "x;id", "ü", "a/b", "--help", "a@b",
    ];
    let on_slurm = [
        "host",
        "me@",
        "@host",
        "-me@host",
        "me@-host",
        "me@ho st",
        "me@host;id",
        "a@b@c",
    ];
    for (cloud, names) in [("aws", &on_sky[..]), ("slurm", &on_slurm[..])] {
        for name in names {
            let arguments =
                server.launch("job.yaml", json!({ "cloud": cloud, "cluster_name": name }));
            let answer = server.call("run_job", arguments);
            assert!(
                answer.refused().contains("cluster_name"),
                "{name}: {}",
                answer.refused()
            );
            assert_eq!(answer["job_id"], "");
        }
    }
    assert_eq!(world.cloud.calls(), []);
    assert!(!world.home.registry().exists());
}

#[test]
fn slurm_needs_a_cluster() {
    let world = World::new();
    let mut server = world.server_with(&[("OUMI_SLURM_CONNECTIONS", "you@other")]);
    let answer = server.run("job.yaml", json!({ "cloud": "slurm" }));
    assert!(answer.refused().contains("user@host"), "{answer}");
    // Oumi runs rsync through a shell.
    for path in ["/my data", "/a;touch b", "$(id)", "-e/tmp/x"] {
        let mounts = json!({ "~/x": path });
        let asked = json!({ "cloud": "slurm", "cluster_name": SLURM, "file_mounts": mounts });
        let answer = server.run("job.yaml", asked);
        assert!(answer.refused().contains("to a shell"), "{answer}");
    }
    assert_eq!(world.cloud.calls(), []);

    let envs = json!({ "MANY": "two words; $HOME" });
    let answer = server
        .run(
            "job.yaml",
            json!({ "cloud": "slurm", "cluster_name": SLURM, "envs": envs }),
        )
        .ok();
    assert_eq!(
        (
            &answer["status"],
            &answer["oumi_job_id"],
            &answer["cluster"]
        ),
        (&json!("RUNNING"), &json!("1"), &json!(SLURM))
    );
    // Every later call needs the connection too, and fails where another one cannot be reached.
    for call in world.cloud.calls() {
        assert_eq!(call.connections, SLURM, "{call:?}");
        assert_eq!(call.columns, "4096", "{call:?}");
    }
    let staged = world.staged(1);
    assert_eq!(staged["user"], "me");
    // Oumi writes it into a script as it stands.
    let script = format!("printf %s {}", staged["envs"]["MANY"].as_str().unwrap());
    let said = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8(said.stdout).unwrap(), "two words; $HOME");
}

#[test]
fn missing_program_says_how_to_install() {
    for (missing, clouds) in [("oumi", &["aws", "slurm"][..]), ("sky", &["aws"][..])] {
        let world = World::new();
        let mut server = world.server_without(&[missing]);
        for cloud in clouds {
            let cluster = if *cloud == "slurm" { SLURM } else { "" };
            let asked = json!({ "cloud": cloud, "cluster_name": cluster });
            let answer = server.run("job.yaml", asked.clone());
            let install = how_to_get(missing);
            assert!(answer.refused().contains(install), "{answer}");

            let preview = server.run(
                "job.yaml",
                json!({ "dry_run": true, "cloud": cloud, "cluster_name": cluster }),
            );
            assert!(preview.refused().contains(install), "{preview}");
        }
        assert_eq!(world.cloud.calls_of(&["oumi"]), []);
        assert_eq!(server.list("all").0, [""; 0]);
        assert_eq!(
            fs::read_dir(world.home.data().join("jobs"))
                .unwrap()
                .count(),
            0
        );
    }
}

#[test]
fn slurm_needs_no_sky() {
    let world = World::new();
    let mut server = world.server_without(&["sky"]);
    let job_id = server.submit(
        "job.yaml",
        json!({ "cloud": "slurm", "cluster_name": SLURM }),
    );
    assert_eq!(how(&server.poll(&job_id)), ("RUNNING", "RUNNING", false));
    assert_eq!(server.list("all").0, [job_id]);
}

#[test]
fn existing_cluster_skips_setup() {
    let (_world, mut server) = World::with_server();
    let asked = json!({ "cloud": "aws", "cluster_name": "dev", "dry_run": true });
    let preview = server.run("job.yaml", asked).ok();
    assert!(
        warnings(&preview).contains("if cluster dev is up already"),
        "{preview}"
    );
    assert!(warnings(&preview).contains("skips its `setup`, `file_mounts` and"));
}

#[test]
fn missing_files_are_warned_of() {
    let (world, mut server) = World::with_server();
    for (line, said) in [
        ("file_mounts: {~/a: 's3://b', ~/b: ~/no}", "fails: ~/no"),
        ("working_dir: lost", "/lost"),
    ] {
        world.home.write("job.yaml", &format!("{line}\nrun: x\n"));
        for (cloud, cluster) in [("aws", ""), ("slurm", SLURM)] {
            let asked = json!({ "cloud": cloud, "cluster_name": cluster, "dry_run": true });
            let answer = server.run("job.yaml", asked).ok();
            assert!(warnings(&answer).contains(said), "{answer}");
        }
    }
}

#[test]
fn job_names_make_distinct_clusters() {
    let (world, mut server) = World::with_server();
    let mut clusters = Vec::new();
    for (name, on_cluster) in [
        ("my_run", "my_run"),
        ("my-run", "my-run"),
        ("my_run.2", "my_run.2"),
        ("My Run 2", "My-Run-2"),
        ("my run 2", "my-run-2"),
        ("my--run__2", "my-run-2"),
        ("2nd", "2nd"),
        ("ü", "job"),
        ("ö", "job"),
    ] {
        let answer = server
            .run(
                "job.yaml",
                json!({ "cloud": "aws", "job_name": name, "dry_run": true }),
            )
            .ok();
        assert_eq!(answer["job_config"]["name"], on_cluster);
        let cluster = text(&answer, "cluster_name").to_owned();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        assert!(cluster.chars().all(is_plain), "{cluster:?}");
        assert!(!clusters.contains(&cluster), "{cluster} of {clusters:?}");
        clusters.push(cluster);
    }
    // A new cluster is none that is there already.
    world.cloud.add_cluster("taken", "AWS", "UP");
    let asked = json!({ "cloud": "aws", "job_name": "taken" });
    let job_id = server.submit("job.yaml", asked);
    let cluster = server.poll(&job_id)["cluster"].clone();
    assert!(cluster.as_str().unwrap().starts_with("taken-"), "{cluster}");
}

#[test]
fn user_of_a_queue_is_in_the_cluster_name() {
    let (world, mut server) = World::with_server();
    for (user, warns) in [
        ("", false),
        ("user: jane\n", false),
        ("user: your_username\n", true),
    ] {
        world
            .home
            .write("queue.yaml", &format!("{user}run: echo hi\n"));
        for cloud in ["polaris", "perlmutter", "frontier"] {
            let asked =
                |cluster: &str| json!({ "cloud": cloud, "cluster_name": cluster, "dry_run": true });
            let answer = server.run("queue.yaml", asked("debug.jane")).ok();
            assert_eq!(answer["job_config"]["user"], "jane");
            assert_eq!(
                warnings(&answer).contains("your_username"),
                warns,
                "{answer}"
            );
            for cluster in ["", "debug", "jane@debug", ".jane", "debug.", "debug.j.doe"] {
                let answer = server.run("queue.yaml", asked(cluster));
                assert!(
                    answer.refused().contains("queue.user"),
                    "{cluster}: {}",
                    answer.refused()
                );
            }
        }
    }
}

#[test]
fn sky_is_found_beside_the_oumi_of_the_settings() {
    let world = World::new();
    let mut command = world.command();
    command.env("PATH", "/usr/bin:/bin");
    command.env(env_vars::OUMI, world.cloud.oumi());
    let mut server = Server::spawn(&world.home, command);
    let job_id = server.submit("job.yaml", json!({ "cloud": "gcp" }));
    wait_until("it runs", || server.poll(&job_id)["status"] == "RUNNING");
}

/// Both programs are found in the project's environment, also by the server that comes after.
#[test]
fn programs_in_the_project_environment() {
    let world = World::new();
    let bin = world.home.project().join(".env/bin");
    fs::create_dir_all(&bin).unwrap();
    for name in ["oumi", "sky"] {
        fs::rename(world.cloud.bin().join(name), bin.join(name)).unwrap();
    }
    if is_installed("oumi") || is_installed("sky") {
        skipped("this machine has the real programs");
        return;
    }
    let mut server = world.server();
    let job_id = server.submit("job.yaml", json!({ "cloud": "gcp" }));
    for _ in 0..2 {
        wait_until("it runs", || server.poll(&job_id)["status"] == "RUNNING");
        server = world.server();
    }
}
