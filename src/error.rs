//! The one error of jobs: its kind, for code to decide by, and its text, for a person or a model to read.

/// The kinds of [`JobError`]. Code decides by the kind, never by the wording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// An argument of the call does not fit.
    InvalidArgument,
    /// The job, cluster or file does not exist.
    NotFound,
    /// The answer could not be had in time. A later call may have it.
    Unavailable,
    /// Refused by the policy, the user, or a check before the call.
    Blocked,
    Failed,
}

pub(crate) type Result<T, E = JobError> = std::result::Result<T, E>;

/// An error that ends a call about a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", hint.iter().map(|hint| format!("; {hint}")).collect::<String>())]
pub(crate) struct JobError {
    pub(crate) kind: ErrorKind,
    /// The event, in one clause without a final full stop.
    pub(crate) message: String,
    /// The next step, where one is known.
    pub(crate) hint: Option<String>,
}

impl JobError {
    fn new(kind: ErrorKind, message: impl ToString) -> Self {
        Self {
            kind,
            message: message.to_string(),
            hint: None,
        }
    }

    pub(crate) fn invalid(message: impl ToString) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    pub(crate) fn not_found(message: impl ToString) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    pub(crate) fn unavailable(message: impl ToString) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    pub(crate) fn blocked(message: impl ToString) -> Self {
        Self::new(ErrorKind::Blocked, message)
    }

    pub(crate) fn failed(message: impl ToString) -> Self {
        Self::new(ErrorKind::Failed, message)
    }

    /// Adds what to do next. An earlier hint stays in front.
    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl ToString) -> Self {
        let hint = hint.to_string();
        self.hint = Some(match self.hint {
            Some(first) => format!("{first}; {hint}"),
            None => hint,
        });
        self
    }

    /// Puts in front of the message what the error means for the call.
    #[must_use]
    pub(crate) fn context(mut self, meaning: &str) -> Self {
        self.message = format!("{meaning}: {}", self.message);
        self
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }
}

impl From<std::io::Error> for JobError {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error)
    }
}
