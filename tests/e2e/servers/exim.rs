//! Exim 4.96, with the settings that a test gives on top of a quiet, quick base.

use std::net::SocketAddr;

use crate::claim::{Claim, Port};
use crate::client::Door;
use crate::servers::{Instance, User, Which, shipped};
use crate::wait::until;

/// Exim keeps root only for the configuration files that `scripts/setup` lists: 32 of them.
const SLOTS: std::ops::Range<u16> = 0..32;

/// What a test sets. The fields are pieces of a configuration file, each ending in a newline.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Main options, on top of the base.
    pub main: String,
    /// First statements of the ACLs for RCPT and DATA.
    pub acl_rcpt: String,
    pub acl_data: String,
    /// Routers that come before the base's.
    pub routers: String,
    pub transports: String,
    /// Where the base routes mail for the outside; none: it stays in the queue.
    pub next_hop: Option<SocketAddr>,
    /// An LMTP server with the mailboxes of `ours.example`; none: they swallow what they get.
    pub mailboxes: Option<SocketAddr>,
    /// Where the daemon listens; without it, on its two ports alone. `0.0.0.0.25` stands for them.
    pub listen: String,
}

impl Settings {
    /// A user of ours (the part before the @) sends all mail on to another address.
    pub fn forward(mut self, from: &str, to: &str) -> Self {
        self.routers.push_str(&format!(
            "forward_{from}:\n  driver = redirect\n  domains = +local_domains\n  \
             local_parts = {from}\n  data = {to}\n"
        ));
        self
    }

    /// The shipped pieces of `config/exim/`, for a guard that gives mail back on port `back`.
    pub fn shipped(mut self, guard: SocketAddr, back: &Port, which: Which) -> Self {
        let (guard, back) = (format!("127.0.0.1::{}", guard.port()), back.number().to_string());
        let mut router = vec![("127.0.0.1::10025", guard.as_str()), ("10026", &back)];
        if which == Which::Automatic {
            router.push(("\n  #condition", "\n  condition"));
        }
        self.routers.insert_str(0, &shipped("exim/routers", &router));
        self.transports.push_str(&shipped("exim/transports", &[]));
        let acl = shipped("exim/acl", &[("10026", &back)]);
        self.acl_rcpt.insert_str(0, &acl);
        self.acl_data.insert_str(0, &acl);
        self.listen = shipped("exim/main", &[("10026", &back)]);
        self
    }

    /// What the border found out about mail from an address or a domain.
    pub fn authentication_results(mut self, from: &str, results: &str) -> Self {
        let from = if from.contains('@') { from.to_owned() } else { format!("*@{from}") };
        // A colon in the value would end a list item; only the first colon here is the header's.
        self.acl_data.push_str(&format!(
            "  warn senders = {from}\n    \
             add_header = :at_start:Authentication-Results: {results}\n"
        ));
        self
    }
}

pub struct Exim {
    instance: Instance,
    border: Port,
    submission: Port,
    configuration: String,
    /// Given up last: the folder belongs to us until then.
    _slot: Claim,
}

/// A message in the queue.
#[derive(Clone, Debug)]
pub struct Queued {
    pub id: String,
    pub reverse_path: String,
    /// Exim has given up trying; only an administrator can thaw it.
    pub frozen: bool,
    /// Recipients still to be served.
    pub recipients: Vec<String>,
}

impl Exim {
    pub fn start(settings: &Settings) -> Self {
        Self::start_at(Port::claim(), settings)
    }

    /// With a border port that others know already.
    pub fn start_at(border: Port, settings: &Settings) -> Self {
        let slot = Claim::of("exim", SLOTS, |_| true);
        let name = format!("exim-{}", slot.number());
        let instance = Instance::named(&name, &["log/mainlog", "log/rejectlog", "log/paniclog"]);
        let configuration = instance.inside("exim.conf");
        let submission = Port::claim();
        let mut exim = Self { instance, border, submission, configuration, _slot: slot };
        for folder in ["spool", "log"] {
            exim.instance.make_folder(folder, Some((User::Exim, User::Exim)), 0o750);
        }
        exim.instance.write("exim.conf", &exim.file(settings));
        exim.launch();
        exim
    }

    fn file(&self, settings: &Settings) -> String {
        let folder = self.instance.inside("");
        let (border, submission) = (self.border.number(), self.submission.number());
        let ports = format!("127.0.0.1.{border} : 127.0.0.1.{submission}");
        let listen = match settings.listen.as_str() {
            "" => format!("local_interfaces = {ports}\n"),
            listen => listen.replace("0.0.0.0.25", &ports),
        };
        let Settings { main, acl_rcpt, acl_data, routers, transports, .. } = settings;
        let smtp = |address: SocketAddr| format!("{}::{}", address.ip(), address.port());
        let outside = match settings.next_hop {
            Some(address) => format!("route_list = * {}\n  self = send", smtp(address)),
            None => "route_list = * 127.0.0.1::1\n  self = send".to_owned(),
        };
        let mailbox = match settings.mailboxes {
            Some(address) => format!(
                "driver = manualroute\n  transport = lmtp\n  route_list = * {}\n  self = send",
                smtp(address)
            ),
            None => "driver = redirect\n  data = :blackhole:".to_owned(),
        };
        format!(
            "primary_hostname = mx.ours.example
qualify_domain = ours.example
domainlist local_domains = ours.example
hostlist inside = 127.0.0.1
spool_directory = {folder}spool
log_file_path = {folder}log/%slog
pid_file_path = {folder}exim.pid
{listen}# The border port learns the client's address from the PROXY protocol.
hosts_proxy = ${{if eq{{$received_port}}{{{border}}}{{127.0.0.1}}{{}}}}
acl_smtp_rcpt = acl_rcpt
acl_smtp_data = acl_data
keep_environment =
tls_advertise_hosts =
{main}
begin acl
acl_rcpt:
{acl_rcpt}  accept hosts = +inside
  accept domains = +local_domains
  deny message = relaying denied
acl_data:
{acl_data}  accept
begin routers
{routers}
mailbox:
  domains = +local_domains
  {mailbox}
outside:
  driver = manualroute
  domains = ! +local_domains
  transport = smtp
  {outside}
begin transports
{transports}
smtp:
  driver = smtp
  allow_localhost
  hosts_try_chunking =
lmtp:
  driver = smtp
  protocol = lmtp
  port = 24
  allow_localhost
begin retry
* * F,5d,1s
"
        )
    }

    fn launch(&mut self) {
        // In the foreground, with a queue runner every second.
        let arguments = ["-C", self.configuration.as_str(), "-bdf", "-q1s"];
        self.instance.start("/usr/sbin/exim4", &arguments, &[self.submission.address()]);
    }

    /// Where mail from outside comes in.
    pub fn border(&self) -> Door {
        Door::Proxy(self.border.address())
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

    fn ask(&self, arguments: &[&str]) -> String {
        let with = [&["-C", self.configuration.as_str()], arguments].concat();
        self.instance.ask("/usr/sbin/exim4", &with)
    }

    /// What waits in the queue, by `exim -bp`.
    pub fn queue(&self) -> Vec<Queued> {
        queued(&self.ask(&["-bp"]))
    }

    /// How many messages Exim has given up on. The guard must never cause one.
    pub fn frozen(&self) -> usize {
        self.queue().iter().filter(|message| message.frozen).count()
    }

    /// The header and body of a message in the queue; empty when it has left meanwhile.
    pub fn message(&self, id: &str) -> Vec<u8> {
        let arguments = ["-C", self.configuration.as_str(), "-Mvc", id];
        // Why: it fails while a delivery of this message is under way.
        until("a look at a message in Exim's queue", || {
            let output = self.instance.run("/usr/sbin/exim4", &arguments);
            let there = || self.queue().iter().any(|message| message.id == id);
            (output.status.success() || !there()).then_some(output.stdout)
        })
    }

    /// Tries everything in the queue at once, before its time.
    pub fn flush(&self) {
        self.ask(&["-qf"]);
    }

    /// Waits until the queue is empty.
    pub fn drained(&self) {
        until("Exim's queue to become empty", || self.queue().is_empty().then_some(()));
    }
}

/// `exim -bp`: for each message a line ` 3h 2.9K 1abcde-000000-00 <sender> *** frozen ***`, then
/// its recipients, indented, with a D before those that have been served. The size is missing for a
/// message that leaves at this moment.
fn queued(listing: &str) -> Vec<Queued> {
    let mut messages: Vec<Queued> = Vec::new();
    for line in listing.lines().filter(|line| !line.trim().is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (words.as_slice(), messages.last_mut()) {
            ([_age, id, sender, rest @ ..] | [_age, _, id, sender, rest @ ..], _)
                if sender.starts_with('<') =>
            {
                messages.push(Queued {
                    id: (*id).to_owned(),
                    reverse_path: sender.trim_matches(['<', '>']).to_owned(),
                    frozen: rest.contains(&"frozen"),
                    recipients: Vec::new(),
                });
            }
            ([recipient], Some(message)) => message.recipients.push((*recipient).to_owned()),
            (["D", _], Some(_)) => {}
            _ => panic!("not a line of a queue listing: {line:?}"),
        }
    }
    messages
}

#[test]
fn a_queue_listing_is_read() {
    let listing = " 0m   741 1vM2Hp-0004Ku-1k <> *** frozen ***\n          victim@victim.example\n\n\
                   25m  2.9K 1vM2Hp-0004Kx-2m <alice@ours.example>\n        D done@far.example\n          late@far.example\n\n \
                   0m       1vM2Hp-0004Ky-3n <alice@ours.example>\n\n";
    let messages = queued(listing);
    assert_eq!(messages.len(), 3);
    assert_eq!(messages[2].id, "1vM2Hp-0004Ky-3n");
    assert!(messages[0].frozen && messages[0].reverse_path.is_empty());
    assert_eq!(messages[1].recipients, ["late@far.example"]);
}
