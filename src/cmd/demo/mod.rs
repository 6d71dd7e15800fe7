//! `demo`: the real daemon on loopback, with mail, a next hop and a DNS zone of its own.
//!
//! Tells a story in the terminal, in under a minute, and needs nothing installed. What it shows is
//! counted from the next hop, the audit log and the quarantine, not claimed.

pub mod border;
pub mod client;
pub mod letters;
pub mod picture;
pub mod ring;
pub mod sink;
pub mod story;
pub mod zone;

use std::path::PathBuf;

use crate::cmd::exit::Exit;

/// Tells the story; exit 1 when it did not go as told.
pub fn demo() -> Exit {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(fault) => {
            eprintln!("the runtime cannot start: {fault}");
            return Exit::Later;
        }
    };
    let folder = Folder::new();
    match runtime.block_on(story::tell(&folder.0)) {
        Ok(true) => Exit::Done,
        Ok(false) => Exit::No,
        Err(fault) => {
            eprintln!("the demo cannot go on: {fault}");
            Exit::Later
        }
    }
}

/// The state directory of one demo; taken away with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let name = format!("replyguard-demo-{}", std::process::id());
        Folder(std::env::temp_dir().join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
