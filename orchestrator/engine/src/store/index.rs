//! The index: one row per run, for listings, the front door and the sweep.

use std::time::Duration;

use dormouse_core::{ParkedCause, RunId, RunKey, Status, Timestamp, WorkflowKey};
use serde::{Deserialize, Deserializer, Serialize};

use super::{StoreError, StoreFuture};

/// One row per run. **The promise: a row stands from its run's batch 0 on, says what its batches have made of it, and
/// is never due later than its history needs (rule F5).**
///
/// Reads by key ([`row`](Self::row), [`newest`](Self::newest)) are consistent: they see every write that was
/// acknowledged before they began. [`list`](Self::list) and [`due`](Self::due) may be late, by moments: what they do
/// not show yet, they show when asked again, and what they still show may have changed. So nothing is decided by them:
/// the sweep looks again, and reads each run itself.
///
/// What cannot be read stops nobody but itself. [`list`](Self::list) and [`due`](Self::due) pass such a row over and
/// say so once ([`PassedOver`](super::PassedOver)); a page is short only where there are no more. Whoever asks for the
/// row by its key is refused, with its name. A status of another build is none of that: it is kept and shown.
pub trait Index: Send + Sync + 'static {
    /// The row of one run.
    fn row<'a>(&'a self, run: &'a RunKey) -> StoreFuture<'a, Option<RunRow>>;

    /// The workflow's run with the highest ordinal, be it retired: the next has the one after it.
    fn newest<'a>(&'a self, workflow: &'a WorkflowKey) -> StoreFuture<'a, Newest>;

    /// Up to `limit` rows of a namespace that pass the filter, behind the cursor.
    fn list<'a>(
        &'a self,
        namespace: &'a str,
        filter: &'a RunFilter,
        after: Option<&'a ListCursor>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<RunRow>>;

    /// Up to `limit` rows of all namespaces that are due at or before `by`, earliest first, ties by run;
    /// behind the given due time and run, if any.
    fn due<'a>(
        &'a self,
        by: Timestamp,
        after: Option<(Timestamp, RunKey)>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<RunRow>>;

    /// A closed run owes nothing any more: takes its due time away. Does nothing to an open run. Refused when there is
    /// no such run.
    fn settle<'a>(&'a self, run: &'a RunKey) -> StoreFuture<'a, ()>;

    /// Parks a run, or with `None` unparks it. Refused when there is no such run.
    fn park<'a>(&'a self, run: &'a RunKey, parked: Option<Parked>) -> StoreFuture<'a, ()>;

    /// Lets go of runs that closed longer than `retention` ago and owe nothing: nobody finds them any more, and their
    /// records are deleted, later, by the same method; up to about `limit` of each at a time. Their ordinals stay
    /// taken, as [`newest`](Self::newest) tells. What is cut short goes on with the next call. Stores that keep
    /// everything do nothing.
    ///
    /// Refused when `retention` is below [`SHORTEST_RETENTION`]: [`check_retention`].
    fn retire<'a>(&'a self, now: Timestamp, retention: Duration, limit: usize) -> StoreFuture<'a, Retirement>;
}

/// The index row of a run: mutable, for listing and for the sweep (rule F5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRow {
    /// Which run.
    #[serde(skip, default = "nowhere")]
    pub run: RunKey,
    /// Its identity.
    pub run_id: RunId,
    /// The workflow's wire name.
    pub workflow_type: String,
    /// How it stands.
    pub status: Status,
    /// Recorded time of its first batch.
    pub started_at: Timestamp,
    /// Recorded time of its last batch, once closed.
    pub closed_at: Option<Timestamp>,
    /// When somebody must look at it next. `None`: nothing is owed.
    pub due: Option<Timestamp>,
    /// Why it stands still, if it does. Void after any later commit.
    #[serde(default, deserialize_with = "parked")]
    pub parked: Option<Parked>,
}

/// Reads a parking that may be another build's.
fn parked<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Parked>, D::Error> {
    Ok(Option::<serde_json::Value>::deserialize(deserializer)?.map(Parked::from))
}

/// Reads a cause that may be another build's: the text stands beside it.
fn cause<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ParkedCause>, D::Error> {
    Ok(serde_json::from_value(serde_json::Value::deserialize(deserializer)?).ok())
}

fn nowhere() -> RunKey {
    WorkflowKey { namespace: "".into(), workflow_id: "".into() }.run(0)
}

/// A run whose code cannot go on: divergence, damage, a panic, an endless turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// The explanation, for people.
    pub reason: String,
    /// The same as data. `None`: an earlier build has parked it, and did not say; or what it said cannot be read.
    #[serde(default, deserialize_with = "cause", skip_serializing_if = "Option::is_none")]
    pub cause: Option<ParkedCause>,
    /// The build that failed; another build tries at once.
    pub build: String,
    /// The sequence that the next batch would have had; void when the history has grown past it.
    pub sequence: u64,
    /// How many times in a row this build has failed here.
    pub attempts: u32,
    /// When the same build tries again.
    pub retry_at: Timestamp,
    /// The code takes its process along: before it is tried again nothing is tried, whatever arrives.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends_process: bool,
    /// Since when it has stood still, tries in between included. `None`: an earlier build has parked it, and did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

impl Parked {
    /// Reads what stands in a row, as JSON. One that cannot be read hides no row: it says so, and is void, as another
    /// build's is.
    #[must_use]
    pub fn stored(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_else(|error| Self::unreadable(&error.to_string()))
    }

    fn unreadable(why: &str) -> Self {
        Self {
            reason: format!("what was said of its parking cannot be read, it may be another build's: {why}"),
            cause: None,
            build: String::new(),
            sequence: u64::MAX,
            attempts: 0,
            retry_at: Timestamp::default(),
            ends_process: false,
            since: None,
        }
    }
}

impl From<serde_json::Value> for Parked {
    fn from(value: serde_json::Value) -> Self {
        serde_json::from_value(value).unwrap_or_else(|error| Self::unreadable(&error.to_string()))
    }
}

/// Which runs to list. Empty means all of the namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunFilter {
    /// Only this status.
    pub status: Option<Status>,
    /// Only this workflow type.
    pub workflow_type: Option<String>,
    /// Only workflow ids that begin so.
    pub id_prefix: Option<String>,
    /// Only open runs that are parked. Stores answer it from an index of those alone: it costs what there are of them.
    pub parked: bool,
}

impl RunFilter {
    /// Whether a row passes: for backends that filter by hand.
    #[must_use]
    pub fn admits(&self, row: &RunRow) -> bool {
        self.status.is_none_or(|status| row.status == status)
            && self.workflow_type.as_ref().is_none_or(|name| row.workflow_type == *name)
            && (!self.parked || (row.parked.is_some() && row.closed_at.is_none()))
            && self.id_prefix.as_ref().is_none_or(|prefix| row.run.workflow.workflow_id.starts_with(prefix.as_str()))
    }
}

/// What a store knows of a workflow's last run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Newest {
    /// There never was one.
    Nothing,
    /// Its row.
    Run(Box<RunRow>),
    /// It was retired, and had this ordinal: the next has the one after it (rule C5).
    Retired(u64),
}

impl Newest {
    /// The row, if the run is still there.
    #[must_use]
    pub fn row(self) -> Option<RunRow> {
        match self {
            Self::Run(row) => Some(*row),
            Self::Nothing | Self::Retired(_) => None,
        }
    }
}

/// No run is deleted earlier than this after it closed: longer than anybody who saw it open is at work (rule C4).
pub const SHORTEST_RETENTION: Duration = Duration::from_hours(24);

/// What [`Index::retire`] refuses.
///
/// # Errors
/// [`StoreError::Refused`] when `retention` is below [`SHORTEST_RETENTION`].
pub fn check_retention(retention: Duration) -> Result<(), StoreError> {
    if retention >= SHORTEST_RETENTION {
        return Ok(());
    }
    Err(StoreError::refused(format!(
        "a retention of {retention:?} is too short: somebody may still be at work on a run that closed less than \
         {SHORTEST_RETENTION:?} ago"
    )))
}

/// What a call of [`Index::retire`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retirement {
    /// Runs that nobody finds any more.
    pub retired: usize,
    /// Records of retired runs that were deleted, or will expire.
    pub deleted: usize,
    /// Whether there is more to do already.
    pub more: bool,
}

/// Where a listing goes on: behind this row. Listings run from the latest start to the earliest, then by workflow id
/// and ordinal, both descending.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListCursor {
    /// The row's start time.
    pub started_at: Timestamp,
    /// The row's workflow id.
    pub workflow_id: String,
    /// The row's ordinal.
    pub ordinal: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retention_below_a_day_is_refused() {
        let short = check_retention(SHORTEST_RETENTION.saturating_sub(Duration::from_millis(1)));
        assert!(matches!(short, Err(StoreError::Refused(_))), "{short:?}");
        assert_eq!(check_retention(SHORTEST_RETENTION), Ok(()));
    }

    #[test]
    fn a_cause_that_cannot_be_read_hides_nothing_else() {
        let with = |cause: &str| {
            let earlier = r#"{"reason": "why", "build": "b", "sequence": 1, "attempts": 1, "retry_at": "2026-03-01T09:00:00.000Z""#;
            let parked = Parked::stored(&format!("{earlier}{cause}}}"));
            assert_eq!((parked.reason.as_str(), parked.sequence), ("why", 1), "{cause}");
            parked.cause
        };
        assert_eq!(with(""), None, "an earlier build's");
        assert_eq!(
            with(r#", "cause": {"kind": "process_ended", "times": 2}"#),
            Some(ParkedCause::ProcessEnded { times: 2 })
        );
        assert_eq!(with(r#", "cause": {"kind": "out_of_tea", "cups": 7}"#), Some(ParkedCause::Unknown));
        assert_eq!(with(r#", "cause": {"kind": "process_ended", "times": "often"}"#), None);
        assert_eq!(with(r#", "cause": 7"#), None);
    }
}
