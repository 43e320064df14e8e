//! The workflows that the rules are shown on: small, each with one thing to go wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use dormouse::{
    Activity, ActivityOptions, App, Failure, LocalActivityOptions, RetryPolicy, Signal, Timestamp, Workflow, select,
};

pub const WORD: Signal<String> = Signal::new("word");

/// Ten seconds an attempt, five attempts, one second between the first two.
pub const PATIENT: ActivityOptions =
    ActivityOptions::start_to_close(Duration::from_secs(10)).retry(RetryPolicy::max_attempts(5));
/// Ten seconds, once.
pub const ONCE: ActivityOptions =
    ActivityOptions::start_to_close(Duration::from_secs(10)).retry(RetryPolicy::max_attempts(1));

/// Counts how often activities really ran.
#[derive(Clone, Default)]
pub struct Ran(Arc<AtomicU32>);

impl Ran {
    pub fn times(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

pub fn app() -> App {
    app_that_counts(Ran::default())
}

pub fn app_that_counts(ran: Ran) -> App {
    App::new()
        .workflow("local", local)
        .workflow("queued", queued)
        .workflow("words", words)
        .workflow("word, then activity", word_then_activity)
        .workflow("local, then words", local_then_words)
        .workflow("local beside words", local_beside_words)
        .workflow("in time", in_time)
        .workflow("chain", chain)
        .workflow("nap", nap)
        .workflow("word, then nap", word_then_nap)
        .workflow("times", times)
        .workflow("changed", changed)
        .workflow("once", once)
        .workflow("brittle", brittle)
        .workflow("failing", failing)
        .workflow("failing, or a word", failing_or_a_word)
        .workflow("fan out", fan_out)
        .workflow("fragile", fragile)
        .activity("count", count)
        .activity("fail", fail)
        .activity("late", late)
        .provide(ran)
}

/// Local steps, one after the other; the sum of what they gave.
pub async fn local(cx: Workflow, steps: u32) -> Result<u32, Failure> {
    let mut sum = 0;
    for step in 0..steps {
        sum += cx.local_activity(count, &step).await?;
    }
    Ok(sum)
}

/// Queued steps, one after the other; the sum of what they gave.
pub async fn queued(cx: Workflow, steps: u32) -> Result<u32, Failure> {
    let mut sum = 0;
    for step in 0..steps {
        sum += cx.activity(count, &step).options(PATIENT).await?;
    }
    Ok(sum)
}

/// So many words, as they came.
pub async fn words(cx: Workflow, words: usize) -> Result<Vec<String>, Failure> {
    let mut heard = Vec::new();
    while heard.len() < words {
        heard.push(cx.signal(WORD).await?);
    }
    // Words that came together are heard together.
    let mut more = cx.signals(WORD);
    while let Some(word) = more.try_next() {
        heard.push(word);
    }
    Ok(heard)
}

/// Which way it goes after each word; the first patch is asked for again and again, the second deprecated.
pub async fn changed(cx: Workflow, words: usize) -> Result<Vec<bool>, Failure> {
    let mut ways = Vec::new();
    while ways.len() < words {
        cx.signal(WORD).await?;
        ways.push(cx.patched("one"));
        cx.deprecate_patch("other");
    }
    Ok(ways)
}

/// After each word, an activity.
pub async fn word_then_activity(cx: Workflow, words: usize) -> Result<(), Failure> {
    for _ in 0..words {
        cx.signal(WORD).await?;
        cx.activity(count, &0).options(PATIENT).await?;
    }
    Ok(())
}

/// A local step, then words: what the step gave, and the words.
pub async fn local_then_words(cx: Workflow, words_wanted: usize) -> Result<(u32, Vec<String>), Failure> {
    let options = LocalActivityOptions::default().retry(RetryPolicy::DEFAULT);
    let step = cx.local_activity(count, &0).options(options).await?;
    Ok((step, words(cx, words_wanted).await?))
}

/// Words, while a local step is under way.
pub async fn local_beside_words(cx: Workflow, words_wanted: usize) -> Result<(u32, Vec<String>), Failure> {
    let step = cx.local_activity(count, &0).start();
    let heard = words(cx, words_wanted).await?;
    Ok((step.await?, heard))
}

/// An activity that must end in time, or another takes its place.
pub async fn in_time(cx: Workflow, _: ()) -> Result<String, Failure> {
    match cx.timeout(Duration::from_secs(30), cx.activity(count, &0).options(PATIENT)).await? {
        Some(_) => {
            cx.sleep(Duration::from_hours(1)).await?;
            Ok("in time".into())
        }
        None => {
            cx.activity(late, &()).options(PATIENT).await?;
            Ok("late".into())
        }
    }
}

/// Continues as new at each word, so many times, and completes at the last with all that is left to hear.
pub async fn chain(cx: Workflow, links: u32) -> Result<Vec<String>, Failure> {
    let first = cx.signal(WORD).await?;
    if links > 0 {
        return cx.continue_as_new(chain, &(links - 1));
    }
    let mut heard = vec![first];
    let mut more = cx.signals(WORD);
    while let Some(word) = more.try_next() {
        heard.push(word);
    }
    Ok(heard)
}

/// Sleeps so many seconds.
pub async fn nap(cx: Workflow, seconds: u64) -> Result<(), Failure> {
    Ok(cx.sleep(Duration::from_secs(seconds)).await?)
}

/// After a word, sleeps so many seconds.
pub async fn word_then_nap(cx: Workflow, seconds: u64) -> Result<(), Failure> {
    cx.signal(WORD).await?;
    nap(cx, seconds).await
}

/// When each word came.
pub async fn times(cx: Workflow, words: usize) -> Result<Vec<Timestamp>, Failure> {
    let mut times = vec![cx.now()];
    for _ in 0..words {
        cx.signal(WORD).await?;
        times.push(cx.now());
    }
    Ok(times)
}

/// An activity that is tried once.
pub async fn once(cx: Workflow, _: ()) -> Result<u32, Failure> {
    cx.activity(count, &0).options(ONCE).await
}

/// Whether the code of [`brittle`] is broken just now, as by a bad deploy. One test uses it.
pub static BROKEN: AtomicBool = AtomicBool::new(false);

/// After a word, an activity.
pub async fn brittle(cx: Workflow, _: ()) -> Result<(u32, Vec<String>), Failure> {
    let step = cx.activity(count, &0).options(PATIENT).start();
    let mut heard = vec![cx.signal(WORD).await?];
    assert!(!BROKEN.load(Ordering::SeqCst), "broken");
    let step = step.await?;
    let mut more = cx.signals(WORD);
    while let Some(word) = more.try_next() {
        heard.push(word);
    }
    Ok((step, heard))
}

/// An activity that always fails.
pub async fn failing(cx: Workflow, _: ()) -> Result<u32, Failure> {
    cx.activity(fail, &0).options(PATIENT).await
}

/// The same, until a word is heard.
pub async fn failing_or_a_word(cx: Workflow, _: ()) -> Result<u32, Failure> {
    select! {
        failed = cx.activity(fail, &0).options(PATIENT) => failed,
        word = cx.signal(WORD) => { word?; Ok(0) },
    }
}

/// So many activities at once, while words and short naps go by; ends with the last of them.
pub async fn fan_out(cx: Workflow, (wide, words_wanted): (u32, usize)) -> Result<Vec<u32>, Failure> {
    let steps: Vec<_> = (0..wide).map(|step| cx.activity(count, &step).options(SLOW).start()).collect();
    for _ in 0..words_wanted {
        // Each leaves an alarm behind that is not needed any more.
        cx.timeout(Duration::from_hours(1), cx.signal(WORD)).await?;
    }
    let mut sums = Vec::new();
    for step in steps {
        sums.push(step.await?);
    }
    Ok(sums)
}

/// Ten minutes an attempt, five attempts.
pub const SLOW: ActivityOptions =
    ActivityOptions::start_to_close(Duration::from_mins(10)).retry(RetryPolicy::max_attempts(5));

thread_local! {
    /// Whether the code of [`fragile`] follows its histories just now, for the test on this thread.
    pub static FOLLOWS: std::cell::Cell<bool> = const { std::cell::Cell::new(true) };
}

/// An activity, then words; or, after a bad deploy, something else.
pub async fn fragile(cx: Workflow, _: ()) -> Result<Vec<String>, Failure> {
    if !FOLLOWS.get() {
        cx.sleep(Duration::from_secs(1)).await?;
    }
    let step = cx.activity(fail, &0).options(PATIENT).start();
    let heard = words(cx, 1).await?;
    drop(step);
    Ok(heard)
}

/// Counts its executions.
pub async fn count(cx: Activity, _: u32) -> Result<u32, Failure> {
    Ok(cx.get::<Ran>().0.fetch_add(1, Ordering::SeqCst) + 1)
}

/// Counts its executions, and fails.
pub async fn fail(cx: Activity, _: u32) -> Result<u32, Failure> {
    cx.get::<Ran>().0.fetch_add(1, Ordering::SeqCst);
    Err(Failure::application("as planned"))
}

/// What is done when it is too late.
pub async fn late(_: Activity, _: ()) -> Result<(), Failure> {
    Ok(())
}
