//! A message on its way in, piece by piece.
//!
//! Takes: bytes of a client behind the 354. Gives: content, and whether its line ends are sound.
//! Errors: `Gone`; `RestFault` for the guard. Bounds: `limits::CONTENT_DEADLINE` for the next bytes,
//! `limits::MESSAGE_TIME_MAX` for all of them.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::guard::{LineEnds, Rest, RestFault};
use crate::mail::limits::{
    CONTENT_DEADLINE, FINAL_DEADLINE_ALONE, FINAL_DEADLINE_STOPPING, NETWORK_BUFFER_BYTES,
};
use crate::serve::gone::Gone;
use crate::serve::smtp::{BareLineEnd, Stopping};
use crate::wire::line::{Content, ContentReader};

/// Bytes that are made room for when a message comes in pieces.
const JOINED_BYTES_USUAL: usize = 256 * 1024;

/// A message on its way in.
pub struct Arriving<'a, S> {
    /// The connection.
    pub stream: &'a mut S,
    /// What came of it and is not read yet.
    pub input: &'a mut BytesMut,
    /// Finds the end.
    pub reader: ContentReader,
    /// What becomes of bare line ends.
    pub bare_line_end: BareLineEnd,
    /// Whether the end was there.
    pub ended: bool,
    /// Why there is no more to come, until somebody is told.
    pub gone: Option<Gone>,
    /// How far the stop of the server has come.
    pub stopping: watch::Receiver<Stopping>,
    /// When it must have come.
    pub until: Instant,
}

impl<S: AsyncRead + Send + Unpin> Arriving<'_, S> {
    /// The first `inspect_max` bytes, or all of it; and whether its line ends are sound so far.
    pub async fn first(&mut self, inspect_max: usize) -> Result<(Bytes, LineEnds), Gone> {
        // Most messages come in one piece, which need not be copied.
        let (mut only, mut joined) = (Bytes::new(), BytesMut::new());
        let mut line_ends = LineEnds::Sound;
        while only.len() + joined.len() < inspect_max {
            match self.next_content().await? {
                Some(Content::Bytes(bytes)) if only.is_empty() && joined.is_empty() => only = bytes,
                Some(Content::Bytes(bytes)) => {
                    if joined.is_empty() {
                        // Why so much: most of those that come in pieces need no more then.
                        joined.reserve(inspect_max.min(JOINED_BYTES_USUAL));
                    }
                    joined.extend_from_slice(&std::mem::take(&mut only));
                    joined.extend_from_slice(&bytes);
                }
                Some(Content::Ambiguous) => line_ends = LineEnds::Ambiguous,
                Some(Content::End) | None => break,
            }
        }
        if line_ends == LineEnds::Sound && self.is_refused_bare() {
            line_ends = LineEnds::Bare;
        }
        Ok((if joined.is_empty() { only } else { joined.freeze() }, line_ends))
    }

    fn is_refused_bare(&self) -> bool {
        self.bare_line_end == BareLineEnd::Refuse && self.reader.has_bare_line_end()
    }

    async fn next_content(&mut self) -> Result<Option<Content>, Gone> {
        if self.ended {
            return Ok(None);
        }
        loop {
            if let Some(content) = self.reader.next(self.input) {
                self.ended = content == Content::End;
                return Ok(Some(content));
            }
            self.input.reserve(NETWORK_BUFFER_BYTES);
            let deadline = self.until.min(Instant::now() + CONTENT_DEADLINE);
            tokio::select! {
                biased;
                _ = self.stopping.wait_for(|stage| *stage == Stopping::Now) => {
                    return Err(Gone::Stopping);
                }
                read = timeout_at(deadline, self.stream.read_buf(self.input)) => {
                    match read.map_err(|_| Gone::Deadline)?? {
                        0 => return Err(Gone::Closed),
                        _ => continue,
                    }
                }
            }
        }
    }

    /// Reads what is left: a reply before the end of the message would be taken for another's.
    pub async fn drain(&mut self) -> Result<(), Gone> {
        if let Some(gone) = self.gone.take() {
            return Err(gone);
        }
        while self.next_content().await?.is_some() {}
        Ok(())
    }
}

impl<S: AsyncRead + Send + Unpin> Rest for Arriving<'_, S> {
    async fn next(&mut self) -> Result<Option<Bytes>, RestFault> {
        match self.next_content().await {
            Ok(Some(Content::Bytes(bytes))) => Ok(Some(bytes)),
            Ok(Some(Content::Ambiguous)) => Err(RestFault::LineEnds(LineEnds::Ambiguous)),
            Ok(Some(Content::End)) if self.is_refused_bare() => {
                Err(RestFault::LineEnds(LineEnds::Bare))
            }
            Ok(Some(Content::End) | None) => Ok(None),
            Err(gone) => {
                let text = gone.to_string();
                self.gone = Some(gone);
                Err(RestFault::Gone(text))
            }
        }
    }

    async fn gone(&mut self) -> Duration {
        loop {
            // Why: a client may send its next commands along with the final dot; they are kept,
            // but not without bound.
            let listens = self.input.len() < NETWORK_BUFFER_BYTES;
            tokio::select! {
                biased;
                _ = self.stopping.wait_for(|stage| *stage == Stopping::Now) => {
                    return FINAL_DEADLINE_STOPPING;
                }
                read = self.stream.read_buf(self.input), if listens => {
                    if let Ok(0) | Err(_) = read {
                        return FINAL_DEADLINE_ALONE;
                    }
                }
            }
        }
    }
}
