//! Extra sinks: records sent to syslog or the journal as well, each as it is written.
//!
//! A sink never holds up mail: its queue is bounded, and what does not fit is dropped and counted.
//! Bounds: `limits::SINK_QUEUE_MAX`, `limits::SINK_TIMEOUT`, `limits::SINK_PAUSE_MAX`.
//! Standards: RFC 5424 (message), RFC 5426 (UDP), RFC 6587 §3.4.1 (octet counting over TCP); the
//! journal's native protocol: a datagram of `FIELD=value` lines.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket, UnixDatagram};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::audit::ledger::SinkHealth;
use crate::audit::record::Record;
use crate::mail::limits::{SINK_PAUSE_MAX, SINK_QUEUE_MAX, SINK_TIMEOUT};

/// Where systemd's journal listens.
pub const JOURNAL: &str = "/run/systemd/journal/socket";

/// What the system calls a message too long for one datagram.
const TOO_LONG: i32 = 90;

/// Where records go beside the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkSettings {
    /// Syslog, in the form of RFC 5424.
    Syslog {
        /// Where it listens.
        to: SyslogTo,
        /// HOSTNAME of the messages: this system's name.
        hostname: String,
        /// Facility of the messages, 0 to 23 (RFC 5424 §6.2.1); 2 is mail.
        facility: u8,
    },
    /// The journal's native protocol, to this socket (`JOURNAL`).
    Journal(PathBuf),
}

/// Where a syslog server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogTo {
    /// A datagram socket of this host: `/dev/log`.
    Unix(PathBuf),
    /// `host:port`, a datagram for each record; long records may not arrive (RFC 5426 §3.2).
    Udp(String),
    /// `host:port`, octet counting.
    Tcp(String),
}

impl SinkSettings {
    /// Where it leads, for people.
    pub fn name(&self) -> String {
        match self {
            SinkSettings::Syslog { to: SyslogTo::Unix(path), .. } => {
                format!("syslog unix:{}", path.display())
            }
            SinkSettings::Syslog { to: SyslogTo::Udp(host), .. } => format!("syslog udp:{host}"),
            SinkSettings::Syslog { to: SyslogTo::Tcp(host), .. } => format!("syslog tcp:{host}"),
            SinkSettings::Journal(path) => format!("journal unix:{}", path.display()),
        }
    }

    /// A record in the form of this sink.
    fn message(&self, record: &Record, line: &str) -> Vec<u8> {
        match self {
            SinkSettings::Syslog { to, hostname, facility } => {
                let message = syslog(*facility, hostname, record, line);
                match to {
                    SyslogTo::Tcp(_) => format!("{} {message}", message.len()).into_bytes(),
                    SyslogTo::Unix(_) | SyslogTo::Udp(_) => message.into_bytes(),
                }
            }
            SinkSettings::Journal(_) => journal(record, line),
        }
    }
}

/// One sink: a queue, and a task that empties it.
#[derive(Debug)]
pub struct Sink {
    settings: SinkSettings,
    queue: Sender<Vec<u8>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    dropped: AtomicU64,
}

impl Sink {
    /// Starts the sink's task. Must be called inside a tokio runtime; ends with the `Sink`.
    pub fn start(settings: SinkSettings) -> Sink {
        let (queue, waiting) = channel(SINK_QUEUE_MAX);
        let counts = Arc::new(Counts::default());
        tokio::spawn(empty(settings.clone(), waiting, Arc::clone(&counts)));
        Sink { settings, queue, counts }
    }

    /// Queues a record, or drops and counts it when the queue is full. Never waits.
    pub fn offer(&self, record: &Record, line: &str) {
        if self.queue.try_send(self.settings.message(record, line)).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What it sent and dropped.
    pub fn health(&self) -> SinkHealth {
        SinkHealth {
            name: self.settings.name(),
            sent: self.counts.sent.load(Ordering::Relaxed),
            dropped: self.counts.dropped.load(Ordering::Relaxed),
        }
    }
}

/// `<PRI>1 TIME HOST APP PROCID MSGID - {…}`. Why no BOM before the text, which RFC 5424 §6.4 asks
/// for when it is UTF-8: readers of JSON choke on it, and MSG-ANY is allowed too.
fn syslog(facility: u8, hostname: &str, record: &Record, line: &str) -> String {
    const INFORMATIONAL: u8 = 6;
    let priority = facility.min(23).saturating_mul(8).saturating_add(INFORMATIONAL);
    let named =
        (1..=255).contains(&hostname.len()) && hostname.bytes().all(|byte| byte.is_ascii_graphic());
    let hostname = if named { hostname } else { "-" };
    let process = std::process::id();
    format!("<{priority}>1 {} {hostname} replyguard {process} audit - {line}", record.time)
}

fn journal(record: &Record, line: &str) -> Vec<u8> {
    let text = format!("{} {} to {}: {}", record.action, record.class, record.rcpt, record.text);
    let mut message = Vec::new();
    for (name, value) in [
        ("MESSAGE", text.as_str()),
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "replyguard"),
        ("REPLYGUARD_EVENT", &record.event),
        ("REPLYGUARD_REASON", &record.reason),
        ("REPLYGUARD_RECORD", line),
    ] {
        message.extend_from_slice(name.as_bytes());
        // A value with a line end is written behind its length; else it could add fields.
        if value.contains('\n') {
            let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
            message.push(b'\n');
            message.extend_from_slice(&length.to_le_bytes());
        } else {
            message.push(b'=');
        }
        message.extend_from_slice(value.as_bytes());
        message.push(b'\n');
    }
    message
}

/// Sends what is queued, in order; tries again with growing pauses while the sink is away.
async fn empty(settings: SinkSettings, mut waiting: Receiver<Vec<u8>>, counts: Arc<Counts>) {
    const FIRST_PAUSE: Duration = Duration::from_millis(200);
    let mut socket = None;
    let mut pause = FIRST_PAUSE;
    while let Some(message) = waiting.recv().await {
        loop {
            let sent = tokio::time::timeout(SINK_TIMEOUT, send(&settings, &mut socket, &message));
            let fault = match sent.await {
                Ok(Ok(())) => {
                    counts.sent.fetch_add(1, Ordering::Relaxed);
                    pause = FIRST_PAUSE;
                    break;
                }
                Ok(Err(fault)) if fault.raw_os_error() == Some(TOO_LONG) => {
                    counts.dropped.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                Ok(Err(fault)) => fault,
                Err(_) => io::ErrorKind::TimedOut.into(),
            };
            if pause == FIRST_PAUSE {
                let name = settings.name();
                tracing::warn!(name, %fault, "a sink for audit records cannot be reached");
            }
            socket = None;
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(SINK_PAUSE_MAX);
        }
    }
}

enum Socket {
    Unix(UnixDatagram),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

async fn send(
    settings: &SinkSettings,
    socket: &mut Option<Socket>,
    message: &[u8],
) -> io::Result<()> {
    let open = match socket {
        Some(open) => open,
        None => socket.insert(connect(settings).await?),
    };
    match open {
        Socket::Unix(unix) => unix.send(message).await.map(drop),
        Socket::Udp(udp) => udp.send(message).await.map(drop),
        Socket::Tcp(tcp) => tcp.write_all(message).await,
    }
}

async fn connect(settings: &SinkSettings) -> io::Result<Socket> {
    match settings {
        SinkSettings::Syslog { to: SyslogTo::Unix(path), .. } | SinkSettings::Journal(path) => {
            unix(path)
        }
        SinkSettings::Syslog { to: SyslogTo::Udp(host), .. } => udp(host).await,
        SinkSettings::Syslog { to: SyslogTo::Tcp(host), .. } => {
            TcpStream::connect(host).await.map(Socket::Tcp)
        }
    }
}

fn unix(path: &Path) -> io::Result<Socket> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(Socket::Unix(socket))
}

async fn udp(host: &str) -> io::Result<Socket> {
    let mut fault = io::ErrorKind::NotFound.into();
    for address in tokio::net::lookup_host(host).await? {
        let any: IpAddr = match address.is_ipv4() {
            true => Ipv4Addr::UNSPECIFIED.into(),
            false => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        match socket.connect(address).await {
            Ok(()) => return Ok(Socket::Udp(socket)),
            Err(error) => fault = error,
        }
    }
    Err(fault)
}
