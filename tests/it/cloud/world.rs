//! A home, its fake clouds, and the servers that know both.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use chrono::Utc;
use oumi_mcp_server::env_vars;
use serde_json::{Map, Value, json};

use crate::fake_cloud::{Call, FakeCloud};
use crate::support::client::{self, Answer, Server};
use crate::support::{Home, files_holding};

/// The cluster of a Slurm that Oumi drives itself.
pub const SLURM: &str = "me@login.example.org";

/// The home ends first: what still runs in it, launches too, is killed before the clouds are removed.
pub struct World {
    pub home: Home,
    pub cloud: FakeCloud,
    /// The address of SkyPilot's API server, where it is up.
    api: Option<String>,
}

impl World {
    /// A project with a job config and a training config, and clouds without clusters.
    pub fn new() -> Self {
        let home = Home::new();
        home.write("job.yaml", "run: echo hi\n");
        home.write("train.yaml", "model: {model_name: tiny}\n");
        Self {
            home,
            cloud: FakeCloud::new(),
            api: None,
        }
    }

    pub fn with_server() -> (Self, Server) {
        let world = Self::new();
        let server = world.server();
        (world, server)
    }

    /// A world with SkyPilot's API server up, and a user that it knows.
    pub fn with_api() -> Self {
        let mut world = Self::new();
        world.api = Some(world.cloud.start_api());
        fs::create_dir(world.home.root().join(".sky")).unwrap();
        fs::write(world.home.root().join(".sky/user_hash"), "fcd1e5cf").unwrap();
        world
    }

    /// A server with both programs on its PATH.
    pub fn server(&self) -> Server {
        self.server_with(&[])
    }

    /// The same with more in its environment.
    pub fn server_with(&self, envs: &[(&str, &str)]) -> Server {
        let mut command = self.command();
        command.envs(envs.iter().copied());
        Server::spawn(&self.home, command)
    }

    pub fn command(&self) -> Command {
        let mut command = client::command(&self.home);
        let path = format!("{}:/usr/bin:/bin", self.cloud.bin().display());
        command.env("PATH", path).env_remove(env_vars::SKY);
        command.envs(
            self.api
                .iter()
                .map(|api| ("SKYPILOT_API_SERVER_ENDPOINT", api)),
        );
        command
    }

    /// A server on a machine without one of the programs, or without both.
    pub fn server_without(&self, missing: &[&str]) -> Server {
        let mut command = self.command();
        for (name, variable) in [("oumi", env_vars::OUMI), ("sky", env_vars::SKY)] {
            if missing.contains(&name) {
                fs::remove_file(self.cloud.bin().join(name)).unwrap();
                if is_installed(name) {
                    command.env(variable, self.cloud.bin().join(name));
                }
            }
        }
        Server::spawn(&self.home, command)
    }

    /// How often a launch was begun.
    pub fn launches(&self) -> usize {
        self.cloud.calls_of(&["oumi", "launch", "up"]).len()
    }

    /// The one launch there was.
    #[track_caller]
    pub fn the_launch(&self) -> Call {
        let mut launches = self.cloud.calls_of(&["oumi", "launch", "up"]);
        assert_eq!(launches.len(), 1, "{launches:?}");
        launches.remove(0)
    }

    /// What the `n`-th launch was given, as Oumi reads it.
    pub fn staged(&self, n: usize) -> Map<String, Value> {
        let mut staged: Value = serde_saphyr::from_str(&self.cloud.staged(n).unwrap()).unwrap();
        unescape(&mut staged);
        staged.as_object().unwrap().clone()
    }

    /// The one record of the registry.
    #[track_caller]
    pub fn the_record(&self) -> Value {
        let records = self.home.records();
        assert_eq!(records.len(), 1, "{records:?}");
        records[0].clone()
    }

    /// Writes records of jobs whose launches ended long ago, and the facts of these launches: id, which is the job's name too,
    /// cloud, cluster, launcher's id.
    pub fn know(&self, jobs: &[(&str, &str, &str, &str)]) {
        self.know_records(jobs);
        for (id, _, cluster, oumi_job_id) in jobs {
            let folder = self.home.job_dir(id);
            fs::create_dir_all(&folder).unwrap();
            let start = json!({ "name": id, "cluster": cluster, "before": null });
            fs::write(folder.join("launch-start.json"), start.to_string()).unwrap();
            let run = "Synced workdir.  View logs: sky api logs -l sky-0/workdir_sync.log";
            let output = format!("{run}\nJob {oumi_job_id} queued on cluster {cluster}.\n");
            fs::write(folder.join("output.log"), output).unwrap();
        }
    }

    /// Writes records as the Python server does, with nothing beside them.
    pub fn know_records(&self, jobs: &[(&str, &str, &str, &str)]) {
        let records = jobs.iter().map(|job| record(job.0, job.1, job.2, job.3));
        self.home.write_registry(&records.collect::<Vec<Value>>());
    }

    /// A job on a cluster that was submitted so many seconds from now.
    pub fn add_job(&self, cluster: &str, id: &str, name: &str, seconds: i64) {
        self.cloud.add_job(cluster, id, name, "RUNNING");
        let time = (Utc::now().timestamp() + seconds).to_string();
        for field in ["submitted_at", "start_at"] {
            let file = format!("clusters/{cluster}/jobs/{id}/{field}");
            self.cloud.write(&file, &time);
        }
    }

    pub fn add_job_now(&self, cluster: &str, id: &str, name: &str) {
        self.add_job(cluster, id, name, 1);
    }

    /// As if a job had been launched so many seconds earlier: the time of then.
    pub fn age(&self, job_id: &str, seconds: u64) -> SystemTime {
        let time = SystemTime::now() - Duration::from_secs(seconds);
        for name in ["output.log", "launch-start.json"] {
            let path = self.home.job_dir(job_id).join(name);
            let file = fs::File::options().append(true).open(path).unwrap();
            file.set_modified(time).unwrap();
        }
        time
    }

    pub fn staged_path(&self, job_id: &str) -> std::path::PathBuf {
        self.home.job_dir(job_id).join("job.yaml")
    }
}

/// What OmegaConf makes of texts: `\\${` is a `${` that is meant as it stands. None here has more backslashes.
fn unescape(value: &mut Value) {
    match value {
        Value::String(text) => {
            assert_eq!(
                text.matches("${").count(),
                text.matches("\\${").count(),
                "{text:?}"
            );
            *text = text.replace("\\${", "${");
        }
        Value::Object(object) => object.values_mut().for_each(unescape),
        Value::Array(array) => array.iter_mut().for_each(unescape),
        _ => {}
    }
}

/// Whether this machine has a real one where every server looks: then that must be hidden from the tests' servers.
pub fn is_installed(name: &str) -> bool {
    [
        "/usr/bin",
        "/bin",
        "/opt/homebrew/bin",
        "/usr/local/bin",
        "/opt/conda/bin",
    ]
    .iter()
    .any(|folder| Path::new(folder).join(name).exists())
}

/// What is said where a program is missing.
pub fn how_to_get(name: &str) -> &'static str {
    match (name, is_installed(name)) {
        ("oumi", false) => "pip install oumi",
        ("oumi", true) => env_vars::OUMI,
        (_, false) => "pip install 'oumi[gcp]'` (or aws, azure, kubernetes",
        (_, true) => env_vars::SKY,
    }
}

/// A record as the Python server would write it.
pub fn record(job_id: &str, cloud: &str, cluster: &str, oumi_job_id: &str) -> Value {
    json!({
        "job_id": job_id,
        "command": "train",
        "config_path": "/project/job.yaml",
        "cloud": cloud,
        "cluster_name": cluster,
        "oumi_job_id": oumi_job_id,
        "model_name": "tiny",
        "submit_time": Utc::now().to_rfc3339(),
        "output_dir": "out",
    })
}

/// Status, state and `is_done` of an answer.
pub fn how(answer: &Answer) -> (&str, &str, bool) {
    (
        answer["status"].as_str().unwrap(),
        answer["state"].as_str().unwrap(),
        answer["is_done"].as_bool().unwrap(),
    )
}

pub fn text<'a>(answer: &'a Answer, field: &str) -> &'a str {
    answer[field].as_str().unwrap()
}

/// The warnings of an answer, one a line.
pub fn warnings(answer: &Answer) -> String {
    let warnings = answer["warnings"].as_array().unwrap();
    let lines: Vec<&str> = warnings.iter().map(|line| line.as_str().unwrap()).collect();
    lines.join("\n")
}

/// The names of the files below `folder` that hold `text`.
pub fn holding(folder: &Path, text: &str) -> Vec<String> {
    let files = files_holding(folder, &[text]).into_iter();
    files
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect()
}
