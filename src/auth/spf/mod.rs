//! SPF: whether a client may send for a domain, which term says so, and how many others it lets in.
//!
//! Takes: `Identity` and the client. Gives: `SpfOutcome`. Errors: none; trouble is a result
//! (`temperror`: try again; `permerror`: the domain's owner acts) with its reason.
//! Bounds: ten terms that ask DNS, two that find nothing, ten mail servers, ten names of a
//! client (RFC 7208 §4.6.4, in `limits`), and a deadline.
//! Standards: RFC 7208 §4 (check_host), §5 (mechanisms), §6 (modifiers). exp= is read and not
//! followed: nobody sees our explanations.
//!
//! Why not mail-auth's: it passes where RFC 7208 has permerror (two records, an unknown
//! mechanism, any number of lookups that find nothing), and does not say which term matched.

pub mod expand;
pub mod record;

use std::net::IpAddr;

use ipnet::IpNet;
use tokio::time::Instant;

use crate::auth::dns::{Answer, Dns, Kind, Question, Record};
use crate::auth::spf::expand::{DomainSpec, Values, reverse_name};
use crate::auth::spf::record::{Cidr, Directive, Mechanism, SpfRecord, is_spf};
use crate::judge::evidence::{AuthResult, SpfScope};
use crate::mail::limits::{
    SPF_MAIL_SERVERS_MAX, SPF_NAMES_MAX, SPF_TERMS_MAX, SPF_VOID_MAX, SPF_WIDE_V4, SPF_WIDE_V6,
};

/// Whose record is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity<'a> {
    /// Which identity this is.
    pub scope: SpfScope,
    /// The sender's local part; when empty, `postmaster` stands for it (RFC 7208 §4.3).
    pub local: &'a str,
    /// The sender's domain, A-labels.
    pub domain: &'a str,
}

/// What SPF says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpfOutcome {
    /// The result of RFC 7208 §2.6.
    pub result: AuthResult,
    /// Which identity it is about.
    pub scope: SpfScope,
    /// The domain that was asked, as given.
    pub domain: String,
    /// The term that decided; `None` where none did.
    pub matched: Option<Matched>,
    /// Why there is no result, for `temperror` and `permerror`.
    pub reason: Option<String>,
    /// Whether the domain publishes nothing, and `GUESS` was taken for its record.
    pub is_guessed: bool,
}

/// The record that is taken for a domain without one, where a setting asks for it: hosts near its
/// own address and its MX. A habit of old filters, no standard.
pub const GUESS: &str = "v=spf1 a/24 mx/24 ?all";

/// The term that decided, and how many others it lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched {
    /// The directives that led there, outermost first: `include:a.example ip4:192.0.2.0/24`.
    pub term: String,
    /// Whom it lets in.
    pub breadth: Breadth,
}

/// Whom a term lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breadth {
    /// `all`.
    Everybody,
    /// `exists` and `ptr`: whom the peer's own zone names.
    Unbounded,
    /// A network of this prefix length in the client's family, or as many addresses in all.
    Network(u8),
}

impl SpfOutcome {
    /// `temperror`: nobody could be asked in time.
    pub fn unanswered(identity: &Identity<'_>, reason: &str) -> SpfOutcome {
        let stopped = Err(Stop::Temporary(reason.to_owned()));
        outcome(identity, stopped, Origin::Published)
    }

    /// Whether the record lets in so many that its pass says nothing of the sender.
    pub fn lets_everybody_in(&self, client: IpAddr) -> bool {
        let narrowest = if client.to_canonical().is_ipv4() { SPF_WIDE_V4 } else { SPF_WIDE_V6 };
        match self.matched.as_ref().map(|matched| matched.breadth) {
            Some(Breadth::Everybody | Breadth::Unbounded) => true,
            Some(Breadth::Network(length)) => length < narrowest,
            None => false,
        }
    }
}

/// Evaluates `check_host()` (RFC 7208 §4).
pub async fn check(
    dns: &Dns,
    client: IpAddr,
    helo: &str,
    identity: &Identity<'_>,
    deadline: Instant,
) -> SpfOutcome {
    let mut check = Check::new(dns, client, helo, identity, deadline);
    let checked = check.host(identity.domain, Branch::Passes).await;
    outcome(identity, checked, Origin::Published)
}

/// What `GUESS` would say of a domain that publishes nothing: `pass`, or else `none`.
pub async fn guess(
    dns: &Dns,
    client: IpAddr,
    helo: &str,
    identity: &Identity<'_>,
    deadline: Instant,
) -> SpfOutcome {
    let mut check = Check::new(dns, client, helo, identity, deadline);
    let checked = match SpfRecord::parse(GUESS.as_bytes()) {
        Ok(record) => check.evaluate(&record, identity.domain, Branch::Passes).await,
        Err(_) => Ok(Verdict { result: AuthResult::None, matched: None }),
    };
    let passed = matches!(&checked, Ok(verdict) if verdict.result == AuthResult::Pass);
    match passed {
        true => outcome(identity, checked, Origin::Guessed),
        false => {
            let nothing = Ok(Verdict { result: AuthResult::None, matched: None });
            outcome(identity, nothing, Origin::Published)
        }
    }
}

/// Where a record comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Published,
    Guessed,
}

fn outcome(identity: &Identity<'_>, checked: Result<Verdict, Stop>, origin: Origin) -> SpfOutcome {
    let (result, matched, reason) = match checked {
        Ok(Verdict { result, matched }) => (result, matched, None),
        Err(Stop::Temporary(reason)) => (AuthResult::TempError, None, Some(reason)),
        Err(Stop::Permanent(reason)) => (AuthResult::PermError, None, Some(reason)),
    };
    let domain = identity.domain.to_owned();
    let is_guessed = origin == Origin::Guessed;
    SpfOutcome { result, scope: identity.scope, domain, matched, reason, is_guessed }
}

/// The state of one evaluation.
struct Check<'a> {
    dns: &'a Dns,
    deadline: Instant,
    client: IpAddr,
    helo: &'a str,
    local: &'a str,
    sender_domain: &'a str,
    /// Terms that asked DNS.
    terms: usize,
    /// Terms that found nothing.
    voids: usize,
    /// How many addresses of the client's family the records seen pass in all, as far as their
    /// text says it.
    reach: u128,
    /// The directives that lead to the record under evaluation.
    path: Vec<String>,
}

struct Verdict {
    result: AuthResult,
    matched: Option<Matched>,
}

/// Why an evaluation ends without a result.
enum Stop {
    Temporary(String),
    Permanent(String),
}

/// Whether a match in a record would pass the message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Branch {
    Passes,
    DoesNot,
}

impl<'a> Check<'a> {
    fn new(
        dns: &'a Dns,
        client: IpAddr,
        helo: &'a str,
        identity: &Identity<'a>,
        deadline: Instant,
    ) -> Check<'a> {
        let local = if identity.local.is_empty() { "postmaster" } else { identity.local };
        Check {
            dns,
            deadline,
            // Why: `::ffff:192.0.2.1` is an IPv4 client of a dual-stack listener (RFC 7208 §5).
            client: client.to_canonical(),
            helo,
            local,
            sender_domain: identity.domain,
            terms: 0,
            voids: 0,
            reach: 0,
            path: Vec::new(),
        }
    }

    /// The record of `domain` and what it says; `none` when there is no record.
    async fn host(&mut self, domain: &str, branch: Branch) -> Result<Verdict, Stop> {
        let Some(record) = self.record(domain).await? else {
            return Ok(Verdict { result: AuthResult::None, matched: None });
        };
        self.evaluate(&record, domain, branch).await
    }

    async fn evaluate(
        &mut self,
        record: &SpfRecord,
        domain: &str,
        branch: Branch,
    ) -> Result<Verdict, Stop> {
        if branch == Branch::Passes {
            self.add_reach(record);
        }
        for directive in &record.directives {
            if let Some(matched) = self.directive(directive, domain, branch).await? {
                return Ok(Verdict { result: directive.result, matched: Some(matched) });
            }
        }
        match &record.redirect {
            None => Ok(Verdict { result: AuthResult::Neutral, matched: None }),
            Some(target) => self.redirect(target, domain, branch).await,
        }
    }

    /// RFC 7208 §4.3, §4.4, §4.5: what is no domain has no record; two records are a fault.
    async fn record(&self, domain: &str) -> Result<Option<SpfRecord>, Stop> {
        if !is_domain(domain) {
            return Ok(None);
        }
        let answer = self.ask(Kind::Txt, domain).await?;
        let mut records = answer.texts().filter(|text| is_spf(text));
        let Some(text) = records.next() else { return Ok(None) };
        if records.next().is_some() {
            return Err(Stop::Permanent(format!("{domain} has two SPF records")));
        }
        let record = SpfRecord::parse(text);
        record.map(Some).map_err(|fault| Stop::Permanent(format!("{domain}: {fault}")))
    }

    /// RFC 7208 §6.1: the target's result is the result; a target without a record is a fault.
    async fn redirect(
        &mut self,
        target: &DomainSpec,
        domain: &str,
        branch: Branch,
    ) -> Result<Verdict, Stop> {
        self.count_term()?;
        let target = self.expand(target, domain).await?;
        self.path.push(format!("redirect={target}"));
        let verdict = Box::pin(self.host(&target, branch)).await?;
        match verdict.result {
            AuthResult::None => Err(Stop::Permanent(format!("redirect to no record: {target}"))),
            _ => Ok(verdict),
        }
    }

    /// Whether the directive matches the client.
    async fn directive(
        &mut self,
        directive: &Directive,
        domain: &str,
        branch: Branch,
    ) -> Result<Option<Matched>, Stop> {
        let breadth = match &directive.mechanism {
            Mechanism::All => Some(Breadth::Everybody),
            Mechanism::Ip(network) => {
                network.contains(&self.client).then(|| self.network(network.prefix_len(), 1))
            }
            Mechanism::Include(target) => {
                return self.include(directive, target, domain, branch).await;
            }
            Mechanism::A(target, cidr) => self.a(target.as_ref(), *cidr, domain).await?,
            Mechanism::Mx(target, cidr) => self.mx(target.as_ref(), *cidr, domain).await?,
            Mechanism::Ptr(target) => self.ptr(target.as_ref(), domain).await?,
            Mechanism::Exists(target) => self.exists(target, domain).await?,
        };
        let Some(breadth) = breadth else { return Ok(None) };
        let mut term = self.path.join(" ");
        term.push_str(if term.is_empty() { "" } else { " " });
        term.push_str(&directive.text);
        Ok(Some(Matched { term, breadth }))
    }

    /// RFC 7208 §5.2: matches when the other record passes; faults there are faults here.
    async fn include(
        &mut self,
        directive: &Directive,
        target: &DomainSpec,
        domain: &str,
        branch: Branch,
    ) -> Result<Option<Matched>, Stop> {
        self.count_term()?;
        let target = self.expand(target, domain).await?;
        let branch = match directive.result {
            AuthResult::Pass => branch,
            _ => Branch::DoesNot,
        };
        let depth = self.path.len();
        self.path.push(directive.text.clone());
        let verdict = Box::pin(self.host(&target, branch)).await?;
        self.path.truncate(depth);
        match verdict.result {
            AuthResult::Pass => Ok(verdict.matched),
            AuthResult::None => Err(Stop::Permanent(format!("include of no record: {target}"))),
            _ => Ok(None),
        }
    }

    /// RFC 7208 §5.3.
    async fn a(
        &mut self,
        target: Option<&DomainSpec>,
        cidr: Cidr,
        domain: &str,
    ) -> Result<Option<Breadth>, Stop> {
        self.count_term()?;
        let target = self.target(target, domain).await?;
        let answer = self.ask(self.family(), &target).await?;
        self.count_void(&answer)?;
        Ok(self.among(&addresses(&answer), cidr))
    }

    /// RFC 7208 §5.4; more than ten mail servers are a fault (RFC 7208 §4.6.4).
    async fn mx(
        &mut self,
        target: Option<&DomainSpec>,
        cidr: Cidr,
        domain: &str,
    ) -> Result<Option<Breadth>, Stop> {
        self.count_term()?;
        let target = self.target(target, domain).await?;
        let answer = self.ask(Kind::Mx, &target).await?;
        self.count_void(&answer)?;
        if answer.records().len() > SPF_MAIL_SERVERS_MAX {
            return Err(Stop::Permanent(format!("{target} has more than ten mail servers")));
        }
        let begin = |record: &Record| match record {
            Record::Exchange { host, .. } => {
                Some(self.dns.begin(Question::new(self.family(), host)))
            }
            _ => None,
        };
        let asked: Vec<_> = answer.records().iter().filter_map(begin).collect();
        let mut all = Vec::new();
        for pending in asked {
            let answer = pending.answer(self.deadline).await;
            all.extend(addresses(&answer.map_err(|trouble| temporary(&trouble))?));
        }
        Ok(self.among(&all, cidr))
    }

    /// RFC 7208 §5.5: any trouble means no match.
    async fn ptr(
        &mut self,
        target: Option<&DomainSpec>,
        domain: &str,
    ) -> Result<Option<Breadth>, Stop> {
        self.count_term()?;
        let target = self.target(target, domain).await?;
        let Ok(answer) = self.ask(Kind::Ptr, &reverse_name(self.client)).await else {
            return Ok(None);
        };
        self.count_void(&answer)?;
        let names = self.validated_names(&answer, |name| is_within(name, &target)).await;
        Ok((!names.is_empty()).then_some(Breadth::Unbounded))
    }

    /// RFC 7208 §5.7: an A record, whatever it says and whatever family the client has.
    async fn exists(&mut self, target: &DomainSpec, domain: &str) -> Result<Option<Breadth>, Stop> {
        self.count_term()?;
        let target = self.expand(target, domain).await?;
        let answer = self.ask(Kind::A, &target).await?;
        self.count_void(&answer)?;
        Ok((!answer.records().is_empty()).then_some(Breadth::Unbounded))
    }

    /// The client's names that lead back to it, of the first ten (RFC 7208 §5.5, §4.6.4).
    async fn validated_names(
        &self,
        pointers: &Answer,
        wanted: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let names = pointers.records().iter().take(SPF_NAMES_MAX).filter_map(|record| {
            let Record::Pointer(name) = record else { return None };
            wanted(name).then(|| (name, self.dns.begin(Question::new(self.family(), name))))
        });
        let asked: Vec<_> = names.collect();
        let mut validated = Vec::new();
        for (name, pending) in asked {
            let answer = pending.answer(self.deadline).await;
            if answer.is_ok_and(|answer| addresses(&answer).contains(&self.client)) {
                validated.push(name.clone());
            }
        }
        validated
    }

    /// The value of `%{p}`: the domain itself, else a name below it, else any (RFC 7208 §7.3).
    async fn validated_name(&self, domain: &str) -> Option<String> {
        let answer = self.ask(Kind::Ptr, &reverse_name(self.client)).await.ok()?;
        let names = self.validated_names(&answer, |_| true).await;
        let is_domain = |name: &&String| name.eq_ignore_ascii_case(domain);
        let exact = names.iter().find(is_domain);
        let below = exact.or_else(|| names.iter().find(|name| is_within(name, domain)));
        below.or(names.first()).cloned()
    }

    async fn target(&self, target: Option<&DomainSpec>, domain: &str) -> Result<String, Stop> {
        match target {
            Some(target) => self.expand(target, domain).await,
            None => Ok(domain.to_owned()),
        }
    }

    async fn expand(&self, spec: &DomainSpec, domain: &str) -> Result<String, Stop> {
        let validated_name = match spec.needs_validated_name() {
            true => self.validated_name(domain).await,
            false => None,
        };
        let values = Values {
            client: self.client,
            helo: self.helo,
            local: self.local,
            sender_domain: self.sender_domain,
            domain,
            validated_name: validated_name.as_deref(),
        };
        spec.expand(&values).map_err(|what| Stop::Permanent(format!("{domain}: {what}")))
    }

    async fn ask(&self, kind: Kind, name: &str) -> Result<Answer, Stop> {
        let answer = self.dns.ask(Question::new(kind, name), self.deadline).await;
        answer.map_err(|trouble| temporary(&trouble))
    }

    /// RFC 7208 §4.6.4: "limit the total number of those terms to 10".
    fn count_term(&mut self) -> Result<(), Stop> {
        self.terms += 1;
        match self.terms > SPF_TERMS_MAX {
            true => Err(Stop::Permanent("more than ten terms ask DNS".to_owned())),
            false => Ok(()),
        }
    }

    /// RFC 7208 §4.6.4: "limit 'void lookups' to two".
    fn count_void(&mut self, answer: &Answer) -> Result<(), Stop> {
        self.voids += usize::from(answer.records().is_empty());
        match self.voids > SPF_VOID_MAX {
            true => Err(Stop::Permanent("more than two lookups find nothing".to_owned())),
            false => Ok(()),
        }
    }

    fn family(&self) -> Kind {
        if self.client.is_ipv4() { Kind::A } else { Kind::Aaaa }
    }

    /// Whether one of the addresses, widened to the prefix length, holds the client.
    fn among(&self, addresses: &[IpAddr], cidr: Cidr) -> Option<Breadth> {
        let length = if self.client.is_ipv4() { cidr.v4 } else { cidr.v6 };
        let holds = |address: &IpAddr| {
            IpNet::new(*address, length).is_ok_and(|network| network.contains(&self.client))
        };
        let any = addresses.iter().any(holds);
        any.then(|| self.network(length, addresses.len()))
    }

    /// The breadth of `count` networks of this length, with what the records pass beside.
    fn network(&self, length: u8, count: usize) -> Breadth {
        let bits = if self.client.is_ipv4() { 32 } else { 128 };
        let matched = size(bits, length).saturating_mul(u128::try_from(count).unwrap_or(u128::MAX));
        let addresses = matched.max(self.reach);
        let log = addresses.checked_next_power_of_two().map_or(128, u128::trailing_zeros);
        Breadth::Network(bits.saturating_sub(u8::try_from(log).unwrap_or(bits)))
    }

    /// Adds what the text of a record passes: `ip4:0.0.0.0/1 ip4:128.0.0.0/1` is everybody.
    fn add_reach(&mut self, record: &SpfRecord) {
        for directive in &record.directives {
            let (AuthResult::Pass, Mechanism::Ip(network)) =
                (directive.result, &directive.mechanism)
            else {
                continue;
            };
            if network.addr().is_ipv4() == self.client.is_ipv4() {
                let size = size(network.max_prefix_len(), network.prefix_len());
                self.reach = self.reach.saturating_add(size);
            }
        }
    }
}

/// How many addresses a network has.
fn size(bits: u8, length: u8) -> u128 {
    1_u128.checked_shl(bits.saturating_sub(length).into()).unwrap_or(u128::MAX)
}

fn temporary(trouble: &impl ToString) -> Stop {
    Stop::Temporary(trouble.to_string())
}

fn addresses(answer: &Answer) -> Vec<IpAddr> {
    let address = |record: &Record| match record {
        Record::Address(address) => Some(*address),
        _ => None,
    };
    answer.records().iter().filter_map(address).collect()
}

/// RFC 7208 §4.3: at least two labels, each with 1 to 63 bytes; a dot at the end is no label.
fn is_domain(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    text.contains('.')
        && text.len() <= 253
        && text.split('.').all(|label| (1..=63).contains(&label.len()))
}

/// Whether a name is `domain` or lies below it; without regard to letter case.
fn is_within(name: &str, domain: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let domain = domain.to_ascii_lowercase();
    let domain = domain.strip_suffix('.').unwrap_or(&domain);
    name.strip_suffix(domain).is_some_and(|front| front.is_empty() || front.ends_with('.'))
}
