//! Requests that nobody should send, for any base URL: a server in this process, one behind a gateway, a deployed one.
//!
//! They are written to the connection byte by byte: libraries would mend them first.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use dormouse::api::{ListBody, Problem};

/// Where they are sent.
#[derive(Debug, Clone)]
pub struct Target<'a> {
    /// Like `http://127.0.0.1:7780`, perhaps with a path behind it. No https: put a proxy in between.
    pub base: &'a str,
    /// Added to each request, such as `Authorization`.
    pub headers: &'a [(&'a str, &'a str)],
    /// Whether something stands before the server that refuses in its own words, decodes paths, or waits for bodies.
    pub gateway: bool,
}

/// A request, and the statuses that may answer it.
#[derive(Debug, Clone)]
pub struct Hostile {
    /// What it tries.
    pub name: String,
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, Vec<u8>)>,
    body: Vec<u8>,
    statuses: &'static [u16],
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

const REFUSED: &[u16] = &[400];
const NOBODY: &[u16] = &[404];
const JSON: (&str, &[u8]) = ("Content-Type", b"application/json");

fn get(path: impl Into<String>, statuses: &'static [u16]) -> Hostile {
    let path = path.into();
    let name = format!("GET {}", path.chars().take(60).collect::<String>());
    Hostile { name, method: "GET", path, headers: Vec::new(), body: Vec::new(), statuses }
}

fn post(path: &str, body: impl Into<Vec<u8>>, statuses: &'static [u16]) -> Hostile {
    let body = body.into();
    let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
    let headers = vec![(JSON.0, JSON.1.to_vec())];
    Hostile { name: format!("POST {path} {shown:?}"), method: "POST", path: path.into(), headers, body, statuses }
}

impl Hostile {
    fn header(mut self, name: &'static str, value: impl Into<Vec<u8>>) -> Self {
        self.name = format!("{} with {name}", self.name);
        self.headers.retain(|(there, _)| *there != name || name == "Idempotency-Key");
        self.headers.push((name, value.into()));
        self
    }

    fn method(mut self, method: &'static str) -> Self {
        self.name = format!("{method} {}", self.path);
        self.method = method;
        self
    }
}

fn paths() -> Vec<Hostile> {
    let mut all = Vec::new();
    for id in
        ["..%2F..%2Fetc%2Fpasswd", "..~2F..~2Fetc~2Fpasswd", "~2E~2E", "~2E", "%252e%252e%252f", "..%5C..%5Cwin.ini"]
    {
        all.push(get(format!("/v1/workflows/{id}"), NOBODY));
        all.push(get(format!("/v1/workflows/{id}/history"), NOBODY));
        all.push(post(&format!("/v1/workflows/{id}/signals/s"), "1", NOBODY));
    }
    for path in [
        "/v1/workflows/../../etc/passwd",
        "/v1/workflows/a/../../../../etc/passwd",
        "/v1/workflows/a/b/c/d",
        "/etc/passwd",
        "/v1/%2e%2e/%2e%2e/etc/passwd",
        "/v2/workflows",
        "/v1/workflows/'%20OR%201=1",
        "/v1/workflows/~E2~80~AEdesrever",
        "/v1/workflows/${jndi:x}",
        "/v1/workflows/%3Cscript%3E",
    ] {
        all.push(get(path, NOBODY));
    }
    for id in ["%00", "~00", "a%0Ab", "a~0D~0ASet-Cookie:~20x", "~1B[2J", "~7F", "~C2~85"] {
        all.push(get(format!("/v1/workflows/{id}"), REFUSED));
        all.push(post(&format!("/v1/workflows/a/queries/{id}"), "1", REFUSED));
        all.push(post(&format!("/v1/workflows/{id}/cancel"), "", REFUSED));
    }
    // No UTF-8, a surrogate, and a slash in two bytes.
    for id in ["%FF", "~FF", "~C3(", "%C3%28", "~ED~A0~80", "~C0~AF", "%C0%AF"] {
        all.push(get(format!("/v1/workflows/{id}/result"), REFUSED));
    }
    for id in ["a".repeat(256), "a".repeat(7_000), "~F0~9F~90~AD".repeat(64), "%61".repeat(256)] {
        all.push(get(format!("/v1/workflows/{id}"), REFUSED));
        all.push(post(&format!("/v1/workflows/a/signals/{id}"), "1", REFUSED));
    }
    for query in [
        "run_id=../../x",
        "run_id=67e55044-10b1-426f-9247-bb680e5fe0c8'",
        "run_id=%00",
        "unknown=1",
        "run_id=67e55044-10b1-426f-9247-bb680e5fe0c8&run_id=67e55044-10b1-426f-9247-bb680e5fe0c8",
    ] {
        all.push(get(format!("/v1/workflows/a?{query}"), REFUSED));
    }
    for query in [
        "page_token=%FF",
        "page_token=AAAA",
        "id_prefix=%00",
        "id_prefix=%FF",
        "workflow_type=a%0Ab",
        "limit=99999999999999999999",
        "limit=-1",
        "limit=0",
        "status=%27%20OR%201=1",
    ] {
        all.push(get(format!("/v1/workflows?{query}"), REFUSED));
    }
    all
}

fn bodies() -> Vec<Hostile> {
    let start = |body: &[u8]| post("/v1/workflows", body, REFUSED);
    let deep = |open: &str, close: &str| open.repeat(100_000) + &close.repeat(100_000);
    let mut all: Vec<Hostile> = [
        &b""[..],
        b"{",
        b"null",
        b"[]",
        b"\"workflow\"",
        b"{\"workflow_type\":\"\xff\xfe\"}",
        b"\xff\xfe{\0}\0",
        b"\xef\xbb\xbf{\"workflow_type\":\"none such\"}",
        b"\x1f\x8b\x08\x00",
        br#"{"workflow_type":"\ud800"}"#,
        br#"{"workflow_type":"none such","input":"\ud800"}"#,
        br#"{"workflow_type":"none such","input":NaN}"#,
        br#"{"workflow_type":"none such","input":1e999999}"#,
        br#"{"workflow_type":"none such","workflow_type":"none such"}"#,
        br#"{"workflow_type":"none such","workflow_id":"a","workflow_id":"b"}"#,
        br#"{"workflow_type":"none such","__proto__":{}}"#,
        br#"{"workflow_type":"none such"}{"workflow_type":"none such"}"#,
        br#"{"workflow_type":"none such","workflow_id":7}"#,
        br#"{"workflow_type":"none such","workflow_id":""}"#,
        br#"{"workflow_type":"none such","workflow_id":"a\u0000b"}"#,
        br#"{"workflow_type":"none such","workflow_id":"a\nb"}"#,
        br#"{"workflow_type":"none such","id_reuse_policy":"Always"}"#,
        br#"{"workflow_type":""}"#,
        br#"{"workflow_type":"none\u0007such"}"#,
        br#"{"workflow_type":"none such"}"#,
    ]
    .into_iter()
    .map(start)
    .collect();
    let long = "x".repeat(256);
    all.push(start(format!(r#"{{"workflow_type":"none such","workflow_id":"{long}"}}"#).as_bytes()));
    all.push(start(format!(r#"{{"workflow_type":"{long}"}}"#).as_bytes()));
    for nested in [deep("[", "]"), deep(r#"{"a":"#, "}").replace(":}", ":1}"), "[".repeat(100_000)] {
        all.push(start(format!(r#"{{"workflow_type":"none such","input":{nested}}}"#).as_bytes()));
        all.push(post("/v1/workflows/a/signals/s", nested.clone(), REFUSED));
        all.push(post("/v1/workflows/a/queries/q", nested, REFUSED));
    }
    for body in [&b"tea"[..], b"\"\xff\"", b"1 2", b"{\"a\":}", b"\0"] {
        all.push(post("/v1/workflows/a/signals/s", body, REFUSED));
    }
    for verb in ["cancel", "terminate"] {
        all.push(post(&format!("/v1/workflows/a/{verb}"), r#"{"because":"x"}"#, REFUSED));
        all.push(post(&format!("/v1/workflows/a/{verb}"), r#"{"reason":7}"#, REFUSED));
        all.push(post(&format!("/v1/workflows/a/{verb}"), r#"{"reason":"x"}"#, NOBODY));
    }
    let sound = r#"{"workflow_type":"none such"}"#;
    for kind in [
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "\u{e9}",
    ] {
        all.push(Hostile { statuses: &[415], ..post("/v1/workflows", sound, REFUSED).header("Content-Type", kind) });
    }
    let keyed = |key: &[u8]| post("/v1/workflows", sound, REFUSED).header("Idempotency-Key", key);
    all.extend([
        keyed(b""),
        keyed(b"\xe9"),
        keyed("k".repeat(256).as_bytes()),
        keyed(b"a").header("Idempotency-Key", b"b"),
    ]);
    let cross = post("/v1/workflows", sound, &[403]).header("Sec-Fetch-Site", "cross-site");
    all.push(cross);
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS"] {
        all.push(get("/v1/workflows", &[405]).method(method));
    }
    all
}

/// What a gateway answers by itself, or waits for.
fn beyond_gateways() -> Vec<Hostile> {
    let announced = |path: &str| post(path, "", &[413]).header("Content-Length", "99999999999");
    vec![
        announced("/v1/workflows"),
        announced("/v1/workflows/a/signals/s"),
        announced("/v1/workflows/a/cancel"),
        get("//etc/passwd", NOBODY),
        get("/v1//workflows", NOBODY),
        get("/v1/workflows//history", REFUSED),
    ]
}

/// Sends them all, and a listing before and after. How many it were.
///
/// # Panics
/// When one is not refused with a problem document, or the listing has changed.
pub fn assail(target: &Target<'_>) -> usize {
    let listing = || {
        let answer = send(target, &get("/v1/workflows?limit=1000", &[200]));
        let page: ListBody = serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
        page.workflows.into_iter().map(|run| run.run_id).collect::<Vec<_>>()
    };
    let before = listing();
    let mut all = [paths(), bodies()].concat();
    if !target.gateway {
        all.extend(beyond_gateways());
    }
    let wrong: Vec<String> =
        all.iter().filter_map(|hostile| objection(target, hostile, &send(target, hostile))).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n"));
    assert_eq!(listing(), before, "something was begun");
    all.len()
}

/// What is wrong with an answer.
fn objection(target: &Target<'_>, hostile: &Hostile, answer: &Answer) -> Option<String> {
    let text = String::from_utf8_lossy(&answer.body);
    let shown: String = text.chars().take(300).collect();
    let wrong = |what: &str| Some(format!("{}: {what}: {} {shown}", hostile.name, answer.status));
    let problem = serde_json::from_slice::<Problem>(&answer.body).ok();
    if problem.is_none() && target.gateway && (400..500).contains(&answer.status) {
        return None;
    }
    let Some(problem) = problem else { return wrong("no problem document") };
    let kind = answer.headers.iter().find(|(name, _)| name == "content-type").map(|(_, value)| value.as_str());
    // Gateways decode paths: what was refused for its encoding may then be somebody whom nobody knows.
    let decoded = target.gateway && matches!(answer.status, 400 | 404 | 405);
    if !hostile.statuses.contains(&answer.status) && !decoded {
        return wrong(&format!("expected {:?}", hostile.statuses));
    }
    if problem.status != answer.status || problem.detail.is_empty() || kind != Some("application/problem+json") {
        return wrong("a problem document that is not true");
    }
    if [".rs:", "panicked", "src/"].iter().any(|inside| text.contains(inside)) {
        return wrong("it tells of our insides");
    }
    None
}

/// Sends a request as it is, on a connection of its own.
///
/// # Panics
/// When there is no answer within 30 s.
#[must_use]
pub fn send(target: &Target<'_>, request: &Hostile) -> Answer {
    let address = target.base.strip_prefix("http://").expect("a base that begins with http://");
    let (host, prefix) = address.split_once('/').map_or((address, String::new()), |(host, rest)| {
        (host, format!("/{}", rest.trim_end_matches('/')).trim_end_matches('/').to_owned())
    });
    let mut bytes = format!("{} {prefix}{} HTTP/1.1\r\nHost: {host}\r\n", request.method, request.path).into_bytes();
    let announced = request.headers.iter().any(|(name, _)| *name == "Content-Length");
    for (name, value) in target.headers {
        bytes.extend(format!("{name}: {value}\r\n").bytes());
    }
    for (name, value) in &request.headers {
        bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    if !announced {
        bytes.extend(format!("Content-Length: {}\r\n", request.body.len()).bytes());
    }
    bytes.extend(b"Connection: close\r\n\r\n");
    bytes.extend(&request.body);
    exchange(host, &bytes).unwrap_or_else(|error| panic!("{}: no answer: {error}", request.name))
}

/// Writes these bytes to a connection of their own, and reads the answer.
///
/// # Errors
/// When there is none within 30 s.
pub fn exchange(host: &str, request: &[u8]) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    // Whoever answers early may stop reading; what was answered counts.
    let sent = stream.write_all(request);
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if bytes.is_empty() => return Err(sent.err().unwrap_or(error)),
        _ => {}
    }
    parse(&bytes).ok_or_else(|| std::io::Error::other(format!("{:?}", String::from_utf8_lossy(&bytes))))
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let mut lines = std::str::from_utf8(&bytes[..end]).ok()?.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = &bytes[end + 4..];
    Some(Answer { status, headers, body: if chunked { unchunk(body)? } else { body.to_vec() } })
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?.trim(), 16).ok()?;
        if length == 0 {
            return Some(body);
        }
        body.extend(rest.get(line + 2..line + 2 + length)?);
        rest = rest.get(line + 4 + length..)?;
    }
}
