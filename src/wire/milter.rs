//! The milter protocol's frames, as Postfix and Sendmail speak it, versions 2 to 6.
//!
//! Takes: bytes from the MTA, cut anywhere. Gives: `Command`s; `Offer` and what we want of it; the
//! bytes of our replies. Errors: `MilterFault`: the MTA's, or a program that is none; the
//! connection is closed, and the MTA does what its `milter_default_action` says.
//! Bounds: `limits::MILTER_FRAME_BYTES_MAX`.
//! Standards: none; Sendmail's `include/libmilter/mfdef.h` and Postfix's `src/milter/milter8.c`.
//!
//! A frame is a length (four bytes, the command counted), a command (one letter) and its data. A
//! text ends in NUL. `wire::milter_session` says what a row of commands means.

use std::net::IpAddr;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::mail::limits::MILTER_FRAME_BYTES_MAX;

/// Why a connection with an MTA cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MilterFault {
    /// A frame is longer than `limits::MILTER_FRAME_BYTES_MAX`.
    #[error("a frame of {0} bytes: is this a mail server?")]
    BoundFrame(u32),
    /// A frame without a command.
    #[error("an empty frame: is this a mail server?")]
    PeerEmptyFrame,
    /// The data of a command is cut off, or is not of its form.
    #[error("the data of command '{0}' is cut off or malformed")]
    PeerData(char),
    /// A command that no version has.
    #[error("command {0} is unknown")]
    PeerCommand(u8),
    /// A version before 2.
    #[error("milter protocol version {0} is too old: 2 to 6 are spoken here")]
    PeerVersion(u32),
    /// A command where it cannot stand.
    #[error("command '{0}' out of order")]
    PeerOrder(char),
}

/// One frame: a command's letter and its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    letter: u8,
    data: Bytes,
}

impl Frame {
    /// The next frame of the buffer; `None` when it holds no whole one.
    pub fn next(buffer: &mut BytesMut) -> Result<Option<Frame>, MilterFault> {
        let Some(length) = buffer.get(..4).and_then(|length| length.try_into().ok()) else {
            return Ok(None);
        };
        let length_bytes = u32::from_be_bytes(length);
        let length = usize::try_from(length_bytes).unwrap_or(usize::MAX);
        if length > MILTER_FRAME_BYTES_MAX {
            return Err(MilterFault::BoundFrame(length_bytes));
        }
        if length == 0 {
            return Err(MilterFault::PeerEmptyFrame);
        }
        if buffer.len() < 4 + length {
            return Ok(None);
        }
        buffer.advance(4);
        let mut data = buffer.split_to(length).freeze();
        let letter = data.get_u8();
        Ok(Some(Frame { letter, data }))
    }
}

/// Who connected to the MTA, as it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connected {
    /// The client's name as the MTA knows it, or its address in brackets.
    pub name: String,
    /// Its address; `None` for a unix socket, and where the MTA does not know.
    pub ip: Option<IpAddr>,
}

/// What an MTA says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// What it offers. The first command, and once more where another client follows (XCLIENT).
    Negotiate(Offer),
    /// Names and values that belong to the command whose letter is given, which comes next.
    Macros(u8, Vec<(String, String)>),
    /// A client connected.
    Connect(Connected),
    /// HELO or EHLO.
    Helo(String),
    /// MAIL: the path as written, then its parameters.
    Mail(Vec<String>),
    /// RCPT: likewise.
    Rcpt(Vec<String>),
    /// DATA.
    Data,
    /// A header field: name, and value with its folds (LF and white space), without line end.
    Field(Bytes, Bytes),
    /// The header is whole.
    EndOfHeader,
    /// A piece of the body, line ends CRLF.
    Body(Bytes),
    /// The message is whole; a last piece of the body may come along.
    EndOfMessage(Bytes),
    /// The transaction is over or was given up; the connection stays.
    Abort,
    /// An SMTP command that the MTA does not know.
    Unknown,
    /// The connection ends.
    Quit,
    /// The client is gone; another one follows on the same connection.
    QuitNewConnection,
}

impl Command {
    /// Reads a frame.
    pub fn parse(frame: Frame) -> Result<Command, MilterFault> {
        let Frame { letter, mut data } = frame;
        let fault = MilterFault::PeerData(char::from(letter));
        Ok(match letter {
            b'O' => Command::Negotiate(Offer::parse(&mut data).ok_or(fault)?),
            b'D' => macros(&mut data).ok_or(fault)?,
            b'C' => Command::Connect(connected(&mut data).ok_or(fault)?),
            b'H' => Command::Helo(lossy(&text(&mut data).ok_or(fault)?)),
            b'M' => Command::Mail(texts(&mut data).filter(|path| !path.is_empty()).ok_or(fault)?),
            b'R' => Command::Rcpt(texts(&mut data).filter(|path| !path.is_empty()).ok_or(fault)?),
            b'T' => Command::Data,
            b'L' => {
                let name = text(&mut data).ok_or(fault)?;
                Command::Field(name, text(&mut data).ok_or(fault)?)
            }
            b'N' => Command::EndOfHeader,
            b'B' => Command::Body(data),
            b'E' => Command::EndOfMessage(data),
            b'A' => Command::Abort,
            b'U' => Command::Unknown,
            b'Q' => Command::Quit,
            b'K' => Command::QuitNewConnection,
            other => return Err(MilterFault::PeerCommand(other)),
        })
    }
}

/// What an MTA offers, or what we take of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// The version.
    pub version: u32,
    /// What a milter may do to a message.
    pub actions: Actions,
    /// Which steps can be left out, and which need no reply.
    pub steps: Steps,
}

/// What a milter may do to a message; the protocol's bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actions(u32);

/// Which steps are left out, and which need no reply; the protocol's bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps(u32);

impl Actions {
    /// Header fields are added and inserted.
    pub const ADD_FIELDS: Actions = Actions(0x01);
    /// Header fields are changed and deleted.
    pub const CHANGE_FIELDS: Actions = Actions(0x10);
    /// We name the macros we want.
    pub const NAME_MACROS: Actions = Actions(0x100);
    /// Nothing.
    pub const NONE: Actions = Actions(0);

    /// Whether all of these are in it.
    pub fn has(self, those: Actions) -> bool {
        self.0 & those.0 == those.0
    }

    /// What is in both.
    pub fn and(self, those: Actions) -> Actions {
        Actions(self.0 & those.0)
    }

    /// What is in either.
    pub fn or(self, those: Actions) -> Actions {
        Actions(self.0 | those.0)
    }
}

impl Steps {
    /// The end of the header is left out; so are DATA and unknown commands.
    pub const LEFT_OUT: Steps = Steps(0x40 | 0x100 | 0x200);
    /// The rest of the body may be left out, by a reply to a piece of it.
    pub const SKIP: Steps = Steps(0x400);
    /// No reply to the client's connection.
    pub const QUIET_CONNECT: Steps = Steps(0x1000);
    /// No reply to HELO.
    pub const QUIET_HELO: Steps = Steps(0x2000);
    /// No reply to MAIL.
    pub const QUIET_MAIL: Steps = Steps(0x4000);
    /// No reply to RCPT.
    pub const QUIET_RCPT: Steps = Steps(0x8000);
    /// No reply to DATA.
    pub const QUIET_DATA: Steps = Steps(0x1_0000);
    /// No reply to an unknown command.
    pub const QUIET_UNKNOWN: Steps = Steps(0x2_0000);
    /// No reply to a header field.
    pub const QUIET_FIELD: Steps = Steps(0x80);
    /// No reply to the end of the header.
    pub const QUIET_END_OF_HEADER: Steps = Steps(0x4_0000);
    /// No reply to a piece of the body.
    pub const QUIET_BODY: Steps = Steps(0x8_0000);
    /// The white space behind a field's colon is kept, as a signature covers it.
    pub const KEEP_SPACE: Steps = Steps(0x10_0000);

    /// All of it is what we want: half the cost of a milter is the dialogue.
    const WANTED: Steps = Steps(0x1F_F7C0);

    /// Whether all of these are in it.
    pub fn has(self, those: Steps) -> bool {
        self.0 & those.0 == those.0
    }
}

/// The stages that macros are asked for, and the macros that we use. A stage without any sends
/// none.
const MACROS: &[(u32, &str)] = &[
    (0, "j"),
    (1, ""),
    (2, "i {auth_authen}"),
    (3, ""),
    (4, "i"),
    (5, "i {auth_authen}"),
    (6, ""),
];

impl Offer {
    /// The newest version that is spoken here.
    const VERSION_MAX: u32 = 6;

    /// The oldest one.
    const VERSION_MIN: u32 = 2;

    fn parse(data: &mut Bytes) -> Option<Offer> {
        let version = data.try_get_u32().ok()?;
        let actions = Actions(data.try_get_u32().ok()?);
        Some(Offer { version, actions, steps: Steps(data.try_get_u32().ok()?) })
    }

    /// What we take of it: every step that can be left out or go without a reply, and of the
    /// actions those in `wanted`.
    pub fn taken(self, wanted: Actions) -> Result<Offer, MilterFault> {
        if self.version < Offer::VERSION_MIN {
            return Err(MilterFault::PeerVersion(self.version));
        }
        Ok(Offer {
            version: self.version.min(Offer::VERSION_MAX),
            actions: self.actions.and(wanted.or(Actions::NAME_MACROS)),
            steps: Steps(self.steps.0 & Steps::WANTED.0),
        })
    }

    /// The reply to an offer, of which this was taken.
    pub fn reply(self) -> Bytes {
        let mut data = BytesMut::new();
        data.put_u32(self.version);
        data.put_u32(self.actions.0);
        data.put_u32(self.steps.0);
        if self.actions.has(Actions::NAME_MACROS) {
            for (stage, names) in MACROS {
                data.put_u32(*stage);
                put_text(&mut data, names.as_bytes());
            }
        }
        frame(b'O', &data)
    }
}

/// Go on.
pub fn proceed() -> Bytes {
    frame(b'c', b"")
}

/// Go on, and leave out the rest of the body.
pub fn skip() -> Bytes {
    frame(b's', b"")
}

/// Inserts a field above all others. `value` with the white space behind the colon where
/// `Steps::KEEP_SPACE` was taken; folds are LF and white space.
pub fn insert_on_top(name: &str, value: &str) -> Bytes {
    let mut data = BytesMut::new();
    data.put_u32(0);
    put_text(&mut data, name.as_bytes());
    put_text(&mut data, value.as_bytes());
    frame(b'i', &data)
}

/// Deletes the field of this name that is number `occurrence`, counted from 1.
pub fn delete(name: &str, occurrence: u32) -> Bytes {
    let mut data = BytesMut::new();
    data.put_u32(occurrence);
    put_text(&mut data, name.as_bytes());
    put_text(&mut data, b"");
    frame(b'm', &data)
}

/// A frame's bytes.
pub fn frame(letter: u8, data: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(5 + data.len());
    bytes.put_u32(u32::try_from(data.len() + 1).unwrap_or(u32::MAX));
    bytes.put_u8(letter);
    bytes.put_slice(data);
    bytes.freeze()
}

/// Why NUL is dropped: it would end the text, and what follows would be another field's.
fn put_text(data: &mut BytesMut, text: &[u8]) {
    text.iter().filter(|byte| **byte != 0).for_each(|byte| data.put_u8(*byte));
    data.put_u8(0);
}

/// The text up to NUL, which must be there.
fn text(data: &mut Bytes) -> Option<Bytes> {
    let end = memchr::memchr(0, data)?;
    let text = data.split_to(end);
    data.advance(1);
    Some(text)
}

/// All texts; `None` when the last one does not end.
fn texts(data: &mut Bytes) -> Option<Vec<String>> {
    let mut texts = Vec::new();
    while !data.is_empty() {
        texts.push(lossy(&text(data)?));
    }
    Some(texts)
}

fn macros(data: &mut Bytes) -> Option<Command> {
    let letter = data.try_get_u8().ok()?;
    let mut values = Vec::new();
    while !data.is_empty() {
        let name = lossy(&text(data)?);
        values.push((name, lossy(&text(data)?)));
    }
    Some(Command::Macros(letter, values))
}

/// Name, NUL, family, and for all families but the unknown one a port and an address, NUL.
fn connected(data: &mut Bytes) -> Option<Connected> {
    let name = lossy(&text(data)?);
    let family = data.try_get_u8().ok()?;
    if !matches!(family, b'4' | b'6' | b'L') {
        return (family == b'U').then_some(Connected { name, ip: None });
    }
    let _port = data.try_get_u16().ok()?;
    let address = lossy(&text(data)?);
    let ip = match family {
        b'L' => None,
        _ => ip(&address),
    };
    Some(Connected { name, ip })
}

/// `192.0.2.1`, `2001:db8::1`, `IPv6:2001:db8::1` (Sendmail), `fe80::1%eth0`.
fn ip(address: &str) -> Option<IpAddr> {
    let tag = address.get(..5).filter(|tag| tag.eq_ignore_ascii_case("ipv6:"));
    let address = tag.and_then(|_| address.get(5..)).unwrap_or(address);
    let address = address.split_once('%').map_or(address, |(address, _)| address);
    address.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(letter: u8, data: &[u8]) -> Result<Command, MilterFault> {
        let mut buffer = BytesMut::from(&frame(letter, data)[..]);
        Command::parse(Frame::next(&mut buffer).unwrap().unwrap())
    }

    fn offer(version: u32, actions: u32, steps: u32) -> Offer {
        Offer { version, actions: Actions(actions), steps: Steps(steps) }
    }

    #[test]
    fn all_that_an_mta_lets_us_leave_out_is_left_out() {
        let edits = Actions::ADD_FIELDS.or(Actions::CHANGE_FIELDS);
        // Postfix 3.7: steps 0x1fffff. Connection, HELO, MAIL, RCPT, header and body are wanted,
        // refused recipients are not.
        let taken = offer(6, 0x1ff, 0x1f_ffff).taken(edits).unwrap();
        assert_eq!(taken, offer(6, 0x111, 0x1f_f7c0));
        for quiet in [Steps::QUIET_CONNECT, Steps::QUIET_BODY, Steps::LEFT_OUT, Steps::KEEP_SPACE] {
            assert!(taken.steps.has(quiet));
        }
        // Sendmail 8.12 (version 2), and one from the future.
        assert_eq!(offer(2, 0x1f, 0x7f).taken(Actions::NONE).unwrap(), offer(2, 0, 0x40));
        assert_eq!(offer(9, 0, 0).taken(edits).unwrap(), offer(6, 0, 0));
        assert_eq!(offer(1, 0, 0).taken(edits), Err(MilterFault::PeerVersion(1)));
    }

    #[test]
    fn macros_are_named_only_where_the_mta_lets_us() {
        let plain = offer(2, 0x1f, 0x7f).taken(Actions::NONE).unwrap().reply();
        assert_eq!(&plain[..], b"\0\0\0\x0dO\0\0\0\x02\0\0\0\0\0\0\0\x40");
        let named = offer(6, 0x1ff, 0).taken(Actions::NONE).unwrap().reply();
        assert!(named.windows(8).any(|at| at == b"\0\0\0\x02i {a"), "{named:?}");
        assert!(named.ends_with(b"\0\0\0\x06\0"));
    }

    #[test]
    fn a_client_is_known_by_its_address_whatever_its_family() {
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        for (data, wanted) in [
            (&b"mx.far.example\x004\x04\x01192.0.2.55\0"[..], ip("192.0.2.55")),
            (b"[x]\x006\0\0IPv6:2001:db8::1\0", ip("2001:db8::1")),
            (b"[x]\x006\0\x192001:db8::1\0", ip("2001:db8::1")),
            (b"[x]\x006\0\0::ffff:192.0.2.1\0", ip("192.0.2.1")),
            (b"localhost\0L\0\0/run/x\0", None),
            (b"unknown\0U", None),
            (b"odd\x004\0\0nonsense\0", None),
        ] {
            let Ok(Command::Connect(connected)) = parse(b'C', data) else { panic!("{data:?}") };
            assert_eq!(connected.ip, wanted, "{data:?}");
        }
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        for (letter, data) in [
            (b'O', &b"\0\0\0\x06"[..]),
            (b'D', b""),
            (b'D', b"Mi\0no end"),
            (b'D', b"Mname without value\0"),
            (b'C', b"name"),
            (b'C', b"name\0"),
            (b'C', b"name\x004\0"),
            (b'C', b"name\x004\0\x00192.0.2.1"),
            (b'C', b"name\0?\0\0x\0"),
            (b'H', b"no end"),
            (b'M', b""),
            (b'M', b"<a@b.example>\0SIZE"),
            (b'R', b"<a@b.example>"),
            (b'L', b"Subject\0no end"),
            (b'L', b"Subject\0"),
        ] {
            let fault = Err(MilterFault::PeerData(char::from(letter)));
            assert_eq!(parse(letter, data), fault, "{data:?}");
        }
        assert_eq!(parse(b'?', b""), Err(MilterFault::PeerCommand(b'?')));
    }

    #[test]
    fn what_speaks_another_protocol_is_refused_at_once() {
        for (bytes, wanted) in [
            (&b"EHLO there\r\n"[..], MilterFault::BoundFrame(0x4548_4c4f)),
            (b"\0\0\0\0", MilterFault::PeerEmptyFrame),
        ] {
            assert_eq!(Frame::next(&mut BytesMut::from(bytes)), Err(wanted));
        }
    }

    #[test]
    fn a_reply_has_the_form_that_mtas_read() {
        assert_eq!(&proceed()[..], b"\0\0\0\x01c");
        assert_eq!(&skip()[..], b"\0\0\0\x01s");
        assert_eq!(&insert_on_top("A", " b\0c")[..], b"\0\0\0\x0bi\0\0\0\0A\0 bc\0");
        assert_eq!(&delete("A", 2)[..], b"\0\0\0\x08m\0\0\0\x02A\0\0");
    }

    proptest! {
        #[test]
        fn frames_are_read_alike_however_they_arrive(
            frames in proptest::collection::vec(
                (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
            cut in 1_usize..20,
        ) {
            let wire: Vec<u8> = frames.iter().flat_map(|(l, d)| frame(*l, d).to_vec()).collect();
            let (mut buffer, mut read) = (BytesMut::new(), Vec::new());
            for piece in wire.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(Frame { letter, data }) = Frame::next(&mut buffer).unwrap() {
                    read.push((letter, data.to_vec()));
                }
            }
            prop_assert_eq!(read, frames);
        }

        #[test]
        fn any_data_is_a_command_or_a_fault(
            letter in any::<u8>(), data in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = parse(letter, &data);
        }
    }
}
