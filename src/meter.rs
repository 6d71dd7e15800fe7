//! The names of all metrics, and the counters behind them.
//!
//! Takes: short words from closed lists, never peer text: a label that strangers choose would grow
//! without bound. Gives: the OpenMetrics text. Gauges are not kept here: who serves the text reads
//! them from the rooms at that moment and hands them in as `Reading`s.
//! `docs/reference/metrics.md` is made from `METRICS`.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// A metric, for the registry and for the reference page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name without `replyguard_` and without the `_total` of a counter.
    pub name: &'static str,
    /// Whether it only rises.
    pub kind: Kind,
    /// What it counts.
    pub help: &'static str,
    /// What an administrator does when it moves.
    pub remedy: &'static str,
}

/// What kind of metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rises from the start of the process on.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in seconds, in buckets.
    Seconds,
}

macro_rules! metrics {
    ($($constant:ident: $kind:ident $name:literal, $help:literal, $remedy:literal;)*) => {
        $(#[doc = $help] pub const $constant: &str = $name;)*
        /// All metrics there are.
        pub const METRICS: &[Metric] = &[$(
            Metric { name: $name, kind: Kind::$kind, help: $help, remedy: $remedy },
        )*];
    };
}

metrics! {
    DECISIONS: Counter "decisions",
        "Recipients by class of the message, action and reason",
        "Held ones rise: look at the reasons; a joe job shows as `dsn`, `quarantine`";
    WOULD: Counter "would",
        "Recipients for whom something else would have been done, were it not only observing",
        "This is what changes with `mode = \"enforce\"`";
    VERDICTS: Counter "verdicts",
        "Recipients of responses by verdict and by what decided it",
        "Many `unknown`: the guard sees too little of what comes in";
    GAPS: Counter "gaps",
        "What could not be known of a subject message, by cause",
        "`dns` rises: look at the resolver; `no-auth-results`: look at `local.authserv_ids`";
    LOOPS: Counter "loops",
        "Recipients for whom a loop was recognised, by kind",
        "Look at `between` in the audit log: the two ends forward to one another";
    OUTCOMES: Counter "outcomes",
        "Recipients by what came of the message",
        "`deferred` rises: the client's queue fills; look at the next hop and at the log";
    ALARMS: Counter "alarms",
        "What an administrator should look at, by name",
        "Each stands in the log with its remedy";
    MESSAGE_SECONDS: Seconds "message",
        "Time from the end of the header bytes read to the reply",
        "It rises with the next hop's time and with DNS";
    INFO: Gauge "info",
        "Always 1; the version and the mode are its labels",
        "None";
    STARTED: Gauge "start_time_seconds",
        "When the process started, in seconds since 1970",
        "It jumps: the daemon was started again";
    CLIENT_SESSIONS: Gauge "client_sessions",
        "Sessions of clients now",
        "Near `outbound.sessions_max`: clients get 421";
    SESSIONS_REFUSED: Counter "sessions_refused",
        "Connections to the proxy that were turned away: `stranger`, `full`, or `share` of one client",
        "`share` or `full` rises: look in the log for who it is; `outbound.client_sessions_max`";
    HOP_SESSIONS: Gauge "next_hop_sessions",
        "Sessions with next hops that are in use now",
        "At `outbound.next_hop_sessions_max`: clients wait; raise it, or look why the next hop is slow";
    HOP_UP: Gauge "next_hop_up",
        "1 for a next hop that answered when last tried, else 0",
        "0: mail stays in the client's queue until one is up again";
    AUDIT_UP: Gauge "audit_up",
        "1 while the audit log can be written, else 0",
        "0: responses get 451; look at the disk";
    AUDIT_WAITING: Gauge "audit_waiting_bytes",
        "Bytes of records that wait in memory because the audit log cannot be written",
        "Above 0: look at the disk";
    AUDIT_LOST: Gauge "audit_lost_records",
        "Records of personal mail lost since the start, because the log could not be written for long",
        "Above 0: look at the disk; set `audit.on_failure = \"defer-all\"` if no record may be lost";
    LOOP_ENTRIES: Gauge "loop_entries",
        "Copies of messages remembered to find loops without our trace",
        "Near `loops.fingerprints` is where it belongs on a busy site";
    LOOP_KEPT: Gauge "loop_entries_kept",
        "Those of them whose hops rose: they may be going round",
        "Rises by many: forwarders in a ring, or many lists inside one another";
    LOOP_EVICTED: Gauge "loop_entries_evicted",
        "Entries that went before their time since the start",
        "Rises within less than an hour of mail: raise `loops.fingerprints`";
    LOOP_REFUSED: Gauge "loop_entries_refused",
        "Entries not taken since the start, because their sender or client had his share of 1 %",
        "One sender floods: look at the audit log";
    TALK_ENTRIES: Gauge "conversation_entries",
        "Addresses, domains and threads that automatic responses are counted for",
        "Near 200000: look which responder writes to so many";
    TALK_EVICTED: Gauge "conversation_entries_evicted",
        "Those that went before their time since the start",
        "Rises: conversations of responders may be seen late; look which one writes to so many";
    TALK_REFUSED: Gauge "conversation_entries_refused",
        "Those not taken since the start, because a responder or client had his share of 1 %",
        "One responder answers very many: look at the audit log";
    HELD_MESSAGES: Gauge "quarantine_messages",
        "Held messages, copies of a campaign not counted",
        "Near `quarantine.max_messages`: see `quarantine.on_full`";
    HELD_COPIES: Gauge "quarantine_copies",
        "Further copies of campaigns, of which only envelopes are kept",
        "A joe job";
    HELD_BYTES: Gauge "quarantine_bytes",
        "Bytes of the quarantine on disk",
        "Near `quarantine.max_bytes`: see `quarantine.on_full`";
    HELD_DROPPED: Gauge "quarantine_dropped",
        "Held messages dropped since the start because the quarantine was full",
        "Raise `quarantine.max_bytes`";
    STORE_UP: Gauge "store_up",
        "1 while the memory of inbound mail works, else 0",
        "0: replies count as unknown; look at the disk of the state directory";
    STORE_RECORDS: Gauge "store_records",
        "Records of inbound messages held",
        "Falls to 0: see the log for a damaged file that was set aside";
    STORE_BYTES: Gauge "store_bytes",
        "Bytes that these take, of memory or disk",
        "Bounded by the settings of `[store]`";
    STORE_LOST: Gauge "store_lost_records",
        "Records refused or lost since the start",
        "Above 0: their answers count as unknown; look at the disk";
    SUBJECTS: Counter "subjects",
        "Recipients of responses by what their subject message was found by in the memory of what came in: `none`, or only somebody else's (`stranger`)",
        "`none` rises: mail comes in past the taps, or `[store]` is too small for the mail of its retention";
    TLS_MADE: Gauge "tls_handshakes",
        "TLS handshakes with clients since the start, at the listeners of each role",
        "Stands still while mail comes in: clients speak in the clear";
    TLS_FAILED: Gauge "tls_handshakes_failed",
        "Those that failed",
        "Rises: see the log; a client does not trust our certificate, or knows no TLS 1.2";
    TLS_INJECTED: Gauge "tls_injected",
        "Sessions ended because commands came in the clear behind STARTTLS",
        "Above 0: somebody meddles with connections, or a client is broken; the log names it";
    TLS_ENDS: Gauge "tls_certificate_ends_seconds",
        "When the certificate that clients are shown ends, in seconds since 1970",
        "Less than a week from now: renew it and send SIGHUP";
    HOP_TLS_FAILED: Gauge "next_hop_tls_failed",
        "Sessions with next hops since the start in which TLS failed or was not offered where it is required",
        "See the log; with `opportunistic` mail goes on in the clear, with `require` it waits";
    HOP_AUTH_FAILED: Gauge "next_hop_auth_failed",
        "Sessions with next hops since the start that ended at AUTH",
        "Look at name and password in `outbound.auth_file`; mail waits";
    TAP_SEEN: Gauge "tap_messages",
        "Inbound messages that each tap saw since the start",
        "Stands still while mail comes in: the MTA goes on without the tap; look at its log";
    TAP_RATE: Gauge "tap_messages_per_minute",
        "Those of the last minute",
        "As above";
    TAP_LAG: Gauge "tap_lag_milliseconds",
        "Time from the end of a message to its results, lately (each new one counts for an eighth)",
        "Near `tap.wait`: look at the resolver";
    TAP_LATE: Gauge "tap_late",
        "Messages answered before their verification ended, because it took longer than `tap.wait`",
        "Rises: look at the resolver";
    TAP_OVERLOADED: Gauge "tap_overloaded",
        "Messages not verified, because too many were under verification",
        "Rises: look at the resolver, or a flood comes in";
    TAP_STORE_FAILED: Gauge "tap_store_failed",
        "Records that the store did not take",
        "Look at the disk of the state directory";
    TAP_FAULTS: Gauge "tap_faults",
        "Connections and posts to a tap that ended for a fault of the other side",
        "Look at the MTA's log";
    TAP_REFUSED: Gauge "tap_refused",
        "Connections to taps that found no place, are not in `tap.allow_clients`, or showed no token",
        "Look at the log for who it was";
    TAP_UNDECLARED: Gauge "tap_undeclared_gateways",
        "Clients whose SPF results are not believed, because they look like gateways nobody named",
        "`status` names them: put yours into `tap.trusted_relays`";
}

/// Labels of a counter, in their order.
type Labels = Vec<(&'static str, &'static str)>;

/// All counters.
pub struct Meter {
    registry: Registry,
    counters: BTreeMap<&'static str, Family<Labels, Counter>>,
    message_seconds: Histogram,
}

/// The value of a gauge now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Which, from `METRICS`.
    pub name: &'static str,
    /// Its labels; few, and of our own making.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: i64,
}

impl Reading {
    /// A gauge without labels.
    pub fn new(name: &'static str, value: impl TryInto<i64>) -> Reading {
        Reading { name, labels: Vec::new(), value: value.try_into().unwrap_or(i64::MAX) }
    }
}

impl Default for Meter {
    fn default() -> Meter {
        let mut registry = Registry::with_prefix("replyguard");
        let mut counters = BTreeMap::new();
        for metric in METRICS.iter().filter(|metric| metric.kind == Kind::Counter) {
            let family = Family::<Labels, Counter>::default();
            registry.register(metric.name, metric.help, family.clone());
            counters.insert(metric.name, family);
        }
        let message_seconds = Histogram::new(exponential_buckets(0.001, 4.0, 9));
        let help = help(MESSAGE_SECONDS);
        let seconds = message_seconds.clone();
        registry.register_with_unit(MESSAGE_SECONDS, help, Unit::Seconds, seconds);
        Meter { registry, counters, message_seconds }
    }
}

impl Meter {
    /// One more of these. The words come from closed lists.
    pub fn count(&self, name: &'static str, labels: &[(&'static str, &'static str)]) {
        if let Some(family) = self.counters.get(name) {
            family.get_or_create(&labels.to_vec()).inc();
        }
    }

    /// One message took this long, in seconds.
    pub fn took(&self, seconds: f64) {
        self.message_seconds.observe(seconds);
    }

    /// How often something was counted.
    pub fn counted(&self, name: &'static str, labels: &[(&'static str, &'static str)]) -> u64 {
        let family = self.counters.get(name);
        family.map_or(0, |family| family.get_or_create(&labels.to_vec()).get())
    }

    /// The OpenMetrics text of all counters and of these gauges.
    pub fn text(&self, gauges: &[Reading]) -> Result<String, fmt::Error> {
        let mut now = Registry::with_prefix("replyguard");
        let mut labelled = BTreeMap::<&str, Family<_, Gauge>>::new();
        for reading in gauges {
            if reading.labels.is_empty() {
                let gauge = ConstGauge::new(reading.value);
                now.register(reading.name, help(reading.name), gauge);
                continue;
            }
            let family = labelled.entry(reading.name).or_default();
            family.get_or_create(&reading.labels).set(reading.value);
        }
        for (name, family) in labelled {
            now.register(name, help(name), family);
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        text.truncate(text.trim_end_matches("# EOF\n").len());
        encode(&mut text, &now)?;
        Ok(text)
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meter(…)")
    }
}

fn help(name: &str) -> &'static str {
    METRICS.iter().find(|metric| metric.name == name).map_or("", |metric| metric.help)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_text_has_counters_and_gauges_and_ends_once() {
        let meter = Meter::default();
        let labels = [("class", "dsn"), ("action", "quarantine"), ("reason", "spf-fail")];
        meter.count(DECISIONS, &labels);
        meter.count(DECISIONS, &labels);
        meter.took(0.002);
        let up = Reading { labels: vec![("hop", "[::1]:25".into())], ..Reading::new(HOP_UP, 1) };
        let text = meter.text(&[up, Reading::new(HELD_BYTES, 4096_u64)]).unwrap();
        let wanted = [
            r#"replyguard_decisions_total{class="dsn",action="quarantine",reason="spf-fail"} 2"#,
            r#"replyguard_next_hop_up{hop="[::1]:25"} 1"#,
            "replyguard_quarantine_bytes 4096",
            r#"replyguard_message_seconds_bucket{le="0.004"} 1"#,
        ];
        for line in wanted {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert_eq!(text.matches("# EOF").count(), 1);
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn names_are_said_once() {
        let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
    }
}
