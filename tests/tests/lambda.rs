//! The consumer of the run queue, as a function has it, without AWS: batches of letters in, what became of them out.
//! Queues and alarms are the world's; only what ends a process has processes of its own.

#![cfg(feature = "aws")]

#[path = "lambda/batches.rs"]
mod batches;
#[path = "lambda/deaths.rs"]
mod deaths;
#[path = "lambda/locals.rs"]
mod locals;
#[path = "lambda/planted.rs"]
mod planted;
#[path = "lambda/queries.rs"]
mod queries;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dormouse::Timestamp;
use dormouse_aws::queues::ReceiveError;
use dormouse_aws::wire::{Message, decode, encode};
use dormouse_core::RunKey;
use dormouse_engine::host::Machine;
use dormouse_engine::ports::Ports;
use dormouse_engine::seams::{Code, Host, Instant, RunMessage, SeamFuture};
use dormouse_engine::store::StoreError;
use dormouse_lambda::envelope::Letter;
use dormouse_lambda::orchestrator::{Consumer, Counter};
use dormouse_testing::world::Process;
use dormouse_testing::{Clock, World};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};

/// Letters of this queue are dead.
const DEAD: &str = "dead letters";

/// Letters of this sender are a worker's.
const WORKER: &str = "a worker";

/// What was done with letters.
#[derive(Debug, Default)]
struct Done {
    set_aside: Vec<(String, String)>,
    passed_on: Vec<Message>,
    again_soon: Vec<String>,
    failing_reads: usize,
}

#[derive(Clone, Default)]
struct Clerk(Arc<Mutex<Done>>);

impl Counter for Clerk {
    fn read(&self, body: &str) -> BoxFuture<'static, Result<Message, ReceiveError>> {
        let mut done = self.0.lock().unwrap();
        if let Some(left) = done.failing_reads.checked_sub(1) {
            done.failing_reads = left;
            return ready(Err(StoreError::Unknown("planned: the bucket does not answer".into()).into())).boxed();
        }
        ready(decode(body).map_err(ReceiveError::from)).boxed()
    }

    fn is_dead(&self, queue_arn: &str) -> bool {
        queue_arn == DEAD
    }

    fn is_trusted(&self, letter: &Letter) -> bool {
        letter.sender != WORKER
    }

    fn pass_on(&self, message: Message) -> SeamFuture<'static, ()> {
        self.0.lock().unwrap().passed_on.push(message);
        ready(Ok(())).boxed()
    }

    fn set_aside<'a>(
        &'a self,
        letter: &'a Letter,
        _: Option<&'a RunKey>,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.0.lock().unwrap().set_aside.push((letter.id.clone(), reason.to_owned()));
        ready(Ok(())).boxed()
    }

    fn hide<'a>(&'a self, _: &'a [Letter], _: u32) -> BoxFuture<'a, ()> {
        ready(()).boxed()
    }

    fn again_soon<'a>(&'a self, letters: &'a [Letter]) -> BoxFuture<'a, ()> {
        self.0.lock().unwrap().again_soon.extend(letters.iter().map(|letter| letter.id.clone()));
        ready(()).boxed()
    }
}

/// A process of the role `orchestrator`.
struct Function {
    process: Process,
    clerk: Clerk,
    host: Arc<dyn Host>,
    consumer: Consumer<Clerk>,
}

/// The world's clock; work and waiting are the machine's, as the thread and activities are.
struct Half(Clock, Machine);

impl Host for Half {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn instant(&self) -> Instant {
        self.1.instant()
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        self.1.sleep_until(at)
    }

    fn spawn(&self, work: BoxFuture<'static, ()>) {
        self.1.spawn(work);
    }

    fn spawn_activity(&self, code: Code, work: BoxFuture<'static, ()>) {
        self.1.spawn_activity(code, work);
    }

    fn fresh_id(&self) -> [u8; 16] {
        self.0.fresh_id()
    }

    fn back_off(&self, pause: Duration) -> BoxFuture<'static, ()> {
        self.0.back_off(pause)
    }

    fn give_way(&self) -> BoxFuture<'_, ()> {
        self.0.give_way()
    }
}

impl Function {
    fn begin(world: &World) -> Self {
        let (process, clerk) = (world.process(), Clerk::default());
        let host: Arc<dyn Host> = Arc::new(Half(world.clock.clone(), Machine::here()));
        let ports = Ports { host: Arc::clone(&host), ..process.ports.clone() };
        let consumer = Consumer::begin(Arc::clone(world.app()), ports, clerk.clone()).unwrap();
        Self { process, clerk, host, consumer }
    }

    /// Invokes it with so much time; the ids of the letters that failed.
    async fn invoke(&self, letters: Vec<Letter>, time: Duration) -> Vec<String> {
        failed(&serde_json::to_value(self.consumer.letters(letters, self.host.instant() + time).await).unwrap())
    }

    /// Invokes it with what is on the queue, until nothing is.
    async fn work_off(&self, world: &World) {
        loop {
            let messages = world.mail.drop_messages();
            if messages.is_empty() {
                return;
            }
            assert_eq!(self.invoke(letters(&messages), PLENTY).await, [""; 0]);
        }
    }
}

/// The time of a fresh invocation.
const PLENTY: Duration = Duration::from_secs(28);

fn failed(answer: &serde_json::Value) -> Vec<String> {
    let failures = answer["batchItemFailures"].as_array().unwrap();
    failures.iter().map(|failure| failure["itemIdentifier"].as_str().unwrap().to_owned()).collect()
}

/// A letter, delivered for the first time.
fn letter(id: &str, group: &str, body: String) -> Letter {
    Letter {
        id: id.into(),
        receipt: format!("receipt of {id}"),
        queue_arn: "runs".into(),
        sender: "the engine".into(),
        group: Some(group.into()),
        deliveries: 1,
        sent_at: Timestamp::from_millis(0),
        reason: None,
        body,
    }
}

fn body(message: &RunMessage) -> String {
    encode(&Message::Run(message.clone())).unwrap()
}

/// Messages as they are delivered: ids from 0, a group for each workflow.
fn letters(messages: &[RunMessage]) -> Vec<Letter> {
    let numbered = messages.iter().enumerate();
    numbered.map(|(id, it)| letter(&id.to_string(), &it.run().workflow.workflow_id, body(it))).collect()
}
