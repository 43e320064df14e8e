//! Questions wait until the run's code has seen what was accepted before them, and no longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dormouse::{App, Failure, Payload, Query, Signal, Workflow};
use dormouse_core::RunKey;
use dormouse_engine::ApiError;
use dormouse_engine::front::FrontDoor;
use dormouse_engine::seams::QueryRunner;
use dormouse_testing::World;
use dormouse_testing::world::{Process, latest, run};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::clockwork::{in_time, secs, sleep};

const ADD: Signal<u32> = Signal::new("add");
const SUM: Query<u32> = Query::new("sum");

/// Publishes the sum of what it hears. At 13 it is out of luck.
async fn adder(cx: Workflow, _: ()) -> Result<(), Failure> {
    let sum = cx.publish(SUM, 0);
    loop {
        let next = sum.get() + cx.signal(ADD).await?;
        assert_ne!(next, 13, "out of luck");
        sum.set(next);
    }
}

fn world() -> (World, Process) {
    let world = World::new(App::new().workflow("adder", adder));
    let process = world.process();
    (world, process)
}

async fn sum(process: &Process) -> Result<Value, ApiError> {
    Ok(process.front.query(&latest("w"), "sum", Payload::NULL).await?.to_value())
}

/// The run is decided while somebody asks: he gets the answer of afterwards.
#[test]
fn a_question_waits_for_what_was_accepted_before_it() {
    let (world, process) = world();
    process.start("adder", "w", "r", &());
    for (answer, add) in [(0, Some(7)), (7, Some(4)), (11, None)] {
        in_time(&world, async {
            let decider = async {
                sleep(&world, Duration::from_millis(700)).await;
                process.deliver();
            };
            let (found, ()) = futures::join!(sum(&process), decider);
            assert_eq!(found, Ok(json!(answer)));
        });
        if let Some(add) = add {
            process.signal("w", &format!("s{add}"), "add", &add);
        }
    }
}

/// Nothing waits to be decided: the answer is there at once.
#[test]
fn a_question_to_a_run_at_rest_does_not_wait() {
    let (world, process) = world();
    process.start("adder", "w", "r", &());
    process.deliver();
    let begun = world.now();
    assert_eq!(in_time(&world, sum(&process)), Ok(json!(0)));
    assert_eq!(world.now(), begun);
}

/// Nobody decides: after a while the answer is that of where the run stands. One that is parked is not waited for.
#[test]
fn a_question_does_not_wait_for_ever() {
    let (world, process) = world();
    process.start("adder", "w", "r", &());
    process.deliver();
    process.signal("w", "s1", "add", &6);
    process.deliver();
    process.signal("w", "s2", "add", &7);
    let begun = world.now();
    assert_eq!(in_time(&world, sum(&process)), Ok(json!(6)));
    let waited = world.now().since(begun);
    assert!(waited >= secs(1) && waited < secs(5), "{waited:?}");

    process.deliver();
    assert!(world.row(&run("w", 0)).unwrap().parked.is_some(), "13");
    for process in [process, world.process()] {
        let begun = world.now();
        assert_eq!(in_time(&world, sum(&process)), Ok(json!(6)));
        assert_eq!(world.now(), begun, "it stands still, as its row says");
    }
}

/// Answers whether the run had been decided when it was asked.
struct Handler(Arc<AtomicBool>);

impl QueryRunner for Handler {
    fn query(&self, _: RunKey, _: String, _: Payload) -> BoxFuture<'_, Result<Payload, ApiError>> {
        let decided = Payload::encode(&self.0.load(Ordering::SeqCst)).expect("it serializes");
        std::future::ready(Ok(decided)).boxed()
    }
}

/// Nor is the run's handler asked before.
#[test]
fn a_computed_answer_waits_too() {
    let (world, process) = world();
    let (decided, target) = (Arc::<AtomicBool>::default(), latest("w"));
    let handler = Arc::new(Handler(Arc::clone(&decided)));
    let front = FrontDoor::new(process.ports.clone(), Arc::clone(&process.intake), handler);
    process.start("adder", "w", "r", &());
    in_time(&world, async {
        let decider = async {
            sleep(&world, Duration::from_millis(700)).await;
            process.deliver();
            decided.store(true, Ordering::SeqCst);
        };
        let (answer, ()) = futures::join!(front.query(&target, "computed", Payload::NULL), decider);
        assert_eq!(answer.unwrap().to_value(), json!(true));
    });
}
