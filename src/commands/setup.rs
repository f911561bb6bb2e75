//! `setup`: adds this server to the configuration of an MCP client.

mod client_file;

use std::error::Error;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf, absolute};
use std::process::{Command, ExitCode};

use clap::ValueEnum;

use self::client_file::{ClientFile, Format};
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
    fn title(self) -> &'static str {
        match self {
            Self::ClaudeCode => "Claude Code",
            Self::ClaudeDesktop => "Claude Desktop",
            Self::Cursor => "Cursor",
            Self::Vscode => "VS Code",
            Self::Codex => "Codex",
            Self::Gemini => "Gemini CLI",
        }
    }

    /// Returns the client's file for all projects. `config` is `~/.config`, on macOS `~/Library/Application Support`;
    /// `variable` reads the variable with which a client moves its files.
    fn file(
        self,
        home: &Path,
        config: &Path,
        variable: impl Fn(&str) -> Option<PathBuf>,
    ) -> PathBuf {
        let moved = |name: &str, usual: PathBuf| variable(name).unwrap_or(usual);
        match self {
            Self::ClaudeCode => moved("CLAUDE_CONFIG_DIR", home.into()).join(".claude.json"),
            Self::ClaudeDesktop => config.join("Claude/claude_desktop_config.json"),
            Self::Cursor => home.join(".cursor/mcp.json"),
            Self::Vscode => config.join("Code/User/mcp.json"),
            Self::Codex => moved("CODEX_HOME", home.join(".codex")).join("config.toml"),
            Self::Gemini => moved("GEMINI_CLI_HOME", home.into()).join(".gemini/settings.json"),
        }
    }

    /// The form of the client's file, and the name of the list of servers in it.
    fn format(self) -> (Format, &'static str) {
        match self {
            Self::Codex => (Format::Toml, "mcp_servers"),
            Self::Vscode => (Format::Json, "servers"),
            _ => (Format::Json, "mcpServers"),
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
        let mut found = Vec::new();
        for (variable, path) in [
            (env_vars::OUMI, find_any_oumi()),
            (env_vars::SKY, find_sky()),
        ] {
            if let Ok(path) = path {
                found.push((variable, text(path)?));
            }
        }
        let server = text(own_path()?)?;
        Ok(Self { server, found })
    }

    /// The arguments of `claude` that add the server.
    fn claude_arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> =
            ["mcp", "add", NAME, "-s", "user"].map(str::to_owned).into();
        for (variable, path) in &self.found {
            arguments.extend(["-e".to_owned(), format!("{variable}={path}")]);
        }
        arguments.extend(["--".to_owned(), self.server.clone()]);
        arguments
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
    let config = dirs::config_dir().ok_or("no folder of settings is known; set HOME")?;
    let variable = |name: &str| {
        let value = std::env::var_os(name).filter(|value| !value.is_empty());
        value.map(PathBuf::from)
    };
    let file = client.file(&home, &config, variable);
    let programs = Programs::find()?;
    let mut text = if write {
        merge(client, &file, &programs)?
    } else {
        instructions(client, &file, &programs)?
    };
    if !programs
        .found
        .iter()
        .any(|(name, _)| *name == env_vars::OUMI)
    {
        text += "

The `oumi` program was not found, and training needs it. Install it with `pip install oumi`, then run this again \
                 where `which oumi` finds it.";
    }
    Ok(text)
}

fn instructions(client: Client, file: &Path, programs: &Programs) -> Result<String, JobError> {
    let name = client
        .to_possible_value()
        .map(|value| value.get_name().to_owned());
    let merged = format!(
        "Or have it done: {} setup {} --write",
        programs.server,
        name.unwrap_or_default()
    );
    if client == Client::ClaudeCode {
        let arguments = programs.claude_arguments();
        let line =
            shlex::try_join(arguments.iter().map(String::as_str)).map_err(JobError::failed)?;
        return Ok(format!("Run this:\n\n  claude {line}\n\n{merged}"));
    }
    let entry = add_to(client, "", programs)?.unwrap_or_default();
    let (title, file) = (client.title(), file.display());
    Ok(format!(
        "Put this into {file}, beside the servers that are there, and restart {title}:\n\n{entry}\n{merged}"
    ))
}

/// Merges the server into the file. An unchanged file is not written; of a changed one a copy is kept.
fn merge(client: Client, file: &Path, programs: &Programs) -> Result<String, JobError> {
    let at = file.display();
    let failed = |error| JobError::failed(format!("cannot use {at}: {error}"));
    // The file behind a link is replaced, not the link.
    let (target, old) = match fs::canonicalize(file) {
        Ok(target) => (
            target.clone(),
            read_bounded(&target, MAX_FILE_BYTES).map_err(failed)?,
        ),
        Err(error) if error.kind() == ErrorKind::NotFound && !file.is_symlink() => {
            (file.to_owned(), Vec::new())
        }
        Err(error) => return Err(failed(error)),
    };
    let refused = |error: JobError| {
        error
            .context(&format!("{at} was left as it is"))
            .with_hint("correct it, or add the server by hand as `setup` without --write shows")
    };
    let text = String::from_utf8(old).map_err(|_| refused(JobError::failed("it is not UTF-8")))?;
    let Some(new) = add_to(client, &text, programs).map_err(refused)? else {
        return Ok(format!("Nothing to do: {at} has this server already."));
    };
    let is_new = ClientFile::parse(client.format().0, &text)?.values["mcpServers"][NAME].is_null();
    if client == Client::ClaudeCode
        && is_new
        && let Ok(claude) = which::which("claude")
    {
        // Claude Code locks its file, and changes it while it runs.
        let error = Command::new(claude)
            .args(programs.claude_arguments())
            .exec();
        return Err(JobError::failed(format!("cannot run claude: {error}")));
    }
    let mut kept = String::new();
    let rights = fs::metadata(&target).ok().map(|file| file.permissions());
    if rights.is_some() {
        let copy = format!(
            "{}.before-{NAME}-{}",
            target.display(),
            chrono::Local::now().format("%Y%m%d-%H%M%S")
        );
        fs::copy(&target, &copy).map_err(failed)?;
        kept = format!(" The file as it was: {copy}.");
    } else if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    write_atomic(&target, new.as_bytes()).map_err(failed)?;
    if let Some(rights) = rights {
        fs::set_permissions(&target, rights).map_err(failed)?;
    }
    Ok(format!("Added to {at}.{kept} Restart {}.", client.title()))
}

/// Returns the text of the client's file with the server in it; `None` where it is in it as it should be.
fn add_to(client: Client, text: &str, programs: &Programs) -> Result<Option<String>, JobError> {
    let (format, servers) = client.format();
    let mut file = ClientFile::parse(format, text)?;
    let old = file.values[servers][NAME].clone();
    if !old.is_null() && !old["command"].is_string() {
        let error = format!("its server {NAME:?} is not one that is started by a command");
        return Err(JobError::failed(error).with_hint("rename or remove that server"));
    }
    if old.is_null() && client == Client::Vscode {
        file.set(&[servers, NAME, "type"], Some("stdio"))?;
    }
    if old["command"] != *programs.server {
        file.set(&[servers, NAME, "command"], Some(&programs.server))?;
        if !old["args"].is_null() {
            // They belong to another program, such as `uvx`.
            file.set(&[servers, NAME, "args"], None)?;
        }
    }
    for (variable, path) in &programs.found {
        // A program that was named by hand stays, as long as it is there.
        let named = old["env"][variable].as_str();
        if named.is_none_or(|named| which::which(named).is_err()) {
            file.set(&[servers, NAME, "env", variable], Some(path))?;
        }
    }
    let new = file.into_text();
    Ok((new != text).then_some(new))
}

#[cfg(test)]
#[path = "tests/setup.rs"]
mod tests;
