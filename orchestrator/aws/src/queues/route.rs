//! The queues, as a message that is sent again sees them.

use std::fmt;

/// Where a letter is sent. The message itself tells: the queue that it was found on is the one for dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// The run queue.
    Runs {
        /// The message group.
        group: String,
    },
    /// A task queue.
    Tasks {
        /// Its name.
        queue: String,
    },
    /// The alarm queue: alarms, and tasks for later.
    Alarms,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runs { .. } => f.write_str("the run queue"),
            Self::Tasks { queue } => write!(f, "the task queue {queue:?}"),
            Self::Alarms => f.write_str("the alarm queue"),
        }
    }
}
