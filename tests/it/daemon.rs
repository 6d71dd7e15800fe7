//! The binary as a daemon of its own process: what it gives up, and what it never tells.

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use replyguard::config::{Config, World};
use replyguard::serve::sandbox;
use replyguard::tls::client::{Connector, Trust};
use rustix::process::{Pid, Signal, kill_process};
use rustls_pki_types::ServerName;

use crate::certificates::{Authority, Dates};
use crate::dns::TestDns;
use crate::rig::NOW;

/// A daemon before a next hop that takes everything.
struct Daemon {
    child: Child,
    /// What it wrote to its log so far.
    log: String,
    lines: Receiver<String>,
    front: SocketAddr,
    folder: PathBuf,
    /// Whether its next hop refuses whom it knows, and repeats what it was told.
    refuses: Arc<AtomicBool>,
    _dns: TestDns,
}

/// How long a daemon may be silent before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);

const ZONE: &str = "
    victim.example MX 10 mx.victim.example
    victim.example TXT \"v=spf1 -all\"
    _dmarc.victim.example TXT \"v=DMARC1; p=reject\"
    friend.example MX 10 mx.friend.example";

impl Daemon {
    /// Starts it in this folder, with these keys behind the usual ones, and waits until it listens.
    fn start(folder: &Path, level: &str, more: &str) -> Daemon {
        Daemon::start_with(folder, level, "", more)
    }

    /// The same with more of `[outbound]`.
    fn start_with(folder: &Path, level: &str, outbound: &str, more: &str) -> Daemon {
        let (next_hop, refuses) = next_hop();
        let dns = TestDns::start(ZONE);
        let text = format!(
            "mode = \"enforce\"\nhostname = \"guard.uni.example\"\nstate_dir = \"{}/state\"\n\
             sandbox = \"best-effort\"\n\
             [outbound]\nlisten = [\"127.0.0.1:0\"]\nnext_hop = [\"{next_hop}\"]\n{outbound}\
             [dns]\nservers = [\"{}\"]\n\
             [local]\ndomains = [\"uni.example\"]\nhosts = [\"mx.uni.example\"]\n\
             authserv_ids = [\"mx.uni.example\"]\nauthserv_stripped = true\n\
             [admin]\nconsole = \"\"\n{more}",
            folder.display(),
            dns.address(),
        );
        std::fs::create_dir_all(folder.join("etc")).unwrap();
        std::fs::write(folder.join("etc/replyguard.toml"), text).unwrap();
        let mut child = replyguard(folder, &["run"])
            .env("REPLYGUARD_LOG", level)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (say, lines) = channel();
        let errors = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || errors.lines().try_for_each(|line| say.send(line.unwrap())));
        let front = SocketAddr::from(([127, 0, 0, 1], 0));
        let folder = folder.to_owned();
        let log = String::new();
        let mut daemon = Daemon { child, log, lines, front, folder, refuses, _dns: dns };
        let line = daemon.heard("listening");
        let at = line.rsplit("127.0.0.1:").next().unwrap();
        let port: String = at.chars().take_while(char::is_ascii_digit).collect();
        daemon.front.set_port(port.parse().unwrap());
        daemon
    }

    /// The next line of its log with these words.
    fn heard(&mut self, words: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|why| panic!("no {words:?}: {why}:\n{}", self.log));
            self.log.push_str(&line);
            self.log.push('\n');
            if line.contains(words) {
                return line;
            }
        }
    }

    fn reload(&self) {
        let id = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(id, Signal::HUP).unwrap();
    }

    /// Hands a message in; gives the last reply.
    fn mail(&self, from: &str, to: &str, message: &str) -> String {
        let mut stream = TcpStream::connect(self.front).unwrap();
        let mut replies = BufReader::new(stream.try_clone().unwrap());
        let mut reply = || {
            let mut line = String::new();
            while line.as_bytes().get(3) != Some(&b' ') {
                line.clear();
                assert!(replies.read_line(&mut line).unwrap() > 0, "it hung up");
            }
            line
        };
        reply();
        let commands = ["EHLO mta.uni.example", &format!("MAIL FROM:<{from}>")];
        let commands = commands.into_iter().map(str::to_owned);
        for command in commands.chain([format!("RCPT TO:<{to}>"), "DATA".to_owned()]) {
            stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
            reply();
        }
        let message = message.replace('\n', "\r\n");
        stream.write_all(format!("{message}\r\n.\r\n").as_bytes()).unwrap();
        let last = reply();
        stream.write_all(b"QUIT\r\n").unwrap();
        last
    }

    /// Says MAIL; gives the reply.
    fn says_to_mail(&self, from: &str) -> String {
        let mut stream = TcpStream::connect(self.front).unwrap();
        let mut replies = BufReader::new(stream.try_clone().unwrap());
        stream.write_all(b"HELO mta.uni.example\r\n").unwrap();
        stream.write_all(format!("MAIL FROM:<{from}>\r\nQUIT\r\n").as_bytes()).unwrap();
        let mut said = String::new();
        replies.read_to_string(&mut said).unwrap();
        said.lines().nth(2).unwrap().to_owned()
    }

    /// Makes a handshake with it, as a client that trusts anybody.
    fn shake_hands(&self) {
        let mut stream = TcpStream::connect(self.front).unwrap();
        stream.write_all(b"EHLO mta.uni.example\r\nSTARTTLS\r\n").unwrap();
        let mut replies = BufReader::new(stream.try_clone().unwrap()).lines();
        assert!(replies.any(|line| line.as_ref().unwrap().starts_with("220 2.0.0")));
        stream.set_nonblocking(true).unwrap();
        let connector = Connector::new(Trust::Anyone).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let name = ServerName::try_from("guard.uni.example").unwrap();
            assert!(connector.connect(name, stream).await.is_ok());
        });
    }

    /// What a page of its says.
    fn page(&self, page: &str) -> String {
        let mut stream = UnixStream::connect(self.folder.join("state/admin.sock")).unwrap();
        write!(stream, "GET {page} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Stops it; gives its whole log.
    fn stopped(mut self) -> String {
        let id = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(id, Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        self.lines.iter().for_each(|line| self.log.push_str(&(line + "\n")));
        std::mem::take(&mut self.log)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn replyguard(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_replyguard"));
    command.args(arguments).arg("--config").arg(folder.join("etc/replyguard.toml"));
    command.env_remove("NOTIFY_SOCKET").env("NO_COLOR", "1");
    command
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

/// A next hop that says yes to everything, as long as the test runs and nobody says otherwise.
fn next_hop() -> (SocketAddr, Arc<AtomicBool>) {
    let refuses = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&refuses);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let refuses = Arc::clone(&told);
            std::thread::spawn(move || takes_everything(stream.unwrap(), &refuses));
        }
    });
    (address, refuses)
}

fn takes_everything(mut stream: TcpStream, refuses: &AtomicBool) -> std::io::Result<()> {
    let lines = BufReader::new(stream.try_clone()?).lines();
    stream.write_all(b"220 hop.example\r\n")?;
    let mut in_data = false;
    for line in lines {
        let line = line?;
        let refusal = format!("535 5.7.8 you say {line}\r\n");
        let reply: &[u8] = match line.get(..4).unwrap_or(&line) {
            "AUTH" if refuses.load(Ordering::Relaxed) => refusal.as_bytes(),
            "AUTH" => b"235 2.7.0 welcome\r\n",
            "MAIL" if refuses.load(Ordering::Relaxed) => return Ok(()),
            "." if in_data => b"250 2.0.0 taken\r\n",
            _ if in_data => continue,
            "DATA" => b"354 go on\r\n",
            "EHLO" => b"250-hop.example\r\n250-PIPELINING\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n",
            _ => b"250 2.0.0 yes\r\n",
        };
        in_data = line == "DATA";
        stream.write_all(reply)?;
    }
    Ok(())
}

/// A bounce to somebody whose address was forged: our border saw his SPF fail.
fn bounce(number: u32, to: &str) -> String {
    format!(
        "Return-Path: <>\nReceived: by mx.uni.example (Postfix)\n\tid Q{number}; \
         Sat, 21 Nov 2026 12:00:00 +0000\nFrom: MAILER-DAEMON@mx.uni.example\nTo: {to}\n\
         Subject: Undelivered Mail Returned to Sender\nAuto-Submitted: auto-replied\n\
         MIME-Version: 1.0\nContent-Type: multipart/report; report-type=delivery-status;\n \
         boundary=\"b\"\nMessage-ID: <bounce{number}@mx.uni.example>\n\n--b\n\nfailed\n--b\n\
         Content-Type: message/delivery-status\n\nReporting-MTA: dns; mx.uni.example\n\n\
         Final-Recipient: rfc822; nobody@uni.example\nAction: failed\nStatus: 5.1.1\n\n--b\n\
         Content-Type: message/rfc822\n\nReturn-Path: <{to}>\n\
         Authentication-Results: mx.uni.example; spf=fail smtp.mailfrom={to}; dmarc=fail \
         header.from=victim.example\nReceived: from bot.example (bot.example [192.0.2.66])\n\tby \
         mx.uni.example (Postfix) with ESMTP id Q{number}; Sat, 21 Nov 2026 12:00:00 +0000\n\
         From: {to}\nTo: nobody@uni.example\nSubject: cheap\nMessage-ID: <{number}@victim.example>\n\
         \nspam\n--b--\n"
    )
}

const LETTER: &str = "From: ann@uni.example\nTo: joe@friend.example\nSubject: hello\n\
                      Message-ID: <1@uni.example>\n\nhello\n";

/// Whether this kernel can do all of it; says so when not.
fn is_whole(status: &str) -> bool {
    let whole = status.contains("\"sandbox\":\"files and system calls\"");
    if !whole {
        crate::skipped::skipped("this kernel has no Landlock, or no seccomp");
    }
    whole
}

/// Goal: the sandbox costs no mail, and a reload that it stands against is refused with a reason.
/// Method: the real daemon in it; a letter goes out, a bounce is held, a list is named that lies in
/// a folder that it did not know at its start, then one that it knew.
#[test]
fn in_its_sandbox_mail_flows_and_a_reload_stays_within() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(folder.path(), "info", "");
    assert!(daemon.mail("ann@uni.example", "joe@friend.example", LETTER).starts_with("250"));
    let held = daemon.mail("", "joe@victim.example", &bounce(1, "joe@victim.example"));
    assert!(held.starts_with("250 2.0.0 suppressed"), "{held}");
    let in_quarantine = std::fs::read_dir(folder.path().join("state/quarantine")).unwrap();
    let is_mail = |name: &Path| name.extension().is_some_and(|end| end == "eml");
    assert_eq!(in_quarantine.filter(|entry| is_mail(&entry.as_ref().unwrap().path())).count(), 1);
    if !is_whole(&daemon.page("/status")) {
        return;
    }
    let shown = said(&replyguard(folder.path(), &["status"]).output().unwrap());
    assert!(shown.contains("sandbox     files and system calls"), "{shown}");

    let config = folder.path().join("etc/replyguard.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    for (place, words) in
        [("elsewhere", "the sandbox was closed at the start"), ("etc", "read again")]
    {
        let list = folder.path().join(place).join("deny");
        std::fs::create_dir_all(list.parent().unwrap()).unwrap();
        std::fs::write(&list, "friend.example\n").unwrap();
        let text = format!("{text}[lists]\ndeny_file = \"{}\"\n", list.display());
        std::fs::write(&config, text).unwrap();
        daemon.reload();
        daemon.heard(words);
        assert!(daemon.mail("ann@uni.example", "joe@friend.example", LETTER).starts_with("250"));
    }
    let log = daemon.stopped();
    assert!(log.contains("the old one stays"), "{log}");
}

/// Names the folder to the child.
const FOLDER: &str = "REPLYGUARD_TEST_SANDBOX";

/// The child: gives up what it does not need, tries what an intruder would, and says what came of it.
#[test]
#[ignore = "runs as the child of another test; what it gives up, it does not get back"]
fn gives_up_what_it_does_not_need() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let world =
        World { hostname: "guard.example".to_owned(), state_dir: folder.join("state"), now: NOW };
    let config = Config::read("test", "", &folder, &world).unwrap();
    let in_force = sandbox::enter(&config, Some(&folder.join("etc/replyguard.toml"))).unwrap();
    println!("in force: {in_force}");
    let tries = move || {
        let told = |what: &str, done: std::io::Result<()>| match done {
            Ok(()) => println!("{what}: done"),
            Err(fault) => println!("{what}: {:?}", fault.kind()),
        };
        let run = || Command::new("/bin/true").status().map(drop);
        told("run a program", run());
        told("read outside", std::fs::read(folder.join("outside")).map(drop));
        told("write outside", std::fs::write(folder.join("new"), "x"));
        told("write the configuration", std::fs::write(folder.join("etc/new"), "x"));
        told("read the configuration", std::fs::read(folder.join("etc/list")).map(drop));
        told("write state", std::fs::write(folder.join("state/new"), "x"));
        told("rename state", std::fs::rename(folder.join("state/new"), folder.join("state/old")));
        told("look up", std::fs::read("/etc/hosts").map(drop));
        // What Landlock would let pass here, and seccomp does not.
        let pipe = folder.join("state/pipe");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
        let made = rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0);
        told("make a pipe", made.map_err(Into::into));
    };
    tries();
    println!("in another thread");
    std::thread::spawn(tries).join().unwrap();
}

/// Goal: an intruder finds closed what the guard has no business with, in every thread.
/// Method: a child process gives it up and tries.
#[test]
fn an_intruder_finds_closed_what_the_guard_does_not_need() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("etc")).unwrap();
    for file in ["outside", "etc/list"] {
        std::fs::write(folder.path().join(file), "x").unwrap();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "daemon::gives_up_what_it_does_not_need", "--ignored", "--nocapture"])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let said = said(&output);
    if !said.contains("in force: files and system calls") {
        return crate::skipped::skipped(&format!("this kernel does not give it all: {said}"));
    }
    let wanted = [
        ("run a program", "PermissionDenied"),
        ("read outside", "PermissionDenied"),
        ("write outside", "PermissionDenied"),
        ("write the configuration", "PermissionDenied"),
        ("read the configuration", "done"),
        ("write state", "done"),
        ("rename state", "done"),
        ("look up", "done"),
        ("make a pipe", "PermissionDenied"),
    ];
    for (what, came) in wanted {
        assert_eq!(said.matches(&format!("{what}: {came}")).count(), 2, "{what}: {said}");
    }
}

/// A secret, and each form in which somebody could meet it.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex = |upper: bool| {
        let byte = |byte: &u8| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") };
        secret.iter().map(byte).collect::<String>()
    };
    let numbers: Vec<String> = secret.iter().map(ToString::to_string).collect();
    let mut forms = vec![hex(false), hex(true), numbers.join(", "), numbers.join(",")];
    // Base64 of a part of it: where the secret begins within a group of three decides its form.
    for skipped in 0..3 {
        let part = secret.get(skipped..).unwrap();
        let part = part.get(..part.len() / 3 * 3).unwrap();
        forms.extend([STANDARD_NO_PAD.encode(part), URL_SAFE_NO_PAD.encode(part)]);
    }
    let forms = forms.into_iter().map(String::into_bytes);
    let mut all: Vec<Vec<u8>> = forms.collect();
    all.push(secret.to_vec());
    // Half of it is too much already.
    all.into_iter().map(|form| form[..form.len() / 2].to_vec()).collect()
}

/// What the next hop wants to hear.
const PASSWORD: &str = "Xq7-vB2-hM9-tZ4";

/// What must not be told of a key in PEM (RFC 5958 over P-256): the number itself, and the line of
/// Base64 in which most of it stands.
fn parts_of_key(pem: &str) -> [(&'static str, Vec<u8>); 2] {
    let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with("--")).collect();
    let der = STANDARD.decode(lines.concat()).unwrap();
    [("the key", der[36..68].to_vec()), ("the key's text", lines[1].into())]
}

fn shown_in<'a>(text: &[u8], secrets: &'a [(&'a str, Vec<u8>)]) -> Vec<&'a str> {
    let shows = |form: &Vec<u8>| memchr::memmem::find(text, form).is_some();
    let found = secrets.iter().filter(|(_, secret)| forms(secret).iter().any(shows));
    found.map(|(name, _)| *name).collect()
}

/// Goal: no secret stands in anything that people read or programs collect.
/// Method: every secret set and known, the most verbose log, a joe job, posts with the right and with
/// a wrong token, a handshake, a next hop that takes our password and then throws it back; then each
/// form of each secret is looked for in log, audit log, pages, and what the commands print.
#[test]
fn no_secret_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let key = |number: u8| blake3::hash(&[number]).as_bytes().to_vec();
    let token = b"4Tq8wYz1mKe6RbUo".to_vec();
    let mut secrets = vec![("tap.http token", token.clone())];
    let keys = ["store.key", "store.key.old", "trace.key", "trace.key.before", "fingerprint.key"];
    for (number, name) in (1..).zip(keys) {
        std::fs::write(state.join(name), key(number)).unwrap();
        secrets.push((name, key(number)));
    }
    let issued = Authority::new().issue(&["guard.uni.example"], Dates::Always);
    secrets
        .extend([("the password", PASSWORD.into())].into_iter().chain(parts_of_key(&issued.key)));
    // The search finds what it is to find.
    for (name, secret) in &secrets {
        let planted = [b"log: ".to_vec(), secret.clone(), b"\n".to_vec()].concat();
        assert_eq!(shown_in(&planted, &secrets), [*name]);
        assert_eq!(shown_in(format!("{secret:?}").as_bytes(), &secrets), [*name]);
    }
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, &token).unwrap();
    let passwords = folder.path().join("passwords");
    std::fs::write(&passwords, format!("* guard@uni.example {PASSWORD}\n")).unwrap();
    std::fs::set_permissions(&passwords, Permissions::from_mode(0o600)).unwrap();
    let (certificate, key) = issued.files(folder.path());
    let http = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let more = format!(
        "[tap.http]\nlisten = [\"{http}\"]\ntoken_file = \"{}\"\n\
         [tls]\ncertificate_file = \"{}\"\nkey_file = \"{}\"\n",
        token_file.display(),
        certificate.display(),
        key.display()
    );
    let outbound = format!("auth_file = \"{}\"\n", passwords.display());
    let daemon = Daemon::start_with(folder.path(), "trace", &outbound, &more);
    let token = String::from_utf8(token).unwrap();
    for shown in [token.as_str(), "a token that is wrong"] {
        let body = "{\"mail_from\":\"joe@victim.example\",\"rcpt\":[\"nobody@uni.example\"]}";
        let mut stream = TcpStream::connect(http).unwrap();
        let length = body.len();
        write!(
            stream,
            "POST /inbound HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {shown}\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(shown_in(answer.as_bytes(), &secrets), [""; 0]);
        assert_eq!(answer.contains("401"), shown != token, "{answer}");
    }
    for number in 0..20 {
        let to = format!("joe{number}@victim.example");
        assert!(daemon.mail("", &to, &bounce(number, &to)).starts_with("250"));
    }
    daemon.mail("ann@uni.example", "joe@friend.example", LETTER);
    daemon.shake_hands();
    daemon.refuses.store(true, Ordering::Relaxed);
    assert!(daemon.says_to_mail("ann@uni.example").starts_with('4'));
    let letter = folder.path().join("letter.eml");
    std::fs::write(&letter, bounce(99, "joe@victim.example")).unwrap();
    let mut told = vec![
        ("status", daemon.page("/status")),
        ("metrics", daemon.page("/metrics")),
        ("health", daemon.page("/healthz")),
    ];
    for arguments in [
        &["check-config"][..],
        &["check-config", "--print"],
        &["status", "--json"],
        &["explain", "--format", "json", "--rcpt", "joe@victim.example", letter.to_str().unwrap()],
    ] {
        told.push((arguments[0], said(&replyguard(folder.path(), arguments).output().unwrap())));
    }
    daemon.reload();
    told.push(("log", daemon.stopped()));
    let written = |folder: &Path, name: &str| -> String {
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let files = files.filter(|path| path.to_str().is_some_and(|path| path.contains(name)));
        files.map(|path| std::fs::read_to_string(path).unwrap()).collect()
    };
    told.push(("audit log", written(&state, "/audit.")));
    told.push(("slips", written(&state.join("quarantine"), ".json")));
    for (name, text) in told {
        assert!(text.len() > 3, "{name} says nothing");
        assert_eq!(shown_in(text.as_bytes(), &secrets), [""; 0], "in {name}");
        if name == "log" {
            assert!(text.contains("TRACE"), "it is as verbose as it can be");
            assert!(text.contains("AUTH: it says 535 5.7.8: look at name and password"), "{text}");
        }
    }
}
