//! The commands of a person at a shell.

pub mod completions;
pub mod doctor;
pub mod jobs;
pub mod setup;
pub(crate) mod text;

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

/// The exit code of a command that got no answer.
const NO_ANSWER: u8 = 3;
/// The exit code after Ctrl-C, as shells give it.
const INTERRUPTED: u8 = 130;
/// The longest wait for what a command left under way. A read of a file that hangs cannot be ended.
const SHUTDOWN: Duration = Duration::from_millis(500);

pub type CommandResult = Result<ExitCode, Box<dyn Error + Send + Sync>>;

/// Shows what this program is to a person who has started the server by hand.
pub fn greet() {
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return;
    }
    let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let line = setup::set_up(setup::Client::ClaudeCode, false);
    let line = line.unwrap_or_else(|error| error.to_string());
    note(&format!(
        "This is {name} {version}, an MCP server: a client starts it and talks to it on standard input.\n\n{line}\n\n\
         `{name} setup --help` names the other clients, `{name} demo` shows it at work,\n\
         and `{name} doctor` checks this machine. Ctrl-C ends it."
    ));
}

/// Runs a command to its end, or until it is interrupted. The programs that it asks end with the runtime.
pub(crate) fn until_interrupted(command: impl Future<Output = CommandResult>) -> CommandResult {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let ran = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        // The terminal was closed.
        let mut hang_up = signal(SignalKind::hangup())?;
        tokio::select! {
            ran = command => return ran,
            pressed = tokio::signal::ctrl_c() => pressed?,
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
        Ok(ExitCode::from(INTERRUPTED))
    });
    runtime.shutdown_timeout(SHUTDOWN);
    ran
}

/// Prints why a command failed, and returns its exit code.
pub fn exit_code(result: CommandResult) -> ExitCode {
    result.unwrap_or_else(|error| {
        let closed = error.downcast_ref::<io::Error>();
        if closed.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            // The reader, such as `head`, has read enough.
            return ExitCode::SUCCESS;
        }
        note(&format!("error: {}", text::for_person(&error.to_string())));
        NO_ANSWER.into()
    })
}

/// Prints a text with one line end; nothing of an empty one.
pub fn print(text: &str) -> CommandResult {
    if !text.is_empty() {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{}", text.trim_end_matches('\n'))?;
        stdout.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a sentence beside the output, as far as stderr takes it.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
