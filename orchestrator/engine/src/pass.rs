//! One pass of a run through load, accept, decide and commit, begun again whenever the run has to be read anew.

use bytes::Bytes;
use dormouse_core::history::Batch;
use dormouse_core::planted::{Bug, planted};
use dormouse_core::{Arrival, Decision, LiveRun, Merge, Retake, RunId, RunKey, TurnFailure};

use crate::attempts::close_untaken;
use crate::commit::{LoadError, Outcome, commit, read_history, row_change};
use crate::dispatch::Dispatch;
use crate::handle::{Decider, Surroundings};
use crate::store::{AttemptKey, StoreError};

/// A run on its way.
pub(crate) struct Pass<'a, S> {
    decider: &'a Decider<S>,
    run: &'a RunKey,
    live: LiveRun,
    /// The run was read from the store in this pass: what it refuses is refused (rule C3).
    fresh: bool,
    /// What arrived for the run.
    arrivals: &'a [(RunId, Arrival)],
    /// Whether `live` has yet to be shown the arrivals.
    to_accept: bool,
    /// How much is to be handed out at the end.
    dispatch: Dispatch,
    /// Somebody else's batch may have closed the run; then it is for us to do what follows.
    may_close: bool,
    /// A message came again. Whoever had it first may have died before he handed out what follows.
    again: bool,
}

/// Whether the pass goes on to the next step, or begins again on a run that was read anew.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    On,
    Anew,
}

impl<'a, S: Surroundings> Pass<'a, S> {
    /// Loads the run. `None`: there is no such run.
    pub(crate) async fn load(
        decider: &'a Decider<S>,
        run: &'a RunKey,
        accepted: Vec<(u64, Bytes)>,
        arrivals: &'a [(RunId, Arrival)],
        fresh: bool,
        dispatch: Dispatch,
    ) -> Result<Option<Self>, LoadError> {
        let may_close = !accepted.is_empty();
        let Some((live, read)) = decider.load(run, accepted, fresh).await? else { return Ok(None) };
        let fresh = fresh || read;
        let again = fresh && may_close && !live.state().is_undecided();
        Ok(Some(Self { decider, run, live, fresh, arrivals, to_accept: true, dispatch, may_close, again }))
    }

    /// Accept, decide, commit, until nothing is left to commit.
    pub(crate) async fn run(mut self) -> Result<(), LoadError> {
        if self.fresh && planted(Bug::F1ForgetUndecided) && self.arrivals.is_empty() {
            return Ok(());
        }
        loop {
            // What waits in the history comes before what arrives now. It may also be what asks for the local
            // activities whose results arrive.
            if self.live.state().is_undecided() && self.decide().await? == Step::Anew {
                continue;
            }
            if self.accept().await? == Step::On && self.decide().await? == Step::On && self.commit().await? == Step::On
            {
                break;
            }
        }
        if self.again && !planted(Bug::F1ForgetOutstanding) {
            self.dispatch = Dispatch::All;
        }
        self.decider.hand_out(self.run, self.live, self.dispatch, self.may_close).await
    }

    async fn accept(&mut self) -> Result<Step, LoadError> {
        let now = self.decider.ports.now();
        let mut refused = false;
        if std::mem::take(&mut self.to_accept) {
            for (run_id, arrival) in self.arrivals {
                if *run_id != self.live.state().run_id() {
                    continue;
                }
                match self.live.state().accept(arrival, now) {
                    Ok(inputs) => self.live.take_in(inputs),
                    Err(refusal) if self.fresh || planted(Bug::C3TrustCache) => {
                        tracing::debug!(run = %self.run, ?refusal, "not taken in");
                        self.again = true;
                    }
                    Err(_) => refused = true,
                }
            }
        }
        let alarm = self.arrivals.iter().any(|(_, arrival)| *arrival == Arrival::Alarm);
        if alarm || self.dispatch == Dispatch::All {
            self.never_taken().await?;
        }
        if refused {
            // The cache refuses; ask the store (rule C3). What was taken in is taken in again there.
            return self.anew().await;
        }
        Ok(Step::On)
    }

    async fn decide(&mut self) -> Result<Step, LoadError> {
        let now = self.decider.ports.now();
        let (decider, live) = (self.decider, &mut self.live);
        match decider.in_turn(self.run, || live.decide(now))? {
            Decision::Decided => Ok(Step::On),
            Decision::Retake(retake) => self.resume(retake).await,
        }
    }

    async fn commit(&mut self) -> Result<Step, LoadError> {
        if !self.live.must_commit() {
            return Ok(Step::On);
        }
        let ports = &self.decider.ports;
        let batch = self.live.seal(ports.commit_id(), ports.now(), ports.choices.sweep_interval);
        let record = batch.encode();
        let change = row_change(&batch, self.live.state());
        let sequence = self.live.state().next_sequence;
        if planted(Bug::C2DispatchLost) {
            self.decider.dispatch_batch(&self.live, &batch).await?;
        }
        match commit(&*ports.store, self.run, sequence, &record, change).await? {
            Outcome::Won => {
                self.live.committed(&batch, &record);
                self.decider.dispatch_batch(&self.live, &batch).await?;
                self.may_close = false;
                Ok(Step::On)
            }
            Outcome::Lost(_) if planted(Bug::C2DropLocalResults) => {
                self.live = self.decider.replay(self.run).await?;
                self.fresh = true;
                Ok(Step::Anew)
            }
            Outcome::Lost(found) => match self.live.merge(&found) {
                Merge::Merged => Ok(Step::Anew),
                Merge::Retake(retake) => self.resume(retake).await,
                Merge::Reload => {
                    self.dispatch = Dispatch::All;
                    self.anew().await
                }
            },
        }
    }

    /// Reads the run anew and shows it the arrivals again.
    async fn anew(&mut self) -> Result<Step, LoadError> {
        self.live = self.decider.replay(self.run).await?;
        (self.fresh, self.to_accept) = (true, true);
        Ok(Step::Anew)
    }

    /// Reads the run anew and puts back what is kept of the draft.
    async fn resume(&mut self, retake: Retake) -> Result<Step, LoadError> {
        self.live = self.decider.replay(self.run).await?;
        self.fresh = true;
        let (decider, live) = (self.decider, &mut self.live);
        if !decider.in_turn(self.run, || live.resume(retake))? {
            self.dispatch = Dispatch::All;
        }
        Ok(Step::Anew)
    }

    /// Activities whose schedule-to-start limit has passed and whose records say that nobody took them up.
    async fn never_taken(&mut self) -> Result<(), StoreError> {
        let passed: Vec<_> = self.live.state().start_deadlines_passed(self.decider.ports.now()).collect();
        for id in passed {
            let key = AttemptKey { run: self.live.state().run.clone(), activity: id };
            if close_untaken(&*self.decider.ports.store, &key).await?
                && let Ok(inputs) = self.live.state().accept(&Arrival::NeverTaken { id }, self.decider.ports.now())
            {
                self.live.take_in(inputs);
            }
        }
        Ok(())
    }
}

impl<S: Surroundings> Decider<S> {
    /// The run, with these batches taken in; and whether it was freshly read.
    async fn load(
        &self,
        run: &RunKey,
        accepted: Vec<(u64, Bytes)>,
        fresh: bool,
    ) -> Result<Option<(LiveRun, bool)>, LoadError> {
        let warm = self.warm.borrow_mut().pop(run);
        if !fresh {
            let mut accepted = accepted.into_iter().peekable();
            let live = match (warm, accepted.peek()) {
                (Some(live), _) => Some(live),
                // A run that has just begun: its message carries all there is. A message that comes late does not.
                (None, Some((0, first))) if self.is_news(first) => {
                    let first = first.clone();
                    Some(self.in_turn(run, || LiveRun::replay(&self.app, run, &[first]))?)
                }
                (None, _) => None,
            };
            if let Some(mut live) = live
                && accepted.all(|(sequence, record)| live.extend(sequence, &record))
            {
                return Ok(Some((live, false)));
            }
        }
        let records = read_history(&*self.ports.store, run).await?;
        if records.is_empty() {
            return Ok(None);
        }
        Ok(Some((self.in_turn(run, || LiveRun::replay(&self.app, run, &records))?, true)))
    }

    /// Whether the first batch of a run is so young that hardly anything can have followed it. Were it believed
    /// whenever it comes, a late copy of its message would have local activities run again that are long recorded.
    fn is_news(&self, first: &Bytes) -> bool {
        Batch::decode(0, first)
            .is_ok_and(|batch| self.ports.now().since(batch.time) < self.ports.choices.sweep_interval)
    }

    pub(crate) async fn replay(&self, run: &RunKey) -> Result<LiveRun, LoadError> {
        let records = read_history(&*self.ports.store, run).await?;
        Ok(self.in_turn(run, || LiveRun::replay(&self.app, run, &records))?)
    }

    /// Runs workflow code, watched.
    pub(crate) fn in_turn<T>(
        &self,
        run: &RunKey,
        code: impl FnOnce() -> Result<T, TurnFailure>,
    ) -> Result<T, TurnFailure> {
        self.surroundings.turn_begins(run);
        let result = code();
        self.surroundings.turn_ends();
        result
    }
}
