//! The whole system on an AWS of this machine: deployed from its template, with the packaged program, called over its
//! HTTP API, its functions killed, its messages lost.
//!
//! With `--features aws` and DORMOUSE_TEST_PACKAGE (`scripts/package`). It starts and ends an emulator of its own.

#![cfg(feature = "aws")]

#[path = "crash/checks.rs"]
mod checks;
#[path = "crash/client.rs"]
mod client;
#[path = "cloud/costs.rs"]
mod costs;
#[path = "cloud/inputs.rs"]
mod inputs;
#[path = "cloud/lost.rs"]
mod lost;
#[path = "cloud/pollers.rs"]
mod pollers;
#[path = "cloud/redrive.rs"]
mod redrive;
#[path = "cloud/soak.rs"]
mod soak;
#[path = "cloud/start.rs"]
mod start;
#[path = "cloud/strangers.rs"]
mod strangers;

use std::time::{Duration, Instant};

use dormouse_tests::cloud::{Cloud, package};
use dormouse_tests::tell;

/// How long a workflow may take that nobody disturbs.
const PATIENCE: Duration = Duration::from_secs(120);

/// One deployment, one scenario after the other: an emulator takes its time to come up.
#[tokio::test(flavor = "multi_thread")]
async fn the_system_keeps_its_promise() {
    let Some(package) = package() else {
        tell!("SKIPPED: the whole system needs DORMOUSE_TEST_PACKAGE, such as what scripts/package prints");
        return;
    };
    start::a_process_answers_soon(&package).await;
    let began = Instant::now();
    let cloud = Cloud::deploy(&package, &["LongestDelaySeconds=5", "ScheduleLeadSeconds=0"]).await;
    let step = |what: &str| tell!("{:>5.0} s  {what}", began.elapsed().as_secs_f64());
    step("deployed");
    costs::a_process_starts_quickly(&cloud).await;
    step("first answers");
    inputs::what_callers_may_do(&cloud).await;
    step("signals, queries, cancellation, large values");
    inputs::a_hundred_inputs_at_once(&cloud).await;
    step("a hundred inputs at once");
    strangers::nonsense_is_refused(&cloud).await;
    strangers::the_command_line_reaches_it(&cloud);
    step("hostile requests, the command line");
    costs::steps_cost_what_is_promised(&cloud).await;
    step("costs");
    redrive::a_throttled_task_completes(&cloud).await;
    step("redrive");
    soak::orders_survive_kills(&cloud).await;
    step("kills");
    lost::every_lost_message_heals(&cloud).await;
    step("lost messages");
}
