//! Failures: what went wrong, of which kind, caused by what. The chain survives `?`.

mod json;

use std::cell::Cell;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::panics::{Panic, is_ours};
use crate::payload::Payload;
use crate::place::Place;
use crate::time::millis;

/// How many causes a failure keeps; deeper ones are folded into the last one's message.
pub const MAX_CAUSES: usize = 16;

/// A failure of an activity or a workflow.
///
/// Every `std::error::Error` becomes a retryable Application failure through `?`, its sources becoming causes.
/// `Failure` itself is therefore no `std::error::Error`; clients get a `ClientError`, which is one.
#[derive(Clone, Debug, PartialEq, Encode)]
pub struct Failure {
    /// One sentence for people.
    #[n(0)]
    pub message: String,
    /// What sort of failure, with its particulars.
    #[n(1)]
    pub kind: FailureKind,
    /// Where in the source it arose, as `file:line`; of a panic, with the column.
    #[n(2)]
    pub place: Option<Box<str>>,
    /// What caused it.
    #[n(3)]
    pub cause: Option<Box<Failure>>,
}

/// How many bytes a stored failure takes with all its causes, about and at most: little enough to stand beside other
/// things in one item of any store.
pub const MAX_FAILURE_BYTES: usize = 64 * 1024;

/// How deeply stored failures may nest: more than any chain that this crate makes, and little enough for any stack.
const MAX_STORED_DEPTH: u32 = 128;

/// A failure as it is read back.
#[derive(Decode)]
struct Stored {
    #[n(0)]
    message: String,
    #[n(1)]
    kind: FailureKind,
    #[n(2)]
    place: Option<Box<str>>,
    #[n(3)]
    cause: Option<Box<Failure>>,
}

impl<'b, C> Decode<'b, C> for Failure {
    fn decode(d: &mut minicbor::Decoder<'b>, context: &mut C) -> Result<Self, minicbor::decode::Error> {
        thread_local!(static DEPTH: Cell<u32> = const { Cell::new(0) });
        let depth = DEPTH.get();
        if depth >= MAX_STORED_DEPTH {
            return Err(minicbor::decode::Error::message("a failure has too many causes"));
        }
        DEPTH.set(depth + 1);
        let stored = Stored::decode(d, context);
        DEPTH.set(depth);
        stored.map(|Stored { message, kind, place, cause }| Self { message, kind, place, cause })
    }
}

/// The kinds of failure, as in Temporal.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum FailureKind {
    /// Raised by user code.
    #[n(0)]
    Application {
        /// A name that retry policies can match, chosen by the user; never a Rust type name.
        #[n(0)]
        r#type: Option<Box<str>>,
        /// No retry can mend it.
        #[n(1)]
        non_retryable: bool,
        /// Anything more that the user attached.
        #[n(2)]
        details: Option<Payload>,
        /// The delay before the next attempt, in milliseconds, instead of the policy's.
        #[n(3)]
        next_retry_delay_ms: Option<u64>,
    },
    /// A time limit passed.
    #[n(1)]
    Timeout {
        /// Which limit.
        #[n(0)]
        timeout: TimeoutKind,
        /// The details of the last heartbeat, if there was one.
        #[n(1)]
        last_heartbeat: Option<Payload>,
    },
    /// Cancellation was requested, and reached here.
    #[n(2)]
    Canceled {},
    /// The run was terminated from outside.
    #[n(3)]
    Terminated {},
    /// An activity failed for good; the cause says why.
    #[n(4)]
    Activity {
        /// The activity's wire name.
        #[n(0)]
        activity_type: String,
        /// Its id within the run.
        #[n(1)]
        activity_id: u64,
        /// The last attempt that was made.
        #[n(2)]
        attempt: u32,
        /// Why no further attempt is made.
        #[n(3)]
        retry_state: RetryState,
    },
}

/// The four time limits of an activity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum TimeoutKind {
    /// One attempt took too long.
    #[n(0)]
    StartToClose,
    /// All attempts together took too long.
    #[n(1)]
    ScheduleToClose,
    /// No worker took it up in time. Never retried.
    #[n(2)]
    ScheduleToStart,
    /// The attempt gave no sign of life in time.
    #[n(3)]
    Heartbeat,
}

impl fmt::Display for TimeoutKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StartToClose => "start-to-close",
            Self::ScheduleToClose => "schedule-to-close",
            Self::ScheduleToStart => "schedule-to-start",
            Self::Heartbeat => "heartbeat",
        })
    }
}

/// Why no further attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum RetryState {
    /// The failure said that no retry can mend it, or its type is on the policy's list.
    #[n(0)]
    NonRetryableFailure,
    /// The policy's attempts are used up.
    #[n(1)]
    MaximumAttemptsReached,
    /// The next attempt would begin after the schedule-to-close limit.
    #[n(2)]
    Timeout,
    /// Cancellation was requested.
    #[n(3)]
    CancelRequested,
}

impl Failure {
    /// A retryable Application failure with this message, and the place of the call.
    #[track_caller]
    #[must_use]
    pub fn application(message: impl Into<String>) -> Self {
        Self { place: here(Location::caller()), ..Self::unplaced(message) }
    }

    /// The same without a place: for what a library says on behalf of somebody's code. A line of the library's own
    /// source would send people to the wrong house.
    #[must_use]
    pub fn unplaced(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            kind: FailureKind::Application {
                r#type: None,
                non_retryable: false,
                details: None,
                next_retry_delay_ms: None,
            },
            place: None,
            cause: None,
        }
    }

    /// The failure of a time limit.
    #[must_use]
    pub fn timeout(timeout: TimeoutKind, last_heartbeat: Option<Payload>) -> Self {
        Self {
            message: format!("the {timeout} time limit passed"),
            kind: FailureKind::Timeout { timeout, last_heartbeat },
            place: None,
            cause: None,
        }
    }

    /// An activity that failed for good.
    #[must_use]
    pub fn activity(
        activity_type: &str,
        activity_id: u64,
        attempt: u32,
        retry_state: RetryState,
        cause: Failure,
    ) -> Self {
        let why = match retry_state {
            RetryState::NonRetryableFailure => "the failure is not retryable",
            RetryState::MaximumAttemptsReached => "no attempts are left",
            RetryState::Timeout => "its time is up",
            RetryState::CancelRequested => "it was canceled",
        };
        Self {
            message: format!("activity {activity_type} failed on attempt {attempt}: {why}"),
            kind: FailureKind::Activity { activity_type: activity_type.into(), activity_id, attempt, retry_state },
            place: None,
            cause: Some(Box::new(cause.folded())),
        }
    }

    /// The failure of a terminated run.
    #[must_use]
    pub fn terminated(reason: impl Into<String>) -> Self {
        Self { message: reason.into(), kind: FailureKind::Terminated {}, place: None, cause: None }
    }

    /// The failure as it may be stored. A chain that was built by hand beyond all measure is folded. Details and heartbeats
    /// that are nested too deeply ([`MAX_PAYLOAD_DEPTH`](crate::MAX_PAYLOAD_DEPTH)) are left out. What is longer than
    /// [`MAX_FAILURE_BYTES`] with its causes is cut: messages in their middle, details and heartbeats left out, the cut
    /// said in the message; then the innermost causes.
    #[must_use]
    pub fn storable(self) -> Self {
        let mut failure = if self.chain().count() > MAX_STORED_DEPTH as usize / 2 { self.folded() } else { self };
        let mut next = Some(&mut failure);
        while let Some(link) = next {
            link.leave_out_what_is_too_deep();
            next = link.cause.as_deref_mut();
        }
        if failure.chain().map(Self::own_bytes).sum::<usize>() <= MAX_FAILURE_BYTES {
            return failure;
        }
        let mut left = MAX_FAILURE_BYTES;
        let mut next = Some(&mut failure);
        while let Some(link) = next {
            link.cut(MAX_FAILURE_BYTES / 4);
            left = left.saturating_sub(link.own_bytes());
            if link.cause.as_ref().is_some_and(|cause| cause.own_bytes().min(MAX_FAILURE_BYTES / 4) > left) {
                link.cause = None;
            }
            next = link.cause.as_deref_mut();
        }
        failure
    }

    fn leave_out_what_is_too_deep(&mut self) {
        let values = match &mut self.kind {
            FailureKind::Application { details, .. } => details,
            FailureKind::Timeout { last_heartbeat, .. } => last_heartbeat,
            FailureKind::Activity { .. } | FailureKind::Canceled {} | FailureKind::Terminated {} => return,
        };
        if values.take_if(|value| value.is_too_deep()).is_some() {
            self.message = format!("{} (details that are nested too deeply were left out)", self.message);
        }
    }

    /// About how many bytes it takes as JSON, which is its longest form, without its causes.
    fn own_bytes(&self) -> usize {
        let particulars = match &self.kind {
            FailureKind::Application { r#type, details, .. } => {
                r#type.as_ref().map_or(0, |name| json_len(name)) + details.as_ref().map_or(0, Payload::len)
            }
            FailureKind::Timeout { last_heartbeat, .. } => last_heartbeat.as_ref().map_or(0, Payload::len),
            FailureKind::Activity { activity_type, .. } => json_len(activity_type),
            FailureKind::Canceled {} | FailureKind::Terminated {} => 0,
        };
        // What every failure takes besides.
        64 + json_len(&self.message) + self.place.as_ref().map_or(0, |place| json_len(place)) + particulars
    }

    /// Cuts what is beyond so many bytes, and says so.
    fn cut(&mut self, limit: usize) {
        if self.own_bytes() <= limit {
            return;
        }
        let mut note = String::new();
        if let FailureKind::Application { r#type, details, .. } = &mut self.kind {
            if let Some(details) = details.take_if(|details| details.len() > limit / 4) {
                note = format!(" ({} bytes of details were left out)", details.len());
            }
            if let Some(name) = r#type.as_mut().filter(|name| json_len(name) > limit / 4) {
                *name = middle_cut(name, limit / 4).into();
            }
        }
        if let FailureKind::Timeout { last_heartbeat, .. } = &mut self.kind {
            last_heartbeat.take_if(|details| details.len() > limit / 4);
        }
        self.message = format!("{}{note}", middle_cut(&self.message, limit / 4));
    }

    /// Names the failure, so that retry policies and callers can tell it from others.
    #[must_use]
    pub fn with_type(mut self, name: impl Into<String>) -> Self {
        if let FailureKind::Application { r#type, .. } = &mut self.kind {
            *r#type = Some(name.into().into_boxed_str());
        }
        self
    }

    /// Says that no retry can mend it.
    #[must_use]
    pub fn non_retryable(mut self) -> Self {
        if let FailureKind::Application { non_retryable, .. } = &mut self.kind {
            *non_retryable = true;
        }
        self
    }

    /// Attaches more for the caller to read. A value that does not serialize is noted in the message instead.
    #[must_use]
    pub fn with_details<T: Serialize>(mut self, value: &T) -> Self {
        match (Payload::encode(value), &mut self.kind) {
            (Ok(payload), FailureKind::Application { details, .. }) => *details = Some(payload),
            (Err(error), _) => self.message = format!("{} ({})", self.message, error.message),
            _ => {}
        }
        self
    }

    /// Asks for this delay before the next attempt, instead of the policy's. Still bounded by schedule-to-close.
    #[must_use]
    pub fn with_next_retry_delay(mut self, delay: Duration) -> Self {
        if let FailureKind::Application { next_retry_delay_ms, .. } = &mut self.kind {
            *next_retry_delay_ms = Some(millis(delay));
        }
        self
    }

    /// Adds a cause. Beyond [`MAX_CAUSES`] the rest is folded into one message.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Failure>) -> Self {
        self.cause = Some(Box::new(cause.into().folded()));
        self
    }

    /// The failure with a chain that is not too long to be somebody's cause.
    pub(crate) fn folded(mut self) -> Self {
        if self.chain().count() >= MAX_CAUSES {
            self.message = self.chain().map(|f| f.message.as_str()).collect::<Vec<_>>().join(": ");
            self.cause = None;
        }
        self
    }

    /// Says what it is about, and where that was asked for.
    pub(crate) fn about(mut self, what: impl fmt::Display, place: Option<&Place>) -> Self {
        self.message = format!("{what}: {}", self.message);
        self.at(place)
    }

    /// Says where in the source that was asked for which has failed, unless it is known better.
    pub(crate) fn at(mut self, place: Option<&Place>) -> Self {
        self.place = self.place.or_else(|| place.map(|place| place.to_string().into()));
        self
    }

    /// The failure's own type name, for Application failures that carry one.
    #[must_use]
    pub fn type_name(&self) -> Option<&str> {
        match &self.kind {
            FailureKind::Application { r#type, .. } => r#type.as_deref(),
            _ => None,
        }
    }

    /// Whether this is a cancellation on its way out.
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        matches!(self.kind, FailureKind::Canceled {})
    }

    /// Where the innermost of its causes that has a place arose: what happened there led to all of it.
    #[must_use]
    pub fn innermost_place(&self) -> Option<&str> {
        self.chain().filter_map(|failure| failure.place.as_deref()).last()
    }

    /// This failure and its causes, outermost first.
    pub fn chain(&self) -> impl Iterator<Item = &Failure> {
        std::iter::successors(Some(self), |failure| failure.cause.as_deref())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, failure) in self.chain().enumerate() {
            if depth > 0 {
                f.write_str(": ")?;
            }
            f.write_str(&failure.message)?;
        }
        Ok(())
    }
}

/// Cancellation was requested and reached this await. Not an error of the program: pass it on with `?`,
/// or clean up inside `detached()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canceled;

impl From<Canceled> for Failure {
    #[track_caller]
    fn from(_: Canceled) -> Self {
        let place = here(Location::caller());
        Self { message: "canceled".into(), kind: FailureKind::Canceled {}, place, cause: None }
    }
}

/// Of the type `Panic`.
impl From<Panic> for Failure {
    fn from(Panic { message, place, .. }: Panic) -> Self {
        Self { place: place.map(Into::into), ..Self::unplaced(message) }.with_type("Panic")
    }
}

/// Every [`std::error::Error`]. A name of our own, so that the compiler says of others what to do.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no `std::error::Error`, so that no failure is made of it by itself",
    label = "this is no `std::error::Error`: write `.or_fail()?`",
    note = "`OrFail::or_fail` takes `anyhow::Error`, `Box<dyn Error + Send + Sync>` and text"
)]
pub trait StdError: std::error::Error {}

#[diagnostic::do_not_recommend]
impl<E: std::error::Error> StdError for E {}

impl<E: StdError> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        from_error(&error, here(Location::caller()))
    }
}

fn from_error(error: &dyn std::error::Error, place: Option<Box<str>>) -> Failure {
    let mut chain = std::iter::successors(error.source(), |e| e.source()).map(ToString::to_string);
    let kept: Vec<String> = chain.by_ref().take(MAX_CAUSES).collect();
    let cause = kept
        .into_iter()
        .rev()
        .fold(None, |cause, message| Some(Failure { cause: cause.map(Box::new), ..Failure::unplaced(message) }));
    Failure { place, cause: cause.map(Box::new), ..Failure::unplaced(error.to_string()) }
}

/// `?` for errors that are no `std::error::Error` themselves: `anyhow::Error`, `Box<dyn Error>`.
pub trait OrFail<T> {
    /// Turns the error into a retryable Application failure.
    ///
    /// # Errors
    /// The same error, as a [`Failure`].
    fn or_fail(self) -> Result<T, Failure>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> OrFail<T> for Result<T, E> {
    #[track_caller]
    fn or_fail(self) -> Result<T, Failure> {
        let place = here(Location::caller());
        self.map_err(|error| from_error(&*error.into(), place))
    }
}

/// Bytes of a text within a string of JSON.
fn json_len(text: &str) -> usize {
    text.bytes().map(json_byte).sum()
}

fn json_byte(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    }
}

/// The text without its middle, when it is longer than so many bytes of JSON.
fn middle_cut(text: &str, limit: usize) -> String {
    if json_len(text) <= limit {
        return text.to_owned();
    }
    let fitting = |bytes: &mut dyn Iterator<Item = u8>| {
        let taken = bytes.scan(0, |sum, byte| {
            *sum += json_byte(byte);
            Some(*sum)
        });
        taken.take_while(|sum| *sum <= limit / 2).count()
    };
    let head = text.floor_char_boundary(fitting(&mut text.bytes()));
    let tail = text.ceil_char_boundary(text.len() - fitting(&mut text.bytes().rev()));
    format!("{} ... ({} bytes were cut) ... {}", &text[..head], tail - head, &text[tail..])
}

/// Where somebody's code stands, unless it is this crate's.
fn here(location: &Location<'_>) -> Option<Box<str>> {
    (!is_ours(location)).then(|| format!("{}:{}", location.file(), location.line()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the bank is closed")]
    struct Closed(#[source] std::io::Error);

    fn charge() -> Result<(), Failure> {
        Err(Closed(std::io::Error::other("no route")))?
    }

    #[test]
    fn the_chain_survives_the_question_mark() {
        let failure = charge().unwrap_err();
        assert_eq!(failure.to_string(), "the bank is closed: no route");
        assert!(matches!(failure.kind, FailureKind::Application { r#type: None, non_retryable: false, .. }));
    }

    #[test]
    fn details_travel_along() {
        let failure = Failure::application("declined").with_details(&["code", "51"]);
        let FailureKind::Application { details: Some(details), .. } = failure.kind else { panic!("{failure:?}") };
        assert_eq!(details.decode::<Vec<String>>().unwrap(), ["code", "51"]);
    }

    #[test]
    fn cancellation_keeps_its_kind() {
        fn stop() -> Result<(), Failure> {
            Err(Canceled)?
        }
        assert!(stop().unwrap_err().is_canceled());
    }

    #[test]
    fn long_chains_are_folded_not_grown() {
        let mut failure = Failure::application("0");
        for n in 1..100 {
            failure = Failure::application(n.to_string()).caused_by(failure);
        }
        assert!(failure.chain().count() <= MAX_CAUSES + 1);
    }

    #[test]
    fn json_and_cbor_give_the_same_failure_back() {
        let failure = Failure::activity("charge", 3, 5, RetryState::MaximumAttemptsReached, charge().unwrap_err());
        let json = serde_json::to_string(&failure).unwrap();
        assert_eq!(serde_json::from_str::<Failure>(&json).unwrap(), failure);
        let cbor = minicbor::to_vec(&failure).unwrap();
        assert_eq!(minicbor::decode::<Failure>(&cbor).unwrap(), failure);
    }
}
