//! SQS and EventBridge Scheduler, or what imitates them: the suites, and what is promised besides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use aws_sdk_sqs::config::Credentials;
use aws_sdk_sqs::types::QueueAttributeName;
use dormouse_aws::blobs::Blobs;
use dormouse_aws::queues::{LONGEST_BACKLOG, LONGEST_WAIT, QueueSettings, Queues, ReceiveError};
use dormouse_aws::wire::{LARGEST_BODY, Message, Stored, WireError, encode};
use dormouse_core::operations;
use dormouse_core::{ActivityTask, Arrival, Payload, RunId, RunKey, Timestamp, WorkflowKey};
use dormouse_engine::host::{Machine, random_id, wall_clock};
use dormouse_engine::seams::{ActivityQueue, Alarms, Intent, RunMessage, RunQueue, Wish};
use dormouse_engine::store::StoreError;
use dormouse_testing::delivery::plain_task;
use dormouse_testing::{Bench, Delivery, Pace, alarm_conformance, queue_conformance};
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::aws::AmazonS3Builder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Handle, Runtime};

const BUCKET: &str = "dormouse-queues-test";
/// Beyond this, schedules are made. AWS takes 900 s; nobody wants to wait for that here.
const LONGEST_DELAY: Duration = Duration::from_secs(3);
const LEAD: Duration = Duration::from_secs(2);

/// Clients of all parts.
#[derive(Clone)]
pub(super) struct Account {
    pub(super) sqs: aws_sdk_sqs::Client,
    scheduler: aws_sdk_scheduler::Client,
    pub(super) blobs: Blobs,
}

impl Account {
    pub(super) async fn at(endpoint: &str) -> Self {
        let config = aws_config::SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(endpoint)
            .credentials_provider(aws_sdk_sqs::config::SharedCredentialsProvider::new(Credentials::new(
                "test", "test", None, None, "test",
            )))
            .build();
        make_bucket(endpoint).await;
        let objects = AmazonS3Builder::new()
            .with_endpoint(endpoint)
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_bucket_name(BUCKET)
            .with_access_key_id("test")
            .with_secret_access_key("test")
            .build()
            .unwrap();
        Self {
            sqs: aws_sdk_sqs::Client::new(&config),
            scheduler: aws_sdk_scheduler::Client::new(&config),
            blobs: Blobs::new(Arc::new(objects), Handle::current()),
        }
    }

    /// Queues of this name, nothing on them.
    pub(super) async fn place(&self) -> Place {
        let name = format!("dormouse-{:032x}", u128::from_be_bytes(random_id()));
        let make = async |name: String, fifo: bool| {
            let mut create = self.sqs.create_queue().queue_name(name);
            if fifo {
                create = create.attributes(QueueAttributeName::FifoQueue, "true");
            }
            create.send().await.unwrap().queue_url.unwrap()
        };
        let alarms = make(format!("{name}-alarms"), false).await;
        let attributes = self.sqs.get_queue_attributes().queue_url(&alarms);
        let attributes = attributes.attribute_names(QueueAttributeName::QueueArn).send().await.unwrap();
        let arn = attributes.attributes.unwrap().remove(&QueueAttributeName::QueueArn).unwrap();
        self.scheduler.create_schedule_group().name(&name).send().await.unwrap();
        let tasks = make(format!("{name}-tasks"), false).await;
        let others = make(format!("{name}-others"), false).await;
        let settings = QueueSettings {
            run_queue_url: make(format!("{name}.fifo"), true).await,
            alarm_queue_url: alarms,
            alarm_queue_arn: arn,
            task_queues: BTreeMap::from([("default".into(), tasks), ("others".into(), others)]),
            dead_letters_url: make(format!("{name}-given-up"), false).await,
            schedule_group: name,
            schedule_role_arn: "arn:aws:iam::000000000000:role/scheduler".into(),
            longest_delay: LONGEST_DELAY,
            schedule_lead: LEAD,
            longest_backlog: LONGEST_BACKLOG,
            host: Arc::new(Machine::here()),
        };
        Place { account: self.clone(), queues: self.process(&settings), settings }
    }

    /// A process's own queues: with a memory of its own.
    pub(super) fn process(&self, settings: &QueueSettings) -> Queues {
        let (sqs, scheduler, blobs) = (self.sqs.clone(), self.scheduler.clone(), self.blobs.clone());
        Queues::new(sqs, scheduler, settings.clone(), blobs, Handle::current()).unwrap()
    }
}

/// The bucket may be there already: nobody asks.
async fn make_bucket(endpoint: &str) {
    let host = endpoint.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(host).await.expect("somebody answers at the endpoint");
    let request = format!("PUT /{BUCKET} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
}

/// A set of queues with both ends.
pub(super) struct Place {
    pub(super) account: Account,
    pub(super) queues: Queues,
    pub(super) settings: QueueSettings,
}

impl Place {
    /// Takes what is there now, in order, without waiting, as Lambda's poller would. What is on the alarm queue is
    /// passed on before it is deleted.
    pub(super) async fn take(&self, url: &str) -> Vec<Message> {
        let mut taken = Vec::new();
        loop {
            let receive = self.account.sqs.receive_message().queue_url(url).max_number_of_messages(10);
            let messages = receive.send().await.expect("the queue answers").messages.unwrap_or_default();
            if messages.is_empty() {
                return taken;
            }
            for message in messages {
                let body = message.body.expect("a body");
                let read = self.queues.receive(&body).await.expect("a message");
                if url == self.settings.alarm_queue_url {
                    self.queues.pass_on(read.clone()).await.expect("it is passed on");
                }
                taken.push(read);
                let delete = self.account.sqs.delete_message().queue_url(url);
                delete.receipt_handle(message.receipt_handle.expect("a receipt")).send().await.expect("it is deleted");
            }
        }
    }

    async fn pass_on_alarms(&self) {
        self.take(&self.settings.alarm_queue_url).await;
    }

    async fn take_tasks(&self, queue: &str) -> Vec<ActivityTask> {
        let messages = self.take(&self.settings.task_queues[queue]).await.into_iter();
        let task = |message| match message {
            Message::Task(task) => {
                let life = task.not_after.since(wall_clock());
                assert!(life > Duration::from_hours(6 * 24) && life <= Duration::from_hours(14 * 24), "{life:?}");
                task.task
            }
            other => panic!("no task: {other:?}"),
        };
        messages.map(task).collect()
    }

    /// How many messages are on a queue, those that wait included.
    pub(super) async fn count(&self, url: &str) -> u64 {
        use QueueAttributeName::{ApproximateNumberOfMessages as Now, ApproximateNumberOfMessagesDelayed as Later};
        let get = self.account.sqs.get_queue_attributes().queue_url(url).attribute_names(Now).attribute_names(Later);
        let found = get.send().await.unwrap().attributes.unwrap();
        [Now, Later].iter().map(|name| found[name].parse::<u64>().unwrap()).sum()
    }

    /// The names and times of the schedules.
    async fn schedules(&self) -> Vec<String> {
        let list = self.account.scheduler.list_schedules().group_name(&self.settings.schedule_group);
        let found = list.send().await.unwrap().schedules;
        found.into_iter().map(|schedule| schedule.name.unwrap()).collect()
    }
}

impl Delivery for Place {
    fn now(&self) -> Timestamp {
        wall_clock()
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        tokio::time::sleep(time).boxed()
    }

    fn messages(&self) -> BoxFuture<'_, Vec<RunMessage>> {
        async move {
            self.pass_on_alarms().await;
            let messages = self.take(&self.settings.run_queue_url).await.into_iter();
            let message = |message| match message {
                Message::Run(message) => message,
                other => panic!("no message to a decider: {other:?}"),
            };
            messages.map(message).collect()
        }
        .boxed()
    }

    fn tasks(&self) -> BoxFuture<'_, Vec<ActivityTask>> {
        async move {
            self.pass_on_alarms().await;
            self.take_tasks("default").await
        }
        .boxed()
    }
}

pub fn conforms(endpoint: &str) {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let account = Account::at(endpoint).await;
        let make = async || {
            let place = account.place().await;
            let queues = Arc::new(place.queues.clone());
            Bench {
                runs: queues.clone(),
                activities: queues.clone(),
                alarms: queues,
                delivery: Arc::new(place),
                // What imitates the Scheduler looks every ten seconds.
                pace: Pace {
                    near: Duration::from_secs(2),
                    far: Duration::from_secs(9),
                    patience: Duration::from_secs(120),
                    step: Duration::from_millis(500),
                },
            }
        };
        let report = queue_conformance(&make).await;
        dormouse_tests::tell!("SQS and Scheduler at {endpoint}: {report}");
        let report = alarm_conformance(&make).await;
        dormouse_tests::tell!("SQS and Scheduler at {endpoint}: {report}");
    });
}

pub(super) fn run(id: &str) -> RunKey {
    WorkflowKey::new("default", id).unwrap().run(0)
}

pub(super) const RUN_ID: RunId = RunId::from_bytes([7; 16]);

pub(super) fn signal(text: &str) -> RunMessage {
    let arrival = Arrival::Signal(operations::Signaled {
        request_id: "r".into(),
        name: "news".into(),
        payload: Payload::from_json(format!("\"{text}\"").into()),
    });
    RunMessage::Arrived { run: run("signaled"), run_id: RUN_ID, arrival }
}

pub fn sends_what_it_says(endpoint: &str) {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let account = Account::at(endpoint).await;
        announced_at_once(&account.place().await).await;
        the_same_twice_is_two_messages(&account.place().await).await;
        tasks_go_where_they_are_sent(&account.place().await).await;
        an_unchanged_alarm_is_sent_once(&account.place().await).await;
        an_alarm_that_rang_too_early_is_set_again(&account.place().await).await;
        two_processes_make_one_schedule(&account.place().await).await;
        what_is_far_away_is_left_to_the_sweep(&account.place().await).await;
        large_bodies_lie_in_the_bucket(&account.place().await).await;
        settings_that_cannot_work_are_refused(&account.place().await).await;
        failures_are_told_apart(&account.place().await).await;
    });
}

/// Its caller may die now.
async fn announced_at_once(place: &Place) {
    let arrival = Arrival::Cancel(operations::CancelRequested { request_id: "r".into(), reason: "enough".into() });
    let intent = Intent { run: run("announced"), wish: Wish::Take { arrival, pinned: false } };
    let ticket = place.queues.announce(intent.clone()).await.unwrap();
    assert_eq!(place.messages().await, [RunMessage::Intent(intent)], "with the ticket still held");
    ticket.settle(signal("instead"));
    assert_eq!(place.count(&place.settings.run_queue_url).await, 0, "the queued copy decides");
}

/// What is dispatched again within five minutes is not swallowed.
async fn the_same_twice_is_two_messages(place: &Place) {
    for _ in 0..2 {
        RunQueue::send(&place.queues, signal("x")).await.unwrap();
    }
    assert_eq!(place.messages().await, [signal("x"), signal("x")]);
}

async fn tasks_go_where_they_are_sent(place: &Place) {
    let mut task = plain_task(&run("tasks"), RUN_ID, 1, wall_clock());
    ActivityQueue::send(&place.queues, vec![task.clone()]).await.unwrap();
    assert_eq!(place.take_tasks("default").await, [task.clone()]);
    task.options.task_queue = Some("others".into());
    ActivityQueue::send(&place.queues, vec![task.clone()]).await.unwrap();
    assert_eq!(place.take_tasks("default").await, []);
    assert_eq!(place.take_tasks("others").await, [task.clone()]);
    // Through the alarm queue it finds its way, too.
    let later = ActivityTask { not_before: wall_clock() + Duration::from_secs(4), ..task.clone() };
    ActivityQueue::send(&place.queues, vec![later.clone()]).await.unwrap();
    let found = loop {
        place.pass_on_alarms().await;
        assert_eq!(place.take_tasks("default").await, []);
        let found = place.take_tasks("others").await;
        if !found.is_empty() {
            break found;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert_eq!(found, [later]);
    task.options.task_queue = Some("nowhere".into());
    ActivityQueue::send(&place.queues, vec![task]).await.unwrap();
    for url in place.settings.task_queues.values().chain([&place.settings.alarm_queue_url]) {
        assert_eq!(place.count(url).await, 0, "until its queue is there, the sweep asks for it again and again");
    }
}

async fn an_unchanged_alarm_is_sent_once(place: &Place) {
    let (run, now) = (run("alarmed"), wall_clock());
    let (soon, later) = (now + Duration::from_secs(2), now + Duration::from_hours(1));
    let url = &place.settings.alarm_queue_url;
    for _ in 0..3 {
        place.queues.set(&run, RUN_ID, Some(soon)).await.unwrap();
    }
    assert_eq!((place.count(url).await, place.schedules().await.len()), (1, 0));
    for _ in 0..3 {
        place.queues.set(&run, RUN_ID, Some(later)).await.unwrap();
    }
    assert_eq!((place.count(url).await, place.schedules().await.len()), (1, 1));
    place.queues.set(&run, RUN_ID, None).await.unwrap();
    assert_eq!((place.count(url).await, place.schedules().await.len()), (1, 1), "to take it away costs nothing");
    // Another run of the same key is another run.
    place.queues.set(&run, RunId::from_bytes([8; 16]), Some(later)).await.unwrap();
    assert_eq!(place.schedules().await.len(), 2);
    let names = place.schedules().await;
    assert!(names.iter().all(|name| name.starts_with(&format!("alarm-{}-", later.as_millis()))), "{names:?}");
}

/// Whoever forwarded it has another clock: by ours it is early, and must ring again.
async fn an_alarm_that_rang_too_early_is_set_again(place: &Place) {
    let (early, other) = (run("early"), run("other"));
    let due = Some(wall_clock() + Duration::from_hours(1));
    place.queues.set(&early, RUN_ID, due).await.unwrap();
    place.queues.set(&other, RUN_ID, due).await.unwrap();
    for name in place.schedules().await {
        let delete = place.account.scheduler.delete_schedule().name(name).group_name(&place.settings.schedule_group);
        delete.send().await.unwrap();
    }
    let rung = RunMessage::Arrived { run: early.clone(), run_id: RUN_ID, arrival: Arrival::Alarm };
    RunQueue::send(&place.queues, rung.clone()).await.unwrap();
    assert_eq!(place.messages().await, [rung]);
    place.queues.set(&early, RUN_ID, due).await.unwrap();
    place.queues.set(&other, RUN_ID, due).await.unwrap();
    assert_eq!(place.schedules().await.len(), 1, "what has rung, and nothing else");
}

async fn two_processes_make_one_schedule(place: &Place) {
    let due = wall_clock() + Duration::from_secs(6);
    let task = plain_task(&run("tasks"), RUN_ID, 1, wall_clock() + Duration::from_secs(60));
    for _ in 0..2 {
        let process = place.account.process(&place.settings);
        process.set(&run("alarmed"), RUN_ID, Some(due)).await.unwrap();
        ActivityQueue::send(&process, vec![task.clone()]).await.unwrap();
    }
    let mut names = place.schedules().await;
    names.sort();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[1].starts_with(&format!("task-{}-", task.not_before.as_millis())), "{names:?}");
    // It fires, and is gone.
    while place.count(&place.settings.alarm_queue_url).await == 0 {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(place.schedules().await, names[1..]);
}

async fn what_is_far_away_is_left_to_the_sweep(place: &Place) {
    let now = wall_clock();
    let task = plain_task(&run("tasks"), RUN_ID, 1, now + LONGEST_WAIT + Duration::from_mins(1));
    ActivityQueue::send(&place.queues, vec![task]).await.unwrap();
    for due in [now + Duration::from_hours(24 * 365 * 6), Timestamp::from_millis(u64::MAX)] {
        place.queues.set(&run("alarmed"), RUN_ID, Some(due)).await.unwrap();
    }
    assert_eq!((place.count(&place.settings.alarm_queue_url).await, place.schedules().await.len()), (0, 0));
}

async fn large_bodies_lie_in_the_bucket(place: &Place) {
    let large = signal(&"x".repeat(LARGEST_BODY));
    RunQueue::send(&place.queues, large.clone()).await.unwrap();
    assert_eq!(place.messages().await, std::slice::from_ref(&large));
    let body = encode(&Message::Run(large)).unwrap();
    let stored = Stored::of(&body);
    let pointer = encode(&Message::Stored(stored.clone())).unwrap();
    let there = place.account.blobs.get(&stored.key).await.unwrap();
    assert_eq!(there.as_deref(), Some(body.as_bytes()), "it stays for copies that come late");
    let received = async |pointer: &str| place.queues.receive(pointer).await;
    assert!(received(&pointer).await.is_ok());
    // Whoever writes to the bucket does not write messages.
    place.account.blobs.put(&stored.key, body.replace('x', "y").into()).await.unwrap();
    assert!(
        matches!(received(&pointer).await, Err(ReceiveError::Wire(WireError::Malformed(why))) if why.contains("altered"))
    );
    let nested = Stored::of(&pointer);
    place.account.blobs.put(&nested.key, pointer.into()).await.unwrap();
    let nested = encode(&Message::Stored(nested)).unwrap();
    assert!(matches!(received(&nested).await, Err(ReceiveError::Wire(_))), "no pointers to pointers");
    let missing = encode(&Message::Stored(Stored::of("never stored"))).unwrap();
    assert!(
        matches!(received(&missing).await, Err(ReceiveError::Wire(WireError::Malformed(why))) if why.contains("not there"))
    );
}

async fn settings_that_cannot_work_are_refused(place: &Place) {
    let make = |settings: QueueSettings| {
        let Account { sqs, scheduler, blobs } = place.account.clone();
        Queues::new(sqs, scheduler, settings, blobs, Handle::current()).map(|_| ())
    };
    let with = |longest_delay| QueueSettings { longest_delay, ..place.settings.clone() };
    for seconds in [1, 900] {
        assert_eq!(make(with(Duration::from_secs(seconds))), Ok(()));
    }
    for seconds in [0, 901] {
        assert!(matches!(make(with(Duration::from_secs(seconds))), Err(StoreError::Refused(_))), "{seconds}");
    }
    let homeless = QueueSettings { task_queues: BTreeMap::new(), ..place.settings.clone() };
    assert!(matches!(make(homeless), Err(StoreError::Refused(why)) if why.as_str().contains("default")));
}

async fn failures_are_told_apart(place: &Place) {
    let mut settings = place.settings.clone();
    settings.run_queue_url += "-that-is-not-there.fifo";
    settings.schedule_group += "-that-is-not-there";
    let lost = place.account.process(&settings);
    let refused = RunQueue::send(&lost, signal("x")).await;
    assert!(matches!(&refused, Err(StoreError::Refused(why)) if why.as_str().contains("run queue")), "{refused:?}");
    let far = Some(wall_clock() + Duration::from_hours(1));
    let refused = lost.set(&run("alarmed"), RUN_ID, far).await;
    assert!(matches!(&refused, Err(StoreError::Refused(why)) if why.as_str().contains("Scheduler")), "{refused:?}");
    // It was not set, and is not taken for it.
    assert!(lost.set(&run("alarmed"), RUN_ID, far).await.is_err());

    let nobody = aws_sdk_sqs::Client::from_conf(
        place.account.sqs.config().to_builder().endpoint_url("http://127.0.0.1:9").build(),
    );
    let Account { scheduler, blobs, .. } = place.account.clone();
    let alone = Queues::new(nobody, scheduler, place.settings.clone(), blobs, Handle::current()).unwrap();
    let unknown = RunQueue::send(&alone, signal("x")).await;
    assert!(matches!(unknown, Err(StoreError::Unknown(_))), "{unknown:?}");
}
