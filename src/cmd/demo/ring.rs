//! The demo's ring: another site hands back what the guard let out, again and again.
//!
//! The forwarder is made of functions, the guard is the real one: how many laps it lets pass is
//! counted, not claimed.

use crate::cmd::demo::client::Mta;
use crate::cmd::demo::sink::Arrived;
use crate::cmd::paint::{Paint, Tone};
use crate::mail::limits::{RISES_STRONG, RISES_WEAK};
use crate::mail::reply::Reply;

/// What the other side does to a message before it hands it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarder {
    /// Puts its own Received line on top.
    Keeps,
    /// Takes our lines away, too.
    Strips,
    /// Writes a new Message-ID, Date and subject tag, a banner and a disclaimer, too.
    Rewrites,
}

impl Forwarder {
    /// The three.
    pub const ALL: [Forwarder; 3] = [Forwarder::Keeps, Forwarder::Strips, Forwarder::Rewrites];

    /// What it does, for people.
    pub fn what(self) -> &'static str {
        match self {
            Forwarder::Keeps => "keeps the message as it is",
            Forwarder::Strips => "takes our lines away",
            Forwarder::Rewrites => "and rewrites all it can",
        }
    }

    /// The copy that must be held at the latest.
    pub fn cut_at(self) -> usize {
        let rises = match self {
            Forwarder::Keeps => return 3,
            Forwarder::Strips => RISES_STRONG,
            Forwarder::Rewrites => RISES_WEAK + 1,
        };
        usize::try_from(rises).unwrap_or(usize::MAX) + 1
    }

    fn forwarded(self, message: &str, lap: usize) -> String {
        let (header, body) = message.split_once("\r\n\r\n").unwrap_or((message, ""));
        let mut kept: Vec<String> = fields(header);
        if self != Forwarder::Keeps {
            kept.retain(|field| {
                !field.starts_with("X-Replyguard") && !field.contains("(replyguard)")
            });
        }
        let mut body = body.to_owned();
        if self == Forwarder::Rewrites {
            kept = kept.iter().map(|field| rewritten(field, lap)).collect();
            body = format!("CAUTION: from outside.\r\n{body}-- \r\nConfidential ({lap}).\r\n");
        }
        let top = format!(
            "Received: from guard.uni.example (guard.uni.example [192.0.2.25])\r\n\tby \
             mx.club.example (Postfix) with ESMTP id C{lap:05};\r\n\tSat, 21 Nov 2026 10:00:{:02} \
             +0000",
            lap % 60
        );
        format!("{top}\r\n{}\r\n\r\n{body}", kept.join("\r\n"))
    }
}

/// How a ring went.
pub struct Ring {
    /// Copies that the guard let pass.
    pub passed: usize,
    /// What it said to the one it held.
    pub held: Option<Reply>,
}

/// Laps after which a ring counts as not cut.
const LAPS_MAX: usize = 12;

/// Lets a message go round until the guard holds it.
pub async fn run(
    mta: &mut Mta,
    arrived: &Arrived,
    forwarder: Forwarder,
    number: usize,
) -> std::io::Result<Ring> {
    let mut message = letter(number);
    for passed in 0..LAPS_MAX {
        let reply = mta.send("ann@uni.example", "carol@club.example", &message).await?;
        if reply.text().contains("suppressed") {
            return Ok(Ring { passed, held: Some(reply) });
        }
        message = forwarder.forwarded(&arrived.last(), passed);
    }
    Ok(Ring { passed: LAPS_MAX, held: None })
}

/// The laps as a line: each dot went on, the cross was held.
pub fn drawn(ring: &Ring, paint: Paint) -> String {
    let laps = vec!["●"; ring.passed].join("──");
    let laps = paint.paint(Tone::Good, &laps);
    match ring.held {
        Some(_) => {
            let cut = paint.paint(Tone::Held, "✕");
            format!("{laps}──{cut}  held at copy {}", ring.passed + 1)
        }
        None => format!("{laps}── goes on"),
    }
}

fn letter(number: usize) -> String {
    format!(
        "Received: from desk.uni.example (localhost [127.0.0.1])\r\n\tby mx.uni.example (Postfix) \
         with ESMTPSA id R{number}; Sat, 21 Nov 2026 10:00:00 +0000\r\nFrom: Ann \
         <ann@uni.example>\r\nTo: carol@club.example\r\nSubject: Minutes\r\nDate: Sat, 21 Nov 2026 \
         10:00:00 +0000\r\nMessage-ID: <minutes-{number}@uni.example>\r\n\r\nDear Carol,\r\nhere \
         they are.\r\n"
    )
}

/// The fields of a header, each with its folds.
fn fields(header: &str) -> Vec<String> {
    let mut fields: Vec<String> = Vec::new();
    for line in header.split("\r\n") {
        match fields.last_mut().filter(|_| line.starts_with([' ', '\t'])) {
            Some(field) => field.push_str(&format!("\r\n{line}")),
            None => fields.push(line.to_owned()),
        }
    }
    fields
}

fn rewritten(field: &str, lap: usize) -> String {
    match field.split_once(": ") {
        Some(("Message-ID", _)) => format!("Message-ID: <{lap}@club.example>"),
        Some(("Date", _)) => format!("Date: Sat, 21 Nov 2026 10:00:{:02} +0000", lap % 60),
        Some(("Subject", subject)) => format!("Subject: [EXT] {subject}"),
        _ => field.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forwarder_does_what_it_says() {
        let ours = "X-Replyguard-Trace: v=1;\r\n\tm=0\r\nReceived: from mx\r\n\tby guard \
            (replyguard) with ESMTP\r\n";
        let message = format!("{ours}{}", letter(1));
        let kept = Forwarder::Keeps.forwarded(&message, 2);
        assert!(kept.starts_with("Received: from guard") && kept.ends_with(&message));
        let stripped = Forwarder::Strips.forwarded(&message, 2);
        assert!(stripped.ends_with(&letter(1)) && !stripped.contains("eplyguard"));
        let rewritten = Forwarder::Rewrites.forwarded(&message, 2);
        assert!(rewritten.contains("\r\nSubject: [EXT] Minutes\r\n"));
        assert!(rewritten.contains("\r\nMessage-ID: <2@club.example>\r\n"));
        assert!(!rewritten.contains("eplyguard"));
    }
}
