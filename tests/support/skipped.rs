//! What a test says that cannot run.

use std::io::{self, Write};

/// Says that this test cannot run. Under `CI` or `REPLYGUARD_NO_SKIP=1` that is a failure.
pub fn skipped(why: &str) {
    let strict = ["CI", "REPLYGUARD_NO_SKIP"].iter().any(|name| {
        std::env::var(name).is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"))
    });
    assert!(!strict, "{} cannot run: {why}", test());
    say(why);
}

/// Says that this test has nothing to run on: messages of others, which are no part of the project
/// and which no set-up can bring. Nowhere a failure.
#[allow(dead_code, reason = "only the integration tests read messages of others")]
pub fn without_corpus(why: &str) {
    say(why);
}

fn test() -> String {
    std::thread::current().name().unwrap_or("a test").to_owned()
}

fn say(why: &str) {
    // Why: not `eprintln!`, which the test harness keeps to itself when a test passes.
    let _ = writeln!(io::stderr(), "SKIPPED: {}: {why}", test());
}
