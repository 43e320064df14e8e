//! Where activities' code runs: on threads of its own. Whatever it does there, the engine goes on: API, timers, workflows,
//! leases, the end of the process. What attends to the activities (claims, time limits, heartbeats) runs beside them, since
//! the way between threads costs as much as a short activity.
//!
//! An `async fn` ought to give its thread back soon, at an await. One that blocks or computes instead would hold up the
//! activities that share its thread. So it has to earn that: until so many of a type's polls were quick, each is made on a
//! thread that does nothing else meanwhile (tokio's [`block_in_place`]), which costs a little more. Once one was not, they
//! all are. A [blocking activity](dormouse_core::App::blocking_activity) never earns it.

#![expect(clippy::disallowed_methods, reason = "a part of the machine, where the engine spawns and sleeps")]

use std::cell::OnceCell;
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::block_in_place;

use crate::seams::Code;

/// Threads at least, for activities that give them back; as many as processors where those are more.
const FEWEST_THREADS: usize = 4;

/// Threads at most, for activities that hold them. Threads are made when they are needed. An activity beyond waits.
const MOST_THREADS: usize = 2048;

/// A poll that takes no longer is quick.
const QUICK: Duration = Duration::from_millis(50);

/// After so many quick polls, a type's polls need no thread of their own; unless one is not quick, ever.
const TRIALS: u32 = 10;

/// Trust is lost for good.
const HELD_ONCE: u32 = u32::MAX;

/// Whoever holds a thread for so long is told.
const HELD: Duration = Duration::from_secs(1);

/// How often threads are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Of each type, so often at most.
const WARN_AGAIN: Duration = Duration::from_mins(1);

/// The threads. They begin with the first activity; dropped, they end when what runs on them allows it, and nobody waits.
#[derive(Default)]
pub(crate) struct ActivityThreads(Arc<Shared>);

#[derive(Default)]
struct Shared {
    runtime: Mutex<Option<Runtime>>,
    conducts: Mutex<HashMap<String, Arc<Conduct>>>,
    threads: Mutex<Vec<Weak<Thread>>>,
}

/// How a type of activity behaves.
struct Conduct {
    activity_type: String,
    blocking: bool,
    /// Quick polls; `HELD_ONCE` once one was not.
    quick: AtomicU32,
    /// When it was last told that it holds its thread, in milliseconds of the process, and one; 0: never.
    told: AtomicU64,
}

/// What a thread is held by, and since when, in milliseconds of the process.
#[derive(Default)]
struct Thread(Mutex<Option<(Arc<Conduct>, u64)>>);

thread_local! {
    static HERE: OnceCell<Arc<Thread>> = const { OnceCell::new() };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ActivityThreads {
    /// Lets code go on by itself until it ends. `now` tells the milliseconds of the process, `engine` runs what watches.
    pub(crate) fn spawn(&self, engine: &Handle, now: fn() -> u64, code: Code, work: BoxFuture<'static, ()>) {
        let polled = Polled { work, conduct: self.0.conduct(code), shared: Arc::downgrade(&self.0), now };
        self.on_threads(engine, now, |threads| drop(threads.spawn(polled)));
    }

    /// Lets the engine's work go on beside the code that it attends to. Only code that is trusted, and then holds as many
    /// threads as there are, holds it up: once, for it is not trusted again.
    pub(crate) fn attend(&self, engine: &Handle, now: fn() -> u64, work: BoxFuture<'static, ()>) {
        self.on_threads(engine, now, |threads| drop(threads.spawn(work)));
    }

    fn on_threads(&self, engine: &Handle, now: fn() -> u64, begin: impl FnOnce(&Runtime)) {
        let mut runtime = lock(&self.0.runtime);
        let runtime = match &mut *runtime {
            Some(runtime) => runtime,
            none => match threads() {
                Ok(threads) => {
                    engine.spawn(watch(Arc::downgrade(&self.0), now));
                    none.insert(threads)
                }
                Err(error) => {
                    tracing::error!(%error, "no threads for activities are to be had; this one counts as stopped");
                    return;
                }
            },
        };
        begin(runtime);
    }
}

impl Shared {
    fn conduct(&self, code: Code) -> Arc<Conduct> {
        let mut conducts = lock(&self.conducts);
        if let Some(conduct) = conducts.get(&code.activity_type) {
            return Arc::clone(conduct);
        }
        let Code { activity_type, blocking } = code;
        let conduct = Conduct {
            activity_type: activity_type.clone(),
            blocking,
            quick: AtomicU32::new(0),
            told: AtomicU64::new(0),
        };
        Arc::clone(conducts.entry(activity_type).or_insert(Arc::new(conduct)))
    }

    /// The thread that this is called on.
    fn here(&self) -> Arc<Thread> {
        let begin = || {
            let thread = Arc::<Thread>::default();
            lock(&self.threads).push(Arc::downgrade(&thread));
            thread
        };
        HERE.with(|here| Arc::clone(here.get_or_init(begin)))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(runtime) = lock(&self.runtime).take() {
            runtime.shutdown_background();
        }
    }
}

fn threads() -> io::Result<Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Builder::new_multi_thread()
        .thread_name("activities")
        .worker_threads(FEWEST_THREADS.max(processors))
        .max_blocking_threads(MOST_THREADS)
        .enable_all()
        .build()
}

/// An activity's code, each poll of it timed.
struct Polled {
    work: BoxFuture<'static, ()>,
    conduct: Arc<Conduct>,
    shared: Weak<Shared>,
    now: fn() -> u64,
}

impl Future for Polled {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { work, conduct, shared, now } = &mut *self;
        // The engine is gone: so is whoever waits for this.
        let Some(thread) = shared.upgrade().map(|shared| shared.here()) else { return Poll::Ready(()) };
        let began = now();
        *lock(&thread.0) = Some((Arc::clone(conduct), began));
        let trusted = conduct.is_trusted();
        let polled = if trusted { work.poll_unpin(context) } else { poll_alone(work, context) };
        *lock(&thread.0) = None;
        conduct.learn(trusted, Duration::from_millis(now() - began));
        polled
    }
}

/// Polls where the thread may be held for as long as it takes: others go on on another one. The code finds what it finds
/// elsewhere: that it must not wait for another future here, as `Handle::block_on` would.
fn poll_alone(work: &mut BoxFuture<'static, ()>, context: &mut Context<'_>) -> Poll<()> {
    block_in_place(|| Handle::current().block_on(std::future::poll_fn(|_| Poll::Ready(work.poll_unpin(context)))))
}

/// Names activities that hold their threads, for as long as there are any threads.
async fn watch(shared: Weak<Shared>, now: fn() -> u64) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(shared) = shared.upgrade() else { return };
        lock(&shared.threads).retain(|thread| thread.upgrade().inspect(|thread| thread.look(now())).is_some());
    }
}

impl Thread {
    fn look(&self, now: u64) {
        if let Some((conduct, since)) = &*lock(&self.0) {
            conduct.judge(Duration::from_millis(now.saturating_sub(*since)), now);
        }
    }
}

impl Conduct {
    fn is_trusted(&self) -> bool {
        !self.blocking && (TRIALS..HELD_ONCE).contains(&self.quick.load(Ordering::Relaxed))
    }

    fn learn(&self, trusted: bool, held: Duration) {
        if held > QUICK {
            self.quick.store(HELD_ONCE, Ordering::Relaxed);
        } else if !trusted {
            // Those of several threads at once may take it a little further.
            let more = |quick| (quick < TRIALS).then_some(quick + 1);
            let _ = self.quick.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        }
    }

    /// It has held a thread for so long.
    fn judge(&self, held: Duration, now: u64) {
        let told = self.told.load(Ordering::Relaxed);
        let lately = told > 0 && Duration::from_millis(now.saturating_sub(told - 1)) < WARN_AGAIN;
        if self.blocking || held < HELD || lately {
            return;
        }
        self.told.store(now + 1, Ordering::Relaxed);
        tracing::warn!(
            activity_type = %self.activity_type,
            ?held,
            "an activity holds its thread without an await: its time limits are kept, but its code cannot be ended. Put \
             what blocks into tokio::task::spawn_blocking, or make it an ordinary fn and register it with \
             `.blocking_activity(...)`"
        );
    }
}
