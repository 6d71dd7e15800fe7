//! `[loops]` and `[loops.conversation]`: when mail goes round.

use std::time::Duration;

use crate::config::file::{Section, Source};
use crate::config::words::rate;
use crate::judge::loops::conversation::{AgentsFound, ConversationLimits};
use crate::judge::policy::{LoopLimits, Policy};
use crate::store::sightings::Settings;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// The site, where it is written, and how much is remembered; the limits go into the policy.
pub fn loops(
    root: &mut Section<'_>,
    source: &mut Source<'_>,
    policy: &mut Policy,
) -> (Option<String>, Settings) {
    let mut section = root.section(source, "loops");
    let site = section.value(source, "site", |text| {
        let right = (1..=120).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_graphic() && !b";,=\"()".contains(&b));
        right
            .then(|| text.to_owned())
            .ok_or("a site is 1 to 120 visible characters without ; , = \" ( )".to_owned())
    });
    let default = LoopLimits::default();
    let mut count = |key, bounds, default: u32| {
        let found = section.number(source, key, bounds);
        found.and_then(|written| u32::try_from(written.value).ok()).unwrap_or(default)
    };
    policy.loops = LoopLimits {
        laps_max: count("laps_max", 0..=20, default.laps_max),
        hops_max_response: count("hops_max_response", 5..=1000, default.hops_max_response),
        hops_max: count("hops_max", 5..=1000, default.hops_max),
        conversation: conversation(&mut section, source),
    };
    let mut settings = Settings::default();
    if let Some(entries) = section.number(source, "fingerprints", 1000..=1_000_000_000) {
        settings.entries = usize::try_from(entries.value).unwrap_or(usize::MAX);
    }
    if let Some(window) = section.duration(source, "window", MINUTE..=DAY * 30) {
        settings.window = window;
    }
    section.end(source);
    (site.map(|written| written.value), settings)
}

fn conversation(section: &mut Section<'_>, source: &mut Source<'_>) -> ConversationLimits {
    let mut section = section.section(source, "conversation");
    let default = ConversationLimits::default();
    let mut limit =
        |key, default| section.value(source, key, rate).map_or(default, |written| written.value);
    let mut limits = ConversationLimits {
        pair: limit("pair", default.pair),
        pair_day: limit("pair_day", default.pair_day),
        thread: limit("thread", default.thread),
        domain: limit("domain", default.domain),
        crowd: limit("crowd", default.crowd),
        agents: limit("agents", default.agents),
        agents_found: default.agents_found,
    };
    let found = section.value(source, "agents_found", |text| match text {
        "alarm" => Ok(AgentsFound::Alarm),
        "hold" => Ok(AgentsFound::Hold),
        _ => Err("write \"alarm\" or \"hold\"".to_owned()),
    });
    limits.agents_found = found.map_or(limits.agents_found, |written| written.value);
    section.end(source);
    limits
}
