//! Histories as people read them: one line per event, with the time that had passed.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::time::Duration;

use dormouse_core::api::HistoryEvent;
use dormouse_core::{Failure, Payload, Timestamp};

use crate::output::{fitted, one_line, tame};

/// How much of a value is shown.
const VALUE_WIDTH: usize = 60;
/// How much of a failure is shown.
const FAILURE_WIDTH: usize = 160;

/// Renders a history from its beginning: a line for each event, each ended by a newline, without colours, long values cut
/// off.
///
/// ```text
///    1  2026-03-01T09:00:00.000Z       0.000s  WorkflowStarted         orderWorkflow, input {"id":"order-1"}
///    2  2026-03-01T09:00:00.012Z       0.012s  ActivityScheduled       charge #1
/// ```
#[must_use]
pub fn timeline(events: &[HistoryEvent]) -> String {
    let mut timeline = Timeline::new();
    events.iter().fold(String::new(), |text, event| text + &timeline.line(event) + "\n")
}

/// Renders events as they come: remembers when the first happened, and what the activities are called.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    began: Option<Timestamp>,
    activities: HashMap<String, String>,
    colour: bool,
    full: bool,
}

impl Timeline {
    /// A timeline that begins with the first event that it is given.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether event types are coloured.
    #[must_use]
    pub fn colour(mut self, colour: bool) -> Self {
        self.colour = colour;
        self
    }

    /// Whether everything is shown: values however long they are, request ids, options, places in the source.
    #[must_use]
    pub fn full(mut self, full: bool) -> Self {
        self.full = full;
        self
    }

    /// The line of the next event, without a newline.
    pub fn line(&mut self, event: &HistoryEvent) -> String {
        let began = *self.began.get_or_insert(event.time);
        let passed = elapsed(event.time.since(began));
        let kind = tame(&event.event_type);
        let (on, off) = if self.colour { (colour_of(&kind), "\u{1b}[0m") } else { ("", "") };
        let details = self.details(&event.attributes);
        // Padding counts characters, so the colour stands outside of it.
        let line = format!("{:>4}  {}  {passed:>12}  {on}{kind:<22}{off}  {details}", event.event_id, event.time);
        line.trim_end().to_owned()
    }

    fn details(&mut self, attributes: &BTreeMap<String, Payload>) -> String {
        let mut parts: Vec<String> = self.subject(attributes).into_iter().collect();
        parts.extend(attributes.iter().filter_map(|(key, value)| detail(key, value, self.full)));
        parts.join(", ")
    }

    /// What the event is about: the activity by its name, a timer, a signal, the workflow.
    fn subject(&mut self, attributes: &BTreeMap<String, Payload>) -> Option<String> {
        let text = |key: &str| attributes.get(key).map(scalar);
        if let Some(id) = text("activity_id") {
            if let Some(name) = text("activity_type") {
                self.activities.insert(id.clone(), name);
            }
            let name = self.activities.get(&id).map_or("activity", String::as_str);
            return Some(format!("{name} #{id}"));
        }
        let timer = text("timer_id").map(|id| format!("timer #{id}"));
        timer.or_else(|| text("name")).or_else(|| text("patch_id")).or_else(|| text("workflow_type"))
    }
}

/// One particular; `None` where the subject has said it, or few want to read it.
fn detail(key: &str, value: &Payload, full: bool) -> Option<String> {
    match key {
        "activity_id" | "activity_type" | "timer_id" | "name" | "patch_id" | "workflow_type" => None,
        "request_id" | "run_id" | "options" | "place" if !full => None,
        "input" | "payload" | "value" | "result" => Some(particular(key, &fitted(&one_line(value), VALUE_WIDTH, full))),
        // What is not there, or not so, need not be said.
        _ if matches!(value.as_bytes(), b"null" | b"false" | b"[]") => None,
        "deprecated" => Some("deprecated".to_owned()),
        "attempt" if value.as_bytes() == b"1" => None,
        "attempt" => Some(format!("attempt {}", scalar(value))),
        "failure" => Some(format!("✗ {}", fitted(&failure(value), FAILURE_WIDTH, full))),
        "reason" if value.as_bytes() == b"\"\"" => None,
        "fire_at" | "retry_at" => Some(format!("{} {}", key.replace('_', " "), scalar(value))),
        _ => Some(format!("{} {}", tame(&key.replace('_', " ")), fitted(&scalar(value), VALUE_WIDTH, full))),
    }
}

/// A user's value, whatever it is.
fn particular(key: &str, shown: &str) -> String {
    match key {
        "result" => format!("→ {shown}"),
        "payload" | "value" => shown.to_owned(),
        _ => format!("{key} {shown}"),
    }
}

fn failure(value: &Payload) -> String {
    value.read::<Failure>().map_or_else(|_| one_line(value), |failure| failure.to_string())
}

/// Text without its quotes; anything else as JSON.
fn scalar(value: &Payload) -> String {
    value.read::<String>().map_or_else(|_| one_line(value), |text| tame(&text))
}

/// Time that has passed, in the two or three units that matter.
pub(crate) fn elapsed(passed: Duration) -> String {
    let (seconds, millis) = (passed.as_secs(), passed.subsec_millis());
    let (minutes, hours, days) = (seconds / 60 % 60, seconds / 3600 % 24, seconds / 86_400);
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = match seconds {
        0..60 => write!(text, "{seconds}.{millis:03}s"),
        60..3600 => write!(text, "{minutes}m {:02}.{}s", seconds % 60, millis / 100),
        3600..86_400 => write!(text, "{hours}h {minutes:02}m {:02}s", seconds % 60),
        _ => write!(text, "{days}d {hours:02}h {minutes:02}m"),
    };
    text
}

fn colour_of(kind: &str) -> &'static str {
    match kind {
        _ if kind.contains("Cancel") => "\u{1b}[33m",
        _ if kind.ends_with("Failed") || kind.ends_with("Terminated") || kind.ends_with("Lost") => "\u{1b}[31m",
        _ if kind.ends_with("Completed") || kind.ends_with("Fired") => "\u{1b}[32m",
        _ if kind.starts_with("Signal") => "\u{1b}[35m",
        _ if kind.ends_with("Backoff") || kind.ends_with("ContinuedAsNew") => "\u{1b}[33m",
        _ => "\u{1b}[36m",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dormouse_core::RetryState;
    use serde_json::json;

    fn event(event_id: u64, after_ms: u64, event_type: &str, attributes: serde_json::Value) -> HistoryEvent {
        let time = Timestamp::from_millis(1_772_355_600_000 + after_ms);
        let attributes = serde_json::from_str(&attributes.to_string()).unwrap();
        HistoryEvent { event_id, time, event_type: event_type.into(), attributes }
    }

    #[test]
    fn a_life_can_be_read_from_top_to_bottom() {
        let failure =
            Failure::activity("ship", 3, 5, RetryState::MaximumAttemptsReached, Failure::application("no ship"));
        let events = [
            event(
                1,
                0,
                "WorkflowStarted",
                json!({"workflow_type": "orderWorkflow", "input": {"id": 1}, "request_id": "r"}),
            ),
            event(2, 4, "ActivityScheduled", json!({"activity_id": 1, "activity_type": "charge", "input": {"id": 1}})),
            event(3, 1_250, "ActivityCompleted", json!({"activity_id": 1, "attempt": 2, "result": {"paid": true}})),
            event(4, 1_300, "TimerStarted", json!({"timer_id": 2, "fire_at": "2026-03-02T09:00:01.300Z"})),
            event(5, 86_401_300, "TimerFired", json!({"timer_id": 2})),
            event(6, 86_401_400, "SignalReceived", json!({"name": "approval", "payload": true})),
            event(7, 86_401_500, "WorkflowFailed", json!({"failure": failure})),
            event(8, 86_401_500, "Novelty", json!({"some_key": "x\u{1b}[2J"})),
            event(9, 86_401_500, "PatchRecorded", json!({"patch_id": "fraud", "deprecated": false, "place": "a.rs:1"})),
            event(10, 86_401_500, "PatchRecorded", json!({"patch_id": "fraud", "deprecated": true})),
        ];
        let expected = "   1  2026-03-01T09:00:00.000Z        0.000s  WorkflowStarted         orderWorkflow, input {\"id\":1}
   2  2026-03-01T09:00:00.004Z        0.004s  ActivityScheduled       charge #1, input {\"id\":1}
   3  2026-03-01T09:00:01.250Z        1.250s  ActivityCompleted       charge #1, attempt 2, → {\"paid\":true}
   4  2026-03-01T09:00:01.300Z        1.300s  TimerStarted            timer #2, fire at 2026-03-02T09:00:01.300Z
   5  2026-03-02T09:00:01.300Z    1d 00h 00m  TimerFired              timer #2
   6  2026-03-02T09:00:01.400Z    1d 00h 00m  SignalReceived          approval, true
   7  2026-03-02T09:00:01.500Z    1d 00h 00m  WorkflowFailed          ✗ activity ship failed on attempt 5: no attempts are left: no ship
   8  2026-03-02T09:00:01.500Z    1d 00h 00m  Novelty                 some key x\\u{1b}[2J
   9  2026-03-02T09:00:01.500Z    1d 00h 00m  PatchRecorded           fraud
  10  2026-03-02T09:00:01.500Z    1d 00h 00m  PatchRecorded           fraud, deprecated
";
        assert_eq!(timeline(&events), expected);
    }

    #[test]
    fn everything_is_shown_to_whoever_asks() {
        let long = "x".repeat(500);
        let attributes = json!({"workflow_type": "w", "input": long, "request_id": "r-1", "place": "src/a.rs:7"});
        let started = event(1, 0, "WorkflowStarted", attributes);
        let short = Timeline::new().line(&started);
        assert!(short.ends_with('…') && !short.contains("r-1") && !short.contains("a.rs"), "{short}");
        let full = Timeline::new().full(true).line(&started);
        assert!(full.contains(&long) && full.contains("request id r-1") && full.contains("place src/a.rs:7"), "{full}");
        let failure = event(2, 0, "WorkflowFailed", json!({"failure": Failure::application(long.clone())}));
        assert!(Timeline::new().full(true).line(&failure).contains(&long));
    }

    #[test]
    fn what_is_odd_does_not_break_it() {
        for attributes in [json!({}), json!({"failure": 7, "activity_id": {"a": 1}})] {
            assert!(!Timeline::new().line(&event(1, 0, "Odd\n", attributes)).contains('\n'));
        }
        let input = Payload::from_json("{ \"b\":\t\" \\\" x\",\r\n \"a\": 12345678901234567890123 }".into());
        let started =
            HistoryEvent { attributes: [("input".to_owned(), input)].into(), ..event(1, 0, "Odd", json!({})) };
        let line = Timeline::new().line(&started);
        assert!(line.ends_with("input {\"b\":\" \\\" x\",\"a\":12345678901234567890123}"), "{line}");
        let coloured = Timeline::new().colour(true).line(&event(1, 0, "TimerFired", json!({})));
        assert!(coloured.contains("\u{1b}[32mTimerFired"));
        assert_eq!(timeline(&[]), "");
    }

    #[test]
    fn time_is_told_in_the_units_that_matter() {
        for (millis, text) in [
            (0, "0.000s"),
            (59_999, "59.999s"),
            (63_250, "1m 03.2s"),
            (3_723_000, "1h 02m 03s"),
            (90_061_000, "1d 01h 01m"),
        ] {
            assert_eq!(elapsed(Duration::from_millis(millis)), text);
        }
    }
}
