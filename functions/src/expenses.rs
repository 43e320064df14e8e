//! An expense: a manager approves or rejects it, or a week passes.

use std::time::Duration;

use dormouse::{Activity, Failure, Query, Signal, Workflow};
use serde::{Deserialize, Serialize};

use crate::PATIENT;
use crate::ledger::Ledger;

/// The manager's answer.
pub const APPROVAL: Signal<bool> = Signal::new("approval");
/// How the expense stands; answered from storage.
pub const STATUS: Query<Status> = Query::new("status");

/// What an employee spent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Expense {
    /// Names the expense.
    pub expense_id: String,
    /// What it cost.
    pub amount_cents: u64,
    /// How long the manager may take; a week unless told otherwise.
    #[serde(default = "one_week_ms")]
    pub approval_timeout_ms: u64,
}

fn one_week_ms() -> u64 {
    7 * 24 * 60 * 60 * 1000
}

/// How an expense stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nobody has answered yet.
    AwaitingApproval,
    /// The money is on its way.
    Paid,
    /// Rejected, or nobody answered in time.
    Rejected,
}

/// The business process: it waits for a person, for as long as it takes, at no cost.
///
/// # Errors
/// When an activity fails for good, or the expense is canceled.
pub async fn expense_approval_workflow(cx: Workflow, expense: Expense) -> Result<Status, Failure> {
    let status = cx.publish(STATUS, Status::AwaitingApproval);
    let patience = Duration::from_millis(expense.approval_timeout_ms);
    match cx.timeout(patience, cx.signal(APPROVAL)).await? {
        Some(true) => {
            cx.activity(pay, &expense).options(PATIENT).await?;
            status.set(Status::Paid);
        }
        Some(false) | None => {
            cx.activity(reject, &expense).options(PATIENT).await?;
            status.set(Status::Rejected);
        }
    }
    Ok(status.get())
}

/// Pays the expense out.
///
/// # Errors
/// When the ledger cannot be written.
pub async fn pay(cx: Activity, _expense: Expense) -> Result<(), Failure> {
    cx.get::<Ledger>().record(&cx).await
}

/// Tells the employee that the expense is rejected.
///
/// # Errors
/// When the ledger cannot be written.
pub async fn reject(cx: Activity, _expense: Expense) -> Result<(), Failure> {
    cx.get::<Ledger>().record(&cx).await
}

#[cfg(test)]
mod tests {
    use dormouse::testing::TestEnv;

    use super::*;
    use crate::app;

    const DAY: Duration = Duration::from_hours(24);

    fn test() -> TestEnv {
        TestEnv::new(app(Ledger::at("nowhere"))).mock(pay, |_| Ok(())).mock(reject, |_| Ok(()))
    }

    fn lunch() -> Expense {
        Expense { expense_id: "lunch".into(), amount_cents: 1800, approval_timeout_ms: one_week_ms() }
    }

    #[test]
    fn nobody_answers() {
        let test = test();
        let run = test.start(expense_approval_workflow, &lunch());
        assert_eq!(run.query(STATUS), Status::AwaitingApproval);
        assert_eq!(run.result(), Ok(Status::Rejected));
        assert_eq!(test.now(), 7 * DAY);
        assert_eq!((test.calls(pay).len(), test.calls(reject).len()), (0, 1));
    }

    #[test]
    fn the_manager_answers_in_time() {
        let test = test();
        let run = test.start(expense_approval_workflow, &lunch());
        test.advance(3 * DAY);
        run.signal(APPROVAL, &true);
        assert_eq!(run.result(), Ok(Status::Paid));
        assert_eq!(test.calls(pay)[0].at, 3 * DAY);
    }

    #[test]
    fn the_bank_is_down_at_first() {
        let down = || Err(Failure::application("the bank is down"));
        let test = TestEnv::new(app(Ledger::at("nowhere"))).mock_each(pay, [down(), down(), Ok(())]);
        let run = test.start(expense_approval_workflow, &lunch());
        run.signal(APPROVAL, &true);
        assert_eq!(run.result(), Ok(Status::Paid));
        let attempts: Vec<_> = test.calls(pay).iter().map(|call| (call.attempt, call.at.as_secs())).collect();
        assert_eq!(attempts, [(1, 0), (2, 1), (3, 3)], "one second, then two");
    }

    #[test]
    fn the_employee_takes_it_back() {
        let test = test();
        let run = test.start(expense_approval_workflow, &lunch());
        test.advance(DAY);
        run.cancel("not mine");
        assert!(run.result().is_err_and(|failure| failure.is_canceled()));
        assert!(test.calls(pay).is_empty());
    }
}
