//! One turn that asks for very many activities: all are handed out, though an invocation is killed meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;
use dormouse::{Activity, ActivityOptions, App, Failure, Timestamp, Workflow};
use dormouse_aws::blobs::Blobs;
use dormouse_aws::queues::{LONGEST_BACKLOG, QueueSettings, Queues, ReceiveError};
use dormouse_aws::wire::{Message, decode, encode};
use dormouse_core::RunKey;
use dormouse_engine::host::Machine;
use dormouse_engine::ports::Ports;
use dormouse_engine::seams::{RunMessage, SeamFuture};
use dormouse_engine::store::StoreError;
use dormouse_lambda::envelope::Letter;
use dormouse_lambda::orchestrator::{Consumer, Counter};
use dormouse_testing::World;
use dormouse_tests::proxy::{Action, Rule};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all, ready};
use object_store::memory::InMemory;
use tokio::runtime::{Handle, Runtime};

use super::parts::{Setup, fresh, sdk};

const ACTIVITIES: u64 = 10_000;
/// What SQS takes in one request.
const A_REQUEST: u64 = 10;
/// The process is killed after so many requests.
const KILLED_AFTER: u64 = 300;
/// What the orchestrator's function has of its 30 seconds.
const AN_INVOCATION: Duration = Duration::from_secs(28);

async fn work(_: Activity, number: u64) -> Result<u64, Failure> {
    Ok(number)
}

async fn wide(cx: Workflow, _: ()) -> Result<(), Failure> {
    const PATIENT: ActivityOptions = ActivityOptions::start_to_close(Duration::from_mins(1));
    let calls = (0..ACTIVITIES).map(|number| cx.activity(work, &number).options(PATIENT).into_future());
    join_all(calls).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(())
}

/// Reads letters, and does nothing else.
#[derive(Clone)]
struct Reader;

impl Counter for Reader {
    fn read(&self, body: &str) -> BoxFuture<'static, Result<Message, ReceiveError>> {
        ready(decode(body).map_err(ReceiveError::from)).boxed()
    }

    fn is_dead(&self, _: &str) -> bool {
        false
    }

    fn is_trusted(&self, _: &Letter) -> bool {
        true
    }

    fn pass_on(&self, _: Message) -> SeamFuture<'static, ()> {
        ready(Ok(())).boxed()
    }

    fn set_aside<'a>(
        &'a self,
        _: &'a Letter,
        _: Option<&'a RunKey>,
        _: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        ready(Ok(())).boxed()
    }

    fn hide<'a>(&'a self, _: &'a [Letter], _: u32) -> BoxFuture<'a, ()> {
        ready(()).boxed()
    }

    fn again_soon<'a>(&'a self, _: &'a [Letter]) -> BoxFuture<'a, ()> {
        ready(()).boxed()
    }
}

fn letter(message: &RunMessage, deliveries: u32) -> Letter {
    Letter {
        id: "0".into(),
        receipt: "receipt".into(),
        queue_arn: "runs".into(),
        sender: "the engine".into(),
        group: Some("w".into()),
        deliveries,
        sent_at: Timestamp::from_millis(0),
        reason: None,
        body: encode(&Message::Run(message.clone())).unwrap(),
    }
}

/// A task queue, through the proxy and without it.
struct Tasks {
    setup: Setup,
    truth: aws_sdk_sqs::Client,
    url: String,
}

impl Tasks {
    async fn new() -> Option<Self> {
        let setup = Setup::new().await?;
        let truth = aws_sdk_sqs::Client::new(&sdk(&setup.endpoint).await);
        let create = truth.create_queue().queue_name(fresh("default"));
        // What was received once is not received again.
        let create = create.attributes(QueueAttributeName::VisibilityTimeout, "3600");
        let url = create.send().await.unwrap().queue_url.unwrap();
        Some(Self { setup, truth, url })
    }

    /// The queues of one process.
    async fn queues(&self) -> Queues {
        let through = sdk(&self.setup.proxy.url()).await;
        let settings = QueueSettings {
            run_queue_url: String::new(),
            alarm_queue_url: String::new(),
            alarm_queue_arn: String::new(),
            dead_letters_url: String::new(),
            task_queues: BTreeMap::from([("default".into(), self.url.clone())]),
            schedule_group: String::new(),
            schedule_role_arn: String::new(),
            longest_delay: Duration::from_secs(900),
            schedule_lead: Duration::from_secs(120),
            longest_backlog: LONGEST_BACKLOG,
            host: Arc::new(Machine::here()),
        };
        let blobs = Blobs::new(Arc::new(InMemory::new()), Handle::current());
        let scheduler = aws_sdk_scheduler::Client::new(&through);
        Queues::new(aws_sdk_sqs::Client::new(&through), scheduler, settings, blobs, Handle::current()).unwrap()
    }

    /// How many messages there are, and of which activities.
    async fn received(&self) -> (u64, BTreeSet<u64>) {
        let consumers = (0..8).map(async |_| {
            let mut found = Vec::new();
            loop {
                let receive = self.truth.receive_message().queue_url(&self.url).max_number_of_messages(10);
                let messages = receive.send().await.unwrap().messages.unwrap_or_default();
                if messages.is_empty() {
                    return found;
                }
                for message in messages {
                    let Ok(Message::Task(task)) = decode(message.body().unwrap()) else { panic!("no task") };
                    found.push(task.task.id);
                }
            }
        });
        let found: Vec<_> = join_all(consumers).await.into_iter().flatten().collect();
        (found.len() as u64, found.into_iter().collect())
    }

    /// Waits until the proxy has seen so many requests that send.
    async fn until(&self, requests: u64) {
        while self.setup.proxy.counts().came("sqs/Send*") < requests {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// One invocation of a fresh process: whether its letter was handled. It is killed when `killed` resolves.
async fn invocation(app: Arc<App>, ports: Ports, letter: Letter, killed: impl Future<Output = ()>) -> Option<bool> {
    let until = ports.host.instant() + AN_INVOCATION;
    let consumer = Consumer::begin(app, ports, Reader).unwrap();
    let handled = consumer.letters(vec![letter], until);
    futures::pin_mut!(killed);
    tokio::select! {
        answer = handled => {
            Some(serde_json::to_value(answer).unwrap()["batchItemFailures"].as_array().unwrap().is_empty())
        }
        () = killed => None,
    }
}

#[test]
fn ten_thousand_activities_of_one_turn_are_handed_out_though_an_invocation_is_killed() {
    let outside = Runtime::new().unwrap();
    let Some(tasks) = outside.block_on(Tasks::new()) else { return };
    let world = World::new(App::new().workflow("wide", wide).activity("work", work)).shared();
    let process = world.process();
    let run = process.start("wide", "w", "r", &());
    let message = world.mail.drop_messages().remove(0);
    let began = |queues: Queues| Ports {
        activities: Arc::new(queues),
        host: Arc::new(Machine::here()),
        ..world.process().ports
    };

    // Nothing of a killed process is sent any more: its requests live on its own runtime.
    let first = Runtime::new().unwrap();
    let killed = first.block_on(async {
        let ports = began(tasks.queues().await);
        invocation(Arc::clone(world.app()), ports, letter(&message, 1), tasks.until(KILLED_AFTER)).await
    });
    first.shutdown_background();
    assert_eq!(killed, None, "it was at work");
    assert_eq!(world.state(&run).pending.activities.open.len() as u64, ACTIVITIES, "the turn is in the history");

    let entry = tasks.setup.proxy.rule(Rule::once("sqs/SendMessageBatch*", Action::Partial));
    drop(tasks.setup.proxy.reset());
    let handled = outside.block_on(async {
        let ports = began(tasks.queues().await);
        invocation(Arc::clone(world.app()), ports, letter(&message, 2), std::future::pending()).await
    });
    assert_eq!(handled, Some(true), "within one invocation");
    let requests = tasks.setup.proxy.counts().came("sqs/Send*");
    assert_eq!((requests, entry.times()), (ACTIVITIES / A_REQUEST + 1, 1), "one more for the entry that was not taken");
    let (messages, found) = outside.block_on(tasks.received());
    assert_eq!(found, world.state(&run).pending.activities.open.keys().copied().collect(), "every one of them");
    // What the killed process had sent comes twice, and no more than that.
    assert!(messages <= ACTIVITIES + (KILLED_AFTER + 16) * A_REQUEST, "{messages} messages");
}

/// What SQS does not take is asked for a bounded number of times, then it is an error.
#[tokio::test]
async fn what_is_never_taken_is_an_error_after_some_tries() {
    use dormouse_engine::seams::ActivityQueue;
    use dormouse_testing::delivery::plain_task;
    use dormouse_tests::proxy::Refusal;

    let Some(queue) = Tasks::new().await else { return };
    let queues = queue.queues().await;
    let now = Timestamp::from_millis(0);
    let task = |id| plain_task(&super::parts::run("w"), dormouse_core::RunId::from_bytes([7; 16]), id, now);
    let tasks: Vec<_> = (0..10).map(task).collect();
    queue.setup.proxy.rule(Rule::every("sqs/message/activity_task@*", Action::Refuse(Refusal::Internal)).after(9));
    let sent = ActivityQueue::send(&queues, tasks).await;
    assert!(matches!(&sent, Err(StoreError::Unknown(why)) if why.as_str().contains("1 messages")), "{sent:?}");
    assert_eq!(queue.setup.proxy.counts().came("sqs/Send*"), 5);
    assert_eq!(queue.received().await.0, 9);
}
