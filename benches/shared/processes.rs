//! Processes that are measured, as the kernel counts them (proc(5)).

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// User and system time among the figures of a process.
pub const OWN_TIME: Range<usize> = 11..13;

/// The same with that of its children that have ended.
pub const TIME_WITH_CHILDREN: Range<usize> = 11..15;

/// A process.
struct Running {
    folder: PathBuf,
    program: String,
    /// Its `stat` behind the program's name.
    figures: Vec<String>,
}

/// CPU time of a process group, in hundredths of a second (a tick, as Linux is built everywhere).
pub fn ticks(group: u32, time: Range<usize>) -> u64 {
    let of = |process: Running| {
        let fields = process.figures.get(time.clone()).unwrap_or_default();
        fields.iter().filter_map(|field| field.parse::<u64>().ok()).sum::<u64>()
    };
    of_group(group).map(of).sum()
}

/// A figure of `/proc/…/status` summed over a process group, in MiB.
pub fn mib(group: u32, name: &str) -> f64 {
    let kib: u64 = of_group(group).filter_map(|process| kib(&process.folder, name)).sum();
    kib as f64 / 1024.0
}

/// The same of this process.
pub fn our_mib(name: &str) -> f64 {
    kib(Path::new("/proc/self"), name).unwrap_or_default() as f64 / 1024.0
}

/// The process of this program that it started last and that runs this file.
pub fn child(program: &str) -> Option<u32> {
    let us = std::process::id().to_string();
    let ours = running().filter(|process| process.program == program && process.figures[1] == us);
    ours.filter_map(|process| process.folder.file_name()?.to_str()?.parse().ok()).max()
}

fn of_group(group: u32) -> impl Iterator<Item = Running> {
    let group = group.to_string();
    running().filter(move |process| process.figures[2] == group)
}

fn running() -> impl Iterator<Item = Running> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let folder = entry.path();
        let stat = fs::read_to_string(folder.join("stat")).ok()?;
        let (head, figures) = stat.rsplit_once(") ")?;
        let program = head.split_once('(')?.1.to_owned();
        let figures = figures.split_whitespace().map(str::to_owned).collect();
        Some(Running { folder, program, figures })
    })
}

fn kib(folder: &Path, name: &str) -> Option<u64> {
    let status = fs::read_to_string(folder.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}
