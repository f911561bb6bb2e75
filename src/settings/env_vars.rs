//! Every environment variable the program reads or sets, in one table.

/// One environment variable: its name and what it does, as `--help` shows it.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// The name, as it stands in the environment.
    pub name: &'static str,
    /// What it does, its default included.
    pub meaning: &'static str,
}

/// Moves the data folder.
pub const HOME: Variable = Variable {
    name: "OUMI_MCP_HOME",
    meaning: "Folder for the registry and the jobs' logs; an absolute path. Default: ~/.cache/oumi-mcp",
};

/// Names the `oumi` program.
pub const OUMI: Variable = Variable {
    name: "OUMI_MCP_OUMI",
    meaning: "Path of the `oumi` program. Default: looked for on PATH, then where pip, uv, pipx and conda put it",
};

/// Names the `sky` program.
pub const SKY: Variable = Variable {
    name: "OUMI_MCP_SKY",
    meaning: "Path of SkyPilot's `sky` program. Default: looked for like `oumi`",
};

/// Oumi's own: the Slurm clusters it may reach.
pub const SLURM_CONNECTIONS: Variable = Variable {
    name: "OUMI_SLURM_CONNECTIONS",
    meaning: "Oumi's own: the Slurm clusters it may reach, as user@host[,…]; those of known jobs are added",
};

/// Sets how much the server logs on stderr.
pub const LOG: Variable = Variable {
    name: "OUMI_MCP_LOG",
    meaning: "What is logged on stderr: error, warn, info, debug, trace or off. Default: warn",
};

/// When the person is asked.
pub const CONSENT: Variable = Variable {
    name: "OUMI_MCP_CONSENT",
    meaning: "always: the person is asked before a job on this machine too. flags: never, for a client that offers to ask and does not",
};

/// Limits the clouds.
pub const CLOUDS: Variable = Variable {
    name: "OUMI_MCP_CLOUDS",
    meaning: "The only clouds that may be used, such as local,gcp. Default: all",
};

/// Hides what changes anything.
pub const READ_ONLY: Variable = Variable {
    name: "OUMI_MCP_READ_ONLY",
    meaning: "1: there are only the tools that change nothing. Default: 0",
};

/// Set for every process of a job: the job's own folder. It is how a process is known to belong to a job.
pub const JOB_DIR: Variable = Variable {
    name: "OUMI_MCP_JOB_DIR",
    meaning: "Set by the server for the processes of a job: the job's own folder",
};

/// Every variable above, in the order in which `--help` lists them.
pub const ALL: &[Variable] = &[
    HOME,
    OUMI,
    SKY,
    SLURM_CONNECTIONS,
    CONSENT,
    CLOUDS,
    READ_ONLY,
    LOG,
    JOB_DIR,
];
