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
        // An empty variable counts as unset, as for the others.
        let value_of = |variable: &Variable| value_of(variable).filter(|value| !value.is_empty());
        let refused = |variable: &Variable, value: &str, meant: String| PolicyError {
            variable: variable.name,
            value: value.to_owned(),
            meant,
        };
        let ask = match value_of(&env_vars::CONSENT) {
            None => AskPerson::ForClouds,
            Some(value) => match value.trim().to_lowercase().as_str() {
                "always" => AskPerson::Always,
                "flags" => AskPerson::Never,
                _ => {
                    let meant = "it is `always` or `flags`, or not set".to_owned();
                    return Err(refused(&env_vars::CONSENT, &value, meant));
                }
            },
        };
        let clouds = match value_of(&env_vars::CLOUDS) {
            None => None,
            Some(value) => {
                let names = value.split(',').map(|name| name.trim().to_lowercase());
                let names: Vec<String> = names.filter(|name| !name.is_empty()).collect();
                if names.is_empty() || names.iter().any(|name| !known.contains(&name.as_str())) {
                    let meant = format!("it is one or more of {}, with commas", known.join(", "));
                    return Err(refused(&env_vars::CLOUDS, &value, meant));
                }
                Some(names)
            }
        };
        let read_only = match value_of(&env_vars::READ_ONLY) {
            None => false,
            Some(value) => match value.trim().to_lowercase().as_str() {
                "1" | "true" => true,
                "0" | "false" => false,
                _ => {
                    let meant = "it is 1 or 0, or not set".to_owned();
                    return Err(refused(&env_vars::READ_ONLY, &value, meant));
                }
            },
        };
        let number = |variable: &Variable, unit: &str| {
            let number = value_of(variable).map(|value| {
                let number = value.trim().parse().ok().filter(|number| *number > 0);
                let meant = || format!("it is a whole number of {unit} from 1 to 65535");
                number.ok_or_else(|| refused(variable, &value, meant()))
            });
            number.transpose()
        };
        let max_hourly = value_of(&env_vars::MAX_HOURLY).map(|value| {
            let dollars = value.trim().trim_start_matches('$').parse().ok();
            let dollars = dollars.filter(|dollars: &f64| dollars.is_finite() && *dollars >= 0.0);
            let meant = || "it is a number of dollars, such as 50".to_owned();
            dollars.ok_or_else(|| refused(&env_vars::MAX_HOURLY, &value, meant()))
        });
        Ok(Self {
            ask,
            clouds,
            read_only,
            max_hourly: max_hourly.transpose()?,
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

#[cfg(test)]
#[path = "tests/policy.rs"]
mod tests;
