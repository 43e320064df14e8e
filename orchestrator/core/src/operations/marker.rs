//! Markers: values that are recorded once and given back on replay, within the turn that asked for them.
//!
//! | what happens | in the history | what comes of it |
//! | --- | --- | --- |
//! | the code asks for a side effect, for the first time | `RecordMarker` | its closure has run; the value goes on |
//! | it asks again, on replay | (the same) | the recorded value; the closure does not run |

use minicbor::{Decode, Encode};

use super::kind::{Ask, Kind, View, attributes};
use crate::payload::Payload;
use crate::time::Moment;

/// A value that is given back on replay: what a closure gave when it ran.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct RecordMarker {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// What the closure gave.
    #[n(1)]
    pub value: Payload,
    /// Where the workflow asked for it.
    #[n(2)]
    pub place: String,
}

/// Nothing is pending of markers.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Markers {}

impl Kind for Markers {
    type Due = std::convert::Infallible;
}

impl Ask for RecordMarker {
    type Of = Markers;
    const KIND: &'static str = "marker";

    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn place(&self) -> Option<&str> {
        Some(&self.place)
    }

    /// The recorded value stands, and nobody computes another.
    fn same_arguments(&self, _: &Self) -> bool {
        true
    }

    fn fold(&self, _: &mut Markers, _: Moment) -> Result<(), String> {
        Ok(())
    }

    fn view(&self) -> View {
        let Self { name, value, place } = self;
        ("MarkerRecorded", attributes! { "name": name, "value": value, "place": place })
    }

    fn bytes(&self) -> usize {
        self.value.len()
    }
}
