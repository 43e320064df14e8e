//! Long runs, written quickly: by the engine, in memory, many signals to a batch; then copied to wherever they are
//! looked at.

use std::num::NonZeroU64;

use bytes::Bytes;
use dormouse::{Activity, App, Failure, Payload, Query, Signal, Workflow};
use dormouse_core::{Arrival, RunKey, RunState, operations};
use dormouse_engine::seams::RunMessage;
use dormouse_engine::store::{Opening, RowUpdate, RunRow, Store};
use dormouse_testing::World;
use dormouse_testing::world::{Process, drive};

/// What the workflow `listen` hears.
pub const WORD: Signal<u32> = Signal::new("word");
/// How much it has heard, published.
pub const HEARD: Query<u32> = Query::new("heard");
/// What it computes when it is asked.
pub const TWICE: Query<u32> = Query::new("twice");
/// What the workflow `wait` waits for, while words come.
pub const GO: Signal<()> = Signal::new("go");

/// Signals that come at once, and are one batch.
pub const TOGETHER: u32 = 100;
/// Signals of one batch each, behind the others.
const ALONE: u32 = 3;

/// Hears so many signals, says now and then how many it has heard, and keeps their number alone.
async fn listen(cx: Workflow, signals: u32) -> Result<u32, Failure> {
    cx.answer(TWICE, move |(): ()| signals * 2);
    let heard = cx.publish(HEARD, 0);
    for signal in 1..=signals {
        cx.signal(WORD).await?;
        if signal % TOGETHER == 0 {
            heard.set(signal);
        }
    }
    Ok(signals)
}

/// Hears nothing until it is told to go on.
async fn wait(cx: Workflow, signals: u32) -> Result<u32, Failure> {
    cx.signal(GO).await?;
    for _ in 0..signals {
        cx.signal(WORD).await?;
    }
    Ok(signals)
}

async fn one(_: Activity, step: u32) -> Result<u32, Failure> {
    Ok(step)
}

/// One local activity after the other.
async fn walk(cx: Workflow, steps: u32) -> Result<u32, Failure> {
    for step in 0..steps {
        cx.local_activity(one, &step).await?;
    }
    Ok(steps)
}

/// The application of these runs.
#[must_use]
pub fn app() -> App {
    App::new().workflow("listen", listen).workflow("wait", wait).workflow("walk", walk).activity("one", one)
}

/// A run as the engine wrote it.
#[derive(Debug)]
pub struct Written {
    /// The run.
    pub run: RunKey,
    /// Its row.
    pub row: RunRow,
    /// Its history.
    pub records: Vec<Bytes>,
    /// The last snapshot of it.
    pub snapshot: Option<Bytes>,
}

impl Written {
    /// Batches behind the snapshot; all, when there is none.
    ///
    /// # Panics
    /// When the snapshot is not one.
    #[must_use]
    pub fn behind(&self) -> usize {
        let kept = self.snapshot.as_ref().map(|kept| RunState::from_snapshot(&self.run, kept).expect("a snapshot"));
        self.records.len() - kept.map_or(0, |state| usize::try_from(state.next_sequence).expect("a few batches"))
    }

    /// A run of this workflow type to which so many signals have come; three more, and `listen` ends.
    ///
    /// # Panics
    /// When there are fewer than four, or the engine cannot take them in.
    #[must_use]
    pub fn new(workflow_type: &str, signals: u32) -> Self {
        let world = World::new(app());
        let process = world.process();
        let run = process.start(workflow_type, "w", "r", &(signals + 3));
        process.deliver();
        let run_id = world.row(&run).expect("a row").run_id;
        let message = |n: u32| {
            let payload = Payload::encode(&n).expect("a number");
            let signal = operations::Signaled { request_id: format!("s{n}"), name: WORD.name().into(), payload };
            RunMessage::Arrived { run: run.clone(), run_id, arrival: Arrival::Signal(signal) }
        };
        let messages: Vec<_> = (0..signals).map(message).collect();
        let (many, few) = messages.split_at(messages.len() - ALONE as usize);
        for messages in many.chunks(TOGETHER as usize).chain(few.chunks(1)) {
            process.handle_together(messages.to_vec()).expect("it lives").expect("an answer");
            // Snapshots are kept aside.
            world.clock.work();
        }
        Self::of(&world, &process, run)
    }

    /// A run of the workflow type `walk` that has taken so many steps: a batch each.
    ///
    /// # Panics
    /// When the engine cannot take them.
    #[must_use]
    pub fn walked(steps: u32) -> Self {
        Self::walked_on(app(), "w", steps)
    }

    /// The same under this workflow id, on the code that this application has for `walk`.
    ///
    /// # Panics
    /// As [`walked`](Self::walked).
    #[must_use]
    pub fn walked_on(app: App, id: &str, steps: u32) -> Self {
        let world = World::new(app);
        let process = world.process();
        let run = process.start("walk", id, "r", &(steps + 1));
        process.deliver();
        for step in 0..steps {
            let task = world.mail.take_locals().remove(0);
            process.complete_local(&task, &step);
            world.clock.work();
        }
        Self::of(&world, &process, run)
    }

    fn of(world: &World, process: &Process, run: RunKey) -> Self {
        let snapshot = drive(process.ports.store.snapshot(&run)).expect("an answer").expect("a store without faults");
        Self { records: world.records(&run), row: world.row(&run).expect("a row"), snapshot, run }
    }

    /// Writes the same to another store.
    ///
    /// # Panics
    /// When that does not work.
    pub async fn copy(&self, store: &dyn Store) {
        let opening = Opening {
            run_id: self.row.run_id,
            workflow_type: self.row.workflow_type.clone(),
            started_at: self.row.started_at,
            due: self.row.due.unwrap_or(self.row.started_at),
        };
        let (first, rest) = self.records.split_first().expect("batches");
        store.open(&self.run, first.clone(), opening).await.expect("a store that works");
        for (sequence, record) in (0..).map(|before| NonZeroU64::MIN.saturating_add(before)).zip(rest) {
            store.append(&self.run, sequence, record.clone(), RowUpdate::NONE).await.expect("a store that works");
        }
        if let Some(snapshot) = &self.snapshot {
            store.keep_snapshot(&self.run, snapshot.clone()).await.expect("a store that works");
        }
    }
}
