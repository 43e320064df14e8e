//! The machine: where time, randomness, sleep and spawned work enter the engine. And [`Task`]: work that a host does,
//! seen by whoever wants to know what came of it.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use dormouse_core::{Panic, Timestamp, catch_async};
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{AbortHandle, BoxFuture, abortable};
use tokio::runtime::Handle;

use crate::activity_threads::ActivityThreads;
use crate::seams::{Code, Host, Instant};

/// The machine's clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place where the clock enters the engine")]
pub fn wall_clock() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Random numbers from the operating system.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place where randomness enters the engine")]
pub fn random_id() -> [u8; 16] {
    uuid::Uuid::new_v4().into_bytes()
}

/// The machine's first moment, as far as this process goes: moments of all [`Machine`]s are comparable.
#[expect(clippy::disallowed_methods, reason = "the one place where monotonic time enters the engine")]
static BEGAN: LazyLock<tokio::time::Instant> = LazyLock::new(tokio::time::Instant::now);

/// In milliseconds.
fn since_it_began() -> u64 {
    BEGAN.elapsed().as_millis() as u64
}

/// The machine, with a tokio runtime: sleeps and works there, wherever it is called.
#[derive(Clone)]
pub struct Machine {
    runtime: Handle,
    activities: Arc<ActivityThreads>,
    pause: Option<Duration>,
}

impl Machine {
    /// The machine, with this runtime.
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        LazyLock::force(&BEGAN);
        Self { runtime, activities: Arc::default(), pause: None }
    }

    /// The machine, with the runtime that this is called in.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn here() -> Self {
        Self::new(Handle::current())
    }

    /// The same, where other processes write the same runs: whoever lost a write to them lets them go first for up to
    /// this time, and for half of it at least, so that those who lost together do not come back together.
    #[must_use]
    pub fn giving_way(self, pause: Duration) -> Self {
        Self { pause: Some(pause), ..self }
    }
}

impl Host for Machine {
    fn now(&self) -> Timestamp {
        wall_clock()
    }

    #[expect(clippy::disallowed_methods, reason = "the one place where monotonic time enters the engine")]
    fn instant(&self) -> Instant {
        Instant::after(tokio::time::Instant::now().saturating_duration_since(*BEGAN))
    }

    #[expect(clippy::disallowed_methods, reason = "the one place where the engine sleeps")]
    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        let far = Duration::from_hours(24 * 365 * 30);
        let at = *BEGAN + at.since(Instant::default()).min(far);
        if Handle::try_current().is_ok() {
            return tokio::time::sleep_until(at).boxed();
        }
        // Outside, a timer would panic when the runtime ends; a task is dropped then, and whoever waits waits on.
        let slept = self.runtime.spawn(async move { tokio::time::sleep_until(at).await });
        async move {
            if slept.await.is_err() {
                std::future::pending().await
            }
        }
        .boxed()
    }

    #[expect(clippy::disallowed_methods, reason = "the one place where the engine spawns")]
    fn spawn(&self, work: BoxFuture<'static, ()>) {
        self.runtime.spawn(work);
    }

    fn spawn_activity(&self, code: Code, work: BoxFuture<'static, ()>) {
        self.activities.spawn(&self.runtime, since_it_began, code, work);
    }

    fn attend(&self, work: BoxFuture<'static, ()>) {
        self.activities.attend(&self.runtime, since_it_began, work);
    }

    fn fresh_id(&self) -> [u8; 16] {
        random_id()
    }

    fn back_off(&self, pause: Duration) -> BoxFuture<'static, ()> {
        self.sleep_until(self.instant() + pause)
    }

    fn give_way(&self) -> BoxFuture<'_, ()> {
        let Some(pause) = self.pause else { return std::future::ready(()).boxed() };
        let share = 0.5 + f64::from(self.fresh_id()[0]) / 512.0;
        let host: &dyn Host = self;
        host.sleep(pause.mul_f64(share))
    }
}

/// Why work that a host did came to nothing.
#[derive(Debug)]
pub enum Unfinished {
    /// It panicked, with this.
    Panicked(Panic),
    /// It was stopped, or the host was.
    Stopped,
}

/// Work that a host does. A future of what comes of it; dropped, the work ends at its next await.
#[derive(Debug)]
pub struct Task<T> {
    outcome: oneshot::Receiver<Result<T, Panic>>,
    ends: AbortHandle,
}

impl<T: Send + 'static> Task<T> {
    /// Lets the host do this.
    pub fn spawn(host: &dyn Host, work: impl Future<Output = T> + Send + 'static) -> Self {
        Self::begin(work, |work| host.spawn(work))
    }

    /// Lets the host run an activity's code.
    pub fn spawn_activity(host: &dyn Host, code: Code, work: impl Future<Output = T> + Send + 'static) -> Self {
        Self::begin(work, |work| host.spawn_activity(code, work))
    }

    fn begin(work: impl Future<Output = T> + Send + 'static, spawn: impl FnOnce(BoxFuture<'static, ()>)) -> Self {
        let (tell, outcome) = oneshot::channel();
        // What a panic leaves behind is the work's own, and dropped.
        let work = async move {
            // Nobody may want to know any more.
            drop(tell.send(catch_async(work).await));
        };
        let (work, ends) = abortable(work);
        spawn(work.map(drop).boxed());
        Self { outcome, ends }
    }

    /// Ends the work at its next await.
    pub fn stop(&self) {
        self.ends.abort();
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, Unfinished>;

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        self.outcome.poll_unpin(context).map(|outcome| match outcome {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(panic)) => Err(Unfinished::Panicked(panic)),
            Err(oneshot::Canceled) => Err(Unfinished::Stopped),
        })
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.ends.abort();
    }
}
