//! `[store]`: what is remembered of inbound mail, where, and for how long.

use std::path::Path;
use std::time::Duration;

use crate::config::file::{Section, Source};
use crate::config::sections::to_usize;
use crate::config::words::absolute;
use crate::store::{self, Backend};

const HOUR: Duration = Duration::from_secs(3600);

/// Reads it.
pub fn store(
    root: &mut Section<'_>,
    source: &mut Source<'_>,
    folder: &Path,
    state_dir: &Path,
) -> store::Settings {
    let mut section = root.section(source, "store");
    let mut settings = store::Settings::beside(state_dir);
    let backend = section.value(source, "backend", |text| match text {
        "embedded" => Ok(Backend::Embedded),
        "memory" => Ok(Backend::Memory),
        "none" => Ok(Backend::None),
        "redis" => Err("this version has no shared store yet: write \"embedded\"".to_owned()),
        _ => Err("write \"embedded\", \"memory\" or \"none\"".to_owned()),
    });
    settings.backend = backend.map_or(settings.backend, |written| written.value);
    if let Some(path) = section.value(source, "path", |text| absolute(text, folder)) {
        settings.path = path.value;
    }
    if let Some(retention) = section.duration(source, "retention", HOUR..=HOUR * 24 * 90) {
        settings.retention = retention;
    }
    if let Some(count) = section.number(source, "records_max", 1000..=1_000_000_000) {
        settings.records_max = to_usize(count.value);
    }
    if let Some(size) = section.size(source, "bytes_max", 1 << 20..=1 << 50) {
        settings.bytes_max = size;
    }
    if let Some(size) = section.size(source, "memory_max", 1 << 20..=1 << 40) {
        settings.memory_max = to_usize(size);
    }
    settings.plain = section.boolean(source, "plain").is_some_and(|written| written.value);
    section.end(source);
    settings
}
