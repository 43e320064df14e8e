//! Somebody signs up: a link is sent, the click on it is waited for, and then they are welcomed.

use dormouse::prelude::*;
use serde::{Deserialize, Serialize};

/// The click on the link.
pub const CONFIRMED: Signal<()> = Signal::new("confirmed");
/// How far it has come; answered from storage.
pub const STATUS: Query<Status> = Query::new("status");

const DAY: Duration = Duration::from_hours(24);

/// A minute for each attempt, five attempts, one second between the first two and twice as long each time.
const PATIENT: ActivityOptions = ActivityOptions::start_to_close(Duration::from_mins(1)).retry(
    RetryPolicy::max_attempts(5)
        .initial_interval(Duration::from_secs(1))
        .backoff_coefficient(2.0),
);

/// Who signs up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Signup {
    /// Where the link is sent to.
    pub email: String,
}

/// How far somebody has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The link is on its way.
    Invited,
    /// They have clicked it.
    Welcomed,
    /// They have not, for three days.
    Forgotten,
}

/// The application: every name that histories and callers know stands here, once.
pub fn app() -> App {
    App::new()
        .workflow("signup", signup)
        .example(
            signup,
            &Signup {
                email: "ann@example.com".into(),
            },
        )
        .signal(CONFIRMED)
        .query(STATUS)
        .activity("sendLink", send_link)
        .activity("welcome", welcome)
}

/// The business process. It may take three days; nothing runs while it waits.
pub async fn signup(cx: Workflow, signup: Signup) -> Result<Status, Failure> {
    let status = cx.publish(STATUS, Status::Invited);
    cx.activity(send_link, &signup).options(PATIENT).await?;
    match cx.timeout(3 * DAY, cx.signal(CONFIRMED)).await? {
        Some(()) => {
            cx.activity(welcome, &signup).options(PATIENT).await?;
            status.set(Status::Welcomed);
        }
        None => status.set(Status::Forgotten),
    }
    Ok(status.get())
}

/// Sends the link. What it hands over should know by [`Activity::idempotency_key`] whether it has sent it before.
pub async fn send_link(cx: Activity, signup: Signup) -> Result<(), Failure> {
    println!("a link for {} ({})", signup.email, cx.idempotency_key());
    Ok(())
}

/// Welcomes them.
pub async fn welcome(cx: Activity, signup: Signup) -> Result<(), Failure> {
    println!("welcome, {} ({})", signup.email, cx.idempotency_key());
    Ok(())
}

#[cfg(test)]
mod tests {
    use dormouse::testing::{TestEnv, crash_everywhere};

    use super::*;

    fn ann() -> Signup {
        Signup {
            email: "ann@example.com".into(),
        }
    }

    #[test]
    fn who_clicks_the_link_is_welcomed() {
        let test = TestEnv::new(app())
            .mock(send_link, |_| Ok(()))
            .mock(welcome, |_| Ok(()));
        let run = test.start(signup, &ann());
        assert_eq!(run.query(STATUS), Status::Invited);
        test.advance(2 * DAY);
        run.signal(CONFIRMED, &());
        assert_eq!(run.result(), Ok(Status::Welcomed));
        assert_eq!(test.calls(welcome).len(), 1);
    }

    #[test]
    fn who_does_not_is_forgotten_after_three_days() {
        let test = TestEnv::new(app()).mock(send_link, |_| Ok(()));
        assert_eq!(test.start(signup, &ann()).result(), Ok(Status::Forgotten));
        assert_eq!(test.now(), 3 * DAY);
    }

    #[test]
    fn mail_that_is_down_is_tried_again() {
        let down = || Err(Failure::application("no mail today"));
        let test = TestEnv::new(app()).mock_each(send_link, [down(), down(), Ok(())]);
        assert_eq!(test.start(signup, &ann()).result(), Ok(Status::Forgotten));
        assert_eq!(test.calls(send_link).len(), 3);
    }

    #[test]
    fn no_crash_does_harm() {
        let world = || {
            (
                TestEnv::new(app())
                    .mock(send_link, |_| Ok(()))
                    .mock(welcome, |_| Ok(())),
                (),
            )
        };
        crash_everywhere(world, signup, &ann(), |()| ()).assert_harmless();
    }
}
