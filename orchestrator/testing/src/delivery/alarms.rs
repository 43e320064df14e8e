//! Alarms: one per run, never lost, never early. A spurious one is allowed where an alarm was replaced or taken away.

use super::*;

async fn set(bench: &Bench, run: &RunKey, at: Option<Timestamp>) {
    bench.alarms.set(run, run_id_of(run), at).await.expect("an alarm is set");
}

/// Waits until the run is rung at or after this time.
async fn rung(inbox: &mut Inbox, run: &RunKey, due: Timestamp) {
    let by = due.max(inbox.bench.delivery.now());
    inbox.until(by, &format!("the alarm of {run}"), |inbox| inbox.rings(run).iter().any(|at| *at >= due)).await;
}

pub(super) async fn ring_when_they_are_due_and_not_before(bench: Bench) {
    let now = bench.delivery.now();
    let waits = [bench.pace.near / 3, bench.pace.near, bench.pace.near * 2, bench.pace.far];
    let alarms: Vec<_> = (0..).zip(waits).map(|(n, wait)| (workflow("due").run(n), now + wait)).collect();
    for (run, due) in &alarms {
        set(&bench, run, Some(*due)).await;
    }
    let mut inbox = Inbox::of(&bench);
    for (run, due) in &alarms {
        rung(&mut inbox, run, *due).await;
    }
    inbox.linger().await;
    for (run, due) in &alarms {
        let early: Vec<_> = inbox.rings(run).into_iter().filter(|at| at < due).collect();
        assert!(early.is_empty(), "{run}, due {due}, has rung at {early:?}");
    }
    assert!(inbox.messages.iter().all(|(_, message)| alarms.iter().any(|(run, _)| message.run() == run)));
}

pub(super) async fn ring_when_they_are_overdue(bench: Bench) {
    let (run, now) = (run("overdue"), bench.delivery.now());
    set(&bench, &run, Some(now - Duration::from_hours(1))).await;
    rung(&mut Inbox::of(&bench), &run, now).await;
}

pub(super) async fn set_again_the_same_ring(bench: Bench) {
    let now = bench.delivery.now();
    let alarms = [(run("near"), now + bench.pace.near), (run("far"), now + bench.pace.far)];
    let mut inbox = Inbox::of(&bench);
    for _ in 0..3 {
        for (run, due) in &alarms {
            set(&bench, run, Some(*due)).await;
        }
    }
    for (run, due) in &alarms {
        rung(&mut inbox, run, *due).await;
    }
}

pub(super) async fn set_earlier_ring_earlier(bench: Bench) {
    let (run, now) = (run("earlier"), bench.delivery.now());
    let (earlier, later) = (now + bench.pace.near, now + Duration::from_hours(10));
    set(&bench, &run, Some(later)).await;
    set(&bench, &run, Some(earlier)).await;
    rung(&mut Inbox::of(&bench), &run, earlier).await;
}

pub(super) async fn set_later_ring_later_too(bench: Bench) {
    let now = bench.delivery.now();
    let (near, far) = (now + bench.pace.near, now + bench.pace.far);
    let mut inbox = Inbox::of(&bench);
    let (run, other) = (run("later"), run("later, and as before"));
    set(&bench, &run, Some(near)).await;
    set(&bench, &run, Some(far)).await;
    // What was set first is set again last: it must not be taken for what is set already.
    for due in [near, far, near] {
        set(&bench, &other, Some(due)).await;
    }
    rung(&mut inbox, &run, far).await;
    rung(&mut inbox, &other, near).await;
    // Rung for the first time too early, as it were, the run says again what it waits for.
    set(&bench, &other, Some(far)).await;
    rung(&mut inbox, &other, far).await;
}

pub(super) async fn taken_away_and_set_again_ring(bench: Bench) {
    let (run, now) = (run("taken away"), bench.delivery.now());
    let due = now + bench.pace.near;
    set(&bench, &run, None).await;
    set(&bench, &run, Some(due)).await;
    set(&bench, &run, None).await;
    set(&bench, &run, Some(due)).await;
    rung(&mut Inbox::of(&bench), &run, due).await;
}

/// The message was lost behind the alarm: the sweep sets it again, and it rings again.
pub(super) async fn that_have_rung_may_be_set_again(bench: Bench) {
    let (run, now) = (run("again"), bench.delivery.now());
    let due = now + bench.pace.near;
    let mut inbox = Inbox::of(&bench);
    set(&bench, &run, Some(due)).await;
    rung(&mut inbox, &run, due).await;
    inbox.linger().await;
    let mut inbox = Inbox::of(&bench);
    set(&bench, &run, Some(due)).await;
    rung(&mut inbox, &run, due).await;
}

pub(super) async fn of_many_runs_all_ring(bench: Bench) {
    let now = bench.delivery.now();
    let (near, far) = (now + bench.pace.near, now + bench.pace.far);
    let runs: Vec<_> = (0..40).map(|n| workflow(&format!("many {}", n / 2)).run(n % 2)).collect();
    let due = |n: usize| if n.is_multiple_of(2) { near } else { far };
    let mut inbox = Inbox::of(&bench);
    for (n, run) in runs.iter().enumerate() {
        set(&bench, run, Some(due(n))).await;
    }
    for (n, run) in runs.iter().enumerate() {
        rung(&mut inbox, run, due(n)).await;
    }
}

pub(super) async fn of_hostile_ids_ring(bench: Bench) {
    let now = bench.delivery.now();
    let mut inbox = Inbox::of(&bench);
    let alarms: Vec<_> = hostile_runs()
        .into_iter()
        .enumerate()
        .map(|(n, run)| (run, now + if n.is_multiple_of(3) { bench.pace.near } else { bench.pace.far }))
        .collect();
    for (run, due) in &alarms {
        set(&bench, run, Some(*due)).await;
    }
    for (run, due) in &alarms {
        rung(&mut inbox, run, *due).await;
    }
    inbox.linger().await;
    assert!(inbox.messages.iter().all(|(_, message)| alarms.iter().any(|(run, _)| message.run() == run)));
}
