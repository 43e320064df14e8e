//! Dead letters.

use std::sync::Arc;
use std::time::Duration;

use dormouse_aws::blobs::Blobs;
use dormouse_aws::quarantine::{Letter, Quarantine};
use object_store::memory::InMemory;

use super::{RUNTIME, at, client, parts};

fn letter(id: &str, received_at: u64, body: &str) -> Letter {
    Letter {
        id: id.into(),
        received_at: at(received_at),
        queue: "arn:aws:sqs:us-east-1:000000000000:tasks-dead".into(),
        reason: "received 20 times".into(),
        untrusted: id == "b",
        body: Some(body.into()),
    }
}

#[test]
fn letters_are_kept_until_they_are_removed() {
    for part in parts("the quarantine") {
        let table = part.table();
        let runtime = RUNTIME.handle();
        let blobs = Blobs::new(Arc::new(InMemory::new()), runtime.clone());
        let quarantine = Quarantine::new(client(&part.url), &table, blobs.clone(), runtime.clone());
        RUNTIME.block_on(async {
            let large = "x".repeat(600_000);
            let letters = [
                letter("b", 1_000, "{}"),
                letter("a", 2_000, &large),
                letter("../c#", 2_000, ""),
                letter("a", 90_000, "z"),
            ];
            for letter in letters.iter().rev().chain(&letters) {
                quarantine.put(letter.clone()).await.unwrap();
            }
            let found = quarantine.list(100, None).await.unwrap();
            assert_eq!(found.len(), letters.len(), "a letter that comes again is kept once");
            assert_eq!((&found[0], &found[3]), (&letters[0], &letters[3]), "the oldest first");
            assert!(found.contains(&letters[1]) && found.contains(&letters[2]));

            let mut paged = Vec::new();
            while let Some(letter) = quarantine.list(1, paged.last().map(Letter::place).as_deref()).await.unwrap().pop()
            {
                paged.push(letter);
            }
            assert_eq!(paged, found);

            for _ in 0..2 {
                quarantine.remove(&letters[1].place()).await.unwrap();
                quarantine.remove(&letters[0].place()).await.unwrap();
            }
            assert_eq!(quarantine.list(100, None).await.unwrap(), [letters[2].clone(), letters[3].clone()]);
        });
        assert!(letter("a", 0, "").is_fresh(at(0) + Duration::from_hours(24 * 14)));
        assert!(!letter("a", 0, "").is_fresh(at(1) + Duration::from_hours(24 * 14)));
    }
}
