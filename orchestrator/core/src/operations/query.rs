//! Published query values, which anyone may read from storage.
//!
//! | what happens | in the history | pending after |
//! | --- | --- | --- |
//! | the code publishes a value, or changes it | `Publish` | the value under its name, also when the run is closed |

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use super::kind::{Ask, Kind, View, attributes};
use crate::payload::Payload;
use crate::time::Moment;

/// A query's value, answered from storage.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Publish {
    /// The query's name.
    #[n(0)]
    pub name: String,
    /// Its value.
    #[n(1)]
    pub value: Payload,
    /// Where the workflow published it.
    #[n(2)]
    pub place: String,
}

/// The published values of a run.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Values {
    /// By the query's name.
    #[n(0)]
    pub values: BTreeMap<String, Payload>,
}

impl Kind for Values {
    type Due = std::convert::Infallible;

    fn weight(&self) -> usize {
        self.values.iter().map(|(name, value)| name.len() + value.len() + 64).sum()
    }
}

impl Ask for Publish {
    type Of = Values;
    const KIND: &'static str = "publish";

    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn place(&self) -> Option<&str> {
        Some(&self.place)
    }

    fn same_arguments(&self, other: &Self) -> bool {
        self.value == other.value
    }

    fn fold(&self, of: &mut Values, _: Moment) -> Result<(), String> {
        of.values.insert(self.name.clone(), self.value.clone());
        Ok(())
    }

    fn view(&self) -> View {
        let Self { name, value, place } = self;
        ("ValuePublished", attributes! { "name": name, "value": value, "place": place })
    }

    fn bytes(&self) -> usize {
        self.value.len()
    }
}
