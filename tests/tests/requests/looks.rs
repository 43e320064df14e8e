//! What each look at a run costs, counted where the requests leave: a table, printed, and the one of ARCHITECTURE.md.

use std::sync::Arc;

use dormouse::Payload;
use dormouse_engine::seams::RunMessage;
use dormouse_testing::World;
use dormouse_testing::world::{Process, drive, latest};
use dormouse_tests::written::{HEARD, TWICE, WORD, Written, app};

use super::places::{self, Place};

/// What it costs to look at this run there, by processes that have not met it, and once more.
fn looks(written: &Written, place: &Place) -> Vec<(&'static str, usize)> {
    let store = Arc::clone(&place.store);
    let world = World::on(app(), move || store());
    drive(written.copy(&*(place.store)())).expect("a store that answers at once");
    let mut costs = Vec::new();
    let mut count = |look: &'static str, what: &dyn Fn()| {
        world.clock.work();
        let _before = (place.taken)();
        what();
        costs.push((look, (place.taken)()));
    };
    let (decider, target) = (world.process(), latest("w"));
    let describe = |process: &Process| drive(process.front.describe(&target)).expect("an answer").expect("a run");
    let page = |process: &Process, after: u64| {
        let page = drive(process.front.history(&target, after, 100)).expect("an answer").expect("a run");
        page.events.len()
    };
    let ask =
        |process: &Process, name: &str| drive(process.front.query(&target, name, Payload::NULL)).expect("an answer");
    // The front door asks whoever decides the run.
    let computed = |front: &Process, decider: &Process| {
        assert!(ask(front, TWICE.name()).is_err(), "nobody decides in a world's front door");
        decider.query(&written.run, TWICE.name(), &()).expect("an answer");
    };
    let reader = world.process();
    let events = describe(&world.process()).history_events;
    count("describe, cold", &|| drop(describe(&reader)));
    count("describe, warm", &|| drop(describe(&reader)));
    count("history, the last page", &|| assert_eq!(page(&reader, events - 3), 3));
    count(FOLLOWED, &|| assert_eq!(page(&reader, events), 0));
    count("query, a published value", &|| drop(ask(&reader, HEARD.name()).expect("a value")));
    let cold = world.process();
    count("query, computed, cold", &|| computed(&reader, &cold));
    count("accept a signal, warm", &|| reader.signal("w", "one", WORD.name(), &0));
    let other = world.process();
    count("accept a signal, cold", &|| other.signal("w", "two", WORD.name(), &0));
    decider.deliver();
    count("query, computed, warm", &|| computed(&reader, &decider));
    reader.signal("w", "three", WORD.name(), &0);
    count("close: the pass that ends it", &|| decider.deliver());
    assert!(describe(&reader).run.status.is_closed());
    let late = world.process();
    let message = RunMessage::Sweep { run: written.run.clone() };
    count("late message to a closed run", &|| late.handle(message.clone()).expect("it lives").expect("an answer"));
    costs
}

/// A look at a history that has not grown.
const FOLLOWED: &str = "history, followed: nothing new";

/// Looks that run the code anew, and must read everything for it.
const REPLAYS: &[&str] = &["query, computed, cold"];

/// However long the history is, whoever looks at it pays the same; but for what stands behind the last snapshot, where
/// each batch is a request.
fn cost_the_same(lengths: &[u32], place: impl Fn() -> Place) {
    let runs: Vec<_> = lengths.iter().map(|length| Written::new("listen", *length)).collect();
    let places: Vec<_> = lengths.iter().map(|_| place()).collect();
    let columns: Vec<_> = runs.iter().zip(&places).map(|(run, place)| looks(run, place)).collect();
    let name = &places[0].name;
    dormouse_tests::tell!("{:<32} {name}, at {lengths:?} events", "requests");
    for (at, (look, short)) in columns[0].iter().enumerate() {
        let costs: Vec<_> = columns.iter().map(|column| column[at].1).collect();
        dormouse_tests::tell!("{look:<32} {costs:>5?}");
        for (cost, run) in costs.iter().zip(&runs).filter(|_| !REPLAYS.contains(look)) {
            let behind = if places[0].by_batch && look.ends_with(", cold") { run.behind() } else { 0 };
            assert!(*cost <= short + 2 + behind, "{name}: {look}: {costs:?} at {lengths:?} events");
        }
    }
    for (column, run) in columns.iter().zip(&runs) {
        let cost = |wanted| column.iter().find(|(look, _)| *look == wanted).map(|(_, cost)| *cost);
        assert!(cost(FOLLOWED) <= cost("describe, warm"), "{name}: nothing new is nothing read: {column:?}");
        assert!(run.behind() <= 256, "a snapshot is near: {} batches behind it", run.behind());
    }
}

const LENGTHS: &[u32] = &[10, 1_000, 10_000];

#[test]
fn looks_cost_the_same_at_each_length() {
    cost_the_same(LENGTHS, places::sqlite);
    cost_the_same(LENGTHS, places::objects);
}

#[test]
fn looks_cost_the_same_on_dynamodb() {
    if places::dynamodb().is_some() {
        cost_the_same(LENGTHS, || places::dynamodb().expect("it was there"));
    }
}
