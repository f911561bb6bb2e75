//! The plan of a supervisor, and what it runs afterwards.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The work of a supervisor. It is written to the job's folder, so it holds no value of `envs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SupervisorPlan {
    /// Run one after the other; the first that fails ends the job.
    pub(crate) steps: Vec<Step>,
    pub(crate) working_dir: PathBuf,
    /// A cancel ends the process tree. A cloud launch is not cancellable: it runs to its end, then its job is cancelled.
    pub(crate) cancellable: bool,
    /// Files to remove after the last step.
    pub(crate) cleanup: Vec<PathBuf>,
    /// The time after which the plan is ended, in seconds: the whole process tree, or of one that is not cancellable the program
    /// alone. What that started stays, such as SkyPilot's API server.
    #[serde(default)]
    pub(crate) time_limit_seconds: Option<u64>,
}

/// A program to run once the steps have ended, however they did. Its file stays until it has exited with 0: it is run later where
/// the supervisor was killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Epilogue {
    pub(crate) argv: Vec<String>,
    /// It is not run where the steps have printed this line.
    pub(crate) unless_printed: Option<String>,
    /// The server decides and runs it, and not the supervisor.
    #[serde(default)]
    pub(crate) by_server: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// `setup`, `run` or `launch`.
    pub(crate) name: String,
    /// The program and its arguments; no shell reads them.
    pub(crate) argv: Vec<String>,
}

impl Step {
    pub(crate) fn new<'a>(name: &str, argv: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            name: name.to_owned(),
            argv: argv.into_iter().map(ToOwned::to_owned).collect(),
        }
    }
}
