//! `status`: how the running daemon is; exit 69 when it is away, 1 when something needs somebody.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::cmd::ConfigFile;
use crate::cmd::exit::Exit;
use crate::cmd::paint::{Paint, Tone};
use crate::serve::admin::Status;

/// Bytes of an answer: a status has some thousand.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How long the daemon may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// Asks the daemon and prints what it says.
pub fn status(file: &ConfigFile, json: bool) -> Exit {
    let config = match file.load() {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answer = match runtime {
        Ok(runtime) => runtime.block_on(ask(&config.admin.socket)),
        Err(fault) => Err(fault.to_string()),
    };
    match answer {
        Ok(answer) => print(&answer, json),
        Err(fault) => {
            let socket: &PathBuf = &config.admin.socket;
            eprintln!("no daemon answers at {}: {fault}", socket.display());
            Exit::Away
        }
    }
}

async fn ask(socket: &Path) -> Result<Vec<u8>, String> {
    let asked = async {
        let stream = UnixStream::connect(socket).await.map_err(|fault| fault.to_string())?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|fault| fault.to_string())?;
        let talking = tokio::spawn(connection);
        let request = Request::get("/status").header("host", "replyguard");
        let request = request.body(Empty::<Bytes>::new()).map_err(|fault| fault.to_string())?;
        let response = sender.send_request(request).await.map_err(|fault| fault.to_string())?;
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        talking.abort();
        Ok(body.map_err(|fault| fault.to_string())?.to_bytes().to_vec())
    };
    timeout(ANSWER_DEADLINE, asked).await.map_err(|_| "no answer in time".to_owned())?
}

fn print(answer: &[u8], json: bool) -> Exit {
    let status: Status = match serde_json::from_slice(answer) {
        Ok(status) => status,
        Err(fault) => {
            eprintln!("the daemon answers something else (another version?): {fault}");
            return Exit::Away;
        }
    };
    match json {
        true => println!("{}", String::from_utf8_lossy(answer)),
        false => print!("{}", told(&status, Paint::stdout())),
    }
    if status.troubles.is_empty() { Exit::Done } else { Exit::No }
}

fn told(status: &Status, paint: Paint) -> String {
    let mut lines = vec![paint.paint(
        Tone::Strong,
        &format!(
            "replyguard {} on {}, {} since {}",
            status.version, status.instance, status.mode, status.started
        ),
    )];
    for listener in &status.listeners {
        lines.push(format!("  {:<11} {}", listener.role, listener.endpoint));
    }
    for hop in &status.next_hops {
        let state = match hop.up {
            Some(true) => paint.paint(Tone::Good, "up"),
            Some(false) => paint.paint(Tone::Held, "does not answer"),
            None => paint.paint(Tone::Faint, "not tried yet"),
        };
        let tls = match hop.channel.as_deref() {
            Some("encrypted") => ", TLS with whoever answers",
            Some("verified") => ", TLS with a certificate that is trusted",
            _ => "",
        };
        lines.push(format!("  {:<11} {} {state}{tls}", "next hop", hop.name));
    }
    let (clients, hops) = (status.clients, status.next_hop_sessions);
    lines.push(format!(
        "  {:<11} {} of {} clients, {} of {} with next hops",
        "sessions", clients.now, clients.max, hops.now, hops.max
    ));
    let state = match &status.audit.trouble {
        None => paint.paint(Tone::Good, "written"),
        Some(trouble) => paint.paint(Tone::Held, trouble),
    };
    lines.push(format!("  {:<11} {} {state}", "audit log", status.audit.path));
    let held = status.quarantine;
    lines.push(format!(
        "  {:<11} {} messages, {} further copies, {:.1} MiB",
        "quarantine",
        held.messages,
        held.copies,
        mebibytes(held.bytes)
    ));
    lines.extend(told_of_taps(status, paint));
    let outcomes = status.outcomes.iter().filter(|outcome| outcome.recipients > 0);
    let outcomes: Vec<String> =
        outcomes.map(|outcome| format!("{} {}", outcome.recipients, outcome.outcome)).collect();
    let outcomes = match outcomes.is_empty() {
        true => "nothing yet".to_owned(),
        false => outcomes.join(", "),
    };
    lines.push(format!("  {:<11} {outcomes}", "recipients"));
    lines.push(format!("  {:<11} {}", "sandbox", status.sandbox));
    lines.extend(status.notices.iter().map(|notice| format!("* {notice}")));
    for trouble in &status.troubles {
        lines.push(paint.paint(Tone::Held, &format!("! {trouble}")));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// The taps, the store, and whether it is of use.
fn told_of_taps(status: &Status, paint: Paint) -> Vec<String> {
    let mut lines = Vec::new();
    for tap in &status.taps {
        let lag = tap.lag_ms.map_or(String::new(), |lag| format!(", verified after {lag} ms"));
        lines.push(format!(
            "  {:<11} {} messages, {} a minute{lag}; {} late, {} not verified, {} not remembered, \
             {} faults",
            format!("{} tap", tap.tap),
            tap.seen,
            tap.per_minute,
            tap.late,
            tap.overloaded,
            tap.store_failed,
            tap.faults
        ));
    }
    let Some(subjects) = status.subjects else { return lines };
    let state = match &status.store.trouble {
        None => paint.paint(Tone::Good, "works"),
        Some(trouble) => paint.paint(Tone::Held, trouble),
    };
    lines.push(format!(
        "  {:<11} {}, {} records, {:.1} MiB {state}",
        "store",
        status.store.backend,
        status.store.records,
        mebibytes(status.store.bytes)
    ));
    let share = (subjects.found * 100).checked_div(subjects.judged);
    lines.push(match share {
        Some(share) => format!(
            "  {:<11} {} of {} found what they answer ({share} %)",
            "responses", subjects.found, subjects.judged
        ),
        None => format!("  {:<11} none yet", "responses"),
    });
    lines
}

/// For showing: the tenth that is lost to rounding does not matter.
fn mebibytes(bytes: u64) -> f64 {
    let tenths = bytes.saturating_mul(10) / (1 << 20);
    f64::from(u32::try_from(tenths).unwrap_or(u32::MAX)) / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::admin::{
        AuditStatus, InUse, Listening, NextHopStatus, Outcomes, QuarantineStatus, StoreStatus,
        SubjectsStatus, TapStatus,
    };

    const AT_A_GLANCE: &str = "\
replyguard 0.1.0 on guard.example, observe since 2026-11-21T12:00:00.000Z
  outbound    127.0.0.1:10025
  next hop    a:25 up
  next hop    b:25 does not answer
  next hop    c:25 not tried yet
  sessions    3 of 10000 clients, 1 of 40 with next hops
  audit log   /a.jsonl written
  quarantine  2 messages, 998 further copies, 1.5 MiB
  milter tap  12 messages, 3 a minute, verified after 41 ms; 1 late, 0 not verified, 0 not remembered, 0 faults
  store       embedded, 12 records, 1.0 MiB works
  responses   2 of 3 found what they answer (66 %)
  recipients  7 relayed, 1000 held
  sandbox     files and system calls
* 192.0.2.7 looks like a gateway
! next hop b:25 does not answer
";

    #[test]
    fn a_person_reads_it_at_a_glance() {
        let status = Status {
            version: "0.1.0".into(),
            instance: "guard.example".into(),
            mode: "observe".into(),
            policy: "p".into(),
            started: "2026-11-21T12:00:00.000Z".into(),
            now: "2026-11-21T12:00:01.000Z".into(),
            troubles: vec!["next hop b:25 does not answer".into()],
            listeners: vec![Listening {
                endpoint: "127.0.0.1:10025".into(),
                role: "outbound".into(),
            }],
            clients: InUse { now: 3, max: 10_000 },
            next_hop_sessions: InUse { now: 1, max: 40 },
            next_hops: [("a:25", Some(true)), ("b:25", Some(false)), ("c:25", None)]
                .map(|(name, up)| NextHopStatus { name: name.into(), up, channel: None })
                .to_vec(),
            audit: AuditStatus {
                path: "/a.jsonl".into(),
                trouble: None,
                waiting_bytes: 0,
                lost: 0,
            },
            quarantine: QuarantineStatus { messages: 2, copies: 998, bytes: 1_600_000, dropped: 0 },
            sandbox: "files and system calls".into(),
            notices: vec!["192.0.2.7 looks like a gateway".into()],
            taps: vec![TapStatus {
                tap: "milter".into(),
                seen: 12,
                per_minute: 3,
                lag_ms: Some(41),
                late: 1,
                overloaded: 0,
                store_failed: 0,
                faults: 0,
            }],
            taps_refused: 0,
            subjects: Some(SubjectsStatus { judged: 3, found: 2 }),
            store: StoreStatus {
                backend: "embedded".into(),
                records: 12,
                bytes: 1 << 20,
                lost: 0,
                trouble: None,
            },
            outcomes: vec![
                Outcomes { outcome: "relayed".into(), recipients: 7 },
                Outcomes { outcome: "held".into(), recipients: 1000 },
                Outcomes { outcome: "deferred".into(), recipients: 0 },
            ],
        };
        assert_eq!(told(&status, Paint::plain()), AT_A_GLANCE);
        assert_eq!(print(&serde_json::to_vec(&status).unwrap(), true), Exit::No);
    }
}
