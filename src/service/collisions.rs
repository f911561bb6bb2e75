//! Collisions of a launch with other jobs, found before anything starts: its id, its output folder, this machine.

use std::path::{Path, PathBuf};

use super::context::Context;
use super::output_dir::newest_checkpoint;
use super::prepare::PreparedLaunch;
use crate::error::{JobError, Result};
use crate::launcher::{JobIdentity, JobState};
use crate::registry::{JobRecord, duplicate};
use crate::text::shorten;

/// The bytes of a warning that name running jobs.
const MAX_NAMES: usize = 200;

/// Returns the id for a job that is to be named `wanted`: where jobs that are over have it, `wanted-2` or a later one. Fails
/// while the newest of them is not known to be over.
pub(super) async fn free_job_id(
    context: &Context,
    records: &[JobRecord],
    wanted: &str,
) -> Result<String> {
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

/// Fails where a job that runs writes to the output folder of the launch and that is not allowed. Warns of what the launch shares
/// with other jobs, and of checkpoints that it may write over.
pub(super) async fn check(
    context: &Context,
    records: &[JobRecord],
    launch: &mut PreparedLaunch,
    allow_shared_output: bool,
) -> Result<()> {
    let running = neighbours(context, records, launch).await?;
    let mut warnings = Vec::new();
    if let Some(writer) = running.iter().find(|record| launch.shares_output(record)) {
        let error = format!(
            "job {} writes to the same output folder now, {}",
            writer.job_id, launch.spec.config.output_dir
        );
        if !allow_shared_output {
            return Err(JobError::blocked(error).with_hint(
                "give the config another output folder, wait for that job to end, or pass allow_shared_output=true",
            ));
        }
        warnings.push(error);
    } else if let Some(output) = launch.output_dir().filter(|_| launch.is_local)
        && let Some(checkpoint) = newest_checkpoint(output, |_| true)
    {
        let training = launch.spec.config.document.get("training");
        let resumes = training.and_then(|all| all.get("try_resume_from_last_checkpoint"));
        let what = match resumes.is_some_and(|value| value == true) {
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
        let names: Vec<&str> = running.iter().map(|job| job.job_id.as_str()).collect();
        warnings.push(format!(
            "jobs that run on this machine already and use its GPUs and memory: {} ({})",
            running.len(),
            shorten(&names.join(", "), MAX_NAMES)
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
        // One of another machine that shares the data folder is not known here.
        let is_here = |state| state == JobState::Running || launch.shares_output(record);
        job.is_some_and(|job| !job.status.is_done && is_here(job.status.state))
    });
    Ok(near)
}

impl PreparedLaunch {
    fn output_dir(&self) -> Option<&Path> {
        let output_dir = &self.spec.config.output_dir;
        (!output_dir.is_empty()).then(|| Path::new(output_dir))
    }

    fn shares_output(&self, record: &JobRecord) -> bool {
        let theirs = Path::new(&record.output_dir);
        let is_same_folder = |ours| theirs.is_absolute() && real(ours) == real(theirs);
        self.output_dir()
            .is_some_and(|ours| ours == theirs || (self.is_local && is_same_folder(ours)))
    }
}

/// Resolves the links of a path, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let resolve = |known: &Path| {
        let resolved = known.canonicalize().ok()?;
        Some(resolved.join(path.strip_prefix(known).ok()?))
    };
    let mut known = path.ancestors();
    known.find_map(resolve).unwrap_or_else(|| path.to_owned())
}
