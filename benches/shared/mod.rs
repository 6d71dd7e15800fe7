//! What several measures need: the messages they read, and the time of the work alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[path = "../../tests/support/skipped.rs"]
#[allow(dead_code, reason = "a measure skips nothing; it asks where the messages of others are")]
mod skipped;

/// The messages of `tests/captures`, each with the file it stands in, in the order of the names.
pub fn captures() -> Vec<(PathBuf, Vec<u8>)> {
    messages_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures"))
}

/// The messages of others; none where the corpus is not there.
pub fn corpus() -> Vec<(PathBuf, Vec<u8>)> {
    messages_below(&skipped::corpus("messages"))
}

/// The fastest of several rounds: what the work itself takes, without what else the machine does.
pub fn fastest(work: impl Fn()) -> Duration {
    let round = || {
        let began = Instant::now();
        work();
        began.elapsed()
    };
    (0..20).map(|_| round()).min().unwrap_or_default()
}

fn messages_below(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut open = vec![folder.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => open.push(path),
                path if path.extension().is_some_and(|ending| ending == "eml") => files.push(path),
                _ => {}
            }
        }
    }
    files.sort();
    files.into_iter().filter_map(|path| fs::read(&path).ok().map(|bytes| (path, bytes))).collect()
}
