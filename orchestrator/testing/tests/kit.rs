//! The users' test kit: what it finds, and what it says of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dormouse_core::{Activity, ActivityOptions, App, Failure, Query, RemoteActivity, RetryPolicy, Signal, Workflow};
use dormouse_testing::kit::{CrashReport, Mishap, TestEnv, crash_everywhere};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_hours(24);
const LIMITS: ActivityOptions = ActivityOptions::start_to_close(Duration::from_mins(1));
const GO: Signal<u32> = Signal::new("go");
const SUM: Query<u32> = Query::new("sum");

/// Payments, by what names them.
type Bank = Arc<Mutex<Vec<String>>>;

async fn pay(_: Activity, _: String) -> Result<(), Failure> {
    Ok(())
}

async fn pay_once(cx: Activity, _: String) -> Result<(), Failure> {
    let mut payments = cx.get::<Bank>().lock().unwrap();
    if !payments.contains(&cx.idempotency_key()) {
        payments.push(cx.idempotency_key());
    }
    Ok(())
}

async fn pay_each_time(cx: Activity, name: String) -> Result<(), Failure> {
    cx.get::<Bank>().lock().unwrap().push(name);
    Ok(())
}

mod mistakes {
    use super::*;

    pub async fn none(cx: Workflow, _: ()) -> Result<u32, Failure> {
        cx.activity(pay_once, &"a".into()).options(LIMITS).await?;
        cx.sleep(DAY).await?;
        cx.activity(pay_once, &"b".into()).options(LIMITS).await?;
        Ok(2)
    }

    pub async fn no_idempotency_key(cx: Workflow, _: ()) -> Result<(), Failure> {
        cx.activity(pay_each_time, &"a".into()).options(LIMITS).await
    }

    #[expect(clippy::disallowed_methods, reason = "the mistake")]
    pub async fn a_clock(cx: Workflow, _: ()) -> Result<(), Failure> {
        cx.activity(pay, &format!("{:?}", std::time::SystemTime::now())).options(LIMITS).await
    }

    pub async fn an_unordered_map(cx: Workflow, _: ()) -> Result<(), Failure> {
        let names: HashMap<u32, String> = (0..20).map(|n| (n, n.to_string())).collect();
        for name in names.values() {
            cx.activity(pay, name).options(LIMITS).await?;
        }
        Ok(())
    }

    /// Nothing has recorded that the payment is on its way.
    pub async fn a_step_before_its_record(cx: Workflow, bank: usize) -> Result<(), Failure> {
        BANKS.lock().unwrap()[&bank].lock().unwrap().push("paid".into());
        cx.activity(pay, &"a".into()).options(LIMITS).await
    }

    pub async fn a_swallowed_cancel(cx: Workflow, _: ()) -> Result<u32, Failure> {
        let mut paid = 0;
        for name in ["a", "b", "c"] {
            // Whatever came of it.
            let _ = cx.activity(pay_once, &name.into()).options(LIMITS).await;
            let _ = cx.sleep(DAY).await;
            paid += 1;
        }
        Ok(paid)
    }
}

/// What workflow code should not be able to reach.
static BANKS: Mutex<BTreeMap<usize, Bank>> = Mutex::new(BTreeMap::new());

fn app() -> App {
    App::new()
        .workflow("none", mistakes::none)
        .workflow("noIdempotencyKey", mistakes::no_idempotency_key)
        .workflow("aClock", mistakes::a_clock)
        .workflow("anUnorderedMap", mistakes::an_unordered_map)
        .workflow("aStepBeforeItsRecord", mistakes::a_step_before_its_record)
        .workflow("aSwallowedCancel", mistakes::a_swallowed_cancel)
        .activity("pay", pay)
        .activity("payOnce", pay_once)
        .activity("payEachTime", pay_each_time)
}

fn world() -> (TestEnv, Bank) {
    let bank = Bank::default();
    (TestEnv::new(app().provide(Arc::clone(&bank))).real(), bank)
}

fn payments(bank: &Bank) -> usize {
    bank.lock().unwrap().len()
}

/// The report names this file, and all harm is of this kind.
fn found(report: &CrashReport, says: &str, by: impl Fn(Mishap) -> bool) {
    assert!(!report.harm.is_empty(), "{says} is not found among {} mishaps", report.mishaps);
    for harm in &report.harm {
        assert!(by(harm.mishap) && harm.seen.contains(says), "{harm}");
    }
    assert!(report.harm.iter().any(|harm| harm.line.as_ref().is_some_and(|line| line.contains("kit.rs:"))), "{report}");
}

fn crash(mishap: Mishap) -> bool {
    !matches!(mishap, Mishap::Cancel(_))
}

#[test]
fn what_is_written_well_bears_every_mishap() {
    let report = crash_everywhere(world, mistakes::none, &(), payments);
    report.assert_harmless();
    assert!(report.mishaps > 20, "{}", report.mishaps);
}

#[test]
fn mistakes_are_found_with_their_lines() {
    let report = crash_everywhere(world, mistakes::no_idempotency_key, &(), payments);
    found(&report, "2", crash);
    let report = crash_everywhere(world, mistakes::a_clock, &(), payments);
    found(&report, "pay", crash);
    let report = crash_everywhere(world, mistakes::an_unordered_map, &(), payments);
    found(&report, "pay", crash);
    let report = crash_everywhere(world, mistakes::a_swallowed_cancel, &(), payments);
    found(&report, "3, and ", |mishap| !crash(mishap));
}

#[test]
fn what_workflow_code_does_by_itself_is_found_done_twice() {
    let with_bank = || {
        let (test, bank) = world();
        BANKS.lock().unwrap().insert(1, Arc::clone(&bank));
        (test, bank)
    };
    let report = crash_everywhere(with_bank, mistakes::a_step_before_its_record, &1, payments);
    found(&report, "null, and ", crash);
}

async fn adding(cx: Workflow, until: u32) -> Result<u32, Failure> {
    let sum = std::rc::Rc::new(std::cell::Cell::new(0));
    let told = std::rc::Rc::clone(&sum);
    cx.answer(SUM, move |()| told.get());
    while sum.get() < until {
        sum.set(sum.get() + cx.signal(GO).await?);
    }
    Ok(sum.get())
}

async fn chained(cx: Workflow, links: u32) -> Result<String, Failure> {
    cx.sleep(DAY).await?;
    match links {
        0 => Ok("done".into()),
        _ => cx.continue_as_new(chained, &(links - 1)),
    }
}

/// Each run begins the next at once.
async fn restless(cx: Workflow, _: ()) -> Result<(), Failure> {
    cx.continue_as_new(restless, &())
}

const RESIZE: RemoteActivity<u32, u32> = RemoteActivity::new("resize");

async fn gallery(cx: Workflow, width: u32) -> Result<u32, Failure> {
    let once = LIMITS.retry(RetryPolicy::max_attempts(1));
    cx.activity(RESIZE, &width).options(once.task_queue("python")).await
}

async fn slow(cx: Workflow, _: ()) -> Result<String, Failure> {
    let slow = cx.activity(pay, &"slowly".into()).options(LIMITS.retry(RetryPolicy::max_attempts(2)));
    Ok(match slow.await {
        Ok(()) => "paid".into(),
        Err(failure) => failure.to_string(),
    })
}

fn others() -> App {
    App::new()
        .workflow("adding", adding)
        .workflow("chained", chained)
        .workflow("restless", restless)
        .workflow("gallery", gallery)
        .workflow("slow", slow)
        .activity("pay", pay)
        .task_queue("python")
}

#[test]
fn a_run_is_signaled_and_asked_at_any_moment() {
    let test = TestEnv::new(others());
    let run = test.start(adding, &5);
    run.signal(GO, &2);
    assert_eq!(run.query(SUM), 2);
    let later = run.clone();
    test.after(3 * DAY, move || later.signal(GO, &4));
    assert_eq!(run.result(), Ok(6));
    assert_eq!(test.now(), 3 * DAY);
    assert!(run.history().iter().any(|event| event.event_type == "SignalReceived"));
}

#[test]
fn a_run_is_followed_through_all_that_it_continues_as() {
    let test = TestEnv::new(others());
    let run = test.start(chained, &3);
    assert_eq!(run.result().unwrap(), "done");
    assert_eq!(test.now(), 4 * DAY);
}

#[test]
fn activities_of_other_programs_are_mocked_by_their_names() {
    let test = TestEnv::new(others()).mock(RESIZE, |width| Ok(width / 2)).takes(RESIZE, 5 * SECOND);
    assert_eq!(test.start(gallery, &8).result(), Ok(4));
    assert_eq!(test.now(), 5 * SECOND);
}

#[test]
fn limits_pass_in_virtual_time() {
    let test = TestEnv::new(others()).mock(pay, |_| Ok(())).takes(pay, 2 * Duration::from_mins(1));
    let result = test.start(slow, &()).result().unwrap();
    assert_ne!(result, "paid");
    let began: Vec<_> = test.calls(pay).iter().map(|call| call.at.as_secs()).collect();
    assert_eq!(began, [0, 61], "a limit of a minute, and a second before the next attempt");
}

#[test]
#[should_panic(expected = "activity \"pay\", which is no part of this test")]
fn what_is_not_mocked_is_refused_by_name() {
    drop(TestEnv::new(others()).start(slow, &()).result());
}

#[test]
#[should_panic(expected = "more often than the test has answers (1)")]
fn answers_may_be_used_up() {
    let test = TestEnv::new(others()).mock_each(pay, [Err(Failure::application("no"))]);
    drop(test.start(slow, &()).result());
}

#[test]
#[should_panic(expected = "waits for what no time brings: a signal")]
fn a_run_that_waits_for_ever_is_said_to() {
    drop(TestEnv::new(others()).start(adding, &1).result());
}

#[test]
#[should_panic(expected = "does not come to rest")]
fn a_run_that_never_waits_ends_its_test() {
    drop(TestEnv::new(others()).start(restless, &()));
}
