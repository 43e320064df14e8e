//! Records that are objects in the bucket.

use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use dormouse_engine::commit::LoadError;
use dormouse_engine::states::read_history;
use dormouse_engine::store::{Creation, Histories, RowUpdate, Stretch};
use dormouse_testing::later;
use futures::TryStreamExt;
use futures::executor::block_on;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::{RUNTIME, client, opening, parts, run};

fn filled(length: usize, with: u8) -> Bytes {
    vec![with; length].into()
}

async fn objects(bucket: &InMemory) -> Vec<Path> {
    let mut found: Vec<_> = bucket.list(None).map_ok(|meta| meta.location).try_collect().await.unwrap();
    found.sort();
    found
}

#[test]
fn only_large_records_are_objects_under_their_run_s_prefix() {
    for part in parts("large records") {
        let (table, bucket) = (part.table(), Arc::new(InMemory::new()));
        let store = part.store(&table, Arc::clone(&bucket) as _);
        let run = run("order/1", 2);
        let records = [filled(65_536, 1), filled(65_537, 2), filled(1, 3), filled(500_000, 4)];
        block_on(async {
            store.open(&run, records[0].clone(), opening(2_000)).await.unwrap();
            for (sequence, record) in (0..).zip(&records).skip(1) {
                assert_eq!(
                    store.append(&run, later(sequence), record.clone(), RowUpdate::NONE).await,
                    Ok(Creation::Created)
                );
            }
            let stretch = store.read(&run, 0).await.unwrap();
            assert!(stretch == Stretch { records: records.to_vec(), more: false, gap: false }, "other bytes");
            let objects = objects(&bucket).await;
            let prefix = "runs/default/order%2F1/00000000000000000002/";
            assert_eq!(objects.len(), 2);
            assert!(objects[0].as_ref().starts_with(&format!("{prefix}00000000000000000001-")), "{objects:?}");
            assert!(objects[1].as_ref().starts_with(&format!("{prefix}00000000000000000003-")), "{objects:?}");
        });
        let items = RUNTIME.block_on(async {
            let query = client(&part.url).query().table_name(&table).key_condition_expression("p = :p");
            let query = query.expression_attribute_values(":p", AttributeValue::S("run#default/order%2F1".into()));
            query.send().await.unwrap().items.unwrap()
        });
        let inline: Vec<_> = items.iter().map(|item| item.contains_key("record")).collect();
        assert_eq!(inline, [true, false, true, false, false], "four batches and the row");
        assert_eq!(items[1]["length"], AttributeValue::N("65537".into()));
        assert!(items[1].contains_key("object") && items[1].contains_key("hash"));
    }
}

/// The object is put first: whoever dies in between leaves an object that nothing points to.
#[test]
fn a_loser_s_object_does_not_disturb_the_winner_s() {
    for part in parts("a loser's object") {
        let bucket = Arc::new(InMemory::new());
        let store = part.store(&part.table(), Arc::clone(&bucket) as _);
        let run = run("raced", 0);
        let (winner, loser) = (filled(100_000, 1), filled(100_000, 2));
        block_on(async {
            store.open(&run, "batch 0".into(), opening(2_000)).await.unwrap();
            assert_eq!(store.append(&run, later(1), winner.clone(), RowUpdate::NONE).await, Ok(Creation::Created));
            assert!(store.append(&run, later(1), loser, RowUpdate::NONE).await == Ok(Creation::Exists(winner.clone())));
            assert!(
                store.append(&run, later(1), winner.clone(), RowUpdate::NONE).await
                    == Ok(Creation::Exists(winner.clone()))
            );
            assert!(store.read(&run, 1).await.unwrap().records == [winner], "other bytes");
            assert_eq!(objects(&bucket).await.len(), 2);
        });
    }
}

#[test]
fn what_is_missing_truncated_or_altered_is_a_gap() {
    for part in parts("damaged objects") {
        for damage in ["missing", "truncated", "altered", "lengthened"] {
            let bucket = Arc::new(InMemory::new());
            let store = part.store(&part.table(), Arc::clone(&bucket) as _);
            let run = run("damaged", 0);
            let large = filled(200_000, 1);
            block_on(async {
                store.open(&run, "batch 0".into(), opening(2_000)).await.unwrap();
                store.append(&run, later(1), large.clone(), RowUpdate::NONE).await.unwrap();
                store.append(&run, later(2), "batch 2".into(), RowUpdate::NONE).await.unwrap();
                let object = objects(&bucket).await.remove(0);
                match damage {
                    "missing" => bucket.delete(&object).await.unwrap(),
                    "truncated" => drop(bucket.put(&object, large.slice(1..).into()).await.unwrap()),
                    "lengthened" => drop(bucket.put(&object, filled(200_001, 1).into()).await.unwrap()),
                    _ => {
                        let mut bytes = large.to_vec();
                        bytes[100_000] ^= 1;
                        bucket.put(&object, bytes.into()).await.unwrap();
                    }
                }
                let expected = Stretch { records: vec!["batch 0".into()], more: false, gap: true };
                assert_eq!(store.read(&run, 0).await, Ok(expected), "{damage}");
                assert_eq!(store.read(&run, 1).await, Ok(Stretch { gap: true, ..Stretch::default() }), "{damage}");
                assert_eq!(store.read(&run, 2).await.unwrap().records, ["batch 2"], "what is behind it is there");
                // That parks the run.
                let read = read_history(&store, &run).await;
                assert!(matches!(read, Err(LoadError::Turn(_))), "{damage}: {read:?}");
                // Another's batch is told that something is there, and not what it was made to be.
                let lost = store.append(&run, later(1), "other".into(), RowUpdate::NONE).await;
                assert_eq!(lost, Ok(Creation::Exists(Bytes::new())), "{damage}");
                // Whoever has the record still mends it by sending it again.
                assert!(
                    store.append(&run, later(1), large.clone(), RowUpdate::NONE).await
                        == Ok(Creation::Exists(large.clone()))
                );
                assert_eq!(store.read(&run, 0).await.unwrap().records.len(), 3, "{damage}");
            });
        }
    }
}
