//! Alarms on SQS and EventBridge Scheduler, and what is done with what arrives on the alarm queue.
//!
//! An alarm within the longest delay is a delayed message of the alarm queue. One beyond is a one-time schedule that
//! sends the message to the alarm queue a little early; SQS delay lands it on the second. A schedule's name is derived
//! from what it is for and when, so setting it again finds it there ([`ConflictException`] is success), and it deletes
//! itself when it has fired. Every message carries its due time: what arrives early (clocks differ, schedules fire
//! early, the delay has a limit) goes round again, what is due is forwarded, to the run queue or to its task queue.
//!
//! An alarm is never taken back: one that nobody waits for any more rings, and the run finds nothing due. An alarm set
//! earlier rings earlier; the later one still rings. What was set last is remembered per run and process, so that an
//! unchanged alarm is not sent again. It is remembered until it rings (should our clock be behind, the run finds nothing
//! due, and sets it again) or is due (what the sweep finds overdue is sent again).
//!
//! An alarm that is years away is not set at all: the run's row is due then, and the sweep rings it. So it is with what
//! the Scheduler takes no schedule for, because there are too many or they come too fast: the sweep is as good, only less
//! punctual, while an error would have the whole message handled again, and ask the Scheduler for the same once more.
//!
//! [`ConflictException`]: aws_sdk_scheduler::types::error::ConflictException

use std::num::NonZeroUsize;
use std::sync::PoisonError;
use std::time::Duration;

use aws_sdk_scheduler::types::{ActionAfterCompletion, FlexibleTimeWindow, FlexibleTimeWindowMode, Target};
use dormouse_core::{ActivityTask, Arrival, RunId, RunKey, Timestamp, derive, millis};
use futures::FutureExt;
use futures::future::ready;

use super::bulk::{Parcel, Way};
use super::{Queues, seconds};
use crate::errors::{Service, is_too_much};
use crate::on;
use crate::wire::{Alarm, Deferred, Message, encode, hex};
use dormouse_engine::seams::{Alarms, RunMessage, SeamFuture};
use dormouse_engine::store::StoreError;

/// How many runs' alarms are remembered.
pub(crate) const REMEMBERED: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// Alarms further away than this are left to the sweep.
pub const FARTHEST: Duration = Duration::from_hours(24 * 365 * 5);

/// A schedule fires at least this far in the future: its time is cut to the second, and a past one would never fire.
const SOONEST: Duration = Duration::from_secs(2);

/// The alarm that was set last.
pub(crate) type Set = (RunId, Timestamp);

/// What is done with a message that arrives on the alarm queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Onward {
    /// It is due.
    Forward,
    /// It is early: send it again with this delay, in seconds.
    DelayAgain(u32),
}

/// What is done at `now` with what is due at `due`, when SQS delays by `longest_delay` seconds at most.
#[must_use]
pub fn on_arrival(due: Timestamp, now: Timestamp, longest_delay: u64) -> Onward {
    match seconds(due.since(now)).min(longest_delay) {
        0 => Onward::Forward,
        delay => Onward::DelayAgain(u32::try_from(delay).unwrap_or(u32::MAX)),
    }
}

/// How something is put off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// By SQS, by so many seconds: all of the way, or as far as that goes.
    Delay(u32),
    /// By a schedule that fires then.
    Schedule(Timestamp),
}

/// What became of something that is for later.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PutOff {
    /// It is to be sent to the alarm queue, now.
    ToSend(Parcel),
    /// A schedule sends it.
    Scheduled,
    /// Nothing sends it: its run's row is due by then.
    LeftToTheSweep,
}

/// How to put off until `due`. `spread` is any number that differs between alarms.
fn plan(due: Timestamp, now: Timestamp, longest_delay: u64, lead: Duration, spread: u64) -> Plan {
    let wait = seconds(due.since(now));
    let jitter = Duration::from_millis(spread % (millis(lead) / 2 + 1));
    let fire = due - lead - jitter;
    if wait <= longest_delay || fire < now + SOONEST {
        return Plan::Delay(u32::try_from(wait.min(longest_delay)).unwrap_or(u32::MAX));
    }
    Plan::Schedule(fire)
}

/// The name of a schedule: when it is due, and a hash of what it is for. At most 64 letters, digits and `-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    text: String,
    spread: u64,
}

fn name(kind: &str, due: Timestamp, run: &RunKey, run_id: RunId, more: &[&[u8]]) -> Name {
    let (ordinal, due) = (run.ordinal.to_le_bytes(), due.as_millis());
    let mut parts: Vec<&[u8]> =
        vec![run.workflow.namespace.as_bytes(), run.workflow.workflow_id.as_bytes(), &ordinal, run_id.as_bytes()];
    let due_bytes = due.to_le_bytes();
    parts.push(&due_bytes);
    parts.extend(more);
    let hash = derive("dormouse schedule", &parts);
    let spread = hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    Name { text: format!("{kind}-{due}-{}", hex(hash)), spread }
}

fn alarm_name(run: &RunKey, run_id: RunId, due: Timestamp) -> Name {
    name("alarm", due, run, run_id, &[])
}

/// The same for every dispatch of the same task, so that the sweep does not pile up schedules.
pub(crate) fn task_name(task: &ActivityTask, queue: &str) -> Name {
    let more: [&[u8]; 3] = [&task.id.to_le_bytes(), &task.lost.to_le_bytes(), queue.as_bytes()];
    name("task", task.not_before, &task.run, task.run_id, &more)
}

/// The expression of a one-time schedule, in UTC, to the second.
fn at(fire: Timestamp) -> String {
    let text = fire.to_string();
    format!("at({})", text.split('.').next().unwrap_or(&text))
}

/// JSON with ids in it, so that SQS takes every character, and the Scheduler finds no placeholder.
fn escaped(json: &str) -> String {
    json.replace('<', "\\u003c").replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff")
}

fn alarm_body(run: &RunKey, run_id: RunId, due: Timestamp) -> Result<String, StoreError> {
    Ok(escaped(&encode(&Message::Alarm(Alarm { run: run.clone(), run_id, due }))?))
}

impl Queues {
    /// Handles a message of the alarm queue: forwards what is due, sends round again what is early. Should we die in
    /// between, it is delivered and handled again: twice forwarded is harmless.
    ///
    /// # Errors
    /// [`StoreError`]: let the message be delivered again. [`StoreError::Refused`] also when it does not belong on the
    /// alarm queue.
    #[must_use]
    pub fn pass_on(&self, message: Message) -> SeamFuture<'static, ()> {
        let queues = self.clone();
        on(&self.0.runtime, async move {
            let (due, again) = match &message {
                Message::Alarm(alarm) => (alarm.due, alarm_body(&alarm.run, alarm.run_id, alarm.due)?),
                Message::Deferred(deferred) => (deferred.due, encode(&message)?),
                _ => return Err(StoreError::Refused("a message that does not belong on the alarm queue".into())),
            };
            if let Onward::DelayAgain(delay) = on_arrival(due, queues.now(), queues.longest_delay()) {
                return queues.send_alarm_queue(again, delay).await;
            }
            match message {
                Message::Alarm(Alarm { run, run_id, .. }) => {
                    queues.send_run(RunMessage::Arrived { run, run_id, arrival: Arrival::Alarm }).await
                }
                Message::Deferred(Deferred { task_queue, body, .. }) => queues.send_task_body(&task_queue, body).await,
                _ => Ok(()),
            }
        })
    }

    /// This run's alarm was received here: it is set no longer.
    pub(crate) fn has_rung(&self, run: &RunKey) {
        self.0.set.lock().unwrap_or_else(PoisonError::into_inner).pop(run);
    }

    /// Sees to it that a body is on the alarm queue about when it is due, so far as it can.
    pub(crate) async fn put_off(
        &self,
        body: String,
        due: Timestamp,
        now: Timestamp,
        name: &Name,
    ) -> Result<PutOff, StoreError> {
        match plan(due, now, self.longest_delay(), self.0.settings.schedule_lead, name.spread) {
            Plan::Delay(delay) => {
                let url = self.0.settings.alarm_queue_url.clone();
                Ok(PutOff::ToSend(Parcel { url, body, way: Way::Delayed(delay) }))
            }
            Plan::Schedule(fire) => self.schedule(body, fire, name).await,
        }
    }

    async fn schedule(&self, body: String, fire: Timestamp, name: &Name) -> Result<PutOff, StoreError> {
        let settings = &self.0.settings;
        let incomplete = |error: aws_sdk_scheduler::error::BuildError| StoreError::refused(error.to_string());
        let window = FlexibleTimeWindow::builder().mode(FlexibleTimeWindowMode::Off).build().map_err(incomplete)?;
        let target = Target::builder().arn(&settings.alarm_queue_arn).role_arn(&settings.schedule_role_arn);
        let target = target.input(body).build().map_err(incomplete)?;
        let create = self.0.scheduler.create_schedule().group_name(&settings.schedule_group).name(&name.text);
        let created = create
            .schedule_expression(at(fire))
            .flexible_time_window(window)
            .target(target)
            .action_after_completion(ActionAfterCompletion::Delete)
            .send()
            .await;
        match created {
            Ok(_) => Ok(PutOff::Scheduled),
            // The name says what it is for and when: it is the same.
            Err(error) if error.as_service_error().is_some_and(|error| error.is_conflict_exception()) => {
                Ok(PutOff::Scheduled)
            }
            Err(error) if is_too_much(&error) => {
                let error = Service::Scheduler.error("an alarm", &error);
                tracing::warn!(schedule = name.text, %error, "no schedule is made: it is left to the sweep");
                Ok(PutOff::LeftToTheSweep)
            }
            Err(error) => Err(Service::Scheduler.error("an alarm", &error)),
        }
    }

    async fn set_alarm(&self, run: RunKey, run_id: RunId, due: Timestamp) -> Result<(), StoreError> {
        let now = self.now();
        if due.since(now) > FARTHEST {
            tracing::debug!(%run, %due, "an alarm years away is left to the sweep");
            return Ok(());
        }
        let body = alarm_body(&run, run_id, due)?;
        match self.put_off(body, due, now, &alarm_name(&run, run_id, due)).await? {
            PutOff::ToSend(parcel) => self.send_all(futures::stream::iter([ready(Ok(Some(parcel)))])).await?,
            PutOff::Scheduled => {}
            // Nothing is set, and nothing to be remembered: it is tried again when it is asked for again.
            PutOff::LeftToTheSweep => return Ok(()),
        }
        if due > now {
            self.0.set.lock().unwrap_or_else(PoisonError::into_inner).put(run, (run_id, due));
        }
        Ok(())
    }
}

impl Alarms for Queues {
    fn set(&self, run: &RunKey, run_id: RunId, at: Option<Timestamp>) -> SeamFuture<'_, ()> {
        let nothing = futures::future::ready(Ok(())).boxed();
        let mut set = self.0.set.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(due) = at else {
            set.pop(run);
            return nothing;
        };
        // Once it is due, it may have rung, or been lost: it is sent again.
        if set.get(run) == Some(&(run_id, due)) && due > self.now() {
            return nothing;
        }
        drop(set);
        let (queues, run) = (self.clone(), run.clone());
        on(&self.0.runtime, async move { queues.set_alarm(run, run_id, due).await })
    }
}

#[cfg(test)]
mod tests {
    use dormouse_core::{Payload, RecordedOptions, RecordedRetry, RetryPolicy, WorkflowKey};
    use proptest::prelude::*;

    use super::*;
    use crate::wire::decode;

    fn time(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn on_arrival_as_a_table() {
        use Onward::{DelayAgain, Forward};
        let cases = [
            // due, now, longest delay
            (10_000, 10_000, 900, Forward),
            (10_000, 10_001, 900, Forward),
            (10_000, u64::MAX, 900, Forward),
            (0, 0, 900, Forward),
            // A millisecond early is early: it is never rounded away.
            (10_000, 9_999, 900, DelayAgain(1)),
            (10_000, 9_000, 900, DelayAgain(1)),
            (10_000, 8_999, 900, DelayAgain(2)),
            // A schedule that fired two minutes early.
            (1_000_000, 880_000, 900, DelayAgain(120)),
            (1_000_000, 100_000, 900, DelayAgain(900)),
            // Our clock is far behind, or the schedule fired much too early: as far as a delay goes.
            (1_000_000, 0, 900, DelayAgain(900)),
            (u64::MAX, 0, 900, DelayAgain(900)),
            (1_000_000, 0, 2, DelayAgain(2)),
        ];
        for (due, now, longest, expected) in cases {
            assert_eq!(on_arrival(time(due), time(now), longest), expected, "due {due}, now {now}, longest {longest}");
        }
    }

    #[test]
    fn plans_as_a_table() {
        use Plan::{Delay, Schedule};
        const LEAD: Duration = Duration::from_secs(120);
        const NOW: u64 = 1_700_000_000_000;
        let cases = [
            // due after now, longest delay, lead, spread
            (0, 900, LEAD, 0, Delay(0)),
            (1, 900, LEAD, 0, Delay(1)),
            (900_000, 900, LEAD, 7, Delay(900)),
            (900_001, 900, LEAD, 0, Schedule(time(NOW + 780_001))),
            (900_001, 900, LEAD, 60_000, Schedule(time(NOW + 720_001))),
            (900_001, 900, LEAD, 60_001, Schedule(time(NOW + 780_001))),
            (3_600_000, 900, Duration::ZERO, 99, Schedule(time(NOW + 3_600_000))),
            // A lead that reaches back to now or before: SQS goes round until it is due.
            (10_000, 3, Duration::from_secs(9), 0, Delay(3)),
            (10_000, 3, Duration::from_secs(8), 0, Schedule(time(NOW + 2_000))),
            (1_000_000, 900, Duration::from_secs(2_000), 0, Delay(900)),
        ];
        for (wait, longest, lead, spread, expected) in cases {
            let found = plan(time(NOW + wait), time(NOW), longest, lead, spread);
            assert_eq!(found, expected, "in {wait} ms, longest {longest}, lead {lead:?}, spread {spread}");
        }
        assert_eq!(plan(time(5), time(NOW), 900, LEAD, 0), Delay(0), "overdue");
    }

    proptest! {
        #[test]
        fn no_delay_is_refused_and_no_schedule_is_late_or_past(
            wait in 0..200_000_000_u64, now in 0..4_000_000_000_000_u64, longest in 1..=900_u64, lead in 0..10_000_u64, spread: u64
        ) {
            let (due, now) = (time(now + wait), time(now));
            match plan(due, now, longest, Duration::from_secs(lead), spread) {
                Plan::Delay(delay) => prop_assert!(u64::from(delay) <= longest),
                Plan::Schedule(fire) => {
                    prop_assert!(fire <= due - Duration::from_secs(lead));
                    // Cut to the second, as it is written, it is still to come.
                    prop_assert!(time(fire.as_millis() / 1_000 * 1_000) > now);
                    prop_assert!(due.since(fire) <= Duration::from_secs(lead) * 3 / 2);
                }
            }
        }
    }

    #[test]
    fn the_time_of_a_schedule_is_utc_to_the_second() {
        assert_eq!(at(time(1_700_000_000_999)), "at(2023-11-14T22:13:20)");
        assert_eq!(at(time(0)), "at(1970-01-01T00:00:00)");
        // Whatever the plan lets through is a time that can be written: years of four digits.
        let far = time(4_000_000_000_000) + FARTHEST;
        assert_eq!(at(far), "at(2101-10-02T07:06:40)");
    }

    fn hostile() -> [RunKey; 4] {
        let long = "\u{1F980}".repeat(60);
        let ids = ["<aws.scheduler.execution-id>", "\u{fffe}\u{ffff}\"\\", "../a b#0", &long];
        ids.map(|id| WorkflowKey::new(id, id).unwrap().run(u64::MAX))
    }

    #[test]
    fn names_are_short_and_plain_and_say_when() {
        let id = RunId::from_bytes([1; 16]);
        for run in hostile() {
            for due in [0, 1_700_000_000_000, u64::MAX] {
                let name = alarm_name(&run, id, time(due));
                assert!(name.text.len() <= 64, "{name:?}");
                assert!(name.text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "{name:?}");
                assert!(name.text.starts_with(&format!("alarm-{due}-")), "{name:?}");
            }
        }
        // The same in every build, or what is set already is not recognized.
        let run = WorkflowKey::new("default", "w").unwrap().run(3);
        let name = alarm_name(&run, id, time(5_000));
        assert_eq!(name.text, "alarm-5000-5954901aa640f484e284aac60b9e18f0");
        let others = [
            alarm_name(&run, RunId::from_bytes([2; 16]), time(5_000)),
            alarm_name(&run, id, time(5_001)),
            alarm_name(&run.workflow.run(4), id, time(5_000)),
            alarm_name(&WorkflowKey::new("defaul", "tw").unwrap().run(3), id, time(5_000)),
        ];
        assert!(others.iter().all(|other| other.text != name.text));
    }

    #[test]
    fn a_task_that_is_sent_again_has_the_name_that_it_had() {
        let task = ActivityTask {
            run: WorkflowKey::new("default", "w").unwrap().run(0),
            run_id: RunId::from_bytes([1; 16]),
            id: 3,
            activity_type: "charge".into(),
            input: Payload::NULL,
            options: RecordedOptions {
                start_to_close_ms: Some(1),
                schedule_to_close_ms: None,
                schedule_to_start_ms: None,
                heartbeat_ms: None,
                retry: RecordedRetry::from(&RetryPolicy::DEFAULT),
                task_queue: None,
            },
            scheduled_at: time(1),
            lost: 0,
            not_before: time(5_000),
        };
        let name = |task: &ActivityTask| task_name(task, "default");
        assert_eq!(name(&task), name(&task.clone()));
        let others = [
            name(&ActivityTask { id: 4, ..task.clone() }),
            name(&ActivityTask { lost: 1, ..task.clone() }),
            name(&ActivityTask { not_before: time(6_000), ..task.clone() }),
            task_name(&task, "other"),
        ];
        assert!(others.iter().all(|other| other.text != name(&task).text));
    }

    #[test]
    fn alarms_of_the_same_second_are_spread() {
        let id = RunId::from_bytes([1; 16]);
        let now = time(1_700_000_000_000);
        let due = now + Duration::from_hours(24);
        let fires = (0..600).map(|ordinal| {
            let run = WorkflowKey::new("default", "w").unwrap().run(ordinal);
            let spread = alarm_name(&run, id, due).spread;
            match plan(due, now, 900, Duration::from_secs(120), spread) {
                Plan::Schedule(fire) => fire.as_millis() / 1_000,
                Plan::Delay(_) => panic!("a day is a schedule"),
            }
        });
        let mut by_second = std::collections::BTreeMap::<u64, u32>::new();
        fires.for_each(|second| *by_second.entry(second).or_default() += 1);
        assert!(by_second.len() > 50, "over a minute: {by_second:?}");
        assert!(by_second.values().all(|count| *count < 40), "{by_second:?}");
    }

    #[test]
    fn alarms_of_hostile_ids_travel() {
        for run in hostile() {
            let (run_id, due) = (RunId::from_bytes([1; 16]), time(7));
            let body = alarm_body(&run, run_id, due).unwrap();
            assert!(!body.contains(['<', '\u{fffe}', '\u{ffff}']), "{body}");
            assert_eq!(decode(&body).unwrap(), Message::Alarm(Alarm { run, run_id, due }));
        }
    }
}
