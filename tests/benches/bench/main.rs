//! Benchmarks: what a durable step costs, beside what the machine can do at all.
//!
//! Times on a shared machine are noise; ratios taken in one run and counts of requests are not. Every scenario runs in
//! a process of its own, so that its memory and processor time are its own.

mod limits;
mod long;
mod machine;
mod replay;
mod steps;

use std::process::{Command, ExitCode};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Map, Value, json};

/// One row of the report: a name, and figures by name.
type Figures = Map<String, Value>;

/// What is measured, under which name.
type Scenario = (&'static str, fn() -> Figures);

const SCENARIOS: &[Scenario] = &[
    ("limit: one fdatasync of 1 KiB", limits::single_fdatasync),
    ("limit: group commit, 10 writers", || limits::group_commit(10)),
    ("limit: group commit, 100 writers", || limits::group_commit(100)),
    ("limit: group commit, 1000 writers", || limits::group_commit(1000)),
    ("limit: SQLite, 1 committer", || limits::sqlite(1)),
    ("limit: SQLite, 100 committers", || limits::sqlite(100)),
    ("requests: 100 local steps", || steps::requests(steps::Kind::Local, 100)),
    ("requests: 100 queued steps", || steps::requests(steps::Kind::Queued, 100)),
    ("local: 1 x 100", || steps::run(steps::Kind::Local, 1, 100)),
    ("local: 1000 x 10", || steps::run(steps::Kind::Local, 1000, 10)),
    ("queued: 1 x 100", || steps::run(steps::Kind::Queued, 1, 100)),
    ("queued: 1000 x 10", || steps::run(steps::Kind::Queued, 1000, 10)),
    ("growth: local", || steps::growth(steps::Kind::Local)),
    ("cold: 10000 events, SQLite", long::cold_sqlite),
    ("cold: 10000 events, objects", long::cold_objects),
    ("waiting: 8000 signals, 1000", long::waiting_signals),
    ("replay: 10000 x 100 events", replay::many_runs),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("--scenario") => {
            let name = arguments.next().unwrap_or_default();
            let Some((_, scenario)) = SCENARIOS.iter().find(|(known, _)| *known == name) else {
                eprintln!("no scenario {name:?}");
                return ExitCode::from(2);
            };
            let before = machine::cpu_seconds();
            let mut figures = scenario();
            figures.insert("cpu_s".into(), json!(machine::cpu_seconds() - before));
            figures.insert("peak_mib".into(), json!(machine::peak_memory_mib()));
            println!("{}", Value::Object(figures));
            ExitCode::SUCCESS
        }
        Some("--replay") => replay::child(&arguments.next().unwrap_or_default()),
        Some("--help" | "-h") => {
            println!(
                "Runs every benchmark and prints a table; with a file name, writes the figures there as JSON too."
            );
            ExitCode::SUCCESS
        }
        json => report(json),
    }
}

fn report(json_file: Option<&str>) -> ExitCode {
    let mut all = Map::new();
    for (name, _) in SCENARIOS {
        eprintln!("... {name}");
        match child(name) {
            Ok(figures) => drop(all.insert((*name).into(), figures)),
            Err(problem) => {
                eprintln!("{name}: {problem}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{}", table(&all));
    let ratios = ratios(&all);
    let mut lines = Table::new();
    lines.load_style(presets::UTF8_BORDERS_ONLY).set_header(["goal", "reached", "bar"]);
    for (goal, reached, bar) in &ratios {
        lines.add_row([goal.as_str(), &format!("{reached:.3}"), bar]);
    }
    println!("{lines}");
    if let Some(file) = json_file {
        let ratios: Map<_, _> = ratios.into_iter().map(|(goal, reached, _)| (goal, json!(reached))).collect();
        let report = json!({ "scenarios": all, "ratios": ratios });
        if let Err(error) = std::fs::write(file, format!("{report:#}\n")) {
            eprintln!("{file}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn child(scenario: &str) -> Result<Value, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let output = Command::new(program).args(["--scenario", scenario]).output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())
}

fn number(all: &Map<String, Value>, scenario: &str, figure: &str) -> f64 {
    all.get(scenario).and_then(|figures| figures.get(figure)).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

/// What the figures mean against each other: all of one run.
fn ratios(all: &Map<String, Value>) -> Vec<(String, f64, &'static str)> {
    let rate = number(all, "local: 1000 x 10", "per_second");
    let fdatasync = number(all, "limit: one fdatasync of 1 KiB", "p50_us");
    vec![
        ("local steps/s, 1000 x 10".into(), rate, "16000, or 5 % of group commit at 100"),
        (
            "... as a share of group commit, 100 writers".into(),
            rate / number(all, "limit: group commit, 100 writers", "per_second"),
            "0.05",
        ),
        (
            "... as a share of group commit, 1000 writers".into(),
            rate / number(all, "limit: group commit, 1000 writers", "per_second"),
            "goal 0.25",
        ),
        (
            "local step p50 over one fdatasync".into(),
            number(all, "local: 1 x 100", "p50_us") / fdatasync,
            "3 (goal 1.5)",
        ),
        ("local step p99 over one fdatasync".into(), number(all, "local: 1 x 100", "p99_us") / fdatasync, "goal 3"),
        ("growth exponent, 10 to 5000 steps".into(), number(all, "growth: local", "exponent"), "1.05 (goal 1.02)"),
        ("CPU-seconds per 10k local steps".into(), number(all, "local: 1000 x 10", "steps_cpu_s"), "goal 0.15"),
        ("bytes written per local step".into(), number(all, "requests: 100 local steps", "bytes_per_step"), "goal 160"),
        (
            "events replayed per processor second, 10000 open runs".into(),
            number(all, "replay: 10000 x 100 events", "per_cpu_second"),
            "500000",
        ),
        (
            "cold state of 10000 events, SQLite: folded over by snapshot".into(),
            number(all, "cold: 10000 events, SQLite", "fold_over_snapshot"),
            "20",
        ),
        (
            "cold state of 10000 events, objects: folded over by snapshot".into(),
            number(all, "cold: 10000 events, objects", "fold_over_snapshot"),
            "20",
        ),
        (
            "replay of 8000 waiting signals over 1000".into(),
            number(all, "waiting: 8000 signals, 1000", "many_over_few"),
            "10",
        ),
        ("MiB at 1000 live workflows, local steps".into(), number(all, "local: 1000 x 10", "peak_mib"), "told"),
    ]
}

fn rounded(value: &Value) -> String {
    value.as_f64().filter(|_| value.is_f64()).map_or_else(|| value.to_string(), |value| format!("{value:.4}"))
}

fn table(all: &Map<String, Value>) -> Table {
    let columns = ["per_second", "p50_us", "p99_us", "cpu_s", "peak_mib"];
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(150);
    table.set_header(["scenario", "per second", "p50 µs", "p99 µs", "CPU s", "peak MiB", "also"]);
    for (name, figures) in all {
        let cell = |column: &str| match figures.get(column).and_then(Value::as_f64) {
            Some(value) if value >= 100.0 => format!("{value:.0}"),
            Some(value) => format!("{value:.2}"),
            None => String::new(),
        };
        let rest = figures.as_object().into_iter().flatten().filter(|(key, _)| !columns.contains(&key.as_str()));
        let rest: Vec<_> = rest.map(|(key, value)| format!("{key} {}", rounded(value))).collect();
        let mut row = vec![name.clone()];
        row.extend(columns.iter().map(|column| cell(column)));
        row.push(rest.join(", "));
        table.add_row(row);
    }
    table
}
