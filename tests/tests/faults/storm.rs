//! Processes that commit to one run at once, through faults by seed, one of them killed: nothing acknowledged is lost,
//! nothing is in the history twice, and the history is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_sdk_dynamodb::Client;
use dormouse_aws::blobs::Blobs;
use dormouse_aws::store::DynamoStore;
use dormouse_core::Call;
use dormouse_core::history::{Batch, Event, Input};
use dormouse_core::operations;
use dormouse_core::{App, Arrival, IdConflictPolicy, IdReusePolicy, Payload, RunKey, StartRequest};
use dormouse_engine::host::Machine;
use dormouse_engine::intake::{Announce, Begun, Intake, Taken};
use dormouse_engine::ports::Ports;
use dormouse_engine::seams::Host;
use dormouse_engine::states::{States, read_history, read_state};
use dormouse_engine::store::Store;
use dormouse_engine::stores::object::ObjectStore;
use dormouse_testing::World;
use dormouse_tests::dice::Dice;
use dormouse_tests::proxy::{Action, Refusal, Rule, Spoiled};
use object_store::RetryConfig;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::parts::{Setup, credentials, fresh, run, s3, sdk};

const WRITERS: usize = 8;
const INPUTS: usize = 13;
/// A caller gives up only when something is wrong with the engine: each try meets faults of its own.
const MOST_TRIES: usize = 60;
/// Tells a process of this test's program that it is a writer.
const TASK: &str = "DORMOUSE_FAULTS_WRITER";

/// Which store the writers share.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Place {
    S3 { bucket: String, prefix: String },
    DynamoDb { table: String, bucket: String },
}

/// What a writer process is told.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    place: Place,
    run: String,
    writer: usize,
}

/// Takes inputs in as a process of its own does: nobody decides here.
fn intake(store: Arc<dyn Store>) -> Intake {
    let host: Arc<dyn Host> = Arc::new(Machine::here());
    let states = Arc::new(States::new(Arc::clone(&store), Arc::clone(&host)));
    let mut ports = Ports { store, states, host, ..World::new(App::new()).process().ports };
    ports.choices.shared = true;
    Intake::new(ports)
}

impl Place {
    /// The store as the functions make it, by the environment.
    async fn store(&self) -> Arc<dyn Store> {
        let runtime = Handle::current();
        match self {
            Self::S3 { bucket, prefix } => Arc::new(ObjectStore::s3(bucket, prefix, runtime).unwrap()),
            Self::DynamoDb { table, bucket } => {
                let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
                let blobs = Blobs::s3(bucket, runtime.clone()).unwrap();
                Arc::new(DynamoStore::new(Client::new(&config), table, blobs, runtime))
            }
        }
    }
}

/// Not a test: what a writer process does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer() {
    let Ok(task) = std::env::var(TASK) else { return };
    let Task { place, run: workflow_id, writer } = serde_json::from_str(&task).unwrap();
    let intake = Arc::new(intake(place.store().await));
    let run = run(&workflow_id);
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..INPUTS {
        let (intake, run) = (Arc::clone(&intake), run.clone());
        callers.spawn(async move {
            let request_id = format!("{writer}-{number}");
            let payload = Payload::encode(&number).unwrap();
            let signal =
                Arrival::Signal(operations::Signaled { request_id: request_id.clone(), name: "drop".into(), payload });
            for _ in 0..MOST_TRIES {
                match intake.take(&run, None, &signal, Announce::Pinned).await {
                    // On standard output, which is a pipe: whoever reads it knows what was acknowledged, also of the
                    // dead.
                    Ok(Taken::Recorded { .. } | Taken::Duplicate(_) | Taken::Carried) => {
                        return println!("acknowledged {request_id}");
                    }
                    Ok(refused) => panic!("{request_id}: {refused:?}"),
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
            println!("gave up {request_id}");
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
}

fn spawn(setup: &Setup, place: &Place, run: &RunKey, writer: usize) -> Child {
    let task = Task { place: place.clone(), run: run.workflow.workflow_id.to_string(), writer };
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "storm::a_writer", "--nocapture"])
        .env(TASK, serde_json::to_string(&task).unwrap())
        .envs([("AWS_ENDPOINT_URL", setup.proxy.url().as_str()), ("AWS_REGION", "us-east-1")])
        .envs(credentials())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Faults for everything that a commit and its reads consist of.
fn faults(dice: &mut Dice, puts: &str, reads: &str) -> Vec<Rule> {
    use Action::{Close, DropAnswer, LandLater, LandThenRefuse, Refuse, Slow, Spoil, Twice};
    let mut rules = Vec::new();
    for action in [
        DropAnswer,
        Close,
        LandLater(40),
        LandThenRefuse(Refusal::Internal),
        LandThenRefuse(Refusal::Unavailable),
        Refuse(Refusal::Internal),
        Refuse(Refusal::Conflict),
        Refuse(Refusal::Throttled),
        Slow(30),
        Twice,
        Spoil(Spoiled::Half),
    ] {
        rules.push(Rule::sometimes(puts, 35, dice.roll(), action));
    }
    for action in [Close, DropAnswer, Refuse(Refusal::Internal), Refuse(Refusal::Throttled), Spoil(Spoiled::Half)] {
        rules.push(Rule::sometimes(reads, 100, dice.roll(), action));
    }
    rules
}

/// All writers at once; `kill` says after how many acknowledgements the first of them is killed. What was acknowledged
/// to whom.
fn all_writers(setup: &Setup, place: &Place, run: &RunKey, kill: Option<u64>) -> BTreeSet<String> {
    let writers: Vec<_> = (0..WRITERS).map(|writer| (writer, spawn(setup, place, run, writer))).collect();
    let listeners: Vec<_> = writers
        .into_iter()
        .map(|(writer, mut child)| {
            let kill = kill.filter(|_| writer == 0);
            std::thread::spawn(move || {
                let mut acknowledged = Vec::new();
                for line in BufReader::new(child.stdout.take().unwrap()).lines() {
                    let line = line.unwrap();
                    assert!(!line.contains("gave up"), "{line}");
                    // The harness may have written the beginning of the first line.
                    if let Some((_, id)) = line.split_once("acknowledged ") {
                        acknowledged.push(id.to_owned());
                    }
                    if kill == Some(acknowledged.len() as u64) {
                        child.kill().unwrap();
                    }
                }
                let status = child.wait().unwrap();
                assert!(kill.is_some() || (status.success() && acknowledged.len() == INPUTS), "writer {writer}");
                acknowledged
            })
        })
        .collect();
    listeners.into_iter().flat_map(|listener| listener.join().unwrap()).collect()
}

/// What is in the history, each once, and the history is whole.
async fn signals(truth: &dyn Store, run: &RunKey) -> BTreeSet<String> {
    let state = read_state(truth, run).await.expect("an unbroken chain").expect("the run");
    let records = read_history(truth, run).await.unwrap();
    assert_eq!(records.len() as u64, state.next_sequence);
    let mut times: BTreeMap<String, u32> = BTreeMap::new();
    for (sequence, record) in records.iter().enumerate() {
        for event in Batch::decode(sequence as u64, record).unwrap().events {
            if let Event::Input(Input::Signaled(operations::Signaled { request_id, .. })) = event {
                *times.entry(request_id).or_default() += 1;
            }
        }
    }
    assert!(times.values().all(|times| *times == 1), "in the history more than once: {times:?}");
    times.into_keys().collect()
}

/// `puts` and `reads` are what the faults strike.
async fn storm(setup: &Setup, place: Place, truth: Arc<dyn Store>, puts: &str, reads: &str) {
    let mut dice = Dice::cast("storm of faults");
    for stormy in [false, true] {
        let run = run(if stormy { "stormy" } else { "calm" });
        let start = StartRequest {
            call: Call::new("weather", Payload::encode(&()).unwrap()),
            request_id: "start".into(),
            reuse: IdReusePolicy::default(),
            conflict: IdConflictPolicy::default(),
        };
        let begun = intake(Arc::clone(&truth)).start(&run.workflow, &start, None).await.unwrap();
        assert!(matches!(begun, Some(Begun::Created(..))), "{begun:?}");
        if stormy {
            for rule in faults(&mut dice, puts, reads) {
                setup.proxy.rule(rule);
            }
        }
        drop(setup.proxy.reset());
        let kill = stormy.then(|| dice.within(1..INPUTS as u64));
        let acknowledged = tokio::task::block_in_place(|| all_writers(setup, &place, &run, kill));
        // What was sent off late has landed.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let counts = setup.proxy.counts();
        let tally = counts.of(puts);
        let there = signals(&*truth, &run).await;
        let lost: Vec<_> = acknowledged.difference(&there).collect();
        assert!(lost.is_empty(), "acknowledged, and not in the history: {lost:?}");
        let inputs = there.len();
        dormouse_tests::tell!(
            "{}: {inputs} inputs from {WRITERS} processes in {} puts of batches ({:.2} for each); {} of all requests \
             struck by faults",
            run.workflow.workflow_id,
            tally.came,
            tally.came as f64 / inputs as f64,
            counts.of("*").struck,
        );
        if stormy {
            // Chance strikes: each fault is shown to be borne by itself elsewhere (`commits.rs`).
            let spared = setup.proxy.outstanding();
            for rule in &spared {
                dormouse_tests::tell!("{}: never struck: {:?} on {}", run.workflow.workflow_id, rule.action, rule.on);
            }
            let rules = setup.proxy.rules().len();
            assert!(spared.len() * 3 <= rules, "{} of {rules} faults never struck", spared.len());
            assert!(counts.of(puts).struck > 0, "no put was struck");
        } else {
            assert_eq!(inputs, WRITERS * INPUTS);
        }
        setup.proxy.clear();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_loses_nothing_in_a_storm() {
    for setup in Setup::each_s3().await {
        let place = Place::S3 { bucket: setup.bucket.clone(), prefix: setup.prefix.clone() };
        storm(&setup, place, Arc::new(setup.truth()), "s3/PutObject/batch*", "s3/GetObject").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dynamodb_loses_nothing_in_a_storm() {
    let Some(setup) = Setup::new().await else { return };
    let (table, client) = (fresh("storm"), Client::new(&sdk(&setup.endpoint).await));
    DynamoStore::create_table(&client, &table).await.unwrap();
    let objects = s3(&setup.endpoint, &setup.bucket, RetryConfig::default());
    let blobs = Blobs::new(Arc::new(objects), Handle::current());
    let truth = Arc::new(DynamoStore::new(client, &table, blobs, Handle::current()));
    let place = Place::DynamoDb { table, bucket: setup.bucket.clone() };
    storm(&setup, place, truth, "dynamodb/PutItem/batch", "dynamodb/Query/history").await;
}
