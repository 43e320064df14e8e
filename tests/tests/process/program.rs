//! `dormouse`, the program without an application, as people and scripts run it.

use std::path::Path;
use std::process::{Command, Output};

use dormouse_tests::server::{Server, dormouse, functions};
use serde_json::Value;

fn run(dir: &Path, line: &str) -> (i32, String, String) {
    let mut command = Command::new(dormouse());
    command.args(line.split(' ')).current_dir(dir);
    for variable in ["DORMOUSE_ADDRESS", "DORMOUSE_AUTH", "RUST_LOG"] {
        command.env_remove(variable);
    }
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn it_says_what_it_can_and_has_no_application_to_run() {
    let dir = tempfile::tempdir().unwrap();
    let (code, help, _) = run(dir.path(), "--help");
    assert_eq!(code, 0);
    for word in ["workflow", "quarantine", "completion", "lint", "man", "Examples", "Exit codes"] {
        assert!(help.contains(word), "{word} is not in:\n{help}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    assert_eq!(run(dir.path(), "dev").0, 2);
    let (code, _, said) = run(dir.path(), "workflow list --address http://127.0.0.1:1");
    assert!(code == 3 && said.contains("starts one with `dev`"), "{said}");
}

#[test]
fn it_is_a_client_of_any_application() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(functions(), dir.path());
    let verb = |line: &str| run(dir.path(), &format!("{line} --address {}", server.url()));
    let order = r#"{"order_id":"o","amount_cents":1,"fulfilment_delay_ms":1}"#;
    let (code, result, said) = verb(&format!("workflow start --type orderWorkflow --id o --wait --input {order}"));
    assert!(code == 0 && result.contains("TRACK-o"), "{code} {result} {said}");
    let (code, listed, _) = verb("workflow list --output json");
    assert!(code == 0 && listed.contains("orderWorkflow"), "{listed}");
}

#[test]
fn a_projects_workflows_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    std::fs::create_dir(dir.path().join("src")).unwrap();
    write("Cargo.toml", "[package]\nname = \"orders\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
    let code = "use dormouse::prelude::*;\n\nasync fn w(cx: Workflow, _: ()) -> Result<(), Failure> {\n    NOW\n}\n";
    write("src/lib.rs", &code.replace("NOW", "let now = std::time::Instant::now();"));
    let (code_, shown, said) = run(dir.path(), "lint");
    assert_eq!(code_, 1, "{shown}{said}");
    assert!(shown.starts_with("src/lib.rs:4:15: `std::time::Instant::now` [clock]\n    in:      w\n"), "{shown}");
    assert!(said.starts_with("error: 1 finding\nhint: "), "{said}");

    let (code_, report, said) = run(dir.path(), "lint . --output json");
    let (report, problem): (Value, Value) =
        (serde_json::from_str(&report).unwrap(), serde_json::from_str(&said).unwrap());
    let finding = &report["findings"][0];
    assert_eq!(
        (code_, &finding["line"], &finding["column"], &finding["rule"]),
        (1, &4.into(), &15.into(), &"clock".into())
    );
    assert_eq!(problem["exit_code"], 1);

    write("src/lib.rs", &code.replace("NOW", "// dormouse: allow(clock): shown only\n    std::time::Instant::now();"));
    let (code_, shown, said) = run(dir.path(), "lint src/lib.rs");
    assert!(code_ == 0 && shown.starts_with("Nothing found: 1 function in 1 file"), "{shown}{said}");

    write("src/lib.rs", "fn (");
    let (code_, _, said) = run(dir.path(), "lint");
    assert!(code_ == 1 && said.starts_with("error: src/lib.rs:1:4: "), "{said}");
    assert_eq!(run(dir.path(), "lint Cargo.toml").0, 2);
    let (code_, rules, _) = run(dir.path(), "lint --rules --output json");
    let rules: Vec<Value> = serde_json::from_str(&rules).unwrap();
    assert!(code_ == 0 && rules.iter().any(|rule| rule["name"] == "unordered"), "{rules:?}");
}

#[test]
fn it_documents_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (code, page, _) = run(dir.path(), "man workflow start");
    assert!(
        code == 0 && page.contains(".TH dormouse-workflow-start 1") && page.contains("id\\-reuse\\-policy"),
        "{page}"
    );
    assert_eq!(run(dir.path(), "man --dir pages").0, 0);
    for name in ["dormouse", "dormouse-lint", "dormouse-workflow", "dormouse-workflow-start"] {
        assert!(dir.path().join(format!("pages/{name}.1")).is_file(), "{name}");
    }
    let (code, _, said) = run(dir.path(), "man workflow begin");
    assert!(code == 2 && said.contains("there are start, list"), "{said}");
    let (code, script, _) = run(dir.path(), "completion bash");
    assert!(code == 0 && script.contains("lint"), "{script}");
}
