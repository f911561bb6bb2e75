//! The logs of SkyPilot's jobs: what `sky logs` says, or what the launch said where that says nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::{SkyPilotLauncher, log_file, no_such_job};
use crate::error::JobError;
use crate::launcher::{JobIdentity, JobLog, LogContent};
use crate::parse;
use crate::parse::sky::{self as printed, LogsExit};

/// How long logs are read for.
const LOGS_DEADLINE: Duration = Duration::from_secs(30);
/// How many lines of a log are fetched, whatever part of them is asked for: SkyPilot counts each state of a progress bar as
/// one, and who reads on must find where it was. So all who ask at once share one run, too.
const LOG_LINES: &str = "10000";

impl SkyPilotLauncher {
    pub(super) async fn read_logs(&self, identity: &JobIdentity) -> Result<JobLog, JobError> {
        if identity.oumi_job_id.is_empty() {
            return self.launch.logs(identity).await;
        }
        let arguments = [
            "logs",
            &identity.cluster,
            &identity.oumi_job_id,
            "--no-follow",
            "--tail",
            LOG_LINES,
        ];
        let mut call = self.call(&arguments, LOGS_DEADLINE)?;
        call.is_log = true;
        let output = self
            .cli
            .query(
                &call,
                Some(Instant::now() + LOGS_DEADLINE + Duration::from_secs(5)),
            )
            .await
            .map_err(JobError::failed)?;
        match LogsExit::from_code(output.code) {
            LogsExit::NoSuchJob => return Err(no_such_job(identity)),
            LogsExit::NoLog if !output.timed_out => {
                let reason = parse::failure_reason(&output.stderr)
                    .or_else(|| parse::last_line(&output.stderr))
                    .or_else(|| parse::last_line(&output.stdout))
                    .unwrap_or_else(|| "it said nothing".to_owned());
                return self.logs_without_cluster(identity, &reason).await;
            }
            _ => {}
        }
        let slow = || format!("This is what arrived within {} s.", LOGS_DEADLINE.as_secs());
        let fewer = output.stdout.matches('\n').count() < LOG_LINES.parse().unwrap_or(0);
        Ok(JobLog {
            log_file: log_file(identity),
            content: LogContent::Text {
                text: printed::log_lines(&output.stdout),
                complete: fewer && !output.front_truncated && !output.timed_out,
                timed_out: output.timed_out,
            },
            // SkyPilot itself ends the last line of a job that has ended.
            ended: false,
            message: output.timed_out.then(slow),
        })
    }

    /// The log of a job is gone with its cluster; what its launch said is still here.
    async fn logs_without_cluster(
        &self,
        identity: &JobIdentity,
        reason: &str,
    ) -> Result<JobLog, JobError> {
        let failed = || JobError::failed(format!("the log could not be read: {reason}"));
        if identity.job_id.is_empty() {
            return Err(failed());
        }
        let mut read = self.launch.logs(identity).await.map_err(|_| failed())?;
        read.message = Some(format!(
            "The job's own log could not be read ({reason}); this is what its launch said."
        ));
        Ok(read)
    }
}
