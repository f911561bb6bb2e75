//! Every environment variable the program reads or sets, in one table.

use tracing::level_filters::LevelFilter;

/// The beginning of the names that are ours.
const PREFIX: &str = "OUMI_MCP_";
/// Names at most so many letters apart are one name, misspelt.
const MISSPELT: usize = 2;

/// An environment variable, as `--help` shows it.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    pub name: &'static str,
    /// Includes the default.
    pub meaning: &'static str,
}

/// Moves the data folder.
pub const HOME: Variable = Variable {
    name: "OUMI_MCP_HOME",
    meaning: "Folder for the registry and the jobs' logs; an absolute path. Default: ~/.cache/oumi-mcp",
};

/// Names the `oumi` program.
pub const OUMI: Variable = Variable {
    name: "OUMI_MCP_OUMI",
    meaning: "Path of the `oumi` program. Default: looked for on PATH, then where pip, uv, pipx, conda and pyenv put it",
};

/// Names the `sky` program.
pub const SKY: Variable = Variable {
    name: "OUMI_MCP_SKY",
    meaning: "Path of SkyPilot's `sky` program. Default: looked for like `oumi`",
};

/// Switches SkyPilot's API server off as a source of answers.
pub const SKY_API: Variable = Variable {
    name: "OUMI_MCP_SKY_API",
    meaning: "off: `sky` is always run. Default: SkyPilot's API server is asked where it is up on this machine",
};

/// Oumi's own list of Slurm clusters.
pub const SLURM_CONNECTIONS: Variable = Variable {
    name: "OUMI_SLURM_CONNECTIONS",
    meaning: "Oumi's own: the Slurm clusters it may reach, as user@host[,…]; those of known jobs are added",
};

/// Sets how much the server logs on stderr.
pub const LOG: Variable = Variable {
    name: "OUMI_MCP_LOG",
    meaning: "Log level of stderr: error, warn, info, debug, trace or off. Default: warn",
};

/// Sets when the user is asked.
pub const CONSENT: Variable = Variable {
    name: "OUMI_MCP_CONSENT",
    meaning: "always: the user is asked before a job on this machine too. flags: never, for a client that offers to ask and does not",
};

/// Limits the clouds.
pub const CLOUDS: Variable = Variable {
    name: "OUMI_MCP_CLOUDS",
    meaning: "The only clouds that may be used, such as local,gcp. Default: all",
};

/// Limits what launches may cost.
pub const MAX_HOURLY: Variable = Variable {
    name: "OUMI_MCP_MAX_HOURLY",
    meaning: "The most dollars an hour that all launched clusters may cost together; more is refused. Default: no limit",
};

/// Hides what changes anything.
pub const READ_ONLY: Variable = Variable {
    name: "OUMI_MCP_READ_ONLY",
    meaning: "1: there are only the tools that change nothing. Default: 0",
};

/// Sets how long a job is kept.
pub const KEEP_DAYS: Variable = Variable {
    name: "OUMI_MCP_KEEP_DAYS",
    meaning: "Days that the record, the log and the folder of a job that is over are kept. Default: 7",
};

/// Lets a call wait for longer.
pub const MAX_WAIT: Variable = Variable {
    name: "OUMI_MCP_MAX_WAIT",
    meaning: "The longest wait_seconds of poll_status, for a client that lets a call take so long. Default: 55, and 3600 for calls whose progress the client shows",
};

/// Set for the processes of a job, so that they are found in the process table.
pub const JOB_DIR: Variable = Variable {
    name: "OUMI_MCP_JOB_DIR",
    meaning: "Set by the server for the processes of a job: the job's own folder",
};

/// Variables by which Oumi 0.9 launches a job otherwise than its config says: on spot machines or not, with other scripts. No
/// job gets them from the server's environment.
pub(crate) const OUMI_OVERRIDES: [&str; 2] = ["OUMI_USE_SPOT_VM", "OUMI_FORCE_EDITABLE_INSTALL"];

/// Every variable above, in the order in which `--help` lists them.
pub const ALL: &[Variable] = &[
    HOME,
    OUMI,
    SKY,
    SKY_API,
    SLURM_CONNECTIONS,
    CONSENT,
    CLOUDS,
    MAX_HOURLY,
    READ_ONLY,
    KEEP_DAYS,
    MAX_WAIT,
    LOG,
    JOB_DIR,
];

/// Returns the level that [`LOG`] names, `warn` where it is not set, and `None` where it names none.
pub(crate) fn log_level() -> Option<LevelFilter> {
    match std::env::var(LOG.name) {
        // An empty text would parse, as `error`.
        Ok(wanted) if !wanted.is_empty() => wanted.parse().ok(),
        _ => Some(LevelFilter::WARN),
    }
}

/// Lists the variables that are set and have no effect, each with what to do.
pub(crate) fn problems() -> Vec<String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut problems: Vec<String> = names.filter_map(|name| misspelt(&name)).collect();
    if log_level().is_none() {
        problems.push(format!(
            "{} names no level; it is error, warn, info, debug, trace or off",
            LOG.name
        ));
    }
    problems
}

/// Says what a variable may have been meant to be whose name is like one of ours.
fn misspelt(name: &str) -> Option<String> {
    if ALL.iter().any(|variable| variable.name == name) {
        return None;
    }
    let upper = name.to_uppercase();
    let distances = ALL
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&upper, known.name), known));
    let (distance, nearest) = distances.min_by_key(|(distance, _)| *distance)?;
    let is_like = distance <= MISSPELT;
    (is_like || upper.starts_with(PREFIX)).then(|| {
        let meant = is_like.then(|| format!("; did you mean {}?", nearest.name));
        let meant = meant.unwrap_or_else(|| "; `oumi-mcp-server --help` lists them".to_owned());
        format!("{name} is set in the server's environment and is none of its variables{meant}")
    })
}

#[cfg(test)]
mod tests {
    use super::misspelt;

    #[test]
    fn misspelt_names_are_recognised() {
        for (name, meant) in [
            ("OUMI_MCP_OUMMI", "mean OUMI_MCP_OUMI?"),
            ("OUMI_MCP_READONLY", "mean OUMI_MCP_READ_ONLY?"),
            ("oumi_mcp_home", "mean OUMI_MCP_HOME?"),
            ("OUMI_MPC_CLOUDS", "mean OUMI_MCP_CLOUDS?"),
            ("OUMI_MCP_VERBOSE", "--help"),
        ] {
            let problem = misspelt(name).unwrap();
            assert!(problem.contains(meant), "{problem}");
        }
        for other in [
            "OUMI_MCP_SKY",
            "OUMI_USER",
            "OUMI_SLURM_CONNECTIONS",
            "HOME",
        ] {
            assert_eq!(misspelt(other), None);
        }
    }
}
