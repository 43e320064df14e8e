//! An order: charge, confirm, wait for the fulfilment window, ship.

use std::time::Duration;

use dormouse::{Activity, Failure, Workflow};
use serde::{Deserialize, Serialize};

use crate::PATIENT;
use crate::ledger::Ledger;

/// What a customer bought.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Names the order.
    pub order_id: String,
    /// What it costs.
    pub amount_cents: u64,
    /// How long after the charge it may be shipped; a day unless told otherwise.
    #[serde(default = "one_day_ms")]
    pub fulfilment_delay_ms: u64,
    /// The probability that an attempt to charge fails, as payment providers do.
    #[serde(default)]
    pub flaky: f64,
}

impl Order {
    /// One to show: it is shipped ten seconds after the charge, which may take a second attempt.
    #[must_use]
    pub fn example() -> Self {
        Self { order_id: "example-1".into(), amount_cents: 4200, fulfilment_delay_ms: 10_000, flaky: 0.3 }
    }
}

fn one_day_ms() -> u64 {
    24 * 60 * 60 * 1000
}

/// Proof of a payment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// The order.
    pub order_id: String,
    /// What was charged.
    pub amount_cents: u64,
}

/// Proof that a parcel is on its way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shipment {
    /// The order.
    pub order_id: String,
    /// The carrier's number.
    pub tracking: String,
}

/// The business process. It may take a day; nothing runs while it sleeps.
///
/// # Errors
/// When an activity fails for good, or the order is canceled.
pub async fn order_workflow(cx: Workflow, order: Order) -> Result<Shipment, Failure> {
    let receipt = cx.activity(charge, &order).options(PATIENT).await?;
    cx.activity(send_confirmation, &receipt).options(PATIENT).await?;
    cx.sleep(Duration::from_millis(order.fulfilment_delay_ms)).await?;
    cx.activity(ship, &order).options(PATIENT).await
}

/// Charges the customer.
///
/// # Errors
/// When the payment provider is unavailable, with the order's probability; the engine tries again.
#[allow(clippy::disallowed_methods, reason = "an activity may draw random numbers")]
pub async fn charge(cx: Activity, order: Order) -> Result<Receipt, Failure> {
    cx.get::<Ledger>().record(&cx).await?;
    if rand::random::<f64>() < order.flaky {
        return Err(
            Failure::application("the payment provider is temporarily unavailable").with_type("ProviderUnavailable")
        );
    }
    Ok(Receipt { order_id: order.order_id, amount_cents: order.amount_cents })
}

/// Sends the confirmation.
///
/// # Errors
/// When the ledger cannot be written.
pub async fn send_confirmation(cx: Activity, _receipt: Receipt) -> Result<(), Failure> {
    cx.get::<Ledger>().record(&cx).await
}

/// Ships the order.
///
/// # Errors
/// When the ledger cannot be written.
pub async fn ship(cx: Activity, order: Order) -> Result<Shipment, Failure> {
    cx.get::<Ledger>().record(&cx).await?;
    Ok(Shipment { tracking: format!("TRACK-{}", order.order_id), order_id: order.order_id })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use dormouse::testing::{TestEnv, crash_everywhere};

    use super::*;
    use crate::app;

    fn receipt(order: &Order) -> Receipt {
        Receipt { order_id: order.order_id.clone(), amount_cents: order.amount_cents }
    }

    /// What the outside has seen of payments and parcels.
    type Outside = Arc<Mutex<Vec<String>>>;

    fn test() -> (TestEnv, Outside) {
        let outside = Outside::default();
        let (paid, shipped) = (Arc::clone(&outside), Arc::clone(&outside));
        // A payment provider and a carrier that know an order when it comes again.
        let note = |outside: &Outside, what: String| {
            let mut seen = outside.lock().unwrap();
            if !seen.contains(&what) {
                seen.push(what);
            }
        };
        let test = TestEnv::new(app(Ledger::at("nowhere")))
            .mock(charge, move |order| {
                note(&paid, format!("{} cents", order.amount_cents));
                Ok(receipt(&order))
            })
            .mock(send_confirmation, |_| Ok(()))
            .mock(ship, move |order| {
                note(&shipped, format!("a parcel for {}", order.order_id));
                Ok(Shipment { order_id: order.order_id, tracking: "TRACK-1".into() })
            });
        (test, outside)
    }

    #[test]
    fn an_order_is_shipped_a_while_after_the_charge() {
        let (test, _) = test();
        let shipment = test.start(order_workflow, &Order::example()).result().unwrap();
        assert_eq!(shipment.tracking, "TRACK-1");
        let (charged, shipped) = (&test.calls(charge)[0], &test.calls(ship)[0]);
        assert_eq!(shipped.at - charged.at, Duration::from_secs(10));
    }

    #[test]
    fn whatever_happens_in_between_it_comes_to_the_same_end() {
        for seed in 0..50 {
            let (test, outside) = test();
            let shipment = test.chaos(seed).start(order_workflow, &Order::example()).result().unwrap();
            assert_eq!(shipment.order_id, "example-1");
            assert_eq!(*outside.lock().unwrap(), ["4200 cents", "a parcel for example-1"]);
        }
    }

    #[test]
    fn no_crash_does_harm() {
        let look = |outside: &Outside| outside.lock().unwrap().clone();
        crash_everywhere(test, order_workflow, &Order::example(), look).assert_harmless();
    }
}
