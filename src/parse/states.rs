//! What the words of SkyPilot, Slurm, PBS, Modal and Oumi for the state of a job mean.

use crate::launcher::JobState::{self, Cancelled, Failed, Pending, Running, Succeeded, Unknown};

/// A word, what it means, and whether nothing more will happen to the job.
type Word = (&'static str, JobState, bool);

/// Every word known. Where several schedulers have the same word, it means the same.
const WORDS: &[Word] = &[
    // SkyPilot, a job on a cluster.
    ("INIT", Pending, false),
    ("PENDING", Pending, false),
    ("SETTING_UP", Pending, false),
    ("RUNNING", Running, false),
    ("SUCCEEDED", Succeeded, true),
    ("FAILED", Failed, true),
    ("FAILED_SETUP", Failed, true),
    ("FAILED_DRIVER", Failed, true),
    ("CANCELLED", Cancelled, true),
    // SkyPilot, a managed job.
    ("SUBMITTED", Pending, false),
    ("STARTING", Pending, false),
    ("RECOVERING", Running, false),
    ("CANCELLING", Running, false),
    ("FAILED_PRECHECKS", Failed, true),
    ("FAILED_NO_RESOURCE", Failed, true),
    ("FAILED_CONTROLLER", Failed, true),
    // Slurm, https://slurm.schedmd.com/job_state_codes.html. A job that is held back or sent back to the queue waits again;
    // one that is suspended has begun and not ended.
    ("BOOT_FAIL", Failed, true),
    ("COMPLETED", Succeeded, true),
    ("DEADLINE", Failed, true),
    ("NODE_FAIL", Failed, true),
    ("OUT_OF_MEMORY", Failed, true),
    ("PREEMPTED", Failed, true),
    ("SUSPENDED", Running, false),
    ("TIMEOUT", Failed, true),
    ("COMPLETING", Running, false),
    ("CONFIGURING", Pending, false),
    ("EXPEDITING", Pending, false),
    ("LAUNCH_FAILED", Failed, true),
    ("POWER_UP_NODE", Pending, false),
    ("RECONFIG_FAIL", Failed, true),
    ("REQUEUED", Pending, false),
    ("REQUEUE_FED", Pending, false),
    ("REQUEUE_HOLD", Pending, false),
    ("RESIZING", Running, false),
    ("RESV_DEL_HOLD", Pending, false),
    // The job runs on another cluster of the federation, under another id.
    ("REVOKED", Cancelled, true),
    ("SIGNALING", Running, false),
    ("SPECIAL_EXIT", Pending, false),
    ("STAGE_OUT", Running, false),
    ("STOPPED", Running, false),
    ("UPDATE_DB", Running, false),
    // PBS on Polaris, one letter each. It does not say how a finished job ended.
    ("B", Running, false),
    ("E", Running, false),
    ("F", Unknown, true),
    ("H", Pending, false),
    ("M", Pending, false),
    ("Q", Pending, false),
    ("R", Running, false),
    ("S", Running, false),
    ("T", Pending, false),
    ("U", Running, false),
    ("W", Pending, false),
    ("X", Unknown, true),
    // Oumi on this machine. Its words for Modal are the SkyPilot ones in lower case.
    ("QUEUED", Pending, false),
    ("CANCELED", Cancelled, true),
];

/// What a launcher's word for the state of a job means, and whether the job is done. Nothing for a word that is not known.
///
/// `JobStatus.RUNNING`, `CANCELLED by 0`, and words cut by a narrow column (`OUT_OF_ME+`) are understood.
pub fn state_of(word: &str) -> Option<(JobState, bool)> {
    let word = word.split_whitespace().next()?;
    let word = word.rsplit('.').next()?.to_ascii_uppercase();
    match word.strip_suffix(['+', '…']) {
        None => find(|known| known == word),
        Some(start) => {
            let whole = find(|known| known == start);
            whole.or_else(|| agreed(|known| !start.is_empty() && known.starts_with(start)))
        }
    }
}

fn find(matches: impl Fn(&str) -> bool) -> Option<(JobState, bool)> {
    let (_, state, is_done) = WORDS.iter().find(|(word, ..)| matches(word))?;
    Some((*state, *is_done))
}

/// What all the words that match mean, when they mean the same.
fn agreed(matches: impl Fn(&str) -> bool) -> Option<(JobState, bool)> {
    let mut meanings = WORDS
        .iter()
        .filter(|(word, ..)| matches(word))
        .map(|(_, state, is_done)| (*state, *is_done));
    let first = meanings.next()?;
    meanings.all(|other| other == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_what_the_schedulers_say() {
        for (word, state, is_done) in [
            ("JobStatus.RUNNING", Running, false),
            ("JobStatus.FAILED_DRIVER", Failed, true),
            ("FAILED_SETUP", Failed, true),
            ("SETTING_UP", Pending, false),
            ("CANCELLED by 0", Cancelled, true),
            ("CANCELLED+", Cancelled, true),
            ("OUT_OF_ME+", Failed, true),
            ("JobStatus.FAILE…", Failed, true),
            ("COMPLETING", Running, false),
            ("SUSPENDED", Running, false),
            ("TIMEOUT", Failed, true),
            ("REVOKED", Cancelled, true),
            ("succeeded", Succeeded, true),
            ("CANCELED", Cancelled, true),
            ("Q", Pending, false),
            ("E", Running, false),
            ("F", Unknown, true),
        ] {
            assert_eq!(state_of(word), Some((state, is_done)), "{word}");
        }
    }

    #[test]
    fn a_word_that_is_not_known_means_nothing() {
        for word in [
            "",
            " ",
            "…",
            "+",
            ".",
            "JobStatus.",
            "JobStatus…",
            "COMPLET+",
            "UP",
            "NONE",
            "RUNNINGS",
            "None",
            "FAIL",
            "é",
        ] {
            assert_eq!(state_of(word), None, "{word:?}");
        }
    }

    #[test]
    fn no_word_stands_twice_in_the_table() {
        let mut words: Vec<_> = WORDS.iter().map(|(word, ..)| word).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), WORDS.len());
    }
}
