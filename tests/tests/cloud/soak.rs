//! Function processes are killed in the middle of their work.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use dormouse::{ListFilter, Status};
use dormouse_core::history::Closed;
use dormouse_engine::store::{Index, RunFilter};
use dormouse_tests::cloud::Cloud;
use dormouse_tests::dice::Dice;
use dormouse_tests::tell;
use tokio::sync::watch;

use crate::checks::{check_acknowledged, check_ledger, read_back};
use crate::client::{AckLog, Caller};

const ORDERS: usize = 40;
/// Their fulfilment windows are longer than SQS delays here: the Scheduler rings.
const SCHEDULED: usize = 6;
const EXPENSES: usize = 12;
const KILLS: usize = 20;

pub async fn orders_survive_kills(cloud: &Cloud) {
    let mut dice = Dice::cast("cloud");
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("acknowledged");
    let (_server, server) = watch::channel(Some(cloud.client()));
    let caller = Caller { server, log: AckLog::create(&log) };
    drop(cloud.proxy.reset());
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..ORDERS {
        let (caller, begin) = (caller.clone(), dice.millis(0..12_000));
        let delay = if n < SCHEDULED { 9_000 } else { dice.within(200..1500) };
        callers.spawn(async move {
            tokio::time::sleep(begin).await;
            caller.order(n, delay).await;
        });
    }
    for n in 0..EXPENSES {
        let (caller, begin) = (caller.clone(), dice.millis(0..12_000));
        let pauses = [dice.millis(0..400), dice.millis(0..400)];
        callers.spawn(async move {
            tokio::time::sleep(begin).await;
            caller.expense(n, pauses).await;
        });
    }
    let began = Instant::now();
    let mut killed = [("orchestrator", 0), ("activity", 0), ("api", 0)];
    while killed.iter().map(|(_, times)| times).sum::<usize>() < KILLS {
        tokio::time::sleep(dice.millis(200..900)).await;
        let role = dice.within(0..3) as usize;
        let processes = cloud.processes(killed[role].0);
        if let Some(pid) = processes.get(dice.within(0..processes.len().max(1) as u64) as usize) {
            killed[role].1 += usize::from(cloud.kill(*pid));
        }
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    until_closed(cloud, "order-").await;
    until_closed(cloud, "expense-").await;

    let store = cloud.store();
    let mut runs = HashMap::new();
    for prefix in ["order-", "expense-"] {
        let these = RunFilter { id_prefix: Some(prefix.into()), ..RunFilter::default() };
        runs.extend(read_back(&store, &these).await);
    }
    let ledger: Vec<_> = cloud.ledger().into_iter().filter(|entry| runs.contains_key(&entry.workflow_id)).collect();
    let acknowledged = AckLog::read(&log);
    check_acknowledged(&acknowledged, &runs);
    check_ledger(&ledger, &runs, None);
    assert_eq!((runs.len(), acknowledged.len()), (ORDERS + EXPENSES, ORDERS + 3 * EXPENSES));
    let mut failed = 0;
    for (id, run) in &runs {
        match &run.state.closed {
            Some(Closed::Completed(_)) => {}
            Some(Closed::Failed(_)) => failed += 1,
            other => panic!("{id}: {other:?}"),
        }
    }
    let schedules = cloud.proxy.counts().came("scheduler/CreateSchedule");
    tell!(
        "{killed:?} processes killed; {} ledger lines; {} acknowledgements, none lost; {failed} orders failed after their fifth attempt; \
         {schedules} schedules; {:.0} s",
        ledger.len(),
        acknowledged.len(),
        began.elapsed().as_secs_f64(),
    );
    assert!(schedules >= SCHEDULED as u64, "the Scheduler rang for {schedules} of {SCHEDULED}");
    assert!(failed <= 3, "{failed} failed");
    assert!(killed.iter().all(|(_, times)| *times > 0), "{killed:?}");
    assert!(store.due(dormouse_core::Timestamp::from_millis(u64::MAX >> 1), None, 10).await.unwrap().is_empty());
}

async fn until_closed(cloud: &Cloud, prefix: &str) {
    let began = Instant::now();
    let filter = ListFilter { id_prefix: Some(prefix.into()), status: Some(Status::Running), ..ListFilter::default() };
    loop {
        let open = cloud.client().list(&filter, 1_000).await.unwrap_or_else(|error| panic!("{error}\n{}", cloud.log()));
        if open.is_empty() {
            return;
        }
        let first = &open[0].workflow_id;
        assert!(began.elapsed() < Duration::from_secs(300), "{} runs do not end, such as {first}", open.len());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
