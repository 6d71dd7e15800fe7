//! What the milter tap costs beside OpenDKIM with OpenDMARC, and beside rspamd with the same
//! checks.
//!
//! Method: this program is the MTA: 20 connections at once, one message a connection, every message
//! with its own Message-ID and an RSA-2048 signature, DNS on loopback, caches warm. Each filter is
//! offered everything that Postfix 3.7 offers. Counted is the CPU time of the filter's processes
//! (/proc, user and system), not of this one. Run by `scripts/bench taps`, which gives it a network
//! of its own: the filters ask DNS at port 53.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measure that cannot be taken ends"
)]

#[path = "../tests/support/dns.rs"]
mod dns;
#[allow(dead_code, reason = "another measure needs more of it")]
#[path = "shared/processes.rs"]
mod processes;

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::prelude::{BASE64_STANDARD, Engine};
use mail_auth::common::crypto::{RsaKey, Sha256};
use mail_auth::common::headers::HeaderWriter;
use mail_auth::dkim::{DkimSigner, Done};
use replyguard::wire::milter::frame;
use rustls_pki_types::PrivatePkcs8KeyDer;

use crate::processes::{OWN_TIME, mib, ticks};

const CONNECTIONS: usize = 20;
const WARM_UP: usize = 200;
const ROUNDS: usize = 3;

/// Messages of each size, in bytes.
const LOADS: [(&str, usize, usize); 2] = [("3 KB", 3_000, 4_000), ("100 KB", 100_000, 600)];

fn main() {
    if std::env::args().any(|argument| argument == "--version") {
        return;
    }
    let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let public: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    let public = BASE64_STANDARD.encode(public.as_ref());
    let dns = dns::TestDns::start_at("127.0.0.1:53", &zone(&public));
    let place = Place::new();
    let milters = [
        place.replyguard("replyguard", 10_025, "embedded"),
        place.replyguard("replyguard, no memory", 10_029, "none"),
        place.opendkim(10_026),
        place.opendmarc(10_027),
        place.rspamd(10_028),
    ];
    println!(
        "{:<8} {:<24} {:>10} {:>12} {:>10} {:>10}",
        "", "", "messages/s", "CPU us each", "peak MiB", "heap MiB"
    );
    for (size, bytes, count) in LOADS {
        let signer = signer(&key);
        let letters: Vec<Letter> =
            (0..count + WARM_UP).map(|n| Letter::signed(&signer, n, bytes)).collect();
        let mut figures = Vec::new();
        for milter in &milters {
            let letters: Vec<&Letter> = letters.iter().collect();
            let (warm, rest) = letters.split_at(WARM_UP);
            milter.load(warm);
            let mut found: Vec<Figure> = (0..ROUNDS).map(|_| milter.load(rest)).collect();
            found.sort_by(|one, other| one.cpu.total_cmp(&other.cpu));
            let Figure { cpu, rate } = found.swap_remove(ROUNDS / 2);
            let name = milter.name;
            let (peak, private) = (milter.mib("VmHWM"), milter.mib("RssAnon"));
            println!("{size:<8} {name:<24} {rate:>10.0} {cpu:>12.0} {peak:>10.0} {private:>10.0}");
            figures.push(cpu);
        }
        let [ours, _, dkim, dmarc, rspamd] = figures.as_slice() else { continue };
        println!(
            "{size:<8} ours is {:.3} of OpenDKIM + OpenDMARC, {:.3} of rspamd\n",
            ours / (dkim + dmarc),
            ours / rspamd
        );
    }
    let asked = dns.asked().len();
    println!("questions to DNS in all: {asked}");
}

fn zone(public_key: &str) -> String {
    let (first, rest) = public_key.split_at(200);
    format!(
        "far.example TXT \"v=spf1 ip4:192.0.2.55 -all\"\nfar.example MX 10 mx.far.example\n\
         mx.far.example A 192.0.2.55\nmail.far.example A 192.0.2.55\n\
         55.2.0.192.in-addr.arpa PTR mail.far.example\n\
         s._domainkey.far.example TXT \"v=DKIM1; k=rsa; p={first}\" \"{rest}\"\n\
         _dmarc.far.example TXT \"v=DMARC1; p=reject\"\n"
    )
}

type Signer = DkimSigner<RsaKey<Sha256>, Done>;

fn signer(key: &KeyPair) -> Signer {
    let key: Pkcs8V1Der<'_> = key.as_der().unwrap();
    let key =
        RsaKey::<Sha256>::from_key_der(PrivatePkcs8KeyDer::from(key.as_ref()).into()).unwrap();
    let signer = DkimSigner::from_key(key).domain("far.example").selector("s");
    signer.headers(["From", "To", "Subject", "Date", "Message-ID"])
}

/// A message as a milter is told of it.
struct Letter {
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Letter {
    fn signed(signer: &Signer, number: usize, bytes: usize) -> Letter {
        let line = "The quick brown fox jumps over the lazy dog, and the dog lets it pass.\r\n";
        let body = line.repeat(bytes / line.len());
        let header = format!(
            "Received: from laptop (unknown [198.51.100.7])\r\n\tby mail.far.example (Postfix) with \
             ESMTPSA id 4{number:06}\r\n\tfor <alice@ours.example>; Sat, 21 Nov 2026 17:38:58 \
             +0000\r\nFrom: Joe <joe@far.example>\r\nTo: alice@ours.example\r\nSubject: Offer \
             {number}\r\nDate: Sat, 21 Nov 2026 17:38:58 +0000\r\nMessage-ID: \
             <{number}.{bytes}@far.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n"
        );
        let whole = format!("{header}\r\n{body}");
        let signature = signer.sign(whole.as_bytes()).unwrap().to_header();
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in format!("{signature}{header}").split_terminator("\r\n") {
            match (line.split_once(':'), line.starts_with([' ', '\t'])) {
                (Some((name, value)), false) => fields.push((name.into(), value.trim().into())),
                _ => {
                    let (_, value) = fields.last_mut().unwrap();
                    value.push('\n');
                    value.push_str(line);
                }
            }
        }
        Letter { fields, body: body.into_bytes() }
    }
}

/// A filter that runs.
struct Milter {
    name: &'static str,
    port: u16,
    /// What the filter before it would have put on top.
    above: Option<(String, String)>,
    process: Child,
}

struct Figure {
    /// Microseconds of CPU a message.
    cpu: f64,
    /// Messages a second.
    rate: f64,
}

impl Milter {
    fn load(&self, letters: &[&Letter]) -> Figure {
        let next = AtomicUsize::new(0);
        let (before, began) = (self.ticks(), Instant::now());
        scope(|scope| {
            for _ in 0..CONNECTIONS {
                scope.spawn(|| {
                    while let Some(letter) = letters.get(next.fetch_add(1, Ordering::Relaxed)) {
                        self.tell(letter).unwrap();
                    }
                });
            }
        });
        let (took, count) = (began.elapsed().as_secs_f64(), letters.len() as f64);
        // Why the wait: what is done behind the answer is part of the cost.
        sleep(Duration::from_millis(500));
        let cpu = (self.ticks() - before) as f64 * 10_000.0 / count;
        Figure { cpu, rate: count / took }
    }

    /// One message over one connection.
    fn tell(&self, letter: &Letter) -> io::Result<()> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_nodelay(true)?;
        let mut talk = Talk { stream, steps: 0, pending: Vec::new() };
        let offer = [6_u32, 0x1ff, 0x1f_ffff].map(u32::to_be_bytes).concat();
        talk.say(b'O', &offer);
        let (_, answer) = talk.hear()?;
        talk.steps = u32::from_be_bytes(answer[8..12].try_into().unwrap());
        talk.say(b'D', b"Cj\0mx.ours.example\0{daemon_name}\0mx.ours.example\0v\0Postfix 3.7.11\0");
        let mut connect = b"mail.far.example\x004".to_vec();
        connect.extend(40_000_u16.to_be_bytes());
        connect.extend(b"192.0.2.55\0");
        talk.step(b'C', &connect, 0x01, 0x1000)?;
        talk.step(b'H', b"mail.far.example\0", 0x02, 0x2000)?;
        talk.say(b'D', b"M{mail_addr}\0joe@far.example\0{mail_host}\0far.example\0");
        talk.step(b'M', b"<joe@far.example>\0", 0x04, 0x4000)?;
        talk.say(b'D', b"R{rcpt_addr}\0alice@ours.example\0");
        talk.step(b'R', b"<alice@ours.example>\0", 0x08, 0x8000)?;
        talk.say(b'D', b"Ti\x004WxYz1234\0");
        talk.step(b'T', b"", 0x200, 0x1_0000)?;
        for (name, value) in self.above.iter().chain(&letter.fields) {
            talk.step(b'L', format!("{name}\0{value}\0").as_bytes(), 0x20, 0x80)?;
        }
        talk.say(b'D', b"Ni\x004WxYz1234\0");
        talk.step(b'N', b"", 0x40, 0x4_0000)?;
        for chunk in letter.body.chunks(65_535) {
            if talk.step(b'B', chunk, 0x10, 0x8_0000)? == b's' {
                break;
            }
        }
        talk.say(b'D', b"Ei\x004WxYz1234\0");
        talk.say(b'E', b"");
        loop {
            match talk.hear()?.0 {
                b'a' | b'c' | b'd' | b'r' | b't' | b'y' => break,
                _ => {}
            }
        }
        talk.say(b'Q', b"");
        talk.flush()
    }

    /// CPU time in hundredths of a second.
    fn ticks(&self) -> u64 {
        ticks(self.process.id(), OWN_TIME)
    }

    /// `VmHWM` is the peak with the program's own text and libraries, `RssAnon` what it has now
    /// without them.
    fn mib(&self, name: &str) -> f64 {
        mib(self.process.id(), name)
    }
}

impl Drop for Milter {
    fn drop(&mut self) {
        let group = format!("-{}", self.process.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.process.wait();
    }
}

/// A connection to a milter. What needs no answer is sent with the next that does.
struct Talk {
    stream: TcpStream,
    /// What the milter agreed to in the negotiation.
    steps: u32,
    pending: Vec<u8>,
}

impl Talk {
    fn say(&mut self, letter: u8, data: &[u8]) {
        self.pending.extend(frame(letter, data));
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&std::mem::take(&mut self.pending))
    }

    fn hear(&mut self) -> io::Result<(u8, Vec<u8>)> {
        self.flush()?;
        let mut head = [0; 5];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes(head[..4].try_into().unwrap());
        let mut data = vec![0; length as usize - 1];
        self.stream.read_exact(&mut data)?;
        Ok((head[4], data))
    }

    /// Says it unless it is not wanted; gives the answer, where one comes.
    fn step(&mut self, letter: u8, data: &[u8], unwanted: u32, quiet: u32) -> io::Result<u8> {
        if self.steps & unwanted != 0 {
            return Ok(b'c');
        }
        self.say(letter, data);
        match self.steps & quiet {
            0 => Ok(self.hear()?.0),
            _ => Ok(b'c'),
        }
    }
}

/// Where the filters live: in the folder that `scripts/setup` unpacks.
struct Place {
    root: PathBuf,
    state: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let servers = std::env::var_os("REPLYGUARD_SERVERS");
        let servers = servers.map_or_else(|| PathBuf::from("target/servers"), PathBuf::from);
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(servers).join("root");
        assert!(
            root.join("usr/bin/rspamd").exists(),
            "no filters there: run scripts/setup as root"
        );
        fs::create_dir_all(root.join("i/taps")).unwrap();
        Place { root, state: tempfile::tempdir().unwrap() }
    }

    fn replyguard(&self, name: &'static str, port: u16, store: &str) -> Milter {
        let state = self.state.path().join(store);
        fs::create_dir(&state).unwrap();
        let config = format!(
            "hostname = \"guard.ours.example\"\nstate_dir = \"{}\"\n[outbound]\nlisten = \
             [\"127.0.0.1:0\"]\nnext_hop = [\"127.0.0.1:10023\"]\n[local]\ndomains = \
             [\"ours.example\"]\n[dns]\nservers = [\"127.0.0.1:53\"]\n[tap.milter]\nlisten = \
             [\"127.0.0.1:{port}\"]\nauthserv_id = \"mx.ours.example\"\n[store]\nbackend = \"{store}\"\n\
             [admin]\nconsole = \"\"\n",
            state.display()
        );
        let file = state.join("replyguard.toml");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_replyguard"));
        command.arg("run").arg("--config").arg(file);
        started(name, port, None, command)
    }

    fn opendkim(&self, port: u16) -> Milter {
        let config = format!(
            "Socket inet:{port}@127.0.0.1\nMode v\nSyslog no\nAlwaysAddARHeader yes\n\
             AuthservID mx.ours.example\nPidFile /i/taps/opendkim.pid\n"
        );
        started(
            "OpenDKIM",
            port,
            None,
            self.inside("/usr/sbin/opendkim", "-x", "opendkim.conf", &config),
        )
    }

    fn opendmarc(&self, port: u16) -> Milter {
        let config = format!(
            "Socket inet:{port}@127.0.0.1\nSyslog false\nAuthservID mx.ours.example\n\
             TrustedAuthservIDs mx.ours.example\nSPFSelfValidate true\nSPFIgnoreResults true\n\
             PidFile /i/taps/opendmarc.pid\n\
             PublicSuffixList /usr/share/publicsuffix/public_suffix_list.dat\n"
        );
        let above = (
            "Authentication-Results".to_owned(),
            "mx.ours.example;\n\tdkim=pass (2048-bit key; unprotected) header.d=far.example \
             header.i=@far.example header.a=rsa-sha256 header.s=s"
                .to_owned(),
        );
        let command = self.inside("/usr/sbin/opendmarc", "-c", "opendmarc.conf", &config);
        started("OpenDMARC with SPF", port, Some(above), command)
    }

    fn rspamd(&self, port: u16) -> Milter {
        let config = format!(
            "options {{ pidfile = \"/i/taps/rspamd.pid\"; filters = \"dkim\"; tempdir = \"/tmp\"; \
             cache_file = \"/i/taps/symbols.cache\"; hs_cache_dir = \"/i/taps\"; url_tld = \
             \"/usr/share/rspamd/effective_tld_names.dat\"; local_addrs = []; dns {{ nameserver = \
             [\"127.0.0.1\"]; }} }}\n\
             logging {{ type = \"file\"; filename = \"/i/taps/rspamd.log\"; level = \"error\"; }}\n\
             worker \"rspamd_proxy\" {{ bind_socket = \"127.0.0.1:{port}\"; milter = yes; timeout = \
             120s; count = 2; upstream \"local\" {{ default = yes; self_scan = yes; }} }}\n\
             modules {{ path = [\"/usr/share/rspamd/plugins/spf.lua\", \
             \"/usr/share/rspamd/plugins/dmarc.lua\"]; }}\n\
             spf {{ }} dkim {{ }} dmarc {{ }}\n\
             actions {{ reject = 150; add_header = 60; greylist = 40; }}\n"
        );
        let mut command = self.inside("/usr/bin/rspamd", "-c", "rspamd.conf", &config);
        command.arg("-i");
        started("rspamd, these checks", port, None, command)
    }

    /// A command with the folder as its root, in the foreground, with this configuration.
    fn inside(&self, program: &str, flag: &str, name: &str, config: &str) -> Command {
        fs::write(self.root.join("i/taps").join(name), config).unwrap();
        let mut command = Command::new("chroot");
        command.arg(&self.root).arg(program).args(["-f", flag, &format!("/i/taps/{name}")]);
        command
    }
}

fn started(
    name: &'static str,
    port: u16,
    above: Option<(String, String)>,
    mut command: Command,
) -> Milter {
    let process = command.process_group(0).stdout(Stdio::null()).spawn().unwrap();
    let milter = Milter { name, port, above, process };
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(180), "{name} does not listen");
        sleep(Duration::from_millis(100));
    }
    milter
}
