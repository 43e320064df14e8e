//! Requests to stop.
//!
//! | what happens | in the history | what comes of it |
//! | --- | --- | --- |
//! | a caller asks | `CancelRequested` | all that is awaited outside `detached()` ends, in the order in which it was asked for |
//! | the same again | | a duplicate, by its request id |
//! | to a run that continued as new | | it follows (rule F4) |

use minicbor::{Decode, Encode};

use super::kind::{About, Arrives, Delivery, Kind, News, Refusal, View, attributes};
use crate::time::Timestamp;

/// Somebody asked the workflow to stop.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CancelRequested {
    /// Deduplicates repeats.
    #[n(0)]
    pub request_id: String,
    /// Why, for people.
    #[n(1)]
    pub reason: String,
}

/// Whether a run was asked to stop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Cancellation {
    /// It was.
    #[n(0)]
    pub requested: bool,
}

impl Kind for Cancellation {
    type Due = std::convert::Infallible;
}

impl News for CancelRequested {
    type Of = Cancellation;
    const DELIVERED: bool = true;

    fn about(&self) -> About<'_> {
        About::Request(&self.request_id)
    }

    fn note(&self, of: &mut Cancellation) -> Result<(), String> {
        of.requested = true;
        Ok(())
    }

    fn fits(&self, _: &Cancellation) -> bool {
        true
    }

    fn deliver(&self) -> Delivery<'_> {
        Delivery::Cancel
    }

    fn view(&self) -> View {
        ("CancelRequested", attributes! { "reason": self.reason, "request_id": self.request_id })
    }

    fn bytes(&self) -> usize {
        self.reason.len()
    }
}

impl<Input: From<Self>> Arrives<Input> for CancelRequested {
    type Of = Cancellation;
    const FOLLOWS: bool = true;
    const BOUNDED: bool = false;

    fn request_id(&self) -> Option<&str> {
        Some(&self.request_id)
    }

    fn accept(self, _: &Cancellation, _: Timestamp) -> Result<Input, Refusal> {
        Ok(self.into())
    }
}
