//! A server in a process of its own, to be killed.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use dormouse::RawClient;

/// The sample application's program, built like this test. Built once a process, by cargo, when that is needed.
pub fn functions() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| built("functions"))
}

/// The program without an application, built like this test.
pub fn dormouse() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| built("dormouse"))
}

fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // target/<profile>/deps/<test>
    let profile = test.ancestors().nth(2).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    // Of the whole workspace, with the features of its tests: another set would build all dependencies once more.
    cargo.args(["build", "--workspace", "--bin", name, "--message-format", "json", "--target-dir"]);
    cargo.arg(profile.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
    if cfg!(feature = "aws") {
        cargo.args(["--features", "dormouse-tests/aws"]);
    } else if cfg!(feature = "s3") {
        cargo.args(["--features", "dormouse-tests/s3"]);
    }
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let output = cargo.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "the program {name} does not build");
    let messages = output.stdout.split(|byte| *byte == b'\n');
    let mut programs =
        messages.filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok()).filter_map(|message| {
            (message["target"]["name"] == name).then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
        });
    programs.next_back().expect("cargo names the program that it built")
}

/// `dev` of a program over `dir/data`; see [`serve`].
#[must_use]
pub fn dev(program: &Path, dir: &Path) -> Command {
    let mut command = serve(program, dir);
    command.arg("--data-dir").arg(dir.join("data"));
    command
}

/// `dev` of a program, with its ledger at `dir/ledger.jsonl` and its log added to `dir/stderr.log`. Where it keeps its
/// data is to be said.
#[must_use]
pub fn serve(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["dev", "--listen", "127.0.0.1:0", "--log", "warn"])
        .env("LEDGER_FILE", dir.join("ledger.jsonl"))
        .env_remove("RUST_LOG")
        .stderr(File::options().create(true).append(true).open(dir.join("stderr.log")).unwrap());
    command
}

/// A server. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    output: BufReader<ChildStdout>,
    url: Option<String>,
    stopped: bool,
}

impl Server {
    /// Begins the process, and does not wait.
    ///
    /// # Panics
    /// When the system does not let us.
    #[must_use]
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output, url: None, stopped: false }
    }

    /// Begins [`dev`] and waits until it listens.
    ///
    /// # Panics
    /// When it does not; the message holds what it logged.
    #[must_use]
    pub fn start(program: &Path, dir: &Path) -> Self {
        Self::up(dev(program, dir), dir)
    }

    /// Begins a server that logs into this directory, and waits until it listens.
    ///
    /// # Panics
    /// When it does not; the message holds what it logged.
    #[must_use]
    pub fn up(command: Command, dir: &Path) -> Self {
        let program = command.get_program().to_owned();
        let mut server = Self::spawn(command);
        let Some(_) = server.wait_until_up() else {
            let log = std::fs::read_to_string(dir.join("stderr.log")).unwrap_or_default();
            panic!("{} does not start; it said: {log}", program.display());
        };
        server
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it this signal: `STOP`, `CONT`.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, name: &str) {
        signal(name, self.pid());
    }

    /// Waits for the first line of its output: where it listens. `None` when it ended without one.
    pub fn wait_until_up(&mut self) -> Option<&str> {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        self.url = line.split_whitespace().last().filter(|word| word.starts_with("http://")).map(ToOwned::to_owned);
        self.url.as_deref()
    }

    /// Where it listens.
    ///
    /// # Panics
    /// When that is not known yet.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.as_deref().expect("the server is up")
    }

    /// A client of this server that tries once.
    ///
    /// # Panics
    /// When the server is not up yet.
    #[must_use]
    pub fn client(&self) -> RawClient {
        RawClient::new(self.url()).unwrap().tries(1)
    }

    /// `kill -9`, now.
    pub fn kill(mut self) {
        self.kill_now();
    }

    fn kill_now(&mut self) {
        if !std::mem::replace(&mut self.stopped, true) {
            // It may have ended by itself.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    /// SIGTERM, and how it ended.
    ///
    /// # Panics
    /// When it does not end within a minute.
    pub fn terminate(self) -> ExitStatus {
        let pid = self.child.id();
        self.terminate_pid(pid)
    }

    /// SIGTERM to this process, with which the child ends: the server itself, or one below it.
    ///
    /// # Panics
    /// When it does not end within a minute.
    pub fn terminate_pid(mut self, pid: u32) -> ExitStatus {
        signal("TERM", pid);
        self.wait()
    }

    /// How it ended, by itself.
    ///
    /// # Panics
    /// When it does not end within a minute.
    pub fn wait(&mut self) -> ExitStatus {
        let patience = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.stopped = true;
                return status;
            }
            assert!(patience.elapsed() < Duration::from_secs(60), "the server does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn signal(name: &str, pid: u32) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap();
    assert!(sent.success(), "process {pid} is not there to get the signal {name}");
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill_now();
    }
}

/// A port of the loopback interface that nobody listens at now.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}
