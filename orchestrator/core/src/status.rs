//! How a run stands, as listings and callers see it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The status of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Status {
    /// Open.
    Running,
    /// Returned a result.
    Completed,
    /// Returned a failure.
    Failed,
    /// Ended because it was asked to.
    Canceled,
    /// Was ended from outside.
    Terminated,
    /// Handed over to a next run.
    ContinuedAsNew,
}

impl Status {
    /// All of them.
    pub const ALL: [Status; 6] =
        [Self::Running, Self::Completed, Self::Failed, Self::Canceled, Self::Terminated, Self::ContinuedAsNew];

    /// Whether the run has ended.
    #[must_use]
    pub fn is_closed(self) -> bool {
        self != Self::Running
    }

    /// The name in JSON and in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "Running",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::Canceled => "Canceled",
            Self::Terminated => "Terminated",
            Self::ContinuedAsNew => "ContinuedAsNew",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text names no status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no status; there are Running, Completed, Failed, Canceled, Terminated and ContinuedAsNew")]
pub struct UnknownStatus(String);

impl FromStr for Status {
    type Err = UnknownStatus;
    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}
