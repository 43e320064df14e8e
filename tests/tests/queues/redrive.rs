//! Redrive: where a letter belongs, that it arrives there, and that nothing is lost when it is cut short.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::types::{MessageSystemAttributeName, QueueAttributeName};
use dormouse::api::{LetterBody, Redriven, RedrivenLetterBody};
use dormouse::{Limits, RawClient};
use dormouse_aws::dead_letters::examine;
use dormouse_aws::quarantine::{Letter, Quarantine};
use dormouse_aws::queues::REASON_ATTRIBUTE;
use dormouse_aws::queues::route::Route;
use dormouse_aws::redrive::{Redriver, route, summary};
use dormouse_aws::store::DynamoStore;
use dormouse_aws::wire::{Alarm, Deferred, LARGEST_BODY, LONGEST_LIFE, Message, Stored, Task, decode, encode, group};
use dormouse_core::operations::ActivityCompleted;
use dormouse_core::{Activity, ActivityOptions, App, Arrival, Failure, Payload, RunKey, Timestamp, Workflow};
use dormouse_engine::ApiError;
use dormouse_engine::front::FrontDoor;
use dormouse_engine::host::wall_clock;
use dormouse_engine::seams::{ActivityQueue, Delivery, QueryRunner, Redrive, RunMessage};
use dormouse_engine::worker::handle_message;
use dormouse_testing::World;
use dormouse_testing::delivery::plain_task;
use dormouse_tests::endpoints::dynamodb;
use dormouse_tests::proxy::{Action, Proxy, Refusal, Rule};
use futures::future::BoxFuture;
use tokio::runtime::{Handle, Runtime};

use super::sqs::{Account, Place, RUN_ID, run, signal};

const DEAD: &str = "arn:aws:sqs:us-east-1:000000000000:runs-dead.fifo";
const DAY: Duration = Duration::from_hours(24);

fn letter(id: &str, received_at: Timestamp, body: impl Into<Option<String>>) -> Letter {
    Letter {
        id: id.into(),
        received_at,
        queue: DEAD.into(),
        reason: "given up".into(),
        untrusted: false,
        body: body.into(),
    }
}

fn task_for(queue: Option<&str>, now: Timestamp) -> Message {
    let mut task = plain_task(&run("tasks"), RUN_ID, 1, now);
    task.options.task_queue = queue.map(str::to_owned);
    Message::Task(Task { task, not_after: now + LONGEST_LIFE })
}

fn deferred(now: Timestamp) -> Message {
    let body = encode(&task_for(Some("others"), now)).unwrap();
    Message::Deferred(Deferred { task_queue: "others".into(), due: now, body })
}

fn alarm(now: Timestamp) -> Message {
    Message::Alarm(Alarm { run: run("alarmed"), run_id: RUN_ID, due: now })
}

#[test]
fn the_message_tells_where_it_belongs() {
    let now = Timestamp::from_millis(1_763_820_000_000);
    let tasks = |queue: &str| Ok(Route::Tasks { queue: queue.into() });
    let runs = |run: RunKey| Ok(Route::Runs { group: group(&run.workflow) });
    let sweep = RunMessage::Sweep { run: run("swept") };
    let pointer = encode(&Message::Stored(Stored::of("x"))).unwrap();
    let cases = [
        (encode(&Message::Run(signal("x"))).unwrap(), runs(run("signaled"))),
        (encode(&Message::Run(sweep)).unwrap(), runs(run("swept"))),
        (encode(&task_for(None, now)).unwrap(), tasks("default")),
        (encode(&task_for(Some("others"), now)).unwrap(), tasks("others")),
        (encode(&alarm(now)).unwrap(), Ok(Route::Alarms)),
        (encode(&deferred(now)).unwrap(), Ok(Route::Alarms)),
        (pointer, Err("never fetched")),
        ("tea".into(), Err("cannot be read")),
        (r#"{"v": 2, "kind": "sweep"}"#.into(), Err("version 2")),
        (r#"{"v": 1, "kind": "rumour"}"#.into(), Err("rumour")),
    ];
    for (body, expected) in cases {
        let received = |at: Timestamp| route(&letter("a", at, body.clone()), &decode(&body), now);
        match (received(now - 14 * DAY), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{body}"),
            (Err(why), Err(says)) => assert!(why.contains(says), "{body}: {why}"),
            (found, expected) => panic!("{body}: {found:?}, not {expected:?}"),
        }
        let stale = received(now - 14 * DAY - Duration::from_millis(1));
        assert!(stale.as_ref().is_err_and(|why| why.contains("older than 14 days")), "{body}: {stale:?}");
    }
    // Whoever sends it again has more rights than its sender had.
    let outcome = Arrival::ActivityCompleted(ActivityCompleted { id: 1, attempt: 1, result: Payload::NULL });
    let outcome = RunMessage::Arrived { run: run("worked"), run_id: RUN_ID, arrival: outcome };
    for (message, sent) in [(signal("x"), false), (outcome, true)] {
        let forged = Letter { untrusted: true, ..letter("a", now, String::new()) };
        assert_eq!(route(&forged, &Ok(Message::Run(message)), now).is_ok(), sent);
    }
    // What a worker would drop is not sent to him, and not lost here.
    let task = task_for(None, now);
    let not_after = now + LONGEST_LIFE;
    let at = |then: Timestamp| route(&letter("a", then, String::new()), &Ok(task.clone()), then);
    assert!(at(not_after).is_ok());
    let late = at(not_after + Duration::from_millis(1));
    assert!(late.as_ref().is_err_and(|why| why.contains("may not be run after")), "{late:?}");
}

#[test]
fn people_see_everything_but_the_message() {
    let now = Timestamp::from_millis(1_763_820_000_000);
    let cases = [
        (encode(&Message::Run(signal("secret"))).unwrap(), Some("signaled")),
        (encode(&task_for(None, now)).unwrap(), Some("tasks")),
        (encode(&alarm(now)).unwrap(), Some("alarmed")),
        (encode(&deferred(now)).unwrap(), Some("tasks")),
        (encode(&Message::Stored(Stored::of("x"))).unwrap(), None),
        ("tea".into(), None),
    ];
    for (body, workflow_id) in cases {
        let found = summary(&letter("a-1", now, body.clone()));
        let expected = LetterBody {
            id: "1763820000000-a-1".into(),
            queue: DEAD.into(),
            received_at: now,
            reason: "given up".into(),
            workflow_id: workflow_id.map(str::to_owned),
            ordinal: workflow_id.map(|_| 0),
            size: Some(body.len() as u64),
        };
        assert_eq!(found, expected, "{body}");
    }
    assert_eq!(summary(&letter("a", now, None)).size, None);
}

/// Nobody is asked.
struct Nobody;

impl QueryRunner for Nobody {
    fn query(&self, _: RunKey, _: String, _: Payload) -> BoxFuture<'_, Result<Payload, ApiError>> {
        unreachable!("no queries here")
    }
}

/// A quarantine beside a set of queues.
struct Bench {
    place: Place,
    client: aws_sdk_dynamodb::Client,
    quarantine: Quarantine,
    redriver: Redriver,
}

impl Bench {
    async fn at(endpoint: &str) -> Self {
        let place = Account::at(endpoint).await.place().await;
        let client = dynamodb(endpoint);
        DynamoStore::create_table(&client, &place.settings.schedule_group).await.unwrap();
        let blobs = place.account.blobs.clone();
        let quarantine = Quarantine::new(client.clone(), &place.settings.schedule_group, blobs, Handle::current());
        let redriver = Redriver::new(quarantine.clone(), place.queues.clone());
        Self { place, client, quarantine, redriver }
    }

    /// Another process: whose requests end with this runtime.
    fn process(&self, runtime: &Runtime) -> Redriver {
        let _here = runtime.enter();
        let (settings, blobs) = (&self.place.settings, self.place.account.blobs.clone());
        let quarantine = Quarantine::new(self.client.clone(), &settings.schedule_group, blobs, Handle::current());
        Redriver::new(quarantine, self.place.account.process(settings))
    }

    /// The API in front of it.
    async fn api(&self) -> RawClient {
        let process = World::new(App::new()).process();
        let front = FrontDoor::new(process.ports.clone(), Arc::clone(&process.intake), Arc::new(Nobody));
        let front = front.with_quarantine(Arc::new(self.redriver.clone()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = dormouse::router(Arc::new(front), Limits::default(), dormouse::Hosts::any());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        RawClient::new(&url).unwrap()
    }

    async fn put(&self, id: &str, at: Timestamp, message: &Message) {
        self.quarantine.put(letter(id, at, encode(message).unwrap())).await.unwrap();
    }

    async fn names(&self) -> Vec<String> {
        self.quarantine.list(100, None).await.unwrap().iter().map(Letter::name).collect()
    }

    async fn on_the_run_queue(&self) -> Vec<Message> {
        self.place.take(&self.place.settings.run_queue_url).await
    }
}

fn outcome(letters: &[RedrivenLetterBody], id: &str) -> (Redriven, String) {
    let found = letters.iter().find(|letter| letter.id == id).unwrap_or_else(|| panic!("{id} is not in {letters:?}"));
    (found.outcome, found.detail.clone())
}

pub fn sends_again(endpoint: &str) {
    Runtime::new().unwrap().block_on(async {
        each_letter_reaches_its_queue(endpoint).await;
        letters_by_name(endpoint).await;
        many_letters_take_several_requests(endpoint).await;
        cut_between_sending_and_removing(endpoint).await;
        what_is_no_task_is_given_up(endpoint).await;
    });
}

async fn in_pages_of_five(api: &RawClient) -> Vec<LetterBody> {
    let (mut letters, mut token) = (Vec::new(), None);
    loop {
        let page = api.quarantine_page(5, token.as_deref()).await.unwrap();
        assert!(page.letters.len() <= 5);
        letters.extend(page.letters);
        token = page.next_page_token;
        if token.is_none() {
            return letters;
        }
    }
}

async fn each_letter_reaches_its_queue(endpoint: &str) {
    let bench = Bench::at(endpoint).await;
    let api = bench.api().await;
    assert_eq!(api.quarantine(10).await.unwrap(), []);
    assert_eq!(api.redrive_page(None).await.unwrap().letters, []);

    let now = wall_clock();
    let at = |n: u64| now - DAY + Duration::from_millis(n);
    let large = signal(&"secret".repeat(LARGEST_BODY / 6 + 1));
    let body = encode(&Message::Run(large.clone())).unwrap();
    let stored = Stored::of(&body);
    bench.place.account.blobs.put(&stored.key, body.into()).await.unwrap();
    // Beyond what is kept in the table, below what lies in the bucket of messages.
    let middle = signal(&"secret".repeat(20_000));
    let messages = [
        Message::Run(signal("secret")),
        Message::Stored(stored),
        Message::Run(middle.clone()),
        task_for(None, now),
        task_for(Some("others"), now),
        alarm(now),
        deferred(now),
        task_for(Some("nowhere"), now),
        Message::Stored(Stored::of("expired long ago")),
    ];
    for (n, message) in messages.iter().enumerate() {
        bench.put(&format!("m{n}"), at(n as u64), message).await;
    }
    let stale = now - 15 * DAY;
    bench.put("stale", stale, &messages[0]).await;
    bench.quarantine.put(letter("odd", at(20), "tea".to_owned())).await.unwrap();
    bench.quarantine.put(letter("lost", at(21), None)).await.unwrap();

    let listed = api.quarantine(100).await.unwrap();
    let ids: Vec<_> = listed.iter().map(|letter| letter.id.clone()).collect();
    assert_eq!(ids, bench.names().await);
    assert_eq!(
        (listed.len(), ids[0].as_str()),
        (12, format!("{}-stale", stale.as_millis()).as_str()),
        "the oldest first"
    );
    assert!(!format!("{listed:?}").contains("secret"));
    assert_eq!(in_pages_of_five(&api).await, listed);

    let answer = api.redrive_page(None).await.unwrap();
    assert_eq!((answer.letters.len(), answer.next_page_token), (12, None));
    let name = |n: u64| format!("{}-m{n}", at(n).as_millis());
    let sent = |to: &str| (Redriven::Sent, format!("to {to}"));
    for n in 0..3 {
        assert_eq!(outcome(&answer.letters, &name(n)), sent("the run queue"));
    }
    assert_eq!(outcome(&answer.letters, &name(3)), sent("the task queue \"default\""));
    assert_eq!(outcome(&answer.letters, &name(4)), sent("the task queue \"others\""));
    assert_eq!(outcome(&answer.letters, &name(5)), sent("the alarm queue"));
    assert_eq!(outcome(&answer.letters, &name(6)), sent("the alarm queue"));
    let stay = [
        (format!("{}-stale", stale.as_millis()), "older than 14 days"),
        (name(7), "there is no task queue \"nowhere\""),
        (name(8), "not there any more"),
        (format!("{}-odd", at(20).as_millis()), "cannot be read"),
        (format!("{}-lost", at(21).as_millis()), "lost"),
    ];
    for (id, says) in &stay {
        // A queue may yet be there.
        let expected = if *id == name(7) { Redriven::Refused } else { Redriven::Unsendable };
        let (outcome, detail) = outcome(&answer.letters, id);
        assert!(outcome == expected && detail.contains(says), "{id}: {outcome:?}, {detail}");
    }
    assert_eq!(bench.names().await, stay.each_ref().map(|(id, _)| id.clone()), "what was refused stays");

    // In the order of their age, within the workflow's group.
    let url = &bench.place.settings.run_queue_url;
    let receive = bench.place.account.sqs.receive_message().queue_url(url).visibility_timeout(0);
    let receive = receive.message_system_attribute_names(MessageSystemAttributeName::MessageGroupId).send().await;
    let attributes = receive.unwrap().messages.unwrap()[0].attributes.clone().unwrap();
    assert_eq!(attributes[&MessageSystemAttributeName::MessageGroupId], group(&run("signaled").workflow));
    let signals = [signal("secret"), large, middle].map(Message::Run);
    assert_eq!(bench.on_the_run_queue().await, signals);
    let settings = &bench.place.settings;
    assert_eq!(
        bench.place.take(&settings.task_queues["default"]).await,
        [task_for(None, now)],
        "not_after is the old one"
    );
    assert_eq!(bench.place.take(&settings.task_queues["others"]).await, [task_for(Some("others"), now)]);
    assert_eq!(bench.place.count(&settings.alarm_queue_url).await, 2);
    assert_eq!(bench.place.take(&settings.alarm_queue_url).await.len(), 2, "and from there they find their way");
    assert_eq!(bench.place.take(&settings.task_queues["others"]).await, [task_for(Some("others"), now)]);
    assert_eq!(bench.on_the_run_queue().await.len(), 1, "the alarm rang");

    let odd = format!("{}-odd", at(20).as_millis());
    what_stays_is_looked_into_and_thrown_away(&api, [&name(0), &name(7), &name(8), &odd], &messages[7]).await;
}

/// A letter that was sent; one for a queue that is not there; a pointer to nothing; one that cannot be read.
async fn what_stays_is_looked_into_and_thrown_away(
    api: &RawClient,
    [sent, homeless, expired, odd]: [&str; 4],
    for_nowhere: &Message,
) {
    let shown = api.quarantined(odd).await.unwrap();
    assert_eq!((shown.message.as_deref(), shown.goes_to), (Some("tea"), None));
    assert!(shown.stays_because.unwrap().contains("cannot be read"));
    let shown = api.quarantined(homeless).await.unwrap();
    assert_eq!(shown.message, Some(encode(for_nowhere).unwrap()));
    assert_eq!(shown.goes_to.as_deref(), Some("the task queue \"nowhere\""));
    assert!(api.quarantined("nonsense").await.unwrap_err().to_string().contains("no letter"));

    // The command line says the same: that not everything went well; and that it did, once only what never can be sent
    // is left. That is looked into, and thrown away.
    let verbs = [
        ("list", 0),
        ("redrive --all", 1),
        (&format!("redrive {sent}"), 1),
        (&format!("discard {homeless}"), 0),
        (&format!("discard {homeless}"), 1),
        ("redrive --all", 0),
        (&format!("redrive {odd}"), 1),
        (&format!("show {odd}"), 0),
        (&format!("discard {odd} {expired}"), 0),
        (&format!("show {odd}"), 4),
    ];
    for (verb, code) in verbs {
        let line = format!("app quarantine {verb} --output json --address {}", api.address());
        let run = move || dormouse::cli(App::new()).main_from(line.split(' '));
        let ended = tokio::task::spawn_blocking(run).await.unwrap();
        assert_eq!(format!("{ended:?}"), format!("{:?}", ExitCode::from(code)), "{verb}");
    }
    let again = api.redrive_page(None).await.unwrap();
    assert!(again.letters.iter().all(|letter| letter.outcome == Redriven::Unsendable) && again.letters.len() == 2);
}

/// What is no task is given up at once, and says why.
async fn what_is_no_task_is_given_up(endpoint: &str) {
    let bench = Bench::at(endpoint).await;
    bench.place.queues.give_up("tea", "no JSON:\n\u{fffe}expected value").await.unwrap();
    let receive = bench.place.account.sqs.receive_message().queue_url(&bench.place.settings.dead_letters_url);
    let received = receive.message_attribute_names("All").send().await.unwrap().messages.unwrap();
    let [message] = &received[..] else { panic!("{received:?}") };
    assert_eq!(message.body.as_deref(), Some("tea"));
    let reason = &message.message_attributes.as_ref().unwrap()[REASON_ATTRIBUTE];
    assert_eq!(reason.string_value.as_deref(), Some("no JSON:expected value"));
}

async fn letters_by_name(endpoint: &str) {
    let bench = Bench::at(endpoint).await;
    let api = bench.api().await;
    let now = wall_clock();
    for id in ["a", "b", "c-#/d"] {
        bench.put(id, now, &Message::Run(signal(id))).await;
    }
    let name = |id: &str| format!("{}-{id}", now.as_millis());
    let ids = [name("c-#/d"), name("x"), "nonsense".into(), name("a")];
    for (first, a_and_c) in [(true, Redriven::Sent), (false, Redriven::Refused)] {
        let answer = api.redrive(&ids).await.unwrap();
        let found: Vec<_> = answer.iter().map(|letter| (letter.id.clone(), letter.outcome)).collect();
        let expected = [a_and_c, Redriven::Refused, Redriven::Refused, a_and_c];
        assert_eq!(found, ids.iter().cloned().zip(expected).collect::<Vec<_>>(), "first: {first}");
        assert!(outcome(&answer, "nonsense").1.contains("no such letter"));
    }
    assert_eq!(bench.names().await, [name("b")]);
    assert_eq!(bench.on_the_run_queue().await, ["c-#/d", "a"].map(|id| Message::Run(signal(id))));
}

async fn many_letters_take_several_requests(endpoint: &str) {
    const MANY: usize = 60;
    let bench = Bench::at(endpoint).await;
    let api = bench.api().await;
    let now = wall_clock();
    for n in 0..MANY {
        // Every second one stays, and is not met again.
        let body = if n % 2 == 0 { "tea".into() } else { encode(&Message::Run(signal("x"))).unwrap() };
        bench.quarantine.put(letter(&n.to_string(), now + Duration::from_millis(n as u64), body)).await.unwrap();
    }
    let first = api.redrive_page(None).await.unwrap();
    let token = first.next_page_token.expect("there are more");
    let second = api.redrive_page(Some(&token)).await.unwrap();
    assert_eq!((first.letters.len(), second.letters.len(), second.next_page_token), (50, 10, None));
    assert_eq!(bench.names().await.len(), MANY / 2);
    assert_eq!(bench.on_the_run_queue().await.len(), MANY / 2);
}

/// Whatever is cut off there: the letter stays, and is sent twice.
async fn cut_between_sending_and_removing(endpoint: &str) {
    let proxy = Proxy::start(endpoint).await.unwrap();
    let bench = Bench::at(&proxy.url()).await;
    let message = Message::Run(signal("x"));
    bench.put("a", wall_clock(), &message).await;

    // Not removed.
    let struck = proxy.rule(Rule::every("dynamodb/DeleteItem*", Action::Refuse(Refusal::Internal)));
    let (letters, next) = bench.redriver.redrive(None).await.unwrap();
    assert!(struck.times() > 0);
    assert_eq!((letters.len(), letters[0].outcome, next), (1, Redriven::Unknown, None));
    assert!(letters[0].detail.contains("sent to the run queue, but perhaps not removed"), "{}", letters[0].detail);
    proxy.clear();
    assert_eq!(bench.names().await, [letters[0].id.clone()]);
    assert_eq!(bench.on_the_run_queue().await, std::slice::from_ref(&message));

    // Not even sent.
    let struck = proxy.rule(Rule::every("sqs/SendMessage*", Action::Close));
    let (letters, _) = bench.redriver.redrive(None).await.unwrap();
    assert!(struck.times() > 0);
    assert_eq!(letters[0].outcome, Redriven::Unknown);
    proxy.clear();
    assert_eq!((bench.names().await.len(), bench.on_the_run_queue().await.len()), (1, 0));

    // Sent, and nobody hears of it.
    let struck = proxy.rule(Rule::every("sqs/SendMessage*", Action::DropAnswer));
    let letters = bench.redriver.redrive_these(vec![letters[0].id.clone()]).await.unwrap();
    assert!(struck.times() > 0);
    assert_eq!(letters[0].outcome, Redriven::Unknown);
    proxy.clear();
    assert_eq!(bench.names().await.len(), 1);
    assert!(!bench.on_the_run_queue().await.is_empty());

    // The process dies there: nothing more is heard of it.
    let struck = proxy.rule(Rule::every("dynamodb/DeleteItem*", Action::Close));
    let dying = Runtime::new().unwrap();
    let redriver = bench.process(&dying);
    dying.spawn(async move { redriver.redrive(None).await });
    while struck.times() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    dying.shutdown_background();
    proxy.clear();
    assert_eq!(bench.on_the_run_queue().await, std::slice::from_ref(&message));
    assert_eq!(bench.names().await, [letters[0].id.clone()]);
    let (letters, _) = bench.redriver.redrive(None).await.unwrap();
    assert_eq!(letters[0].outcome, Redriven::Sent);
    assert_eq!(bench.names().await, [] as [String; 0]);
    assert_eq!(bench.on_the_run_queue().await, [message], "twice, and no less");
}

async fn work(_: Activity, order: String) -> Result<String, Failure> {
    Ok(format!("{order} is done"))
}

async fn queued(cx: Workflow, order: String) -> Result<String, Failure> {
    let options = ActivityOptions::start_to_close(Duration::from_secs(10));
    cx.activity(work, &order).options(options).await
}

/// No worker takes the task until its queue gives it up. No sweep helps here.
pub fn throttled_and_redriven(endpoint: &str) {
    let world = World::new(App::new().workflow("queued", queued).activity("work", work));
    world.clock.set(wall_clock());
    let process = world.process();
    let run = process.start("queued", "w", "r1", &"the order");
    process.deliver();
    let task = world.mail.take_tasks().remove(0);
    Runtime::new().unwrap().block_on(async {
        let bench = Bench::at(endpoint).await;
        let dead = Dead::behind(&bench.place).await;
        ActivityQueue::send(&bench.place.queues, vec![task]).await.unwrap();
        let given_up = dead.given_up().await;

        // As the orchestrator does.
        let received = bench.place.queues.receive(given_up.body.as_deref().unwrap()).await;
        let judged = examine(&process.ports, &received).await.unwrap();
        assert!(judged.reason.contains("throttled"), "{}", judged.reason);
        assert_eq!((judged.run, judged.report), (Some(run.clone()), None));
        bench.quarantine.put(Letter { reason: judged.reason, ..given_up }).await.unwrap();
        assert_eq!(world.result(&run), None);

        let (letters, _) = bench.redriver.redrive(None).await.unwrap();
        assert_eq!(letters[0].outcome, Redriven::Sent, "{letters:?}");
        let tasks = bench.place.take(&bench.place.settings.task_queues["default"]).await;
        let [Message::Task(Task { task, not_after })] = tasks.as_slice() else { panic!("{tasks:?}") };
        let deadline = world.now() + Duration::from_secs(60);
        let handled = handle_message(world.app(), &process.ports, task.clone(), Delivery::First, *not_after, deadline);
        world.clock.drive(handled).expect("an end").unwrap();
    });
    process.deliver();
    assert_eq!(world.result(&run).unwrap(), "the order is done");
}

/// The dead-letter queue of the task queue "default".
struct Dead {
    sqs: aws_sdk_sqs::Client,
    tasks: String,
    url: String,
    arn: String,
}

impl Dead {
    async fn behind(place: &Place) -> Self {
        let sqs = place.account.sqs.clone();
        let name = format!("{}-dead", place.settings.schedule_group);
        let url = sqs.create_queue().queue_name(name).send().await.unwrap().queue_url.unwrap();
        let get = sqs.get_queue_attributes().queue_url(&url).attribute_names(QueueAttributeName::QueueArn);
        let arn = get.send().await.unwrap().attributes.unwrap()[&QueueAttributeName::QueueArn].clone();
        let policy = format!(r#"{{"deadLetterTargetArn": "{arn}", "maxReceiveCount": "1"}}"#);
        let tasks = place.settings.task_queues["default"].clone();
        let set = sqs.set_queue_attributes().queue_url(&tasks).attributes(QueueAttributeName::RedrivePolicy, policy);
        set.send().await.unwrap();
        Self { sqs, tasks, url, arn }
    }

    /// Receives as Lambda does for a function that is throttled, until the message lies here.
    async fn given_up(&self) -> Letter {
        loop {
            let throttled = self.sqs.receive_message().queue_url(&self.tasks).visibility_timeout(0);
            throttled.send().await.unwrap();
            let receive = self.sqs.receive_message().queue_url(&self.url);
            let receive = receive.message_system_attribute_names(MessageSystemAttributeName::SentTimestamp);
            let Some(message) = receive.send().await.unwrap().messages.unwrap_or_default().pop() else { continue };
            let sent_at = &message.attributes.unwrap()[&MessageSystemAttributeName::SentTimestamp];
            return Letter {
                id: message.message_id.unwrap(),
                received_at: Timestamp::from_millis(sent_at.parse().unwrap()),
                queue: self.arn.clone(),
                reason: String::new(),
                untrusted: false,
                body: message.body,
            };
        }
    }
}
