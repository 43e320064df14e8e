//! A sample application: what a project that uses Dormouse looks like.

pub mod expenses;
pub mod ledger;
pub mod orders;
pub mod statements;

use std::time::Duration;

use dormouse::{ActivityOptions, App, RetryPolicy};

use expenses::{APPROVAL, STATUS, expense_approval_workflow, pay, reject};
use ledger::Ledger;
use orders::{Order, charge, order_workflow, send_confirmation, ship};
use statements::{render_statement, send_statement, statements_workflow};

/// A minute for each attempt, five attempts, one second between the first two and twice as long each time.
pub const PATIENT: ActivityOptions = ActivityOptions::start_to_close(Duration::from_mins(1))
    .retry(RetryPolicy::max_attempts(5).initial_interval(Duration::from_secs(1)).backoff_coefficient(2.0));

/// The application: every wire name stands here, once.
#[must_use]
pub fn app(ledger: Ledger) -> App {
    App::new()
        .workflow("orderWorkflow", order_workflow)
        .workflow("expenseApprovalWorkflow", expense_approval_workflow)
        .workflow("statementsWorkflow", statements_workflow)
        .example(order_workflow, &Order::example())
        .signal(APPROVAL)
        .query(STATUS)
        .activity("charge", charge)
        .activity("sendConfirmation", send_confirmation)
        .activity("ship", ship)
        .activity("pay", pay)
        .activity("reject", reject)
        .activity("renderStatement", render_statement)
        .activity("sendStatement", send_statement)
        .provide(ledger)
}
