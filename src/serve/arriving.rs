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
    CONTENT_DEADLINE, FINAL_DEADLINE_ALONE, FINAL_DEADLINE_STOPPING, MESSAGE_TIME_MAX,
    NETWORK_BUFFER_BYTES,
};
use crate::serve::gone::Gone;
use crate::serve::smtp::{BareLineEnd, Stopping};
use crate::wire::line::{Content, ContentReader};
use crate::wire::smtp_client::Dots;

/// Bytes that are made room for when a message is longer than what is read at once.
const JOINED_BYTES_USUAL: usize = 256 * 1024;

/// Room for fewer bytes is not worth a read.
const READ_BYTES_MIN: usize = 8 * 1024;

/// The beginning of a message, or all of it.
pub struct First {
    /// The bytes.
    pub bytes: Bytes,
    /// Whether they are all of the message.
    pub whole: bool,
    /// Whether their line ends are sound.
    pub line_ends: LineEnds,
    /// Whether a line of them begins with a dot.
    pub dots: Dots,
}

/// A message on its way in.
pub struct Arriving<'a, S> {
    stream: &'a mut S,
    /// What came of it and is not read yet.
    input: &'a mut BytesMut,
    reader: ContentReader,
    bare_line_end: BareLineEnd,
    ended: bool,
    /// Why there is no more to come, until somebody is told.
    gone: Option<Gone>,
    stopping: watch::Receiver<Stopping>,
    /// When it must have come.
    until: Instant,
    has_made_room: bool,
}

impl<'a, S: AsyncRead + Send + Unpin> Arriving<'a, S> {
    /// A message of which nothing was read yet. `input`: what came behind DATA already.
    pub fn new(
        stream: &'a mut S,
        input: &'a mut BytesMut,
        bare_line_end: BareLineEnd,
        stopping: watch::Receiver<Stopping>,
    ) -> Arriving<'a, S> {
        Arriving {
            stream,
            input,
            reader: ContentReader::default(),
            bare_line_end,
            ended: false,
            gone: None,
            stopping,
            until: Instant::now() + MESSAGE_TIME_MAX,
            has_made_room: false,
        }
    }

    /// The first `inspect_max` bytes, or all of it.
    pub async fn first(&mut self, inspect_max: usize) -> Result<First, Gone> {
        let mut bytes = BytesMut::new();
        let mut line_ends = LineEnds::Sound;
        while bytes.len() < inspect_max && !self.ended {
            match self.content_read() {
                // Nothing is copied of what stands behind the bytes before it.
                Some(Content::Bytes(more)) => bytes.unsplit(more),
                Some(Content::Ambiguous) => line_ends = LineEnds::Ambiguous,
                Some(Content::End) => {}
                None => {
                    if !bytes.is_empty() && self.spare() < READ_BYTES_MIN {
                        self.make_room(&mut bytes, inspect_max);
                    }
                    self.read_more().await?;
                }
            }
        }
        if line_ends == LineEnds::Sound && self.is_refused_bare() {
            line_ends = LineEnds::Bare;
        }
        let dots = match self.reader.has_stuffed_dots() {
            true => Dots::Possible,
            false => Dots::Absent,
        };
        Ok(First { bytes: bytes.freeze(), whole: self.ended, line_ends, dots })
    }

    /// Moves what was read of a long message to where more of it can be read right behind it. To be
    /// called when there is nothing to be done but to read more: then next to nothing waits in
    /// `input`, and the room is not used up at once.
    fn make_room(&mut self, bytes: &mut BytesMut, inspect_max: usize) {
        let most = inspect_max.saturating_add(NETWORK_BUFFER_BYTES);
        // Why twice: so all of it is moved a few times at most, however long it is.
        let wanted = bytes.len().saturating_mul(2).max(JOINED_BYTES_USUAL).min(most);
        let mut room = BytesMut::with_capacity(wanted.max(bytes.len() + self.input.len()));
        room.extend_from_slice(bytes);
        let mut behind = room.split_off(room.len());
        behind.extend_from_slice(self.input);
        (*bytes, *self.input) = (room, behind);
        self.has_made_room = true;
    }

    /// Bytes that can be read without making room.
    fn spare(&self) -> usize {
        self.input.capacity() - self.input.len()
    }

    fn is_refused_bare(&self) -> bool {
        self.bare_line_end == BareLineEnd::Refuse && self.reader.has_bare_line_end()
    }

    /// The next content of what was read; `None` at the end, or when more must be read.
    fn content_read(&mut self) -> Option<Content> {
        if self.ended {
            return None;
        }
        let content = self.reader.next(self.input)?;
        self.ended = content == Content::End;
        Some(content)
    }

    async fn next_content(&mut self) -> Result<Option<Content>, Gone> {
        loop {
            if let Some(content) = self.content_read() {
                return Ok(Some(content));
            }
            if self.ended {
                return Ok(None);
            }
            self.read_more().await?;
        }
    }

    async fn read_more(&mut self) -> Result<(), Gone> {
        if self.spare() < READ_BYTES_MIN {
            self.input.reserve(NETWORK_BUFFER_BYTES);
        }
        let deadline = self.until.min(Instant::now() + CONTENT_DEADLINE);
        tokio::select! {
            biased;
            _ = self.stopping.wait_for(|stage| *stage == Stopping::Now) => Err(Gone::Stopping),
            read = timeout_at(deadline, self.stream.read_buf(self.input)) => {
                match read.map_err(|_| Gone::Deadline)?? {
                    0 => Err(Gone::Closed),
                    _ => Ok(()),
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
        // Why: a client that idles behind a long message must not keep the room for it.
        if self.has_made_room {
            *self.input = BytesMut::from(self.input.as_ref());
        }
        Ok(())
    }
}

impl<S: AsyncRead + Send + Unpin> Rest for Arriving<'_, S> {
    async fn next(&mut self) -> Result<Option<Bytes>, RestFault> {
        match self.next_content().await {
            Ok(Some(Content::Bytes(bytes))) => Ok(Some(bytes.freeze())),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;
    use crate::wire::smtp_client::Stuffer;

    /// What is read of a message, and how many bytes of it were the first; the client sends packets
    /// of `packet` bytes at most.
    async fn read(content: Vec<u8>, packet: usize, inspect_max: usize) -> (Vec<u8>, First) {
        let (mut client, mut stream) = duplex(packet);
        let mut wire = Vec::new();
        let mut stuffer = Stuffer::default();
        stuffer.stuff(&content, Dots::Possible, &mut wire);
        stuffer.end(&mut wire);
        wire.extend_from_slice(b"NOOP\r\n");
        let sending = tokio::spawn(async move { client.write_all(&wire).await.map(|()| client) });
        let (_stop, stopping) = watch::channel(Stopping::No);
        let (mut input, mut behind) = (BytesMut::new(), Vec::new());
        let mut arriving = Arriving::new(&mut stream, &mut input, BareLineEnd::Pass, stopping);
        let first = arriving.first(inspect_max).await.ok().unwrap();
        let mut all = first.bytes.to_vec();
        while let Some(bytes) = arriving.next().await.unwrap() {
            all.extend_from_slice(&bytes);
        }
        arriving.drain().await.ok().unwrap();
        assert!(arriving.ended);
        assert!(input.capacity() <= 2 * NETWORK_BUFFER_BYTES, "{}", input.capacity());
        drop(sending.await.unwrap().unwrap());
        stream.read_to_end(&mut behind).await.unwrap();
        assert_eq!([&input[..], &behind].concat(), b"NOOP\r\n");
        (all, first)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    #[test]
    fn what_is_read_first_is_not_much_more_than_asked_for() {
        let content = b"a line of the message\r\n".repeat(100_000);
        let (all, first) = runtime().block_on(read(content.clone(), 1 << 22, 300_000));
        assert!(all == content);
        let most = 300_000 + 2 * NETWORK_BUFFER_BYTES;
        assert!((300_000..=most).contains(&first.bytes.len()), "{}", first.bytes.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Goal: a message is read as it was sent, wherever it has to be moved to. Method: lines with
        /// and without dots in front, longer than all the rooms, cut into packets.
        #[test]
        fn a_message_is_read_as_it_was_sent(
            lines in proptest::collection::vec("[.]{0,2}[a-z ]{0,30}", 0..60),
            times in prop_oneof![Just(1usize), 1..900usize],
            packet in prop_oneof![1000usize..2000, 20_000usize..80_000, Just(1 << 20)],
            inspect_max in prop_oneof![1000usize..40_000, 200_000usize..1_500_000],
        ) {
            let once: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let content = once.repeat(times).into_bytes();
            let dots = content.starts_with(b".")
                || memchr::memmem::find(&content, b"\r\n.").is_some();
            let (all, first) = runtime().block_on(read(content.clone(), packet, inspect_max));
            prop_assert!(all == content);
            prop_assert!(first.bytes.len() >= inspect_max.min(content.len()));
            if first.bytes.len() == content.len() {
                prop_assert_eq!(first.dots == Dots::Possible, dots);
            }
        }
    }
}
