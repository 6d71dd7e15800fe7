//! Every key of the configuration: its default as written, its unit and its reason.
//!
//! One table, from which the shipped `config/replyguard.toml` and `docs/reference/config.md` are
//! made; tests hold both against it, and it against the code.

/// A key of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Dotted.
    pub key: &'static str,
    /// The default as TOML; `…` at its beginning where it depends on the system.
    pub default: &'static str,
    /// What it is, in which unit, and why; for administrators.
    pub about: &'static str,
}

const fn new(key: &'static str, default: &'static str, about: &'static str) -> Key {
    Key { key, default, about }
}

/// All keys, in the order of the shipped file.
pub const KEYS: &[Key] = &[
    new(
        "mode",
        "\"observe\"",
        "\"observe\": deliver everything and record what would have happened; with the null sender it \
         still holds messages with ambiguous line ends, and copies that the next hop refuses while it \
         takes others. \"enforce\": act.",
    ),
    new(
        "hostname",
        "… the system's name",
        "What we call ourselves: in greetings, in our Received line, as `instance` in records.",
    ),
    new(
        "state_dir",
        "… \"$XDG_STATE_HOME/replyguard\" or \"/var/lib/replyguard\"",
        "Where everything that must survive a restart is kept. One daemon at a time.",
    ),
    new(
        "sandbox",
        "\"best-effort\"",
        "What the process gives up at its start: all files but its own, those of the system and those \
         that this file names with what lies beside them (Landlock), and system calls that it never \
         makes, such as to run a program (seccomp). \"best-effort\": as far as the kernel can. \
         \"require\": all, or it does not start. \"off\": nothing. A reload that names a file in \
         another folder is refused.",
    ),
    new(
        "outbound.listen",
        "[\"127.0.0.1:10025\"]",
        "Where MTAs hand in their mail: \"host:port\", \"[::1]:port\" or \"unix:/path\"; \"tls:host:port\" speaks TLS from the first byte.",
    ),
    new(
        "outbound.starttls",
        "\"offer\"",
        "STARTTLS for clients: \"offer\" it where `tls.certificate_file` is set, \"require\" it (530 without), \"off\".",
    ),
    new("outbound.protocol", "\"smtp\"", "What is spoken there: \"smtp\", or \"lmtp\" (RFC 2033)."),
    new(
        "outbound.allow_clients",
        "[\"127.0.0.0/8\", \"::1\"]",
        "Networks that may speak to us; all others get 554. Never everybody: that is an open relay.",
    ),
    new(
        "outbound.next_hop",
        "[\"127.0.0.1:10026\"]",
        "Where mail goes on to, tried in order. \"lmtp:host:port\" for a next hop that speaks LMTP, \"tls:host:port\" for one that speaks TLS from the first byte; { to = \"host:port\", name = \"mx.example.org\" } with a name and keys of `[outbound.next_hop_tls]` of its own.",
    ),
    new(
        "outbound.inspect_max",
        "\"256KiB\"",
        "Bytes of a message read before deciding; the rest streams through. More memory for each session.",
    ),
    new(
        "outbound.memory_max",
        "\"256MiB\"",
        "Bytes of messages, and of more than a hundred recipients, in memory at once, all sessions together; past it DATA and RCPT get 452.",
    ),
    new("outbound.sessions_max", "10000", "Sessions of clients at once; the next one gets 421."),
    new(
        "outbound.client_sessions_max",
        "0",
        "Those of one client, an IPv4 address or an IPv6 /64, so that none shuts the others out. 0: half of them, but all for clients on this host, and where `allow_clients` names one other client alone. Unix sockets count for nobody.",
    ),
    new(
        "outbound.next_hop_sessions_max",
        "40",
        "Sessions with next hops at once. A stock Postfix has 100 for all its clients.",
    ),
    new(
        "outbound.pass_keywords",
        "[]",
        "Further EHLO keywords of the next hops to pass on, with the parameters of the same name.",
    ),
    new(
        "outbound.bare_line_end",
        "\"pass\"",
        "A bare CR or LF in a message: \"pass\" it byte for byte, or \"refuse\" the message. Where it could end the message it never passes.",
    ),
    new(
        "outbound.drain",
        "\"30s\"",
        "At a stop: how long running transactions may take to finish before they get 421.",
    ),
    new(
        "outbound.auth_file",
        "\"\"",
        "A file with names and passwords for next hops that ask for them, a line each: NEXT_HOP USER PASSWORD; * for all. No user of the host may read it but the guard's.",
    ),
    new(
        "outbound.auth_in_clear",
        "false",
        "true: they are said without TLS too, also beyond this host. Everybody on the way can read them.",
    ),
    new(
        "outbound.next_hop_tls.mode",
        "\"opportunistic\"",
        "TLS with next hops: \"opportunistic\" (where it works, whoever answers), \"require\" (or 451), \"off\".",
    ),
    new(
        "outbound.next_hop_tls.verify",
        "\"system\"",
        "With \"require\": \"system\" looks whether the certificate is for the name of the next hop and of an authority that the system trusts; \"none\" takes any.",
    ),
    new(
        "outbound.next_hop_tls.ca_file",
        "\"\"",
        "Authorities that are trusted instead of the system's, in PEM. For a certificate that signed itself use `fingerprints`.",
    ),
    new(
        "outbound.next_hop_tls.fingerprints",
        "[]",
        "SHA-256 of certificates that are trusted, and no others, whatever name and date they have.",
    ),
    new(
        "tls.certificate_file",
        "\"\"",
        "The certificate that clients are shown, with its chain, in PEM. Read again on SIGHUP.",
    ),
    new(
        "tls.key_file",
        "\"\"",
        "Its key, in PEM without password. No user of the host may read it but the guard's.",
    ),
    new(
        "tap.trusted_relays",
        "[]",
        "Networks of gateways and backup MX: their Received line is believed. Not those of own submission.",
    ),
    new(
        "tap.wait",
        "\"2s\"",
        "How long inbound mail may wait for a verdict; then it goes on, and verification with it.",
    ),
    new(
        "tap.inspect_max",
        "\"25MiB\"",
        "Bytes of a signed inbound message that are read for DKIM; of others only the header is.",
    ),
    new("tap.memory_max", "\"128MiB\"", "Bytes of such messages in memory at once."),
    new(
        "tap.spam_field",
        "\"\"",
        "The header field of our spam filter's score, such as \"X-Spam-Score\". Only where our border removes foreign ones.",
    ),
    new(
        "tap.allow_clients",
        "[\"127.0.0.0/8\", \"::1\"]",
        "Networks whose MTAs may speak to the taps. What they say is believed.",
    ),
    new(
        "tap.milter.listen",
        "[]",
        "Where the milter tap listens: \"127.0.0.1:10027\" or \"unix:/path\".",
    ),
    new(
        "tap.milter.authserv_id",
        "\"\"",
        "When set: the milter tap writes Authentication-Results under this name, and takes out those of the same name that came along.",
    ),
    new(
        "tap.smtp.listen",
        "[]",
        "Where the SMTP pass-through tap listens, for MTAs without milters: all of inbound SMTP goes through it. \"tls:host:port\" as in `outbound.listen`.",
    ),
    new(
        "tap.smtp.starttls",
        "\"offer\"",
        "As `outbound.starttls`. A public MX must not require it.",
    ),
    new(
        "tap.smtp.next_hop",
        "[]",
        "The MTA behind it, \"host:port\"; several are tried in order. Written as in `outbound.next_hop`.",
    ),
    new(
        "tap.smtp.client",
        "\"xclient\"",
        "How the MTA behind is told the client's address: \"xclient\" (Postfix), \"proxy\" or \"proxy-v2\" (the PROXY protocol; Exim), \"none\".",
    ),
    new(
        "tap.smtp.client_sessions_max",
        "50",
        "Sessions of one client there at once, an IPv4 address or an IPv6 /64; the next one gets 421. Not for `local.networks` and `tap.trusted_relays`, which bring the mail of many. Postfix allows one client 50 as well.",
    ),
    new(
        "tap.smtp.next_hop_tls.mode",
        "\"off\"",
        "As in `[outbound.next_hop_tls]`; with \"require\" an MTA without TLS is passed over.",
    ),
    new("tap.smtp.next_hop_tls.verify", "\"system\"", "As there."),
    new("tap.smtp.next_hop_tls.ca_file", "\"\"", "As there."),
    new("tap.smtp.next_hop_tls.fingerprints", "[]", "As there."),
    new(
        "tap.http.listen",
        "[]",
        "Where rspamd's metadata exporter (/rspamd) and others (/inbound) post what they know of inbound mail.",
    ),
    new(
        "tap.http.token_file",
        "\"\"",
        "A file with the token that they must show (`Authorization: Bearer`). Without one only this host may be listened to.",
    ),
    new(
        "local.domains",
        "[]",
        "Our own domains: responses to their mailboxes are not judged. A subdomain counts only if it is named.",
    ),
    new(
        "local.domains_files",
        "[]",
        "Files with one domain a line, or Postfix text maps (first column). Read again on reload.",
    ),
    new(
        "local.none",
        "false",
        "true: this site really has no domains of its own. Without either, \"enforce\" is refused.",
    ),
    new(
        "local.networks",
        "[\"127.0.0.0/8\", \"::1\"]",
        "Networks of own submission: mail from there was written by ours.",
    ),
    new(
        "local.hosts",
        "[]",
        "Names our hosts write after \"by\" in Received. `hostname` always counts.",
    ),
    new(
        "local.authserv_ids",
        "[]",
        "Whose Authentication-Results are ours (the first word of that field).",
    ),
    new(
        "local.authserv_stripped",
        "false",
        "true: our border removes foreign Authentication-Results with these ids. Only then they are believed.",
    ),
    new(
        "local.authserv_below",
        "false",
        "true: our filter writes its line below our Received line, not above it, as OpenDKIM and OpenDMARC do behind Postfix. Believed only directly below the border line, and only where it writes the id in lower case as named here.",
    ),
    new("dns.servers", "[]", "Whom to ask: \"127.0.0.1:53\". Empty: the system's servers."),
    new("dns.timeout", "\"5s\"", "How long one question may take, all tries together."),
    new(
        "auth.softfail",
        "\"with-dmarc\"",
        "When an SPF softfail means failed: \"with-dmarc\" (the domain publishes DMARC), \"always\", \"never\".",
    ),
    new(
        "auth.pnone",
        "\"fail\"",
        "Whether a DMARC record with p=none fails what does not pass: \"fail\", or \"neutral\".",
    ),
    new(
        "auth.best_guess",
        "false",
        "true: a domain without SPF is taken to have \"a/24 mx/24\"; a pass of it proves at most the domain, under its own name.",
    ),
    new(
        "auth.arc_sealers",
        "[]",
        "Forwarders and lists whose ARC seal is believed (d= of the seal): what they found out before they passed a message on can prove its sender, and never fails him.",
    ),
    new(
        "policy.profile",
        "\"balanced\"",
        "\"balanced\": hold what failed, limit what is not known. \"strict\": deliver only what is proven.",
    ),
    new(
        "policy.suppress",
        "\"quarantine\"",
        "What suppressing means: \"quarantine\" (250, kept), \"reject\" (550; Exim freezes such mail), \"discard\" (250, record only).",
    ),
    new(
        "policy.spam_limit",
        "\"\"",
        "From how many points of your spam filter on a message is answered only within the limits, proven or not. Empty: never.",
    ),
    new(
        "policy.spam_suppress",
        "\"\"",
        "From how many points on it is not answered at all. Needs a tap that learns the score.",
    ),
    new(
        "policy.rule",
        "… none",
        "Rules before the profile, each a `[[policy.rule]]`; see docs/reference/config.md.",
    ),
    new(
        "lists.allow",
        "[]",
        "Whom to answer whatever is known of him: \"bank.example\", \".bank.example\" (and all below), \"joe@bank.example\"; or tables with `match`, `reason`, `author`, `expires`, `forged`.",
    ),
    new(
        "lists.allow_file",
        "\"\"",
        "The same in a file, an entry a line: PATTERN [expires=DATE] [author=NAME] [forged] [reason].",
    ),
    new("lists.deny", "[]", "Whom to answer never."),
    new("lists.deny_file", "\"\"", "The same in a file."),
    new(
        "loops.site",
        "… hostname and first listener",
        "Whose traces count as ours. The same for parallel guards, different for guards in series. Each further listener has `/2`, `/3` behind it.",
    ),
    new("loops.laps_max", "1", "How often a message may come back; a response may not at all."),
    new("loops.hops_max_response", "25", "Received lines beyond which a response is held."),
    new(
        "loops.hops_max",
        "60",
        "Received lines beyond which other mail is held, if it also bears our trace.",
    ),
    new(
        "loops.fingerprints",
        "1000000",
        "Entries remembered to find loops without our trace, 120 bytes each; a message takes two for each recipient.",
    ),
    new("loops.window", "\"24h\"", "How long they are remembered."),
    new(
        "loops.conversation.pair",
        "\"4/1h\"",
        "Automatic responses of one address of ours to one address.",
    ),
    new("loops.conversation.pair_day", "\"12/24h\"", "The same, over a day."),
    new(
        "loops.conversation.thread",
        "\"6/24h\"",
        "Automatic responses of one address of ours in one thread, where they answer what answered one of them.",
    ),
    new(
        "loops.conversation.domain",
        "\"60/1h\"",
        "Automatic responses of one address of ours to one domain.",
    ),
    new(
        "loops.conversation.crowd",
        "\"600/1h\"",
        "Automatic responses of all our addresses to one domain: more is an alarm, and holds nothing.",
    ),
    new(
        "loops.conversation.agents",
        "\"60/1h\"",
        "Messages that look like a person's, from one address to another in one thread: more is an alarm.",
    ),
    new(
        "loops.conversation.agents_found",
        "\"alarm\"",
        "What is done then: \"alarm\", or \"hold\".",
    ),
    new(
        "store.backend",
        "\"embedded\"",
        "Where what the taps see is remembered: \"embedded\" (one file), \"memory\" (lost at a restart), \"none\".",
    ),
    new("store.path", "… \"<state_dir>/store.redb\"", "The file of the embedded store."),
    new(
        "store.retention",
        "\"7d\"",
        "How long an inbound message is remembered. Bounces come up to five days late.",
    ),
    new("store.records_max", "5000000", "Inbound messages remembered; the oldest go first."),
    new(
        "store.bytes_max",
        "\"4GiB\"",
        "Bytes of records; the file itself may take half as much again.",
    ),
    new(
        "store.memory_max",
        "\"64MiB\"",
        "Bytes of memory that the store takes; with the embedded one for pages of its file, the last records, and what waits to be written.",
    ),
    new(
        "store.plain",
        "false",
        "true: records stand in the file readable. Otherwise they are sealed with `<state_dir>/store.key`; to change that, move it to store.key.old and restart: that is read for the retention, and then removed.",
    ),
    new(
        "audit.path",
        "… \"<state_dir>/audit.jsonl\"",
        "The audit log: a JSON line for each recipient.",
    ),
    new(
        "audit.max_bytes",
        "\"4GiB\"",
        "Bytes of the log with its rotated files; the oldest go first.",
    ),
    new("audit.rotate_bytes", "\"256MiB\"", "Bytes of one file before the next is begun."),
    new(
        "audit.on_failure",
        "\"deliver-personal\"",
        "While the log cannot be written: \"deliver-personal\" (responses get 451, other mail goes out), or \"defer-all\".",
    ),
    new(
        "audit.pseudonymise",
        "false",
        "true: local parts of addresses are replaced by keyed hashes.",
    ),
    new(
        "audit.also",
        "[]",
        "Where records go as well: \"journald\", \"syslog:/dev/log\", \"syslog-udp:host:514\", \"syslog-tcp:host:601\" (RFC 5424).",
    ),
    new("quarantine.path", "… \"<state_dir>/quarantine\"", "The folder of held messages."),
    new("quarantine.max_bytes", "\"1GiB\"", "Bytes of held messages on disk."),
    new("quarantine.max_messages", "100000", "Held messages; copies of one campaign count as one."),
    new(
        "quarantine.max_age",
        "\"14d\"",
        "How long responses are held. Personal mail, list traffic and notifications stay.",
    ),
    new(
        "quarantine.on_full",
        "\"defer\"",
        "When it is full: \"defer\" (451), or \"drop-oldest\" (of those whose verdict is failed).",
    ),
    new(
        "admin.socket",
        "… \"<state_dir>/admin.sock\"",
        "The unix socket of `replyguard status`, for the guard's own user. When it cannot be \
         served the daemon goes on without it.",
    ),
    new(
        "admin.console",
        "\"127.0.0.1:10080\"",
        "Where /metrics, /healthz and /status are served over HTTP, without a password: keep it \
         on loopback or a network of yours. \"\" for nowhere. When it cannot be served the daemon \
         goes on without it.",
    ),
];
