//! One pass of a run through load, accept, decide and commit, begun again whenever the run has to be read anew.

use std::collections::BTreeSet;

use bytes::Bytes;
use dormouse_core::history::{Batch, CommandId};
use dormouse_core::planted::{Bug, planted};
use dormouse_core::{Arrival, Decision, LiveRun, Merge, Retake, RunKey, TurnFailure};

use crate::attempts::close_untaken;
use crate::commit::{LoadError, Outcome, commit, entry, read_history};
use crate::dispatch::Dispatch;
use crate::handle::{Coming, Decider, Post, Surroundings};
use crate::store::{AttemptKey, StoreError};

/// A run on its way.
pub(crate) struct Pass<'a, S> {
    decider: &'a Decider<S>,
    run: &'a RunKey,
    live: LiveRun,
    /// The run was read from the store in this pass: what it refuses is refused (rule C3).
    fresh: bool,
    /// What arrived for the run.
    arrivals: &'a [Coming],
    /// Whether `live` has yet to be shown the arrivals.
    to_accept: bool,
    /// Whether what is due is to be seen to, as if an alarm rang.
    sweep: bool,
    /// How much is to be handed out at the end.
    dispatch: Dispatch,
    /// Activities whose tasks this pass has sent.
    sent: BTreeSet<CommandId>,
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
        post: &'a mut Post,
    ) -> Result<Option<Self>, LoadError> {
        let accepted = std::mem::take(&mut post.accepted);
        let may_close = !accepted.is_empty() || !post.starts.is_empty();
        let Some((live, read)) = decider.load(run, accepted, post.fresh).await? else { return Ok(None) };
        let fresh = post.fresh || read;
        let again = fresh && may_close && !live.state().is_undecided();
        let dispatch = if post.sweep { Dispatch::All } else { Dispatch::New };
        Ok(Some(Self {
            decider,
            run,
            live,
            fresh,
            arrivals: &post.arrivals,
            to_accept: true,
            sweep: post.sweep,
            dispatch,
            sent: BTreeSet::new(),
            may_close,
            again,
        }))
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
        let closed = self.live.state().closed.is_some();
        self.decider.hand_out(self.run, self.live, self.dispatch, &self.sent, self.may_close).await?;
        for coming in self.arrivals.iter().filter(|coming| closed && coming.follows) {
            self.decider.pass_on(self.run, &coming.arrival).await?;
        }
        Ok(())
    }

    async fn accept(&mut self) -> Result<Step, LoadError> {
        let now = self.decider.ports.now();
        let mut refused = false;
        // What a caller announced he has mostly recorded by now. If it waits, it will be decided and what follows handed
        // out; if it does not, whoever decided it may have died before that.
        let waited = self.live.state().is_undecided();
        if std::mem::take(&mut self.to_accept) {
            for coming in self.arrivals {
                if coming.run_id.is_some_and(|run_id| run_id != self.live.state().run_id()) {
                    continue;
                }
                match self.live.state().accept(&coming.arrival, now) {
                    Ok(inputs) => self.live.take_in(inputs),
                    Err(refusal) if self.fresh || planted(Bug::C3TrustCache) => {
                        tracing::debug!(run = %self.run, ?refusal, "not taken in");
                        self.again |= coming.run_id.is_some() || !waited;
                    }
                    Err(_) => refused = true,
                }
            }
        }
        let alarm = self.arrivals.iter().any(|coming| coming.arrival == Arrival::Alarm);
        if self.sweep
            && let Ok(due) = self.live.state().accept(&Arrival::Alarm, now)
        {
            // Its alarm was lost: what it would have told is known here.
            self.live.take_in(due);
        }
        if alarm || self.sweep {
            self.never_taken().await?;
        }
        if refused {
            // The cache refuses; ask the store (rule C3). What was taken in is known by then.
            return self.refreshed().await;
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
        let entry = entry(&batch, self.live.state());
        if planted(Bug::C2DispatchLost) {
            self.decider.dispatch_batch(&self.live, &batch, &mut self.sent).await?;
        }
        match commit(&*ports.store, None, self.run, &record, &entry).await? {
            Outcome::Won => {
                self.live.committed(&batch, &record);
                self.decider.dispatch_batch(&self.live, &batch, &mut self.sent).await?;
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

    /// Reads what the run does not know yet, and shows it the arrivals again.
    async fn refreshed(&mut self) -> Result<Step, LoadError> {
        if !self.decider.catch_up(self.run, &mut self.live).await? {
            self.live = self.decider.replay(self.run).await?;
        }
        (self.fresh, self.to_accept) = (true, true);
        Ok(Step::Anew)
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
        let mut accepted = accepted.into_iter().peekable();
        let live = match (warm, accepted.peek()) {
            (Some(live), _) => Some(live),
            // A run that has just begun: its message carries all there is. A message that comes late does not.
            (None, Some((0, first))) if !fresh && self.is_news(first) => {
                let first = first.clone();
                Some(self.in_turn(run, || LiveRun::replay(&self.app, run, &[first]))?)
            }
            (None, _) => None,
        };
        if let Some(mut live) = live {
            let fits = accepted.all(|(sequence, record)| live.extend(sequence, &record));
            if fits && !fresh {
                return Ok(Some((live, false)));
            }
            if fits && self.catch_up(run, &mut live).await? {
                return Ok(Some((live, true)));
            }
        }
        let records = read_history(&*self.ports.store, run).await?;
        if records.is_empty() {
            return Ok(None);
        }
        Ok(Some((self.in_turn(run, || LiveRun::replay(&self.app, run, &records))?, true)))
    }

    /// Reads what stands behind the last batch that a run in memory knows. `false`: it does not fit.
    async fn catch_up(&self, run: &RunKey, live: &mut LiveRun) -> Result<bool, StoreError> {
        loop {
            let stretch = match self.ports.store.read(run, live.state().next_sequence).await {
                Err(_) if planted(Bug::C3BelieveMemory) => return Ok(true),
                stretch => stretch?,
            };
            self.surroundings.turn_begins(run);
            let fits = live.catch_up(&stretch.records);
            self.surroundings.turn_ends();
            if !fits || stretch.gap {
                return Ok(false);
            }
            if !stretch.more || stretch.records.is_empty() {
                return Ok(true);
            }
        }
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
