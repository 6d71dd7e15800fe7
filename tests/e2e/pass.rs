//! A pass-through that stands in for the guard: bytes in, bytes out, and a count of sessions.
//!
//! It shows that a server's routing leads through the place where the guard will stand. In front
//! of the guard it shows what the guard was given, byte for byte.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::claim::Port;
use crate::sink::{bind, runtime};

/// What the client said, a session each.
type Seen = Arc<Mutex<Vec<Vec<u8>>>>;

pub struct Pass {
    port: Port,
    next_hop: SocketAddr,
    seen: Seen,
    listener: Option<JoinHandle<()>>,
}

impl Pass {
    /// Everything that comes goes to `next_hop`.
    pub fn to(next_hop: SocketAddr) -> Self {
        let mut pass =
            Self { port: Port::claim(), next_hop, seen: Seen::default(), listener: None };
        pass.resume();
        pass
    }

    /// Ends every connection wherever it stands, and closes the port.
    pub fn crash(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.abort();
            // Why: all is closed when this returns.
            let _ = runtime().block_on(listener);
        }
    }

    /// Listens, again on the same port.
    pub fn resume(&mut self) {
        let listener = bind(&self.port);
        let task = listen(listener, self.next_hop, Arc::clone(&self.seen));
        self.listener = Some(runtime().spawn(task));
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The messages that clients sent, dots unstuffed.
    pub fn messages(&self) -> Vec<Vec<u8>> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().flat_map(|session| messages(session)).collect()
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.crash();
    }
}

async fn listen(listener: TcpListener, next_hop: SocketAddr, seen: Seen) {
    let mut open = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        open.spawn(pass(client, next_hop, Arc::clone(&seen)));
        while open.try_join_next().is_some() {}
    }
}

async fn pass(client: TcpStream, next_hop: SocketAddr, seen: Seen) {
    let Ok(server) = TcpStream::connect(next_hop).await else { return };
    let session = {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push(Vec::new());
        seen.len() - 1
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let forth = async {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
            let bytes = &buffer[..length];
            seen.lock().unwrap_or_else(PoisonError::into_inner)[session].extend_from_slice(bytes);
            if to_server.write_all(bytes).await.is_err() {
                break;
            }
        }
        let _ = to_server.shutdown().await;
    };
    let back = async {
        let _ = copy(&mut from_server, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::join!(forth, back);
}

/// The messages in what an SMTP client said: between the command DATA and the lone dot.
fn messages(session: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    let mut lines = session.split_inclusive(|&byte| byte == b'\n');
    while let Some(line) = lines.next() {
        if !line.eq_ignore_ascii_case(b"DATA\r\n") {
            continue;
        }
        let mut message = Vec::new();
        let mut after_crlf = true;
        for line in lines.by_ref() {
            if after_crlf && line == b".\r\n" {
                messages.push(message);
                break;
            }
            let stuffed = after_crlf && line.starts_with(b".");
            message.extend_from_slice(&line[usize::from(stuffed)..]);
            after_crlf = line.ends_with(b"\r\n");
        }
    }
    messages
}

#[test]
fn messages_are_found_between_commands() {
    let session =
        b"EHLO x\r\nMAIL FROM:<>\r\nDATA\r\na\r\nDATA\r\n..b\n.\r\n\r\n.\r\nDATA\r\n.\r\nQUIT\r\n";
    assert_eq!(messages(session), [b"a\r\nDATA\r\n.b\n.\r\n\r\n".to_vec(), b"".to_vec()]);
}
