//! A Rust future as a program: the first kind of workflow code.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Wake, Waker};

use futures::future::LocalBoxFuture;

use crate::failure::Failure;
use crate::payload::Payload;
use crate::program::{Program, Raw, Turned};

/// A workflow's future, polled until it is still.
pub(crate) struct FutureProgram {
    future: LocalBoxFuture<'static, Result<Payload, Failure>>,
    raw: Raw,
    bell: Arc<Bell>,
}

/// Rings when something within the workflow's future wants to be polled again in the same turn.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// How often a turn polls the future while it keeps waking itself.
const MAX_POLLS: u32 = 10_000;

impl FutureProgram {
    pub(crate) fn new(future: LocalBoxFuture<'static, Result<Payload, Failure>>, raw: Raw) -> Self {
        Self { future, raw, bell: Arc::default() }
    }
}

impl Program for FutureProgram {
    /// Events wake nobody by themselves (every turn polls), but parts of the future may wake each other, and what one
    /// part did may make a condition true that another looked at before.
    fn turn(&mut self) -> Turned {
        let mut still = false;
        let waker = Waker::from(Arc::clone(&self.bell));
        for _ in 0..MAX_POLLS {
            self.bell.0.store(false, Relaxed);
            if let Poll::Ready(result) = self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Turned::Ended(result);
            }
            let woken = self.bell.0.load(Relaxed);
            let mut machine = self.raw.machine().borrow_mut();
            if machine.script.has_diverged() {
                return Turned::Waits;
            }
            let stirred = std::mem::take(&mut machine.progress) || woken;
            // Once more after the last stir, for what a condition did not see.
            let look = stirred || !still;
            still = !stirred;
            if !(woken || (look && machine.wake_conditions())) {
                return if machine.waiting() == 0 { Turned::Stuck } else { Turned::Waits };
            }
        }
        Turned::Stuck
    }
}
