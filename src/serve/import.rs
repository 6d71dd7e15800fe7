//! The HTTP tap: other programs post what they found out of inbound mail.
//!
//! `POST /inbound` takes our own JSON (docs/taps.md), `POST /rspamd` what rspamd's metadata
//! exporter sends, `POST /exim` what Exim's ACL does. 204: remembered. 400: it cannot be read, and
//! why. 401: the token is missing or wrong.
//! Bounds: `limits::POSTED_BYTES_MAX` bytes, the clients of `serve::http`.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;

use crate::guard::tap::Tap;
use crate::guard::tapped::Counts;
use crate::judge::arrival::Seen;
use crate::judge::exim;
use crate::judge::posted::{self, Posted, PostedFault};
use crate::judge::subject::TapKind;
use crate::mail::address::Address;
use crate::mail::limits::POSTED_BYTES_MAX;
use crate::mail::message::Kept;

/// What the pages need.
pub struct Import {
    /// The inbound path.
    pub tap: Arc<Tap>,
    /// What we call ourselves, where nobody names the host that took a message.
    pub hostname: String,
    /// What must stand behind `Authorization: Bearer`; `None`: nothing.
    pub token: Option<String>,
}

type Answer = (StatusCode, String);

/// The pages.
pub fn router(import: Import) -> Router {
    Router::new()
        .route("/inbound", post(own))
        .route("/rspamd", post(rspamd))
        .route("/exim", post(exim))
        .layer(DefaultBodyLimit::max(POSTED_BYTES_MAX))
        .with_state(Arc::new(import))
}

async fn own(State(import): State<Arc<Import>>, headers: HeaderMap, body: Bytes) -> Answer {
    import.take(&headers, || posted::own(&body)).await
}

async fn rspamd(State(import): State<Arc<Import>>, headers: HeaderMap, body: Bytes) -> Answer {
    import.take(&headers, || posted::rspamd(&body)).await
}

async fn exim(State(import): State<Arc<Import>>, headers: HeaderMap, body: Bytes) -> Answer {
    import.take(&headers, || exim::exim(&body)).await
}

impl Import {
    async fn take(
        &self,
        headers: &HeaderMap,
        read: impl Fn() -> Result<Posted, PostedFault> + Send,
    ) -> Answer {
        if !self.knows(headers) {
            Counts::add(&self.tap.counts().refused);
            return (StatusCode::UNAUTHORIZED, "the token is missing or wrong\n".to_owned());
        }
        let posted = match read() {
            Ok(posted) => posted,
            Err(fault) => {
                Counts::add(&self.tap.counts().of(TapKind::Http).faults);
                return (StatusCode::BAD_REQUEST, format!("{fault}\n"));
            }
        };
        let arrived = self.tap.now();
        let recipients = posted.recipients.iter().filter_map(|to| Address::parse(to));
        let seen = Seen {
            id: self.tap.new_id(),
            tap: TapKind::Http,
            host: posted.host.unwrap_or_else(|| self.hostname.clone()),
            queue_id: posted.queue_id,
            began: arrived,
            arrived,
            client: posted.client,
            helo: posted.helo,
            authenticated: posted.authenticated,
            mail_from: posted::path(&posted.mail_from),
            envelope_id: posted.envelope_id,
            recipients: recipients.collect(),
            message: posted.header,
            spam_field: self.tap.settings().spam_field.clone(),
        };
        match posted.said {
            Some(said) => drop(self.tap.take_verified(seen, said, posted.spam).await),
            // Why its header only: a signature over a body that is not there proves less.
            None => drop(self.tap.take(seen, Kept::Header).await),
        }
        (StatusCode::NO_CONTENT, String::new())
    }

    /// Whether the client shows the token. Compared by hashes, in constant time.
    fn knows(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown = shown.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        blake3::hash(shown.as_bytes()) == blake3::hash(token.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::guard::tap::tests::tap;

    const OWN: &[u8] = br#"{"mail_from":"joe@far.example","recipients":["alice@ours.example"],
        "client_ip":"192.0.2.55","header":"From: joe@far.example\n\n"}"#;

    fn headers(token: &str) -> HeaderMap {
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        HeaderMap::from_iter([(AUTHORIZATION, value)])
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_posted_with_the_token_is_remembered() {
        let (tap, shelf) = tap(std::time::Duration::ZERO);
        let token = Some("secret".to_owned());
        let import = Import { tap, hostname: "mx.ours.example".to_owned(), token };
        let own = |text: &'static [u8]| move || posted::own(text);
        for wrong in [HeaderMap::new(), headers("secre"), headers("")] {
            assert_eq!(import.take(&wrong, own(OWN)).await.0, StatusCode::UNAUTHORIZED);
        }
        let right = headers("secret");
        assert_eq!(import.take(&right, own(b"{")).await.0, StatusCode::BAD_REQUEST);
        assert!(shelf.records.lock().unwrap().is_empty());
        assert_eq!(import.take(&right, own(OWN)).await.0, StatusCode::NO_CONTENT);
        let record = shelf.records.lock().unwrap().pop().unwrap();
        assert_eq!((record.tap, record.host.as_str()), (TapKind::Http, "mx.ours.example"));
        // We looked ourselves, as the program did not.
        assert_eq!(record.findings[0].spf.len(), 1);
        let said: &[u8] =
            br#"{"score":0,"from":"joe@far.example","symbols":[{"name":"R_SPF_FAIL"}]}"#;
        let answer = import.take(&right, || posted::rspamd(said)).await;
        assert_eq!(answer.0, StatusCode::NO_CONTENT);
        let record = shelf.records.lock().unwrap().pop().unwrap();
        assert_eq!(record.findings[0].spf[0].result, crate::judge::evidence::AuthResult::Fail);
    }
}
