//! The limits set in the server's environment: clouds, tools, and when the user is asked.

use std::time::Duration;

use crate::error::{JobError, Result};
use crate::settings::env_vars::{CLOUDS, CONSENT, KEEP_DAYS, MAX_HOURLY, MAX_WAIT, READ_ONLY};

/// The calls before which the user is asked, by clients that can ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum AskUser {
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
    pub ask: AskUser,
    /// The only clouds that may be used; `None`: all.
    pub clouds: Option<Vec<String>>,
    /// Only tools that change nothing.
    pub read_only: bool,
    /// The most dollars an hour that what the registry launched may cost.
    pub max_hourly: Option<f64>,
    /// The days that a job is kept; `None`: 7, as by the Python server.
    pub keep_days: Option<u16>,
    /// The longest wait of a call in seconds; `None`: 3600 for clients that show progress, else 55: many give up after a minute.
    pub max_wait: Option<u16>,
}

impl Policy {
    /// Reads the policy from the environment. `known`: all clouds. Fails for a value that is not known: it may forbid something.
    pub(crate) fn from_environment(known: &[&str]) -> Result<Self> {
        Self::parse(known, &|variable| {
            std::env::var_os(variable).map(|value| value.to_string_lossy().into_owned())
        })
    }

    fn parse(known: &[&str], value_of: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let clouds = |value: &str| {
            let names = value.split(',').map(|name| name.trim().to_owned());
            let names: Vec<String> = names.filter(|name| !name.is_empty()).collect();
            let is_known = |name: &String| known.contains(&name.as_str());
            (!names.is_empty() && names.iter().all(is_known)).then_some(names)
        };
        let known_clouds = format!("one or more of {}, with commas", known.join(", "));
        let ask = |value: &str| match value {
            "always" => Some(AskUser::Always),
            "flags" => Some(AskUser::Never),
            _ => None,
        };
        let switch = |value: &str| match value {
            "1" | "true" => Some(true),
            "0" | "false" => Some(false),
            _ => None,
        };
        let dollars = |value: &str| {
            let dollars = value.trim_start_matches('$').parse().ok();
            dollars.filter(|dollars: &f64| dollars.is_finite() && *dollars >= 0.0)
        };
        let number = |value: &str| value.parse().ok().filter(|number| *number > 0);
        let of = |unit: &str| format!("a whole number of {unit} from 1 to 65535");
        let ask = read(value_of, CONSENT, "`always` or `flags`, or not set", ask)?;
        let read_only = read(value_of, READ_ONLY, "1 or 0, or not set", switch)?;
        let max_hourly = "a number of dollars, such as 50";
        Ok(Self {
            ask: ask.unwrap_or_default(),
            clouds: read(value_of, CLOUDS, &known_clouds, clouds)?,
            read_only: read_only.unwrap_or_default(),
            max_hourly: read(value_of, MAX_HOURLY, max_hourly, dollars)?,
            keep_days: read(value_of, KEEP_DAYS, &of("days"), number)?,
            max_wait: read(value_of, MAX_WAIT, &of("seconds"), number)?,
        })
    }

    pub(crate) fn kept(&self) -> Duration {
        Duration::from_hours(24 * u64::from(self.keep_days.unwrap_or(7)))
    }

    /// Returns the longest wait of a call in seconds, for a client that is shown the progress of the call or not.
    pub(crate) fn max_wait(&self, shows_progress: bool) -> u64 {
        let default = if shows_progress { 3600 } else { 55 };
        self.max_wait.unwrap_or(default).into()
    }

    /// Fails for a cloud that may not be used.
    pub(crate) fn check(&self, cloud: &str) -> Result<()> {
        match &self.clouds {
            Some(allowed) if !allowed.iter().any(|name| name == cloud) => {
                let only = allowed.join(", ");
                let error = format!("cloud {cloud:?} may not be used: {CLOUDS} allows only {only}");
                Err(JobError::blocked(error).with_hint("tell the user"))
            }
            _ => Ok(()),
        }
    }
}

/// Reads a variable in lower case; `None` where it is not set or empty. `meant` is for a value that `parse` does not know.
fn read<T>(
    value_of: &dyn Fn(&str) -> Option<String>,
    variable: &str,
    meant: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>> {
    let Some(value) = value_of(variable).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let known = parse(&value.trim().to_lowercase());
    known.map(Some).ok_or_else(|| {
        JobError::invalid(format!("{variable} is {value:?}, and must be {meant}"))
            .with_hint("correct it in the environment that the server is started in")
    })
}

#[cfg(test)]
mod tests;
