//! Rule C1 as a table, for any store behind the proxy: the fault, what becomes of the commit, what it costs.

use bytes::Bytes;
use dormouse_core::RunKey;
use dormouse_engine::commit::{Outcome, commit};
use dormouse_engine::host::Machine;
use dormouse_engine::store::{Entry, RowUpdate, Store, StoreError};
use dormouse_testing::later;
use dormouse_tests::proxy::{Action, Proxy, Refusal, Rule, Spoiled};

use super::parts::{PATIENCE, at, opening};

/// So often, a commit of unknown outcome is sent.
pub const TRIES: u64 = 5;

/// What becomes of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Won,
    Unknown,
}

/// A fault, and what the store's user sees of it.
pub struct Case {
    pub action: Action,
    pub times: u64,
    pub fate: Fate,
    /// Puts that the client sends.
    pub sent: u64,
    /// Puts that arrive at the service, in the end.
    pub landed: u64,
}

const fn case(action: Action, times: u64, fate: Fate, sent: u64, landed: u64) -> Case {
    Case { action, times, fate, sent, landed }
}

/// What no store may mistake, whatever it is made of.
pub fn every_store() -> Vec<Case> {
    use Action::{Close, DropAnswer, LandLater, LandThenRefuse, Refuse, Slow, Spoil, Twice};
    use Fate::{Unknown, Won};
    use Refusal::{Conflict, Internal, Throttled, Unavailable};
    let too_slow = u64::try_from(PATIENCE.as_millis()).unwrap() + 500;
    vec![
        case(Slow(0), 1, Won, 1, 1),
        case(Slow(300), 1, Won, 1, 1),
        case(Slow(too_slow), 1, Won, 2, 2),
        case(Twice, 1, Won, 1, 2),
        case(DropAnswer, 1, Won, 2, 2),
        case(DropAnswer, 4, Won, 5, 5),
        case(DropAnswer, TRIES, Unknown, 5, 5),
        case(Close, 1, Won, 2, 1),
        case(Close, TRIES, Unknown, 5, 0),
        case(LandLater(200), 1, Won, 2, 2),
        case(LandThenRefuse(Internal), 1, Won, 2, 2),
        case(LandThenRefuse(Unavailable), 1, Won, 2, 2),
        case(LandThenRefuse(Throttled), 1, Won, 2, 2),
        case(Refuse(Internal), 1, Won, 2, 1),
        case(Refuse(Internal), TRIES, Unknown, 5, 0),
        case(Refuse(Unavailable), 1, Won, 2, 1),
        case(Refuse(Throttled), 1, Won, 2, 1),
        case(Refuse(Throttled), TRIES, Unknown, 5, 0),
        case(Refuse(Conflict), 1, Won, 2, 1),
        case(Refuse(Conflict), TRIES, Unknown, 5, 0),
        case(Refuse(Refusal::Precondition), 1, Won, 2, 1),
        case(Spoil(Spoiled::Empty), 1, Won, 1, 1),
        case(Spoil(Spoiled::NoFields), 1, Won, 1, 1),
    ]
}

/// Commits under every fault of the table, one after another, in one run. `store` goes through the proxy, `truth`
/// does not; `put` names the request that holds a batch.
pub async fn ask(store: &dyn Store, truth: &dyn Store, proxy: &Proxy, run: &RunKey, put: &str, cases: Vec<Case>) {
    commit(store, &Machine::here(), run, &"batch 0".into(), &Entry::Open(opening())).await.unwrap();
    let mut expected: Vec<Bytes> = vec!["batch 0".into()];
    for (number, Case { action, times, fate, sent, landed }) in cases.into_iter().enumerate() {
        let name = format!("case {number}: {action:?}, {times} times");
        let sequence = expected.len() as u64;
        let record = Bytes::from(format!("batch {sequence} of {name}"));
        let struck = proxy.rule(Rule::once(put, action.clone()).times(times));
        drop(proxy.reset());
        let outcome =
            commit(store, &Machine::here(), run, &record, &Entry::Append(later(sequence), RowUpdate::NONE)).await;
        let fine = match fate {
            Fate::Won => outcome == Ok(Outcome::Won),
            Fate::Unknown => matches!(outcome, Err(StoreError::Unknown(_))),
        };
        assert!(fine, "{name}: {outcome:?}");
        settled(proxy, put, landed).await;
        let tally = proxy.counts().of(put);
        assert_eq!(
            (tally.came, tally.forwarded, struck.times()),
            (sent, landed, times),
            "{name}: {:?}",
            proxy.counts()
        );
        proxy.clear();
        if landed > 0 {
            expected.push(record.clone());
        }
        assert_eq!(history(truth, run).await, expected, "{name}");
        // The next who comes knows what stands there: himself or another.
        let another = Bytes::from(format!("another {sequence}"));
        let outcome = commit(store, &Machine::here(), run, &another, &Entry::Append(later(sequence), RowUpdate::NONE))
            .await
            .unwrap();
        if landed > 0 {
            assert_eq!(outcome, Outcome::Lost(record.clone()), "{name}");
            assert_eq!(
                commit(store, &Machine::here(), run, &record, &Entry::Append(later(sequence), RowUpdate::NONE)).await,
                Ok(Outcome::Won),
                "{name}"
            );
        } else {
            assert_eq!(outcome, Outcome::Won, "{name}");
            expected.push(another);
        }
    }
    assert_eq!(history(truth, run).await, expected);
}

/// Somebody else's batch stands there; whatever happens to the answer, that one is found.
pub async fn ask_the_loser(store: &dyn Store, proxy: &Proxy, run: &RunKey, put: &str) {
    use Action::{Close, DropAnswer, LandThenRefuse, Refuse, Slow, Twice};
    commit(store, &Machine::here(), run, &"batch 0".into(), &Entry::Open(opening())).await.unwrap();
    commit(store, &Machine::here(), run, &"theirs".into(), &Entry::Append(later(1), RowUpdate::NONE)).await.unwrap();
    let actions = [
        Slow(100),
        Twice,
        DropAnswer,
        Close,
        Refuse(Refusal::Conflict),
        Refuse(Refusal::Precondition),
        Refuse(Refusal::Internal),
        LandThenRefuse(Refusal::Internal),
        Refuse(Refusal::Throttled),
    ];
    for action in actions {
        let struck = proxy.rule(Rule::once(put, action.clone()));
        let outcome =
            commit(store, &Machine::here(), run, &"ours".into(), &Entry::Append(later(1), RowUpdate::NONE)).await;
        assert_eq!(outcome, Ok(Outcome::Lost("theirs".into())), "{action:?}");
        assert_eq!(struck.times(), 1, "{action:?}");
    }
}

/// A put that everybody has given up, and that lands after all, finds its place taken (rule C4).
pub async fn ask_the_zombie(store: &dyn Store, truth: &dyn Store, proxy: &Proxy, run: &RunKey, put: &str) {
    commit(store, &Machine::here(), run, &"batch 0".into(), &Entry::Open(opening())).await.unwrap();
    // Longer than all the pauses between the tries of one commit, so that nothing lands while it still asks.
    proxy.rule(Rule::once(put, Action::LandLater(3_000)).times(TRIES));
    drop(proxy.reset());
    let given_up =
        commit(store, &Machine::here(), run, &"the zombie's".into(), &Entry::Append(later(1), RowUpdate::NONE)).await;
    assert!(matches!(given_up, Err(StoreError::Unknown(_))), "{given_up:?}");
    assert_eq!(proxy.counts().of(put).forwarded, 0, "it has not landed yet");
    assert_eq!(
        commit(store, &Machine::here(), run, &"the successor's".into(), &Entry::Append(later(1), RowUpdate::NONE))
            .await,
        Ok(Outcome::Won)
    );
    settled(proxy, put, TRIES + 1).await;
    assert_eq!(proxy.counts().of(put).forwarded, TRIES + 1);
    assert_eq!(history(truth, run).await, ["batch 0", "the successor's"]);
}

/// The same faults on a commit that changes the row: both are there or neither is, and the row says what the
/// batches say. `puts` are the requests that it consists of.
pub async fn ask_with_the_row(store: &dyn Store, truth: &dyn Store, proxy: &Proxy, run: &RunKey, puts: &[&str]) {
    commit(store, &Machine::here(), run, &"batch 0".into(), &Entry::Open(opening())).await.unwrap();
    let mut sequence = 1;
    for put in puts {
        for Case { action, times, fate, .. } in every_store() {
            let name = format!("{action:?} on {put}, {times} times");
            let before = truth.row(run).await.unwrap().unwrap().due.unwrap();
            let due = at(800_000 - sequence);
            let record = Bytes::from(format!("batch {sequence}"));
            proxy.rule(Rule::once(put, action.clone()).times(times));
            let outcome =
                commit(store, &Machine::here(), run, &record, &Entry::Append(later(sequence), RowUpdate::due(due)))
                    .await;
            assert!(!proxy.outstanding().iter().any(|rule| rule.times == Some(1)), "{name}: it never struck");
            proxy.clear();
            // What was sent off late has arrived.
            tokio::time::sleep(std::time::Duration::from_millis(250)).await;
            let there = history(truth, run).await.len() as u64 == sequence + 1;
            let row = truth.row(run).await.unwrap().unwrap();
            match outcome {
                Ok(Outcome::Won) => assert!(there, "{name}"),
                Ok(Outcome::Lost(found)) => panic!("{name}: lost to {found:?}, and there is nobody else"),
                // It may be there, and may not; a commit that is only slow must not end so.
                Err(StoreError::Unknown(_)) => assert!(fate == Fate::Unknown, "{name}"),
                Err(error) => panic!("{name}: {error}"),
            }
            match there {
                true => assert_eq!(row.due, Some(due), "{name}: the row goes with its batch"),
                // Without transactions, too early is allowed; too late never is.
                false => assert!(row.due.unwrap() <= before, "{name}"),
            }
            if !there {
                let again =
                    commit(store, &Machine::here(), run, &record, &Entry::Append(later(sequence), RowUpdate::due(due)))
                        .await;
                assert_eq!(again, Ok(Outcome::Won), "{name}: when the faults are over");
            }
            sequence += 1;
        }
    }
}

/// Waits until so many have been forwarded and answered: some land when their client has long gone.
async fn settled(proxy: &Proxy, put: &str, landed: u64) {
    for _ in 0..1_000 {
        let tally = proxy.counts().of(put);
        if tally.answers.values().sum::<u64>() >= landed {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// All batches of a run.
pub async fn history(store: &dyn Store, run: &RunKey) -> Vec<Bytes> {
    let mut records = Vec::new();
    loop {
        let stretch = store.read(run, records.len() as u64).await.unwrap();
        assert!(!stretch.gap);
        records.extend(stretch.records);
        if !stretch.more {
            return records;
        }
    }
}
