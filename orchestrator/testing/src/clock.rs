//! A host whose time passes when the test says so, and whose work goes on when the test lets it: on one thread, without
//! a runtime.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
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
pub struct Clock {
    inner: Arc<Inner>,
    /// In milliseconds.
    wrong_by: Arc<AtomicI64>,
}

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
        let inner = Inner { time: Mutex::new(time), begun: Mutex::default(), working: Mutex::default() };
        Self { inner: Arc::new(inner), wrong_by: Arc::default() }
    }

    /// Another host's clock, right so far. The same time passes for both, and its work is done together with this one's.
    #[must_use]
    pub fn another(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), wrong_by: Arc::default() }
    }

    /// From now on it shows so many milliseconds more than what has passed; or less.
    pub fn be_wrong_by(&self, millis: i64) {
        self.wrong_by.store(millis, Ordering::SeqCst);
    }

    /// Sets the clock, forwards or backwards. No time passes.
    pub fn set(&self, to: Timestamp) {
        lock(&self.inner.time).now = to;
    }

    /// Lets time pass: the clock shows it, and whoever slept until then wakes, the earliest first, and works as far as
    /// that goes, before the next one wakes.
    pub fn pass(&self, time: Duration) {
        let until = lock(&self.inner.time).passed + time;
        loop {
            self.work();
            let mut inner = lock(&self.inner.time);
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
        let time = lock(&self.inner.time);
        time.sleepers.first_key_value().map(|((at, _), _)| at.since(Instant::after(time.passed)))
    }

    /// Whatever was spawned ends here, as when its process dies.
    pub fn end_work(&self) {
        lock(&self.inner.begun).clear();
        let ended = std::mem::take(&mut *lock(&self.inner.working));
        drop(ended);
    }

    /// Lets what was spawned go on as far as it does by itself.
    pub fn work(&self) {
        let mut working = lock(&self.inner.working);
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&woken));
        loop {
            let begun = std::mem::take(&mut *lock(&self.inner.begun));
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
        let right = lock(&self.inner.time).now;
        Timestamp::from_millis(right.as_millis().saturating_add_signed(self.wrong_by.load(Ordering::SeqCst)))
    }

    fn instant(&self) -> Instant {
        Instant::after(lock(&self.inner.time).passed)
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        Sleep { clock: self.clone(), at, place: None }.boxed()
    }

    fn spawn(&self, work: BoxFuture<'static, ()>) {
        lock(&self.inner.begun).push(work);
    }

    fn spawn_activity(&self, _: Code, work: BoxFuture<'static, ()>) {
        self.spawn(work);
    }

    fn fresh_id(&self) -> [u8; 16] {
        let mut time = lock(&self.inner.time);
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
        let mut time = lock(&clock.inner.time);
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
            lock(&self.clock.inner.time).sleepers.remove(&(self.at, place));
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
