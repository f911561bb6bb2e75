//! Names and paths that were made to lead elsewhere: nothing outside the data folder is written, no shell reads them, and no
//! argument of a program turns into an option.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::client::Server;
use crate::support::{Home, everything_in, wait_until};

/// Notes its arguments, each ended by a NUL, and a line after them; says what it was told to.
/// Notes its arguments. A launch (`launch up -c FILE --cluster NAME …`) says that its job is on that cluster.
const NOTES: &str = "#!/bin/sh
{ printf '%s\\0' \"${0##*/}\" \"$@\"; printf '\\n'; } >> \"$HOME/argv\"
case ${0##*/} in
sky) echo '{}' ;;
*) echo \"Job 1 queued on cluster $6.\" ;;
esac
";

/// The options that are meant to be there.
const OPTIONS: &[&str] = &[
    "-c",
    "--cluster",
    "--detach",
    "--cloud",
    "--id",
    "--job-id",
    "-o",
    "-y",
    "--no-follow",
    "--tail",
    "-u",
];

fn hostile() -> Vec<String> {
    let mut hostile: Vec<String> = [
        "..",
        ".",
        "../../elsewhere",
        "/etc/passwd",
        "a/../../../b",
        "a\\..\\..\\b",
        "~root/x",
        "x\0y",
        "x\ny",
        "x\r\ny",
        "$(touch pwned)",
        "`touch pwned`",
        "x; touch pwned #",
        "x' ; touch pwned ; '",
        "| touch pwned",
        "${HOME}",
        "-rf",
        "--help",
        "--config=/etc/passwd",
        "-",
        "--",
        "a b",
        "\u{ff0e}\u{ff0e}\u{ff0f}x",
        "\u{2024}\u{2024}\u{2215}x",
        "\u{202e}gpj.exe",
        "tra\u{0456}n",
        "\u{1b}[2Jx",
        "%2e%2e%2fx",
        "*",
        "root@localhost -oProxyCommand=touch",
        "-oProxyCommand=touch@host",
        "user@host,other@host",
        "user@-oProxyCommand=x",
    ]
    .map(str::to_owned)
    .into();
    hostile.push("x".repeat(10_000));
    hostile.push("../".repeat(3_000));
    hostile
}

struct Place {
    home: Home,
    server: Server,
    before: Vec<PathBuf>,
    elsewhere: Vec<PathBuf>,
}

impl Place {
    fn new() -> Self {
        let home = Home::new();
        home.program("oumi", NOTES);
        home.program("sky", NOTES);
        home.write("train.yaml", "model: {model_name: m}\n");
        home.write("job.yaml", "run: 'true'\n");
        fs::write(home.root().join("argv"), "").unwrap();
        let server = Server::start(&home);
        let before = outside(&home);
        Self {
            home,
            server,
            before,
            elsewhere: elsewhere(),
        }
    }

    fn run(&mut self, config: &str, more: Value) -> Value {
        let arguments = self.server.launch(config, more);
        self.server.call("run_job", arguments).content
    }

    /// Waits until the supervised process has ended: what it was given is noted then.
    fn is_over(&self, job_id: &str) {
        let exit = self.home.job_dir(job_id).join("exit.json");
        wait_until("it has ended", || exit.exists());
    }

    /// What the programs were given, each time.
    fn calls(&self) -> Vec<Vec<String>> {
        let noted = fs::read_to_string(self.home.root().join("argv")).unwrap();
        noted
            .split_terminator("\0\n")
            // Two that run at once may end their lines together.
            .map(|call| {
                call.trim_start_matches('\n')
                    .split('\0')
                    .map(str::to_owned)
                    .collect()
            })
            .collect()
    }

    /// Nothing was written outside the data folder, nothing was run, nothing became an option.
    fn is_unharmed(&self) {
        assert_eq!(outside(&self.home), self.before);
        for path in elsewhere() {
            assert!(self.elsewhere.contains(&path), "{}", path.display());
        }
        let jobs = self.home.data().join("jobs");
        for found in everything_in(&self.home.data()) {
            assert_ne!(found.file_name().unwrap(), "pwned");
            // Nothing deeper than a file of a job.
            let depth = found
                .strip_prefix(&jobs)
                .map_or(0, |below| below.components().count());
            assert!(depth <= 3, "{}", found.display());
        }
        for call in self.calls() {
            for argument in &call {
                let is_option = argument.starts_with('-');
                assert!(
                    !is_option || OPTIONS.contains(&argument.as_str()),
                    "{call:?}"
                );
            }
        }
    }
}

/// What is there, perhaps of somebody else, where the names lead to.
fn elsewhere() -> Vec<PathBuf> {
    let paths = |place: PathBuf| ["pwned", "elsewhere", "x"].map(|name| place.join(name));
    let paths = paths("/".into())
        .into_iter()
        .chain(paths(std::env::temp_dir()));
    paths.filter(|path| path.exists()).collect()
}

fn outside(home: &Home) -> Vec<PathBuf> {
    let mut found = everything_in(home.root());
    found.retain(|path| {
        !path.starts_with(home.data()) && path.extension().is_none_or(|other| other != "stderr")
    });
    found
}

#[test]
fn hostile_job_names() {
    let mut place = Place::new();
    let mut taken = 0;
    for name in hostile() {
        for (config, cloud) in [
            ("train.yaml", "local"),
            ("job.yaml", "local"),
            ("train.yaml", "gcp"),
        ] {
            let answer = place.run(config, json!({ "job_name": name, "cloud": cloud }));
            if answer["success"] != true {
                assert!(answer["error"].as_str().unwrap().len() < 12_000);
                continue;
            }
            let job_id = answer["job_id"].as_str().unwrap();
            taken += 1;
            assert!(place.home.job_dir(job_id).is_dir(), "{job_id}");
            assert!(
                !job_id.contains(['/', '\0', '\n', '\u{1b}']) && !job_id.contains(".."),
                "{job_id}"
            );
            place.is_over(job_id);
        }
    }
    assert!(taken >= 15, "{taken}");
    place.is_unharmed();
    for call in place
        .calls()
        .iter()
        .filter(|call| call.get(1).is_some_and(|word| word == "train"))
    {
        let config = place.home.project().join("train.yaml");
        assert_eq!(call[..], ["oumi", "train", "-c", config.to_str().unwrap()]);
    }
}

#[test]
fn hostile_clusters_and_ids() {
    let mut place = Place::new();
    for name in hostile() {
        for cloud in ["gcp", "slurm", "modal", "local"] {
            place.run(
                "job.yaml",
                json!({ "cluster_name": name, "cloud": cloud, "dry_run": cloud == "local" }),
            );
            let direct = [
                json!({ "oumi_job_id": name, "cloud": cloud, "cluster_name": "c" }),
                json!({ "oumi_job_id": "1", "cloud": cloud, "cluster_name": name }),
                json!({ "oumi_job_id": name, "cloud": cloud }),
                json!({ "job_id": name }),
            ];
            let mut sent = Vec::new();
            for tool in ["poll_status", "get_job_logs", "cancel_job"] {
                for arguments in &direct {
                    sent.push((tool, place.server.send(tool, arguments.clone())));
                }
            }
            let cluster = json!({ "cloud": cloud, "cluster_name": name });
            sent.push((
                "stop_cluster",
                place.server.send("stop_cluster", cluster.clone()),
            ));
            let mut down = cluster;
            down["confirm"] = true.into();
            down["user_confirmation"] = "DOWN".into();
            sent.push(("down_cluster", place.server.send("down_cluster", down)));
            for (tool, id) in sent {
                place.server.answer(tool, id);
            }
        }
    }
    assert!(place.calls().len() > 10, "{:?}", place.calls());
    place.is_unharmed();
}

#[test]
fn hostile_clouds_and_commands() {
    let mut place = Place::new();
    for name in hostile() {
        let answer = place.run("train.yaml", json!({ "cloud": name }));
        let error = answer["error"].as_str().unwrap();
        let refused = error.contains("is not known") || error.contains("at most 8192 bytes");
        assert!(refused, "{answer:#}");
        let answer = place.run("train.yaml", json!({ "command": name }));
        assert!(
            ["is not known", "at most 8192 bytes"]
                .iter()
                .any(|why| answer["error"].as_str().unwrap().contains(why)),
            "{answer:#}"
        );
    }
    assert_eq!(place.calls(), [[""; 0]; 0]);
    place.is_unharmed();
}

#[test]
fn hostile_paths_are_never_options() {
    let mut place = Place::new();
    let mut run = 0;
    for name in hostile() {
        // As they stand, they are relative or there is no such thing: nothing happens.
        let answer = place.run("train.yaml", json!({ "client_cwd": name }));
        assert_eq!(answer["success"], false, "{name:?}");
        let answer = place.run("train.yaml", json!({ "config_path": name }));
        assert_eq!(answer["success"], false, "{name:?}");
        place.is_unharmed();
        // And where there is such a thing.
        if name.contains(['/', '\0']) || name.len() > 200 || matches!(name.as_str(), "." | "..") {
            continue;
        }
        let folder = place.home.project().join(&name);
        fs::create_dir(&folder).unwrap();
        let config = format!("{name}.yaml");
        fs::write(folder.join(&config), "model: {}\n").unwrap();
        place.before = outside(&place.home);
        let answer = place.run(
            &config,
            json!({ "client_cwd": folder, "config_path": config }),
        );
        assert_eq!(answer["success"], true, "{answer:#}");
        place.is_over(answer["job_id"].as_str().unwrap());
        run += 1;
        let expected = folder.join(&config);
        assert_eq!(
            place.calls().last().unwrap()[..],
            ["oumi", "train", "-c", expected.to_str().unwrap()]
        );
    }
    assert!(run >= 20, "{run}");
    place.is_unharmed();
}

#[test]
fn hostile_variables() {
    let mut place = Place::new();
    let mut values = serde_json::Map::new();
    for (at, name) in hostile().into_iter().enumerate() {
        // A long name is a name like any other.
        if !name.chars().all(|other| other == 'x') {
            let answer = place.run("job.yaml", json!({ "envs": { name.clone(): "v" } }));
            assert!(
                answer["error"].as_str().unwrap().contains("`envs"),
                "{answer:.300}"
            );
        }
        if !name.contains('\0') {
            values.insert(format!("V{at}"), name.into());
        }
    }
    place
        .home
        .write("job.yaml", "run: env -0 > \"$OUMI_MCP_JOB_DIR/got\"\n");
    let answer = place.run("job.yaml", json!({ "envs": values.clone() }));
    let job_id = answer["job_id"].as_str().unwrap().to_owned();
    assert_eq!(place.server.wait_done(&job_id)["status"], "completed");
    let got = fs::read_to_string(place.home.job_dir(&job_id).join("got")).unwrap();
    for (name, value) in &values {
        let line = format!("{name}={}", value.as_str().unwrap());
        assert!(got.split('\0').any(|entry| entry == line), "{name}");
    }
    // Some change what runs: a preview names them.
    let arguments = json!({ "dry_run": true, "envs": { "LD_PRELOAD": "/x.so", "PATH": "/x" } });
    let answer = place.run("job.yaml", arguments);
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.contains("Variables (values not shown): LD_PRELOAD, PATH\n"),
        "{message}"
    );
    assert!(!message.contains("/x"), "{message}");
    // The mark of a job cannot be taken off, or be another's.
    let answer = place.run(
        "job.yaml",
        json!({ "envs": { "OUMI_MCP_JOB_DIR": "/etc" } }),
    );
    let job_id = answer["job_id"].as_str().unwrap().to_owned();
    place.server.wait_done(&job_id);
    let got = fs::read_to_string(place.home.job_dir(&job_id).join("got")).unwrap();
    assert!(got.contains(&format!(
        "OUMI_MCP_JOB_DIR={}",
        place.home.job_dir(&job_id).display()
    )));
    place.is_unharmed();
}

#[test]
fn forged_registry_leads_nowhere() {
    let mut place = Place::new();
    let victim = place.home.root().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("exit.json"), "{}").unwrap();
    place.before = outside(&place.home);
    let mut records = Vec::new();
    for name in hostile()
        .into_iter()
        .chain(["../../victim".to_owned(), victim.display().to_string()])
    {
        for (cloud, time) in [
            ("local", "2020-01-01T00:00:00Z"),
            ("gcp", "2020-01-01T00:00:00Z"),
            ("slurm", "2099-01-01T00:00:00Z"),
        ] {
            records.push(json!({
                "job_id": format!("{name}{}", if cloud == "local" { "" } else { cloud }), "command": "train", "config_path": name,
                "cloud": cloud, "cluster_name": name, "oumi_job_id": name, "model_name": name, "submit_time": time, "output_dir": name,
            }));
        }
    }
    place.home.write_registry(&records);
    place.server = Server::start(&place.home);
    place.server.list("all");
    for record in &records {
        for tool in ["poll_status", "get_job_logs", "cancel_job"] {
            place
                .server
                .call(tool, json!({ "job_id": record["job_id"] }));
        }
    }
    place.server.list("all");
    // Where a cloud has one cluster only, it is asked about that one.
    for name in hostile().into_iter().filter(|name| name.contains('-')) {
        place.home.write_registry(&[json!({
            "job_id": "a", "command": "train", "config_path": "", "cloud": "slurm", "cluster_name": name, "oumi_job_id": "1",
            "model_name": "", "submit_time": "2099-01-01T00:00:00Z", "output_dir": "",
        })]);
        place.server.list("all");
    }
    assert!(victim.join("exit.json").exists());
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
    place.is_unharmed();
}
