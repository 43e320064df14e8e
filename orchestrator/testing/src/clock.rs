//! A host whose time passes when the test says so, and whose work goes on when the test lets it: on one thread, without
//! a runtime.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use dormouse_core::Timestamp;
use dormouse_engine::seams::{Code, Host, Instant};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

/// So often a driven future is looked at: as one that goes on by itself needs a few looks only.
const MANY: usize = 1_000;

/// Time that is set and passes by hand, and ids that count up. A clone is the same host.
#[derive(Clone)]
pub struct Clock(Arc<Inner>);

struct Inner {
    time: Mutex<Time>,
    /// Spawned, and not looked at yet.
    begun: Mutex<Vec<BoxFuture<'static, ()>>>,
    working: Mutex<FuturesUnordered<BoxFuture<'static, ()>>>,
}

struct Time {
    now: Timestamp,
    passed: Duration,
    ids: u128,
    /// Who sleeps until when; the number tells those of one moment apart.
    sleepers: BTreeMap<(Instant, u64), Waker>,
    sleeps: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clock {
    /// A clock that shows this time.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        let time = Time { now, passed: Duration::ZERO, ids: 0, sleepers: BTreeMap::new(), sleeps: 0 };
        Self(Arc::new(Inner { time: Mutex::new(time), begun: Mutex::default(), working: Mutex::default() }))
    }

    /// Sets the clock, forwards or backwards. No time passes.
    pub fn set(&self, to: Timestamp) {
        lock(&self.0.time).now = to;
    }

    /// Lets time pass: the clock shows it, and whoever slept until then wakes, the earliest first, and works as far as
    /// that goes, before the next one wakes.
    pub fn pass(&self, time: Duration) {
        let until = lock(&self.0.time).passed + time;
        loop {
            self.work();
            let mut inner = lock(&self.0.time);
            let next = inner.sleepers.first_key_value().map(|((at, _), _)| at.since(Instant::default()));
            let to = next.unwrap_or(until).clamp(inner.passed, until);
            let step = to - inner.passed;
            inner.passed = to;
            inner.now = inner.now + step;
            let present = Instant::after(to);
            let mut woken = Vec::new();
            while inner.sleepers.first_key_value().is_some_and(|((at, _), _)| *at <= present) {
                woken.extend(inner.sleepers.pop_first().map(|(_, waker)| waker));
            }
            drop(inner);
            if woken.is_empty() && to == until {
                return;
            }
            woken.into_iter().for_each(Waker::wake);
        }
    }

    /// When the next of those who sleep wakes: so much later. `None`: nobody sleeps.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        let time = lock(&self.0.time);
        time.sleepers.first_key_value().map(|((at, _), _)| at.since(Instant::after(time.passed)))
    }

    /// Lets what was spawned go on as far as it does by itself.
    pub fn work(&self) {
        let mut working = lock(&self.0.working);
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&woken));
        loop {
            let begun = std::mem::take(&mut *lock(&self.0.begun));
            // Whether there is news; those at work may also ask for a pause only.
            if begun.is_empty() && !woken.0.swap(false, Ordering::SeqCst) {
                return;
            }
            working.extend(begun);
            while let Poll::Ready(Some(())) = working.poll_next_unpin(&mut Context::from_waker(&waker)) {}
        }
    }
}

impl Clock {
    /// Drives a future, and what is spawned meanwhile, as far as they go by themselves. `None`: it waits for time to
    /// pass, or for something that never comes.
    pub fn drive<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        (0..MANY).find_map(|_| {
            self.work();
            match future.as_mut().poll(&mut context) {
                Poll::Ready(value) => Some(value),
                Poll::Pending => None,
            }
        })
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Host for Clock {
    fn now(&self) -> Timestamp {
        lock(&self.0.time).now
    }

    fn instant(&self) -> Instant {
        Instant::after(lock(&self.0.time).passed)
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        Sleep { clock: self.clone(), at, place: None }.boxed()
    }

    fn spawn(&self, work: BoxFuture<'static, ()>) {
        lock(&self.0.begun).push(work);
    }

    fn spawn_activity(&self, _: Code, work: BoxFuture<'static, ()>) {
        self.spawn(work);
    }

    fn fresh_id(&self) -> [u8; 16] {
        let mut time = lock(&self.0.time);
        time.ids += 1;
        time.ids.to_be_bytes()
    }

    /// Requests answer as planned, however soon they are sent again.
    fn back_off(&self, _: Duration) -> BoxFuture<'static, ()> {
        std::future::ready(()).boxed()
    }

    fn give_way(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}

/// Somebody who sleeps; his place among the sleepers, once he does.
struct Sleep {
    clock: Clock,
    at: Instant,
    place: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let clock = self.clock.clone();
        let mut time = lock(&clock.0.time);
        if self.at <= Instant::after(time.passed) {
            return Poll::Ready(());
        }
        let place = *self.place.get_or_insert_with(|| {
            time.sleeps += 1;
            time.sleeps
        });
        time.sleepers.insert((self.at, place), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            lock(&self.clock.0.time).sleepers.remove(&(self.at, place));
        }
    }
}

#[cfg(test)]
mod tests {
    use dormouse_engine::host::{Task, Unfinished};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn clock() -> (Clock, Arc<Mutex<Vec<&'static str>>>) {
        (Clock::at(Timestamp::from_millis(1_000_000)), Arc::default())
    }

    #[test]
    fn sleepers_wake_in_their_order_when_time_passes() {
        let (clock, seen) = clock();
        for (name, seconds) in [("late", 3), ("soon", 1), ("never", 9)] {
            let (host, seen) = (clock.clone(), Arc::clone(&seen));
            clock.spawn(
                async move {
                    let host: &dyn Host = &host;
                    host.sleep(SECOND * seconds).await;
                    seen.lock().unwrap().push(name);
                }
                .boxed(),
            );
        }
        clock.work();
        assert_eq!(clock.next_wake(), Some(SECOND));
        clock.set(Timestamp::from_millis(9_000_000));
        clock.work();
        assert!(seen.lock().unwrap().is_empty(), "a clock that is set lets no time pass");
        clock.pass(SECOND * 3);
        assert_eq!(*seen.lock().unwrap(), ["soon", "late"]);
        assert_eq!(clock.now(), Timestamp::from_millis(9_003_000));
        assert_eq!(clock.next_wake(), Some(SECOND * 6));
    }

    #[test]
    fn who_wakes_sees_the_time_that_he_slept_until_and_may_sleep_again() {
        let (clock, seen) = clock();
        let (host, told) = (clock.clone(), Arc::clone(&seen));
        let began = clock.instant();
        clock.spawn(
            async move {
                let host: &dyn Host = &host;
                for name in ["one", "two", "three"] {
                    host.sleep(SECOND).await;
                    told.lock().unwrap().push(name);
                }
                assert_eq!(host.instant().since(began), SECOND * 3);
                told.lock().unwrap().push("in time");
            }
            .boxed(),
        );
        clock.pass(SECOND * 10);
        assert_eq!(*seen.lock().unwrap(), ["one", "two", "three", "in time"]);
    }

    #[test]
    fn a_time_limit_drops_what_takes_too_long() {
        let (clock, seen) = clock();
        let (host, told) = (clock.clone(), Arc::clone(&seen));
        clock.spawn(
            async move {
                let host: &dyn Host = &host;
                assert_eq!(host.timeout(SECOND, std::future::ready(1)).await, Some(1));
                assert_eq!(host.timeout(SECOND, host.sleep(SECOND * 2)).await, None);
                told.lock().unwrap().push("both");
            }
            .boxed(),
        );
        clock.pass(SECOND);
        assert_eq!(*seen.lock().unwrap(), ["both"]);
        assert_eq!(clock.next_wake(), None, "nobody sleeps on");
    }

    #[test]
    fn work_is_told_of_and_ends_with_whoever_wants_to_know() {
        let (clock, seen) = clock();
        let mut done = Task::spawn(&clock, std::future::ready(5));
        let mut panicked = Task::<()>::spawn(&clock, async { panic!("planned") });
        let mut stopped = Task::<()>::spawn(&clock, std::future::pending());
        let told = Arc::clone(&seen);
        let dropped = Task::spawn(&clock, async move {
            futures::pending!();
            told.lock().unwrap().push("too late");
        });
        stopped.stop();
        clock.work();
        drop(dropped);
        clock.pass(SECOND);
        assert!(matches!((&mut done).now_or_never(), Some(Ok(5))));
        assert!(matches!((&mut panicked).now_or_never(), Some(Err(Unfinished::Panicked(_)))));
        assert!(matches!((&mut stopped).now_or_never(), Some(Err(Unfinished::Stopped))));
        assert!(seen.lock().unwrap().is_empty());
    }
}
