//! Running activities: claim, run user code within its limits, report. User code runs wherever the host spawns it.

use std::sync::Arc;
use std::time::Duration;

use dormouse_core::operations;
use dormouse_core::planted::{Bug, planted};
use dormouse_core::{
    Activity, ActivityHost, ActivityInfo, ActivityTask, App, Arrival, CancelReason, DEFAULT_TASK_QUEUE, Failure, Panic,
    Payload, RetryState, RunKey, TimeoutKind, Timestamp, Verdict,
};
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::attempts::{Claim, Claiming, Standing, claim, lost_to};
use crate::host::{Task, Unfinished};
use crate::journal::Attempted;
use crate::ports::Ports;
use crate::seams::{Code, Delivery, RunMessage};
use crate::stop::Stop;
use crate::store::StoreError;

/// Heartbeats are written no more often than this share of the heartbeat limit.
const HEARTBEAT_SHARE: f64 = 0.8;
/// The interval between written heartbeats when there is no heartbeat limit.
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(30);
/// A heartbeat whose write failed is written again after so long.
const HEARTBEAT_AGAIN: Duration = Duration::from_secs(1);
/// The longest interval between written heartbeats.
const HEARTBEAT_LONGEST: Duration = Duration::from_secs(60);
/// The interval while the process stops: what is not written then is lost.
const HEARTBEAT_LAST: Duration = Duration::from_millis(100);

/// Handles a delivery of a task whose message may have been under way for long: after `not_after`, nothing is run, since
/// the record that tells of earlier attempts may be gone (rule C4). The sweep hands the task out again if it is wanted.
///
/// This process lives until `deadline`: an attempt that has not ended by then has timed out.
///
/// # Errors
/// As [`handle_task`].
pub async fn handle_message(
    app: &Arc<App>,
    ports: &Ports,
    task: ActivityTask,
    delivery: Delivery,
    not_after: Timestamp,
    deadline: Timestamp,
) -> Result<(), StoreError> {
    if ports.now() > not_after {
        tracing::warn!(run = %task.run, activity = task.id, %not_after, "a task came too late and is not run");
        return Ok(());
    }
    handle_task(app, ports, task, delivery, Some(deadline)).await
}

/// Handles one delivery of an activity task: at most one attempt, which ends by `deadline`, if there is one. `delivery`
/// is [`Again`](Delivery::Again) when the message was received before, and not acknowledged.
///
/// # Errors
/// [`StoreError`] when the store did not answer: deliver the task again.
pub async fn handle_task(
    app: &Arc<App>,
    ports: &Ports,
    task: ActivityTask,
    delivery: Delivery,
    deadline: Option<Timestamp>,
) -> Result<(), StoreError> {
    let arrival = match claim(ports, &task, deadline).await? {
        Claiming::Nothing => return Ok(()),
        Claiming::NotYet(not_before) => return ports.activities.send(vec![ActivityTask { not_before, ..task }]).await,
        // Its worker's own message comes again, should it die; then this is that message, and looks again when the lease
        // is over. Any other copy has nothing to look after.
        Claiming::Held(until) if delivery == Delivery::Again || planted(Bug::R1WatchTwice) => {
            return ports.activities.send(vec![ActivityTask { not_before: until, ..task }]).await;
        }
        Claiming::Held(_) => return Ok(()),
        Claiming::Lost { attempt, last_heartbeat } => Arrival::AttemptLost(operations::WorkerGone {
            id: task.id,
            attempt,
            timeout: lost_to(&task),
            last_heartbeat,
        }),
        Claiming::Claimed(claim) => {
            let attempt = claim.attempt;
            match Attempt::begin(app, ports, &task, *claim).run().await {
                // Its next attempt begins when the run learns that this one was cut off.
                Ended::Superseded | Ended::CutOff => return Ok(()),
                Ended::Succeeded(result) => {
                    Arrival::ActivityCompleted(operations::ActivityCompleted { id: task.id, attempt, result })
                }
                Ended::Retry(not_before) => {
                    return ports.activities.send(vec![ActivityTask { not_before, ..task }]).await;
                }
                Ended::Failed(failure, retry_state) => {
                    Arrival::ActivityFailed(operations::ActivityFailed { id: task.id, attempt, failure, retry_state })
                }
            }
        }
    };
    ports.runs.send(RunMessage::Arrived { run: task.run, run_id: task.run_id, arrival }).await
}

enum Ended {
    Succeeded(Payload),
    /// Another attempt will be made, no earlier than this; the record says so.
    Retry(Timestamp),
    Failed(Failure, RetryState),
    /// Somebody else has the activity now, or nobody wants it.
    Superseded,
    /// The process stops.
    CutOff,
}

/// What came of writing a heartbeat down.
enum Beat {
    Written,
    /// Another attempt took over, or the activity is closed.
    Superseded,
    /// It may or may not be written.
    Failed,
}

struct Attempt<'a> {
    ports: &'a Ports,
    task: &'a ActivityTask,
    claim: Claim,
    started: Timestamp,
    code: Task<Result<Payload, Failure>>,
    beats: watch::Receiver<Option<Payload>>,
    cancel: watch::Sender<Option<CancelReason>>,
}

impl<'a> Attempt<'a> {
    fn begin(app: &Arc<App>, ports: &'a Ports, task: &'a ActivityTask, claim: Claim) -> Self {
        let info = ActivityInfo {
            run: task.run.clone(),
            run_id: task.run_id,
            activity_type: task.activity_type.clone(),
            activity_id: task.id,
            attempt: claim.attempt,
            scheduled_at: task.scheduled_at,
            last_heartbeat: claim.last_heartbeat.clone(),
        };
        let (beat, beats) = watch::channel(None);
        let (cancel, canceled) = watch::channel(None);
        let cx = Activity::new(info, app.tools().clone(), Arc::new(Line { beat, canceled }));
        let code = spawn_activity(app, ports, &task.activity_type, task.options.task_queue.as_deref(), cx, &task.input);
        Self { ports, task, claim, started: ports.now(), code, beats, cancel }
    }

    /// The time limit that is met first, and how long after the start that is.
    fn limit(&self) -> Option<(Duration, TimeoutKind)> {
        let limits = [
            (TimeoutKind::StartToClose, self.task.options.start_to_close_ms.map(Duration::from_millis)),
            (
                TimeoutKind::ScheduleToClose,
                self.task
                    .options
                    .schedule_to_close_ms
                    .map(|ms| (self.task.scheduled_at + Duration::from_millis(ms)).since(self.started)),
            ),
            // The process ends then. The policy decides about another attempt, as if the activity had been too slow.
            (TimeoutKind::StartToClose, self.claim.deadline.map(|deadline| deadline.since(self.started))),
        ];
        limits.into_iter().filter_map(|(kind, limit)| Some((limit?, kind))).min_by_key(|(limit, _)| *limit)
    }

    /// Waits for user code, its time limits and its heartbeats, whichever comes first, until the attempt has ended.
    async fn run(mut self) -> Ended {
        let limit = self.limit();
        let silence = self.task.options.heartbeat_ms.map(Duration::from_millis);
        let interval = silence.map_or(HEARTBEAT_DEFAULT, |limit| limit.mul_f64(HEARTBEAT_SHARE)).min(HEARTBEAT_LONGEST);

        let (host, stop) = (Arc::clone(&self.ports.host), self.ports.stop.clone());
        let began = host.instant();
        let mut last_beat = began;
        let mut next_write = began;
        let mut unwritten = false;
        let mut stopping = false;
        let far = began + Duration::from_hours(24 * 365);
        loop {
            let time_up = limit.map_or(far, |(limit, _)| began + limit);
            let silent = silence.map_or(far, |silence| last_beat + silence);
            let write_at = if unwritten { next_write } else { far };
            let interval = if stopping { interval.min(HEARTBEAT_LAST) } else { interval };
            tokio::select! {
                biased;
                ended = &mut self.code => return self.ended(ended).await,
                () = host.sleep_until(time_up) => {
                    let kind = limit.map_or(TimeoutKind::StartToClose, |(_, kind)| kind);
                    return self.timed_out(kind).await;
                }
                () = stop.asked(), if !stopping => {
                    self.cancel(CancelReason::WorkerShutdown);
                    (stopping, next_write) = (true, host.instant());
                }
                () = stop.cuts_off() => {
                    self.last_words(unwritten).await;
                    return Ended::CutOff;
                }
                () = host.sleep_until(write_at) => {
                    (unwritten, next_write) = (false, host.instant() + interval);
                    match self.write_heartbeat().await {
                        Beat::Written => {}
                        Beat::Superseded => {
                            self.cancel(CancelReason::Superseded);
                            self.code.stop();
                            return Ended::Superseded;
                        }
                        // The lease ends soon after its limit: not in time for the next beat that may be written.
                        Beat::Failed => (unwritten, next_write) = (true, host.instant() + HEARTBEAT_AGAIN.min(interval)),
                    }
                }
                Ok(()) = self.beats.changed() => {
                    last_beat = host.instant();
                    unwritten = true;
                }
                () = host.sleep_until(silent) => return self.timed_out(TimeoutKind::Heartbeat).await,
            }
        }
    }

    /// Ends the code, and writes down how far it got: also what it says until its next await.
    async fn last_words(&mut self, mut unwritten: bool) {
        self.code.stop();
        for _ in 0..2 {
            if std::mem::take(&mut unwritten) || self.beats.has_changed().unwrap_or(false) {
                self.write_heartbeat().await;
            }
        }
    }

    fn cancel(&self, reason: CancelReason) {
        tell(&self.cancel, reason);
    }

    /// Writes the newest details down.
    async fn write_heartbeat(&mut self) -> Beat {
        let details = self.beats.borrow_and_update().clone();
        let Some(details) = details else { return Beat::Written };
        match self.claim.heartbeat(self.ports, self.task, self.started, &details).await {
            Ok(Standing::Held) => Beat::Written,
            Ok(Standing::Unwanted) => {
                self.cancel(CancelReason::Requested);
                Beat::Written
            }
            Ok(Standing::Superseded) => Beat::Superseded,
            Err(error) => {
                tracing::warn!(run = %self.task.run, activity = self.task.id, %error, "heartbeat not recorded");
                Beat::Failed
            }
        }
    }

    async fn ended(self, ended: Result<Result<Payload, Failure>, Unfinished>) -> Ended {
        match ended {
            Ok(Ok(result)) => {
                let limit = self.ports.choices.max_payload_bytes;
                if result.len() > limit {
                    return Ended::Failed(
                        Payload::too_large("result", result.len(), limit),
                        RetryState::NonRetryableFailure,
                    );
                }
                Ended::Succeeded(result)
            }
            Ok(Err(failure)) => self.failed(failure).await,
            Err(error) => self.failed(crashed(error)).await,
        }
    }

    async fn timed_out(self, kind: TimeoutKind) -> Ended {
        self.cancel(CancelReason::TimedOut);
        self.code.stop();
        let last_heartbeat = self.beats.borrow().clone().or_else(|| self.claim.last_heartbeat.clone());
        self.failed(Failure::timeout(kind, last_heartbeat)).await
    }

    async fn failed(mut self, failure: Failure) -> Ended {
        if let Some(details) = self.beats.borrow().clone() {
            self.claim.last_heartbeat = Some(details);
        }
        let deadline =
            self.task.options.schedule_to_close_ms.map(|ms| self.task.scheduled_at + Duration::from_millis(ms));
        let ActivityTask { run, activity_type, id: activity, .. } = self.task;
        let attempted = Attempted { run, activity_type, activity: *activity, attempt: self.claim.attempt };
        let verdict = self.task.options.retry.after_failure(self.claim.attempt, &failure, self.ports.now(), deadline);
        match verdict {
            Verdict::GiveUp(retry_state) => {
                attempted.failed(&failure, None);
                Ended::Failed(failure, retry_state)
            }
            Verdict::RetryAt(at) => match self.claim.wait(self.ports, at, failure.clone()).await {
                Ok(Standing::Held) => {
                    attempted.failed(&failure, Some(at));
                    Ended::Retry(at)
                }
                Ok(Standing::Unwanted | Standing::Superseded) => Ended::Superseded,
                Err(error) => {
                    // Whether the failure is recorded is unknown. The lease runs out, and the attempt counts as lost.
                    tracing::warn!(run = %self.task.run, activity = self.task.id, %error, %failure, "failure not recorded");
                    Ended::Superseded
                }
            },
        }
    }
}

/// Spawns an activity's code.
fn spawn_activity(
    app: &Arc<App>,
    ports: &Ports,
    activity_type: &str,
    task_queue: Option<&str>,
    cx: Activity,
    input: &Payload,
) -> Task<Result<Payload, Failure>> {
    // Calling the function may panic too: do it inside the task.
    let (app, activity_type, input) = (Arc::clone(app), activity_type.to_owned(), input.clone());
    let task_queue = task_queue.map(ToOwned::to_owned);
    let code = Code { activity_type: activity_type.clone(), blocking: app.is_blocking(&activity_type) };
    Task::spawn_activity(&*ports.host, code, async move {
        match app.begin_activity(&activity_type, cx, &input) {
            Some(future) => future.await,
            None => Err(unknown(&activity_type, task_queue.as_deref())),
        }
    })
}

/// On the default task queue, a build that knows the activity may be on its way. Work for another queue is another
/// program's: here nobody will ever know it.
fn unknown(activity_type: &str, task_queue: Option<&str>) -> Failure {
    match task_queue.filter(|queue| *queue != DEFAULT_TASK_QUEUE) {
        None => Failure::unplaced(format!(
            "no activity {activity_type:?} is registered in this build; add `.activity({activity_type:?}, ...)` to the App"
        ))
        .with_type("UnknownActivity"),
        Some(queue) => Failure::unplaced(format!(
            "activity {activity_type:?} belongs to the workers of task queue {queue:?}, and this program does not have \
             it; where there are no such workers, as under `dev`, register a stand-in: \
             `.activity({activity_type:?}, ...)` in the App"
        ))
        .with_type("NoSuchWorker")
        .non_retryable(),
    }
}

/// The failure of an activity whose code panicked.
fn crashed(error: Unfinished) -> Failure {
    match error {
        Unfinished::Panicked(panic) => {
            Panic { message: format!("the activity panicked: {}", panic.message), ..panic }.into()
        }
        Unfinished::Stopped => Failure::unplaced("the activity was stopped").with_type("Panic"),
    }
}

/// Code learns that it should stop, and why: the first reason stands.
fn tell(cancel: &watch::Sender<Option<CancelReason>>, reason: CancelReason) {
    cancel.send_if_modified(|known| known.is_none() && known.replace(reason).is_none());
}

/// An activity's line to the engine.
struct Line {
    beat: watch::Sender<Option<Payload>>,
    canceled: watch::Receiver<Option<CancelReason>>,
}

impl ActivityHost for Line {
    fn heartbeat(&self, details: Payload) {
        self.beat.send_replace(Some(details));
    }

    fn cancel_reason(&self) -> Option<CancelReason> {
        *self.canceled.borrow()
    }

    fn canceled(&self) -> BoxFuture<'_, CancelReason> {
        let mut canceled = self.canceled.clone();
        Box::pin(async move {
            let told = canceled.wait_for(Option::is_some).await;
            // The engine is gone: the attempt is over, and so is the wait.
            told.ok().and_then(|reason| *reason).unwrap_or(CancelReason::WorkerShutdown)
        })
    }
}

/// A local activity to run: which, and what the workflow's code gave it.
#[derive(Debug, Clone)]
pub struct LocalTask {
    /// The run.
    pub run: RunKey,
    /// Its identity.
    pub run_id: dormouse_core::RunId,
    /// The activity's id within the run.
    pub id: u64,
    /// The first attempt to make, from 1.
    pub attempt: u32,
    /// Name, argument, options.
    pub call: dormouse_core::LocalCall,
}

/// The longest pause between attempts of a local activity that is waited out in memory; a longer one is recorded.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Runs a local activity until it ends or its next attempt is to be recorded: it is far away, or might not end by
/// `until`. Dropping the future ends the activity's code at its next await.
pub async fn run_local(app: &Arc<App>, ports: &Ports, task: LocalTask, until: Option<Timestamp>) -> Arrival {
    let LocalTask { run, run_id, id, mut attempt, call } = task;
    let limit = call.start_to_close();
    loop {
        let info = ActivityInfo {
            run: run.clone(),
            run_id,
            activity_type: call.activity_type.clone(),
            activity_id: id,
            attempt,
            scheduled_at: call.scheduled_at,
            last_heartbeat: None,
        };
        let (beat, _beats) = watch::channel(None);
        let (cancel, canceled) = watch::channel(None);
        let cx = Activity::new(info, app.tools().clone(), Arc::new(Line { beat, canceled }));
        let code = spawn_activity(app, ports, &call.activity_type, None, cx, &call.input);
        let failure = match ports.host.timeout(limit, told(&ports.stop, &cancel, code)).await {
            Some(Ok(Ok(result))) => {
                let limit = ports.choices.max_payload_bytes;
                if result.len() <= limit {
                    return Arrival::LocalCompleted(operations::LocalCompleted { id, attempt, result });
                }
                Payload::too_large("result", result.len(), limit)
            }
            Some(Ok(Err(failure))) => failure,
            Some(Err(error)) => crashed(error),
            None => {
                tell(&cancel, CancelReason::TimedOut);
                Failure::timeout(TimeoutKind::StartToClose, None)
            }
        };
        let now = ports.now();
        let verdict = call.retry().after_failure(attempt, &failure, now, None);
        let attempted = Attempted { run: &run, activity_type: &call.activity_type, activity: id, attempt };
        attempted.failed(
            &failure,
            match verdict {
                Verdict::RetryAt(at) => Some(at),
                Verdict::GiveUp(_) => None,
            },
        );
        match verdict {
            Verdict::GiveUp(retry_state) => {
                return Arrival::LocalFailed(operations::LocalFailed { id, attempt, failure, retry_state });
            }
            // Otherwise whoever goes on would count its attempts from the beginning, for ever.
            Verdict::RetryAt(retry_at)
                if retry_at.since(now) > LONGEST_PAUSE || until.is_some_and(|until| retry_at + limit > until) =>
            {
                return Arrival::LocalBackoff(operations::LocalBackoff { id, attempt, failure, retry_at });
            }
            Verdict::RetryAt(retry_at) => ports.host.sleep(retry_at.since(now)).await,
        }
        attempt += 1;
    }
}

/// A local activity's code, which is told should the process stop meanwhile.
async fn told<T>(stop: &Stop, cancel: &watch::Sender<Option<CancelReason>>, code: impl Future<Output = T>) -> T {
    let mut code = std::pin::pin!(code);
    tokio::select! {
        biased;
        ended = &mut code => ended,
        () = stop.asked() => {
            tell(cancel, CancelReason::WorkerShutdown);
            code.await
        }
    }
}
