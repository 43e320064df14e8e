//! Faults, and whom they strike.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::answers::Refusal;
use super::call::{Call, Kind, glob};
use crate::dice::Dice;

/// What is done to whom, and how often.
///
/// As JSON: `{"on": "dynamodb/PutItem/batch", "action": "drop_answer", "skip": 2, "times": 1}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which requests: `service/operation/detail`, where `*` stands for anything. A rule on `sqs/message/kind@queue`
    /// is about single messages, also when ten come in one request.
    pub on: String,
    /// Only if this is in the name of what is asked for: a key, a queue, a schedule.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// How many of them pass first.
    #[serde(default)]
    pub skip: u64,
    /// How many of them are struck; `None`: all.
    #[serde(default = "once")]
    pub times: Option<u64>,
    /// How likely each is to be struck, in thousandths.
    #[serde(default = "always")]
    pub per_mille: u64,
    /// Begins the draws of [`per_mille`](Self::per_mille). The draws repeat with it; the order of concurrent requests
    /// does not.
    #[serde(default)]
    pub seed: u64,
    /// What happens.
    pub action: Action,
}

const fn once() -> Option<u64> {
    Some(1)
}

const fn always() -> u64 {
    1_000
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is not forwarded; this is the answer.
    Refuse(Refusal),
    /// It is forwarded, and whatever came of it, this is the answer.
    LandThenRefuse(Refusal),
    /// It is not forwarded; the connection is closed without an answer.
    Close,
    /// It is forwarded; when it has been answered, the connection is closed without that answer.
    DropAnswer,
    /// The connection is closed without an answer; so many milliseconds later it is forwarded all the same.
    LandLater(u64),
    /// It is forwarded; the answer comes so many milliseconds late.
    Slow(u64),
    /// It is forwarded twice, and the second answer is given: what a retry hidden in a client or on the way does.
    Twice,
    /// It is forwarded; the answer keeps its status, not its body.
    Spoil(Spoiled),
    /// It is answered with success and not forwarded: a lost message or schedule. Only where the proxy knows what
    /// success looks like: SQS sends and Scheduler's CreateSchedule.
    Swallow,
    /// It is forwarded, then again as another message, with another deduplication id: a doubled message. SQS sends.
    Double,
    /// The first entry is refused, the others go through: requests with entries, of SQS and DynamoDB.
    Partial,
}

/// What a spoiled answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spoiled {
    /// Nothing.
    Empty,
    /// `null`.
    Null,
    /// `{}`.
    NoFields,
    /// Half of it, then the connection breaks.
    Half,
}

impl Rule {
    /// Does this to the next such request, once.
    #[must_use]
    pub fn once(on: &str, action: Action) -> Self {
        Self { on: on.into(), about: String::new(), skip: 0, times: once(), per_mille: always(), seed: 0, action }
    }

    /// Does this to every such request.
    #[must_use]
    pub fn every(on: &str, action: Action) -> Self {
        Self { times: None, ..Self::once(on, action) }
    }

    /// Does this to so many in a thousand, chosen by a seed.
    #[must_use]
    pub fn sometimes(on: &str, per_mille: u64, seed: u64, action: Action) -> Self {
        Self { per_mille, seed, ..Self::every(on, action) }
    }

    /// Only to requests for something whose name contains this.
    #[must_use]
    pub fn about(mut self, name: &str) -> Self {
        self.about = name.into();
        self
    }

    /// After so many have passed.
    #[must_use]
    pub fn after(mut self, skip: u64) -> Self {
        self.skip = skip;
        self
    }

    /// So many times.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    /// Why nothing could ever come of it, if so.
    pub(super) fn nonsense(&self) -> Option<String> {
        let on_message = self.is_on_messages();
        let fits = match &self.action {
            Action::Swallow => on_message || self.is_on("sqs/Send") || self.is_on("scheduler/CreateSchedule"),
            Action::Double => on_message || self.is_on("sqs/Send"),
            Action::Partial => self.on.contains("Batch"),
            Action::Refuse(_) => true,
            _ => !on_message,
        };
        (!fits).then(|| format!("{:?} is nothing to do on {:?}", self.action, self.on))
    }

    /// Whether it is about single messages.
    pub(super) fn is_on_messages(&self) -> bool {
        self.is_on("sqs/message/")
    }

    fn is_on(&self, start: &str) -> bool {
        self.on.starts_with(start)
    }
}

/// How often a rule has struck.
#[derive(Debug, Clone)]
pub struct Struck(Arc<Standing>);

impl Struck {
    /// So often.
    #[must_use]
    pub fn times(&self) -> u64 {
        self.0.struck.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
struct Standing {
    rule: Rule,
    struck: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    seen: u64,
    dice: Dice,
}

impl Standing {
    fn wants(&self, kind: &Kind) -> bool {
        let rule = &self.rule;
        if !glob(&rule.on, &kind.to_string()) || !kind.about.contains(&rule.about) {
            return false;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.seen += 1;
        if state.seen <= rule.skip
            || rule.times.is_some_and(|times| self.struck.load(Ordering::SeqCst) >= times)
            || (rule.per_mille < 1_000 && state.dice.within(0..1_000) >= rule.per_mille)
        {
            return false;
        }
        self.struck.fetch_add(1, Ordering::SeqCst);
        true
    }
}

/// The rules of a running proxy.
#[derive(Debug, Default)]
pub(super) struct Rules(Mutex<Vec<Arc<Standing>>>);

impl Rules {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Standing>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, rule: Rule) -> Struck {
        let state = Mutex::new(State { seen: 0, dice: Dice::of(rule.seed) });
        let standing = Arc::new(Standing { rule, struck: AtomicU64::new(0), state });
        self.lock().push(Arc::clone(&standing));
        Struck(standing)
    }

    /// What happens to this request.
    pub(super) fn strike(&self, call: &Call) -> Option<Action> {
        self.first(&call.kind, false)
    }

    /// What happens to this message.
    pub(super) fn strike_message(&self, kind: &Kind) -> Option<Action> {
        self.first(kind, true)
    }

    fn first(&self, kind: &Kind, message: bool) -> Option<Action> {
        let rules = self.lock();
        let mut rules = rules.iter().filter(|standing| standing.rule.is_on_messages() == message);
        rules.find(|standing| standing.wants(kind)).map(|standing| standing.rule.action.clone())
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    pub(super) fn all(&self) -> Vec<(Rule, u64)> {
        self.lock().iter().map(|standing| (standing.rule.clone(), standing.struck.load(Ordering::SeqCst))).collect()
    }

    /// Those that were to strike a number of times and have not yet, and those that never struck at all.
    pub(super) fn outstanding(&self) -> Vec<Rule> {
        let due = |rule: &Rule, struck: u64| struck < rule.times.unwrap_or(1);
        self.all().into_iter().filter(|(rule, struck)| due(rule, *struck)).map(|(rule, _)| rule).collect()
    }
}

/// So many milliseconds.
pub(super) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
