//! Close: what is left to be done for a run that has ended. It follows from its folded state: no code of the run is
//! needed, or run. Whether anything is left, the row says.

use dormouse_core::{RunKey, RunState, Status};

use crate::commit::LoadError;
use crate::decider::{Decider, Surroundings};
use crate::dispatch::close_up;
use crate::intake::{Announce, Taken};
use crate::post::Post;
use crate::seams::RunMessage;
use crate::store::{RunRow, StoreError};

impl<S: Surroundings + 'static> Decider<S> {
    /// Messages for a closed run, by its row. `status` is how it ended.
    pub(crate) async fn on_closed(
        &self,
        run: &RunKey,
        status: Status,
        row: &RunRow,
        post: &Post,
    ) -> Result<(), StoreError> {
        self.forget(run);
        self.ports.parkings.remove(run);
        self.ports.alarms.set(run, row.run_id, None).await?;
        if row.parked.is_some() {
            self.ports.store.park(run, None).await?;
        }
        let done = async {
            if row.due.is_some()
                && let Some(state) = self.ports.states.fresh(run).await?
            {
                close_up(&self.ports, &state).await?;
            }
            self.ports.closings.closed(run);
            self.pass_on(run, status, post).await
        };
        match done.await {
            Err(LoadError::Turn(failure)) => {
                // It stays due, for whoever mends it: nothing else can be done for it.
                tracing::error!(%run, %failure, "a closed run cannot be closed up");
                Ok(())
            }
            Err(LoadError::Store(error)) => Err(error),
            Ok(()) => Ok(()),
        }
    }

    /// Somebody else has closed the run.
    pub(crate) async fn on_ended(&self, run: &RunKey, status: Status, post: &Post) -> Result<(), StoreError> {
        match self.ports.store.row(run).await? {
            Some(row) => self.on_closed(run, status, &row, post).await,
            None => Ok(()),
        }
    }

    /// The run has ended by a commit of this process.
    pub(crate) async fn close(&self, run: &RunKey, state: &RunState, post: &Post) -> Result<(), LoadError> {
        self.ports.alarms.set(run, state.run_id(), None).await?;
        close_up(&self.ports, state).await?;
        self.ports.closings.closed(run);
        self.pass_on(run, state.status(), post).await
    }

    /// Callers' messages for a run that has closed are taken in by the run that it continues as, if it does (rule F4).
    async fn pass_on(&self, run: &RunKey, status: Status, post: &Post) -> Result<(), LoadError> {
        if status != Status::ContinuedAsNew {
            return Ok(());
        }
        let next = run.workflow.run(run.ordinal + 1);
        for arrival in post.followers().filter(|arrival| arrival.follows()) {
            match self.intake.follow(&next, arrival, Announce::No).await? {
                Taken::Recorded { run, sequence, record } => {
                    self.ports.runs.send(RunMessage::Accepted { run, sequence, record }).await?;
                }
                Taken::Duplicate(_) | Taken::Carried | Taken::Refused(_) | Taken::NoSuchRun => {}
            }
        }
        Ok(())
    }
}
