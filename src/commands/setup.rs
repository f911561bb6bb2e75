//! `setup`: adds this server to the configuration of an MCP client.

mod client_file;

use std::error::Error;
use std::fs;
use std::io;
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
    /// Returns the client's file for all projects. `config` is `~/.config`, on macOS `~/Library/Application Support`.
    fn file(
        self,
        home: &Path,
        config: &Path,
        variable: impl Fn(&str) -> Option<PathBuf>,
    ) -> PathBuf {
        let codex = home.join(".codex");
        // Some clients have a variable that moves their folder.
        let (moved_by, folder, file) = match self {
            Self::ClaudeCode => ("CLAUDE_CONFIG_DIR", home, ".claude.json"),
            Self::ClaudeDesktop => ("", config, "Claude/claude_desktop_config.json"),
            Self::Cursor => ("", home, ".cursor/mcp.json"),
            Self::Vscode => ("", config, "Code/User/mcp.json"),
            Self::Codex => ("CODEX_HOME", &*codex, "config.toml"),
            Self::Gemini => ("GEMINI_CLI_HOME", home, ".gemini/settings.json"),
        };
        variable(moved_by).as_deref().unwrap_or(folder).join(file)
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
        // Without it the client would not see the jobs of the person's shell.
        let home = std::env::var_os(env_vars::HOME).filter(|value| !value.is_empty());
        let mut found = Vec::new();
        for (variable, path) in [
            (env_vars::OUMI, find_any_oumi().ok()),
            (env_vars::SKY, find_sky().ok()),
            (env_vars::HOME, home.map(PathBuf::from)),
        ] {
            if let Some(path) = path {
                found.push((variable, text(path)?));
            }
        }
        let server = text(own_path()?)?;
        Ok(Self { server, found })
    }

    /// Returns the line for a shell by which Claude Code adds the server.
    fn claude_line(&self) -> Result<String> {
        let quote = |text| shlex::try_quote(text).map_err(JobError::failed);
        let mut line = format!("claude mcp add {NAME} -s user");
        for (variable, path) in &self.found {
            line += &format!(" -e {variable}={}", quote(path)?);
        }
        Ok(format!("{line} -- {}", quote(&self.server)?))
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
    let file = client.file(&home, &config, |name| {
        let value = std::env::var_os(name).filter(|value| !value.is_empty());
        value.map(PathBuf::from)
    });
    let programs = Programs::find()?;
    let mut text = if write {
        merge(client, &file, &programs)?
    } else {
        let how = match client {
            Client::ClaudeCode => format!("Run this:\n\n  {}\n", programs.claude_line()?),
            _ => {
                let entry = add_to(client, "", &programs)?.unwrap_or_default();
                let file = file.display();
                format!(
                    "Put this into {file}, beside the servers already there, and restart the client:\n\n{entry}"
                )
            }
        };
        let name = client.to_possible_value();
        let name = name.map_or_else(String::new, |value| value.get_name().to_owned());
        format!(
            "{how}\nOr let this do it: {} setup {name} --write",
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

/// Merges the server into the file, of which it keeps the rights and a copy, and names that. An unchanged file is not written.
fn merge(client: Client, file: &Path, programs: &Programs) -> Result<String> {
    let at = file.display();
    let unusable = |error: io::Error| JobError::failed(format!("cannot use {at}: {error}"));
    // The file behind a link is replaced, not the link.
    let target = match file.is_symlink() {
        true => fs::canonicalize(file).map_err(unusable)?,
        false => file.to_owned(),
    };
    let old = if_found(read_bounded(&target, MAX_FILE_BYTES)).map_err(unusable)?;
    let text = String::from_utf8(old.unwrap_or_default());
    let text = text.map_err(|_| JobError::failed("it is not UTF-8"));
    let new = text.and_then(|text| add_to(client, &text, programs));
    let new = new.map_err(|error| {
        let error = error.context(&format!("{at} was left as it is"));
        error.with_hint("correct it, or add the server by hand as `setup` without --write shows")
    })?;
    let Some(new) = new else {
        return Ok(format!("Nothing to do: {at} has this server already."));
    };
    let copy = format!("{}.before-{NAME}-{}", target.display(), compact(Utc::now()));
    let write = || -> io::Result<String> {
        fs::create_dir_all(target.parent().unwrap_or(&target))?;
        let copied = if_found(fs::copy(&target, &copy))?;
        write_atomic(&target, new.as_bytes())?;
        if copied.is_none() {
            return Ok(String::new());
        }
        fs::set_permissions(&target, fs::metadata(&copy)?.permissions())?;
        Ok(format!(" The old file is kept as {copy}."))
    };
    let kept = write().map_err(unusable)?;
    Ok(format!("Added to {at}. Restart the client.{kept}"))
}

/// Returns the text of the client's file with the server in it; `None` where it is in it as it should be.
fn add_to(client: Client, text: &str, programs: &Programs) -> Result<Option<String>> {
    let servers = match client {
        Client::Codex => "mcp_servers",
        Client::Vscode => "servers",
        _ => "mcpServers",
    };
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
            // The arguments belong to another program, such as `uvx`.
            set(&["args"], "")?;
        }
    }
    for (variable, path) in &programs.found {
        // A path that was set by hand stays, as long as it exists.
        let named = old["env"][variable].as_str();
        if named.is_none_or(|named| !Path::new(named).is_dir() && which::which(named).is_err()) {
            set(&["env", variable], path)?;
        }
    }
    Ok(Some(file.into_text()).filter(|new| new != text))
}

#[cfg(test)]
mod tests;
