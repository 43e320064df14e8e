//! Signals: messages of callers.
//!
//! | what happens | in the history | what comes of it |
//! | --- | --- | --- |
//! | a caller sends one | `Signaled` | it waits in the run until the code takes it, or goes along when the run continues as new |
//! | the same again | | a duplicate, by its request id |
//! | to a run that continued as new | | it follows (rule F4) |
//! | to a run whose inbox is full, or that leaves too many unread | | refused, with the limit's name |
//!
//! A turn says which signals the code took: so what is unread is known without the code.

use std::collections::{BTreeMap, VecDeque};

use minicbor::{Decode, Encode};

use super::Input;
use super::kind::{About, Arrives, Delivery, Kind, News, Refusal, View, attributes};
use crate::payload::Payload;
use crate::time::Timestamp;

/// A signal arrived.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Signaled {
    /// Deduplicates repeats.
    #[n(0)]
    pub request_id: String,
    /// Its name.
    #[n(1)]
    pub name: String,
    /// Its argument.
    #[n(2)]
    pub payload: Payload,
}

/// Signals that were delivered and that the code has not taken. They themselves are in the machine.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Signals {
    /// By name, those of which there are any.
    #[n(0)]
    pub unread: BTreeMap<String, Unread>,
    /// All of them.
    #[n(1)]
    count: u64,
    /// Bytes of all of them.
    #[n(2)]
    bytes: u64,
}

/// Signals of one name that the code has not taken.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Unread {
    /// Bytes of each, in the order in which they came.
    #[n(0)]
    sizes: VecDeque<u64>,
    /// Bytes of all.
    #[n(1)]
    bytes: u64,
    /// How many of the first came along from the run before: that did not take them either.
    #[n(2)]
    carried: u64,
}

impl Unread {
    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.sizes.len() as u64
    }

    /// Bytes of their names and payloads.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many of them a whole run has not taken.
    #[must_use]
    pub fn carried(&self) -> u64 {
        self.carried
    }
}

impl Signals {
    /// How many the code has not taken, and their bytes.
    pub(crate) fn unread_in_all(&self) -> (u64, u64) {
        (self.count, self.bytes)
    }

    /// What of these are signals has come, or come along from the run before.
    pub fn deliver<'a>(&mut self, inputs: impl IntoIterator<Item = &'a Input>) {
        for input in inputs {
            match input.deliver() {
                Delivery::Signal(name, payload) => self.receive(name, payload, false),
                Delivery::Signals(carried) => {
                    carried.iter().for_each(|signal| self.receive(&signal.name, &signal.payload, true));
                }
                Delivery::Cancel | Delivery::Outcome(..) | Delivery::Nothing => {}
            }
        }
    }

    fn receive(&mut self, name: &str, payload: &Payload, carried: bool) {
        let bytes = reckoned(name, payload);
        let unread = match self.unread.get_mut(name) {
            Some(unread) => unread,
            None => self.unread.entry(name.to_owned()).or_default(),
        };
        unread.sizes.push_back(bytes);
        unread.bytes += bytes;
        unread.carried += u64::from(carried);
        self.count += 1;
        self.bytes += bytes;
    }

    /// The code has taken so many of each name. Histories of builds that did not say so leave more unread here than there
    /// are.
    pub(crate) fn take(&mut self, taken: &BTreeMap<String, u32>) {
        for (name, count) in taken {
            let Some(unread) = self.unread.get_mut(name) else { continue };
            for bytes in unread.sizes.drain(..(*count as usize).min(unread.sizes.len())) {
                unread.bytes -= bytes;
                unread.carried = unread.carried.saturating_sub(1);
                self.count -= 1;
                self.bytes -= bytes;
            }
            if unread.sizes.is_empty() {
                self.unread.remove(name);
            }
        }
    }
}

fn reckoned(name: &str, payload: &Payload) -> u64 {
    (name.len() + payload.len()) as u64
}

impl Kind for Signals {
    type Due = std::convert::Infallible;

    fn weight(&self) -> usize {
        self.unread.len() * 128 + self.count as usize * 8
    }
}

impl News for Signaled {
    type Of = Signals;
    const DELIVERED: bool = true;

    fn about(&self) -> About<'_> {
        About::Request(&self.request_id)
    }

    fn note(&self, _: &mut Signals) -> Result<(), String> {
        Ok(())
    }

    fn fits(&self, _: &Signals) -> bool {
        true
    }

    fn deliver(&self) -> Delivery<'_> {
        Delivery::Signal(&self.name, &self.payload)
    }

    fn view(&self) -> View {
        let Self { request_id, name, payload } = self;
        ("SignalReceived", attributes! { "name": name, "payload": payload, "request_id": request_id })
    }

    fn bytes(&self) -> usize {
        reckoned(&self.name, &self.payload) as usize
    }
}

impl<Input: From<Self>> Arrives<Input> for Signaled {
    type Of = Signals;
    const FOLLOWS: bool = true;
    const BOUNDED: bool = true;

    fn request_id(&self) -> Option<&str> {
        Some(&self.request_id)
    }

    fn accept(self, _: &Signals, _: Timestamp) -> Result<Input, Refusal> {
        Ok(self.into())
    }
}
