//! Computed queries: asked of the run in memory, or of one that is replayed for it.

use dormouse_core::{LiveRun, Payload, QueryFailure, RunKey, TurnFailure};

use crate::commit::LoadError;
use crate::decider::{Decider, OnThread, Surroundings};
use crate::error::ApiError;
use crate::states::read_history;
use crate::store::StoreError;

impl<S: Surroundings + 'static> Decider<S> {
    /// Answers a query by the run's handler, on its present state.
    ///
    /// # Errors
    /// [`ApiError`] when there is no such run or handler, the code cannot go on, or the store does not answer.
    pub async fn query(&self, run: &RunKey, name: &str, input: &Payload) -> Result<Payload, ApiError> {
        if let Some(live) = self.take_warm(run).await? {
            let answer = self.ask(&live, name, input);
            self.keep_warm(run, live);
            return answer;
        }
        let records = read_history(&*self.ports.store, run).await?;
        if records.is_empty() {
            return Err(ApiError::NotFound(format!("there is no run {run}")));
        }
        let live = self.replay(run, &records).map_err(LoadError::from)?;
        self.ask(&live, name, input)
    }

    /// The run in memory, caught up with the store. It is taken out for no longer than its code runs: whoever handles its
    /// messages meanwhile must find it.
    async fn take_warm(&self, run: &RunKey) -> Result<Option<Box<LiveRun>>, StoreError> {
        let Some(known) = self.warm.borrow_mut().peek(run, |live| live.state().next_sequence) else { return Ok(None) };
        let stretch = self.ports.store.read(run, known).await?;
        if stretch.gap || stretch.more {
            return Ok(None);
        }
        let Some(mut live) = self.warm.borrow_mut().take(run) else { return Ok(None) };
        // It has gone on meanwhile: what was read is behind it.
        if live.state().next_sequence != known {
            return Ok(Some(live));
        }
        let fits = self.in_turn(run, || Ok::<_, TurnFailure>(live.catch_up(&stretch.records))).unwrap_or(false);
        Ok(fits.then_some(live))
    }

    fn ask(&self, live: &LiveRun, name: &str, input: &Payload) -> Result<Payload, ApiError> {
        self.surroundings.code_begins(OnThread::Query);
        let answer = live.query(name, input);
        self.surroundings.code_ends();
        answer.map_err(|failure| match failure {
            QueryFailure::Unknown(known) => ApiError::NoSuchQuery(format!(
                "the workflow answers no query {name:?}; it answers: {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            )),
            QueryFailure::Failed(failure) => ApiError::QueryFailed(Box::new(failure)),
        })
    }
}
