//! Names and arguments that callers get wrong: told by name, and what may be meant otherwise is recorded all the same.

use dormouse::{App, Failure, Payload, Query, Workflow};
use serde_json::{Value, json};

use crate::{Door, command_line};

const MEANT: &str = "the application declares no signal \"aproval\"; did you mean \"approval\"?";

#[tokio::test(flavor = "multi_thread")]
async fn the_sender_of_a_misspelled_signal_is_warned() {
    let dir = tempfile::tempdir().unwrap();
    let door = Door::functions(&dir).await;
    let input = json!({ "expense_id": "e", "amount_cents": 900 });
    let start = json!({ "workflow_type": "expenseApprovalWorkflow", "workflow_id": "e", "input": input });
    assert_eq!(door.send("POST", "/v1/workflows", "k", &start).await.0, 201);

    for _ in ["first", "repeated"] {
        let (status, answer) = door.send("POST", "/v1/workflows/e/signals/aproval", "s", &json!(true)).await;
        assert_eq!(status, 202, "{answer}");
        assert!(answer["warning"].as_str().unwrap().starts_with(MEANT), "{answer}");
    }
    let workflow = door.client().workflow("e", None);
    let sent = workflow.signal("aproval", &Payload::NULL, None).await.unwrap();
    assert!(sent.warning.unwrap().starts_with(MEANT));
    let (out, err, code) = command_line(&door, &["workflow", "signal", "e", "aproval"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.contains("Sent aproval to e") && err.contains("warning: ") && err.contains("did you mean"),
        "{out}{err}"
    );
    let (out, ..) = command_line(&door, &["workflow", "signal", "e", "aproval", "--output", "json"]).await;
    assert!(serde_json::from_str::<Value>(&out).unwrap()["warning"].is_string(), "{out}");

    assert_eq!(door.send("POST", "/v1/workflows/e/signals/approval", "t", &json!(true)).await, (202, json!({})));
    let history = workflow.history().await.unwrap();
    let signals = history.iter().filter(|event| event.event_type == "SignalReceived");
    assert_eq!(signals.count(), 5, "all are recorded, each once");
    door.server.stop(std::time::Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_takes_no_argument_says_so() {
    const SHOWN: Query<u32> = Query::new("shown");
    const COUNTED: Query<u32> = Query::new("counted");
    async fn asked(cx: Workflow, _: ()) -> Result<(), Failure> {
        let _shown = cx.publish(SHOWN, 1);
        cx.answer(COUNTED, |()| 2);
        cx.canceled().await;
        Ok(())
    }
    for (declared, app) in [(false, App::new()), (true, App::new().query(SHOWN).query(COUNTED))] {
        let door = Door::open(app.workflow("asked", asked)).await;
        let start = json!({ "workflow_type": "asked", "workflow_id": "a" });
        assert_eq!(door.send("POST", "/v1/workflows", "k", &start).await.0, 201);
        for (query, answer) in [("shown", 1), ("counted", 2)] {
            let path = format!("/v1/workflows/a/queries/{query}");
            assert_eq!(door.send("POST", &path, "q", &Value::Null).await, (200, json!({ "result": answer })));
            let (status, problem) = door.send("POST", &path, "q", &json!({ "page": 7 })).await;
            let detail = problem["detail"].as_str().unwrap();
            let named = format!("the argument of query \"{query}\"");
            assert_eq!(status, 422, "{declared}: {problem}");
            assert!(detail.contains(&named) && detail.contains("it takes no"), "{declared}: {problem}");
        }
        door.server.stop(std::time::Duration::ZERO).await;
    }
}
