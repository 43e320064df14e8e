//! Run queue and task queues on SQS. What travels is described in [`wire`](crate::wire), alarms in
//! [`alarms`].
//!
//! - **Run queue**: FIFO. The message group is a hash of namespace and workflow id, so that messages of one workflow
//!   are handled one after another. The deduplication id is fresh for every send: a fixed one would swallow what is
//!   dispatched again within five minutes. That is wanted of one thing alone: of what the sweep says of a run that is
//!   overdue, whose id follows from the run, its due time, and when it is tried again, should it be parked. Deciders that
//!   are behind find it once, not once a minute; and when more than
//!   [`longest_backlog`](QueueSettings::longest_backlog) messages wait for them, the sweep adds none.
//! - **Task queues**: standard, one per task-queue name. A task that begins later is delayed by SQS, up to the longest
//!   delay; beyond it travels as a deferred message through the alarm queue.
//! - **An intent** is sent when it is announced: FIFO queues have no delay per message. Its ticket holds nothing. The
//!   queued copy decides, or does what its caller's crash left out (rule F2).
//! - **Large bodies**, and the rare text that a queue cannot carry (U+FFFE, U+FFFF, what EventBridge Scheduler takes
//!   for a placeholder), lie in the bucket below `messages/`, and a pointer travels. The object is written before the
//!   message is sent; nobody deletes it but the bucket's lifecycle, which must keep it for longer than
//!   [`LONGEST_LIFE`].
//!
//! The SDK may send again what was not answered. That makes duplicates, and the history makes them harmless; so the
//! clients keep their retries, unlike the store's.
//!
//! Tasks are handed out in requests of up to ten ([`ActivityQueue::send`]), sixteen requests at a time, so that what one
//! turn asks for leaves within one invocation. What SQS did not take of a request is sent again, a few times.
//!
//! # What it costs
//!
//! SQS counts a request for each send, and for each receive and delete of up to 10 messages, begun per 64 KB. Lambda
//! receives and deletes on our behalf, in batches when there is more than one message: the most is said here.
//!
//! | what | sends | with receives and deletes |
//! | --- | --- | --- |
//! | start, signal, cancel | 1 (the intent) | 3 |
//! | a start that the decider creates before its caller does | 2 | 6 |
//! | a local step | 0 | 0 |
//! | a queued step | 2 (task, completion) | 6 |
//! | n queued steps of one turn | n / 10 (tasks) and n (completions) | |
//! | each further attempt within the longest delay | 1 | 3 |
//! | a limit from its scheduling on | as a timer, but the alarm is shared by all of the run | |
//! | a timer within the longest delay | 2 (alarm, forwarded) | 6 |
//! | a timer beyond it | 2 and one by the Scheduler, 1 `CreateSchedule` | 9 |
//! | a task put off beyond it | as such a timer | 9 |
//! | clearing an alarm, setting the same again in the same process | 0 | 0 |
//! | the sweep, for each overdue run | 1/10 | 2 |
//! | the sweep, for each page of rows | 1 `GetQueueAttributes` | 1 |
//! | a body beyond 200 KB | besides, 1 put and 1 get of S3 | |

pub mod alarms;
pub(crate) mod bulk;
pub mod route;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_sqs::types::{ChangeMessageVisibilityBatchRequestEntry, MessageAttributeValue, QueueAttributeName};
use dormouse_core::{ActivityTask, Arrival, Timestamp, WorkflowKey, derive};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use lru::LruCache;
use tokio::runtime::Handle;

use self::alarms::{PutOff, REMEMBERED, Set};
use self::bulk::{Parcel, Way};
use self::route::Route;
use crate::blobs::Blobs;
use crate::errors::Service;
use crate::on;
use crate::wire::{Deferred, LARGEST_BODY, LONGEST_LIFE, Message, Stored, Task, WireError, decode, encode, group, hex};
use dormouse_engine::seams::{
    ActivityQueue, Host, Intent, Overdue, RunMessage, RunQueue, SeamFuture, Sweeping, Ticket,
};
use dormouse_engine::store::StoreError;

/// The task queue of activities that name none.
pub const DEFAULT_TASK_QUEUE: &str = "default";

/// The longest delay that SQS knows, in seconds. It refuses more; what imitates it may not.
pub const LONGEST_SQS_DELAY: u32 = 900;

/// Characters that SQS refuses, besides control characters.
const NOT_TAKEN: [char; 2] = ['\u{fffe}', '\u{ffff}'];

/// Says why a message lies among the dead letters, where SQS has not put it there.
pub const REASON_ATTRIBUTE: &str = "dormouse-reason";

/// So many characters of the reason travel.
const LONGEST_REASON: usize = 1_000;

/// The longest that SQS hides a message, in seconds.
const LONGEST_HIDING: i32 = 43_200;

/// A task that may begin only later than this is not sent: a message lives no longer than [`LONGEST_LIFE`], and must
/// have time left when it arrives. The sweep looks at its run until then, and hands the task out again.
pub const LONGEST_WAIT: Duration = Duration::from_hours(7 * 24);

/// [`QueueSettings::longest_backlog`], unless told otherwise.
pub const LONGEST_BACKLOG: u64 = 10_000;

/// Where the queues are, and how alarms are set.
#[derive(Clone)]
pub struct QueueSettings {
    /// The run queue (FIFO).
    pub run_queue_url: String,
    /// The alarm queue (standard).
    pub alarm_queue_url: String,
    /// The alarm queue as the target of schedules.
    pub alarm_queue_arn: String,
    /// Task queues by name; [`DEFAULT_TASK_QUEUE`] must be there.
    pub task_queues: BTreeMap<String, String>,
    /// Where messages of the task queues are given up.
    pub dead_letters_url: String,
    /// The group that schedules are made in.
    pub schedule_group: String,
    /// The role that the Scheduler takes to send to the alarm queue.
    pub schedule_role_arn: String,
    /// The longest delay that is left to SQS: 1 to 900 s.
    pub longest_delay: Duration,
    /// How much earlier than its due time a schedule fires: the Scheduler is precise to a minute, SQS to a second.
    /// Up to half as much again is added, so that alarms of the same second do not fire together.
    pub schedule_lead: Duration,
    /// With more messages than this on the run queue, waiting or being handled, the sweep adds none: what it would heal
    /// waits behind them anyway.
    pub longest_backlog: u64,
    /// Time, and ids that nobody else draws.
    pub host: Arc<dyn Host>,
}

/// The seams [`RunQueue`], [`ActivityQueue`] and [`Alarms`](dormouse_engine::seams::Alarms) on AWS. Cloning is cheap.
#[derive(Clone)]
pub struct Queues(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    sqs: aws_sdk_sqs::Client,
    pub(crate) scheduler: aws_sdk_scheduler::Client,
    pub(crate) settings: QueueSettings,
    blobs: Blobs,
    pub(crate) runtime: Handle,
    pub(crate) set: Mutex<LruCache<dormouse_core::RunKey, Set>>,
}

/// Why a body did not become a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// The bucket did not answer: let the message be delivered again.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Quarantine it: it will not be read at another time either.
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl Queues {
    /// Queues with these settings. Requests run on `runtime`.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the settings cannot work; the message says what to change.
    pub fn new(
        sqs: aws_sdk_sqs::Client,
        scheduler: aws_sdk_scheduler::Client,
        settings: QueueSettings,
        blobs: Blobs,
        runtime: Handle,
    ) -> Result<Self, StoreError> {
        let refused = |problem: String| Err(StoreError::refused(problem));
        if !settings.task_queues.contains_key(DEFAULT_TASK_QUEUE) {
            return refused(format!("there is no task queue {DEFAULT_TASK_QUEUE:?}: name one in the task queues"));
        }
        let (shortest, longest) = (Duration::from_secs(1), Duration::from_secs(LONGEST_SQS_DELAY.into()));
        if settings.longest_delay < shortest || settings.longest_delay > longest {
            let found = settings.longest_delay;
            return refused(format!("the longest delay is {found:?}; SQS can delay by {shortest:?} to {longest:?}"));
        }
        let set = Mutex::new(LruCache::new(REMEMBERED));
        Ok(Self(Arc::new(Inner { sqs, scheduler, settings, blobs, runtime, set })))
    }

    /// Reads what was received, from the bucket when only a pointer travelled. Never answers [`Message::Stored`].
    ///
    /// The process that decides a run receives its messages with the queues that it sets alarms with: an alarm that has
    /// rung is remembered as set no longer.
    #[must_use]
    pub fn receive(&self, body: &str) -> BoxFuture<'static, Result<Message, ReceiveError>> {
        let stored = match decode(body) {
            Ok(Message::Stored(stored)) => stored,
            Ok(message) => {
                if let Message::Run(RunMessage::Arrived { run, arrival: Arrival::Alarm, .. }) = &message {
                    self.has_rung(run);
                }
                return futures::future::ready(Ok(message)).boxed();
            }
            Err(error) => return futures::future::ready(Err(error.into())).boxed(),
        };
        let fetched = self.0.blobs.get(&stored.key);
        async move {
            let gone = |why: &str| WireError::Malformed(format!("the message stored at {} {why}", stored.key));
            let bytes = fetched.await?.ok_or_else(|| gone("is not there any more"))?;
            let body = std::str::from_utf8(&bytes).map_err(|_| gone("is no text"))?;
            if !stored.holds(body) {
                return Err(gone("was altered").into());
            }
            match decode(body)? {
                Message::Stored(_) => Err(gone("is a pointer to another").into()),
                message => Ok(message),
            }
        }
        .boxed()
    }

    /// What a message says whose body is a pointer; `None` when it is none, or what it points to is gone or altered.
    pub(crate) async fn text(&self, body: &str) -> Result<Option<String>, StoreError> {
        let Ok(Message::Stored(stored)) = decode(body) else { return Ok(None) };
        let text = self.0.blobs.get(&stored.key).await?.and_then(|bytes| String::from_utf8(bytes.into()).ok());
        Ok(text.filter(|text| stored.holds(text)))
    }

    /// Gives up a message of a task queue that is no task: it goes among the dead letters at once, with the reason, and
    /// from there into quarantine. Whoever runs code of activities may not write there.
    #[must_use]
    pub fn give_up(&self, body: &str, reason: &str) -> SeamFuture<'static, ()> {
        let (queues, body, reason) = (self.clone(), body.to_owned(), reason.to_owned());
        on(&self.0.runtime, async move {
            let url = &queues.0.settings.dead_letters_url;
            // SQS takes no control characters.
            let reason: String =
                reason.chars().filter(|c| !c.is_control() && !NOT_TAKEN.contains(c)).take(LONGEST_REASON).collect();
            let told = MessageAttributeValue::builder().data_type("String").string_value(reason).build();
            let told = told.map_err(|error| StoreError::refused(error.to_string()))?;
            let send = queues.0.sqs.send_message().queue_url(url).message_body(body);
            let send = send.message_attributes(REASON_ATTRIBUTE, told);
            send.send().await.map_err(|error| Service::Sqs.error(url, &error))?;
            Ok(())
        })
    }

    /// Hides received messages from other consumers for so many seconds from now, with one request. They are of the
    /// queue with this ARN; of one that is not among the settings, nothing is hidden.
    #[must_use]
    pub fn hide(&self, queue_arn: &str, receipts: Vec<String>, seconds: u32) -> SeamFuture<'static, ()> {
        let settings = &self.0.settings;
        let name = queue_arn.rsplit(':').next().unwrap_or_default();
        let url = [&settings.run_queue_url, &settings.alarm_queue_url]
            .into_iter()
            .chain(settings.task_queues.values())
            .find(|url| url.rsplit('/').next() == Some(name));
        let Some(url) = url.cloned() else { return futures::future::ready(Ok(())).boxed() };
        let seconds = i32::try_from(seconds).unwrap_or(i32::MAX).min(LONGEST_HIDING);
        let queues = self.clone();
        on(&self.0.runtime, async move {
            let mut entries = Vec::with_capacity(receipts.len());
            for (index, receipt) in receipts.into_iter().enumerate() {
                let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(index.to_string());
                let entry = entry.receipt_handle(receipt).visibility_timeout(seconds).build();
                entries.push(entry.map_err(|error| StoreError::refused(error.to_string()))?);
            }
            let change = queues.0.sqs.change_message_visibility_batch().queue_url(&url).set_entries(Some(entries));
            change.send().await.map_err(|error| Service::Sqs.error(&url, &error))?;
            Ok(())
        })
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.0.settings.host.now()
    }

    /// How many messages are on the run queue, waiting or being handled, about.
    async fn backlog(&self) -> Result<u64, StoreError> {
        use QueueAttributeName::{
            ApproximateNumberOfMessages as Waiting, ApproximateNumberOfMessagesNotVisible as BeingHandled,
        };
        let get = self.0.sqs.get_queue_attributes().queue_url(&self.0.settings.run_queue_url);
        let get = get.attribute_names(Waiting).attribute_names(BeingHandled);
        let found = get.send().await.map_err(|error| Service::Sqs.error("the run queue", &error))?;
        let numbers = found.attributes.unwrap_or_default();
        Ok([Waiting, BeingHandled].iter().filter_map(|name| numbers.get(name)?.parse::<u64>().ok()).sum())
    }

    /// Word of a run that is overdue. The same within five minutes is one message.
    fn swept(&self, Overdue { run, due, retry_at }: Overdue) -> Result<Option<Parcel>, StoreError> {
        let bytes = |time: Timestamp| time.as_millis().to_le_bytes();
        let (ordinal, due, retry_at) = (run.ordinal.to_le_bytes(), bytes(due), retry_at.map(bytes));
        let WorkflowKey { namespace, workflow_id } = &run.workflow;
        let retry_at = retry_at.as_ref().map_or(&[][..], |bytes| bytes);
        let parts = [namespace.as_bytes(), workflow_id.as_bytes(), &ordinal, &due, retry_at];
        let id = hex(derive("dormouse sweep", &parts));
        let way = Way::Grouped { group: group(&run.workflow), id };
        let body = encode(&Message::Run(RunMessage::Sweep { run }))?;
        Ok(Some(Parcel { url: self.0.settings.run_queue_url.clone(), body, way }))
    }

    fn task_queue(&self, name: &str) -> Result<String, StoreError> {
        let queues = &self.0.settings.task_queues;
        queues.get(name).cloned().ok_or_else(|| {
            let known: Vec<_> = queues.keys().map(String::as_str).collect();
            StoreError::refused(format!(
                "there is no task queue {name:?}; there are: {}. Deploy one, and name its URL in DORMOUSE_TASK_QUEUES",
                known.join(", ")
            ))
        })
    }

    /// The body as it travels: itself, or a pointer to where it was put.
    async fn carried(&self, body: String) -> Result<String, StoreError> {
        if body.len() <= LARGEST_BODY && is_plain(&body) {
            return Ok(body);
        }
        let stored = Stored::of(&body);
        self.0.blobs.put(&stored.key, body.into()).await?;
        Ok(encode(&Message::Stored(stored))?)
    }

    /// Sends to the run queue.
    pub(crate) async fn send_run(&self, message: RunMessage) -> Result<(), StoreError> {
        let group = group(&message.run().workflow);
        let body = self.carried(encode(&Message::Run(message))?).await?;
        self.send_run_body(&group, body).await
    }

    /// Sends a body to the run queue as it is.
    async fn send_run_body(&self, group: &str, body: String) -> Result<(), StoreError> {
        let fresh = hex(self.0.settings.host.fresh_id());
        let send = self.0.sqs.send_message().queue_url(&self.0.settings.run_queue_url).message_body(body);
        send.message_group_id(group)
            .message_deduplication_id(fresh)
            .send()
            .await
            .map_err(|error| Service::Sqs.error("the run queue", &error))?;
        Ok(())
    }

    /// Sends to a standard queue.
    async fn send_standard(&self, url: &str, body: String, delay: u32) -> Result<(), StoreError> {
        let delay = sqs_delay(delay)?;
        let send = self.0.sqs.send_message().queue_url(url).message_body(body).delay_seconds(delay);
        send.send().await.map_err(|error| Service::Sqs.error(url, &error))?;
        Ok(())
    }

    pub(crate) async fn send_alarm_queue(&self, body: String, delay: u32) -> Result<(), StoreError> {
        self.send_standard(&self.0.settings.alarm_queue_url, body, delay).await
    }

    /// Sends a body to a task queue as it is.
    pub(crate) async fn send_task_body(&self, queue: &str, body: String) -> Result<(), StoreError> {
        self.send_standard(&self.task_queue(queue)?, body, 0).await
    }

    /// Sends a body that has travelled before, as it is.
    pub(crate) async fn send_again(&self, route: &Route, body: String) -> Result<(), StoreError> {
        match route {
            Route::Runs { group } => self.send_run_body(group, body).await,
            Route::Tasks { queue } => self.send_task_body(queue, body).await,
            Route::Alarms => self.send_alarm_queue(body, 0).await,
        }
    }

    /// A task as it travels. `None`: it is not sent from here, now.
    async fn readied(&self, task: ActivityTask) -> Result<Option<Parcel>, StoreError> {
        let queue = task.options.task_queue.clone().unwrap_or_else(|| DEFAULT_TASK_QUEUE.to_owned());
        let url = match self.task_queue(&queue) {
            Ok(url) => url,
            // The run goes on, and once the queue is there the sweep finds it.
            Err(error) => {
                tracing::error!(run = %task.run, activity = task.id, %error, "a task is not sent");
                return Ok(None);
            }
        };
        let now = self.now();
        let wait = task.not_before.since(now);
        if wait > LONGEST_WAIT {
            tracing::debug!(run = %task.run, activity = task.id, "a task for later is left to the sweep");
            return Ok(None);
        }
        let name = alarms::task_name(&task, &queue);
        let due = task.not_before;
        let body = encode(&Message::Task(Task { task, not_after: now + LONGEST_LIFE }))?;
        let body = self.carried(body).await?;
        match u32::try_from(seconds(wait)) {
            Ok(delay) if u64::from(delay) <= self.longest_delay() => {
                Ok(Some(Parcel { url, body, way: Way::Delayed(delay) }))
            }
            _ => {
                let deferred = encode(&Message::Deferred(Deferred { task_queue: queue, due, body }))?;
                match self.put_off(deferred, due, now, &name).await? {
                    PutOff::ToSend(parcel) => Ok(Some(parcel)),
                    PutOff::Scheduled | PutOff::LeftToTheSweep => Ok(None),
                }
            }
        }
    }

    /// The longest delay that is left to SQS, in seconds.
    pub(crate) fn longest_delay(&self) -> u64 {
        self.0.settings.longest_delay.as_secs()
    }
}

/// Whole seconds, rounded up so that nothing is early.
pub(crate) fn seconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX)
}

/// A delay that SQS takes.
fn sqs_delay(seconds: u32) -> Result<i32, StoreError> {
    match i32::try_from(seconds) {
        Ok(delay) if seconds <= LONGEST_SQS_DELAY => Ok(delay),
        _ => Err(StoreError::refused(format!("a delay of {seconds} s; SQS delays by {LONGEST_SQS_DELAY} s at most"))),
    }
}

/// Whether SQS and EventBridge Scheduler deliver the text as it is. SQS refuses two characters; the Scheduler replaces
/// its placeholders.
fn is_plain(body: &str) -> bool {
    !body.contains(NOT_TAKEN) && !body.contains("<aws.scheduler.")
}

impl RunQueue for Queues {
    fn announce(&self, intent: Intent) -> SeamFuture<'_, Ticket> {
        let queues = self.clone();
        on(&self.0.runtime, async move {
            queues.send_run(RunMessage::Intent(intent)).await?;
            // It is delivered by itself, whatever happens to the caller.
            Ok(Ticket::new(|_| ()))
        })
    }

    fn send(&self, message: RunMessage) -> SeamFuture<'_, ()> {
        let queues = self.clone();
        on(&self.0.runtime, async move { queues.send_run(message).await })
    }

    fn sweep(&self, overdue: Vec<Overdue>) -> SeamFuture<'_, Sweeping> {
        let queues = self.clone();
        on(&self.0.runtime, async move {
            if queues.backlog().await? > queues.0.settings.longest_backlog {
                return Ok(Sweeping::Behind);
            }
            let ready = futures::stream::iter(overdue).map(async |overdue| queues.swept(overdue));
            queues.send_all(ready).await.map(|()| Sweeping::Sent)
        })
    }
}

impl ActivityQueue for Queues {
    fn send(&self, tasks: Vec<ActivityTask>) -> SeamFuture<'_, ()> {
        let queues = self.clone();
        on(&self.0.runtime, async move {
            let ready = futures::stream::iter(tasks).map(|task| queues.readied(task));
            queues.send_all(ready).await
        })
    }

    fn no_such_queue(&self, task_queue: Option<&str>) -> Option<String> {
        self.task_queue(task_queue.unwrap_or(DEFAULT_TASK_QUEUE)).err().map(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AWS refuses it; what imitates AWS does not.
    #[test]
    fn no_delay_beyond_what_sqs_takes_is_sent() {
        assert_eq!(sqs_delay(0), Ok(0));
        assert_eq!(sqs_delay(900), Ok(900));
        for delay in [901, u32::MAX] {
            assert!(matches!(sqs_delay(delay), Err(StoreError::Refused(_))), "{delay}");
        }
    }

    #[test]
    fn waits_are_rounded_up() {
        let wait = |millis| seconds(Duration::from_millis(millis));
        assert_eq!((wait(0), wait(1), wait(1_000), wait(1_001), wait(899_001)), (0, 1, 1, 2, 900));
        assert_eq!(seconds(Duration::MAX), u64::MAX);
    }

    #[test]
    fn what_a_queue_would_refuse_or_change_is_known() {
        assert!(is_plain("{\"a\":\"\u{7f}\u{fffd}\u{1F980}<aws>\"}"));
        for odd in ["\u{fffe}", "a\u{ffff}", "<aws.scheduler.execution-id>"] {
            assert!(!is_plain(odd), "{odd:?}");
        }
    }
}
