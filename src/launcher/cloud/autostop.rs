//! The end of an idle cluster: SkyPilot's autostop, set by Oumi, or by the supervisor of the launch once that has ended.

use std::path::Path;
use std::time::Duration;

use super::clusters::{can_stop, stays_up};
use super::survey::Found;
use super::{Change, CloudLauncher, failure_text};
use crate::error::{JobError, Result};
use crate::launcher::job_yaml::is_on;
use crate::launcher::{JobIdentity, LaunchPlan, LaunchSpec};
use crate::parse::sky::Cluster;
use crate::process::plan::Epilogue;
use crate::process::runner::{CliCall, in_budget};
use crate::process::start::is_supervised;

/// The idle minutes after which Oumi 0.9 has a new cluster stop, where its cloud can stop one.
const DEFAULT_MINUTES: u32 = 60;
/// SkyPilot reaches the cluster: 18 s on an idle machine.
const TIMEOUT: Duration = Duration::from_secs(300);

impl CloudLauncher {
    /// Adds the autostop of the cluster to a plan: what the user is shown of it, and the run of `sky` that sets it where Oumi does
    /// not. An existing cluster keeps its own unless the call asks for one.
    pub(super) fn add_autostop(&self, plan: &mut LaunchPlan, spec: &LaunchSpec) -> Result<()> {
        let (cloud, asked) = (&spec.identity.cloud, spec.options.autostop_minutes);
        let minutes = asked.unwrap_or(DEFAULT_MINUTES);
        let config = plan.job_config.as_ref();
        let is_spot = config.and_then(|config| config.pointer("/resources/use_spot"));
        let is_spot = is_spot.is_some_and(is_on);
        let can_stop = can_stop(cloud, is_spot);
        let mut text = match minutes {
            0 => "stays up until someone ends it".to_owned(),
            _ if stays_up(cloud) => {
                plan.warnings.push(format!(
                    "an idle cluster on {cloud} stays up: SkyPilot accepts an autostop of {minutes} minutes there and does not carry it out"
                ));
                "stays up until someone ends it, whatever autostop it has".to_owned()
            }
            _ if can_stop => {
                format!("stops itself after {minutes} minutes; its disks stay and are billed")
            }
            _ => format!("deletes itself after {minutes} minutes, with all that is on its disks"),
        };
        if !spec.identity.cluster.is_empty() && asked.is_none() {
            text.push_str("; one of yours that is up already keeps its own setting");
        }
        plan.autostop = Some(text);
        if asked.is_none() && can_stop {
            // Oumi does it.
            return Ok(());
        }
        let own = self.supervisor.display().to_string();
        let sky = self.backend.find_program()?.display().to_string();
        let number = minutes.to_string();
        let change: &[&str] = match (minutes, can_stop) {
            (0, _) => &["--cancel"],
            (_, true) => &["-i", &number],
            (_, false) => &["-i", &number, "--down"],
        };
        // This program asks SkyPilot's API server, or becomes `sky`.
        let autostop = ["change", &sky, "autostop", &plan.cluster, "-y"];
        let argv = [&[own.as_str()], autostop.as_slice(), change].concat();
        let existing = format!("Found an existing cluster: {}.", plan.cluster);
        // Of a cluster that the call named, and that may be there before, the server decides.
        plan.epilogue = Some(Epilogue {
            argv: argv.into_iter().map(ToOwned::to_owned).collect(),
            unless_printed: asked.is_none().then_some(existing),
            by_server: asked.is_none() && !spec.identity.cluster.is_empty(),
        });
        Ok(())
    }

    /// Sets an autostop that is left to the server, or that a supervisor was killed before it had set. The next call about the job
    /// tries again where that fails, where SkyPilot is silent, and where the cluster is not certainly the launch's. The autostop is
    /// given up where the cluster is gone, another one, stopped, or was there before.
    pub(super) async fn finish_autostop(&self, job: &JobIdentity) -> Result<()> {
        let dir = self.dir(job)?;
        let Some(epilogue) = dir.epilogue()? else {
            return Ok(());
        };
        // Its supervisor may be at it still, or have done with it in between.
        if !epilogue.by_server && (is_supervised(&dir)? || dir.epilogue()?.is_none()) {
            return Ok(());
        }
        let argv: Vec<&str> = epilogue.argv.iter().map(String::as_str).collect();
        // This program, its command `change`, and what that is given.
        let [_, _, program, arguments @ ..] = argv.as_slice() else {
            return Ok(());
        };
        // Of a cluster that may have been there, the job alone tells that the launch made or started it.
        let may_be_old = epilogue.by_server;
        if (!may_be_old || !job.oumi_job_id.is_empty())
            && self.has_cluster_of(job, may_be_old).await?
        {
            let change = Change::new("autostop", &job.cloud, &job.cluster, "");
            let call = CliCall::new(Path::new(program), arguments, TIMEOUT);
            let (_, output) = self.run_change(&change, call).await?;
            if output.code != Some(0) {
                return Err(JobError::failed(failure_text(&output)));
            }
        } else {
            tracing::warn!(
                job_id = job.job_id,
                cluster = job.cluster,
                "the autostop was not set: the cluster of the job is gone, another one, stopped, or was there before"
            );
        }
        Ok(dir.clear_epilogue()?)
    }

    /// Tells if the cluster of a launch that has ended is still its own, and where it `may_be_old` that it was not up before. Fails
    /// where that cannot be found out now, or is not certain.
    async fn has_cluster_of(&self, job: &JobIdentity, may_be_old: bool) -> Result<bool> {
        let name = &job.cluster;
        let mut survey = in_budget(self.survey(&job.cloud, &[name.clone()].into())).await;
        // One without a job must claim none.
        let claimed = match job.oumi_job_id.as_str() {
            "" => None,
            _ => self.claim_job(job, &mut survey),
        };
        let launch = claimed.map_or_else(|| self.launch(job), Ok);
        let launch = launch.map_err(JobError::unavailable)?;
        let hash = survey.cluster_hash(name);
        let before = launch.start.before.as_ref();
        let before = before.and_then(|before| before.cluster_hash.as_deref());
        if may_be_old && let Some(before) = before {
            survey.clusters.as_ref().map_err(JobError::unavailable)?;
            // Without a hash it may be the one that was there.
            if survey.cluster(name).is_some() && hash.is_none_or(|hash| hash == before) {
                return Ok(false);
            }
        }
        // On one that is not up none can be set.
        let is_up = |cluster: &&Cluster| cluster.status == "UP";
        let is_own = match survey.job(job, Some(&launch)).found {
            Found::Own(_) => Some(true),
            Found::Gone | Found::Recreated => Some(false),
            Found::NotUp(cluster) if cluster.status == "STOPPED" => Some(false),
            _ => {
                let cluster = survey.cluster(name).filter(is_up);
                cluster.and_then(|cluster| launch.went_onto(cluster))
            }
        };
        is_own.ok_or_else(|| {
            JobError::unavailable(format!(
                "cluster {name} is not up, or not certainly that of the job"
            ))
        })
    }
}
