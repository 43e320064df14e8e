//! The table itself, for tests and emulators: on AWS, the template makes it.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, IndexStatus, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType, TableStatus,
};

use super::fault;
use super::index::Index;
use dormouse_engine::store::{Cause, StoreError};

/// How long a new table may take.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

/// Makes the table, if it is not there, and waits until it can be used.
pub(super) async fn create(client: &Client, table: &str) -> Result<(), StoreError> {
    let built = |error: BuildError| StoreError::Refused(Cause::of(error));
    let mut request = client
        .create_table()
        .table_name(table)
        .billing_mode(BillingMode::PayPerRequest)
        .set_key_schema(Some(key_schema(("p", "s")).map_err(built)?));
    for index in [Index::Start, Index::Due, Index::Parked] {
        let index = GlobalSecondaryIndex::builder()
            .index_name(index.name())
            .set_key_schema(Some(key_schema(index.keys()).map_err(built)?))
            .projection(Projection::builder().projection_type(ProjectionType::All).build())
            .build();
        request = request.global_secondary_indexes(index.map_err(built)?);
    }
    for name in ["p", "s", "lp", "ls", "dp", "ds", "pp", "ps"] {
        let attribute =
            AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build();
        request = request.attribute_definitions(attribute.map_err(built)?);
    }
    match request.send().await {
        Ok(_) => {}
        Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_in_use_exception()) => {}
        Err(error) => return Err(fault::failed(error)),
    }
    let wait = async {
        loop {
            let described = client.describe_table().table_name(table).send().await.map_err(fault::failed)?;
            let table = described.table.unwrap_or_else(|| aws_sdk_dynamodb::types::TableDescription::builder().build());
            let indexes = table.global_secondary_indexes();
            if table.table_status() == Some(&TableStatus::Active)
                // Some emulators do not speak of the status of an index.
                && indexes.iter().all(|index| index.index_status().is_none_or(|status| *status == IndexStatus::Active))
            {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| Err(StoreError::unknown(format!("the table {table:?} does not become active"))))
}

fn key_schema((partition, sort): (&str, &str)) -> Result<Vec<KeySchemaElement>, BuildError> {
    [(partition, KeyType::Hash), (sort, KeyType::Range)]
        .map(|(name, kind)| KeySchemaElement::builder().attribute_name(name).key_type(kind).build())
        .into_iter()
        .collect()
}
