//! `setup`: adds this server to the configuration of an MCP client.

mod client_file;

use std::error::Error;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf, absolute};
use std::process::Command;

use clap::ValueEnum;

use self::client_file::ClientFile;
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
    /// Returns the client's name, the list of servers in its file for all projects, and the place of that file in the folder
    /// of settings (`~/.config`, on macOS `~/Library/Application Support`) or else in the home folder.
    fn place(self) -> (&'static str, &'static str, bool, &'static str) {
        match self {
            Self::ClaudeCode => ("Claude Code", "mcpServers", false, ".claude.json"),
            Self::ClaudeDesktop => (
                "Claude Desktop",
                "mcpServers",
                true,
                "Claude/claude_desktop_config.json",
            ),
            Self::Cursor => ("Cursor", "mcpServers", false, ".cursor/mcp.json"),
            Self::Vscode => ("VS Code", "servers", true, "Code/User/mcp.json"),
            Self::Codex => ("Codex", "mcp_servers", false, ".codex/config.toml"),
            Self::Gemini => ("Gemini CLI", "mcpServers", false, ".gemini/settings.json"),
        }
    }

    /// Returns the client's file. `variable` reads the variable with which a client moves its folder.
    fn file(
        self,
        home: &Path,
        settings: &Path,
        variable: impl Fn(&str) -> Option<PathBuf>,
    ) -> PathBuf {
        let (_, _, is_setting, file) = self.place();
        let moved = match self {
            Self::ClaudeCode => variable("CLAUDE_CONFIG_DIR").map(|dir| dir.join(file)),
            Self::Codex => variable("CODEX_HOME").map(|dir| dir.join("config.toml")),
            Self::Gemini => variable("GEMINI_CLI_HOME").map(|dir| dir.join(file)),
            _ => None,
        };
        moved.unwrap_or_else(|| if is_setting { settings } else { home }.join(file))
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

    /// The arguments of `claude` that add the server.
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

/// Returns what to put where for a client to start this server; with `write`, does it and returns what was done.
pub fn run(client: Client, write: bool) -> Result<String, Box<dyn Error + Send + Sync>> {
    let home = dirs::home_dir().ok_or("no home folder is known; set HOME")?;
    let settings = dirs::config_dir().ok_or("no folder of settings is known; set HOME")?;
    let variable = |name: &str| {
        let value = std::env::var_os(name).filter(|value| !value.is_empty());
        value.map(PathBuf::from)
    };
    let file = client.file(&home, &settings, variable);
    let programs = Programs::find()?;
    let mut text = match write {
        true => merge(client, &file, &programs)?,
        false => instructions(client, &file, &programs)?,
    };
    let mut names = programs.found.iter().map(|(name, _)| *name);
    if !names.any(|name| name == env_vars::OUMI) {
        text += "\n\nThe `oumi` program was not found, and training needs it. Install it with `pip install oumi`, then run this again \
                 where `which oumi` finds it.";
    }
    Ok(text)
}

fn instructions(client: Client, file: &Path, programs: &Programs) -> Result<String, JobError> {
    let name = client.to_possible_value();
    let name = name.as_ref().map_or("", |value| value.get_name());
    let merged = format!("Or have it done: {} setup {name} --write", programs.server);
    if client == Client::ClaudeCode {
        let arguments = programs.claude_arguments();
        let line = shlex::try_join(arguments.iter().map(String::as_str));
        let line = line.map_err(JobError::failed)?;
        return Ok(format!("Run this:\n\n  claude {line}\n\n{merged}"));
    }
    let entry = add_to(client, "", programs)?.text;
    let (title, file) = (client.place().0, file.display());
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
        Ok(target) => {
            let old = read_bounded(&target, MAX_FILE_BYTES).map_err(failed)?;
            (target, old)
        }
        Err(error) if error.kind() == ErrorKind::NotFound && !file.is_symlink() => {
            (file.to_owned(), Vec::new())
        }
        Err(error) => return Err(failed(error)),
    };
    let added = String::from_utf8(old)
        .map_err(|_| JobError::failed("it is not UTF-8"))
        .and_then(|old| Ok((add_to(client, &old, programs)?, old)));
    let (added, old) = added.map_err(|error| {
        error
            .context(&format!("{at} was left as it is"))
            .with_hint("correct it, or add the server by hand as `setup` without --write shows")
    })?;
    if added.text == old {
        return Ok(format!("Nothing to do: {at} has this server already."));
    }
    if client == Client::ClaudeCode
        && added.is_new
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
        let now = chrono::Local::now().format("%Y%m%d-%H%M%S");
        let copy = format!("{}.before-{NAME}-{now}", target.display());
        fs::copy(&target, &copy).map_err(failed)?;
        kept = format!(" The file as it was: {copy}.");
    } else if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    write_atomic(&target, added.text.as_bytes()).map_err(failed)?;
    if let Some(rights) = rights {
        fs::set_permissions(&target, rights).map_err(failed)?;
    }
    Ok(format!(
        "Added to {at}.{kept} Restart {}.",
        client.place().0
    ))
}

/// The text of a client's file with the server in it.
#[derive(Debug)]
struct Added {
    text: String,
    /// The file had no server of our name.
    is_new: bool,
}

fn add_to(client: Client, text: &str, programs: &Programs) -> Result<Added, JobError> {
    let servers = client.place().1;
    let mut file = ClientFile::parse(client == Client::Codex, text)?;
    let old = file.values[servers][NAME].clone();
    let is_new = old.is_null();
    if !is_new && !old["command"].is_string() {
        let error = format!("its server {NAME:?} is not one that is started by a command");
        return Err(JobError::failed(error).with_hint("rename or remove that server"));
    }
    if is_new && client == Client::Vscode {
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
    Ok(Added {
        text: file.text(),
        is_new,
    })
}

#[cfg(test)]
#[path = "tests/setup.rs"]
mod tests;
