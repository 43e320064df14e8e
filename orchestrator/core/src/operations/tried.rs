//! What kinds have in common whose operations are tried, attempt after attempt, until there is an outcome.

use super::kind::{About, Arrives, Delivery, Kind, News, Outcome, Refusal, View};
use crate::ids::CommandId;
use crate::time::Timestamp;

/// What is pending of such a kind.
pub(crate) trait Tried: Kind {
    /// There is an outcome: the operation is pending no more.
    fn settle(&mut self, id: CommandId) -> Result<(), String>;
    /// Whether this attempt may still report: its operation is pending, and the history has not ended the attempt.
    fn is_live(&self, id: CommandId, attempt: u32) -> bool;
}

/// The outcome of such an operation.
pub(crate) trait Ending: Sized {
    /// What is pending of its kind.
    type Of: Tried;

    /// The operation, and the attempt that came to this.
    fn attempt(&self) -> (CommandId, u32);
    /// What the workflow is told.
    fn outcome(&self) -> Outcome<'_>;
    /// Whether it still changes something, having been accepted a moment ago.
    fn still_fits(&self, of: &Self::Of) -> bool {
        let (id, attempt) = self.attempt();
        of.is_live(id, attempt)
    }
    /// As it may be stored.
    fn storable(self) -> Self {
        self
    }
    /// For people.
    fn view(&self) -> View;
    /// About how many bytes it takes, beyond what every event takes.
    fn bytes(&self) -> usize {
        0
    }
}

impl<E: Ending> News for E {
    type Of = E::Of;
    const DELIVERED: bool = true;

    fn about(&self) -> About<'_> {
        About::Command(self.attempt().0)
    }

    fn note(&self, of: &mut E::Of) -> Result<(), String> {
        of.settle(self.attempt().0)
    }

    fn fits(&self, of: &E::Of) -> bool {
        self.still_fits(of)
    }

    fn deliver(&self) -> Delivery<'_> {
        Delivery::Outcome(self.attempt().0, self.outcome())
    }

    fn view(&self) -> View {
        Ending::view(self)
    }

    fn bytes(&self) -> usize {
        Ending::bytes(self)
    }
}

impl<E: Ending, Input: From<E>> Arrives<Input> for E {
    type Of = E::Of;
    const FOLLOWS: bool = false;
    const BOUNDED: bool = false;

    fn request_id(&self) -> Option<&str> {
        None
    }

    fn accept(self, of: &E::Of, _: Timestamp) -> Result<Input, Refusal> {
        let (id, attempt) = self.attempt();
        if of.is_live(id, attempt) { Ok(self.storable().into()) } else { Err(Refusal::Superseded) }
    }
}
