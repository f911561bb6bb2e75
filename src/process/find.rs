//! Finds the `oumi` and `sky` programs, also where a client started from a desktop has almost no PATH.

use std::path::{Path, PathBuf};

use crate::settings::env_vars::Variable;

/// A program was not found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgramNotFound {
    /// The variable that names it names nothing that can be run.
    #[error(
        "{variable} is {named:?}, which is no program; set it in the server's environment to the full path of `{name}`, or \
         unset it to have it looked for"
    )]
    Misnamed {
        /// The program.
        name: &'static str,
        /// The variable.
        variable: &'static str,
        /// What it holds.
        named: PathBuf,
    },
    /// It is nowhere.
    #[error(
        "the `{name}` program was not found on PATH or in {}; {install}, or set {variable} in the server's environment to its \
         full path",
        places.join(", ")
    )]
    Nowhere {
        /// The program.
        name: &'static str,
        /// The variable that can name it.
        variable: &'static str,
        /// How to get it.
        install: &'static str,
        /// Where was looked, besides PATH.
        places: Vec<String>,
    },
}

/// Where `oumi` is: what `OUMI_MCP_OUMI` names, else on PATH, else where pip, uv, pipx and conda put it. `project` is the
/// caller's folder, whose virtual environment is looked into as well.
///
/// # Errors
/// When it is nowhere; the error says where was looked and what to set.
pub fn find_oumi(project: &Path) -> Result<PathBuf, ProgramNotFound> {
    find(
        "oumi",
        crate::settings::env_vars::OUMI,
        "install it with `pip install oumi`",
        project,
    )
}

/// Where `sky` is, found like `oumi`.
///
/// # Errors
/// When it is nowhere; the error says where was looked and what to set.
pub fn find_sky(project: &Path) -> Result<PathBuf, ProgramNotFound> {
    find(
        "sky",
        crate::settings::env_vars::SKY,
        "install it with `pip install skypilot`",
        project,
    )
}

fn find(
    name: &'static str,
    variable: Variable,
    install: &'static str,
    project: &Path,
) -> Result<PathBuf, ProgramNotFound> {
    if let Some(named) = std::env::var_os(variable.name).filter(|value| !value.is_empty()) {
        // What was named is what is meant: nothing else is taken in its place.
        return which::which(&named).map_err(|_| ProgramNotFound::Misnamed {
            name,
            variable: variable.name,
            named: named.into(),
        });
    }
    let usual = usual_places(project);
    which::which(name)
        .ok()
        .or_else(|| {
            usual
                .iter()
                .find_map(|place| which::which(place.join(name)).ok())
        })
        .ok_or_else(|| ProgramNotFound::Nowhere {
            name,
            variable: variable.name,
            install,
            places: usual
                .iter()
                .map(|place| place.display().to_string())
                .collect(),
        })
}

fn usual_places(project: &Path) -> Vec<PathBuf> {
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

/// The PATH for a program found at `path`: its own folder first, since it starts its neighbours (`torchrun`, `python`).
pub fn path_with_folder_of(program: &Path) -> Option<String> {
    let folder = program.parent()?;
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&inherited).collect();
    if !folders.iter().any(|known| known == folder) {
        folders.insert(0, folder.to_owned());
    }
    std::env::join_paths(folders).ok()?.into_string().ok()
}
