//! Who was spared: reads an audit log, across its rotated files, and counts what was held, by
//! reason and by recipient's domain.
//!
//! `cargo run --example held -- /var/lib/replyguard/audit.jsonl`

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use replyguard::audit::disk::RealDisk;
use replyguard::audit::reader::Reader;

fn main() -> Result<(), Box<dyn Error>> {
    let path = PathBuf::from(std::env::args().nth(1).ok_or("name an audit log")?);
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut reader = Reader::log(Arc::new(RealDisk), path)?;
    for logged in reader.by_ref() {
        let record = logged?.record;
        if record.action == "quarantine" {
            let domain = record.rcpt.rsplit('@').next().unwrap_or_default().to_owned();
            *counts.entry((record.reason, domain)).or_default() += 1;
        }
    }
    for ((reason, domain), count) in counts {
        println!("{count:>8}  {reason:<18} {domain}");
    }
    if reader.skipped() > 0 {
        eprintln!("{} lines are no records", reader.skipped());
    }
    Ok(())
}
