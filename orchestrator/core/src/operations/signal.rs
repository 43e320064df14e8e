//! Signals: messages of callers.
//!
//! | what happens | in the history | what comes of it |
//! | --- | --- | --- |
//! | a caller sends one | `Signaled` | it waits in the run until the code takes it, or goes along when the run continues as new |
//! | the same again | | a duplicate, by its request id |
//! | to a run that continued as new | | it follows (rule F4) |
//! | to a run whose inbox is full | | refused, with the limit's name |

use minicbor::{Decode, Encode};

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

/// Nothing is pending of signals: those that wait are in the run's inbox, or in the machine.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Signals {}

impl Kind for Signals {
    type Due = std::convert::Infallible;
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
        self.name.len() + self.payload.len()
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
