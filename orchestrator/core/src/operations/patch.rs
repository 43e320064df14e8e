//! Patches: which way a run goes where its code was changed under it.
//!
//! | what happens | in the history | what comes of it |
//! | --- | --- | --- |
//! | new code asks whether the run goes the new way, for the first time | `RecordPatch` | it does, from here to its end |
//! | code asks at a place that the run had passed before the patch was there | (nothing) | it does not, to its end |
//! | the old way is gone, and the new one says so where the question stood | `RecordPatch`, deprecated | code may leave it out |
//!
//! The program decides about a recorded one while a turn is run again (`program/script.rs`): code that does not ask for it
//! any more has gone astray, unless it is deprecated, here or in the code.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use super::kind::{Ask, Kind, View, attributes};
use crate::time::Moment;

/// From here on the run goes the way of this patch.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RecordPatch {
    /// The patch's id.
    #[n(0)]
    pub id: String,
    /// Whether the code that recorded it had no other way any more: later code need not ask for it.
    #[n(1)]
    pub deprecated: bool,
    /// Where the workflow asked for it.
    #[n(2)]
    pub place: String,
}

/// The patches of a run.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Patches {
    /// Their ids, and whether each is deprecated: code must ask for those that are not.
    #[n(0)]
    pub recorded: BTreeMap<String, bool>,
}

impl Kind for Patches {
    type Due = std::convert::Infallible;

    fn weight(&self) -> usize {
        self.recorded.keys().map(|id| 64 + id.len()).sum()
    }
}

impl Ask for RecordPatch {
    type Of = Patches;
    const KIND: &'static str = "patch";

    fn name(&self) -> Option<&str> {
        Some(&self.id)
    }

    fn place(&self) -> Option<&str> {
        Some(&self.place)
    }

    /// Whether it is deprecated may change from build to build.
    fn same_arguments(&self, _: &Self) -> bool {
        true
    }

    fn fold(&self, of: &mut Patches, _: Moment) -> Result<(), String> {
        let deprecated = of.recorded.entry(self.id.clone()).or_insert(self.deprecated);
        *deprecated &= self.deprecated;
        Ok(())
    }

    fn view(&self) -> View {
        let Self { id, deprecated, place } = self;
        ("PatchRecorded", attributes! { "patch_id": id, "deprecated": deprecated, "place": place })
    }

    fn bytes(&self) -> usize {
        self.id.len()
    }

    /// What it decides is decided alike for as long as nothing that came of it is recorded.
    fn may_wait(&self) -> bool {
        true
    }
}
