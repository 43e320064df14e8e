//! The bodies of the HTTP API: what the server says and the client reads. How ids stand in its paths:
//! [`write_path_part`](crate::write_path_part).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::ids::RunId;
use crate::payload::Payload;
pub use crate::program::{ParkedCause, ParkedStep};
pub use crate::record_text::StoredRecord;
use crate::run::{IdConflictPolicy, IdReusePolicy};
use crate::status::Status;
use crate::time::Timestamp;

macro_rules! bodies {
    ($($(#[$doc:meta])* pub struct $name:ident $fields:tt)+) => {
        $(
            #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
            #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
            $(#[$doc])*
            pub struct $name $fields
        )+
    };
}

bodies! {
    /// A request to begin a run.
    #[serde(deny_unknown_fields)]
    pub struct StartBody {
        /// The workflow's wire name.
        pub workflow_type: String,
        /// Its id; derived from the request id when missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub workflow_id: Option<String>,
        /// Its argument; `null` when missing.
        #[serde(default)]
        #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
        pub input: Payload,
        /// Whether an id whose runs are closed may be used again.
        #[serde(default)]
        pub id_reuse_policy: IdReusePolicy,
        /// What happens when the id has an open run.
        #[serde(default)]
        pub id_conflict_policy: IdConflictPolicy,
    }

    /// A run that began.
    pub struct StartedBody {
        /// Its workflow's id.
        pub workflow_id: String,
        /// Its identity.
        #[cfg_attr(feature = "openapi", schema(value_type = String, format = "uuid"))]
        pub run_id: RunId,
        /// Whether it was there already: nothing was begun for this request. Missing: no.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pub existing: bool,
    }

    /// A signal that was recorded.
    #[derive(Default)]
    pub struct SignaledBody {
        /// What its sender may have got wrong: a name that is none of the application's declared signals.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub warning: Option<String>,
    }

    /// A run in a listing.
    pub struct RunSummary {
        /// Its workflow's id.
        pub workflow_id: String,
        /// Its identity.
        #[cfg_attr(feature = "openapi", schema(value_type = String, format = "uuid"))]
        pub run_id: RunId,
        /// The workflow's wire name.
        pub workflow_type: String,
        /// How it stands.
        pub status: Status,
        /// When it began.
        #[cfg_attr(feature = "openapi", schema(value_type = String, format = "date-time"))]
        pub started_at: Timestamp,
        /// When it closed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = "date-time"))]
        pub closed_at: Option<Timestamp>,
        /// Why it stands still, if its code cannot go on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub parked: Option<ParkedBody>,
    }

    /// A run whose code cannot go on.
    pub struct ParkedBody {
        /// The explanation, for people.
        pub reason: String,
        /// The same as data. Missing: an earlier build has parked it, and did not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub cause: Option<ParkedCause>,
        /// The build that failed.
        pub build: String,
        /// When it is tried again.
        #[cfg_attr(feature = "openapi", schema(value_type = String, format = "date-time"))]
        pub retry_at: Timestamp,
        /// Since when it has stood still.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = "date-time"))]
        pub since: Option<Timestamp>,
    }

    /// A page of a listing, latest start first.
    pub struct ListBody {
        /// The runs.
        pub workflows: Vec<RunSummary>,
        /// Ask for the next page with this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub next_page_token: Option<String>,
    }

    /// A page of a history as it is stored.
    pub struct RecordsBody {
        /// The workflow's namespace.
        pub namespace: String,
        /// The workflow's id.
        pub workflow_id: String,
        /// The run.
        #[cfg_attr(feature = "openapi", schema(value_type = String, format = "uuid"))]
        pub run_id: RunId,
        /// How many runs of this workflow id came before.
        pub ordinal: u64,
        /// The workflow's wire name.
        pub workflow_type: String,
        /// How it stands.
        pub status: Status,
        /// Its batches in order, each in base64.
        #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
        pub records: Vec<StoredRecord>,
        /// Ask for the next page with this, and with this run's id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub next_page_token: Option<String>,
    }

    /// Everything about a run but its history.
    pub struct DescribeBody {
        /// The run.
        #[serde(flatten)]
        pub run: RunSummary,
        /// How many runs of this workflow id came before.
        pub ordinal: u64,
        /// Its argument.
        #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
        pub input: Payload,
        /// The run that it continues.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = "uuid"))]
        pub continued_from: Option<RunId>,
        /// Events in its history.
        pub history_events: u64,
        /// Stored bytes of its history.
        pub history_bytes: u64,
        /// Where its code does not ask for what is recorded, without going astray.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub changed_arguments: Option<ChangedArgumentsBody>,
        /// Whether somebody asked it to stop.
        pub cancel_requested: bool,
        /// Activities without an outcome: the first hundred.
        pub pending_activities: Vec<PendingActivityBody>,
        /// How many activities have no outcome.
        #[serde(default)]
        pub pending_activities_total: u64,
        /// Timers that have not fired: the first hundred.
        pub timers: Vec<TimerBody>,
        /// How many timers have not fired.
        #[serde(default)]
        pub timers_total: u64,
        /// Signals that the workflow's code has not taken, by name: the first hundred names.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub unread_signals: Vec<UnreadSignalsBody>,
        /// Patches whose way the run goes: the first hundred, by id.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub patches: Vec<PatchBody>,
        /// Published query values.
        #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, serde_json::Value>))]
        pub published: BTreeMap<String, Payload>,
        /// What it returned, once it has completed.
        #[serde(default, deserialize_with = "Payload::some", skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>))]
        pub result: Option<Payload>,
        /// Why it ended otherwise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
        pub failure: Option<Failure>,
    }

    /// Signals of one name that the workflow's code has not taken.
    pub struct UnreadSignalsBody {
        /// Their name.
        pub name: String,
        /// How many.
        pub count: u64,
        /// Bytes of their payloads and names.
        pub bytes: u64,
        /// How many of them came along when the run before continued as new, and were not taken there either.
        #[serde(default)]
        pub carried: u64,
    }

    /// A patch whose way a run goes.
    pub struct PatchBody {
        /// Its id.
        pub patch_id: String,
        /// Whether code need not ask for it any more: it was deprecated when it was recorded. Missing: code must.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pub deprecated: bool,
    }

    /// Recorded commands that the code of the build which decided last asks for with other arguments: the recorded ones
    /// stand. A field was added, or the code does not do the same on every replay.
    pub struct ChangedArgumentsBody {
        /// How many commands, in the replay that met most of them.
        pub commands: u64,
        /// The first of them, with both places in the source and what differs.
        pub first: String,
    }

    /// An activity without an outcome.
    pub struct PendingActivityBody {
        /// Its id within the run.
        pub activity_id: String,
        /// Its wire name.
        pub activity_type: String,
        /// Whether it runs on a worker or where the workflow is decided.
        pub local: bool,
        /// The task queue whose workers run it, when the workflow named one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub task_queue: Option<String>,
        /// `scheduled`, `running` or `backing_off`.
        pub state: String,
        /// The attempt that runs or ran last; 0 before the first.
        pub attempt: u32,
        /// When the workflow asked for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = "date-time"))]
        pub scheduled_at: Option<Timestamp>,
        /// When the next attempt begins.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = "date-time"))]
        pub next_attempt_at: Option<Timestamp>,
        /// Why the last attempt failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
        pub last_failure: Option<Failure>,
        /// The details of the last heartbeat.
        #[serde(default, deserialize_with = "Payload::some", skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>))]
        pub last_heartbeat: Option<Payload>,
    }

    /// A timer that has not fired.
    pub struct TimerBody {
        /// Its id within the run.
        pub timer_id: String,
        /// When it fires.
        #[cfg_attr(feature = "openapi", schema(value_type = String, format = "date-time"))]
        pub fires_at: Timestamp,
    }

    /// A page of a history.
    pub struct HistoryBody {
        /// The events, in order.
        pub events: Vec<HistoryEvent>,
        /// Ask for the next page with this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub next_page_token: Option<String>,
    }

    /// One event of a history, as people read it.
    pub struct HistoryEvent {
        /// Its place, from 1.
        pub event_id: u64,
        /// Recorded time.
        #[cfg_attr(feature = "openapi", schema(value_type = String, format = "date-time"))]
        pub time: Timestamp,
        /// What happened.
        #[serde(rename = "type")]
        pub event_type: String,
        /// Its particulars.
        #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
        pub attributes: BTreeMap<String, Payload>,
    }

    /// How a run stands, and its outcome once closed.
    pub struct ResultBody {
        /// The run.
        #[cfg_attr(feature = "openapi", schema(value_type = String, format = "uuid"))]
        pub run_id: RunId,
        /// How it stands.
        pub status: Status,
        /// What it returned, when it completed.
        #[serde(default, deserialize_with = "Payload::some", skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>))]
        pub result: Option<Payload>,
        /// Why it did not complete.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
        pub failure: Option<Failure>,
        /// Why it stands still, if its code cannot go on: waiting alone does not help.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub parked: Option<ParkedBody>,
    }

    /// A query's answer.
    pub struct QueryBody {
        /// The answer.
        #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
        pub result: Payload,
    }

    /// Why somebody cancels or terminates.
    #[derive(Default)]
    #[serde(deny_unknown_fields)]
    pub struct ReasonBody {
        /// For people; kept in the history.
        #[serde(default)]
        pub reason: String,
    }

    /// A message that nobody could handle, without what it says.
    pub struct LetterBody {
        /// Names it.
        pub id: String,
        /// The queue that it was given up on.
        pub queue: String,
        /// When a queue first took it in.
        #[cfg_attr(feature = "openapi", schema(value_type = String, format = "date-time"))]
        pub received_at: Timestamp,
        /// Why it is in quarantine.
        pub reason: String,
        /// The workflow that it is about, where that can be read: not of a message that lies in the bucket.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub workflow_id: Option<String>,
        /// How many runs of this workflow id came before the one that it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub ordinal: Option<u64>,
        /// Its size in bytes; missing when the message is lost.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub size: Option<u64>,
    }

    /// A message that nobody could handle, with what it says.
    pub struct LetterShownBody {
        /// Everything but what it says.
        #[serde(flatten)]
        pub letter: LetterBody,
        /// What it says, as it travelled; cut where it is longer than 1 MiB. Missing when it is lost.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub message: Option<String>,
        /// Where it is sent if it is sent again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub goes_to: Option<String>,
        /// Why it will never be sent again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub stays_because: Option<String>,
    }

    /// A page of the quarantine, the oldest letter first.
    pub struct QuarantineBody {
        /// The letters.
        pub letters: Vec<LetterBody>,
        /// Ask for the next page with this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub next_page_token: Option<String>,
    }

    /// Which letters to send again; all of them, page by page, when none is named.
    #[derive(Default)]
    #[serde(deny_unknown_fields)]
    pub struct RedriveBody {
        /// These; at most 50.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 50))]
        pub ids: Option<Vec<String>>,
        /// `next_page_token` of the answer before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub page_token: Option<String>,
    }

    /// What became of letters that were to be sent again.
    pub struct RedrivenBody {
        /// Each of them.
        pub letters: Vec<RedrivenLetterBody>,
        /// There are more: go on with this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub next_page_token: Option<String>,
    }

    /// What became of one letter.
    pub struct RedrivenLetterBody {
        /// Names it.
        pub id: String,
        /// In a word.
        pub outcome: Redriven,
        /// Where it was sent, or why it was not.
        pub detail: String,
    }

    /// Which letters to throw away.
    #[serde(deny_unknown_fields)]
    pub struct DiscardBody {
        /// These; at most 50.
        #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 50))]
        pub ids: Vec<String>,
    }

    /// What became of letters that were to be thrown away.
    pub struct DiscardedBody {
        /// Each of them.
        pub letters: Vec<DiscardedLetterBody>,
    }

    /// What became of one letter.
    pub struct DiscardedLetterBody {
        /// Names it.
        pub id: String,
        /// In a word.
        pub outcome: Discarded,
        /// What it was, or why it was not thrown away.
        pub detail: String,
    }

    /// What went wrong with a request (RFC 9457).
    pub struct Problem {
        /// Names the kind of problem: `/problems/...`, where this server tells what to do about it, or `about:blank`.
        #[serde(rename = "type")]
        pub problem_type: String,
        /// The kind, for people.
        pub title: String,
        /// The HTTP status.
        pub status: u16,
        /// What happened this time, and what to do.
        pub detail: String,
        /// The run that is in the way, when a start is refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = "uuid"))]
        pub run_id: Option<RunId>,
        /// What the query's handler returned, when a query fails.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
        pub failure: Option<Failure>,
        /// When a value does not fit its type: the way to the place within the input or argument, as a JSON Pointer
        /// (RFC 6901); empty for all of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub pointer: Option<String>,
    }
}

impl ParkedBody {
    /// The reason on one line.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = String::new();
        for part in self.reason.lines().map(str::trim).filter(|part| !part.is_empty()) {
            line.push_str(match line.chars().last() {
                None => "",
                Some(last) if last.is_ascii_punctuation() => " ",
                Some(_) => "; ",
            });
            line.push_str(part);
        }
        line
    }
}

/// What became of a letter that was to be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Redriven {
    /// It is on its queue, and in quarantine no more.
    Sent,
    /// It was not sent, and stays: it may be another time, once the cause is mended.
    Refused,
    /// It will never be sent: it cannot be read, is lost, or is too old. It stays for people to look at and to throw away.
    Unsendable,
    /// It may have been sent, and may still be in quarantine. To send it again is harmless.
    Unknown,
}

/// What became of a letter that was to be thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Discarded {
    /// It is gone.
    Discarded,
    /// There is no such letter.
    NotFound,
    /// It may still be there. To ask again is harmless.
    Unknown,
}
