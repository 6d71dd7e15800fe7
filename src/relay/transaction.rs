//! One transaction with a next hop: MAIL, RCPT, DATA, the content, the final dot.
//!
//! Commands are queued and sent together (RFC 2920), their replies passed back in order. A session
//! lost, or left with 421, before DATA is replaced once by a fresh one, and what was said is said
//! again. After the final dot nothing is tried again: that could deliver twice.
//! Standards: RFC 5321 §3.3 and §4.5.3.2, RFC 2033 §4.2, RFC 2920 §3.1.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::mail::envelope::{Client, MailFrom, Parameters, Recipient};
use crate::mail::limits::{
    COMMAND_DEADLINE, DATA_DEADLINE, FINAL_DEADLINE, NETWORK_BUFFER_BYTES, PIPELINE_COMMANDS_MAX,
};
use crate::mail::reply::{Reply, Severity};
use crate::relay::RelayError;
use crate::relay::pool::{Pool, Wanted};
use crate::relay::session::{HopFault, Session};
use crate::wire::endpoint::Protocol;
use crate::wire::keywords::Keywords;
use crate::wire::smtp_client::{Dots, Stuffer, mail_command, rcpt_command, xforward_commands};

/// Bytes of content that are sent at once from where they lie, each in `limits::CONTENT_DEADLINE`.
const DIRECT_BYTES_MAX: usize = 4 * NETWORK_BUFFER_BYTES;

/// Bytes of a content that are left to go with the final dot.
const LAST_BYTES: usize = 512;

/// A command with its reply, once there is one.
struct Issued {
    line: String,
    stage: &'static str,
    reply: Option<Reply>,
}

/// What this session has yet to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Reset,
    /// One of the lines of XFORWARD.
    Xforward(usize),
    /// One of the commands.
    Command(usize),
}

/// A next hop that was spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Which one, as the settings write it.
    pub hop: String,
    /// The version of TLS; `None` in the clear.
    pub tls: Option<String>,
}

/// What came of the final dot.
#[derive(Debug)]
pub struct Finished {
    /// One, or with LMTP one for each accepted recipient; fewer when there is a `fault`.
    pub replies: Vec<Reply>,
    /// What befell the session before all replies were there: of those that are missing nobody
    /// knows whether the message was taken.
    pub fault: Option<RelayError>,
}

/// A transaction before its final dot.
pub struct Transaction {
    pool: Arc<Pool>,
    permit: OwnedSemaphorePermit,
    session: Session,
    client: Client,
    /// What MAIL and each RCPT need of the next hop.
    needs: Vec<Parameters>,
    /// MAIL, then each RCPT.
    commands: Vec<Issued>,
    /// How many of them this session has answered, or need not hear.
    answered: usize,
    /// How many replies the caller has seen.
    reported: usize,
    prefaced: bool,
    retried: bool,
    /// What was answered to a DATA that went along with RCPT.
    data_reply: Option<Reply>,
    stuffer: Stuffer,
}

impl Transaction {
    /// Takes a session and queues MAIL. `rcpt` are parameters of recipients known already.
    ///
    /// Why boxed: it goes through many hands, and every future on its way would have room for it.
    pub async fn begin(
        pool: Arc<Pool>,
        mail: &MailFrom,
        rcpt: &[Parameters],
        client: &Client,
        added_bytes: u64,
    ) -> Result<Box<Transaction>, RelayError> {
        let needs: Vec<Parameters> =
            std::iter::once(&mail.parameters).chain(rcpt).cloned().collect();
        let permit = pool.permit().await?;
        let session = pool.session(Wanted::Any, &|keywords| lacks(&needs, keywords)).await?;
        let line = mail_command(mail, added_bytes);
        Ok(Box::new(Transaction {
            pool,
            permit,
            session,
            client: client.clone(),
            needs,
            commands: vec![Issued { line, stage: "MAIL", reply: None }],
            answered: 0,
            reported: 0,
            prefaced: false,
            retried: false,
            data_reply: None,
            stuffer: Stuffer::default(),
        }))
    }

    /// The next hop, as the settings write it.
    pub fn hop(&self) -> String {
        self.pool.name(self.session.hop)
    }

    /// Whom it is with, and over what.
    pub fn reached(&self) -> Reached {
        let tls = self.session.tls().map(|tls| tls.version.clone());
        Reached { hop: self.hop(), tls }
    }

    /// Whether the next hop gives a reply for each recipient after the final dot.
    pub fn protocol(&self) -> Protocol {
        self.session.protocol()
    }

    /// Queues RCPT.
    pub fn rcpt(&mut self, recipient: &Recipient) {
        if !recipient.parameters.is_empty() {
            self.needs.push(recipient.parameters.clone());
        }
        let line = rcpt_command(recipient);
        self.commands.push(Issued { line, stage: "RCPT", reply: None });
    }

    /// The same, and DATA along with it where the next hop takes that (RFC 2920): for one recipient,
    /// of whom nothing is left to be decided. `data` gives the reply to it.
    pub async fn settle_with_data(&mut self) -> Result<Vec<Reply>, RelayError> {
        if self.commands.len() == 2 && self.pipelines() {
            self.data_reply = self.retrying(Upto::Data).await?;
        }
        self.settle().await
    }

    /// Sends what is queued; gives the replies that the caller has not seen, in order.
    pub async fn settle(&mut self) -> Result<Vec<Reply>, RelayError> {
        self.retrying(Upto::Commands).await?;
        let fresh = self.commands.iter().skip(self.reported);
        let replies: Vec<Reply> = fresh.filter_map(|issued| issued.reply.clone()).collect();
        self.reported = self.commands.len();
        Ok(replies)
    }

    /// Begins again for fewer recipients: RSET, MAIL, and these RCPTs. Gives the replies to
    /// MAIL and RCPT.
    pub async fn narrow(&mut self, recipients: &[&Recipient]) -> Result<Vec<Reply>, RelayError> {
        self.commands.truncate(1);
        self.commands.iter_mut().for_each(|issued| issued.reply = None);
        self.session.needs_reset = true;
        (self.answered, self.reported, self.prefaced) = (0, 0, false);
        for recipient in recipients {
            self.rcpt(recipient);
        }
        self.settle().await
    }

    /// Says DATA. `None`: the next hop waits for the content. `Some`: it refuses.
    pub async fn data(&mut self) -> Result<Option<Reply>, RelayError> {
        let reply = match self.data_reply.take() {
            Some(reply) => Some(reply),
            None => self.retrying(Upto::Data).await?,
        };
        Ok(reply.filter(|reply| reply.code() != 354))
    }

    /// Sends a piece of content; dots are stuffed here.
    pub async fn send(&mut self, content: &[u8], dots: Dots) -> Result<(), RelayError> {
        let mut rest = content;
        while !rest.is_empty() {
            let sent = match self.plain(rest, dots) {
                Some(plain) => {
                    rest = rest.get(plain.len()..).unwrap_or_default();
                    self.session.send(plain, "content").await
                }
                None => {
                    let (piece, behind) = rest.split_at(rest.len().min(NETWORK_BUFFER_BYTES));
                    rest = behind;
                    self.stuffer.stuff(piece, dots, self.session.output());
                    match self.session.output().len() >= NETWORK_BUFFER_BYTES {
                        true => self.session.flush("content").await,
                        false => Ok(()),
                    }
                }
            };
            sent.map_err(|fault| self.lost(fault))?;
        }
        Ok(())
    }

    /// What of this content can be sent from where it lies: much, with no dot to be stuffed.
    fn plain<'c>(&mut self, content: &'c [u8], dots: Dots) -> Option<&'c [u8]> {
        // Why not the last bytes: they go in one packet with the final dot.
        let most = content.len().saturating_sub(LAST_BYTES).min(DIRECT_BYTES_MAX);
        self.stuffer.plain(content.get(..most)?, dots, NETWORK_BUFFER_BYTES)
    }

    /// Sends the final dot and waits for the reply; one for each accepted recipient with LMTP.
    pub async fn finish(mut self: Box<Self>) -> Finished {
        let accepted = self.commands.iter().skip(1).filter(|issued| is_accepted(issued)).count();
        let expected = match self.session.protocol() {
            Protocol::Smtp => 1,
            Protocol::Lmtp => accepted,
        };
        let mut replies = Vec::with_capacity(expected);
        if let Err(fault) = self.final_replies(expected, &mut replies).await {
            return Finished { replies, fault: Some(self.lost(fault)) };
        }
        let delivered = replies.iter().any(Reply::is_positive);
        let leaving = replies.iter().any(|reply| reply.code() == 421);
        self.session.needs_reset = false;
        self.session.barren = if delivered { 0 } else { self.session.barren.saturating_add(1) };
        self.session.delivered = self.session.delivered.saturating_add(u32::from(delivered));
        if !leaving {
            self.pool.give_back(self.session);
        }
        drop(self.permit);
        Finished { replies, fault: None }
    }

    /// Leaves before DATA, or after DATA was refused: the session may serve again after RSET.
    pub fn leave(mut self: Box<Self>) {
        // Why not one that waits for content: that would be an empty message.
        let waits = self.data_reply.as_ref().is_some_and(|reply| reply.code() == 354);
        if !waits && self.commands.iter().all(|issued| issued.reply.is_some()) {
            self.session.needs_reset = true;
            // Why two: a DATA behind a refused RCPT is one more error that the next hop counts.
            let errors = if self.data_reply.is_some() { 2 } else { 1 };
            self.session.barren = self.session.barren.saturating_add(errors);
            self.pool.give_back(self.session);
        }
    }

    async fn final_replies(
        &mut self,
        expected: usize,
        replies: &mut Vec<Reply>,
    ) -> Result<(), HopFault> {
        if self.session.output().len() >= NETWORK_BUFFER_BYTES {
            self.session.flush("content").await?;
        }
        self.stuffer.end(self.session.output());
        // Why looked at before: a yes that is there already is no answer to the final dot.
        self.session.flush_in_step("content").await?;
        for _ in 0..expected {
            let reply = self.session.reply("final dot", FINAL_DEADLINE).await?;
            if reply.severity() == Severity::Intermediate {
                return Err(HopFault::Unwilling { stage: "final dot", reply });
            }
            replies.push(reply);
        }
        Ok(())
    }

    /// Says what is due, once more on a fresh session when this one is lost.
    async fn retrying(&mut self, upto: Upto) -> Result<Option<Reply>, RelayError> {
        loop {
            match self.exchange(upto).await {
                Ok(reply) => return Ok(reply),
                Err(fault) if self.retried => return Err(self.lost(fault)),
                Err(fault) => {
                    tracing::debug!(hop = %self.hop(), %fault, "session lost before DATA");
                    self.retried = true;
                    // Why boxed: seldom needed, and its future is larger than all the others.
                    Box::pin(self.replace_session()).await?;
                }
            }
        }
    }

    async fn replace_session(&mut self) -> Result<(), RelayError> {
        let wanted = match self.session.is_kept {
            true => Wanted::Fresh,
            false => Wanted::FreshElsewhere(self.session.hop),
        };
        // Why first: its place is needed for the new one.
        self.session.close();
        let needs = &self.needs;
        self.session = self.pool.session(wanted, &|keywords| lacks(needs, keywords)).await?;
        self.answered = 0;
        self.prefaced = false;
        // What nobody has seen was not said.
        self.commands.iter_mut().skip(self.reported).for_each(|issued| issued.reply = None);
        Ok(())
    }

    async fn exchange(&mut self, upto: Upto) -> Result<Option<Reply>, HopFault> {
        if let Some(missing) = lacks(&self.needs, self.session.keywords()) {
            tracing::debug!(%missing, "the next hop offers less than this transaction needs");
            return Err(HopFault::OffersLess);
        }
        let is_said = self.say_commands(upto).await?;
        if upto == Upto::Commands {
            return Ok(None);
        }
        if !is_said {
            self.session.queue("DATA\r\n");
            self.session.flush_in_step("DATA").await?;
        }
        let reply = self.session.reply("DATA", DATA_DEADLINE).await?;
        match reply.code() {
            354 | 400..=420 | 422.. => Ok(Some(reply)),
            _ => Err(HopFault::Unwilling { stage: "DATA", reply }),
        }
    }

    fn pipelines(&self) -> bool {
        self.session.keywords().has("PIPELINING")
    }

    /// RSET if one is due, XFORWARD, MAIL, RCPT: together as far as the next hop takes them so. Gives
    /// whether DATA was said with the last of them; its reply is to be read then.
    async fn say_commands(&mut self, upto: Upto) -> Result<bool, HopFault> {
        let offered = self.session.keywords().value("XFORWARD").unwrap_or_default();
        let xforward = xforward_commands(&self.client.xforward, offered);
        let due = self.due(xforward.len());
        let window = if self.pipelines() { PIPELINE_COMMANDS_MAX } else { 1 };
        let with_data = upto == Upto::Data && self.pipelines() && !due.is_empty();
        let mut batches = due.chunks(window).peekable();
        while let Some(batch) = batches.next() {
            for step in batch {
                let line = match step {
                    Due::Reset => Some("RSET\r\n"),
                    Due::Xforward(index) => xforward.get(*index).map(String::as_str),
                    Due::Command(index) => self.commands.get(*index).map(|it| it.line.as_str()),
                };
                self.session.queue(line.unwrap_or_default());
            }
            if with_data && batches.peek().is_none() {
                self.session.queue("DATA\r\n");
            }
            self.session.flush_in_step("commands").await?;
            for step in batch {
                self.hear(*step).await?;
            }
        }
        self.prefaced = true;
        self.answered = self.commands.len();
        match due.is_empty() || with_data || self.session.is_quiet().await {
            true => Ok(with_data),
            false => Err(self.session.out_of_step("commands")),
        }
    }

    /// Why a recipient that was refused is not said again: the client was told, and will send to
    /// it again by itself.
    fn due(&self, xforward: usize) -> Vec<Due> {
        let reset = (!self.prefaced && self.session.needs_reset).then_some(Due::Reset);
        let xforward = (0..xforward).filter(|_| !self.prefaced).map(Due::Xforward);
        let commands = self.commands.iter().enumerate().skip(self.answered);
        let commands = commands.filter(|(_, issued)| issued.reply.is_none() || is_accepted(issued));
        reset.into_iter().chain(xforward).chain(commands.map(|(at, _)| Due::Command(at))).collect()
    }

    async fn hear(&mut self, step: Due) -> Result<(), HopFault> {
        let issued = match step {
            Due::Command(index) => self.commands.get_mut(index),
            Due::Reset | Due::Xforward(_) => None,
        };
        let stage = match (&issued, step) {
            (Some(issued), _) => issued.stage,
            (None, Due::Reset) => "RSET",
            (None, _) => "XFORWARD",
        };
        let reply = self.session.reply(stage, COMMAND_DEADLINE).await?;
        // A command that was accepted on a lost session and is not on this one leaves no true
        // answer but "later".
        let changed = issued.as_ref().is_some_and(|issued| is_accepted(issued));
        let needed = changed || step == Due::Reset;
        match reply.code() {
            421 | 300..400 => return Err(HopFault::Unwilling { stage, reply }),
            400.. if needed => return Err(HopFault::Unwilling { stage, reply }),
            _ => {}
        }
        if step == Due::Reset {
            self.session.needs_reset = false;
        }
        if let Some(issued) = issued {
            issued.reply.get_or_insert(reply);
        }
        Ok(())
    }

    fn lost(&self, fault: HopFault) -> RelayError {
        RelayError::Lost { hop: self.hop(), fault }
    }
}

/// How far `exchange` goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Upto {
    Commands,
    Data,
}

fn is_accepted(issued: &Issued) -> bool {
    issued.reply.as_ref().is_some_and(Reply::is_positive)
}

fn lacks(needs: &[Parameters], keywords: &Keywords) -> Option<String> {
    needs.iter().find_map(|parameters| keywords.not_allowed(parameters)).map(str::to_owned)
}
