//! An MCP server that starts, watches and stops Oumi training jobs, on this machine and in the cloud.
//!
//! One idea holds it together: **the registry knows who a job is, the launcher knows how it is.**
//!
//! ```text
//! MCP client ── stdio ──► server ──► JobService ──┬─► JobRegistry   identity, on disk
//!                         (tools)                 ├─► InFlight      launches under way, in memory
//!                                                 └─► Launcher      the only source of state
//!                                                       ├─ Local    a supervised process on this machine
//!                                                       └─ …        one more for each way to reach a cloud
//! ```
//!
//! Arrows only go right: the server knows MCP and nothing of clouds; the service knows jobs and nothing of MCP; a launcher
//! knows its own world and nothing of the registry.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!(
    "oumi-mcp-server runs on Linux and macOS only: it needs their sessions, locks and signals"
);

pub mod demo;
pub mod error;
pub mod failure;
pub mod in_flight;
pub mod job_identity;
pub mod launcher;
pub mod logs;
pub mod parse;
pub mod plot;
pub mod process;
pub mod progress;
pub mod redact;
pub mod registry;
pub mod server;
pub mod service;
pub mod settings;
mod sync;
#[allow(dead_code)] // until every room uses it
mod text;
