//! A run, as its test sees it.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use dormouse_core::api::{HistoryEvent, ParkedBody};
use dormouse_core::history::HistoryFile;
use dormouse_core::{Failure, Payload, Query, Signal, Status};
use dormouse_engine::front::Target;
use dormouse_engine::store::RunRow;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::stage::Stage;
use crate::world::{drive, latest};

/// So many moments pass while a result is waited for, at most: a workflow that goes on for ever ends its test here.
const MANY_MOMENTS: u32 = 100_000;
/// Events of a history that are read at a time.
const PAGE: usize = 1_000;

/// A workflow that a test has started, through all the runs that it continues as. Cloning is cheap.
pub struct TestRun<O> {
    stage: Rc<Stage>,
    id: String,
    /// Of the latest run that is known.
    ordinal: Cell<u64>,
    output: PhantomData<fn() -> O>,
}

impl<O> Clone for TestRun<O> {
    fn clone(&self) -> Self {
        Self::new(Rc::clone(&self.stage), &self.id)
    }
}

impl<O> fmt::Debug for TestRun<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestRun").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<O> TestRun<O> {
    pub(super) fn new(stage: Rc<Stage>, id: &str) -> Self {
        Self { stage, id: id.to_owned(), ordinal: Cell::new(0), output: PhantomData }
    }

    /// Its workflow id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    fn row(&self) -> RunRow {
        let row = self.stage.latest(&self.id, self.ordinal.get());
        self.ordinal.set(row.run.ordinal);
        row
    }

    fn target(&self) -> Target {
        latest(&self.id)
    }

    /// How it stands, at this moment.
    #[must_use]
    pub fn status(&self) -> Status {
        self.row().status
    }

    /// Why its code cannot go on, if it cannot: a panic, a divergence, a future that its context did not give. For people
    /// (`reason`) and as data (`cause`).
    ///
    /// ```
    /// # use dormouse_core::api::ParkedCause;
    /// # use dormouse_core::{App, Failure, Workflow};
    /// # use dormouse_testing::kit::TestEnv;
    /// async fn hopeful(_: Workflow, n: u32) -> Result<u32, Failure> {
    ///     Ok(n.checked_sub(1).expect("one at least"))
    /// }
    /// let test = TestEnv::new(App::new().workflow("hopeful", hopeful));
    /// let parked = test.start(hopeful, &0).parked().expect("a panic");
    /// assert!(matches!(parked.cause, Some(ParkedCause::Panic { turn: 1, .. })));
    /// ```
    #[must_use]
    pub fn parked(&self) -> Option<ParkedBody> {
        self.row().parked.map(ParkedBody::from)
    }

    /// What happened, oldest first, as `workflow show` tells it; of the latest run.
    ///
    /// # Panics
    /// When the history cannot be read.
    #[must_use]
    pub fn history(&self) -> Vec<HistoryEvent> {
        let mut events = Vec::new();
        loop {
            let target = self.target();
            let page =
                self.stage.with_process(|process| drive(process.front.history(&target, events.len() as u64, PAGE)));
            let page = page.expect("a history");
            let more = page.events.len();
            events.extend(page.events);
            if more < PAGE {
                return events;
            }
        }
    }

    /// Its history as a file's text, as `workflow export` writes it; of the latest run. [`replay_file`](super::replay_file)
    /// holds it against the code of another day.
    #[must_use]
    pub fn exported(&self) -> String {
        let run = self.row().run;
        let records = self.stage.world().records(&run);
        HistoryFile { run, records }.to_json()
    }

    /// Writes [that text](Self::exported) into a file.
    ///
    /// # Panics
    /// When the file cannot be written.
    #[track_caller]
    pub fn export(&self, path: impl AsRef<Path>) {
        let path = path.as_ref();
        if let Err(error) = std::fs::write(path, self.exported()) {
            panic!("{} cannot be written: {error}", path.display());
        }
    }

    // --- what others do to it ---

    /// Sends it a signal, at this moment.
    ///
    /// # Panics
    /// When it is not taken in: the run is closed, say.
    #[track_caller]
    pub fn signal<T: Serialize>(&self, signal: Signal<T>, value: &T) {
        let request = format!("signal-{}", self.stage.fresh());
        let (target, payload) = (self.target(), Payload::encode(value).expect("a value that serializes"));
        let sent = self.stage.with_process(|process| {
            drive(process.front.signal(&target, Some(&request), signal.name(), payload.clone()))
        });
        sent.expect("a signal that is taken in");
    }

    /// Asks for its cancellation, at this moment.
    ///
    /// # Panics
    /// When it is closed.
    #[track_caller]
    pub fn cancel(&self, reason: &str) {
        let (request, target) = (format!("cancel-{}", self.stage.fresh()), self.target());
        let asked = self.stage.with_process(|process| drive(process.front.cancel(&target, Some(&request), reason)));
        asked.expect("a run that can be canceled");
    }

    /// Asks a query, at this moment: a published value, or one that the workflow computes.
    ///
    /// # Panics
    /// When the run does not answer it.
    #[must_use]
    #[track_caller]
    pub fn query<T: DeserializeOwned>(&self, query: Query<T>) -> T {
        self.ask(query, &())
    }

    /// The same with an argument.
    ///
    /// # Panics
    /// As [`query`](Self::query).
    #[must_use]
    #[track_caller]
    pub fn ask<T: DeserializeOwned, A: Serialize>(&self, query: Query<T, A>, argument: &A) -> T {
        let run = self.row().run;
        let published = self.stage.world().state(&run).pending.published.values.get(query.name()).cloned();
        let answer = published.unwrap_or_else(|| {
            match self.stage.with_process(|process| Some(process.query(&run, query.name(), argument))) {
                Ok(answer) => answer,
                Err(error) => panic!("query {:?}: {error}", query.name()),
            }
        });
        answer.decode().expect("an answer of the query's type")
    }
}

impl<O: DeserializeOwned> TestRun<O> {
    /// What it comes to. Time passes until it has ended, as far as it must.
    ///
    /// # Errors
    /// What it fails with; a failure of kind `canceled` or `terminated` when it was.
    ///
    /// # Panics
    /// When it never ends: it is parked, or waits for something that nobody does. The message says what for.
    #[track_caller]
    pub fn result(&self) -> Result<O, Failure> {
        match self.ends() {
            Ok(ended) => ended.map(|result| result.decode().expect("a result of the workflow's type")),
            Err(why) => panic!("{why}"),
        }
    }
}

impl<O> TestRun<O> {
    /// Lets time pass until it has ended; or says why it does not.
    pub(super) fn ends(&self) -> Result<Result<Payload, Failure>, String> {
        for _ in 0..MANY_MOMENTS {
            let row = self.row();
            if row.status.is_closed()
                && let Some(ended) = self.ended()
            {
                return Ok(ended);
            }
            if let Some(parked) = row.parked {
                return Err(format!("the code of {} cannot go on: {}", self.id, parked.reason));
            }
            if !self.stage.step(None) {
                return Err(format!("{} waits for what no time brings: {}", self.id, self.waits_for()));
            }
        }
        Err(format!("{} has not ended after {MANY_MOMENTS} moments: {}", self.id, self.waits_for()))
    }

    fn ended(&self) -> Option<Result<Payload, Failure>> {
        let target = self.target();
        let outcome = self.stage.with_process(|process| drive(process.front.result(&target, Duration::ZERO)));
        let outcome = outcome.expect("a run");
        match outcome.status {
            Status::Running | Status::ContinuedAsNew => None,
            _ => {
                Some(outcome.result.ok_or_else(|| outcome.failure.unwrap_or_else(|| Failure::application("no result"))))
            }
        }
    }

    fn waits_for(&self) -> String {
        let target = self.target();
        let described = match self.stage.with_process(|process| drive(process.front.describe(&target))) {
            Ok(described) => described,
            Err(error) => return error.to_string(),
        };
        let activities = described.pending_activities.iter().map(|one| format!("activity {:?}", one.activity_type));
        let what: Vec<_> = activities.collect();
        if what.is_empty() { "a signal, or a condition".into() } else { what.join(", ") }
    }

    /// Cancels it after so many moments at which anything happened, unless it has ended by then.
    pub(super) fn cancel_at(&self, moment: u64) {
        for _ in 0..moment {
            self.stage.step(None);
        }
        if !self.status().is_closed() {
            self.stage.remember_line();
            self.cancel("at each moment");
        }
    }

    /// The last place in the workflow's code that was recorded when the process died, or the run was canceled.
    pub(super) fn line_before_the_mishap(&self) -> Option<String> {
        self.stage.line_before_the_mishap()
    }
}
