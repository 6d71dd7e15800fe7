//! The administration's pages of a running daemon, and the reference page of the metrics.

use std::fs;
use std::path::{Path, PathBuf};

use replyguard::config::{Config, World};
use replyguard::mail::time::Timestamp;
use replyguard::meter::{Kind, METRICS};
use replyguard::serve::Server;
use replyguard::serve::admin::Status;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

fn config(folder: &Path, console: &str) -> Config {
    let text = format!(
        "[outbound]\nlisten = [\"127.0.0.1:0\"]\nnext_hop = [\"127.0.0.1:1\"]\n\
         [admin]\nconsole = \"{console}\"\n"
    );
    let world = World {
        hostname: "guard.example".to_owned(),
        state_dir: folder.to_owned(),
        now: Timestamp::parse_rfc3339("2026-11-21T12:00:00Z").unwrap(),
    };
    Config::read("test", &text, folder, &world).unwrap()
}

/// The answer to a GET: its head and its body.
async fn get(socket: &Path, page: &str) -> (String, String) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let request = format!("GET {page} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// Goal: a monitor and `replyguard status` find a daemon that says how it is.
#[tokio::test]
async fn a_daemon_says_how_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    // What a dead process left behind is taken over.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let server = Server::start(&config(folder.path(), "")).await.unwrap();
    let stopper = server.stopper();
    let running = tokio::spawn(server.run());

    let (head, body) = get(&socket, "/status").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let status: Status = serde_json::from_str(&body).unwrap();
    assert_eq!((status.mode.as_str(), status.instance.as_str()), ("observe", "guard.example"));
    assert_eq!(status.listeners[0].role, "outbound");
    assert_eq!(status.next_hops[0].name, "127.0.0.1:1");
    assert_eq!(status.troubles, [""; 0]);
    let (head, body) = get(&socket, "/metrics").await;
    assert!(head.contains("application/openmetrics-text"), "{head}");
    assert!(body.contains("\nreplyguard_audit_up 1\n"), "{body}");
    assert!(body.contains("mode=\"observe\""), "{body}");
    assert!(get(&socket, "/healthz").await.1 == "ok\n");
    assert!(get(&socket, "/etc/passwd").await.0.starts_with("HTTP/1.1 404"));

    stopper.drain();
    running.await.unwrap();
}

/// Goal: mail does not wait for the console.
#[tokio::test]
async fn a_taken_port_of_the_console_stops_nothing() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let console = taken.local_addr().unwrap().to_string();
    let server = Server::start(&config(folder.path(), &console)).await.unwrap();
    assert_eq!(server.endpoints().len(), 1);
}

/// Goal: every metric stands in the documentation with what to do.
/// Method: the page is made from the table; `UPDATE=1 cargo test --test it admin` rewrites it.
#[test]
fn the_reference_names_every_metric() {
    let mut page = String::from(
        "# Metrics\n\nServed as OpenMetrics at `/metrics` of `admin.console` and of `admin.socket`. \
         Counters begin at 0\nwith the process. No label holds an address or anything else that \
         strangers choose.\n\n| metric | what it is | when it moves |\n|---|---|---|\n",
    );
    for metric in METRICS {
        let end = match metric.kind {
            Kind::Counter => "_total",
            Kind::Gauge => "",
            Kind::Seconds => "_seconds",
        };
        let name = metric.name;
        page += &format!("| `replyguard_{name}{end}` | {} | {} |\n", metric.help, metric.remedy);
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/reference/metrics.md");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, page, "UPDATE=1 cargo test --test it admin");
}
