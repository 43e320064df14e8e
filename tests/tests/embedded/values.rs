//! What users give comes back as they gave it: byte for byte, from a caller to the code and back, in every view.

use std::sync::Arc;
use std::time::Duration;

use dormouse::api::{HistoryEvent, StartBody};
use dormouse::{Payload, RawClient, Server, Settings, Status};
use dormouse_core::{Activity, ActivityOptions, App, Failure, FailureKind, MAX_PAYLOAD_DEPTH, Query, Signal, Workflow};
use dormouse_engine::stores::object::ObjectStore;
use dormouse_tests::dice::Dice;
use dormouse_tests::texts::text;
use futures::{StreamExt, stream};
use object_store::memory::InMemory;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

type Text = Box<RawValue>;

const HEARD: Signal<Text> = Signal::new("heard");
const END: Signal<End> = Signal::new("end");
const TOLD: Query<Text> = Query::new("told");
const ECHO: Query<Text, Text> = Query::new("echo");

#[derive(Serialize, Deserialize)]
struct End {
    fails: bool,
    with: Text,
}

/// Through two kinds of activity, a published value, a signal and a next run.
async fn carry(cx: Workflow, input: Text) -> Result<Text, Failure> {
    let passed = cx.local_activity(pass, &input).await?;
    let passed =
        cx.activity(pass_on, &passed).options(ActivityOptions::start_to_close(Duration::from_secs(60))).await?;
    cx.publish(TOLD, passed);
    let heard = cx.signal(HEARD).await?;
    cx.continue_as_new(end, &heard)
}

async fn end(cx: Workflow, input: Text) -> Result<Text, Failure> {
    cx.answer(ECHO, |argument: Text| argument);
    cx.publish(TOLD, input);
    let End { fails, with } = cx.signal(END).await?;
    if fails { Err(Failure::application("as told").with_details(&with)) } else { Ok(with) }
}

async fn pass(_: Activity, text: Text) -> Result<Text, Failure> {
    Ok(text)
}

async fn pass_on(_: Activity, text: Text) -> Result<Text, Failure> {
    Ok(text)
}

fn payload(text: &str) -> Payload {
    Payload::from_json(text.to_owned().into())
}

/// What these events say of values under this name, in order.
fn told(events: &[HistoryEvent], name: &str) -> Vec<String> {
    events.iter().filter_map(|event| event.attributes.get(name)).map(ToString::to_string).collect()
}

async fn goes_round(client: &RawClient, number: u64, mut dice: Dice) {
    let id = format!("w{number}");
    let [first, heard, question, last] = [0; 4].map(|_| {
        let depth = dice.within(0..MAX_PAYLOAD_DEPTH as u64) as usize;
        text(&mut dice, depth)
    });
    let fails = dice.within(0..2) == 0;
    let body = StartBody {
        workflow_type: "carry".into(),
        workflow_id: Some(id.clone()),
        input: payload(&first),
        id_reuse_policy: Default::default(),
        id_conflict_policy: Default::default(),
    };
    let started = client.start(&body, None).await.unwrap();
    let (before, run) = (client.workflow(&id, Some(started.run_id)), client.workflow(&id, None));
    run.signal(HEARD.name(), &payload(&heard), None).await.unwrap();
    let next = before.result(Duration::from_secs(20)).await.unwrap();
    assert_eq!(next.status, Status::ContinuedAsNew, "{first}: {next:?}");
    let events = before.history().await.unwrap();
    assert_eq!(told(&events, "result"), [first.as_str(); 2], "of both activities");
    assert_eq!(told(&events, "value"), [first.as_str()], "published");
    assert_eq!(told(&events, "payload"), [heard.as_str()]);
    assert_eq!(told(&events, "input"), [first.as_str(), &first, &heard], "of the run, an activity, the next run");
    assert_eq!(before.describe().await.unwrap().published[TOLD.name()].to_string(), first);

    assert_eq!(run.query(ECHO.name(), &payload(&question)).await.unwrap().to_string(), question);
    assert_eq!(run.query(TOLD.name(), &Payload::NULL).await.unwrap().to_string(), heard);
    assert_eq!(run.describe().await.unwrap().input.to_string(), heard);
    let told_to = payload(&format!("{{\"fails\": {fails}, \"with\": {last}}}"));
    run.signal(END.name(), &told_to, None).await.unwrap();
    let outcome = run.outcome(Some(Duration::from_secs(60))).await.unwrap();
    let came = match (outcome.result, outcome.failure.map(|failure| failure.kind)) {
        (Some(result), None) if !fails => result,
        (None, Some(FailureKind::Application { details: Some(details), .. })) if fails => details,
        other => panic!("{last}: {other:?}"),
    };
    assert_eq!(came.to_string(), last);
    let events = serde_json::to_string(&run.history_page(100, None).await.unwrap()).unwrap();
    assert!(events.contains(&last));
}

async fn server(app: App) -> Server {
    let store = Arc::new(ObjectStore::new(Arc::new(InMemory::new()), "p"));
    Server::start(Arc::new(app), store, Settings::default(), "127.0.0.1:0").await.unwrap()
}

/// Ten texts go through each run, as ten kinds of thing.
const RUNS: u64 = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn values_come_back_byte_for_byte() {
    let app = App::new().workflow("carry", carry).workflow("end", end);
    let server = server(app.activity("pass", pass).activity("passOn", pass_on)).await;
    let client = RawClient::new(&server.url()).unwrap();
    let mut dice = Dice::cast("values");
    let runs = (0..RUNS).map(|number| (number, Dice::of(dice.roll()))).collect::<Vec<_>>();
    let runs = stream::iter(runs).map(|(number, dice)| goes_round(&client, number, dice));
    runs.buffer_unordered(16).collect::<()>().await;
    server.stop(Duration::ZERO).await;
}

async fn deep(cx: Workflow, depth: usize) -> Result<Text, Failure> {
    cx.local_activity(dig, &depth).await
}

async fn dig(_: Activity, depth: usize) -> Result<Text, Failure> {
    Ok(RawValue::from_string("[".repeat(depth) + &"]".repeat(depth)).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_nested_too_deeply_is_refused_where_it_arises() {
    let server = server(App::new().workflow("deep", deep).activity("dig", dig)).await;
    let client = RawClient::new(&server.url()).unwrap();
    for depth in [MAX_PAYLOAD_DEPTH, MAX_PAYLOAD_DEPTH + 1] {
        let id = format!("w{depth}");
        let body = StartBody {
            workflow_type: "deep".into(),
            workflow_id: Some(id.clone()),
            input: Payload::encode(&depth).unwrap(),
            id_reuse_policy: Default::default(),
            id_conflict_policy: Default::default(),
        };
        client.start(&body, None).await.unwrap();
        let outcome = client.workflow(&id, None).outcome(Some(Duration::from_secs(60))).await.unwrap();
        let fits = depth == MAX_PAYLOAD_DEPTH;
        assert_eq!(outcome.result.is_some_and(|result| result.len() == 2 * depth), fits);
        let named = |failure: &Failure| failure.chain().any(|link| link.type_name() == Some("PayloadTooDeep"));
        assert_eq!(outcome.failure.as_ref().is_some_and(named), !fits, "{:?}", outcome.failure);
        assert_eq!(client.workflow(&id, None).history().await.unwrap().len(), 4, "whatever there is can be shown");
        let input = payload(&("[".repeat(depth) + &"]".repeat(depth)));
        let refused = client.start(&StartBody { input, ..body }, None).await.unwrap_err().to_string();
        assert_eq!(refused.contains("nested 64 deep"), !fits, "{refused}");
    }
    server.stop(Duration::ZERO).await;
}
