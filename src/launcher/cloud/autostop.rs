//! The end of an idle cluster: SkyPilot's autostop, set by Oumi, or by the supervisor of the launch once that has ended.

use std::path::Path;
use std::time::Duration;

use super::survey::Found;
use super::{Change, CloudBackend, CloudLauncher, CloudLaunches};
use crate::error::JobError;
use crate::launcher::job_yaml::is_on;
use crate::launcher::{JobIdentity, LaunchPlan, LaunchSpec};
use crate::process::job_dir::{EPILOGUE, JobDir};
use crate::process::runner::{CliCall, call_deadline};
use crate::process::supervisor::Epilogue;
use crate::process::{blocking, start};

/// The idle minutes after which Oumi 0.9 has a new cluster stop, where its cloud can stop one.
const DEFAULT_MINUTES: u32 = 60;
/// SkyPilot reaches the cluster: 18 s on an idle machine.
const TIMEOUT: Duration = Duration::from_secs(300);
/// The clouds, by Oumi's names, that can stop a cluster: the others delete it. With spot machines not even all of these can.
const CAN_STOP: &[&str] = &["aws", "azure", "gcp", "nebius"];
const CAN_STOP_SPOT: &[&str] = &["gcp"];
/// SkyPilot 0.12 accepts an autostop on these, and the cluster stays all the same.
const STAYS: &[&str] = &["sky-slurm"];

/// Tells if an idle cluster of this cloud, by Oumi's name, stays up whatever autostop it has.
pub(super) fn stays_up(cloud: &str) -> bool {
    STAYS.contains(&cloud)
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
        let (cloud, asked) = (
            spec.identity.cloud.as_str(),
            spec.resources.autostop_minutes,
        );
        let minutes = asked.unwrap_or(DEFAULT_MINUTES);
        let resources = plan
            .job_config
            .as_ref()
            .and_then(|config| config.get("resources"));
        let is_spot = resources
            .and_then(|all| all.get("use_spot"))
            .is_some_and(is_on);
        let can_stop = if is_spot { CAN_STOP_SPOT } else { CAN_STOP }.contains(&cloud);
        let mut text = match minutes {
            0 => "stays up until someone ends it".to_owned(),
            _ if stays_up(cloud) => {
                let warning = format!(
                    "an idle cluster on {cloud} stays up: SkyPilot accepts an autostop of {minutes} minutes there and does not carry it out"
                );
                plan.warnings.push(warning);
                format!(
                    "stays up until someone ends it, whatever autostop it has ({minutes} minutes)"
                )
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
        let (sky, number) = (sky.display().to_string(), minutes.to_string());
        let change: &[&str] = match (minutes, can_stop) {
            (0, _) => &["--cancel"],
            (_, true) => &["-i", &number],
            (_, false) => &["-i", &number, "--down"],
        };
        let argv = [&[sky.as_str(), "autostop", &plan.cluster, "-y"], change].concat();
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

    /// Returns the run that sets the autostop of a launch that has ended, where that is still to be done and nobody does it.
    async fn abandoned_autostop(
        &self,
        identity: &JobIdentity,
    ) -> Result<Option<CliCall>, JobError> {
        let dir = self.dir(identity)?;
        let epilogue = blocking(move || match dir.epilogue()? {
            Some(epilogue) if !start::is_supervised(&dir)? => Ok(Some(epilogue)),
            _ => Ok::<_, JobError>(None),
        });
        let argv = epilogue
            .await?
            .map(|epilogue| epilogue.argv)
            .unwrap_or_default();
        let mut argv = argv.iter().map(String::as_str);
        let program = argv.next();
        let arguments: Vec<&str> = argv.collect();
        Ok(program.map(|program| CliCall::new(Path::new(program), &arguments, TIMEOUT)))
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
        let Some(call) = self.launches.abandoned_autostop(identity).await? else {
            return Ok(());
        };
        if let Some(job) = launched {
            let (survey, facts) = self.survey_job(job, call_deadline()).await;
            match survey.find::<B>(job, facts.as_ref()) {
                Found::Own(_) => {}
                Found::Nothing if !survey.status::<B>(job, facts.as_ref())?.is_done => {
                    return Ok(());
                }
                Found::Another | Found::Uncertain(_) | Found::Nothing => {
                    return self.clear_autostop(identity).await;
                }
            }
        }
        let change = Change::new("autostop", &identity.cloud, &identity.cluster, "");
        let (output, change) = self.changes.run(change, call).await?;
        change.remove().await;
        match output.code {
            Some(0) => self.clear_autostop(identity).await,
            _ => Ok(()),
        }
    }

    async fn clear_autostop(&self, identity: &JobIdentity) -> Result<(), JobError> {
        let dir: JobDir = self.launches.dir(identity)?;
        blocking(move || Ok(dir.clear_epilogue()?)).await
    }
}
