//! Sends what `smtp-source` cannot: bounces, each another one, and messages at a given pace.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use crate::mail::{forged_bounce, letter, own_bounce};

/// A message with its envelope.
pub struct Letter {
    from: &'static str,
    to: String,
    bytes: Vec<u8>,
}

/// A kind of messages, each of them another.
pub struct Letters {
    count: usize,
    write: fn(usize) -> Letter,
}

impl Letters {
    /// Bounces of our Postfix about mail that came from whom they go to.
    pub fn genuine() -> Letters {
        let write = |n: usize| {
            let results = "mx.ours.example; spf=pass smtp.mailfrom=friend.example; \
                           dmarc=pass header.from=friend.example";
            let to = format!("joe{n}@friend.example");
            let bounce = own_bounce(&to, &n.to_string(), results);
            Letter { from: "", to, bytes: filled(&bounce, n, 3_000) }
        };
        Letters { count: 0, write }
    }

    /// Bounces about mail with a forged sender, each with a text of its own.
    pub fn forged() -> Letters {
        Letters { count: 0, write: |n| forged(n, n) }
    }

    /// The same, of one text.
    pub fn campaign() -> Letters {
        Letters { count: 0, write: |n| forged(n, 0) }
    }

    /// The next `count` of them.
    pub fn next(&mut self, count: usize) -> Vec<Letter> {
        let first = self.count;
        self.count += count;
        (first..self.count).map(self.write).collect()
    }
}

fn forged(n: usize, text: usize) -> Letter {
    let results = "mx.ours.example; spf=fail smtp.mailfrom=victim.example; \
                   dmarc=fail header.from=victim.example";
    let to = format!("joe{n}@victim.example");
    let bounce = own_bounce(&to, &text.to_string(), results);
    Letter { from: "", to, bytes: filled(&bounce, text, 3_000) }
}

/// The bounce with a longer body of the message that it returns.
fn filled(bounce: &str, n: usize, bytes: usize) -> Vec<u8> {
    let line =
        format!("{n}: the quick brown fox jumps over the lazy dog, and it lets it pass.\r\n");
    let more = line.repeat(bytes.saturating_sub(bounce.len()) / line.len());
    bounce.replacen("Hello,\r\n", &format!("Hello,\r\n{more}"), 1).into_bytes()
}

/// A session that is kept.
pub struct Talk {
    stream: BufReader<TcpStream>,
    line: String,
}

impl Talk {
    pub fn open(to: SocketAddr) -> Talk {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut talk = Talk { stream: BufReader::new(stream), line: String::new() };
        talk.expect("220");
        talk.say(b"EHLO mx.ours.example\r\n");
        talk.expect("250");
        talk
    }

    pub fn say(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// A whole reply, which must begin so.
    pub fn expect(&mut self, code: &str) {
        assert!(self.is_taken(code), "wanted {code}, got {:?}", self.line);
    }

    /// Whether a whole reply begins so; otherwise it must say that later is better.
    pub fn is_taken(&mut self, code: &str) -> bool {
        loop {
            self.line.clear();
            self.stream.read_line(&mut self.line).unwrap();
            let is_right = self.line.starts_with(code);
            assert!(is_right || self.line.starts_with('4'), "got {:?}", self.line);
            if self.line.as_bytes().get(3) == Some(&b' ') {
                return is_right;
            }
        }
    }

    pub fn send(&mut self, letter: &Letter) {
        let Letter { from, to, bytes } = letter;
        self.say(format!("MAIL FROM:<{from}>\r\nRCPT TO:<{to}>\r\nDATA\r\n").as_bytes());
        self.expect("250");
        self.expect("250");
        self.expect("354");
        self.say(bytes);
        self.say(b".\r\n");
        self.expect("250");
    }
}

/// Sends all of them over so many sessions.
pub fn sent(to: SocketAddr, sessions: usize, letters: &[Letter]) {
    let next = AtomicUsize::new(0);
    scope(|scope| {
        for _ in 0..sessions {
            scope.spawn(|| {
                let mut talk = Talk::open(to);
                while let Some(letter) = letters.get(next.fetch_add(1, Ordering::Relaxed)) {
                    talk.send(letter);
                }
            });
        }
    });
}

/// Sends `count` letters at `pace` a second over so many sessions; the median and the 99th of a
/// hundred of what each waited, from the moment when it was due, in microseconds.
///
/// Why from then: a slow answer must not make the load lighter.
pub fn paced(to: SocketAddr, sessions: usize, pace: f64, count: usize) -> (f64, f64) {
    let body =
        "The quick brown fox jumps over the lazy dog, and the dog lets it pass.\r\n".repeat(38);
    let began = Instant::now();
    let mut waits: Vec<f64> = scope(|scope| {
        let handles: Vec<_> = (0..sessions)
            .map(|session| {
                let body = &body;
                scope.spawn(move || {
                    let mut talk = Talk::open(to);
                    let mut waits = Vec::new();
                    for n in (session..count).step_by(sessions) {
                        let to = "someone@elsewhere.example".to_owned();
                        let id = format!("{}-{n}", began.elapsed().as_nanos());
                        let text = letter("joe@far.example", &to, &id) + body;
                        let from = "joe@far.example";
                        let letter = Letter { from, to, bytes: text.into_bytes() };
                        let due = began + Duration::from_secs_f64(n as f64 / pace);
                        sleep(due.saturating_duration_since(Instant::now()));
                        talk.send(&letter);
                        waits.push(due.elapsed().as_secs_f64() * 1e6);
                    }
                    waits
                })
            })
            .collect();
        handles.into_iter().flat_map(|handle| handle.join().unwrap()).collect()
    });
    waits.sort_by(f64::total_cmp);
    (waits[waits.len() / 2], waits[waits.len() * 99 / 100])
}
