//! The rules, as data: what is looked for, why it harms, and what to use instead.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde::Serialize;

use crate::names::matches;

/// Something that workflow code may not do.
#[derive(Debug, Serialize)]
pub struct Rule {
    /// Its name, as in `// dormouse: allow(name): reason`.
    pub name: &'static str,
    /// Why it harms, in a sentence.
    pub why: &'static str,
    /// What to use instead.
    pub instead: &'static str,
    /// Functions and types, by their full path; `*` at the end stands for anything that follows.
    #[serde(skip)]
    paths: &'static [&'static str],
    /// Macros, by their full path.
    #[serde(skip)]
    macros: &'static [&'static str],
    /// Methods, by the type of what they are called on.
    #[serde(skip)]
    methods: &'static [(&'static str, &'static [&'static str])],
}

const NOTHING: Rule = Rule { name: "", why: "", instead: "", paths: &[], macros: &[], methods: &[] };

const AN_ACTIVITY: &str = "an activity, which does it once and whose result is recorded";

/// All of them. The first that fits a path counts.
pub static RULES: &[Rule] = &[
    Rule {
        name: "clock",
        why: "a replay reads another time than the first run did, and the code goes another way than its history",
        instead: "`cx.now()`, the recorded time of this turn",
        paths: &[
            "std::time::Instant::now",
            "std::time::SystemTime::now",
            "tokio::time::Instant::now",
            "chrono::Utc::now",
            "chrono::Local::now",
            "chrono::Utc::today",
            "chrono::Local::today",
            "chrono::offset::Utc::now",
            "chrono::offset::Local::now",
            "chrono::prelude::Utc::now",
            "chrono::prelude::Local::now",
            "jiff::Timestamp::now",
            "jiff::Zoned::now",
            "time::OffsetDateTime::now_utc",
            "time::OffsetDateTime::now_local",
            "time::UtcDateTime::now",
            "time::Instant::now",
            "web_time::Instant::now",
            "web_time::SystemTime::now",
            "quanta::Instant::now",
            "minstant::Instant::now",
            "coarsetime::*",
        ],
        methods: &[
            ("std::time::Instant", &["elapsed"]),
            ("std::time::SystemTime", &["elapsed"]),
            ("tokio::time::Instant", &["elapsed"]),
        ],
        ..NOTHING
    },
    Rule {
        name: "random",
        why: "a replay draws other values than the first run did",
        instead: "`cx.random(\"name\")` or `cx.uuid()`, the same on every replay",
        paths: &[
            "rand::random",
            "rand::random_range",
            "rand::random_bool",
            "rand::random_ratio",
            "rand::random_iter",
            "rand::fill",
            "rand::rng",
            "rand::thread_rng",
            "rand::rngs::ThreadRng::*",
            "rand::rngs::OsRng",
            "rand::rngs::SysRng",
            "rand::rngs::StdRng::from_entropy",
            "rand::rngs::StdRng::from_os_rng",
            "rand::rngs::SmallRng::from_entropy",
            "rand::rngs::SmallRng::from_os_rng",
            "rand::make_rng",
            "rand_core::OsRng",
            "rand::prelude::random",
            "rand::prelude::rng",
            "rand::prelude::thread_rng",
            "uuid::Uuid::new_v1",
            "uuid::Uuid::new_v4",
            "uuid::Uuid::new_v6",
            "uuid::Uuid::new_v7",
            "uuid::Uuid::now_v1",
            "uuid::Uuid::now_v6",
            "uuid::Uuid::now_v7",
            "ulid::Ulid::new",
            "ulid::Ulid::generate",
            "getrandom::*",
            "fastrand::*",
            "oorandom::*",
            "std::hash::RandomState::*",
            "std::collections::hash_map::RandomState::*",
        ],
        macros: &["nanoid::nanoid"],
        ..NOTHING
    },
    Rule {
        name: "unordered",
        why: "a hash map's order differs from process to process, and with it the order of what the code asks for",
        instead: "`BTreeMap` or `BTreeSet`, or sort what you collect before you use it",
        ..NOTHING
    },
    Rule {
        name: "select",
        why: "it looks at its arms in random order, and a replay may see another one win",
        instead: "`dormouse::select!`, where the arm written first wins",
        macros: &[
            "tokio::select",
            "futures::select",
            "futures::select_with_strategy",
            "futures_util::select",
            "futures_lite::future::race",
        ],
        paths: &["futures_lite::future::race", "futures_lite::future::or"],
        ..NOTHING
    },
    Rule {
        name: "sleep",
        why: "it waits outside the history: it holds the workflow's thread or panics there, and waits again on each replay",
        instead: "`cx.sleep(..)`, or `cx.timeout(..)` around what may take too long",
        paths: &[
            "std::thread::sleep",
            "std::thread::sleep_until",
            "std::thread::park_timeout",
            "tokio::time::sleep",
            "tokio::time::sleep_until",
            "tokio::time::timeout",
            "tokio::time::timeout_at",
            "tokio::time::interval",
            "tokio::time::interval_at",
            "tokio::time::advance",
            "tokio::time::pause",
            "async_std::task::sleep",
            "async_std::future::timeout",
            "async_io::Timer::*",
            "smol::Timer::*",
            "futures_timer::*",
        ],
        ..NOTHING
    },
    Rule {
        name: "thread",
        why: "which thread runs a workflow, and when, is in no history: the next replay is another one's",
        instead: "`cx.info()` for who the workflow is, `cx.wait_until(..)` for what it waits for",
        paths: &[
            "std::thread::current",
            "std::thread::yield_now",
            "std::thread::park",
            "std::thread::available_parallelism",
            "std::thread::panicking",
            "tokio::task::yield_now",
            "tokio::task::id",
            "rayon::current_num_threads",
        ],
        ..NOTHING
    },
    Rule {
        name: "task",
        why: "what runs beside the workflow is in no history: nobody knows its order, and each replay begins it again",
        instead: "`.start()` now and `.await` later, `join!`, or an activity for what needs threads",
        paths: &[
            "std::thread::spawn",
            "std::thread::scope",
            "std::thread::Builder::*",
            "tokio::spawn",
            "tokio::task::*",
            "tokio::runtime::*",
            "async_std::task::*",
            "smol::spawn",
            "smol::block_on",
            "rayon::spawn",
            "rayon::scope",
            "crossbeam::scope",
            "crossbeam::thread::*",
            "futures::executor::*",
        ],
        ..NOTHING
    },
    Rule {
        name: "environment",
        why: "another machine or a later deployment has other values, and a replay meets those",
        instead: "the workflow's input, an activity, or `cx.side_effect(\"name\", || ..)`, which records the value",
        paths: &[
            "std::env::var",
            "std::env::var_os",
            "std::env::vars",
            "std::env::args",
            "std::env::args_os",
            "std::env::current_dir",
            "std::env::temp_dir",
            "std::env::set_var",
            "std::env::remove_var",
            "std::env::*",
            "dotenvy::*",
            "gethostname::*",
            "jiff::tz::TimeZone::system",
            "time::UtcOffset::current_local_offset",
            "num_cpus::*",
        ],
        ..NOTHING
    },
    Rule {
        name: "process",
        why: "it reaches other processes or ends this one, once more on each replay",
        instead: AN_ACTIVITY,
        paths: &["std::process::*", "tokio::process::*", "tokio::signal::*", "std::io::stdin", "tokio::io::stdin"],
        ..NOTHING
    },
    Rule {
        name: "file",
        why: "a replay finds other files there, or none, and writes once more",
        instead: AN_ACTIVITY,
        paths: &[
            "std::fs::File::*",
            "std::fs::OpenOptions::*",
            "std::fs::read",
            "std::fs::read_to_string",
            "std::fs::read_dir",
            "std::fs::write",
            "std::fs::create_dir_all",
            "std::fs::remove_file",
            "std::fs::*",
            "tokio::fs::*",
            "async_std::fs::*",
            "async_fs::*",
            "smol::fs::*",
            "tempfile::*",
        ],
        methods: &[("std::path::Path", OF_PATHS), ("std::path::PathBuf", OF_PATHS)],
        ..NOTHING
    },
    Rule {
        name: "network",
        why: "whoever answers may answer otherwise the next time, and each replay asks again",
        instead: AN_ACTIVITY,
        paths: &[
            "std::net::TcpStream::*",
            "std::net::TcpListener::*",
            "std::net::UdpSocket::*",
            "std::os::unix::net::*",
            "tokio::net::*",
            "async_std::net::*",
            "smol::net::*",
            "reqwest::get",
            "reqwest::Client::*",
            "reqwest::ClientBuilder::*",
            "reqwest::blocking::*",
            "ureq::*",
            "attohttpc::*",
            "minreq::*",
            "isahc::*",
            "surf::*",
        ],
        ..NOTHING
    },
    Rule {
        name: "static",
        why: "every run of the process shares it and it is gone with the process: a replay finds something else there",
        instead: "a local variable, the workflow's input, or what an activity gives",
        ..NOTHING
    },
    Rule {
        name: "foreign",
        why: "the engine does not know what this waits for: it is in no history, and each replay waits for it again",
        instead: "an activity that awaits it",
        ..NOTHING
    },
];

const OF_PATHS: &[&str] = &[
    "exists",
    "try_exists",
    "is_file",
    "is_dir",
    "is_symlink",
    "metadata",
    "symlink_metadata",
    "canonicalize",
    "read_dir",
    "read_link",
];

/// Libraries whose futures wait for the outside world.
pub(crate) const FOREIGN: &[&str] = &[
    // Not `tokio::sync`: both ends of what is made there are in the workflow.
    "tokio::io::*",
    "tokio::net::*",
    "tokio::fs::*",
    "tokio::process::*",
    "tokio::task::*",
    "tokio::time::*",
    "tokio_postgres::*",
    "tokio_tungstenite::*",
    "async_std::*",
    "smol::*",
    "async_io::*",
    "async_process::*",
    "reqwest::*",
    "hyper::*",
    "hyper_util::*",
    "tonic::*",
    "sqlx::*",
    "sea_orm::*",
    "diesel_async::*",
    "deadpool*",
    "bb8*",
    "mongodb::*",
    "redis::*",
    "fred::*",
    "lapin::*",
    "rdkafka::*",
    "async_nats::*",
    "rumqttc::*",
    "lettre::*",
    "object_store::*",
    "octocrab::*",
    "elasticsearch::*",
    "kube::*",
    "aws_config::*",
    "aws_sdk_*",
    "google_cloud_*",
    "azure_*",
];

/// Collections whose order differs from process to process.
pub(crate) const UNORDERED: &[&str] = &[
    "std::collections::HashMap",
    "std::collections::HashSet",
    "std::collections::hash_map::HashMap",
    "std::collections::hash_set::HashSet",
    "hashbrown::HashMap",
    "hashbrown::HashSet",
    "ahash::AHashMap",
    "ahash::AHashSet",
    "ahash::HashMap",
    "ahash::HashSet",
    "dashmap::DashMap",
    "dashmap::DashSet",
];

/// Methods that go through one of them in its order.
pub(crate) const IN_ITS_ORDER: &[&str] = &[
    "iter",
    "iter_mut",
    "into_iter",
    "keys",
    "into_keys",
    "values",
    "values_mut",
    "into_values",
    "drain",
    "extract_if",
    "retain",
    "union",
    "intersection",
    "difference",
    "symmetric_difference",
];

/// Ends of a chain to which the order makes no difference.
pub(crate) const ORDER_FREE: &[&str] =
    &["count", "sum", "all", "any", "min", "max", "sorted", "sorted_unstable", "sorted_by", "sorted_by_key"];

/// What may stand between, if it does not touch the workflow.
pub(crate) const HARMLESS_BETWEEN: &[&str] = &["map", "filter", "filter_map", "copied", "cloned", "flat_map"];

/// What may be collected into, in any order.
pub(crate) const COLLECTED_ALIKE: &[&str] = &["BTreeMap", "BTreeSet", "HashMap", "HashSet", "BinaryHeap"];

/// Types that change what stands in them behind a shared reference.
pub(crate) const MUTABLE_INSIDE: &[&str] = &[
    "Mutex",
    "RwLock",
    "RefCell",
    "Cell",
    "UnsafeCell",
    "OnceCell",
    "OnceLock",
    "DashMap",
    "DashSet",
    "ArcSwap",
    "Atomic*",
];

/// Statics whose value is made at the first access, and does not change from then on.
pub(crate) const LAZY: &[&str] = &["LazyLock", "LazyCell", "Lazy"];

/// The context of workflows, and that of activities.
pub(crate) const WORKFLOW: &[&str] =
    &["dormouse::Workflow", "dormouse::prelude::Workflow", "dormouse_core::Workflow", "Workflow"];
pub(crate) const ACTIVITY: &[&str] =
    &["dormouse::Activity", "dormouse::prelude::Activity", "dormouse_core::Activity", "Activity"];

/// Methods of the standard library that many types have too: never followed where the type is not known.
pub(crate) const COMMON_METHODS: &[&str] = &[
    "new",
    "get",
    "get_mut",
    "set",
    "len",
    "is_empty",
    "iter",
    "next",
    "push",
    "pop",
    "insert",
    "remove",
    "contains",
    "clone",
    "map",
    "and_then",
    "unwrap",
    "expect",
    "take",
    "replace",
    "extend",
    "read",
    "write",
    "lock",
    "send",
    "recv",
    "join",
    "await",
    "start",
    "run",
    "poll",
    "to_string",
    "as_str",
    "parse",
    "from",
    "into",
    "default",
    "eq",
    "cmp",
    "fmt",
    "hash",
    "drop",
    "find",
    "filter",
    "first",
    "last",
    "min",
    "max",
    "sum",
    "name",
    "id",
    "call",
    "wait",
    "now",
    "sleep",
    "options",
    "result",
    "activity",
    "signal",
    "record",
    "update",
    "check",
    "open",
    "close",
    "load",
    "store",
];

impl Rule {
    /// The rule of this name.
    pub(crate) fn named(name: &str) -> &'static Rule {
        RULES.iter().find(|rule| rule.name == name).expect("rules are named as in the table")
    }
}

#[cfg(test)]
impl Rule {
    pub(crate) fn paths(&self) -> &[&str] {
        self.paths
    }

    pub(crate) fn macros(&self) -> &[&str] {
        self.macros
    }

    pub(crate) fn methods(&self) -> &[(&str, &[&str])] {
        self.methods
    }
}

/// The rule against using this path.
pub(crate) fn of_path(path: &[String]) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.paths.iter().any(|pattern| matches(pattern, path)))
}

/// The rule against this macro.
pub(crate) fn of_macro(path: &[String]) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.macros.iter().any(|pattern| matches(pattern, path)))
}

/// The rule against this method of this type.
pub(crate) fn of_method(on: &[String], method: &str) -> Option<&'static Rule> {
    RULES
        .iter()
        .find(|rule| rule.methods.iter().any(|(pattern, methods)| matches(pattern, on) && methods.contains(&method)))
}

/// Whether some rule or table speaks of this path, or of something in it. Names that come by `use somewhere::*` are
/// believed to come from there only then.
pub(crate) fn is_spoken_of(path: &[String]) -> bool {
    static SPOKEN_OF: LazyLock<BTreeSet<&str>> = LazyLock::new(|| {
        let of_rules = RULES.iter().flat_map(|rule| {
            let methods = rule.methods.iter().map(|(on, _)| on);
            rule.paths.iter().chain(rule.macros).chain(methods)
        });
        let known = of_rules.chain(UNORDERED).chain(WORKFLOW).chain(ACTIVITY);
        // Each with whatever it stands in: `a::b::c`, `a::b`, `a`.
        known.flat_map(|path| std::iter::successors(Some(*path), |path| Some(path.rsplit_once("::")?.0))).collect()
    });
    SPOKEN_OF.contains(path.join("::").as_str())
}
