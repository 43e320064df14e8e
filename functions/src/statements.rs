//! Monthly statements: one step after another for many customers, as nightly jobs do.

use std::time::Duration;

use dormouse::{Activity, Failure, LocalActivityOptions, Workflow};
use serde::{Deserialize, Serialize};

use crate::PATIENT;
use crate::ledger::Ledger;

/// A month's statements.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Statements {
    /// The month, such as "2026-11".
    pub month: String,
    /// How many customers there are.
    pub customers: u32,
    /// Only render them; nothing is sent. Rendering is quick and harmless, so it is a local activity.
    #[serde(default)]
    pub preview: bool,
}

/// One customer's statement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Statement {
    /// The month.
    pub month: String,
    /// The customer's number, from 1.
    pub customer: u32,
}

/// Goes through all customers, one at a time. The result: how many there were.
///
/// # Errors
/// When a statement fails for good.
pub async fn statements_workflow(cx: Workflow, statements: Statements) -> Result<u32, Failure> {
    let Statements { month, customers, preview } = statements;
    for customer in 1..=customers {
        let statement = Statement { month: month.clone(), customer };
        if preview {
            let quick = LocalActivityOptions::start_to_close(Duration::from_secs(5));
            cx.local_activity(render_statement, &statement).options(quick).await?;
        } else {
            cx.activity(send_statement, &statement).options(PATIENT).await?;
        }
    }
    Ok(customers)
}

/// Renders a statement: its size in characters.
///
/// # Errors
/// Never.
pub async fn render_statement(_cx: Activity, statement: Statement) -> Result<usize, Failure> {
    Ok(format!("Statement of {} for customer {}", statement.month, statement.customer).len())
}

/// Sends a statement.
///
/// # Errors
/// When the ledger cannot be written.
pub async fn send_statement(cx: Activity, _statement: Statement) -> Result<(), Failure> {
    cx.get::<Ledger>().record(&cx).await
}

#[cfg(test)]
mod tests {
    use dormouse::testing::TestEnv;

    use super::*;
    use crate::app;

    fn november(customers: u32, preview: bool) -> Statements {
        Statements { month: "2026-11".into(), customers, preview }
    }

    #[test]
    fn each_customer_gets_one_after_the_other() {
        let sending = Duration::from_secs(2);
        let test =
            TestEnv::new(app(Ledger::at("nowhere"))).mock(send_statement, |_| Ok(())).takes(send_statement, sending);
        assert_eq!(test.start(statements_workflow, &november(30, false)).result(), Ok(30));
        let customers: Vec<_> = test.calls(send_statement).iter().map(|call| call.input.customer).collect();
        assert_eq!(customers, (1..=30).collect::<Vec<_>>());
        assert_eq!(test.now(), sending * 30);
    }

    #[test]
    fn a_preview_sends_nothing() {
        let test = TestEnv::new(app(Ledger::at("nowhere"))).real();
        assert_eq!(test.start(statements_workflow, &november(3, true)).result(), Ok(3));
        assert_eq!((test.calls(render_statement).len(), test.calls(send_statement).len()), (3, 0));
    }
}
