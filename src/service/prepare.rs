//! Preparation of a launch: what is checked before anything starts, also its collisions with other jobs.

use std::path::{Path, PathBuf};

use chrono::Utc;
use serde_json::Value;

use super::costs::Costs;
use super::observe::{is_whole, newest_checkpoint};
use super::requests::RunRequest;
use super::{Context, JobService, setting_problems};
use crate::error::{JobError, Result};
use crate::launcher::{ClusterInfo, JobIdentity, JobState, LaunchPlan, LaunchSpec};
use crate::redact::{self, Redactor, is_secret_name};
use crate::registry::{JobRecord, duplicate};
use crate::settings::config::{Config, OumiCommand, project_folder};
use crate::settings::data_dir::real_path;
use crate::text::{compact, join_names, one_line, shorten};

/// The longest time limit: a year.
const MAX_HOURS: f64 = 8784.0;
/// The longest job id, in bytes: it names a folder.
const MAX_JOB_ID_BYTES: usize = 128;
/// The longest `NAME=value` that Linux gives a program, in bytes with the NUL behind it: MAX_ARG_STRLEN.
const MAX_ENV_BYTES: usize = 128 * 1024;
pub(super) const ANOTHER_DRY_RUN: &str =
    "call run_job with dry_run=true again and show that to the user";

pub(super) struct PreparedLaunch {
    pub(super) spec: LaunchSpec,
    pub(super) plan: LaunchPlan,
    pub(super) is_local: bool,
    /// The cluster that the call names, where it is there.
    pub(super) cluster: Option<ClusterInfo>,
    /// Those that the user was shown, until they are asked for; `None` where nothing is billed.
    pub(super) costs: Option<Costs>,
    /// The id was made just now, so no process of an earlier job can have it.
    pub(super) has_new_id: bool,
}

impl PreparedLaunch {
    /// Returns what hides all values of the call's `envs`, and those of the config and this process that are named as secrets.
    pub(super) fn redactor(&self) -> Redactor {
        let config = self.spec.config.document.get("envs");
        let named = config.and_then(Value::as_object).into_iter().flatten();
        let named = named.filter(|(name, _)| is_secret_name(name));
        let named = named.filter_map(|(_, value)| value.as_str());
        let values = self.spec.options.envs.iter();
        let values = values.map(|(name, value)| redact::secret_part(name, value));
        redactor_of(values.chain(named))
    }

    /// Tells if another job writes to the output folder of this one, perhaps by another path.
    fn shares_output(&self, record: &JobRecord) -> bool {
        let [ours, theirs] = [&self.spec.config.output_dir, &record.output_dir].map(Path::new);
        let is_one = ours == theirs
            || self.is_local && theirs.is_absolute() && real_path(ours) == real_path(theirs);
        is_one && !self.spec.config.output_dir.is_empty()
    }
}

/// Returns what hides these values, and the secrets that the job inherits from this process.
pub(super) fn redactor_of<'a>(values: impl Iterator<Item = &'a str>) -> Redactor {
    let inherited: Vec<String> = redact::env_secrets().collect();
    let values: Vec<&str> = values.collect();
    let inherited = inherited.iter().map(String::as_str);
    Redactor::new(values.into_iter().chain(inherited))
}

impl JobService {
    /// Prepares a launch and checks it against its plan, other jobs and the policy. Starts and writes nothing.
    pub(super) async fn prepare(
        &self,
        request: &RunRequest,
        plan_id: &str,
    ) -> Result<PreparedLaunch> {
        let context = &self.context;
        let planned = (!plan_id.is_empty()).then(|| context.plans.get(plan_id));
        let planned = planned.transpose()?;
        let name = request.job_name.as_deref().filter(|name| !name.is_empty());
        let name = name.map(job_id_from_name).transpose()?;
        let job_id = planned.as_ref().map(|plan| plan.job_id.clone());
        let mut launch = plan(context, request, job_id.or_else(|| name.clone())).await?;
        if let Some(planned) = planned {
            context.plans.check(&planned, &launch)?;
            launch.costs = planned.costs.clone();
        }
        context.data_dir.check()?;
        // A name that is added after the dry run does not make it another plan.
        let wanted = name.unwrap_or_else(|| launch.spec.identity.job_id.clone());
        let records = context.registry.records().await?;
        let job_id = free_job_id(context, &records, &wanted).await?;
        let launcher = context.allowed_launcher(&launch.spec.identity.cloud)?;
        if launch.spec.identity.job_id != job_id {
            launch.spec.identity.job_id = job_id.clone();
            launch.has_new_id = false;
            launch.plan = launcher.plan(&launch.spec).await?;
        }
        let surprises = launch.spec.config.surprises(launch.spec.command);
        launch.plan.warnings.extend(surprises);
        launch.plan.warnings.extend(setting_problems());
        if job_id != wanted {
            let note = format!("an earlier job has the name {wanted}: this one is {job_id}");
            launch.plan.warnings.push(note);
        }
        check_collisions(context, &records, &mut launch, request.allow_shared_output).await?;
        let JobIdentity { cloud, cluster, .. } = &launch.spec.identity;
        launch.cluster = self.cluster_info(cloud, cluster).await?;
        if launch.cluster.as_ref().is_some_and(|it| it.cloud.is_none()) {
            launch.plan.warnings.push(format!(
                "it is not known whether cluster {cluster} is on another cloud than {cloud}"
            ));
        }
        Ok(launch)
    }

    /// Asks what a launch costs, and refuses one above the limit, or above its plan's price: the cluster may be another by now.
    pub(super) async fn price(&self, launch: &mut PreparedLaunch) -> Result<()> {
        if launch.is_local {
            return Ok(());
        }
        let context = &self.context;
        let records = context.registry.records().await?;
        let planned = launch.costs.take();
        let planned = planned.and_then(|costs| costs.offer.highest());
        let cloud = &launch.spec.identity.cloud;
        let existing = launch.cluster.as_ref();
        launch.costs = Costs::of(context, cloud, &launch.plan, existing, &records).await;
        if let Some(costs) = &launch.costs {
            if let Some((planned, now)) = planned.zip(costs.offer.highest())
                && now > planned + 0.005
            {
                let error = format!(
                    "it would now cost ${now:.2} an hour, not the ${planned:.2} of its plan"
                );
                return Err(JobError::blocked(error).with_hint(ANOTHER_DRY_RUN));
            }
            let cluster = &launch.plan.cluster;
            let doubt = costs.check_limit(context, cluster, &records, self.can_ask())?;
            launch.plan.warnings.extend(doubt);
        }
        Ok(())
    }
}

/// Checks a request and its config, and has the launcher plan it, under `job_id` or a new id.
async fn plan(
    context: &Context,
    request: &RunRequest,
    job_id: Option<String>,
) -> Result<PreparedLaunch> {
    let client_cwd = project_folder(&request.client_cwd, &request.config_path)?;
    let mut config = Config::read(&request.config_path, &client_cwd)?;
    let command = OumiCommand::parse(&request.command)?;
    let options = &request.options;
    check_envs((options.envs.iter()).map(|(name, value)| (name, value.as_str())))?;
    if let Some(hours) = options.max_hours
        && !(f64::MIN_POSITIVE..=MAX_HOURS).contains(&hours)
    {
        return Err(JobError::invalid(format!(
            "`max_hours` must be more than 0 and at most {MAX_HOURS}, not {hours}"
        )));
    }
    if config.is_job {
        check_job_config(&config)?;
    }
    let cloud = cloud_of(context, request, &config)?;
    let launcher = context.allowed_launcher(&cloud)?;
    let is_local = launcher.is_local();
    if is_local && !config.output_dir.is_empty() {
        let output_dir = client_cwd.join(&config.output_dir);
        // Without the "." of "./out".
        let output_dir: PathBuf = output_dir.components().collect();
        config.output_dir = output_dir.display().to_string();
    }
    let has_new_id = job_id.is_none();
    let spec = LaunchSpec {
        identity: JobIdentity {
            job_id: job_id.unwrap_or_else(|| new_job_id(command)),
            cloud,
            cluster: request.cluster_name.trim().to_owned(),
            oumi_job_id: String::new(),
        },
        command,
        config,
        client_cwd,
        options: request.options.clone(),
    };
    Ok(PreparedLaunch {
        plan: launcher.plan(&spec).await?,
        spec,
        is_local,
        cluster: None,
        costs: None,
        has_new_id,
    })
}

/// Returns the cloud that a call names, else this machine, unless the config asks for a cloud: then the user must say which.
fn cloud_of(context: &Context, request: &RunRequest, config: &Config) -> Result<String> {
    let cloud = context.cloud_of_call(&request.cloud);
    if !cloud.is_empty() {
        return Ok(cloud);
    }
    let here = context.local_launcher();
    let here = here.and_then(|launcher| launcher.clouds().first());
    let here = *here.ok_or_else(|| JobError::invalid("`cloud` is missing"))?;
    match config.cloud().filter(|asked| asked != here) {
        None => Ok(here.to_owned()),
        Some(asked) => Err(JobError::invalid(format!(
            "the config asks for cloud `{asked}`, and the call names no cloud"
        ))
        .with_hint(format!(
            "ask the user, and pass cloud={asked:?}, or cloud={here:?} to run it on this machine"
        ))),
    }
}

fn new_job_id(command: OumiCommand) -> String {
    let now = compact(Utc::now()).replace('T', "_");
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{}_{now}_{}", command.name, &random[..6])
}

fn job_id_from_name(name: &str) -> Result<String> {
    let cleaned = name.replace("..", "_").replace(['/', '\\'], "_");
    let job_id = cleaned.trim_matches(['.', '_', '-', ' ']);
    let is_short = (1..=MAX_JOB_ID_BYTES).contains(&job_id.len());
    if is_short && one_line(job_id) == job_id {
        return Ok(job_id.to_owned());
    }
    let name = shorten(name, MAX_JOB_ID_BYTES);
    let error = JobError::invalid(format!("`job_name` {name:?} cannot be the id of a job"));
    Err(error.with_hint(format!(
        "use letters and digits, {MAX_JOB_ID_BYTES} bytes at most"
    )))
}

/// Refuses what would be passed over here, and fail on a cloud.
fn check_job_config(config: &Config) -> Result<()> {
    for name in ["setup", "run"] {
        let script = config.document.get(name);
        if script.is_some_and(|script| !script.is_null() && !script.is_string()) {
            let error = JobError::invalid(format!("`{name}` of the job config is not text"));
            return Err(error.with_hint("make it a script"));
        }
    }
    let text = |(name, value)| (name, Value::as_str(value).unwrap_or_default());
    match config.document.get("envs") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Object(envs)) => check_envs(envs.iter().map(text)),
        Some(_) => Err(
            JobError::invalid("`envs` of the config does not map names to values")
                .with_hint("write it as `NAME: value`"),
        ),
    }
}

/// Checks variables. An error shows their names only: the values are secret.
fn check_envs<'a>(envs: impl Iterator<Item = (&'a String, &'a str)>) -> Result<()> {
    let is_word = |other: char| other.is_ascii_alphanumeric() || other == '_';
    for (name, value) in envs {
        let starts_well = name.starts_with(|first: char| is_word(first) && !first.is_ascii_digit());
        let (problem, hint) = if !starts_well || !name.chars().all(is_word) {
            let problem = format!("the name {name:?}, which no environment variable can have");
            (problem, "use letters, digits and `_`")
        } else if value.contains('\0') {
            let problem = format!("a NUL character in the value of {name}");
            (problem, "remove it")
        } else if name.len() + value.len() + 2 > MAX_ENV_BYTES {
            let problem = format!("over {MAX_ENV_BYTES} bytes in {name}, too many for a program");
            (problem, "put it into a file that the job reads")
        } else {
            continue;
        };
        return Err(JobError::invalid(format!("`envs` has {problem}")).with_hint(hint));
    }
    Ok(())
}

/// Returns `wanted`, or `wanted-2` and so on where earlier jobs have it. Fails unless the last of them is known to be over.
async fn free_job_id(context: &Context, records: &[JobRecord], wanted: &str) -> Result<String> {
    let (mut job_id, mut owner) = (wanted.to_owned(), None);
    for number in 2.. {
        let Some(record) = records.iter().find(|record| record.is_named(&job_id)) else {
            break;
        };
        owner = Some(record);
        job_id = format!("{wanted}-{number}");
    }
    if let Some(record) = owner
        && (context.in_flight.contains(&record.job_id) || !context.is_over(record).await)
    {
        return Err(duplicate(&record.job_id));
    }
    Ok(job_id)
}

/// Refuses a launch into the output folder of a running job, unless that is allowed. Warns of checkpoints and of other jobs here.
async fn check_collisions(
    context: &Context,
    records: &[JobRecord],
    launch: &mut PreparedLaunch,
    allow_shared_output: bool,
) -> Result<()> {
    let running = neighbours(context, records, launch).await?;
    let mut warnings = Vec::new();
    let output_dir = Path::new(&launch.spec.config.output_dir);
    if let Some(writer) = running.iter().find(|record| launch.shares_output(record)) {
        let error = format!(
            "job {} writes to the same output folder now, {}",
            writer.job_id,
            output_dir.display()
        );
        if !allow_shared_output {
            return Err(JobError::blocked(error).with_hint(
                "give the config another output folder, wait for that job to end, or pass allow_shared_output=true",
            ));
        }
        warnings.push(error);
    } else if launch.is_local
        && let Some(checkpoint) = newest_checkpoint(output_dir, |_| true)
    {
        let training = launch.spec.config.document.get("training");
        let resumes = training.is_some_and(|it| it["try_resume_from_last_checkpoint"] == true);
        let what = match resumes {
            // Transformers would take it all the same.
            _ if !is_whole(&output_dir.join(&checkpoint)) => {
                "it was not written whole: delete it before you resume"
            }
            true => "this job resumes from it",
            false => {
                "this job may write over it; training.try_resume_from_last_checkpoint resumes it"
            }
        };
        warnings.push(format!(
            "the output folder holds {checkpoint} of an earlier run, and {what}"
        ));
    }
    if launch.is_local && !running.is_empty() {
        let names = join_names(running.iter().map(|job| job.job_id.as_str()));
        warnings.push(format!(
            "other jobs already use the GPUs and memory of this machine: {} ({names})",
            running.len()
        ));
    }
    launch.plan.warnings.extend(warnings);
    Ok(())
}

/// Returns the jobs that are not over and run on this machine too, or on the cluster of the launch with the same output folder.
async fn neighbours<'a>(
    context: &Context,
    records: &'a [JobRecord],
    launch: &PreparedLaunch,
) -> Result<Vec<&'a JobRecord>> {
    let (cloud, cluster) = (&launch.spec.identity.cloud, &launch.plan.cluster);
    let mut near = Vec::from_iter(records.iter().filter(|record| record.cloud == *cloud));
    near.retain(|record| {
        launch.is_local || (record.cluster_name == *cluster && launch.shares_output(record))
    });
    if near.is_empty() {
        return Ok(near);
    }
    let known: Vec<JobIdentity> = near.iter().map(|record| record.identity()).collect();
    let listing = context.allowed_launcher(cloud)?.statuses(&known).await?;
    near.retain(|record| {
        let mut jobs = listing.jobs.iter();
        let job = jobs.find(|job| job.identity.job_id == record.job_id);
        // The state of a job on another machine that shares the data folder is not known here.
        let is_here = |state| state == JobState::Running || launch.shares_output(record);
        job.is_some_and(|job| !job.status.is_done && is_here(job.status.state))
    });
    Ok(near)
}

#[cfg(test)]
mod tests {
    use super::job_id_from_name;

    #[test]
    fn job_name_becomes_an_id_that_reads_as_it_stands() {
        assert_eq!(job_id_from_name(" ../a/b. ").unwrap(), "a_b");
        let long = "a".repeat(129);
        for name in ["", " ..", "a\nb", "a\u{202e}b", "a\u{2028}b", &long] {
            assert!(job_id_from_name(name).is_err(), "{name:?}");
        }
    }
}
