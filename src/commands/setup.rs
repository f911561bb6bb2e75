//! `setup`: adds this server to the configuration of an MCP client.

use std::error::Error;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf, absolute};
use std::process::{Command, ExitCode};

use clap::ValueEnum;
use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstRootNode};

use super::{exit_code, print};
use crate::error::JobError;
use crate::process::find::{find_any_oumi, find_sky};
use crate::settings::data_dir::{read_bounded, write_atomic};
use crate::settings::env_vars;

/// The largest file of a client that is merged, in bytes. Claude Code keeps its history in such a file.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// The name of the server in the client's file.
const NAME: &str = "oumi";

/// The clients whose files are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Client {
    ClaudeCode,
    ClaudeDesktop,
    Cursor,
    Vscode,
    Codex,
    Gemini,
}

impl Client {
    /// Returns the client's name, the list of servers in its file for all projects, and that file, in the folder of settings
    /// (`~/.config`, on macOS `~/Library/Application Support`) or in the home folder, unless a variable moves it.
    fn place(self, home: &Path, settings: &Path) -> (&'static str, &'static str, PathBuf) {
        let moved = |variable: &str| match std::env::var_os(variable) {
            Some(folder) if !folder.is_empty() => PathBuf::from(folder),
            _ => home.to_owned(),
        };
        match self {
            Self::ClaudeCode => {
                let file = moved("CLAUDE_CONFIG_DIR").join(".claude.json");
                ("Claude Code", "mcpServers", file)
            }
            Self::ClaudeDesktop => {
                let file = settings.join("Claude/claude_desktop_config.json");
                ("Claude Desktop", "mcpServers", file)
            }
            Self::Cursor => ("Cursor", "mcpServers", home.join(".cursor/mcp.json")),
            Self::Vscode => ("VS Code", "servers", settings.join("Code/User/mcp.json")),
            // Its own command knows the place.
            Self::Codex => ("Codex", "mcp_servers", home.join(".codex/config.toml")),
            Self::Gemini => {
                let file = moved("GEMINI_CLI_HOME").join(".gemini/settings.json");
                ("Gemini CLI", "mcpServers", file)
            }
        }
    }
}

/// The programs that the client's file names, by absolute paths: a client started from a desktop has almost no PATH.
#[derive(Debug)]
struct Programs {
    server: String,
    /// The variables that name `oumi` and `sky`, where those were found.
    found: Vec<(&'static str, String)>,
}

impl Programs {
    fn find() -> Result<Self, JobError> {
        let text = |path: PathBuf| {
            let path = absolute(path)?.into_os_string().into_string();
            path.map_err(|path| JobError::failed(format!("the path {path:?} is not UTF-8")))
        };
        let programs = [
            (env_vars::OUMI, find_any_oumi().ok()),
            (env_vars::SKY, find_sky().ok()),
        ];
        let found = programs
            .into_iter()
            .filter_map(|(name, path)| Some(text(path?).map(|path| (name, path))));
        Ok(Self {
            server: text(own_path()?)?,
            found: found.collect::<Result<_, _>>()?,
        })
    }

    /// The command that adds the server to a client which keeps its file by itself.
    fn command(&self, client: Client) -> Option<Vec<String>> {
        let (words, variable_option): (&[&str], _) = match client {
            Client::ClaudeCode => (&["claude", "mcp", "add", NAME, "-s", "user"], "-e"),
            Client::Codex => (&["codex", "mcp", "add", NAME], "--env"),
            _ => return None,
        };
        let mut command: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        for (variable, path) in &self.found {
            command.extend([variable_option.to_owned(), format!("{variable}={path}")]);
        }
        command.extend(["--".to_owned(), self.server.clone()]);
        Some(command)
    }
}

/// Returns the path under which this program is installed: its name on PATH where that is this program, since such a link stays
/// when a new version is installed elsewhere. Fails for a program in uv's cache, which may be emptied.
pub(crate) fn own_path() -> Result<PathBuf, JobError> {
    let own = std::env::current_exe()?;
    if own.iter().any(|part| part == "archive-v0") {
        let error = JobError::failed(format!("{} lies in uv's cache", own.display()));
        return Err(error.with_hint("run `uv tool install oumi-mcp-server`, then this again"));
    }
    let on_path = which::which(env!("CARGO_PKG_NAME")).ok();
    let same = |path: &PathBuf| fs::canonicalize(path).ok() == fs::canonicalize(&own).ok();
    Ok(on_path.filter(same).unwrap_or(own))
}

/// Prints what to put where for a client to start this server; with `write`, does it and prints what was done.
pub fn run(client: Client, write: bool) -> ExitCode {
    exit_code(set_up(client, write).and_then(|text| {
        print(&text)?;
        Ok(ExitCode::SUCCESS)
    }))
}

pub(super) fn set_up(client: Client, write: bool) -> Result<String, Box<dyn Error + Send + Sync>> {
    let home = dirs::home_dir().ok_or("no home folder is known; set HOME")?;
    let settings = dirs::config_dir().ok_or("no folder of settings is known; set HOME")?;
    let place = client.place(&home, &settings);
    let programs = Programs::find()?;
    let mut text = match write {
        true => {
            exec_client(client, &programs)?;
            merge(client, place, &programs)?
        }
        false => instructions(client, place, &programs)?,
    };
    let mut names = programs.found.iter().map(|(name, _)| *name);
    if !names.any(|name| name == env_vars::OUMI) {
        text += "\n\nThe `oumi` program was not found, and training needs it. Install it with `pip install oumi`, then run this again \
                 where `which oumi` finds it.";
    }
    Ok(text)
}

fn instructions(
    client: Client,
    (title, servers, file): (&str, &str, PathBuf),
    programs: &Programs,
) -> Result<String, JobError> {
    let name = client.to_possible_value();
    let name = name.as_ref().map_or("", |value| value.get_name());
    let merged = format!("Or have it done: {} setup {name} --write", programs.server);
    if let Some(command) = programs.command(client) {
        let line = shlex::try_join(command.iter().map(String::as_str));
        let line = line.map_err(JobError::failed)?;
        return Ok(format!("Run this:\n\n  {line}\n\n{merged}"));
    }
    let entry = add_to(client, servers, "", programs)?;
    let file = file.display();
    Ok(format!(
        "Put this into {file}, beside the servers that are there, and restart {title}:\n\n{entry}\n{merged}"
    ))
}

/// Becomes the command of a client that changes its own file, where it is there.
fn exec_client(client: Client, programs: &Programs) -> Result<(), JobError> {
    let Some(command) = programs.command(client) else {
        return Ok(());
    };
    match which::which(&command[0]) {
        Ok(program) => {
            let error = Command::new(program).args(&command[1..]).exec();
            Err(JobError::failed(format!(
                "cannot run {}: {error}",
                command[0]
            )))
        }
        Err(_) if client == Client::Codex => {
            let hint = "run the line that `setup codex` prints where it is";
            Err(JobError::failed("`codex` is not on PATH").with_hint(hint))
        }
        Err(_) => Ok(()),
    }
}

/// Merges the server into the file. An unchanged file is not written; of a changed one a copy is kept.
fn merge(
    client: Client,
    (title, servers, file): (&str, &str, PathBuf),
    programs: &Programs,
) -> Result<String, JobError> {
    let at = file.display();
    let failed = |error| JobError::failed(format!("cannot use {at}: {error}"));
    // The file behind a link is replaced, not the link.
    let (target, old) = match fs::canonicalize(&file) {
        Ok(target) => {
            let old = read_bounded(&target, MAX_FILE_BYTES).map_err(failed)?;
            (target, old)
        }
        Err(error) if error.kind() == ErrorKind::NotFound && !file.is_symlink() => {
            (file.clone(), Vec::new())
        }
        Err(error) => return Err(failed(error)),
    };
    let added = String::from_utf8(old)
        .map_err(|_| JobError::failed("it is not UTF-8"))
        .and_then(|old| Ok((add_to(client, servers, &old, programs)?, old)));
    let (new, old) = added.map_err(|error| {
        error
            .context(&format!("{at} was left as it is"))
            .with_hint("correct it, or add the server by hand as `setup` without --write shows")
    })?;
    if new == old {
        return Ok(format!("Nothing to do: {at} has this server already."));
    }
    let mut kept = String::new();
    let rights = fs::metadata(&target).ok().map(|file| file.permissions());
    if rights.is_some() {
        let now = chrono::Local::now().format("%Y%m%d-%H%M%S");
        let copy = format!("{}.before-{NAME}-{now}", target.display());
        fs::copy(&target, &copy).map_err(failed)?;
        kept = format!(" The file as it was: {copy}.");
    } else if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    write_atomic(&target, new.as_bytes()).map_err(failed)?;
    if let Some(rights) = rights {
        fs::set_permissions(&target, rights).map_err(failed)?;
    }
    Ok(format!("Added to {at}.{kept} Restart {title}."))
}

/// Returns the text of a client's JSON file with the server in it. Comments, order and line ends stay.
fn add_to(
    client: Client,
    servers: &str,
    text: &str,
    programs: &Programs,
) -> Result<String, JobError> {
    let options = ParseOptions {
        allow_missing_commas: false,
        ..ParseOptions::default()
    };
    let root = CstRootNode::parse(text, &options).map_err(JobError::failed)?;
    let values = root.to_serde_value().unwrap_or_default();
    let old = &values[servers][NAME];
    if !old.is_null() && !old["command"].is_string() {
        let error = format!("its server {NAME:?} is not one that is started by a command");
        return Err(JobError::failed(error).with_hint("rename or remove that server"));
    }
    let set = |path: &[&str], value: CstInputValue| {
        let (name, parents) = path.split_last().unwrap_or((&"", &[]));
        let mut object = root.object_value_or_create();
        for parent in [servers, NAME].iter().chain(parents) {
            object = object.and_then(|object| object.object_value_or_create(parent));
        }
        let object = object.ok_or_else(|| JobError::failed("a part of it is not an object"))?;
        match object.get(name) {
            Some(old) => old.set_value(value),
            None => drop(object.append(name, value)),
        }
        Ok::<_, JobError>(())
    };
    if old.is_null() && client == Client::Vscode {
        set(&["type"], "stdio".into())?;
    }
    if old["command"] != *programs.server {
        set(&["command"], programs.server.as_str().into())?;
        if !old["args"].is_null() {
            // They belong to another program, such as `uvx`.
            set(&["args"], CstInputValue::Array(Vec::new()))?;
        }
    }
    for (variable, path) in &programs.found {
        // A program that was named by hand stays, as long as it is there.
        let named = old["env"][variable].as_str();
        if named.is_none_or(|named| which::which(named).is_err()) {
            set(&["env", variable], path.as_str().into())?;
        }
    }
    Ok(root.to_string())
}

#[cfg(test)]
#[path = "tests/setup.rs"]
mod tests;
