//! The demo's next hop: an SMTP server that takes everything, counts it, and keeps the last one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::wire::line::{Content, ContentReader, LineReader};

/// What arrived: the recipients of each message, in order, and the last message.
#[derive(Clone, Debug, Default)]
pub struct Arrived(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    recipients: Vec<String>,
    last: Vec<u8>,
}

impl Arrived {
    /// The recipients so far.
    pub fn recipients(&self) -> Vec<String> {
        self.taken().recipients.clone()
    }

    /// The last message as text.
    pub fn last(&self) -> String {
        String::from_utf8_lossy(&self.taken().last).into_owned()
    }

    fn add(&self, recipients: Vec<String>, message: Vec<u8>) {
        let mut taken = self.taken();
        taken.recipients.extend(recipients);
        taken.last = message;
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves until the runtime ends; gives the address.
pub async fn serve(arrived: Arrived) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, arrived.clone()));
        }
    });
    Ok(address)
}

async fn converse(mut stream: TcpStream, arrived: Arrived) -> std::io::Result<()> {
    stream.write_all(b"220 smarthost.example ESMTP\r\n").await?;
    let (mut lines, mut input) = (LineReader::default(), BytesMut::new());
    let mut recipients = Vec::new();
    loop {
        let Some(line) = lines.next(&mut input) else {
            if stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let line = line.unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let reply: &[u8] = match verb.as_str() {
            "EHLO" => b"250-smarthost.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-DSN\r\n250 SIZE 50000000\r\n",
            "RCPT" => {
                recipients.push(line.get(8..).unwrap_or_default().to_owned());
                b"250 2.1.5 Ok\r\n"
            }
            "DATA" => {
                stream.write_all(b"354 go ahead\r\n").await?;
                let message = message(&mut stream, &mut input).await?;
                arrived.add(std::mem::take(&mut recipients), message);
                b"250 2.0.0 Ok: queued\r\n"
            }
            "QUIT" => return stream.write_all(b"221 2.0.0 Bye\r\n").await,
            _ => b"250 2.0.0 Ok\r\n",
        };
        stream.write_all(reply).await?;
    }
}

async fn message(stream: &mut TcpStream, input: &mut BytesMut) -> std::io::Result<Vec<u8>> {
    let (mut content, mut message) = (ContentReader::default(), Vec::new());
    loop {
        match content.next(input) {
            Some(Content::End) => return Ok(message),
            Some(Content::Bytes(bytes)) => message.extend_from_slice(&bytes),
            Some(Content::Ambiguous) => {}
            None => {
                if stream.read_buf(input).await? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }
}
