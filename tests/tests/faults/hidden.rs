//! Why writes must not be retried out of sight: what the clients do as they come.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Builder;
use aws_sdk_dynamodb::config::retry::RetryPartition;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use dormouse_tests::proxy::{Action, Refusal, Rule};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, RetryConfig};

use super::parts::{Setup, fresh, s3, sdk};

/// The danger of which rule C1 speaks. The put lands, its answer is lost, the SDK sends it again, and reports that the
/// condition failed: by the caller's own item. Whoever takes that for having lost gives up a commit that stands.
#[tokio::test]
async fn the_sdk_as_it_comes_reports_a_false_conflict_on_dynamodb() {
    let Some(setup) = Setup::new().await else { return };
    // Other tests' failures use up what retries a client may make: this one stands alone.
    let alone = Builder::from(&sdk(&setup.proxy.url()).await).retry_partition(RetryPartition::new(fresh("retries")));
    let client = Client::from_conf(alone.build());
    let table = fresh("plain");
    let key =
        AttributeDefinition::builder().attribute_name("p").attribute_type(ScalarAttributeType::S).build().unwrap();
    let schema = KeySchemaElement::builder().attribute_name("p").key_type(KeyType::Hash).build().unwrap();
    let create = client.create_table().table_name(&table).attribute_definitions(key).key_schema(schema);
    create.billing_mode(BillingMode::PayPerRequest).send().await.unwrap();

    let fault = setup.proxy.rule(Rule::once("dynamodb/PutItem", Action::DropAnswer));
    let put = client.put_item().table_name(&table).condition_expression("attribute_not_exists(p)");
    let put = put.item("p", AttributeValue::S("run#x".into())).item("record", AttributeValue::S("mine".into()));
    let error = put.send().await.expect_err("it did land").into_service_error();
    assert!(error.is_conditional_check_failed_exception(), "{error:?}");
    let tally = setup.proxy.counts().of("dynamodb/PutItem");
    assert_eq!((fault.times(), tally.came, tally.forwarded), (1, 2, 2), "one call, two requests");
    let get = client.get_item().table_name(&table).key("p", AttributeValue::S("run#x".into()));
    let there = get.send().await.unwrap().item.unwrap();
    assert_eq!(there["record"], AttributeValue::S("mine".into()), "and it is there");
}

/// The same of `object_store`, after a server error that came too late.
#[tokio::test]
async fn the_client_as_it_comes_reports_a_false_conflict_on_s3() {
    let Some(setup) = Setup::new().await else { return };
    let client = s3(&setup.proxy.url(), &setup.bucket, RetryConfig::default());
    let fault = setup.proxy.rule(Rule::once("s3/PutObject", Action::LandThenRefuse(Refusal::Unavailable)));
    let key = Path::from("x/log/1");
    let error = client.put_opts(&key, "mine".into(), PutMode::Create.into()).await.expect_err("it did land");
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error:?}");
    let tally = setup.proxy.counts().of("s3/PutObject");
    assert_eq!((fault.times(), tally.came, tally.forwarded), (1, 2, 2), "one call, two requests");
    assert_eq!(client.get(&key).await.unwrap().bytes().await.unwrap(), "mine", "and it is there");
}
