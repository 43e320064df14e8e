//! What is refused before the engine is asked, and that what is sound goes through to it: there is none here, so
//! that shows as 503.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use axum::routing::get;
use axum::{Router, response::Response};
use dormouse_core::api::Problem;
use dormouse_core::{Failure, Misfit, RunId};
use dormouse_engine::ApiError;
use tower::ServiceExt;

use crate::extract::Params;
use crate::problem::{Kind, PROBLEM_JSON, Refused};
use crate::{Api, Hosts, Limits, build, middleware};

const LIMIT: usize = 1024;

fn request(method: &str, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path)
}

async fn send(request: Request<Body>) -> Response {
    let api = Api { front: None, limits: Limits { max_payload_bytes: LIMIT } };
    build(api, Hosts::any(), None).oneshot(request).await.unwrap()
}

/// The problem of a response that must be one.
async fn problem(response: Response) -> Problem {
    assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let problem: Problem = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem.status, status.as_u16());
    assert!(!problem.detail.is_empty() && !problem.title.is_empty());
    problem
}

async fn get_problem(path: &str) -> Problem {
    problem(send(request("GET", path).body(Body::empty()).unwrap()).await).await
}

async fn post_problem(path: &str, body: impl Into<Body>) -> Problem {
    problem(send(request("POST", path).body(body.into()).unwrap()).await).await
}

fn kind(problem: &Problem) -> &str {
    problem.problem_type.strip_prefix("/problems/").unwrap()
}

#[tokio::test]
async fn sound_requests_reach_the_engine() {
    for path in [
        "/v1/workflows",
        "/v1/workflows?status=running&workflow_type=a&id_prefix=%C3%A9&limit=1000",
        "/v1/workflows/order-1",
        "/v1/workflows/order-1?run_id=67e55044-10b1-426f-9247-bb680e5fe0c8",
        "/v1/workflows/a%2Fb%252F%3F/history?limit=1",
        "/v1/workflows/order-1/history?after=7",
        "/v1/workflows/order-1/records?page_token=BAAAAAAAAAAB",
        "/v1/workflows/%F0%9F%90%AD/result?wait=20s",
        "/v1/workflows/x/result?wait=25s&or_parked=true",
        "/v1/workflows/../result",
        "/v1/workflows/~2E~2E/result",
        "/v1/workflows/a~2Fb~C3~A9/history",
        "/v1/workflows/~/result",
        "/v1/workflows/%2e%2e",
        "/v1/quarantine",
        "/v1/quarantine?limit=7&page_token=AzE3NjM4MjAjYQ",
        "/v1/quarantine/1763820000000-a~23b",
        "/v1/workflows?parked=true",
    ] {
        let problem = get_problem(path).await;
        assert_eq!((problem.status, kind(&problem)), (503, "unavailable"), "{path}: {}", problem.detail);
    }
    for (path, body) in [
        ("/v1/workflows", r#"{"workflow_type": "orderWorkflow"}"#),
        (
            "/v1/workflows",
            r#"{"workflow_type": "a", "workflow_id": "a/b", "input": [1], "id_conflict_policy": "UseExisting"}"#,
        ),
        ("/v1/workflows", r#"{"workflow_type": "a", "workflow_id": ".."}"#),
        ("/v1/workflows/a/signals/go", ""),
        ("/v1/workflows/~2E/signals/go~2Fon", ""),
        ("/v1/workflows/a~2Fb/queries/is~20it~3F", ""),
        ("/v1/workflows/a/signals/go%2Fon", "{\"a\": 1}"),
        ("/v1/workflows/a/queries/status", "[]"),
        ("/v1/workflows/a/cancel", ""),
        ("/v1/workflows/a/terminate", r#"{"reason": "enough"}"#),
        ("/v1/quarantine/redrive", ""),
        ("/v1/quarantine/redrive", r#"{"ids": ["1763820000000-a"]}"#),
        ("/v1/quarantine/redrive", r#"{"page_token": "AzE3NjM4MjAjYQ"}"#),
        ("/v1/quarantine/discard", r#"{"ids": ["1763820000000-a"]}"#),
    ] {
        let problem = post_problem(path, body).await;
        assert_eq!(problem.status, 503, "{path}: {}", problem.detail);
    }
}

#[tokio::test]
async fn unavailable_says_when_to_come_back() {
    let response = send(request("GET", "/v1/workflows").body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    assert!(response.headers().contains_key("x-request-id"));
}

#[tokio::test]
async fn requests_keep_the_name_that_they_came_with() {
    let named = request("GET", "/healthz").header("x-request-id", "mine").body(Body::empty()).unwrap();
    let response = send(named).await;
    assert_eq!((response.status(), &response.headers()["x-request-id"]), (StatusCode::OK, &"mine".parse().unwrap()));
    let unsound = request("GET", "/healthz").header("x-request-id", "m".repeat(300)).body(Body::empty()).unwrap();
    assert!(send(unsound).await.headers()["x-request-id"].len() < 50);
}

#[tokio::test]
async fn unsound_paths_and_queries_are_refused() {
    for (path, says) in [
        ("/v1/workflows/%00", "control character"),
        ("/v1/workflows/a%0Ab/history", "control character"),
        ("/v1/workflows/%FF", "UTF-8"),
        ("/v1/workflows/~00", "control character"),
        ("/v1/workflows/a~0Ab/history", "control character"),
        ("/v1/workflows/~FF", "~XX"),
        ("/v1/workflows/~C3%28/result", "UTF-8"),
        (&format!("/v1/workflows/{}", "~C3~A9".repeat(128)), "256 bytes"),
        ("/v1/workflows/%C3%28/result", "UTF-8"),
        (&format!("/v1/workflows/{}", "a".repeat(300)), "300 bytes"),
        (&format!("/v1/workflows/{}", "%C3%A9".repeat(128)), "256 bytes"),
        ("/v1/workflows//history", "empty"),
        ("/v1/workflows?pagesize=3", "pagesize"),
        ("/v1/workflows?limit=0", "1 to 1000"),
        ("/v1/workflows?limit=1001", "1 to 1000"),
        ("/v1/workflows?limit=-1", "limit"),
        ("/v1/workflows?limit=99999999999", "limit"),
        ("/v1/workflows?limit=1&limit=2", "duplicate"),
        ("/v1/workflows?status=Dreaming", "Completed"),
        ("/v1/workflows?page_token=nonsense", "next_page_token"),
        ("/v1/workflows?id_prefix=%00", "control character"),
        ("/v1/workflows?id_prefix=%FF", "UTF-8"),
        ("/v1/workflows/a?run_id=7", "run_id"),
        ("/v1/workflows/a?wait=1s", "wait"),
        ("/v1/workflows/a/history?after=1&page_token=AgAAAAAAAAAB", "one of them"),
        ("/v1/workflows/a/history?page_token=AQ", "next_page_token"),
        ("/v1/workflows/a/records?page_token=AgAAAAAAAAAB", "next_page_token"),
        ("/v1/quarantine?limit=0", "1 to 1000"),
        ("/v1/quarantine?page_token=AgAAAAAAAAAB", "next_page_token"),
        ("/v1/workflows/a/result?wait=20", "20s"),
        ("/v1/workflows/a/result?wait=500s", "25s at most"),
        ("/v1/workflows/a/result?or_parked=maybe", "or_parked"),
        ("/v1/workflows/a/result?wait=-1s", "20s"),
        ("/v1/workflows/a/result?wait=", "20s"),
    ] {
        let problem = get_problem(path).await;
        assert_eq!((problem.status, kind(&problem)), (400, "invalid-request"), "{path}");
        assert!(problem.detail.contains(says), "{path}: {}", problem.detail);
    }
    for path in [
        "/v1/workflows/a/signals/%00",
        "/v1/workflows/a/queries/%0D",
        "/v1/workflows/a/signals/~00",
        "/v1/workflows/a/signals/~FF",
        "/v1/workflows/~FF/queries/a",
        "/v1/workflows/a/queries/~C3",
        "/v1/workflows/a/cancel?force=yes",
        "/v1/workflows?x=1",
    ] {
        assert_eq!(post_problem(path, "{}").await.status, 400, "{path}");
    }
}

#[tokio::test]
async fn paths_are_decoded_once() {
    let echo = Router::new()
        .route("/{id}", get(|Params(id): Params<String>| async move { id }))
        .route("/{id}/{name}", get(|Params((id, name)): Params<(String, String)>| async move { id + "|" + &name }));
    for (path, id) in [
        ("/a%2Fb", "a/b"),
        ("/%252F", "%2F"),
        ("/%25", "%"),
        ("/a+b", "a+b"),
        ("/a%20b", "a b"),
        ("/..", ".."),
        ("/%2E%2e", ".."),
        ("/..%2F..%2Fetc", "../../etc"),
        ("/%E6%97%A5", "日"),
        ("/a;b=c", "a;b=c"),
        ("/a~2Fb", "a/b"),
        ("/~2E~2E", ".."),
        ("/~7E2F", "~2F"),
        ("/~252F", "%2F"),
        ("/%7E2F", "/"),
        ("/~25%32F", "%2F"),
        ("/a~b~2f~", "a~b~2f~"),
        ("/~E6~97~A5", "日"),
        ("/a~2Fb/c~20d", "a/b|c d"),
    ] {
        let response = echo.clone().oneshot(request("GET", path).body(Body::empty()).unwrap()).await.unwrap();
        let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
        assert_eq!(body, id, "{path}");
    }
}

#[tokio::test]
async fn unsound_bodies_are_refused() {
    let deep = format!("{{\"workflow_type\": \"a\", \"input\": {}{}}}", "[".repeat(65), "]".repeat(65));
    for (body, expected, says) in [
        ("", "malformed-json", "empty"),
        ("{", "malformed-json", "line 1 column 1"),
        ("{\n \"workflow_type\": tea}", "malformed-json", "line 2 column"),
        (r#"{"workflow_type": "a"} {}"#, "malformed-json", "column 24"),
        (r#"{"workflow_type": 5}"#, "unexpected-json", "expected a string at line 1 column 19"),
        (r#"{"workflow_type": "a", "workflow_typo": 1}"#, "unexpected-json", "workflow_typo"),
        (r#"{"workflow_type": "a", "workflow_type": "b"}"#, "unexpected-json", "duplicate"),
        (r#"{"workflow_type": "a", "id_reuse_policy": "Often"}"#, "unexpected-json", "RejectDuplicate"),
        ("{}", "unexpected-json", "workflow_type"),
        ("[1]", "unexpected-json", "invalid"),
        ("null", "unexpected-json", "null"),
        (r#"{"workflow_type": ""}"#, "invalid-request", "empty"),
        (r#"{"workflow_type": "a", "workflow_id": ""}"#, "invalid-request", "empty"),
        (r#"{"workflow_type": "a", "workflow_id": "a\u0000b"}"#, "invalid-request", "control character"),
        (&deep, "nested-too-deeply", "64"),
    ] {
        let problem = post_problem("/v1/workflows", body.to_owned()).await;
        assert_eq!((problem.status, kind(&problem)), (400, expected), "{body}: {}", problem.detail);
        assert!(problem.detail.contains(says), "{body}: {}", problem.detail);
    }
    for path in ["/v1/workflows/a/signals/s", "/v1/workflows/a/queries/q"] {
        assert_eq!(kind(&post_problem(path, "tea").await), "malformed-json");
        assert_eq!(kind(&post_problem(path, "[".repeat(65)).await), "nested-too-deeply");
    }
    for (body, says) in [
        (r#"{"ids": []}"#, "0 ids"),
        (&format!(r#"{{"ids": ["a"{}]}}"#, r#","a""#.repeat(50)), "1 to 50"),
        (r#"{"ids": [""]}"#, "empty"),
        (r#"{"ids": ["a"], "page_token": "AzE3NjM4MjAjYQ"}"#, "one of them"),
        (r#"{"page_token": "AgAAAAAAAAAB"}"#, "next_page_token"),
    ] {
        let problem = post_problem("/v1/quarantine/redrive", body.to_owned()).await;
        assert_eq!((problem.status, kind(&problem)), (400, "invalid-request"), "{body}");
        assert!(problem.detail.contains(says), "{body}: {}", problem.detail);
    }
    assert_eq!(kind(&post_problem("/v1/quarantine/redrive", r#"{"all": true}"#).await), "unexpected-json");
    for body in [r#"{"ids": []}"#, r#"{"ids": [""]}"#] {
        assert_eq!(kind(&post_problem("/v1/quarantine/discard", body).await), "invalid-request", "{body}");
    }
    // Nothing named, nothing thrown away.
    for body in ["", "{}", r#"{"all": true}"#] {
        assert_eq!(post_problem("/v1/quarantine/discard", body).await.status, 400, "{body}");
    }
    for path in ["/v1/workflows/a/cancel", "/v1/workflows/a/terminate"] {
        assert_eq!(kind(&post_problem(path, r#"{"because": "x"}"#).await), "unexpected-json");
    }
}

#[tokio::test]
async fn large_bodies_are_not_read_to_their_end() {
    let path = "/v1/workflows/a/signals/s";
    let text = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    assert_eq!(post_problem(path, text(LIMIT)).await.status, 503, "the limit itself is allowed");
    assert_eq!(post_problem(path, text(LIMIT + 1)).await.status, 413);

    // What the header announces is enough.
    let announced = request("POST", path).header("content-length", "99999999999").body(Body::empty()).unwrap();
    assert_eq!(problem(send(announced).await).await.status, 413);

    let announced = request("POST", path).header("content-length", LIMIT).header("content-type", "application/json");
    assert_eq!(send(announced.body(text(LIMIT).into()).unwrap()).await.status(), 503, "the limit itself is allowed");

    // And without one, an endless body is left where it is.
    let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>("          "));
    let problem = post_problem(path, Body::from_stream(endless)).await;
    assert_eq!(kind(&problem), "too-large");
    assert!(problem.detail.contains("1024 bytes"), "{}", problem.detail);
}

#[tokio::test]
async fn bodies_that_break_off_are_refused() {
    let broken = futures::stream::iter([Ok("{"), Err(std::io::Error::other("gone"))]);
    assert_eq!(post_problem("/v1/workflows", Body::from_stream(broken)).await.status, 400);
}

#[tokio::test]
async fn other_media_types_are_refused() {
    let with = |value: &str| {
        request("POST", "/v1/workflows/a/signals/s").header("content-type", value).body(Body::from("1")).unwrap()
    };
    for value in ["application/json", "Application/JSON; charset=utf-8", "application/problem+json"] {
        assert_eq!(send(with(value)).await.status(), 503, "{value}");
    }
    for value in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "application/+json", ""] {
        let problem = problem(send(with(value)).await).await;
        assert_eq!((problem.status, kind(&problem)), (415, "unsupported-media-type"), "{value}");
        assert!(problem.detail.contains("application/json"));
    }
}

#[tokio::test]
async fn unsound_idempotency_keys_are_refused() {
    let post = || request("POST", "/v1/workflows/a/cancel");
    let long = "k".repeat(256);
    for value in ["", &long] {
        let sent = post().header("idempotency-key", value).body(Body::empty()).unwrap();
        assert_eq!(problem(send(sent).await).await.status, 400, "{value}");
    }
    let latin1 = post().header("idempotency-key", &b"\xe9"[..]).body(Body::empty()).unwrap();
    assert_eq!(problem(send(latin1).await).await.status, 400);
    let twice = post().header("idempotency-key", "a").header("idempotency-key", "b").body(Body::empty()).unwrap();
    assert!(problem(send(twice).await).await.detail.contains("more than once"));
    let sound = post().header("idempotency-key", "k".repeat(255)).body(Body::empty()).unwrap();
    assert_eq!(send(sound).await.status(), 503);
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems_too() {
    for path in ["/", "/v1", "/v2/workflows", "/v1/workflows/", "/v1/workflows/a/b", "/v1/workflows/a/b/c"] {
        let problem = get_problem(path).await;
        assert_eq!((problem.status, kind(&problem)), (404, "no-such-route"), "{path}");
    }
    for (method, path, allowed) in [
        (Method::DELETE, "/v1/workflows/a", "GET"),
        (Method::PUT, "/v1/workflows", "POST"),
        (Method::GET, "/v1/workflows/a/cancel", "POST"),
        (Method::POST, "/healthz", "GET"),
    ] {
        let response = send(Request::builder().method(&method).uri(path).body(Body::empty()).unwrap()).await;
        let allow = response.headers()[header::ALLOW].to_str().unwrap().to_owned();
        assert!(allow.contains(allowed), "{method} {path}: {allow}");
        assert_eq!(kind(&problem(response).await), "method-not-allowed");
    }
}

#[tokio::test]
async fn pages_of_other_sites_cannot_write() {
    let from = |method, site| {
        request(method, "/v1/workflows/a/cancel").header("sec-fetch-site", site).body(Body::empty()).unwrap()
    };
    assert_eq!(problem(send(from("POST", "cross-site")).await).await.status, 403);
    assert_eq!(send(from("POST", "same-origin")).await.status(), 503);
}

#[tokio::test]
async fn panics_are_answers() {
    async fn fall() -> &'static str {
        panic!("secret")
    }
    let router = middleware::wrap(Router::new().route("/", get(fall)), Hosts::any(), None);
    let response = router.oneshot(request("GET", "/").body(Body::empty()).unwrap()).await.unwrap();
    assert!(response.headers().contains_key("x-request-id"));
    let problem = problem(response).await;
    assert_eq!((problem.status, kind(&problem)), (500, "internal"));
    assert!(!problem.detail.contains("secret"));
}

#[test]
fn every_kind_of_error_has_its_status() {
    let run_id = RunId::from_bytes([7; 16]);
    let say = || "x".to_owned();
    let misfit = Misfit { pointer: "/a".into(), problem: say() };
    for (error, status, expected) in [
        (ApiError::Invalid(say()), 400, "invalid-request"),
        (ApiError::NotFound(say()), 404, "not-found"),
        (ApiError::NoSuchQuery(say()), 404, "no-such-query"),
        (ApiError::NotHere(say()), 404, "not-here"),
        (ApiError::AlreadyStarted { run_id, detail: say() }, 409, "already-started"),
        (ApiError::Closed(say()), 409, "closed"),
        (ApiError::TooLarge(say()), 413, "too-large"),
        (ApiError::Parked(say()), 409, "parked"),
        (ApiError::KeyReused(say()), 422, "key-reused"),
        (ApiError::QueryFailed(Box::new(Failure::application("no"))), 422, "query-failed"),
        (ApiError::DoesNotFit { what: say(), misfit: misfit.clone() }, 422, "does-not-fit"),
        (ApiError::Unavailable(say()), 503, "unavailable"),
    ] {
        let problem = Refused::from(error.clone()).problem();
        assert_eq!((problem.status, kind(&problem)), (status, expected));
        assert_eq!(problem.run_id.is_some(), matches!(error, ApiError::AlreadyStarted { .. }));
        assert_eq!(problem.failure.is_some(), matches!(error, ApiError::QueryFailed(_)));
        assert_eq!(problem.pointer.is_some(), matches!(error, ApiError::DoesNotFit { .. }));
    }
}

#[tokio::test]
async fn every_kind_of_problem_has_a_page_that_says_what_to_do() {
    let index = send(request("GET", "/problems").body(Body::empty()).unwrap()).await;
    assert_eq!(index.status(), StatusCode::OK);
    let index = axum::body::to_bytes(index.into_body(), 1 << 20).await.unwrap();
    let index = String::from_utf8(index.to_vec()).unwrap();
    for kind in Kind::ALL {
        let problem = kind.because("x").problem();
        let response = send(request("GET", &problem.problem_type).body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK, "{}", problem.problem_type);
        // What browsers show rather than store.
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/plain; charset=utf-8");
        let page = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let page = String::from_utf8(page.to_vec()).unwrap();
        assert!(page.contains(&problem.title) && page.contains(&problem.status.to_string()), "{page}");
        assert!(page.lines().count() > 3, "what to do: {page}");
        assert!(index.contains(&problem.problem_type), "{index}");
    }
    let unknown = get_problem("/problems/bad-luck").await;
    assert_eq!((unknown.status, kind(&unknown)), (404, "no-such-route"));
}

#[tokio::test]
async fn the_server_describes_itself() {
    let response = send(request("GET", "/openapi.json").body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    let head = send(request("HEAD", "/healthz").body(Body::empty()).unwrap()).await;
    assert_eq!(head.status(), StatusCode::OK);
}

/// What generators of clients choke on, and people.
#[test]
fn openapi_names_every_operation_once_and_says_how_it_fails() {
    let document: serde_json::Value = serde_json::from_str(&crate::openapi_json()).unwrap();
    let mut ids = std::collections::BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let what = format!("{method} {path}");
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{what}: another operation is called {id}");
            assert!(id.chars().any(char::is_uppercase), "{what}: {id} is a bare verb");
            let summary = operation["summary"].as_str().unwrap();
            assert!(!summary.contains('\n') && summary.len() <= 120, "{what}: {summary}");
            let responses = operation["responses"].as_object().unwrap();
            for (status, response) in responses.iter().filter(|(status, _)| !status.starts_with('2')) {
                let problem = &response["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(problem, "#/components/schemas/Problem", "{what}: {status}");
            }
            assert!(responses.contains_key("default"), "{what}: how else it fails");
        }
    }
    assert_eq!(document["servers"][0]["url"], "/");
    for scheme in ["token", "sigv4"] {
        assert!(document["components"]["securitySchemes"][scheme].is_object(), "{scheme}");
    }
}

#[test]
fn openapi_is_the_golden_file() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let document = crate::openapi_json();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &document).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        golden == document,
        "the routes no longer match {path}. If that is meant, run `UPDATE_GOLDEN=1 cargo test -p dormouse-http` and \
         look at what changed; callers will have to live with it"
    );
}
