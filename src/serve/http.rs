//! HTTP/1.1 for a few local clients: the administration socket, metrics, what other programs post.
//!
//! Takes: a listener and a router. Bounds: `limits::HTTP_CLIENTS_MAX` connections at once, each for
//! `limits::HTTP_CONNECTION_MAX` at the longest; who is one too many waits in the system's queue.

use std::sync::Arc;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tracing::debug;

use crate::mail::limits::{HTTP_CLIENTS_MAX, HTTP_CONNECTION_MAX};
use crate::serve::listen::{Listener, Peer};
use crate::serve::smtp::Stopping;

/// Serves until the server stops.
pub async fn serve(listener: Listener, router: Router, mut stopping: watch::Receiver<Stopping>) {
    let places = Arc::new(Semaphore::new(HTTP_CLIENTS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Some(peer) = listener.next(&mut stopping).await else { return };
        let router = router.clone();
        tokio::spawn(async move {
            match peer {
                Peer::Tcp(stream, _) => talk(stream, router).await,
                Peer::Unix(stream) => talk(stream, router).await,
            }
            drop(place);
        });
    }
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HTTP_CONNECTION_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match timeout(HTTP_CONNECTION_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => debug!(%fault, "an HTTP client"),
        Err(_) => debug!("an HTTP client stayed for too long"),
    }
}
