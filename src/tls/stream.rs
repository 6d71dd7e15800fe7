//! A stream that is in the clear, and may become encrypted.
//!
//! An enum and no trait object: what is said in the clear pays nothing for it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

/// One connection.
pub enum Stream<S> {
    /// As it is.
    Clear(S),
    /// Through TLS. Why boxed: a session in the clear should not keep room for it.
    Encrypted(Box<TlsStream<S>>),
    /// Nothing: the handshake is being made, or failed.
    Gone,
}

impl<S> Stream<S> {
    /// Takes the stream out to make the handshake over it; `None` unless it is in the clear.
    pub fn take_clear(&mut self) -> Option<S> {
        match std::mem::replace(self, Stream::Gone) {
            Stream::Clear(stream) => Some(stream),
            other => {
                *self = other;
                None
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Clear(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Encrypted(stream) => {
                let read = Pin::new(stream.as_mut()).poll_read(context, buffer);
                // Why no fault: many servers close without saying so in TLS, and nothing in SMTP
                // ends by a close: what is cut short has no final dot and no reply.
                match read {
                    Poll::Ready(Err(fault)) if fault.kind() == io::ErrorKind::UnexpectedEof => {
                        Poll::Ready(Ok(()))
                    }
                    read => read,
                }
            }
            Stream::Gone => Poll::Ready(Ok(())),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Clear(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Encrypted(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
            Stream::Gone => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Clear(stream) => Pin::new(stream).poll_flush(context),
            Stream::Encrypted(stream) => Pin::new(stream.as_mut()).poll_flush(context),
            Stream::Gone => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Clear(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Encrypted(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
            Stream::Gone => Poll::Ready(Ok(())),
        }
    }
}
