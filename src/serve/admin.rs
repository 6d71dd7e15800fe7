//! How the daemon is: for `replyguard status`, for monitoring, for people.
//!
//! `GET /status` is a `Status` as JSON, `GET /metrics` OpenMetrics, `GET /healthz` 200 or 503 with
//! a line for each trouble. All on `admin.socket`, which its permissions guard, and on
//! `admin.console`. Nothing of a message or a mail address stands in any of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::audit::words::MATCHED_BY;
use crate::guard::Guard;
use crate::guard::loops::LoopHealth;
use crate::guard::tap::Tap;
use crate::judge::policy::Mode;
use crate::judge::subject::TapKind;
use crate::mail::limits_of_tls::CERTIFICATE_ENDS_SOON;
use crate::mail::time::Timestamp;
use crate::meter::{
    AUDIT_LOST, AUDIT_UP, AUDIT_WAITING, CLIENT_SESSIONS, HELD_BYTES, HELD_COPIES, HELD_DROPPED,
    HELD_MESSAGES, HOP_AUTH_FAILED, HOP_SESSIONS, HOP_TLS_FAILED, HOP_UP, INFO, LOOP_ENTRIES,
    LOOP_EVICTED, LOOP_KEPT, LOOP_REFUSED, OUTCOMES, Reading, STARTED, STORE_BYTES, STORE_LOST,
    STORE_RECORDS, STORE_UP, SUBJECTS, TALK_ENTRIES, TALK_EVICTED, TALK_REFUSED, TAP_FAULTS,
    TAP_LAG, TAP_LATE, TAP_OVERLOADED, TAP_RATE, TAP_REFUSED, TAP_SEEN, TAP_STORE_FAILED,
    TAP_UNDECLARED, TLS_ENDS, TLS_FAILED, TLS_INJECTED, TLS_MADE,
};
use crate::relay::{Failed, HopHealth, RelayHealth};
use crate::serve::door::Door;
use crate::serve::sandbox::InForce;
use crate::serve::tls::Handshakes;
use crate::store::Health as StoreHealth;
use crate::store::relays::UNDECLARED;
use crate::tls::server::Acceptor;

/// The role of a tap's listener.
pub const TAP_ROLE: &str = "tap";

/// What the pages are made from.
pub struct Admin {
    /// The guard.
    pub guard: Arc<Guard>,
    /// The door that clients come in by.
    pub door: Arc<Door>,
    /// Where it listens, and what for.
    pub listeners: Vec<Listening>,
    /// The inbound path.
    pub tap: Arc<Tap>,
    /// The taps that listen.
    pub taps: Vec<TapKind>,
    /// What shows clients our certificate.
    pub acceptor: Option<Arc<Acceptor>>,
    /// What came of handshakes, for each role of listeners.
    pub handshakes: Vec<(&'static str, Arc<Handshakes>)>,
    /// When it started.
    pub started: Timestamp,
    /// What the process has given up; unset: nothing.
    pub sandbox: OnceLock<InForce>,
}

/// How the daemon is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Of this program.
    pub version: String,
    /// Its `hostname`.
    pub instance: String,
    /// `observe` or `enforce`.
    pub mode: String,
    /// The hash of the policy in force, as it stands in the records.
    pub policy: String,
    /// RFC 3339, UTC.
    pub started: String,
    /// RFC 3339, UTC.
    pub now: String,
    /// What needs somebody; empty when all is well. Plain sentences.
    pub troubles: Vec<String>,
    /// Where it listens.
    pub listeners: Vec<Listening>,
    /// Sessions of clients now.
    pub clients: InUse,
    /// Sessions with next hops now.
    pub next_hop_sessions: InUse,
    /// The next hops, in their order.
    pub next_hops: Vec<NextHopStatus>,
    /// The audit log.
    pub audit: AuditStatus,
    /// The quarantine.
    pub quarantine: QuarantineStatus,
    /// What the process has given up: `files and system calls`, a part of it and why not all, or
    /// `none` and why.
    pub sandbox: String,
    /// What somebody should look at some day; nothing fails. Plain sentences.
    pub notices: Vec<String>,
    /// The taps that listen.
    pub taps: Vec<TapStatus>,
    /// Connections to them that found no place, or were not allowed.
    pub taps_refused: u64,
    /// Whether responses find what they answer; null without a tap.
    pub subjects: Option<SubjectsStatus>,
    /// The memory of what came in.
    pub store: StoreStatus,
    /// Recipients since the start, by what came of the message.
    pub outcomes: Vec<Outcomes>,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// Where, as in the settings.
    pub endpoint: String,
    /// What for: `outbound`, `console`…
    pub role: String,
}

/// Places in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InUse {
    /// Now.
    pub now: usize,
    /// At most.
    pub max: usize,
}

/// A next hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHopStatus {
    /// As in the settings.
    pub name: String,
    /// Whether it answered when last tried; null before the first try.
    pub up: Option<bool>,
    /// `clear`, `encrypted`, or `verified` where its certificate was looked at; null before the
    /// first session.
    pub channel: Option<String>,
}

/// The audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditStatus {
    /// The file.
    pub path: String,
    /// Why it cannot be written; null while it can.
    pub trouble: Option<String>,
    /// Bytes of records that wait in memory.
    pub waiting_bytes: usize,
    /// Records lost since the start.
    pub lost: u64,
}

/// The quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineStatus {
    /// Held messages.
    pub messages: usize,
    /// Further copies of campaigns.
    pub copies: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Messages dropped since the start because it was full.
    pub dropped: u64,
}

/// What a tap did since the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapStatus {
    /// `milter`, `smtp`, `http`.
    pub tap: String,
    /// Inbound messages seen.
    pub seen: u64,
    /// Those of the last minute.
    pub per_minute: u64,
    /// Milliseconds from the end of a message to its results, lately; null before the first.
    pub lag_ms: Option<u64>,
    /// Those answered before their verification ended.
    pub late: u64,
    /// Those not verified, because too many were.
    pub overloaded: u64,
    /// Records that the store did not take.
    pub store_failed: u64,
    /// Connections and posts that ended for a fault of the other side.
    pub faults: u64,
}

/// Judged recipients of responses since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectsStatus {
    /// All.
    pub judged: u64,
    /// Those for whom the message that is answered was found in the store.
    pub found: u64,
}

/// The memory of what came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// `memory`, `embedded`, `null`.
    pub backend: String,
    /// Records held, as far as it knows.
    pub records: u64,
    /// Bytes of memory or disk.
    pub bytes: u64,
    /// Records refused or lost since the start.
    pub lost: u64,
    /// What is wrong now; null when nothing is.
    pub trouble: Option<String>,
}

/// How often something came of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// `relayed`, `held`…
    pub outcome: String,
    /// Recipients.
    pub recipients: u64,
}

/// What can come of a message, as `guard/count.rs` names it.
const OUTCOME_WORDS: [&str; 6] =
    ["relayed", "held", "discarded", "deferred", "refused", "unanswered"];

/// The pages.
pub fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .with_state(admin)
}

async fn status(State(admin): State<Arc<Admin>>) -> Json<Status> {
    Json(admin.status())
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match admin.guard.meter().text(&admin.readings()) {
        Ok(text) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn health(State(admin): State<Arc<Admin>>) -> Response {
    let troubles = admin.status().troubles;
    match troubles.is_empty() {
        true => "ok\n".into_response(),
        false => {
            let lines: String = troubles.iter().map(|trouble| format!("{trouble}\n")).collect();
            (StatusCode::SERVICE_UNAVAILABLE, lines).into_response()
        }
    }
}

impl Admin {
    /// How the daemon is now.
    pub fn status(&self) -> Status {
        self.status_with(&self.guard.relay().health(), &self.guard.inquiry().store.health())
    }

    fn status_with(&self, relay: &RelayHealth, store: &StoreHealth) -> Status {
        let in_force = self.guard.inquiry().in_force();
        let trail = self.guard.trail().health();
        let quarantine = self.guard.quarantine().health();
        let outcomes = OUTCOME_WORDS.iter().map(|word| Outcomes {
            outcome: (*word).to_owned(),
            recipients: self.guard.meter().counted(OUTCOMES, &[("outcome", word)]),
        });
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.guard.hostname().to_owned(),
            mode: match in_force.policy.mode {
                Mode::Observe => "observe".to_owned(),
                Mode::Enforce => "enforce".to_owned(),
            },
            policy: in_force.hash.clone(),
            started: self.started.to_string(),
            now: self.guard.now().to_string(),
            troubles: Vec::new(),
            listeners: self.listeners.clone(),
            clients: InUse { now: self.door.taken(), max: self.door.places_max() },
            next_hop_sessions: InUse { now: relay.sessions, max: relay.sessions_max },
            next_hops: relay.hops.iter().map(next_hop).collect(),
            audit: AuditStatus {
                path: self.guard.trail().path().display().to_string(),
                trouble: trail.trouble.map(|trouble| trouble.to_string()),
                waiting_bytes: trail.waiting_bytes,
                lost: trail.lost,
            },
            quarantine: QuarantineStatus {
                messages: quarantine.messages,
                copies: quarantine.copies,
                bytes: quarantine.bytes,
                dropped: quarantine.dropped,
            },
            sandbox: self.sandbox().to_string(),
            notices: self.notices(store),
            taps: self.taps.iter().map(|tap| self.tap(*tap)).collect(),
            taps_refused: self.tap.counts().refused.load(Ordering::Relaxed),
            subjects: (!self.taps.is_empty()).then(|| self.subjects()),
            store: StoreStatus {
                backend: store.backend.to_owned(),
                records: store.records,
                bytes: store.bytes,
                lost: store.lost,
                trouble: store.trouble.clone(),
            },
            outcomes: outcomes.collect(),
        };
        let ended = self.certificate_ends().filter(|until| *until < self.guard.now());
        status.troubles = troubles(&status, ended);
        status
    }

    fn certificate_ends(&self) -> Option<Timestamp> {
        self.acceptor.as_ref()?.validity().until
    }

    /// Handshakes with clients and with next hops.
    fn tls(&self, Failed { tls, auth }: Failed) -> Vec<Reading> {
        let mut readings =
            vec![Reading::new(HOP_TLS_FAILED, tls), Reading::new(HOP_AUTH_FAILED, auth)];
        let ends = self.certificate_ends();
        readings.extend(ends.map(|until| Reading::new(TLS_ENDS, until.as_millis() / 1000)));
        for (role, handshakes) in &self.handshakes {
            for (name, count) in [
                (TLS_MADE, &handshakes.made),
                (TLS_FAILED, &handshakes.failed),
                (TLS_INJECTED, &handshakes.injected),
            ] {
                let labels = vec![("role", (*role).to_owned())];
                let count = count.load(Ordering::Relaxed);
                readings.push(Reading { labels, ..Reading::new(name, count) });
            }
        }
        readings
    }

    fn tap(&self, tap: TapKind) -> TapStatus {
        let counts = self.tap.counts().of(tap);
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let lag = counts.lag().map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX));
        TapStatus {
            tap: tap.as_str().to_owned(),
            seen: counts.seen(),
            per_minute: counts.per_minute(self.tap.now()),
            lag_ms: lag,
            late: count(&counts.late),
            overloaded: count(&counts.overloaded),
            store_failed: count(&counts.store_failed),
            faults: count(&counts.faults),
        }
    }

    fn subjects(&self) -> SubjectsStatus {
        let count = |word| self.guard.meter().counted(SUBJECTS, &[("found", word)]);
        let found = MATCHED_BY.words().map(count).sum();
        SubjectsStatus { judged: found + count("stranger") + count("none"), found }
    }

    fn notices(&self, store: &StoreHealth) -> Vec<String> {
        let undeclared = store.undeclared.iter().map(|ip| format!("{ip} {UNDECLARED}"));
        let now = self.guard.now();
        let ending = self.certificate_ends();
        let ending =
            ending.filter(|until| *until >= now && *until < now.plus(CERTIFICATE_ENDS_SOON));
        let ending = ending.map(|until| {
            format!(
                "the certificate that clients are shown ends at {until}: renew it and send SIGHUP"
            )
        });
        self.sandbox().notice().into_iter().chain(ending).chain(undeclared).collect()
    }

    fn sandbox(&self) -> InForce {
        self.sandbox.get().cloned().unwrap_or_else(|| InForce::nothing("not entered"))
    }

    fn readings(&self) -> Vec<Reading> {
        let (relay, store) = (self.guard.relay().health(), self.guard.inquiry().store.health());
        let status = self.status_with(&relay, &store);
        let LoopHealth { sightings: loops, talks } = self.guard.inquiry().loops.health();
        let info = vec![("version", status.version), ("mode", status.mode)];
        let mut readings = vec![
            Reading { labels: info, ..Reading::new(INFO, 1) },
            Reading::new(STARTED, self.started.as_millis() / 1000),
            Reading::new(CLIENT_SESSIONS, status.clients.now),
            Reading::new(HOP_SESSIONS, status.next_hop_sessions.now),
            Reading::new(AUDIT_UP, i64::from(status.audit.trouble.is_none())),
            Reading::new(AUDIT_WAITING, status.audit.waiting_bytes),
            Reading::new(AUDIT_LOST, status.audit.lost),
            Reading::new(LOOP_ENTRIES, loops.entries),
            Reading::new(LOOP_KEPT, loops.kept),
            Reading::new(LOOP_EVICTED, loops.evicted),
            Reading::new(LOOP_REFUSED, loops.refused),
            Reading::new(TALK_ENTRIES, talks.entries),
            Reading::new(TALK_EVICTED, talks.evicted),
            Reading::new(TALK_REFUSED, talks.refused),
            Reading::new(HELD_MESSAGES, status.quarantine.messages),
            Reading::new(HELD_COPIES, status.quarantine.copies),
            Reading::new(HELD_BYTES, status.quarantine.bytes),
            Reading::new(HELD_DROPPED, status.quarantine.dropped),
            Reading::new(STORE_UP, i64::from(status.store.trouble.is_none())),
            Reading::new(STORE_RECORDS, status.store.records),
            Reading::new(STORE_BYTES, status.store.bytes),
            Reading::new(STORE_LOST, status.store.lost),
        ];
        if !status.taps.is_empty() {
            readings.push(Reading::new(TAP_REFUSED, status.taps_refused));
            readings.push(Reading::new(TAP_UNDECLARED, store.undeclared.len()));
        }
        readings.extend(self.tls(relay.failed));
        readings.extend(status.taps.into_iter().flat_map(readings_of));
        readings.extend(status.next_hops.into_iter().filter_map(|hop| {
            let up = Reading::new(HOP_UP, i64::from(hop.up?));
            Some(Reading { labels: vec![("hop", hop.name)], ..up })
        }));
        readings
    }
}

fn next_hop(hop: &HopHealth) -> NextHopStatus {
    let channel = hop.channel.map(|channel| channel.as_str().to_owned());
    NextHopStatus { name: hop.name.clone(), up: hop.up, channel }
}

fn readings_of(tap: TapStatus) -> impl Iterator<Item = Reading> {
    let values = [
        (TAP_SEEN, Some(tap.seen)),
        (TAP_RATE, Some(tap.per_minute)),
        (TAP_LAG, tap.lag_ms),
        (TAP_LATE, Some(tap.late)),
        (TAP_OVERLOADED, Some(tap.overloaded)),
        (TAP_STORE_FAILED, Some(tap.store_failed)),
        (TAP_FAULTS, Some(tap.faults)),
    ];
    values.into_iter().filter_map(move |(name, value)| {
        let labels = vec![("tap", tap.tap.clone())];
        Some(Reading { labels, ..Reading::new(name, value?) })
    })
}

/// What needs somebody, with the remedy. `ended`: when our certificate did.
fn troubles(status: &Status, ended: Option<Timestamp>) -> Vec<String> {
    let mut troubles = Vec::new();
    if let Some(trouble) = &status.audit.trouble {
        troubles.push(format!("the audit log cannot be written: {trouble}"));
    }
    if status.audit.lost > 0 {
        troubles.push(format!("{} records were lost since the start", status.audit.lost));
    }
    let down = |hop: &NextHopStatus| hop.up == Some(false);
    if status.next_hops.iter().all(down) {
        troubles.push("no next hop takes mail: it stays in the clients' queues".to_owned());
    } else {
        let down = status.next_hops.iter().filter(|hop| down(hop));
        troubles.extend(down.map(|hop| format!("next hop {} does not answer", hop.name)));
    }
    if let Some(trouble) = &status.store.trouble {
        troubles.push(format!("the store of inbound mail fails: {trouble}"));
    }
    if status.quarantine.dropped > 0 {
        let dropped = status.quarantine.dropped;
        troubles.push(format!("the quarantine was full: {dropped} held messages were dropped"));
    }
    if let Some(ended) = ended {
        troubles.push(format!("the certificate that clients are shown ended at {ended}: renew it"));
    }
    troubles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Status {
        Status {
            version: "1".into(),
            instance: "guard.example".into(),
            mode: "observe".into(),
            policy: "p".into(),
            started: "2026-11-21T12:00:00.000Z".into(),
            now: "2026-11-21T12:00:00.000Z".into(),
            troubles: Vec::new(),
            listeners: Vec::new(),
            clients: InUse { now: 0, max: 1 },
            next_hop_sessions: InUse { now: 0, max: 1 },
            next_hops: [("a", Some(true)), ("b", None)]
                .map(|(name, up)| NextHopStatus { name: name.into(), up, channel: None })
                .to_vec(),
            audit: AuditStatus { path: "/a".into(), trouble: None, waiting_bytes: 0, lost: 0 },
            quarantine: QuarantineStatus { messages: 0, copies: 0, bytes: 0, dropped: 0 },
            sandbox: "none: x".into(),
            notices: Vec::new(),
            taps: Vec::new(),
            taps_refused: 0,
            subjects: None,
            store: StoreStatus {
                backend: "null".into(),
                records: 0,
                bytes: 0,
                lost: 0,
                trouble: None,
            },
            outcomes: Vec::new(),
        }
    }

    #[test]
    fn a_trouble_is_a_sentence_and_a_healthy_daemon_has_none() {
        assert!(troubles(&well(), None).is_empty());
        let mut one_down = well();
        one_down.next_hops[1].up = Some(false);
        assert_eq!(troubles(&one_down, None), ["next hop b does not answer"]);
        one_down.next_hops[0].up = Some(false);
        assert_eq!(
            troubles(&one_down, None),
            ["no next hop takes mail: it stays in the clients' queues"]
        );
        let mut full = well();
        full.quarantine.dropped = 2;
        full.audit.lost = 1;
        full.audit.trouble = Some("disk full".into());
        full.store.trouble = Some("disk full".into());
        assert_eq!(troubles(&full, None).len(), 4);
        let ended = troubles(&well(), Some(Timestamp::from_millis(0)));
        let said =
            "the certificate that clients are shown ended at 1970-01-01T00:00:00.000Z: renew it";
        assert_eq!(ended, [said]);
    }
}
