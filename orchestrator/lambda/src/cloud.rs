//! Everything that a role reaches on AWS, made from the standard configuration.

use std::sync::Arc;
use std::time::Duration;

use aws_config::BehaviorVersion;
use dormouse_aws::blobs::Blobs;
use dormouse_aws::quarantine::{Letter as Quarantined, Quarantine};
use dormouse_aws::queues::{LONGEST_BACKLOG, QueueSettings, Queues};
use dormouse_aws::store::DynamoStore;
use dormouse_core::{App, MAX_PAYLOAD_BYTES, RunKey, Timestamp};
use dormouse_engine::host::Machine;
use dormouse_engine::parkings::Parkings;
use dormouse_engine::ports::{Choices, Ports};
use dormouse_engine::seams::{Closings, Host, Instant};
use dormouse_engine::states::States;
use dormouse_engine::stop::Stop;
use dormouse_engine::store::{Store, StoreError};
use futures::future::BoxFuture;
use lambda_runtime::{Context, Error};
use tokio::runtime::Handle;

use crate::envelope::Letter;
use crate::settings::Settings;

/// Clients, ports and settings of this process. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Cloud {
    pub(crate) app: Arc<App>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) config: aws_config::SdkConfig,
    pub(crate) queues: Queues,
    pub(crate) quarantine: Quarantine,
    pub(crate) ports: Ports,
}

impl Cloud {
    pub(crate) async fn connect(app: Arc<App>, settings: Settings) -> Result<Self, Error> {
        let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
        let runtime = Handle::current();
        let blobs = Blobs::s3(&settings.bucket, runtime.clone())?;
        let table = aws_sdk_dynamodb::Client::new(&config);
        let store = DynamoStore::new(table.clone(), &settings.table, blobs.clone(), runtime.clone());
        let quarantine = Quarantine::new(table, &settings.table, blobs.clone(), runtime.clone());
        let host: Arc<dyn Host> = Arc::new(Machine::new(runtime.clone()).giving_way(PAUSE));
        let queues = Queues::new(
            aws_sdk_sqs::Client::new(&config),
            aws_sdk_scheduler::Client::new(&config),
            QueueSettings {
                run_queue_url: settings.run_queue_url.clone(),
                alarm_queue_url: settings.alarm_queue_url.clone(),
                alarm_queue_arn: settings.alarm_queue_arn.clone(),
                task_queues: settings.task_queues.clone(),
                dead_letters_url: settings.dead_letters_url.clone(),
                schedule_group: settings.schedule_group.clone(),
                schedule_role_arn: settings.schedule_role_arn.clone(),
                longest_delay: settings.longest_delay,
                schedule_lead: settings.schedule_lead,
                longest_backlog: LONGEST_BACKLOG,
                host: Arc::clone(&host),
            },
            blobs,
            runtime,
        )?;
        let store: Arc<dyn Store> = Arc::new(store);
        let ports = Ports {
            states: Arc::new(States::new(Arc::clone(&store), Arc::clone(&host))),
            store,
            runs: Arc::new(queues.clone()),
            activities: Arc::new(queues.clone()),
            alarms: Arc::new(queues.clone()),
            host,
            closings: Arc::new(Nobody),
            parkings: Arc::new(Parkings::default()),
            stop: Stop::default(),
            choices: Choices {
                namespace: settings.namespace.as_str().into(),
                build: settings.build.as_str().into(),
                sweep_interval: settings.sweep_interval,
                shared: true,
                max_payload_bytes: MAX_PAYLOAD_BYTES,
                limits: dormouse_core::Limits::DEFAULT,
                declared: Arc::new(app.declared().clone()),
            },
        };
        Ok(Self { app, settings: Arc::new(settings), config, queues, quarantine, ports })
    }
}

/// A letter whose handling failed comes again after so many seconds, doubled with each delivery.
const FIRST_AGAIN: u32 = 1;
const LONGEST_AGAIN: u32 = 60;

impl Cloud {
    /// Hides letters from other consumers for so many seconds from now. A help, not a promise.
    pub(crate) async fn hide(&self, letters: &[Letter], seconds: u32) {
        let Some(first) = letters.first() else { return };
        let receipts = letters.iter().map(|letter| letter.receipt.clone()).collect();
        if let Err(error) = self.queues.hide(&first.queue_arn, receipts, seconds).await {
            tracing::debug!(%error, "visibility not changed");
        }
    }

    /// Lets letters that failed come again, sooner than the queue's visibility time-out would.
    pub(crate) async fn again_soon(&self, letters: &[Letter]) {
        let deliveries = letters.first().map_or(1, |letter| letter.deliveries);
        let pause = FIRST_AGAIN << deliveries.saturating_sub(1).min(10);
        self.hide(letters, pause.min(LONGEST_AGAIN)).await;
    }

    /// Puts a letter into quarantine, where people see it.
    pub(crate) async fn set_aside(
        &self,
        letter: &Letter,
        run: Option<&RunKey>,
        reason: &str,
    ) -> Result<(), StoreError> {
        let run = run.map(ToString::to_string);
        tracing::error!(message = letter.id, queue = letter.queue_arn, run, reason, "quarantined");
        let kept = Quarantined {
            id: letter.id.clone(),
            received_at: letter.sent_at,
            queue: letter.queue_arn.clone(),
            reason: reason.to_owned(),
            untrusted: !self.settings.trusts(&letter.sender),
            body: Some(letter.body.clone()),
        };
        self.quarantine.put(kept).await
    }
}

/// How much earlier than Lambda ends the process everything must be done: a commit takes its time, and so does the
/// answer.
const MARGIN: Duration = Duration::from_secs(2);

/// When this invocation must be done.
pub(crate) fn until(host: &dyn Host, context: &Context) -> Instant {
    let left = Timestamp::from_millis(context.deadline).since(host.now());
    host.instant() + left.saturating_sub(MARGIN)
}

/// How long a writer who lost lets others go first: about as long as the orchestrator needs for a batch.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs close in other processes: nobody here can tell.
struct Nobody;

impl Closings for Nobody {
    fn closed(&self, _: &RunKey) {}

    fn wait(&self, _: &RunKey) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}
