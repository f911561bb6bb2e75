//! The one way out of the service: hides the secrets of the jobs in every text of an answer and cleans it of control characters.
//!
//! An answer lists its fields in [`texts!`], and the compiler refuses a list that lacks one. The name of a field says how its
//! text is treated, so that ids and paths stay usable.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Map, Value};

use super::answers::{
    CancelAnswer, ClusterAnswer, JobRow, ListAnswer, LogsAnswer, PollAnswer, ProgressAnswer,
    RunAnswer,
};
use crate::failure::Failure;
use crate::launcher::JobState;
use crate::redact::Redactor;
use crate::settings::config::ConfigKind;
use crate::text::{clean_controls, shorten};

/// The longest text of an answer but a log, in bytes: no argument of a megabyte is repeated.
const MAX_TEXT: usize = 16 * 1024;

/// Receives each text of an answer with the name of its field.
type Visit<'a> = &'a mut dyn FnMut(&str, &mut String);

/// A value whose texts can be changed in place.
pub(super) trait Texts {
    /// Visits the texts of the value, which stands in the field `name`.
    fn each_text(&mut self, name: &str, visit: Visit<'_>);
}

/// Hides the secrets known to `redactors` in every text of `answer`, and replaces control characters.
pub(super) fn sanitize<A: Texts>(mut answer: A, redactors: &[Redactor]) -> A {
    let unreadable = redactors.iter().any(Redactor::hides_all);
    answer.each_text("", &mut |name, text| match Treatment::of(name) {
        Treatment::None => {}
        Treatment::Clean => clean(text),
        Treatment::KeepWords if unreadable => clean(text),
        Treatment::KeepWords | Treatment::Redact => {
            for redactor in redactors {
                *text = redactor.redact(text);
            }
            clean(text);
        }
    });
    answer.each_text("", &mut |name, text| {
        if name != "logs" && text.len() > MAX_TEXT {
            *text = shorten(text, MAX_TEXT).into_owned();
        }
    });
    answer
}

/// The treatment of a text, by its field.
enum Treatment {
    /// As it is: the logs module has redacted and cleaned it line by line, within its budget of bytes.
    None,
    /// Cleaned only: a client gives it back to name a job, a cluster or a file.
    Clean,
    /// Redacted, but shown even where nobody can tell what is secret: the words are the server's own.
    KeepWords,
    Redact,
}

impl Treatment {
    fn of(name: &str) -> Self {
        match name {
            "logs" => Self::None,
            "job_id" | "oumi_job_id" | "cloud" | "cluster" | "cluster_name" | "config_path"
            | "log_file" | "plot_file" | "output_dir" | "output" | "config" | "last_checkpoint"
            | "plan_id" | "cursor" => Self::Clean,
            "status" | "command" | "next" | "stalled" | "sparkline" | "source" | "cause"
            | "what" | "advice" | "exit" | "submitted" | "ended" | "spent" => Self::KeepWords,
            time if time.ends_with("_at") => Self::KeepWords,
            _ => Self::Redact,
        }
    }
}

fn clean(text: &mut String) {
    if let Cow::Owned(cleaned) = clean_controls(text) {
        *text = cleaned;
    }
}

impl Texts for String {
    fn each_text(&mut self, name: &str, visit: Visit<'_>) {
        visit(name, self);
    }
}

impl<T: Texts> Texts for Option<T> {
    fn each_text(&mut self, name: &str, visit: Visit<'_>) {
        if let Some(value) = self {
            value.each_text(name, visit);
        }
    }
}

impl<T: Texts> Texts for Vec<T> {
    fn each_text(&mut self, name: &str, visit: Visit<'_>) {
        self.iter_mut()
            .for_each(|value| value.each_text(name, visit));
    }
}

impl Texts for Map<String, Value> {
    fn each_text(&mut self, _: &str, visit: Visit<'_>) {
        for (mut key, mut value) in std::mem::take(self) {
            value.each_text(&key, visit);
            visit("", &mut key);
            self.insert(key, value);
        }
    }
}

impl Texts for Value {
    fn each_text(&mut self, name: &str, visit: Visit<'_>) {
        match self {
            Self::String(text) => visit(name, text),
            Self::Array(items) => items.each_text("", visit),
            Self::Object(fields) => {
                for (mut key, mut value) in std::mem::take(fields) {
                    // A key of a config is no field of an answer, whatever its name.
                    value.each_text("", visit);
                    visit("", &mut key);
                    fields.insert(key, value);
                }
            }
            _ => {}
        }
    }
}

impl Texts for ProgressAnswer {
    fn each_text(&mut self, _: &str, visit: Visit<'_>) {
        let metrics = &mut self.progress.metrics;
        metrics.eval_set.each_text("eval_set", visit);
        for (mut set, loss) in std::mem::take(&mut metrics.eval_losses) {
            visit("", &mut set);
            metrics.eval_losses.insert(set, loss);
        }
        self.progress.source.each_text("source", visit);
    }
}

/// Has no text to visit.
macro_rules! textless {
    ($($value:ty),+) => {
        $(impl Texts for $value {
            fn each_text(&mut self, _: &str, _: Visit<'_>) {}
        })+
    };
}
textless!(
    &'static str,
    bool,
    u8,
    u64,
    usize,
    f64,
    Duration,
    JobState,
    ConfigKind
);

/// Visits the texts of all fields of an answer.
macro_rules! texts {
    ($answer:ident { $($field:ident),+ $(,)? }) => {
        impl Texts for $answer {
            fn each_text(&mut self, _: &str, visit: Visit<'_>) {
                let Self { $($field),+ } = self;
                $($field.each_text(stringify!($field), visit);)+
            }
        }
    };
}
texts!(RunAnswer {
    success,
    job_id,
    status,
    dry_run,
    command,
    config_path,
    cloud,
    cluster_name,
    model_name,
    message,
    error,
    launch_confirmed,
    oumi_job_id,
    cluster,
    plan_id,
    command_line,
    output_dir,
    config_kind,
    job_config,
    hourly_price,
    price_note,
    warnings,
});
texts!(PollAnswer {
    success,
    job_id,
    oumi_job_id,
    status,
    state,
    cloud,
    cluster,
    is_done,
    metadata,
    ended_at,
    poll_interval,
    hourly_price,
    spent,
    duration_seconds,
    output_dir,
    last_checkpoint,
    progress,
    links,
    stalled,
    failure,
    error,
    message,
    next,
    warnings,
});
texts!(Failure {
    cause,
    what,
    advice,
    evidence,
    exit,
    traceback_end,
    last_lines
});
texts!(LogsAnswer {
    success,
    job_id,
    lines_requested,
    lines_returned,
    log_file,
    logs,
    error,
    truncated,
    message,
    cursor,
    unfinished,
    remaining_bytes,
    matches,
    sparkline,
    plot_file,
    picture,
});
texts!(CancelAnswer {
    success,
    job_id,
    oumi_job_id,
    status,
    state,
    is_done,
    cloud,
    cluster,
    output_dir,
    last_checkpoint,
    message,
    error,
});
texts!(ClusterAnswer {
    success,
    cloud,
    cluster_name,
    message,
    error
});
texts!(ListAnswer {
    jobs,
    times,
    not_shown,
    warnings,
    success,
    error
});
texts!(JobRow {
    job_id,
    command,
    status,
    state,
    cloud,
    cluster,
    model_name,
    is_done,
    submitted,
    ended,
    config,
    progress,
    output,
    autostop_minutes,
    spent,
    hourly_price,
});
