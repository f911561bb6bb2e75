//! The settings outside a plan that change what a launch does: of Oumi 0.9, and of SkyPilot 0.12 to 0.14.

use std::path::{Path, PathBuf};

use crate::settings::config::expand_home;
use crate::settings::data_dir::read_bounded;
use crate::settings::env_vars::OUMI_OVERRIDES;

/// The largest configuration of SkyPilot that is looked into, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;
/// The sections of it that concern no launch of ours.
const HARMLESS: [&str; 7] = [
    "jobs",
    "serve",
    "logs",
    "db",
    "dashboard",
    "daemons",
    "rbac",
];

/// Warns of the settings that SkyPilot reads beside the job config, and of those of Oumi that are not passed on.
pub(super) fn warnings(project: &Path) -> Vec<String> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let ignored = OUMI_OVERRIDES
        .into_iter()
        .filter(|name| set(name).is_some());
    let ignored = ignored.map(|name| {
        format!("{name} is set and is not passed on: the job is launched as this plan shows it")
    });
    let path = |variable: &str, default: PathBuf| {
        set(variable).map_or(default, |path| project.join(expand_home(&path)))
    };
    let paths = match set("SKYPILOT_CONFIG") {
        Some(only) => vec![project.join(expand_home(&only))],
        None => vec![
            path("SKYPILOT_GLOBAL_CONFIG", expand_home("~/.sky/config.yaml")),
            path("SKYPILOT_PROJECT_CONFIG", project.join(".sky.yaml")),
        ],
    };
    let configs = paths.into_iter().filter_map(|path| {
        let sections = match read_bounded(&path, MAX_BYTES) {
            Ok(text) => sections(&String::from_utf8_lossy(&text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => error.to_string(),
        };
        let beside =
            "what it sets is not in this plan, and may change the machines and their price";
        (!sections.is_empty()).then(|| {
            format!(
                "SkyPilot also reads {} ({sections}): {beside}",
                path.display()
            )
        })
    });
    let server = set("SKYPILOT_API_SERVER_ENDPOINT").map(|_| {
        "the SkyPilot API server of SKYPILOT_API_SERVER_ENDPOINT has settings of its own, which may change what is launched"
            .to_owned()
    });
    ignored.chain(configs).chain(server).collect()
}

/// Names the sections of a configuration that may change a launch.
fn sections(yaml: &str) -> String {
    let names = yaml.lines().filter_map(|line| line.split_once(':'));
    let is_section = |name: &&str| {
        name.starts_with(|first: char| first.is_ascii_alphabetic()) && !HARMLESS.contains(name)
    };
    let names: Vec<&str> = names.map(|(name, _)| name).filter(is_section).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_that_may_change_a_launch_are_named() {
        for (yaml, named) in [
            ("", ""),
            ("# aws: x\njobs:\n  aws: 1\nlogs: {}\n", ""),
            (
                "admin_policy: a.B\naws:\n  prioritize_reservations: true\n",
                "admin_policy, aws",
            ),
        ] {
            assert_eq!(sections(yaml), named);
        }
    }

    #[test]
    fn configuration_of_the_project_is_named() {
        let project = tempfile::tempdir().unwrap();
        std::fs::write(project.path().join(".sky.yaml"), "aws: {}\n").unwrap();
        let warnings = warnings(project.path()).join("\n");
        assert!(warnings.contains(".sky.yaml (aws)"), "{warnings}");
    }
}
