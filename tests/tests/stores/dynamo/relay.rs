//! A relay on the way to DynamoDB that counts requests and spoils some: below the SDK, so that what the SDK makes of
//! it is tested too.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What happens to a request.
#[derive(Debug, Clone)]
pub enum Spoil {
    /// It is carried out, and the connection breaks before its answer.
    DropAnswer,
    /// It is carried out, and answered with this status.
    AnswerInstead(u16),
    /// It is carried out, and the answer says that it was refused: what the SDK does not try again.
    AnswerRefused,
    /// It never arrives: this is the answer.
    Refuse(u16, String),
}

/// Listens until the process ends.
pub struct Relay {
    pub url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    script: VecDeque<(&'static str, Spoil)>,
    /// So many more writes pass before the one that is spoiled.
    nth: Option<(usize, Spoil)>,
    counts: BTreeMap<String, usize>,
}

impl Relay {
    /// A relay to this address (`http://host:port`).
    pub fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = format!("http://{}", listener.local_addr().unwrap());
        let there = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                let (there, state) = (there.clone(), Arc::clone(&shared));
                // A caller that hangs up in between is no failure of the relay's.
                std::thread::spawn(move || relay(caller, &there, &state).unwrap_or_default());
            }
        });
        Self { url: here, state }
    }

    /// Spoils the next request of this operation that no earlier line of the script spoils.
    pub fn plan(&self, operation: &'static str, spoil: Spoil) {
        self.state.lock().unwrap().script.push_back((operation, spoil));
    }

    /// Spoils one write, after so many others.
    pub fn plan_nth(&self, passing: usize, spoil: Spoil) {
        self.state.lock().unwrap().nth = Some((passing, spoil));
    }

    /// Whether that write has come.
    pub fn is_spent(&self) -> bool {
        self.state.lock().unwrap().nth.is_none()
    }

    /// Requests since the last call, by operation.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut state = self.state.lock().unwrap();
        assert!(state.script.is_empty(), "not everything planned has happened: {:?}", state.script);
        std::mem::take(&mut state.counts)
    }
}

/// One request per connection.
fn relay(mut caller: TcpStream, there: &str, state: &Mutex<State>) -> std::io::Result<()> {
    let mut request = Vec::new();
    let head = loop {
        let mut some = [0; 65_536];
        let read = caller.read(&mut some)?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(&some[..read]);
        let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
        let length: usize = field(&head, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        if request.len() >= end + 4 + length {
            break end;
        }
    };
    let text = String::from_utf8_lossy(&request[..head]).into_owned();
    let target = text.lines().find_map(|line| line.to_lowercase().starts_with("x-amz-target:").then_some(line));
    let operation = target.and_then(|line| line.rsplit('.').next()).unwrap_or_default().trim().to_owned();
    let spoil = {
        let mut state = state.lock().unwrap();
        *state.counts.entry(operation.clone()).or_default() += 1;
        let place = state.script.iter().position(|(wanted, _)| *wanted == operation);
        let planned = place.and_then(|place| state.script.remove(place)).map(|(_, spoil)| spoil);
        planned.or_else(|| match state.nth.take() {
            reading if ["Query", "GetItem"].contains(&&*operation) => {
                state.nth = reading;
                None
            }
            Some((0, spoil)) => Some(spoil),
            later => {
                state.nth = later.map(|(passing, spoil)| (passing - 1, spoil));
                None
            }
        })
    };
    if let Some(Spoil::Refuse(status, body)) = &spoil {
        return answer(&mut caller, *status, body);
    }
    let mut there = TcpStream::connect(there)?;
    let rest = text.lines().filter(|line| !line.to_lowercase().starts_with("connection:"));
    let lines: Vec<_> = rest.chain(["connection: close", "", ""]).collect();
    there.write_all(lines.join("\r\n").as_bytes())?;
    there.write_all(&request[head + 4..])?;
    let mut response = Vec::new();
    there.read_to_end(&mut response)?;
    match spoil {
        None => caller.write_all(&response),
        Some(Spoil::AnswerInstead(status)) => answer(&mut caller, status, "{}"),
        Some(Spoil::AnswerRefused) => {
            answer(&mut caller, 400, r#"{"__type":"x#ValidationException","message":"planned"}"#)
        }
        Some(Spoil::DropAnswer | Spoil::Refuse(..)) => Ok(()),
    }
}

fn answer(caller: &mut TcpStream, status: u16, body: &str) -> std::io::Result<()> {
    let length = body.len();
    write!(
        caller,
        "HTTP/1.1 {status} Planned\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    )
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
