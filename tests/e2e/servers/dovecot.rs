//! Dovecot 2.3 with Pigeonhole: LMTP in, Sieve, mailboxes in Maildir form; and passwords, for a
//! Postfix to ask about.

use std::fs;
use std::net::SocketAddr;

use crate::claim::Port;
use crate::servers::{Instance, User};
use crate::wait::until;

/// What a test sets.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// More of `dovecot.conf`.
    pub conf: String,
    /// Users and their Sieve scripts: `alice`, `require "vacation"; …`.
    pub scripts: Vec<(String, String)>,
}

pub struct Dovecot {
    instance: Instance,
    lmtp: Port,
    auth: Port,
}

impl Dovecot {
    pub fn start(settings: &Settings) -> Self {
        Self::knowing(&[], settings)
    }

    /// The same with users and their passwords; without any, every password is right.
    pub fn knowing(passwords: &[(&str, &str)], settings: &Settings) -> Self {
        let instance = Instance::new("dovecot", &["dovecot.log"]);
        let mut dovecot = Self { instance, lmtp: Port::claim(), auth: Port::claim() };
        let owner = Some((User::Mailbox, User::Mailbox));
        dovecot.instance.make_folder("mail", owner, 0o700);
        dovecot.instance.make_folder("sieve", owner, 0o700);
        for (user, script) in &settings.scripts {
            dovecot.instance.write(&format!("sieve/{user}.sieve"), script);
            // A home must exist for the table of messages already answered or sent on.
            dovecot.instance.make_folder(&format!("mail/{user}"), owner, 0o700);
        }
        let line = |(user, password): &(&str, &str)| format!("{user}:{{PLAIN}}{password}\n");
        let lines: String = passwords.iter().map(line).collect();
        dovecot.instance.write("passwords", &lines);
        let file = dovecot.file(passwords, settings);
        dovecot.instance.write("dovecot.conf", &file);
        dovecot.launch();
        dovecot
    }

    fn file(&self, passwords: &[(&str, &str)], settings: &Settings) -> String {
        let folder = self.instance.inside("");
        let (port, auth, conf) = (self.lmtp.number(), self.auth.number(), &settings.conf);
        let (driver, args) = match passwords.is_empty() {
            true => ("static", "nopassword=y".to_owned()),
            false => ("passwd-file", format!("username_format=%u {folder}passwords")),
        };
        format!(
            "base_dir = {folder}run
state_dir = {folder}run
log_path = {folder}dovecot.log
protocols = lmtp
ssl = no
hostname = mx.ours.example
postmaster_address = postmaster@ours.example
auth_username_format = %n
mail_uid = vmail
mail_gid = vmail
mail_home = {folder}mail/%n
mail_location = maildir:~/Maildir
first_valid_uid = 1
auth_mechanisms = plain login
passdb {{
  driver = {driver}
  args = {args}
}}
userdb {{
  driver = static
  args = allow_all_users=yes
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
service auth {{
  inet_listener sasl {{
    address = 127.0.0.1
    port = {auth}
  }}
}}
protocol lmtp {{
  mail_plugins = sieve
}}
plugin {{
  sieve = file:{folder}sieve/%n.sieve
}}
{conf}"
        )
    }

    fn launch(&mut self) {
        let file = self.instance.inside("dovecot.conf");
        let arguments = ["-F", "-c", file.as_str()];
        self.instance.start("/usr/sbin/dovecot", &arguments, &[self.lmtp.address()]);
    }

    /// Where mail for its mailboxes comes in, by LMTP.
    pub fn lmtp(&self) -> SocketAddr {
        self.lmtp.address()
    }

    /// Where it says whether a password is right, in Dovecot's own protocol.
    pub fn auth(&self) -> SocketAddr {
        self.auth.address()
    }

    pub fn log(&self) -> String {
        self.instance.log()
    }

    /// The messages in a user's INBOX.
    pub fn inbox(&self, user: &str) -> Vec<Vec<u8>> {
        let folder = self.instance.outside(&format!("mail/{user}/Maildir/new"));
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        files.map(|file| fs::read(file.path()).unwrap()).collect()
    }

    /// Waits until a user has this many messages, and gives them.
    pub fn wait_for(&self, user: &str, count: usize) -> Vec<Vec<u8>> {
        until(&format!("{count} messages in {user}'s INBOX"), || {
            let messages = self.inbox(user);
            (messages.len() >= count).then_some(messages)
        })
    }
}
