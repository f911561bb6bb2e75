//! The one way out of the service: hides secrets in every text of an answer and removes control characters. [`answers!`] makes
//! sure that no field is left out. The name of a field decides how its text is treated: ids and paths stay usable.

use std::borrow::Cow;
use std::ops::Deref;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::launcher::{JobState, status};
use crate::progress::Progress;
use crate::redact::Redactor;
use crate::text::{clean_controls, shorten};

/// The longest text of an answer but a log, in bytes: no argument of a megabyte is repeated.
const MAX_TEXT: usize = 16 * 1024;

/// Receives each text of an answer with the name of its field.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&str, &mut String);

/// A value whose texts can be changed in place.
pub(super) trait Texts {
    /// Visits the texts of the value, which stands in the field `name`.
    fn each_text(&mut self, name: &str, visit: Visit<'_>);
}

/// Hides secrets in every text of an answer, replaces control characters, and cuts long texts. Dereferences `redactors` only when
/// it needs them.
pub(super) fn sanitize<A: Texts>(
    mut answer: A,
    redactors: impl Deref<Target: AsRef<[Redactor]>>,
) -> A {
    let is_readable = || !redactors.as_ref().iter().any(Redactor::hides_all);
    answer.each_text("", &mut |name, text| {
        let is_redacted = match name {
            _ if text.is_empty() => return,
            // Left as it is: the logs module has redacted and cleaned it line by line, within its budget of bytes.
            "logs" => return,
            // A client gives it back to name a job, a cluster or a file.
            "job_id" | "oumi_job_id" | "cloud" | "cluster" | "cluster_name" | "config_path"
            | "log_file" | "plot_file" | "output_dir" | "output" | "config" | "last_checkpoint"
            | "plan_id" | "cursor" => false,
            // Times that the service writes itself.
            "submitted" | "ended" => false,
            "status" if status::OURS.contains(&text.as_str()) => false,
            // The server's own words are shown even where nobody can tell what is secret.
            "status" | "command" | "next" | "stalled" | "sparkline" | "source" | "cause"
            | "what" | "advice" | "exit" | "spent" => is_readable(),
            time if time.ends_with("_at") => is_readable(),
            _ => true,
        };
        if is_redacted {
            for redactor in redactors.as_ref() {
                *text = redactor.redact(text);
            }
        }
        if let Cow::Owned(clean) = clean_controls(text) {
            *text = clean;
        }
        if let Cow::Owned(short) = shorten(text, MAX_TEXT) {
            *text = short;
        }
    });
    answer
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
    fn each_text(&mut self, name: &str, visit: Visit<'_>) {
        for (mut key, mut value) in std::mem::take(self) {
            // The keys of a named field are the service's own. Those of a config, and of a map within, are texts like others.
            if name.is_empty() {
                value.each_text("", visit);
                visit("", &mut key);
            } else {
                value.each_text(&key, visit);
            }
            self.insert(key, value);
        }
    }
}

impl Texts for Value {
    fn each_text(&mut self, name: &str, visit: Visit<'_>) {
        match self {
            Self::String(text) => visit(name, text),
            Self::Array(items) => items.each_text("", visit),
            // Its words are the server's own.
            Self::Object(fields) if name == "activity" => fields.each_text(name, visit),
            Self::Object(fields) => fields.each_text("", visit),
            _ => {}
        }
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
textless! { &'static str, bool, u8, u64, usize, f64, Duration, JobState, Progress }

/// Defines answers, and visits the texts of all their fields.
macro_rules! answers {
    ($($(#[$meta:meta])* pub(crate) struct $name:ident { $($(#[$doc:meta])* pub $field:ident: $kind:ty,)+ })+) => {$(
        #[derive(Debug, Clone, PartialEq, Default, serde::Serialize, schemars::JsonSchema)]
        $(#[$meta])*
        pub(crate) struct $name { $($(#[$doc])* pub $field: $kind,)+ }

        impl $crate::service::sanitize::Texts for $name {
            fn each_text(&mut self, _: &str, visit: $crate::service::sanitize::Visit<'_>) {
                $(self.$field.each_text(stringify!($field), visit);)+
            }
        }
    )+};
}
pub(super) use answers;
