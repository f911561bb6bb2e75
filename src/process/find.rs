//! Finds the `oumi` and `sky` programs, also where a client that was started from a desktop has almost no PATH.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::error::{JobError, Result};
use crate::settings::config::expand_home;
use crate::settings::env_vars;
use crate::sync::lock;

/// The virtual environments of a project folder; `.env` is that of Oumi's install guide.
const OF_PROJECT: [&str; 3] = [".venv/bin", "venv/bin", ".env/bin"];
/// Where pip --user, pipx, uv tool, conda, pyenv and Homebrew put programs. A `*` is any name.
const OF_MACHINE: &str = "~/.local/bin ~/.local/pipx/venvs/*/bin ~/.local/share/pipx/venvs/*/bin \
    ~/.local/share/uv/tools/*/bin ~/miniconda3/bin ~/miniconda3/envs/*/bin ~/anaconda3/bin ~/anaconda3/envs/*/bin \
    ~/miniforge3/bin ~/miniforge3/envs/*/bin ~/mambaforge/bin ~/mambaforge/envs/*/bin ~/.conda/envs/*/bin \
    ~/.pyenv/versions/*/bin ~/.venv/bin ~/.env/bin /opt/homebrew/bin /usr/local/bin /opt/conda/bin /opt/conda/envs/*/bin";
const INSTALL_OUMI: &str = "`pip install oumi`";
const INSTALL_SKY: &str =
    "`pip install 'oumi[gcp]'` (or aws, azure, kubernetes, lambda, nebius, runpod, slurm)";
/// The PATH that a desktop gives the programs it starts: launchd's, and the least of Linux.
const DESKTOP_PATH: &str = "/usr/bin:/bin:/usr/sbin:/sbin";

/// The project folders that calls have named. `sky` is asked about jobs of all of them.
static PROJECTS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Notes a project folder, in whose virtual environment programs are looked for.
pub(crate) fn add_project(project: &Path) {
    lock(&PROJECTS).insert(project.to_owned());
}

/// Finds `oumi`: what `OUMI_MCP_OUMI` names, else on PATH, else in a virtual environment of the folder `project` or where pip,
/// uv, pipx, conda and pyenv put it.
pub(crate) fn find_oumi(project: &Path) -> Result<PathBuf> {
    add_project(project);
    find("oumi", INSTALL_OUMI, env_vars::OUMI, &[project.to_owned()])
}

/// Finds `oumi` for questions that name no project.
pub(crate) fn find_any_oumi() -> Result<PathBuf> {
    find("oumi", INSTALL_OUMI, env_vars::OUMI, &projects())
}

/// Finds `sky` likewise, and after PATH beside the `oumi` that a variable names: pip puts both into one folder.
pub(crate) fn find_sky() -> Result<PathBuf> {
    find("sky", INSTALL_SKY, env_vars::SKY, &projects())
}

/// Finds `oumi` as the server of a client does that was started from the desktop, without a variable or a project.
pub(crate) fn find_oumi_from_desktop() -> Option<PathBuf> {
    search("oumi", DESKTOP_PATH.as_ref(), &[])
}

/// Lists the folder that the server was started in, which is the project's with most clients, and those that calls named.
fn projects() -> Vec<PathBuf> {
    let own = std::env::current_dir().ok();
    own.into_iter().chain(lock(&PROJECTS).clone()).collect()
}

fn find(name: &str, install: &str, variable: &str, projects: &[PathBuf]) -> Result<PathBuf> {
    if let Some(named) = named(name, variable) {
        return named;
    }
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(oumi) = std::env::var_os(env_vars::OUMI)
        && let Some(folder) = Path::new(&oumi).parent()
    {
        path.push(":");
        path.push(folder);
    }
    search(name, &path, projects).ok_or_else(|| {
        let error = format!(
            "the `{name}` program was not found on PATH, in .venv, venv or .env of the project, or where pip, pipx, uv, conda and pyenv put programs"
        );
        JobError::failed(error).with_hint(format!(
            "install it with {install}, or set {variable} in the server's environment to its full path"
        ))
    })
}

/// Finds the program that a variable names, where it is set: no other may take its place.
fn named(name: &str, variable: &str) -> Option<Result<PathBuf>> {
    let named = std::env::var_os(variable).filter(|value| !value.is_empty())?;
    Some(which::which(&named).map_err(|_| {
        JobError::failed(format!("{variable} is {named:?}, which is not a program"))
            .with_hint(format!(
                "set it in the server's environment to the full path of `{name}`, or unset it to have it looked for"
            ))
    }))
}

/// Describes the fault of `OUMI_MCP_OUMI`, where it has one: before the first call that needs `oumi`.
pub(crate) fn problem() -> Option<String> {
    let named = named("oumi", env_vars::OUMI)?;
    named.err().map(|error| error.to_string())
}

/// Looks in the folders of a PATH, then of projects, then of this machine.
fn search(name: &str, path: &OsStr, projects: &[PathBuf]) -> Option<PathBuf> {
    let of_project = |project: &PathBuf| OF_PROJECT.map(|below| project.join(below));
    let folders = std::env::split_paths(path)
        .chain(projects.iter().flat_map(of_project))
        .chain(OF_MACHINE.split(' ').flat_map(folders_of));
    let files = folders.map(|folder| folder.join(name));
    let mut files = files.filter(|file| file.exists());
    files.find_map(|file| which::which(file).ok())
}

/// Lists the folders of a place. A `*` stands for any name, the last first: of several versions, the newest.
fn folders_of(place: &str) -> Vec<PathBuf> {
    let Some((parent, below)) = place.split_once("/*/") else {
        return vec![expand_home(place)];
    };
    let entries = expand_home(parent).read_dir().into_iter().flatten();
    let folders = entries.flatten().map(|entry| entry.path().join(below));
    let mut folders: Vec<PathBuf> = folders.collect();
    folders.sort_unstable_by(|one, other| other.cmp(one));
    folders
}

/// Returns the PATH for a program: its own folder first, since it starts its neighbours (`torchrun`, `python`). Where it is a link,
/// as uv and pipx make of `oumi` alone, they lie beside what it leads to: that folder comes last, so that `python` stays the user's.
pub(crate) fn path_with_folder_of(program: &Path) -> Option<String> {
    let folder = program.parent()?;
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&inherited).collect();
    if !folders.iter().any(|known| known == folder) {
        folders.insert(0, folder.to_owned());
    }
    let real = program.canonicalize().unwrap_or_default();
    let real = real.parent().map(Path::to_owned);
    folders.extend(real.filter(|real| !folders.contains(real)));
    std::env::join_paths(folders).ok()?.into_string().ok()
}
