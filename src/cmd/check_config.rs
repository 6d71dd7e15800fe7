//! `check-config`: every fault of a configuration at once, and what is in force.

use crate::cmd::ConfigFile;
use crate::cmd::exit::Exit;
use crate::config::file::Fault;
use crate::config::show;
use crate::judge::lists::Entry;
use crate::judge::policy::Mode;
use crate::mail::shown::Shown;
use crate::mail::time::Timestamp;

/// Checks the file, or the built-in defaults.
pub fn check(file: &ConfigFile, print: bool) -> Exit {
    let config = match file.load() {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    if print {
        print!("{}", show::in_force(&config));
        return Exit::Done;
    }
    let name = file.config.as_ref().map_or("the defaults".to_owned(), |p| p.display().to_string());
    println!("{name}: no fault");
    match config.policy.mode {
        Mode::Observe => println!("  observes: delivers everything and records what would happen"),
        Mode::Enforce => println!("  enforces"),
    }
    for note in &config.notes {
        println!("  note: {note}");
    }
    for warning in config.warnings() {
        println!("  WARNING: {warning}");
    }
    let now = crate::cmd::world().now;
    let mut entries: Vec<(&str, &Entry)> = Vec::new();
    entries.extend(config.policy.allow.iter().map(|entry| ("allow", entry)));
    entries.extend(config.policy.deny.iter().map(|entry| ("deny", entry)));
    entries.sort_by_key(|(_, entry)| entry.pattern.to_string());
    for (list, entry) in entries {
        if let Some(line) = remark(list, entry, now) {
            println!("  {line}");
        }
    }
    Exit::Done
}

/// What an administrator should notice about an entry.
fn remark(list: &str, entry: &Entry, now: Timestamp) -> Option<String> {
    let pattern = Shown::new(&entry.pattern.to_string());
    match entry.expires {
        Some(expires) if expires <= now => {
            Some(format!("note: {list}: {pattern} expired at {expires} and does not count"))
        }
        _ => None,
    }
}

/// Prints faults as an administrator reads them: place, what, the line.
pub fn print_faults(faults: &[Fault]) {
    for fault in faults {
        eprintln!("{fault}");
    }
    let count = faults.len();
    eprintln!("{count} fault{}; nothing was changed", if count == 1 { "" } else { "s" });
}
