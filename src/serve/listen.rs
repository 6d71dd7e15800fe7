//! Listeners over TCP and unix sockets.

use std::fs::Permissions;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream, lookup_host};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::mail::limits::{ACCEPT_PAUSE, QUIT_DEADLINE};
use crate::mail::limits_of_clients::ACCEPT_QUEUE_MAX;
use crate::serve::complaint::Complaint;
use crate::serve::smtp::Stopping;
use crate::wire::endpoint::Endpoint;

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A bound listener.
pub struct Listener {
    endpoint: Endpoint,
    socket: Socket,
    failing: Complaint,
}

/// Somebody who connected.
pub enum Peer {
    /// Over TCP.
    Tcp(TcpStream, SocketAddr),
    /// Over a unix socket, which its permissions guard.
    Unix(UnixStream),
}

impl Listener {
    /// Binds. A unix socket left behind by a dead process is taken over; a living one is not.
    pub async fn bind(endpoint: &Endpoint) -> io::Result<Listener> {
        match endpoint {
            Endpoint::Tcp { host, port } => {
                let socket = bound(host, *port).await?;
                let port = socket.local_addr()?.port();
                let endpoint = Endpoint::Tcp { host: host.clone(), port };
                let socket = Socket::Tcp(socket);
                Ok(Listener { endpoint, socket, failing: Complaint::default() })
            }
            Endpoint::Unix(path) => {
                remove_dead(path).await?;
                let socket = UnixListener::bind(path)?;
                // As with a port on loopback: MTAs run as other users. Who is to be kept out, the
                // folder's permissions keep out.
                std::fs::set_permissions(path, Permissions::from_mode(0o666))?;
                let (endpoint, socket) = (endpoint.clone(), Socket::Unix(socket));
                Ok(Listener { endpoint, socket, failing: Complaint::default() })
            }
        }
    }

    /// Makes a unix socket our own user's alone; does nothing for TCP.
    pub fn owners_only(&self) -> io::Result<()> {
        match &self.endpoint {
            Endpoint::Tcp { .. } => Ok(()),
            Endpoint::Unix(path) => std::fs::set_permissions(path, Permissions::from_mode(0o600)),
        }
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The next one who connects; `None` once the server drains. A fault (no file descriptors
    /// left) is complained of once a minute, and waited out.
    pub async fn next(&self, stopping: &mut watch::Receiver<Stopping>) -> Option<Peer> {
        loop {
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                _ = stopping.wait_for(|stage| *stage != Stopping::No) => return None,
            };
            match accepted {
                Ok(peer) => return Some(peer),
                Err(fault) => {
                    if let Some(times) = self.failing.is_due() {
                        warn!(%fault, endpoint = %self.endpoint, times, "accepting failed");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<Peer> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Why: replies are small and the client waits for each.
                stream.set_nodelay(true)?;
                Ok(Peer::Tcp(stream, address))
            }
            Socket::Unix(listener) => Ok(Peer::Unix(listener.accept().await?.0)),
        }
    }
}

/// Where they listen, with the ports the system gave where 0 was asked for.
pub fn endpoints<'a>(listeners: impl IntoIterator<Item = &'a Listener>) -> Vec<Endpoint> {
    listeners.into_iter().map(|listener| listener.endpoint.clone()).collect()
}

/// Removes a socket that nobody listens at any more, and nothing else.
async fn remove_dead(path: &Path) -> io::Result<()> {
    let kind = match std::fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(fault) => return Err(fault),
    };
    match UnixStream::connect(path).await {
        Err(fault) if kind.is_socket() && fault.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        _ => Err(io::Error::from(io::ErrorKind::AddrInUse)),
    }
}

impl Peer {
    /// Its address; `None` on a unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Peer::Tcp(_, address) => Some(address.ip().to_canonical()),
            Peer::Unix(_) => None,
        }
    }

    /// Says one line and closes.
    pub async fn refuse(self, line: &'static str) {
        let _ = match self {
            Peer::Tcp(stream, _) => timeout(QUIT_DEADLINE, say_and_close(stream, line)).await,
            Peer::Unix(stream) => timeout(QUIT_DEADLINE, say_and_close(stream, line)).await,
        };
    }
}

/// Why what still comes is read: closing with unread bytes would reset the connection, and the
/// client would lose the reply.
async fn say_and_close(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    line: &'static str,
) -> io::Result<()> {
    stream.write_all(line.as_bytes()).await?;
    stream.shutdown().await?;
    let mut dropped = [0; 512];
    while stream.read(&mut dropped).await? > 0 {}
    Ok(())
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let (Socket::Unix(_), Endpoint::Unix(path)) = (&self.socket, &self.endpoint) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Listens on the first address of a name that can be had.
async fn bound(host: &str, port: u16) -> io::Result<TcpListener> {
    let mut fault = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((host, port)).await? {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // As the library does: a port is free again at once when its daemon has ended.
        socket.set_reuseaddr(true)?;
        match socket.bind(address).and_then(|()| socket.listen(ACCEPT_QUEUE_MAX)) {
            Ok(listener) => return Ok(listener),
            Err(found) => fault = found,
        }
    }
    Err(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &Path) -> Endpoint {
        Endpoint::Unix(path.to_owned())
    }

    #[tokio::test]
    async fn only_a_dead_socket_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let (dead, file) = (folder.path().join("dead.sock"), folder.path().join("notes.txt"));
        drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
        let living = Listener::bind(&at(&dead)).await.unwrap();
        let mode = std::fs::metadata(&dead).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o666, "an MTA of another user must be able to connect");
        assert!(Listener::bind(&at(&dead)).await.is_err(), "a living one stays");
        living.owners_only().unwrap();
        let mode = std::fs::metadata(&dead).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&file, "mine").unwrap();
        assert!(Listener::bind(&at(&file)).await.is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    }

    /// Goal: who connects in a crowd is served. Method: a thousand clients before the first is.
    #[tokio::test]
    async fn a_crowd_waits_for_its_turn() {
        let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        let count = most.trim().parse::<usize>().unwrap().min(1000);
        let any = Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: 0 };
        let listener = Listener::bind(&any).await.unwrap();
        let Endpoint::Tcp { port, .. } = listener.endpoint else { panic!("not TCP") };
        let connect = || std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let _clients: Vec<_> = (0..count).map(|_| connect()).collect();
        let Socket::Tcp(socket) = &listener.socket else { panic!("not TCP") };
        for _ in 0..count {
            timeout(QUIT_DEADLINE, socket.accept()).await.unwrap().unwrap();
        }
    }
}
