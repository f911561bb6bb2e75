//! What whoever set the server up allows: which clouds, which tools, and when the person is asked.

use std::env::VarError;

use crate::settings::env_vars::{self, Variable};

/// A variable holds something that means nothing. The server does not start then: it would allow more than was meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{variable} cannot be {value:?}: {meant}; correct it in the environment that the server is started in"
)]
pub struct PolicyError {
    variable: &'static str,
    value: String,
    meant: String,
}

/// When the person is asked, where the client can ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AskPerson {
    /// Before what costs money, or ends what was not started here.
    #[default]
    ForClouds,
    /// Before each launch as well, on this machine too.
    Always,
    /// Never: what a call says has to do.
    Never,
}

/// What is allowed. The default allows all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// When the person is asked.
    pub ask: AskPerson,
    /// The only clouds that may be used; nothing when all may.
    pub clouds: Option<Vec<String>>,
    /// Nothing may be changed.
    pub read_only: bool,
}

impl Policy {
    /// The policy that the environment holds. `known` are the clouds there are.
    ///
    /// # Errors
    /// When a variable holds what it cannot mean.
    pub fn from_environment(known: &[&str]) -> Result<Self, PolicyError> {
        Self::of(known, |variable| match std::env::var(variable.name) {
            Ok(value) => Some(value),
            Err(VarError::NotPresent) => None,
            Err(VarError::NotUnicode(value)) => Some(value.to_string_lossy().into_owned()),
        })
    }

    fn of(
        known: &[&str],
        value_of: impl Fn(&Variable) -> Option<String>,
    ) -> Result<Self, PolicyError> {
        // An empty one is none, as for the other variables.
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
        Ok(Self {
            ask,
            clouds,
            read_only,
        })
    }

    /// Why a cloud may not be used; nothing when it may.
    pub fn forbids(&self, cloud: &str) -> Option<String> {
        let allowed = self.clouds.as_ref()?;
        (!allowed.iter().any(|name| name == cloud)).then(|| {
            format!(
                "cloud {cloud:?} may not be used: {} allows only {}, and whoever set this server up decides that",
                env_vars::CLOUDS.name,
                allowed.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Policy, String> {
        let value_of = |wanted: &Variable| {
            let mut variables = variables.iter();
            let found = variables.find(|(name, _)| *name == wanted.name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Policy::of(&["local", "gcp"], value_of).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_set_or_empty_allows_all() {
        for empty in [
            &[][..],
            &[
                ("OUMI_MCP_CONSENT", ""),
                ("OUMI_MCP_CLOUDS", ""),
                ("OUMI_MCP_READ_ONLY", ""),
            ],
        ] {
            assert_eq!(of(empty), Ok(Policy::default()));
        }
        assert_eq!(Policy::default().forbids("gcp"), None);
    }

    #[test]
    fn each_variable_is_read_in_any_case_and_with_blanks() {
        let policy = of(&[
            ("OUMI_MCP_CONSENT", "Always "),
            ("OUMI_MCP_CLOUDS", " GCP ,local,"),
            ("OUMI_MCP_READ_ONLY", "true"),
        ])
        .unwrap();
        assert_eq!((policy.ask, policy.read_only), (AskPerson::Always, true));
        assert_eq!(policy.forbids("gcp"), None);
        assert!(policy.forbids("aws").unwrap().contains("OUMI_MCP_CLOUDS"));
        let policy = of(&[("OUMI_MCP_CONSENT", "flags"), ("OUMI_MCP_READ_ONLY", "0")]);
        assert_eq!(policy.unwrap().ask, AskPerson::Never);
    }

    #[test]
    fn what_means_nothing_is_refused_by_name_with_what_could_be_meant() {
        for (name, value, meant) in [
            ("OUMI_MCP_CONSENT", "never", "`always` or `flags`"),
            ("OUMI_MCP_CONSENT", " ", "`always` or `flags`"),
            ("OUMI_MCP_CLOUDS", "local,gpc", "local, gcp"),
            ("OUMI_MCP_CLOUDS", ",", "local, gcp"),
            ("OUMI_MCP_READ_ONLY", "yes please", "1 or 0"),
        ] {
            let error = of(&[(name, value)]).unwrap_err();
            assert!(error.contains(name) && error.contains(meant), "{error}");
        }
    }
}
