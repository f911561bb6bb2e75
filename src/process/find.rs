//! Finds the `oumi` and `sky` programs, also where a client that was started from a desktop has almost no PATH.

use std::path::{Path, PathBuf};

use crate::error::JobError;
use crate::settings::env_vars::{self, Variable};

/// Finds `oumi`: what `OUMI_MCP_OUMI` names, else on PATH, else where pip, uv, pipx and conda put it, or in a virtual
/// environment of the caller's folder `project`.
pub(crate) fn find_oumi(project: &Path) -> Result<PathBuf, JobError> {
    find("oumi", "oumi", env_vars::OUMI, project)
}

/// Finds `sky` in the same places.
pub(crate) fn find_sky(project: &Path) -> Result<PathBuf, JobError> {
    find("sky", "skypilot", env_vars::SKY, project)
}

fn find(
    name: &str,
    package: &str,
    variable: Variable,
    project: &Path,
) -> Result<PathBuf, JobError> {
    let variable = variable.name;
    if let Some(named) = std::env::var_os(variable).filter(|value| !value.is_empty()) {
        // No other program may take the place of the one that was named.
        return which::which(&named).map_err(|_| {
            JobError::program_not_found(format!("{variable} is {named:?}, which is no program"))
                .with_hint(format!(
                    "set it in the server's environment to the full path of `{name}`, or unset it to have it looked for"
                ))
        });
    }
    let places = well_known_dirs(project);
    let in_places = || {
        places
            .iter()
            .find_map(|place| which::which(place.join(name)).ok())
    };
    let found = which::which(name).ok().or_else(in_places);
    found.ok_or_else(|| {
        let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        JobError::program_not_found(format!(
            "the `{name}` program was not found on PATH or in {}",
            places.join(", ")
        ))
        .with_hint(format!(
            "install it with `pip install {package}`, or set {variable} in the server's environment to its full path"
        ))
    })
}

fn well_known_dirs(project: &Path) -> Vec<PathBuf> {
    let mut places = vec![project.join(".venv/bin"), project.join("venv/bin")];
    if let Some(home) = dirs::home_dir() {
        // pip --user, uv tool and pipx; then conda's usual roots.
        let below_home = [
            ".local/bin",
            ".local/pipx/venvs/oumi/bin",
            ".local/share/uv/tools/oumi/bin",
            "miniconda3/bin",
            "anaconda3/bin",
            "miniforge3/bin",
            ".venv/bin",
        ];
        places.extend(below_home.map(|below| home.join(below)));
    }
    places.extend(["/opt/homebrew/bin", "/usr/local/bin", "/opt/conda/bin"].map(PathBuf::from));
    places
}

/// Returns the PATH for a program: its own folder first, since it starts its neighbours (`torchrun`, `python`).
pub(crate) fn path_with_folder_of(program: &Path) -> Option<String> {
    let folder = program.parent()?;
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&inherited).collect();
    if !folders.iter().any(|known| known == folder) {
        folders.insert(0, folder.to_owned());
    }
    std::env::join_paths(folders).ok()?.into_string().ok()
}
