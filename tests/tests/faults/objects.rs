//! Commits on S3, through the crate `object_store`.

use dormouse_tests::proxy::{Action, Spoiled};

use super::commits::{Case, Fate, ask, ask_the_loser, ask_the_zombie, ask_with_the_row, every_store};
use super::parts::{Setup, run};

const PUT: &str = "s3/PutObject/batch(conditional)";
const ROW: &str = "s3/PutObject/row(conditional)";

#[tokio::test]
async fn s3_commits_survive_every_fault() {
    for setup in Setup::each_s3().await {
        let mut cases = every_store();
        // S3 says all that matters in its headers.
        for how in [Spoiled::Null, Spoiled::Half] {
            cases.push(Case { action: Action::Spoil(how), times: 1, fate: Fate::Won, sent: 1, landed: 1 });
        }
        ask(&setup.objects(), &setup.truth(), &setup.proxy, &run("table"), PUT, cases).await;
    }
}

#[tokio::test]
async fn s3_losers_find_whoever_won() {
    for setup in Setup::each_s3().await {
        ask_the_loser(&setup.objects(), &setup.proxy, &run("loser"), PUT).await;
    }
}

#[tokio::test]
async fn s3_zombies_find_their_place_taken() {
    for setup in Setup::each_s3().await {
        ask_the_zombie(&setup.objects(), &setup.truth(), &setup.proxy, &run("zombie"), PUT).await;
    }
}

#[tokio::test]
async fn s3_rows_go_with_their_batches() {
    for setup in Setup::each_s3().await {
        ask_with_the_row(&setup.objects(), &setup.truth(), &setup.proxy, &run("row"), &[PUT, ROW]).await;
    }
}
