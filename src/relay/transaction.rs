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
use crate::relay::pool::{Freshness, Pool};
use crate::relay::session::{HopFault, Session};
use crate::wire::endpoint::Protocol;
use crate::wire::keywords::Keywords;
use crate::wire::smtp_client::{Stuffer, mail_command, rcpt_command, xforward_commands};

/// A command with its reply, once there is one.
struct Issued {
    line: String,
    stage: &'static str,
    reply: Option<Reply>,
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
    /// How many of them this session has answered.
    answered: usize,
    /// How many replies the caller has seen.
    reported: usize,
    prefaced: bool,
    retried: bool,
    stuffer: Stuffer,
}

impl Transaction {
    /// Takes a session and queues MAIL. `rcpt` are parameters of recipients known already.
    pub async fn begin(
        pool: Arc<Pool>,
        mail: &MailFrom,
        rcpt: &[Parameters],
        client: &Client,
        added_bytes: u64,
    ) -> Result<Transaction, RelayError> {
        let needs: Vec<Parameters> =
            std::iter::once(&mail.parameters).chain(rcpt).cloned().collect();
        let permit = pool.permit().await?;
        let session = pool.session(Freshness::Kept, &|keywords| lacks(&needs, keywords)).await?;
        let line = mail_command(mail, added_bytes);
        Ok(Transaction {
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
            stuffer: Stuffer::default(),
        })
    }

    /// The next hop, as the settings write it.
    pub fn hop(&self) -> String {
        self.pool.name(self.session.hop)
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

    /// Sends what is queued; gives the replies that the caller has not seen, in order.
    pub async fn settle(&mut self) -> Result<Vec<Reply>, RelayError> {
        self.retrying(Upto::Commands).await?;
        let fresh = self.commands.iter().skip(self.reported);
        let replies: Vec<Reply> = fresh.filter_map(|issued| issued.reply.clone()).collect();
        self.reported = self.commands.len();
        Ok(replies)
    }

    /// Begins again for fewer recipients: RSET, MAIL, and these RCPTs. Gives the first refusal.
    pub async fn narrow(&mut self, recipients: &[&Recipient]) -> Result<Option<Reply>, RelayError> {
        self.commands.truncate(1);
        self.forget_replies();
        self.session.needs_reset = true;
        self.reported = 0;
        for recipient in recipients {
            self.rcpt(recipient);
        }
        let replies = self.settle().await?;
        Ok(replies.into_iter().find(|reply| !reply.is_positive()))
    }

    /// Says DATA. `None`: the next hop waits for the content. `Some`: it refuses.
    pub async fn data(&mut self) -> Result<Option<Reply>, RelayError> {
        let reply = self.retrying(Upto::Data).await?;
        Ok(reply.filter(|reply| reply.severity() != Severity::Intermediate))
    }

    /// Sends a piece of content; dots are stuffed here.
    pub async fn send(&mut self, content: &[u8]) -> Result<(), RelayError> {
        for piece in content.chunks(NETWORK_BUFFER_BYTES) {
            self.stuffer.stuff(piece, self.session.output());
            if self.session.output().len() >= NETWORK_BUFFER_BYTES {
                let sent = self.session.flush("content").await;
                sent.map_err(|fault| self.lost(fault))?;
            }
        }
        Ok(())
    }

    /// Sends the final dot and waits for the reply; one for each accepted recipient with LMTP.
    ///
    /// An error here means that nobody knows whether the message was taken.
    pub async fn finish(mut self) -> Result<Vec<Reply>, RelayError> {
        self.stuffer.end(self.session.output());
        self.session.flush("final dot").await.map_err(|fault| self.lost(fault))?;
        let accepted = self.commands.iter().skip(1).filter(|issued| is_accepted(issued)).count();
        let expected = match self.session.protocol() {
            Protocol::Smtp => 1,
            Protocol::Lmtp => accepted,
        };
        let mut replies = Vec::with_capacity(expected);
        for _ in 0..expected {
            let reply = self.session.reply("final dot", FINAL_DEADLINE).await;
            replies.push(reply.map_err(|fault| self.lost(fault))?);
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
        Ok(replies)
    }

    /// Leaves before DATA, or after DATA was refused: the session may serve again after RSET.
    pub fn leave(mut self) {
        if self.commands.iter().all(|issued| issued.reply.is_some()) {
            self.session.needs_reset = true;
            self.session.barren = self.session.barren.saturating_add(1);
            self.pool.give_back(self.session);
        }
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
                    let needs = &self.needs;
                    let lacks = |keywords: &Keywords| lacks(needs, keywords);
                    self.session = self.pool.session(Freshness::Fresh, &lacks).await?;
                    self.answered = 0;
                    self.prefaced = false;
                }
            }
        }
    }

    async fn exchange(&mut self, upto: Upto) -> Result<Option<Reply>, HopFault> {
        if let Some(missing) = lacks(&self.needs, self.session.keywords()) {
            tracing::debug!(%missing, "the next hop offers less than this transaction needs");
            return Err(HopFault::Closed { stage: "offers less" });
        }
        self.preface().await?;
        let window = match self.session.keywords().has("PIPELINING") {
            true => PIPELINE_COMMANDS_MAX,
            false => 1,
        };
        while self.answered < self.commands.len() {
            let until = self.commands.len().min(self.answered.saturating_add(window));
            for issued in self.commands.get(self.answered..until).unwrap_or_default() {
                self.session.queue(&issued.line);
            }
            self.session.flush("commands").await?;
            for issued in self.commands.get_mut(self.answered..until).unwrap_or_default() {
                let reply = self.session.reply(issued.stage, COMMAND_DEADLINE).await?;
                check(issued, &reply)?;
                issued.reply.get_or_insert(reply);
                self.answered += 1;
            }
        }
        if upto == Upto::Commands {
            return Ok(None);
        }
        self.session.queue("DATA\r\n");
        self.session.flush("DATA").await?;
        let reply = self.session.reply("DATA", DATA_DEADLINE).await?;
        match reply.code() {
            421 | 200..300 => Err(HopFault::Unwilling { stage: "DATA", reply }),
            _ => Ok(Some(reply)),
        }
    }

    /// RSET if one is due, and XFORWARD, whose replies concern nobody else.
    async fn preface(&mut self) -> Result<(), HopFault> {
        if self.prefaced {
            return Ok(());
        }
        let offered = self.session.keywords().value("XFORWARD").unwrap_or_default().to_owned();
        let mut lines = xforward_commands(&self.client.xforward, &offered);
        if self.session.needs_reset {
            lines.insert(0, "RSET\r\n".to_owned());
        }
        let pipelining = self.session.keywords().has("PIPELINING");
        let count = lines.len();
        for (index, line) in lines.iter().enumerate() {
            self.session.queue(line);
            if !pipelining || index + 1 == count {
                self.session.flush("RSET").await?;
                let due = if pipelining { count } else { 1 };
                for _ in 0..due {
                    let reply = self.session.reply("RSET", COMMAND_DEADLINE).await?;
                    if reply.code() == 421 {
                        return Err(HopFault::Unwilling { stage: "RSET", reply });
                    }
                }
            }
        }
        self.session.needs_reset = false;
        self.prefaced = true;
        Ok(())
    }

    fn forget_replies(&mut self) {
        self.commands.iter_mut().for_each(|issued| issued.reply = None);
        self.answered = 0;
        self.prefaced = false;
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

/// A 421 is a lost session. A command that was accepted on the lost session and is not on the
/// fresh one leaves no true answer but "later".
fn check(issued: &Issued, reply: &Reply) -> Result<(), HopFault> {
    let changed = is_accepted(issued) && !reply.is_positive();
    match reply.code() == 421 || changed {
        true => Err(HopFault::Unwilling { stage: issued.stage, reply: reply.clone() }),
        false => Ok(()),
    }
}

fn is_accepted(issued: &Issued) -> bool {
    issued.reply.as_ref().is_some_and(Reply::is_positive)
}

fn lacks(needs: &[Parameters], keywords: &Keywords) -> Option<String> {
    needs.iter().find_map(|parameters| keywords.not_allowed(parameters)).map(str::to_owned)
}
