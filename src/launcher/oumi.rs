//! The clouds that Oumi drives itself, such as a Slurm cluster: launched, queried and changed through `oumi launch`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use serde_json::Value;

use super::cloud::{Change, CloudBackend, failure_text, is_plain, log_file, merge_queues};
use super::job_yaml::JobConfig;
use super::{JobIdentity, JobLog, LaunchSpec, LogContent};
use crate::error::{JobError, Result};
use crate::parse;
use crate::parse::oumi::{LOG_BEGINS, log_lines, status_rows};
use crate::parse::sky::Queue;
use crate::process::find;
use crate::process::runner::{Cli, CliCall, Output, in_budget};
use crate::settings::config::expand_home;
use crate::settings::env_vars::SLURM_CONNECTIONS;
use crate::text::strip_escapes;

/// The cloud whose clusters every call of Oumi must name.
const SLURM: &str = "slurm";
/// The cloud whose clusters are names alone. Oumi 0.9 launches onto none of them (`NotImplementedError`), which a launch there tells.
const MODAL: &str = "modal";
/// The timeout of a run of `oumi launch`: it imports the training stack, which takes half a minute on an idle machine.
const TIMEOUT: Duration = Duration::from_secs(180);
/// `oumi launch logs` follows a job until it ends, and most of this goes into its start.
const LOGS_TIMEOUT: Duration = Duration::from_secs(75);
/// The timeout of a read over SSH, and the bytes that are read from the end of a log.
const TAIL_TIMEOUT: Duration = Duration::from_secs(30);
const TAIL_BYTES: usize = 4 * 1024 * 1024;
/// The lines that end the here-documents in which Oumi 0.9 sends a script.
const HEREDOC_ENDS: [&str; 2] = ["EOF", "SCRIPTFILETAG"];

/// The advice about a log on Slurm that is not there.
const NO_LOG_YET: &str = "before the job begins there is none. Slurm writes it into ~/oumi_slurm_logs there; without that folder every job fails";

#[derive(Debug)]
pub(crate) struct Oumi(pub(crate) Cli);

#[async_trait]
impl CloudBackend for Oumi {
    /// The clouds that Oumi 0.9 drives itself, besides `local`.
    fn clouds(&self) -> &'static [&'static str] {
        &["slurm", MODAL, "polaris", "frontier", "perlmutter"]
    }

    fn is_skypilot(&self) -> bool {
        false
    }

    fn find_program(&self) -> Result<PathBuf> {
        find::find_any_oumi()
    }

    fn validate_cluster(&self, cloud: &str, cluster: &str) -> Result<()> {
        let (is_valid, expected) = match cloud {
            SLURM => (
                parse::is_valid_slurm_cluster_name(cluster),
                "user@host of the Slurm login node",
            ),
            MODAL => (
                !cluster.is_empty() && is_plain(cluster, "-_.@"),
                "the cluster's name",
            ),
            _ => (
                is_plain(cluster, "-_.")
                    && !cluster.starts_with('.')
                    && user(cloud, cluster).is_some_and(|it| !it.is_empty() && !it.contains('.')),
                "queue.user, such as debug.jane, or batch.jane on frontier",
            ),
        };
        if is_valid {
            return Ok(());
        }
        Err(JobError::failed(format!(
            "`cluster_name` {cluster:?} does not fit: on {cloud} it is {expected}"
        )))
    }

    fn envs(&self, cloud: &str, cluster: &str) -> BTreeMap<String, String> {
        let connections = (SLURM_CONNECTIONS.to_owned(), cluster.to_owned());
        BTreeMap::from_iter((cloud == SLURM).then_some(connections))
    }

    async fn prepare(&self, spec: &LaunchSpec) -> Result<(String, JobConfig)> {
        let (cloud, cluster) = (spec.identity.cloud.as_str(), spec.identity.cluster.clone());
        self.validate_cluster(cloud, &cluster)?;
        let user = user(cloud, &cluster);
        // For these clouds Oumi writes the job's variables into a shell script without quoting them.
        let mut config = JobConfig::new(spec, user.is_some());
        if let Some(user) = user {
            check_texts(&config)?;
            let deletions = deletions(&config, &spec.client_cwd);
            config.warnings.extend(deletions);
            let named = config.document.insert("user".to_owned(), user.into());
            if let Some(other) = named.filter(|named| !named.is_null() && named != user) {
                config.warnings.push(format!(
                    "the config has `user: {other}`; the job is launched as {user}, the user in `cluster_name`"
                ));
            }
        }
        if spec.options.autostop_minutes.is_some() {
            let warning = format!("`autostop_minutes` has no meaning on {cloud} and is ignored");
            config.warnings.push(warning);
        }
        Ok((cluster, config))
    }

    /// Asks about each cluster in a run of its own: one that cannot be reached costs the jobs of no other.
    async fn queue(&self, cloud: &str, clusters: &BTreeSet<String>) -> Result<Queue> {
        let asked = clusters
            .iter()
            .map(async |name| (name.clone(), self.queue_of(cloud, name).await));
        merge_queues(join_all(asked).await)
    }

    async fn logs(&self, identity: &JobIdentity) -> Result<JobLog> {
        if let Some(log) = self.end_of_log(identity).await? {
            return Ok(log);
        }
        let job = ["--job-id", &identity.oumi_job_id];
        let mut call = self.call("logs", &identity.cloud, &identity.cluster, &job)?;
        call.timeout = LOGS_TIMEOUT;
        call.is_log = true;
        call.log_marker = Some(LOG_BEGINS);
        let output = in_budget(self.0.query(&call)).await;
        let output = output.map_err(JobError::failed)?;
        let problem = match output.code {
            Some(0) if !output.timed_out => None,
            _ if !output.timed_out => Some(failure_text(&output)),
            _ if output.stdout.contains(LOG_BEGINS) => None,
            _ => Some(format!("none arrived within {} s", LOGS_TIMEOUT.as_secs())),
        };
        if let Some(problem) = problem {
            let error = JobError::failed(format!("the log could not be read: {problem}"));
            return Err(error.with_hint(match identity.cloud.as_str() {
                SLURM => NO_LOG_YET,
                _ => "Oumi reads no logs on this cloud: sign in there, and read the output file of the job",
            }));
        }
        Ok(JobLog {
            log_file: log_file(identity),
            content: LogContent::Text {
                text: log_lines(&output.stdout),
                complete: !output.front_truncated,
            },
            ended: !output.timed_out,
            timed_out: output.timed_out,
        })
    }

    fn change_call(&self, change: &Change) -> Result<CliCall> {
        let job = ["--id", &change.oumi_job_id];
        self.call(&change.verb, &change.cloud, &change.cluster, &job)
    }

    fn accepts_cancel(&self, output: &Output) -> bool {
        output.code == Some(0)
    }
}

impl Oumi {
    /// Reads the end of a log on Slurm over the connection to the login node that Oumi has left open; `None` where there is none.
    /// Of the log of a job that has ended, `oumi launch logs` prints the first tenth of a megabyte.
    async fn end_of_log(&self, identity: &JobIdentity) -> Result<Option<JobLog>> {
        let Some(ssh) = which::which("ssh").ok().filter(|_| identity.cloud == SLURM) else {
            return Ok(None);
        };
        let (bytes, id) = (TAIL_BYTES.to_string(), &identity.oumi_job_id);
        let file = format!("oumi_slurm_logs/{id}.out");
        // Without a connection it fails at once, and opens none.
        let options = "-S ~/.ssh/control-%h-%p-%r -o BatchMode=yes -o ProxyCommand=false";
        let options = options.split(' ').chain([identity.cluster.as_str()]);
        let arguments = Vec::from_iter(options.chain(["tail", "-c", &bytes, &file]));
        let mut call = CliCall::new(&ssh, &arguments, TAIL_TIMEOUT);
        call.is_log = true;
        let output = in_budget(self.0.query(&call)).await;
        let output = output.map_err(JobError::failed)?;
        match output.code {
            Some(0) => {}
            None if output.timed_out => {}
            // It was killed, or failed itself.
            None | Some(255) => return Ok(None),
            Some(_) => {
                let error = format!("the log could not be read: {}", failure_text(&output));
                return Err(JobError::failed(error).with_hint(NO_LOG_YET));
            }
        }
        Ok(Some(JobLog {
            log_file: log_file(identity),
            content: content(&output),
            ended: false,
            timed_out: output.timed_out,
        }))
    }

    /// A run of `oumi launch` about a cluster, and of Slurm about no others of the server's environment: it connects to each one
    /// that is named, and fails where one cannot be reached.
    fn call(&self, verb: &str, cloud: &str, cluster: &str, job: &[&str]) -> Result<CliCall> {
        let arguments = ["launch", verb, "--cloud", cloud, "--cluster", cluster];
        let arguments = [&arguments, job].concat();
        let mut call = CliCall::new(&find::find_any_oumi()?, &arguments, TIMEOUT);
        call.envs.extend(self.envs(cloud, cluster));
        Ok(call)
    }

    async fn queue_of(&self, cloud: &str, cluster: &str) -> Result<Queue> {
        let call = self.call("status", cloud, cluster, &[])?;
        let answered = self.0.query(&call).await;
        let output = answered.map_err(JobError::unavailable)?;
        if output.code != Some(0) {
            let error = format!("`oumi launch status` failed: {}", failure_text(&output));
            return Err(JobError::failed(error).with_hint("run it in a terminal to see why"));
        }
        // It names each cluster that it asked, also one without jobs.
        if !strip_escapes(&output.stdout).contains(&format!("Cluster: {cluster}")) {
            let error = format!("`oumi launch status` said nothing of cluster {cluster}");
            return Err(JobError::failed(error).with_hint(
                "ask again in a minute; of Polaris, Perlmutter and Frontier Oumi asks only those to which an SSH connection is open",
            ));
        }
        let rows = status_rows(&output.stdout).into_iter();
        let own = rows.filter(|(name, _)| name == cluster);
        let jobs = own.map(|(_, job)| job).collect();
        Ok([(cluster.to_owned(), Ok(jobs))].into())
    }
}

/// Returns the end of a log, from its first whole line on: half a line misleads, and half a secret is not recognised as one.
fn content(output: &Output) -> LogContent {
    let complete = output.stdout.len() < TAIL_BYTES && !output.timed_out;
    let cut = output.stdout.split_once('\n').filter(|_| !complete);
    let text = cut.map_or(output.stdout.as_str(), |(_, rest)| rest);
    LogContent::Text {
        text: text.to_owned(),
        complete,
    }
}

/// Refuses what a shell reads as something else: Oumi 0.9 gives it words without quoting them, and all that it sends there in
/// here-documents. What follows a line that ends one would run at once, on this machine or on the login node.
fn check_texts(config: &JobConfig) -> Result<()> {
    let text = |key: &str| config.document.get(key).and_then(Value::as_str);
    let map = |key: &str| config.document.get(key).and_then(Value::as_object);
    let mounts = map("file_mounts").into_iter().flatten();
    let mounts = mounts.flat_map(|(to, from)| [Some(to.as_str()), from.as_str()]);
    let resources = map("resources").into_iter().flatten();
    let words = mounts.chain(resources.map(|(_, value)| value.as_str()));
    let mut words = words.chain(["working_dir", "name"].map(text)).flatten();
    let is_plain =
        |c: char| c.is_ascii_alphanumeric() || !c.is_ascii() || "/._-~+@,:=%".contains(c);
    let is_safe = |word: &&str| !word.starts_with('-') && word.chars().all(is_plain);
    if let Some(word) = words.find(|word| !is_safe(word)) {
        return Err(
            JobError::invalid(format!("Oumi would give {word:?} to a shell as it is"))
                .with_hint("choose a path, or a job_name, of letters, digits and `/._-~+@,:=%`"),
        );
    }
    let envs = map("envs").into_iter().flatten();
    let texts = envs.map(|(_, value)| value.as_str());
    let texts = texts.chain(["setup", "run"].map(text)).flatten();
    match texts.flat_map(str::lines).find(|line| HEREDOC_ENDS.contains(line)) {
        None => Ok(()),
        Some(line) => Err(JobError::invalid(format!(
            "Oumi would run what follows the line {line:?} of a script or of a value of `envs` outside the job"
        ))
        .with_hint("end that here-document with another word")),
    }
}

/// Warns of the folders that are mirrored on the login node.
fn deletions(config: &JobConfig, project: &Path) -> Vec<String> {
    let mirrored = |(to, from): (&String, &Value)| {
        let from = from.as_str()?;
        let source = project.join(expand_home(from));
        // As rsync does, which copies the folder itself unless its path ends in a slash, or in a dot.
        let is_itself = !from.ends_with('/') && !format!("/{from}").ends_with("/.");
        let name = source.file_name().filter(|_| is_itself);
        let target = name.map_or_else(|| to.into(), |name| Path::new(to).join(name));
        source.is_dir().then(|| {
            let target = target.display();
            format!("what is in {target} there and not in {from} here is deleted there: Oumi copies folders by `rsync --delete`")
        })
    };
    let mounts = config
        .document
        .get("file_mounts")
        .and_then(Value::as_object);
    mounts.into_iter().flatten().filter_map(mirrored).collect()
}

fn user<'c>(cloud: &str, cluster: &'c str) -> Option<&'c str> {
    match cloud {
        SLURM => cluster.split_once('@').map(|(user, _)| user),
        MODAL => None,
        // Elsewhere a cluster is a queue and a user, `debug.jane`.
        _ => cluster.split_once('.').map(|(_, user)| user),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_that_a_shell_changes_are_refused() {
        let check = |key: &str, value: Value| {
            let document = json!({ "working_dir": "/a", "name": "a", key: value });
            check_texts(&JobConfig {
                document: document.as_object().unwrap().clone(),
                warnings: Vec::new(),
            })
        };
        for path in [
            "/my data", "/a;b", "$(id)", "-e/tmp", "`id`", "~/*", "a\nb", "'",
        ] {
            assert!(
                check("file_mounts", json!({ "~/x": path })).is_err(),
                "{path}"
            );
        }
        // Decomposed, as macOS writes names.
        for path in ["~/data-1.5/x_y+z@2,a=b%", "/Jose\u{301}/日本（二）"] {
            assert!(
                check("file_mounts", json!({ "~/x": path })).is_ok(),
                "{path}"
            );
        }
        assert!(check("name", json!("my job")).is_err());
        assert!(check("resources", json!({ "accelerators": "A100:8 --wrap=x" })).is_err());
        assert!(check("resources", json!({ "cloud": "slurm", "cpus": "4+" })).is_ok());
        for (key, refused, taken) in [
            (
                "run",
                "cat <<EOF > a\nx\nEOF\nrm -r b",
                "cat <<'END'\nEOF \nEND",
            ),
            ("setup", "a\nSCRIPTFILETAG\nb", "echo EOF"),
        ] {
            assert!(check(key, json!(refused)).is_err(), "{refused}");
            assert!(check(key, json!(taken)).is_ok(), "{taken}");
            assert!(check("envs", json!({ "A": refused })).is_err(), "{refused}");
        }
    }

    #[test]
    fn half_a_line_is_not_shown() {
        for (timed_out, size, expected) in [
            (false, 0, "half\nwhole\n"),
            (true, 0, "whole\n"),
            (false, TAIL_BYTES, "whole\n"),
        ] {
            let output = Output {
                stdout: "x".repeat(size) + "half\nwhole\n",
                timed_out,
                ..Output::default()
            };
            let LogContent::Text { text, complete } = content(&output) else {
                panic!("no text");
            };
            assert_eq!((&*text, complete), (expected, expected.starts_with("half")));
        }
    }

    #[test]
    fn what_rsync_deletes_is_warned_of() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("data")).unwrap();
        std::fs::write(home.path().join("file"), "").unwrap();
        let of = |to: &str, from: &str| {
            let document = json!({ "file_mounts": { to: from } });
            let config = JobConfig {
                document: document.as_object().unwrap().clone(),
                warnings: Vec::new(),
            };
            deletions(&config, home.path()).concat()
        };
        assert!(of("~", "data/").contains("in ~ there and not in data/ here"));
        assert!(of("~", ".").contains("in ~ there and not in . here"));
        assert!(of("~/x", "data").contains("in ~/x/data there and not in data here"));
        assert_eq!(of("~/x", "file") + &of("~/x", "none"), "");
    }
}
