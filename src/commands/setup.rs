//! `setup`: adds this server to the configuration of an MCP client.

mod client_file;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf, absolute};

use chrono::Utc;
use clap::ValueEnum;

use self::client_file::ClientFile;
use crate::error::{JobError, Result};
use crate::process::find::{find_any_oumi, find_sky};
use crate::settings::data_dir::{if_found, read_bounded, write_atomic};
use crate::settings::env_vars;
use crate::text::compact;

/// The largest file of a client that is merged, in bytes. Claude Code keeps its history in such a file.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// The name of the server in the client's file.
const NAME: &str = "oumi";

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
    /// Returns the client's title, and its file for all projects. `config` is `~/.config`, on macOS `~/Library/Application Support`;
    /// `variable` reads the variable with which a client moves its files.
    fn title_and_file(
        self,
        home: &Path,
        config: &Path,
        variable: impl Fn(&str) -> Option<PathBuf>,
    ) -> (&'static str, PathBuf) {
        let (title, moved_by, path) = match self {
            Self::ClaudeCode => ("Claude Code", "CLAUDE_CONFIG_DIR", ".claude.json"),
            Self::ClaudeDesktop => ("Claude Desktop", "", "Claude/claude_desktop_config.json"),
            Self::Cursor => ("Cursor", "", ".cursor/mcp.json"),
            Self::Vscode => ("VS Code", "", "Code/User/mcp.json"),
            Self::Codex => ("Codex", "CODEX_HOME", ".codex/config.toml"),
            Self::Gemini => ("Gemini CLI", "GEMINI_CLI_HOME", ".gemini/settings.json"),
        };
        let file = match (variable(moved_by), self) {
            // It stands for the folder itself.
            (Some(folder), Self::Codex) => folder.join("config.toml"),
            (Some(folder), _) => folder.join(path),
            (None, Self::ClaudeDesktop | Self::Vscode) => config.join(path),
            (None, _) => home.join(path),
        };
        (title, file)
    }

    /// Returns the name of the list of servers in the client's file.
    fn servers(self) -> &'static str {
        match self {
            Self::Codex => "mcp_servers",
            Self::Vscode => "servers",
            _ => "mcpServers",
        }
    }
}

/// The programs that the client's file names, by absolute paths: a client started from a desktop has almost no PATH.
#[derive(Debug)]
struct Programs {
    server: String,
    /// The variables that name `oumi` and `sky`, where those were found, and the data folder, where one is named.
    found: Vec<(&'static str, String)>,
}

impl Programs {
    fn find() -> Result<Self> {
        let text = |path: PathBuf| {
            let path = absolute(path)?.into_os_string().into_string();
            path.map_err(|path| JobError::failed(format!("the path {path:?} is not UTF-8")))
        };
        let mut found = Vec::new();
        for (variable, path) in [
            (env_vars::OUMI, find_any_oumi()),
            (env_vars::SKY, find_sky()),
        ] {
            if let Ok(path) = path {
                found.push((variable, text(path)?));
            }
        }
        // Else the client's jobs would not be those of the person's shell.
        if let Some(home) = std::env::var_os(env_vars::HOME).filter(|value| !value.is_empty()) {
            found.push((env_vars::HOME, text(home.into())?));
        }
        let server = text(own_path()?)?;
        Ok(Self { server, found })
    }

    fn claude_arguments(&self) -> Vec<String> {
        let mut arguments = ["mcp", "add", NAME, "-s", "user"]
            .map(str::to_owned)
            .to_vec();
        for (variable, path) in &self.found {
            arguments.extend(["-e".to_owned(), format!("{variable}={path}")]);
        }
        arguments.extend(["--".to_owned(), self.server.clone()]);
        arguments
    }
}

/// Returns the path under which this program is installed: its name on PATH where that is this program, since such a link stays
/// when a new version is installed elsewhere. Fails for a program in uv's cache, which may be emptied.
pub(crate) fn own_path() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    if own.iter().any(|part| part == "archive-v0") {
        let error = JobError::failed(format!("{} lies in uv's cache", own.display()));
        return Err(error.with_hint("run `uv tool install oumi-mcp-server`, then this again"));
    }
    let on_path = which::which(env!("CARGO_PKG_NAME")).ok();
    let same = |path: &PathBuf| fs::canonicalize(path).ok() == fs::canonicalize(&own).ok();
    Ok(on_path.filter(same).unwrap_or(own))
}

/// Returns what to put where for a client to start this server; with `write`, does it and returns what was done.
pub fn set_up(client: Client, write: bool) -> Result<String, Box<dyn Error + Send + Sync>> {
    let home = dirs::home_dir().ok_or("no home folder is known; set HOME")?;
    let config = dirs::config_dir().ok_or("no folder of settings is known; set HOME")?;
    let (title, file) = client.title_and_file(&home, &config, |name| {
        let value = std::env::var_os(name).filter(|value| !value.is_empty());
        value.map(PathBuf::from)
    });
    let programs = Programs::find()?;
    let mut text = if write {
        merge(client, &file, &programs)?
    } else {
        let how = match client {
            Client::ClaudeCode => {
                let arguments = programs.claude_arguments();
                let line = shlex::try_join(arguments.iter().map(String::as_str))?;
                format!("Run this:\n\n  claude {line}\n")
            }
            _ => {
                let entry = add_to(client, "", &programs)?.unwrap_or_default();
                let file = file.display();
                format!(
                    "Put this into {file}, beside the servers that are there, and restart {title}:\n\n{entry}"
                )
            }
        };
        let name = client.to_possible_value();
        let name = name.map_or_else(String::new, |value| value.get_name().to_owned());
        format!(
            "{how}\nOr have it done: {} setup {name} --write",
            programs.server
        )
    };
    let mut found = programs.found.iter();
    if found.all(|(name, _)| *name != env_vars::OUMI) {
        text += "\n\nThe `oumi` program was not found, and training needs it. Install it with `pip install oumi`, then run \
                 this again where `which oumi` finds it.";
    }
    Ok(text)
}

/// Merges the server into the file. An unchanged file is not written.
fn merge(client: Client, file: &Path, programs: &Programs) -> Result<String> {
    let at = file.display();
    // The file behind a link is replaced, not the link.
    let target = match file.is_symlink() {
        true => fs::canonicalize(file)
            .map_err(|error| JobError::failed(format!("cannot use {at}: {error}")))?,
        false => file.to_owned(),
    };
    let refused = |error: JobError| {
        let hint = "correct it, or add the server by hand as `setup` without --write shows";
        error
            .context(&format!("{at} was left as it is"))
            .with_hint(hint)
    };
    let text = String::from_utf8(read_or_empty(&target)?);
    let text = text.map_err(|_| refused(JobError::failed("it is not UTF-8")))?;
    let Some(new) = add_to(client, &text, programs).map_err(refused)? else {
        return Ok(format!("Nothing to do: {at} has this server already."));
    };
    let kept = replace(&target, &text, &new)?;
    Ok(format!("Added to {at}. Restart the client.{kept}"))
}

/// Reads a client's file; one that is not there is empty.
fn read_or_empty(file: &Path) -> Result<Vec<u8>> {
    let failed = |error| JobError::failed(format!("cannot use {}: {error}", file.display()));
    let read = if_found(read_bounded(file, MAX_FILE_BYTES)).map_err(failed)?;
    Ok(read.unwrap_or_default())
}

/// Replaces the text of a file, keeps its rights and a copy, and names that. Fails where the file is no longer `old`: a client
/// that runs may write it too.
fn replace(file: &Path, old: &str, new: &str) -> Result<String> {
    let at = file.display();
    let failed = |error| JobError::failed(format!("cannot use {at}: {error}"));
    let now = compact(Utc::now());
    let copy = format!("{at}.before-{NAME}-{now}");
    let rights = fs::metadata(file).ok().map(|file| file.permissions());
    if rights.is_some() {
        fs::copy(file, &copy).map_err(failed)?;
    } else if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    if read_or_empty(file)? != old.as_bytes() {
        let _ = fs::remove_file(&copy);
        let error = JobError::failed(format!("{at} was changed meanwhile, and left as it is"));
        return Err(error.with_hint("close the client, and run this again"));
    }
    write_atomic(file, new.as_bytes()).map_err(failed)?;
    let Some(rights) = rights else {
        return Ok(String::new());
    };
    fs::set_permissions(file, rights).map_err(failed)?;
    Ok(format!(" The file as it was: {copy}."))
}

/// Returns the text of the client's file with the server in it; `None` where it is in it as it should be.
fn add_to(client: Client, text: &str, programs: &Programs) -> Result<Option<String>> {
    let servers = client.servers();
    let mut file = ClientFile::parse(text, client == Client::Codex)?;
    let old = file.values[servers][NAME].clone();
    if !old.is_null() && !old["command"].is_string() {
        let error = format!("its server {NAME:?} is not one that is started by a command");
        return Err(JobError::failed(error).with_hint("rename or remove that server"));
    }
    let mut set = |path: &[&str], value: &str| {
        let set = file.set(&[&[servers, NAME], path].concat(), value);
        set.ok_or_else(|| JobError::failed("something else stands where this server belongs"))
    };
    if old.is_null() && client == Client::Vscode {
        set(&["type"], "stdio")?;
    }
    if old["command"] != *programs.server {
        set(&["command"], &programs.server)?;
        if !old["args"].is_null() {
            // They belong to another program, such as `uvx`.
            set(&["args"], "")?;
        }
    }
    for (variable, path) in &programs.found {
        // What was named by hand stays, as long as it is there.
        let named = old["env"][variable].as_str();
        if named.is_none_or(|named| !Path::new(named).is_dir() && which::which(named).is_err()) {
            set(&["env", variable], path)?;
        }
    }
    Ok(file.into_text().filter(|new| new != text))
}

#[cfg(test)]
#[path = "tests/setup.rs"]
mod tests;
