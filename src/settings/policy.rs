//! The limits set in the server's environment: clouds, tools, and when the user is asked.

use std::env::VarError;
use std::time::Duration;

use crate::settings::env_vars::{self, Variable};

/// A variable with an unknown value. The server does not start then: it might allow more than was meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{variable} cannot be {value:?}: {meant}; correct it in the environment that the server is started in"
)]
pub(crate) struct PolicyError {
    variable: &'static str,
    value: String,
    meant: String,
}

/// The calls before which the user is asked, by clients that can ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum AskPerson {
    /// Before a call that costs money, or ends a job that was not started here.
    #[default]
    ForClouds,
    /// Before each launch too, also on this machine.
    Always,
    /// Never: the flags of a call are enough.
    Never,
}

/// The limits. The default has none.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Policy {
    pub ask: AskPerson,
    /// The only clouds that may be used; `None`: all.
    pub clouds: Option<Vec<String>>,
    /// Only tools that change nothing.
    pub read_only: bool,
    /// The most dollars an hour that what the registry launched may cost.
    pub max_hourly: Option<f64>,
    /// The days that a job is kept; `None`: [`KEEP_DAYS`].
    pub keep_days: Option<u16>,
    /// The longest wait of a call, in seconds; `None`: [`MAX_WAIT`], or [`MAX_WAIT_WITH_PROGRESS`].
    pub max_wait: Option<u16>,
}

/// The days that the Python server keeps a job.
const KEEP_DAYS: u16 = 7;

/// Many clients give up a call after a minute, unless they are shown its progress.
const MAX_WAIT: u16 = 55;
const MAX_WAIT_WITH_PROGRESS: u16 = 3600;

impl Policy {
    /// Reads the policy from the environment. `known`: all clouds.
    pub(crate) fn from_environment(known: &[&str]) -> Result<Self, PolicyError> {
        Self::parse(known, |variable| match std::env::var(variable.name) {
            Ok(value) => Some(value),
            Err(VarError::NotPresent) => None,
            Err(VarError::NotUnicode(value)) => Some(value.to_string_lossy().into_owned()),
        })
    }

    fn parse(
        known: &[&str],
        value_of: impl Fn(&Variable) -> Option<String>,
    ) -> Result<Self, PolicyError> {
        let value_of = &value_of;
        let known_clouds = format!("it is one or more of {}, with commas", known.join(", "));
        let clouds = |value: &str| {
            let names = value.split(',').map(|name| name.trim().to_owned());
            let names: Vec<String> = names.filter(|name| !name.is_empty()).collect();
            let is_known = |name: &String| known.contains(&name.as_str());
            (!names.is_empty() && names.iter().all(is_known)).then_some(names)
        };
        let number = |variable: &Variable, unit: &str| {
            let meant = format!("it is a whole number of {unit} from 1 to 65535");
            let read = |value: &str| value.parse().ok().filter(|number| *number > 0);
            read_variable(variable, value_of, &meant, read)
        };
        let ask = |value: &str| match value {
            "always" => Some(AskPerson::Always),
            "flags" => Some(AskPerson::Never),
            _ => None,
        };
        let read_only = |value: &str| match value {
            "1" | "true" => Some(true),
            "0" | "false" => Some(false),
            _ => None,
        };
        let dollars = |value: &str| {
            let dollars = value.trim_start_matches('$').parse().ok();
            dollars.filter(|dollars: &f64| dollars.is_finite() && *dollars >= 0.0)
        };
        let (of_ask, of_read_only) = (
            "it is `always` or `flags`, or not set",
            "it is 1 or 0, or not set",
        );
        let of_dollars = "it is a number of dollars, such as 50";
        Ok(Self {
            ask: read_variable(&env_vars::CONSENT, value_of, of_ask, ask)?.unwrap_or_default(),
            clouds: read_variable(&env_vars::CLOUDS, value_of, &known_clouds, clouds)?,
            read_only: read_variable(&env_vars::READ_ONLY, value_of, of_read_only, read_only)?
                .unwrap_or_default(),
            max_hourly: read_variable(&env_vars::MAX_HOURLY, value_of, of_dollars, dollars)?,
            keep_days: number(&env_vars::KEEP_DAYS, "days")?,
            max_wait: number(&env_vars::MAX_WAIT, "seconds")?,
        })
    }

    /// Returns the time that a job is kept after its submission.
    pub(crate) fn kept(&self) -> Duration {
        Duration::from_hours(24 * u64::from(self.keep_days.unwrap_or(KEEP_DAYS)))
    }

    /// Returns the longest wait of a call in seconds, for a client that is shown the progress of the call or not.
    pub(crate) fn max_wait(&self, shows_progress: bool) -> u64 {
        let by_default = if shows_progress {
            MAX_WAIT_WITH_PROGRESS
        } else {
            MAX_WAIT
        };
        self.max_wait.unwrap_or(by_default).into()
    }

    /// Returns the reason why a cloud may not be used.
    pub(crate) fn forbids(&self, cloud: &str) -> Option<String> {
        let allowed = self.clouds.as_ref()?;
        (!allowed.iter().any(|name| name == cloud)).then(|| {
            format!(
                "cloud {cloud:?} may not be used: {} allows only {}, as set by the server's administrator",
                env_vars::CLOUDS.name,
                allowed.join(", ")
            )
        })
    }
}

/// Reads a variable in lower case; `None` where it is not set or empty. `meant` is for a value that `read` does not know.
fn read_variable<T>(
    variable: &Variable,
    value_of: &impl Fn(&Variable) -> Option<String>,
    meant: &str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, PolicyError> {
    let Some(value) = value_of(variable).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let known = read(&value.trim().to_lowercase());
    known.map(Some).ok_or_else(|| PolicyError {
        variable: variable.name,
        value,
        meant: meant.to_owned(),
    })
}

#[cfg(test)]
#[path = "tests/policy.rs"]
mod tests;
