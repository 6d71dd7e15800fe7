//! Postfix 3.7, with the settings that a test gives on top of a quiet, quick base.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;

use crate::claim::Port;
use crate::client::Door;
use crate::servers::{Instance, User, Which, shipped};
use crate::wait::until;

/// Queue folders, with their permission bits; all belong to Postfix (`postfix-files`).
const QUEUES: [&str; 13] = [
    "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private",
    "saved", "trace", "pid", "etc",
];

/// The stock services (`master.cf`), without the listeners.
const SERVICES: &str = "\
pickup    unix  n       -       n       60      1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
verify    unix  -       -       n       -       1       verify
flush     unix  n       -       n       1000?   0       flush
proxymap  unix  -       -       n       -       -       proxymap
smtp      unix  -       -       n       -       -       smtp
relay     unix  -       -       n       -       -       smtp
showq     unix  n       -       n       -       -       showq
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
discard   unix  -       -       n       -       -       discard
lmtp      unix  -       -       n       -       -       lmtp
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
postlog   unix-dgram n  -       n       -       1       postlogd
";

/// What a test sets. Files named `/etc/postfix/…` in values are those given by `file`.
#[derive(Clone, Debug)]
pub struct Settings {
    main: BTreeMap<String, String>,
    master: String,
    files: Vec<(String, String)>,
}

impl Default for Settings {
    /// A host `mx.ours.example` with the mailboxes of `ours.example`: they swallow what they get.
    /// It asks no DNS, retries within a second or two, and has no way out until given one.
    fn default() -> Self {
        let main = [
            ("compatibility_level", "3.6"),
            ("command_directory", "/usr/sbin"),
            ("daemon_directory", "/usr/lib/postfix/sbin"),
            ("shlib_directory", "/usr/lib/postfix"),
            ("meta_directory", "/etc/postfix"),
            ("maillog_file_prefixes", "/i"),
            ("mail_owner", "postfix"),
            ("setgid_group", "postdrop"),
            ("inet_interfaces", "127.0.0.1"),
            ("inet_protocols", "ipv4"),
            ("disable_dns_lookups", "yes"),
            ("smtp_host_lookup", "native"),
            ("alias_maps", ""),
            ("biff", "no"),
            ("myhostname", "mx.ours.example"),
            ("myorigin", "ours.example"),
            ("mydestination", ""),
            ("virtual_mailbox_domains", "ours.example"),
            ("virtual_mailbox_maps", "static:any"),
            ("virtual_transport", "discard:"),
            ("default_transport", "error:no way out"),
            ("relay_transport", "error:no way out"),
            ("queue_run_delay", "1s"),
            // Why not 1 s: what is due within a second is tried at once, and what is tried while the
            // last attempt still has its file locked waits for a minute (`qmgr_active_feed`).
            ("minimal_backoff_time", "2s"),
            ("maximal_backoff_time", "2s"),
            ("transport_retry_time", "1s"),
        ];
        let main = main.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Self { main, master: String::new(), files: Vec::new() }
    }
}

impl Settings {
    /// A line of `main.cf`.
    pub fn set(mut self, key: &str, value: impl AsRef<str>) -> Self {
        self.main.insert(key.to_owned(), value.as_ref().to_owned());
        self
    }

    /// Does not retry on its own: what is deferred stays so until `flush`.
    pub fn patient(self) -> Self {
        let times = ["queue_run_delay", "minimal_backoff_time", "maximal_backoff_time"];
        times.iter().fold(self, |settings, time| settings.set(time, "1h"))
    }

    /// A file in `/etc/postfix`.
    pub fn file(mut self, name: &str, text: impl AsRef<str>) -> Self {
        self.files.push((name.to_owned(), text.as_ref().to_owned()));
        self
    }

    /// More of `master.cf`.
    pub fn master(mut self, lines: &str) -> Self {
        self.master.push_str(lines);
        self
    }

    /// All mail to the outside goes to `next_hop`, without a guard.
    pub fn next_hop(self, next_hop: SocketAddr) -> Self {
        self.set("default_transport", format!("smtp:{}", brackets(next_hop)))
            .set("relay_transport", format!("relay:{}", brackets(next_hop)))
    }

    /// A user of ours sends all mail on to another address.
    pub fn forward(self, from: &str, to: &str) -> Self {
        self.set("virtual_alias_maps", "texthash:/etc/postfix/forwards")
            .file("forwards", format!("{from} {to}\n"))
    }

    /// Mail for `ours.example` goes to this LMTP server.
    pub fn mailboxes(self, lmtp: SocketAddr) -> Self {
        self.set("virtual_transport", format!("lmtp:inet:{}", brackets(lmtp)))
    }

    /// What the border found out about mail from an address or a domain: the line stands above our
    /// own `Received`, as a milter's would. May be called for several.
    pub fn authentication_results(mut self, from: &str, results: &str) -> Self {
        let line = format!("{from} PREPEND Authentication-Results: {results}\n");
        if let Some((_, text)) = self.files.iter_mut().find(|(name, _)| name == "results") {
            text.push_str(&line);
            return self;
        }
        // Why at DATA: the checks of MAIL and RCPT run once for each recipient.
        self.set("smtpd_data_restrictions", "check_sender_access texthash:/etc/postfix/results")
            .file("results", line)
    }

    /// The shipped variant A: everything that leaves goes to the guard.
    pub fn variant_a(self, guard: SocketAddr) -> Self {
        self.shipped_main("a-everything/main.cf", &[(GUARD, &brackets(guard))])
    }

    /// The shipped variant B: mail with the null sender goes to the guard, the rest to `smarthost`.
    pub fn variant_b(self, guard: SocketAddr, smarthost: SocketAddr) -> Self {
        self.set("default_transport", "smtp")
            .set("relayhost", brackets(smarthost))
            .shipped_main("b-null-sender/main.cf", &[])
            .shipped_file("b-null-sender/replyguard-null-sender", &[(GUARD, &brackets(guard))])
    }

    /// The shipped variant C: automatic mail, or everything, goes to the guard and comes back on
    /// the port `back`.
    pub fn variant_c(self, guard: SocketAddr, back: &Port, which: Which) -> Self {
        let guard = brackets(guard);
        let mut lines = vec![(GUARD, guard.as_str())];
        if which == Which::Everything {
            lines.push(("\n#/^Received", "\n/^Received"));
            lines.push(("\n/^Auto-Submitted", "\n#/^Auto-Submitted"));
        }
        let back = format!("127.0.0.1:{}", back.number());
        self.shipped_main("c-automatic/main.cf", &[])
            .shipped_file("c-automatic/replyguard-automatic", &lines)
            .master(&shipped("postfix/c-automatic/master.cf", &[("127.0.0.1:10026", &back)]))
    }

    /// What somebody wrote for `/etc/postfix`: each file's piece after a comment with its path.
    pub fn written(mut self, text: &str) -> Self {
        for piece in text.split("# /etc/postfix/").skip(1) {
            let (name, text) = piece.split_once('\n').expect("a path, then lines");
            self = match name {
                "main.cf" => self.with_lines(text),
                "master.cf" => self.master(text),
                _ => self.file(name, text),
            };
        }
        self
    }

    /// A shipped `main.cf` piece of `config/postfix/`, with some of its words replaced.
    fn shipped_main(self, path: &str, replace: &[(&str, &str)]) -> Self {
        self.with_lines(&shipped(&format!("postfix/{path}"), replace))
    }

    fn with_lines(mut self, text: &str) -> Self {
        self.main.extend(logical_lines(text));
        self
    }

    /// A shipped file of `config/postfix/`, put into `/etc/postfix` under its own name.
    fn shipped_file(self, path: &str, replace: &[(&str, &str)]) -> Self {
        let text = shipped(&format!("postfix/{path}"), replace);
        let name = path.rsplit('/').next().unwrap_or(path);
        self.file(name, text)
    }
}

/// The guard, as the shipped files name it.
const GUARD: &str = "[127.0.0.1]:10025";

fn brackets(address: SocketAddr) -> String {
    format!("[{}]:{}", address.ip(), address.port())
}

/// The settings of a `main.cf`: comments out, continued lines joined (postconf(5)).
fn logical_lines(text: &str) -> Vec<(String, String)> {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        match lines.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => last.push_str(line),
            _ => lines.push(line.to_owned()),
        }
    }
    let pair = |line: String| {
        let (key, value) = line.split_once('=').expect("a main.cf line is `key = value`");
        (key.trim().to_owned(), value.trim().to_owned())
    };
    lines.into_iter().map(pair).collect()
}

/// A running Postfix.
pub struct Postfix {
    instance: Instance,
    border: Port,
    submission: Port,
}

/// A message in the queue.
#[derive(Clone, Debug)]
pub struct Queued {
    pub id: String,
    pub queue: String,
    pub reverse_path: String,
    /// Each recipient still to be served, with the reason of the delay.
    pub recipients: Vec<(String, String)>,
}

impl Postfix {
    pub fn start(settings: &Settings) -> Self {
        let instance = Instance::new("postfix", &["mail.log"]);
        let mut postfix = Self { instance, border: Port::claim(), submission: Port::claim() };
        postfix.furnish(settings);
        postfix.launch();
        postfix
    }

    fn furnish(&self, settings: &Settings) {
        let instance = &self.instance;
        instance.make_folder("etc", None, 0o755);
        instance.make_folder("data", Some((User::Postfix, User::Postfix)), 0o700);
        instance.make_folder("queue", None, 0o755);
        for queue in QUEUES {
            let owner = Some((User::Postfix, User::Postfix));
            instance.make_folder(&format!("queue/{queue}"), owner, 0o700);
        }
        let owner = Some((User::Postfix, User::Postdrop));
        instance.make_folder("queue/maildrop", owner, 0o730);
        instance.make_folder("queue/public", owner, 0o710);

        let etc = instance.inside("etc/");
        let mut main = format!(
            "queue_directory = {}\ndata_directory = {}\nmaillog_file = {}\n",
            instance.inside("queue"),
            instance.inside("data"),
            instance.inside("mail.log"),
        );
        for (key, value) in &settings.main {
            main.push_str(&format!("{key} = {}\n", value.replace("/etc/postfix/", &etc)));
        }
        instance.write("etc/main.cf", &main);
        let listeners = format!(
            "127.0.0.1:{} inet n - n - - smtpd\n \
             -o smtpd_authorized_xclient_hosts=127.0.0.0/8 -o local_header_rewrite_clients=\n\
             127.0.0.1:{} inet n - n - - smtpd\n",
            self.border.number(),
            self.submission.number(),
        );
        let master = format!("{listeners}{SERVICES}{}", settings.master);
        instance.write("etc/master.cf", &master.replace("/etc/postfix/", &etc));
        for (name, text) in &settings.files {
            instance.write(&format!("etc/{name}"), &text.replace("/etc/postfix/", &etc));
        }
    }

    fn launch(&mut self) {
        let etc = self.instance.inside("etc");
        // `-d`: stay our child, and in our process group.
        let arguments = ["-c", etc.as_str(), "-d"];
        let ports = [self.border.address(), self.submission.address()];
        self.instance.start("/usr/lib/postfix/sbin/master", &arguments, &ports);
    }

    /// Where mail from outside comes in.
    pub fn border(&self) -> Door {
        Door::Xclient(self.border.address())
    }

    /// Where our own users and programs hand in mail.
    pub fn submission(&self) -> SocketAddr {
        self.submission.address()
    }

    /// Stops it; the queue stays. `resume` starts it again.
    pub fn stop(&mut self) {
        self.instance.stop();
    }

    pub fn resume(&mut self) {
        self.launch();
    }

    pub fn log(&self) -> String {
        self.instance.log()
    }

    /// What waits in the queue, by `postqueue -j`.
    pub fn queue(&self) -> Vec<Queued> {
        let etc = self.instance.inside("etc");
        let lines = self.instance.ask("/usr/sbin/postqueue", &["-c", &etc, "-j"]);
        lines.lines().map(|line| queued(&serde_json::from_str(line).unwrap())).collect()
    }

    /// The header and body of a message in the queue.
    pub fn message(&self, id: &str) -> Vec<u8> {
        let etc = self.instance.inside("etc");
        self.instance.run("/usr/sbin/postcat", &["-c", &etc, "-qhb", id]).stdout
    }

    /// Tries everything in the queue at once. Not while something is being tried: see the base.
    pub fn flush(&self) {
        let etc = self.instance.inside("etc");
        self.instance.ask("/usr/sbin/postqueue", &["-c", &etc, "-f"]);
    }

    /// Waits until the queue is empty. Patience counts from the last message that left.
    pub fn drained(&self) {
        let mut left = self.queue().len();
        while left > 0 {
            left = until("Postfix's queue to become empty", || {
                Some(self.queue().len()).filter(|&now| now < left)
            });
        }
    }

    /// Hands in a message through `sendmail`, as a program on the host does.
    pub fn sendmail(&self, reverse_path: &str, recipients: &[&str], message: &[u8]) {
        use std::io::Write;
        let etc = self.instance.inside("etc");
        let mut arguments = vec!["-C", etc.as_str(), "-i", "-f", reverse_path, "--"];
        arguments.extend(recipients);
        let mut command = self.instance.command("/usr/sbin/sendmail", &arguments);
        let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(message).unwrap();
        assert!(child.wait().unwrap().success());
    }
}

fn queued(line: &Value) -> Queued {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let recipient = |one: &Value| (text(&one["address"]), text(&one["delay_reason"]));
    let sender = text(&line["sender"]);
    Queued {
        id: text(&line["queue_id"]),
        queue: text(&line["queue_name"]),
        reverse_path: if sender == "MAILER-DAEMON" { String::new() } else { sender },
        recipients: line["recipients"].as_array().unwrap().iter().map(recipient).collect(),
    }
}

#[test]
fn continued_lines_are_one_setting() {
    let text = "# a comment\na = 1\nb = 2,\n  3\n\nc=\n";
    let pairs = [("a", "1"), ("b", "2,  3"), ("c", "")];
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(logical_lines(text), pairs);
}
