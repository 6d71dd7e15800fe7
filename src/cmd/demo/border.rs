//! The demo's border: an MTA that tells the guard's milter what comes in.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::wire::milter::{Frame, frame};

/// Version 6, no actions, no steps left out.
const OFFER: &[u8] = b"\0\0\0\x06\0\0\0\0\0\0\0\0";

/// A message as it comes in.
pub struct Inbound<'a> {
    /// The client's address, of IPv4.
    pub client: &'a str,
    /// Its MAIL FROM and From.
    pub from: &'a str,
    /// Whom it is for.
    pub to: &'a str,
    /// Its Message-ID.
    pub id: &'a str,
}

/// Tells the tap of a message, up to the end of data; returns when it says to go on.
pub async fn tell(tap: &str, inbound: &Inbound<'_>) -> std::io::Result<()> {
    let Inbound { client, from, to, id } = inbound;
    let frames: [(u8, Vec<u8>); 10] = [
        (b'O', OFFER.to_vec()),
        (b'C', [b"host.example\x004\x9c\x40", client.as_bytes(), b"\0"].concat()),
        (b'H', b"host.example\0".to_vec()),
        (b'M', format!("<{from}>\0").into_bytes()),
        (b'R', format!("<{to}>\0").into_bytes()),
        (b'D', format!("Ti\0{id}\0j\0mx.uni.example\0").into_bytes()),
        (b'L', format!("From\0 <{from}>\0").into_bytes()),
        (b'L', format!("Message-ID\0 <{id}@host.example>\0").into_bytes()),
        (b'N', Vec::new()),
        (b'E', Vec::new()),
    ];
    let mut stream = TcpStream::connect(tap).await?;
    let mut input = BytesMut::new();
    for (letter, data) in &frames {
        stream.write_all(&frame(*letter, data)).await?;
        // What the MTA says about its macros has no answer.
        if *letter != b'D' {
            answer(&mut stream, &mut input).await?;
        }
    }
    Ok(())
}

async fn answer(stream: &mut TcpStream, input: &mut BytesMut) -> std::io::Result<()> {
    while Frame::next(input).map_err(std::io::Error::other)?.is_none() {
        if stream.read_buf(input).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}
