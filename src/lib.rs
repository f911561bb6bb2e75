//! An MCP server that starts, watches and stops Oumi training jobs, on this machine and in the cloud.
//!
//! One idea holds it together: **the registry knows who a job is, the launcher knows how it is.**
//!
//! ```text
//! MCP client ── stdio ──► server ──► JobService ──┬─► JobRegistry   who a job is: one JSON file
//! a person ── shell ────► commands ──►            ├─► InFlight      launches under way, in memory
//!                                                 └─► Launcher      how a job is: the only source of state
//!                                                       ├─ Local      a supervised process on this machine
//!                                                       ├─ SkyPilot   `oumi launch up`, then `sky`
//!                                                       └─ Oumi       `oumi launch …`, for clouds without SkyPilot
//!                                                          (both on `launcher/cloud`)
//! beneath the launchers:  process (what outlives the server) · parse (what oumi and sky print)
//! beneath the service:    logs · progress · failure · plot
//! beneath all:            redact · settings · text · error · sync
//! ```
//!
//! Arrows only go right and down: the server knows MCP and nothing of clouds; the service knows jobs and nothing of MCP; a
//! launcher knows its own world and nothing of the registry; `process` knows nothing of Oumi's jobs.
//!
//! The file for a change:
//!
//! | change | file |
//! |---|---|
//! | `sky` or `oumi` prints a new state of a job | `parse/states.rs`; of a cluster: `launcher/cloud/survey.rs` |
//! | what is told of a cluster's price and end | `launcher/cloud/clusters.rs` |
//! | a question to SkyPilot, or a change | `launcher/cloud/backend.rs`, the trait of both cloud launchers; its program: `launcher/skypilot.rs`; its request: `launcher/skypilot/requests.yaml`; the API server: `launcher/skypilot/api.rs` |
//! | a new cloud | `clouds` in `launcher/oumi.rs` where Oumi drives it itself, in `launcher/skypilot.rs` where SkyPilot does |
//! | a fact of a job that its launcher knows | `JobDetails` in `launcher.rs`; of a cluster: `ClusterInfo` in `launcher/offer.rs` |
//! | our own words for a state | `launcher/status.rs` |
//! | a warning at a launch, or what it runs | `service/prepare.rs`; of one kind of launch: `launcher/local/plan.rs`, `launcher/job_yaml.rs` |
//! | another cause of failure | a row in `failure/causes.yaml`, with a log in `tests/fixtures/logs/failures`; advice on an error of `sky`: `parse/remedies.yaml` |
//! | a sentence of `poll_status` | `service/next_step.rs`; a field: `service/answers.rs`, filled in `service/poll.rs`, where its waiting is too |
//! | the signals that end a job | `Terminator` in `process/table.rs`, driven by `process/supervisor.rs`; the cancel's wait and answer: `launcher/local/termination.rs` |
//! | how long a cancel waits | `service/cancel.rs`; for the processes here: `launcher/local/termination.rs` |
//! | a fact of a launch that outlives the server | a file of the job's folder, as `PRICE` of `launcher/offer.rs`; the registry has the fields of the Python server alone |
//! | a shape of token that is hidden | a line of `redact/shapes.txt`; a form of a secret value: `redact/forms.rs` |
//! | a new tool | `server/tools.rs`; its operation in a file of `service/`, its request and answer in `service/requests.rs` and `service/answers.rs`; a prompt: `server/prompts` |
//! | what a launch costs | `parse/prices.rs` reads the catalog, `launcher/cloud/price.rs` prices what is asked for, `service/costs.rs` holds it against the limit |
//! | the consent text that the user is shown | `service/consent.rs`; the MCP side: `server/elicitation.rs` |
//! | a command for a shell | a file in `commands/`, and its line in `main.rs` |
//! | another client that `setup` knows | `Client` in `commands/setup.rs` |
//! | the arguments that a tool accepts | `service/requests.rs`, those of a launch: `LaunchOptions` in `launcher.rs`; values of another type, such as numbers as text: `server/arguments.rs`; the schema that a client sees: `server/tools.rs` |
//! | the figures that a trainer prints | their names: `progress/names.yaml`; names and values of a line: `progress/grammar.rs`; which lines are read: `progress/scanner.rs`; what they change: `progress/training.rs` |
//! | an environment variable | `settings/env_vars.rs`, its meaning in `env_vars.txt`; a limit: `settings/policy.rs` |
//! | the picture of the loss | `plot.rs` |

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!(
    "oumi-mcp-server runs on Linux and macOS only: it needs their sessions, locks and signals"
);

pub mod commands; // The commands for a person at a shell.
pub mod demo; // The demo: a client of this program for a person to watch.
mod error; // One error with a kind, a message and a hint.
mod failure; // The cause of a failed job: a table of known causes, and what ended a log.
mod in_flight; // The launches under way in this process.
mod job_identity; // The ids that a launcher knows a job by.
mod launcher; // The launchers and their trait.
pub mod logs; // Reads logs: folding, cursors, search.
mod parse; // Parses what `oumi` and `sky` print.
mod plot; // Draws the loss.
mod process; // Supervises processes, runs programs, and finds them.
pub mod progress; // Reads steps, losses and speeds from logs and run files.
pub mod redact; // Hides secrets.
mod registry; // The registry file.
mod serve; // Wires the rooms together.
mod server; // MCP: tools, resources, tasks, prompts, the transport.
mod service; // The operations on jobs.
mod settings; // Environment variables, policy, data folder, Oumi configs.
mod sync; // A lock that survives a panic.
mod text; // Escapes, control characters, ends of files and positions in them.

pub use launcher::skypilot::change;
pub use process::supervisor::supervise;
pub use serve::serve;
pub use server::stderr_log::log_to_stderr;
pub use settings::env_vars;
