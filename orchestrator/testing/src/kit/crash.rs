//! A crash before and after each request that a workflow brings about.

use std::fmt;

use dormouse_core::{Failure, Payload, WorkflowFunction};

use super::env::TestEnv;
use crate::faulty::Fault;

/// So many crashes are planned at most: a workflow with more requests is too long for this.
const MOST_CRASHES: u64 = 10_000;

/// A crash that did harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crashed {
    /// At which of the requests to the store, from 1.
    pub request: u64,
    /// Whether that was carried out.
    pub after: bool,
    /// The last line of the workflow's code whose command was recorded before the crash.
    pub line: Option<String>,
    /// What was seen, where there was no crash.
    pub expected: String,
    /// What was seen with it.
    pub seen: String,
}

impl fmt::Display for Crashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { request, after, line, expected, seen } = self;
        let when = if *after { "after" } else { "before" };
        let line = line.as_deref().unwrap_or("the beginning of the workflow");
        write!(
            f,
            "a crash {when} request {request}, behind {line}:\n    without it: {expected}\n    with it:    {seen}"
        )
    }
}

/// What crashes did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CrashReport {
    /// How many crashes there were.
    pub crashes: u64,
    /// Those that did harm.
    pub harm: Vec<Crashed>,
}

impl CrashReport {
    /// # Panics
    /// When any crash did harm: the message says where and how.
    #[track_caller]
    pub fn assert_harmless(&self) {
        assert!(self.harm.is_empty(), "{self}");
    }
}

impl fmt::Display for CrashReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} of {} crashes did harm:", self.harm.len(), self.crashes)?;
        self.harm.iter().try_for_each(|crashed| writeln!(f, "- {crashed}"))
    }
}

/// Runs a workflow to its end over and over, each time with a process that dies at another of its requests, before or after
/// it was carried out, and goes on in the next process. `world` makes the test anew each time, with whatever its activities
/// work on; `look` tells what has become of that: with the workflow's result, it must be the same as without a crash.
///
/// Attempts of activities run twice where a crash comes between their work and its record: that is the promise, and what
/// they do must bear it (by [`idempotency_key`](dormouse_core::Activity::idempotency_key), say). Workflow code is replayed:
/// what it does besides commands happens twice, and clocks, random numbers and unordered maps make it diverge.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use std::time::Duration;
///
/// use dormouse_core::{Activity, App, Failure, Workflow};
/// use dormouse_testing::kit::{TestEnv, crash_everywhere};
///
/// /// A bank that knows which payments it has made.
/// type Bank = Arc<Mutex<std::collections::BTreeMap<String, u64>>>;
///
/// async fn pay(cx: Activity, cents: u64) -> Result<(), Failure> {
///     cx.get::<Bank>().lock().unwrap().insert(cx.idempotency_key(), cents);
///     Ok(())
/// }
///
/// async fn payout(cx: Workflow, cents: u64) -> Result<(), Failure> {
///     cx.activity(pay, &cents).start_to_close(Duration::from_secs(10)).await
/// }
///
/// let world = || {
///     let bank = Bank::default();
///     let app = App::new().workflow("payout", payout).activity("pay", pay).provide(Arc::clone(&bank));
///     (TestEnv::new(app).real(), bank)
/// };
/// let report = crash_everywhere(world, payout, &1800, |bank| bank.lock().unwrap().values().sum::<u64>());
/// report.assert_harmless();
/// assert!(report.crashes > 10);
/// ```
///
/// # Panics
/// When the workflow does not come to an end by itself.
pub fn crash_everywhere<W, A, F, Seen>(
    world: impl Fn() -> (TestEnv, W),
    workflow: F,
    input: &F::Input,
    look: impl Fn(&W) -> Seen,
) -> CrashReport
where
    F: WorkflowFunction<A>,
    Seen: PartialEq + fmt::Debug,
{
    let once = |death: Option<(u64, Fault)>| {
        let (test, outside) = world();
        let test = test.strict();
        if let Some((request, fault)) = death {
            test.die_at(request, fault);
        }
        let run = test.start(workflow, input);
        let ended = run.ends();
        (test, run, ended, look(&outside))
    };
    let (test, _, expected, expected_outside) = once(None);
    let expected = expected.unwrap_or_else(|why| panic!("without any crash: {why}"));
    let mut report = CrashReport::default();
    for request in 1..=test.requests().min(MOST_CRASHES) {
        for fault in [Fault::CrashBefore, Fault::CrashAfter] {
            report.crashes += 1;
            let (_, run, ended, outside) = once(Some((request, fault)));
            let (expected, seen) = match ended {
                Ok(ended) if ended == expected && outside == expected_outside => continue,
                Ok(ended) if ended == expected => (format!("{expected_outside:?}"), format!("{outside:?}")),
                Ok(ended) => (told(&expected), told(&ended)),
                Err(why) => (told(&expected), why),
            };
            let line = run.line_before_the_crash();
            report.harm.push(Crashed { request, after: fault == Fault::CrashAfter, line, expected, seen });
        }
    }
    report
}

fn told(ended: &Result<Payload, Failure>) -> String {
    match ended {
        Ok(result) => result.to_string(),
        Err(failure) => format!("it failed: {failure}"),
    }
}
