//! Counts of what passed.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::call::{Call, glob};

/// What passed the proxy, by `service/operation/detail`. See [`Call`] for what these are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests.
    pub requests: BTreeMap<String, Tally>,
    /// Messages in requests that send some: one request may carry ten.
    pub messages: BTreeMap<String, u64>,
}

/// Requests of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How many came.
    pub came: u64,
    /// How many went on to the other side; duplicates count.
    pub forwarded: u64,
    /// How many a rule struck.
    pub struck: u64,
    /// What the other side answered, by status.
    pub answers: BTreeMap<u16, u64>,
    /// How often it did not answer.
    pub unanswered: u64,
}

impl AddAssign<&Self> for Tally {
    fn add_assign(&mut self, other: &Self) {
        self.came += other.came;
        self.forwarded += other.forwarded;
        self.struck += other.struck;
        self.unanswered += other.unanswered;
        for (status, times) in &other.answers {
            *self.answers.entry(*status).or_default() += times;
        }
    }
}

impl Counts {
    /// The sum of all kinds of requests that fit: `dynamodb/PutItem/batch`, `dynamodb/*`, `sqs/Send*`.
    #[must_use]
    pub fn of(&self, pattern: &str) -> Tally {
        let mut sum = Tally::default();
        for (_, tally) in self.requests.iter().filter(|(kind, _)| glob(pattern, kind)) {
            sum += tally;
        }
        sum
    }

    /// How many requests of these kinds came.
    #[must_use]
    pub fn came(&self, pattern: &str) -> u64 {
        self.of(pattern).came
    }

    /// How many messages of these kinds were sent: `sqs/message/*@*-run.fifo`.
    #[must_use]
    pub fn sent(&self, pattern: &str) -> u64 {
        self.messages.iter().filter(|(kind, _)| glob(pattern, kind)).map(|(_, times)| times).sum()
    }
}

/// The counts of a running proxy.
#[derive(Debug, Default)]
pub(super) struct Counting(Mutex<Counts>);

impl Counting {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on(&self, call: &Call, change: impl FnOnce(&mut Tally)) {
        change(self.lock().requests.entry(call.to_string()).or_default());
    }

    pub(super) fn came(&self, call: &Call) {
        self.on(call, |tally| tally.came += 1);
        for message in &call.messages {
            *self.lock().messages.entry(message.to_string()).or_default() += 1;
        }
    }

    pub(super) fn struck(&self, call: &Call) {
        self.on(call, |tally| tally.struck += 1);
    }

    pub(super) fn forwarded(&self, call: &Call) {
        self.on(call, |tally| tally.forwarded += 1);
    }

    pub(super) fn answered(&self, call: &Call, status: Option<u16>) {
        self.on(call, |tally| match status {
            Some(status) => *tally.answers.entry(status).or_default() += 1,
            None => tally.unanswered += 1,
        });
    }

    pub(super) fn read(&self) -> Counts {
        self.lock().clone()
    }

    pub(super) fn take(&self) -> Counts {
        std::mem::take(&mut *self.lock())
    }
}
