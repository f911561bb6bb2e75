//! The clouds that Oumi reaches through SkyPilot: launched by `oumi launch up`, queried and changed through `sky`, or through
//! SkyPilot's API server where it is up on this machine.

mod api;
mod endpoint;
mod request;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::cloud::{Change, CloudBackend, failure_text, log_file, merge_queues, no_such_job};
use super::job_yaml::{self, JobConfig};
use super::{JobIdentity, JobLog, LaunchSpec, LogContent};
use crate::error::{JobError, Result};
use crate::parse;
use crate::parse::prices::{self, CatalogMachine, CostReport};
use crate::parse::sky::{self, Cluster, Queue};
use crate::process::find;
use crate::process::runner::{Cli, CliCall, Output, in_budget, until};
use crate::text::strip_escapes;
use api::Api;
pub use api::change;
use request::Request;

/// The timeout of a run of `sky`: the first one starts SkyPilot's API server.
const TIMEOUT: Duration = Duration::from_secs(120);
const LOGS_TIMEOUT: Duration = Duration::from_secs(30);
/// The time that an answer waits for costs, which it can do without.
const COSTS_WAIT: Duration = Duration::from_secs(5);
const TEARDOWN_TIMEOUT: Duration = Duration::from_secs(900);
/// The number of lines of a log that are fetched for every call, so that equal calls share one run, and a cursor finds its
/// place again. SkyPilot counts each state of a progress bar as a line.
const LOG_LINES: &str = "10000";
/// The age of the oldest clusters in a report of costs, in days: SkyPilot's own default.
const COST_DAYS: &str = "30";
/// The limit of clusters whose queues are asked for at once.
const MAX_QUEUES: usize = 16;

pub(crate) struct SkyPilot {
    cli: Cli,
    api: Api,
}

impl SkyPilot {
    pub(crate) fn new(cli: Cli) -> Self {
        let api = Api::default();
        Self { cli, api }
    }
}

#[async_trait]
impl CloudBackend for SkyPilot {
    /// The clouds that Oumi 0.9 reaches through SkyPilot, by Oumi's names.
    fn clouds(&self) -> &'static [&'static str] {
        &[
            "aws",
            "azure",
            "gcp",
            "k8s",
            "lambda",
            "nebius",
            "runpod",
            "sky-slurm",
        ]
    }

    fn is_skypilot(&self) -> bool {
        true
    }

    fn find_program(&self) -> Result<PathBuf> {
        find::find_sky()
    }

    fn place(&self) -> String {
        endpoint::place()
    }

    fn user(&self) -> Option<String> {
        endpoint::user_id()
    }

    fn validate_cluster(&self, _cloud: &str, cluster: &str) -> Result<()> {
        if parse::is_valid_cluster_name(cluster) {
            return Ok(());
        }
        let error = JobError::failed(format!(
            "`cluster_name` {cluster:?} is not a name that SkyPilot accepts: a letter, then letters, digits, `-`, `_` and \
             `.`, and a letter or digit at the end"
        ));
        Err(error.with_hint("call list_jobs for the clusters that exist"))
    }

    async fn prepare(&self, spec: &LaunchSpec) -> Result<(String, JobConfig)> {
        // What follows a launch needs it.
        find::find_sky()?;
        let cloud = &spec.identity.cloud;
        if !self.clouds().contains(&cloud.as_str()) {
            let error = JobError::invalid(format!("Oumi launches nothing on {cloud}"));
            return Err(error.with_hint(format!("use one of: {}", self.clouds().join(", "))));
        }
        let named = &spec.identity.cluster;
        let cluster = if named.is_empty() {
            in_budget(self.new_cluster_name(&spec.identity.job_id)).await
        } else {
            self.validate_cluster(&spec.identity.cloud, named)?;
            named.clone()
        };
        let mut config = JobConfig::new(spec, false);
        config.warnings.extend(endpoint::warnings(&spec.client_cwd));
        if !config.names_accelerators() {
            let warning = "this asks for a machine without a GPU; for one with GPUs pass `accelerators`, such as A100:1";
            config.warnings.push(warning.to_owned());
        }
        if !named.is_empty() {
            let is_mounted = !spec.config.is_job && !spec.config.path.starts_with(&spec.client_cwd);
            let no_config = match is_mounted {
                true => ": the config, which is outside the project folder, is not there",
                false => "",
            };
            config.warnings.push(format!(
                "if cluster {named} is up already and yours, the job is added to it and SkyPilot skips its `setup`, `file_mounts` and \
                 `storage_mounts`{no_config}"
            ));
        }
        Ok((cluster, config))
    }

    /// Asks the API server about each cluster at once. The program, which lists them all in one run, is asked where there is none,
    /// and about the clusters of which it gave no answer. All users' jobs count, since each of them ends with its cluster; the program
    /// is asked for them where a server may be named. Without names of clusters those would be the jobs of all users' clusters.
    async fn queue(&self, _cloud: &str, clusters: &BTreeSet<String>) -> Result<Queue> {
        let (mut names, users) = (clusters.clone(), endpoint::may_be_shared().then_some("-u"));
        let is_up = self.api.server().await.is_some();
        if names.is_empty() && (is_up || users.is_some()) {
            match self.clusters(None).await {
                Ok(own) => names.extend(own.into_iter().map(|cluster| cluster.name)),
                // One's own jobs: nothing is said of clusters that are not known.
                Err(_) => return self.run_queue(&names, None).await,
            }
            if names.is_empty() {
                return Ok(Queue::new());
            }
        }
        if !is_up {
            return self.run_queue(&names, users).await;
        }
        let asked = stream::iter(names).map(async |name: String| {
            let call = queue_call([&name], Some("-u"));
            let asking = async { self.ask_server(&call?, read_queue).await };
            (name, asking.await)
        });
        let asked: Vec<_> = asked.buffer_unordered(MAX_QUEUES).collect().await;
        let (mut answers, mut unanswered) = (Vec::new(), BTreeSet::new());
        for (name, answer) in asked {
            match answer.transpose() {
                Some(answer) => answers.push((name, answer)),
                None => drop(unanswered.insert(name)),
            }
        }
        if !unanswered.is_empty() {
            let answer = self.run_queue(&unanswered, users).await;
            answers.extend(unanswered.into_iter().map(|name| (name, answer.clone())));
        }
        merge_queues(answers)
    }

    async fn clusters(&self, name: Option<&str>) -> Result<Vec<Cluster>> {
        let arguments = ["status"].into_iter().chain(name).chain(["-o", "json"]);
        let call = call(&arguments.collect::<Vec<_>>(), TIMEOUT)?;
        let read = |output: &Output| answer("sky status", output, sky::clusters);
        self.ask(call, read).await
    }

    async fn catalog(
        &self,
        cloud: &str,
        accelerators: &str,
        all_regions: bool,
    ) -> Result<Vec<CatalogMachine>> {
        let mut arguments = vec!["gpus", "list", accelerators, "--infra", cloud, "-o", "json"];
        arguments.extend(all_regions.then_some("--all-regions"));
        let (name, _) = accelerators.split_once(':').unwrap_or((accelerators, ""));
        let read = |output: &Output| {
            let mut output = output.clone();
            if !output.stdout.trim().is_empty() {
                // There a failure is a sentence, and here the error of a library.
                output.stderr.clear();
            }
            answer("sky gpus list", &output, |text| {
                prices::machines(text, name)
            })
        };
        self.ask(call(&arguments, TIMEOUT)?, read).await
    }

    /// Asks the API server: `sky cost-report` prints a table, in which clusters of one name cannot be told apart.
    async fn costs(&self) -> CostReport {
        let asking = async {
            let call = call(&["cost-report", "--days", COST_DAYS], TIMEOUT)?;
            let read = |output: &Output| Ok(prices::report(&output.stdout));
            self.ask_server(&call, read).await
        };
        let costs = until(Instant::now() + COSTS_WAIT, asking).await;
        costs.ok().flatten().unwrap_or_default()
    }

    async fn logs(&self, identity: &JobIdentity) -> Result<JobLog> {
        let (cluster, id) = (&identity.cluster, &identity.oumi_job_id);
        let arguments = ["logs", cluster, id, "--no-follow", "--tail", LOG_LINES];
        let mut call = call(&arguments, LOGS_TIMEOUT)?;
        call.is_log = true;
        let deadline = Instant::now() + LOGS_TIMEOUT + Duration::from_secs(5);
        let asking = self.ask(call, |output| Ok(read_log(identity, output)));
        until(deadline, asking).await.map_err(JobError::failed)?
    }

    fn change_call(&self, change: &Change) -> Result<CliCall> {
        let mut arguments = vec![change.verb.as_str(), "-y", &change.cluster];
        let timeout = match change.oumi_job_id.as_str() {
            "" => TEARDOWN_TIMEOUT,
            id => {
                arguments.push(id);
                TIMEOUT
            }
        };
        call(&arguments, timeout)
    }

    /// The exit code is 0 in any case.
    fn accepts_cancel(&self, output: &Output) -> bool {
        sky::accepted_cancel(&output.stdout)
    }

    async fn teardown_result(&self, change: &Change, output: &Output) -> Result<String> {
        let (verb, cluster) = (change.verb.as_str(), &change.cluster);
        let refused = sky::refused_teardown(cluster, &output.stdout);
        if let Some(error) = refused.as_ref().filter(|error| error.is_not_found()) {
            return Err(error.clone());
        }
        let ended = output.code.map_or("was cut off and may go on", |_| "ended");
        let reason = match sky::is_teardown_done(&strip_escapes(&output.stdout)) {
            true => "done".to_owned(),
            false => failure_text(output),
        };
        // The status afterwards counts.
        let clusters = self.clusters(Some(cluster)).await.map_err(|error| {
            error.context(&format!(
                "`sky {verb}` {ended} with {reason:?}, and what became of cluster {cluster} is not known"
            ))
        })?;
        let after = sky::named(&clusters, cluster);
        match (verb, after.map(|cluster| cluster.status.as_str())) {
            ("down", None) => Ok(format!("cluster {cluster} was deleted")),
            (_, None) => Ok(format!("cluster {cluster} is gone")),
            ("stop", Some("STOPPED")) => Ok(format!(
                "cluster {cluster} was stopped; its disks are kept and billed"
            )),
            (_, Some(_)) if let Some(error) = refused => Err(error),
            (_, Some(status)) => Err(JobError::failed(format!(
                "`sky {verb}` {ended} and cluster {cluster} is {status}: {reason}"
            ))
            .with_hint("see list_jobs, and try again")),
        }
    }
}

/// Tells if SkyPilot's API server is asked where it is up. Does file work.
pub(crate) fn asks_api_server() -> bool {
    endpoint::Endpoint::find().is_some()
}

impl SkyPilot {
    /// Has the API server answer `call`. `None` where the program must be run: the server cannot be asked, or its answer cannot be
    /// used.
    async fn ask_server<T>(
        &self,
        call: &CliCall,
        read: impl Fn(&Output) -> Result<T>,
    ) -> Result<Option<T>> {
        let (Some(request), Some(server)) = (Request::of(&call.arguments), self.api.server().await)
        else {
            return Ok(None);
        };
        let mut asked = call.clone();
        asked.over_http = true;
        let answer = Box::pin(server.answer(asked.clone(), request));
        let output = self.cli.share(&asked, Some(answer)).await?;
        if output.code.is_none() && !output.timed_out {
            self.api.forget().await;
            return Ok(None);
        }
        match read(&output) {
            Err(_) if output.code == Some(0) => {
                api::log_unusable(call, &"its answer could not be read");
                Ok(None)
            }
            answer => answer.map(Some),
        }
    }

    async fn ask<T>(&self, call: CliCall, read: impl Fn(&Output) -> Result<T>) -> Result<T> {
        match self.ask_server(&call, &read).await? {
            Some(answer) => Ok(answer),
            None => read(&*self.cli.query(&call).await?),
        }
    }

    /// Makes a name for a new cluster of a job's id that no cluster has, whoever's. Where the id is no such name as it stands, some
    /// digits of its digest follow, so that two jobs never share a name; also where the clusters are not known.
    async fn new_cluster_name(&self, job_id: &str) -> String {
        let plain = job_yaml::plain_name(job_id)
            .to_ascii_lowercase()
            .replace(['_', '.'], "-");
        let is_name = plain.starts_with(|first: char| first.is_ascii_alphabetic());
        let own = (plain == job_id && is_name).then(|| plain.clone());
        let prefix = if is_name { "" } else { "oumi-" };
        let with_digits = (0..).map(|number| {
            let digest = Sha256::digest(format!("{job_id}{}", "+".repeat(number)));
            let digits = digest.iter().take(3).map(|byte| format!("{byte:02x}"));
            format!("{prefix}{plain}-{}", digits.collect::<String>())
        });
        for name in own.into_iter().chain(with_digits) {
            match self.clusters(Some(&name)).await {
                Ok(taken) if sky::named(&taken, &name).is_some() => {}
                Err(_) if name == plain => {}
                _ => return name,
            }
        }
        plain
    }

    async fn run_queue(&self, clusters: &BTreeSet<String>, users: Option<&str>) -> Result<Queue> {
        read_queue(&*self.cli.query(&queue_call(clusters, users)?).await?)
    }
}

/// `users` is the option for the jobs of all users.
fn queue_call<'c>(
    clusters: impl IntoIterator<Item = &'c String>,
    users: Option<&'c str>,
) -> Result<CliCall> {
    let mut arguments = vec!["queue"];
    arguments.extend(clusters.into_iter().map(String::as_str));
    arguments.extend(users);
    arguments.extend(["-o", "json"]);
    call(&arguments, TIMEOUT)
}

fn read_queue(output: &Output) -> Result<Queue> {
    answer("sky queue", output, sky::queue)
}

fn read_log(identity: &JobIdentity, output: &Output) -> Result<JobLog> {
    match output.code {
        // The job runs or succeeded, failed, has not finished, was cancelled.
        Some(0 | 100 | 101 | 103) => {}
        Some(102) => return Err(no_such_job(identity)),
        _ if output.timed_out => {}
        _ => return Err(JobError::unavailable(failure_text(output))),
    }
    let is_all = output.stdout.matches('\n').count() < LOG_LINES.parse().unwrap_or(0);
    Ok(JobLog {
        log_file: log_file(identity),
        content: LogContent::Text {
            text: sky::log_lines(&output.stdout),
            complete: is_all && !output.front_truncated && !output.timed_out,
        },
        // SkyPilot itself ends the last line of a job that has ended.
        ended: false,
        timed_out: output.timed_out,
    })
}

fn call(arguments: &[&str], timeout: Duration) -> Result<CliCall> {
    Ok(CliCall::new(&find::find_sky()?, arguments, timeout))
}

fn answer<T>(command: &str, output: &Output, read: impl Fn(&str) -> Result<T>) -> Result<T> {
    let problem = match read(&output.stdout) {
        Ok(answer) if output.code == Some(0) => return Ok(answer),
        Err(error) if output.code.is_none_or(|code| code == 0) => error.message,
        // The last line is of the answer, and no reason.
        Ok(_) if output.stderr.is_empty() && parse::failure_reason(&output.stdout).is_none() => {
            "failed, and printed no reason".to_owned()
        }
        _ => format!("failed: {}", failure_text(output).trim_end_matches('.')),
    };
    let printed = format!("{}\n{}", output.stdout, output.stderr);
    let otherwise = || format!("run `{command}` in a terminal to see why");
    let hint = sky::remedy(&printed).map_or_else(otherwise, ToOwned::to_owned);
    Err(JobError::failed(format!("`{command}` {problem}")).with_hint(hint))
}
