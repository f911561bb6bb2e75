//! The state of a job, and the words of SkyPilot, Slurm, PBS, Modal and Oumi for it.

use schemars::JsonSchema;
use serde::Serialize;

use JobState::{Cancelled, Failed, Pending, Running, Succeeded, Unknown};

/// The state of a job: Oumi's own words, and `UNKNOWN` for a job that ended unobserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
pub(crate) enum JobState {
    // The launch is under way, or the job waits for its turn.
    Pending,
    Running,
    Succeeded,
    Failed,
    Cancelled,
    #[default]
    Unknown,
}

/// Every known word, by meaning. `true`: the job has ended. A word of several schedulers means the same in each.
#[rustfmt::skip]
const WORDS: &[(JobState, bool, &str)] = &[
    // SkyPilot, jobs on a cluster and managed jobs. Oumi on this machine and on Modal uses these words in lower case.
    (Pending, false, "INIT PENDING SETTING_UP SUBMITTED STARTING QUEUED"),
    (Running, false, "RUNNING RECOVERING CANCELLING WINDING_DOWN"),
    (Succeeded, true, "SUCCEEDED"),
    (Failed, true, "FAILED FAILED_SETUP FAILED_DRIVER FAILED_PRECHECKS FAILED_NO_RESOURCE FAILED_CONTROLLER"),
    (Cancelled, true, "CANCELLED CANCELED"),
    // Slurm, https://slurm.schedmd.com/job_state_codes.html. A job that is held back or sent back to the queue waits again;
    // one that is suspended has begun and not ended. A `REVOKED` job runs on another cluster, under another id.
    (Pending, false, "CONFIGURING EXPEDITING POWER_UP_NODE REQUEUED REQUEUE_FED REQUEUE_HOLD RESV_DEL_HOLD SPECIAL_EXIT"),
    (Running, false, "SUSPENDED COMPLETING RESIZING SIGNALING STAGE_OUT STOPPED UPDATE_DB"),
    (Succeeded, true, "COMPLETED"),
    (Failed, true, "BOOT_FAIL DEADLINE NODE_FAIL OUT_OF_MEMORY PREEMPTED TIMEOUT LAUNCH_FAILED RECONFIG_FAIL"),
    (Cancelled, true, "REVOKED"),
    // PBS on Polaris, one letter each. It does not say how a finished job ended.
    (Pending, false, "H M Q T W"),
    (Running, false, "B E R S U"),
    (Unknown, true, "F X"),
];

/// Returns the meaning of a launcher's word and whether the job has ended. `None`: the word is not known.
///
/// Understands `JobStatus.RUNNING`, `CANCELLED by 0`, and words that `sacct` cuts (`OUT_OF_ME+`).
pub(crate) fn state_of(word: &str) -> Option<(JobState, bool)> {
    let word = word.split_whitespace().next()?;
    let word = word.rsplit('.').next()?.to_ascii_uppercase();
    let meaning = |matches: &dyn Fn(&str) -> bool| {
        let mut rows = WORDS
            .iter()
            .filter(|(.., words)| words.split(' ').any(matches))
            .map(|(state, has_ended, _)| (*state, *has_ended));
        let first = rows.next()?;
        rows.all(|other| other == first).then_some(first)
    };
    let start = word.trim_end_matches('+');
    let is_cut = start.len() < word.len() && !start.is_empty();
    meaning(&|known| known == start)
        .or_else(|| is_cut.then(|| meaning(&|known| known.starts_with(start)))?)
}
