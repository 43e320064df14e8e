//! The proxy at work: takes requests, does what the rules say, forwards.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::answers::{self, Answer, Refusal};
use super::call::Call;
use super::counts::Counting;
use super::rules::{Action, Rule, Rules, Spoiled, millis};
use super::split::{self, Split};

/// What concerns one connection only, and so is not handed on.
const HOP_BY_HOP: &[&str] =
    &["connection", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// How long half an answer has to reach the client before the connection breaks.
const BREAK_AFTER: u64 = 50;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    /// `host:port`.
    upstream: String,
    pub(super) rules: Rules,
    pub(super) counts: Counting,
}

/// A request, whole.
#[derive(Debug, Clone)]
struct Asked {
    call: Arc<Call>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Shared {
    pub(super) fn new(upstream: &str) -> io::Result<Self> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("{upstream:?} is no http://host:port"));
        let uri: Uri = upstream.parse().map_err(|_| wrong())?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(wrong)?;
        let upstream = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        Ok(Self { upstream, rules: Rules::default(), counts: Counting::default() })
    }
}

/// Accepts connections, for ever.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // They end with this task; what they have forwarded does not.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: others will be closed.
            tokio::time::sleep(millis(20)).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // Neither fails in a way that the client would not see too.
            let _ = stream.set_nodelay(true);
            let service = service_fn(|request| serve(Arc::clone(&shared), request));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Closes the connection without an answer.
fn closed<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::ConnectionAborted, "closed by a rule"))
}

async fn serve(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (Parts { method, uri, headers, .. }, body) = {
        let (parts, body) = request.into_parts();
        (parts, body.collect().await.map_err(io::Error::other)?.to_bytes())
    };
    if let Some(path) = uri.path().strip_prefix("/__proxy/") {
        return Ok(whole(steer(&shared, &method, path, &body)));
    }
    let call = Arc::new(Call::of(&method, &uri, &headers, &body));
    shared.counts.came(&call);
    let asked = Asked { call, method, uri, headers, body };
    let Some(action) = shared.rules.strike(&asked.call) else {
        let Some(plan) = split::by_message(&asked.call, &shared.rules) else {
            return Ok(whole(forward(&shared, asked).await));
        };
        shared.counts.struck(&asked.call);
        return Ok(whole(match plan {
            Ok(plan) => carry_out(&shared, asked, plan).await,
            Err(refusal) => refusal.answer(&asked.call),
        }));
    };
    shared.counts.struck(&asked.call);
    strike(&shared, asked, action).await
}

async fn strike(shared: &Arc<Shared>, asked: Asked, action: Action) -> io::Result<Response<Body>> {
    let call = Arc::clone(&asked.call);
    // What a rule asks of a request that it cannot be done to.
    let senseless = || Refusal::Code(501, format!("{action:?} is nothing to do on {call}")).answer(&call);
    let answer = match &action {
        Action::Refuse(refusal) => refusal.answer(&call),
        Action::LandThenRefuse(refusal) => {
            forward(shared, asked).await;
            refusal.answer(&call)
        }
        Action::Close => return closed(),
        Action::DropAnswer => {
            forward(shared, asked).await;
            return closed();
        }
        Action::LandLater(later) => {
            let (shared, later) = (Arc::clone(shared), millis(*later));
            tokio::spawn(async move {
                tokio::time::sleep(later).await;
                forward(&shared, asked).await;
            });
            return closed();
        }
        Action::Slow(late) => {
            let answer = forward(shared, asked).await;
            tokio::time::sleep(millis(*late)).await;
            answer
        }
        Action::Twice => {
            forward(shared, asked.clone()).await;
            forward(shared, asked).await
        }
        Action::Spoil(how) => return Ok(spoiled(forward(shared, asked).await, *how)),
        Action::Swallow => match (split::swallowed(&call), answers::swallowed(&call)) {
            (Some(plan), _) => carry_out(shared, asked, plan).await,
            (None, Some(answer)) => answer,
            (None, None) => senseless(),
        },
        Action::Double if call.messages.is_empty() => senseless(),
        Action::Double => carry_out(shared, asked, split::doubled(&call)).await,
        Action::Partial => match split::partial(&call) {
            Some(plan) => carry_out(shared, asked, plan).await,
            None => senseless(),
        },
    };
    Ok(whole(answer))
}

/// Forwards the parts of a request, and puts their answer together.
async fn carry_out(shared: &Arc<Shared>, asked: Asked, plan: Split) -> Answer {
    let Some(on) = plan.on else { return Answer::json(200, &plan.added) };
    let mut answer = forward(shared, asked.with_body(&on)).await;
    if let Some(again) = plan.again {
        forward(shared, asked.with_body(&again)).await;
    }
    if answer.status.is_success()
        && plan.added.is_object()
        && let Ok(mut body) = serde_json::from_slice::<Value>(&answer.body)
    {
        split::join(&mut body, &plan.added);
        answer.body = body.to_string().into();
    }
    answer
}

impl Asked {
    fn with_body(&self, body: &Value) -> Self {
        let mut asked = self.clone();
        asked.body = body.to_string().into();
        asked.headers.insert(CONTENT_LENGTH, asked.body.len().into());
        asked
    }
}

/// Forwards a request, whatever becomes of the client meanwhile.
async fn forward(shared: &Arc<Shared>, asked: Asked) -> Answer {
    let shared = Arc::clone(shared);
    let call = Arc::clone(&asked.call);
    let task = tokio::spawn(async move {
        shared.counts.forwarded(&call);
        let answer = exchange(&shared.upstream, asked).await;
        shared.counts.answered(&call, answer.as_ref().ok().map(|answer| answer.status.as_u16()));
        answer
    });
    let answer = task.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    answer.unwrap_or_else(|error| Answer::json(502, &json!({ "message": format!("fault proxy: {error}") })))
}

async fn exchange(upstream: &str, asked: Asked) -> io::Result<Answer> {
    let stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(io::Error::other)?;
    // It ends with the sender; what it has to say, the answer says too.
    let driver = tokio::spawn(connection);
    let mut request = Request::new(Full::new(asked.body));
    *request.method_mut() = asked.method;
    *request.uri_mut() = asked.uri;
    *request.headers_mut() = end_to_end(asked.headers);
    let (parts, body) = sender.send_request(request).await.map_err(io::Error::other)?.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    drop(sender);
    drop(driver);
    Ok(Answer { status: parts.status, headers: end_to_end(parts.headers), body })
}

fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for name in HOP_BY_HOP {
        headers.remove(*name);
    }
    headers
}

/// The answer as it is.
fn whole(answer: Answer) -> Response<Body> {
    let length = answer.body.len();
    let mut response = Response::new(Full::new(answer.body).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    // The body may be another than it was; an answer to HEAD has none, and says how long it would be.
    if length > 0 {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    response
}

fn spoiled(mut answer: Answer, how: Spoiled) -> Response<Body> {
    let text: &'static [u8] = match how {
        Spoiled::Empty => b"",
        Spoiled::Null => b"null",
        Spoiled::NoFields => b"{}",
        Spoiled::Half => {
            answer.headers.insert(CONTENT_LENGTH, answer.body.len().into());
            let half = answer.body.slice(..answer.body.len() / 2);
            let broken = async {
                tokio::time::sleep(millis(BREAK_AFTER)).await;
                closed()
            };
            let frames = stream::iter([Ok(Frame::data(half))]).chain(stream::once(broken));
            let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
            *response.status_mut() = answer.status;
            *response.headers_mut() = answer.headers;
            return response;
        }
    };
    // A checksum would tell, and no service sends one that does not fit.
    answer.headers.remove("x-amz-crc32");
    answer.headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    answer.body = Bytes::from_static(text);
    whole(answer)
}

/// Requests to the proxy itself.
fn steer(shared: &Shared, method: &Method, path: &str, body: &[u8]) -> Answer {
    let json = |value: serde_json::Result<Value>| match value {
        Ok(value) => Answer::json(200, &value),
        Err(error) => Answer::json(500, &json!({ "error": error.to_string() })),
    };
    match (method, path) {
        (&Method::GET, "counts") => json(serde_json::to_value(shared.counts.read())),
        (&Method::GET, "rules") => {
            let rules = shared.rules.all();
            Answer::json(200, &rules.iter().map(|(rule, struck)| json!({ "rule": rule, "struck": struck })).collect())
        }
        (&Method::POST, "rules") => match read_rules(body) {
            Ok(rules) => {
                for rule in rules {
                    shared.rules.add(rule);
                }
                Answer::json(200, &json!({}))
            }
            Err(error) => Answer::json(400, &json!({ "error": error })),
        },
        (&Method::DELETE, "rules") => {
            shared.rules.clear();
            Answer::json(200, &json!({}))
        }
        (&Method::POST, "reset") => json(serde_json::to_value(shared.counts.take())),
        _ => Answer::json(404, &json!({ "error": "there are counts, rules and reset" })),
    }
}

/// Reads rules from JSON: one, or a list.
///
/// # Errors
/// What is wrong with the text, or with what a rule asks.
pub fn read_rules(text: &[u8]) -> Result<Vec<Rule>, String> {
    let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let list = if value.is_array() { value } else { json!([value]) };
    let rules: Vec<Rule> = serde_json::from_value(list).map_err(|error| error.to_string())?;
    match rules.iter().find_map(Rule::nonsense) {
        Some(nonsense) => Err(nonsense),
        None => Ok(rules),
    }
}
