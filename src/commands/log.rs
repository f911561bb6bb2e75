//! `logs`: the end of a log, and with `-f` what is written to it until the job is over.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::jobs::Format;
use super::text::for_person;
use super::{CommandResult, no_answer, note, print};
use crate::logs::read::LARGEST_MAX_BYTES;
use crate::logs::search::Pattern;
use crate::service::JobService;
use crate::service::answers::{JobAnswer, LogsAnswer};
use crate::service::requests::{JobQuery, LogsRequest};

/// The interval in which a reader that has closed standard output is found.
const READER_CHECK: Duration = Duration::from_secs(1);
const NO_WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Reads the log of a job.
pub(super) struct Reader<'a> {
    pub(super) service: &'a JobService,
    pub(super) query: JobQuery,
    /// Empty: all lines.
    pub(super) grep: String,
    pub(super) output: Format,
}

impl Reader<'_> {
    pub(super) async fn read(&self, lines: u32, follow: bool) -> CommandResult {
        let request = LogsRequest {
            lines: i64::from(lines),
            grep: self.grep.clone(),
            ..self.request()
        };
        let mut answer = self.service.logs(request).await;
        if !follow || !answer.success {
            return self.output.print(&answer, page);
        }
        let pattern = match self.grep.as_str() {
            "" => None,
            grep => Some(Pattern::parse(grep)?),
        };
        self.print(&answer, None)?;
        let mut is_over = false;
        loop {
            let has_more = answer.remaining_bytes.is_some();
            if is_over && !has_more {
                break;
            }
            if !is_over {
                // Asked before the log is read: all that the job wrote is there then.
                let status = self.service.poll(self.query.clone()).await;
                is_over = status.is_done || status.is_gone();
                if !is_over && !has_more {
                    self.pause(&status.cloud).await?;
                }
            }
            let request = LogsRequest {
                cursor: answer.cursor.clone(),
                ..self.request()
            };
            let newer = self.service.logs(request).await;
            if newer.success {
                answer = newer;
                self.print(&answer, pattern.as_ref())?;
            } else if let Some(error) = &newer.error {
                note(&for_person(error));
                if is_over {
                    return Ok(no_answer());
                }
            }
        }
        if let Some(unfinished) = &answer.unfinished {
            print(unfinished)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn request(&self) -> LogsRequest {
        LogsRequest {
            job: self.query.clone(),
            max_bytes: LARGEST_MAX_BYTES,
            ..LogsRequest::default()
        }
    }

    /// Prints the new lines, those that match where there is a pattern; as JSON, one answer a line.
    fn print(&self, answer: &LogsAnswer, pattern: Option<&Pattern>) -> CommandResult {
        let mut answer = answer.clone();
        if let Some(pattern) = pattern {
            let lines = answer.logs.lines().filter(|line| pattern.matches(line));
            answer.logs = lines.collect::<Vec<_>>().join("\n");
        }
        if !answer.logs.is_empty() {
            if self.output.json {
                print(&serde_json::to_string(&answer.to_json()?)?)?;
            } else {
                print(&answer.logs)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Waits before the log is read again. Fails once nobody reads standard output any more: a silent job writes nothing
    /// that would show it.
    async fn pause(&self, cloud: &str) -> io::Result<()> {
        let mut left = self.service.poll_interval(cloud);
        while !left.is_zero() {
            let stdout = io::stdout();
            let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
            poll(&mut fds, Some(&NO_WAIT))?;
            if fds[0].revents().contains(PollFlags::ERR) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let part = left.min(READER_CHECK);
            tokio::time::sleep(part).await;
            left -= part;
        }
        Ok(())
    }
}

fn page(answer: &serde_json::Value) -> String {
    let text = |field: &str| answer[field].as_str().unwrap_or_default();
    let beside = [text("error"), text("message")];
    for sentence in beside.into_iter().filter(|text| !text.is_empty()) {
        note(&for_person(sentence));
    }
    [text("logs"), text("unfinished")].join("\n")
}
