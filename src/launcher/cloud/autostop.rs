//! The end of an idle cluster: SkyPilot's autostop, set by Oumi, or by the supervisor of the launch once that has ended.

use std::path::Path;
use std::time::Duration;

use super::changes::{Change, remove};
use super::survey::Found;
use super::{CloudBackend, CloudLauncher, CloudLaunches, failure_text};
use crate::error::JobError;
use crate::launcher::job_yaml::is_on;
use crate::launcher::{JobIdentity, LaunchPlan, LaunchSpec};
use crate::process::job_dir::EPILOGUE;
use crate::process::runner::{CliCall, call_deadline};
use crate::process::start::is_supervised;
use crate::process::supervisor::Epilogue;

/// The idle minutes after which Oumi 0.9 has a new cluster stop, where its cloud can stop one.
const DEFAULT_MINUTES: u32 = 60;
/// SkyPilot reaches the cluster: 18 s on an idle machine.
const TIMEOUT: Duration = Duration::from_secs(300);
/// The clouds, by Oumi's names, that can stop a cluster: the others delete it. With spot machines not even all of these can.
const CAN_STOP: &[&str] = &["aws", "azure", "gcp", "nebius"];
const CAN_STOP_SPOT: &[&str] = &["gcp"];

/// Tells if an idle cluster of this cloud, by Oumi's name, stays up whatever autostop it has: SkyPilot 0.12 accepts one there.
pub(super) fn stays_up(cloud: &str) -> bool {
    cloud == "sky-slurm"
}

impl CloudLaunches {
    /// Adds the autostop of the cluster to a plan: what a person is shown of it, and the run of `sky` that sets it where Oumi does
    /// not. An existing cluster keeps its own unless the call asks for one.
    pub(in crate::launcher) fn add_autostop(
        &self,
        plan: &mut LaunchPlan,
        spec: &LaunchSpec,
        sky: &Path,
    ) -> Result<(), JobError> {
        let (cloud, asked) = (&spec.identity.cloud, spec.resources.autostop_minutes);
        let minutes = asked.unwrap_or(DEFAULT_MINUTES);
        let config = plan.job_config.as_ref();
        let is_spot = config.and_then(|config| config.pointer("/resources/use_spot"));
        let is_spot = is_spot.is_some_and(is_on);
        let can_stop = if is_spot { CAN_STOP_SPOT } else { CAN_STOP }.contains(&cloud.as_str());
        let mut text = match minutes {
            0 => "stays up until someone ends it".to_owned(),
            _ if stays_up(cloud) => {
                plan.warnings.push(format!(
                    "an idle cluster on {cloud} stays up: SkyPilot accepts an autostop of {minutes} minutes there and does not carry it out"
                ));
                "stays up until someone ends it, whatever autostop it has".to_owned()
            }
            _ if can_stop => {
                format!("stops itself after {minutes} minutes; its disks stay and cost a little")
            }
            _ => format!("deletes itself after {minutes} minutes, with all that is on its disks"),
        };
        if !spec.identity.cluster.is_empty() && asked.is_none() {
            text.push_str("; one that is there already keeps its own setting");
        }
        plan.autostop = Some(text);
        if asked.is_none() && can_stop {
            // Oumi does it.
            return Ok(());
        }
        let own = self.supervisor.display().to_string();
        let (sky, number) = (sky.display().to_string(), minutes.to_string());
        let change: &[&str] = match (minutes, can_stop) {
            (0, _) => &["--cancel"],
            (_, true) => &["-i", &number],
            (_, false) => &["-i", &number, "--down"],
        };
        // This program asks SkyPilot's API server, or becomes `sky`.
        let autostop = [
            own.as_str(),
            "change",
            &sky,
            "autostop",
            &plan.cluster,
            "-y",
        ];
        let argv = [&autostop, change].concat();
        let existing = format!("Found an existing cluster: {}.", plan.cluster);
        let epilogue = Epilogue {
            argv: argv.into_iter().map(ToOwned::to_owned).collect(),
            unless_printed: asked.is_none().then_some(existing),
        };
        let file = self.dir(&spec.identity)?.path().join(EPILOGUE);
        let epilogue = serde_json::to_string(&epilogue).map_err(JobError::failed)?;
        plan.process.files.push((file, epilogue));
        Ok(())
    }
}

impl<B: CloudBackend> CloudLauncher<B> {
    /// Sets the autostop of a launch whose supervisor was killed before it had. Where that fails, or SkyPilot is silent, the next call
    /// about the job tries again. It is dropped where the cluster of this name is not certainly that of the launch any more.
    pub(super) async fn finish_autostop(
        &self,
        identity: &JobIdentity,
        launched: Option<&JobIdentity>,
    ) -> Result<(), JobError> {
        let dir = self.launches.dir(identity)?;
        if dir.epilogue()?.is_none() || is_supervised(&dir)? {
            return Ok(());
        }
        // Its supervisor may have done with it in between.
        let argv = dir
            .epilogue()?
            .map_or_else(Vec::new, |epilogue| epilogue.argv);
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        let Some((program, arguments)) = argv.split_first() else {
            return Ok(());
        };
        let mut is_dropped = false;
        if let Some(identity) = launched {
            let (survey, facts) = self.survey_job(identity, call_deadline()).await;
            let job = survey.job(identity, facts.as_ref());
            is_dropped = match job.find() {
                Found::Own(_) => false,
                Found::Uncertain(_) => true,
                _ if !job.status()?.is_done => return Ok(()),
                _ => true,
            };
        }
        if !is_dropped {
            let change = Change::new("autostop", &identity.cloud, &identity.cluster, "");
            let call = CliCall::new(Path::new(program), arguments, TIMEOUT);
            let (output, change) = self.changes.run(change, call).await?;
            remove(&change);
            if output.code != Some(0) {
                return Err(JobError::failed(failure_text(&output)));
            }
        } else {
            let cluster = &identity.cluster;
            tracing::warn!(
                job_id = identity.job_id,
                cluster,
                "the autostop was not set: the cluster is not certainly that of the job"
            );
        }
        Ok(dir.clear_epilogue()?)
    }
}
