//! Observes a job beside its status: how far it is, whether it has stalled, why it failed, what it has written. What does not come
//! in time is left out.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::DateTime;
use memchr::{memmem, memrchr2};

use super::Context;
use super::log_reader::{FOLDER_READS, LogReading};
use super::lookup::ResolvedJob;
use crate::failure::{self, Exit, Failure};
use crate::launcher::{JobIdentity, JobState, JobStatus, Launcher, LogContent, exit_code};
use crate::logs::fold::fold;
use crate::progress::stall::Stall;
use crate::progress::{Progress, run_files};
use crate::redact::Redactor;
use crate::registry::JobRecord;
use crate::text::{end_of, lossy, short_number};

/// The longest wait of a poll for a cloud log, once the status is there.
const FETCH_WAIT: Duration = Duration::from_secs(8);
/// The longest wait of a poll for a file: a network disk may hang.
const FILE_WAIT: Duration = Duration::from_secs(2);
/// The bytes at the end of a log that are read for the cause of a failure, and for the last line.
const FAILURE_TAIL: u64 = 1024 * 1024;
const LAST_LINE_TAIL: u64 = 16 * 1024;
/// The most entries of an output folder, and of a checkpoint in it, that are considered.
const MAX_ENTRIES: usize = 10_000;
const MAX_FILES: usize = 100;
/// The longest last line, in characters.
const MAX_LAST_LINE: usize = 160;

#[derive(Debug, Default)]
pub(super) struct Observation {
    pub(super) progress: Option<Progress>,
    pub(super) stalled: Option<Stall>,
    pub(super) failure: Option<Failure>,
    /// The last line of the log of a running job without progress; of one that ended well, the exception that its log
    /// ends with.
    pub(super) last_line: Option<String>,
    pub(super) links: Vec<String>,
    pub(super) output: Option<Output>,
    /// The time since the job began, until it ended.
    pub(super) duration: Option<Duration>,
}

/// Observes a job that its launcher has just reported.
pub(super) async fn observe(
    context: &Context,
    launcher: &Arc<dyn Launcher>,
    job: &ResolvedJob,
    status: &JobStatus,
) -> Observation {
    let is_local = launcher.is_local();
    let wait = if is_local { FILE_WAIT } else { FETCH_WAIT };
    let reading = context.logs.reading(launcher, &job.identity, status, wait);
    let log = reading.await.unwrap_or_default();
    let lacks_figures = log.progress.as_ref().is_none_or(Progress::is_incomplete);
    let folder = read_folder(context, launcher, job, lacks_figures).await;
    let (output, run_files) = folder.unzip();
    let details = &status.details;
    let started = details.start_at.as_deref().and_then(parse_time);
    let started = started.or_else(|| job.record.as_ref().and_then(submitted));
    let ended = [&details.ended_at, &details.end_at];
    let ended = ended.into_iter().flatten().find_map(|end| parse_time(end));
    let now = SystemTime::now();
    let end = if status.is_done { ended } else { Some(now) };
    let is_running = status.state == JobState::Running;
    let mut observation = Observation {
        stalled: is_running.then(|| log.stalled(started, now)).flatten(),
        output,
        duration: started.and_then(|start| end?.duration_since(start).ok()),
        progress: progress_of(&log, run_files.flatten()),
        links: log.links.clone(),
        ..Observation::default()
    };
    if status.state == JobState::Failed {
        observation.failure = failure_of(context, launcher, &job.identity, status, log).await;
    } else if is_running && observation.progress.is_none() {
        let redactor = context.redactor(&job.identity.job_id);
        observation.last_line = last_line(log.tail(LAST_LINE_TAIL), &redactor);
    } else if status.state == JobState::Succeeded {
        let tail = log.tail(LAST_LINE_TAIL);
        let has_traceback = memmem::find(&tail, failure::TRACEBACK.as_bytes()).is_some();
        let text = || readable(tail, &context.redactor(&job.identity.job_id));
        let error = has_traceback.then(text).flatten();
        let error = error.and_then(|log| failure::last_exception(&log));
        observation.last_line =
            error.map(|error| format!("its exit code is 0, but its log ends with {error}"));
    }
    observation
}

/// Phrases how far a job is: by its log on this machine, by what a poll has read of that of a cloud job.
pub(super) async fn how_far(
    context: &Context,
    identity: &JobIdentity,
    status: &JobStatus,
) -> Option<String> {
    let launcher = context.launcher(&identity.cloud).ok()?;
    let phrase = |log: &LogReading| {
        let mut progress = progress_of(log, None)?;
        progress.metrics.loss_step = None;
        Some(progress_phrase(&progress)?.replacen(" of ", "/", 1))
    };
    if !launcher.is_local() {
        return phrase(&context.logs.newest(identity)?);
    }
    let path = context.job_dir(&identity.job_id)?.log_path();
    let version = match context.logs.phrases.get(&path) {
        Ok(phrase) => return phrase,
        Err(version) => version,
    };
    let reading = context.logs.reading(launcher, identity, status, FILE_WAIT);
    let log = reading.await?;
    let phrase = phrase(&log);
    // Where the log could not be read now, the reading is an older one.
    if log.written == version.map(|version| version.written) {
        context.logs.phrases.keep(&path, version, &phrase);
    }
    phrase
}

/// Reads what a training on this machine wrote into its output folder, and its figures where the log lacks them.
async fn read_folder(
    context: &Context,
    launcher: &Arc<dyn Launcher>,
    job: &ResolvedJob,
    needs_figures: bool,
) -> Option<(Output, Option<Progress>)> {
    let record = job.record.as_ref()?;
    let dir = PathBuf::from(&record.output_dir);
    if !launcher.is_local() || !dir.is_absolute() {
        return None;
    }
    let started = submitted(record);
    // The files do not say which of several jobs wrote them.
    let is_shared = is_shared(context, launcher, record).await;
    let reading = async move {
        let permit = FOLDER_READS.acquire().await.ok()?;
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let output = Output::read(&dir, started, is_shared)?;
            let is_needed = needs_figures && !is_shared;
            let figures = is_needed.then(|| run_files::read(&dir, started));
            Some((output, figures.flatten()))
        });
        read.await.ok().flatten()
    };
    tokio::time::timeout(FILE_WAIT, reading).await.ok()?
}

/// Tells if another job with the same output folder has lived since a job began.
async fn is_shared(context: &Context, launcher: &Arc<dyn Launcher>, record: &JobRecord) -> bool {
    let Ok(records) = context.registry.records().await else {
        return true;
    };
    for other in records.iter().filter(|other| {
        (&other.cloud, &other.output_dir) == (&record.cloud, &record.output_dir)
            && other.job_id != record.job_id
    }) {
        let Ok(status) = launcher.status(&other.identity()).await else {
            return true;
        };
        // The end of a job that no server watched is not known, but its start is.
        let ended = status.details.ended_at.as_deref().and_then(parse_time);
        if !status.is_done || ended.or_else(|| submitted(other)) >= submitted(record) {
            return true;
        }
    }
    false
}

async fn failure_of(
    context: &Context,
    launcher: &Arc<dyn Launcher>,
    identity: &JobIdentity,
    status: &JobStatus,
    mut log: LogReading,
) -> Option<Failure> {
    let details = &status.details;
    let exit = match (details.signal, details.exit_code) {
        (Some(signal), _) => Some(Exit::Signal(signal)),
        (None, Some(code)) => Some(Exit::Code(code)),
        // The log of a cloud job may name it.
        (None, None) => exit_code(&lossy(&log.tail(FAILURE_TAIL))).map(Exit::Code),
    };
    // For a process on this machine the message says no more than its exit.
    let is_exit = launcher.is_local() && exit.is_some();
    let reason = status.message.clone().filter(|_| !is_exit);
    if identity.oumi_job_id.is_empty()
        && let Ok(launch) = launcher.logs(identity).await
        && let LogContent::File(path) = launch.content
    {
        // The launch failed, and its own log says why.
        log = LogReading::at(path);
    }
    // Redacted here and not only at the exit: a cut through the log could leave half a secret, which is not recognized.
    let redactor = context.redactor(&identity.job_id);
    let mut failure = if redactor.hides_all() {
        failure::explain("", exit, None)
    } else {
        // Masked before it is folded: a secret that folding changes is not recognized.
        let log = fold(&redactor.masked(log.tail(FAILURE_TAIL)));
        let log = redactor.redact(end_of(&log, failure::LOOKED_AT));
        let reason = reason.map(|reason| redactor.redact(&reason));
        failure::explain(&log, exit, reason.as_deref())
    }?;
    // `metadata` has the exit code already, and 1 says only that the job failed.
    let known = format!("exit code {}", details.exit_code.unwrap_or(1));
    failure.exit = failure.exit.filter(|exit| *exit != known);
    Some(failure)
}

/// Returns the last line of a log that says anything.
fn last_line(mut tail: Vec<u8>, redactor: &Redactor) -> Option<String> {
    if redactor.knows_values() {
        // The line that is being written may end within a secret value, which is then not recognized.
        tail.truncate(memrchr2(b'\n', b'\r', &tail)? + 1);
    }
    let log = readable(tail, redactor)?;
    let says_something = |line: &&str| line.contains(char::is_alphanumeric);
    let line = log.lines().rev().find(says_something)?.trim();
    Some(line.chars().take(MAX_LAST_LINE).collect())
}

/// Returns the readable text of a log without secrets, if it is known what they are.
fn readable(tail: Vec<u8>, redactor: &Redactor) -> Option<String> {
    let text = || redactor.redact(&fold(&redactor.masked(tail)));
    (!redactor.hides_all()).then(text)
}

pub(super) fn submitted(record: &JobRecord) -> Option<SystemTime> {
    record.submitted_at().map(SystemTime::from)
}

fn parse_time(text: &str) -> Option<SystemTime> {
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    Some(SystemTime::from(time))
}

fn progress_of(log: &LogReading, run_files: Option<Progress>) -> Option<Progress> {
    let mut progress = match log.progress.clone() {
        None => run_files?,
        // Without a source: the log is where everybody looks first.
        Some(log) => log.completed(run_files),
    };
    progress.metrics.round();
    Some(progress)
}

/// An output folder with what a job has written there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) dir: PathBuf,
    /// The name of the checkpoint with the highest step.
    pub(super) checkpoint: Option<String>,
    /// The name of a later one that was not written whole.
    pub(super) cut: Option<String>,
}

impl Output {
    /// Reads the folder. A checkpoint from before `started` is an earlier run's, one in a shared folder perhaps another job's.
    fn read(dir: &Path, started: Option<SystemTime>, is_shared: bool) -> Option<Self> {
        let is_ours = |path: &Path| {
            let written = path.metadata().and_then(|file| file.modified());
            written.is_ok_and(|written| started.is_none_or(|started| written >= started))
        };
        // Writing a checkpoint again changes the times of its files, and not that of its folder.
        let counts = |checkpoint: &Path| {
            let files = fs::read_dir(checkpoint).into_iter().flatten().flatten();
            is_ours(checkpoint) || files.take(MAX_FILES).any(|file| is_ours(&file.path()))
        };
        let newest =
            |counts: &dyn Fn(&Path) -> bool| newest_checkpoint(dir, counts).filter(|_| !is_shared);
        let checkpoint = newest(&|checkpoint| is_whole(checkpoint) && counts(checkpoint));
        // That of an inference is a file.
        dir.exists().then(|| Self {
            dir: dir.to_owned(),
            cut: newest(&counts).filter(|newest| checkpoint.as_ref() != Some(newest)),
            checkpoint,
        })
    }
}

/// Tells if a checkpoint was written to its end: Hugging Face's trainer, which names it so, writes its own state last.
pub(super) fn is_whole(checkpoint: &Path) -> bool {
    let name = checkpoint.file_name().unwrap_or_default();
    !name.as_bytes().starts_with(b"checkpoint-") || checkpoint.join("trainer_state.json").exists()
}

/// Finds the checkpoint of the highest step in a folder, among those that `counts` accepts. Does file work.
pub(super) fn newest_checkpoint(dir: &Path, counts: impl Fn(&Path) -> bool) -> Option<String> {
    let entries = fs::read_dir(dir).ok()?.flatten().take(MAX_ENTRIES);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let numbered = names.filter_map(|name| Some((checkpoint_step(&name)?, name)));
    let mut numbered: Vec<(u64, String)> = numbered.collect();
    numbered.sort_unstable();
    let mut newest_first = numbered.into_iter().rev().map(|(_, name)| name);
    newest_first.find(|name| counts(&dir.join(name)))
}

/// Reads the step from the name that HF Trainer or VERL gives a checkpoint.
fn checkpoint_step(name: &str) -> Option<u64> {
    let prefixes = ["checkpoint-", "global_step_"];
    let step = prefixes.iter().find_map(|it| name.strip_prefix(it))?;
    step.parse().ok()
}

/// Phrases progress, such as `step 120 of 900, loss 1.83`.
pub(super) fn progress_phrase(progress: &Progress) -> Option<String> {
    let of = |total: Option<u64>| total.map_or_else(String::new, |total| format!(" of {total}"));
    let metrics = &progress.metrics;
    let total = of(metrics.total_steps);
    let step = metrics.step.map(|step| format!("step {step}{total}"));
    let step = step.or_else(|| Some(format!("epoch {:.2}", metrics.epoch?)));
    let figures = [("reward", metrics.reward), ("loss", metrics.loss)];
    let mut figures = figures.into_iter().filter_map(|(name, value)| {
        let value = short_number(value.filter(|value| value.is_finite())?);
        let step = metrics.loss_step.map(|step| format!(" at step {step}"));
        Some(format!("{name} {value}{}", step.unwrap_or_default()))
    });
    let activity = progress.activity.as_ref().map(|activity| {
        let total = of(activity.total);
        let done = activity.done.map(|done| format!(" {done}{total}"));
        format!("now {}{}", activity.what, done.unwrap_or_default())
    });
    let parts = [step, figures.next(), activity].into_iter().flatten();
    let parts: Vec<String> = parts.collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::{Output, Redactor, last_line};

    #[test]
    fn checkpoint_that_was_not_written_whole_is_told_apart() {
        let home = tempfile::tempdir().unwrap();
        for name in ["checkpoint-8", "checkpoint-9", "checkpoint-10", "runs"] {
            std::fs::create_dir(home.path().join(name)).unwrap();
        }
        let read = || Output::read(home.path(), None, false).unwrap();
        let state = home.path().join("checkpoint-9/trainer_state.json");
        std::fs::write(&state, "{}").unwrap();
        // The output of an inference is a file.
        assert_eq!(Output::read(&state, None, false).unwrap().dir, state);
        assert_eq!(read().checkpoint.as_deref(), Some("checkpoint-9"));
        assert_eq!(read().cut.as_deref(), Some("checkpoint-10"));
        // VERL's have another form.
        std::fs::create_dir(home.path().join("global_step_20")).unwrap();
        assert_eq!(read().checkpoint.as_deref(), Some("global_step_20"));
        assert_eq!(read().cut, None);
    }

    #[test]
    fn line_being_written_shows_no_half_of_a_value() {
        let value = "two  blanks   here";
        let knows = Redactor::new([value]);
        for cut in 0..value.len() {
            let log = format!("loaded\npart {}", &value[..cut]);
            let line = last_line(log.into(), &knows).unwrap();
            assert_eq!(line, "loaded", "{cut}");
        }
        let line = |log: String| last_line(log.into(), &knows).unwrap();
        assert_eq!(line(format!("part {value}\n")), "part ***");
        let without = last_line("part two".into(), &Redactor::default());
        assert_eq!(without.as_deref(), Some("part two"));
    }
}
