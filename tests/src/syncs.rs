//! Reads what `strace` saw of a server, and holds every acknowledgement against it: what was acknowledged had been
//! written to the write-ahead log, and a sync of that file begun after the write had ended well, before the answer
//! began.
//!
//! Order is the order of lines. `strace` lets a thread go on only after it has noted what the thread did, so whatever
//! follows from something else stands behind it.

use std::collections::HashMap;
use std::fmt;

/// The system calls to trace.
pub const CALLS: &str =
    "pwrite64,pwritev,pwritev2,write,writev,sendto,sendmsg,read,readv,recvfrom,recvmsg,fdatasync,fsync";

/// A system call, from its entry to its end; places are line numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    name: String,
    descriptor: u64,
    path: String,
    data: Vec<u8>,
    cut_short: bool,
    entered: usize,
    left: usize,
    result: Option<i64>,
}

/// What an acknowledgement stands for.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The request's Idempotency-Key, by which its answer is found.
    pub request_id: String,
    /// What must be durable: every one of these texts.
    pub durable: Vec<String>,
}

/// An acknowledgement without its proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Of this request.
    pub request_id: String,
    /// What lacks.
    pub lacks: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {}: {}", self.request_id, self.lacks)
    }
}

/// What a trace proves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledgements found, each with its status.
    pub acknowledged: Vec<(String, u16)>,
    /// Syncs of the log that ended well behind a commit.
    pub syncs: usize,
    /// What is not proven.
    pub violations: Vec<Violation>,
}

/// Holds every 2xx answer to an expected request against what was written and synced before it.
///
/// # Panics
/// When the trace is not as `strace -f -ttt -y` writes it.
#[must_use]
pub fn check(trace: &str, expected: &[Expected]) -> Verdict {
    let calls = calls(trace);
    let expected: HashMap<_, _> = expected.iter().map(|expected| (expected.request_id.as_str(), expected)).collect();
    let mut verdict = Verdict { syncs: syncs(&calls).len(), ..Verdict::default() };
    // The request that each connection carries.
    let mut asked: HashMap<u64, &str> = HashMap::new();
    for (at, answer) in in_order(&calls) {
        match (at, answer.name.as_str()) {
            (Edge::Left, "read" | "readv" | "recvfrom" | "recvmsg") => {
                if let Some(request_id) = idempotency_key(&answer.data)
                    && let Some((request_id, _)) = expected.get_key_value(request_id.as_str())
                {
                    asked.insert(answer.descriptor, request_id);
                }
            }
            (Edge::Entered, "write" | "writev" | "sendto" | "sendmsg") => {
                let Some(status) = status(&answer.data) else { continue };
                let Some(request_id) = asked.remove(&answer.descriptor) else { continue };
                if !(200..300).contains(&status) {
                    continue;
                }
                verdict.acknowledged.push((request_id.to_owned(), status));
                let lacking =
                    expected[request_id].durable.iter().filter_map(|text| lacks(&calls, text, answer.entered));
                verdict.violations.extend(lacking.map(|lacks| Violation { request_id: request_id.to_owned(), lacks }));
            }
            _ => {}
        }
    }
    verdict
}

/// What lacks of the proof that this text was durable at that line.
fn lacks(calls: &[Call], text: &str, by: usize) -> Option<String> {
    let holds = |call: &Call| call.data.windows(text.len()).any(|window| window == text.as_bytes());
    let writes: Vec<_> = calls.iter().filter(|call| is_log_write(call) && call.left < by && holds(call)).collect();
    if writes.is_empty() {
        return Some(format!("{text:?} was not written to the log before line {by}"));
    }
    let syncs = syncs(calls);
    let proven = writes.iter().any(|write| {
        syncs.iter().any(|sync| sync.descriptor == write.descriptor && sync.entered > write.left && sync.left < by)
    });
    (!proven).then(|| {
        let at: Vec<_> = writes.iter().map(|write| write.left).collect();
        format!("{text:?} was written (line {at:?}) and not synced before the answer at line {by}")
    })
}

/// Syncs of the log that ended well, where what was written last before them ends a transaction: the header of a
/// frame that does holds the size of the database, and zero in any other.
fn syncs(calls: &[Call]) -> Vec<&Call> {
    let ends_well = |call: &&Call| {
        matches!(call.name.as_str(), "fdatasync" | "fsync") && call.path.ends_with("-wal") && call.result == Some(0)
    };
    let behind_a_commit = |sync: &&Call| {
        let headers = calls.iter().filter(|call| {
            is_log_write(call)
                && call.descriptor == sync.descriptor
                && call.data.len() == 24
                && call.left < sync.entered
        });
        headers.max_by_key(|header| header.left).is_some_and(|header| header.data[4..8] != [0; 4])
    };
    calls.iter().filter(ends_well).filter(behind_a_commit).collect()
}

fn is_log_write(call: &Call) -> bool {
    let writes = matches!(call.name.as_str(), "pwrite64" | "pwritev" | "pwritev2" | "write" | "writev");
    let writes = writes && call.path.ends_with("-wal") && call.result.is_some_and(|result| result > 0);
    assert!(!(writes && call.cut_short), "line {}: strace cut a write short; give it a greater -s", call.entered);
    writes
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    Entered,
    Left,
}

/// Both ends of every call, as they came.
fn in_order(calls: &[Call]) -> Vec<(Edge, &Call)> {
    let edges = |call| [(Edge::Entered, call), (Edge::Left, call)];
    let mut edges: Vec<(Edge, &Call)> = calls.iter().flat_map(edges).collect();
    edges.sort_by_key(|(edge, call)| match edge {
        Edge::Entered => (call.entered, Edge::Entered),
        Edge::Left => (call.left, Edge::Left),
    });
    edges
}

fn idempotency_key(request: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(request);
    let lines = text.split("\r\n");
    let mut keys =
        lines.filter_map(|line| line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("idempotency-key")));
    keys.next().map(|(_, key)| key.to_owned())
}

fn status(answer: &[u8]) -> Option<u16> {
    let text = answer.strip_prefix(b"HTTP/1.1 ")?;
    std::str::from_utf8(text.get(..3)?).ok()?.parse().ok()
}

/// All calls of a trace, those that others interrupted put together.
fn calls(trace: &str) -> Vec<Call> {
    let mut begun: HashMap<&str, (usize, &str)> = HashMap::new();
    let mut calls = Vec::new();
    for (at, line) in trace.lines().enumerate() {
        // Thread ids are padded to a column.
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((_time, text)) = rest.trim_start().split_once(' ') else { continue };
        let text = text.trim_start();
        if text.starts_with("---") || text.starts_with("+++") {
            continue;
        }
        if let Some(text) = text.strip_suffix("<unfinished ...>") {
            begun.insert(thread, (at, text.trim_end()));
        } else if let Some((_, rest)) = text.strip_prefix("<... ").and_then(|text| text.split_once(" resumed>")) {
            if let Some((entered, first)) = begun.remove(thread) {
                calls.extend(call(&format!("{first}{rest}"), entered, at));
            }
        } else {
            calls.extend(call(text, at, at));
        }
    }
    // Begun and never ended: what it wrote may be there, what it synced may not.
    calls.extend(begun.into_values().filter_map(|(entered, text)| call(text, entered, usize::MAX)));
    calls
}

/// `name(descriptor<path>, arguments) = result`.
fn call(text: &str, entered: usize, left: usize) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    let descriptor = rest[..digits].parse().ok()?;
    let (path, rest) = match rest[digits..].strip_prefix('<') {
        Some(rest) => rest.split_once('>')?,
        None => ("", &rest[digits..]),
    };
    let (mut data, mut cut_short, mut rest) = (Vec::new(), false, rest);
    while let Some((_, quoted)) = rest.split_once('"') {
        let (bytes, behind) = unquote(quoted)?;
        data.extend(bytes);
        cut_short |= behind.starts_with("...");
        rest = behind;
    }
    let result = rest.rsplit_once("= ").and_then(|(_, result)| result.split_whitespace().next()?.parse().ok());
    let path = String::from_utf8_lossy(&unquote(&format!("{path}\""))?.0).into_owned();
    Some(Call { name: name.to_owned(), descriptor, path, data, cut_short, entered, left, result })
}

/// The bytes of a C string up to its closing quote, and what stands behind it.
fn unquote(text: &str) -> Option<(Vec<u8>, &str)> {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len() / 4), 0);
    loop {
        let byte = *bytes.get(at)?;
        at += 1;
        match byte {
            b'"' => return Some((out, &text[at..])),
            b'\\' => {
                let kind = *bytes.get(at)?;
                at += 1;
                out.push(match kind {
                    b'x' => {
                        let digits = text.get(at..at + 2)?;
                        at += 2;
                        u8::from_str_radix(digits, 16).ok()?
                    }
                    b'0'..=b'7' => {
                        let begin = at - 1;
                        while at < begin + 3 && matches!(bytes.get(at), Some(b'0'..=b'7')) {
                            at += 1;
                        }
                        u8::from_str_radix(&text[begin..at], 8).ok()?
                    }
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'v' => 0x0b,
                    b'f' => 0x0c,
                    other => other,
                });
            }
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "key-1";
    const REQUEST: &str = r#"7 1.0 recvfrom(12<socket:[9]>, "POST /v1 HTTP/1.1\r\nIdempotency-Key: key-1\r\n\r\n", 8192, 0, NULL, NULL) = 48"#;
    const HEADER: &str = r#"8 1.1 pwrite64(9</d/x.db-wal>, "\0\0\0\1\0\0\0\5................", 24, 32) = 24"#;
    const PAGE: &str = r#"8 1.2 pwrite64(9</d/x.db-wal>, "\x00...key-1...", 4096, 56) = 4096"#;
    const SYNC: &str = "8 1.3 fdatasync(9</d/x.db-wal>) = 0";
    const ANSWER: &str =
        r#"7 1.4 writev(12<socket:[9]>, [{iov_base="HTTP/1.1 202 Accepted\r\n\r\n", iov_len=25}], 1) = 25"#;

    fn verdict(lines: &[&str]) -> Verdict {
        check(&lines.join("\n"), &[Expected { request_id: KEY.into(), durable: vec![KEY.into()] }])
    }

    fn refused(lines: &[&str]) {
        let verdict = verdict(lines);
        assert_eq!(verdict.acknowledged.len(), 1, "the answer is found in {lines:#?}");
        assert_eq!(verdict.violations.len(), 1, "{lines:#?}");
    }

    #[test]
    fn a_sync_between_write_and_answer_is_proof() {
        let verdict = verdict(&[REQUEST, HEADER, PAGE, SYNC, ANSWER]);
        assert_eq!(verdict, Verdict { acknowledged: vec![(KEY.into(), 202)], syncs: 1, violations: vec![] });
    }

    #[test]
    fn anything_less_is_none() {
        refused(&[REQUEST, HEADER, PAGE, ANSWER]);
        refused(&[REQUEST, SYNC, HEADER, PAGE, ANSWER]);
        refused(&[REQUEST, HEADER, PAGE, ANSWER, SYNC]);
        refused(&[REQUEST, HEADER, SYNC, ANSWER, PAGE]);
        refused(&[REQUEST, HEADER, SYNC, ANSWER]);
        refused(&[REQUEST, HEADER, PAGE, "8 1.3 fdatasync(10</d/x.db-wal>) = 0", ANSWER]);
        refused(&[REQUEST, HEADER, PAGE, "8 1.3 fdatasync(9</d/x.db>) = 0", ANSWER]);
        refused(&[REQUEST, HEADER, PAGE, "8 1.3 fdatasync(9</d/x.db-wal>) = -1 EIO (Input/output error)", ANSWER]);
        let other_page = PAGE.replace(KEY, "key-2");
        refused(&[REQUEST, HEADER, &other_page, SYNC, ANSWER]);
        let failed_page = PAGE.replace("= 4096", "= -1 ENOSPC (No space left on device)");
        refused(&[REQUEST, HEADER, &failed_page, SYNC, ANSWER]);
        // The transaction goes on behind the sync.
        let inner = HEADER.replace(r"\5", r"\0");
        refused(&[REQUEST, &inner, PAGE, SYNC, ANSWER]);
    }

    #[test]
    fn calls_that_others_interrupt_end_where_they_are_resumed() {
        let begun = "8 1.3 fdatasync(9</d/x.db-wal> <unfinished ...>";
        let resumed = "8 1.5 <... fdatasync resumed>) = 0";
        assert!(
            verdict(&[REQUEST, HEADER, PAGE, begun, "9 1.4 read(3<x>, \"\", 1) = 0", resumed, ANSWER])
                .violations
                .is_empty()
        );
        refused(&[REQUEST, HEADER, PAGE, begun, ANSWER, resumed]);
        refused(&[REQUEST, HEADER, PAGE, begun, ANSWER]);
        let (first, rest) = PAGE.split_at(PAGE.find(", 4096").unwrap());
        let first = format!("{first} <unfinished ...>");
        let rest = format!("8 1.4 <... pwrite64 resumed>{rest}");
        refused(&[REQUEST, HEADER, &first, "9 1.3 fdatasync(9</d/x.db-wal>) = 0", &rest, ANSWER]);
        assert!(verdict(&[REQUEST, HEADER, &first, &rest, SYNC, ANSWER]).violations.is_empty());
        let (first, rest) = REQUEST.split_at(REQUEST.find('"').unwrap());
        let request = [format!("{first} <unfinished ...>"), format!("7 1.0 <... recvfrom resumed>{rest}")];
        assert!(verdict(&[&request[0], HEADER, &request[1], PAGE, SYNC, ANSWER]).violations.is_empty());
        refused(&[&request[0], HEADER, &request[1], PAGE, ANSWER]);
    }

    #[test]
    fn short_thread_ids_are_padded() {
        let padded = [REQUEST, HEADER, PAGE, SYNC, ANSWER].map(|line| line.replacen(' ', "    ", 1));
        assert_eq!(verdict(&padded.each_ref().map(String::as_str)).acknowledged.len(), 1);
    }

    #[test]
    fn refusals_promise_nothing() {
        let refusal = ANSWER.replace("202", "409");
        assert_eq!(verdict(&[REQUEST, HEADER, PAGE, &refusal]), Verdict::default());
    }

    #[test]
    fn all_ways_to_write_a_byte_are_read() {
        let (bytes, rest) = unquote(r#"a\x41\n\r\t\\\"\0\12\177\v\f", 9"#).unwrap();
        assert_eq!(bytes, b"aA\n\r\t\\\"\0\x0a\x7f\x0b\x0c");
        assert_eq!(rest, ", 9");
    }
}
