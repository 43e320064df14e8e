//! A crash before and after each request that a workflow brings about, and a cancellation at each moment.

use std::fmt;

use dormouse_core::{App, Failure, Payload, WorkflowFunction};

use super::env::TestEnv;
use crate::faulty::Fault;

/// So many mishaps of each kind at most: a workflow with more requests or moments is too long for this.
const MOST_MISHAPS: u64 = 10_000;

/// What happens to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// The process dies at its n-th request to the store, from 1, before that is carried out.
    CrashBefore(u64),
    /// The same after it was carried out.
    CrashAfter(u64),
    /// Somebody cancels the run after so many moments at which anything happened.
    Cancel(u64),
}

impl fmt::Display for Mishap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CrashBefore(request) => write!(f, "a crash before request {request}"),
            Self::CrashAfter(request) => write!(f, "a crash after request {request}"),
            Self::Cancel(moment) => write!(f, "a cancellation at moment {moment}"),
        }
    }
}

/// A mishap that did harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Harm {
    /// What happened.
    pub mishap: Mishap,
    /// The last line of the workflow's code whose command was recorded before it.
    pub line: Option<String>,
    /// What was seen without it.
    pub expected: String,
    /// What was seen with it.
    pub seen: String,
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mishap, line, expected, seen } = self;
        let line = line.as_deref().unwrap_or("the beginning of the workflow");
        write!(f, "{mishap}, behind {line}:\n    without it: {expected}\n    with it:    {seen}")
    }
}

/// What mishaps did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CrashReport {
    /// How many there were.
    pub mishaps: u64,
    /// Those that did harm.
    pub harm: Vec<Harm>,
}

impl CrashReport {
    /// # Panics
    /// When any did harm: the message says where and how.
    #[track_caller]
    pub fn assert_harmless(&self) {
        assert!(self.harm.is_empty(), "{self}");
    }
}

impl fmt::Display for CrashReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} of {} mishaps did harm:", self.harm.len(), self.mishaps)?;
        self.harm.iter().try_for_each(|harm| writeln!(f, "- {harm}"))
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
/// It is canceled at each moment, too. Whatever comes of that is right, but for one thing: a run that claims to have come to
/// the same result, while what it has done is not the same, has swallowed the cancellation.
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
/// assert!(report.mishaps > 10);
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
    let once = |mishap: Option<Mishap>| {
        let (test, outside) = world();
        // Code must ask for the very arguments that are recorded.
        test.stage().change_app(App::strict);
        match mishap {
            Some(Mishap::CrashBefore(request)) => test.stage().die_at(request, Fault::CrashBefore),
            Some(Mishap::CrashAfter(request)) => test.stage().die_at(request, Fault::CrashAfter),
            Some(Mishap::Cancel(_)) | None => {}
        }
        let run = test.start(workflow, input);
        if let Some(Mishap::Cancel(moment)) = mishap {
            run.cancel_at(moment);
        }
        let ended = run.ends();
        (test, run, ended, look(&outside))
    };
    let (test, _, expected, expected_outside) = once(None);
    let expected = expected.unwrap_or_else(|why| panic!("without any mishap: {why}"));
    let requests = 1..=test.stage().requests().min(MOST_MISHAPS);
    let crashes = requests.flat_map(|request| [Mishap::CrashBefore(request), Mishap::CrashAfter(request)]);
    let cancellations = (0..=test.stage().moments().min(MOST_MISHAPS)).map(Mishap::Cancel);
    let mut report = CrashReport::default();
    for mishap in crashes.chain(cancellations) {
        report.mishaps += 1;
        let (_, run, ended, outside) = once(Some(mishap));
        let same = ended.as_ref() == Ok(&expected);
        let seen = match ended {
            Ok(_) if same && outside == expected_outside => continue,
            Ok(_) if same => format!("{}, and {outside:?}", told(&expected)),
            // Whatever comes of it is right.
            Ok(_) if matches!(mishap, Mishap::Cancel(_)) => continue,
            Ok(ended) => told(&ended),
            Err(why) => why,
        };
        let expected = if same { format!("{}, and {expected_outside:?}", told(&expected)) } else { told(&expected) };
        report.harm.push(Harm { mishap, line: run.line_before_the_mishap(), expected, seen });
    }
    report
}

fn told(ended: &Result<Payload, Failure>) -> String {
    match ended {
        Ok(result) => result.to_string(),
        Err(failure) => format!("it failed: {failure}"),
    }
}
