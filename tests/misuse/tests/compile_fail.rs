//! Every compile error that the API promises, with the text that a user reads.
//!
//! `TRYBUILD=overwrite cargo test -p dormouse-misuse` writes the texts anew; read them before you commit them.

#[test]
fn promised_compile_errors() {
    let cases = trybuild::TestCases::new();
    // Also makes the others builds instead of checks: const assertions show only there.
    cases.pass("compile-fail/fine.rs");
    cases.compile_fail("compile-fail/not_*.rs");
}
