//! Queries that need the workflow's code.

use std::sync::atomic::{AtomicBool, Ordering};

use dormouse::{App, Failure, Payload, Query, Signal, Workflow};
use dormouse_engine::ApiError;
use dormouse_testing::World;
use dormouse_testing::world::run;
use serde_json::json;

use crate::Function;

const WORD: Signal<String> = Signal::new("word");
const HEARD: Query<usize, usize> = Query::new("heard");

static BROKEN: AtomicBool = AtomicBool::new(false);

async fn listening(cx: Workflow, _: ()) -> Result<(), Failure> {
    let count = std::rc::Rc::new(std::cell::Cell::new(0));
    let seen = std::rc::Rc::clone(&count);
    cx.answer(HEARD, move |more: usize| seen.get() + more);
    loop {
        cx.signal(WORD).await?;
        assert!(!BROKEN.load(Ordering::SeqCst), "broken");
        count.set(count.get() + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_answered_by_any_process() {
    let world = World::new(App::new().workflow("listening", listening)).shared();
    let (warm, cold) = (Function::begin(&world), Function::begin(&world));
    let there = warm.process.start("listening", "w", "r1", &());
    for word in ["a", "b"] {
        warm.process.signal("w", word, "word", &word);
    }
    warm.work_off(&world).await;
    let records = world.records(&there);
    let ask = async |function: &Function, run: &dormouse_core::RunKey, name: &str, input: serde_json::Value| {
        function.consumer.query(run.clone(), name.into(), Payload::encode(&input).unwrap()).await
    };
    for function in [&warm, &cold, &warm, &cold] {
        assert_eq!(ask(function, &there, "heard", json!(10)).await.unwrap().to_value(), json!(12));
    }
    assert!(
        matches!(ask(&cold, &there, "weather", json!(0)).await, Err(ApiError::NoSuchQuery(why)) if why.contains("heard"))
    );
    assert!(matches!(ask(&cold, &there, "heard", json!("ten")).await, Err(ApiError::QueryFailed(_))));
    let nowhere = ask(&cold, &run("nobody", 0), "heard", json!(0)).await;
    assert!(matches!(nowhere, Err(ApiError::NotFound(_))), "{nowhere:?}");

    BROKEN.store(true, Ordering::SeqCst);
    let parked = ask(&cold, &there, "heard", json!(0)).await;
    assert!(matches!(&parked, Err(ApiError::Parked(why)) if why.contains("broken")), "{parked:?}");
    BROKEN.store(false, Ordering::SeqCst);
    assert_eq!(ask(&cold, &there, "heard", json!(0)).await.unwrap().to_value(), json!(2));
    assert_eq!(world.records(&there), records, "queries write nothing");
}
