//! `logs`: the end of a log, and with `-f` what is written to it until the job is over.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::jobs::Format;
use super::text::for_person;
use super::{CommandResult, no_answer, note, print};
use crate::logs::search;
use crate::service::JobService;
use crate::service::answers::{JobAnswer, LogsAnswer};
use crate::service::requests::LogsRequest;

/// The interval in which a reader that has closed standard output is found.
const READER_CHECK: Duration = Duration::from_secs(1);
/// The pause after a log could not be read.
const RETRY: Duration = Duration::from_secs(5);

/// Reads the log of a job, and goes on with `follow` until the job is over.
pub(super) async fn read(
    service: &JobService,
    request: LogsRequest,
    follow: bool,
    output: Format,
) -> CommandResult {
    let mut answer = service.logs(request.clone()).await;
    if !follow || !answer.success {
        return output.print(&answer, page);
    }
    print_new(&answer, output)?;
    let pattern = match request.grep.as_str() {
        "" => None,
        grep => Some(search::compile(grep)?),
    };
    let mut is_over = false;
    while !is_over || answer.remaining_bytes.is_some() {
        if !is_over {
            // Asked before the log is read: all that the job wrote is there then.
            let status = service.poll(request.job.clone()).await;
            is_over = status.is_done || status.is_gone();
            if !is_over && answer.remaining_bytes.is_none() {
                pause(service.poll_interval(&status.cloud)).await?;
            }
        }
        let new = LogsRequest {
            job: request.job.clone(),
            max_bytes: request.max_bytes,
            cursor: answer.cursor.clone(),
            ..LogsRequest::default()
        };
        let mut newer = service.logs(new).await;
        if let Some(error) = &newer.error {
            note(&for_person(error));
            if is_over {
                return Ok(no_answer());
            }
            pause(RETRY).await?;
            continue;
        }
        if let Some(pattern) = &pattern {
            let lines = newer.logs.lines().filter(|line| pattern.is_match(line));
            newer.logs = lines.collect::<Vec<_>>().join("\n");
        }
        print_new(&newer, output)?;
        answer = newer;
    }
    print(&answer.unfinished.unwrap_or_default())?;
    Ok(ExitCode::SUCCESS)
}

/// Waits before the log is read again. Fails once nobody reads standard output any more: a silent job writes nothing that would
/// show it.
async fn pause(mut left: Duration) -> io::Result<()> {
    while !left.is_zero() {
        let stdout = io::stdout();
        let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
        poll(&mut fds, Some(&Timespec::default()))?;
        if fds[0].revents().contains(PollFlags::ERR) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let part = left.min(READER_CHECK);
        tokio::time::sleep(part).await;
        left -= part;
    }
    Ok(())
}

/// Prints the new lines; as JSON, one answer a line.
fn print_new(answer: &LogsAnswer, output: Format) -> CommandResult {
    if output.json && !answer.logs.is_empty() {
        print(&serde_json::to_string(&answer.to_json()?)?)?;
    } else {
        print(&answer.logs)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn page(answer: &serde_json::Value) -> String {
    let text = |field: &str| answer[field].as_str().unwrap_or_default();
    let beside = [text("error"), text("message")];
    for sentence in beside.into_iter().filter(|text| !text.is_empty()) {
        note(&for_person(sentence));
    }
    [text("logs"), text("unfinished")].join("\n")
}
