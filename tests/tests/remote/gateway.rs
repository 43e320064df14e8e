//! A real server behind a gateway as Amazon's HTTP APIs are: it checks the signature, and hands the path on decoded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use dormouse::{
    Activity, ActivityOptions, App, Embedded, Failure, Limits, Query, Settings, Signal, Workflow, WorkflowHandle,
};
use dormouse_engine::stores::object::ObjectStore;
use object_store::memory::InMemory;
use percent_encoding::percent_decode_str;

use crate::sigv4::{Scope, Signed, authorization};

pub const GO: Signal<u64> = Signal::new("go on/now");
const STATUS: Query<String> = Query::new("how is it?");

async fn double(_: Activity, number: u64) -> Result<u64, Failure> {
    Ok(2 * number)
}

pub async fn doubling(cx: Workflow, factor: u64) -> Result<u64, Failure> {
    let status = cx.publish(STATUS, "waiting".into());
    let number = cx.signal(GO).await?;
    let options = ActivityOptions::start_to_close(Duration::from_secs(10));
    let doubled = cx.activity(double, &number).options(options).await?;
    status.set("done".into());
    Ok(doubled * factor)
}

pub fn app() -> App {
    App::new().workflow("doubling", doubling).activity("double", double)
}

pub async fn status(handle: &WorkflowHandle<u64>) -> String {
    handle.query(STATUS).await.unwrap()
}

/// The secret that belongs to the key `AKID<count>`.
pub fn secret(count: u64) -> String {
    format!("secret/{count}+")
}

/// What arrived.
pub struct Seen {
    pub key: Option<String>,
    pub date: String,
}

struct Inside {
    region: &'static str,
    /// So many requests are answered 503, after their signature was checked.
    busy: AtomicU64,
    refused: AtomicU64,
    seen: Mutex<Vec<Seen>>,
    _engine: Embedded,
}

/// The gateway. Its server ends with the test's runtime.
pub struct Gateway {
    pub url: String,
    inside: Arc<Inside>,
}

impl Gateway {
    pub async fn open(region: &'static str, busy: u64) -> Self {
        let store = Arc::new(ObjectStore::new(Arc::new(InMemory::new()), "p"));
        let engine = Embedded::open(Arc::new(app()), store, Settings::default()).await.unwrap();
        let routes = dormouse::router(engine.front(), Limits::default(), dormouse::Hosts::any());
        let inside =
            Inside { region, busy: busy.into(), refused: AtomicU64::new(0), seen: Mutex::default(), _engine: engine };
        let inside = Arc::new(inside);
        let guarded = Router::new().fallback_service(routes).layer(from_fn_with_state(Arc::clone(&inside), check));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, guarded).await });
        Self { url, inside }
    }

    pub fn refused(&self) -> u64 {
        self.inside.refused.load(Ordering::Relaxed)
    }

    pub fn seen(&self) -> std::sync::MutexGuard<'_, Vec<Seen>> {
        self.inside.seen.lock().unwrap()
    }
}

async fn check(State(inside): State<Arc<Inside>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    inside
        .seen
        .lock()
        .unwrap()
        .push(Seen { key: header("idempotency-key"), date: header("x-amz-date").unwrap_or_default() });
    let expected = header("authorization").and_then(|given| {
        let names = given.split_once("SignedHeaders=")?.1.split_once(',')?.0;
        let (key_id, _) = given.split_once("Credential=")?.1.split_once('/')?;
        let date = header("x-amz-date")?;
        // What is not signed could be changed on the way.
        let must: &[&str] = match (parts.method.as_str(), header("idempotency-key")) {
            ("POST", Some(_)) => &["content-type", "host", "idempotency-key", "x-amz-date", "x-amz-security-token"],
            ("POST", None) => &["content-type", "host", "x-amz-date", "x-amz-security-token"],
            _ => &["host", "x-amz-date", "x-amz-security-token"],
        };
        let signed: Vec<&str> = names.split(';').collect();
        let headers: Option<Vec<_>> = signed.iter().map(|name| Some(((*name).to_owned(), header(name)?))).collect();
        let count: u64 = key_id.strip_prefix("AKID")?.parse().ok()?;
        let request = Signed {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query().unwrap_or_default(),
            headers: &headers?,
            body: &body,
        };
        let secret = secret(count);
        let scope = Scope { key_id, secret: &secret, date: &date, region: inside.region, service: "execute-api" };
        let token = header("x-amz-security-token")? == format!("token{count}");
        (signed == must && token && authorization(&request, &scope) == given).then_some(())
    });
    if expected.is_none() {
        inside.refused.fetch_add(1, Ordering::Relaxed);
        return (StatusCode::FORBIDDEN, r#"{"message":"Forbidden"}"#).into_response();
    }
    if inside.busy.try_update(Ordering::Relaxed, Ordering::Relaxed, |busy| busy.checked_sub(1)).is_ok() {
        return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")], r#"{"message":"Service Unavailable"}"#)
            .into_response();
    }
    // Decoding must change nothing, or ids would be torn apart here.
    assert_eq!(percent_decode_str(parts.uri.path()).decode_utf8().unwrap(), parts.uri.path());
    next.run(Request::from_parts(parts, Body::from(body))).await
}
