//! The demo's MTA: hands its mail to the guard, one message after the other in one session.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::mail::reply::Reply;
use crate::wire::smtp_client::{Dots, ReplyReader, Stuffer};

/// A session with the guard.
pub struct Mta {
    stream: TcpStream,
    input: BytesMut,
    replies: ReplyReader,
}

impl Mta {
    /// Connects and says EHLO.
    pub async fn connect(guard: &str) -> std::io::Result<Mta> {
        let stream = TcpStream::connect(guard).await?;
        stream.set_nodelay(true)?;
        let mut mta = Mta { stream, input: BytesMut::new(), replies: ReplyReader::default() };
        mta.reply().await?;
        mta.say(b"EHLO mx.uni.example\r\n").await?;
        mta.reply().await?;
        Ok(mta)
    }

    /// Hands in one message; gives the guard's last word.
    pub async fn send(&mut self, from: &str, to: &str, message: &str) -> std::io::Result<Reply> {
        let commands = format!("MAIL FROM:<{from}>\r\nRCPT TO:<{to}>\r\nDATA\r\n");
        self.say(commands.as_bytes()).await?;
        for _ in 0..3 {
            let reply = self.reply().await?;
            if reply.code() >= 400 {
                return Ok(reply);
            }
        }
        let (mut stuffer, mut wire) = (Stuffer::default(), Vec::new());
        stuffer.stuff(message.as_bytes(), Dots::Possible, &mut wire);
        stuffer.end(&mut wire);
        self.say(&wire).await?;
        self.reply().await
    }

    async fn say(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    async fn reply(&mut self) -> std::io::Result<Reply> {
        loop {
            match self.replies.next(&mut self.input) {
                Some(Ok(reply)) => return Ok(reply),
                Some(Err(fault)) => return Err(std::io::Error::other(fault)),
                None => {
                    if self.stream.read_buf(&mut self.input).await? == 0 {
                        return Err(std::io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
    }
}
