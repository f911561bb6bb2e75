//! A fake `oumi` and a fake `sky` with one state, which a test looks at and changes. `fake.py` says what there is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::executable;

/// One call of a fake program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `oumi` or `sky`.
    pub program: String,
    pub pid: u32,
    /// COLUMNS; empty when it was not set.
    pub columns: String,
    /// OUMI_SLURM_CONNECTIONS; empty when it was not set.
    pub connections: String,
    pub args: Vec<String>,
}

/// The fake clouds. What still runs of the programs ends when this is dropped.
pub struct FakeCloud {
    folder: TempDir,
}

impl FakeCloud {
    /// Clouds without clusters, and `oumi`, `sky` and `ssh` in [`bin`](Self::bin) that know them by where they stand.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        for made in ["bin", "knobs", "clusters", "hosts"] {
            fs::create_dir(folder.path().join(made)).unwrap();
        }
        for program in ["oumi", "sky", "ssh"] {
            let script = python("fake", folder.path(), &format!("{program:?}, "));
            executable(&folder.path().join("bin").join(program), &script);
        }
        Self { folder }
    }

    /// Starts a fake of SkyPilot's API server over the same state, and returns its address. It ends with the state.
    pub fn start_api(&self) -> String {
        let api = python("fake_api", self.folder(), "");
        let api = executable(&self.folder().join("api"), &api);
        let mut command = Command::new("sh");
        command.args(["-c", "\"$0\" </dev/null >/dev/null 2>&1 &"]);
        assert!(command.arg(api).status().unwrap().success());
        self.wait_for("api-port");
        format!("http://127.0.0.1:{}", self.read("api-port").unwrap())
    }

    /// The requests to the API server so far that begin with this, such as `POST /queue`.
    pub fn api_calls(&self, start: &str) -> Vec<String> {
        let calls = self.read("api-calls").unwrap_or_default();
        let calls = calls.lines().filter(|call| call.starts_with(start));
        calls.map(ToOwned::to_owned).collect()
    }

    /// The state.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder with the two programs, for PATH.
    pub fn bin(&self) -> PathBuf {
        self.folder().join("bin")
    }

    pub fn oumi(&self) -> PathBuf {
        self.bin().join("oumi")
    }

    pub fn sky(&self) -> PathBuf {
        self.bin().join("sky")
    }

    /// Writes a file of the state in one step.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.folder().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let whole = path.with_extension("written-by-the-test");
        fs::write(&whole, text).unwrap();
        fs::rename(whole, path).unwrap();
    }

    /// A file of the state; nothing when it is not there.
    pub fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.folder().join(path)).ok()
    }

    /// Sets a knob, such as `sky-queue.delay`.
    pub fn set(&self, knob: &str, says: &str) {
        self.write(&format!("knobs/{knob}"), says);
    }

    pub fn unset(&self, knob: &str) {
        let _ = fs::remove_file(self.folder().join("knobs").join(knob));
    }

    /// A cluster that is there already. `cloud` is SkyPilot's spelling, such as `Slurm`.
    pub fn add_cluster(&self, name: &str, cloud: &str, status: &str) {
        self.write(&format!("clusters/{name}/cloud"), cloud);
        self.write(&format!("clusters/{name}/launched_at"), "1795547289");
        let made = std::time::SystemTime::now();
        self.write(&format!("clusters/{name}/hash"), &format!("{made:?}"));
        self.set_cluster(name, status);
    }

    /// `UP`, `INIT` or `STOPPED`.
    pub fn set_cluster(&self, name: &str, status: &str) {
        self.write(&format!("clusters/{name}/status"), status);
    }

    /// The cluster is gone, as after an autodown.
    pub fn lose_cluster(&self, name: &str) {
        fs::remove_dir_all(self.folder().join("clusters").join(name)).unwrap();
    }

    /// A job that is there already.
    pub fn add_job(&self, cluster: &str, id: &str, name: &str, status: &str) {
        self.write(&job(cluster, id, "name"), name);
        for time in ["submitted_at", "start_at"] {
            self.write(&job(cluster, id, time), "1795547289");
        }
        self.set_job(cluster, id, status);
    }

    /// Gives a job a status, in SkyPilot's word or Slurm's, and the time of its end when that is one.
    pub fn set_job(&self, cluster: &str, id: &str, status: &str) {
        let goes_on = [
            "INIT",
            "PENDING",
            "SETTING_UP",
            "RUNNING",
            "CONFIGURING",
            "COMPLETING",
            "SUSPENDED",
        ];
        if !goes_on.contains(&status) {
            self.write(&job(cluster, id, "end_at"), "1795547389");
        }
        self.write(&job(cluster, id, "status"), status);
    }

    /// The status of a job.
    pub fn job_status(&self, cluster: &str, id: &str) -> Option<String> {
        self.read(&job(cluster, id, "status"))
    }

    /// Replaces the log of a job: what it printed, without prefixes.
    pub fn set_log(&self, cluster: &str, id: &str, text: &str) {
        self.write(&job(cluster, id, "log"), text);
    }

    /// Every call so far, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        let calls = self.read("calls").unwrap_or_default();
        calls.lines().map(call).collect()
    }

    /// The calls whose program and first arguments are these, such as `["sky", "queue"]`.
    pub fn calls_of(&self, words: &[&str]) -> Vec<Call> {
        let begins = |call: &Call| {
            let words_of_call = std::iter::once(&call.program).chain(&call.args);
            words_of_call.take(words.len()).eq(words.iter())
        };
        self.calls().into_iter().filter(begins).collect()
    }

    /// The config that the `n`-th launch was given, counted from 1.
    pub fn staged(&self, n: usize) -> Option<String> {
        self.read(&format!("staged-{n}.yaml"))
    }

    /// Waits until a file of the state is there, such as `blocked-oumi-up`.
    pub fn wait_for(&self, path: &str) {
        crate::support::wait_until(path, || self.folder().join(path).exists());
    }
}

/// A program that runs `main` of a module of this folder, which Python keeps compiled, for the state of `folder`.
fn python(module: &str, folder: &Path, arguments: &str) -> String {
    let mut python = ["/usr/bin/python3", "/usr/local/bin/python3"].into_iter();
    let python = python.find(|path| Path::new(path).exists());
    let python = python.map(|path| format!("{path} -ISXutf8"));
    format!(
        "#!{}\nimport sys\nsys.pycache_prefix = \"{}/python\"\nsys.path.append(\"{}/tests/support\")\n\
         import {module}\n{module}.main({folder:?}, {arguments}*sys.argv[1:])\n",
        python.as_deref().unwrap_or("/usr/bin/env python3"),
        env!("CARGO_TARGET_TMPDIR"),
        env!("CARGO_MANIFEST_DIR"),
    )
}

/// Where a field of a job is. A cluster with an `@` is a Slurm host.
fn job(cluster: &str, id: &str, field: &str) -> String {
    let owner = if cluster.contains('@') {
        "hosts"
    } else {
        "clusters"
    };
    format!("{owner}/{cluster}/jobs/{id}/{field}")
}

fn call(line: &str) -> Call {
    let mut fields = line.split('\t').map(ToOwned::to_owned);
    let mut next = || fields.next().expect("a line of calls has all its fields");
    Call {
        program: next(),
        pid: next().parse().expect("the pid is a number"),
        columns: next(),
        connections: next(),
        args: fields.collect(),
    }
}
