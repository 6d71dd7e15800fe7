//! The milter tap: an MTA tells us what it takes in.
//!
//! Sockets and deadlines around `wire::milter_session`. Takes: one connection of an MTA. Gives:
//! messages to the tap, and the word to go on back, after at most `tap.wait`. A fault of ours never
//! refuses or holds up mail; a connection that ends for a fault of the peer's is logged, and the
//! MTA does what its `milter_default_action` says.
//! Bounds: `limits::MILTER_IDLE_DEADLINE`, `limits::TAP_SESSIONS_MAX`, bytes of bodies in memory.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::warn;

use crate::guard::stamp::edits;
use crate::guard::tap::Tap;
use crate::guard::tapped::Counts;
use crate::judge::arrival::Seen;
use crate::judge::posted::path;
use crate::judge::subject::TapKind;
use crate::mail::address::Address;
use crate::mail::envelope::xtext_decoded;
use crate::mail::limits::{CONTENT_DEADLINE, MILTER_IDLE_DEADLINE, NETWORK_BUFFER_BYTES};
use crate::mail::time::Timestamp;
use crate::serve::gone::Gone;
use crate::serve::room::{Room, Share};
use crate::serve::smtp::Stopping;
use crate::wire::milter::{Actions, Frame, MilterFault};
use crate::wire::milter_session::{Arrived, Edits, Session, Step};

/// What all connections share.
pub struct Milter {
    /// The inbound path.
    pub tap: Arc<Tap>,
    /// What we call ourselves, where the MTA does not say its own name.
    pub hostname: String,
    /// Whose Authentication-Results are written and forged ones taken out; `None`: nothing is.
    pub authserv_id: Option<String>,
    /// Bytes of one body that are kept.
    pub inspect_max: usize,
    /// Room for bodies.
    pub room: Arc<Room>,
}

/// Why a connection ended before the MTA was done.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Gone(#[from] Gone),
    #[error(transparent)]
    Fault(#[from] MilterFault),
}

/// One connection.
struct Connection<S> {
    milter: Arc<Milter>,
    stream: S,
    input: BytesMut,
    session: Session,
    share: Share,
    /// When the open transaction began.
    began: Option<Timestamp>,
}

/// Serves an MTA until it leaves, or until the server stops.
pub async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin>(
    milter: Arc<Milter>,
    stream: S,
    mut stopping: watch::Receiver<Stopping>,
) {
    let wanted = match milter.authserv_id {
        Some(_) => Actions::ADD_FIELDS.or(Actions::CHANGE_FIELDS),
        None => Actions::NONE,
    };
    let session = Session::new(wanted, milter.inspect_max);
    let input = BytesMut::new();
    let share = milter.room.share();
    let mut connection = Connection { milter, stream, input, session, share, began: None };
    let ended = connection.run(&mut stopping).await;
    if let Err(Ended::Fault(fault)) = ended {
        Counts::add(&connection.milter.tap.counts().of(TapKind::Milter).faults);
        warn!(%fault, "a milter connection is closed");
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection<S> {
    async fn run(&mut self, stopping: &mut watch::Receiver<Stopping>) -> Result<(), Ended> {
        let mut now = stopping.clone();
        loop {
            while let Some(frame) = Frame::next(&mut self.input)? {
                let mut step = self.session.advance(frame)?;
                if let Step::Message(arrived) = &mut step {
                    arrived.message = self.share.hand_on(std::mem::take(&mut arrived.message));
                }
                self.count_kept();
                match step {
                    Step::Listen => {}
                    Step::Say(reply) => self.say(&reply).await?,
                    // Why boxed: idle connections should not each keep room for a message.
                    Step::Message(arrived) => {
                        let edits = Box::pin(self.take(*arrived)).await;
                        let replies = self.session.edited(&edits);
                        self.say(&replies).await?;
                    }
                    Step::Close => return Ok(()),
                }
            }
            self.input.reserve(NETWORK_BUFFER_BYTES);
            let idle = !self.session.is_open();
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stage| *stage != Stopping::No), if idle => return Ok(()),
                _ = now.wait_for(|stage| *stage == Stopping::Now) => return Ok(()),
                read = timeout(MILTER_IDLE_DEADLINE, self.stream.read_buf(&mut self.input)) => {
                    let length = read.map_err(|_| Gone::Deadline)?.map_err(Gone::Io)?;
                    if length == 0 {
                        return Err(Gone::Closed.into());
                    }
                }
            }
        }
    }

    /// Keeps account of the bodies in memory. Over the bound this one's is given up.
    fn count_kept(&mut self) {
        self.began = match self.session.is_open() {
            true => self.began.or_else(|| Some(self.milter.tap.now())),
            false => self.began,
        };
        if !self.share.fits(self.session.kept_bytes()) {
            self.session.give_up_body();
            self.share.fits(self.session.kept_bytes());
        }
    }

    async fn take(&mut self, arrived: Arrived) -> Edits {
        let Milter { tap, hostname, authserv_id, .. } = &*self.milter;
        let arrived_at = tap.now();
        let kept = arrived.kept;
        let envid = arrived.parameters.iter().find_map(|parameter| {
            let (keyword, value) = parameter.split_once('=')?;
            keyword.eq_ignore_ascii_case("ENVID").then(|| xtext_decoded(value))
        });
        let seen = Seen {
            id: tap.new_id(),
            tap: TapKind::Milter,
            host: arrived.host.unwrap_or_else(|| hostname.clone()),
            queue_id: arrived.queue_id,
            began: self.began.take().unwrap_or(arrived_at),
            arrived: arrived_at,
            client: arrived.client.ip,
            helo: arrived.helo,
            authenticated: arrived.authenticated,
            mail_from: path(&arrived.mail_from),
            envelope_id: envid,
            recipients: arrived.recipients.iter().filter_map(|to| Address::parse(to)).collect(),
            message: arrived.message,
            spam_field: tap.settings().spam_field.clone(),
        };
        let taken = tap.take(seen, kept).await;
        match authserv_id {
            Some(id) => edits(id, &taken, &arrived.auth_results, arrived.auth_results_count),
            None => Edits::default(),
        }
    }

    async fn say(&mut self, reply: &[u8]) -> Result<(), Ended> {
        let writing = async {
            self.stream.write_all(reply).await?;
            self.stream.flush().await
        };
        timeout(CONTENT_DEADLINE, writing).await.map_err(|_| Gone::Deadline)?.map_err(Gone::Io)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use tokio::io::DuplexStream;

    use super::*;
    use crate::guard::tap::tests::{Shelf, tap};
    use crate::mail::limits::VERIFIED_INLINE_BYTES_MAX;
    use crate::wire::milter::{frame, proceed};

    const OFFER: &[u8] = b"\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff";

    struct Mta {
        stream: DuplexStream,
        milter: Arc<Milter>,
        shelf: Arc<Shelf>,
        stop: watch::Sender<Stopping>,
        served: tokio::task::JoinHandle<()>,
    }

    impl Mta {
        fn connect(memory_max: usize) -> Mta {
            let (tap, shelf) = tap(std::time::Duration::ZERO);
            let milter = Arc::new(Milter {
                tap,
                hostname: "mx.ours.example".to_owned(),
                authserv_id: Some("mx.ours.example".to_owned()),
                inspect_max: 1 << 20,
                room: Room::new(memory_max),
            });
            let (stream, theirs) = tokio::io::duplex(1 << 16);
            let (stop, stopping) = watch::channel(Stopping::No);
            let served = tokio::spawn(serve(Arc::clone(&milter), theirs, stopping));
            Mta { stream, milter, shelf, stop, served }
        }

        async fn say(&mut self, frames: &[(u8, &[u8])]) {
            let wire: Vec<u8> = frames.iter().flat_map(|(l, d)| frame(*l, d).to_vec()).collect();
            self.stream.write_all(&wire).await.unwrap();
        }

        /// The next reply's letter and data; `None` when the connection is closed.
        async fn reply(&mut self) -> Option<(u8, Vec<u8>)> {
            let length = self.stream.read_u32().await.ok()?;
            let mut data = vec![0; usize::try_from(length).unwrap()];
            self.stream.read_exact(&mut data).await.unwrap();
            Some((data.remove(0), data))
        }
    }

    const BODY: &[u8] = b"Hello\r\n";

    fn letter() -> Vec<(u8, &'static [u8])> {
        vec![
            (b'C', b"[192.0.2.55]\x004\0\x19192.0.2.55\0"),
            (b'H', b"mail.far.example\0"),
            (b'M', b"<joe@far.example>\0ENVID=a+2Bb\0"),
            (b'R', b"<alice@ours.example>\0"),
            (b'L', b"Authentication-Results\0 mx.ours.example; spf=pass\0"),
            (b'L', b"From\0 joe@far.example\0"),
            (b'L', b"DKIM-Signature\0 v=1\0"),
            (b'B', BODY),
            (b'D', b"Ei\x004ABC\0j\0mx2.ours.example\0"),
            (b'E', b""),
        ]
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_is_remembered_and_its_forged_results_go() {
        let mut mta = Mta::connect(1000);
        mta.say(&[(b'O', OFFER)]).await;
        assert_eq!(mta.reply().await.unwrap().0, b'O');
        mta.say(&letter()).await;
        let (letter, data) = mta.reply().await.unwrap();
        assert_eq!((letter, &data[..4]), (b'm', &b"\0\0\0\x01"[..]));
        let (letter, data) = mta.reply().await.unwrap();
        let inserted = String::from_utf8(data).unwrap();
        assert_eq!(letter, b'i');
        assert!(inserted.contains("\0 mx.ours.example;\n\tspf=pass smtp.mailfrom=joe@far.example"));
        assert_eq!(mta.reply().await.unwrap().0, b'c');
        let record = mta.shelf.records.lock().unwrap().pop().unwrap();
        assert_eq!(record.queue_id.as_deref(), Some("4ABC"));
        assert_eq!(record.host, "mx2.ours.example");
        assert_eq!(record.envelope_id.as_deref(), Some("a+b"));
        assert_eq!(record.helo, "mail.far.example");
        assert_eq!(mta.milter.room.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_end_of_message_nothing_is_remembered() {
        let mut mta = Mta::connect(1000);
        let letter = letter();
        mta.say(&[(b'O', OFFER)]).await;
        mta.say(&letter[..9]).await;
        mta.say(&[(b'A', b""), (b'Q', b"")]).await;
        mta.served.await.unwrap();
        assert!(mta.shelf.records.lock().unwrap().is_empty());
        assert_eq!(mta.milter.room.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn over_the_bound_of_memory_the_body_is_given_up() {
        let mut mta = Mta::connect(100);
        mta.say(&[(b'O', OFFER)]).await;
        mta.say(&letter()).await;
        while mta.reply().await.unwrap().0 != b'c' {}
        let record = mta.shelf.records.lock().unwrap().pop().unwrap();
        assert_eq!(record.gaps[0].cause, crate::judge::evidence::GapCause::Truncated);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_no_mta_is_closed_and_counted() {
        let mut mta = Mta::connect(1000);
        mta.stream.write_all(b"EHLO there\r\n").await.unwrap();
        assert_eq!(mta.reply().await, None);
        mta.served.await.unwrap();
        assert_eq!(mta.milter.tap.counts().of(TapKind::Milter).faults.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_lets_the_open_message_end() {
        let mut mta = Mta::connect(1000);
        let letter = letter();
        mta.say(&[(b'O', OFFER)]).await;
        mta.reply().await.unwrap();
        mta.say(&letter[..5]).await;
        tokio::task::yield_now().await;
        mta.stop.send_replace(Stopping::Drain);
        mta.say(&letter[5..]).await;
        while mta.reply().await.unwrap() != (b'c', vec![]) {}
        assert_eq!(mta.reply().await, None);
        assert_eq!(proceed().len(), 5);
    }

    /// Goal: a body counts while it is being hashed, whoever has given up waiting for that. Method:
    /// the only thread for hashing is busy, and the MTA leaves.
    #[test]
    fn a_body_counts_until_it_is_hashed() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let (go_on, waits) = std::sync::mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || waits.recv());
            let mut mta = Mta::connect(1 << 20);
            let body = vec![b'x'; VERIFIED_INLINE_BYTES_MAX];
            let mut letter = letter();
            let place = letter.iter().position(|(letter, _)| *letter == b'B').unwrap();
            letter.splice(place..=place, body.chunks(60_000).map(|part| (b'B', part)));
            mta.say(&[(b'O', OFFER)]).await;
            mta.say(&letter).await;
            while mta.milter.tap.counts().of(TapKind::Milter).seen() == 0 {
                tokio::task::yield_now().await;
            }
            drop(mta.stream);
            mta.served.abort();
            let _ = mta.served.await;
            assert!(mta.milter.room.used() > body.len());
            go_on.send(()).unwrap();
            busy.await.unwrap().unwrap();
            // The thread takes one after the other.
            tokio::task::spawn_blocking(|| ()).await.unwrap();
            assert_eq!(mta.milter.room.used(), 0);
        });
    }
}
