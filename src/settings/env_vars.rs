//! Every environment variable the program reads or sets, in one table.

use tracing::level_filters::LevelFilter;

pub const HOME: &str = "OUMI_MCP_HOME";
pub const OUMI: &str = "OUMI_MCP_OUMI";
pub const SKY: &str = "OUMI_MCP_SKY";
pub const SKY_API: &str = "OUMI_MCP_SKY_API";
pub const SLURM_CONNECTIONS: &str = "OUMI_SLURM_CONNECTIONS";
pub const CONSENT: &str = "OUMI_MCP_CONSENT";
pub const CLOUDS: &str = "OUMI_MCP_CLOUDS";
pub const MAX_HOURLY: &str = "OUMI_MCP_MAX_HOURLY";
pub const READ_ONLY: &str = "OUMI_MCP_READ_ONLY";
pub const KEEP_DAYS: &str = "OUMI_MCP_KEEP_DAYS";
pub const MAX_WAIT: &str = "OUMI_MCP_MAX_WAIT";
pub const LOG: &str = "OUMI_MCP_LOG";
pub const JOB_DIR: &str = "OUMI_MCP_JOB_DIR";

/// Variables by which Oumi 0.9 launches a job otherwise than its config says. No job gets them from the server's environment.
pub(crate) const OUMI_OVERRIDES: [&str; 2] = ["OUMI_USE_SPOT_VM", "OUMI_FORCE_EDITABLE_INSTALL"];

const PREFIX: &str = "OUMI_MCP_";

/// Each variable with its meaning and default.
const TABLE: &str = include_str!("env_vars.txt");

/// Lists each variable with its meaning, in the order of `--help`.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE.lines().filter_map(|line| line.split_once(": "))
}

/// Returns the level that [`LOG`] names, `warn` where it is not set, and `None` where it names none.
pub(crate) fn log_level() -> Option<LevelFilter> {
    match std::env::var(LOG) {
        // An empty text would parse, as `error`.
        Ok(wanted) if !wanted.is_empty() => wanted.parse().ok(),
        _ => Some(LevelFilter::WARN),
    }
}

/// Lists the variables that are set and have no effect, each with what to do.
pub(crate) fn problems() -> Vec<String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let unknown = names.filter(|name| is_unknown(name)).map(|name| {
        format!("{name} is set in the server's environment and is not one of its variables; `oumi-mcp-server --help` lists them")
    });
    let mut problems: Vec<String> = unknown.collect();
    // What is finer than `info` is not compiled in.
    if log_level().is_none_or(|level| level > LevelFilter::INFO) {
        problems.push(format!("{LOG} must be error, warn, info or off"));
    }
    let sky_api = std::env::var_os(SKY_API);
    if sky_api.is_some_and(|value| !value.is_empty() && value != "off") {
        problems.push(format!("{SKY_API} has no effect; it can only be off"));
    }
    problems
}

/// Tells if a name looks like one of ours and is none, nor that of Oumi's own MCP server.
fn is_unknown(name: &str) -> bool {
    let is_known = name == "OUMI_MCP_CONFIGS_DIR" || all().any(|(known, _)| known == name);
    name.to_uppercase().starts_with(PREFIX) && !is_known
}

#[cfg(test)]
mod tests {
    use super::is_unknown;

    #[test]
    fn misspelt_names_are_recognised() {
        for (name, is_one) in [
            ("OUMI_MCP_READONLY", true),
            ("oumi_mcp_home", true),
            ("OUMI_MCP_SKY", false),
            ("OUMI_MCP_CONFIGS_DIR", false),
            ("OUMI_SLURM_CONNECTIONS", false),
            ("HOME", false),
        ] {
            assert_eq!(is_unknown(name), is_one, "{name}");
        }
    }
}
