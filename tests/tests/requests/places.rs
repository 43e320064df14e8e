//! Where a run may be kept, and how the requests that this costs are counted: at the store for SQLite, which has no
//! wire; at the objects; and by a proxy before DynamoDB.

use std::sync::Arc;

use dormouse_engine::store::{Around, Op, Store, StoreFuture};
use dormouse_engine::stores::object::ObjectStore;
use dormouse_engine::stores::sqlite::SqliteStore;
use dormouse_testing::CountingStore;
use dormouse_tests::objects::Spoiled;
use futures::executor::block_on;

/// A place for runs.
pub struct Place {
    pub name: String,
    /// Whether each batch is a request of its own to whoever reads it.
    pub by_batch: bool,
    /// Another process's way to it.
    pub store: Arc<dyn Fn() -> Arc<dyn Store>>,
    /// The requests since it was asked last.
    pub taken: Box<dyn Fn() -> usize>,
}

/// A store whose answers are waited for by whoever asks: a world has one thread, and polls no others.
struct AtOnce(Arc<dyn Store>);

impl Around for AtOnce {
    fn inner(&self) -> &dyn Store {
        &*self.0
    }

    fn around<'a, T: Send + 'static>(
        &'a self,
        _: Op<'a>,
        call: impl Fn() -> StoreFuture<'a, T> + Send + Sync + 'a,
    ) -> StoreFuture<'a, T> {
        Box::pin(async move { block_on(call()) })
    }
}

/// Calls of the store: there is nothing below it that is asked from outside.
pub fn sqlite() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(AtOnce(Arc::new(SqliteStore::open(dir.path()).unwrap())));
    let counting = Arc::new(CountingStore::new(store));
    let counts = Arc::clone(&counting);
    let taken = move || {
        let (counts, _dir) = (counts.reset(), &dir);
        usize::try_from(counts.all_reads() + counts.all_writes()).unwrap()
    };
    Place {
        name: "SQLite".into(),
        by_batch: false,
        store: Arc::new(move || Arc::clone(&counting) as _),
        taken: Box::new(taken),
    }
}

/// Puts, gets, pages of listings, deletes.
pub fn objects() -> Place {
    let objects = Arc::new(Spoiled::default());
    let way = Arc::clone(&objects);
    Place {
        name: "objects".into(),
        by_batch: true,
        store: Arc::new(move || Arc::new(ObjectStore::new(Arc::clone(&way) as _, "p")) as _),
        taken: Box::new(move || objects.take_requests().all()),
    }
}

#[cfg(feature = "aws")]
pub use self::aws::dynamodb;

#[cfg(not(feature = "aws"))]
pub fn dynamodb() -> Option<Place> {
    dormouse_tests::tell!("SKIPPED: looks at runs on DynamoDB are counted only with the feature `aws`");
    None
}

#[cfg(feature = "aws")]
mod aws {
    use std::sync::LazyLock;

    use dormouse_aws::blobs::Blobs;
    use dormouse_aws::store::DynamoStore;
    use dormouse_tests::endpoints::dynamodb as client;
    use dormouse_tests::proxy::Proxy;
    use tokio::runtime::Runtime;

    use super::*;

    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

    /// What passes a proxy before the first that `DORMOUSE_TEST_DYNAMODB_ENDPOINTS` names, or the one of them that
    /// `DORMOUSE_TEST_LOOKS_AT` names; and requests for objects, which are in memory. `None`, said: there is no such.
    pub fn dynamodb() -> Option<Place> {
        let listed = std::env::var("DORMOUSE_TEST_DYNAMODB_ENDPOINTS").unwrap_or_default();
        let wanted = std::env::var("DORMOUSE_TEST_LOOKS_AT").ok();
        let mut endpoints = listed.split(',').filter_map(|part| part.split_once('='));
        let found = endpoints.find(|(name, _)| wanted.as_ref().is_none_or(|wanted| wanted == name));
        let Some((name, url)) = found else {
            dormouse_tests::tell!(
                "SKIPPED: looks at runs on DynamoDB are counted only with DORMOUSE_TEST_DYNAMODB_ENDPOINTS"
            );
            return None;
        };
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        let table = format!("dormouse-looks-{since}-{}", std::process::id());
        let proxy = RUNTIME.block_on(async {
            DynamoStore::create_table(&client(url), &table).await.unwrap();
            Proxy::start(url).await.unwrap()
        });
        let objects = Arc::new(Spoiled::default());
        let (blobs, through) = (Arc::clone(&objects), client(&proxy.url()));
        let store = move || {
            let blobs = Blobs::new(Arc::clone(&blobs) as _, RUNTIME.handle().clone());
            let store = DynamoStore::new(through.clone(), &table, blobs, RUNTIME.handle().clone());
            Arc::new(AtOnce(Arc::new(store))) as _
        };
        let taken = move || usize::try_from(proxy.reset().came("*")).unwrap() + objects.take_requests().all();
        Some(Place {
            name: format!("DynamoDB ({name})"),
            by_batch: false,
            store: Arc::new(store),
            taken: Box::new(taken),
        })
    }
}
