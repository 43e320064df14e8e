//! What it costs, counted at the proxy.

use std::time::{Duration, Instant};

use comfy_table::Table;
use dormouse_tests::cloud::Cloud;
use dormouse_tests::proxy::Counts;
use dormouse_tests::tell;
use serde_json::json;

use crate::PATIENCE;
use crate::pollers::Pollers;

/// Queued steps of each run in a crowd.
const STEPS: u32 = 5;
/// Orchestrators at a time.
const POLLERS: usize = 16;

/// Requests by what they are for.
const KINDS: [(&str, &str); 7] = [
    ("conditional puts of batches", "dynamodb/*/batch*"),
    ("claims", "dynamodb/*/attempt*"),
    ("reads of history", "dynamodb/Query/history"),
    ("other reads", "dynamodb/GetItem/*"),
    ("newest run", "dynamodb/Query/newest"),
    ("SQS sends", "sqs/Send*"),
    ("SQS visibility", "sqs/ChangeMessageVisibility*"),
];

/// The first request of all begins a process: how long that takes, and how long the next.
pub async fn a_process_starts_quickly(cloud: &Cloud) {
    let ask = async || {
        let began = Instant::now();
        let answer = cloud.client().list_page(&dormouse::ListFilter::default(), 1, None).await;
        assert!(answer.is_ok(), "{answer:?}\n{}", cloud.log());
        began.elapsed()
    };
    let (first, second) = (ask().await, ask().await);
    tell!("first answer of a new process {first:?}, of a warm one {second:?}");
}

/// Runs statements for so many customers: what passed the proxy meanwhile.
async fn statements(cloud: &Cloud, id: &str, customers: u32, preview: bool) -> Counts {
    drop(cloud.proxy.reset());
    let input = json!({ "month": "2026-11", "customers": customers, "preview": preview });
    cloud.start("statementsWorkflow", id, input).await;
    // Looking at the result reads: seldom, so that it is not what is counted.
    tokio::time::sleep(Duration::from_millis(u64::from(customers) * if preview { 20 } else { 150 })).await;
    assert_eq!(cloud.result(id, PATIENCE).await, json!(customers));
    cloud.proxy.reset()
}

/// A hundred runs at once: what passed meanwhile, by kind, for each step.
async fn crowd(cloud: &Cloud, name: &str) -> [f64; KINDS.len()] {
    drop(cloud.proxy.reset());
    let runs: Vec<_> = (0..100).map(|n| format!("{name}-{n}")).collect();
    let input = json!({ "month": "2026-11", "customers": STEPS });
    futures::future::join_all(runs.iter().map(|id| cloud.start("statementsWorkflow", id, input.clone()))).await;
    for id in &runs {
        cloud.result(id, PATIENCE).await;
    }
    let counts = cloud.proxy.reset();
    KINDS.map(|(_, kind)| counts.came(kind) as f64 / f64::from(100 * STEPS))
}

/// Steps of one run, one after the other; then many runs at once, which find many processes.
pub async fn steps_cost_what_is_promised(cloud: &Cloud) {
    const FEW: u32 = 10;
    const MANY: u32 = 200;
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["requests", "local step", "queued step", "queued, 100 runs at once", "the same, many processes"]);
    let per_step = |few: &Counts, many: &Counts, kind: &str, steps: u32| {
        (many.came(kind) as f64 - few.came(kind) as f64) / f64::from(steps)
    };
    let (few, many) =
        (statements(cloud, "local-few", FEW, true).await, statements(cloud, "local-many", MANY, true).await);
    let local = KINDS.map(|(_, kind)| per_step(&few, &many, kind, MANY - FEW));
    let (few, many) = (statements(cloud, "few", FEW, false).await, statements(cloud, "many", MANY, false).await);
    let queued = KINDS.map(|(_, kind)| per_step(&few, &many, kind, MANY - FEW));

    let crowded = crowd(cloud, "crowd").await;
    let one = cloud.processes("orchestrator").len();
    let pollers = Pollers::begin(cloud, POLLERS).await;
    let spread = crowd(cloud, "spread").await;
    let many_processes = cloud.processes("orchestrator").len();
    pollers.end(cloud).await;

    for (index, (name, _)) in KINDS.iter().enumerate() {
        let row = [local[index], queued[index], crowded[index], spread[index]].map(|number| format!("{number:.2}"));
        table.add_row([(*name).to_owned()].into_iter().chain(row));
    }
    tell!("{table}");
    tell!(
        "100 runs of {STEPS} queued steps: {one} orchestrator processes, then {many_processes} with {POLLERS} pollers"
    );
    assert!(many_processes >= 6, "{many_processes} processes are too few to miss caches");
    let [puts, claims, history, others, newest, sends, _] = local;
    assert_eq!([claims, history, others, newest, sends], [0.0; 5], "a local step is one put");
    assert!((0.99..=1.01).contains(&puts), "a local step is one put, not {puts}");
    let [puts, claims, history, others, newest, sends, _] = queued;
    // A sweep may come in between, and look once.
    assert!((0.99..=1.03).contains(&puts), "a queued step is one put, not {puts}");
    assert!((0.99..=1.03).contains(&claims), "a queued step is one claim, not {claims}");
    assert!(history + others + newest <= 0.05, "a warm step reads nothing");
    assert!((1.99..=2.05).contains(&sends), "a queued step is two messages, not {sends}");
}
