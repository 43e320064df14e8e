//! Tests of a team's own workflows: in memory, in virtual time, without a server. A week passes in a millisecond.
//!
//! ```
//! use std::time::Duration;
//!
//! use dormouse_core::{Activity, ActivityOptions, App, Failure, Signal, Workflow};
//! use dormouse_testing::kit::TestEnv;
//!
//! const APPROVAL: Signal<bool> = Signal::new("approval");
//! const DAY: Duration = Duration::from_hours(24);
//!
//! async fn pay(_: Activity, cents: u64) -> Result<String, Failure> {
//!     Err(Failure::application(format!("a test pays {cents} cents")))
//! }
//!
//! async fn expense(cx: Workflow, cents: u64) -> Result<Option<String>, Failure> {
//!     match cx.timeout(7 * DAY, cx.signal(APPROVAL)).await? {
//!         Some(true) => Ok(Some(cx.activity(pay, &cents).start_to_close(DAY).await?)),
//!         Some(false) | None => Ok(None),
//!     }
//! }
//!
//! let app = || App::new().workflow("expense", expense).activity("pay", pay);
//!
//! // Nobody answers: the seven days are over at once.
//! let test = TestEnv::new(app());
//! assert_eq!(test.start(expense, &1800).result(), Ok(None));
//! assert_eq!(test.now(), 7 * DAY);
//!
//! // The manager answers on the third day. The activity is another one; it is named by its function, and typed.
//! let test = TestEnv::new(app()).mock(pay, |cents| Ok(format!("receipt of {cents}")));
//! let run = test.start(expense, &1800);
//! test.advance(3 * DAY);
//! run.signal(APPROVAL, &true);
//! assert_eq!(run.result(), Ok(Some("receipt of 1800".into())));
//! assert_eq!(test.calls(pay).len(), 1);
//! ```
//!
//! | what for | where |
//! | --- | --- |
//! | activities of a test: [mocked](TestEnv::mock), [one answer after another](TestEnv::mock_each), [slow](TestEnv::takes), [real](TestEnv::real) | [`TestEnv`] |
//! | time: [let it pass](TestEnv::advance), [do something later](TestEnv::after) | [`TestEnv`] |
//! | a run: its result, signals, queries, cancellation, history | [`TestRun`] |
//! | [everything that may happen in production](TestEnv::chaos): what is delivered twice, forgotten, fails at first | [`TestEnv`] |
//! | a crash before and after each write, a cancellation at each moment | [`crash_everywhere`] |
//! | histories of before on today's code: [of a run](TestRun::export), [a file](replay_file), [a directory](replay_dir) | [`replay_dir`] |
//!
//! What a test does is done by the engine that ships, on one thread: workflow code is replayed, activities are claimed and
//! retried by their policies, time limits pass. Only the time, the queues and the store are the test's.

mod crash;
mod env;
mod mocks;
mod replay;
mod run;
mod stage;

pub use crash::{CrashReport, Harm, Mishap, crash_everywhere};
pub use dormouse_core::Replayed;
pub use env::TestEnv;
pub use mocks::ActivityCalled;
pub use replay::{ReplayReport, replay_dir, replay_file};
pub use run::TestRun;
