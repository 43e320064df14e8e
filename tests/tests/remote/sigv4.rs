//! AWS Signature Version 4 once more, from its documentation: what the gateway of these tests checks with.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

const STRICT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A request, as far as it is signed.
pub struct Signed<'a> {
    pub method: &'a str,
    /// As it stands in the request line.
    pub path: &'a str,
    /// Likewise, without the question mark.
    pub query: &'a str,
    /// Name in lower case, and value; in order of their names.
    pub headers: &'a [(String, String)],
    pub body: &'a [u8],
}

/// The scope of a signature.
pub struct Scope<'a> {
    pub key_id: &'a str,
    pub secret: &'a str,
    /// Like `20150830T123600Z`.
    pub date: &'a str,
    pub region: &'a str,
    pub service: &'a str,
}

/// The header `Authorization` that this request must have.
pub fn authorization(request: &Signed<'_>, scope: &Scope<'_>) -> String {
    let names: Vec<&str> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
    let names = names.join(";");
    let headers: String = request.headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let path: Vec<String> = request.path.split('/').map(|part| utf8_percent_encode(part, STRICT).to_string()).collect();
    let canonical = format!(
        "{}\n{}\n{}\n{headers}\n{names}\n{}",
        request.method,
        path.join("/"),
        canonical_query(request.query),
        hex(&Sha256::digest(request.body))
    );
    let day = &scope.date[..8];
    let scope_text = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
    let to_sign =
        format!("AWS4-HMAC-SHA256\n{}\n{scope_text}\n{}", scope.date, hex(&Sha256::digest(canonical.as_bytes())));
    let mut key = format!("AWS4{}", scope.secret).into_bytes();
    for part in [day, scope.region, scope.service, "aws4_request"] {
        key = hmac(&key, part);
    }
    let signature = hex(&hmac(&key, &to_sign));
    format!("AWS4-HMAC-SHA256 Credential={}/{scope_text}, SignedHeaders={names}, Signature={signature}", scope.key_id)
}

fn canonical_query(query: &str) -> String {
    let strict = |text: &str| {
        let decoded: Vec<u8> = percent_decode_str(text).collect();
        utf8_percent_encode(std::str::from_utf8(&decoded).unwrap(), STRICT).to_string()
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut pairs: Vec<_> = pairs.map(|(name, value)| (strict(name), strict(value))).collect();
    pairs.sort();
    let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn owned(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn signature(service: &str, request: &Signed<'_>) -> String {
    let scope = Scope {
        key_id: "AKIDEXAMPLE",
        secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        date: "20150830T123600Z",
        region: "us-east-1",
        service,
    };
    authorization(request, &scope).rsplit_once('=').unwrap().1.to_owned()
}

/// The worked example of AWS's documentation ("ListUsers"), and three cases of its published test suite.
#[test]
fn documented_examples_come_out() {
    let headers = owned(&[
        ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
        ("host", "iam.amazonaws.com"),
        ("x-amz-date", "20150830T123600Z"),
    ]);
    let query = "Action=ListUsers&Version=2010-05-08";
    let request = Signed { method: "GET", path: "/", query, headers: &headers, body: b"" };
    assert_eq!(signature("iam", &request), "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7");

    let headers = owned(&[("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")]);
    for (method, query, expected) in [
        ("GET", "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ("GET", "Param2=value2&Param1=value1", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
    ] {
        let request = Signed { method, path: "/", query, headers: &headers, body: b"" };
        assert_eq!(signature("service", &request), expected, "{method} {query}");
    }
}
