//! Objects in memory that count what is asked of them, and spoil it.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::watch;

/// What happens to a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoil {
    /// It never arrives.
    Before,
    /// Its answer is lost.
    After,
    /// It meets a conflict, and nothing is written: S3's 409.
    Conflict,
    /// It is carried out when puts are no longer spoiled; until then, reads of such keys wait as well.
    Hold,
    /// Its conditions are ignored: it overwrites.
    Overwrite,
    /// The same, but only of those that replace a version.
    OverwriteUpdates,
    /// 401: whoever asks is not known, or not any more.
    Unauthenticated,
    /// 403: he may not, or not yet.
    Denied,
}

/// What was asked of the objects, but for the owner's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// Creates and replacements, however they ended.
    pub puts: usize,
    /// Objects, and whether they are there.
    pub gets: usize,
    /// Pages of 1,000 keys.
    pub lists: usize,
    /// Objects deleted.
    pub deletes: usize,
}

impl Requests {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> usize {
        self.puts + self.gets + self.lists + self.deletes
    }
}

/// Objects in memory, some requests spoiled.
#[derive(Debug, Default)]
pub struct Spoiled {
    inner: Arc<InMemory>,
    /// All puts to keys that contain this.
    puts: watch::Sender<Option<(&'static str, Spoil)>>,
    /// The next listing does not show keys that end so.
    hidden: Mutex<Option<String>>,
    requests: Arc<Mutex<Requests>>,
}

impl Spoiled {
    /// Another way to these objects, which may be spoiled otherwise.
    #[must_use]
    pub fn over(inner: &Arc<InMemory>) -> Arc<Self> {
        Arc::new(Self { inner: Arc::clone(inner), ..Self::default() })
    }

    /// From now on, puts to keys that contain this are spoiled so.
    pub fn spoil(&self, puts: Option<(&'static str, Spoil)>) {
        self.puts.send_replace(puts);
    }

    /// How a request for this key is spoiled, once it is no longer held.
    async fn spoiled(&self, location: &Path) -> Option<Spoil> {
        let spoil = |puts: &Option<(&'static str, Spoil)>| {
            puts.filter(|(key, _)| location.as_ref().contains(key)).map(|(_, spoil)| spoil)
        };
        let mut puts = self.puts.subscribe();
        let now = puts.wait_for(|puts| spoil(puts) != Some(Spoil::Hold)).await.expect("we hold the sender");
        spoil(&now)
    }

    /// The requests up to now; begins at zero again.
    ///
    /// # Panics
    /// When another thread has panicked over these objects.
    pub fn take_requests(&self) -> Requests {
        std::mem::take(&mut self.requests.lock().unwrap())
    }

    fn count(&self, location: &Path, count: impl FnOnce(&mut Requests)) {
        if ![".owner", ".scratch"].iter().any(|own| location.as_ref().contains(own)) {
            count(&mut self.requests.lock().unwrap());
        }
    }

    /// The next listing does not show keys that end so.
    ///
    /// # Panics
    /// When another thread has panicked over these objects, as everything here.
    pub fn hide(&self, end: &str) {
        *self.hidden.lock().unwrap() = Some(end.to_owned());
    }

    fn stale(&self, listing: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.requests.lock().unwrap().lists += 1;
        let (requests, mut shown) = (Arc::clone(&self.requests), 0);
        let listing = listing
            .inspect(move |_| {
                shown += 1;
                if shown > 1_000 && shown % 1_000 == 1 {
                    requests.lock().unwrap().lists += 1;
                }
            })
            .boxed();
        match self.hidden.lock().unwrap().take() {
            None => listing,
            Some(end) => listing
                .filter(move |meta| {
                    let hidden = meta.as_ref().is_ok_and(|meta| meta.location.as_ref().ends_with(&end));
                    std::future::ready(!hidden)
                })
                .boxed(),
        }
    }
}

impl fmt::Display for Spoiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("spoiled")
    }
}

#[async_trait]
impl object_store::ObjectStore for Spoiled {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.count(location, |requests| requests.puts += 1);
        let lost = || Error::Generic { store: "spoiled", source: "lost".into() };
        let path = location.to_string();
        let spoil = self.spoiled(location).await;
        let spoil = spoil.filter(|spoil| *spoil != Spoil::OverwriteUpdates || matches!(opts.mode, PutMode::Update(_)));
        match spoil {
            Some(Spoil::Overwrite | Spoil::OverwriteUpdates) => {
                self.inner.put_opts(location, payload, PutMode::Overwrite.into()).await
            }
            None | Some(Spoil::Hold) => self.inner.put_opts(location, payload, opts).await,
            Some(Spoil::Before) => Err(lost()),
            Some(Spoil::Unauthenticated) => Err(Error::Unauthenticated { path, source: "401".into() }),
            Some(Spoil::Denied) => Err(Error::PermissionDenied { path, source: "403".into() }),
            Some(Spoil::After) => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(lost())
            }
            Some(Spoil::Conflict) => Err(Error::AlreadyExists { path: location.to_string(), source: "409".into() }),
        }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.count(location, |requests| requests.gets += 1);
        let path = location.to_string();
        match self.spoiled(location).await {
            Some(Spoil::Unauthenticated) => return Err(Error::Unauthenticated { path, source: "401".into() }),
            Some(Spoil::Denied) => return Err(Error::PermissionDenied { path, source: "403".into() }),
            _ => {}
        }
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let requests = Arc::clone(&self.requests);
        let counted = move |location: &Result<Path>| {
            if location.as_ref().is_ok_and(|location| !location.as_ref().contains(".scratch")) {
                requests.lock().unwrap().deletes += 1;
            }
        };
        self.inner.delete_stream(locations.inspect(counted).boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.stale(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.stale(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
