//! Exim, whose users are away: its own `autoreply`, judged by the SMTP pass-through or by what its
//! ACL posts. Exim answers everything that its router leads there: lists and programs too.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use serde_json::Value;

use crate::claim::Port;
use crate::client::{Client, Mail};
use crate::guard::{self, Guard};
use crate::mail::letter;
use crate::servers::exim::{self, Exim};
use crate::servers::{missing, shipped};
use crate::sink::Sink;
use crate::skipped::skipped;
use crate::taps::Signer;
use crate::taps::host::{ALICE, AUTHENTICATED, FAILED, ZONE, outcome};
use crate::wait::until;

/// Everybody is away, and answers whatever has a MAIL FROM.
const AWAY_ROUTER: &str = "\
away:
  driver = accept
  domains = +local_domains
  condition = ${if !eq{$sender_address}{}}
  transport = away
  unseen
";

const AWAY_TRANSPORT: &str = "\
away:
  driver = autoreply
  from = $local_part@$domain
  to = $sender_address
  subject = Away: $h_subject:
  text = I am away.
";

/// Where `far.example` sends from, and where nobody does, when the client's address must be real.
const ADDRESSES: [&str; 2] = ["192.0.2.156", "198.51.100.166"];

/// Addresses of this machine, which a pass-through sees as those of strangers; gone when dropped.
struct Strangers;

impl Strangers {
    /// `None`, said by the test's name, where addresses may not be added.
    fn arrive() -> Option<Strangers> {
        let added = ADDRESSES.iter().all(|address| Self::ip("replace", address));
        if !added {
            skipped("it needs addresses of its own: root, and the program `ip`");
        }
        added.then_some(Strangers)
    }

    fn ip(verb: &str, address: &str) -> bool {
        let mut command = Command::new("ip");
        command.args(["address", verb, &format!("{address}/32"), "dev", "lo"]);
        command.output().is_ok_and(|output| output.status.success())
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        for address in ADDRESSES {
            Self::ip("delete", address);
        }
    }
}

struct MailHost {
    sink: Sink,
    guard: Guard,
    exim: Exim,
    tap: Tap,
    port: Port,
}

/// Which tap Exim has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tap {
    Smtp,
    Acl,
}

impl MailHost {
    fn start(tap: Tap, zone: &str) -> MailHost {
        let (sink, port, border) = (Sink::smtp(), Port::claim(), Port::claim());
        let settings = guard::Settings::before(sink.address());
        let settings = match tap {
            Tap::Smtp => settings
                .set("local.networks", vec!["127.0.0.1/32"])
                .set("tap.smtp.listen", vec![format!("0.0.0.0:{}", port.number())])
                .set("tap.smtp.next_hop", vec![border.address().to_string()])
                .set("tap.smtp.client", "proxy"),
            Tap::Acl => settings.set("tap.http.listen", vec![port.address().to_string()]),
        };
        let guard = Guard::start(settings);
        guard.dns().set_zone(zone);
        let listener = format!("inet:127.0.0.1:{}", port.number());
        let acl = || shipped("exim/tap", &[("inet:127.0.0.1:10028", &listener)]);
        let settings = exim::Settings {
            next_hop: Some(guard.address()),
            routers: AWAY_ROUTER.to_owned(),
            transports: AWAY_TRANSPORT.to_owned(),
            acl_data: if tap == Tap::Acl { acl() } else { String::new() },
            ..exim::Settings::default()
        };
        let exim = Exim::start_at(border, &settings);
        MailHost { sink, guard, exim, tap, port }
    }

    /// A client with the address of `far.example`, or another.
    fn from(&self, is_genuine: bool) -> Client {
        let address = ADDRESSES[usize::from(!is_genuine)];
        match self.tap {
            // Why to that address: then it is the client's own as well.
            Tap::Smtp => {
                let ip: IpAddr = address.parse().unwrap();
                Client::open(SocketAddr::new(ip, self.port.number()))
            }
            Tap::Acl => Client::from_outside(self.exim.border(), address, "mail.far.example"),
        }
    }

    /// Hands in a letter to alice, who is away, and gives the record of her answer.
    fn judged(&self, is_genuine: bool, mail_from: &str, text: &str) -> Value {
        let before = self.guard.audit_of(mail_from).len();
        self.from(is_genuine).deliver(&Mail::new(mail_from, &[ALICE], text));
        until(&format!("a record about a reply to <{mail_from}>"), || {
            let mut records = self.guard.audit_of(mail_from);
            records.retain(|record| record["action"] != "defer");
            (records.len() > before).then(|| records.pop()).flatten()
        })
    }

    /// What comes of each kind of letter that alice's Exim answers.
    fn answers_the_genuine_alone(&self) {
        let judged = |is_genuine: bool, mail_from: &str, text: &str| {
            outcome(&self.judged(is_genuine, mail_from, text))
        };
        let joe = "joe@far.example";
        assert_eq!(judged(true, joe, &letter(joe, ALICE, "1")), AUTHENTICATED);
        let eve = "eve@far.example";
        assert_eq!(judged(false, eve, &letter(eve, ALICE, "2")), FAILED);
        // Nothing to find it by but the two addresses: Exim answers without In-Reply-To.
        let bare =
            |from: &str| letter(from, ALICE, "3").replace("Message-ID: <3@sender.example>\r\n", "");
        for (is_genuine, from, wanted) in
            [(true, "ann@far.example", AUTHENTICATED), (false, "tom@far.example", FAILED)]
        {
            assert_eq!(judged(is_genuine, from, &bare(from)), wanted);
        }
        // Lists and programs want no answer, whoever they are.
        for (front, from, reason) in [
            ("List-Id: <chat.far.example>", "chat@far.example", "subject-list"),
            ("Auto-Submitted: auto-generated", "cron@far.example", "subject-automatic"),
        ] {
            let text = format!("{front}\r\n{}", letter(from, ALICE, reason));
            let record = self.judged(true, from, &text);
            assert_eq!(
                (&record["action"], &record["reason"]),
                (&"quarantine".into(), &reason.into())
            );
        }
        self.exim.drained();
        let taken = self.sink.taken();
        let answered: Vec<&str> = taken.iter().flat_map(|reply| reply.addresses()).collect();
        assert_eq!(answered, [joe, "ann@far.example"]);
        assert_eq!(self.exim.frozen(), 0);
    }
}

fn zone(more: &str) -> String {
    format!("{}{more}\n", ZONE.replace("192.0.2.55", ADDRESSES[0]))
}

/// Goal: Exim has no milters and is served all the same. Method: the pass-through before a real
/// Exim, which is told the client's address by the PROXY protocol.
#[test]
fn exim_behind_the_pass_through() {
    if missing() {
        return;
    }
    let Some(_strangers) = Strangers::arrive() else { return };
    let signer = Signer::of("signed.example");
    let host = MailHost::start(Tap::Smtp, &zone(signer.zone()));
    host.answers_the_genuine_alone();
    // Nobody sends for it, but it signs.
    let text = signer.sign(&letter("x@signed.example", ALICE, "4"));
    assert_eq!(outcome(&host.judged(false, "x@signed.example", &text)), AUTHENTICATED);
}

/// Goal: nor must its port be moved: its ACL tells what comes in. Method: the shipped lines.
#[test]
fn exims_acl_tells_what_comes_in() {
    if missing() {
        return;
    }
    let mut host = MailHost::start(Tap::Acl, &zone(""));
    host.answers_the_genuine_alone();
    // Quotes, braces and dollars of strangers are only text.
    let odd = "\"a{b}$h_from:\"@far.example";
    let record = host.judged(true, odd, &letter(odd, ALICE, "${run{/bin/false}} \\r\\n \"{x}"));
    assert_eq!(outcome(&record), AUTHENTICATED);
    // Without the guard mail comes in, and the answers wait.
    host.guard.crash();
    let kim = "kim@far.example";
    host.from(true).deliver(&Mail::new(kim, &[ALICE], letter(kim, ALICE, "5")));
    host.guard.resume();
    until("the answer that has waited", || host.guard.audit_of(kim).pop());
    assert!(!host.exim.log().contains("failed to expand"), "{}", host.exim.log());
}
