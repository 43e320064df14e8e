//! C4 and C7: what a reader makes of a history that does not look right.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use dormouse_core::{ParkedCause, RunKey};
use dormouse_engine::seams::RunMessage;
use dormouse_testing::World;
use dormouse_testing::world::{drive, latest};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use serde_json::json;

use super::workflows::app;

/// Objects in memory. The next listing may be older than they are.
#[derive(Debug, Default)]
struct Objects {
    inner: InMemory,
    /// The next listing leaves out keys that end so.
    hidden: Mutex<Option<String>>,
}

impl Objects {
    fn without(&self, listing: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        let Some(end) = self.hidden.lock().unwrap().take() else { return listing };
        let shown = move |meta: &ObjectMeta| !meta.location.as_ref().ends_with(&end);
        listing.try_filter(move |meta| std::future::ready(shown(meta))).boxed()
    }

    /// The key of the batch at this sequence of the one run.
    fn batch(&self, sequence: u64) -> Path {
        let end = format!("/w/{:020}/log/{sequence:020}", 0);
        let keys: Vec<_> = drive(self.inner.list(None).map_ok(|meta| meta.location).try_collect()).unwrap().unwrap();
        keys.into_iter().find(|key: &Path| key.as_ref().ends_with(&end)).expect("a batch")
    }

    fn bytes(&self, key: &Path) -> Vec<u8> {
        let read = async { self.inner.get(key).await?.bytes().await };
        drive(read).unwrap().unwrap().to_vec()
    }

    fn overwrite(&self, key: &Path, bytes: Vec<u8>) {
        drive(self.inner.put(key, bytes.into())).unwrap().unwrap();
    }
}

impl fmt::Display for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("objects")
    }
}

#[async_trait]
impl ObjectStore for Objects {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.without(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.without(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A run that has heard so many words, each in a batch of its own, and has not decided on them.
fn words(heard: usize) -> (Arc<Objects>, World, RunKey) {
    let objects = Arc::new(Objects::default());
    let world = World::over(app(), Arc::clone(&objects) as Arc<dyn ObjectStore>);
    let process = world.process();
    let run = process.start("words", "w", "r", &(heard + 1));
    for n in 0..heard {
        process.signal("w", &format!("s{n}"), "word", &format!("w{n}"));
    }
    world.mail.drop_messages();
    (objects, world, run)
}

/// A listing is older than the history: a gap in it, or an end that is none, is looked at twice.
#[test]
fn c4_a_gap_in_a_listing_is_read_again() {
    for hidden in 0..=5_u64 {
        let (objects, world, run) = words(5);
        *objects.hidden.lock().unwrap() = Some(format!("/log/{hidden:020}"));
        let process = world.process();
        process.handle(RunMessage::Sweep { run: run.clone() }).unwrap().unwrap();
        assert_eq!((process.counts().exists, process.counts().parks), (0, 0), "it has seen all, with {hidden} hidden");
        process.signal("w", "last", "word", &"last");
        process.deliver();
        assert_eq!(world.result(&run), Some(json!(["w0", "w1", "w2", "w3", "w4", "last"])));
    }
}

/// Something was done to the history. The run is parked and says so, and nothing is written to the history.
fn is_noticed(world: &World, objects: &Objects, run: &RunKey) {
    let process = world.process();
    let batches = || {
        let objects = drive(objects.inner.list(None).map_ok(|meta| meta.location).try_collect::<Vec<_>>());
        let mut keys: Vec<_> = objects.unwrap().unwrap().into_iter().map(|key| key.to_string()).collect();
        keys.retain(|key| key.contains("/w/") && key.contains("/log/"));
        keys.sort();
        keys
    };
    let before = batches();
    world.pass_sweeps(1);
    world.sweep();
    process.deliver();
    let parked = world.row(run).unwrap().parked.expect("it is parked");
    assert!(parked.reason.contains("missing, reordered or altered"), "{}", parked.reason);
    let Some(ParkedCause::DamagedHistory { damage, .. }) = &parked.cause else { panic!("{:?}", parked.cause) };
    assert_eq!(damage, "broken_chain");
    let signal = drive(process.front.signal(&latest("w"), Some("s"), "word", dormouse::Payload::NULL)).unwrap();
    assert!(signal.is_err(), "nothing more is taken in");
    assert!(drive(process.front.describe(&latest("w"))).unwrap().is_err(), "nothing is guessed");
    process.deliver();
    assert_eq!(batches(), before, "the history is as it was found");
}

#[test]
fn c7_an_altered_batch_is_noticed() {
    let (objects, world, run) = words(3);
    let key = objects.batch(2);
    let mut bytes = objects.bytes(&key);
    let at = bytes.windows(2).position(|two| two == b"w1").unwrap();
    bytes[at + 1] = b'7';
    objects.overwrite(&key, bytes);
    is_noticed(&world, &objects, &run);
}

#[test]
fn c7_reordered_batches_are_noticed() {
    let (objects, world, run) = words(3);
    let (one, two) = (objects.batch(1), objects.batch(2));
    let (first, second) = (objects.bytes(&one), objects.bytes(&two));
    objects.overwrite(&one, second);
    objects.overwrite(&two, first);
    is_noticed(&world, &objects, &run);
}

#[test]
fn c7_a_missing_batch_is_noticed() {
    let (objects, world, run) = words(3);
    drive(objects.inner.delete(&objects.batch(2))).unwrap().unwrap();
    is_noticed(&world, &objects, &run);
}

/// A batch of another run in the place of ours.
#[test]
fn c7_a_foreign_batch_is_noticed() {
    let (objects, world, run) = words(2);
    world.pass_sweeps(1);
    let process = world.process();
    let other = process.start("words", "other", "r", &2);
    process.signal("other", "s0", "word", &"w0");
    world.mail.drop_messages();
    objects.overwrite(&objects.batch(1), world.records(&other)[1].to_vec());
    is_noticed(&world, &objects, &run);
}
