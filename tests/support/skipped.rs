//! What a test says that cannot run, and where the messages of others are.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Says that this test cannot run. Under `CI` or `REPLYGUARD_NO_SKIP=1` that is a failure.
pub fn skipped(why: &str) {
    assert!(!is_strict(), "{} cannot run: {why}", test());
    say(why);
}

/// Whether every test has to run, and every figure in a document to be what is measured.
pub fn is_strict() -> bool {
    ["CI", "REPLYGUARD_NO_SKIP"].iter().any(|name| {
        std::env::var(name).is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"))
    })
}

/// A folder of the messages of others: below `REPLYGUARD_CORPUS`, or beside the project.
#[allow(dead_code, reason = "only the integration tests read messages of others")]
pub fn corpus(folder: &str) -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus");
    std::env::var_os("REPLYGUARD_CORPUS").map_or_else(beside, PathBuf::from).join(folder)
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
