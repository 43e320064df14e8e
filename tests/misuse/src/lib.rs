//! What must not compile, and what must be reported when it runs: see `tests/`.
